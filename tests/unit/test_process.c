/* test_process.c - if this breaks, a child is started twice, killed in the middle of a drain, or waited
 * for when nobody will come. */
#include "supervisor/process.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/worker_exit.h"

/* A world that only remembers what was asked of it. */
static struct world {
    int spawns, signals, drains, changes;
    int last_signal;
    uint64_t armed_ns; /* 0 = disarmed */
    uint64_t drain_deadline_ns;
    bool spawn_fails, drain_fails;
} world;

static bool fake_spawn(struct process *p, struct err *e)
{
    (void)p;
    world.spawns++;
    return !world.spawn_fails || err_set(e, ERR_SYS, 2, "start 'x'");
}

static void fake_signal(struct process *p, int sig)
{
    (void)p;
    world.signals++;
    world.last_signal = sig;
}

static bool fake_drain(struct process *p, uint64_t deadline_ns)
{
    (void)p;
    world.drains++;
    world.drain_deadline_ns = deadline_ns;
    return !world.drain_fails;
}

static void fake_arm(struct process *p, uint64_t deadline_ns)
{
    (void)p;
    world.armed_ns = deadline_ns;
}

static void fake_changed(struct process *p)
{
    (void)p;
    world.changes++;
}

static const struct process_ops ops = { fake_spawn, fake_signal, fake_drain, fake_arm,
                                        fake_changed };

static struct config config;
static struct board_slot slot;
static struct stats counts;
static struct process p;

static int setup(void **state)
{
    (void)state;
    log_init("test", LOG_ERROR, LOG_TEXT);
    log_set_level((enum log_level) - 1);
    config_init(&config);
    world = (struct world){ 0 };
    memset(&slot, 0, sizeof slot);
    memset(&counts, 0, sizeof counts);
    process_init(&p, &ops, &config, "worker 0.1", &slot, &counts);
    return 0;
}

static siginfo_t ended(int code, int status)
{
    siginfo_t info = { 0 };

    info.si_code = code;
    info.si_status = status;
    return info;
}

/* Bring p into a state by the ordinary road. */
static void reach(enum process_state s)
{
    siginfo_t death = ended(CLD_KILLED, SIGSEGV);

    setup(NULL);
    if (s == PROCESS_DOWN)
        return;
    process_handle(&p, PROCESS_EV_START);
    if (s == PROCESS_READY || s == PROCESS_DRAINING)
        process_handle(&p, PROCESS_EV_READY);
    if (s == PROCESS_DRAINING) {
        p.drain_deadline_ns = 77 * NS_PER_S;
        process_handle(&p, PROCESS_EV_STOP);
    }
    if (s == PROCESS_BACKOFF)
        process_exited(&p, &death);
    assert_int_equal(p.state, s);
}

#define NO N_PROCESS_STATES /* late news, dropped */

/* The whole drawing once more, written by hand: rows are states, columns events. */
static const enum process_state drawing[N_PROCESS_STATES][N_PROCESS_EVENTS] = {
    /* START, READY, EXIT, TIMER, STOP, HASTEN */
    [PROCESS_DOWN] = { PROCESS_STARTING, NO, NO, NO, NO, NO },
    [PROCESS_STARTING] = { NO, PROCESS_READY, PROCESS_BACKOFF, PROCESS_STARTING, PROCESS_DRAINING,
                           NO },
    [PROCESS_READY] = { NO, NO, PROCESS_BACKOFF, PROCESS_READY, PROCESS_DRAINING, NO },
    [PROCESS_DRAINING] = { NO, NO, PROCESS_DOWN, PROCESS_DRAINING, PROCESS_DRAINING,
                           PROCESS_DRAINING },
    [PROCESS_BACKOFF] = { PROCESS_STARTING, NO, NO, NO, PROCESS_DOWN, NO },
};

static void every_cell_is_as_drawn(void **state)
{
    (void)state;
    for (int s = 0; s < N_PROCESS_STATES; s++) {
        for (int ev = 0; ev < N_PROCESS_EVENTS; ev++) {
            enum process_state want = drawing[s][ev];
            const struct process_edge *edge =
                process_edge((enum process_state)s, (enum process_event)ev);
            int changes;
            reach((enum process_state)s);
            changes = world.changes;
            process_handle(&p, (enum process_event)ev);
            if (p.state != (want == NO ? (enum process_state)s : want))
                fail_msg("%s + %s gives %s", process_state_name((enum process_state)s),
                         process_event_name((enum process_event)ev), process_state_name(p.state));
            assert_int_equal(edge->act != NULL, want != NO);
            assert_int_equal(world.changes - changes, want != NO);
            assert_int_equal(slot.state, p.state); /* the board says the same */
        }
    }
}

static void assert_armed_for_the_reaping(uint64_t since_ns)
{
    assert_in_range(world.armed_ns - since_ns, PROCESS_REAP_S * NS_PER_S,
                    (PROCESS_REAP_S + 1) * NS_PER_S);
}

static void dropped_news_do_nothing(void **state)
{
    (void)state;
    for (int s = 0; s < N_PROCESS_STATES; s++) {
        for (int ev = 0; ev < N_PROCESS_EVENTS; ev++) {
            struct world before;
            if (drawing[s][ev] != NO)
                continue;
            reach((enum process_state)s);
            before = world;
            process_handle(&p, (enum process_event)ev);
            assert_memory_equal(&before, &world, sizeof world);
        }
    }
}

static void start_arms_the_start_timeout_and_clears_the_step(void **state)
{
    uint64_t now = clock_mono_ns();

    (void)state;
    slot.step_started_ns = 5;
    process_handle(&p, PROCESS_EV_START);
    assert_int_equal(world.spawns, 1);
    assert_int_equal(slot.step_started_ns, 0);
    assert_in_range(world.armed_ns - now, config.start_timeout_s * NS_PER_S,
                    (config.start_timeout_s + 1) * NS_PER_S);
    assert_int_equal(stat_get(&counts, STAT_process_starts), 1);
    process_handle(&p, PROCESS_EV_READY);
    assert_int_equal(world.armed_ns, 0);
}

static void never_ready_is_killed_and_says_so(void **state)
{
    siginfo_t info = ended(CLD_KILLED, SIGKILL);
    uint64_t now = clock_mono_ns();

    (void)state;
    config.start_timeout_s = 3;
    process_handle(&p, PROCESS_EV_START);
    process_handle(&p, PROCESS_EV_TIMER);
    assert_int_equal(world.last_signal, SIGKILL);
    assert_armed_for_the_reaping(now);
    process_exited(&p, &info);
    assert_int_equal(p.state, PROCESS_BACKOFF);
    assert_string_equal(p.last_exit, "killed: not ready after 3 s");
}

static void failed_start_counts_as_a_death(void **state)
{
    (void)state;
    world.spawn_fails = true;
    process_handle(&p, PROCESS_EV_START);
    assert_int_equal(p.state, PROCESS_BACKOFF);
    assert_int_equal(slot.state, PROCESS_BACKOFF);
    assert_non_null(strstr(p.last_exit, "cannot start: start 'x'"));
    assert_int_equal(stat_get(&counts, STAT_process_starts), 0);
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 1);
    assert_int_equal(world.armed_ns, 0);
}

static void restarts_count_starts_after_the_first(void **state)
{
    siginfo_t info = ended(CLD_EXITED, 1);

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        process_handle(&p, PROCESS_EV_START);
        assert_int_equal(slot.restarts, i);
        process_exited(&p, &info);
    }
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 4);
}

static void slow_drain_meets_sigterm_then_sigkill(void **state)
{
    uint64_t now = clock_mono_ns();

    (void)state;
    reach(PROCESS_DRAINING);
    assert_int_equal(world.drains, 1);
    assert_int_equal(world.drain_deadline_ns, 77 * NS_PER_S);
    assert_true(world.armed_ns > 77 * NS_PER_S);
    assert_int_equal(world.signals, 0);
    process_handle(&p, PROCESS_EV_TIMER);
    assert_int_equal(world.last_signal, SIGTERM);
    assert_true(world.armed_ns > now);
    assert_false(p.was_forced);
    process_handle(&p, PROCESS_EV_TIMER);
    assert_int_equal(world.last_signal, SIGKILL);
    assert_armed_for_the_reaping(now);
    assert_true(p.was_forced);
}

/* A driver that waits for its GPU, or a file system for its server. */
static void a_killed_process_that_stays_is_said_to_be_stuck(void **state)
{
    static const enum process_state killed_in[] = { PROCESS_STARTING, PROCESS_READY,
                                                    PROCESS_DRAINING };
    siginfo_t info = ended(CLD_KILLED, SIGKILL);

    (void)state;
    for (size_t i = 0; i < sizeof killed_in / sizeof *killed_in; i++) {
        reach(killed_in[i]);
        process_kill(&p, "it hung");
        process_handle(&p, PROCESS_EV_TIMER);
        assert_true(p.is_stuck);
        assert_int_equal(stat_get(&counts, STAT_processes_unreaped), 1);
        assert_int_equal(world.signals, 1);
        process_exited(&p, &info);
        assert_string_equal(p.last_exit, "killed: it hung");
        assert_int_equal(world.armed_ns, 0);
        if (p.state != PROCESS_BACKOFF)
            continue;
        process_handle(&p, PROCESS_EV_START);
        assert_false(p.is_stuck);
    }
}

static void a_timer_without_a_kill_says_nothing(void **state)
{
    (void)state;
    reach(PROCESS_READY);
    process_handle(&p, PROCESS_EV_TIMER); /* armed before it was ready, and late */
    assert_false(p.is_stuck);
    assert_int_equal(world.signals, 0);
}

/* What stands behind a code is for a rank on a GPU alone. */
static void an_end_says_what_became_of_the_gpu(void **state)
{
    static const struct {
        int code;
        enum gpu_trouble trouble;
    } ends[] = { { WORKER_EXIT_DEVICE_LOST, GPU_TROUBLE_LOST },
                 { WORKER_EXIT_DEVICE_UNUSABLE, GPU_TROUBLE_UNUSABLE },
                 { WORKER_EXIT_DEVICE_STICKY, GPU_TROUBLE_NONE },
                 { 1, GPU_TROUBLE_NONE } };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        siginfo_t info = ended(CLD_EXITED, ends[i].code);
        for (int on_gpu = 0; on_gpu < 2; on_gpu++) {
            reach(PROCESS_READY);
            p.on_gpu = on_gpu;
            process_exited(&p, &info);
            assert_int_equal(p.trouble, on_gpu ? ends[i].trouble : GPU_TROUBLE_NONE);
            assert_int_equal(slot.trouble, p.trouble);
            process_handle(&p, PROCESS_EV_START);
            assert_int_equal(slot.trouble, GPU_TROUBLE_NONE);
        }
    }
}

static void a_gpu_that_held_a_process_back_is_in_trouble(void **state)
{
    siginfo_t info = ended(CLD_KILLED, SIGKILL);

    (void)state;
    reach(PROCESS_READY);
    p.on_gpu = true;
    process_kill(&p, "it hung");
    process_handle(&p, PROCESS_EV_TIMER);
    process_exited(&p, &info);
    assert_int_equal(p.trouble, GPU_TROUBLE_STUCK);
}

static void a_child_that_cannot_be_asked_gets_sigterm(void **state)
{
    (void)state;
    reach(PROCESS_READY);
    world.drain_fails = true;
    process_handle(&p, PROCESS_EV_STOP);
    assert_int_equal(world.last_signal, SIGTERM);
    assert_true(world.armed_ns > 0);
}

static void second_stop_kills(void **state)
{
    (void)state;
    reach(PROCESS_DRAINING);
    process_handle(&p, PROCESS_EV_STOP);
    assert_int_equal(world.last_signal, SIGKILL);
    assert_true(p.was_forced);
}

static void hastened_drain_asks_again_with_a_deadline_that_is_now(void **state)
{
    uint64_t now = clock_mono_ns();

    (void)state;
    reach(PROCESS_DRAINING);
    process_handle(&p, PROCESS_EV_HASTEN);
    assert_int_equal(world.drains, 2);
    assert_in_range(world.drain_deadline_ns - now, 0, NS_PER_S);
    assert_in_range(world.armed_ns - now, 0, 5 * NS_PER_S);
    assert_int_equal(world.signals, 0);
    process_handle(&p, PROCESS_EV_TIMER);
    assert_int_equal(world.last_signal, SIGTERM);
    process_handle(&p, PROCESS_EV_HASTEN); /* it has been told enough */
    assert_int_equal(world.drains, 2);
    assert_false(p.was_forced);
}

static void a_replaced_process_has_not_died(void **state)
{
    siginfo_t info = ended(CLD_KILLED, SIGKILL);

    (void)state;
    reach(PROCESS_READY);
    process_replace(&p, "restarted");
    assert_int_equal(world.last_signal, SIGKILL);
    process_exited(&p, &info);
    assert_int_equal(p.state, PROCESS_BACKOFF);
    assert_string_equal(p.last_exit, "killed: restarted");
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 0);
    process_handle(&p, PROCESS_EV_START);
    process_exited(&p, &info);
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 1);
}

/* ---- after the death of an llmd: the board is all there is ---- */

static struct process next;

static void adopt_next(void)
{
    world = (struct world){ 0 };
    process_init(&next, &ops, &config, "worker 0.1", &slot, &counts);
    process_adopt(&next);
}

static void every_state_is_adopted_as_it_was(void **state)
{
    (void)state;
    for (int s = 0; s < N_PROCESS_STATES; s++) {
        reach((enum process_state)s);
        adopt_next();
        assert_int_equal(next.state, s);
        assert_int_equal(slot.state, s);
        assert_int_equal(next.starts, p.starts);
        assert_int_equal(next.ready_ns, p.ready_ns);
        assert_int_equal(next.died_ns, p.died_ns);
        assert_string_equal(next.last_exit, p.last_exit);
        assert_int_equal(world.spawns + world.signals + world.drains, 0);
    }
}

static void adopted_start_still_has_its_timeout(void **state)
{
    (void)state;
    reach(PROCESS_STARTING);
    adopt_next();
    assert_int_equal(world.armed_ns, slot.started_ns + config.start_timeout_s * NS_PER_S);
}

static void adopted_drain_still_has_its_deadline(void **state)
{
    (void)state;
    reach(PROCESS_DRAINING);
    adopt_next();
    assert_int_equal(next.drain_deadline_ns, 77 * NS_PER_S);
    assert_true(world.armed_ns > 77 * NS_PER_S);
}

static void an_end_of_which_nobody_knows_how_is_an_end(void **state)
{
    siginfo_t info = { 0 };

    (void)state;
    reach(PROCESS_READY);
    adopt_next();
    process_exited(&next, &info);
    assert_int_equal(next.state, PROCESS_BACKOFF);
    assert_string_equal(next.last_exit, "ended");
}

static void a_board_with_a_wrong_state_is_not_believed(void **state)
{
    (void)state;
    reach(PROCESS_READY);
    slot.state = 77;
    adopt_next();
    assert_int_equal(next.state, PROCESS_DOWN);
}

/* ---- what it logged last ---- */

static void log_to_board(const char *line)
{
    board_log_line(&slot, line, strlen(line));
}

static void what_it_logged_last_explains_a_death_without_words(void **state)
{
    siginfo_t info = ended(CLD_KILLED, SIGABRT);

    (void)state;
    log_to_board("2026-11-28T02:00:00.000Z error   llm-worker/0.1: of a life before this one");
    reach(PROCESS_READY);
    log_to_board("2026-11-28T02:00:00.000Z warning llm-worker/0.1: a warning");
    log_to_board("2026-11-28T02:00:00.000Z error   llm-worker/0.1: bug: x.c:1: f: assertion");
    log_to_board("2026-11-28T02:00:00.000Z info    llm-worker/0.1: goes on");
    process_exited(&p, &info);
    assert_string_equal(p.last_exit, "signal 6 (Aborted): bug: x.c:1: f: assertion");
}

static void two_lines_at_most_and_none_of_old_lives(void **state)
{
    siginfo_t info = ended(CLD_EXITED, 1);

    (void)state;
    reach(PROCESS_READY);
    for (int i = 0; i < 5; i++)
        log_to_board("<4>llm-worker/0.1: disk is slow");
    log_to_board(
        "{\"timestamp\":\"t\",\"level\":\"warning\",\"process\":\"w\",\"message\":\"last\"}");
    process_exited(&p, &info);
    assert_string_equal(p.last_exit, "exit code 1: disk is slow; last");
    process_handle(&p, PROCESS_EV_START);
    process_exited(&p, &info);
    assert_string_equal(p.last_exit, "exit code 1");
}

static void stop_while_starting_kills_at_once_and_cleanly(void **state)
{
    (void)state;
    reach(PROCESS_STARTING);
    process_handle(&p, PROCESS_EV_STOP);
    assert_int_equal(world.drains, 0);
    assert_int_equal(world.last_signal, SIGKILL);
    assert_false(p.was_forced); /* it had nothing to finish */
}

static void exit_while_draining_is_final_and_no_death(void **state)
{
    siginfo_t info = ended(CLD_EXITED, 0);

    (void)state;
    reach(PROCESS_DRAINING);
    process_exited(&p, &info);
    assert_int_equal(p.state, PROCESS_DOWN);
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 0);
    assert_int_equal(slot.pid, 0);
    assert_int_equal(world.armed_ns, 0);
}

/* llmd ends with 1 for what it had to kill at its own end, not for a restart that was hastened long ago. */
static void a_new_start_forgets_that_the_last_was_forced(void **state)
{
    siginfo_t info = ended(CLD_KILLED, SIGKILL);

    (void)state;
    reach(PROCESS_DRAINING);
    process_handle(&p, PROCESS_EV_STOP);
    assert_true(p.was_forced);
    process_exited(&p, &info);
    assert_true(p.was_forced);
    process_handle(&p, PROCESS_EV_START);
    assert_false(p.was_forced);
}

static void killing_what_does_not_run_does_nothing(void **state)
{
    (void)state;
    process_kill(&p, "x");
    assert_int_equal(world.signals, 0);
    reach(PROCESS_BACKOFF);
    world.signals = 0;
    process_kill(&p, "x");
    assert_int_equal(world.signals, 0);
}

static void ends_are_described_for_people(void **state)
{
    static const struct {
        int code, status;
        const char *words, *killed_why, *want;
    } ends[] = {
        { CLD_EXITED, 1, "", "", "exit code 1" },
        { CLD_EXITED, 1, "no such file", "", "exit code 1: no such file" },
        { CLD_KILLED, SIGKILL, "", "", "signal 9 (Killed)" },
        { CLD_DUMPED, SIGSEGV, "", "", "signal 11 (Segmentation fault), core dumped" },
        { CLD_KILLED, SIGABRT, "assert x", "", "signal 6 (Aborted): assert x" },
        { CLD_KILLED, SIGKILL, "", "too slow", "killed: too slow" },
        /* it died of something else before our signal came */
        { CLD_KILLED, SIGSEGV, "", "too slow", "signal 11 (Segmentation fault)" },
        { CLD_EXITED, 3, "", "too slow", "exit code 3" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        siginfo_t info = ended(ends[i].code, ends[i].status);
        reach(PROCESS_READY);
        strcpy(p.words, ends[i].words);
        strcpy(p.killed_why, ends[i].killed_why);
        process_exited(&p, &info);
        assert_string_equal(p.last_exit, ends[i].want);
    }
}

static void old_words_do_not_explain_a_new_death(void **state)
{
    siginfo_t info = ended(CLD_EXITED, 2);

    (void)state;
    reach(PROCESS_STARTING);
    strcpy(p.words, "first");
    process_exited(&p, &info);
    process_handle(&p, PROCESS_EV_START);
    process_exited(&p, &info);
    assert_string_equal(p.last_exit, "exit code 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_cell_is_as_drawn, setup),
        cmocka_unit_test_setup(dropped_news_do_nothing, setup),
        cmocka_unit_test_setup(start_arms_the_start_timeout_and_clears_the_step, setup),
        cmocka_unit_test_setup(never_ready_is_killed_and_says_so, setup),
        cmocka_unit_test_setup(failed_start_counts_as_a_death, setup),
        cmocka_unit_test_setup(restarts_count_starts_after_the_first, setup),
        cmocka_unit_test_setup(slow_drain_meets_sigterm_then_sigkill, setup),
        cmocka_unit_test_setup(a_killed_process_that_stays_is_said_to_be_stuck, setup),
        cmocka_unit_test_setup(a_timer_without_a_kill_says_nothing, setup),
        cmocka_unit_test_setup(an_end_says_what_became_of_the_gpu, setup),
        cmocka_unit_test_setup(a_gpu_that_held_a_process_back_is_in_trouble, setup),
        cmocka_unit_test_setup(a_child_that_cannot_be_asked_gets_sigterm, setup),
        cmocka_unit_test_setup(second_stop_kills, setup),
        cmocka_unit_test_setup(hastened_drain_asks_again_with_a_deadline_that_is_now, setup),
        cmocka_unit_test_setup(a_replaced_process_has_not_died, setup),
        cmocka_unit_test_setup(every_state_is_adopted_as_it_was, setup),
        cmocka_unit_test_setup(adopted_start_still_has_its_timeout, setup),
        cmocka_unit_test_setup(adopted_drain_still_has_its_deadline, setup),
        cmocka_unit_test_setup(an_end_of_which_nobody_knows_how_is_an_end, setup),
        cmocka_unit_test_setup(a_board_with_a_wrong_state_is_not_believed, setup),
        cmocka_unit_test_setup(what_it_logged_last_explains_a_death_without_words, setup),
        cmocka_unit_test_setup(two_lines_at_most_and_none_of_old_lives, setup),
        cmocka_unit_test_setup(stop_while_starting_kills_at_once_and_cleanly, setup),
        cmocka_unit_test_setup(exit_while_draining_is_final_and_no_death, setup),
        cmocka_unit_test_setup(a_new_start_forgets_that_the_last_was_forced, setup),
        cmocka_unit_test_setup(killing_what_does_not_run_does_nothing, setup),
        cmocka_unit_test_setup(ends_are_described_for_people, setup),
        cmocka_unit_test_setup(old_words_do_not_explain_a_new_death, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
