/* backoff.c - the arithmetic of patience; pure, so that tests need no clock. */
#include "supervisor/backoff.h"

#include "common/clock.h"

void backoff_service(struct backoff *b, uint64_t now_ns)
{
    b->in_service_ns = now_ns;
}

uint64_t backoff_death(struct backoff *b, const struct config *c, uint64_t now_ns)
{
    uint64_t pause_ms = c->backoff_ms;

    if (b->in_service_ns && now_ns - b->in_service_ns >= c->backoff_reset_s * NS_PER_S)
        b->n_deaths = 0;
    b->in_service_ns = 0;
    b->n_deaths++;
    for (uint32_t i = 1; i < b->n_deaths && pause_ms < c->backoff_max_ms; i++)
        pause_ms *= 2;
    if (pause_ms > c->backoff_max_ms)
        pause_ms = c->backoff_max_ms;
    return pause_ms * NS_PER_MS;
}
