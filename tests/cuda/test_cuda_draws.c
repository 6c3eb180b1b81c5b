/* test_cuda_draws.c - tokens drawn on the fake driver's GPU, by the whole compute half of a worker.
 *
 * What would break in production: a token that the CPU would not have drawn from the same logits; the logits of a
 * vocabulary on their way to the host at each token all the same; a row that the kernel cannot draw, and nobody does. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/sampler.h"
#include "tests/cuda/model_twins.h"

enum {
    VOCAB = 515,
    SEQS = 12,
    STEPS = 8,
    LAUNCHED = 4,
    TOPS = 5,
    CHOICE_BYTES = 32,
    TOP_BYTES = 32 * 8
};

/* SEQS sequences of one page each, a row a step, and the draws behind them. */
struct bench {
    struct gpu_model model;
    struct sampler *sampler;
    uint32_t pages[SEQS], logit_rows[SEQS];
    struct batch_seq seqs[SEQS];
    int32_t row_tokens[SEQS], tokens[SEQS][STEPS + 1];
    Llmd__Sampling sampling[SEQS];
    Llmd__LogitBias bias, *biases[1];
    struct sampler_row rows[SEQS];
    struct ledger_top tops[SEQS][TOPS], wanted_tops[TOPS];
    float host[SEQS * VOCAB], logits[SEQS * VOCAB];
};

static struct bench *bench_open(const char *tp_size)
{
    const char *const settings[] = { "max_num_batched_tokens=32", tp_size, NULL };
    struct bench *b = mem_zalloc(1, sizeof *b);

    gpu_model_make(&b->model, 1, VOCAB, 3, settings);
    b->sampler = sampler_new(VOCAB);
    for (uint32_t i = 0; i < SEQS; i++) {
        b->pages[i] = kvpool_lease(&b->model.rig.pool, kvpool_lease_of(0, 1), &b->model.rig.cursor);
        b->logit_rows[i] = i;
        for (uint32_t t = 0; t <= STEPS; t++)
            b->tokens[i][t] = (int32_t)((i * 37 + t * t * 11 + 3) % 60); /* some come again */
        llmd__sampling__init(&b->sampling[i]);
    }
    return b;
}

static void bench_close(struct bench *b)
{
    for (uint32_t i = 0; i < SEQS; i++)
        kvpool_free(&b->model.rig.pool, kvpool_lease_of(0, 1), b->pages[i]);
    sampler_free(b->sampler);
    gpu_model_remove(&b->model);
    free(b);
}

/* The row of token `at` of each of the n first sequences. */
static void forward(struct bench *b, uint32_t n, uint32_t at, const struct sampler_rows *draws,
                    float *logits)
{
    struct batch batch = { n, b->row_tokens, n, b->seqs, n, b->logit_rows, false };
    struct err e = { 0 };

    for (uint32_t i = 0; i < n; i++) {
        b->row_tokens[i] = b->tokens[i][at];
        b->seqs[i] = (struct batch_seq){ i, 1, at, 1, &b->pages[i] };
    }
    if (!runtime_forward(b->model.rig.ranks[0], &batch, draws, logits, &e))
        fail_msg("step %u: %s", at, e.msg);
}

/* Behind the row of token `at`. */
static struct sampler_rows draws_of(struct bench *b, uint32_t n, uint32_t at)
{
    for (uint32_t i = 0; i < n; i++)
        b->rows[i] = (struct sampler_row){ .logits_row = i,
                                           .in = { .logits = b->logits + (size_t)i * VOCAB,
                                                   .sampling = &b->sampling[i],
                                                   .tokens = b->tokens[i],
                                                   .n_prompt = 1,
                                                   .n_generated = at },
                                           .out = { .top = b->tops[i] } };
    return (struct sampler_rows){ b->rows, n };
}

/* One of each kind; the two at the end are not for the kernel. */
static void choose_sampling(struct bench *b)
{
    for (uint32_t i = 0; i < SEQS; i++) {
        b->sampling[i].seed = 1000 + i;
        b->sampling[i].temperature = i == 0 ? 0 : 0.4f + 0.2f * (float)i;
    }
    b->sampling[2].top_k = 20;
    b->sampling[3].top_p = 0.8f;
    b->sampling[4].min_p = 0.02f;
    b->sampling[5].repetition_penalty = 1.7f;
    b->sampling[6].frequency_penalty = 0.9f;
    b->sampling[6].presence_penalty = -0.4f;
    llmd__logit_bias__init(&b->bias);
    b->bias.token = 9;
    b->bias.bias = 4;
    b->biases[0] = &b->bias;
    b->sampling[7].n_logit_bias = 1;
    b->sampling[7].logit_bias = b->biases;
    b->sampling[8].want_logprobs = b->sampling[9].want_logprobs = true;
    b->sampling[8].top_logprobs = b->sampling[9].top_logprobs = TOPS;
    b->sampling[9].logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED;
    b->sampling[9].top_k = 3;
    b->sampling[10].typical_p = 0.7f;
    b->sampling[11].watermark_gamma = 0.5f;
    b->sampling[11].watermark_delta = 2;
}

enum { TAKEN = 10 };

static void check_tops(const struct bench *b, uint32_t i)
{
    for (uint32_t k = 0; k < b->sampling[i].top_logprobs; k++) {
        const struct ledger_top *got = &b->tops[i][k], *wanted = &b->wanted_tops[k];
        assert_int_equal(got->token, wanted->token);
        assert_true(got->token < 0 || fabsf(got->logprob - wanted->logprob) < 1e-5f);
    }
}

/* The device's draw i against the CPU's of the same logits. */
static void check_draw(struct bench *b, uint32_t i, uint32_t at)
{
    struct sampler_input in = b->rows[i].in;
    struct sampler_output wanted = { .top = b->wanted_tops };
    const struct sampler_output *got = &b->rows[i].out;

    in.logits = b->host + (size_t)i * VOCAB;
    assert_int_equal(b->rows[i].result, sampler_draw(b->sampler, &in, &wanted));
    if (got->token != wanted.token)
        fail_msg("step %u, row %u: token %d, the CPU draws %d", at, i, got->token, wanted.token);
    if (!b->sampling[i].want_logprobs)
        return;
    assert_int_equal(got->rank, wanted.rank);
    assert_true(fabsf(got->logprob - wanted.logprob) < 1e-5f);
    check_tops(b, i);
}

static void check_row(struct bench *b, uint32_t i, uint32_t at)
{
    const float *row = b->logits + (size_t)i * VOCAB;

    assert_int_equal(b->rows[i].is_drawn, i < TAKEN);
    if (i >= TAKEN) {
        assert_memory_equal(row, b->host + (size_t)i * VOCAB, VOCAB * sizeof *row);
        return;
    }
    for (uint32_t k = 0; k < VOCAB; k++)
        assert_true(row[k] == 77); /* nobody wrote there */
    check_draw(b, i, at);
}

/* The first ones launched, later ones graphs. */
static void check_steps(struct bench *b)
{
    uint64_t before = gpu_model_counts(&b->model).graph_launches;

    choose_sampling(b);
    for (uint32_t at = 0; at < STEPS; at++) {
        struct sampler_rows draws = draws_of(b, SEQS, at);
        forward(b, SEQS, at, NULL, b->host);
        for (uint32_t k = 0; k < SEQS * VOCAB; k++)
            b->logits[k] = 77;
        forward(b, SEQS, at, &draws, b->logits);
        for (uint32_t i = 0; i < SEQS; i++)
            check_row(b, i, at);
        if (at == LAUNCHED)
            gpu_model_rest(&b->model);
    }
    assert_true(gpu_model_counts(&b->model).graph_launches > before);
}

static void draws_are_those_of_the_cpu_on_the_same_logits(void **state)
{
    struct bench *b = bench_open("tp_size=1");

    (void)state;
    check_steps(b);
    bench_close(b);
}

static uint64_t bytes_of_step(struct bench *b, uint32_t n, const struct sampler_rows *draws)
{
    uint64_t before = gpu_model_counts(&b->model).bytes_out;

    forward(b, n, 0, draws, b->logits);
    return gpu_model_counts(&b->model).bytes_out - before;
}

static void logits_that_are_drawn_from_stay_on_the_device(void **state)
{
    struct bench *b = bench_open("tp_size=1");
    struct sampler_rows draws;
    uint64_t whole, drawn;

    (void)state;
    whole = bytes_of_step(b, 7, NULL);
    assert_int_equal(whole, 7 * VOCAB * sizeof(float)); /* and not of the spare row */
    draws = draws_of(b, 7, 0);
    drawn = bytes_of_step(b, 7, &draws);
    assert_int_equal(drawn, 7 * CHOICE_BYTES);
    printf("a step of 7 draws copies %llu bytes to the host, not %llu\n", (unsigned long long)drawn,
           (unsigned long long)whole);
    choose_sampling(b);
    draws = draws_of(b, SEQS, 0);
    drawn = bytes_of_step(b, SEQS, &draws);
    assert_int_equal(drawn,
                     TAKEN * (CHOICE_BYTES + TOP_BYTES) + (SEQS - TAKEN) * VOCAB * sizeof(float));
    bench_close(b);
}

/* Of a prompt whose tokens are measured all rows but the last are the host's. */
static void logits_that_are_measured_come_to_the_host(void **state)
{
    enum { N = 6 };
    struct bench *b = bench_open("tp_size=1");
    struct batch_seq seq = { 0, N, 0, 1, &b->pages[0] };
    struct batch batch = { N, b->tokens[0], 1, &seq, N, b->logit_rows, false };
    struct sampler_rows draws = { b->rows, 1 };
    struct err e = { 0 };

    (void)state;
    assert_true(runtime_forward(b->model.rig.ranks[0], &batch, NULL, b->host, &e));
    draws_of(b, 1, N - 1);
    b->rows[0].logits_row = N - 1;
    b->sampling[0].temperature = 1;
    assert_true(runtime_forward(b->model.rig.ranks[0], &batch, &draws, b->logits, &e));
    assert_memory_equal(b->logits, b->host, (N - 1) * VOCAB * sizeof *b->logits);
    assert_true(b->rows[0].is_drawn);
    memmove(b->host, b->host + (N - 1) * VOCAB, VOCAB * sizeof *b->host);
    check_draw(b, 0, 0);
    bench_close(b);
}

/* Which has all logits, and alone brings anything to the host. */
static void rank_0_draws_for_its_group(void **state)
{
    struct bench *b = bench_open("tp_size=2");
    struct sampler_rows draws = draws_of(b, SEQS, 0);

    (void)state;
    assert_int_equal(bytes_of_step(b, 5, NULL), 5 * VOCAB * sizeof(float));
    assert_int_equal(bytes_of_step(b, SEQS, &draws), SEQS * CHOICE_BYTES);
    check_steps(b);
    bench_close(b);
}

/* [test's name] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_are_those_of_the_cpu_on_the_same_logits),
        cmocka_unit_test(logits_that_are_drawn_from_stay_on_the_device),
        cmocka_unit_test(logits_that_are_measured_come_to_the_host),
        cmocka_unit_test(rank_0_draws_for_its_group),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
