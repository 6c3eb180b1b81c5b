/* test_state.c - if this breaks, a new llmd goes on with settings that were never in force, or believes what
 * was half written. */
#include "supervisor/state.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "supervisor/layouts.h"
#include "tests/check.h"

static int make(uint32_t serial)
{
    static struct config config;
    Llmd__ModelPlan plan = LLMD__MODEL_PLAN__INIT;
    struct state s = { .instance = 77, .serial = serial, .config = &config, .plan = &plan };
    struct err e = { 0 };
    int fd;

    config_init(&config);
    config_set(&config, "groups", "3", "command line", &e);
    config_set(&config, "model", "/a \"strange\" name", "file x:1", &e);
    plan.name = plan.architecture = plan.weights_dtype = (char *)(uintptr_t) "x";
    plan.kv_pages = 1234;
    fd = state_make(&s, &e);
    assert_true(fd >= 0);
    return fd;
}

static void state_comes_back_as_it_was_written(void **state)
{
    struct config *back = calloc(1, sizeof *back);
    struct err e = { 0 };
    int fd = make(5);
    Llmd__Keep *k = state_read(fd, &e);

    (void)state;
    assert_non_null(k);
    assert_ok(state_is_ours(k, &e), e);
    assert_int_equal(k->instance, 77);
    assert_int_equal(k->serial, 5);
    assert_int_equal(k->plan->kv_pages, 1234);
    assert_ok(state_settings(k, back, &e), e);
    assert_int_equal(back->groups, 3);
    assert_string_equal(back->model, "/a \"strange\" name");
    assert_string_equal(back->source[CONFIG_groups], "command line");
    frame_free_body(k);
    free(back);
    close(fd);
}

static void a_state_cannot_be_changed(void **state)
{
    int fd = make(1);

    (void)state;
    assert_int_equal(pwrite(fd, "x", 1, 0), -1);
    assert_int_equal(ftruncate(fd, 1), -1);
    close(fd);
}

static void what_is_not_sealed_is_not_whole(void **state)
{
    int whole = make(1), half = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    char bytes[65536];
    ssize_t n = pread(whole, bytes, sizeof bytes, 0);
    struct err e = { 0 };

    (void)state;
    assert_int_equal(write(half, bytes, (size_t)n), n);
    assert_null(state_read(half, &e));
    assert_non_null(strstr(e.msg, "not sealed"));
    close(half);
    close(whole);
}

static void damaged_bytes_are_refused(void **state)
{
    int whole = make(1);
    char bytes[65536];
    ssize_t n = pread(whole, bytes, sizeof bytes, 0);

    (void)state;
    for (int i = 0; i < 40; i++) {
        int fd = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct err e = { 0 };
        assert_int_equal(write(fd, bytes, (size_t)(n - 1 - i * 7)), n - 1 - i * 7);
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
        assert_null(state_read(fd, &e));
        assert_int_equal(e.code, ERR_PROTO);
        close(fd);
    }
    close(whole);
}

static void other_layouts_are_told_by_both_names(void **state)
{
    struct err e = { 0 };
    int fd = make(1);
    Llmd__Keep *k = state_read(fd, &e);

    (void)state;
    k->layouts[strlen(k->layouts) - 1] = '0';
    assert_false(state_is_ours(k, &e));
    assert_non_null(strstr(e.msg, layouts_line()));
    frame_free_body(k);
    close(fd);
}

/* Of a build that had a setting more. */
static void a_setting_that_is_gone_is_left_out(void **state)
{
    struct config *back = calloc(1, sizeof *back);
    struct err e = { 0 };
    int fd = make(1);
    Llmd__Keep *k = state_read(fd, &e);

    (void)state;
    log_set_level((enum log_level) - 1);
    k->settings[0]->name[0] = 'x';
    assert_ok(state_settings(k, back, &e), e);
    assert_int_equal(back->groups, 3);
    frame_free_body(k);
    free(back);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_comes_back_as_it_was_written),
        cmocka_unit_test(a_state_cannot_be_changed),
        cmocka_unit_test(what_is_not_sealed_is_not_whole),
        cmocka_unit_test(damaged_bytes_are_refused),
        cmocka_unit_test(other_layouts_are_told_by_both_names),
        cmocka_unit_test(a_setting_that_is_gone_is_left_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
