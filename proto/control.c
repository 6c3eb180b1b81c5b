/* control.c - control messages: frame.h over fdpass.h. */
#include "proto/control.h"

#include <assert.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/mem.h"

bool control_send(int sock, enum msg_type type, const void *message, const int *fds, int n_fds,
                  struct err *e)
{
    struct buf out = { 0 };
    bool ok;

    frame_pack(&out, type, message);
    ok = out.n <= CONTROL_BYTES_MAX ||
         err_set(e, ERR_PROTO, 0, "%zu bytes are too many for a control message", out.n);
    ok = ok && fdpass_send(sock, out.data, out.n, fds, n_fds, e);
    if (!ok)
        err_wrap(e, "%s", msg_name(type));
    buf_fini(&out);
    return ok;
}

typedef enum fdpass_result get_fn(int sock, void *bytes, size_t cap, size_t *n,
                                  int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e);

static enum control_result get(int sock, get_fn *get_datagram, struct control_msg *m, struct err *e)
{
    uint8_t *bytes = mem_alloc(CONTROL_BYTES_MAX);
    enum control_result result = CONTROL_FAILED;
    struct frame f;
    size_t n = 0;

    *m = (struct control_msg){ 0 };
    switch (get_datagram(sock, bytes, CONTROL_BYTES_MAX, &n, m->fds, &m->n_fds, e)) {
    case FDPASS_EMPTY:
        result = CONTROL_EMPTY;
        break;
    case FDPASS_CLOSED:
        result = CONTROL_CLOSED;
        break;
    case FDPASS_FAILED:
        break;
    case FDPASS_OK:
        if (!frame_parse(&f, bytes, n, e) || !(m->body = frame_unpack(&f, e))) {
            control_msg_fini(m);
            break;
        }
        m->type = f.type;
        result = CONTROL_OK;
        break;
    }
    free(bytes);
    return result;
}

enum control_result control_recv(int sock, struct control_msg *m, struct err *e)
{
    return get(sock, fdpass_recv, m, e);
}

enum control_result control_peek(int sock, struct control_msg *m, struct err *e)
{
    return get(sock, fdpass_peek, m, e);
}

void control_drop(int sock)
{
    struct control_msg m;

    if (control_recv(sock, &m, NULL) == CONTROL_OK)
        control_msg_fini(&m);
}

void control_msg_fini(struct control_msg *m)
{
    frame_free_body(m->body);
    for (int i = 0; i < m->n_fds; i++)
        if (m->fds[i] >= 0)
            close(m->fds[i]);
    *m = (struct control_msg){ 0 };
}

int control_take_fd(struct control_msg *boot, Llmd__FdKind kind, uint32_t index)
{
    const Llmd__Boot *b = boot->body;

    assert(boot->type == MSG_BOOT);
    for (size_t i = 0; i < b->n_fds && i < (size_t)boot->n_fds; i++) {
        if (b->fds[i]->kind == kind && b->fds[i]->index == index && boot->fds[i] >= 0) {
            int fd = boot->fds[i];
            boot->fds[i] = -1;
            return fd;
        }
    }
    return -1;
}
