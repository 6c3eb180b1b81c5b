/* serve.c - the real gateway with a fake worker behind it that says what it is told, slowly or at once, for pages to
 * be tried with texts that no model can be trusted to write.
 *
 * Says "port N" on stdout, then takes lines from stdin until they end:
 *   say TEXT       every answer to come is TEXT; "\n" in it is a newline, "\\" a backslash
 *   step MICROS    the pause between two tokens, which are a byte each
 * and answers each with "done". */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/gateway/harness.h"

enum { TEXTS_MAX = 64, LINE_BYTES = 1 << 14 };

static const struct harness_setting settings[] = {
    { "reasoning_parser", "qwen3" },
    { NULL, NULL },
};
static char *texts[TEXTS_MAX]; /* sequences may still say an earlier one */
static size_t n_texts;

static char *unescaped(const char *from)
{
    char *text = malloc(strlen(from) + 1), *to = text;

    assert_non_null(text);
    for (; *from; from++) {
        if (*from == '\\' && from[1]) {
            from++;
            *to++ = *from == 'n' ? '\n' : *from;
        } else {
            *to++ = *from;
        }
    }
    *to = '\0';
    return text;
}

static void obey(struct fake_worker *w, char *line)
{
    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "say ", 4) == 0) {
        assert_true(n_texts < TEXTS_MAX);
        texts[n_texts] = unescaped(line + 4);
        atomic_store(&w->says, texts[n_texts++]);
    } else if (strncmp(line, "step ", 5) == 0) {
        atomic_store(&w->step_us, (uint32_t)strtoul(line + 5, NULL, 10));
    } else {
        fail_msg("unknown order '%s'", line);
    }
    printf("done\n");
    fflush(stdout);
}

static void serve(void **state)
{
    static char line[LINE_BYTES];
    static struct harness h;

    (void)state;
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    printf("port %u\n", h.port);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        obey(&h.workers[0], line);
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    while (n_texts > 0)
        free(texts[--n_texts]);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(serve) };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
