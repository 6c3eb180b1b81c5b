/* exchange.c - the launches between ranks, and the thread that notices who is gone. */
#include "gpu-worker/cuda/exchange.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/cuda/exchange_state.h"

static_assert((int)EXCHANGE_RANKS_MAX == ALL_REDUCE_RANKS_MAX &&
                  (int)EXCHANGE_RANKS_MAX == MESH_RANKS_MAX,
              "one limit");

/* From how many floats on another way is the better one.  First guesses for one-shot and two-shot: vLLM's, whose
 * bytes are of 16-bit numbers (vllm-project/vllm, csrc/custom_all_reduce.cuh); a GPU's own are measured by gpu-verify. */
enum {
    TWO_SHOT_4_RANKS = (512 << 10) / 4,
    TWO_SHOT_8_RANKS = (256 << 10) / 4,
    NCCL_OVER_P2P = (8 << 20) / 4,
    NCCL_OVER_HOST = (1 << 20) / 4
};

const char *exchange_path_name(enum exchange_path path)
{
    return path == EXCHANGE_P2P ? "p2p" : "host";
}

enum exchange_path exchange_path(const struct exchange *x)
{
    return x->path;
}

/* ---- watching ---- */

/* What a peer's connection brings after opening: a byte when its NCCL communicator stands, and one when it has failed; then
 * its end. */
enum { SAY_READY = 'R', SAY_FAILED = 'F' };

static bool hear(struct exchange *x, uint32_t peer)
{
    char byte;
    ssize_t n = recv(x->mesh.fds[peer], &byte, sizeof byte, MSG_DONTWAIT);

    if (n > 0) {
        atomic_fetch_or(byte == SAY_FAILED ? &x->nccl_failed : &x->nccl_ready, 1u << peer);
        return true;
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    atomic_fetch_or(&x->gone, 1u << peer);
    atomic_store(&x->signals->abort, 1);
    return false;
}

/* Asleep until a peer says something or is gone, or this rank closes. */
static void *watch(void *arg)
{
    struct exchange *x = arg;
    struct pollfd p[EXCHANGE_RANKS_MAX + 1];
    uint32_t n_ranks = x->setup.tp_size;

    for (uint32_t r = 0; r < n_ranks; r++)
        p[r] = (struct pollfd){ .fd = x->mesh.fds[r], .events = POLLIN };
    p[n_ranks] = (struct pollfd){ .fd = x->stop_fd, .events = POLLIN };
    for (;;) {
        if (poll(p, n_ranks + 1, -1) < 0)
            continue;
        if (p[n_ranks].revents)
            return NULL;
        for (uint32_t r = 0; r < n_ranks; r++)
            if (p[r].revents && !hear(x, r))
                p[r].fd = -1;
    }
}

static bool start_watching(struct exchange *x, struct err *e)
{
    int error;

    x->stop_fd = eventfd(0, EFD_CLOEXEC);
    if (x->stop_fd < 0)
        return err_set(e, ERR_SYS, errno, "eventfd of the exchange");
    error = pthread_create(&x->watcher, NULL, watch, x);
    if (error == 0)
        return true;
    close(x->stop_fd);
    x->stop_fd = -1;
    return err_set(e, ERR_SYS, error, "thread of the exchange");
}

static void stop_watching(struct exchange *x)
{
    uint64_t one = 1;

    if (x->stop_fd < 0)
        return;
    if (write(x->stop_fd, &one, sizeof one) == sizeof one)
        pthread_join(x->watcher, NULL);
    close(x->stop_fd);
    x->stop_fd = -1;
}

/* ---- NCCL ---- */

/* Rank 0 makes an id, all get it and begin.  A group does without NCCL where anything is missing, on any rank. */
static bool start_nccl(struct exchange *x, uint64_t deadline_ns, struct err *e)
{
    struct {
        struct nccl_unique_id id;
        uint32_t is_there;
    } mine = { 0 }, all[EXCHANGE_RANKS_MAX];
    struct err why = { 0 };

    if (x->setup.rank == 0)
        mine.is_there = nccl_comm_id(&mine.id, &why);
    else
        mine.is_there = nccl_open(&why);
    if (!mesh_all_gather(&x->mesh, &mine, -1, all, NULL, sizeof mine, deadline_ns, e))
        return false;
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        if (!all[r].is_there) {
            log_info("exchange rank=%u nccl=none reason=\"%s\"", x->setup.rank,
                     mine.is_there ? "another rank has none" : why.msg);
            return true;
        }
    x->has_nccl = nccl_comm_start(&x->nccl, &all[0].id, x->setup.rank, x->setup.tp_size, &why);
    if (!x->has_nccl)
        log_warning("exchange rank=%u nccl=failed reason=\"%s\", going on without", x->setup.rank,
                    why.msg);
    return true;
}

static void tell_peers(struct exchange *x, _Atomic uint32_t *bits, char word)
{
    atomic_fetch_or(bits, 1u << x->setup.rank);
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        if (r != x->setup.rank)
            send(x->mesh.fds[r], &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* See how far the communicator is; when that changes, all are told: one that one rank has lost is of no use to any. */
static void poll_nccl(struct exchange *x)
{
    enum nccl_comm_state before = x->nccl.state;
    struct err why;

    if (!x->has_nccl || before == NCCL_COMM_FAILED || nccl_comm_poll(&x->nccl, &why) == before)
        return;
    if (x->nccl.state == NCCL_COMM_FAILED) {
        log_warning("exchange rank=%u nccl=failed reason=\"%s\", going on without", x->setup.rank,
                    why.msg);
        tell_peers(x, &x->nccl_failed, SAY_FAILED);
        return;
    }
    log_info("exchange rank=%u nccl=ready", x->setup.rank);
    tell_peers(x, &x->nccl_ready, SAY_READY);
}

bool exchange_nccl_is_ready(struct exchange *x)
{
    poll_nccl(x);
    return atomic_load(&x->nccl_ready) == (1u << x->setup.tp_size) - 1 &&
           atomic_load(&x->nccl_failed) == 0 && x->nccl.state == NCCL_COMM_READY;
}

void exchange_use_nccl(struct exchange *x, bool use)
{
    poll_nccl(x);
    x->use_nccl = use;
}

/* ---- open and close ---- */

static void *signal_at(const struct exchange *x, size_t offset)
{
    return (void *)(uintptr_t)(x->signals_at + offset);
}

static bool open_signals(struct exchange *x, struct err *e)
{
    void *p = NULL;

    if (!device_host_alloc(x->device, &p, sizeof *x->signals, e))
        return false;
    x->signals = p;
    memset(x->signals, 0, sizeof *x->signals);
    if (!device_host_address(x->device, &x->signals_at, p, e))
        return false;
    x->group.status = signal_at(x, offsetof(struct exchange_signals, status));
    x->group.abort_word = signal_at(x, offsetof(struct exchange_signals, abort));
    return true;
}

/* Before the ranks meet: the test of a path does not wait for one whose driver compiles a kernel first. */
static bool load_kernels(struct exchange *x, struct err *e)
{
    return device_kernel_load(x->all_reduce, e) && device_kernel_load(x->all_gather, e) &&
           device_kernel_load(x->add_floats, e);
}

static bool open_parts(struct exchange *x, struct err *e)
{
    const struct exchange_setup *s = &x->setup;
    uint64_t deadline_ns = clock_mono_ns() + s->open_limit_ms * NS_PER_MS;

    return load_kernels(x, e) && open_signals(x, e) &&
           mesh_open(&x->mesh, s->group_id, s->epoch, s->rank, s->tp_size, deadline_ns, e) &&
           exchange_areas_open(x, deadline_ns, e) && (!s->nccl || start_nccl(x, deadline_ns, e)) &&
           start_watching(x, e);
}

struct exchange *exchange_open(const struct exchange_setup *setup, struct err *e)
{
    struct exchange *x = mem_zalloc(1, sizeof *x);

    assert(setup->tp_size >= 2 && setup->tp_size <= EXCHANGE_RANKS_MAX &&
           setup->rank < setup->tp_size);
    x->setup = *setup;
    x->device = setup->device;
    x->stop_fd = -1;
    if (x->setup.open_limit_ms == 0)
        x->setup.open_limit_ms = EXCHANGE_OPEN_LIMIT_MS;
    x->group = (struct all_reduce_group){
        .rank = setup->rank,
        .n_ranks = setup->tp_size,
        .abort_value = 1,
        .spin_limit_us = setup->spin_limit_us ? setup->spin_limit_us : EXCHANGE_SPIN_LIMIT_US,
    };
    x->all_reduce = device_kernel(x->device, "all_reduce");
    x->all_gather = device_kernel(x->device, "all_gather");
    x->add_floats = device_kernel(x->device, "add_floats");
    if (open_parts(x, e))
        return x;
    err_wrap(e, "exchange between ranks");
    exchange_close(x);
    return NULL;
}

void exchange_close(struct exchange *x)
{
    bool is_over;

    if (!x)
        return;
    stop_watching(x);
    is_over = nccl_comm_close(&x->nccl, atomic_load(&x->gone) == 0);
    exchange_areas_close(x);
    mesh_close(&x->mesh);
    if (x->signals)
        device_host_free(x->device, x->signals);
    if (is_over)
        free(x);
}

/* ---- the exchanges ---- */

static bool launch(struct device_stream *s, struct device_kernel *k, uint32_t blocks,
                   const void *args, size_t args_bytes)
{
    const struct device_grid grid = { .grid = { blocks }, .block = ALL_REDUCE_THREADS };

    return device_launch(s, k, &grid, args, args_bytes);
}

static bool is_two_shot(const struct exchange *x, size_t n)
{
    if (x->setup.tp_size <= 2)
        return false;
    return n >= (x->setup.tp_size <= 4 ? TWO_SHOT_4_RANKS : TWO_SHOT_8_RANKS);
}

static bool reduce_by_nccl(struct exchange *x, struct device_stream *s, float *y, float *in,
                           size_t n, bool add)
{
    const struct add_floats_args args = { y, in, n };

    if (x->nccl.state != NCCL_COMM_READY) /* since rank 0 said so: the peers wait in theirs */
        return device_check(x->device, CU_LAUNCH_FAILED, "ncclAllReduce",
                            "its communicator has failed");
    if (!nccl_comm_all_reduce(&x->nccl, s, add ? in : y, in, n))
        return false;
    return !add || launch(s, x->add_floats, add_floats_blocks(n), &args, sizeof args);
}

bool exchange_all_reduce(struct exchange *x, struct device_stream *s, float *y, float *in, size_t n,
                         bool add)
{
    bool ok = true;

    assert(n > 0 && ((uintptr_t)y | (uintptr_t)in) % 16 == 0 && !(add && y == in));
    if (x->use_nccl && n > (x->path == EXCHANGE_P2P ? NCCL_OVER_P2P : NCCL_OVER_HOST))
        return reduce_by_nccl(x, s, y, in, n, add);
    for (size_t at = 0; at < n && ok; at += ALL_REDUCE_FLOATS_MAX) {
        size_t part = n - at < ALL_REDUCE_FLOATS_MAX ? n - at : ALL_REDUCE_FLOATS_MAX;
        const struct all_reduce_args args = {
            x->group, y + at, in + at, (uint32_t)part, add, is_two_shot(x, part),
        };
        ok = launch(s, x->all_reduce, all_reduce_blocks(part), &args, sizeof args);
    }
    return ok;
}

bool exchange_all_gather(struct exchange *x, struct device_stream *s, float *buf, uint32_t n_rows,
                         uint32_t stride, const uint32_t *first)
{
    struct all_gather_args args = { .group = x->group, .buf = buf, .stride = stride };
    uint32_t widest = 1, rows_max;
    bool ok = true;

    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        if (first[r + 1] - first[r] > widest)
            widest = first[r + 1] - first[r];
    assert(widest <= ALL_REDUCE_FLOATS_MAX);
    memcpy(args.first, first, (x->setup.tp_size + 1) * sizeof first[0]);
    rows_max = (uint32_t)(ALL_REDUCE_FLOATS_MAX / widest);
    for (uint32_t row = 0; row < n_rows && ok; row += rows_max) {
        args.n_rows = n_rows - row < rows_max ? n_rows - row : rows_max;
        args.buf = buf + (size_t)row * stride;
        ok = launch(s, x->all_gather, all_reduce_blocks((size_t)args.n_rows * widest), &args,
                    sizeof args);
    }
    return ok;
}

bool exchange_check(const struct exchange *x, struct err *e)
{
    const struct all_reduce_status *status = &x->signals->status;
    uint32_t code = __atomic_load_n(&status->code, __ATOMIC_ACQUIRE), gone = atomic_load(&x->gone);

    if (x->use_nccl && x->nccl.state == NCCL_COMM_FAILED)
        return err_set(e, ERR_DEVICE, 0, "rank %u: the NCCL communicator has failed",
                       x->setup.rank);
    if (code == ALL_REDUCE_OK)
        return true;
    if (gone != 0)
        return err_set(e, ERR_DEVICE, 0, "rank %u: rank %d has left the group", x->setup.rank,
                       __builtin_ctz(gone));
    return err_set(e, ERR_DEVICE, 0, "rank %u: rank %u did not come to call %u within %u ms",
                   x->setup.rank, status->peer, status->call, x->group.spin_limit_us / 1000);
}
