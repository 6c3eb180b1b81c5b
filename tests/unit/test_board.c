/* test_board.c - the slots in which processes live.
 *
 * What would break in production: two processes that write one slot, or a gateway of another build that
 * reads numbers from the wrong place. */
#include "proto/board.h"

#include <stdio.h>

#include "common/clock.h"
#include "tests/check.h"

static void board_slots_are_apart_and_shared(void **state)
{
    struct board a, b;
    struct err e;

    (void)state;
    assert_ok(board_create(&a, 3, 2, 77, &e), e);
    assert_int_equal(a.hdr->n_slots, 2 + 3 * 2);
    assert_true(a.hdr->started_ns <= clock_mono_ns());
    assert_int_equal(a.hdr->segment.instance, 77);
    assert_ok(board_attach(&b, dup(a.segment.fd), &e), e);
    for (uint32_t i = 0; i < a.hdr->n_slots; i++) {
        assert_int_equal((uintptr_t)board_slot(&a, i) % 64, 0);
        memset((void *)board_slot(&a, i), (int)i + 1, sizeof(struct board_slot));
    }
    for (uint32_t i = 0; i < b.hdr->n_slots; i++) {
        const unsigned char *slot = (const unsigned char *)board_slot(&b, i);
        for (size_t k = 0; k < sizeof(struct board_slot); k++)
            assert_int_equal(slot[k], i + 1);
    }
    board_close(&a);
    board_close(&b);
    board_close(&b);
}

static void board_ranks_follow_the_gateway_group_by_group(void **state)
{
    struct board a;
    struct err e;

    (void)state;
    assert_ok(board_create(&a, 3, 2, 77, &e), e);
    assert_int_equal(board_rank_slot(&a, 0, 0), 2);
    assert_int_equal(board_rank_slot(&a, 0, 1), 3);
    assert_int_equal(board_rank_slot(&a, 2, 1), a.hdr->n_slots - 1);
    board_close(&a);
}

static void board_attach_refuses_numbers_that_do_not_fit(void **state)
{
    struct board a, b = { 0 };
    struct board_hdr good;
    struct err e;

    (void)state;
    assert_ok(board_create(&a, 2, 2, 77, &e), e);
    good = *a.hdr;
    a.hdr->n_slots++;
    assert_fails(board_attach(&b, dup(a.segment.fd), &e), e, ERR_PROTO, "board: ");
    *a.hdr = good;
    a.hdr->n_slots = UINT32_MAX;
    assert_fails(board_attach(&b, dup(a.segment.fd), &e), e, ERR_PROTO, "board: ");
    *a.hdr = good;
    a.hdr->slot_bytes = sizeof(struct board_slot) - 64;
    assert_fails(board_attach(&b, dup(a.segment.fd), &e), e, ERR_PROTO, "board: ");
    *a.hdr = good;
    a.hdr->slot_bytes -= 4; /* slots would not be aligned */
    assert_fails(board_attach(&b, dup(a.segment.fd), &e), e, ERR_PROTO, "board: ");
    *a.hdr = good;
    a.hdr->tp_size = 3; /* rank slots past the last one */
    assert_fails(board_attach(&b, dup(a.segment.fd), &e), e, ERR_PROTO, "board: ");
    *a.hdr = good;
    assert_ok(board_attach(&b, dup(a.segment.fd), &e), e);
    board_close(&b);
    board_close(&a);
}

static void reach_outside(void *arg)
{
    struct board *b = arg;

    board_slot(b, b->hdr->n_slots);
}

static void board_slot_outside_is_a_bug(void **state)
{
    struct board a;
    struct err e;

    (void)state;
    assert_ok(board_create(&a, 1, 1, 77, &e), e);
    assert_aborts(reach_outside, &a);
    board_close(&a);
}

static void board_state_names_are_all_different(void **state)
{
    (void)state;
    for (int i = 0; i < N_PROCESS_STATES; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(process_state_name(i), process_state_name(k));
    assert_string_equal(process_state_name(PROCESS_READY), "ready");
    assert_string_equal(process_state_name(N_PROCESS_STATES), "?");
}

static void board_log_keeps_the_last_lines(void **state)
{
    static char lines[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES];
    char line[600];
    struct board a;
    struct err e;

    (void)state;
    assert_ok(board_create(&a, 1, 1, 77, &e), e);
    assert_int_equal(board_log_read(board_slot(&a, 1), lines), 0);
    board_log_line(board_slot(&a, 1), "one", 3);
    assert_int_equal(board_log_read(board_slot(&a, 1), lines), 1);
    assert_string_equal(lines[0], "one");
    for (int i = 0; i < 100; i++)
        board_log_line(board_slot(&a, 1), line, (size_t)snprintf(line, sizeof line, "line %d", i));
    assert_int_equal(board_log_read(board_slot(&a, 1), lines), BOARD_LOG_LINES);
    assert_string_equal(lines[0], "line 68");
    assert_string_equal(lines[BOARD_LOG_LINES - 1], "line 99");
    memset(line, 'x', sizeof line);
    board_log_line(board_slot(&a, 1), line, sizeof line);
    board_log_read(board_slot(&a, 1), lines);
    assert_int_equal(strlen(lines[BOARD_LOG_LINES - 1]), BOARD_LOG_LINE_BYTES - 1);
    assert_int_equal(board_log_read(board_slot(&a, 2), lines), 0);
    board_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(board_log_keeps_the_last_lines),
        cmocka_unit_test(board_slots_are_apart_and_shared),
        cmocka_unit_test(board_ranks_follow_the_gateway_group_by_group),
        cmocka_unit_test(board_attach_refuses_numbers_that_do_not_fit),
        cmocka_unit_test(board_slot_outside_is_a_bug),
        cmocka_unit_test(board_state_names_are_all_different),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
