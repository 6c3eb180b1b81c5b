/* test_worker_deaths.c - the real llm-worker and the demo model: how it dies, and what its successor makes of that; the test
 * is its llmd and its gateway.
 *
 * What would break in production: text that depends on a crash, weights loaded again after one, memory that is never
 * given back. */
#include <signal.h>
#include <string.h>

#include "proto/weights_layout.h"
#include "tests/check.h"
#include "worker_fixture.h"

/* Killed twice under load: the weights are mapped, not loaded, and the text is the same. */
static void a_killed_worker_goes_on_where_it_was(void **state)
{
    enum { N = 12 };
    static int32_t prompts[N][PROMPT_MAX];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, one_rank);
    for (uint32_t i = 0; i < 2 * N; i++) {
        struct client_request r = stream_request(i % N, prompts[i % N]);
        r.max_tokens = 120;
        r.ignore_eos = true;
        client_submit(&f.client, 1 + i, &r);
        if (i + 1 == N)
            worker_until_all_over(&f.client); /* the first half is the undisturbed run */
    }
    for (uint32_t k = 1; k <= 2; k++) {
        worker_until_n_tokens(&f.client, &f.client.streams[N + 3], k * 20);
        worker_rig_kill(&f.rig);
        worker_rig_start(&f.rig);
        assert_int_equal(f.rig.n_loaded, 0);
    }
    worker_until_all_over(&f.client);
    assert_true(stat_get(worker_rig_stats(&f.rig), STAT_sequences_recovered) >= N);
    for (uint32_t i = 0; i < N; i++)
        compare_streams(&f.client.streams[i], &f.client.streams[N + i]);
    fixture_fini(&f);
}

enum { N_COMPARED = 6, COMPARED_TOKENS = 40 };

/* Undisturbed runs first, then the same requests again, under other ids. */
struct compared {
    struct fixture f;
    int32_t prompts[N_COMPARED][PROMPT_MAX];
};

static void submit_all(struct compared *c, uint64_t first_id)
{
    for (uint32_t i = 0; i < N_COMPARED; i++) {
        struct client_request r = stream_request(i, c->prompts[i]);
        r.max_tokens = COMPARED_TOKENS;
        r.ignore_eos = true;
        client_submit(&c->f.client, first_id + i, &r);
    }
}

static void compared_init(struct compared *c, uint32_t tp_size, const char *const *set)
{
    fixture_init(&c->f, tp_size, set);
    submit_all(c, 1);
    worker_until_all_over(&c->f.client);
}

static void compare_last(const struct compared *c)
{
    const struct client *k = &c->f.client;

    for (uint32_t i = 0; i < N_COMPARED; i++)
        compare_streams(&k->streams[i], &k->streams[k->n_streams - N_COMPARED + i]);
}

static void check_deaths(uint32_t tp_size, const char *const *set, const char *const (*deaths)[2])
{
    struct compared c;

    compared_init(&c, tp_size, set);
    for (uint32_t i = 0; deaths[i][0]; i++) {
        uint32_t rank = strcmp(deaths[i][0], "1") == 0;
        reload(&c.f.rig.ranks[rank], "fault_points", deaths[i][1]);
        submit_all(&c, 1000 * (i + 1));
        worker_until_dead(&c.f.rig.ranks[rank], &c.f.client);
        worker_rig_bury(&c.f.rig);
        worker_rig_start(&c.f.rig);
        assert_int_equal(c.f.rig.n_loaded, 0);
        worker_until_all_over(&c.f.client);
        compare_last(&c);
    }
    assert_true(stat_get(worker_rig_stats(&c.f.rig), STAT_kv_pages_adopted) > 0);
    wait_until_clean(&c.f);
    fixture_fini(&c.f);
}

/* Greedy and sampled, penalties, log probabilities: byte for byte what an undisturbed run gives. */
static void death_at_any_place_changes_no_byte(void **state)
{
    const char *const deaths[][2] = {
        { "0", "worker.accept=kill:3" },
        { "0", "worker.forward=segv:20" },
        { "0", "worker.commit=kill:70" },
        { "0", "worker.publish=exit:15" },
        { "0", "worker.seal=kill:12" },
        { "0", "worker.commit=abort:150" },
        { NULL, NULL },
    };

    (void)state;
    check_deaths(1, one_rank, deaths);
}

static void death_of_either_rank_changes_no_byte(void **state)
{
    const char *const two[] = { "model",        DEMO, "tp_size",   "2",     "threads", "1",
                                "max_num_seqs", "8",  "log_level", "error", NULL };
    const char *const deaths[][2] = {
        { "1", "follower.step=kill:9" },
        { "0", "worker.commit=kill:60" },
        { "1", "follower.step=abort:25" },
        { NULL, NULL },
    };

    (void)state;
    check_deaths(2, two, deaths);
}

/* The worker dies with a page in hand that it is about to copy to, and with one that is copied and not yet listed. */
static void death_while_pages_are_copied_changes_no_byte(void **state)
{
    static const char *const deaths[] = { "worker.copy=kill:2", "worker.attach=kill:3" };
    static int32_t prompts[SHARING][PROMPT_MAX];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, one_rank);
    submit_sharing(&f, 1, prompts, false);
    for (uint32_t d = 0; d < sizeof deaths / sizeof *deaths; d++) {
        uint32_t first = f.client.n_streams;
        reload(&f.rig.ranks[0], "fault_points", deaths[d]);
        for (uint32_t i = 0; i < SHARING; i++) {
            struct client_request r = sharing_request(i, prompts[i]);
            client_submit(&f.client, 1000 * (d + 1) + i, &r);
        }
        worker_until_dead(&f.rig.ranks[0], &f.client);
        worker_rig_bury(&f.rig);
        worker_rig_start(&f.rig);
        worker_until_all_over(&f.client);
        for (uint32_t i = 0; i < SHARING; i++)
            compare_streams(&f.client.streams[i], &f.client.streams[first + i]);
    }
    wait_until_clean(&f);
    fixture_fini(&f);
}

/* In the middle of both: what was delivered is delivered again, the rest is computed. */
static void death_while_a_prompt_is_read_changes_no_byte(void **state)
{
    const char *const small[] = { "model",     DEMO,      "max_num_seqs",
                                  "64",        "threads", "2",
                                  "log_level", "warning", "max_num_batched_tokens",
                                  "64",        NULL };
    const char *const deaths[] = { "worker.measure=kill:150", "worker.embed=kill:5",
                                   "worker.measure=segv:400", "worker.publish=kill:6" };
    struct readings x;
    struct fixture f;

    (void)state;
    readings_init(&x);
    fixture_init(&f, 1, small);
    submit_readings(&f.client, 1, &x);
    worker_until_all_over(&f.client);
    for (uint32_t i = 0; i < 4; i++) {
        reload(&f.rig.ranks[0], "fault_points", deaths[i]);
        submit_readings(&f.client, 10 * (i + 1), &x);
        worker_until_dead(&f.rig.ranks[0], &f.client);
        worker_rig_bury(&f.rig);
        worker_rig_start(&f.rig);
        worker_until_all_over(&f.client);
        compare_readings(&f.client, &f.client, N_READINGS * (i + 1));
    }
    assert_true(f.client.n_prompt_duplicates > 0);
    wait_until_clean(&f);
    fixture_fini(&f);
}

/* Killed while it loads, and while it takes over. */
static void death_before_service_is_made_up_for(void **state)
{
    const char *const armed[] = {
        "model",
        DEMO,
        "threads",
        "2",
        "log_level",
        "error",
        "fault_points",
        "worker.load=kill@1, worker.recover=kill:3@3, worker.adopt=kill@4",
        NULL
    };
    struct compared c;

    (void)state;
    worker_rig_init(&c.f.rig, 1, armed);
    client_open(&c.f.client, c.f.rig.instance, 7);
    c.f.rig.epoch = 1;
    worker_spawn(&c.f.rig.ranks[0], false);
    worker_send_boot(&c.f.rig, 0, true);
    assert_int_equal(worker_reap(&c.f.rig.ranks[0]), 1000 + SIGKILL);
    worker_rig_start(&c.f.rig);
    assert_int_equal(c.f.rig.n_loaded, 1);
    submit_all(&c, 1);
    worker_until_all_over(&c.f.client);
    submit_all(&c, 1000);
    worker_until_n_tokens(&c.f.client, &c.f.client.streams[N_COMPARED + 3], 30);
    worker_rig_kill(&c.f.rig);
    for (int i = 0; i < 2; i++) {
        c.f.rig.epoch++;
        worker_spawn(&c.f.rig.ranks[0], false);
        worker_send_boot(&c.f.rig, 0, true);
        assert_int_equal(worker_reap(&c.f.rig.ranks[0]), 1000 + SIGKILL);
    }
    worker_rig_start(&c.f.rig);
    worker_until_all_over(&c.f.client);
    compare_last(&c);
    wait_until_clean(&c.f);
    fixture_fini(&c.f);
}

/* Bits flipped in memory that outlives the worker: a sealed page, and the weights. */
static void flipped_bits_are_found_by_the_successor(void **state)
{
    const struct weights_hdr *h;
    struct ledger_entry *entry = NULL;
    struct compared c;

    (void)state;
    compared_init(&c, 1, one_rank);
    submit_all(&c, 1000);
    worker_until_n_tokens(&c.f.client, &c.f.client.streams[N_COMPARED + 3], 30);
    reload(&c.f.rig.ranks[0], "fault_points", "worker.commit=abort");
    assert_int_equal(worker_until_dead(&c.f.rig.ranks[0], &c.f.client), 1000 + SIGABRT);
    for (uint32_t i = 0; !entry || atomic_load(&entry->n_pages) < 2; i++)
        entry = ledger_entry(&c.f.rig.ledger, i);
    kvpool_page(&c.f.rig.pool, ledger_pages(&c.f.rig.ledger, entry)[0])[99] ^= 2;
    h = (const struct weights_hdr *)c.f.rig.weights[0].hdr;
    assert_int_equal(h->doubt, 1);
    ((char *)segment_at(&c.f.rig.weights[0], h->data_offset))[h->data_bytes - 5] ^= 2;
    worker_rig_start(&c.f.rig);
    assert_int_equal(stat_get(worker_rig_stats(&c.f.rig), STAT_kv_pages_corrupt), 1);
    assert_int_equal(stat_get(worker_rig_stats(&c.f.rig), STAT_weights_chunks_reloaded), 1);
    worker_until_all_over(&c.f.client);
    compare_last(&c);
    wait_until_clean(&c.f);
    fixture_fini(&c.f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_worker_goes_on_where_it_was),
        cmocka_unit_test(death_at_any_place_changes_no_byte),
        cmocka_unit_test(death_of_either_rank_changes_no_byte),
        cmocka_unit_test(death_while_pages_are_copied_changes_no_byte),
        cmocka_unit_test(death_while_a_prompt_is_read_changes_no_byte),
        cmocka_unit_test(death_before_service_is_made_up_for),
        cmocka_unit_test(flipped_bits_are_found_by_the_successor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
