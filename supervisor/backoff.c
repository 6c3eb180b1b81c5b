/* backoff.c - doubling pauses.  Pure arithmetic; reads no clock. */
#include "supervisor/backoff.h"

#include "common/clock.h"

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t backoff_next_ms(struct backoff *b, const struct config *c, uint64_t served_ns)
{
    if (served_ns >= c->backoff_reset_s * NS_PER_S)
        *b = (struct backoff){ 0 };
    if (b->deaths++ == 0 && served_ns > 0)
        return 0;
    b->pause_ms = smaller(b->pause_ms ? 2 * b->pause_ms : c->backoff_ms, c->backoff_max_ms);
    return b->pause_ms;
}
