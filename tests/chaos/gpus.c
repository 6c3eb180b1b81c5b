/* gpus.c - see gpus.h. */
#include "tests/chaos/gpus.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/chaos/model_files.h"

/* What the kernels are made for, and small. */
static const struct model_shape tiny = {
    .vocab = GPUS_VOCAB,
    .hidden = 32,
    .inner = 48,
    .layers = 1,
    .heads = 2,
    .kv_heads = 2,
    .head_dim = 16,
    .positions = 512,
};

static void path_of(const struct gpus *g, const char *name, char out[400])
{
    snprintf(out, 400, "%s/%s", g->dir, name);
}

/* ---- open and close ---- */

static bool make_folder(const struct gpus *g, const char *name, struct err *e)
{
    char path[400];

    path_of(g, name, path);
    return mkdir(path, 0700) == 0 || err_set(e, ERR_SYS, errno, "make '%s'", path);
}

/* Of one name, which answers tell. */
static bool link_model(struct gpus *g, uint32_t i, struct err *e)
{
    static const char *const folders[] = { "a", "b" };

    if (!make_folder(g, folders[i], e))
        return false;
    snprintf(g->models[i], sizeof g->models[i], "%s/%s/tiny", g->dir, folders[i]);
    return symlink("../model", g->models[i]) == 0 ||
           err_set(e, ERR_SYS, errno, "make '%s'", g->models[i]);
}

bool gpus_open(struct gpus *g, const char *libraries, const char *tokenizer, struct err *e)
{
    char model[400];

    *g = (struct gpus){ .libraries = libraries, .dir = "/tmp/llmd-chaos-gpu-XXXXXX" };
    if (!mkdtemp(g->dir))
        return err_set(e, ERR_SYS, errno, "make '%s'", g->dir);
    path_of(g, "model", model);
    if (!make_folder(g, "state", e) || !link_model(g, 0, e) || !link_model(g, 1, e))
        return false;
    gpus_set_rule(g, "");
    return model_files_write(&tiny, tokenizer, model) ||
           err_set(e, ERR_SYS, 0, "the small model cannot be written to '%s'", model);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    remove(path);
    return 0;
}

void gpus_close(struct gpus *g)
{
    if (g->dir[0])
        nftw(g->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    *g = (struct gpus){ .libraries = NULL };
}

void gpus_environment(const struct gpus *g)
{
    char text[400];

    snprintf(text, sizeof text,
             "gpus=%d,memory=1g,multiprocessors=1,state=%s/state,faults=%s/faults", GPUS_N, g->dir,
             g->dir);
    setenv("LLMD_FAKE_CUDA", text, 1);
    setenv("LD_LIBRARY_PATH", g->libraries, 1);
    setenv("LLMD_GPU_RETRY_MS", "100", 1); /* a lost GPU is looked at again soon */
    setenv("LLMD_GPU_RETRY_MAX_MS", "500", 1);
}

/* ---- the script ---- */

void gpus_set_rule(struct gpus *g, const char *rule)
{
    char path[400], next[400];
    FILE *f;

    path_of(g, "faults", path);
    path_of(g, "faults.next", next);
    f = fopen(next, "we");
    if (!f)
        return;
    if (rule[0])
        fprintf(f, "%s # %u\n", rule, ++g->n_rules);
    fclose(f);
    rename(next, path); /* processes read the old one or the new one */
}

/* The names of the state's files that begin so. */
static uint32_t for_each_file(const struct gpus *g, const char *begin,
                              bool (*counts)(const char *path))
{
    char folder[400], path[700];
    struct dirent *entry;
    uint32_t n = 0;
    DIR *dir;

    path_of(g, "state", folder);
    dir = opendir(folder);
    while (dir && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        n += strncmp(entry->d_name, begin, strlen(begin)) == 0 && counts(path);
    }
    if (dir)
        closedir(dir);
    return n;
}

static bool is_any(const char *path)
{
    (void)path;
    return true;
}

uint32_t gpus_n_fired(const struct gpus *g)
{
    return for_each_file(g, "fired-", is_any);
}

/* ---- what is there ---- */

/* The state's file "lost-0" or the like. */
static void gpu_path(const struct gpus *g, const char *what, uint32_t gpu, char out[400])
{
    char name[32];

    snprintf(name, sizeof name, "state/%s-%u", what, gpu);
    path_of(g, name, out);
}

bool gpus_is_lost(const struct gpus *g, uint32_t gpu)
{
    char path[400];

    gpu_path(g, "lost", gpu, path);
    return access(path, F_OK) == 0;
}

void gpus_reset(const struct gpus *g, uint32_t gpu)
{
    char path[400];

    gpu_path(g, "lost", gpu, path);
    unlink(path);
}

void gpus_report_xid(const struct gpus *g, uint32_t gpu, const char *xid)
{
    char path[400];
    FILE *f;

    gpu_path(g, "xid", gpu, path);
    f = fopen(path, "ae");
    if (!f)
        return;
    fprintf(f, "%s\n", xid);
    fclose(f);
}

/* Its lock cannot be had (tests/cuda/fake/state.h). */
static bool is_held(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    bool held = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0;

    if (fd >= 0)
        close(fd);
    return held;
}

uint32_t gpus_n_held(const struct gpus *g)
{
    return for_each_file(g, "gpu-", is_held);
}

/* Opened anew it would be another open file, which holds nothing. */
static int take_descriptor(pid_t pid, int fd)
{
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    int copy = pidfd < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);

    if (pidfd >= 0)
        close(pidfd);
    return copy;
}

int gpus_hold_one_of(const struct gpus *g, pid_t pid)
{
    char path[300], to[400], wanted[400];
    struct dirent *entry;
    int fd = -1;
    ssize_t n;
    DIR *dir;

    path_of(g, "state/gpu-", wanted);
    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    while (dir && fd < 0 && (entry = readdir(dir))) {
        snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, entry->d_name);
        n = readlink(path, to, sizeof to - 1);
        if (n > 0 && strncmp(to, wanted, strlen(wanted)) == 0)
            fd = take_descriptor(pid, atoi(entry->d_name));
    }
    if (dir)
        closedir(dir);
    return fd;
}
