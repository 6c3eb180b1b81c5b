/* moe.cu - the routes of a mixture of experts (moe.h).
 *
 * Small work, which stays on the device so that no step waits for the host: choosing is a warp's maximum, n_used
 * times over; sorting is one block, each warp counting and then placing the pairs of every 32nd expert by
 * ballots, in the order of the rows.
 *
 *   bytes moved    logits once; chosen 2 n_experts / 32 times, from L1
 *   bound          latency: a few microseconds each */
#include "gpu-worker/cuda/kernels/moe.h"

#include "gpu-worker/cuda/kernels/port.h"

/* ---- choose ---- */

/* A logit that can be compared: what is no number is the least; so is what has been taken, by its index. */
struct candidate {
    float logit;
    uint32_t expert; /* of equals the lower one */
};

KDEV bool is_better(const candidate &one, const candidate &other)
{
    if (other.expert == UINT32_MAX || one.expert == UINT32_MAX)
        return one.expert < other.expert;
    return one.logit > other.logit || (one.logit == other.logit && one.expert < other.expert);
}

KDEV float comparable(float logit)
{
    return logit == logit ? logit : -k_bits_f32(0x7f800000);
}

/* The best of the warp's lanes, in all of them. */
KDEV candidate warp_best(candidate mine)
{
    KUNROLL
    for (uint32_t lanes = 16; lanes; lanes >>= 1) {
        candidate other = { k_shfl_xor(mine.logit, lanes), k_shfl_xor(mine.expert, lanes) };
        mine = is_better(other, mine) ? other : mine;
    }
    return mine;
}

/* Bit i of taken: expert 32 i + lane.  So many experts a lane has. */
enum { LANE_EXPERTS = MOE_EXPERTS_MAX / 32 };

KDEV candidate lane_best(const float *logits, uint32_t n, uint32_t taken)
{
    candidate best = { 0, UINT32_MAX };

    for (uint32_t i = 0; i < LANE_EXPERTS && i * 32 + k_lane() < n; i++) {
        candidate c = { comparable(logits[i * 32 + k_lane()]), i * 32 + k_lane() };
        if (!(taken >> i & 1) && is_better(c, best))
            best = c;
    }
    return best;
}

/* Sum of exp(logit - largest): lanes' own, ascending, then the butterfly. */
KDEV float sum_exp(const float *logits, uint32_t n, float largest)
{
    float sum = 0;

    for (uint32_t e = k_lane(); e < n; e += 32)
        sum += k_exp(logits[e] - largest);
    return k_warp_sum(sum);
}

/* Sum of exp(logit - largest) of the taken. */
KDEV float sum_exp_taken(const float *logits, uint32_t taken, float largest)
{
    float sum = 0;

    for (uint32_t i = 0; i < LANE_EXPERTS; i++)
        if (taken >> i & 1)
            sum += k_exp(logits[i * 32 + k_lane()] - largest);
    return k_warp_sum(sum);
}

/* Lanes below this one for which p holds. */
KDEV uint32_t lanes_before(uint32_t ballot)
{
    return k_popcount(ballot & ((1u << k_lane()) - 1));
}

/* The taken experts to their places, ascending. */
KDEV void write_chosen(const moe_choose_args &a, uint32_t row, const float *logits, uint32_t taken,
                       float largest, float over)
{
    uint32_t *chosen = a.chosen + row * a.n_used;
    float *share = a.share + row * a.n_used;

    for (uint32_t i = 0, at = 0; i * 32 < a.n_experts; i++) {
        bool mine = taken >> i & 1;
        uint32_t ballot = k_ballot(mine), place = at + lanes_before(ballot);
        if (mine) {
            chosen[place] = i * 32 + k_lane();
            share[place] = k_exp(logits[i * 32 + k_lane()] - largest) / over;
        }
        at += k_popcount(ballot);
    }
}

KERNEL(moe_choose, struct moe_choose_args, MOE_CHOOSE_THREADS)
{
    uint32_t row = blockIdx.x * MOE_CHOOSE_WARPS + k_warp(), taken = 0;
    const float *logits = a.logits + (uint64_t)row * a.n_experts;
    float largest = 0, over;

    if (row >= a.n_rows)
        return;
    for (uint32_t k = 0; k < a.n_used; k++) {
        candidate best = warp_best(lane_best(logits, a.n_experts, taken));
        if (best.expert % 32 == k_lane())
            taken |= 1u << best.expert / 32;
        largest = k == 0 ? best.logit : largest;
    }
    over =
        a.normalise ? sum_exp_taken(logits, taken, largest) : sum_exp(logits, a.n_experts, largest);
    write_chosen(a, row, logits, taken, largest, over);
}

/* ---- sort ---- */

KDEV uint32_t count_pairs(const moe_sort_args &a, uint32_t expert)
{
    uint32_t n = a.n_rows * a.n_used, count = 0;

    for (uint32_t i = k_lane(); i < n; i += 32)
        count += a.chosen[i] == expert;
    KUNROLL
    for (uint32_t lanes = 16; lanes; lanes >>= 1)
        count += k_shfl_xor(count, lanes);
    return count;
}

/* The pairs of one expert, in the order of their rows, from `at` on. */
KDEV void place_pairs(const moe_sort_args &a, uint32_t expert, uint32_t at)
{
    uint32_t n = a.n_rows * a.n_used;

    for (uint32_t first = 0; first < n; first += 32) {
        uint32_t i = first + k_lane();
        bool mine = i < n && a.chosen[i] == expert;
        uint32_t ballot = k_ballot(mine), place = at + lanes_before(ballot);
        if (mine) {
            a.pair_row[place] = i / a.n_used;
            a.pair_of[i] = place;
        }
        at += k_popcount(ballot);
    }
}

KDEV uint32_t group_rows_of(const moe_sort_args &a)
{
    return a.group_rows > 0 ? a.group_rows : (uint32_t)MOE_GROUP_ROWS;
}

KDEV uint32_t groups_of(uint32_t n_pairs, uint32_t group_rows)
{
    return (n_pairs + group_rows - 1) / group_rows;
}

/* Sum of v of this lane and those below. */
KDEV uint32_t warp_scan(uint32_t v)
{
    KUNROLL
    for (uint32_t by = 1; by < 32; by <<= 1) {
        uint32_t below = k_shfl_up(v, by);
        v += k_lane() >= by ? below : 0;
    }
    return v;
}

/* One warp: first[e], the pairs of expert e, becomes those of the experts before it, group[e] their groups;
 * [n] of all. */
KDEV void scan_counts(const moe_sort_args &a, uint32_t *first, uint32_t *group)
{
    uint32_t pairs = 0, groups = 0, n = a.n_experts;

    for (uint32_t base = 0; base < n; base += 32) {
        uint32_t e = base + k_lane(), count = e < n ? first[e] : 0;
        uint32_t mine = groups_of(count, group_rows_of(a));
        uint32_t to_pair = pairs + warp_scan(count), to_group = groups + warp_scan(mine);
        if (e < n) {
            first[e] = to_pair - count;
            group[e] = to_group - mine;
        }
        pairs = k_shfl(to_pair, 31);
        groups = k_shfl(to_group, 31);
    }
    if (k_lane() == 0) {
        first[n] = pairs;
        group[n] = groups;
    }
}

KDEV void write_groups(const moe_sort_args &a, uint32_t expert, uint32_t first, uint32_t end,
                       uint32_t group)
{
    uint32_t rows = group_rows_of(a);

    for (uint32_t i = k_lane(); i < groups_of(end - first, rows); i += 32) {
        uint32_t at = first + i * rows, left = end - at;
        a.groups[group + i] = { expert, at, left < rows ? left : rows };
    }
}

KERNEL(moe_sort, struct moe_sort_args, MOE_SORT_THREADS)
{
    KSHARED(uint32_t, first, [MOE_EXPERTS_MAX + 1]);
    KSHARED(uint32_t, group, [MOE_EXPERTS_MAX + 1]);
    const uint32_t WARPS = MOE_SORT_THREADS / 32;

    for (uint32_t e = k_warp(); e < a.n_experts; e += WARPS) {
        uint32_t count = count_pairs(a, e);
        if (k_lane() == 0)
            first[e] = count;
    }
    k_sync();
    if (k_warp() == 0)
        scan_counts(a, first, group);
    k_sync();
    for (uint32_t e = k_warp(); e < a.n_experts; e += WARPS) {
        place_pairs(a, e, first[e]);
        write_groups(a, e, first[e], first[e + 1], group[e]);
    }
    for (uint32_t i = group[a.n_experts] + threadIdx.x; i < a.n_groups; i += MOE_SORT_THREADS)
        a.groups[i] = { 0, 0, 0 };
}

/* ---- combine ---- */

KERNEL(moe_combine, struct moe_combine_args, MOE_COMBINE_THREADS)
{
    uint32_t i = blockIdx.x * MOE_COMBINE_THREADS + threadIdx.x, t = blockIdx.y;
    const uint32_t *pair = a.pair_of + t * a.n_used;
    const float *share = a.share + t * a.n_used;

    if (i >= a.cols)
        return;
    float *x = a.x + t * a.x_stride + i, sum = *x;
    for (uint32_t k = 0; k < a.n_used; k++)
        sum = k_fma(share[k], a.y[pair[k] * a.y_stride + i], sum);
    *x = sum;
}
