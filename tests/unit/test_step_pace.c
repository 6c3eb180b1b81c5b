/* test_step_pace.c - would break in production: streams that stutter while somebody's long prompt is read, or a
 * prompt that is never read because streams run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "gpu-worker/step_pace.h"

enum { STREAMS_MAX = 64, MS = 1000000, STREAMS = 8, PERCENT = 180, ANSWER = 580 };

/* A machine: a step costs the reading of the weights or the arithmetic of its rows, whichever is more, and
 * attention over what has been read. */
struct machine {
    double row_ms;     /* beside 20 ms for the weights */
    double looks_back; /* tokens whose attention costs a row */
    double noise;      /* a step takes up to so much longer, and 3 of 1,000 three times as long */
    uint64_t random;
};

static double draw(struct machine *m)
{
    m->random = m->random * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(m->random >> 33) / (double)(1ull << 31);
}

/* The streams have n_said tokens each, the prompt has n_read.  They begin anew after ANSWER. */
static uint64_t step_ns(struct machine *m, uint32_t n_rows, uint32_t n_said, uint32_t n_read)
{
    double rows = (STREAMS + n_rows) * m->row_ms, weights = 20;
    double back = ((double)STREAMS * n_said + (double)n_rows * n_read) * m->row_ms / m->looks_back;
    double ms = (rows > weights ? rows : weights) + back;

    if (m->noise > 0)
        ms *= (1 + m->noise * draw(m)) * (draw(m) < 0.003 ? 3 : 1);
    return (uint64_t)(MS * ms);
}

static uint32_t rows_for(struct step_pace *p, uint32_t n_streams, uint64_t percent)
{
    return step_pace_rows(p, &(struct step_pace_load){ n_streams, 1, 0 }, percent);
}

/* Steps of the streams alone; those of the last measurement are in alone[]. */
static void run_alone(struct step_pace *p, struct machine *m, uint64_t *alone, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        alone[i] = step_ns(m, 0, i % ANSWER, 0);
        step_pace_learn(p, STREAMS, 0, alone[i]);
    }
}

/* A prompt of n tokens beside them; how many steps it takes. */
static uint32_t read_prompt(struct step_pace *p, struct machine *m, uint32_t n, uint64_t *beside,
                            uint32_t n_max)
{
    uint32_t n_steps = 0;

    for (uint32_t n_read = 0; n_read < n; n_steps++) {
        struct step_pace_load load = { STREAMS, 1, (uint64_t)STREAMS * (n_steps % ANSWER) };
        uint32_t rows = step_pace_rows(p, &load, PERCENT);
        assert_true(n_steps < n_max);
        beside[n_steps] = step_ns(m, rows, n_steps % ANSWER, n_read);
        step_pace_learn(p, STREAMS, rows, beside[n_steps]);
        n_read += rows;
    }
    return n_steps;
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static double p99(uint64_t *ns, uint32_t n)
{
    qsort(ns, n, sizeof *ns, by_value);
    return (double)ns[(n * 99 + 99) / 100 - 1];
}

/* From a machine whose rows cost next to nothing beside the weights to one where each is a twentieth. */
static void a_prompt_makes_steps_less_than_twice_as_long(void **state)
{
    const double row_ms[] = { 0.01, 0.05, 0.2, 0.5, 1 };

    (void)state;
    for (size_t i = 0; i < sizeof row_ms / sizeof *row_ms; i++) {
        static uint64_t alone[ANSWER], beside[4000];
        struct machine m = { .row_ms = row_ms[i], .looks_back = 8000 };
        uint32_t n_best = (uint32_t)(4000 / (36 / row_ms[i] - STREAMS)) + 1; /* to 180 % alone */
        struct step_pace p;
        uint32_t n_steps;
        step_pace_init(&p, STREAMS_MAX);
        run_alone(&p, &m, alone, ANSWER);
        n_steps = read_prompt(&p, &m, 4000, beside, 4000);
        qsort(beside, n_steps, sizeof *beside, by_value);
        print_message("a row of %.2f ms: longest %.2f times, %u steps, %u at best\n", row_ms[i],
                      (double)beside[n_steps - 1] / (double)alone[ANSWER - 1], (unsigned)n_steps,
                      (unsigned)n_best);
        assert_true(beside[n_steps - 1] < 2 * alone[ANSWER - 1]);
        assert_true(n_steps < 3 * n_best + 20); /* and it is used, not only kept to */
        step_pace_fini(&p);
    }
}

/* A small model, where looking back a thousand tokens costs as much as the matrices, and on a machine that others
 * use: what a stream feels at worst is less than twice what it feels alone, and most of what may be used is. */
static void noise_and_dear_rows_do_not_break_the_promise(void **state)
{
    const double looks_back[] = { 1000, 10000 };

    (void)state;
    for (uint32_t i = 0; i < 20; i++) {
        static uint64_t alone[1000], beside[8000];
        struct machine m = { .row_ms = 3, .looks_back = looks_back[i % 2], .random = i };
        struct step_pace p;
        uint32_t n_steps;
        double worst, worst_alone;
        m.noise = 0.03 * (i / 2);
        step_pace_init(&p, STREAMS_MAX);
        run_alone(&p, &m, alone, 1000);
        worst_alone = p99(alone, 1000);
        n_steps = read_prompt(&p, &m, 4000, beside, 8000);
        worst = p99(beside, n_steps);
        print_message("seed %u, noise %.2f: p99 %.2f times, median %.2f, %u steps\n", (unsigned)i,
                      m.noise, worst / worst_alone,
                      (double)beside[n_steps / 2] / (double)alone[500], (unsigned)n_steps);
        assert_true(worst < 2 * worst_alone);
        assert_true(beside[n_steps / 2] > alone[500] * 3 / 2);
        step_pace_fini(&p);
    }
}

static void without_streams_a_prompt_has_all_rows(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_true(rows_for(&p, 0, 180) == UINT32_MAX);
    step_pace_learn(&p, 0, 512, 100 * MS);
    assert_true(rows_for(&p, 0, 180) == UINT32_MAX);
    step_pace_fini(&p);
}

/* What streams take alone is looked at before anything is put beside them, and may be inferred from other numbers
 * of them. */
static void what_was_never_seen_is_looked_at(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_int_equal(rows_for(&p, 3, 180), 0);
    step_pace_learn(&p, 8, 0, 20 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 6); /* as if each took an eighth of that */
    step_pace_learn(&p, 8, 6, 20 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 17); /* 1.8 * 14 in all */
    step_pace_learn(&p, 8, 17, 20 * MS);
    step_pace_learn(&p, 8, 17, 20 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 37);  /* 1.8 * 25 */
    assert_int_equal(rows_for(&p, 4, 200), 21);  /* four alone: half the time at worst */
    assert_int_equal(rows_for(&p, 16, 180), 29); /* 16: the same at best */
    step_pace_learn(&p, 16, 0, 30 * MS);
    assert_int_equal(rows_for(&p, 12, 200), 44); /* 22.5 ms, by the 16 */
    step_pace_fini(&p);
}

/* n streams are known well: they take so long each time. */
static void know(struct step_pace *p, uint32_t n_streams, uint64_t ns)
{
    for (uint32_t i = 0; i < 8; i++)
        step_pace_learn(p, n_streams, 0, ns);
}

/* However dear a row is. */
static void a_prompt_always_gets_on(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    know(&p, 8, 20 * MS);
    for (uint32_t i = 0; i < STEP_PACE_LOOK_LATE - 1; i++)
        step_pace_learn(&p, 8, 1, 1000 * MS);
    assert_int_equal(rows_for(&p, 8, 101), 1);
    step_pace_fini(&p);
}

/* How many of n steps carry no prompt, when streams alone take alone_ms and a row of a prompt makes that so much
 * more. */
static uint32_t count_looks(struct step_pace *p, uint32_t n, uint32_t alone_ms, uint32_t beside_ms)
{
    uint32_t n_without = 0;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t rows = rows_for(p, 8, 180);
        n_without += rows == 0;
        step_pace_learn(p, 8, rows, (uint64_t)(rows == 0 ? alone_ms : beside_ms) * MS);
    }
    return n_without;
}

/* Seldom where nothing changes, soon where something has. */
static void a_step_without_a_prompt_comes_now_and_then(void **state)
{
    enum { AGES = 100 * (STEP_PACE_LOOK_STEPS + 1) };
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    step_pace_learn(&p, 8, 0, 20 * MS);
    assert_in_range(count_looks(&p, AGES, 20, 36), 100, 105);
    count_looks(&p, 4 * STEP_PACE_LOOK_STEPS, 200, 360); /* a slower machine */
    assert_true(p.alone_ns[8] > 150.0 * MS);
    count_looks(&p, 2 * STEP_PACE_LOOK_STEPS, 20, 36); /* and a faster one */
    assert_true(p.alone_ns[8] < 25.0 * MS);
    assert_true(count_looks(&p, AGES, 20, 60) < AGES / STEP_PACE_LOOK_LATE); /* dear rows */
    step_pace_fini(&p);
}

/* Long streams have ended and short ones begun: at once they take less. */
static void other_streams_are_looked_at_soon(void **state)
{
    struct step_pace_load load = { 8, 1, 4000 };
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_int_equal(step_pace_rows(&p, &load, 180), 0);
    know(&p, 8, 20 * MS);
    for (uint32_t i = 0; i < STEP_PACE_LOOK_SOON; i++) {
        assert_int_not_equal(step_pace_rows(&p, &load, 180), 0);
        step_pace_learn(&p, 8, 6, 36 * MS);
    }
    assert_int_not_equal(step_pace_rows(&p, &load, 180), 0);
    load.n_back = 100;
    assert_int_equal(step_pace_rows(&p, &load, 180), 0);
    step_pace_fini(&p);
}

/* One stream, and thirty requests that wait for their first token. */
static void many_prompts_stretch_the_step_of_few_streams(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    step_pace_learn(&p, 1, 0, 10 * MS);
    step_pace_learn(&p, 8, 0, 10 * MS);
    step_pace_learn(&p, 1, 9, 10 * MS); /* a row a millisecond */
    assert_int_equal(step_pace_rows(&p, &(struct step_pace_load){ 1, 1, 0 }, 180), 17);
    assert_int_equal(step_pace_rows(&p, &(struct step_pace_load){ 1, 30, 0 }, 180), 7209);
    assert_int_equal(step_pace_rows(&p, &(struct step_pace_load){ 8, 8, 0 }, 180), 10);
    assert_int_equal(step_pace_rows(&p, &(struct step_pace_load){ 8, 4, 0 }, 180), 10);
    assert_int_equal(step_pace_rows(&p, &(struct step_pace_load){ 8, 16, 0 }, 180), 34);
    step_pace_fini(&p);
}

/* The last rows of a prompt are few; the next one begins with what was learnt. */
static void the_end_of_a_prompt_teaches_nothing_but_slowness(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    know(&p, 8, 20 * MS);
    rows_for(&p, 8, 180);
    step_pace_learn(&p, 8, 92, 36 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 92);
    step_pace_learn(&p, 8, 2, 20 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 92);
    step_pace_learn(&p, 8, 60, 36 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 67); /* three quarters of 100, less 8 */
    step_pace_learn(&p, 8, 60, 36 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 60);
    step_pace_fini(&p);
}

/* Rows became dear: one such step may have been an accident, two are not. */
static void a_machine_that_became_slower_is_learnt_at_the_second_step(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    know(&p, 8, 20 * MS);
    for (uint32_t i = 0; i < STEP_PACE_SPEEDS; i++) {
        rows_for(&p, 8, 180);
        step_pace_learn(&p, 8, 72, 36 * MS);
    }
    assert_int_equal(rows_for(&p, 8, 180), 72);
    step_pace_learn(&p, 8, 72, 72 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 52);
    step_pace_learn(&p, 8, 72, 72 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 32);
    step_pace_learn(&p, 8, 32, 18 * MS); /* and faster again */
    step_pace_learn(&p, 8, 32, 18 * MS);
    assert_int_equal(rows_for(&p, 8, 180), 72);
    step_pace_fini(&p);
}

/* What streams take alone: an interruption counts little, and is soon forgotten. */
static void an_interrupted_step_is_forgotten(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    know(&p, 8, 20 * MS);
    step_pace_learn(&p, 8, 0, 2000 * MS);
    assert_true(p.alone_ns[8] <= 25.1 * MS);
    step_pace_learn(&p, 8, 0, 20 * MS);
    step_pace_learn(&p, 8, 0, 20 * MS);
    assert_true(p.alone_ns[8] <= 21.3 * MS);
    for (uint32_t i = 0; i < 5; i++) /* but streams that grew dearer are learnt */
        step_pace_learn(&p, 8, 0, 60 * MS);
    assert_true(p.alone_ns[8] > 45.0 * MS);
    step_pace_fini(&p);
}

/* On a machine where rows are free beside the weights, and on one where each costs as much as a token. */
static void a_draft_costs_what_it_adds(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_true(step_pace_draft_price(&p, 4) < 0.2); /* not known: try */
    for (int i = 0; i < 50; i++) {
        step_pace_learn(&p, 4, 0, 20 * MS);
        step_pace_learn_drafts(&p, 4, 10, (i % 2 ? 22 : 18) * MS); /* noise is no price */
    }
    assert_true(step_pace_draft_price(&p, 4) < 0.2);
    for (int i = 0; i < 50; i++)
        step_pace_learn_drafts(&p, 4, 10, 45 * MS);
    assert_true(step_pace_draft_price(&p, 4) > 0.4 && step_pace_draft_price(&p, 4) < 0.6);
    for (int i = 0; i < 50; i++)
        step_pace_learn_drafts(&p, 4, 10, 200 * MS);
    assert_true(step_pace_draft_price(&p, 4) == 1);
    step_pace_fini(&p);
}

/* Every second step is interrupted, with drafts or without: they add nothing for that. */
static void a_busy_machine_does_not_make_drafts_dear(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    for (uint32_t i = 0; i < 200; i++) {
        step_pace_learn(&p, 4, 0, (uint64_t)(i % 2 ? 20 : 80) * MS);
        step_pace_learn_drafts(&p, 4, 4, (uint64_t)(i % 2 ? 80 : 20) * MS);
    }
    assert_true(step_pace_draft_price(&p, 4) < 0.2);
    step_pace_fini(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_makes_steps_less_than_twice_as_long),
        cmocka_unit_test(noise_and_dear_rows_do_not_break_the_promise),
        cmocka_unit_test(without_streams_a_prompt_has_all_rows),
        cmocka_unit_test(what_was_never_seen_is_looked_at),
        cmocka_unit_test(a_prompt_always_gets_on),
        cmocka_unit_test(a_step_without_a_prompt_comes_now_and_then),
        cmocka_unit_test(other_streams_are_looked_at_soon),
        cmocka_unit_test(many_prompts_stretch_the_step_of_few_streams),
        cmocka_unit_test(the_end_of_a_prompt_teaches_nothing_but_slowness),
        cmocka_unit_test(a_machine_that_became_slower_is_learnt_at_the_second_step),
        cmocka_unit_test(an_interrupted_step_is_forgotten),
        cmocka_unit_test(a_draft_costs_what_it_adds),
        cmocka_unit_test(a_busy_machine_does_not_make_drafts_dear),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
