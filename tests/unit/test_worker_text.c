/* test_worker_text.c - the real llm-worker and the demo model: what it says; the test is its llmd and its gateway.
 *
 * What would break in production: text that depends on who else is served, on what was computed before or on how many
 * ranks share the model. */
#include <string.h>

#include "common/json.h"
#include "tests/check.h"
#include "worker_fixture.h"

#ifdef __SANITIZE_THREAD__
enum { GREEDY = 64, N_STREAMS = 16 }; /* the model is some twenty times slower there */
#else
enum { GREEDY = 64, N_STREAMS = 64 };
#endif

static uint32_t read_ids(const json_t *list, int32_t *ids)
{
    uint32_t n = (uint32_t)json_array_size(list);

    assert_true(n > 0 && n <= GREEDY);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static void check_golden(uint32_t tp_size, const char *const *set)
{
    int32_t prompts[16][GREEDY], greedy[GREEDY];
    struct err e;
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *list, *item;
    struct fixture f;
    size_t i;

    assert_non_null(golden);
    list = json_object_get(golden, "prompts");
    assert_in_range(json_array_size(list), 1, 16);
    fixture_init(&f, tp_size, set);
    assert_int_equal(f.rig.n_loaded, tp_size);
    json_array_foreach (list, i, item) {
        uint32_t n = read_ids(json_object_get(item, "ids"), prompts[i]);
        struct client_request r = client_request(prompts[i], n, GREEDY);
        r.ignore_eos = true;
        client_submit(&f.client, 1 + i, &r);
    }
    worker_until_all_over(&f.client);
    json_array_foreach (list, i, item) {
        assert_int_equal(read_ids(json_object_get(item, "greedy_ids"), greedy), GREEDY);
        assert_int_equal(f.client.streams[i].n, GREEDY);
        assert_memory_equal(f.client.streams[i].tokens, greedy, sizeof greedy);
        assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_LENGTH);
    }
    json_decref(golden);
    fixture_fini(&f);
}

static void greedy_tokens_are_the_golden_ones(void **state)
{
    (void)state;
    check_golden(1, one_rank);
}

static void two_ranks_give_the_golden_tokens(void **state)
{
    (void)state;
    check_golden(2, two_ranks);
}

static void streams_in_company_equal_their_solo_runs(void **state)
{
    static int32_t prompts[N_STREAMS][PROMPT_MAX];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, one_rank);
    for (uint32_t i = 0; i < N_STREAMS; i++) {
        struct client_request r = stream_request(i, prompts[i]);
        client_submit(&f.client, 1 + i, &r);
        worker_until_all_over(&f.client); /* alone */
    }
    for (uint32_t i = 0; i < N_STREAMS; i++) {
        struct client_request r = stream_request(i, prompts[i]);
        client_submit(&f.client, 1001 + i, &r);
    }
    worker_until_all_over(&f.client);
    for (uint32_t i = 0; i < N_STREAMS; i++)
        compare_streams(&f.client.streams[i], &f.client.streams[N_STREAMS + i]);
    fixture_fini(&f);
}

/* Computed, found in the cache, and with no cache at all: the same bits. */
static void a_prefix_found_gives_the_same_bits_as_one_computed(void **state)
{
    enum { N = 12 };
    static int32_t prompts[N][PROMPT_MAX];
    /* and without drafts, which the others have */
    const char *const off[] = { "speculate",    "off",     "model", DEMO,        "max_num_seqs",
                                "64",           "threads", "2",     "log_level", "warning",
                                "prefix_cache", "off",     NULL };
    struct fixture f, g;

    (void)state;
    fixture_init(&f, 1, one_rank);
    fixture_init(&g, 1, off);
    for (uint32_t i = 0; i < 3 * N; i++) {
        struct client_request r = stream_request(2 * (i % N) + 1, prompts[i % N]);
        client_submit(i < 2 * N ? &f.client : &g.client, 1 + i, &r);
        worker_until_all_over(i < 2 * N ? &f.client : &g.client);
    }
    for (uint32_t i = 0; i < N; i++) {
        const struct client_stream *again = &f.client.streams[N + i];
        compare_streams(&f.client.streams[i], again);
        compare_streams(&f.client.streams[i], &g.client.streams[i]);
        assert_true(again->n_cached >= (again->request.n_prompt - 1) / 16 * 16);
    }
    assert_true(stat_get(worker_rig_stats(&f.rig), STAT_prefix_cache_hits) > 0);
    assert_int_equal(stat_get(worker_rig_stats(&g.rig), STAT_prefix_cache_hits), 0);
    fixture_fini(&g);
    fixture_fini(&f);
}

static void copied_tokens_are_the_same_bits(void **state)
{
    static const char *const shapes[][2] = {
        { "1", "float16" }, { "1", "int8" }, { "2", "float16" }, { "2", "int8" }, { "1", "float32" }
    };

    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        static int32_t prompts[SHARING][PROMPT_MAX];
        const char *set[] = { "model",
                              DEMO,
                              "tp_size",
                              shapes[k][0],
                              "kv_cache_dtype",
                              shapes[k][1],
                              "prefix_cache",
                              "off",
                              "max_num_seqs",
                              "8",
                              "threads",
                              "1",
                              "log_level",
                              "warning",
                              NULL };
        uint32_t n_found = 0, tp_size = shapes[k][0][0] == '2' ? 2 : 1;
        struct fixture f, g;
        fixture_init(&g, tp_size, set);
        submit_sharing(&g, 1, prompts, false);
        set[7] = "on";
        fixture_init(&f, tp_size, set);
        submit_sharing(&f, 1, prompts, true);
        for (uint32_t i = 0; i < SHARING; i++) {
            compare_streams(&f.client.streams[i], &g.client.streams[i]);
            n_found += f.client.streams[i].n_cached == SHARED;
        }
        assert_int_equal(n_found, SHARING - 1);
        assert_true(stat_get(worker_rig_stats(&f.rig), STAT_kv_pages_copied) >= SHARING - 1);
        assert_int_equal(stat_get(worker_rig_stats(&f.rig), STAT_prefix_cache_hits),
                         (SHARING - 1) * SHARED);
        fixture_fini(&g);
        fixture_fini(&f);
    }
}

/* What a sampled token was given when it was drawn, it is given when it is part of a prompt: the same bits. */
static void a_prompt_is_measured_as_it_was_generated(void **state)
{
    enum { N = 90 };
    int32_t all[5 + N];
    struct client_request r = endless(N), again;
    const struct client_stream *drawn, *read;
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, one_rank);
    r.sampling.temperature = 1;
    r.sampling.seed = 4;
    r.sampling.want_logprobs = true;
    drawn = client_submit(&f.client, 1, &r);
    worker_until_all_over(&f.client);
    memcpy(all, story, sizeof story);
    memcpy(all + 5, drawn->tokens, N * sizeof *all);
    again = client_request(all, 5 + N, 0);
    again.want_prompt_logprobs = true;
    again.prompt_top_logprobs = 2;
    read = client_submit(&f.client, 2, &again);
    worker_until_all_over(&f.client);
    assert_int_equal(read->finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(read->n_prompt, 5 + N);
    for (uint32_t i = 0; i < N; i++) {
        const struct client_measure *m = &read->prompt[5 + i];
        assert_true(m->logprob == drawn->logprobs[i]);
        assert_true(m->rank > 0 && m->top_logprob[0] >= m->logprob);
        if (m->rank == 1)
            assert_int_equal(m->top[0], drawn->tokens[i]);
    }
    fixture_fini(&f);
}

/* In small chunks, in company, by two ranks: the same bits. */
static void what_is_said_of_a_prompt_does_not_depend_on_company(void **state)
{
    const char *const two[] = { "model",
                                DEMO,
                                "tp_size",
                                "2",
                                "threads",
                                "1",
                                "max_num_seqs",
                                "8",
                                "log_level",
                                "error",
                                "max_num_batched_tokens",
                                "24",
                                NULL };
    struct client_request stream = endless(300);
    struct readings x;
    struct fixture f, g;

    (void)state;
    readings_init(&x);
    fixture_init(&f, 1, one_rank);
    submit_readings(&f.client, 1, &x);
    worker_until_all_over(&f.client);
    fixture_init(&g, 2, two);
    client_submit(&g.client, 1, &stream);
    worker_until_n_tokens(&g.client, &g.client.streams[0], 3);
    submit_readings(&g.client, 10, &x);
    worker_until_all_over(&g.client);
    compare_readings(&f.client, &g.client, 1);
    fixture_fini(&g);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(greedy_tokens_are_the_golden_ones),
        cmocka_unit_test(two_ranks_give_the_golden_tokens),
        cmocka_unit_test(streams_in_company_equal_their_solo_runs),
        cmocka_unit_test(a_prefix_found_gives_the_same_bits_as_one_computed),
        cmocka_unit_test(copied_tokens_are_the_same_bits),
        cmocka_unit_test(a_prompt_is_measured_as_it_was_generated),
        cmocka_unit_test(what_is_said_of_a_prompt_does_not_depend_on_company),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
