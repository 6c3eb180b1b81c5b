/* serve.c - the real gateway with a fake worker behind it, for client libraries to talk to.
 *
 * Says "port N" on stdout and serves until stdin ends.  Seed 20240726 gives thoughts, text and two calls
 * (fake_script); any other a text that is a function of prompt and seed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/gateway/harness.h"

static const struct harness_setting settings[] = {
    { "tool_call_parser", "hermes" },
    { "reasoning_parser", "qwen3" },
    { NULL, NULL },
};

static void serve(void **state)
{
    static struct harness h;

    (void)state;
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    atomic_store(&h.workers[0].step_us, 500);
    printf("port %u\n", h.port);
    fflush(stdout);
    while (getchar() != EOF) {
    }
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(serve) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
