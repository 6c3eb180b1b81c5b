/* test_err.c - an operator who reads only err.msg must learn the cause.
 *
 * What would break in production: a long path in a message pushes "No such file or directory" out of
 * it, or half a UTF-8 character ends up in a log that must be valid JSON. */
#include <errno.h>
#include <stdio.h>

#include "tests/check.h"

static void err_set_fills_every_field(void **state)
{
    struct err e = { .sys = 7 };

    (void)state;
    assert_false(err_set(&e, ERR_MODEL, 0, "layer %d of '%s'", 3, "x"));
    assert_int_equal(e.code, ERR_MODEL);
    assert_int_equal(e.sys, 0);
    assert_string_equal(e.msg, "layer 3 of 'x'");
}

static void err_set_appends_the_system_reason(void **state)
{
    struct err e;

    (void)state;
    assert_false(err_set(&e, ERR_SYS, ENOENT, "open '%s'", "/a"));
    assert_int_equal(e.sys, ENOENT);
    assert_string_equal(e.msg, "open '/a': No such file or directory");
}

static void err_set_and_wrap_take_no_struct(void **state)
{
    (void)state;
    assert_false(err_set(NULL, ERR_SYS, ENOENT, "open"));
    assert_false(err_wrap(NULL, "outer"));
}

static void err_wrap_prepends(void **state)
{
    struct err e;

    (void)state;
    err_set(&e, ERR_PROTO, 0, "version 3");
    assert_false(err_wrap(&e, "segment '%s'", "board"));
    assert_false(err_wrap(&e, "boot"));
    assert_string_equal(e.msg, "boot: segment 'board': version 3");
    assert_int_equal(e.code, ERR_PROTO);
}

static void err_set_keeps_the_reason_behind_a_long_path(void **state)
{
    static const char reason[] = "...: No such file or directory";
    char path[4096];
    struct err e;

    (void)state;
    memset(path, 'p', sizeof path);
    path[sizeof path - 1] = '\0';
    err_set(&e, ERR_SYS, ENOENT, "open '%s'", path);
    assert_true(strlen(e.msg) < sizeof e.msg);
    assert_memory_equal(e.msg, "open 'ppp", 9);
    assert_string_equal(e.msg + strlen(e.msg) - strlen(reason), reason);
}

static void err_wrap_cuts_the_context_and_not_the_cause(void **state)
{
    char outer[300];
    struct err e;

    (void)state;
    memset(outer, 'o', sizeof outer);
    outer[sizeof outer - 1] = '\0';
    err_set(&e, ERR_PROTO, 0, "the cause");
    err_wrap(&e, "%s", outer);
    assert_string_equal(e.msg + strlen(e.msg) - 14, "...: the cause");

    memset(outer, 'c', sizeof outer);
    err_set(&e, ERR_PROTO, 0, "%.230s", outer);
    err_wrap(&e, "worker 0.1");
    assert_memory_equal(e.msg, "worker 0.1: cccc", 16);
}

static void err_set_never_ends_in_half_a_character(void **state)
{
    struct err e;

    (void)state;
    for (int shift = 0; shift < 4; shift++) {
        char text[512];
        size_t n = 0;
        while (n < (size_t)shift)
            text[n++] = 'x';
        while (n + 3 < sizeof text) {
            memcpy(text + n, "\xe2\x82\xac", 3);
            n += 3;
        }
        text[n] = '\0';
        err_set(&e, ERR_INPUT, 0, "%s", text);
        assert_int_equal((strlen(e.msg) - (size_t)shift) % 3, 0);
        err_wrap(&e, "ab");
        err_wrap(&e, "cde");
        assert_int_equal((strlen(e.msg) - 9 - (size_t)shift) % 3, 0);
    }
}

static void err_set_may_quote_its_own_message(void **state)
{
    struct err e;

    (void)state;
    err_set(&e, ERR_PROTO, 0, "inner");
    err_set(&e, ERR_MODEL, 0, "'%s', said again", e.msg);
    assert_string_equal(e.msg, "'inner', said again");
}

static void err_messages_have_one_line(void **state)
{
    struct err e;

    (void)state;
    err_set(&e, ERR_INPUT, 0, "unknown model 'a\nb\r\x1b[31m'");
    for (const char *c = e.msg; *c; c++)
        assert_true((unsigned char)*c >= 0x20);
    err_wrap(&e, "line\n2");
    assert_null(strchr(e.msg, '\n'));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(err_set_fills_every_field),
        cmocka_unit_test(err_set_appends_the_system_reason),
        cmocka_unit_test(err_set_and_wrap_take_no_struct),
        cmocka_unit_test(err_wrap_prepends),
        cmocka_unit_test(err_set_keeps_the_reason_behind_a_long_path),
        cmocka_unit_test(err_wrap_cuts_the_context_and_not_the_cause),
        cmocka_unit_test(err_set_never_ends_in_half_a_character),
        cmocka_unit_test(err_set_may_quote_its_own_message),
        cmocka_unit_test(err_messages_have_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
