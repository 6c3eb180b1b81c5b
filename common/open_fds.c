/* open_fds.c - see open_fds.h. */
#include "common/open_fds.h"

#include <dirent.h>
#include <stdio.h>
#include <unistd.h>

int open_fds_count(pid_t pid)
{
    int n = pid == getpid() ? -1 : 0;
    const struct dirent *entry;
    char path[64];
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    if (!dir)
        return -1;
    while ((entry = readdir(dir)) != NULL)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}
