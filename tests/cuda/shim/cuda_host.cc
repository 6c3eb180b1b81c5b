/* cuda_host.cc - the threads of blocks, who of them may go on, and what ends the process.
 *
 *   engine     one a thread of the system: its launch, its fibers, and who is ready
 *   block      its shared memory, its barrier, its warps
 *   warp       what its lanes show each other: two sets, for a fast lane may be one operation ahead
 *
 *   ready ----> running ----> at a barrier, at a warp operation ----(the last one came)----> ready
 *     ^           |   |
 *     |           |   +-----> returned: the last of a block ends the block
 *     +-- spinning (pause)
 *
 * The next thread is one that is ready.  When none is and some spin, they spin again; every few rounds another
 * block of the launch joins in, for it may be the one they wait for.  When nobody is ready or spinning while
 * threads still wait, they wait for ever: a deadlock.
 *
 * This file is not instrumented for ThreadSanitizer: it tells it about every order that a GPU gives, and none
 * that is due to fibers. */
#include "tests/cuda/shim/cuda_host.h"

#include <cassert>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <memory>
#include <pthread.h>
#include <sched.h>
#include <string>
#include <utility>
#include <vector>

#include "tests/cuda/shim/fiber.h"
#include "tests/cuda/shim/sanitizers.h"

namespace cuda_host
{

enum {
    WARP = 32,
    BLOCK_THREADS_MAX = 1024,
    STACK_BYTES = 256 << 10,
#ifdef SHIM_TSAN /* which knows some 8000 threads in all */
    TOGETHER_MAX = 1024,
#else
    TOGETHER_MAX = 16384, /* threads of blocks that wait for each other */
#endif
    GUARDED_MAX = 1024,           /* fibers of an engine with a guard page */
    ROUNDS_A_BLOCK = 8,           /* of spinning, before another block joins in */
    SHARED_STATIC_MAX = 48 << 10, /* what every GPU has without asking */
    SHARED_MAX = 227 << 10,       /* of sm_90 */
    STATES_SHOWN = 12,
};

struct copy {
    void *to;
    const void *from;
    bool zeros;
};

enum thread_state { READY, RUNNING, AT_BARRIER, AT_WARP_OP, SPINNING, RETURNED };

struct block;
struct engine;
struct warp;

struct thread {
    struct place at;
    struct fiber *fiber;
    struct engine *engine;
    struct block *block;
    struct warp *warp;
    enum thread_state state;
    std::deque<copy> copies;        /* in flight, oldest first */
    std::deque<size_t> group_sizes; /* of committed groups; what is left of copies is open */
    size_t n_open;
};

struct warp {
    struct shown shown[2][WARP]; /* by parity of phase */
    char order[2];               /* for the race detector: their addresses */
    struct thread **lanes;
    uint32_t arrived, returned, phase;
    enum warp_op op;
};

struct shared {
    const void *key;
    void *data;
};

struct block {
    std::vector<thread *> threads;
    std::vector<warp> warps;
    std::vector<shared> arrays;
    size_t arrays_bytes;
    void *dynamic;
    uint32_t live, arrived, phase;
    uint32_t votes[2]; /* by parity of phase */
    char order[2];
    const char *file; /* of the barrier that threads are at */
    int line;
};

struct engine {
    struct fiber *home = nullptr; /* shim_run() is there */
    const struct shim_kernel *kernel = nullptr;
    const struct shim_launch *launch = nullptr;
    const void *args = nullptr;
    std::vector<thread *> idle;
    std::deque<thread *> ready;
    std::vector<thread *> spinning;
    std::vector<block *> active;
    std::vector<uint32_t> shuffled; /* blocks, when their order is random */
    uint64_t n_blocks = 0, next_block = 0;
    uint64_t n_met = 0;      /* barriers and warp operations of the launch that were complete */
    uint32_t n_threads = 0;  /* there are */
    uint32_t n_together = 0; /* of active blocks */
    uint32_t turn = 0, launch_turn = 0, idle_rounds = 0;
    uint64_t random_state = 0;
    enum shim_order order = SHIM_FORWARD;
    char begun, ended; /* for the race detector */

    ~engine();
};

__thread const struct place *here;
static __thread struct thread *running;
static thread_local std::unique_ptr<engine> engine_of_thread;

static char fence_order;

/* ---- saying what is wrong ---- */

void fail(const char *format, ...)
{
    va_list args;

    fflush(stdout);
    fprintf(stderr, "cuda_host: ");
    if (running)
        fprintf(stderr, "kernel %s, block %u,%u,%u, thread %u: ", running->engine->kernel->name,
                running->at.block.x, running->at.block.y, running->at.block.z,
                running->at.thread.x);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

static std::string describe_wait(const struct thread *t)
{
    char line[160];

    if (t->state == AT_BARRIER)
        snprintf(line, sizeof line, "\n  thread %u of block %u waits at the barrier %s:%d",
                 t->at.thread.x, t->at.block.x, t->block->file, t->block->line);
    else
        snprintf(line, sizeof line,
                 "\n  thread %u of block %u waits at a warp operation, with %u of %u lanes",
                 t->at.thread.x, t->at.block.x, t->warp->arrived, (uint32_t)WARP);
    return line;
}

[[noreturn]] static void fail_deadlock(const struct engine *e)
{
    std::string waits;
    uint32_t n = 0;

    for (const struct block *b : e->active)
        for (const struct thread *t : b->threads)
            if ((t->state == AT_BARRIER || t->state == AT_WARP_OP) && n++ < STATES_SHOWN)
                waits += describe_wait(t);
    running = nullptr;
    fail("deadlock in kernel %s: %u threads wait and none can go on%s", e->kernel->name, n,
         waits.c_str());
}

/* ---- order ---- */

static uint64_t next_random(struct engine *e)
{
    uint64_t z = e->random_state += 0x9e3779b97f4a7c15u; /* SplitMix64 */

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* The k-th of n that come together, where `turn` is the first one's place in a rotation. */
static uint64_t ordered(const struct engine *e, uint64_t k, uint64_t n, uint32_t turn)
{
    if (e->order == SHIM_REVERSE)
        return n - 1 - k;
    if (e->order == SHIM_ROTATED)
        return (k + turn) % n;
    return k;
}

static void make_ready(struct thread *t)
{
    t->state = READY;
    t->engine->ready.push_back(t);
}

/* Those of `threads` that are in `state`. */
static void make_all_ready(struct engine *e, struct thread *const *threads, uint32_t n,
                           enum thread_state state)
{
    e->turn += 7;
    for (uint32_t k = 0; k < n; k++) {
        struct thread *t = threads[ordered(e, k, n, e->turn)];
        if (t->state == state)
            make_ready(t);
    }
}

static struct thread *take_ready(struct engine *e)
{
    struct thread *t;

    if (e->order == SHIM_EAGER) {
        t = e->ready.back();
        e->ready.pop_back();
        return t;
    }
    if (e->order == SHIM_RANDOM)
        std::swap(e->ready.front(), e->ready[next_random(e) % e->ready.size()]);
    t = e->ready.front();
    e->ready.pop_front();
    return t;
}

/* ---- blocks ---- */

static void thread_main(void *arg);

static struct thread *thread_new(struct engine *e)
{
    struct thread *t = new thread();

    t->engine = e;
    t->fiber = fiber_new(STACK_BYTES, e->n_threads++ < GUARDED_MAX, thread_main, t);
    if (!t->fiber)
        fail("no memory for the stack of a thread");
    return t;
}

static void *undefined_memory(size_t bytes)
{
    void *p = nullptr;

    if (posix_memalign(&p, 128, bytes))
        fail("no memory for %zu bytes of shared memory", bytes);
    memset(p, 0xff, bytes);
    return p;
}

static void place_thread(struct thread *t, struct block *b, const struct index3 *at, uint32_t i)
{
    const struct shim_launch *l = t->engine->launch;

    t->at = { { i, 0, 0 },
              *at,
              { l->block[0], l->block[1], l->block[2] },
              { l->grid[0], l->grid[1], l->grid[2] } };
    t->block = b;
    t->warp = &b->warps[i / WARP];
    t->state = RETURNED; /* until made ready */
    t->n_open = 0;
}

static struct index3 next_block_index(struct engine *e)
{
    const uint32_t *grid = e->launch->grid;
    uint64_t i = ordered(e, e->next_block++, e->n_blocks, e->launch_turn);

    if (e->order == SHIM_RANDOM)
        i = e->shuffled[i];
    return { (uint32_t)(i % grid[0]), (uint32_t)(i / grid[0] % grid[1]),
             (uint32_t)(i / ((uint64_t)grid[0] * grid[1])) };
}

static void start_block(struct engine *e)
{
    unwatched shim;
    uint32_t n = e->launch->block[0];
    struct index3 at = next_block_index(e);
    struct block *b = new block();

    b->warps.resize(n / WARP);
    b->live = n;
    for (uint32_t i = 0; i < n; i++) {
        if (e->idle.empty())
            e->idle.push_back(thread_new(e));
        b->threads.push_back(e->idle.back());
        e->idle.pop_back();
        place_thread(b->threads[i], b, &at, i);
    }
    for (uint32_t i = 0; i < n / WARP; i++)
        b->warps[i].lanes = &b->threads[i * WARP];
    if (e->launch->shared_bytes > 0)
        b->dynamic = undefined_memory(e->launch->shared_bytes);
    e->active.push_back(b);
    e->n_together += n;
    make_all_ready(e, b->threads.data(), n, RETURNED);
}

/* Its threads are idle again; the caller may be one of them. */
static void end_block(struct engine *e, struct block *b)
{
    unwatched shim;

    for (const struct shared &s : b->arrays)
        free(s.data);
    free(b->dynamic);
    for (size_t i = b->threads.size(); i-- > 0;)
        e->idle.push_back(b->threads[i]);
    e->n_together -= (uint32_t)b->threads.size();
    for (size_t i = 0; i < e->active.size(); i++)
        if (e->active[i] == b) {
            e->active.erase(e->active.begin() + (ptrdiff_t)i);
            break;
        }
    delete b;
}

/* ---- who runs ---- */

/* All that could go on wait for somebody else, perhaps in another process. */
static void give_way(struct engine *e)
{
    const struct timespec a_moment = { 0, 50000 };

    if (++e->idle_rounds % 64)
        sched_yield();
    else
        nanosleep(&a_moment, nullptr);
}

static bool another_may_join(const struct engine *e)
{
    return e->n_together + e->launch->block[0] <= TOGETHER_MAX &&
           e->idle_rounds % ROUNDS_A_BLOCK == ROUNDS_A_BLOCK - 1;
}

/* NULL: the launch is done. */
static struct thread *next_thread(struct engine *e)
{
    unwatched shim;

    while (e->ready.empty()) {
        bool more = e->next_block < e->n_blocks;
        if (e->active.empty() && !more)
            return nullptr;
        if (!e->active.empty() && e->spinning.empty())
            fail_deadlock(e);
        if (more && (e->active.empty() || another_may_join(e))) {
            e->idle_rounds++;
            start_block(e);
            continue;
        }
        give_way(e);
        make_all_ready(e, e->spinning.data(), (uint32_t)e->spinning.size(), SPINNING);
        e->spinning.clear();
    }
    return take_ready(e);
}

static void run_thread(struct thread *t)
{
    running = t;
    here = t ? &t->at : nullptr;
    if (t)
        t->state = RUNNING;
}

/* The caller, which runs, lets the next one run; returns when it runs again. */
static void leave(struct thread *self)
{
    struct engine *e = self->engine;
    struct thread *next = next_thread(e);

    run_thread(next);
    if (next != self)
        fiber_switch(self->fiber, next ? next->fiber : e->home);
}

static void wait_in(struct thread *self, enum thread_state state)
{
    self->state = state;
    leave(self);
}

/* ---- copies in flight ---- */

void cp_async(void *to, const void *from, bool zeros)
{
    unwatched shim;

    running->copies.push_back({ to, from, zeros });
    running->n_open++;
}

void cp_async_commit()
{
    unwatched shim;

    running->group_sizes.push_back(running->n_open);
    running->n_open = 0;
}

static void finish_copies(struct thread *t, size_t n)
{
    for (; n > 0; n--) {
        struct copy c = t->copies.front();
        watch_copy(c.to, c.zeros ? nullptr : c.from, 16);
        if (c.zeros)
            memset(c.to, 0, 16);
        else
            memcpy(c.to, c.from, 16);
        unwatched shim;
        t->copies.pop_front();
    }
}

void cp_async_wait(size_t n_pending)
{
    while (running->group_sizes.size() > n_pending) {
        size_t n = running->group_sizes.front();
        finish_copies(running, n);
        unwatched shim;
        running->group_sizes.pop_front();
    }
}

/* ---- barriers and warp operations ---- */

static void tell_met(struct engine *e)
{
    e->n_met++;
    if (e->launch->met)
        e->launch->met(e->launch->met_ctx, e->n_met);
}

static void release_barrier(struct engine *e, struct block *b)
{
    tell_met(e);
    unwatched shim;

    b->arrived = 0;
    b->phase++;
    make_all_ready(e, b->threads.data(), (uint32_t)b->threads.size(), AT_BARRIER);
}

static void check_barrier(struct block *b, const char *file, int line)
{
    if (b->arrived > 0 && (b->line != line || strcmp(b->file, file)))
        fail("at the barrier %s:%d while %u threads of the block wait at %s:%d", file, line,
             b->arrived, b->file, b->line);
    b->file = file;
    b->line = line;
}

uint32_t barrier(const char *file, int line, bool p)
{
    struct thread *t = running;
    struct block *b = t->block;
    uint32_t set = b->phase & 1;

    check_barrier(b, file, line);
    if (b->arrived == 0)
        b->votes[set] = 0;
    b->votes[set] += p;
    order_release(&b->order[set]);
    if (++b->arrived == b->live)
        release_barrier(t->engine, b);
    else
        wait_in(t, AT_BARRIER);
    order_acquire(&b->order[set]);
    return b->votes[set];
}

static const char *warp_op_name(enum warp_op op)
{
    static const char *const names[N_WARP_OPS] = { "k_syncwarp", "a shuffle", "a vote",
                                                   "k_ldmatrix", "k_mma" };
    return names[op];
}

static void check_warp_op(const struct warp *w, enum warp_op op)
{
    if (w->returned > 0)
        fail("at %s of a warp of which %u lanes have returned", warp_op_name(op), w->returned);
    if (w->arrived > 0 && w->op != op)
        fail("at %s while other lanes of the warp wait at %s", warp_op_name(op),
             warp_op_name(w->op));
}

static void release_warp(struct engine *e, struct warp *w)
{
    tell_met(e);
    unwatched shim;

    w->arrived = 0;
    w->phase++;
    make_all_ready(e, w->lanes, WARP, AT_WARP_OP);
}

const struct shown *exchange(enum warp_op op, struct shown mine)
{
    struct thread *t = running;
    struct warp *w = t->warp;
    uint32_t set = w->phase & 1;

    check_warp_op(w, op);
    w->op = op;
    w->shown[set][t->at.thread.x % WARP] = mine;
    order_release(&w->order[set]);
    if (++w->arrived == WARP)
        release_warp(t->engine, w);
    else
        wait_in(t, AT_WARP_OP);
    order_acquire(&w->order[set]);
    return w->shown[set];
}

void pause()
{
    {
        unwatched shim;
        running->engine->spinning.push_back(running);
    }
    wait_in(running, SPINNING);
}

void fence()
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    order_release(&fence_order);
    order_acquire(&fence_order);
}

uint64_t clock_ns()
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- shared memory ---- */

void *shared_array(const void *key, size_t bytes)
{
    unwatched shim;
    struct block *b = running->block;

    for (const struct shared &s : b->arrays)
        if (s.key == key)
            return s.data;
    b->arrays_bytes += bytes;
    if (b->arrays_bytes > SHARED_STATIC_MAX)
        fail("%zu bytes of static shared memory; at most %d", b->arrays_bytes, SHARED_STATIC_MAX);
    b->arrays.push_back({ key, undefined_memory(bytes) });
    return b->arrays.back().data;
}

void *shared_dynamic()
{
    if (!running->block->dynamic)
        fail("dynamic shared memory, of which the launch has none");
    return running->block->dynamic;
}

/* ---- the life of a thread, and of a launch ---- */

static void return_thread(struct thread *t)
{
    struct engine *e = t->engine;
    struct block *b = t->block;

    finish_copies(t, t->copies.size());
    order_release(&e->ended);
    t->group_sizes.clear();
    t->state = RETURNED;
    if (t->warp->arrived > 0)
        fail("returned while %u lanes of its warp wait at %s", t->warp->arrived,
             warp_op_name(t->warp->op));
    t->warp->returned++;
    if (--b->live == 0)
        end_block(e, b);
    else if (b->arrived == b->live)
        release_barrier(e, b);
    leave(t);
}

static void thread_main(void *arg)
{
    struct thread *t = (struct thread *)arg;

    for (;;) {
        order_acquire(&t->engine->begun);
        t->engine->kernel->run(t->engine->args);
        return_thread(t);
    }
}

engine::~engine()
{
    for (struct thread *t : idle) {
        fiber_free(t->fiber);
        delete t;
    }
    fiber_free(home);
}

static void check_launch(const struct shim_kernel *k, const struct shim_launch *l)
{
    if (l->block[0] != k->threads || l->block[1] != 1 || l->block[2] != 1)
        fail("kernel %s has blocks of %u threads, not %u x %u x %u", k->name, k->threads,
             l->block[0], l->block[1], l->block[2]);
    if (!l->grid[0] || !l->grid[1] || !l->grid[2] || l->grid[0] > INT32_MAX ||
        l->grid[1] > UINT16_MAX || l->grid[2] > UINT16_MAX)
        fail("kernel %s: no GPU takes a grid of %u x %u x %u", k->name, l->grid[0], l->grid[1],
             l->grid[2]);
    if (l->shared_bytes > SHARED_MAX)
        fail("kernel %s: %u bytes of shared memory", k->name, l->shared_bytes);
}

struct order_choice {
    enum shim_order order;
    uint64_t seed;
};

static struct order_choice order_from_environment()
{
    const char *text = getenv("LLMD_SHIM_ORDER");
    struct order_choice choice = { SHIM_FORWARD, 1 };

    if (!text)
        return choice;
    for (int i = 0; i < N_SHIM_ORDERS; i++) {
        const char *name = shim_order_name((enum shim_order)i);
        size_t n = strlen(name);
        if (strncmp(text, name, n) || (text[n] != '\0' && text[n] != ':'))
            continue;
        choice.order = (enum shim_order)i;
        if (text[n] == ':')
            choice.seed = strtoull(text + n + 1, nullptr, 0);
        return choice;
    }
    fail("LLMD_SHIM_ORDER is '%s', which is no order", text);
}

static pthread_mutex_t choice_lock = PTHREAD_MUTEX_INITIALIZER;
static struct order_choice choice;
static bool is_chosen;

static struct order_choice chosen_order()
{
    struct order_choice c;

    pthread_mutex_lock(&choice_lock);
    if (!is_chosen)
        choice = order_from_environment();
    is_chosen = true;
    c = choice;
    pthread_mutex_unlock(&choice_lock);
    return c;
}

static void begin_order(struct engine *e)
{
    struct order_choice c = chosen_order();

    if (c.order == SHIM_RANDOM && e->random_state == 0)
        e->random_state = c.seed;
    e->order = c.order;
    e->launch_turn = e->turn;
    e->shuffled.clear();
    if (c.order != SHIM_RANDOM)
        return;
    for (uint64_t i = 0; i < e->n_blocks; i++)
        e->shuffled.push_back((uint32_t)i);
    for (uint64_t i = e->n_blocks; i > 1; i--)
        std::swap(e->shuffled[i - 1], e->shuffled[next_random(e) % i]);
}

static struct engine *own_engine()
{
    if (!engine_of_thread) {
        engine_of_thread.reset(new engine());
        engine_of_thread->home = fiber_of_caller();
    }
    return engine_of_thread.get();
}

static void run(struct engine *e)
{
    struct thread *first;

    e->next_block = e->n_met = 0;
    e->n_blocks = (uint64_t)e->launch->grid[0] * e->launch->grid[1] * e->launch->grid[2];
    begin_order(e);
    first = next_thread(e);
    order_release(&e->begun);
    run_thread(first);
    fiber_switch(e->home, first->fiber);
    order_acquire(&e->ended);
}

/* ---- the registry ---- */

static const struct shim_kernel *registry; /* filled before main() */

registration::registration(const char *name, void (*run_thread_of)(const void *), size_t args_bytes,
                           uint32_t threads)
    : kernel{ name, run_thread_of, args_bytes, threads, registry }
{
    if (shim_find(name) || threads % WARP || threads > BLOCK_THREADS_MAX)
        fail("kernel %s of %u threads: named twice, or no whole warps", name, threads);
    registry = &kernel;
}

} // namespace cuda_host

using namespace cuda_host;

const struct shim_kernel *shim_first(void)
{
    return registry;
}

const struct shim_kernel *shim_find(const char *name)
{
    const struct shim_kernel *k = registry;

    while (k && strcmp(k->name, name))
        k = k->next;
    return k;
}

/* The arguments are copied to where AddressSanitizer sees their end. */
void shim_run(const struct shim_kernel *k, const struct shim_launch *launch)
{
    struct engine *e = own_engine();
    void *args = nullptr;

    assert(!running); /* a kernel launches none */
    check_launch(k, launch);
    if (posix_memalign(&args, 64, k->args_bytes))
        fail("no memory for arguments");
    memcpy(args, launch->args, k->args_bytes);
    e->kernel = k;
    e->launch = launch;
    e->args = args;
    run(e);
    free(args);
}

void shim_set_order(enum shim_order order, uint64_t seed)
{
    pthread_mutex_lock(&choice_lock);
    choice = { order, seed };
    is_chosen = true;
    pthread_mutex_unlock(&choice_lock);
    if (engine_of_thread)
        engine_of_thread->random_state = 0;
}

const char *shim_order_name(enum shim_order order)
{
    static const char *const names[N_SHIM_ORDERS] = { "forward", "reverse", "rotated", "eager",
                                                      "random" };
    return names[order];
}
