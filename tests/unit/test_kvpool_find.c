/* test_kvpool_find.c - pages of KV found by what they hold, and copied.
 *
 * What would break in production: KV of another prompt, of other weights or of two halves taken for one's own; a
 * page that is there and is computed again. */
#include "proto/kvpool.h"

#include <sys/prctl.h>

#include "kvpool_fixture.h"
#include "tests/check.h"

/* Two pages of one sequence: the chain says which tokens came before, the checksum what was written. */
static void kvpool_sealed_page_tells_a_changed_bit(void **state)
{
    const int32_t ids[32] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17 };
    struct kvpool p = pool_make();
    uint64_t lease = kvpool_lease_of(0, 1);
    uint32_t cursor = 0, a = kvpool_lease(&p, lease, &cursor), b = kvpool_lease(&p, lease, &cursor);

    (void)state;
    memset(kvpool_page(&p, a), 3, p.hdr->page_bytes);
    kvpool_commit(&p, a, 16, ids);
    kvpool_seal(&p, a, KV_PAGE_NONE, 9);
    kvpool_commit(&p, b, 16, ids + 16);
    kvpool_seal(&p, b, a, p.descs[a].prefix_hash);
    assert_int_equal(p.descs[a].parent, KV_PAGE_NONE);
    assert_int_equal(p.descs[b].parent, a);
    assert_int_equal(p.descs[b].prefix_hash,
                     kvpool_prefix_hash(kvpool_prefix_hash(9, ids, 16), ids + 16, 16));
    assert_true(p.descs[b].prefix_hash != kvpool_prefix_hash(9, ids + 16, 16));
    assert_true(kvpool_is_intact(&p, a) && kvpool_is_intact(&p, b));
    kvpool_page(&p, a)[p.hdr->page_bytes - 1] ^= 1;
    assert_false(kvpool_is_intact(&p, a));
    assert_true(kvpool_is_intact(&p, b));
    kvpool_close(&p);
}

static uint32_t make_page(struct kvpool *p, uint32_t group, int32_t id, uint32_t parent,
                          uint64_t parent_hash)
{
    uint32_t cursor = 0, page = kvpool_lease(p, kvpool_lease_of(group, 1), &cursor);
    int32_t ids[16];

    assert_true(page != KV_PAGE_NONE);
    for (int32_t i = 0; i < 16; i++)
        ids[i] = id + i;
    memset(kvpool_page(p, page), id, p->hdr->page_bytes);
    kvpool_commit(p, page, 16, ids);
    kvpool_seal(p, page, parent, parent_hash);
    kvpool_publish(p, page);
    return page;
}

static bool find_one(const struct kvpool *p, uint64_t hash, struct kvpool_ref *ref)
{
    uint32_t at = 0;

    return kvpool_find(p, hash, &at, ref);
}

static void kvpool_finds_a_page_as_long_as_it_is_there(void **state)
{
    struct kvpool p = pool_make();
    uint32_t a = make_page(&p, 0, 100, KV_PAGE_NONE, 5), b, at = 0;
    uint64_t hash = p.descs[a].prefix_hash;
    const int32_t *ids = kvpool_token_ids(&p, a);
    int32_t copy[16], other[16];
    struct kvpool_ref ref, parent;

    (void)state;
    memcpy(copy, ids, sizeof copy);
    memcpy(other, ids, sizeof other);
    other[15]++;
    b = make_page(&p, 1, 100, KV_PAGE_NONE, 5); /* the same tokens, another group */
    assert_int_equal(p.descs[b].prefix_hash, hash);
    kvpool_publish(&p, a); /* twice is once */
    assert_true(kvpool_find(&p, hash, &at, &ref) && kvpool_find(&p, hash, &at, &ref));
    assert_false(kvpool_find(&p, hash, &at, &ref));
    assert_false(find_one(&p, hash + 1, &ref));
    assert_true(find_one(&p, hash, &ref));
    assert_int_equal(kvpool_common(&p, ref, copy, 16, &parent), 16);
    assert_int_equal(parent.page, KV_PAGE_NONE);
    assert_int_equal(kvpool_common(&p, ref, other, 16, &parent), 15); /* the hash is nothing */
    kvpool_free(&p, kvpool_lease_of(0, 1), a);
    kvpool_free(&p, kvpool_lease_of(1, 1), b);
    assert_false(find_one(&p, hash, &ref));
    assert_int_equal(kvpool_common(&p, (struct kvpool_ref){ a, 0 }, copy, 16, &parent), 0);
    a = make_page(&p, 0, 100, KV_PAGE_NONE, 5); /* in its old place, but not what it was */
    assert_int_equal(kvpool_common(&p, (struct kvpool_ref){ a, 0 }, copy, 16, &parent), 0);
    assert_int_equal(kvpool_common(&p, kvpool_ref(&p, a), copy, 16, &parent), 16);
    kvpool_close(&p);
}

/* Slots of pages long gone must not fill the index, nor what a crash may have left there hurt. */
static void kvpool_index_forgets_what_is_freed(void **state)
{
    struct kvpool p = pool_make();
    struct kvpool_ref ref;

    (void)state;
    memset((void *)p.index, 0xa5, p.hdr->index_slots * sizeof(uint64_t));
    for (int32_t round = 0; round < 2000; round++) {
        uint32_t pages[32];
        for (int32_t i = 0; i < 32; i++) {
            pages[i] = make_page(&p, 0, round * 100 + i, KV_PAGE_NONE, 5);
            assert_true(find_one(&p, p.descs[pages[i]].prefix_hash, &ref));
            assert_int_equal(ref.page, pages[i]);
        }
        for (int32_t i = 0; i < 32; i++)
            kvpool_free(&p, kvpool_lease_of(0, 1), pages[i]);
    }
    kvpool_close(&p);
}

/* A hash that many pages share: what finds no slot is lost, and the last one put there is found. */
static void kvpool_index_takes_any_number_of_twins(void **state)
{
    struct kvpool p = pool_make();

    (void)state;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t page = make_page(&p, 0, 7, KV_PAGE_NONE, 5), at = 0, n = 0;
        struct kvpool_ref ref;
        bool seen = false;
        while (kvpool_find(&p, p.descs[page].prefix_hash, &at, &ref)) {
            seen = seen || ref.page == page;
            n++;
        }
        assert_true(seen && n <= 16);
    }
    kvpool_close(&p);
}

static void kvpool_chains_begin_elsewhere_for_other_weights_and_eras(void **state)
{
    struct kvpool p = pool_make(), q = pool_make();
    struct hash128 ours = { 1, 2 }, other = { 1, 3 };
    uint64_t root = kvpool_prefix_root(&p, ours);

    (void)state;
    assert_true(kvpool_prefix_root(&p, ours) == root);
    assert_true(kvpool_prefix_root(&p, other) != root);
    assert_true(kvpool_prefix_root(&q, ours) != root); /* and with every start of llmd */
    kvpool_hide_all(&p);
    assert_true(kvpool_prefix_root(&p, ours) != root);
    kvpool_close(&p);
    kvpool_close(&q);
}

static void kvpool_copy_is_whole_or_nothing(void **state)
{
    struct kvpool p = pool_make();
    uint32_t cursor = 20, from = make_page(&p, 0, 60, KV_PAGE_NONE, 5);
    uint32_t to = kvpool_lease(&p, kvpool_lease_of(1, 1), &cursor);
    struct kvpool_ref ref = kvpool_ref(&p, from);
    int32_t ids[16];

    (void)state;
    memcpy(ids, kvpool_token_ids(&p, from), sizeof ids);
    assert_false(kvpool_copy(&p, to, (struct kvpool_ref){ from, 9 }, ids, 16, KV_PAGE_NONE, 5));
    kvpool_page(&p, from)[17] ^= 4;
    assert_false(kvpool_copy(&p, to, ref, ids, 16, KV_PAGE_NONE, 5));
    assert_false(p.descs[to].sealed || p.descs[to].n_tokens);
    kvpool_page(&p, from)[17] ^= 4;
    assert_true(kvpool_copy(&p, to, ref, ids, 16, KV_PAGE_NONE, 5));
    assert_memory_equal(kvpool_page(&p, to), kvpool_page(&p, from), p.hdr->page_bytes);
    assert_memory_equal(kvpool_token_ids(&p, to), ids, sizeof ids);
    assert_int_equal(p.descs[to].prefix_hash, p.descs[from].prefix_hash);
    assert_true(p.descs[to].sealed && kvpool_is_intact(&p, to));
    kvpool_close(&p);
}

/* What comes behind a page, by a few of those that do. */
static void kvpool_finds_pages_by_what_they_are_behind(void **state)
{
    struct kvpool p = pool_make();
    uint32_t a = make_page(&p, 0, 100, KV_PAGE_NONE, 5), at = 0, n = 0;
    uint64_t hash = p.descs[a].prefix_hash;
    struct kvpool_ref ref, parent;
    int32_t ids[16];

    (void)state;
    assert_false(kvpool_find_next(&p, hash, &at, &ref));
    for (int32_t i = 0; i < 40; i++) {
        uint32_t page = make_page(&p, 0, 200 + i, a, hash), from = 0;
        assert_true(kvpool_find(&p, p.descs[page].prefix_hash, &from, &ref)); /* not in the way */
    }
    for (at = 0; kvpool_find_next(&p, hash, &at, &ref); n++) {
        memcpy(ids, kvpool_token_ids(&p, ref.page), sizeof ids);
        ids[6]++;
        assert_int_equal(kvpool_common(&p, ref, ids, 15, &parent), 6);
        assert_int_equal(parent.page, a);
    }
    assert_in_range(n, 1, 8);
    assert_int_equal(find_one(&p, ~hash, &ref), false);
    kvpool_close(&p);
}

/* A group that seals and frees pages all the time, of 16 different prompts. */
static void churn(struct kvpool *p)
{
    uint32_t held[24], n = 0;

    for (int32_t round = 0;; round++) {
        if (n == 24) {
            kvpool_free(p, kvpool_lease_of(0, 1), held[round % 24]);
            held[round % 24] = held[--n];
        }
        held[n++] = make_page(p, 0, 1000 * (1 + round % 16), KV_PAGE_NONE, 5);
    }
}

/* Another group copies what it finds meanwhile: never a page of another prompt, or of two halves. */
static void kvpool_copies_of_pages_in_motion_are_true(void **state)
{
    enum { COPIES = 3000 };
    struct kvpool p = pool_make();
    uint32_t n_copied = 0, n_missed = 0;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        churn(&p);
    }
    for (int32_t round = 0; n_copied < COPIES; round++) {
        int32_t ids[16], id = 1000 * (1 + round % 16);
        uint32_t cursor = 40, page;
        struct kvpool_ref ref, parent;
        for (int32_t i = 0; i < 16; i++)
            ids[i] = id + i;
        if (!find_one(&p, kvpool_prefix_hash(5, ids, 16), &ref) ||
            kvpool_common(&p, ref, ids, 16, &parent) != 16)
            continue;
        page = kvpool_lease(&p, kvpool_lease_of(1, 1), &cursor);
        assert_true(page != KV_PAGE_NONE);
        if (kvpool_copy(&p, page, ref, ids, 16, KV_PAGE_NONE, 5)) {
            n_copied++;
            for (size_t i = 0; i < p.hdr->page_bytes; i++)
                assert_int_equal(kvpool_page(&p, page)[i], (char)id);
        } else {
            n_missed++;
        }
        kvpool_free(&p, kvpool_lease_of(1, 1), page);
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    print_message("copied %u, missed %u\n", n_copied, n_missed);
    kvpool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvpool_sealed_page_tells_a_changed_bit),
        cmocka_unit_test(kvpool_finds_a_page_as_long_as_it_is_there),
        cmocka_unit_test(kvpool_index_forgets_what_is_freed),
        cmocka_unit_test(kvpool_index_takes_any_number_of_twins),
        cmocka_unit_test(kvpool_chains_begin_elsewhere_for_other_weights_and_eras),
        cmocka_unit_test(kvpool_copy_is_whole_or_nothing),
        cmocka_unit_test(kvpool_finds_pages_by_what_they_are_behind),
        cmocka_unit_test(kvpool_copies_of_pages_in_motion_are_true),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
