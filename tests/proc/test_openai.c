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
    static const char *const args[] = { "--model",
                                        MODEL,
                                        "--log-level",
                                        "warning",
                                        "--prompt-tokens-details",
                                        "on",
                                        "--request-id-headers",
                                        "on",
                                        "--max-logprobs",
                                        "-1",
                                        "--reasoning-parser",
                                        "qwen3",
                                        NULL };
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

/* ---- the prompt's log probabilities ---- */

static void expect_same_top(const json_t *want, const json_t *got)
{
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)want, name, v) {
        const json_t *g = json_object_get(got, name);
        if (!g || json_number_value(g) != json_number_value(v))
            fail_msg("%s: %.9g, wanted %.9g", name, g ? json_number_value(g) : 0,
                     json_number_value(v));
    }
}

/* What the model says of token i of a prompt is what it says behind the i tokens before it. */
static void a_prompt_is_measured_as_it_would_be_generated(void **state)
{
    static const struct text prompt = { .ids = { 1, 264, 533, 607, 1985, 264, 533 }, .n = 7 };
    const struct system *s = *state;
    struct buf body = { 0 };
    json_t *answer, *tops, *listed;

    buf_add_str(&body, "{");
    put_ids(&body, &prompt);
    buf_add_str(&body, ",\"max_tokens\":0,\"echo\":true,\"logprobs\":3,"
                       "\"return_tokens_as_token_ids\":true}");
    answer = ask(s, "/v1/completions", 200, body.data);
    tops = json_object_get(json_object_get(choice_of(answer, 0), "logprobs"), "top_logprobs");
    listed = json_object_get(choice_of(answer, 0), "prompt_logprobs");
    assert_int_equal(json_array_size(tops), prompt.n);
    assert_int_equal(json_array_size(listed), prompt.n);
    assert_true(json_is_null(json_array_get(tops, 0)));
    assert_string_equal(text_of(answer, 0), "the dog ran. the dog");
    assert_int_equal(json_integer_value(usage_of(answer, "completion_tokens")), 0);
    for (uint32_t i = 1; i < prompt.n; i++) {
        struct text before = prompt;
        char id[16];
        json_t *one;

        before.n = i;
        buf_clear(&body);
        buf_add_str(&body, "{");
        put_ids(&body, &before);
        buf_add_str(&body, ",\"max_tokens\":1,\"temperature\":0,\"logprobs\":3,"
                           "\"return_tokens_as_token_ids\":true}");
        one = ask(s, "/v1/completions", 200, body.data);
        expect_same_top(
            json_array_get(
                json_object_get(json_object_get(choice_of(one, 0), "logprobs"), "top_logprobs"), 0),
            json_array_get(tops, i));
        snprintf(id, sizeof id, "%d", prompt.ids[i]);
        assert_non_null(json_object_get(json_array_get(listed, i), id));
        json_decref(one);
    }
    json_decref(answer);
    buf_fini(&body);
}

/* ---- tokens that may and may not come ---- */

static void tokens_are_restricted(void **state)
{
    const struct system *s = *state;
    json_t *free_text, *answer;
    const json_t *ids;

    answer = ask(s, "/v1/completions", 200,
                 "{\"prompt\":\"One day\",\"max_tokens\":12,\"allowed_token_ids\":[264,533],"
                 "\"return_token_ids\":true,\"seed\":3}");
    ids = json_object_get(choice_of(answer, 0), "token_ids");
    assert_int_equal(json_array_size(ids), 12);
    for (size_t i = 0; i < 12; i++) {
        int64_t id = json_integer_value(json_array_get(ids, i));
        assert_true(id == 264 || id == 533);
    }
    json_decref(answer);
    free_text = ask(s, "/v1/completions", 200,
                    "{\"prompt\":\"Once upon\",\"max_tokens\":6,\"temperature\":0}");
    assert_non_null(strstr(text_of(free_text, 0), "a time")); /* what the demo model has learned */
    answer = ask(s, "/v1/completions", 200,
                 "{\"prompt\":\"Once upon\",\"max_tokens\":6,\"temperature\":0,"
                 "\"bad_words\":[\"a time\"]}");
    assert_null(strstr(text_of(answer, 0), "a time"));
    assert_memory_equal(text_of(answer, 0), " a ", 3); /* only the whole run is forbidden */
    json_decref(answer);
    json_decref(free_text);
}

/* ---- embeddings ---- */

static double dot(const json_t *a, const json_t *b)
{
    double sum = 0;

    for (size_t i = 0; i < json_array_size(a); i++)
        sum += json_number_value(json_array_get(a, i)) * json_number_value(json_array_get(b, i));
    return sum;
}

static json_t *embedding_of(const json_t *answer, size_t i)
{
    return json_object_get(json_array_get(json_object_get(answer, "data"), i), "embedding");
}

static void embeddings_are_of_their_text_alone(void **state)
{
    const struct system *s = *state;
    json_t *all = ask(s, "/v1/embeddings", 200,
                      "{\"input\":[\"a red ball\",\"the dog ran\",\"a red ball\"]}");
    json_t *one = ask(s, "/v1/embeddings", 200, "{\"input\":\"the dog ran\"}");

    assert_int_equal(json_array_size(json_object_get(all, "data")), 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(fabs(dot(embedding_of(all, i), embedding_of(all, i)) - 1) < 1e-5);
    assert_true(json_equal(embedding_of(all, 0), embedding_of(all, 2)));
    assert_true(json_equal(embedding_of(all, 1), embedding_of(one, 0)));
    assert_true(dot(embedding_of(all, 0), embedding_of(all, 1)) < 0.999);
    assert_int_equal(json_integer_value(usage_of(all, "completion_tokens")), 0);
    json_decref(all);
    json_decref(one);
}

/* What a step computes of a beam is what its page is not full of. */
static void beams_find_the_pages_of_their_parents(void **state)
{
    enum { STEPS = 60, WIDTH = 4 };
    const struct system *s = *state;
    double queries = system_metric(s, "llmd_prefix_cache_queries_total", "");
    double hits = system_metric(s, "llmd_prefix_cache_hits_total", "");
    double computed;

    json_decref(
        ask(s, "/v1/completions", 200,
            "{\"prompt\":\"Once upon a time a small boy lived near the sea with his mom and his "
            "dad and a big brown dog that was old\",\"max_tokens\":60,\"n\":4,"
            "\"ignore_eos\":true,\"use_beam_search\":true}"));
    queries = system_metric(s, "llmd_prefix_cache_queries_total", "") - queries;
    computed = queries - (system_metric(s, "llmd_prefix_cache_hits_total", "") - hits);
    print_message("a search of %d beams over %d tokens: %.0f tokens were computed of %.0f\n", WIDTH,
                  STEPS, computed, queries);
    assert_true(computed < 16.0 * STEPS * WIDTH);
}

/* An answer without what the time and chance of its request put into it. */
static char *choices_text(const json_t *answer)
{
    return json_dumps(json_object_get(answer, "choices"), JSON_COMPACT);
}

/* The same answer, whoever dies while it is made. */
static void expect_same_over_deaths(struct system *s, const char *body)
{
    const char *const victims[] = { "worker 0.0", "gateway", "worker 0.0", "gateway" };
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
        http_exchange_close(&x);
    }
    assert_true(n_killed > 1); /* a machine that is this fast would need a longer text */
    free(want);
    json_decref(calm);
}

static void beams_survive_the_death_of_every_process(void **state)
{
    expect_same_over_deaths(
        *state,
        "{\"prompt\":\"Once upon a time there was\",\"max_tokens\":120,\"n\":4,\"ignore_eos\":true,"
        "\"use_beam_search\":true,\"logprobs\":2,\"length_penalty\":0.5}");
}

/* ---- thoughts ---- */

static json_t *ids_of(const json_t *answer)
{
    return json_object_get(choice_of(answer, 0), "token_ids");
}

#define THINKING                                                                                   \
    "{\"prompt\":\"Once "                                                                          \
    "<think>\",\"max_tokens\":300,\"ignore_eos\":true,\"return_token_ids\":true,"                  \
    "\"seed\":6,\"logprobs\":1"

static void a_thought_ends_with_its_budget(void **state)
{
    const struct system *s = *state;
    json_t *mark =
        ask(s, "/tokenize", 200, "{\"prompt\":\"</think>\",\"add_special_tokens\":false}");
    json_t *freely = ask(s, "/v1/completions", 200, THINKING "}");
    json_t *answer = ask(s, "/v1/completions", 200, THINKING ",\"thinking_token_budget\":7}");
    const json_t *want = json_object_get(mark, "tokens");

    assert_true(json_array_size(want) > 0);
    for (size_t i = 0; i < 7; i++)
        assert_true(
            json_equal(json_array_get(ids_of(answer), i), json_array_get(ids_of(freely), i)));
    for (size_t i = 0; i < json_array_size(want); i++)
        assert_true(json_equal(json_array_get(ids_of(answer), 7 + i), json_array_get(want, i)));
    assert_int_equal(json_array_size(ids_of(answer)), 300);
    assert_non_null(strstr(text_of(answer, 0), "</think>"));
    json_decref(answer);
    json_decref(freely);
    json_decref(mark);
}

static void a_budget_of_thoughts_survives_the_death_of_every_process(void **state)
{
    expect_same_over_deaths(*state, THINKING ",\"thinking_token_budget\":120,\"n\":2,"
                                             "\"logprob_token_ids\":[264,9,533]}");
}

/* ---- log probabilities of any tokens ---- */

static json_t *top_of(const json_t *answer, size_t i)
{
    const json_t *logprobs = json_object_get(choice_of(answer, 0), "logprobs");
    json_t *token = json_array_get(json_object_get(logprobs, "content"), i);

    assert_non_null(token);
    return json_object_get(token, "top_logprobs");
}

static double logprob_in(const json_t *top, const char *name)
{
    for (size_t k = 0; k < json_array_size(top); k++) {
        const json_t *t = json_array_get(top, k);
        if (strcmp(json_string_value(json_object_get(t, "token")), name) == 0)
            return json_number_value(json_object_get(t, "logprob"));
    }
    fail_msg("no token %s", name);
    return 0;
}

#define MEASURED                                                                                   \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":3,\"temperature\":0,"   \
    "\"logprobs\":true,\"return_tokens_as_token_ids\":true"

/* All probabilities of a token's place are 1 together; those of tokens that are named are the same numbers. */
static void all_log_probabilities_can_be_had(void **state)
{
    static const int named[] = { 533, 7, 2047, 264 };
    const struct system *s = *state;
    json_t *all = ask(s, "/v1/chat/completions", 200, MEASURED ",\"top_logprobs\":-1}");
    json_t *some =
        ask(s, "/v1/chat/completions", 200, MEASURED ",\"logprob_token_ids\":[533,7,2047,264]}");

    for (size_t i = 0; i < 3; i++) {
        double sum = 0;
        assert_int_equal(json_array_size(top_of(all, i)), 2048);
        for (size_t k = 0; k < 2048; k++)
            sum += exp(
                json_number_value(json_object_get(json_array_get(top_of(all, i), k), "logprob")));
        assert_true(fabs(sum - 1) < 1e-3);
        assert_int_equal(json_array_size(top_of(some, i)), 4);
        for (size_t k = 0; k < 4; k++) {
            const json_t *t = json_array_get(top_of(some, i), k);
            char name[32];
            snprintf(name, sizeof name, "token_id:%d", named[k]);
            assert_string_equal(json_string_value(json_object_get(t, "token")), name);
            assert_true(json_number_value(json_object_get(t, "logprob")) ==
                        logprob_in(top_of(all, i), name));
        }
    }
    json_decref(some);
    json_decref(all);
}

/* The worker goes round in circles; nobody waits for the end of that. */
static void a_text_that_goes_round_in_circles_ends(void **state)
{
    const struct system *s = *state;
    json_t *answer = ask(s, "/v1/completions", 200,
                         "{\"prompt\":\"One\",\"max_tokens\":200,\"ignore_eos\":true,"
                         "\"allowed_token_ids\":[264],\"return_token_ids\":true,"
                         "\"repetition_detection\":{\"max_pattern_size\":2,\"min_pattern_size\":2,"
                         "\"min_count\":4}}");

    assert_int_equal(json_array_size(ids_of(answer)), 8);
    assert_string_equal(json_string_value(json_object_get(choice_of(answer, 0), "finish_reason")),
                        "repetition");
    json_decref(answer);
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
    print_message("four choices of a prompt of %lld tokens: %.0f tokens were computed of %.0f\n",
                  (long long)n_prompt, queries - found, queries);
    json_decref(answer);
    buf_fini(&body);
}

/* The same prompt again: its whole pages are there. */
static void usage_tells_what_was_found_in_the_cache(void **state)
{
    static const char body[] = "{\"prompt\":\"Tom and Lily went to the park with the big red ball "
                               "and they were very happy to "
                               "see the dog\",\"max_tokens\":2,\"temperature\":0}";
    const struct system *s = *state;
    json_t *answer = ask(s, "/v1/completions", 200, body);
    struct buf out = { 0 }, stream = { 0 };

    json_decref(answer);
    answer = ask(s, "/v1/completions", 200, body);
    assert_true(json_integer_value(json_object_get(usage_of(answer, "prompt_tokens_details"),
                                                   "cached_tokens")) >= 16);
    json_decref(answer);
    buf_printf(&stream, "%.*s,\"stream\":true,\"stream_options\":{\"include_usage\":true}}",
               (int)sizeof body - 2, body);
    assert_int_equal(http_ask(s->port, "/v1/completions", stream.data, &out), 200);
    assert_non_null(strstr(out.data, "\"prompt_tokens_details\":{\"cached_tokens\":"));
    buf_fini(&stream);
    buf_fini(&out);
}

static int64_t cached_with(const struct system *s, const char *salt)
{
    struct buf body = { 0 };
    json_t *answer;
    int64_t n;

    buf_add_str(&body,
                "{\"prompt\":\"A salted text about a boy and a girl and the big dog that they "
                "saw in the park when it was sunny\",\"max_tokens\":2,\"temperature\":0");
    if (salt)
        buf_printf(&body, ",\"cache_salt\":\"%s\"", salt);
    buf_add_str(&body, "}");
    answer = ask(s, "/v1/completions", 200, body.data);
    n = json_integer_value(
        json_object_get(usage_of(answer, "prompt_tokens_details"), "cached_tokens"));
    json_decref(answer);
    buf_fini(&body);
    return n;
}

/* Who has another salt cannot find out by the time it takes what others have asked. */
static void salted_prompts_are_found_by_their_salt_alone(void **state)
{
    struct system *s = *state;

    assert_int_equal(cached_with(s, "alice"), 0);
    assert_true(cached_with(s, "alice") >= 16);
    assert_int_equal(cached_with(s, "bob"), 0);
    assert_int_equal(cached_with(s, NULL), 0);
    assert_true(cached_with(s, NULL) >= 16);
    kill(system_pid_of(s, "worker 0.0"), SIGKILL); /* its successor's cache is the same */
    assert_true(cached_with(s, "alice") >= 16);
    assert_int_equal(cached_with(s, "carol"), 0);
}

static void expect_request_id(const struct system *s, const char *path, const char *headers,
                              const char *body, const char *want)
{
    struct exchange x = { 0 };

    exchange_start(&x, s->port, path, headers, body);
    assert_true(exchanges_run(&x, 1, 20000));
    assert_true(exchange_finish(&x));
    if (!strstr(x.raw.data, want))
        fail_msg("%s: no '%s' in %s", path, want, x.raw.data);
    http_exchange_close(&x);
}

/* What is no word is not sent back, nor written into a log. */
static void expect_made_up_id(const struct system *s, const char *headers)
{
    static const char field[] = "X-Request-Id: ";
    struct exchange x = { 0 };
    const char *id;

    exchange_start(&x, s->port, "/v1/models", headers, NULL);
    assert_true(exchanges_run(&x, 1, 20000));
    assert_true(exchange_finish(&x));
    id = strstr(x.raw.data, field);
    if (!id || strspn(id + strlen(field), "0123456789abcdef") != 32)
        fail_msg("%s: no id of ours in %s", headers, x.raw.data);
    http_exchange_close(&x);
}

static void answers_carry_the_id_of_their_request(void **state)
{
    char longer[160];
    const struct system *s = *state;
    const char *mine = "X-Request-Id: abc-7\r\n", *theirs = "X-Request-Id: abc-7\r\n";

    expect_request_id(s, "/v1/completions", mine, "{\"prompt\":\"a\",\"max_tokens\":1}", theirs);
    expect_request_id(s, "/v1/completions", mine, "{\"prompt\":\"a\",\"max_tokens\":1}",
                      "\"id\":\"cmpl-abc-7\"");
    expect_request_id(s, "/v1/completions", mine,
                      "{\"prompt\":\"a\",\"max_tokens\":1,\"stream\":true}", theirs);
    expect_request_id(s, "/v1/completions", mine, "{", theirs);
    expect_request_id(s, "/v1/models", mine, NULL, theirs);
    expect_request_id(s, "/nowhere", mine, NULL, theirs);
    expect_request_id(s, "/v1/models", "", NULL, "X-Request-Id: ");
    expect_made_up_id(s, "");
    expect_made_up_id(s, "X-Request-Id: a b\r\n");
    expect_made_up_id(s, "X-Request-Id: a\" x=\"b\r\n");
    snprintf(longer, sizeof longer, "X-Request-Id: %0129d\r\n", 1);
    expect_made_up_id(s, longer);
    /* the body's counts more in the answer's own id */
    expect_request_id(s, "/v1/completions", mine,
                      "{\"prompt\":\"a\",\"max_tokens\":1,\"request_id\":\"r9\"}",
                      "\"id\":\"cmpl-r9\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(beams_are_those_a_client_finds_step_by_step),
        cmocka_unit_test(beams_find_the_pages_of_their_parents),
        cmocka_unit_test(beams_survive_the_death_of_every_process),
        cmocka_unit_test(a_thought_ends_with_its_budget),
        cmocka_unit_test(a_budget_of_thoughts_survives_the_death_of_every_process),
        cmocka_unit_test(all_log_probabilities_can_be_had),
        cmocka_unit_test(a_text_that_goes_round_in_circles_ends),
        cmocka_unit_test(a_prompt_is_measured_as_it_would_be_generated),
        cmocka_unit_test(tokens_are_restricted),
        cmocka_unit_test(embeddings_are_of_their_text_alone),
        cmocka_unit_test(best_of_shows_the_likeliest),
        cmocka_unit_test(choices_share_the_pages_of_their_prompt),
        cmocka_unit_test(salted_prompts_are_found_by_their_salt_alone),
        cmocka_unit_test(usage_tells_what_was_found_in_the_cache),
        cmocka_unit_test(answers_carry_the_id_of_their_request),
    };

    return cmocka_run_group_tests_name("openai", tests, set_up, tear_down);
}
