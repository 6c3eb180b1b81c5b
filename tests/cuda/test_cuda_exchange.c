/* test_cuda_exchange.c - ranks as processes, each with a GPU of the fake driver, that exchange over exchange.h.
 *
 * What would break in production: ranks that choose different paths and wait for each other for ever; sums that
 * differ by rank; a dead or stuck rank that takes the others with it without a word. */
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "common/clock.h"
#include "gpu-worker/cuda/exchange.h"
#include "gpu-worker/cuda/exchange_state.h"
#include "tests/check.h"

enum { RANKS_MAX = 4, LARGE = 270000, FLOATS_MAX = (2 << 20) + 5000 };

/* Seen by all processes of a test. */
struct board {
    _Atomic uint32_t progress[RANKS_MAX]; /* what a rank has done */
    _Atomic uint64_t bits[RANKS_MAX];     /* sum of its results' bits */
    _Atomic bool go;
    char said[RANKS_MAX][256];
};

/* One rank, in its process. */
struct rank {
    uint32_t rank, n_ranks;
    struct board *board;
    struct exchange_setup setup;
    struct device *device;
    struct device_stream stream;
    struct exchange *x;
    float *in, *out; /* on the device, [FLOATS_MAX] */
    float *host;     /* pinned, [FLOATS_MAX] */
};

typedef void rank_fn(struct rank *r);

static struct board *board;
static uint32_t n_groups;

/* ---- in a rank's process, where cmocka is not ---- */

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "rank %u: line %d: %s\n", r->rank, __LINE__, #condition);              \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define CHECK_OK(call)                                                                             \
    do {                                                                                           \
        struct err e_ = { 0 }, *e = &e_;                                                           \
        if (!(call)) {                                                                             \
            fprintf(stderr, "rank %u: line %d: %s\n", r->rank, __LINE__, e_.msg);                  \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

static float *alloc_floats(struct rank *r)
{
    cu_ptr p = 0;

    CHECK_OK(device_alloc(r->device, &p, FLOATS_MAX * sizeof(float), e));
    return (float *)(uintptr_t)p;
}

static void open_device(struct rank *r)
{
    void *p = NULL;

    CHECK_OK(device_open(&r->device, (int)r->rank, NULL, e));
    CHECK_OK(device_stream_open(&r->stream, r->device, 0, e));
    CHECK_OK(device_host_alloc(r->device, &p, FLOATS_MAX * sizeof(float), e));
    r->host = p;
    r->in = alloc_floats(r);
    r->out = alloc_floats(r);
    r->setup.device = r->device;
}

static void open_exchange(struct rank *r)
{
    open_device(r);
    CHECK_OK((r->x = exchange_open(&r->setup, e)) != NULL);
}

static void close_exchange(struct rank *r)
{
    exchange_close(r->x);
    device_free(r->device, (cu_ptr)(uintptr_t)r->in);
    device_free(r->device, (cu_ptr)(uintptr_t)r->out);
    device_host_free(r->device, r->host);
    device_stream_close(&r->stream);
    device_close(r->device);
}

static void finish(struct rank *r)
{
    CHECK_OK(device_stream_finish(&r->stream, 120 * NS_PER_S, e));
}

static void put(struct rank *r, float *to, size_t n)
{
    CHECK(device_copy_in(&r->stream, (cu_ptr)(uintptr_t)to, r->host, n * sizeof(float)));
    finish(r);
}

static void get(struct rank *r, const float *from, size_t n)
{
    CHECK(device_copy_out(&r->stream, r->host, (cu_ptr)(uintptr_t)from, n * sizeof(float)));
    finish(r);
}

/* Sums of these depend on their order. */
static float value(uint32_t rank, size_t i)
{
    return ldexpf((float)((i * 37 + rank * 11) % 1009 + 1), (int)((i + rank * 5) % 20) - 12);
}

static uint64_t bits_of(const float *v, size_t n)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &v[i], sizeof bits);
        sum = sum * 0x9e3779b97f4a7c15u + bits;
    }
    return sum;
}

static void check_sums(struct rank *r, size_t n, float before, bool in_rank_order)
{
    get(r, r->out, n);
    for (size_t i = 0; i < n; i++) {
        float sum = value(0, i), magnitude = value(0, i);
        for (uint32_t p = 1; p < r->n_ranks; p++) {
            sum += value(p, i);
            magnitude += value(p, i);
        }
        if (in_rank_order)
            CHECK(r->host[i] == sum + before);
        else
            CHECK(fabsf(r->host[i] - (sum + before)) <= 1e-6f * (magnitude + before));
    }
    atomic_store(&r->board->bits[r->rank],
                 atomic_load(&r->board->bits[r->rank]) * 31 + bits_of(r->host, n));
}

/* One all-reduce of n floats, added to 2 or not. */
static void sum(struct rank *r, size_t n, bool add, bool in_rank_order)
{
    for (size_t i = 0; i < n; i++)
        r->host[i] = 2;
    put(r, r->out, n);
    for (size_t i = 0; i < n; i++)
        r->host[i] = value(r->rank, i);
    put(r, r->in, n);
    CHECK(exchange_all_reduce(r->x, &r->stream, r->out, r->in, n, add));
    finish(r);
    CHECK_OK(exchange_check(r->x, e));
    check_sums(r, n, add ? 2 : 0, in_rank_order);
}

static void gather(struct rank *r)
{
    static const uint32_t first[][RANKS_MAX + 1] = { { 0, 100, 257 }, { 0, 60, 60, 200, 257 } };
    const uint32_t *columns = first[r->n_ranks == 2 ? 0 : 1];
    uint32_t rows = 9, stride = 300;

    for (uint32_t i = 0; i < rows * stride; i++)
        r->host[i] = (float)r->rank;
    put(r, r->out, rows * stride);
    CHECK(exchange_all_gather(r->x, &r->stream, r->out, rows, stride, columns));
    get(r, r->out, rows * stride);
    for (uint32_t i = 0; i < rows * stride; i++) {
        uint32_t owner = r->rank;
        for (uint32_t p = 0; p < r->n_ranks; p++)
            if (i % stride >= columns[p] && i % stride < columns[p + 1])
                owner = p;
        CHECK(r->host[i] == (float)owner);
    }
}

/* ---- from the test ---- */

static pid_t start_rank(const struct rank *like, rank_fn *run)
{
    struct rank r = *like;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    run(&r);
    _exit(0);
}

static void start_all(pid_t *pids, uint32_t n_ranks, struct exchange_setup setup, rank_fn *run)
{
    memset(board, 0, sizeof *board);
    n_groups++;
    for (uint32_t i = 0; i < n_ranks; i++) {
        struct rank r = { .rank = i, .n_ranks = n_ranks, .board = board, .setup = setup };
        r.setup.rank = i;
        r.setup.tp_size = n_ranks;
        r.setup.epoch = 1;
        r.setup.group_id = (uint64_t)getpid() << 20 | n_groups;
        pids[i] = start_rank(&r, run);
    }
}

static int exit_of(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

static void run_all(uint32_t n_ranks, struct exchange_setup setup, rank_fn *run)
{
    pid_t pids[RANKS_MAX];
    int bad = 0;

    start_all(pids, n_ranks, setup, run);
    for (uint32_t i = 0; i < n_ranks; i++)
        bad |= exit_of(pids[i]);
    assert_int_equal(bad, 0);
}

static void all_have_the_same_bits(uint32_t n_ranks)
{
    assert_true(atomic_load(&board->bits[0]) != 0);
    for (uint32_t i = 1; i < n_ranks; i++)
        assert_true(atomic_load(&board->bits[i]) == atomic_load(&board->bits[0]));
}

/* ---- sums ---- */

static void sum_and_gather(struct rank *r)
{
    open_exchange(r);
    CHECK(exchange_path(r->x) == (r->setup.host_only ? EXCHANGE_HOST : EXCHANGE_P2P));
    sum(r, 1, false, true);
    sum(r, 4096, true, true);
    sum(r, 150001, true, true); /* two-shot with 4 ranks */
    gather(r);
    sum(r, 2050, false, true);
    close_exchange(r);
}

static void ranks_sum_alike_in_device_memory(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 4; n += 2) {
        run_all(n, (struct exchange_setup){ 0 }, sum_and_gather);
        all_have_the_same_bits(n);
    }
}

static void ranks_sum_alike_in_host_memory(void **state)
{
    (void)state;
    run_all(4, (struct exchange_setup){ .host_only = true }, sum_and_gather);
    all_have_the_same_bits(4);
}

static void sum_long(struct rank *r)
{
    open_exchange(r);
    sum(r, FLOATS_MAX, false, true); /* more than one call takes */
    close_exchange(r);
}

static void long_data_goes_in_pieces(void **state)
{
    (void)state;
    run_all(2, (struct exchange_setup){ 0 }, sum_long);
    all_have_the_same_bits(2);
}

/* One rank cannot map memory of another. */
static void sum_without_reach(struct rank *r)
{
    if (r->rank == 1)
        setenv("LLMD_FAKE_CUDA_FAULTS", "call cuMemImportFromShareableHandle 2: return 801", 1);
    open_exchange(r);
    CHECK(exchange_path(r->x) == EXCHANGE_HOST);
    sum(r, 4096, true, true);
    close_exchange(r);
}

static void where_one_rank_has_no_reach_all_use_host_memory(void **state)
{
    (void)state;
    run_all(3, (struct exchange_setup){ 0 }, sum_without_reach);
    all_have_the_same_bits(3);
}

/* ---- graphs ---- */

static void sum_by_graph(struct rank *r)
{
    struct device_graph graph = { 0 };

    open_exchange(r);
    for (size_t i = 0; i < 6000; i++)
        r->host[i] = 1;
    put(r, r->in, 6000);
    for (size_t i = 0; i < 6000; i++)
        r->host[i] = 0;
    put(r, r->out, 6000);
    CHECK(device_capture_begin(&r->stream));
    CHECK(exchange_all_reduce(r->x, &r->stream, r->out, r->in, 5000, true));
    CHECK(exchange_all_reduce(r->x, &r->stream, r->out, r->in, 6000, true));
    CHECK_OK(device_capture_end(&r->stream, &graph, e));
    for (int i = 0; i < 5; i++)
        CHECK(device_graph_launch(&r->stream, &graph));
    sum(r, 100, false, true); /* graphs and plain launches share their counts */
    finish(r);
    CHECK_OK(exchange_check(r->x, e));
    get(r, r->out, 6000);
    for (size_t i = 100; i < 6000; i++)
        CHECK(r->host[i] == (float)r->n_ranks * (i < 5000 ? 10 : 5));
    device_graph_free(r->device, &graph);
    close_exchange(r);
}

static void recorded_calls_can_be_repeated(void **state)
{
    (void)state;
    run_all(2, (struct exchange_setup){ 0 }, sum_by_graph);
}

/* ---- ranks that are gone ---- */

/* Steps without end: until a peer is missed. */
static void step_until_told(struct rank *r)
{
    struct err why = { 0 };

    open_exchange(r);
    for (uint32_t step = 1;; step++) {
        for (int i = 0; i < 4; i++)
            exchange_all_reduce(r->x, &r->stream, r->out, r->in, 9000, true);
        CHECK_OK(device_stream_finish(&r->stream, 120 * NS_PER_S, e));
        if (!exchange_check(r->x, &why))
            break;
        atomic_store(&r->board->progress[r->rank], step);
    }
    snprintf(r->board->said[r->rank], sizeof r->board->said[0], "%s", why.msg);
    _exit(7);
}

static void wait_for_steps(uint32_t n_ranks, uint32_t n_steps)
{
    for (uint32_t i = 0; i < n_ranks; i++)
        while (atomic_load(&board->progress[i]) < n_steps)
            nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
}

/* The survivors, all but `victim`, leave and say `words`. */
static void others_leave(pid_t *pids, uint32_t n_ranks, uint32_t victim, const char *words)
{
    for (uint32_t i = 0; i < n_ranks; i++) {
        if (i == victim)
            continue;
        assert_int_equal(exit_of(pids[i]), 7);
        if (!strstr(board->said[i], words))
            fail_msg("rank %u said '%s'", i, board->said[i]);
    }
}

static void the_death_of_a_rank_ends_the_step_of_all(void **state)
{
    (void)state;
    for (uint32_t n = 2; n <= 4; n += 2) {
        /* a wait in a kernel would go on for an hour: it is the socket that tells */
        struct exchange_setup setup = { .host_only = n == 4, .spin_limit_us = 3600000000u };
        uint32_t victim = n - 1;
        pid_t pids[RANKS_MAX];
        start_all(pids, n, setup, step_until_told);
        wait_for_steps(n, 3);
        kill(pids[victim], SIGKILL);
        assert_int_equal(exit_of(pids[victim]), 128 + SIGKILL);
        others_leave(pids, n, victim, "has left the group");
    }
}

static void a_rank_that_stands_still_is_given_up(void **state)
{
    /* longer than a machine with other work keeps a rank waiting */
    const struct exchange_setup setup = { .spin_limit_us = 5000000 };
    pid_t pids[RANKS_MAX];

    (void)state;
    start_all(pids, 2, setup, step_until_told);
    wait_for_steps(2, 1);
    kill(pids[0], SIGSTOP);
    others_leave(pids, 2, 0, "rank 0 did not come");
    kill(pids[0], SIGKILL);
    exit_of(pids[0]);
}

static void open_alone(struct rank *r)
{
    struct err e = { 0 };

    if (r->rank == 1)
        return; /* it never comes */
    open_device(r);
    CHECK(exchange_open(&r->setup, &e) == NULL);
    CHECK(e.code == ERR_TIMEOUT);
}

static void a_rank_that_never_comes_is_waited_for_within_a_limit(void **state)
{
    (void)state;
    run_all(2, (struct exchange_setup){ .open_limit_ms = 100 }, open_alone);
}

/* ---- NCCL ---- */

/* From now on, for this process: of what it has, the communicator that stands meets an error. */
static void lose_nccl(void)
{
    setenv("LLMD_FAKE_NCCL", "late=1:1", 1);
}

static void wait_until_nccl_is_ready(struct rank *r)
{
    struct timespec nap = { 0, 2000000 };

    if (r->rank == 0) {
        while (!exchange_nccl_is_ready(r->x))
            nanosleep(&nap, NULL);
        atomic_store(&r->board->go, true); /* the plan of a step, here */
    }
    while (!atomic_load(&r->board->go)) {
        exchange_use_nccl(r->x, false);
        nanosleep(&nap, NULL);
    }
}

static void sum_with_nccl(struct rank *r)
{
    open_exchange(r);
    sum(r, 4096, true, true); /* while it forms */
    wait_until_nccl_is_ready(r);
    exchange_use_nccl(r->x, true);
    sum(r, 4096, true, true);   /* small: by the own kernel */
    sum(r, LARGE, true, false); /* in another order */
    sum(r, LARGE, false, false);
    exchange_use_nccl(r->x, false);
    sum(r, LARGE, false, true);
    close_exchange(r);
}

static void large_sums_go_through_nccl_once_it_is_there(void **state)
{
    (void)state;
    setenv("LLMD_FAKE_NCCL", "init_ms=30", 1);
    run_all(2, (struct exchange_setup){ .nccl = true, .host_only = true }, sum_with_nccl);
    all_have_the_same_bits(2);
    unsetenv("LLMD_FAKE_NCCL");
}

static void sum_while_nccl_fails(struct rank *r)
{
    open_exchange(r);
    for (int i = 0; i < 3; i++) {
        CHECK(!exchange_nccl_is_ready(r->x));
        exchange_use_nccl(r->x, false);
        sum(r, 4096, true, true);
    }
    close_exchange(r);
}

static void a_group_goes_on_where_nccl_does_not_form(void **state)
{
    static const char *const ways[] = { "init=hang", "init=fail", "version=21000" };

    (void)state;
    for (int i = 0; i < 3; i++) {
        setenv("LLMD_FAKE_NCCL", ways[i], 1);
        run_all(2, (struct exchange_setup){ .nccl = true, .host_only = true },
                sum_while_nccl_fails);
        all_have_the_same_bits(2);
    }
    unsetenv("LLMD_FAKE_NCCL");
}

/* Rank 1 loses it while it is not in use; rank 0 hears of that, and does not plan with it any more. */
static void sum_when_one_has_lost_it(struct rank *r)
{
    struct timespec nap = { 0, 2000000 };

    open_exchange(r);
    wait_until_nccl_is_ready(r);
    lose_nccl();
    while (r->rank == 0 && exchange_nccl_is_ready(r->x))
        nanosleep(&nap, NULL);
    if (r->rank == 0)
        atomic_store(&r->board->progress[0], 1);
    while (atomic_load(&r->board->progress[0]) == 0) {
        exchange_use_nccl(r->x, false);
        nanosleep(&nap, NULL);
    }
    exchange_use_nccl(r->x, false);
    sum(r, LARGE, false, true);
    close_exchange(r);
}

/* The step that was to use it is over: an error, and nobody is waited for. */
static void sum_with_what_is_lost(struct rank *r)
{
    struct err e = { 0 };

    open_exchange(r);
    wait_until_nccl_is_ready(r);
    if (r->rank == 0)
        _exit(0);
    lose_nccl();
    while (r->x->nccl.state != NCCL_COMM_FAILED)
        exchange_use_nccl(r->x, true);
    CHECK(!exchange_all_reduce(r->x, &r->stream, r->out, r->in, LARGE, false));
    CHECK(!device_fault_err(r->device, &e) && strstr(e.msg, "its communicator has failed"));
    _exit(0);
}

static void a_communicator_that_one_rank_has_lost_serves_no_other(void **state)
{
    (void)state;
    run_all(2, (struct exchange_setup){ .nccl = true, .host_only = true },
            sum_when_one_has_lost_it);
    all_have_the_same_bits(2);
    run_all(2, (struct exchange_setup){ .nccl = true, .host_only = true }, sum_with_what_is_lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_sum_alike_in_device_memory),
        cmocka_unit_test(ranks_sum_alike_in_host_memory),
        cmocka_unit_test(long_data_goes_in_pieces),
        cmocka_unit_test(where_one_rank_has_no_reach_all_use_host_memory),
        cmocka_unit_test(recorded_calls_can_be_repeated),
        cmocka_unit_test(the_death_of_a_rank_ends_the_step_of_all),
        cmocka_unit_test(a_rank_that_stands_still_is_given_up),
        cmocka_unit_test(a_rank_that_never_comes_is_waited_for_within_a_limit),
        cmocka_unit_test(large_sums_go_through_nccl_once_it_is_there),
        cmocka_unit_test(a_group_goes_on_where_nccl_does_not_form),
        cmocka_unit_test(a_communicator_that_one_rank_has_lost_serves_no_other),
    };

    setenv("LLMD_FAKE_CUDA", "gpus=4", 1);
    nccl_comm_environment(false);
    board = mmap(NULL, sizeof *board, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return board == MAP_FAILED ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
