/* test_arena.c - the memory of one request.
 *
 * What would break in production: two pieces that overlap, a piece that moves when the arena grows, or
 * memory of the last request seen by the next one. */
#include "common/arena.h"

#include "tests/check.h"

static void arena_pieces_are_aligned_zeroed_and_apart(void **state)
{
    enum { N = 3000 };
    static unsigned char *piece[N];
    static size_t bytes[N];
    struct arena a = { 0 };
    unsigned seed = 12345; /* fixed: the same pieces in every run */

    (void)state;
    for (int i = 0; i < N; i++) {
        seed = seed * 1103515245u + 12345u;
        bytes[i] = seed >> 16 & 1 ? seed >> 20 & 63 : seed >> 18 & 8191;
        piece[i] = arena_alloc(&a, bytes[i]);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 16, 0);
        for (size_t k = 0; k < bytes[i]; k++)
            assert_int_equal(piece[i][k], 0);
        memset(piece[i], i & 255, bytes[i]);
    }
    for (int i = 0; i < N; i++) /* nobody wrote into another's piece */
        for (size_t k = 0; k < bytes[i]; k++)
            assert_int_equal(piece[i][k], i & 255);
    arena_fini(&a);
    assert_null(a.last);
}

static void arena_strings_are_copies(void **state)
{
    struct arena a = { 0 };
    char text[] = "hello";
    char *copy = arena_strdup(&a, text), *part = arena_strndup(&a, text, 2);
    char *bytes = arena_strndup(&a, "a\0b", 3);

    (void)state;
    text[0] = 'j';
    assert_string_equal(copy, "hello");
    assert_string_equal(part, "he");
    assert_memory_equal(bytes, "a\0b", 4);
    assert_string_equal(arena_strdup(&a, ""), "");
    arena_fini(&a);
}

static void arena_printf_fits_any_length(void **state)
{
    struct arena a = { 0 };
    const char *s = arena_printf(&a, "%s-%05000d", "x", 7);

    (void)state;
    assert_int_equal(strlen(s), 5002);
    assert_memory_equal(s, "x-000", 5);
    assert_string_equal(s + 4999, "007");
    assert_string_equal(arena_printf(&a, "%d", 5), "5");
    arena_fini(&a);
}

static void arena_fini_of_an_empty_one_and_twice(void **state)
{
    struct arena a = { 0 };

    (void)state;
    arena_fini(&a);
    arena_alloc(&a, 1);
    arena_fini(&a);
    arena_fini(&a);
}

static void alloc(void *bytes)
{
    struct arena a = { 0 };
    char *p = arena_alloc(&a, *(size_t *)bytes);

    p[100] = 1;
}

static void arena_alloc_aborts_when_the_size_wraps(void **state)
{
    size_t bytes[] = { SIZE_MAX, SIZE_MAX - 14, SIZE_MAX - 40 };

    (void)state;
    for (size_t i = 0; i < sizeof bytes / sizeof *bytes; i++)
        assert_aborts(alloc, &bytes[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_pieces_are_aligned_zeroed_and_apart),
        cmocka_unit_test(arena_strings_are_copies),
        cmocka_unit_test(arena_printf_fits_any_length),
        cmocka_unit_test(arena_fini_of_an_empty_one_and_twice),
        cmocka_unit_test(arena_alloc_aborts_when_the_size_wraps),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
