/* model_twins.c - see model_twins.h. */
#include "tests/cuda/model_twins.h"

#include <math.h>
#include <stdio.h>

#include "common/mem.h"
#include "tests/check.h"
#include "tests/cuda/rounded_cpu.h"

enum {
    SETTINGS_MAX = 8,
    OTHERS_MAX = 8,
    PROMPT_MAX = 64,
    REST_TURNS_MAX = 100,
    OTHERWISE_ONE_IN = 100
};

const struct checkpoint_spec gpu_model_small = {
    .architecture = "LlamaForCausalLM",
    .hidden = 64,
    .inner = 128,
    .layers = 2,
    .heads = 8,
    .kv_heads = 4,
    .head_dim = 16,
    .vocab = 101,
    .dtype = DTYPE_BF16,
    .theta = 10000,
    .n_files = 1,
};

struct checkpoint_spec gpu_model_wide(enum dtype dtype)
{
    return (struct checkpoint_spec){ .architecture = "LlamaForCausalLM",
                                     .hidden = 256,
                                     .inner = 512,
                                     .layers = 2,
                                     .heads = 8,
                                     .kv_heads = 4,
                                     .head_dim = 32,
                                     .vocab = GPU_MODEL_WIDE_VOCAB,
                                     .dtype = dtype,
                                     .theta = 10000,
                                     .n_files = 1 };
}

void gpu_model_open(struct rig *r, const char *dir, const char *device, const char *const *more)
{
    const char *settings[SETTINGS_MAX + 1] = { device, "max_num_seqs=12",
                                               "max_num_batched_tokens=64" };
    int n = 3;

    if (strcmp(device, "device=cpu") == 0)
        settings[n++] = "kv_cache_dtype=float32"; /* rounded to the GPU's float16: half_pages.h */
    for (; more && *more; more++) {
        assert_true(n < SETTINGS_MAX);
        settings[n++] = *more;
    }
    rig_open(r, dir, settings);
    assert_int_equal(r->plan.on_device, strcmp(device, "device=cuda") == 0);
}

void gpu_model_tokens(int32_t *tokens, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((seed * 7919 + i * i * 31 + i * 7) % 97 + 4);
}

void gpu_model_decode_in_company(struct rig *r, struct rig_seq *q, int32_t next, uint32_t n_others,
                                 uint32_t longer)
{
    struct rig_seq others[OTHERS_MAX] = { 0 }, *list[OTHERS_MAX + 1] = { q };
    const int32_t *tokens[OTHERS_MAX + 1] = { &next };
    uint32_t n[OTHERS_MAX + 1] = { 1 };

    assert_true(n_others <= OTHERS_MAX && 2 + n_others * longer <= PROMPT_MAX);
    for (uint32_t i = 0; i < n_others; i++) {
        int32_t prompt[PROMPT_MAX];
        gpu_model_tokens(prompt, 2 + i * longer, i + 5);
        rig_prefill(r, &others[i], prompt, 2 + i * longer, PROMPT_MAX);
        list[i + 1] = &others[i];
        tokens[i + 1] = &next;
        n[i + 1] = 1;
    }
    rig_step(r, list, tokens, n, n_others + 1);
    for (uint32_t i = 0; i < n_others; i++)
        rig_release(r, &others[i]);
}

double gpu_model_difference(const struct rig *a, const struct rig *b)
{
    double worst = 0;

    for (uint32_t i = 0; i < a->info.vocab_size; i++)
        worst = fmax(worst, fabs((double)a->logits[i] - (double)b->logits[i]));
    return worst;
}

void gpu_model_exact(const struct checkpoint *c, const int32_t *tokens, uint32_t n, float *logits)
{
    double *exact = mem_alloc(c->spec.vocab * sizeof *exact);

    checkpoint_logits(c, tokens, n, exact);
    for (uint32_t i = 0; i < c->spec.vocab; i++)
        logits[i] = (float)exact[i];
    free(exact);
}

double gpu_model_off_by(const float *got, const float *wanted, size_t n)
{
    double error = 0, power = 0;

    for (size_t i = 0; i < n; i++) {
        error += ((double)got[i] - (double)wanted[i]) * ((double)got[i] - (double)wanted[i]);
        power += (double)wanted[i] * (double)wanted[i];
    }
    return sqrt(error / power);
}

/* ---- one with its checkpoint ---- */

void gpu_model_make(struct gpu_model *m, uint32_t layers, uint32_t vocab, uint64_t seed,
                    const char *const *more)
{
    const struct checkpoint_spec spec = {
        .architecture = "LlamaForCausalLM",
        .hidden = 64,
        .inner = 96,
        .layers = layers,
        .heads = 4,
        .kv_heads = 2,
        .head_dim = 16,
        .vocab = vocab,
        .dtype = DTYPE_BF16,
        .theta = 10000,
        .n_files = 1,
    };

    checkpoint_make(&m->checkpoint, &spec, seed);
    gpu_model_open(&m->rig, m->checkpoint.dir, "device=cuda", more);
    assert_true(fake_cuda_find(&m->fake)); /* loaded by now */
}

void gpu_model_remove(struct gpu_model *m)
{
    rig_close(&m->rig);
    checkpoint_remove(&m->checkpoint);
}

struct fake_cuda_counts gpu_model_counts(const struct gpu_model *m)
{
    struct fake_cuda_counts counts;

    m->fake.counts(&counts);
    return counts;
}

uint32_t gpu_model_rest(struct gpu_model *m)
{
    uint32_t n = 0;
    bool did = true;
    struct err e = { 0 };

    while (did) {
        assert_true(n < REST_TURNS_MAX);
        if (!runtime_rest(m->rig.ranks[0], &did, &e))
            fail_msg("%s", e.msg);
        n += did;
    }
    return n;
}

/* ---- two of them ---- */

void model_twins_open(struct model_twins *t, const char *dir, const char *const *more_on_gpu,
                      const char *const *more_on_cpu)
{
    *t = (struct model_twins){ .on_gpu = { 0 } };
    gpu_model_open(&t->gpu, dir, "device=cuda", more_on_gpu);
    gpu_model_open(&t->cpu, dir, "device=cpu", more_on_cpu);
}

void model_twins_open_rounded(struct model_twins *t, const char *dir)
{
    *t = (struct model_twins){ .on_gpu = { 0 } };
    gpu_model_open(&t->gpu, dir, "device=cuda", NULL);
    rounded_cpu_next();
    gpu_model_open(&t->cpu, dir, "device=cpu", NULL);
}

void model_twins_check_rounding(void)
{
    struct rounded_cpu_counts n = rounded_cpu_counts();

    printf(
        "of %llu rounded inputs of products %llu are not the CPU's, by %.2g of their row at most\n",
        (unsigned long long)n.inputs, (unsigned long long)n.otherwise, n.worst);
    assert_true(n.otherwise * OTHERWISE_ONE_IN <= n.inputs);
}

void model_twins_prefill(struct model_twins *t, const int32_t *tokens, uint32_t n, uint32_t chunk)
{
    rig_prefill(&t->gpu, &t->on_gpu, tokens, n, chunk);
    rig_prefill(&t->cpu, &t->on_cpu, tokens, n, chunk);
}

void model_twins_release(struct model_twins *t)
{
    rig_release(&t->gpu, &t->on_gpu);
    rig_release(&t->cpu, &t->on_cpu);
}

double model_twins_difference(const struct model_twins *t)
{
    return gpu_model_difference(&t->gpu, &t->cpu);
}

void model_twins_close(struct model_twins *t)
{
    model_twins_release(t);
    rig_close(&t->gpu);
    rig_close(&t->cpu);
}
