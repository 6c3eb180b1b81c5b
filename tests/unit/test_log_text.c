/* test_log_text.c - lines of the log read back, and what is new among them.
 *
 * What would break in production: `llmctl logs -f` that shows a line twice, or passes one over in silence. */
#include "llmctl/log_text.h"

#include "tests/check.h"

static const char text[] = "2026-01-02T03:04:05.678Z warning llm-gateway: request=cmpl-1 slow";
static const char journal[] = "<3>llm-worker/0.0: no memory";
static const char json[] =
    "{\"timestamp\":\"2026-01-02T03:04:05.678Z\",\"level\":\"debug\",\"process\":\"llmd\",\"mess";

static void each_form_tells_level_and_time(void **state)
{
    (void)state;
    assert_int_equal(log_text_level(text), LOG_WARNING);
    assert_int_equal(log_text_level(journal), LOG_ERROR);
    assert_int_equal(log_text_level("<6>llmd: x"), LOG_INFO);
    assert_int_equal(log_text_level("<7>llmd: x"), LOG_DEBUG);
    assert_int_equal(log_text_level(json), LOG_DEBUG);
    assert_int_equal(log_text_level("==1== a sanitizer speaks"), LOG_DEBUG + 1);
    assert_int_equal(log_text_level(""), LOG_DEBUG + 1);
    assert_int_equal(log_text_ms(text), 1767323045678);
    assert_int_equal(log_text_ms(json), 1767323045678);
    assert_int_equal(log_text_ms(journal), 0);
    assert_int_equal(log_text_ms("2026-01-02T03:04"), 0);
}

static void filters_keep_what_they_cannot_judge(void **state)
{
    struct log_filter f = { .level_max = LOG_WARNING };

    (void)state;
    assert_true(log_text_passes(text, &f));
    assert_true(log_text_passes(journal, &f));
    assert_false(log_text_passes(json, &f));
    assert_true(log_text_passes("==1== a sanitizer speaks", &f));
    f = (struct log_filter){ .level_max = LOG_DEBUG, .since_ms = 1767323045679 };
    assert_false(log_text_passes(text, &f));
    assert_true(log_text_passes(journal, &f));
    f.since_ms = 1767323045678;
    assert_true(log_text_passes(text, &f));
    f.text = "cmpl-1";
    assert_true(log_text_passes(text, &f));
    assert_false(log_text_passes(journal, &f));
}

static void new_lines_are_those_behind_the_longest_overlap(void **state)
{
    char *abc[] = { "a", "b", "c" }, *bcd[] = { "b", "c", "d" }, *xyz[] = { "x", "y", "z" },
         *aab[] = { "a", "a", "b" }, *aabx[] = { "a", "a", "b", "x" };
    bool lost;

    (void)state;
    assert_int_equal(log_text_new(NULL, 0, abc, 3, &lost), 3);
    assert_false(lost);
    assert_int_equal(log_text_new(abc, 3, abc, 3, &lost), 0);
    assert_false(lost);
    assert_int_equal(log_text_new(abc, 3, bcd, 3, &lost), 1);
    assert_false(lost);
    assert_int_equal(log_text_new(aab, 3, aabx, 4, &lost), 1);
    assert_false(lost);
    assert_int_equal(log_text_new(abc, 3, xyz, 3, &lost), 3);
    assert_true(lost);
    assert_int_equal(log_text_new(abc, 3, NULL, 0, &lost), 0);
    assert_false(lost);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_form_tells_level_and_time),
        cmocka_unit_test(filters_keep_what_they_cannot_judge),
        cmocka_unit_test(new_lines_are_those_behind_the_longest_overlap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
