/* journal.h - systemd's journal in its own protocol, so that a line brings fields to be searched by.
 *
 * Written here and not by libsystemd's sd_journal_send(), which waits when journald does not read: nothing
 * that serves may stand still for a log.  Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/ */
#ifndef LLMD_COMMON_JOURNAL_H
#define LLMD_COMMON_JOURNAL_H

#include <stdbool.h>

/* Nothing here may hold an end of line; NULL = the field is left out. */
struct journal_line {
    int priority;        /* of syslog(3), 3 = error .. 7 = debug */
    const char *process; /* "llm-worker/0.1" also gives group 0 and rank 1 */
    const char *message;
    const char *request_id;
    const char *file, *function;
    int line;
};

/* stderr is a stream to journald; a child whose stderr was sent elsewhere inherits $JOURNAL_STREAM all the
 * same (systemd.exec(5)). */
bool journal_is_stderr(void);

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* A descriptor for journal_send(), connected to `path`; -1 = there is none.  The caller closes it. */
int journal_open(const char *path);

/* One datagram, never waited for.  False: it was not taken, and the line should go to stderr.  Any thread. */
bool journal_send(int fd, const struct journal_line *line);

#endif
