/* port.h - the words that kernels are written with, on a GPU and on a CPU.
 *
 * A kernel file (kernels/FAMILY.cu) includes this and its own argument header and nothing else.  nvcc makes
 * device code of it (port_nvcc.h); g++ makes a program of fibers of it (tests/cuda/shim/port_shim.h), which the
 * tests and the fake driver run.  So a kernel names no CUDA type and no CUDA function: what is not plain C++ is
 * declared here, once, and both sides define it.
 *
 *     KERNEL(rmsnorm, struct rmsnorm_args, RMSNORM_THREADS)
 *     {
 *         KSHARED(float, part, [32]);
 *         uint32_t row = blockIdx.x;
 *         ... a.x[row * a.dim + threadIdx.x] ...
 *     }
 *
 * Plain CUDA spellings that remain: threadIdx.x, blockIdx.x/y/z, blockDim.x, gridDim.x/y/z.
 *
 * Rules.
 *   - A block is one-dimensional and its threads are a multiple of 32, at most 1024; blockDim.x is the
 *     KERNEL's `threads`.
 *   - k_sync*() is met by all threads of the block that have not returned, at one place in the code.
 *   - Warp operations (shuffles, votes, k_syncwarp, ldmatrix, mma) are met by all 32 lanes together, at one
 *     place; a warp none of whose lanes is needed may return as a whole.
 *   - Shared memory is undefined at the start (the shim fills it with NaN), and so is what cp.async brings
 *     until the wait that covers it *and* a barrier.
 *   - Floats of 16 and 8 bits are uint16_t and uint8_t bits; two f16 in a uint32_t have the lower index in
 *     the lower half.
 *   - Every sum is made in an order that depends on its own length only (ops/ops.h).
 *   - Code is accepted by CUDA 12 and 13, from sm_70 on; what a GPU lacks, port_nvcc.h makes of what it has. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_PORT_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_PORT_H

#include <stddef.h>
#include <stdint.h>

/* KERNEL(name, args type, threads) { body }: an entry point that the host finds by its name.  The body sees
 * its arguments as `a`, a const args type (by value, in constant memory).  `threads` is a constant.
 * KERNEL_BLOCKS has the compiler use so few registers that `blocks` of them fit one SM.
 * KDEV: before a function that kernels call.  KCONSTANT: before a table of constants at file scope.
 * KSHARED(T, name, dims): `T name dims` in the block's shared memory, aligned to 16.
 * KSHARED_DYN(T, name): `T *name`, the dynamic shared memory of the launch, aligned to 128.
 * KUNROLL, KUNROLL_N(n): before a loop. */
#ifdef __CUDACC__
#define KDEV      static __device__ __forceinline__
#define KCONSTANT static __constant__ const
#define KERNEL(name, args_type, threads)                                                           \
    extern "C" __global__ void __launch_bounds__(threads) name(const __grid_constant__ args_type a)
#define KERNEL_BLOCKS(name, args_type, threads, blocks)                                            \
    extern "C" __global__ void __launch_bounds__(threads, blocks)                                  \
        name(const __grid_constant__ args_type a)
#define KSHARED(T, name, dims) __shared__ __align__(16) T name dims
#define KSHARED_DYN(T, name)                                                                       \
    extern __shared__ __align__(128) unsigned char k_dynamic_shared[];                             \
    T *const name = reinterpret_cast<T *>(k_dynamic_shared)
#define KPRAGMA(text) _Pragma(#text)
#define KUNROLL       KPRAGMA(unroll)
#define KUNROLL_N(n)  KPRAGMA(unroll n)
#else
#define KDEV      static inline
#define KCONSTANT static const
#define KUNROLL
#define KUNROLL_N(n)
/* KERNEL, KERNEL_BLOCKS, KSHARED, KSHARED_DYN: port_shim.h */
#endif

/* What one thread loads or stores at once. */
struct alignas(16) k_u32x4 {
    uint32_t v[4];
};
struct alignas(8) k_u32x2 {
    uint32_t v[2];
};
struct alignas(16) k_f32x4 {
    float v[4];
};

/* ---- memory ----
 * Addresses are multiples of the size.  load/store: any memory.  ldg: global memory that nobody writes during
 * the launch, by the read-only path.  stream: the same, read once (weights): the caches need not keep it. */
KDEV k_u32x4 k_load16(const void *p);
KDEV k_u32x2 k_load8(const void *p);
KDEV k_f32x4 k_load4f(const float *p);
KDEV void k_store16(void *p, k_u32x4 v);
KDEV void k_store8(void *p, k_u32x2 v);
KDEV void k_store4f(float *p, k_f32x4 v);
KDEV k_u32x4 k_ldg16(const void *p);
KDEV k_u32x2 k_ldg8(const void *p);
KDEV k_f32x4 k_ldg4f(const float *p);
KDEV uint32_t k_ldg_u32(const uint32_t *p);
KDEV uint16_t k_ldg_u16(const uint16_t *p);
KDEV uint8_t k_ldg_u8(const uint8_t *p);
KDEV float k_ldg_f32(const float *p);
KDEV k_u32x4 k_stream16(const void *p);
KDEV k_u32x2 k_stream8(const void *p);
KDEV void k_store_stream16(void *p, k_u32x4 v); /* written once, not read again soon */

/* ---- cp.async: 16 bytes from global to shared memory ----
 * A copy is in the group that the thread's next commit closes; wait<N> returns when all but the thread's last N
 * groups have arrived (its own: other threads' need the barrier after it).  _if: 16 zero bytes when !take (the
 * address is not read, yet must be aligned).  _stream: for data read once, first to leave the L2.
 * Before sm_80 the copy is done at once. */
KDEV void k_cp_async16(void *shared, const void *global);
KDEV void k_cp_async16_if(void *shared, const void *global, bool take);
KDEV void k_cp_async16_stream(void *shared, const void *global);
KDEV void k_cp_async_commit();
template <int N> KDEV void k_cp_async_wait();

/* ---- the block and the warp ---- */
KDEV void k_sync();
KDEV bool k_sync_or(bool p);        /* whether p of any thread */
KDEV uint32_t k_sync_count(bool p); /* threads with p */
KDEV void k_syncwarp();
KDEV uint32_t k_lane(); /* 0 .. 31 */
KDEV uint32_t k_warp(); /* of the block */
/* T is float, int32_t, uint32_t, int64_t, uint64_t or double.  width: a power of two, lanes of a segment. */
template <class T> KDEV T k_shfl(T v, uint32_t from, uint32_t width = 32);
template <class T> KDEV T k_shfl_xor(T v, uint32_t lanes, uint32_t width = 32);
template <class T>
KDEV T k_shfl_up(T v, uint32_t by, uint32_t width = 32); /* own v where there is none */
template <class T> KDEV T k_shfl_down(T v, uint32_t by, uint32_t width = 32);
KDEV uint32_t k_ballot(bool p);
KDEV bool k_any(bool p);
KDEV bool k_all(bool p);

/* ---- atomics, relaxed, on shared or global memory; the old value is returned ---- */
KDEV uint32_t k_atomic_add(uint32_t *p, uint32_t v);
KDEV uint64_t k_atomic_add(uint64_t *p, uint64_t v);
KDEV float k_atomic_add(float *p, float v); /* its order is not fixed: never for results */
KDEV uint32_t k_atomic_max(uint32_t *p, uint32_t v);
KDEV uint32_t k_atomic_min(uint32_t *p, uint32_t v);
KDEV uint64_t k_atomic_max(uint64_t *p, uint64_t v);
KDEV uint32_t k_atomic_or(uint32_t *p, uint32_t v);
KDEV uint32_t k_atomic_exchange(uint32_t *p, uint32_t v);
KDEV uint32_t k_atomic_cas(uint32_t *p, uint32_t expected, uint32_t v);

/* ---- between blocks, GPUs and the host ---- */
KDEV void k_fence(); /* device scope */
KDEV void k_fence_system();
KDEV void k_store_release_system(uint32_t *p, uint32_t v);
KDEV uint32_t k_load_acquire_system(const uint32_t *p);
KDEV uint32_t k_load_relaxed_system(const uint32_t *p); /* e.g. an abort word */
KDEV void k_pause();                                    /* in a spin loop */
KDEV uint64_t k_clock_ns();                             /* steady; coarse on some GPUs (1 us) */

/* ---- tensor cores ----
 * Fragments as the PTX manual draws them; lane = 4 g + t:
 *   a  16 x 16, row-major: a[0] = (g, 2t..2t+1), a[1] = (g+8, ..), a[2] = (g, 2t+8..), a[3] = (g+8, 2t+8..)
 *   b  16 x 8, column-major: b[0] = (2t..2t+1, g), b[1] = (2t+8.., g)
 *   d  16 x 8: d[0..1] = (g, 2t..2t+1), d[2..3] = (g+8, ..)                       d += a b, floats
 * ldmatrix: lanes 8i .. 8i+7 give the addresses (of 16 bytes in shared memory) of the eight rows of matrix i;
 * r[i] is the lane's pair of matrix i: (g, 2t..2t+1), or with trans (2t..2t+1, g). */
KDEV void k_ldmatrix_x4(uint32_t r[4], const void *row);
KDEV void k_ldmatrix_x2(uint32_t r[2], const void *row); /* addresses of lanes 0 .. 15 */
KDEV void k_ldmatrix_x4_trans(uint32_t r[4], const void *row);
KDEV void k_ldmatrix_x2_trans(uint32_t r[2], const void *row);
KDEV void k_mma_m16n8k16_f16(float d[4], const uint32_t a[4], const uint32_t b[2]);
KDEV void k_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);

/* ---- numbers: conversions round to nearest even; the same bits on both sides, NaNs' payloads aside ---- */
KDEV float k_f16_to_f32(uint16_t bits);
KDEV uint16_t k_f32_to_f16(float v); /* beyond the largest: infinity */
KDEV float k_bf16_to_f32(uint16_t bits);
KDEV uint16_t k_f32_to_bf16(float v);
KDEV float k_e4m3_to_f32(uint8_t bits); /* 0x7f, 0xff: NaN */
KDEV uint8_t k_f32_to_e4m3(float v);    /* beyond 448: 448; NaN: 0x7f */
KDEV uint32_t k_f32x2_to_f16x2(float low, float high);
KDEV uint32_t k_f32x2_to_bf16x2(float low, float high);
KDEV float k_f16_low(uint32_t pair);
KDEV float k_f16_high(uint32_t pair);
KDEV float k_bf16_low(uint32_t pair);
KDEV float k_bf16_high(uint32_t pair);
KDEV uint32_t k_e4m3x2_to_f16x2(uint16_t pair); /* exact */
KDEV uint32_t k_f16x2_fma(uint32_t a, uint32_t b,
                          uint32_t c); /* a * b + c, rounded once, by halves */
KDEV uint32_t k_f16x2_mul(uint32_t a, uint32_t b);
KDEV uint32_t k_f16x2_add(uint32_t a, uint32_t b);
KDEV uint32_t k_f16x2_sub(uint32_t a, uint32_t b);
KDEV uint32_t k_f32_bits(float v);
KDEV float k_bits_f32(uint32_t bits);

/* ---- integers ---- */
/* Bit i of the result is bit (4 a_i + 2 b_i + c_i) of Table: (a & b) | c is (0xf0 & 0xcc) | 0xaa = 0xea. */
template <uint32_t Table> KDEV uint32_t k_lop3(uint32_t a, uint32_t b, uint32_t c);
/* Byte i of the result is byte (select >> 4i & 7) of b:a, a's being 0 .. 3. */
KDEV uint32_t k_byte_permute(uint32_t a, uint32_t b, uint32_t select);
KDEV int32_t k_dp4a(uint32_t a, uint32_t b,
                    int32_t c); /* c + the sum over four signed bytes a_i b_i */
KDEV uint32_t k_popcount(uint32_t v);
KDEV uint32_t k_leading_zeros(uint32_t v);        /* 32 for 0 */
KDEV uint32_t k_mul_high(uint32_t a, uint32_t b); /* the upper half of a * b */

/* ---- functions of a float ----
 * What the GPU has fast: a few ulp, so tests compare by tolerance; the shim computes them in full. */
KDEV float k_exp(float x);
KDEV float k_exp2(float x);
KDEV float k_log(float x);
KDEV float k_rsqrt(float x);
KDEV float k_divide(float a, float b); /* |b| < 2^126 */
KDEV float k_tanh(float x);            /* accurate */
KDEV float k_fma(float a, float b, float c);
KDEV float k_mul_rn(float a, float b); /* these two are never fused with another one */
KDEV float k_add_rn(float a, float b);
KDEV int32_t k_round(float v); /* to nearest, ties to even; within int32_t */
KDEV float k_min(float a, float b);
KDEV float k_max(float a, float b);

#ifdef __CUDACC__
#include "gpu-worker/cuda/kernels/port_nvcc.h"
#else
#include "tests/cuda/shim/port_shim.h"
#endif

/* ---- made of the above: sums whose order is fixed ---- */

/* All lanes get it. */
KDEV float k_warp_sum(float v)
{
    KUNROLL
    for (uint32_t lanes = 16; lanes; lanes >>= 1)
        v += k_shfl_xor(v, lanes);
    return v;
}

KDEV float k_warp_max(float v)
{
    KUNROLL
    for (uint32_t lanes = 16; lanes; lanes >>= 1)
        v = k_max(v, k_shfl_xor(v, lanes));
    return v;
}

/* All threads get it: each warp's, then those from first to last.  part: 32 floats of shared memory, free
 * before and, after the caller's next barrier, afterwards.  N_WARPS = blockDim.x / 32. */
template <uint32_t N_WARPS> KDEV float k_block_sum(float v, float *part)
{
    v = k_warp_sum(v);
    if (k_lane() == 0)
        part[k_warp()] = v;
    k_sync();
    v = 0;
    KUNROLL
    for (uint32_t i = 0; i < N_WARPS; i++)
        v += part[i];
    return v;
}

template <uint32_t N_WARPS> KDEV float k_block_max(float v, float *part)
{
    v = k_warp_max(v);
    if (k_lane() == 0)
        part[k_warp()] = v;
    k_sync();
    v = part[0];
    KUNROLL
    for (uint32_t i = 1; i < N_WARPS; i++)
        v = k_max(v, part[i]);
    return v;
}

#endif
