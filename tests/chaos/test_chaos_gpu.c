/* test_chaos_gpu.c - the short form of the chaos suite on GPUs, whose driver is a fake one.
 *
 * What would break in production: a fault of a GPU costs a request, or changes a token.  Two shapes of servers meet the
 * faults of device_faults.def, each kind that is quick once; nothing may be lost, other than without the fault, or left
 * in GPU memory.  `build/release/bin/chaos --device cuda` is the long form, and has the slow ones too.  With
 * AddressSanitizer it is a few faults of one group. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/chaos/chaos.h"

#ifdef __SANITIZE_ADDRESS__
enum { IS_SHORT = true };
#else
enum { IS_SHORT = false };
#endif
enum { SEED = 20261128 };

static void run(const char *shape, const char *kinds, uint32_t n_kinds)
{
    struct chaos_options o = chaos_defaults();
    struct chaos_result r;
    struct err e;

    chaos_use_gpus(&o, FAKE_CUDA_DIR, TEST_SOURCE_DIR "/tests/vectors/tokenizer/llama3");
    o.bin = TEST_BIN_DIR;
    o.seed = SEED;
    o.shape = shape;
    o.only = kinds;
    o.rounds = 1;
    o.kills_per_round = n_kinds; /* each comes once before any comes twice */
    o.copies = 1;
    o.calm_ms = 300;
    print_message("seed %lu\n", (unsigned long)o.seed);
    if (!chaos_run(&o, &r, &e))
        fail_msg("%s", e.msg);
    chaos_csv(&r, stdout);
    chaos_line(&r, stdout);
    assert_int_equal(r.counts.lost, 0);
    assert_int_equal(r.counts.wrong, 0);
    assert_int_equal(r.counts.refused, 0);
    assert_int_equal(r.counts.leaked, 0);
    assert_int_equal(r.counts.failed, 0);
    assert_int_equal(r.n_defects, 0);
    assert_true(r.counts.kills >=
                n_kinds - 1); /* one may be left out as unfair, or meet no launch */
    chaos_result_fini(&r);
}

static void one_of_two_groups_meets_faults_of_its_gpu(void **state)
{
    (void)state;
    if (IS_SHORT)
        skip();
    run("groups2",
        "gpu_kill,gpu_illegal_address,gpu_call_fails,gpu_lost,gpu_seal_killed,gpu_page_spoilt,"
        "gpu_late_write,gpu_model_changed,gpu_poison,llmd_kill",
        10);
}

static void ranks_of_a_group_meet_faults_of_a_gpu(void **state)
{
    (void)state;
    if (IS_SHORT)
        run("tp2", "gpu_gather_killed,gpu_reduce_fails,gpu_page_spoilt", 3);
    else
        run("tp2",
            "gpu_launch_failure,gpu_reduce_killed,gpu_gather_killed,gpu_link_fails,gpu_link_gone,"
            "gpu_nccl_fails,gpu_page_spoilt,gateway_kill",
            8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_of_two_groups_meets_faults_of_its_gpu),
        cmocka_unit_test(ranks_of_a_group_meet_faults_of_a_gpu),
    };

    return cmocka_run_group_tests_name("chaos_gpu", tests, NULL, NULL);
}
