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

/* ---- rope and KV write ---- */

enum { KV_ROWS = 4, KV_PAGES = 3, KV_LAYERS = 2, KV_LAYER = 1 };

/* Rows go to pages of the pool in no order; one goes nowhere. */
static const uint32_t kv_pages[KV_ROWS] = { 2, 0, KV_WRITE_IDLE, 2 };
static const uint32_t kv_slots[KV_ROWS] = { 3, 0, 1, 2 };

struct heads_shape {
    uint32_t n_heads, n_kv_heads, head_dim, rope_dim, page_tokens;
    bool normed;
};

/* The pool and the rows lie in one piece of memory, since both are what a launch writes. */
struct rope_case {
    struct rope_kv_write_args a;
    float *before; /* the rows */
    uint64_t pool_bytes, rows_bytes;
};

static void run_rope_kv_write(void *ctx)
{
    struct rope_case *c = ctx;
    uint32_t grid_y = rope_kv_write_grid_y(c->a.n_heads, c->a.place.n_heads);

    memcpy(c->a.qkv, c->before, c->rows_bytes);
    l1_launch("rope_kv_write", KV_ROWS, grid_y, 1, 0, &c->a, sizeof c->a);
}

/* The same numbers for every format of pages; among them a head of zeros. */
static void rope_case_open(struct rope_case *c, const struct heads_shape *s, uint32_t format)
{
    struct l1_random r = { s->head_dim + s->rope_dim };
    size_t half = s->rope_dim / 2, stride = (s->n_heads + 2 * s->n_kv_heads) * s->head_dim + 4;
    struct kv_place place = {
        .page_bytes = kv_page_bytes(format, s->page_tokens, s->head_dim, KV_LAYERS, s->n_kv_heads),
        .n_heads = s->n_kv_heads,
        .head_dim = s->head_dim,
        .page_tokens = s->page_tokens,
        .format = format,
    };

    *c = (struct rope_case){ .before = l1_floats(&r, KV_ROWS * stride, 4),
                             .pool_bytes = KV_PAGES * place.page_bytes,
                             .rows_bytes = KV_ROWS * stride * sizeof(float) };
    memset(c->before + (size_t)s->n_heads * s->head_dim, 0, s->head_dim * sizeof *c->before);
    place.pages = l1_alloc(c->pool_bytes + c->rows_bytes);
    c->a = (struct rope_kv_write_args){ .qkv = (float *)(place.pages + c->pool_bytes),
                                        .cos = l1_floats(&r, KV_ROWS * half, 1),
                                        .sin = l1_floats(&r, KV_ROWS * half, 1),
                                        .q_norm = l1_floats(&r, s->head_dim, 1),
                                        .k_norm = l1_floats(&r, s->head_dim, 1),
                                        .pages = kv_pages,
                                        .slots = kv_slots,
                                        .place = place,
                                        .qkv_stride = stride,
                                        .n_heads = s->n_heads,
                                        .half = s->rope_dim / 2,
                                        .layer = KV_LAYER,
                                        .eps = 1e-6f,
                                        .k_factor = 1,
                                        .v_factor = 1 };
    if (s->normed)
        return;
    l1_free((void *)c->a.q_norm);
    l1_free((void *)c->a.k_norm);
    c->a.q_norm = c->a.k_norm = NULL;
}

static void rope_case_run(struct rope_case *c)
{
    l1_run_in_orders(run_rope_kv_write, c, c->a.place.pages, c->pool_bytes + c->rows_bytes);
}

static void rope_case_close(struct rope_case *c)
{
    l1_free(c->before);
    l1_free((void *)c->a.cos);
    l1_free((void *)c->a.sin);
    if (c->a.q_norm) {
        l1_free((void *)c->a.q_norm);
        l1_free((void *)c->a.k_norm);
    }
    l1_free(c->a.place.pages);
}

/* Where K (kind 0) or V (1) of a row's head is in a pool. */
static char *tile_of(const struct kv_place *p, char *pool, uint32_t t, uint32_t kind, uint32_t head)
{
    return pool + kv_pages[t] * p->page_bytes + kv_tile_offset(p, KV_LAYER, kind, head);
}

static char *vector_of(const struct kv_place *p, char *pool, uint32_t t, uint32_t kind,
                       uint32_t head)
{
    return tile_of(p, pool, t, kind, head) + kv_scales_bytes(p->format, p->page_tokens) +
           (size_t)kv_slots[t] * p->head_dim * kv_element_bytes(p->format);
}

/* One head, in double. */
static void turn_head(double *y, const float *x, const struct rope_kv_write_args *a,
                      const float *norm, uint32_t t)
{
    uint32_t head_dim = a->place.head_dim;
    double scale = norm ? norm_of(x, head_dim, (double)a->eps) : 1;

    for (uint32_t i = 0; i < head_dim; i++)
        y[i] = (double)x[i] * scale * (norm ? (double)norm[i] : 1);
    for (uint32_t i = 0; i < a->half; i++) {
        double u = y[i], v = y[a->half + i], c = (double)a->cos[t * a->half + i],
               s = (double)a->sin[t * a->half + i];
        y[i] = u * c - v * s;
        y[a->half + i] = v * c + u * s;
    }
}

/* The q of all rows, and the k of those that have a slot, in pages of float. */
static void compare_turned(struct l1_error *error, const struct rope_case *c)
{
    const struct rope_kv_write_args *a = &c->a;
    const struct kv_place *p = &a->place;
    double want[ROPE_HEAD_DIM_MAX];

    for (uint32_t t = 0; t < KV_ROWS; t++)
        for (uint32_t h = 0; h < a->n_heads + p->n_heads; h++) {
            size_t at = t * a->qkv_stride + (size_t)h * p->head_dim;
            const float *y = a->qkv + at;
            if (h >= a->n_heads && kv_pages[t] == KV_WRITE_IDLE)
                continue;
            if (h >= a->n_heads)
                y = (const float *)vector_of(p, p->pages, t, 0, h - a->n_heads);
            turn_head(want, c->before + at, a, h < a->n_heads ? a->q_norm : a->k_norm, t);
            l1_compare(error, y, want, p->head_dim, 1);
        }
}

/* Of each row what comes after the q is as it was. */
static void assert_k_and_v_of_rows_stay(const struct rope_case *c)
{
    size_t q_dim = (size_t)c->a.n_heads * c->a.place.head_dim, stride = c->a.qkv_stride;

    for (uint32_t t = 0; t < KV_ROWS; t++)
        assert_memory_equal(c->a.qkv + t * stride + q_dim, c->before + t * stride + q_dim,
                            (stride - q_dim) * sizeof(float));
}

/* What a head's vector becomes, and where it goes. */
static void expect_head(const struct kv_place *p, char *pool, uint32_t t, uint32_t kind,
                        uint32_t head, const float *x)
{
    char *to = vector_of(p, pool, t, kind, head);

    if (p->format == KV_I8) {
        float scale = cpu_kernels_plain.narrow_i8((int8_t *)to, x, p->head_dim);
        memcpy(tile_of(p, pool, t, kind, head) + kv_slots[t] * sizeof scale, &scale, sizeof scale);
    } else {
        for (uint32_t d = 0; d < p->head_dim; d++)
            if (p->format == KV_F32)
                ((float *)to)[d] = x[d];
            else
                ((uint16_t *)to)[d] = float_to_f16(x[d]);
    }
}

/* The pool holds the k that `floats`, with the same rows, has in its pages, and the v of the rows, as the CPU rounds
 * them, and nothing else. */
static void assert_pool(const struct rope_case *c, const struct rope_case *floats)
{
    const struct kv_place *p = &c->a.place, *from = &floats->a.place;
    size_t first_v = (size_t)(c->a.n_heads + p->n_heads) * p->head_dim;
    char *want = l1_alloc(c->pool_bytes);

    for (uint32_t t = 0; t < KV_ROWS; t++)
        for (uint32_t h = 0; h < p->n_heads && kv_pages[t] != KV_WRITE_IDLE; h++) {
            expect_head(p, want, t, 0, h, (const float *)vector_of(from, from->pages, t, 0, h));
            expect_head(p, want, t, 1, h,
                        c->before + t * c->a.qkv_stride + first_v + (size_t)h * p->head_dim);
        }
    assert_memory_equal(p->pages, want, c->pool_bytes);
    l1_free(want);
}

static const struct heads_shape heads_shapes[] = {
    { 32, 32, 128, 128, 16, false }, /* Llama-2 7B */
    { 32, 8, 128, 128, 16, true },   /* Qwen3's norms */
    { 4, 1, 128, 128, 4, true },     { 6, 3, 48, 48, 8, true },     { 2, 2, 80, 32, 8, true },
    { 2, 2, 80, 32, 8, false }, /* part of a head */
    { 3, 1, 80, 20, 4, true },       { 24, 8, 128, 96, 16, false }, { 5, 1, 64, 2, 4, false },
    { 1, 1, 256, 256, 16, false },   { 2, 1, 512, 512, 4, true },   { 1, 1, 16, 16, 4, true },
};

enum { N_HEADS_SHAPES = sizeof heads_shapes / sizeof heads_shapes[0] };

static void heads_are_turned_and_kv_goes_to_its_slots(void **state)
{
    static const uint32_t rounded[] = { KV_F16, KV_I8 };
    struct l1_error error = { 0 };

    (void)state;
    for (uint32_t i = 0; i < N_HEADS_SHAPES; i++) {
        struct rope_case floats, c;
        rope_case_open(&floats, &heads_shapes[i], KV_F32);
        rope_case_run(&floats);
        compare_turned(&error, &floats);
        assert_k_and_v_of_rows_stay(&floats);
        assert_pool(&floats, &floats);
        for (uint32_t k = 0; k < 2; k++) {
            rope_case_open(&c, &heads_shapes[i], rounded[k]);
            rope_case_run(&c);
            assert_memory_equal(c.a.qkv, floats.a.qkv, c.rows_bytes);
            assert_pool(&c, &floats);
            rope_case_close(&c);
        }
        rope_case_close(&floats);
    }
    l1_expect("rope_kv_write", &error, 1e-6);
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

static void assert_codes(const struct rope_case *c, const struct rope_case *floats)
{
    const struct kv_place *p = &c->a.place, *from = &floats->a.place;
    uint64_t written = 0, n = (uint64_t)(KV_ROWS - 1) * 2 * p->n_heads * p->head_dim;

    for (uint64_t i = 0; i < c->pool_bytes; i++)
        written += (uint8_t)p->pages[i] != 0xff;
    assert_int_equal(written, n);
    for (uint32_t t = 0; t < KV_ROWS; t++)
        for (uint32_t h = 0; h < 2 * p->n_heads && kv_pages[t] != KV_WRITE_IDLE; h++) {
            uint32_t kind = h / p->n_heads, head = h % p->n_heads;
            const char *codes = vector_of(p, p->pages, t, kind, head);
            const float *x = (const float *)vector_of(from, from->pages, t, kind, head);
            double factor = (double)(kind ? c->a.v_factor : c->a.k_factor);
            for (uint32_t i = 0; i < p->head_dim; i++)
                assert_code_is_near((uint8_t)codes[i], factor * (double)x[i]);
        }
}

static void check_kv_of_eight_bits(const struct heads_shape *s, float k_factor, float v_factor)
{
    struct rope_case floats, c;

    rope_case_open(&floats, s, KV_F32);
    rope_case_run(&floats);
    rope_case_open(&c, s, KV_E4M3);
    c.a.k_factor = k_factor;
    c.a.v_factor = v_factor;
    rope_case_run(&c);
    assert_memory_equal(c.a.qkv, floats.a.qkv, c.rows_bytes);
    assert_codes(&c, &floats);
    rope_case_close(&c);
    rope_case_close(&floats);
}

static void kv_of_eight_bits_is_near(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < N_HEADS_SHAPES; i++) {
        check_kv_of_eight_bits(&heads_shapes[i], 1, 1);
        check_kv_of_eight_bits(&heads_shapes[i], 0.3f, 500);
    }
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
        cmocka_unit_test(heads_are_turned_and_kv_goes_to_its_slots),
        cmocka_unit_test(kv_of_eight_bits_is_near),
        cmocka_unit_test(gates_open_what_they_gate),
        cmocka_unit_test(rows_are_rounded_and_padded_with_zeros),
        cmocka_unit_test(a_row_or_one_for_all_is_added),
        cmocka_unit_test(rows_are_gated_by_a_sigmoid),
        cmocka_unit_test(logits_are_capped_wherever_rows_begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
