/* runtime_dir.c - find, make, lock and remove the folder of control.sock. */
#include "common/runtime_dir.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

#define SYSTEM_DIR "/run/llmd"

/* An llmd that was killed while it forked has the lock until its child has become another program. */
#define LOCK_WAIT_NS (1 * NS_PER_S)
#define LOCK_NAP_NS  (5 * NS_PER_MS)

static bool is_writable(const char *path)
{
    return faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) == 0;
}

/* `dir` is ours to write, or is not there and its parent lets us make it. */
static bool is_usable(const char *dir, const char *parent)
{
    if (is_writable(dir))
        return true;
    return errno == ENOENT && is_writable(parent);
}

bool runtime_dir_resolve(const struct config *c, char *out, size_t n, struct err *e)
{
    const char *xdg = getenv("XDG_RUNTIME_DIR");
    char dir[CONFIG_TEXT_BYTES + 16];
    size_t room = sizeof((struct sockaddr_un *)0)->sun_path - sizeof "/" RUNTIME_CONTROL_NAME;

    if (c->runtime_dir[0]) /* systemd may give a list; the first one is ours */
        snprintf(dir, sizeof dir, "%.*s", (int)strcspn(c->runtime_dir, ":"), c->runtime_dir);
    else if (is_usable(SYSTEM_DIR, "/run"))
        snprintf(dir, sizeof dir, SYSTEM_DIR);
    else if (xdg && xdg[0] == '/' && strlen(xdg) < CONFIG_TEXT_BYTES && is_writable(xdg))
        snprintf(dir, sizeof dir, "%s/llmd", xdg);
    else
        snprintf(dir, sizeof dir, "/tmp/llmd-%u", (unsigned)geteuid());
    for (size_t len = strlen(dir); len > 1 && dir[len - 1] == '/'; len--)
        dir[len - 1] = '\0';
    if (strlen(dir) > room || strlen(dir) >= n)
        return err_set(e, ERR_CONFIG, 0,
                       "runtime_dir '%.80s...' has %zu bytes, a socket's path "
                       "leaves room for %zu",
                       dir, strlen(dir), room);
    snprintf(out, n, "%s", dir);
    return true;
}

void runtime_dir_control_path(const char *dir, char *out, size_t n)
{
    snprintf(out, n, "%s/" RUNTIME_CONTROL_NAME, dir);
}

/* Make the folder, or accept the one that is there: a folder, and not another user's. */
static bool make(const char *dir, struct err *e)
{
    mode_t mode = strncmp(dir, "/tmp/", 5) == 0 ? 0700 : 0750;
    struct stat st;

    if (mkdir(dir, mode) == 0) {
        if (chmod(dir, mode | S_ISVTX) < 0)
            return err_set(e, ERR_SYS, errno, "set the mode of runtime_dir '%s'", dir);
        return true;
    }
    if (errno != EEXIST)
        return err_set(e, ERR_SYS, errno, "make runtime_dir '%s'", dir);
    if (lstat(dir, &st) < 0)
        return err_set(e, ERR_SYS, errno, "stat runtime_dir '%s'", dir);
    /* Under /tmp anybody may have put it there first, also as a link. */
    if (mode == 0700 && (!S_ISDIR(st.st_mode) || st.st_uid != geteuid()))
        return err_set(e, ERR_CONFIG, 0, "runtime_dir '%s' is not a folder of user %u", dir,
                       (unsigned)geteuid());
    return true;
}

static bool is_still(const char *dir, int fd)
{
    struct stat ours, there;

    return fstat(fd, &ours) == 0 && stat(dir, &there) == 0 && ours.st_ino == there.st_ino &&
           ours.st_dev == there.st_dev;
}

static bool lock(int fd, const char *dir, struct err *e)
{
    uint64_t deadline_ns = clock_mono_ns() + LOCK_WAIT_NS;

    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK)
            return err_set(e, ERR_SYS, errno, "lock runtime_dir '%s'", dir);
        if (clock_mono_ns() > deadline_ns)
            return err_set(e, ERR_CONFIG, 0, "another llmd uses runtime_dir '%s'", dir);
        nanosleep(&(struct timespec){ .tv_nsec = LOCK_NAP_NS }, NULL);
    }
    return true;
}

int runtime_dir_open(const char *dir, struct err *e)
{
    for (int tries = 0; tries < 10; tries++) {
        int fd;
        if (!make(dir, e))
            return -1;
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 && errno == ENOENT)
            continue; /* its last user has just removed it */
        if (fd < 0) {
            err_set(e, ERR_SYS, errno, "open runtime_dir '%s'", dir);
            return -1;
        }
        if (!lock(fd, dir, e)) {
            close(fd);
            return -1;
        }
        if (is_still(dir, fd))
            return fd;
        close(fd); /* removed between open and lock */
    }
    err_set(e, ERR_SYS, ENOENT, "runtime_dir '%s' is removed as fast as it is made", dir);
    return -1;
}

/* The sticky bit alone would also describe /tmp. */
static bool is_ours_to_remove(const struct stat *st)
{
    return S_ISDIR(st->st_mode) && (st->st_mode & S_ISVTX) && !(st->st_mode & S_IRWXO) &&
           st->st_uid == geteuid();
}

void runtime_dir_remove(const char *dir)
{
    char path[CONFIG_TEXT_BYTES + 32];
    struct stat st;

    runtime_dir_control_path(dir, path, sizeof path);
    unlink(path);
    if (lstat(dir, &st) == 0 && is_ours_to_remove(&st))
        rmdir(dir);
}

void runtime_dir_sweep(const char *dir)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (flock(fd, LOCK_EX | LOCK_NB) == 0 && is_still(dir, fd))
        runtime_dir_remove(dir);
    close(fd);
}
