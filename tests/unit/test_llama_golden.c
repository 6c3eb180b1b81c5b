/* test_llama_golden.c - the demo model against numbers of another implementation (golden.json: a float32
 * forward pass in another language).
 *
 * What would break in production: text that is subtly wrong - a rope pairing, a mask off by one, a page
 * read in the wrong order - and nobody sees an error.  Every tier of this machine, both KV types. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "gpu-worker/ops/ops.h"
#include "tests/unit/model_rig.h"

#define DEMO            TEST_SOURCE_DIR "/models/stories-demo"
#define LOGIT_TOLERANCE 2e-3

enum { GREEDY = 64, PROMPT_MAX = 64 };

static uint32_t read_ids(const json_t *prompt, const char *key, int32_t *ids)
{
    const json_t *list = json_object_get(prompt, key);
    size_t n = json_array_size(list);

    assert_true(n > 0 && n <= PROMPT_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (uint32_t)n;
}

static double worst_logit(const struct rig *r, const json_t *prompt)
{
    const json_t *top = json_object_get(prompt, "top_logits"), *pair;
    double worst = 0;
    size_t i;

    json_array_foreach (top, i, pair) {
        json_int_t id = json_integer_value(json_array_get(pair, 0));
        double wanted = json_number_value(json_array_get(pair, 1));
        worst = fmax(worst, fabs(r->logits[id] - wanted));
    }
    return worst;
}

/* Where the reference itself was nearly undecided, another order of adding may decide otherwise, and the
 * texts then differ for good; everywhere else a different token is an error. */
static void check_greedy(struct rig *r, struct rig_seq *s, const json_t *prompt, const char *label)
{
    const json_t *gaps = json_object_get(prompt, "greedy_gaps");
    int32_t wanted[PROMPT_MAX];
    uint32_t n = read_ids(prompt, "greedy_ids", wanted);

    assert_int_equal(n, GREEDY);
    for (uint32_t i = 0; i < n; i++) {
        int32_t got = rig_argmax(r, 0);
        if (got != wanted[i])
            fail_msg("%s: greedy token %u is %d, wanted %d (the reference's gap is %g)", label, i,
                     got, wanted[i], json_number_value(json_array_get(gaps, i)));
        rig_prefill(r, s, &got, 1, 1);
    }
}

static void run_golden(const char *tier, const char *kv)
{
    char tier_setting[32], kv_setting[40], label[96];
    const char *settings[] = { tier_setting, kv_setting, NULL };
    struct err e = { 0 };
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *prompts, *prompt;
    double worst = 0;
    struct rig r;
    size_t i;

    snprintf(tier_setting, sizeof tier_setting, "cpu_tier=%s", tier);
    snprintf(kv_setting, sizeof kv_setting, "kv_cache_dtype=%s", kv);
    assert_non_null(golden);
    prompts = json_object_get(golden, "prompts");
    assert_true(json_array_size(prompts) >= 6);
    rig_open(&r, DEMO, settings);
    json_array_foreach (prompts, i, prompt) {
        struct rig_seq s = { 0 };
        int32_t ids[PROMPT_MAX];
        uint32_t n = read_ids(prompt, "ids", ids);
        double off;
        rig_prefill(&r, &s, ids, n, 512);
        off = worst_logit(&r, prompt);
        worst = fmax(worst, off);
        snprintf(label, sizeof label, "tier %s, KV %s, prompt %zu", tier, kv, i);
        if (!(off <= LOGIT_TOLERANCE))
            fail_msg("%s: a logit is off by %g, allowed is %g", label, off, LOGIT_TOLERANCE);
        check_greedy(&r, &s, prompt, label);
        rig_release(&r, &s);
    }
    printf("tier %s, KV %s: largest logit error %.2g of %g allowed\n", tier, kv, worst,
           LOGIT_TOLERANCE);
    rig_close(&r);
    json_decref(golden);
}

static void run_tier(enum cpu_tier tier)
{
    if (cpu_tier_choose(cpu_tier_name(tier)) != tier)
        skip();
    run_golden(cpu_tier_name(tier), "float32");
    run_golden(cpu_tier_name(tier), "float16");
}

static void plain_equals_golden(void **state)
{
    (void)state;
    run_tier(CPU_PLAIN);
}

static void avx2_equals_golden(void **state)
{
    (void)state;
    run_tier(CPU_AVX2);
}

static void avx512_equals_golden(void **state)
{
    (void)state;
    run_tier(CPU_AVX512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_equals_golden),
        cmocka_unit_test(avx2_equals_golden),
        cmocka_unit_test(avx512_equals_golden),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
