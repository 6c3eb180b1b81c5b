/* test_cuda_int8.c - prompts multiplied in int8 (W8A8: the setting int8_products), on the fake driver's GPU.
 *
 * What would break in production: scales of another row or another matrix; sums that are added up before they have their
 * scales; a head or a few streams that get the rounding of a prompt; a setting that costs more than is said of it. */
#include "tests/cuda/ops_twins.h"
#include "tests/unit/model_rig.h"
#include "tests/unit/packed_writer.h"
#include "text/tokenizer.h"

/* ---- products ---- */

enum { DIM = 128, ROWS = 72, HEIGHT = 112, WIDTH = 2 * HEIGHT + 4 };

static struct ops_setup setup_of(bool is_tight)
{
    static double freq[16];

    return (struct ops_setup){
        .rows_max = ROWS,
        .seqs_max = 4,
        .pages_max = 8,
        .logits_max = ROWS,
        .logits_cols = HEIGHT,
        .cols_max = is_tight ? DIM : 4 * DIM, /* of a larger matrix: then there is room for sums */
        .column_unit = 16,
        .gated_max = HEIGHT,
        .n_heads = 2,
        .n_kv_heads = 2,
        .head_dim = 32,
        .positions_max = 128,
        .rope_freq = freq,
        .kv = { .n_pages = 8, .page_tokens = 16, .dtype = DTYPE_F16 },
    };
}

struct product_case {
    uint32_t n_rows;
    bool has_norm, has_bias, add, is_tight, deterministic, is_off;
    bool is_int8; /* what is made of it, where the GPU can */
};

/* To 127 steps of the largest, as rows of the input and of the matrix are. */
static void round_row(double *to, const double *x, uint32_t n)
{
    double largest = 0;

    for (uint32_t k = 0; k < n; k++)
        largest = fmax(largest, fabs(x[k]));
    for (uint32_t k = 0; k < n; k++)
        to[k] = largest > 0 ? nearbyint(x[k] * 127 / largest) * largest / 127 : 0;
}

static void input_of(const float *x, const float *norm, double exact[DIM], double rounded[DIM])
{
    double sum = 0;

    for (int k = 0; k < DIM; k++)
        sum += (double)x[k] * (double)x[k];
    for (int k = 0; k < DIM; k++)
        exact[k] = (double)x[k] * (norm ? (double)norm[k] / sqrt(sum / DIM + 1e-5) : 1);
    round_row(rounded, exact, DIM);
}

/* Root mean square of what results are off. */
struct off {
    double exact, rounded; /* from the numbers as they are, from both sides in int8 */
    uint32_t n;
};

static void off_add(struct off *off, double got, const double *w, const double *exact,
                    const double *rounded, double rest)
{
    double in_int8[DIM], a = rest, b = rest;

    round_row(in_int8, w, DIM);
    for (uint32_t k = 0; k < DIM; k++) {
        a += w[k] * exact[k];
        b += in_int8[k] * rounded[k];
    }
    off->exact += (got - a) * (got - a);
    off->rounded += (got - b) * (got - b);
    off->n++;
}

static void off_finish(struct off *off)
{
    off->exact = sqrt(off->exact / off->n);
    off->rounded = sqrt(off->rounded / off->n);
}

static void compare(struct off *off, const struct product_case *c, const struct twin_matrix *m,
                    const struct twin_rows *x, const struct twin_rows *norm, const float *before,
                    const float *after)
{
    for (uint32_t t = 0; t < c->n_rows; t++) {
        double exact[DIM], rounded[DIM], w[DIM];
        input_of(x->host + (size_t)t * DIM, c->has_norm ? norm->host : NULL, exact, rounded);
        for (uint32_t i = 0; i < 2 * HEIGHT; i++) {
            const struct twin_matrix *of = &m[i / HEIGHT];
            uint32_t r = i % HEIGHT;
            size_t at = (size_t)t * WIDTH + i;
            for (uint32_t k = 0; k < DIM; k++)
                w[k] = (double)of->values[r * DIM + k];
            off_add(off, (double)after[at], w, exact, rounded,
                    (c->has_bias ? (double)of->bias.host[r] : 0) +
                        (c->add ? (double)before[at] : 0));
        }
        for (uint32_t i = 2 * HEIGHT; i < WIDTH; i++)
            assert_true(after[(size_t)t * WIDTH + i] == before[(size_t)t * WIDTH + i]);
    }
    off_finish(off);
}

/* The values are those that int8 with a scale for 32 columns has made of them. */
static struct twin_matrix int8_matrix(struct twins *t, uint32_t rows, bool has_bias)
{
    struct twin_matrix m = twins_matrix(t, DTYPE_I8, rows, DIM, has_bias);

    for (uint32_t r = 0; r < rows; r++)
        packing_unpack_row(DTYPE_I8, m.values + (size_t)r * DIM, m.cpu.data, r, DIM);
    return m;
}

/* One sequence, to be kept until the step is done. */
struct rows_batch {
    int32_t tokens[ROWS];
    uint32_t pages[8], logit_rows[ROWS];
    struct batch_seq seq;
    struct batch batch;
};

static void begin_rows(struct twins *t, struct rows_batch *b, uint32_t n_rows, uint32_t n_logits)
{
    *b = (struct rows_batch){ .pages = { 0, 1, 2, 3, 4, 5, 6, 7 } };
    for (uint32_t i = 0; i < n_logits; i++)
        b->logit_rows[i] = i;
    b->seq = (struct batch_seq){ 0, n_rows, 0, 8, b->pages };
    b->batch = (struct batch){ n_rows, b->tokens, 1, &b->seq, n_logits, b->logit_rows };
    twins_begin(t, &b->batch);
}

static struct off run_product(struct twins *t, const struct product_case *c)
{
    struct twin_rows x = twins_rows(t, (size_t)c->n_rows * DIM), norm = twins_rows(t, DIM);
    struct twin_rows y = twins_rows(t, (size_t)c->n_rows * WIDTH);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    struct off off = { 0, 0, 0 };
    struct twin_matrix m[2];
    struct rows_batch batch;
    struct weight w[2];
    float *after;

    for (int k = 0; k < 2; k++) {
        m[k] = int8_matrix(t, HEIGHT, c->has_bias);
        w[k] = m[k].device;
    }
    begin_rows(t, &batch, c->n_rows, 0);
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

/* Whoever is rounded is off as far as that goes, and no further. */
static void check_off(const struct off *off, bool is_rounded, const char *what)
{
    if (is_rounded ? off->rounded > 2e-3 || off->exact < 5 * off->rounded
                   : off->exact > 2e-3 || off->rounded < 5 * off->exact)
        fail_msg("%s: off the exact product by %g, off that of rounded rows by %g", what,
                 off->exact, off->rounded);
}

static void long_prompts_are_rounded_and_nothing_else_is(void **state)
{
    static const struct product_case cases[] = {
        { .n_rows = 8 },
        { .n_rows = 64, .has_norm = true },
        { .n_rows = 65, .is_int8 = true },
        { .n_rows = ROWS, .has_norm = true, .has_bias = true, .is_int8 = true },
        { .n_rows = ROWS, .has_bias = true, .add = true, .is_int8 = true },
        { .n_rows = 67, .has_norm = true, .add = true, .is_int8 = true },
        { .n_rows = ROWS, .add = true, .is_tight = true },
        { .n_rows = ROWS, .has_norm = true, .is_tight = true, .is_int8 = true },
        { .n_rows = ROWS, .has_norm = true, .deterministic = true },
        { .n_rows = ROWS, .has_norm = true, .is_off = true },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct product_case *c = &cases[i];
        struct ops_setup setup = setup_of(c->is_tight);
        struct twins t;
        struct off off;
        char what[80];
        bool can;
        twins_open_on(&t, &setup, 1,
                      (struct ops_cuda_setup){ .deterministic = c->deterministic,
                                               .int8_products = !c->is_off });
        can = device_info(t.device)->sm >= 75;
        assert_int_equal(ops_cuda_has_int8_products(t.stream),
                         can && !c->is_off && !c->deterministic);
        snprintf(what, sizeof what, "sm_%d, case %zu of %u rows", device_info(t.device)->sm, i,
                 c->n_rows);
        off = run_product(&t, c);
        check_off(&off, c->is_int8 && can, what);
        twins_close(&t);
    }
}

/* As many streams as a prompt has rows: their logits keep what the last product has of precision. */
static void the_head_is_not_rounded(void **state)
{
    struct ops_setup setup = setup_of(false);
    float *y = mem_alloc(ROWS * HEIGHT * sizeof *y);
    struct off off = { 0, 0, 0 };
    struct rows_batch batch;
    struct twin_matrix m;
    struct twin_rows x;
    struct twins t;

    (void)state;
    twins_open_on(&t, &setup, 1, (struct ops_cuda_setup){ .int8_products = true });
    m = int8_matrix(&t, HEIGHT, false);
    x = twins_rows(&t, ROWS * DIM);
    begin_rows(&t, &batch, ROWS, ROWS);
    t.ops->logits(t.stream, y, HEIGHT, x.device, ROWS, NULL, &m.device, 0);
    twins_finish(&t);
    for (uint32_t i = 0; i < ROWS * HEIGHT; i++) {
        double exact[DIM], rounded[DIM], w[DIM];
        input_of(x.host + i / HEIGHT * DIM, NULL, exact, rounded);
        for (uint32_t k = 0; k < DIM; k++)
            w[k] = (double)m.values[i % HEIGHT * DIM + k];
        off_add(&off, (double)y[i], w, exact, rounded, 0);
    }
    off_finish(&off);
    check_off(&off, false, "logits");
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
    double squares = 0, power = 0;

    for (uint32_t p = 0; p < PROMPTS; p++) {
        const float *a = got + (size_t)p * vocab, *b = wanted + (size_t)p * vocab;
        double of_a = log_sum(a, vocab), of_b = log_sum(b, vocab);
        for (uint32_t i = 0; i < vocab; i++) {
            double off = (double)a[i] - (double)b[i];
            squares += off * off;
            power += (double)b[i] * (double)b[i];
            d.largest = fmax(d.largest, fabs(off));
            d.kl += exp((double)b[i] - of_b) * ((double)b[i] - of_b - ((double)a[i] - of_a));
        }
        d.same += likeliest(a, vocab) == likeliest(b, vocab);
    }
    d.rms = sqrt(squares / power);
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
    struct tokenizer *t = tokenizer_open(TEST_SOURCE_DIR "/models/stories-demo", &e);
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
    w = run_ways(TEST_SOURCE_DIR "/models/stories-demo", &p, DEMO_VOCAB);
    d = check_ways(&w);
    assert_true(d.rms < 0.03 && d.kl < 0.005);
    ways_free(&w);
}

enum { VOCAB = 512 };

static const struct checkpoint_spec small = {
    .architecture = "LlamaForCausalLM",
    .hidden = 256,
    .inner = 512,
    .layers = 2,
    .heads = 8,
    .kv_heads = 4,
    .head_dim = 32,
    .vocab = VOCAB,
    .dtype = DTYPE_F16,
    .theta = 10000,
    .n_files = 1,
};

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
    double one[VOCAB];

    for (uint32_t i = 0; i < PROMPTS; i++) {
        checkpoint_logits(c, p->tokens[i], PROMPT_TOKENS, one);
        for (uint32_t k = 0; k < VOCAB; k++)
            logits[(size_t)i * VOCAB + k] = (float)one[k];
    }
    return logits;
}

/* A checkpoint with a scale a row is the case that others' W8A8 is made for: its codes stay what they are.  Our own int8, with
 * a scale for 32 columns, is rounded again, and no further off for it. */
static void scales_of_columns_cost_no_more_than_scales_of_rows(void **state)
{
    static const struct pack_spec rows = { "int8, a scale a row", PACK_CT_INT8, 8, 0, PACK_SYM };
    static const char *const on[] = { "int8_products=on", NULL };
    static const char *const cut[] = { "int8_products=on", "tp_size=2", NULL };
    static struct checkpoint c;
    struct distance by_columns, by_rows, of_ranks;
    float *plain, *got;
    struct prompts p;
    struct ways w;

    (void)state;
    make_prompts(&p);
    checkpoint_make(&c, &small, 20);
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
