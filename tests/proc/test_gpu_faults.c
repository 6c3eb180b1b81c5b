/* test_gpu_faults.c - GPUs that fail under a stream: real llmd, gateway and workers, with the fake driver below them.
 *
 * Would break in production: a client gets other tokens than on GPUs that do not fail, none at all, or an answer of
 * nobody; a GPU that is lost takes the whole service along, or never serves again. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/check.h"
#include "tests/proc/gpu_server.h"

#define BASE                                                                                       \
    "--deterministic=on", "--kv-cache-bytes=4000000", "--kv-page-tokens=4", "--max-num-seqs=4",    \
        "--gpu-retry-ms=50", "--gpu-retry-max-ms=100"

static const struct question question = { .prompt = { 5, 42, 79, 16, 53, 90, 27, 64, 31, 38, 75 },
                                          .n_prompt = 11,
                                          .n_answer = 18 };

struct wanted {
    uint32_t group;
    const char *state, *words;
};

static bool group_is(const Llmd__Status *s, void *arg)
{
    const struct wanted *w = arg;

    return s->n_groups > w->group && strcmp(s->groups[w->group]->state, w->state) == 0 &&
           strstr(s->groups[w->group]->cause, w->words);
}

static void wait_group(const struct gpu_server *g, uint32_t group, const char *state,
                       const char *words)
{
    struct wanted w = { group, state, words };

    if (!system_wait(&g->system, group_is, &w, g->patience_ms))
        fail_msg("group %u is not '%s' with '%s'", group, state, words);
}

/* Uncorrectable memory error in the middle of an answer.  The only group: who asked waits for the reset, and gets what was
 * begun; the weights come from disk, for their bytes are gone. */
static void an_answer_outlives_the_loss_of_its_gpu(void **state)
{
    struct gpu_server *g = *state;
    struct exchange x;
    char *expected, *text;
    double loaded;

    gpu_server_start(g, BASE, NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "kernel * 120: lost 214");
    gpu_server_begin(g, &x, &question, 1);
    wait_group(g, 0, "gpu_down",
               "worker 0.0: exit code 82 (its GPU is lost): forward pass"); /* and why */
    wait_group(g, 0, "gpu_down", "NVIDIA's driver asks for a reset");
    assert_true(gpu_server_metric(g, "llmd_gpus_down") == 1);
    assert_true(gpu_server_metric(g, "llmd_gpus_lost_total") == 1);
    /* not while it needs a reset */
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 0);
    assert_true(state_folder_reset_gpu(g->folder, 0));
    gpu_server_finish(g, &x, &question, &text, 1);
    assert_string_equal(text, expected);
    assert_true(gpu_server_metric(g, "llmd_gpus_down") == 0);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == 2 * loaded);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") == 0);
    gpu_server_stop(g);
    free(expected);
    free(text);
}

/* An idle worker asks nothing of its GPU; NVML tells it. */
static void an_idle_worker_leaves_a_gpu_that_is_lost(void **state)
{
    struct gpu_server *g = *state;

    gpu_server_start(g, BASE, NULL);
    assert_true(state_folder_add_xid(g->folder, 0, "79"));
    wait_group(g, 0, "up", "");
    while (gpu_server_metric(g, "llmd_gpus_lost_total") == 0)
        usleep(20000);
    wait_group(g, 0, "up", ""); /* NVML asks for nothing */
    gpu_server_stop(g);
}

/* With another group beside it nobody waits for a reset. */
static void another_group_goes_on_with_what_a_lost_gpu_had(void **state)
{
    struct gpu_server *g = *state;
    const struct question both[] = { question, question };
    struct exchange x[2];
    char *expected, *answers[2];

    gpu_server_start(g, BASE, "--groups=2", NULL);
    wait_group(g, 1, "up", "");
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "gpu 0 kernel * 100: lost 46");
    do { /* the second goes where the first is not, as soon as the gateway has heard HELLO of both */
        gpu_server_begin(g, x, both, 2);
        gpu_server_finish(g, x, both, answers, 2);
        for (int i = 0; i < 2; i++) {
            assert_string_equal(answers[i], expected);
            free(answers[i]);
        }
    } while (gpu_server_metric(g, "llmd_gpus_lost_total") == 0);
    wait_group(g, 0, "gpu_down", "its GPU is lost");
    gpu_server_expect(g, &question, expected);
    assert_true(state_folder_reset_gpu(g->folder, 0));
    wait_group(g, 0, "up", "");
    gpu_server_expect(g, &question, expected);
    gpu_server_stop(g);
    free(expected);
}

/* A kernel that never ends: found, killed, and the same tokens. */
static void a_kernel_that_never_ends_is_ended(void **state)
{
    struct gpu_server *g = *state;
    char *expected;

    gpu_server_start(g, BASE, "--hang-step-ms=2000", NULL);
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "kernel * 90: hang");
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_processes_hung_total") >= 1);
    gpu_server_stop(g);
    free(expected);
}

/* A part of the memory goes bad, where a page is that others share: computed again, that page alone. */
static void a_bad_page_is_computed_again(void **state)
{
    struct gpu_server *g = *state;
    char *expected;
    double loaded;

    gpu_server_start(g, BASE, NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "kernel * 120: flip r1+100 3\nkernel * 121: sticky 226");
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 1);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 1);
    gpu_server_stop(g);
    free(expected);
}

/* It is bad for good: whoever reads it ends.  All that was kept goes, and is made anew. */
static void memory_that_stays_bad_is_given_up(void **state)
{
    struct gpu_server *g = *state;
    char *expected;
    double loaded;

    gpu_server_start(g, BASE, "--backoff-ms=1", NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    /* the second of the next one's start */
    gpu_server_set_faults(g, "kernel * 120: sticky 226\n"
                             "call cuMemImportFromShareableHandle 1: sticky 226");
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == 2 * loaded);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 2);
    gpu_server_stop(g);
    free(expected);
}

/* KV pages whose memory did not come back: what was not sealed must not be gone on with. */
static void pages_whose_memory_is_new_are_computed_again(void **state)
{
    struct gpu_server *g = *state;
    char *expected;

    gpu_server_start(g, BASE, NULL);
    expected = gpu_server_ask(g, &question);
    /* by the next one: the pages */
    gpu_server_set_faults(g, "kernel * 120: kill\n"
                             "call cuMemImportFromShareableHandle 2: return 1");
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 1);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_moved_total") == 0);
    gpu_server_stop(g);
    free(expected);
}

/* The driver is gone when a worker starts; then it is back. */
static void a_driver_that_is_gone_makes_no_tight_loop(void **state)
{
    struct gpu_server *g = *state;
    char *expected;

    gpu_server_start(g, BASE, NULL);
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "call cuInit 1+: return 100");
    gpu_server_kill(g, "worker 0.0");
    wait_group(g, 0, "gpu_down", "exit code 84 (its GPU cannot be used): cuInit");
    gpu_server_set_faults(g, "# well again");
    wait_group(g, 0, "up", "");
    gpu_server_expect(g, &question, expected);
    gpu_server_stop(g);
    free(expected);
}

/* Want of memory at a launch, for a moment: nobody notices.  For longer: the request hears of it, the worker stays. */
static void want_of_memory_ends_no_worker(void **state)
{
    struct gpu_server *g = *state;
    struct exchange x;
    char *expected;

    gpu_server_start(g, BASE, NULL);
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "call cuLaunchKernel 5: return 2\ncall cuLaunchKernel 12: return 2");
    gpu_server_expect(g, &question, expected);
    gpu_server_set_faults(g, "call cuLaunchKernel 7+: return 2");
    gpu_server_begin(g, &x, &question, 1);
    assert_true(exchanges_run(&x, 1, g->patience_ms));
    assert_true(exchange_finish(&x));
    assert_int_equal(x.status, 500);
    assert_non_null(strstr(x.body.data, "the GPU has no memory left"));
    http_exchange_close(&x);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 0);
    gpu_server_stop(g);
    free(expected);
}

/* As a driver does that compiles them for a GPU newer than the build.  All are there before the first question, whose limit
 * loading a few would break. */
static void kernels_that_load_slowly_delay_the_start_alone(void **state)
{
    struct gpu_server *g = *state;

    gpu_server_set_faults(g, "call cuModuleGetFunction 1+: slow 300");
    gpu_server_start(g, BASE, "--hang-step-ms=500", NULL);
    gpu_server_set_faults(g, "call cuModuleGetFunction 1+: kill");
    free(gpu_server_ask(g, &question));
    assert_true(gpu_server_metric(g, "llmd_processes_hung_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 0);
    gpu_server_stop(g);
}

static bool is_noted(const Llmd__Status *s, void *arg)
{
    return strstr(s->gpu_note, arg) != NULL;
}

/* Which a GPU loses when its last process ends: said where operators look. */
static void persistence_mode_that_is_off_is_told(void **state)
{
    struct gpu_server *g = *state;
    char words[] = "persistence mode is off";

    g->gpus = "gpus=2,memory=256m,persistence=off";
    gpu_server_start(g, BASE, NULL);
    assert_true(system_wait(&g->system, is_noted, words, g->patience_ms));
    gpu_server_stop(g);
}

/* [test's name] */
int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, gpu_server_setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(an_answer_outlives_the_loss_of_its_gpu),
        TEST(an_idle_worker_leaves_a_gpu_that_is_lost),
        TEST(another_group_goes_on_with_what_a_lost_gpu_had),
        TEST(a_kernel_that_never_ends_is_ended),
        TEST(a_bad_page_is_computed_again),
        TEST(memory_that_stays_bad_is_given_up),
        TEST(pages_whose_memory_is_new_are_computed_again),
        TEST(a_driver_that_is_gone_makes_no_tight_loop),
        TEST(want_of_memory_ends_no_worker),
        TEST(kernels_that_load_slowly_delay_the_start_alone),
        TEST(persistence_mode_that_is_off_is_told),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
