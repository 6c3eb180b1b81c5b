/* test_team.c - if this breaks, a rank comes back alone beside peers of another epoch, or a group never
 * comes back at all. */
#include "supervisor/team.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/worker_exit.h"

enum { N = 3 };

static struct world {
    int running[N]; /* programs that live in this world */
    int killed[N], drained[N], starts[N];
    bool spawn_fails[N], check_fails;
    int checks; /* of its GPUs */
    uint64_t armed_ns;
} world;

static struct process members[N];

static long index_of(const struct process *p)
{
    return p - members;
}

static bool fake_spawn(struct process *p, struct err *e)
{
    world.starts[index_of(p)]++;
    if (world.spawn_fails[index_of(p)])
        return err_set(e, ERR_SYS, 2, "start");
    assert_false(world.running[index_of(p)]);
    world.running[index_of(p)] = 1;
    return true;
}

static void fake_signal(struct process *p, int sig)
{
    if (sig == SIGKILL)
        world.killed[index_of(p)]++;
}

static bool fake_drain(struct process *p, uint64_t deadline_ns)
{
    (void)deadline_ns;
    world.drained[index_of(p)]++;
    return true;
}

static void no_arm(struct process *p, uint64_t deadline_ns)
{
    (void)p, (void)deadline_ns;
}

static void no_change(struct process *p)
{
    (void)p;
}

static void fake_arm_team(struct team *t, uint64_t deadline_ns)
{
    (void)t;
    world.armed_ns = deadline_ns;
}

static void no_team_change(struct team *t)
{
    (void)t;
}

static const struct process_ops process_ops = { fake_spawn, fake_signal, fake_drain, no_arm,
                                                no_change };
static bool fake_check(struct team *t, struct err *e)
{
    (void)t;
    world.checks++;
    return !world.check_fails || err_set(e, ERR_SYS, 2, "start");
}

static const struct team_ops team_ops = { fake_arm_team, no_team_change, fake_check };
static struct config config;
static struct board_slot slots[N];
static struct stats counts;
static struct team t;

static int setup(void **state)
{
    (void)state;
    log_set_level((enum log_level) - 1);
    config_init(&config);
    world = (struct world){ 0 };
    memset(slots, 0, sizeof slots);
    memset(&counts, 0, sizeof counts);
    for (int i = 0; i < N; i++) {
        char name[] = "worker 0.0";
        name[9] = (char)('0' + i);
        process_init(&members[i], &process_ops, &config, name, &slots[i], &counts);
        members[i].on_gpu = true;
    }
    team_init(&t, &team_ops, &config, "group 0", members, N);
    return 0;
}

static void die(int i, int code, int status)
{
    siginfo_t info = { 0 };

    assert_true(world.running[i]);
    world.running[i] = 0;
    info.si_code = code;
    info.si_status = status;
    process_exited(&members[i], &info);
}

static void all_ready(void)
{
    for (int i = 0; i < N; i++)
        process_handle(&members[i], PROCESS_EV_READY);
    team_look(&t);
}

static void all_die(int code, int status)
{
    for (int i = 0; i < N; i++)
        if (world.running[i])
            die(i, code, status);
    team_look(&t);
}

static void reach(enum team_state s)
{
    setup(NULL);
    if (s != TEAM_DOWN)
        team_handle(&t, TEAM_EV_START);
    if (s == TEAM_UP || s == TEAM_FALLING || s == TEAM_BACKOFF || s == TEAM_DRAINING ||
        s == TEAM_GPU_DOWN)
        all_ready();
    if (s == TEAM_FALLING || s == TEAM_BACKOFF) {
        die(1, CLD_KILLED, SIGSEGV);
        team_look(&t);
    }
    if (s == TEAM_GPU_DOWN) {
        die(1, CLD_EXITED, WORKER_EXIT_DEVICE_LOST);
        team_look(&t);
    }
    if (s == TEAM_BACKOFF || s == TEAM_GPU_DOWN)
        all_die(CLD_KILLED, SIGKILL);
    if (s == TEAM_DRAINING)
        team_handle(&t, TEAM_EV_STOP);
    assert_int_equal(t.state, s);
}

#define NO N_TEAM_STATES

static const enum team_state drawing[N_TEAM_STATES][N_TEAM_EVENTS] = {
    /* START, ALL_READY, LOST, GONE, TIMER, STOP, HASTEN, RESTART, STUCK, GPU_BAD, GPU_WELL */
    [TEAM_DOWN] = { TEAM_STARTING, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO },
    [TEAM_STARTING] = { NO, TEAM_UP, TEAM_FALLING, NO, NO, TEAM_DRAINING, NO, TEAM_FALLING,
                        TEAM_FALLING, NO, NO },
    [TEAM_UP] = { NO, NO, TEAM_FALLING, NO, NO, TEAM_DRAINING, NO, TEAM_FALLING, TEAM_FALLING, NO,
                  NO },
    [TEAM_FALLING] = { NO, NO, NO, TEAM_BACKOFF, NO, TEAM_DRAINING, NO, NO, TEAM_FALLING,
                       TEAM_GPU_DOWN, NO },
    [TEAM_BACKOFF] = { NO, NO, NO, NO, TEAM_STARTING, TEAM_DOWN, NO, TEAM_STARTING, NO, NO, NO },
    [TEAM_DRAINING] = { NO, NO, NO, TEAM_DOWN, NO, TEAM_DRAINING, TEAM_DRAINING, NO, NO, NO, NO },
    [TEAM_GPU_DOWN] = { NO, NO, NO, NO, TEAM_GPU_DOWN, TEAM_DOWN, NO, TEAM_STARTING, NO,
                        TEAM_GPU_DOWN, TEAM_STARTING },
};

static void every_cell_is_as_drawn(void **state)
{
    (void)state;
    for (int s = 0; s < N_TEAM_STATES; s++) {
        for (int ev = 0; ev < N_TEAM_EVENTS; ev++) {
            enum team_state want = drawing[s][ev];
            assert_int_equal(team_edge((enum team_state)s, (enum team_event)ev)->act != NULL,
                             want != NO);
            reach((enum team_state)s);
            members[1].trouble =
                s == TEAM_FALLING && ev == TEAM_EV_GPU_BAD ? GPU_TROUBLE_LOST : members[1].trouble;
            if (ev == TEAM_EV_GONE && want != NO) { /* comes only when it is true */
                all_die(CLD_EXITED, 0);
            } else {
                team_handle(&t, (enum team_event)ev);
            }
            if (t.state != (want == NO ? (enum team_state)s : want))
                fail_msg("%s + %s gives %s", team_state_name((enum team_state)s),
                         team_event_name((enum team_event)ev), team_state_name(t.state));
        }
    }
}

static void up_only_when_all_are_ready(void **state)
{
    (void)state;
    team_handle(&t, TEAM_EV_START);
    for (int i = 0; i < N; i++) {
        assert_false(team_is_up(&t));
        process_handle(&members[i], PROCESS_EV_READY);
        team_look(&t);
    }
    assert_true(team_is_up(&t));
    assert_string_equal(t.cause, "");
}

static void a_death_takes_the_peers_along(void **state)
{
    (void)state;
    reach(TEAM_UP);
    die(1, CLD_KILLED, SIGSEGV);
    team_look(&t);
    assert_int_equal(t.state, TEAM_FALLING);
    assert_int_equal(world.killed[0], 1);
    assert_int_equal(world.killed[1], 0);
    assert_int_equal(world.killed[2], 1);
    assert_string_equal(t.cause, "worker 0.1: signal 11 (Segmentation fault)");
    die(0, CLD_KILLED, SIGKILL);
    team_look(&t);
    assert_int_equal(t.state, TEAM_FALLING); /* one still lives: not yet */
    die(2, CLD_KILLED, SIGKILL);
    team_look(&t);
    assert_int_equal(t.state, TEAM_BACKOFF);
    assert_string_equal(members[2].last_exit, "killed: worker 0.1 of its group died");
}

static void all_come_back_with_one_new_epoch(void **state)
{
    (void)state;
    reach(TEAM_BACKOFF);
    assert_int_equal(t.epoch, 1);
    team_handle(&t, TEAM_EV_TIMER);
    assert_int_equal(t.epoch, 2);
    for (int i = 0; i < N; i++) {
        assert_int_equal(world.starts[i], 2);
        assert_int_equal(slots[i].epoch, 2);
        assert_int_equal(slots[i].restarts, 1);
    }
    all_ready();
    assert_true(team_is_up(&t));
}

static void several_deaths_in_one_turn_are_one_fall(void **state)
{
    (void)state;
    reach(TEAM_UP);
    die(2, CLD_KILLED, SIGBUS);
    for (int i = 0; i < 2; i++)
        die(i, CLD_EXITED, 1);
    team_look(&t);
    assert_int_equal(t.state, TEAM_BACKOFF);
    assert_int_equal(t.backoff.deaths, 1);
    assert_non_null(strstr(t.cause, "worker 0.2: signal 7"));
}

static void first_fall_in_service_restarts_at_once_the_next_pauses(void **state)
{
    uint64_t before_ns;

    (void)state;
    reach(TEAM_BACKOFF);
    assert_true(world.armed_ns != 0 && world.armed_ns <= clock_mono_ns());
    team_handle(&t, TEAM_EV_TIMER);
    all_ready();
    die(0, CLD_KILLED, SIGKILL);
    team_look(&t);
    before_ns = clock_mono_ns();
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.state, TEAM_BACKOFF);
    assert_true(world.armed_ns >= before_ns + config.backoff_ms * NS_PER_MS);
}

static void a_member_that_cannot_start_brings_the_team_down(void **state)
{
    (void)state;
    world.spawn_fails[2] = true;
    team_handle(&t, TEAM_EV_START);
    team_look(&t);
    assert_int_equal(t.state, TEAM_FALLING);
    assert_non_null(strstr(t.cause, "cannot start"));
    assert_int_equal(world.killed[0] + world.killed[1], 2);
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.state, TEAM_BACKOFF);
}

static void stop_while_falling_ends_it(void **state)
{
    (void)state;
    reach(TEAM_FALLING);
    team_handle(&t, TEAM_EV_STOP);
    all_die(CLD_KILLED, SIGKILL);
    assert_true(team_is_down(&t));
    for (int i = 0; i < N; i++)
        assert_int_equal(members[i].state, PROCESS_DOWN);
}

static void stop_in_backoff_disarms(void **state)
{
    (void)state;
    reach(TEAM_BACKOFF);
    team_handle(&t, TEAM_EV_STOP);
    assert_true(team_is_down(&t));
    assert_int_equal(world.armed_ns, 0);
    team_handle(&t, TEAM_EV_TIMER); /* late */
    assert_true(team_is_down(&t));
}

static void second_stop_kills_them_all(void **state)
{
    (void)state;
    reach(TEAM_DRAINING);
    team_handle(&t, TEAM_EV_STOP);
    for (int i = 0; i < N; i++)
        assert_int_equal(world.killed[i], 1);
}

static void restart_is_no_death_and_costs_no_pause(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        if (i == 0)
            reach(TEAM_UP);
        team_handle(&t, TEAM_EV_RESTART);
        all_die(CLD_KILLED, SIGKILL);
        assert_int_equal(t.state, TEAM_BACKOFF);
        assert_true(world.armed_ns != 0 && world.armed_ns <= clock_mono_ns());
        team_handle(&t, TEAM_EV_TIMER);
        assert_int_equal(t.epoch, i + 2);
        all_ready();
    }
    assert_int_equal(t.backoff.deaths, 0);
    assert_int_equal(stat_get(&counts, STAT_process_deaths), 0);
}

/* A restart that was asked for does not excuse the deaths that follow. */
static void a_death_after_a_restart_counts(void **state)
{
    (void)state;
    reach(TEAM_UP);
    team_handle(&t, TEAM_EV_RESTART);
    all_die(CLD_KILLED, SIGKILL);
    team_handle(&t, TEAM_EV_TIMER);
    all_ready();
    all_die(CLD_KILLED, SIGSEGV);
    team_look(&t);
    assert_int_equal(t.backoff.deaths, 1);
    assert_non_null(strstr(t.cause, "signal 11"));
}

/* ---- GPUs ---- */

static void a_lost_gpu_is_waited_for_longer_and_longer(void **state)
{
    uint64_t pause_ms = config.gpu_retry_ms;

    (void)state;
    reach(TEAM_GPU_DOWN);
    assert_string_equal(t.cause, "worker 0.1: exit code 82 (its GPU is lost)");
    for (int i = 0; i < 8; i++) {
        uint64_t now = clock_mono_ns();
        assert_in_range(world.armed_ns + NS_PER_S - now, pause_ms * NS_PER_MS,
                        pause_ms * NS_PER_MS + NS_PER_S);
        team_handle(&t, TEAM_EV_TIMER);
        assert_int_equal(world.checks, i + 1);
        snprintf(t.gpu_words, sizeof t.gpu_words, "wants a reset");
        team_handle(&t, TEAM_EV_GPU_BAD);
        assert_string_equal(t.cause, "worker 0.1: exit code 82 (its GPU is lost); wants a reset");
        pause_ms = 2 * pause_ms > config.gpu_retry_max_ms ? config.gpu_retry_max_ms : 2 * pause_ms;
    }
    assert_int_equal(world.starts[1], 1);
    team_handle(&t, TEAM_EV_TIMER);
    team_handle(&t, TEAM_EV_GPU_WELL);
    assert_int_equal(t.state, TEAM_STARTING);
    assert_int_equal(world.starts[1], 2);
    assert_string_equal(t.gpu_words, "");
}

/* Whose end says so need not be who died first. */
static void a_peer_with_a_lost_gpu_is_found(void **state)
{
    (void)state;
    reach(TEAM_UP);
    die(0, CLD_EXITED, 1); /* its peer has left the group */
    die(2, CLD_EXITED, WORKER_EXIT_DEVICE_LOST);
    team_look(&t);
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.state, TEAM_GPU_DOWN);
    assert_non_null(strstr(t.cause, "worker 0.2: exit code 82"));
}

static void where_nobody_can_be_asked_a_start_tells(void **state)
{
    (void)state;
    reach(TEAM_GPU_DOWN);
    world.check_fails = true;
    team_handle(&t, TEAM_EV_TIMER);
    assert_int_equal(t.state, TEAM_STARTING);
}

static void get_stuck(int i)
{
    process_handle(&members[i], PROCESS_EV_TIMER);
    team_look(&t);
}

static void a_member_that_stays_is_told_and_asked_about_at_once_when_it_goes(void **state)
{
    (void)state;
    reach(TEAM_UP);
    die(1, CLD_KILLED, SIGSEGV);
    team_look(&t);
    die(0, CLD_KILLED, SIGKILL);
    get_stuck(2);
    assert_int_equal(t.state, TEAM_FALLING);
    assert_string_equal(t.cause, "worker 0.2: killed (worker 0.1 of its group died) but not reaped "
                                 "in 5 s: its GPU does not let go of it");
    die(2, CLD_KILLED, SIGKILL);
    team_look(&t);
    assert_int_equal(t.state, TEAM_GPU_DOWN);
    assert_true(world.armed_ns <= clock_mono_ns());
    team_handle(&t, TEAM_EV_TIMER);
    team_handle(&t, TEAM_EV_GPU_WELL);
    all_ready();
    assert_true(team_is_up(&t));
}

/* Killed because it hung: nobody has died, and nobody is served. */
static void a_hung_member_that_stays_takes_its_group_out_of_service(void **state)
{
    (void)state;
    reach(TEAM_UP);
    process_kill(&members[1], "step running for 3 s");
    get_stuck(1);
    assert_int_equal(t.state, TEAM_FALLING);
    assert_string_equal(t.cause, "worker 0.1: killed (step running for 3 s) but not reaped in 5 s: "
                                 "its GPU does not let go of it");
    assert_int_equal(world.killed[0], 1);
    die(1, CLD_KILLED, SIGKILL);
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.state, TEAM_GPU_DOWN);
}

static void a_stop_does_not_wait_for_a_member_that_stays(void **state)
{
    (void)state;
    reach(TEAM_DRAINING);
    team_handle(&t, TEAM_EV_STOP);
    die(0, CLD_KILLED, SIGKILL);
    die(1, CLD_KILLED, SIGKILL);
    get_stuck(2);
    assert_true(team_is_down(&t));
    assert_true(members[2].was_forced);
}

static void hastening_reaches_all_who_drain(void **state)
{
    (void)state;
    reach(TEAM_DRAINING);
    team_handle(&t, TEAM_EV_HASTEN);
    for (int i = 0; i < N; i++) {
        assert_int_equal(world.drained[i], 2);
        assert_int_equal(world.killed[i], 0);
    }
}

/* ---- after the death of an llmd ---- */

static struct process next_members[N];

/* The board as it is now, and nothing else. */
static void adopt(void)
{
    for (int i = 0; i < N; i++) {
        process_init(&next_members[i], &process_ops, &config, slots[i].name, &slots[i], &counts);
        process_adopt(&next_members[i]);
    }
    memcpy(members, next_members, sizeof members);
    team_init(&t, &team_ops, &config, "group 0", members, N);
    team_adopt(&t);
}

static void every_state_is_adopted_as_it_was(void **state)
{
    (void)state;
    for (int s = 0; s < N_TEAM_STATES; s++) {
        uint32_t epoch;
        reach((enum team_state)s);
        epoch = t.epoch;
        adopt();
        team_look(&t);
        assert_int_equal(t.state, s);
        assert_int_equal(t.epoch, epoch);
        for (int i = 0; i < N; i++)
            assert_int_equal(world.starts[i], s != TEAM_DOWN);
    }
}

static void adopted_pause_ends_when_it_would_have(void **state)
{
    uint64_t at;

    (void)state;
    reach(TEAM_BACKOFF);
    at = world.armed_ns;
    t.backoff.pause_ms = 0;
    adopt();
    assert_int_equal(world.armed_ns, at);
    assert_int_equal(t.backoff.deaths, 1);
    team_handle(&t, TEAM_EV_TIMER);
    assert_int_equal(t.epoch, 2);
}

/* llmd died after the last exit and before it had drawn the pause. */
static void deaths_without_a_pause_are_paused_for(void **state)
{
    (void)state;
    reach(TEAM_FALLING);
    for (int i = 0; i < N; i++)
        if (world.running[i])
            die(i, CLD_KILLED, SIGKILL);
    adopt();
    team_look(&t);
    assert_int_equal(t.state, TEAM_BACKOFF);
    assert_int_equal(t.backoff.deaths, 1);
}

static void a_death_that_nobody_saw_brings_the_adopted_group_down(void **state)
{
    (void)state;
    reach(TEAM_UP);
    adopt();
    die(1, CLD_KILLED, SIGKILL);
    team_look(&t);
    assert_int_equal(t.state, TEAM_FALLING);
    assert_int_equal(world.killed[0], 1);
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.backoff.deaths, 1);
    assert_in_range(t.retry_ns, 1, clock_mono_ns()); /* it had served: no pause */
}

/* llmd died while it started the ranks one after the other. */
static void a_group_that_was_started_by_half_starts_again(void **state)
{
    (void)state;
    reach(TEAM_STARTING);
    slots[2].state = PROCESS_DOWN;
    world.running[2] = 0;
    adopt();
    team_look(&t);
    assert_int_equal(t.state, TEAM_FALLING);
    all_die(CLD_KILLED, SIGKILL);
    assert_int_equal(t.state, TEAM_BACKOFF);
}

static void a_drain_that_was_begun_by_half_goes_to_all(void **state)
{
    (void)state;
    reach(TEAM_UP);
    members[0].drain_deadline_ns = 77 * NS_PER_S;
    process_handle(&members[0], PROCESS_EV_STOP);
    adopt();
    assert_int_equal(t.state, TEAM_DRAINING);
    for (int i = 0; i < N; i++) {
        assert_int_equal(world.drained[i], 1);
        assert_int_equal(members[i].drain_deadline_ns, 77 * NS_PER_S);
    }
    all_die(CLD_EXITED, 0);
    assert_true(team_is_down(&t));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(every_cell_is_as_drawn, setup),
        cmocka_unit_test_setup(up_only_when_all_are_ready, setup),
        cmocka_unit_test_setup(a_death_takes_the_peers_along, setup),
        cmocka_unit_test_setup(all_come_back_with_one_new_epoch, setup),
        cmocka_unit_test_setup(several_deaths_in_one_turn_are_one_fall, setup),
        cmocka_unit_test_setup(first_fall_in_service_restarts_at_once_the_next_pauses, setup),
        cmocka_unit_test_setup(a_member_that_cannot_start_brings_the_team_down, setup),
        cmocka_unit_test_setup(stop_while_falling_ends_it, setup),
        cmocka_unit_test_setup(stop_in_backoff_disarms, setup),
        cmocka_unit_test_setup(second_stop_kills_them_all, setup),
        cmocka_unit_test_setup(restart_is_no_death_and_costs_no_pause, setup),
        cmocka_unit_test_setup(a_death_after_a_restart_counts, setup),
        cmocka_unit_test_setup(a_lost_gpu_is_waited_for_longer_and_longer, setup),
        cmocka_unit_test_setup(a_peer_with_a_lost_gpu_is_found, setup),
        cmocka_unit_test_setup(where_nobody_can_be_asked_a_start_tells, setup),
        cmocka_unit_test_setup(a_member_that_stays_is_told_and_asked_about_at_once_when_it_goes,
                               setup),
        cmocka_unit_test_setup(a_hung_member_that_stays_takes_its_group_out_of_service, setup),
        cmocka_unit_test_setup(a_stop_does_not_wait_for_a_member_that_stays, setup),
        cmocka_unit_test_setup(hastening_reaches_all_who_drain, setup),
        cmocka_unit_test_setup(every_state_is_adopted_as_it_was, setup),
        cmocka_unit_test_setup(adopted_pause_ends_when_it_would_have, setup),
        cmocka_unit_test_setup(deaths_without_a_pause_are_paused_for, setup),
        cmocka_unit_test_setup(a_death_that_nobody_saw_brings_the_adopted_group_down, setup),
        cmocka_unit_test_setup(a_group_that_was_started_by_half_starts_again, setup),
        cmocka_unit_test_setup(a_drain_that_was_begun_by_half_goes_to_all, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
