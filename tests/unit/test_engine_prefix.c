/* test_engine_prefix.c - what is computed once.  Would break in production: prompts that begin alike cost as
 * much as others, or a page of one is taken for another's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "gpu-worker/kvcache.h"

enum { SYSTEM = 200 };

/* A long beginning that all share, and a short end of their own. */
static void fill_chat(int32_t *prompt, uint32_t i, uint32_t n_end)
{
    for (uint32_t k = 0; k < SYSTEM; k++)
        prompt[k] = (int32_t)(3 + k * 7 % 200);
    for (uint32_t k = 0; k < n_end; k++)
        prompt[SYSTEM + k] = (int32_t)(3 + (i * 13 + k) % 250);
}

static void a_prompt_that_many_begin_with_is_computed_once(void **state)
{
    enum { N = 32, END = 20, ANSWER = 10 };
    int32_t prompts[N][SYSTEM + END];
    struct client_request r[N];
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    for (uint32_t i = 0; i < N; i++) {
        fill_chat(prompts[i], i, END);
        r[i] = client_request(prompts[i], SYSTEM + END, ANSWER);
        r[i].ignore_eos = true;
        r[i].sampling.temperature = i % 2 ? 0.8f : 0;
        r[i].sampling.seed = i;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++) {
        rig_assert_expected(&f.client.streams[i], &r[i]);
        assert_int_equal(f.client.streams[i].n_cached, i == 0 ? 0 : SYSTEM);
    }
    assert_int_equal(fake_n_rows - n_rows, SYSTEM + N * (END + ANSWER - 1));
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prompt_tokens), SYSTEM + N * END);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prefix_cache_hits), (N - 1) * SYSTEM);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prefix_cache_queries), N * (SYSTEM + END));
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* The common part ends inside a page: the last of its tokens are copied. */
static void a_prompt_is_found_to_its_last_common_token(void **state)
{
    enum { N = 6, COMMON = SYSTEM - 3, END = 20 };
    int32_t prompts[N][COMMON + END];
    struct client_request r[N];
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    fake_settings.step_us = 20000; /* all are there before the first is through */
    for (uint32_t i = 0; i < N; i++) {
        int32_t whole[SYSTEM + END];
        fill_chat(whole, i, END);
        memcpy(prompts[i], whole, COMMON * sizeof *whole);
        memcpy(prompts[i] + COMMON, whole + SYSTEM, END * sizeof *whole);
        r[i] = client_request(prompts[i], COMMON + END, 1);
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++) {
        rig_assert_expected(&f.client.streams[i], &r[i]);
        assert_int_equal(f.client.streams[i].n_cached, i == 0 ? 0 : COMMON);
    }
    assert_int_equal(fake_n_rows - n_rows, COMMON + N * END);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* n sequences of one request: the prompt once, and the rest of its last page for each. */
static void sequences_of_one_request_share_their_prompt(void **state)
{
    enum { N = 8, PROMPT = SYSTEM + 5, ANSWER = 10 };
    int32_t prompt[PROMPT];
    struct client_request r;
    struct fixture f;
    uint64_t n_rows = fake_n_rows;

    (void)state;
    fill_chat(prompt, 0, 5);
    fixture_init(&f, &rig_roomy);
    switch_off_drafts(&f);
    r = client_request(prompt, PROMPT, ANSWER);
    r.ignore_eos = true;
    r.sampling.temperature = 1;
    for (uint32_t i = 0; i < N; i++) {
        r.sampling.seed = i;
        client_submit(&f.client, 1 + i, &r);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &f.client.streams[i].request);
    assert_true(fake_n_rows - n_rows <= SYSTEM + N * (PROMPT % PAGE + ANSWER - 1));
    fixture_fini(&f);
}

/* n = 4, all at once: rows of one prompt, and for the other three that of its last token, for the logits, and of what
 * is too few to be copied. */
static void four_choices_cost_one_prompt(void **state)
{
    static const uint32_t lengths[] = { SYSTEM, SYSTEM + 1, SYSTEM + 3, SYSTEM + 7 };

    (void)state;
    for (size_t k = 0; k < sizeof lengths / sizeof *lengths; k++) {
        int32_t prompt[SYSTEM + PAGE];
        struct client_request r;
        struct fixture f;
        uint64_t n_rows = fake_n_rows;
        uint32_t rest;
        fill_chat(prompt, 0, PAGE);
        fixture_init(&f, &rig_roomy);
        switch_off_drafts(&f);
        fake_settings.step_us = 20000; /* all are there before the first step is through */
        r = client_request(prompt, lengths[k], 2);
        r.ignore_eos = true;
        r.sampling.temperature = 1;
        for (uint32_t i = 0; i < 4; i++, r.sampling.seed++)
            client_submit(&f.client, 1 + i, &r);
        rig_until_all_over(&f.rig, &f.client);
        for (uint32_t i = 0; i < 4; i++)
            rig_assert_expected(&f.client.streams[i], &f.client.streams[i].request);
        n_rows = fake_n_rows - n_rows - 4; /* less those of their first tokens */
        print_message("prompt of %u tokens: %u rows for four\n", lengths[k], (unsigned)n_rows);
        rest = (lengths[k] - 1) % PAGE;
        assert_int_equal(n_rows, lengths[k] + 3 * (rest < KVCACHE_TAIL_MIN ? rest + 1 : 1));
        rig_until_empty(&f.rig, &f.client);
        rig_assert_clean(&f.rig);
        fixture_fini(&f);
    }
}

/* The next turn of a talk: what was asked and what was answered, and a new question. */
static void an_answer_is_found_when_the_talk_goes_on(void **state)
{
    enum { ANSWER = 50 };
    int32_t prompt[SYSTEM + 20 + ANSWER + 10];
    struct client_request r, next;
    struct fixture f;

    (void)state;
    fill_chat(prompt, 0, 20);
    fixture_init(&f, &rig_roomy);
    r = client_request(prompt, SYSTEM + 20, ANSWER);
    r.ignore_eos = true;
    client_submit(&f.client, 1, &r);
    rig_until_all_over(&f.rig, &f.client);
    memcpy(prompt + SYSTEM + 20, f.client.streams[0].tokens, ANSWER * sizeof *prompt);
    for (int k = 0; k < 10; k++)
        prompt[SYSTEM + 20 + ANSWER + k] = 9 + k;
    next = client_request(prompt, SYSTEM + 20 + ANSWER + 10, 20);
    client_submit(&f.client, 2, &next);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(&f.client.streams[1], &next);
    assert_int_equal(f.client.streams[1].n_cached, (SYSTEM + 20 + ANSWER - 1) / PAGE * PAGE);
    fixture_fini(&f);
}

static void another_group_computes_nothing_again(void **state)
{
    int32_t prompt[SYSTEM + 20];
    struct client_request r;
    struct fixture f, g;
    struct err e;
    uint64_t n_rows;

    (void)state;
    fill_chat(prompt, 0, 20);
    rig_make_segments(&f.rig, &rig_roomy);
    rig_make_segments(&g.rig, &rig_roomy);
    f.rig.n_groups = g.rig.n_groups = 2;
    g.rig.group = 1;
    kvpool_close(&g.rig.pool);
    assert_true(kvpool_attach(&g.rig.pool, dup(f.rig.pool.segment.fd), &e));
    switch_off_drafts(&f);
    switch_off_drafts(&g);
    rig_start(&f.rig);
    rig_start(&g.rig);
    client_open(&f.client, f.rig.instance, 1);
    client_open(&g.client, g.rig.instance, 1);
    r = client_request(prompt, SYSTEM + 20, 30);
    r.ignore_eos = true;
    client_submit(&f.client, 1, &r);
    rig_until_all_over(&f.rig, &f.client);
    n_rows = fake_n_rows;
    client_submit(&g.client, 1, &r);
    rig_until_all_over(&g.rig, &g.client);
    rig_assert_expected(&g.client.streams[0], &r);
    assert_int_equal(fake_n_rows - n_rows, (SYSTEM + 20) % PAGE + 30 - 1);
    assert_int_equal(stat_get(rig_stats(&g.rig), STAT_kv_pages_copied), (SYSTEM + 20) / PAGE);
    fixture_fini(&g);
    fixture_fini(&f);
}

/* Preempted again and again, and still hardly anything is computed twice. */
static void a_preempted_sequence_finds_its_own_pages(void **state)
{
    struct client_request r[2];
    int32_t prompts[2][80];
    struct fixture f;
    struct stats *s;

    (void)state;
    fixture_init(&f, &rig_tight); /* 40 pages of 4 tokens; each ends at 36 */
    fake_settings.step_us = SLOW_US;
    s = rig_stats(&f.rig);
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t k = 0; k < 80; k++)
            prompts[i][k] = (int32_t)(3 + i * 100 + k);
        r[i] = client_request(prompts[i], 64, 80);
        r[i].ignore_eos = true;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 2; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_true(stat_get(s, STAT_sequences_preempted) > 0);
    assert_true(stat_get(s, STAT_prefix_cache_hits) > 0);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void run_again(struct fixture *f, uint64_t id, const struct client_request *r)
{
    struct client_stream *s = client_submit(&f->client, id, r);

    rig_until_all_over(&f->rig, &f->client);
    rig_assert_expected(s, r);
}

/* KV that bad weights may have made, or that made no number, serves nobody else. */
static void pages_in_doubt_are_computed_again(void **state)
{
    const int32_t broken[] = { 1, 5, FAKE_NAN };
    struct client_request r, bad = client_request(broken, 3, 5);
    int32_t prompt[SYSTEM + 20];
    struct fixture f;
    struct stats *s;

    (void)state;
    fill_chat(prompt, 0, 20);
    fixture_init(&f, &rig_roomy);
    s = rig_stats(&f.rig);
    r = client_request(prompt, SYSTEM + 20, 5);
    run_again(&f, 1, &r);
    run_again(&f, 2, &r);
    assert_int_equal(stat_get(s, STAT_prefix_cache_hits), (SYSTEM + 20) / PAGE * PAGE);
    stat_add(s, STAT_weights_chunks_reloaded, 1); /* as the guard does */
    run_again(&f, 3, &r);
    assert_int_equal(f.client.streams[2].n_cached, 0);
    run_again(&f, 4, &r);
    assert_int_equal(f.client.streams[3].n_cached, (SYSTEM + 20) / PAGE * PAGE);
    client_submit(&f.client, 5, &bad);
    rig_until_all_over(&f.rig, &f.client);
    run_again(&f, 6, &r);
    assert_int_equal(f.client.streams[5].n_cached, 0);
    fixture_fini(&f);
}

static void the_prefix_cache_can_be_switched_off(void **state)
{
    int32_t prompt[SYSTEM + 20];
    struct client_request r;
    struct fixture f;
    struct err e;

    (void)state;
    fill_chat(prompt, 0, 20);
    rig_make_segments(&f.rig, &rig_roomy);
    assert_true(config_set(&f.rig.config, "prefix_cache", "off", "test", &e));
    rig_start(&f.rig);
    client_open(&f.client, f.rig.instance, 1);
    r = client_request(prompt, SYSTEM + 20, 5);
    for (uint32_t i = 0; i < 4; i++)
        client_submit(&f.client, 1 + i, &r);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 4; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_prompt_tokens), 4 * (SYSTEM + 20));
    rig_until_empty(&f.rig, &f.client);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_kv_pages_cached), 0);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_that_many_begin_with_is_computed_once),
        cmocka_unit_test(a_prompt_is_found_to_its_last_common_token),
        cmocka_unit_test(sequences_of_one_request_share_their_prompt),
        cmocka_unit_test(four_choices_cost_one_prompt),
        cmocka_unit_test(an_answer_is_found_when_the_talk_goes_on),
        cmocka_unit_test(another_group_computes_nothing_again),
        cmocka_unit_test(a_preempted_sequence_finds_its_own_pages),
        cmocka_unit_test(pages_in_doubt_are_computed_again),
        cmocka_unit_test(the_prefix_cache_can_be_switched_off),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
