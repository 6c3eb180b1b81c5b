/* test_ops_cuda.c - the CUDA table against the CPU's, op by op, on the fake driver.
 *
 * What would break in production: a GPU that computes something else than the CPU; a batch whose size decides
 * what a row's result is; a graph that replays a step of somebody else; a kernel that failed, and nobody looks. */
#include "gpu-worker/cuda/kernels/moe.h"
#include "proto/kvpool_layout.h"
#include "tests/cuda/fake/fake_cuda.h"
#include "tests/cuda/ops_twins.h"

enum {
    HEADS = 4,
    KV_HEADS = 2,
    HEAD_DIM = 32,
    QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM,
    DIM = 128,
    INNER = 96,
    VOCAB = 151, /* no multiple of anything */
    ROWS = 72,
    SEQS = 16,
    PAGE_TOKENS = 8,
    PAGES = 160,
    PAGES_A_SEQ = 80,
    POSITIONS = PAGES_A_SEQ * PAGE_TOKENS,
    LAYERS = 2,
    EXPERTS = 6,
    USED = 2,
    EXPERT_INNER = 160, /* more than a block of gemm_grouped.cu has, and whole panels */
};

static const enum dtype types[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_I8,
                                    DTYPE_I4,  DTYPE_I4M, DTYPE_E4M3 };
enum { N_TYPES = sizeof types / sizeof *types, N_TABLE_TYPES = N_TYPES - 1 /* no table is fp8 */ };

static struct ops_setup setup_of(enum dtype kv)
{
    static double freq[HEAD_DIM / 2];

    for (int i = 0; i < HEAD_DIM / 2; i++)
        freq[i] = pow(10000, -2.0 * i / HEAD_DIM);
    return (struct ops_setup){
        .rows_max = ROWS,
        .seqs_max = SEQS,
        .pages_max = PAGES_A_SEQ,
        .logits_max = SEQS + BATCH_EXTRA_LOGITS,
        .logits_cols = VOCAB,
        .cols_max = EXPERT_INNER,
        .column_unit = 8,
        .gated_max = EXPERT_INNER,
        .n_experts = EXPERTS,
        .n_experts_used = USED,
        .expert_down_max = DIM,
        .n_heads = HEADS,
        .n_kv_heads = KV_HEADS,
        .head_dim = HEAD_DIM,
        .positions_max = POSITIONS,
        .rope_freq = freq,
        .kv = { .n_pages = PAGES, .page_tokens = PAGE_TOKENS, .dtype = kv },
    };
}

static void open_plain(struct twins *t, bool deterministic)
{
    struct ops_setup setup = setup_of(DTYPE_F16);

    twins_open(t, &setup, LAYERS, deterministic, GRAPHS_AFTER_SOME);
}

/* A batch of one sequence whose rows are 0 .. n - 1: what ops that know no sequences need. */
struct plain_batch {
    int32_t tokens[ROWS];
    uint32_t logit_rows[ROWS], pages[PAGES_A_SEQ];
    struct batch_seq seq;
    struct batch batch;
};

static const struct batch *plain_batch(struct plain_batch *p, uint32_t n_rows, uint32_t n_logits)
{
    for (uint32_t i = 0; i < ROWS; i++) {
        p->tokens[i] = (int32_t)(i * 7 % VOCAB);
        p->logit_rows[i] = i * n_rows / (n_logits + 1);
    }
    for (uint32_t i = 0; i < PAGES_A_SEQ; i++)
        p->pages[i] = i * 37 % PAGES;
    p->seq = (struct batch_seq){ 0, n_rows, 0, PAGES_A_SEQ, p->pages };
    p->batch = (struct batch){ n_rows, p->tokens, 1, &p->seq, n_logits, p->logit_rows, false };
    return &p->batch;
}

/* ---- products ---- */

/* Of the input's rounding: an element may be off by so much of the sum of its magnitudes. */
static double rounding_of(enum dtype t, bool by_library)
{
    if (!by_library || t == DTYPE_F32)
        return 2e-6;
    return t == DTYPE_BF16 ? 0x1p-8 : 0x1.8p-10; /* input and, of integers, weights are rounded */
}

/* x' of ops.h. */
static void normalise(double *out, const float *x, const float *w, uint32_t n, double eps)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    for (uint32_t i = 0; i < n; i++)
        out[i] = (double)x[i] * (w ? (double)w[i] / sqrt(sum / n + eps) : 1);
}

/* sum_k w[r,k] x[k] + bias[r]; *magnitude gets the sum of the magnitudes. */
static double product(const struct twin_matrix *m, uint32_t r, const double *x, double *magnitude)
{
    double sum = m->bias.n > 0 ? (double)m->bias.host[r] : 0;

    *magnitude = fabs(sum);
    for (uint32_t k = 0; k < m->cpu.cols; k++) {
        double p = (double)m->values[(size_t)r * m->cpu.cols + k] * x[k];
        sum += p;
        *magnitude += fabs(p);
    }
    return sum;
}

struct linear_case {
    enum dtype dtype;
    uint32_t n_rows;
    bool has_norm, has_bias, add, deterministic;
};

static void check_linear(const struct linear_case *c, const struct twin_matrix *m, uint32_t n_w,
                         const struct twin_rows *x, const struct twin_rows *norm,
                         const float *before, const float *after, uint32_t stride)
{
    double eps = rounding_of(c->dtype, c->n_rows > 8 && !c->deterministic), in[DIM], magnitude;

    for (uint32_t t = 0; t < c->n_rows; t++) {
        uint32_t column = 0;
        normalise(in, x->host + (size_t)t * DIM, c->has_norm ? norm->host : NULL, DIM, 1e-5);
        for (uint32_t k = 0; k < n_w; column += m[k++].cpu.rows)
            for (uint32_t r = 0; r < m[k].cpu.rows; r++) {
                size_t at = (size_t)t * stride + column + r;
                double wanted = product(&m[k], r, in, &magnitude);
                wanted += c->add ? (double)before[at] : 0;
                if (!(fabs((double)after[at] - wanted) <= eps * (magnitude + 1)))
                    fail_msg("%s, %u rows, norm %d, bias %d, add %d: matrix %u row %u of row %u is "
                             "%g, not %g",
                             dtype_name(c->dtype), c->n_rows, c->has_norm, c->has_bias, c->add, k,
                             r, t, (double)after[at], wanted);
            }
        for (uint32_t k = column; k < stride; k++)
            assert_true(after[(size_t)t * stride + k] == before[(size_t)t * stride + k]);
    }
}

static void run_linear(struct twins *t, const struct linear_case *c)
{
    static const uint32_t heights[3] = { 64, 32, 16 };
    enum { WIDTH = 64 + 32 + 16 + 8 };
    struct plain_batch batch;
    struct twin_matrix m[3];
    struct weight w[3];
    struct twin_rows x = twins_rows(t, (size_t)c->n_rows * DIM), norm = twins_rows(t, DIM);
    struct twin_rows y = twins_rows(t, (size_t)c->n_rows * WIDTH);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    float *after;

    for (int k = 0; k < 3; k++) {
        m[k] = twins_matrix(t, c->dtype, heights[k], DIM, c->has_bias);
        w[k] = m[k].device;
    }
    twins_begin(t, plain_batch(&batch, c->n_rows, 0));
    t->ops->linear(t->stream, y.device, WIDTH, x.device, c->n_rows, c->has_norm ? &by : NULL, w, 3,
                   c->add ? LINEAR_ADD : LINEAR_SET);
    twins_finish(t);
    after = twins_fetch(t, y.device, y.n);
    check_linear(c, m, 3, &x, &norm, y.host, after, WIDTH);
    free(after);
    for (int k = 0; k < 3; k++)
        twins_matrix_free(t, &m[k]);
    twins_rows_free(t, &x);
    twins_rows_free(t, &norm);
    twins_rows_free(t, &y);
}

static void linear_is_the_sum_of_products(void **state)
{
    static const uint32_t rows[] = { 1, 3, 8, 9, 17, 70 };
    struct twins t;

    (void)state;
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        open_plain(&t, deterministic);
        for (int i = 0; i < N_TYPES; i++)
            for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
                run_linear(&t, &(struct linear_case){ types[i], rows[r], r % 2 == 0, r % 3 == 0,
                                                      (r + (size_t)i) % 2 == 0, deterministic });
        twins_close(&t);
    }
}

static double activate(double a, enum activation act)
{
    if (act == ACT_SILU)
        return a / (1 + exp(-a));
    return 0.5 * a * (1 + tanh(sqrt(2 / 3.14159265358979323846) * (a + 0.044715 * a * a * a)));
}

static void run_gated(struct twins *t, enum dtype dtype, uint32_t n_rows, enum activation act)
{
    struct plain_batch batch;
    struct twin_matrix gate = twins_matrix(t, dtype, INNER, DIM, true);
    struct twin_matrix up = twins_matrix(t, dtype, INNER, DIM, false);
    struct twin_rows x = twins_rows(t, (size_t)n_rows * DIM), norm = twins_rows(t, DIM);
    struct twin_rows y = twins_rows(t, (size_t)n_rows * INNER);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    double in[DIM], a, b, eps = 4 * rounding_of(dtype, n_rows > 8);
    float *got;

    twins_begin(t, plain_batch(&batch, n_rows, 0));
    t->ops->gated(t->stream, y.device, INNER, x.device, n_rows, &by, &gate.device, &up.device, act);
    twins_finish(t);
    got = twins_fetch(t, y.device, y.n);
    for (uint32_t i = 0; i < n_rows * INNER; i++) {
        normalise(in, x.host + i / INNER * DIM, norm.host, DIM, 1e-5);
        double g = product(&gate, i % INNER, in, &a), u = product(&up, i % INNER, in, &b);
        double wanted = activate(g, act) * u;
        if (!(fabs((double)got[i] - wanted) <= eps * (a * b + 1)))
            fail_msg("%s, %u rows: element %u is %g, not %g", dtype_name(dtype), n_rows, i,
                     (double)got[i], wanted);
    }
    free(got);
    twins_matrix_free(t, &gate);
    twins_matrix_free(t, &up);
    twins_rows_free(t, &x);
    twins_rows_free(t, &norm);
    twins_rows_free(t, &y);
}

static void gated_is_the_activated_gate_times_up(void **state)
{
    struct twins t;

    (void)state;
    open_plain(&t, false);
    for (int i = 0; i < N_TYPES; i++)
        for (uint32_t n = 2; n <= 20; n += 18) {
            run_gated(&t, types[i], n, ACT_SILU);
            run_gated(&t, types[i], n, ACT_GELU_TANH);
        }
    twins_close(&t);
}

/* Rows by the batch's list, into memory of the host with a stride of its own. */
static void run_logits(struct twins *t, enum dtype dtype, uint32_t n_logits, float softcap)
{
    enum { STRIDE = VOCAB + 11 };
    struct plain_batch batch;
    struct twin_matrix head = twins_matrix(t, dtype, VOCAB, DIM, false);
    struct twin_rows x = twins_rows(t, (size_t)ROWS * DIM), norm = twins_rows(t, DIM);
    float *y = mem_zalloc((size_t)n_logits * STRIDE, sizeof *y);
    struct norm by = { .w = norm.device, .eps = 1e-5f };
    double in[DIM], a;

    twins_begin(t, plain_batch(&batch, ROWS, n_logits));
    by.rows = batch.logit_rows;
    t->ops->logits(t->stream, y, STRIDE, x.device, n_logits, &by, &head.device, softcap);
    twins_finish(t);
    for (uint32_t i = 0; i < n_logits * STRIDE; i++) {
        uint32_t row = batch.logit_rows[i / STRIDE];
        double wanted = 0;
        a = 0;
        normalise(in, x.host + row * DIM, norm.host, DIM, 1e-5);
        if (i % STRIDE < VOCAB)
            wanted = product(&head, i % STRIDE, in, &a);
        wanted = softcap != 0 ? (double)softcap * tanh(wanted / (double)softcap) : wanted;
        if (!(fabs((double)y[i] - wanted) <= rounding_of(dtype, true) * (a + 1)))
            fail_msg("%s, %u logits: number %u is %g, not %g", dtype_name(dtype), n_logits, i,
                     (double)y[i], wanted);
    }
    free(y);
    twins_matrix_free(t, &head);
    twins_rows_free(t, &x);
    twins_rows_free(t, &norm);
}

static void logits_come_to_the_host(void **state)
{
    struct twins t;

    (void)state;
    open_plain(&t, false);
    run_logits(&t, DTYPE_BF16, 5, 0);
    run_logits(&t, DTYPE_F16, 30, 0);
    run_logits(&t, DTYPE_F32, 7, 3);
    run_logits(&t, DTYPE_BF16, 40, 2.5f);
    twins_close(&t);
}

/* ---- rows ---- */

static void embedding_takes_its_own_rows(void **state)
{
    struct twins t;

    (void)state;
    open_plain(&t, false);
    for (int i = 0; i < N_TABLE_TYPES; i++) {
        struct plain_batch batch;
        struct twin_matrix table = twins_matrix(&t, types[i], VOCAB - 40, DIM, false);
        struct twin_rows x = twins_rows(&t, (size_t)ROWS * DIM);
        twins_begin(&t, plain_batch(&batch, ROWS, 0));
        t.cpu.ops->embed(t.cpu.stream, x.host, &table.cpu, 20, 1.5f);
        t.ops->embed(t.stream, x.device, &table.device, 20, 1.5f);
        twins_finish(&t);
        twins_compare(&t, &x, 1e-6, dtype_name(types[i]));
        twins_rows_free(&t, &x);
        twins_matrix_free(&t, &table);
    }
    twins_close(&t);
}

static void norms_equal_the_cpus(void **state)
{
    struct plain_batch batch;
    struct twin_rows x, y, w;
    struct norm cpu = { .eps = 1e-5f }, gpu = cpu;
    struct twins t;
    float *hidden;

    (void)state;
    open_plain(&t, false);
    x = twins_rows(&t, (size_t)ROWS * DIM);
    y = twins_rows(&t, (size_t)ROWS * DIM);
    w = twins_rows(&t, DIM);
    cpu.w = w.host;
    gpu.w = w.device;
    twins_begin(&t, plain_batch(&batch, ROWS, 0));
    t.cpu.ops->rmsnorm(t.cpu.stream, y.host, x.host, ROWS, &cpu, DIM);
    t.ops->rmsnorm(t.stream, y.device, x.device, ROWS, &gpu, DIM);
    twins_compare(&t, &y, 1e-6, "rmsnorm");
    t.cpu.ops->add_normed(t.cpu.stream, x.host, y.host, ROWS, &cpu, DIM, 32, 64);
    t.ops->add_normed(t.stream, x.device, y.device, ROWS, &gpu, DIM, 32, 64);
    twins_compare(&t, &x, 1e-6, "add_normed");
    hidden = mem_zalloc((size_t)ROWS * DIM, sizeof *hidden);
    t.cpu.ops->hidden(t.cpu.stream, y.host, x.host, ROWS, &cpu, DIM);
    t.ops->hidden(t.stream, hidden, x.device, ROWS, &gpu, DIM);
    twins_finish(&t);
    for (size_t i = 0; i < y.n; i++)
        assert_true(fabs((double)(hidden[i] - y.host[i])) < 1e-5);
    free(hidden);
    twins_rows_free(&t, &x);
    twins_rows_free(&t, &y);
    twins_rows_free(&t, &w);
    twins_close(&t);
}

/* ---- attention ---- */

struct attention_case {
    enum dtype kv;
    uint32_t window;
    float softcap;
    bool deterministic, has_norm;
    double tolerance;
};

/* What the k of the rows are after rope is for each backend to say. */
static void compare_queries(struct twins *t, const struct twin_rows *qkv)
{
    float *got = twins_fetch(t, qkv->device, qkv->n);
    double limit = 2e-6 * twins_largest(qkv->host, qkv->n);

    for (size_t i = 0; i < qkv->n; i++)
        if (i % QKV < HEADS * HEAD_DIM)
            assert_true(fabs((double)got[i] - (double)qkv->host[i]) <= limit);
    free(got);
}

/* Rows of two sequences: the first goes on where it was, the second too; what each had before lies in the pages. */
static void run_step(struct twins *t, const struct attention_case *c, const uint32_t start[2],
                     const uint32_t n[2], const struct twin_rows *norm)
{
    uint32_t pages[2][PAGES_A_SEQ], n_rows = n[0] + n[1];
    int32_t tokens[ROWS] = { 0 };
    struct batch_seq seqs[2];
    struct batch b = { n_rows, tokens, 2, seqs, 0, NULL, false };
    struct twin_rows qkv = twins_rows(t, (size_t)n_rows * QKV);
    struct twin_rows out = twins_rows(t, (size_t)n_rows * HEADS * HEAD_DIM);
    struct attention_shape shape = { c->window, 0.2f, c->softcap };
    struct head_norm cpu = { norm->host, norm->host + HEAD_DIM, 1e-6f };
    struct head_norm gpu = { norm->device, norm->device + HEAD_DIM, 1e-6f };

    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t p = 0; p < PAGES_A_SEQ; p++)
            pages[i][p] =
                (p * 31 + i * 80) % PAGES; /* none twice: 31 and 160 have no common factor */
        seqs[i] = (struct batch_seq){ i * n[0], n[i], start[i],
                                      (start[i] + n[i] + PAGE_TOKENS - 1) / PAGE_TOKENS, pages[i] };
    }
    twins_begin(t, &b);
    t->cpu.ops->rope_kv_write(t->cpu.stream, qkv.host, c->has_norm ? &cpu : NULL, 1);
    t->ops->rope_kv_write(t->stream, qkv.device, c->has_norm ? &gpu : NULL, 1);
    compare_queries(t, &qkv);
    t->cpu.ops->attention(t->cpu.stream, out.host, HEADS * HEAD_DIM, qkv.host, 1, &shape);
    t->ops->attention(t->stream, out.device, HEADS * HEAD_DIM, qkv.device, 1, &shape);
    twins_finish(t);
    twins_compare(t, &out, c->tolerance, "attention");
    twins_rows_free(t, &qkv);
    twins_rows_free(t, &out);
}

static void run_attention(const struct attention_case *c)
{
    static const uint32_t chunks[][2] = { { 40, 3 }, { 1, 25 }, { 1, 1 }, { 5, 60 }, { 1, 1 } };
    struct ops_setup setup = setup_of(c->kv);
    uint32_t start[2] = { 0, 0 };
    struct twin_rows norm;
    struct twins t;

    twins_open(&t, &setup, LAYERS, c->deterministic, GRAPHS_AFTER_SOME);
    norm = twins_rows(&t, 2 * HEAD_DIM);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        run_step(&t, c, start, chunks[i], &norm);
        start[0] += chunks[i][0];
        start[1] += chunks[i][1];
    }
    twins_rows_free(&t, &norm);
    twins_close(&t);
}

static void attention_equals_the_cpus(void **state)
{
    static const struct attention_case cases[] = {
        { DTYPE_F16, 0, 0, false, false, 2e-3 }, { DTYPE_F16, 0, 0, true, true, 2e-5 },
        { DTYPE_F32, 0, 0, false, false, 2e-5 }, { DTYPE_F32, 11, 0, false, true, 2e-5 },
        { DTYPE_I8, 0, 0, true, false, 2e-2 },   { DTYPE_F16, 30, 5, false, true, 2e-3 },
        { DTYPE_E4M3, 0, 0, true, false, 0.1 },  { DTYPE_E4M3, 30, 0, false, true, 0.1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        run_attention(&cases[i]);
}

/* ---- a mixture of experts ---- */

struct mixture {
    struct twin_matrix router, shared;
    struct twin_matrix gate, up, down; /* all experts', one below the other */
    struct weight cpu[3][EXPERTS], device[3][EXPERTS];
    struct twin_rows norm;
};

/* Expert i of a stack; rows are a multiple of any panel. */
static struct weight slice(const struct weight *w, uint32_t i, size_t bytes)
{
    struct weight one = *w;

    one.rows = w->rows / EXPERTS;
    one.data = (const char *)w->data + i * bytes;
    return one;
}

static void cut(const struct twin_matrix *m, struct weight *cpu, struct weight *device)
{
    uint32_t rows = m->cpu.rows / EXPERTS, height = cuda_packing_panel_rows(m->device.dtype);
    size_t device_bytes = rows / height * cuda_packing_panel_bytes(m->device.dtype, m->cpu.cols);

    for (uint32_t i = 0; i < EXPERTS; i++) {
        cpu[i] = slice(&m->cpu, i, packing_bytes(m->cpu.dtype, rows, m->cpu.cols));
        device[i] = slice(&m->device, i, device_bytes);
    }
}

static struct mixture *mixture_new(struct twins *t, enum dtype dtype)
{
    struct mixture *m = mem_zalloc(1, sizeof *m);

    m->router = twins_matrix(t, DTYPE_F32, EXPERTS, DIM, false);
    m->shared = twins_matrix(t, DTYPE_F32, 1, DIM, false);
    m->gate = twins_matrix(t, dtype, EXPERTS * EXPERT_INNER, DIM, false);
    m->up = twins_matrix(t, dtype, EXPERTS * EXPERT_INNER, DIM, false);
    m->down = twins_matrix(t, dtype, EXPERTS * DIM, EXPERT_INNER, false);
    cut(&m->gate, m->cpu[0], m->device[0]);
    cut(&m->up, m->cpu[1], m->device[1]);
    cut(&m->down, m->cpu[2], m->device[2]);
    m->norm = twins_rows(t, DIM);
    return m;
}

static void mixture_free(struct twins *t, struct mixture *m)
{
    twins_matrix_free(t, &m->router);
    twins_matrix_free(t, &m->shared);
    twins_matrix_free(t, &m->gate);
    twins_matrix_free(t, &m->up);
    twins_matrix_free(t, &m->down);
    twins_rows_free(t, &m->norm);
    free(m);
}

static void run_mixture(const struct ops *ops, struct ops_stream *s, const struct norm *norm,
                        const struct weight *router, const struct weight *shared,
                        const struct weight (*w)[EXPERTS], float *x, float *y, uint32_t n)
{
    ops->route(s, x, n, norm, router, true);
    ops->experts_gated(s, y, EXPERT_INNER, x, norm, w[0], w[1], ACT_SILU);
    ops->gate_rows(s, y, EXPERT_INNER, EXPERT_INNER, x, n, norm, shared);
    ops->experts_down(s, x, DIM, y, w[2]);
}

/* Both sides from the same rows; tolerances of what experts_gated() and experts_down() give. */
static void compare_mixtures(struct twins *t, const struct mixture *m, uint32_t n, double gated,
                             double down)
{
    struct plain_batch batch;
    struct twin_rows x = twins_rows(t, (size_t)n * DIM);
    struct twin_rows y = twins_rows(t, (size_t)n * USED * EXPERT_INNER);
    struct norm cpu = { m->norm.host, 1e-5f, NULL }, gpu = { m->norm.device, 1e-5f, NULL };

    twins_begin(t, plain_batch(&batch, n, 0));
    run_mixture(t->cpu.ops, t->cpu.stream, &cpu, &m->router.cpu, &m->shared.cpu, m->cpu, x.host,
                y.host, n);
    run_mixture(t->ops, t->stream, &gpu, &m->router.device, &m->shared.device, m->device, x.device,
                y.device, n);
    twins_finish(t);
    twins_compare(t, &y, gated, "experts_gated");
    twins_compare(t, &x, down, "experts_down");
    twins_rows_free(t, &x);
    twins_rows_free(t, &y);
}

/* Rows from which an expert has more than MOE_GROUP_ROWS on average: tensor cores, the input rounded. */
enum { MANY = MOE_GROUP_ROWS * EXPERTS / USED + 1 };

static void mixtures_equal_the_cpus(void **state)
{
    static const enum dtype some[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16, DTYPE_E4M3 };
    static const uint32_t rows[] = { 1, 12, MANY - 1, MANY, ROWS }; /* exact: the fourth */
    struct twins t;

    (void)state;
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        open_plain(&t, deterministic);
        for (size_t i = 0; i < sizeof some / sizeof *some; i++) {
            struct mixture *m = mixture_new(&t, some[i]);
            for (size_t k = deterministic ? 3 : 0; k < sizeof rows / sizeof *rows - deterministic;
                 k++) {
                bool rounds = rows[k] >= MANY && !deterministic && some[i] != DTYPE_F32;
                double eps = rounds ? 2 * rounding_of(some[i], true) : 1e-5;
                compare_mixtures(&t, m, rows[k], eps, eps);
            }
            mixture_free(&t, m);
        }
        twins_close(&t);
    }
}

/* Whether that kernel runs in a mixture of n rows. */
static bool is_launched(struct twins *t, const struct fake_cuda *fake, const struct mixture *m,
                        uint32_t n, const char *kernel)
{
    struct fake_cuda_counts before, after;
    char rule[96];

    snprintf(rule, sizeof rule, "kernel %s 1: slow 1 # %u", kernel, n);
    assert_true(fake->add_faults(rule));
    fake->counts(&before);
    compare_mixtures(t, m, n, 0.5, 0.5);
    fake->counts(&after);
    return after.faults > before.faults;
}

/* The CPU rounds the input of an integer product to 8 bits, the GPU not: that they are near each other is all that is
 * said here, what the kernel gives is said in test_cuda_moe.c. */
static void packed_experts_go_to_the_tensor_cores(void **state)
{
    static const struct {
        enum dtype type;
        const char *kernel;
    } cases[] = { { DTYPE_I8, "gemm_grouped_i8" },
                  { DTYPE_I4, "gemm_grouped_i4" },
                  { DTYPE_E4M3, "gemm_grouped_e4m3" } };
    struct fake_cuda fake;
    struct twins t;

    (void)state;
    open_plain(&t, false);
    assert_true(fake_cuda_find(&fake));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mixture *m = mixture_new(&t, cases[i].type);
        assert_true(is_launched(&t, &fake, m, MANY, cases[i].kernel));
        assert_true(is_launched(&t, &fake, m, ROWS, cases[i].kernel));
        mixture_free(&t, m);
    }
    twins_close(&t);
}

/* ---- company and graphs ---- */

/* One decode step of sequences 0 .. n - 1, each at position `at`: a layer and the head.  Logits: [n, VOCAB]. */
struct decoder {
    struct twins t;
    struct twin_matrix embed, qkv, o;
    struct twin_rows norm;
    float *x, *heads, *mid;     /* device */
    float logits[SEQS * VOCAB]; /* where every step writes them, as a model has it */
};

static float *device_floats(struct twins *t, size_t n)
{
    struct err e = { 0 };
    cu_ptr p;

    twins_must(device_alloc(t->device, &p, n * sizeof(float), &e), &e, "device_alloc");
    return (float *)(uintptr_t)p;
}

static void decoder_open(struct decoder *d, bool deterministic, enum ops_cuda_graphs graphs)
{
    struct ops_setup setup = setup_of(DTYPE_F16);

    twins_open(&d->t, &setup, LAYERS, deterministic, graphs);
    d->embed = twins_matrix(&d->t, DTYPE_BF16, VOCAB, DIM, false);
    d->qkv = twins_matrix(&d->t, DTYPE_BF16, QKV, DIM, false);
    d->o = twins_matrix(&d->t, DTYPE_BF16, DIM, HEADS * HEAD_DIM, false);
    d->norm = twins_rows(&d->t, DIM);
    d->x = device_floats(&d->t, (size_t)ROWS * DIM);
    d->heads = device_floats(&d->t, (size_t)ROWS * HEADS * HEAD_DIM);
    d->mid = device_floats(&d->t, (size_t)ROWS * QKV);
}

static void decoder_close(struct decoder *d)
{
    struct twins *t = &d->t;

    device_free(t->device, (cu_ptr)(uintptr_t)d->x);
    device_free(t->device, (cu_ptr)(uintptr_t)d->heads);
    device_free(t->device, (cu_ptr)(uintptr_t)d->mid);
    twins_matrix_free(t, &d->embed);
    twins_matrix_free(t, &d->qkv);
    twins_matrix_free(t, &d->o);
    twins_rows_free(t, &d->norm);
    twins_close(t);
}

static void run_ops(struct decoder *d, const struct batch *b, struct ops_step step)
{
    const struct ops *ops = d->t.ops;
    struct ops_stream *s = d->t.stream;
    struct norm norm = { .w = d->norm.device, .eps = 1e-5f };
    struct attention_shape shape = { 0, 0.2f, 0 };

    ops->embed(s, d->x, &d->embed.device, 0, 1);
    ops->linear(s, d->mid, QKV, d->x, step.n_rows, &norm, &d->qkv.device, 1, LINEAR_SET);
    ops->rope_kv_write(s, d->mid, NULL, 0);
    ops->attention(s, d->heads, HEADS * HEAD_DIM, d->mid, 0, &shape);
    ops->linear(s, d->x, DIM, d->heads, step.n_rows, NULL, &d->o.device, 1, LINEAR_ADD);
    norm.rows = b->logit_rows;
    ops->logits(s, d->logits, VOCAB, d->x, step.n_logits, &norm, &d->embed.device, 0);
}

static void record(struct decoder *d, bool is_idle)
{
    const struct batch *b;
    struct ops_step step;

    if (!d->t.ops->record_is_due(d->t.stream, is_idle))
        return;
    assert_true(d->t.ops->record_begin(d->t.stream, is_idle, &b, &step));
    run_ops(d, b, step);
    d->t.ops->record_end(d->t.stream);
}

static void decode(struct decoder *d, uint32_t first, uint32_t n, uint32_t at, float *logits)
{
    uint32_t pages[SEQS][PAGES_A_SEQ], logit_rows[SEQS];
    struct batch_seq seqs[SEQS];
    int32_t tokens[SEQS];
    struct batch b = { n, tokens, n, seqs, n, logit_rows, false };
    struct ops_step step;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t q = first + i;
        for (uint32_t p = 0; p < 8; p++)
            pages[i][p] = q * 8 + p;
        tokens[i] = (int32_t)((q * 31 + at * 7) % VOCAB);
        logit_rows[i] = i;
        seqs[i] = (struct batch_seq){ i, 1, at, 8, pages[i] };
    }
    if (d->t.ops->begin(d->t.stream, &b, &step))
        run_ops(d, &b, step);
    twins_finish(&d->t);
    memcpy(logits, d->logits, (size_t)n * VOCAB * sizeof *logits);
}

enum { STEPS = 40 };

/* Numbers of sequences that change, so that graphs of several sizes take turns. */
static void decode_all(struct decoder *d, float *logits)
{
    static const uint32_t sizes[] = { 3, 4, 7, 1, 16 };

    for (uint32_t at = 0; at < STEPS; at++) {
        decode(d, 0, sizes[at % 5], at, logits + (size_t)at * SEQS * VOCAB);
        record(d, true);
    }
}

static void graphs_give_what_single_launches_give(void **state)
{
    float *with = mem_zalloc((size_t)STEPS * SEQS * VOCAB, sizeof *with);
    float *eager = mem_zalloc((size_t)STEPS * SEQS * VOCAB, sizeof *eager);
    struct ops_cuda_counts counts;
    struct decoder d;

    (void)state;
    decoder_open(&d, false, GRAPHS_AFTER_SOME);
    /* twice: sequences begin again, over the same pages */
    decode_all(&d, with);
    memset(with, 0, (size_t)STEPS * SEQS * VOCAB * sizeof *with);
    decode_all(&d, with);
    counts = ops_cuda_counts(d.t.stream);
    assert_int_equal(counts.recorded, 4); /* 3 and 4 share one */
    assert_in_range(counts.replayed, STEPS, 2 * STEPS - 1);
    decoder_close(&d);
    decoder_open(&d, false, GRAPHS_OFF);
    decode_all(&d, eager);
    counts = ops_cuda_counts(d.t.stream);
    assert_int_equal(counts.recorded + counts.replayed, 0);
    decoder_close(&d);
    assert_memory_equal(with, eager, (size_t)STEPS * SEQS * VOCAB * sizeof *with);
    free(with);
    free(eager);
}

/* A step that somebody waits for is not held up for a graph, unless there never is another moment. */
static void busy_steps_are_recorded_late(void **state)
{
    float *logits = mem_zalloc(SEQS * VOCAB, sizeof *logits);
    struct decoder d;

    (void)state;
    decoder_open(&d, false, GRAPHS_AFTER_SOME);
    for (uint32_t i = 1; i <= CUDA_GRAPH_AFTER_BUSY; i++) {
        assert_int_equal(ops_cuda_counts(d.t.stream).recorded, 0);
        assert_int_equal(d.t.ops->record_is_due(d.t.stream, true), i > CUDA_GRAPH_AFTER);
        decode(&d, 0, 1, i % STEPS, logits);
        record(&d, false);
    }
    assert_int_equal(ops_cuda_counts(d.t.stream).recorded, 1);
    assert_false(d.t.ops->record_is_due(d.t.stream, true));
    decoder_close(&d);
    free(logits);
}

static void deterministic_rows_do_not_mind_company(void **state)
{
    float *alone = mem_zalloc(VOCAB, sizeof *alone), *together = mem_zalloc(SEQS * VOCAB, 4);
    struct decoder d;

    (void)state;
    decoder_open(&d, true, GRAPHS_AFTER_SOME);
    for (uint32_t at = 0; at < 12; at++) {
        decode(&d, 5, 1, at, alone);
        decode(&d, 0, SEQS, at, together);
        assert_memory_equal(alone, together + 5 * VOCAB, VOCAB * sizeof *alone);
    }
    decoder_close(&d);
    free(alone);
    free(together);
}

/* ---- failure ---- */

static void a_kernel_that_fails_ends_the_step(void **state)
{
    float *logits = mem_zalloc(SEQS * VOCAB, sizeof *logits);
    struct fake_cuda fake;
    struct decoder d;
    struct ops_step step;
    struct plain_batch batch;
    struct err e = { 0 };

    (void)state;
    decoder_open(&d, false, GRAPHS_AFTER_SOME);
    assert_true(fake_cuda_find(&fake));
    decode(&d, 0, 2, 0, logits);
    assert_true(fake.add_faults("kernel rope_kv_write 1: sticky 700"));
    assert_true(d.t.ops->begin(d.t.stream, plain_batch(&batch, 2, 2), &step));
    run_ops(&d, &batch.batch, step);
    assert_false(d.t.ops->finish(d.t.stream, &e));
    assert_int_equal(e.code, ERR_DEVICE);
    assert_int_equal(e.sys, CU_ILLEGAL_ADDRESS);
    printf("%s\n", e.msg);
    decoder_close(&d);
    free(logits);
}

/* [test's name] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_is_the_sum_of_products),
        cmocka_unit_test(gated_is_the_activated_gate_times_up),
        cmocka_unit_test(logits_come_to_the_host),
        cmocka_unit_test(embedding_takes_its_own_rows),
        cmocka_unit_test(norms_equal_the_cpus),
        cmocka_unit_test(attention_equals_the_cpus),
        cmocka_unit_test(mixtures_equal_the_cpus),
        cmocka_unit_test(packed_experts_go_to_the_tensor_cores),
        cmocka_unit_test(graphs_give_what_single_launches_give),
        cmocka_unit_test(busy_steps_are_recorded_late),
        cmocka_unit_test(deterministic_rows_do_not_mind_company),
        cmocka_unit_test(a_kernel_that_fails_ends_the_step),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
