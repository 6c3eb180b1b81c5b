/* format.c - the parts of an answer that completions and chat share. */
#include <inttypes.h>
#include <string.h>

#include "gateway/openai/openai.h"
#include "text/tokenizer.h"

void openai_put_id(struct json_writer *w, const struct request *rq, const char *key)
{
    char id[192];

    if (rq->custom_id)
        snprintf(id, sizeof id, "%s%s", openai_extra(rq)->id_prefix, rq->custom_id);
    else
        snprintf(id, sizeof id, "%s%016" PRIx64, openai_extra(rq)->id_prefix, rq->answer_id);
    jw_key(w, key);
    jw_str(w, id);
}

void openai_put_head(struct json_writer *w, const struct request *rq, bool is_chunk)
{
    const struct openai_extra *extra = openai_extra(rq);

    openai_put_id(w, rq, "id");
    jw_key(w, "object");
    jw_str(w, is_chunk ? extra->chunk_object : extra->object);
    jw_key(w, "created");
    jw_int(w, rq->created_s);
    jw_key(w, "model");
    jw_str(w, rq->service->model_name);
}

/* vLLM tells of the cache when it is told to, and found something there. */
bool openai_tells_cached(const struct request *rq)
{
    return rq->cached_tokens > 0 && strcmp(rq->service->config.prompt_tokens_details, "on") == 0;
}

static void put_details(struct json_writer *w, const struct request *rq)
{
    jw_key(w, "prompt_tokens_details");
    if (!openai_tells_cached(rq)) {
        jw_null(w);
        return;
    }
    jw_object(w);
    jw_key(w, "cached_tokens");
    jw_uint(w, rq->cached_tokens);
    jw_object_end(w);
}

/* "usage" up to its counts. */
static void usage_begin(struct json_writer *w, const struct request *rq, uint64_t n_new)
{
    uint64_t n_prompt = request_prompt_tokens(rq);

    jw_key(w, "usage");
    jw_object(w);
    jw_key(w, "prompt_tokens");
    jw_uint(w, n_prompt);
    jw_key(w, "total_tokens");
    jw_uint(w, n_prompt + n_new);
    jw_key(w, "completion_tokens");
    jw_uint(w, n_new);
}

void openai_put_usage(struct json_writer *w, const struct request *rq, bool is_chunk)
{
    uint64_t n_new = 0;

    /* A chunk counts what has been shown: that is what it is a function of.  Candidates that were not
     * chosen do not count, as with vLLM. */
    for (uint32_t i = 0; i < rq->n_choices; i++)
        n_new += is_chunk ? request_choice(rq, i)->n_shown : request_choice(rq, i)->n_done;
    usage_begin(w, rq, n_new);
    if (!is_chunk) {
        put_details(w, rq);
        jw_key(w, "completion_tokens_details");
        jw_null(w);
    }
    jw_object_end(w);
}

/* A stream's last: what is null is left out. */
static void put_final_usage(struct json_writer *w, const struct request *rq)
{
    uint64_t n_new = 0;

    for (uint32_t i = 0; i < rq->n_choices; i++)
        n_new += rq->choices[i].n_shown;
    usage_begin(w, rq, n_new);
    if (openai_tells_cached(rq))
        put_details(w, rq);
    jw_object_end(w);
}

void openai_put_finish(struct json_writer *w, const struct choice *c)
{
    switch (c->end) {
    case CHOICE_RUNNING:
        jw_null(w);
        break;
    case CHOICE_EOS:
    case CHOICE_STOP_TOKEN:
    case CHOICE_STOP_STRING:
        jw_str(w, "stop");
        break;
    case CHOICE_LENGTH:
    case CHOICE_TIME:
        jw_str(w, "length");
        break;
    case CHOICE_REPETITION:
        jw_str(w, "repetition");
        break;
    case CHOICE_ABORTED:
    case CHOICE_FAILED:
        jw_str(w, "abort");
        break;
    }
}

/* The stop string, or the id of a stop token; null for the model's first EOS, unless it ends a beam, and for
 * all else. */
void openai_put_stop_reason(struct json_writer *w, const struct choice *c)
{
    const struct request *rq = c->rq;
    int32_t last = c->n_done ? c->seq.tokens[c->n_done - 1] : -1;

    if (c->end == CHOICE_STOP_STRING)
        jw_strn(w, rq->stops.strings[c->stop_which].s, rq->stops.strings[c->stop_which].n);
    else if (c->end == CHOICE_STOP_TOKEN ||
             (c->end == CHOICE_EOS &&
              (rq->beam.width || last != tokenizer_eos_id(rq->service->tokenizer))))
        jw_int(w, last);
    else if (c->end == CHOICE_REPETITION)
        jw_str(w, "repetition_detected");
    else
        jw_null(w);
}

void openai_put_ids(struct json_writer *w, const int32_t *ids, size_t n)
{
    jw_array(w);
    for (size_t i = 0; i < n; i++)
        jw_int(w, ids[i]);
    jw_array_end(w);
}

static void add_token_text(const struct tokenizer *t, int32_t token, struct buf *out)
{
    const char *bytes;
    size_t n = 0;

    bytes = tokenizer_is_special(t, token) ? tokenizer_token_str(t, token, &n)
                                           : tokenizer_token_bytes(t, token, &n);
    buf_add(out, bytes ? bytes : "", n);
}

void openai_token_name(const struct request *rq, int32_t token, struct buf *out)
{
    buf_clear(out);
    if (openai_extra(rq)->logprob_ids)
        buf_printf(out, "token_id:%d", token);
    else
        add_token_text(rq->service->tokenizer, token, out);
}

static void put_prompt_token(struct json_writer *w, const struct choice *c, int32_t token,
                             float logprob, uint32_t rank)
{
    char key[16];
    struct buf text = { 0 };

    add_token_text(c->rq->service->tokenizer, token, &text);
    snprintf(key, sizeof key, "%d", token);
    jw_key(w, key);
    jw_object(w);
    jw_key(w, "logprob");
    jw_float(w, openai_clamp(logprob));
    jw_key(w, "rank");
    jw_uint(w, rank);
    jw_key(w, "decoded_token");
    jw_strn(w, text.data ? text.data : "", text.n);
    jw_object_end(w);
    buf_fini(&text);
}

void openai_put_prompt_logprobs(struct json_writer *w, const struct choice *c)
{
    const struct sequence *s = request_prompt_sequence(c);

    jw_key(w, "prompt_logprobs");
    if (!c->rq->want_prompt_logprobs || s->n_prompt_logprobs == 0) {
        jw_null(w);
        return;
    }
    jw_array(w);
    jw_null(w); /* nothing predicts the first */
    for (uint32_t i = 1; i < s->n_prompt_logprobs; i++) {
        const struct token_top *top = sequence_prompt_top(s, i);
        int32_t token = c->prompt->ids[i];
        jw_object(w);
        put_prompt_token(w, c, token, s->prompt_logprobs[i].logprob, s->prompt_logprobs[i].rank);
        for (uint32_t k = 0; k < s->prompt_logprobs[i].n_top; k++)
            if (top[k].token != token)
                put_prompt_token(w, c, top[k].token, top[k].logprob, k + 1);
        jw_object_end(w);
    }
    jw_array_end(w);
}

float openai_clamp(float logprob)
{
    return logprob > -9999.0f ? logprob : -9999.0f;
}

void openai_whole_begin(struct json_writer *w, struct request *rq, struct reply *r,
                        void (*put_choice)(struct json_writer *w, const struct choice *c))
{
    *w = (struct json_writer){ .out = &r->body };
    reply_set(r, 200, REPLY_JSON);
    jw_object(w);
    openai_put_head(w, rq, false);
    jw_key(w, "choices");
    jw_array(w);
    for (uint32_t i = 0; i < rq->n_choices; i++)
        put_choice(w, request_choice(rq, i));
    jw_array_end(w);
    jw_key(w, "service_tier");
    jw_null(w);
    jw_key(w, "system_fingerprint");
    jw_str(w, rq->service->fingerprint);
    openai_put_usage(w, rq, false);
}

void openai_whole_end(struct json_writer *w)
{
    jw_key(w, "kv_transfer_params");
    jw_null(w);
    jw_key(w, "ec_transfer_params");
    jw_null(w);
    jw_key(w, "metrics");
    jw_null(w);
    jw_object_end(w);
}

void openai_put_prompt_ids(struct json_writer *w, const struct request *rq,
                           const struct prompt *prompt)
{
    jw_key(w, "prompt_token_ids");
    if (openai_extra(rq)->token_ids)
        openai_put_ids(w, prompt->ids, prompt->n_ids);
    else
        jw_null(w);
}

void openai_chunk_begin(struct json_writer *w, struct buf *out, const struct request *rq)
{
    *w = (struct json_writer){ .out = out };
    buf_add_str(out, "data: ");
    jw_object(w);
    openai_put_head(w, rq, true);
}

void openai_chunk_end(struct json_writer *w, struct buf *out)
{
    jw_object_end(w);
    buf_add_str(out, "\n\n");
}

void openai_begin(struct request *rq, struct reply *r)
{
    (void)rq;
    reply_set(r, 200, "text/event-stream; charset=utf-8");
    reply_header(r, "Cache-Control", "no-cache");
    reply_header(r, "X-Accel-Buffering", "no");
}

void openai_end(struct request *rq, struct buf *out)
{
    if (openai_extra(rq)->include_usage) {
        struct json_writer w;
        openai_chunk_begin(&w, out, rq);
        jw_key(&w, "choices");
        jw_array(&w);
        jw_array_end(&w);
        put_final_usage(&w, rq);
        jw_key(&w, "system_fingerprint");
        jw_str(&w, rq->service->fingerprint);
        openai_chunk_end(&w, out);
    }
    buf_add_str(out, "data: [DONE]\n\n");
}

/* ---- errors ---- */

static const struct {
    int status;
    const char *type;
} errors[N_FAULTS] = {
    [FAULT_MEDIA_TYPE] = { 400, "Bad Request" },
    [FAULT_SYNTAX] = { 400, "Bad Request" },
    [FAULT_SCHEMA] = { 400, "Bad Request" },
    [FAULT_INVALID] = { 400, "BadRequestError" },
    [FAULT_UNSUPPORTED] = { 400, "BadRequestError" },
    [FAULT_TEMPLATE] = { 400, "BadRequestError" },
    [FAULT_NO_MODEL] = { 404, "NotFoundError" },
    [FAULT_OVERLOADED] = { 429, "RateLimitError" },
    [FAULT_UNAVAILABLE] = { 503, "ServiceUnavailableError" },
    [FAULT_TIMEOUT] = { 504, "TimeoutError" },
    [FAULT_GENERATION] = { 500, "InternalServerError" },
};

void openai_put_error(struct buf *out, const char *message, const char *type, const char *param,
                      int code, bool with_spaces)
{
    const char *sp = with_spaces ? " " : "";
    struct json_writer w = { .out = out };

    buf_printf(out, "{\"error\":%s{\"message\":%s", sp, sp);
    jw_str(&w, message);
    buf_printf(out, ",%s\"type\":%s\"%s\",%s\"param\":%s", sp, sp, type, sp, sp);
    w.need_comma = false;
    jw_str(&w, param && *param ? param : NULL);
    buf_printf(out, ",%s\"code\":%s%d}}", sp, sp, code);
}

void openai_fault(const struct fault *f, struct reply *r)
{
    reply_set(r, errors[f->kind].status, REPLY_JSON);
    if (f->kind == FAULT_OVERLOADED || f->kind == FAULT_UNAVAILABLE)
        reply_header(r, "Retry-After", "%u", f->retry_after_s);
    openai_put_error(&r->body, f->text, errors[f->kind].type, f->param, errors[f->kind].status,
                     false);
}

void openai_stream_fault(struct request *rq, const struct fault *f, struct buf *out)
{
    (void)rq;
    buf_add_str(out, "data: ");
    openai_put_error(out, f->text, errors[f->kind].type, f->param, errors[f->kind].status, true);
    buf_add_str(out, "\n\ndata: [DONE]\n\n");
}

const char *openai_layer_error(int status, const char *text, struct buf *body)
{
    openai_put_error(body, text, status >= 500 ? "InternalServerError" : "Bad Request", NULL,
                     status, false);
    return REPLY_JSON;
}
