/* gpus.h - fake GPUs below a server under test (tests/cuda/fake): their settings, their fault script while it runs, and
 * what lies in their memory.
 *
 * A folder of its own has everything: `state/` what all processes of the server share and the script (tests/cuda/fake/folder.h),
 * `model/` a Llama so small that kernels on a CPU are quick, and `a/tiny` and `b/tiny`, which are links to it: for llmd two
 * models that answer alike. */
#ifndef LLMD_TESTS_CHAOS_GPUS_H
#define LLMD_TESTS_CHAOS_GPUS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

enum { GPUS_N = 2, GPUS_VOCAB = 680 /* of the tokenizer of tests/vectors/tokenizer/llama3 */ };

struct gpus {
    const char *libraries; /* folder of the fake NVIDIA libraries */
    char dir[64], state[80];
    char models[2][80];
    uint32_t model;   /* of those, which one is served */
    uint32_t n_rules; /* so far: none is the same line as another */
};

/* tokenizer: a model directory whose tokenizer files are taken. */
bool gpus_open(struct gpus *g, const char *libraries, const char *tokenizer, struct err *e);
void gpus_close(struct gpus *g);

/* Settings for the programs of the server; called in the child before exec(). */
void gpus_environment(const struct gpus *g);

/* From now on this is the whole script: one rule without its comment, or "" for none. */
void gpus_set_rule(struct gpus *g, const char *rule);
/* How many rules have fired since gpus_open(), those that repeat not counted. */
uint32_t gpus_n_fired(const struct gpus *g);

bool gpus_is_lost(const struct gpus *g, uint32_t gpu);
/* Give it back: what its memory held is for llmd and the workers to forget. */
void gpus_reset(const struct gpus *g, uint32_t gpu);

/* NVML tells of this Xid of the GPU. */
void gpus_report_xid(const struct gpus *g, uint32_t gpu, const char *xid);

/* Pieces of GPU memory that somebody holds: by a descriptor or a mapping. */
uint32_t gpus_n_held(const struct gpus *g);
/* A descriptor of our own of the first piece that process `pid` has a descriptor of; -1: it has none. */
int gpus_hold_one_of(const struct gpus *g, pid_t pid);

#endif
