/* delivery.c - peers, the outbox, and TOKENS messages built in place over the ledger's memory. */
#include "gpu-worker/delivery.h"

#include <assert.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

enum {
    MESSAGE_SEQUENCES = 256,
    MESSAGE_TOKENS = 1 << 18, /* of sequences without log probabilities */
    MESSAGE_LOGPROBS = 1024,
    MESSAGE_TOPS = 20 * MESSAGE_LOGPROBS, /* or those of one token, where these are more */
    RETRY_MS = 5,
    RETRY_MS_MAX = 1000,
};

/* What a message says of one sequence, to be noted when the link has taken it. */
struct message_part {
    struct sequence *sequence;
    uint32_t n_prompt_sent, n_sent;
    bool with_finish;
};

struct delivery_message {
    Llmd__Tokens tokens;
    struct message_part parts[MESSAGE_SEQUENCES];
    Llmd__SequenceTokens sequences[MESSAGE_SEQUENCES];
    Llmd__SequenceTokens *sequence_list[MESSAGE_SEQUENCES];
    Llmd__TokenLogprob logprobs[MESSAGE_LOGPROBS];
    Llmd__TokenLogprob *logprob_list[MESSAGE_LOGPROBS];
    Llmd__TopLogprob *tops; /* [tops_max] */
    Llmd__TopLogprob **top_list;
    uint32_t n_sequences, n_tokens, n_logprobs, n_tops;
    uint32_t tops_max, top_max; /* of all entries, of one */
};

static struct delivery_message *message_new(uint32_t top_max)
{
    struct delivery_message *m = mem_zalloc(1, sizeof *m);
    size_t n_tops = top_max > MESSAGE_TOPS ? top_max : MESSAGE_TOPS;

    m->tops_max = (uint32_t)n_tops;
    m->top_max = top_max;
    m->tops = mem_zalloc(n_tops, sizeof *m->tops);
    m->top_list = mem_zalloc(n_tops, sizeof(Llmd__TopLogprob *));
    for (size_t i = 0; i < MESSAGE_SEQUENCES; i++)
        m->sequence_list[i] = &m->sequences[i];
    for (size_t i = 0; i < MESSAGE_LOGPROBS; i++)
        m->logprob_list[i] = &m->logprobs[i];
    for (size_t i = 0; i < n_tops; i++)
        m->top_list[i] = &m->tops[i];
    return m;
}

void delivery_init(struct delivery *d, struct link *link, const struct ledger *ledger,
                   const struct sequence_table *table, const Llmd__Hello *hello)
{
    *d = (struct delivery){ .link = link, .ledger = ledger, .table = table, .hello = *hello };
    d->outbox = mem_zalloc(table->cap, sizeof(struct sequence *));
    d->message = message_new(ledger->hdr->top_max);
}

void delivery_fini(struct delivery *d)
{
    if (d->message) {
        free(d->message->tops);
        free(d->message->top_list);
        free(d->message);
    }
    free(d->outbox);
    *d = (struct delivery){ 0 };
}

static bool peer_has_sequences(const struct delivery *d, uint32_t id)
{
    for (uint32_t i = 0; i < d->table->cap; i++)
        if (d->table->sequences[i].state != SEQUENCE_FREE && d->table->sequences[i].peer == id)
            return true;
    return false;
}

/* The peer's record, made when it is new.  NULL when there are too many: all the records belong to peers
 * that own sequences. */
static struct delivery_peer *peer_of(struct delivery *d, uint32_t id)
{
    struct delivery_peer *place = NULL;

    for (int i = 0; i < DELIVERY_PEERS_MAX; i++) {
        if (d->peers[i].id == id)
            return &d->peers[i];
        if (!place && d->peers[i].id == 0)
            place = &d->peers[i];
    }
    for (int i = 0; i < DELIVERY_PEERS_MAX && !place; i++)
        if (!peer_has_sequences(d, d->peers[i].id))
            place = &d->peers[i];
    if (place)
        *place = (struct delivery_peer){ .id = id };
    else
        log_warning("peer=%u more than %d gateway threads, ignoring this one", id,
                    DELIVERY_PEERS_MAX);
    return place;
}

/* Send now or put the peer off; the pause doubles while it takes nothing. */
static bool send_to(struct delivery *d, struct delivery_peer *p, enum msg_type type,
                    const void *message)
{
    if (link_send(d->link, p->id, type, message)) {
        p->retry_ms = 0;
        p->retry_at_ns = 0;
        return true;
    }
    p->retry_ms = p->retry_ms == 0 ? RETRY_MS : 2 * p->retry_ms;
    if (p->retry_ms > RETRY_MS_MAX)
        p->retry_ms = RETRY_MS_MAX;
    p->retry_at_ns = clock_mono_ns() + p->retry_ms * NS_PER_MS;
    return false;
}

void delivery_connected(struct delivery *d, uint32_t peer)
{
    struct delivery_peer *p = peer_of(d, peer);

    for (uint32_t i = 0; i < d->table->cap; i++)
        if (d->table->sequences[i].peer == peer)
            d->table->sequences[i].resync_due = true;
    if (!p)
        return;
    *p = (struct delivery_peer){ .id = peer, .hello_due = true };
    log_debug("peer=%u connected", peer);
}

void delivery_hello_all(struct delivery *d)
{
    for (int i = 0; i < DELIVERY_PEERS_MAX; i++)
        d->peers[i].hello_due = d->peers[i].id != 0;
}

void delivery_reply(struct delivery *d, uint32_t peer, enum msg_type type, const void *message)
{
    struct delivery_peer *p = peer_of(d, peer);

    if (p && !send_to(d, p, type, message))
        p->hello_due = true;
}

void delivery_unknown(struct delivery *d, uint32_t peer, const uint64_t *ids, size_t n)
{
    struct delivery_message *m = d->message;
    Llmd__Tokens tokens = LLMD__TOKENS__INIT;

    tokens.group = d->hello.group;
    tokens.epoch = d->hello.epoch;
    for (size_t at = 0; at < n; at += MESSAGE_SEQUENCES) {
        size_t end = n < at + MESSAGE_SEQUENCES ? n : at + MESSAGE_SEQUENCES;
        for (size_t i = at; i < end; i++) {
            llmd__sequence_tokens__init(&m->sequences[i - at]);
            m->sequences[i - at].sequence_id = ids[i];
            m->sequences[i - at].finish = LLMD__FINISH__FINISH_UNKNOWN;
        }
        tokens.n_sequences = end - at;
        tokens.sequences = m->sequence_list;
        delivery_reply(d, peer, MSG_TOKENS, &tokens);
    }
}

/* Tokens follow the log probabilities of the whole prompt, unless these are not to come any more. */
static bool may_send_tokens(const struct sequence *q, uint32_t n_prompt_sent)
{
    uint32_t n = q->state == SEQUENCE_DONE ? q->n_measured : q->n_prompt;

    return !q->request->want_prompt_logprobs || n_prompt_sent >= n;
}

static bool has_news(const struct sequence *q)
{
    bool has_tokens = q->n_sent < q->n_generated || (q->state == SEQUENCE_DONE && !q->finish_sent);

    return q->state != SEQUENCE_FREE && !q->resync_due &&
           (q->n_prompt_sent < q->n_measured ||
            (has_tokens && may_send_tokens(q, q->n_prompt_sent)));
}

void delivery_notice(struct delivery *d, struct sequence *q)
{
    if (q->in_outbox || !has_news(q))
        return;
    assert(d->n_outbox < d->table->cap);
    d->outbox[d->n_outbox++] = q;
    q->in_outbox = true;
}

void delivery_forget(struct delivery *d, struct sequence *q)
{
    for (uint32_t i = 0; i < d->n_outbox && q->in_outbox; i++) {
        if (d->outbox[i] == q) {
            d->outbox[i] = d->outbox[--d->n_outbox];
            q->in_outbox = false;
        }
    }
}

/* Sequences with nothing left to say leave the outbox. */
static void outbox_compact(struct delivery *d)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < d->n_outbox; i++) {
        struct sequence *q = d->outbox[i];
        q->in_outbox = has_news(q);
        if (q->in_outbox)
            d->outbox[n++] = q;
    }
    d->n_outbox = n;
}

/* Entries of tokens first .. first + n - 1 of the sequence; the first one's place in the list. */
static Llmd__TokenLogprob **add_entries(struct delivery *d, const struct sequence *q,
                                        uint32_t first, uint32_t n, uint32_t n_top)
{
    struct delivery_message *m = d->message;
    Llmd__TokenLogprob **list = m->logprob_list + m->n_logprobs;

    for (uint32_t i = first; i < first + n; i++) {
        const struct ledger_top *top = ledger_top(d->ledger, q->entry, i);
        Llmd__TokenLogprob *lp = &m->logprobs[m->n_logprobs++];

        llmd__token_logprob__init(lp);
        lp->logprob = ledger_logprobs(d->ledger, q->entry)[i];
        lp->rank = ledger_ranks(d->ledger, q->entry)[i];
        lp->top = m->top_list + m->n_tops;
        for (; lp->n_top < n_top && top[lp->n_top].token >= 0; lp->n_top++) {
            Llmd__TopLogprob *t = &m->tops[m->n_tops++];
            llmd__top_logprob__init(t);
            t->token = top[lp->n_top].token;
            t->logprob = top[lp->n_top].logprob;
        }
    }
    return list;
}

/* Measured tokens, of n_top alternatives each, that this message still has room for. */
static uint32_t logprobs_room(const struct delivery_message *m, uint32_t n_top)
{
    uint32_t room = MESSAGE_LOGPROBS - m->n_logprobs;

    if (n_top > 0 && (m->tops_max - m->n_tops) / n_top < room)
        room = (m->tops_max - m->n_tops) / n_top;
    return room;
}

/* As many of the prompt's measures as there is room for. */
static void add_prompt(struct delivery *d, const struct sequence *q, Llmd__SequenceTokens *out)
{
    uint32_t n = q->n_measured - q->n_prompt_sent;
    uint32_t room = logprobs_room(d->message, q->entry->n_prompt_top);

    if (q->n_prompt_sent >= q->n_measured)
        return;
    out->prompt_index = q->n_prompt_sent;
    out->n_prompt_logprobs = n < room ? n : room;
    out->prompt_logprobs = add_entries(d, q, q->n_prompt_sent, (uint32_t)out->n_prompt_logprobs,
                                       q->entry->n_prompt_top);
}

/* How many of the unsent tokens this message still has room for. */
static uint32_t room_for(const struct delivery_message *m, const struct sequence *q)
{
    uint32_t n = q->n_generated - q->n_sent;
    uint32_t room = q->request->sampling->want_logprobs ? logprobs_room(m, q->entry->n_top)
                                                        : MESSAGE_TOKENS - m->n_tokens;

    return n < room ? n : room;
}

static void add_tokens(struct delivery *d, const struct sequence *q, Llmd__SequenceTokens *out)
{
    struct delivery_message *m = d->message;

    out->n_tokens = room_for(m, q);
    out->tokens = q->tokens + q->n_prompt + q->n_sent;
    if (q->request->sampling->want_logprobs) {
        out->n_logprobs = out->n_tokens;
        out->logprobs =
            add_entries(d, q, q->n_prompt + q->n_sent, (uint32_t)out->n_tokens, q->entry->n_top);
    } else {
        m->n_tokens += (uint32_t)out->n_tokens;
    }
}

static void add_finish(const struct delivery *d, const struct sequence *q,
                       Llmd__SequenceTokens *out)
{
    out->finish = (Llmd__Finish)q->entry->finish;
    out->error = q->entry->error;
    if (out->finish != LLMD__FINISH__FINISH_EMBEDDED)
        return;
    out->embedding = ledger_embedding(d->ledger, q->entry);
    out->n_embedding = q->entry->n_embedding;
}

static void add_sequence(struct delivery *d, struct sequence *q)
{
    struct delivery_message *m = d->message;
    Llmd__SequenceTokens *out = &m->sequences[m->n_sequences];
    struct message_part *part = &m->parts[m->n_sequences++];

    llmd__sequence_tokens__init(out);
    out->sequence_id = q->id;
    out->index = q->n_sent;
    add_prompt(d, q, out);
    *part = (struct message_part){
        .sequence = q,
        .n_prompt_sent = q->n_prompt_sent + (uint32_t)out->n_prompt_logprobs,
        .n_sent = q->n_sent,
    };
    if (!may_send_tokens(q, part->n_prompt_sent))
        return;
    add_tokens(d, q, out);
    part->n_sent += (uint32_t)out->n_tokens;
    part->with_finish = q->state == SEQUENCE_DONE && part->n_sent == q->n_generated;
    if (part->with_finish)
        add_finish(d, q, out);
    if (q->n_sent > 0 || (out->n_tokens == 0 && !part->with_finish))
        return;
    out->cached_tokens = q->entry->n_cached;
    if (q->entry->scheduled_ns > q->entry->accepted_ns)
        out->queue_ns = q->entry->scheduled_ns - q->entry->accepted_ns;
}

static bool is_full(const struct delivery_message *m)
{
    return m->n_sequences == MESSAGE_SEQUENCES || m->n_logprobs == MESSAGE_LOGPROBS ||
           m->n_tokens == MESSAGE_TOKENS || m->tops_max - m->n_tops < m->top_max;
}

/* Fill the message with what the outbox holds for one peer; false when that is nothing. */
static bool fill_message(struct delivery *d, uint32_t peer)
{
    struct delivery_message *m = d->message;

    m->n_sequences = m->n_tokens = m->n_logprobs = m->n_tops = 0;
    for (uint32_t i = 0; i < d->n_outbox && !is_full(m); i++)
        if (d->outbox[i]->peer == peer && has_news(d->outbox[i]))
            add_sequence(d, d->outbox[i]);
    llmd__tokens__init(&m->tokens);
    m->tokens.group = d->hello.group;
    m->tokens.epoch = d->hello.epoch;
    m->tokens.n_sequences = m->n_sequences;
    m->tokens.sequences = m->sequence_list;
    return m->n_sequences > 0;
}

static void note_sent(const struct delivery_message *m)
{
    for (uint32_t i = 0; i < m->n_sequences; i++) {
        m->parts[i].sequence->n_prompt_sent = m->parts[i].n_prompt_sent;
        m->parts[i].sequence->n_sent = m->parts[i].n_sent;
        m->parts[i].sequence->finish_sent = m->parts[i].with_finish;
    }
}

static bool publish_to(struct delivery *d, struct delivery_peer *p)
{
    bool sent = false;

    if (p->hello_due) {
        if (!send_to(d, p, MSG_HELLO, &d->hello))
            return false;
        p->hello_due = false;
        sent = true;
    }
    while (fill_message(d, p->id)) {
        if (!send_to(d, p, MSG_TOKENS, &d->message->tokens))
            break;
        note_sent(d->message);
        sent = true;
    }
    return sent;
}

/* A recovered sequence's peer has no record before it connects: it has nothing to be sent either. */
bool delivery_publish(struct delivery *d, uint64_t now_ns)
{
    bool sent = false;

    for (int i = 0; i < DELIVERY_PEERS_MAX; i++) {
        struct delivery_peer *p = &d->peers[i];
        if (p->id != 0 && now_ns >= p->retry_at_ns)
            sent = publish_to(d, p) || sent;
    }
    outbox_compact(d);
    return sent;
}

uint64_t delivery_wake_ns(const struct delivery *d)
{
    uint64_t wake = UINT64_MAX;

    for (int i = 0; i < DELIVERY_PEERS_MAX; i++) {
        const struct delivery_peer *p = &d->peers[i];
        bool waits = p->hello_due;
        for (uint32_t k = 0; k < d->n_outbox && !waits; k++)
            waits = d->outbox[k]->peer == p->id;
        if (p->id != 0 && waits && p->retry_at_ns < wake)
            wake = p->retry_at_ns;
    }
    return wake;
}
