/* mesh.c - abstract unix sockets: rank r listens, connects to the ranks below it and accepts those above.
 *
 * Nobody can be told when an abstract address comes into being, so a rank that is early tries again every few
 * milliseconds; all other waits are for events. */
#include "gpu-worker/cuda/mesh.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdpass.h"

/* The version is that of all that ranks say to each other here, rounds included, and of what areas look like. */
enum { MESH_VERSION = 1, RETRY_MS = 2 };

/* The first message on a connection, from the rank that made it. */
struct hello {
    uint32_t version, rank, n_ranks, epoch;
    uint64_t group_id;
};

static int ms_until(uint64_t deadline_ns)
{
    uint64_t now = clock_mono_ns();

    return now >= deadline_ns ? 0 : (int)((deadline_ns - now) / NS_PER_MS) + 1;
}

/* Something to read, or an end, before the deadline. */
static bool wait_readable(int fd, uint64_t deadline_ns)
{
    struct pollfd p = { .fd = fd, .events = POLLIN };
    int ms, n;

    do {
        ms = ms_until(deadline_ns);
        n = poll(&p, 1, ms);
    } while (n < 0 && ms > 0);
    return n > 0;
}

static socklen_t address_of(struct sockaddr_un *a, const struct hello *h, uint32_t rank)
{
    int n;

    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "llmd-ranks-%016" PRIx64 "-%u-%u",
                 h->group_id, h->epoch, rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

bool mesh_is_of_our_user(int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.uid == geteuid();
}

/* ---- meeting ---- */

static int open_socket(struct err *e)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        err_set(e, ERR_SYS, errno, "socket between ranks");
    return fd;
}

static int listen_as(const struct hello *h, struct err *e)
{
    struct sockaddr_un at;
    socklen_t bytes = address_of(&at, h, h->rank);
    int fd = open_socket(e);

    if (fd < 0)
        return -1;
    if (bind(fd, (struct sockaddr *)&at, bytes) == 0 && listen(fd, MESH_RANKS_MAX) == 0)
        return fd;
    err_set(e, ERR_SYS, errno, "listen at '@%s'", at.sun_path + 1);
    close(fd);
    return -1;
}

/* Connect to a rank that may not listen yet. */
static int connect_to(const struct hello *h, uint32_t rank, uint64_t deadline_ns, struct err *e)
{
    const struct timespec retry = { 0, RETRY_MS * 1000000 };
    struct sockaddr_un at;
    socklen_t bytes = address_of(&at, h, rank);
    int fd = open_socket(e);

    if (fd < 0)
        return -1;
    while (connect(fd, (struct sockaddr *)&at, bytes) != 0) {
        if (errno != ECONNREFUSED && errno != EINTR) {
            err_set(e, ERR_SYS, errno, "connect to rank %u", rank);
            close(fd);
            return -1;
        }
        if (clock_mono_ns() > deadline_ns) {
            err_set(e, ERR_TIMEOUT, 0, "rank %u did not come to meet rank %u", rank, h->rank);
            close(fd);
            return -1;
        }
        nanosleep(&retry, NULL);
    }
    if (mesh_is_of_our_user(fd) && fdpass_send(fd, h, sizeof *h, NULL, 0, e))
        return fd;
    close(fd);
    err_set(e, ERR_PROTO, 0, "rank %u is not a process of ours", rank);
    return -1;
}

enum greeting { GREETED, STRANGER, REFUSED };

/* Who has connected?  A stranger is sent away and forgotten. */
static enum greeting greet(struct mesh *m, const struct hello *mine, int fd, uint64_t deadline_ns,
                           struct err *e)
{
    struct hello h;
    int fds[FDPASS_FDS_MAX], n_fds = 0;
    size_t n = 0;

    if (!mesh_is_of_our_user(fd) || !wait_readable(fd, deadline_ns) ||
        fdpass_recv(fd, &h, sizeof h, &n, fds, &n_fds, NULL) != FDPASS_OK)
        return STRANGER;
    while (n_fds > 0)
        close(fds[--n_fds]);
    if (n != sizeof h || h.version != MESH_VERSION || h.group_id != mine->group_id ||
        h.epoch != mine->epoch || h.n_ranks != mine->n_ranks || h.rank <= mine->rank ||
        h.rank >= m->n_ranks || m->fds[h.rank] >= 0) {
        err_set(e, ERR_PROTO, 0,
                "a process that wants to be a rank of this group is of another build");
        return REFUSED;
    }
    m->fds[h.rank] = fd;
    return GREETED;
}

/* Take in the ranks above this one. */
static bool accept_all(struct mesh *m, const struct hello *h, int listener, uint64_t deadline_ns,
                       struct err *e)
{
    uint32_t n_missing = h->n_ranks - 1 - h->rank;

    while (n_missing > 0) {
        enum greeting greeting;
        int fd;
        if (!wait_readable(listener, deadline_ns))
            return err_set(e, ERR_TIMEOUT, 0, "%u ranks did not come to meet rank %u", n_missing,
                           h->rank);
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        greeting = greet(m, h, fd, deadline_ns, e);
        if (greeting != GREETED)
            close(fd);
        if (greeting == REFUSED)
            return false;
        n_missing -= greeting == GREETED;
    }
    return true;
}

bool mesh_open(struct mesh *m, uint64_t group_id, uint32_t epoch, uint32_t rank, uint32_t n_ranks,
               uint64_t deadline_ns, struct err *e)
{
    struct hello h = { MESH_VERSION, rank, n_ranks, epoch, group_id };
    bool ok;
    int listener;

    assert(n_ranks >= 1 && n_ranks <= MESH_RANKS_MAX && rank < n_ranks);
    *m = (struct mesh){ .rank = rank, .n_ranks = n_ranks };
    memset(m->fds, -1, sizeof m->fds);
    listener = listen_as(&h, e);
    ok = listener >= 0;
    for (uint32_t r = 0; r < rank && ok; r++) {
        m->fds[r] = connect_to(&h, r, deadline_ns, e);
        ok = m->fds[r] >= 0;
    }
    ok = ok && accept_all(m, &h, listener, deadline_ns, e);
    if (listener >= 0)
        close(listener);
    if (!ok)
        mesh_close(m);
    return ok;
}

void mesh_close(struct mesh *m)
{
    if (m->n_ranks == 0)
        return;
    for (int r = 0; r < MESH_RANKS_MAX; r++)
        if (m->fds[r] >= 0)
            close(m->fds[r]);
    *m = (struct mesh){ 0 };
}

/* ---- rounds ---- */

/* Of a round's message: its bytes, and at most one descriptor, where some are expected. */
static bool receive(struct mesh *m, uint32_t peer, void *to, int *fd, size_t bytes,
                    uint64_t deadline_ns, struct err *e)
{
    int fds[FDPASS_FDS_MAX], n_fds = 0;
    uint8_t message[MESH_ROUND_BYTES_MAX];
    size_t n = 0;

    if (!wait_readable(m->fds[peer], deadline_ns))
        return err_set(e, ERR_TIMEOUT, 0, "rank %u says nothing to rank %u", peer, m->rank);
    switch (fdpass_recv(m->fds[peer], message, sizeof message, &n, fds, &n_fds, e)) {
    case FDPASS_OK:
        break;
    case FDPASS_FAILED:
        return err_wrap(e, "rank %u", peer);
    default:
        return err_set(e, ERR_DEVICE, 0, "rank %u has left the group", peer);
    }
    if (n == bytes && n_fds <= (fd ? 1 : 0)) {
        memcpy(to, message, bytes);
        if (fd)
            *fd = n_fds > 0 ? fds[0] : -1;
        return true;
    }
    while (n_fds > 0)
        close(fds[--n_fds]);
    return err_set(e, ERR_PROTO, 0, "rank %u is of another build: %zu bytes, %zu are wanted", peer,
                   n, bytes);
}

bool mesh_all_gather(struct mesh *m, const void *mine, int fd, void *all, int *fds, size_t bytes,
                     uint64_t deadline_ns, struct err *e)
{
    assert(bytes <= MESH_ROUND_BYTES_MAX && (fds || fd < 0));
    for (uint32_t r = 0; r < m->n_ranks && fds; r++)
        fds[r] = -1;
    memmove((char *)all + m->rank * bytes, mine, bytes);
    for (uint32_t r = 0; r < m->n_ranks; r++)
        if (r != m->rank && !fdpass_send(m->fds[r], mine, bytes, &fd, fd >= 0 ? 1 : 0, e))
            return err_set(e, ERR_DEVICE, 0, "rank %u has left the group", r);
    for (uint32_t r = 0; r < m->n_ranks; r++) {
        if (r == m->rank ||
            receive(m, r, (char *)all + r * bytes, fds ? &fds[r] : NULL, bytes, deadline_ns, e))
            continue;
        for (uint32_t i = 0; i < r && fds; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        return false;
    }
    return true;
}
