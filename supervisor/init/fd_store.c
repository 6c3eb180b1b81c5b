/* fd_store.c - a dense array, searched from one end to the other: it is changed when a connection comes or
 * goes, and a scan of ten thousand entries costs less than the system calls around it.
 *
 * epoll knows open files, not numbers: a descriptor must be taken out of it before it is closed, because
 * llmd and the gateway hold the same file open. */
#include "supervisor/init/fd_store.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

enum { KCMP_SAME_FILE = 0 }; /* KCMP_FILE of linux/kcmp.h */

void fd_store_init(struct fd_store *s, int epoll, uint32_t n_max)
{
    *s = (struct fd_store){ .epoll = epoll, .n_max = n_max };
    s->fds = mem_zalloc(n_max ? n_max : 1, sizeof *s->fds);
}

static void drop(struct fd_store *s, uint32_t i)
{
    struct stored_fd *one = &s->fds[i];

    if (one->is_polled)
        epoll_ctl(s->epoll, EPOLL_CTL_DEL, one->fd, NULL);
    close(one->fd);
    s->names_bytes -= (uint32_t)strlen(one->name) + 1;
    *one = s->fds[--s->n];
    s->was_full = false;
}

void fd_store_fini(struct fd_store *s)
{
    while (s->n > 0)
        drop(s, s->n - 1);
    free(s->fds);
    *s = (struct fd_store){ 0 };
}

/* One open file, not only one inode: pidfds of older kernels all share one. */
static bool is_same_file(int a, int b)
{
    pid_t self = getpid();

    return syscall(SYS_kcmp, self, self, KCMP_SAME_FILE, a, b) == 0;
}

static bool has(const struct fd_store *s, const struct stored_fd *fresh)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const struct stored_fd *one = &s->fds[i];
        if (one->inode == fresh->inode && one->device == fresh->device &&
            strcmp(one->name, fresh->name) == 0 && is_same_file(one->fd, fresh->fd))
            return true;
    }
    return false;
}

static bool has_room(struct fd_store *s, const struct stored_fd *fresh)
{
    if (s->n < s->n_max && s->names_bytes + strlen(fresh->name) + 1 <= FD_STORE_NAMES_BYTES)
        return true;
    if (!s->was_full)
        log_warning("event=fd_store_full n=%u fd_name=\"%s\", dropping what does not fit", s->n,
                    fresh->name);
    s->was_full = true;
    return false;
}

bool fd_store_add(struct fd_store *s, int fd, const char *name, bool is_polled)
{
    struct epoll_event watch = { .data.fd = fd }; /* hang-up and error come unasked */
    struct stored_fd fresh = { .fd = fd };
    struct stat st = { 0 };
    bool is_known;

    assert(strlen(name) < sizeof fresh.name);
    strcpy(fresh.name, name);
    fstat(fd, &st);
    fresh.device = st.st_dev;
    fresh.inode = st.st_ino;
    is_known = has(s, &fresh);
    if (is_known || !has_room(s, &fresh)) {
        close(fd);
        return is_known;
    }
    /* memory and other files that cannot be waited for are refused by epoll, and never hang up */
    fresh.is_polled = is_polled && epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &watch) == 0;
    s->names_bytes += (uint32_t)strlen(fresh.name) + 1;
    s->fds[s->n++] = fresh;
    return true;
}

uint32_t fd_store_remove(struct fd_store *s, const char *name)
{
    uint32_t before = s->n;

    for (uint32_t i = s->n; i-- > 0;)
        if (strcmp(s->fds[i].name, name) == 0)
            drop(s, i);
    return before - s->n;
}

void fd_store_hung_up(struct fd_store *s, int fd)
{
    for (uint32_t i = 0; i < s->n; i++)
        if (s->fds[i].fd == fd) {
            log_debug("event=hung_up fd_name=\"%s\"", s->fds[i].name);
            drop(s, i);
            return;
        }
}
