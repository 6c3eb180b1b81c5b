/* test_cuda_sampling.c - the GPU's sampler on the shim against the CPU's, draw by draw.
 *
 * What would break in production: another token than the CPU gives for the same seed, so that a sequence that goes
 * on elsewhere contradicts what its client has; a token that was masked; a barrier that is not there.
 *
 * Where the two differ, the CPU's own choice must have been so close that rounding decides (naive_sampler.h). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/cuda/sampling_rows.h"
#include "gpu-worker/thinking.h"
#include "tests/cuda/l1.h"
#include "tests/cuda/shim/kernel_registry.h"
#include "tests/unit/naive_sampler.h"

/* One batch of so many: a fiber switch takes long with checks, and longer where races are looked for. */
#if defined(__SANITIZE_THREAD__)
enum { SHARE = 90 };
#elif defined(__SANITIZE_ADDRESS__)
enum { SHARE = 8 };
#else
enum { SHARE = 1 };
#endif

enum { BATCH = 8, TOKENS_MAX = 96, EDITS_A_ROW = 512, LISTED_MAX = 24 };

/* One draw, and everything its input points to. */
struct draw {
    Llmd__Sampling sampling;
    struct sampler_input in;
    Llmd__LogitBias biases[LISTED_MAX], *bias_list[LISTED_MAX];
    Llmd__BadWord word, *word_list[1];
    Llmd__Thinking thinking;
    int32_t tokens[TOKENS_MAX], allowed[LISTED_MAX], masked[LISTED_MAX], word_ids[3], close[2];
    struct ledger_top wanted_top[SAMPLING_TOP_MAX], top[SAMPLING_TOP_MAX];
};

struct bench {
    uint32_t vocab;
    struct sampler *sampler;
    struct sampling_rows rows;
    float *logits, *work; /* [BATCH, vocab] */
    struct draw draws[BATCH];
    struct sampling_row row[BATCH];
    struct sampling_edit edits[BATCH * EDITS_A_ROW];
    struct sampling_choice choices[BATCH];
    struct sampling_top tops[BATCH * SAMPLING_TOP_MAX];
    uint32_t n_draws, n_close;
    struct l1_error error; /* of log probabilities */
};

static struct bench *bench_new(uint32_t vocab)
{
    struct bench *b = mem_zalloc(1, sizeof *b);

    b->vocab = vocab;
    b->sampler = sampler_new(vocab);
    b->logits = l1_alloc(BATCH * (size_t)vocab * sizeof *b->logits);
    b->work = l1_alloc(BATCH * (size_t)vocab * sizeof *b->work);
    sampling_rows_init(&b->rows, vocab, b->row, BATCH, b->edits, EDITS_A_ROW);
    return b;
}

static void bench_free(struct bench *b)
{
    sampler_free(b->sampler);
    sampling_rows_fini(&b->rows);
    l1_free(b->logits);
    l1_free(b->work);
    free(b);
}

/* ---- what is drawn from ---- */

static uint32_t below(struct l1_random *r, uint32_t n)
{
    return l1_random_u32(r) % n;
}

static float between(struct l1_random *r, float low, float high)
{
    return l1_uniform(r, low, high);
}

/* Flat rows, steep ones, rows of many equals, one far above all. */
static void fill_logits(struct l1_random *r, float *x, uint32_t n)
{
    uint32_t kind = below(r, 5);
    float width = between(r, 0.1f, 20);

    for (uint32_t i = 0; i < n; i++) {
        float sum = between(r, -1, 1) + between(r, -1, 1) + between(r, -1, 1);
        x[i] = kind == 0   ? 0.001f * sum
               : kind == 1 ? roundf(sum * 2)
               : kind == 2 ? (float)(below(r, 3) == 0)
                           : sum * width;
    }
    if (kind == 4)
        x[below(r, n)] = 200;
}

static void fill_lists(struct l1_random *r, struct draw *d, uint32_t vocab)
{
    Llmd__Sampling *p = &d->sampling;
    uint32_t n = below(r, LISTED_MAX) + 1;

    if (below(r, 4) == 0) {
        p->n_logit_bias = n;
        p->logit_bias = d->bias_list;
    }
    for (uint32_t i = 0; i < n; i++) { /* of different tokens */
        llmd__logit_bias__init(&d->biases[i]);
        d->biases[i].token = (int32_t)((i * (vocab / LISTED_MAX) + below(r, vocab / LISTED_MAX)));
        d->biases[i].bias = between(r, -100, 100) * (below(r, 2) ? 1 : 0.05f);
        d->bias_list[i] = &d->biases[i];
        d->allowed[i] = d->masked[i] = (int32_t)below(r, vocab);
    }
    if (below(r, 8) == 0) {
        p->allowed_tokens = d->allowed;
        p->n_allowed_tokens = n;
    }
    if (below(r, 3) == 0)
        d->in.masked[below(r, 2)] = (struct sampler_ids){ d->masked, n / 2 };
}

static void fill_penalties(struct l1_random *r, struct draw *d)
{
    Llmd__Sampling *p = &d->sampling;

    if (below(r, 3) == 0)
        p->repetition_penalty = between(r, 0.5f, 2);
    if (below(r, 3) == 0)
        p->frequency_penalty = between(r, -2, 2);
    if (below(r, 3) == 0)
        p->presence_penalty = between(r, -2, 2);
    p->frequency_is_share = below(r, 2) != 0;
}

static void fill_filters(struct l1_random *r, Llmd__Sampling *p, uint32_t vocab)
{
    p->temperature = below(r, 5) == 0 ? 0 : between(r, 0.05f, 2);
    if (below(r, 3) > 0)
        p->top_k = 1 + below(r, below(r, 2) ? 50 : vocab + 5);
    if (below(r, 3) > 0)
        p->top_p = between(r, 0.01f, 1);
    if (below(r, 4) == 0)
        p->min_p = between(r, 0.0001f, 0.5f);
    p->want_logprobs = below(r, 3) == 0;
    p->logprobs_mode =
        below(r, 2) ? LLMD__LOGPROBS_MODE__LOGPROBS_RAW : LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED;
    p->top_logprobs = below(r, 4) ? below(r, 6) : below(r, SAMPLING_TOP_MAX + 1);
}

/* A word whose beginning stands at the end, and a thought that is over its budget, now and then. */
static void fill_marks(struct l1_random *r, struct draw *d, uint32_t vocab)
{
    Llmd__Sampling *p = &d->sampling;

    llmd__bad_word__init(&d->word);
    d->word_ids[0] = d->in.n_generated > 0 ? d->tokens[d->in.n_prompt + d->in.n_generated - 1] : 0;
    d->word_ids[1] = (int32_t)below(r, vocab);
    d->word.tokens = d->word_ids;
    d->word.n_tokens = 2;
    d->word_list[0] = &d->word;
    if (below(r, 4) == 0) {
        p->bad_words = d->word_list;
        p->n_bad_words = 1;
    }
    llmd__thinking__init(&d->thinking);
    d->close[0] = (int32_t)below(r, vocab);
    d->close[1] = (int32_t)below(r, vocab);
    d->thinking.close = d->close;
    d->thinking.n_close = 2;
    d->thinking.budget = 1;
    if (below(r, 16) == 0)
        p->thinking = &d->thinking;
}

static void fill_draw(struct l1_random *r, struct bench *b, uint32_t i)
{
    struct draw *d = &b->draws[i];

    memset(d, 0, sizeof *d);
    llmd__sampling__init(&d->sampling);
    fill_logits(r, b->logits + (size_t)i * b->vocab, b->vocab);
    for (uint32_t t = 0; t < TOKENS_MAX; t++)
        d->tokens[t] = (int32_t)(below(r, 2) ? below(r, b->vocab) : below(r, 7));
    d->in = (struct sampler_input){ .logits = b->logits + (size_t)i * b->vocab,
                                    .sampling = &d->sampling,
                                    .tokens = d->tokens,
                                    .n_prompt = 1 + below(r, TOKENS_MAX / 2),
                                    .n_generated = below(r, TOKENS_MAX / 2) };
    d->sampling.seed = (uint64_t)l1_random_u32(r) << 32 | l1_random_u32(r);
    fill_filters(r, &d->sampling, b->vocab);
    fill_penalties(r, d);
    fill_lists(r, d, b->vocab);
    fill_marks(r, d, b->vocab);
}

/* ---- the kernel ---- */

static void launch(struct bench *b, uint32_t n)
{
    struct sampling_args args = { b->logits,  b->work, b->row, b->edits,
                                  b->choices, b->tops, n,      b->vocab };

    memset(b->choices, 0xa5, sizeof b->choices);
    memset(b->work, 0xff, (size_t)BATCH * b->vocab * sizeof *b->work);
    l1_launch("sampling", n, 1, 1, 0, &args, sizeof args);
}

/* Their log probabilities are compared by a limit, at the end. */
static bool same_measures(struct bench *bench, const struct sampler_output *a,
                          const struct sampler_output *b, uint32_t n)
{
    if (a->rank != b->rank)
        return false;
    for (uint32_t i = 0; i < n; i++)
        if (a->top[i].token != b->top[i].token)
            return false;
    l1_compare_one(&bench->error, (double)b->logprob, (double)a->logprob, 1);
    for (uint32_t i = 0; i < n && a->top[i].token >= 0; i++)
        l1_compare_one(&bench->error, (double)b->top[i].logprob, (double)a->top[i].logprob, 1);
    return true;
}

static void check(struct bench *b, uint32_t i)
{
    struct draw *d = &b->draws[i];
    struct sampler_output wanted = { .top = d->wanted_top }, got = { .top = d->top };
    enum sampler_result w = sampler_draw(b->sampler, &d->in, &wanted);
    enum sampler_result g =
        sampling_rows_read(&d->in, &b->choices[i], b->tops + i * SAMPLING_TOP_MAX, &got);
    const Llmd__Sampling *p = &d->sampling;

    b->n_draws++;
    if (w == g && (w != SAMPLER_OK ||
                   (wanted.token == got.token &&
                    (!p->want_logprobs || same_measures(b, &wanted, &got, p->top_logprobs)))))
        return;
    if (w == g && naive_draw(&d->in, b->vocab).is_close) {
        b->n_close++;
        return;
    }
    fail_msg(
        "seed %llu: result %d token %d rank %u logprob %g, wanted %d, %d, %u, %g; temperature %g "
        "top_k %u top_p %g min_p %g, vocabulary %u",
        (unsigned long long)p->seed, (int)g, got.token, got.rank, (double)got.logprob, (int)w,
        wanted.token, wanted.rank, (double)wanted.logprob, (double)p->temperature, p->top_k,
        (double)p->top_p, (double)p->min_p, b->vocab);
}

static void run_batch(struct l1_random *r, struct bench *b)
{
    sampling_rows_begin(&b->rows);
    for (uint32_t i = 0; i < BATCH; i++) {
        fill_draw(r, b, i);
        assert_true(sampling_rows_add(&b->rows, &b->draws[i].in, i));
    }
    launch(b, BATCH);
    for (uint32_t i = 0; i < BATCH; i++)
        check(b, i);
}

static void draws_are_those_of_the_cpu(void **state)
{
    static const struct {
        uint32_t vocab, batches;
    } sizes[] = { { 31, 90 }, { 512, 90 }, { 1003, 90 }, { 5000, 24 }, { 32000, 2 } };
    struct l1_random r = { 1 };
    uint32_t n_draws = 0, n_close = 0;
    struct l1_error error = { 0 };

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct bench *b = bench_new(sizes[s].vocab);
        for (uint32_t i = 0; i < sizes[s].batches; i += SHARE) {
            shim_set_order((enum shim_order)(i / SHARE % N_SHIM_ORDERS), i);
            run_batch(&r, b);
        }
        n_draws += b->n_draws;
        n_close += b->n_close;
        error.largest = fmax(error.largest, b->error.largest);
        bench_free(b);
    }
    shim_set_order(SHIM_FORWARD, 0);
    printf("%u draws, %u of them other than the CPU's, where rounding decides\n", n_draws, n_close);
    assert_true(n_close <= 3);
    l1_expect("sampling", &error, 1e-6);
}

/* Where many tokens have one logit, a cut falls between equals: the lower ids are kept. */
static void equals_are_kept_by_id(void **state)
{
    struct l1_random r = { 1 };
    struct bench *b = bench_new(3000);
    uint32_t step = SHARE > 8 ? 1900 : 371;

    (void)state;
    for (uint32_t k = 1; k < 3000; k += step) {
        sampling_rows_begin(&b->rows);
        for (uint32_t i = 0; i < BATCH; i++) {
            fill_draw(&r, b, i);
            llmd__sampling__init(&b->draws[i].sampling);
            b->draws[i].sampling.seed = k * 100 + i;
            b->draws[i].sampling.temperature = 1;
            b->draws[i].sampling.top_k = k;
            b->draws[i].sampling.top_p = i % 2 ? 0.7f : 0;
            b->draws[i].in.masked[0].n = b->draws[i].in.masked[1].n = 0;
            for (uint32_t t = 0; t < 3000; t++)
                b->logits[i * 3000 + t] = i < 4 ? 1.5f : (float)(t % 3);
            assert_true(sampling_rows_add(&b->rows, &b->draws[i].in, i));
        }
        launch(b, BATCH);
        for (uint32_t i = 0; i < BATCH; i++) {
            check(b, i);
            assert_true(i >= 4 || b->choices[i].token < (int32_t)k);
        }
    }
    assert_int_equal(b->n_close, 0);
    bench_free(b);
}

static void rows_that_cannot_be_drawn_say_why(void **state)
{
    struct l1_random r = { 1 };
    struct bench *b = bench_new(200);
    int32_t all[200];

    (void)state;
    for (int32_t i = 0; i < 200; i++)
        all[i] = i;
    sampling_rows_begin(&b->rows);
    for (uint32_t i = 0; i < 5; i++) {
        fill_draw(&r, b, i);
        llmd__sampling__init(&b->draws[i].sampling);
        b->draws[i].sampling.temperature = i % 2 ? 0.5f : 0;
    }
    b->logits[0 * 200 + 199] = NAN;
    b->logits[1 * 200 + 0] = INFINITY;
    b->logits[2 * 200 + 77] = -INFINITY;
    b->draws[3].in.masked[0] = (struct sampler_ids){ all, 200 };
    for (uint32_t i = 0; i < 5; i++)
        assert_true(sampling_rows_add(&b->rows, &b->draws[i].in, i));
    b->row[4].flags |= SAMPLING_IDLE;
    launch(b, 5);
    for (uint32_t i = 0; i < 4; i++) {
        check(b, i);
        assert_int_equal(b->choices[i].result, i < 3 ? SAMPLING_NOT_FINITE : SAMPLING_NONE_LEFT);
        assert_int_equal(b->choices[i].token, -1);
    }
    assert_int_equal(b->choices[4].result, 0xa5a5a5a5); /* not touched */
    bench_free(b);
}

static void what_the_kernel_does_not_do_is_refused(void **state)
{
    struct l1_random r = { 1 };
    struct bench *b = bench_new(100);
    struct draw *d = &b->draws[0];
    int32_t named[1] = { 3 };

    (void)state;
    for (int i = 0; i < 6; i++) {
        fill_draw(&r, b, 0);
        llmd__sampling__init(&d->sampling);
        d->sampling.watermark_gamma = i == 1 ? 0.5f : 0;
        d->sampling.typical_p = i == 2 ? 0.5f : 0;
        d->sampling.logprob_tokens = named;
        d->sampling.n_logprob_tokens = i == 3;
        d->sampling.want_logprobs = i == 4;
        d->sampling.top_logprobs = SAMPLING_TOP_MAX + 1;
        d->sampling.logit_bias = d->bias_list;
        d->sampling.n_logit_bias = i == 5 ? 2 : 0;
        d->bias_list[0] = d->bias_list[1] = &d->biases[0];
        sampling_rows_begin(&b->rows);
        assert_int_equal(sampling_rows_add(&b->rows, &d->in, 0), i == 0);
        assert_int_equal(b->rows.n_rows, i == 0);
        assert_int_equal(b->rows.n_edits, 0);
    }
    bench_free(b);
}

/* A row for which there is no room leaves nothing behind. */
static void rows_without_room_are_left_to_the_cpu(void **state)
{
    struct l1_random r = { 1 };
    struct bench *b = bench_new(100);
    struct draw *d = &b->draws[0];

    (void)state;
    fill_draw(&r, b, 0);
    llmd__sampling__init(&d->sampling);
    d->sampling.repetition_penalty = 1.5f;
    for (int32_t t = 0; t < TOKENS_MAX; t++)
        d->tokens[t] = t;
    d->in.n_prompt = 10;
    d->in.n_generated = 1;
    b->rows.edits_a_row = 10;
    assert_false(sampling_rows_add(&b->rows, &d->in, 0));
    assert_int_equal(b->rows.n_edits, 0);
    b->rows.edits_a_row = 11;
    for (uint32_t i = 0; i < BATCH; i++) { /* and who else is there takes none of it */
        assert_true(sampling_rows_add(&b->rows, &d->in, 0));
        assert_int_equal(b->rows.n_edits, 11 * (i + 1));
    }
    assert_false(sampling_rows_add(&b->rows, &d->in, 0));
    sampling_rows_begin(&b->rows);
    assert_true(sampling_rows_add(&b->rows, &d->in, 0)); /* places are forgotten */
    bench_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_the_cpu),
        cmocka_unit_test(equals_are_kept_by_id),
        cmocka_unit_test(rows_that_cannot_be_drawn_say_why),
        cmocka_unit_test(what_the_kernel_does_not_do_is_refused),
        cmocka_unit_test(rows_without_room_are_left_to_the_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
