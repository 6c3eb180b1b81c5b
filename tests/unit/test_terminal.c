/* test_terminal.c - what is shown to people.
 *
 * What would break in production: model text that sets the window's title, or a UTF-8 character lost
 * because a token ended inside it. */
#include "llmctl/terminal.h"

#include <fcntl.h>

#include "common/clock.h"
#include "tests/check.h"

static void expect_safe(const char *text, const char *want)
{
    size_t n = strlen(text);

    for (size_t piece = 1; piece <= n; piece++) {
        struct buf out = { 0 };
        unsigned char held = 0;
        for (size_t at = 0; at < n; at += piece)
            terminal_add_safe(&out, text + at, n - at < piece ? n - at : piece, &held);
        assert_string_equal(out.data, want);
        buf_fini(&out);
    }
}

static void terminal_shows_text_and_no_orders(void **state)
{
    (void)state;
    expect_safe("a\tb\nc", "a\tb\nc");
    expect_safe("\x1b]0;title\x07 red\x1b[31m\r\b\x7f!", "]0;title red[31m!");
    expect_safe("caf\xc3\xa9 \xc2\xa3 \xe2\x82\xac \xf0\x9f\x98\x80.",
                "caf\xc3\xa9 \xc2\xa3 \xe2\x82\xac \xf0\x9f\x98\x80.");
    expect_safe("a\xc2\x9b"
                "31mb\xc2\x80"
                "c\xc2\xa0.",
                "a31mbc\xc2\xa0.");
    expect_safe("\xc2\xc2\xc2\x9b.", "\xc2\xc2.");
}

static void terminal_durations_and_sizes_are_short(void **state)
{
    static const struct {
        uint64_t ns;
        const char *text;
    } durations[] = {
        { 0, "0 ms" },
        { 870 * NS_PER_MS, "870 ms" },
        { 59 * NS_PER_S, "59s" },
        { 125 * NS_PER_S, "2m 05s" },
        { 3600 * NS_PER_S, "1h 00m" },
        { (3 * 86400 + 4 * 3600) * NS_PER_S, "3d 4h" },
    };
    static const struct {
        uint64_t bytes;
        const char *text;
    } sizes[] = {
        { 0, "0 B" },
        { 1023, "1023 B" },
        { 1024, "1.0 KiB" },
        { 1536, "1.5 KiB" },
        { (1 << 20) - 1, "1.0 MiB" },
        { 3ull << 39, "1.5 TiB" },
        { UINT64_MAX, "16384.0 PiB" },
    };
    char text[32];

    (void)state;
    for (size_t i = 0; i < sizeof durations / sizeof *durations; i++) {
        terminal_duration(text, sizeof text, durations[i].ns);
        assert_string_equal(text, durations[i].text);
    }
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        terminal_bytes(text, sizeof text, sizes[i].bytes);
        assert_string_equal(text, sizes[i].text);
    }
}

static void terminal_colours_need_a_terminal_that_wants_them(void **state)
{
    int terminal = posix_openpt(O_RDWR | O_NOCTTY), pipe_fds[2];

    (void)state;
    if (terminal < 0)
        skip(); /* a sandbox without pseudo-terminals */
    assert_int_equal(pipe(pipe_fds), 0);
    unsetenv("NO_COLOR");
    setenv("TERM", "xterm", 1);
    assert_true(terminal_has_colours(terminal));
    assert_false(terminal_has_colours(pipe_fds[1]));
    assert_int_equal(terminal_width(pipe_fds[1]), 0);
    setenv("TERM", "dumb", 1);
    assert_false(terminal_has_colours(terminal));
    setenv("TERM", "xterm", 1);
    setenv("NO_COLOR", "1", 1);
    assert_false(terminal_has_colours(terminal));
    unsetenv("TERM");
    unsetenv("NO_COLOR");
    assert_false(terminal_has_colours(terminal));
    close(terminal);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
}

static void terminal_sleep_ends_at_an_interrupt(void **state)
{
    int fd = terminal_catch_interrupt();

    (void)state;
    assert_true(fd >= 0);
    assert_false(terminal_was_interrupted(fd));
    assert_true(terminal_sleep(fd, 1));
    raise(SIGINT);
    assert_false(terminal_sleep(fd, 60000));
    assert_true(terminal_sleep(fd, 1)); /* used up */
    raise(SIGTERM);
    assert_true(terminal_was_interrupted(fd));
    assert_false(terminal_was_interrupted(fd));
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terminal_shows_text_and_no_orders),
        cmocka_unit_test(terminal_durations_and_sizes_are_short),
        cmocka_unit_test(terminal_colours_need_a_terminal_that_wants_them),
        cmocka_unit_test(terminal_sleep_ends_at_an_interrupt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
