/* beam_run.c - submits beams, gathers what they may become, fills the choices. */
#include "gateway/answer/beam_run.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/fault_point.h"
#include "common/mem.h"
#include "gateway/answer/beam_search.h"

struct search;

/* One live beam in the step that runs. */
struct slot {
    struct sequence seq;
    struct search *search;
    int32_t *ids; /* prompt, tokens so far */
};

struct search {
    struct beam_run *run;
    const struct prompt *prompt;
    struct choice *choices; /* [n] of this prompt */
    struct beam_search beams;
    struct slot *slots; /* [width] */
    uint32_t n_slots;   /* of this step */
    uint32_t n_missing; /* of these, not ended yet */
};

struct beam_run {
    struct request *rq;
    struct upstream *upstream;
    beam_run_done_fn *on_done;
    void *owner;
    struct search *searches; /* [n_prompts] */
    uint32_t n_running;      /* searches */
    uint64_t first_token_ns;
    bool is_over;
};

/* ---- the end ---- */

static bool ends_text(int32_t token, const void *ctx)
{
    const struct request *rq = ctx;

    for (uint32_t i = 0; i < rq->n_stop_tokens; i++)
        if (rq->stop_tokens[i] == token)
            return true;
    return !rq->ignore_eos && model_info_is_eos(&rq->service->model, token);
}

static Llmd__Finish finish_of(const struct request *rq, const struct beam *beam, bool is_aborted)
{
    if (beam->is_end)
        return model_info_is_eos(&rq->service->model, beam->token) && !rq->ignore_eos
                   ? LLMD__FINISH__FINISH_EOS
                   : LLMD__FINISH__FINISH_STOP_TOKEN;
    return is_aborted ? LLMD__FINISH__FINISH_CANCELLED : LLMD__FINISH__FINISH_LENGTH;
}

static Llmd__TokenLogprob *logprob_message(struct arena *a, const struct beam *beam)
{
    Llmd__TokenLogprob *m = arena_alloc(a, sizeof *m);
    Llmd__TopLogprob *top = arena_alloc(a, beam->n_top * sizeof *top);

    llmd__token_logprob__init(m);
    m->logprob = beam->logprob;
    m->rank = beam->rank;
    m->n_top = beam->n_top;
    m->top = arena_alloc(a, beam->n_top * sizeof(Llmd__TopLogprob *));
    for (uint32_t k = 0; k < beam->n_top; k++) {
        llmd__top_logprob__init(&top[k]);
        top[k].token = beam->top[k].token;
        top[k].logprob = beam->top[k].logprob;
        m->top[k] = &top[k];
    }
    return m;
}

/* As if a worker had sent these tokens. */
static void fill_choice(struct choice *c, const struct beam *beam, bool is_aborted)
{
    struct arena arena = { 0 };
    Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;

    if (beam && beam->n > 0) {
        m.tokens = arena_alloc(&arena, beam->n * sizeof *m.tokens);
        m.n_tokens = beam->n;
        beam_tokens(beam, m.tokens);
        if (c->seq.sampling.want_logprobs) {
            m.logprobs = arena_alloc(&arena, beam->n * sizeof(Llmd__TokenLogprob *));
            m.n_logprobs = beam->n;
            for (const struct beam *b = beam; b->n > 0; b = b->parent)
                m.logprobs[b->n - 1] = logprob_message(&arena, b);
        }
        sequence_append(&c->seq, &m, 0);
    }
    c->seq.finish = beam ? finish_of(c->rq, beam, is_aborted) : LLMD__FINISH__FINISH_LENGTH;
    c->seq.state = SEQUENCE_ENDED;
    choice_take(c);
    arena_fini(&arena);
}

static void fill_choices(struct search *s, bool is_aborted)
{
    for (uint32_t k = 0; k < s->run->rq->n; k++)
        fill_choice(&s->choices[k], beam_search_best(&s->beams, k), is_aborted);
}

static void release_slots(struct search *s)
{
    for (uint32_t i = 0; i < s->n_slots; i++) {
        upstream_release(s->run->upstream, &s->slots[i].seq);
        sequence_fini(&s->slots[i].seq);
    }
    s->n_slots = 0;
}

void beam_run_cancel(struct beam_run *r)
{
    r->is_over = true;
    for (uint32_t p = 0; p < r->rq->n_prompts; p++)
        release_slots(&r->searches[p]);
}

static void give_up(struct beam_run *r, const struct fault *fault)
{
    struct fault f = *fault;

    beam_run_cancel(r);
    r->on_done(r->owner, &f);
}

static void finish(struct beam_run *r, bool is_aborted)
{
    beam_run_cancel(r);
    for (uint32_t p = 0; p < r->rq->n_prompts; p++)
        fill_choices(&r->searches[p], is_aborted);
}

void beam_run_abort(struct beam_run *r)
{
    if (!r->is_over)
        finish(r, true);
}

/* ---- one step ---- */

static void on_progress(struct sequence *seq);

static void fill_slot(struct search *s, struct slot *slot, const struct beam *beam)
{
    const struct request *rq = s->run->rq;
    uint32_t n = s->prompt->n_ids;

    slot->seq = (struct sequence){ 0 };
    sequence_init(&slot->seq);
    beam_tokens(beam, slot->ids + n);
    slot->seq.submit.prompt = slot->ids;
    slot->seq.submit.n_prompt = n + beam->n;
    slot->seq.submit.max_tokens = 1;
    slot->seq.submit.ignore_eos = true; /* what an end is, is decided here */
    slot->seq.submit.priority = rq->priority;
    slot->seq.submit.cache_salt = rq->cache_salt;
    slot->seq.sampling.seed = rq->sampling.seed;
    slot->seq.sampling.want_logprobs = true;
    slot->seq.sampling.top_logprobs = beam_search_n_top(rq->beam.width);
    slot->seq.sampling.logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    slot->seq.deadline_ns = request_worker_deadline_ns(rq);
    slot->seq.on_progress = on_progress;
    slot->seq.owner = slot;
}

static void begin_step(struct search *s)
{
    struct upstream *u = s->run->upstream;
    uint32_t n = s->beams.n_live;
    uint64_t first = upstream_draw_ids(u, n);

    s->n_slots = s->n_missing = n;
    for (uint32_t i = 0; i < n; i++) {
        fill_slot(s, &s->slots[i], s->beams.live[i]);
        s->slots[i].seq.id = first + i;
    }
    for (uint32_t i = 0; i < n; i++)
        upstream_submit(u, &s->slots[i].seq);
}

static void end_step(struct search *s)
{
    struct beam_run *r = s->run;

    fault_point("gateway.beams");
    for (uint32_t i = 0; i < s->n_slots; i++) {
        const struct sequence *seq = &s->slots[i].seq;
        beam_search_extend(&s->beams, i, sequence_top(seq, 0), seq->logprobs[0].n_top);
    }
    beam_search_step(&s->beams);
    release_slots(s);
    if (!s->beams.is_done) {
        begin_step(s);
    } else if (--r->n_running == 0) {
        finish(r, false);
        r->on_done(r->owner, NULL);
    }
}

static void on_progress(struct sequence *seq)
{
    struct slot *slot = seq->owner;
    struct search *s = slot->search;
    struct beam_run *r = s->run;

    if (r->is_over || seq->state != SEQUENCE_ENDED)
        return;
    if (seq->fault.kind != FAULT_NONE) {
        give_up(r, &seq->fault);
        return;
    }
    if (seq->n_tokens == 0) { /* the worker ends */
        finish(r, true);
        r->on_done(r->owner, NULL);
        return;
    }
    if (r->first_token_ns == 0)
        r->first_token_ns = seq->first_token_ns;
    if (--s->n_missing == 0)
        end_step(s);
}

/* ---- life ---- */

static void search_init(struct search *s, struct beam_run *r, uint32_t p)
{
    struct request *rq = r->rq;
    uint32_t width = rq->beam.width;
    struct beam_search_setup setup = { .width = width,
                                       .length_penalty = rq->beam.length_penalty,
                                       .stops_early = rq->beam.stops_early,
                                       .min_tokens = rq->min_tokens,
                                       .is_end = ends_text,
                                       .ctx = rq };

    s->run = r;
    s->prompt = &rq->prompts[p];
    s->choices = &rq->choices[p * rq->n];
    setup.n_prompt = s->prompt->n_ids;
    setup.max_tokens = s->choices[0].seq.submit.max_tokens;
    setup.n_top = rq->sampling.want_logprobs ? rq->sampling.top_logprobs : 0;
    beam_search_init(&s->beams, &rq->arena, &setup);
    s->slots = mem_zalloc(width, sizeof *s->slots);
    for (uint32_t i = 0; i < width; i++) {
        struct slot *slot = &s->slots[i];
        slot->search = s;
        slot->ids = mem_alloc((setup.n_prompt + setup.max_tokens) * sizeof *slot->ids);
        memcpy(slot->ids, s->prompt->ids, setup.n_prompt * sizeof *slot->ids);
    }
}

struct beam_run *beam_run_new(struct request *rq, struct upstream *u, beam_run_done_fn *on_done,
                              void *owner)
{
    struct beam_run *r = mem_zalloc(1, sizeof *r);

    assert(rq->beam.width >= rq->n && rq->n_candidates == rq->n_prompts * rq->n);
    *r = (struct beam_run){ .rq = rq, .upstream = u, .on_done = on_done, .owner = owner };
    r->searches = mem_zalloc(rq->n_prompts, sizeof *r->searches);
    for (uint32_t p = 0; p < rq->n_prompts; p++)
        search_init(&r->searches[p], r, p);
    return r;
}

void beam_run_start(struct beam_run *r)
{
    r->n_running = r->rq->n_prompts;
    for (uint32_t p = 0; p < r->rq->n_prompts; p++)
        begin_step(&r->searches[p]);
}

uint64_t beam_run_first_token_ns(const struct beam_run *r)
{
    return r->first_token_ns;
}

void beam_run_free(struct beam_run *r)
{
    if (!r)
        return;
    beam_run_cancel(r);
    for (uint32_t p = 0; p < r->rq->n_prompts; p++) {
        for (uint32_t i = 0; i < r->rq->beam.width; i++)
            free(r->searches[p].slots[i].ids);
        free(r->searches[p].slots);
    }
    free(r->searches);
    free(r);
}
