/* test_runtime_dir.c - if this breaks, llmctl looks in another folder than llmd, two llmd share one
 * socket, or a stop leaves a folder behind (or removes one that is not ours). */
#include "common/runtime_dir.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char base[64];

static int setup(void **state)
{
    (void)state;
    strcpy(base, "/tmp/llmd-test-XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    return rmdir(base);
}

static void path_below(char out[128], const char *name)
{
    snprintf(out, 128, "%s/%s", base, name);
}

static void the_setting_wins(void **state)
{
    struct config c;
    char out[128];

    (void)state;
    config_init(&c);
    strcpy(c.runtime_dir, "/run/a//");
    assert_true(runtime_dir_resolve(&c, out, sizeof out, NULL));
    assert_string_equal(out, "/run/a");
}

static void of_a_list_the_first_is_taken(void **state)
{
    struct config c;
    char out[128];

    (void)state;
    config_init(&c);
    strcpy(c.runtime_dir, "/run/a:/run/b");
    assert_true(runtime_dir_resolve(&c, out, sizeof out, NULL));
    assert_string_equal(out, "/run/a");
}

static void unset_gives_a_folder_that_can_be_made(void **state)
{
    struct config c;
    char out[128], parent[128];

    (void)state;
    config_init(&c);
    setenv("XDG_RUNTIME_DIR", base, 1);
    assert_true(runtime_dir_resolve(&c, out, sizeof out, NULL));
    strcpy(parent, out);
    *strrchr(parent, '/') = '\0';
    assert_true(access(out, W_OK) == 0 || access(parent, W_OK) == 0);
    unsetenv("XDG_RUNTIME_DIR");
}

static void a_path_too_long_for_a_socket_is_refused(void **state)
{
    struct err e = { 0 };
    struct config c;
    char out[256];

    (void)state;
    config_init(&c);
    memset(c.runtime_dir, 'x', 95);
    c.runtime_dir[0] = '/';
    assert_false(runtime_dir_resolve(&c, out, sizeof out, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    c.runtime_dir[94] = '\0'; /* 94 + "/control.sock" = 107 */
    assert_true(runtime_dir_resolve(&c, out, sizeof out, &e));
}

static void made_folder_is_removed_again(void **state)
{
    struct stat st;
    char dir[128];
    int fd;

    (void)state;
    path_below(dir, "made");
    fd = runtime_dir_open(dir, NULL);
    assert_true(fd >= 0);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 01777, 01700); /* below /tmp only the owner may look */
    runtime_dir_remove(dir);
    close(fd);
    assert_int_not_equal(access(dir, F_OK), 0);
}

static void found_folder_stays_but_its_socket_goes(void **state)
{
    char dir[128], sock[160];
    int fd;

    (void)state;
    path_below(dir, "found");
    assert_int_equal(mkdir(dir, 0700), 0);
    runtime_dir_control_path(dir, sock, sizeof sock);
    assert_true((fd = open(sock, O_CREAT | O_WRONLY, 0600)) >= 0);
    close(fd);
    runtime_dir_remove(dir);
    assert_int_not_equal(access(sock, F_OK), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void world_writable_folder_with_sticky_bit_is_not_ours(void **state)
{
    char dir[128];

    (void)state;
    path_below(dir, "tmplike");
    assert_int_equal(mkdir(dir, 0700), 0);
    assert_int_equal(chmod(dir, 01777), 0);
    runtime_dir_remove(dir);
    assert_int_equal(rmdir(dir), 0);
}

/* As after a SIGKILL between fork and exec. */
static void what_a_fork_still_holds_is_waited_for(void **state)
{
    struct err e = { 0 };
    int first, second;
    char dir[128];
    pid_t pid;

    (void)state;
    path_below(dir, "forked");
    first = runtime_dir_open(dir, NULL);
    assert_true(first >= 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        usleep(200000);
        _exit(0);
    }
    close(first);
    second = runtime_dir_open(dir, &e);
    assert_true(second >= 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    runtime_dir_remove(dir);
    close(second);
}

static void second_llmd_is_refused_until_the_first_is_gone(void **state)
{
    struct err e = { 0 };
    char dir[128];
    int first, second;

    (void)state;
    path_below(dir, "lock");
    first = runtime_dir_open(dir, NULL);
    assert_true(first >= 0);
    assert_int_equal(runtime_dir_open(dir, &e), -1);
    assert_non_null(strstr(e.msg, "another llmd"));
    close(first); /* as a SIGKILL would */
    second = runtime_dir_open(dir, NULL);
    assert_true(second >= 0);
    runtime_dir_remove(dir); /* made by the first, and removed all the same */
    close(second);
    assert_int_not_equal(access(dir, F_OK), 0);
}

static void sweep_spares_a_living_llmd(void **state)
{
    char dir[128];
    int fd;

    (void)state;
    path_below(dir, "sweep");
    fd = runtime_dir_open(dir, NULL);
    assert_true(fd >= 0);
    runtime_dir_sweep(dir);
    assert_int_equal(access(dir, F_OK), 0);
    close(fd);
    runtime_dir_sweep(dir);
    assert_int_not_equal(access(dir, F_OK), 0);
}

static void link_below_tmp_is_refused(void **state)
{
    struct err e = { 0 };
    char dir[128];

    (void)state;
    path_below(dir, "link");
    assert_int_equal(symlink("/", dir), 0);
    assert_int_equal(runtime_dir_open(dir, &e), -1);
    assert_int_equal(e.code, ERR_CONFIG);
    unlink(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_setting_wins),
        cmocka_unit_test(of_a_list_the_first_is_taken),
        cmocka_unit_test(unset_gives_a_folder_that_can_be_made),
        cmocka_unit_test(a_path_too_long_for_a_socket_is_refused),
        cmocka_unit_test(made_folder_is_removed_again),
        cmocka_unit_test(found_folder_stays_but_its_socket_goes),
        cmocka_unit_test(world_writable_folder_with_sticky_bit_is_not_ours),
        cmocka_unit_test(what_a_fork_still_holds_is_waited_for),
        cmocka_unit_test(second_llmd_is_refused_until_the_first_is_gone),
        cmocka_unit_test(sweep_spares_a_living_llmd),
        cmocka_unit_test(link_below_tmp_is_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
