/* http_adopt.c - going on with a connection of a process that died.
 *
 * The answer is made again from its beginning, and as many bytes of it are dropped as the kernel took
 * from the dead process.  So nothing about single writes had to be recorded, and it does not matter
 * whether the process died before, inside or after one. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

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

/* How many bytes of the answer are out.  Also: was anything read that we have no record of? */
static bool check_offsets(int fd, const struct http_resume *resume, uint64_t *skip, struct err *e)
{
    const struct http_mark *mark = resume->mark;
    uint64_t taken, bytes_read;

    *skip = 0;
    if (!mark) {
        if (resume->is_answering)
            return err_set(e, ERR_PROTO, 0, "adopt connection %d: answering, but without a mark",
                           fd);
        return true;
    }
    if (!tcp_bytes_read(fd, &bytes_read) || !tcp_bytes_taken(fd, &taken))
        return err_set(e, ERR_PROTO, 0, "adopt connection %d: a mark, but no TCP connection", fd);
    if (bytes_read != mark->bytes_read)
        return err_set(e, ERR_PROTO, 0, "adopt connection %d: %llu bytes were read, %llu recorded",
                       fd, (unsigned long long)bytes_read, (unsigned long long)mark->bytes_read);
    if (!resume->is_answering)
        return true;
    if (taken < mark->answer_start)
        return err_set(e, ERR_PROTO, 0, "adopt connection %d: %llu bytes written, answer at %llu",
                       fd, (unsigned long long)taken, (unsigned long long)mark->answer_start);
    *skip = taken - mark->answer_start;
    return true;
}

static struct http_request *answering_request(struct http_conn *c, const struct http_resume *resume,
                                              uint64_t skip)
{
    const struct http_mark *mark = resume->mark;
    struct http_request *req = request_new(c);

    req->is_announced = req->is_adopted = req->body_done = true;
    req->user = resume->user;
    req->date_s = mark->date_s;
    req->keep_alive = mark->keep_alive != 0;
    req->parser.minor_version = mark->minor_version;
    req->parser.method = mark->is_head ? HTTP_HEAD : HTTP_GET;
    request_trim(req);
    c->skip = skip;
    c->out_base = mark->answer_start;
    c->has_base = true;
    return req;
}

bool http_server_adopt(struct http_server *s, int fd, const struct http_resume *resume,
                       struct http_request **req, struct err *e)
{
    struct http_conn *c;
    uint64_t skip;

    if (!is_connected(fd, e) || !check_offsets(fd, resume, &skip, e)) {
        tcp_abort(fd);
        close(fd);
        return false;
    }
    c = conn_new(s, fd, is_tcp(fd));
    if (!c)
        return err_set(e, ERR_SYS, errno, "adopt connection %d", fd);
    if (resume->n_in > 0)
        stream_add_input(c, resume->in, resume->n_in);
    if (resume->is_answering)
        conn_set_answering(c, answering_request(c, resume, skip));
    *req = c->req;
    conn_mark_dirty(c); /* runs at the end of the turn: the caller has the request by then */
    return true;
}
