/* test_regex.c - patterns written for Oniguruma, run by PCRE2.
 *
 * What would break in production: a class that means something else to PCRE2 cuts words elsewhere,
 * silently; and a system that forbids JIT gives other tokens than one that allows it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/tokenizer/regex.h"

#define LLAMA3                                                                                     \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "                     \
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static struct regex *compile(const char *pattern, unsigned flags)
{
    struct err e = { 0 };
    struct regex *re = regex_compile(pattern, strlen(pattern), flags, &e);

    if (!re)
        fail_msg("%s", e.msg);
    return re;
}

/* All matches in s as "[a|b|c]". */
static void matches(const struct regex *re, const char *s, char *out, size_t max)
{
    struct regex_scratch *scratch = regex_scratch_new();
    size_t at = 0, from, to, n = (size_t)snprintf(out, max, "[");

    while (regex_search(re, scratch, s, strlen(s), at, &from, &to) == REGEX_MATCH && to > from) {
        n += (size_t)snprintf(out + n, max - n, "%s%.*s", n > 1 ? "|" : "", (int)(to - from),
                              s + from);
        at = to;
    }
    snprintf(out + n, max - n, "]");
    regex_scratch_free(scratch);
}

static void check(const char *pattern, const char *s, const char *want)
{
    struct regex *jit = compile(pattern, 0), *slow = compile(pattern, REGEX_NO_JIT);
    char got[512];

    matches(jit, s, got, sizeof got);
    assert_string_equal(got, want);
    assert_false(regex_is_jit(slow));
    matches(slow, s, got, sizeof got);
    assert_string_equal(got, want);
    regex_free(jit);
    regex_free(slow);
}

static void llama3_words_with_and_without_jit(void **state)
{
    (void)state;
    check(LLAMA3, "Hello  world's 12345 a\n\n b", "[Hello| | world|'s| |123|45| a|\n\n| b]");
    check(LLAMA3, "x\xc3\xa9'LL \xe4\xb8\xad\xe6\x96\x87!!\r\n",
          "[x\xc3\xa9|'LL| \xe4\xb8\xad\xe6\x96\x87|!!\r\n]");
}

static void escapes_mean_what_oniguruma_means(void **state)
{
    (void)state;
    check("\\s", "\xe1\xa0\x8e", "[]");     /* U+180E is no space */
    check("\\s", "\xc2\x85", "[\xc2\x85]"); /* U+0085 is */
    check("[^\\s]", "\xe1\xa0\x8e", "[\xe1\xa0\x8e]");
    check("\\S+", "ab c", "[ab|c]");
    check("[\\Sx]+", "ab c", "[ab|c]");
    check("\\w+", "a\xcc\x81_1-", "[a\xcc\x81_1]"); /* marks are part of words */
    check("\\h+", "xyz0aF", "[0aF]");               /* hexadecimal digits */
    check("\\v", "\n\x0b", "[\x0b]");
    check("\\u00e9+", "\xc3\xa9\xc3\xa9", "[\xc3\xa9\xc3\xa9]");
    check("\\d+", "1\xd9\xa3", "[1\xd9\xa3]");
    check("\\s+$", "a  \nb ", "[  | ]"); /* $ is the end of any line */
}

static void what_differs_is_refused(void **state)
{
    static const char *const patterns[] = {
        "[a[bc]]",     "[a&&b]", "a{1,3}+", "\\bx",      "(a)\\1",  "(?m:.)", "(?<n>a)",
        "[[:alpha:]]", "[]a]",   "\\",      "[\\W]",     "(*UCP)a", "\\X",    "\\pL",
        "\\u12",       "a(",     "[a",      "\\p{Nope}", "\\C",
    };

    (void)state;
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        struct err e = { 0 };
        struct regex *re = regex_compile(patterns[i], strlen(patterns[i]), 0, &e);
        if (re)
            fail_msg("'%s' was compiled", patterns[i]);
        assert_int_equal(e.code, ERR_MODEL);
        assert_non_null(strstr(e.msg, "regular expression"));
    }
}

/* A pattern that needs a frame per character: more than the machine stack has room for. */
static void deep_patterns_get_a_stack_of_their_own(void **state)
{
    enum { N = 20000 };
    struct regex *re = compile("(?:a|b(?=[ab]))*c", 0);
    struct regex_scratch *scratch = regex_scratch_new();
    char *s = malloc(N + 1);
    size_t from, to;

    (void)state;
    memset(s, 'a', N);
    s[N] = 'c';
    assert_int_equal(regex_search(re, scratch, s, N + 1, 0, &from, &to), REGEX_MATCH);
    assert_int_equal(to, N + 1);
    free(s);
    regex_scratch_free(scratch);
    regex_free(re);
}

static void a_hopeless_search_gives_up(void **state)
{
    struct regex *re = compile("(?:a+)+b", 0);
    struct regex_scratch *scratch = regex_scratch_new();
    char s[64];
    size_t from, to;

    (void)state;
    memset(s, 'a', sizeof s);
    s[sizeof s - 1] = 'c';
    s[0] = 'b';
    /* PCRE2 sees that there is no later b and answers at once, or counts to its limit. */
    assert_int_not_equal(regex_search(re, scratch, s, sizeof s, 1, &from, &to), REGEX_MATCH);
    regex_scratch_free(scratch);
    regex_free(re);
}

static void look_behind_sees_before_the_start(void **state)
{
    struct regex *re = compile("(?<=a)b", 0);
    struct regex_scratch *scratch = regex_scratch_new();
    size_t from, to;

    (void)state;
    assert_int_equal(regex_search(re, scratch, "ab", 2, 1, &from, &to), REGEX_MATCH);
    assert_int_equal(from, 1);
    assert_int_equal(regex_search(re, scratch, "b", 1, 0, &from, &to), REGEX_NO_MATCH);
    regex_scratch_free(scratch);
    regex_free(re);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama3_words_with_and_without_jit),
        cmocka_unit_test(escapes_mean_what_oniguruma_means),
        cmocka_unit_test(what_differs_is_refused),
        cmocka_unit_test(deep_patterns_get_a_stack_of_their_own),
        cmocka_unit_test(a_hopeless_search_gives_up),
        cmocka_unit_test(look_behind_sees_before_the_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
