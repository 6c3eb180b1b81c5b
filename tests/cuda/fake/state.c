/* state.c - see state.h. */
#include "tests/cuda/fake/state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cuda/fake/settings.h"

enum { OBJECTS_MAX = 4096 };

/* Contents of process-PID. */
struct process_record {
    uint64_t private_bytes[FAKE_GPUS_MAX];
    uint32_t has_context[FAKE_GPUS_MAX];
};

/* An allocation made or met by this process, while there is no folder. */
struct object {
    dev_t device;
    ino_t inode;
    int gpu;
    uint64_t bytes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct process_record record;
static int record_fd = -1;
static pid_t record_pid;
static struct object objects[OBJECTS_MAX];
static unsigned n_objects, serial;
static int lost_here[FAKE_GPUS_MAX];

static bool has_folder(void)
{
    return fake_settings()->state[0] != '\0';
}

static void path_of(char *out, size_t bytes, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

static void path_of(char *out, size_t bytes, const char *fmt, ...)
{
    int n = snprintf(out, bytes, "%s/", fake_settings()->state);
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(out + n, bytes - (size_t)n, fmt, ap);
    va_end(ap);
}

static void stop(const char *what, const char *path)
{
    fake_say("%s '%s': %s", what, path, strerror(errno));
    abort();
}

/* Held around "is there room? then take it", against the other processes. */
static int folder_lock(void)
{
    char path[400];
    int fd;

    path_of(path, sizeof path, "lock");
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0)
        stop("open", path);
    return fd;
}

/* ---- The process's record ---- */

static void record_write(void)
{
    char path[400];

    if (!has_folder())
        return;
    if (record_fd < 0 || record_pid != getpid()) {
        record_pid = getpid();
        path_of(path, sizeof path, "process-%d", (int)record_pid);
        record_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (record_fd < 0 || flock(record_fd, LOCK_EX | LOCK_NB) != 0)
            stop("open", path);
    }
    if (pwrite(record_fd, &record, sizeof record, 0) != sizeof record)
        stop("write", "process record");
}

void state_context(int gpu, bool has)
{
    pthread_mutex_lock(&mutex);
    record.has_context[gpu] = has;
    record_write();
    pthread_mutex_unlock(&mutex);
}

int state_record_fd(void)
{
    return record_fd;
}

/* Is there nobody left who holds the file's lock? */
static bool is_orphan(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0;
}

/* The record of a living process.  (A lock belongs to its open file description: also this process's own is seen
 * as held, and the two fakes of one process agree.) */
static bool read_record(const char *name, struct process_record *r)
{
    char path[400];
    int fd;
    bool ok;

    path_of(path, sizeof path, "%s", name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    ok = !is_orphan(fd) && pread(fd, r, sizeof *r, 0) == sizeof *r;
    if (!ok)
        unlink(path);
    close(fd);
    return ok;
}

/* ---- Bytes in use ---- */

static uint64_t object_file_bytes(const char *name)
{
    struct stat st = { 0 };
    char path[400];
    int fd;

    path_of(path, sizeof path, "%s", name);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 0;
    if (is_orphan(fd))
        unlink(path);
    else
        fstat(fd, &st);
    close(fd);
    return (uint64_t)st.st_size;
}

static uint64_t folder_used(int gpu)
{
    DIR *dir = opendir(fake_settings()->state);
    const struct dirent *entry;
    uint64_t used = 0;

    if (!dir)
        stop("open", fake_settings()->state);
    while ((entry = readdir(dir)) != NULL) {
        struct process_record r;
        int n, pid;

        if (sscanf(entry->d_name, "gpu-%d-", &n) == 1 && n == gpu)
            used += object_file_bytes(entry->d_name);
        else if (sscanf(entry->d_name, "process-%d", &pid) == 1 && read_record(entry->d_name, &r))
            used += r.private_bytes[gpu];
    }
    closedir(dir);
    return used;
}

/* Call fn(arg, fd, st) for each open descriptor of this process. */
static void each_descriptor(void (*fn)(void *arg, int fd, const struct stat *st), void *arg)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry;
    struct stat st;

    if (!dir)
        stop("open", "/proc/self/fd");
    while ((entry = readdir(dir)) != NULL) {
        int fd = atoi(entry->d_name);

        if (entry->d_name[0] != '.' && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
            fn(arg, fd, &st);
    }
    closedir(dir);
}

static void mark_alive(void *arg, int fd, const struct stat *st)
{
    bool *alive = arg;

    (void)fd;
    for (unsigned i = 0; i < n_objects; i++)
        if (objects[i].device == st->st_dev && objects[i].inode == st->st_ino)
            alive[i] = true;
}

static uint64_t local_used(int gpu)
{
    static bool alive[OBJECTS_MAX];
    uint64_t used = record.private_bytes[gpu];
    unsigned kept = 0;

    memset(alive, 0, sizeof alive);
    each_descriptor(mark_alive, alive);
    for (unsigned i = 0; i < n_objects; i++) {
        if (!alive[i])
            continue;
        if (objects[i].gpu == gpu)
            used += objects[i].bytes;
        objects[kept++] = objects[i];
    }
    n_objects = kept;
    return used;
}

static uint64_t used_locked(int gpu)
{
    return has_folder() ? folder_used(gpu) : local_used(gpu);
}

uint64_t state_used(int gpu)
{
    uint64_t used;

    pthread_mutex_lock(&mutex);
    used = used_locked(gpu);
    pthread_mutex_unlock(&mutex);
    return used;
}

static bool has_room(int gpu, size_t bytes)
{
    uint64_t used, limit = fake_settings()->memory_bytes;

    if (gpu == STATE_HOST)
        return true;
    used = used_locked(gpu);
    return used <= limit && bytes <= limit - used;
}

/* ---- Allocations ---- */

static int create_file(int gpu)
{
    char path[400], final[400];
    int fd;

    path_of(path, sizeof path, "new-%d-%u", (int)getpid(), serial);
    path_of(final, sizeof final, "gpu-%d-%d-%u", gpu, (int)getpid(), serial++);
    fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0 || rename(path, final) != 0)
        stop("create", path);
    return fd;
}

static int create_memfd(int gpu)
{
    struct stat st;
    char name[40];
    int fd;

    snprintf(name, sizeof name, "gpu-%d-", gpu);
    fd = memfd_create(name, MFD_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || n_objects == OBJECTS_MAX)
        stop("create", name);
    objects[n_objects++] = (struct object){ st.st_dev, st.st_ino, gpu, 0 };
    return fd;
}

static int create_locked(int gpu, size_t bytes)
{
    int fd;

    if (!has_room(gpu, bytes))
        return -1;
    fd = has_folder() ? create_file(gpu) : create_memfd(gpu);
    if (ftruncate(fd, (off_t)bytes) != 0)
        stop("grow", "allocation");
    if (!has_folder())
        objects[n_objects - 1].bytes = bytes;
    return fd;
}

int state_create(int gpu, size_t bytes)
{
    int lock, fd;

    pthread_mutex_lock(&mutex);
    lock = has_folder() ? folder_lock() : -1;
    fd = create_locked(gpu, bytes);
    if (lock >= 0)
        close(lock);
    pthread_mutex_unlock(&mutex);
    return fd;
}

int state_gpu_of(int fd)
{
    char link[64], target[400];
    const char *name;
    ssize_t n;
    int gpu;

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    n = readlink(link, target, sizeof target - 1);
    if (n < 0)
        return -1;
    target[n] = '\0';
    name = strstr(target, "/memfd:gpu-"); /* without a folder */
    name = name ? name + strlen("/memfd:") : strrchr(target, '/') ? strrchr(target, '/') + 1 : "";
    if (sscanf(name, "gpu-%d-", &gpu) != 1)
        return -1;
    return gpu == STATE_HOST || (gpu >= 0 && gpu < fake_settings()->n_gpus) ? gpu : -1;
}

bool state_private_add(int gpu, size_t bytes)
{
    bool ok;
    int lock;

    pthread_mutex_lock(&mutex);
    lock = has_folder() ? folder_lock() : -1;
    ok = has_room(gpu, bytes);
    if (ok) {
        record.private_bytes[gpu] += bytes;
        record_write();
    }
    if (lock >= 0)
        close(lock);
    pthread_mutex_unlock(&mutex);
    return ok;
}

void state_private_remove(int gpu, size_t bytes)
{
    pthread_mutex_lock(&mutex);
    record.private_bytes[gpu] -= bytes;
    record_write();
    pthread_mutex_unlock(&mutex);
}

static void count_allocation(void *arg, int fd, const struct stat *st)
{
    (void)st;
    *(unsigned *)arg += state_gpu_of(fd) >= 0;
}

unsigned state_descriptors(void)
{
    unsigned n = 0;

    each_descriptor(count_allocation, &n);
    return n;
}

/* ---- Who uses a GPU; lost GPUs; rules that fired ---- */

static unsigned folder_processes(int gpu, struct state_process *out, unsigned max)
{
    DIR *dir = opendir(fake_settings()->state);
    const struct dirent *entry;
    unsigned n = 0;

    if (!dir)
        stop("open", fake_settings()->state);
    while ((entry = readdir(dir)) != NULL) {
        struct process_record r;
        int pid;

        if (sscanf(entry->d_name, "process-%d", &pid) != 1 || !read_record(entry->d_name, &r))
            continue;
        if (r.has_context[gpu] && n < max)
            out[n++] = (struct state_process){ pid, r.private_bytes[gpu] };
    }
    closedir(dir);
    return n;
}

unsigned state_processes(int gpu, struct state_process *out, unsigned max)
{
    unsigned n = 0;

    pthread_mutex_lock(&mutex);
    if (has_folder())
        n = folder_processes(gpu, out, max);
    else if (record.has_context[gpu] && max > 0)
        out[n++] = (struct state_process){ getpid(), record.private_bytes[gpu] };
    pthread_mutex_unlock(&mutex);
    return n;
}

int state_lost(int gpu)
{
    char path[400], text[16] = "";
    int fd, result;

    if (!has_folder())
        return __atomic_load_n(&lost_here[gpu], __ATOMIC_RELAXED);
    path_of(path, sizeof path, "lost-%d", gpu);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    result = read(fd, text, sizeof text - 1) > 0 ? atoi(text) : 0;
    close(fd);
    return result;
}

void state_lose(int gpu, int result)
{
    char path[400];
    int fd;

    __atomic_store_n(&lost_here[gpu], result, __ATOMIC_RELAXED);
    if (!has_folder())
        return;
    path_of(path, sizeof path, "lost-%d", gpu);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || dprintf(fd, "%d\n", result) < 0)
        stop("write", path);
    close(fd);
}

unsigned state_xid(int gpu, unsigned index)
{
    char path[400];
    unsigned xid = 0;
    FILE *f;

    if (!has_folder())
        return 0;
    path_of(path, sizeof path, "xid-%d", gpu);
    f = fopen(path, "re");
    if (!f)
        return 0;
    for (unsigned i = 0; i <= index; i++)
        if (fscanf(f, "%u", &xid) != 1)
            xid = 0;
    fclose(f);
    return xid;
}

bool state_fire(uint64_t rule)
{
    char path[400];
    int fd;

    if (!has_folder())
        return true;
    path_of(path, sizeof path, "fired-%016llx", (unsigned long long)rule);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}
