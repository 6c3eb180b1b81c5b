/* thinking.h - the end of a thought that has used up its budget.
 *
 *            opening mark                 closing mark
 *   ANSWER ----------------> THOUGHT ------------------> ANSWER
 *                            (n tokens)
 *
 * With n = budget the closing mark comes, token by token, whatever the logits say.  A pure function of the generated
 * tokens: a successor, or another group that was given them, goes on at the same place of the mark.  As vLLM's
 * thinking_token_budget, each thought has the budget for itself. */
#ifndef LLMD_GPU_WORKER_THINKING_H
#define LLMD_GPU_WORKER_THINKING_H

#include "proto/llmd.pb-c.h"

/* The token that must come behind these generated ones; -1: any may.  t may be NULL. */
int32_t thinking_forced(const Llmd__Thinking *t, const int32_t *generated, uint32_t n);

#endif
