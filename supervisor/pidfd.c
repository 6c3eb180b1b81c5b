/* pidfd.c - the system calls around a pidfd that libc has no functions for. */
#include "supervisor/pidfd.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* <linux/pidfd.h> of Linux 6.15; the headers of older systems lack it. */
struct exit_info {
    uint64_t mask, cgroup_id;
    uint32_t pid, tgid, ppid, ids[8];
    int32_t exit_code; /* as wait(2) has it */
};
_Static_assert(sizeof(struct exit_info) == 64, "PIDFD_INFO_SIZE_VER0");
#define EXIT_INFO_GET  _IOWR(0xFF, 11, struct exit_info)
#define EXIT_INFO_EXIT (1u << 3)

enum { REAPER_PATIENCE_MS = 2 };

int pidfd_of(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}

bool pidfd_signal(int pidfd, int sig)
{
    return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) == 0;
}

pid_t pidfd_pid(int pidfd)
{
    char path[48], line[128];
    long pid = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "Pid:", 4) == 0)
            sscanf(line + 4, "%ld", &pid);
    if (f)
        fclose(f);
    return pid > 0 ? (pid_t)pid : 0;
}

static bool holds(pid_t pid, int fd, unsigned long inode)
{
    char path[48], link[64] = "", want[64];

    snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
    snprintf(want, sizeof want, "socket:[%lu]", inode);
    return readlink(path, link, sizeof link - 1) > 0 && strcmp(link, want) == 0;
}

int pidfd_of_holder(int fd, unsigned long inode)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    int pidfd = -1;

    while (dir && pidfd < 0 && (entry = readdir(dir))) {
        pid_t pid = (pid_t)atoi(entry->d_name);
        if (pid <= 0 || !holds(pid, fd, inode))
            continue;
        pidfd = pidfd_of(pid);
        if (pidfd >= 0 && !holds(pid, fd, inode)) { /* it ended, and the number may be another's */
            close(pidfd);
            pidfd = -1;
        }
    }
    if (dir)
        closedir(dir);
    return pidfd;
}

/* The kernel tells once the parent (the service manager) has reaped it, which is a matter of
 * microseconds; a parent that does not reap is not waited for. */
static void ask_how(int pidfd, siginfo_t *info)
{
    struct pollfd reaped = { .fd = pidfd, .events = 0 }; /* POLLHUP */
    struct exit_info how = { .mask = EXIT_INFO_EXIT };

    poll(&reaped, 1, REAPER_PATIENCE_MS);
    if (ioctl(pidfd, EXIT_INFO_GET, &how) < 0 || !(how.mask & EXIT_INFO_EXIT))
        return;
    if (WIFEXITED(how.exit_code)) {
        info->si_code = CLD_EXITED;
        info->si_status = WEXITSTATUS(how.exit_code);
    } else {
        info->si_code = WCOREDUMP(how.exit_code) ? CLD_DUMPED : CLD_KILLED;
        info->si_status = WTERMSIG(how.exit_code);
    }
}

bool pidfd_has_ended(int pidfd, siginfo_t *info)
{
    struct pollfd ended = { .fd = pidfd, .events = POLLIN };

    *info = (siginfo_t){ 0 };
    if (waitid(P_PIDFD, (id_t)pidfd, info, WEXITED | WNOHANG | WNOWAIT) == 0)
        return info->si_pid != 0;
    if (errno != ECHILD || poll(&ended, 1, 0) <= 0)
        return false;
    ask_how(pidfd, info);
    return true;
}
