/* test_json_scan.c - reading large JSON in place, and cutting members out of it.
 *
 * What would break in production: a gateway that does not come up because of a number nobody reads,
 * or a vocabulary read wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/json_cut.h"

static void strings_are_unescaped(void **state)
{
    static const struct {
        const char *json, *want;
        size_t n;
    } good[] = {
        { "\"\"", "", 0 },
        { "\"a\\\"\\\\\\/\\b\\f\\n\\r\\t\"", "a\"\\/\b\f\n\r\t", 9 },
        { "\"\\u00e9\\u2581\"", "\xc3\xa9\xe2\x96\x81", 5 },
        { "\"\\ud83d\\uDE00\"", "\xf0\x9f\x98\x80", 4 },
        { "\"a\\u0000b\"", "a\0b", 3 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct err e = { 0 };
        struct json_scan j;
        char out[32];
        size_t n;

        json_scan_init(&j, good[i].json, strlen(good[i].json), &e);
        assert_true(json_scan_string(&j, out, sizeof out - 1, &n));
        assert_int_equal(n, good[i].n);
        assert_memory_equal(out, good[i].want, n);
        assert_true(json_scan_end(&j));
    }
}

static void broken_strings_are_refused(void **state)
{
    static const char *const bad[] = { "\"",
                                       "\"a",
                                       "\"\\\"",
                                       "\"\\x\"",
                                       "\"\\ud83d\"",
                                       "\"\\ude00\"",
                                       "\"\\ud83d\\u0041\"",
                                       "\"\\u12g4\"",
                                       "\"\n\"",
                                       "a",
                                       "",
                                       "\"longer than eight\"" };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = { 0 };
        struct json_scan j;
        char out[9];
        size_t n;

        json_scan_init(&j, bad[i], strlen(bad[i]), &e);
        assert_false(json_scan_string(&j, out, sizeof out - 1, &n));
        assert_false(json_scan_ok(&j));
        assert_int_equal(e.code, ERR_MODEL);
    }
}

static void numbers_are_whole_and_small(void **state)
{
    static const char *const bad[] = { "1.5", "1e3", "-", "x", "1234567890123456" };
    struct err e = { 0 };
    struct json_scan j;
    int64_t v;

    (void)state;
    json_scan_init(&j, " -12 ", 5, &e);
    assert_true(json_scan_int(&j, &v) && json_scan_end(&j));
    assert_int_equal(v, -12);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_scan_init(&j, bad[i], strlen(bad[i]), &e);
        assert_false(json_scan_int(&j, &v));
    }
}

static void cut_takes_what_is_asked_for(void **state)
{
    static const char json[] =
        " {\"n\": 1000000000000000019884624838656, \"a\": [1, {\"b\": \"]}\"}], "
        "\"c\": null, \"d\": \"x\\\"y\"} ";
    struct json_member m[] = { { .key = "a" }, { .key = "d" }, { .key = "absent" } };
    struct err e = { 0 };
    json_t *v;

    (void)state;
    assert_true(json_cut(json, sizeof json - 1, m, 3, &e));
    assert_int_equal(m[0].value.n, strlen("[1, {\"b\": \"]}\"}]"));
    assert_true(json_cut_parse(&m[1], &v, &e));
    assert_string_equal(json_string_value(v), "x\"y");
    json_decref(v);
    assert_true(json_cut_parse(&m[2], &v, &e));
    assert_null(v);
}

static void cut_refuses_what_is_no_object(void **state)
{
    static const char *const bad[] = { "",
                                       "[]",
                                       "{",
                                       "{\"a\"",
                                       "{\"a\":",
                                       "{\"a\":1",
                                       "{\"a\":1,}",
                                       "{a:1}",
                                       "{\"a\":1}x",
                                       "{\"a\":1 \"b\":2}",
                                       "{\"a\":[}",
                                       "{\"a\":]}",
                                       "{\"a\":1,\"a\":2}",
                                       "{\"a\":\"\xff\"}",
                                       "{\"a\":}",
                                       "{,}" };
    char deep[1024];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct json_member m = { .key = "a" };
        struct err e = { 0 };

        if (json_cut(bad[i], strlen(bad[i]), &m, 1, &e))
            fail_msg("'%s' was read", bad[i]);
        assert_int_equal(e.code, ERR_MODEL);
    }
    memset(deep, '[', sizeof deep);
    memcpy(deep, "{\"a\":", 5);
    {
        struct json_member m = { .key = "a" };
        struct err e = { 0 };
        assert_false(json_cut(deep, sizeof deep, &m, 1, &e));
        assert_non_null(strstr(e.msg, "deep"));
    }
}

static void a_member_that_is_no_json_is_named(void **state)
{
    struct json_member m = { .key = "a" };
    struct err e = { 0 };
    json_t *v;

    (void)state;
    assert_true(json_cut("{\"a\":tru}", 9, &m, 1, &e));
    assert_false(json_cut_parse(&m, &v, &e));
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "'a'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strings_are_unescaped),
        cmocka_unit_test(broken_strings_are_refused),
        cmocka_unit_test(numbers_are_whole_and_small),
        cmocka_unit_test(cut_takes_what_is_asked_for),
        cmocka_unit_test(cut_refuses_what_is_no_object),
        cmocka_unit_test(a_member_that_is_no_json_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
