/* folder.c - see folder.h. */
#include "tests/cuda/fake/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/statvfs.h>

#include "tests/check.h"

#define ROOM_BYTES ((uint64_t)1 << 30)

void state_folder_make(char folder[STATE_FOLDER_BYTES])
{
    struct statvfs shm;
    bool has_room =
        statvfs("/dev/shm", &shm) == 0 && (uint64_t)shm.f_bavail * shm.f_frsize >= ROOM_BYTES;

    snprintf(folder, STATE_FOLDER_BYTES, "%s/llmd-fake-cuda-XXXXXX",
             has_room ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(folder));
}

void state_folder_remove(const char *folder)
{
    char command[STATE_FOLDER_BYTES + 16];

    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
}

static void path_of(const char *folder, const char *name, char out[320])
{
    snprintf(out, 320, "%s/%s", folder, name);
}

static void write_line(const char *path, const char *mode, const char *line)
{
    FILE *f = fopen(path, mode);

    assert_non_null(f);
    fprintf(f, "%s\n", line);
    assert_int_equal(fclose(f), 0);
}

void state_folder_set_faults(const char *folder, const char *rules)
{
    char path[320], fresh[320];

    path_of(folder, "faults", path);
    path_of(folder, "faults-new", fresh);
    write_line(fresh, "we", rules);
    assert_int_equal(rename(fresh, path), 0);
}

void state_folder_reset_gpu(const char *folder, int gpu)
{
    char name[32], path[320];

    snprintf(name, sizeof name, "lost-%d", gpu);
    path_of(folder, name, path);
    assert_int_equal(unlink(path), 0);
}

void state_folder_add_xid(const char *folder, int gpu, unsigned xid)
{
    char name[32], path[320], line[16];

    snprintf(name, sizeof name, "xid-%d", gpu);
    path_of(folder, name, path);
    snprintf(line, sizeof line, "%u", xid);
    write_line(path, "ae", line);
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

int state_folder_count_held(const char *folder)
{
    const struct dirent *entry;
    DIR *dir = opendir(folder);
    char path[320];
    int n = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        path_of(folder, entry->d_name, path);
        n += (strncmp(entry->d_name, "gpu-", 4) == 0 ||
              strncmp(entry->d_name, "process-", 8) == 0) &&
             is_held(path);
    }
    closedir(dir);
    return n;
}
