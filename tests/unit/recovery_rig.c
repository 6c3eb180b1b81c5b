/* recovery_rig.c - see recovery_rig.h. */
#include "recovery_rig.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "gpu-worker/fault.h"

enum { FD_BOARD = 100, FD_LEDGER, FD_POOL };

#define PATIENCE_NS (20 * NS_PER_S)

/* ---- the worker ---- */

static volatile sig_atomic_t asked_to_drain;

static void on_term(int signal_number)
{
    (void)signal_number;
    asked_to_drain = 1;
}

bool recovery_is_worker(int argc, char **argv)
{
    return argc == 9 && strcmp(argv[1], "--worker") == 0;
}

/* argv: --worker instance epoch step_us poison max_num_seqs max_num_batched_tokens fault_points */
int recovery_worker(char **argv)
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

void recovery_start(struct recovery *f)
{
    char epoch[16], step_us[16], poison[16], seqs[16], rows[16];
    char *faults = (char *)(uintptr_t)(f->fault_points ? f->fault_points : "");
    char *argv[] = { "test", "--worker", f->rig.instance, epoch, step_us, poison,
                     seqs,   rows,       faults,          NULL };

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

void recovery_init(struct recovery *f, const struct rig_shape *shape, uint32_t step_us)
{
    *f = (struct recovery){ .shape = shape, .step_us = step_us };
    rig_make_segments(&f->rig, shape);
    client_open(&f->client, f->rig.instance, 1);
    recovery_start(f);
}

void recovery_fini(struct recovery *f)
{
    client_close(&f->client);
    rig_close(&f->rig);
}

int recovery_reap(struct recovery *f)
{
    int status = 0;

    assert_int_equal(waitpid(f->pid, &status, 0), f->pid);
    f->pid = 0;
    return status;
}

void recovery_kill(struct recovery *f)
{
    kill(f->pid, SIGKILL);
    assert_int_equal(WTERMSIG(recovery_reap(f)), SIGKILL);
}

void recovery_receive(struct recovery *f, uint64_t ns)
{
    uint64_t end = clock_mono_ns() + ns;

    do {
        struct pollfd fd = { .fd = link_fd(f->client.link), .events = POLLIN };
        poll(&fd, 1, 1);
        client_receive(&f->client);
    } while (clock_mono_ns() < end);
}

void recovery_end_well(struct recovery *f)
{
    int status;

    while (f->client.epoch != f->rig.epoch) /* it may have been started just now */
        recovery_receive(f, 0);
    kill(f->pid, SIGTERM);
    status = recovery_reap(f);
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

void recovery_until_tokens(struct recovery *f, uint32_t n)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (n_tokens(&f->client) < n && !client_all_over(&f->client)) {
        recovery_receive(f, 0);
        assert_true(clock_mono_ns() < end);
    }
}

void recovery_until_over(struct recovery *f)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (!client_all_over(&f->client)) {
        recovery_receive(f, 0);
        assert_true(clock_mono_ns() < end);
    }
}

int recovery_serve(struct recovery *f)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;
    int n_deaths = 0, status;

    while (!client_all_over(&f->client)) {
        recovery_receive(f, 0);
        if (waitpid(f->pid, &status, WNOHANG) == f->pid) {
            n_deaths++;
            recovery_start(f);
        }
        assert_true(clock_mono_ns() < end && n_deaths < 10);
    }
    return n_deaths;
}
