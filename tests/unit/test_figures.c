/* test_figures.c - the numbers that the README quotes: medians, ratios and shares of the limit.
 *
 * What would break: a claim.  A ratio upside down, a limit of the wrong instruction, or one disturbed round
 * that decides the figure. */
#include "bench/compare/figures.h"

#include <math.h>
#include <stdio.h>

#include "common/file.h"
#include "tests/check.h"

static const struct machine_limits machine = {
    .n_threads = 2,
    .read_all = 30e9,
    .ops = { [LIMIT_FP32] = 200e9, [LIMIT_INT4] = 600e9, [LIMIT_INT8] = 400e9 },
};

static struct figure figure_of(const char *unit, const double *ours, const double *theirs,
                               uint32_t n)
{
    struct figure f = { .shape = shape_find("110m"),
                        .type = weight_type_find("q4_0"),
                        .work = "prompt 512",
                        .unit = unit,
                        .n_rounds = n };

    memcpy(f.ours, ours, n * sizeof *ours);
    memcpy(f.theirs, theirs, n * sizeof *theirs);
    return f;
}

static void the_median_is_the_middle_of_odd_and_the_mean_of_even_counts(void **state)
{
    const double values[] = { 9, 1, 5, 3 };

    (void)state;
    assert_true(figure_median(values, 3) == 5);
    assert_true(figure_median(values, 4) == 4);
    assert_true(figure_median(values, 1) == 9);
    assert_true(figure_median(values, 0) == 0);
}

static void a_ratio_is_of_one_round_and_a_disturbed_round_does_not_decide(void **state)
{
    const double ours[] = { 20, 2, 40, 22, 30 }, theirs[] = { 10, 10, 20, 11, 15 };
    struct figure f = figure_of("tokens/s", ours, theirs, 5);
    double median, low, high;

    (void)state;
    figure_ratio(&f, &median, &low, &high);
    assert_true(fabs(median - 2) < 1e-12);
    assert_true(fabs(low - 0.2) < 1e-12);
    assert_true(fabs(high - 2) < 1e-12);
}

static void a_ratio_of_times_is_above_one_when_ours_is_shorter(void **state)
{
    const double ours[] = { 10 }, theirs[] = { 40 };
    struct figure f = figure_of("ms", ours, theirs, 1);
    double median, low, high;

    (void)state;
    f.smaller_is_better = true;
    figure_ratio(&f, &median, &low, &high);
    assert_true(fabs(median - 4) < 1e-12);
}

static void a_prompt_is_limited_by_products_and_one_stream_by_memory(void **state)
{
    const struct bench_case prompt = { "prompt", 0, 512, 0 }, stream = { "stream", 1, 128, 0 };
    struct figure f = figure_of("tokens/s", &(double){ 1 }, &(double){ 1 }, 1);
    double weights = shape_matrix_weights(f.shape), bytes;

    (void)state;
    figure_set_limit(&f, 0, &prompt, &machine);
    assert_string_equal(f.limit_name, "int4");
    /* layers for all rows, the output for the last one */
    assert_true(f.limits[0] > machine.ops[LIMIT_INT4] / (2 * weights));
    assert_true(f.limits[0] < 1.5 * machine.ops[LIMIT_INT4] / (2 * weights));
    figure_set_limit(&f, 0, &stream, &machine);
    assert_string_equal(f.limit_name, "memory");
    bytes = weights / 32 * 18 + shape_kv_bytes(f.shape) * 64;
    assert_true(fabs(f.limits[0] - machine.read_all / bytes) < 1e-6 * f.limits[0]);
}

static void a_share_is_of_the_limit_of_its_own_round(void **state)
{
    const double ours[] = { 8, 4, 9 }, theirs[] = { 4, 2, 3 };
    struct figure f = figure_of("tokens/s", ours, theirs, 3);
    char line[256] = "";
    FILE *out = fmemopen(line, sizeof line, "w");

    (void)state;
    f.limits[0] = 10;
    f.limits[1] = 5; /* a neighbour took half of everything */
    f.limits[2] = 10;
    snprintf(f.limit_name, sizeof f.limit_name, "memory");
    figure_print(out, &f);
    fclose(out);
    assert_non_null(strstr(line, " =  80 % of memory"));
    assert_non_null(strstr(line, " =  40 %"));
}

static void sixteen_bit_weights_are_limited_by_fp32_where_there_is_no_bf16(void **state)
{
    const char *name;

    (void)state;
    assert_true(machine_limits_ops(&machine, 16, &name) == machine.ops[LIMIT_FP32]);
    assert_string_equal(name, "fp32");
    assert_true(machine_limits_ops(&machine, 8, &name) == machine.ops[LIMIT_INT8]);
    assert_string_equal(name, "int8");
}

static void sixteen_bit_weights_are_limited_by_the_faster_of_fp32_and_bf16(void **state)
{
    struct machine_limits m = machine;
    const char *name;

    (void)state;
    m.ops[LIMIT_BF16] = m.ops[LIMIT_FP32] / 2; /* as on Emerald Rapids */
    assert_true(machine_limits_ops(&m, 16, &name) == m.ops[LIMIT_FP32]);
    assert_string_equal(name, "fp32");
    m.ops[LIMIT_BF16] = m.ops[LIMIT_FP32] * 2;
    assert_true(machine_limits_ops(&m, 16, &name) == m.ops[LIMIT_BF16]);
    assert_string_equal(name, "bf16");
}

static void a_glance_tries_only_what_was_the_fastest(void **state)
{
    struct machine_limits known = { .n_threads = 1 }, m = { 0 };

    (void)state;
    machine_limits_glance(&m, &known, true);
    for (int k = 0; k < N_LIMIT_KINDS; k++)
        assert_true(m.ops[k] == 0);
    assert_true(m.read_all > 0);
    known.instructions[LIMIT_FP32] = limit_kernels[0].instructions;
    machine_limits_glance(&m, &known, true);
    assert_true((m.ops[LIMIT_FP32] > 0) == limit_kernels[0].can_run());
}

static void the_line_of_a_figure_ends_with_its_ratio(void **state)
{
    const double ours[] = { 30 }, theirs[] = { 10 };
    struct figure f = figure_of("tokens/s", ours, theirs, 1);
    char line[512], *bytes = line;
    FILE *out = fmemopen(bytes, sizeof line, "w");

    (void)state;
    figure_print(out, &f);
    fclose(out);
    assert_non_null(strstr(line, "110m  q4_0  prompt 512"));
    assert_string_equal(strstr(line, "ratio"), "ratio 3.00\n");
}

static struct figures *two_figures(void)
{
    static struct figures all;
    const double ours[] = { 30, 30, 33 }, theirs[] = { 10, 20, 11 };

    all.limits = &machine;
    all.clock = "wall";
    all.n = 2;
    all.items[0] = figure_of("tokens/s", ours, theirs, 3);
    all.items[1] = figure_of("ms", ours, theirs, 2);
    return &all;
}

static void the_file_holds_every_figure(void **state)
{
    char path[] = "/tmp/llmd-figures-XXXXXX", *bytes;
    struct err e;
    size_t n;

    (void)state;
    close(mkstemp(path));
    assert_ok(figures_write_csv(two_figures(), path, &e), e);
    assert_ok(file_read(path, 1 << 20, &bytes, &n, &e), e);
    assert_non_null(
        strstr(bytes, "\n110m,q4_0,\"prompt 512\",tokens/s,30.00,11.00,3.000,1.500,3.000,3,"));
    assert_non_null(strstr(bytes, "\n110m,q4_0,\"prompt 512\",ms,"));
    assert_non_null(strstr(bytes, ",,,,2,wall\n"));
    free(bytes);
    unlink(path);
}

/* What bench/compare/draw.awk makes of the file. */
static void drawn(const char *path, const char *form, char *out, size_t max)
{
    char command[512];
    FILE *drawing;

    snprintf(command, sizeof command, "awk -v form=%s -f %s/bench/compare/draw.awk %s", form,
             TEST_SOURCE_DIR, path);
    assert_non_null(drawing = popen(command, "r"));
    out[fread(out, 1, max - 1, drawing)] = '\0';
    assert_int_equal(pclose(drawing), 0);
}

static void table_and_picture_are_drawn_from_the_file(void **state)
{
    char path[] = "/tmp/llmd-figures-XXXXXX", bytes[16384];
    struct err e;

    (void)state;
    close(mkstemp(path));
    assert_ok(figures_write_csv(two_figures(), path, &e), e);
    drawn(path, "markdown", bytes, sizeof bytes);
    assert_non_null(strstr(bytes, "| prompt 512 | 30.0 tokens/s | 11.0 |"));
    assert_non_null(strstr(bytes, "**3.00** (1.50 to 3.00 of 3) |"));
    drawn(path, "svg", bytes, sizeof bytes);
    assert_non_null(strstr(bytes, ">3.00</text>"));
    assert_string_equal(strstr(bytes, "</svg>"), "</svg>\n");
    unlink(path);
}

static void what_is_measured_of_a_machine_is_positive_and_has_a_name(void **state)
{
    const struct limits_options o = { .n_threads = 1, .passes = 1, .read_bytes = 16 << 20 };
    struct machine_limits m;

    (void)state;
    machine_limits_measure(&m, &o);
    assert_true(m.read_one > 0 && m.read_all > 0 && m.read_small_pages > 0);
    assert_true(m.ops[LIMIT_FP32] > 0);
    for (int k = 0; k < N_LIMIT_KINDS; k++)
        assert_true((m.ops[k] > 0) == (m.instructions[k] != NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_median_is_the_middle_of_odd_and_the_mean_of_even_counts),
        cmocka_unit_test(a_ratio_is_of_one_round_and_a_disturbed_round_does_not_decide),
        cmocka_unit_test(a_ratio_of_times_is_above_one_when_ours_is_shorter),
        cmocka_unit_test(a_prompt_is_limited_by_products_and_one_stream_by_memory),
        cmocka_unit_test(a_share_is_of_the_limit_of_its_own_round),
        cmocka_unit_test(sixteen_bit_weights_are_limited_by_fp32_where_there_is_no_bf16),
        cmocka_unit_test(sixteen_bit_weights_are_limited_by_the_faster_of_fp32_and_bf16),
        cmocka_unit_test(a_glance_tries_only_what_was_the_fastest),
        cmocka_unit_test(the_line_of_a_figure_ends_with_its_ratio),
        cmocka_unit_test(the_file_holds_every_figure),
        cmocka_unit_test(table_and_picture_are_drawn_from_the_file),
        cmocka_unit_test(what_is_measured_of_a_machine_is_positive_and_has_a_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
