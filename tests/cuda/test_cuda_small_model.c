/* test_cuda_small_model.c - a Llama of random weights, 2 layers of width 256, on the fake driver's GPU against the CPU
 * (design of the GPU backend, section 8.4), in each type of weights.
 *
 * What would break in production: numbers that are worse than the ways of computing them explain.  Up to 8 rows are
 * computed from float32 input, and so is everything with `deterministic`: then 1e-3 is the limit, and what there is of an
 * error is that of KV pages in float16, on both sides.  Of more rows the input is rounded to the type of the weights, for
 * cuBLASLt, to 8 bits of precision where that is bfloat16 and 11 where it is float16; and attention of more than a few
 * rows is that of tensor cores, whose input is float16, whatever the weights are.  That this is all is seen on a CPU that rounds
 * the same (rounded_cpu.h), where the limit is 1e-3 again.  A forward pass in double precision, which shares no line with
 * either, tells who of the two is off. */
#include <math.h>
#include <stdio.h>

#include "tests/check.h"
#include "tests/cuda/model_twins.h"

enum { PROMPTS = 2, GREEDY = 3, VOCAB = GPU_MODEL_WIDE_VOCAB, SEED = 20 };

static const uint32_t prompt_tokens[PROMPTS] = { 6, 26 };

/* A way to compute the same, and how far from the CPU its logits may be. */
struct way {
    const char *name;
    enum dtype dtype;
    const char *setting; /* or NULL */
    uint32_t chunk;      /* rows of a prompt in one step */
    double tolerance;
    bool cpu_rounds; /* as the GPU does */
};

struct errors {
    double gpu_cpu;              /* largest difference of a logit between the two */
    double gpu_exact, cpu_exact; /* and from double precision */
};

static void make_prompt(int32_t *tokens, uint32_t n, uint32_t seed)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)((seed * 7919 + i * i * 131 + i * 17) % VOCAB);
}

static double worst_exact(const float *a, const double *b)
{
    double most = 0;

    for (uint32_t i = 0; i < VOCAB; i++)
        most = fmax(most, fabs((double)a[i] - b[i]));
    return most;
}

/* The prompt and GREEDY tokens, chosen by the CPU and the same on the GPU. */
static void run_prompt(const struct checkpoint *c, struct model_twins *t, const struct way *way,
                       uint32_t n, struct errors *e)
{
    int32_t tokens[CHECKPOINT_POSITIONS];
    double exact[VOCAB];

    make_prompt(tokens, n, n);
    rig_prefill(&t->gpu, &t->on_gpu, tokens, n, way->chunk);
    rig_prefill(&t->cpu, &t->on_cpu, tokens, n, 64);
    checkpoint_logits(c, tokens, n, exact);
    e->gpu_exact = fmax(e->gpu_exact, worst_exact(t->gpu.logits, exact));
    e->cpu_exact = fmax(e->cpu_exact, worst_exact(t->cpu.logits, exact));
    for (uint32_t i = 0; i < GREEDY; i++) {
        e->gpu_cpu = fmax(e->gpu_cpu, model_twins_difference(t));
        tokens[n + i] = rig_argmax(&t->cpu, 0);
        if (rig_argmax(&t->gpu, 0) != tokens[n + i])
            fail_msg("%s: token %u after a prompt of %u is %d, not the CPU's %d", way->name, i, n,
                     rig_argmax(&t->gpu, 0), tokens[n + i]);
        model_twins_prefill(t, &tokens[n + i], 1, 1);
    }
    model_twins_release(t);
}

static void check(const struct way *way)
{
    struct checkpoint_spec spec = gpu_model_wide(way->dtype);
    static struct checkpoint c;
    struct errors e = { 0 };
    const char *const more[] = { way->setting, NULL };
    struct model_twins t;

    checkpoint_make(&c, &spec, SEED);
    if (way->cpu_rounds)
        model_twins_open_rounded(&t, c.dir);
    else
        model_twins_open(&t, c.dir, more, NULL);
    for (int i = 0; i < PROMPTS; i++)
        run_prompt(&c, &t, way, prompt_tokens[i], &e);
    model_twins_close(&t);
    checkpoint_remove(&c);
    printf("%s: a logit is %.2g from the CPU's at most (allowed %.2g); from double precision %.2g, "
           "the CPU's %.2g\n",
           way->name, e.gpu_cpu, way->tolerance, e.gpu_exact, e.cpu_exact);
    if (way->cpu_rounds)
        model_twins_check_rounding();
    assert_true(e.gpu_cpu <= way->tolerance);
}

static void check_all(const struct way *ways, size_t n)
{
    for (size_t i = 0; i < n; i++)
        check(&ways[i]);
}

static void deterministic_answers_are_the_cpus(void **state)
{
    static const struct way ways[] = {
        { "bfloat16, deterministic", DTYPE_BF16, "deterministic=on", 64, 1e-3, false },
    };

    (void)state;
    check_all(ways, sizeof ways / sizeof ways[0]);
}

static void few_rows_at_a_time_answer_as_on_the_cpu(void **state)
{
    static const struct way ways[] = {
        { "float16, 8 rows at a time", DTYPE_F16, NULL, 8, 1e-3, false },
        { "bfloat16, 8 rows at a time", DTYPE_BF16, NULL, 8, 1e-3, false },
    };

    (void)state;
    check_all(ways, sizeof ways / sizeof ways[0]);
}

static void many_rows_are_rounded_to_the_type_of_the_weights(void **state)
{
    static const struct way ways[] = {
        { "float32, prompts whole", DTYPE_F32, NULL, 64, 3e-3, false },
        { "float16, prompts whole", DTYPE_F16, NULL, 64, 6e-3, false },
        { "bfloat16, prompts whole", DTYPE_BF16, NULL, 64, 4e-2, false },
    };

    (void)state;
    check_all(ways, sizeof ways / sizeof ways[0]);
}

static void default_mode_differs_by_rounding_alone(void **state)
{
    static const struct way ways[] = {
        { "float32, rounded alike", DTYPE_F32, NULL, 64, 1e-3, true },
        { "float16, rounded alike", DTYPE_F16, NULL, 64, 1e-3, true },
        { "bfloat16, rounded alike", DTYPE_BF16, NULL, 64, 1e-3, true },
    };

    (void)state;
    check_all(ways, sizeof ways / sizeof ways[0]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(deterministic_answers_are_the_cpus),
        cmocka_unit_test(few_rows_at_a_time_answer_as_on_the_cpu),
        cmocka_unit_test(many_rows_are_rounded_to_the_type_of_the_weights),
        cmocka_unit_test(default_mode_differs_by_rounding_alone),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
