/* test_beam_search.c - beams against a search that forgets nothing and sorts everything at its end, as
 * vLLM's server does.  A beam dropped too early is a worse answer that looks like any other. */
#include "tests/check.h"

#include <math.h>

#include "gateway/answer/beam_search.h"

enum { VOCAB = 12, END = 0, N_TOKENS_MAX = 16, WIDTH_MAX = 4, BEAMS_MAX = 4096 };

/* ---- a model: log probabilities are a function of the tokens ---- */

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9e3779b97f4a7c15u;
    return h ^ h >> 29;
}

static int by_logprob(const void *a, const void *b)
{
    const struct token_top *x = a, *y = b;

    if (x->logprob != y->logprob)
        return x->logprob > y->logprob ? -1 : 1;
    return x->token - y->token;
}

/* All tokens, likeliest first.  Coarse logits, so that many are equal. */
static void predict(uint64_t seed, const int32_t *tokens, uint32_t n, struct token_top *top)
{
    double logits[VOCAB], sum = 0;
    uint64_t h = mix(seed, n);

    for (uint32_t i = 0; i < n; i++)
        h = mix(h, (uint64_t)tokens[i] + 1);
    for (int32_t v = 0; v < VOCAB; v++) {
        logits[v] = (double)(mix(h, (uint64_t)v) >> 32 & 7) / 2;
        sum += exp(logits[v]);
    }
    for (int32_t v = 0; v < VOCAB; v++)
        top[v] = (struct token_top){ v, (float)(logits[v] - log(sum)) };
    qsort(top, VOCAB, sizeof *top, by_logprob);
}

/* ---- the reference ---- */

struct text {
    int32_t tokens[N_TOKENS_MAX];
    uint32_t n, order;
    bool is_end;
    double sum, score;
};

static int by_score(const void *a, const void *b)
{
    const struct text *x = a, *y = b;

    if (x->score != y->score)
        return x->score > y->score ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static struct text longer(const struct text *t, const struct token_top *next, bool is_end,
                          const struct beam_search_setup *s)
{
    struct text out = *t;

    out.tokens[out.n++] = next->token;
    out.is_end = is_end;
    out.sum += (double)next->logprob;
    out.score = out.sum / pow((double)(s->n_prompt + out.n - is_end), s->length_penalty);
    return out;
}

/* The best texts, to out[0..width); how many there are. */
static uint32_t search_all(uint64_t seed, const struct beam_search_setup *s, bool ignores_end,
                           struct text *out)
{
    static struct text live[WIDTH_MAX], next[WIDTH_MAX * VOCAB], done[BEAMS_MAX];
    uint32_t n_live = 1, n_done = 0;

    live[0] = (struct text){ 0 };
    for (uint32_t step = 0; step < s->max_tokens && n_live > 0; step++) {
        uint32_t n_next = 0;
        for (uint32_t i = 0; i < n_live; i++) {
            struct token_top top[VOCAB];
            predict(seed, live[i].tokens, live[i].n, top);
            for (uint32_t k = 0; k < beam_search_n_top(s->width); k++) {
                bool is_end = top[k].token == END && !ignores_end;
                struct text t = longer(&live[i], &top[k], is_end, s);
                if (is_end && live[i].n < s->min_tokens)
                    continue;
                t.order = is_end ? n_done : n_next;
                if (is_end)
                    done[n_done++] = t;
                else
                    next[n_next++] = t;
            }
        }
        qsort(next, n_next, sizeof *next, by_score);
        n_live = n_next < s->width ? n_next : s->width;
        memcpy(live, next, n_live * sizeof *live);
    }
    for (uint32_t i = 0; i < n_live; i++) {
        done[n_done] = live[i];
        done[n_done].order = n_done;
        n_done++;
    }
    qsort(done, n_done, sizeof *done, by_score);
    n_done = n_done < s->width ? n_done : s->width;
    memcpy(out, done, n_done * sizeof *out);
    return n_done;
}

/* ---- the search under test ---- */

static bool is_end_token(int32_t token, const void *ctx)
{
    return token == END && !*(const bool *)ctx;
}

static void search(struct beam_search *b, uint64_t seed)
{
    while (!b->is_done) {
        for (uint32_t i = 0; i < b->n_live; i++) {
            struct token_top top[VOCAB];
            int32_t tokens[N_TOKENS_MAX];
            beam_tokens(b->live[i], tokens);
            predict(seed, tokens, b->live[i]->n, top);
            beam_search_extend(b, i, top, beam_search_n_top(b->setup.width));
        }
        beam_search_step(b);
    }
}

static void expect_texts(const struct beam_search *b, const struct text *want, uint32_t n)
{
    for (uint32_t k = 0; k < n; k++) {
        const struct beam *beam = beam_search_best(b, k);
        int32_t tokens[N_TOKENS_MAX];
        assert_non_null(beam);
        assert_int_equal(beam->n, want[k].n);
        beam_tokens(beam, tokens);
        assert_memory_equal(tokens, want[k].tokens, beam->n * sizeof *tokens);
        assert_int_equal(beam->is_end, want[k].is_end);
    }
    if (n < b->setup.width)
        assert_null(beam_search_best(b, n));
}

static void finds_what_a_full_search_finds(void **state)
{
    static const double penalties[] = { 1, 0, -1, 0.5, 2 };
    uint32_t n_short = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 600; seed++) {
        bool ignores_end = seed % 7 == 0;
        struct beam_search_setup setup = { .width = 1 + (uint32_t)(seed % WIDTH_MAX),
                                           .n_prompt = 1 + (uint32_t)(seed % 5),
                                           .max_tokens = 1 + (uint32_t)(seed % 11),
                                           .min_tokens = seed % 3 == 0 ? 2 : 0,
                                           .length_penalty = penalties[seed % 5],
                                           .is_end = is_end_token,
                                           .ctx = &ignores_end };
        struct arena arena = { 0 };
        struct text want[WIDTH_MAX];
        struct beam_search b;
        uint32_t n = search_all(seed, &setup, ignores_end, want);

        beam_search_init(&b, &arena, &setup);
        search(&b, seed);
        expect_texts(&b, want, n);
        n_short += b.n_steps < setup.max_tokens;
        arena_fini(&arena);
    }
    assert_true(n_short > 30); /* else nothing was saved, and the bound not tried */
}

static void stops_early_when_so_many_are_complete(void **state)
{
    bool ignores_end = false;
    struct beam_search_setup setup = { .width = 2,
                                       .n_prompt = 1,
                                       .max_tokens = 12,
                                       .length_penalty = 1,
                                       .stops_early = true,
                                       .is_end = is_end_token,
                                       .ctx = &ignores_end };
    uint32_t n_stopped = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct arena arena = { 0 };
        struct beam_search b;

        beam_search_init(&b, &arena, &setup);
        search(&b, seed);
        if (b.n_steps < setup.max_tokens) {
            n_stopped++;
            assert_true(beam_search_best(&b, 0)->is_end && beam_search_best(&b, 1)->is_end);
            assert_null(beam_search_best(&b, 2));
        }
        arena_fini(&arena);
    }
    assert_true(n_stopped > 10);
}

/* What an aborted search has is its best so far. */
static void keeps_its_alternatives_and_can_be_asked_at_any_time(void **state)
{
    bool ignores_end = true;
    struct beam_search_setup setup = { .width = 2,
                                       .n_prompt = 3,
                                       .max_tokens = 9,
                                       .n_top = 3,
                                       .length_penalty = 1,
                                       .is_end = is_end_token,
                                       .ctx = &ignores_end };
    const struct token_top top[] = { { 5, -0.5f }, { 6, -1.0f }, { 7, -1.5f }, { 8, -2.0f } };
    struct arena arena = { 0 };
    const struct beam *second;
    struct beam_search b;

    (void)state;
    beam_search_init(&b, &arena, &setup);
    assert_int_equal(beam_search_best(&b, 0)->n, 0);
    beam_search_extend(&b, 0, top, 4);
    beam_search_step(&b);
    assert_false(b.is_done);
    second = beam_search_best(&b, 1);
    assert_int_equal(second->token, 6);
    assert_int_equal(second->rank, 2);
    assert_int_equal(second->n_top, 3);
    assert_int_equal(second->top[2].token, 7);
    assert_null(beam_search_best(&b, 2));
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_what_a_full_search_finds),
        cmocka_unit_test(stops_early_when_so_many_are_complete),
        cmocka_unit_test(keeps_its_alternatives_and_can_be_asked_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
