/* listeners.c - bind, or take over, the listening sockets. */
#include "supervisor/listeners.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 4096 };

static void name_socket(int fd, char *out)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_un local;
        struct sockaddr_storage room;
    } a = { 0 };
    socklen_t n = sizeof a;
    char host[INET6_ADDRSTRLEN];

    getsockname(fd, &a.any, &n);
    if (a.any.sa_family == AF_INET)
        snprintf(out, LISTENER_NAME_BYTES, "%s:%d",
                 inet_ntop(AF_INET, &a.v4.sin_addr, host, sizeof host), ntohs(a.v4.sin_port));
    else if (a.any.sa_family == AF_INET6)
        snprintf(out, LISTENER_NAME_BYTES, "[%s]:%d",
                 inet_ntop(AF_INET6, &a.v6.sin6_addr, host, sizeof host), ntohs(a.v6.sin6_port));
    else
        snprintf(out, LISTENER_NAME_BYTES, "unix:%.*s", (int)LISTENER_NAME_BYTES - 6,
                 a.local.sun_path);
}

static void add(struct listeners *l, int fd, bool is_activated)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    name_socket(fd, l->name[l->n]);
    l->is_activated[l->n] = is_activated;
    l->fd[l->n++] = fd;
}

/* Takes fd. */
static bool take_passed(struct listeners *l, int fd, bool is_activated, struct err *e)
{
    int type = 0, listens = 0;
    socklen_t bytes = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) < 0 || type != SOCK_STREAM ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &bytes) < 0 || !listens)
        err_set(e, ERR_CONFIG, 0, "passed descriptor %d is not a listening stream socket", fd);
    else if (l->n == LISTENERS_MAX)
        err_set(e, ERR_CONFIG, 0, "more than %d sockets were passed", LISTENERS_MAX);
    else {
        add(l, fd, is_activated);
        return true;
    }
    close(fd);
    return false;
}

bool listeners_adopt(struct listeners *l, struct passed *from, struct err *e)
{
    int fd;

    *l = (struct listeners){ .n = 0 };
    while ((fd = passed_take_activated(from)) >= 0)
        if (!take_passed(l, fd, true, e))
            return false;
    while ((fd = passed_take(from, "llmd-listen")) >= 0)
        if (!take_passed(l, fd, false, e))
            return false;
    return l->n > 0 || err_set(e, ERR_PROTO, 0, "no listening socket is there");
}

static uint16_t port_of(int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = { 0 };
    socklen_t n = sizeof a;

    getsockname(fd, &a.any, &n);
    return ntohs(a.any.sa_family == AF_INET6 ? a.v6.sin6_port : a.v4.sin_port);
}

/* v6_only: the name has IPv4 addresses of its own; else "::" takes IPv4 clients too. */
static bool bind_one(struct listeners *l, struct addrinfo *to, const char *host, uint64_t port,
                     bool v6_only, struct err *e)
{
    int one = 1, fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return err_set(e, ERR_SYS, errno, "make a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (to->ai_family == AF_INET6) {
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ v6_only }, sizeof(int));
        ((struct sockaddr_in6 *)(void *)to->ai_addr)->sin6_port = htons((uint16_t)port);
    } else {
        ((struct sockaddr_in *)(void *)to->ai_addr)->sin_port = htons((uint16_t)port);
    }
    if (bind(fd, to->ai_addr, to->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0) {
        err_set(e, ERR_SYS, errno, "listen on '%s' port %llu", host, (unsigned long long)port);
        close(fd);
        return false;
    }
    add(l, fd, false);
    return true;
}

/* All addresses of a name, on one port: "localhost" is ::1 and 127.0.0.1, and clients try either.  An
 * address this host does not have (no IPv6) is skipped, as long as one is left. */
static bool bind_all(struct listeners *l, struct addrinfo *found, const char *host, uint64_t port,
                     struct err *e)
{
    struct err first = { 0 };
    uint32_t n_before = l->n;

    for (struct addrinfo *to = found; to && l->n < LISTENERS_MAX; to = to->ai_next) {
        struct err why = { 0 };
        if (bind_one(l, to, host, port, found->ai_next != NULL, &why)) {
            port = port_of(l->fd[l->n - 1]); /* 0 let the system choose: once for all */
            continue;
        }
        if (why.sys != EADDRNOTAVAIL && why.sys != EAFNOSUPPORT) {
            *e = why;
            return false;
        }
        if (first.code == ERR_NONE)
            first = why;
    }
    if (l->n == n_before)
        *e = first;
    return l->n > n_before;
}

static bool listen_on(struct listeners *l, const char *host, uint64_t port, struct err *e)
{
    struct addrinfo hints = { .ai_family = AF_UNSPEC,
                              .ai_socktype = SOCK_STREAM,
                              .ai_flags = AI_PASSIVE | AI_NUMERICSERV };
    struct addrinfo *found = NULL;
    char service[8];
    int failed;
    bool ok;

    snprintf(service, sizeof service, "%u", (unsigned)port);
    failed = getaddrinfo(host[0] ? host : NULL, service, &hints, &found);
    if (failed)
        return err_set(e, ERR_CONFIG, 0, "setting 'host': '%s': %s", host, gai_strerror(failed));
    ok = bind_all(l, found, host, port, e);
    freeaddrinfo(found);
    return ok;
}

/* A former llmd's own, where the settings have not moved since. */
static bool are_wanted(const struct listeners *l, const struct config *c)
{
    bool has_health = c->health_port == 0;

    for (uint32_t i = 0; i < l->n; i++) {
        bool is_health = c->health_port != 0 && port_of(l->fd[i]) == c->health_port;
        has_health |= is_health || l->is_activated[i];
        if (!l->is_activated[i] && !is_health && c->port != 0 && port_of(l->fd[i]) != c->port)
            return false;
    }
    return l->n > 0 && has_health;
}

bool listeners_open(struct listeners *l, const struct config *c, struct passed *from, struct err *e)
{
    struct err why = { 0 };

    if (listeners_adopt(l, from, &why) && are_wanted(l, c))
        return true;
    if (why.code == ERR_CONFIG) {
        *e = why;
        return false;
    }
    listeners_close(l);
    return listen_on(l, c->host, c->port, e) && (c->health_port == 0 || c->health_port == c->port ||
                                                 listen_on(l, c->host, c->health_port, e));
}

bool listeners_are_activated(const struct listeners *l)
{
    bool all = l->n > 0;

    for (uint32_t i = 0; i < l->n; i++)
        all &= l->is_activated[i];
    return all;
}

void listeners_close(struct listeners *l)
{
    for (uint32_t i = 0; i < l->n; i++)
        close(l->fd[i]);
    l->n = 0;
}
