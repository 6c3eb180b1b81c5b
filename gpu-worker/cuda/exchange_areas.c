/* exchange_areas.c - memory that all ranks of a group map, and the test that they do.
 *
 *   round 1   a descriptor of each rank's area, zero-filled and with a pattern of its owner in it
 *   test      write into every peer's area, read the pattern there
 *   round 2   "I have written, and read well"
 *   test      look at what the peers wrote here; run the all-reduce itself, since copies may go another way
 *             than a kernel's loads and stores do
 *   round 3   "all is well"
 *
 * Once for device memory; where a rank says no, once more for host memory. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "gpu-worker/cuda/exchange_state.h"

#define CREATE_WAIT_NS  (2 * NS_PER_S)  /* for a predecessor's memory to come back */
#define STREAM_LIMIT_NS (20 * NS_PER_S) /* for what is queued here */

enum { TEST_SPIN_US = 5000000 };

/* ---- areas ---- */

static void close_area(struct exchange *x, struct exchange_area *a)
{
    chunks_unmap(&a->chunks);
    if (a->is_pinned)
        device_host_unregister(x->device, a->host);
    if (a->host)
        munmap(a->host, ALL_REDUCE_AREA_BYTES);
    *a = (struct exchange_area){ 0 };
}

void exchange_areas_close(struct exchange *x)
{
    for (uint32_t r = 0; r < EXCHANGE_RANKS_MAX; r++)
        close_area(x, &x->areas[r]);
}

static bool map_host(struct exchange *x, struct exchange_area *a, int fd, struct err *e)
{
    void *host = mmap(NULL, ALL_REDUCE_AREA_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    cu_ptr at = 0;

    if (host == MAP_FAILED)
        return err_set(e, ERR_SYS, errno, "map memory between ranks");
    a->host = host;
    a->is_pinned = device_host_register(x->device, host, ALL_REDUCE_AREA_BYTES, false, e);
    if (!a->is_pinned || !device_host_address(x->device, &at, host, e))
        return false;
    a->device = (char *)(uintptr_t)at;
    return true;
}

static bool map_area(struct exchange *x, uint32_t rank, int fd, uint64_t bytes, struct err *e)
{
    struct exchange_area *a = &x->areas[rank];
    struct chunk_set set = { .kind = CHUNKS_EXCHANGE,
                             .group = x->setup.group,
                             .rank = rank,
                             .bytes = bytes,
                             .chunk_bytes = bytes,
                             .n = 1,
                             .n_there = 1,
                             .fds = &fd };

    if (bytes < ALL_REDUCE_AREA_BYTES)
        return err_set(e, ERR_PROTO, 0, "the area of rank %u has %llu bytes", rank,
                       (unsigned long long)bytes);
    if (x->path == EXCHANGE_HOST)
        return map_host(x, a, fd, e);
    if (!chunks_map(&a->chunks, x->device, &set, true, e))
        return false;
    a->device = (char *)(uintptr_t)a->chunks.base;
    return true;
}

/* A descriptor of memory for this rank's area; in *bytes, of how much.  -1 and *e. */
static int make_device_memory(struct exchange *x, uint64_t *bytes, struct err *e)
{
    struct chunk_set set = { .kind = CHUNKS_EXCHANGE,
                             .group = x->setup.group,
                             .rank = x->setup.rank };
    int fd = -1;

    if (chunks_plan(x->device, &set, ALL_REDUCE_AREA_BYTES, e) &&
        chunks_create(x->device, &set, CREATE_WAIT_NS, e)) {
        assert(set.n == 1);
        fd = set.fds[0];
        set.fds[0] = -1;
        *bytes = set.bytes;
    }
    chunk_set_fini(&set);
    return fd;
}

static int make_host_memory(uint64_t *bytes, struct err *e)
{
    int fd = memfd_create("llmd-exchange", MFD_CLOEXEC);

    *bytes = ALL_REDUCE_AREA_BYTES;
    if (fd >= 0 && ftruncate(fd, (off_t)ALL_REDUCE_AREA_BYTES) == 0)
        return fd;
    err_set(e, ERR_SYS, errno, "make memory between ranks");
    if (fd >= 0)
        close(fd);
    return -1;
}

/* ---- the test ---- */

static size_t test_offset(uint32_t writer)
{
    return offsetof(struct all_reduce_control, test) + writer * sizeof(uint32_t);
}

/* Copies of the driver for device memory; host memory is this process's own. */
static void put_test(struct exchange *x, struct device_stream *s, uint32_t owner, uint32_t writer)
{
    const struct exchange_area *a = &x->areas[owner];
    const uint32_t *from = &x->signals->written[owner];

    if (x->path == EXCHANGE_HOST)
        memcpy((char *)a->host + test_offset(writer), from, sizeof *from);
    else
        device_copy_in(s, (cu_ptr)(uintptr_t)a->device + test_offset(writer), from, sizeof *from);
}

static void get_test(struct exchange *x, struct device_stream *s, uint32_t owner, uint32_t writer,
                     uint32_t *to)
{
    const struct exchange_area *a = &x->areas[owner];

    if (x->path == EXCHANGE_HOST)
        memcpy(to, (char *)a->host + test_offset(writer), sizeof *to);
    else
        device_copy_out(s, to, (cu_ptr)(uintptr_t)a->device + test_offset(writer), sizeof *to);
}

/* What `writer` writes into the area of `owner`; never 0. */
static uint32_t pattern(const struct exchange *x, uint32_t owner, uint32_t writer)
{
    return (x->setup.epoch * 2654435761u ^ (owner << 8 | writer << 4)) | 1;
}

/* Make this rank's area with the pattern that peers are to read: all is done before a descriptor leaves. */
static bool prepare_own(struct exchange *x, struct device_stream *s, int *fd, uint64_t *bytes,
                        struct err *e)
{
    struct exchange_signals *h = x->signals;
    uint32_t me = x->setup.rank;

    *fd = x->path == EXCHANGE_P2P ? make_device_memory(x, bytes, e) : make_host_memory(bytes, e);
    if (*fd < 0 || !map_area(x, me, *fd, *bytes, e))
        return false;
    memset(&h->status, 0, sizeof h->status);
    h->written[me] = pattern(x, me, me);
    if (x->path == EXCHANGE_P2P) /* fresh host memory is zero */
        device_fill(s, (cu_ptr)(uintptr_t)x->areas[me].device, 0, ALL_REDUCE_STAGING_OFFSET);
    put_test(x, s, me, me);
    return device_stream_finish(s, STREAM_LIMIT_NS, e);
}

/* Write into every peer's area, and read there what its owner has written. */
static bool reach_peers(struct exchange *x, struct device_stream *s, struct err *e)
{
    struct exchange_signals *h = x->signals;
    uint32_t me = x->setup.rank;

    for (uint32_t r = 0; r < x->setup.tp_size; r++) {
        h->written[r] = pattern(x, r, me);
        if (r != me)
            put_test(x, s, r, me);
        get_test(x, s, r, r, &h->read[r]);
    }
    if (!device_stream_finish(s, STREAM_LIMIT_NS, e))
        return false;
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        if (h->read[r] != pattern(x, r, r))
            return err_set(e, ERR_DEVICE, 0, "rank %u does not read what rank %u has written", me,
                           r);
    return true;
}

/* Every peer has said that it has written here. */
static bool is_reached(struct exchange *x, struct device_stream *s, struct err *e)
{
    struct exchange_signals *h = x->signals;
    uint32_t me = x->setup.rank;

    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        get_test(x, s, me, r, &h->read[r]);
    if (!device_stream_finish(s, STREAM_LIMIT_NS, e))
        return false;
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        if (h->read[r] != pattern(x, me, r))
            return err_set(e, ERR_DEVICE, 0, "what rank %u writes does not come to rank %u", r, me);
    return true;
}

static float test_value(uint32_t rank, size_t i)
{
    return (float)(i % 97 + 1) * (float)(rank + 1);
}

/* The sums of known numbers. */
static bool kernel_works(struct exchange *x, struct device_stream *s, struct err *e)
{
    float *test = x->signals->test;
    float *on_device =
        (float *)(uintptr_t)(x->signals_at + offsetof(struct exchange_signals, test));
    uint32_t n_ranks = x->setup.tp_size, limit_us = x->group.spin_limit_us;

    for (size_t i = 0; i < EXCHANGE_TEST_FLOATS; i++)
        test[i] = test_value(x->setup.rank, i);
    x->group.spin_limit_us = TEST_SPIN_US;
    exchange_all_reduce(x, s, on_device, on_device, EXCHANGE_TEST_FLOATS, false);
    x->group.spin_limit_us = limit_us;
    if (!device_stream_finish(s, STREAM_LIMIT_NS, e) || !exchange_check(x, e))
        return false;
    for (size_t i = 0; i < EXCHANGE_TEST_FLOATS; i++)
        if (test[i] != test_value(n_ranks * (n_ranks + 1) / 2 - 1, i))
            return err_set(e, ERR_DEVICE, 0, "rank %u: wrong sums between ranks", x->setup.rank);
    return true;
}

/* ---- rounds ---- */

/* What a rank says in a round. */
struct word {
    uint64_t is_well; /* nothing has failed for this rank on this path */
    uint64_t area_bytes;
};

/* How the path stands for this rank. */
struct attempt {
    bool is_well;   /* here */
    bool all_well;  /* everywhere, as of the last round */
    bool is_tested; /* so far that others' memory was touched */
    struct err why; /* not well here */
};

/* fd: of this rank's area, or -1; fds [n_ranks]: of the others' (the caller's), or NULL. */
static bool round_of(struct exchange *x, struct attempt *a, int fd, uint64_t bytes,
                     struct word *words, int *fds, uint64_t deadline_ns, struct err *e)
{
    struct word mine = { a->is_well, bytes };

    if (!mesh_all_gather(&x->mesh, &mine, fd, words, fds, sizeof mine, deadline_ns, e))
        return false;
    a->all_well = true;
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        a->all_well = a->all_well && words[r].is_well;
    return true;
}

static bool say(struct exchange *x, struct attempt *a, uint64_t deadline_ns, struct err *e)
{
    struct word words[EXCHANGE_RANKS_MAX];

    return round_of(x, a, -1, 0, words, NULL, deadline_ns, e);
}

/* Round 1: hand out this rank's area, map the others'. */
static bool share(struct exchange *x, struct attempt *a, int fd, uint64_t bytes,
                  uint64_t deadline_ns, struct err *e)
{
    struct word words[EXCHANGE_RANKS_MAX];
    int fds[EXCHANGE_RANKS_MAX];

    if (!round_of(x, a, a->is_well ? fd : -1, bytes, words, fds, deadline_ns, e))
        return false;
    for (uint32_t r = 0; r < x->setup.tp_size; r++) {
        a->is_tested = a->is_tested || a->all_well;
        if (r != x->setup.rank && a->all_well && a->is_well)
            a->is_well = fds[r] >= 0 && map_area(x, r, fds[r], words[r].area_bytes, &a->why);
        if (fds[r] >= 0)
            close(fds[r]);
    }
    return true;
}

static void set_addresses(struct exchange *x)
{
    for (uint32_t r = 0; r < x->setup.tp_size; r++)
        x->group.areas[r] = x->areas[r].device;
}

/* The whole of it on x->path.  false: the group is broken; else a->all_well says whether the path is good. */
static bool try_path(struct exchange *x, struct device_stream *s, struct attempt *a,
                     uint64_t deadline_ns, struct err *e)
{
    uint64_t bytes = 0;
    int fd = -1;
    bool shared;

    a->is_well = prepare_own(x, s, &fd, &bytes, &a->why);
    shared = share(x, a, fd, bytes, deadline_ns, e);
    if (fd >= 0)
        close(fd);
    if (!shared || !a->all_well)
        return shared;
    set_addresses(x);
    a->is_well = a->is_well && reach_peers(x, s, &a->why);
    if (!say(x, a, deadline_ns, e))
        return false;
    if (!a->all_well)
        return true;
    a->is_well = is_reached(x, s, &a->why) && kernel_works(x, s, &a->why);
    return say(x, a, deadline_ns, e);
}

/* Why a path was not taken, where it is known. */
static void tell(const struct exchange *x, const struct attempt *a)
{
    log_info("exchange rank=%u path=%s refused=\"%s\"", x->setup.rank, exchange_path_name(x->path),
             a->is_well ? "by another rank" : a->why.msg);
}

/* A device that is dead, or does not end what it was given, is of no use to the other path. */
static bool is_dead(const struct exchange *x, const struct attempt *a)
{
    return !a->is_well && (device_fault(x->device) || a->why.code == ERR_TIMEOUT);
}

/* Without a word of the setting each start would end like this one.  Always false. */
static bool name_way_out(const struct attempt *p2p, struct err *e)
{
    return p2p->is_tested && err_wrap(e, "test of P2P, which gpu_exchange=host does without");
}

static bool try_p2p(struct exchange *x, struct device_stream *s, struct attempt *a,
                    uint64_t deadline_ns, struct err *e)
{
    x->path = EXCHANGE_P2P;
    if (!try_path(x, s, a, deadline_ns, e))
        return name_way_out(a, e);
    if (a->all_well)
        return true;
    if (is_dead(x, a)) {
        *e = a->why;
        return name_way_out(a, e);
    }
    tell(x, a);
    exchange_areas_close(x);
    return true;
}

/* p2p: what came of that.  A rank that it has killed does not come here. */
static bool try_host(struct exchange *x, struct device_stream *s, struct attempt *a,
                     const struct attempt *p2p, uint64_t deadline_ns, struct err *e)
{
    x->path = EXCHANGE_HOST;
    if (!try_path(x, s, a, deadline_ns, e))
        return name_way_out(p2p, e);
    if (a->all_well)
        return true;
    if (a->is_well)
        return err_set(e, ERR_DEVICE, 0, "another rank cannot exchange anything");
    *e = a->why;
    return false;
}

bool exchange_areas_open(struct exchange *x, uint64_t deadline_ns, struct err *e)
{
    struct device_stream s = { 0 };
    struct attempt p2p = { 0 }, host = { 0 };
    bool ok = device_stream_open(&s, x->device, 0, e);

    if (!x->setup.host_only)
        ok = ok && try_p2p(x, &s, &p2p, deadline_ns, e);
    if (!p2p.all_well)
        ok = ok && try_host(x, &s, &host, &p2p, deadline_ns, e);
    device_stream_close(&s);
    return ok;
}
