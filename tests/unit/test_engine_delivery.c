/* test_engine_delivery.c - what reaches a gateway that comes, goes and comes again.  Would break in
 * production: a token lost or doubled on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "engine_fixture.h"

static bool accepted_three_times(const void *arg)
{
    const struct client *c = arg;

    return c->streams[0].n_accepted == 3 && client_all_over(c);
}

static void a_submit_that_comes_twice_makes_one_sequence(void **state)
{
    struct fixture f;
    struct client_request r = endless(60);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    f.client.no_ack = true; /* the last SUBMIT may find it done, but not forgotten */
    s = client_submit(&f.client, 9, &r);
    client_submit(&f.client, 9, &r);
    while (s->n < 10)
        rig_turn(&f.rig, &f.client);
    client_submit(&f.client, 9, &r);
    rig_until(&f.rig, &f.client, accepted_three_times, &f.client);
    client_ack(&f.client, s);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_accepted), 1);
    rig_assert_expected(s, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static bool two_hellos(const void *arg)
{
    return ((const struct client *)arg)->n_hello >= 2;
}

/* The gateway dies and comes back under its number, with less than it was sent, and says so. */
static void resync_goes_on_from_what_the_gateway_holds(void **state)
{
    struct fixture f;
    struct client_request r = endless(450);
    struct client_stream *kept, *dropped, *unknown;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = 4 * SLOW_US;
    kept = client_submit(&f.client, 1, &r);
    r.sampling.temperature = 1;
    dropped = client_submit(&f.client, 2, &r);
    r.sampling.temperature = 0;
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    kept->n = 4; /* the rest never reached its disk, so to say */
    dropped->forgotten = true;
    unknown = &f.client.streams[f.client.n_streams++];
    *unknown = (struct client_stream){ .id = 3 };
    client_reconnect(&f.client, f.rig.instance);
    rig_until(&f.rig, &f.client, two_hellos, &f.client);
    while (unknown->n_unknown == 0)
        rig_turn(&f.rig, &f.client);
    unknown->forgotten = true;
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(kept, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_sequences_cancelled), 1);
    fixture_fini(&f);
}

static bool one_done(const void *arg)
{
    return stat_get(rig_stats(arg), STAT_sequences_finished) == 1;
}

static void a_stream_finished_while_its_gateway_was_gone_is_kept(void **state)
{
    struct fixture f;
    struct client_request r = endless(400);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    s = client_submit(&f.client, 1, &r);
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    link_close(f.client.link);
    f.client.link = NULL;
    rig_until(&f.rig, NULL, one_done, &f.rig);
    for (int i = 0; i < 20; i++)
        rig_turn(&f.rig, NULL);
    assert_int_equal(stat_get(rig_stats(&f.rig), STAT_ledger_entries_used), 1);
    assert_true(engine_wake_ns(f.rig.engine) > clock_mono_ns()); /* and it does not spin */
    client_reconnect(&f.client, f.rig.instance);
    rig_until_all_over(&f.rig, &f.client);
    rig_assert_expected(s, &r);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* A finish is sent again until it is acknowledged. */
static void a_finish_is_repeated_after_every_resync(void **state)
{
    struct fixture f;
    struct client_request r = endless(5);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, &rig_roomy);
    f.client.no_ack = true;
    s = client_submit(&f.client, 1, &r);
    for (int i = 0; i < 3; i++) {
        rig_until_all_over(&f.rig, &f.client);
        assert_int_equal(s->n, 5);
        s->finish = LLMD__FINISH__FINISH_NONE; /* a gateway that lost it */
        client_resync(&f.client);
    }
    f.client.no_ack = false;
    rig_until_all_over(&f.rig, &f.client);
    rig_until_empty(&f.rig, &f.client);
    rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* Two gateway threads: each gets its own, and one that leaves does not hold up the other. */
static void peers_do_not_disturb_each_other(void **state)
{
    struct fixture f;
    struct client other;
    struct client_request r = endless(100), q = endless(120);

    (void)state;
    fixture_init(&f, &rig_roomy);
    fake_settings.step_us = SLOW_US;
    client_open(&other, f.rig.instance, 2);
    q.sampling.temperature = 1;
    q.sampling.seed = 3;
    for (uint32_t i = 0; i < 5; i++) {
        client_submit(&f.client, 10 + i, &r);
        client_submit(&other, 20 + i, &q);
    }
    while (f.client.streams[0].n < 10 || other.streams[0].n < 10) {
        rig_turn(&f.rig, &f.client);
        client_receive(&other);
    }
    client_close(&other);
    rig_until_all_over(&f.rig, &f.client);
    for (uint32_t i = 0; i < 5; i++)
        rig_assert_expected(&f.client.streams[i], &r);
    client_open(&other, f.rig.instance, 2); /* a new one, which knows of nothing */
    rig_until(&f.rig, &f.client, first_has_ten, &f.client);
    while (stat_get(rig_stats(&f.rig), STAT_ledger_entries_used) > 0) {
        rig_turn(&f.rig, &f.client);
        client_receive(&other);
    }
    rig_assert_clean(&f.rig);
    client_close(&other);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_submit_that_comes_twice_makes_one_sequence),
        cmocka_unit_test(resync_goes_on_from_what_the_gateway_holds),
        cmocka_unit_test(a_stream_finished_while_its_gateway_was_gone_is_kept),
        cmocka_unit_test(a_finish_is_repeated_after_every_resync),
        cmocka_unit_test(peers_do_not_disturb_each_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
