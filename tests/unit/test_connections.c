/* test_connections.c - a slot given to two connections would mix two clients' answers after a
 * crash; a leaked one would, in time, keep clients out. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proto/connections.h"

enum { N_SLOTS = 64, N_THREADS = 4, ROUNDS = 2000 };

static void connections_are_claimed_once_and_cleared(void **state)
{
    struct connections c;
    struct err e;

    (void)state;
    assert_true(connections_create(&c, 3, 1 << 20, 7, &e));
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(connections_claim(&c, 0, i, 100 + i), i);
    assert_int_equal(connections_claim(&c, 0, 9, 1), CONNECTIONS_NO_SLOT);
    connections_record(&c, 1)->n_sequences = 4;
    connections_record(&c, 1)->answer_start = 99;
    connection_set_state(connections_record(&c, 1), CONNECTION_ANSWERING);
    assert_int_equal(connections_count(&c), 3);
    connections_release(&c, 1);
    assert_int_equal(connections_count(&c), 2);
    assert_int_equal(connections_claim(&c, 2, 5, 42), 1);
    assert_int_equal(connections_record(&c, 1)->generation, 2);
    assert_int_equal(connections_record(&c, 1)->n_sequences, 0);
    assert_int_equal(connections_record(&c, 1)->answer_start, 0);
    assert_int_equal(connections_record(&c, 1)->thread, 5);
    assert_int_equal(connections_record(&c, 1)->opened_ns, 42);
    connections_close(&c);
}

static void connections_attach_sees_the_same_records(void **state)
{
    struct connections a, b;
    struct err e;

    (void)state;
    assert_true(connections_create(&a, 10, 0, 7, &e));
    assert_int_equal(connections_claim(&a, 4, 1, 1), 4);
    assert_true(connections_attach(&b, dup(a.segment.fd), &e));
    assert_int_equal(b.hdr->n_slots, 10);
    assert_int_equal(connection_state(connections_record(&b, 4)), CONNECTION_IDLE);
    assert_string_equal(connection_state_name(CONNECTION_ANSWERING), "answering");
    connections_close(&b);
    a.hdr->n_slots = 1 << 30; /* a header that lies about its size */
    assert_false(connections_attach(&b, dup(a.segment.fd), &e));
    assert_int_equal(e.code, ERR_PROTO);
    connections_close(&a);
}

struct claimer {
    struct connections *c;
    uint32_t thread;
    _Atomic int *owner; /* [N_SLOTS] threads that believe they own it */
    int clashes;
};

static void *claim_and_release(void *arg)
{
    struct claimer *me = arg;

    for (int i = 0; i < ROUNDS; i++) {
        uint32_t slot = connections_claim(me->c, (uint32_t)i, me->thread, 1);
        if (slot == CONNECTIONS_NO_SLOT)
            continue;
        me->clashes += atomic_fetch_add(&me->owner[slot], 1) != 0;
        me->clashes += connections_record(me->c, slot)->thread != me->thread;
        atomic_fetch_sub(&me->owner[slot], 1);
        connections_release(me->c, slot);
    }
    return NULL;
}

static void connections_are_never_shared_by_threads(void **state)
{
    static _Atomic int owner[N_SLOTS];
    struct claimer claimers[N_THREADS];
    pthread_t threads[N_THREADS];
    struct connections c;
    struct err e;

    (void)state;
    assert_true(
        connections_create(&c, 2, 0, 7, &e)); /* fewer slots than threads: they must collide */
    for (uint32_t i = 0; i < N_THREADS; i++) {
        claimers[i] = (struct claimer){ .c = &c, .thread = i, .owner = owner };
        assert_int_equal(pthread_create(&threads[i], NULL, claim_and_release, &claimers[i]), 0);
    }
    for (uint32_t i = 0; i < N_THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(claimers[i].clashes, 0);
    }
    assert_int_equal(connections_count(&c), 0);
    connections_close(&c);
}

/* ---- the journal's blocks ---- */

static _Atomic uint32_t owners[8];

static void *take_and_free(void *arg)
{
    const struct connections *c = arg;
    static _Atomic uint32_t next_slot;
    uint32_t slot = atomic_fetch_add(&next_slot, 1) % N_THREADS;

    for (int i = 0; i < ROUNDS; i++) {
        uint32_t block = connections_take_block(c, (uint32_t)i, slot, (uint64_t)i);
        if (block == CONNECTIONS_NO_BLOCK)
            continue;
        if (atomic_fetch_add(&owners[block], 1) != 0 ||
            atomic_load(&connections_owner(c, block)->place) != (uint64_t)i + 1)
            abort();
        connections_block(c, block)[0] = (char)i;
        atomic_fetch_sub(&owners[block], 1);
        connections_free_block(c, block);
    }
    return NULL;
}

static void blocks_are_never_shared_by_threads(void **state)
{
    pthread_t threads[N_THREADS];
    struct connections c;
    struct err e;

    (void)state;
    assert_true(connections_create(&c, N_THREADS, 2 * CONNECTIONS_BLOCK_BYTES, 7, &e));
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_free, &c), 0);
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(connections_blocks_used(&c), 0);
    connections_close(&c);
}

/* The owner's number of lives is in its word: what a dead client has left is nobody's. */
static void blocks_of_an_earlier_life_have_another_owner(void **state)
{
    struct connections c;
    struct err e;
    uint32_t block;

    (void)state;
    assert_true(connections_create(&c, 1, 1 << 20, 7, &e));
    assert_int_equal(connections_claim(&c, 0, 0, 1), 0);
    block = connections_take_block(&c, 60, 0, 5);
    assert_int_equal(block, 60);
    assert_int_equal(atomic_load(&connections_owner(&c, block)->owner),
                     connections_owner_word(&c, 0));
    connections_release(&c, 0);
    assert_int_equal(connections_claim(&c, 0, 0, 1), 0);
    assert_int_not_equal(atomic_load(&connections_owner(&c, block)->owner),
                         connections_owner_word(&c, 0));
    connections_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(connections_are_claimed_once_and_cleared),
        cmocka_unit_test(connections_attach_sees_the_same_records),
        cmocka_unit_test(connections_are_never_shared_by_threads),
        cmocka_unit_test(blocks_are_never_shared_by_threads),
        cmocka_unit_test(blocks_of_an_earlier_life_have_another_owner),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
