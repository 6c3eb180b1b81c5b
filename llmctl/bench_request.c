/* bench_request.c - bodies and streams of the APIs that can be measured. */
#include "llmctl/bench_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/mem.h"

const struct bench_api_words bench_apis[N_BENCH_APIS] = {
    [BENCH_OPENAI] = { "openai", "/v1/completions" },
    [BENCH_CHAT] = { "chat", "/v1/chat/completions" },
    [BENCH_TGI] = { "tgi", "/generate_stream" },
};

const char *const bench_failures[N_BENCH_FAILURES] = {
    [BENCH_FINE] = "",     [BENCH_CONNECTION] = "connection", [BENCH_TIMEOUT] = "timeout",
    [BENCH_HTTP] = "http", [BENCH_IN_STREAM] = "in_stream",   [BENCH_CUT_SHORT] = "cut_short",
};

/* ---- the body ---- */

static void put_messages(struct json_writer *w, const char *prompt)
{
    jw_key(w, "messages");
    jw_array(w);
    jw_object(w);
    jw_key(w, "role");
    jw_str(w, "user");
    jw_key(w, "content");
    jw_str(w, prompt);
    jw_object_end(w);
    jw_array_end(w);
}

static void put_sampling(struct json_writer *w, const struct bench_ask *a, const char *max_tokens)
{
    jw_key(w, max_tokens);
    jw_uint(w, a->max_tokens);
    if (a->api != BENCH_TGI) {
        jw_key(w, "temperature");
        jw_double(w, a->temperature);
    } else {
        jw_key(w, "do_sample");
        jw_bool(w, a->temperature > 0);
        if (a->temperature > 0) { /* TGI knows no temperature of 0 */
            jw_key(w, "temperature");
            jw_double(w, a->temperature);
        }
    }
    if (a->has_seed) {
        jw_key(w, "seed");
        jw_uint(w, a->seed);
    }
}

static void put_openai(struct json_writer *w, const struct bench_ask *a, const char *prompt)
{
    if (a->model) {
        jw_key(w, "model");
        jw_str(w, a->model);
    }
    if (a->api == BENCH_CHAT)
        put_messages(w, prompt);
    else {
        jw_key(w, "prompt");
        jw_str(w, prompt);
    }
    put_sampling(w, a, "max_tokens");
    if (a->ignore_eos) {
        jw_key(w, "ignore_eos");
        jw_bool(w, true);
    }
    jw_key(w, "stream");
    jw_bool(w, true);
    jw_key(w, "stream_options");
    jw_object(w);
    jw_key(w, "include_usage");
    jw_bool(w, true);
    jw_object_end(w);
}

static void put_tgi(struct json_writer *w, const struct bench_ask *a, const char *prompt)
{
    jw_key(w, "inputs");
    jw_str(w, prompt);
    jw_key(w, "parameters");
    jw_object(w);
    put_sampling(w, a, "max_new_tokens");
    jw_key(w, "details");
    jw_bool(w, true);
    jw_object_end(w);
}

/* ---- the stream ---- */

static void note_tokens(struct bench_request *r)
{
    uint64_t now = clock_mono_ns();

    if (r->n_events == 0)
        r->first_ns = now;
    else {
        if ((r->n_events & (r->n_events - 1)) == 0) /* room for as many again */
            r->gaps_ns = mem_realloc(r->gaps_ns, 2 * r->n_events * sizeof *r->gaps_ns);
        r->gaps_ns[r->n_events - 1] = now - r->last_ns;
    }
    r->n_events++;
    r->last_ns = now;
}

static void note_error(struct bench_request *r, const json_t *error)
{
    const json_t *message = json_object_get(error, "message");

    if (!message)
        message = error;
    r->failure = BENCH_IN_STREAM;
    snprintf(r->error, sizeof r->error, "%s",
             json_is_string(message) ? json_string_value(message) : "an error in the stream");
}

static uint64_t integer(const json_t *v)
{
    return json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;
}

static bool is_text(const json_t *v)
{
    return json_is_string(v) && json_string_length(v) > 0;
}

/* A chunk with a choice that is not yet finished carries a token, if only one whose text is not whole. */
static void take_openai(struct bench_request *r, const json_t *chunk)
{
    const json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
    const json_t *delta = json_object_get(choice, "delta"), *usage;

    if (is_text(json_object_get(choice, "text")) || is_text(json_object_get(delta, "content")) ||
        is_text(json_object_get(delta, "reasoning_content")))
        note_tokens(r);
    if (json_is_string(json_object_get(choice, "finish_reason")))
        r->is_finished = true;
    usage = json_object_get(chunk, "usage");
    if (json_is_object(usage)) {
        r->n_prompt = integer(json_object_get(usage, "prompt_tokens"));
        r->n_generated = integer(json_object_get(usage, "completion_tokens"));
    }
}

static void take_tgi(struct bench_request *r, const json_t *event)
{
    const json_t *details = json_object_get(event, "details");

    if (json_is_object(json_object_get(event, "token")))
        note_tokens(r);
    if (json_is_string(json_object_get(event, "generated_text")))
        r->is_finished = true;
    if (json_is_object(details)) {
        r->n_generated = integer(json_object_get(details, "generated_tokens"));
        r->n_prompt = integer(json_object_get(details, "input_length"));
    }
}

static void on_event(void *arg, const char *type, const char *data, size_t n)
{
    struct bench_request *r = arg;
    const json_t *error;
    json_t *v;
    struct err e;

    (void)type;
    if (strcmp(data, "[DONE]") == 0)
        return;
    v = json_parse(data, n, &e);
    if (!v) {
        r->failure = BENCH_IN_STREAM;
        snprintf(r->error, sizeof r->error, "an event is not JSON");
        return;
    }
    error = json_object_get(v, "error");
    if (error && !json_is_null(error))
        note_error(r, error);
    else if (r->api == BENCH_TGI)
        take_tgi(r, v);
    else
        take_openai(r, v);
    json_decref(v);
}

static bool on_body(void *arg, const char *bytes, size_t n)
{
    struct bench_request *r = arg;
    struct err e;

    if (!sse_feed(&r->sse, bytes, n, on_event, r, &e)) {
        r->failure = BENCH_IN_STREAM;
        snprintf(r->error, sizeof r->error, "%.150s", e.msg);
    }
    return r->failure == BENCH_FINE;
}

/* ---- life ---- */

void bench_request_init(struct bench_request *r, const struct bench_ask *ask, const char *prompt)
{
    struct json_writer w;

    *r = (struct bench_request){ .api = ask->api };
    w = (struct json_writer){ .out = &r->body };
    jw_object(&w);
    if (ask->api == BENCH_TGI)
        put_tgi(&w, ask, prompt);
    else
        put_openai(&w, ask, prompt);
    jw_object_end(&w);
    r->post = (struct http_post){
        .body = r->body.data, .n = r->body.n, .stop_fd = -1, .on_body = on_body, .arg = r
    };
}

static void fail(struct bench_request *r, enum bench_failure why, const char *words)
{
    r->failure = why;
    snprintf(r->error, sizeof r->error, "%.150s", words);
}

void bench_request_end(struct bench_request *r, const struct http_end *end)
{
    r->end_ns = clock_mono_ns();
    r->status = end->status;
    if (r->failure != BENCH_FINE) {
        /* the stream has said it */
    } else if (end->result == HTTP_REFUSED)
        fail(r, BENCH_HTTP, end->refusal->n ? end->refusal->data : "");
    else if (end->result == HTTP_FAILED)
        fail(r, end->timed_out ? BENCH_TIMEOUT : BENCH_CONNECTION, end->e.msg);
    else if (!r->is_finished || r->n_events == 0)
        fail(r, BENCH_CUT_SHORT, r->n_events ? "the stream ended too early" : "no token came");
    if (r->n_generated == 0)
        r->n_generated = r->n_events;
}

void bench_request_forget(struct bench_request *r)
{
    sse_fini(&r->sse);
    buf_fini(&r->body);
}

void bench_request_fini(struct bench_request *r)
{
    bench_request_forget(r);
    free(r->gaps_ns);
    r->gaps_ns = NULL;
}
