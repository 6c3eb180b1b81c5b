/* test_cuda_grouped.c - models of which several queries share a KV head, on the fake driver's GPU: their decode attention
 * runs on tensor cores.
 *
 * What would break in production: a kernel that is there and never chosen; other tokens with `deterministic` when a
 * prompt is cut otherwise, beside other sequences or on more GPUs; logits further from the CPU's than other models'. */
#include <math.h>
#include <stdio.h>

#include "tests/check.h"
#include "tests/cuda/fake/fake_cuda.h"
#include "tests/cuda/model_twins.h"

enum { VOCAB = 101, TOKENS = 25, OTHERS = 2 };

/* Four queries a KV head, and six in layers of which some see 9 positions. */
static const struct checkpoint_spec specs[] = {
    { .architecture = "LlamaForCausalLM",
      .hidden = 64,
      .inner = 96,
      .layers = 2,
      .heads = 8,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = VOCAB,
      .dtype = DTYPE_BF16,
      .theta = 10000,
      .n_files = 1 },
    { .architecture = "MistralForCausalLM",
      .hidden = 64,
      .inner = 96,
      .layers = 1,
      .heads = 12,
      .kv_heads = 2,
      .head_dim = 80,
      .vocab = VOCAB,
      .dtype = DTYPE_BF16,
      .window = 9,
      .theta = 10000,
      .n_files = 1 },
};
enum { N_SPECS = sizeof specs / sizeof *specs };

static const char *const kernels[N_SPECS] = { "attention_group_f16_d64",
                                              "attention_group_f16_d128" };

/* ---- against the CPU ---- */

/* A prompt and some tokens. */
static double run_both(const char *dir, const char *const *on_gpu)
{
    struct model_twins t;
    int32_t tokens[TOKENS];
    double worst = 0;

    gpu_model_tokens(tokens, TOKENS, 3);
    model_twins_open(&t, dir, on_gpu, NULL);
    model_twins_prefill(&t, tokens, TOKENS - 4, 17);
    for (int i = TOKENS - 4; i < TOKENS; i++) {
        worst = fmax(worst, model_twins_difference(&t));
        model_twins_prefill(&t, tokens + i, 1, 1);
    }
    model_twins_close(&t);
    return worst;
}

static void grouped_queries_are_decoded_on_tensor_cores(void **state)
{
    static const char *const exact[] = { "deterministic=on", NULL };
    static struct checkpoint c;
    struct fake_cuda fake;

    (void)state;
    for (int i = 0; i < N_SPECS; i++) {
        struct fake_cuda_counts before, after;
        char rule[64];
        double off[2];
        checkpoint_make(&c, &specs[i], 5);
        off[0] = run_both(c.dir, exact);
        assert_true(fake_cuda_find(&fake)); /* loaded by now */
        snprintf(rule, sizeof rule, "kernel %s 1: slow 1", kernels[i]);
        assert_true(fake.add_faults(rule));
        fake.counts(&before);
        off[1] = run_both(c.dir, NULL);
        fake.counts(&after);
        printf("%u heads, %u KV heads: largest logit error %.2g, by default %.2g\n", specs[i].heads,
               specs[i].kv_heads, off[0], off[1]);
        assert_int_equal(after.faults, before.faults + 1);
        assert_true(off[0] <= 1e-3 && off[1] <= 0.05);
        checkpoint_remove(&c);
    }
}

/* ---- the same bits ---- */

/* The logits behind the prompt, cut in such chunks, then those of one token more, in company or not. */
static void run(struct rig *r, uint32_t chunk, bool alone, float *out)
{
    struct rig_seq q = { 0 };
    int32_t tokens[TOKENS];
    const int32_t next = 77;

    gpu_model_tokens(tokens, TOKENS, 1);
    rig_prefill(r, &q, tokens, TOKENS, chunk);
    memcpy(out, r->logits, VOCAB * sizeof *out);
    if (alone)
        rig_prefill(r, &q, &next, 1, 1);
    else
        gpu_model_decode_in_company(r, &q, next, OTHERS, 12);
    memcpy(out + VOCAB, r->logits, VOCAB * sizeof *out);
    rig_release(r, &q);
}

static void check_bits(const char *dir, const char *const *settings)
{
    static const uint32_t chunks[] = { 1, 7, 18 };
    float whole[2 * VOCAB], other[2 * VOCAB];
    struct rig r;

    gpu_model_open(&r, dir, "device=cuda", settings);
    run(&r, 64, true, whole);
    for (int i = 0; i < 3; i++) {
        run(&r, chunks[i], i == 0, other);
        if (memcmp(whole, other, sizeof whole) != 0)
            fail_msg("%s: other bits in chunks of %u rows", settings[1], chunks[i]);
    }
    rig_close(&r);
}

static void deterministic_answers_do_not_mind_chunks_and_company(void **state)
{
    static const char *const settings[][3] = {
        { "deterministic=on", "kv_cache_dtype=float16", NULL },
        { "deterministic=on", "kv_cache_dtype=int8", NULL },
    };
    static struct checkpoint c;

    (void)state;
    for (int i = 0; i < N_SPECS; i++) {
        checkpoint_make(&c, &specs[i], 5);
        check_bits(c.dir, settings[i]);
        checkpoint_remove(&c);
    }
}

static void deterministic_answers_do_not_mind_ranks(void **state)
{
    static const char *const settings[][3] = {
        { "deterministic=on", "tp_size=1", NULL },
        { "deterministic=on", "tp_size=2", NULL },
    };
    static struct checkpoint c;
    float out[2][2 * VOCAB];

    (void)state;
    checkpoint_make(&c, &specs[0], 5);
    for (int i = 0; i < 2; i++) {
        struct rig r;
        gpu_model_open(&r, c.dir, "device=cuda", settings[i]);
        run(&r, TOKENS, true, out[i]);
        rig_close(&r);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
    checkpoint_remove(&c);
}

/* [test's name] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grouped_queries_are_decoded_on_tensor_cores),
        cmocka_unit_test(deterministic_answers_do_not_mind_chunks_and_company),
        cmocka_unit_test(deterministic_answers_do_not_mind_ranks),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
