/* test_fair_queue.c - if this breaks, one busy key makes all others wait, or a key that paid for more gets no more.
 *
 * The service here is a loop: whoever is taken out is served its prompt and so many tokens, at once. */
#include "gateway/admission/fair_queue.h"

#include "tests/check.h"

enum { A = KEY_FIRST, B, C, WAITERS = 4000 };

static struct key_record records[KEYS_MAX];
static struct fair_queue q;
static struct fair_waiter waiters[WAITERS];
static uint32_t n_used;
static uint64_t served[KEYS_MAX]; /* tokens, a generated one counted twice */

static int set_up(void **state)
{
    (void)state;
    memset(records, 0, sizeof records);
    memset(served, 0, sizeof served);
    n_used = 0;
    for (int k = 0; k < KEYS_MAX; k++)
        atomic_store(&records[k].weight, 1);
    fair_queue_init(&q, records, 1);
    return 0;
}

static struct fair_waiter *push(uint32_t key, uint32_t prompt, int32_t priority)
{
    struct fair_waiter *w = &waiters[n_used++];

    assert_true(n_used <= WAITERS);
    *w = (struct fair_waiter){
        .key = key, .priority = priority, .n_sequences = 1, .prompt_tokens = prompt
    };
    fair_queue_push(&q, w);
    return w;
}

/* Serve the next one `n` tokens; its key, or KEYS_MAX. */
static uint32_t serve(uint32_t n)
{
    struct fair_waiter *w = fair_queue_next(&q, false);

    if (!w)
        return KEYS_MAX;
    fair_charge(&records[w->key], 0, n);
    served[w->key] += w->prompt_tokens + 2 * n;
    fair_queue_done(&q, w->n_sequences);
    return w->key;
}

static void requests_of_one_key_go_in_their_order(void **state)
{
    struct fair_waiter *first = push(A, 5, 0), *second = push(A, 5, 0), *urgent = push(A, 5, -1),
                       *late = push(A, 5, 7), *third = push(A, 5, 0);

    (void)state;
    q.room = 10;
    assert_ptr_equal(fair_queue_next(&q, false), urgent);
    assert_ptr_equal(fair_queue_next(&q, false), first);
    assert_ptr_equal(fair_queue_next(&q, false), second);
    assert_ptr_equal(fair_queue_next(&q, false), third);
    assert_ptr_equal(fair_queue_next(&q, false), late);
    assert_null(fair_queue_next(&q, false));
    assert_int_equal(q.n_waiting, 0);
}

/* Without keys all are one key: first come, first served. */
static void keys_that_had_the_same_go_in_the_order_of_coming(void **state)
{
    (void)state;
    push(B, 0, 0);
    push(A, 0, 0);
    push(C, 0, 0);
    assert_int_equal(serve(0), B);
    assert_int_equal(serve(0), A);
    assert_int_equal(serve(0), C);
}

/* A has a thousand requests waiting, B comes with one: it has had as much as A, and waits for one at most. */
static void a_flood_of_one_key_does_not_delay_another(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++)
        push(A, 10, 0);
    for (int i = 0; i < 50; i++)
        assert_int_equal(serve(100), A);
    push(B, 10, 0);
    assert_int_equal(serve(100), A); /* it was there first */
    assert_int_equal(serve(100), B);
    assert_int_equal(serve(100), A);
}

static double share_of(uint32_t key)
{
    uint64_t sum = 0;

    for (int k = 0; k < KEYS_MAX; k++)
        sum += served[k];
    return (double)served[key] / (double)sum;
}

/* Long answers against short ones, and weights 1 : 3: tokens are shared by weight, not requests. */
static void tokens_are_shared_by_weight(void **state)
{
    (void)state;
    atomic_store(&records[B].weight, 3);
    for (int i = 0; i < 1500; i++) {
        push(A, 400, 0);
        push(B, 20, 0);
    }
    for (int i = 0; i < 1000; i++)
        serve(i % 2 ? 90 : 30);
    assert_true(share_of(B) > 0.70 && share_of(B) < 0.80);
}

/* Who was idle for an hour has saved up nothing. */
static void idleness_earns_nothing(void **state)
{
    uint32_t n_b = 0;

    (void)state;
    for (int i = 0; i < 1000; i++)
        push(A, 100, 0);
    for (int i = 0; i < 500; i++)
        serve(100);
    for (int i = 0; i < 500; i++)
        push(B, 100, 0);
    for (int i = 0; i < 100; i++)
        n_b += serve(100) == B;
    assert_in_range(n_b, 49, 51);
}

/* ... also when nobody was waiting as it came. */
static void the_last_one_to_go_sets_the_level(void **state)
{
    uint32_t n_b = 0;

    (void)state;
    for (int i = 0; i < 100; i++) {
        push(A, 100, 0);
        serve(100);
    }
    for (int i = 0; i < 100; i++)
        push(B, 100, 0);
    for (int i = 0; i < 100; i++)
        push(A, 100, 0);
    for (int i = 0; i < 40; i++)
        n_b += serve(100) == B;
    assert_in_range(n_b, 19, 22);
}

static void a_smaller_class_goes_first_whatever_it_had(void **state)
{
    (void)state;
    atomic_store(&records[C].priority, -1);
    atomic_store(&records[B].priority, 1);
    fair_charge(&records[C], 1 << 20, 1 << 20);
    push(B, 1, -5); /* its own wish is no matter between keys */
    push(A, 1, 0);
    push(C, 1, 0);
    push(C, 1, 0);
    assert_int_equal(serve(1000), C);
    assert_int_equal(serve(1000), C);
    assert_int_equal(serve(1000), A);
    assert_int_equal(serve(1000), B);
}

static void room_is_for_sequences_and_a_large_request_gets_in(void **state)
{
    struct fair_waiter *big;

    (void)state;
    q.room = 4;
    big = push(A, 1, 0);
    big->n_sequences = 16;
    push(A, 1, 0);
    assert_ptr_equal(fair_queue_next(&q, false), big);
    assert_null(fair_queue_next(&q, false));
    assert_non_null(fair_queue_next(&q, true)); /* nobody serves: no reason to wait */
    fair_queue_done(&q, 16);
    fair_queue_done(&q, 1);
    assert_int_equal(q.n_going, 0);
    fair_queue_go(&q, 5); /* of a dead gateway: more than there is room for */
    push(A, 1, 0);
    assert_null(fair_queue_next(&q, false));
    fair_queue_done(&q, 5);
    assert_non_null(fair_queue_next(&q, false));
}

static void who_gives_up_is_out(void **state)
{
    struct fair_waiter *one = push(A, 1, 0), *two = push(A, 1, 0), *other = push(B, 1, 0);

    (void)state;
    fair_queue_remove(&q, one);
    fair_queue_remove(&q, other);
    assert_int_equal(q.n_keys, 1);
    assert_ptr_equal(fair_queue_next(&q, false), two);
    assert_int_equal(q.n_keys, 0);
    assert_int_equal(q.n_waiting, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, set_up)
    const struct CMUnitTest tests[] = {
        TEST(requests_of_one_key_go_in_their_order),
        TEST(keys_that_had_the_same_go_in_the_order_of_coming),
        TEST(a_flood_of_one_key_does_not_delay_another),
        TEST(tokens_are_shared_by_weight),
        TEST(idleness_earns_nothing),
        TEST(the_last_one_to_go_sets_the_level),
        TEST(a_smaller_class_goes_first_whatever_it_had),
        TEST(room_is_for_sequences_and_a_large_request_gets_in),
        TEST(who_gives_up_is_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
