/* tensor_type.c - one function a block format, and a table of them. */
#include "gpu-worker/load/tensor_type.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "blocks are read as they lie in the file");

enum { SMALL = 32, LARGE = 256 }; /* elements a block */

/* The codes of a block's elements. */
typedef void codes_fn(int8_t *q, const uint8_t *b);

static uint16_t load16(const uint8_t *b)
{
    uint16_t v;

    memcpy(&v, b, sizeof v);
    return v;
}

static uint32_t load32(const uint8_t *b)
{
    uint32_t v;

    memcpy(&v, b, sizeof v);
    return v;
}

static float load_f16(const uint8_t *b)
{
    return f16_to_float(load16(b));
}

/* ---- codes of the blocks of 32 ----
 *
 * In all of them byte j of the nibbles holds element j in its low half and element j + 16 in its high. */

static void nibbles(int8_t *q, const uint8_t *b)
{
    for (int j = 0; j < SMALL / 2; j++) {
        q[j] = (int8_t)(b[j] & 15);
        q[j + SMALL / 2] = (int8_t)(b[j] >> 4);
    }
}

/* Bit j of the four bytes before the nibbles is the fifth bit of element j. */
static void five_bits(int8_t *q, const uint8_t *b)
{
    uint32_t high = load32(b);

    nibbles(q, b + 4);
    for (int j = 0; j < SMALL; j++)
        q[j] = (int8_t)(q[j] | (high >> j & 1) << 4);
}

static void shift(int8_t *q, int by)
{
    for (int j = 0; j < SMALL; j++)
        q[j] = (int8_t)(q[j] - by);
}

static void q4_0_codes(int8_t *q, const uint8_t *b)
{
    nibbles(q, b + 2);
    shift(q, 8);
}

static void q8_0_codes(int8_t *q, const uint8_t *b)
{
    memcpy(q, b + 2, SMALL);
}

static void iq4_nl_codes(int8_t *q, const uint8_t *b)
{
    static const int8_t values[16] = { -127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113 };

    nibbles(q, b + 2);
    for (int j = 0; j < SMALL; j++)
        q[j] = values[q[j]];
}

static void q4_1_codes(int8_t *q, const uint8_t *b)
{
    nibbles(q, b + 4);
}

static void q5_0_unsigned_codes(int8_t *q, const uint8_t *b)
{
    five_bits(q, b + 2);
}

static void q5_1_codes(int8_t *q, const uint8_t *b)
{
    five_bits(q, b + 4);
}

/* ---- their numbers ---- */

static void small_scale(uint16_t *to, const uint8_t *b)
{
    to[0] = load16(b);
}

static void small_scale_min(uint16_t *to, const uint8_t *b)
{
    to[0] = load16(b);
    to[1] = load16(b + 2);
}

/* d * (q - 16) with q as the code. */
static void q5_0_scale_min(uint16_t *to, const uint8_t *b)
{
    to[0] = load16(b);
    to[1] = float_to_f16(-16 * load_f16(b));
}

/* ---- floats of the blocks of 32 ---- */

static void scale_codes(float *y, const int8_t *q, float d)
{
    for (int j = 0; j < SMALL; j++)
        y[j] = d * (float)q[j];
}

static void scaled_floats(float *y, const uint8_t *b, codes_fn *codes)
{
    int8_t q[SMALL];

    codes(q, b);
    scale_codes(y, q, load_f16(b));
}

static void scaled_floats_from_min(float *y, const uint8_t *b, codes_fn *codes)
{
    float d = load_f16(b), min = load_f16(b + 2);
    int8_t q[SMALL];

    codes(q, b);
    for (int j = 0; j < SMALL; j++)
        y[j] = d * (float)q[j] + min;
}

static void q4_0_floats(float *y, const uint8_t *b)
{
    scaled_floats(y, b, q4_0_codes);
}

static void q5_0_floats(float *y, const uint8_t *b)
{
    int8_t q[SMALL];

    q5_0_unsigned_codes(q, b);
    shift(q, 16);
    scale_codes(y, q, load_f16(b));
}

static void q8_0_floats(float *y, const uint8_t *b)
{
    scaled_floats(y, b, q8_0_codes);
}

static void iq4_nl_floats(float *y, const uint8_t *b)
{
    scaled_floats(y, b, iq4_nl_codes);
}

static void q4_1_floats(float *y, const uint8_t *b)
{
    scaled_floats_from_min(y, b, q4_1_codes);
}

static void q5_1_floats(float *y, const uint8_t *b)
{
    scaled_floats_from_min(y, b, q5_1_codes);
}

/* ---- blocks of 256 ----
 *
 * The bits of an element lie apart: low ones in one array, high ones in another, and an array's byte serves
 * elements 32 (or 16, 64, 128) apart.  The loops follow the bytes. */

enum { GROUPS_MAX = LARGE / 16 };

/* What the elements of a group of 16 or 32 share: scale * q - min. */
struct groups {
    float scale[GROUPS_MAX], min[GROUPS_MAX];
};

typedef void groups_fn(struct groups *g, const uint8_t *b);

/* group: elements in one. */
static void group_floats(float *y, const uint8_t *b, codes_fn *codes, groups_fn *groups, int group,
                         bool has_min)
{
    int8_t q[LARGE];
    struct groups g;

    codes(q, b);
    groups(&g, b);
    for (int i = 0; i < LARGE / group; i++)
        for (int j = i * group; j < (i + 1) * group; j++)
            y[j] = has_min ? g.scale[i] * (float)q[j] - g.min[i] : g.scale[i] * (float)q[j];
}

/* For each 32 elements scale and minimum, or the scales of both halves. */
static void group_numbers(uint16_t *to, const uint8_t *b, groups_fn *groups, bool has_min)
{
    struct groups g;

    groups(&g, b);
    for (int i = 0; i < GROUPS_MAX; i++)
        to[i] = float_to_f16(!has_min ? g.scale[i] : i % 2 ? -g.min[i / 2] : g.scale[i / 2]);
}

/* bytes: 16 of scale (low half) and minimum (high half), one for 16 elements; 64 of four 2-bit elements,
 * 32 apart; d; dmin. */
static void q2_k_floats(float *y, const uint8_t *b)
{
    const uint8_t *sm = b, *q = b + 16;
    float d = load_f16(b + 80), dmin = load_f16(b + 82);

    for (int i = 0; i < LARGE / 16; i++) { /* 16 elements */
        const uint8_t *from = q + i / 8 * 32 + i % 2 * 16;
        float scale = d * (float)(sm[i] & 15), min = dmin * (float)(sm[i] >> 4);
        int at = i % 8 / 2 * 2;
        for (int j = 0; j < 16; j++)
            y[i * 16 + j] = scale * (float)(from[j] >> at & 3) - min;
    }
}

/* Sixteen scales of 6 bits in 12 bytes: the low halves of 0..7 and 8..15 in the halves of bytes 0..7, the
 * upper two bits of i in byte 8 + i % 4, those of i / 4 = 0 lowest. */
static int q3_k_scale(const uint8_t *s, int i)
{
    int low = i < 8 ? s[i] & 15 : s[i - 8] >> 4;

    return (low | (s[8 + i % 4] >> i / 4 * 2 & 3) << 4) - 32;
}

/* bytes: 32 of third bits, bit i for run i of 32 elements, set: add 4; 64 as in Q2_K; 12 of scales; d. */
static void q3_k_codes(int8_t *code, const uint8_t *b)
{
    const uint8_t *high = b, *q = b + 32;

    for (int i = 0; i < LARGE / 16; i++) {
        const uint8_t *from = q + i / 8 * 32 + i % 2 * 16, *bit = high + i % 2 * 16;
        int at = i % 8 / 2 * 2;
        for (int j = 0; j < 16; j++)
            code[i * 16 + j] = (int8_t)((from[j] >> at & 3) + (bit[j] >> i / 2 & 1) * 4 - 4);
    }
}

static void q3_k_groups(struct groups *g, const uint8_t *b)
{
    for (int i = 0; i < LARGE / 16; i++)
        g->scale[i] = load_f16(b + 108) * (float)q3_k_scale(b + 96, i);
}

static void q3_k_floats(float *y, const uint8_t *b)
{
    group_floats(y, b, q3_k_codes, q3_k_groups, 16, false);
}

static void q3_k_numbers(uint16_t *to, const uint8_t *b)
{
    group_numbers(to, b, q3_k_groups, false);
}

struct scale_min {
    uint8_t scale, min;
};

/* Eight scales and eight minimums of 6 bits in 12 bytes: 0..3 whole in bytes 0..3 and 4..7, whose upper two
 * bits are the upper two of 4..7; the lower four of those in the halves of bytes 8..11. */
static struct scale_min k_scale_min(const uint8_t *s, int i)
{
    if (i < 4)
        return (struct scale_min){ s[i] & 63, s[i + 4] & 63 };
    return (struct scale_min){ (uint8_t)((s[i + 4] & 15) | s[i - 4] >> 6 << 4),
                               (uint8_t)(s[i + 4] >> 4 | s[i] >> 6 << 4) };
}

/* Of Q4_K and Q5_K, groups of 32. */
static void k_groups(struct groups *g, const uint8_t *b)
{
    float d = load_f16(b), dmin = load_f16(b + 2);

    for (int i = 0; i < LARGE / 32; i++) {
        struct scale_min sm = k_scale_min(b + 4, i);
        g->scale[i] = d * (float)sm.scale;
        g->min[i] = dmin * (float)sm.min;
    }
}

static void k_numbers(uint16_t *to, const uint8_t *b)
{
    group_numbers(to, b, k_groups, true);
}

/* bytes: d; dmin; 12 of scales and minimums, one for 32 elements; 128 of two elements, 32 apart. */
static void q4_k_codes(int8_t *q, const uint8_t *b)
{
    for (int i = 0; i < LARGE / 32; i++) {
        const uint8_t *from = b + 16 + i / 2 * 32;
        int at = i % 2 * 4;
        for (int j = 0; j < 32; j++)
            q[i * 32 + j] = (int8_t)(from[j] >> at & 15);
    }
}

static void q4_k_floats(float *y, const uint8_t *b)
{
    group_floats(y, b, q4_k_codes, k_groups, 32, true);
}

/* bytes: d; dmin; 12 as in Q4_K; 32 of fifth bits, bit i for run i of 32 elements; 128 as in Q4_K. */
static void q5_k_codes(int8_t *q, const uint8_t *b)
{
    const uint8_t *high = b + 16;

    for (int i = 0; i < LARGE / 32; i++) {
        const uint8_t *from = b + 48 + i / 2 * 32;
        int at = i % 2 * 4;
        for (int j = 0; j < 32; j++)
            q[i * 32 + j] = (int8_t)((from[j] >> at & 15) | (high[j] >> i & 1) << 4);
    }
}

static void q5_k_floats(float *y, const uint8_t *b)
{
    group_floats(y, b, q5_k_codes, k_groups, 32, true);
}

/* bytes: 128 of low halves, a byte for elements 64 apart; 64 of upper two bits, a byte for four elements 32
 * apart; 16 int8 scales, one for 16 elements; d. */
static void q6_k_codes(int8_t *q, const uint8_t *b)
{
    for (int i = 0; i < LARGE / 16; i++) {
        int half = i / 8, run = i % 8 / 2; /* of 128, of 32 elements */
        const uint8_t *low = b + half * 64 + run % 2 * 32 + i % 2 * 16;
        const uint8_t *high = b + 128 + half * 32 + i % 2 * 16;
        for (int j = 0; j < 16; j++)
            q[i * 16 + j] =
                (int8_t)(((low[j] >> run / 2 * 4 & 15) | (high[j] >> run * 2 & 3) << 4) - 32);
    }
}

static void q6_k_groups(struct groups *g, const uint8_t *b)
{
    const int8_t *scales = (const int8_t *)b + 192;

    for (int i = 0; i < LARGE / 16; i++)
        g->scale[i] = load_f16(b + 208) * (float)scales[i];
}

static void q6_k_floats(float *y, const uint8_t *b)
{
    group_floats(y, b, q6_k_codes, q6_k_groups, 16, false);
}

static void q6_k_numbers(uint16_t *to, const uint8_t *b)
{
    group_numbers(to, b, q6_k_groups, false);
}

/* ---- plain types ---- */

static bool plain_floats(enum tensor_type t, float *y, const uint8_t *b, uint64_t n)
{
    switch (t) {
    case TENSOR_F32:
        memcpy(y, b, n * sizeof *y);
        return true;
    case TENSOR_F16:
        for (uint64_t i = 0; i < n; i++)
            y[i] = load_f16(b + i * 2);
        return true;
    case TENSOR_BF16:
        for (uint64_t i = 0; i < n; i++)
            y[i] = bf16_to_float(load16(b + i * 2));
        return true;
    default:
        return false;
    }
}

/* ---- the table ---- */

struct format {
    const char *name;
    uint32_t block, bytes;
    void (*floats)(float *y, const uint8_t *b); /* one block; NULL: plain */
    /* A block as codes, where it can be given so, with n_numbers float16 for each 32. */
    codes_fn *codes;
    void (*numbers)(uint16_t *to, const uint8_t *b);
    uint32_t n_numbers;
};

static const struct format formats[N_TENSOR_TYPES] = {
    [TENSOR_NONE] = { "none", 1, 0, NULL, NULL, NULL, 0 },
    [TENSOR_F32] = { "F32", 1, 4, NULL, NULL, NULL, 0 },
    [TENSOR_F16] = { "F16", 1, 2, NULL, NULL, NULL, 0 },
    [TENSOR_BF16] = { "BF16", 1, 2, NULL, NULL, NULL, 0 },
    [TENSOR_Q8_0] = { "Q8_0", SMALL, 34, q8_0_floats, q8_0_codes, small_scale, 1 },
    [TENSOR_Q4_0] = { "Q4_0", SMALL, 18, q4_0_floats, q4_0_codes, small_scale, 1 },
    [TENSOR_Q4_1] = { "Q4_1", SMALL, 20, q4_1_floats, q4_1_codes, small_scale_min, 2 },
    [TENSOR_Q5_0] = { "Q5_0", SMALL, 22, q5_0_floats, q5_0_unsigned_codes, q5_0_scale_min, 2 },
    [TENSOR_Q5_1] = { "Q5_1", SMALL, 24, q5_1_floats, q5_1_codes, small_scale_min, 2 },
    [TENSOR_Q2_K] = { "Q2_K", LARGE, 84, q2_k_floats, NULL, NULL, 0 },
    [TENSOR_Q3_K] = { "Q3_K", LARGE, 110, q3_k_floats, q3_k_codes, q3_k_numbers, 2 },
    [TENSOR_Q4_K] = { "Q4_K", LARGE, 144, q4_k_floats, q4_k_codes, k_numbers, 2 },
    [TENSOR_Q5_K] = { "Q5_K", LARGE, 176, q5_k_floats, q5_k_codes, k_numbers, 2 },
    [TENSOR_Q6_K] = { "Q6_K", LARGE, 210, q6_k_floats, q6_k_codes, q6_k_numbers, 2 },
    [TENSOR_IQ4_NL] = { "IQ4_NL", SMALL, 18, iq4_nl_floats, iq4_nl_codes, small_scale, 1 },
    [TENSOR_INT4] = { "INT4", 1, 0, NULL, NULL, NULL, 1 },
    [TENSOR_INT4Z] = { "INT4Z", 1, 0, NULL, NULL, NULL, 2 },
    [TENSOR_INT8] = { "INT8", 1, 0, NULL, NULL, NULL, 1 },
    [TENSOR_INT_MIXED] = { "INT_MIXED", 1, 0, NULL, NULL, NULL, 0 },
    [TENSOR_FP8_ROWS] = { "FP8_ROWS", 1, 0, NULL, NULL, NULL, 0 },
    [TENSOR_FP8] = { "FP8", 1, 0, NULL, NULL, NULL, 0 },
};

static const struct format *format_of(enum tensor_type t)
{
    assert((unsigned)t < N_TENSOR_TYPES);
    return &formats[t];
}

const char *tensor_type_name(enum tensor_type t)
{
    return format_of(t)->name;
}

uint32_t tensor_type_block(enum tensor_type t)
{
    return format_of(t)->block;
}

uint64_t tensor_type_bytes(enum tensor_type t, uint64_t n)
{
    const struct format *f = format_of(t);
    uint64_t bytes;

    assert(n % f->block == 0);
    return __builtin_mul_overflow(n / f->block, f->bytes, &bytes) ? UINT64_MAX : bytes;
}

void tensor_type_to_float(enum tensor_type t, float *y, const void *x, uint64_t n)
{
    const struct format *f = format_of(t);
    const uint8_t *b = x;

    if (plain_floats(t, y, x, n))
        return;
    assert(n % f->block == 0 && f->floats);
    for (uint64_t i = 0; i < n; i += f->block, b += f->bytes)
        f->floats(y + i, b);
}

uint32_t tensor_type_numbers(enum tensor_type t)
{
    return format_of(t)->n_numbers;
}

void tensor_type_to_codes(enum tensor_type t, int8_t *codes, uint16_t *numbers, const void *x,
                          uint64_t n)
{
    const struct format *f = format_of(t);
    const uint8_t *b = x;

    assert(f->codes && n % f->block == 0);
    for (uint64_t i = 0; i < n; i += f->block, b += f->bytes) {
        f->codes(codes + i, b);
        f->numbers(numbers + i / TENSOR_TYPE_CODES_GROUP * f->n_numbers, b);
    }
}
