/* comm_shm.c - phases of a step counted in shared memory (proto/group_layout.h).
 *
 * All waits are one function: look at the peer's count, spin some tens of microseconds, then sleep with a
 * time limit.  Only after such a limit are the slow questions asked (is the peer's process still there?),
 * so they cost a healthy group nothing. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/mem.h"
#include "gpu-worker/comm/comm.h"
#include "gpu-worker/ops/aligned.h"
#include "gpu-worker/ops/futex.h"
#include "proto/group_layout.h"

enum { SPINS = 4000 }; /* some 40 microseconds of `pause` */

#define STEP_SLICE_NS (50 * 1000000ull)   /* within a step: peers owe us an answer */
#define IDLE_SLICE_NS (1000 * 1000000ull) /* between steps: only to notice an orphan's life */

/* Memory that is handed out from its beginning. */
struct region {
    char *base;
    uint64_t bytes, used;
};

struct comm {
    struct comm_shape shape;
    const struct comm_device *device; /* or NULL */
    uint32_t rank, epoch;
    uint32_t count; /* phases of this rank */
    struct segment segment;
    struct group_hdr *hdr;
    struct group_slot *slots;
    struct group_plan *plan;
    uint32_t *numbers;
    int32_t *tokens;
    struct group_seq *seqs;
    uint32_t *logit_rows, *pages;
    struct region activations, host;
    char *alone;                   /* a group of one rank has its buffers here */
    struct batch_seq *local_seqs;  /* [seqs_max] of comm_follow()'s batch */
    int peer_fds[GROUP_RANKS_MAX]; /* pidfds, opened when first doubted; -1 = not yet */
    _Atomic bool stop;
};

/* ---- layout ---- */

struct offsets {
    uint64_t numbers, tokens, seqs, logit_rows, pages, exchange, end;
};

/* Of buffers in host memory: first the activations, if they are there. */
static uint64_t activation_bytes(const struct comm_shape *s)
{
    return s->on_device ? 0 : s->activation_bytes;
}

static bool layout(const struct comm_shape *s, struct offsets *o)
{
    uint64_t n_pages, pages_bytes, at = GROUP_PLAN_OFFSET + sizeof(struct group_plan);

    o->numbers = at;
    o->tokens = o->numbers + GROUP_NUMBERS_MAX * sizeof(uint32_t);
    o->seqs = o->tokens + (uint64_t)s->rows_max * sizeof(int32_t);
    o->logit_rows = o->seqs + (uint64_t)s->seqs_max * sizeof(struct group_seq);
    o->pages = o->logit_rows + batch_logits_max(s->seqs_max) * sizeof(uint32_t);
    n_pages = (uint64_t)s->seqs_max * s->pages_max;
    if (__builtin_mul_overflow(n_pages, sizeof(uint32_t), &pages_bytes) ||
        __builtin_add_overflow(o->pages, pages_bytes + 4096, &o->exchange) ||
        pages_bytes > UINT64_MAX - 4096)
        return false;
    o->exchange = o->exchange / 4096 * 4096;
    return !__builtin_add_overflow(o->exchange, activation_bytes(s), &o->end) &&
           !__builtin_add_overflow(o->end, s->host_bytes, &o->end);
}

uint64_t comm_group_bytes(const struct comm_shape *shape)
{
    struct offsets o;

    if (shape->tp_size == 1)
        return GROUP_SLOTS_OFFSET;
    return layout(shape, &o) ? o.end : UINT64_MAX;
}

/* ---- waiting ---- */

static void ring(struct group_slot *slot)
{
    atomic_fetch_add(&slot->bell, 1);
    futex_wake(&slot->bell, INT32_MAX);
}

static void ring_all(struct comm *c)
{
    for (uint32_t r = 0; r < c->shape.tp_size; r++)
        if (r != c->rank)
            ring(&c->slots[r]);
}

static void arrive(struct comm *c)
{
    c->count++;
    atomic_store(&c->slots[c->rank].arrived, (uint64_t)c->epoch << 32 | c->count);
    for (uint32_t r = 0; r < c->shape.tp_size; r++)
        if (r != c->rank && atomic_load(&c->slots[r].asleep))
            ring(&c->slots[r]);
}

static bool has_arrived(const struct comm *c, uint32_t peer)
{
    uint64_t v = atomic_load(&c->slots[peer].arrived);

    return v >> 32 == c->epoch && (int32_t)((uint32_t)v - c->count) >= 0;
}

/* What one look at shared memory can tell. */
static bool peer_is_lost(const struct comm *c, uint32_t peer, struct err *e)
{
    uint32_t newest = atomic_load(&c->hdr->epoch);

    if (newest != c->epoch)
        return !err_set(e, ERR_DEVICE, 0, "rank %u: the group is in epoch %u, this rank in %u",
                        c->rank, newest, c->epoch);
    if (atomic_load(&c->hdr->abort_epoch) == c->epoch)
        return !err_set(e, ERR_DEVICE, 0, "rank %u: another rank has given up the step", c->rank);
    if (atomic_load(&c->slots[peer].gone_epoch) == c->epoch)
        return !err_set(e, ERR_DEVICE, 0, "rank %u: rank %u has left the group", c->rank, peer);
    return false;
}

/* Ask the kernel.  A process that has exited counts as dead before anybody has reaped it. */
static bool peer_is_dead(struct comm *c, uint32_t peer, struct err *e)
{
    uint32_t pid = atomic_load(&c->slots[peer].pid);
    struct pollfd p = { .events = POLLIN };
    bool dead;

    if (atomic_load(&c->slots[peer].arrived) >> 32 != c->epoch)
        return false; /* has not joined yet */
    if (c->peer_fds[peer] < 0)
        c->peer_fds[peer] = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (c->peer_fds[peer] < 0 && errno != ESRCH)
        return false; /* cannot tell; llmd watches too */
    p.fd = c->peer_fds[peer];
    dead = p.fd < 0 || poll(&p, 1, 0) > 0;
    if (dead)
        err_set(e, ERR_DEVICE, 0, "rank %u: rank %u (process %u) is dead", c->rank, peer, pid);
    return dead;
}

static bool stop_is_asked(const struct comm *c)
{
    return atomic_load(&c->stop) || atomic_load(&c->hdr->stop_epoch) == c->epoch;
}

enum wait_result { WAIT_ARRIVED, WAIT_STOP, WAIT_LOST };

/* Until `peer` has arrived at this rank's count.  idle: no step is under way, and it may be ended. */
static enum wait_result wait_for(struct comm *c, uint32_t peer, bool idle, struct err *e)
{
    struct group_slot *me = &c->slots[c->rank];

    for (int i = 0; i < SPINS; i++) {
        if (has_arrived(c, peer))
            return WAIT_ARRIVED;
        cpu_relax();
    }
    for (bool slept = false;; slept = true) {
        uint32_t bell;
        atomic_store(&me->asleep, 1);
        bell = atomic_load(&me->bell);
        if (has_arrived(c, peer) || (idle && stop_is_asked(c)) || peer_is_lost(c, peer, e) ||
            (slept && peer_is_dead(c, peer, e)))
            break;
        futex_wait(&me->bell, bell, idle ? IDLE_SLICE_NS : STEP_SLICE_NS);
    }
    atomic_store(&me->asleep, 0);
    if (has_arrived(c, peer))
        return WAIT_ARRIVED;
    if (idle && stop_is_asked(c))
        return WAIT_STOP;
    atomic_store(&c->hdr->abort_epoch, c->epoch);
    ring_all(c);
    return WAIT_LOST;
}

static bool wait_for_all(struct comm *c, struct err *e)
{
    for (uint32_t r = 0; r < c->shape.tp_size; r++)
        if (r != c->rank && wait_for(c, r, false, e) != WAIT_ARRIVED)
            return false;
    return true;
}

/* ---- joining and leaving ---- */

static bool join(struct comm *c, struct err *e)
{
    struct group_slot *me = &c->slots[c->rank];
    uint32_t newest = atomic_load(&c->hdr->epoch);

    if (c->epoch == 0)
        return err_set(e, ERR_PROTO, 0, "group segment: epochs begin at 1");
    while (newest < c->epoch && !atomic_compare_exchange_weak(&c->hdr->epoch, &newest, c->epoch))
        ;
    if (newest > c->epoch)
        return err_set(e, ERR_PROTO, 0, "group segment: epoch %u has begun, this rank is of %u",
                       newest, c->epoch);
    atomic_store(&me->pid, (uint32_t)getpid());
    atomic_store(&me->gone_epoch, 0);
    atomic_store(&me->asleep, 0);
    atomic_store(&me->arrived, (uint64_t)c->epoch << 32);
    return true;
}

/* base: of the buffers in host memory. */
static void place_buffers(struct comm *c, char *base)
{
    uint64_t first = activation_bytes(&c->shape);

    c->activations = (struct region){ .base = base, .bytes = first };
    c->host = (struct region){ .base = base + first, .bytes = c->shape.host_bytes };
}

static bool attach(struct comm *c, int fd, struct err *e)
{
    struct offsets o;

    if (!segment_attach(&c->segment, fd, SEGMENT_GROUP, GROUP_VERSION, true, e))
        return false;
    if (!layout(&c->shape, &o) || o.end > c->segment.bytes)
        return err_set(e, ERR_PROTO, 0, "group segment has %zu bytes, these settings need %llu",
                       c->segment.bytes, (unsigned long long)comm_group_bytes(&c->shape));
    c->hdr = (struct group_hdr *)c->segment.hdr;
    c->slots = segment_at(&c->segment, GROUP_SLOTS_OFFSET);
    c->plan = segment_at(&c->segment, GROUP_PLAN_OFFSET);
    c->numbers = segment_at(&c->segment, o.numbers);
    c->tokens = segment_at(&c->segment, o.tokens);
    c->seqs = segment_at(&c->segment, o.seqs);
    c->logit_rows = segment_at(&c->segment, o.logit_rows);
    c->pages = segment_at(&c->segment, o.pages);
    place_buffers(c, (char *)c->segment.hdr + o.exchange);
    return join(c, e);
}

static bool alloc_on_device(struct comm *c, struct err *e)
{
    if (!c->device)
        return true;
    c->activations = (struct region){ .bytes = c->shape.activation_bytes };
    c->activations.base = c->device->alloc(c->device->ctx, c->activations.bytes, e);
    return c->activations.base != NULL;
}

struct comm *comm_open(int fd, const struct comm_shape *shape, const struct comm_device *device,
                       uint32_t rank, uint32_t epoch, struct err *e)
{
    struct comm *c = mem_zalloc(1, sizeof *c);

    assert(shape->tp_size >= 1 && shape->tp_size <= GROUP_RANKS_MAX && rank < shape->tp_size);
    assert(shape->on_device == (device != NULL));
    c->shape = *shape;
    c->device = device;
    c->rank = rank;
    c->epoch = epoch;
    c->segment.fd = -1;
    for (uint32_t r = 0; r < GROUP_RANKS_MAX; r++)
        c->peer_fds[r] = -1;
    if (shape->tp_size == 1) {
        if (fd >= 0)
            close(fd);
        c->alone = aligned_mem(64, activation_bytes(shape) + shape->host_bytes);
        place_buffers(c, c->alone);
    } else
        c->local_seqs = mem_zalloc(shape->seqs_max, sizeof *c->local_seqs);
    if ((shape->tp_size == 1 || attach(c, fd, e)) && alloc_on_device(c, e))
        return c;
    comm_close(c);
    return NULL;
}

void comm_close(struct comm *c)
{
    if (!c)
        return;
    if (c->slots && atomic_load(&c->hdr->epoch) == c->epoch) {
        atomic_store(&c->slots[c->rank].gone_epoch, c->epoch);
        ring_all(c);
    }
    for (uint32_t r = 0; r < GROUP_RANKS_MAX; r++)
        if (c->peer_fds[r] >= 0)
            close(c->peer_fds[r]);
    free(c->alone);
    segment_close(&c->segment);
    free(c->local_seqs);
    free(c);
}

/* ---- steps ---- */

static void *take(struct region *r, size_t bytes)
{
    char *p = r->base + r->used;

    bytes = (bytes + 63) / 64 * 64;
    assert(bytes <= r->bytes - r->used);
    r->used += bytes;
    return p;
}

void *comm_alloc(struct comm *c, size_t bytes)
{
    return take(&c->activations, bytes);
}

void *comm_alloc_host(struct comm *c, size_t bytes)
{
    return take(&c->host, bytes);
}

bool comm_join_host(struct comm *c, struct err *e)
{
    if (c->shape.tp_size == 1)
        return true;
    arrive(c);
    return wait_for_all(c, e);
}

/* Rank 0's decision for the step, which is told here too. */
static uint32_t decide(const struct comm *c)
{
    uint32_t answer = c->device ? c->device->ask(c->device->ctx) : 0;

    if (c->device)
        c->device->tell(c->device->ctx, answer);
    return answer;
}

static bool is_in(const struct region *r, const void *p)
{
    return (const char *)p >= r->base && (const char *)p < r->base + r->used;
}

bool comm_all_gather(struct comm *c, void *buf, const struct comm_columns *columns, struct err *e)
{
    assert(is_in(&c->activations, buf));
    if (c->device && c->shape.tp_size > 1)
        return c->device->gather(c->device->ctx, buf, columns, e);
    return comm_join_host(c, e);
}

bool comm_join_rows(struct comm *c, void *buf, uint32_t n_rows, uint32_t width, struct err *e)
{
    assert(is_in(&c->activations, buf));
    if (c->device && c->shape.tp_size > 1)
        return c->device->sum(c->device->ctx, buf, (size_t)n_rows * width, e);
    return comm_join_host(c, e);
}

bool comm_add_sums(struct comm *c, void *x, void *y, size_t n, struct err *e)
{
    assert(c->device && c->shape.tp_size > 1);
    assert(is_in(&c->activations, x) && is_in(&c->activations, y));
    return c->device->add_sum(c->device->ctx, x, y, n, e);
}

bool comm_publish(struct comm *c, const struct batch *b, struct err *e)
{
    uint32_t n_pages = 0;

    if (c->shape.tp_size == 1)
        return true;
    assert(c->rank == 0 && b->n_rows <= c->shape.rows_max && b->n_seqs <= c->shape.seqs_max &&
           b->n_logits <= batch_logits_max(b->n_seqs));
    if (peer_is_lost(c, 0, e))
        return false;
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &b->seqs[i];
        assert(q->n_pages <= c->shape.pages_max);
        c->seqs[i] = (struct group_seq){ q->first_row, q->n_rows, q->start, q->n_pages, n_pages };
        memcpy(c->pages + n_pages, q->pages, q->n_pages * sizeof *q->pages);
        n_pages += q->n_pages;
    }
    memcpy(c->tokens, b->tokens, b->n_rows * sizeof *b->tokens);
    if (b->n_logits > 0)
        memcpy(c->logit_rows, b->logit_rows, b->n_logits * sizeof *b->logit_rows);
    *c->plan = (struct group_plan){ .n_rows = b->n_rows,
                                    .n_seqs = b->n_seqs,
                                    .n_logits = b->n_logits,
                                    .n_pages = n_pages,
                                    .decision = decide(c) };
    arrive(c);
    return true;
}

static_assert((int)COMM_NUMBERS_MAX == (int)GROUP_NUMBERS_MAX, "an order fits the segment");

bool comm_publish_order(struct comm *c, const struct comm_order *o, struct err *e)
{
    if (c->shape.tp_size == 1)
        return true;
    assert(c->rank == 0 && o->n <= COMM_NUMBERS_MAX);
    if (peer_is_lost(c, 0, e))
        return false;
    if (o->n > 0)
        memcpy(c->numbers, o->numbers, o->n * sizeof *o->numbers);
    *c->plan = (struct group_plan){ .what = o->what, .argument = o->argument, .n_numbers = o->n };
    arrive(c);
    return true;
}

/* The plan is rank 0's, of the same build and settings; that it is within the arrays is checked all the
 * same, since it crossed a process. */
static bool read_plan(struct comm *c, struct batch *b, struct err *e)
{
    struct group_plan p = *c->plan;
    uint64_t pages_max = (uint64_t)c->shape.seqs_max * c->shape.pages_max;

    if (p.n_rows > c->shape.rows_max || p.n_seqs > c->shape.seqs_max ||
        p.n_logits > batch_logits_max(p.n_seqs) || p.n_pages > pages_max)
        return err_set(e, ERR_PROTO, 0,
                       "group plan of %u rows, %u sequences, %u pages is too large", p.n_rows,
                       p.n_seqs, p.n_pages);
    for (uint32_t i = 0; i < p.n_seqs; i++) {
        struct group_seq q = c->seqs[i];
        if (q.first_page > p.n_pages || q.n_pages > p.n_pages - q.first_page)
            return err_set(e, ERR_PROTO, 0, "group plan: pages of sequence %u", i);
        c->local_seqs[i] = (struct batch_seq){ q.first_row, q.n_rows, q.start, q.n_pages,
                                               c->pages + q.first_page };
    }
    if (c->device)
        c->device->tell(c->device->ctx, p.decision);
    *b = (struct batch){ p.n_rows,   c->tokens,     p.n_seqs, c->local_seqs,
                         p.n_logits, c->logit_rows, false };
    return true;
}

static enum comm_event read_order(const struct comm *c, struct comm_order *o, struct err *e)
{
    struct group_plan p = *c->plan;

    if (p.n_numbers > COMM_NUMBERS_MAX) {
        err_set(e, ERR_PROTO, 0, "group order of %u numbers is too large", p.n_numbers);
        return COMM_FAILED;
    }
    *o = (struct comm_order){ p.what, p.argument, p.n_numbers, c->numbers };
    return COMM_ORDER;
}

enum comm_event comm_follow(struct comm *c, struct batch *b, struct comm_order *o, struct err *e)
{
    assert(c->rank > 0);
    arrive(c);
    switch (wait_for(c, 0, true, e)) {
    case WAIT_ARRIVED:
        if (c->plan->n_rows == 0)
            return read_order(c, o, e);
        return read_plan(c, b, e) ? COMM_STEP : COMM_FAILED;
    case WAIT_STOP:
        return COMM_STOP;
    default:
        return COMM_FAILED;
    }
}

void comm_stop(struct comm *c)
{
    atomic_store(&c->stop, true);
    if (c->shape.tp_size == 1)
        return;
    if (c->rank == 0) {
        atomic_store(&c->hdr->stop_epoch, c->epoch);
        ring_all(c);
    }
    ring(&c->slots[c->rank]);
}
