/* test_sampler.c - would break in production: a draw that is not from the distribution asked for, a
 * penalty on the wrong tokens, a crash on a broken row. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/candidates.h"
#include "gpu-worker/philox.h"
#include "gpu-worker/watermark.h"
#include "naive_sampler.h"

enum { SMALL = 16, TOP_MAX = 20 };

struct fixture {
    Llmd__Sampling sampling;
    struct sampler_input in;
    struct sampler_output out;
    struct ledger_top top[TOP_MAX];
    float logits[SMALL];
    int32_t tokens[64];
    struct sampler *sampler;
};

static void fixture_init(struct fixture *f)
{
    *f = (struct fixture){ .sampling = LLMD__SAMPLING__INIT, .sampler = sampler_new(SMALL) };
    f->in.logits = f->logits;
    f->in.sampling = &f->sampling;
    f->in.tokens = f->tokens;
    f->out.top = f->top;
    for (int i = 0; i < SMALL; i++)
        f->logits[i] = (float)(i % 5) * 0.75f - (float)i * 0.1f;
}

static int32_t draw(struct fixture *f)
{
    assert_int_equal(sampler_draw(f->sampler, &f->in, &f->out), SAMPLER_OK);
    return f->out.token;
}

static void exp_is_accurate(void **state)
{
    (void)state;
    for (float x = 0; x > -87; x -= 0.00137f) {
        double right = exp((double)x);
        assert_true(fabs((double)candidates_exp(x) - right) <= 3e-7 * right);
    }
    assert_true(candidates_exp(0) == 1.0f);
    assert_true(candidates_exp(-87.5f) == 0.0f);
    assert_true(candidates_exp(-INFINITY) == 0.0f);
}

static void greedy_takes_the_lowest_id_of_equals(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    for (int i = 0; i < SMALL; i++)
        f.logits[i] = i == 5 || i == 9 || i == 15 ? 2.5f : -1.0f;
    assert_int_equal(draw(&f), 5);
    sampler_free(f.sampler);
}

static void bias_and_mask_move_the_choice(void **state)
{
    struct fixture f;
    Llmd__LogitBias bias = LLMD__LOGIT_BIAS__INIT, *biases[] = { &bias };
    const int32_t masked[] = { 11, 4 };

    (void)state;
    fixture_init(&f);
    assert_int_equal(draw(&f), 4);
    bias.token = 11;
    bias.bias = 100;
    f.sampling.n_logit_bias = 1;
    f.sampling.logit_bias = biases;
    assert_int_equal(draw(&f), 11);
    f.in.masked[1] = (struct sampler_ids){ masked, 2 };
    assert_int_equal(draw(&f), 9);
    sampler_free(f.sampler);
}

static void only_allowed_tokens_are_chosen(void **state)
{
    struct fixture f;
    int32_t allowed[] = { 14, 3, 14 };

    (void)state;
    fixture_init(&f);
    f.sampling.allowed_tokens = allowed;
    f.sampling.n_allowed_tokens = 3;
    assert_int_equal(draw(&f), f.logits[3] > f.logits[14] ? 3 : 14);
    f.sampling.temperature = 2;
    for (f.sampling.seed = 0; f.sampling.seed < 50; f.sampling.seed++)
        assert_true(draw(&f) == 3 || f.out.token == 14);
    f.sampling.n_allowed_tokens = 0; /* none is all */
    f.sampling.temperature = 0;
    assert_int_equal(draw(&f), 4);
    sampler_free(f.sampler);
}

/* vLLM: the last id is masked where the ids before it are the last ones generated; the prompt does not count. */
static void a_bad_word_is_never_completed(void **state)
{
    struct fixture f;
    Llmd__BadWord word = LLMD__BAD_WORD__INIT, *words[] = { &word };
    int32_t ids[] = { 7, 9, 4 };

    (void)state;
    fixture_init(&f);
    memcpy(f.tokens, (int32_t[]){ 7, 9, 7, 9 }, 4 * sizeof *f.tokens);
    word.tokens = ids;
    word.n_tokens = 3;
    f.sampling.bad_words = words;
    f.sampling.n_bad_words = 1;
    f.in.n_prompt = 4;
    assert_int_equal(draw(&f), 4); /* behind a prompt that ends with 7, 9 */
    f.in.n_prompt = 3;
    f.in.n_generated = 1;
    assert_int_equal(draw(&f), 4); /* half of it is the prompt's */
    f.in.n_prompt = 2;
    f.in.n_generated = 2;
    assert_int_not_equal(draw(&f), 4);
    f.tokens[3] = 8;
    assert_int_equal(draw(&f), 4);
    word.tokens = ids + 2;
    word.n_tokens = 1;
    assert_int_not_equal(draw(&f), 4);
    sampler_free(f.sampler);
}

/* A detector's view: of the greens behind the token before, and with a large delta of nothing else. */
static void a_watermark_draws_greens(void **state)
{
    struct fixture f;
    uint32_t greens[SMALL], n = watermark_n_green(SMALL, 0.25f), n_green = 0;

    (void)state;
    fixture_init(&f);
    f.sampling.temperature = 1;
    f.sampling.watermark_gamma = 0.25f;
    f.in.n_prompt = 1;
    for (uint32_t round = 0; round < 200; round++) {
        f.tokens[round % 2] = (int32_t)(round % SMALL);
        f.in.n_generated = round % 2;
        f.sampling.seed = round;
        f.sampling.watermark_delta = round < 100 ? 20.0f : 0;
        watermark_green(greens, SMALL, n, f.tokens[round % 2]);
        draw(&f);
        for (uint32_t i = 0; i < n; i++)
            n_green += round < 100 && greens[i] == (uint32_t)f.out.token;
    }
    assert_int_equal(n_green, 100);
    sampler_free(f.sampler);
}

static void a_token_of_the_prompt_is_measured_as_a_drawn_one(void **state)
{
    struct fixture f;
    struct ledger_top top[3];
    struct sampler_output measured = { .top = top };

    (void)state;
    fixture_init(&f);
    f.sampling.temperature = 1.5f;
    f.sampling.want_logprobs = true;
    f.sampling.top_logprobs = 3;
    for (f.sampling.seed = 0; f.sampling.seed < 20; f.sampling.seed++) {
        measured.token = draw(&f);
        assert_int_equal(sampler_measure(f.sampler, f.logits, 3, &measured), SAMPLER_OK);
        assert_true(measured.logprob == f.out.logprob);
        assert_int_equal(measured.rank, f.out.rank);
        assert_memory_equal(top, f.top, sizeof top);
    }
    f.logits[2] = NAN;
    assert_int_equal(sampler_measure(f.sampler, f.logits, 3, &measured), SAMPLER_NOT_FINITE);
    sampler_free(f.sampler);
}

/* What clients compare are the log probabilities of the tokens that they named, in their order. */
static void named_tokens_are_measured_instead_of_the_likeliest(void **state)
{
    struct fixture f;
    int32_t named[] = { 11, 0, 4 };
    struct ledger_top all[SMALL];

    (void)state;
    fixture_init(&f);
    f.out.top = all;
    f.sampling.want_logprobs = true;
    f.sampling.top_logprobs = SMALL;
    draw(&f);
    f.out.top = f.top;
    f.sampling.logprob_tokens = named;
    f.sampling.n_logprob_tokens = f.sampling.top_logprobs = 3;
    draw(&f);
    for (int i = 0; i < 3; i++) {
        int k = 0;
        while (all[k].token != named[i])
            k++;
        assert_int_equal(f.top[i].token, named[i]);
        assert_true(f.top[i].logprob == all[k].logprob);
    }
    sampler_free(f.sampler);
}

/* So many are sorted, fewer are inserted: the order is one. */
static void all_the_vocabulary_is_in_the_same_order(void **state)
{
    enum { VOCAB = 700, FEW = 100 };
    struct ledger_top all[VOCAB + 1], few[FEW];
    struct sampler *s = sampler_new(VOCAB);
    struct sampler_output out = { .token = 3 };
    float logits[VOCAB];
    uint32_t random = 1;

    (void)state;
    for (int i = 0; i < VOCAB; i++) {
        random = random * 1664525 + 1013904223;
        logits[i] = (float)(random >> 26); /* many are equal */
    }
    out.top = all;
    assert_int_equal(sampler_measure(s, logits, VOCAB + 1, &out), SAMPLER_OK);
    out.top = few;
    assert_int_equal(sampler_measure(s, logits, FEW, &out), SAMPLER_OK);
    for (int i = 0; i < FEW; i++) {
        assert_int_equal(all[i].token, few[i].token);
        assert_true(all[i].logprob == few[i].logprob);
    }
    assert_int_equal(all[VOCAB].token, -1);
    for (int i = 1; i < VOCAB; i++)
        assert_true(all[i].logprob < all[i - 1].logprob ||
                    (all[i].logprob == all[i - 1].logprob && all[i].token > all[i - 1].token));
    sampler_free(s);
}

/* Neither a mask nor a bias keeps a thought from ending. */
static void a_thought_ends_with_its_budget(void **state)
{
    Llmd__Thinking thinking = LLMD__THINKING__INIT;
    int32_t close[] = { 13, 2 }, allowed[] = { 5 };
    struct fixture f;

    (void)state;
    fixture_init(&f);
    thinking.budget = 3;
    thinking.is_open = true;
    thinking.close = close;
    thinking.n_close = 2;
    f.sampling.thinking = &thinking;
    f.sampling.allowed_tokens = allowed;
    f.sampling.n_allowed_tokens = 1;
    f.sampling.temperature = 1;
    for (f.in.n_generated = 0; f.in.n_generated < 7; f.in.n_generated++) {
        static const int32_t want[] = { 5, 5, 5, 13, 2, 5, 5 };
        assert_int_equal(draw(&f), want[f.in.n_generated]);
        f.tokens[f.in.n_generated] = f.out.token;
    }
    sampler_free(f.sampler);
}

static void masking_everything_is_an_answer_not_a_crash(void **state)
{
    struct fixture f;
    int32_t all[SMALL];

    (void)state;
    fixture_init(&f);
    for (int i = 0; i < SMALL; i++)
        all[i] = i;
    f.in.masked[0] = (struct sampler_ids){ all, SMALL };
    assert_int_equal(sampler_draw(f.sampler, &f.in, &f.out), SAMPLER_NONE_LEFT);
    f.in.masked[0].n = SMALL - 1;
    f.sampling.temperature = 1;
    assert_int_equal(draw(&f), SMALL - 1);
    sampler_free(f.sampler);
}

/* Every place: inside a run of lanes and in the rest. */
static void rows_that_are_not_finite_are_refused(void **state)
{
    const float wrong[] = { NAN, INFINITY, -INFINITY };
    struct sampler *s = sampler_new(37);
    Llmd__Sampling sampling = LLMD__SAMPLING__INIT;
    float logits[37];
    struct sampler_output out;

    (void)state;
    for (int at = 0; at < 37; at++) {
        for (int w = 0; w < 3; w++) {
            struct sampler_input in = { .logits = logits, .sampling = &sampling };
            for (int i = 0; i < 37; i++)
                logits[i] = (float)i;
            logits[at] = wrong[w];
            assert_int_equal(sampler_draw(s, &in, &out), SAMPLER_NOT_FINITE);
        }
    }
    sampler_free(s);
}

static void repetition_divides_positive_and_multiplies_negative(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f);
    for (int i = 0; i < SMALL; i++)
        f.logits[i] = -3;
    f.logits[1] = 4;
    f.logits[2] = 3;
    f.logits[3] = -1;
    f.tokens[0] = 1; /* in the prompt, twice: penalised once */
    f.tokens[1] = 1;
    f.in.n_prompt = 2;
    f.sampling.repetition_penalty = 1.3f; /* 4 / 1.3 = 3.08 */
    assert_int_equal(draw(&f), 1);
    f.sampling.repetition_penalty = 1.4f; /* 2.86 */
    assert_int_equal(draw(&f), 2);
    f.tokens[2] = 2; /* generated: 3 / 1.4 = 2.14 */
    f.in.n_generated = 1;
    assert_int_equal(draw(&f), 1);
    f.logits[1] = f.logits[2] = -2.9f;
    f.tokens[3] = 3; /* -1 * 3.1 = -3.1 is the worst now */
    f.in.n_generated = 2;
    f.sampling.repetition_penalty = 3.1f;
    assert_int_equal(draw(&f), 0);
    sampler_free(f.sampler);
}

static void frequency_and_presence_count_output_only(void **state)
{
    struct fixture f;
    const int32_t tokens[] = { 4, 4, 4, 9, 9, 14 }; /* prompt: 4 4 4 */

    (void)state;
    fixture_init(&f);
    for (int i = 0; i < SMALL; i++)
        f.logits[i] = 0;
    memcpy(f.tokens, tokens, sizeof tokens);
    f.in.n_prompt = 3;
    f.in.n_generated = 3;
    f.logits[4] = 1;
    f.logits[9] = 2;
    f.logits[14] = 1.4f;
    assert_int_equal(draw(&f), 9);
    f.sampling.frequency_penalty = 0.4f; /* 9: 1.2, 14: 1.0 */
    assert_int_equal(draw(&f), 9);
    f.sampling.frequency_penalty = 0.6f; /* 9: 0.8, 14: 0.8, 4: 1 */
    assert_int_equal(draw(&f), 4);
    f.sampling.frequency_penalty = 0;
    f.sampling.presence_penalty = 1.1f; /* 9: 0.9, 14: 0.3 */
    assert_int_equal(draw(&f), 4);
    f.sampling.presence_penalty = -1;
    assert_int_equal(draw(&f), 9);
    sampler_free(f.sampler);
}

static void frequency_may_be_the_share_of_all_tokens(void **state)
{
    struct fixture f;
    const int32_t tokens[] = { 4, 4, 4, 9 }; /* prompt: 4 4 4 */

    (void)state;
    fixture_init(&f);
    for (int i = 0; i < SMALL; i++)
        f.logits[i] = 0;
    memcpy(f.tokens, tokens, sizeof tokens);
    f.in.n_prompt = 3;
    f.in.n_generated = 1;
    f.logits[4] = 2;
    f.logits[9] = 1;
    f.sampling.frequency_is_share = true;
    f.sampling.frequency_penalty = 1.9f; /* 4: 2 - 1.425 = 0.575, 9: 1 - 0.475 = 0.525 */
    assert_int_equal(draw(&f), 4);
    f.sampling.frequency_penalty = 2; /* 0.5 both: the lower id */
    assert_int_equal(draw(&f), 4);
    f.logits[9] = 1.01f;
    assert_int_equal(draw(&f), 9);
    sampler_free(f.sampler);
}

/* Pearson's test at the 0.1 % point, for a fixed seed: same outcome every time. */
static void draws_follow_the_distribution(void **state)
{
    enum { N = 40000 };
    const float temperatures[] = { 0.5f, 1.0f, 1.7f };
    struct fixture f;

    (void)state;
    fixture_init(&f);
    f.sampling.seed = 1234567;
    for (int t = 0; t < 3; t++) {
        double weight[SMALL], total = 0, chi2 = 0;
        uint32_t seen[SMALL] = { 0 };
        f.sampling.temperature = temperatures[t];
        for (int i = 0; i < SMALL; i++)
            total += weight[i] = exp((double)f.logits[i] / (double)temperatures[t]);
        for (uint32_t p = 0; p < N; p++) {
            struct sampler_input in = f.in;
            in.n_generated = p; /* no penalties: the tokens are not looked at */
            assert_int_equal(sampler_draw(f.sampler, &in, &f.out), SAMPLER_OK);
            seen[f.out.token]++;
        }
        for (int i = 0; i < SMALL; i++) {
            double expected = N * weight[i] / total;
            chi2 += ((double)seen[i] - expected) * ((double)seen[i] - expected) / expected;
        }
        print_message("temperature %.1f: chi-square %.1f (15 degrees of freedom)\n",
                      (double)temperatures[t], chi2);
        assert_true(chi2 < 37.7 && chi2 > 3.5);
    }
    sampler_free(f.sampler);
}

static void draw_depends_on_seed_and_position_only(void **state)
{
    struct fixture f, g;
    uint32_t n_same_seed = 0;

    (void)state;
    fixture_init(&f);
    fixture_init(&g);
    f.sampling.temperature = g.sampling.temperature = 2;
    f.sampling.seed = g.sampling.seed = 99;
    for (uint32_t p = 0; p < 60; p++) {
        f.in.n_generated = p;
        g.in.n_generated = p;
        g.in.n_prompt = 0;
        g.sampling.seed = 99;
        int32_t a = draw(&f);
        assert_int_equal(a, draw(&f));
        assert_int_equal(a, draw(&g));
        g.sampling.seed = 100;
        n_same_seed += a == draw(&g);
    }
    assert_true(n_same_seed < 30);
    sampler_free(f.sampler);
    sampler_free(g.sampler);
}

/* ---- against the naive sampler ---- */

static uint64_t random_state;

static double random_unit(void)
{
    return philox_uniform(0xfeed, random_state++);
}

static uint32_t random_below(uint32_t n)
{
    return (uint32_t)(random_unit() * n);
}

static bool coin(void)
{
    return random_unit() < 0.5;
}

static void random_sampling(Llmd__Sampling *p, Llmd__LogitBias *biases, Llmd__LogitBias **list,
                            uint32_t vocab)
{
    llmd__sampling__init(p);
    p->seed = random_below(1u << 31);
    p->temperature = random_unit() < 0.2 ? 0 : (float)(0.05 + 2 * random_unit());
    p->top_k = coin() ? 1 + random_below(coin() ? 60 : vocab + 10) : 0;
    p->top_p = coin() ? (float)(0.01 + random_unit()) : 0;
    p->top_p = p->top_p > 1 ? 1 : p->top_p;
    p->min_p = coin() ? (float)(0.3 * random_unit() * random_unit()) : 0;
    p->typical_p = random_unit() < 0.3 ? (float)(0.05 + 0.9 * random_unit()) : 0;
    p->repetition_penalty = coin() ? (float)(0.7 + random_unit()) : 0;
    p->presence_penalty = coin() ? (float)(4 * random_unit() - 2) : 0;
    p->frequency_penalty = coin() ? (float)(4 * random_unit() - 2) : 0;
    p->frequency_is_share = coin();
    p->want_logprobs = true;
    p->top_logprobs = random_below(TOP_MAX + 1);
    p->logprobs_mode =
        coin() ? LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED : LLMD__LOGPROBS_MODE__LOGPROBS_RAW;
    p->n_logit_bias = coin() ? random_below(5) : 0;
    p->logit_bias = list;
    for (size_t i = 0; i < p->n_logit_bias; i++) {
        llmd__logit_bias__init(&biases[i]);
        biases[i].token = (int32_t)random_below(vocab);
        biases[i].bias = (float)(10 * random_unit() - 5);
        list[i] = &biases[i];
    }
}

static void check_top(const struct sampler_input *in, const struct sampler_output *out,
                      uint32_t vocab)
{
    const Llmd__Sampling *p = in->sampling;
    bool raw = p->logprobs_mode == LLMD__LOGPROBS_MODE__LOGPROBS_RAW;

    for (uint32_t i = 0; i < p->top_logprobs; i++) {
        const struct ledger_top *t = &out->top[i];
        if (t->token < 0) {
            assert_true(i > 0 && (!raw || i >= vocab));
            break;
        }
        assert_true(i == 0 || t->logprob <= out->top[i - 1].logprob);
        if (out->rank == i + 1) {
            assert_int_equal(t->token, out->token);
            assert_true(t->logprob == out->logprob);
        }
        if (raw) {
            double gap = (double)in->logits[t->token] - (double)in->logits[out->token];
            assert_true(fabs((double)t->logprob - (double)out->logprob - gap) < 1e-4);
        }
    }
}

static void agrees_with_the_naive_sampler(void **state)
{
    const uint32_t vocabs[] = { 2, 17, 256, 257, 1000, 5003 };
    enum { ROUNDS = 400, N_TOKENS = 40 };
    uint32_t n_close = 0, n_all = 0;

    (void)state;
    for (size_t v = 0; v < sizeof vocabs / sizeof *vocabs; v++) {
        uint32_t vocab = vocabs[v];
        struct sampler *s = sampler_new(vocab);
        float *logits = mem_alloc(vocab * sizeof *logits);
        for (int round = 0; round < ROUNDS; round++) {
            Llmd__Sampling sampling;
            Llmd__LogitBias biases[4], *list[4];
            struct ledger_top top[TOP_MAX];
            int32_t tokens[N_TOKENS], masked = (int32_t)random_below(vocab);
            double scale = 0.2 + 8 * random_unit();
            struct sampler_input in = { .logits = logits, .sampling = &sampling, .tokens = tokens };
            struct sampler_output out = { .top = top };
            struct naive_result naive;

            random_sampling(&sampling, biases, list, vocab);
            for (uint32_t i = 0; i < vocab; i++) /* some values twice: ties */
                logits[i] = (float)(round % 8 == 0 ? scale * random_below(4)
                                                   : scale * (random_unit() + random_unit() - 1));
            for (int i = 0; i < N_TOKENS; i++)
                tokens[i] = (int32_t)random_below(vocab);
            in.n_prompt = random_below(N_TOKENS / 2);
            in.n_generated = random_below(N_TOKENS / 2);
            in.masked[0] = (struct sampler_ids){ &masked, coin() };
            naive = naive_draw(&in, vocab);
            assert_int_equal(sampler_draw(s, &in, &out), SAMPLER_OK);
            n_all++;
            n_close += naive.is_close;
            if (naive.is_close)
                continue;
            if (out.token != naive.token || out.rank != naive.rank)
                print_error("vocab %u round %d\n", vocab, round);
            assert_int_equal(out.token, naive.token);
            assert_int_equal(out.rank, naive.rank);
            assert_true(fabs((double)out.logprob - naive.logprob) < 2e-5);
            check_top(&in, &out, vocab);
        }
        free(logits);
        sampler_free(s);
    }
    print_message("%u draws compared, %u too close to call\n", n_all, n_close);
    assert_true(n_close < n_all / 20);
}

/* 128k tokens, a flat row: the largest bucket and the longest walk. */
static void a_large_flat_vocabulary_keeps_the_right_share(void **state)
{
    enum { VOCAB = 128256 };
    struct candidates c;
    float *logits = mem_alloc((VOCAB + CANDIDATES_BLOCK) * sizeof *logits);

    (void)state;
    candidates_init(&c, VOCAB);
    for (uint32_t i = 0; i < VOCAB + CANDIDATES_BLOCK; i++)
        logits[i] = i < VOCAB ? 1.0f : -INFINITY;
    candidates_fill(&c, logits, VOCAB, 1.0f, 1.0f);
    assert_true(candidates_mass(&c) == VOCAB);
    assert_int_equal(candidates_pick(&c, 0.0), 0);
    assert_int_equal(candidates_pick(&c, 0.5), VOCAB / 2);
    assert_int_equal(candidates_pick(&c, 1 - 0x1p-53), VOCAB - 1);
    candidates_keep_mass(&c, 0.25);
    assert_int_equal(c.n, VOCAB / 4);
    assert_int_equal(c.ids[c.n - 1], VOCAB / 4 - 1); /* ties: lower ids stay */
    candidates_keep_k(&c, 1000);
    assert_int_equal(c.n, 1000);
    candidates_fini(&c);
    free(logits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exp_is_accurate),
        cmocka_unit_test(greedy_takes_the_lowest_id_of_equals),
        cmocka_unit_test(bias_and_mask_move_the_choice),
        cmocka_unit_test(only_allowed_tokens_are_chosen),
        cmocka_unit_test(a_bad_word_is_never_completed),
        cmocka_unit_test(a_watermark_draws_greens),
        cmocka_unit_test(a_token_of_the_prompt_is_measured_as_a_drawn_one),
        cmocka_unit_test(named_tokens_are_measured_instead_of_the_likeliest),
        cmocka_unit_test(all_the_vocabulary_is_in_the_same_order),
        cmocka_unit_test(a_thought_ends_with_its_budget),
        cmocka_unit_test(masking_everything_is_an_answer_not_a_crash),
        cmocka_unit_test(rows_that_are_not_finite_are_refused),
        cmocka_unit_test(repetition_divides_positive_and_multiplies_negative),
        cmocka_unit_test(frequency_and_presence_count_output_only),
        cmocka_unit_test(frequency_may_be_the_share_of_all_tokens),
        cmocka_unit_test(draws_follow_the_distribution),
        cmocka_unit_test(draw_depends_on_seed_and_position_only),
        cmocka_unit_test(agrees_with_the_naive_sampler),
        cmocka_unit_test(a_large_flat_vocabulary_keeps_the_right_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
