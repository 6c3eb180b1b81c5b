/* test_cuda_old_driver.c - a driver that lacks what is called is refused by the name of the first such function, instead
 * of failing in the middle of a step. */
#include "tests/cuda/child.h"

static void missing_symbol_is_named(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_fails(cuda_driver_open(&e), e, ERR_DEVICE,
                 "too old: libcuda.so.1 has no cuGetErrorName");
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(missing_symbol_is_named) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
