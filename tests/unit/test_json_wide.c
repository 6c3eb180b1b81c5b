/* test_json_wide.c - integers that jansson cannot hold.
 *
 * What would break in production: a client's seed of 64 bits refused as no JSON, or taken for another one. */
#include "common/json_wide.h"

#include "tests/check.h"

static const char *const seed[] = { "parameters", "seed", NULL };

static bool read_seed(const char *text, uint64_t *out)
{
    return json_wide_uint(text, strlen(text), seed, out);
}

static void wide_integers_are_read_whole(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } cases[] = {
        { "{\"parameters\":{\"seed\":18446744073709551615}}", UINT64_MAX },
        { "{\"parameters\":{\"seed\":9223372036854775808}}", 1ull << 63 },
        { "{\"parameters\":{\"seed\":0}}", 0 },
        { " { \"inputs\" : \"\\\"seed\\\":1 { } [\" , \"x\" : [ 1, -2.5e3, {\"a\":null} , true ],\n"
          "\"parameters\" : { \"stop\" : [ \"}\" , \"\\\\\" ] , \"top_p\":0.5, \"seed\" : 7 } } ",
          7 },
        { "{\"parameter\":{\"seed\":1},\"parameters\":{\"seeds\":2,\"seed\":3}}", 3 },
        { "{\"x\":{\"parameters\":{\"seed\":1}},\"parameters\":{\"y\":{\"seed\":2},\"seed\":4}}",
          4 },
    };
    uint64_t v;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct err e;
        json_t *root = json_wide_parse(cases[i].text, strlen(cases[i].text), &e);
        if (!root)
            fail_msg("%s: %s", cases[i].text, e.msg);
        json_decref(root);
        assert_true(read_seed(cases[i].text, &v));
        assert_true(v == cases[i].value);
    }
}

static void what_is_no_such_integer_is_not_found(void **state)
{
    static const char *const texts[] = {
        "{\"parameters\":{\"seed\":18446744073709551616}}",
        "{\"parameters\":{\"seed\":-1}}",
        "{\"parameters\":{\"seed\":1.0}}",
        "{\"parameters\":{\"seed\":1e3}}",
        "{\"parameters\":{\"seed\":\"1\"}}",
        "{\"parameters\":{\"seed\":null}}",
        "{\"parameters\":{\"seed\":[1]}}",
        "{\"parameters\":{\"seeds\":1}}",
        "{\"parameters\":[{\"seed\":1}]}",
        "{\"seed\":1}",
        "[{\"parameters\":{\"seed\":1}}]",
        "{}",
        "5",
        "",
        "{\"parameters\":{\"seed\":",
        "{\"parameters\":{\"see",
        "{\"parameters\"",
        "{\"a\":{[}",
    };
    uint64_t v;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (read_seed(texts[i], &v))
            fail_msg("%s", texts[i]);
}

static void wide_integers_become_reals_and_others_stay(void **state)
{
    const char *text = "{\"a\":9223372036854775807,\"b\":9223372036854775808,\"c\":"
                       "-9223372036854775809,\"d\":\"99999999999999999999\",\"e\":"
                       "[100000000000000000000000000000],\"f\":-9223372036854775808}";
    struct err e;
    json_t *v;

    (void)state;
    v = json_wide_parse(text, strlen(text), &e);
    assert_non_null(v);
    assert_true(json_integer_value(json_object_get(v, "a")) == INT64_MAX);
    assert_true(json_real_value(json_object_get(v, "b")) == 0x1p63);
    assert_true(json_real_value(json_object_get(v, "c")) == -0x1p63);
    assert_string_equal(json_string_value(json_object_get(v, "d")), "99999999999999999999");
    assert_true(json_real_value(json_array_get(json_object_get(v, "e"), 0)) == 1e29);
    assert_true(json_integer_value(json_object_get(v, "f")) == INT64_MIN);
    json_decref(v);
}

static void what_is_no_json_stays_none(void **state)
{
    static const char *const texts[] = { "",
                                         "{",
                                         "\"",
                                         "\"\\",
                                         "99999999999999999999x",
                                         "{\"a\":1e999}",
                                         "-99999999999999999999-",
                                         "[99999999999999999999,]",
                                         "{\"a\":1,\"a\":2}" };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (json_wide_parse(texts[i], strlen(texts[i]), &e))
            fail_msg("%s", texts[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wide_integers_are_read_whole),
        cmocka_unit_test(what_is_no_such_integer_is_not_found),
        cmocka_unit_test(wide_integers_become_reals_and_others_stay),
        cmocka_unit_test(what_is_no_json_stays_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
