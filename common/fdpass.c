/* fdpass.c - sendmsg and recvmsg with SCM_RIGHTS. */
#include "common/fdpass.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

union control {
    char bytes[CMSG_SPACE(sizeof(int) * FDPASS_FDS_MAX)];
    struct cmsghdr align;
};

bool fdpass_send(int sock, const void *bytes, size_t n, const int *fds, int n_fds, struct err *e)
{
    struct iovec iov = { .iov_base = (void *)(uintptr_t)bytes, .iov_len = n };
    struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
    union control control;
    ssize_t sent;

    assert(n > 0 && n_fds >= 0 && n_fds <= FDPASS_FDS_MAX);
    if (n_fds > 0) {
        size_t fd_bytes = sizeof(int) * (size_t)n_fds;
        memset(&control, 0, sizeof control);
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(fd_bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_bytes);
        memcpy(CMSG_DATA(c), fds, fd_bytes);
    }
    do
        sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return err_set(e, ERR_SYS, errno, "send a control message of %zu bytes", n);
    return true;
}

static void take_fds(struct msghdr *msg, int fds[FDPASS_FDS_MAX], int *n_fds)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        int n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(fds + *n_fds, CMSG_DATA(c), sizeof(int) * (size_t)n);
        *n_fds += n;
    }
}

/* A peer that goes with mail unread leaves ECONNRESET, which the kernel reports once and before what the
 * peer had sent: its last words come behind it. */
static ssize_t receive(int sock, struct msghdr *msg, int flags)
{
    bool was_reset = false;
    ssize_t got;

    for (;;) {
        got = recvmsg(sock, msg, MSG_CMSG_CLOEXEC | flags);
        if (got < 0 && errno == ECONNRESET && !was_reset)
            was_reset = true;
        else if (got >= 0 || errno != EINTR)
            return got;
    }
}

/* Close what came of a message that is refused, and say why. */
static enum fdpass_result refuse(const struct msghdr *msg, size_t cap, int *fds, int *n_fds,
                                 struct err *e)
{
    while (*n_fds > 0)
        close(fds[--*n_fds]);
    if (msg->msg_flags & MSG_CTRUNC)
        err_set(e, ERR_PROTO, 0,
                "control message brings more than %d descriptors, or more than may be open here",
                FDPASS_FDS_MAX);
    else
        err_set(e, ERR_PROTO, 0, "control message is larger than the %zu bytes allowed", cap);
    return FDPASS_FAILED;
}

static enum fdpass_result get(int sock, int flags, void *bytes, size_t cap, size_t *n,
                              int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e)
{
    struct iovec iov = { .iov_base = bytes, .iov_len = cap };
    union control control;
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };
    ssize_t got;

    *n_fds = 0;
    got = receive(sock, &msg, flags);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return FDPASS_EMPTY;
    if (got < 0 && errno == ECONNRESET)
        return FDPASS_CLOSED;
    if (got < 0) {
        err_set(e, ERR_SYS, errno, "receive a control message");
        return FDPASS_FAILED;
    }
    take_fds(&msg, fds, n_fds);
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return refuse(&msg, cap, fds, n_fds, e);
    if (got == 0 && *n_fds == 0)
        return FDPASS_CLOSED;
    *n = (size_t)got;
    return FDPASS_OK;
}

enum fdpass_result fdpass_recv(int sock, void *bytes, size_t cap, size_t *n,
                               int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e)
{
    return get(sock, 0, bytes, cap, n, fds, n_fds, e);
}

enum fdpass_result fdpass_peek(int sock, void *bytes, size_t cap, size_t *n,
                               int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e)
{
    return get(sock, MSG_PEEK, bytes, cap, n, fds, n_fds, e);
}
