/* test_notice.c - the words of sd_notify.  If this breaks, a descriptor is kept under a wrong name, or not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "supervisor/init/notice.h"

static struct notice parse(const char *text)
{
    struct notice n;

    assert_true(notice_parse(&n, text, strlen(text)));
    return n;
}

static void every_word_is_known(void **state)
{
    struct notice n = parse("READY=1\nSTOPPING=1\nFDSTORE=1\nFDSTOREREMOVE=1\n"
                            "FDPOLL=0\nFDNAME=llmd-c\nSTATUS=a = b\nEXTEND_TIMEOUT_USEC=5000000");

    (void)state;
    assert_true(n.is_ready && n.is_stopping && n.stores_fds && n.removes_fds);
    assert_false(n.polls_fds);
    assert_true(n.has_name && n.has_status);
    assert_string_equal(n.fd_name, "llmd-c");
    assert_string_equal(n.status, "a = b");
    assert_int_equal(n.extend_us, 5000000);
}

static void nothing_said_means_the_defaults(void **state)
{
    struct notice n = parse("");

    (void)state;
    assert_false(n.is_ready || n.is_stopping || n.stores_fds || n.removes_fds);
    assert_true(n.polls_fds);
    assert_false(n.has_name || n.has_status);
    assert_string_equal(n.fd_name, "stored");
    assert_int_equal(n.extend_us, 0);
}

static void near_misses_are_passed_over(void **state)
{
    struct notice n =
        parse("READY=0\nREADY=11\nREADY\n READY=1\nXREADY=1\nready=1\nSTOPPING=\n"
              "FDPOLL=1\nEXTEND_TIMEOUT_USEC=-5\nEXTEND_TIMEOUT_USEC=99999999999999999999\n"
              "EXTEND_TIMEOUT_USEC=5s\nEXTEND_TIMEOUT_USEC=");

    (void)state;
    assert_false(n.is_ready || n.is_stopping);
    assert_true(n.polls_fds);
    assert_int_equal(n.extend_us, 0);
}

static void invalid_names_are_no_names(void **state)
{
    char text[128] = "FDNAME=";

    (void)state;
    assert_false(parse("FDNAME=").has_name);
    assert_false(parse("FDNAME=a:b").has_name);
    assert_false(parse("FDNAME=a\tb").has_name);
    assert_false(parse("FDNAME=\xc3\xa4").has_name);
    memset(text + 7, 'x', FD_NAME_BYTES - 1);
    assert_true(parse(text).has_name);
    assert_int_equal(strlen(parse(text).fd_name), FD_NAME_BYTES - 1);
    text[7 + FD_NAME_BYTES - 1] = 'x';
    assert_false(parse(text).has_name);
    assert_string_equal(parse(text).fd_name, "stored");
}

static void bytes_of_no_honest_sender_are_refused(void **state)
{
    struct notice n;

    (void)state;
    assert_false(notice_parse(&n, "READY=1\0", 8));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_word_is_known),
        cmocka_unit_test(nothing_said_means_the_defaults),
        cmocka_unit_test(near_misses_are_passed_over),
        cmocka_unit_test(invalid_names_are_no_names),
        cmocka_unit_test(bytes_of_no_honest_sender_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
