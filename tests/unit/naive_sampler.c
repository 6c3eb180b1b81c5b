/* naive_sampler.c - see naive_sampler.h. */
#include "naive_sampler.h"

#include <math.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/philox.h"

#define CLOSE 2e-6

struct entry {
    uint32_t id;
    double x, p, distance;
    bool kept;
};

static int by_weight(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->x != y->x)
        return x->x > y->x ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static int by_distance(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    if (x->distance != y->distance)
        return x->distance < y->distance ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;

    return x->id < y->id ? -1 : x->id > y->id;
}

static uint32_t count_in(const int32_t *ids, uint32_t n, int32_t id)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < n; i++)
        found += ids[i] == id;
    return found;
}

/* Bias and penalties in float, one operation after the other, as the contract has them. */
static float changed_logit(const struct sampler_input *in, int32_t id)
{
    const Llmd__Sampling *p = in->sampling;
    uint32_t n_all = in->n_prompt + in->n_generated;
    uint32_t n_output = count_in(in->tokens + in->n_prompt, in->n_generated, id);
    uint32_t n_seen = p->frequency_is_share ? count_in(in->tokens, n_all, id) : n_output;
    float each = p->frequency_is_share ? p->frequency_penalty / (float)n_all : p->frequency_penalty;
    float x = in->logits[id];

    for (size_t i = 0; i < p->n_logit_bias; i++)
        if (p->logit_bias[i]->token == id)
            x += p->logit_bias[i]->bias;
    if (p->repetition_penalty > 0 && count_in(in->tokens, n_all, id) > 0)
        x = x > 0 ? x / p->repetition_penalty : x * p->repetition_penalty;
    if (n_seen > 0) {
        x -= each * (float)n_seen;
        x -= p->presence_penalty;
    }
    for (int m = 0; m < 2; m++)
        if (count_in(in->masked[m].ids, (uint32_t)in->masked[m].n, id) > 0)
            x = -INFINITY;
    return x;
}

static double mass_of(const struct entry *e, uint32_t n)
{
    double sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += e[i].p;
    return sum;
}

/* Length of the shortest prefix with `fraction` of the mass; *is_close when rounding could move it. */
static uint32_t prefix_with(const struct entry *e, uint32_t n, double fraction, bool *is_close)
{
    double total = mass_of(e, n), seen = 0;

    for (uint32_t i = 0; i < n; i++) {
        seen += e[i].p;
        if (fabs(seen / total - fraction) < CLOSE)
            *is_close = true;
        if (seen / total >= fraction)
            return i + 1;
    }
    return n;
}

static uint32_t typical(struct entry *e, uint32_t n, double fraction, bool *is_close)
{
    double total = mass_of(e, n), entropy = 0;
    uint32_t keep;

    for (uint32_t i = 0; i < n; i++)
        if (e[i].p > 0)
            entropy -= e[i].p / total * log(e[i].p / total);
    for (uint32_t i = 0; i < n; i++)
        e[i].distance = e[i].p > 0 ? fabs(-log(e[i].p / total) - entropy) : INFINITY;
    qsort(e, n, sizeof *e, by_distance);
    keep = prefix_with(e, n, fraction, is_close);
    /* nearly the same distance on both sides of the cut, above and below the entropy */
    for (uint32_t i = 1; i < n; i++)
        if (i + 2 > keep && i < keep + 2 && e[i].distance - e[i - 1].distance < CLOSE &&
            e[i].x != e[i - 1].x)
            *is_close = true;
    return keep;
}

static uint32_t filter(struct entry *e, uint32_t n, const Llmd__Sampling *p, bool *is_close)
{
    if (p->top_k > 0 && p->top_k < n)
        n = p->top_k;
    if (p->top_p > 0 && p->top_p < 1)
        n = prefix_with(e, n, (double)p->top_p, is_close);
    if (p->min_p > 0) {
        for (uint32_t i = 0; i < n; i++)
            if (fabs(e[i].p / e[0].p - (double)p->min_p) < CLOSE)
                *is_close = true;
        while (e[n - 1].p < (double)p->min_p * e[0].p)
            n--;
    }
    if (p->typical_p > 0 && p->typical_p < 1)
        n = typical(e, n, (double)p->typical_p, is_close);
    return n;
}

static uint32_t pick(const struct entry *e, uint32_t n, double u, bool *is_close)
{
    double total = mass_of(e, n), seen = 0;
    uint32_t found = n;

    for (uint32_t i = 0; i < n; i++) {
        seen += e[i].p / total;
        if (fabs(seen - u) < CLOSE)
            *is_close = true;
        if (u < seen && found == n)
            found = i;
    }
    return found == n ? n - 1 : found;
}

static void measure_raw(struct naive_result *r, const struct sampler_input *in, uint32_t n)
{
    double mine = (double)in->logits[r->token], sum = 0;

    r->rank = 1;
    for (uint32_t i = 0; i < n; i++) {
        sum += exp((double)in->logits[i] - mine);
        r->rank += in->logits[i] > in->logits[r->token] ||
                   (in->logits[i] == in->logits[r->token] && (int32_t)i < r->token);
    }
    r->logprob = -log(sum);
}

struct naive_result naive_draw(const struct sampler_input *in, uint32_t vocab_size)
{
    const Llmd__Sampling *p = in->sampling;
    bool greedy = p->temperature < SAMPLER_TEMPERATURE_MIN;
    struct entry *e = mem_zalloc(vocab_size, sizeof *e);
    struct naive_result r = { 0 };
    uint32_t n = vocab_size, chosen = 0;

    for (uint32_t i = 0; i < n; i++)
        e[i] = (struct entry){ .id = i, .x = (double)changed_logit(in, (int32_t)i) };
    qsort(e, n, sizeof *e, by_weight);
    for (uint32_t i = n; i-- > 0;)
        e[i].p = exp((e[i].x - e[0].x) / (greedy ? 1.0 : (double)p->temperature));
    if (!greedy) {
        n = filter(e, n, p, &r.is_close);
        qsort(e, n, sizeof *e, by_id);
        chosen = pick(e, n, philox_uniform(p->seed, in->n_generated), &r.is_close);
    }
    r.token = (int32_t)e[chosen].id;
    r.logprob = log(e[chosen].p / mass_of(e, n));
    r.rank = 1;
    for (uint32_t i = 0; i < n; i++)
        r.rank += e[i].x > e[chosen].x || (e[i].x == e[chosen].x && e[i].id < e[chosen].id);
    if (p->logprobs_mode == LLMD__LOGPROBS_MODE__LOGPROBS_RAW)
        measure_raw(&r, in, vocab_size);
    free(e);
    return r;
}
