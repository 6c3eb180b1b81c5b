/* test_cuda_blas.c - matrix products through blas.h, on the fake driver and the fake cuBLASLt.
 *
 * What would break in production: a transposed or shifted operand; deterministic mode that lets the number of rows
 * choose the order of sums; a heuristic that is asked in every step; a refusal that nobody notices. */
#include <math.h>
#include <stdio.h>

#include "gpu-worker/cuda/api/cublaslt.h"
#include "gpu-worker/cuda/blas.h"
#include "gpu-worker/ops/half.h"
#include "tests/cuda/device_fixture.h"

enum { ELEMENTS_MAX = 1 << 20, M_MAX = 300 };

/* Operands of one product on the device, and the same as double on the host. */
struct operands {
    struct device_fixture f;
    struct blas *blas;
    void *workspace, *x, *w, *d, *scales;
    double *x_values, *w_values;
    float *out;
};

static void open_operands(struct operands *o, bool deterministic)
{
    struct blas_setup setup = { .workspace_bytes = BLAS_WORKSPACE_BYTES,
                                .deterministic = deterministic };
    struct err e = { 0 };

    fixture_open(&o->f, 0, ELEMENTS_MAX * sizeof(float));
    setup.workspace = o->workspace = fixture_alloc(&o->f, BLAS_WORKSPACE_BYTES);
    o->blas = blas_open(&setup, &e);
    assert_ok(o->blas != NULL, e);
    o->x = fixture_alloc(&o->f, ELEMENTS_MAX * sizeof(float));
    o->w = fixture_alloc(&o->f, ELEMENTS_MAX * sizeof(float));
    o->d = fixture_alloc(&o->f, ELEMENTS_MAX * sizeof(float));
    o->scales = fixture_alloc(&o->f, 4096 * sizeof(float));
    o->x_values = malloc(ELEMENTS_MAX * sizeof(double));
    o->w_values = malloc(ELEMENTS_MAX * sizeof(double));
    o->out = malloc(ELEMENTS_MAX * sizeof(float));
}

static void close_operands(struct operands *o)
{
    blas_close(o->blas);
    fixture_free(&o->f, o->workspace);
    fixture_free(&o->f, o->x);
    fixture_free(&o->f, o->w);
    fixture_free(&o->f, o->d);
    fixture_free(&o->f, o->scales);
    fixture_close(&o->f);
    free(o->x_values);
    free(o->w_values);
    free(o->out);
}

/* ---- numbers ---- */

static uint32_t seed = 1;

static float uniform(void)
{
    seed = seed * 1664525u + 1013904223u;
    return (float)(int32_t)seed * 0x1p-31f;
}

/* E4M3 numbers that are exact: 1.0 .. 1.875 by bits, with a sign. */
static double e4m3_value(uint8_t bits)
{
    double v = 1 + (bits & 7) / 8.0;

    return bits & 0x80 ? -v : v;
}

/* Fill n elements of a type, and their values. */
static void make_values(enum blas_type type, void *bytes, double *values, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = uniform();
        switch (type) {
        case BLAS_F16:
            ((uint16_t *)bytes)[i] = float_to_f16(v);
            values[i] = f16_to_float(((uint16_t *)bytes)[i]);
            break;
        case BLAS_BF16:
            ((uint16_t *)bytes)[i] = float_to_bf16(v);
            values[i] = bf16_to_float(((uint16_t *)bytes)[i]);
            break;
        case BLAS_I8:
            ((int8_t *)bytes)[i] = (int8_t)(v * 127);
            values[i] = ((int8_t *)bytes)[i];
            break;
        case BLAS_F8E4M3:
            ((uint8_t *)bytes)[i] = (uint8_t)(0x38 | (seed >> 20 & 7) | (seed >> 24 & 0x80));
            values[i] = e4m3_value(((uint8_t *)bytes)[i]);
            break;
        default:
            ((float *)bytes)[i] = v;
            values[i] = v;
            break;
        }
    }
}

static size_t element_bytes(enum blas_type type)
{
    static const size_t bytes[] = {
        [BLAS_F32] = 4, [BLAS_F16] = 2, [BLAS_BF16] = 2, [BLAS_I8] = 1, [BLAS_F8E4M3] = 1
    };

    return bytes[type];
}

static void upload(struct operands *o, enum blas_type type, void *to, double *values, size_t n)
{
    void *bytes = calloc(n, 4);

    assert_true(n <= ELEMENTS_MAX);
    make_values(type, bytes, values, n);
    fixture_put(&o->f, to, bytes, n * element_bytes(type));
    free(bytes);
}

/* ---- the definition ---- */

struct shape {
    enum blas_type type;
    uint32_t m, n, k, x_stride, w_stride, d_stride;
    bool add;
};

static double reference(const struct operands *o, const struct shape *s, uint32_t i, uint32_t j,
                        double *magnitude)
{
    double sum = 0;

    *magnitude = 0;
    for (uint32_t k = 0; k < s->k; k++) {
        double p =
            o->x_values[(size_t)i * s->x_stride + k] * o->w_values[(size_t)j * s->w_stride + k];
        sum += p;
        *magnitude += fabs(p);
    }
    return sum;
}

static struct blas_gemm gemm_of(const struct operands *o, const struct shape *s)
{
    return (struct blas_gemm){ .type = s->type,
                               .m = s->m,
                               .n = s->n,
                               .k = s->k,
                               .x = o->x,
                               .x_stride = s->x_stride,
                               .w = o->w,
                               .w_stride = s->w_stride,
                               .d = o->d,
                               .d_stride = s->d_stride,
                               .add = s->add };
}

/* D is filled with 3 before, also between its rows. */
static void multiply(struct operands *o, const struct shape *s, const struct blas_gemm *g)
{
    size_t n = (size_t)s->m * s->d_stride;

    for (size_t i = 0; i < n; i++)
        if (s->type == BLAS_I8)
            ((int32_t *)o->out)[i] = 3;
        else
            o->out[i] = 3;
    fixture_put(&o->f, o->d, o->out, n * sizeof(float));
    assert_true(blas_gemm(o->blas, &o->f.stream, g));
    fixture_get(&o->f, o->out, o->d, n * sizeof(float));
}

static double result(const struct operands *o, const struct shape *s, size_t at)
{
    return s->type == BLAS_I8 ? ((const int32_t *)o->out)[at] : o->out[at];
}

static void check_product(struct operands *o, const struct shape *s)
{
    struct blas_gemm g = gemm_of(o, s);

    upload(o, s->type, o->x, o->x_values, (size_t)s->m * s->x_stride);
    upload(o, s->type, o->w, o->w_values, (size_t)s->n * s->w_stride);
    multiply(o, s, &g);
    for (uint32_t i = 0; i < s->m; i++)
        for (uint32_t j = 0; j < s->d_stride; j++) {
            double magnitude = 0, want = 3, got = result(o, s, (size_t)i * s->d_stride + j);
            if (j < s->n)
                want = reference(o, s, i, j, &magnitude) + (s->add ? 3 : 0);
            if (fabs(got - want) > (s->type == BLAS_I8 ? 0 : 1e-6 * (magnitude + 3)))
                fail_msg("type %d, %u x %u x %u: [%u,%u] is %g, not %g", s->type, s->m, s->n, s->k,
                         i, j, got, want);
        }
}

static void products_are_those_of_the_definition(void **state)
{
    static const struct shape shapes[] = {
        { BLAS_F32, 1, 1, 1, 4, 4, 1, false },
        { BLAS_F32, 5, 33, 70, 72, 100, 33, true },
        { BLAS_F16, 9, 64, 256, 256, 256, 64, false },
        { BLAS_F16, 17, 31, 77, 80, 88, 41, true }, /* rows of D at odd addresses */
        { BLAS_F16, 130, 40, 264, 264, 264, 40, false },
        { BLAS_BF16, 12, 48, 160, 160, 168, 50, true },
        { BLAS_BF16, 80, 20, 40, 40, 40, 20, false },
        { BLAS_I8, 33, 36, 128, 128, 144, 36, true },
        { BLAS_F8E4M3, 20, 32, 64, 64, 64, 32, false },
        { BLAS_F8E4M3, 3, 16, 160, 160, 176, 16, true },
    };
    struct operands o;

    (void)state;
    for (int deterministic = 0; deterministic < 2; deterministic++) {
        open_operands(&o, deterministic == 1);
        for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
            check_product(&o, &shapes[i]);
        close_operands(&o);
    }
}

static void fp8_products_are_scaled(void **state)
{
    const struct shape s = { BLAS_F8E4M3, 7, 32, 48, 48, 48, 32, false };
    float scales[64];
    struct operands o;
    struct blas_gemm g;

    (void)state;
    open_operands(&o, false);
    upload(&o, s.type, o.x, o.x_values, (size_t)s.m * s.x_stride);
    upload(&o, s.type, o.w, o.w_values, (size_t)s.n * s.w_stride);
    for (int i = 0; i < 64; i++)
        scales[i] = 0.5f + (float)i;
    fixture_put(&o.f, o.scales, scales, sizeof scales);
    g = gemm_of(&o, &s);
    g.x_scale = (const float *)o.scales + 8;
    g.w_scale = (const float *)o.scales + 16;
    for (enum blas_scaling scaling = BLAS_SCALE_ONE; scaling <= BLAS_SCALE_OUTER; scaling++) {
        g.scaling = scaling;
        assert_true(blas_can(o.blas, &g));
        multiply(&o, &s, &g);
        for (uint32_t i = 0; i < s.m; i++)
            for (uint32_t j = 0; j < s.n; j++) {
                double magnitude, want = reference(&o, &s, i, j, &magnitude);
                bool outer = scaling == BLAS_SCALE_OUTER;
                want *= (double)scales[8 + (outer ? i : 0)] * (double)scales[16 + (outer ? j : 0)];
                assert_true(fabs(o.out[i * s.n + j] - want) <= 1e-5 * fabs(want) + 1e-3);
            }
    }
    close_operands(&o);
}

/* ---- determinism ---- */

/* Row 0 of the product with m rows, into row[n]. */
static void first_row(struct operands *o, struct shape *s, uint32_t m, float *row)
{
    struct blas_gemm g;

    s->m = m;
    g = gemm_of(o, s);
    multiply(o, s, &g);
    memcpy(row, o->out, s->n * sizeof *row);
}

/* Whether the rows beside it change a row's bits. */
static bool company_matters(bool deterministic)
{
    struct shape s = { BLAS_F16, M_MAX, 64, 768, 768, 768, 64, false };
    static const uint32_t ms[] = { 2, 16, 17, 64, 65, 128, 129, M_MAX };
    float alone[64], row[64];
    bool differs = false;
    struct operands o;

    open_operands(&o, deterministic);
    upload(&o, s.type, o.x, o.x_values, (size_t)s.m * s.x_stride);
    upload(&o, s.type, o.w, o.w_values, (size_t)s.n * s.w_stride);
    first_row(&o, &s, 1, alone);
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        first_row(&o, &s, ms[i], row);
        differs = differs || memcmp(row, alone, sizeof row) != 0;
    }
    close_operands(&o);
    return differs;
}

static void deterministic_rows_do_not_depend_on_their_company(void **state)
{
    (void)state;
    assert_false(company_matters(true));
    assert_true(company_matters(false)); /* else the line above proves nothing */
}

/* ---- the choice of algorithms ---- */

static struct cublaslt library; /* as it was loaded */
static int n_heuristics, n_matmuls, n_refusals, refusal;

static int counting_heuristic(struct cublaslt_handle *handle, struct cublaslt_desc *desc,
                              struct cublaslt_layout *a, struct cublaslt_layout *b,
                              struct cublaslt_layout *c, struct cublaslt_layout *d,
                              struct cublaslt_preference *preference, int n_wanted,
                              struct cublaslt_candidate *candidates, int *n_found)
{
    n_heuristics++;
    return library.cublasLtMatmulAlgoGetHeuristic(handle, desc, a, b, c, d, preference, n_wanted,
                                                  candidates, n_found);
}

/* Answers `refusal` to the first n_refusals calls. */
static int refusing_matmul(struct cublaslt_handle *handle, struct cublaslt_desc *desc,
                           const void *alpha, const void *a, struct cublaslt_layout *al,
                           const void *b, struct cublaslt_layout *bl, const void *beta,
                           const void *c, struct cublaslt_layout *cl, void *d,
                           struct cublaslt_layout *dl, const struct cublaslt_algo *algo,
                           void *workspace, size_t bytes, struct cu_stream *stream)
{
    if (++n_matmuls <= n_refusals)
        return refusal;
    return library.cublasLtMatmul(handle, desc, alpha, a, al, b, bl, beta, c, cl, d, dl, algo,
                                  workspace, bytes, stream);
}

static void open_watched(struct operands *o, bool deterministic, int refusals)
{
    open_operands(o, deterministic);
    library = cublaslt;
    cublaslt.cublasLtMatmulAlgoGetHeuristic = counting_heuristic;
    cublaslt.cublasLtMatmul = refusing_matmul;
    n_heuristics = n_matmuls = 0;
    n_refusals = refusals;
    refusal = CUBLASLT_NOT_SUPPORTED;
}

static void close_watched(struct operands *o)
{
    cublaslt = library;
    close_operands(o);
}

static void the_heuristic_is_asked_once_a_shape(void **state)
{
    struct shape s = { BLAS_F16, 1, 64, 128, 128, 128, 64, false };
    static const uint32_t ms[] = { 20, 32, 17, 20, 33, 64, 100, 20 }; /* 32, 64 and 128 */
    struct operands o;
    struct blas_gemm g;

    (void)state;
    open_watched(&o, false, 0);
    for (size_t i = 0; i < sizeof ms / sizeof ms[0]; i++) {
        s.m = ms[i];
        g = gemm_of(&o, &s);
        assert_true(blas_can(o.blas, &g));
        assert_true(blas_gemm(o.blas, &o.f.stream, &g));
    }
    assert_int_equal(n_heuristics, 3);
    fixture_finish(&o.f);
    close_watched(&o);
}

static void an_algorithm_that_does_not_do_is_replaced(void **state)
{
    struct shape s = { BLAS_F16, 20, 64, 128, 128, 128, 64, false };
    struct operands o;

    (void)state;
    open_watched(&o, false, 1);
    check_product(&o, &s);
    assert_int_equal(n_heuristics, 2);
    assert_int_equal(n_matmuls, 2);
    close_watched(&o);
}

static void a_refused_product_is_the_devices_fault(void **state)
{
    struct shape s = { BLAS_BF16, 20, 64, 128, 128, 128, 64, false };
    struct operands o;
    struct blas_gemm g;
    struct err e = { 0 };

    (void)state;
    open_watched(&o, true, 100); /* deterministic: no other algorithm may step in */
    g = gemm_of(&o, &s);
    assert_false(blas_gemm(o.blas, &o.f.stream, &g));
    assert_int_equal(n_matmuls, 1);
    assert_non_null(device_fault(o.f.device));
    device_fault_err(o.f.device, &e);
    assert_non_null(strstr(e.msg, "bf16 20 x 64 x 128"));
    assert_false(blas_gemm(o.blas, &o.f.stream, &g)); /* and nothing more is queued */
    assert_int_equal(n_matmuls, 1);
    close_watched(&o);
}

/* The library allocates too, when it loads a kernel: then a step is given up, not the worker. */
static void want_of_memory_can_be_forgiven(void **state)
{
    struct shape s = { BLAS_F16, 20, 64, 128, 128, 128, 64, false };
    struct operands o;
    struct blas_gemm g;

    (void)state;
    open_watched(&o, false, 1);
    refusal = CUBLASLT_ALLOC_FAILED;
    g = gemm_of(&o, &s);
    assert_false(blas_gemm(o.blas, &o.f.stream, &g));
    assert_true(device_forgive(o.f.device));
    assert_true(blas_gemm(o.blas, &o.f.stream, &g));
    fixture_finish(&o.f);
    close_watched(&o);
}

/* ---- graphs ---- */

static void a_product_can_be_recorded(void **state)
{
    struct shape s = { BLAS_F16, 12, 64, 256, 256, 256, 64, true };
    struct device_graph graph = { 0 };
    struct err e = { 0 };
    struct operands o;
    struct blas_gemm g;

    (void)state;
    open_operands(&o, false);
    upload(&o, s.type, o.x, o.x_values, (size_t)s.m * s.x_stride);
    upload(&o, s.type, o.w, o.w_values, (size_t)s.n * s.w_stride);
    g = gemm_of(&o, &s);
    multiply(&o, &s, &g); /* 3 + p */
    assert_true(device_capture_begin(&o.f.stream));
    assert_true(blas_gemm(o.blas, &o.f.stream, &g));
    assert_ok(device_capture_end(&o.f.stream, &graph, &e), e);
    for (int i = 0; i < 2; i++)
        assert_true(device_graph_launch(&o.f.stream, &graph)); /* + 2 p */
    fixture_get(&o.f, o.out, o.d, (size_t)s.m * s.n * sizeof(float));
    for (uint32_t i = 0; i < s.m; i++)
        for (uint32_t j = 0; j < s.n; j++) {
            double magnitude, p = reference(&o, &s, i, j, &magnitude);
            assert_true(fabs(o.out[i * s.n + j] - (3 + 3 * p)) <= 1e-5 * (magnitude + 3));
        }
    device_graph_free(o.f.device, &graph);
    close_operands(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_those_of_the_definition),
        cmocka_unit_test(fp8_products_are_scaled),
        cmocka_unit_test(deterministic_rows_do_not_depend_on_their_company),
        cmocka_unit_test(the_heuristic_is_asked_once_a_shape),
        cmocka_unit_test(an_algorithm_that_does_not_do_is_replaced),
        cmocka_unit_test(a_refused_product_is_the_devices_fault),
        cmocka_unit_test(want_of_memory_can_be_forgiven),
        cmocka_unit_test(a_product_can_be_recorded),
    };

    setenv("LLMD_FAKE_CUDA", "sm=90", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
