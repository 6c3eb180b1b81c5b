/* test_file.c - whole files with a bound.
 *
 * What would break in production: llmd hangs at start because a model folder holds a FIFO, or a file
 * of the wrong size fills the memory; settings are read half written. */
#include "common/file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "tests/check.h"

static char folder[] = "/tmp/llmd-test-file-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const void *bytes, size_t n)
{
    FILE *f = fopen(path_of(name), "wb");

    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void file_read_gives_all_bytes_and_a_nul(void **state)
{
    static char big[1 << 20];
    char *bytes = NULL;
    size_t n = 0;
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof big; i++)
        big[i] = (char)(i * 7);
    put("big", big, sizeof big);
    assert_ok(file_read(path_of("big"), sizeof big, &bytes, &n, &e), e);
    assert_int_equal(n, sizeof big);
    assert_memory_equal(bytes, big, n);
    assert_int_equal(bytes[n], 0);
    free(bytes);
    unlink(path_of("big"));
}

static void file_read_takes_an_empty_file(void **state)
{
    char *bytes = NULL;
    size_t n = 9;
    struct err e;

    (void)state;
    put("empty", "", 0);
    assert_ok(file_read(path_of("empty"), 0, &bytes, &n, &e), e);
    assert_int_equal(n, 0);
    assert_string_equal(bytes, "");
    free(bytes);
    unlink(path_of("empty"));
}

static void file_read_refuses_one_byte_too_many(void **state)
{
    char *bytes = (char *)folder;
    size_t n = 9;
    struct err e;

    (void)state;
    put("ten", "0123456789", 10);
    assert_fails(file_read(path_of("ten"), 9, &bytes, &n, &e), e, ERR_CONFIG,
                 "has 10 bytes, the limit is 9");
    assert_ptr_equal(bytes, folder); /* outputs only on success */
    assert_int_equal(n, 9);
    unlink(path_of("ten"));
}

static void file_read_names_what_is_missing(void **state)
{
    char *bytes;
    size_t n;
    struct err e;

    (void)state;
    assert_fails(file_read(path_of("none"), 9, &bytes, &n, &e), e, ERR_SYS, "none'");
    assert_int_equal(e.sys, ENOENT);
    assert_false(file_exists(path_of("none")));
    assert_true(file_exists(folder));
}

static void file_read_refuses_folders_and_never_waits_for_a_fifo(void **state)
{
    char *bytes;
    size_t n;
    struct err e;

    (void)state;
    assert_fails(file_read(folder, 9, &bytes, &n, &e), e, ERR_CONFIG, "not a regular file");
    assert_int_equal(mkfifo(path_of("fifo"), 0600), 0);
    alarm(5); /* opened the plain way, it waits for a writer for ever */
    assert_fails(file_read(path_of("fifo"), 9, &bytes, &n, &e), e, ERR_CONFIG,
                 "not a regular file");
    alarm(0);
    unlink(path_of("fifo"));
    assert_fails(file_read("/dev/null", 9, &bytes, &n, &e), e, ERR_CONFIG, "not a regular file");
}

static void check_text(const char *name, const char *text)
{
    char *bytes;
    size_t n;
    struct err e;

    assert_ok(file_read(path_of(name), 99, &bytes, &n, &e), e);
    assert_string_equal(bytes, text);
    free(bytes);
}

/* Who has it open keeps the old one whole. */
static void file_replace_never_shows_a_part(void **state)
{
    struct err e = { 0 };
    char old[8] = "";
    FILE *reader;

    (void)state;
    assert_ok(file_replace(path_of("settings"), "old: 1\n", &e), e);
    reader = fopen(path_of("settings"), "r");
    assert_ok(file_replace(path_of("settings"), "new\n", &e), e);
    assert_non_null(fgets(old, sizeof old, reader));
    fclose(reader);
    assert_string_equal(old, "old: 1\n");
    check_text("settings", "new\n");
    unlink(path_of("settings")); /* and PATH.new is gone: the folder can be removed */
}

static void file_replace_says_what_it_cannot_write(void **state)
{
    struct err e;

    (void)state;
    assert_fails(file_replace(path_of("nowhere/settings"), "", &e), e, ERR_SYS, "nowhere/settings");
    assert_int_equal(mkdir(path_of("folder"), 0700), 0);
    assert_fails(file_replace(path_of("folder"), "", &e), e, ERR_SYS, "folder");
    rmdir(path_of("folder"));
    unlink(path_of("folder.new"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(file_read_gives_all_bytes_and_a_nul),
        cmocka_unit_test(file_read_takes_an_empty_file),
        cmocka_unit_test(file_read_refuses_one_byte_too_many),
        cmocka_unit_test(file_read_names_what_is_missing),
        cmocka_unit_test(file_read_refuses_folders_and_never_waits_for_a_fifo),
        cmocka_unit_test(file_replace_never_shows_a_part),
        cmocka_unit_test(file_replace_says_what_it_cannot_write),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
