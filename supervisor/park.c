/* park.c - one byte and one descriptor per message. */
#include "supervisor/park.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fdpass.h"
#include "common/mem.h"

bool park_open(struct park *p, struct err *e)
{
    int pair[2];

    *p = (struct park){ .in = -1, .out = -1 };
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return err_set(e, ERR_SYS, errno, "make a socket for parked descriptors");
    p->in = pair[0];
    p->out = pair[1];
    return true;
}

void park_adopt(struct park *p, int in, int out)
{
    *p = (struct park){ .in = in, .out = out };
}

void park_close(struct park *p)
{
    if (p->in >= 0)
        close(p->in);
    if (p->out >= 0)
        close(p->out);
    free(p->places);
    *p = (struct park){ .in = -1, .out = -1 };
}

static int receive(const struct park *p, int flags)
{
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    char byte;
    struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control.room,
                        .msg_controllen = sizeof control.room };
    struct cmsghdr *c;
    int fd = -1;

    if (recvmsg(p->out, &m, flags | MSG_CMSG_CLOEXEC | MSG_DONTWAIT) <= 0)
        return -1;
    c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
    return fd;
}

static void grow(struct park *p)
{
    uint32_t n_room = p->n_room ? 2 * p->n_room : 64;
    struct park_place *places = mem_alloc(n_room * sizeof *places);

    for (uint32_t i = 0; i < p->n; i++)
        places[i] = p->places[(p->first + i) % p->n_room];
    free(p->places);
    p->places = places;
    p->n_room = n_room;
    p->first = 0;
}

bool park_put(struct park *p, int fd, struct park_place at)
{
    struct err e = { 0 };

    if (p->in < 0 || !fdpass_send(p->in, "", 1, &fd, 1, &e))
        return false;
    if (p->n == p->n_room)
        grow(p);
    p->places[(p->first + p->n++) % p->n_room] = at;
    return true;
}

const struct park_place *park_oldest(const struct park *p)
{
    return p->n ? &p->places[p->first] : NULL;
}

void park_forget_one(struct park *p)
{
    int fd = receive(p, 0);

    if (fd >= 0)
        close(fd);
}

void park_drop_oldest(struct park *p)
{
    assert(p->n > 0);
    park_forget_one(p);
    p->first = (p->first + 1) % p->n_room;
    p->n--;
}

int park_look(const struct park *p)
{
    return p->out < 0 ? -1 : receive(p, MSG_PEEK);
}
