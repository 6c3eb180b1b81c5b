/* exchange_answer.h - what goes out for an exchange, and its end, counted once.
 *
 * A whole answer, or a stream of pieces in the order that its tokens alone decide; a refusal, or the end of a stream by
 * a fault.  What a dead gateway had written is written again, piece by piece, and dropped by the connection. */
#ifndef LLMD_GATEWAY_EXCHANGE_ANSWER_H
#define LLMD_GATEWAY_EXCHANGE_ANSWER_H

#include "gateway/exchange.h"

/* It is over, for this cause: once for each request. */
void exchange_account(struct exchange *x, enum stat_id cause, const char *outcome);
/* Nothing of it is computed any more. */
void exchange_cancel(struct exchange *x);

/* Nothing was answered yet: say why not. */
void exchange_refuse(struct exchange *x, const struct fault *f);
/* The answer cannot be completed.  What has been sent stands; the stream's last event says why. */
void exchange_fail(struct exchange *x, const struct fault *f);
/* c has failed: the tokens that came with that, or before it, are shown first. */
void exchange_fail_choice(struct exchange *x, struct choice *c);
/* Write what there is to be written. */
void exchange_pump(struct exchange *x);
/* Timer of a stream that is quiet. */
void exchange_keep_alive(void *arg);

#endif
