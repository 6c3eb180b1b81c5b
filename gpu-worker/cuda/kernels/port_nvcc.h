/* port_nvcc.h - port.h's words in CUDA C++ and PTX (included by port.h alone; comments are there).
 *
 * Instructions and their fragments: NVIDIA, Parallel Thread Execution ISA.  Each fallback is for GPUs before the
 * one named in its condition: slower, the same numbers. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_PORT_NVCC_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_PORT_NVCC_H

/* ---- memory ---- */

KDEV k_u32x4 k_u32x4_of(uint4 v)
{
    return { { v.x, v.y, v.z, v.w } };
}

KDEV k_u32x2 k_u32x2_of(uint2 v)
{
    return { { v.x, v.y } };
}

KDEV k_f32x4 k_f32x4_of(float4 v)
{
    return { { v.x, v.y, v.z, v.w } };
}

KDEV uint4 k_uint4_of(k_u32x4 v)
{
    return make_uint4(v.v[0], v.v[1], v.v[2], v.v[3]);
}

KDEV k_u32x4 k_load16(const void *p)
{
    return k_u32x4_of(*(const uint4 *)p);
}

KDEV k_u32x2 k_load8(const void *p)
{
    return k_u32x2_of(*(const uint2 *)p);
}

KDEV k_f32x4 k_load4f(const float *p)
{
    return k_f32x4_of(*(const float4 *)p);
}

KDEV void k_store16(void *p, k_u32x4 v)
{
    *(uint4 *)p = k_uint4_of(v);
}

KDEV void k_store8(void *p, k_u32x2 v)
{
    *(uint2 *)p = make_uint2(v.v[0], v.v[1]);
}

KDEV void k_store4f(float *p, k_f32x4 v)
{
    *(float4 *)p = make_float4(v.v[0], v.v[1], v.v[2], v.v[3]);
}

KDEV k_u32x4 k_ldg16(const void *p)
{
    return k_u32x4_of(__ldg((const uint4 *)p));
}

KDEV k_u32x2 k_ldg8(const void *p)
{
    return k_u32x2_of(__ldg((const uint2 *)p));
}

KDEV k_f32x4 k_ldg4f(const float *p)
{
    return k_f32x4_of(__ldg((const float4 *)p));
}

KDEV uint32_t k_ldg_u32(const uint32_t *p)
{
    return __ldg(p);
}

KDEV uint16_t k_ldg_u16(const uint16_t *p)
{
    return __ldg(p);
}

KDEV uint8_t k_ldg_u8(const uint8_t *p)
{
    return __ldg(p);
}

KDEV float k_ldg_f32(const float *p)
{
    return __ldg(p);
}

KDEV k_u32x4 k_stream16(const void *p)
{
    k_u32x4 v;

    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.v[0]), "=r"(v.v[1]), "=r"(v.v[2]), "=r"(v.v[3])
                 : "l"(__cvta_generic_to_global(p)));
    return v;
}

KDEV k_u32x2 k_stream8(const void *p)
{
    k_u32x2 v;

    asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
                 : "=r"(v.v[0]), "=r"(v.v[1])
                 : "l"(__cvta_generic_to_global(p)));
    return v;
}

KDEV void k_store_stream16(void *p, k_u32x4 v)
{
    __stcs((uint4 *)p, k_uint4_of(v));
}

/* ---- cp.async ---- */

KDEV uint32_t k_shared_address(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

KDEV void k_cp_async16(void *shared, const void *global)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(k_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global))
                 : "memory");
#else
    k_store16(shared, k_ldg16(global));
#endif
}

KDEV void k_cp_async16_if(void *shared, const void *global, bool take)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(k_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(take ? 16 : 0)
                 : "memory");
#else
    k_store16(shared, take ? k_ldg16(global) : k_u32x4{ { 0, 0, 0, 0 } });
#endif
}

KDEV void k_cp_async16_stream(void *shared, const void *global)
{
#if __CUDA_ARCH__ >= 800
    asm volatile("{ .reg .b64 policy;\n"
                 "  createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
                 "  cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, policy; }" ::"r"(
                     k_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global))
                 : "memory");
#else
    k_store16(shared, k_stream16(global));
#endif
}

KDEV void k_cp_async_commit()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

template <int N> KDEV void k_cp_async_wait()
{
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

/* ---- the block and the warp ---- */

#define K_ALL_LANES 0xffffffffu

KDEV void k_sync()
{
    __syncthreads();
}

KDEV bool k_sync_or(bool p)
{
    return __syncthreads_or(p);
}

KDEV uint32_t k_sync_count(bool p)
{
    return (uint32_t)__syncthreads_count(p);
}

KDEV void k_syncwarp()
{
    __syncwarp();
}

KDEV uint32_t k_lane()
{
    return threadIdx.x & 31;
}

KDEV uint32_t k_warp()
{
    return threadIdx.x >> 5;
}

/* CUDA's shuffles know no uint64_t by that name. */
template <class T> struct k_shuffled {
    typedef T type;
};
template <> struct k_shuffled<int64_t> {
    typedef long long type;
};
template <> struct k_shuffled<uint64_t> {
    typedef unsigned long long type;
};

template <class T> KDEV T k_shfl(T v, uint32_t from, uint32_t width)
{
    typedef typename k_shuffled<T>::type S;
    return (T)__shfl_sync(K_ALL_LANES, (S)v, (int)from, (int)width);
}

template <class T> KDEV T k_shfl_xor(T v, uint32_t lanes, uint32_t width)
{
    typedef typename k_shuffled<T>::type S;
    return (T)__shfl_xor_sync(K_ALL_LANES, (S)v, (int)lanes, (int)width);
}

template <class T> KDEV T k_shfl_up(T v, uint32_t by, uint32_t width)
{
    typedef typename k_shuffled<T>::type S;
    return (T)__shfl_up_sync(K_ALL_LANES, (S)v, by, (int)width);
}

template <class T> KDEV T k_shfl_down(T v, uint32_t by, uint32_t width)
{
    typedef typename k_shuffled<T>::type S;
    return (T)__shfl_down_sync(K_ALL_LANES, (S)v, by, (int)width);
}

KDEV uint32_t k_ballot(bool p)
{
    return __ballot_sync(K_ALL_LANES, p);
}

KDEV bool k_any(bool p)
{
    return __any_sync(K_ALL_LANES, p);
}

KDEV bool k_all(bool p)
{
    return __all_sync(K_ALL_LANES, p);
}

/* ---- atomics ---- */

KDEV uint32_t k_atomic_add(uint32_t *p, uint32_t v)
{
    return atomicAdd(p, v);
}

KDEV uint64_t k_atomic_add(uint64_t *p, uint64_t v)
{
    return atomicAdd((unsigned long long *)p, (unsigned long long)v);
}

KDEV float k_atomic_add(float *p, float v)
{
    return atomicAdd(p, v);
}

KDEV uint32_t k_atomic_max(uint32_t *p, uint32_t v)
{
    return atomicMax(p, v);
}

KDEV uint32_t k_atomic_min(uint32_t *p, uint32_t v)
{
    return atomicMin(p, v);
}

KDEV uint64_t k_atomic_max(uint64_t *p, uint64_t v)
{
    return atomicMax((unsigned long long *)p, (unsigned long long)v);
}

KDEV uint32_t k_atomic_or(uint32_t *p, uint32_t v)
{
    return atomicOr(p, v);
}

KDEV uint32_t k_atomic_exchange(uint32_t *p, uint32_t v)
{
    return atomicExch(p, v);
}

KDEV uint32_t k_atomic_cas(uint32_t *p, uint32_t expected, uint32_t v)
{
    return atomicCAS(p, expected, v);
}

/* ---- between blocks, GPUs and the host ---- */

KDEV void k_fence()
{
    __threadfence();
}

KDEV void k_fence_system()
{
    __threadfence_system();
}

KDEV void k_store_release_system(uint32_t *p, uint32_t v)
{
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(p)), "r"(v)
                 : "memory");
}

KDEV uint32_t k_load_acquire_system(const uint32_t *p)
{
    uint32_t v;

    asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
                 : "=r"(v)
                 : "l"(__cvta_generic_to_global(p))
                 : "memory");
    return v;
}

KDEV uint32_t k_load_relaxed_system(const uint32_t *p)
{
    uint32_t v;

    asm volatile("ld.relaxed.sys.global.u32 %0, [%1];"
                 : "=r"(v)
                 : "l"(__cvta_generic_to_global(p))
                 : "memory");
    return v;
}

KDEV void k_pause()
{
    __nanosleep(20);
}

KDEV uint64_t k_clock_ns()
{
    uint64_t ns;

    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
    return ns;
}

/* ---- numbers ---- */

KDEV uint32_t k_f32_bits(float v)
{
    return __float_as_uint(v);
}

KDEV float k_bits_f32(uint32_t bits)
{
    return __uint_as_float(bits);
}

KDEV float k_f16_to_f32(uint16_t bits)
{
    float v;

    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(bits));
    return v;
}

KDEV uint16_t k_f32_to_f16(float v)
{
    uint16_t bits;

    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(v));
    return bits;
}

KDEV float k_bf16_to_f32(uint16_t bits)
{
    return k_bits_f32((uint32_t)bits << 16);
}

KDEV uint16_t k_f32_to_bf16(float v)
{
#if __CUDA_ARCH__ >= 800
    uint16_t half;

    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(half) : "f"(v));
    return half;
#else
    uint32_t bits = k_f32_bits(v);

    if ((bits & 0x7fffffff) > 0x7f800000)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}

KDEV uint32_t k_f32x2_to_f16x2(float low, float high)
{
#if __CUDA_ARCH__ >= 800
    uint32_t pair;

    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return k_f32_to_f16(low) | (uint32_t)k_f32_to_f16(high) << 16;
#endif
}

KDEV uint32_t k_f32x2_to_bf16x2(float low, float high)
{
#if __CUDA_ARCH__ >= 800
    uint32_t pair;

    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
#else
    return k_f32_to_bf16(low) | (uint32_t)k_f32_to_bf16(high) << 16;
#endif
}

KDEV float k_f16_low(uint32_t pair)
{
    return k_f16_to_f32((uint16_t)pair);
}

KDEV float k_f16_high(uint32_t pair)
{
    return k_f16_to_f32((uint16_t)(pair >> 16));
}

KDEV float k_bf16_low(uint32_t pair)
{
    return k_bits_f32(pair << 16);
}

KDEV float k_bf16_high(uint32_t pair)
{
    return k_bits_f32(pair & 0xffff0000u);
}

#define K_F16X2(name, instruction)                                                                 \
    KDEV uint32_t name(uint32_t a, uint32_t b)                                                     \
    {                                                                                              \
        uint32_t d;                                                                                \
        asm(instruction " %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));                                \
        return d;                                                                                  \
    }

/* .rn: neither is to become part of an fma. */
K_F16X2(k_f16x2_mul, "mul.rn.f16x2")
K_F16X2(k_f16x2_add, "add.rn.f16x2")
K_F16X2(k_f16x2_sub, "sub.rn.f16x2")

KDEV uint32_t k_f16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;

    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
    return d;
}

/* For sm_89 the assembler has had them since CUDA 12.1 (PTX 8.1), for sm_90 longer. */
#define K_HAS_E4M3                                                                                 \
    (__CUDA_ARCH__ >= 900 ||                                                                       \
     (__CUDA_ARCH__ >= 890 && __CUDACC_VER_MAJOR__ * 100 + __CUDACC_VER_MINOR__ >= 1201))

/* An E4M3 shifted into a half's exponent and fraction is 2^-8 of its value, subnormals too; what would be 480
 * is a NaN. */
KDEV uint32_t k_e4m3x2_to_f16x2(uint16_t pair)
{
#if K_HAS_E4M3
    uint32_t halves;

    asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(pair));
    return halves;
#else
    uint32_t spread = (pair & 0xffu) | (uint32_t)(pair & 0xff00u) << 8;
    uint32_t halves = (spread & 0x00800080u) << 8 | (spread & 0x007f007fu) << 7;

    halves = k_f16x2_mul(halves, 0x5c005c00u); /* 256 */
    if ((spread & 0x7f) == 0x7f)
        halves |= 0x7fffu;
    if ((spread >> 16 & 0x7f) == 0x7f)
        halves |= 0x7fff0000u;
    return halves;
#endif
}

KDEV float k_e4m3_to_f32(uint8_t bits)
{
    return k_f16_low(k_e4m3x2_to_f16x2(bits));
}

KDEV uint8_t k_f32_to_e4m3(float v)
{
#if K_HAS_E4M3
    uint16_t pair;

    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(v));
    return (uint8_t)pair;
#else
    uint32_t bits = k_f32_bits(v), sign = bits >> 24 & 0x80;
    float magnitude = fminf(fabsf(v), 448.0f);

    if (v != v)
        return 0x7f;
    if (magnitude < 0x1p-6f) /* in steps of 2^-9 */
        return (uint8_t)(sign | __float2uint_rn(magnitude * 512.0f));
    bits = k_f32_bits(magnitude);
    bits += 0x7ffff + (bits >> 20 & 1);
    return (uint8_t)(sign | ((bits >> 20) - (120u << 3)));
#endif
}

/* ---- tensor cores ---- */

#if __CUDA_ARCH__ < 750
/* V100 has none of these instructions, and is given no kernel with one (attention_plan.c, ops_cuda.c): so there is little of
 * such a kernel. */
KDEV void k_never_launched()
{
    __trap();
    __builtin_unreachable();
}
#endif

#define K_LDMATRIX_X4(name, modifier)                                                              \
    KDEV void name(uint32_t r[4], const void *row)                                                 \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" modifier ".shared.b16 {%0, %1, %2, %3}, "     \
                     "[%4];"                                                                       \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                              \
                     : "r"(k_shared_address(row))                                                  \
                     : "memory");                                                                  \
    }
#define K_LDMATRIX_X2(name, modifier)                                                              \
    KDEV void name(uint32_t r[2], const void *row)                                                 \
    {                                                                                              \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" modifier ".shared.b16 {%0, %1}, [%2];"        \
                     : "=r"(r[0]), "=r"(r[1])                                                      \
                     : "r"(k_shared_address(row))                                                  \
                     : "memory");                                                                  \
    }

#if __CUDA_ARCH__ >= 750
K_LDMATRIX_X4(k_ldmatrix_x4, "")
K_LDMATRIX_X4(k_ldmatrix_x4_trans, ".trans")
K_LDMATRIX_X2(k_ldmatrix_x2, "")
K_LDMATRIX_X2(k_ldmatrix_x2_trans, ".trans")
#else
KDEV void k_ldmatrix_x4(uint32_t *, const void *)
{
    k_never_launched();
}
KDEV void k_ldmatrix_x4_trans(uint32_t *, const void *)
{
    k_never_launched();
}
KDEV void k_ldmatrix_x2(uint32_t *, const void *)
{
    k_never_launched();
}
KDEV void k_ldmatrix_x2_trans(uint32_t *, const void *)
{
    k_never_launched();
}
#endif

#if __CUDA_ARCH__ >= 750 && __CUDA_ARCH__ < 800
/* No such instruction: pairs of k are handed around, four multiplications by four lanes at a time. */
template <bool BF16> KDEV void k_mma_plain(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    uint32_t g = k_lane() >> 2, t = k_lane() & 3;

    KUNROLL
    for (uint32_t k = 0; k < 8; k++) { /* columns 2k and 2k + 1 of a */
        uint32_t half = k >> 2, from = k & 3;
        uint32_t rows[2] = { k_shfl(a[2 * half], 4 * g + from),
                             k_shfl(a[2 * half + 1], 4 * g + from) };
        uint32_t cols[2] = { k_shfl(b[half], 4 * (2 * t) + from),
                             k_shfl(b[half], 4 * (2 * t + 1) + from) };
        KUNROLL
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t x = rows[i >> 1], y = cols[i & 1];
            d[i] += BF16 ? k_bf16_low(x) * k_bf16_low(y) : k_f16_low(x) * k_f16_low(y);
            d[i] += BF16 ? k_bf16_high(x) * k_bf16_high(y) : k_f16_high(x) * k_f16_high(y);
        }
    }
}
#endif

KDEV void k_mma_m16n8k16_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif __CUDA_ARCH__ >= 750
    KUNROLL
    for (uint32_t i = 0; i < 2; i++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[2 * i]), "r"(a[2 * i + 1]), "r"(b[i]));
#else
    k_never_launched();
#endif
}

KDEV void k_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
#if __CUDA_ARCH__ >= 800
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif __CUDA_ARCH__ >= 750
    k_mma_plain<true>(d, a, b);
#else
    k_never_launched();
#endif
}

/* ---- integers ---- */

template <uint32_t Table> KDEV uint32_t k_lop3(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d;

    asm("lop3.b32 %0, %1, %2, %3, %4;" : "=r"(d) : "r"(a), "r"(b), "r"(c), "n"(Table));
    return d;
}

KDEV uint32_t k_byte_permute(uint32_t a, uint32_t b, uint32_t select)
{
    return __byte_perm(a, b, select);
}

KDEV int32_t k_dp4a(uint32_t a, uint32_t b, int32_t c)
{
    return __dp4a((int)a, (int)b, c);
}

KDEV uint32_t k_popcount(uint32_t v)
{
    return (uint32_t)__popc(v);
}

KDEV uint32_t k_leading_zeros(uint32_t v)
{
    return (uint32_t)__clz((int)v);
}

KDEV uint32_t k_mul_high(uint32_t a, uint32_t b)
{
    return __umulhi(a, b);
}

/* ---- functions of a float ---- */

KDEV float k_exp(float x)
{
    return __expf(x);
}

KDEV float k_exp2(float x)
{
    float y;

    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

KDEV float k_log(float x)
{
    return __logf(x);
}

KDEV float k_rsqrt(float x)
{
    return rsqrtf(x);
}

KDEV float k_divide(float a, float b)
{
    return __fdividef(a, b);
}

KDEV float k_tanh(float x)
{
    return tanhf(x);
}

KDEV float k_fma(float a, float b, float c)
{
    return fmaf(a, b, c);
}

KDEV float k_mul_rn(float a, float b)
{
    return __fmul_rn(a, b);
}

KDEV float k_add_rn(float a, float b)
{
    return __fadd_rn(a, b);
}

KDEV int32_t k_round(float v)
{
    return __float2int_rn(v);
}

KDEV float k_min(float a, float b)
{
    return fminf(a, b);
}

KDEV float k_max(float a, float b)
{
    return fmaxf(a, b);
}

#endif
