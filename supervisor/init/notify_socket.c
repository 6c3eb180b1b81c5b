/* notify_socket.c - an abstract address: nothing is left behind, and only who was told it can send. */
#include "supervisor/init/notify_socket.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

bool notify_socket_open(struct notify_socket *s, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    unsigned long long word[2];
    size_t length;

    *s = (struct notify_socket){ .fd = -1 };
    if (getrandom(word, sizeof word, 0) != sizeof word)
        return err_set(e, ERR_SYS, errno, "draw a random number");
    length = (size_t)snprintf(s->address, sizeof s->address, "@llm-init-%016llx%016llx", word[0],
                              word[1]);
    memcpy(at.sun_path + 1, s->address + 1, length - 1);
    s->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0 || setsockopt(s->fd, SOL_SOCKET, SO_PASSCRED, &(int){ 1 }, sizeof(int)) < 0 ||
        bind(s->fd, (struct sockaddr *)&at,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0) {
        err_set(e, ERR_SYS, errno, "make the notify socket");
        notify_socket_close(s);
        return false;
    }
    return true;
}

void notify_socket_close(struct notify_socket *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
}

static void take_control(struct datagram *d, struct msghdr *msg)
{
    struct ucred sender;

    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        if (c->cmsg_level != SOL_SOCKET)
            continue;
        if (c->cmsg_type == SCM_RIGHTS) {
            d->n_fds = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
            memcpy(d->fds, CMSG_DATA(c), sizeof(int) * (size_t)d->n_fds);
        } else if (c->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&sender, CMSG_DATA(c), sizeof sender);
            d->pid = sender.pid;
        }
    }
}

bool notify_socket_receive(const struct notify_socket *s, struct datagram *d)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * NOTICE_FDS_MAX) + CMSG_SPACE(sizeof(struct ucred))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = d->bytes, .iov_len = sizeof d->bytes };
    struct msghdr msg = { .msg_iov = &iov,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes };

    d->pid = 0;
    d->n_fds = 0;
    do
        d->n = recvmsg(s->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    while (d->n < 0 && errno == EINTR);
    if (d->n < 0)
        return false;
    take_control(d, &msg);
    d->is_whole = !(msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC));
    return true;
}

void datagram_close_fds(struct datagram *d)
{
    for (int i = 0; i < d->n_fds; i++)
        close(d->fds[i]);
    d->n_fds = 0;
}
