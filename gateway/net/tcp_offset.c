/* tcp_offset.c - TCP_INFO and the queue sizes; see the header for what they mean together.
 *
 * The two numbers of a sum are read by two calls, and an acknowledgement between them moves bytes from
 * one to the other.  So the first is read again: equal means that nothing moved. */
#include "gateway/net/tcp_offset.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum { TRIES_MAX = 1000 };

/* States of RFC 9293 as the kernel numbers them; <netinet/tcp.h> has the names, and clashes with
 * <linux/tcp.h>. */
enum { TCP_TIME_WAIT = 6, TCP_CLOSE_WAIT = 8, TCP_LAST_ACK = 9, TCP_CLOSING = 11 };

static bool read_info(int fd, struct tcp_info *info)
{
    socklen_t n = sizeof *info;

    memset(info, 0, sizeof *info);
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &n) == 0;
}

/* The peer's FIN has arrived: it has a number of its own in TCP's count, though it is no byte. */
static bool has_end(const struct tcp_info *info)
{
    switch (info->tcpi_state) {
    case TCP_CLOSE_WAIT:
    case TCP_LAST_ACK:
    case TCP_CLOSING:
    case TCP_TIME_WAIT:
        return true;
    default:
        return false;
    }
}

bool tcp_bytes_taken(int fd, uint64_t *bytes)
{
    struct tcp_info before, after;
    int queued = 0;

    if (!read_info(fd, &before))
        return false;
    for (int i = 0; i < TRIES_MAX; i++, before = after) {
        if (ioctl(fd, SIOCOUTQ, &queued) || !read_info(fd, &after))
            return false;
        if (before.tcpi_bytes_acked == after.tcpi_bytes_acked)
            break;
    }
    *bytes = after.tcpi_bytes_acked + (uint64_t)queued;
    return true;
}

bool tcp_bytes_read(int fd, uint64_t *bytes)
{
    struct tcp_info before, after;
    int queued = 0;

    if (!read_info(fd, &before))
        return false;
    for (int i = 0; i < TRIES_MAX; i++, before = after) {
        if (ioctl(fd, SIOCINQ, &queued) || !read_info(fd, &after))
            return false;
        if (before.tcpi_bytes_received == after.tcpi_bytes_received)
            break;
    }
    *bytes = after.tcpi_bytes_received - (uint64_t)queued - has_end(&after);
    return true;
}

bool tcp_is_shut(int fd)
{
    struct pollfd p = { .fd = fd };

    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP);
}

void tcp_abort(int fd)
{
    struct sockaddr none = { .sa_family = AF_UNSPEC };
    struct tcp_info info;

    if (!read_info(fd, &info) || connect(fd, &none, sizeof none))
        shutdown(fd, SHUT_RDWR);
}
