/* port_shim.h - port.h's words on the CPU (included by port.h alone; comments are there).
 *
 * What a GPU requires is checked - alignment, all lanes present, one barrier for all - and numbers are what a
 * GPU's would be, bit for bit, but for the fast functions (in full precision here) and the order of sums inside
 * one mma (ascending k here; NVIDIA does not say). */
#ifndef LLMD_TESTS_CUDA_SHIM_PORT_SHIM_H
#define LLMD_TESTS_CUDA_SHIM_PORT_SHIM_H

#include <cmath>
#include <cstring>

#include "gpu-worker/ops/half.h"
#include "tests/cuda/shim/cuda_host.h"

#define KERNEL_BLOCKS(name, args_type, threads, blocks) KERNEL(name, args_type, threads)
#define KERNEL(name, args_type, threads)                                                           \
    static void name##_thread(const args_type &a);                                                 \
    static void name##_run(const void *args)                                                       \
    {                                                                                              \
        name##_thread(*static_cast<const args_type *>(args));                                      \
    }                                                                                              \
    static cuda_host::registration name##_registration(#name, name##_run, sizeof(args_type),       \
                                                       threads);                                   \
    static void name##_thread(const args_type &a)

#define KSHARED(T, name, dims)                                                                     \
    static const char name##_key = 0;                                                              \
    typedef T name##_array dims;                                                                   \
    name##_array &name =                                                                           \
        *static_cast<name##_array *>(cuda_host::shared_array(&name##_key, sizeof(name##_array)))
#define KSHARED_DYN(T, name) T *const name = static_cast<T *>(cuda_host::shared_dynamic())

#define threadIdx (cuda_host::here->thread)
#define blockIdx  (cuda_host::here->block)
#define blockDim  (cuda_host::here->block_dim)
#define gridDim   (cuda_host::here->grid_dim)

/* ---- memory ---- */

static inline void shim_check_aligned(const void *p, uintptr_t bytes, const char *what)
{
    if ((uintptr_t)p % bytes)
        cuda_host::fail("%s at %p, which is no multiple of %u", what, p, (unsigned)bytes);
}

template <class V> static inline V shim_load(const void *p, const char *what)
{
    shim_check_aligned(p, sizeof(V), what);
    return *static_cast<const V *>(p);
}

template <class V> static inline void shim_store(void *p, V v)
{
    shim_check_aligned(p, sizeof(V), "a store");
    *static_cast<V *>(p) = v;
}

KDEV k_u32x4 k_load16(const void *p)
{
    return shim_load<k_u32x4>(p, "a load");
}

KDEV k_u32x2 k_load8(const void *p)
{
    return shim_load<k_u32x2>(p, "a load");
}

KDEV k_f32x4 k_load4f(const float *p)
{
    return shim_load<k_f32x4>(p, "a load");
}

KDEV void k_store16(void *p, k_u32x4 v)
{
    shim_store(p, v);
}

KDEV void k_store8(void *p, k_u32x2 v)
{
    shim_store(p, v);
}

KDEV void k_store4f(float *p, k_f32x4 v)
{
    shim_store(p, v);
}

KDEV k_u32x4 k_ldg16(const void *p)
{
    return shim_load<k_u32x4>(p, "a load");
}

KDEV k_u32x2 k_ldg8(const void *p)
{
    return shim_load<k_u32x2>(p, "a load");
}

KDEV k_f32x4 k_ldg4f(const float *p)
{
    return shim_load<k_f32x4>(p, "a load");
}

KDEV uint32_t k_ldg_u32(const uint32_t *p)
{
    return shim_load<uint32_t>(p, "a load");
}

KDEV uint16_t k_ldg_u16(const uint16_t *p)
{
    return shim_load<uint16_t>(p, "a load");
}

KDEV uint8_t k_ldg_u8(const uint8_t *p)
{
    return *p;
}

KDEV float k_ldg_f32(const float *p)
{
    return shim_load<float>(p, "a load");
}

KDEV k_u32x4 k_stream16(const void *p)
{
    return shim_load<k_u32x4>(p, "a load");
}

KDEV k_u32x2 k_stream8(const void *p)
{
    return shim_load<k_u32x2>(p, "a load");
}

KDEV void k_store_stream16(void *p, k_u32x4 v)
{
    shim_store(p, v);
}

/* ---- cp.async ---- */

/* Who still reads the target when a copy is issued is wrong, whenever it arrives: let it read NaNs. */
static inline void shim_cp_async(void *shared, const void *global, bool take)
{
    shim_check_aligned(shared, 16, "a copy to shared memory");
    shim_check_aligned(global, 16, "a copy from global memory");
    *static_cast<k_u32x4 *>(shared) = { { ~0u, ~0u, ~0u, ~0u } };
    cuda_host::cp_async(shared, global, !take);
}

KDEV void k_cp_async16(void *shared, const void *global)
{
    shim_cp_async(shared, global, true);
}

KDEV void k_cp_async16_if(void *shared, const void *global, bool take)
{
    shim_cp_async(shared, global, take);
}

KDEV void k_cp_async16_stream(void *shared, const void *global)
{
    shim_cp_async(shared, global, true);
}

KDEV void k_cp_async_commit()
{
    cuda_host::cp_async_commit();
}

template <int N> KDEV void k_cp_async_wait()
{
    cuda_host::cp_async_wait(N);
}

/* ---- the block and the warp ---- */

/* Called by these names through the macros below, which say where. */
KDEV void k_sync()
{
    cuda_host::barrier(__FILE__, __LINE__, false);
}

KDEV bool k_sync_or(bool p)
{
    return cuda_host::barrier(__FILE__, __LINE__, p) > 0;
}

KDEV uint32_t k_sync_count(bool p)
{
    return cuda_host::barrier(__FILE__, __LINE__, p);
}

#define k_sync()        ((void)cuda_host::barrier(__FILE__, __LINE__, false))
#define k_sync_or(p)    (cuda_host::barrier(__FILE__, __LINE__, (p)) > 0)
#define k_sync_count(p) (cuda_host::barrier(__FILE__, __LINE__, (p)))

KDEV void k_syncwarp()
{
    cuda_host::exchange(cuda_host::OP_SYNC, {});
}

KDEV uint32_t k_lane()
{
    return threadIdx.x % 32;
}

KDEV uint32_t k_warp()
{
    return threadIdx.x / 32;
}

/* The v of lane `from`, when that is of the own segment, else the own. */
template <class T> static inline T shim_shuffle(T v, uint32_t from, uint32_t width)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "what a shuffle moves");
    cuda_host::shown mine = {};
    uint32_t lane = k_lane();

    if (width == 0 || width > 32 || (width & (width - 1)))
        cuda_host::fail("a shuffle of width %u", width);
    memcpy(mine.v, &v, sizeof v);
    const cuda_host::shown *all = cuda_host::exchange(cuda_host::OP_SHUFFLE, mine);
    if (from / width == lane / width)
        memcpy(&v, all[from].v, sizeof v);
    return v;
}

template <class T> KDEV T k_shfl(T v, uint32_t from, uint32_t width)
{
    return shim_shuffle(v, k_lane() / width * width + from % width, width);
}

template <class T> KDEV T k_shfl_xor(T v, uint32_t lanes, uint32_t width)
{
    return shim_shuffle(v, k_lane() ^ lanes, width);
}

template <class T> KDEV T k_shfl_up(T v, uint32_t by, uint32_t width)
{
    uint32_t lane = k_lane();

    return shim_shuffle(v, by <= lane % width ? lane - by : lane, width);
}

template <class T> KDEV T k_shfl_down(T v, uint32_t by, uint32_t width)
{
    return shim_shuffle(v, k_lane() + by, width);
}

KDEV uint32_t k_ballot(bool p)
{
    const cuda_host::shown *all = cuda_host::exchange(cuda_host::OP_VOTE, { { p } });
    uint32_t votes = 0;

    for (uint32_t i = 0; i < 32; i++)
        votes |= (uint32_t)all[i].v[0] << i;
    return votes;
}

KDEV bool k_any(bool p)
{
    return k_ballot(p) != 0;
}

KDEV bool k_all(bool p)
{
    return k_ballot(p) == ~0u;
}

/* ---- atomics ---- */

template <class T, class F> static inline T shim_update(T *p, F new_value)
{
    T old = __atomic_load_n(p, __ATOMIC_RELAXED);

    shim_check_aligned(p, sizeof(T), "an atomic");
    while (!__atomic_compare_exchange_n(p, &old, new_value(old), true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED))
        ;
    return old;
}

KDEV uint32_t k_atomic_add(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

KDEV uint64_t k_atomic_add(uint64_t *p, uint64_t v)
{
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}

KDEV float k_atomic_add(float *p, float v)
{
    uint32_t old = shim_update(reinterpret_cast<uint32_t *>(p), [v](uint32_t bits) {
        return bits_of_float(float_of_bits(bits) + v);
    });
    return float_of_bits(old);
}

KDEV uint32_t k_atomic_max(uint32_t *p, uint32_t v)
{
    return shim_update(p, [v](uint32_t old) { return old > v ? old : v; });
}

KDEV uint32_t k_atomic_min(uint32_t *p, uint32_t v)
{
    return shim_update(p, [v](uint32_t old) { return old < v ? old : v; });
}

KDEV uint64_t k_atomic_max(uint64_t *p, uint64_t v)
{
    return shim_update(p, [v](uint64_t old) { return old > v ? old : v; });
}

KDEV uint32_t k_atomic_or(uint32_t *p, uint32_t v)
{
    return __atomic_fetch_or(p, v, __ATOMIC_RELAXED);
}

KDEV uint32_t k_atomic_exchange(uint32_t *p, uint32_t v)
{
    return __atomic_exchange_n(p, v, __ATOMIC_RELAXED);
}

KDEV uint32_t k_atomic_cas(uint32_t *p, uint32_t expected, uint32_t v)
{
    __atomic_compare_exchange_n(p, &expected, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    return expected;
}

/* ---- between blocks, GPUs and the host ---- */

KDEV void k_fence()
{
    cuda_host::fence();
}

KDEV void k_fence_system()
{
    cuda_host::fence();
}

KDEV void k_store_release_system(uint32_t *p, uint32_t v)
{
    __atomic_store_n(p, v, __ATOMIC_RELEASE);
}

KDEV uint32_t k_load_acquire_system(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_ACQUIRE);
}

KDEV uint32_t k_load_relaxed_system(const uint32_t *p)
{
    return __atomic_load_n(p, __ATOMIC_RELAXED);
}

KDEV void k_pause()
{
    cuda_host::pause();
}

KDEV uint64_t k_clock_ns()
{
    return cuda_host::clock_ns();
}

/* ---- numbers ---- */

KDEV uint32_t k_f32_bits(float v)
{
    return bits_of_float(v);
}

KDEV float k_bits_f32(uint32_t bits)
{
    return float_of_bits(bits);
}

KDEV float k_f16_to_f32(uint16_t bits)
{
    return f16_to_float(bits);
}

KDEV uint16_t k_f32_to_f16(float v)
{
    return std::isnan(v) ? 0x7fff : float_to_f16(v);
}

KDEV float k_bf16_to_f32(uint16_t bits)
{
    return bf16_to_float(bits);
}

KDEV uint16_t k_f32_to_bf16(float v)
{
    return std::isnan(v) ? 0x7fff : float_to_bf16(v);
}

KDEV uint32_t k_f32x2_to_f16x2(float low, float high)
{
    return k_f32_to_f16(low) | (uint32_t)k_f32_to_f16(high) << 16;
}

KDEV uint32_t k_f32x2_to_bf16x2(float low, float high)
{
    return k_f32_to_bf16(low) | (uint32_t)k_f32_to_bf16(high) << 16;
}

KDEV float k_f16_low(uint32_t pair)
{
    return f16_to_float((uint16_t)pair);
}

KDEV float k_f16_high(uint32_t pair)
{
    return f16_to_float((uint16_t)(pair >> 16));
}

KDEV float k_bf16_low(uint32_t pair)
{
    return bf16_to_float((uint16_t)pair);
}

KDEV float k_bf16_high(uint32_t pair)
{
    return bf16_to_float((uint16_t)(pair >> 16));
}

/* seeeemmm: below 2^-6 in steps of 2^-9, else (8 + m) * 2^(e - 10); no infinities. */
KDEV float k_e4m3_to_f32(uint8_t bits)
{
    int exponent = bits >> 3 & 15, fraction = bits & 7;
    float magnitude = exponent ? std::ldexp((float)(8 + fraction), exponent - 10)
                               : std::ldexp((float)fraction, -9);

    if ((bits & 0x7f) == 0x7f)
        magnitude = NAN;
    return std::copysign(magnitude, bits & 0x80 ? -1.0f : 1.0f);
}

KDEV uint8_t k_f32_to_e4m3(float v)
{
    uint8_t sign = std::signbit(v) ? 0x80 : 0;
    float magnitude = std::fmin(std::fabs(v), 448.0f);
    int exponent = -5; /* magnitude < 2^exponent */

    if (std::isnan(v))
        return 0x7f;
    if (magnitude >= 0x1p-6f)
        std::frexp(magnitude, &exponent);
    int steps = (int)std::nearbyint(std::ldexp(magnitude, 4 - exponent)); /* of 2^(exponent - 4) */
    return (uint8_t)(sign | (((exponent + 5) << 3) + steps)); /* steps == 16 carries over */
}

KDEV uint32_t k_e4m3x2_to_f16x2(uint16_t pair)
{
    return k_f32x2_to_f16x2(k_e4m3_to_f32((uint8_t)pair), k_e4m3_to_f32((uint8_t)(pair >> 8)));
}

/* The float next to v, or v, whose last bit is odd unless v is a float: what is rounded to f16 afterwards is as if
 * v had been (Boldo & Melquiond 2008, doi:10.1109/TC.2007.70819).  rest: what v lacks to the exact value. */
static inline float shim_round_to_odd(double v, double rest)
{
    uint64_t bits;

    if (std::isnan(v) || std::isinf(v) || v == 0)
        return (float)v;
    memcpy(&bits, &v, sizeof bits);
    if (rest != 0 && !(bits & 1)) /* the neighbour on the side of the rest is odd */
        bits += (rest > 0) == (v > 0) ? 1 : (uint64_t)-1;
    uint64_t below = ((uint64_t)1 << 29) - 1; /* of a double's fraction, what a float has not */
    bits = bits & below ? (bits & ~below) | (below + 1) : bits;
    memcpy(&v, &bits, sizeof v);
    return (float)v;
}

static inline uint16_t shim_f16_fma(uint16_t a, uint16_t b, uint16_t c)
{
    double product = (double)f16_to_float(a) * f16_to_float(b), addend = f16_to_float(c);
    double sum = product + addend, part = sum - product;
    double rest = (product - (sum - part)) + (addend - part); /* Knuth's TwoSum */

    return k_f32_to_f16(shim_round_to_odd(sum, std::isfinite(sum) ? rest : 0));
}

template <class F> static inline uint32_t shim_by_halves(uint32_t a, uint32_t b, F f)
{
    return f((uint16_t)a, (uint16_t)b) | (uint32_t)f((uint16_t)(a >> 16), (uint16_t)(b >> 16))
                                             << 16;
}

KDEV uint32_t k_f16x2_fma(uint32_t a, uint32_t b, uint32_t c)
{
    return shim_f16_fma((uint16_t)a, (uint16_t)b, (uint16_t)c) |
           (uint32_t)shim_f16_fma((uint16_t)(a >> 16), (uint16_t)(b >> 16), (uint16_t)(c >> 16))
               << 16;
}

/* Of two f16 the product and the sum are exact in double. */
KDEV uint32_t k_f16x2_mul(uint32_t a, uint32_t b)
{
    return shim_by_halves(a, b, [](uint16_t x, uint16_t y) {
        return k_f32_to_f16(shim_round_to_odd((double)f16_to_float(x) * f16_to_float(y), 0));
    });
}

KDEV uint32_t k_f16x2_add(uint32_t a, uint32_t b)
{
    return shim_by_halves(a, b, [](uint16_t x, uint16_t y) {
        return k_f32_to_f16(shim_round_to_odd((double)f16_to_float(x) + f16_to_float(y), 0));
    });
}

KDEV uint32_t k_f16x2_sub(uint32_t a, uint32_t b)
{
    return k_f16x2_add(a, b ^ 0x80008000u);
}

/* ---- tensor cores ---- */

template <uint32_t N, bool TRANS> static inline void shim_ldmatrix(uint32_t *r, const void *row)
{
    uint32_t lane = k_lane(), g = lane / 4, t = lane % 4;
    const cuda_host::shown *all;

    if (lane < 8 * N) /* the others' addresses are not looked at */
        shim_check_aligned(row, 16, "a row of ldmatrix");
    all = cuda_host::exchange(cuda_host::OP_LDMATRIX, { { (uint64_t)(uintptr_t)row } });
    for (uint32_t i = 0; i < N; i++) {
        uint16_t pair[2];
        for (uint32_t k = 0; k < 2; k++) {
            uint32_t from = TRANS ? 2 * t + k : g, column = TRANS ? g : 2 * t + k;
            pair[k] = ((const uint16_t *)(uintptr_t)all[8 * i + from].v[0])[column];
        }
        r[i] = pair[0] | (uint32_t)pair[1] << 16;
    }
    /* None goes on, and perhaps writes, before all have read. */
    cuda_host::exchange(cuda_host::OP_LDMATRIX, {});
}

KDEV void k_ldmatrix_x4(uint32_t r[4], const void *row)
{
    shim_ldmatrix<4, false>(r, row);
}

KDEV void k_ldmatrix_x2(uint32_t r[2], const void *row)
{
    shim_ldmatrix<2, false>(r, row);
}

KDEV void k_ldmatrix_x4_trans(uint32_t r[4], const void *row)
{
    shim_ldmatrix<4, true>(r, row);
}

KDEV void k_ldmatrix_x2_trans(uint32_t r[2], const void *row)
{
    shim_ldmatrix<2, true>(r, row);
}

/* A half shifted into a float's place is 2^-112 of its value. */
static inline float shim_fast_f16(uint32_t half)
{
    uint32_t magnitude = (half & 0x7fff) << 13, special = (half & 0x7c00) == 0x7c00;
    float v = float_of_bits(magnitude) * 0x1p112f;

    return float_of_bits(bits_of_float(v) | special * 0x7f800000u | (half & 0x8000) << 16);
}

/* Columns k .. k + 1 of a row, or rows of a column. */
template <bool BF16> static inline void shim_unpack(float out[2], uint32_t pair)
{
    out[0] = BF16 ? float_of_bits(pair << 16) : shim_fast_f16(pair & 0xffff);
    out[1] = BF16 ? float_of_bits(pair & 0xffff0000u) : shim_fast_f16(pair >> 16);
}

template <bool BF16>
static inline void shim_mma(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    uint32_t g = k_lane() / 4, t = k_lane() % 4;
    cuda_host::shown mine = { { a[0] | (uint64_t)a[1] << 32, a[2] | (uint64_t)a[3] << 32,
                                b[0] | (uint64_t)b[1] << 32 } };
    const cuda_host::shown *all = cuda_host::exchange(cuda_host::OP_MMA, mine);

    for (uint32_t k = 0; k < 8; k++) { /* pairs of columns of a */
        const cuda_host::shown *row = &all[4 * g + k % 4];
        const cuda_host::shown *cols[2] = { &all[4 * (2 * t) + k % 4],
                                            &all[4 * (2 * t + 1) + k % 4] };
        float x[2][2], y[2][2];
        for (uint32_t i = 0; i < 2; i++) {
            shim_unpack<BF16>(x[i], (uint32_t)(row->v[k / 4] >> 32 * i));
            shim_unpack<BF16>(y[i], (uint32_t)(cols[i]->v[2] >> 32 * (k / 4)));
        }
        for (uint32_t i = 0; i < 4; i++) {
            d[i] += x[i / 2][0] * y[i % 2][0];
            d[i] += x[i / 2][1] * y[i % 2][1];
        }
    }
}

KDEV void k_mma_m16n8k16_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma<false>(d, a, b);
}

KDEV void k_mma_m16n8k16_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    shim_mma<true>(d, a, b);
}

/* ---- integers ---- */

template <uint32_t Table> KDEV uint32_t k_lop3(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t d = 0;

    for (uint32_t i = 0; i < 8; i++)
        if (Table >> i & 1)
            d |= (i & 4 ? a : ~a) & (i & 2 ? b : ~b) & (i & 1 ? c : ~c);
    return d;
}

KDEV uint32_t k_byte_permute(uint32_t a, uint32_t b, uint32_t select)
{
    uint64_t bytes = a | (uint64_t)b << 32;
    uint32_t d = 0;

    for (uint32_t i = 0; i < 4; i++)
        d |= (uint32_t)(bytes >> 8 * (select >> 4 * i & 7) & 0xff) << 8 * i;
    return d;
}

KDEV int32_t k_dp4a(uint32_t a, uint32_t b, int32_t c)
{
    uint32_t sum = (uint32_t)c;

    for (uint32_t i = 0; i < 4; i++)
        sum += (uint32_t)((int8_t)(a >> 8 * i) * (int8_t)(b >> 8 * i));
    return (int32_t)sum;
}

KDEV uint32_t k_popcount(uint32_t v)
{
    return (uint32_t)__builtin_popcount(v);
}

KDEV uint32_t k_leading_zeros(uint32_t v)
{
    return v ? (uint32_t)__builtin_clz(v) : 32;
}

KDEV uint32_t k_mul_high(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

/* ---- functions of a float ---- */

KDEV float k_exp(float x)
{
    return std::exp(x);
}

KDEV float k_exp2(float x)
{
    return std::exp2(x);
}

KDEV float k_log(float x)
{
    return std::log(x);
}

KDEV float k_rsqrt(float x)
{
    return 1.0f / std::sqrt(x);
}

KDEV float k_divide(float a, float b)
{
    return a / b;
}

KDEV float k_tanh(float x)
{
    return std::tanh(x);
}

KDEV float k_fma(float a, float b, float c)
{
    return std::fma(a, b, c);
}

KDEV float k_mul_rn(float a, float b)
{
    return a * b;
}

KDEV float k_add_rn(float a, float b)
{
    return a + b;
}

KDEV int32_t k_round(float v)
{
    return (int32_t)std::lrint(v);
}

KDEV float k_min(float a, float b)
{
    return std::fmin(a, b);
}

KDEV float k_max(float a, float b)
{
    return std::fmax(a, b);
}

#endif
