/* test_comm.c - ranks in step, over the group segment, as processes and as threads.
 *
 * What would break in production: a rank that reads columns its peer has not written yet; a rank that waits
 * for ever for a dead one; a group that cannot start again in the segment its dead predecessor left. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu-worker/comm/comm.h"
#include "proto/group_layout.h"

enum { RANKS = 3, COLUMNS = 96, PHASES = 400 };

static const struct comm_shape shape = {
    .tp_size = RANKS,
    .rows_max = 16,
    .seqs_max = 4,
    .pages_max = 8,
    .activation_bytes = 2 * COLUMNS * sizeof(uint32_t),
    .host_bytes = RANKS * COLUMNS * sizeof(uint32_t),
};

static const struct comm_columns all = { 1, COLUMNS, 1 };

static struct segment make_group(void)
{
    struct segment s;
    struct err e = { 0 };

    assert_true(
        segment_create(&s, SEGMENT_GROUP, GROUP_VERSION, "test", comm_group_bytes(&shape), 1, &e));
    return s;
}

static struct comm *join(const struct segment *s, uint32_t rank, uint32_t epoch)
{
    struct err e = { 0 };
    struct comm *c = comm_open(fcntl(s->fd, F_DUPFD_CLOEXEC, 0), &shape, NULL, rank, epoch, &e);

    if (!c)
        fprintf(stderr, "join: %s\n", e.msg);
    return c;
}

/* Write my columns of one buffer, gather, check everybody's, take turns between two buffers.  False when
 * a gather fails or a column is not its writer's. */
static bool exchange(struct comm *c, uint32_t *bufs[2], uint32_t rank, uint32_t n_phases,
                     struct err *e)
{
    bufs[0] = comm_alloc(c, COLUMNS * sizeof(uint32_t));
    bufs[1] = comm_alloc(c, COLUMNS * sizeof(uint32_t));
    for (uint32_t phase = 1; phase <= n_phases; phase++) {
        uint32_t *buf = bufs[phase % 2];
        for (uint32_t i = rank; i < COLUMNS; i += RANKS)
            buf[i] = phase * 1000 + i;
        if (!comm_all_gather(c, buf, &all, e))
            return false;
        for (uint32_t i = 0; i < COLUMNS; i++)
            if (buf[i] != phase * 1000 + i) {
                err_set(e, ERR_PROTO, 0, "phase %u column %u: %u", phase, i, buf[i]);
                return false;
            }
    }
    return true;
}

/* A child process as rank `rank`: exits 0 when every phase was right.  It leaves by _exit, as a killed
 * process would, but for comm_close() when it has done its part. */
static pid_t start_rank(const struct segment *s, uint32_t rank, uint32_t epoch, uint32_t n_phases,
                        bool then_hang)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct err e = { 0 };
        struct comm *c = join(s, rank, epoch);
        uint32_t *bufs[2];
        bool ok = c && exchange(c, bufs, rank, n_phases, &e);
        if (then_hang)
            for (;;)
                pause();
        comm_close(c);
        _exit(ok ? 0 : 1);
    }
    return pid;
}

static int end_of(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void processes_see_each_others_columns(void **state)
{
    struct segment s = make_group();
    struct err e = { 0 };
    uint32_t *bufs[2];
    pid_t pids[RANKS];
    struct comm *c;

    (void)state;
    for (uint32_t r = 1; r < RANKS; r++)
        pids[r] = start_rank(&s, r, 1, PHASES, false);
    c = join(&s, 0, 1);
    if (!exchange(c, bufs, 0, PHASES, &e))
        fail_msg("%s", e.msg);
    comm_close(c);
    for (uint32_t r = 1; r < RANKS; r++)
        assert_int_equal(end_of(pids[r]), 0);
    segment_close(&s);
}

struct thread_rank {
    const struct segment *segment;
    uint32_t rank;
    bool ok;
    struct err e;
};

static void *run_thread_rank(void *arg)
{
    struct thread_rank *t = arg;
    struct comm *c = join(t->segment, t->rank, 1);
    uint32_t *bufs[2];

    t->ok = c && exchange(c, bufs, t->rank, PHASES, &t->e);
    comm_close(c);
    return NULL;
}

/* The same as threads: here a missing order shows up under the thread sanitizer. */
static void threads_see_each_others_columns(void **state)
{
    struct segment s = make_group();
    struct thread_rank t[RANKS];
    pthread_t ids[RANKS];

    (void)state;
    for (uint32_t r = 0; r < RANKS; r++) {
        t[r] = (struct thread_rank){ .segment = &s, .rank = r };
        assert_int_equal(pthread_create(&ids[r], NULL, run_thread_rank, &t[r]), 0);
    }
    for (uint32_t r = 0; r < RANKS; r++)
        pthread_join(ids[r], NULL);
    for (uint32_t r = 0; r < RANKS; r++)
        if (!t[r].ok)
            fail_msg("rank %u: %s", r, t[r].e.msg);
    segment_close(&s);
}

/* A killed peer ends the wait of every other rank, and the next epoch works in the same segment. */
static void a_killed_peer_is_an_error_and_not_a_hang(void **state)
{
    struct segment s = make_group();
    struct err e = { 0 };
    uint32_t *bufs[2];
    pid_t victim, other;
    struct comm *c;

    (void)state;
    for (uint32_t epoch = 1; epoch <= 3; epoch++) {
        victim = start_rank(&s, 1, epoch, 10, true);
        other = start_rank(&s, 2, epoch, PHASES, false);
        c = join(&s, 0, epoch);
        assert_true(exchange(c, bufs, 0, 10, &e));
        kill(victim, SIGKILL);
        assert_false(comm_all_gather(c, bufs[0], &all, &e));
        assert_int_equal(e.code, ERR_DEVICE);
        assert_true(WIFSIGNALED(end_of(victim)));
        assert_true(WIFEXITED(end_of(other))); /* it did not hang either */
        comm_close(c);
    }
    segment_close(&s);
    processes_see_each_others_columns(state);
}

static void a_peer_that_left_is_an_error(void **state)
{
    struct segment s = make_group();
    struct err e = { 0 };
    uint32_t *bufs[2];
    pid_t pids[RANKS];
    struct comm *c;

    (void)state;
    for (uint32_t r = 1; r < RANKS; r++)
        pids[r] = start_rank(&s, r, 1, 5, false);
    c = join(&s, 0, 1);
    assert_false(exchange(c, bufs, 0, 6, &e)); /* one phase more than the others */
    assert_int_equal(e.code, ERR_DEVICE);
    comm_close(c);
    for (uint32_t r = 1; r < RANKS; r++)
        end_of(pids[r]);
    segment_close(&s);
}

static void an_old_epoch_is_fenced(void **state)
{
    struct segment s = make_group();
    struct comm *c = join(&s, 0, 4), *newer;
    struct err e = { 0 };

    (void)state;
    assert_null(comm_open(fcntl(s.fd, F_DUPFD_CLOEXEC, 0), &shape, NULL, 1, 3, &e));
    assert_int_equal(e.code, ERR_PROTO);
    newer = join(&s, 1, 5);
    assert_false(comm_all_gather(c, comm_alloc(c, 64), &all, &e));
    assert_non_null(strstr(e.msg, "epoch 5"));
    comm_close(c);
    comm_close(newer);
    segment_close(&s);
}

/* ---- the step's plan ---- */

struct follower {
    struct comm *c;
    void *buf;
    uint32_t n_steps, n_rows;
    enum comm_event end;
};

static void *run_follower(void *arg)
{
    struct follower *f = arg;
    struct err e = { 0 };
    struct batch b;
    struct comm_order o;

    while ((f->end = comm_follow(f->c, &b, &o, &e)) == COMM_STEP) {
        f->n_steps++;
        f->n_rows += b.n_rows;
        if (b.n_seqs != 2 || b.seqs[1].n_pages != 3 || b.seqs[1].pages[2] != 70 + f->n_steps ||
            b.tokens[b.n_rows - 1] != 9 || b.logit_rows[0] != 4 || b.seqs[0].pages[0] != 5 ||
            b.seqs[1].start != 17 || !comm_all_gather(f->c, f->buf, &all, &e))
            break;
    }
    return NULL;
}

/* Plans arrive as they were made; stopping ends the wait at once, and waiting costs no CPU. */
static void plans_arrive_until_the_end(void **state)
{
    struct segment s = make_group();
    struct follower f[RANKS] = { 0 };
    struct timespec nap = { 0, 200000000 };
    struct rusage before, after;
    pthread_t ids[RANKS];
    struct comm *c = join(&s, 0, 1);
    struct err e = { 0 };
    void *buf;

    (void)state;
    buf = comm_alloc(c, 64);
    for (uint32_t r = 1; r < RANKS; r++) {
        f[r].c = join(&s, r, 1);
        f[r].buf = comm_alloc(f[r].c, 64);
        pthread_create(&ids[r], NULL, run_follower, &f[r]);
    }
    for (uint32_t step = 1; step <= 50; step++) {
        uint32_t first[] = { 5 }, second[] = { 1, 2, 70 + step }, logit_rows[] = { 4 };
        int32_t tokens[] = { 1, 2, 3, 4, 9 };
        struct batch_seq seqs[] = { { 0, 2, 0, 1, first }, { 2, 3, 17, 3, second } };
        struct batch b = { 5, tokens, 2, seqs, 1, logit_rows, false };
        assert_true(comm_publish(c, &b, &e));
        assert_true(comm_all_gather(c, buf, &all, &e));
    }
    nanosleep(&(struct timespec){ 0, 20000000 }, NULL);
    getrusage(RUSAGE_SELF, &before);
    nanosleep(&nap, NULL);
    getrusage(RUSAGE_SELF, &after);
    assert_true((after.ru_utime.tv_sec - before.ru_utime.tv_sec) * 1000000 +
                    after.ru_utime.tv_usec - before.ru_utime.tv_usec <
                10000);
    comm_stop(c);
    for (uint32_t r = 1; r < RANKS; r++) {
        pthread_join(ids[r], NULL);
        assert_int_equal(f[r].end, COMM_STOP);
        assert_int_equal(f[r].n_steps, 50);
        assert_int_equal(f[r].n_rows, 250);
        comm_close(f[r].c);
    }
    comm_close(c);
    segment_close(&s);
}

/* Answers each number of every order with itself times the argument, plus the rank. */
static void *run_obedient(void *arg)
{
    struct follower *f = arg;
    struct err e = { 0 };
    struct batch b;
    struct comm_order o;

    while ((f->end = comm_follow(f->c, &b, &o, &e)) == COMM_ORDER) {
        uint32_t *answers = (uint32_t *)f->buf + f->n_rows * COLUMNS;
        f->n_steps++;
        for (uint32_t i = 0; i < o.n; i++)
            answers[i] = o.numbers[i] * o.argument + f->n_rows;
        if (o.what != 7 || !comm_join_host(f->c, &e))
            break;
    }
    return NULL;
}

static void orders_are_answered_between_steps(void **state)
{
    struct segment s = make_group();
    struct follower f[RANKS] = { 0 };
    pthread_t ids[RANKS];
    struct comm *c = join(&s, 0, 1);
    struct err e = { 0 };
    uint32_t *answers;

    (void)state;
    answers = comm_alloc_host(c, RANKS * COLUMNS * sizeof *answers);
    for (uint32_t r = 1; r < RANKS; r++) {
        f[r].c = join(&s, r, 1);
        f[r].buf = comm_alloc_host(f[r].c, RANKS * COLUMNS * sizeof *answers);
        f[r].n_rows = r;
        pthread_create(&ids[r], NULL, run_obedient, &f[r]);
    }
    for (uint32_t i = 1; i <= 100; i++) {
        uint32_t numbers[COLUMNS];
        struct comm_order o = { 7, i, i % COLUMNS, numbers };
        for (uint32_t k = 0; k < o.n; k++)
            numbers[k] = k * k;
        assert_true(comm_publish_order(c, &o, &e) && comm_join_host(c, &e));
        for (uint32_t r = 1; r < RANKS; r++)
            for (uint32_t k = 0; k < o.n; k++)
                assert_int_equal(answers[r * COLUMNS + k], k * k * i + r);
    }
    comm_stop(c);
    for (uint32_t r = 1; r < RANKS; r++) {
        pthread_join(ids[r], NULL);
        assert_int_equal(f[r].end, COMM_STOP);
        assert_int_equal(f[r].n_steps, 100);
        comm_close(f[r].c);
    }
    comm_close(c);
    segment_close(&s);
}

/* Activations that are somewhere else: comm/ only says what is to be made whole. */
struct elsewhere {
    float memory[COLUMNS];
    uint32_t asked, told, gathered, summed, added;
    struct comm_columns columns;
};

static void *elsewhere_alloc(void *ctx, size_t bytes, struct err *e)
{
    struct elsewhere *d = ctx;

    (void)e;
    assert_true(bytes <= sizeof d->memory);
    return d->memory;
}

static bool elsewhere_gather(void *ctx, float *buf, const struct comm_columns *c, struct err *e)
{
    struct elsewhere *d = ctx;

    (void)e;
    d->gathered += buf == d->memory + 16;
    d->columns = *c;
    return true;
}

static bool elsewhere_sum(void *ctx, float *buf, size_t n, struct err *e)
{
    struct elsewhere *d = ctx;

    (void)buf;
    (void)e;
    d->summed += (uint32_t)n;
    return true;
}

static bool elsewhere_add_sum(void *ctx, float *x, float *y, size_t n, struct err *e)
{
    struct elsewhere *d = ctx;

    (void)e;
    d->added += x == d->memory && y == d->memory + 16 ? (uint32_t)n : 0;
    return true;
}

static uint32_t elsewhere_ask(void *ctx)
{
    return 100 + ++((struct elsewhere *)ctx)->asked;
}

static void elsewhere_tell(void *ctx, uint32_t answer)
{
    ((struct elsewhere *)ctx)->told = answer;
}

static void a_devices_activations_are_made_whole_by_the_device(void **state)
{
    static const struct comm_shape apart = { .tp_size = 2,
                                             .rows_max = 16,
                                             .seqs_max = 4,
                                             .pages_max = 8,
                                             .activation_bytes = COLUMNS * sizeof(float),
                                             .host_bytes = 64,
                                             .on_device = true };
    struct elsewhere there[2] = { 0 };
    struct comm_device devices[2];
    struct comm *c[2];
    uint32_t page = 3, row = 0;
    int32_t token = 1;
    struct batch_seq seq = { 0, 1, 0, 1, &page };
    struct batch b = { 1, &token, 1, &seq, 1, &row, false }, got;
    struct segment s = { .fd = -1 };
    struct comm_order order;
    struct err e = { 0 };

    (void)state;
    assert_true(
        segment_create(&s, SEGMENT_GROUP, GROUP_VERSION, "test", comm_group_bytes(&apart), 1, &e));
    for (uint32_t r = 0; r < 2; r++) {
        devices[r] = (struct comm_device){ &there[r],     elsewhere_alloc,   elsewhere_gather,
                                           elsewhere_sum, elsewhere_add_sum, elsewhere_ask,
                                           elsewhere_tell };
        c[r] = comm_open(fcntl(s.fd, F_DUPFD_CLOEXEC, 0), &apart, &devices[r], r, 1, &e);
        assert_non_null(c[r]);
        assert_ptr_equal(comm_alloc(c[r], 16 * sizeof(float)), there[r].memory);
    }
    assert_true(comm_publish(c[0], &b, &e));
    assert_int_equal(comm_follow(c[1], &got, &order, &e), COMM_STEP);
    assert_int_equal(there[0].told, 101);
    assert_int_equal(there[1].told, 101);
    assert_int_equal(there[1].asked, 0);
    for (uint32_t r = 0; r < 2; r++) {
        void *buf = comm_alloc(c[r], 16 * sizeof(float));
        assert_true(comm_all_gather(c[r], buf, &(struct comm_columns){ 3, 4, 2 }, &e));
        assert_true(comm_join_rows(c[r], buf, 3, 8, &e));
        assert_true(comm_add_sums(c[r], there[r].memory, buf, 12, &e));
        assert_int_equal(there[r].added, 12);
        assert_int_equal(there[r].gathered, 1);
        assert_int_equal(there[r].columns.unit, 2);
        assert_int_equal(there[r].summed, 24);
        comm_close(c[r]);
    }
    segment_close(&s);
}

static void a_rank_can_be_stopped_alone(void **state)
{
    struct segment s = make_group();
    struct follower f = { .c = join(&s, 1, 1) };
    pthread_t id;

    (void)state;
    pthread_create(&id, NULL, run_follower, &f);
    nanosleep(&(struct timespec){ 0, 5000000 }, NULL);
    comm_stop(f.c);
    pthread_join(id, NULL);
    assert_int_equal(f.end, COMM_STOP);
    comm_close(f.c);
    segment_close(&s);
}

static void one_rank_needs_no_segment(void **state)
{
    struct comm_shape alone = shape;
    struct err e = { 0 };
    struct comm *c;
    char *buf;

    (void)state;
    alone.tp_size = 1;
    assert_true(comm_group_bytes(&alone) <= 4096);
    c = comm_open(-1, &alone, NULL, 0, 1, &e);
    buf = comm_alloc(c, 100);
    assert_int_equal((uintptr_t)buf % 64, 0);
    assert_true(comm_all_gather(c, buf, &all, &e));
    comm_stop(c);
    comm_close(c);
}

static void sizes_that_cannot_be_are_said_so(void **state)
{
    struct comm_shape huge = { .tp_size = 2,
                               .rows_max = UINT32_MAX,
                               .seqs_max = UINT32_MAX,
                               .pages_max = UINT32_MAX,
                               .activation_bytes = 1 };

    (void)state;
    assert_true(comm_group_bytes(&huge) == UINT64_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(processes_see_each_others_columns),
        cmocka_unit_test(threads_see_each_others_columns),
        cmocka_unit_test(a_killed_peer_is_an_error_and_not_a_hang),
        cmocka_unit_test(a_peer_that_left_is_an_error),
        cmocka_unit_test(an_old_epoch_is_fenced),
        cmocka_unit_test(plans_arrive_until_the_end),
        cmocka_unit_test(orders_are_answered_between_steps),
        cmocka_unit_test(a_devices_activations_are_made_whole_by_the_device),
        cmocka_unit_test(a_rank_can_be_stopped_alone),
        cmocka_unit_test(one_rank_needs_no_segment),
        cmocka_unit_test(sizes_that_cannot_be_are_said_so),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
