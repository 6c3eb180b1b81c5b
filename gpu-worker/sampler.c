/* sampler.c - one draw: copy the row, change it, filter, choose, measure.
 *
 * The row of the model stays as it is, because raw log probabilities are of the model's own logits.
 * Everything proportional to the vocabulary is a loop over blocks of lanes that the compiler turns into
 * vector code; penalties and biases touch only the tokens they name. */
#include "gpu-worker/sampler.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/candidates.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/thinking.h"
#include "gpu-worker/watermark.h"

enum { LANES = 16, INSERTED_MAX = 128 };

struct sampler {
    uint32_t vocab_size;
    float *logits;    /* [candidates.cap] the row being changed; -INFINITY past the vocabulary */
    uint32_t *counts; /* [vocab_size] zero between draws */
    uint32_t *greens; /* [vocab_size] scratch */
    struct ledger_top *sorted; /* [vocab_size] scratch */
    struct candidates candidates;
};

struct sampler *sampler_new(uint32_t vocab_size)
{
    struct sampler *s = mem_zalloc(1, sizeof *s);

    assert(vocab_size > 0);
    s->vocab_size = vocab_size;
    candidates_init(&s->candidates, vocab_size);
    s->logits = mem_alloc(s->candidates.cap * sizeof *s->logits);
    for (uint32_t i = 0; i < s->candidates.cap; i++)
        s->logits[i] = -INFINITY;
    s->counts = mem_zalloc(vocab_size, sizeof *s->counts);
    s->greens = mem_zalloc(vocab_size, sizeof *s->greens);
    s->sorted = mem_zalloc(vocab_size, sizeof *s->sorted);
    return s;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    candidates_fini(&s->candidates);
    free(s->logits);
    free(s->counts);
    free(s->greens);
    free(s->sorted);
    free(s);
}

/* Copy the row; false when a value is NaN or infinite (x - x is 0 for every other). */
static bool copy_finite(struct sampler *s, const float *logits)
{
    uint32_t n = s->vocab_size, whole = n / LANES * LANES;
    float bad[LANES] = { 0 }, sum = 0;

    for (uint32_t i = 0; i < whole; i += LANES)
        for (uint32_t l = 0; l < LANES; l++) {
            s->logits[i + l] = logits[i + l];
            bad[l] += logits[i + l] - logits[i + l];
        }
    for (uint32_t i = whole; i < n; i++) {
        s->logits[i] = logits[i];
        bad[0] += logits[i] - logits[i];
    }
    for (uint32_t l = 0; l < LANES; l++)
        sum += bad[l];
    return sum == 0;
}

static float row_max(const struct sampler *s)
{
    float lane[LANES], max = -INFINITY;

    for (uint32_t l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (uint32_t i = 0; i < s->candidates.cap; i += LANES)
        for (uint32_t l = 0; l < LANES; l++)
            lane[l] = s->logits[i + l] > lane[l] ? s->logits[i + l] : lane[l];
    for (uint32_t l = 0; l < LANES; l++)
        max = lane[l] > max ? lane[l] : max;
    return max;
}

static uint32_t first_equal(const float *row, float value)
{
    uint32_t i = 0;

    while (row[i] != value)
        i++;
    return i;
}

static void apply_bias(struct sampler *s, const Llmd__Sampling *p)
{
    for (size_t i = 0; i < p->n_logit_bias; i++)
        s->logits[p->logit_bias[i]->token] += p->logit_bias[i]->bias;
}

static void apply_watermark(struct sampler *s, const struct sampler_input *in)
{
    const Llmd__Sampling *p = in->sampling;
    uint32_t n;

    if (p->watermark_gamma == 0)
        return;
    n = watermark_n_green(s->vocab_size, p->watermark_gamma);
    watermark_green(s->greens, s->vocab_size, n, in->tokens[in->n_prompt + in->n_generated - 1]);
    for (uint32_t i = 0; i < n; i++)
        s->logits[s->greens[i]] += p->watermark_delta;
}

/* Divides what is positive and multiplies what is not (Keskar et al. 2019, arXiv:1909.05858), once for
 * each token of prompt and output. */
static void apply_repetition(struct sampler *s, const struct sampler_input *in)
{
    float penalty = in->sampling->repetition_penalty;
    uint32_t n = in->n_prompt + in->n_generated;

    if (penalty == 0 || penalty == 1)
        return;
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = in->tokens[i];
        if (s->counts[id]++ == 0)
            s->logits[id] = s->logits[id] > 0 ? s->logits[id] / penalty : s->logits[id] * penalty;
    }
    for (uint32_t i = 0; i < n; i++)
        s->counts[in->tokens[i]] = 0;
}

/* OpenAI's two: by how often a token was generated, and by whether it was.  TGI's frequency is the share of
 * prompt and output that it is. */
static void apply_frequency_presence(struct sampler *s, const struct sampler_input *in)
{
    float frequency = in->sampling->frequency_penalty, presence = in->sampling->presence_penalty;
    bool is_share = in->sampling->frequency_is_share;
    const int32_t *seen = is_share ? in->tokens : in->tokens + in->n_prompt;
    uint32_t n = is_share ? in->n_prompt + in->n_generated : in->n_generated;

    if (frequency == 0 && presence == 0)
        return;
    if (is_share)
        frequency /= (float)n;
    for (uint32_t i = 0; i < n; i++)
        s->counts[seen[i]]++;
    for (uint32_t i = 0; i < n; i++) {
        int32_t id = seen[i];
        if (s->counts[id] == 0)
            continue; /* a repetition of one that was done */
        s->logits[id] -= frequency * (float)s->counts[id];
        s->logits[id] -= presence;
        s->counts[id] = 0;
    }
}

static void mask_all_but(struct sampler *s, const int32_t *ids, size_t n)
{
    if (n == 0)
        return;
    for (size_t i = 0; i < n; i++)
        s->counts[ids[i]] = 1;
    for (uint32_t i = 0; i < s->vocab_size; i++) {
        s->logits[i] = s->counts[i] ? s->logits[i] : -INFINITY;
        s->counts[i] = 0;
    }
}

static void mask_end_of(struct sampler *s, const Llmd__BadWord *word, const int32_t *output,
                        uint32_t n_output)
{
    size_t n_before = word->n_tokens - 1;

    if (n_before <= n_output &&
        memcmp(output + n_output - n_before, word->tokens, n_before * sizeof *output) == 0)
        s->logits[word->tokens[n_before]] = -INFINITY;
}

static void apply_mask(struct sampler *s, const struct sampler_input *in)
{
    const Llmd__Sampling *p = in->sampling;

    for (int m = 0; m < 2; m++)
        for (size_t i = 0; i < in->masked[m].n; i++)
            s->logits[in->masked[m].ids[i]] = -INFINITY;
    mask_all_but(s, p->allowed_tokens, p->n_allowed_tokens);
    for (size_t i = 0; i < p->n_bad_words; i++)
        mask_end_of(s, p->bad_words[i], in->tokens + in->n_prompt, in->n_generated);
}

/* A thought that has used up its budget ends, whatever else is forbidden or preferred. */
static void apply_thinking(struct sampler *s, const struct sampler_input *in)
{
    int32_t forced =
        thinking_forced(in->sampling->thinking, in->tokens + in->n_prompt, in->n_generated);

    if (forced < 0)
        return;
    for (uint32_t i = 0; i < s->vocab_size; i++)
        s->logits[i] = -INFINITY;
    s->logits[forced] = in->logits[forced];
}

static int compare_tops(const void *a, const void *b)
{
    const struct ledger_top *x = a, *y = b;

    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

/* take_top() of so many that inserting each into its place would take long. */
static void sort_top(struct sampler *s, struct ledger_top *top, uint32_t n, const float *values,
                     const uint32_t *ids, uint32_t n_values)
{
    uint32_t n_finite = 0;

    for (uint32_t i = 0; i < n_values; i++)
        if (values[i] > -INFINITY)
            s->sorted[n_finite++] = (struct ledger_top){ (int32_t)(ids ? ids[i] : i), values[i] };
    qsort(s->sorted, n_finite, sizeof *s->sorted, compare_tops);
    for (uint32_t i = 0; i < n; i++)
        top[i] =
            i < n_finite ? s->sorted[i] : (struct ledger_top){ .token = -1, .logprob = -INFINITY };
}

/* The n best of values[0..n_values), ties to the lower index; ids NULL: index is id.  *top is padded
 * with token -1.  Values of -INFINITY are no tokens. */
static void take_top(struct sampler *s, struct ledger_top *top, uint32_t n, const float *values,
                     const uint32_t *ids, uint32_t n_values)
{
    uint32_t have = 0;

    if (n > INSERTED_MAX) {
        sort_top(s, top, n, values, ids, n_values);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        top[i] = (struct ledger_top){ .token = -1, .logprob = -INFINITY };
    if (n == 0)
        return;
    for (uint32_t i = 0; i < n_values; i++) {
        uint32_t at = have;
        if (values[i] <= top[n - 1].logprob)
            continue;
        if (have < n)
            have++;
        else
            at = n - 1;
        for (; at > 0 && values[i] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at].token = (int32_t)(ids ? ids[i] : i);
        top[at].logprob = values[i];
    }
}

static uint32_t rank_of(const float *values, uint32_t n, uint32_t index)
{
    float mine = values[index];
    uint32_t better = 0;

    for (uint32_t i = 0; i < index; i++)
        better += values[i] >= mine;
    for (uint32_t i = index + 1; i < n; i++)
        better += values[i] > mine;
    return better + 1;
}

/* Log softmax of the model's own logits, at out->token and at the alternatives: the named ones, or n_top of the
 * likeliest where there are none.  Uses the candidates as scratch. */
static void measure_raw(struct sampler *s, const float *logits, struct sampler_ids named,
                        uint32_t n_top, struct sampler_output *out)
{
    uint32_t n = s->vocab_size;
    float max;
    double log_sum;

    memcpy(s->logits, logits, n * sizeof *s->logits);
    max = row_max(s);
    candidates_fill(&s->candidates, s->logits, n, max, 1.0f);
    log_sum = (double)max + log(candidates_mass(&s->candidates));
    out->logprob = (float)((double)logits[out->token] - log_sum);
    out->rank = rank_of(logits, n, (uint32_t)out->token);
    if (named.n == 0)
        take_top(s, out->top, n_top, logits, NULL, n);
    for (size_t i = 0; i < named.n; i++)
        out->top[i] = (struct ledger_top){ named.ids[i], logits[named.ids[i]] };
    for (uint32_t i = 0; i < n_top; i++)
        out->top[i].logprob = (float)((double)out->top[i].logprob - log_sum);
}

/* Log of the probabilities the token was really drawn from. */
static void measure_processed(struct sampler *s, const struct sampler_input *in,
                              struct sampler_output *out, uint32_t index)
{
    const struct candidates *c = &s->candidates;
    double log_mass = log(candidates_mass(c));

    out->logprob = (float)(log((double)c->weights[index]) - log_mass);
    out->rank = rank_of(c->weights, c->n, index);
    take_top(s, out->top, in->sampling->top_logprobs, c->weights, c->ids, c->n);
    for (uint32_t i = 0; i < in->sampling->top_logprobs; i++) {
        if (out->top[i].logprob <= 0) /* no probability left at all */
            out->top[i].token = -1;
        else
            out->top[i].logprob = (float)(log((double)out->top[i].logprob) - log_mass);
    }
}

static void filter(struct candidates *c, const Llmd__Sampling *p)
{
    if (p->top_k > 0)
        candidates_keep_k(c, p->top_k);
    if (p->top_p > 0 && p->top_p < 1)
        candidates_keep_mass(c, (double)p->top_p);
    if (p->min_p > 0)
        candidates_keep_ratio(c, p->min_p);
    if (p->typical_p > 0 && p->typical_p < 1)
        candidates_keep_typical(c, (double)p->typical_p);
}

enum sampler_result sampler_draw(struct sampler *s, const struct sampler_input *in,
                                 struct sampler_output *out)
{
    const Llmd__Sampling *p = in->sampling;
    struct candidates *c = &s->candidates;
    bool greedy = p->temperature < SAMPLER_TEMPERATURE_MIN;
    bool processed =
        p->want_logprobs && p->logprobs_mode == LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED;
    uint32_t index;
    float max;

    if (!copy_finite(s, in->logits))
        return SAMPLER_NOT_FINITE;
    apply_bias(s, p);
    apply_watermark(s, in);
    apply_repetition(s, in);
    apply_frequency_presence(s, in);
    apply_mask(s, in);
    apply_thinking(s, in);
    max = row_max(s);
    if (!isfinite(max))
        return max < 0 ? SAMPLER_NONE_LEFT : SAMPLER_NOT_FINITE;
    if (greedy) {
        index = first_equal(s->logits, max);
        out->token = (int32_t)index;
        if (processed)
            candidates_fill(c, s->logits, s->vocab_size, max, 1.0f);
    } else {
        candidates_fill(c, s->logits, s->vocab_size, max, 1.0f / p->temperature);
        filter(c, p);
        index = candidates_pick(c, philox_uniform(p->seed, in->n_generated));
        out->token = (int32_t)c->ids[index];
    }
    if (processed)
        measure_processed(s, in, out, index);
    else if (p->want_logprobs)
        measure_raw(s, in->logits, (struct sampler_ids){ p->logprob_tokens, p->n_logprob_tokens },
                    p->top_logprobs, out);
    return SAMPLER_OK;
}

enum sampler_result sampler_measure(struct sampler *s, const float *logits, uint32_t n_top,
                                    struct sampler_output *out)
{
    if (!copy_finite(s, logits))
        return SAMPLER_NOT_FINITE;
    measure_raw(s, logits, (struct sampler_ids){ 0 }, n_top, out);
    return SAMPLER_OK;
}
