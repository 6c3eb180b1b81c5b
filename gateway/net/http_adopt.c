/* http_adopt.c - going on with a connection of a process that died.
 *
 * The request is read again from its first byte and the answer made again, and as many bytes of it are
 * dropped as the kernel took from the dead process.  So nothing about single writes had to be recorded,
 * and it does not matter whether the process died before, inside or after one. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/mem.h"
#include "gateway/net/http_conn.h"
#include "gateway/net/tcp_offset.h"

static bool is_tcp(int fd)
{
    int protocol = 0;
    socklen_t n = sizeof protocol;

    return !getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &n) && protocol == IPPROTO_TCP;
}

static bool is_connected(int fd, struct err *e)
{
    struct sockaddr_storage peer;
    socklen_t n = sizeof peer;
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) ||
        getpeername(fd, (struct sockaddr *)&peer, &n))
        return err_set(e, ERR_SYS, errno, "adopt connection %d", fd);
    return true;
}

/* Bytes of the request's output that the kernel has taken. */
static bool count_taken(int fd, const struct http_mark *mark, uint64_t *n, struct err *e)
{
    uint64_t taken;

    if (!tcp_bytes_taken(fd, &taken))
        return err_set(e, ERR_PROTO, 0, "adopt connection %d: a mark, but no TCP connection", fd);
    if (taken < mark->answer_start)
        return err_set(e, ERR_PROTO, 0, "adopt connection %d: %llu bytes written, answer at %llu",
                       fd, (unsigned long long)taken, (unsigned long long)mark->answer_start);
    *n = taken - mark->answer_start;
    return true;
}

static bool is_out(const struct http_mark *mark, uint64_t n_taken)
{
    return mark->whole_bytes > 0 && n_taken >= mark->whole_bytes;
}

bool http_mark_is_out(const struct http_mark *mark, int fd)
{
    uint64_t n_taken = 0;
    struct err e;

    return count_taken(fd, mark, &n_taken, &e) && is_out(mark, n_taken);
}

/* How much is out, and can it be gone on with?  An answer that is not begun, for the kernel, and cannot
 * be repeated is made anew. */
static bool weigh(int fd, struct http_resume *resume, uint64_t *n_taken, struct err *e)
{
    struct http_mark *mark = &resume->mark;
    size_t interim = mark->sent_continue ? sizeof HTTP_CONTINUE - 1 : 0;

    *n_taken = 0;
    if (!resume->has_mark)
        return true;
    if (!count_taken(fd, mark, n_taken, e))
        return false;
    if (mark->is_repeatable || is_out(mark, *n_taken))
        return true;
    if (*n_taken > interim)
        return err_set(e, ERR_PROTO, 0,
                       "adopt connection %d: %llu bytes of an answer that cannot be made again", fd,
                       (unsigned long long)*n_taken);
    mark->is_begun = false;
    mark->whole_bytes = 0;
    return true;
}

struct http_conn *http_server_adopt(struct http_server *s, int fd, const struct http_resume *resume,
                                    struct err *e)
{
    struct http_resume *own = mem_alloc(sizeof *own);
    struct http_conn *c;
    uint64_t n_taken;

    *own = *resume;
    if (!is_connected(fd, e) || !weigh(fd, own, &n_taken, e)) {
        tcp_abort(fd);
        close(fd);
        free(own);
        return NULL;
    }
    c = conn_new(s, fd, is_tcp(fd), own->user);
    c->resume = own;
    c->in_used = c->in_seen = own->in_start;
    c->has_served = own->in_start > 0;
    if (c->has_served)
        deadline_set(c, DL_IDLE);
    if (own->has_mark) {
        c->skip = n_taken;
        c->out_base = own->mark.answer_start;
        c->has_base = true;
        c->is_out = is_out(&own->mark, n_taken);
    }
    if (c->is_out) {
        c->skip = own->mark.sent_continue ? sizeof HTTP_CONTINUE - 1 : 0;
        c->out_base += n_taken - c->skip;
        if (!own->mark.keep_alive)
            conn_set_done(c);
    }
    return c;
}

void http_conn_feed(struct http_conn *conn, const void *bytes, size_t n)
{
    stream_add_input(conn, bytes, n);
}

void http_conn_go_on(struct http_conn *conn)
{
    conn_run(conn);
}
