/* params.c - the parameters that completions and chat share. */
#include "gateway/openai/openai.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/hash.h"
#include "common/json.h"

enum {
    REQUEST_ID_BYTES_MAX = 128,
};
#define GREEDY_BELOW 1e-5

#define FIELD_OWNER struct openai_params
static const struct field common_fields[] = { OPENAI_COMMON(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_common_fields, "", common_fields);

bool openai_knows(const char *name)
{
    for (size_t i = 0; i < sizeof common_fields / sizeof *common_fields; i++)
        if (strcmp(common_fields[i].name, name) == 0)
            return true;
    return false;
}

bool openai_takes(const char *content_type, struct fault *f)
{
    size_t n = content_type ? strcspn(content_type, "; \t") : 0;

    if (n == strlen("application/json") && strncasecmp(content_type, "application/json", n) == 0)
        return true;
    return fault_set(f, FAULT_MEDIA_TYPE, "",
                     "Unsupported Media Type: Only 'application/json' is allowed");
}

bool openai_invalid(struct fault *f, const char *param, double value, const char *fmt, ...)
{
    char text[FAULT_TEXT_BYTES];
    struct buf number = { 0 };
    struct json_writer w = { .out = &number };
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (value == floor(value) && fabs(value) < 1e15)
        jw_int(&w, (int64_t)value);
    else
        jw_double(&w, value);
    fault_set(f, FAULT_INVALID, param, "%s (parameter=%s, value=%s)", text, param, number.data);
    buf_fini(&number);
    return false;
}

static bool schema_fault(struct fault *f, const struct field_problem *p)
{
    char path[FAULT_PARAM_BYTES];

    snprintf(path, sizeof path, "body.%s", p->name);
    if (p->what == FIELD_MISSING)
        return fault_set(f, FAULT_SCHEMA, path,
                         "1 validation error:\n  {'type': 'missing', 'loc': ('body', '%s'), "
                         "'msg': 'Field required'}",
                         p->name);
    return fault_set(f, FAULT_SCHEMA, path,
                     "1 validation error:\n  {'type': 'value_error', 'loc': ('body', '%s'), "
                     "'msg': 'Input should be %s', 'input': %s}",
                     p->name, p->expected, p->found);
}

bool openai_read_own(const json_t *root, const struct field *table, size_t n, void *out,
                     size_t out_bytes, struct fault *f)
{
    struct field_problem problem;

    return fields_read(root, table, n, FIELDS_LENIENT, out, out_bytes, &problem) ||
           schema_fault(f, &problem);
}

static bool is_empty(const json_t *root, const json_t *v)
{
    (void)root;
    return (json_is_array(v) && json_array_size(v) == 0) ||
           (json_is_object(v) && json_object_size(v) == 0);
}

static bool is_text_format(const json_t *root, const json_t *v)
{
    const char *type = json_string_value(json_object_get(v, "type"));

    (void)root;
    return type && strcmp(type, "text") == 0;
}

/* Known, and not done.  What `harmless` accepts asks for nothing. */
static const struct {
    const char *name;
    bool (*harmless)(const json_t *root, const json_t *v);
} unsupported[] = {
    { "response_format", is_text_format },
    { "structured_outputs", is_empty },
    { "guided_json", NULL },
    { "guided_regex", NULL },
    { "guided_choice", NULL },
    { "guided_grammar", NULL },
    { "logits_processors", is_empty },
    { "prompt_embeds", NULL },
    { "mm_processor_kwargs", is_empty },
    { "media_io_kwargs", is_empty },
};

static bool check_format(const json_t *root, struct fault *f)
{
    const json_t *format = json_object_get(root, "response_format");
    const char *type = json_string_value(json_object_get(format, "type"));

    if (type && strcmp(type, "json_schema") == 0 && !json_object_get(format, "json_schema"))
        return fault_set(f, FAULT_INVALID, "response_format",
                         "When response_format type is 'json_schema', the 'json_schema' field "
                         "must be provided.");
    return true;
}

static bool check_supported(const json_t *root, struct fault *f)
{
    if (!check_format(root, f))
        return false;
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const char *name = unsupported[i].name;
        const json_t *v = json_object_get(root, name);
        if (!v || json_is_null(v) || (unsupported[i].harmless && unsupported[i].harmless(root, v)))
            continue;
        return fault_set(f, FAULT_UNSUPPORTED, name, "%s is not supported by this server", name);
    }
    return true;
}

bool openai_parse(const char *body, size_t n, json_t **root, struct fault *f)
{
    char found[96];
    struct err e;

    *root = json_parse(body, n, &e);
    if (!*root)
        return fault_set(f, FAULT_SYNTAX, "body",
                         "1 validation error:\n  {'type': 'json_invalid', 'loc': ('body',), "
                         "'msg': 'JSON decode error', 'ctx': {'error': '%s'}}",
                         e.msg);
    if (json_is_object(*root))
        return true;
    field_describe(*root, found, sizeof found);
    return fault_set(f, FAULT_SCHEMA, "body",
                     "1 validation error:\n  {'type': 'model_attributes_type', 'loc': ('body',), "
                     "'msg': 'Input should be an object', 'input': %s}",
                     found);
}

/* An object whose common members are good by themselves.  The caller gives *root back, on failure too. */
static bool read_common(struct request *rq, const char *body, size_t n, json_t **root,
                        struct openai_params *p, struct fault *f)
{
    if (!openai_parse(body, n, root, f))
        return false;
    rq->is_stream = json_is_true(json_object_get(*root, "stream"));
    if (!openai_read_own(*root, common_fields, sizeof common_fields / sizeof *common_fields, p,
                         sizeof *p, f))
        return false;
    rq->is_stream = p->stream.b;
    return check_supported(*root, f);
}

bool openai_read(struct request *rq, const struct http_request *http, const char *body, size_t n,
                 openai_fill_fn *fill, struct fault *f)
{
    struct openai_params p;
    json_t *root = NULL;
    bool ok;

    ok = read_common(rq, body, n, &root, &p, f) && fill(rq, http, root, &p, f);
    json_decref(root);
    return ok;
}

/* ---- sampling ---- */

/* The request's value, else the model's recommendation, else the built-in one. */
static double choose(const struct field_value *v, const struct model_default *d, double otherwise)
{
    if (v->is_set)
        return v->d;
    return d && d->is_set ? d->value : otherwise;
}

static bool in_range(struct fault *f, const char *param, const struct field_value *v, double min,
                     double max)
{
    if (!v->is_set || (v->d >= min && v->d <= max))
        return true;
    return openai_invalid(f, param, v->d, "%s must be in [%g, %g], got %g.", param, min, max, v->d);
}

static bool check_ranges(const struct openai_params *p, struct fault *f)
{
    if (p->temperature.is_set && p->temperature.d < 0)
        return openai_invalid(f, "temperature", p->temperature.d,
                              "temperature must be non-negative, got %g.", p->temperature.d);
    if (!in_range(f, "temperature", &p->temperature, 0, 2))
        return false;
    if (p->top_p.is_set && !(p->top_p.d > 0 && p->top_p.d <= 1))
        return openai_invalid(f, "top_p", p->top_p.d, "top_p must be in (0, 1], got %g.",
                              p->top_p.d);
    if (p->top_k.is_set && p->top_k.i < -1)
        return openai_invalid(f, "top_k", p->top_k.d,
                              "top_k must be 0 (disable), or at least 1, got %lld.",
                              (long long)p->top_k.i);
    if (p->repetition_penalty.is_set && !(p->repetition_penalty.d > 0))
        return openai_invalid(f, "repetition_penalty", p->repetition_penalty.d,
                              "repetition_penalty must be greater than zero, got %g.",
                              p->repetition_penalty.d);
    return in_range(f, "min_p", &p->min_p, 0, 1) &&
           in_range(f, "presence_penalty", &p->presence_penalty, -2, 2) &&
           in_range(f, "frequency_penalty", &p->frequency_penalty, -2, 2);
}

/* Of best_of sequences the n likeliest: a parameter of vLLM up to 0.8 and of OpenAI's completions. */
static bool apply_counts(struct request *rq, const struct openai_params *p, struct fault *f)
{
    rq->n = p->n.is_set ? (uint32_t)p->n.i : 1;
    rq->best_of = p->best_of.is_set ? (uint32_t)p->best_of.i : rq->n;
    rq->best_rule = BEST_BY_SUM;
    if (rq->best_of < rq->n)
        return openai_invalid(f, "best_of", rq->best_of,
                              "best_of must be greater than or equal to n, got n=%u and "
                              "best_of=%u.",
                              rq->n, rq->best_of);
    if (rq->best_of > rq->n && rq->is_stream)
        return openai_invalid(f, "best_of", rq->best_of,
                              "best_of must be equal to n when streaming, got n=%u and "
                              "best_of=%u.",
                              rq->n, rq->best_of);
    return true;
}

/* The width is n; vLLM up to 0.6 had best_of for it. */
static bool apply_beam_search(struct request *rq, const struct openai_params *p, struct fault *f)
{
    uint32_t max = atomic_load(&rq->service->logprobs_max);
    const json_t *early = p->early_stopping.json;
    bool is_never = json_is_string(early) && strcmp(json_string_value(early), "never") == 0;

    if (rq->is_stream)
        return fault_set(f, FAULT_INVALID, "stream",
                         "Streaming is not currently supported with beam search");
    if (early && !json_is_boolean(early) && !is_never)
        return fault_set(f, FAULT_INVALID, "early_stopping",
                         "early_stopping must be True, False, or 'never'.");
    rq->beam = (struct beam_options){
        .width = rq->best_of,
        .length_penalty = p->length_penalty.is_set ? p->length_penalty.d : 1,
        .stops_early = json_is_true(early),
    };
    rq->best_of = rq->n;
    if (2 * rq->beam.width > max)
        return openai_invalid(f, "n", rq->beam.width,
                              "Requested sample logprobs of %u, which is greater than max "
                              "allowed: %u",
                              2 * rq->beam.width, max);
    return true;
}

static bool check_greedy(const struct request *rq, struct fault *f)
{
    if (rq->n > 1)
        return openai_invalid(f, "n", rq->n, "n must be 1 when using greedy sampling, got %u.",
                              rq->n);
    return rq->best_of == 1 ||
           openai_invalid(f, "best_of", rq->best_of,
                          "best_of must be 1 when using greedy sampling, got %u.", rq->best_of);
}

static bool apply_sampling(struct request *rq, const struct openai_params *p, struct fault *f)
{
    const struct model_info *m = &rq->service->model;
    Llmd__Sampling *s = &rq->sampling;
    double temperature = choose(&p->temperature, &m->temperature, 1);
    double top_k = choose(&p->top_k, &m->top_k, 0);

    if (!check_ranges(p, f) || !apply_counts(rq, p, f))
        return false;
    s->repetition_penalty = (float)choose(&p->repetition_penalty, &m->repetition_penalty, 1);
    s->presence_penalty = (float)p->presence_penalty.d;
    s->frequency_penalty = (float)p->frequency_penalty.d;
    if (p->seed.is_set && p->seed.i != -1)
        s->seed = (uint64_t)p->seed.i;
    if (p->use_beam_search.b)
        return apply_beam_search(rq, p, f);
    if (temperature < GREEDY_BELOW) {
        s->temperature = 0;
        return check_greedy(rq, f);
    }
    s->temperature = (float)(temperature < 0.01 ? 0.01 : temperature);
    s->top_p = (float)choose(&p->top_p, &m->top_p, 1);
    s->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    s->min_p = (float)choose(&p->min_p, &m->min_p, 0);
    return true;
}

/* ---- stops ---- */

static bool apply_stops(struct request *rq, const struct openai_params *p, struct fault *f)
{
    const json_t *stop = p->stop.json;
    size_t n = json_is_array(stop) ? json_array_size(stop) : 1;

    if (!p->stop.is_set || n == 0)
        return true;
    if (n > SERVICE_STOPS_MAX)
        return fault_set(f, FAULT_SCHEMA, "body.stop",
                         "1 validation error:\n  {'type': 'too_long', 'loc': ('body', 'stop'), "
                         "'msg': 'List should have at most %d items', 'input': %zu items}",
                         SERVICE_STOPS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_is_array(stop) ? json_array_get(stop, i) : stop;
        if (!json_is_string(v))
            return fault_set(f, FAULT_SCHEMA, "body.stop",
                             "1 validation error:\n  {'type': 'string_type', 'loc': ('body', "
                             "'stop'), 'msg': 'Input should be a string or a list of strings'}");
        if (json_string_length(v) == 0)
            return fault_set(f, FAULT_INVALID, "stop", "stop cannot contain an empty string.");
    }
    request_set_stops(rq, stop);
    return true;
}

/* ---- repetition ---- */

#define REPETITION_BODY(X)                                                                         \
    X(max_pattern_size, FIELD_INT, 0, 0, INT32_MAX)                                                \
    X(min_pattern_size, FIELD_INT, 0, 0, INT32_MAX)                                                \
    X(min_count, FIELD_INT, 0, 0, INT32_MAX)

struct repetition_body {
    REPETITION_BODY(FIELD_MEMBER)
};

#define FIELD_OWNER struct repetition_body
static const struct field repetition_fields[] = { REPETITION_BODY(FIELD_ROW) };
#undef FIELD_OWNER
FIELD_TABLE(openai_repetition_fields, "repetition_detection", repetition_fields);

static bool apply_repetition(struct request *rq, const struct openai_params *p, struct fault *f)
{
    struct repetition_body body;

    if (!p->repetition_detection.is_set)
        return true;
    if (!openai_read_own(p->repetition_detection.json, repetition_fields,
                         sizeof repetition_fields / sizeof *repetition_fields, &body, sizeof body,
                         f))
        return false;
    if (body.min_pattern_size.i > body.max_pattern_size.i)
        return fault_set(f, FAULT_INVALID, "repetition_detection",
                         "max_pattern_size, min_pattern_size must be >=0, with min_pattern_size <= "
                         "max_pattern_size. Set both to 0 to disable repetitive pattern "
                         "detection.");
    if (body.max_pattern_size.i > 0 && body.min_count.i < 2)
        return fault_set(f, FAULT_INVALID, "repetition_detection",
                         "min_count must be >= 2 to detect repetitive patterns in engine output. "
                         "If you do not wish to detect repetitive patterns, set max_pattern_size "
                         "to 0.");
    rq->repetition = (struct repetition_rule){ .min_size = (uint32_t)body.min_pattern_size.i,
                                               .max_size = (uint32_t)body.max_pattern_size.i,
                                               .min_count = (uint32_t)body.min_count.i };
    return true;
}

/* ---- who asks, and how to answer ---- */

/* A client's id becomes part of ours: printable ASCII, of bounded length, or it is not taken. */
static const char *clean_id(struct request *rq, const char *id)
{
    size_t n = id ? strlen(id) : 0;

    if (n == 0 || n > REQUEST_ID_BYTES_MAX)
        return NULL;
    for (size_t i = 0; i < n; i++)
        if (id[i] < 0x21 || id[i] > 0x7e)
            return NULL;
    return arena_strdup(&rq->arena, id);
}

/* The header's word counts more than the body's, unless it is no integer. */
static void take_priority(struct request *rq, const char *header)
{
    char *end;
    long v;

    if (!header)
        return;
    errno = 0;
    v = strtol(header, &end, 10);
    if (errno == 0 && end != header && *end == '\0' && v >= INT32_MIN && v <= INT32_MAX)
        rq->priority = (int32_t)v;
}

static bool apply_stream_options(struct request *rq, const struct openai_params *p, struct fault *f)
{
    const json_t *o = p->stream_options.json;
    struct openai_extra *extra = openai_extra(rq);

    if (json_object_size(o) == 0)
        return true;
    if (!rq->is_stream)
        return fault_set(f, FAULT_INVALID, "stream_options",
                         "Stream options can only be defined when `stream=True`.");
    extra->include_usage = json_is_true(json_object_get(o, "include_usage"));
    extra->continuous_usage =
        extra->include_usage && json_is_true(json_object_get(o, "continuous_usage_stats"));
    return true;
}

/* Hugging Face's clients, when given an address and no model, send "tgi" or that address. */
static bool names_the_endpoint(const char *model)
{
    return strcmp(model, "tgi") == 0 || strncmp(model, "http://", 7) == 0 ||
           strncmp(model, "https://", 8) == 0;
}

static bool check_model(struct request *rq, const struct openai_params *p, struct fault *f)
{
    if (!p->model.is_set || p->model.n == 0 || strcmp(p->model.s, rq->service->model_name) == 0 ||
        names_the_endpoint(p->model.s))
        return true;
    return fault_set(f, FAULT_NO_MODEL, "model", "The model `%.200s` does not exist.", p->model.s);
}

bool openai_apply_identity(struct request *rq, const struct http_request *http,
                           const struct openai_params *p, struct fault *f)
{
    rq->custom_id = clean_id(rq, p->request_id.s);
    if (!rq->custom_id && http)
        rq->custom_id = clean_id(rq, http_request_header(http, "X-Request-Id"));
    rq->priority = (int32_t)p->priority.i;
    take_priority(rq, http ? http_request_header(http, "X-Vllm-Priority") : NULL);
    if (p->cache_salt.is_set && p->cache_salt.n == 0)
        return fault_set(f, FAULT_INVALID, "cache_salt",
                         "Parameter 'cache_salt' must be a non-empty string if provided.");
    if (p->cache_salt.is_set)
        rq->cache_salt = hash64(p->cache_salt.s, p->cache_salt.n, 0) | 1; /* never none */
    return check_model(rq, p, f);
}

bool openai_apply(struct request *rq, const struct http_request *http,
                  const struct openai_params *p, struct fault *f)
{
    struct openai_extra *extra = openai_extra(rq);

    rq->keeps_stop = p->include_stop_str_in_output.b;
    rq->ignore_eos = p->ignore_eos.b;
    rq->shows_special_tokens = p->skip_special_tokens.is_set && !p->skip_special_tokens.b;
    extra->echo = p->echo.b;
    extra->logprob_ids = p->return_tokens_as_token_ids.b;
    extra->token_ids = p->return_token_ids.b;
    rq->event_tokens = p->stream_interval.is_set ? (uint32_t)p->stream_interval.i
                                                 : (uint32_t)rq->service->config.stream_interval;
    return openai_apply_identity(rq, http, p, f) && apply_stream_options(rq, p, f) &&
           apply_sampling(rq, p, f) && openai_apply_prompt_logprobs(rq, p, f) &&
           apply_stops(rq, p, f) && apply_repetition(rq, p, f) && openai_apply_tokens(rq, p, f);
}

/* ---- lengths ---- */

static bool too_long(const struct request *rq, struct fault *f, uint64_t n_prompt, uint64_t n_new)
{
    return fault_set(f, FAULT_INVALID, "input_tokens",
                     "This model's maximum context length is %u tokens. However, you requested "
                     "%llu output tokens and your prompt contains %llu input tokens, for a total "
                     "of %llu tokens. Please reduce the length of the input prompt or the number "
                     "of requested output tokens.",
                     rq->max_model_len, (unsigned long long)n_new, (unsigned long long)n_prompt,
                     (unsigned long long)(n_prompt + n_new));
}

bool openai_tokenize(struct request *rq, size_t i, const char *text, size_t n, unsigned flags,
                     struct fault *f)
{
    uint64_t n_least = n / rq->service->token_bytes_max;

    if (n_least > rq->max_model_len)
        return fault_set(f, FAULT_INVALID, "input_text",
                         "This model's maximum context length is %u tokens. However, your prompt "
                         "has %zu bytes, which are more than %llu tokens. Please reduce the "
                         "length of the input prompt.",
                         rq->max_model_len, n, (unsigned long long)n_least);
    return request_tokenize(rq, i, text, n, flags, f);
}

bool openai_apply_truncation(struct request *rq, const struct openai_params *p, uint32_t room,
                             struct fault *f)
{
    uint32_t keep = p->truncate_prompt_tokens.i < 0 ? room : (uint32_t)p->truncate_prompt_tokens.i;

    bool keeps_first = p->truncation_side.is_set && strcmp(p->truncation_side.s, "right") == 0;

    if (p->truncation_side.is_set && !keeps_first && strcmp(p->truncation_side.s, "left") != 0)
        return fault_set(f, FAULT_SCHEMA, "body.truncation_side",
                         "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', "
                         "'truncation_side'), 'msg': \"Input should be 'left' or 'right'\"}");
    if (!p->truncate_prompt_tokens.is_set)
        return true;
    if (keep == 0 || keep > room)
        return openai_invalid(f, "truncate_prompt_tokens", keep,
                              "truncate_prompt_tokens must be in [1, %u], got %u.", room, keep);
    for (uint32_t i = 0; i < rq->n_prompts; i++) {
        if (keeps_first && keep < rq->prompts[i].n_ids)
            rq->prompts[i].n_ids = keep;
        request_truncate(rq, i, keep);
    }
    return true;
}

bool openai_apply_lengths(struct request *rq, const struct openai_params *p, int64_t max_tokens,
                          struct fault *f)
{
    uint32_t len = rq->max_model_len;
    uint32_t n_out = max_tokens > 0 && max_tokens < len ? (uint32_t)max_tokens : 1;

    if (!openai_apply_truncation(rq, p, len - n_out, f))
        return false;
    if (max_tokens == 0 || (max_tokens < 0 && p->max_tokens.is_set && p->max_tokens.i < 0))
        return openai_invalid(f, "max_tokens", p->max_tokens.d,
                              "max_tokens must be at least 1, got %lld.",
                              (long long)p->max_tokens.i);
    for (uint32_t i = 0; i < rq->n_prompts; i++)
        if (rq->prompts[i].n_ids >= len)
            return too_long(rq, f, rq->prompts[i].n_ids, max_tokens > 0 ? (uint64_t)max_tokens : 1);
    rq->max_tokens = max_tokens > 0 && max_tokens < len ? (uint32_t)max_tokens : 0;
    if (p->min_tokens.i < 0)
        return openai_invalid(f, "min_tokens", p->min_tokens.d,
                              "min_tokens must be greater than or equal to 0, got %lld.",
                              (long long)p->min_tokens.i);
    if (p->min_tokens.i > (max_tokens > 0 ? max_tokens : len))
        return openai_invalid(f, "min_tokens", p->min_tokens.d,
                              "min_tokens must be less than or equal to max_tokens=%lld, got "
                              "%lld.",
                              (long long)(max_tokens > 0 ? max_tokens : len),
                              (long long)p->min_tokens.i);
    rq->min_tokens = (uint32_t)p->min_tokens.i;
    return openai_apply_thinking(rq, p, f);
}
