/* sibling_pages.c - see sibling_pages.h. */
#include "gpu-worker/cuda/sibling_pages.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/cuda/mesh.h"
#include "proto/gpu_names.h"

enum { POLLS = 2 + 2 * SIBLING_GROUPS_MAX, ANSWER_MS = 1000 };

#define LIMIT_NS (60 * NS_PER_S)

/* The same rank of another group. */
struct sibling {
    int fd; /* the connection; -1 = none */
    struct chunks chunks;
};

struct sibling_pages {
    struct sibling_pages_setup setup;
    struct device_stream stream;
    int listener, wake;             /* eventfd: connections have changed, or the end */
    int guests[SIBLING_GROUPS_MAX]; /* who was given our memory; the thread's; -1 = nobody */
    pthread_mutex_t lock;           /* of siblings[] and what is mapped */
    struct sibling siblings[SIBLING_GROUPS_MAX];
    pthread_t thread;
    bool has_thread, stop;
};

static uint32_t first_page(const struct sibling_pages *s, uint32_t group)
{
    return (uint32_t)((uint64_t)s->setup.n_pages * group / s->setup.n_groups);
}

static socklen_t address_of(const struct sibling_pages *s, struct sockaddr_un *a, uint32_t group)
{
    int n;

    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "llmd-pages-%016" PRIx64 "-%u-%u",
                 s->setup.pool_id, group, s->setup.rank);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static int open_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
}

/* ---- serving: the thread ---- */

static void take_in_guest(struct sibling_pages *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);
    uint32_t i = 0;
    struct err e;

    if (fd < 0)
        return;
    while (i < SIBLING_GROUPS_MAX && s->guests[i] >= 0)
        i++;
    if (i == SIBLING_GROUPS_MAX || !mesh_is_of_our_user(fd) ||
        !chunk_set_send(s->setup.own, fd, &e)) {
        close(fd);
        return;
    }
    s->guests[i] = fd;
}

static void leave(struct sibling_pages *s, struct sibling *one)
{
    struct err e;

    if (one->chunks.device && device_bind(s->setup.device, &e))
        chunks_unmap(&one->chunks);
    if (one->fd >= 0)
        close(one->fd);
    *one = (struct sibling){ .fd = -1 };
}

/* Nobody says anything on these connections: what can be read is their end. */
static void look_at(struct sibling_pages *s, const struct pollfd *p)
{
    for (uint32_t i = 0; i < SIBLING_GROUPS_MAX; i++)
        if (s->guests[i] == p->fd) {
            close(s->guests[i]);
            s->guests[i] = -1;
            return;
        }
    pthread_mutex_lock(&s->lock);
    for (uint32_t g = 0; g < s->setup.n_groups; g++)
        if (s->siblings[g].fd == p->fd) {
            log_info("the worker of group %u is gone, its pages are no more in reach", g);
            leave(s, &s->siblings[g]);
        }
    pthread_mutex_unlock(&s->lock);
}

static void add(struct pollfd *p, nfds_t *n, int fd)
{
    if (fd >= 0)
        p[(*n)++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

static nfds_t list_all(struct sibling_pages *s, struct pollfd *p, bool *stop)
{
    nfds_t n = 0;

    add(p, &n, s->wake);
    add(p, &n, s->listener);
    for (uint32_t i = 0; i < SIBLING_GROUPS_MAX; i++)
        add(p, &n, s->guests[i]);
    pthread_mutex_lock(&s->lock);
    for (uint32_t g = 0; g < s->setup.n_groups; g++)
        add(p, &n, s->siblings[g].fd);
    *stop = s->stop;
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void *serve(void *arg)
{
    struct sibling_pages *s = arg;
    struct pollfd p[POLLS];
    eventfd_t ignored;
    nfds_t n;
    bool stop;

    while (n = list_all(s, p, &stop), !stop) {
        if (poll(p, n, -1) < 0)
            continue;
        if (p[0].revents)
            eventfd_read(s->wake, &ignored);
        if (p[1].revents)
            take_in_guest(s);
        for (nfds_t i = 2; i < n; i++)
            if (p[i].revents)
                look_at(s, &p[i]);
    }
    return NULL;
}

/* ---- reaching ---- */

static int connect_to(const struct sibling_pages *s, uint32_t group)
{
    const struct timeval limit = { .tv_usec = ANSWER_MS * 1000 % 1000000,
                                   .tv_sec = ANSWER_MS / 1000 };
    struct sockaddr_un at;
    socklen_t bytes = address_of(s, &at, group);
    int fd = open_socket();

    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&at, bytes) == 0 && mesh_is_of_our_user(fd))
        return fd;
    close(fd);
    return -1;
}

/* The whole set that the other one sends; chunk_set_fini() is due either way. */
static bool receive_set(int fd, struct chunk_set *set, struct err *e)
{
    bool ok = true;

    while (ok && !chunk_set_is_whole(set)) {
        struct control_msg m;
        if (control_recv(fd, &m, e) != CONTROL_OK)
            return err_set(e, ERR_PROTO, 0, "another group's worker did not send its pages");
        ok = m.type == MSG_CHUNKS && m.n_fds > 0 && chunk_set_check(m.body, m.n_fds, e);
        if (ok && !set->fds)
            chunk_set_begin(set, m.body);
        ok = ok && chunk_set_is_same(set, m.body) && chunk_set_take(set, &m) > 0;
        control_msg_fini(&m);
    }
    return ok || err_set(e, ERR_PROTO, 0, "another group's worker sent something else");
}

static bool map_set(struct sibling_pages *s, uint32_t group, const struct chunk_set *set,
                    struct chunks *out, struct err *e)
{
    uint64_t n = first_page(s, group + 1) - first_page(s, group);

    if (set->kind != CHUNKS_KV || set->group != group || set->rank != s->setup.rank ||
        set->bytes < n * s->setup.page_bytes)
        return err_set(e, ERR_PROTO, 0, "pages of group %u: not what was expected", group);
    return chunks_map(out, s->setup.device, set, false, e);
}

/* By its name: numbers change when a GPU before it is lost. */
static bool find_gpu(const struct sibling_pages *s, uint32_t group, int *ordinal)
{
    uint32_t place = group * s->setup.tp_size + s->setup.rank;
    char name[GPU_NAME_BYTES];
    struct err e;

    *ordinal = (int)place;
    return !s->setup.gpus || !gpu_names_get(s->setup.gpus, place, name) ||
           device_find(name, ordinal, &e);
}

/* Whether the driver says that it can be: then it is tried. */
static bool may_reach(const struct sibling_pages *s, uint32_t group)
{
    int can = 0, own = device_info(s->setup.device)->ordinal, other;

    if (!find_gpu(s, group, &other))
        return false;
    return own == other || (cuda.cuDeviceCanAccessPeer(&can, own, other) == CU_OK && can);
}

static void keep(struct sibling_pages *s, uint32_t group, int fd, const struct chunks *chunks)
{
    pthread_mutex_lock(&s->lock);
    s->siblings[group] = (struct sibling){ fd, *chunks };
    pthread_mutex_unlock(&s->lock);
    eventfd_write(s->wake, 1);
}

static bool is_mapped(struct sibling_pages *s, uint32_t group)
{
    bool is;

    pthread_mutex_lock(&s->lock);
    is = s->siblings[group].chunks.device != NULL;
    pthread_mutex_unlock(&s->lock);
    return is;
}

bool sibling_pages_reach(struct sibling_pages *s, uint32_t group)
{
    struct chunk_set set = { 0 };
    struct chunks chunks;
    struct err e = { 0 };
    int fd;

    assert(group < s->setup.n_groups && group != s->setup.group);
    if (is_mapped(s, group))
        return true;
    if (!may_reach(s, group) || (fd = connect_to(s, group)) < 0)
        return false;
    if (receive_set(fd, &set, &e) && map_set(s, group, &set, &chunks, &e)) {
        log_info("pages of group %u are in reach, MiB=%llu", group,
                 (unsigned long long)(chunks.bytes >> 20));
        keep(s, group, fd, &chunks);
    } else {
        log_warning("pages of group %u are out of reach: %s", group, e.msg);
        close(fd);
    }
    chunk_set_fini(&set);
    return is_mapped(s, group);
}

uint32_t sibling_pages_group(const struct sibling_pages *s, uint32_t page)
{
    uint32_t g = 0;

    while (page >= first_page(s, g + 1))
        g++;
    return g;
}

/* Under the lock: a mapping does not go while something reads there. */
bool sibling_pages_copy(struct sibling_pages *s, cu_ptr to, uint32_t page)
{
    uint32_t group = sibling_pages_group(s, page);
    uint64_t at = (uint64_t)(page - first_page(s, group)) * s->setup.page_bytes;
    const struct chunks *chunks = &s->siblings[group].chunks;
    struct err e;
    bool ok;

    pthread_mutex_lock(&s->lock);
    ok = chunks->device && device_copy(&s->stream, to, chunks->base + at, s->setup.page_bytes) &&
         device_stream_finish(&s->stream, LIMIT_NS, &e);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* ---- life ---- */

static bool open_listener(struct sibling_pages *s, struct err *e)
{
    struct sockaddr_un at;
    socklen_t bytes = address_of(s, &at, s->setup.group);

    s->wake = eventfd(0, EFD_CLOEXEC);
    s->listener = open_socket();
    if (s->wake >= 0 && s->listener >= 0 && bind(s->listener, (struct sockaddr *)&at, bytes) == 0 &&
        listen(s->listener, SIBLING_GROUPS_MAX) == 0)
        return true;
    return err_set(e, ERR_SYS, errno, "listen at '@%s'", at.sun_path + 1);
}

struct sibling_pages *sibling_pages_new(const struct sibling_pages_setup *setup, struct err *e)
{
    struct sibling_pages *s = mem_zalloc(1, sizeof *s);
    bool ok;

    assert(setup->n_groups > 1 && setup->n_groups <= SIBLING_GROUPS_MAX);
    s->setup = *setup;
    s->listener = s->wake = -1;
    pthread_mutex_init(&s->lock, NULL);
    for (uint32_t i = 0; i < SIBLING_GROUPS_MAX; i++)
        s->guests[i] = s->siblings[i].fd = -1;
    ok = device_stream_open(&s->stream, setup->device, 0, e) && open_listener(s, e);
    if (ok) {
        int error = pthread_create(&s->thread, NULL, serve, s);
        s->has_thread = error == 0;
        ok = s->has_thread || err_set(e, ERR_SYS, error, "start the thread that hands out pages");
    }
    if (ok)
        return s;
    sibling_pages_free(s);
    return NULL;
}

static void end_thread(struct sibling_pages *s)
{
    if (!s->has_thread)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_mutex_unlock(&s->lock);
    eventfd_write(s->wake, 1);
    pthread_join(s->thread, NULL);
}

void sibling_pages_free(struct sibling_pages *s)
{
    if (!s)
        return;
    end_thread(s);
    for (uint32_t i = 0; i < SIBLING_GROUPS_MAX; i++) {
        if (s->guests[i] >= 0)
            close(s->guests[i]);
        leave(s, &s->siblings[i]);
    }
    device_stream_close(&s->stream);
    if (s->listener >= 0)
        close(s->listener);
    if (s->wake >= 0)
        close(s->wake);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
