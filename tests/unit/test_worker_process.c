/* test_worker_process.c - the real llm-worker and the demo model; the test is its llmd and its gateway.
 *
 * What would break in production: text that depends on who else is served or on a crash, a worker that
 * does not start, stop, drain or say why. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "proto/weights_layout.h"
#include "worker_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

#ifdef __SANITIZE_THREAD__
enum { GREEDY = 64, N_STREAMS = 16 }; /* the model is some twenty times slower there */
#else
enum { GREEDY = 64, N_STREAMS = 64 };
#endif

static const char *const settings[] = { "model", DEMO,        "max_num_seqs", "64", "threads",
                                        "2",     "log_level", "warning",      NULL };

struct fixture {
    struct worker_rig rig;
    struct client client;
};

static void fixture_init(struct fixture *f, uint32_t tp_size, const char *const *set)
{
    worker_rig_init(&f->rig, tp_size, set);
    worker_rig_start(&f->rig);
    client_open(&f->client, f->rig.instance, 7);
}

static void fixture_fini(struct fixture *f)
{
    client_close(&f->client);
    worker_rig_fini(&f->rig);
}

static const int32_t story[] = { 1, 403, 409, 261, 369 }; /* "Once upon a time" */

static struct client_request endless(uint32_t max_tokens)
{
    struct client_request r = client_request(story, 5, max_tokens);

    r.ignore_eos = true;
    return r;
}

/* ---- inspect ---- */

static void inspect_describes_the_model(void **state)
{
    char fatal[240] = "";
    Llmd__ModelPlan *plan = worker_inspect(settings, fatal);

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
    worker_rig_init(&r, 1, settings);
    r.epoch = 1;
    worker_spawn(&r.ranks[0], false);
    worker_send_boot(&r, 0, false);
    worker_expect(&r.ranks[0], MSG_FATAL, &m);
    assert_non_null(strstr(((const Llmd__Fatal *)m.body)->message, "board"));
    control_msg_fini(&m);
    assert_int_equal(worker_reap(&r.ranks[0]), 1);
    worker_rig_fini(&r);
}

/* ---- text ---- */

static uint32_t read_ids(const json_t *list, int32_t *ids)
{
    uint32_t n = (uint32_t)json_array_size(list);

    assert_true(n > 0 && n <= GREEDY);
    for (uint32_t i = 0; i < n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return n;
}

static void check_golden(uint32_t tp_size, const char *const *set)
{
    int32_t prompts[16][GREEDY], greedy[GREEDY];
    struct err e;
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *list, *item;
    struct fixture f;
    size_t i;

    assert_non_null(golden);
    list = json_object_get(golden, "prompts");
    assert_in_range(json_array_size(list), 1, 16);
    fixture_init(&f, tp_size, set);
    assert_int_equal(f.rig.n_loaded, tp_size);
    json_array_foreach (list, i, item) {
        uint32_t n = read_ids(json_object_get(item, "ids"), prompts[i]);
        struct client_request r = client_request(prompts[i], n, GREEDY);
        r.ignore_eos = true;
        client_submit(&f.client, 1 + i, &r);
    }
    worker_until_all_over(&f.client);
    json_array_foreach (list, i, item) {
        assert_int_equal(read_ids(json_object_get(item, "greedy_ids"), greedy), GREEDY);
        assert_int_equal(f.client.streams[i].n, GREEDY);
        assert_memory_equal(f.client.streams[i].tokens, greedy, sizeof greedy);
        assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_LENGTH);
    }
    json_decref(golden);
    fixture_fini(&f);
}

static void greedy_tokens_are_the_golden_ones(void **state)
{
    (void)state;
    check_golden(1, settings);
}

static void two_ranks_give_the_golden_tokens(void **state)
{
    const char *const two[] = { "model",        DEMO, "tp_size",   "2",       "threads", "1",
                                "max_num_seqs", "8",  "log_level", "warning", NULL };

    (void)state;
    check_golden(2, two);
}

/* 64 different requests: greedy and sampled, short and chunked prompts, penalties, log probabilities. */
static struct client_request stream_request(uint32_t i, int32_t *prompt)
{
    uint32_t n = 1 + i * 11 % 90;
    struct client_request r;

    prompt[0] = 1;
    for (uint32_t k = 1; k < 90; k++)
        prompt[k] = (int32_t)(259 + (i * 131 + k * 17) % 1700);
    memcpy(prompt + 1, story + 1, 4 * sizeof *story);
    r = client_request(prompt, n, 12 + i % 20);
    r.sampling.seed = 1000 + i;
    r.sampling.temperature = i % 4 == 0 ? 0 : 0.8f;
    r.sampling.top_p = i % 3 == 1 ? 0.9f : 0;
    r.sampling.top_k = i % 3 == 2 ? 50 : 0;
    r.sampling.repetition_penalty = i % 5 == 1 ? 1.2f : 0;
    r.sampling.frequency_penalty = i % 5 == 2 ? 0.5f : 0;
    r.sampling.want_logprobs = i % 2;
    r.sampling.top_logprobs = i % 2 ? 3 : 0;
    return r;
}

static void compare(const struct client_stream *a, const struct client_stream *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->finish, b->finish);
}

static void streams_in_company_equal_their_solo_runs(void **state)
{
    static int32_t prompts[N_STREAMS][90];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, settings);
    for (uint32_t i = 0; i < N_STREAMS; i++) {
        struct client_request r = stream_request(i, prompts[i]);
        client_submit(&f.client, 1 + i, &r);
        worker_until_all_over(&f.client); /* alone */
    }
    for (uint32_t i = 0; i < N_STREAMS; i++) {
        struct client_request r = stream_request(i, prompts[i]);
        client_submit(&f.client, 1001 + i, &r);
    }
    worker_until_all_over(&f.client);
    for (uint32_t i = 0; i < N_STREAMS; i++)
        compare(&f.client.streams[i], &f.client.streams[N_STREAMS + i]);
    fixture_fini(&f);
}

/* Computed, found in the cache, and with no cache at all: the same bits. */
static void a_prefix_found_gives_the_same_bits_as_one_computed(void **state)
{
    enum { N = 12 };
    static int32_t prompts[N][90];
    /* and without drafts, which the others have */
    const char *const off[] = { "speculate",    "off",     "model", DEMO,        "max_num_seqs",
                                "64",           "threads", "2",     "log_level", "warning",
                                "prefix_cache", "off",     NULL };
    struct fixture f, g;

    (void)state;
    fixture_init(&f, 1, settings);
    fixture_init(&g, 1, off);
    for (uint32_t i = 0; i < 3 * N; i++) {
        struct client_request r = stream_request(2 * (i % N) + 1, prompts[i % N]);
        client_submit(i < 2 * N ? &f.client : &g.client, 1 + i, &r);
        worker_until_all_over(i < 2 * N ? &f.client : &g.client);
    }
    for (uint32_t i = 0; i < N; i++) {
        const struct client_stream *again = &f.client.streams[N + i];
        compare(&f.client.streams[i], again);
        compare(&f.client.streams[i], &g.client.streams[i]);
        assert_true(again->n_cached >= (again->request.n_prompt - 1) / 16 * 16);
    }
    assert_true(stat_get(worker_rig_stats(&f.rig), STAT_prefix_cache_hits) > 0);
    assert_int_equal(stat_get(worker_rig_stats(&g.rig), STAT_prefix_cache_hits), 0);
    fixture_fini(&g);
    fixture_fini(&f);
}

/* Prompts whose common part ends inside a page, by the number of ranks and the format of KV. */
enum { SHARING = 6, SHARED = 57, OF_FIRST = 60, SHARED_MAX = 90 }; /* pages of 16 */

static struct client_request sharing_request(uint32_t i, int32_t *prompt)
{
    struct client_request r = stream_request(8 * i + 1, prompt);

    for (uint32_t k = 1; k < SHARED; k++)
        prompt[k] = (int32_t)(259 + k * 17 % 1700);
    for (uint32_t k = SHARED; k < SHARED_MAX; k++)
        prompt[k] = (int32_t)(300 + 100 * i + k);
    r.n_prompt = i == 0 ? OF_FIRST : SHARED + 5 + 3 * i;
    r.max_tokens = i == 0 ? 3 : 12; /* its page is never full: it is copied while it is open */
    return r;
}

static void submit_sharing(struct fixture *f, uint64_t id, int32_t prompts[SHARING][SHARED_MAX],
                           bool at_once)
{
    for (uint32_t i = 0; i < SHARING; i++) {
        struct client_request r = sharing_request(i, prompts[i]);
        client_submit(&f->client, id + i, &r);
        if (!at_once)
            worker_until_all_over(&f->client);
    }
    worker_until_all_over(&f->client);
}

static void copied_tokens_are_the_same_bits(void **state)
{
    static const char *const shapes[][2] = {
        { "1", "float16" }, { "1", "int8" }, { "2", "float16" }, { "2", "int8" }, { "1", "float32" }
    };

    (void)state;
    for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
        static int32_t prompts[SHARING][SHARED_MAX];
        const char *set[] = { "model",
                              DEMO,
                              "tp_size",
                              shapes[k][0],
                              "kv_cache_dtype",
                              shapes[k][1],
                              "prefix_cache",
                              "off",
                              "max_num_seqs",
                              "8",
                              "threads",
                              "1",
                              "log_level",
                              "warning",
                              NULL };
        uint32_t n_found = 0, tp_size = shapes[k][0][0] == '2' ? 2 : 1;
        struct fixture f, g;
        fixture_init(&g, tp_size, set);
        submit_sharing(&g, 1, prompts, false);
        set[7] = "on";
        fixture_init(&f, tp_size, set);
        submit_sharing(&f, 1, prompts, true);
        for (uint32_t i = 0; i < SHARING; i++) {
            compare(&f.client.streams[i], &g.client.streams[i]);
            n_found += f.client.streams[i].n_cached == SHARED;
        }
        assert_int_equal(n_found, SHARING - 1);
        assert_true(stat_get(worker_rig_stats(&f.rig), STAT_kv_pages_copied) >= SHARING - 1);
        assert_int_equal(stat_get(worker_rig_stats(&f.rig), STAT_prefix_cache_hits),
                         (SHARING - 1) * SHARED);
        fixture_fini(&g);
        fixture_fini(&f);
    }
}

/* Killed twice under load: the weights are mapped, not loaded, and the text is the same. */
static void a_killed_worker_goes_on_where_it_was(void **state)
{
    enum { N = 12 };
    static int32_t prompts[N][90];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, settings);
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
        compare(&f.client.streams[i], &f.client.streams[N + i]);
    fixture_fini(&f);
}

static void reload(struct worker_process *p, const char *name, const char *value)
{
    Llmd__Setting set = LLMD__SETTING__INIT, *sets[] = { &set };
    Llmd__Reload reload = LLMD__RELOAD__INIT;
    struct err e;

    set.name = (char *)(uintptr_t)name;
    set.value = (char *)(uintptr_t)value;
    reload.settings = sets;
    reload.n_settings = 1;
    assert_true(control_send(p->control, MSG_RELOAD, &reload, NULL, 0, &e));
}

enum { N_COMPARED = 6, COMPARED_TOKENS = 40 };

/* Undisturbed runs first, then the same requests again, under other ids. */
struct compared {
    struct fixture f;
    int32_t prompts[N_COMPARED][90];
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
        compare(&k->streams[i], &k->streams[k->n_streams - N_COMPARED + i]);
}

static void wait_until_clean(struct fixture *f)
{
    uint64_t end = clock_mono_ns() + 10 * NS_PER_S;

    while (stat_get(worker_rig_stats(&f->rig), STAT_ledger_entries_used) > 0) {
        poll(NULL, 0, 1);
        assert_true(clock_mono_ns() < end);
    }
    worker_rig_assert_clean(&f->rig);
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
    check_deaths(1, settings, deaths);
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
    static int32_t prompts[SHARING][SHARED_MAX];
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, settings);
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
            compare(&f.client.streams[i], &f.client.streams[first + i]);
    }
    wait_until_clean(&f);
    fixture_fini(&f);
}

/* ---- what is said of a prompt ---- */

enum { READ = 440 };

/* A prompt, and what one has to say to have it measured or embedded. */
struct readings {
    int32_t prompt[READ];
    struct client_request measured, mean, last;
};

static void readings_init(struct readings *x)
{
    for (uint32_t i = 0; i < READ; i++)
        x->prompt[i] = i == 0 ? 1 : (int32_t)(300 + i * i * 7 % 1600);
    x->measured = client_request(x->prompt, READ, 12);
    x->measured.ignore_eos = true;
    x->measured.want_prompt_logprobs = true;
    x->measured.prompt_top_logprobs = 4;
    x->mean = client_request(x->prompt, READ, 0);
    x->mean.pooling = LLMD__POOLING__POOL_MEAN;
    x->last = x->mean;
    x->last.pooling = LLMD__POOLING__POOL_LAST;
}

static void submit_readings(struct client *c, uint64_t first_id, const struct readings *x)
{
    client_submit(c, first_id, &x->measured);
    client_submit(c, first_id + 1, &x->mean);
    client_submit(c, first_id + 2, &x->last);
}

static void compare_readings(const struct client *a, const struct client *b, uint32_t at)
{
    compare(&a->streams[0], &b->streams[at]);
    assert_int_equal(b->streams[at].n_prompt, READ);
    assert_memory_equal(a->streams[0].prompt, b->streams[at].prompt, sizeof a->streams[0].prompt);
    for (uint32_t i = 1; i < 3; i++) {
        assert_int_equal(b->streams[at + i].finish, LLMD__FINISH__FINISH_EMBEDDED);
        assert_int_equal(b->streams[at + i].n_embedding, 256);
        assert_memory_equal(a->streams[i].embedding, b->streams[at + i].embedding,
                            sizeof a->streams[i].embedding);
    }
}

/* What a sampled token was given when it was drawn, it is given when it is part of a prompt: the same bits. */
static void a_prompt_is_measured_as_it_was_generated(void **state)
{
    enum { N = 90 };
    int32_t all[5 + N];
    struct client_request r = endless(N), again;
    const struct client_stream *drawn, *read;
    struct fixture f;

    (void)state;
    fixture_init(&f, 1, settings);
    r.sampling.temperature = 1;
    r.sampling.seed = 4;
    r.sampling.want_logprobs = true;
    drawn = client_submit(&f.client, 1, &r);
    worker_until_all_over(&f.client);
    memcpy(all, story, sizeof story);
    memcpy(all + 5, drawn->tokens, N * sizeof *all);
    again = client_request(all, 5 + N, 0);
    again.want_prompt_logprobs = true;
    again.prompt_top_logprobs = 2;
    read = client_submit(&f.client, 2, &again);
    worker_until_all_over(&f.client);
    assert_int_equal(read->finish, LLMD__FINISH__FINISH_LENGTH);
    assert_int_equal(read->n_prompt, 5 + N);
    for (uint32_t i = 0; i < N; i++) {
        const struct client_measure *m = &read->prompt[5 + i];
        assert_true(m->logprob == drawn->logprobs[i]);
        assert_true(m->rank > 0 && m->top_logprob[0] >= m->logprob);
        if (m->rank == 1)
            assert_int_equal(m->top[0], drawn->tokens[i]);
    }
    fixture_fini(&f);
}

/* In small chunks, in company, by two ranks: the same bits. */
static void what_is_said_of_a_prompt_does_not_depend_on_company(void **state)
{
    const char *const two[] = { "model",
                                DEMO,
                                "tp_size",
                                "2",
                                "threads",
                                "1",
                                "max_num_seqs",
                                "8",
                                "log_level",
                                "error",
                                "max_num_batched_tokens",
                                "24",
                                NULL };
    struct client_request stream = endless(300);
    struct readings x;
    struct fixture f, g;

    (void)state;
    readings_init(&x);
    fixture_init(&f, 1, settings);
    submit_readings(&f.client, 1, &x);
    worker_until_all_over(&f.client);
    fixture_init(&g, 2, two);
    client_submit(&g.client, 1, &stream);
    worker_until_n_tokens(&g.client, &g.client.streams[0], 3);
    submit_readings(&g.client, 10, &x);
    worker_until_all_over(&g.client);
    compare_readings(&f.client, &g.client, 1);
    fixture_fini(&g);
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
        compare_readings(&f.client, &f.client, 3 * (i + 1));
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
    compared_init(&c, 1, settings);
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

/* ---- life and death ---- */

static void drain_finishes_and_exits_with_zero(void **state)
{
    struct fixture f;
    struct client_request r = endless(300);
    struct client_stream *s, *late;
    Llmd__Drain drain = LLMD__DRAIN__INIT;
    struct err e;

    (void)state;
    fixture_init(&f, 1, settings);
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
    Llmd__Setting set = LLMD__SETTING__INIT, *sets[] = { &set };
    Llmd__Reload reload = LLMD__RELOAD__INIT;
    struct err e;

    (void)state;
    fixture_init(&f, 1, settings);
    for (uint32_t i = 0; i < 32; i++)
        client_submit(&f.client, 1 + i, &r);
    worker_until_n_tokens(&f.client, &f.client.streams[31], 1);
    set.name = "drain_timeout_s";
    set.value = "0";
    reload.settings = sets;
    reload.n_settings = 1;
    assert_true(control_send(f.rig.ranks[0].control, MSG_RELOAD, &reload, NULL, 0, &e));
    kill(f.rig.ranks[0].pid, SIGTERM);
    worker_until_all_over(&f.client);
    for (uint32_t i = 0; i < 32; i++) {
        assert_int_equal(f.client.streams[i].finish, LLMD__FINISH__FINISH_ERROR);
        assert_non_null(strstr(f.client.streams[i].text, "shut down"));
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
    fixture_init(&f, 1, settings);
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
    const char *const two[] = { "model",        DEMO, "tp_size",   "2",       "threads", "1",
                                "max_num_seqs", "8",  "log_level", "warning", NULL };
    Llmd__Adopt adopt = LLMD__ADOPT__INIT;
    struct client_request r = endless(100);
    struct fixture f;
    struct err e;

    (void)state;
    fixture_init(&f, 2, two);
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
    const char *const two[] = { "model",        DEMO, "tp_size",   "2",       "threads", "1",
                                "max_num_seqs", "8",  "log_level", "warning", NULL };
    struct fixture f;
    struct client_request r = endless(60);
    struct client_stream *s;

    (void)state;
    fixture_init(&f, 2, two);
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
    fixture_init(&f, 1, settings);
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
        cmocka_unit_test(greedy_tokens_are_the_golden_ones),
        cmocka_unit_test(two_ranks_give_the_golden_tokens),
        cmocka_unit_test(streams_in_company_equal_their_solo_runs),
        cmocka_unit_test(a_prefix_found_gives_the_same_bits_as_one_computed),
        cmocka_unit_test(copied_tokens_are_the_same_bits),
        cmocka_unit_test(a_killed_worker_goes_on_where_it_was),
        cmocka_unit_test(death_at_any_place_changes_no_byte),
        cmocka_unit_test(death_of_either_rank_changes_no_byte),
        cmocka_unit_test(death_while_pages_are_copied_changes_no_byte),
        cmocka_unit_test(a_prompt_is_measured_as_it_was_generated),
        cmocka_unit_test(what_is_said_of_a_prompt_does_not_depend_on_company),
        cmocka_unit_test(death_while_a_prompt_is_read_changes_no_byte),
        cmocka_unit_test(death_before_service_is_made_up_for),
        cmocka_unit_test(flipped_bits_are_found_by_the_successor),
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
