/* test_cuda_int8.c - prompts multiplied in int8 (W8A8: the setting int8_products), on the fake driver's GPU.
 *
 * What would break in production: scales of another row or another matrix; sums that are added up before they have their
 * scales; a head or a few streams that get the rounding of a prompt; a setting that costs more than is said of it. */
#include "tests/cuda/model_twins.h"
#include "tests/cuda/rounded_products.h"
#include "tests/unit/packed_writer.h"
#include "text/tokenizer.h"

/* ---- products ---- */

/* To 127 steps of the largest, as rows of the input and of the matrix are. */
static void to_int8(double to[PRODUCT_COLS], const double x[PRODUCT_COLS])
{
    double largest = 0;

    for (uint32_t k = 0; k < PRODUCT_COLS; k++)
        largest = fmax(largest, fabs(x[k]));
    for (uint32_t k = 0; k < PRODUCT_COLS; k++)
        to[k] = largest > 0 ? nearbyint(x[k] * 127 / largest) * largest / 127 : 0;
}

static const struct product_type int8_products = { DTYPE_I8, to_int8, true };

/* One that is rounded is off from the exact product by so much more, and the other way about. */
enum { FACTOR = 5, COLS_WITH_ROOM = 4 * PRODUCT_COLS };

static void long_prompts_are_rounded_and_nothing_else_is(void **state)
{
    static const struct {
        struct product_case product;
        bool is_tight, deterministic, is_off;
        bool is_int8; /* what is made of it, where the GPU can */
    } cases[] = {
        { .product = { .n_rows = 8 } },
        { .product = { .n_rows = 64, .has_norm = true } },
        { .product = { .n_rows = 65 }, .is_int8 = true },
        { .product = { .n_rows = 72, .has_norm = true, .has_bias = true }, .is_int8 = true },
        { .product = { .n_rows = 72, .has_bias = true, .add = true }, .is_int8 = true },
        { .product = { .n_rows = 67, .has_norm = true, .add = true }, .is_int8 = true },
        { .product = { .n_rows = 72, .add = true }, .is_tight = true },
        { .product = { .n_rows = 72, .has_norm = true }, .is_tight = true, .is_int8 = true },
        { .product = { .n_rows = 72, .has_norm = true }, .deterministic = true },
        { .product = { .n_rows = 72, .has_norm = true }, .is_off = true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bool is_off = cases[i].is_off, deterministic = cases[i].deterministic, can;
        struct ops_setup setup = product_setup(cases[i].is_tight ? PRODUCT_COLS : COLS_WITH_ROOM);
        struct product_off off;
        struct twins t;
        char what[80];
        twins_open_on(
            &t, &setup, 1,
            (struct ops_cuda_setup){ .deterministic = deterministic, .int8_products = !is_off });
        can = device_info(t.device)->sm >= 75;
        assert_int_equal(ops_cuda_has_int8_products(t.stream), can && !is_off && !deterministic);
        snprintf(what, sizeof what, "sm_%d, case %zu of %u rows", device_info(t.device)->sm, i,
                 cases[i].product.n_rows);
        off = product_run(&t, &int8_products, &cases[i].product);
        product_off_check(&off, cases[i].is_int8 && can, FACTOR, what);
        twins_close(&t);
    }
}

/* As many streams as a prompt has rows: their logits keep what the last product has of precision. */
static void the_head_is_not_rounded(void **state)
{
    enum { ROWS = PRODUCT_ROWS_MAX, HEIGHT = PRODUCT_HEIGHT };
    struct ops_setup setup = product_setup(COLS_WITH_ROOM);
    float *y = mem_alloc(ROWS * HEIGHT * sizeof *y);
    struct product_off off = { 0, 0, 0 };
    struct product_step step;
    struct twin_matrix m;
    struct twin_rows x;
    struct twins t;

    (void)state;
    twins_open_on(&t, &setup, 1, (struct ops_cuda_setup){ .int8_products = true });
    m = product_matrix(&t, &int8_products, false);
    x = twins_rows(&t, ROWS * PRODUCT_COLS);
    product_begin(&t, &step, ROWS, ROWS);
    t.ops->logits(t.stream, y, HEIGHT, x.device, ROWS, NULL, &m.device, 0);
    twins_finish(&t);
    for (uint32_t i = 0; i < ROWS * HEIGHT; i++) {
        double exact[PRODUCT_COLS], rounded[PRODUCT_COLS];
        product_input(&int8_products, x.host + i / HEIGHT * PRODUCT_COLS, NULL, exact, rounded);
        product_off_add(&off, &int8_products, (double)y[i], m.values + i % HEIGHT * PRODUCT_COLS,
                        exact, rounded, 0);
    }
    product_off_finish(&off);
    product_off_check(&off, false, FACTOR, "logits");
    twins_rows_free(&t, &x);
    twins_matrix_free(&t, &m);
    twins_close(&t);
    free(y);
}

/* ---- models ---- */

/* Prompts that are one step together, and the logits of each last token. */
enum { PROMPTS = 6, PROMPT_TOKENS = 24 };

struct prompts {
    int32_t tokens[PROMPTS][PROMPT_TOKENS];
};

/* Caller frees: [PROMPTS, vocab]. */
static float *logits_of(const char *dir, const char *device, const char *const *more,
                        const struct prompts *p)
{
    const char *settings[8] = { device, "max_num_seqs=16", "max_num_batched_tokens=512" };
    struct rig_seq seqs[PROMPTS] = { { 0 } }, *at[PROMPTS];
    const int32_t *tokens[PROMPTS];
    uint32_t n[PROMPTS];
    float *logits;
    struct rig r;

    for (int i = 3; more && *more; more++)
        settings[i++] = *more;
    rig_open(&r, dir, settings);
    for (uint32_t i = 0; i < PROMPTS; i++) {
        at[i] = &seqs[i];
        tokens[i] = p->tokens[i];
        n[i] = PROMPT_TOKENS;
    }
    rig_step(&r, at, tokens, n, PROMPTS);
    logits = mem_alloc((size_t)PROMPTS * r.info.vocab_size * sizeof *logits);
    memcpy(logits, r.logits, (size_t)PROMPTS * r.info.vocab_size * sizeof *logits);
    for (uint32_t i = 0; i < PROMPTS; i++)
        rig_release(&r, &seqs[i]);
    rig_close(&r);
    return logits;
}

/* What logits are off: of all prompts. */
struct distance {
    double rms;     /* as a share of the wanted logits' */
    double largest; /* of any logit */
    double kl;      /* nats a prompt, of the next token */
    uint32_t same;  /* prompts with the same likeliest next token */
};

static double log_sum(const float *x, uint32_t n)
{
    double most = -INFINITY, sum = 0;

    for (uint32_t i = 0; i < n; i++)
        most = fmax(most, (double)x[i]);
    for (uint32_t i = 0; i < n; i++)
        sum += exp((double)x[i] - most);
    return most + log(sum);
}

static uint32_t likeliest(const float *x, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

static struct distance distance_of(const float *got, const float *wanted, uint32_t vocab)
{
    struct distance d = { 0, 0, 0, 0 };

    for (uint32_t p = 0; p < PROMPTS; p++) {
        const float *a = got + (size_t)p * vocab, *b = wanted + (size_t)p * vocab;
        double of_a = log_sum(a, vocab), of_b = log_sum(b, vocab);
        for (uint32_t i = 0; i < vocab; i++) {
            double off = (double)a[i] - (double)b[i];
            d.largest = fmax(d.largest, fabs(off));
            d.kl += exp((double)b[i] - of_b) * ((double)b[i] - of_b - ((double)a[i] - of_a));
        }
        d.same += likeliest(a, vocab) == likeliest(b, vocab);
    }
    d.rms = gpu_model_off_by(got, wanted, (size_t)PROMPTS * vocab);
    d.kl /= PROMPTS;
    return d;
}

static struct distance distance_say(const char *what, const float *got, const float *wanted,
                                    uint32_t vocab)
{
    struct distance d = distance_of(got, wanted, vocab);

    printf("%s: logits are off by %.2g (rms), by %.2g at most, %.2g nats; %u of %d next tokens are "
           "the same\n",
           what, d.rms, d.largest, d.kl, d.same, PROMPTS);
    return d;
}

/* Logits of one model by all ways: the weights as they are, in int8 on the CPU and on the GPU, with prompts in int8. */
struct ways {
    float *plain, *cpu, *gpu, *products;
    uint32_t vocab;
};

static const char *const int8_weights[] = { "quantize=int8", NULL };
static const char *const int8_both[] = { "quantize=int8", "int8_products=on", NULL };

static struct ways run_ways(const char *dir, const struct prompts *p, uint32_t vocab)
{
    return (struct ways){ .plain = logits_of(dir, "device=cpu", NULL, p),
                          .cpu = logits_of(dir, "device=cpu", int8_weights, p),
                          .gpu = logits_of(dir, "device=cuda", int8_weights, p),
                          .products = logits_of(dir, "device=cuda", int8_both, p),
                          .vocab = vocab };
}

static void ways_free(struct ways *w)
{
    free(w->plain);
    free(w->cpu);
    free(w->gpu);
    free(w->products);
}

static struct distance check_ways(const struct ways *w)
{
    struct distance cpu = distance_say("int8 on the CPU", w->cpu, w->plain, w->vocab);
    struct distance gpu = distance_say("int8 on the GPU", w->gpu, w->plain, w->vocab);
    struct distance d =
        distance_say("int8 on the GPU, prompts too", w->products, w->plain, w->vocab);

    distance_say("the same against int8 on the CPU", w->products, w->cpu, w->vocab);
    assert_true(distance_of(w->products, w->gpu, w->vocab).rms > 1e-4); /* it was another product */
    assert_true(cpu.rms < 0.05 && gpu.rms < 0.05);
    return d;
}

/* The beginnings of the stories that bench/quality measures with. */
static void read_prompts(struct prompts *p)
{
    struct err e = { 0 };
    struct tokenizer *t = tokenizer_open(DEMO, &e);
    FILE *f = fopen(TEST_SOURCE_DIR "/bench/quality/heldout.txt", "re");
    char *line = NULL;
    size_t room = 0;
    uint32_t n = 0;

    assert_true(t && f);
    while (n < PROMPTS && getline(&line, &room, f) > 0) {
        struct token_list ids = { 0 };
        assert_true(tokenizer_encode(t, line, strlen(line) - 1, TOKENIZER_ADD_SPECIAL, &ids, &e));
        if (ids.n >= PROMPT_TOKENS)
            memcpy(p->tokens[n++], ids.ids, sizeof p->tokens[0]);
        token_list_fini(&ids);
    }
    assert_int_equal(n, PROMPTS);
    free(line);
    fclose(f);
    tokenizer_close(t);
}

/* What docs/migrating-from-tgi.md says of it. */
static void the_demo_model_is_off_by_what_is_said(void **state)
{
    enum { DEMO_VOCAB = 2048 };
    struct prompts p;
    struct ways w;
    struct distance d;

    (void)state;
    read_prompts(&p);
    w = run_ways(DEMO, &p, DEMO_VOCAB);
    d = check_ways(&w);
    assert_true(d.rms < 0.03 && d.kl < 0.005);
    ways_free(&w);
}

enum { VOCAB = GPU_MODEL_WIDE_VOCAB };

static void make_prompts(struct prompts *p)
{
    for (uint32_t i = 0; i < PROMPTS; i++)
        for (uint32_t k = 0; k < PROMPT_TOKENS; k++)
            p->tokens[i][k] = (int32_t)((i * 7919 + k * k * 131 + k * 17 + 3) % VOCAB);
}

/* In double precision, of what the files say. */
static float *exact_logits(const struct checkpoint *c, const struct prompts *p)
{
    float *logits = mem_alloc((size_t)PROMPTS * VOCAB * sizeof *logits);

    for (uint32_t i = 0; i < PROMPTS; i++)
        gpu_model_exact(c, p->tokens[i], PROMPT_TOKENS, logits + (size_t)i * VOCAB);
    return logits;
}

/* A checkpoint with a scale a row is the case that others' W8A8 is made for: its codes stay what they are.  Our own int8, with
 * a scale for 32 columns, is rounded again, and no further off for it. */
static void scales_of_columns_cost_no_more_than_scales_of_rows(void **state)
{
    static const struct pack_spec rows = { "int8, a scale a row", PACK_CT_INT8, 8, 0, PACK_SYM };
    static const char *const on[] = { "int8_products=on", NULL };
    static const char *const cut[] = { "int8_products=on", "tp_size=2", NULL };
    struct checkpoint_spec spec = gpu_model_wide(DTYPE_F16);
    static struct checkpoint c;
    struct distance by_columns, by_rows, of_ranks;
    float *plain, *got;
    struct prompts p;
    struct ways w;

    (void)state;
    make_prompts(&p);
    checkpoint_make(&c, &spec, 20);
    plain = exact_logits(&c, &p);
    w = run_ways(c.dir, &p, VOCAB);
    assert_true(distance_of(w.plain, plain, VOCAB).rms < 1e-3);
    by_columns = check_ways(&w);
    ways_free(&w);
    packed_writer_checkpoint(&c, &rows);
    got = logits_of(c.dir, "device=cuda", on, &p);
    by_rows = distance_say("a checkpoint with a scale a row", got, plain, VOCAB);
    free(got);
    got = logits_of(c.dir, "device=cuda", cut, &p);
    of_ranks = distance_say("the same on two GPUs", got, plain, VOCAB);
    free(got);
    free(plain);
    checkpoint_remove(&c);
    assert_true(by_columns.rms < 1.25 * by_rows.rms && by_rows.rms < 0.05);
    assert_true(of_ranks.rms < 1.25 * by_rows.rms);
}

/* [which tests] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(long_prompts_are_rounded_and_nothing_else_is),
        cmocka_unit_test(the_head_is_not_rounded),
        cmocka_unit_test(the_demo_model_is_off_by_what_is_said),
        cmocka_unit_test(scales_of_columns_cost_no_more_than_scales_of_rows),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
