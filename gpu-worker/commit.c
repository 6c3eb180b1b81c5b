/* commit.c - what a step has come to: into the ledger, then into the KV, then to whoever waits for it.
 *
 * The engine calls it once a step, after the draws.  Measures and embeddings come first, before the KV of the rows they are
 * of (ledger_layout.h); then each draw's token, and behind it the rows it was drawn from; last the prompts that were read
 * in part.
 *
 * Always true: committed KV never covers all tokens that are in the ledger.  Who takes over after a death in between
 * computes a row or two again and has the logits it needs. */
#include <math.h>

#include "common/fault_point.h"
#include "gpu-worker/engine_state.h"

/* What came out of the model for q is no number. */
static void end_not_finite(struct engine *g, struct sequence *q)
{
    runtime_doubt_output(g->boot.runtime);
    engine_end(g, q, LLMD__FINISH__FINISH_ERROR,
               "the model's output is not a finite number at this token");
    kvcache_distrust(&g->cache);
}

/* The pages that this step has filled, of all sequences at once. */
static void read_pages(struct engine *g, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct sequence *q = plan->items[i].sequence;
        kvcache_expect(&g->cache, q, q->n_computed + plan->items[i].n_rows);
    }
    kvcache_read_ahead(&g->cache);
}

static void commit_measures(struct engine *g)
{
    for (uint32_t i = 0; i < g->step.n_measures; i++) {
        const struct step_measure *m = &g->step.measures[i];
        struct sequence *q = m->sequence;
        if (!sequence_is_live(q))
            continue;
        if (m->result != SAMPLER_OK) {
            end_not_finite(g, q);
            continue;
        }
        sequence_measure(q, g->boot.ledger, &m->out);
        delivery_notice(&g->delivery, q);
        fault_point("worker.measure");
    }
}

static bool is_finite(const float *values, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (!isfinite(values[i]))
            return false;
    return true;
}

static bool commit_embeddings(struct engine *g, const struct plan *plan, struct err *e)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct sequence *q = plan->items[i].sequence;
        const float *values;
        if (!sequence_is_pooled(q))
            continue;
        if (!step_pool(&g->step, plan, i, &values, e))
            return false;
        if (values && is_finite(values, g->info->hidden_size))
            sequence_embed(q, g->boot.ledger, values, g->info->hidden_size);
        else if (values)
            end_not_finite(g, q);
        fault_point("worker.embed");
    }
    return true;
}

/* Of a draw: its token is in the ledger by now. */
static void commit_kv(struct engine *g, struct sequence *q, uint32_t n_rows)
{
    kvcache_commit(&g->cache, q, q->n_computed + n_rows);
}

/* A prompt read in part, or to its end by a sequence that generates nothing: then less the last row, so that
 * KV never covers all tokens here either. */
static void commit_chunk(struct engine *g, const struct plan_item *item)
{
    struct sequence *q = item->sequence;
    bool is_last = q->n_computed + item->n_rows == sequence_n_tokens(q);

    commit_kv(g, q, item->n_rows - is_last);
    if (q->finish_due != LLMD__FINISH__FINISH_NONE && (is_last || !sequence_owes_prompt(q)))
        engine_end(g, q, q->finish_due, NULL);
}

/* And all of them got through a step that others may have died in. */
static void commit_chunks(struct engine *g, const struct plan *plan)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct plan_item *item = &plan->items[i];
        if (!item->wants_logits && sequence_is_live(item->sequence))
            commit_chunk(g, item);
        atomic_store_explicit(&item->sequence->entry->running, LEDGER_RESTS, memory_order_relaxed);
    }
}

static void commit_draw(struct engine *g, const struct step_draw *draw)
{
    struct sequence *q = draw->sequence;
    Llmd__Finish finish;

    switch (draw->row->result) {
    case SAMPLER_NOT_FINITE:
        end_not_finite(g, q);
        return;
    case SAMPLER_NONE_LEFT:
        engine_end(g, q, LLMD__FINISH__FINISH_ERROR, "no token is allowed here: all are masked");
        return;
    case SAMPLER_OK:
        break;
    }
    sequence_append(q, g->boot.ledger, &draw->row->out);
    fault_point("worker.commit");
    commit_kv(g, q, draw->n_rows);
    stat_add(engine_stats(g), STAT_generated_tokens, 1);
    q->entry->crashes = q->entry->kills = 0; /* it got past what it may have died of */
    scheduler_acquit(&g->scheduler, q);
    finish = sequence_check_finish(q, g->info->eos, g->info->n_eos);
    if (finish != LLMD__FINISH__FINISH_NONE)
        engine_end(g, q, finish, NULL);
    else
        delivery_notice(&g->delivery, q);
}

/* A sequence's draws in order, as long as each gives the draft that the next one was drawn behind. */
static void commit_draws(struct engine *g, const struct step_draw *draws)
{
    struct sequence *q = draws->sequence;
    uint32_t n_drafts = draws->n_drafts, n_true = 0;

    for (bool goes_on = true; goes_on;) {
        int32_t expected =
            q->tokens[sequence_n_tokens(q)]; /* the draft, or nothing in particular */
        commit_draw(g, &draws[n_true]);
        goes_on = n_true < n_drafts && draws[n_true].row->result == SAMPLER_OK &&
                  draws[n_true].row->out.token == expected;
        n_true += goes_on;
        goes_on = goes_on && sequence_is_live(q);
    }
    if (n_drafts == 0)
        return;
    stat_add(engine_stats(g), STAT_drafts, 1);
    stat_add(engine_stats(g), STAT_draft_tokens, n_drafts);
    stat_add(engine_stats(g), STAT_draft_tokens_accepted, n_true);
    speculation_learn(&q->speculation, n_drafts, n_true,
                      step_pace_draft_price(&g->pace, g->scheduler.n_running), q->n_generated);
}

bool engine_commit(struct engine *g, const struct plan *plan, struct err *e)
{
    read_pages(g, plan);
    commit_measures(g);
    if (!commit_embeddings(g, plan, e))
        return false;
    for (uint32_t i = 0; i < g->step.n_draws; i += 1 + g->step.draws[i].n_drafts)
        if (sequence_is_live(g->step.draws[i].sequence))
            commit_draws(g, &g->step.draws[i]);
    commit_chunks(g, plan);
    return true;
}
