/* test_cuda_kv_fp8.c - a model whose KV pages are fp8, on the fake driver's GPU.
 *
 * What would break in production: pages that are no smaller; answers that are further off than 3 bits behind the point
 * explain, or that depend on how a prompt was cut; a successor that takes int8 pages for fp8 ones; keys beyond 448 that are
 * cut off though the checkpoint says by what to divide them. */
#include <math.h>
#include <stdio.h>

#include "common/mem.h"
#include "gpu-worker/ops/half.h"
#include "tests/check.h"
#include "tests/cuda/model_twins.h"
#include "tests/unit/packed_writer.h"

/* A token of the demo model takes the fake GPU some tenths of a second. */
enum { PROMPT = 12, STEPS = 2, SEED = 30 };

/* The most that logits of a prompt and some tokens after it are off from those with pages of float16. */
static double pages_cost(const char *setting, uint64_t *page_bytes)
{
    struct rig_seq on_fewer = { 0 }, on_exact = { 0 };
    const char *more[] = { setting, NULL };
    struct rig fewer, exact;
    int32_t tokens[PROMPT], next = 9;
    double off = 0;

    gpu_model_tokens(tokens, PROMPT, SEED);
    gpu_model_open(&fewer, DEMO, "device=cuda", more);
    gpu_model_open(&exact, DEMO, "device=cuda", NULL);
    *page_bytes = fewer.plan.kv_page_bytes;
    rig_prefill(&fewer, &on_fewer, tokens, PROMPT, PROMPT);
    rig_prefill(&exact, &on_exact, tokens, PROMPT, PROMPT);
    for (int step = 0; step < STEPS; step++) {
        off = fmax(off, gpu_model_difference(&fewer, &exact));
        rig_prefill(&fewer, &on_fewer, &next, 1, 1);
        rig_prefill(&exact, &on_exact, &next, 1, 1);
        next += 100;
    }
    rig_release(&fewer, &on_fewer);
    rig_release(&exact, &on_exact);
    rig_close(&fewer);
    rig_close(&exact);
    return off;
}

static void pages_are_half_as_large_and_near(void **state)
{
    uint64_t fp8_bytes, int8_bytes;
    double fp8 = pages_cost("kv_cache_dtype=fp8", &fp8_bytes);
    double int8 = pages_cost("kv_cache_dtype=int8", &int8_bytes);

    (void)state;
    printf("pages of fp8: a logit differs by %.2g at most; of int8: by %.2g\n", fp8, int8);
    assert_int_equal(fp8_bytes, 5 * 2 * 4 * 16 * 32); /* layers, K and V, heads, tokens, head_dim */
    assert_true(fp8_bytes < int8_bytes);
    assert_true(fp8 > int8 && fp8 < 1);
}

/* Deterministic: the same bits whatever the chunks, and by way of a restart that finds the pages where they were. */
static void chunks_and_a_restart_do_not_change_bits(void **state)
{
    static const char *const settings[] = { "deterministic=on", "kv_cache_dtype=fp8", NULL };
    static const uint32_t chunks[] = { PROMPT, 1, 7 };
    struct rig_seq q = { 0 };
    int32_t tokens[PROMPT], next = 9;
    static struct checkpoint c;
    float *whole, *after;
    size_t bytes;
    struct rig r;

    (void)state;
    gpu_model_tokens(tokens, PROMPT, SEED);
    checkpoint_make(&c, &gpu_model_small, 5);
    gpu_model_open(&r, c.dir, "device=cuda", settings);
    bytes = r.info.vocab_size * sizeof *whole;
    whole = mem_alloc(bytes);
    after = mem_alloc(bytes);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        rig_prefill(&r, &q, tokens, PROMPT, chunks[i]);
        if (i == 0)
            memcpy(whole, r.logits, bytes);
        assert_memory_equal(r.logits, whole, bytes);
        if (i + 1 < sizeof chunks / sizeof *chunks)
            rig_release(&r, &q);
    }
    rig_prefill(&r, &q, &next, 1, 1);
    memcpy(after, r.logits, bytes);
    rig_release(&r, &q);
    rig_prefill(&r, &q, tokens, PROMPT, PROMPT);
    assert_int_equal(rig_restart(&r), 0); /* no weights are loaded */
    rig_prefill(&r, &q, &next, 1, 1);
    assert_memory_equal(r.logits, after, bytes);
    rig_release(&r, &q);
    rig_close(&r);
    checkpoint_remove(&c);
    free(whole);
    free(after);
}

/* ---- a checkpoint's scales ---- */

/* Keys that many times as large, and queries as much smaller; values as much smaller, and larger what multiplies them: but
 * for what pages can hold, the same model. */
#define STRETCH 1024.0

static double stretch_of(const char *name)
{
    if (strstr(name, "k_proj") || strstr(name, "o_proj"))
        return STRETCH;
    return strstr(name, "q_proj") || strstr(name, "v_proj") ? 1 / STRETCH : 1;
}

static void add_scale(struct packed_writer *w, const char *name, double value)
{
    float scale = (float)value;

    packed_writer_plain(w, name, "F32", 1, 0, &scale, sizeof scale);
}

static void write_stretched(const struct checkpoint *c, bool with_scales)
{
    struct packed_writer w;

    packed_writer_begin(&w, NULL);
    for (uint32_t i = 0; i < c->n; i++) {
        const struct checkpoint_tensor *t = &c->tensors[i];
        size_t n = (size_t)t->rows * (t->cols ? t->cols : 1);
        uint16_t *bits = mem_alloc(n * sizeof *bits);
        for (size_t k = 0; k < n; k++)
            bits[k] = float_to_bf16((float)(t->values[k] * stretch_of(t->name)));
        packed_writer_plain(&w, t->name, "BF16", t->rows, t->cols, bits, n * sizeof *bits);
        free(bits);
    }
    if (with_scales) { /* as two tools write them */
        add_scale(&w, "model.layers.0.self_attn.k_scale", STRETCH);
        add_scale(&w, "model.layers.0.self_attn.v_scale", 1 / STRETCH);
        add_scale(&w, "model.layers.1.self_attn.k_proj.k_scale", STRETCH);
        add_scale(&w, "model.layers.1.self_attn.v_proj.v_scale", 1 / STRETCH);
    }
    packed_writer_end_plain(&w, c->dir);
}

static void logits_of(const char *dir, const char *const *settings, float *logits)
{
    struct rig_seq q = { 0 };
    int32_t tokens[PROMPT];
    struct rig r;

    gpu_model_tokens(tokens, PROMPT, SEED);
    gpu_model_open(&r, dir, "device=cuda", settings);
    rig_prefill(&r, &q, tokens, PROMPT, PROMPT);
    memcpy(logits, r.logits, r.info.vocab_size * sizeof *logits);
    rig_release(&r, &q);
    rig_close(&r);
}

/* Divided by such a power of two the stretched model's keys and values are the other's, bit for bit. */
static void the_checkpoints_scales_are_used(void **state)
{
    static const char *const fp8[] = { "deterministic=on", "kv_cache_dtype=fp8", NULL };
    static const char *const tiles[] = { "kv_cache_dtype=fp8", NULL };
    enum { VOCAB = 101 };
    float plain[VOCAB], scaled[VOCAB], bare[VOCAB], prompt[VOCAB];
    static struct checkpoint c;

    (void)state;
    assert_int_equal(gpu_model_small.vocab, VOCAB);
    checkpoint_make(&c, &gpu_model_small, 5);
    logits_of(c.dir, fp8, plain);
    write_stretched(&c, false);
    logits_of(c.dir, fp8, bare);
    write_stretched(&c, true);
    logits_of(c.dir, fp8, scaled);
    logits_of(c.dir, tiles, prompt);
    checkpoint_remove(&c);
    printf("keys beyond 448: logits are off by %.2g without the checkpoint's scales; with them as "
           "one prompt by %.2g\n",
           gpu_model_off_by(bare, plain, VOCAB), gpu_model_off_by(prompt, plain, VOCAB));
    assert_memory_equal(scaled, plain, sizeof plain);
    assert_true(gpu_model_off_by(bare, plain, VOCAB) > 0.1);
    assert_true(gpu_model_off_by(prompt, plain, VOCAB) < 0.05);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_half_as_large_and_near),
        cmocka_unit_test(chunks_and_a_restart_do_not_change_bits),
        cmocka_unit_test(the_checkpoints_scales_are_used),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
