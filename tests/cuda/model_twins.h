/* model_twins.h - whole models on the fake driver's GPU, alone or beside the same model on the CPU that gets the same tokens. */
#ifndef LLMD_TESTS_CUDA_MODEL_TWINS_H
#define LLMD_TESTS_CUDA_MODEL_TWINS_H

#include "tests/cuda/fake/fake_cuda.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/model_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

/* So small that many steps are soon done, and it can be cut in four. */
extern const struct checkpoint_spec gpu_model_small;
/* 2 layers of width 256, and a vocabulary of GPU_MODEL_WIDE_VOCAB: so large that rounding tells. */
enum { GPU_MODEL_WIDE_VOCAB = 512 };
struct checkpoint_spec gpu_model_wide(enum dtype dtype);

/* "device=X" and the others (NULL: none; else with a NULL at the end), over those that keep a run short: 12 sequences, and 64
 * rows in a step. */
void gpu_model_open(struct rig *r, const char *dir, const char *device, const char *const *more);
/* Tokens of 4..100, other ones for each seed. */
void gpu_model_tokens(int32_t *tokens, uint32_t n, uint32_t seed);
/* The next token of a sequence, in a step with n_others: number i has 2 + i * longer tokens before it. */
void gpu_model_decode_in_company(struct rig *r, struct rig_seq *q, int32_t next, uint32_t n_others,
                                 uint32_t longer);
/* Between the logits of the last token of each: the largest difference of one. */
double gpu_model_difference(const struct rig *a, const struct rig *b);
/* What checkpoint_logits() says, in float: [c->spec.vocab] written. */
void gpu_model_exact(const struct checkpoint *c, const int32_t *tokens, uint32_t n, float *logits);
/* Root mean square of the difference, as a share of the wanted's. */
double gpu_model_off_by(const float *got, const float *wanted, size_t n);

/* One that a test makes, runs and removes, beside what the fake driver says of it. */
struct gpu_model {
    struct checkpoint checkpoint;
    struct rig rig;
    struct fake_cuda fake;
};

/* Of width 64, with random weights; more: as gpu_model_open(). */
void gpu_model_make(struct gpu_model *m, uint32_t layers, uint32_t vocab, uint64_t seed,
                    const char *const *more);
void gpu_model_remove(struct gpu_model *m);
struct fake_cuda_counts gpu_model_counts(const struct gpu_model *m);
/* Let its group rest until there is nothing left to do; in how many turns there was. */
uint32_t gpu_model_rest(struct gpu_model *m);

/* One sequence on both. */
struct model_twins {
    struct rig gpu, cpu;
    struct rig_seq on_gpu, on_cpu;
};

void model_twins_open(struct model_twins *t, const char *dir, const char *const *more_on_gpu,
                      const char *const *more_on_cpu);
/* The default mode, and a CPU that follows its rounding (rounded_cpu.h). */
void model_twins_open_rounded(struct model_twins *t, const char *dir);
/* Few numbers were rounded otherwise than the CPU would have. */
void model_twins_check_rounding(void);
/* As rig_prefill() of each. */
void model_twins_prefill(struct model_twins *t, const int32_t *tokens, uint32_t n, uint32_t chunk);
/* Forget the sequence: the next prompt is another one's. */
void model_twins_release(struct model_twins *t);
double model_twins_difference(const struct model_twins *t);
void model_twins_close(struct model_twins *t);

#endif
