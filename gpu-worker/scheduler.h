/* scheduler.h - which sequences run in the next step, and how many rows each has.
 *
 * Pure: it reads no clock and no random number, so a test can replay any schedule exactly, and one rank
 * alone decides.  Iteration-level batching: Yu et al., OSDI 2022; chunked prefill: Agrawal et al. 2023,
 * arXiv:2308.16369; preemption by recompute: Kwon et al. 2023, arXiv:2309.06180.
 *
 * The running set has at most max_num_seqs sequences, and no more than a step has rows, so a decode row
 * for each of them always fits.  A step is planned in three passes:
 *
 *   1. grow    each running sequence, first to last, gets the pages for its next rows; when none is
 *              free, the last of the running set gives all of its own back and waits again
 *   2. admit   waiting sequences, first to last, while there is a place and pages for all their tokens
 *              and one more page for each one running; the first that does not fit blocks those behind
 *              it, or takes the places of running ones with lower priority.  What it takes from the prefix
 *              cache (kvcache.h) is computed already
 *   3. rows    one row for each sequence in decode, then prefill chunks with what is left of
 *              max_num_batched_tokens, or with what the caller allows beside decode rows, if that is less
 *
 * Prompts share their rows by priority, and within one the shortest rest goes first: so the mean time to
 * the first token is the least (Schrage 1968), and a short prompt does not wait for a long one.  A
 * quarter of the rows is for the first of all in any case, one in four where rows are few, so none that is being
 * read stands still for ever: the one before it ends, and then it is the first.
 *
 * "First" is sequence_goes_before(): a total order that never changes for a pair.  The first of all
 * cannot be preempted and alone it fits the pool (checked at SUBMIT): a page is free, or cached and can be
 * evicted, or a sequence behind it uses it and is preempted.  No page is held by another group.  So it always
 * gets on, finishes, and there is another first: no livelock, and within a priority no starvation.
 *
 * Tokens of a prompt whose log probabilities are wanted are measured by the logits of the rows before them, and a
 * step has room for few logits (BATCH_EXTRA_LOGITS): such prompts share these in the same order, so they
 * are read in small chunks.
 *
 * When nothing is read, rows may be left for drafts (speculation.h), a fair share for each stream; they take a
 * page only when one is free.
 *
 * A sequence is held back, and others may pass it, while one that goes before it is computing what both begin
 * with, if that is a page or more beyond what is found: it finds them when they are sealed, so a prompt that many send at once is
 * computed once.  Whoever it waits for is running and goes before it, so there is no circle, and it waits no longer
 * than that one needs for those pages; when that one is preempted or ends, it waits no more.  So is one whose pages
 * are brought back from the host tier: for as long as copies take that each bring it further. */
#ifndef LLMD_GPU_WORKER_SCHEDULER_H
#define LLMD_GPU_WORKER_SCHEDULER_H

#include "gpu-worker/kvcache.h"
#include "gpu-worker/step_pace.h"

struct scheduler_limits {
    uint32_t max_num_seqs;
    uint32_t max_num_batched_tokens;
    uint32_t sequences_max; /* waiting and running */
};

struct plan_item {
    struct sequence *sequence;
    uint32_t n_rows;
    bool
        wants_logits; /* its last row is the sequence's last token, or a draft behind that; it generates */
    uint32_t n_drafts;   /* so many of its rows; they lie behind the sequence's tokens, uncounted */
    uint32_t n_measures; /* tokens of the prompt that its rows measure, from .n_measured on */
};

/* What the caller allows for a step. */
struct plan_limits {
    uint32_t prompt_rows; /* beside decode rows; 0 = none in this step */
    uint32_t draft_rows;  /* when there are no others */
};

struct plan {
    struct plan_item *items; /* [max_num_seqs] */
    uint32_t n_items;
    uint32_t n_rows;
    uint32_t n_streams;   /* items that are one decode row, and drafts */
    uint32_t n_drafts;    /* of all items */
    uint32_t n_preempted; /* while this plan was made */
    uint64_t n_looked_up; /* tokens of sequences that began to run with it */
    uint64_t n_found;     /* of these, in the prefix cache */
};

struct scheduler {
    struct kvcache *cache; /* borrowed */
    uint32_t running_max;
    uint32_t max_num_batched_tokens;
    uint32_t sequences_max;
    struct sequence **running; /* first to last */
    struct sequence **waiting; /* first to last */
    struct sequence **reading; /* [running_max] scratch: those that get prefill rows */
    uint32_t n_running, n_waiting;
    uint32_t quarters_owed; /* of a row, to the first one that is read */
    uint32_t n_suspects;    /* of both; while there are any, one at a time runs, alone */
    struct plan plan;
};

void scheduler_init(struct scheduler *s, const struct scheduler_limits *limits,
                    struct kvcache *cache);
void scheduler_fini(struct scheduler *s);

/* Put a WAITING sequence in the queue; one that has KV pages (adopted from a dead predecessor) runs at
 * once, since only the running set may hold pages. */
void scheduler_add(struct scheduler *s, struct sequence *q);

/* Take a live sequence out, finished or cancelled, and give its pages back.  Its state is the caller's. */
void scheduler_remove(struct scheduler *s, struct sequence *q);

/* A suspect made a token: it is none any more. */
void scheduler_acquit(struct scheduler *s, struct sequence *q);

/* Streams are running sequences that have one row to do, and prompts those that have more, or that wait where there is
 * a place for them. */
struct step_pace_load scheduler_load(const struct scheduler *s);

/* Plan one step.  The plan is the scheduler's own and valid until the next call; n_items is 0 when there
 * is no live sequence, or when pages are in quarantine or on their way back, and never else. */
const struct plan *scheduler_plan(struct scheduler *s, const struct plan_limits *limits);

#endif
