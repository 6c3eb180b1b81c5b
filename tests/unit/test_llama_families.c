/* test_llama_families.c - small random models of every supported kind against a double-precision pass.
 *
 * What would break in production: a family that runs, and is wrong: a bias left out, a window ignored, rope
 * scaled twice, a head taken from the wrong tensor, a shard that reads its neighbour's rows, a row sent to
 * another expert because of who else was there. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/checkpoint.h"
#include "tests/unit/model_rig.h"

enum { PROMPT = 41, VOCAB_MAX = 128 };

static const struct checkpoint_spec llama2 = {
    .architecture = "LlamaForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 2,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 12,
    .vocab = 67,
    .dtype = DTYPE_F16,
    .theta = 10000,
    .n_files = 1,
};

static const struct checkpoint_spec llama3 = {
    .architecture = "LlamaForCausalLM",
    .hidden = 64,
    .inner = 112,
    .layers = 3,
    .heads = 8,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 101,
    .dtype = DTYPE_BF16,
    .theta = 500000,
    .llama3_factor = 8,
    .n_files = 3,
};

static const struct checkpoint_spec llama_all_biases = {
    .architecture = "LlamaForCausalLM",
    .hidden = 40,
    .inner = 56,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 10,
    .vocab = 53,
    .dtype = DTYPE_F32,
    .tied = true,
    .qkv_bias = true,
    .o_bias = true,
    .mlp_bias = true,
    .theta = 10000,
    .linear_factor = 2,
    .n_files = 1,
};

static const struct checkpoint_spec mistral = {
    .architecture = "MistralForCausalLM",
    .hidden = 32,
    .inner = 72,
    .layers = 3,
    .heads = 6,
    .kv_heads = 2,
    .head_dim = 20,
    .vocab = 64,
    .dtype = DTYPE_BF16,
    .window = 7,
    .theta = 1000000,
    .n_files = 1,
};

static const struct checkpoint_spec qwen2 = {
    .architecture = "Qwen2ForCausalLM",
    .hidden = 56,
    .inner = 88,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 14,
    .vocab = 97,
    .dtype = DTYPE_BF16,
    .tied = true,
    .qkv_bias = true,
    .theta = 1000000,
    .n_files = 2,
};

static const struct checkpoint_spec qwen2_windowed = {
    .architecture = "Qwen2ForCausalLM",
    .hidden = 32,
    .inner = 40,
    .layers = 3,
    .heads = 2,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 50,
    .dtype = DTYPE_F32,
    .qkv_bias = true,
    .window = 9,
    .window_from_layer = 1,
    .theta = 10000,
    .n_files = 1,
};

static const struct checkpoint_spec qwen3 = {
    .architecture = "Qwen3ForCausalLM",
    .hidden = 56,
    .inner = 80,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 20,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .tied = true,
    .theta = 1000000,
    .n_files = 2,
};

static const struct checkpoint_spec qwen2_yarn = {
    .architecture = "Qwen2ForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .qkv_bias = true,
    .theta = 10000,
    .yarn_factor = 4,
    .n_files = 1,
};

static const struct checkpoint_spec gemma = {
    .architecture = "GemmaForCausalLM",
    .hidden = 40,
    .inner = 80,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 24,
    .vocab = 101,
    .dtype = DTYPE_BF16,
    .tied = true,
    .theta = 10000,
    .n_files = 1,
};

static const struct checkpoint_spec gemma2 = {
    .architecture = "Gemma2ForCausalLM",
    .hidden = 40,
    .inner = 80,
    .layers = 3,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 24,
    .vocab = 101,
    .dtype = DTYPE_BF16,
    .tied = true,
    .window = 6,
    .theta = 10000,
    .query_scalar = 10,
    .attn_cap = 2,
    .final_cap = 3,
    .n_files = 1,
};

static const struct checkpoint_spec phi3 = {
    .architecture = "Phi3ForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 2,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 16,
    .vocab = 67,
    .dtype = DTYPE_F16,
    .window = 30,
    .theta = 10000,
    .longrope_original = 16,
    .n_files = 1,
};

static const struct checkpoint_spec phi4_mini = {
    .architecture = "Phi3ForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 2,
    .heads = 6,
    .kv_heads = 2,
    .head_dim = 24,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .tied = true,
    .theta = 10000,
    .longrope_original = 64,
    .rotary = 18,
    .n_files = 1,
};

static const struct checkpoint_spec mixtral = {
    .architecture = "MixtralForCausalLM",
    .hidden = 48,
    .inner = 40,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .theta = 1000000,
    .experts = 5,
    .experts_used = 2,
    .expert_inner = 40,
    .n_files = 2,
};

static const struct checkpoint_spec qwen2_moe = {
    .architecture = "Qwen2MoeForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 3,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .qkv_bias = true,
    .theta = 10000,
    .experts = 6,
    .experts_used = 3,
    .expert_inner = 24,
    .shared_inner = 36,
    .sparse_step = 1,
    .dense_layer = 1,
    .n_files = 1,
};

static const struct checkpoint_spec qwen3_moe = {
    .architecture = "Qwen3MoeForCausalLM",
    .hidden = 48,
    .inner = 80,
    .layers = 4,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = 67,
    .dtype = DTYPE_BF16,
    .theta = 10000,
    .experts = 7,
    .experts_used = 3,
    .expert_inner = 20,
    .norm_topk = true,
    .sparse_step = 2,
    .n_files = 1,
};

static void make_prompt(int32_t tokens[PROMPT], uint32_t vocab)
{
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)((i * i * 7 + i * 3 + 5) % vocab);
}

static double worst(const struct rig *r, const double *wanted)
{
    double off = 0;

    for (uint32_t i = 0; i < r->info.vocab_size; i++)
        off = fmax(off, fabs(r->logits[i] - wanted[i]));
    return off;
}

static double spread(const double *x, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += x[i] * x[i];
    return sqrt(sum / n);
}

/* One way of running the prompt; the last logits must be near. */
static void check(const struct checkpoint *c, const char *tp, const char *kv, const char *tier,
                  uint32_t chunk, double tolerance)
{
    char tp_setting[24], kv_setting[40], tier_setting[32];
    const char *settings[] = { tp_setting,         kv_setting,          tier_setting,
                               "kv_page_tokens=5", "kv_cache_bytes=2M", NULL };
    int32_t tokens[PROMPT];
    double wanted[VOCAB_MAX], off;
    struct rig_seq s = { 0 };
    struct rig r;

    snprintf(tp_setting, sizeof tp_setting, "tp_size=%s", tp);
    snprintf(kv_setting, sizeof kv_setting, "kv_cache_dtype=%s", kv);
    snprintf(tier_setting, sizeof tier_setting, "cpu_tier=%s", tier);
    make_prompt(tokens, c->spec.vocab);
    checkpoint_logits(c, tokens, PROMPT, wanted);
    assert_true(spread(wanted, c->spec.vocab) > 0.3); /* numbers worth comparing */
    rig_open(&r, c->dir, settings);
    assert_int_equal(r.info.n_eos, 2);
    rig_prefill(&r, &s, tokens, PROMPT, chunk);
    off = worst(&r, wanted);
    if (!(off < tolerance))
        fail_msg("%s, tp %s, KV %s, tier %s, chunks of %u: a logit is off by %g",
                 c->spec.architecture, tp, kv, tier, chunk, off);
    rig_close(&r);
}

enum { OTHERS = 3 };

/* The prompt, and before, beside and after it in the same steps others that are read and decode. */
static void in_company(struct rig *r, const int32_t *tokens, float *logits)
{
    struct rig_seq seqs[1 + OTHERS] = { 0 };
    struct rig_seq *list[1 + OTHERS] = { &seqs[1], &seqs[0], &seqs[2], &seqs[3] };

    for (uint32_t at = 0; at < PROMPT;) {
        uint32_t now = at + 17 <= PROMPT ? 17 : PROMPT - at;
        const int32_t *rows[1 + OTHERS] = { tokens + at / 2, tokens + at, tokens + 7, tokens };
        const uint32_t n[1 + OTHERS] = { 5, now, 1, 11 };
        rig_step(r, list, rows, n, 1 + OTHERS);
        at += now;
    }
    memcpy(logits, r->logits + r->info.vocab_size, r->info.vocab_size * sizeof *logits);
}

static void alone(struct rig *r, const int32_t *tokens, uint32_t chunk, float *logits)
{
    struct rig_seq s = { 0 };

    rig_prefill(r, &s, tokens, PROMPT, chunk);
    memcpy(logits, r->logits, r->info.vocab_size * sizeof *logits);
    rig_release(r, &s);
}

static void expect_bits(const struct checkpoint *c, const float *wanted, const float *got,
                        const char *what)
{
    if (memcmp(wanted, got, c->spec.vocab * sizeof *got) != 0)
        fail_msg("%s: other bits %s", c->spec.architecture, what);
}

static void same_bits_everywhere(const struct checkpoint *c, const char *quantize)
{
    const char *settings[] = { quantize, "kv_page_tokens=5", "kv_cache_bytes=2M", NULL };
    const char *two_ranks[] = { quantize,           "tp_size=2",         "threads=1",
                                "kv_page_tokens=5", "kv_cache_bytes=2M", NULL };
    float wanted[VOCAB_MAX], got[VOCAB_MAX];
    int32_t tokens[PROMPT];
    struct rig r;

    make_prompt(tokens, c->spec.vocab);
    rig_open(&r, c->dir, settings);
    alone(&r, tokens, PROMPT, wanted);
    alone(&r, tokens, 1, got);
    expect_bits(c, wanted, got, "token by token");
    in_company(&r, tokens, got);
    expect_bits(c, wanted, got, "in company");
    rig_close(&r);
    rig_open(&r, c->dir, two_ranks);
    alone(&r, tokens, 9, got);
    expect_bits(c, wanted, got, "on two ranks, in chunks");
    rig_close(&r);
}

static void run(const struct checkpoint_spec *spec)
{
    struct checkpoint c;

    checkpoint_make(&c, spec, 42);
    check(&c, "1", "float32", "plain", PROMPT, 2e-5);
    check(&c, "1", "float32", "avx2", 8, 2e-5);
    check(&c, "1", "float32", "auto", 1, 2e-5);
    check(&c, "2", "float32", "auto", 16, 2e-5);
    check(&c, "1", "float16", "auto", PROMPT, 2e-2);
    same_bits_everywhere(&c, "quantize=none");
    same_bits_everywhere(&c, "quantize=int8");
    same_bits_everywhere(&c, "quantize=int4");
    checkpoint_remove(&c);
}

static void llama2_f16_is_right(void **state)
{
    (void)state;
    run(&llama2);
}

static void llama3_sharded_is_right(void **state)
{
    (void)state;
    run(&llama3);
}

static void llama_with_all_biases_f32_is_right(void **state)
{
    (void)state;
    run(&llama_all_biases);
}

static void mistral_with_short_window_is_right(void **state)
{
    (void)state;
    run(&mistral);
}

static void qwen2_is_right(void **state)
{
    (void)state;
    run(&qwen2);
}

static void qwen2_with_window_in_upper_layers_is_right(void **state)
{
    (void)state;
    run(&qwen2_windowed);
}

static void qwen2_with_yarn_is_right(void **state)
{
    (void)state;
    run(&qwen2_yarn);
}

static void qwen3_is_right(void **state)
{
    (void)state;
    run(&qwen3);
}

static void gemma_is_right(void **state)
{
    (void)state;
    run(&gemma);
}

static void gemma2_is_right(void **state)
{
    (void)state;
    run(&gemma2);
}

static void phi3_with_longrope_is_right(void **state)
{
    (void)state;
    run(&phi3);
}

static void phi4_mini_with_partial_rope_is_right(void **state)
{
    (void)state;
    run(&phi4_mini);
}

static void mixtral_is_right(void **state)
{
    (void)state;
    run(&mixtral);
}

static void qwen2_moe_with_a_shared_expert_is_right(void **state)
{
    (void)state;
    run(&qwen2_moe);
}

static void qwen3_moe_with_dense_layers_is_right(void **state)
{
    (void)state;
    run(&qwen3_moe);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama2_f16_is_right),
        cmocka_unit_test(llama3_sharded_is_right),
        cmocka_unit_test(llama_with_all_biases_f32_is_right),
        cmocka_unit_test(mistral_with_short_window_is_right),
        cmocka_unit_test(qwen2_is_right),
        cmocka_unit_test(qwen2_with_window_in_upper_layers_is_right),
        cmocka_unit_test(qwen2_with_yarn_is_right),
        cmocka_unit_test(qwen3_is_right),
        cmocka_unit_test(gemma_is_right),
        cmocka_unit_test(gemma2_is_right),
        cmocka_unit_test(phi3_with_longrope_is_right),
        cmocka_unit_test(phi4_mini_with_partial_rope_is_right),
        cmocka_unit_test(mixtral_is_right),
        cmocka_unit_test(qwen2_moe_with_a_shared_expert_is_right),
        cmocka_unit_test(qwen3_moe_with_dense_layers_is_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
