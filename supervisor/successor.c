/* successor.c - LISTEN_FDS wants descriptors 3, 4, 5, ... in one row, where llmd's own lie.
 *
 * So what lies there is copied out of the way first, then the row is laid over it.  The copies are close-on-
 * exec: they vanish with a good exec, and after a failed one each goes back to where it was.  The loop notices
 * nothing, since epoll knows a descriptor by number and open file, and both are the same again. */
#include "supervisor/successor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "supervisor/holdings.h"
#include "supervisor/llmd.h"

/* The names go into one environment string, which may have 128 KiB.  A living gateway says its connections
 * again anyway. */
enum { ROW_START = 3, ROW_MAX = 12000 };

struct successor_row {
    int fd[ROW_MAX];  /* what is to lie at ROW_START + i */
    int was[ROW_MAX]; /* copy of what lay there; -1 = nothing did */
    struct buf names;
    int n;
};

void successor_add(struct successor_row *row, const char *name, int fd)
{
    if (fd < 0 || row->n == ROW_MAX)
        return;
    buf_printf(&row->names, "%s%s", row->n ? ":" : "", name);
    row->was[row->n] = -1;
    row->fd[row->n++] = fd;
}

static void add(void *row, const char *name, int fd)
{
    successor_add(row, name, fd);
}

void successor_fill_all(const struct llmd *l, struct successor_row *row)
{
    holdings_of_service(l, add, row);
    holdings_of_activation(l, add, row);
    holdings_of_children(l, add, row);
}

static bool copy_away(struct successor_row *row, struct err *e)
{
    for (int i = 0; i < row->n; i++) {
        row->was[i] = fcntl(ROW_START + i, F_DUPFD_CLOEXEC, ROW_START + row->n);
        if (row->was[i] < 0 && errno != EBADF)
            return err_set(e, ERR_SYS, errno, "move %d descriptors", row->n);
    }
    return true;
}

static void lay(const struct successor_row *row)
{
    for (int i = 0; i < row->n; i++) {
        int at = row->fd[i] - ROW_START;
        bool is_covered = at >= 0 && at < row->n;
        dup2(is_covered ? row->was[at] : row->fd[i], ROW_START + i);
    }
}

static void put_back(const struct successor_row *row, bool was_laid)
{
    for (int i = 0; i < row->n; i++) {
        if (row->was[i] >= 0) {
            if (was_laid)
                dup3(row->was[i], ROW_START + i, O_CLOEXEC);
            close(row->was[i]);
        } else if (was_laid) {
            close(ROW_START + i);
        }
    }
}

static void set_environment(const struct successor_row *row)
{
    char text[32];

    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof text, "%d", row->n);
    setenv("LISTEN_FDS", text, 1);
    setenv("LISTEN_FDNAMES", row->names.data, 1);
}

static void clear_environment(void)
{
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
}

void successor_exec(const struct llmd *l, const struct successor *s, struct err *e)
{
    struct successor_row *row = mem_zalloc(1, sizeof *row);
    bool was_laid;

    successor_add(row, "llmd-asker", s->asker);
    s->fill(l, row);
    was_laid = copy_away(row, e);
    if (was_laid) {
        lay(row);
        set_environment(row);
        execv(l->self_path, s->argv);
        err_set(e, ERR_SYS, errno, "run '%s'", l->self_path);
        clear_environment();
    }
    put_back(row, was_laid);
    buf_fini(&row->names);
    free(row);
}
