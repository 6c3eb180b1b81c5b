/* test_step_pace.c - would break in production: streams that stutter while somebody's long prompt is read, or a
 * prompt that is never read because streams run. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu-worker/step_pace.h"

enum { STREAMS_MAX = 64, MS = 1000000 };

/* A machine: a step costs the reading of the weights or the arithmetic of its rows, whichever is more, and
 * attention over what a prompt has read. */
static uint64_t step_ns(uint32_t n_streams, uint32_t n_rows, uint32_t n_read, double row_ms)
{
    double rows = (n_streams + n_rows) * row_ms, weights = 20;

    return (uint64_t)(MS * ((rows > weights ? rows : weights) + n_rows * row_ms * n_read / 8000));
}

/* A prompt of 4,000 tokens beside streams that have run for a while; the steps it takes. */
static uint32_t read_prompt(uint32_t n_streams, double row_ms, double *worst)
{
    uint64_t alone = step_ns(n_streams, 0, 0, row_ms);
    struct step_pace p;
    uint32_t n_steps = 0;

    step_pace_init(&p, STREAMS_MAX);
    for (int i = 0; i < 20; i++)
        step_pace_learn(&p, n_streams, 0, alone);
    *worst = 0;
    for (uint32_t n_read = 0; n_read < 4000; n_steps++) {
        uint32_t rows = step_pace_rows(&p, n_streams, 180);
        uint64_t took = step_ns(n_streams, rows, n_read, row_ms);
        double ratio = (double)took / (double)alone;
        assert_true(rows >= STEP_PACE_ROWS_MIN);
        if (ratio > *worst)
            *worst = ratio;
        step_pace_learn(&p, n_streams, rows, took);
        n_read += rows;
    }
    step_pace_fini(&p);
    return n_steps;
}

/* From a machine whose rows cost next to nothing beside the weights to one where each is a twentieth. */
static void a_prompt_makes_steps_less_than_twice_as_long(void **state)
{
    const double row_ms[] = { 0.01, 0.05, 0.2, 0.5, 1 };

    (void)state;
    for (size_t i = 0; i < sizeof row_ms / sizeof *row_ms; i++) {
        double worst;
        uint32_t n_steps = read_prompt(8, row_ms[i], &worst);
        uint32_t n_best = (uint32_t)(4000 / (36 / row_ms[i] - 8)) + 1; /* rows to 180 % alone */
        assert_true(worst < 2);
        assert_true(n_steps < 3 * n_best + 10); /* and it is used, not only kept to */
    }
}

static void without_streams_a_prompt_has_all_rows(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_true(step_pace_rows(&p, 0, 180) == UINT32_MAX);
    step_pace_learn(&p, 0, 512, 100 * MS);
    assert_true(step_pace_rows(&p, 0, 180) == UINT32_MAX);
    step_pace_fini(&p);
}

static void what_was_never_seen_gets_the_least(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    assert_int_equal(step_pace_rows(&p, 3, 180), STEP_PACE_ROWS_MIN);
    step_pace_learn(&p, 3, 8, 100 * MS); /* nothing to compare it with */
    assert_int_equal(step_pace_rows(&p, 3, 180), STEP_PACE_ROWS_MIN);
    step_pace_learn(&p, 8, 0, 20 * MS);
    step_pace_learn(&p, 8, 12, 20 * MS);
    assert_int_equal(step_pace_rows(&p, 8, 180), 28); /* 1.8 * 20 in all */
    step_pace_learn(&p, 4, 28, 20 * MS);              /* four alone: half the time at worst */
    assert_int_equal(step_pace_rows(&p, 4, 200), 28);
    assert_int_equal(step_pace_rows(&p, 4, 101), 12);
    step_pace_fini(&p);
}

/* The last rows of a prompt are few; the next one begins with what was learnt. */
static void the_end_of_a_prompt_teaches_nothing_but_slowness(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    step_pace_learn(&p, 8, 0, 20 * MS);
    step_pace_rows(&p, 8, 180);
    step_pace_learn(&p, 8, 92, 36 * MS);
    step_pace_rows(&p, 8, 180);
    step_pace_learn(&p, 8, 2, 2 * MS);
    assert_int_equal(step_pace_rows(&p, 8, 180), 92);
    step_pace_learn(&p, 8, 60, 36 * MS);
    assert_int_equal(step_pace_rows(&p, 8, 180), 60);
    step_pace_fini(&p);
}

/* Rows became dear all of a sudden: at the next step they are fewer. */
static void a_machine_that_became_slower_is_learnt_at_once(void **state)
{
    struct step_pace p;

    (void)state;
    step_pace_init(&p, STREAMS_MAX);
    step_pace_learn(&p, 8, 0, 20 * MS);
    step_pace_rows(&p, 8, 180);
    step_pace_learn(&p, 8, 72, 36 * MS);
    assert_int_equal(step_pace_rows(&p, 8, 180), 72);
    step_pace_learn(&p, 8, 72, 72 * MS);
    assert_int_equal(step_pace_rows(&p, 8, 180), 32);
    step_pace_learn(&p, 8, 32, 18 * MS); /* and faster again */
    assert_int_equal(step_pace_rows(&p, 8, 180), 72);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prompt_makes_steps_less_than_twice_as_long),
        cmocka_unit_test(without_streams_a_prompt_has_all_rows),
        cmocka_unit_test(what_was_never_seen_gets_the_least),
        cmocka_unit_test(the_end_of_a_prompt_teaches_nothing_but_slowness),
        cmocka_unit_test(a_draft_costs_what_it_adds),
        cmocka_unit_test(a_machine_that_became_slower_is_learnt_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
