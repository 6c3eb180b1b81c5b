/* embeddings.c - POST /v1/embeddings, as vLLM and OpenAI answer it.
 *
 * Each input is a sequence that generates nothing: the worker pools the model's last hidden states (setting
 * embedding_pooling), and what it gives is scaled to length 1 here. */
#include <math.h>
#include <string.h>

#include "gateway/openai/openai.h"
#include "text/tokenizer.h"

#define EMBEDDING_OWN(X)                                                                           \
    X(input, FIELD_ANY, 0, 0, 0)                                                                   \
    X(messages, FIELD_ARRAY, FIELD_NULL, 0, 0)                                                     \
    X(encoding_format, FIELD_STRING, FIELD_NULL, 0, 0)                                             \
    X(dimensions, FIELD_INT, FIELD_NULL, INT64_MIN, INT64_MAX)

struct embedding_own {
    EMBEDDING_OWN(FIELD_MEMBER)
};

#define FIELD_OWNER struct embedding_own
static const struct field own_fields[] = { EMBEDDING_OWN(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_embedding_fields, "", own_fields);

struct embedding_extra {
    struct openai_extra openai; /* first: openai_extra() */
    bool is_base64;
};

/* ---- parse ---- */

static bool apply_own(struct request *rq, const struct embedding_own *own, struct fault *f)
{
    struct embedding_extra *extra = rq->extra;

    if (own->dimensions.is_set)
        return fault_set(f, FAULT_INVALID, "dimensions",
                         "Model \"%.200s\" does not support matryoshka representation, changing "
                         "output dimensions will lead to poor results.",
                         rq->service->model_name);
    if (!own->encoding_format.is_set || strcmp(own->encoding_format.s, "float") == 0)
        return true;
    extra->is_base64 = strcmp(own->encoding_format.s, "base64") == 0;
    if (extra->is_base64)
        return true;
    return fault_set(f, FAULT_SCHEMA, "body.encoding_format",
                     "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', "
                     "'encoding_format'), 'msg': \"Input should be 'float' or 'base64'\"}");
}

static bool check_lengths(const struct request *rq, struct fault *f)
{
    for (uint32_t i = 0; i < rq->n_prompts; i++)
        if (rq->prompts[i].n_ids >= rq->max_model_len)
            return fault_set(f, FAULT_INVALID, "input_tokens",
                             "This model's maximum context length is %u tokens. However, you "
                             "requested %u tokens in the input for embedding generation. Please "
                             "reduce the length of the input.",
                             rq->max_model_len, rq->prompts[i].n_ids);
    return true;
}

static bool missing_input(struct fault *f)
{
    return fault_set(f, FAULT_SCHEMA, "body.input",
                     "1 validation error:\n  {'type': 'missing', 'loc': ('body', 'input'), 'msg': "
                     "'Field required'}");
}

/* What is embedded: texts, or a conversation as the model's template has it. */
static bool set_prompts(struct request *rq, const struct openai_params *p,
                        const struct embedding_own *own, const struct openai_chat_options *options,
                        struct fault *f)
{
    bool adds = p->add_special_tokens.is_set ? p->add_special_tokens.b : !own->messages.is_set;
    unsigned flags = adds ? TOKENIZER_ADD_SPECIAL : 0;

    if (!own->messages.is_set)
        return own->input.is_set ? openai_set_prompts(rq, "input", own->input.json, flags, f)
                                 : missing_input(f);
    return request_set_prompts(rq, 1, f) &&
           openai_set_chat_prompt(rq, 0, own->messages.json, options,
                                  flags | TOKENIZER_PARSE_SPECIAL, f);
}

static bool fill(struct request *rq, const struct http_request *http, const json_t *root,
                 struct openai_params *p, struct fault *f)
{
    struct openai_chat_options options;
    struct embedding_own own;

    rq->is_stream = false;        /* no parameter of this route */
    rq->sampling.temperature = 0; /* nothing is drawn */
    rq->pooling = strcmp(rq->service->config.embedding_pooling, "mean") == 0
                      ? LLMD__POOLING__POOL_MEAN
                      : LLMD__POOLING__POOL_LAST;
    return openai_read_own(root, own_fields, sizeof own_fields / sizeof *own_fields, &own,
                           sizeof own, f) &&
           openai_read_template(rq, root, false, &options, f) &&
           openai_apply_identity(rq, http, p, f) && apply_own(rq, &own, f) &&
           set_prompts(rq, p, &own, &options, f) &&
           openai_apply_truncation(rq, p, rq->max_model_len - 1, f) && check_lengths(rq, f);
}

static bool embeddings_parse(struct request *rq, const struct http_request *http, const char *body,
                             size_t n, struct fault *f)
{
    struct embedding_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    extra->openai = (struct openai_extra){ .id_prefix = "embd-", .object = "list" };
    rq->extra = extra;
    return openai_read(rq, http, body, n, fill, f);
}

/* ---- answer ---- */

static double length(const float *v, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += (double)v[i] * (double)v[i];
    return sum > 0 ? sqrt(sum) : 1;
}

/* The floats of RFC 4648's base64 are little-endian, as every client of OpenAI's expects them. */
static void put_base64(struct json_writer *w, const float *v, uint32_t n, double scale)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    struct buf text = { 0 };
    uint32_t bits = 0, n_bits = 0;

    for (uint32_t i = 0; i < n * 4; i++) {
        float x = (float)((double)v[i / 4] / scale);
        uint32_t word;
        memcpy(&word, &x, sizeof word);
        bits = bits << 8 | (word >> 8 * (i % 4) & 0xff);
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            buf_add_char(&text, digits[bits >> (n_bits - 6) & 63]);
    }
    if (n_bits > 0)
        buf_add_char(&text, digits[bits << (6 - n_bits) & 63]);
    while (text.n % 4)
        buf_add_char(&text, '=');
    jw_strn(w, text.data ? text.data : "", text.n);
    buf_fini(&text);
}

static void put_embedding(struct json_writer *w, const struct choice *c)
{
    const struct embedding_extra *extra = c->rq->extra;
    const float *v = c->seq.embedding;
    double scale = length(v, c->seq.n_embedding);

    jw_object(w);
    jw_key(w, "index");
    jw_uint(w, c->index);
    jw_key(w, "object");
    jw_str(w, "embedding");
    jw_key(w, "embedding");
    if (extra->is_base64) {
        put_base64(w, v, c->seq.n_embedding, scale);
    } else {
        jw_array(w);
        for (uint32_t i = 0; i < c->seq.n_embedding; i++)
            jw_float(w, (float)((double)v[i] / scale));
        jw_array_end(w);
    }
    jw_object_end(w);
}

/* A worker that had to end gives none. */
static bool has_all(const struct request *rq)
{
    for (uint32_t i = 0; i < rq->n_choices; i++)
        if (rq->choices[i].seq.n_embedding == 0)
            return false;
    return true;
}

static void embeddings_whole(struct request *rq, struct reply *r)
{
    struct json_writer w = { .out = &r->body };
    struct fault f;

    if (!has_all(rq)) {
        fault_set(&f, FAULT_GENERATION, "", "the server is shutting down");
        openai_fault(&f, r);
        return;
    }
    reply_set(r, 200, REPLY_JSON);
    jw_object(&w);
    openai_put_head(&w, rq, false);
    jw_key(&w, "data");
    jw_array(&w);
    for (uint32_t i = 0; i < rq->n_choices; i++)
        put_embedding(&w, request_choice(rq, i));
    jw_array_end(&w);
    openai_put_usage(&w, rq, false);
    jw_object_end(&w);
}

/* It never streams. */
static void no_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    (void)rq;
    (void)c;
    (void)i;
    (void)out;
}

const struct dialect dialect_openai_embeddings = {
    .id = DIALECT_OPENAI_EMBEDDINGS,
    .name = "embeddings",
    .takes = openai_takes,
    .parse = embeddings_parse,
    .whole = embeddings_whole,
    .begin = openai_begin,
    .token = no_token,
    .end = openai_end,
    .fault = openai_fault,
    .stream_fault = openai_stream_fault,
    .layer_error = openai_layer_error,
};
