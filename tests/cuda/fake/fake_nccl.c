/* fake_nccl.c - libnccl.so.2 without a GPU: the functions that the worker calls, between processes over shared memory,
 * in the streams of the fake libcuda.so.1.
 *
 * It misbehaves as the real one does.  A rank that waits for a dead peer spins for ever, and nobody tells it.  A
 * communicator forms on a thread of its own, and only when all ranks have come.  ncclCommAbort() waits until what
 * was queued has left its spin loop, or hangs.  A call of a communicator that does not block is put into its stream by
 * a thread, a while after it has returned; until then another one is refused.  Sums are made from the last rank to the
 * first: the same bits on all ranks, yet others than those of the worker's own all-reduce.
 *
 * An id names a memfd of the process that made it, so ranks reach it only while that process lives, and nothing is left
 * behind.
 *
 *   LLMD_FAKE_NCCL=key=value,..   init=hang     communicators never form
 *                                 init=fail     ncclCommGetAsyncError() gives ncclSystemError
 *                                 late=R:N      the N-th question about rank R's standing communicator meets ncclSystemError
 *                                 init_ms=N     forming takes N ms longer
 *                                 abort=hang    ncclCommAbort() never returns
 *                                 end=abort     a process that gives its context back, or ends by exit(), while a
 *                                               communicator forms, aborts: its threads would use what is gone
 *                                 version=N     of the library; 22809 without it
 *
 * A rule of the fault script for `call ncclCommInitRankConfig` decides at any time: hang, or return CODE. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "gpu-worker/cuda/api/nccl.h"
#include "tests/cuda/fake/fake_cuda.h"

#define EXPORT __attribute__((visibility("default")))

/* What the worker calls is what must be here, as it declares it. */
#define NCCL(symbol, params)          EXPORT int symbol params;
#define NCCL_OPTIONAL(symbol, params) EXPORT int symbol params;
#include "gpu-worker/cuda/api/nccl.def"
#undef NCCL
#undef NCCL_OPTIONAL

enum { RANKS_MAX = 16, PIECE_FLOATS = 65536 };

/* The meeting place, zero-filled.  Rank r writes .arrived[r] and .piece[r]. */
struct place {
    _Atomic uint32_t n_joined;
    _Atomic uint64_t arrived[RANKS_MAX]; /* phases */
    float piece[RANKS_MAX][PIECE_FLOATS];
};

struct id {
    int pid, fd;
};
static_assert(sizeof(struct id) <= sizeof(struct nccl_unique_id), "fits");

/* Counted, since queued work may outlive an aborted communicator. */
struct nccl_communicator {
    _Atomic int n_users;
    int rank, n_ranks;
    struct place *place;
    struct fake_cuda cuda;
    _Atomic int state; /* an nccl_result */
    _Atomic bool aborted;
    _Atomic int n_asked; /* since it stands */
    _Atomic int n_queued;
    uint64_t phase;
    bool blocks;
    int init_ms;
    int init_result; /* NCCL_SUCCESS, or what forming ends with */
    bool init_hangs, minds_end;
    struct nccl_communicator *next; /* of all */
};

/* The library knows all that there are, also those that their process has given up. */
static struct nccl_communicator *all_communicators;
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- settings ---- */

/* The value of a key, up to the next comma; 0 when it is not there. */
static size_t setting(const char *key, char *out, size_t cap)
{
    const char *all = getenv("LLMD_FAKE_NCCL"), *at = all;
    size_t key_bytes = strlen(key), n;

    while (at && *at) {
        if (strncmp(at, key, key_bytes) == 0 && at[key_bytes] == '=') {
            at += key_bytes + 1;
            n = strcspn(at, ",");
            n = n < cap - 1 ? n : cap - 1;
            memcpy(out, at, n);
            out[n] = '\0';
            return n;
        }
        at = strchr(at, ',');
        at = at ? at + 1 : NULL;
    }
    return 0;
}

static bool setting_is(const char *key, const char *value)
{
    char found[32];

    return setting(key, found, sizeof found) > 0 && strcmp(found, value) == 0;
}

static int setting_number(const char *key, int otherwise)
{
    char found[32];

    return setting(key, found, sizeof found) > 0 ? atoi(found) : otherwise;
}

static void nap(void)
{
    nanosleep(&(struct timespec){ 0, 50000 }, NULL);
}

/* ---- ids and communicators ---- */

EXPORT int ncclGetVersion(int *version)
{
    *version = setting_number("version", 22809);
    return NCCL_SUCCESS;
}

EXPORT int ncclGetUniqueId(struct nccl_unique_id *id)
{
    struct id own = { getpid(), -1 };

    if (!getenv("NCCL_SOCKET_IFNAME"))
        return NCCL_SYSTEM_ERROR; /* the real one would try the network's interfaces */
    own.fd = memfd_create("fake-nccl", MFD_CLOEXEC);
    if (own.fd < 0 || ftruncate(own.fd, sizeof(struct place)) != 0)
        return NCCL_SYSTEM_ERROR;
    memset(id, 0, sizeof *id);
    memcpy(id, &own, sizeof own);
    return NCCL_SUCCESS; /* the descriptor stays open: it is the meeting place */
}

static struct place *open_place(const struct nccl_unique_id *id)
{
    char path[64];
    struct place *p;
    struct id from;
    int fd;

    memcpy(&from, id, sizeof from);
    snprintf(path, sizeof path, "/proc/%d/fd/%d", from.pid, from.fd);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return NULL;
    p = mmap(NULL, sizeof *p, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    return p == MAP_FAILED ? NULL : p;
}

static void list(struct nccl_communicator *c)
{
    pthread_mutex_lock(&all_lock);
    c->next = all_communicators;
    all_communicators = c;
    pthread_mutex_unlock(&all_lock);
}

static void unlist(const struct nccl_communicator *c)
{
    struct nccl_communicator **at = &all_communicators;

    pthread_mutex_lock(&all_lock);
    while (*at != c)
        at = &(*at)->next;
    *at = c->next;
    pthread_mutex_unlock(&all_lock);
}

static void drop(struct nccl_communicator *c)
{
    if (atomic_fetch_sub(&c->n_users, 1) != 1)
        return;
    unlist(c);
    munmap(c->place, sizeof *c->place);
    free(c);
}

static void give_out(const char *what)
{
    fprintf(stderr, "fake libnccl: %s while a communicator forms\n", what);
    abort();
}

/* Its thread works in the process's context, and with what its libraries have. */
static void use_context(const struct nccl_communicator *c)
{
    struct fake_cuda_counts counts;

    if (!c->minds_end)
        return;
    c->cuda.counts(&counts);
    if (counts.contexts == 0)
        give_out("the context was given back");
}

__attribute__((destructor)) static void see_the_end(void)
{
    pthread_mutex_lock(&all_lock);
    for (const struct nccl_communicator *c = all_communicators; c; c = c->next)
        if (atomic_load(&c->state) == NCCL_IN_PROGRESS && c->minds_end)
            give_out("the process ends by exit()");
    pthread_mutex_unlock(&all_lock);
}

/* Wait for the others, then say what came of it. */
static void *form(void *arg)
{
    struct nccl_communicator *c = arg;
    int result = c->init_result;

    nanosleep(&(struct timespec){ c->init_ms / 1000, c->init_ms % 1000 * 1000000L }, NULL);
    if (result == NCCL_SUCCESS)
        atomic_fetch_add(&c->place->n_joined, 1);
    while (result == NCCL_SUCCESS && !atomic_load(&c->aborted) &&
           (c->init_hangs || atomic_load(&c->place->n_joined) < (uint32_t)c->n_ranks)) {
        use_context(c);
        nap();
    }
    atomic_store(&c->state, result);
    drop(c);
    return NULL;
}

/* By the settings, or by a rule of the fault script for this call. */
static void plan_forming(struct nccl_communicator *c)
{
    enum fake_cuda_script script = c->cuda.ask_script("ncclCommInitRankConfig", &c->init_result);

    if (script != FAKE_CUDA_RETURN)
        c->init_result = setting_is("init", "fail") ? NCCL_SYSTEM_ERROR : NCCL_SUCCESS;
    c->init_hangs = script == FAKE_CUDA_HANG || setting_is("init", "hang");
    c->init_ms = setting_number("init_ms", 0);
    c->minds_end = setting_is("end", "abort");
}

/* One that nobody waits for. */
static bool on_thread(void *(*run)(void *), void *arg)
{
    pthread_attr_t detached;
    pthread_t thread;
    int error;

    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    error = pthread_create(&thread, &detached, run, arg);
    pthread_attr_destroy(&detached);
    return error == 0;
}

EXPORT int ncclCommInitRankConfig(struct nccl_communicator **comm, int n_ranks,
                                  struct nccl_unique_id id, int rank, struct nccl_config *config)
{
    struct nccl_communicator *c;

    if (!config || config->bytes < sizeof *config || config->magic != NCCL_CONFIG_MAGIC)
        return NCCL_INVALID_ARGUMENT;
    if (n_ranks < 1 || n_ranks > RANKS_MAX || rank < 0 || rank >= n_ranks)
        return NCCL_INVALID_ARGUMENT;
    c = calloc(1, sizeof *c);
    if (!c)
        return NCCL_SYSTEM_ERROR;
    if (!fake_cuda_find(&c->cuda)) {
        free(c);
        return NCCL_UNHANDLED_CUDA_ERROR;
    }
    c->place = open_place(&id);
    if (!c->place) {
        free(c);
        return NCCL_SYSTEM_ERROR;
    }
    c->rank = rank;
    c->n_ranks = n_ranks;
    plan_forming(c);
    atomic_store(&c->n_users, 2); /* the caller, and form() */
    atomic_store(&c->state, NCCL_IN_PROGRESS);
    list(c);
    *comm = c;
    c->blocks = config->blocking != 0;
    if (!c->blocks)
        return on_thread(form, c) ? NCCL_IN_PROGRESS : NCCL_SYSTEM_ERROR;
    form(c);
    return atomic_load(&c->state);
}

static bool has_failed_late(struct nccl_communicator *c)
{
    char late[16];
    const char *at;

    if (setting("late", late, sizeof late) == 0 || atoi(late) != c->rank)
        return false;
    at = strchr(late, ':');
    return at && atomic_fetch_add(&c->n_asked, 1) + 1 >= atoi(at + 1);
}

EXPORT int ncclCommGetAsyncError(struct nccl_communicator *c, int *result)
{
    if (atomic_load(&c->state) == NCCL_SUCCESS && has_failed_late(c))
        atomic_store(&c->state, NCCL_SYSTEM_ERROR);
    *result = atomic_load(&c->state);
    return NCCL_SUCCESS;
}

EXPORT int ncclCommFinalize(struct nccl_communicator *c)
{
    return atomic_load(&c->state) == NCCL_SUCCESS ? NCCL_SUCCESS : NCCL_INVALID_USAGE;
}

/* Waits for what was queued: for ever, when a peer is dead. */
EXPORT int ncclCommDestroy(struct nccl_communicator *c)
{
    while (atomic_load(&c->n_queued) > 0)
        nap();
    drop(c);
    return NCCL_SUCCESS;
}

EXPORT int ncclCommAbort(struct nccl_communicator *c)
{
    while (setting_is("abort", "hang"))
        pause();
    atomic_store(&c->aborted, true);
    return ncclCommDestroy(c);
}

EXPORT int ncclCommRevoke(struct nccl_communicator *c, int flags)
{
    if (flags != 0)
        return NCCL_INVALID_ARGUMENT;
    atomic_store(&c->aborted, true);
    return NCCL_SUCCESS;
}

EXPORT int ncclCommShrink(struct nccl_communicator *c, int *exclude, int n_exclude,
                          struct nccl_communicator **smaller, struct nccl_config *config, int flags)
{
    (void)c, (void)exclude, (void)n_exclude, (void)smaller, (void)config, (void)flags;
    return NCCL_INVALID_USAGE; /* shards cannot be dropped: the worker must not ask for it */
}

/* ---- collectives ---- */

struct work {
    struct nccl_communicator *c;
    const float *send;
    float *receive;
    size_t n; /* floats that this rank sends */
};

/* All ranks are in this phase: nobody is told of one that died. */
static bool meet(struct nccl_communicator *c)
{
    c->phase++;
    atomic_store(&c->place->arrived[c->rank], c->phase);
    for (int r = 0; r < c->n_ranks; r++)
        while (atomic_load(&c->place->arrived[r]) < c->phase) {
            if (atomic_load(&c->aborted))
                return false;
            nap();
        }
    return true;
}

static void sum_pieces(const struct nccl_communicator *c, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float sum = c->place->piece[c->n_ranks - 1][i];
        for (int r = c->n_ranks - 2; r >= 0; r--)
            sum += c->place->piece[r][i];
        out[i] = sum;
    }
}

static void all_reduce(void *args)
{
    struct work *w = args;
    struct nccl_communicator *c = w->c;

    for (size_t at = 0; at < w->n; at += PIECE_FLOATS) {
        size_t n = w->n - at < PIECE_FLOATS ? w->n - at : PIECE_FLOATS;
        memcpy(c->place->piece[c->rank], w->send + at, n * sizeof(float));
        if (!meet(c))
            break;
        sum_pieces(c, w->receive + at, n);
        if (!meet(c))
            break;
    }
    atomic_fetch_sub(&c->n_queued, 1);
    drop(c);
}

static void all_gather(void *args)
{
    struct work *w = args;
    struct nccl_communicator *c = w->c;

    for (size_t at = 0; at < w->n; at += PIECE_FLOATS) {
        size_t n = w->n - at < PIECE_FLOATS ? w->n - at : PIECE_FLOATS;
        memcpy(c->place->piece[c->rank], w->send + at, n * sizeof(float));
        if (!meet(c))
            break;
        for (int r = 0; r < c->n_ranks; r++)
            memcpy(w->receive + (size_t)r * w->n + at, c->place->piece[r], n * sizeof(float));
        if (!meet(c))
            break;
    }
    atomic_fetch_sub(&c->n_queued, 1);
    drop(c);
}

/* On its way to the stream. */
struct launch {
    struct work work;
    const char *name;
    fake_work_fn *run;
    struct cu_stream *stream;
    struct cu_context *context;
};

static int launch(const struct launch *l)
{
    struct nccl_communicator *c = l->work.c;

    if (c->cuda.enqueue(l->stream, l->name, l->run, &l->work, sizeof l->work) == 0)
        return NCCL_SUCCESS;
    atomic_fetch_sub(&c->n_queued, 1);
    drop(c);
    return NCCL_UNHANDLED_CUDA_ERROR;
}

static void *launch_behind(void *arg)
{
    struct launch *l = arg;
    struct nccl_communicator *c = l->work.c;

    c->cuda.set_current(l->context);
    nap();
    atomic_store(&c->state, launch(l));
    free(l);
    drop(c);
    return NULL;
}

static int enqueue(const char *name, fake_work_fn *run, const struct work *w, size_t n_received,
                   struct cu_stream *stream)
{
    struct nccl_communicator *c = w->c;
    struct launch l = { *w, name, run, stream, NULL }, *behind;

    if (atomic_load(&c->state) != NCCL_SUCCESS)
        return NCCL_INVALID_ARGUMENT;
    if (!c->cuda.is_device((uintptr_t)w->send, w->n * sizeof(float), false) ||
        !c->cuda.is_device((uintptr_t)w->receive, n_received * sizeof(float), true))
        return NCCL_INVALID_ARGUMENT;
    atomic_fetch_add(&c->n_users, 1);
    atomic_fetch_add(&c->n_queued, 1);
    if (c->blocks)
        return launch(&l);
    behind = malloc(sizeof *behind);
    if (!behind || c->cuda.get_current(&l.context) != 0)
        abort();
    *behind = l;
    atomic_fetch_add(&c->n_users, 1);
    atomic_store(&c->state, NCCL_IN_PROGRESS);
    if (!on_thread(launch_behind, behind))
        abort();
    return NCCL_IN_PROGRESS;
}

EXPORT int ncclAllReduce(const void *send, void *receive, size_t count, int type, int op,
                         struct nccl_communicator *comm, struct cu_stream *stream)
{
    if (type != NCCL_FLOAT32 || op != NCCL_SUM)
        return NCCL_INVALID_ARGUMENT;
    return enqueue("ncclAllReduce", all_reduce, &(struct work){ comm, send, receive, count }, count,
                   stream);
}

EXPORT int ncclAllGather(const void *send, void *receive, size_t send_count, int type,
                         struct nccl_communicator *comm, struct cu_stream *stream)
{
    if (type != NCCL_FLOAT32)
        return NCCL_INVALID_ARGUMENT;
    return enqueue("ncclAllGather", all_gather, &(struct work){ comm, send, receive, send_count },
                   send_count * (size_t)comm->n_ranks, stream);
}
