/* test_no_gpu.c - a host without NVIDIA's driver, which is what most hosts are.
 *
 * What would break in production: a worker that does not start there, or one that was told to use GPUs and
 * quietly does not. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "gpu-worker/runtime.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

static bool inspect(const char *device, Llmd__ModelPlan *plan, struct err *e)
{
    static struct model_info info;
    struct config config;

    config_init(&config);
    assert_true(config_set(&config, "model", DEMO, "test", e));
    assert_true(config_set(&config, "device", device, "test", e));
    return runtime_inspect(&config, &info, plan, e);
}

static void auto_is_the_cpu(void **state)
{
    Llmd__ModelPlan plan;
    struct err e = { 0 };

    (void)state;
    assert_true(inspect("auto", &plan, &e));
    assert_false(plan.on_device);
    assert_int_equal(plan.device_bytes, 0);
}

static void asked_for_gpus_it_refuses_to_start(void **state)
{
    Llmd__ModelPlan plan;
    struct err e = { 0 };

    (void)state;
    assert_false(inspect("cuda", &plan, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    assert_non_null(strstr(e.msg, "libcuda.so.1"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(auto_is_the_cpu),
        cmocka_unit_test(asked_for_gpus_it_refuses_to_start),
    };

    if (dlopen("libcuda.so.1", RTLD_NOW)) {
        print_message("skipped: this host has a driver\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
