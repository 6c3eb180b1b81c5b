/* exchange_answer.c - what goes out: a whole answer, a stream, a refusal; and the end, counted once. */
#include "gateway/exchange_answer.h"

#include "common/clock.h"
#include "common/log.h"
#include "gateway/admission/account.h"
#include "gateway/exchange_state.h"

#define KEEP_ALIVE ":\n\n"

/* ---- the end, counted once ---- */

/* Before the answer's last byte: its client may ask again as soon as it has that. */
static void leave_key(struct exchange *x)
{
    if (x->is_of_key)
        admission_answered(exchange_admission(x), x->key);
    x->is_of_key = false;
}

void exchange_account(struct exchange *x, enum stat_id cause, const char *outcome)
{
    const struct request *rq = &x->rq;
    double seconds = (double)(clock_mono_ns() - rq->started_ns) / 1e9;

    if (x->is_accounted)
        return;
    x->is_accounted = true;
    leave_key(x);
    if (!record_counts(x->record, CONNECTION_COUNTED_END))
        return;
    stat_add(exchange_stats(x), cause, 1);
    if (rq->choices) {
        hist_observe(exchange_stats(x), HIST_request_seconds, seconds);
        hist_observe(exchange_stats(x), HIST_request_generated_tokens,
                     (double)request_generated_tokens(rq));
    }
    if (cause == STAT_requests_finished_stop || cause == STAT_requests_finished_length)
        account_parts(exchange_stats(x), rq, x->went_ns, x->first_token_ns);
    log_request(LOG_INFO, x->id,
                "request path=\"%s\" dialect=%s stream=%d outcome=%s choices=%u prompt_tokens=%llu "
                "tokens=%llu ms=%.1f",
                http_request_path(x->http), rq->dialect->name, rq->is_stream, outcome,
                rq->n_choices, (unsigned long long)request_prompt_tokens(rq),
                (unsigned long long)request_generated_tokens(rq), seconds * 1e3);
}

static void account_fault(struct exchange *x, enum fault_kind kind)
{
    switch (kind) {
    case FAULT_OVERLOADED:
        exchange_account(x, STAT_requests_refused_overload, fault_name(kind));
        break;
    case FAULT_UNAVAILABLE:
        exchange_account(x, STAT_requests_refused_unavailable, fault_name(kind));
        break;
    case FAULT_TEMPLATE:
        exchange_account(x, STAT_requests_refused_template, fault_name(kind));
        break;
    case FAULT_TIMEOUT:
    case FAULT_GENERATION:
        exchange_account(x, STAT_requests_finished_error, fault_name(kind));
        break;
    default:
        exchange_account(x, STAT_requests_refused_invalid, fault_name(kind));
        break;
    }
}

static void account_finished(struct exchange *x)
{
    bool any_length = false, any_abort = false;

    for (uint32_t i = 0; i < x->rq.n_choices; i++) {
        const struct choice *c = request_choice(&x->rq, i);
        any_length |= c->end == CHOICE_LENGTH || c->end == CHOICE_TIME;
        any_abort |= c->end == CHOICE_ABORTED;
    }
    if (any_abort)
        exchange_account(x, STAT_requests_finished_error, "aborted");
    else if (any_length)
        exchange_account(x, STAT_requests_finished_length, x->rq.is_cut ? "deadline" : "length");
    else
        exchange_account(x, STAT_requests_finished_stop, "stop");
}

/* Nothing of it is computed any more. */
void exchange_cancel(struct exchange *x)
{
    admission_leave(exchange_admission(x), &x->turn);
    if (x->beams)
        beam_run_cancel(x->beams);
    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        upstream_cancel(x->thread->upstream, &x->rq.choices[i].seq);
}

static void stop_timers(struct exchange *x)
{
    if (x->deadline)
        loop_timer_clear(x->deadline);
    if (x->keep_alive)
        loop_timer_clear(x->keep_alive);
}

/* ---- refusing and failing ---- */

/* The stream ended here by a fault, in the dead gateway. */
static bool is_at_old_fault(const struct exchange *x)
{
    return x->old_fault.kind != FAULT_NONE && x->n_events == x->old_fault_at;
}

/* The client has had more of the dead gateway's answer than can be made again: no honest end but a cut. */
static void give_up(struct exchange *x, enum fault_kind kind)
{
    account_fault(x, kind);
    http_abort(x->http);
}

void exchange_refuse(struct exchange *x, const struct fault *f)
{
    const struct dialect *d = x->rq.dialect;
    bool in_stream = x->rq.is_stream && d->faults_in_stream && f->kind > FAULT_SCHEMA &&
                     f->kind != FAULT_UNAVAILABLE;
    struct reply r;

    if (http_is_behind(x->http)) {
        give_up(x, f->kind);
        return;
    }
    reply_init(&r);
    if (in_stream) {
        d->begin(&x->rq, &r);
        d->stream_fault(&x->rq, f, &r.body);
        if (f->kind == FAULT_OVERLOADED)
            reply_header(&r, "Retry-After", "%u", f->retry_after_s);
    } else {
        d->fault(f, &r);
    }
    account_fault(x, f->kind);
    thread_add_request_id(x->thread, x->http, x->rq.answer_id, &r);
    thread_send(x->thread, x->http, &r);
    reply_fini(&r);
}

/* The answer cannot be completed.  What has been sent stands; the stream's last event says why. */
void exchange_fail(struct exchange *x, const struct fault *fault)
{
    struct fault f = *fault;
    struct buf out = { 0 };

    exchange_cancel(x);
    stop_timers(x);
    if (http_is_ended(x->http))
        return;
    if (!http_is_started(x->http)) {
        exchange_refuse(x, &f);
        return;
    }
    if (http_is_behind(x->http) && !is_at_old_fault(x)) {
        give_up(x, f.kind);
        return;
    }
    record_fault(x->record, &f, x->n_events);
    x->rq.dialect->stream_fault(&x->rq, &f, &out);
    http_write(x->http, out.data, out.n);
    account_fault(x, f.kind);
    http_end(x->http);
    buf_fini(&out);
}

/* Caches differ from time to time: what an answer tells of them is told once. */
static void settle_cached(struct exchange *x)
{
    struct request *rq = &x->rq;

    if (rq->has_cached)
        return;
    rq->cached_tokens = request_cached_tokens(rq);
    rq->has_cached = true;
    record_cached(x->record, rq);
}

/* ---- the plain answer ---- */

static void answer_whole(struct exchange *x)
{
    struct reply r;

    stop_timers(x);
    reply_init(&r);
    request_choose(&x->rq);
    settle_cached(x);
    x->rq.dialect->whole(&x->rq, &r);
    thread_add_request_id(x->thread, x->http, x->rq.answer_id, &r);
    record_answered(x->record, &x->rq);
    account_finished(x);
    if (!x->rq.is_cut)
        http_set_repeatable(x->http);
    thread_send(x->thread, x->http, &r);
    reply_fini(&r);
}

/* ---- the stream ---- */

static void restart_keep_alive(struct exchange *x)
{
    if (x->keep_alive)
        loop_timer_set(x->keep_alive, x->rq.dialect->keep_alive_s * NS_PER_S);
}

static void start_stream(struct exchange *x)
{
    struct reply r;

    reply_init(&r);
    x->rq.dialect->begin(&x->rq, &r);
    reply_header(&r, "Access-Control-Allow-Origin", "*");
    thread_add_request_id(x->thread, x->http, x->rq.answer_id, &r);
    if (service_is_draining(x->thread->service))
        http_set_close(x->http);
    http_set_repeatable(x->http);
    http_start(x->http, r.status, r.headers, r.n_headers);
    restart_keep_alive(x);
    reply_fini(&r);
}

static void write_piece(struct exchange *x, const struct buf *out)
{
    if (out->n == 0)
        return;
    http_write(x->http, out->data, out->n);
    x->n_events++;
    restart_keep_alive(x);
}

/* The choice whose turn it is: choices show one token each in turn, so that the order of a stream is
 * a function of its tokens and not of their arrival.  NULL: all is shown. */
static struct choice *choice_in_turn(struct request *rq)
{
    for (uint32_t i = 0; i < rq->n_choices; i++) {
        struct choice *c = &rq->choices[(rq->turn + i) % rq->n_choices];
        if (c->end_shown)
            continue;
        rq->turn = c->index;
        return c;
    }
    return NULL;
}

/* A failed choice has no last piece: exchange_fail() ends the stream behind its tokens. */
static bool has_piece(const struct choice *c)
{
    return c->n_shown < c->n_done || (c->end != CHOICE_RUNNING && c->end != CHOICE_FAILED);
}

static void show_next(struct exchange *x, struct choice *c, struct buf *out)
{
    uint32_t i = c->n_shown;

    if (i < c->n_done)
        c->n_shown++;
    c->end_shown = choice_ends_at(c, i);
    x->rq.dialect->token(&x->rq, c, i, out);
    x->rq.turn = (c->index + 1) % x->rq.n_choices;
    write_piece(x, out);
}

/* What came by the clock comes at the same places again. */
static void repeat_comments(struct exchange *x)
{
    const struct connection_record *shared = x->n_old_comments ? x->record->shared : NULL;

    while (x->n_comments < x->n_old_comments &&
           shared->keep_alive_at[x->n_comments] == x->n_events) {
        http_write(x->http, KEEP_ALIVE, sizeof KEEP_ALIVE - 1);
        x->n_comments++;
    }
}

static void pump_stream(struct exchange *x)
{
    struct request *rq = &x->rq;
    struct buf out = { 0 };
    struct choice *c = NULL;

    if (http_is_ended(x->http))
        return;
    if (!http_is_started(x->http))
        start_stream(x);
    repeat_comments(x);
    while (!is_at_old_fault(x) && (c = choice_in_turn(rq)) && has_piece(c) &&
           !http_is_congested(x->http)) {
        buf_clear(&out);
        show_next(x, c, &out);
        repeat_comments(x);
    }
    if (is_at_old_fault(x)) {
        exchange_fail(x, &x->old_fault);
    } else if (!c) {
        stop_timers(x);
        buf_clear(&out);
        settle_cached(x);
        rq->dialect->end(rq, &out);
        write_piece(x, &out);
        stop_timers(x);
        account_finished(x);
        http_end(x->http);
    }
    buf_fini(&out);
}

void exchange_pump(struct exchange *x)
{
    if (x->rq.is_stream)
        pump_stream(x);
    else if (x->rq.n_ended == x->rq.n_candidates)
        answer_whole(x);
}

/* The tokens that came with it, or before it, are shown first. */
void exchange_fail_choice(struct exchange *x, struct choice *c)
{
    bool has_begun = http_is_started(x->http) || x->old_fault.kind != FAULT_NONE;
    const struct choice *next = choice_in_turn(&x->rq);

    if (x->rq.is_stream && (has_begun || (next && has_piece(next))))
        pump_stream(x);
    if (x->old_fault.kind == FAULT_NONE || !http_is_behind(x->http))
        exchange_fail(x, &c->seq.fault);
}

void exchange_keep_alive(void *arg)
{
    struct exchange *x = arg;

    if (!http_is_congested(x->http) && !http_is_behind(x->http) &&
        x->n_comments == x->n_old_comments && record_keep_alive(x->record, x->n_events))
        http_write(x->http, KEEP_ALIVE, sizeof KEEP_ALIVE - 1);
    restart_keep_alive(x);
}
