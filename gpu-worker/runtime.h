/* runtime.h - one rank's model, ready to run: weights mapped, ops chosen, threads started, peers joined.
 *
 * The engine (rank 0) plans a batch and calls runtime_forward(); the other ranks sit in
 * runtime_follow(), which receives the same plan through the group segment.  Behind this door are the
 * loaders, models/, backend/, ops/ and comm/; the engine knows none of them.
 *
 * Results do not depend on company (design rule 4): a row's logits are the same bits whatever else is in
 * the batch, however the prompt was chunked, whatever the number of threads and, on the CPU, of ranks. */
#ifndef LLMD_GPU_WORKER_RUNTIME_H
#define LLMD_GPU_WORKER_RUNTIME_H

#include "common/config.h"
#include "common/hash.h"
#include "gpu-worker/batch.h"
#include "proto/frame.h"
#include "proto/gpu_names.h"
#include "proto/kvpool.h"
#include "proto/stats.h"

enum { MODEL_EOS_MAX = 16 };

/* What the engine needs to know of a model. */
struct model_info {
    char name[128]; /* last component of its folder */
    char architecture[64];
    char weights_dtype[16];
    uint32_t vocab_size;
    uint32_t max_model_len; /* the setting, else what the model was made for */
    uint32_t n_layers, n_kv_heads, head_dim;
    uint32_t hidden_size; /* width of the residual stream: floats of an embedding */
    uint64_t parameters;
    int32_t eos[MODEL_EOS_MAX]; /* of config.json and generation_config.json */
    uint32_t n_eos;
    char gpus[GPU_NAMES_BYTES]; /* of --inspect: the ranks', "" = none */
    char gpu_note[GPU_NOTE_BYTES];
};

struct chunk_road;
struct sampler_rows; /* sampler.h */
struct host_tier;
struct kv_tier_data;

struct runtime_boot {
    const struct config *config; /* borrowed during runtime_open() */
    uint32_t group, rank, tp_size, epoch;
    struct kvpool *pool;               /* borrowed for the runtime's life */
    const struct host_tier *host_tier; /* the same; NULL: there is none */
    struct stats *stats;               /* the same; NULL = nothing is counted */
    struct chunk_road
        *road;        /* GPU memory that llmd keeps; borrowed for the runtime's life; NULL: none */
    const char *gpus; /* proto/gpu_names.h; borrowed for the runtime's life; "": any */
    int weights_fd;   /* taken */
    int group_fd;     /* taken */
    int *
        failed_code; /* written when runtime_open() fails: as runtime_exit_code(); NULL = not wanted */
};

struct runtime;

/* Load or map the weights and get ready.  *loaded: this call filled the weights segment.  Mapped weights are
 * verified for a moment, or as a whole when there is doubt, and the rest in the background.  NULL and ERR_MODEL, ERR_PROTO or ERR_SYS. */
struct runtime *runtime_open(const struct runtime_boot *boot, bool *loaded, struct err *e);
void runtime_close(struct runtime *rt); /* NULL is fine */

const struct model_info *runtime_info(const struct runtime *rt);

/* Names everything that decides the bits of a KV page: weights, kernels, number format.  Pages of another
 * identity are another model's. */
struct hash128 runtime_kv_identity(const struct runtime *rt);

/* The same, and of the memory that pages are in: what a ledger lists is in that memory or nowhere. */
struct hash128 runtime_kv_place(const struct runtime *rt);

/* Rank 0: who copies pages to the host tier and back (kv_tier_data.h); NULL when there is no tier.  For the thread
 * that runs the steps, between them. */
const struct kv_tier_data *runtime_kv_tier(const struct runtime *rt);

/* Rank 0: run one step.  logits: [batch->n_logits, vocab_size] float, written but for the rows of draws that were made
 * already.  draws: rows that the runtime may draw from where it has the logits, or NULL; it sets .is_drawn of those that
 * it did, their results are those of sampler_draw().  Returns when every rank is done with the step.  ERR_DEVICE or
 * ERR_PROTO (a peer is gone): the worker must exit. */
bool runtime_forward(struct runtime *rt, const struct batch *batch,
                     const struct sampler_rows *draws, float *logits, struct err *e);

/* Rank 0, while there is nothing to run: do one thing, of some milliseconds at most, that makes later steps faster.
 * *did: there was something, and may be more.  ERR_DEVICE or ERR_PROTO: the worker must exit. */
bool runtime_rest(struct runtime *rt, bool *did, struct err *e);

/* Rank 0, after runtime_forward() has failed: it was for want of memory on the device alone, and nothing is broken.  The
 * step did not happen, and the worker goes on.  False: it must exit. */
bool runtime_forgive(struct runtime *rt, const struct err *e);

/* Rank 0: the last hidden states, behind the model's final norm, of rows first_row .. first_row + n - 1 of the last
 * step, whose batch said wants_hidden.  out: [n, hidden_size] float, written.  ERR_DEVICE: the worker must exit. */
bool runtime_hidden(struct runtime *rt, uint32_t first_row, uint32_t n, float *out, struct err *e);

/* Ranks 1..tp_size-1: run the steps rank 0 announces until runtime_stop() is called there or here. */
bool runtime_follow(struct runtime *rt, struct err *e);

/* What a worker should end with after such a failure (proto/worker_exit.h); rt may be NULL. */
int runtime_exit_code(const struct runtime *rt, const struct err *e);

/* Where the model is computed: "cpu-avx2", "cuda: NVIDIA A10, GPU-..."; for the log. */
const char *runtime_device(const struct runtime *rt);

/* Before runtime_open(), and before any other thread exists: what libraries read of the environment. */
void runtime_environment(const struct config *config);

/* After runtime_close(), or a runtime_open() that failed: a library is still at work on threads of its own, and the process
 * must end by _exit(). */
bool runtime_has_left_threads(void);

/* End runtime_follow() of this rank (any thread) and, on rank 0, of all ranks. */
void runtime_stop(struct runtime *rt);

/* The word that makes the next one who maps these weights verify all of them first.  Set it to 1 in the
 * handler of a fatal signal. */
_Atomic uint32_t *runtime_doubt(struct runtime *rt);

/* The logits of a step are no numbers: have all weights verified, in the background. */
void runtime_doubt_output(struct runtime *rt);

/* Run fn(arg, i) for i in 0..n-1 on the compute threads, the caller included; returns when all are done. */
void runtime_parallel(struct runtime *rt, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n);

/* llm-worker --inspect: read the model's metadata only and fill a plan of what it needs under these
 * settings on this host.  Strings in *plan point into *info, which must outlive it. */
bool runtime_inspect(const struct config *config, struct model_info *info, Llmd__ModelPlan *plan,
                     struct err *e);

#endif
