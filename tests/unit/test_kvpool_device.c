/* test_kvpool_device.c - a pool whose pages lie on a device, which it reads through a table of functions.
 *
 * What would break in production: host memory taken for a GPU's, a page believed that could not be read, or one given
 * away that a dead process's kernels may still write to. */
#include "proto/kvpool.h"

#include <fcntl.h>

#include "kvpool_fixture.h"
#include "tests/check.h"

enum { DEVICE_PAGE = 64 }; /* bytes of a page, as far as the tests look */

/* Memory that the pool cannot see. */
struct device {
    char pages[64][DEVICE_PAGE];
    bool has_failed, is_busy;
    int n_asked;
};

static bool device_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    const struct device *d = ctx;

    for (uint32_t i = 0; i < n; i++)
        sums[i] = hash64(d->pages[pages[i]], DEVICE_PAGE, 5);
    return !d->has_failed;
}

static bool device_copy(void *ctx, uint32_t to, uint32_t from, uint32_t n_tokens)
{
    struct device *d = ctx;

    (void)n_tokens;
    memcpy(d->pages[to], d->pages[from], DEVICE_PAGE);
    return !d->has_failed;
}

static bool device_is_quiet(void *ctx)
{
    struct device *d = ctx;

    d->n_asked++;
    return !d->is_busy;
}

static struct kvpool make_on_device(struct device *d)
{
    struct kvpool_shape on_device = pool_shape;
    const struct kv_data table = { .ctx = d,
                                   .checksums = device_checksums,
                                   .copy = device_copy,
                                   .quarantine_ns = 1000,
                                   .is_quiet = device_is_quiet };
    struct kvpool p;
    struct err e;

    memset(d, 0, sizeof *d);
    on_device.on_device = true;
    assert_ok(kvpool_create(&p, &on_device, 77, &e), e);
    kvpool_set_data(&p, &table);
    return p;
}

static void kvpool_on_a_device_has_no_data_and_everything_else(void **state)
{
    struct device d;
    struct kvpool p = make_on_device(&d), other;
    struct err e;

    (void)state;
    assert_true(p.segment.bytes < KVPOOL_DATA_ALIGN + 4096);
    assert_int_equal(p.hdr->page_bytes, kvpool_page_bytes(&pool_shape));
    assert_ok(kvpool_attach(&other, fcntl(p.segment.fd, F_DUPFD_CLOEXEC, 0), &e), e);
    assert_int_equal(other.hdr->place, KV_PLACE_DEVICE);
    assert_int_equal(kvpool_count_free(&other), 64);
    kvpool_close(&other);
    kvpool_close(&p);
}

static uint32_t fill_and_seal(struct kvpool *p, struct device *d, uint64_t lease, char content)
{
    const int32_t ids[16] = { 1, 2, 3 };
    uint32_t cursor = 0, page = kvpool_lease(p, lease, &cursor);

    memset(d->pages[page], content, DEVICE_PAGE);
    kvpool_commit(p, page, 16, ids);
    assert_true(kvpool_seal(p, page, KV_PAGE_NONE, 9));
    return page;
}

static void kvpool_reads_and_copies_through_its_table(void **state)
{
    const int32_t ids[16] = { 1, 2, 3 };
    uint64_t lease = kvpool_lease_of(0, 1);
    struct device d;
    struct kvpool p = make_on_device(&d);
    uint32_t cursor = 0, a = fill_and_seal(&p, &d, lease, 7), b = kvpool_lease(&p, lease, &cursor);

    (void)state;
    assert_true(kvpool_is_intact(&p, a));
    assert_true(kvpool_copy(&p, b, kvpool_ref(&p, a), ids, 16, KV_PAGE_NONE, 9));
    assert_memory_equal(d.pages[a], d.pages[b], DEVICE_PAGE);
    assert_true(kvpool_is_intact(&p, b));
    d.pages[a][3] ^= 1;
    assert_false(kvpool_is_intact(&p, a));
    kvpool_close(&p);
}

/* Neither sealed on a guess nor believed. */
static void kvpool_a_device_that_fails_seals_nothing(void **state)
{
    const int32_t ids[16] = { 1, 2, 3 };
    uint64_t lease = kvpool_lease_of(0, 1);
    struct device d;
    struct kvpool p = make_on_device(&d);
    uint32_t cursor = 0, a = fill_and_seal(&p, &d, lease, 7), b = kvpool_lease(&p, lease, &cursor);

    (void)state;
    d.has_failed = true;
    assert_false(kvpool_is_intact(&p, a));
    assert_false(kvpool_copy(&p, b, kvpool_ref(&p, a), ids, 16, KV_PAGE_NONE, 9));
    kvpool_commit(&p, b, 16, ids);
    assert_false(kvpool_seal(&p, b, KV_PAGE_NONE, 9));
    assert_int_equal(p.descs[b].sealed, 0);
    kvpool_close(&p);
}

/* A worker that has not said how its device is read must not take host memory for it. */
static void kvpool_without_a_table_a_device_is_out_of_reach(void **state)
{
    struct kvpool_shape on_device = pool_shape;
    const int32_t ids[16] = { 1, 2, 3 };
    uint32_t cursor = 0;
    struct kvpool p;
    struct err e;

    (void)state;
    on_device.on_device = true;
    assert_ok(kvpool_create(&p, &on_device, 77, &e), e);
    assert_int_equal(kvpool_lease(&p, kvpool_lease_of(0, 1), &cursor), 0);
    kvpool_commit(&p, 0, 16, ids);
    assert_false(kvpool_seal(&p, 0, KV_PAGE_NONE, 9));
    kvpool_close(&p);
}

static void kvpool_copies_no_page_out_of_reach(void **state)
{
    const int32_t ids[16] = { 1, 2, 3 };
    struct device d;
    struct kvpool p = make_on_device(&d);
    uint32_t cursor = 0, theirs = fill_and_seal(&p, &d, kvpool_lease_of(0, 1), 7), mine;

    (void)state;
    kvpool_set_share(&p, 32, 32);
    mine = kvpool_lease(&p, kvpool_lease_of(1, 1), &cursor);
    assert_false(kvpool_copy(&p, mine, kvpool_ref(&p, theirs), ids, 16, KV_PAGE_NONE, 9));
    assert_int_equal(p.descs[mine].n_tokens, 0);
    kvpool_close(&p);
}

static bool is_sealed_page(uint32_t page, void *pool)
{
    return ((struct kvpool *)pool)->descs[page].sealed;
}

/* What a dead process may still write to is nobody's until nothing of it is seen; what was sealed is at once. */
static void kvpool_quarantines_what_the_dead_may_write_to(void **state)
{
    uint64_t dead = kvpool_lease_of(1, 4);
    struct device d;
    struct kvpool p = make_on_device(&d);
    uint32_t cursor = 0, sealed = fill_and_seal(&p, &d, dead, 7), cached;
    uint32_t open = kvpool_lease(&p, dead, &cursor), empty = kvpool_lease(&p, dead, &cursor);
    uint64_t never = 0, later = UINT64_MAX - 1;

    (void)state;
    cursor = 10;
    cached = fill_and_seal(&p, &d, dead, 8);
    p.descs[cached].sealed = 1;
    kvpool_commit(&p, open, 2, (const int32_t[]){ 1, 2 });
    assert_int_equal(kvpool_reclaim(&p, 1, 5, NULL, NULL), 2); /* sealed, cached: free */
    assert_int_equal(p.descs[sealed].lease, 0);
    assert_int_equal(p.descs[open].lease, dead | KV_LEASE_QUARANTINE);
    assert_int_equal(p.descs[empty].lease, dead | KV_LEASE_QUARANTINE);
    assert_int_equal(p.descs[open].n_tokens, 0);
    assert_int_equal(kvpool_end_quarantine(&p, 1, never), 2);
    assert_int_equal(d.n_asked, 0);
    d.is_busy = true;
    assert_int_equal(kvpool_end_quarantine(&p, 1, later), 2);
    assert_int_equal(d.n_asked, 1); /* not once for each page */
    d.is_busy = false;
    assert_int_equal(kvpool_end_quarantine(&p, 0, later), 0); /* another group's */
    assert_int_equal(kvpool_count_free(&p), 62);
    assert_int_equal(kvpool_end_quarantine(&p, 1, later), 0);
    assert_int_equal(kvpool_count_free(&p), 64);
    kvpool_close(&p);
}

/* Two deaths in a row: the second successor neither keeps nor frees what the first put there. */
static void kvpool_quarantine_outlives_its_worker(void **state)
{
    struct device d;
    struct kvpool p = make_on_device(&d);
    uint32_t cursor = 0, open = kvpool_lease(&p, kvpool_lease_of(1, 4), &cursor);

    (void)state;
    kvpool_reclaim(&p, 1, 5, NULL, NULL);
    assert_int_equal(kvpool_reclaim(&p, 1, 6, is_sealed_page, &p), 0);
    assert_int_equal(p.descs[open].lease, kvpool_lease_of(1, 4) | KV_LEASE_QUARANTINE);
    assert_int_equal(kvpool_end_quarantine(&p, 1, UINT64_MAX - 1), 0);
    kvpool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvpool_on_a_device_has_no_data_and_everything_else),
        cmocka_unit_test(kvpool_reads_and_copies_through_its_table),
        cmocka_unit_test(kvpool_a_device_that_fails_seals_nothing),
        cmocka_unit_test(kvpool_without_a_table_a_device_is_out_of_reach),
        cmocka_unit_test(kvpool_copies_no_page_out_of_reach),
        cmocka_unit_test(kvpool_quarantines_what_the_dead_may_write_to),
        cmocka_unit_test(kvpool_quarantine_outlives_its_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
