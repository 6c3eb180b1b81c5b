/* step.c - from a plan to logits to tokens. */
#include "gpu-worker/step.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void step_init(struct step *s, struct runtime *rt, const struct step_limits *limits)
{
    const struct model_info *info = runtime_info(rt);
    uint32_t n_samplers = limits->n_threads < limits->seqs_max + BATCH_EXTRA_LOGITS
                              ? limits->n_threads
                              : limits->seqs_max + BATCH_EXTRA_LOGITS;

    *s = (struct step){ .runtime = rt,
                        .info = info,
                        .seqs_max = limits->seqs_max,
                        .rows_max = limits->rows_max,
                        .logits_max = (uint32_t)batch_logits_max(limits->seqs_max),
                        .top_max = limits->top_max,
                        .n_samplers = n_samplers > 0 ? n_samplers : 1 };
    s->seqs = mem_zalloc(s->seqs_max, sizeof *s->seqs);
    s->tokens = mem_zalloc(s->rows_max, sizeof *s->tokens);
    s->logit_rows = mem_zalloc(s->logits_max, sizeof *s->logit_rows);
    s->logits = mem_zalloc(s->logits_max, info->vocab_size * sizeof *s->logits);
    s->tops = mem_zalloc((size_t)s->logits_max * s->top_max, sizeof *s->tops);
    s->draws = mem_zalloc(s->logits_max, sizeof *s->draws);
    s->rows = mem_zalloc(s->logits_max, sizeof *s->rows);
    s->measures = mem_zalloc(BATCH_EXTRA_LOGITS, sizeof *s->measures);
    s->hidden = mem_zalloc(STEP_HIDDEN_ROWS, info->hidden_size * sizeof *s->hidden);
    s->sums = mem_zalloc(limits->sequences_max, info->hidden_size * sizeof *s->sums);
    s->embedding = mem_zalloc(info->hidden_size, sizeof *s->embedding);
    s->samplers = mem_zalloc(s->n_samplers, sizeof(struct sampler *));
    for (uint32_t i = 0; i < s->n_samplers; i++)
        s->samplers[i] = sampler_new(info->vocab_size);
}

void step_fini(struct step *s)
{
    for (uint32_t i = 0; i < s->n_samplers; i++)
        sampler_free(s->samplers[i]);
    free(s->seqs);
    free(s->tokens);
    free(s->logit_rows);
    free(s->logits);
    free(s->tops);
    free(s->draws);
    free(s->rows);
    free(s->measures);
    free(s->hidden);
    free(s->sums);
    free(s->embedding);
    free(s->samplers);
    *s = (struct step){ 0 };
}

/* The place of a row's logits. */
static uint32_t add_logits(struct step *s, uint32_t row)
{
    s->logit_rows[s->n_logits] = row;
    return s->n_logits++;
}

/* Row p measures token p + 1 of the prompt. */
static void add_measures(struct step *s, const struct plan_item *item, uint32_t first_row)
{
    struct sequence *q = item->sequence;

    for (uint32_t k = 0; k < item->n_measures; k++) {
        uint32_t token = q->n_measured + k;
        uint32_t i = add_logits(s, first_row + token - 1 - q->n_computed);
        s->measures[s->n_measures++] = (struct step_measure){
            .sequence = q,
            .logits = s->logits + (size_t)i * s->info->vocab_size,
            .out = { .token = q->tokens[token], .top = s->tops + (size_t)i * s->top_max },
        };
    }
}

/* Describe the draw behind the sequence's tokens and n_before drafts.  Before min_tokens neither EOS nor a stop
 * token may be chosen. */
static void add_draw(struct step *s, struct sequence *q, uint32_t n_before, uint32_t row)
{
    uint32_t i = add_logits(s, row);
    struct sampler_row *r = &s->rows[s->n_draws];

    s->draws[s->n_draws++] = (struct step_draw){ .sequence = q, .n_rows = 1, .row = r };
    *r = (struct sampler_row){ .logits_row = i };
    r->in.logits = s->logits + (size_t)i * s->info->vocab_size;
    r->in.sampling = q->request->sampling;
    r->in.tokens = q->tokens;
    r->in.n_prompt = q->n_prompt;
    r->in.n_generated = q->n_generated + n_before;
    if (r->in.n_generated < q->request->min_tokens) {
        r->in.masked[0] = (struct sampler_ids){ s->info->eos, s->info->n_eos };
        r->in.masked[1] =
            (struct sampler_ids){ q->request->stop_tokens, q->request->n_stop_tokens };
    }
    r->out.top = s->tops + (size_t)i * s->top_max;
}

/* Its last row, or the one before its drafts, and each of these. */
static void add_draws(struct step *s, const struct plan_item *item, uint32_t end_row)
{
    uint32_t first = s->n_draws;

    for (uint32_t i = 0; i <= item->n_drafts; i++)
        add_draw(s, item->sequence, i, end_row - 1 - item->n_drafts + i);
    s->draws[first].n_rows = item->n_rows - item->n_drafts;
    s->draws[first].n_drafts = item->n_drafts;
}

static uint32_t plan_n_measures(const struct plan *plan)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < plan->n_items; i++)
        n += plan->items[i].n_measures;
    return n;
}

static struct batch build_batch(struct step *s, const struct plan *plan)
{
    bool wants_hidden = false;
    uint32_t row = 0;

    assert(plan->n_items <= s->seqs_max && plan->n_rows <= s->rows_max);
    assert(plan_n_measures(plan) <= BATCH_EXTRA_LOGITS);
    s->n_logits = s->n_draws = s->n_measures = 0;
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct plan_item *item = &plan->items[i];
        struct sequence *q = item->sequence;
        s->seqs[i] = (struct batch_seq){ .first_row = row,
                                         .n_rows = item->n_rows,
                                         .start = q->n_computed,
                                         .n_pages = q->n_pages,
                                         .pages = q->pages };
        memcpy(s->tokens + row, q->tokens + q->n_computed, item->n_rows * sizeof *s->tokens);
        add_measures(s, item, row);
        row += item->n_rows;
        wants_hidden = wants_hidden || sequence_is_pooled(q);
        if (item->wants_logits)
            add_draws(s, item, row);
    }
    assert(row == plan->n_rows);
    return (struct batch){ .n_rows = row,
                           .tokens = s->tokens,
                           .n_seqs = plan->n_items,
                           .seqs = s->seqs,
                           .n_logits = s->n_logits,
                           .logit_rows = s->logit_rows,
                           .wants_hidden = wants_hidden };
}

bool step_forward(struct step *s, const struct plan *plan, struct err *e)
{
    struct batch batch = build_batch(s, plan);
    const struct sampler_rows rows = { s->rows, s->n_draws };

    return runtime_forward(s->runtime, &batch, &rows, s->logits, e);
}

static void measure(struct sampler *sampler, struct step_measure *m)
{
    m->result =
        sampler_measure(sampler, m->logits, m->sequence->request->prompt_top_logprobs, &m->out);
}

/* One job a sampler; each takes draws until there are none, so long ones do not hold up the rest. */
static void sample_job(void *arg, uint32_t job)
{
    struct step *s = arg;
    struct sampler *sampler = s->samplers[job];
    uint32_t i;

    while ((i = atomic_fetch_add_explicit(&s->next_job, 1, memory_order_relaxed)) < s->n_logits)
        if (i >= s->n_draws)
            measure(sampler, &s->measures[i - s->n_draws]);
        else if (!s->rows[i].is_drawn)
            s->rows[i].result = sampler_draw(sampler, &s->rows[i].in, &s->rows[i].out);
}

static uint32_t count_undone(const struct step *s)
{
    uint32_t n = s->n_measures;

    for (uint32_t i = 0; i < s->n_draws; i++)
        n += !s->rows[i].is_drawn;
    return n;
}

void step_sample(struct step *s)
{
    uint32_t n = count_undone(s), n_jobs = n < s->n_samplers ? n : s->n_samplers;

    assert(s->n_logits == s->n_draws + s->n_measures);
    atomic_store_explicit(&s->next_job, 0, memory_order_relaxed);
    if (n_jobs == 1)
        sample_job(s, 0);
    else if (n_jobs > 1)
        runtime_parallel(s->runtime, sample_job, s, n_jobs);
}

static bool add_rows(struct step *s, double *sum, uint32_t row, uint32_t n_rows, struct err *e)
{
    uint32_t dim = s->info->hidden_size;

    while (n_rows > 0) {
        uint32_t n = n_rows < STEP_HIDDEN_ROWS ? n_rows : STEP_HIDDEN_ROWS;
        if (!runtime_hidden(s->runtime, row, n, s->hidden, e))
            return false;
        for (uint32_t t = 0; t < n; t++)
            for (uint32_t k = 0; k < dim; k++)
                sum[k] += (double)s->hidden[(size_t)t * dim + k];
        row += n;
        n_rows -= n;
    }
    return true;
}

bool step_pool(struct step *s, const struct plan *plan, uint32_t i, const float **embedding,
               struct err *e)
{
    const struct plan_item *item = &plan->items[i];
    const struct sequence *q = item->sequence;
    const struct batch_seq *rows = &s->seqs[i];
    uint32_t dim = s->info->hidden_size;
    double *sum = s->sums + (size_t)q->index * dim;
    bool is_last = q->n_computed + item->n_rows == q->n_prompt;

    if (q->request->pooling == LLMD__POOLING__POOL_MEAN) {
        if (rows->start == 0)
            memset(sum, 0, dim * sizeof *sum);
        if (!add_rows(s, sum, rows->first_row, rows->n_rows, e))
            return false;
        for (uint32_t k = 0; k < dim && is_last; k++)
            s->embedding[k] = (float)(sum[k] / q->n_prompt);
    } else if (is_last &&
               !runtime_hidden(s->runtime, rows->first_row + rows->n_rows - 1, 1, s->embedding, e))
        return false;
    *embedding = is_last ? s->embedding : NULL;
    return true;
}
