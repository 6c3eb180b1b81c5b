/* test_requests.c - what llmd tells of a ledger that its worker writes.  If this breaks, an operator looks for a
 * poisoned request in vain, or the answer is too long for its message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "supervisor/requests.h"

#define NOW (1000 * NS_PER_S)

static struct ledger ledger;
static struct arena arena;
static Llmd__CtlReply reply;

static int setup(void **state)
{
    const struct ledger_shape shape = { .n_entries = 1100, .tokens_max = 64, .page_tokens = 16 };
    struct err e;

    (void)state;
    assert_true(ledger_create(&ledger, &shape, 0, 1, &e));
    llmd__ctl_reply__init(&reply);
    reply.requests = arena_alloc(&arena, REQUESTS_MAX * sizeof *reply.requests);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    ledger_close(&ledger);
    arena_fini(&arena);
    return 0;
}

static struct ledger_entry *add(uint32_t at, uint64_t id, uint64_t age_ms)
{
    struct ledger_entry *entry = ledger_entry(&ledger, at);

    entry->sequence_id = id;
    entry->accepted_ns = NOW - age_ms * NS_PER_MS;
    entry->n_prompt = 5;
    atomic_store(&entry->n_generated, 3);
    atomic_store(&entry->state, LEDGER_LIVE);
    return entry;
}

static void live_sequences_come_in_the_order_they_were_accepted(void **state)
{
    struct ledger_entry *entry;

    (void)state;
    add(7, 70, 100);
    entry = add(2, 20, 50);
    entry->scheduled_ns = NOW - 1;
    atomic_store(&entry->n_pages, 4);
    entry->kills = 2;
    add(1, 10, 300)->scheduled_ns = NOW; /* it lost its pages to others */
    requests_add_held(&ledger, 6, NOW, &reply, &arena);
    assert_int_equal(reply.n_requests, 3);
    assert_int_equal(reply.requests[0]->sequence_id, 10);
    assert_int_equal(reply.requests[1]->sequence_id, 70);
    assert_int_equal(reply.requests[2]->sequence_id, 20);
    assert_string_equal(reply.requests[0]->state, "waiting");
    assert_string_equal(reply.requests[1]->state, "waiting");
    assert_string_equal(reply.requests[2]->state, "running");
    assert_int_equal(reply.requests[0]->age_ns, 300 * NS_PER_MS);
    assert_int_equal(reply.requests[2]->group, 6);
    assert_int_equal(reply.requests[2]->n_prompt, 5);
    assert_int_equal(reply.requests[2]->n_generated, 3);
    assert_int_equal(reply.requests[2]->kv_pages, 4);
    assert_int_equal(reply.requests[2]->kills, 2);
    assert_int_equal(reply.requests_left_out, 0);
}

static void the_end_of_a_sequence_is_told_with_its_error(void **state)
{
    struct ledger_entry *entry = add(0, 1, 10);

    (void)state;
    atomic_store(&entry->state, LEDGER_DONE);
    strcpy(entry->error, "left over from another"); /* finish says whether it counts */
    requests_add_held(&ledger, 0, NOW, &reply, &arena);
    assert_string_equal(reply.requests[0]->state, "done");
    assert_string_equal(reply.requests[0]->error, "");
    entry->finish = LLMD__FINISH__FINISH_ERROR;
    memset(entry->error, 'x', sizeof entry->error); /* no end */
    requests_add_held(&ledger, 0, NOW, &reply, &arena);
    assert_int_equal(strlen(reply.requests[1]->error), sizeof entry->error - 1);
}

static void poisoned_ones_stay_visible_the_newest_first(void **state)
{
    struct ledger_suspect s = { .crashes = 2, .n_prompt = 9, .error = "running at 2 crashes" };

    (void)state;
    for (uint32_t i = 0; i < LEDGER_SUSPECTS + 3; i++) {
        s.sequence_id = i;
        s.when_ns = NOW - NS_PER_S;
        ledger_add_suspect(&ledger, &s);
    }
    add(0, 99, 10);
    requests_add_poisoned(&ledger, 0, NOW, &reply, &arena);
    assert_int_equal(reply.n_requests, LEDGER_SUSPECTS);
    assert_string_equal(reply.requests[0]->state, "poisoned");
    assert_int_equal(reply.requests[0]->sequence_id, LEDGER_SUSPECTS + 2);
    assert_int_equal(reply.requests[0]->age_ns, NS_PER_S);
    assert_int_equal(reply.requests[0]->crashes, 2);
    assert_string_equal(reply.requests[0]->error, "running at 2 crashes");
}

static void what_does_not_fit_is_counted(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 1100; i++)
        add(i, i + 1, i);
    requests_add_held(&ledger, 0, NOW, &reply, &arena);
    assert_int_equal(reply.n_requests, REQUESTS_MAX);
    assert_int_equal(reply.requests_left_out, 1100 - REQUESTS_MAX);
    assert_int_equal(reply.requests[0]->sequence_id, 1100); /* the oldest are told */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(live_sequences_come_in_the_order_they_were_accepted),
        TEST(the_end_of_a_sequence_is_told_with_its_error),
        TEST(poisoned_ones_stay_visible_the_newest_first),
        TEST(what_does_not_fit_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
