/* admission.h - how many generation requests may be in the house at once.
 *
 * A permit is taken when the head of a request is complete, before its body is read, and given back
 * when the request is over, whatever became of it.  All threads share the one count. */
#ifndef LLMD_GATEWAY_ADMISSION_H
#define LLMD_GATEWAY_ADMISSION_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "proto/stats.h"

struct admission {
    _Atomic uint64_t permits_max; /* LIVE setting max_concurrent_requests */
    _Atomic uint64_t taken;
    struct stats *stats; /* keeps the gauge requests_active equal to taken; borrowed */
};

void admission_init(struct admission *a, uint64_t permits_max, struct stats *stats);
/* A smaller limit takes nothing from those inside. */
void admission_set_max(struct admission *a, uint64_t permits_max);
/* False: full, nothing was taken. */
bool admission_take(struct admission *a);
/* The permit of a request that a dead gateway had let in: there is one, whatever the limit. */
void admission_take_over(struct admission *a);
void admission_give(struct admission *a);
uint64_t admission_taken(const struct admission *a);

#endif
