/* test_cuda_door.c - the reasons for which an installed driver cannot be used. */
#include "tests/cuda/child.h"

static void refused_by_name(void)
{
    struct err e = { 0 };

    CHECK(!cuda_driver_open(&e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_SYSTEM_DRIVER_MISMATCH);
    CHECK(strcmp(e.msg, "cuInit: CUDA_ERROR_SYSTEM_DRIVER_MISMATCH") == 0);
}

static void cuinit_error_is_given_by_name(void **state)
{
    (void)state;
    assert_int_equal(in_child("init=803", NULL, refused_by_name), 0);
}

static void no_gpu(void)
{
    struct err e = { 0 };

    CHECK(!cuda_driver_open(&e));
    CHECK(strstr(e.msg, "CUDA_ERROR_NO_DEVICE"));
}

static void driver_without_a_gpu_is_said(void **state)
{
    (void)state;
    assert_int_equal(in_child("gpus=0", NULL, no_gpu), 0);
}

static void all_symbols(void)
{
    struct err e = { 0 };

    CHECK_OK(cuda_driver_open(&e), e);
    CHECK_OK(cuda_driver_open(&e), e);
    CHECK(cuda.version == 12020 && cuda.n_devices == 3);
#define CU(symbol, params)          CHECK(cuda.symbol != NULL);
#define CU_OPTIONAL(symbol, params) CHECK(cuda.symbol != NULL);
#include "gpu-worker/cuda/api/driver.def"
#undef CU
#undef CU_OPTIONAL
}

static void fake_driver_has_the_whole_table(void **state)
{
    (void)state;
    assert_int_equal(in_child("gpus=3,driver=12020", NULL, all_symbols), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuinit_error_is_given_by_name),
        cmocka_unit_test(driver_without_a_gpu_is_said),
        cmocka_unit_test(fake_driver_has_the_whole_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
