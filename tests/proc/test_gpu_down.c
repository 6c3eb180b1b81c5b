/* test_gpu_down.c - a GPU that is lost, cannot be used or holds a process back takes its group out of service, and
 * nothing else.  If this breaks, llmd starts workers again and again on a GPU that needs a reset, waits for ever for
 * one that the kernel cannot end, or a group never comes back.
 *
 * The workers are fakes; so is the process that asks NVML. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/clock.h"
#include "proto/frame.h"
#include "tests/proc/llmd_rig.h"

enum { PATIENCE_MS = 30000, PTRACE_NO_SIGNAL = 0, N_CHUNKS = 70 /* fake_child.c */ };

static struct rig rig;
static pid_t held_back; /* 0 = none */

static int setup(void **state)
{
    (void)state;
    rig_init(&rig, "inspect: gpu\n");
    rig_open_store(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (held_back > 0) /* the test has failed before it could */
        ptrace(PTRACE_DETACH, held_back, NULL, (void *)PTRACE_NO_SIGNAL);
    held_back = 0;
    rig_fini(&rig);
    return 0;
}

#define BASE                                                                                       \
    "--port", "0", "--host", "127.0.0.1", "--orphan-timeout-s", "1", "--gpu-retry-ms", "20",       \
        "--gpu-retry-max-ms", "80"

/* Until the group is in that state, with a cause that has these words. */
static void wait_group(uint32_t group, const char *state, const char *words)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    char seen[800] = "";

    while (clock_mono_ns() < end_ns) {
        Llmd__CtlReply *reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
        const Llmd__GroupStatus *g = reply->status->groups[group];
        bool is_so = strcmp(g->state, state) == 0 && strstr(g->cause, words);

        snprintf(seen, sizeof seen, "%s: %s", g->state, g->cause);
        frame_free_body(reply);
        if (is_so)
            return;
        nap_ms(10);
    }
    fail_msg("group %u is '%s', waiting for %s: %s", group, seen, state, words);
}

static void a_lost_gpu_takes_its_group_down_until_it_is_well(void **state)
{
    pid_t other;

    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_events(&rig, "gpu kv made", 2);
    other = rig_pid_of(&rig, "worker 0.0");
    rig_behave(&rig, "inspect: gpu\nworker 1.0: gpu-lost\ngpu-check: bad\n");
    kill(rig_pid_of(&rig, "worker 1.0"), SIGKILL); /* its successor meets the loss */
    wait_group(1, "gpu_down", "worker 1.0: exit code 82 (its GPU is lost); the driver asks for a");
    rig_wait_events(&rig, "asked about GPU-1", 3);
    assert_int_equal(rig_count_events(&rig, "asked about GPU-0"), 0);
    assert_int_equal(rig_count_events(&rig, "start epoch=3"), 0); /* not while it is asked about */
    assert_int_equal(rig_pid_of(&rig, "worker 0.0"), other);
    rig_wait_told(&rig, "STATUS=degraded");
    rig_behave(&rig, "inspect: gpu\n");
    wait_group(1, "up", "");
    assert_int_equal(rig_count_events(&rig, "gpu kv made"), 3); /* what it held is gone */
    assert_int_equal(rig_count_events(&rig, "start epoch=3"), 1);
    rig_stop(&rig);
    rig_wait_stored(&rig, "llmd-", 0);
}

/* Somebody else has its memory, say: llmd serves with the others, and comes back seldom. */
static void an_unusable_gpu_is_tried_again_after_growing_pauses(void **state)
{
    (void)state;
    rig_behave(&rig, "inspect: gpu\nworker 0.0: gpu-unusable\n");
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "READY=1"); /* group 1 has not waited for the weights of group 0 */
    rig_wait_log(&rig, "event=gpu_down retry_ms=20");
    rig_wait_log(&rig, "event=gpu_down retry_ms=40");
    rig_wait_log(&rig, "event=gpu_down retry_ms=80");
    assert_int_equal(rig_count_log(&rig, "event=backoff"), 0);
    wait_group(1, "up", "");
    rig_behave(&rig, "inspect: gpu\n");
    wait_group(0, "up", "");
    rig_stop(&rig);
}

static void an_operator_need_not_wait(void **state)
{
    Llmd__CtlReply *reply;

    (void)state;
    rig_start(&rig, BASE, "--gpu-retry-ms", "600000", "--gpu-retry-max-ms", "600000", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_behave(&rig, "inspect: gpu\nworker 0.0: gpu-lost\n");
    kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
    wait_group(0, "gpu_down", "its GPU is lost");
    rig_behave(&rig, "inspect: gpu\n");
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_RESTART_GROUP, 0);
    assert_true(reply->ok);
    frame_free_body(reply);
    wait_group(0, "up", "");
    assert_int_equal(rig_count_events(&rig, "asked about"), 0);
    rig_stop(&rig);
}

static void the_next_llmd_asks_as_well(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 3);
    wait_group(1, "up", ""); /* it has read what it is to do */
    rig_behave(&rig, "inspect: gpu\nworker 1.0: gpu-lost\ngpu-check: bad\n");
    kill(rig_pid_of(&rig, "worker 1.0"), SIGKILL);
    wait_group(1, "gpu_down", "its GPU is lost");
    rig_kill_and_restart(&rig);
    rig_wait_log(&rig, "team=\"group 1\" event=adopted state=gpu_down");
    wait_group(1, "gpu_down", "the driver asks for a reset");
    assert_int_equal(rig_count_events(&rig, "start epoch=3"), 0);
    rig_behave(&rig, "inspect: gpu\n");
    wait_group(1, "up", "");
    rig_stop(&rig);
}

/* What it was given cannot be read: who comes next would end in the same way. */
static void memory_that_cannot_be_verified_is_made_anew(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--backoff-ms", "1", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_behave(&rig, "inspect: gpu\nworker 0.0: gpu-bad-part\n");
    kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
    rig_wait_log(&rig, "exit code 81 (a part of its GPU's memory is bad)");
    rig_behave(&rig, "inspect: gpu\n");
    wait_group(0, "up", "");
    assert_true(rig_count_events(&rig, "gpu weights made") >= 2);
    rig_stop(&rig);
}

/* A tracer that does not let it go stands in for a driver that waits for its GPU. */
static void hold_back(pid_t pid)
{
    if (ptrace(PTRACE_SEIZE, pid, NULL, (void *)(uintptr_t)PTRACE_O_TRACEEXIT) == 0) {
        held_back = pid;
        return;
    }
    print_message("[  SKIPPED ] processes cannot be traced here\n");
    skip();
}

static void let_go(void)
{
    int status;

    assert_int_equal(waitpid(held_back, &status, __WALL), held_back);
    assert_int_equal(ptrace(PTRACE_DETACH, held_back, NULL, (void *)PTRACE_NO_SIGNAL), 0);
    held_back = 0;
}

/* A kernel that never ends: the step hangs, and the process is not gone when it is killed. */
static void a_process_that_the_gpu_holds_back_is_told_and_waited_for(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "READY=1");
    hold_back(rig_pid_of(&rig, "worker 0.0"));
    rig_behave(&rig, "inspect: gpu\nworker 0.0: long-step\ngpu-check: bad\n");
    rig_wait_event(&rig, "long step");
    rig_behave(&rig, "inspect: gpu\ngpu-check: bad\n");
    wait_group(
        0, "falling",
        "but not reaped in 5 s: its GPU does not let go of it"); /* and killed for the step */
    wait_group(1, "up", "");
    assert_int_equal(rig_count_events(&rig, "asked about"), 0);
    let_go();
    rig_wait_events(&rig, "asked about GPU-0", 2);
    wait_group(0, "gpu_down", "the driver asks for a reset");
    rig_wait_stored(&rig, "llmd-g-", 2 * N_CHUNKS); /* nothing of it is in the way of the reset */
    rig_behave(&rig, "inspect: gpu\n");
    wait_group(0, "up", "");
    assert_int_equal(rig_count_events(&rig, "gpu weights made"), 3);
    rig_stop(&rig);
}

/* llmd's own end does not wait for what the kernel cannot end. */
static void an_end_does_not_wait_for_it(void **state)
{
    (void)state;
    rig_behave(&rig, "inspect: gpu\nworker 0.0: ignore-all\n");
    rig_start(&rig, BASE, NULL);
    rig_wait_told(&rig, "READY=1");
    hold_back(rig_pid_of(&rig, "worker 0.0"));
    kill(rig.pid, SIGTERM);
    rig_wait_events(&rig, "drain\n", 2); /* the gateway's, then the worker's */
    kill(rig.pid, SIGTERM);
    rig_wait_event(&rig, "drain now");
    kill(rig.pid, SIGTERM);
    assert_int_equal(rig_wait_exit(&rig), 1);
    let_go();
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_lost_gpu_takes_its_group_down_until_it_is_well),
        TEST(an_unusable_gpu_is_tried_again_after_growing_pauses),
        TEST(an_operator_need_not_wait),
        TEST(the_next_llmd_asks_as_well),
        TEST(memory_that_cannot_be_verified_is_made_anew),
        TEST(a_process_that_the_gpu_holds_back_is_told_and_waited_for),
        TEST(an_end_does_not_wait_for_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
