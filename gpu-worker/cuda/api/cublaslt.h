/* cublaslt.h - the door to cuBLASLt: what we use of its ABI, and how it is loaded.
 *
 * Declared here and not taken from NVIDIA's headers, so that everything builds where there are none.  Values
 * and layouts: cuBLAS library documentation, "Using the cuBLASLt API" (docs.nvidia.com/cuda/cublas), and the
 * headers cublasLt.h, cublas_api.h and library_types.h of CUDA 12 and 13, with which tests/cuda/test_cuda_library_abi.c
 * compares them where they are installed.
 *
 * Matrices are column-major there; blas.h has the row-major view. */
#ifndef LLMD_CUDA_API_CUBLASLT_H
#define LLMD_CUDA_API_CUBLASLT_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct cu_stream;

/* cublasStatus_t */
enum cublaslt_status {
    CUBLASLT_SUCCESS = 0,
    CUBLASLT_NOT_INITIALIZED = 1,
    CUBLASLT_ALLOC_FAILED = 3,
    CUBLASLT_INVALID_VALUE = 7,
    CUBLASLT_ARCH_MISMATCH = 8,
    CUBLASLT_EXECUTION_FAILED = 13,
    CUBLASLT_INTERNAL_ERROR = 14,
    CUBLASLT_NOT_SUPPORTED = 15
};

/* cudaDataType */
enum cublaslt_type {
    CUBLASLT_R_32F = 0,
    CUBLASLT_R_16F = 2,
    CUBLASLT_R_8I = 3,
    CUBLASLT_R_32I = 10,
    CUBLASLT_R_16BF = 14,
    CUBLASLT_R_8F_E4M3 = 28
};

/* cublasComputeType_t */
enum { CUBLASLT_COMPUTE_32F = 68, CUBLASLT_COMPUTE_32I = 72 };

/* cublasOperation_t */
enum { CUBLASLT_OP_N = 0, CUBLASLT_OP_T = 1 };

/* cublasLtMatmulDescAttributes_t */
enum {
    CUBLASLT_DESC_TRANSA = 3,
    CUBLASLT_DESC_TRANSB = 4,
    CUBLASLT_DESC_A_SCALE_POINTER = 17, /* device float, or a vector of them by the mode */
    CUBLASLT_DESC_B_SCALE_POINTER = 18,
    CUBLASLT_DESC_A_SCALE_MODE = 31, /* cuBLAS 12.8 and later */
    CUBLASLT_DESC_B_SCALE_MODE = 32
};

/* cublasLtMatrixLayoutAttribute_t; the order is column-major unless told */
enum {
    CUBLASLT_LAYOUT_TYPE = 0, /* uint32_t */
    CUBLASLT_LAYOUT_ROWS = 2, /* uint64_t */
    CUBLASLT_LAYOUT_COLS = 3, /* uint64_t */
    CUBLASLT_LAYOUT_LD = 4    /* int64_t */
};

/* cublasLtMatmulMatrixScale_t */
enum { CUBLASLT_SCALE_SCALAR_32F = 0, CUBLASLT_SCALE_OUTER_VEC_32F = 3 };

/* cublasLtMatmulPreferenceAttributes_t */
enum {
    CUBLASLT_PREFERENCE_WORKSPACE_BYTES = 1,   /* uint64_t */
    CUBLASLT_PREFERENCE_REDUCTION_MASK = 3,    /* uint32_t */
    CUBLASLT_PREFERENCE_ALIGNMENT_A_BYTES = 5, /* uint32_t; of the pointers */
    CUBLASLT_PREFERENCE_ALIGNMENT_B_BYTES = 6,
    CUBLASLT_PREFERENCE_ALIGNMENT_C_BYTES = 7,
    CUBLASLT_PREFERENCE_ALIGNMENT_D_BYTES = 8
};

/* cublasLtReductionScheme_t */
enum { CUBLASLT_REDUCTION_NONE = 0, CUBLASLT_REDUCTION_ALL = 7 };

/* cublasLtMatmulAlgoConfigAttributes_t */
enum { CUBLASLT_ALGO_ID = 0, CUBLASLT_ALGO_SPLITK_NUM = 2 /* int32_t */ };

/* Opaque; made and destroyed by the library. */
struct cublaslt_handle;
struct cublaslt_layout;
struct cublaslt_desc;
struct cublaslt_preference;

/* cublasLtMatmulAlgo_t: plain data, may be kept and copied. */
struct cublaslt_algo {
    uint64_t data[8];
};

/* cublasLtMatmulHeuristicResult_t */
struct cublaslt_candidate {
    struct cublaslt_algo algo;
    size_t workspace_bytes;
    int status; /* the rest holds if this is CUBLASLT_SUCCESS */
    float waves;
    int reserved[4];
};
static_assert(sizeof(struct cublaslt_candidate) == 96, "as the library fills it");

struct cublaslt {
#define CUBLASLT(symbol, params) int(*symbol) params;
#include "gpu-worker/cuda/api/cublaslt.def"
#undef CUBLASLT
};

/* The functions of the loaded library; all NULL before cublaslt_open() succeeded. */
extern struct cublaslt cublaslt;

/* Load libcublasLt.so.13, else .12, and find every symbol; true at once when that was done before.  It stays
 * loaded.  ERR_DEVICE: there is none, or a function is missing. */
bool cublaslt_open(struct err *e);

/* "CUBLAS_STATUS_NOT_SUPPORTED"; "unknown cublasStatus_t" for others. */
const char *cublaslt_status_name(int status);

#endif
