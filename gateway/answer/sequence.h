/* sequence.h - one token stream being generated, as the gateway sees it.
 *
 *             submit()            SUBMIT sent            ACCEPTED or TOKENS
 *    NEW ----------------> WAITING ----------> SUBMITTED ----------> RUNNING
 *                            ^  ^                  |  REFUSED(FULL)     |
 *                            |  +------------------+  FINISH_UNKNOWN    |
 *                            +------------------------------------------+  its group is gone
 *    any of these --- finish, fault, cancel ---> ENDED
 *
 * Owner: the request (generation.h).  upstream.h borrows it from upstream_submit() until ENDED.  What
 * is asked (submit, sampling) never changes; the tokens only grow, so an index into them stays true
 * over any number of restarts of the group. */
#ifndef LLMD_GATEWAY_ANSWER_SEQUENCE_H
#define LLMD_GATEWAY_ANSWER_SEQUENCE_H

#include <stdint.h>

#include "gateway/fault.h"
#include "proto/llmd.pb-c.h"

enum sequence_state {
    SEQUENCE_NEW,
    SEQUENCE_WAITING,   /* for a group to take it */
    SEQUENCE_SUBMITTED, /* sent, no answer yet */
    SEQUENCE_RUNNING,   /* in the group's ledger */
    SEQUENCE_ENDED,     /* finish or fault says how */
};

struct sequence;

/* Called by upstream for every change worth knowing: accepted, more tokens, ended.  It may cancel this
 * or any other sequence, and submit new ones. */
typedef void sequence_progress_fn(struct sequence *s);

struct token_logprob {
    float logprob;
    uint32_t rank;
    uint32_t n_top; /* valid entries of top */
};

struct token_top {
    int32_t token;
    float logprob;
};

struct sequence {
    uint64_t id;
    enum sequence_state state;
    uint32_t group; /* last submitted to */

    /* what is asked; .prompt and lists borrowed from the request */
    Llmd__Submit submit;
    Llmd__Sampling sampling;
    uint64_t deadline_ns; /* 0 = none */

    /* what has come */
    int32_t *tokens; /* [n_tokens], owned */
    uint32_t n_tokens, tokens_cap;
    struct token_logprob *logprobs; /* [n_tokens] when asked for, owned */
    struct token_top *top;          /* [n_tokens][sampling.top_logprobs], owned */
    /* With submit.want_prompt_logprobs: whole before the first token, in part before that.  Position 0 has
     * rank 0 and says nothing. */
    struct token_logprob *prompt_logprobs; /* [n_prompt_logprobs], owned */
    struct token_top *prompt_top; /* [n_prompt_logprobs][submit.prompt_top_logprobs], owned */
    uint32_t n_prompt_logprobs;   /* submit.n_prompt when they are whole */
    float *embedding;             /* [n_embedding], not normalised; with FINISH_EMBEDDED, owned */
    uint32_t n_embedding;
    Llmd__Finish finish; /* FINISH_NONE while it goes on, or when fault is set */
    struct fault fault;
    uint64_t queue_ns;
    uint32_t cached_tokens;
    uint64_t first_token_ns, last_token_ns; /* monotonic, of their arrival */

    sequence_progress_fn *on_progress;
    void *owner;

    /* upstream's */
    struct sequence *prev, *next; /* waiting list, or its group's list */
    struct sequence *hash_next;
    uint64_t waiting_since_ns;
    uint32_t resubmissions;
    bool is_kept; /* ENDED, and the group still has it */
};

/* Zeroed storage in, a new sequence out; the caller then fills submit and sampling. */
void sequence_init(struct sequence *s);
/* Not while upstream has it. */
void sequence_fini(struct sequence *s);

/* Append tokens [from, msg->n_tokens) of a message, with their logprobs. */
void sequence_append(struct sequence *s, const Llmd__SequenceTokens *msg, uint32_t from);

/* Say in s->submit which tokens there are, with their log probabilities; until sequence_unlist(). */
void sequence_list_tokens(struct sequence *s);
void sequence_unlist(struct sequence *s);

/* Take what a message has of the prompt's log probabilities beyond those that are there.  msg->prompt_index
 * leaves no gap; what would be more than the prompt is dropped. */
void sequence_append_prompt(struct sequence *s, const Llmd__SequenceTokens *msg);
void sequence_set_embedding(struct sequence *s, const float *values, size_t n);

/* Log probabilities of the prompt were asked for, and some are still to come. */
static inline bool sequence_awaits_prompt(const struct sequence *s)
{
    return s->submit.want_prompt_logprobs && s->n_prompt_logprobs < s->submit.n_prompt;
}

static inline const struct token_top *sequence_prompt_top(const struct sequence *s, uint32_t i)
{
    return s->prompt_top + (size_t)i * s->submit.prompt_top_logprobs;
}

static inline const struct token_top *sequence_top(const struct sequence *s, uint32_t i)
{
    return s->top + (size_t)i * s->sampling.top_logprobs;
}

#endif
