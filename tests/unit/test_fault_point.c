/* test_fault_point.c - named places where a test has a process die.
 *
 * What would break: a point that fires in the wrong process or at the wrong pass, and a recovery test that
 * then tests nothing. */
#include "common/fault_point.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/check.h"

/* How a child ends that passes the point so often: exit code, or -signal; 99 = it lived. */
static int run(const char *spec, uint32_t epoch, const char *name, int n_passes)
{
    pid_t pid = fork();
    struct err e;
    int status;

    if (pid == 0) {
        log_set_level(LOG_ERROR);
        if (!fault_points_set(spec, epoch, &e))
            _exit(98);
        for (int i = 0; i < n_passes; i++)
            fault_point(name);
        _exit(99);
    }
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void fault_point_acts_at_its_pass_and_nowhere_else(void **state)
{
    (void)state;
    assert_int_equal(run("", 1, "a.b", 10), 99);
    assert_int_equal(run("a.b=kill", 1, "a.b", 1), -SIGKILL);
    assert_int_equal(run("a.b=kill", 1, "a.c", 10), 99);
    assert_int_equal(run("a.b=kill:3", 1, "a.b", 2), 99);
    assert_int_equal(run("a.b=kill:3", 1, "a.b", 3), -SIGKILL);
    assert_int_equal(run("x.y=abort, a.b=exit:2", 1, "a.b", 2), 1);
}

static void fault_point_is_for_one_epoch_when_it_names_one(void **state)
{
    (void)state;
    assert_int_equal(run("a.b=exit@2", 1, "a.b", 5), 99);
    assert_int_equal(run("a.b=exit@2", 2, "a.b", 5), 1);
    assert_int_equal(run("a.b=exit:4@2", 2, "a.b", 3), 99);
}

static void a_call_is_taken_for_one_that_failed(void **state)
{
    struct err e;

    (void)state;
    assert_true(fault_points_set("a.b=fail226:2, a.c=fail7", 1, &e));
    fault_point("a.c"); /* where nothing is called nothing happens, and it has been */
    assert_int_equal(fault_point_call("a.b", 0), 0);
    assert_int_equal(fault_point_call("a.b", 0), 226);
    assert_int_equal(fault_point_call("a.b", 5), 5);
    assert_int_equal(fault_point_call("a.c", 5), 5);
    assert_true(fault_points_set("", 1, &e));
}

static void fault_points_refuse_what_they_do_not_understand(void **state)
{
    static const char *const bad[] = { "a",        "a=",      "a=die",       "a=kill:", "a=kill:0",
                                       "a=kill:x", "a=kill@", "a=kill:1@2x", "A=kill",  "a=fail",
                                       "a=fail0",  "a=kill9", "a=fail:2" };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_false(fault_points_set(bad[i], 1, &e));
        assert_non_null(strstr(e.msg, bad[i]));
        assert_false(atomic_load(&fault_points_armed));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fault_point_acts_at_its_pass_and_nowhere_else),
        cmocka_unit_test(fault_point_is_for_one_epoch_when_it_names_one),
        cmocka_unit_test(a_call_is_taken_for_one_that_failed),
        cmocka_unit_test(fault_points_refuse_what_they_do_not_understand),
    };

    return cmocka_run_group_tests_name("fault_point", tests, NULL, NULL);
}
