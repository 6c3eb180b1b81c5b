/* test_stop_match.c - a stop string missed over the seam of two tokens shows the client text it asked not to
 * see; one matched too late shows more. */
#include "tests/check.h"

#include "gateway/answer/stop_match.h"

static void init(struct stop_set *set, struct stop_string *strings, const char *const *texts,
                 size_t n)
{
    for (size_t i = 0; i < n; i++)
        strings[i] = (struct stop_string){ .s = texts[i], .n = strlen(texts[i]) };
    stop_set_init(set, strings, n);
}

static void stop_find_takes_the_match_that_completes_first(void **state)
{
    const char *const texts[] = { "cde", "bc", "xx" };
    struct stop_string strings[3];
    struct stop_hit hit;
    struct stop_set set;

    (void)state;
    init(&set, strings, texts, 3);
    assert_int_equal(set.hold_chars, 2);
    assert_true(stop_find(&set, "abcde", 5, 0, &hit));
    assert_int_equal(hit.which, 1);
    assert_int_equal(hit.start, 1);
    assert_int_equal(hit.end, 3);
    assert_false(stop_find(&set, "abde", 4, 0, &hit));
    assert_false(stop_find(&set, "", 0, 0, &hit));
}

static void stop_find_breaks_ties_by_order(void **state)
{
    const char *const texts[] = { "c", "bc", "abc" };
    struct stop_string strings[3];
    struct stop_hit hit;
    struct stop_set set;

    (void)state;
    init(&set, strings, texts, 3);
    assert_true(stop_find(&set, "zabc", 4, 0, &hit));
    assert_int_equal(hit.which, 0);
    assert_int_equal(hit.start, 3);
}

/* Growing the text one byte at a time finds the same match as looking at all of it, and nothing shown
 * before is ever cut off. */
static void stop_find_is_the_same_in_any_pieces(void **state)
{
    static const char letters[] = "ab";
    const char *const texts[] = { "abba", "bbb", "aab" };
    struct stop_string strings[3];
    struct stop_set set;

    (void)state;
    init(&set, strings, texts, 3);
    for (unsigned word = 0; word < 1u << 12; word++) {
        struct stop_hit whole, part;
        size_t shown = 0;
        bool found = false, wanted;
        char text[13] = "";

        for (int i = 0; i < 12; i++)
            text[i] = letters[word >> i & 1];
        wanted = stop_find(&set, text, 12, 0, &whole);
        for (size_t n = 1; n <= 12 && !found; n++) {
            found = stop_find(&set, text, n, n - 1, &part);
            if (found)
                assert_true(part.start >= shown);
            shown = stop_shown(&set, text, n);
        }
        assert_int_equal(found, wanted);
        if (found) {
            assert_int_equal(part.end, whole.end);
            assert_int_equal(part.which, whole.which);
        }
    }
}

static void stop_shown_holds_back_characters_not_bytes(void **state)
{
    const char *const texts[] = { "\u00e9\u00e9\u00e9" };
    struct stop_string strings[1];
    struct stop_set set;

    (void)state;
    init(&set, strings, texts, 1);
    assert_int_equal(set.hold_chars, 2);
    assert_int_equal(stop_shown(&set, "ab\u00e9\u20ac", 7), 2);
    assert_int_equal(stop_shown(&set, "a", 1), 0);
    assert_int_equal(stop_shown(&set, "", 0), 0);
}

static void stop_ends_allows_one_newline(void **state)
{
    const char *const texts[] = { "END" };
    struct stop_string strings[1];
    struct stop_set set;
    size_t which;

    (void)state;
    init(&set, strings, texts, 1);
    assert_true(stop_ends(&set, "the END", 7, &which));
    assert_true(stop_ends(&set, "the END\n", 8, &which));
    assert_false(stop_ends(&set, "the END\n\n", 9, &which));
    assert_false(stop_ends(&set, "the END.", 8, &which)); /* missed inside a token, as TGI does */
    assert_false(stop_ends(&set, "ND", 2, &which));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stop_find_takes_the_match_that_completes_first),
        cmocka_unit_test(stop_find_breaks_ties_by_order),
        cmocka_unit_test(stop_find_is_the_same_in_any_pieces),
        cmocka_unit_test(stop_shown_holds_back_characters_not_bytes),
        cmocka_unit_test(stop_ends_allows_one_newline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
