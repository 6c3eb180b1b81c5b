/* test_gpu_ranks.c - groups of GPUs: real llmd, gateway and a worker process for each rank, on four GPUs of the fake
 * driver.
 *
 * Would break in production: an answer that depends on how many GPUs share the model; a group that waits for NCCL
 * before it says its first word; a rank that dies while all of them add up, and takes an answer, or another group,
 * with it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "tests/check.h"
#include "tests/proc/gpu_server.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

#define BASE "--kv-cache-bytes=8M", "--max-num-seqs=8", "--backoff-ms=1"

static int setup(void **state)
{
    struct gpu_server *g;

    gpu_server_setup(state);
    g = *state;
    g->gpus = "gpus=4,memory=512m,multiprocessors=1";
    g->patience_ms = 240000;
    return 0;
}

/* ---- a wide model ---- */

enum { LONG_PROMPT = 300 };

/* config.json with room for LONG_PROMPT. */
static void lengthen(const char *model)
{
    static const char key[] = "\"max_position_embeddings\":";
    struct buf longer = { 0 };
    char path[128], *text, *at;
    size_t n;

    snprintf(path, sizeof path, "%s/config.json", model);
    assert_true(file_read(path, 1 << 20, &text, &n, NULL));
    at = strstr(text, key);
    assert_non_null(at);
    buf_add(&longer, text, (size_t)(at - text) + strlen(key));
    buf_printf(&longer, "512%s", at + strlen(key) + strspn(at + strlen(key), "0123456789"));
    test_dir_write(model, "config.json", longer.data, longer.n);
    buf_fini(&longer);
    free(text);
}

/* So wide that what its ranks add up for a prompt of LONG_PROMPT tokens is a message for NCCL (exchange.c). */
static void make_wide_model(struct gpu_server *g)
{
    struct checkpoint_spec wide = gpu_server_small;

    wide.hidden = 8192;
    wide.inner = 32;
    gpu_server_make_model(g, &wide);
    lengthen(g->model);
}

/* ---- what is asked and seen ---- */

/* How often the words are in the log. */
static int count_said(const struct gpu_server *g, const char *words)
{
    char path[96], *text;
    size_t n;
    int times = 0;

    snprintf(path, sizeof path, "%s.log", g->system.dir);
    assert_true(file_read(path, 16 << 20, &text, &n, NULL));
    for (const char *at = text; (at = strstr(at, words)) != NULL; at += strlen(words))
        times++;
    free(text);
    return times;
}

static struct question question(uint32_t n_prompt, uint32_t n_answer, uint32_t seed)
{
    struct question q = { .n_prompt = n_prompt, .n_answer = n_answer, .is_streamed = true };

    for (uint32_t i = 0; i < n_prompt; i++)
        q.prompt[i] = (int32_t)((seed * 7919 + i * i * 31 + i * 37) % 97 + 3);
    return q;
}

/* ---- one, two and four ranks ---- */

enum { GOLDEN_TOKENS = 2, GOLDEN_MAX = 8, GOLDEN_SHORT = 2 };

struct golden {
    struct question questions[GOLDEN_MAX];
    char wanted[GOLDEN_MAX][GOLDEN_TOKENS * 8];
    int n;
};

static void add_golden(struct golden *g, const json_t *prompt)
{
    const json_t *ids = json_object_get(prompt, "ids"), *greedy;
    struct question *q = &g->questions[g->n];
    int used = 0;

    assert_true(g->n < GOLDEN_MAX && json_array_size(ids) <= QUESTION_MAX);
    *q = (struct question){ .n_prompt = (uint32_t)json_array_size(ids),
                            .n_answer = GOLDEN_TOKENS,
                            .is_streamed = true };
    for (uint32_t i = 0; i < q->n_prompt; i++)
        q->prompt[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    greedy = json_object_get(prompt, "greedy_ids");
    for (size_t i = 0; i < GOLDEN_TOKENS; i++)
        used += snprintf(g->wanted[g->n] + used, sizeof g->wanted[0] - (size_t)used, " %d",
                         (int)json_integer_value(json_array_get(greedy, i)));
    g->n++;
}

/* All prompts of the demo model, and how a float32 implementation goes on greedily. */
static struct golden read_golden(void)
{
    struct golden g = { .n = 0 };
    struct err e = { 0 };
    json_t *file = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *prompt;
    size_t i;

    assert_non_null(file);
    json_array_foreach (json_object_get(file, "prompts"), i, prompt)
        add_golden(&g, prompt);
    json_decref(file);
    return g;
}

static void check_golden(struct gpu_server *g, const struct golden *golden, const char *tp_size,
                         const char *deterministic)
{
    char *answers[GOLDEN_MAX];

    g->model = DEMO;
    gpu_server_start(g, BASE, "--tp-size", tp_size, "--deterministic", deterministic, NULL);
    gpu_server_ask_all(g, golden->questions, answers, (size_t)golden->n);
    for (int i = 0; i < golden->n; i++) {
        size_t n = strlen(golden->wanted[i]);
        if (strncmp(answers[i], golden->wanted[i], n) != 0 || answers[i][n] != ':')
            fail_msg("%s ranks, deterministic %s, prompt %d: tokens%s, wanted%s", tp_size,
                     deterministic, i, answers[i], golden->wanted[i]);
        free(answers[i]);
    }
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 0);
    gpu_server_stop(g);
}

/* Each rank has a part of every sum of o and down. */
static void greedy_tokens_are_those_of_one_rank(void **state)
{
    static const char *const tp_sizes[] = { "1", "2", "4" };
    struct golden golden = read_golden();

    assert_true(golden.n >= 6);
    for (int i = 0; i < 3; i++)
        check_golden(*state, &golden, tp_sizes[i], "off");
}

/* Columns are cut, no sum is; everything in kernels that take a row as it is, which are slow here: short prompts only, and
 * what one rank says to them is test_cuda_model's. */
static void deterministic_tokens_are_those_of_one_rank(void **state)
{
    struct golden golden = read_golden();

    golden.n = GOLDEN_SHORT;
    check_golden(*state, &golden, "2", "on");
    check_golden(*state, &golden, "4", "on");
}

/* ---- two groups ---- */

enum { STREAMS = 4 };

/* Both have streams when one rank of the second dies: its streams go on, those of the first notice nothing. */
static void a_group_dies_alone_and_its_streams_go_on(void **state)
{
    struct gpu_server *g = *state;
    struct question q[STREAMS];
    char *expected[STREAMS], *answers[STREAMS];
    struct exchange x[STREAMS];
    double before;

    for (uint32_t i = 0; i < STREAMS; i++)
        q[i] = question(5 + i, 30, i + 1);
    gpu_server_start(g, BASE, "--tp-size=2", "--groups=2", "--deterministic=on", NULL);
    gpu_server_ask_all(g, q, expected, STREAMS);
    before = gpu_server_metric(g, "llmd_generated_tokens_total");
    gpu_server_begin(g, x, q, STREAMS);
    gpu_server_wait_metric(g, "llmd_generated_tokens_total", before + STREAMS * 6);
    gpu_server_kill(g, "worker 1.1");
    gpu_server_finish(g, x, q, answers, STREAMS);
    for (int i = 0; i < STREAMS; i++) {
        assert_string_equal(answers[i], expected[i]);
        free(answers[i]);
        free(expected[i]);
    }
    assert_true(system_metric(&g->system, "llmd_sequences_accepted_total", "group=\"0\"") >= 1);
    assert_true(system_metric(&g->system, "llmd_sequences_accepted_total", "group=\"1\"") >= 1);
    assert_true(system_metric(&g->system, "llmd_sequences_recovered_total", "group=\"1\"") >= 1);
    assert_true(system_metric(&g->system, "llmd_sequences_recovered_total", "group=\"0\"") == 0);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 1.0") == 1);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 1.1") == 1);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.0") == 0);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.1") == 0);
    gpu_server_stop(g);
}

/* ---- a rank dies while all add up ---- */

static void kill_in(struct gpu_server *g, const char *deterministic, const char *rule)
{
    struct question q = question(11, 20, 3);
    char *expected, *answer;
    double loaded;

    gpu_server_start(g, BASE, "--tp-size=2", "--deterministic", deterministic, NULL);
    loaded = gpu_server_metric(g, "llmd_weights_bytes_loaded_total");
    expected = gpu_server_ask(g, &q);
    gpu_server_set_faults(g, rule);
    answer = gpu_server_ask(g, &q);
    assert_string_equal(answer, expected);
    assert_int_equal(count_said(g, rule), 1);
    assert_true(gpu_server_metric(g, "llmd_sequences_recovered_total") >= 1);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.0") == 1);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.1") == 1);
    assert_true(gpu_server_metric(g, "llmd_weights_bytes_loaded_total") == loaded);
    gpu_server_stop(g);
    free(expected);
    free(answer);
}

static void a_rank_killed_in_an_all_reduce_is_survived(void **state)
{
    kill_in(*state, "off", "gpu 1 kernel all_reduce 20: kill");
}

static void a_rank_killed_in_an_all_gather_is_survived(void **state)
{
    kill_in(*state, "on", "gpu 0 kernel all_gather 20: kill");
}

/* ---- NCCL ---- */

enum { FORMING_MS = 5000 };

static void wait_for_nccl(const struct gpu_server *g, int n_times)
{
    struct question q = question(4, 1, 9);
    uint64_t end_ns = gpu_server_deadline_ns(g);

    while (count_said(g, "nccl=ready") < n_times) {
        assert_int_equal(count_said(g, "nccl=failed"), 0);
        assert_true(clock_mono_ns() < end_ns);
        free(gpu_server_ask(g, &q)); /* it is looked at by each step */
        usleep(20000);
    }
}

/* Then large messages go through it, and a rank that dies in one is survived: the others, which NCCL leaves in the
 * dark, are killed. */
static void decode_does_not_wait_for_nccl(void **state)
{
    static const char seen[] = "gpu 1 kernel ncclAllReduce 1: slow 1";
    static const char killed[] = "gpu 1 kernel ncclAllReduce 1: kill";
    struct gpu_server *g = *state;
    struct question short_one = question(9, 5, 2), long_one = question(LONG_PROMPT, 5, 4);
    char *first, *expected, *answer, text[32];
    uint64_t begin_ns = clock_mono_ns();

    make_wide_model(g);
    snprintf(text, sizeof text, "init_ms=%d", FORMING_MS);
    setenv("LLMD_FAKE_NCCL", text, 1);
    gpu_server_start(g, BASE, "--tp-size=2", "--prefix-cache=off", NULL);
    first = gpu_server_ask(g, &short_one);
    if (clock_mono_ns() - begin_ns < FORMING_MS * NS_PER_MS)
        assert_int_equal(count_said(g, "nccl=ready"), 0);
    else
        printf("this machine is too slow to answer in %d ms\n", FORMING_MS);
    wait_for_nccl(g, 2);
    gpu_server_set_faults(g, seen);
    expected = gpu_server_ask(g, &long_one);
    assert_int_equal(count_said(g, seen), 1);
    answer = gpu_server_ask(g, &short_one);
    assert_string_equal(answer, first);
    free(answer);
    gpu_server_set_faults(g, killed);
    answer = gpu_server_ask(g, &long_one);
    assert_string_equal(answer, expected);
    assert_int_equal(count_said(g, killed), 1);
    assert_true(system_metric(&g->system, "llmd_process_restarts_total", "worker 0.0") == 1);
    gpu_server_stop(g);
    free(answer);
    free(expected);
    free(first);
}

int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(greedy_tokens_are_those_of_one_rank),
        TEST(deterministic_tokens_are_those_of_one_rank),
        TEST(a_group_dies_alone_and_its_streams_go_on),
        TEST(a_rank_killed_in_an_all_reduce_is_survived),
        TEST(a_rank_killed_in_an_all_gather_is_survived),
        TEST(decode_does_not_wait_for_nccl),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
