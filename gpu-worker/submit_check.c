/* submit_check.c - the ranges of every field of SUBMIT.  Pure. */
#include "gpu-worker/submit_check.h"

#include <math.h>

#include "gpu-worker/sequence.h"

static bool check_ids(const int32_t *ids, size_t n, const struct submit_limits *limits,
                      const char *what, struct err *e)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= limits->vocab_size)
            return err_set(e, ERR_INPUT, 0, "%s[%zu] is %d, the vocabulary has %u tokens", what, i,
                           ids[i], limits->vocab_size);
    return true;
}

static bool check_range(float value, float min, float max, const char *what, struct err *e)
{
    if (!isfinite(value) || value < min || value > max)
        return err_set(e, ERR_INPUT, 0, "%s is %g, allowed is %g to %g", what, (double)value,
                       (double)min, (double)max);
    return true;
}

static bool check_bias(const Llmd__Sampling *p, const struct submit_limits *limits, struct err *e)
{
    for (size_t i = 0; i < p->n_logit_bias; i++)
        if (!check_ids(&p->logit_bias[i]->token, 1, limits, "logit_bias token", e) ||
            !check_range(p->logit_bias[i]->bias, -100, 100, "logit_bias", e))
            return false;
    return true;
}

static bool check_bad_words(const Llmd__Sampling *p, const struct submit_limits *limits,
                            struct err *e)
{
    for (size_t i = 0; i < p->n_bad_words; i++) {
        if (p->bad_words[i]->n_tokens == 0)
            return err_set(e, ERR_INPUT, 0, "bad_words[%zu] has no token", i);
        if (!check_ids(p->bad_words[i]->tokens, p->bad_words[i]->n_tokens, limits,
                       "bad_words token", e))
            return false;
    }
    return true;
}

/* Named alternatives stand in the place of the likeliest ones. */
static bool check_named_logprobs(const Llmd__Sampling *p, const struct submit_limits *limits,
                                 struct err *e)
{
    if (p->n_logprob_tokens == 0)
        return true;
    if (!p->want_logprobs || p->logprobs_mode != LLMD__LOGPROBS_MODE__LOGPROBS_RAW ||
        p->n_logprob_tokens != p->top_logprobs)
        return err_set(e, ERR_INPUT, 0,
                       "%zu logprob_tokens go with raw log probabilities of as many alternatives, "
                       "not %u",
                       p->n_logprob_tokens, p->top_logprobs);
    return check_ids(p->logprob_tokens, p->n_logprob_tokens, limits, "logprob_tokens", e);
}

static bool check_thinking(const Llmd__Thinking *t, const struct submit_limits *limits,
                           struct err *e)
{
    if (!t)
        return true;
    if (t->n_close == 0)
        return err_set(e, ERR_INPUT, 0, "a thought has no closing mark");
    return check_ids(t->open, t->n_open, limits, "thinking.open", e) &&
           check_ids(t->close, t->n_close, limits, "thinking.close", e);
}

/* 0 is off for the repetition penalty; what is on must keep finite logits finite. */
static bool check_sampling(const Llmd__Sampling *p, const struct submit_limits *limits,
                           struct err *e)
{
    if (p->repetition_penalty != 0 &&
        !check_range(p->repetition_penalty, 1e-3f, 1e3f, "repetition_penalty", e))
        return false;
    if (p->want_logprobs && p->top_logprobs > limits->top_max)
        return err_set(e, ERR_INPUT, 0, "top_logprobs is %u, allowed is 0 to %u", p->top_logprobs,
                       limits->top_max);
    if (p->logprobs_mode != LLMD__LOGPROBS_MODE__LOGPROBS_RAW &&
        p->logprobs_mode != LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED)
        return err_set(e, ERR_INPUT, 0, "logprobs_mode is %d, which is none",
                       (int)p->logprobs_mode);
    return check_range(p->temperature, 0, 1e3f, "temperature", e) &&
           check_range(p->top_p, 0, 1, "top_p", e) && check_range(p->min_p, 0, 1, "min_p", e) &&
           check_range(p->typical_p, 0, 1, "typical_p", e) &&
           check_range(p->presence_penalty, -100, 100, "presence_penalty", e) &&
           check_range(p->frequency_penalty, -100, 100, "frequency_penalty", e) &&
           check_range(p->watermark_gamma, 0, 1, "watermark_gamma", e) &&
           check_range(p->watermark_delta, -100, 100, "watermark_delta", e) &&
           check_ids(p->allowed_tokens, p->n_allowed_tokens, limits, "allowed_tokens", e) &&
           check_bias(p, limits, e) && check_bad_words(p, limits, e) &&
           check_named_logprobs(p, limits, e) && check_thinking(p->thinking, limits, e);
}

/* What is wanted of the prompt itself. */
static bool check_prompt(const Llmd__Submit *s, const struct submit_limits *limits, struct err *e)
{
    bool is_pooled = s->pooling != LLMD__POOLING__POOL_NONE;

    if (s->want_prompt_logprobs && s->prompt_top_logprobs > limits->top_max)
        return err_set(e, ERR_INPUT, 0, "prompt_top_logprobs is %u, allowed is 0 to %u",
                       s->prompt_top_logprobs, limits->top_max);
    if (is_pooled && s->pooling != LLMD__POOLING__POOL_MEAN &&
        s->pooling != LLMD__POOLING__POOL_LAST)
        return err_set(e, ERR_INPUT, 0, "pooling is %d, which is none", (int)s->pooling);
    if (is_pooled && (s->max_tokens > 0 || s->want_prompt_logprobs))
        return err_set(
            e, ERR_INPUT, 0,
            "pooling gives an embedding alone: max_tokens is %u, it must be 0, and no log "
            "probabilities can be had",
            s->max_tokens);
    if (is_pooled && limits->hidden_size > limits->embedding_max)
        return err_set(e, ERR_INPUT, 0, "embeddings of %u numbers, at most %u can be kept",
                       limits->hidden_size, limits->embedding_max);
    return true;
}

static bool check_lengths(const Llmd__Submit *s, const struct submit_limits *limits,
                          Llmd__RefuseReason *reason, struct err *e)
{
    bool reads_only = s->want_prompt_logprobs || s->pooling != LLMD__POOLING__POOL_NONE;
    uint32_t room = limits->context_max - (s->max_tokens > 0);

    if (s->n_prompt == 0)
        return err_set(e, ERR_INPUT, 0, "the prompt is empty");
    if (s->n_prompt > room || s->n_generated > limits->context_max - s->n_prompt) {
        *reason = LLMD__REFUSE_REASON__REFUSE_TOO_LONG;
        return err_set(e, ERR_INPUT, 0,
                       "the prompt has %zu tokens and %zu were generated; with at least one more "
                       "they do not fit the context of %u",
                       s->n_prompt, s->n_generated, limits->context_max);
    }
    if (s->max_tokens == 0 && !reads_only)
        return err_set(e, ERR_INPUT, 0, "max_tokens is 0, it must be at least 1");
    if (s->min_tokens > s->max_tokens)
        return err_set(e, ERR_INPUT, 0, "min_tokens is %u, more than max_tokens %u", s->min_tokens,
                       s->max_tokens);
    if (s->n_generated_logprobs > 0 && s->n_generated_logprobs != s->n_generated)
        return err_set(e, ERR_INPUT, 0, "%zu tokens were generated, with %zu log probabilities",
                       s->n_generated, s->n_generated_logprobs);
    if (s->n_generated > s->max_tokens)
        return err_set(e, ERR_INPUT, 0, "%zu tokens were generated, more than max_tokens %u",
                       s->n_generated, s->max_tokens);
    if (sequence_request_bytes(s) > limits->request_bytes_max)
        return err_set(e, ERR_INPUT, 0, "settings of %zu bytes, at most %u can be kept",
                       sequence_request_bytes(s), limits->request_bytes_max);
    return true;
}

bool submit_check(const Llmd__Submit *s, const struct submit_limits *limits,
                  Llmd__RefuseReason *reason, struct err *e)
{
    *reason = LLMD__REFUSE_REASON__REFUSE_INVALID;
    if (s->sequence_id == 0)
        return err_set(e, ERR_INPUT, 0, "sequence_id is 0");
    if (!s->sampling)
        return err_set(e, ERR_INPUT, 0, "sampling is missing");
    return check_lengths(s, limits, reason, e) && check_prompt(s, limits, e) &&
           check_ids(s->prompt, s->n_prompt, limits, "prompt", e) &&
           check_ids(s->generated, s->n_generated, limits, "generated", e) &&
           check_ids(s->stop_tokens, s->n_stop_tokens, limits, "stop_tokens", e) &&
           check_sampling(s->sampling, limits, e);
}
