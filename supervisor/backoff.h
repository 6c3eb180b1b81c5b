/* backoff.h - how long to wait before something that died is started again. */
#ifndef LLMD_SUPERVISOR_BACKOFF_H
#define LLMD_SUPERVISOR_BACKOFF_H

#include <stdint.h>

#include "common/config.h"

struct backoff {
    uint64_t pause_ms; /* newest pause; 0 = none yet */
    uint32_t deaths;   /* in this row */
};

/* One more death: the pause before the next start, in milliseconds.  served_ns: how long it had been in
 * service when it died, 0 = it never was.
 *
 * backoff_ms, doubling to backoff_max_ms; backoff_reset_s of service begin a new row.  The first death
 * of a row costs no pause if it interrupted service: a crash once in a while is to be a hiccup for the
 * clients, and the pauses are there against crash loops. */
uint64_t backoff_next_ms(struct backoff *b, const struct config *c, uint64_t served_ns);

#endif
