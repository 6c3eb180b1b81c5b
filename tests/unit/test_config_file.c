/* test_config_file.c - if this breaks, a typing error in the file is served as the built-in value, or
 * the operator is not told which line is wrong. */
#include "common/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char path[] = "/tmp/llmd-test-config-XXXXXX";

static int setup(void **state)
{
    int fd = mkstemp(path);

    (void)state;
    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return unlink(path);
}

static bool read_bytes(struct config *c, const char *bytes, size_t n, struct err *e)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
    config_init(c);
    *e = (struct err){ 0 };
    return config_read_file(c, path, e);
}

static bool read_text(struct config *c, const char *text, struct err *e)
{
    return read_bytes(c, text, strlen(text), e);
}

static void settings_and_their_lines_are_taken(void **state)
{
    struct config c;
    struct err e;
    char want[128];

    (void)state;
    assert_true(read_text(&c,
                          "# a comment\nport: 9000\nkv-cache-bytes: 4G\n"
                          "model: \"/srv/my model\"\nlog_level: 'debug'\n",
                          &e));
    assert_int_equal(c.port, 9000);
    assert_true(c.kv_cache_bytes == 4ull << 30);
    assert_string_equal(c.model, "/srv/my model");
    assert_string_equal(c.log_level, "debug");
    snprintf(want, sizeof want, "file %s:3", path);
    assert_string_equal(c.source[CONFIG_kv_cache_bytes], want);
    assert_string_equal(c.source[CONFIG_host], "built-in");
}

static void an_empty_file_sets_nothing(void **state)
{
    static const char *const empties[] = { "", "\n\n", "# only a comment\n", "---\n", "{}\n" };
    struct config c;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof empties / sizeof empties[0]; i++) {
        assert_true(read_text(&c, empties[i], &e));
        assert_int_equal(c.port, 8080);
    }
}

/* Each wrong file, the line its error must name, and a word the error must hold. */
static void errors_name_file_and_line(void **state)
{
    static const struct {
        const char *text;
        int line;
        const char *word;
    } bad[] = {
        { "port: 1\nprot: 2\n", 2, "'prot'" },
        { "port: 70000\n", 1, "0 to 65535" },
        { "\n\nport: eight\n", 3, "'eight'" },
        { "log_level: loud\n", 1, "error|warning|info|debug" },
        { "port: 1\nhost: a\nport: 2\n", 3, "twice" },
        { "max_body_bytes: 1M\nmax-body-bytes: 2M\n", 2, "twice" },
        { "port: [1, 2]\n", 1, "plain value" },
        { "model:\n  dir: x\n", 2, "plain value" },
        { "- port\n", 1, "setting: value" },
        { "port\n", 1, "setting: value" },
        { "? [a]\n: b\n", 1, "name of a setting" },
        { "port: 1\n---\nhost: a\n", 2, "second document" },
        { "port: 1\n\thost: a\n", 2, "not YAML" },
        { "port: \"1\n", 2, "not YAML" },
        { "host: &a x\nmodel: *a\n", 2, "plain value" },
        { "host: \"a\\0b\"\n", 1, "plain value" },
        { "port:\n", 1, "''" },
    };
    struct config c;
    struct err e;
    char want[128];

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(read_text(&c, bad[i].text, &e));
        snprintf(want, sizeof want, "%s:%d: ", path, bad[i].line);
        if (!strstr(e.msg, want) || !strstr(e.msg, bad[i].word))
            fail_msg("file %zu: wanted '%s' and '%s' in '%s'", i, want, bad[i].word, e.msg);
        assert_int_equal(e.code, ERR_CONFIG);
    }
}

static void bytes_that_are_no_text_are_an_error(void **state)
{
    struct config c;
    struct err e;

    (void)state;
    assert_false(read_bytes(&c, "port: \xff\xfe\n", 9, &e));
    assert_false(read_bytes(&c, "port: 1\0\n", 9, &e));
}

static void a_missing_or_huge_file_is_named(void **state)
{
    char *huge = calloc(1, 2 << 20);
    struct config c;
    struct err e = { 0 };

    (void)state;
    config_init(&c);
    assert_false(config_read_file(&c, "/nonexistent/llmd.yaml", &e));
    assert_non_null(strstr(e.msg, "/nonexistent/llmd.yaml"));
    memset(huge, '\n', 2 << 20);
    assert_false(read_bytes(&c, huge, 2 << 20, &e));
    assert_non_null(strstr(e.msg, "limit"));
    free(huge);
}

static void later_sources_win(void **state)
{
    char *environment[] = { "PORT=1002", "LLMD_HOST=::1", "HOST=ignored", NULL };
    struct config c;
    struct err e;

    (void)state;
    assert_true(read_text(&c, "port: 1001\nhost: file\nthreads: 3\n", &e));
    assert_true(config_read_environment(&c, environment, &e));
    assert_true(config_set(&c, "threads", "5", "command line", &e));
    assert_int_equal(c.port, 1002);
    assert_string_equal(c.source[CONFIG_port], "environment PORT");
    assert_string_equal(c.host, "::1");
    assert_string_equal(c.source[CONFIG_host], "environment LLMD_HOST");
    assert_int_equal(c.threads, 5);
    assert_string_equal(c.source[CONFIG_threads], "command line");
}

static void bad_environment_is_named(void **state)
{
    char *environment[] = { "LLMD_PORT=x", NULL };
    struct config c;
    struct err e = { 0 };

    (void)state;
    config_init(&c);
    assert_false(config_read_environment(&c, environment, &e));
    assert_non_null(strstr(e.msg, "LLMD_PORT"));
    assert_int_equal(c.port, 8080);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(settings_and_their_lines_are_taken),
        cmocka_unit_test(an_empty_file_sets_nothing),
        cmocka_unit_test(errors_name_file_and_line),
        cmocka_unit_test(bytes_that_are_no_text_are_an_error),
        cmocka_unit_test(a_missing_or_huge_file_is_named),
        cmocka_unit_test(later_sources_win),
        cmocka_unit_test(bad_environment_is_named),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
