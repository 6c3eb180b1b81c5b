/* exchange_state.h - what the files of an exchange share; nobody else includes it. */
#ifndef LLMD_GATEWAY_EXCHANGE_STATE_H
#define LLMD_GATEWAY_EXCHANGE_STATE_H

#include "gateway/thread.h"

static inline struct stats *exchange_stats(const struct exchange *x)
{
    return x->thread->service->stats;
}

static inline struct admission *exchange_admission(const struct exchange *x)
{
    return &x->thread->service->admission;
}

/* exchange_generate.c: the body is read and is to be generated: have it wait for its turn, then exchange_go(). */
void exchange_generate(struct exchange *x);

#endif
