/* arrival.h - what a worker's message brings to a sequence: each thing once, and in order.
 *
 * Tokens carry their index, and so do log probabilities of a prompt: what is there already is dropped, and what would leave
 * a gap is not taken.  So a message may come twice, and one that is lost may be asked for again. */
#ifndef LLMD_GATEWAY_ANSWER_ARRIVAL_H
#define LLMD_GATEWAY_ANSWER_ARRIVAL_H

#include "gateway/answer/sequence.h"
#include "proto/stats.h"

/* Append what is new.  False: something before it is missing, and is to be asked for (RESYNC). */
bool arrival_take(struct sequence *s, const Llmd__SequenceTokens *m, struct stats *stats);

/* After that: m->finish is how it has ended. */
void arrival_finish(struct sequence *s, const Llmd__SequenceTokens *m);

#endif
