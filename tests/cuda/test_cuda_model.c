/* test_cuda_model.c - whole models on the fake driver's GPU, against the CPU and against golden numbers.
 *
 * What would break in production: a GPU that answers something else than the CPU; an answer that depends on how its
 * prompt was cut, on who else asked, or on how many GPUs share the model. */
#include <math.h>
#include <stdio.h>

#include "common/json.h"
#include "common/mem.h"
#include "tests/check.h"
#include "tests/cuda/model_twins.h"

/* A token takes the fake GPU some tenths of a second. */
enum { GREEDY = 5, PROMPTS = 3, ALL_PROMPTS = 6, PROMPT_MAX = 64 };

static uint32_t read_ids(const json_t *prompt, const char *key, int32_t *ids)
{
    const json_t *list = json_object_get(prompt, key);
    size_t n = json_array_size(list);

    assert_true(n > 0 && n <= PROMPT_MAX);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return (uint32_t)n;
}

static double worst_golden(const struct rig *r, const json_t *prompt)
{
    const json_t *top = json_object_get(prompt, "top_logits"), *pair;
    double worst = 0;
    size_t i;

    json_array_foreach (top, i, pair) {
        json_int_t id = json_integer_value(json_array_get(pair, 0));
        worst =
            fmax(worst, fabs((double)r->logits[id] - json_number_value(json_array_get(pair, 1))));
    }
    return worst;
}

struct errors {
    double cpu, golden; /* largest of a logit */
};

/* The prompt and GREEDY tokens on both: the tokens are those of the reference. */
static void run_prompt(struct model_twins *t, const json_t *prompt, struct errors *worst)
{
    int32_t ids[PROMPT_MAX], wanted[PROMPT_MAX];
    uint32_t n = read_ids(prompt, "ids", ids);

    read_ids(prompt, "greedy_ids", wanted);
    model_twins_prefill(t, ids, n, 64);
    worst->golden = fmax(worst->golden, worst_golden(&t->gpu, prompt));
    for (uint32_t i = 0; i < GREEDY; i++) {
        worst->cpu = fmax(worst->cpu, model_twins_difference(t));
        assert_int_equal(rig_argmax(&t->gpu, 0), wanted[i]);
        model_twins_prefill(t, &wanted[i], 1, 1);
    }
    model_twins_release(t);
}

/* The first of the prompts; closes t. */
static struct errors run_golden(struct model_twins *t, size_t n_prompts)
{
    struct err e = { 0 };
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *prompts, *prompt;
    struct errors worst = { 0 };
    size_t i;

    assert_non_null(golden);
    prompts = json_object_get(golden, "prompts");
    assert_true(json_array_size(prompts) >= n_prompts);
    json_array_foreach (prompts, i, prompt)
        if (i < n_prompts)
            run_prompt(t, prompt, &worst);
    model_twins_close(t);
    json_decref(golden);
    return worst;
}

static void demo_equals_cpu_and_golden(void **state)
{
    static const char *const exact[] = { "deterministic=on", NULL };
    struct model_twins t;
    struct errors off;

    (void)state;
    model_twins_open(&t, DEMO, exact, exact);
    off = run_golden(&t, PROMPTS);
    printf("deterministic: largest logit error %.2g of the CPU's, %.2g of golden\n", off.cpu,
           off.golden);
    assert_true(off.cpu <= 1e-3 && off.golden <= 2e-3);
    model_twins_open(&t, DEMO, NULL, NULL);
    off = run_golden(&t, PROMPTS);
    printf("by default: largest logit error %.2g of the CPU's, %.2g of golden\n", off.cpu,
           off.golden);
    assert_true(off.cpu <= 5e-2 && off.golden <= 5e-2);
}

/* Prompts of 5 to 38 tokens: products and attention of a few rows and of many. */
static void default_mode_differs_by_rounding_alone(void **state)
{
    struct model_twins t;
    struct errors off;

    (void)state;
    model_twins_open_rounded(&t, DEMO);
    off = run_golden(&t, ALL_PROMPTS);
    printf("by default: largest logit error %.2g of a CPU's that rounds the same\n", off.cpu);
    model_twins_check_rounding();
    assert_true(off.cpu <= 1e-3);
}

/* ---- company ---- */

enum { TOKENS = 12, OTHERS = 8 };

/* The prompt whole, and one token more. */
static void run_whole(const char *dir, const char *const *settings, float *whole, float *after)
{
    size_t bytes = gpu_model_small.vocab * sizeof *whole;
    struct rig_seq q = { 0 };
    int32_t tokens[TOKENS], next = 77;
    struct rig r;

    gpu_model_tokens(tokens, TOKENS, 1);
    gpu_model_open(&r, dir, "device=cuda", settings);
    rig_prefill(&r, &q, tokens, TOKENS, 64);
    memcpy(whole, r.logits, bytes);
    rig_prefill(&r, &q, &next, 1, 1);
    memcpy(after, r.logits, bytes);
    rig_release(&r, &q);
    rig_close(&r);
}

/* The same bits whatever the chunks, and beside others. */
static void check_company(const char *dir, const char *const *settings)
{
    float *whole = mem_alloc(gpu_model_small.vocab * sizeof *whole);
    float *after = mem_alloc(gpu_model_small.vocab * sizeof *after);
    int32_t tokens[TOKENS];
    struct rig_seq q = { 0 };
    struct rig r;

    run_whole(dir, settings, whole, after);
    gpu_model_tokens(tokens, TOKENS, 1);
    gpu_model_open(&r, dir, "device=cuda", settings);
    rig_prefill(&r, &q, tokens, TOKENS, 1);
    assert_memory_equal(r.logits, whole, gpu_model_small.vocab * sizeof *whole);
    rig_release(&r, &q);
    rig_prefill(&r, &q, tokens, TOKENS, 5);
    assert_memory_equal(r.logits, whole, gpu_model_small.vocab * sizeof *whole);
    gpu_model_decode_in_company(&r, &q, 77, OTHERS, 0);
    assert_memory_equal(r.logits, after, gpu_model_small.vocab * sizeof *after);
    rig_release(&r, &q);
    rig_close(&r);
    free(whole);
    free(after);
}

static void deterministic_answers_do_not_mind_chunks_and_company(void **state)
{
    static const char *const settings[][4] = {
        { "deterministic=on", NULL },
        { "deterministic=on", "quantize=int4", "kv_cache_dtype=int8", NULL },
    };
    static struct checkpoint c;

    (void)state;
    checkpoint_make(&c, &gpu_model_small, 5);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        check_company(c.dir, settings[i]);
    checkpoint_remove(&c);
}

/* Columns are cut, not sums, so no number of GPUs changes a bit. */
static void ranks_do_not_change_bits(void **state)
{
    static const char *const settings[][3] = {
        { "deterministic=on", "tp_size=1", NULL },
        { "deterministic=on", "tp_size=2", NULL },
        { "deterministic=on", "tp_size=4", NULL },
    };
    float *logits = mem_alloc(6 * gpu_model_small.vocab * sizeof *logits);
    size_t both = 2 * gpu_model_small.vocab * sizeof *logits;
    static struct checkpoint c;

    (void)state;
    checkpoint_make(&c, &gpu_model_small, 5);
    for (uint32_t i = 0; i < 3; i++) {
        float *at = logits + (size_t)2 * i * gpu_model_small.vocab;
        run_whole(c.dir, settings[i], at, at + gpu_model_small.vocab);
        assert_memory_equal(at, logits, both);
    }
    checkpoint_remove(&c);
    free(logits);
}

/* By default each rank has a part of every sum of o and down; a few rows at a time, so that nothing else rounds. */
static void ranks_that_split_sums_answer_alike(void **state)
{
    static const char *const settings[][2] = { { "tp_size=2", NULL }, { "tp_size=4", NULL } };
    enum { N = 6, STEPS = 3 };
    int32_t tokens[N];

    (void)state;
    gpu_model_tokens(tokens, N, 5);
    for (int i = 0; i < 2; i++) {
        struct model_twins t;
        int32_t next = 9;
        model_twins_open(&t, DEMO, settings[i], NULL);
        model_twins_prefill(&t, tokens, N, N);
        for (int step = 0; step < STEPS; step++) {
            double off = model_twins_difference(&t);
            if (off > 1e-3)
                fail_msg("%s, step %d: a logit differs by %g", settings[i][0], step, off);
            model_twins_prefill(&t, &next, 1, 1);
            next += 100;
        }
        model_twins_close(&t);
    }
}

/* ---- rounding of weights ---- */

/* On the CPU the input of an integer product is rounded to 8 bits too, on a GPU it is not: so the GPU is the more
 * exact one, and the two differ by about what the CPU's own rounding costs. */
static void quantised_models_are_near_the_cpus(void **state)
{
    static const char *const settings[][2] = { { "quantize=int8", NULL },
                                               { "quantize=int4", NULL } };
    enum { N = 12 };
    int32_t tokens[N], next = 9;

    (void)state;
    gpu_model_tokens(tokens, N, 3);
    for (int i = 0; i < 2; i++) {
        struct model_twins t;
        double many, one;
        model_twins_open(&t, DEMO, settings[i], settings[i]);
        model_twins_prefill(&t, tokens, N, 64);
        many = model_twins_difference(&t);
        model_twins_prefill(&t, &next, 1, 1);
        one = model_twins_difference(&t);
        printf("%s: a logit differs by %.2g at most after %d rows, %.2g after one\n",
               settings[i][0], many, N, one);
        assert_true(many < 0.5 && one < 0.5);
        model_twins_close(&t);
    }
}

/* ---- families ---- */

static const struct checkpoint_spec families[] = {
    { .architecture = "LlamaForCausalLM",
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
      .n_files = 1 },
    { .architecture = "LlamaForCausalLM",
      .hidden = 48,
      .inner = 80,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 53,
      .dtype = DTYPE_F32,
      .tied = true,
      .qkv_bias = true,
      .o_bias = true,
      .mlp_bias = true,
      .theta = 10000,
      .n_files = 1 },
    { .architecture = "MistralForCausalLM",
      .hidden = 64,
      .inner = 72,
      .layers = 3,
      .heads = 6,
      .kv_heads = 2,
      .head_dim = 32,
      .vocab = 64,
      .dtype = DTYPE_BF16,
      .window = 7,
      .theta = 1000000,
      .n_files = 1 },
    { .architecture = "Qwen3ForCausalLM",
      .hidden = 56,
      .inner = 80,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 32,
      .vocab = 67,
      .dtype = DTYPE_BF16,
      .tied = true,
      .theta = 1000000,
      .n_files = 1 },
    { .architecture = "Gemma2ForCausalLM",
      .hidden = 64,
      .inner = 80,
      .layers = 3,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 32,
      .vocab = 101,
      .dtype = DTYPE_BF16,
      .tied = true,
      .window = 6,
      .theta = 10000,
      .query_scalar = 10,
      .attn_cap = 2,
      .final_cap = 3,
      .n_files = 1 },
    { .architecture = "MixtralForCausalLM",
      .hidden = 64,
      .inner = 48,
      .layers = 2,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 67,
      .dtype = DTYPE_BF16,
      .theta = 10000,
      .experts = 5,
      .experts_used = 2,
      .expert_inner = 48,
      .n_files = 1 },
    { .architecture = "Qwen2MoeForCausalLM",
      .hidden = 64,
      .inner = 80,
      .layers = 3,
      .heads = 4,
      .kv_heads = 2,
      .head_dim = 16,
      .vocab = 67,
      .dtype = DTYPE_BF16,
      .qkv_bias = true,
      .theta = 10000,
      .experts = 8,
      .experts_used = 3,
      .expert_inner = 48,
      .shared_inner = 64,
      .sparse_step = 1,
      .dense_layer = 1,
      .n_files = 1 },
};

static void run_family(const struct checkpoint_spec *spec, const char *const *settings,
                       double tolerance)
{
    enum { N = 24 };
    static struct checkpoint c;
    int32_t tokens[N];
    struct model_twins t;
    double off = 0;

    checkpoint_make(&c, spec, 11);
    for (int i = 0; i < N; i++)
        tokens[i] = (int32_t)((uint32_t)(i * i + 3) % spec->vocab);
    model_twins_open(&t, c.dir, settings, settings);
    model_twins_prefill(&t, tokens, N - 4, 20);
    for (int i = N - 4; i < N; i++) {
        off = fmax(off, model_twins_difference(&t));
        model_twins_prefill(&t, tokens + i, 1, 1);
    }
    printf("%s: largest logit error %.2g of %.2g allowed\n", spec->architecture, off, tolerance);
    assert_true(off <= tolerance);
    model_twins_close(&t);
    checkpoint_remove(&c);
}

static void families_equal_the_cpus(void **state)
{
    static const char *const exact[] = { "deterministic=on", NULL };

    (void)state;
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        run_family(&families[i], exact, 1e-3);
        run_family(&families[i], NULL, 0.1);
    }
}

/* What the kernels cannot do is said before anything starts. */
static void unfit_models_are_refused(void **state)
{
    struct checkpoint_spec spec = families[0];
    static struct checkpoint c;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct config config;
    struct err e = { 0 };

    (void)state;
    spec.head_dim = 20;
    checkpoint_make(&c, &spec, 1);
    config_init(&config);
    assert_true(config_set(&config, "model", c.dir, "test", &e));
    assert_true(config_set(&config, "device", "cuda", "test", &e));
    assert_false(runtime_inspect(&config, &info, &plan, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_non_null(strstr(e.msg, "heads of 20"));
    assert_true(config_set(&config, "device", "auto", "test", &e));
    assert_true(runtime_inspect(&config, &info, &plan, &e));
    assert_false(plan.on_device);
    checkpoint_remove(&c);
}

/* [test's name] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_equals_cpu_and_golden),
        cmocka_unit_test(default_mode_differs_by_rounding_alone),
        cmocka_unit_test(deterministic_answers_do_not_mind_chunks_and_company),
        cmocka_unit_test(ranks_do_not_change_bits),
        cmocka_unit_test(ranks_that_split_sums_answer_alike),
        cmocka_unit_test(quantised_models_are_near_the_cpus),
        cmocka_unit_test(families_equal_the_cpus),
        cmocka_unit_test(unfit_models_are_refused),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
