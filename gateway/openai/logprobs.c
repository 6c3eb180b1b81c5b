/* logprobs.c - which log probabilities are wanted, and the list of them that chats and responses show. */
#include "gateway/openai/openai.h"

enum { NAMED_MAX = 128 }; /* the ledger has room for so many in any case */

/* ---- parse ---- */

static uint32_t most(const struct request *rq)
{
    uint32_t max = atomic_load(&rq->service->logprobs_max),
             vocabulary = rq->service->model.vocab_size;

    return max < vocabulary ? max : vocabulary;
}

bool openai_apply_prompt_logprobs(struct request *rq, const struct openai_params *p,
                                  struct fault *f)
{
    int64_t n = p->prompt_logprobs.i;

    if (!p->prompt_logprobs.is_set)
        return true;
    if (rq->is_stream && (n > 0 || n == -1))
        return fault_set(f, FAULT_INVALID, "prompt_logprobs",
                         "`prompt_logprobs` are not available when `stream=True`.");
    if (n < -1)
        return fault_set(f, FAULT_INVALID, "prompt_logprobs",
                         "`prompt_logprobs` must be a positive value or -1.");
    if (n == -1) /* of the whole vocabulary */
        n = rq->service->model.vocab_size;
    if (n > most(rq))
        return openai_invalid(f, "prompt_logprobs", (double)n,
                              "Requested prompt logprobs of %lld, which is greater than max "
                              "allowed: %u",
                              (long long)n, most(rq));
    rq->want_prompt_logprobs = true;
    rq->prompt_top_logprobs = (uint32_t)n;
    return true;
}

/* Alternatives that the client names, in the place of the likeliest. */
static bool apply_named(struct request *rq, const json_t *list, struct fault *f)
{
    size_t n = json_array_size(list);
    int32_t *ids = arena_alloc(&rq->arena, n * sizeof *ids);

    if (n > NAMED_MAX)
        return openai_invalid(f, "logprob_token_ids", (double)n,
                              "Requested logprob_token_ids of length %zu, which is greater than "
                              "max allowed: %d",
                              n, NAMED_MAX);
    if (rq->beam.width)
        return fault_set(f, FAULT_INVALID, "logprob_token_ids",
                         "logprob_token_ids is not supported with beam search");
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_integer(v) || !openai_has_token(rq, json_integer_value(v)))
            return fault_set(f, FAULT_INVALID, "logprob_token_ids",
                             "logprob_token_ids contains out-of-vocab token id!");
        ids[i] = (int32_t)json_integer_value(v);
    }
    rq->sampling.logprob_tokens = ids;
    rq->sampling.n_logprob_tokens = n;
    rq->sampling.top_logprobs = (uint32_t)n;
    openai_extra(rq)->top_logprobs = (uint32_t)n;
    return true;
}

static bool apply_likeliest(struct request *rq, int64_t n_top, struct fault *f)
{
    if (n_top == -1) /* of the whole vocabulary */
        n_top = rq->service->model.vocab_size;
    if (n_top > most(rq))
        return openai_invalid(f, "logprobs", (double)n_top,
                              "Requested sample logprobs of %lld, which is greater than max "
                              "allowed: %u",
                              (long long)n_top, most(rq));
    rq->sampling.top_logprobs = (uint32_t)n_top;
    openai_extra(rq)->top_logprobs = (uint32_t)n_top;
    return true;
}

bool openai_apply_logprobs(struct request *rq, const struct openai_params *p, bool are_wanted,
                           int64_t n_top, struct fault *f)
{
    const json_t *named = p->logprob_token_ids.json;

    if (!are_wanted && json_array_size(named) > 0)
        return fault_set(f, FAULT_INVALID, "logprob_token_ids",
                         "when using `logprob_token_ids`, `logprobs` must be set.");
    if (!are_wanted)
        return true;
    openai_extra(rq)->want_logprobs = true;
    rq->sampling.want_logprobs = true;
    rq->sampling.logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    return json_array_size(named) > 0 ? apply_named(rq, named, f) : apply_likeliest(rq, n_top, f);
}

/* ---- answer ---- */

static void put_token(struct json_writer *w, const struct request *rq, int32_t token, float logprob)
{
    struct buf name = { 0 };

    openai_token_name(rq, token, &name);
    jw_key(w, "token");
    jw_strn(w, name.data ? name.data : "", name.n);
    jw_key(w, "logprob");
    jw_float(w, openai_clamp(logprob));
    jw_key(w, "bytes");
    jw_array(w);
    for (size_t i = 0; i < name.n; i++)
        jw_uint(w, (unsigned char)name.data[i]);
    jw_array_end(w);
    buf_fini(&name);
}

void openai_put_token_logprobs(struct json_writer *w, const struct choice *c, uint32_t from,
                               uint32_t to)
{
    jw_array(w);
    for (uint32_t i = from; i < to; i++) {
        const struct token_top *top = sequence_top(&c->seq, i);
        jw_object(w);
        put_token(w, c->rq, c->seq.tokens[i], c->seq.logprobs[i].logprob);
        jw_key(w, "top_logprobs");
        jw_array(w);
        for (uint32_t k = 0; k < c->seq.logprobs[i].n_top; k++) {
            jw_object(w);
            put_token(w, c->rq, top[k].token, top[k].logprob);
            jw_object_end(w);
        }
        jw_array_end(w);
        jw_object_end(w);
    }
    jw_array_end(w);
}
