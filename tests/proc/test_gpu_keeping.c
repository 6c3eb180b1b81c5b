/* test_gpu_keeping.c - llmd keeps GPU memory for workers that come and go, and for the llmd after it.  If this
 * breaks, each crash costs loading the weights again, or memory of a GPU is never given back.
 *
 * The workers are fakes, whose chunks are memfds: to llmd, which knows no CUDA, that is the same. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/proc/llmd_rig.h"

enum { N_CHUNKS = 70 }; /* fake_child.c */

static struct rig rig;

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
    rig_fini(&rig);
    return 0;
}

#define BASE "--port", "0", "--host", "127.0.0.1", "--orphan-timeout-s", "1"

/* All workers have memory, and the store has a copy of each descriptor. */
static void wait_made(int n_workers)
{
    rig_wait_told(&rig, "READY=1");
    rig_wait_events(&rig, "gpu kv made", n_workers);
    rig_wait_stored(&rig, "llmd-g-", n_workers * 2 * N_CHUNKS);
}

static void kill_worker(const char *name, uint32_t n_restarts)
{
    kill(rig_pid_of(&rig, name), SIGKILL);
    rig_wait_restarts(&rig, name, n_restarts);
}

static void a_successor_is_given_what_its_predecessor_made(void **state)
{
    int fds;

    (void)state;
    rig_start(&rig, BASE, "--tp-size", "2", "--groups", "2", NULL);
    wait_made(4);
    fds = rig_settled_fds(&rig);
    kill_worker("worker 0.1", 1); /* its peer is killed with it */
    rig_wait_events(&rig, "gpu weights kept", 2);
    rig_wait_events(&rig, "gpu kv kept", 2);
    kill_worker("worker 1.0", 1);
    rig_wait_events(&rig, "gpu kv kept", 4);
    assert_int_equal(rig_count_events(&rig, "made"), 8);
    rig_expect_fds(&rig, fds); /* each copy would hold the memory */
    assert_int_equal(rig_count_stored(&rig, "llmd-g-"), 8 * N_CHUNKS);
    rig_stop(&rig);
    rig_wait_stored(&rig, "llmd-", 0);
}

static void a_loader_that_dies_leaves_no_weights(void **state)
{
    (void)state;
    rig_behave(&rig, "inspect: gpu\nworker 0.0: dies-loading\n");
    rig_start(&rig, BASE, NULL);
    rig_wait_events(&rig, "gpu kv kept", 1);
    rig_behave(&rig, "inspect: gpu\n");
    rig_wait_told(&rig, "READY=1");
    assert_int_equal(rig_count_events(&rig, "gpu weights kept"), 0);
    assert_int_equal(rig_count_events(&rig, "gpu kv made"), 1);
    rig_wait_stored(&rig, "llmd-g-", 2 * N_CHUNKS);
    kill_worker("worker 0.0", 2);
    rig_wait_events(&rig, "gpu weights kept", 1);
    rig_stop(&rig);
}

/* Workers go on; then one dies, and its memory is still there for the next. */
static void memory_outlives_llmd(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    wait_made(2);
    for (int i = 0; i < 3; i++) {
        rig_kill_and_restart(&rig);
        rig_wait_events(&rig, "adopt", 3 * (i + 1));
    }
    kill_worker("worker 1.0", 1);
    rig_wait_events(&rig, "gpu weights kept", 1);
    rig_wait_events(&rig, "gpu kv kept", 1);
    assert_int_equal(rig_count_events(&rig, "made"), 4);
    assert_int_equal(rig_count_stored(&rig, "llmd-g-"), 4 * N_CHUNKS);
    rig_stop(&rig);
    rig_wait_stored(&rig, "llmd-", 0);
}

/* While no llmd lived, a worker died: the next llmd hands its memory to the successor that it starts. */
static void memory_outlives_llmd_and_worker_together(void **state)
{
    pid_t worker;

    (void)state;
    rig_start(&rig, BASE, NULL);
    wait_made(1);
    worker = rig_pid_of(&rig, "worker 0.0");
    kill(worker, SIGSTOP); /* it says nothing more */
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    kill(worker, SIGKILL);
    rig_restart(&rig);
    rig_wait_events(&rig, "gpu kv kept", 1);
    assert_int_equal(rig_count_events(&rig, "made"), 2);
    rig_wait_restarts(&rig, "worker 0.0", 1);
    rig_stop(&rig);
}

static void what_a_gpu_has_lost_is_made_anew(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--gpu-retry-ms", "20", NULL);
    wait_made(1);
    rig_behave(&rig, "inspect: gpu\nworker 0.0: gpu-lost\n");
    kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
    rig_wait_events(&rig, "gpu kv kept", 1); /* the one that finds it lost */
    rig_wait_events(&rig, "gpu kv made", 2);
    rig_behave(&rig, "inspect: gpu\n");
    rig_wait_restarts(&rig, "worker 0.0", 2);
    rig_stop(&rig);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_successor_is_given_what_its_predecessor_made),
        TEST(a_loader_that_dies_leaves_no_weights),
        TEST(memory_outlives_llmd),
        TEST(memory_outlives_llmd_and_worker_together),
        TEST(what_a_gpu_has_lost_is_made_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
