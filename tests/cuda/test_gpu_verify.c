/* test_gpu_verify.c - the dry run of gpu-verify on the fake driver: it is meant for the first hour on a rented GPU, where
 * nobody wants to find out that it does not work. */
#include <ctype.h>
#include <sys/stat.h>

#include "common/buf.h"
#include "common/json.h"
#include "tests/cuda/child.h"

static char folder[STATE_FOLDER_BYTES];
static json_t *report;

/* What NVIDIA's program says where two NVLinks are between the fake GPUs. */
static const char nvidia_smi[] =
    "#!/bin/sh\n"
    "case \"$1\" in\n"
    "--query-gpu=*)\n"
    "    echo 'GPU-66616b65-0000-0000-0000-000000000001, 0, 4, 16'\n"
    "    echo 'GPU-66616b65-0000-0000-0000-000000000000, 1, 4, 8';;\n"
    "topo) printf '\\tGPU0\\tGPU1\\tCPU Affinity\\nGPU0\\t X \\tNV2\\t0-7\\nGPU1\\tNV2\\t X "
    "\\t0-7\\n';;\n"
    "nvlink) printf 'GPU %s: Fake GPU\\n\\t Link 0: 25 GB/s\\n\\t Link 1: 25 GB/s\\n' \"$4\";;\n"
    "esac\n";

static void write_nvidia_smi(void)
{
    char path[400];
    FILE *f;

    snprintf(path, sizeof path, "%s/nvidia-smi", folder);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(nvidia_smi, f);
    fclose(f);
    assert_int_equal(chmod(path, 0700), 0);
}

static int run_program(void **state)
{
    char command[1600], path[400];
    struct err e = { 0 };

    (void)state;
    assert_true(state_folder_make(folder));
    write_nvidia_smi();
    snprintf(path, sizeof path, "%s/report.json", folder);
    snprintf(command, sizeof command,
             "PATH='%s':\"$PATH\" LD_LIBRARY_PATH='%s' "
             "LLMD_FAKE_CUDA='gpus=2,memory=1g,multiprocessors=1,leaks=fatal,state=%s' "
             "'%s/gpu-verify' --dry-run --scratch '%s' --report '%s'",
             folder, FAKE_CUDA_DIR, folder, TEST_BIN_DIR, folder, path);
    assert_int_equal(system(command), 0);
    report = json_parse_file(path, 1 << 20, &e);
    if (!report)
        fail_msg("%s", e.msg);
    return 0;
}

static int clean_up(void **state)
{
    (void)state;
    json_decref(report);
    assert_true(state_folder_remove(folder));
    return 0;
}

static json_t *item(const char *id)
{
    json_t *items = json_object_get(report, "items"), *value;
    size_t i;

    json_array_foreach (items, i, value) {
        if (strcmp(json_string_value(json_object_get(value, "id")), id) == 0)
            return value;
    }
    fail_msg("the report has no %s", id);
    return NULL;
}

static const char *member(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s ? s : "";
}

static void every_item_has_a_verdict(void **state)
{
    char id[8];

    (void)state;
    assert_int_equal(json_array_size(json_object_get(report, "items")), 23);
    assert_true(json_is_true(json_object_get(report, "dry_run")));
    for (int i = 0; i <= 22; i++) {
        snprintf(id, sizeof id, "G%d", i);
        if (strcmp(member(item(id), "verdict"), "fail") == 0)
            fail_msg("%s: %s", id, member(item(id), "reason"));
        if (strcmp(member(item(id), "verdict"), "skipped") == 0)
            assert_true(member(item(id), "reason")[0] != '\0');
    }
}

static void what_the_fake_can_show_passes(void **state)
{
    static const char *const ids[] = { "G0",  "G1",  "G2",  "G3",  "G6",  "G7",  "G8",  "G9", "G10",
                                       "G12", "G13", "G14", "G15", "G16", "G17", "G20", "G22" };

    (void)state;
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        assert_string_equal(member(item(ids[i]), "verdict"), "pass");
}

/* The fake GPU has no data sheet. */
static void times_of_kernels_stand_beside_what_is_expected(void **state)
{
    json_t *m;
    size_t i, n = 0;

    (void)state;
    json_array_foreach (json_object_get(item("G10"), "measures"), i, m) {
        const json_t *f = json_object_get(m, "roofline");
        assert_true(!f == !strstr(member(m, "name"), ": time"));
        if (!f)
            continue;
        n++;
        assert_true(json_is_null(json_object_get(f, "data_sheet")));
        assert_true(json_is_null(json_object_get(f, "least")));
        assert_true(json_is_null(json_object_get(f, "reached")));
        assert_true(json_number_value(json_object_get(f, "wanted")) > 0);
    }
    assert_int_equal(n, 51);
}

static void measures_have_values_and_limits(void **state)
{
    json_t *measures = json_object_get(item("G2"), "measures"), *m;
    bool has_limit = false;
    size_t i;

    (void)state;
    assert_true(json_array_size(measures) >= 3);
    json_array_foreach (measures, i, m) {
        assert_true(json_is_number(json_object_get(m, "value")));
        if (strncmp(member(m, "name"), "wrong bytes", 11) == 0) {
            has_limit = true;
            assert_int_equal(json_number_value(json_object_get(m, "value")), 0);
            assert_int_equal(json_number_value(json_object_get(m, "at_most")), 0);
            assert_string_equal(member(m, "verdict"), "pass");
        }
    }
    assert_true(has_limit);
}

/* What kills are for: every kill came to pass, was recovered from, and no answer was cut. */
static void kills_are_counted_and_survived(void **state)
{
    static const char *const ids[] = { "G3", "G8", "G15" };
    json_t *m;

    (void)state;
    for (size_t k = 0; k < sizeof ids / sizeof ids[0]; k++) {
        double kills = 0, cut = -1;
        size_t i;

        json_array_foreach (json_object_get(item(ids[k]), "measures"), i, m) {
            const char *name = member(m, "name");
            double value = json_number_value(json_object_get(m, "value"));
            if (strstr(name, ": kills") && !strstr(name, "failed"))
                kills += value;
            if (strstr(name, "answers cut"))
                cut = cut < 0 ? value : cut + value;
        }
        assert_true(kills >= 1);
        assert_true(cut == 0);
    }
}

/* Value of the item's measure whose name has these words. */
static double value_of(const char *id, const char *words)
{
    json_t *m;
    size_t i;

    json_array_foreach (json_object_get(item(id), "measures"), i, m) {
        if (strstr(member(m, "name"), words))
            return json_number_value(json_object_get(m, "value"));
    }
    fail_msg("%s has no measure '%s'", id, words);
    return -1;
}

/* Each code ends its worker as the failure matrix says; what is lost is loaded again, and nothing else. */
static void injected_errors_are_met_and_survived(void **state)
{
    (void)state;
    assert_true(value_of("G20", "(226): workers that did not end with exit code 81") == 0);
    assert_true(value_of("G20", "(220): workers that did not end with exit code 80") == 0);
    assert_true(value_of("G20", "(214): workers that did not end with exit code 82") == 0);
    assert_true(value_of("G20", "(226): weights loaded again") == 0);
    assert_true(value_of("G20", "(214): weights loaded again") > 0);
    assert_true(value_of("G20", "(214): answers with other tokens") == 0);
}

/* By default inputs of products are rounded to float16; with `deterministic` they are not. */
static void logits_are_those_of_the_cpu(void **state)
{
    double by_default = value_of("G22", "by default: logits off the CPU's"),
           exact = value_of("G22", "deterministic: logits off the CPU's");

    (void)state;
    assert_true(by_default > 0 && by_default <= 0.02);
    assert_true(exact > 0 && exact < by_default);
    assert_true(value_of("G22", "deterministic: other likeliest tokens, of 17") == 0);
    assert_true(value_of("G22", "by default: draws on the GPU of other tokens") == 0);
}

static void the_first_product_is_timed_by_itself(void **state)
{
    (void)state;
    assert_true(value_of("G5", "cublaslt_load") > 0);
    assert_true(value_of("G5", "cublaslt_heuristic") > 0);
    assert_true(value_of("G5", "first_gemm") > 0);
    assert_true(value_of("G5", "total") >
                value_of("G5", "cublaslt_load") + value_of("G5", "first_gemm"));
}

static void pages_go_to_host_memory_and_come_back(void **state)
{
    (void)state;
    assert_true(value_of("G17", "pages saved") >= 5);
    assert_true(value_of("G17", "pages restored") >= 5);
    assert_true(value_of("G17", "between tokens without") > 0);
    assert_true(value_of("G17", "restored: answers cut") == 0);
}

static void a_copy_is_compared_with_the_link(void **state)
{
    (void)state;
    assert_true(value_of("G18", "the link: 2 NVLinks, one direction") == 50);
    assert_true(value_of("G18", "of the link's rate") > 0);
}

static void skipped_items_say_what_they_take(void **state)
{
    static const char *const reasons[][2] = { { "G11", "GPU" },
                                              { "G19", "--soak" },
                                              { "G21", "CUDA 13.0" } };

    (void)state;
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++) {
        assert_string_equal(member(item(reasons[i][0]), "verdict"), "skipped");
        assert_non_null(strstr(member(item(reasons[i][0]), "reason"), reasons[i][1]));
    }
}

static int run_with(const char *settings, const char *faults, const char *arguments)
{
    char command[1200];

    snprintf(command, sizeof command,
             "LD_LIBRARY_PATH='%s' LLMD_FAKE_CUDA='%s' LLMD_FAKE_CUDA_FAULTS='%s' "
             "'%s/gpu-verify' %s >/dev/null 2>&1",
             FAKE_CUDA_DIR, settings, faults, TEST_BIN_DIR, arguments);
    return WEXITSTATUS(system(command));
}

static void failures_are_told_by_the_exit_code(void **state)
{
    (void)state;
    assert_int_equal(run_with("gpus=1", "", "--dry-run --items G2"), 0);
    assert_int_equal(run_with("gpus=1", "call cuMemMap 5+: return 205", "--dry-run --items G2"), 0);
    assert_int_equal(run_with("gpus=1", "call cuMemMap 2+: return 205", "--dry-run --items G2"), 1);
    assert_int_equal(run_with("gpus=1,persistence=off", "", "--dry-run --items G0"), 1);
    assert_int_equal(run_with("gpus=0", "", "--dry-run"), 2);
    assert_int_equal(run_with("gpus=1", "", "--no-such-option"), 2);
    assert_int_equal(run_with("gpus=1", "", "--dry-run --items G2,G99"), 2);
    assert_int_equal(run_with("gpus=1", "", "--dry-run --gpu one"), 2);
    assert_int_equal(run_with("gpus=1,driver=12040", "", "--dry-run --items G21"), 0);
}

static void kernels_that_an_older_gpu_is_never_given_are_left_out(void **state)
{
    const char *group = "kernel attention_group_f16_d64 1+: sticky 719",
               *w4 = "kernel gemm_w4_i4_16 1+: sticky 719";

    (void)state;
    assert_int_equal(run_with("gpus=1,sm=70", group, "--dry-run --items G10"), 0);
    assert_int_equal(run_with("gpus=1,sm=75", group, "--dry-run --items G10"), 1);
    assert_int_equal(run_with("gpus=1,sm=75", w4, "--dry-run --items G10"), 0);
    assert_int_equal(run_with("gpus=1,sm=80", w4, "--dry-run --items G10"), 1);
}

/* Output of the program with these arguments; caller frees. */
static char *output_of(const char *arguments)
{
    char command[600];
    struct buf out = { 0 };
    FILE *f;
    int c;

    snprintf(command, sizeof command, "'%s/gpu-verify' %s", TEST_BIN_DIR, arguments);
    f = popen(command, "re");
    assert_non_null(f);
    while ((c = fgetc(f)) != EOF)
        buf_add_char(&out, (char)c);
    assert_int_equal(pclose(f), 0);
    return buf_take(&out);
}

/* Without any driver. */
static void help_and_list_name_everything(void **state)
{
    static const char *const options[] = { "--gpu",     "--peer",    "--items",
                                           "--report",  "--scratch", "--soak",
                                           "--dry-run", "--list",    "--help" };
    char *help = output_of("--help"), *list = output_of("--list"), id[8];

    (void)state;
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        assert_non_null(strstr(help, options[i]));
    for (int i = 0; i <= 22; i++) {
        snprintf(id, sizeof id, "G%d ", i);
        assert_non_null(strstr(list, id));
    }
    free(help);
    free(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_has_a_verdict),
        cmocka_unit_test(what_the_fake_can_show_passes),
        cmocka_unit_test(times_of_kernels_stand_beside_what_is_expected),
        cmocka_unit_test(measures_have_values_and_limits),
        cmocka_unit_test(kills_are_counted_and_survived),
        cmocka_unit_test(injected_errors_are_met_and_survived),
        cmocka_unit_test(logits_are_those_of_the_cpu),
        cmocka_unit_test(the_first_product_is_timed_by_itself),
        cmocka_unit_test(pages_go_to_host_memory_and_come_back),
        cmocka_unit_test(a_copy_is_compared_with_the_link),
        cmocka_unit_test(skipped_items_say_what_they_take),
        cmocka_unit_test(failures_are_told_by_the_exit_code),
        cmocka_unit_test(kernels_that_an_older_gpu_is_never_given_are_left_out),
        cmocka_unit_test(help_and_list_name_everything),
    };

    return cmocka_run_group_tests(tests, run_program, clean_up);
}
