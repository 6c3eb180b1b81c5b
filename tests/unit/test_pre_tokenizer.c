/* test_pre_tokenizer.c - how each stage cuts.
 *
 * What would break in production: a model family whose files use a behavior or scheme that our test
 * vectors do not.  The expected cuts are those in the documentation of the Hugging Face library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/tokenizer/pre_tokenizer.h"

#define MARK "\xe2\x96\x81"

static void add_word(void *arg, const struct text_view *word)
{
    struct buf *out = arg;

    assert_true(word->n > 0);
    if (out->n > 0)
        buf_add_char(out, '|');
    buf_add(out, word->s, word->n);
}

static json_t *parse(const char *json)
{
    struct err e = { 0 };
    json_t *v = json_parse(json, strlen(json), &e);

    if (!v)
        fail_msg("%s", e.msg);
    return v;
}

static void check_at(const char *json, const char *text, bool at_start, const char *want)
{
    struct text_view v = { .s = text, .n = strlen(text), .at_start = at_start };
    struct pre_tokenizer_scratch scratch = { 0 };
    struct pre_tokenizer p;
    struct err e = { 0 };
    struct buf out = { 0 };
    json_t *tree = parse(json);

    buf_reserve(&out, 0);
    buf_clear(&out);
    if (!pre_tokenizer_load(&p, tree, &e) ||
        !pre_tokenizer_run(&p, &scratch, &v, add_word, &out, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(out.data, want);
    buf_fini(&out);
    json_decref(tree);
    pre_tokenizer_scratch_fini(&scratch);
    pre_tokenizer_fini(&p);
}

static void check(const char *json, const char *text, const char *want)
{
    check_at(json, text, true, want);
}

#define SPLIT(pattern, behavior, invert)                                                           \
    "{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior                       \
    "\",\"invert\":" invert "}"
#define DASH "\"String\":\"-\""

static void split_behaviors(void **state)
{
    static const char text[] = "The-final--countdown";

    (void)state;
    check(SPLIT(DASH, "Removed", "false"), text, "The|final|countdown");
    check(SPLIT(DASH, "Isolated", "false"), text, "The|-|final|-|-|countdown");
    check(SPLIT(DASH, "MergedWithPrevious", "false"), text, "The-|final-|-|countdown");
    check(SPLIT(DASH, "MergedWithNext", "false"), text, "The|-final|-|-countdown");
    check(SPLIT(DASH, "Contiguous", "false"), text, "The|-|final|--|countdown");
    check(SPLIT(DASH, "MergedWithPrevious", "false"), "-a-", "-|a-");
    check(SPLIT(DASH, "MergedWithNext", "false"), "-a-", "-a|-");
    check(SPLIT(DASH, "Isolated", "false"), "", "");
    check(SPLIT(DASH, "Removed", "false"), "---", "");
    check(SPLIT("\"String\":\"\"", "Isolated", "false"), "ab", "ab");
}

static void split_inverted_swaps_matches_and_gaps(void **state)
{
    (void)state;
    check(SPLIT("\"Regex\":\"[a-z]+\"", "Removed", "true"), "ab12cd!", "ab|cd");
    check(SPLIT("\"Regex\":\"[a-z]+\"", "MergedWithPrevious", "true"), "ab12cd!", "ab12|cd!");
}

static void empty_matches_cut_but_make_no_word(void **state)
{
    (void)state;
    check(SPLIT("\"Regex\":\"x*\"", "Isolated", "false"), "axb", "a|x|b");
    check(SPLIT("\"Regex\":\"(?=[A-Z])\"", "Isolated", "false"), "oneTwo\xc3\xa9Three",
          "one|Two\xc3\xa9|Three");
}

static void digits_are_all_numbers(void **state)
{
    static const char one[] = "{\"type\":\"Digits\",\"individual_digits\":true}";
    static const char runs[] = "{\"type\":\"Digits\"}";

    (void)state;
    check(one, "a12b", "a|1|2|b");
    check(runs, "a12b\xd9\xa3\xc2\xbd", "a|12|b|\xd9\xa3\xc2\xbd");
    check(one,
          "\xe2\x85\xa7"
          "1",
          "\xe2\x85\xa7|1");
}

#define METASPACE(more) "{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"" more "}"

static void metaspace_schemes(void **state)
{
    (void)state;
    check(METASPACE(""), "a  b", MARK "a|" MARK "|" MARK "b");
    check(METASPACE(",\"split\":false"), "a b", MARK "a" MARK "b");
    check(METASPACE(",\"prepend_scheme\":\"never\""), "a b", "a|" MARK "b");
    check(METASPACE(",\"add_prefix_space\":false"), "a", "a");
    check(METASPACE(",\"prepend_scheme\":\"always\""), " a", MARK "a");
    check(METASPACE(",\"prepend_scheme\":\"always\""), MARK "a", MARK "a");
    check_at(METASPACE(",\"prepend_scheme\":\"first\""), "a", true, MARK "a");
    check_at(METASPACE(",\"prepend_scheme\":\"first\""), "a", false, "a");
    check_at(METASPACE(",\"prepend_scheme\":\"always\""), "a", false, MARK "a");
}

static void byte_level_prefix_and_words(void **state)
{
    (void)state;
    check("{\"type\":\"ByteLevel\"}", "I'll go  now", " I|'ll| go| | now");
    check("{\"type\":\"ByteLevel\",\"use_regex\":false}", " a b", " a b");
    check("{\"type\":\"ByteLevel\",\"use_regex\":false,\"add_prefix_space\":false}", "a", "a");
}

static void stages_follow_each_other(void **state)
{
    (void)state;
    check("{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":"
          "true},"
          "{\"type\":\"Sequence\",\"pretokenizers\":[" SPLIT(DASH, "MergedWithNext",
                                                             "false") "]},"
                                                                      "{\"type\":\"ByteLevel\"}]}",
          "x-y12", " x| -|y| 1| 2");
}

static void what_is_not_understood_is_named(void **state)
{
    static const struct {
        const char *json, *named;
    } bad[] = {
        { "{\"type\":\"Whitespace\"}", "'Whitespace'" },
        { "{\"type\":\"Sequence\"}", "pretokenizers" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Punctuation\"}]}",
          "'Punctuation'" },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"ByteLevel\"},{\"type\":\"Digits\"}"
          "]}",
          "after ByteLevel" },
        { SPLIT(DASH, "Elsewhere", "false"), "'Elsewhere'" },
        { SPLIT(DASH, "Removed", "3"), "'invert'" },
        { SPLIT("\"Regex\":\"(\"", "Removed", "false"), "regular expression" },
        { SPLIT("\"Glob\":\"*\"", "Removed", "false"), "'pattern'" },
        { METASPACE(",\"prepend_scheme\":\"sometimes\""), "'sometimes'" },
        { "{\"type\":\"Metaspace\",\"replacement\":\"ab\"}", "'ab'" },
        { "{\"type\":\"Metaspace\"}", "'replacement'" },
        { "{}", "'type'" },
        { "[]", "'type'" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        json_t *tree = parse(bad[i].json);
        struct pre_tokenizer p;
        struct err e = { 0 };

        assert_false(pre_tokenizer_load(&p, tree, &e));
        assert_int_equal(e.code, ERR_MODEL);
        if (!strstr(e.msg, bad[i].named) || !strstr(e.msg, "pre_tokenizer"))
            fail_msg("'%s' does not name %s", e.msg, bad[i].named);
        pre_tokenizer_fini(&p);
        json_decref(tree);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_behaviors),
        cmocka_unit_test(split_inverted_swaps_matches_and_gaps),
        cmocka_unit_test(empty_matches_cut_but_make_no_word),
        cmocka_unit_test(digits_are_all_numbers),
        cmocka_unit_test(metaspace_schemes),
        cmocka_unit_test(byte_level_prefix_and_words),
        cmocka_unit_test(stages_follow_each_other),
        cmocka_unit_test(what_is_not_understood_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
