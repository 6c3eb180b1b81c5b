/* engine_rig.c - see engine_rig.h. */
#include "engine_rig.h"

#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/mem.h"
#include "fake_clock.h"
#include "gpu-worker/sampler.h"

#define PATIENCE_NS (20 * NS_PER_S)

const struct rig_shape rig_roomy = { .n_entries = 64,
                                     .tokens_max = 512,
                                     .n_pages = 1024,
                                     .page_tokens = 8,
                                     .max_num_seqs = 32,
                                     .max_num_batched_tokens = 64 };
const struct rig_shape rig_tight = { .n_entries = 40,
                                     .tokens_max = 512,
                                     .n_pages = 40,
                                     .page_tokens = 4,
                                     .max_num_seqs = 12,
                                     .max_num_batched_tokens = 17 };

static void set_number(struct rig *r, const char *name, uint32_t value)
{
    char text[16];
    struct err e;

    snprintf(text, sizeof text, "%u", value);
    assert_true(config_set(&r->config, name, text, "test", &e));
}

void rig_make_segments(struct rig *r, const struct rig_shape *shape)
{
    static uint32_t n_rigs;
    struct ledger_shape ledger = { .n_entries = shape->n_entries,
                                   .tokens_max = shape->tokens_max,
                                   .page_tokens = shape->page_tokens,
                                   .top_max = 5,
                                   .embedding_max = FAKE_HIDDEN };
    struct kvpool_shape pool = { .n_pages = shape->n_pages,
                                 .page_tokens = shape->page_tokens,
                                 .n_layers = FAKE_LAYERS,
                                 .n_kv_heads = FAKE_HEADS,
                                 .head_dim = FAKE_HEAD_DIM,
                                 .dtype = DTYPE_F32 };
    struct err e;

    memset(r, 0, sizeof *r);
    snprintf(r->instance, sizeof r->instance, "test-%d-%u", (int)getpid(), n_rigs++);
    assert_true(board_create(&r->board, 1, 1, 1, &e));
    assert_true(ledger_create(&r->ledger, &ledger, 0, 1, &e));
    assert_true(kvpool_create(&r->pool, &pool, 1, &e));
    config_init(&r->config);
    set_number(r, "max_num_seqs", shape->max_num_seqs);
    set_number(r, "max_num_batched_tokens", shape->max_num_batched_tokens);
    set_number(r, "threads", 3);
    fake_settings = (struct fake_settings){ .max_model_len = shape->tokens_max };
}

void rig_start(struct rig *r)
{
    struct err e;

    r->epoch++;
    r->runtime = fake_runtime_new(&r->pool);
    r->link = link_bind(r->instance, 0, &e);
    assert_non_null(r->link);
    r->engine = engine_new(&(struct engine_boot){ .config = &r->config,
                                                  .group = r->group,
                                                  .n_groups = r->n_groups > 0 ? r->n_groups : 1,
                                                  .epoch = r->epoch,
                                                  .ledger = &r->ledger,
                                                  .pool = &r->pool,
                                                  .slot = board_slot(&r->board, BOARD_SLOT_RANKS),
                                                  .runtime = r->runtime,
                                                  .link = r->link },
                           &e);
    assert_non_null(r->engine);
}

void rig_stop(struct rig *r)
{
    engine_free(r->engine);
    link_close(r->link);
    runtime_close(r->runtime);
    r->engine = NULL;
    r->link = NULL;
    r->runtime = NULL;
}

void rig_close(struct rig *r)
{
    rig_stop(r);
    board_close(&r->board);
    ledger_close(&r->ledger);
    kvpool_close(&r->pool);
}

struct stats *rig_stats(const struct rig *r)
{
    return &board_slot(&r->board, BOARD_SLOT_RANKS)->stats;
}

void rig_turn(struct rig *r, struct client *c)
{
    bool is_exact = fake_settings.is_exact, ok;
    struct err e;

    if (is_exact)
        fake_clock_hold();
    ok = engine_turn(r->engine, &e);
    if (is_exact)
        fake_clock_release();
    assert_true(ok);
    if (c)
        client_receive(c);
}

/* ZeroMQ's own threads carry the messages, so an idle engine gives them a moment. */
static void pause_when_idle(const struct rig *r, const struct client *c)
{
    struct pollfd fds[2] = { { .fd = link_fd(r->link), .events = POLLIN } };

    if (c)
        fds[1] = (struct pollfd){ .fd = link_fd(c->link), .events = POLLIN };
    if (engine_wake_ns(r->engine) != 0)
        poll(fds, c ? 2 : 1, 1);
}

void rig_until(struct rig *r, struct client *c, bool (*done)(const void *arg), const void *arg)
{
    uint64_t end = clock_mono_ns() + PATIENCE_NS;

    while (!done(arg)) {
        rig_turn(r, c);
        pause_when_idle(r, c);
        if (clock_mono_ns() > end)
            fail_msg("this does not end");
    }
}

static bool all_over(const void *arg)
{
    return client_all_over(arg);
}

void rig_until_all_over(struct rig *r, struct client *c)
{
    rig_until(r, c, all_over, c);
}

static bool is_empty(const void *arg)
{
    const struct rig *r = arg;

    for (uint32_t i = 0; i < r->ledger.hdr->n_entries; i++)
        if (atomic_load(&ledger_entry(&r->ledger, i)->state) != LEDGER_FREE)
            return false;
    return engine_wake_ns(r->engine) != 0;
}

void rig_until_empty(struct rig *r, struct client *c)
{
    rig_until(r, c, is_empty, r);
}

void rig_assert_clean(const struct rig *r)
{
    const struct stats *s = rig_stats(r);

    for (uint32_t i = 0; i < r->ledger.hdr->n_entries; i++)
        assert_int_equal(atomic_load(&ledger_entry(&r->ledger, i)->state), LEDGER_FREE);
    for (uint32_t i = 0; i < r->pool.hdr->n_pages; i++)
        assert_int_equal(atomic_load(&r->pool.descs[i].pins), 0);
    assert_int_equal(kvpool_count_free(&r->pool) + stat_get(s, STAT_kv_pages_cached),
                     r->pool.hdr->n_pages);
    assert_int_equal(stat_get(s, STAT_kv_pages_leased), 0);
    assert_int_equal(stat_get(s, STAT_kv_pages_pinned), 0);
    assert_int_equal(stat_get(s, STAT_sequences_running), 0);
    assert_int_equal(stat_get(s, STAT_sequences_waiting), 0);
    assert_int_equal(stat_get(s, STAT_ledger_entries_used), 0);
    assert_int_equal(stat_get(s, STAT_sequences_accepted),
                     stat_get(s, STAT_sequences_finished) + stat_get(s, STAT_sequences_cancelled) +
                         stat_get(s, STAT_sequences_failed));
}

uint32_t rig_expect(const struct client_request *r, int32_t *tokens, float *logprobs)
{
    struct sampler *sampler = sampler_new(FAKE_VOCAB);
    int32_t all[2 * CLIENT_TOKENS_MAX];
    const int32_t eos[] = { FAKE_EOS };
    float logits[FAKE_VOCAB];
    struct ledger_top top[8];
    uint32_t n = 0;
    bool ended = false;

    memcpy(all, r->prompt, r->n_prompt * sizeof *all);
    while (!ended) {
        struct sampler_output out = { .top = top };
        struct sampler_input in = { .logits = logits,
                                    .sampling = &r->sampling,
                                    .tokens = all,
                                    .n_prompt = r->n_prompt,
                                    .n_generated = n };
        fake_logits(all, r->n_prompt + n, logits);
        if (n < r->min_tokens) {
            in.masked[0] = (struct sampler_ids){ eos, 1 };
            in.masked[1] = (struct sampler_ids){ &r->stop_token, r->stop_token != 0 };
        }
        assert_int_equal(sampler_draw(sampler, &in, &out), SAMPLER_OK);
        if (logprobs)
            logprobs[n] = out.logprob;
        tokens[n] = all[r->n_prompt + n] = out.token;
        n++;
        ended = n == r->max_tokens || (out.token == FAKE_EOS && !r->ignore_eos) ||
                (r->stop_token != 0 && out.token == r->stop_token);
    }
    sampler_free(sampler);
    return n;
}

void rig_expect_prompt(const struct client_request *r, struct client_measure *out)
{
    struct sampler *sampler = sampler_new(FAKE_VOCAB);
    float logits[FAKE_VOCAB];

    memset(out, 0, r->n_prompt * sizeof *out);
    for (uint32_t i = 1; i < r->n_prompt; i++) {
        struct ledger_top top[CLIENT_TOP_MAX];
        struct sampler_output measured = { .token = r->prompt[i], .top = top };
        fake_logits(r->prompt, i, logits);
        assert_int_equal(sampler_measure(sampler, logits, r->prompt_top_logprobs, &measured),
                         SAMPLER_OK);
        out[i].logprob = measured.logprob;
        out[i].rank = measured.rank;
        out[i].n_top = r->prompt_top_logprobs;
        for (uint32_t k = 0; k < out[i].n_top; k++) {
            out[i].top[k] = top[k].token;
            out[i].top_logprob[k] = top[k].logprob;
        }
    }
    sampler_free(sampler);
}

void rig_expect_embedding(const struct client_request *r, float *out)
{
    double sum[FAKE_HIDDEN] = { 0 };

    for (uint32_t i = 1; i <= r->n_prompt; i++) {
        fake_hidden(r->prompt, i, out);
        for (int k = 0; k < FAKE_HIDDEN; k++)
            sum[k] += (double)out[k];
    }
    for (int k = 0; k < FAKE_HIDDEN && r->pooling == LLMD__POOLING__POOL_MEAN; k++)
        out[k] = (float)(sum[k] / r->n_prompt);
}

struct client_request rig_pooled_request(uint32_t i, int32_t *prompt)
{
    struct client_request r;

    for (uint32_t k = 0; k < 64; k++)
        prompt[k] = (int32_t)(3 + (i * 41 + k * 13) % 290);
    r = client_request(prompt, 1 + i * 17 % 64, 0);
    r.pooling = i % 2 ? LLMD__POOLING__POOL_LAST : LLMD__POOLING__POOL_MEAN;
    return r;
}

/* Tokens that are allowed, and words that are not: of every load the same. */
static void restrict_tokens(Llmd__Sampling *p, uint32_t i)
{
    static int32_t allowed[150], second[] = { 40, 41 }, first[] = { 77 };
    static Llmd__BadWord words[2], *list[2];

    for (int k = 0; k < 150; k++)
        allowed[k] = 2 * k;
    for (int k = 0; k < 2; k++) {
        llmd__bad_word__init(&words[k]);
        words[k].tokens = k ? second : first;
        words[k].n_tokens = k ? 2 : 1;
        list[k] = &words[k];
    }
    p->allowed_tokens = allowed;
    p->n_allowed_tokens = i % 4 == 1 ? 150 : 0;
    p->bad_words = list;
    p->n_bad_words = i % 3 == 1 ? 2 : 0;
    p->watermark_gamma = i % 5 == 2 ? 0.25f : 0;
    p->watermark_delta = 3;
}

struct client_request rig_mixed_request(uint32_t i, int32_t *prompt, Llmd__LogitBias *bias,
                                        Llmd__LogitBias **list)
{
    struct client_request r;

    for (uint32_t k = 0; k < 64; k++)
        prompt[k] = (int32_t)(3 + (i * 37 + k * 11) % 290);
    r = client_request(prompt, 1 + i * 13 % 60, 5 + i * 7 % 60);
    r.sampling.seed = i * 1000003;
    r.sampling.temperature = i % 3 == 0 ? 0 : 0.7f + 0.1f * (float)(i % 5);
    r.sampling.top_k = i % 4 == 1 ? 40 : 0;
    r.sampling.top_p = i % 5 == 2 ? 0.9f : 0;
    r.sampling.repetition_penalty = i % 2 ? 1.2f : 0;
    r.sampling.presence_penalty = i % 7 == 3 ? 0.6f : 0;
    r.sampling.frequency_penalty = i % 6 == 1 ? 0.4f : 0;
    r.sampling.want_logprobs = i % 4 == 3;
    r.sampling.top_logprobs = i % 8 == 3 ? 5 : 0;
    r.sampling.logprobs_mode = i % 8 == 7;
    r.ignore_eos = i % 2;
    r.min_tokens = i % 9 == 4 ? 4 : 0;
    r.want_prompt_logprobs = i % 4 == 2;
    r.prompt_top_logprobs = i % 8 == 2 ? 3 : 0;
    restrict_tokens(&r.sampling, i);
    if (i % 5 == 4) {
        llmd__logit_bias__init(bias);
        bias->token = (int32_t)(3 + i % 200);
        bias->bias = 3.5f;
        *list = bias;
        r.sampling.n_logit_bias = 1;
        r.sampling.logit_bias = list;
    }
    return r;
}

void rig_assert_expected(const struct client_stream *s, const struct client_request *r)
{
    int32_t tokens[CLIENT_TOKENS_MAX];
    float logprobs[CLIENT_TOKENS_MAX] = { 0 };
    struct client_measure prompt[CLIENT_TOKENS_MAX];
    float embedding[FAKE_HIDDEN];
    uint32_t n = 0;

    if (r->pooling != LLMD__POOLING__POOL_NONE) {
        rig_expect_embedding(r, embedding);
        assert_int_equal(s->finish, LLMD__FINISH__FINISH_EMBEDDED);
        assert_int_equal(s->n_embedding, FAKE_HIDDEN);
        assert_memory_equal(s->embedding, embedding, sizeof embedding);
    } else if (r->max_tokens > 0) {
        n = rig_expect(r, tokens, logprobs);
    }
    if (r->want_prompt_logprobs) {
        rig_expect_prompt(r, prompt);
        assert_int_equal(s->n_prompt, r->n_prompt);
        assert_memory_equal(s->prompt, prompt, r->n_prompt * sizeof *prompt);
    }
    assert_int_equal(s->n, n);
    assert_memory_equal(s->tokens, tokens, n * sizeof *tokens);
    if (r->sampling.want_logprobs)
        assert_memory_equal(s->logprobs, logprobs, n * sizeof *logprobs);
}
