/* openai_params.c - the parameters that completions and chat share. */
#include "gateway/openai.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/json.h"
#include "text/tokenizer.h"

enum { STOP_TOKENS_MAX = 128, LOGIT_BIAS_MAX = 1024, REQUEST_ID_BYTES_MAX = 128 };
#define GREEDY_BELOW 1e-5

#define FIELD_OWNER struct openai_params
static const struct field common_fields[] = { OPENAI_COMMON(FIELD_ROW) };
#undef FIELD_OWNER

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

static bool is_one(const json_t *root, const json_t *v)
{
    (void)root;
    return json_is_integer(v) && json_integer_value(v) == 1;
}

static bool is_no_beam(const json_t *root, const json_t *v)
{
    (void)root;
    return json_is_false(v) || (json_is_integer(v) && json_integer_value(v) == 0);
}

/* The best n of n are all of them. */
static bool is_all(const json_t *root, const json_t *v)
{
    const json_t *n = json_object_get(root, "n");

    return is_one(root, v) || (json_is_integer(v) && json_equal(n, v));
}

/* Known, and not done.  What `harmless` accepts asks for nothing. */
static const struct {
    const char *name;
    bool (*harmless)(const json_t *root, const json_t *v);
} unsupported[] = {
    { "use_beam_search", is_no_beam },
    { "response_format", is_text_format },
    { "structured_outputs", is_empty },
    { "guided_json", NULL },
    { "guided_regex", NULL },
    { "guided_choice", NULL },
    { "guided_grammar", NULL },
    { "allowed_token_ids", NULL },
    { "bad_words", is_empty },
    { "prompt_logprobs", NULL },
    { "logprob_token_ids", is_empty },
    { "repetition_detection", NULL },
    { "thinking_token_budget", NULL },
    { "stream_interval", is_one },
    { "cache_salt", NULL },
    { "kv_transfer_params", NULL },
    { "ec_transfer_params", NULL },
    { "vllm_xargs", NULL },
    { "logits_processors", is_empty },
    { "prompt_embeds", NULL },
    { "best_of", is_all },
    { "functions", NULL },
    { "function_call", NULL },
    { "mm_processor_kwargs", is_empty },
    { "media_io_kwargs", is_empty },
};

static bool check_supported(const json_t *root, struct fault *f)
{
    for (size_t i = 0; i < sizeof unsupported / sizeof *unsupported; i++) {
        const char *name = unsupported[i].name;
        const json_t *v = json_object_get(root, name);
        if (!v || json_is_null(v) || (unsupported[i].harmless && unsupported[i].harmless(root, v)))
            continue;
        return fault_set(f, FAULT_UNSUPPORTED, name, "%s is not supported by this server", name);
    }
    return true;
}

bool openai_read(struct request *rq, const char *body, size_t n, json_t **root,
                 struct openai_params *p, struct fault *f)
{
    struct err e;

    *root = json_parse(body, n, &e);
    if (!*root)
        return fault_set(f, FAULT_SYNTAX, "body",
                         "1 validation error:\n  {'type': 'json_invalid', 'loc': ('body',), "
                         "'msg': 'JSON decode error', 'ctx': {'error': '%s'}}",
                         e.msg);
    if (!json_is_object(*root)) {
        char found[96];
        field_describe(*root, found, sizeof found);
        return fault_set(f, FAULT_SCHEMA, "body",
                         "1 validation error:\n  {'type': 'model_attributes_type', 'loc': "
                         "('body',), 'msg': 'Input should be an object', 'input': %s}",
                         found);
    }
    rq->is_stream = json_is_true(json_object_get(*root, "stream"));
    if (!openai_read_own(*root, common_fields, sizeof common_fields / sizeof *common_fields, p,
                         sizeof *p, f))
        return false;
    rq->is_stream = p->stream.b;
    return check_supported(*root, f);
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

static bool apply_sampling(struct request *rq, const struct openai_params *p, struct fault *f)
{
    const struct model_info *m = &rq->service->model;
    Llmd__Sampling *s = &rq->sampling;
    double temperature = choose(&p->temperature, &m->temperature, 1);
    double top_k = choose(&p->top_k, &m->top_k, 0);

    if (!check_ranges(p, f))
        return false;
    rq->n = p->n.is_set ? (uint32_t)p->n.i : 1;
    s->repetition_penalty = (float)choose(&p->repetition_penalty, &m->repetition_penalty, 1);
    s->presence_penalty = (float)p->presence_penalty.d;
    s->frequency_penalty = (float)p->frequency_penalty.d;
    if (p->seed.is_set && p->seed.i != -1)
        s->seed = (uint64_t)p->seed.i;
    if (temperature < GREEDY_BELOW) {
        s->temperature = 0;
        if (rq->n > 1)
            return openai_invalid(f, "n", rq->n, "n must be 1 when using greedy sampling, got %u.",
                                  rq->n);
        return true;
    }
    s->temperature = (float)(temperature < 0.01 ? 0.01 : temperature);
    s->top_p = (float)choose(&p->top_p, &m->top_p, 1);
    s->top_k = top_k > 0 ? (uint32_t)top_k : 0;
    s->min_p = (float)choose(&p->min_p, &m->min_p, 0);
    return true;
}

static bool token_in_vocabulary(const struct request *rq, int64_t id)
{
    return id >= 0 && id < rq->service->model.vocab_size;
}

static bool apply_logit_bias(struct request *rq, const json_t *bias, struct fault *f)
{
    size_t n = json_object_size(bias);
    Llmd__LogitBias *entries = arena_alloc(&rq->arena, n * sizeof *entries);
    Llmd__LogitBias **list = arena_alloc(&rq->arena, n * sizeof *list);
    const char *key;
    json_t *v;
    size_t i = 0;

    if (n > LOGIT_BIAS_MAX)
        return openai_invalid(f, "logit_bias", (double)n,
                              "logit_bias may have at most %d entries, got %zu.", LOGIT_BIAS_MAX,
                              n);
    json_object_foreach ((json_t *)(uintptr_t)bias, key, v) {
        char *end;
        long long id = strtoll(key, &end, 10);
        double value = json_is_number(v) ? json_number_value(v) : NAN;
        if (*key == '\0' || *end || !isfinite(value))
            return fault_set(f, FAULT_INVALID, "logit_bias",
                             "logit_bias maps token ids to numbers, got '%.40s'", key);
        if (!token_in_vocabulary(rq, id))
            return fault_set(f, FAULT_INVALID, "logit_bias",
                             "token_id %lld in logit_bias contains out-of-vocab token id", id);
        llmd__logit_bias__init(&entries[i]);
        entries[i].token = (int32_t)id;
        entries[i].bias = (float)fmax(-100, fmin(100, value));
        list[i] = &entries[i];
        i++;
    }
    rq->sampling.logit_bias = list;
    rq->sampling.n_logit_bias = n;
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

static bool apply_stop_tokens(struct request *rq, const struct openai_params *p, struct fault *f)
{
    size_t n = json_array_size(p->stop_token_ids.json);
    int32_t *ids = arena_alloc(&rq->arena, n * sizeof *ids);

    if (n > STOP_TOKENS_MAX)
        return openai_invalid(f, "stop_token_ids", (double)n,
                              "stop_token_ids may have at most %d entries, got %zu.",
                              STOP_TOKENS_MAX, n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(p->stop_token_ids.json, i);
        if (!json_is_integer(v) || !token_in_vocabulary(rq, json_integer_value(v)))
            return fault_set(f, FAULT_INVALID, "stop_token_ids",
                             "stop_token_ids must be token ids of the vocabulary");
        ids[i] = (int32_t)json_integer_value(v);
    }
    rq->stop_tokens = ids;
    rq->n_stop_tokens = (uint32_t)n;
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

bool openai_apply(struct request *rq, const struct http_request *http,
                  const struct openai_params *p, struct fault *f)
{
    struct openai_extra *extra = openai_extra(rq);

    rq->custom_id = clean_id(rq, p->request_id.s);
    if (!rq->custom_id && http)
        rq->custom_id = clean_id(rq, http_request_header(http, "X-Request-Id"));
    rq->keeps_stop = p->include_stop_str_in_output.b;
    rq->ignore_eos = p->ignore_eos.b;
    rq->shows_special_tokens = p->skip_special_tokens.is_set && !p->skip_special_tokens.b;
    rq->priority = (int32_t)p->priority.i;
    extra->echo = p->echo.b;
    extra->logprob_ids = p->return_tokens_as_token_ids.b;
    extra->token_ids = p->return_token_ids.b;
    return check_model(rq, p, f) && apply_stream_options(rq, p, f) && apply_sampling(rq, p, f) &&
           apply_stops(rq, p, f) && (!p->stop_token_ids.is_set || apply_stop_tokens(rq, p, f)) &&
           (!p->logit_bias.is_set || apply_logit_bias(rq, p->logit_bias.json, f));
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

static bool apply_truncation(struct request *rq, const struct openai_params *p, uint32_t room,
                             struct fault *f)
{
    uint32_t keep = p->truncate_prompt_tokens.i < 0 ? room : (uint32_t)p->truncate_prompt_tokens.i;

    if (p->truncation_side.is_set && strcmp(p->truncation_side.s, "left") != 0)
        return fault_set(f, FAULT_UNSUPPORTED, "truncation_side",
                         "truncation_side '%.20s' is not supported by this server",
                         p->truncation_side.s);
    if (keep == 0 || keep > room)
        return openai_invalid(f, "truncate_prompt_tokens", keep,
                              "truncate_prompt_tokens must be in [1, %u], got %u.", room, keep);
    for (uint32_t i = 0; i < rq->n_prompts; i++)
        request_truncate(rq, i, keep);
    return true;
}

bool openai_apply_lengths(struct request *rq, const struct openai_params *p, int64_t max_tokens,
                          struct fault *f)
{
    uint32_t len = rq->max_model_len;
    uint32_t n_out = max_tokens > 0 && max_tokens < len ? (uint32_t)max_tokens : 1;

    if (p->truncate_prompt_tokens.is_set && !apply_truncation(rq, p, len - n_out, f))
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
    return true;
}

bool openai_apply_logprobs(struct request *rq, int64_t n_top, struct fault *f)
{
    uint32_t max = atomic_load(&rq->service->logprobs_max);
    struct openai_extra *extra = openai_extra(rq);

    if (n_top > max)
        return openai_invalid(f, "logprobs", (double)n_top,
                              "Requested sample logprobs of %lld, which is greater than max "
                              "allowed: %u",
                              (long long)n_top, max);
    extra->want_logprobs = true;
    extra->top_logprobs = (uint32_t)n_top;
    rq->sampling.want_logprobs = true;
    rq->sampling.top_logprobs = (uint32_t)n_top;
    rq->sampling.logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    return true;
}
