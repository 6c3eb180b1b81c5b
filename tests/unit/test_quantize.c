/* test_quantize.c - which format a matrix gets, and what rounding does to the demo model's words.
 *
 * What would break in production: a router or a norm that is rounded; a GGUF file whose exact codes are
 * rounded again; a rounding or a kernel that is right for single products but makes a model worse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/load/quantize.h"
#include "tests/unit/model_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

static void formats_follow_the_table(void **state)
{
    static const struct {
        enum tensor_type from;
        enum dtype none, int8, int4, int4_embedding;
    } table[] = {
        { TENSOR_F32, DTYPE_F32, DTYPE_I8, DTYPE_I4, DTYPE_I8 },
        { TENSOR_F16, DTYPE_F16, DTYPE_I8, DTYPE_I4, DTYPE_I8 },
        { TENSOR_BF16, DTYPE_BF16, DTYPE_I8, DTYPE_I4, DTYPE_I8 },
        { TENSOR_Q4_0, DTYPE_I4, DTYPE_I4, DTYPE_I4, DTYPE_I4 },
        { TENSOR_Q8_0, DTYPE_I8, DTYPE_I8, DTYPE_I8, DTYPE_I8 },
        { TENSOR_Q5_0, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M },
        { TENSOR_IQ4_NL, DTYPE_I8, DTYPE_I8, DTYPE_I8, DTYPE_I8 },
        { TENSOR_Q4_1, DTYPE_I4M, DTYPE_I4M, DTYPE_I4M, DTYPE_I4M },
        { TENSOR_Q4_K, DTYPE_I4M, DTYPE_I4M, DTYPE_I4M, DTYPE_I4M },
        { TENSOR_Q5_1, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M },
        { TENSOR_Q5_K, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M, DTYPE_I5M },
        { TENSOR_Q3_K, DTYPE_I6, DTYPE_I6, DTYPE_I6, DTYPE_I6 },
        { TENSOR_Q6_K, DTYPE_I6, DTYPE_I6, DTYPE_I6, DTYPE_I6 },
        { TENSOR_Q2_K, DTYPE_I8, DTYPE_I8, DTYPE_I8, DTYPE_I8 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        enum tensor_type t = table[i].from;
        assert_int_equal(quantize_dtype(QUANTIZE_NONE, ROLE_MATRIX, t), table[i].none);
        assert_int_equal(quantize_dtype(QUANTIZE_INT8, ROLE_MATRIX, t), table[i].int8);
        assert_int_equal(quantize_dtype(QUANTIZE_INT4, ROLE_MATRIX, t), table[i].int4);
        assert_int_equal(quantize_dtype(QUANTIZE_INT4, ROLE_EMBEDDING, t), table[i].int4_embedding);
    }
    assert_int_equal(quantize_of("none"), QUANTIZE_NONE);
    assert_int_equal(quantize_of("int8"), QUANTIZE_INT8);
    assert_int_equal(quantize_of("int4"), QUANTIZE_INT4);
    assert_int_equal(quantize_of("fp8"), QUANTIZE_FP8);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_MATRIX, TENSOR_BF16), DTYPE_E4M3);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_EMBEDDING, TENSOR_BF16), DTYPE_I8);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_MATRIX, TENSOR_Q4_K), DTYPE_I4M);
    assert_true(quantize_keeps_codes(TENSOR_Q4_0, DTYPE_I4));
    assert_true(quantize_keeps_codes(TENSOR_Q8_0, DTYPE_I8));
    assert_true(quantize_keeps_codes(TENSOR_Q4_K, DTYPE_I4M));
    assert_false(quantize_keeps_codes(TENSOR_Q8_0, DTYPE_I4));
    assert_false(quantize_keeps_codes(TENSOR_Q2_K, DTYPE_I8));
    assert_false(quantize_keeps_codes(TENSOR_BF16, DTYPE_I8));
    assert_false(quantize_keeps_codes(TENSOR_BF16, DTYPE_NONE));
}

/* ---- the demo model ---- */

enum { STEPS = 300 };

/* Logits after each token; without tokens given, the model's own most likely ones, which are noted. */
static float *walk(const char *quantize, int32_t *tokens, bool follow)
{
    struct rig r;
    struct rig_seq s = { 0 };
    float *logits;
    size_t row;

    rig_open(&r, DEMO, (const char *[]){ quantize, NULL });
    row = r.info.vocab_size;
    logits = mem_alloc(STEPS * row * sizeof *logits);
    tokens[0] = 1; /* begin of text */
    for (uint32_t i = 0; i < STEPS; i++) {
        rig_prefill(&r, &s, &tokens[i], 1, 1);
        memcpy(logits + i * row, r.logits, row * sizeof *logits);
        if (follow && i + 1 < STEPS)
            tokens[i + 1] = rig_argmax(&r, 0);
    }
    rig_release(&r, &s);
    rig_close(&r);
    return logits;
}

/* sum p log(p / q), and whether the most likely token is the same */
static double divergence(const float *p, const float *q, uint32_t n, bool *same)
{
    double p_max = -INFINITY, q_max = -INFINITY, p_all = 0, q_all = 0, kl = 0;
    uint32_t p_best = 0, q_best = 0;

    for (uint32_t i = 0; i < n; i++) {
        p_best = p[i] > p[p_best] ? i : p_best;
        q_best = q[i] > q[q_best] ? i : q_best;
    }
    p_max = p[p_best];
    q_max = q[q_best];
    for (uint32_t i = 0; i < n; i++) {
        p_all += exp(p[i] - p_max);
        q_all += exp(q[i] - q_max);
    }
    for (uint32_t i = 0; i < n; i++)
        kl +=
            exp(p[i] - p_max) / p_all * ((p[i] - p_max - log(p_all)) - (q[i] - q_max - log(q_all)));
    *same = p_best == q_best;
    return kl;
}

static void expect_near(const float *wanted, const char *quantize, int32_t *tokens, double kl_max,
                        double same_min)
{
    float *got = walk(quantize, tokens, false);
    uint32_t vocab = 2048, n_same = 0;
    double kl = 0;

    for (uint32_t i = 0; i < STEPS; i++) {
        bool same;
        kl += divergence(wanted + (size_t)i * vocab, got + (size_t)i * vocab, vocab, &same);
        n_same += same;
    }
    printf("%s: KL divergence %.5f, most likely token the same in %.1f %%\n", quantize, kl / STEPS,
           100.0 * n_same / STEPS);
    assert_true(kl / STEPS < kl_max && n_same >= same_min * STEPS);
    assert_true(kl > 0); /* something was rounded */
    free(got);
}

static void rounded_models_say_nearly_the_same(void **state)
{
    int32_t tokens[STEPS];
    float *wanted;

    (void)state;
    wanted = walk("quantize=none", tokens, true);
    expect_near(wanted, "quantize=int8", tokens, 0.002, 0.97);
    expect_near(wanted, "quantize=int4", tokens, 0.15, 0.8);
    free(wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_follow_the_table),
        cmocka_unit_test(rounded_models_say_nearly_the_same),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
