/* arrival.c - see arrival.h. */
#include "gateway/answer/arrival.h"

#include "common/clock.h"

/* An end that may come before everything else has. */
static bool is_broken_off(const Llmd__SequenceTokens *m)
{
    return m->finish == LLMD__FINISH__FINISH_ERROR || m->finish == LLMD__FINISH__FINISH_DEADLINE ||
           m->finish == LLMD__FINISH__FINISH_CANCELLED;
}

/* What a message says of the prompt, in order and before any token.  False: some of it is missing before this
 * message, so it cannot be taken. */
static bool take_prompt(struct sequence *s, const Llmd__SequenceTokens *m)
{
    bool goes_on = m->n_tokens > 0 || m->finish != LLMD__FINISH__FINISH_NONE;

    if (m->n_prompt_logprobs > 0 && m->prompt_index <= s->n_prompt_logprobs)
        sequence_append_prompt(s, m);
    return m->prompt_index <= s->n_prompt_logprobs &&
           (!goes_on || is_broken_off(m) || !sequence_awaits_prompt(s));
}

static void observe(struct sequence *s, uint32_t n_new, struct stats *stats)
{
    uint64_t now_ns = clock_mono_ns();

    if (s->first_token_ns == 0)
        s->first_token_ns = now_ns;
    else
        hist_observe(stats, HIST_inter_token_latency_seconds,
                     (double)(now_ns - s->last_token_ns) / 1e9);
    s->last_token_ns = now_ns;
    stat_add(stats, STAT_gateway_generated_tokens, n_new);
}

/* Appends what is new.  False: tokens before these are missing, so none can be taken. */
static bool take_tokens(struct sequence *s, const Llmd__SequenceTokens *m, struct stats *stats)
{
    uint32_t n = (uint32_t)m->n_tokens;
    uint32_t known;

    if (m->index > s->n_tokens)
        return false;
    known = s->n_tokens - m->index < n ? s->n_tokens - m->index : n;
    stat_add(stats, STAT_duplicate_tokens_dropped, known);
    if (m->index == 0 && s->n_tokens == 0 && (n > 0 || m->finish != LLMD__FINISH__FINISH_NONE)) {
        s->queue_ns = m->queue_ns;
        s->cached_tokens = m->cached_tokens;
    }
    if (known < n) {
        sequence_append(s, m, known);
        observe(s, n - known, stats);
    }
    return true;
}

bool arrival_take(struct sequence *s, const Llmd__SequenceTokens *m, struct stats *stats)
{
    return take_prompt(s, m) && take_tokens(s, m, stats);
}

static void take_embedding(struct sequence *s, const Llmd__SequenceTokens *m)
{
    if (m->n_embedding > 0)
        sequence_set_embedding(s, m->embedding, m->n_embedding);
    else
        fault_set(&s->fault, FAULT_GENERATION, "", "the worker gave no embedding");
}

void arrival_finish(struct sequence *s, const Llmd__SequenceTokens *m)
{
    s->finish = m->finish;
    if (m->finish == LLMD__FINISH__FINISH_ERROR)
        fault_set(&s->fault, FAULT_GENERATION, "", "%s",
                  *m->error ? m->error : "the worker gave no reason");
    else if (m->finish == LLMD__FINISH__FINISH_DEADLINE)
        fault_set(&s->fault, FAULT_TIMEOUT, "", "the request's deadline has passed");
    else if (m->finish == LLMD__FINISH__FINISH_EMBEDDED)
        take_embedding(s, m);
}
