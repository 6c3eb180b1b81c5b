/* test_unicode.c - normal forms, and where their bytes come from.
 *
 * What would break in production: a client's pile of accents stops an event loop, or /tokenize
 * points at the wrong characters.  That the forms themselves are right is for
 * test_tokenizer_vectors (kinds qwen2, nfkc, nfd); here is what those cannot see. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/utf8.h"
#include "text/tokenizer/unicode.h"

static struct text_view normalize(enum unicode_form form, const char *s, size_t n,
                                  struct text_rewrite *out)
{
    struct text_view v = { .s = s, .n = n, .at_start = true };

    text_rewrite_reset(out, true);
    unicode_normalize(form, &v, out);
    return text_rewrite_view(out, &v);
}

static void check(enum unicode_form form, const char *from, const char *to)
{
    struct text_rewrite out = { 0 };
    struct text_view v = normalize(form, from, strlen(from), &out);

    assert_int_equal(v.n, strlen(to));
    assert_memory_equal(v.s, to, v.n);
    text_rewrite_fini(&out);
}

static void forms_compose_order_and_fold(void **state)
{
    (void)state;
    check(UNICODE_NFC, "e\xcc\x81", "\xc3\xa9");
    check(UNICODE_NFD, "\xc3\xa9", "e\xcc\x81");
    /* a, acute (230), dot below (220): the dot goes first and joins the letter */
    check(UNICODE_NFC, "a\xcc\x81\xcc\xa3", "\xe1\xba\xa1\xcc\x81");
    check(UNICODE_NFC, "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"); /* Hangul */
    check(UNICODE_NFD, "\xed\x95\x9c", "\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab");
    check(UNICODE_NFC, "\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81"); /* LV + T */
    check(UNICODE_NFKC, "\xef\xac\x81", "fi");
    check(UNICODE_NFKC, "\xef\xbd\xb6\xef\xbe\x9e", "\xe3\x82\xac"); /* halfwidth ka + mark */
    check(UNICODE_NFC, "\xef\xac\x81", "\xef\xac\x81");
    check(UNICODE_NFC, "\xe2\x84\xab", "\xc3\x85"); /* Angstrom sign */
    check(UNICODE_NFC, "\xcc\x81", "\xcc\x81");     /* a mark with nothing before it */
    check(UNICODE_NFC, "\xcd\x84", "\xcc\x88\xcc\x81");
    check(UNICODE_NFC, "", "");
}

static void origins_point_at_the_source_character(void **state)
{
    /* "x", "e" + acute, "y": bytes 0, 1..3, 4 */
    static const uint32_t want[] = { 0, 1, 1, 4, 5 };
    struct text_rewrite out = { 0 };
    struct text_view v = normalize(UNICODE_NFC, "xe\xcc\x81y", 5, &out);

    (void)state;
    assert_int_equal(v.n, 4);
    for (size_t i = 0; i <= v.n; i++)
        assert_int_equal(text_view_origin(&v, i), want[i]);
    text_rewrite_fini(&out);
}

/* With a quadratic sort this takes minutes, and the test its timeout. */
static void half_a_million_accents_are_not_quadratic(void **state)
{
    enum { MARKS = 500000 };
    static const char *const marks[] = { "\xcc\x81", "\xcc\xa3", "\xcc\xa7", "\xcd\x9c" };
    struct text_rewrite out = { 0 };
    char *s = malloc(1 + 2 * MARKS);
    struct text_view v;

    (void)state;
    s[0] = 'a';
    for (size_t i = 0; i < MARKS; i++)
        memcpy(s + 1 + 2 * i, marks[i % 4], 2);
    v = normalize(UNICODE_NFD, s, 1 + 2 * MARKS, &out);
    assert_int_equal(v.n, 1 + 2 * MARKS);
    /* in order of their classes: 202 cedilla, 220 dot below, 230 acute, 233 double breve below */
    for (size_t i = 0; i < MARKS; i++) {
        static const size_t order[] = { 2, 1, 0, 3 };
        assert_memory_equal(v.s + 1 + 2 * i, marks[order[i / (MARKS / 4)]], 2);
    }
    free(s);
    text_rewrite_fini(&out);
}

static void space_is_the_white_space_property(void **state)
{
    static const uint32_t spaces[] = { 9,      10,     11,     12,     13,     32,
                                       0x85,   0xa0,   0x1680, 0x2000, 0x200a, 0x2028,
                                       0x2029, 0x202f, 0x205f, 0x3000 };
    static const uint32_t others[] = { 0, 8, 14, 0x1f, 0x180e, 0x200b, 0x2060, 0xfeff, 'a' };

    (void)state;
    for (size_t i = 0; i < sizeof spaces / sizeof *spaces; i++)
        assert_true(unicode_is_space(spaces[i]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(unicode_is_space(others[i]));
}

static void lower_case_is_by_character(void **state)
{
    uint32_t to[2];

    (void)state;
    assert_int_equal(unicode_lower('A', to), 1);
    assert_int_equal(to[0], 'a');
    assert_int_equal(unicode_lower(0x3a3, to), 1); /* no final sigma */
    assert_int_equal(to[0], 0x3c3);
    assert_int_equal(unicode_lower(0x130, to), 2);
    assert_int_equal(to[1], 0x307);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forms_compose_order_and_fold),
        cmocka_unit_test(origins_point_at_the_source_character),
        cmocka_unit_test(half_a_million_accents_are_not_quadratic),
        cmocka_unit_test(space_is_the_white_space_property),
        cmocka_unit_test(lower_case_is_by_character),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
