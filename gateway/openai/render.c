/* render.c - /v1/completions/render and /v1/chat/completions/render: what would be generated from, and how.
 *
 * A request is read as its route would read it, template and tokenizer included, and then told instead of being
 * computed: token ids and sampling parameters, the form in which vLLM's /inference/v1/generate takes them.  One object
 * for a chat, a list of one for each prompt of completions. */
#include <inttypes.h>

#include "gateway/net/http_request.h"
#include "gateway/openai/openai.h"
#include "gateway/pages.h"

static void put_number(struct json_writer *w, const char *key, double value)
{
    jw_key(w, key);
    jw_double(w, value);
}

static void put_count(struct json_writer *w, const char *key, uint64_t value)
{
    jw_key(w, key);
    jw_uint(w, value);
}

static void put_flag(struct json_writer *w, const char *key, bool value)
{
    jw_key(w, key);
    jw_bool(w, value);
}

/* A filter that is off is 0 to the worker, and 1 in the language of requests. */
static double share(float value)
{
    return value > 0 ? (double)value : 1;
}

static void put_stops(struct json_writer *w, const struct request *rq)
{
    jw_key(w, "stop");
    jw_array(w);
    for (size_t i = 0; i < rq->stops.n; i++)
        jw_strn(w, rq->stops.strings[i].s, rq->stops.strings[i].n);
    jw_array_end(w);
    jw_key(w, "stop_token_ids");
    openai_put_ids(w, rq->stop_tokens, rq->n_stop_tokens);
}

static void put_logprobs(struct json_writer *w, const char *key, bool are_wanted, uint32_t n_top)
{
    jw_key(w, key);
    if (are_wanted)
        jw_uint(w, n_top);
    else
        jw_null(w);
}

static void put_sampling(struct json_writer *w, const struct request *rq, const struct choice *c)
{
    const Llmd__Sampling *s = &c->seq.sampling;

    jw_key(w, "sampling_params");
    jw_object(w);
    put_count(w, "n", rq->n);
    put_number(w, "temperature", (double)s->temperature);
    put_number(w, "top_p", share(s->top_p));
    put_count(w, "top_k", s->top_k);
    put_number(w, "min_p", (double)s->min_p);
    put_number(w, "presence_penalty", (double)s->presence_penalty);
    put_number(w, "frequency_penalty", (double)s->frequency_penalty);
    put_number(w, "repetition_penalty", share(s->repetition_penalty));
    put_count(w, "seed", s->seed);
    put_stops(w, rq);
    put_flag(w, "include_stop_str_in_output", rq->keeps_stop);
    put_flag(w, "ignore_eos", rq->ignore_eos);
    put_count(w, "max_tokens", c->seq.submit.max_tokens);
    put_count(w, "min_tokens", rq->min_tokens);
    put_logprobs(w, "logprobs", openai_extra(rq)->want_logprobs, openai_extra(rq)->top_logprobs);
    put_logprobs(w, "prompt_logprobs", rq->want_prompt_logprobs, rq->prompt_top_logprobs);
    put_flag(w, "skip_special_tokens", !rq->shows_special_tokens);
    jw_object_end(w);
}

/* The parameters of the prompt's first sequence stand for all. */
static void put_prompt(struct json_writer *w, const struct request *rq, uint32_t i)
{
    const struct choice *c = &rq->choices[i * (rq->n_candidates / rq->n_prompts)];

    jw_object(w);
    openai_put_id(w, rq, "request_id");
    jw_key(w, "token_ids");
    openai_put_ids(w, c->prompt->ids, c->prompt->n_ids);
    jw_key(w, "features");
    jw_null(w);
    put_sampling(w, rq, c);
    jw_key(w, "model");
    jw_str(w, rq->service->model_name);
    put_flag(w, "stream", rq->is_stream);
    jw_key(w, "priority");
    jw_int(w, rq->priority);
    jw_key(w, "kv_transfer_params");
    jw_null(w);
    jw_object_end(w);
}

static void put_request(struct request *rq, bool is_list, struct reply *r)
{
    struct json_writer w = { .out = &r->body };

    reply_set(r, 200, REPLY_JSON);
    if (is_list)
        jw_array(&w);
    for (uint32_t i = 0; i < rq->n_prompts; i++)
        put_prompt(&w, rq, i);
    if (is_list)
        jw_array_end(&w);
}

void openai_render_page(struct service *s, const struct dialect *dialect, const char *type,
                        const char *bytes, size_t n, struct reply *r)
{
    struct request rq;
    struct fault f;

    request_init(&rq, s, dialect, 0);
    if (dialect->takes(type, &f) && dialect->parse(&rq, NULL, bytes, n, &f) &&
        request_make_choices(&rq, &f))
        put_request(&rq, dialect == &dialect_openai_completions, r);
    else
        dialect->fault(&f, r);
    request_fini(&rq);
}

static void render(struct service *s, const struct dialect *dialect,
                   const struct http_request *http, struct reply *r)
{
    const char *bytes;
    size_t n;

    bytes = http_request_body(http, &n);
    openai_render_page(s, dialect, http_request_header(http, "Content-Type"), bytes, n, r);
}

void page_render_chat(struct service *s, const struct http_request *http, struct reply *r)
{
    render(s, &dialect_openai_chat, http, r);
}

void page_render_completions(struct service *s, const struct http_request *http, struct reply *r)
{
    render(s, &dialect_openai_completions, http, r);
}
