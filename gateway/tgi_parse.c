/* tgi_parse.c - TGI's request: its fields, its rules, its words for breaking them.
 *
 * Texts and their order are those of TGI 3.x.  `seed` goes up to 2^63 - 1 here, since the JSON reader
 * knows no larger integer; the seeds this server draws stay below that too. */
#include "gateway/tgi.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "gateway/fields.h"
#include "text/tokenizer.h"

enum { SEGMENT_TOKENS = 1024 }; /* TGI checks and reserves at most so many new tokens at a time */

#define TGI_BODY(X)                                                                                \
    X(inputs, FIELD_STRING, FIELD_REQUIRED, 0, 0)                                                  \
    X(parameters, FIELD_OBJECT, 0, 0, 0)                                                           \
    X(stream, FIELD_BOOL, 0, 0, 0)

#define TGI_PARAMETERS(X)                                                                          \
    X(best_of, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                                \
    X(temperature, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                 \
    X(repetition_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                          \
    X(frequency_penalty, FIELD_NUMBER, FIELD_NULL, 0, 0)                                           \
    X(top_k, FIELD_INT, FIELD_NULL, INT32_MIN, INT32_MAX)                                          \
    X(top_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                       \
    X(typical_p, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                   \
    X(do_sample, FIELD_BOOL, 0, 0, 0)                                                              \
    X(max_new_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                        \
    X(return_full_text, FIELD_BOOL, FIELD_NULL, 0, 0)                                              \
    X(stop, FIELD_ARRAY, 0, 0, 0)                                                                  \
    X(truncate, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                               \
    X(watermark, FIELD_BOOL, 0, 0, 0)                                                              \
    X(details, FIELD_BOOL, 0, 0, 0)                                                                \
    X(decoder_input_details, FIELD_BOOL, 0, 0, 0)                                                  \
    X(seed, FIELD_INT, FIELD_NULL, 0, INT64_MAX)                                                   \
    X(top_n_tokens, FIELD_INT, FIELD_NULL, 0, UINT32_MAX)                                          \
    X(grammar, FIELD_OBJECT, FIELD_NULL, 0, 0)                                                     \
    X(adapter_id, FIELD_STRING, FIELD_NULL, 0, 0)

struct tgi_body {
    TGI_BODY(FIELD_MEMBER)
};

struct tgi_parameters {
    TGI_PARAMETERS(FIELD_MEMBER)
};

#define FIELD_OWNER struct tgi_body
static const struct field body_fields[] = { TGI_BODY(FIELD_ROW) };
#undef FIELD_OWNER
#define FIELD_OWNER struct tgi_parameters
static const struct field parameter_fields[] = { TGI_PARAMETERS(FIELD_ROW) };
#undef FIELD_OWNER

#define COUNT(a) (sizeof(a) / sizeof *(a))

/* In the words of the framework's deserializer. */
static bool schema_fault(struct fault *f, const char *prefix, const struct field_problem *p)
{
    if (p->what == FIELD_MISSING && strcmp(p->found, "null") == 0)
        return fault_set(f, FAULT_SCHEMA, p->name, "%smissing field `%s`", prefix, p->name);
    return fault_set(f, FAULT_SCHEMA, p->name, "%s%s: invalid %s: %s, expected %s", prefix, p->name,
                     p->what == FIELD_OUT_OF_RANGE ? "value" : "type", p->found, p->expected);
}

static bool check_stops_are_strings(const json_t *stop, struct fault *f)
{
    static const struct field element = { .name = "stop", .type = FIELD_STRING };

    for (size_t i = 0; i < json_array_size(stop); i++) {
        struct field_problem p;
        struct field_value v;
        if (!field_convert(json_array_get(stop, i), &element, FIELDS_STRICT, &v, &p))
            return fault_set(f, FAULT_SCHEMA, "stop",
                             "parameters.stop[%zu]: invalid type: %s, expected a string", i,
                             p.found);
    }
    return true;
}

static bool read_fields(const json_t *root, struct tgi_body *body, struct tgi_parameters *p,
                        struct fault *f)
{
    struct field_problem problem;

    memset(p, 0, sizeof *p);
    if (!json_is_object(root)) {
        char found[96];
        field_describe(root, found, sizeof found);
        return fault_set(f, FAULT_SCHEMA, "", "invalid type: %s, expected struct GenerateRequest",
                         found);
    }
    if (!fields_read(root, body_fields, COUNT(body_fields), FIELDS_STRICT, body, sizeof *body,
                     &problem))
        return schema_fault(f, "", &problem);
    if (body->parameters.is_set &&
        !fields_read(body->parameters.json, parameter_fields, COUNT(parameter_fields),
                     FIELDS_STRICT, p, sizeof *p, &problem))
        return schema_fault(f, "parameters.", &problem);
    return !p->stop.is_set || check_stops_are_strings(p->stop.json, f);
}

static bool invalid(struct fault *f, const char *param, const char *text)
{
    return fault_set(f, FAULT_INVALID, param, "%s", text);
}

static bool selects_sampling(const struct tgi_parameters *p)
{
    return p->do_sample.b || p->temperature.is_set || p->top_k.is_set || p->top_p.is_set ||
           p->typical_p.is_set;
}

static bool check_best_of(const struct request *rq, const struct tgi_parameters *p, struct fault *f)
{
    int64_t n = p->best_of.is_set ? p->best_of.i : 1;

    if (rq->is_stream && n != 1)
        return invalid(f, "best_of", "`best_of` != 1 is not supported when streaming tokens");
    if (rq->is_stream && p->decoder_input_details.b)
        return invalid(f, "decoder_input_details",
                       "`decoder_input_details` == true is not supported when streaming tokens");
    if (n > SERVICE_BEST_OF_MAX)
        return fault_set(f, FAULT_INVALID, "best_of",
                         "`best_of` must be > 0 and <= %d. Given: %lld", SERVICE_BEST_OF_MAX,
                         (long long)n);
    if (n > 1 && !selects_sampling(p))
        return invalid(f, "best_of", "you must use sampling when `best_of` is > 1");
    return true;
}

static bool check_sampling(const struct tgi_parameters *p, struct fault *f)
{
    if (p->temperature.is_set && p->temperature.d <= 0)
        return invalid(f, "temperature", "`temperature` must be strictly positive");
    if (p->repetition_penalty.is_set && p->repetition_penalty.d <= 0)
        return invalid(f, "repetition_penalty", "`repetition_penalty` must be strictly positive");
    if (p->frequency_penalty.is_set && fabs(p->frequency_penalty.d) > 2)
        return invalid(f, "frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0");
    if (p->top_p.is_set && (p->top_p.d <= 0 || p->top_p.d >= 1))
        return invalid(f, "top_p", "`top_p` must be > 0.0 and < 1.0");
    if (p->typical_p.is_set && (p->typical_p.d <= 0 || p->typical_p.d >= 1))
        return invalid(f, "typical_p", "`typical_p` must be > 0.0 and < 1.0");
    if (p->top_k.is_set && p->top_k.i <= 0)
        return invalid(f, "top_k", "`top_k` must be strictly positive");
    return true;
}

static bool check_rest(const struct tgi_body *body, const struct tgi_parameters *p,
                       uint32_t max_input, struct fault *f)
{
    size_t n_stops = json_array_size(p->stop.json);

    if (p->max_new_tokens.is_set && p->max_new_tokens.i == 0)
        return invalid(f, "max_new_tokens", "`max_new_tokens` must be strictly positive");
    if (n_stops > SERVICE_STOPS_MAX)
        return fault_set(f, FAULT_INVALID, "stop",
                         "`stop` supports up to %d stop sequences. Given: %zu", SERVICE_STOPS_MAX,
                         n_stops);
    if (p->seed.is_set && p->best_of.i > 1)
        return invalid(f, "seed", "`seed` must not be set when `best_of` > 1");
    if (p->top_n_tokens.i > SERVICE_TGI_TOP_MAX)
        return fault_set(f, FAULT_INVALID, "top_n_tokens",
                         "`top_n_tokens` must be >= 0 and <= %d. Given: %lld", SERVICE_TGI_TOP_MAX,
                         (long long)p->top_n_tokens.i);
    if (body->inputs.n == 0)
        return invalid(f, "inputs", "`inputs` cannot be empty");
    if (p->truncate.is_set && (p->truncate.i == 0 || p->truncate.i > max_input))
        return fault_set(f, FAULT_INVALID, "truncate",
                         "`truncate` must be strictly positive and less than %u. Given: %lld",
                         max_input, (long long)p->truncate.i);
    return true;
}

/* The OCI sample's clients ask for a watermark of every backend, so a request that does is served.  The
 * text is not marked, and the log says so once. */
static void warn_of_watermark(void)
{
    static atomic_flag warned = ATOMIC_FLAG_INIT;

    if (!atomic_flag_test_and_set(&warned))
        log_warning("parameter=watermark text is served unmarked, ignoring it");
}

static bool check_supported(const struct tgi_parameters *p, struct fault *f)
{
    if (p->grammar.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "grammar", "grammar is not supported");
    if (p->watermark.b)
        warn_of_watermark();
    if (p->adapter_id.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "adapter_id", "adapter_id is not supported");
    return true;
}

static bool inputs_fault(struct fault *f, uint32_t max_input, uint64_t n)
{
    return fault_set(f, FAULT_INVALID, "inputs",
                     "`inputs` must have less than %u tokens. Given: %llu", max_input,
                     (unsigned long long)n);
}

/* Input and new tokens must fit together.  Without a number of new tokens as many as fit are meant: none
 * for an input that is too long, and then TGI complains about the sum, so we do. */
static bool check_total(struct fault *f, const struct tgi_parameters *p, uint32_t max_total,
                        uint64_t n)
{
    uint64_t n_new = n < max_total ? max_total - n : 0;

    if (p->max_new_tokens.is_set)
        n_new = (uint64_t)p->max_new_tokens.i;
    if (n_new > SEGMENT_TOKENS)
        n_new = SEGMENT_TOKENS;
    return n + n_new <= max_total ||
           fault_set(f, FAULT_INVALID, "max_new_tokens",
                     "`inputs` tokens + `max_new_tokens` must be <= %u. Given: %llu `inputs` "
                     "tokens and %u `max_new_tokens`",
                     max_total, (unsigned long long)n, (unsigned)n_new);
}

static bool check_lengths(struct fault *f, const struct tgi_parameters *p, uint32_t max_total,
                          uint64_t n)
{
    if (!check_total(f, p, max_total, n))
        return false;
    return n < max_total || inputs_fault(f, max_total - 1, n);
}

static bool tokenize(struct request *rq, const struct tgi_body *body,
                     const struct tgi_parameters *p, uint32_t max_total, struct fault *f)
{
    size_t n_least = body->inputs.n / rq->service->token_bytes_max;

    if (!p->truncate.is_set && n_least > max_total) /* spare us the work */
        return check_lengths(f, p, max_total, n_least);
    if (!request_set_prompts(rq, 1, f) ||
        !request_tokenize(rq, 0, body->inputs.s, body->inputs.n, TOKENIZER_ADD_SPECIAL, f))
        return false;
    if (rq->prompts[0].n_ids == 0)
        return invalid(f, "inputs", "`inputs` cannot be empty");
    if (p->truncate.is_set)
        request_truncate(rq, 0, (uint32_t)p->truncate.i);
    rq->max_tokens = (uint32_t)p->max_new_tokens.i; /* 0: as many as fit */
    return check_lengths(f, p, max_total, rq->prompts[0].n_ids);
}

static void fill_sampling(struct request *rq, const struct tgi_body *body,
                          const struct tgi_parameters *p, struct tgi_extra *extra)
{
    Llmd__Sampling *s = &rq->sampling;

    /* Without any parameters TGI samples; with some, only when they say so. */
    extra->samples = (!body->parameters.is_set || p->do_sample.b) ||
                     (p->temperature.is_set && p->temperature.d != 1) || p->top_k.is_set ||
                     p->top_p.is_set || p->typical_p.is_set;
    s->temperature = p->temperature.is_set ? (float)p->temperature.d : 1;
    if (!extra->samples)
        s->temperature = 0;
    s->top_k = (uint32_t)p->top_k.i;
    s->top_p = (float)p->top_p.d;
    s->typical_p = (float)p->typical_p.d;
    s->repetition_penalty = (float)p->repetition_penalty.d;
    s->frequency_penalty = (float)p->frequency_penalty.d;
    if (p->seed.is_set)
        s->seed = (uint64_t)p->seed.i;
    s->want_logprobs = rq->is_stream || extra->details || extra->best_of > 1;
    s->top_logprobs = extra->top_n_tokens;
    s->logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED;
}

static size_t count_chars(const char *s, size_t n)
{
    size_t count = 0;

    for (size_t i = 0; i < n; i++)
        count += ((unsigned char)s[i] & 0xc0) != 0x80;
    return count;
}

static bool fill(struct request *rq, const struct tgi_body *body, const struct tgi_parameters *p,
                 struct fault *f)
{
    struct tgi_extra *extra = arena_alloc(&rq->arena, sizeof *extra);
    uint32_t max_total = rq->max_model_len;

    rq->extra = extra;
    extra->inputs_chars = count_chars(body->inputs.s, body->inputs.n); /* refusals tell it, too */
    if (!check_best_of(rq, p, f) || !check_sampling(p, f) ||
        !check_rest(body, p, max_total - 1, f) || !tokenize(rq, body, p, max_total, f) ||
        !check_supported(p, f))
        return false;
    extra->details = p->details.b || p->decoder_input_details.b;
    extra->best_of = p->best_of.i > 1 ? (uint32_t)p->best_of.i : 1;
    extra->top_n_tokens = extra->details || rq->is_stream ? (uint32_t)p->top_n_tokens.i : 0;
    extra->return_full_text =
        p->return_full_text.is_set ? p->return_full_text.b : rq->variant == TGI_ROOT;
    rq->n = extra->best_of;
    rq->stop_rule = STOP_AT_END;
    if (json_array_size(p->stop.json) > 0)
        request_set_stops(rq, p->stop.json);
    fill_sampling(rq, body, p, extra);
    return true;
}

bool tgi_parse(struct request *rq, const struct http_request *http, const char *bytes, size_t n,
               struct fault *f)
{
    struct tgi_parameters p;
    struct tgi_body body;
    json_t *root;
    struct err e;
    bool ok;

    (void)http;
    root = json_parse(bytes, n, &e);
    if (!root)
        return fault_set(f, FAULT_SYNTAX, "", "%s", e.msg);
    ok = read_fields(root, &body, &p, f);
    if (ok && rq->variant == TGI_ROOT)
        rq->is_stream = body.stream.b;
    ok = ok && fill(rq, &body, &p, f);
    json_decref(root);
    return ok;
}
