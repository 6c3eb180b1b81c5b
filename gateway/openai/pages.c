/* pages.c - vLLM's /tokenize and /detokenize, which need no worker.
 *
 * TGI has a /tokenize too; the body tells them apart: vLLM's has a prompt or messages, TGI's has inputs. */
#include <string.h>

#include "gateway/openai/openai.h"
#include "gateway/pages.h"
#include "text/detokenizer.h"
#include "text/token_list.h"
#include "text/tokenizer.h"

#define TOKENIZE_BODY(X)                                                                           \
    X(model, FIELD_STRING, FIELD_NULL, 0, 0)                                                       \
    X(prompt, FIELD_STRING, FIELD_NULL, 0, 0)                                                      \
    X(messages, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                     \
    X(add_special_tokens, FIELD_BOOL, 0, 0, 0)                                                     \
    X(return_token_strs, FIELD_BOOL, FIELD_NULL, 0, 0)                                             \
    X(tools, FIELD_ARRAY, FIELD_NULL, 0, 0)

#define DETOKENIZE_BODY(X)                                                                         \
    X(model, FIELD_STRING, FIELD_NULL, 0, 0)                                                       \
    X(tokens, FIELD_ARRAY, FIELD_REQUIRED, 0, 0)

struct tokenize_body {
    TOKENIZE_BODY(FIELD_MEMBER)
};

struct detokenize_body {
    DETOKENIZE_BODY(FIELD_MEMBER)
};

#define FIELD_OWNER struct tokenize_body
static const struct field tokenize_fields[] = { TOKENIZE_BODY(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_tokenize_fields, "", tokenize_fields);
#define FIELD_OWNER struct detokenize_body
static const struct field detokenize_fields[] = { DETOKENIZE_BODY(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_detokenize_fields, "", detokenize_fields);

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* ---- text to tokens ---- */

static bool render(struct request *rq, const json_t *root, const struct tokenize_body *body,
                   struct buf *text, struct fault *f)
{
    struct openai_chat_options options;
    const char *last;

    if (!openai_read_template(rq, root, true, &options, f))
        return false;
    options.tools = body->tools.json;
    return openai_render_chat(rq, body->messages.json, &options, text, &last, f);
}

/* A chat's template writes the special tokens itself; in a prompt a client's words are words. */
static unsigned flags_of(const struct tokenize_body *body)
{
    bool is_chat = body->messages.is_set;
    bool adds = body->add_special_tokens.is_set ? body->add_special_tokens.b : !is_chat;

    return (is_chat ? TOKENIZER_PARSE_SPECIAL : 0) | (adds ? TOKENIZER_ADD_SPECIAL : 0);
}

static void put_token_names(struct json_writer *w, const struct tokenizer *t,
                            const struct token_list *ids)
{
    jw_array(w);
    for (size_t i = 0; i < ids->n; i++) {
        size_t n = 0;
        const char *name = tokenizer_token_str(t, ids->ids[i], &n);
        jw_strn(w, name ? name : "", n);
    }
    jw_array_end(w);
}

static bool put_tokens(struct request *rq, const struct tokenize_body *body, const char *text,
                       size_t n, struct buf *out, struct fault *f)
{
    const struct tokenizer *t = rq->service->tokenizer;
    struct json_writer w = { .out = out };
    struct token_list ids = { 0 };
    struct err e;

    if (!tokenizer_encode(t, text, n, flags_of(body), &ids, &e))
        return fault_set(f, FAULT_INVALID, "prompt", "tokenizer error %s", e.msg);
    jw_object(&w);
    jw_key(&w, "count");
    jw_uint(&w, ids.n);
    jw_key(&w, "max_model_len");
    jw_uint(&w, rq->max_model_len);
    jw_key(&w, "tokens");
    openai_put_ids(&w, ids.ids, ids.n);
    jw_key(&w, "token_strs");
    if (body->return_token_strs.b)
        put_token_names(&w, t, &ids);
    else
        jw_null(&w);
    jw_object_end(&w);
    token_list_fini(&ids);
    return true;
}

static bool tokenize(struct request *rq, const json_t *root, struct buf *out, struct fault *f)
{
    struct openai_params p = { 0 };
    struct tokenize_body body;
    struct buf text = { 0 };
    bool ok;

    if (!openai_read_own(root, tokenize_fields, COUNT(tokenize_fields), &body, sizeof body, f))
        return false;
    p.model = body.model;
    if (!openai_apply_identity(rq, NULL, &p, f))
        return false;
    if (!body.messages.is_set)
        return put_tokens(rq, &body, body.prompt.s ? body.prompt.s : "", body.prompt.n, out, f);
    ok = render(rq, root, &body, &text, f) &&
         put_tokens(rq, &body, text.data ? text.data : "", text.n, out, f);
    buf_fini(&text);
    return ok;
}

/* ---- tokens to text ---- */

/* An id of no token has no text; what is no id at all is refused. */
static bool read_ids(const json_t *list, int32_t *ids, struct fault *f)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
            return fault_set(f, FAULT_SCHEMA, "body.tokens",
                             "1 validation error:\n  {'type': 'greater_than_equal', 'loc': "
                             "('body', 'tokens', %zu), 'msg': 'Input should be a token id'}",
                             i);
        ids[i] = (int32_t)json_integer_value(v);
    }
    return true;
}

static bool detokenize_body(struct request *rq, const json_t *root, struct buf *out,
                            struct fault *f)
{
    struct json_writer w = { .out = out };
    struct openai_params p = { 0 };
    struct detokenize_body body;
    struct buf text = { 0 };
    int32_t *ids;
    size_t n;

    if (!openai_read_own(root, detokenize_fields, COUNT(detokenize_fields), &body, sizeof body, f))
        return false;
    p.model = body.model;
    n = json_array_size(body.tokens.json);
    ids = arena_alloc(&rq->arena, n * sizeof *ids);
    if (!openai_apply_identity(rq, NULL, &p, f) || !read_ids(body.tokens.json, ids, f))
        return false;
    detokenize(rq->service->tokenizer, ids, n, 0, &text);
    jw_object(&w);
    jw_key(&w, "prompt");
    jw_strn(&w, text.data ? text.data : "", text.n);
    jw_object_end(&w);
    buf_fini(&text);
    return true;
}

/* ---- the routes ---- */

typedef bool page_fn(struct request *rq, const json_t *root, struct buf *out, struct fault *f);

static void serve(struct service *s, const char *type, const char *bytes, size_t n, struct reply *r,
                  page_fn *act)
{
    struct buf out = { 0 };
    json_t *root = NULL;
    struct request rq;
    struct fault f;

    request_init(&rq, s, &dialect_openai_completions, 0);
    if (openai_takes(type, &f) && openai_parse(bytes, n, &root, &f) && act(&rq, root, &out, &f)) {
        reply_set(r, 200, REPLY_JSON);
        buf_add(&r->body, out.data, out.n);
    } else {
        openai_fault(&f, r);
    }
    request_fini(&rq);
    json_decref(root);
    buf_fini(&out);
}

void openai_tokenize_page(struct service *s, const char *type, const char *bytes, size_t n,
                          struct reply *r)
{
    serve(s, type, bytes, n, r, tokenize);
}

void openai_detokenize_page(struct service *s, const char *type, const char *bytes, size_t n,
                            struct reply *r)
{
    serve(s, type, bytes, n, r, detokenize_body);
}

static bool is_vllms(const char *bytes, size_t n)
{
    struct err e;
    json_t *root = json_parse(bytes, n, &e);
    bool is = json_is_object(root) && !json_object_get(root, "inputs") &&
              (json_object_get(root, "prompt") || json_object_get(root, "messages"));

    json_decref(root);
    return is;
}

void page_tokenize(struct service *s, const struct http_request *http, struct reply *r)
{
    const char *bytes;
    size_t n;

    bytes = http_request_body(http, &n);
    if (is_vllms(bytes, n))
        openai_tokenize_page(s, http_request_header(http, "Content-Type"), bytes, n, r);
    else
        page_tgi_tokenize(s, http, r);
}

void page_detokenize(struct service *s, const struct http_request *http, struct reply *r)
{
    const char *bytes;
    size_t n;

    bytes = http_request_body(http, &n);
    openai_detokenize_page(s, http_request_header(http, "Content-Type"), bytes, n, r);
}
