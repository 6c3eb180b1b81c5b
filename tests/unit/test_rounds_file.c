/* test_rounds_file.c - rounds that a cut run leaves behind, and what the next run takes of them.
 *
 * What would break: a claim.  Rounds of one model counted for another, a round that counts half, or hours of
 * measuring lost to a full disk or a reboot. */
#include "bench/compare/rounds_file.h"

#include <stdio.h>

#include "common/file.h"
#include "tests/check.h"

enum { N_CASES = 2 };

static char path[64];

static int no_file(void **state)
{
    (void)state;
    snprintf(path, sizeof path, "/tmp/llmd-rounds-%d", (int)getpid());
    unlink(path);
    return 0;
}

static int remove_file(void **state)
{
    (void)state;
    unlink(path);
    return 0;
}

/* Two cases of a model, without rounds. */
static void group_of(const char *shape, const char *type, struct figure figures[N_CASES])
{
    for (uint32_t i = 0; i < N_CASES; i++) {
        figures[i] = (struct figure){ .shape = shape_find(shape), .type = weight_type_find(type) };
        snprintf(figures[i].work, sizeof figures[i].work, i ? "1 stream, 128 tokens" : "prompt");
        snprintf(figures[i].limit_name, sizeof figures[i].limit_name, i ? "memory" : "int8");
    }
}

/* A round of both cases, whose numbers tell it. */
static void append_round(struct figure figures[N_CASES], uint32_t round, double first)
{
    struct err e;

    for (uint32_t i = 0; i < N_CASES; i++) {
        figures[i].ours[round] = first + i;
        figures[i].theirs[round] = first + i + 0.25;
        figures[i].limits[round] = 100 * first;
    }
    assert_ok(rounds_file_append(path, figures, N_CASES, round, &e), e);
}

static void add_text(const char *text)
{
    FILE *out = fopen(path, "a");

    assert_non_null(out);
    fputs(text, out);
    assert_int_equal(fclose(out), 0);
}

static void a_run_goes_on_after_the_rounds_of_the_one_before(void **state)
{
    struct figure before[N_CASES], after[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q8_0", before);
    append_round(before, 0, 10);
    append_round(before, 1, 20);
    group_of("7b", "q8_0", after);
    assert_ok(rounds_file_read(path, after, N_CASES, &e), e);
    for (uint32_t i = 0; i < N_CASES; i++) {
        assert_int_equal(after[i].n_rounds, 2);
        assert_string_equal(after[i].limit_name, before[i].limit_name);
        assert_memory_equal(after[i].ours, before[i].ours, 2 * sizeof(double));
        assert_memory_equal(after[i].theirs, before[i].theirs, 2 * sizeof(double));
        assert_memory_equal(after[i].limits, before[i].limits, 2 * sizeof(double));
    }
}

static void without_a_file_there_are_no_rounds(void **state)
{
    struct figure figures[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q8_0", figures);
    assert_ok(rounds_file_read(path, figures, N_CASES, &e), e);
    assert_ok(rounds_file_read("", figures, N_CASES, &e), e);
    assert_int_equal(figures[0].n_rounds, 0);
}

static void rounds_of_other_models_do_not_count(void **state)
{
    struct figure other[N_CASES], ours[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q4_0", other);
    append_round(other, 0, 10);
    group_of("1.1b", "q8_0", other);
    append_round(other, 0, 10);
    group_of("7b", "q8_0", ours);
    assert_ok(rounds_file_read(path, ours, N_CASES, &e), e);
    assert_int_equal(ours[0].n_rounds, 0);
    append_round(ours, 0, 30);
    group_of("7b", "q8_0", ours);
    assert_ok(rounds_file_read(path, ours, N_CASES, &e), e);
    assert_int_equal(ours[0].n_rounds, 1);
    assert_true(ours[0].ours[0] == 30);
}

static void a_round_that_is_not_whole_does_not_count(void **state)
{
    struct figure figures[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q8_0", figures);
    append_round(figures, 0, 10);
    add_text("7b,q8_0,\"prompt\",1.00,2.00,3.00,int8\n");
    group_of("7b", "q8_0", figures);
    assert_ok(rounds_file_read(path, figures, N_CASES, &e), e);
    assert_int_equal(figures[0].n_rounds, 1);
    assert_int_equal(figures[1].n_rounds, 1);
}

static void what_is_no_round_is_refused_with_its_line(void **state)
{
    static const char *const texts[] = { "7b,q8_0,\"prompt\",1.00,2.", "\n", "shape,type\n",
                                         "7b,q8_0,prompt,1,2,3,int8\n",
                                         "7b,q8_0,\"prompt\",one,2,3,int8\n" };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        struct figure figures[N_CASES];
        char at[96];
        struct err e;
        no_file(NULL);
        group_of("7b", "q8_0", figures);
        append_round(figures, 0, 10);
        add_text(texts[i]);
        snprintf(at, sizeof at, "%s:4: ", path); /* a header and two cases before it */
        group_of("7b", "q8_0", figures);
        assert_false(rounds_file_read(path, figures, N_CASES, &e));
        assert_non_null(strstr(e.msg, at));
    }
}

static void more_rounds_than_a_figure_holds_are_refused(void **state)
{
    struct figure figures[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q8_0", figures);
    for (uint32_t r = 0; r < ROUNDS_MAX; r++)
        append_round(figures, 0, 10);
    group_of("7b", "q8_0", figures);
    assert_ok(rounds_file_read(path, figures, N_CASES, &e), e);
    assert_int_equal(figures[0].n_rounds, ROUNDS_MAX);
    append_round(figures, 0, 10);
    group_of("7b", "q8_0", figures);
    assert_false(rounds_file_read(path, figures, N_CASES, &e));
    assert_non_null(strstr(e.msg, "more than 99 rounds"));
}

static void a_file_that_cannot_be_written_is_an_error(void **state)
{
    struct figure figures[N_CASES];
    struct err e;

    (void)state;
    group_of("7b", "q8_0", figures);
    assert_false(rounds_file_append("/proc/rounds", figures, N_CASES, 0, &e));
    assert_non_null(strstr(e.msg, "/proc/rounds"));
    assert_false(rounds_file_append("/dev/full", figures, N_CASES, 0, &e));
    assert_non_null(strstr(e.msg, "/dev/full"));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, no_file, remove_file)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(a_run_goes_on_after_the_rounds_of_the_one_before),
        TEST(without_a_file_there_are_no_rounds),
        TEST(rounds_of_other_models_do_not_count),
        TEST(a_round_that_is_not_whole_does_not_count),
        TEST(what_is_no_round_is_refused_with_its_line),
        TEST(more_rounds_than_a_figure_holds_are_refused),
        TEST(a_file_that_cannot_be_written_is_an_error),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
