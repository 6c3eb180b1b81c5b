/* fake_worker.c - the worker's side of the protocol, without a model. */
#include "tests/gateway/fake_worker.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"

const char fake_script[] = "<think>\nI need to look.\n</think>Let me see.\n<tool_call>\n{\"name\": "
                           "\"weather\", \"arguments\": "
                           "{\"city\": \"Z\u00fcrich\", \"days\": [1, "
                           "2]}}\n</tool_call>\n<tool_call>\n{\"name\": \"clock\", "
                           "\"arguments\": {}}\n</tool_call>";

uint64_t fake_key(const int32_t *prompt, size_t n, uint64_t seed)
{
    uint64_t h = 14695981039346656037u ^ seed;

    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint32_t)prompt[i]) * 1099511628211u;
    return h;
}

int32_t fake_token(uint64_t key, uint32_t i)
{
    uint64_t z = key + (i + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z ^= z >> 27;
    return FAKE_FIRST_TOKEN + (int32_t)(z % FAKE_N_TOKENS);
}

float fake_logprob(uint64_t key, uint32_t i)
{
    return -(float)(fake_token(key, i) % 64) / 16.0f - 0.0625f; /* exact in binary and decimal */
}

float fake_prompt_logprob(uint64_t key, uint32_t i)
{
    return fake_logprob(~key, i);
}

float fake_embedding(uint64_t key, Llmd__Pooling pooling, uint32_t i)
{
    return fake_logprob(key + (uint64_t)pooling, 1000 + i) + 2;
}

static struct fake_sequence *find(struct fake_worker *w, uint64_t id)
{
    struct fake_sequence *s = w->ledger;

    while (s && s->id != id)
        s = s->next;
    return s;
}

static void forget(struct fake_worker *w, uint64_t id)
{
    for (struct fake_sequence **at = &w->ledger; *at; at = &(*at)->next) {
        struct fake_sequence *s = *at;
        if (s->id != id)
            continue;
        *at = s->next;
        free(s);
        w->n_live--;
        return;
    }
}

bool fake_worker_open(struct fake_worker *w, const char *instance, uint32_t group, struct err *e)
{
    memset(w, 0, sizeof *w);
    snprintf(w->instance, sizeof w->instance, "%s", instance);
    w->group = group;
    w->epoch = 1;
    w->link = link_bind(instance, group, e);
    return w->link != NULL;
}

void fake_worker_close(struct fake_worker *w)
{
    link_close(w->link);
    w->link = NULL;
    while (w->ledger)
        forget(w, w->ledger->id);
}

/* ---- sending ---- */

/* One whose queue is full, or who is not connected, is greeted later: then it asks again. */
static void reply(struct fake_worker *w, uint32_t peer, enum msg_type type, const void *message)
{
    assert(peer < FAKE_PEERS_MAX);
    w->hello_due[peer] |= !link_send(w->link, peer, type, message);
}

static void send_hello(struct fake_worker *w, uint32_t peer)
{
    Llmd__Hello m = LLMD__HELLO__INIT;

    m.group = w->group;
    m.epoch = w->epoch;
    m.max_model_len = 512;
    m.vocab_size = 2048;
    m.sequences_max = 128;
    m.kv_pages = 1000;
    m.kv_page_tokens = 16;
    m.logprobs_max = 20;
    m.pid = (uint32_t)getpid();
    reply(w, peer, MSG_HELLO, &m);
}

static void send_due_hellos(struct fake_worker *w)
{
    for (uint32_t peer = 0; peer < FAKE_PEERS_MAX; peer++) {
        if (!w->hello_due[peer])
            continue;
        w->hello_due[peer] = false;
        send_hello(w, peer);
    }
}

/* One entry with n_top alternatives: `token` is the one of this rank, the others are named by their place. */
static Llmd__TokenLogprob *new_logprob(int32_t token, float logprob, uint32_t rank, uint32_t n_top)
{
    Llmd__TokenLogprob *lp = mem_alloc(sizeof *lp);

    llmd__token_logprob__init(lp);
    lp->logprob = logprob;
    lp->rank = rank;
    lp->top = mem_zalloc(n_top + 1, sizeof *lp->top);
    lp->n_top = n_top;
    for (uint32_t k = 0; k < n_top; k++) {
        lp->top[k] = mem_alloc(sizeof **lp->top);
        llmd__top_logprob__init(lp->top[k]);
        lp->top[k]->token = k + 1 == rank ? token : FAKE_FIRST_TOKEN + (int32_t)k;
        lp->top[k]->logprob = logprob + (float)rank - 1 - (float)k;
    }
    return lp;
}

static void fill_logprobs(const struct fake_sequence *s, uint32_t from, Llmd__SequenceTokens *m)
{
    m->logprobs = mem_zalloc(m->n_tokens + 1, sizeof *m->logprobs);
    m->n_logprobs = m->n_tokens;
    for (uint32_t i = 0; i < m->n_tokens; i++)
        m->logprobs[i] =
            new_logprob(s->tokens[from + i], fake_logprob(s->key, from + i), 1, s->n_top);
}

static void fill_prompt(const struct fake_sequence *s, Llmd__SequenceTokens *m)
{
    uint32_t n = s->n_prompt - s->n_prompt_sent;

    m->prompt_index = s->n_prompt_sent;
    m->n_prompt_logprobs = n < FAKE_PROMPT_PIECE ? n : FAKE_PROMPT_PIECE;
    m->prompt_logprobs = mem_zalloc(m->n_prompt_logprobs + 1, sizeof *m->prompt_logprobs);
    for (uint32_t i = 0; i < m->n_prompt_logprobs; i++) {
        uint32_t at = m->prompt_index + i;
        m->prompt_logprobs[i] =
            at == 0
                ? new_logprob(0, 0, 0, 0)
                : new_logprob(s->prompt[at], fake_prompt_logprob(s->key, at), 2, s->n_prompt_top);
    }
}

static void free_logprobs(Llmd__TokenLogprob **list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < list[i]->n_top; k++)
            free(list[i]->top[k]);
        free(list[i]->top);
        free(list[i]);
    }
    free(list);
}

static bool send_one(struct fake_worker *w, const struct fake_sequence *s,
                     Llmd__SequenceTokens *one)
{
    Llmd__Tokens m = LLMD__TOKENS__INIT;
    bool sent;

    one->sequence_id = s->id;
    m.group = w->group;
    m.epoch = w->epoch;
    m.sequences = &one;
    m.n_sequences = 1;
    sent = link_send(w->link, s->peer, MSG_TOKENS, &m);
    if (atomic_load(&w->sends_twice))
        link_send(w->link, s->peer, MSG_TOKENS, &m);
    return sent;
}

/* The log probabilities of its prompt that were not sent yet, in pieces.  False: the gateway is behind. */
static bool send_prompt(struct fake_worker *w, struct fake_sequence *s)
{
    while (s->n_prompt_sent < s->n_prompt) {
        Llmd__SequenceTokens one = LLMD__SEQUENCE_TOKENS__INIT;
        bool sent;
        fill_prompt(s, &one);
        sent = send_one(w, s, &one);
        free_logprobs(one.prompt_logprobs, one.n_prompt_logprobs);
        if (!sent)
            return false;
        s->n_prompt_sent += (uint32_t)one.n_prompt_logprobs;
        w->n_prompt_logprobs += (uint32_t)one.n_prompt_logprobs;
    }
    return true;
}

static void send_tokens(struct fake_worker *w, struct fake_sequence *s, uint32_t from)
{
    Llmd__SequenceTokens one = LLMD__SEQUENCE_TOKENS__INIT;
    float embedding[FAKE_EMBEDDING];
    char error[] = "injected failure";
    char none[] = "";

    if (!send_prompt(w, s))
        return;
    one.index = from;
    one.tokens = s->tokens + from;
    one.n_tokens = s->n_tokens - from;
    one.finish = s->finish;
    one.error = s->finish == LLMD__FINISH__FINISH_ERROR ? error : none;
    one.queue_ns = 1000000;
    if (s->want_logprobs)
        fill_logprobs(s, from, &one);
    if (s->finish == LLMD__FINISH__FINISH_EMBEDDED) {
        one.embedding = embedding;
        one.n_embedding = FAKE_EMBEDDING;
        for (uint32_t i = 0; i < FAKE_EMBEDDING; i++)
            embedding[i] = fake_embedding(s->key, s->pooling, i);
    }
    if (send_one(w, s, &one)) { /* else the gateway is behind: again later */
        s->n_sent = s->n_tokens;
        s->finish_sent = s->finish != LLMD__FINISH__FINISH_NONE;
    }
    free_logprobs(one.logprobs, one.n_logprobs);
}

static void send_unknown(struct fake_worker *w, uint32_t peer, uint64_t id)
{
    Llmd__SequenceTokens one = LLMD__SEQUENCE_TOKENS__INIT;
    Llmd__SequenceTokens *list[1] = { &one };
    Llmd__Tokens m = LLMD__TOKENS__INIT;

    one.sequence_id = id;
    one.finish = LLMD__FINISH__FINISH_UNKNOWN;
    m.group = w->group;
    m.epoch = w->epoch;
    m.sequences = list;
    m.n_sequences = 1;
    reply(w, peer, MSG_TOKENS, &m);
}

/* ---- receiving ---- */

/* The sequence belongs to the peer that speaks of it; it goes on from what that holds. */
static void deliver_from(struct fake_worker *w, struct fake_sequence *s, uint32_t peer,
                         size_t n_held)
{
    s->peer = peer;
    s->n_sent = n_held < s->n_tokens ? (uint32_t)n_held : s->n_tokens;
    s->n_prompt_sent = s->wants_prompt && n_held == 0 ? 0 : s->n_prompt;
    s->finish_sent = false;
    if (s->n_sent < s->n_tokens || s->finish != LLMD__FINISH__FINISH_NONE)
        send_tokens(w, s, s->n_sent);
}

static bool is_full(struct fake_worker *w)
{
    uint32_t live_max = atomic_load(&w->live_max);

    if (atomic_load(&w->refuse_first) > 0) {
        w->refuse_first--;
        return true;
    }
    return live_max > 0 && atomic_load(&w->n_live) >= live_max;
}

static void take_submit(struct fake_worker *w, uint32_t peer, const Llmd__Submit *m)
{
    Llmd__Accepted accepted = LLMD__ACCEPTED__INIT;
    struct fake_sequence *s = find(w, m->sequence_id);

    w->n_submits++;
    w->last_priority = m->priority;
    if (!s && is_full(w)) {
        Llmd__Refused refused = LLMD__REFUSED__INIT;
        refused.sequence_id = m->sequence_id;
        refused.reason = LLMD__REFUSE_REASON__REFUSE_FULL;
        reply(w, peer, MSG_REFUSED, &refused);
        return;
    }
    if (!s) {
        s = mem_zalloc(1, sizeof *s);
        s->next = w->ledger;
        w->ledger = s;
        w->n_live++;
        s->id = m->sequence_id;
        assert(m->n_prompt <= FAKE_TOKENS_MAX);
        memcpy(s->prompt, m->prompt, m->n_prompt * sizeof *s->prompt);
        s->n_prompt = (uint32_t)m->n_prompt;
        s->wants_prompt = m->want_prompt_logprobs;
        s->n_prompt_top = m->prompt_top_logprobs;
        s->pooling = m->pooling;
        s->max_tokens = m->max_tokens < FAKE_TOKENS_MAX ? m->max_tokens : FAKE_TOKENS_MAX;
        s->min_tokens = m->min_tokens;
        s->key =
            fake_key(m->prompt, m->n_prompt, m->sampling->temperature == 0 ? 0 : m->sampling->seed);
        s->script = m->sampling->seed == FAKE_SCRIPT_SEED ? fake_script : atomic_load(&w->says);
        s->ignore_eos = m->ignore_eos;
        s->want_logprobs = m->sampling->want_logprobs;
        s->n_top = m->sampling->top_logprobs;
        s->n_tokens = s->n_sent = (uint32_t)m->n_generated;
        if (m->n_generated)
            memcpy(s->tokens, m->generated, m->n_generated * sizeof *s->tokens);
        w->n_resubmitted_tokens += (uint32_t)m->n_generated;
    }
    accepted.sequence_id = s->id;
    accepted.n_prompt = (uint32_t)m->n_prompt;
    reply(w, peer, MSG_ACCEPTED, &accepted);
    deliver_from(w, s, peer, m->n_generated);
}

static bool is_listed(const Llmd__Resync *m, uint64_t id)
{
    for (size_t i = 0; i < m->n_held; i++)
        if (m->held[i]->sequence_id == id)
            return true;
    return false;
}

static void take_resync(struct fake_worker *w, uint32_t peer, const Llmd__Resync *m)
{
    struct fake_sequence *next;

    w->n_resyncs++;
    w->n_held_listed += (uint32_t)m->n_held;
    for (struct fake_sequence *s = w->ledger; s; s = next) {
        next = s->next;
        if (s->peer == peer && !is_listed(m, s->id))
            forget(w, s->id);
    }
    for (size_t i = 0; i < m->n_held; i++) {
        struct fake_sequence *s = find(w, m->held[i]->sequence_id);
        if (!s) {
            send_unknown(w, peer, m->held[i]->sequence_id);
            continue;
        }
        deliver_from(w, s, peer, m->held[i]->n_tokens);
    }
}

static void take(struct fake_worker *w, const struct link_msg *m)
{
    const Llmd__Cancel *ids = m->body;

    switch (m->type) {
    case MSG_SUBMIT:
        take_submit(w, m->peer, m->body);
        break;
    case MSG_RESYNC:
        take_resync(w, m->peer, m->body);
        break;
    case MSG_CANCEL:
        w->n_cancels += (uint32_t)ids->n_sequence_id;
        for (size_t i = 0; i < ids->n_sequence_id; i++)
            forget(w, ids->sequence_id[i]);
        break;
    case MSG_ACK:
        w->n_acks += (uint32_t)((const Llmd__Ack *)m->body)->n_sequence_id;
        for (size_t i = 0; i < ((const Llmd__Ack *)m->body)->n_sequence_id; i++)
            forget(w, ((const Llmd__Ack *)m->body)->sequence_id[i]);
        break;
    default:
        break;
    }
}

static void receive_all(struct fake_worker *w)
{
    for (;;) {
        struct link_msg m;
        struct err e;
        switch (link_recv(w->link, &m, &e)) {
        case LINK_OK:
            take(w, &m);
            frame_free_body(m.body);
            break;
        case LINK_CONNECTED:
            w->n_connects++;
            if (!atomic_load(&w->is_silent))
                send_hello(w, m.peer);
            break;
        case LINK_FAILED:
            break;
        case LINK_EMPTY:
            return;
        }
    }
}

/* ---- generating ---- */

static void make_token(struct fake_worker *w, struct fake_sequence *s)
{
    uint32_t eos_at = atomic_load(&w->eos_at), fail_at = atomic_load(&w->fail_at), i;

    if (s->max_tokens == 0) {
        s->finish = s->pooling ? LLMD__FINISH__FINISH_EMBEDDED : LLMD__FINISH__FINISH_LENGTH;
        return;
    }
    i = s->n_tokens++;
    s->tokens[i] = fake_token(s->key, i);
    if (s->script)
        s->tokens[i] = (unsigned char)s->script[i] + FAKE_BYTE_TOKEN;
    if (fail_at && s->n_tokens >= fail_at)
        s->finish = LLMD__FINISH__FINISH_ERROR;
    else if ((s->script && s->script[i] == '\0') ||
             (eos_at && s->n_tokens >= eos_at && !s->ignore_eos && s->n_tokens > s->min_tokens)) {
        s->tokens[i] = FAKE_EOS;
        s->finish = LLMD__FINISH__FINISH_EOS;
    } else if (s->n_tokens >= s->max_tokens)
        s->finish = LLMD__FINISH__FINISH_LENGTH;
}

static void generate(struct fake_worker *w)
{
    uint64_t now_ns = clock_mono_ns();

    send_due_hellos(w);
    if (atomic_load(&w->is_paused) || now_ns < w->next_step_ns)
        return;
    w->next_step_ns = now_ns + atomic_load(&w->step_us) * 1000ull;
    for (struct fake_sequence *s = w->ledger; s; s = s->next) {
        if (s->finish != LLMD__FINISH__FINISH_NONE) {
            if (!s->finish_sent)
                send_tokens(w, s, s->n_sent);
            continue;
        }
        make_token(w, s);
        send_tokens(w, s, s->n_sent);
    }
}

static void start_again(struct fake_worker *w, bool loses_ledger)
{
    struct err e;

    link_close(w->link);
    while (loses_ledger && w->ledger)
        forget(w, w->ledger->id);
    w->epoch++;
    for (int i = 0; i < 100 && !(w->link = link_bind(w->instance, w->group, &e)); i++)
        usleep(10000);
    if (!w->link)
        abort();
}

void fake_worker_step(struct fake_worker *w)
{
    uint32_t restart = atomic_exchange(&w->restart, 0);

    if (restart)
        start_again(w, restart == 2);
    receive_all(w);
    if (!atomic_load(&w->is_silent))
        generate(w);
}

static void *run(void *arg)
{
    struct fake_worker *w = arg;

    while (!atomic_load(&w->must_stop)) {
        fake_worker_step(w);
        usleep(200);
    }
    return NULL;
}

void fake_worker_run(struct fake_worker *w)
{
    atomic_store(&w->must_stop, false);
    if (pthread_create(&w->thread, NULL, run, w) != 0)
        abort();
}

void fake_worker_join(struct fake_worker *w)
{
    atomic_store(&w->must_stop, true);
    pthread_join(w->thread, NULL);
}
