/* exchange.c - a generation request from its head to its body, and its end.
 *
 * In between exchange_generate.c has its sequences made, and exchange_answer.c writes what comes of them. */
#include "gateway/exchange.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/mem.h"
#include "gateway/exchange_answer.h"
#include "gateway/exchange_state.h"

/* Read of one without a permit, to see how it wants to hear so. */
enum { REFUSED_BODY_BYTES = 64 << 10 };

/* ---- the head ---- */

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
    key_table_name(&exchange_admission(x)->keys, x->key, name);
    fault_set(f, FAULT_OVERLOADED, "", texts[a->why], name, (unsigned long long)a->limit);
    f->retry_after_s = in_whole_seconds(a->wait_ns);
    exchange_account(x, STAT_requests_refused_limited, "limited");
    return false;
}

static bool admit(struct exchange *x, struct fault *f)
{
    struct admission *a = exchange_admission(x);
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
    if (!admission_take_more(exchange_admission(x), n, x->is_restored))
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
        stat_add(exchange_stats(x), STAT_requests_generate, 1);
    if (admit(x, &f))
        return;
    if (f.kind == FAULT_OVERLOADED && route->refuses_by_body && has_short_body(http))
        x->refusal = f;
    else
        exchange_refuse(x, &f);
}

/* ---- the body ---- */

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
        hist_observe(exchange_stats(x), HIST_request_validation_seconds,
                     (double)(rq->validated_ns - rq->started_ns) / 1e9);
    }
    http_request_drop_body(x->http);
    fault_point("gateway.parsed");
    return ok;
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
    exchange_generate(x);
}

void exchange_resume(struct exchange *x)
{
    if (x->rq.is_stream && x->rq.choices && !http_is_ended(x->http))
        exchange_pump(x);
}

/* ---- the end ---- */

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
    admission_leave(exchange_admission(x), &x->turn);
    if (x->n_permits > 0)
        admission_give(exchange_admission(x), x->n_permits);
    loop_timer_free(x->deadline);
    loop_timer_free(x->keep_alive);
    thread_arm_tick(x->thread);
    unlink_exchange(x);
    request_fini(&x->rq);
    free(x);
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
