/* candidates.c - weights, filters and the draw. */
#include "gpu-worker/candidates.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { LANES = 16, BUCKET_SHIFT = 20 }; /* a bucket: same exponent, same 3 upper mantissa bits */

void candidates_init(struct candidates *c, uint32_t vocab_size)
{
    uint32_t cap = (vocab_size + CANDIDATES_BLOCK - 1) / CANDIDATES_BLOCK * CANDIDATES_BLOCK;

    *c = (struct candidates){ .cap = cap };
    c->ids = mem_zalloc(cap, sizeof *c->ids);
    c->weights = mem_zalloc(cap, sizeof *c->weights);
    c->keys = mem_zalloc(cap, sizeof *c->keys);
    c->heap = mem_zalloc(cap, sizeof *c->heap);
}

void candidates_fini(struct candidates *c)
{
    free(c->ids);
    free(c->weights);
    free(c->keys);
    free(c->heap);
    *c = (struct candidates){ 0 };
}

static inline uint32_t float_bits(float f)
{
    uint32_t u;

    memcpy(&u, &f, sizeof u);
    return u;
}

static inline float bits_float(uint32_t u)
{
    float f;

    memcpy(&f, &u, sizeof f);
    return f;
}

/* Cephes' expf: x = n ln 2 + r, a polynomial in r, the exponent put together from bits.  No branch, so
 * the compiler runs a block of them in vector registers. */
static inline float exp_nonpositive(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float clamped = x < -87.0f ? -87.0f : x;
    float n = clamped * 1.44269504f + magic;
    int32_t exponent = (int32_t)(float_bits(n) - float_bits(magic));
    float whole = n - magic;
    float r = clamped - whole * 0.693359375f + whole * 2.12194440e-4f;
    float y = 1.9875691500e-4f;

    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    y = y * bits_float((uint32_t)(exponent + 127) << 23);
    return bits_float(float_bits(y) & (0u - (uint32_t)(x >= -87.0f)));
}

float candidates_exp(float x)
{
    return exp_nonpositive(x);
}

void candidates_fill(struct candidates *c, const float *logits, uint32_t n, float max, float scale)
{
    assert(n > 0 && n <= c->cap);
    for (uint32_t at = 0; at < n; at += CANDIDATES_BLOCK) {
        const float *restrict in = logits + at;
        float *restrict out = c->weights + at;
        uint32_t *restrict ids = c->ids + at;
        for (uint32_t i = 0; i < CANDIDATES_BLOCK; i++)
            out[i] = exp_nonpositive((in[i] - max) * scale);
        for (uint32_t i = 0; i < CANDIDATES_BLOCK; i++)
            ids[i] = at + i;
    }
    c->n = n;
}

static double block_mass(const float *restrict w)
{
    float lane[LANES] = { 0 };
    double sum = 0;

    for (uint32_t i = 0; i < CANDIDATES_BLOCK; i += LANES)
        for (uint32_t l = 0; l < LANES; l++)
            lane[l] += w[i + l];
    for (uint32_t l = 0; l < LANES; l++)
        sum += (double)lane[l];
    return sum;
}

double candidates_mass(const struct candidates *c)
{
    double sum = 0;

    for (uint32_t at = 0; at < c->n; at += CANDIDATES_BLOCK)
        sum += block_mass(c->weights + at);
    return sum;
}

/* The last candidate kept: preference `key`, and among equals index `index`. */
struct cut {
    float key;
    uint32_t index;
};

/* A min-heap of (inverted key, index): the root is the most preferred. */
static void heap_sift(uint64_t *heap, uint32_t n, uint32_t at)
{
    uint64_t v = heap[at];

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= v)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = v;
}

static uint32_t gather_bucket(struct candidates *c, const float *keys, uint32_t bucket)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t bits = float_bits(keys[i]);
        if (bits >> BUCKET_SHIFT == bucket && bits != 0)
            c->heap[n++] = (uint64_t)~bits << 32 | i;
    }
    for (uint32_t i = n / 2; i-- > 0;)
        heap_sift(c->heap, n, i);
    return n;
}

static void count_buckets(struct candidates *c, const float *keys)
{
    memset(c->bucket_n, 0, sizeof c->bucket_n);
    memset(c->bucket_mass, 0, sizeof c->bucket_mass);
    for (uint32_t i = 0; i < c->n; i++) {
        uint32_t b = float_bits(keys[i]) >> BUCKET_SHIFT;
        assert(b < CANDIDATES_BUCKETS);
        c->bucket_n[b]++;
        c->bucket_mass[b] += (double)c->weights[i];
    }
}

/* Where the most preferred ones are `k` in number or have `mass`, whichever comes first. */
static struct cut find_cut(struct candidates *c, const float *keys, uint32_t k, double mass)
{
    struct cut cut = { .key = 0, .index = UINT32_MAX };
    uint32_t bucket = CANDIDATES_BUCKETS, n_members, n_seen = 0;
    double seen = 0;

    count_buckets(c, keys);
    while (bucket-- > 0) {
        if (n_seen + c->bucket_n[bucket] >= k || seen + c->bucket_mass[bucket] >= mass)
            break;
        n_seen += c->bucket_n[bucket];
        seen += c->bucket_mass[bucket];
    }
    if (bucket == UINT32_MAX)
        return cut; /* all that have any weight */
    n_members = gather_bucket(c, keys, bucket);
    while (n_members > 0) {
        uint32_t i = (uint32_t)c->heap[0];
        cut = (struct cut){ .key = keys[i], .index = i };
        seen += (double)c->weights[i];
        if (++n_seen >= k || seen >= mass)
            break;
        c->heap[0] = c->heap[--n_members];
        heap_sift(c->heap, n_members, 0);
    }
    return cut;
}

static void zero_tail(struct candidates *c)
{
    for (uint32_t i = c->n; i % CANDIDATES_BLOCK != 0; i++)
        c->weights[i] = 0;
}

/* Keep what is before or at the cut; key 0 is never kept. */
static void keep_cut(struct candidates *c, const float *keys, struct cut cut)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n; i++) {
        float key = keys[i];
        if (key > cut.key || (key == cut.key && key > 0 && i <= cut.index)) {
            c->ids[n] = c->ids[i];
            c->weights[n] = c->weights[i];
            n++;
        }
    }
    assert(n > 0);
    c->n = n;
    zero_tail(c);
}

void candidates_keep_ratio(struct candidates *c, float min_weight)
{
    assert(min_weight <= 1);
    keep_cut(c, c->weights, (struct cut){ .key = min_weight, .index = UINT32_MAX });
}

/* How many weights reach `floor`, and what they have together. */
static double mass_from(const struct candidates *c, float floor, uint32_t *n)
{
    double sum = 0;
    uint32_t count = 0;

    for (uint32_t at = 0; at < c->n; at += CANDIDATES_BLOCK) {
        const float *restrict w = c->weights + at;
        float kept[CANDIDATES_BLOCK];
        for (uint32_t i = 0; i < CANDIDATES_BLOCK; i++) {
            count += w[i] >= floor;
            kept[i] = w[i] >= floor ? w[i] : 0;
        }
        sum += block_mass(kept);
    }
    *n = count;
    return sum;
}

/* Most of a vocabulary is far below any cut: drop that at vector speed before the histogram, which
 * looks at each candidate. */
static void drop_hopeless(struct candidates *c, uint32_t k, double mass)
{
    static const float floors[] = { 0x1p-6f, 0x1p-12f };

    for (size_t i = 0; i < sizeof floors / sizeof *floors && c->n > CANDIDATES_BLOCK; i++) {
        uint32_t n;
        if (mass_from(c, floors[i], &n) >= mass || n >= k) {
            candidates_keep_ratio(c, floors[i]);
            return;
        }
    }
}

void candidates_keep_k(struct candidates *c, uint32_t k)
{
    assert(k > 0);
    if (k >= c->n)
        return;
    drop_hopeless(c, k, INFINITY);
    keep_cut(c, c->weights, find_cut(c, c->weights, k, INFINITY));
}

void candidates_keep_mass(struct candidates *c, double fraction)
{
    double mass;

    assert(fraction > 0);
    if (fraction >= 1)
        return;
    mass = fraction * candidates_mass(c);
    drop_hopeless(c, UINT32_MAX, mass);
    keep_cut(c, c->weights, find_cut(c, c->weights, UINT32_MAX, mass));
}

void candidates_keep_typical(struct candidates *c, double fraction)
{
    double mass = candidates_mass(c), mean = 0;

    if (fraction >= 1)
        return;
    /* surprise_i = log mass - log w_i and entropy = log mass - mean(log w): log mass cancels out. */
    for (uint32_t i = 0; i < c->n; i++) {
        c->keys[i] = c->weights[i] > 0 ? (float)log((double)c->weights[i]) : -INFINITY;
        if (c->weights[i] > 0)
            mean += (double)c->weights[i] / mass * (double)c->keys[i];
    }
    for (uint32_t i = 0; i < c->n; i++)
        c->keys[i] = exp_nonpositive((float)-fabs((double)c->keys[i] - mean));
    keep_cut(c, c->keys, find_cut(c, c->keys, UINT32_MAX, fraction * mass));
}

uint32_t candidates_pick(const struct candidates *c, double u)
{
    double left = u * candidates_mass(c);
    uint32_t block = 0, last = 0;

    for (uint32_t at = 0; at < c->n; at += CANDIDATES_BLOCK) {
        double mass = block_mass(c->weights + at);
        if (mass <= 0)
            continue;
        block = at;
        if (left < mass)
            break;
        left -= mass;
    }
    /* Rounding may leave a rest past the last weight: then the last one it is. */
    for (uint32_t i = block; i < c->n && i < block + CANDIDATES_BLOCK; i++) {
        if (c->weights[i] <= 0)
            continue;
        last = i;
        if (left < (double)c->weights[i])
            break;
        left -= (double)c->weights[i];
    }
    return last;
}
