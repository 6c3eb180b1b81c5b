/* oci.c - POST /predict, as the vLLM container of the OCI sample answers it.
 *
 * The body is JSON whatever its Content-Type; five members mean something, all others are ignored, and so
 * the sample's own clients (which send watermark, seed and return_full_text to any backend) work.
 * Streams repeat the whole text, prompt included, after each token: in the sample's form each object
 * ends with a NUL byte and no Content-Type is given; who asks for events gets them as SSE, or everybody
 * (setting predict_stream).  What the original answers with 500 is a 4xx here, in the shape of TGI's errors:
 * or, where the body is one of OpenAI's, the answer of that dialect, which later containers map to this path. */
#include <math.h>
#include <string.h>
#include <strings.h>

#include "common/json_wide.h"
#include "gateway/fields.h"
#include "gateway/request.h"
#include "gateway/tgi/tgi.h"
#include "text/tokenizer.h"

enum { MAX_NEW_TOKENS_DEFAULT = 16 };

#define OCI_BODY(X)                                                                                \
    X(inputs, FIELD_STRING, FIELD_REQUIRED, 0, 0)                                                  \
    X(parameters, FIELD_OBJECT, 0, 0, 0)                                                           \
    X(stream, FIELD_BOOL, FIELD_NULL, 0, 0)

#define OCI_PARAMETERS(X)                                                                          \
    X(max_new_tokens, FIELD_INT, FIELD_NULL, 1, UINT32_MAX)                                        \
    X(temperature, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                 \
    X(top_p, FIELD_NUMBER, FIELD_NULL, 0, 0)

struct oci_body {
    OCI_BODY(FIELD_MEMBER)
};

struct oci_parameters {
    OCI_PARAMETERS(FIELD_MEMBER)
};

#define FIELD_OWNER struct oci_body
static const struct field body_fields[] = { OCI_BODY(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(oci_body_fields, "", body_fields);
#define FIELD_OWNER struct oci_parameters
static const struct field parameter_fields[] = { OCI_PARAMETERS(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(oci_parameter_fields, "parameters", parameter_fields);

#define COUNT(a) (sizeof(a) / sizeof *(a))

struct oci_extra {
    bool is_sse;
};

static bool oci_takes(const char *content_type, struct fault *f)
{
    (void)content_type;
    (void)f;
    return true;
}

static bool schema_fault(struct fault *f, const struct field_problem *p)
{
    if (p->what == FIELD_MISSING)
        return fault_set(f, FAULT_SCHEMA, p->name, "`%s` is missing", p->name);
    return fault_set(f, FAULT_SCHEMA, p->name, "`%s` must be %s, not %s", p->name, p->expected,
                     p->found);
}

static bool read_fields(const json_t *root, struct oci_body *body, struct oci_parameters *p,
                        struct fault *f)
{
    struct field_problem problem;

    memset(p, 0, sizeof *p);
    if (!json_is_object(root))
        return fault_set(f, FAULT_SCHEMA, "", "the body must be a JSON object");
    if (!fields_read(root, body_fields, COUNT(body_fields), FIELDS_STRICT, body, sizeof *body,
                     &problem))
        return schema_fault(f, &problem);
    if (body->parameters.is_set &&
        !fields_read(body->parameters.json, parameter_fields, COUNT(parameter_fields),
                     FIELDS_STRICT, p, sizeof *p, &problem))
        return schema_fault(f, &problem);
    return true;
}

static bool set_prompt(struct request *rq, const struct oci_body *body, struct fault *f)
{
    uint32_t len = rq->max_model_len;
    size_t n_least = body->inputs.n / rq->service->token_bytes_max;

    if (body->inputs.n == 0)
        return fault_set(f, FAULT_INVALID, "inputs", "`inputs` cannot be empty");
    if (n_least > len)
        return fault_set(f, FAULT_INVALID, "inputs",
                         "`inputs` must have less than %u tokens. Given: %zu", len, n_least);
    if (!request_set_prompts(rq, 1, f) ||
        !request_tokenize(rq, 0, body->inputs.s, body->inputs.n, TOKENIZER_ADD_SPECIAL, f))
        return false;
    if (rq->prompts[0].n_ids == 0 || rq->prompts[0].n_ids >= len)
        return fault_set(f, FAULT_INVALID, "inputs",
                         "`inputs` must have less than %u tokens. Given: %u", len,
                         rq->prompts[0].n_ids);
    return true;
}

static bool fill(struct request *rq, const struct oci_body *body, const struct oci_parameters *p,
                 struct fault *f)
{
    if (p->temperature.is_set && p->temperature.d < 0)
        return fault_set(f, FAULT_INVALID, "temperature", "`temperature` must be non-negative");
    if (p->top_p.is_set && !(p->top_p.d > 0 && p->top_p.d <= 1))
        return fault_set(f, FAULT_INVALID, "top_p", "`top_p` must be > 0.0 and <= 1.0");
    if (!set_prompt(rq, body, f))
        return false;
    rq->max_tokens =
        p->max_new_tokens.is_set ? (uint32_t)p->max_new_tokens.i : MAX_NEW_TOKENS_DEFAULT;
    rq->sampling.temperature = p->temperature.is_set ? (float)p->temperature.d : 1;
    rq->sampling.top_p = (float)p->top_p.d;
    return true;
}

static bool asks_for_events(const struct http_request *http)
{
    const char *accept = http ? http_request_header(http, "Accept") : NULL;
    const char *streaming = http ? http_request_header(http, "enable-streaming") : NULL;

    return (accept && strcasestr(accept, "text/event-stream")) ||
           (streaming && strcasecmp(streaming, "true") == 0);
}

static bool oci_parse(struct request *rq, const struct http_request *http, const char *bytes,
                      size_t n, struct fault *f)
{
    struct oci_extra *extra = arena_alloc(&rq->arena, sizeof *extra);
    struct oci_parameters p;
    struct oci_body body;
    json_t *root;
    struct err e;
    bool ok;

    rq->extra = extra;
    extra->is_sse = asks_for_events(http) || strcmp(rq->service->config.predict_stream, "sse") == 0;
    root = json_wide_parse(bytes, n, &e);
    if (!root)
        return fault_set(f, FAULT_SYNTAX, "", "the body is not JSON: %s", e.msg);
    if (tgi_becomes_openai(rq, root)) {
        json_decref(root);
        return rq->dialect->parse(rq, http, bytes, n, f);
    }
    ok = read_fields(root, &body, &p, f);
    if (ok)
        rq->is_stream = body.stream.b;
    ok = ok && fill(rq, &body, &p, f);
    json_decref(root);
    return ok;
}

/* ---- answers ---- */

static void oci_whole(struct request *rq, struct reply *r)
{
    const struct choice *c = &rq->choices[0];
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "generated_text");
    jw_strn(&w, c->text.data ? c->text.data : "", c->text.n);
    if (c->end == CHOICE_TIME) { /* predict_timeout_s: the text is not whole */
        jw_key(&w, "finish_reason");
        jw_str(&w, "timeout");
    }
    jw_object_end(&w);
}

static const struct oci_extra *oci_extra(const struct request *rq)
{
    return rq->extra;
}

static void oci_begin(struct request *rq, struct reply *r)
{
    if (!oci_extra(rq)->is_sse) {
        reply_set(r, 200, NULL); /* the sample's streaming answer names no type */
        return;
    }
    reply_set(r, 200, REPLY_SSE);
    reply_header(r, "Cache-Control", "no-cache");
    reply_header(r, "X-Accel-Buffering", "no");
}

/* {"text": ["prompt and text so far"]}, spaced as the original's writer does. */
static void oci_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    size_t shown = i < c->n_done ? c->token_text[i].shown : c->text.n;
    struct json_writer w = { .out = out };
    struct buf text = { 0 };

    if (i >= c->n_done && c->n_done > 0)
        return; /* the last token's text stands already */
    buf_add(&text, c->prompt->text, c->prompt->text_bytes);
    buf_add(&text, c->text.data ? c->text.data : "", shown);
    if (oci_extra(rq)->is_sse)
        buf_add_str(out, "data: ");
    buf_add_str(out, "{\"text\": [");
    jw_strn(&w, text.data ? text.data : "", text.n);
    buf_add_str(out, "]}");
    if (oci_extra(rq)->is_sse)
        buf_add_str(out, "\n\n");
    else
        buf_add_char(out, '\0');
    buf_fini(&text);
}

static void oci_end(struct request *rq, struct buf *out)
{
    (void)rq;
    (void)out;
}

static const struct {
    int status;
    const char *type;
} errors[N_FAULTS] = {
    [FAULT_MEDIA_TYPE] = { 415, "validation" },   [FAULT_SYNTAX] = { 400, "validation" },
    [FAULT_SCHEMA] = { 422, "validation" },       [FAULT_INVALID] = { 422, "validation" },
    [FAULT_UNSUPPORTED] = { 422, "validation" },  [FAULT_TEMPLATE] = { 422, "template_error" },
    [FAULT_NO_MODEL] = { 422, "validation" },     [FAULT_OVERLOADED] = { 429, "overloaded" },
    [FAULT_UNAVAILABLE] = { 503, "unavailable" }, [FAULT_TIMEOUT] = { 504, "timeout" },
    [FAULT_GENERATION] = { 500, "generation" },
};

static void oci_fault(const struct fault *f, struct reply *r)
{
    reply_set(r, errors[f->kind].status, REPLY_JSON);
    if (f->kind == FAULT_OVERLOADED || f->kind == FAULT_UNAVAILABLE)
        reply_header(r, "Retry-After", "%u", f->retry_after_s);
    tgi_put_error(&r->body, f->text, errors[f->kind].type);
}

/* The sample's stream has no form for an error: another object, in the frame of its kind. */
static void oci_stream_fault(struct request *rq, const struct fault *f, struct buf *out)
{
    if (oci_extra(rq)->is_sse)
        buf_add_str(out, "data: ");
    tgi_put_error(out, f->text, errors[f->kind].type);
    if (oci_extra(rq)->is_sse)
        buf_add_str(out, "\n\n");
    else
        buf_add_char(out, '\0');
}

static const char *oci_layer_error(int status, const char *text, struct buf *body)
{
    tgi_put_error(body, text, status >= 500 ? "unavailable" : "validation");
    return REPLY_JSON;
}

const struct dialect dialect_oci = {
    .id = DIALECT_OCI,
    .name = "oci",
    .takes = oci_takes,
    .parse = oci_parse,
    .whole = oci_whole,
    .begin = oci_begin,
    .token = oci_token,
    .end = oci_end,
    .fault = oci_fault,
    .stream_fault = oci_stream_fault,
    .layer_error = oci_layer_error,
};
