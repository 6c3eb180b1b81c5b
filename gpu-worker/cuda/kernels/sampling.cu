/* sampling.cu - K14: bias, penalties, temperature, top-k, top-p, min-p and the draw, one block a row.
 *
 * No sort.  Every filter keeps a prefix of the order "by weight, ties by lower id", so all that is needed is
 * where the prefix ends.  That is found by bisection on the bits of the weight, which for positive floats are in
 * the order of the numbers: a probe counts what is at or above a weight and adds it up, and tells the nearest
 * weights on both sides of it, so that a handful of probes is enough where few tokens are left.  Most of a
 * vocabulary is far below any cut: two first probes find a floor, and what is above it is gathered in shared
 * memory, in order of id, for all that follows.
 *
 * A block runs on one SM, with 16 warps: a pass over 32,000 weights is 125 KB from L2, about 2 us; a probe of
 * gathered ones is two barriers, well under 1 us.  Expected, with top-k and top-p, at batch 64: 20 to 40 us.
 * Shared memory: 45 KB.  Bound by latency.
 *
 * Weights have the bits of candidates.c: products and sums are not fused. */
#include "gpu-worker/cuda/kernels/port.h"

#include "gpu-worker/cuda/kernels/sampling.h"

#define WARPS    (SAMPLING_THREADS / 32)
#define NONE     0xffffffffu
#define INFINITE k_bits_f32(0x7f800000u)

/* What is at or above a floor, and the nearest weights to it. */
struct tally {
    uint64_t mass;
    uint32_t n;
    float least; /* of what is at or above */
    float most;  /* of what is below; 0: nothing is */
};

/* The block's shared memory. */
struct block {
    struct tally *tallies; /* [SAMPLING_THREADS] */
    struct tally *sum;
    uint64_t *warps; /* [WARPS] */
    uint32_t *found;
    float *kept; /* [SAMPLING_KEPT_MAX] */
    int32_t *ids;
};

/* Tokens in ascending order of id. */
struct list {
    const float *weights; /* [n] */
    const int32_t *ids;   /* [n], or NULL: the index is the id */
    uint32_t n;
};

/* The last one kept: what is heavier, and of the same weight what has no higher index. */
struct cut {
    float weight; /* 0: all that have any */
    uint32_t index;
    uint64_t mass; /* of all kept */
};

/* The most preferred are enough when they are k, or have the mass. */
struct goal {
    uint32_t k;
    double mass;
};

KDEV uint64_t fixed(float weight)
{
    return (uint64_t)(weight * (float)(1ull << SAMPLING_MASS_BITS));
}

KDEV bool is_kept(float weight, uint32_t index, const struct cut *cut)
{
    return weight > cut->weight || (weight == cut->weight && weight > 0 && index <= cut->index);
}

/* ---- candidates.c's exp(), for x <= 0 ---- */

KDEV float exp_nonpositive(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    float clamped = x < -87.0f ? -87.0f : x;
    float n = k_add_rn(k_mul_rn(clamped, 1.44269504f), magic);
    int32_t exponent = (int32_t)(k_f32_bits(n) - k_f32_bits(magic));
    float whole = k_add_rn(n, -magic);
    float r = k_add_rn(k_add_rn(clamped, -k_mul_rn(whole, 0.693359375f)),
                       k_mul_rn(whole, 2.12194440e-4f));
    float y = 1.9875691500e-4f;

    y = k_add_rn(k_mul_rn(y, r), 1.3981999507e-3f);
    y = k_add_rn(k_mul_rn(y, r), 8.3334519073e-3f);
    y = k_add_rn(k_mul_rn(y, r), 4.1665795894e-2f);
    y = k_add_rn(k_mul_rn(y, r), 1.6666665459e-1f);
    y = k_add_rn(k_mul_rn(y, r), 5.0000001201e-1f);
    y = k_add_rn(k_add_rn(k_mul_rn(y, k_mul_rn(r, r)), r), 1.0f);
    y = k_mul_rn(y, k_bits_f32((uint32_t)(exponent + 127) << 23));
    return x >= -87.0f ? y : 0.0f;
}

/* ---- philox.c's number: Philox4x32-10, Salmon et al., SC 2011 ---- */

KDEV double uniform(uint64_t seed, uint64_t position)
{
    uint32_t c0 = (uint32_t)position, c1 = (uint32_t)(position >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);

    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c0, b = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return (double)(((uint64_t)c1 << 32 | c0) >> 11) * (1.0 / 9007199254740992.0);
}

/* ---- the block's sums ---- */

KDEV void merge(struct tally *to, const struct tally *from)
{
    to->mass += from->mass;
    to->n += from->n;
    to->least = k_min(to->least, from->least);
    to->most = k_max(to->most, from->most);
}

/* All threads get it. */
KDEV struct tally block_merge(struct tally mine, const struct block *b)
{
    b->tallies[threadIdx.x] = mine;
    k_sync();
    if (k_warp() == 0) {
        uint32_t lane = k_lane();
        for (uint32_t i = lane + 32; i < SAMPLING_THREADS; i += 32)
            merge(&b->tallies[lane], &b->tallies[i]);
        for (uint32_t half = 16; half > 0; half >>= 1) {
            k_syncwarp();
            if (lane < half)
                merge(&b->tallies[lane], &b->tallies[lane + half]);
        }
        if (lane == 0)
            *b->sum = b->tallies[0];
    }
    k_sync();
    return *b->sum;
}

KDEV struct tally tally_from(const struct list *l, float floor, const struct block *b)
{
    struct tally t = { 0, 0, INFINITE, 0 };

    KUNROLL_N(4)
    for (uint32_t i = threadIdx.x; i < l->n; i += SAMPLING_THREADS) {
        float w = l->weights[i];
        bool counts = w >= floor;
        t.n += counts;
        t.mass += counts ? fixed(w) : 0;
        t.least = counts ? k_min(t.least, w) : t.least;
        t.most = counts ? t.most : k_max(t.most, w);
    }
    return block_merge(t, b);
}

KDEV uint64_t block_max(uint64_t v, const struct block *b)
{
    for (uint32_t lanes = 16; lanes > 0; lanes >>= 1) {
        uint64_t other = k_shfl_xor(v, lanes);
        v = other > v ? other : v;
    }
    k_sync(); /* readers of the last one */
    if (k_lane() == 0)
        b->warps[k_warp()] = v;
    k_sync();
    for (uint32_t i = 0; i < WARPS; i++)
        v = b->warps[i] > v ? b->warps[i] : v;
    return v;
}

/* ---- places: each warp has a run of the list, in order ---- */

struct run {
    uint32_t begin, end;
};

KDEV struct run run_of_warp(uint32_t n)
{
    uint32_t each = (n + SAMPLING_THREADS - 1) / SAMPLING_THREADS * 32;
    uint32_t begin = k_warp() * each, end = begin + each;
    struct run r = { begin < n ? begin : n, end < n ? end : n };

    return r;
}

/* What element `index` counts: its mass where it is kept, or, among equals, 1 where it has the cut's weight. */
KDEV uint64_t share(const struct list *l, uint32_t index, const struct cut *cut, bool equals)
{
    float w;

    if (index >= l->n)
        return 0;
    w = l->weights[index];
    return equals ? w == cut->weight : is_kept(w, index, cut) ? fixed(w) : 0;
}

/* The sum of all shares; of each warp's run in b->warps. */
KDEV uint64_t add_shares(const struct list *l, const struct cut *cut, bool equals,
                         const struct block *b)
{
    struct run r = run_of_warp(l->n);
    uint64_t sum = 0;

    for (uint32_t i = r.begin + k_lane(); i < r.end; i += 32)
        sum += share(l, i, cut, equals);
    for (uint32_t lanes = 16; lanes > 0; lanes >>= 1)
        sum += k_shfl_xor(sum, lanes);
    k_sync();
    if (k_lane() == 0)
        b->warps[k_warp()] = sum;
    k_sync();
    sum = 0;
    for (uint32_t i = 0; i < WARPS; i++)
        sum += b->warps[i];
    return sum;
}

/* Index of the element on which place `at` falls, at < the sum.  One warp. */
KDEV uint32_t walk(const struct list *l, const struct cut *cut, bool equals, struct run r,
                   uint64_t at)
{
    for (uint32_t i = r.begin; i < r.end; i += 32) {
        uint64_t upto = share(l, i + k_lane(), cut, equals);
        uint32_t hit;
        for (uint32_t by = 1; by < 32; by <<= 1) {
            uint64_t before = k_shfl_up(upto, by);
            upto += k_lane() >= by ? before : 0;
        }
        hit = k_ballot(upto > at);
        if (hit)
            return i + k_popcount((hit & (0u - hit)) - 1);
        at -= k_shfl(upto, 31);
    }
    return r.end - 1; /* not reached */
}

/* The same for the block, behind add_shares(). */
KDEV uint32_t find_place(const struct list *l, const struct cut *cut, bool equals, uint64_t at,
                         const struct block *b)
{
    uint32_t warp = 0;

    while (warp + 1 < WARPS && at >= b->warps[warp])
        at -= b->warps[warp++];
    if (k_warp() == warp) {
        uint32_t index = walk(l, cut, equals, run_of_warp(l->n), at);
        if (k_lane() == 0)
            *b->found = index;
    }
    k_sync();
    return *b->found;
}

/* ---- cuts ---- */

KDEV bool is_reached(const struct tally *t, const struct goal *goal)
{
    return t->n >= goal->k || (double)t->mass >= goal->mass;
}

/* How many of the equals at the cut are needed: 1 .. n. */
KDEV uint32_t n_needed(const struct tally *above, float weight, uint32_t n, const struct goal *goal)
{
    double each = (double)fixed(weight), gap = goal->mass - (double)above->mass;
    uint32_t by_k = goal->k - above->n, needed = n < by_k ? n : by_k;

    if (each * (double)needed > gap) {
        uint32_t by_mass = (uint32_t)(gap / each);
        by_mass += (double)by_mass * each < gap;
        needed = by_mass < 1 ? 1 : by_mass < needed ? by_mass : needed;
    }
    return needed;
}

KDEV struct cut find_cut(const struct list *l, const struct goal *goal, const struct block *b)
{
    uint32_t low = 0, high = k_f32_bits(1.0f) + 1; /* low <= the cut's weight < high */
    struct tally above = { 0, 0, 0, 0 }, from = above;
    struct cut cut = { 0, NONE, 0 };
    uint32_t n;

    while (high - low > 1) {
        struct tally t = tally_from(l, k_bits_f32(low + (high - low) / 2), b);
        if (is_reached(&t, goal)) {
            low = k_f32_bits(t.least);
            from = t;
        } else {
            high = k_f32_bits(t.most) + 1;
            above = t;
        }
    }
    cut.mass = above.mass;
    if (low == 0) /* all that have any weight */
        return cut;
    cut.weight = k_bits_f32(low);
    n = n_needed(&above, cut.weight, from.n - above.n, goal);
    cut.mass += n * fixed(cut.weight);
    if (n < from.n - above.n) {
        add_shares(l, &cut, true, b);
        cut.index = find_place(l, &cut, true, n - 1, b);
    }
    return cut;
}

/* What is at or above the floor, in order. */
KDEV struct list gather(const struct list *l, float floor, const struct block *b)
{
    struct cut at_floor = { floor, NONE, 0 };
    struct run r = run_of_warp(l->n);
    uint32_t to = 0, n = 0;
    struct list gathered = { b->kept, b->ids, 0 };

    for (uint32_t i = r.begin; i < r.end; i += 32)
        n += k_popcount(
            k_ballot(i + k_lane() < r.end && is_kept(l->weights[i + k_lane()], 0, &at_floor)));
    k_sync();
    if (k_lane() == 0)
        b->warps[k_warp()] = n;
    k_sync();
    for (uint32_t w = 0; w < WARPS; w++) {
        to += w < k_warp() ? (uint32_t)b->warps[w] : 0;
        gathered.n += (uint32_t)b->warps[w];
    }
    for (uint32_t i = r.begin; i < r.end; i += 32) {
        uint32_t index = i + k_lane();
        bool taken = index < r.end && is_kept(l->weights[index], 0, &at_floor);
        uint32_t all = k_ballot(taken), before = all & ((1u << k_lane()) - 1);
        if (taken) {
            b->kept[to + k_popcount(before)] = l->weights[index];
            b->ids[to + k_popcount(before)] = (int32_t)index;
        }
        to += k_popcount(all);
    }
    k_sync();
    return gathered;
}

/* The list, or so much of its upper end that the goal is reached within. */
KDEV struct list narrow(const struct list *l, const struct goal *goal, const struct block *b)
{
    for (int i = 1; i <= 2; i++) {
        float floor = i == 1 ? 1.0f / 64 : 1.0f / 4096;
        struct tally t = tally_from(l, floor, b);
        if (is_reached(&t, goal))
            return t.n <= SAMPLING_KEPT_MAX ? gather(l, floor, b) : *l;
    }
    return *l;
}

/* Narrows *l and says where it is cut; its mass is set. */
KDEV struct cut filter(const struct sampling_row *row, struct list *l, uint64_t mass,
                       const struct block *b)
{
    bool by_k = row->top_k > 0 && row->top_k<l->n, by_mass = row->top_p> 0 && row->top_p < 1;
    struct cut cut = { 0, NONE, mass };
    struct goal goal = { by_k ? row->top_k : NONE,
                         by_k ? (double)INFINITE : row->top_p * (double)mass };

    if (by_k || by_mass)
        *l = narrow(l, &goal, b);
    if (by_k)
        cut = find_cut(l, &goal, b);
    if (by_mass) {
        struct goal share_of_it = { NONE, row->top_p * (double)cut.mass };
        cut = find_cut(l, &share_of_it, b);
    }
    if (row->min_p > cut.weight) {
        cut.weight = row->min_p;
        cut.index = NONE;
    }
    return cut;
}

/* ---- the row ---- */

KDEV bool is_finite(float v)
{
    return (k_f32_bits(v) & 0x7f800000u) != 0x7f800000u;
}

KDEV float edited(float v, const struct sampling_edit *edit, const struct sampling_row *row)
{
    v = k_add_rn(v, edit->add);
    if (edit->flags & SAMPLING_REPEATED)
        v = v > 0 ? v / row->repetition : k_mul_rn(v, row->repetition);
    if (edit->flags & SAMPLING_SEEN)
        v = k_add_rn(k_add_rn(v, -edit->minus), -row->presence);
    return edit->flags & SAMPLING_MASKED ? -INFINITE : v;
}

/* work becomes the row with its edits; false: a logit is not finite. */
KDEV bool edit_row(const struct sampling_args *a, const struct sampling_row *row,
                   const float *logits, float *work)
{
    bool masked = row->flags & SAMPLING_ONLY_EDITED, bad = false;

    KUNROLL_N(4)
    for (uint32_t i = threadIdx.x; i < a->vocab; i += SAMPLING_THREADS) {
        float v = logits[i];
        bad |= !is_finite(v);
        work[i] = masked ? -INFINITE : v;
    }
    if (k_sync_or(bad))
        return false;
    for (uint32_t i = threadIdx.x; i < row->n_edits; i += SAMPLING_THREADS) {
        const struct sampling_edit *edit = &a->edits[row->first_edit + i];
        work[edit->token] = edited(logits[edit->token], edit, row);
    }
    k_sync();
    return true;
}

/* A number that is larger for a larger value, and among equals for a lower index. */
KDEV uint64_t preference(float v, uint32_t index)
{
    uint32_t bits = k_f32_bits(v == 0 ? 0.0f : v); /* -0 is 0 */

    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (NONE - index);
}

KDEV uint32_t preferred_index(uint64_t preference)
{
    return NONE - (uint32_t)preference;
}

/* The best that comes behind `last`; 0: none does. */
KDEV uint64_t best_behind(const float *values, uint32_t n, uint64_t last, const struct block *b)
{
    uint64_t best = 0;

    for (uint32_t i = threadIdx.x; i < n; i += SAMPLING_THREADS) {
        uint64_t p = preference(values[i], i);
        best = p < last && p > best ? p : best;
    }
    return block_max(best, b);
}

/* weights[i] = exp((weights[i] - max) * scale); what they are together. */
KDEV uint64_t make_weights(float *weights, uint32_t n, float max, float scale,
                           const struct block *b)
{
    struct tally t = { 0, 0, 0, 0 };

    KUNROLL_N(4)
    for (uint32_t i = threadIdx.x; i < n; i += SAMPLING_THREADS) {
        float w = exp_nonpositive(k_mul_rn(k_add_rn(weights[i], -max), scale));
        weights[i] = w;
        t.mass += fixed(w);
    }
    return block_merge(t, b).mass;
}

/* ---- log probabilities ---- */

KDEV uint32_t rank_of(const float *values, uint32_t n, uint32_t index, const struct block *b)
{
    struct tally t = { 0, 0, 0, 0 };
    float mine = values[index];

    for (uint32_t i = threadIdx.x; i < n; i += SAMPLING_THREADS)
        t.n += values[i] > mine || (values[i] == mine && i < index);
    return block_merge(t, b).n + 1;
}

/* The n best of the list that are kept; how many there are. */
KDEV uint32_t write_tops(struct sampling_top *tops, const struct list *values, uint32_t n,
                         const struct cut *cut, const struct block *b)
{
    uint64_t last = ~0ull;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t at;
        last = best_behind(values->weights, values->n, last, b);
        at = preferred_index(last);
        if (last == 0 || (cut && !is_kept(values->weights[at], at, cut)))
            return i;
        if (threadIdx.x == 0) {
            tops[i].token = values->ids ? values->ids[at] : (int32_t)at;
            tops[i].value = values->weights[at];
        }
    }
    return n;
}

/* Of the model's own logits. */
KDEV void measure_raw(struct sampling_choice *c, struct sampling_top *tops, const float *logits,
                      uint32_t vocab, uint32_t n_top, const struct block *b)
{
    struct list all = { logits, NULL, vocab };
    float max = logits[preferred_index(best_behind(logits, vocab, ~0ull, b))];
    struct tally t = { 0, 0, 0, 0 };

    KUNROLL_N(4)
    for (uint32_t i = threadIdx.x; i < vocab; i += SAMPLING_THREADS)
        t.mass += fixed(exp_nonpositive(k_add_rn(logits[i], -max)));
    c->mass = block_merge(t, b).mass;
    c->max = max;
    c->value = logits[c->token];
    c->rank = rank_of(logits, vocab, (uint32_t)c->token, b);
    c->n_top = write_tops(tops, &all, n_top, NULL, b);
}

/* Of what was drawn from. */
KDEV void measure_kept(struct sampling_choice *c, struct sampling_top *tops, const struct list *l,
                       const struct cut *cut, uint64_t mass, uint32_t index, uint32_t n_top,
                       const struct block *b)
{
    c->mass = mass;
    c->value = l->weights[index];
    c->rank = rank_of(l->weights, l->n, index, b);
    c->n_top = write_tops(tops, l, n_top, cut, b);
}

/* ---- the draw ---- */

/* Index in the list, which is narrowed; *mass: of what is kept. */
KDEV uint32_t draw(const struct sampling_row *row, struct list *l, struct cut *cut, uint64_t *mass,
                   const struct block *b)
{
    uint64_t at;

    *cut = filter(row, l, *mass, b);
    *mass = add_shares(l, cut, false, b);
    at = (uint64_t)(uniform(row->seed, row->position) * (double)*mass);
    return find_place(l, cut, false, at < *mass ? at : *mass - 1, b);
}

/* All threads take part, thread 0's result counts. */
KDEV struct sampling_choice sample(const struct sampling_args *a, const struct sampling_row *row,
                                   struct sampling_top *tops, const struct block *b)
{
    const float *logits = a->logits + (size_t)row->logits_row * a->vocab;
    float *work = a->work + (size_t)blockIdx.x * a->vocab, max;
    struct sampling_choice c = { -1, SAMPLING_NOT_FINITE, 0, 0, 0, 0, 0 };
    struct list l = { work, NULL, a->vocab };
    struct cut cut = { 0, NONE, 0 };
    bool greedy = row->scale == 0;
    uint64_t mass = 0;
    uint32_t index;

    if (!edit_row(a, row, logits, work))
        return c;
    index = preferred_index(best_behind(work, a->vocab, ~0ull, b));
    max = work[index];
    if (!is_finite(max)) {
        c.result = max < 0 ? SAMPLING_NONE_LEFT : SAMPLING_NOT_FINITE;
        return c;
    }
    k_sync(); /* all have read it */
    if (!greedy || (row->flags & SAMPLING_MEASURE_KEPT))
        mass = make_weights(work, a->vocab, max, greedy ? 1.0f : row->scale, b);
    if (!greedy)
        index = draw(row, &l, &cut, &mass, b);
    c.result = SAMPLING_OK;
    c.token = l.ids ? l.ids[index] : (int32_t)index;
    if (row->flags & SAMPLING_MEASURE_KEPT)
        measure_kept(&c, tops, &l, &cut, mass, index, row->n_top, b);
    else if (row->flags & SAMPLING_MEASURE_RAW)
        measure_raw(&c, tops, logits, a->vocab, row->n_top, b);
    return c;
}

KERNEL_BLOCKS(sampling, struct sampling_args, SAMPLING_THREADS, 1)
{
    KSHARED(struct tally, tallies, [SAMPLING_THREADS]);
    KSHARED(struct tally, sum, [1]);
    KSHARED(uint64_t, warps, [WARPS]);
    KSHARED(uint32_t, found, [1]);
    KSHARED(float, kept, [SAMPLING_KEPT_MAX]);
    KSHARED(int32_t, ids, [SAMPLING_KEPT_MAX]);
    struct block b = { tallies, sum, warps, found, kept, ids };
    struct sampling_row row = a.rows[blockIdx.x];
    struct sampling_choice c;

    if (row.flags & SAMPLING_IDLE)
        return;
    c = sample(&a, &row, a.tops + (size_t)blockIdx.x * SAMPLING_TOP_MAX, &b);
    if (threadIdx.x == 0)
        a.choices[blockIdx.x] = c;
}
