/* test_sibling_pages.c - pages copied from another group's GPU, on the fake driver.
 *
 * Would break in production: a page of another place; memory of a group that cannot come back because another one still
 * maps it; a group that waits for one that is gone. */
#include <pthread.h>

#include "common/clock.h"
#include "gpu-worker/cuda/sibling_pages.h"
#include "tests/cuda/child.h"

enum { PAGE_BYTES = 8192, N_PAGES = 9, PATIENCE_S = 60 };

/* A group: a GPU with its share of the pages. */
struct group {
    struct device *device;
    struct device_stream stream;
    struct chunk_set set;
    struct chunks chunks;
    struct sibling_pages *pages;
    uint32_t first;
};

static const char *gpus; /* NULL: group g has GPU g */

static void open_pages(struct group *g, uint32_t group)
{
    struct sibling_pages_setup setup = { .device = g->device,
                                         .own = &g->set,
                                         .pool_id = (uint64_t)getpid(),
                                         .group = group,
                                         .n_groups = 2,
                                         .tp_size = 1,
                                         .gpus = gpus,
                                         .n_pages = N_PAGES,
                                         .page_bytes = PAGE_BYTES };
    struct err e = { 0 };

    g->pages = sibling_pages_new(&setup, &e);
    CHECK_OK(g->pages != NULL, e);
}

static void open_group(struct group *g, uint32_t group)
{
    struct err e = { 0 };

    *g = (struct group){ .set = { .kind = CHUNKS_KV, .group = group }, .first = group ? 4 : 0 };
    CHECK_OK(device_open(&g->device, (int)group, NULL, &e), e);
    CHECK_OK(device_stream_open(&g->stream, g->device, 0, &e), e);
    CHECK_OK(chunks_plan(g->device, &g->set, (uint64_t)N_PAGES * PAGE_BYTES, &e) &&
                 chunks_create(g->device, &g->set, 0, &e) &&
                 chunks_map(&g->chunks, g->device, &g->set, true, &e),
             e);
    open_pages(g, group);
}

static void use(struct group *g)
{
    struct err e = { 0 };

    CHECK_OK(device_bind(g->device, &e), e);
}

static cu_ptr page_at(const struct group *g, uint32_t page)
{
    return g->chunks.base + (page - g->first) * PAGE_BYTES;
}

static void finish(struct group *g)
{
    struct err e = { 0 };

    CHECK_OK(device_stream_finish(&g->stream, PATIENCE_S * NS_PER_S, &e), e);
}

static void fill_page(struct group *g, uint32_t page, uint8_t value)
{
    use(g);
    CHECK(device_fill(&g->stream, page_at(g, page), value, PAGE_BYTES));
    finish(g);
}

static void expect_page(struct group *g, uint32_t page, uint8_t value)
{
    static uint8_t got[PAGE_BYTES];

    CHECK(device_copy_out(&g->stream, got, page_at(g, page), PAGE_BYTES));
    finish(g);
    for (int i = 0; i < PAGE_BYTES; i++)
        CHECK(got[i] == value);
}

static void close_group(struct group *g)
{
    use(g);
    sibling_pages_free(g->pages);
    chunks_unmap(&g->chunks);
    chunk_set_fini(&g->set);
    device_stream_close(&g->stream);
    device_close(g->device);
}

static void wait_until_unreachable(struct group *g, uint32_t page)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_S * NS_PER_S;

    while (sibling_pages_copy(g->pages, page_at(g, g->first), page)) {
        CHECK(clock_mono_ns() < end_ns);
        usleep(500);
    }
}

static void copy_both_ways(void)
{
    struct group a, b;

    open_group(&a, 0);
    open_group(&b, 1);
    for (uint32_t page = 0; page < 4; page++)
        fill_page(&a, page, (uint8_t)(10 + page));
    for (uint32_t page = 4; page < N_PAGES; page++)
        fill_page(&b, page, (uint8_t)(10 + page));
    use(&a);
    CHECK(sibling_pages_group(a.pages, 3) == 0 && sibling_pages_group(a.pages, 4) == 1);
    CHECK(!sibling_pages_copy(a.pages, page_at(&a, 0), 8)); /* nobody has asked for it */
    CHECK(sibling_pages_reach(a.pages, 1));
    CHECK(sibling_pages_reach(a.pages, 1));
    CHECK(sibling_pages_copy(a.pages, page_at(&a, 0), 8));
    expect_page(&a, 0, 18);
    CHECK(sibling_pages_copy(a.pages, page_at(&a, 1), 4));
    expect_page(&a, 1, 14);
    use(&b);
    CHECK(sibling_pages_reach(b.pages, 0));
    CHECK(sibling_pages_copy(b.pages, page_at(&b, 6), 3));
    expect_page(&b, 6, 13);
    close_group(&a);
    close_group(&b);
}

static void pages_are_copied_from_the_other_gpu(void **state)
{
    (void)state;
    assert_int_equal(in_child("gpus=2,memory=32m", NULL, copy_both_ways), 0);
}

/* Its pages' memory must be free when nobody but us has mapped it. */
static void lose_the_other(void)
{
    struct group a, b;
    struct fake_cuda_counts before, after;
    struct fake_cuda fake;

    open_group(&a, 0);
    open_group(&b, 1);
    CHECK(fake_cuda_find(&fake));
    use(&a);
    fake.counts(&before);
    CHECK(sibling_pages_reach(a.pages, 1));
    use(&b);
    sibling_pages_free(b.pages); /* its worker is gone */
    use(&a);
    wait_until_unreachable(&a, 8);
    CHECK(!sibling_pages_reach(a.pages, 1));
    fake.counts(&after);
    CHECK(after.mappings == before.mappings);
    use(&b);
    open_pages(&b, 1); /* its successor */
    fill_page(&b, 8, 77);
    use(&a);
    CHECK(sibling_pages_reach(a.pages, 1));
    CHECK(sibling_pages_copy(a.pages, page_at(&a, 2), 8));
    expect_page(&a, 2, 77);
    close_group(&b);
    close_group(&a);
}

static void who_is_gone_is_let_go_and_his_successor_met(void **state)
{
    (void)state;
    assert_int_equal(in_child("gpus=2,memory=32m", NULL, lose_the_other), 0);
}

static void fail_to_reach(void)
{
    struct group a, b;

    open_group(&a, 0);
    open_group(&b, 1);
    use(&a);
    CHECK(!sibling_pages_reach(a.pages, 1));
    CHECK(!sibling_pages_copy(a.pages, page_at(&a, 0), 8));
    CHECK(!device_fault(a.device));
    close_group(&a);
    close_group(&b);
}

static void gpus_that_do_not_reach_each_other_go_on(void **state)
{
    (void)state;
    assert_int_equal(
        in_child("gpus=2,memory=32m", "call cuDeviceCanAccessPeer 1: return 1", fail_to_reach), 0);
    assert_int_equal(in_child("gpus=2,memory=32m",
                              "call cuMemImportFromShareableHandle 3: return 1", fail_to_reach),
                     0);
    assert_int_equal(
        in_child("gpus=2,memory=32m", "call cuMemSetAccess 3: return 801", fail_to_reach), 0);
}

/* The second time the other group's GPU is one that this process does not see. */
static void find_by_name(void)
{
    struct group a, b;

    gpus = "GPU-66616b65-0000-0000-0000-000000000000 GPU-66616b65-0000-0000-0000-000000000001";
    open_group(&a, 0);
    open_group(&b, 1);
    use(&a);
    CHECK(sibling_pages_reach(a.pages, 1));
    sibling_pages_free(a.pages);
    gpus = "GPU-66616b65-0000-0000-0000-000000000000 GPU-66616b65-0000-0000-0000-000000000009";
    open_pages(&a, 0);
    CHECK(!sibling_pages_reach(a.pages, 1));
    close_group(&a);
    close_group(&b);
}

static void gpus_are_known_by_their_names(void **state)
{
    (void)state;
    assert_int_equal(in_child("gpus=2,memory=32m", NULL, find_by_name), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_are_copied_from_the_other_gpu),
        cmocka_unit_test(who_is_gone_is_let_go_and_his_successor_met),
        cmocka_unit_test(gpus_that_do_not_reach_each_other_go_on),
        cmocka_unit_test(gpus_are_known_by_their_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
