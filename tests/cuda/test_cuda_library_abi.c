/* test_cuda_library_abi.c - our declarations of cuBLASLt and NCCL against NVIDIA's own, where those are installed.
 *
 * Compiled only with the toolkit's headers; all that can be known at compile time is asserted there. */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include <cublasLt.h>

#include "gpu-worker/cuda/api/cublaslt.h"
#include "tests/check.h"

#define SAME(ours, theirs) static_assert((int)(ours) == (int)(theirs), #theirs)

SAME(CUBLASLT_SUCCESS, CUBLAS_STATUS_SUCCESS);
SAME(CUBLASLT_NOT_INITIALIZED, CUBLAS_STATUS_NOT_INITIALIZED);
SAME(CUBLASLT_ALLOC_FAILED, CUBLAS_STATUS_ALLOC_FAILED);
SAME(CUBLASLT_INVALID_VALUE, CUBLAS_STATUS_INVALID_VALUE);
SAME(CUBLASLT_ARCH_MISMATCH, CUBLAS_STATUS_ARCH_MISMATCH);
SAME(CUBLASLT_EXECUTION_FAILED, CUBLAS_STATUS_EXECUTION_FAILED);
SAME(CUBLASLT_INTERNAL_ERROR, CUBLAS_STATUS_INTERNAL_ERROR);
SAME(CUBLASLT_NOT_SUPPORTED, CUBLAS_STATUS_NOT_SUPPORTED);
SAME(CUBLASLT_R_32F, CUDA_R_32F);
SAME(CUBLASLT_R_16F, CUDA_R_16F);
SAME(CUBLASLT_R_8I, CUDA_R_8I);
SAME(CUBLASLT_R_32I, CUDA_R_32I);
SAME(CUBLASLT_R_16BF, CUDA_R_16BF);
SAME(CUBLASLT_R_8F_E4M3, CUDA_R_8F_E4M3);
SAME(CUBLASLT_COMPUTE_32F, CUBLAS_COMPUTE_32F);
SAME(CUBLASLT_COMPUTE_32I, CUBLAS_COMPUTE_32I);
SAME(CUBLASLT_OP_N, CUBLAS_OP_N);
SAME(CUBLASLT_OP_T, CUBLAS_OP_T);
SAME(CUBLASLT_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSA);
SAME(CUBLASLT_DESC_TRANSB, CUBLASLT_MATMUL_DESC_TRANSB);
SAME(CUBLASLT_DESC_A_SCALE_POINTER, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER);
SAME(CUBLASLT_DESC_B_SCALE_POINTER, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER);
SAME(CUBLASLT_DESC_A_SCALE_MODE, CUBLASLT_MATMUL_DESC_A_SCALE_MODE);
SAME(CUBLASLT_DESC_B_SCALE_MODE, CUBLASLT_MATMUL_DESC_B_SCALE_MODE);
SAME(CUBLASLT_LAYOUT_TYPE, CUBLASLT_MATRIX_LAYOUT_TYPE);
SAME(CUBLASLT_LAYOUT_ROWS, CUBLASLT_MATRIX_LAYOUT_ROWS);
SAME(CUBLASLT_LAYOUT_COLS, CUBLASLT_MATRIX_LAYOUT_COLS);
SAME(CUBLASLT_LAYOUT_LD, CUBLASLT_MATRIX_LAYOUT_LD);
SAME(CUBLASLT_SCALE_SCALAR_32F, CUBLASLT_MATMUL_MATRIX_SCALE_SCALAR_32F);
SAME(CUBLASLT_SCALE_OUTER_VEC_32F, CUBLASLT_MATMUL_MATRIX_SCALE_OUTER_VEC_32F);
SAME(CUBLASLT_PREFERENCE_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
SAME(CUBLASLT_PREFERENCE_REDUCTION_MASK, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK);
SAME(CUBLASLT_PREFERENCE_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES);
SAME(CUBLASLT_PREFERENCE_ALIGNMENT_B_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES);
SAME(CUBLASLT_PREFERENCE_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES);
SAME(CUBLASLT_PREFERENCE_ALIGNMENT_D_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES);
SAME(CUBLASLT_REDUCTION_NONE, CUBLASLT_REDUCTION_SCHEME_NONE);
SAME(CUBLASLT_REDUCTION_ALL, CUBLASLT_REDUCTION_SCHEME_MASK);
SAME(CUBLASLT_ALGO_ID, CUBLASLT_ALGO_CONFIG_ID);
SAME(CUBLASLT_ALGO_SPLITK_NUM, CUBLASLT_ALGO_CONFIG_SPLITK_NUM);

#define SAME_PLACE(ours, our_member, theirs, their_member)                                         \
    static_assert(offsetof(ours, our_member) == offsetof(theirs, their_member), #their_member)

static_assert(sizeof(struct cublaslt_algo) == sizeof(cublasLtMatmulAlgo_t), "algorithm");
static_assert(sizeof(struct cublaslt_candidate) == sizeof(cublasLtMatmulHeuristicResult_t),
              "candidate");
SAME_PLACE(struct cublaslt_candidate, algo, cublasLtMatmulHeuristicResult_t, algo);
SAME_PLACE(struct cublaslt_candidate, workspace_bytes, cublasLtMatmulHeuristicResult_t,
           workspaceSize);
SAME_PLACE(struct cublaslt_candidate, status, cublasLtMatmulHeuristicResult_t, state);
SAME_PLACE(struct cublaslt_candidate, waves, cublasLtMatmulHeuristicResult_t, wavesCount);

#ifdef HAVE_NCCL_H
#include <nccl.h>

#include "gpu-worker/cuda/api/nccl.h"

SAME(NCCL_SUCCESS, ncclSuccess);
SAME(NCCL_UNHANDLED_CUDA_ERROR, ncclUnhandledCudaError);
SAME(NCCL_SYSTEM_ERROR, ncclSystemError);
SAME(NCCL_INTERNAL_ERROR, ncclInternalError);
SAME(NCCL_INVALID_ARGUMENT, ncclInvalidArgument);
SAME(NCCL_INVALID_USAGE, ncclInvalidUsage);
SAME(NCCL_REMOTE_ERROR, ncclRemoteError);
SAME(NCCL_IN_PROGRESS, ncclInProgress);
SAME(NCCL_FLOAT32, ncclFloat32);
SAME(NCCL_SUM, ncclSum);
static_assert(sizeof(struct nccl_unique_id) == sizeof(ncclUniqueId), "id");
SAME_PLACE(struct nccl_config, bytes, ncclConfig_t, size);
SAME_PLACE(struct nccl_config, magic, ncclConfig_t, magic);
SAME_PLACE(struct nccl_config, version, ncclConfig_t, version);
SAME_PLACE(struct nccl_config, blocking, ncclConfig_t, blocking);
SAME_PLACE(struct nccl_config, cga_cluster_size, ncclConfig_t, cgaClusterSize);
SAME_PLACE(struct nccl_config, min_ctas, ncclConfig_t, minCTAs);
SAME_PLACE(struct nccl_config, max_ctas, ncclConfig_t, maxCTAs);
SAME_PLACE(struct nccl_config, net_name, ncclConfig_t, netName);
SAME_PLACE(struct nccl_config, split_share, ncclConfig_t, splitShare);
SAME_PLACE(struct nccl_config, traffic_class, ncclConfig_t, trafficClass);

static void nccl_configs_begin_alike(void **state)
{
    ncclConfig_t theirs = NCCL_CONFIG_INITIALIZER;

    (void)state;
    assert_int_equal(theirs.magic, NCCL_CONFIG_MAGIC);
    assert_int_equal(theirs.blocking, NCCL_UNDEF_INT);
    assert_int_equal(theirs.trafficClass, NCCL_UNDEF_INT);
    assert_true(theirs.version >= NCCL_CONFIG_VERSION);
    assert_true(theirs.size >= sizeof(struct nccl_config));
}
#endif

static void algorithms_are_plain_data_of_one_size(void **state)
{
    (void)state;
    assert_int_equal(sizeof(struct cublaslt_algo), sizeof(cublasLtMatmulAlgo_t));
    assert_int_equal(sizeof(struct cublaslt_candidate), sizeof(cublasLtMatmulHeuristicResult_t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(algorithms_are_plain_data_of_one_size),
#ifdef HAVE_NCCL_H
        cmocka_unit_test(nccl_configs_begin_alike),
#endif
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
