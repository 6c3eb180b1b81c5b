/* rate.h - events per second over the last few seconds, from a counter that is read once a second. */
#ifndef LLMD_SUPERVISOR_RATE_H
#define LLMD_SUPERVISOR_RATE_H

#include <stdint.h>

enum { RATE_SAMPLES = 6 };

struct rate {
    uint64_t at_ns[RATE_SAMPLES], count[RATE_SAMPLES]; /* a ring; at_ns 0 = unused */
    uint32_t next;
};

static inline void rate_sample(struct rate *r, uint64_t now_ns, uint64_t count)
{
    r->at_ns[r->next] = now_ns;
    r->count[r->next] = count;
    r->next = (r->next + 1) % RATE_SAMPLES;
}

/* From the oldest sample to now; 0 while there is none. */
static inline double rate_per_s(const struct rate *r, uint64_t now_ns, uint64_t count)
{
    for (uint32_t i = 0; i < RATE_SAMPLES; i++) {
        uint32_t at = (r->next + i) % RATE_SAMPLES; /* oldest first */
        if (r->at_ns[at] && r->at_ns[at] < now_ns && r->count[at] <= count)
            return (double)(count - r->count[at]) * 1e9 / (double)(now_ns - r->at_ns[at]);
    }
    return 0;
}

#endif
