/* test_log.c - one event is one line, whatever a client put into it.
 *
 * What would break in production: a log viewer that parses JSON loses lines, or an operator's terminal
 * obeys an escape sequence that came in a request.  stderr is a pipe here, so lines can be read back. */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/check.h"

static int real_stderr, reader;

static int set_up(void **state)
{
    int fds[2];

    (void)state;
    real_stderr = dup(STDERR_FILENO);
    if (pipe2(fds, O_CLOEXEC) < 0 || fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
        return -1;
    fcntl(fds[0], F_SETPIPE_SZ, 1 << 20);
    reader = fds[0];
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    dup2(real_stderr, STDERR_FILENO);
    close(real_stderr);
    close(reader);
    unsetenv("JOURNAL_STREAM");
    return 0;
}

/* All that was written until now. */
static size_t drain(char *out, size_t cap)
{
    size_t n = 0;
    ssize_t got;

    while (n + 1 < cap && (got = read(reader, out + n, cap - 1 - n)) > 0)
        n += (size_t)got;
    out[n] = '\0';
    return n;
}

static void log_line_has_time_level_process_and_message(void **state)
{
    char line[512];
    int n = 0;

    (void)state;
    log_init("llm-worker/0.1", LOG_INFO, LOG_TEXT);
    log_warning("event=%s n=%d", "test", 3);
    drain(line, sizeof line);
    assert_int_equal(
        sscanf(line, "%*4d-%*2d-%*2dT%*2d:%*2d:%*2d.%*3dZ warning llm-worker/0.1: %n", &n), 0);
    assert_true(n > 0);
    assert_string_equal(line + n, "event=test n=3\n");
}

static void log_line_below_the_level_is_dropped(void **state)
{
    char line[512];

    (void)state;
    log_init("t", LOG_WARNING, LOG_TEXT);
    log_info("event=no");
    log_debug("event=no");
    assert_int_equal(drain(line, sizeof line), 0);
    log_set_level(LOG_DEBUG);
    log_debug("event=yes");
    drain(line, sizeof line);
    assert_non_null(strstr(line, "debug   t: event=yes\n"));
}

static void log_line_keeps_errno(void **state)
{
    char line[512];

    (void)state;
    log_init("t", LOG_INFO, LOG_TEXT);
    errno = EEXIST;
    log_error("why=%m");
    assert_int_equal(errno, EEXIST);
    drain(line, sizeof line);
    assert_non_null(strstr(line, "why=File exists\n"));
}

static void log_line_escapes_what_a_terminal_would_obey(void **state)
{
    char line[512];

    (void)state;
    log_init("t", LOG_INFO, LOG_TEXT);
    log_info("model='%s'", "a\nb\x1b[2J\xff \xe2\x82\xac");
    drain(line, sizeof line);
    assert_non_null(strstr(line, "model='a\\x0ab\\x1b[2J\xef\xbf\xbd \xe2\x82\xac'\n"));
}

/* Every byte, alone and in long runs, gives a line that parses and reads back. */
static void log_json_always_parses(void **state)
{
    (void)state;
    log_init("t", LOG_INFO, LOG_JSON);
    for (int c = 1; c < 256; c++) {
        for (int length = 1; length <= 4001; length += 2000) {
            char text[4096], line[8192];
            json_error_t why;
            memset(text, c, (size_t)length);
            text[length] = '\0';
            log_error("%s", text);
            size_t n = drain(line, sizeof line);
            assert_true(n > 0 && n <= 2304);
            assert_ptr_equal(strchr(line, '\n'), line + n - 1);
            json_t *v = json_loads(line, JSON_REJECT_DUPLICATES, &why);
            if (!v)
                fail_msg("byte %d times %d: %s in %s", c, length, why.text, line);
            const char *message = json_string_value(json_object_get(v, "message"));
            assert_non_null(message);
            if (c < 128)
                assert_memory_equal(message, text, length == 1 ? 2 : 200);
            assert_string_equal(json_string_value(json_object_get(v, "level")), "error");
            assert_string_equal(json_string_value(json_object_get(v, "process")), "t");
            json_decref(v);
        }
    }
}

static void log_line_that_is_too_long_is_one_line_all_the_same(void **state)
{
    char text[5000], line[8192];

    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 1] = '\0';
    log_init("a-process-name-far-longer-than-its-room", LOG_INFO, LOG_TEXT);
    log_info("%s", text);
    size_t n = drain(line, sizeof line);
    assert_in_range(n, 1800, 2304);
    assert_ptr_equal(strchr(line, '\n'), line + n - 1);
}

static void log_prefixes_lines_for_the_journal_only_when_it_reads_them(void **state)
{
    char line[512], stream[64];
    struct stat st;

    (void)state;
    assert_int_equal(fstat(STDERR_FILENO, &st), 0);
    snprintf(stream, sizeof stream, "%llu:%llu", (unsigned long long)st.st_dev,
             (unsigned long long)st.st_ino);
    setenv("JOURNAL_STREAM", stream, 1);
    log_init("t", LOG_INFO, LOG_TEXT);
    log_error("event=a");
    log_info("event=b");
    drain(line, sizeof line);
    assert_string_equal(line, "<3>t: event=a\n<6>t: event=b\n");

    setenv("JOURNAL_STREAM", "1:1", 1); /* inherited, but stderr goes elsewhere */
    log_init("t", LOG_INFO, LOG_TEXT);
    log_error("event=a");
    drain(line, sizeof line);
    assert_true(line[0] != '<');
}

static void log_request_names_the_request(void **state)
{
    char line[1024], forged[400];
    json_t *v;

    (void)state;
    log_init("t", LOG_INFO, LOG_TEXT);
    log_request(LOG_INFO, "abc-7", "tokens=%d", 3);
    log_request(LOG_INFO, "", "tokens=4");
    drain(line, sizeof line);
    assert_non_null(strstr(line, " t: request_id=abc-7 tokens=3\n"));
    assert_non_null(strstr(line, " t: tokens=4\n"));

    log_init("t", LOG_INFO, LOG_JSON);
    memset(forged, 'x', sizeof forged);
    memcpy(forged, "a\",\"level\":\"b\\ \n", 16);
    forged[sizeof forged - 1] = '\0';
    log_request(LOG_INFO, forged, "tokens=3");
    drain(line, sizeof line);
    v = json_loads(line, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    assert_memory_equal(json_string_value(json_object_get(v, "request_id")), "a_,_level_:_b___xx",
                        18);
    assert_string_equal(json_string_value(json_object_get(v, "message")), "tokens=3");
    json_decref(v);
}

static void log_format_auto_is_text_outside_of_the_journal_and_our_init(void **state)
{
    char line[512];

    (void)state;
    log_init("t", LOG_INFO, LOG_AUTO);
    log_info("event=a");
    drain(line, sizeof line);
    assert_non_null(strstr(line, " info    t: event=a\n"));
}

enum { WRITERS = 4, LINES = 50 };

static void *write_lines(void *arg)
{
    char word[101];

    memset(word, *(const char *)arg, 100);
    word[100] = '\0';
    for (int i = 0; i < LINES; i++)
        log_info("%s", word);
    return NULL;
}

static void log_lines_of_threads_do_not_mix(void **state)
{
    static const char letters[WRITERS] = { 'a', 'b', 'c', 'd' };
    static char all[WRITERS * LINES * 256];
    pthread_t threads[WRITERS];
    int n_lines = 0;

    (void)state;
    log_init("t", LOG_INFO, LOG_TEXT);
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, write_lines, (void *)(uintptr_t)&letters[i]), 0);
    for (int i = 0; i < WRITERS; i++)
        pthread_join(threads[i], NULL);
    drain(all, sizeof all);
    for (char *line = strtok(all, "\n"); line; line = strtok(NULL, "\n"), n_lines++) {
        const char *word = strstr(line, " t: ");
        assert_non_null(word);
        word += 4;
        assert_int_equal(strlen(word), 100);
        assert_int_equal(strspn(word, (char[]){ word[0], '\0' }), 100);
    }
    assert_int_equal(n_lines, WRITERS * LINES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(log_line_has_time_level_process_and_message, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_line_below_the_level_is_dropped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_line_keeps_errno, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_line_escapes_what_a_terminal_would_obey, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_json_always_parses, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_line_that_is_too_long_is_one_line_all_the_same, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(log_prefixes_lines_for_the_journal_only_when_it_reads_them,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_request_names_the_request, set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_format_auto_is_text_outside_of_the_journal_and_our_init,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(log_lines_of_threads_do_not_mix, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
