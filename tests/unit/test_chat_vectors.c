/* test_chat_vectors.c - the same text as the real engine, for many models and conversations.
 *
 * What would break in production: a prompt that differs by one blank from what the model was trained
 * on.  The answers come from Jinja itself (tests/vectors/chat/make_vectors.py).  A case that must fail
 * there must fail here; where raise_exception() was called, with the same words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "text/chat_template.h"

#define VECTORS TEST_SOURCE_DIR "/tests/vectors/chat/"

enum { FILE_BYTES_MAX = 8 << 20 };

/* The clock of make_vectors.py: Friday, 26 July 2024, 9:05. */
static const struct tm now = { .tm_year = 124,
                               .tm_mon = 6,
                               .tm_mday = 26,
                               .tm_hour = 9,
                               .tm_min = 5,
                               .tm_wday = 5,
                               .tm_yday = 207 };

static json_t *load(const char *path)
{
    struct err e = { 0 };
    json_t *v = json_parse_file(path, FILE_BYTES_MAX, &e);

    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static char *read_template(const char *name, size_t *n)
{
    char path[512], *text;
    struct err e = { 0 };

    snprintf(path, sizeof path, VECTORS "templates/%s", name);
    if (!file_read(path, FILE_BYTES_MAX, &text, n, &e))
        fail_msg("%s", e.msg);
    return text;
}

/* Compile and render.  NULL when either fails; *e says why. */
static char *render(const char *source, size_t n, const json_t *vars, struct err *e)
{
    struct chat_template *t = chat_template_new(source, n, e);
    struct buf out = { 0 };
    bool ok = t && chat_template_render(t, vars, &now, &out, e);

    chat_template_free(t);
    if (ok)
        return buf_take(&out);
    buf_fini(&out);
    return NULL;
}

/* One case: [name, vars, text] or [name, vars, null, message].  False, and a report, when it differs. */
static bool check(const json_t *c, const char *source, size_t n, const json_t *vars)
{
    const json_t *wanted = json_array_get(c, 2);
    const char *message = json_string_value(json_array_get(c, 3));
    struct err e = { 0 };
    char *text = render(source, n, vars, &e);
    bool ok;

    if (json_is_string(wanted))
        ok = text && strlen(text) == json_string_length(wanted) &&
             memcmp(text, json_string_value(wanted), json_string_length(wanted)) == 0;
    else if (message)
        ok = !text && e.code == ERR_INPUT && strcmp(e.msg, message) == 0;
    else
        ok = !text && (e.code == ERR_INPUT || e.code == ERR_MODEL);
    if (!ok)
        print_error("--- %s with %s\nwanted: %s\ngot:    %s\n",
                    json_string_value(json_array_get(c, 0)),
                    json_string_value(json_array_get(c, 1)),
                    json_is_string(wanted) ? json_string_value(wanted)
                    : message              ? message
                                           : "(an error)",
                    text ? text : e.msg);
    free(text);
    return ok;
}

static void replay(const char *file, bool is_template_file, size_t cases_min)
{
    json_t *all = load(file);
    const json_t *cases = json_object_get(all, "cases");
    size_t i, n_bad = 0;
    const json_t *c;

    assert_true(json_array_size(cases) >= cases_min);
    json_array_foreach (cases, i, c) {
        const char *name = json_string_value(json_array_get(c, 0));
        const json_t *vars =
            json_object_get(json_object_get(all, "vars"), json_string_value(json_array_get(c, 1)));
        size_t n = strlen(name);
        char *source = NULL;
        if (is_template_file)
            source = read_template(name, &n);
        n_bad += !check(c, source ? source : name, n, vars);
        free(source);
    }
    json_decref(all);
    if (n_bad)
        fail_msg("%zu of %zu cases differ", n_bad, i);
}

static void models_render_conversations_as_the_real_engine(void **state)
{
    (void)state;
    replay(VECTORS "conversations.json", true, 2000);
}

static void corners_of_the_language_match_the_real_engine(void **state)
{
    (void)state;
    replay(VECTORS "snippets.json", false, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(models_render_conversations_as_the_real_engine),
        cmocka_unit_test(corners_of_the_language_match_the_real_engine),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
