/* kept.c - a table of descriptors by slot, a list of the open ones, a queue of those to be stored.
 *
 * Each of the queue has a copy in the park, unless that was full; a copy leaves when it is the oldest and its
 * connection is in the store, or over. */
#include "supervisor/kept.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"

#define NONE           CONNECTIONS_NO_SLOT
#define STORE_AFTER_NS (10 * NS_PER_MS)

static const char store_name[] = "llmd-c";

/* ---- the queue of those to be stored, oldest first ---- */

static void enqueue(struct kept *k, uint32_t slot)
{
    struct kept_connection *c = &k->by_slot[slot];

    c->older = k->newest;
    c->newer = NONE;
    if (k->newest != NONE)
        k->by_slot[k->newest].newer = slot;
    else
        k->oldest = slot;
    k->newest = slot;
}

static void dequeue(struct kept *k, uint32_t slot)
{
    const struct kept_connection *c = &k->by_slot[slot];

    if (c->newer != NONE)
        k->by_slot[c->newer].older = c->older;
    else
        k->newest = c->older;
    if (c->older != NONE)
        k->by_slot[c->older].newer = c->newer;
    else
        k->oldest = c->newer;
}

static void store(struct kept *k, uint32_t slot)
{
    struct kept_connection *c = &k->by_slot[slot];

    dequeue(k, slot);
    c->is_stored = true;
    fdstore_put(k->store, store_name, c->fd, true);
}

/* ---- the table ---- */

static bool is_open(const struct kept *k, uint32_t slot)
{
    const struct connection_record *r = connections_record(k->connections, slot);

    return connection_state(r) != CONNECTION_FREE &&
           atomic_load(&r->generation) == k->by_slot[slot].generation;
}

/* The copies of a connection are one socket: shut down, the client sees its end, and the store drops it. */
static void drop(struct kept *k, uint32_t slot)
{
    struct kept_connection *c = &k->by_slot[slot];
    uint32_t last = k->open[--k->n_open];

    if (!c->is_stored)
        dequeue(k, slot);
    k->open[c->at] = last;
    k->by_slot[last].at = c->at;
    shutdown(c->fd, SHUT_RDWR);
    close(c->fd);
    *c = (struct kept_connection){ 0 };
}

static void add(struct kept *k, uint32_t slot, uint32_t generation, int fd, bool is_stored)
{
    struct kept_connection *c = &k->by_slot[slot];

    assert(fd > 0 && c->fd == 0);
    *c = (struct kept_connection){ .fd = fd,
                                   .generation = generation,
                                   .since_ns = clock_mono_ns(),
                                   .at = k->n_open,
                                   .is_stored = is_stored || !fdstore_is_there(k->store) };
    k->open[k->n_open++] = slot;
    if (c->is_stored)
        c->newer = c->older = NONE;
    else
        enqueue(k, slot);
}

/* Copies of what is over or in the store, which an order that only waits for the manager has not brought it to. */
static void clear_park(struct kept *k)
{
    const struct park_place *p;

    while ((p = park_oldest(&k->park))) {
        const struct kept_connection *c = &k->by_slot[p->slot];
        bool is_stored = c->is_stored && !fdstore_is_clogged(k->store);
        if (c->fd && c->generation == p->generation && !is_stored)
            return;
        park_drop_oldest(&k->park);
    }
}

/* ---- time ---- */

static int on_timer(sd_event_source *source, uint64_t usec, void *arg);

static void arm(struct kept *k)
{
    uint64_t at_us;

    if (k->oldest == NONE && !park_oldest(&k->park)) {
        sd_event_source_set_enabled(k->timer, SD_EVENT_OFF);
        return;
    }
    if (k->oldest == NONE || fdstore_is_clogged(k->store)) /* no further orders until it reads */
        at_us = (clock_mono_ns() + STORE_AFTER_NS) / 1000;
    else
        at_us = (k->by_slot[k->oldest].since_ns + STORE_AFTER_NS) / 1000;
    if (!k->timer) {
        sd_event_add_time(k->event, &k->timer, CLOCK_MONOTONIC, at_us, 1000, on_timer, k);
        return;
    }
    sd_event_source_set_time(k->timer, at_us);
    sd_event_source_set_enabled(k->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *arg)
{
    struct kept *k = arg;
    uint64_t now = clock_mono_ns();

    (void)source, (void)usec;
    while (k->oldest != NONE && k->by_slot[k->oldest].since_ns + STORE_AFTER_NS <= now &&
           !fdstore_is_clogged(k->store)) {
        if (is_open(k, k->oldest) || kept_is_handing(k))
            store(k, k->oldest);
        else
            drop(k, k->oldest);
    }
    clear_park(k);
    arm(k);
    return 0;
}

/* ---- coming and going ---- */

/* True: fd is kept now, and no longer the caller's. */
static bool take_one(struct kept *k, uint32_t slot, uint32_t generation, int fd)
{
    struct kept_connection *c;

    if (slot >= k->connections->hdr->n_slots)
        return false;
    c = &k->by_slot[slot];
    if (c->fd && c->generation == generation)
        return false; /* told again */
    if (c->fd && !is_open(k, slot))
        drop(k, slot);
    if (c->fd)
        return false; /* late news of a connection before this one */
    add(k, slot, generation, fd, false);
    if (!is_open(k, slot))
        drop(k, slot); /* over before it came here */
    else if (!c->is_stored && !park_put(&k->park, fd, (struct park_place){ slot, generation }))
        store(k, slot);
    return true;
}

void kept_take(struct kept *k, struct control_msg *m)
{
    const Llmd__Connections *c = m->body;

    for (size_t i = 0; k->connections && i < c->n_kept && i < (size_t)m->n_fds; i++)
        if (m->fds[i] >= 0 && take_one(k, c->kept[i]->slot, c->kept[i]->generation, m->fds[i]))
            m->fds[i] = -1;
    if (k->connections && (k->oldest != NONE || park_oldest(&k->park)))
        arm(k);
}

void kept_sweep(struct kept *k)
{
    if (kept_is_handing(k))
        return; /* it was told their number */
    for (uint32_t i = k->n_open; i > 0; i--)
        if (!is_open(k, k->open[i - 1]))
            drop(k, k->open[i - 1]);
}

void kept_store_all(struct kept *k)
{
    if (!k->connections)
        return;
    while (k->oldest != NONE)
        store(k, k->oldest);
    clear_park(k);
    arm(k);
}

void kept_drop_all(struct kept *k)
{
    kept_end_handing(k);
    while (k->n_open > 0)
        drop(k, k->open[k->n_open - 1]);
    if (k->connections)
        clear_park(k);
    if (k->store)
        fdstore_remove(k->store, store_name);
}

/* ---- a former llmd's ---- */

struct cookie_slot {
    uint64_t cookie;
    uint32_t slot, generation;
};

static int compare_cookies(const void *a, const void *b)
{
    uint64_t x = ((const struct cookie_slot *)a)->cookie;
    uint64_t y = ((const struct cookie_slot *)b)->cookie;

    return (x > y) - (x < y);
}

/* The gateway lives: a slot may get another client while it is looked at, and must not pass for the first one's. */
static uint32_t list_cookies(const struct kept *k, struct cookie_slot *out)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < k->connections->hdr->n_slots; slot++) {
        const struct connection_record *r = connections_record(k->connections, slot);
        uint32_t generation = atomic_load(&r->generation);
        uint64_t cookie = __atomic_load_n(&r->cookie, __ATOMIC_ACQUIRE);
        if (cookie != 0 && connection_state(r) != CONNECTION_FREE &&
            atomic_load(&r->generation) == generation)
            out[n++] =
                (struct cookie_slot){ .cookie = cookie, .slot = slot, .generation = generation };
    }
    qsort(out, n, sizeof *out, compare_cookies);
    return n;
}

/* Takes fd. */
static void adopt_one(struct kept *k, int fd, bool is_stored, const struct cookie_slot *known,
                      uint32_t n)
{
    struct cookie_slot key = { 0 }, *found;
    socklen_t bytes = sizeof key.cookie;

    getsockopt(fd, SOL_SOCKET, SO_COOKIE, &key.cookie, &bytes);
    found = bsearch(&key, known, n, sizeof key, compare_cookies);
    if (!found)
        shutdown(fd, SHUT_RDWR);                /* so that the store drops it too */
    if (!found || k->by_slot[found->slot].fd) { /* nobody's, or a second copy */
        close(fd);
        return;
    }
    add(k, found->slot, found->generation, fd, is_stored);
    if (!k->by_slot[found->slot].is_stored)
        store(k, found->slot);
}

static void adopt_park(struct kept *k, struct passed *from, const struct cookie_slot *known,
                       uint32_t n)
{
    int in = passed_take(from, "llmd-park-in"), out = passed_take(from, "llmd-park-out"), fd;
    uint32_t first = k->n_open;

    if (in < 0 || out < 0) {
        if (in >= 0 || out >= 0)
            close(in >= 0 ? in : out);
        return;
    }
    park_close(&k->park);
    park_adopt(&k->park, in, out);
    while ((fd = park_look(&k->park)) >= 0) {
        adopt_one(k, fd, false, known, n);
        park_forget_one(&k->park);
    }
    for (uint32_t i = first; i < k->n_open && fdstore_is_clogged(k->store); i++) {
        const struct kept_connection *c = &k->by_slot[k->open[i]];
        park_put(&k->park, c->fd, (struct park_place){ k->open[i], c->generation });
    }
    arm(k);
}

void kept_adopt(struct kept *k, struct passed *from)
{
    struct cookie_slot *known = mem_zalloc(k->connections->hdr->n_slots, sizeof *known);
    uint32_t n = list_cookies(k, known);

    for (uint32_t i = 0; i < from->n; i++) {
        if (from->list[i].fd < 0 || strcmp(from->list[i].name, store_name) != 0)
            continue;
        adopt_one(k, from->list[i].fd, true, known, n);
        from->list[i].fd = -1;
    }
    adopt_park(k, from, known, n);
    free(known);
}

/* ---- to the next gateway ---- */

bool kept_is_handing(const struct kept *k)
{
    return k->handing != NULL;
}

uint32_t kept_begin_handing(struct kept *k)
{
    kept_end_handing(k);
    kept_sweep(k);
    if (k->n_open == 0)
        return 0;
    k->handing = mem_alloc(k->n_open * sizeof *k->handing);
    memcpy(k->handing, k->open, k->n_open * sizeof *k->handing);
    k->n_handing = k->n_open;
    return k->n_handing;
}

static bool hand_some(struct kept *k, struct child *gateway, uint32_t n, struct err *e)
{
    Llmd__Connections__Kept note[FDPASS_FDS_MAX], *pointer[FDPASS_FDS_MAX];
    Llmd__Connections message = LLMD__CONNECTIONS__INIT;
    int fds[FDPASS_FDS_MAX];

    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = k->handing[k->n_handed + i];
        llmd__connections__kept__init(&note[i]);
        note[i].slot = slot;
        note[i].generation = k->by_slot[slot].generation;
        pointer[i] = &note[i];
        fds[i] = k->by_slot[slot].fd;
    }
    message.kept = pointer;
    message.n_kept = n;
    return child_send_fds(gateway, MSG_CONNECTIONS, &message, fds, (int)n, e);
}

bool kept_hand(struct kept *k, struct child *gateway)
{
    struct err e = { 0 };

    while (k->n_handed < k->n_handing) {
        uint32_t left = k->n_handing - k->n_handed;
        uint32_t n = left < FDPASS_FDS_MAX ? left : FDPASS_FDS_MAX;
        if (!hand_some(k, gateway, n, &e)) {
            if (e.sys != EAGAIN) /* it is dying; its end is on the way */
                log_warning("event=handing_connections error=\"%s\"", e.msg);
            return false;
        }
        k->n_handed += n;
    }
    kept_end_handing(k);
    return true;
}

void kept_end_handing(struct kept *k)
{
    free(k->handing);
    k->handing = NULL;
    k->n_handing = k->n_handed = 0;
}

/* ---- life ---- */

bool kept_init(struct kept *k, const struct connections *c, struct fdstore *store, sd_event *event,
               struct err *e)
{
    uint32_t n = c->hdr->n_slots;

    *k = (struct kept){
        .connections = c, .store = store, .event = event, .newest = NONE, .oldest = NONE
    };
    k->by_slot = mem_zalloc(n, sizeof *k->by_slot);
    k->open = mem_zalloc(n, sizeof *k->open);
    k->park.in = k->park.out = -1;
    return !fdstore_is_there(store) || park_open(&k->park, e);
}

void kept_fini(struct kept *k)
{
    for (uint32_t i = 0; i < k->n_open; i++)
        close(k->by_slot[k->open[i]].fd);
    sd_event_source_disable_unref(k->timer);
    kept_end_handing(k);
    if (k->connections)
        park_close(&k->park);
    free(k->by_slot);
    free(k->open);
    *k = (struct kept){ 0 };
}
