/* test_cuda_no_driver.c - a machine without CUDA, with a driver that is too old, or without a GPU: a worker starts there,
 * and says in one line why it computes on the CPU. */
#include "tests/cuda/child.h"

static void no_library(void **state)
{
    struct err e = { 0 };

    (void)state;
    if (cuda_driver_open(&e)) {
        print_message("a CUDA driver is installed here\n");
        skip();
    }
    assert_int_equal(e.code, ERR_DEVICE);
    assert_non_null(strstr(e.msg, "libcuda.so.1"));
    assert_null(strchr(e.msg, '\n'));
    assert_fails(cuda_driver_open(&e), e, ERR_DEVICE, "no CUDA driver"); /* and again */
    assert_int_equal(device_count(&e), 0);
}

static void results_have_names_and_severities(void **state)
{
    (void)state;
    assert_string_equal(cuda_result_name(CU_ILLEGAL_ADDRESS), "CUDA_ERROR_ILLEGAL_ADDRESS");
    assert_string_equal(cuda_result_name(4711), "unknown CUresult");
    assert_int_equal(cuda_result_severity(CU_OK), CUDA_FINE);
    assert_int_equal(cuda_result_severity(CU_NOT_READY), CUDA_FINE);
    assert_int_equal(cuda_result_severity(CU_OUT_OF_MEMORY), CUDA_REFUSED);
    assert_int_equal(cuda_result_severity(CU_ILLEGAL_ADDRESS), CUDA_STICKY);
    assert_int_equal(cuda_result_severity(CU_LAUNCH_FAILED), CUDA_STICKY);
    assert_int_equal(cuda_result_severity(CU_CONTAINED), CUDA_CONTAINED);
    assert_int_equal(cuda_result_severity(CU_ECC_UNCORRECTABLE), CUDA_LOST);
    assert_int_equal(cuda_result_severity(4711), CUDA_REFUSED);
    assert_string_equal(cuda_severity_name(CUDA_CONTAINED), "contained");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_library),
        cmocka_unit_test(results_have_names_and_severities),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
