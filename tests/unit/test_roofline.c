/* test_roofline.c - what gpu-verify expects of a kernel on a GPU, by the driver's name for it.
 *
 * What would break: a kernel that passes because its GPU was taken for a slower one, or fails by another one's limits; a
 * program and a script that read the same table differently. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "gpu-worker/cuda/verify/report.h"
#include "gpu-worker/cuda/verify/roofline.h"

static void a_gpu_has_the_data_sheet_of_its_whole_name(void **state)
{
    static const struct {
        const char *gpu;
        int sm;
        const char *sheet; /* NULL: none */
    } gpus[] = {
        { "NVIDIA A10", 86, "A10" },
        { "NVIDIA A100-SXM4-80GB", 80, "A100-80" },
        { "NVIDIA A100-SXM4-40GB", 80, "A100-40" },
        { "NVIDIA A100-PCIE-40GB", 80, "A100-40" },
        { "NVIDIA A100 80GB PCIe", 80, "A100-PCIe" },
        { "NVIDIA L4", 89, "L4" },
        { "NVIDIA L40S", 89, "L40S" },
        { "NVIDIA H100 80GB HBM3", 90, "H100-SXM" },
        { "NVIDIA H100 PCIe", 90, "H100-PCIe" },
        { "NVIDIA H100 NVL", 90, "H100-NVL" },
        { "NVIDIA H200", 90, "H200" },
        { "NVIDIA H200 NVL", 90, "H200-NVL" },
        { "NVIDIA A10G", 86, NULL },
        { "NVIDIA A10", 80, NULL },
        { "NVIDIA L40", 89, NULL },
        { "NVIDIA GH200 480GB", 90, NULL },
        { "NVIDIA A100-SXM4-40GB MIG 3g.20gb", 80, NULL },
        { "Fake GPU", 80, NULL },
        { "", 80, NULL },
    };

    (void)state;
    for (size_t i = 0; i < sizeof gpus / sizeof gpus[0]; i++) {
        const struct data_sheet *s = data_sheet_of(gpus[i].gpu, gpus[i].sm);
        if (gpus[i].sheet && s)
            assert_string_equal(s->name, gpus[i].sheet);
        else if (gpus[i].sheet || s)
            fail_msg("'%s': %s", gpus[i].gpu, s ? s->name : "no data sheet");
    }
}

static void parts_are_those_of_the_table(void **state)
{
    (void)state;
    assert_true(roofline_part("rmsnorm") == 0.85);
    assert_true(roofline_part("gemv_i4_8") == 0.4);
    assert_true(roofline_part("moe_sort") == 0.01);
    assert_true(roofline_part("moe_") == 0);
    assert_true(roofline_part("kernel") == 0);
}

/* Columns of the script's row for this kernel and case: on an A10, an A100 and an H100; and the percentage. */
static void read_row(const char *begin, double us[3], double *percent)
{
    char line[400];
    FILE *f = popen(TEST_SOURCE_DIR "/scripts/gpu-roofline.sh", "re");
    int n = 0;

    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strncmp(line, begin, strlen(begin)) == 0)
            n = sscanf(line + strlen(begin), "%*f | %*f | %lf | %lf | %lf | %lf %%", &us[0], &us[1],
                       &us[2], percent);
    assert_int_equal(pclose(f), 0);
    assert_int_equal(n, 4);
}

static void compare_row(const char *begin, const char *kernel, double bytes, double operations)
{
    const struct data_sheet *s[3] = { data_sheet_of("NVIDIA A10", 86),
                                      data_sheet_of("NVIDIA A100-SXM4-80GB", 80),
                                      data_sheet_of("NVIDIA H100 80GB HBM3", 90) };
    double us[3], percent;

    read_row(begin, us, &percent);
    for (int i = 0; i < 3; i++)
        assert_true(us[i] / roofline_least_us(s[i], bytes, operations) > 0.99 &&
                    us[i] / roofline_least_us(s[i], bytes, operations) < 1.01);
    assert_true(percent / 100 == roofline_part(kernel));
}

/* One bound by memory, one by the tensor cores. */
static void the_script_says_the_same(void **state)
{
    (void)state;
    compare_row("| rmsnorm | 2048 rows to f16 | ", "rmsnorm", 2048 * 4096 * 6 + 4096 * 4,
                2048 * 4096 * 4);
    compare_row("| attention_prefill_f16_d128 | a prompt of 2048 | ", "attention_prefill_f16_d128",
                2048 * 4096 * 12, 32.0 * 128 * 4 * 2048 * 2049 / 2);
}

static double number(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static void a_report_says_what_was_expected_and_reached(void **state)
{
    static struct item_report r = { .id = "G10", .title = "kernels" };
    struct roofline f = { "A100-80", 20, 0.85 };
    char path[] = "/tmp/test_roofline-XXXXXX";
    const json_t *m;
    struct err e = { 0 };
    json_t *report;

    (void)state;
    assert_true(close(mkstemp(path)) == 0);
    report_time(&r, 25, "us", &f, "rmsnorm: time");
    assert_true(report_write(path, &r, 1, false));
    report = json_parse_file(path, 1 << 16, &e);
    assert_non_null(report);
    m = json_array_get(
        json_object_get(json_array_get(json_object_get(report, "items"), 0), "measures"), 0);
    assert_true(number(m, "value") == 25);
    m = json_object_get(m, "roofline");
    assert_string_equal(json_string_value(json_object_get(m, "data_sheet")), "A100-80");
    assert_true(number(m, "least") == 20 && number(m, "wanted") == 0.85);
    assert_true(number(m, "reached") == 0.8);
    json_decref(report);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_has_the_data_sheet_of_its_whole_name),
        cmocka_unit_test(parts_are_those_of_the_table),
        cmocka_unit_test(the_script_says_the_same),
        cmocka_unit_test(a_report_says_what_was_expected_and_reached),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
