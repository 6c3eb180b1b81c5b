/* test_utf8.c - where characters begin and end.
 *
 * What would break in production: PCRE2 reads wild memory when it is given what is not UTF-8, and a
 * client's stream shows garbage when a bad byte swallows good ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/utf8.h"

static void every_code_point_survives_encode_and_decode(void **state)
{
    (void)state;
    for (uint32_t c = 0; c <= 0x10ffff; c++) {
        char s[4];
        size_t n, len;

        if (c >= 0xd800 && c <= 0xdfff)
            continue;
        n = utf8_encode(c, s);
        assert_int_equal(utf8_next(s, n, &len), UTF8_CHAR);
        assert_int_equal(len, n);
        assert_int_equal(utf8_length(s[0]), n);
        assert_int_equal(utf8_decode(s, &len), c);
        for (size_t cut = 1; cut < n; cut++) {
            assert_int_equal(utf8_next(s, cut, &len), UTF8_SHORT);
            assert_int_equal(len, cut);
        }
    }
}

/* The table of the Unicode standard, section 3.9: how many bytes one U+FFFD stands for. */
static void bad_bytes_end_at_their_maximal_subpart(void **state)
{
    static const struct {
        const char *s;
        size_t n;
    } bad[] = {
        { "\x80", 1 },         { "\xc0\xaf", 1 },     { "\xc1\xbf", 1 },
        { "\xf5\x80", 1 },     { "\xff", 1 },         { "\xe0\x80\xaf", 1 },
        { "\xed\xa0\x80", 1 }, { "\xf0\x8f\xbf", 1 }, { "\xf4\x90\x80\x80", 1 },
        { "\xc3 ", 1 },        { "\xe2\x82 ", 2 },    { "\xf0\x9f\x98 ", 3 },
        { "\xf0\x9f ", 2 },    { "\xe1\x80\xe2", 2 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        size_t len;
        assert_int_equal(utf8_next(bad[i].s, strlen(bad[i].s), &len), UTF8_BAD);
        assert_int_equal(len, bad[i].n);
    }
}

static void is_valid_names_the_first_bad_byte(void **state)
{
    char text[64];
    size_t bad_at;

    (void)state;
    for (size_t at = 0; at < 40; at++) {
        memset(text, 'a', sizeof text);
        assert_true(utf8_is_valid(text, 40, &bad_at));
        text[at] = (char)0xbf;
        assert_false(utf8_is_valid(text, 40, &bad_at));
        assert_int_equal(bad_at, at);
    }
    assert_false(utf8_is_valid("abc\xe2\x82", 5, &bad_at));
    assert_int_equal(bad_at, 3);
    assert_true(utf8_is_valid("", 0, &bad_at));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_point_survives_encode_and_decode),
        cmocka_unit_test(bad_bytes_end_at_their_maximal_subpart),
        cmocka_unit_test(is_valid_names_the_first_bad_byte),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
