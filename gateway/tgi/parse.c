/* parse.c - TGI's request: its rules, and its words for breaking them.
 *
 * Texts and their order are those of TGI 3.x; 0.9.3 has fewer parameters and other defaults
 * (setting tgi_compat). */
#include "gateway/openai/generate.h"
#include "gateway/tgi/tgi.h"

#include <math.h>
#include <string.h>

#include "common/json_wide.h"
#include "gateway/tgi/fields.h"
#include "text/tokenizer.h"

enum {
    SEGMENT_TOKENS = 1024, /* 3.x checks and reserves at most so many new tokens at a time */
    MAX_NEW_TOKENS_DEFAULT_OLD = 20 /* of 0.9.3; later: as many as fit */
};

bool tgi_is_old(const struct service *s)
{
    return strcmp(s->config.tgi_compat, "0.9.3") == 0;
}

uint32_t tgi_max_input_tokens(const struct service *s, uint32_t max_total)
{
    uint64_t max = s->config.max_input_tokens;

    return max > 0 && max < max_total ? (uint32_t)max : max_total - 1;
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
    int64_t max = (int64_t)rq->service->config.max_best_of;

    if (rq->is_stream && n != 1)
        return invalid(f, "best_of", "`best_of` != 1 is not supported when streaming tokens");
    if (rq->is_stream && p->decoder_input_details.b)
        return invalid(f, "decoder_input_details",
                       "`decoder_input_details` == true is not supported when streaming tokens");
    if (n > 1 && max == 1)
        return invalid(f, "best_of", "`best_of` != 1 is not allowed for this endpoint");
    if (n > max)
        return fault_set(f, FAULT_INVALID, "best_of",
                         "`best_of` must be > 0 and <= %lld. Given: %lld", (long long)max,
                         (long long)n);
    if (n > 1 && !selects_sampling(p))
        return invalid(f, "best_of", "you must use sampling when `best_of` is > 1");
    return true;
}

/* TGI holds 32-bit floats: 0.99999999999 is 1 there. */
static bool is_open_share(const struct field_value *v)
{
    float x = (float)v->d;

    return x > 0 && x < 1;
}

static bool check_sampling(const struct tgi_parameters *p, struct fault *f)
{
    if (p->temperature.is_set && !((float)p->temperature.d > 0))
        return invalid(f, "temperature", "`temperature` must be strictly positive");
    if (p->repetition_penalty.is_set && !((float)p->repetition_penalty.d > 0))
        return invalid(f, "repetition_penalty", "`repetition_penalty` must be strictly positive");
    if (p->frequency_penalty.is_set && fabs(p->frequency_penalty.d) > 2)
        return invalid(f, "frequency_penalty", "`frequency_penalty` must be >= -2.0 and <= 2.0");
    if (p->top_p.is_set && !is_open_share(&p->top_p))
        return invalid(f, "top_p", "`top_p` must be > 0.0 and < 1.0");
    if (p->typical_p.is_set && !is_open_share(&p->typical_p))
        return invalid(f, "typical_p", "`typical_p` must be > 0.0 and < 1.0");
    if (p->top_k.is_set && p->top_k.i <= 0)
        return invalid(f, "top_k", "`top_k` must be strictly positive");
    return true;
}

static bool check_counts(const struct config *c, const struct tgi_parameters *p, struct fault *f)
{
    size_t n_stops = json_array_size(p->stop.json);

    if (p->max_new_tokens.is_set && p->max_new_tokens.i == 0)
        return invalid(f, "max_new_tokens", "`max_new_tokens` must be strictly positive");
    if (n_stops > c->max_stop_sequences)
        return fault_set(f, FAULT_INVALID, "stop",
                         "`stop` supports up to %llu stop sequences. Given: %zu",
                         (unsigned long long)c->max_stop_sequences, n_stops);
    if (p->seed.is_set && p->best_of.i > 1)
        return invalid(f, "seed", "`seed` must not be set when `best_of` > 1");
    if (p->top_n_tokens.i > (int64_t)c->max_top_n_tokens)
        return fault_set(f, FAULT_INVALID, "top_n_tokens",
                         "`top_n_tokens` must be >= 0 and <= %llu. Given: %lld",
                         (unsigned long long)c->max_top_n_tokens, (long long)p->top_n_tokens.i);
    return true;
}

static bool check_inputs(const struct tgi_body *body, const struct tgi_parameters *p,
                         uint32_t max_input, struct fault *f)
{
    if (body->inputs.n == 0)
        return invalid(f, "inputs", "`inputs` cannot be empty");
    if (p->truncate.is_set && (p->truncate.i == 0 || p->truncate.i > max_input))
        return fault_set(f, FAULT_INVALID, "truncate",
                         "`truncate` must be strictly positive and less than %u. Given: %lld",
                         max_input, (long long)p->truncate.i);
    return true;
}

static bool check_supported(const struct tgi_parameters *p, struct fault *f)
{
    if (p->grammar.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "grammar", "grammar is not supported");
    if (p->adapter_id.is_set)
        return fault_set(f, FAULT_UNSUPPORTED, "adapter_id", "adapter_id is not supported");
    return true;
}

struct tgi_lengths tgi_lengths(const struct request *rq)
{
    bool is_old = tgi_is_old(rq->service);

    return (struct tgi_lengths){
        .max_total = rq->max_model_len,
        .max_input = tgi_max_input_tokens(rq->service, rq->max_model_len),
        .max_new = is_old ? MAX_NEW_TOKENS_DEFAULT_OLD : 0,
        .segment = is_old ? UINT32_MAX : SEGMENT_TOKENS,
    };
}

/* Input and new tokens must fit together.  Without a number of new tokens as many as fit are meant: none
 * for an input that is too long, and then TGI complains about the sum, so we do. */
bool tgi_check_lengths(const struct tgi_lengths *l, uint64_t n, struct fault *f)
{
    uint64_t n_new = n < l->max_total ? l->max_total - n : 0;

    if (l->max_new > 0)
        n_new = l->max_new;
    if (n_new > l->segment)
        n_new = l->segment;
    if (n + n_new > l->max_total)
        return fault_set(f, FAULT_INVALID, "max_new_tokens",
                         "`inputs` tokens + `max_new_tokens` must be <= %u. Given: %llu `inputs` "
                         "tokens and %llu `max_new_tokens`",
                         l->max_total, (unsigned long long)n, (unsigned long long)n_new);
    return n <= l->max_input || fault_set(f, FAULT_INVALID, "inputs",
                                          "`inputs` must have less than %u tokens. Given: %llu",
                                          l->max_input, (unsigned long long)n);
}

static bool tokenize(struct request *rq, const struct tgi_body *body,
                     const struct tgi_parameters *p, const struct tgi_lengths *l, struct fault *f)
{
    size_t n_least = body->inputs.n / rq->service->token_bytes_max;

    if (!p->truncate.is_set && n_least > l->max_total) /* spare us the work */
        return tgi_check_lengths(l, n_least, f);
    if (!request_set_prompts(rq, 1, f) ||
        !request_tokenize(rq, 0, body->inputs.s, body->inputs.n, TOKENIZER_ADD_SPECIAL, f))
        return false;
    if (rq->prompts[0].n_ids == 0)
        return invalid(f, "inputs", "`inputs` cannot be empty");
    if (p->truncate.is_set)
        request_truncate(rq, 0, (uint32_t)p->truncate.i);
    return tgi_check_lengths(l, rq->prompts[0].n_ids, f);
}

/* 3.x samples when there are no parameters at all, and both versions when one of them says so. */
static bool samples(const struct tgi_body *body, const struct tgi_parameters *p, bool is_old)
{
    return (!body->parameters.is_set && !is_old) || p->do_sample.b ||
           (p->temperature.is_set && (float)p->temperature.d != 1) || p->top_k.is_set ||
           p->top_p.is_set || p->typical_p.is_set;
}

static void fill_sampling(struct request *rq, const struct tgi_parameters *p,
                          struct tgi_extra *extra)
{
    const struct config *c = &rq->service->config;
    Llmd__Sampling *s = &rq->sampling;

    s->temperature = p->temperature.is_set ? (float)p->temperature.d : 1;
    if (!extra->samples)
        s->temperature = 0;
    s->top_k = (uint32_t)p->top_k.i;
    s->top_p = (float)p->top_p.d;
    s->typical_p = (float)p->typical_p.d;
    s->repetition_penalty = (float)p->repetition_penalty.d;
    s->frequency_penalty = (float)p->frequency_penalty.d;
    s->frequency_is_share = true;
    if (p->seed.is_set)
        s->seed = p->seed_value;
    if (p->watermark.b) {
        s->watermark_gamma = (float)c->watermark_gamma;
        s->watermark_delta = (float)c->watermark_delta;
    }
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

static bool check(struct request *rq, const struct tgi_body *body, const struct tgi_parameters *p,
                  struct fault *f)
{
    struct tgi_lengths l = tgi_lengths(rq);

    if (p->max_new_tokens.is_set)
        l.max_new = (uint64_t)p->max_new_tokens.i;
    rq->max_tokens = (uint32_t)l.max_new;
    return check_best_of(rq, p, f) && check_sampling(p, f) &&
           check_counts(&rq->service->config, p, f) && check_inputs(body, p, l.max_input, f) &&
           tokenize(rq, body, p, &l, f) && check_supported(p, f);
}

/* Unset on POST /, 3.x gives the prompt back for a model of which no hub says what it is for: every local
 * directory. */
static bool returns_full_text(const struct request *rq, const struct tgi_parameters *p)
{
    if (p->return_full_text.is_set)
        return p->return_full_text.b;
    return rq->variant == TGI_ROOT && !tgi_extra(rq)->is_old;
}

static bool fill(struct request *rq, const struct tgi_body *body, const struct tgi_parameters *p,
                 struct fault *f)
{
    struct tgi_extra *extra = arena_alloc(&rq->arena, sizeof *extra);

    rq->extra = extra;
    extra->is_old = tgi_is_old(rq->service);
    extra->inputs_chars = count_chars(body->inputs.s, body->inputs.n); /* refusals tell it, too */
    if (!check(rq, body, p, f))
        return false;
    extra->samples = samples(body, p, extra->is_old);
    extra->details = p->details.b || p->decoder_input_details.b;
    extra->prefill = p->decoder_input_details.b;
    extra->best_of = p->best_of.i > 1 ? (uint32_t)p->best_of.i : 1;
    extra->top_n_tokens = extra->details || rq->is_stream ? (uint32_t)p->top_n_tokens.i : 0;
    extra->return_full_text = returns_full_text(rq, p);
    rq->best_of = extra->best_of;
    rq->best_rule = BEST_BY_MEAN;
    rq->want_prompt_logprobs = extra->prefill;
    rq->stop_rule = STOP_AT_END;
    if (json_array_size(p->stop.json) > 0)
        request_set_stops(rq, p->stop.json);
    fill_sampling(rq, p, extra);
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

    root = json_wide_parse(bytes, n, &e);
    if (!root)
        return fault_set(f, FAULT_SYNTAX, "", "%s", e.msg);
    if (rq->variant == TGI_GENERATE && openai_generate_is_meant(root)) {
        json_decref(root);
        rq->dialect = &dialect_openai_generate;
        return rq->dialect->parse(rq, http, bytes, n, f);
    }
    ok = tgi_fields_read(root, bytes, n, tgi_is_old(rq->service), &body, &p, f);
    if (ok && rq->variant == TGI_ROOT)
        rq->is_stream = body.stream.b;
    ok = ok && fill(rq, &body, &p, f);
    json_decref(root);
    return ok;
}
