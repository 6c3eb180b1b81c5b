/* nccl.h - the door to NCCL: what we use of its ABI, and how it is loaded.
 *
 * Declared here, so that everything builds where NCCL is not.  Values and layouts: NCCL user guide, "NCCL API"
 * (docs.nvidia.com/deeplearning/nccl), and nccl.h 2.18 to 2.28, with which tests/cuda/test_cuda_library_abi.c compares
 * them where it is installed. */
#ifndef LLMD_CUDA_API_NCCL_H
#define LLMD_CUDA_API_NCCL_H

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct cu_stream;
struct nccl_communicator; /* opaque */

/* ncclUniqueId: passed by value. */
struct nccl_unique_id {
    char bytes[128];
};

/* ncclResult_t */
enum nccl_result {
    NCCL_SUCCESS = 0,
    NCCL_UNHANDLED_CUDA_ERROR = 1,
    NCCL_SYSTEM_ERROR = 2,
    NCCL_INTERNAL_ERROR = 3,
    NCCL_INVALID_ARGUMENT = 4,
    NCCL_INVALID_USAGE = 5,
    NCCL_REMOTE_ERROR = 6,
    NCCL_IN_PROGRESS = 7
};

enum { NCCL_FLOAT32 = 7 }; /* ncclDataType_t */
enum { NCCL_SUM = 0 };     /* ncclRedOp_t */
enum { NCCL_UNDEF_INT = INT_MIN, NCCL_CONFIG_VERSION = 21800 };
#define NCCL_CONFIG_MAGIC 0xcafebeefu

/* ncclConfig_t as of 2.18: a library takes the fields that .bytes says are there and defaults for its later ones,
 * so the oldest form that has what we set fits all.  traffic_class lies in what was padding before 2.25. */
struct nccl_config {
    size_t bytes;
    unsigned int magic, version;
    int blocking; /* 0: calls return NCCL_IN_PROGRESS and work goes on behind ncclCommGetAsyncError() */
    int cga_cluster_size, min_ctas, max_ctas;
    const char *net_name;
    int split_share, traffic_class;
};
static_assert(sizeof(struct nccl_config) == 48, "ncclConfig_v21800");

struct nccl {
#define NCCL(symbol, params)          int(*symbol) params;
#define NCCL_OPTIONAL(symbol, params) int(*symbol) params;
#include "gpu-worker/cuda/api/nccl.def"
#undef NCCL
#undef NCCL_OPTIONAL
    int version; /* 22809 = 2.28.9 */
};

/* The functions of the loaded library; all NULL before nccl_open() succeeded. */
extern struct nccl nccl;

/* Load libnccl.so.2 and find every symbol; true at once when that was done before.  It stays loaded.  The
 * environment is read by the library at its first use: nccl_comm.h sets it.  ERR_DEVICE: there is none, it is
 * older than 2.18, or a function is missing. */
bool nccl_open(struct err *e);

/* "ncclRemoteError"; "unknown ncclResult_t" for others. */
const char *nccl_result_name(int result);

#endif
