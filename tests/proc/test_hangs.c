/* test_hangs.c - llmd and children that stand still without ending.  If this breaks, a hang is an outage that
 * nobody ends, or a machine that slept kills its whole service when it wakes up. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/proc/llmd_rig.h"

static struct rig rig;

static int setup(void **state)
{
    (void)state;
    rig_init(&rig, "");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_fini(&rig);
    return 0;
}

static void start(void)
{
    rig_start(&rig, "--port", "0", "--host", "127.0.0.1", "--hang-timeout-s", "2", NULL);
    rig_wait_told(&rig, "READY=1");
}

static void stopped_process_is_killed_and_replaced(void **state)
{
    static const char *const names[] = { "gateway", "worker 0.0" };

    (void)state;
    start();
    for (int i = 0; i < 2; i++) {
        pid_t pid = rig_pid_of(&rig, names[i]);
        kill(pid, SIGSTOP);
        assert_int_not_equal(rig_wait_restarts(&rig, names[i], 1), pid);
    }
    assert_int_equal(rig_count_log(&rig, "event=hung cause=\"no sign of life for "), 2);
    assert_int_equal(rig_count_log(&rig, "event=died cause=\"killed: no sign of life for "), 2);
    rig_stop(&rig);
}

static void step_that_does_not_end_is_found_at_its_limit(void **state)
{
    const char words[] = "event=hung cause=\"step running for ";
    double seconds;
    char *log;

    (void)state;
    start();
    rig_behave(&rig, "worker 0.0: long-step");
    rig_wait_event(&rig, "long step");
    rig_behave(&rig, "");
    rig_wait_restarts(&rig, "worker 0.0", 1);
    assert_int_equal(rig_count_log(&rig, words), 1);
    log = rig_read(&rig, "stderr");
    seconds = atof(strstr(log, words) + strlen(words));
    free(log);
    /* of 1.1 s, which begin just after a tick: the second tick from there comes at 1.9 s at the earliest */
    if (seconds < 1.1 || seconds > 1.8)
        fail_msg("found after %.1f s", seconds);
    rig_stop(&rig);
}

static void silent_process_is_found_though_it_runs(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: silent");
    start();
    rig_behave(&rig, "");
    rig_wait_restarts(&rig, "worker 0.0", 1);
    assert_int_equal(rig_count_log(&rig, "event=hung"), 1);
    rig_stop(&rig);
}

static void wait_until(uint64_t end_ns)
{
    while (clock_mono_ns() < end_ns)
        nap_ms(10);
}

static void nobody_is_blamed_when_all_stood_still(void **state)
{
    pid_t gateway, worker;

    (void)state;
    start();
    gateway = rig_pid_of(&rig, "gateway");
    worker = rig_pid_of(&rig, "worker 0.0");
    wait_until(clock_mono_ns() + 1200 * NS_PER_MS); /* it has looked once */
    kill(rig.pid, SIGSTOP);
    kill(gateway, SIGSTOP);
    kill(worker, SIGSTOP);
    wait_until(clock_mono_ns() + 4 * NS_PER_S);
    kill(rig.pid, SIGCONT);
    rig_wait_log(&rig, "event=stood_still");
    kill(gateway, SIGCONT);
    kill(worker, SIGCONT);
    wait_until(clock_mono_ns() + 3 * NS_PER_S); /* longer than hang_timeout_s */
    assert_int_equal(rig_pid_of(&rig, "gateway"), gateway);
    assert_int_equal(rig_pid_of(&rig, "worker 0.0"), worker);
    rig_stop(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(stopped_process_is_killed_and_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(step_that_does_not_end_is_found_at_its_limit, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(silent_process_is_found_though_it_runs, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_is_blamed_when_all_stood_still, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
