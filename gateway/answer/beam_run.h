/* beam_run.h - the beam searches of a request, one for each prompt, step by step over the groups.
 *
 * In each step every live beam is a sequence of its own: prompt and tokens so far as its prompt, one token
 * to generate, and the likeliest tokens in its place as the answer.  Its full pages are its parent's, and the
 * worker's prefix cache has them: a step computes of a beam what its last page holds, with pages of 16
 * tokens eight and a half rows in the mean, however long prompt and text are.
 *
 * Crash.  A worker's death is what it is to any sequence.  A gateway's successor begins the search
 * again: it finds the same beams, for nothing but log probabilities decides, and finds them quickly, for their
 * pages are in the cache.  No sequence of a search is in the connection's record. */
#ifndef LLMD_GATEWAY_ANSWER_BEAM_RUN_H
#define LLMD_GATEWAY_ANSWER_BEAM_RUN_H

#include "gateway/request.h"
#include "gateway/upstream.h"

struct beam_run;

/* All searches are over and the request's choices are filled and ended; or f says why not. */
typedef void beam_run_done_fn(void *owner, const struct fault *f);

/* rq, with its choices made, and u are borrowed until beam_run_free(). */
struct beam_run *beam_run_new(struct request *rq, struct upstream *u, beam_run_done_fn *on_done,
                              void *owner);
void beam_run_start(struct beam_run *r);
/* Nothing runs any more; on_done is not called.  Fine for one that is over. */
void beam_run_cancel(struct beam_run *r);
/* End it here: the choices get what there is, as aborted. */
void beam_run_abort(struct beam_run *r);
void beam_run_free(struct beam_run *r); /* NULL is fine */

/* When its first token came, CLOCK_MONOTONIC; 0 = none has. */
uint64_t beam_run_first_token_ns(const struct beam_run *r);

#endif
