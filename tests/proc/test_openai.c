/* test_openai.c - what vLLM's clients ask beyond plain completions, of the real gateway and worker: beams, the
 * best of several.  Each answer is held against one that the client makes itself out of simpler
 * requests. */
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

#define MODEL TEST_SOURCE_DIR "/models/stories-demo"

enum { EOS = 2, TOKENS_MAX = 64, WIDTH_MAX = 4 };

static int set_up(void **state)
{
    static const char *const args[] = { "--model", MODEL, "--log-level", "warning", NULL };
    static struct system s;

    system_start(&s, args);
    *state = &s;
    return 0;
}

static int tear_down(void **state)
{
    assert_int_equal(system_stop(*state), 0);
    return 0;
}

static json_t *ask(const struct system *s, const char *path, int status, const char *body)
{
    struct buf out = { 0 };
    json_t *v;
    int got = http_ask(s->port, path, body, &out);

    if (got != status)
        fail_msg("%s %s: %d %s", path, body, got, out.data ? out.data : "");
    v = json_parse(out.data, out.n, NULL);
    assert_non_null(v);
    buf_fini(&out);
    return v;
}

static json_t *choice_of(const json_t *answer, size_t i)
{
    json_t *c = json_array_get(json_object_get(answer, "choices"), i);

    assert_non_null(c);
    return c;
}

static const char *text_of(const json_t *answer, size_t i)
{
    return json_string_value(json_object_get(choice_of(answer, i), "text"));
}

static json_t *usage_of(const json_t *answer, const char *name)
{
    return json_object_get(json_object_get(answer, "usage"), name);
}

/* ---- beams, searched by the client ---- */

struct text {
    int32_t ids[TOKENS_MAX]; /* prompt included */
    uint32_t n;
    double sum, score;
    bool is_end;
};

static void put_ids(struct buf *body, const struct text *t)
{
    buf_add_str(body, "\"prompt\":[");
    for (uint32_t i = 0; i < t->n; i++)
        buf_printf(body, "%s%d", i ? "," : "", t->ids[i]);
    buf_add_str(body, "]");
}

static bool goes_before(const struct text *a, const struct text *b)
{
    return a->score > b->score;
}

static void insert(struct text *list, uint32_t *n, uint32_t max, const struct text *t)
{
    uint32_t at = *n;

    while (at > 0 && goes_before(t, &list[at - 1]))
        at--;
    if (at == max)
        return;
    if (*n < max)
        ++*n;
    memmove(&list[at + 1], &list[at], (*n - at - 1) * sizeof *list);
    list[at] = *t;
}

/* One step of one beam: its likeliest next tokens by name "token_id:N", best first. */
static void extend(const struct system *s, const struct text *t, uint32_t width, struct text *next,
                   uint32_t *n_next, struct text *done, uint32_t *n_done)
{
    struct buf body = { 0 };
    const char *name;
    json_t *answer, *top, *lp;

    buf_add_str(&body, "{");
    put_ids(&body, t);
    buf_printf(&body,
               ",\"max_tokens\":1,\"temperature\":0,\"ignore_eos\":true,\"logprobs\":%u,"
               "\"return_tokens_as_token_ids\":true}",
               2 * width);
    answer = ask(s, "/v1/completions", 200, body.data);
    top = json_array_get(
        json_object_get(json_object_get(choice_of(answer, 0), "logprobs"), "top_logprobs"), 0);
    assert_int_equal(json_object_size(top), 2 * width);
    json_object_foreach (top, name, lp) {
        struct text longer = *t;
        longer.ids[longer.n++] = atoi(name + strlen("token_id:"));
        longer.sum += (double)(float)json_number_value(lp);
        longer.is_end = longer.ids[longer.n - 1] == EOS;
        longer.score = longer.sum / (longer.n - longer.is_end);
        if (longer.is_end)
            insert(done, n_done, width, &longer);
        else
            insert(next, n_next, width, &longer);
    }
    json_decref(answer);
    buf_fini(&body);
}

static uint32_t search(const struct system *s, const struct text *prompt, uint32_t width,
                       uint32_t max_tokens, struct text *best)
{
    struct text live[WIDTH_MAX] = { *prompt };
    uint32_t n_live = 1, n_best = 0;

    for (uint32_t step = 0; step < max_tokens; step++) {
        struct text next[WIDTH_MAX];
        uint32_t n_next = 0;
        for (uint32_t i = 0; i < n_live; i++)
            extend(s, &live[i], width, next, &n_next, best, &n_best);
        memcpy(live, next, sizeof live);
        n_live = n_next;
    }
    for (uint32_t i = 0; i < n_live; i++)
        insert(best, &n_best, width, &live[i]);
    return n_best;
}

static void expect_ids(const json_t *choice, const struct text *want, uint32_t n_prompt)
{
    const json_t *ids = json_object_get(choice, "token_ids");

    assert_int_equal(json_array_size(ids), want->n - n_prompt);
    for (uint32_t i = n_prompt; i < want->n; i++)
        assert_int_equal(json_integer_value(json_array_get(ids, i - n_prompt)), want->ids[i]);
    assert_string_equal(json_string_value(json_object_get(choice, "finish_reason")),
                        want->is_end ? "stop" : "length");
    if (want->is_end)
        assert_int_equal(json_integer_value(json_object_get(choice, "stop_reason")), EOS);
}

static void beams_are_those_a_client_finds_step_by_step(void **state)
{
    static const struct {
        struct text prompt;
        uint32_t width, max_tokens;
    } rows[] = {
        { { .ids = { 1, 264, 533 }, .n = 3 }, 3, 12 },
        { { .ids = { 1, 1985 }, .n = 2 }, 4, 9 },
        { { .ids = { 1, 264, 533, 607 }, .n = 4 }, 1, 10 },
    };
    const struct system *s = *state;

    for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
        struct text best[WIDTH_MAX];
        uint32_t n = search(s, &rows[k].prompt, rows[k].width, rows[k].max_tokens, best);
        struct buf body = { 0 };
        json_t *answer;

        buf_add_str(&body, "{");
        put_ids(&body, &rows[k].prompt);
        buf_printf(&body,
                   ",\"max_tokens\":%u,\"n\":%u,\"use_beam_search\":true,"
                   "\"return_token_ids\":true,\"logprobs\":1}",
                   rows[k].max_tokens, rows[k].width);
        answer = ask(s, "/v1/completions", 200, body.data);
        assert_int_equal(n, rows[k].width);
        assert_int_equal(json_array_size(json_object_get(answer, "choices")), n);
        for (uint32_t i = 0; i < n; i++)
            expect_ids(choice_of(answer, i), &best[i], rows[k].prompt.n);
        json_decref(answer);
        buf_fini(&body);
    }
}

/* An answer without what the time and chance of its request put into it. */
static char *choices_text(const json_t *answer)
{
    return json_dumps(json_object_get(answer, "choices"), JSON_COMPACT);
}

static void beams_survive_the_death_of_every_process(void **state)
{
    static const char body[] =
        "{\"prompt\":\"Once upon a time there was\",\"max_tokens\":120,\"n\":4,\"ignore_eos\":true,"
        "\"use_beam_search\":true,\"logprobs\":2,\"length_penalty\":0.5}";
    const char *const victims[] = { "worker 0.0", "gateway", "worker 0.0", "gateway" };
    struct system *s = *state;
    json_t *calm = ask(s, "/v1/completions", 200, body);
    char *want = choices_text(calm);
    int n_killed = 0;

    for (size_t i = 0; i < sizeof victims / sizeof *victims; i++) {
        struct exchange x = { 0 };
        json_t *answer;
        char *got;

        exchange_start(&x, s->port, "/v1/completions", "", body);
        exchanges_run(&x, 1, 20 + 20 * (int)i);
        if (!x.done)
            n_killed += kill(system_pid_of(s, victims[i]), SIGKILL) == 0;
        assert_true(exchanges_run(&x, 1, 60000));
        assert_true(exchange_finish(&x));
        assert_int_equal(x.status, 200);
        answer = json_parse(x.body.data, x.body.n, NULL);
        got = choices_text(answer);
        assert_string_equal(got, want);
        assert_true(system_wait_ready(s, 30000));
        free(got);
        json_decref(answer);
        exchange_close(&x);
    }
    assert_true(n_killed > 1); /* a machine that is this fast would need a longer text */
    free(want);
    json_decref(calm);
}

/* ---- the best of several ---- */

static double sum_of(const json_t *choice)
{
    const json_t *list = json_object_get(json_object_get(choice, "logprobs"), "token_logprobs");
    double sum = 0;

    for (size_t i = 0; i < json_array_size(list); i++)
        sum += (double)(float)json_number_value(json_array_get(list, i));
    return sum;
}

static void best_of_shows_the_likeliest(void **state)
{
    const struct system *s = *state;
    json_t *all = ask(s, "/v1/completions", 200,
                      "{\"prompt\":\"One day\",\"n\":5,\"seed\":11,\"logprobs\":0,"
                      "\"max_tokens\":20,\"temperature\":1.2}");
    json_t *best = ask(s, "/v1/completions", 200,
                       "{\"prompt\":\"One day\",\"n\":2,\"best_of\":5,\"seed\":11,"
                       "\"max_tokens\":20,\"temperature\":1.2}");
    size_t first = 0, second = 1;

    for (size_t i = 0; i < 5; i++)
        if (sum_of(choice_of(all, i)) > sum_of(choice_of(all, first)))
            first = i;
    second = first == 0 ? 1 : 0;
    for (size_t i = 0; i < 5; i++)
        if (i != first && sum_of(choice_of(all, i)) > sum_of(choice_of(all, second)))
            second = i;
    assert_int_equal(json_array_size(json_object_get(best, "choices")), 2);
    assert_string_equal(text_of(best, 0), text_of(all, first));
    assert_string_equal(text_of(best, 1), text_of(all, second));
    json_decref(all);
    json_decref(best);
}

/* Four answers to one long prompt read it once. */
static void choices_share_the_pages_of_their_prompt(void **state)
{
    const struct system *s = *state;
    struct buf body = { 0 };
    double queries, hits, found;
    json_t *answer;
    int64_t n_prompt;

    buf_add_str(&body, "{\"prompt\":\"");
    for (int i = 0; i < 300; i++)
        buf_add_str(&body, i % 7 == 3 ? "ball " : "dog ");
    buf_add_str(&body, "\",\"n\":4,\"max_tokens\":8,\"temperature\":1,\"ignore_eos\":true}");
    queries = system_metric(s, "llmd_prefix_cache_queries_total", "");
    hits = system_metric(s, "llmd_prefix_cache_hits_total", "");
    answer = ask(s, "/v1/completions", 200, body.data);
    n_prompt = json_integer_value(usage_of(answer, "prompt_tokens"));
    assert_true(n_prompt > 300);
    queries = system_metric(s, "llmd_prefix_cache_queries_total", "") - queries;
    found = system_metric(s, "llmd_prefix_cache_hits_total", "") - hits;
    assert_true(queries >= 4 * (double)n_prompt);
    /* three of the four find all but the last page and what no page is full of */
    assert_true(found >= 3 * ((double)n_prompt - 32));
    json_decref(answer);
    buf_fini(&body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beams_are_those_a_client_finds_step_by_step),
        cmocka_unit_test(beams_survive_the_death_of_every_process),
        cmocka_unit_test(best_of_shows_the_likeliest),
        cmocka_unit_test(choices_share_the_pages_of_their_prompt),
    };

    return cmocka_run_group_tests_name("openai", tests, set_up, tear_down);
}
