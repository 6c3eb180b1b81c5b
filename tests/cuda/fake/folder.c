/* folder.c - see folder.h. */
#include "tests/cuda/fake/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/file.h"

enum { PATH_BYTES = 400 };

#define ROOM_BYTES ((uint64_t)1 << 30)

bool state_folder_make(char folder[STATE_FOLDER_BYTES])
{
    struct statvfs shm;
    bool has_room =
        statvfs("/dev/shm", &shm) == 0 && (uint64_t)shm.f_bavail * shm.f_frsize >= ROOM_BYTES;

    snprintf(folder, STATE_FOLDER_BYTES, "%s/llmd-fake-cuda-XXXXXX",
             has_room ? "/dev/shm" : "/tmp");
    return mkdtemp(folder) != NULL;
}

bool state_folder_remove(const char *folder)
{
    char command[PATH_BYTES];

    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command) == 0;
}

bool state_folder_set_faults(const char *folder, const char *rules)
{
    struct buf text = { 0 };
    char path[PATH_BYTES];
    bool ok;

    snprintf(path, sizeof path, "%s/faults", folder);
    buf_printf(&text, "%s\n", rules);
    ok = file_replace(path, text.data, NULL);
    buf_fini(&text);
    return ok;
}

static void put_gpu_path(const char *folder, const char *what, int gpu, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s/%s-%d", folder, what, gpu);
}

bool state_folder_gpu_is_lost(const char *folder, int gpu)
{
    char path[PATH_BYTES];

    put_gpu_path(folder, "lost", gpu, path);
    return file_exists(path);
}

bool state_folder_reset_gpu(const char *folder, int gpu)
{
    char path[PATH_BYTES];

    put_gpu_path(folder, "lost", gpu, path);
    return unlink(path) == 0;
}

bool state_folder_add_xid(const char *folder, int gpu, const char *xid)
{
    char path[PATH_BYTES];
    FILE *f;

    put_gpu_path(folder, "xid", gpu, path);
    f = fopen(path, "ae");
    if (!f)
        return false;
    fprintf(f, "%s\n", xid);
    return fclose(f) == 0;
}

/* ---- what is there ---- */

static int count(const char *folder, const char *begin, bool (*counts)(const char *path))
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    char path[PATH_BYTES];
    int n = 0;

    if (!dir)
        return -1;
    while ((entry = readdir(dir)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        n += strncmp(entry->d_name, begin, strlen(begin)) == 0 && counts(path);
    }
    closedir(dir);
    return n;
}

/* Its lock cannot be had (state.h). */
static bool is_held(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;

    if (fd >= 0)
        close(fd);
    return held;
}

int state_folder_count_pieces(const char *folder)
{
    return count(folder, "gpu-", is_held);
}

int state_folder_count_processes(const char *folder)
{
    return count(folder, "process-", is_held);
}

int state_folder_count_fired(const char *folder)
{
    return count(folder, "fired-", file_exists);
}
