/* test_gpu_host_tier.c - KV pages in host memory, the whole system on fake GPUs.
 *
 * Would break in production: a prompt computed again that host memory had; other tokens than before; a worker's death
 * in the middle of a copy that leaves half a page to be believed; a host that cannot pin memory and does not serve.
 * A pool of few pages, and three prompts in turn: each takes the pages of the one before it. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/host_tier_layout.h"
#include "tests/check.h"
#include "tests/proc/gpu_server.h"

/* Of 4 tokens to a page: ten whole pages a prompt, and one token behind them. */
enum { N_PROMPT = 41, N_TOKENS = 3, N_PROMPTS = 3 };

/* 20 pages for each group on its GPUs, 60 in host memory. */
#define BASE                                                                                       \
    "--deterministic=on", "--max-model-len=64", "--kv-page-tokens=4", "--max-num-seqs=2",          \
        "--speculate=off", "--backoff-ms=1"
#define ONE_GROUP "--kv-cache-bytes=10240", "--kv-host-bytes=30720"

/* The first n_prompt tokens of prompt number i; n tokens are wanted. */
static struct question question(int i, uint32_t n_prompt, uint32_t n)
{
    struct question q = { .n_prompt = n_prompt, .n_answer = n };

    for (int k = 0; k < (int)n_prompt; k++)
        q.prompt[k] = (k * k * 3 + k * 7 + 11 * i) % 99;
    return q;
}

static char *ask(const struct gpu_server *g, int i)
{
    struct question q = question(i, N_PROMPT, N_TOKENS);

    return gpu_server_ask(g, &q);
}

static void wait_until_idle(const struct gpu_server *g)
{
    uint64_t end_ns = gpu_server_deadline_ns(g);

    while (gpu_server_metric(g, "llmd_sequences_running") > 0 ||
           gpu_server_metric(g, "llmd_requests_active") > 0) {
        assert_true(clock_mono_ns() < end_ns);
        usleep(2000);
    }
}

/* What each prompt's answer must be for ever. */
struct answers {
    char *text[N_PROMPTS];
};

static void learn(const struct gpu_server *g, struct answers *a)
{
    for (int i = 0; i < N_PROMPTS; i++)
        a->text[i] = ask(g, i);
}

static void ask_again(const struct gpu_server *g, const struct answers *a, int i)
{
    struct question q = question(i, N_PROMPT, N_TOKENS);

    gpu_server_expect(g, &q, a->text[i]);
}

static void forget(struct answers *a)
{
    for (int i = 0; i < N_PROMPTS; i++)
        free(a->text[i]);
}

/* Prompts asked in turn: of each but its end, which fills no page, nothing is computed twice. */
static void check_restored(const struct gpu_server *g)
{
    double computed, restored = gpu_server_metric(g, "llmd_kv_pages_restored_total");
    struct answers a;

    learn(g, &a);
    gpu_server_wait_metric(g, "llmd_kv_pages_saved_total", 10 * N_PROMPTS);
    computed = gpu_server_metric(g, "llmd_prompt_tokens_total");
    for (int i = 0; i < 2 * N_PROMPTS; i++)
        ask_again(g, &a, i % N_PROMPTS);
    assert_true(gpu_server_metric(g, "llmd_prompt_tokens_total") - computed == 2 * N_PROMPTS);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_restored_total") - restored >= 2 * 10);
    assert_true(gpu_server_metric(g, "llmd_kv_host_pages_corrupt_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_kv_host_pages") >= 10 * N_PROMPTS);
    forget(&a);
}

static bool shows_the_tier(const Llmd__Status *s, void *arg)
{
    (void)arg;
    return s->kv_pages == 20 && s->kv_host_pages == 60 && s->kv_host_pages_used >= 30 &&
           s->kv_host_bytes == 30720;
}

static void evicted_pages_come_back_and_are_not_computed(void **state)
{
    struct gpu_server *g = *state;

    gpu_server_start(g, BASE, ONE_GROUP, NULL);
    check_restored(g);
    assert_true(system_wait(&g->system, shows_the_tier, NULL, g->patience_ms));
    gpu_server_stop(g);
}

static void two_ranks_save_and_restore_their_parts(void **state)
{
    struct gpu_server *g = *state;

    gpu_server_start(g, BASE, ONE_GROUP, "--tp-size=2", NULL);
    check_restored(g);
    gpu_server_stop(g);
}

/* How pages come to a group that does not have them. */
struct way {
    const char *counter;
    bool may_take_long; /* then the group computes them rather than wait */
};

/* A prompt that no other begins like, so that each try has one that nobody knows. */
static struct question question_from(int first, uint32_t n_prompt, uint32_t n)
{
    struct question q = question(0, n_prompt, n);

    q.prompt[0] = first;
    return q;
}

/* While the group that has a prompt is busy the other one gets it: it has the pages by that way, and computes what fills
 * none.  False: it was not the other one, since the busy one was ready by then. */
static bool ask_the_other_group(const struct gpu_server *g, const struct way *way, int i)
{
    struct question q = question_from(i, N_PROMPT, N_TOKENS), other = question_from(50 + i, 6, 56);
    char *expected = gpu_server_ask(g, &q);
    double computed, pages, generated;
    struct exchange busy;

    generated = gpu_server_metric(g, "llmd_generated_tokens_total");
    gpu_server_begin(g, &busy, &other, 1);
    /* until its prompt is read */
    gpu_server_wait_metric(g, "llmd_generated_tokens_total", generated + 1);
    computed = gpu_server_metric(g, "llmd_prompt_tokens_total");
    pages = gpu_server_metric(g, way->counter);
    gpu_server_expect(g, &q, expected);
    computed = gpu_server_metric(g, "llmd_prompt_tokens_total") - computed;
    pages = gpu_server_metric(g, way->counter) - pages;
    if (pages == 10 || !way->may_take_long)
        assert_int_equal((int)computed, 1);
    http_exchange_close(&busy); /* the rest of it nobody wants */
    wait_until_idle(g);
    free(expected);
    return pages == 10;
}

/* How long the busy group is busy, and how soon it makes a copy, is up to the machine: until it was so once. */
static void ask_until_pages_come(const struct gpu_server *g, const struct way *way)
{
    int i = 0;

    while (!ask_the_other_group(g, way, i))
        assert_true(++i < 49);
}

/* A gateway of one thread gives to the first of those that have least to do. */
#define TWO_GROUPS "--groups=2", "--kv-cache-bytes=102400", "--gateway-threads=1"

static void a_page_of_another_gpu_is_copied_straight(void **state)
{
    const struct way way = { "llmd_kv_pages_copied_total", .may_take_long = false };
    struct gpu_server *g = *state;

    gpu_server_start(g, BASE, TWO_GROUPS, NULL);
    ask_until_pages_come(g, &way);
    gpu_server_stop(g);
}

static void a_page_of_a_gpu_out_of_reach_comes_by_host_memory(void **state)
{
    const struct way way = { "llmd_kv_pages_restored_total", .may_take_long = true };
    struct gpu_server *g = *state;

    gpu_server_set_faults(g, "call cuDeviceCanAccessPeer 1+: return 1");
    gpu_server_start(g, BASE, TWO_GROUPS, "--kv-host-bytes=102400", NULL);
    ask_until_pages_come(g, &way);
    gpu_server_stop(g);
}

/* At each moment of a copy, in both ways: what was half done is nobody's, what was done is still there. */
static void a_death_at_any_moment_of_a_copy_costs_no_token(void **state)
{
    struct gpu_server *g = *state;
    uint64_t end_ns = gpu_server_deadline_ns(g);
    struct answers a;

    gpu_server_start(g, BASE, ONE_GROUP,
                     "--fault-points=worker.save=kill@1,worker.saved=kill@2,worker."
                     "restore=kill@3,worker.restored=kill@4",
                     NULL);
    learn(g, &a);
    for (int i = 0; gpu_server_metric(g, "llmd_process_restarts_total") < 4; i++) {
        ask_again(g, &a, i % N_PROMPTS);
        assert_true(clock_mono_ns() < end_ns);
    }
    check_restored(g);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_corrupt_total") == 0);
    forget(&a);
    gpu_server_stop(g);
}

/* llmd's descriptor of the tier. */
static int open_tier(const struct gpu_server *g)
{
    char folder_of[64], path[400], link[200];
    struct dirent *entry;
    int fd = -1;
    DIR *dir;

    snprintf(folder_of, sizeof folder_of, "/proc/%d/fd", (int)system_pid_of(&g->system, "llmd"));
    dir = opendir(folder_of);
    assert_non_null(dir);
    while (fd < 0 && (entry = readdir(dir))) {
        ssize_t n;
        snprintf(path, sizeof path, "%s/%s", folder_of, entry->d_name);
        n = readlink(path, link, sizeof link - 1);
        link[n > 0 ? n : 0] = '\0';
        if (strstr(link, "llmd-hosttier"))
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    closedir(dir);
    assert_true(fd >= 0);
    return fd;
}

/* One bit of each page that is there. */
static void damage(const struct gpu_server *g)
{
    int fd = open_tier(g);
    struct host_tier_hdr h;

    assert_int_equal(pread(fd, &h, sizeof h, 0), sizeof h);
    for (uint32_t slot = 0; slot < h.n_slots; slot++) {
        off_t at = (off_t)(h.data_offset + slot * h.slot_bytes + 77);
        char byte;
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        byte ^= 8;
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    }
    close(fd);
}

static void damaged_host_memory_is_computed_again(void **state)
{
    struct gpu_server *g = *state;
    struct answers a;

    gpu_server_start(g, BASE, ONE_GROUP, NULL);
    learn(g, &a);
    gpu_server_wait_metric(g, "llmd_kv_pages_saved_total", 10 * N_PROMPTS);
    damage(g);
    for (int i = 0; i < 2 * N_PROMPTS; i++)
        ask_again(g, &a, i % N_PROMPTS);
    assert_true(gpu_server_metric(g, "llmd_kv_host_pages_corrupt_total") >= 1);
    for (int i = 0; i < N_PROMPTS; i++) /* of what was computed and saved since */
        ask_again(g, &a, i);
    forget(&a);
    gpu_server_stop(g);
}

/* First llmd, then the worker that the next llmd has adopted: neither has the memory to itself. */
static void host_memory_outlives_llmd_and_worker(void **state)
{
    struct gpu_server *g = *state;
    struct answers a;
    double computed;

    gpu_server_start_below_init(g, BASE, ONE_GROUP, NULL);
    learn(g, &a);
    gpu_server_wait_metric(g, "llmd_kv_pages_saved_total", 10 * N_PROMPTS);
    gpu_server_kill(g, "llmd");
    gpu_server_wait_metric(g, "llmd_llmd_adoptions_total", 1);
    assert_true(system_wait_ready(&g->system, g->patience_ms));
    gpu_server_kill(g, "worker 0.0");
    gpu_server_wait_metric(g, "llmd_process_restarts_total", 1);
    ask_again(g, &a, 0); /* it waits for the successor */
    computed = gpu_server_metric(g, "llmd_prompt_tokens_total");
    for (int i = 0; i < N_PROMPTS; i++)
        ask_again(g, &a, i);
    assert_true(gpu_server_metric(g, "llmd_prompt_tokens_total") - computed == N_PROMPTS);
    forget(&a);
    gpu_server_stop(g);
}

static void a_host_that_cannot_pin_memory_serves_without(void **state)
{
    struct gpu_server *g = *state;
    struct answers a;

    gpu_server_set_faults(g, "call cuMemHostRegister_v2 1+: return 2");
    gpu_server_start(g, BASE, ONE_GROUP, NULL);
    learn(g, &a);
    for (int i = 0; i < N_PROMPTS; i++)
        ask_again(g, &a, i);
    assert_true(gpu_server_metric(g, "llmd_kv_pages_saved_total") == 0);
    assert_true(gpu_server_metric(g, "llmd_process_restarts_total") == 0);
    forget(&a);
    gpu_server_stop(g);
}

/* [test's name] */
int main(int argc, char **argv)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, gpu_server_setup, gpu_server_teardown)
    const struct CMUnitTest tests[] = {
        TEST(evicted_pages_come_back_and_are_not_computed),
        TEST(two_ranks_save_and_restore_their_parts),
        TEST(a_page_of_another_gpu_is_copied_straight),
        TEST(a_page_of_a_gpu_out_of_reach_comes_by_host_memory),
        TEST(a_death_at_any_moment_of_a_copy_costs_no_token),
        TEST(damaged_host_memory_is_computed_again),
        TEST(host_memory_outlives_llmd_and_worker),
        TEST(a_host_that_cannot_pin_memory_serves_without),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
