/* test_scheduler.c - would break in production: a stream that stalls behind a long prompt, a request
 * that never runs, a batch larger than the memory it was planned for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "gpu-worker/batch.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/scheduler.h"
#include "sequence_fixture.h"

struct fixture {
    struct sequence_fixture s;
    struct scheduler scheduler;
};

static void fixture_init(struct fixture *f, uint32_t max_num_seqs, uint32_t rows, uint32_t n_pages)
{
    sequence_fixture_init(&f->s, 64, 256, n_pages, 8);
    scheduler_init(&f->scheduler,
                   &(struct scheduler_limits){ .max_num_seqs = max_num_seqs,
                                               .max_num_batched_tokens = rows,
                                               .sequences_max = 64 },
                   &f->s.cache);
}

static void fixture_fini(struct fixture *f)
{
    scheduler_fini(&f->scheduler);
    sequence_fixture_fini(&f->s);
}

static struct sequence *add(struct fixture *f, uint32_t n_prompt, uint32_t max_tokens,
                            int32_t priority)
{
    struct sequence *q = sequence_fixture_add(&f->s, n_prompt, max_tokens, priority);

    scheduler_add(&f->scheduler, q);
    return q;
}

static const struct plan_item *item_of(const struct plan *p, const struct sequence *q)
{
    for (uint32_t i = 0; i < p->n_items; i++)
        if (p->items[i].sequence == q)
            return &p->items[i];
    return NULL;
}

static uint32_t rows_of(const struct plan *p, const struct sequence *q)
{
    const struct plan_item *item = item_of(p, q);

    return item ? item->n_rows : 0;
}

/* What every plan must be, whatever the schedule. */
static void check_plan(const struct fixture *f, const struct plan *p)
{
    const struct scheduler *s = &f->scheduler;
    uint32_t n_rows = 0, n_pages = 0, n_decode_due = 0, n_decode = 0, n_measures = 0;

    assert_true(p->n_items <= s->running_max && p->n_rows <= s->max_num_batched_tokens);
    for (uint32_t i = 0; i < p->n_items; i++) {
        const struct plan_item *item = &p->items[i];
        const struct sequence *q = item->sequence;
        uint32_t due = sequence_n_tokens(q) - q->n_computed;
        assert_int_equal(q->state, SEQUENCE_RUNNING);
        assert_true(item->n_rows > 0 && item->n_rows <= due);
        assert_int_equal(item->wants_logits,
                         item->n_rows == due && q->finish_due == LLMD__FINISH__FINISH_NONE);
        n_measures += item->n_measures;
        assert_true(q->n_pages >= kvcache_pages_for(&f->s.cache, q->n_computed + item->n_rows));
        for (uint32_t k = 0; k < i; k++)
            assert_true(p->items[k].sequence != q);
        n_rows += item->n_rows;
        n_decode += due == 1;
    }
    assert_int_equal(n_rows, p->n_rows);
    assert_true(n_measures <= BATCH_EXTRA_LOGITS);
    for (uint32_t i = 0; i < s->n_running; i++) {
        n_pages += s->running[i]->n_pages;
        n_decode_due += sequence_n_tokens(s->running[i]) - s->running[i]->n_computed == 1;
        assert_true(i == 0 || sequence_goes_before(s->running[i - 1], s->running[i]));
    }
    for (uint32_t i = 0; i < s->n_waiting; i++) {
        assert_int_equal(s->waiting[i]->n_pages, 0);
        assert_true(i == 0 || sequence_goes_before(s->waiting[i - 1], s->waiting[i]));
    }
    if (s->n_suspects == 0)
        assert_int_equal(n_decode, n_decode_due); /* no running stream is left out */
    else
        assert_int_equal(p->n_items, 1);
    assert_int_equal(n_pages, stat_get(&f->s.stats, STAT_kv_pages_pinned));
    sequence_fixture_assert_balanced(&f->s);
}

/* What the engine does with a plan; returns how many finished. */
static uint32_t run_plan(struct fixture *f, const struct plan *p)
{
    uint32_t n_finished = 0;

    for (uint32_t i = 0; i < p->n_items; i++) {
        struct sequence *q = p->items[i].sequence;
        kvcache_commit(&f->s.cache, q, q->n_computed + p->items[i].n_rows);
        if (!p->items[i].wants_logits)
            continue;
        sequence_append(q, &f->s.ledger, &(struct sampler_output){ .token = 7 });
        scheduler_acquit(&f->scheduler, q);
        if (sequence_check_finish(q, NULL, 0) == LLMD__FINISH__FINISH_NONE)
            continue;
        scheduler_remove(&f->scheduler, q);
        sequence_fixture_remove(&f->s, q);
        n_finished++;
    }
    return n_finished;
}

static const struct plan *step_within(struct fixture *f, uint32_t prompt_rows_max)
{
    const struct plan *p =
        scheduler_plan(&f->scheduler, &(struct plan_limits){ prompt_rows_max, 0 });

    check_plan(f, p);
    return p;
}

static const struct plan *step(struct fixture *f)
{
    return step_within(f, UINT32_MAX);
}

static void decode_goes_first_and_prefill_takes_the_rest(void **state)
{
    struct fixture f;
    struct sequence *a, *b, *c;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100);
    a = add(&f, 4, 20, 0);
    b = add(&f, 3, 20, 0);
    run_plan(&f, step(&f));
    c = add(&f, 40, 20, 0);
    for (uint32_t chunk = 0; chunk < 2; chunk++) {
        p = step(&f);
        assert_int_equal(rows_of(p, a), 1);
        assert_int_equal(rows_of(p, b), 1);
        assert_int_equal(rows_of(p, c), 14);
        assert_false(item_of(p, c)->wants_logits);
        run_plan(&f, p);
    }
    p = step(&f);
    assert_int_equal(rows_of(p, c), 12);
    assert_true(item_of(p, c)->wants_logits);
    run_plan(&f, p);
    assert_int_equal(rows_of(step(&f), c), 1);
    fixture_fini(&f);
}

static void nobody_overtakes_within_a_priority(void **state)
{
    struct fixture f;
    struct sequence *big, *small;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 64, 10);
    add(&f, 40, 2, 0);        /* 5 pages */
    big = add(&f, 60, 2, 0);  /* 8: does not fit now */
    small = add(&f, 4, 2, 0); /* 1: would fit, but is behind */
    p = step(&f);
    assert_int_equal(p->n_items, 1);
    run_plan(&f, p);
    run_plan(&f, step(&f)); /* the first one is done */
    p = step(&f);
    assert_int_equal(rows_of(p, big), 60);
    assert_int_equal(rows_of(p, small), 4);
    fixture_fini(&f);
}

static void pages_run_out_and_the_newest_gives_way(void **state)
{
    struct fixture f;
    struct sequence *first, *second;
    uint32_t n_preempted = 0, n_steps = 0;

    (void)state;
    fixture_init(&f, 8, 64, 8);
    first = add(&f, 16, 48, 0);
    second = add(&f, 16, 48, 0); /* both end at 8 pages: the whole pool */
    while (f.scheduler.n_running + f.scheduler.n_waiting > 0 && n_steps++ < 1000) {
        const struct plan *p = step(&f);
        n_preempted += p->n_preempted;
        if (first->state != SEQUENCE_FREE)
            assert_true(rows_of(p, first) > 0);
        run_plan(&f, p);
    }
    assert_int_equal(first->state, SEQUENCE_FREE);
    assert_int_equal(second->state, SEQUENCE_FREE);
    assert_true(n_preempted >= 1 && n_preempted <= 3);
    assert_int_equal(stat_get(&f.s.stats, STAT_kv_pages_leased), 0);
    fixture_fini(&f);
}

static void a_higher_priority_takes_the_place_of_a_lower(void **state)
{
    struct fixture f;
    struct sequence *low, *middle, *high;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 2, 64, 100);
    middle = add(&f, 8, 20, 0);
    low = add(&f, 8, 20, 5);
    run_plan(&f, step(&f));
    high = add(&f, 8, 20, -5);
    p = step(&f);
    assert_int_equal(p->n_preempted, 1);
    assert_int_equal(rows_of(p, high), 8);
    assert_int_equal(rows_of(p, middle), 1);
    assert_int_equal(low->state, SEQUENCE_WAITING);
    add(&f, 8, 20, 0); /* equal priority preempts nobody */
    run_plan(&f, p);
    p = step(&f);
    assert_int_equal(p->n_preempted, 0);
    assert_int_equal(p->n_items, 2);
    fixture_fini(&f);
}

/* Room for it must be there in the end, or nobody is preempted for nothing. */
static void a_priority_that_would_not_fit_preempts_nobody(void **state)
{
    struct fixture f;
    struct sequence *low;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 64, 10);
    add(&f, 60, 20, -2); /* 8 pages it keeps */
    low = add(&f, 1, 4, 5);
    run_plan(&f, step(&f));
    add(&f, 30, 20, -1);
    p = step(&f);
    assert_int_equal(p->n_preempted, 0);
    assert_int_equal(rows_of(p, low), 1);
    fixture_fini(&f);
}

static void more_sequences_than_rows_still_all_decode(void **state)
{
    struct fixture f;
    uint32_t n_steps = 0, n_finished = 0;

    (void)state;
    fixture_init(&f, 40, 16, 400);
    for (int i = 0; i < 40; i++)
        add(&f, 3, 5, 0);
    while (f.scheduler.n_running + f.scheduler.n_waiting > 0 && n_steps++ < 1000)
        n_finished += run_plan(&f, step(&f));
    assert_int_equal(n_finished, 40);
    fixture_fini(&f);
}

static void suspects_run_one_at_a_time_until_they_made_a_token(void **state)
{
    struct fixture f;
    struct sequence *q[4];
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100);
    for (int i = 0; i < 4; i++) {
        q[i] = sequence_fixture_add(&f.s, 20, 5, 0);
        q[i]->suspect = i == 1 || i == 3;
        scheduler_add(&f.scheduler, q[i]);
    }
    for (int i = 1; i <= 3; i += 2) { /* a step of 16 rows and one of 4 each */
        for (int chunk = 0; chunk < 2; chunk++) {
            p = step(&f);
            assert_int_equal(rows_of(p, q[i]), chunk == 0 ? 16 : 4);
            run_plan(&f, p);
        }
        assert_false(q[i]->suspect);
    }
    p = step(&f);
    assert_int_equal(rows_of(p, q[1]), 1);
    assert_int_equal(rows_of(p, q[3]), 1);
    assert_int_equal(rows_of(p, q[0]), 14);
    scheduler_remove(&f.scheduler, q[0]);
    fixture_fini(&f);
}

static uint32_t below(uint64_t seed, uint64_t *at, uint32_t n)
{
    return (uint32_t)(philox_uniform(seed, (*at)++) * n);
}

/* Arrivals, cancels and priorities at random over pools from just enough to plenty.  Everything that is
 * not cancelled must finish, in a number of steps that counts every preemption against it. */
static void adversarial_schedules_finish(void **state)
{
    enum { SEEDS = 150, ARRIVALS = 60, STEPS_MAX = 60000 };

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct fixture f;
        uint64_t at = 0;
        uint32_t n_pages = 12 + below(seed, &at, seed % 3 == 0 ? 200 : 12);
        uint32_t tokens_max = n_pages * 8 < 256 ? n_pages * 8 : 256;
        uint32_t n_left = ARRIVALS, n_steps = 0, n_finished = 0, n_cancelled = 0;

        fixture_init(&f, 1 + below(seed, &at, 20), 16 + below(seed, &at, 64), n_pages);
        while (n_left + f.scheduler.n_running + f.scheduler.n_waiting > 0) {
            uint32_t n_live = f.scheduler.n_running + f.scheduler.n_waiting;
            if (n_left > 0 && n_live < 60 && below(seed, &at, 3) == 0) {
                uint32_t n_prompt = 1 + below(seed, &at, tokens_max - 1);
                uint32_t n_more = 1 + below(seed, &at, tokens_max - n_prompt);
                struct sequence *q =
                    sequence_fixture_add(&f.s, n_prompt, n_more, (int32_t)below(seed, &at, 3));
                if (seed % 2) /* prompts that begin alike, in three kinds */
                    for (uint32_t i = 0, kind = below(seed, &at, 3); i < n_prompt * 3 / 4; i++)
                        q->tokens[i] = (int32_t)(1000 * kind + i);
                q->suspect = below(seed, &at, 20) == 0;
                scheduler_add(&f.scheduler, q);
                n_left--;
            }
            n_finished += run_plan(&f, step_within(&f, 1 + below(seed, &at, 20)));
            if (f.scheduler.n_running > 0 && below(seed, &at, 200) == 0) {
                struct sequence *q = f.scheduler.running[below(seed, &at, f.scheduler.n_running)];
                scheduler_remove(&f.scheduler, q);
                sequence_fixture_remove(&f.s, q);
                n_cancelled++;
            }
            if (++n_steps > STEPS_MAX)
                fail_msg("seed %u does not end", (unsigned)seed);
        }
        assert_int_equal(n_finished + n_cancelled, ARRIVALS);
        sequence_fixture_assert_idle(&f.s);
        fixture_fini(&f);
    }
}

/* Adopted from a dead worker: it has pages, so it is in the running set, and its decode is one row. */
static void a_sequence_with_pages_runs_at_once(void **state)
{
    struct sequence_fixture f;
    struct scheduler s;
    struct sequence *with, *without;
    const struct plan *plan;

    (void)state;
    sequence_fixture_init(&f, 4, 64, 10, 8);
    scheduler_init(&s,
                   &(struct scheduler_limits){
                       .max_num_seqs = 4, .max_num_batched_tokens = 16, .sequences_max = 4 },
                   &f.cache);
    without = sequence_fixture_add(&f, 12, 20, 0);
    with = sequence_fixture_add(&f, 12, 20, 0);
    assert_true(kvcache_grow(&f.cache, with, 11)); /* as after kvcache_adopt() */
    kvcache_commit(&f.cache, with, 11);
    scheduler_add(&s, without);
    scheduler_add(&s, with);
    assert_int_equal(with->state, SEQUENCE_RUNNING);
    assert_int_equal(without->state, SEQUENCE_WAITING);
    plan = scheduler_plan(&s, &(struct plan_limits){ UINT32_MAX, 0 });
    assert_int_equal(plan->n_items, 2);
    assert_ptr_equal(plan->items[0].sequence, with);
    assert_int_equal(plan->items[0].n_rows, 1);
    assert_true(plan->items[0].wants_logits);
    scheduler_remove(&s, with);
    scheduler_remove(&s, without);
    sequence_fixture_assert_idle(&f);
    scheduler_fini(&s);
    sequence_fixture_fini(&f);
}

/* ---- prompts beside each other, and beside streams ---- */

/* A short prompt is read at once, a long one gets on all the same. */
static void a_short_prompt_does_not_wait_for_a_long_one(void **state)
{
    struct fixture f;
    struct sequence *long_one, *other, *small;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100);
    long_one = add(&f, 200, 20, 0);
    run_plan(&f, step(&f));
    other = add(&f, 150, 20, 0);
    small = add(&f, 10, 20, 0);
    p = step(&f);
    assert_int_equal(rows_of(p, small), 10);
    assert_int_equal(rows_of(p, long_one), 4); /* its quarter, as the first of all */
    assert_int_equal(rows_of(p, other), 2);
    assert_true(item_of(p, small)->wants_logits);
    run_plan(&f, p);
    p = step(&f);
    assert_int_equal(rows_of(p, small), 1);
    assert_int_equal(rows_of(p, long_one), 4);
    assert_int_equal(rows_of(p, other), 11);
    fixture_fini(&f);
}

/* Short ones that keep coming do not keep a long one from its end. */
static void a_long_prompt_ends_though_short_ones_keep_coming(void **state)
{
    struct fixture f;
    struct sequence *long_one;
    uint32_t n_steps = 0;

    (void)state;
    fixture_init(&f, 8, 16, 400);
    long_one = add(&f, 200, 20, 0);
    while (long_one->n_generated == 0) {
        if (f.scheduler.n_running < 8)
            add(&f, 16, 1, 0);
        run_plan(&f, step(&f));
        assert_true(++n_steps <= 50); /* four rows each */
    }
    fixture_fini(&f);
}

/* Beside dear streams a step may have room for one row: three of four are for the short one. */
static void single_rows_are_shared_too(void **state)
{
    struct fixture f;
    struct sequence *long_one, *small;

    (void)state;
    fixture_init(&f, 8, 64, 100);
    add(&f, 4, 40, 0);
    run_plan(&f, step(&f));
    long_one = add(&f, 200, 20, 0);
    small = add(&f, 12, 20, 0);
    for (uint32_t i = 0; i < 12; i++)
        run_plan(&f, step_within(&f, 1));
    assert_int_equal(long_one->n_computed, 3);
    assert_int_equal(small->n_computed, 9);
    run_plan(&f, step_within(&f, 0)); /* and a step may have none */
    assert_int_equal(small->n_computed, 9);
    fixture_fini(&f);
}

static void a_higher_priority_is_read_first(void **state)
{
    struct fixture f;
    struct sequence *low, *high;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100);
    low = add(&f, 20, 20, 1);
    high = add(&f, 100, 20, 0);
    p = step(&f);
    assert_int_equal(rows_of(p, high), 16);
    assert_int_equal(rows_of(p, low), 0);
    fixture_fini(&f);
}

static void prompts_keep_to_their_rows_beside_streams(void **state)
{
    struct fixture f;
    struct sequence *stream, *prompt;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 64, 100);
    stream = add(&f, 4, 3, 0);
    run_plan(&f, step_within(&f, 1)); /* nobody streams: no limit */
    prompt = add(&f, 100, 20, 0);
    for (uint32_t i = 0; i < 2; i++) {
        p = step_within(&f, 5);
        assert_int_equal(rows_of(p, stream), 1);
        assert_int_equal(rows_of(p, prompt), 5);
        assert_int_equal(p->n_streams, 1);
        run_plan(&f, p);
    }
    p = step_within(&f, 5); /* the stream has ended */
    assert_int_equal(rows_of(p, prompt), 64);
    assert_int_equal(p->n_streams, 0);
    fixture_fini(&f);
}

/* ---- drafts ---- */

/* A stream that says n n+1 n+2 n+3 again and again, n being ten times the number of its entry, plus 1. */
static struct sequence *add_parrot(struct fixture *f, uint32_t n_prompt, uint32_t max_tokens)
{
    struct sequence *q = sequence_fixture_add(&f->s, n_prompt, max_tokens, 0);

    for (uint32_t i = 0; i < n_prompt; i++)
        q->tokens[i] = (int32_t)(10 * q->index + 1 + i % 4);
    scheduler_add(&f->scheduler, q);
    return q;
}

static const struct plan *step_with_drafts(struct fixture *f, uint32_t draft_rows)
{
    return scheduler_plan(&f->scheduler, &(struct plan_limits){ UINT32_MAX, draft_rows });
}

/* The prompts are read, and each stream is at its second token. */
static void start_parrots(struct fixture *f)
{
    const struct plan *p = step(f);

    for (uint32_t i = 0; i < p->n_items; i++) {
        struct sequence *q = p->items[i].sequence;
        kvcache_commit(&f->s.cache, q, q->n_computed + p->items[i].n_rows);
        sequence_append(
            q, &f->s.ledger,
            &(struct sampler_output){ .token = (int32_t)(10 * q->index + 1 + q->n_prompt % 4) });
    }
}

static void streams_share_the_rows_for_drafts(void **state)
{
    struct fixture f;
    struct sequence *a, *b, *c;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 64, 100);
    a = add_parrot(&f, 12, 40);
    b = add_parrot(&f, 16, 40);
    c = add(&f, 12, 40, 0); /* says nothing twice */
    start_parrots(&f);
    p = step_with_drafts(&f, 9);
    assert_int_equal(p->n_streams, 3);
    assert_int_equal(item_of(p, a)->n_drafts, 3);
    assert_int_equal(item_of(p, b)->n_drafts, 3);
    assert_int_equal(item_of(p, c)->n_drafts, 0);
    assert_int_equal(p->n_drafts, 6);
    assert_int_equal(p->n_rows, 9);
    assert_int_equal(a->tokens[13], 2); /* behind 12 and the one it made */
    assert_int_equal(a->tokens[15], 4);
    assert_int_equal(step_with_drafts(&f, 0)->n_rows, 3);
    assert_int_equal(step_with_drafts(&f, UINT32_MAX)->n_drafts, 14);
    add(&f, 30, 5, 0); /* somebody is read: no drafts */
    assert_int_equal(step_with_drafts(&f, UINT32_MAX)->n_drafts, 0);
    fixture_fini(&f);
}

static void no_draft_lies_behind_the_end(void **state)
{
    struct fixture f;
    struct sequence *q;

    (void)state;
    fixture_init(&f, 8, 64, 100);
    q = add_parrot(&f, 12, 4);
    start_parrots(&f);
    assert_int_equal(item_of(step_with_drafts(&f, UINT32_MAX), q)->n_drafts, 2); /* 1 + 2 to come */
    fixture_fini(&f);
}

/* The pool is used up: drafts go as far as the page that is there. */
static void drafts_take_no_page_of_another(void **state)
{
    struct fixture f;
    struct sequence *q;

    (void)state;
    fixture_init(&f, 8, 64, 4); /* pages of 8 */
    q = add_parrot(&f, 12, 12);
    add(&f, 7, 2, 0);
    start_parrots(&f);
    assert_int_equal(item_of(step_with_drafts(&f, UINT32_MAX), q)->n_drafts, 7);
    assert_int_equal(q->n_pages, 3);
    fixture_fini(&f);
    fixture_init(&f, 8, 64, 2);
    q = add_parrot(&f, 12, 12);
    start_parrots(&f);
    assert_int_equal(item_of(step_with_drafts(&f, UINT32_MAX), q)->n_drafts, 16 - 13);
    assert_int_equal(q->n_pages, 2);
    fixture_fini(&f);
}

/* A sequence like another one, up to token n_common. */
static struct sequence *add_like(struct fixture *f, const struct sequence *q, uint32_t n_common,
                                 uint32_t n_prompt, int32_t priority)
{
    struct sequence *like = sequence_fixture_add(&f->s, n_prompt, 20, priority);

    for (uint32_t i = 0; i < n_common; i++)
        like->tokens[i] = q->tokens[i];
    scheduler_add(&f->scheduler, like);
    return like;
}

/* Three prompts begin with the same 40 tokens: those are computed by the first alone. */
static void one_computes_what_many_begin_with(void **state)
{
    struct fixture f;
    struct sequence *a, *b, *c, *other;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100); /* pages of 8 */
    a = add(&f, 43, 20, 0);
    b = add_like(&f, a, 40, 50, 0);
    c = add_like(&f, a, 43, 43, 0);
    other = add_like(&f, a, 7, 30, 0); /* no whole page in common */
    while (a->n_computed < 40) {
        p = step(&f);
        assert_int_equal(b->state, SEQUENCE_WAITING);
        assert_int_equal(c->state, SEQUENCE_WAITING);
        assert_int_equal(other->state, SEQUENCE_RUNNING); /* it may pass them */
        run_plan(&f, p);
    }
    p = step(&f);
    assert_int_equal(b->n_computed, 40);
    assert_int_equal(c->n_computed, 40);
    assert_memory_equal(a->pages, b->pages, 5 * sizeof *a->pages);
    assert_int_equal(p->n_looked_up, 50 + 43);
    assert_int_equal(p->n_found, 40 + 40);
    fixture_fini(&f);
}

/* Nobody waits for one that does not get on, or that comes later in the order. */
static void a_held_sequence_waits_no_longer_than_its_holder_runs(void **state)
{
    struct fixture f;
    struct sequence *a, *b, *urgent;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 16, 100);
    a = add(&f, 80, 20, 0);
    b = add_like(&f, a, 80, 90, 0);
    run_plan(&f, step(&f));
    assert_int_equal(b->state, SEQUENCE_WAITING);
    urgent = add_like(&f, a, 80, 85, -1);
    p = step(&f);
    assert_int_equal(urgent->state, SEQUENCE_RUNNING);
    assert_int_equal(urgent->n_computed, 16); /* what there was */
    run_plan(&f, p);
    scheduler_remove(&f.scheduler, a);
    sequence_fixture_remove(&f.s, a);
    run_plan(&f, step(&f));
    assert_int_equal(b->state, SEQUENCE_WAITING); /* held by the urgent one now */
    scheduler_remove(&f.scheduler, urgent);
    sequence_fixture_remove(&f.s, urgent);
    p = step(&f);
    assert_int_equal(b->state, SEQUENCE_RUNNING);
    assert_true(b->n_computed >= 16);
    fixture_fini(&f);
}

/* What is found and in use costs no page: a prompt fits that would not fit alone beside the other. */
static void shared_pages_count_once(void **state)
{
    struct fixture f;
    struct sequence *a, *b;

    (void)state;
    fixture_init(&f, 8, 64, 10);
    a = add(&f, 57, 3, 0); /* 8 pages */
    run_plan(&f, step(&f));
    b = add_like(&f, a, 56, 57, 0);
    step(&f);
    assert_int_equal(b->state, SEQUENCE_RUNNING);
    assert_int_equal(f.s.cache.n_used, 9);
    fixture_fini(&f);
}

/* ---- what is said of prompts ---- */

static struct sequence *add_measured(struct fixture *f, uint32_t n_prompt)
{
    struct sequence *q = sequence_fixture_add(&f->s, n_prompt, 3, 0);

    q->request->want_prompt_logprobs = true;
    q->n_measured = 1;
    atomic_store(&q->entry->n_measured, 1);
    scheduler_add(&f->scheduler, q);
    return q;
}

static void measure_all(struct fixture *f, const struct plan *p)
{
    for (uint32_t i = 0; i < p->n_items; i++) {
        struct sequence *q = p->items[i].sequence;
        for (uint32_t k = 0; k < p->items[i].n_measures; k++)
            sequence_measure(q, &f->s.ledger,
                             &(struct sampler_output){ .token = q->tokens[q->n_measured] });
    }
}

/* A step has few logits: measured prompts are read in small chunks, one behind the other, and prompts that are not
 * measured get the rows that are left. */
static void measured_prompts_share_the_logits_of_a_step(void **state)
{
    struct fixture f;
    struct sequence *a, *b, *plain;
    const struct plan *p;
    uint32_t n_steps = 0;

    (void)state;
    fixture_init(&f, 8, 200, 200);
    a = add_measured(&f, 100);
    b = add_measured(&f, 120);
    plain = add(&f, 90, 3, 0);
    p = step(&f);
    assert_int_equal(rows_of(p, a), BATCH_EXTRA_LOGITS);
    assert_int_equal(rows_of(p, b), 0);
    assert_int_equal(rows_of(p, plain), 90);
    while (a->n_generated == 0 || b->n_generated == 0) {
        measure_all(&f, p);
        run_plan(&f, p);
        assert_true(a->n_generated == 0 || a->n_measured == 100);
        assert_true(b->n_generated == 0 || b->n_measured == 120);
        p = step(&f);
        assert_true(++n_steps < 12);
    }
    fixture_fini(&f);
}

/* Only KV whose tokens are measured already is of use to it. */
static void a_measured_prompt_finds_what_was_measured_before(void **state)
{
    struct fixture f;
    struct sequence *a, *b;

    (void)state;
    fixture_init(&f, 8, 200, 200);
    a = add(&f, 80, 3, 0);
    run_plan(&f, step(&f));
    b = sequence_fixture_add(&f.s, 80, 3, 0);
    memcpy(b->tokens, a->tokens, 80 * sizeof *b->tokens);
    b->request->want_prompt_logprobs = true;
    b->n_measured = 1;
    assert_int_equal(sequence_n_findable(b), 0);
    b->n_measured = 42; /* preempted there */
    atomic_store(&b->entry->n_measured, 42);
    scheduler_add(&f.scheduler, b);
    step(&f);
    assert_int_equal(b->n_computed, 40);
    fixture_fini(&f);
}

/* An embedding's last row is no draw, and no draft lies behind it. */
static void a_sequence_that_ends_with_its_prompt_draws_nothing(void **state)
{
    struct fixture f;
    struct sequence *q;
    const struct plan *p;

    (void)state;
    fixture_init(&f, 8, 64, 40);
    q = sequence_fixture_add(&f.s, 1, 0, 0);
    q->request->pooling = LLMD__POOLING__POOL_LAST;
    q->finish_due = LLMD__FINISH__FINISH_EMBEDDED;
    scheduler_add(&f.scheduler, q);
    p = step(&f);
    assert_int_equal(rows_of(p, q), 1);
    assert_false(item_of(p, q)->wants_logits);
    assert_int_equal(p->n_drafts, 0);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_goes_first_and_prefill_takes_the_rest),
        cmocka_unit_test(nobody_overtakes_within_a_priority),
        cmocka_unit_test(pages_run_out_and_the_newest_gives_way),
        cmocka_unit_test(a_higher_priority_takes_the_place_of_a_lower),
        cmocka_unit_test(a_priority_that_would_not_fit_preempts_nobody),
        cmocka_unit_test(more_sequences_than_rows_still_all_decode),
        cmocka_unit_test(suspects_run_one_at_a_time_until_they_made_a_token),
        cmocka_unit_test(adversarial_schedules_finish),
        cmocka_unit_test(a_sequence_with_pages_runs_at_once),
        cmocka_unit_test(a_short_prompt_does_not_wait_for_a_long_one),
        cmocka_unit_test(a_long_prompt_ends_though_short_ones_keep_coming),
        cmocka_unit_test(single_rows_are_shared_too),
        cmocka_unit_test(a_higher_priority_is_read_first),
        cmocka_unit_test(prompts_keep_to_their_rows_beside_streams),
        cmocka_unit_test(streams_share_the_rows_for_drafts),
        cmocka_unit_test(no_draft_lies_behind_the_end),
        cmocka_unit_test(drafts_take_no_page_of_another),
        cmocka_unit_test(one_computes_what_many_begin_with),
        cmocka_unit_test(a_held_sequence_waits_no_longer_than_its_holder_runs),
        cmocka_unit_test(shared_pages_count_once),
        cmocka_unit_test(measured_prompts_share_the_logits_of_a_step),
        cmocka_unit_test(a_measured_prompt_finds_what_was_measured_before),
        cmocka_unit_test(a_sequence_that_ends_with_its_prompt_draws_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
