/* test_json.c - JSON from clients and model folders, JSON to clients.
 *
 * What would break in production: a request that two readers would read differently is accepted, a
 * token's bytes make an answer that does not parse, or a number changes on its way. */
#include "common/json.h"

#include <math.h>
#include <stdio.h>
#include <time.h>

#include "tests/check.h"

static json_t *parse(const char *text, struct err *e)
{
    return json_parse(text, strlen(text), e);
}

static void json_parse_takes_any_kind_of_value(void **state)
{
    static const char *const good[] = {
        "{}", "[]", "1", "-0.5e3", "\"x\"", "null", "true", " {\"a\": [1, {\"b\": null}]} \n"
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        json_t *v = parse(good[i], &e);
        if (!v)
            fail_msg("%s: %s", good[i], e.msg);
        json_decref(v);
    }
}

static void json_parse_is_strict(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "[1,]",
        "{\"a\":1,}",
        "{a:1}",
        "'a'",
        "01",
        "1.",
        ".5",
        "+1",
        "NaN",
        "Infinity",
        "nul",
        "1 2",
        "{} x",
        "\"\t\"",
        "\"\\x\"",
        "\"\\ud800\"",
        "// c\n1",
        "\"\xff\"",
        "\"\xc0\x80\"",
        "\"\xed\xa0\x80\"",
        "{\"a\":1,\"a\":2}",
        "\"\\u0000\"",
        "1e999",
        "99999999999999999999",
        "\xef\xbb\xbf{}",
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *v = NULL;
        assert_fails((v = parse(bad[i], &e)) != NULL, e, ERR_INPUT, "at line");
        for (const char *c = e.msg; *c; c++)
            assert_true((unsigned char)*c >= 0x20);
    }
    assert_null(json_parse("{}\0", 3, &e)); /* a NUL is a byte like any other */
    assert_null(json_parse("x", 1, NULL));
}

static void json_parse_bounds_the_depth(void **state)
{
    static char text[200000];
    struct err e;

    (void)state;
    memset(text, '[', sizeof text / 2);
    memset(text + sizeof text / 2, ']', sizeof text / 2);
    assert_null(json_parse(text, sizeof text, &e));
    assert_int_equal(e.code, ERR_INPUT);
}

static void json_parse_says_where(void **state)
{
    struct err e;

    (void)state;
    assert_fails(parse("{\n  \"a\": 1,\n  \"b\" 2\n}", &e) != NULL, e, ERR_INPUT,
                 "at line 3 column");
}

static void json_parse_file_names_the_file(void **state)
{
    char path[] = "/tmp/llmd-test-json-XXXXXX";
    int fd = mkstemp(path);
    struct err e;
    json_t *v;

    (void)state;
    assert_int_equal(write(fd, "{\"a\":", 5), 5);
    assert_fails(json_parse_file(path, 100, &e) != NULL, e, ERR_MODEL, path);
    assert_fails(json_parse_file(path, 4, &e) != NULL, e, ERR_CONFIG, path);
    assert_int_equal(write(fd, "7}", 2), 2);
    v = json_parse_file(path, 100, &e);
    assert_int_equal(json_integer_value(json_object_get(v, "a")), 7);
    json_decref(v);
    close(fd);
    unlink(path);
    assert_fails(json_parse_file(path, 100, &e) != NULL, e, ERR_SYS, path);
}

static void jw_writes_nested_values_with_their_commas(void **state)
{
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };

    (void)state;
    jw_object(&w);
    jw_key(&w, "a");
    jw_array(&w);
    jw_array_end(&w);
    jw_key(&w, "b");
    jw_array(&w);
    jw_int(&w, -3);
    jw_object(&w);
    jw_object_end(&w);
    jw_uint(&w, UINT64_MAX);
    jw_int(&w, INT64_MIN);
    jw_bool(&w, true);
    jw_bool(&w, false);
    jw_null(&w);
    jw_str(&w, NULL);
    jw_array_end(&w);
    jw_key(&w, "c\"");
    jw_str(&w, "d");
    jw_object_end(&w);
    assert_string_equal(out.data,
                        "{\"a\":[],\"b\":[-3,{},18446744073709551615,-9223372036854775808,"
                        "true,false,null,null],\"c\\\"\":\"d\"}");
    buf_fini(&out);
}

/* All byte strings of length 1 and 2, and random ones: what is valid comes back, what is not is mended. */
static void check_string(const unsigned char *bytes, size_t n)
{
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };
    json_t *v, *direct = json_stringn((const char *)bytes, n);

    jw_strn(&w, (const char *)bytes, n);
    v = json_loadb(out.data, out.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    if (!v)
        fail_msg("%zu bytes, first %02x: %s", n, bytes[0], out.data);
    if (direct) { /* jansson takes it as UTF-8 */
        assert_int_equal(json_string_length(v), n);
        assert_memory_equal(json_string_value(v), bytes, n);
    } else {
        assert_non_null(strstr(json_string_value(v), "\xef\xbf\xbd"));
    }
    json_decref(v);
    json_decref(direct);
    buf_fini(&out);
}

static void jw_strings_always_parse(void **state)
{
    unsigned seed = (unsigned)time(NULL);
    unsigned char bytes[16];

    (void)state;
    print_message("seed %u\n", seed);
    for (int a = 0; a < 256; a++) {
        bytes[0] = (unsigned char)a;
        check_string(bytes, 1);
        for (int b = 1; b < 256; b++) {
            bytes[0] = a ? (unsigned char)a : 1;
            bytes[1] = (unsigned char)b;
            check_string(bytes, 2);
        }
    }
    for (int round = 0; round < 20000; round++) {
        static const unsigned char lead[] = { 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xc2, 'a' };
        size_t n = 1 + (size_t)rand_r(&seed) % sizeof bytes;
        for (size_t i = 0; i < n; i++)
            bytes[i] = rand_r(&seed) % 3 == 0 ? lead[rand_r(&seed) % 8]
                                              : (unsigned char)(0x7f + rand_r(&seed) % 0x50);
        check_string(bytes, n);
    }
}

static void jw_escapes_are_the_short_ones(void **state)
{
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };

    (void)state;
    jw_strn(&w, "\"\\\b\f\n\r\t\x01\x1f\x7f/\0é", 14);
    assert_string_equal(out.data, "\"\\\"\\\\\\b\\f\\n\\r\\t\\u0001\\u001f\x7f/\\u0000é\"");
    buf_fini(&out);
}

static const char *number(void (*put)(struct json_writer *, double), double v)
{
    static char text[64];
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };

    put(&w, v);
    snprintf(text, sizeof text, "%s", out.data);
    buf_fini(&out);
    return text;
}

static void put_float(struct json_writer *w, double v)
{
    jw_float(w, (float)v);
}

static void jw_numbers_read_back_and_are_short(void **state)
{
    unsigned seed = (unsigned)time(NULL);

    (void)state;
    assert_string_equal(number(put_float, 0.1), "0.1");
    assert_string_equal(number(jw_double, 0.1), "0.1");
    assert_string_equal(number(jw_double, 0.7), "0.7");
    assert_string_equal(number(put_float, 5), "5.0");
    assert_string_equal(number(jw_double, -0.0), "-0.0");
    assert_string_equal(number(jw_double, 1e20), "1e+20");
    assert_string_equal(number(jw_double, NAN), "null");
    assert_string_equal(number(put_float, -INFINITY), "null");
    print_message("seed %u\n", seed);
    for (int i = 0; i < 50000; i++) {
        uint64_t bits =
            (uint64_t)rand_r(&seed) << 33 ^ (uint64_t)rand_r(&seed) << 11 ^ (uint64_t)rand_r(&seed);
        uint32_t low = (uint32_t)bits;
        double d;
        float f;
        memcpy(&d, &bits, sizeof d);
        memcpy(&f, &low, sizeof f);
        if (isfinite(d)) {
            json_t *v = json_loads(number(jw_double, d), JSON_DECODE_ANY, NULL);
            assert_true(json_is_real(v) && json_real_value(v) == d);
            json_decref(v);
        }
        if (isfinite(f))
            assert_true(strtof(number(put_float, (double)f), NULL) == f);
    }
}

static void jw_json_writes_what_was_parsed(void **state)
{
    static const char text[] = "{\"z\":[1,-2.5,0.1,0.7,1e+20,true,false,null,\"\\u0001\\\"é\"],"
                               "\"a\":{\"b\":{},\"c\":[]},\"n\":9007199254740993}";
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };
    struct err e;
    json_t *v = parse(text, &e);

    (void)state;
    assert_non_null(v);
    jw_array(&w);
    jw_json(&w, v);
    jw_json(&w, v);
    jw_array_end(&w);
    assert_int_equal(out.n, 2 * strlen(text) + 3);
    assert_memory_equal(out.data + 1, text, strlen(text));
    assert_memory_equal(out.data + 2 + strlen(text), text, strlen(text));
    json_decref(v);
    buf_fini(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(json_parse_takes_any_kind_of_value),
        cmocka_unit_test(json_parse_is_strict),
        cmocka_unit_test(json_parse_bounds_the_depth),
        cmocka_unit_test(json_parse_says_where),
        cmocka_unit_test(json_parse_file_names_the_file),
        cmocka_unit_test(jw_writes_nested_values_with_their_commas),
        cmocka_unit_test(jw_strings_always_parse),
        cmocka_unit_test(jw_escapes_are_the_short_ones),
        cmocka_unit_test(jw_numbers_read_back_and_are_short),
        cmocka_unit_test(jw_json_writes_what_was_parsed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
