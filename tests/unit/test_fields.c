/* test_fields.c - every body of every client passes this table reader: what it lets through is believed. */
#include "tests/check.h"

#include "gateway/fields.h"

#define BODY(X)                                                                                    \
    X(text, FIELD_STRING, FIELD_REQUIRED, 0, 0)                                                    \
    X(flag, FIELD_BOOL, 0, 0, 0)                                                                   \
    X(count, FIELD_INT, FIELD_NULL, 1, 10)                                                         \
    X(share, FIELD_NUMBER, FIELD_NULL, 0, 0)                                                       \
    X(list, FIELD_ARRAY, 0, 0, 0)                                                                  \
    X(any, FIELD_ANY, FIELD_NULL, 0, 0)

struct body {
    BODY(FIELD_MEMBER)
};

#define FIELD_OWNER struct body
static const struct field table[] = { BODY(FIELD_ROW) };
#undef FIELD_OWNER

static bool read_body(const char *json, enum field_mode mode, struct body *b,
                      struct field_problem *p)
{
    json_t *root = json_parse(json, strlen(json), NULL);
    bool ok;

    assert_non_null(root);
    ok = fields_read(root, table, sizeof table / sizeof *table, mode, b, sizeof *b, p);
    json_decref(root);
    return ok;
}

static void fields_read_takes_what_fits_and_ignores_the_rest(void **state)
{
    struct field_problem p;
    struct body b;

    (void)state;
    assert_true(read_body("{\"text\":\"x\",\"flag\":true,\"count\":null,\"share\":2,\"other\":{}}",
                          FIELDS_STRICT, &b, &p));
    assert_true(b.text.is_set && b.flag.b && b.share.d == 2);
    assert_int_equal(b.text.n, 1);
    assert_false(b.count.is_set || b.list.is_set || b.any.is_set);
}

static void fields_read_names_the_trouble(void **state)
{
    static const struct {
        const char *json;
        enum field_mode mode;
        enum field_trouble what;
        const char *name, *expected, *found;
    } cases[] = {
        { "{}", FIELDS_STRICT, FIELD_MISSING, "text", "a string", "null" },
        { "{\"text\":null}", FIELDS_STRICT, FIELD_WRONG_TYPE, "text", "a string", "null" },
        { "{\"text\":5}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "text", "a string", "integer `5`" },
        { "{\"text\":\"\",\"flag\":1}", FIELDS_STRICT, FIELD_WRONG_TYPE, "flag", "a boolean",
          "integer `1`" },
        { "{\"text\":\"\",\"flag\":null}", FIELDS_STRICT, FIELD_WRONG_TYPE, "flag", "a boolean",
          "null" },
        { "{\"text\":\"\",\"flag\":2}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "flag", "a boolean",
          "integer `2`" },
        { "{\"text\":\"\",\"count\":0}", FIELDS_STRICT, FIELD_OUT_OF_RANGE, "count",
          "an integer from 1 to 10", "integer `0`" },
        { "{\"text\":\"\",\"count\":11}", FIELDS_STRICT, FIELD_OUT_OF_RANGE, "count",
          "an integer from 1 to 10", "integer `11`" },
        { "{\"text\":\"\",\"count\":1.0}", FIELDS_STRICT, FIELD_WRONG_TYPE, "count",
          "an integer from 1 to 10", "floating point `1`" },
        { "{\"text\":\"\",\"count\":1.5}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "count",
          "an integer from 1 to 10", "floating point `1.5`" },
        { "{\"text\":\"\",\"count\":1e300}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "count",
          "an integer from 1 to 10", "floating point `1e+300`" },
        { "{\"text\":\"\",\"share\":\"1\"}", FIELDS_STRICT, FIELD_WRONG_TYPE, "share", "a number",
          "string \"1\"" },
        { "{\"text\":\"\",\"share\":\"0x1\"}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "share",
          "a number", "string \"0x1\"" },
        { "{\"text\":\"\",\"share\":\"nan\"}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "share",
          "a number", "string \"nan\"" },
        { "{\"text\":\"\",\"share\":\"\"}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "share", "a number",
          "string \"\"" },
        { "{\"text\":\"\",\"list\":{}}", FIELDS_LENIENT, FIELD_WRONG_TYPE, "list", "an array",
          "map" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct field_problem p;
        struct body b;
        if (read_body(cases[i].json, cases[i].mode, &b, &p))
            fail_msg("%s was taken", cases[i].json);
        assert_int_equal(p.what, cases[i].what);
        assert_string_equal(p.name, cases[i].name);
        assert_string_equal(p.expected, cases[i].expected);
        assert_string_equal(p.found, cases[i].found);
    }
}

static void fields_read_leniently_converts(void **state)
{
    struct field_problem p;
    struct body b;

    (void)state;
    assert_true(read_body("{\"text\":\"\",\"flag\":\"Yes\",\"count\":\"7\",\"share\":\"0.5\"}",
                          FIELDS_LENIENT, &b, &p));
    assert_true(b.flag.b && b.count.i == 7 && b.share.d == 0.5);
    assert_true(read_body("{\"text\":\"\",\"flag\":0,\"count\":3.0,\"share\":true}", FIELDS_LENIENT,
                          &b, &p));
    assert_true(!b.flag.b && b.count.i == 3 && b.share.d == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_read_takes_what_fits_and_ignores_the_rest),
        cmocka_unit_test(fields_read_names_the_trouble),
        cmocka_unit_test(fields_read_leniently_converts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
