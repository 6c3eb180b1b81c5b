/* gateway_client.c - see gateway_client.h. */
#include "gateway_client.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"

void client_open(struct client *c, const char *instance, uint32_t peer)
{
    struct err e;

    *c = (struct client){ .peer = peer };
    c->streams = mem_zalloc(CLIENT_STREAMS_MAX, sizeof *c->streams);
    c->link = link_connect(instance, 0, peer, &e);
    assert_non_null(c->link);
}

void client_reconnect(struct client *c, const char *instance)
{
    struct err e;

    link_close(c->link);
    c->is_greeted = false;
    c->link = link_connect(instance, 0, c->peer, &e);
    assert_non_null(c->link);
}

void client_close(struct client *c)
{
    link_close(c->link);
    free(c->streams);
    *c = (struct client){ 0 };
}

struct client_request client_request(const int32_t *prompt, uint32_t n_prompt, uint32_t max_tokens)
{
    return (struct client_request){ .prompt = prompt,
                                    .n_prompt = n_prompt,
                                    .max_tokens = max_tokens,
                                    .sampling = LLMD__SAMPLING__INIT };
}

struct client_stream *client_find(const struct client *c, uint64_t id)
{
    for (uint32_t i = 0; i < c->n_streams; i++)
        if (c->streams[i].id == id)
            return &c->streams[i];
    return NULL;
}

/* Submit with the tokens held; when the worker is not there, later. */
static void send_submit(struct client *c, struct client_stream *s)
{
    const struct client_request *r = &s->request;
    Llmd__Submit m = LLMD__SUBMIT__INIT;
    Llmd__Sampling sampling = r->sampling;
    int32_t stop = r->stop_token;

    m.sequence_id = s->id;
    m.prompt = (int32_t *)(uintptr_t)r->prompt;
    m.n_prompt = r->n_prompt;
    m.generated = s->tokens;
    m.n_generated = s->n;
    m.sampling = &sampling;
    m.max_tokens = r->max_tokens;
    m.min_tokens = r->min_tokens;
    m.ignore_eos = r->ignore_eos;
    m.stop_tokens = &stop;
    m.n_stop_tokens = stop != 0;
    m.deadline_ns = r->deadline_ns;
    m.priority = r->priority;
    m.want_prompt_logprobs = r->want_prompt_logprobs;
    m.prompt_top_logprobs = r->prompt_top_logprobs;
    m.pooling = r->pooling;
    s->is_unsent = !link_send(c->link, 0, MSG_SUBMIT, &m);
}

struct client_stream *client_submit(struct client *c, uint64_t id, const struct client_request *r)
{
    struct client_stream *s = client_find(c, id);

    if (!s) {
        assert_true(c->n_streams < CLIENT_STREAMS_MAX);
        s = &c->streams[c->n_streams++];
        *s = (struct client_stream){ .id = id, .n = r->n_generated, .request = *r };
        for (uint32_t i = 0; i < r->n_generated; i++)
            s->tokens[i] = r->generated[i];
    }
    send_submit(c, s);
    return s;
}

void client_cancel(struct client *c, struct client_stream *s)
{
    Llmd__Cancel m = LLMD__CANCEL__INIT;

    m.n_sequence_id = 1;
    m.sequence_id = &s->id;
    s->forgotten = true;
    link_send(c->link, 0, MSG_CANCEL, &m); /* lost: the next RESYNC does not list it */
}

void client_ack(struct client *c, struct client_stream *s)
{
    Llmd__Ack m = LLMD__ACK__INIT;

    m.n_sequence_id = 1;
    m.sequence_id = &s->id;
    s->forgotten = true;
    link_send(c->link, 0, MSG_ACK, &m); /* likewise */
}

void client_resync(struct client *c)
{
    Llmd__Resync m = LLMD__RESYNC__INIT;
    Llmd__Resync__Held *held = mem_zalloc(c->n_streams, sizeof *held);
    Llmd__Resync__Held **list = mem_zalloc(c->n_streams, sizeof(Llmd__Resync__Held *));

    m.held = list;
    for (uint32_t i = 0; i < c->n_streams; i++) {
        if (c->streams[i].forgotten || c->streams[i].refused)
            continue;
        if (c->streams[i].is_unsent)
            send_submit(c, &c->streams[i]);
        llmd__resync__held__init(&held[m.n_held]);
        held[m.n_held].sequence_id = c->streams[i].id;
        held[m.n_held].n_tokens = c->streams[i].n;
        list[m.n_held] = &held[m.n_held];
        m.n_held++;
    }
    link_send(c->link, 0, MSG_RESYNC, &m); /* lost: there will be another HELLO */
    free(held);
    free(list);
}

static struct client_measure measure_of(const Llmd__TokenLogprob *lp)
{
    struct client_measure m;

    assert_true(lp->n_top <= CLIENT_TOP_MAX);
    memset(&m, 0, sizeof m);
    m.logprob = lp->logprob;
    m.rank = lp->rank;
    m.n_top = (uint32_t)lp->n_top;
    for (size_t i = 0; i < lp->n_top; i++) {
        m.top[i] = lp->top[i]->token;
        m.top_logprob[i] = lp->top[i]->logprob;
    }
    return m;
}

static void take_prompt(struct client *c, struct client_stream *s, const Llmd__SequenceTokens *t)
{
    if (t->n_prompt_logprobs == 0)
        return;
    assert_true(t->prompt_index <= s->n_prompt);
    assert_true(t->prompt_index + t->n_prompt_logprobs <= s->request.n_prompt);
    for (uint32_t i = 0; i < t->n_prompt_logprobs; i++) {
        uint32_t at = t->prompt_index + i;
        struct client_measure m = measure_of(t->prompt_logprobs[i]);
        if (at < s->n_prompt) {
            c->n_prompt_duplicates++;
            assert_memory_equal(&m, &s->prompt[at], sizeof m);
            continue;
        }
        assert_int_equal(s->n, s->request.n_generated);
        s->prompt[at] = m;
        s->n_prompt = at + 1;
    }
}

static void take_sequence(struct client *c, const Llmd__SequenceTokens *t)
{
    struct client_stream *s = client_find(c, t->sequence_id);

    if (!s || s->forgotten)
        return;
    if (t->finish == LLMD__FINISH__FINISH_UNKNOWN) {
        s->n_unknown++;
        if (s->request.n_prompt > 0)
            send_submit(c, s);
        return;
    }
    if (t->cached_tokens > 0)
        s->n_cached = t->cached_tokens;
    take_prompt(c, s, t);
    if (t->n_tokens > 0 && s->request.want_prompt_logprobs && s->request.n_prompt > 0 &&
        s->request.n_generated == 0)
        assert_int_equal(s->n_prompt, s->request.n_prompt);
    assert_true(t->n_embedding <= CLIENT_EMBEDDING_MAX);
    for (s->n_embedding = 0; s->n_embedding < t->n_embedding; s->n_embedding++)
        s->embedding[s->n_embedding] = t->embedding[s->n_embedding];
    assert_true(t->index <= s->n); /* a gap would be lost text */
    assert_true(t->n_logprobs == 0 || t->n_logprobs == t->n_tokens);
    for (uint32_t i = 0; i < t->n_tokens; i++) {
        uint32_t at = t->index + i;
        if (at < s->n) {
            c->n_duplicates++;
            assert_int_equal(s->tokens[at], t->tokens[i]); /* the same again, never another */
            continue;
        }
        assert_true(at < CLIENT_TOKENS_MAX && s->finish == LLMD__FINISH__FINISH_NONE);
        s->tokens[at] = t->tokens[i];
        if (t->n_logprobs > 0)
            s->logprobs[at] = t->logprobs[i]->logprob;
        s->n = at + 1;
    }
    if (t->finish == LLMD__FINISH__FINISH_NONE)
        return;
    s->finish = t->finish;
    snprintf(s->text, sizeof s->text, "%s", t->error);
    if (!c->no_ack)
        client_ack(c, s);
}

static void take_refused(struct client *c, const Llmd__Refused *r)
{
    struct client_stream *s = client_find(c, r->sequence_id);

    assert_non_null(s);
    s->refused = true;
    s->reason = r->reason;
    snprintf(s->text, sizeof s->text, "%s", r->message);
}

static void take_message(struct client *c, const struct link_msg *m)
{
    const Llmd__Hello *hello = m->body;
    const Llmd__Tokens *tokens = m->body;
    const Llmd__Accepted *accepted = m->body;

    c->n_messages++;
    switch (m->type) {
    case MSG_HELLO:
        c->n_hello++;
        c->is_greeted = true;
        c->is_draining = hello->draining;
        c->epoch = hello->epoch;
        if (!c->no_resync)
            client_resync(c);
        break;
    case MSG_ACCEPTED:
        if (client_find(c, accepted->sequence_id))
            client_find(c, accepted->sequence_id)->n_accepted++;
        break;
    case MSG_REFUSED:
        take_refused(c, m->body);
        break;
    case MSG_TOKENS:
        for (size_t i = 0; c->is_greeted && i < tokens->n_sequences; i++)
            take_sequence(c, tokens->sequences[i]);
        break;
    default:
        fail_msg("a gateway is never sent %s", msg_name(m->type));
    }
}

void client_receive(struct client *c)
{
    struct link_msg m;
    struct err e;
    enum link_result r;

    while ((r = link_recv(c->link, &m, &e)) != LINK_EMPTY) {
        assert_int_equal(r, LINK_OK);
        take_message(c, &m);
        frame_free_body(m.body);
    }
}

bool client_stream_is_over(const struct client_stream *s)
{
    return s->refused || s->finish != LLMD__FINISH__FINISH_NONE;
}

bool client_all_over(const struct client *c)
{
    for (uint32_t i = 0; i < c->n_streams; i++)
        if (!c->streams[i].forgotten && !client_stream_is_over(&c->streams[i]))
            return false;
    return true;
}
