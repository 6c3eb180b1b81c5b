/* test_cuda_all_reduce.c - the kernels between ranks on the shim: a rank is a thread of the system, its area plain memory.
 *
 * What would break in production: ranks with different bits; a call that reads what its neighbour has overwritten; a
 * rank that waits for a dead one for ever, or that goes on with half a sum. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "gpu-worker/cuda/kernels/all_reduce.h"
#include "tests/check.h"
#include "tests/cuda/l1.h"
#include "tests/cuda/shim/kernel_registry.h"

enum { RANKS_MAX = ALL_REDUCE_RANKS_MAX };

/* A group of ranks, all in this process. */
struct group {
    uint32_t n_ranks;
    char *areas[RANKS_MAX];
    struct all_reduce_status status[RANKS_MAX];
    _Atomic uint32_t abort_word;
    uint32_t spin_limit_us;
};

/* What one rank does, in a thread of its own. */
typedef void rank_fn(struct group *g, uint32_t rank, void *arg);

struct rank_thread {
    struct group *group;
    uint32_t rank;
    rank_fn *run;
    void *arg;
};

static void group_open(struct group *g, uint32_t n_ranks)
{
    *g = (struct group){ .n_ranks = n_ranks, .spin_limit_us = 60000000 };
    for (uint32_t r = 0; r < n_ranks; r++) {
        g->areas[r] = mmap(NULL, ALL_REDUCE_AREA_BYTES, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_true(g->areas[r] != MAP_FAILED);
    }
}

static void group_close(struct group *g)
{
    for (uint32_t r = 0; r < g->n_ranks; r++)
        munmap(g->areas[r], ALL_REDUCE_AREA_BYTES);
}

static void *rank_main(void *arg)
{
    struct rank_thread *t = arg;

    t->run(t->group, t->rank, t->arg);
    return NULL;
}

static void run_ranks(struct group *g, uint32_t first, uint32_t end, rank_fn *run, void *arg)
{
    struct rank_thread ranks[RANKS_MAX];
    pthread_t threads[RANKS_MAX];

    for (uint32_t r = first; r < end; r++) {
        ranks[r] = (struct rank_thread){ g, r, run, arg };
        assert_int_equal(pthread_create(&threads[r], NULL, rank_main, &ranks[r]), 0);
    }
    for (uint32_t r = first; r < end; r++)
        pthread_join(threads[r], NULL);
}

static struct all_reduce_group args_of(struct group *g, uint32_t rank)
{
    struct all_reduce_group a = { .rank = rank,
                                  .n_ranks = g->n_ranks,
                                  .abort_word = (const uint32_t *)&g->abort_word,
                                  .abort_value = 7,
                                  .spin_limit_us = g->spin_limit_us,
                                  .status = &g->status[rank] };

    memcpy(a.areas, g->areas, sizeof a.areas);
    return a;
}

static void reduce(struct group *g, uint32_t rank, float *out, const float *in, uint32_t n,
                   bool add, bool two_shot)
{
    struct all_reduce_args args = { args_of(g, rank), out, in, n, add, two_shot };

    l1_launch("all_reduce", all_reduce_blocks(n), 1, 1, 0, &args, sizeof args);
}

/* ---- numbers ---- */

/* Values whose sum depends on the order in which they are added. */
static float value(uint32_t rank, uint32_t call, size_t i)
{
    uint32_t h = (uint32_t)i * 2654435761u ^ (rank + 1) * 40503u ^ call * 97u;

    h ^= h >> 15;
    h *= 2246822519u;
    h ^= h >> 13;
    return ldexpf((float)(int32_t)h, -31 + (int)(h % 24));
}

static float residual(size_t i)
{
    return (float)(i % 1000) * 0.37f;
}

static float wanted(uint32_t n_ranks, uint32_t call, size_t i, bool add)
{
    float sum = value(0, call, i);

    for (uint32_t r = 1; r < n_ranks; r++)
        sum += value(r, call, i);
    return add ? residual(i) + sum : sum;
}

static float *make_floats(size_t n)
{
    float *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);

    assert_non_null(p);
    return p;
}

struct sum_case {
    uint32_t n;
    bool add, two_shot, in_place;
};

/* One call; every element must be the very float that adding in rank order gives. */
static void sum_once(struct group *g, uint32_t rank, void *arg)
{
    const struct sum_case *c = arg;
    float *in = make_floats(c->n), *out = c->in_place ? in : make_floats(c->n);

    for (size_t i = 0; i < c->n; i++) {
        if (!c->in_place)
            out[i] = residual(i);
        in[i] = value(rank, 0, i);
    }
    reduce(g, rank, out, in, c->n, c->add, c->two_shot);
    for (size_t i = 0; i < c->n; i++)
        if (out[i] != wanted(g->n_ranks, 0, i, c->add))
            fail_msg("rank %u of %u, n %u: [%zu] is %a, not %a", rank, g->n_ranks, c->n, i, out[i],
                     wanted(g->n_ranks, 0, i, c->add));
    if (!c->in_place)
        free(out);
    free(in);
}

static void check_sums(uint32_t n_ranks, uint32_t n, bool add, bool in_place)
{
    for (int form = 0; form < 2; form++) {
        struct sum_case c = { n, add, form == 1, in_place };
        struct group g;
        group_open(&g, n_ranks);
        run_ranks(&g, 0, n_ranks, sum_once, &c);
        for (uint32_t i = 0; i < n_ranks; i++)
            assert_int_equal(g.status[i].code, ALL_REDUCE_OK);
        group_close(&g);
    }
}

static void sums_are_those_of_rank_order(void **state)
{
    static const uint32_t sizes[] = { 1, 4, 5, 1023, 1025, 3001 };
    static const uint32_t ranks[] = { 1, 2, 3, 8 };

    (void)state;
    for (size_t r = 0; r < sizeof ranks / sizeof ranks[0]; r++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++)
            check_sums(ranks[r], sizes[s], s % 2 == 0, s == 3);
}

/* All blocks, each with more than one unit a thread. */
static void long_data_is_summed_alike(void **state)
{
    (void)state;
    check_sums(2, 150001, true, false);
    check_sums(3, 9999, false, true);
}

static void the_largest_call_fills_the_area(void **state)
{
    struct sum_case c = { ALL_REDUCE_FLOATS_MAX, false, true, true };
    struct group g;

    (void)state;
    group_open(&g, 2);
    run_ranks(&g, 0, 2, sum_once, &c);
    group_close(&g);
}

/* ---- many calls ---- */

enum { CALLS = 14 };

/* Sizes that use other numbers of blocks each time, both forms, and ranks that are late in turns. */
static void sum_often(struct group *g, uint32_t rank, void *arg)
{
    static const uint32_t sizes[] = { 40, 5000, 1024, 1, 7000, 2051, 70 };
    float *buf = make_floats(7000);

    (void)arg;
    for (uint32_t call = 0; call < CALLS; call++) {
        uint32_t n = sizes[call % 7];
        for (size_t i = 0; i < n; i++)
            buf[i] = value(rank, call, i);
        if (call % g->n_ranks == rank)
            nanosleep(&(struct timespec){ 0, 200000 }, NULL);
        reduce(g, rank, buf, buf, n, false, call % 3 == 1);
        for (size_t i = 0; i < n; i++)
            if (buf[i] != wanted(g->n_ranks, call, i, false))
                fail_msg("rank %u, call %u: [%zu] is %a, not %a", rank, call, i, buf[i],
                         wanted(g->n_ranks, call, i, false));
    }
    free(buf);
}

static void calls_of_all_sizes_follow_each_other(void **state)
{
    (void)state;
    for (enum shim_order order = 0; order < N_SHIM_ORDERS; order++) {
        struct group g;
        shim_set_order(order, 12345);
        group_open(&g, order % 2 == 0 ? 2 : 4);
        run_ranks(&g, 0, g.n_ranks, sum_often, NULL);
        group_close(&g);
    }
    shim_set_order(SHIM_FORWARD, 0);
}

/* Where a group has made nearly 2^32 calls. */
static void counts_may_pass_the_end_of_their_range(void **state)
{
    struct group g;

    (void)state;
    group_open(&g, 2);
    for (uint32_t r = 0; r < 2; r++) {
        struct all_reduce_control *c = (struct all_reduce_control *)g.areas[r];
        memset(c->calls, 0xff, sizeof c->calls);
        memset(c->arrived, 0xff, sizeof c->arrived);
        memset(c->reduced, 0xff, sizeof c->reduced);
        for (int b = 0; b < ALL_REDUCE_BLOCKS_MAX; b++) {
            c->calls[b] -= 2;
            for (int p = 0; p < RANKS_MAX; p++) {
                c->arrived[b][p] -= 2;
                c->reduced[b][p] -= 2;
            }
        }
    }
    run_ranks(&g, 0, 2, sum_often, NULL);
    group_close(&g);
}

/* ---- peers that are gone ---- */

enum { ALONE_N = 5000 };

static void sum_alone(struct group *g, uint32_t rank, void *arg)
{
    float *buf = make_floats(ALONE_N), *out = make_floats(ALONE_N);

    (void)arg;
    for (size_t i = 0; i < ALONE_N; i++) {
        buf[i] = 1;
        out[i] = -5;
    }
    reduce(g, rank, out, buf, ALONE_N, false, false);
    reduce(g, rank, out, buf, ALONE_N, false, true); /* once lost, no call waits again */
    for (size_t i = 0; i < ALONE_N; i++)
        assert_true(out[i] == -5);
    free(buf);
    free(out);
}

static void *abort_soon(void *arg)
{
    struct group *g = arg;

    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    atomic_store(&g->abort_word, 7);
    return NULL;
}

static void an_abort_ends_the_wait(void **state)
{
    struct group g;
    pthread_t thread;

    (void)state;
    group_open(&g, 3);
    atomic_store(&g.abort_word, 6); /* of another epoch */
    assert_int_equal(pthread_create(&thread, NULL, abort_soon, &g), 0);
    run_ranks(&g, 0, 2, sum_alone, NULL); /* rank 2 never comes */
    pthread_join(thread, NULL);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(g.status[r].code, ALL_REDUCE_ABORTED);
        assert_int_equal(g.status[r].peer, 2);
        assert_int_equal(g.status[r].call, 1);
    }
    group_close(&g);
}

static void a_peer_that_does_not_come_is_given_up(void **state)
{
    struct group g;

    (void)state;
    group_open(&g, 2);
    g.spin_limit_us = 30000;
    run_ranks(&g, 1, 2, sum_alone, NULL);
    assert_int_equal(g.status[1].code, ALL_REDUCE_TIMED_OUT);
    assert_int_equal(g.status[1].peer, 0);
    group_close(&g);
}

/* ---- gathering ---- */

struct gather_case {
    uint32_t n_rows, stride;
    uint32_t first[RANKS_MAX + 1];
};

static uint32_t owner_of(const struct gather_case *c, uint32_t n_ranks, uint32_t column)
{
    for (uint32_t r = 0; r < n_ranks; r++)
        if (column >= c->first[r] && column < c->first[r + 1])
            return r;
    return n_ranks;
}

static void gather_once(struct group *g, uint32_t rank, void *arg)
{
    const struct gather_case *c = arg;
    size_t n = (size_t)c->n_rows * c->stride;
    float *buf = make_floats(n);
    struct all_gather_args args = {
        .group = args_of(g, rank), .buf = buf, .n_rows = c->n_rows, .stride = c->stride
    };
    uint32_t widest = 1;

    memcpy(args.first, c->first, sizeof args.first);
    for (uint32_t r = 0; r < g->n_ranks; r++)
        widest = c->first[r + 1] - c->first[r] > widest ? c->first[r + 1] - c->first[r] : widest;
    for (size_t i = 0; i < n; i++)
        buf[i] =
            owner_of(c, g->n_ranks, (uint32_t)(i % c->stride)) == rank ? value(rank, 0, i) : -1;
    l1_launch("all_gather", all_reduce_blocks((size_t)c->n_rows * widest), 1, 1, 0, &args,
              sizeof args);
    for (size_t i = 0; i < n; i++) {
        uint32_t owner = owner_of(c, g->n_ranks, (uint32_t)(i % c->stride));
        float want = owner < g->n_ranks ? value(owner, 0, i) : -1;
        if (buf[i] != want)
            fail_msg("rank %u: [%zu] is %a, not %a", rank, i, buf[i], want);
    }
    free(buf);
}

static void columns_of_all_ranks_come_together(void **state)
{
    static struct gather_case cases[] = {
        { 1, 8, { 0, 3, 8 } },
        { 7, 1030, { 0, 500, 1029 } },     /* a column that is nobody's */
        { 3, 64, { 10, 10, 40, 64, 64 } }, /* ranks with none, columns before the first */
        { 40, 4000, { 0, 1000, 2000, 3000, 4000 } },
        { 2, 100, { 0, 12, 24, 36, 48, 60, 72, 84, 97 } },
    };
    static const uint32_t ranks[] = { 2, 2, 4, 4, 8 };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct group g;
        group_open(&g, ranks[i]);
        run_ranks(&g, 0, ranks[i], gather_once, &cases[i]);
        group_close(&g);
    }
}

/* ---- adding ---- */

static void numbers_are_added_to_others(void **state)
{
    static const size_t sizes[] = { 1, 4, 2047, 2048, 10001 };

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        size_t n = sizes[s];
        float *in = make_floats(n), *out = make_floats(n);
        struct add_floats_args args = { out, in, n };
        for (size_t i = 0; i < n; i++) {
            in[i] = value(0, 1, i);
            out[i] = residual(i);
        }
        l1_launch("add_floats", add_floats_blocks(n), 1, 1, 0, &args, sizeof args);
        for (size_t i = 0; i < n; i++)
            assert_true(out[i] == residual(i) + value(0, 1, i));
        free(in);
        free(out);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_rank_order),
        cmocka_unit_test(long_data_is_summed_alike),
        cmocka_unit_test(the_largest_call_fills_the_area),
        cmocka_unit_test(calls_of_all_sizes_follow_each_other),
        cmocka_unit_test(counts_may_pass_the_end_of_their_range),
        cmocka_unit_test(an_abort_ends_the_wait),
        cmocka_unit_test(a_peer_that_does_not_come_is_given_up),
        cmocka_unit_test(columns_of_all_ranks_come_together),
        cmocka_unit_test(numbers_are_added_to_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
