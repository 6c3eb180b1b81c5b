/* answer.c - the streaming half of generate and chat: request members, events to text, statistics. */
#include "llmctl/answer.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "llmctl/http.h"
#include "llmctl/terminal.h"

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct answer_options *o = state->input;
    char *end;

    switch (key) {
    case 'm':
        o->model = arg;
        return 0;
    case 'n':
        o->max_tokens = command_number(state, "--max-tokens", arg, 1, UINT32_MAX);
        return 0;
    case 't':
        o->temperature = strtod(arg, &end);
        o->has_temperature = true;
        if (end == arg || *end || !(o->temperature >= 0 && o->temperature <= 100))
            argp_error(state, "--temperature: '%s' is not a number from 0 to 100", arg);
        return 0;
    case 's':
        o->seed = command_number(state, "--seed", arg, 0, INT64_MAX);
        o->has_seed = true;
        return 0;
    case 'S':
        o->stats = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option option_list[] = {
    { "max-tokens", 'n', "N", 0, "Tokens at most (default 256)", 0 },
    { "temperature", 't', "T", 0, "0 = always the likeliest token", 0 },
    { "seed", 's', "S", 0, "The same seed gives the same text", 0 },
    { "model", 'm', "NAME", 0, "Model to ask for (default: the one that is served)", 0 },
    { "stats", 'S', 0, 0, "Print tokens, time to first token and tokens/s to stderr", 0 },
    { 0 },
};
const struct argp answer_argp = { .options = option_list, .parser = parse_option };

/* A server that listens on all addresses is asked on the loopback one. */
static void put_url(char *out, size_t n, const char *listen)
{
    const char *colon = strrchr(listen, ':');

    if (colon && strncmp(listen, "0.0.0.0:", 8) == 0)
        snprintf(out, n, "http://127.0.0.1%s", colon);
    else if (colon && strncmp(listen, "[::]:", 5) == 0)
        snprintf(out, n, "http://[::1]%s", colon);
    else
        snprintf(out, n, "http://%s", listen);
}

bool answer_url(const Llmd__Status *s, char *url, size_t n)
{
    if (!s || s->n_listen == 0)
        return false;
    put_url(url, n, s->listen[0]);
    return true;
}

int answer_find_server(const struct globals *g, struct server *s)
{
    struct control_msg reply;
    const Llmd__Status *status;
    int code = command_ask_plain(g, LLMD__CTL_COMMAND__CTL_STATUS, &reply);

    if (code != CTL_EXIT_OK)
        return code;
    status = command_reply(&reply)->status;
    if (!status || status->n_listen == 0) {
        fprintf(stderr, "llmctl: llmd does not listen for requests (state: %s)\n",
                status ? status->state : "unknown");
        code = CTL_EXIT_REFUSED;
    } else {
        put_url(s->url, sizeof s->url, status->listen[0]);
        snprintf(s->model, sizeof s->model, "%s", status->served_model_name);
    }
    control_msg_fini(&reply);
    return code;
}

void answer_put_options(struct json_writer *w, const struct answer_options *o, const char *model)
{
    jw_key(w, "model");
    jw_str(w, o->model ? o->model : model);
    jw_key(w, "max_tokens");
    jw_uint(w, o->max_tokens ? o->max_tokens : 256);
    if (o->has_temperature) {
        jw_key(w, "temperature");
        jw_double(w, o->temperature);
    }
    if (o->has_seed) {
        jw_key(w, "seed");
        jw_uint(w, o->seed);
    }
    jw_key(w, "stream");
    jw_bool(w, true);
    jw_key(w, "stream_options");
    jw_object(w);
    jw_key(w, "include_usage");
    jw_bool(w, true);
    jw_object_end(w);
}

static void take_text(struct answer *a, const char *text, size_t n)
{
    struct buf shown = { 0 };

    if (n == 0)
        return;
    a->last_ns = clock_mono_ns();
    if (!a->first_ns)
        a->first_ns = a->last_ns;
    a->n_pieces++;
    buf_add(&a->text, text, n);
    if (a->raw || !isatty(STDOUT_FILENO))
        buf_add(&shown, text, n);
    else
        terminal_add_safe(&shown, text, n, &a->held);
    if (shown.n > 0)
        fwrite(shown.data, 1, shown.n, stdout);
    fflush(stdout);
    buf_fini(&shown);
}

/* {"error": {"message": ...}} or {"error": "..."}; false when it is neither. */
static bool take_error(char *out, size_t n, const json_t *v)
{
    const json_t *error = json_object_get(v, "error"), *message = json_object_get(error, "message");

    if (!message)
        message = json_is_string(error) ? error : json_object_get(v, "message");
    if (!json_is_string(message))
        return false;
    snprintf(out, n, "%s", json_string_value(message));
    return true;
}

/* A chunk of /v1/completions has choices[0].text, one of /v1/chat/completions .delta.content. */
static void on_event(void *arg, const char *type, const char *data, size_t n)
{
    struct answer *a = arg;
    const json_t *choice, *text, *v;
    json_t *chunk;
    struct err e;

    (void)type;
    if (strcmp(data, "[DONE]") == 0)
        return;
    chunk = json_parse(data, n, &e);
    if (!chunk) {
        snprintf(a->error, sizeof a->error, "an event is not JSON: %s", e.msg);
        return;
    }
    if (take_error(a->error, sizeof a->error, chunk))
        goto out;
    choice = json_array_get(json_object_get(chunk, "choices"), 0);
    text = json_object_get(choice, "text");
    if (!text)
        text = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_is_string(text))
        take_text(a, json_string_value(text), json_string_length(text));
    v = json_object_get(choice, "finish_reason");
    if (json_is_string(v))
        snprintf(a->finish, sizeof a->finish, "%s", json_string_value(v));
    v = json_object_get(json_object_get(chunk, "usage"), "completion_tokens");
    if (json_is_integer(v))
        a->n_tokens = (uint64_t)json_integer_value(v);
out:
    json_decref(chunk);
}

static bool on_body(void *arg, const char *bytes, size_t n)
{
    struct answer *a = arg;
    struct err e;

    if (!sse_feed(&a->sse, bytes, n, on_event, a, &e))
        snprintf(a->error, sizeof a->error, "%s", e.msg);
    return !a->error[0];
}

static void tell_refusal(const struct buf *refusal, long status)
{
    json_t *v = json_parse(refusal->data ? refusal->data : "", refusal->n, NULL);
    char text[256];

    if (!v || !take_error(text, sizeof text, v))
        snprintf(text, sizeof text, "%.200s", refusal->n ? refusal->data : "no reason given");
    json_decref(v);
    /* through struct err, which leaves no control character in it */
    struct err e;
    err_set(&e, ERR_INPUT, 0, "the server says no (HTTP %ld): %s", status, text);
    command_complain(&e);
}

int answer_stream(struct answer *a, const char *url, const struct buf *body, int stop_fd)
{
    struct http_post post = { .url = url,
                              .body = body->data,
                              .n = body->n,
                              .api_key = getenv("LLMD_API_KEY"),
                              .stop_fd = stop_fd,
                              .on_body = on_body,
                              .arg = a };
    struct buf refusal = { 0 };
    int code = CTL_EXIT_OK;
    long status = 0;
    struct err e;

    a->sent_ns = clock_mono_ns();
    switch (http_post(&post, &refusal, &status, &e)) {
    case HTTP_OK:
        break;
    case HTTP_REFUSED:
        tell_refusal(&refusal, status);
        code = CTL_EXIT_REFUSED;
        break;
    case HTTP_STOPPED:
        code = a->error[0] ? CTL_EXIT_OK : CTL_EXIT_INTERRUPTED;
        break;
    case HTTP_FAILED:
        command_complain(&e);
        code = a->n_pieces ? CTL_EXIT_REFUSED : CTL_EXIT_UNREACHABLE;
        break;
    }
    if (code == CTL_EXIT_OK && (a->error[0] || !a->finish[0])) {
        err_set(&e, ERR_PROTO, 0, "%s", a->error[0] ? a->error : "the answer ended too early");
        command_complain(&e);
        code = CTL_EXIT_REFUSED;
    }
    buf_fini(&refusal);
    return code;
}

void answer_fini(struct answer *a)
{
    sse_fini(&a->sse);
    buf_fini(&a->text);
}

void answer_print_stats(const struct answer *a)
{
    uint64_t n = a->n_tokens ? a->n_tokens : a->n_pieces;
    double seconds = (double)(a->last_ns - a->first_ns) / 1e9;

    fprintf(stderr, "%llu tokens", (unsigned long long)n);
    if (a->first_ns)
        fprintf(stderr, ", first after %.1f ms", (double)(a->first_ns - a->sent_ns) / 1e6);
    if (n > 1 && seconds > 0)
        fprintf(stderr, ", then %.1f tokens/s", (double)(n - 1) / seconds);
    fputc('\n', stderr);
}
