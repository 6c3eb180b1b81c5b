/* blas.c - one cuBLASLt product with its algorithm kept.
 *
 * cuBLASLt's matrices are column-major, so a row-major matrix is its own transposed there, and
 *
 *   D[m,n] = X[m,k] W[n,k]^T   is, column by column,   D'[n,m] = (W'[k,n])^T X'[k,m]
 *
 * with the same memory: A is W, transposed, B is X as it is, the leading dimensions are the strides.  This
 * form ("TN") is also the one that its int8 and fp8 kernels ask for (cuBLAS documentation, cublasLtMatmul()). */
#include "gpu-worker/cuda/blas.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/cuda/api/cublaslt.h"

enum {
    PLANS = 512,    /* kept; a model has some ten shapes, each for some ten powers of two of M */
    CANDIDATES = 8, /* asked of the heuristic */
    M_LEAST = 16,   /* smallest M that is told from others */
    M_DETERMINISTIC = 128, /* the M for which the one algorithm is chosen */
    INPUT_ALIGNMENT = 16   /* of X and W, in bytes */
};

struct type_row {
    const char *name;
    int input, output, compute, scale; /* as cuBLASLt calls them */
    uint32_t input_bytes, output_bytes;
    uint32_t multiple; /* of n and k */
};

static const struct type_row types[N_BLAS_TYPES] = {
    [BLAS_F32] = { "f32", CUBLASLT_R_32F, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 4,
                   4, 1 },
    [BLAS_F16] = { "f16", CUBLASLT_R_16F, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 2,
                   4, 1 },
    [BLAS_BF16] = { "bf16", CUBLASLT_R_16BF, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F,
                    2, 4, 1 },
    [BLAS_I8] = { "i8", CUBLASLT_R_8I, CUBLASLT_R_32I, CUBLASLT_COMPUTE_32I, CUBLASLT_R_32I, 1, 4,
                  4 },
    [BLAS_F8E4M3] = { "f8e4m3", CUBLASLT_R_8F_E4M3, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F,
                      CUBLASLT_R_32F, 1, 4, 16 },
};

/* What an algorithm was chosen for. */
struct plan_key {
    uint32_t m, n, k;
    uint32_t d_alignment; /* bytes: 4, 8 or 16 */
    enum blas_type type;
    enum blas_scaling scaling;
};

struct plan {
    struct plan_key key; /* m = 0: the place is free */
    bool is_usable;
    struct cublaslt_algo algo;
};

struct blas {
    struct blas_setup setup;
    struct cublaslt_handle *handle;
    struct cublaslt_preference *preference;
    struct cublaslt_layout *a, *b, *d; /* filled in anew by each call */
    struct cublaslt_desc *descs[N_BLAS_TYPES];
    struct plan plans[PLANS];
};

/* ---- open and close ---- */

static bool status_is_ok(int status, const char *what, struct err *e)
{
    if (status == CUBLASLT_SUCCESS)
        return true;
    return err_set(e, ERR_DEVICE, 0, "%s: %s", what, cublaslt_status_name(status));
}

static int make_desc(struct blas *b, enum blas_type type)
{
    int32_t transposed = CUBLASLT_OP_T;
    int status =
        cublaslt.cublasLtMatmulDescCreate(&b->descs[type], types[type].compute, types[type].scale);

    if (status != CUBLASLT_SUCCESS)
        return status;
    return cublaslt.cublasLtMatmulDescSetAttribute(b->descs[type], CUBLASLT_DESC_TRANSA,
                                                   &transposed, sizeof transposed);
}

static int make_layout(struct cublaslt_layout **layout)
{
    return cublaslt.cublasLtMatrixLayoutCreate(layout, CUBLASLT_R_32F, 1, 1, 1);
}

/* What the workspace and the mode allow; the alignment of D is told with each question. */
static int make_preference(struct blas *b)
{
    uint64_t workspace_bytes = b->setup.workspace_bytes;
    uint32_t reductions = b->setup.deterministic ? CUBLASLT_REDUCTION_NONE : CUBLASLT_REDUCTION_ALL;
    uint32_t alignment = INPUT_ALIGNMENT;
    int status = cublaslt.cublasLtMatmulPreferenceCreate(&b->preference);
    const struct {
        int attribute;
        const void *value;
        size_t bytes;
    } wanted[] = {
        { CUBLASLT_PREFERENCE_WORKSPACE_BYTES, &workspace_bytes, sizeof workspace_bytes },
        { CUBLASLT_PREFERENCE_REDUCTION_MASK, &reductions, sizeof reductions },
        { CUBLASLT_PREFERENCE_ALIGNMENT_A_BYTES, &alignment, sizeof alignment },
        { CUBLASLT_PREFERENCE_ALIGNMENT_B_BYTES, &alignment, sizeof alignment },
    };

    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0] && status == CUBLASLT_SUCCESS; i++)
        status = cublaslt.cublasLtMatmulPreferenceSetAttribute(b->preference, wanted[i].attribute,
                                                               wanted[i].value, wanted[i].bytes);
    return status;
}

struct blas *blas_open(const struct blas_setup *setup, struct err *e)
{
    struct blas *b;

    if (!cublaslt_open(e))
        return NULL;
    b = mem_zalloc(1, sizeof *b);
    b->setup = *setup;
    if (!status_is_ok(cublaslt.cublasLtCreate(&b->handle), "cublasLtCreate", e) ||
        !status_is_ok(make_layout(&b->a), "cublasLtMatrixLayoutCreate", e) ||
        !status_is_ok(make_layout(&b->b), "cublasLtMatrixLayoutCreate", e) ||
        !status_is_ok(make_layout(&b->d), "cublasLtMatrixLayoutCreate", e) ||
        !status_is_ok(make_preference(b), "cublasLtMatmulPreferenceCreate", e))
        goto failed;
    for (enum blas_type type = 0; type < N_BLAS_TYPES; type++)
        if (!status_is_ok(make_desc(b, type), "cublasLtMatmulDescCreate", e))
            goto failed;
    return b;
failed:
    blas_close(b);
    return NULL;
}

void blas_close(struct blas *b)
{
    struct cublaslt_layout *layouts[3];

    if (!b)
        return;
    layouts[0] = b->a;
    layouts[1] = b->b;
    layouts[2] = b->d;
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            cublaslt.cublasLtMatrixLayoutDestroy(layouts[i]);
    for (enum blas_type type = 0; type < N_BLAS_TYPES; type++)
        if (b->descs[type])
            cublaslt.cublasLtMatmulDescDestroy(b->descs[type]);
    if (b->preference)
        cublaslt.cublasLtMatmulPreferenceDestroy(b->preference);
    if (b->handle)
        cublaslt.cublasLtDestroy(b->handle);
    free(b);
}

/* ---- describing a product ---- */

static int set_layout(struct cublaslt_layout *layout, int type, uint64_t rows, uint64_t cols,
                      size_t stride)
{
    uint32_t type32 = (uint32_t)type;
    int64_t ld = (int64_t)stride;
    int status = cublaslt.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_LAYOUT_TYPE, &type32,
                                                           sizeof type32);

    if (status == CUBLASLT_SUCCESS)
        status = cublaslt.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_LAYOUT_ROWS, &rows,
                                                           sizeof rows);
    if (status == CUBLASLT_SUCCESS)
        status = cublaslt.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_LAYOUT_COLS, &cols,
                                                           sizeof cols);
    if (status == CUBLASLT_SUCCESS)
        status =
            cublaslt.cublasLtMatrixLayoutSetAttribute(layout, CUBLASLT_LAYOUT_LD, &ld, sizeof ld);
    return status;
}

/* The layouts of the product with m rows of X. */
static int describe(struct blas *b, const struct blas_gemm *g, uint32_t m)
{
    const struct type_row *t = &types[g->type];
    int status = set_layout(b->a, t->input, g->k, g->n, g->w_stride);

    if (status == CUBLASLT_SUCCESS)
        status = set_layout(b->b, t->input, g->k, m, g->x_stride);
    if (status == CUBLASLT_SUCCESS)
        status = set_layout(b->d, t->output, g->n, m, g->d_stride);
    return status;
}

static int set_scale(struct cublaslt_desc *desc, int pointer, int mode, const float *scale,
                     enum blas_scaling scaling)
{
    int32_t how =
        scaling == BLAS_SCALE_OUTER ? CUBLASLT_SCALE_OUTER_VEC_32F : CUBLASLT_SCALE_SCALAR_32F;
    int status = cublaslt.cublasLtMatmulDescSetAttribute(desc, pointer, &scale, sizeof scale);

    if (status != CUBLASLT_SUCCESS)
        return status;
    status = cublaslt.cublasLtMatmulDescSetAttribute(desc, mode, &how, sizeof how);
    /* Before 12.8 there were no modes, and scalars was what they were. */
    return scaling == BLAS_SCALE_ONE ? CUBLASLT_SUCCESS : status;
}

static int set_scales(struct blas *b, const struct blas_gemm *g)
{
    struct cublaslt_desc *desc = b->descs[g->type];
    int status;

    if (g->type != BLAS_F8E4M3)
        return CUBLASLT_SUCCESS;
    status = set_scale(desc, CUBLASLT_DESC_A_SCALE_POINTER, CUBLASLT_DESC_A_SCALE_MODE, g->w_scale,
                       g->scaling);
    if (status == CUBLASLT_SUCCESS)
        status = set_scale(desc, CUBLASLT_DESC_B_SCALE_POINTER, CUBLASLT_DESC_B_SCALE_MODE,
                           g->x_scale, g->scaling);
    return status;
}

/* ---- choosing an algorithm ---- */

static uint32_t d_alignment(const struct blas_gemm *g)
{
    uint64_t bits = (uint64_t)(uintptr_t)g->d | g->d_stride * types[g->type].output_bytes | 16;

    return (uint32_t)(bits & -bits);
}

static uint32_t m_of_plan(const struct blas *b, uint32_t m)
{
    uint32_t bucket = M_LEAST;

    if (b->setup.deterministic)
        return M_DETERMINISTIC;
    while (bucket < m && bucket < 1u << 31)
        bucket *= 2;
    return bucket;
}

static bool splits_k(const struct cublaslt_algo *algo)
{
    int32_t n = 1;
    size_t written = 0;

    return cublaslt.cublasLtMatmulAlgoConfigGetAttribute(algo, CUBLASLT_ALGO_SPLITK_NUM, &n,
                                                         sizeof n, &written) == CUBLASLT_SUCCESS &&
           n > 1;
}

/* The best candidate for m rows that the mode allows. */
static bool choose(struct blas *b, const struct blas_gemm *g, uint32_t m, uint32_t alignment,
                   struct cublaslt_algo *algo)
{
    static const int attributes[] = { CUBLASLT_PREFERENCE_ALIGNMENT_C_BYTES,
                                      CUBLASLT_PREFERENCE_ALIGNMENT_D_BYTES };
    struct cublaslt_candidate found[CANDIDATES];
    int n = 0;

    for (int i = 0; i < 2; i++)
        cublaslt.cublasLtMatmulPreferenceSetAttribute(b->preference, attributes[i], &alignment,
                                                      sizeof alignment);
    if (describe(b, g, m) != CUBLASLT_SUCCESS || set_scales(b, g) != CUBLASLT_SUCCESS ||
        cublaslt.cublasLtMatmulAlgoGetHeuristic(b->handle, b->descs[g->type], b->a, b->b, b->d,
                                                b->d, b->preference, CANDIDATES, found,
                                                &n) != CUBLASLT_SUCCESS)
        return false;
    for (int i = 0; i < n; i++) {
        if (found[i].status != CUBLASLT_SUCCESS ||
            found[i].workspace_bytes > b->setup.workspace_bytes ||
            (b->setup.deterministic && splits_k(&found[i].algo)))
            continue;
        *algo = found[i].algo;
        return true;
    }
    return false;
}

static bool keys_are_equal(const struct plan_key *a, const struct plan_key *b)
{
    return a->m == b->m && a->n == b->n && a->k == b->k && a->d_alignment == b->d_alignment &&
           a->type == b->type && a->scaling == b->scaling;
}

static uint32_t key_place(const struct plan_key *k)
{
    uint64_t h = k->m;

    h = h * 0x9e3779b97f4a7c15u + k->n;
    h = h * 0x9e3779b97f4a7c15u + k->k;
    h = h * 0x9e3779b97f4a7c15u + k->d_alignment * 64 + (uint32_t)k->type * 8 +
        (uint32_t)k->scaling;
    return (uint32_t)(h * 0x9e3779b97f4a7c15u >> 32) % PLANS;
}

/* The plan's place: its own, else a free one, else that of another, which is forgotten. */
static struct plan *plan_place(struct blas *b, const struct plan_key *key)
{
    uint32_t first = key_place(key);

    for (uint32_t i = 0; i < PLANS; i++) {
        struct plan *p = &b->plans[(first + i) % PLANS];
        if (p->key.m == 0 || keys_are_equal(&p->key, key))
            return p;
    }
    return &b->plans[first];
}

static const struct plan *plan_of(struct blas *b, const struct blas_gemm *g)
{
    struct plan_key key = { m_of_plan(b, g->m), g->n, g->k, d_alignment(g), g->type, g->scaling };
    struct plan *p = plan_place(b, &key);

    if (keys_are_equal(&p->key, &key))
        return p;
    p->key = key;
    p->is_usable = choose(b, g, key.m, key.d_alignment, &p->algo);
    return p;
}

static void check_arguments(const struct blas_gemm *g)
{
    const struct type_row *t = &types[g->type];
    uint64_t inputs = (uint64_t)(uintptr_t)g->x | (uint64_t)(uintptr_t)g->w |
                      g->x_stride * t->input_bytes | g->w_stride * t->input_bytes;

    assert(g->m > 0 && g->n > 0 && g->k > 0);
    assert(g->x_stride >= g->k && g->w_stride >= g->k && g->d_stride >= g->n);
    assert(inputs % INPUT_ALIGNMENT == 0 && (uintptr_t)g->d % t->output_bytes == 0);
    assert(g->n % t->multiple == 0 && g->k % t->multiple == 0);
    assert(g->type == BLAS_F8E4M3 || (!g->x_scale && !g->w_scale));
}

bool blas_can(struct blas *b, const struct blas_gemm *g)
{
    check_arguments(g);
    return plan_of(b, g)->is_usable;
}

/* ---- running it ---- */

static int run(struct blas *b, const struct device_stream *s, const struct blas_gemm *g,
               const struct cublaslt_algo *algo)
{
    static const float one = 1, zero = 0;
    static const int32_t one_i = 1, zero_i = 0;
    bool is_int = types[g->type].scale == CUBLASLT_R_32I;
    const void *alpha = is_int ? (const void *)&one_i : &one;
    const void *none = is_int ? (const void *)&zero_i : &zero;
    int status = describe(b, g, g->m);

    if (status == CUBLASLT_SUCCESS)
        status = set_scales(b, g);
    if (status != CUBLASLT_SUCCESS)
        return status;
    return cublaslt.cublasLtMatmul(b->handle, b->descs[g->type], alpha, g->w, b->a, g->x, b->b,
                                   g->add ? alpha : none, g->d, b->d, g->d, b->d, algo,
                                   b->setup.workspace, b->setup.workspace_bytes, s->stream);
}

static bool was_refused(int status)
{
    return status == CUBLASLT_NOT_SUPPORTED || status == CUBLASLT_INVALID_VALUE;
}

/* What it means for the device.  A context that is dead says so again at the next call. */
static int result_of(int status)
{
    if (was_refused(status))
        return CU_NOT_SUPPORTED;
    return status == CUBLASLT_ALLOC_FAILED ? CU_OUT_OF_MEMORY : CU_LAUNCH_FAILED;
}

static bool fail(const struct device_stream *s, const struct blas_gemm *g, int status)
{
    char what[80];

    snprintf(what, sizeof what, "%s %u x %u x %u: %s", types[g->type].name, g->m, g->n, g->k,
             cublaslt_status_name(status));
    device_check(s->device, result_of(status), "cublasLtMatmul", what);
    return false;
}

bool blas_gemm(struct blas *b, struct device_stream *s, const struct blas_gemm *g)
{
    const struct plan *plan;
    struct cublaslt_algo exact;
    int status;

    check_arguments(g);
    if (device_fault(s->device))
        return false;
    if (device_is_rehearsing(s->device))
        return true;
    plan = plan_of(b, g);
    if (!plan->is_usable)
        return fail(s, g, CUBLASLT_NOT_SUPPORTED);
    status = run(b, s, g, &plan->algo);
    /* An algorithm for M rounded up need not do for M; one that is asked for does. */
    if (was_refused(status) && !b->setup.deterministic &&
        choose(b, g, g->m, d_alignment(g), &exact))
        status = run(b, s, g, &exact);
    return status == CUBLASLT_SUCCESS || fail(s, g, status);
}
