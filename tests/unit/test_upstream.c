/* test_upstream.c - the gateway's half of the protocol against a fake worker on the real link: nothing
 * lost, nothing twice, whatever the worker forgets. */
#include <stdio.h>

#include "tests/check.h"

#include "common/clock.h"
#include "common/mem.h"
#include "gateway/upstream.h"
#include "tests/gateway/fake_worker.h"

enum { N_SEQUENCES = 20, N_PROMPT = 3, MAX_TOKENS = 50 };

struct house {
    struct upstream *u;
    struct stats stats;
    _Atomic uint32_t load[2];
    struct fake_worker workers[2];
    uint32_t n_groups;
    uint32_t n_hellos;
    struct sequence sequences[N_SEQUENCES];
    int32_t prompts[N_SEQUENCES][N_PROMPT];
    uint32_t n_progress;
    struct upstream_config config;
    char instance[64];
    bool keeps_finished; /* answers that are not out yet */
};

static struct house house;

static void on_hello(const Llmd__Hello *hello, void *ctx)
{
    (void)hello;
    ((struct house *)ctx)->n_hellos++;
}

static void kick(uint32_t group, void *ctx)
{
    (void)group; /* turn() receives always */
    (void)ctx;
}

static void describe(char *out, size_t n, void *ctx)
{
    (void)ctx;
    snprintf(out, n, "nobody is in");
}

static void on_progress(struct sequence *s)
{
    struct house *h = s->owner;

    h->n_progress++;
    if (s->state == SEQUENCE_ENDED && !h->keeps_finished)
        upstream_release(h->u, s);
}

static void open_house(uint32_t n_groups, uint32_t n_workers)
{
    static int count;
    struct upstream_config config = { .n_groups = n_groups,
                                      .wait_ns = 10 * NS_PER_S,
                                      .move_ns = 100 * NS_PER_MS,
                                      .stats = &house.stats,
                                      .load = house.load,
                                      .on_hello = on_hello,
                                      .kick = kick,
                                      .describe = describe,
                                      .ctx = &house,
                                      .gateway_epoch = 3 };
    struct err e;

    memset(&house, 0, sizeof house);
    snprintf(house.instance, sizeof house.instance, "up%d-%d", getpid(), ++count);
    house.n_groups = n_groups;
    for (uint32_t g = 0; g < n_workers; g++)
        assert_ok(fake_worker_open(&house.workers[g], house.instance, g, &e), e);
    config.instance = house.instance;
    house.config = config;
    house.u = upstream_new(&config, &e);
    assert_non_null(house.u);
}

static void close_house(void)
{
    for (int i = 0; i < N_SEQUENCES; i++) {
        upstream_release(house.u, &house.sequences[i]);
        sequence_fini(&house.sequences[i]);
    }
    assert_int_equal(upstream_n_sequences(house.u), 0);
    for (uint32_t g = 0; g < house.n_groups; g++)
        assert_int_equal(atomic_load(&house.load[g]), 0);
    upstream_free(house.u);
    for (uint32_t g = 0; g < house.n_groups; g++)
        if (house.workers[g].link)
            fake_worker_close(&house.workers[g]);
}

static void turn(void)
{
    uint64_t due;

    for (uint32_t g = 0; g < house.n_groups; g++) {
        if (house.workers[g].link)
            fake_worker_step(&house.workers[g]);
        upstream_receive(house.u, g);
    }
    due = upstream_tick_due_ns(house.u);
    if (due && due <= clock_mono_ns() + 30 * NS_PER_MS)
        upstream_tick(house.u, clock_mono_ns());
    usleep(200);
}

#define turn_until(condition)                                                                      \
    do {                                                                                           \
        uint64_t end_ns = clock_mono_ns() + 10 * NS_PER_S;                                         \
        while (!(condition) && clock_mono_ns() < end_ns)                                           \
            turn();                                                                                \
        assert_true(condition);                                                                    \
    } while (0)

static void submit(int i)
{
    struct sequence *s = &house.sequences[i];

    for (int k = 0; k < N_PROMPT; k++)
        house.prompts[i][k] = 10 * i + k + 1;
    sequence_init(s);
    s->id = upstream_draw_ids(house.u, 1);
    s->submit.prompt = house.prompts[i];
    s->submit.n_prompt = N_PROMPT;
    s->submit.max_tokens = MAX_TOKENS;
    s->sampling.seed = (uint64_t)i;
    s->sampling.temperature = 1;
    s->sampling.want_logprobs = i % 2;
    s->sampling.top_logprobs = i % 2 ? 2 : 0;
    s->on_progress = on_progress;
    s->owner = &house;
    upstream_submit(house.u, s);
}

static void submit_all(void)
{
    for (int i = 0; i < N_SEQUENCES; i++)
        submit(i);
}

static bool all_ended(void)
{
    for (int i = 0; i < N_SEQUENCES; i++)
        if (house.sequences[i].state != SEQUENCE_ENDED)
            return false;
    return true;
}

static bool all_have(uint32_t n)
{
    for (int i = 0; i < N_SEQUENCES; i++)
        if (house.sequences[i].n_tokens < n)
            return false;
    return true;
}

static void expect_exact_tokens(void)
{
    for (int i = 0; i < N_SEQUENCES; i++) {
        const struct sequence *s = &house.sequences[i];
        uint64_t key = fake_key(house.prompts[i], N_PROMPT, (uint64_t)i);
        assert_int_equal(s->finish, LLMD__FINISH__FINISH_LENGTH);
        assert_int_equal(s->n_tokens, MAX_TOKENS);
        for (uint32_t k = 0; k < MAX_TOKENS; k++) {
            assert_int_equal(s->tokens[k], fake_token(key, k));
            if (i % 2) {
                assert_true(s->logprobs[k].logprob == fake_logprob(key, k));
                assert_int_equal(sequence_top(s, k)[0].token, s->tokens[k]);
            }
        }
    }
}

static void ids_are_drawn_once(void **state)
{
    uint64_t a, b;

    (void)state;
    open_house(1, 0);
    a = upstream_draw_ids(house.u, 3);
    b = upstream_draw_ids(house.u, 1);
    assert_true(a != 0 && b == a + 3);
    assert_int_equal(a >> 40, 3);
    close_house();
}

static void tokens_arrive_and_are_acknowledged(void **state)
{
    (void)state;
    open_house(1, 1);
    submit_all();
    turn_until(all_ended());
    expect_exact_tokens();
    turn_until(atomic_load(&house.workers[0].n_acks) == N_SEQUENCES);
    assert_int_equal(atomic_load(&house.workers[0].n_live), 0);
    assert_int_equal(stat_get(&house.stats, STAT_gateway_generated_tokens),
                     N_SEQUENCES * MAX_TOKENS);
    assert_int_equal(stat_get(&house.stats, STAT_duplicate_tokens_dropped), 0);
    close_house();
}

static void duplicates_are_dropped_and_counted(void **state)
{
    (void)state;
    open_house(1, 1);
    atomic_store(&house.workers[0].sends_twice, true);
    submit_all();
    turn_until(all_ended());
    expect_exact_tokens();
    assert_true(stat_get(&house.stats, STAT_duplicate_tokens_dropped) > 0);
    close_house();
}

/* The list of RESYNC is exactly what is held: cancelled ones are not on it. */
static void restart_is_answered_with_what_is_held(void **state)
{
    uint32_t listed;

    (void)state;
    open_house(1, 1);
    submit_all();
    turn_until(all_have(10));
    for (int i = 0; i < 5; i++)
        upstream_cancel(house.u, &house.sequences[i]);
    listed = atomic_load(&house.workers[0].n_held_listed);
    atomic_store(&house.workers[0].restart, 1);
    atomic_store(&house.workers[0].is_paused, true);
    turn_until(house.n_hellos == 2 && atomic_load(&house.workers[0].n_resyncs) == 2);
    assert_int_equal(atomic_load(&house.workers[0].n_held_listed) - listed, N_SEQUENCES - 5);
    assert_int_equal(atomic_load(&house.workers[0].n_live), N_SEQUENCES - 5);
    assert_int_equal(stat_get(&house.stats, STAT_sequences_resubmitted), 0);
    close_house();
}

static void lost_sequences_are_submitted_again_with_their_tokens(void **state)
{
    (void)state;
    open_house(1, 1);
    submit_all();
    turn_until(all_have(10));
    atomic_store(&house.workers[0].restart, 2);
    turn_until(all_ended());
    expect_exact_tokens();
    assert_int_equal(stat_get(&house.stats, STAT_sequences_resubmitted), N_SEQUENCES);
    assert_true(atomic_load(&house.workers[0].n_resubmitted_tokens) >= 10 * N_SEQUENCES);
    close_house();
}

/* Whoever takes them keeps these too, for a gateway that comes after this one. */
static void tokens_are_submitted_with_their_log_probabilities(void **state)
{
    Llmd__TopLogprob best = LLMD__TOP_LOGPROB__INIT, *top[] = { &best };
    Llmd__TokenLogprob first = LLMD__TOKEN_LOGPROB__INIT, second = LLMD__TOKEN_LOGPROB__INIT;
    Llmd__TokenLogprob *measures[] = { &first, &second };
    Llmd__SequenceTokens m = LLMD__SEQUENCE_TOKENS__INIT;
    int32_t tokens[] = { 7, 9 };
    struct sequence s = { 0 };
    uint8_t packed[200];
    Llmd__Submit *found;

    (void)state;
    best.token = 8;
    best.logprob = -0.25f;
    first.logprob = -1.5f;
    first.rank = 2;
    first.n_top = 1;
    first.top = top;
    second.logprob = -3;
    m.n_tokens = m.n_logprobs = 2;
    m.tokens = tokens;
    m.logprobs = measures;
    sequence_init(&s);
    s.sampling.want_logprobs = true;
    s.sampling.top_logprobs = 3;
    sequence_append(&s, &m, 0);
    sequence_list_tokens(&s);
    assert_true(llmd__submit__get_packed_size(&s.submit) <= sizeof packed);
    found = llmd__submit__unpack(NULL, llmd__submit__pack(&s.submit, packed), packed);
    assert_non_null(found);
    assert_int_equal(found->n_generated, 2);
    assert_int_equal(found->generated[1], 9);
    assert_int_equal(found->n_generated_logprobs, 2);
    assert_true(found->generated_logprobs[0]->logprob == -1.5f);
    assert_int_equal(found->generated_logprobs[0]->rank, 2);
    assert_int_equal(found->generated_logprobs[0]->n_top, 1);
    assert_int_equal(found->generated_logprobs[0]->top[0]->token, 8);
    assert_true(found->generated_logprobs[1]->logprob == -3);
    llmd__submit__free_unpacked(found, NULL);
    sequence_unlist(&s);
    assert_int_equal(s.submit.n_generated + s.submit.n_generated_logprobs, 0);
    sequence_fini(&s);
}

static void load_is_shared_and_a_lost_group_replaced(void **state)
{
    (void)state;
    open_house(2, 2);
    turn_until(house.n_hellos == 2);
    submit_all();
    assert_int_equal(atomic_load(&house.load[0]), N_SEQUENCES / 2);
    assert_int_equal(atomic_load(&house.load[1]), N_SEQUENCES / 2);
    turn_until(all_have(5));
    fake_worker_close(&house.workers[1]);
    upstream_set_service(house.u, 1, false);
    turn_until(all_ended());
    expect_exact_tokens();
    assert_int_equal(stat_get(&house.stats, STAT_sequences_resubmitted), N_SEQUENCES / 2);
    close_house();
}

static void full_group_keeps_the_order(void **state)
{
    (void)state;
    open_house(1, 1);
    atomic_store(&house.workers[0].refuse_first, 7);
    submit_all();
    turn_until(all_ended());
    expect_exact_tokens();
    assert_int_equal(atomic_load(&house.workers[0].n_submits), N_SEQUENCES + 7);
    close_house();
}

static void nobody_in_service_ends_in_a_fault(void **state)
{
    (void)state;
    open_house(1, 0);
    upstream_set_wait(house.u, 300 * NS_PER_MS);
    submit_all();
    assert_true(upstream_tick_due_ns(house.u) > 0);
    turn_until(all_ended());
    for (int i = 0; i < N_SEQUENCES; i++) {
        assert_int_equal(house.sequences[i].fault.kind, FAULT_UNAVAILABLE);
        assert_string_equal(house.sequences[i].fault.text, "nobody is in");
    }
    assert_int_equal(house.n_progress, N_SEQUENCES);
    assert_int_equal(upstream_tick_due_ns(house.u), 0);
    close_house();
}

static void cancelled_sequences_are_forgotten_everywhere(void **state)
{
    (void)state;
    open_house(1, 1);
    submit_all();
    turn_until(all_have(3));
    for (int i = 0; i < N_SEQUENCES; i++)
        upstream_cancel(house.u, &house.sequences[i]);
    assert_int_equal(upstream_n_sequences(house.u), 0);
    turn_until(atomic_load(&house.workers[0].n_live) == 0);
    assert_int_equal(atomic_load(&house.workers[0].n_cancels), N_SEQUENCES);
    close_house();
}

/* ---- what is said of the prompt ---- */

enum { N_LONG = 40, N_TOP = 3 };

static int32_t long_prompt[N_LONG];

static void prepare_long(struct sequence *s, uint64_t id)
{
    for (int k = 0; k < N_LONG; k++)
        long_prompt[k] = 5 * k + 1;
    *s = (struct sequence){ 0 };
    sequence_init(s);
    s->id = id;
    s->submit.prompt = long_prompt;
    s->submit.n_prompt = N_LONG;
    s->submit.max_tokens = MAX_TOKENS;
    s->sampling.seed = 99;
    s->sampling.temperature = 1;
    s->submit.want_prompt_logprobs = true;
    s->submit.prompt_top_logprobs = N_TOP;
    s->on_progress = on_progress;
    s->owner = &house;
}

static void expect_prompt(const struct sequence *s)
{
    uint64_t key = fake_key(long_prompt, N_LONG, 99);

    assert_false(sequence_awaits_prompt(s));
    assert_int_equal(s->n_prompt_logprobs, N_LONG);
    assert_int_equal(s->prompt_logprobs[0].rank, 0);
    assert_int_equal(s->prompt_logprobs[0].n_top, 0);
    for (uint32_t i = 1; i < N_LONG; i++) {
        assert_true(s->prompt_logprobs[i].logprob == fake_prompt_logprob(key, i));
        assert_int_equal(s->prompt_logprobs[i].rank, 2);
        assert_int_equal(s->prompt_logprobs[i].n_top, N_TOP);
        assert_int_equal(sequence_prompt_top(s, i)[1].token, long_prompt[i]);
    }
}

/* Whole before the first token, although they come in many messages, twice each, over two deaths of the
 * worker. */
static void prompt_logprobs_are_whole_before_the_first_token(void **state)
{
    struct fake_worker *w = &house.workers[0];
    struct sequence s;
    bool died_again = false;

    (void)state;
    open_house(1, 1);
    atomic_store(&w->sends_twice, true);
    turn_until(house.n_hellos == 1);
    prepare_long(&s, upstream_draw_ids(house.u, 1));
    upstream_submit(house.u, &s);
    while (s.n_prompt_logprobs == 0)
        turn();
    atomic_store(&w->restart, 2); /* it forgets everything */
    while (s.state != SEQUENCE_ENDED) {
        turn();
        assert_true(s.n_tokens == 0 || !sequence_awaits_prompt(&s));
        if (s.n_tokens < 10 || died_again)
            continue;
        atomic_store(&w->restart, 1); /* it keeps its ledger */
        died_again = true;
    }
    expect_prompt(&s);
    assert_int_equal(s.n_tokens, MAX_TOKENS);
    sequence_fini(&s);
    close_house();
}

/* A successor gateway has nothing of them, and gets all. */
static void prompt_logprobs_come_to_a_successor_too(void **state)
{
    struct sequence s, adopted;
    struct upstream *dead;
    struct err e;

    (void)state;
    open_house(1, 1);
    house.keeps_finished = true;
    turn_until(house.n_hellos == 1);
    prepare_long(&s, upstream_draw_ids(house.u, 1));
    upstream_submit(house.u, &s);
    turn_until(s.n_tokens >= 20);
    dead = house.u;
    house.config.gateway_epoch++;
    house.config.instance = house.instance;
    house.u = upstream_new(&house.config, &e);
    assert_non_null(house.u);
    prepare_long(&adopted, s.id);
    upstream_adopt(house.u, &adopted, 0);
    turn_until(adopted.state == SEQUENCE_ENDED);
    expect_prompt(&adopted);
    assert_int_equal(adopted.n_tokens, MAX_TOKENS);
    upstream_release(house.u, &adopted);
    sequence_fini(&adopted);
    turn_until(atomic_load(&house.workers[0].n_live) == 0);
    upstream_free(house.u);
    house.u = dead;
    upstream_release(house.u, &s);
    sequence_fini(&s);
    close_house();
}

static void a_prompt_alone_can_be_measured(void **state)
{
    struct sequence s;

    (void)state;
    open_house(1, 1);
    prepare_long(&s, upstream_draw_ids(house.u, 1));
    s.submit.max_tokens = 0;
    upstream_submit(house.u, &s);
    turn_until(s.state == SEQUENCE_ENDED);
    assert_int_equal(s.finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(s.n_tokens, 0);
    expect_prompt(&s);
    sequence_fini(&s);
    close_house();
}

static void an_embedding_is_the_answer(void **state)
{
    uint64_t key;
    struct sequence s;

    (void)state;
    open_house(1, 1);
    atomic_store(&house.workers[0].sends_twice, true);
    prepare_long(&s, upstream_draw_ids(house.u, 1));
    s.submit.want_prompt_logprobs = false;
    s.submit.max_tokens = 0;
    s.submit.pooling = LLMD__POOLING__POOL_MEAN;
    upstream_submit(house.u, &s);
    turn_until(s.state == SEQUENCE_ENDED);
    assert_int_equal(s.finish, LLMD__FINISH__FINISH_EMBEDDED);
    assert_int_equal(s.fault.kind, FAULT_NONE);
    assert_int_equal(s.n_embedding, FAKE_EMBEDDING);
    key = fake_key(long_prompt, N_LONG, 99);
    for (uint32_t i = 0; i < FAKE_EMBEDDING; i++)
        assert_true(s.embedding[i] == fake_embedding(key, LLMD__POOLING__POOL_MEAN, i));
    sequence_fini(&s);
    close_house();
}

/* ---- sequences that outlive a gateway ---- */

/* A successor would look for them in the ledger: until the answer is out they stay there, over the
 * restart of the worker too. */
static void finished_sequences_are_acknowledged_when_released(void **state)
{
    struct fake_worker *w = &house.workers[0];
    uint32_t n_resyncs;

    (void)state;
    open_house(1, 1);
    house.keeps_finished = true;
    submit_all();
    turn_until(all_ended());
    for (int i = 0; i < 100; i++)
        turn();
    assert_int_equal(atomic_load(&w->n_acks), 0);
    assert_int_equal(atomic_load(&w->n_live), N_SEQUENCES);
    assert_int_equal(upstream_n_sequences(house.u), N_SEQUENCES);
    n_resyncs = atomic_load(&w->n_resyncs);
    atomic_store(&w->restart, 1);
    turn_until(atomic_load(&w->n_resyncs) > n_resyncs);
    for (int i = 0; i < 100; i++)
        turn();
    assert_int_equal(atomic_load(&w->n_live), N_SEQUENCES);
    for (int i = 0; i < N_SEQUENCES; i++) {
        assert_int_equal(house.sequences[i].n_tokens, MAX_TOKENS);
        upstream_release(house.u, &house.sequences[i]);
    }
    turn_until(atomic_load(&w->n_acks) == N_SEQUENCES);
    turn_until(atomic_load(&w->n_live) == 0);
    close_house();
}

/* Else requests whose sequences are half finished would wait for each other's room for ever. */
static void a_full_group_is_acknowledged_early(void **state)
{
    struct fake_worker *w = &house.workers[0];

    (void)state;
    open_house(1, 1);
    house.keeps_finished = true;
    atomic_store(&w->live_max, 3);
    submit_all();
    turn_until(all_ended());
    expect_exact_tokens();
    assert_true(atomic_load(&w->n_acks) >= N_SEQUENCES - 3);
    close_house();
}

enum { N_ADOPTED = 4 };

static void adopt(struct sequence *s, int i, uint64_t id, uint32_t group)
{
    sequence_init(s);
    s->id = id;
    s->submit.prompt = house.prompts[i];
    s->submit.n_prompt = N_PROMPT;
    s->submit.max_tokens = MAX_TOKENS;
    s->sampling.seed = (uint64_t)i;
    s->sampling.temperature = 1;
    s->sampling.want_logprobs = i % 2;
    s->sampling.top_logprobs = i % 2 ? 2 : 0;
    s->on_progress = on_progress;
    s->owner = &house;
    upstream_adopt(house.u, s, group);
}

static bool all_adopted_ended(const struct sequence *adopted)
{
    for (int i = 0; i < N_ADOPTED; i++)
        if (adopted[i].state != SEQUENCE_ENDED)
            return false;
    return true;
}

/* Those of a dead gateway: all their tokens from the first; what no group knows is made again, and comes out
 * the same. */
static void adopted_sequences_come_whole(void **state)
{
    struct sequence adopted[N_ADOPTED] = { 0 };
    struct upstream *dead;
    struct err e;

    (void)state;
    open_house(1, 1);
    house.keeps_finished = true;
    submit_all();
    turn_until(all_ended());
    dead = house.u;
    house.config.gateway_epoch++;
    house.config.instance = house.instance;
    house.u =
        upstream_new(&house.config, &e); /* the same peer: the worker speaks with this one now */
    assert_non_null(house.u);
    adopt(&adopted[0], 0, house.sequences[0].id, 0);
    adopt(&adopted[1], 1, house.sequences[1].id, 0);
    adopt(&adopted[2], 2, 0x7777, 0);                        /* lost by the worker */
    adopt(&adopted[3], 3, 0x8888, UPSTREAM_GROUPS_MAX + 10); /* never submitted */
    assert_int_equal(atomic_load(&house.load[0]), 3);
    turn_until(all_adopted_ended(adopted));
    assert_int_equal(atomic_load(&house.workers[0].n_submits), N_SEQUENCES + 2);
    assert_int_equal(stat_get(&house.stats, STAT_sequences_resubmitted), 1);
    for (int i = 0; i < N_ADOPTED; i++) {
        assert_int_equal(adopted[i].n_tokens, MAX_TOKENS);
        assert_memory_equal(adopted[i].tokens, house.sequences[i].tokens,
                            MAX_TOKENS * sizeof *adopted[i].tokens);
        upstream_release(house.u, &adopted[i]);
        sequence_fini(&adopted[i]);
    }
    turn_until(atomic_load(&house.workers[0].n_live) == 0);
    upstream_free(house.u);
    house.u = dead;
    close_house();
}

static void resync_again(uint32_t n_before)
{
    while (atomic_load(&house.workers[0].n_resyncs) == n_before) {
        upstream_tick(house.u, clock_mono_ns());
        fake_worker_step(&house.workers[0]);
        usleep(200);
    }
}

/* Two RESYNCs are under way before the first is answered, and the second's "unknown" comes after the sequence was
 * submitted again, with all its tokens behind it. */
static void a_late_unknown_loses_nothing(void **state)
{
    struct sequence adopted[2] = { 0 };

    (void)state;
    open_house(1, 1);
    house.keeps_finished = true;
    turn_until(house.n_hellos == 1 && atomic_load(&house.workers[0].n_resyncs) == 1);
    adopt(&adopted[0], 0, 0x7777, 0); /* lost by the worker */
    resync_again(1);
    adopt(&adopted[1], 1, 0x8888, 0);
    usleep(120 * 1000); /* so that the next RESYNC is due */
    upstream_tick(house.u, clock_mono_ns());
    upstream_receive(house.u, 0);
    assert_int_equal(adopted[0].state, SEQUENCE_SUBMITTED);
    for (int i = 0; i < 2000 && atomic_load(&house.workers[0].n_submits) < 1; i++, usleep(1000))
        fake_worker_step(&house.workers[0]);
    for (int i = 0; i < 2 * MAX_TOKENS; i++)
        fake_worker_step(&house.workers[0]);
    usleep(50 * 1000); /* so that all of it is read at once */
    for (int i = 0; i < 2000 && adopted[1].state != SEQUENCE_SUBMITTED; i++, usleep(1000))
        upstream_receive(house.u, 0);
    turn_until(adopted[0].state == SEQUENCE_ENDED && adopted[1].state == SEQUENCE_ENDED);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(adopted[i].n_tokens, MAX_TOKENS);
        upstream_release(house.u, &adopted[i]);
        sequence_fini(&adopted[i]);
    }
    close_house();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_drawn_once),
        cmocka_unit_test(tokens_arrive_and_are_acknowledged),
        cmocka_unit_test(duplicates_are_dropped_and_counted),
        cmocka_unit_test(restart_is_answered_with_what_is_held),
        cmocka_unit_test(lost_sequences_are_submitted_again_with_their_tokens),
        cmocka_unit_test(tokens_are_submitted_with_their_log_probabilities),
        cmocka_unit_test(load_is_shared_and_a_lost_group_replaced),
        cmocka_unit_test(full_group_keeps_the_order),
        cmocka_unit_test(nobody_in_service_ends_in_a_fault),
        cmocka_unit_test(cancelled_sequences_are_forgotten_everywhere),
        cmocka_unit_test(prompt_logprobs_are_whole_before_the_first_token),
        cmocka_unit_test(prompt_logprobs_come_to_a_successor_too),
        cmocka_unit_test(a_prompt_alone_can_be_measured),
        cmocka_unit_test(an_embedding_is_the_answer),
        cmocka_unit_test(finished_sequences_are_acknowledged_when_released),
        cmocka_unit_test(a_full_group_is_acknowledged_early),
        cmocka_unit_test(adopted_sequences_come_whole),
        cmocka_unit_test(a_late_unknown_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
