/* engine_rig.h - segments, settings and an engine over the fake runtime, for tests of the whole. */
#ifndef LLMD_TESTS_ENGINE_RIG_H
#define LLMD_TESTS_ENGINE_RIG_H

#include "fake_runtime.h"
#include "gateway_client.h"
#include "gpu-worker/engine.h"

struct rig_shape {
    uint32_t n_entries, tokens_max, n_pages, page_tokens;
    uint32_t max_num_seqs, max_num_batched_tokens;
};

struct rig {
    char instance[32];
    struct board board;
    struct ledger ledger;
    struct kvpool pool;
    struct config config;
    uint32_t epoch;
    uint32_t group, n_groups; /* 0 of 1, unless the test says more */
    struct runtime *runtime;
    struct link *link;
    struct engine *engine;
};

extern const struct rig_shape rig_roomy; /* nothing runs out */
extern const struct rig_shape rig_tight; /* pages, rows and entries run out all the time */

void rig_make_segments(struct rig *r, const struct rig_shape *shape);
/* Bind the link and start the engine, epoch + 1. */
void rig_start(struct rig *r);
/* Stop it as a crash would: ledger and pool stay as they are. */
void rig_stop(struct rig *r);
void rig_close(struct rig *r);

struct stats *rig_stats(const struct rig *r);

/* Let engine and client take turns until done(arg); the test fails after ten seconds. */
void rig_until(struct rig *r, struct client *c, bool (*done)(const void *arg), const void *arg);
void rig_until_all_over(struct rig *r, struct client *c);
/* Until nothing is left: every entry free. */
void rig_until_empty(struct rig *r, struct client *c);
/* A turn of each, without waiting for anything. */
void rig_turn(struct rig *r, struct client *c);

/* No entry, no page but cached ones, no pin, and everything accepted is accounted for. */
void rig_assert_clean(const struct rig *r);

/* Tokens an undisturbed run must give; returns how many.  logprobs may be NULL. */
uint32_t rig_expect(const struct client_request *r, int32_t *tokens, float *logprobs);

/* What must be said of each token of the prompt: out[n_prompt]. */
void rig_expect_prompt(const struct client_request *r, struct client_measure *out);
/* [FAKE_HIDDEN] of a pooled request. */
void rig_expect_embedding(const struct client_request *r, float *out);

/* A request number i of a mixed load: its prompt is written to prompt[64]. */
struct client_request rig_mixed_request(uint32_t i, int32_t *prompt, Llmd__LogitBias *bias,
                                        Llmd__LogitBias **list);
/* An embedding of a prompt of such a load. */
struct client_request rig_pooled_request(uint32_t i, int32_t *prompt);
/* The stream ended by itself with exactly the expected tokens, log probabilities and embedding. */
void rig_assert_expected(const struct client_stream *s, const struct client_request *r);

#endif
