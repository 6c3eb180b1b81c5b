/* request.c - what all dialects do to a request alike: prompts, stops, choices. */
#include "gateway/request.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/clock.h"
#include "proto/connections_layout.h"
#include "text/token_list.h"

/* A worker keeps a deadline by itself, and would end what the gateway is about to show. */
#define CUT_GRACE_NS (5 * NS_PER_S)

uint64_t request_random(void)
{
    uint64_t bits;

    if (getrandom(&bits, sizeof bits, 0) != (ssize_t)sizeof bits)
        abort(); /* up to 256 bytes never fail once the kernel has booted */
    return bits;
}

/* SplitMix64 (Steele, Lea, Flood 2014) of the k-th step; the first draw is the seed as given. */
uint64_t request_choice_seed(uint64_t seed, uint32_t k)
{
    uint64_t z = seed + (uint64_t)k * 0x9e3779b97f4a7c15u;

    if (k == 0)
        return seed;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) & INT64_MAX; /* fits the signed seeds of JSON readers */
}

void request_init(struct request *rq, struct service *service, const struct dialect *dialect,
                  int variant)
{
    *rq = (struct request){
        .service = service,
        .dialect = dialect,
        .variant = variant,
        .n = 1,
        .event_tokens = 1,
        .started_ns = clock_mono_ns(),
        .max_model_len = service_max_model_len(service),
        .answer_id = request_random(),
        .created_s = (int64_t)(clock_wall_ns() / NS_PER_S),
    };
    llmd__sampling__init(&rq->sampling);
    rq->sampling.seed = request_random() & INT64_MAX;
    rq->sampling.temperature = 1;
}

void request_fini(struct request *rq)
{
    for (uint32_t i = 0; i < rq->n_candidates; i++)
        choice_fini(&rq->choices[i]);
    arena_fini(&rq->arena);
}

bool request_set_prompts(struct request *rq, size_t n, struct fault *f)
{
    if (n == 0 || n > REQUEST_SEQUENCES_MAX)
        return fault_set(f, FAULT_INVALID, "prompt", "a request has 1 to %d prompts, not %zu",
                         REQUEST_SEQUENCES_MAX, n);
    rq->prompts = arena_alloc(&rq->arena, n * sizeof *rq->prompts);
    rq->n_prompts = (uint32_t)n;
    return true;
}

bool request_tokenize(struct request *rq, size_t i, const char *text, size_t n, unsigned flags,
                      struct fault *f)
{
    struct token_list ids = { 0 };
    struct prompt *p = &rq->prompts[i];
    struct err e;

    assert(i < rq->n_prompts);
    p->text = arena_strndup(&rq->arena, text, n);
    p->text_bytes = n;
    if (!tokenizer_encode(rq->service->tokenizer, text, n, flags, &ids, &e))
        return fault_set(f, FAULT_INVALID, "prompt", "tokenizer error %s", e.msg);
    p->ids = arena_alloc(&rq->arena, ids.n * sizeof *p->ids);
    p->n_ids = (uint32_t)ids.n;
    if (ids.n)
        memcpy(p->ids, ids.ids, ids.n * sizeof *p->ids);
    token_list_fini(&ids);
    return true;
}

void request_truncate(struct request *rq, size_t i, uint32_t n_tokens)
{
    struct prompt *p = &rq->prompts[i];

    if (p->n_ids <= n_tokens)
        return;
    p->ids += p->n_ids - n_tokens;
    p->n_ids = n_tokens;
}

static struct stop_string copy_stop(struct request *rq, const json_t *v)
{
    size_t n = json_string_length(v);

    return (struct stop_string){ .s = arena_strndup(&rq->arena, json_string_value(v), n), .n = n };
}

void request_set_stops(struct request *rq, const json_t *strings)
{
    size_t n = json_is_array(strings) ? json_array_size(strings) : 1;
    struct stop_string *stops = arena_alloc(&rq->arena, n * sizeof *stops);

    for (size_t i = 0; i < n; i++)
        stops[i] = copy_stop(rq, json_is_array(strings) ? json_array_get(strings, i) : strings);
    stop_set_init(&rq->stops, stops, n);
}

uint64_t request_worker_deadline_ns(const struct request *rq)
{
    return rq->deadline_ns + (rq->cuts_at_deadline ? CUT_GRACE_NS : 0);
}

static void fill_submit(struct request *rq, struct choice *c, uint32_t k)
{
    Llmd__Submit *submit = &c->seq.submit;
    uint32_t max_tokens = c->prompt->max_tokens ? c->prompt->max_tokens : rq->max_tokens;
    uint64_t seed = c->prompt->has_seed ? c->prompt->seed : rq->sampling.seed;
    uint32_t room = rq->max_model_len;

    room = c->prompt->n_ids < room ? room - c->prompt->n_ids : 1;
    submit->prompt = c->prompt->ids;
    submit->n_prompt = c->prompt->n_ids;
    submit->max_tokens = max_tokens && max_tokens < room ? max_tokens : room;
    if (rq->needs_no_generation || rq->pooling)
        submit->max_tokens = 0;
    submit->pooling = rq->pooling;
    submit->min_tokens = rq->min_tokens;
    submit->ignore_eos = rq->ignore_eos;
    submit->want_prompt_logprobs = rq->want_prompt_logprobs && (k == 0 || rq->needs_no_generation);
    submit->prompt_top_logprobs = rq->prompt_top_logprobs;
    submit->stop_tokens = (int32_t *)(uintptr_t)rq->stop_tokens; /* only read */
    submit->n_stop_tokens = rq->n_stop_tokens;
    submit->priority = rq->priority;
    submit->cache_salt = rq->cache_salt;
    c->seq.sampling = rq->sampling;
    c->seq.sampling.thinking = c->prompt->thinking;
    c->seq.sampling.seed = request_choice_seed(seed, k);
    c->seq.deadline_ns = request_worker_deadline_ns(rq);
}

static uint32_t candidates_of_prompt(const struct request *rq)
{
    return rq->best_of > rq->n ? rq->best_of : rq->n;
}

/* Until they are chosen, the first n of each prompt stand for its choices. */
static void show_first(struct request *rq, uint32_t n_of_prompt)
{
    rq->n_choices = rq->n_prompts * rq->n;
    rq->shown = arena_alloc(&rq->arena, rq->n_choices * sizeof *rq->shown);
    for (uint32_t i = 0; i < rq->n_choices; i++)
        rq->shown[i] = i / rq->n * n_of_prompt + i % rq->n;
}

bool request_make_choices(struct request *rq, struct fault *f)
{
    uint32_t n_of_prompt = candidates_of_prompt(rq);
    uint64_t n = (uint64_t)rq->n_prompts * n_of_prompt;
    uint64_t n_live = rq->beam.width ? (uint64_t)rq->n_prompts * rq->beam.width : n;
    int max = rq->beam.width ? CONNECTION_SEQUENCES_MAX : REQUEST_SEQUENCES_MAX;

    if (n_live > (uint64_t)max)
        return fault_set(f, FAULT_INVALID, "n", "prompts times n must be at most %d, got %llu", max,
                         (unsigned long long)n_live);
    if (n_of_prompt > rq->n)
        rq->sampling.want_logprobs = true;
    rq->choices = arena_alloc(&rq->arena, n * sizeof *rq->choices);
    rq->n_candidates = (uint32_t)n;
    for (uint32_t i = 0; i < n; i++) {
        choice_init(&rq->choices[i], rq, &rq->prompts[i / n_of_prompt], i);
        fill_submit(rq, &rq->choices[i], i % n_of_prompt);
    }
    show_first(rq, n_of_prompt);
    return true;
}

/* ---- the best of several ---- */

static double score(const struct choice *c)
{
    double sum = 0;

    for (uint32_t i = 0; i < c->n_done; i++)
        sum += (double)c->seq.logprobs[i].logprob;
    if (c->n_done == 0) /* cut off before it had a token */
        return -INFINITY;
    return c->rq->best_rule == BEST_BY_SUM ? sum : sum / c->n_done;
}

/* Insert candidate i into shown[0..n), best first; the one that falls out at the end is forgotten. */
static void rank_candidate(const struct request *rq, uint32_t *shown, double *scores, uint32_t n,
                           uint32_t i)
{
    double s = score(&rq->choices[i]);
    uint32_t at = n;

    while (at > 0 && s > scores[at - 1])
        at--;
    if (at == rq->n)
        return;
    for (uint32_t k = n < rq->n ? n : rq->n - 1; k > at; k--) {
        shown[k] = shown[k - 1];
        scores[k] = scores[k - 1];
    }
    shown[at] = i;
    scores[at] = s;
}

void request_choose(struct request *rq)
{
    uint32_t n_of_prompt = candidates_of_prompt(rq);
    double *scores;

    if (rq->n_candidates == rq->n_choices)
        return;
    scores = arena_alloc(&rq->arena, rq->n * sizeof *scores);
    for (uint32_t p = 0; p < rq->n_prompts; p++)
        for (uint32_t i = 0; i < n_of_prompt; i++)
            rank_candidate(rq, rq->shown + p * rq->n, scores, i < rq->n ? i : rq->n,
                           p * n_of_prompt + i);
    for (uint32_t i = 0; i < rq->n_choices; i++)
        request_choice(rq, i)->index = i;
}

const struct sequence *request_prompt_sequence(const struct choice *c)
{
    const struct request *rq = c->rq;

    return &rq->choices[(uint32_t)(c->prompt - rq->prompts) * candidates_of_prompt(rq)].seq;
}

uint64_t request_prompt_tokens(const struct request *rq)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < rq->n_prompts; i++)
        sum += rq->prompts[i].n_ids;
    return sum;
}

uint32_t request_cached_tokens(const struct request *rq)
{
    uint32_t sum = 0;

    for (uint32_t p = 0; p < rq->n_prompts; p++)
        sum += rq->choices[p * candidates_of_prompt(rq)].seq.cached_tokens;
    return sum;
}

uint64_t request_generated_tokens(const struct request *rq)
{
    uint64_t sum = 0;

    for (uint32_t i = 0; i < rq->n_candidates; i++)
        sum += rq->choices[i].n_done;
    return sum;
}
