/* generate.c - POST /generate of vLLM's first demo server, which load generators still speak.
 *
 * TGI has the path too; a body with a prompt and no inputs is meant for this one (tgi/parse.c).  Every member
 * but prompt and stream is a sampling parameter, and one that is none is refused.  Texts begin with the
 * prompt; a stream's objects hold all texts so far, and end with a byte that differed over the years (setting
 * generate_delimiter).  The original had no form for errors: they are the OpenAI server's. */
#include "gateway/openai/generate.h"

#include <string.h>

#include "gateway/openai/openai.h"
#include "text/tokenizer.h"

enum { MAX_TOKENS_DEFAULT = 16 };

#define GENERATE_OWN(X)                                                                            \
    X(prompt, FIELD_STRING, FIELD_REQUIRED, 0, 0)                                                  \
    X(logprobs, FIELD_INT, FIELD_NULL, 0, INT32_MAX)                                               \
    X(detokenize, FIELD_BOOL, FIELD_NULL, 0, 0)

struct generate_own {
    GENERATE_OWN(FIELD_MEMBER)
};

#define FIELD_OWNER struct generate_own
static const struct field own_fields[] = { GENERATE_OWN(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_generate_fields, "", own_fields);

#define COUNT(a) (sizeof(a) / sizeof *(a))

static bool is_own(const char *name)
{
    for (size_t i = 0; i < COUNT(own_fields); i++)
        if (strcmp(own_fields[i].name, name) == 0)
            return true;
    return false;
}

static bool check_names(const json_t *root, struct fault *f)
{
    const char *name;
    json_t *v;

    json_object_foreach ((json_t *)(uintptr_t)root, name, v)
        if (!openai_knows(name) && !is_own(name))
            return fault_set(f, FAULT_INVALID, name, "Unexpected keyword argument '%.60s'", name);
    return true;
}

static void set_default(struct field_value *v, double value)
{
    if (v->is_set)
        return;
    *v = (struct field_value){ .is_set = true, .d = value, .i = (int64_t)value };
}

/* This server never read the model's generation_config.json. */
static void set_defaults(struct openai_params *p)
{
    set_default(&p->temperature, 1);
    set_default(&p->top_p, 1);
    set_default(&p->top_k, 0);
    set_default(&p->min_p, 0);
    set_default(&p->repetition_penalty, 1);
}

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 struct openai_params *p, struct fault *f)
{
    int64_t max_tokens = p->max_tokens.is_set ? p->max_tokens.i : MAX_TOKENS_DEFAULT;
    struct generate_own own;

    set_defaults(p);
    return check_names(root, f) &&
           openai_read_own(root, own_fields, COUNT(own_fields), &own, sizeof own, f) &&
           openai_apply(rq, http, p, f) &&
           openai_set_prompts(rq, "prompt", own.prompt.json, TOKENIZER_ADD_SPECIAL, f) &&
           openai_apply_lengths(rq, p, max_tokens, f);
}

static bool generate_parse(struct request *rq, const struct http_request *http, const char *body,
                           size_t n, struct fault *f)
{
    struct openai_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    rq->extra = extra;
    return openai_read(rq, http, body, n, fill, f);
}

/* ---- answers ---- */

static void put_text(struct json_writer *w, const struct choice *c, size_t n)
{
    struct buf text = { 0 };

    buf_add(&text, c->prompt->text, c->prompt->text_bytes);
    buf_add(&text, c->text.data ? c->text.data : "", n);
    jw_strn(w, text.data ? text.data : "", text.n);
    buf_fini(&text);
}

static void generate_whole(struct request *rq, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    jw_key(&w, "text");
    jw_array(&w);
    for (uint32_t i = 0; i < rq->n_choices; i++)
        put_text(&w, request_choice(rq, i), request_choice(rq, i)->text.n);
    jw_array_end(&w);
    jw_object_end(&w);
}

static void generate_begin(struct request *rq, struct reply *r)
{
    (void)rq;
    reply_set(r, 200, NULL); /* the original names no type */
}

static size_t shown_bytes(const struct choice *c)
{
    if (c->end_shown)
        return c->text.n;
    return c->n_shown > 0 ? c->token_text[c->n_shown - 1].shown : 0;
}

static void end_record(const struct request *rq, struct buf *out)
{
    bool is_nul = strcmp(rq->service->config.generate_delimiter, "nul") == 0;

    buf_add_char(out, is_nul ? '\0' : '\n');
}

/* {"text": ["...", "..."]}, spaced as the original's writer does. */
static void generate_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    struct json_writer w = { .out = out };

    if (!openai_completes_event(c, i))
        return;
    buf_add_str(out, "{\"text\": [");
    for (uint32_t k = 0; k < rq->n_choices; k++) {
        if (k > 0)
            buf_add_str(out, ", ");
        w.need_comma = false;
        put_text(&w, &rq->choices[k], shown_bytes(&rq->choices[k]));
    }
    buf_add_str(out, "]}");
    end_record(rq, out);
}

static void generate_end(struct request *rq, struct buf *out)
{
    (void)rq;
    (void)out; /* the stream just ends */
}

static void generate_stream_fault(struct request *rq, const struct fault *f, struct buf *out)
{
    struct reply r;

    reply_init(&r);
    openai_fault(f, &r);
    buf_add(out, r.body.data, r.body.n);
    end_record(rq, out);
    reply_fini(&r);
}

const struct dialect dialect_openai_generate = {
    .id = DIALECT_OPENAI_GENERATE,
    .name = "vllm_generate",
    .takes = openai_takes,
    .parse = generate_parse,
    .whole = generate_whole,
    .begin = generate_begin,
    .token = generate_token,
    .end = generate_end,
    .fault = openai_fault,
    .stream_fault = generate_stream_fault,
    .layer_error = openai_layer_error,
    .can_abort = true,
};

bool openai_generate_is_meant(const json_t *root)
{
    return json_is_object(root) && json_is_string(json_object_get(root, "prompt")) &&
           !json_object_get(root, "inputs");
}
