/* test_kvcache.c - would break in production: a page leaked or given twice, a gauge that never comes
 * back to 0, a group that eats another's pages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "sequence_fixture.h"

static void assert_balanced(const struct sequence_fixture *f)
{
    assert_int_equal(stat_get(&f->stats, STAT_kv_pages_leased), sequence_fixture_count_leased(f));
    assert_int_equal(stat_get(&f->stats, STAT_kv_pages_pinned), sequence_fixture_count_pins(f));
    assert_int_equal(f->cache.n_leased, sequence_fixture_count_leased(f));
}

static void pages_follow_the_tokens_and_come_back(void **state)
{
    struct sequence_fixture f;
    struct sequence *q;

    (void)state;
    sequence_fixture_init(&f, 4, 64, 10, 8);
    q = sequence_fixture_add(&f, 17, 40, 0);
    assert_true(kvcache_grow(&f.cache, q, 17));
    assert_int_equal(q->n_pages, 3);
    assert_int_equal(atomic_load(&q->entry->n_pages), 3);
    assert_memory_equal(ledger_pages(&f.ledger, q->entry), q->pages, 3 * sizeof *q->pages);
    assert_balanced(&f);
    assert_true(kvcache_grow(&f.cache, q, 24));
    assert_int_equal(q->n_pages, 3);
    assert_true(kvcache_grow(&f.cache, q, 25));
    assert_int_equal(q->n_pages, 4);
    assert_balanced(&f);
    kvcache_release(&f.cache, q);
    assert_int_equal(q->n_pages, 0);
    assert_int_equal(atomic_load(&q->entry->n_pages), 0);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_leased), 0);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_pinned), 0);
    assert_balanced(&f);
    kvcache_release(&f.cache, q); /* nothing to give back is fine */
    assert_balanced(&f);
    sequence_fixture_fini(&f);
}

static void growing_past_the_pool_changes_nothing(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b;

    (void)state;
    sequence_fixture_init(&f, 4, 128, 10, 8);
    a = sequence_fixture_add(&f, 40, 40, 0);
    b = sequence_fixture_add(&f, 48, 40, 0);
    assert_true(kvcache_grow(&f.cache, a, 40));
    assert_false(kvcache_grow(&f.cache, b, 48));
    assert_int_equal(b->n_pages, 0);
    assert_int_equal(kvcache_n_free(&f.cache), 5);
    assert_true(kvcache_grow(&f.cache, b, 33));
    assert_false(kvcache_grow(&f.cache, a, 41));
    assert_int_equal(a->n_pages, 5);
    for (uint32_t i = 0; i < 5; i++)
        for (uint32_t k = 0; k < 5; k++)
            assert_true(a->pages[i] != b->pages[k]);
    kvcache_release(&f.cache, b);
    assert_true(kvcache_grow(&f.cache, a, 80));
    assert_balanced(&f);
    kvcache_release(&f.cache, a);
    assert_balanced(&f);
    sequence_fixture_fini(&f);
}

/* What a successor or another group reads of a page: ids and how many are valid. */
static void commit_writes_ids_across_pages(void **state)
{
    struct sequence_fixture f;
    struct sequence *q;
    const uint32_t steps[] = { 3, 8, 9, 23, 24 };

    (void)state;
    sequence_fixture_init(&f, 4, 64, 10, 8);
    q = sequence_fixture_add(&f, 24, 40, 0);
    assert_true(kvcache_grow(&f.cache, q, 24));
    for (int i = 0; i < 5; i++) {
        kvcache_commit(&f.cache, q, steps[i]);
        assert_int_equal(q->n_computed, steps[i]);
        for (uint32_t p = 0; p < 3; p++) {
            uint32_t begin = p * 8, n = steps[i] > begin ? steps[i] - begin : 0;
            n = n > 8 ? 8 : n;
            assert_int_equal(atomic_load(&f.pool.descs[q->pages[p]].n_tokens), n);
            assert_memory_equal(kvpool_token_ids(&f.pool, q->pages[p]), q->tokens + begin,
                                n * sizeof(int32_t));
        }
    }
    kvcache_release(&f.cache, q);
    assert_int_equal(q->n_computed, 0);
    sequence_fixture_fini(&f);
}

/* Full pages are immutable from then on, each behind its parent; the open one is not. */
static void full_pages_are_sealed_in_a_chain(void **state)
{
    struct sequence_fixture f;
    const struct kv_page_desc *d;
    struct sequence *q;
    uint64_t hash = 0;

    (void)state;
    sequence_fixture_init(&f, 4, 64, 10, 8);
    q = sequence_fixture_add(&f, 28, 40, 0);
    assert_true(kvcache_grow(&f.cache, q, 28));
    kvcache_commit(&f.cache, q, 7);
    assert_int_equal(atomic_load(&f.pool.descs[q->pages[0]].sealed), 0);
    kvcache_commit(&f.cache, q, 27); /* three become full at once */
    for (uint32_t k = 0; k < 3; k++) {
        d = &f.pool.descs[q->pages[k]];
        hash = kvpool_prefix_hash(hash, q->tokens + k * 8, 8);
        assert_int_equal(atomic_load(&d->sealed), 1);
        assert_int_equal(d->prefix_hash, hash);
        assert_int_equal(d->parent, k > 0 ? q->pages[k - 1] : KV_PAGE_NONE);
        assert_true(kvpool_is_intact(&f.pool, q->pages[k]));
    }
    assert_int_equal(atomic_load(&f.pool.descs[q->pages[3]].sealed), 0);
    kvcache_release(&f.cache, q);
    assert_balanced(&f);
    sequence_fixture_fini(&f);
}

/* Two groups, one pool: each can have its share whatever the other does, and no page twice. */
static void a_group_keeps_to_its_share(void **state)
{
    struct sequence_fixture f;
    struct kvcache other;
    struct stats other_stats;
    struct sequence *a, *b;

    (void)state;
    memset(&other_stats, 0, sizeof other_stats);
    sequence_fixture_init(&f, 4, 128, 11, 8);
    kvcache_init(&f.cache, &f.pool, &f.stats, 0, 2, 1);
    kvcache_init(&other, &f.pool, &other_stats, 1, 2, 1);
    a = sequence_fixture_add(&f, 40, 40, 0);
    b = sequence_fixture_add(&f, 40, 40, 0);
    assert_int_equal(kvcache_tokens_max(&f.cache), 40);
    assert_true(kvcache_grow(&f.cache, a, 40));
    assert_false(kvcache_grow(&f.cache, a, 41));
    assert_true(kvcache_grow(&other, b, 40));
    assert_int_equal(sequence_fixture_count_leased(&f), 10);
    kvcache_release(&f.cache, a);
    assert_false(kvcache_grow(&other, b, 41));
    kvcache_release(&other, b);
    assert_int_equal(sequence_fixture_count_leased(&f), 0);
    assert_int_equal(sequence_fixture_count_pins(&f), 0);
    sequence_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_follow_the_tokens_and_come_back),
        cmocka_unit_test(growing_past_the_pool_changes_nothing),
        cmocka_unit_test(commit_writes_ids_across_pages),
        cmocka_unit_test(full_pages_are_sealed_in_a_chain),
        cmocka_unit_test(a_group_keeps_to_its_share),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
