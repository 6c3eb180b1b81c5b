/* gateway_rig.h - a service with the demo model and requests with tokens put in by hand, for tests of
 * dialects without sockets or workers. */
#ifndef LLMD_TESTS_GATEWAY_RIG_H
#define LLMD_TESTS_GATEWAY_RIG_H

#include "tests/check.h"

#include "gateway/request.h"
#include "proto/stats.h"

struct rig {
    struct service service;
    struct stats stats;
    struct request rq;
    struct fault fault;
};

static inline struct rig *rig_new(void)
{
    struct rig *r = calloc(1, sizeof *r);
    struct err e;

    config_init(&r->service.config);
    assert_ok(
        config_set(&r->service.config, "model", TEST_SOURCE_DIR "/models/stories-demo", "t", &e),
        e);
    r->service.n_groups = 1;
    r->service.n_threads = 1;
    r->service.stats = &r->stats;
    pthread_mutex_init(&r->service.causes_lock, NULL);
    admission_init(&r->service.admission, 512, NULL, &r->stats);
    assert_ok(service_open_model(&r->service, &e), e);
    snprintf(r->service.fingerprint, sizeof r->service.fingerprint, "fp");
    return r;
}

static inline void rig_free(struct rig *r)
{
    admission_fini(&r->service.admission);
    service_close_model(&r->service);
    free(r);
}

/* Parse a body; on success the choices are made and ids and times are fixed. */
static inline bool rig_parse(struct rig *r, const struct dialect *d, int variant, const char *body)
{
    bool ok;

    r->fault = (struct fault){ 0 };
    request_init(&r->rq, &r->service, d, variant);
    r->rq.answer_id = 0xabc;
    r->rq.created_s = 1760000000;
    ok = d->parse(&r->rq, NULL, body, strlen(body), &r->fault) &&
         request_make_choices(&r->rq, &r->fault);
    return ok;
}

static inline void rig_done(struct rig *r)
{
    for (uint32_t i = 0; i < r->rq.n_candidates; i++)
        if (r->rq.choices[i].seq.state != SEQUENCE_NEW)
            r->rq.choices[i].seq.state = SEQUENCE_ENDED;
    request_fini(&r->rq);
}

/* The worker's next tokens of a choice; log probability of token i is -0.5 * (i + 1). */
static inline void rig_tokens(struct rig *r, uint32_t choice, const int32_t *ids, uint32_t n,
                              Llmd__Finish finish)
{
    struct choice *c = &r->rq.choices[choice];

    for (uint32_t i = 0; i < n; i++) {
        Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;
        Llmd__TokenLogprob lp = LLMD__TOKEN_LOGPROB__INIT;
        Llmd__TokenLogprob *lps[1] = { &lp };
        Llmd__TopLogprob top = LLMD__TOP_LOGPROB__INIT;
        Llmd__TopLogprob *tops[1] = { &top };
        int32_t id = ids[i];

        lp.logprob = -0.5f * (float)(c->seq.n_tokens + 1);
        lp.rank = 1;
        top.token = id;
        top.logprob = lp.logprob;
        lp.top = tops;
        lp.n_top = 1;
        m.tokens = &id;
        m.n_tokens = 1;
        m.logprobs = lps;
        m.n_logprobs = 1;
        c->seq.state = SEQUENCE_RUNNING;
        sequence_append(&c->seq, &m, 0);
        if (i + 1 == n && finish != LLMD__FINISH__FINISH_NONE) {
            c->seq.finish = finish;
            c->seq.state = SEQUENCE_ENDED;
        }
        choice_take(c);
    }
}

/* The worker's word on a choice's prompt, when it was asked for: token i has log probability -0.25 * i and
 * rank i + 1; the likeliest instead is id 100 + i with -0.125. */
static inline void rig_prompt(struct rig *r, uint32_t choice)
{
    struct choice *c = &r->rq.choices[choice];

    for (uint32_t i = 0; i < c->prompt->n_ids; i++) {
        Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;
        Llmd__TokenLogprob lp = LLMD__TOKEN_LOGPROB__INIT, *lps[1] = { &lp };
        Llmd__TopLogprob top = LLMD__TOP_LOGPROB__INIT, *tops[1] = { &top };

        top.token = 100 + (int32_t)i;
        top.logprob = -0.125f;
        lp.logprob = -0.25f * (float)i;
        lp.rank = i ? i + 1 : 0;
        lp.top = tops;
        lp.n_top = i > 0;
        m.prompt_logprobs = lps;
        m.n_prompt_logprobs = 1;
        m.prompt_index = i;
        sequence_append_prompt(&c->seq, &m);
    }
}

/* All events of a stream whose tokens are there, in turns, and its end; pieces are marked by '|'. */
static inline void rig_stream(struct rig *r, struct buf *out)
{
    struct request *rq = &r->rq;
    uint32_t n_ended = 0;

    buf_clear(out);
    for (uint32_t turn = 0; n_ended < rq->n_choices; turn = (turn + 1) % rq->n_choices) {
        struct choice *c = &rq->choices[turn];
        size_t n_before = out->n;
        uint32_t i = c->n_shown;
        if (c->end_shown)
            continue;
        assert_true(i < c->n_done || c->end != CHOICE_RUNNING);
        c->n_shown += i < c->n_done;
        c->end_shown = choice_ends_at(c, i);
        n_ended += c->end_shown;
        rq->dialect->token(rq, c, i, out);
        if (out->n > n_before)
            buf_add_char(out, '|');
    }
    rq->dialect->end(rq, out);
}

/* ---- a group of tests with one rig ---- */

static inline int rig_set_up(void **state)
{
    *state = rig_new();
    return 0;
}

static inline int rig_tear_down(void **state)
{
    rig_free(*state);
    return 0;
}

/* ---- what is answered; the request is over then ---- */

static inline const char *header_of(const struct reply *reply, const char *name)
{
    for (size_t i = 0; i < reply->n_headers; i++)
        if (strcmp(reply->headers[i].name, name) == 0)
            return reply->headers[i].value;
    return NULL;
}

static inline void expect_whole(struct rig *r, const char *want)
{
    struct reply reply;

    reply_init(&reply);
    request_choose(&r->rq);
    r->rq.dialect->whole(&r->rq, &reply);
    assert_int_equal(reply.status, 200);
    assert_string_equal(reply.body.data, want);
    reply_fini(&reply);
    rig_done(r);
}

/* Only a part of the whole answer. */
static inline void expect_in_whole(struct rig *r, const char *want)
{
    struct reply reply;

    reply_init(&reply);
    request_choose(&r->rq);
    r->rq.dialect->whole(&r->rq, &reply);
    if (!strstr(reply.body.data, want))
        fail_msg("no %s in %s", want, reply.body.data);
    reply_fini(&reply);
    rig_done(r);
}

static inline void expect_stream(struct rig *r, const char *want)
{
    struct buf out = { 0 };

    rig_stream(r, &out);
    assert_string_equal(out.data, want);
    buf_fini(&out);
    rig_done(r);
}

/* Refused, with this body and no other. */
static inline void expect_refused(struct rig *r, const struct dialect *d, int variant,
                                  const char *body, int status, const char *want)
{
    struct reply reply;

    if (rig_parse(r, d, variant, body))
        fail_msg("taken: %s", body);
    reply_init(&reply);
    r->rq.dialect->fault(&r->fault, &reply);
    assert_int_equal(reply.status, status);
    assert_string_equal(reply.body.data, want);
    reply_fini(&reply);
    rig_done(r);
}

#endif
