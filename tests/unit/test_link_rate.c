/* test_link_rate.c - what gpu-verify makes of nvidia-smi's words about the link between two GPUs.
 *
 * What would break: a copy that passes because the link was taken for a slower one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu-worker/cuda/verify/link_rate.h"

static const char list[] = "GPU-aa, 0, 4, 16\n"
                           "GPU-ab, 1, 5, 8\n"
                           "GPU-ac, 2, [N/A], [N/A]\n";

/* Four GPUs, of which 0 and 1, and 2 and 3, are side by side. */
static const char matrix[] =
    "\t\033[4mGPU0\tGPU1\tGPU2\tGPU3\tNIC0\tCPU Affinity\tNUMA Affinity\033[0m\n"
    "GPU0\t X \tNV4\tPXB\tSYS\tPIX\t0-31\t0\n"
    "GPU1\tNV4\t X \tNV12\tSYS\tSYS\t0-31\t0\n"
    "GPU2\tPXB\tNV12\t X \tNV4\tNODE\t0-31\t0\n"
    "NIC0\tPIX\tSYS\tNODE\tSYS\t X \t\t\n\n"
    "Legend:\n\n  NV#  = Connection traversing a bonded set of # NVLinks\n";

static void a_gpu_is_found_by_its_whole_name(void **state)
{
    struct link_gpu g;

    (void)state;
    assert_true(link_rate_find(&g, list, "GPU-ab"));
    assert_int_equal(g.index, 1);
    assert_int_equal(g.pcie_generation, 5);
    assert_int_equal(g.pcie_lanes, 8);
    assert_false(link_rate_find(&g, list, "GPU-a"));
    assert_false(link_rate_find(&g, list, "GPU-ac"));
    assert_false(link_rate_find(&g, list, "GPU-ad"));
    assert_false(link_rate_find(&g, "", "GPU-aa"));
    assert_false(link_rate_find(&g, list, ""));
}

static void nvlinks_are_those_between_the_two(void **state)
{
    (void)state;
    assert_int_equal(link_rate_nvlinks(matrix, 0, 1), 4);
    assert_int_equal(link_rate_nvlinks(matrix, 1, 2), 12);
    assert_int_equal(link_rate_nvlinks(matrix, 0, 2), 0); /* by PCIe */
    assert_int_equal(link_rate_nvlinks(matrix, 2, 3), 4);
    assert_int_equal(link_rate_nvlinks(matrix, 3, 0), 0); /* there is no such row */
    assert_int_equal(link_rate_nvlinks(matrix, 0, 40), 0);
    assert_int_equal(link_rate_nvlinks("", 0, 1), 0);
}

static void a_link_that_is_down_has_no_rate(void **state)
{
    (void)state;
    assert_true(link_rate_nvlink("GPU 0: H100 (UUID: GPU-aa)\n\t Link 0: <inactive>\n"
                                 "\t Link 1: 26.562 GB/s\n\t Link 2: 25 GB/s\n") == 26.562);
    assert_true(link_rate_nvlink("GPU 0: A10 (UUID: GPU-aa)\n") == 0);
    assert_true(link_rate_nvlink("") == 0);
}

static void pcie_has_a_rate_by_generation_and_lanes(void **state)
{
    (void)state;
    assert_true(link_rate_pcie(1, 16) == 4);
    assert_true(link_rate_pcie(4, 16) > 31.5 && link_rate_pcie(4, 16) < 31.6);
    assert_true(link_rate_pcie(5, 8) == link_rate_pcie(4, 16));
    assert_true(link_rate_pcie(0, 16) == 0);
    assert_true(link_rate_pcie(7, 16) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_gpu_is_found_by_its_whole_name),
        cmocka_unit_test(nvlinks_are_those_between_the_two),
        cmocka_unit_test(a_link_that_is_down_has_no_rate),
        cmocka_unit_test(pcie_has_a_rate_by_generation_and_lanes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
