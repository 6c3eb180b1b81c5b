/* file.c - see file.h. */
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/mem.h"

static bool read_all(int fd, const char *path, char *bytes, size_t n, struct err *e)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = read(fd, bytes + at, n - at);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_set(e, ERR_SYS, errno, "read '%s'", path);
        if (got == 0)
            return err_set(e, ERR_CONFIG, 0, "'%s' became shorter while it was read", path);
        at += (size_t)got;
    }
    return true;
}

bool file_read(const char *path, size_t bytes_max, char **bytes, size_t *n, struct err *e)
{
    char *data = NULL;
    struct stat st;
    bool ok = false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    /* O_NONBLOCK: a FIFO is refused below instead of waiting for its writer; files do not care. */
    if (fd < 0)
        return err_set(e, ERR_SYS, errno, "open '%s'", path);
    if (fstat(fd, &st) < 0) {
        err_set(e, ERR_SYS, errno, "stat '%s'", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode)) {
        err_set(e, ERR_CONFIG, 0, "'%s' is not a regular file", path);
        goto out;
    }
    if ((unsigned long long)st.st_size > bytes_max) {
        err_set(e, ERR_CONFIG, 0, "'%s' has %lld bytes, the limit is %zu", path,
                (long long)st.st_size, bytes_max);
        goto out;
    }
    data = mem_alloc((size_t)st.st_size + 1);
    if (!read_all(fd, path, data, (size_t)st.st_size, e))
        goto out;
    data[st.st_size] = '\0';
    *bytes = data;
    *n = (size_t)st.st_size;
    ok = true;
out:
    if (!ok)
        free(data);
    close(fd);
    return ok;
}

static bool write_text(const char *path, const char *text, struct err *e)
{
    FILE *f = fopen(path, "we");
    bool ok;

    if (!f)
        return err_set(e, ERR_SYS, errno, "open '%s'", path);
    ok = fputs(text, f) >= 0;
    if (fclose(f) != 0 || !ok)
        return err_set(e, ERR_SYS, errno, "write '%s'", path);
    return true;
}

bool file_replace(const char *path, const char *text, struct err *e)
{
    char fresh[PATH_MAX];

    snprintf(fresh, sizeof fresh, "%s.new", path);
    if (!write_text(fresh, text, e))
        return false;
    return rename(fresh, path) == 0 || err_set(e, ERR_SYS, errno, "name '%s'", path);
}

bool file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}
