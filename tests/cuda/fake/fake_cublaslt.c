/* fake_cublaslt.c - libcublasLt.so.13 without a GPU: the functions that the worker calls, run in the streams of the
 * fake libcuda.so.1.
 *
 * It refuses what the real one refuses, as far as its documentation says ("Using the cuBLASLt API", cublasLtMatmul(),
 * section on type combinations): other forms than column-major A transposed times B, mixed types, dimensions that
 * disagree, int8 dimensions that are no multiples of 4, fp8 ones of 16, types that the GPU does not have, pointers and
 * strides less aligned than what the algorithm was chosen for, a workspace too small.
 *
 * Algorithms differ in the order of their sums as the real ones do, so that code which lets the choice depend on what
 * it must not is found out by other bits:
 *
 *   1  one sum over k            offered always
 *   2  two halves of k, added    first choice for more than 64 columns of B
 *   3  four parts of k in the workspace, then added ("split-K")   first choice for few columns and long k,
 *      where reductions and workspace allow */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cuda/api/cublaslt.h"
#include "gpu-worker/ops/half.h"
#include "tests/cuda/fake/fake_cuda.h"

#define EXPORT __attribute__((visibility("default")))

/* What the worker calls is what must be here, as it declares it. */
#define CUBLASLT(symbol, params) EXPORT int symbol params;
#include "gpu-worker/cuda/api/cublaslt.def"
#undef CUBLASLT

enum { ALGO_PLAIN = 1, ALGO_HALVES = 2, ALGO_SPLIT_K = 3, SPLIT_K_PARTS = 4, LANES = 16 };
enum { ATTRIBUTE_SM_MAJOR = 75, ATTRIBUTE_SM_MINOR = 76 };

struct cublaslt_handle {
    struct fake_cuda cuda;
    int sm;
};

struct cublaslt_layout {
    uint32_t type;
    uint64_t rows, cols;
    int64_t ld;
};

struct cublaslt_desc {
    int compute, scale;
    int32_t transa, transb;
    const float *a_scale, *b_scale; /* on the device */
    int32_t a_mode, b_mode;
};

struct cublaslt_preference {
    uint64_t workspace_bytes;
    uint32_t reductions;
    uint32_t alignment[4]; /* of A, B, C, D */
};

/* What struct cublaslt_algo's opaque words are. */
struct algo {
    uint64_t id;
    uint32_t alignment[4];
    uint64_t workspace_per_output; /* bytes */
};
static_assert(sizeof(struct algo) <= sizeof(struct cublaslt_algo), "fits the opaque words");

struct type_row {
    uint32_t input, output;
    int compute, scale;
    uint32_t input_bytes, multiple, pointer_bytes, sm_least;
};

/* multiple: of the rows of D and of k; pointer_bytes: alignment of A, B and their columns, at least. */
static const struct type_row types[] = {
    { CUBLASLT_R_32F, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 4, 1, 4, 50 },
    { CUBLASLT_R_16F, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 2, 1, 2, 50 },
    { CUBLASLT_R_16BF, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 2, 1, 2, 80 },
    { CUBLASLT_R_8I, CUBLASLT_R_32I, CUBLASLT_COMPUTE_32I, CUBLASLT_R_32I, 1, 4, 4, 75 },
    { CUBLASLT_R_8F_E4M3, CUBLASLT_R_32F, CUBLASLT_COMPUTE_32F, CUBLASLT_R_32F, 1, 16, 16, 89 },
};

/* ---- numbers ---- */

/* FP8 E4M3 as OCP's "8-bit Floating Point Specification" has it: 4 bits of exponent, bias 7, no infinity. */
static float e4m3_to_float(uint8_t bits)
{
    int exponent = bits >> 3 & 15;
    float fraction = (float)(bits & 7);
    float v = exponent == 0 ? fraction * 0x1p-9f : ldexpf(8 + fraction, exponent - 10);

    if ((bits & 0x7f) == 0x7f)
        return NAN;
    return bits & 0x80 ? -v : v;
}

/* By table, since every weight is decoded in every product.  Filled when the first handle is made. */
static float f16_values[65536];

static void fill_f16_values(void)
{
    for (uint32_t bits = 0; bits < 65536; bits++)
        f16_values[bits] = f16_to_float((uint16_t)bits);
}

/* ---- objects ---- */

/* The capability that the fake driver shows; its GPUs are all alike. */
static int find_sm(void)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    void *symbol = library ? dlsym(library, "cuDeviceGetAttribute") : NULL;
    int (*get)(int *, int, int);
    int major = 0, minor = 0;

    if (!symbol)
        return 0;
    memcpy(&get, &symbol, sizeof get);
    get(&major, ATTRIBUTE_SM_MAJOR, 0);
    get(&minor, ATTRIBUTE_SM_MINOR, 0);
    return 10 * major + minor;
}

EXPORT int cublasLtCreate(struct cublaslt_handle **handle)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct cublaslt_handle *h = calloc(1, sizeof *h);

    if (!h)
        return CUBLASLT_ALLOC_FAILED;
    pthread_once(&once, fill_f16_values);
    h->sm = find_sm();
    if (!fake_cuda_find(&h->cuda) || h->sm == 0) {
        free(h);
        return CUBLASLT_NOT_INITIALIZED;
    }
    *handle = h;
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtDestroy(struct cublaslt_handle *handle)
{
    free(handle);
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatrixLayoutCreate(struct cublaslt_layout **layout, int type, uint64_t rows,
                                      uint64_t cols, int64_t ld)
{
    struct cublaslt_layout *l = malloc(sizeof *l);

    if (!l)
        return CUBLASLT_ALLOC_FAILED;
    *l = (struct cublaslt_layout){ (uint32_t)type, rows, cols, ld };
    *layout = l;
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatrixLayoutDestroy(struct cublaslt_layout *layout)
{
    free(layout);
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmulDescCreate(struct cublaslt_desc **desc, int compute_type, int scale_type)
{
    struct cublaslt_desc *d;

    if (compute_type != CUBLASLT_COMPUTE_32F && compute_type != CUBLASLT_COMPUTE_32I)
        return CUBLASLT_INVALID_VALUE;
    d = calloc(1, sizeof *d);
    if (!d)
        return CUBLASLT_ALLOC_FAILED;
    d->compute = compute_type;
    d->scale = scale_type;
    *desc = d;
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmulDescDestroy(struct cublaslt_desc *desc)
{
    free(desc);
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceCreate(struct cublaslt_preference **preference)
{
    struct cublaslt_preference *p = malloc(sizeof *p);

    if (!p)
        return CUBLASLT_ALLOC_FAILED;
    *p = (struct cublaslt_preference){ 0, CUBLASLT_REDUCTION_ALL, { 256, 256, 256, 256 } };
    *preference = p;
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmulPreferenceDestroy(struct cublaslt_preference *preference)
{
    free(preference);
    return CUBLASLT_SUCCESS;
}

/* ---- attributes ---- */

/* A value goes where it belongs, if it is as large as that. */
static int put(void *to, size_t to_bytes, const void *value, size_t bytes)
{
    if (!to || !value || bytes != to_bytes)
        return CUBLASLT_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatrixLayoutSetAttribute(struct cublaslt_layout *layout, int attribute,
                                            const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_LAYOUT_TYPE:
        return put(&layout->type, sizeof layout->type, value, bytes);
    case CUBLASLT_LAYOUT_ROWS:
        return put(&layout->rows, sizeof layout->rows, value, bytes);
    case CUBLASLT_LAYOUT_COLS:
        return put(&layout->cols, sizeof layout->cols, value, bytes);
    case CUBLASLT_LAYOUT_LD:
        return put(&layout->ld, sizeof layout->ld, value, bytes);
    default:
        return CUBLASLT_INVALID_VALUE;
    }
}

EXPORT int cublasLtMatmulDescSetAttribute(struct cublaslt_desc *desc, int attribute,
                                          const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_DESC_TRANSA:
        return put(&desc->transa, sizeof desc->transa, value, bytes);
    case CUBLASLT_DESC_TRANSB:
        return put(&desc->transb, sizeof desc->transb, value, bytes);
    case CUBLASLT_DESC_A_SCALE_POINTER:
        return put(&desc->a_scale, sizeof desc->a_scale, value, bytes);
    case CUBLASLT_DESC_B_SCALE_POINTER:
        return put(&desc->b_scale, sizeof desc->b_scale, value, bytes);
    case CUBLASLT_DESC_A_SCALE_MODE:
        return put(&desc->a_mode, sizeof desc->a_mode, value, bytes);
    case CUBLASLT_DESC_B_SCALE_MODE:
        return put(&desc->b_mode, sizeof desc->b_mode, value, bytes);
    default:
        return CUBLASLT_INVALID_VALUE;
    }
}

EXPORT int cublasLtMatmulPreferenceSetAttribute(struct cublaslt_preference *p, int attribute,
                                                const void *value, size_t bytes)
{
    switch (attribute) {
    case CUBLASLT_PREFERENCE_WORKSPACE_BYTES:
        return put(&p->workspace_bytes, sizeof p->workspace_bytes, value, bytes);
    case CUBLASLT_PREFERENCE_REDUCTION_MASK:
        return put(&p->reductions, sizeof p->reductions, value, bytes);
    case CUBLASLT_PREFERENCE_ALIGNMENT_A_BYTES:
    case CUBLASLT_PREFERENCE_ALIGNMENT_B_BYTES:
    case CUBLASLT_PREFERENCE_ALIGNMENT_C_BYTES:
    case CUBLASLT_PREFERENCE_ALIGNMENT_D_BYTES:
        return put(&p->alignment[attribute - CUBLASLT_PREFERENCE_ALIGNMENT_A_BYTES],
                   sizeof p->alignment[0], value, bytes);
    default:
        return CUBLASLT_INVALID_VALUE;
    }
}

EXPORT int cublasLtMatmulAlgoConfigGetAttribute(const struct cublaslt_algo *algo, int attribute,
                                                void *value, size_t bytes, size_t *written)
{
    struct algo a;
    int32_t number;

    memcpy(&a, algo, sizeof a);
    if (!value || bytes != sizeof number)
        return CUBLASLT_INVALID_VALUE;
    if (attribute == CUBLASLT_ALGO_ID)
        number = (int32_t)a.id;
    else if (attribute == CUBLASLT_ALGO_SPLITK_NUM)
        number = a.id == ALGO_SPLIT_K ? SPLIT_K_PARTS : 1;
    else
        return CUBLASLT_INVALID_VALUE;
    memcpy(value, &number, sizeof number);
    if (written)
        *written = sizeof number;
    return CUBLASLT_SUCCESS;
}

/* ---- what is allowed ---- */

static const struct type_row *type_of(const struct cublaslt_desc *desc,
                                      const struct cublaslt_layout *a,
                                      const struct cublaslt_layout *b,
                                      const struct cublaslt_layout *c,
                                      const struct cublaslt_layout *d)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        const struct type_row *t = &types[i];
        if (a->type == t->input && b->type == t->input && c->type == t->output &&
            d->type == t->output && desc->compute == t->compute && desc->scale == t->scale)
            return t;
    }
    return NULL;
}

static bool layout_is_valid(const struct cublaslt_layout *l)
{
    return l->rows > 0 && l->cols > 0 && l->ld > 0 && (uint64_t)l->ld >= l->rows;
}

/* What a question and a product have in common. */
static int check(const struct cublaslt_handle *handle, const struct cublaslt_desc *desc,
                 const struct cublaslt_layout *a, const struct cublaslt_layout *b,
                 const struct cublaslt_layout *c, const struct cublaslt_layout *d)
{
    const struct type_row *t;

    if (!handle)
        return CUBLASLT_NOT_INITIALIZED;
    if (!desc || !a || !b || !c || !d || !layout_is_valid(a) || !layout_is_valid(b) ||
        !layout_is_valid(c) || !layout_is_valid(d))
        return CUBLASLT_INVALID_VALUE;
    t = type_of(desc, a, b, c, d);
    if (!t || desc->transa != CUBLASLT_OP_T || desc->transb != CUBLASLT_OP_N)
        return CUBLASLT_NOT_SUPPORTED;
    if (handle->sm < (int)t->sm_least)
        return CUBLASLT_NOT_SUPPORTED;
    if (a->rows != b->rows || d->rows != a->cols || d->cols != b->cols || c->rows != d->rows ||
        c->cols != d->cols)
        return CUBLASLT_INVALID_VALUE;
    if (a->rows % t->multiple != 0 || d->rows % t->multiple != 0 ||
        (uint64_t)a->ld * t->input_bytes % t->pointer_bytes != 0 ||
        (uint64_t)b->ld * t->input_bytes % t->pointer_bytes != 0)
        return CUBLASLT_NOT_SUPPORTED;
    if ((desc->a_mode == CUBLASLT_SCALE_OUTER_VEC_32F ||
         desc->b_mode == CUBLASLT_SCALE_OUTER_VEC_32F) &&
        (handle->sm < 90 || desc->a_mode != desc->b_mode || !desc->a_scale || !desc->b_scale))
        return CUBLASLT_NOT_SUPPORTED;
    return CUBLASLT_SUCCESS;
}

static uint32_t strides_alignment(const struct cublaslt_layout *l, uint32_t element_bytes)
{
    uint64_t bytes = (uint64_t)l->ld * element_bytes | 256;

    return (uint32_t)(bytes & -bytes);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static struct algo make_algo(uint64_t id, const struct cublaslt_layout *const layouts[4],
                             const struct cublaslt_preference *p, uint32_t input_bytes)
{
    struct algo algo = { .id = id };

    for (int i = 0; i < 4; i++) {
        uint32_t element_bytes = i < 2 ? input_bytes : 4;
        /* Kernels load 16 bytes at once, at most. */
        algo.alignment[i] =
            least(16, least(p->alignment[i], strides_alignment(layouts[i], element_bytes)));
    }
    if (id == ALGO_SPLIT_K)
        algo.workspace_per_output = SPLIT_K_PARTS * sizeof(float);
    return algo;
}

static uint64_t workspace_bytes(const struct algo *algo, const struct cublaslt_layout *d)
{
    return algo->workspace_per_output * d->rows * d->cols;
}

EXPORT int cublasLtMatmulAlgoGetHeuristic(struct cublaslt_handle *handle,
                                          struct cublaslt_desc *desc, struct cublaslt_layout *a,
                                          struct cublaslt_layout *b, struct cublaslt_layout *c,
                                          struct cublaslt_layout *d, struct cublaslt_preference *p,
                                          int n_wanted, struct cublaslt_candidate *candidates,
                                          int *n_found)
{
    const struct cublaslt_layout *layouts[4] = { a, b, c, d };
    uint64_t order[3];
    int n = 0, status = check(handle, desc, a, b, c, d);

    if (!p || n_wanted <= 0 || !candidates || !n_found)
        return CUBLASLT_INVALID_VALUE;
    *n_found = 0;
    if (status != CUBLASLT_SUCCESS)
        return status;
    if (b->cols <= 64 && a->rows >= 128 && p->reductions != CUBLASLT_REDUCTION_NONE &&
        desc->compute == CUBLASLT_COMPUTE_32F)
        order[n++] = ALGO_SPLIT_K;
    if (b->cols > 64)
        order[n++] = ALGO_HALVES;
    order[n++] = ALGO_PLAIN;
    for (int i = 0; i < n && *n_found < n_wanted; i++) {
        struct algo algo = make_algo(order[i], layouts, p, type_of(desc, a, b, c, d)->input_bytes);
        struct cublaslt_candidate *to = &candidates[*n_found];
        if (workspace_bytes(&algo, d) > p->workspace_bytes)
            continue;
        *to = (struct cublaslt_candidate){ .workspace_bytes = workspace_bytes(&algo, d),
                                           .status = CUBLASLT_SUCCESS,
                                           .waves = 1 };
        memcpy(&to->algo, &algo, sizeof algo);
        ++*n_found;
    }
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmulAlgoCheck(struct cublaslt_handle *handle, struct cublaslt_desc *desc,
                                   struct cublaslt_layout *a, struct cublaslt_layout *b,
                                   struct cublaslt_layout *c, struct cublaslt_layout *d,
                                   const struct cublaslt_algo *algo,
                                   struct cublaslt_candidate *result)
{
    int status = check(handle, desc, a, b, c, d);
    struct algo own;

    if (!algo || !result)
        return CUBLASLT_INVALID_VALUE;
    memcpy(&own, algo, sizeof own);
    if (own.id < ALGO_PLAIN || own.id > ALGO_SPLIT_K)
        return CUBLASLT_INVALID_VALUE;
    if (status == CUBLASLT_SUCCESS)
        *result = (struct cublaslt_candidate){ *algo, workspace_bytes(&own, d), status, 1, { 0 } };
    return status;
}

/* ---- the product ---- */

struct product {
    struct cublaslt_desc desc;
    struct cublaslt_layout a_layout, b_layout, d_layout;
    const void *a, *b;
    void *d;
    float *workspace;
    float alpha, beta; /* of int sums too: small whole numbers */
    uint64_t algo;
};

/* Column i of a matrix of inputs, as floats. */
static void decode_column(float *out, const void *matrix, const struct cublaslt_layout *l,
                          uint64_t i)
{
    uint64_t first = i * (uint64_t)l->ld;
    const uint8_t *bytes = (const uint8_t *)matrix + first;
    const uint16_t *halves = (const uint16_t *)matrix + first;

    switch (l->type) {
    case CUBLASLT_R_16F:
        for (uint64_t k = 0; k < l->rows; k++)
            out[k] = f16_values[halves[k]];
        break;
    case CUBLASLT_R_16BF:
        for (uint64_t k = 0; k < l->rows; k++)
            out[k] = bf16_to_float(halves[k]);
        break;
    case CUBLASLT_R_8F_E4M3:
        for (uint64_t k = 0; k < l->rows; k++)
            out[k] = e4m3_to_float(bytes[k]);
        break;
    default:
        memcpy(out, (const float *)matrix + first, l->rows * sizeof *out);
        break;
    }
}

/* In lanes, for the vectoriser; always the same order. */
static float dot(const float *a, const float *b, uint64_t n)
{
    float lanes[LANES] = { 0 };
    float sum = 0;
    uint64_t k = 0;

    for (; k + LANES <= n; k += LANES)
        for (int i = 0; i < LANES; i++)
            lanes[i] += a[k + i] * b[k + i];
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    for (; k < n; k++)
        sum += a[k] * b[k];
    return sum;
}

static float dot_in_parts(const float *a, const float *b, uint64_t n, uint64_t n_parts,
                          float *parts)
{
    float sum = 0;

    for (uint64_t p = 0; p < n_parts; p++) {
        uint64_t from = n * p / n_parts, to = n * (p + 1) / n_parts;
        parts[p] = dot(a + from, b + from, to - from);
    }
    for (uint64_t p = 0; p < n_parts; p++)
        sum += parts[p];
    return sum;
}

static float scale_of(const float *scales, int32_t mode, uint64_t i)
{
    if (!scales)
        return 1;
    return scales[mode == CUBLASLT_SCALE_OUTER_VEC_32F ? i : 0];
}

static void multiply_floats(const struct product *p, float *a, float *b)
{
    uint64_t k = p->a_layout.rows, rows = p->d_layout.rows, cols = p->d_layout.cols;
    float two[2];

    for (uint64_t j = 0; j < cols; j++)
        decode_column(b + j * k, p->b, &p->b_layout, j);
    for (uint64_t i = 0; i < rows; i++) {
        float a_scale = scale_of(p->desc.a_scale, p->desc.a_mode, i);
        decode_column(a, p->a, &p->a_layout, i);
        for (uint64_t j = 0; j < cols; j++) {
            float *to = (float *)p->d + j * (uint64_t)p->d_layout.ld + i;
            float sum;
            if (p->algo == ALGO_SPLIT_K)
                sum = dot_in_parts(a, b + j * k, k, SPLIT_K_PARTS,
                                   p->workspace + (j * rows + i) * SPLIT_K_PARTS);
            else if (p->algo == ALGO_HALVES)
                sum = dot_in_parts(a, b + j * k, k, 2, two);
            else
                sum = dot(a, b + j * k, k);
            sum *= p->alpha * a_scale * scale_of(p->desc.b_scale, p->desc.b_mode, j);
            *to = p->beta == 0 ? sum : sum + p->beta * *to; /* D may be NaN where beta is 0 */
        }
    }
}

static void multiply_ints(const struct product *p)
{
    for (uint64_t i = 0; i < p->d_layout.rows; i++)
        for (uint64_t j = 0; j < p->d_layout.cols; j++) {
            const int8_t *a = (const int8_t *)p->a + i * (uint64_t)p->a_layout.ld;
            const int8_t *b = (const int8_t *)p->b + j * (uint64_t)p->b_layout.ld;
            int32_t *to = (int32_t *)p->d + j * (uint64_t)p->d_layout.ld + i;
            int32_t sum = 0;
            for (uint64_t k = 0; k < p->a_layout.rows; k++)
                sum += a[k] * b[k];
            *to = (int32_t)p->alpha * sum + (p->beta == 0 ? 0 : (int32_t)p->beta * *to);
        }
}

static void multiply(void *args)
{
    const struct product *p = args;
    uint64_t k = p->a_layout.rows;
    float *a, *b;

    if (p->desc.compute == CUBLASLT_COMPUTE_32I) {
        multiply_ints(p);
        return;
    }
    a = malloc(k * sizeof *a);
    b = malloc(k * p->d_layout.cols * sizeof *b);
    if (!a || !b)
        abort();
    multiply_floats(p, a, b);
    free(a);
    free(b);
}

/* Bytes from the first element to behind the last. */
static size_t extent(const struct cublaslt_layout *l, uint32_t element_bytes)
{
    return ((l->cols - 1) * (uint64_t)l->ld + l->rows) * element_bytes;
}

/* The pointers are memory of the device, as aligned as the algorithm was promised. */
static bool pointers_are_good(const struct cublaslt_handle *h, const struct algo *algo,
                              const struct product *p, uint32_t input_bytes)
{
    const struct {
        const void *pointer;
        const struct cublaslt_layout *layout;
        uint32_t element_bytes;
        bool for_write;
    } operands[] = { { p->a, &p->a_layout, input_bytes, false },
                     { p->b, &p->b_layout, input_bytes, false },
                     { p->d, &p->d_layout, 4, false },
                     { p->d, &p->d_layout, 4, true } };

    for (int i = 0; i < 4; i++) {
        uint64_t address = (uintptr_t)operands[i].pointer;
        size_t bytes = extent(operands[i].layout, operands[i].element_bytes);
        if ((address | strides_alignment(operands[i].layout, operands[i].element_bytes)) %
                    algo->alignment[i] !=
                0 ||
            !h->cuda.is_device(address, bytes, operands[i].for_write))
            return false;
    }
    return true;
}

static int scalar_of(const struct cublaslt_desc *desc, const void *value, float *out)
{
    int32_t whole;

    if (!value)
        return CUBLASLT_INVALID_VALUE;
    if (desc->scale == CUBLASLT_R_32F) {
        memcpy(out, value, sizeof *out);
        return CUBLASLT_SUCCESS;
    }
    memcpy(&whole, value, sizeof whole);
    *out = (float)whole;
    return CUBLASLT_SUCCESS;
}

EXPORT int cublasLtMatmul(struct cublaslt_handle *handle, struct cublaslt_desc *desc,
                          const void *alpha, const void *a, struct cublaslt_layout *a_layout,
                          const void *b, struct cublaslt_layout *b_layout, const void *beta,
                          const void *c, struct cublaslt_layout *c_layout, void *d,
                          struct cublaslt_layout *d_layout, const struct cublaslt_algo *algo,
                          void *workspace, size_t bytes, struct cu_stream *stream)
{
    int status = check(handle, desc, a_layout, b_layout, c_layout, d_layout);
    struct algo own;
    struct product p;

    if (status != CUBLASLT_SUCCESS)
        return status;
    if (!algo || c != d || c_layout->ld != d_layout->ld)
        return CUBLASLT_NOT_SUPPORTED; /* the worker always has C in D's place, and an algorithm */
    memcpy(&own, algo, sizeof own);
    p = (struct product){
        *desc, *a_layout, *b_layout, *d_layout, a, b, d, workspace, 0, 0, own.id
    };
    if (scalar_of(desc, alpha, &p.alpha) != CUBLASLT_SUCCESS ||
        scalar_of(desc, beta, &p.beta) != CUBLASLT_SUCCESS || own.id < ALGO_PLAIN ||
        own.id > ALGO_SPLIT_K || workspace_bytes(&own, d_layout) > bytes ||
        (uintptr_t)workspace % 16 != 0 ||
        !pointers_are_good(handle, &own, &p,
                           type_of(desc, a_layout, b_layout, c_layout, d_layout)->input_bytes))
        return CUBLASLT_INVALID_VALUE;
    if (handle->cuda.enqueue(stream, "cublasLtMatmul", multiply, &p, sizeof p) != 0)
        return CUBLASLT_EXECUTION_FAILED;
    return CUBLASLT_SUCCESS;
}
