/* driver.h - the door to NVIDIA's driver: libcuda.so.1, opened at run time.
 *
 * Nothing is linked and no header of CUDA is included, so one llm-worker is built and starts everywhere.  Types,
 * structures and values below are the driver's ABI as its reference manual gives them ("CUDA Driver API", docs.nvidia.com/
 * cuda/cuda-driver-api); tests/cuda/test_cuda_driver_abi.cc compares all of them with cuda.h where that is installed.
 *
 * The driver's functions are members of one table, by their own versioned names: cuda.cuMemAlloc_v2(&p, bytes).
 * The table is one per process, as the library is; it is written by the first cuda_driver_open() alone, before
 * other threads use it, and never closed.  gpu-worker/cuda/device.h is what most code calls instead. */
#ifndef LLMD_CUDA_API_DRIVER_H
#define LLMD_CUDA_API_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* An address in the device's space (CUdeviceptr). */
typedef uint64_t cu_ptr;
/* An allocation by cuMemCreate or an import (CUmemGenericAllocationHandle). */
typedef unsigned long long cu_mem;

/* Opaque; owned by the driver. */
struct cu_context;
struct cu_stream;
struct cu_event;
struct cu_module;
struct cu_function;
struct cu_graph;
struct cu_graph_node;
struct cu_graph_exec;

/* CUresult, as far as the code tells them apart; CUDA_ERROR_<...> in the manual. */
enum cu_result {
    CU_OK = 0,
    CU_INVALID_VALUE = 1,
    CU_OUT_OF_MEMORY = 2,
    CU_NOT_INITIALIZED = 3,
    CU_DEINITIALIZED = 4,
    CU_STUB_LIBRARY = 34,
    CU_CALL_REQUIRES_NEWER_DRIVER = 36,
    CU_DEVICE_UNAVAILABLE = 46,
    CU_NO_DEVICE = 100,
    CU_INVALID_DEVICE = 101,
    CU_INVALID_IMAGE = 200,
    CU_INVALID_CONTEXT = 201,
    CU_MAP_FAILED = 205,
    CU_NO_BINARY_FOR_GPU = 209,
    CU_ECC_UNCORRECTABLE = 214,
    CU_NVLINK_UNCORRECTABLE = 220,
    CU_UNSUPPORTED_PTX_VERSION = 222,
    CU_CONTAINED = 226,
    CU_OPERATING_SYSTEM = 304,
    CU_INVALID_HANDLE = 400,
    CU_ILLEGAL_STATE = 401,
    CU_NOT_FOUND = 500,
    CU_NOT_READY = 600,
    CU_ILLEGAL_ADDRESS = 700,
    CU_LAUNCH_OUT_OF_RESOURCES = 701,
    CU_LAUNCH_TIMEOUT = 702,
    CU_PEER_ACCESS_ALREADY_ENABLED = 704,
    CU_CONTEXT_IS_DESTROYED = 709,
    CU_ASSERT = 710,
    CU_HOST_MEMORY_ALREADY_REGISTERED = 712,
    CU_HOST_MEMORY_NOT_REGISTERED = 713,
    CU_HARDWARE_STACK_ERROR = 714,
    CU_ILLEGAL_INSTRUCTION = 715,
    CU_MISALIGNED_ADDRESS = 716,
    CU_INVALID_ADDRESS_SPACE = 717,
    CU_INVALID_PC = 718,
    CU_LAUNCH_FAILED = 719,
    CU_TENSOR_MEMORY_LEAK = 721,
    CU_NOT_PERMITTED = 800,
    CU_NOT_SUPPORTED = 801,
    CU_SYSTEM_NOT_READY = 802,
    CU_SYSTEM_DRIVER_MISMATCH = 803,
    CU_STREAM_CAPTURE_UNSUPPORTED = 900,
    CU_STREAM_CAPTURE_INVALIDATED = 901,
    CU_STREAM_CAPTURE_UNMATCHED = 903,
    CU_CAPTURED_EVENT = 907,
    CU_EXTERNAL_DEVICE = 911,
    CU_UNKNOWN = 999,
};

/* CUdevice_attribute */
enum cu_attribute {
    CU_ATTR_THREADS_PER_BLOCK_MAX = 1,
    CU_ATTR_SHARED_BYTES_PER_BLOCK_MAX = 8,
    CU_ATTR_WARP_SIZE = 10,
    CU_ATTR_CLOCK_KHZ = 13,
    CU_ATTR_MULTIPROCESSORS = 16,
    CU_ATTR_COMPUTE_MODE = 20,
    CU_ATTR_ECC_ENABLED = 32,
    CU_ATTR_MEMORY_CLOCK_KHZ = 36,
    CU_ATTR_MEMORY_BUS_BITS = 37,
    CU_ATTR_L2_BYTES = 38,
    CU_ATTR_COMPUTE_MAJOR = 75,
    CU_ATTR_COMPUTE_MINOR = 76,
    CU_ATTR_SHARED_BYTES_PER_MULTIPROCESSOR_MAX = 81,
    CU_ATTR_REGISTERS_PER_MULTIPROCESSOR_MAX = 82,
    CU_ATTR_SHARED_BYTES_PER_BLOCK_OPTIN_MAX = 97,
    CU_ATTR_HOST_REGISTER = 99,
    CU_ATTR_VMM = 102,
    CU_ATTR_FD_HANDLES = 103,
    CU_ATTR_MULTICAST = 132,
    CU_ATTR_MPS = 133,
    CU_ATTR_HOST_NUMA_ID = 134,
    CU_ATTR_HOST_NUMA_VMM = 141,
};

/* Flags and small enums, by the function that takes them. */
enum {
    CU_CTX_SCHED_BLOCKING_SYNC = 0x04, /* cuDevicePrimaryCtxSetFlags */
    CU_CTX_MAP_HOST = 0x08,
    CU_STREAM_NON_BLOCKING = 0x1,
    CU_EVENT_DEFAULT = 0x0,
    CU_EVENT_BLOCKING_SYNC = 0x1,
    CU_EVENT_DISABLE_TIMING = 0x2,
    CU_HOSTALLOC_PORTABLE = 0x1,
    CU_HOSTALLOC_DEVICEMAP = 0x2,
    CU_HOSTREGISTER_PORTABLE = 0x1,
    CU_HOSTREGISTER_DEVICEMAP = 0x2,
    CU_HOSTREGISTER_READ_ONLY = 0x8,
    CU_MEM_PINNED = 1, /* cu_mem_prop.type */
    CU_LOCATION_DEVICE = 1,
    CU_LOCATION_HOST = 2,
    CU_LOCATION_HOST_NUMA = 3,
    CU_HANDLE_NONE = 0,
    CU_HANDLE_FD = 1,
    CU_ACCESS_NONE = 0,
    CU_ACCESS_READ = 1,
    CU_ACCESS_READWRITE = 3,
    CU_GRANULARITY_MINIMUM = 0,
    CU_GRANULARITY_RECOMMENDED = 1,
    CU_FUNC_THREADS_PER_BLOCK_MAX = 0, /* cuFuncGetAttribute */
    CU_FUNC_SHARED_BYTES = 1,
    CU_FUNC_LOCAL_BYTES = 3,
    CU_FUNC_REGISTERS = 4,
    CU_FUNC_DYNAMIC_SHARED_BYTES_MAX = 8,
    CU_CAPTURE_GLOBAL = 0, /* cuStreamBeginCapture */
    CU_CAPTURE_THREAD_LOCAL = 1,
    CU_CAPTURE_RELAXED = 2,
    CU_CAPTURE_STATUS_NONE = 0, /* cuStreamIsCapturing */
    CU_CAPTURE_STATUS_ACTIVE = 1,
    CU_CAPTURE_STATUS_INVALIDATED = 2,
};

/* The members of cuLaunchKernel's `extra`. */
#define CU_PARAM_END            ((void *)0)
#define CU_PARAM_BUFFER_POINTER ((void *)1)
#define CU_PARAM_BUFFER_BYTES   ((void *)2)

struct cu_uuid {
    unsigned char bytes[16];
};

/* CUmemLocation */
struct cu_mem_location {
    int type; /* CU_LOCATION_... */
    int id;   /* a device's ordinal, or a NUMA node */
};

/* CUmemAllocationProp */
struct cu_mem_prop {
    int type;         /* CU_MEM_PINNED */
    int handle_types; /* CU_HANDLE_...: fixed at creation */
    struct cu_mem_location location;
    void *win32_metadata; /* NULL */
    struct {
        unsigned char compression;
        unsigned char gpu_direct_rdma;
        unsigned short usage;
        unsigned char reserved[4];
    } flags;
};

/* CUmemAccessDesc */
struct cu_mem_access {
    struct cu_mem_location location; /* who may */
    int flags;                       /* CU_ACCESS_... */
};

struct cuda_driver {
#define CU(symbol, params)          int(*symbol) params;
#define CU_OPTIONAL(symbol, params) int(*symbol) params;
#include "gpu-worker/cuda/api/driver.def"
#undef CU
#undef CU_OPTIONAL
    int version;   /* of the driver's CUDA: 13000 = 13.0 */
    int n_devices; /* at least 1 */
};

/* The functions of the loaded library; all NULL before cuda_driver_open() succeeded. */
extern struct cuda_driver cuda;

/* Set what the driver reads of the environment, unless the operator has: kernels loaded when they are asked for; where
 * systemd gives a folder for it ($CACHE_DIRECTORY), what the driver compiles kept there.  cuda_driver_open() does it too:
 * call it before there are other threads. */
void cuda_environment(void);

/* Load libcuda.so.1, find every symbol, cuInit and count the devices; true at once when that was done before.
 * ERR_DEVICE with the reason in one line: library missing, a symbol missing (driver too old), cuInit's error by
 * name, no device.  .sys is the CUresult or 0.  After a failure it may be tried again. */
bool cuda_driver_open(struct err *e);

/* "CUDA_ERROR_ILLEGAL_ADDRESS"; "CUresult 1234" is not made: an unknown number gives "unknown CUresult".  Needs no
 * open driver. */
const char *cuda_result_name(int result);

/* What a CUresult means for the process that got it (design 1.5, failure matrix rows 2, 3, 7 and 8). */
enum cuda_severity {
    CUDA_FINE,    /* CU_OK, and CU_NOT_READY of a query */
    CUDA_REFUSED, /* this call did nothing, the context works: invalid argument, out of memory, ... */
    CUDA_STICKY, /* the context is dead, the process must exit; memory owned by descriptors survives: 700, 719, ... */
    CUDA_CONTAINED, /* 226: one region of memory is lost; the process must exit, the chunk be dropped */
    CUDA_LOST, /* 214, unavailable, off the bus: the device needs a reset; its memory is gone */
};
enum cuda_severity cuda_result_severity(int result);

/* "fine", "refused", "sticky", "contained", "lost" */
const char *cuda_severity_name(enum cuda_severity severity);

#endif
