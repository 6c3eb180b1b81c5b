/* test_cuda_graphs.c - decode steps recorded while a worker is idle, on the fake driver, by one GPU and by two.
 *
 * What would break in production: a token that waits for a recording; one rank that records and another that does
 * not, so that the group stands still; a graph that computes something else than the launches it was made of. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "tests/cuda/model_twins.h"

enum { VOCAB = 96, SEQS = 3, ONE = 1, STEPS = 10, PROMPT = 5 };

/* Sequences with a prompt, of which the n first decode the same token at the same place in each step. */
struct bench {
    struct gpu_model model;
    struct rig_seq seqs[SEQS];
    float logits[SEQS * VOCAB], first[SEQS * VOCAB];
};

static void step(struct bench *b, uint32_t n_seqs)
{
    struct rig_seq *list[SEQS];
    const int32_t token = 17, *tokens[SEQS];
    uint32_t n[SEQS];

    for (uint32_t i = 0; i < n_seqs; i++) {
        list[i] = &b->seqs[i];
        b->seqs[i].n_cached = PROMPT;
        tokens[i] = &token;
        n[i] = 1;
    }
    rig_step(&b->model.rig, list, tokens, n, n_seqs);
    memcpy(b->logits, b->model.rig.logits, (size_t)n_seqs * VOCAB * sizeof *b->logits);
}

static struct bench *bench_open(const char *tp_size)
{
    const char *const settings[] = { "max_num_seqs=4", "max_num_batched_tokens=32", tp_size, NULL };
    struct bench *b = mem_zalloc(1, sizeof *b);

    gpu_model_make(&b->model, 2, VOCAB, 4, settings);
    for (uint32_t i = 0; i < SEQS; i++) {
        int32_t tokens[PROMPT];
        for (uint32_t t = 0; t < PROMPT; t++)
            tokens[t] = (int32_t)(3 + i * 20 + t * 7);
        rig_prefill(&b->model.rig, &b->seqs[i], tokens, PROMPT, PROMPT);
    }
    return b;
}

static void bench_close(struct bench *b)
{
    for (uint32_t i = 0; i < SEQS; i++)
        rig_release(&b->model.rig, &b->seqs[i]);
    gpu_model_remove(&b->model);
    free(b);
}

/* n_ranks: of the group, each with graphs of its own. */
static void check_recording(const char *tp_size, uint32_t n_ranks)
{
    static const uint32_t sizes[] = { ONE, SEQS };
    struct bench *b = bench_open(tp_size);
    uint64_t before = gpu_model_counts(&b->model).graph_execs;

    assert_int_equal(gpu_model_rest(&b->model), 0); /* nothing has come often */
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < 2; k++)
            step(b, sizes[k]);
    assert_int_equal(gpu_model_counts(&b->model).graph_execs, before);
    memcpy(b->first, b->logits, sizeof b->first);
    assert_int_equal(gpu_model_rest(&b->model), 2);
    assert_int_equal(gpu_model_counts(&b->model).graph_execs, before + 2 * n_ranks);
    assert_int_equal(gpu_model_rest(&b->model), 0);
    before = gpu_model_counts(&b->model).graph_launches;
    for (int i = 0; i < 3; i++)
        step(b, SEQS);
    assert_int_equal(gpu_model_counts(&b->model).graph_launches, before + 3 * n_ranks);
    assert_memory_equal(b->logits, b->first, sizeof b->first);
    bench_close(b);
}

static void an_idle_worker_records_what_came_often(void **state)
{
    (void)state;
    check_recording("tp_size=1", 1);
}

static void all_ranks_of_a_group_record_together(void **state)
{
    (void)state;
    check_recording("tp_size=2", 2);
}

/* A GPU that refuses is not asked for ever, and computes without. */
static void a_refused_recording_is_not_tried_again(void **state)
{
    struct bench *b = bench_open("tp_size=1");
    uint64_t before = gpu_model_counts(&b->model).graph_execs;

    (void)state;
    for (int i = 0; i < STEPS; i++)
        step(b, SEQS);
    memcpy(b->first, b->logits, sizeof b->first);
    assert_true(b->model.fake.add_faults("call cuGraphInstantiateWithFlags 1: return 801"));
    assert_int_equal(gpu_model_rest(&b->model), 1);
    assert_int_equal(gpu_model_counts(&b->model).graph_execs, before);
    assert_int_equal(gpu_model_rest(&b->model), 0);
    step(b, SEQS);
    assert_memory_equal(b->logits, b->first, sizeof b->first);
    bench_close(b);
}

/* [test's name] */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_worker_records_what_came_often),
        cmocka_unit_test(all_ranks_of_a_group_record_together),
        cmocka_unit_test(a_refused_recording_is_not_tried_again),
    };

    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
