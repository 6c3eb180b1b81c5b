/* model_rig.h - what a worker gets from llmd, made by the test itself: segments, descriptors, pages.
 *
 * A rig is one group: weights and group segments sized by runtime_inspect(), a KV pool, and one runtime
 * for each rank, the followers on threads of this process.  With device=cuda and the fake driver the memory of its GPUs
 * is kept by the rig, as llmd would.  Sequences are plain token lists whose pages
 * are taken from the pool in a scattered order, so that nothing works by luck of neighbouring pages. */
#ifndef LLMD_TESTS_MODEL_RIG_H
#define LLMD_TESTS_MODEL_RIG_H

#include <pthread.h>
#include <semaphore.h>

#include "gpu-worker/chunk_road.h"
#include "gpu-worker/runtime.h"

enum { RIG_RANKS_MAX = 4 };

/* A rank that follows. */
struct rig_follower {
    struct rig *rig;
    uint32_t rank;
    pthread_t thread;
    sem_t is_open;
    bool loaded;
};

struct rig {
    struct config config;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct segment weights[RIG_RANKS_MAX]; /* as llmd keeps them */
    struct segment group;
    struct kvpool pool;
    struct stats stats; /* of all ranks */
    struct chunk_road roads[RIG_RANKS_MAX];
    struct runtime *ranks[RIG_RANKS_MAX];
    struct rig_follower followers[RIG_RANKS_MAX];
    uint32_t epoch, cursor;
    float *logits; /* [max_num_seqs, vocab_size] */
};

struct rig_seq {
    uint32_t n_cached; /* tokens whose KV is written */
    uint32_t n_pages;
    uint32_t pages[512];
};

/* Settings as "name=value" strings, NULL-terminated, over built-in ones that suit tests. */
void rig_open(struct rig *r, const char *dir, const char *const *settings);
void rig_close(struct rig *r);
void rig_close_ranks(struct rig *r);    /* its two halves, for a test that starts */
void rig_close_segments(struct rig *r); /* ranks in its own way */

/* Kill the runtimes in good order and open them again with the next epoch; the segments stay.  Returns
 * how many ranks had to load weights. */
int rig_restart(struct rig *r);

void rig_release(struct rig *r, struct rig_seq *s);

/* Run tokens[0..n-1] as the next tokens of one sequence, in chunks of at most `chunk`; the logits of the
 * last are in r->logits[0]. */
void rig_prefill(struct rig *r, struct rig_seq *s, const int32_t *tokens, uint32_t n,
                 uint32_t chunk);

/* What a step is to tell: r->logits of these rows, and runtime_hidden() of all. */
struct rig_wanted {
    const uint32_t *logit_rows; /* [n_logits] ascending */
    uint32_t n_logits;          /* at most max_num_seqs */
    bool hidden;
};

void rig_step_for(struct rig *r, struct rig_seq *const *seqs, const int32_t *const *tokens,
                  const uint32_t *n, uint32_t n_seqs, const struct rig_wanted *wanted);

/* One step: sequence i gets its n[i] next tokens.  r->logits[i] are those of each last token. */
void rig_step(struct rig *r, struct rig_seq *const *seqs, const int32_t *const *tokens,
              const uint32_t *n, uint32_t n_seqs);

int32_t rig_argmax(const struct rig *r, uint32_t i);

#endif
