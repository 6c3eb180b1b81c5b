/* account.h - what the statistics are told of a request that ended well. */
#ifndef LLMD_GATEWAY_ADMISSION_ACCOUNT_H
#define LLMD_GATEWAY_ADMISSION_ACCOUNT_H

#include "gateway/request.h"

/* How long its parts took, how many tokens of each kind it had, and what its dialect counts.  went_ns: its turn came; first_token_ns: 0 when it
 * had none.  Times before these are of the same clock, whichever gateway they were noted by. */
void account_parts(struct stats *stats, const struct request *rq, uint64_t went_ns,
                   uint64_t first_token_ns);

#endif
