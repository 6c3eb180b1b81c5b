/* group_link.c - see group_link.h. */
#include "gateway/group_link.h"

#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { IDS_BATCH = 256 }; /* CANCEL and ACK carry at most so many ids */

bool group_link_open(struct group_link *l, const char *instance, uint32_t peer, struct err *e)
{
    l->link = link_connect(instance, l->group, peer, e);
    return l->link != NULL;
}

void group_link_close(struct group_link *l)
{
    link_close(l->link);
    free(l->acks.ids);
    free(l->cancels.ids);
}

bool group_link_send(struct group_link *l, enum msg_type type, const void *message)
{
    bool sent = link_send(l->link, 0, type, message);

    l->kick(l->group, l->ctx);
    return sent;
}

/* ---- what is owed ---- */

static void ids_add(struct id_list *l, uint64_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->ids = mem_realloc(l->ids, l->cap * sizeof *l->ids);
    }
    l->ids[l->n++] = id;
}

void group_link_owe_cancel(struct group_link *l, uint64_t id)
{
    ids_add(&l->cancels, id);
}

void group_link_owe_ack(struct group_link *l, uint64_t id)
{
    ids_add(&l->acks, id);
}

bool group_link_is_owed(const struct group_link *l)
{
    return l->acks.n > 0 || l->cancels.n > 0;
}

static void send_ids(struct group_link *l, enum msg_type type, struct id_list *owed)
{
    size_t done = 0;

    while (done < owed->n) {
        size_t n = owed->n - done < IDS_BATCH ? owed->n - done : IDS_BATCH;
        Llmd__Cancel cancel = LLMD__CANCEL__INIT;
        Llmd__Ack ack = LLMD__ACK__INIT;
        const void *message = &cancel;

        cancel.sequence_id = ack.sequence_id = owed->ids + done;
        cancel.n_sequence_id = ack.n_sequence_id = n;
        if (type == MSG_ACK)
            message = &ack;
        if (!group_link_send(l, type, message))
            break;
        done += n;
    }
    memmove(owed->ids, owed->ids + done, (owed->n - done) * sizeof *owed->ids);
    owed->n -= done;
}

void group_link_flush(struct group_link *l)
{
    if (l->cancels.n)
        send_ids(l, MSG_CANCEL, &l->cancels);
    if (l->acks.n)
        send_ids(l, MSG_ACK, &l->acks);
}

void group_link_forget(struct group_link *l)
{
    l->acks.n = l->cancels.n = 0;
}

/* ---- all at once ---- */

static void list_held(const struct sequence_list *from, Llmd__Resync *resync,
                      Llmd__Resync__Held *held)
{
    for (struct sequence *s = from->first; s; s = s->next) {
        Llmd__Resync__Held *h = &held[resync->n_held];
        llmd__resync__held__init(h);
        h->sequence_id = s->id;
        h->n_tokens = s->n_tokens;
        resync->held[resync->n_held++] = h;
    }
}

bool group_link_resync(struct group_link *l, const struct sequence_list *held,
                       const struct sequence_list *finished)
{
    Llmd__Resync resync = LLMD__RESYNC__INIT;
    size_t n = held->n + finished->n + 1;
    Llmd__Resync__Held *entries = mem_zalloc(n, sizeof *entries);
    Llmd__Resync__Held **list = mem_zalloc(n, sizeof *list);
    bool sent;

    resync.held = list;
    list_held(held, &resync, entries);
    list_held(finished, &resync, entries);
    sent = group_link_send(l, MSG_RESYNC, &resync);
    group_link_forget(l); /* the list says as much */
    free(entries);
    free(list);
    return sent;
}
