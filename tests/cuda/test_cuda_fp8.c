/* test_cuda_fp8.c - weights of fp8, on a fake GPU that multiplies them; the products also on others.
 *
 * What would break in production: scales of another row; a prompt that is read with other weights than its answer;
 * sums added up before they have their scales; a GPU without fp8 that is asked for it. */
#include "gpu-worker/ops/e4m3.h"
#include "tests/cuda/model_twins.h"
#include "tests/cuda/rounded_products.h"
#include "tests/unit/packed_writer.h"

/* ---- products ---- */

/* What of a row is left in E4M3. */
static void to_e4m3(double to[PRODUCT_COLS], const double x[PRODUCT_COLS])
{
    double largest = 0;

    for (int k = 0; k < PRODUCT_COLS; k++)
        largest = fmax(largest, fabs(x[k]));
    for (int k = 0; k < PRODUCT_COLS; k++)
        to[k] = (double)e4m3_to_float(float_to_e4m3((float)(x[k] * 448 / largest))) * largest / 448;
}

static const struct product_type fp8_products = { DTYPE_E4M3, to_e4m3, false };

/* A prompt's rows are rounded where the GPU multiplies fp8 and bits may depend on how many they are; else they are f16,
 * or as they are. */
static void products_have_the_input_that_the_gpu_allows(void **state)
{
    static const struct {
        struct product_case product;
        bool deterministic;
    } cases[] = {
        { { 1, true, false, false }, false },  { { 8, false, true, true }, false },
        { { 9, false, false, false }, false }, { { 40, true, true, false }, false },
        { { 40, false, true, true }, false },  { { 33, true, false, true }, false },
        { { 40, true, true, true }, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct ops_setup setup = product_setup(4 * PRODUCT_COLS);
        const struct product_case *c = &cases[i].product;
        struct product_off off;
        struct twins t;
        char what[80];
        bool is_rounded;
        twins_open(&t, &setup, 1, cases[i].deterministic, GRAPHS_AFTER_SOME);
        is_rounded = device_info(t.device)->sm >= 89 && c->n_rows > 8 && !cases[i].deterministic;
        snprintf(what, sizeof what, "sm_%d, case %zu of %u rows", device_info(t.device)->sm, i,
                 c->n_rows);
        off = product_run(&t, &fp8_products, c);
        product_off_check(&off, is_rounded, 10, what);
        twins_close(&t);
    }
}

/* ---- models ---- */

enum { VOCAB = 67, PROMPT = 19, DEMO_VOCAB = 2048, DEMO_PROMPT = 12 };

/* Rows and columns are multiples of 16, or not. */
static const struct checkpoint_spec even = {
    .architecture = "LlamaForCausalLM",
    .hidden = 64,
    .inner = 96,
    .layers = 2,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 16,
    .vocab = VOCAB,
    .dtype = DTYPE_F16,
    .theta = 10000,
    .n_files = 1,
};
static const struct checkpoint_spec odd = {
    .architecture = "MixtralForCausalLM",
    .hidden = 56,
    .inner = 72,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = VOCAB,
    .dtype = DTYPE_BF16,
    .theta = 10000,
    .experts = 4,
    .experts_used = 2,
    .expert_inner = 72,
    .n_files = 1,
};

/* The last token's logits; chunk: tokens of the prompt in a step. */
static void logits_of(const char *dir, const char *device, const char *const *more,
                      const int32_t *tokens, uint32_t n, uint32_t chunk, float *logits)
{
    struct rig_seq s = { 0 };
    struct rig r;

    gpu_model_open(&r, dir, device, more);
    rig_prefill(&r, &s, tokens, n, chunk);
    memcpy(logits, r.logits, r.info.vocab_size * sizeof *logits);
    rig_release(&r, &s);
    rig_close(&r);
}

static void check_checkpoint(const struct checkpoint_spec *spec, const struct pack_spec *pack)
{
    static const char *const exact[] = { "deterministic=on", "kv_cache_dtype=float32", NULL };
    static struct checkpoint c;
    int32_t tokens[PROMPT];
    double decoded, prompt, cpu;
    float wanted[VOCAB], got[VOCAB];

    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 29 + 3) % VOCAB;
    checkpoint_make(&c, spec, 42);
    packed_writer_checkpoint(&c, pack);
    gpu_model_exact(&c, tokens, PROMPT, wanted);
    logits_of(c.dir, "device=cuda", exact, tokens, PROMPT, 1, got);
    decoded = gpu_model_off_by(got, wanted, VOCAB);
    logits_of(c.dir, "device=cuda", NULL, tokens, PROMPT, PROMPT, got);
    prompt = gpu_model_off_by(got, wanted, VOCAB);
    logits_of(c.dir, "device=cpu", NULL, tokens, PROMPT, PROMPT, got);
    cpu = gpu_model_off_by(got, wanted, VOCAB);
    printf("%s, %s: logits are off by %.2g token by token, %.2g as one prompt, the CPU's by %.2g\n",
           spec->architecture, pack->label, decoded, prompt, cpu);
    assert_true(decoded < (pack->format == PACK_FP8_BLOCKS ? 0.05 : 1e-4));
    assert_true(prompt < 0.2 && cpu < 0.1);
    checkpoint_remove(&c);
}

/* One scale or one a row: every number of the file is multiplied as it is.  Blocks become int8. */
static void checkpoints_keep_their_numbers(void **state)
{
    static const struct pack_spec packs[] = { { "FP8", PACK_FP8, 8, 0, 0 },
                                              { "FP8, a scale a row", PACK_FP8_ROWS, 8, 0, 0 },
                                              { "FP8, blocks", PACK_FP8_BLOCKS, 8, 48, 0 } };

    (void)state;
    for (size_t i = 0; i < sizeof packs / sizeof *packs; i++)
        check_checkpoint(&even, &packs[i]);
    check_checkpoint(&odd, &packs[1]);
}

static void ranks_have_the_scales_of_their_rows(void **state)
{
    static const struct pack_spec pack = { "FP8, a scale a row", PACK_FP8_ROWS, 8, 0, 0 };
    static const char *const settings[][3] = { { "deterministic=on", NULL },
                                               { "deterministic=on", "tp_size=2", NULL } };
    static const char *const cut[] = { "tp_size=2", NULL };
    static struct checkpoint c;
    int32_t tokens[PROMPT];
    float wanted[VOCAB], one[VOCAB], two[VOCAB];

    (void)state;
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 31 + 5) % VOCAB;
    checkpoint_make(&c, &even, 7);
    packed_writer_checkpoint(&c, &pack);
    gpu_model_exact(&c, tokens, PROMPT, wanted);
    logits_of(c.dir, "device=cuda", settings[0], tokens, PROMPT, 4, one);
    logits_of(c.dir, "device=cuda", settings[1], tokens, PROMPT, 4, two);
    assert_memory_equal(one, two, sizeof one);
    logits_of(c.dir, "device=cuda", cut, tokens, PROMPT, 4, two);
    assert_true(gpu_model_off_by(two, wanted, VOCAB) < 5e-3);
    checkpoint_remove(&c);
}

/* What rounding the demo model's matrices costs, and then its prompt too. */
static void a_model_is_rounded_while_it_is_loaded(void **state)
{
    static const char *const exact[] = { "quantize=fp8", "deterministic=on", NULL };
    static const char *const fp8[] = { "quantize=fp8", NULL };
    static const char *const int8[] = { "quantize=int8", NULL };
    enum { N = DEMO_VOCAB };
    float *wanted = mem_alloc(N * sizeof *wanted), *got = mem_alloc(N * sizeof *got);
    double decoded, prompt, eight;
    int32_t tokens[DEMO_PROMPT];

    (void)state;
    gpu_model_tokens(tokens, DEMO_PROMPT, 0);
    logits_of(DEMO, "device=cpu", NULL, tokens, DEMO_PROMPT, DEMO_PROMPT, wanted);
    logits_of(DEMO, "device=cuda", exact, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    decoded = gpu_model_off_by(got, wanted, N);
    logits_of(DEMO, "device=cuda", fp8, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    prompt = gpu_model_off_by(got, wanted, N);
    logits_of(DEMO, "device=cuda", int8, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    eight = gpu_model_off_by(got, wanted, N);
    printf("demo model: logits are off by %.2g with weights of fp8, %.2g by way of cuBLASLt, %.2g "
           "with int8\n",
           decoded, prompt, eight);
    assert_true(decoded > 0 && decoded < 0.15 && prompt < 0.25 && eight < decoded);
    free(got);
    free(wanted);
}

/* [which tests] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_have_the_input_that_the_gpu_allows),
        cmocka_unit_test(checkpoints_keep_their_numbers),
        cmocka_unit_test(ranks_have_the_scales_of_their_rows),
        cmocka_unit_test(a_model_is_rounded_while_it_is_loaded),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
