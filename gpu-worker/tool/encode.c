/* encode.c - see encode.h.  Block layouts are those in tensor_type.h. */
#include "gpu-worker/tool/encode.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

enum { BLOCK = 32, CANDIDATES = 9, ROUNDS = 3 };

bool encode_can(enum tensor_type t)
{
    return t == TENSOR_F32 || t == TENSOR_F16 || t == TENSOR_BF16 || t == TENSOR_Q8_0 ||
           t == TENSOR_Q4_0 || t == TENSOR_Q4_1 || t == TENSOR_Q5_0 || t == TENSOR_Q5_1;
}

static float clamp(float v, float low, float high)
{
    return v < low ? low : v > high ? high : v;
}

static uint16_t f16_of(float v)
{
    return float_to_f16(clamp(v, -65504, 65504));
}

/* ---- a scale alone: x = d * q, q in low..high ---- */

struct scaled {
    float d; /* as float16 holds it */
    int8_t q[BLOCK];
    double error;
};

static void round_scaled(struct scaled *s, const float *x, float d, int low, int high)
{
    s->d = f16_to_float(f16_of(d));
    s->error = 0;
    for (int i = 0; i < BLOCK; i++) {
        float q = s->d != 0 ? clamp(rintf(x[i] / s->d), (float)low, (float)high) : 0;
        double off = (double)x[i] - (double)s->d * (double)q;
        s->q[i] = (int8_t)q;
        s->error += off * off;
    }
}

/* The d that fits these codes best. */
static float refit(const struct scaled *s, const float *x)
{
    double xq = 0, qq = 0;

    for (int i = 0; i < BLOCK; i++) {
        xq += (double)x[i] * s->q[i];
        qq += (double)s->q[i] * s->q[i];
    }
    return qq > 0 ? (float)(xq / qq) : 0;
}

static float extreme(const float *x)
{
    float most = 0;

    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(most))
            most = x[i];
    return most;
}

/* The element of largest magnitude gets the code `low`, which reaches one further than `high`. */
static void fit_scaled(struct scaled *best, const float *x, int low, int high)
{
    float most = extreme(x);
    struct scaled s;

    round_scaled(best, x, most / (float)low, low, high);
    for (int k = 0; k < CANDIDATES; k++) {
        round_scaled(&s, x, most / ((float)low + 0.25f * (float)(k - CANDIDATES / 2)), low, high);
        if (s.error < best->error)
            *best = s;
    }
    for (int k = 0; k < ROUNDS; k++) {
        round_scaled(&s, x, refit(best, x), low, high);
        if (s.error >= best->error)
            break;
        *best = s;
    }
}

/* ---- a scale and a minimum: x = d * q + m, q in 0..high ---- */

struct shifted {
    float d, m;
    uint8_t q[BLOCK];
    double error;
};

static void round_shifted(struct shifted *s, const float *x, float d, float m, int high)
{
    s->d = f16_to_float(f16_of(d));
    s->m = f16_to_float(f16_of(m));
    s->error = 0;
    for (int i = 0; i < BLOCK; i++) {
        float q = s->d != 0 ? clamp(rintf((x[i] - s->m) / s->d), 0, (float)high) : 0;
        double off = (double)x[i] - ((double)s->d * (double)q + (double)s->m);
        s->q[i] = (uint8_t)q;
        s->error += off * off;
    }
}

/* The line through these codes that fits best; false when all codes are one. */
static bool refit_line(const struct shifted *s, const float *x, float *d, float *m)
{
    double sx = 0, sq = 0, sqq = 0, sxq = 0, det;

    for (int i = 0; i < BLOCK; i++) {
        sx += (double)x[i];
        sq += s->q[i];
        sqq += (double)s->q[i] * s->q[i];
        sxq += (double)x[i] * s->q[i];
    }
    det = BLOCK * sqq - sq * sq;
    if (det <= 0)
        return false;
    *d = (float)((BLOCK * sxq - sx * sq) / det);
    *m = (float)((sx - (double)*d * sq) / BLOCK);
    return true;
}

static void fit_shifted(struct shifted *best, const float *x, int high)
{
    float low = x[0], top = x[0], d, m;
    struct shifted s;

    for (int i = 1; i < BLOCK; i++) {
        low = x[i] < low ? x[i] : low;
        top = x[i] > top ? x[i] : top;
    }
    round_shifted(best, x, (top - low) / (float)high, low, high);
    for (int k = 1; k < CANDIDATES; k++) { /* what lies outside is cut to the ends */
        float cut = (top - low) * 0.02f * (float)k;
        round_shifted(&s, x, (top - low - 2 * cut) / (float)high, low + cut, high);
        if (s.error < best->error)
            *best = s;
    }
    for (int k = 0; k < ROUNDS && refit_line(best, x, &d, &m); k++) {
        round_shifted(&s, x, d, m, high);
        if (s.error >= best->error)
            break;
        *best = s;
    }
}

/* ---- blocks ---- */

static unsigned char *put16(unsigned char *out, float v)
{
    uint16_t h = f16_of(v);

    memcpy(out, &h, sizeof h);
    return out + sizeof h;
}

/* Elements i and i + 16 share a byte. */
static void put_nibbles(unsigned char *out, const uint8_t *q)
{
    for (int i = 0; i < BLOCK / 2; i++)
        out[i] = (unsigned char)((q[i] & 15) | (q[i + BLOCK / 2] & 15) << 4);
}

static unsigned char *put_fifth_bits(unsigned char *out, const uint8_t *q)
{
    uint32_t high = 0;

    for (int i = 0; i < BLOCK; i++)
        high |= (uint32_t)(q[i] >> 4 & 1) << i;
    memcpy(out, &high, sizeof high);
    return out + sizeof high;
}

static void encode_q8_0(unsigned char *out, const float *x)
{
    struct scaled s;

    round_scaled(&s, x, fabsf(extreme(x)) / 127, -127, 127);
    memcpy(put16(out, s.d), s.q, BLOCK);
}

static void encode_q4_0(unsigned char *out, const float *x)
{
    struct scaled s;
    uint8_t q[BLOCK];

    fit_scaled(&s, x, -8, 7);
    for (int i = 0; i < BLOCK; i++)
        q[i] = (uint8_t)(s.q[i] + 8);
    put_nibbles(put16(out, s.d), q);
}

static void encode_q5_0(unsigned char *out, const float *x)
{
    struct scaled s;
    uint8_t q[BLOCK];

    fit_scaled(&s, x, -16, 15);
    for (int i = 0; i < BLOCK; i++)
        q[i] = (uint8_t)(s.q[i] + 16);
    put_nibbles(put_fifth_bits(put16(out, s.d), q), q);
}

static void encode_q4_1(unsigned char *out, const float *x)
{
    struct shifted s;

    fit_shifted(&s, x, 15);
    put_nibbles(put16(put16(out, s.d), s.m), s.q);
}

static void encode_q5_1(unsigned char *out, const float *x)
{
    struct shifted s;

    fit_shifted(&s, x, 31);
    put_nibbles(put_fifth_bits(put16(put16(out, s.d), s.m), s.q), s.q);
}

static void encode_plain(enum tensor_type t, unsigned char *out, const float *x, uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        uint16_t h = t == TENSOR_F16 ? f16_of(x[i]) : float_to_bf16(x[i]);
        memcpy(out + 2 * i, &h, sizeof h);
    }
}

void encode_row(enum tensor_type t, void *out, const float *x, uint64_t n)
{
    static void (*const blocks[N_TENSOR_TYPES])(unsigned char *, const float *) = {
        [TENSOR_Q8_0] = encode_q8_0, [TENSOR_Q4_0] = encode_q4_0, [TENSOR_Q4_1] = encode_q4_1,
        [TENSOR_Q5_0] = encode_q5_0, [TENSOR_Q5_1] = encode_q5_1,
    };
    unsigned char *to = out;

    assert(encode_can(t) && n % tensor_type_block(t) == 0);
    if (t == TENSOR_F32)
        memcpy(out, x, n * sizeof *x);
    else if (!blocks[t])
        encode_plain(t, out, x, n);
    else
        for (uint64_t i = 0; i < n; i += BLOCK, to += tensor_type_bytes(t, BLOCK))
            blocks[t](to, x + i);
}
