/* intake.c - what gateways ask for: SUBMIT, CANCEL, ACK, RESYNC.
 *
 * Every message may come twice, late, or about something long gone; none of that changes the outcome. */
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "gpu-worker/engine_state.h"

enum { MESSAGES_PER_TURN = 1024 };

static void refuse(struct engine *g, uint32_t peer, uint64_t id, Llmd__RefuseReason reason,
                   const char *message)
{
    Llmd__Refused r = LLMD__REFUSED__INIT;

    r.sequence_id = id;
    r.reason = reason;
    r.message = (char *)(uintptr_t)message;
    log_debug("sequence=%llx refused reason=%d: %s", (unsigned long long)id, (int)reason, message);
    delivery_reply(&g->delivery, peer, MSG_REFUSED, &r);
}

static void accept(struct engine *g, const struct sequence *q)
{
    Llmd__Accepted a = LLMD__ACCEPTED__INIT;

    a.sequence_id = q->id;
    a.n_prompt = q->n_prompt;
    delivery_reply(&g->delivery, q->peer, MSG_ACCEPTED, &a);
}

/* The sequence belongs to the peer that speaks of it; go on from what it holds.  Who has a token has all that is
 * said of the prompt. */
static void deliver_from(struct engine *g, struct sequence *q, uint32_t peer, size_t n_held)
{
    q->peer = peer;
    q->entry->peer = peer;
    q->n_sent = n_held < q->n_generated ? (uint32_t)n_held : q->n_generated;
    q->n_prompt_sent = n_held > 0 ? q->n_prompt : 0;
    q->finish_sent = false;
    q->resync_due = false;
    delivery_notice(&g->delivery, q);
}

static void take_submit(struct engine *g, uint32_t peer, const Llmd__Submit *submit)
{
    struct sequence *q = sequence_table_find(&g->table, submit->sequence_id);
    Llmd__RefuseReason reason;
    struct err e;

    if (q) { /* sent again: the first one counts */
        deliver_from(g, q, peer, submit->n_generated);
        accept(g, q);
        return;
    }
    if (g->is_draining) {
        refuse(g, peer, submit->sequence_id, LLMD__REFUSE_REASON__REFUSE_DRAINING,
               "this worker is shutting down");
        return;
    }
    if (!submit_check(submit, &g->limits, &reason, &e)) {
        refuse(g, peer, submit->sequence_id, reason, e.msg);
        return;
    }
    q = sequence_table_peek_free(&g->table);
    if (!q) {
        refuse(g, peer, submit->sequence_id, LLMD__REFUSE_REASON__REFUSE_FULL,
               "as many sequences as can be kept are running or waiting");
        return;
    }
    sequence_store(g->boot.ledger, ledger_entry(g->boot.ledger, q->index), submit, peer,
                   clock_mono_ns());
    if (!sequence_load(q, g->boot.ledger, q->index, g->limits.context_max, &e)) {
        log_error("sequence=%llx cannot be read back: %s", (unsigned long long)submit->sequence_id,
                  e.msg);
        abort();
    }
    stat_add(engine_stats(g), STAT_sequences_accepted, 1);
    fault_point("worker.accept");
    accept(g, q);
    engine_add(g, q);
}

static void take_cancel(struct engine *g, const Llmd__Cancel *cancel)
{
    for (size_t i = 0; i < cancel->n_sequence_id; i++) {
        struct sequence *q = sequence_table_find(&g->table, cancel->sequence_id[i]);
        if (q)
            engine_forget(g, q);
    }
}

static void take_ack(struct engine *g, const Llmd__Ack *ack)
{
    for (size_t i = 0; i < ack->n_sequence_id; i++) {
        struct sequence *q = sequence_table_find(&g->table, ack->sequence_id[i]);
        if (q && q->state == SEQUENCE_DONE)
            engine_forget(g, q);
    }
}

static void forget_unlisted(struct engine *g, uint32_t peer)
{
    for (uint32_t i = 0; i < g->table.cap; i++) {
        struct sequence *q = &g->table.sequences[i];
        if (q->state == SEQUENCE_FREE || q->peer != peer)
            continue;
        if (q->is_listed)
            q->is_listed = false;
        else
            engine_forget(g, q);
    }
}

static void take_resync(struct engine *g, uint32_t peer, const Llmd__Resync *resync)
{
    for (size_t i = 0; i < resync->n_held; i++) {
        const Llmd__Resync__Held *held = resync->held[i];
        struct sequence *q = sequence_table_find(&g->table, held->sequence_id);
        if (q) {
            deliver_from(g, q, peer, held->n_tokens);
            q->is_listed = true;
        } else {
            delivery_unknown(&g->delivery, peer, &held->sequence_id, 1);
        }
    }
    forget_unlisted(g, peer);
    log_debug("peer=%u resync held=%zu", peer, resync->n_held);
}

static void take_message(struct engine *g, const struct link_msg *m)
{
    switch (m->type) {
    case MSG_SUBMIT:
        take_submit(g, m->peer, m->body);
        break;
    case MSG_CANCEL:
        take_cancel(g, m->body);
        break;
    case MSG_ACK:
        take_ack(g, m->body);
        break;
    case MSG_RESYNC:
        take_resync(g, m->peer, m->body);
        break;
    default:
        log_warning("peer=%u sent %s, which is not for a worker, ignoring", m->peer,
                    msg_name(m->type));
    }
}

bool engine_take_in(struct engine *g)
{
    struct link_msg m;
    struct err e;

    for (int n = 0; n < MESSAGES_PER_TURN; n++) {
        switch (link_recv(g->boot.link, &m, &e)) {
        case LINK_EMPTY:
            return n > 0;
        case LINK_CONNECTED:
            delivery_connected(&g->delivery, m.peer);
            break;
        case LINK_FAILED:
            log_warning("peer=%u %s, ignoring the message", m.peer, e.msg);
            break;
        case LINK_OK:
            take_message(g, &m);
            frame_free_body(m.body);
            break;
        }
    }
    return true;
}
