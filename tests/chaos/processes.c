/* processes.c - see processes.h. */
#include "tests/chaos/processes.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct process_info {
    pid_t pid, parent;
    char state, name[32];
};

static bool read_info(pid_t pid, struct process_info *p)
{
    char path[64], line[512];
    const char *name, *end;
    int parent;
    FILE *f;

    *p = (struct process_info){ .pid = pid };
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    f = pid > 0 ? fopen(path, "re") : NULL;
    if (!f)
        return false;
    end = fgets(line, sizeof line, f) ? strrchr(line, ')') : NULL;
    fclose(f);
    name = end ? strchr(line, '(') : NULL;
    if (!name || sscanf(end, ") %c %d", &p->state, &parent) != 2)
        return false;
    p->parent = parent;
    snprintf(p->name, sizeof p->name, "%.*s", (int)(end - name - 1), name + 1);
    return true;
}

char pid_state(pid_t pid)
{
    struct process_info p;

    return read_info(pid, &p) ? p.state : 0;
}

/* Calls `take` for every process of the machine until it says true. */
static bool for_each(bool (*take)(const struct process_info *, void *), void *arg)
{
    DIR *dir = opendir("/proc");
    struct dirent *entry;
    struct process_info p;
    bool is_found = false;

    while (dir && !is_found && (entry = readdir(dir)))
        is_found = read_info(atoi(entry->d_name), &p) && p.state != 'Z' && take(&p, arg);
    if (dir)
        closedir(dir);
    return is_found;
}

static bool take_children_file(pid_t parent, char *out, size_t cap)
{
    char path[64];
    FILE *f;
    size_t n;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    f = fopen(path, "re");
    if (!f)
        return false;
    n = fread(out, 1, cap - 1, f);
    fclose(f);
    out[n] = '\0';
    return true;
}

pid_t pid_child_named(pid_t parent, const char *name)
{
    char pids[4096], *at = pids, *end;
    struct process_info p;

    if (!take_children_file(parent, pids, sizeof pids))
        return 0;
    for (pid_t pid; (pid = (pid_t)strtol(at, &end, 10)) > 0; at = end)
        if (read_info(pid, &p) && p.state != 'Z' && (!name || strcmp(p.name, name) == 0))
            return pid;
    return 0;
}

struct search {
    pid_t parent;
    struct buf *lines;
    uint32_t n;
};

static bool add_descendants(const struct process_info *p, void *arg)
{
    struct search *s = arg;

    if (p->parent == s->parent) {
        buf_printf(s->lines, "%d %s\n", (int)p->pid, p->name);
        s->n += 1 + pid_descendants(p->pid, s->lines);
    }
    return false;
}

uint32_t pid_descendants(pid_t ancestor, struct buf *lines)
{
    struct search s = { .parent = ancestor, .lines = lines };

    for_each(add_descendants, &s);
    return s.n;
}

void pid_list_fds(pid_t pid, struct buf *lines)
{
    char path[300], to[128];
    struct dirent *entry;
    ssize_t n;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, entry->d_name);
        n = readlink(path, to, sizeof to - 1);
        if (n > 0)
            buf_printf(lines, "%s %.*s\n", entry->d_name, (int)n, to);
    }
    if (dir)
        closedir(dir);
}

int loopback_connect(uint16_t port)
{
    struct sockaddr_in to = { .sin_family = AF_INET,
                              .sin_port = htons(port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}
