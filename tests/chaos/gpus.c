/* gpus.c - see gpus.h. */
#include "tests/chaos/gpus.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/buf.h"
#include "tests/chaos/model_files.h"
#include "tests/cuda/fake/folder.h"

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
    snprintf(g->state, sizeof g->state, "%s/state", g->dir);
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

    snprintf(text, sizeof text, "gpus=%d,memory=1g,multiprocessors=1,state=%s,faults=%s/faults",
             GPUS_N, g->state, g->state);
    setenv("LLMD_FAKE_CUDA", text, 1);
    setenv("LD_LIBRARY_PATH", g->libraries, 1);
    setenv("LLMD_GPU_RETRY_MS", "100", 1); /* a lost GPU is looked at again soon */
    setenv("LLMD_GPU_RETRY_MAX_MS", "500", 1);
}

/* ---- the script ---- */

void gpus_set_rule(struct gpus *g, const char *rule)
{
    struct buf line = { 0 };

    if (rule[0])
        buf_printf(&line, "%s # %u", rule, ++g->n_rules);
    state_folder_set_faults(g->state, rule[0] ? line.data : "");
    buf_fini(&line);
}

uint32_t gpus_n_fired(const struct gpus *g)
{
    int n = state_folder_count_fired(g->state);

    return n > 0 ? (uint32_t)n : 0;
}

/* ---- what is there ---- */

bool gpus_is_lost(const struct gpus *g, uint32_t gpu)
{
    return state_folder_gpu_is_lost(g->state, (int)gpu);
}

void gpus_reset(const struct gpus *g, uint32_t gpu)
{
    state_folder_reset_gpu(g->state, (int)gpu);
}

void gpus_report_xid(const struct gpus *g, uint32_t gpu, const char *xid)
{
    state_folder_add_xid(g->state, (int)gpu, xid);
}

uint32_t gpus_n_held(const struct gpus *g)
{
    int n = state_folder_count_pieces(g->state);

    return n > 0 ? (uint32_t)n : 0;
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

    snprintf(wanted, sizeof wanted, "%s/gpu-", g->state);
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
