/* test_admission.c - if this breaks, permits leak until nobody is let in, a limit is none, or a request waits for a
 * turn that never comes.  Time is what the test says; the last tests have threads. */
#include "gateway/admission/admission.h"

#include <pthread.h>
#include <stdio.h>

#include "common/buf.h"
#include "common/clock.h"
#include "tests/check.h"

#define T0  (1000 * NS_PER_S)
#define HEX "00000000000000000000000000000000000000000000000000000000000000"

static struct stats stats;
static struct admission a;
static char path[] = "/tmp/llmd-test-keys-XXXXXX";

static void write_keys(const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static bool load(const char *text, struct err *e)
{
    write_keys(text);
    return key_table_load(&a.keys, "", path, e);
}

static int set_up(void **state)
{
    int fd;

    (void)state;
    strcpy(path + strlen(path) - 6, "XXXXXX");
    fd = mkstemp(path);
    if (fd < 0)
        return -1;
    close(fd);
    memset(&stats, 0, sizeof stats);
    admission_init(&a, 2, NULL, &stats);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    admission_fini(&a);
    return unlink(path);
}

static enum admission_refusal take(uint32_t key, uint64_t now_ns)
{
    return admission_take(&a, key, now_ns).why;
}

static void give(uint32_t key)
{
    admission_answered(&a, key);
    admission_give(&a, 1);
}

/* The key whose hash is of this text. */
static uint32_t find(const char *text)
{
    return key_table_find(&a.keys, text, strlen(text));
}

static void line_of(struct buf *out, const char *name, const char *text, const char *options)
{
    uint8_t hash[SECRET_HASH_BYTES];
    char hex[SECRET_HEX_BYTES];

    secret_hash(text, strlen(text), hash);
    secret_hash_hex(hash, hex);
    buf_printf(out, "%s sha256:%s %s\n", name, hex, options);
}

/* ---- permits ---- */

static void permits_are_counted(void **state)
{
    (void)state;
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_OK);
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_OK);
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_FULL);
    admission_set_max(&a, 3);
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_OK);
    assert_int_equal(stat_get(&stats, STAT_requests_active), 3);
    admission_take_over(&a, KEY_NOBODY); /* a dead gateway had let it in */
    assert_int_equal(admission_taken(&a), 4);
    for (int i = 0; i < 4; i++)
        give(KEY_NOBODY);
    assert_int_equal(stat_get(&stats, STAT_requests_active), 0);
    assert_int_equal(admission_taken(&a), 0);
}

/* A request with several takes all of them or none. */
static void several_permits_are_taken_together(void **state)
{
    (void)state;
    admission_set_max(&a, 4);
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_OK);
    assert_false(admission_take_more(&a, 4, false));
    assert_int_equal(admission_taken(&a), 1);
    assert_true(admission_take_more(&a, 3, false));
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_FULL);
    assert_true(admission_take_more(&a, 2, true)); /* a dead gateway had taken them */
    assert_int_equal(admission_taken(&a), 6);
    assert_int_equal(stat_get(&stats, STAT_requests_active), 1);
    admission_answered(&a, KEY_NOBODY);
    admission_give(&a, 6);
    assert_int_equal(admission_taken(&a), 0);
    assert_int_equal(stat_get(&stats, STAT_requests_active), 0);
}

static void the_setting_may_hold_several_keys(void **state)
{
    struct err e;

    (void)state;
    assert_ok(key_table_load(&a.keys, "one  two\tthree ", "", &e), e);
    assert_int_equal(find("one"), KEY_SETTING);
    assert_int_equal(find("two"), KEY_SETTING);
    assert_int_equal(find("three"), KEY_SETTING);
    assert_int_equal(find("one  two"), KEY_UNKNOWN);
    assert_int_equal(find(""), KEY_UNKNOWN);
    assert_fails(key_table_load(&a.keys, "1 2 3 4 5 6 7 8 9", "", &e), e, ERR_CONFIG,
                 "api_key has more than 8 keys");
    assert_ok(key_table_load(&a.keys, "", "", &e), e);
    assert_int_equal(find("one"), KEY_UNKNOWN);
}

static void limits_of_a_key_are_its_own(void **state)
{
    struct admission_answer answer;
    struct buf text = { 0 };
    uint32_t alice, bob;
    struct err e;

    (void)state;
    admission_set_max(&a, 1000);
    line_of(&text, "alice", "ka", "rpm=2 concurrency=2");
    line_of(&text, "bob", "kb", "tpm=100");
    assert_ok(load(text.data, &e), e);
    alice = find("ka");
    bob = find("kb");
    assert_int_equal(take(alice, T0), ADMISSION_OK);
    assert_int_equal(take(alice, T0), ADMISSION_OK);
    answer = admission_take(&a, alice, T0);
    assert_int_equal(answer.why, ADMISSION_CONCURRENCY);
    assert_int_equal(answer.limit, 2);
    give(alice);
    answer = admission_take(&a, alice, T0);
    assert_int_equal(answer.why, ADMISSION_REQUESTS);
    assert_in_range(answer.wait_ns, 29 * NS_PER_S, 30 * NS_PER_S);
    assert_int_equal(take(alice, T0 + answer.wait_ns), ADMISSION_OK);

    assert_int_equal(take(bob, T0), ADMISSION_OK);
    admission_charge_prompt(&a, bob, 60, T0);
    assert_int_equal(take(bob, T0), ADMISSION_OK);
    admission_charge_generated(&a, bob, 100, T0);
    answer = admission_take(&a, bob, T0);
    assert_int_equal(answer.why, ADMISSION_TOKENS);
    assert_int_equal(answer.limit, 100);
    assert_int_equal(atomic_load(&key_table_record(&a.keys, alice)->n_requests), 3);
    assert_int_equal(atomic_load(&key_table_record(&a.keys, alice)->n_limited), 2);
    assert_int_equal(atomic_load(&key_table_record(&a.keys, bob)->n_generated_tokens), 100);
    assert_int_equal(admission_taken(&a), 4); /* who was refused has no permit */
    buf_fini(&text);
}

/* Its client may ask again as soon as it has the answer, however slowly the connection ends. */
static void an_answered_request_is_none_of_its_keys(void **state)
{
    struct buf text = { 0 };
    struct err e;

    (void)state;
    line_of(&text, "alice", "ka", "concurrency=1");
    assert_ok(load(text.data, &e), e);
    assert_int_equal(take(find("ka"), T0), ADMISSION_OK);
    admission_answered(&a, find("ka"));
    assert_int_equal(take(find("ka"), T0), ADMISSION_OK);
    assert_int_equal(take(KEY_NOBODY, T0), ADMISSION_FULL); /* both still have their permits */
    admission_give(&a, 1);
    give(find("ka"));
    buf_fini(&text);
}

/* One key alone may have the whole house; with others about, it leaves room. */
static void a_flood_leaves_room_for_other_keys(void **state)
{
    struct buf text = { 0 };
    uint32_t n = 0, m = 0;
    struct err e;

    (void)state;
    admission_set_max(&a, 100);
    line_of(&text, "alice", "ka", "");
    assert_ok(load(text.data, &e), e);
    while (take(find("ka"), T0) == ADMISSION_OK)
        n++;
    assert_int_equal(n, 100);
    while (n > 0)
        give(find("ka")), n--;
    line_of(&text, "bob", "kb", "");
    assert_ok(load(text.data, &e), e);
    while (take(find("ka"), T0) == ADMISSION_OK)
        n++;
    assert_int_equal(n, 80);
    assert_int_equal(take(find("ka"), T0), ADMISSION_SHARE);
    while (take(find("kb"), T0) == ADMISSION_OK)
        m++;
    assert_int_equal(m, 16);
    buf_fini(&text);
}

/* ---- keys ---- */

static void a_reload_keeps_what_a_name_has_used(void **state)
{
    struct buf text = { 0 };
    char name[KEY_NAME_BYTES];
    uint32_t alice;
    struct err e;

    (void)state;
    line_of(&text, "alice", "old", "rpm=1");
    line_of(&text, "bob", "kb", "");
    assert_ok(load(text.data, &e), e);
    alice = find("old");
    assert_int_equal(take(alice, T0), ADMISSION_OK);
    buf_clear(&text);
    line_of(&text, "carol", "kc", "");
    line_of(&text, "alice", "new", "rpm=1");
    assert_ok(load(text.data, &e), e);
    assert_int_equal(find("new"), alice);
    assert_int_equal(find("old"), KEY_UNKNOWN);
    assert_int_equal(find("kb"), KEY_UNKNOWN);
    assert_int_equal(take(alice, T0), ADMISSION_REQUESTS);
    key_table_name(&a.keys, find("kc"), name);
    assert_string_equal(name, "carol");
    give(alice);
    buf_fini(&text);
}

static void a_broken_file_changes_no_key(void **state)
{
    struct buf text = { 0 };
    struct err e;

    (void)state;
    line_of(&text, "alice", "ka", "");
    assert_ok(load(text.data, &e), e);
    assert_fails(load("alice sha256:" HEX, &e), e, ERR_CONFIG, "line 1");
    assert_int_not_equal(find("ka"), KEY_UNKNOWN);
    assert_true(key_table_has_file_keys(&a.keys));
    assert_ok(load("# nobody\n", &e), e);
    assert_int_equal(find("ka"), KEY_UNKNOWN);
    assert_true(atomic_load(&a.keys.asks)); /* an empty file lets nobody in */
    assert_ok(key_table_load(&a.keys, "", "", &e), e);
    assert_false(atomic_load(&a.keys.asks));
    buf_fini(&text);
}

static void the_setting_is_a_key_beside_the_file(void **state)
{
    struct buf text = { 0 };
    struct err e;

    (void)state;
    line_of(&text, "alice", "ka", "");
    write_keys(text.data);
    assert_ok(key_table_load(&a.keys, "secret", path, &e), e);
    assert_int_equal(find("secret"), KEY_SETTING);
    assert_int_equal(find("ka"), KEY_FIRST);
    assert_int_equal(find("Secret"), KEY_UNKNOWN);
    assert_int_equal(find(""), KEY_UNKNOWN);
    assert_ok(key_table_load(&a.keys, "", path, &e), e);
    assert_int_equal(find("secret"), KEY_UNKNOWN);
    buf_fini(&text);
}

/* ---- turns ---- */

static _Atomic uint32_t n_wakes;

static void count_wake(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&n_wakes, 1);
}

static bool wait_turn(struct turn *t, struct turn_gate *gate, uint32_t key)
{
    *t = (struct turn){ .gate = gate, .owner = t };
    t->waiter.key = key;
    t->waiter.n_sequences = 1;
    return admission_wait(&a, t, T0);
}

static void turns_come_through_the_gate(void **state)
{
    struct turn_gate gate;
    struct turn t[4];

    (void)state;
    turn_gate_init(&gate, count_wake, NULL);
    atomic_store(&n_wakes, 0);
    admission_set_room(&a, 1);
    assert_true(wait_turn(&t[0], &gate, KEY_NOBODY));
    for (int i = 1; i < 4; i++)
        assert_false(wait_turn(&t[i], &gate, KEY_NOBODY));
    assert_int_equal(stat_get(&stats, STAT_requests_queued), 3);
    admission_leave(&a, &t[2]); /* its client is gone */
    admission_leave(&a, &t[2]);
    assert_null(admission_called(&a, &gate));
    admission_leave(&a, &t[0]);
    assert_int_equal(atomic_load(&n_wakes), 1);
    admission_leave(&a, &t[1]); /* gone between the call and its hearing: the next is called */
    assert_ptr_equal(admission_called(&a, &gate), &t[3]);
    assert_null(admission_called(&a, &gate));
    admission_leave(&a, &t[3]);
    assert_int_equal(a.queue.n_going, 0);
    assert_int_equal(stat_get(&stats, STAT_requests_queued), 0);
}

static void nobody_waits_while_nobody_serves(void **state)
{
    struct turn_gate gate;
    struct turn t[3];

    (void)state;
    turn_gate_init(&gate, count_wake, NULL);
    admission_set_room(&a, 1);
    assert_true(wait_turn(&t[0], &gate, KEY_NOBODY));
    assert_false(wait_turn(&t[1], &gate, KEY_NOBODY));
    admission_set_served(&a, false);
    assert_ptr_equal(admission_called(&a, &gate), &t[1]);
    assert_true(wait_turn(&t[2], &gate, KEY_NOBODY));
    admission_set_served(&a, true);
    for (int i = 0; i < 3; i++)
        admission_leave(&a, &t[i]);
    assert_int_equal(a.queue.n_going, 0);
}

/* ---- threads: each as a gateway thread with its gate ---- */

enum { THREADS = 4, ROUNDS = 3000, ROOM = 3 };

struct worker {
    struct turn_gate gate;
    pthread_mutex_t lock;
    pthread_cond_t woken;
    bool is_woken;
    unsigned seed;
    uint32_t n_gone;
};

static _Atomic int n_inside;

static void wake_worker(void *ctx)
{
    struct worker *w = ctx;

    pthread_mutex_lock(&w->lock);
    w->is_woken = true;
    pthread_cond_signal(&w->woken);
    pthread_mutex_unlock(&w->lock);
}

static void sleep_until_woken(struct worker *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->is_woken)
        pthread_cond_wait(&w->woken, &w->lock);
    w->is_woken = false;
    pthread_mutex_unlock(&w->lock);
}

static void one_request(struct worker *w, uint32_t key)
{
    struct turn t;

    while (take(key, T0) != ADMISSION_OK)
        sched_yield();
    if (!wait_turn(&t, &w->gate, key)) {
        if (rand_r(&w->seed) % 4 == 0) { /* its client leaves */
            admission_leave(&a, &t);
            give(key);
            return;
        }
        while (admission_called(&a, &w->gate) != &t)
            sleep_until_woken(w);
    }
    assert_true(atomic_fetch_add(&n_inside, 1) < ROOM);
    admission_charge_generated(&a, key, 5, T0);
    w->n_gone++;
    atomic_fetch_sub(&n_inside, 1);
    admission_leave(&a, &t);
    give(key);
}

static void *run(void *arg)
{
    struct worker *w = arg;

    for (int i = 0; i < ROUNDS; i++)
        one_request(w, KEY_FIRST + (uint32_t)rand_r(&w->seed) % 3);
    return NULL;
}

static void threads_share_permits_and_turns(void **state)
{
    static struct worker workers[THREADS];
    pthread_t threads[THREADS];
    struct err e;

    (void)state;
    admission_set_max(&a, THREADS - 1);
    admission_set_room(&a, ROOM - 1); /* a last one gets in by the last room */
    for (unsigned i = 0; i < THREADS; i++) {
        struct worker *w = &workers[i];
        *w = (struct worker){ .seed = i + 1 };
        pthread_mutex_init(&w->lock, NULL);
        pthread_cond_init(&w->woken, NULL);
        turn_gate_init(&w->gate, wake_worker, w);
        assert_int_equal(pthread_create(&threads[i], NULL, run, w), 0);
    }
    for (int i = 0; i < 50; i++) /* an operator's reload, meanwhile */
        assert_ok(key_table_load(&a.keys, i % 2 ? "secret" : "", "", &e), e);
    for (unsigned i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_true(workers[i].n_gone > 0);
        pthread_cond_destroy(&workers[i].woken);
        pthread_mutex_destroy(&workers[i].lock);
    }
    assert_int_equal(admission_taken(&a), 0);
    assert_int_equal(a.queue.n_going, 0);
    assert_int_equal(a.queue.n_waiting, 0);
    assert_int_equal(stat_get(&stats, STAT_requests_queued), 0);
    for (int k = 0; k < KEYS_MAX; k++)
        assert_int_equal(atomic_load(&a.keys.n_requests[k]), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(permits_are_counted),
        TEST(several_permits_are_taken_together),
        TEST(the_setting_may_hold_several_keys),
        TEST(limits_of_a_key_are_its_own),
        TEST(an_answered_request_is_none_of_its_keys),
        TEST(a_flood_leaves_room_for_other_keys),
        TEST(a_reload_keeps_what_a_name_has_used),
        TEST(a_broken_file_changes_no_key),
        TEST(the_setting_is_a_key_beside_the_file),
        TEST(turns_come_through_the_gate),
        TEST(nobody_waits_while_nobody_serves),
        TEST(threads_share_permits_and_turns),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
