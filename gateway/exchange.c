/* exchange.c - the life of a generation request. */
#include "gateway/exchange.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/exchange_answer.h"
#include "gateway/thread.h"

enum {
    RESUMED_MS = 2000, /* a request that was taken over has at least this long */
    REFUSED_BODY_BYTES =
        64 << 10, /* read of one without a permit, to see how it wants to hear so */
};

static struct stats *stats_of(const struct exchange *x)
{
    return x->thread->service->stats;
}

static struct admission *admission_of(const struct exchange *x)
{
    return &x->thread->service->admission;
}

/* ---- what happens to it ---- */

/* What a successor is told again it does not charge again.  Of a beam search the answers are charged. */
static void charge_generated(struct exchange *x)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        n += x->rq.choices[i].seq.n_tokens;
    if (n <= x->n_charged)
        return;
    admission_charge_generated(admission_of(x), x->key, n - x->n_charged, clock_mono_ns());
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
        hist_observe(stats_of(x), HIST_time_to_first_token_seconds,
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
            admission_leave(admission_of(x), &x->turn);
    }
    exchange_pump(x);
}

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
    admission_leave(admission_of(x), &x->turn);
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

void exchange_abort(struct exchange *x)
{
    struct fault f;

    if (http_is_ended(x->http))
        return;
    if (!x->rq.dialect->can_abort || !x->rq.choices) {
        fault_set(&f, FAULT_GENERATION, "", "the server is shutting down");
        exchange_fail(x, &f);
        return;
    }
    if (x->beams)
        beam_run_abort(x->beams);
    exchange_cancel(x);
    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        choice_abort(&x->rq.choices[i]);
    x->rq.n_ended = x->rq.n_candidates;
    exchange_pump(x);
}

/* ---- from head to sequences ---- */

static uint32_t in_whole_seconds(uint64_t ns)
{
    uint64_t s = (ns + NS_PER_S - 1) / NS_PER_S;

    return s < FAULT_RETRY_AFTER_S ? FAULT_RETRY_AFTER_S
           : s < UINT32_MAX        ? (uint32_t)s
                                   : UINT32_MAX;
}

static bool refuse_permit(struct exchange *x, const struct admission_answer *a, struct fault *f)
{
    static const char *const texts[] = {
        [ADMISSION_FULL] = "the server has no room for another request",
        [ADMISSION_SHARE] = "the server is busy, and this API key has its share of it",
        [ADMISSION_CONCURRENCY] = "API key '%s' may have %llu requests at once",
        [ADMISSION_REQUESTS] = "API key '%s' may make %llu requests per minute",
        [ADMISSION_TOKENS] = "API key '%s' may use %llu tokens per minute",
    };
    char name[KEY_NAME_BYTES];

    if (a->why < ADMISSION_CONCURRENCY)
        return fault_set(f, FAULT_OVERLOADED, "", "%s", texts[a->why]);
    key_table_name(&admission_of(x)->keys, x->key, name);
    fault_set(f, FAULT_OVERLOADED, "", texts[a->why], name, (unsigned long long)a->limit);
    f->retry_after_s = in_whole_seconds(a->wait_ns);
    exchange_account(x, STAT_requests_refused_limited, "limited");
    return false;
}

static bool admit(struct exchange *x, struct fault *f)
{
    struct admission *a = admission_of(x);
    struct admission_answer answer;

    if (!x->rq.dialect->takes(http_request_header(x->http, "Content-Type"), f))
        return false;
    if (record_was_admitted(x->record, &x->key)) {
        admission_take_over(a, x->key);
        x->n_permits = 1;
        x->is_of_key = true;
        return true;
    }
    if (service_refuses(x->thread->service))
        return fault_set(f, FAULT_UNAVAILABLE, "", "the server is shutting down");
    answer = admission_take(a, x->key, clock_mono_ns());
    x->is_of_key = answer.why == ADMISSION_OK;
    x->n_permits = answer.why == ADMISSION_OK;
    if (answer.why != ADMISSION_OK)
        return refuse_permit(x, &answer, f);
    record_admit(x->record, x->key);
    return true;
}

/* One that is short, and says so. */
static bool has_short_body(const struct http_request *http)
{
    const char *length = http_request_header(http, "Content-Length");

    return length && strtoull(length, NULL, 10) <= REFUSED_BODY_BYTES;
}

/* Nothing of the body counts but whether it asks for a stream. */
static void refuse_by_body(struct exchange *x)
{
    const char *body;
    json_t *root;
    size_t n;

    body = http_request_body(x->http, &n);
    root = json_parse(body, n, NULL);
    x->rq.is_stream = json_is_true(json_object_get(root, "stream"));
    json_decref(root);
    exchange_refuse(x, &x->refusal);
}

/* TGI: a permit for each sequence of best_of.  One is there. */
static bool take_more_permits(struct exchange *x, struct fault *f)
{
    uint32_t n = x->rq.n_candidates - 1;

    if (!x->rq.dialect->has_permit_per_sequence || n == 0)
        return true;
    if (!admission_take_more(admission_of(x), n, x->is_restored))
        return fault_set(f, FAULT_OVERLOADED, "", "the server has no room for another request");
    x->n_permits += n;
    return true;
}

void exchange_begin(struct gateway_thread *t, struct http_request *http, const struct route *route,
                    uint32_t key)
{
    struct exchange *x = mem_zalloc(1, sizeof *x);
    struct fault f;
    bool is_new;

    x->thread = t;
    x->http = http;
    x->route = route;
    x->key = key;
    x->next = t->exchanges;
    if (x->next)
        x->next->prev = x;
    t->exchanges = x;
    request_init(&x->rq, t->service, route->dialect, route->variant);
    x->rq.owner = x;
    request_id_of(http, x->rq.answer_id, x->id);
    x->rq.is_stream = route->always_streams;
    x->record = http_conn_user(http_request_conn(http));
    record_reading(x->record, route->dialect->id);
    is_new = record_counts(x->record, CONNECTION_COUNTED_GENERATE);
    record_started(x->record, &x->rq);
    http_request_set_user(http, x);
    http_request_set_body_max(http, atomic_load(&t->service->max_body_bytes));
    if (is_new)
        stat_add(stats_of(x), STAT_requests_generate, 1);
    if (admit(x, &f))
        return;
    if (f.kind == FAULT_OVERLOADED && route->refuses_by_body && has_short_body(http))
        x->refusal = f;
    else
        exchange_refuse(x, &f);
}

/* OCI's edge gives up on an answer after 60 s: before that, what there is beats its error.  On /predict
 * always, and on every route where the edge may send to any.  0: no such limit. */
static uint64_t predict_timeout_s(const struct exchange *x)
{
    const struct service *s = x->thread->service;

    if (x->route->dialect != &dialect_oci && !s->config.deployment_ocid[0])
        return 0;
    return atomic_load(&s->predict_timeout_s);
}

static uint64_t timeout_s(const struct exchange *x)
{
    uint64_t limit_s = atomic_load(&x->thread->service->request_timeout_s);

    if (x->rq.cuts_at_deadline && predict_timeout_s(x) < limit_s)
        limit_s = predict_timeout_s(x);
    return limit_s;
}

static bool parse(struct exchange *x, struct fault *f)
{
    struct request *rq = &x->rq;
    const char *body;
    bool ok;
    size_t n;

    body = http_request_body(x->http, &n);
    x->is_restored = record_restore(x->record, rq);
    request_id_of(x->http, rq->answer_id, x->id);
    ok = rq->dialect->parse(rq, x->http, body, n, f);
    rq->cuts_at_deadline = !rq->is_stream && predict_timeout_s(x) > 0;
    if (!x->is_restored)
        rq->deadline_ns = rq->started_ns + timeout_s(x) * NS_PER_S;
    ok = ok && request_make_choices(rq, f);
    if (!x->is_restored) {
        rq->validated_ns = clock_mono_ns();
        hist_observe(stats_of(x), HIST_request_validation_seconds,
                     (double)(rq->validated_ns - rq->started_ns) / 1e9);
    }
    http_request_drop_body(x->http);
    fault_point("gateway.parsed");
    return ok;
}

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
    admission_charge_prompt(admission_of(x), x->key, request_prompt_tokens(rq), clock_mono_ns());
    stat_add(stats_of(x), STAT_gateway_prompt_tokens, request_prompt_tokens(rq));
    hist_observe(stats_of(x), HIST_request_prompt_tokens, (double)request_prompt_tokens(rq));
    hist_observe(stats_of(x), HIST_request_max_tokens, rq->choices[0].seq.submit.max_tokens);
    hist_observe(stats_of(x), HIST_request_answers, rq->n);
}

/* The dead gateway had drawn ids for it: its sequences are asked for where they were last sent. */
static bool has_sequences(const struct exchange *x)
{
    return x->is_restored && x->record->shared->n_sequences == x->rq.n_candidates;
}

/* Between keys it is the operator who decides; a client's own wish orders what its key waits for. */
static int32_t priority_in_group(const struct exchange *x)
{
    const struct key_table *keys = &admission_of(x)->keys;

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
        return admission_wait(admission_of(x), t, clock_mono_ns());
    admission_go_on(admission_of(x), t);
    return true;
}

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
        hist_observe(stats_of(x), HIST_request_turn_seconds,
                     (double)(x->went_ns - x->turn.since_ns) / 1e9);
    record_went(x->record, &x->went_ns);
    if (!http_is_ended(x->http))
        submit_all(x);
}

static void answer_without_generation(struct exchange *x)
{
    struct request *rq = &x->rq;

    for (uint32_t i = 0; i < rq->n_candidates; i++)
        rq->choices[i].end = CHOICE_LENGTH;
    rq->n_ended = rq->n_candidates;
    record_waiting(x->record, rq, 0);
    exchange_pump(x);
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

void exchange_run(struct exchange *x)
{
    struct request *rq = &x->rq;
    struct fault f;

    if (x->refusal.kind != FAULT_NONE) {
        refuse_by_body(x);
        return;
    }
    if (!parse(x, &f) || !take_more_permits(x, &f)) {
        exchange_refuse(x, &f);
        return;
    }
    if (x->is_restored) {
        x->n_old_comments = x->record->shared->n_keep_alives;
        record_old_fault(x->record, &x->old_fault, &x->old_fault_at);
    }
    if (rq->needs_no_generation && !rq->want_prompt_logprobs) {
        answer_without_generation(x);
        return;
    }
    set_deadline(x);
    if (rq->is_stream && rq->dialect->keep_alive_s)
        x->keep_alive = loop_timer_new(x->thread->loop, exchange_keep_alive, x);
    prepare_sequences(x);
    if (take_turn(x))
        exchange_go(x);
}

void exchange_resume(struct exchange *x)
{
    if (x->rq.is_stream && x->rq.choices && !http_is_ended(x->http))
        exchange_pump(x);
}

static void unlink_exchange(struct exchange *x)
{
    if (x->prev)
        x->prev->next = x->next;
    else
        x->thread->exchanges = x->next;
    if (x->next)
        x->next->prev = x->prev;
}

void exchange_end(struct exchange *x, enum http_outcome outcome)
{
    beam_run_free(x->beams);
    for (uint32_t i = 0; i < x->rq.n_candidates; i++)
        upstream_release(x->thread->upstream, &x->rq.choices[i].seq);
    if (outcome == HTTP_REFUSED)
        exchange_account(x, STAT_requests_refused_invalid, http_outcome_name(outcome));
    else
        exchange_account(x, STAT_requests_cancelled, http_outcome_name(outcome));
    admission_leave(admission_of(x), &x->turn);
    if (x->n_permits > 0)
        admission_give(admission_of(x), x->n_permits);
    loop_timer_free(x->deadline);
    loop_timer_free(x->keep_alive);
    thread_arm_tick(x->thread);
    unlink_exchange(x);
    request_fini(&x->rq);
    free(x);
}
