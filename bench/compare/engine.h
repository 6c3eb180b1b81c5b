/* engine.h - what the comparison asks of an engine, ours or llama.cpp, so that both run the same workloads.
 *
 * An engine runs steps and keeps the KV of its sequences.  There are two kinds of sequences: the lone one,
 * SEQ_ALONE, for which an engine may set itself up for a single stream, and 0 .. seqs_max-1, which run
 * together.  A step has rows of the lone one only, or of the others only. */
#ifndef LLMD_BENCH_COMPARE_ENGINE_H
#define LLMD_BENCH_COMPARE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

enum { ENGINE_SEQS_MAX = 32, ENGINE_ROWS_MAX = 512, SEQ_ALONE = ENGINE_SEQS_MAX };

struct engine_options {
    const char *model;   /* a GGUF file; ours may also be a model directory */
    const char *library; /* llama.cpp: the folder of its shared objects */
    uint32_t n_threads;
    uint32_t seqs_max;     /* 1..ENGINE_SEQS_MAX */
    uint32_t tokens_alone; /* longest lone sequence */
    uint32_t tokens_a_seq; /* longest of the others */
    bool cpu_clock;        /* measure CPU time, not wall time */
    bool shared_kv;        /* llama.cpp: one KV buffer for all sequences, as its server has it */
    bool pinned;           /* llama.cpp: one thread a core, fixed */
    const char *quantize;  /* ours: quantise at load, "" = as the file has it */
    const char *kv_dtype;  /* ours: setting kv_cache_dtype, NULL = the default */
};

struct engine_info {
    char version[64];
    char variant[160]; /* instruction set and settings that matter, for people */
    uint32_t vocab_size;
};

struct step_part {
    uint32_t seq;   /* SEQ_ALONE, or 0 .. seqs_max-1; each at most once in a step */
    uint32_t start; /* position of the first row; all before it has run */
    uint32_t n_rows;
    const int32_t *tokens; /* [n_rows] */
};

struct engine;

struct engine_class {
    const char *name;
    struct engine *(*open)(const struct engine_options *o, struct engine_info *info, struct err *e);
    void (*close)(struct engine *g); /* NULL is fine */
    /* Forget positions >= start of a sequence. */
    void (*rewind)(struct engine *g, uint32_t seq, uint32_t start);
    /* Run one step, at most ENGINE_ROWS_MAX rows.  logits[n_parts]: filled, the [vocab_size] of the last row of
     * each part, borrowed until the next step. */
    bool (*step)(struct engine *g, const struct step_part *parts, uint32_t n_parts,
                 const float *logits[], struct err *e);
};

extern const struct engine_class engine_llmd, engine_llamacpp;

#endif
