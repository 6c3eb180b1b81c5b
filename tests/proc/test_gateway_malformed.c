/* test_gateway_malformed.c - more than a thousand wrong bodies over all routes that read one: each gets an error
 * of its dialect, none an error of ours, and nothing is left behind.
 *
 * What would break in production: one client's mistake is everybody's 5xx, or costs memory each time.
 *
 * Memory is measured in every build, as pages that the gateway has: what a second round of the same bodies adds to
 * them.  AddressSanitizer would keep what is freed in its quarantine, so here it has none; and whatever the gateway
 * cannot reach any more at its end is an exit code that is not 0 (LeakSanitizer). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

enum { N_LEAST = 1000, DEPTH = 4000, GROWTH_BYTES = 1 << 20 };

/* How an error looks. */
enum shape {
    SHAPE_TGI,    /* text of the framework, or {"error":"","error_type":""} */
    SHAPE_OPENAI, /* {"error":{"message":"", ...}} */
    SHAPE_OCI,    /* {"error":"","error_type":""} */
};

/* A member and what it is: s string, n number, i integer, b boolean, a array, o object. */
struct route_case {
    const char *path;
    enum shape shape;
    const char *body;    /* a good one, whose every beginning is none */
    const char *before;  /* of a member: the body up to it ... */
    const char *after;   /* ... and behind it */
    const char *members; /* "name:kind ..." */
    bool is_lenient;     /* "1" is a number there, 1 is true */
};

#define TGI_MEMBERS                                                                                \
    "best_of:i temperature:n repetition_penalty:n frequency_penalty:n top_k:i top_p:n "            \
    "typical_p:n "                                                                                 \
    "do_sample:b max_new_tokens:i return_full_text:b stop:a truncate:i watermark:b details:b "     \
    "decoder_input_details:b seed:i top_n_tokens:i grammar:o adapter_id:s"
#define TGI_ROUTE(path)                                                                            \
    {                                                                                              \
        path, SHAPE_TGI, "{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":1}}",             \
            "{\"inputs\":\"the\",\"parameters\":{", "}}", TGI_MEMBERS, false                       \
    }
#define OPENAI_MEMBERS                                                                             \
    "model:s n:i temperature:n top_p:n top_k:i min_p:n presence_penalty:n frequency_penalty:n "    \
    "repetition_penalty:n seed:i stop_token_ids:a ignore_eos:b max_tokens:i min_tokens:i "         \
    "logit_bias:o skip_special_tokens:b stream:b priority:i echo:b best_of:i bad_words:a "         \
    "allowed_token_ids:a prompt_logprobs:i use_beam_search:b length_penalty:n "                    \
    "truncate_prompt_tokens:i truncation_side:s cache_salt:s stream_interval:i user:s"

static const struct route_case routes[] = {
    TGI_ROUTE("/"),
    TGI_ROUTE("/generate"),
    TGI_ROUTE("/generate_stream"),
    TGI_ROUTE("/invocations"),
    { "/vertex", SHAPE_TGI, "{\"instances\":[{\"inputs\":\"the\"}]}",
      "{\"instances\":[{\"inputs\":\"the\",\"parameters\":{", "}}]}", "max_new_tokens:i seed:i",
      false },
    { "/tokenize", SHAPE_TGI, "{\"inputs\":\"the\"}", "{\"inputs\":\"the\",\"parameters\":{", "}}",
      TGI_MEMBERS, false },
    { "/chat_tokenize", SHAPE_TGI, "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}", "{",
      "}", "messages:a", false },
    { "/v1/completions", SHAPE_OPENAI, "{\"prompt\":\"the\",\"max_tokens\":1}",
      "{\"prompt\":\"the\",", "}", OPENAI_MEMBERS, true },
    { "/v1/chat/completions", SHAPE_OPENAI,
      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],\"max_tokens\":1}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}],", "}", OPENAI_MEMBERS, true },
    { "/v1/embeddings", SHAPE_OPENAI, "{\"input\":\"the\"}", "{\"input\":\"the\",", "}",
      "model:s dimensions:i encoding_format:s truncate_prompt_tokens:i priority:i user:s", true },
    { "/detokenize", SHAPE_OPENAI, "{\"tokens\":[1,264]}", "{\"tokens\":[1,264],", "}", "model:s",
      true },
    { "/predict", SHAPE_OCI, "{\"inputs\":\"the\",\"parameters\":{\"max_new_tokens\":1}}",
      "{\"inputs\":\"the\",\"parameters\":{", "}}", "max_new_tokens:i temperature:n top_p:n",
      false },
};

static const char *const wholes[] = {
    "",
    "null",
    "5",
    "\"x\"",
    "[]",
    "[{}]",
    "{}",
    "{}{}",
    "{\"inputs\":\"the\"}x",
    "nul",
    "'x'",
    "{\"inputs\":\"\\ud800\"}",
    "{\"inputs\":\"\xff\",\"prompt\":\"\xff\",\"messages\":\"\xff\"}",
    "{\"a\":1,\"a\":2}",
    "{\"inputs\":01}",
    "{\"inputs\":\"the\",}",
    "{\"inputs\":NaN}",
    "{\"inputs\":1e999}",
    "\xef\xbb\xbf{\"inputs\":\"the\"}",
};

static struct harness h;
static int n_asked;

static int start(void **state)
{
    (void)state;
    harness_start(&h, 1, NULL);
    harness_start_worker(&h, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    return 0;
}

static bool has_strings(const json_t *object, const char *first, const char *second)
{
    return json_is_string(json_object_get(object, first)) &&
           (!second || json_is_string(json_object_get(object, second)));
}

static bool has_shape(const struct answer *a, enum shape shape)
{
    const char *type = answer_header(a, "Content-Type");
    json_t *v = json_parse(answer_body(a), a->body.n, NULL);
    bool ok;

    if (shape == SHAPE_OPENAI)
        ok = has_strings(json_object_get(v, "error"), "message", "type");
    else
        ok = has_strings(v, "error", "error_type") ||
             (shape == SHAPE_TGI && type && strncmp(type, "text/plain", 10) == 0 && a->body.n > 0);
    json_decref(v);
    return ok;
}

static void expect_refusal(const struct route_case *r, const char *body)
{
    struct answer a = { 0 };

    client_request(h.port, r->path, "", body, &a);
    n_asked++;
    if (a.status < 400 || a.status > 499 || !has_shape(&a, r->shape))
        fail_msg("%s %.200s\n  got %d %.300s", r->path, body, a.status, answer_body(&a));
    answer_fini(&a);
}

/* Values that a member of this kind cannot have. */
static const char *const *wrong_values(char kind, bool is_lenient)
{
    static const char *const strings[] = { "1", "1.5", "true", "[]", "{}", NULL };
    static const char *const numbers[] = { "\"x\"", "true", "[1]", "{}", NULL };
    static const char *const integers[] = { "1.5", "\"x\"", "true", "[1]", "{}", "1e40", NULL };
    static const char *const booleans[] = { "7", "\"x\"", "[]", "{}", "0.5", NULL };
    static const char *const arrays[] = { "1", "\"x\"", "true", "{}", NULL };
    static const char *const objects[] = { "1", "\"x\"", "true", "[1]", NULL };
    static const char *const lenient[] = { "\"x\"", "[1]", "{}", NULL };

    switch (kind) {
    case 's':
        return strings;
    case 'n':
        return is_lenient ? lenient : numbers;
    case 'i':
        return is_lenient ? lenient : integers;
    case 'b':
        return is_lenient ? lenient : booleans;
    case 'a':
        return arrays;
    default:
        return objects;
    }
}

static void ask_members(const struct route_case *r)
{
    char name[64], body[512];
    int used;

    for (const char *at = r->members; sscanf(at, " %63[^:]:%*c%n", name, &used) == 1; at += used) {
        const char *const *values = wrong_values(at[used - 1], r->is_lenient);
        for (size_t i = 0; values[i]; i++) {
            snprintf(body, sizeof body, "%s\"%s\":%s%s", r->before, name, values[i], r->after);
            expect_refusal(r, body);
        }
    }
}

static void ask_beginnings(const struct route_case *r)
{
    char body[256];

    for (size_t n = 0; n < strlen(r->body); n++) {
        snprintf(body, sizeof body, "%.*s", (int)n, r->body);
        expect_refusal(r, body);
    }
}

static void ask_deep(const struct route_case *r)
{
    struct buf body = { 0 };

    for (int i = 0; i < DEPTH; i++)
        buf_add_str(&body, "{\"a\":[");
    expect_refusal(r, body.data);
    buf_fini(&body);
}

static void ask_all(void)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        for (size_t k = 0; k < sizeof wholes / sizeof *wholes; k++)
            expect_refusal(&routes[i], wholes[k]);
        ask_members(&routes[i]);
        ask_beginnings(&routes[i]);
        ask_deep(&routes[i]);
    }
}

static uint64_t resident_bytes(void)
{
    unsigned long long size, resident = 0;
    char path[64];
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/statm", h.pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%llu %llu", &size, &resident), 2);
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void each_wrong_body_is_refused_by_its_dialect(void **state)
{
    uint64_t errors = harness_stat(&h, STAT_requests_finished_error);

    (void)state;
    ask_all();
    if (n_asked < N_LEAST)
        fail_msg("only %d were asked", n_asked);
    assert_int_equal(harness_stat(&h, STAT_requests_finished_error), errors);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    assert_int_equal(atomic_load(&h.workers[0].n_submits), 0);
}

/* What the gateway holds when nobody asks. */
struct holdings {
    uint64_t resident_bytes, n_connections, n_requests, n_queued;
    int n_fds;
};

static struct holdings holdings_now(void)
{
    assert_true(harness_wait_stat(&h, STAT_connections_open, 0));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    return (struct holdings){ .resident_bytes = resident_bytes(),
                              .n_connections = harness_stat(&h, STAT_connections_open),
                              .n_requests = harness_stat(&h, STAT_requests_active),
                              .n_queued = harness_stat(&h, STAT_requests_queued),
                              .n_fds = harness_n_fds(&h) };
}

/* The first round has filled what allocators keep. */
static void wrong_bodies_leave_nothing_behind(void **state)
{
    struct holdings before = holdings_now(), after;

    (void)state;
    ask_all();
    after = holdings_now();
    print_message("%llu bytes before, %llu after\n", (unsigned long long)before.resident_bytes,
                  (unsigned long long)after.resident_bytes);
    if (after.resident_bytes > before.resident_bytes + GROWTH_BYTES)
        fail_msg("%llu bytes more",
                 (unsigned long long)(after.resident_bytes - before.resident_bytes));
    assert_int_equal(after.n_connections, before.n_connections);
    assert_int_equal(after.n_requests, before.n_requests);
    assert_int_equal(after.n_queued, before.n_queued);
    assert_int_equal(after.n_fds, before.n_fds);
}

/* Of the gateway to be started; a sanitizer that is not there reads nothing. */
static void keep_nothing_freed(void)
{
    const char *given = getenv("ASAN_OPTIONS");
    char options[512];

    snprintf(options, sizeof options, "%s:quarantine_size_mb=0:thread_local_quarantine_size_kb=0",
             given ? given : "");
    setenv("ASAN_OPTIONS", options, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_wrong_body_is_refused_by_its_dialect),
        cmocka_unit_test(wrong_bodies_leave_nothing_behind),
    };
    int failed;

    keep_nothing_freed();
    failed = cmocka_run_group_tests(tests, start, stop);

    printf("%d wrong bodies\n", n_asked);
    return failed;
}
