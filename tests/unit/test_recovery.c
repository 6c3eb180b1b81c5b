/* test_recovery.c - would break in production: a worker dies and a stream repeats, skips or changes a
 * token, never ends, or takes its innocent neighbours with it.
 *
 * The worker is this program again, started with --worker on the segments of the test, so that SIGKILL
 * is the real thing. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "engine_rig.h"
#include "gpu-worker/fault.h"
#include "gpu-worker/philox.h"

enum { FD_BOARD = 100, FD_LEDGER, FD_POOL };

#define PATIENCE_NS (20 * NS_PER_S)

static const int32_t story[] = { 1, 40, 41, 42, 43, 44, 45 };

/* ---- the worker ---- */

static volatile sig_atomic_t asked_to_drain;

static void on_term(int signal_number)
{
    (void)signal_number;
    asked_to_drain = 1;
}

/* argv: --worker instance epoch step_us poison max_num_seqs max_num_batched_tokens fault_points */
static int run_worker(char **argv)
{
    struct rig r = { 0 };
    struct err e;
    bool ok;

    signal(SIGTERM, on_term);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    prctl(PR_SET_DUMPABLE, 0); /* a poisoned one leaves no core file */
    snprintf(r.instance, sizeof r.instance, "%s", argv[2]);
    config_init(&r.config);
    ok = board_attach(&r.board, FD_BOARD, &e) && ledger_attach(&r.ledger, FD_LEDGER, true, &e) &&
         kvpool_attach(&r.pool, FD_POOL, &e) &&
         config_set(&r.config, "max_num_seqs", argv[6], "test", &e) &&
         config_set(&r.config, "max_num_batched_tokens", argv[7], "test", &e);
    fake_settings = (struct fake_settings){ .max_model_len = r.ledger.hdr->tokens_max,
                                            .step_us = (uint32_t)atoi(argv[4]),
                                            .poison_aborts = atoi(argv[5]) != 0 };
    r.epoch = (uint32_t)atoi(argv[3]) - 1;
    ok = ok && fault_points_set(argv[8], r.epoch + 1, &e);
    rig_start(&r);
    fault_watch(&r.ledger, runtime_doubt(r.runtime));
    while (ok && !engine_is_drained(r.engine)) {
        struct pollfd fd = { .fd = link_fd(r.link), .events = POLLIN };
        poll(&fd, 1, engine_wake_ns(r.engine) == 0 ? 0 : 5);
        if (asked_to_drain)
            engine_drain(r.engine, clock_mono_ns() + 30 * NS_PER_S);
        ok = engine_turn(r.engine, &e);
    }
    rig_close(&r);
    return ok ? 0 : 1;
}

/* ---- the test's end ---- */

struct fixture {
    struct rig rig; /* segments only */
    struct client client;
    const struct rig_shape *shape;
    pid_t pid;
    uint32_t step_us;
    bool poison;
    const char *fault_points; /* NULL = none */
};

static void start_worker(struct fixture *f)
{
    char epoch[16], step_us[16], poison[16], seqs[16], rows[16];
    char *faults = (char *)(uintptr_t)(f->fault_points ? f->fault_points : "");
    char *argv[] = {
        "test_recovery", "--worker", f->rig.instance, epoch, step_us, poison, seqs, rows,
        faults,          NULL
    };

    f->rig.epoch++;
    snprintf(epoch, sizeof epoch, "%u", f->rig.epoch);
    snprintf(step_us, sizeof step_us, "%u", f->step_us);
    snprintf(poison, sizeof poison, "%d", f->poison);
    snprintf(seqs, sizeof seqs, "%u", f->shape->max_num_seqs);
    snprintf(rows, sizeof rows, "%u", f->shape->max_num_batched_tokens);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0) {
        dup2(f->rig.board.segment.fd, FD_BOARD);
        dup2(f->rig.ledger.segment.fd, FD_LEDGER);
        dup2(f->rig.pool.segment.fd, FD_POOL);
        execv("/proc/self/exe", argv);
        _exit(127);
    }
}

static void fixture_init(struct fixture *f, const struct rig_shape *shape, uint32_t step_us)
{
    *f = (struct fixture){ .shape = shape, .step_us = step_us };
    rig_make_segments(&f->rig, shape);
    client_open(&f->client, f->rig.instance, 1);
    start_worker(f);
}

static void fixture_fini(struct fixture *f)
{
    client_close(&f->client);
    rig_close(&f->rig);
}

static int reap(struct fixture *f)
{
    int status = 0;

    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = 0;
    return status;
}

static void kill_worker(struct fixture *f)
{
    kill(f->pid, SIGKILL);
    assert_int_equal(WTERMSIG(reap(f)), SIGKILL);
}

static void receive_for(struct fixture *f, uint64_t ns)
{
    uint64_t end = clock_mono_ns() + ns;

    do {
        struct pollfd fd = { .fd = link_fd(f->client.link), .events = POLLIN };
        poll(&fd, 1, 1);
        client_receive(&f->client);
    } while (clock_mono_ns() < end);
}

/* Drain, see it end well, and find everything given back. */
static void end_well(struct fixture *f)
{
    int status;

    while (f->client.epoch != f->rig.epoch) /* it may have been started just now */
        receive_for(f, 0);
    kill(f->pid, SIGTERM);
    status = reap(f);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    rig_assert_clean(&f->rig);
}

static uint32_t n_tokens(const struct client *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->n_streams; i++)
        n += c->streams[i].n;
    return n;
}

static void until_n_tokens(struct fixture *f, uint32_t n)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (n_tokens(&f->client) < n && !client_all_over(&f->client)) {
        receive_for(f, 0);
        assert_true(clock_mono_ns() < end);
    }
}

static void until_all_over(struct fixture *f)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (!client_all_over(&f->client)) {
        receive_for(f, 0);
        assert_true(clock_mono_ns() < end);
    }
}

static struct client_request endless(uint32_t max_tokens)
{
    struct client_request r = client_request(story, 7, max_tokens);

    r.ignore_eos = true;
    return r;
}

/* ---- the tests ---- */

static void check_kills(const struct rig_shape *shape, uint64_t seed)
{
    enum { N = 24, KILLS = 8 };
    struct fixture f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];

    fixture_init(&f, shape, 800);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = rig_mixed_request(i, prompts[i], &bias[i], &lists[i]);
        r[i].ignore_eos = true;
        r[i].max_tokens = 40 + i * 7 % 60;
        client_submit(&f.client, 100 + i, &r[i]);
    }
    for (uint32_t k = 0; k < KILLS; k++) {
        until_n_tokens(&f, (k + 1) * N * 4);
        receive_for(&f, (uint64_t)(philox_uniform(seed, k) * 5e6));
        kill_worker(&f);
        start_worker(&f);
    }
    until_all_over(&f);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_recovered) >= KILLS);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    end_well(&f);
    fixture_fini(&f);
}

static void killed_workers_change_no_token(void **state)
{
    (void)state;
    check_kills(&rig_roomy, 11);
}

static void killed_workers_change_no_token_when_pages_run_out(void **state)
{
    (void)state;
    check_kills(&rig_tight, 12);
}

static void finished_streams_are_delivered_again_until_acknowledged(void **state)
{
    struct fixture f;
    struct client_request r = endless(30);

    (void)state;
    fixture_init(&f, &rig_roomy, 0);
    f.client.no_ack = true;
    for (uint32_t i = 0; i < 5; i++)
        client_submit(&f.client, 1 + i, &r);
    until_all_over(&f);
    for (uint32_t i = 0; i < 5; i++) { /* the gateway loses them: new process, same number */
        f.client.streams[i].n = i;
        f.client.streams[i].finish = LLMD__FINISH__FINISH_NONE;
    }
    kill_worker(&f);
    f.client.no_ack = false;
    start_worker(&f);
    until_all_over(&f);
    for (uint32_t i = 0; i < 5; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_finished), 5);
    end_well(&f);
    fixture_fini(&f);
}

/* Restart whenever it dies, as llmd does; returns the number of deaths until all is over. */
static int serve_through_crashes(struct fixture *f)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;
    int n_deaths = 0, status;

    while (!client_all_over(&f->client)) {
        receive_for(f, 0);
        if (waitpid(f->pid, &status, WNOHANG) == f->pid) {
            n_deaths++;
            start_worker(f);
        }
        assert_true(clock_mono_ns() < end && n_deaths < 10);
    }
    return n_deaths;
}

/* One poisoned sequence is on record, for the operator. */
static void assert_suspect(const struct fixture *f, uint64_t id, uint32_t n_prompt)
{
    struct ledger_suspect s[LEDGER_SUSPECTS];

    assert_int_equal(stat_get(rig_stats(&f->rig), STAT_sequences_poisoned), 1);
    assert_int_equal(ledger_read_suspects(&f->rig.ledger, s), 1);
    assert_int_equal(s[0].sequence_id, id);
    assert_int_equal(s[0].n_prompt, n_prompt);
    assert_int_equal(s[0].crashes, 2);
    assert_true(s[0].when_ns > 0 && s[0].when_ns <= clock_mono_ns());
    assert_non_null(strstr(s[0].error, "two crashes"));
}

static void a_poison_request_ends_after_two_crashes(void **state)
{
    const int32_t poison[] = { 1, 5, FAKE_POISON, 6 };
    struct fixture f;
    struct client_request bad = client_request(poison, 4, 30), good = endless(30);
    struct client_stream *b, *g;

    (void)state;
    fixture_init(&f, &rig_roomy, 200);
    f.poison = true;
    kill_worker(&f);
    start_worker(&f);
    b = client_submit(&f.client, 1, &bad);
    assert_int_equal(serve_through_crashes(&f), 2);
    assert_int_equal(b->finish, LLMD__FINISH__FINISH_ERROR);
    assert_string_equal(b->text, "this request was running at two crashes of the worker");
    g = client_submit(&f.client, 2, &good);
    assert_int_equal(serve_through_crashes(&f), 0);
    rig_assert_expected(g, &good);
    end_well(&f);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 1);
    assert_suspect(&f, 1, 4);
    fixture_fini(&f);
}

static void a_poison_request_takes_nobody_with_it(void **state)
{
    enum { N = 12, POISON = 5 };
    const int32_t poison[] = { 1, 5, FAKE_POISON, 6 };
    struct fixture f;
    struct client_request bad = client_request(poison, 4, 30), good = endless(60);
    int n_deaths;

    (void)state;
    fixture_init(&f, &rig_roomy, 500);
    kill_worker(&f);
    f.poison = true;
    for (uint32_t i = 0; i < N; i++)
        client_submit(&f.client, 1 + i, i == POISON ? &bad : &good);
    start_worker(&f); /* finds all of them at once */
    n_deaths = serve_through_crashes(&f);
    assert_true(n_deaths >= 2 && n_deaths <= 3);
    for (uint32_t i = 0; i < N; i++) {
        if (i != POISON)
            rig_assert_expected(&f.client.streams[i], &good);
        else
            assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_ERROR);
    }
    end_well(&f);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 1);
    fixture_fini(&f);
}

/* Two deaths in a row before anyone made a token, and nobody is guilty: nobody is punished. */
static void innocent_suspects_all_go_on(void **state)
{
    enum { N = 6 };
    struct fixture f;
    struct client_request r = endless(20);

    (void)state;
    fixture_init(&f, &rig_roomy, 1000);
    for (uint32_t i = 0; i < N; i++)
        client_submit(&f.client, 1 + i, &r);
    until_n_tokens(&f, N);
    kill_worker(&f);
    for (uint32_t i = 0; i < f.rig.ledger.hdr->n_entries; i++) {
        struct ledger_entry *entry = ledger_entry(&f.rig.ledger, i);
        if (atomic_load(&entry->state) == LEDGER_LIVE) {
            entry->crashes = 1;
            atomic_store(&entry->running, LEDGER_FAULTED);
        }
    }
    start_worker(&f);
    until_all_over(&f);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    end_well(&f);
    fixture_fini(&f);
}

/* A step that never ends is killed from outside, again and again: in the end it is the request. */
static void a_request_that_hangs_every_time_is_ended(void **state)
{
    struct fixture f;
    struct client_request r = endless(50);
    struct client_stream *s;
    struct ledger_entry *entry;
    uint32_t n_kills = 0;

    (void)state;
    fixture_init(&f, &rig_roomy, 20 * 1000 * 1000);
    s = client_submit(&f.client, 1, &r);
    entry = ledger_entry(&f.rig.ledger, 0);
    while (!client_stream_is_over(s)) {
        receive_for(&f, 0);
        if (entry->kills < n_kills || atomic_load(&entry->running) != LEDGER_RUNS)
            continue; /* this worker has not taken over, or not begun its step */
        kill_worker(&f);
        n_kills++;
        assert_true(n_kills < 10);
        start_worker(&f);
    }
    assert_int_equal(n_kills, 5);
    assert_int_equal(s->finish, LLMD__FINISH__FINISH_ERROR);
    end_well(&f);
    fixture_fini(&f);
}

/* SIGSEGV sent by somebody else is not the request's doing, however often. */
static void a_signal_from_outside_is_no_fault(void **state)
{
    struct fixture f;
    struct client_request r = endless(40);
    struct client_stream *s;
    struct ledger_entry *entry;

    (void)state;
    fixture_init(&f, &rig_roomy, 20 * 1000 * 1000);
    s = client_submit(&f.client, 1, &r);
    entry = ledger_entry(&f.rig.ledger, 0);
    for (uint32_t k = 0; k < 3; k++) {
        while (entry->kills < k || atomic_load(&entry->running) != LEDGER_RUNS)
            receive_for(&f, 0);
        kill(f.pid, SIGABRT);
        assert_int_equal(WTERMSIG(reap(&f)), SIGABRT);
        assert_int_equal(atomic_load(&entry->running), LEDGER_RUNS);
        f.step_us = k == 2 ? 0 : f.step_us;
        start_worker(&f);
    }
    until_all_over(&f);
    rig_assert_expected(s, &r);
    end_well(&f);
    fixture_fini(&f);
}

/* The last token was counted, but death came before DONE: it must not go on past its end. */
static void a_crash_between_last_token_and_done_adds_nothing(void **state)
{
    struct rig r;
    struct client c;
    struct client_request q = endless(5);

    (void)state;
    rig_make_segments(&r, &rig_roomy);
    rig_start(&r);
    client_open(&c, r.instance, 1);
    c.no_ack = true;
    client_submit(&c, 1, &q);
    rig_until_all_over(&r, &c);
    rig_stop(&r);
    for (uint32_t i = 0; i < r.ledger.hdr->n_entries; i++)
        if (atomic_load(&ledger_entry(&r.ledger, i)->state) == LEDGER_DONE)
            atomic_store(&ledger_entry(&r.ledger, i)->state, LEDGER_LIVE);
    stat_sub(rig_stats(&r), STAT_sequences_finished, 1);
    c.streams[0].finish = LLMD__FINISH__FINISH_NONE;
    c.no_ack = false;
    rig_start(&r);
    rig_until_all_over(&r, &c);
    rig_assert_expected(&c.streams[0], &q);
    rig_until_empty(&r, &c);
    rig_assert_clean(&r);
    client_close(&c);
    rig_close(&r);
}

/* An entry that does not hold together is dropped, and its gateway told to submit it again. */
static void a_damaged_entry_is_unknown_afterwards(void **state)
{
    struct rig r;
    struct client c;
    struct client_request q = endless(400);

    (void)state;
    rig_make_segments(&r, &rig_roomy);
    fake_settings.step_us = 1000; /* it must not end before it is damaged */
    rig_start(&r);
    client_open(&c, r.instance, 1);
    client_submit(&c, 1, &q);
    while (c.n_hello == 0 || c.streams[0].n == 0)
        rig_turn(&r, &c);
    rig_stop(&r);
    memset(ledger_request(&r.ledger, ledger_entry(&r.ledger, 0)), 0xff, 8);
    rig_start(&r);
    rig_until_all_over(&r, &c);
    assert_int_equal(c.streams[0].n_unknown, 1);
    rig_assert_expected(&c.streams[0], &q);
    client_close(&c);
    rig_close(&r);
}

/* ---- death at the narrow places ---- */

/* It happens in epoch 1 or 2 (the first that takes over); each later start must find its way. */
static void check_fault(const char *points)
{
    enum { N = 10 };
    struct fixture f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];
    int n_deaths;

    f = (struct fixture){ .shape = &rig_tight, .step_us = 200, .fault_points = points };
    rig_make_segments(&f.rig, f.shape);
    client_open(&f.client, f.rig.instance, 1);
    start_worker(&f);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = rig_mixed_request(i, prompts[i], &bias[i], &lists[i]);
        if (i % 2) /* five of them begin alike */
            memcpy(prompts[i], prompts[1], 20 * sizeof(int32_t));
        r[i].ignore_eos = true;
        r[i].max_tokens = 20 + i;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    n_deaths = serve_through_crashes(&f);
    if (n_deaths != (strchr(points, ',') ? 2 : 1))
        fail_msg("%s: %d deaths", points, n_deaths);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    end_well(&f);
    fixture_fini(&f);
}

static void death_at_any_named_place_changes_no_token(void **state)
{
    static const char *const points[] = {
        "worker.accept=kill:4@1",
        "worker.forward=kill:7@1",
        "worker.commit=kill:23@1",
        "worker.commit=exit:60@1",
        "worker.publish=kill:9@1",
        "worker.seal=kill:3@1",
        "worker.seal=kill:20@1",
        "worker.sealed=kill:5@1",
        "worker.attach=kill:4@1",
        "worker.attach=kill:9@1",
        "worker.release=kill@1",
        "worker.evict=kill@1",
        "worker.evict=kill:7@1, worker.evict=kill:2@2",
        "worker.attach=kill:8@1, worker.adopt=kill@2",
        "worker.commit=segv:40@1",
        "worker.commit=kill:50@1, worker.adopt=kill@2",
        "worker.commit=kill:50@1, worker.recover=kill@2",
        "worker.commit=kill:50@1, worker.recover=kill:5@2",
        "worker.commit=kill:50@1, worker.commit=kill@2",
        "worker.forward=kill:9@1, worker.forward=kill@2",
    };

    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        check_fault(points[i]);
}

/* In the middle of what is said of prompts, and of embeddings: nothing is lost, and nothing differs. */
static void check_reading_fault(const char *points)
{
    enum { N = 12 };
    struct fixture f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];
    int n_deaths;

    f = (struct fixture){ .shape = &rig_tight, .step_us = 200, .fault_points = points };
    rig_make_segments(&f.rig, f.shape);
    client_open(&f.client, f.rig.instance, 1);
    start_worker(&f);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = i % 2 ? rig_mixed_request(i, prompts[i], &bias[i], &lists[i])
                     : rig_pooled_request(i / 2, prompts[i]);
        if (i % 2) {
            r[i].n_prompt = 30 + i;
            r[i].want_prompt_logprobs = true;
            r[i].prompt_top_logprobs = i % 4;
            r[i].max_tokens = i % 3 ? 20 : 0;
            r[i].min_tokens = 0;
        } else {
            r[i].n_prompt = 40 + i;
        }
        client_submit(&f.client, 1 + i, &r[i]);
    }
    n_deaths = serve_through_crashes(&f);
    if (n_deaths != (strchr(points, ',') ? 2 : 1))
        fail_msg("%s: %d deaths", points, n_deaths);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    end_well(&f);
    fixture_fini(&f);
}

static void death_while_a_prompt_is_read_changes_nothing_said_of_it(void **state)
{
    static const char *const points[] = {
        "worker.measure=kill:2@1",
        "worker.measure=kill:40@1",
        "worker.measure=segv:77@1",
        "worker.measure=kill:30@1, worker.measure=kill:9@2",
        "worker.embed=kill:1@1",
        "worker.embed=kill:9@1",
        "worker.embed=kill:9@1, worker.embed=kill:2@2",
        "worker.publish=kill:4@1",
        "worker.publish=kill:9@1, worker.recover=kill:3@2",
        "worker.seal=kill:6@1",
        "worker.release=kill@1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        check_reading_fault(points[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_workers_change_no_token),
        cmocka_unit_test(killed_workers_change_no_token_when_pages_run_out),
        cmocka_unit_test(finished_streams_are_delivered_again_until_acknowledged),
        cmocka_unit_test(a_poison_request_ends_after_two_crashes),
        cmocka_unit_test(a_poison_request_takes_nobody_with_it),
        cmocka_unit_test(innocent_suspects_all_go_on),
        cmocka_unit_test(a_request_that_hangs_every_time_is_ended),
        cmocka_unit_test(a_signal_from_outside_is_no_fault),
        cmocka_unit_test(a_crash_between_last_token_and_done_adds_nothing),
        cmocka_unit_test(a_damaged_entry_is_unknown_afterwards),
        cmocka_unit_test(death_at_any_named_place_changes_no_token),
        cmocka_unit_test(death_while_a_prompt_is_read_changes_nothing_said_of_it),
    };

    if (argc == 9 && strcmp(argv[1], "--worker") == 0)
        return run_worker(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
