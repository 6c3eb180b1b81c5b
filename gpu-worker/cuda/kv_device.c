/* kv_device.c - see kv_device.h. */
#include "gpu-worker/cuda/kv_device.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/page_sums.h"

#define LIMIT_NS (60 * NS_PER_S)
#define AGAIN_NS (500 * NS_PER_MS) /* a worker that is gone is soon replaced */
#define WRONG_NS (600 * NS_PER_S)

/* How another group stands. */
struct reach {
    bool is_reached;
    uint64_t again_ns; /* if not, it is not tried before */
};

struct kv_device {
    struct kv_device_setup setup;
    struct page_sums *sums;
    struct device_stream stream; /* of copies */
    struct reach *reach;         /* [n_groups] */
    uint64_t *peer_answers;      /* [tp_size - 1][KV_ORDER_PAGES_MAX] */
};

static bool is_ours(const struct kv_device *k, uint32_t page)
{
    return page >= k->setup.first_page && page - k->setup.first_page < k->setup.n_pages;
}

/* The driver's own copy: a page is one run of bytes.  *done false: a page of another group, out of reach. */
static bool copy_own(struct kv_device *k, uint32_t to, uint32_t from, uint64_t *done, struct err *e)
{
    uint64_t bytes = k->setup.page_bytes;

    assert(is_ours(k, to) && to != from);
    *done = true;
    if (!is_ours(k, from)) {
        *done = k->setup.siblings.copy &&
                k->setup.siblings.copy(k->setup.siblings.ctx, k->setup.base + to * bytes, from);
        return !device_fault(k->setup.device) || device_fault_err(k->setup.device, e);
    }
    if (!device_copy(&k->stream, k->setup.base + to * bytes, k->setup.base + from * bytes, bytes))
        return device_fault_err(k->setup.device, e);
    return device_stream_finish(&k->stream, LIMIT_NS, e);
}

/* Kernels are given numbers from the share's first page on: where page 0 of the pool would be may be nobody's memory. */
static bool sum_own(struct kv_device *k, const struct kv_order *o, uint64_t *sums, struct err *e)
{
    cu_ptr first = k->setup.base + k->setup.first_page * k->setup.page_bytes;
    uint32_t pages[KV_ORDER_PAGES_MAX];

    for (uint32_t i = 0; i < o->n; i++) {
        assert(is_ours(k, o->pages[i]));
        pages[i] = o->pages[i] - k->setup.first_page;
    }
    return page_sums_run(k->sums, first, k->setup.page_bytes, pages, o->n, sums, e);
}

static bool begin_own(struct kv_device *k, const struct kv_order *o, struct err *e)
{
    for (uint32_t i = 0; i < o->n; i += 2)
        assert(is_ours(k, o->pages[i]));
    return host_tier_device_begin(k->setup.tier, o->way, o->pages, o->n / 2) ||
           device_fault_err(k->setup.device, e);
}

bool kv_device_obey(struct kv_device *k, const struct kv_order *o, uint64_t *answers, struct err *e)
{
    struct host_tier_device *tier = k->setup.tier;

    assert(tier || o->what < KV_ORDER_TIER_MEMORY);
    switch (o->what) {
    case KV_ORDER_CHECKSUMS:
        return sum_own(k, o, answers, e);
    case KV_ORDER_COPY:
        return copy_own(k, o->pages[0], o->pages[1], answers, e);
    case KV_ORDER_REACH:
        *answers =
            k->setup.siblings.reach && k->setup.siblings.reach(k->setup.siblings.ctx, o->pages[0]);
        return true;
    case KV_ORDER_TIER_MEMORY:
        *answers = host_tier_device_memory(tier);
        return true;
    case KV_ORDER_TIER_DROP:
        host_tier_device_drop(tier);
        return true;
    case KV_ORDER_TIER_BEGIN:
        return begin_own(k, o, e);
    case KV_ORDER_TIER_POLL:
        *answers = host_tier_device_poll(tier, o->way);
        return true;
    case KV_ORDER_TIER_FINISH:
        return host_tier_device_finish(tier, o->way, e);
    }
    return err_set(e, ERR_PROTO, 0, "order %d about KV pages means nothing", (int)o->what);
}

/* A thing is ready, or done, when it is for both, and impossible when it is for one. */
static uint64_t answer_of_both(enum kv_order_what what, uint64_t a, uint64_t b)
{
    static const uint64_t ranking[][3] = {
        [0] = { KV_TIER_READY, KV_TIER_COMING, KV_TIER_NONE },
        [1] = { KV_TIER_DONE, KV_TIER_UNDER_WAY, KV_TIER_FAILED },
    };
    const uint64_t *r = ranking[what == KV_ORDER_TIER_POLL];

    if (what < KV_ORDER_TIER_MEMORY)
        return a && b;
    if (a == r[2] || b == r[2])
        return r[2];
    return a == r[0] && b == r[0] ? r[0] : r[1];
}

/* One answer of all ranks. */
static void add_answers(struct kv_device *k, const struct kv_order *o, uint64_t *answers)
{
    uint32_t n = kv_order_n_answers(o);

    for (uint32_t r = 0; r + 1 < k->setup.tp_size; r++)
        for (uint32_t i = 0; i < n; i++) {
            uint64_t theirs = k->peer_answers[r * n + i];
            if (o->what == KV_ORDER_CHECKSUMS)
                answers[i] += page_mix(theirs, r);
            else
                answers[i] = answer_of_both(o->what, answers[i], theirs);
        }
}

/* All ranks: the peers first, so that theirs runs beside ours. */
static bool carry_out(struct kv_device *k, const struct kv_order *o, uint64_t *answers,
                      struct err *e)
{
    if (k->setup.tp_size > 1 && !k->setup.peers.order(k->setup.peers.ctx, o, k->peer_answers, e))
        return false;
    if (!kv_device_obey(k, o, answers, e))
        return false;
    add_answers(k, o, answers);
    return true;
}

static bool order(struct kv_device *k, const struct kv_order *o, uint64_t *answers)
{
    struct err e;

    if (carry_out(k, o, answers, &e))
        return true;
    log_error("KV pages: %s", e.msg);
    return false;
}

static bool checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    struct kv_order o = { .what = KV_ORDER_CHECKSUMS };

    for (uint32_t first = 0; first < n; first += o.n) {
        o.n = n - first < KV_ORDER_PAGES_MAX ? n - first : KV_ORDER_PAGES_MAX;
        memcpy(o.pages, pages + first, o.n * sizeof *pages);
        if (!order(ctx, &o, sums + first))
            return false;
    }
    return true;
}

/* ---- other groups ---- */

static uint32_t group_of(const struct kv_device *k, uint32_t page)
{
    uint64_t n = k->setup.n_pool_pages, n_groups = k->setup.n_groups;
    uint32_t g = 0;

    while (page >= n * (g + 1) / n_groups)
        g++;
    return g;
}

static void lose(struct kv_device *k, uint32_t page, uint64_t for_ns)
{
    struct reach *r = &k->reach[group_of(k, page)];

    *r = (struct reach){ .is_reached = false, .again_ns = clock_mono_ns() + for_ns };
}

/* Whole pages: tokens of many tiles are no run of bytes, and what is behind the first ones means nothing. */
static bool copy(void *ctx, uint32_t to, uint32_t from, uint32_t n_tokens)
{
    struct kv_order o = { .what = KV_ORDER_COPY, .n = 2, .pages = { to, from } };
    uint64_t done = false;

    (void)n_tokens;
    if (!order(ctx, &o, &done))
        return false;
    if (!done)
        lose(ctx, from, AGAIN_NS);
    return done;
}

static bool can_read(void *ctx, uint32_t page)
{
    struct kv_order o = { .what = KV_ORDER_REACH, .n = 1, .pages = { page } };
    struct kv_device *k = ctx;
    struct reach *r = &k->reach[group_of(k, page)];
    uint64_t now_ns = clock_mono_ns(), answer = false;

    if (r->is_reached || now_ns < r->again_ns)
        return r->is_reached;
    r->is_reached = order(k, &o, &answer) && answer;
    r->again_ns = now_ns + AGAIN_NS;
    return r->is_reached;
}

static void was_wrong(void *ctx, uint32_t page)
{
    log_warning("copies of another group's KV pages come out wrong, going on without");
    lose(ctx, page, WRONG_NS);
}

static bool ask_quiet(void *ctx)
{
    const struct kv_device *k = ctx;

    return !k->setup.is_quiet || k->setup.is_quiet(k->setup.quiet_ctx);
}

struct kv_data kv_device_table(struct kv_device *k)
{
    return (struct kv_data){ .ctx = k,
                             .checksums = checksums,
                             .copy = copy,
                             .can_read = k->setup.siblings.reach ? can_read : NULL,
                             .was_wrong = k->setup.siblings.reach ? was_wrong : NULL,
                             .quarantine_ns = k->setup.quarantine_ns,
                             .is_quiet = ask_quiet };
}

/* ---- the host tier ---- */

static enum kv_tier_memory tier_memory(void *ctx)
{
    const struct kv_order ask = { .what = KV_ORDER_TIER_MEMORY };
    const struct kv_order drop = { .what = KV_ORDER_TIER_DROP };
    uint64_t answer = KV_TIER_NONE;

    if (!order(ctx, &ask, &answer))
        return KV_TIER_NONE;
    if (answer == KV_TIER_NONE) /* others need not hold theirs */
        order(ctx, &drop, NULL);
    return (enum kv_tier_memory)answer;
}

static_assert(2 * (int)KV_TIER_BATCH_MAX <= (int)KV_ORDER_PAGES_MAX, "a batch is one order");

static bool tier_begin(void *ctx, enum kv_tier_way way, const uint32_t *pages,
                       const uint32_t *slots, uint32_t n)
{
    struct kv_order o = { .what = KV_ORDER_TIER_BEGIN, .way = way, .n = 2 * n };

    for (uint32_t i = 0; i < n; i++) {
        o.pages[2 * i] = pages[i];
        o.pages[2 * i + 1] = slots[i];
    }
    return order(ctx, &o, NULL);
}

static enum kv_tier_wait tier_poll(void *ctx, enum kv_tier_way way)
{
    const struct kv_order o = { .what = KV_ORDER_TIER_POLL, .way = way };
    uint64_t answer = KV_TIER_FAILED;

    return order(ctx, &o, &answer) ? (enum kv_tier_wait)answer : KV_TIER_FAILED;
}

static bool tier_finish(void *ctx, enum kv_tier_way way)
{
    const struct kv_order o = { .what = KV_ORDER_TIER_FINISH, .way = way };

    return order(ctx, &o, NULL);
}

struct kv_tier_data kv_device_tier_table(struct kv_device *k)
{
    assert(k->setup.tier);
    return (struct kv_tier_data){ .ctx = k,
                                  .memory = tier_memory,
                                  .begin = tier_begin,
                                  .poll = tier_poll,
                                  .finish = tier_finish };
}

struct kv_device *kv_device_new(const struct kv_device_setup *setup, struct err *e)
{
    struct kv_device *k = mem_zalloc(1, sizeof *k);

    assert(setup->tp_size >= 1 && setup->page_bytes % 16 == 0);
    k->setup = *setup;
    k->reach = mem_zalloc(setup->n_groups + 1, sizeof *k->reach);
    if (setup->tp_size > 1)
        k->peer_answers =
            mem_zalloc((setup->tp_size - 1) * KV_ORDER_PAGES_MAX, sizeof *k->peer_answers);
    k->sums = page_sums_new(setup->device, e);
    if (k->sums && device_stream_open(&k->stream, setup->device, 0, e))
        return k;
    kv_device_free(k);
    return NULL;
}

void kv_device_free(struct kv_device *k)
{
    if (!k)
        return;
    device_stream_close(&k->stream);
    page_sums_free(k->sums);
    free(k->peer_answers);
    free(k->reach);
    free(k);
}
