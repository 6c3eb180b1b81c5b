/* all_reduce.cu - K16: the exchange between the ranks of a tensor-parallel group (all_reduce.h has the protocol).
 *
 * A block meets the blocks of its number on the other ranks and no other, so nothing here needs all blocks of
 * a GPU to run at once.  Messages of decode are small (16 KiB a row of 4096 floats): what counts is the number of
 * times that GPUs wait for each other, so the one-shot form, in which every rank reads everything, has a single
 * meeting.  For long messages the links are the bound, and the two-shot form moves less:
 *
 *   one-shot   reads (n_ranks - 1) * n floats from peers, one meeting
 *   two-shot   reads 2 * (n_ranks - 1) / n_ranks * n floats from peers, two meetings
 *
 * Floats are added in the order of the ranks by everybody, so all ranks hold the same bits, and both forms give
 * them.  (One-shot and two-shot: Rabenseifner 2004, doi:10.1007/978-3-540-24685-5_1, with all-to-all reads in place of his
 * exchanges.)
 *
 * Grid: all_reduce_blocks(n); block: ALL_REDUCE_THREADS; dynamic shared memory: none. */
#include "gpu-worker/cuda/kernels/all_reduce.h"

#include "gpu-worker/cuda/kernels/port.h"

enum { SPINS = 256, TURNS_PER_LOOK = 1024 };

KDEV struct all_reduce_control *control_of(const struct all_reduce_group &g, uint32_t rank)
{
    return reinterpret_cast<struct all_reduce_control *>(g.areas[rank]);
}

/* This block's staging for a call, in the area of a rank. */
KDEV float *staging_of(const struct all_reduce_group &g, uint32_t rank, uint32_t call)
{
    size_t place = (call & 1) * ALL_REDUCE_BLOCKS_MAX + blockIdx.x;

    return reinterpret_cast<float *>(g.areas[rank] + ALL_REDUCE_STAGING_OFFSET +
                                     place * ALL_REDUCE_BLOCK_BYTES);
}

KDEV uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The block's part of n things, `each` of them. */
KDEV uint32_t count_of_block(uint32_t n, uint32_t each)
{
    uint32_t first = blockIdx.x * each;

    return first < n ? least(each, n - first) : 0;
}

/* ---- meeting ---- */

/* Count the call; false when this rank has failed before.  shared: of the block, [2]. */
KDEV bool begin(const struct all_reduce_group &g, uint32_t *shared, uint32_t *call)
{
    struct all_reduce_control *own = control_of(g, g.rank);

    if (threadIdx.x == 0) {
        shared[0] = ++own->calls[blockIdx.x];
        shared[1] = k_load_relaxed_system(&own->failed);
    }
    k_sync();
    *call = shared[0];
    return shared[1] == ALL_REDUCE_OK;
}

KDEV uint32_t wait_for(const struct all_reduce_group &g, const uint32_t *flag, uint32_t call)
{
    uint64_t began_ns = 0;

    for (uint32_t turn = 1; (int32_t)(k_load_acquire_system(flag) - call) < 0; turn++) {
        if (turn > SPINS)
            k_pause();
        if (turn % TURNS_PER_LOOK != 0)
            continue;
        if (g.abort_word && k_load_relaxed_system(g.abort_word) == g.abort_value)
            return ALL_REDUCE_ABORTED;
        if (began_ns == 0)
            began_ns = k_clock_ns();
        else if (k_clock_ns() - began_ns > (uint64_t)g.spin_limit_us * 1000)
            return ALL_REDUCE_TIMED_OUT;
    }
    return ALL_REDUCE_OK;
}

/* The rank's first failure goes to the host; all later calls see that there was one. */
KDEV void report(const struct all_reduce_group &g, uint32_t code, uint32_t peer, uint32_t call)
{
    if (k_atomic_cas(&control_of(g, g.rank)->failed, ALL_REDUCE_OK, code) != ALL_REDUCE_OK)
        return;
    g.status->peer = peer;
    g.status->block = blockIdx.x;
    g.status->call = call;
    k_store_release_system(&g.status->code, code);
}

/* One warp, a lane for each peer: all flags are set before any is waited for.  The barrier before makes what the block
 * has stored part of the release; the one after hands what was acquired to the block.  false: leave. */
KDEV bool meet(const struct all_reduce_group &g, bool second, uint32_t call)
{
    uint32_t peer = threadIdx.x, code = ALL_REDUCE_OK;

    k_sync();
    if (k_warp() == 0) {
        if (peer < g.n_ranks) {
            struct all_reduce_control *to = control_of(g, peer);
            k_store_release_system(
                second ? &to->reduced[blockIdx.x][g.rank] : &to->arrived[blockIdx.x][g.rank], call);
        }
        k_syncwarp();
        if (peer < g.n_ranks) {
            const struct all_reduce_control *own = control_of(g, g.rank);
            code = wait_for(
                g, second ? &own->reduced[blockIdx.x][peer] : &own->arrived[blockIdx.x][peer],
                call);
            if (code != ALL_REDUCE_OK)
                report(g, code, peer, call);
        }
    }
    return !k_sync_or(code != ALL_REDUCE_OK);
}

/* ---- all-reduce ---- */

/* A unit is four floats, or what is left of them at the end. */
KDEV k_f32x4 load_unit(const float *p, uint32_t left)
{
    k_f32x4 v = { { 0, 0, 0, 0 } };

    if (left >= 4)
        return k_load4f(p);
    KUNROLL
    for (uint32_t i = 0; i < 3; i++)
        if (i < left)
            v.v[i] = p[i];
    return v;
}

KDEV void store_unit(float *p, k_f32x4 v, uint32_t left)
{
    if (left >= 4) {
        k_store4f(p, v);
        return;
    }
    KUNROLL
    for (uint32_t i = 0; i < 3; i++)
        if (i < left)
            p[i] = v.v[i];
}

KDEV k_f32x4 added(k_f32x4 a, k_f32x4 b)
{
    KUNROLL
    for (int i = 0; i < 4; i++)
        a.v[i] += b.v[i];
    return a;
}

/* Of unit `at` of the block's staging, all ranks'.  All loads are under way before the first sum. */
KDEV k_f32x4 sum_of_ranks(const struct all_reduce_group &g, uint32_t call, size_t at)
{
    k_f32x4 v[ALL_REDUCE_RANKS_MAX], sum;

    KUNROLL
    for (uint32_t r = 0; r < ALL_REDUCE_RANKS_MAX; r++)
        if (r < g.n_ranks)
            v[r] = k_load4f(staging_of(g, r, call) + at);
    sum = v[0];
    KUNROLL
    for (uint32_t r = 1; r < ALL_REDUCE_RANKS_MAX; r++)
        if (r < g.n_ranks)
            sum = added(sum, v[r]);
    return sum;
}

KDEV void put_out(float *out, k_f32x4 sum, uint32_t left, bool add)
{
    store_unit(out, add ? added(load_unit(out, left), sum) : sum, left);
}

/* The first unit of a rank's part of n_units. */
KDEV uint32_t part_first(const struct all_reduce_group &g, uint32_t rank, uint32_t n_units)
{
    return (uint32_t)((uint64_t)n_units * rank / g.n_ranks);
}

/* Sum this rank's part into its own staging, where only this rank reads; then collect all parts. */
KDEV bool reduce_two_shot(const struct all_reduce_args &a, uint32_t call, float *out,
                          uint32_t count)
{
    const struct all_reduce_group &g = a.group;
    uint32_t n_units = (count + 3) / 4, end = part_first(g, g.rank + 1, n_units);
    float *mine = staging_of(g, g.rank, call);

    for (uint32_t u = part_first(g, g.rank, n_units) + threadIdx.x; u < end;
         u += ALL_REDUCE_THREADS)
        k_store4f(mine + 4 * u, sum_of_ranks(g, call, 4 * u));
    if (!meet(g, true, call))
        return false;
    for (uint32_t r = 0; r < g.n_ranks; r++) {
        const float *from = staging_of(g, r, call);
        end = part_first(g, r + 1, n_units);
        for (uint32_t u = part_first(g, r, n_units) + threadIdx.x; u < end; u += ALL_REDUCE_THREADS)
            put_out(out + 4 * u, k_load4f(from + 4 * u), count - 4 * u, a.add != 0);
    }
    return true;
}

KERNEL(all_reduce, struct all_reduce_args, ALL_REDUCE_THREADS)
{
    KSHARED(uint32_t, shared, [2]);
    uint32_t each = all_reduce_block_floats(a.n), count = count_of_block(a.n, each), call;
    const float *in = a.in + (size_t)blockIdx.x * each;
    float *out = a.out + (size_t)blockIdx.x * each, *mine;

    if (!begin(a.group, shared, &call))
        return;
    mine = staging_of(a.group, a.group.rank, call);
    for (uint32_t i = 4 * threadIdx.x; i < count; i += 4 * ALL_REDUCE_THREADS)
        k_store4f(mine + i, load_unit(in + i, count - i));
    if (!meet(a.group, false, call))
        return;
    if (a.two_shot) {
        reduce_two_shot(a, call, out, count);
        return;
    }
    for (uint32_t i = 4 * threadIdx.x; i < count; i += 4 * ALL_REDUCE_THREADS)
        put_out(out + i, sum_of_ranks(a.group, call, i), count - i, a.add != 0);
}

KERNEL(add_floats, struct add_floats_args, ALL_REDUCE_THREADS)
{
    size_t i = 4 * ((size_t)blockIdx.x * ALL_REDUCE_THREADS + threadIdx.x);
    uint32_t left = i < a.n ? (uint32_t)(a.n - i < 4 ? a.n - i : 4) : 0;

    if (left > 0)
        put_out(a.out + i, load_unit(a.in + i, left), left, true);
}

/* ---- all-gather ---- */

KDEV uint32_t columns_of(const struct all_gather_args &a, uint32_t rank)
{
    return a.first[rank + 1] - a.first[rank];
}

/* Element i of a rank's columns, counted row by row. */
KDEV float *element_of(const struct all_gather_args &a, uint32_t rank, uint32_t i)
{
    uint32_t columns = columns_of(a, rank);

    return a.buf + (size_t)(i / columns) * a.stride + a.first[rank] + i % columns;
}

KERNEL(all_gather, struct all_gather_args, ALL_REDUCE_THREADS)
{
    KSHARED(uint32_t, shared, [2]);
    const struct all_reduce_group &g = a.group;
    uint32_t widest = 0, each, first, call;
    float *mine;

    for (uint32_t r = 0; r < g.n_ranks; r++)
        widest = widest > columns_of(a, r) ? widest : columns_of(a, r);
    each = all_reduce_block_floats((size_t)a.n_rows * widest);
    first = blockIdx.x * each;
    if (!begin(g, shared, &call))
        return;
    mine = staging_of(g, g.rank, call);
    for (uint32_t i = threadIdx.x; i < count_of_block(a.n_rows * columns_of(a, g.rank), each);
         i += ALL_REDUCE_THREADS)
        mine[i] = *element_of(a, g.rank, first + i);
    if (!meet(g, false, call))
        return;
    for (uint32_t r = 0; r < g.n_ranks; r++) {
        const float *from = staging_of(g, r, call);
        uint32_t count = r == g.rank ? 0 : count_of_block(a.n_rows * columns_of(a, r), each);
        for (uint32_t i = threadIdx.x; i < count; i += ALL_REDUCE_THREADS)
            *element_of(a, r, first + i) = from[i];
    }
}
