/* account.c - histograms of finished requests. */
#include "gateway/admission/account.h"

static void observe(struct stats *stats, enum hist_id h, uint64_t from_ns, uint64_t to_ns)
{
    hist_observe(stats, h, to_ns > from_ns ? (double)(to_ns - from_ns) / 1e9 : 0);
}

static uint64_t last_token_ns(const struct request *rq)
{
    uint64_t last_ns = 0;

    for (uint32_t i = 0; i < rq->n_candidates; i++)
        if (rq->choices[i].seq.last_token_ns > last_ns)
            last_ns = rq->choices[i].seq.last_token_ns;
    return last_ns;
}

static uint32_t longest(const struct request *rq)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < rq->n_candidates; i++)
        if (rq->choices[i].n_done > n)
            n = rq->choices[i].n_done;
    return n;
}

/* Candidates of one prompt stand together; what the first of them found, the prompt found. */
static uint64_t cached_tokens(const struct request *rq)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < rq->n_candidates; i++)
        if (i == 0 || rq->choices[i].prompt != rq->choices[i - 1].prompt)
            n += rq->choices[i].seq.cached_tokens;
    return n;
}

static bool has_end(const struct request *rq, enum choice_end end)
{
    for (uint32_t i = 0; i < rq->n_choices; i++)
        if (request_choice(rq, i)->end == end)
            return true;
    return false;
}

void account_parts(struct stats *stats, const struct request *rq, uint64_t went_ns,
                   uint64_t first_token_ns)
{
    uint64_t n_prompt = request_prompt_tokens(rq), n_cached = cached_tokens(rq);
    uint64_t queue_ns = rq->choices[0].seq.queue_ns; /* with its group */
    uint64_t last_ns = last_token_ns(rq), scheduled_ns = went_ns + queue_ns;
    uint32_t n = longest(rq);

    if (has_end(rq, CHOICE_REPETITION) && !has_end(rq, CHOICE_LENGTH) && !has_end(rq, CHOICE_TIME))
        stat_add(stats, STAT_requests_finished_repetition, 1);
    if (rq->dialect->count)
        rq->dialect->count(rq, stats);
    hist_observe(stats, HIST_request_longest_tokens, n);
    hist_observe(stats, HIST_request_computed_tokens,
                 n_prompt > n_cached ? (double)(n_prompt - n_cached) : 0);
    if (first_token_ns == 0)
        return;
    /* two processes' times, of which one may have been kept from noting its own: the parts fit all the same */
    scheduled_ns = scheduled_ns < first_token_ns ? scheduled_ns : first_token_ns;
    observe(stats, HIST_request_queue_seconds, rq->validated_ns, scheduled_ns);
    observe(stats, HIST_request_prefill_seconds, scheduled_ns, first_token_ns);
    observe(stats, HIST_request_decode_seconds, first_token_ns, last_ns);
    observe(stats, HIST_request_inference_seconds, scheduled_ns, last_ns);
    if (n > 1)
        observe(stats, HIST_request_time_per_token_seconds, 0,
                last_ns > first_token_ns ? (last_ns - first_token_ns) / (n - 1) : 0);
}
