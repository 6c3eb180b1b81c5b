/* limit_kernels.c - the loops of limit_kernels.h.
 *
 * Twelve independent accumulators hide the latency of every instruction here (4 or 5 cycles, two a cycle).
 * The mixes are the inner loops of a good kernel without loads and scales:
 *
 *   fp32      one FMA for 8 or 16 products
 *   4 bit     vpmaddubsw + vpaddw: nibbles times bytes, eight results fit 16 bits before they are widened
 *   8 bit     vpmaddubsw + vpmaddwd + vpaddd, or vpmaddwd + vpaddd of widened bytes, whichever is faster;
 *             with VNNI one vpdpbusd, for 4 bit too
 *   bf16      vdpbf16ps
 *   tiles     tdpbssd of AMX: bytes, tiles of 16 x 64 by 64 x 16, four sums in turn
 *
 * A product and its addition count as two operations. */
#include "bench/limit_kernels.h"

#include <string.h>

#include "gpu-worker/ops/amx.h"
#include "gpu-worker/ops/cpu_features.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { CHAINS = 12, READ_BYTES = 256 };

const char *limit_kind_name(enum limit_kind kind)
{
    static const char *const names[N_LIMIT_KINDS] = { "fp32", "bf16", "int4", "int8",
                                                      "int8 tiles" };

    return names[kind];
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#define TARGET(features) __attribute__((target(features)))

/* Hide a value from the optimiser, so that the loop neither folds nor goes away. */
#define OPAQUE(x) __asm__ volatile("" : "+v"(x))

#define LOOP(type, zero, step)                                                                     \
    type acc[CHAINS];                                                                              \
    _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++) acc[c] = zero;                       \
    for (uint64_t i = 0; i < iterations; i++) {                                                    \
        _Pragma("GCC unroll 12") for (int c = 0; c < CHAINS; c++)                                  \
        {                                                                                          \
            acc[c] = step;                                                                         \
            OPAQUE(acc[c]);                                                                        \
            OPAQUE(x);                                                                             \
        }                                                                                          \
    }

TARGET("avx2,fma") static void fp32_avx2(uint64_t iterations)
{
    __m256 x = _mm256_set1_ps(1e-9F), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m256, _mm256_setzero_ps(), _mm256_fmadd_ps(x, y, acc[c]))
}

TARGET("avx2") static void int4_avx2(uint64_t iterations)
{
    __m256i x = _mm256_set1_epi8(1), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_add_epi16(acc[c], _mm256_maddubs_epi16(x, y)))
}

TARGET("avx2") static void int8_avx2(uint64_t iterations)
{
    __m256i x = _mm256_set1_epi8(1), y = x, one = _mm256_set1_epi16(1);
    OPAQUE(x);
    OPAQUE(y);
    OPAQUE(one);
    LOOP(__m256i, _mm256_setzero_si256(),
         _mm256_add_epi32(acc[c], _mm256_madd_epi16(_mm256_maddubs_epi16(x, y), one)))
}

TARGET("avx2") static void int16_avx2(uint64_t iterations)
{
    __m256i x = _mm256_set1_epi16(1), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_add_epi32(acc[c], _mm256_madd_epi16(x, y)))
}

TARGET("avx512f") static void fp32_avx512(uint64_t iterations)
{
    __m512 x = _mm512_set1_ps(1e-9F), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m512, _mm512_setzero_ps(), _mm512_fmadd_ps(x, y, acc[c]))
}

TARGET("avx512f,avx512bw") static void int4_avx512(uint64_t iterations)
{
    __m512i x = _mm512_set1_epi8(1), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m512i, _mm512_setzero_si512(), _mm512_add_epi16(acc[c], _mm512_maddubs_epi16(x, y)))
}

TARGET("avx512f,avx512bw") static void int8_avx512(uint64_t iterations)
{
    __m512i x = _mm512_set1_epi8(1), y = x, one = _mm512_set1_epi16(1);
    OPAQUE(x);
    OPAQUE(y);
    OPAQUE(one);
    LOOP(__m512i, _mm512_setzero_si512(),
         _mm512_add_epi32(acc[c], _mm512_madd_epi16(_mm512_maddubs_epi16(x, y), one)))
}

TARGET("avx512f,avx512vnni") static void dot_avx512vnni(uint64_t iterations)
{
    __m512i x = _mm512_set1_epi8(1), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m512i, _mm512_setzero_si512(), _mm512_dpbusd_epi32(acc[c], x, y))
}

TARGET("avx2,avxvnni") static void dot_avxvnni(uint64_t iterations)
{
    __m256i x = _mm256_set1_epi8(1), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m256i, _mm256_setzero_si256(), _mm256_dpbusd_avx_epi32(acc[c], x, y))
}

TARGET("avx512f,avx512bf16") static void bf16_avx512(uint64_t iterations)
{
    __m512i x = _mm512_set1_epi16(0x3c00), y = x;
    OPAQUE(x);
    OPAQUE(y);
    LOOP(__m512, _mm512_setzero_ps(), _mm512_dpbf16_ps(acc[c], (__m512bh)x, (__m512bh)y))
}

TARGET("amx-tile,amx-int8") static void tiles_amx(uint64_t iterations)
{
    struct amx_config config = { .palette = 1 };

    for (int t = 0; t < 8; t++) {
        config.row_bytes[t] = 64;
        config.rows[t] = 16;
    }
    amx_reads(&config);
    _tile_loadconfig(&config); /* all tiles are zero now */
    for (uint64_t i = 0; i < iterations; i++) {
        _tile_dpbssd(0, 4, 5);
        _tile_dpbssd(1, 4, 6);
        _tile_dpbssd(2, 7, 5);
        _tile_dpbssd(3, 7, 6);
    }
    _tile_release();
}

/* __builtin_cpu_supports() also asks whether the system saves the registers. */
static bool can_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool can_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
}

static bool can_avx512vnni(void)
{
    return can_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool can_avx512bf16(void)
{
    return can_avx512() && __builtin_cpu_supports("avx512bf16");
}

/* CPUID leaf 7, sub-leaf 1, EAX bit 4 (Intel SDM volume 2A). */
static bool can_avxvnni(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;

    return can_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

static bool can_amx(void)
{
    return cpu_enable_tier(CPU_AMXINT8);
}

const struct limit_kernel limit_kernels[] = {
    { LIMIT_FP32, "vfmadd ymm", CHAINS * 16.0, fp32_avx2, can_avx2 },
    { LIMIT_FP32, "vfmadd zmm", CHAINS * 32.0, fp32_avx512, can_avx512 },
    { LIMIT_BF16, "vdpbf16ps zmm", CHAINS * 64.0, bf16_avx512, can_avx512bf16 },
    { LIMIT_INT4, "vpmaddubsw+vpaddw ymm", CHAINS * 64.0, int4_avx2, can_avx2 },
    { LIMIT_INT4, "vpmaddubsw+vpaddw zmm", CHAINS * 128.0, int4_avx512, can_avx512 },
    { LIMIT_INT4, "vpdpbusd ymm", CHAINS * 64.0, dot_avxvnni, can_avxvnni },
    { LIMIT_INT4, "vpdpbusd zmm", CHAINS * 128.0, dot_avx512vnni, can_avx512vnni },
    { LIMIT_INT8, "vpmaddubsw+vpmaddwd+vpaddd ymm", CHAINS * 64.0, int8_avx2, can_avx2 },
    { LIMIT_INT8, "vpmaddwd+vpaddd ymm", CHAINS * 32.0, int16_avx2, can_avx2 },
    { LIMIT_INT8, "vpmaddubsw+vpmaddwd+vpaddd zmm", CHAINS * 128.0, int8_avx512, can_avx512 },
    { LIMIT_INT8, "vpdpbusd ymm", CHAINS * 64.0, dot_avxvnni, can_avxvnni },
    { LIMIT_INT8, "vpdpbusd zmm", CHAINS * 128.0, dot_avx512vnni, can_avx512vnni },
    { LIMIT_TILES, "tdpbssd", 4 * 16 * 16 * 64 * 2.0, tiles_amx, can_amx },
};

TARGET("avx2") static void read_avx2(const char *p, size_t n)
{
    __m256i acc[READ_BYTES / 32];

    for (size_t k = 0; k < COUNT(acc); k++)
        acc[k] = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += READ_BYTES)
        _Pragma("GCC unroll 8") for (size_t k = 0; k < COUNT(acc); k++) acc[k] =
            _mm256_xor_si256(acc[k], _mm256_load_si256((const __m256i *)(p + i + 32 * k)));
    for (size_t k = 0; k < COUNT(acc); k++)
        OPAQUE(acc[k]);
}

#else
/* One chain of plain multiplications and additions a lane: what the compiler makes of C. */
static void fp32_plain(uint64_t iterations)
{
    volatile float seed = 1e-9F;
    float x = seed, acc[CHAINS] = { 0 };

    for (uint64_t i = 0; i < iterations; i++)
        for (int c = 0; c < CHAINS; c++)
            acc[c] = acc[c] * x + x;
    for (int c = 0; c < CHAINS; c++)
        seed = acc[c];
}

static bool can_always(void)
{
    return true;
}

const struct limit_kernel limit_kernels[] = {
    { LIMIT_FP32, "plain C", CHAINS * 2.0, fp32_plain, can_always },
};
#endif

const uint32_t n_limit_kernels = COUNT(limit_kernels);

static void read_plain(const char *p, size_t n)
{
    volatile uint64_t kept;
    uint64_t acc[8] = { 0 };

    for (size_t i = 0; i < n; i += sizeof acc) {
        uint64_t words[8];
        memcpy(words, p + i, sizeof words);
        for (int k = 0; k < 8; k++)
            acc[k] ^= words[k];
    }
    kept = acc[0] ^ acc[1] ^ acc[2] ^ acc[3] ^ acc[4] ^ acc[5] ^ acc[6] ^ acc[7];
    (void)kept;
}

void limit_read(const void *memory, size_t n)
{
#if defined(__x86_64__)
    if (can_avx2()) {
        read_avx2(memory, n);
        return;
    }
#endif
    read_plain(memory, n);
}
