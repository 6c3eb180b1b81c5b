/* test_answer.c - the judge of the chaos suite, judged.
 *
 * What would break in production: a suite that cannot see a defect.  Wrong framing, cut answers and
 * changed bytes must be found; only ids, times and dates may differ. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/chaos/answer.h"

#define HEAD    "HTTP/1.1 200 OK\r\nDate: now\r\n"
#define CHUNKED HEAD "Transfer-Encoding: chunked\r\n\r\n"

/* Read it at once, and byte by byte: both must come to the same end. */
static struct answer read_whole(const char *bytes)
{
    struct answer at_once = { 0 }, slowly = { 0 };
    size_t n = strlen(bytes);

    answer_read(&at_once, bytes, n);
    for (size_t i = 1; i <= n; i++)
        answer_read(&slowly, bytes, i);
    assert_int_equal(at_once.phase, slowly.phase);
    assert_int_equal(at_once.at, slowly.at);
    return at_once;
}

static void expect_phase(const char *bytes, enum answer_phase phase)
{
    assert_int_equal(read_whole(bytes).phase, phase);
}

static void answers_end_where_their_framing_says(void **state)
{
    struct answer a;

    (void)state;
    a = read_whole(HEAD "Content-Length: 3\r\n\r\nabcHTTP/1.1 2");
    assert_int_equal(a.phase, ANSWER_WHOLE);
    assert_int_equal(a.at, strlen(HEAD "Content-Length: 3\r\n\r\nabc"));
    a = read_whole(CHUNKED "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\nmore");
    assert_int_equal(a.phase, ANSWER_WHOLE);
    assert_int_equal(a.at, strlen(CHUNKED "3\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n"));
    assert_true(read_whole(HEAD "Connection: close\r\nContent-Length: 0\r\n\r\n").says_close);
    a = read_whole(HEAD "\r\nuntil the end");
    assert_int_equal(a.phase, ANSWER_UNTIL_END);
    answer_end(&a);
    assert_int_equal(a.phase, ANSWER_WHOLE);
}

static void cut_answers_are_not_whole(void **state)
{
    static const char whole[] = CHUNKED "3\r\nabc\r\n0\r\n\r\n";

    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        struct answer a = { 0 };
        answer_read(&a, whole, n);
        assert_int_not_equal(a.phase, ANSWER_WHOLE);
        answer_end(&a);
        assert_int_equal(a.phase, ANSWER_BAD);
    }
}

static void wrong_framing_is_found(void **state)
{
    (void)state;
    expect_phase(CHUNKED "3\r\nabcd\r\n0\r\n\r\n", ANSWER_BAD);
    expect_phase(CHUNKED "4\r\nabc\r\n0\r\n\r\n", ANSWER_BAD);
    expect_phase(CHUNKED "3\r\nabc\r\n0\r\nxx", ANSWER_BAD);
    expect_phase(CHUNKED "xyz\r\n", ANSWER_BAD);
    expect_phase(CHUNKED "3;a=b\r\nabc\r\n", ANSWER_BAD);
    expect_phase(HEAD "Content-Length: 3x\r\n\r\nabc", ANSWER_BAD);
    expect_phase(HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", ANSWER_BAD);
    expect_phase(HEAD "Transfer-Encoding: gzip\r\n\r\n", ANSWER_BAD);
    expect_phase("data: a stream without its head\n\n\r\n\r\n", ANSWER_BAD);
}

static void expect_alike(const char *a, const char *b, bool alike)
{
    struct answer x = read_whole(a), y = read_whole(b);
    struct buf p = { 0 }, q = { 0 };

    answer_normalise(&x, a, false, &p);
    answer_normalise(&y, b, false, &q);
    assert_int_equal(p.n == q.n && memcmp(p.data, q.data, p.n) == 0, alike);
    buf_fini(&p);
    buf_fini(&q);
}

#define BODY(head, text) "HTTP/1.1 200 OK\r\n" head "Content-Length: " text

static void only_ids_dates_and_times_may_differ(void **state)
{
    (void)state;
    expect_alike(BODY("Date: a\r\n", "3\r\n\r\nabc"), BODY("Date: b\r\n", "3\r\n\r\nabc"), true);
    expect_alike(BODY("x-total-time: 1\r\n", "3\r\n\r\nabc"),
                 BODY("x-total-time: 12\r\n", "3\r\n\r\nabc"), true);
    expect_alike(BODY("x-prompt-tokens: 1\r\n", "3\r\n\r\nabc"),
                 BODY("x-prompt-tokens: 2\r\n", "3\r\n\r\nabc"), false);
    expect_alike(BODY("", "3\r\n\r\nabc"), BODY("", "3\r\n\r\nabd"), false);
    expect_alike(BODY("", "35\r\n\r\n{\"id\":\"cmpl-1f\",\"created\":17,\"a\":1}"),
                 BODY("", "35\r\n\r\n{\"id\":\"cmpl-2e\",\"created\":18,\"a\":1}"), true);
    expect_alike(BODY("", "35\r\n\r\n{\"id\":\"cmpl-1f\",\"created\":17,\"a\":1}"),
                 BODY("", "35\r\n\r\n{\"id\":\"cmpl-1f\",\"created\":17,\"a\":2}"), false);
    expect_alike(CHUNKED "6\r\nabcdef\r\n0\r\n\r\n", CHUNKED "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n",
                 false); /* the pieces are those that were written */
    expect_alike(CHUNKED "3\r\nabc\r\n3\r\n:\n\n\r\n0\r\n\r\n", CHUNKED "3\r\nabc\r\n0\r\n\r\n",
                 true); /* a comment that keeps a quiet stream open */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_end_where_their_framing_says),
        cmocka_unit_test(cut_answers_are_not_whole),
        cmocka_unit_test(wrong_framing_is_found),
        cmocka_unit_test(only_ids_dates_and_times_may_differ),
    };

    return cmocka_run_group_tests_name("answer", tests, NULL, NULL);
}
