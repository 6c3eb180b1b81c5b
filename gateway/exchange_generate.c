/* exchange_generate.c - a request that is to be generated: it waits for its turn, its sequences are submitted some at a
 * time, their tokens come, until all have ended or the time is up. */
#include "gateway/exchange_state.h"

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "gateway/exchange_answer.h"

enum { RESUMED_MS = 2000 }; /* a request that was taken over has at least this long */

/* The dead gateway had drawn ids for it: its sequences are asked for where they were last sent. */
static bool has_sequences(const struct exchange *x)
{
    return x->is_restored && x->record->shared->n_sequences == x->rq.n_candidates;
}

/* ---- before its turn ---- */

static void log_prompts(const struct exchange *x)
{
    const struct request *rq = &x->rq;

    if (!atomic_load(&rq->service->logs_prompts))
        return;
    for (uint32_t i = 0; i < rq->n_prompts; i++) {
        const struct prompt *p = &rq->prompts[i];
        log_request(LOG_INFO, x->id, "prompt tokens=%u text=\"%.*s\"", p->n_ids,
                    p->text ? (int)p->text_bytes : 0, p->text ? p->text : "");
    }
}

static void count_prompt(struct exchange *x)
{
    const struct request *rq = &x->rq;

    if (!record_counts(x->record, CONNECTION_COUNTED_PROMPT))
        return;
    log_prompts(x);
    admission_charge_prompt(exchange_admission(x), x->key, request_prompt_tokens(rq),
                            clock_mono_ns());
    stat_add(exchange_stats(x), STAT_gateway_prompt_tokens, request_prompt_tokens(rq));
    hist_observe(exchange_stats(x), HIST_request_prompt_tokens, (double)request_prompt_tokens(rq));
    hist_observe(exchange_stats(x), HIST_request_max_tokens, rq->choices[0].seq.submit.max_tokens);
    hist_observe(exchange_stats(x), HIST_request_answers, rq->n);
}

/* Between keys it is the operator who decides; a client's own wish orders what its key waits for. */
static int32_t priority_in_group(const struct exchange *x)
{
    const struct key_table *keys = &exchange_admission(x)->keys;

    if (!atomic_load(&keys->asks))
        return x->rq.priority;
    return atomic_load(&key_table_record(keys, x->key)->priority);
}

/* A successor begins a beam search again, so nothing of it is recorded. */
static void prepare_sequences(struct exchange *x)
{
    struct request *rq = &x->rq;

    x->n_charged = record_old_charged(x->record);
    if (has_sequences(x))
        x->first_sequence_id = x->record->shared->first_sequence_id;
    else if (!rq->beam.width)
        x->first_sequence_id = upstream_draw_ids(x->thread->upstream, rq->n_candidates);
    record_waiting(x->record, rq, x->first_sequence_id);
    count_prompt(x);
    for (uint32_t i = 0; i < rq->n_candidates; i++) {
        rq->choices[i].seq.submit.priority = priority_in_group(x);
        rq->choices[i].seq.submit.request_id = x->id;
    }
}

/* The dead gateway had sent it. */
static bool has_gone(const struct exchange *x)
{
    if (!has_sequences(x))
        return false;
    for (uint32_t i = 0; i < x->rq.n_candidates && i < CONNECTION_SEQUENCES_MAX; i++)
        if (x->record->shared->group[i] != CONNECTION_NO_GROUP)
            return true;
    return false;
}

/* That run at a time. */
static uint32_t sequences_at_once(const struct request *rq)
{
    uint32_t n = rq->beam.width ? rq->beam.width * rq->n_prompts : rq->n_candidates;

    return n < CONNECTION_SEQUENCES_MAX ? n : CONNECTION_SEQUENCES_MAX;
}

/* False: it has to wait for its turn. */
static bool take_turn(struct exchange *x)
{
    struct turn *t = &x->turn;

    t->gate = &x->thread->gate;
    t->owner = x;
    t->waiter.key = x->key;
    t->waiter.priority = x->rq.priority;
    t->waiter.n_sequences = sequences_at_once(&x->rq);
    t->waiter.prompt_tokens = request_prompt_tokens(&x->rq);
    if (!has_gone(x))
        return admission_wait(exchange_admission(x), t, clock_mono_ns());
    admission_go_on(exchange_admission(x), t);
    return true;
}

/* ---- tokens come ---- */

/* What a successor is told again it does not charge again.  Of a beam search the answers are charged. */
static void charge_generated(struct exchange *x)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        n += x->rq.choices[i].seq.n_tokens;
    if (n <= x->n_charged)
        return;
    admission_charge_generated(exchange_admission(x), x->key, n - x->n_charged, clock_mono_ns());
    x->n_charged = n;
    record_charged(x->record, n);
}

static void note_first_token(struct exchange *x, uint64_t came_ns)
{
    if (!came_ns || x->first_token_ns)
        return;
    x->first_token_ns = came_ns;
    record_first_token(x->record, &x->first_token_ns);
    if (record_counts(x->record, CONNECTION_COUNTED_FIRST_TOKEN))
        hist_observe(exchange_stats(x), HIST_time_to_first_token_seconds,
                     (double)(came_ns - x->rq.started_ns) / 1e9);
}

static void submit_more(struct exchange *x);

static void on_progress(struct sequence *s)
{
    struct choice *c = s->owner;
    struct exchange *x = c->rq->owner;
    bool was_running = c->end == CHOICE_RUNNING;

    if (http_is_ended(x->http))
        return;
    fault_point("gateway.tokens");
    record_group(x->record, (uint32_t)(c - x->rq.choices), s->group);
    choice_take(c);
    charge_generated(x);
    note_first_token(x, s->first_token_ns);
    if (c->end == CHOICE_FAILED) {
        exchange_fail_choice(x, c);
        return;
    }
    if (was_running && c->end != CHOICE_RUNNING) {
        x->rq.n_ended++;
        upstream_cancel(x->thread->upstream, s); /* a stop string: the worker does not know */
        submit_more(x);
        if (x->rq.n_ended == x->rq.n_candidates) /* its client may read slowly */
            admission_leave(exchange_admission(x), &x->turn);
    }
    exchange_pump(x);
}

static void on_beams(void *owner, const struct fault *f)
{
    struct exchange *x = owner;

    if (http_is_ended(x->http))
        return;
    note_first_token(x, beam_run_first_token_ns(x->beams));
    if (f) {
        exchange_fail(x, f);
        return;
    }
    charge_generated(x);
    x->rq.n_ended = x->rq.n_candidates;
    admission_leave(exchange_admission(x), &x->turn);
    exchange_pump(x);
}

/* ---- its turn ---- */

static void submit_choice(struct exchange *x, uint32_t i)
{
    struct choice *c = &x->rq.choices[i];

    c->seq.id = x->first_sequence_id + i;
    c->seq.on_progress = on_progress;
    c->seq.owner = c;
    if (has_sequences(x))
        upstream_adopt(x->thread->upstream, &c->seq, x->record->shared->group[i]);
    else
        upstream_submit(x->thread->upstream, &c->seq);
    if (c->seq.state == SEQUENCE_SUBMITTED)
        record_group(x->record, i, c->seq.group);
}

/* A request may have more sequences than are good for others to wait behind: they run some at a time. */
static void submit_more(struct exchange *x)
{
    while (x->n_submitted < x->rq.n_candidates &&
           x->n_submitted - x->rq.n_ended < CONNECTION_SEQUENCES_MAX)
        submit_choice(x, x->n_submitted++);
}

static void search_beams(struct exchange *x)
{
    x->beams = beam_run_new(&x->rq, x->thread->upstream, on_beams, x);
    beam_run_start(x->beams);
}

static void submit_all(struct exchange *x)
{
    if (x->rq.beam.width)
        search_beams(x);
    else
        submit_more(x);
    fault_point("gateway.submit");
    thread_arm_tick(x->thread);
}

void exchange_go(struct exchange *x)
{
    x->went_ns = clock_mono_ns();
    if (x->turn.since_ns)
        hist_observe(exchange_stats(x), HIST_request_turn_seconds,
                     (double)(x->went_ns - x->turn.since_ns) / 1e9);
    record_went(x->record, &x->went_ns);
    if (!http_is_ended(x->http))
        submit_all(x);
}

/* ---- out of time ---- */

/* An answer that a dead gateway has begun must be what it was, or nothing. */
static bool can_be_cut(const struct exchange *x)
{
    if (!x->rq.cuts_at_deadline || http_is_behind(x->http))
        return false;
    if (x->beams)
        return beam_run_first_token_ns(x->beams) != 0;
    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        if (x->rq.choices[i].n_done > 0)
            return true;
    return false;
}

/* Out of time: what there is, is the answer. */
static void cut(struct exchange *x)
{
    if (x->beams)
        beam_run_abort(x->beams);
    exchange_cancel(x);
    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        choice_cut(&x->rq.choices[i]);
    x->rq.n_ended = x->rq.n_candidates;
    x->rq.is_cut = true;
    exchange_pump(x);
}

static void on_deadline(void *arg)
{
    struct exchange *x = arg;
    struct fault f;

    if (can_be_cut(x)) {
        cut(x);
        return;
    }
    fault_set(&f, FAULT_TIMEOUT, "", "the request took longer than %llu s",
              (unsigned long long)((x->rq.deadline_ns - x->rq.started_ns) / NS_PER_S));
    exchange_fail(x, &f);
}

/* A deadline that passed while no gateway was there: what the worker has made meanwhile comes first. */
static void set_deadline(struct exchange *x)
{
    uint64_t now_ns = clock_mono_ns();
    uint64_t least_ns = x->is_restored ? RESUMED_MS * NS_PER_MS : 0;
    uint64_t left_ns = x->rq.deadline_ns > now_ns ? x->rq.deadline_ns - now_ns : 0;

    x->deadline = loop_timer_new(x->thread->loop, on_deadline, x);
    loop_timer_set(x->deadline, left_ns > least_ns ? left_ns : least_ns);
}

/* ---- all of it ---- */

void exchange_generate(struct exchange *x)
{
    set_deadline(x);
    if (x->rq.is_stream && x->rq.dialect->keep_alive_s)
        x->keep_alive = loop_timer_new(x->thread->loop, exchange_keep_alive, x);
    prepare_sequences(x);
    if (take_turn(x))
        exchange_go(x);
}
