/* journal.c - one line as one datagram, FIELD=value\n for each field. */
#include "common/journal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { DATAGRAM_BYTES = 4096 };

struct datagram {
    char bytes[DATAGRAM_BYTES];
    size_t n;
};

bool journal_is_stderr(void)
{
    const char *text = getenv("JOURNAL_STREAM");
    unsigned long long device, inode;
    struct stat st;

    return text && sscanf(text, "%llu:%llu", &device, &inode) == 2 &&
           fstat(STDERR_FILENO, &st) == 0 && device == (unsigned long long)st.st_dev &&
           inode == (unsigned long long)st.st_ino;
}

int journal_open(const char *path)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd;

    if (strlen(path) >= sizeof at.sun_path)
        return -1;
    strcpy(at.sun_path, path);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

/* A field that does not fit is left out. */
static void put(struct datagram *d, const char *field, const char *value)
{
    size_t room = sizeof d->bytes - d->n;
    int n = value ? snprintf(d->bytes + d->n, room, "%s=%s\n", field, value) : 0;

    if (n > 0 && (size_t)n < room)
        d->n += (size_t)n;
}

static void put_number(struct datagram *d, const char *field, unsigned number)
{
    char digits[16];

    snprintf(digits, sizeof digits, "%u", number);
    put(d, field, digits);
}

bool journal_send(int fd, const struct journal_line *line)
{
    struct datagram d = { .n = 0 };
    unsigned group, rank;

    put(&d, "MESSAGE", line->message);
    put_number(&d, "PRIORITY", (unsigned)line->priority);
    put(&d, "SYSLOG_IDENTIFIER", line->process);
    put(&d, "LLMD_PROCESS", line->process);
    if (sscanf(line->process, "llm-worker/%u.%u", &group, &rank) == 2) {
        put_number(&d, "LLMD_GROUP", group);
        put_number(&d, "LLMD_RANK", rank);
    }
    put(&d, "LLMD_REQUEST_ID", line->request_id);
    put(&d, "CODE_FILE", line->file);
    put(&d, "CODE_FUNC", line->function);
    if (line->file)
        put_number(&d, "CODE_LINE", (unsigned)line->line);
    return send(fd, d.bytes, d.n, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)d.n;
}
