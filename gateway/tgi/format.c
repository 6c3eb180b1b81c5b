/* format.c - answers as text-generation-inference gives them: 3.x, or 0.9.3 (setting tgi_compat). */
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "common/json.h"
#include "gateway/tgi/tgi.h"
#include "text/tokenizer.h"

/* "application/json", "application/anything+json", parameters allowed after ';'. */
static bool is_json_type(const char *type)
{
    size_t n = strcspn(type, "; \t");

    if (n == strlen("application/json") && strncasecmp(type, "application/json", n) == 0)
        return true;
    return n > strlen("application/+json") && strncasecmp(type, "application/", 12) == 0 &&
           strncasecmp(type + n - 5, "+json", 5) == 0;
}

static bool tgi_takes(const char *content_type, struct fault *f)
{
    if (content_type && is_json_type(content_type))
        return true;
    return fault_set(f, FAULT_MEDIA_TYPE, "",
                     "Expected request with `Content-Type: application/json`");
}

/* ---- pieces ---- */

static const char *finish_name(const struct choice *c)
{
    switch (c->end) {
    case CHOICE_EOS:
    case CHOICE_STOP_TOKEN:
        return "eos_token";
    case CHOICE_STOP_STRING:
        return "stop_sequence";
    default:
        return "length";
    }
}

static void put_token(struct json_writer *w, const struct service *s, int32_t id, const char *text,
                      size_t n, float logprob)
{
    jw_object(w);
    jw_key(w, "id");
    jw_int(w, id);
    jw_key(w, "text");
    jw_strn(w, text, n);
    jw_key(w, "logprob");
    jw_float(w, logprob);
    jw_key(w, "special");
    jw_bool(w, tokenizer_is_special(s->tokenizer, id));
    jw_object_end(w);
}

/* Special tokens have no part in the text, but are shown here as the vocabulary spells them. */
static void put_choice_token(struct json_writer *w, const struct choice *c, uint32_t i)
{
    const struct service *s = c->rq->service;
    int32_t id = c->seq.tokens[i];
    const char *text;
    size_t n = 0;

    if (tokenizer_is_special(s->tokenizer, id))
        text = tokenizer_token_str(s->tokenizer, id, &n);
    else
        text = choice_token_text(c, i, &n);
    put_token(w, s, id, text ? text : "", n, c->seq.logprobs[i].logprob);
}

static void put_top_tokens(struct json_writer *w, const struct choice *c, uint32_t i)
{
    const struct service *s = c->rq->service;
    const struct token_top *top = sequence_top(&c->seq, i);

    jw_array(w);
    for (uint32_t k = 0; k < c->seq.logprobs[i].n_top; k++) {
        bool is_special = tokenizer_is_special(s->tokenizer, top[k].token);
        size_t n = 0;
        const char *text = is_special ? tokenizer_token_str(s->tokenizer, top[k].token, &n)
                                      : tokenizer_token_bytes(s->tokenizer, top[k].token, &n);
        put_token(w, s, top[k].token, text ? text : "", n, top[k].logprob);
    }
    jw_array_end(w);
}

static void put_seed(struct json_writer *w, const struct choice *c)
{
    jw_key(w, "seed");
    if (tgi_extra(c->rq)->samples)
        jw_uint(w, c->seq.sampling.seed);
    else
        jw_null(w);
}

static void put_generated_text(struct json_writer *w, const struct choice *c)
{
    struct buf text = { 0 };

    jw_key(w, "generated_text");
    if (tgi_extra(c->rq)->return_full_text)
        buf_add(&text, c->prompt->text, c->prompt->text_bytes);
    buf_add(&text, c->text.data ? c->text.data : "", c->text.n);
    jw_strn(w, text.data ? text.data : "", text.n);
    buf_fini(&text);
}

/* A token of the prompt, as it is decoded alone: where words begin with a mark for the space before them,
 * that space is not shown.  Nothing predicts the first one. */
static void put_prefill_token(struct json_writer *w, const struct choice *c, uint32_t i)
{
    int32_t id = c->prompt->ids[i];
    struct buf text = { 0 };

    detokenize(c->rq->service->tokenizer, &id, 1, 0, &text);
    jw_object(w);
    jw_key(w, "id");
    jw_int(w, id);
    jw_key(w, "text");
    jw_strn(w, text.data ? text.data : "", text.n);
    jw_key(w, "logprob");
    if (request_prompt_sequence(c)->prompt_logprobs[i].rank > 0)
        jw_float(w, request_prompt_sequence(c)->prompt_logprobs[i].logprob);
    else
        jw_null(w);
    jw_object_end(w);
    buf_fini(&text);
}

static void put_prefill(struct json_writer *w, const struct choice *c)
{
    jw_key(w, "prefill");
    jw_array(w);
    for (uint32_t i = 0;
         tgi_extra(c->rq)->prefill && i < request_prompt_sequence(c)->n_prompt_logprobs; i++)
        put_prefill_token(w, c, i);
    jw_array_end(w);
}

/* finish_reason .. tokens, top_tokens: shared by `details` and each of `best_of_sequences`. */
static void put_sequence_details(struct json_writer *w, const struct choice *c)
{
    jw_key(w, "finish_reason");
    jw_str(w, finish_name(c));
    jw_key(w, "generated_tokens");
    jw_uint(w, c->n_done);
    put_seed(w, c);
    put_prefill(w, c);
    jw_key(w, "tokens");
    jw_array(w);
    for (uint32_t i = 0; i < c->n_done; i++)
        put_choice_token(w, c, i);
    jw_array_end(w);
}

static void put_all_top_tokens(struct json_writer *w, const struct choice *c)
{
    if (tgi_extra(c->rq)->top_n_tokens == 0 || c->n_done == 0)
        return;
    jw_key(w, "top_tokens");
    jw_array(w);
    for (uint32_t i = 0; i < c->n_done; i++)
        put_top_tokens(w, c, i);
    jw_array_end(w);
}

/* ---- the plain answer ---- */

static void put_other_sequences(struct json_writer *w, const struct request *rq,
                                const struct choice *best)
{
    jw_key(w, "best_of_sequences");
    jw_array(w);
    for (uint32_t i = 0; i < rq->n_candidates; i++) {
        const struct choice *c = &rq->choices[i];
        if (c == best)
            continue;
        jw_object(w);
        put_generated_text(w, c);
        put_sequence_details(w, c);
        put_all_top_tokens(w, c);
        jw_object_end(w);
    }
    jw_array_end(w);
}

static void put_details(struct json_writer *w, const struct request *rq, const struct choice *best)
{
    jw_key(w, "details");
    jw_object(w);
    put_sequence_details(w, best);
    if (rq->n_candidates > 1)
        put_other_sequences(w, rq, best);
    put_all_top_tokens(w, best);
    jw_object_end(w);
}

static unsigned long long ms(uint64_t ns)
{
    return (unsigned long long)(ns / NS_PER_MS);
}

static const char *compute_type(const struct request *rq)
{
    return tgi_is_old(rq->service) ? "gpu+optimized" : rq->service->config.compute_type;
}

static void put_time_headers(struct reply *r, const struct request *rq, const struct choice *c)
{
    uint64_t total = rq->answered_ns - rq->started_ns;
    uint64_t validation = rq->validated_ns - rq->started_ns;
    uint64_t queue = rq->queue_ns;
    uint64_t inference = total > validation + queue ? total - validation - queue : 0;

    reply_header(r, "x-compute-type", "%s", compute_type(rq));
    if (tgi_extra(rq)->is_old)
        reply_header(r, "x-compute-time", "%llu", ms(total));
    else
        reply_header(r, "x-compute-time", "%.9g", (double)total / 1e9);
    reply_header(r, "x-compute-characters", "%zu", tgi_extra(rq)->inputs_chars);
    reply_header(r, "x-total-time", "%llu", ms(total));
    reply_header(r, "x-validation-time", "%llu", ms(validation));
    reply_header(r, "x-queue-time", "%llu", ms(queue));
    reply_header(r, "x-inference-time", "%llu", ms(inference));
    reply_header(r, "x-time-per-token", "%llu", ms(c->n_done ? inference / c->n_done : 0));
    if (tgi_extra(rq)->is_old)
        return;
    reply_header(r, "x-prompt-tokens", "%u", c->prompt->n_ids);
    reply_header(r, "x-generated-tokens", "%u", c->n_done); /* of the answer, not of what lost */
}

static void tgi_whole(struct request *rq, struct reply *r)
{
    const struct choice *best = request_choice(rq, 0);
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    if (rq->answered_ns == 0) { /* else it is written again, by a successor */
        rq->answered_ns = clock_mono_ns();
        rq->queue_ns = best->seq.queue_ns;
    }
    put_time_headers(r, rq, best);
    if (rq->variant == TGI_ROOT)
        jw_array(&w);
    jw_object(&w);
    put_generated_text(&w, best);
    if (tgi_extra(rq)->details)
        put_details(&w, rq, best);
    jw_object_end(&w);
    if (rq->variant == TGI_ROOT)
        jw_array_end(&w);
}

/* ---- the stream ---- */

static void begin_fields(struct reply *r)
{
    reply_set(r, 200, REPLY_SSE);
    reply_header(r, "Cache-Control", "no-cache");
    reply_header(r, "x-accel-buffering", "no");
}

static void tgi_begin(struct request *rq, struct reply *r)
{
    begin_fields(r);
    reply_header(r, "x-compute-type", "%s", compute_type(rq));
    if (tgi_extra(rq)) /* not yet there when the request is refused */
        reply_header(r, "x-compute-characters", "%zu", tgi_extra(rq)->inputs_chars);
}

static void put_stream_details(struct json_writer *w, const struct choice *c)
{
    jw_key(w, "details");
    if (!tgi_extra(c->rq)->details) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "finish_reason");
    jw_str(w, finish_name(c));
    jw_key(w, "generated_tokens");
    jw_uint(w, c->n_done);
    put_seed(w, c);
    if (!tgi_extra(c->rq)->is_old) {
        jw_key(w, "input_length");
        jw_uint(w, c->prompt->n_ids);
    }
    jw_object_end(w);
}

static void begin_event(const struct request *rq, struct buf *out)
{
    buf_add_str(out, tgi_is_old(rq->service) ? "data:" : "data: ");
}

void tgi_put_error(struct buf *out, const char *text, const char *type)
{
    struct json_writer w = { .out = out };

    jw_object(&w);
    jw_key(&w, "error");
    jw_str(&w, text);
    jw_key(&w, "error_type");
    jw_str(&w, type);
    jw_object_end(&w);
}

/* It ended, and there is no token to say so with. */
static void put_incomplete(const struct request *rq, struct buf *out)
{
    begin_event(rq, out);
    if (tgi_is_old(rq->service))
        tgi_put_error(out, "Incomplete generation", "incomplete_generation");
    else
        tgi_put_error(out, "Incomplete generation stream", "incomplete_generation_stream");
    buf_add_str(out, "\n\n");
}

static void tgi_token(struct request *rq, struct choice *c, uint32_t i, struct buf *out)
{
    struct json_writer w = { .out = out };

    if (i >= c->n_done) {
        put_incomplete(rq, out);
        return;
    }
    begin_event(rq, out);
    jw_object(&w);
    if (!tgi_extra(rq)->is_old) {
        jw_key(&w, "index");
        jw_uint(&w, i + 1);
    }
    jw_key(&w, "token");
    put_choice_token(&w, c, i);
    if (tgi_extra(rq)->top_n_tokens > 0 && c->seq.logprobs[i].n_top > 0) {
        jw_key(&w, "top_tokens");
        put_top_tokens(&w, c, i);
    }
    if (choice_ends_at(c, i)) {
        put_generated_text(&w, c);
        put_stream_details(&w, c);
    } else {
        jw_key(&w, "generated_text");
        jw_null(&w);
        jw_key(&w, "details");
        jw_null(&w);
    }
    jw_object_end(&w);
    buf_add_str(out, "\n\n");
}

static void tgi_end(struct request *rq, struct buf *out)
{
    (void)rq;
    (void)out; /* no [DONE] here: the stream just ends */
}

/* ---- errors ---- */

struct tgi_error {
    int status;
    const char *type;   /* NULL: a rejection of the framework, plain text */
    const char *prefix; /* before the fault's text */
};

static const struct tgi_error errors[N_FAULTS] = {
    [FAULT_MEDIA_TYPE] = { 415, NULL, "" },
    [FAULT_SYNTAX] = { 400, NULL, "Failed to parse the request body as JSON: " },
    [FAULT_SCHEMA] = { 422, NULL, "Failed to deserialize the JSON body into the target type: " },
    [FAULT_INVALID] = { 422, "validation", "Input validation error: " },
    [FAULT_UNSUPPORTED] = { 422, "validation", "Input validation error: " },
    [FAULT_TEMPLATE] = { 422, "template_error", "Template error: " },
    [FAULT_NO_MODEL] = { 422, "validation", "Input validation error: " },
    [FAULT_OVERLOADED] = { 429, "overloaded", NULL },
    [FAULT_UNAVAILABLE] = { 503, "unavailable", "Model is unavailable: " },
    [FAULT_TIMEOUT] = { 424, "generation", "Request failed during generation: " },
    [FAULT_GENERATION] = { 424, "generation", "Request failed during generation: " },
};

static void put_fault(struct buf *out, const struct fault *f)
{
    const struct tgi_error *error = &errors[f->kind];
    struct buf text = { 0 };

    if (error->prefix)
        buf_printf(&text, "%s%s", error->prefix, f->text);
    else
        buf_add_str(&text, "Model is overloaded");
    tgi_put_error(out, text.data, error->type ? error->type : "validation");
    buf_fini(&text);
}

static void tgi_fault(const struct fault *f, struct reply *r)
{
    const struct tgi_error *error = &errors[f->kind];

    if (error->type) {
        reply_set(r, error->status, REPLY_JSON);
        put_fault(&r->body, f);
    } else {
        reply_set(r, error->status, REPLY_TEXT);
        buf_printf(&r->body, "%s%s", error->prefix, f->text);
    }
    if (f->kind == FAULT_OVERLOADED || f->kind == FAULT_UNAVAILABLE)
        reply_header(r, "Retry-After", "%u", f->retry_after_s);
}

static void tgi_stream_fault(struct request *rq, const struct fault *f, struct buf *out)
{
    begin_event(rq, out);
    put_fault(out, f);
    buf_add_str(out, "\n\n");
}

static const char *tgi_layer_error(int status, const char *text, struct buf *body)
{
    if (status == 413) {
        buf_add_str(body, "Failed to buffer the request body: length limit exceeded");
        return REPLY_TEXT;
    }
    tgi_put_error(body, text, status >= 500 ? "unavailable" : "validation");
    return REPLY_JSON;
}

const struct dialect dialect_tgi = {
    .id = DIALECT_TGI,
    .name = "tgi",
    .takes = tgi_takes,
    .parse = tgi_parse,
    .whole = tgi_whole,
    .begin = tgi_begin,
    .token = tgi_token,
    .end = tgi_end,
    .fault = tgi_fault,
    .stream_fault = tgi_stream_fault,
    .layer_error = tgi_layer_error,
    .faults_in_stream = true,
    .has_permit_per_sequence = true,
    .keep_alive_s = 15,
};
