/* backoff.h - how long to wait before starting again what has died: doubling, and forgiven after a while of
 * good service. */
#ifndef LLMD_SUPERVISOR_BACKOFF_H
#define LLMD_SUPERVISOR_BACKOFF_H

#include <stdint.h>

#include "common/config.h"

struct backoff {
    uint32_t n_deaths;      /* since it was last forgiven */
    uint64_t in_service_ns; /* CLOCK_MONOTONIC when service began; 0 = not in service */
};

/* Service has begun. */
void backoff_service(struct backoff *b, uint64_t now_ns);

/* A death; returns the pause in ns: backoff_ms * 2^(deaths - 1), at most backoff_max_ms.  A death after
 * backoff_reset_s of service counts as the first. */
uint64_t backoff_death(struct backoff *b, const struct config *c, uint64_t now_ns);

#endif
