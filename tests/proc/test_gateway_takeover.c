/* test_gateway_takeover.c - kill -9 of the gateway, at random moments and at each narrow place, with many
 * clients of every kind: each must read exactly what it would have read without.  A byte lost, doubled or
 * changed here is a broken answer at some client, seen by nobody else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"
#include "tests/gateway/talk.h"

enum { TALKS_MAX = 40, PATIENCE_S = 60, LONG_TEXT = 40000 };

static struct talk talks[TALKS_MAX];
static struct buf calm[TALKS_MAX]; /* what each reads when nobody dies */
static int n_talks;
static char long_text[LONG_TEXT + 1];

/* ---- what clients say ---- */

static struct talk *new_talk(const char *name)
{
    struct talk *t = &talks[n_talks++];

    *t = (struct talk){ .name = name, .fd = -1 };
    return t;
}

static void add_streams(void)
{
    struct talk *t;

    talk_post(new_talk("tgi stream"), "/generate_stream", "",
              "{\"inputs\":\"Once upon\",\"parameters\":{\"max_new_tokens\":60,\"details\":true,"
              "\"top_n_tokens\":2,\"do_sample\":true,\"seed\":5}}",
              "close");
    talk_post(new_talk("completions stream n=2"), "/v1/completions", "",
              "{\"prompt\":\"One day\",\"max_tokens\":50,\"seed\":7,\"stream\":true,\"n\":2,"
              "\"logprobs\":2,\"return_token_ids\":true,"
              "\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}",
              "close");
    talk_post(new_talk("chat stream"), "/v1/chat/completions", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell a story\"}],\"seed\":3,"
              "\"max_tokens\":50,\"stream\":true,\"logprobs\":true,\"top_logprobs\":2}",
              "close");
    talk_post(
        new_talk("completions stream of larger events"), "/v1/completions", "",
        "{\"prompt\":\"One day\",\"max_tokens\":50,\"seed\":7,\"stream\":true,\"n\":2,"
        "\"logprobs\":1,\"echo\":true,\"stream_interval\":7,\"repetition_detection\":{"
        "\"max_pattern_size\":3,\"min_count\":2},\"stream_options\":{\"include_usage\":true}}",
        "close");
    talk_post(
        new_talk("chat stream of larger events"), "/v1/chat/completions", "",
        "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell\"}],\"seed\":3,\"max_tokens\":50,"
        "\"stream\":true,\"stream_interval\":5,\"thinking_token_budget\":9}",
        "close");
    talk_post(new_talk("chat stream with stop"), "/v1/chat/completions", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"A dog\"}],\"seed\":4,"
              "\"max_tokens\":80,\"stream\":true,\"stop\":[\"qu\",\"zz\",\"ing\"]}",
              "close");
    talk_post(new_talk("oci stream"), "/predict", "",
              "{\"inputs\":\"Lily saw\",\"parameters\":{\"max_new_tokens\":40,\"temperature\":0},"
              "\"stream\":true}",
              "close");
    talk_post(new_talk("oci events"), "/predict", "Accept: text/event-stream\r\n",
              "{\"inputs\":\"Lily saw\",\"parameters\":{\"max_new_tokens\":40,\"temperature\":0},"
              "\"stream\":true}",
              "close");
    t = new_talk("slow reader");
    talk_post(t, "/v1/completions", "",
              "{\"prompt\":\"Slow\",\"max_tokens\":200,\"seed\":9,\"stream\":true,\"logprobs\":5}",
              "close");
    t->recv_max = 700;
    t->pause_us = 2000;
    t = new_talk("HTTP/1.0 stream");
    buf_add_str(&t->request,
                "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n"
                "Content-Length: 63\r\n\r\n"
                "{\"prompt\":\"Old times\",\"max_tokens\":30,\"seed\":1,\"stream\":true}  ");
}

#define TOOLS      "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"clock\"}}],"
#define FLAT_TOOLS "\"tools\":[{\"type\":\"function\",\"name\":\"clock\"}],"

/* Thoughts and calls: their places in the text, and the ids of calls, are made again by a successor. */
static void add_scripted(void)
{
    talk_post(new_talk("chat stream with calls"), "/v1/chat/completions", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"Where\"}],\"seed\":20240726," TOOLS
              "\"stream\":true,\"logprobs\":true}",
              "close");
    talk_post(new_talk("responses stream with calls"), "/v1/responses", "",
              "{\"input\":\"Where\",\"seed\":20240726," FLAT_TOOLS "\"stream\":true}", "close");
    talk_post(new_talk("responses stream"), "/v1/responses", "",
              "{\"input\":\"A dog\",\"seed\":4,\"max_output_tokens\":60,\"stream\":true}", "close");
    talk_post(new_talk("chat with calls"), "/v1/chat/completions", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"Where\"}],\"seed\":20240726," TOOLS
              "\"max_tokens\":300}",
              "close");
}

static void add_whole_answers(void)
{
    struct talk *t;

    talk_post(new_talk("tgi best_of"), "/generate", "",
              "{\"inputs\":\"Two\",\"parameters\":{\"max_new_tokens\":40,\"details\":true,"
              "\"best_of\":2,\"do_sample\":true,\"seed\":8,\"top_n_tokens\":3}}",
              "close");
    talk_post(new_talk("tgi prefill"), "/generate", "",
              "{\"inputs\":\"One day, a little girl\",\"parameters\":{\"max_new_tokens\":30,"
              "\"decoder_input_details\":true,\"do_sample\":true,\"watermark\":true,"
              "\"seed\":18446744073709551615}}",
              "close");
    talk_post(new_talk("vertex"), "/vertex", "",
              "{\"instances\":[{\"inputs\":\"One\",\"parameters\":{\"max_new_tokens\":30,"
              "\"seed\":3}},{\"inputs\":\"Two\",\"parameters\":{\"max_new_tokens\":9,"
              "\"seed\":4}}]}",
              "close");
    talk_post(new_talk("invocations stream"), "/invocations", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"A cat\"}],\"seed\":4,"
              "\"max_tokens\":40,\"stream\":true}",
              "close");
    talk_post(new_talk("completions"), "/v1/completions", "",
              "{\"prompt\":[\"a\",\"b c\"],\"max_tokens\":30,\"seed\":2,\"n\":2,\"logprobs\":1}",
              "close");
    talk_post(
        new_talk("several conversations"), "/v1/chat/completions/batch", "",
        "{\"messages\":[[{\"role\":\"user\",\"content\":\"A\"}],[{\"role\":\"user\",\"content\":"
        "\"B\"}]],\"seed\":3,\"max_tokens\":30}",
        "close");
    talk_post(new_talk("completions best_of"), "/v1/completions", "",
              "{\"prompt\":\"Six\",\"max_tokens\":30,\"seed\":2,\"n\":2,\"best_of\":6}", "close");
    talk_post(new_talk("beam search"), "/v1/completions", "",
              "{\"prompt\":[\"Three\",\"beams\"],\"max_tokens\":14,\"n\":3,\"logprobs\":2,"
              "\"use_beam_search\":true}",
              "close");
    talk_post(new_talk("logprobs of a prompt"), "/v1/completions", "",
              "{\"prompt\":\"One day, a little girl saw a dog\",\"max_tokens\":20,\"seed\":4,"
              "\"echo\":true,\"logprobs\":2,\"n\":3}",
              "close");
    talk_post(new_talk("embedding of a conversation"), "/v1/embeddings", "",
              "{\"messages\":[{\"role\":\"user\",\"content\":\"One\"}]}", "close");
    talk_post(new_talk("embeddings"), "/v1/embeddings", "",
              "{\"input\":[\"One\",\"two\",\"three\"],\"encoding_format\":\"base64\"}", "close");
    talk_post(new_talk("more choices than run at once"), "/v1/completions", "",
              "{\"prompt\":\"Many\",\"max_tokens\":2,\"seed\":4,\"n\":135,\"stream\":true}",
              "close");
    t = new_talk("slow reader of a whole answer");
    talk_post(t, "/v1/completions", "",
              "{\"prompt\":\"Slow\",\"max_tokens\":300,\"seed\":9,\"logprobs\":20,\"n\":4}",
              "close");
    t->recv_max = 2000;
    t->pause_us = 500;
    talk_post(new_talk("echo without generation"), "/v1/completions", "",
              "{\"prompt\":\"only this\",\"max_tokens\":0,\"echo\":true}", "close");
    talk_post(new_talk("invalid"), "/v1/chat/completions", "", "{\"messages\":1}", "close");
    t = new_talk("malformed");
    buf_add_str(&t->request, "POST /generate HTTP/1.1\r\nHost : t\r\n\r\n");
}

static void add_uploads(void)
{
    struct talk *t = new_talk("chunked upload");
    struct buf body = { 0 };

    buf_add_str(&t->request, "POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                             "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
                             "10\r\n{\"prompt\":\"Lily\"\r\n5;x=y\r\n,\"see\r\n"
                             "19\r\nd\":6,\"stream\":true,\"n\":1}\r\n0\r\nA: b\r\n\r\n");
    t->send_max = 7;
    t->pause_us = 800;
    t = new_talk("long upload");
    buf_printf(&body, "{\"user\":\"%s\",\"prompt\":\"Big\",\"max_tokens\":20,\"seed\":1}",
               long_text);
    talk_post(t, "/v1/completions", "", body.data, "close");
    t->send_max = 1500;
    t->pause_us = 1000;
    buf_fini(&body);
    t = new_talk("100-continue");
    talk_post(t, "/v1/completions", "Expect: 100-continue\r\n",
              "{\"prompt\":\"Lily\",\"max_tokens\":20,\"seed\":6,\"stream\":true}", "close");
    t->send_max = 60;
    t->pause_us = 4000;
}

static void add_pipelines(void)
{
    struct talk *t = new_talk("pipelined");

    talk_post(t, "/v1/completions", "",
              "{\"prompt\":\"first\",\"max_tokens\":20,\"seed\":1,\"stream\":true}", "keep-alive");
    talk_post(t, "/generate", "", "{\"inputs\":\"second\",\"parameters\":{\"max_new_tokens\":9}}",
              "keep-alive");
    buf_add_str(&t->request, "GET /version HTTP/1.1\r\nHost: t\r\n\r\n");
    talk_post(t, "/v1/completions", "", "{\"prompt\":17}", "keep-alive");
    talk_post(t, "/v1/completions", "", "{\"prompt\":\"last\",\"max_tokens\":20,\"seed\":3}",
              "close");
    t = new_talk("one after the other");
    for (int i = 0; i < 6; i++)
        talk_post(t, "/v1/completions", "",
                  "{\"prompt\":\"again\",\"max_tokens\":12,\"seed\":1,\"stream\":true}",
                  i < 5 ? "keep-alive" : "close");
    t->send_max = 40;
    t->pause_us = 300;
}

/* ---- running them ---- */

static struct harness h;

static void set_points(const char *points)
{
    h.fault_points = points;
}

static void start_all(void)
{
    for (int i = 0; i < n_talks; i++)
        talk_start(&talks[i], h.port);
}

/* The gateway is dead: the next one, and the one after it if that dies in the taking over. */
static void next_gateway(void)
{
    while (!harness_respawn(&h)) {
        set_points(NULL);
        harness_wait(&h);
    }
}

/* Where each client stood that never came to its end; `want`: what it was to read, if that is known. */
static void fail_at_open_talks(const char *when)
{
    char text[2048];
    size_t at = 0;

    for (int i = 0; i < n_talks && at < sizeof text; i++) {
        const struct talk *t = &talks[i];
        size_t from = t->in.n > 60 ? t->in.n - 60 : 0;
        if (t->is_done)
            continue;
        at += (size_t)snprintf(
            text + at, sizeof text - at, "\n'%s': sent %zu of %zu, read %zu of %zu, last '%.60s'",
            t->name, t->n_sent, t->request.n, t->in.n, calm[i].n, t->in.n ? t->in.data + from : "");
    }
    fail_msg("%s: no end after %d s%s", when, PATIENCE_S, text);
}

static void run_calm(void)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;

    start_all();
    while (talk_turn(talks, n_talks, 10) > 0)
        if (clock_mono_ns() >= end_ns)
            fail_at_open_talks("without a kill");
    for (int i = 0; i < n_talks; i++) {
        if (talks[i].is_broken || talks[i].in.n == 0)
            fail_msg("'%s' is broken without a kill", talks[i].name);
        talk_blank(&talks[i].in);
        calm[i] = talks[i].in;
        talks[i].in = (struct buf){ 0 };
        talk_stop(&talks[i]);
    }
}

static const struct harness_setting settings[] = {
    { "tool_call_parser", "hermes" },
    { "reasoning_parser", "qwen3" },
    { NULL, NULL },
};

static void open_house(void)
{
    n_talks = 0;
    memset(long_text, 'a', LONG_TEXT);
    for (int i = 0; i < LONG_TEXT; i += 5)
        long_text[i] = ' ';
    add_streams();
    add_scripted();
    add_whole_answers();
    add_uploads();
    add_pipelines();
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    atomic_store(&h.workers[0].step_us, 500);
    run_calm();
}

static void expect_balance(void)
{
    uint64_t come = harness_stat(&h, STAT_requests_generate), gone = 0;

    for (enum stat_id s = STAT_requests_finished_stop; s <= STAT_requests_refused_unavailable; s++)
        gone += harness_stat(&h, s);
    assert_int_equal(come, gone);
}

static void close_house(void)
{
    assert_true(harness_wait_stat(&h, STAT_connections_open, 0));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    assert_int_equal(harness_stop(&h), 0);
    assert_int_equal(connections_count(&h.connections), 0);
    assert_int_equal(connections_blocks_used(&h.connections), 0);
    expect_balance();
    harness_free(&h);
    for (int i = 0; i < n_talks; i++) {
        talk_fini(&talks[i]);
        buf_fini(&calm[i]);
    }
}

static void show_difference(const struct talk *t, const struct buf *want)
{
    size_t at = 0, from;

    while (at < t->in.n && at < want->n && t->in.data[at] == want->data[at])
        at++;
    from = at > 60 ? at - 60 : 0;
    fail_msg("'%s' differs at byte %zu of %zu (wanted %zu)%s:\ngot    '%.120s'\nwanted '%.120s'",
             t->name, at, t->in.n, want->n, t->is_broken ? ", reset" : "",
             t->in.n ? t->in.data + from : "", want->data + from);
}

static void expect_all_equal(void)
{
    for (int i = 0; i < n_talks; i++) {
        struct talk *t = &talks[i];
        talk_blank(&t->in);
        if (t->is_broken || t->in.n != calm[i].n || memcmp(t->in.data, calm[i].data, t->in.n) != 0)
            show_difference(t, &calm[i]);
        talk_stop(t);
    }
}

/* ---- how long it takes: kill to the next byte at each client that was being answered ---- */

enum { PAUSES_MAX = 4096 };

static double pauses_ms[PAUSES_MAX];
static int n_pauses;
static uint64_t killed_ns;
static size_t n_in_at_kill[TALKS_MAX];

static void note_kill(void)
{
    killed_ns = clock_mono_ns();
    for (int i = 0; i < n_talks; i++)
        n_in_at_kill[i] = talks[i].is_done || talks[i].pause_us ? 0 : talks[i].in.n;
}

static void note_progress(void)
{
    for (int i = 0; i < n_talks; i++) {
        if (n_in_at_kill[i] == 0 || talks[i].in.n == n_in_at_kill[i])
            continue;
        if (n_pauses < PAUSES_MAX)
            pauses_ms[n_pauses++] = (double)(clock_mono_ns() - killed_ns) / 1e6;
        n_in_at_kill[i] = 0;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void print_pauses(void)
{
    if (n_pauses == 0)
        return;
    qsort(pauses_ms, (size_t)n_pauses, sizeof *pauses_ms, by_value);
    print_message("kill to next byte, %d times: p50 %.1f ms, p99 %.1f ms, max %.1f ms\n", n_pauses,
                  pauses_ms[n_pauses / 2], pauses_ms[n_pauses * 99 / 100], pauses_ms[n_pauses - 1]);
}

/* All talks at once; the gateway is killed `n_kills` times, `gap_us` apart at most. */
static void run_with_kills(unsigned *seed, int n_kills, unsigned gap_us)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    uint64_t kill_ns = clock_mono_ns() + (uint64_t)rand_r(seed) % gap_us * 1000;

    start_all();
    while (talk_turn(talks, n_talks, 1) > 0) {
        if (clock_mono_ns() >= end_ns)
            fail_at_open_talks("random kills");
        note_progress();
        if (n_kills == 0 || clock_mono_ns() < kill_ns)
            continue;
        note_kill();
        harness_kill(&h);
        next_gateway();
        n_kills--;
        kill_ns = clock_mono_ns() + (uint64_t)rand_r(seed) % gap_us * 1000;
    }
    expect_all_equal();
}

static void answers_are_the_same_over_random_kills(void **state)
{
    const char *given = getenv("LLMD_TEST_SEED"), *rounds = getenv("LLMD_TEST_ROUNDS");
    unsigned seed = given ? (unsigned)atoi(given) : (unsigned)clock_mono_ns();
    int n_rounds = rounds ? atoi(rounds) : 6;

    (void)state;
    print_message("seed %u\n", seed);
    open_house();
    for (int i = 0; i < n_rounds; i++)
        run_with_kills(&seed, 5, 100000);
    assert_true(harness_stat(&h, STAT_connections_resumed) > 0);
    print_pauses();
    close_house();
}

/* Run all talks with a gateway that dies at a named place. */
static void run_with_point(const char *points)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    bool has_died = false;

    harness_kill(&h);
    set_points(points);
    if (strstr(points, "adopt")) { /* it needs something to take over */
        set_points(NULL);
        next_gateway();
        start_all();
        while (harness_stat(&h, STAT_requests_active) < 5)
            talk_turn(talks, n_talks, 1);
        harness_kill(&h);
        set_points(points);
        next_gateway();
    } else {
        next_gateway();
        start_all();
    }
    while (talk_turn(talks, n_talks, 1) > 0) {
        if (clock_mono_ns() >= end_ns)
            fail_at_open_talks(points);
        if (!harness_wait_dead(&h, 1))
            continue;
        has_died = true;
        set_points(NULL);
        next_gateway();
    }
    set_points(NULL);
    if (!has_died && !strstr(points, "adopt"))
        print_message("nobody died at %s\n", points);
    expect_all_equal();
}

static void answers_are_the_same_over_deaths_at_narrow_places(void **state)
{
    static const struct {
        const char *name;
        int passes[4];
    } points[] = {
        { "gateway.accept", { 1, 5, 9, 14 } },    { "gateway.handed", { 1, 4, 7, 10 } },
        { "gateway.read", { 1, 9, 30, 60 } },     { "gateway.parsed", { 1, 8 } },
        { "gateway.submit", { 1, 8 } },           { "gateway.tokens", { 1, 50, 300, 700 } },
        { "gateway.write", { 1, 20, 200, 600 } }, { "gateway.written", { 1, 20, 200, 600 } },
        { "gateway.done", { 1, 3, 7 } },          { "gateway.shut", { 1, 6, 12, 18 } },
        { "gateway.closed", { 1, 6, 12, 18 } },   { "gateway.adopt", { 1, 3, 5 } },
        { "gateway.beams", { 1, 9, 20, 28 } },
    };
    char text[64];

    (void)state;
    open_house();
    for (size_t i = 0; i < sizeof points / sizeof *points; i++) {
        for (int k = 0; k < 4 && points[i].passes[k]; k++) {
            snprintf(text, sizeof text, "%s=kill:%d", points[i].name, points[i].passes[k]);
            print_message("%s\n", text);
            run_with_point(text);
        }
    }
    close_house();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_the_same_over_deaths_at_narrow_places),
        cmocka_unit_test(answers_are_the_same_over_random_kills),
    };

    return cmocka_run_group_tests_name("gateway_takeover", tests, NULL, NULL);
}
