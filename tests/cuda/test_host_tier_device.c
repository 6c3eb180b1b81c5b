/* test_host_tier_device.c - KV pages copied between a GPU and host memory, on the fake driver.
 *
 * Would break in production: a page that straddles two pinned pieces comes back wrong; memory that cannot be pinned takes
 * the worker with it, or stays pinned in part; a page counts as saved when one rank of two has its part. */
#include <sys/mman.h>

#include "common/clock.h"
#include "gpu-worker/cuda/kv_device.h"
#include "tests/cuda/child.h"

enum { PAGE_BYTES = 24 << 10, PIECE_BYTES = 64 << 10, N_PAGES = 16, PATIENCE_S = 60 };

struct tier {
    struct device *device;
    struct device_stream stream;
    struct host_tier_device *h;
    cu_ptr base;
    char *memory;
};

static struct host_tier_device *make(struct device *d, cu_ptr base, char *memory)
{
    struct host_tier_device_setup setup = { .device = d,
                                            .base = base,
                                            .page_bytes = PAGE_BYTES,
                                            .memory = memory,
                                            .bytes = N_PAGES * PAGE_BYTES,
                                            .piece_bytes = PIECE_BYTES };
    struct host_tier_device *h;
    struct err e = { 0 };

    h = host_tier_device_new(&setup, &e);
    CHECK_OK(h != NULL, e);
    return h;
}

static void open_tier(struct tier *t)
{
    struct err e = { 0 };

    CHECK_OK(device_open(&t->device, 0, NULL, &e), e);
    CHECK_OK(device_stream_open(&t->stream, t->device, 0, &e), e);
    CHECK_OK(device_alloc(t->device, &t->base, N_PAGES * PAGE_BYTES, &e), e);
    t->memory =
        mmap(NULL, N_PAGES * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(t->memory != MAP_FAILED);
    t->h = make(t->device, t->base, t->memory);
}

static void close_tier(struct tier *t)
{
    host_tier_device_free(t->h);
    device_free(t->device, t->base);
    device_stream_close(&t->stream);
    device_close(t->device);
}

static enum kv_tier_memory wait_for_memory(struct host_tier_device *h)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    enum kv_tier_memory m;

    while ((m = host_tier_device_memory(h)) == KV_TIER_COMING && clock_mono_ns() < end_ns)
        usleep(500);
    return m;
}

static void fill_page(struct tier *t, uint32_t page, uint8_t value)
{
    struct err e = { 0 };

    CHECK(device_fill(&t->stream, t->base + page * PAGE_BYTES, value, PAGE_BYTES));
    CHECK_OK(device_stream_finish(&t->stream, PATIENCE_S * NS_PER_S, &e), e);
}

static void expect_page(struct tier *t, uint32_t page, uint8_t value)
{
    static uint8_t got[PAGE_BYTES];
    struct err e = { 0 };

    CHECK(device_copy_out(&t->stream, got, t->base + page * PAGE_BYTES, PAGE_BYTES));
    CHECK_OK(device_stream_finish(&t->stream, PATIENCE_S * NS_PER_S, &e), e);
    for (int i = 0; i < PAGE_BYTES; i++)
        CHECK(got[i] == value);
}

static void wait_until_done(struct host_tier_device *h, enum kv_tier_way way)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    enum kv_tier_wait w;

    while ((w = host_tier_device_poll(h, way)) == KV_TIER_UNDER_WAY && clock_mono_ns() < end_ns)
        usleep(200);
    CHECK(w == KV_TIER_DONE);
}

static void save_and_restore(void)
{
    uint32_t pairs[2 * N_PAGES];
    struct err e = { 0 };
    struct tier t = { 0 };

    open_tier(&t);
    CHECK(wait_for_memory(t.h) == KV_TIER_READY);
    for (uint32_t i = 0; i < N_PAGES; i++) {
        fill_page(&t, i, (uint8_t)(i + 1));
        pairs[2 * i] = i;
        pairs[2 * i + 1] = (i + 5) % N_PAGES;
    }
    CHECK(host_tier_device_begin(t.h, KV_TIER_SAVE, pairs, N_PAGES));
    wait_until_done(t.h, KV_TIER_SAVE);
    for (uint32_t i = 0; i < N_PAGES; i++)
        for (int at = 0; at < PAGE_BYTES; at++)
            CHECK(t.memory[pairs[2 * i + 1] * PAGE_BYTES + at] == (char)(i + 1));
    for (uint32_t i = 0; i < N_PAGES; i++)
        pairs[2 * i] = N_PAGES - 1 - i; /* to other pages than they were */
    CHECK(host_tier_device_begin(t.h, KV_TIER_RESTORE, pairs, N_PAGES));
    CHECK_OK(host_tier_device_finish(t.h, KV_TIER_RESTORE, &e), e);
    for (uint32_t i = 0; i < N_PAGES; i++)
        expect_page(&t, N_PAGES - 1 - i, (uint8_t)(i + 1));
    close_tier(&t);
}

/* In each mode of the fake: at once, only when asked, and with pauses between. */
static void pages_go_and_come_back_as_they_were(void **state)
{
    (void)state;
    assert_int_equal(in_child("mode=eager", NULL, save_and_restore), 0);
    assert_int_equal(in_child("mode=lazy", NULL, save_and_restore), 0);
    assert_int_equal(in_child("mode=random", NULL, save_and_restore), 0);
}

static uint64_t n_registered(void)
{
    struct fake_cuda_counts counts;
    struct fake_cuda fake;

    CHECK(fake_cuda_find(&fake));
    fake.counts(&counts);
    return counts.host_registrations;
}

static void fail_to_pin(void)
{
    struct tier t = { 0 };

    open_tier(&t);
    CHECK(wait_for_memory(t.h) == KV_TIER_NONE);
    CHECK(host_tier_device_memory(t.h) == KV_TIER_NONE);
    CHECK(n_registered() == 0);
    CHECK(!device_fault(t.device)); /* the worker goes on */
    fill_page(&t, 3, 9);
    expect_page(&t, 3, 9);
    close_tier(&t);
}

static void memory_that_cannot_be_pinned_is_let_go(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemHostRegister_v2 1: return 2", fail_to_pin), 0);
    assert_int_equal(in_child("", "call cuMemHostRegister_v2 4: return 1", fail_to_pin), 0);
}

static void pin_slowly(void)
{
    uint64_t start_ns = clock_mono_ns();
    struct tier t = { 0 };

    open_tier(&t);
    CHECK(host_tier_device_memory(t.h) == KV_TIER_COMING);
    fill_page(&t, 0, 4); /* steps go on meanwhile */
    CHECK(wait_for_memory(t.h) == KV_TIER_READY);
    CHECK(clock_mono_ns() - start_ns >= 100 * NS_PER_MS);
    CHECK(n_registered() == N_PAGES * PAGE_BYTES / PIECE_BYTES);
    host_tier_device_drop(t.h);
    CHECK(n_registered() == 0);
    CHECK(host_tier_device_memory(t.h) == KV_TIER_NONE);
    close_tier(&t);
}

static void nobody_waits_while_memory_is_pinned(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemHostRegister_v2 2: slow 100", pin_slowly), 0);
}

static void end_while_pinning(void)
{
    struct tier t = { 0 };

    open_tier(&t);
    CHECK(host_tier_device_memory(t.h) == KV_TIER_COMING);
    close_tier(&t); /* leaks=fatal looks after the rest */
}

static void it_can_end_at_any_time(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemHostRegister_v2 1: slow 50", end_while_pinning), 0);
}

static void copy_on_a_failing_device(void)
{
    const uint32_t pair[] = { 1, 1 };
    struct tier t = { 0 };
    struct err e = { 0 };

    open_tier(&t);
    CHECK(wait_for_memory(t.h) == KV_TIER_READY);
    CHECK(!host_tier_device_begin(t.h, KV_TIER_SAVE, pair, 1));
    CHECK(device_fault(t.device)); /* the next step says so */
    CHECK(host_tier_device_poll(t.h, KV_TIER_SAVE) == KV_TIER_FAILED);
    CHECK(!host_tier_device_finish(t.h, KV_TIER_SAVE, &e) && e.code == ERR_DEVICE);
    _exit(9);
}

static void a_failing_device_is_told(void **state)
{
    (void)state;
    assert_int_equal(
        in_child("", "call cuMemcpyDtoHAsync_v2 1: sticky 719", copy_on_a_failing_device), 9);
}

/* ---- two ranks ---- */

struct peer {
    struct kv_device *device;
    bool is_slow; /* its copies are never done */
};

static bool order_peer(void *ctx, const struct kv_order *o, uint64_t *answers, struct err *e)
{
    struct peer *p = ctx;

    if (!kv_device_obey(p->device, o, answers, e))
        return false;
    if (o->what == KV_ORDER_TIER_POLL && p->is_slow)
        *answers = KV_TIER_UNDER_WAY;
    return true;
}

struct ranks {
    struct tier t;
    struct peer peer;
    struct host_tier_device *second; /* the peer's */
    struct kv_device *first;
    struct kv_tier_data table;
};

/* The second rank has the second half of pages and slots, as its own. */
static void open_ranks(struct ranks *r)
{
    const uint64_t half = (uint64_t)N_PAGES / 2 * PAGE_BYTES;
    struct kv_device_setup setup = { .page_bytes = PAGE_BYTES,
                                     .n_pages = N_PAGES / 2,
                                     .tp_size = 1 };
    struct host_tier_device_setup part = { .page_bytes = PAGE_BYTES,
                                           .bytes = half,
                                           .piece_bytes = PIECE_BYTES };
    struct err e = { 0 };

    open_tier(&r->t);
    host_tier_device_free(r->t.h);
    part.device = setup.device = r->t.device;
    part.base = r->t.base + half;
    part.memory = r->t.memory + half;
    r->second = host_tier_device_new(&part, &e);
    setup.base = part.base;
    setup.tier = r->second;
    r->peer.device = kv_device_new(&setup, &e);
    part.base = r->t.base;
    part.memory = r->t.memory;
    r->t.h = host_tier_device_new(&part, &e);
    setup.base = r->t.base;
    setup.tier = r->t.h;
    setup.tp_size = 2;
    setup.peers = (struct kv_peers){ &r->peer, order_peer };
    r->first = kv_device_new(&setup, &e);
    CHECK_OK(r->second && r->peer.device && r->t.h && r->first, e);
    r->table = kv_device_tier_table(r->first);
}

static void close_ranks(struct ranks *r)
{
    kv_device_free(r->first);
    kv_device_free(r->peer.device);
    host_tier_device_free(r->second);
    close_tier(&r->t);
}

static enum kv_tier_memory wait_for_ranks(struct ranks *r)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;
    enum kv_tier_memory m;

    while ((m = r->table.memory(r->table.ctx)) == KV_TIER_COMING && clock_mono_ns() < end_ns)
        usleep(500);
    return m;
}

static void save_on_two_ranks(void)
{
    const uint32_t page = 3, slot = 6;
    struct ranks r = { 0 };

    open_ranks(&r);
    CHECK(wait_for_ranks(&r) == KV_TIER_READY);
    fill_page(&r.t, page, 7);
    fill_page(&r.t, N_PAGES / 2 + page, 8);
    r.peer.is_slow = true;
    CHECK(r.table.begin(r.table.ctx, KV_TIER_SAVE, &page, &slot, 1));
    wait_until_done(r.t.h, KV_TIER_SAVE);
    CHECK(r.table.poll(r.table.ctx, KV_TIER_SAVE) == KV_TIER_UNDER_WAY); /* half of it is nothing */
    r.peer.is_slow = false;
    CHECK(r.table.finish(r.table.ctx, KV_TIER_SAVE));
    CHECK(r.table.poll(r.table.ctx, KV_TIER_SAVE) == KV_TIER_DONE);
    CHECK(r.t.memory[slot * PAGE_BYTES] == 7);
    CHECK(r.t.memory[(N_PAGES / 2 + slot) * PAGE_BYTES] == 8);
    close_ranks(&r);
}

static void a_page_is_saved_when_every_rank_has_its_part(void **state)
{
    (void)state;
    assert_int_equal(in_child("mode=eager", NULL, save_on_two_ranks), 0);
}

static void pin_on_one_of_two(void)
{
    struct ranks r = { 0 };

    open_ranks(&r);
    CHECK(wait_for_ranks(&r) == KV_TIER_NONE);
    CHECK(n_registered() == 0); /* what the other had is let go, too */
    close_ranks(&r);
}

static void one_rank_without_memory_ends_it_for_all(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemHostRegister_v2 5: return 2", pin_on_one_of_two), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_go_and_come_back_as_they_were),
        cmocka_unit_test(memory_that_cannot_be_pinned_is_let_go),
        cmocka_unit_test(nobody_waits_while_memory_is_pinned),
        cmocka_unit_test(it_can_end_at_any_time),
        cmocka_unit_test(a_failing_device_is_told),
        cmocka_unit_test(a_page_is_saved_when_every_rank_has_its_part),
        cmocka_unit_test(one_rank_without_memory_ends_it_for_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
