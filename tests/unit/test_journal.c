/* test_journal.c - a byte that the journal calls kept and that is not there would be a request answered for
 * something the client never sent; a block that is never given back is memory lost for all. */
#include <stdio.h>

#include "tests/check.h"

#include "gateway/takeover/journal.h"

enum { B = CONNECTIONS_BLOCK_BYTES, N_BLOCKS = 4 };

static struct connections c;

static void open_segment(uint32_t n_blocks)
{
    struct err e;

    assert_ok(connections_create(&c, 3, (uint64_t)n_blocks * B, 7, &e), e);
    assert_int_equal(c.hdr->n_blocks, n_blocks);
}

/* Receive n bytes whose values tell their positions. */
static bool receive(struct journal *j, size_t n)
{
    while (n > 0) {
        size_t room;
        char *to = journal_room(j, &room);
        if (!to)
            return false;
        assert_in_range(room, 1, B);
        room = room < n ? room : n;
        for (size_t i = 0; i < room; i++)
            to[i] = (char)((j->in_seen + i) % 251);
        journal_input(j, room);
        n -= room;
    }
    return true;
}

static void expect_kept(const struct journal *j, uint64_t from, uint64_t to)
{
    const char *bytes;
    size_t n;

    for (uint64_t at = from; at < to; at += n) {
        n = journal_peek(j, at, &bytes);
        assert_true(n > 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(bytes[i], (char)((at + i) % 251));
    }
    assert_int_equal(journal_peek(j, to, &bytes), 0);
}

static void what_came_is_kept_until_it_is_used(void **state)
{
    struct journal j;

    (void)state;
    open_segment(N_BLOCKS);
    journal_init(&j, &c, 1, 0);
    assert_true(receive(&j, 3 * B - 5));
    assert_int_equal(connections_blocks_used(&c), 3);
    expect_kept(&j, 0, 3 * B - 5);
    journal_used(&j, B - 1);
    assert_int_equal(connections_blocks_used(&c), 3);
    journal_used(&j, B);
    assert_int_equal(connections_blocks_used(&c), 2);
    expect_kept(&j, B, 3 * B - 5);
    assert_true(receive(&j, 10));
    expect_kept(&j, B, 3 * B + 5);
    journal_fini(&j);
    assert_int_equal(connections_blocks_used(&c), 0);
    connections_close(&c);
}

static void an_idle_connection_holds_no_block(void **state)
{
    struct journal j;
    size_t room;

    (void)state;
    open_segment(N_BLOCKS);
    journal_init(&j, &c, 0, 0);
    assert_true(receive(&j, 100));
    journal_used(&j, 100);
    assert_int_equal(connections_blocks_used(&c), 0);
    assert_non_null(journal_room(&j, &room)); /* readable, they said, */
    journal_input(&j, 0);                     /* and nothing came */
    assert_int_equal(connections_blocks_used(&c), 0);
    assert_true(receive(&j, 2 * B));
    expect_kept(&j, 100, 100 + 2 * B);
    journal_fini(&j);
    connections_close(&c);
}

static void a_full_journal_says_so_and_has_room_again(void **state)
{
    struct journal a, b;
    size_t room;

    (void)state;
    open_segment(N_BLOCKS);
    journal_init(&a, &c, 0, 0);
    journal_init(&b, &c, 1, 0);
    assert_false(receive(&a, N_BLOCKS * B + 1));
    assert_null(journal_room(&b, &room));
    journal_used(&a, 2 * B);
    assert_true(receive(&b, 2 * B));
    expect_kept(&a, 2 * B, N_BLOCKS * B);
    expect_kept(&b, 0, 2 * B);
    journal_fini(&a);
    journal_fini(&b);
    assert_int_equal(connections_blocks_used(&c), 0);
    connections_close(&c);
    open_segment(0);
    journal_init(&a, &c, 0, 0);
    assert_null(journal_room(&a, &room));
    journal_fini(&a);
    connections_close(&c);
}

/* As the successor does: from the owner words alone. */
static void blocks_are_found_again_by_their_owner(void **state)
{
    struct journal j, again;

    (void)state;
    open_segment(N_BLOCKS);
    journal_init(&j, &c, 2, 0);
    assert_true(receive(&j, 3 * B + 7));
    journal_used(&j, B + 9);
    journal_init(&again, &c, 2, B + 9);
    for (uint64_t index = 1; index < 4; index++)
        for (uint32_t block = 0; block < N_BLOCKS; block++) {
            struct connections_owner *o = connections_owner(&c, block);
            if (atomic_load(&o->owner) == connections_owner_word(&c, 2) &&
                atomic_load(&o->place) == index + 1)
                journal_add_block(&again, block, index);
        }
    journal_set_seen(&again, 3 * B + 7);
    expect_kept(&again, B + 9, 3 * B + 7);
    assert_true(receive(&again, 100));
    expect_kept(&again, B + 9, 3 * B + 107);
    journal_fini(&again);
    free(j.blocks); /* they are the other's now */
    assert_int_equal(connections_blocks_used(&c), 0);
    connections_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_came_is_kept_until_it_is_used),
        cmocka_unit_test(an_idle_connection_holds_no_block),
        cmocka_unit_test(a_full_journal_says_so_and_has_room_again),
        cmocka_unit_test(blocks_are_found_again_by_their_owner),
    };

    return cmocka_run_group_tests_name("journal", tests, NULL, NULL);
}
