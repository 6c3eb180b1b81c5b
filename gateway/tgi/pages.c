/* pages.c - TGI's routes that need no worker: /info, /tokenize, /chat_tokenize. */
#include <string.h>

#include "common/json_wide.h"
#include "gateway/pages.h"
#include "gateway/tgi/fields.h"
#include "gateway/tgi/tgi.h"
#include "proto/connections_layout.h"
#include "text/token_list.h"

/* ---- /info ---- */

static void put_number(struct json_writer *w, const char *key, uint64_t v)
{
    jw_key(w, key);
    jw_uint(w, v);
}

static void put_string(struct json_writer *w, const char *key, const char *v)
{
    jw_key(w, key);
    jw_str(w, v);
}

/* What 0.9.3 says of its scheduler: ours in the nearest words. */
static void put_old_batching(struct json_writer *w, const struct service *s)
{
    uint64_t pages = 0;

    for (uint32_t g = 0; g < s->n_groups; g++)
        pages += atomic_load(&s->group_kv_pages[g]);
    jw_key(w, "waiting_served_ratio");
    jw_float(w, 1.2f);
    put_number(w, "max_batch_total_tokens", pages * s->config.kv_page_tokens);
    put_number(w, "max_waiting_tokens", 1);
}

void page_info(struct service *s, const struct http_request *http, struct reply *r)
{
    bool is_old = tgi_is_old(s);
    struct json_writer w = { .out = &r->body };
    uint32_t len = service_max_model_len(s);

    (void)http;
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    put_string(&w, "model_id", s->config.model);
    put_string(&w, "model_sha", NULL);
    if (is_old) {
        put_string(&w, "model_dtype", "torch.float32"); /* what is computed in */
        put_string(&w, "model_device_type", "cpu");
    }
    put_string(&w, "model_pipeline_tag", NULL);
    put_number(&w, "max_concurrent_requests", atomic_load(&s->admission.permits_max));
    put_number(&w, "max_best_of", s->config.max_best_of);
    put_number(&w, "max_stop_sequences", s->config.max_stop_sequences);
    put_number(&w, is_old ? "max_input_length" : "max_input_tokens", tgi_max_input_tokens(s, len));
    put_number(&w, "max_total_tokens", len);
    if (is_old)
        put_old_batching(&w, s);
    put_number(&w, "validation_workers", s->n_threads);
    if (!is_old) {
        put_number(&w, "max_client_batch_size", CONNECTION_SEQUENCES_MAX);
        put_string(&w, "router", "text-generation-router");
    }
    put_string(&w, "version", LLMD_VERSION);
    put_string(&w, "sha", NULL);
    put_string(&w, "docker_label", NULL);
    jw_object_end(&w);
}

/* ---- tokens of a text ---- */

/* Tokens that stand for no part of the text show their name. */
static void put_token(struct json_writer *w, const struct service *s, const char *text, int32_t id,
                      struct token_span span)
{
    const char *shown = text + span.start;
    size_t n = span.end - span.start;

    if (n == 0 && tokenizer_is_special(s->tokenizer, id))
        shown = tokenizer_token_str(s->tokenizer, id, &n);
    jw_object(w);
    jw_key(w, "id");
    jw_int(w, id);
    jw_key(w, "text");
    jw_strn(w, shown, n);
    put_number(w, "start", span.start);
    put_number(w, "stop", span.end);
    jw_object_end(w);
}

static bool put_tokens(struct json_writer *w, const struct service *s, const char *text, size_t n,
                       unsigned flags, struct fault *f)
{
    struct token_list ids = { 0 };
    struct err e;

    if (!tokenizer_encode(s->tokenizer, text, n, flags | TOKENIZER_SPANS, &ids, &e))
        return fault_set(f, FAULT_INVALID, "inputs", "tokenizer error %s", e.msg);
    jw_array(w);
    for (size_t i = 0; i < ids.n; i++)
        put_token(w, s, text, ids.ids[i], ids.spans[i]);
    jw_array_end(w);
    token_list_fini(&ids);
    return true;
}

/* ---- the two routes ---- */

typedef bool tokenize_fn(struct service *s, const json_t *root, const char *bytes, size_t n,
                         struct buf *out, struct fault *f);

static bool tokenize(struct service *s, const json_t *root, const char *bytes, size_t n,
                     struct buf *out, struct fault *f)
{
    struct json_writer w = { .out = out };
    struct tgi_parameters p;
    struct tgi_body body;

    return tgi_fields_read(root, bytes, n, tgi_is_old(s), &body, &p, f) &&
           put_tokens(&w, s, body.inputs.s, body.inputs.n, TOKENIZER_ADD_SPECIAL, f);
}

static bool chat_tokenize(struct service *s, const json_t *root, const char *bytes, size_t n,
                          struct buf *out, struct fault *f)
{
    const json_t *messages = json_object_get(root, "messages");
    struct json_writer w = { .out = out };
    struct buf text = { 0 };
    struct request rq;
    bool ok;

    (void)bytes;
    (void)n;
    if (!tgi_fields_expect_object(root, "ChatRequest", f))
        return false;
    if (!json_is_array(messages))
        return fault_set(f, FAULT_SCHEMA, "messages", "%s",
                         messages ? "messages: invalid type, expected a sequence"
                                  : "missing field `messages`");
    request_init(&rq, s, &dialect_tgi, 0);
    ok = tgi_render_chat(&rq, root, &text, f);
    if (ok) {
        const char *shown = text.data ? text.data : "";
        jw_object(&w);
        jw_key(&w, "tokenize_response");
        ok = put_tokens(&w, s, shown, text.n, TOKENIZER_PARSE_SPECIAL, f);
        jw_key(&w, "templated_text");
        jw_strn(&w, shown, text.n);
        jw_object_end(&w);
    }
    buf_fini(&text);
    request_fini(&rq);
    return ok;
}

static void serve(struct service *s, const struct http_request *http, struct reply *r,
                  tokenize_fn *act)
{
    struct buf out = { 0 };
    json_t *root = NULL;
    const char *bytes;
    struct fault f;
    struct err e;
    size_t n;
    bool ok;

    bytes = http_request_body(http, &n);
    ok = dialect_tgi.takes(http_request_header(http, "Content-Type"), &f);
    if (ok) {
        root = json_wide_parse(bytes, n, &e);
        ok = root ? act(s, root, bytes, n, &out, &f) : fault_set(&f, FAULT_SYNTAX, "", "%s", e.msg);
    }
    if (ok) {
        reply_set(r, 200, REPLY_JSON);
        buf_add(&r->body, out.data, out.n);
    } else {
        dialect_tgi.fault(&f, r);
    }
    json_decref(root);
    buf_fini(&out);
}

void page_tgi_tokenize(struct service *s, const struct http_request *http, struct reply *r)
{
    serve(s, http, r, tokenize);
}

void page_tgi_chat_tokenize(struct service *s, const struct http_request *http, struct reply *r)
{
    serve(s, http, r, chat_tokenize);
}
