/* test_gpu_links.c - a group of two GPUs that lose each other, or a part of what they share.
 *
 * Would break in production: an NVLink that fails takes the service along; the group goes on with pages of which one GPU
 * has lost its heads, and a client gets other tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/file.h"
#include "tests/proc/gpu_server.h"

static const struct question question = { .prompt = { 5, 42, 79, 16, 53, 90, 27, 64, 31, 38, 75 },
                                          .n_prompt = 11,
                                          .n_answer = 24 };

static void start(struct gpu_server *g)
{
    g->gpus = "gpus=2,memory=512m,multiprocessors=1";
    gpu_server_start(g, "--tp-size=2", "--deterministic=on", "--kv-cache-bytes=4000000",
                     "--kv-page-tokens=4", "--max-num-seqs=4", "--start-timeout-s=120",
                     "--backoff-ms=1", NULL);
}

static bool has_said(const struct gpu_server *g, const char *words)
{
    char path[96], *text;
    bool found;
    size_t n;

    snprintf(path, sizeof path, "%s.log", g->system.dir);
    assert_true(file_read(path, 16 << 20, &text, &n, NULL));
    found = memmem(text, n, words, strlen(words)) != NULL;
    free(text);
    return found;
}

static void wait_said(const struct gpu_server *g, const char *words)
{
    uint64_t end_ns = gpu_server_deadline_ns(g);

    while (!has_said(g, words)) {
        if (clock_mono_ns() > end_ns)
            fail_msg("'%s' is not in the log", words);
        usleep(5000);
    }
}

static void expect_restarts(const struct gpu_server *g, double each)
{
    gpu_server_wait_metric(g, "llmd_process_restarts_total", 2 * each);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.0") == each);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.1") == each);
}

/* NVML tells of it in the middle of an answer, and the next ranks do not reach each other's memory any more. */
static void ranks_whose_link_fails_exchange_through_the_host(void **state)
{
    struct gpu_server *g = *state;
    char *expected, *answer;
    struct exchange x;
    double before;

    start(g);
    expected = gpu_server_ask(g, &question);
    assert_true(has_said(g, "exchange=p2p") && !has_said(g, "exchange=host"));
    before = gpu_server_metric(g, "llmd_generated_tokens_total");
    gpu_server_set_faults(g, "gpu 1 call cuMemImportFromShareableHandle 4: return 1");
    gpu_server_begin(g, &x, &question, 1);
    gpu_server_wait_metric(g, "llmd_generated_tokens_total", before + 4);
    state_folder_add_xid(g->folder, 1, 74);
    gpu_server_finish(g, &x, &question, &answer, 1);
    assert_string_equal(answer, expected);
    wait_said(g,
              "Xid 74 of the GPU: NVLink error"); /* on a slow machine, when the answer is over */
    wait_said(g, "exchange=host");
    expect_restarts(g, 1);
    gpu_server_stop(g);
    free(expected);
    free(answer);
}

/* Memory of one rank's heads does not come back.  The other's are as they were; nothing of it is corrupt, which would
 * alarm people. */
static void pages_that_one_rank_has_lost_are_computed_again(void **state)
{
    struct gpu_server *g = *state;
    char *expected;

    start(g);
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "gpu 1 kernel * 200: kill\n"
                             "gpu 1 call cuMemImportFromShareableHandle 2: return 1");
    gpu_server_expect(g, &question, expected);
    assert_true(has_said(g, "GPU memory kept for kv cannot be used"));
    assert_true(gpu_server_metric(g, "llmd_kv_pages_adopted_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 0);
    expect_restarts(g, 1);
    gpu_server_stop(g);
    free(expected);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, gpu_server_setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(ranks_whose_link_fails_exchange_through_the_host),
        TEST(pages_that_one_rank_has_lost_are_computed_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
