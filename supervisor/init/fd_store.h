/* fd_store.h - the descriptors that llm-init holds for llmd while no llmd lives: the fd store of
 * systemd(1), see sd_pid_notify_with_fds(3).
 *
 * Several may have the same name.  The same open file twice under one name is kept once.  One that hangs
 * up (its peer has closed) is dropped by itself, unless it was stored with FDPOLL=0.
 *
 * All memory is taken at the start. */
#ifndef LLMD_SUPERVISOR_INIT_FD_STORE_H
#define LLMD_SUPERVISOR_INIT_FD_STORE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "supervisor/init/notice.h"

/* The names travel in one variable of the environment, and the kernel takes 128 KiB of one at most. */
enum { FD_STORE_NAMES_BYTES = 128 * 1024 - 64 };

struct stored_fd {
    int fd;
    bool is_polled; /* registered with epoll, by its number */
    dev_t device;
    ino_t inode;
    char name[FD_NAME_BYTES];
};

struct fd_store {
    struct stored_fd *fds; /* [n_max] */
    uint32_t n, n_max;
    uint32_t names_bytes; /* of all, with a separator each */
    int epoll;
    bool was_full; /* said once, until there is room again */
};

/* epoll: borrowed; an event with data.fd = the descriptor calls for fd_store_hung_up(). */
void fd_store_init(struct fd_store *s, int epoll, uint32_t n_max);
void fd_store_fini(struct fd_store *s); /* closes all; safe on a zeroed struct */

/* Takes fd, which is close-on-exec.  False: there is no room, and fd is closed. */
bool fd_store_add(struct fd_store *s, int fd, const char *name, bool is_polled);

/* Close all of this name; how many. */
uint32_t fd_store_remove(struct fd_store *s, const char *name);

/* Nothing useful can come of this one any more. */
void fd_store_hung_up(struct fd_store *s, int fd);

#endif
