/* sequence.h - one token stream being generated: its ledger entry, and what the worker knows beside it.
 *
 *   FREE --store, load--> WAITING <--> RUNNING --finish--> DONE --ACK--> FREE
 *                            |  (scheduler)  |
 *                            +---finish------+--cancel--> FREE
 *
 * Before it generates, a sequence may owe things of its prompt: log probabilities of its tokens, or an embedding.
 * Then KV that others computed is of no use for what is still owed, and the end may come with the prompt.
 *
 * What must survive is in the entry and is written in the order of ledger_layout.h; the rest (how much
 * KV is computed, what was delivered) is rebuilt.  One function makes the struct from an entry, for a
 * sequence just submitted and for one that a dead predecessor left. */
#ifndef LLMD_GPU_WORKER_SEQUENCE_H
#define LLMD_GPU_WORKER_SEQUENCE_H

#include "gpu-worker/sampler.h"
#include "gpu-worker/speculation.h"
#include "proto/ledger.h"

enum sequence_state { SEQUENCE_FREE, SEQUENCE_WAITING, SEQUENCE_RUNNING, SEQUENCE_DONE };

struct sequence {
    enum sequence_state state;
    uint32_t index; /* of its ledger entry and of this struct */
    struct ledger_entry *entry;
    uint64_t id;
    uint32_t peer;

    /* the request */
    Llmd__Submit *request; /* owned, unpacked from the entry; without prompt and generated */
    int32_t *tokens;       /* in the ledger: prompt, then generated */
    uint32_t n_prompt, n_generated;
    uint32_t generated_max;  /* max_tokens, or what the context leaves of it */
    uint32_t n_measured;     /* tokens of the prompt with log probabilities in the ledger */
    Llmd__Finish finish_due; /* how it ends with its prompt; NONE = it generates */

    /* scheduling */
    uint64_t order;      /* of arrival, unique; after the priority it decides who goes first */
    uint32_t n_computed; /* tokens whose KV is committed */
    uint32_t n_pages;
    uint32_t *pages; /* in the ledger */
    bool suspect;    /* ran at two crashes: runs alone until it makes a token (recovery.c) */
    struct speculation speculation;
    const struct sequence *held_by; /* it computes tokens that this one begins with (scheduler.c) */
    uint64_t held_order;            /* .order of that one */
    uint32_t held_until;            /* .n_computed of that one */
    uint64_t
        waits_for_pages; /* number of the pages that are brought back for it (kvcache.h); 0: none were */
    uint32_t n_brought; /* 1 + pages that it had found when they were */
    uint64_t
        wishes_until_ns; /* for so long it waits for what another group has; 0: it asked for nothing */

    /* delivery */
    uint32_t n_sent;        /* generated tokens that were given to the link */
    uint32_t n_prompt_sent; /* of n_measured, so many were, or are not needed */
    bool finish_sent;       /* so was the finish */
    bool resync_due;        /* say nothing until its gateway said what it holds */
    bool in_outbox;         /* has something to send (delivery.c) */
    bool is_listed;         /* scratch of one RESYNC */
    uint32_t next_hash;     /* chain of the sequence table */
};

static inline uint32_t sequence_n_tokens(const struct sequence *s)
{
    return s->n_prompt + s->n_generated;
}

/* Tokens of the prompt that are still to be measured. */
static inline uint32_t sequence_n_unmeasured(const struct sequence *s)
{
    return s->request->want_prompt_logprobs ? s->n_prompt - s->n_measured : 0;
}

static inline bool sequence_is_pooled(const struct sequence *s)
{
    return s->request->pooling != LLMD__POOLING__POOL_NONE;
}

/* Something of its prompt is still to be computed for the client. */
static inline bool sequence_owes_prompt(const struct sequence *s)
{
    return sequence_is_pooled(s) || sequence_n_unmeasured(s) > 0;
}

/* How many of its first tokens may come with KV that is there already: not the last, whose logits are wanted, and
 * none whose own are.  The row of a token gives the measure of the next. */
static inline uint32_t sequence_n_findable(const struct sequence *s)
{
    if (s->request->pooling == LLMD__POOLING__POOL_MEAN)
        return 0;
    return sequence_n_unmeasured(s) > 0 ? s->n_measured - 1 : sequence_n_tokens(s) - 1;
}

static inline int32_t sequence_priority(const struct sequence *s)
{
    return s->request->priority;
}

static inline bool sequence_is_live(const struct sequence *s)
{
    return s->state == SEQUENCE_WAITING || s->state == SEQUENCE_RUNNING;
}

/* Lower priority number first, then order of arrival.  Never equal for two sequences. */
bool sequence_goes_before(const struct sequence *a, const struct sequence *b);

/* Bytes that the entry's request area needs for this SUBMIT. */
size_t sequence_request_bytes(const Llmd__Submit *submit);

/* Write a free entry and make it LIVE: on return the sequence is accepted.  The SUBMIT was checked. */
void sequence_store(const struct ledger *l, struct ledger_entry *entry, const Llmd__Submit *submit,
                    uint32_t peer, uint64_t now_ns);

/* Fill *s from a LIVE or DONE entry.  context_max: tokens of a sequence.  ERR_PROTO when the entry does
 * not hold together. */
bool sequence_load(struct sequence *s, const struct ledger *l, uint32_t index, uint32_t context_max,
                   struct err *e);

/* Free what sequence_load() took; the entry is not touched. */
void sequence_unload(struct sequence *s);

/* Append one generated token, with its measures when log probabilities are wanted. */
void sequence_append(struct sequence *s, const struct ledger *l, const struct sampler_output *out);

/* Append the measure of the next token of the prompt. */
void sequence_measure(struct sequence *s, const struct ledger *l, const struct sampler_output *out);

/* Store its embedding; n = the ledger's embedding_max at most. */
void sequence_embed(struct sequence *s, const struct ledger *l, const float *values, uint32_t n);

/* Whether the tokens there are end it: EOS, stop token, length, or that none are wanted; LLMD__FINISH__FINISH_NONE =
 * goes on. */
Llmd__Finish sequence_check_finish(const struct sequence *s, const int32_t *eos, uint32_t n_eos);

/* Mark the entry DONE.  error: for FINISH_ERROR, else NULL. */
void sequence_finish(struct sequence *s, Llmd__Finish finish, const char *error);

#endif
