/* test_worker_life.c - the real llm-worker and the demo model: how it starts, is watched, changed and ended; the test is its
 * llmd and its gateway.
 *
 * What would break in production: a worker that does not start, stop, drain or say why. */
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/check.h"
#include "worker_fixture.h"

static void inspect_describes_the_model(void **state)
{
    char fatal[240] = "";
    Llmd__ModelPlan *plan = worker_inspect(one_rank, fatal);

    (void)state;
    assert_non_null(plan);
    assert_string_equal(plan->name, "stories-demo");
    assert_string_equal(plan->architecture, "LlamaForCausalLM");
    assert_int_equal(plan->vocab_size, 2048);
    assert_int_equal(plan->hidden_size, 256);
    assert_int_equal(plan->max_model_len, 512);
    assert_int_equal(plan->parameters, 3476224);
    assert_true(plan->kv_pages >= 512 / 16);
    frame_free_body(plan);
}

static void inspect_says_what_is_wrong_with_the_model(void **state)
{
    const char *const wrong[] = { "model", TEST_SOURCE_DIR "/proto", NULL };
    char fatal[240] = "";

    (void)state;
    assert_null(worker_inspect(wrong, fatal));
    assert_non_null(strstr(fatal, "config.json"));
}

static void a_boot_without_descriptors_is_fatal(void **state)
{
    struct worker_rig r;
    struct control_msg m;

    (void)state;
    worker_rig_init(&r, 1, one_rank);
    r.epoch = 1;
    worker_spawn(&r.ranks[0], false);
    worker_send_boot(&r, 0, false);
    worker_expect(&r.ranks[0], MSG_FATAL, &m);
    assert_non_null(strstr(((const Llmd__Fatal *)m.body)->message, "board"));
    control_msg_fini(&m);
    assert_int_equal(worker_reap(&r.ranks[0]), 1);
    worker_rig_fini(&r);
}

static void drain_finishes_and_exits_with_zero(void **state)
{
    struct fixture f;
    struct client_request r = endless(300);
    struct client_stream *s, *late;
    Llmd__Drain drain = LLMD__DRAIN__INIT;
    struct err e;

    (void)state;
    fixture_init(&f, 1, one_rank);
    s = client_submit(&f.client, 1, &r);
    worker_until_n_tokens(&f.client, s, 5);
    kill(f.rig.ranks[0].pid, SIGINT); /* the terminal's Ctrl-C is llmd's business */
    kill(f.rig.ranks[0].pid, SIGHUP);
    drain.deadline_ns = clock_mono_ns() + 60 * NS_PER_S;
    assert_true(control_send(f.rig.ranks[0].control, MSG_DRAIN, &drain, NULL, 0, &e));
    while (!f.client.is_draining)
        client_receive(&f.client);
    late = client_submit(&f.client, 2, &r);
    worker_until_all_over(&f.client);
    assert_int_equal(s->n, 300);
    assert_true(late->refused && late->reason == LLMD__REFUSE_REASON__REFUSE_DRAINING);
    assert_int_equal(worker_reap(&f.rig.ranks[0]), 0);
    worker_rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* RELOAD shortens the time that SIGTERM gives; what still runs then is ended with words. */
static void reload_and_sigterm_end_what_runs(void **state)
{
    struct fixture f;
    struct client_request r = endless(500);

    (void)state;
    fixture_init(&f, 1, one_rank);
    for (uint32_t i = 0; i < 32; i++)
        client_submit(&f.client, 1 + i, &r);
    for (uint32_t i = 0; i < 32; i++) /* the first may have been sent last, after the greeting */
        worker_until_n_tokens(&f.client, &f.client.streams[i], 1);
    reload(&f.rig.ranks[0], "drain_timeout_s", "0");
    kill(f.rig.ranks[0].pid, SIGTERM);
    worker_until_all_over(&f.client);
    for (uint32_t i = 0; i < 32; i++) {
        const struct client_stream *stream = &f.client.streams[i];
        if (stream->refused)
            fail_msg("stream %u of %u tokens was refused: %s", i, stream->n, stream->text);
        assert_int_equal(stream->finish, LLMD__FINISH__FINISH_ERROR);
        assert_non_null(strstr(stream->text, "shut down"));
    }
    assert_int_equal(worker_reap(&f.rig.ranks[0]), 0);
    worker_rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

static void reload_arms_a_fault_point(void **state)
{
    struct fixture f;
    struct client_request r = endless(50);

    (void)state;
    fixture_init(&f, 1, one_rank);
    reload(&f.rig.ranks[0], "fault_points", "worker.commit=kill:20");
    client_submit(&f.client, 1, &r);
    assert_int_equal(worker_until_dead(&f.rig.ranks[0], &f.client), 1000 + SIGKILL);
    worker_rig_start(&f.rig); /* its BOOT has none */
    worker_until_all_over(&f.client);
    assert_int_equal(f.client.streams[0].n, 50);
    fixture_fini(&f);
}

/* A new llmd holds the other end of the control socket: every rank says again what it is. */
static void a_new_llmd_is_told_everything_again(void **state)
{
    Llmd__Adopt adopt = LLMD__ADOPT__INIT;
    struct client_request r = endless(100);
    struct fixture f;
    struct err e;

    (void)state;
    fixture_init(&f, 2, two_ranks);
    client_submit(&f.client, 1, &r);
    adopt.pid = (uint32_t)getpid();
    for (uint32_t rank = 0; rank < 2; rank++) {
        assert_true(control_send(f.rig.ranks[rank].control, MSG_ADOPT, &adopt, NULL, 0, &e));
        worker_wait_ready(&f.rig, rank);
    }
    worker_until_all_over(&f.client);
    assert_int_equal(f.client.streams[0].n, 100);
    fixture_fini(&f);
}

/* llmd's view of a hang: the board says since when the step runs and what it may take at most. */
static void a_step_that_hangs_outlives_its_limit(void **state)
{
    const char *const armed[] = { "model",
                                  DEMO,
                                  "threads",
                                  "2",
                                  "log_level",
                                  "error",
                                  "hang_step_ms",
                                  "100",
                                  "fault_points",
                                  "worker.forward=stop:30@1",
                                  NULL };
    struct client_request r = endless(60);
    uint64_t end = clock_mono_ns() + 60 * NS_PER_S, since = 0, limit = 0;
    struct board_slot *slot;
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, armed);
    slot = board_slot(&f.rig.board, BOARD_SLOT_RANKS);
    client_submit(&f.client, 1, &r);
    while (since == 0 || limit == 0 || clock_mono_ns() < since + limit) {
        client_receive(&f.client);
        poll(NULL, 0, 1);
        since = atomic_load(&slot->step_started_ns);
        limit = atomic_load(&slot->step_limit_ns);
        assert_true(clock_mono_ns() < end);
    }
    assert_true(limit >= 100 * NS_PER_MS);
    worker_rig_kill(&f.rig);
    worker_rig_start(&f.rig);
    worker_until_all_over(&f.client);
    assert_int_equal(f.client.streams[0].n, 60);
    assert_int_equal(f.client.streams[0].finish, LLMD__FINISH__FINISH_LENGTH);
    fixture_fini(&f);
}

/* llmd shows them when the process is no more. */
static void last_words_stay_on_the_board(void **state)
{
    const char *const armed[] = { "model",     DEMO,      "threads",      "2",
                                  "log_level", "warning", "fault_points", "worker.commit=abort:5",
                                  NULL };
    char lines[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES];
    struct client_request r = endless(50);
    struct fixture f;
    uint32_t n;

    (void)state;
    fixture_init(&f, 1, armed);
    client_submit(&f.client, 1, &r);
    assert_int_equal(worker_until_dead(&f.rig.ranks[0], &f.client), 1000 + SIGABRT);
    n = board_log_read(board_slot(&f.rig.board, BOARD_SLOT_RANKS), lines);
    assert_true(n > 0);
    assert_non_null(strstr(lines[n - 1], "fault_point=worker.commit"));
    fixture_fini(&f);
}

static void all_ranks_of_a_group_drain(void **state)
{
    struct fixture f;
    struct client_request r = endless(60);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, 2, two_ranks);
    s = client_submit(&f.client, 1, &r);
    worker_until_n_tokens(&f.client, s, 5);
    kill(f.rig.ranks[0].pid, SIGTERM);
    kill(f.rig.ranks[1].pid, SIGTERM);
    worker_until_all_over(&f.client);
    assert_int_equal(s->n, 60);
    assert_int_equal(worker_reap(&f.rig.ranks[0]), 0);
    assert_int_equal(worker_reap(&f.rig.ranks[1]), 0);
    worker_rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* llmd dies: what runs goes on; nobody adopts, so the worker drains and goes. */
static void an_orphan_serves_on_and_then_drains(void **state)
{
    const char *const alone[] = { "model", DEMO,        "threads", "2", "orphan_timeout_s",
                                  "0",     "log_level", "error",   NULL };
    struct fixture f;
    struct client_request r = endless(400);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, 1, alone);
    s = client_submit(&f.client, 1, &r);
    worker_until_n_tokens(&f.client, s, 5);
    close(f.rig.ranks[0].control);
    f.rig.ranks[0].control = -1;
    worker_until_all_over(&f.client);
    assert_int_equal(s->n, 400);
    assert_int_equal(worker_reap(&f.rig.ranks[0]), 0);
    worker_rig_assert_clean(&f.rig);
    fixture_fini(&f);
}

/* An idle worker beats once a second and does nothing else. */
static void an_idle_worker_beats(void **state)
{
    struct fixture f;
    struct client_request r = endless(5);
    struct board_slot *slot;
    uint64_t first, second, end = clock_mono_ns() + 10 * NS_PER_S;

    (void)state;
    fixture_init(&f, 1, one_rank);
    client_submit(&f.client, 1, &r);
    worker_until_all_over(&f.client);
    slot = board_slot(&f.rig.board, BOARD_SLOT_RANKS);
    while (stat_get(&slot->stats, STAT_ledger_entries_used) > 0)
        poll(NULL, 0, 1);
    poll(NULL, 0, 50);
    first = second = atomic_load(&slot->heartbeat_ns);
    while (second == first && clock_mono_ns() < end) {
        poll(NULL, 0, 10);
        second = atomic_load(&slot->heartbeat_ns);
    }
    assert_true(second > first && second - first < 2 * NS_PER_S);
    assert_int_equal(atomic_load(&slot->step_started_ns), 0);
    assert_true(atomic_load(&slot->step_average_ns) > 0);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inspect_describes_the_model),
        cmocka_unit_test(inspect_says_what_is_wrong_with_the_model),
        cmocka_unit_test(a_boot_without_descriptors_is_fatal),
        cmocka_unit_test(drain_finishes_and_exits_with_zero),
        cmocka_unit_test(reload_and_sigterm_end_what_runs),
        cmocka_unit_test(reload_arms_a_fault_point),
        cmocka_unit_test(a_new_llmd_is_told_everything_again),
        cmocka_unit_test(a_step_that_hangs_outlives_its_limit),
        cmocka_unit_test(last_words_stay_on_the_board),
        cmocka_unit_test(all_ranks_of_a_group_drain),
        cmocka_unit_test(an_orphan_serves_on_and_then_drains),
        cmocka_unit_test(an_idle_worker_beats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
