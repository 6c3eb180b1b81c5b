/* attention_device.h - what the attention kernels share: device code.
 *
 * How they find K and V of a position and read them, what makes a score of a product, and how sums are put
 * together.  Eight neighbouring elements are read at once, one load of 16 bytes (f16), two (f32) or one of 8 bytes (int8,
 * fp8), and unpacked where they are used, so that what waits in registers is small. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_ATTENTION_DEVICE_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_ATTENTION_DEVICE_H

#include "gpu-worker/cuda/kernels/attention.h"
#include "gpu-worker/cuda/kernels/port.h"

#define ATTENTION_LOG2E 1.4426950408889634f

/* ---- the plan ---- */

template <class T> KDEV const T *plan_list(const attention_header *plan, uint32_t offset)
{
    return reinterpret_cast<const T *>(reinterpret_cast<const char *>(plan) + offset);
}

/* ---- a KV head ---- */

/* The format of a kernel that looks for it in the plan. */
enum { KV_ANY = N_KV_FORMATS };

struct kv_head {
    const char *k; /* its codes in page 0 */
    uint64_t k_to_v;
    const uint32_t *pages; /* of the sequence */
    uint32_t format;
};

KDEV kv_head kv_head_of(const attention_args &a, uint32_t pages, uint32_t head)
{
    uint32_t format = a.plan->format;
    const char *tile = a.kv + a.k_offset + head * a.head_bytes;

    return { tile + kv_scales_bytes(format, a.page_tokens), a.v_offset - a.k_offset,
             plan_list<uint32_t>(a.plan, a.plan->pages_offset) + pages, format };
}

/* Of one position: its row of K, and for int8 where its scale lies.  V is k_to_v further. */
struct kv_row {
    const char *k;
    const char *k_scale;
};

template <int KV>
KDEV kv_row kv_find(const attention_args &a, const kv_head &head, uint32_t position)
{
    uint32_t bytes = kv_element_bytes(KV == KV_ANY ? head.format : (uint32_t)KV);
    uint32_t page = a.page_magic ? k_mul_high(position, a.page_magic) : position;
    uint32_t slot = position - page * a.page_tokens;
    const char *codes = head.k + k_ldg_u32(head.pages + page) * a.page_bytes;

    return { codes + slot * a.head_dim * bytes, codes - (a.page_tokens - slot) * sizeof(float) };
}

/* What numbers are multiplied by. */
template <int KV> KDEV float kv_scale(const kv_head &head, const char *scale, float of_all)
{
    uint32_t format = KV == KV_ANY ? head.format : (uint32_t)KV;

    if (format == KV_I8)
        return k_ldg_f32(reinterpret_cast<const float *>(scale));
    return format == KV_E4M3 ? of_all : 1;
}

/* ---- numbers ---- */

/* Byte i of four, signed and biased by 128, as a float: the mantissa of 2^23 + byte. */
KDEV float biased_byte(uint32_t bytes, uint32_t i)
{
    return k_bits_f32(k_byte_permute(bytes, 0x4b000000, 0x7440 + i)) - 8388736.0f;
}

KDEV float kv_element(uint32_t format, const char *row, uint32_t i)
{
    const uint8_t *bytes = reinterpret_cast<const uint8_t *>(row);

    if (format == KV_F32)
        return k_ldg_f32(reinterpret_cast<const float *>(row) + i);
    if (format == KV_F16)
        return k_f16_to_f32(k_ldg_u16(reinterpret_cast<const uint16_t *>(row) + i));
    return format == KV_I8 ? (float)(int8_t)k_ldg_u8(bytes + i)
                           : k_e4m3_to_f32(k_ldg_u8(bytes + i));
}

/* Eight elements as they lie in memory; all bits zero is eight zeros. */
template <int KV> struct kv8 {
    static constexpr int WORDS = KV == KV_F32 ? 8 : KV == KV_F16 ? 4 : 2;
    uint32_t w[WORDS];
};

template <int KV> KDEV kv8<KV> kv8_load(const char *p)
{
    kv8<KV> r;

    if constexpr (kv8<KV>::WORDS == 2) {
        k_u32x2 x = k_ldg8(p);
        r.w[0] = x.v[0];
        r.w[1] = x.v[1];
    } else {
        KUNROLL
        for (int i = 0; i < kv8<KV>::WORDS; i += 4) {
            k_u32x4 x = k_ldg16(p + 4 * i);
            KUNROLL
            for (int j = 0; j < 4; j++)
                r.w[i + j] = x.v[j];
        }
    }
    return r;
}

template <int KV> KDEV void kv8_floats(float x[8], const kv8<KV> &r)
{
    KUNROLL
    for (int i = 0; i < 8; i += 2) {
        if constexpr (KV == KV_F32) {
            x[i] = k_bits_f32(r.w[i]);
            x[i + 1] = k_bits_f32(r.w[i + 1]);
        } else if constexpr (KV == KV_I8) {
            x[i] = biased_byte(r.w[i / 4] ^ 0x80808080, i % 4);
            x[i + 1] = biased_byte(r.w[i / 4] ^ 0x80808080, i % 4 + 1);
        } else {
            uint32_t pair =
                KV == KV_F16 ? r.w[i / 2] : k_e4m3x2_to_f16x2((uint16_t)(r.w[i / 4] >> i % 4 * 8));
            x[i] = k_f16_low(pair);
            x[i + 1] = k_f16_high(pair);
        }
    }
}

/* The same as f16, two a word: int8 its codes, without their scale.  All exact. */
template <int KV> KDEV void kv8_halves(uint32_t x[4], const kv8<KV> &r)
{
    static_assert(KV != KV_F32, "would be rounded");
    KUNROLL
    for (uint32_t i = 0; i < 4; i++) {
        if constexpr (KV == KV_F16)
            x[i] = r.w[i];
        else if constexpr (KV == KV_E4M3)
            x[i] = k_e4m3x2_to_f16x2((uint16_t)(r.w[i / 2] >> i % 2 * 16));
        else /* the fraction of 1024 + biased byte */
            x[i] = k_f16x2_sub(
                k_byte_permute(r.w[i / 2] ^ 0x80808080, 0x64646464, 0x4140 + i % 2 * 0x0202),
                0x64806480);
    }
}

/* ---- scores ---- */

/* From q . k to a score whose exponential is of base 2. */
struct score_factors {
    float in;  /* softcap 0: the score is in * x */
    float cap; /* else cap * tanh(in * x) */
};

KDEV score_factors score_factors_of(const attention_args &a)
{
    if (a.softcap == 0)
        return { a.scale * ATTENTION_LOG2E, 0 };
    return { a.scale / a.softcap, a.softcap * ATTENTION_LOG2E };
}

KDEV float score_of(const score_factors &f, float x)
{
    x *= f.in;
    return f.cap == 0 ? x : f.cap * k_tanh(x);
}

/* A query at `last` sees the positions p with last - p below this (p > last gives a number above it). */
KDEV uint32_t span_of(const attention_args &a)
{
    return a.window ? a.window : (uint32_t)1 << 31;
}

/* The first it sees. */
KDEV uint32_t first_seen(uint32_t last, uint32_t span)
{
    return last + 1 > span ? last + 1 - span : 0;
}

/* ---- sums ---- */

/* Largest score, sum of exp2(score - largest), and a value weighted by that: *largest, *sum, *value with the second
 * ones added.  What is empty (-infinity, 0, 0) changes nothing. */
KDEV void fold(float *largest, float *sum, float *value, float largest2, float sum2, float value2)
{
    float both = k_max(*largest, largest2), old, more;

    if (both == -INFINITY)
        return;
    old = k_exp2(*largest - both);
    more = k_exp2(largest2 - both);
    *sum = k_fma(*sum, old, sum2 * more);
    *value = k_fma(*value, old, value2 * more);
    *largest = both;
}

KDEV float *partial_at(const attention_args &a, uint32_t slot)
{
    uint32_t floats = ATTENTION_SUMS + (a.head_dim + 3) / 4 * 4;

    return a.partials + ((uint64_t)slot * a.n_kv_heads + blockIdx.y) * floats;
}

/* ---- rows of a tensor core's accumulator: lane / 4 and lane / 4 + 8 of 16 ---- */

template <int D> struct tile_sums {
    float largest[2], sum[2]; /* sum: of the lane's columns */
    float values[D / 8][4];   /* two columns of the first row, two of the second */
};

template <int D> KDEV void tile_sums_begin(tile_sums<D> &s)
{
    s.largest[0] = s.largest[1] = -INFINITY;
    s.sum[0] = s.sum[1] = 0;
    KUNROLL
    for (int n = 0; n < D / 8; n++)
        KUNROLL
    for (int r = 0; r < 4; r++)
        s.values[n][r] = 0;
}

/* Scores of 8 * TILES positions become weights; what was summed up shrinks to the new largest score. */
template <int TILES, int D> KDEV void tile_soften(tile_sums<D> &s, float scores[TILES][4])
{
    KUNROLL
    for (int half = 0; half < 2; half++) {
        float largest = s.largest[half], base, shrink, total = 0;
        KUNROLL
        for (int n = 0; n < TILES; n++)
            largest = k_max(largest, k_max(scores[n][2 * half], scores[n][2 * half + 1]));
        largest = k_max(largest, k_shfl_xor(largest, 1));
        largest = k_max(largest, k_shfl_xor(largest, 2));
        base = largest == -INFINITY ? 0 : largest;
        shrink = k_exp2(s.largest[half] - base);
        KUNROLL
        for (int n = 0; n < TILES; n++)
            KUNROLL
        for (int r = 2 * half; r < 2 * half + 2; r++) {
            scores[n][r] = k_exp2(scores[n][r] - base);
            total += scores[n][r];
        }
        s.largest[half] = largest;
        s.sum[half] = k_fma(s.sum[half], shrink, total);
        KUNROLL
        for (int n = 0; n < D / 8; n++) {
            s.values[n][2 * half] *= shrink;
            s.values[n][2 * half + 1] *= shrink;
        }
    }
}

/* ---- an item ---- */

KDEV uint32_t row_of(const attention_args &a, const attention_item &item, uint32_t query)
{
    return (item.query_begin + query) / (a.n_heads / a.n_kv_heads);
}

/* Where the head of a query begins in a row of q and of out. */
KDEV uint32_t column_of(const attention_args &a, const attention_item &item, uint32_t query)
{
    uint32_t group = a.n_heads / a.n_kv_heads;

    return (blockIdx.y * group + (item.query_begin + query) % group) * a.head_dim;
}

#endif
