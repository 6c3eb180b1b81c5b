/* notify_socket.h - the manager's end of sd_notify(3): a datagram socket of our own, known to llmd as
 * NOTIFY_SOCKET. */
#ifndef LLMD_SUPERVISOR_INIT_NOTIFY_SOCKET_H
#define LLMD_SUPERVISOR_INIT_NOTIFY_SOCKET_H

#include <sys/types.h>

#include "common/err.h"
#include "supervisor/init/notice.h"

enum { NOTICE_FDS_MAX = 253 }; /* SCM_MAX_FD of the kernel */

struct notify_socket {
    int fd;           /* non-blocking; -1 = none */
    char address[64]; /* "@...", abstract and hard to guess */
};

struct datagram {
    char bytes[NOTICE_BYTES_MAX];
    ssize_t n;
    pid_t pid; /* of the sender, by the kernel's word */
    int fds[NOTICE_FDS_MAX], n_fds;
    bool is_whole;
};

/* ERR_SYS. */
bool notify_socket_open(struct notify_socket *s, struct err *e);
void notify_socket_close(struct notify_socket *s);

/* Take one datagram; its descriptors are the caller's.  False: there is none now. */
bool notify_socket_receive(const struct notify_socket *s, struct datagram *d);
void datagram_close_fds(struct datagram *d);

#endif
