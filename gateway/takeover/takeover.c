/* takeover.c - match descriptors with records, give blocks back, replay. */
#include "gateway/takeover/takeover.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/net/tcp_offset.h"
#include "gateway/thread.h"
#include "proto/control.h"

/* ---- which connections ---- */

/* A slot may have been given to another client since, and a number may lie: the socket itself decides. */
static bool belongs(const struct service *s, const Llmd__Connections__Kept *kept, int fd)
{
    const struct connection_record *r;
    uint64_t cookie = 0;
    socklen_t n = sizeof cookie;

    if (!s->has_connections || kept->slot >= s->connections.hdr->n_slots)
        return false;
    r = connections_record(&s->connections, kept->slot);
    if (connection_state(r) == CONNECTION_FREE || atomic_load(&r->generation) != kept->generation)
        return false;
    if (getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &n))
        return false;
    return r->cookie == cookie || r->cookie == 0; /* 0: it died before it had noted that */
}

static void add_client(struct takeover *t, uint32_t slot, int fd)
{
    if (t->n_clients == t->clients_cap) {
        t->clients_cap = t->clients_cap ? t->clients_cap * 2 : 64;
        t->clients = mem_realloc(t->clients, t->clients_cap * sizeof *t->clients);
    }
    t->clients[t->n_clients++] = (struct takeover_client){ .slot = slot, .fd = fd };
    t->is_taken[slot] = 1;
}

void takeover_receive(struct takeover *t, struct service *s, struct control_msg *m)
{
    const Llmd__Connections *body = m->body;

    if (!t->is_taken && s->has_connections)
        t->is_taken = mem_zalloc(s->connections.hdr->n_slots, 1);
    for (size_t i = 0; i < body->n_kept && i < (size_t)m->n_fds; i++) {
        const Llmd__Connections__Kept *kept = body->kept[i];
        if (!belongs(s, kept, m->fds[i]) || t->is_taken[kept->slot])
            continue; /* its connection is over; control_msg_fini() closes our copy */
        add_client(t, kept->slot, m->fds[i]);
        m->fds[i] = -1;
    }
}

/* ---- what nobody can go on with ---- */

/* The predecessor counted its request as come; somebody must count it as gone. */
static void account_lost(struct service *s, struct connection_record *r, enum stat_id cause)
{
    bool is_current = connection_state(r) != CONNECTION_IDLE &&
                      atomic_load(&r->request_at) == atomic_load(&r->in_start);

    if (is_current && (r->counted & CONNECTION_COUNTED_GENERATE) &&
        !(r->counted & CONNECTION_COUNTED_END)) {
        r->counted |= CONNECTION_COUNTED_END;
        stat_add(s->stats, cause, 1);
    }
}

/* A client that left while no gateway was there takes its descriptor along: nothing is lost by us. */
static void free_records(const struct takeover *t, struct service *s)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < s->connections.hdr->n_slots; slot++) {
        struct connection_record *r = connections_record(&s->connections, slot);
        if (t->is_taken[slot] || connection_state(r) == CONNECTION_FREE)
            continue;
        account_lost(s, r, STAT_requests_cancelled);
        if (r->cookie) /* else it never was one */
            stat_add(s->stats, STAT_connections_lost, 1);
        connections_release(&s->connections, slot);
        n++;
    }
    if (n > 0 || t->n_clients > 0)
        log_info("takeover connections=%u gone=%u", t->n_clients, n);
}

static int by_slot_and_index(const void *a, const void *b)
{
    const struct takeover_block *x = a, *y = b;

    if (x->slot != y->slot)
        return x->slot < y->slot ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

static void add_block(struct takeover *t, struct takeover_block block)
{
    if (t->n_blocks == t->blocks_cap) {
        t->blocks_cap = t->blocks_cap ? t->blocks_cap * 2 : 64;
        t->blocks = mem_realloc(t->blocks, t->blocks_cap * sizeof *t->blocks);
    }
    t->blocks[t->n_blocks++] = block;
}

static void sort_blocks(struct takeover *t, struct service *s)
{
    const struct connections *c = &s->connections;

    for (uint32_t b = 0; b < c->hdr->n_blocks; b++) {
        struct connections_owner *o = connections_owner(c, b);
        uint64_t owner = atomic_load(&o->owner), place = atomic_load(&o->place);
        uint32_t slot = (uint32_t)(owner >> 32) - 1;
        if (owner == 0)
            continue;
        if (place == 0 || slot >= c->hdr->n_slots || !t->is_taken[slot] ||
            owner != connections_owner_word(c, slot)) {
            connections_free_block(c, b);
            continue;
        }
        add_block(t, (struct takeover_block){ .slot = slot, .block = b, .index = place - 1 });
    }
    if (t->n_blocks > 0)
        qsort(t->blocks, t->n_blocks, sizeof *t->blocks, by_slot_and_index);
}

void takeover_match(struct takeover *t, struct service *s)
{
    if (!s->has_connections)
        return;
    if (!t->is_taken)
        t->is_taken = mem_zalloc(s->connections.hdr->n_slots, 1);
    for (uint32_t i = 0; i < t->n_clients; i++) {
        struct takeover_client *client = &t->clients[i];
        client->thread = connections_record(&s->connections, client->slot)->thread % s->n_threads;
    }
    free_records(t, s);
    sort_blocks(t, s);
}

/* ---- one connection ---- */

static uint32_t first_block(const struct takeover *t, uint32_t slot)
{
    uint32_t low = 0, high = t->n_blocks;

    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (t->blocks[middle].slot < slot)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Its blocks that hold bytes still needed; the others are given back. */
static void take_blocks(const struct takeover *t, struct record *r, uint64_t in_seen)
{
    const struct connections *c = r->journal.connections;
    uint64_t in_start = r->journal.in_start;

    for (uint32_t i = first_block(t, r->slot); i < t->n_blocks; i++) {
        const struct takeover_block *b = &t->blocks[i];
        if (b->slot != r->slot)
            break;
        if ((b->index + 1) * CONNECTIONS_BLOCK_BYTES <= in_start ||
            b->index * CONNECTIONS_BLOCK_BYTES >= in_seen || in_start >= in_seen ||
            (r->journal.n > 0 && b->index != r->journal.first + r->journal.n))
            connections_free_block(c, b->block);
        else
            journal_add_block(&r->journal, b->block, b->index);
    }
    journal_set_seen(&r->journal, in_seen);
}

static bool is_complete(const struct record *r)
{
    const struct journal *j = &r->journal;
    const char *bytes;
    uint64_t at = j->in_start;
    size_t n;

    if (atomic_load(&r->shared->has_gap) && j->in_start < j->in_seen)
        return false;
    while ((n = journal_peek(j, at, &bytes)) > 0)
        at += n;
    return at == j->in_seen;
}

static bool find_input(const struct takeover *t, struct record *r, struct err *e)
{
    uint64_t n_read, in_start = r->journal.in_start;

    if (r->shared->cookie == 0) /* nothing was read yet */
        record_identify(r);
    if (!tcp_bytes_read(r->fd, &n_read))
        return err_set(e, ERR_PROTO, 0, "slot %u: not a TCP connection", r->slot);
    n_read -= r->shared->in_base;
    if (n_read < in_start || n_read >> 48)
        return err_set(e, ERR_PROTO, 0, "slot %u: %lld bytes were read, the request is at %llu",
                       r->slot, (long long)n_read, (unsigned long long)in_start);
    take_blocks(t, r, n_read);
    return true;
}

static struct http_resume resume_of(struct record *r)
{
    struct connection_record *shared = r->shared;
    struct http_resume resume = { .in_start = r->journal.in_start, .user = r };

    if (!r->is_resumed)
        return resume;
    resume.started_ns = shared->request_started_ns;
    resume.has_mark = atomic_load(&shared->has_output);
    resume.mark = (struct http_mark){ .answer_start = shared->answer_start,
                                      .whole_bytes = atomic_load(&shared->whole_bytes),
                                      .date_s = shared->date_s,
                                      .is_begun = shared->is_begun,
                                      .is_repeatable = shared->is_repeatable,
                                      .keep_alive = shared->keep_alive,
                                      .sent_continue = shared->sent_continue };
    return resume;
}

/* An answer that is all out needs no request any more. */
static bool check_input(const struct record *r, struct http_resume *resume, struct err *e)
{
    if (is_complete(r))
        return true;
    if (!resume->has_mark || !http_mark_is_out(&resume->mark, r->fd))
        return err_set(e, ERR_PROTO, 0, "slot %u: the journal had no room for its request",
                       r->slot);
    resume->mark.keep_alive = false;
    return true;
}

static void feed(struct http_conn *conn, const struct record *r)
{
    uint64_t at = r->journal.in_start;
    const char *bytes;
    size_t n;

    while ((n = journal_peek(&r->journal, at, &bytes)) > 0) {
        http_conn_feed(conn, bytes, n);
        at += n;
    }
}

static bool go_on(const struct takeover *t, struct gateway_thread *thread, struct record *r,
                  struct err *e)
{
    struct http_resume resume;
    struct http_conn *conn;

    if (!find_input(t, r, e)) {
        tcp_abort(r->fd);
        close(r->fd);
        return false;
    }
    resume = resume_of(r);
    if (!check_input(r, &resume, e)) {
        tcp_abort(r->fd);
        close(r->fd);
        return false;
    }
    conn = http_server_adopt(thread->server, r->fd, &resume, e);
    if (!conn)
        return false;
    handover_add(&thread->handover, r, true);
    feed(conn, r);
    http_conn_go_on(conn);
    return true;
}

/* Nobody goes on with it; what it has in the segment is free. */
static void drop(const struct takeover *t, struct service *s, struct record *r, enum stat_id cause)
{
    uint64_t owner = connections_owner_word(&s->connections, r->slot);

    account_lost(s, r->shared, cause);
    for (uint32_t i = first_block(t, r->slot); i < t->n_blocks && r->journal.n == 0; i++) {
        uint32_t block = t->blocks[i].block;
        if (t->blocks[i].slot != r->slot)
            break;
        if (atomic_load(&connections_owner(&s->connections, block)->owner) == owner)
            connections_free_block(&s->connections, block);
    }
    record_close(r);
}

static void take_client(struct takeover *t, struct gateway_thread *thread, struct record *r)
{
    struct service *s = thread->service;
    struct err e;

    if (tcp_is_shut(
            r->fd)) { /* by the client's reset, or by us: what it was told may be on its way */
        close(r->fd);
        drop(t, s, r, STAT_requests_cancelled);
    } else if (go_on(t, thread, r, &e)) {
        stat_add(s->stats, STAT_connections_resumed, 1);
    } else {
        log_warning("takeover slot=%u cut: %s", r->slot, e.msg);
        stat_add(s->stats, STAT_connections_lost, 1);
        drop(t, s, r, STAT_requests_finished_error);
    }
}

void takeover_run(struct takeover *t, struct gateway_thread *thread)
{
    struct service *s = thread->service;

    for (uint32_t i = 0; i < t->n_clients; i++) {
        struct takeover_client *client = &t->clients[i];
        struct record *r;
        if (client->thread != thread->index)
            continue;
        r = record_adopt(s, client->slot, client->fd, thread->index);
        client->fd = -1;
        take_client(t, thread, r);
        fault_point("gateway.adopt");
    }
}

void takeover_fini(struct takeover *t)
{
    for (uint32_t i = 0; i < t->n_clients; i++)
        if (t->clients[i].fd >= 0)
            close(t->clients[i].fd);
    free(t->clients);
    free(t->blocks);
    free(t->is_taken);
    *t = (struct takeover){ 0 };
}
