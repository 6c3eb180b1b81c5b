/* test_buf.c - every answer, frame and log passes through struct buf.
 *
 * What would break in production: bytes lost at a growth step, a C string without its NUL, or a size
 * near the end of the address space that wraps and becomes a write outside. */
#include "common/buf.h"

#include <stdio.h>

#include "tests/check.h"

static void buf_grows_and_keeps_every_byte(void **state)
{
    struct buf b = { 0 };

    (void)state;
    for (int i = 0; i < 10000; i++) {
        buf_add_char(&b, (char)(i * 31));
        assert_int_equal(b.n, i + 1);
        assert_int_equal(b.data[b.n], 0);
        assert_true(b.cap > b.n);
    }
    for (int i = 0; i < 10000; i++)
        assert_int_equal(b.data[i], (char)(i * 31));
    buf_fini(&b);
}

static void buf_holds_nul_bytes_and_takes_nothing(void **state)
{
    struct buf b = { 0 };

    (void)state;
    buf_add(&b, NULL, 0);
    assert_string_equal(b.data, "");
    buf_add(&b, "a\0b", 3);
    assert_int_equal(b.n, 3);
    assert_memory_equal(b.data, "a\0b", 4);
    buf_fini(&b);
    buf_fini(&b);
}

static void buf_is_terminated_after_reserve(void **state)
{
    struct buf b = { 0 };

    (void)state;
    buf_reserve(&b, 100);
    assert_true(b.cap > 100);
    assert_int_equal(b.n, 0);
    assert_string_equal(b.data, "");
    buf_add_str(&b, "abc");
    buf_reserve(&b, 1000);
    assert_string_equal(b.data, "abc");
    buf_fini(&b);
}

static void buf_printf_appends_any_length(void **state)
{
    struct buf b = { 0 };

    (void)state;
    buf_printf(&b, "%d", 1);
    buf_printf(&b, "%s", "");
    buf_printf(&b, "%0500d|", 7);
    assert_int_equal(b.n, 502);
    assert_memory_equal(b.data, "1000", 4);
    assert_string_equal(b.data + 500, "7|");
    buf_fini(&b);
}

static void buf_take_gives_the_bytes_away(void **state)
{
    struct buf b = { 0 };
    char *bytes = buf_take(&b);

    (void)state;
    assert_string_equal(bytes, ""); /* of an empty buffer too */
    free(bytes);
    buf_add_str(&b, "mine");
    bytes = buf_take(&b);
    assert_string_equal(bytes, "mine");
    assert_null(b.data);
    assert_int_equal(b.n, 0);
    buf_add_str(&b, "next");
    assert_string_equal(b.data, "next");
    free(bytes);
    buf_fini(&b);
}

static void buf_clear_keeps_the_memory(void **state)
{
    struct buf b = { 0 };

    (void)state;
    buf_clear(&b);
    buf_add_str(&b, "some text");
    const char *data = b.data;
    buf_clear(&b);
    assert_int_equal(b.n, 0);
    assert_string_equal(b.data, "");
    buf_add_str(&b, "other");
    assert_ptr_equal(b.data, data);
    buf_fini(&b);
}

static void reserve(void *extra)
{
    struct buf b = { 0 };

    buf_add_str(&b, "ab");
    buf_reserve(&b, *(size_t *)extra);
    b.data[2] = 'c'; /* would be a small buffer, had the sum wrapped */
}

static void buf_reserve_aborts_when_the_size_wraps(void **state)
{
    size_t extra[] = { SIZE_MAX, SIZE_MAX - 1, SIZE_MAX - 2, SIZE_MAX / 2 + 1 };

    (void)state;
    for (size_t i = 0; i < sizeof extra / sizeof *extra; i++)
        assert_aborts(reserve, &extra[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(buf_grows_and_keeps_every_byte),
        cmocka_unit_test(buf_holds_nul_bytes_and_takes_nothing),
        cmocka_unit_test(buf_is_terminated_after_reserve),
        cmocka_unit_test(buf_printf_appends_any_length),
        cmocka_unit_test(buf_take_gives_the_bytes_away),
        cmocka_unit_test(buf_clear_keeps_the_memory),
        cmocka_unit_test(buf_reserve_aborts_when_the_size_wraps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
