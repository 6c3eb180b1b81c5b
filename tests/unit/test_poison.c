/* test_poison.c - requests that kill their worker, and those that were only there.  Would break in
 * production: one request takes the worker down for ever, or takes innocent ones with it. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "common/clock.h"
#include "engine_fixture.h"
#include "recovery_rig.h"

/* One poisoned sequence is on record, for the operator. */
static void assert_suspect(const struct recovery *f, uint64_t id, uint32_t n_prompt)
{
    struct ledger_suspect s[LEDGER_SUSPECTS];

    assert_int_equal(stat_get(rig_stats(&f->rig), STAT_sequences_poisoned), 1);
    assert_int_equal(ledger_read_suspects(&f->rig.ledger, s), 1);
    assert_int_equal(s[0].sequence_id, id);
    assert_int_equal(s[0].n_prompt, n_prompt);
    assert_int_equal(s[0].crashes, 2);
    assert_true(s[0].when_ns > 0 && s[0].when_ns <= clock_mono_ns());
    assert_non_null(strstr(s[0].error, "two crashes"));
}

static void a_poison_request_ends_after_two_crashes(void **state)
{
    const int32_t poison[] = { 1, 5, FAKE_POISON, 6 };
    struct recovery f;
    struct client_request bad = client_request(poison, 4, 30), good = endless(30);
    struct client_stream *b, *g;

    (void)state;
    recovery_init(&f, &rig_roomy, 200);
    f.poison = true;
    recovery_kill(&f);
    recovery_start(&f);
    b = client_submit(&f.client, 1, &bad);
    assert_int_equal(recovery_serve(&f), 2);
    assert_int_equal(b->finish, LLMD__FINISH__FINISH_ERROR);
    assert_string_equal(b->text, "this request was running at two crashes of the worker");
    g = client_submit(&f.client, 2, &good);
    assert_int_equal(recovery_serve(&f), 0);
    rig_assert_expected(g, &good);
    recovery_end_well(&f);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 1);
    assert_suspect(&f, 1, 4);
    recovery_fini(&f);
}

static void a_poison_request_takes_nobody_with_it(void **state)
{
    enum { N = 12, POISON = 5 };
    const int32_t poison[] = { 1, 5, FAKE_POISON, 6 };
    struct recovery f;
    struct client_request bad = client_request(poison, 4, 30), good = endless(60);
    int n_deaths;

    (void)state;
    recovery_init(&f, &rig_roomy, 500);
    recovery_kill(&f);
    f.poison = true;
    for (uint32_t i = 0; i < N; i++)
        client_submit(&f.client, 1 + i, i == POISON ? &bad : &good);
    recovery_start(&f); /* finds all of them at once */
    n_deaths = recovery_serve(&f);
    assert_true(n_deaths >= 2 && n_deaths <= 3);
    for (uint32_t i = 0; i < N; i++) {
        if (i != POISON)
            rig_assert_expected(&f.client.streams[i], &good);
        else
            assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_ERROR);
    }
    recovery_end_well(&f);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 1);
    recovery_fini(&f);
}

/* Two deaths in a row before anyone made a token, and nobody is guilty: nobody is punished. */
static void innocent_suspects_all_go_on(void **state)
{
    enum { N = 6 };
    struct recovery f;
    struct client_request r = endless(20);

    (void)state;
    recovery_init(&f, &rig_roomy, 1000);
    for (uint32_t i = 0; i < N; i++)
        client_submit(&f.client, 1 + i, &r);
    recovery_until_tokens(&f, N);
    recovery_kill(&f);
    for (uint32_t i = 0; i < f.rig.ledger.hdr->n_entries; i++) {
        struct ledger_entry *entry = ledger_entry(&f.rig.ledger, i);
        if (atomic_load(&entry->state) == LEDGER_LIVE) {
            entry->crashes = 1;
            atomic_store(&entry->running, LEDGER_FAULTED);
        }
    }
    recovery_start(&f);
    recovery_until_over(&f);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    recovery_end_well(&f);
    recovery_fini(&f);
}

/* A step that never ends is killed from outside, again and again: in the end it is the request. */
static void a_request_that_hangs_every_time_is_ended(void **state)
{
    struct recovery f;
    struct client_request r = endless(50);
    struct client_stream *s;
    struct ledger_entry *entry;
    uint32_t n_kills = 0;

    (void)state;
    recovery_init(&f, &rig_roomy, 20 * 1000 * 1000);
    s = client_submit(&f.client, 1, &r);
    entry = ledger_entry(&f.rig.ledger, 0);
    while (!client_stream_is_over(s)) {
        recovery_receive(&f, 0);
        if (entry->kills < n_kills || atomic_load(&entry->running) != LEDGER_RUNS)
            continue; /* this worker has not taken over, or not begun its step */
        recovery_kill(&f);
        n_kills++;
        assert_true(n_kills < 10);
        recovery_start(&f);
    }
    assert_int_equal(n_kills, 5);
    assert_int_equal(s->finish, LLMD__FINISH__FINISH_ERROR);
    recovery_end_well(&f);
    recovery_fini(&f);
}

/* SIGSEGV sent by somebody else is not the request's doing, however often. */
static void a_signal_from_outside_is_no_fault(void **state)
{
    struct recovery f;
    struct client_request r = endless(40);
    struct client_stream *s;
    struct ledger_entry *entry;

    (void)state;
    recovery_init(&f, &rig_roomy, 20 * 1000 * 1000);
    s = client_submit(&f.client, 1, &r);
    entry = ledger_entry(&f.rig.ledger, 0);
    for (uint32_t k = 0; k < 3; k++) {
        while (entry->kills < k || atomic_load(&entry->running) != LEDGER_RUNS)
            recovery_receive(&f, 0);
        kill(f.pid, SIGABRT);
        assert_int_equal(WTERMSIG(recovery_reap(&f)), SIGABRT);
        assert_int_equal(atomic_load(&entry->running), LEDGER_RUNS);
        f.step_us = k == 2 ? 0 : f.step_us;
        recovery_start(&f);
    }
    recovery_until_over(&f);
    rig_assert_expected(s, &r);
    recovery_end_well(&f);
    recovery_fini(&f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_poison_request_ends_after_two_crashes),
        cmocka_unit_test(a_poison_request_takes_nobody_with_it),
        cmocka_unit_test(innocent_suspects_all_go_on),
        cmocka_unit_test(a_request_that_hangs_every_time_is_ended),
        cmocka_unit_test(a_signal_from_outside_is_no_fault),
    };

    if (recovery_is_worker(argc, argv))
        return recovery_worker(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
