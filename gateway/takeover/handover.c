/* handover.c - CONNECTIONS messages to llmd. */
#include "gateway/takeover/handover.h"

#include <errno.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "proto/control.h"

enum { AGAIN_MS = 20 };

struct batch {
    struct record *records[FDPASS_FDS_MAX];
    int n;
};

static bool is_for_later(int error)
{
    return error == EAGAIN || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

static bool send_batch(struct handover *h, const struct batch *b, struct err *e)
{
    Llmd__Connections m = LLMD__CONNECTIONS__INIT;
    Llmd__Connections__Kept kept[FDPASS_FDS_MAX], *list[FDPASS_FDS_MAX];
    int fds[FDPASS_FDS_MAX];

    for (int i = 0; i < b->n; i++) {
        const struct record *r = b->records[i];
        llmd__connections__kept__init(&kept[i]);
        kept[i].slot = r->slot;
        kept[i].generation = atomic_load(&r->shared->generation);
        list[i] = &kept[i];
        fds[i] = r->fd;
    }
    m.kept = list;
    m.n_kept = (size_t)b->n;
    return control_send(h->control, MSG_CONNECTIONS, &m, fds, b->n, e);
}

/* False: the socket is full, or llmd is gone. */
static bool hand(struct handover *h, const struct batch *b)
{
    struct err e;

    if (send_batch(h, b, &e)) {
        for (int i = 0; i < b->n; i++) {
            b->records[i]->must_hand = false;
            atomic_store(&b->records[i]->shared->is_handed, 1);
        }
        h->n_waiting -= (uint32_t)b->n;
        return true;
    }
    if (is_for_later(e.sys)) {
        loop_timer_set(h->again, AGAIN_MS * NS_PER_MS);
        return false;
    }
    if (h->control >= 0)
        log_warning("handover: %s, connections will not outlive this process", e.msg);
    h->control = -1;
    return false;
}

static void hand_waiting(void *arg)
{
    struct handover *h = arg;
    struct batch b = { .n = 0 };
    struct record *r;

    if (h->control < 0)
        return;
    TAILQ_FOREACH(r, &h->records, link)
    {
        if (r->must_hand)
            b.records[b.n++] = r;
        if (b.n == FDPASS_FDS_MAX) {
            if (!hand(h, &b))
                return;
            b.n = 0;
        }
    }
    if (b.n > 0)
        hand(h, &b);
}

void handover_init(struct handover *h, struct loop *l, int control)
{
    *h = (struct handover){ .control = control };
    TAILQ_INIT(&h->records);
    h->again = loop_timer_new(l, hand_waiting, h);
}

void handover_fini(struct handover *h)
{
    loop_timer_free(h->again);
    h->again = NULL;
}

void handover_add(struct handover *h, struct record *r, bool is_known)
{
    struct batch one = { .records = { r }, .n = 1 };

    if (!r)
        return;
    TAILQ_INSERT_TAIL(&h->records, r, link);
    if (!r->is_tcp || is_known)
        return;
    r->must_hand = true;
    h->n_waiting++;
    if (h->control >= 0 && h->n_waiting == 1) /* else behind the others */
        hand(h, &one);
}

void handover_remove(struct handover *h, struct record *r)
{
    if (!r)
        return;
    h->n_waiting -= r->must_hand;
    TAILQ_REMOVE(&h->records, r, link);
}

void handover_all(struct handover *h)
{
    struct record *r;

    TAILQ_FOREACH(r, &h->records, link)
    {
        h->n_waiting += r->is_tcp && !r->must_hand;
        r->must_hand = r->is_tcp;
    }
    hand_waiting(h);
}
