/* Pages of a GPU: copied whole, and summed so that damage shows. */
#include "gpu-worker/cuda/kernels/pages.h"
#include "tests/check.h"
#include "tests/cuda/l1.h"

enum { N = 5 };

struct pool {
    uint64_t page_bytes;
    char *bytes; /* [N] pages */
};

static struct pool pool_of(uint64_t page_bytes, uint64_t seed)
{
    struct pool p = { page_bytes, l1_alloc(N * page_bytes) };
    struct l1_random r = { seed };

    for (uint64_t i = 0; i < N * page_bytes; i += 4) {
        uint32_t v = l1_random_u32(&r);
        memcpy(p.bytes + i, &v, sizeof v);
    }
    return p;
}

static uint64_t sum_of(const struct pool *p, uint32_t page)
{
    return page_sum((const uint64_t *)(p->bytes + page * p->page_bytes), p->page_bytes / 8);
}

/* One word, a block's piece exactly, a little more, and several with a rest. */
static const uint64_t sizes[] = { 16, 4096, PAGES_BYTES_A_BLOCK, PAGES_BYTES_A_BLOCK + 16,
                                  3 * PAGES_BYTES_A_BLOCK - 4096 + 48 };
enum { N_SIZES = sizeof sizes / sizeof sizes[0] };

static void a_page_becomes_another_and_no_other_changes(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        struct pool from = pool_of(sizes[i], 1), to = pool_of(sizes[i], 2),
                    before = pool_of(sizes[i], 2);
        uint32_t *source = l1_alloc(2 * sizeof *source), *target = l1_alloc(2 * sizeof *target);
        struct page_copy_args a = { .to_pages = to.bytes,
                                    .from_pages = from.bytes,
                                    .page_bytes = sizes[i],
                                    .to = target,
                                    .from = source };

        memcpy(source, (uint32_t[]){ 4, 0 }, 2 * sizeof *source);
        memcpy(target, (uint32_t[]){ 1, 3 }, 2 * sizeof *target);
        l1_launch("page_copy", pages_grid_x(sizes[i]), 2, 1, 0, &a, sizeof a);
        memcpy(before.bytes + 1 * sizes[i], from.bytes + 4 * sizes[i], sizes[i]);
        memcpy(before.bytes + 3 * sizes[i], from.bytes, sizes[i]);
        assert_memory_equal(to.bytes, before.bytes, N * sizes[i]);
        l1_free(from.bytes);
        l1_free(to.bytes);
        l1_free(before.bytes);
        l1_free(source);
        l1_free(target);
    }
    l1_exact("page_copy");
}

struct sums {
    struct page_checksum_args a;
    uint32_t n;
};

static void run_sums(void *ctx)
{
    const struct sums *s = ctx;

    memset(s->a.sums, 0, s->n * sizeof *s->a.sums);
    l1_launch("page_checksum", pages_grid_x(s->a.page_bytes), s->n, 1, 0, &s->a, sizeof s->a);
}

static void the_sum_is_the_hosts_in_any_order(void **state)
{
    (void)state;
    for (int i = 0; i < N_SIZES; i++) {
        struct pool p = pool_of(sizes[i], 3);
        uint32_t *pages = l1_alloc(3 * sizeof *pages);
        uint64_t *sums = l1_alloc(3 * sizeof *sums);
        struct sums s = { { .sums = sums, .pool = p.bytes, .page_bytes = sizes[i], .pages = pages },
                          3 };

        memcpy(pages, (uint32_t[]){ 4, 2, 4 }, 3 * sizeof *pages);
        l1_run_in_orders(run_sums, &s, sums, 3 * sizeof *sums);
        assert_int_equal(sums[0], sum_of(&p, 4));
        assert_int_equal(sums[1], sum_of(&p, 2));
        assert_int_equal(sums[2], sums[0]);
        l1_free(p.bytes);
        l1_free(pages);
        l1_free(sums);
    }
    l1_exact("page_checksum");
}

static void memory_that_is_no_pool_is_summed_in_order(void **state)
{
    struct pool p = pool_of(4096, 4);
    uint64_t *sums = l1_alloc(N * sizeof *sums);
    struct sums s = { { .sums = sums, .pool = p.bytes, .page_bytes = 4096 }, N };

    (void)state;
    run_sums(&s);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(sums[i], sum_of(&p, i));
    l1_free(p.bytes);
    l1_free(sums);
}

/* What a stray write does: bits, words exchanged, a page of zeros. */
static void damage_changes_the_sum(void **state)
{
    struct pool p = pool_of(4096, 5);
    uint64_t *words = (uint64_t *)p.bytes, sum = sum_of(&p, 0), saved;

    (void)state;
    for (int bit = 0; bit < 64; bit++) {
        words[17] ^= (uint64_t)1 << bit;
        assert_int_not_equal(sum_of(&p, 0), sum);
        words[17] ^= (uint64_t)1 << bit;
    }
    saved = words[1];
    words[1] = words[2];
    words[2] = saved;
    assert_int_not_equal(sum_of(&p, 0), sum);
    memset(p.bytes, 0, 4096);
    assert_int_not_equal(sum_of(&p, 0), 0);
    l1_free(p.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_becomes_another_and_no_other_changes),
        cmocka_unit_test(the_sum_is_the_hosts_in_any_order),
        cmocka_unit_test(memory_that_is_no_pool_is_summed_in_order),
        cmocka_unit_test(damage_changes_the_sum),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
