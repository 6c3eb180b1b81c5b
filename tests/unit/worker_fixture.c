/* worker_fixture.c - see worker_fixture.h. */
#include "worker_fixture.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/check.h"

enum { OF_FIRST = 60 }; /* tokens of the first of SHARING */

const char *const one_rank[] = { "model", DEMO,        "max_num_seqs", "64", "threads",
                                 "2",     "log_level", "warning",      NULL };
const char *const two_ranks[] = { "model",        DEMO, "tp_size",   "2",       "threads", "1",
                                  "max_num_seqs", "8",  "log_level", "warning", NULL };

const int32_t story[STORY_TOKENS] = { 1, 403, 409, 261, 369 };

void fixture_init(struct fixture *f, uint32_t tp_size, const char *const *set)
{
    worker_rig_init(&f->rig, tp_size, set);
    worker_rig_start(&f->rig);
    client_open(&f->client, f->rig.instance, 7);
}

void fixture_fini(struct fixture *f)
{
    client_close(&f->client);
    worker_rig_fini(&f->rig);
}

void wait_until_clean(struct fixture *f)
{
    uint64_t end = clock_mono_ns() + 10 * NS_PER_S;

    while (stat_get(worker_rig_stats(&f->rig), STAT_ledger_entries_used) > 0) {
        poll(NULL, 0, 1);
        assert_true(clock_mono_ns() < end);
    }
    worker_rig_assert_clean(&f->rig);
}

void reload(struct worker_process *p, const char *name, const char *value)
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

struct client_request endless(uint32_t max_tokens)
{
    struct client_request r = client_request(story, STORY_TOKENS, max_tokens);

    r.ignore_eos = true;
    return r;
}

struct client_request stream_request(uint32_t i, int32_t *prompt)
{
    uint32_t n = 1 + i * 11 % 90;
    struct client_request r;

    prompt[0] = 1;
    for (uint32_t k = 1; k < PROMPT_MAX; k++)
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

void compare_streams(const struct client_stream *a, const struct client_stream *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->finish, b->finish);
}

struct client_request sharing_request(uint32_t i, int32_t *prompt)
{
    struct client_request r = stream_request(8 * i + 1, prompt);

    for (uint32_t k = 1; k < SHARED; k++)
        prompt[k] = (int32_t)(259 + k * 17 % 1700);
    for (uint32_t k = SHARED; k < PROMPT_MAX; k++)
        prompt[k] = (int32_t)(300 + 100 * i + k);
    r.n_prompt = i == 0 ? OF_FIRST : SHARED + 5 + 3 * i;
    r.max_tokens = i == 0 ? 3 : 12; /* its page is never full: it is copied while it is open */
    return r;
}

/* At once: the worker stands still until all have been sent, for the first is over in some milliseconds. */
void submit_sharing(struct fixture *f, uint64_t id, int32_t prompts[SHARING][PROMPT_MAX],
                    bool at_once)
{
    enum { SENDING_US = 50000 };
    pid_t pid = f->rig.ranks[0].pid;

    if (at_once)
        assert_int_equal(kill(pid, SIGSTOP), 0);
    for (uint32_t i = 0; i < SHARING; i++) {
        struct client_request r = sharing_request(i, prompts[i]);
        client_submit(&f->client, id + i, &r);
        if (!at_once)
            worker_until_all_over(&f->client);
    }
    if (at_once) {
        usleep(SENDING_US);
        assert_int_equal(kill(pid, SIGCONT), 0);
    }
    worker_until_all_over(&f->client);
}

void readings_init(struct readings *x)
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

void submit_readings(struct client *c, uint64_t first_id, const struct readings *x)
{
    client_submit(c, first_id, &x->measured);
    client_submit(c, first_id + 1, &x->mean);
    client_submit(c, first_id + 2, &x->last);
}

void compare_readings(const struct client *a, const struct client *b, uint32_t at)
{
    compare_streams(&a->streams[0], &b->streams[at]);
    assert_int_equal(b->streams[at].n_prompt, READ);
    assert_memory_equal(a->streams[0].prompt, b->streams[at].prompt, sizeof a->streams[0].prompt);
    for (uint32_t i = 1; i < 3; i++) {
        assert_int_equal(b->streams[at + i].finish, LLMD__FINISH__FINISH_EMBEDDED);
        assert_int_equal(b->streams[at + i].n_embedding, 256);
        assert_memory_equal(a->streams[i].embedding, b->streams[at + i].embedding,
                            sizeof a->streams[i].embedding);
    }
}
