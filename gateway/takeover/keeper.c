/* keeper.c - clone, wait for the death of the gateway, hand over what it had in its hands. */
#include "gateway/takeover/keeper.h"

#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gateway/net/tcp_offset.h"
#include "gateway/takeover/record.h"
#include "proto/control.h"

enum { SEND_MS = 1000, SEND_TRIES = 60 };

/* ---- in the keeper: the gateway is dead, the table of descriptors is ours ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The cookies of all connections that llmd was given, in order. */
static uint32_t list_handed(const struct connections *c, uint64_t *cookies)
{
    uint32_t n = 0;

    for (uint32_t slot = 0; slot < c->hdr->n_slots; slot++) {
        const struct connection_record *r = connections_record(c, slot);
        if (connection_state(r) != CONNECTION_FREE && atomic_load(&r->is_handed))
            cookies[n++] = r->cookie;
    }
    qsort(cookies, n, sizeof *cookies, by_value);
    return n;
}

/* Of a connection that was shut down, only close() was missing. */
static bool is_client(int fd, uint64_t *cookie)
{
    int protocol = 0, listens = 0;
    socklen_t n = sizeof protocol, n_cookie = sizeof *cookie;

    if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) || protocol != IPPROTO_TCP)
        return false;
    n = sizeof listens;
    return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &n) && !listens &&
           !getsockopt(fd, SOL_SOCKET, SO_COOKIE, cookie, &n_cookie) && !tcp_is_shut(fd);
}

/* Its record, or a new one: it may have died before it had any. */
static uint32_t slot_of(struct service *s, int fd, uint64_t cookie)
{
    const struct connections *c = &s->connections;
    struct record *r;

    for (uint32_t slot = 0; slot < c->hdr->n_slots; slot++) {
        const struct connection_record *known = connections_record(c, slot);
        if (connection_state(known) != CONNECTION_FREE && known->cookie == cookie)
            return slot;
    }
    r = record_open(s, fd, true, 0, 0);
    if (!r)
        return CONNECTIONS_NO_SLOT;
    record_identify(r);
    return r->slot;
}

/* llmd may be dead as well, and its socket full until the next one reads it. */
static bool send_one(struct service *s, uint32_t slot, int fd)
{
    Llmd__Connections m = LLMD__CONNECTIONS__INIT;
    Llmd__Connections__Kept kept = LLMD__CONNECTIONS__KEPT__INIT, *list[1] = { &kept };
    struct pollfd p = { .fd = s->control, .events = POLLOUT };
    struct err e;

    kept.slot = slot;
    kept.generation = atomic_load(&connections_record(&s->connections, slot)->generation);
    m.kept = list;
    m.n_kept = 1;
    for (int i = 0; i < SEND_TRIES; i++) {
        if (control_send(s->control, MSG_CONNECTIONS, &m, &fd, 1, &e))
            return true;
        if (e.sys != EAGAIN)
            return false;
        poll(&p, 1, SEND_MS);
    }
    return false;
}

static bool hand(struct service *s, int fd, const uint64_t *handed, uint32_t n_handed)
{
    uint64_t cookie;
    uint32_t slot;

    if (!is_client(fd, &cookie) || bsearch(&cookie, handed, n_handed, sizeof *handed, by_value))
        return true;
    slot = slot_of(s, fd, cookie);
    return slot == CONNECTIONS_NO_SLOT || send_one(s, slot, fd);
}

static void hand_all(struct service *s)
{
    uint64_t *handed = mem_alloc(s->connections.hdr->n_slots * sizeof *handed);
    uint32_t n_handed = list_handed(&s->connections, handed);
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;

    while (dir && (entry = readdir(dir)))
        if (entry->d_name[0] != '.' && !hand(s, atoi(entry->d_name), handed, n_handed))
            break;
}

/* Closing anything here would close it there, so nothing is, until the gateway is dead. */
static void run_keeper(struct service *s, int gateway)
{
    struct pollfd p = { .fd = gateway, .events = POLLIN };

    prctl(PR_SET_NAME, "llm-keeper");
    while (poll(&p, 1, -1) < 0 && errno == EINTR) {
    }
    hand_all(s);
    _exit(0);
}

/* ---- in the gateway ---- */

bool keeper_start(struct keeper *k, struct service *s, struct err *e)
{
    long pid;

    if (!s->has_connections)
        return true;
    k->gateway = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (k->gateway < 0)
        return err_set(e, ERR_SYS, errno, "open a pidfd of ourselves");
    pid = syscall(SYS_clone, CLONE_FILES, NULL, NULL, NULL, NULL);
    if (pid == 0)
        run_keeper(s, k->gateway);
    if (pid < 0) {
        close(k->gateway);
        return err_set(e, ERR_SYS, errno, "make the keeper of connections");
    }
    k->pid = (pid_t)pid;
    return true;
}

void keeper_stop(struct keeper *k)
{
    if (k->pid == 0)
        return;
    kill(k->pid, SIGKILL);
    waitpid(k->pid, NULL, __WALL);
    close(k->gateway);
    k->pid = 0;
}
