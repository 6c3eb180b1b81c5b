/* The kernels of elementwise.cu against plain loops in double, over the shapes of models and odd ones.
 *
 * What would break in production: a row's last columns left out, a neighbour's overwritten, a token's KV in another
 * one's slot; and results that depend on which thread came first. */
#include <math.h>
#include <stdio.h>

#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/rope_table.h"
#include "tests/check.h"
#include "tests/cuda/l1.h"

static const double type_limit[N_ROW_TYPES] = { 1e-6, 0x1p-11, 0x1p-8 };
static const char *const type_names[N_ROW_TYPES] = { "f32", "f16", "bf16" };

static float element(const void *row, uint32_t type, size_t i)
{
    if (type == ROW_F32)
        return ((const float *)row)[i];
    return type == ROW_F16 ? f16_to_float(((const uint16_t *)row)[i])
                           : bf16_to_float(((const uint16_t *)row)[i]);
}

static void set_element(void *row, uint32_t type, size_t i, float v)
{
    if (type == ROW_F32)
        ((float *)row)[i] = v;
    else
        ((uint16_t *)row)[i] = type == ROW_F16 ? float_to_f16(v) : float_to_bf16(v);
}

/* Columns from..to - 1 of a row are as l1_run_in_orders() left them. */
static void assert_untouched(const void *row, uint32_t type, size_t from, size_t to)
{
    const uint8_t *bytes = row;

    for (size_t i = from * row_type_bytes(type); i < to * row_type_bytes(type); i++)
        assert_int_equal(bytes[i], 0xff);
}

/* ---- norms ---- */

static double norm_of(const float *x, uint32_t dim, double eps)
{
    double sum = 0;

    for (uint32_t i = 0; i < dim; i++)
        sum += (double)x[i] * (double)x[i];
    return 1 / sqrt(sum / dim + eps);
}

static void run_rmsnorm(void *ctx)
{
    l1_launch("rmsnorm", 3, 1, 1, 0, ctx, sizeof(struct rmsnorm_args));
}

static void check_rmsnorm(struct l1_error *error, uint32_t dim, uint32_t type, bool gathered)
{
    enum { ROWS = 3, SOURCES = 5 };
    struct l1_random r = { dim + type };
    size_t bytes = (size_t)ROWS * dim * row_type_bytes(type);
    struct rmsnorm_args a = { .y = l1_alloc(bytes), .dim = dim, .y_type = type, .eps = 1e-5f };
    float *x = l1_floats(&r, (size_t)SOURCES * dim, 3), *w = l1_floats(&r, dim, 1.5f);
    uint32_t *rows = l1_alloc(ROWS * sizeof *rows);

    memcpy(rows, (uint32_t[ROWS]){ 4, 0, 4 }, ROWS * sizeof *rows);
    a.x = x;
    a.w = w;
    a.rows = gathered ? rows : NULL;
    l1_run_in_orders(run_rmsnorm, &a, a.y, bytes);
    for (uint32_t t = 0; t < ROWS; t++) {
        const float *row = x + (gathered ? rows[t] : t) * (size_t)dim;
        double scale = norm_of(row, dim, 1e-5);
        for (uint32_t i = 0; i < dim; i++)
            l1_compare_one(error, (double)element(a.y, type, (size_t)t * dim + i),
                           (double)w[i] * (double)row[i] * scale, 1e-3);
    }
    l1_free(a.y);
    l1_free(x);
    l1_free(w);
    l1_free(rows);
}

static void rows_are_normalised(void **state)
{
    static const uint32_t dims[] = { 8, 72, 128, 1000, 1032, 4096, 5120, 16384 };

    (void)state;
    for (uint32_t type = 0; type < N_ROW_TYPES; type++) {
        struct l1_error error = { 0 };
        char name[32];
        for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
            check_rmsnorm(&error, dims[i], type, i % 2);
        snprintf(name, sizeof name, "rmsnorm.%s", type_names[type]);
        l1_expect(name, &error, type_limit[type]);
    }
}

static void a_row_is_normalised_in_place(void **state)
{
    struct l1_random r = { 1 };
    struct l1_error error = { 0 };
    float *x = l1_floats(&r, 3 * 512, 3), *w = l1_floats(&r, 512, 1);
    double want[3 * 512];
    struct rmsnorm_args a = { .y = x, .x = x, .w = w, .dim = 512, .y_type = ROW_F32, .eps = 1e-6f };

    (void)state;
    for (int i = 0; i < 3 * 512; i++)
        want[i] = (double)w[i % 512] * (double)x[i] * norm_of(x + i / 512 * 512, 512, 1e-6);
    run_rmsnorm(&a);
    l1_compare(&error, x, want, 3 * 512, 1e-3);
    assert_true(error.largest < 1e-6);
    l1_free(x);
    l1_free(w);
}

struct add_normed_case {
    struct add_normed_args a;
    const float *before;
    uint32_t n_rows;
};

static void run_add_normed(void *ctx)
{
    struct add_normed_case *c = ctx;

    memcpy(c->a.x, c->before, (size_t)c->n_rows * c->a.dim * sizeof(float));
    l1_launch("add_normed", c->n_rows, 1, 1, 0, &c->a, sizeof c->a);
}

static void check_add_normed(struct l1_error *error, uint32_t dim, uint32_t first, uint32_t count)
{
    enum { ROWS = 2 };
    struct l1_random r = { dim };
    size_t n = (size_t)ROWS * dim;
    float *before = l1_floats(&r, n, 2), *y = l1_floats(&r, n, 3), *w = l1_floats(&r, dim, 1);
    struct add_normed_case c = { { .x = l1_alloc(n * sizeof(float)),
                                   .y = y,
                                   .w = w,
                                   .dim = dim,
                                   .first = first,
                                   .count = count,
                                   .eps = 1e-5f },
                                 before,
                                 ROWS };

    l1_run_in_orders(run_add_normed, &c, c.a.x, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        uint32_t col = (uint32_t)(i % dim);
        double scale = norm_of(y + i / dim * dim, dim, 1e-5);
        if (col >= first && col < first + count)
            l1_compare_one(error, (double)c.a.x[i],
                           (double)before[i] + (double)w[col] * (double)y[i] * scale, 1);
        else
            assert_true(c.a.x[i] == before[i]);
    }
    l1_free(before);
    l1_free(y);
    l1_free(w);
    l1_free(c.a.x);
}

static void a_normed_row_is_added_to_the_columns_asked_for(void **state)
{
    struct l1_error error = { 0 };

    (void)state;
    check_add_normed(&error, 2304, 0, 2304);
    check_add_normed(&error, 2304, 1152, 1152);
    check_add_normed(&error, 64, 16, 4);
    check_add_normed(&error, 5120, 0, 1280);
    l1_expect("add_normed", &error, 1e-6);
}

/* ---- embedding ---- */

static void run_embed(void *ctx)
{
    l1_launch("embed", 6, 1, 1, 0, ctx, sizeof(struct embed_args));
}

static void check_embed(struct l1_error *error, uint32_t type, uint32_t cols)
{
    enum { ROWS = 6, TABLE = 9, FIRST = 100 };
    static const int32_t tokens[ROWS] = {
        108, 100, 99, 104, 109, 104
    }; /* 99, 109: another rank's */
    struct l1_random r = { cols };
    uint64_t row_stride = (cols + 7) / 8 * 8, x_stride = cols + 4;
    void *table = l1_alloc(TABLE * row_stride * row_type_bytes(type));
    size_t bytes = ROWS * x_stride * sizeof(float);
    struct embed_args a = { .x = l1_alloc(bytes),
                            .table = table,
                            .tokens = tokens,
                            .row_stride = row_stride,
                            .x_stride = x_stride,
                            .cols = cols,
                            .first = FIRST,
                            .rows = TABLE,
                            .type = type,
                            .scale = 1.5f };

    for (size_t i = 0; i < TABLE * row_stride; i++)
        set_element(table, type, i, l1_uniform(&r, -2, 2));
    l1_run_in_orders(run_embed, &a, a.x, bytes);
    for (uint32_t t = 0; t < ROWS; t++) {
        const float *x = a.x + t * x_stride;
        uint32_t row = (uint32_t)tokens[t] - FIRST;
        uint32_t n = row < TABLE ? cols : 0;
        for (uint32_t i = 0; i < n; i++)
            l1_compare_one(error, (double)x[i],
                           1.5 * (double)element(table, type, row * row_stride + i), 0x1p-30);
        assert_untouched(x, ROW_F32, n, x_stride);
    }
    l1_free(table);
    l1_free(a.x);
}

static void tokens_of_the_table_get_their_rows(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < N_ROW_TYPES; type++) {
        struct l1_error error = { 0 };
        char name[32];
        check_embed(&error, type, 4);
        check_embed(&error, type, 288);
        check_embed(&error, type, 4096);
        snprintf(name, sizeof name, "embed.%s", type_names[type]);
        l1_expect(name, &error, 0x1p-23);
    }
}

/* ---- rope ---- */

static void angles_are_the_cpus(void **state)
{
    enum { HALF = 50, N = 5, POSITIONS = 131072 };
    static const uint32_t positions[N] = { 0, 255, 256, 99999, POSITIONS - 1 };
    struct l1_error error = { 0 };
    double freq[HALF];
    struct rope_table table;
    float *cos_out = l1_alloc(N * HALF * sizeof(float)),
          *sin_out = l1_alloc(N * HALF * sizeof(float));
    struct rope_angles_args a = {
        .cos = cos_out, .sin = sin_out, .positions = positions, .half = HALF
    };

    (void)state;
    for (int i = 0; i < HALF; i++)
        freq[i] = pow(10000, -2.0 * i / (2 * HALF));
    rope_table_init(&table, freq, HALF, POSITIONS, 1.25);
    a.low = table.low;
    a.high = table.high;
    l1_launch("rope_angles", N, 1, 1, 0, &a, sizeof a);
    for (int i = 0; i < N * HALF; i++) {
        double angle = positions[i / HALF] * freq[i % HALF];
        l1_compare_one(&error, (double)cos_out[i], 1.25 * cos(angle), 1);
        l1_compare_one(&error, (double)sin_out[i], 1.25 * sin(angle), 1);
    }
    l1_expect("rope_angles", &error, 1e-7);
    rope_table_fini(&table);
    l1_free(cos_out);
    l1_free(sin_out);
}

struct rope_case {
    struct rope_args a;
    const float *before;
    uint32_t n_rows;
};

static void run_rope(void *ctx)
{
    struct rope_case *c = ctx;

    memcpy(c->a.qkv, c->before, c->n_rows * c->a.qkv_stride * sizeof(float));
    l1_launch("rope", c->n_rows, rope_grid_y(c->a.n_heads, c->a.n_kv_heads), 1, 0, &c->a,
              sizeof c->a);
}

/* One head, in double. */
static void turn_head(double *y, const float *x, const struct rope_args *a, const float *norm,
                      uint32_t t)
{
    double scale = norm ? norm_of(x, a->head_dim, (double)a->eps) : 1;

    for (uint32_t i = 0; i < a->head_dim; i++)
        y[i] = (double)x[i] * scale * (norm ? (double)norm[i] : 1);
    for (uint32_t i = 0; i < a->half; i++) {
        double u = y[i], v = y[a->half + i], c = (double)a->cos[t * a->half + i],
               s = (double)a->sin[t * a->half + i];
        y[i] = u * c - v * s;
        y[a->half + i] = v * c + u * s;
    }
}

static void compare_rope(struct l1_error *error, const struct rope_case *c)
{
    const struct rope_args *a = &c->a;
    double want[ROPE_HEAD_DIM_MAX];

    for (uint32_t t = 0; t < c->n_rows; t++) {
        const float *x = c->before + t * a->qkv_stride, *y = a->qkv + t * a->qkv_stride;
        uint32_t turned = a->n_heads + a->n_kv_heads;
        for (uint32_t h = 0; h < turned; h++) {
            const float *norm = h < a->n_heads ? a->q_norm : a->k_norm;
            turn_head(want, x + (size_t)h * a->head_dim, a, norm, t);
            l1_compare(error, y + (size_t)h * a->head_dim, want, a->head_dim, 1);
        }
        assert_memory_equal(y + (size_t)turned * a->head_dim, x + (size_t)turned * a->head_dim,
                            (a->qkv_stride - (size_t)turned * a->head_dim) * sizeof *x);
    }
}

static void check_rope(struct l1_error *error, uint32_t n_heads, uint32_t n_kv_heads,
                       uint32_t head_dim, uint32_t rope_dim, bool normed)
{
    enum { ROWS = 3 };
    struct l1_random r = { head_dim + rope_dim };
    uint64_t stride = (uint64_t)(n_heads + 2 * n_kv_heads) * head_dim + 4;
    float *before = l1_floats(&r, ROWS * stride, 2), *q_norm = l1_floats(&r, head_dim, 1),
          *k_norm = l1_floats(&r, head_dim, 1);
    float *cos_in = l1_floats(&r, (size_t)ROWS * rope_dim / 2, 1),
          *sin_in = l1_floats(&r, (size_t)ROWS * rope_dim / 2, 1);
    struct rope_case c = { { .qkv = l1_alloc(ROWS * stride * sizeof(float)),
                             .cos = cos_in,
                             .sin = sin_in,
                             .q_norm = normed ? q_norm : NULL,
                             .k_norm = normed ? k_norm : NULL,
                             .qkv_stride = stride,
                             .n_heads = n_heads,
                             .n_kv_heads = n_kv_heads,
                             .head_dim = head_dim,
                             .half = rope_dim / 2,
                             .eps = 1e-6f },
                           before,
                           ROWS };

    l1_run_in_orders(run_rope, &c, c.a.qkv, ROWS * stride * sizeof(float));
    compare_rope(error, &c);
    l1_free(before);
    l1_free(q_norm);
    l1_free(k_norm);
    l1_free(cos_in);
    l1_free(sin_in);
    l1_free(c.a.qkv);
}

static void queries_and_keys_are_turned_and_values_are_not(void **state)
{
    struct l1_error error = { 0 };

    (void)state;
    check_rope(&error, 32, 32, 128, 128, false); /* Llama-2 7B */
    check_rope(&error, 4, 1, 128, 128, true);    /* Qwen3's norms */
    check_rope(&error, 6, 3, 48, 48, true);
    check_rope(&error, 2, 2, 80, 32, true); /* part of a head */
    check_rope(&error, 2, 2, 80, 32, false);
    check_rope(&error, 1, 1, 256, 256, false);
    check_rope(&error, 1, 1, 2, 2, true);
    l1_expect("rope", &error, 1e-6);
}

/* ---- KV write ---- */

enum { KV_ROWS = 4, KV_PAGES = 3, KV_LAYERS = 2, KV_LAYER = 1 };

/* Rows go to pages of the pool in no order; one goes nowhere. */
static const uint32_t kv_pages[KV_ROWS] = { 2, 0, KV_WRITE_IDLE, 2 };
static const uint32_t kv_slots[KV_ROWS] = { 3, 0, 1, 2 };

struct kv_case {
    struct kv_write_args a;
    uint64_t pool_bytes;
};

static void run_kv_write(void *ctx)
{
    struct kv_case *c = ctx;

    l1_launch("kv_write", KV_ROWS, kv_write_grid_y(c->a.place.n_heads), 1, 0, &c->a, sizeof c->a);
}

/* What a head's vector becomes, where it goes, and how large it is. */
static void expect_head(const struct kv_place *p, char *pool, uint32_t t, uint32_t kind,
                        uint32_t head, const float *x)
{
    char *tile = pool + kv_pages[t] * p->page_bytes + kv_tile_offset(p, KV_LAYER, kind, head);
    char *to = tile + kv_scales_bytes(p->format, p->page_tokens) +
               (size_t)kv_slots[t] * p->head_dim * kv_element_bytes(p->format);

    if (p->format == KV_I8) {
        float scale = cpu_kernels_plain.narrow_i8((int8_t *)to, x, p->head_dim);
        memcpy(tile + kv_slots[t] * sizeof scale, &scale, sizeof scale);
    } else {
        cpu_kernels_plain.narrow(to, x, p->format == KV_F32 ? DTYPE_F32 : DTYPE_F16, p->head_dim);
    }
}

static void expect_pool(const struct kv_case *c, char *pool)
{
    const struct kv_place *p = &c->a.place;

    memset(pool, 0xff, c->pool_bytes);
    for (uint32_t t = 0; t < KV_ROWS; t++)
        for (uint32_t h = 0; h < 2 * p->n_heads && kv_pages[t] != KV_WRITE_IDLE; h++)
            expect_head(p, pool, t, h >= p->n_heads, h % p->n_heads,
                        c->a.kv + t * c->a.kv_stride + (size_t)h * p->head_dim);
}

static struct kv_case kv_case_of(uint32_t format, uint32_t n_heads, uint32_t head_dim,
                                 uint32_t page_tokens)
{
    struct l1_random r = { format + head_dim };
    uint64_t page_bytes = kv_page_bytes(format, page_tokens, head_dim, KV_LAYERS, n_heads);
    uint64_t stride = (uint64_t)2 * n_heads * head_dim + 16;
    float *kv = l1_floats(&r, KV_ROWS * stride, 4);

    memset(kv, 0, head_dim * sizeof *kv); /* a head of zeros */
    return (struct kv_case){ { .kv = kv,
                               .pages = kv_pages,
                               .slots = kv_slots,
                               .place = { .pages = l1_alloc(KV_PAGES * page_bytes),
                                          .page_bytes = page_bytes,
                                          .n_heads = n_heads,
                                          .head_dim = head_dim,
                                          .page_tokens = page_tokens,
                                          .format = format },
                               .kv_stride = stride,
                               .layer = KV_LAYER },
                             KV_PAGES * page_bytes };
}

static void kv_goes_to_its_slots_as_the_cpu_rounds_it(void **state)
{
    static const uint32_t shapes[][3] = {
        { 32, 128, 16 }, { 1, 64, 4 }, { 3, 80, 8 }, { 2, 256, 16 }
    };

    (void)state;
    for (int i = 0; i < 4 * 3; i++) {
        const uint32_t *shape = shapes[i / 3];
        struct kv_case c = kv_case_of((uint32_t)i % 3, shape[0], shape[1], shape[2]);
        char *want = l1_alloc(c.pool_bytes);
        l1_run_in_orders(run_kv_write, &c, c.a.place.pages, c.pool_bytes);
        expect_pool(&c, want);
        assert_memory_equal(c.a.place.pages, want, c.pool_bytes);
        l1_free(want);
        l1_free((void *)c.a.kv);
        l1_free(c.a.place.pages);
    }
    l1_exact("kv_write");
}

static double e4m3_value(uint8_t code)
{
    double v = code >> 3 & 15 ? ldexp(8 + (code & 7), (code >> 3 & 15) - 10) : ldexp(code & 7, -9);

    return code & 0x80 ? -v : v;
}

/* 3 bits of fraction: within 2^-4 of the value, or half a step of 2^-9; nothing is beyond 448. */
static void assert_code_is_near(uint8_t code, double x)
{
    double got = e4m3_value(code), want = fmax(fmin(x, 448), -448);

    assert_true(fabs(got - want) <= fmax(fabs(want) * 0x1.001p-4, 0x1.001p-10));
}

static void check_kv_of_eight_bits(float k_factor, float v_factor)
{
    struct kv_case c = kv_case_of(KV_E4M3, 2, 64, 4);
    const struct kv_place *p = &c.a.place;
    uint64_t written = 0, n = (uint64_t)(KV_ROWS - 1) * 2 * p->n_heads * p->head_dim;

    c.a.k_factor = k_factor;
    c.a.v_factor = v_factor;
    l1_run_in_orders(run_kv_write, &c, p->pages, c.pool_bytes);
    for (uint64_t i = 0; i < c.pool_bytes; i++)
        written += (uint8_t)p->pages[i] != 0xff;
    assert_int_equal(written, n);
    for (uint32_t t = 0; t < KV_ROWS; t++)
        for (uint32_t i = 0; i < 2 * p->n_heads * p->head_dim && t != 2; i++) {
            uint32_t h = i / p->head_dim;
            const char *tile = p->pages + kv_pages[t] * p->page_bytes +
                               kv_tile_offset(p, KV_LAYER, h / p->n_heads, h % p->n_heads);
            double factor = h < p->n_heads ? (double)k_factor : (double)v_factor;
            assert_code_is_near((uint8_t)tile[kv_slots[t] * p->head_dim + i % p->head_dim],
                                factor * (double)c.a.kv[t * c.a.kv_stride + i]);
        }
    l1_free((void *)c.a.kv);
    l1_free(p->pages);
}

static void kv_of_eight_bits_is_near(void **state)
{
    (void)state;
    check_kv_of_eight_bits(1, 1);
    check_kv_of_eight_bits(0.3f, 500);
}

/* ---- all elements alike ---- */

enum { GRID_ROWS = 3 };

static void run_gate(void *ctx)
{
    const struct gate_args *a = ctx;

    l1_launch("gate", elements_grid_x(a->cols), GRID_ROWS, 1, 0, a, sizeof *a);
}

static double activated(double x, uint32_t act)
{
    if (act == ACT_SILU)
        return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}

static void check_gate(struct l1_error *error, uint32_t cols, uint32_t type, uint32_t act)
{
    struct l1_random r = { cols + act };
    uint64_t y_stride = cols + 8, in_stride = 2 * (uint64_t)cols;
    size_t bytes = GRID_ROWS * y_stride * row_type_bytes(type);
    float *in = l1_floats(&r, GRID_ROWS * in_stride, 12); /* gate and up side by side */
    struct gate_args a = { .y = l1_alloc(bytes),
                           .gate = in,
                           .up = in + cols,
                           .y_stride = y_stride,
                           .in_stride = in_stride,
                           .cols = cols,
                           .y_type = type,
                           .act = act };

    l1_run_in_orders(run_gate, &a, a.y, bytes);
    for (uint32_t t = 0; t < GRID_ROWS; t++) {
        for (uint32_t i = 0; i < cols; i++)
            l1_compare_one(error, (double)element(a.y, type, t * y_stride + i),
                           activated((double)in[t * in_stride + i], act) *
                               (double)a.up[t * in_stride + i],
                           1e-2);
        assert_untouched((char *)a.y + t * y_stride * row_type_bytes(type), type, cols, y_stride);
    }
    l1_free(in);
    l1_free(a.y);
}

static void gates_open_what_they_gate(void **state)
{
    static const uint32_t cols[] = { 8, 768, 1024, 11008 };

    (void)state;
    for (uint32_t type = 0; type < N_ROW_TYPES; type++) {
        struct l1_error error = { 0 };
        char name[32];
        for (int i = 0; i < 8; i++)
            check_gate(&error, cols[i / 2], type, (uint32_t)i % 2);
        snprintf(name, sizeof name, "gate.%s", type_names[type]);
        l1_expect(name, &error, type == ROW_F32 ? 4e-6 : type_limit[type]);
    }
}

static void run_convert(void *ctx)
{
    const struct convert_args *a = ctx;

    l1_launch("convert", elements_grid_x(a->y_cols), GRID_ROWS, 1, 0, a, sizeof *a);
}

static void rows_are_rounded_and_padded_with_zeros(void **state)
{
    static const uint32_t widths[][2] = {
        { 1, 8 }, { 7, 8 }, { 288, 288 }, { 1021, 1024 }, { 4096, 4104 }
    };

    (void)state;
    for (uint32_t k = 0; k < 5 * N_ROW_TYPES; k++) {
        uint32_t type = k % N_ROW_TYPES, cols = widths[k / N_ROW_TYPES][0],
                 y_cols = widths[k / N_ROW_TYPES][1];
        uint64_t x_stride = (cols + 3) / 4 * 4, y_stride = y_cols + 8;
        struct l1_random r = { k };
        float *x = l1_floats(&r, GRID_ROWS * x_stride, 70000); /* some become infinite as f16 */
        size_t bytes = GRID_ROWS * y_stride * row_type_bytes(type);
        struct convert_args a = { l1_alloc(bytes), x, y_stride, x_stride, cols, y_cols, type };
        l1_run_in_orders(run_convert, &a, a.y, bytes);
        for (uint32_t t = 0; t < GRID_ROWS; t++) {
            for (uint32_t i = 0; i < y_cols; i++) {
                float want = i < cols ? x[t * x_stride + i] : 0, rounded;
                set_element(&rounded, type, 0, want);
                assert_true(element(a.y, type, t * y_stride + i) == element(&rounded, type, 0));
            }
            assert_untouched((char *)a.y + t * y_stride * row_type_bytes(type), type, y_cols,
                             y_stride);
        }
        l1_free(x);
        l1_free(a.y);
    }
    l1_exact("convert");
}

static void a_row_or_one_for_all_is_added(void **state)
{
    enum { COLS = 1028, STRIDE = 1032 };
    struct l1_random r = { 3 };

    (void)state;
    for (int bias = 0; bias < 2; bias++) {
        float *y = l1_floats(&r, (size_t)GRID_ROWS * STRIDE, 1),
              *x = l1_floats(&r, (size_t)GRID_ROWS * COLS, 1);
        float *before = l1_alloc(GRID_ROWS * STRIDE * sizeof *before);
        struct add_rows_args a = { y, x, STRIDE, bias ? 0 : COLS, COLS };
        memcpy(before, y, GRID_ROWS * STRIDE * sizeof *before);
        l1_launch("add_rows", elements_grid_x(COLS), GRID_ROWS, 1, 0, &a, sizeof a);
        for (uint32_t i = 0; i < GRID_ROWS * STRIDE; i++) {
            uint32_t t = i / STRIDE, col = i % STRIDE;
            float more = col < COLS ? x[(bias ? 0 : t * COLS) + col] : 0;
            assert_true(y[i] == before[i] + more);
        }
        l1_free(x);
        l1_free(y);
        l1_free(before);
    }
    l1_exact("add_rows");
}

static void rows_are_gated_by_a_sigmoid(void **state)
{
    enum { COLS = 516, STRIDE = 520, GATES = 3 };
    static const float gates[GRID_ROWS * GATES] = { 0, 9, 9, -20, 9, 9, 7.5f, 9, 9 };
    struct l1_random r = { 4 };
    struct l1_error error = { 0 };
    float *y = l1_floats(&r, (size_t)GRID_ROWS * STRIDE, 2);
    double want[GRID_ROWS * STRIDE];
    struct sigmoid_rows_args a = { y, gates, STRIDE, GATES, COLS };

    (void)state;
    for (int i = 0; i < GRID_ROWS * STRIDE; i++)
        want[i] =
            (double)y[i] / (i % STRIDE < COLS ? 1 + exp((double)-gates[i / STRIDE * GATES]) : 1);
    l1_launch("sigmoid_rows", elements_grid_x(COLS), GRID_ROWS, 1, 0, &a, sizeof a);
    l1_compare(&error, y, want, GRID_ROWS * STRIDE, 1e-12);
    l1_expect("sigmoid_rows", &error, 1e-6);
    l1_free(y);
}

static void logits_are_capped_wherever_rows_begin(void **state)
{
    static const uint32_t cols[] = { 1, 1023, 1025, 32003 };
    struct l1_error error = { 0 };

    (void)state;
    for (int k = 0; k < 4; k++) {
        struct l1_random r = { cols[k] };
        uint64_t stride = cols[k];
        float *y = l1_floats(&r, GRID_ROWS * stride, 200);
        double *want = malloc(GRID_ROWS * stride * sizeof *want);
        struct softcap_args a = { y, stride, cols[k], 30 };
        for (size_t i = 0; i < GRID_ROWS * stride; i++)
            want[i] = 30 * tanh((double)y[i] / 30);
        l1_launch("softcap", elements_grid_x(cols[k]), GRID_ROWS, 1, 0, &a, sizeof a);
        l1_compare(&error, y, want, GRID_ROWS * stride, 1);
        l1_free(y);
        free(want);
    }
    l1_expect("softcap", &error, 1e-6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_normalised),
        cmocka_unit_test(a_row_is_normalised_in_place),
        cmocka_unit_test(a_normed_row_is_added_to_the_columns_asked_for),
        cmocka_unit_test(tokens_of_the_table_get_their_rows),
        cmocka_unit_test(angles_are_the_cpus),
        cmocka_unit_test(queries_and_keys_are_turned_and_values_are_not),
        cmocka_unit_test(kv_goes_to_its_slots_as_the_cpu_rounds_it),
        cmocka_unit_test(kv_of_eight_bits_is_near),
        cmocka_unit_test(gates_open_what_they_gate),
        cmocka_unit_test(rows_are_rounded_and_padded_with_zeros),
        cmocka_unit_test(a_row_or_one_for_all_is_added),
        cmocka_unit_test(rows_are_gated_by_a_sigmoid),
        cmocka_unit_test(logits_are_capped_wherever_rows_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
