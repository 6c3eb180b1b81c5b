/* test_sequence_id.c - a number that names a sequence as long as anyone could remember it.
 *
 * What would break in production: two threads, or a gateway and its successor, draw the same number. */
#include "proto/sequence_id.h"

#include "tests/check.h"

static void sequence_id_differs_in_every_part(void **state)
{
    const uint32_t epochs[] = { 1, 2, 0xffffff }, threads[] = { 0, 1, 255 },
                   counters[] = { 0, 1, UINT32_MAX };
    uint64_t seen[27];
    int n = 0;

    (void)state;
    for (int e = 0; e < 3; e++) {
        for (int t = 0; t < 3; t++) {
            for (int c = 0; c < 3; c++) {
                uint64_t id = sequence_id_make(epochs[e], threads[t], counters[c]);
                assert_true(id != 0);
                assert_int_equal(sequence_id_thread(id), threads[t]);
                for (int i = 0; i < n; i++)
                    assert_true(seen[i] != id);
                seen[n++] = id;
            }
        }
    }
}

static void sequence_id_has_the_drawn_layout(void **state)
{
    (void)state;
    assert_true(sequence_id_make(0x123456, 0x78, 0x9abcdef0) == 0x123456789abcdef0ull);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequence_id_differs_in_every_part),
        cmocka_unit_test(sequence_id_has_the_drawn_layout),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
