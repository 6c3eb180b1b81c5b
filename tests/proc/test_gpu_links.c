/* test_gpu_links.c - a group of two GPUs that lose each other, or a part of what they share.
 *
 * Would break in production: an NVLink that fails takes the service along; the group goes on with pages of which one GPU
 * has lost its heads, and a client gets other tokens. */
#include <setjmp.h>
#include <signal.h>
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

/* more: a further argument, or NULL. */
static void start(struct gpu_server *g, const char *more)
{
    g->gpus = "gpus=2,memory=512m,multiprocessors=1";
    gpu_server_start(g, "--tp-size=2", "--deterministic=on", "--kv-cache-bytes=4000000",
                     "--kv-page-tokens=4", "--max-num-seqs=4", "--start-timeout-s=120",
                     "--backoff-ms=1", more, NULL);
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

    start(g, NULL);
    expected = gpu_server_ask(g, &question);
    assert_true(has_said(g, "exchange=p2p") && !has_said(g, "exchange=host"));
    before = gpu_server_metric(g, "llmd_generated_tokens_total");
    gpu_server_set_faults(g, "gpu 1 call cuMemImportFromShareableHandle 4: return 1");
    gpu_server_begin(g, &x, &question, 1);
    gpu_server_wait_metric(g, "llmd_generated_tokens_total", before + 4);
    assert_true(state_folder_add_xid(g->folder, 1, "74"));
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

struct words {
    const char *text;
};

static bool is_caused(const Llmd__Status *s, void *arg)
{
    const struct words *w = arg;

    return s->n_groups == 1 && strstr(s->groups[0]->cause, w->text);
}

/* Reaching for the other GPU's memory kills: by default at each start, and the cause names the way out. */
static void gpus_that_die_of_each_others_memory_serve_through_the_host(void **state)
{
    struct words way_out = { "test of P2P, which gpu_exchange=host does without: " };
    struct gpu_server *g = *state;
    char *expected;

    start(g, NULL);
    expected = gpu_server_ask(g, &question);
    gpu_server_set_faults(g, "gpu 1 call cuMemImportFromShareableHandle 4+: sticky 700");
    gpu_server_kill(g, "worker 0.1");
    assert_true(system_wait(&g->system, is_caused, &way_out, g->patience_ms));
    gpu_server_stop(g);
    start(g, "--gpu-exchange=host");
    gpu_server_expect(g, &question, expected);
    assert_true(has_said(g, "exchange=host") && !has_said(g, "refused="));
    gpu_server_stop(g);
    free(expected);
}

/* Memory of one rank's heads does not come back.  The other's are as they were; nothing of it is corrupt, which would
 * alarm people. */
static void pages_that_one_rank_has_lost_are_computed_again(void **state)
{
    struct gpu_server *g = *state;
    char *expected;

    start(g, NULL);
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

/* Its threads work in the context, and would use what exit() takes from under them: the end must leave both alone. */
static void a_communicator_that_never_forms_does_not_spoil_the_end(void **state)
{
    struct gpu_server *g = *state;

    setenv("LLMD_FAKE_NCCL", "init=hang,end=abort", 1);
    start(g, NULL);
    free(gpu_server_ask(g, &question));
    assert_int_equal(kill(g->system.pid, SIGTERM), 0);
    assert_int_equal(system_wait_exit(&g->system, g->patience_ms), 0);
    g->runs = false;
    assert_false(has_said(g, "fake libnccl"));
    assert_true(has_said(g, "process=\"worker 0.0\" event=ended how=\"exit code 0\""));
    assert_true(has_said(g, "process=\"worker 0.1\" event=ended how=\"exit code 0\""));
    system_forget(&g->system);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, gpu_server_setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(ranks_whose_link_fails_exchange_through_the_host),
        TEST(gpus_that_die_of_each_others_memory_serve_through_the_host),
        TEST(pages_that_one_rank_has_lost_are_computed_again),
        TEST(a_communicator_that_never_forms_does_not_spoil_the_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
