/* requests.h - the answer to `llmctl requests`: every sequence that the ledgers hold, and those that were ended
 * because they had been running at crashes. */
#ifndef LLMD_SUPERVISOR_REQUESTS_H
#define LLMD_SUPERVISOR_REQUESTS_H

#include "common/arena.h"
#include "proto/frame.h"
#include "proto/ledger.h"

/* Rows that fit into one answer; further ones are counted in reply->requests_left_out. */
enum { REQUESTS_MAX = 1024 };

/* Add what the ledger of one group says to reply->requests, which has room for REQUESTS_MAX: poisoned sequences,
 * the newest first; all others, in the order they were accepted.  a: takes the texts. */
void requests_add_poisoned(const struct ledger *l, uint32_t group, uint64_t now_ns,
                           Llmd__CtlReply *reply, struct arena *a);
void requests_add_held(const struct ledger *l, uint32_t group, uint64_t now_ns,
                       Llmd__CtlReply *reply, struct arena *a);

struct llmd;

void requests_answer(const struct llmd *l, Llmd__CtlReply *reply, struct arena *a);

#endif
