/* test_gpu_system.c - the whole system on GPUs: real llmd, gateway and workers, with the fake driver below them.
 *
 * Would break in production: a worker's crash costs loading the weights again, or computing what was computed; a client
 * gets other tokens than without the crash.  The numbers on the metrics page say what was done again. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/check.h"
#include "tests/proc/gpu_server.h"

#define BASE                                                                                       \
    "--deterministic=on", "--kv-cache-bytes=4000000", "--kv-page-tokens=4", "--max-num-seqs=4"

static const struct question question = { .prompt = { 5, 42, 79, 16, 53, 90, 27, 64, 31, 38, 75 },
                                          .n_prompt = 11,
                                          .n_answer = 18 };

/* The worker of the GPU is killed in the middle of an answer: at a launch, so not behind its end on a busy machine. */
static void expect_in_spite_of_a_kill(const struct gpu_server *g, int gpu, const char *expected)
{
    double before = gpu_server_metric(g, "llmd_process_restarts_total");
    char rule[40];

    snprintf(rule, sizeof rule, "gpu %d kernel * 120: kill", gpu);
    gpu_server_set_faults(g, rule);
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") > before);
}

static void a_crash_loads_no_weight_and_computes_no_page_again(void **state)
{
    struct gpu_server *g = *state;
    double loaded, prompt_tokens;
    char *expected;

    gpu_server_start(g, BASE, NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    assert_true(loaded > 5000);
    expected = gpu_server_ask(g, &question);
    prompt_tokens = gpu_server_metric(g, "llmd_prompt_tokens_total");
    expect_in_spite_of_a_kill(g, 0, expected);
    assert_true(gpu_server_metric(g, "llmd_sequences_recovered_total") >= 1);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") >= 1);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_moved_total") <= 1);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 0);
    /* the end of the prompt that fills no page, before and after: never a whole page */
    assert_true(gpu_server_metric(g, "llmd_prompt_tokens_total") - prompt_tokens < 8);
    gpu_server_expect(g, &question, expected);
    gpu_server_stop(g);
    free(expected);
}

/* The epoch's chunks go with it: half-filled ones are never taken for whole. */
static void a_crash_while_loading_costs_a_start(void **state)
{
    struct gpu_server *g = *state;
    char *text;

    gpu_server_set_faults(g, "call cuMemcpyHtoDAsync_v2 4: kill");
    gpu_server_start(g, BASE, NULL);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.0") == 1);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") > 5000);
    text = gpu_server_ask(g, &question);
    assert_true(text[0] != '\0');
    gpu_server_stop(g);
    free(text);
}

/* A kernel went wrong and may have written anywhere: what has a sum is read and believed, the rest made again. */
static void an_error_of_the_gpu_is_survived_like_a_crash(void **state)
{
    struct gpu_server *g = *state;
    char *expected;
    double loaded;

    gpu_server_start(g, BASE, NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "kernel * 120: sticky 719");
    gpu_server_expect(g, &question, expected);
    assert_true(gpu_server_metric(g, "llmd_sequences_recovered_total") >= 1);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") >= 1);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_moved_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 0);
    gpu_server_stop(g);
    free(expected);
}

static void a_rank_of_two_that_dies_costs_no_page_of_either(void **state)
{
    struct gpu_server *g = *state;
    char *expected;
    double loaded;

    gpu_server_start(g, BASE, "--tp-size=2", NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    expect_in_spite_of_a_kill(g, 1, expected);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") >= 1);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 0);
    gpu_server_stop(g);
    free(expected);
}

/* First llmd, then the worker that the next llmd has adopted; the memory is made by a keeper, which outlives both. */
static void memory_outlives_llmd_and_worker(void **state)
{
    struct gpu_server *g = *state;
    char *expected;
    double loaded;

    gpu_server_start_below_init(g, BASE, "--gpu-memory-owner=keeper", NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &question);
    gpu_server_kill(g, "llmd");
    gpu_server_wait_metric(g, "llmd_llmd_adoptions_total", 1);
    assert_true(system_wait_ready(&g->system, g->patience_ms));
    expect_in_spite_of_a_kill(g, 0, expected);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") >= 1);
    gpu_server_stop(g);
    free(expected);
}

/* [test's name] */
int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, gpu_server_setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_crash_loads_no_weight_and_computes_no_page_again),
        TEST(a_crash_while_loading_costs_a_start),
        TEST(an_error_of_the_gpu_is_survived_like_a_crash),
        TEST(a_rank_of_two_that_dies_costs_no_page_of_either),
        TEST(memory_outlives_llmd_and_worker),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
