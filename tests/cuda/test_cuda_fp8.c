/* test_cuda_fp8.c - weights of fp8, on a fake GPU that multiplies them; the products also on others.
 *
 * What would break in production: scales of another row; a prompt that is read with other weights than its answer;
 * sums added up before they have their scales; a GPU without fp8 that is asked for it. */
#include "gpu-worker/ops/e4m3.h"
#include "tests/cuda/model_twins.h"
#include "tests/cuda/ops_twins.h"
#include "tests/unit/packed_writer.h"

/* ---- products ---- */

enum { DIM = 128, ROWS = 40, HEIGHT = 112, WIDTH = 2 * HEIGHT + 4 };

static struct ops_setup setup_of(void)
{
    static double freq[16];

    return (struct ops_setup){
        .rows_max = ROWS,
        .seqs_max = 4,
        .pages_max = 8,
        .logits_max = 4 + BATCH_EXTRA_LOGITS,
        .logits_cols = HEIGHT,
        .cols_max = 4 * DIM, /* other matrices are larger: there is room for sums */
        .column_unit = 16,
        .gated_max = HEIGHT,
        .n_heads = 2,
        .n_kv_heads = 2,
        .head_dim = 32,
        .positions_max = 64,
        .rope_freq = freq,
        .kv = { .n_pages = 8, .page_tokens = 8, .dtype = DTYPE_F16 },
    };
}

struct product_case {
    uint32_t n_rows;
    bool has_norm, has_bias, add, deterministic;
};

/* x' of a row, and what of it is left in E4M3. */
static void input_of(const float *x, const float *norm, double exact[DIM], double rounded[DIM])
{
    double sum = 0, largest = 0;

    for (int k = 0; k < DIM; k++)
        sum += (double)x[k] * (double)x[k];
    for (int k = 0; k < DIM; k++) {
        exact[k] = (double)x[k] * (norm ? (double)norm[k] / sqrt(sum / DIM + 1e-5) : 1);
        largest = fmax(largest, fabs(exact[k]));
    }
    for (int k = 0; k < DIM; k++)
        rounded[k] =
            (double)e4m3_to_float(float_to_e4m3((float)(exact[k] * 448 / largest))) * largest / 448;
}

/* Root mean square of what results are off. */
struct off {
    double exact, rounded; /* from the input as it is, from it in E4M3 */
    uint32_t n;
};

static void compare(struct off *off, const struct product_case *c, const struct twin_matrix *m,
                    const struct twin_rows *x, const struct twin_rows *norm, const float *before,
                    const float *after)
{
    for (uint32_t t = 0; t < c->n_rows; t++) {
        double exact[DIM], rounded[DIM];
        input_of(x->host + (size_t)t * DIM, c->has_norm ? norm->host : NULL, exact, rounded);
        for (uint32_t i = 0; i < 2 * HEIGHT; i++) {
            const struct twin_matrix *w = &m[i / HEIGHT];
            uint32_t r = i % HEIGHT;
            size_t at = (size_t)t * WIDTH + i;
            double rest =
                (c->has_bias ? (double)w->bias.host[r] : 0) + (c->add ? (double)before[at] : 0);
            double a = rest, b = rest;
            for (uint32_t k = 0; k < DIM; k++) {
                a += (double)w->values[r * DIM + k] * exact[k];
                b += (double)w->values[r * DIM + k] * rounded[k];
            }
            off->exact += ((double)after[at] - a) * ((double)after[at] - a);
            off->rounded += ((double)after[at] - b) * ((double)after[at] - b);
            off->n++;
        }
        for (uint32_t i = 2 * HEIGHT; i < WIDTH; i++)
            assert_true(after[(size_t)t * WIDTH + i] == before[(size_t)t * WIDTH + i]);
    }
    off->exact = sqrt(off->exact / off->n);
    off->rounded = sqrt(off->rounded / off->n);
}

static struct off run_product(struct twins *t, const struct product_case *c)
{
    static int32_t tokens[ROWS];
    uint32_t pages[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };
    struct batch_seq seq = { 0, c->n_rows, 0, 8, pages };
    struct batch batch = { c->n_rows, tokens, 1, &seq, 0, NULL };
    struct twin_rows x = twins_rows(t, (size_t)c->n_rows * DIM), norm = twins_rows(t, DIM);
    struct twin_rows y = twins_rows(t, (size_t)c->n_rows * WIDTH);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    struct twin_matrix m[2];
    struct weight w[2];
    struct off off = { 0, 0, 0 };
    float *after;

    for (int k = 0; k < 2; k++) {
        m[k] = twins_matrix(t, DTYPE_E4M3, HEIGHT, DIM, c->has_bias);
        w[k] = m[k].device;
    }
    twins_begin(t, &batch);
    t->ops->linear(t->stream, y.device, WIDTH, x.device, c->n_rows, c->has_norm ? &by : NULL, w, 2,
                   c->add ? LINEAR_ADD : LINEAR_SET);
    twins_finish(t);
    after = twins_fetch(t, y.device, y.n);
    compare(&off, c, m, &x, &norm, y.host, after);
    free(after);
    for (int k = 0; k < 2; k++)
        twins_matrix_free(t, &m[k]);
    twins_rows_free(t, &x);
    twins_rows_free(t, &norm);
    twins_rows_free(t, &y);
    return off;
}

/* A prompt's rows are rounded where the GPU multiplies fp8 and bits may depend on how many they are; else they are f16,
 * or as they are. */
static void products_have_the_input_that_the_gpu_allows(void **state)
{
    static const struct product_case cases[] = {
        { 1, true, false, false, false },   { 8, false, true, true, false },
        { 9, false, false, false, false },  { ROWS, true, true, false, false },
        { ROWS, false, true, true, false }, { 33, true, false, true, false },
        { ROWS, true, true, true, true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct product_case *c = &cases[i];
        struct ops_setup setup = setup_of();
        struct twins t;
        struct off off;
        bool is_rounded;
        twins_open(&t, &setup, 1, c->deterministic, GRAPHS_AFTER_SOME);
        is_rounded = device_info(t.device)->sm >= 89 && c->n_rows > 8 && !c->deterministic;
        off = run_product(&t, c);
        if (is_rounded ? off.rounded > 2e-3 || off.exact < 10 * off.rounded
                       : off.exact > 2e-3 || off.rounded < 10 * off.exact)
            fail_msg("sm_%d, %u rows, norm %d, add %d, deterministic %d: off the exact product by "
                     "%g, off that of rounded rows by %g",
                     device_info(t.device)->sm, c->n_rows, c->has_norm, c->add, c->deterministic,
                     off.exact, off.rounded);
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

/* Root mean square of the difference, as a share of the wanted's. */
static double off_by(const float *got, const double *wanted, uint32_t n)
{
    double error = 0, power = 0;

    for (uint32_t i = 0; i < n; i++) {
        error += ((double)got[i] - wanted[i]) * ((double)got[i] - wanted[i]);
        power += wanted[i] * wanted[i];
    }
    return sqrt(error / power);
}

static void check_checkpoint(const struct checkpoint_spec *spec, const struct pack_spec *pack)
{
    static const char *const exact[] = { "deterministic=on", "kv_cache_dtype=float32", NULL };
    static struct checkpoint c;
    int32_t tokens[PROMPT];
    double wanted[VOCAB], decoded, prompt, cpu;
    float got[VOCAB];

    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 29 + 3) % VOCAB;
    checkpoint_make(&c, spec, 42);
    packed_writer_checkpoint(&c, pack);
    checkpoint_logits(&c, tokens, PROMPT, wanted);
    logits_of(c.dir, "device=cuda", exact, tokens, PROMPT, 1, got);
    decoded = off_by(got, wanted, VOCAB);
    logits_of(c.dir, "device=cuda", NULL, tokens, PROMPT, PROMPT, got);
    prompt = off_by(got, wanted, VOCAB);
    logits_of(c.dir, "device=cpu", NULL, tokens, PROMPT, PROMPT, got);
    cpu = off_by(got, wanted, VOCAB);
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
    double wanted[VOCAB];
    float one[VOCAB], two[VOCAB];

    (void)state;
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 31 + 5) % VOCAB;
    checkpoint_make(&c, &even, 7);
    packed_writer_checkpoint(&c, &pack);
    checkpoint_logits(&c, tokens, PROMPT, wanted);
    logits_of(c.dir, "device=cuda", settings[0], tokens, PROMPT, 4, one);
    logits_of(c.dir, "device=cuda", settings[1], tokens, PROMPT, 4, two);
    assert_memory_equal(one, two, sizeof one);
    logits_of(c.dir, "device=cuda", cut, tokens, PROMPT, 4, two);
    assert_true(off_by(two, wanted, VOCAB) < 5e-3);
    checkpoint_remove(&c);
}

/* What rounding the demo model's matrices costs, and then its prompt too. */
static void a_model_is_rounded_while_it_is_loaded(void **state)
{
    static const char *const exact[] = { "quantize=fp8", "deterministic=on", NULL };
    static const char *const fp8[] = { "quantize=fp8", NULL };
    static const char *const int8[] = { "quantize=int8", NULL };
    enum { N = DEMO_VOCAB };
    float *plain = mem_alloc(N * sizeof *plain), *got = mem_alloc(N * sizeof *got);
    double *wanted = mem_alloc(N * sizeof *wanted), decoded, prompt, eight;
    int32_t tokens[DEMO_PROMPT];

    (void)state;
    gpu_model_tokens(tokens, DEMO_PROMPT, 0);
    logits_of(DEMO, "device=cpu", NULL, tokens, DEMO_PROMPT, DEMO_PROMPT, plain);
    for (int i = 0; i < N; i++)
        wanted[i] = (double)plain[i];
    logits_of(DEMO, "device=cuda", exact, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    decoded = off_by(got, wanted, N);
    logits_of(DEMO, "device=cuda", fp8, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    prompt = off_by(got, wanted, N);
    logits_of(DEMO, "device=cuda", int8, tokens, DEMO_PROMPT, DEMO_PROMPT, got);
    eight = off_by(got, wanted, N);
    printf("demo model: logits are off by %.2g with weights of fp8, %.2g by way of cuBLASLt, %.2g "
           "with int8\n",
           decoded, prompt, eight);
    assert_true(decoded > 0 && decoded < 0.15 && prompt < 0.25 && eight < decoded);
    free(plain);
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
