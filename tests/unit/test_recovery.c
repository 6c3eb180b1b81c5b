/* test_recovery.c - would break in production: a worker dies and a stream repeats, skips or changes a
 * token, or never ends. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "engine_fixture.h"
#include "gpu-worker/philox.h"
#include "recovery_rig.h"

/* ---- death at any moment ---- */

static void check_kills(const struct rig_shape *shape, uint64_t seed)
{
    enum { N = 24, KILLS = 8 };
    struct recovery f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];

    recovery_init(&f, shape, 800);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = rig_mixed_request(i, prompts[i], &bias[i], &lists[i]);
        r[i].ignore_eos = true;
        r[i].max_tokens = 40 + i * 7 % 60;
        client_submit(&f.client, 100 + i, &r[i]);
    }
    for (uint32_t k = 0; k < KILLS; k++) {
        recovery_until_tokens(&f, (k + 1) * N * 4);
        recovery_receive(&f, (uint64_t)(philox_uniform(seed, k) * 5e6));
        recovery_kill(&f);
        recovery_start(&f);
    }
    recovery_until_over(&f);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_true(stat_get(rig_stats(&f.rig), STAT_sequences_recovered) >= KILLS);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    recovery_end_well(&f);
    recovery_fini(&f);
}

static void killed_workers_change_no_token(void **state)
{
    (void)state;
    check_kills(&rig_roomy, 11);
}

static void killed_workers_change_no_token_when_pages_run_out(void **state)
{
    (void)state;
    check_kills(&rig_tight, 12);
}

static void finished_streams_are_delivered_again_until_acknowledged(void **state)
{
    struct recovery f;
    struct client_request r = endless(30);

    (void)state;
    recovery_init(&f, &rig_roomy, 0);
    f.client.no_ack = true;
    for (uint32_t i = 0; i < 5; i++)
        client_submit(&f.client, 1 + i, &r);
    recovery_until_over(&f);
    for (uint32_t i = 0; i < 5; i++) { /* the gateway loses them: new process, same number */
        f.client.streams[i].n = i;
        f.client.streams[i].finish = LLMD__FINISH__FINISH_NONE;
    }
    recovery_kill(&f);
    f.client.no_ack = false;
    recovery_start(&f);
    recovery_until_over(&f);
    for (uint32_t i = 0; i < 5; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_finished), 5);
    recovery_end_well(&f);
    recovery_fini(&f);
}

/* The last token was counted, but death came before DONE: it must not go on past its end. */
static void a_crash_between_last_token_and_done_adds_nothing(void **state)
{
    struct rig r;
    struct client c;
    struct client_request q = endless(5);

    (void)state;
    rig_make_segments(&r, &rig_roomy);
    rig_start(&r);
    client_open(&c, r.instance, 1);
    c.no_ack = true;
    client_submit(&c, 1, &q);
    rig_until_all_over(&r, &c);
    rig_stop(&r);
    for (uint32_t i = 0; i < r.ledger.hdr->n_entries; i++)
        if (atomic_load(&ledger_entry(&r.ledger, i)->state) == LEDGER_DONE)
            atomic_store(&ledger_entry(&r.ledger, i)->state, LEDGER_LIVE);
    stat_sub(rig_stats(&r), STAT_sequences_finished, 1);
    c.streams[0].finish = LLMD__FINISH__FINISH_NONE;
    c.no_ack = false;
    rig_start(&r);
    rig_until_all_over(&r, &c);
    rig_assert_expected(&c.streams[0], &q);
    rig_until_empty(&r, &c);
    rig_assert_clean(&r);
    client_close(&c);
    rig_close(&r);
}

/* An entry that does not hold together is dropped, and its gateway told to submit it again. */
static void a_damaged_entry_is_unknown_afterwards(void **state)
{
    struct rig r;
    struct client c;
    struct client_request q = endless(400);

    (void)state;
    rig_make_segments(&r, &rig_roomy);
    fake_settings.step_us = 1000; /* it must not end before it is damaged */
    rig_start(&r);
    client_open(&c, r.instance, 1);
    client_submit(&c, 1, &q);
    while (c.n_hello == 0 || c.streams[0].n == 0)
        rig_turn(&r, &c);
    rig_stop(&r);
    memset(ledger_request(&r.ledger, ledger_entry(&r.ledger, 0)), 0xff, 8);
    rig_start(&r);
    rig_until_all_over(&r, &c);
    assert_int_equal(c.streams[0].n_unknown, 1);
    rig_assert_expected(&c.streams[0], &q);
    client_close(&c);
    rig_close(&r);
}

/* ---- death at the narrow places ---- */

/* It happens in epoch 1 or 2 (the first that takes over); each later start must find its way. */
static void check_fault(const char *points)
{
    enum { N = 10 };
    struct recovery f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];
    int n_deaths;

    f = (struct recovery){ .shape = &rig_tight, .step_us = 200, .fault_points = points };
    rig_make_segments(&f.rig, f.shape);
    client_open(&f.client, f.rig.instance, 1);
    recovery_start(&f);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = rig_mixed_request(i, prompts[i], &bias[i], &lists[i]);
        if (i % 2) /* five of them begin alike */
            memcpy(prompts[i], prompts[1], 20 * sizeof(int32_t));
        r[i].ignore_eos = true;
        r[i].max_tokens = 20 + i;
        client_submit(&f.client, 1 + i, &r[i]);
    }
    n_deaths = recovery_serve(&f);
    if (n_deaths != (strchr(points, ',') ? 2 : 1))
        fail_msg("%s: %d deaths", points, n_deaths);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    recovery_end_well(&f);
    recovery_fini(&f);
}

static void death_at_any_named_place_changes_no_token(void **state)
{
    static const char *const points[] = {
        "worker.accept=kill:4@1",
        "worker.forward=kill:7@1",
        "worker.commit=kill:23@1",
        "worker.commit=exit:60@1",
        "worker.publish=kill:9@1",
        "worker.seal=kill:3@1",
        "worker.seal=kill:20@1",
        "worker.sealed=kill:5@1",
        "worker.attach=kill:4@1",
        "worker.attach=kill:9@1",
        "worker.release=kill@1",
        "worker.evict=kill@1",
        "worker.evict=kill:7@1, worker.evict=kill:2@2",
        "worker.attach=kill:8@1, worker.adopt=kill@2",
        "worker.commit=segv:40@1",
        "worker.commit=kill:50@1, worker.adopt=kill@2",
        "worker.commit=kill:50@1, worker.recover=kill@2",
        "worker.commit=kill:50@1, worker.recover=kill:5@2",
        "worker.commit=kill:50@1, worker.commit=kill@2",
        "worker.forward=kill:9@1, worker.forward=kill@2",
    };

    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        check_fault(points[i]);
}

/* In the middle of what is said of prompts, and of embeddings: nothing is lost, and nothing differs. */
static void check_reading_fault(const char *points)
{
    enum { N = 12 };
    struct recovery f;
    int32_t prompts[N][64];
    Llmd__LogitBias bias[N], *lists[N];
    struct client_request r[N];
    int n_deaths;

    f = (struct recovery){ .shape = &rig_tight, .step_us = 200, .fault_points = points };
    rig_make_segments(&f.rig, f.shape);
    client_open(&f.client, f.rig.instance, 1);
    recovery_start(&f);
    for (uint32_t i = 0; i < N; i++) {
        r[i] = i % 2 ? rig_mixed_request(i, prompts[i], &bias[i], &lists[i])
                     : rig_pooled_request(i / 2, prompts[i]);
        if (i % 2) {
            r[i].n_prompt = 30 + i;
            r[i].want_prompt_logprobs = true;
            r[i].prompt_top_logprobs = i % 4;
            r[i].max_tokens = i % 3 ? 20 : 0;
            r[i].min_tokens = 0;
        } else {
            r[i].n_prompt = 40 + i;
        }
        client_submit(&f.client, 1 + i, &r[i]);
    }
    n_deaths = recovery_serve(&f);
    if (n_deaths != (strchr(points, ',') ? 2 : 1))
        fail_msg("%s: %d deaths", points, n_deaths);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&f.client.streams[i], &r[i]);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_failed), 0);
    recovery_end_well(&f);
    recovery_fini(&f);
}

static void death_while_a_prompt_is_read_changes_nothing_said_of_it(void **state)
{
    static const char *const points[] = {
        "worker.measure=kill:2@1",
        "worker.measure=kill:40@1",
        "worker.measure=segv:77@1",
        "worker.measure=kill:30@1, worker.measure=kill:9@2",
        "worker.embed=kill:1@1",
        "worker.embed=kill:9@1",
        "worker.embed=kill:9@1, worker.embed=kill:2@2",
        "worker.publish=kill:4@1",
        "worker.publish=kill:4@1, worker.recover=kill@2",
        "worker.seal=kill:6@1",
        "worker.release=kill@1",
    };

    (void)state;
    for (size_t i = 0; i < sizeof points / sizeof *points; i++)
        check_reading_fault(points[i]);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_workers_change_no_token),
        cmocka_unit_test(killed_workers_change_no_token_when_pages_run_out),
        cmocka_unit_test(finished_streams_are_delivered_again_until_acknowledged),
        cmocka_unit_test(a_crash_between_last_token_and_done_adds_nothing),
        cmocka_unit_test(a_damaged_entry_is_unknown_afterwards),
        cmocka_unit_test(death_at_any_named_place_changes_no_token),
        cmocka_unit_test(death_while_a_prompt_is_read_changes_nothing_said_of_it),
    };

    if (recovery_is_worker(argc, argv))
        return recovery_worker(argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
