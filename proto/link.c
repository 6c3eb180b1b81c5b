/* link.c - ZeroMQ ROUTER and DEALER with our frames.
 *
 * ZMQ_IMMEDIATE ties a DEALER's queue to one connection.  Without it ZeroMQ keeps the queue over a
 * reconnection: the probe goes out only once in the socket's life, so the next worker never hears of
 * this peer, and what was queued for the dead worker reaches the living one. */
#include "proto/link.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zmq.h>

#include "common/mem.h"

enum { QUEUE_MESSAGES_MAX = 4096, RECONNECT_MS = 5, RECONNECT_MS_MAX = 20, ID_BYTES = 5 };

struct link {
    void *context, *socket;
    bool is_router;
};

/* A routing id must not begin with a zero byte. */
static void put_id(uint8_t id[ID_BYTES], uint32_t peer)
{
    id[0] = 'G';
    for (int i = 0; i < 4; i++)
        id[1 + i] = (uint8_t)(peer >> (8 * i));
}

static bool get_id(uint32_t *peer, const uint8_t *id, size_t n)
{
    if (n != ID_BYTES || id[0] != 'G')
        return false;
    *peer = (uint32_t)id[1] | (uint32_t)id[2] << 8 | (uint32_t)id[3] << 16 | (uint32_t)id[4] << 24;
    return true;
}

static bool set_int(struct link *l, int option, int value)
{
    return zmq_setsockopt(l->socket, option, &value, sizeof value) == 0;
}

static struct link *open_socket(int type, struct err *e)
{
    struct link *l = mem_zalloc(1, sizeof *l);

    l->is_router = type == ZMQ_ROUTER;
    l->context = zmq_ctx_new();
    l->socket = l->context ? zmq_socket(l->context, type) : NULL;
    if (!l->socket || !set_int(l, ZMQ_LINGER, 0) || !set_int(l, ZMQ_SNDHWM, QUEUE_MESSAGES_MAX) ||
        !set_int(l, ZMQ_RCVHWM, QUEUE_MESSAGES_MAX) ||
        zmq_setsockopt(l->socket, ZMQ_MAXMSGSIZE,
                       &(int64_t){ FRAME_BODY_BYTES_MAX + FRAME_HEADER_BYTES },
                       sizeof(int64_t)) < 0) {
        err_set(e, ERR_SYS, zmq_errno(), "make a ZeroMQ socket");
        link_close(l);
        return NULL;
    }
    return l;
}

static void put_address(char *out, size_t n, const char *instance, uint32_t group)
{
    snprintf(out, n, "ipc://@llmd-%s-group-%u", instance, group);
}

struct link *link_bind(const char *instance, uint32_t group, struct err *e)
{
    struct link *l = open_socket(ZMQ_ROUTER, e);
    uid_t uid = geteuid();
    char address[96];

    if (!l)
        return NULL;
    put_address(address, sizeof address, instance, group);
    if (!set_int(l, ZMQ_ROUTER_MANDATORY, 1) || !set_int(l, ZMQ_ROUTER_HANDOVER, 1) ||
        zmq_setsockopt(l->socket, ZMQ_IPC_FILTER_UID, &uid, sizeof uid) < 0 ||
        zmq_bind(l->socket, address) < 0) {
        err_set(e, ERR_SYS, zmq_errno(), "bind '%s'", address);
        link_close(l);
        return NULL;
    }
    return l;
}

struct link *link_connect(const char *instance, uint32_t group, uint32_t peer, struct err *e)
{
    struct link *l = open_socket(ZMQ_DEALER, e);
    uint8_t id[ID_BYTES];
    char address[96];

    if (!l)
        return NULL;
    assert(peer != 0);
    put_id(id, peer);
    put_address(address, sizeof address, instance, group);
    if (zmq_setsockopt(l->socket, ZMQ_ROUTING_ID, id, sizeof id) < 0 ||
        !set_int(l, ZMQ_PROBE_ROUTER, 1) || !set_int(l, ZMQ_IMMEDIATE, 1) ||
        !set_int(l, ZMQ_RECONNECT_IVL, RECONNECT_MS) ||
        !set_int(l, ZMQ_RECONNECT_IVL_MAX, RECONNECT_MS_MAX) ||
        zmq_connect(l->socket, address) < 0) {
        err_set(e, ERR_SYS, zmq_errno(), "connect '%s'", address);
        link_close(l);
        return NULL;
    }
    return l;
}

void link_close(struct link *l)
{
    if (!l)
        return;
    if (l->socket)
        zmq_close(l->socket);
    if (l->context)
        zmq_ctx_term(l->context);
    free(l);
}

int link_fd(const struct link *l)
{
    size_t n = sizeof(int);
    int fd = -1;

    zmq_getsockopt(l->socket, ZMQ_FD, &fd, &n);
    return fd;
}

/* A ZeroMQ payload has no alignment; protobuf-c reads bytes, so none is needed. */
static enum link_result unpack(struct link_msg *m, zmq_msg_t *part, struct err *e)
{
    struct frame f;

    if (!frame_parse(&f, zmq_msg_data(part), zmq_msg_size(part), e))
        return LINK_FAILED;
    m->body = frame_unpack(&f, e);
    m->type = f.type;
    return m->body ? LINK_OK : LINK_FAILED;
}

/* The descriptor is edge-triggered: a signal in between must not be taken for "nothing there". */
static bool receive(struct link *l, zmq_msg_t *part)
{
    int n;

    do
        n = zmq_msg_recv(part, l->socket, ZMQ_DONTWAIT);
    while (n < 0 && zmq_errno() == EINTR);
    return n >= 0;
}

/* Nor may one split a message: its second part would be taken for the next one's address. */
static bool send_part(struct link *l, const void *bytes, size_t n, int flags)
{
    int sent;

    do
        sent = zmq_send(l->socket, bytes, n, ZMQ_DONTWAIT | flags);
    while (sent < 0 && zmq_errno() == EINTR);
    return sent >= 0;
}

static void drop_rest(struct link *l, zmq_msg_t *part)
{
    while (zmq_msg_more(part) && receive(l, part)) {
    }
}

enum link_result link_recv(struct link *l, struct link_msg *m, struct err *e)
{
    enum link_result result = LINK_EMPTY;
    zmq_msg_t part;
    bool known = true;

    *m = (struct link_msg){ 0 };
    zmq_msg_init(&part);
    if (!receive(l, &part))
        goto out;
    if (l->is_router) {
        known = get_id(&m->peer, zmq_msg_data(&part), zmq_msg_size(&part));
        if (!zmq_msg_more(&part) || !receive(l, &part))
            goto out;
    }
    if (!known || zmq_msg_more(&part)) {
        err_set(e, ERR_PROTO, 0, "message of an unknown peer or of several parts");
        result = LINK_FAILED;
    } else if (l->is_router && zmq_msg_size(&part) == 0) {
        result = LINK_CONNECTED;
    } else {
        result = unpack(m, &part, e);
    }
    drop_rest(l, &part);
out:
    zmq_msg_close(&part);
    return result;
}

bool link_send(struct link *l, uint32_t peer, enum msg_type type, const void *message)
{
    struct buf out = { 0 };
    uint8_t id[ID_BYTES];
    bool ok = true;

    frame_pack(&out, type, message);
    if (l->is_router) {
        put_id(id, peer);
        ok = send_part(l, id, sizeof id, ZMQ_SNDMORE);
    }
    ok = ok && send_part(l, out.data, out.n, 0);
    buf_fini(&out);
    return ok;
}
