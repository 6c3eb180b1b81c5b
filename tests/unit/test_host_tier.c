/* test_host_tier.c - would break in production: a slot half filled by a dead worker taken for a page; a page of
 * another prompt; a slot given twice; a directory that no longer fits its memory read past its end. */
#include "tests/check.h"

#include <sys/prctl.h>

#include "proto/host_tier.h"

enum { PAGE_TOKENS = 4, SLOTS = 10, SLOT_BYTES = 96 };

static const struct host_tier_shape small = {
    .n_slots = SLOTS, .page_tokens = PAGE_TOKENS, .n_ranks = 2, .slot_bytes = SLOT_BYTES
};

static void make(struct host_tier *t)
{
    struct err e;

    assert_ok(host_tier_create(t, &small, 77, &e), e);
}

static struct host_copy copy_of(uint64_t hash)
{
    return (struct host_copy){ .origin = { 3, (uint32_t)hash },
                               .parent = { 2, 9 },
                               .prefix_hash = hash,
                               .checksum = hash * 31 };
}

/* A page with this hash and these ids, sealed; its slot. */
static uint32_t put(struct host_tier *t, uint64_t hash, int32_t first_id)
{
    const int32_t ids[PAGE_TOKENS] = { first_id, 2, 3, 4 };
    struct host_copy copy = copy_of(hash);
    uint32_t cursor = 0, slot = host_tier_take(t, 1, &cursor);

    assert_true(slot != HOST_SLOT_NONE);
    host_tier_describe(t, slot, &copy, ids);
    assert_true(host_tier_seal(t, slot, 1));
    return slot;
}

static bool find(const struct host_tier *t, uint64_t hash, int32_t first_id,
                 struct host_slot_ref *ref)
{
    const int32_t ids[PAGE_TOKENS] = { first_id, 2, 3, 4 };
    struct host_copy copy;
    uint32_t at = 0;

    return host_tier_find(t, hash, ids, &at, ref, &copy);
}

static void what_is_sealed_is_found(void **state)
{
    const int32_t ids[PAGE_TOKENS] = { 1, 2, 3, 4 };
    struct host_slot_ref ref, before;
    struct host_copy copy;
    struct host_tier t;
    uint32_t at = 0, slot;

    (void)state;
    make(&t);
    slot = put(&t, 500, 1);
    put(&t, 501, 1);
    assert_true(host_tier_find(&t, 500, ids, &at, &ref, &copy));
    assert_int_equal(ref.slot, slot);
    assert_true(host_tier_is_still(&t, ref));
    before = ref;
    assert_int_equal(copy.origin.page, 3);
    assert_int_equal(copy.origin.generation, 500);
    assert_int_equal(copy.parent.page, 2);
    assert_int_equal(copy.parent.generation, 9);
    assert_true(copy.checksum == 500 * 31);
    assert_false(host_tier_find(&t, 500, ids, &at, &ref, &copy)); /* there is no other */
    assert_false(find(&t, 500, 7, &ref));                         /* other ids: a collision */
    assert_false(find(&t, 502, 1, &ref));
    host_tier_mark_bad(&t, before);
    assert_false(find(&t, 500, 1, &ref));
    host_tier_free(&t, slot);
    assert_false(find(&t, 500, 1, &ref));
    assert_false(host_tier_is_still(&t, before));
    assert_int_equal(put(&t, 500, 1), slot);
    assert_true(find(&t, 500, 1, &ref)); /* another page */
    host_tier_mark_bad(&t, before);
    assert_true(find(&t, 500, 1, &ref));
    host_tier_close(&t);
}

static void a_slot_is_nothing_until_it_is_sealed(void **state)
{
    const int32_t ids[PAGE_TOKENS] = { 1, 2, 3, 4 };
    struct host_copy copy = copy_of(9);
    struct host_slot_ref ref;
    struct host_tier t;
    uint32_t cursor = 0, slot;

    (void)state;
    make(&t);
    slot = host_tier_take(&t, 5, &cursor);
    host_tier_describe(&t, slot, &copy, ids);
    host_tier_publish(&t, slot); /* even if it were in the index */
    assert_false(find(&t, 9, 1, &ref));
    assert_false(host_tier_seal(&t, slot, 4)); /* another epoch's */
    assert_int_equal(host_tier_state(&t, slot), HOST_PAGE_FILLING);
    assert_true(host_tier_seal(&t, slot, 5));
    assert_true(find(&t, 9, 1, &ref));
    assert_false(host_tier_seal(&t, slot, 5)); /* it is */
    host_tier_close(&t);
}

static void a_group_keeps_to_its_slots_and_reads_all(void **state)
{
    struct host_slot_ref ref;
    struct host_tier a, b;
    uint32_t cursor = 0;

    (void)state;
    make(&a);
    b = a;
    host_tier_set_share(&a, 0, 3);
    host_tier_set_share(&b, 1, 3);
    assert_int_equal(a.n, 3);
    assert_int_equal(b.first, 3);
    for (uint64_t i = 0; i < 3; i++) {
        assert_true(host_tier_is_ours(&a, put(&a, 100 + i, 1)));
        assert_true(host_tier_is_ours(&b, put(&b, 200 + i, 1)));
    }
    assert_int_equal(host_tier_take(&a, 1, &cursor), HOST_SLOT_NONE);
    assert_true(find(&a, 201, 1, &ref));
    assert_false(host_tier_is_ours(&a, ref.slot));
    assert_true(find(&b, 102, 1, &ref));
    host_tier_close(&a);
}

/* The state says so before the first byte of a slot is written, so whatever moment the worker died at. */
static void half_filled_slots_of_the_dead_are_never_pages(void **state)
{
    struct host_slot_ref ref;
    struct host_tier t;
    uint32_t cursor = 0, filling;

    (void)state;
    make(&t);
    put(&t, 1, 1);
    filling = host_tier_take(&t, 1, &cursor);
    host_tier_describe(&t, filling, &(struct host_copy){ .prefix_hash = 2 },
                       (const int32_t[]){ 1, 2, 3, 4 });
    memset((void *)t.index, 0, t.hdr->index_slots * sizeof *t.index); /* nor had it come to this */
    assert_int_equal(host_tier_reclaim(&t, 1000), 1);
    assert_true(find(&t, 1, 1, &ref));
    assert_false(find(&t, 2, 1, &ref));
    assert_int_equal(host_tier_state(&t, filling), HOST_PAGE_QUARANTINE);
    assert_int_equal(host_tier_reclaim(&t, 2000), 1); /* and a successor that dies at once */
    assert_int_equal(host_tier_end_quarantine(&t, 999, true), 1);
    assert_int_equal(host_tier_end_quarantine(&t, 1000, false), 1); /* the dead still writes */
    assert_int_equal(host_tier_end_quarantine(&t, 1000, true), 0);
    assert_int_equal(host_tier_state(&t, filling), HOST_PAGE_FREE);
    filling = host_tier_take(&t, 2, &cursor);
    assert_int_equal(host_tier_reclaim(&t, 0), 0); /* nobody dead could write there */
    assert_int_equal(host_tier_state(&t, filling), HOST_PAGE_FREE);
    host_tier_close(&t);
}

static void a_full_index_forgets_and_never_lies(void **state)
{
    enum { MANY = 400 };
    struct host_tier_shape shape = small;
    struct host_slot_ref ref;
    struct host_tier t;
    uint32_t n_found = 0;
    struct err e;

    (void)state;
    shape.n_slots = MANY;
    assert_ok(host_tier_create(&t, &shape, 77, &e), e);
    for (uint64_t i = 0; i < MANY; i++)
        put(&t, 64 + i % 40, (int32_t)i); /* ten of a hash: more than a window has room for */
    for (uint64_t i = 0; i < MANY; i++)
        if (find(&t, 64 + i % 40, (int32_t)i, &ref)) {
            assert_int_equal(host_tier_ids(&t, ref.slot)[0], i);
            n_found++;
        }
    assert_true(n_found >= 16 && n_found < MANY);
    host_tier_close(&t);
}

static void it_is_attached_as_it_was_made(void **state)
{
    struct host_slot_ref ref;
    struct host_tier t, other;
    struct err e;

    (void)state;
    make(&t);
    put(&t, 33, 1);
    memset(host_tier_part(&t, 1) + 2 * SLOT_BYTES, 7, SLOT_BYTES);
    assert_ok(host_tier_attach(&other, dup(t.segment.fd), &e), e);
    assert_true(find(&other, 33, 1, &ref));
    assert_int_equal(host_tier_part(&other, 1)[2 * SLOT_BYTES], 7);
    assert_int_equal((uintptr_t)t.hdr->data_offset % HOST_TIER_DATA_ALIGN, 0);
    host_tier_close(&other);
    host_tier_close(&other); /* closed is fine */
    host_tier_close(&t);
}

static void wishes_are_kept_once_and_ended(void **state)
{
    struct kvpool_ref wish, a = { 4, 9 }, b = { 0, 0 };
    struct host_tier t;
    uint32_t at = 0, n = 0;

    (void)state;
    make(&t);
    assert_false(host_tier_next_wish(&t, &at, &wish));
    host_tier_wish(&t, a);
    host_tier_wish(&t, b);
    host_tier_wish(&t, a);
    for (at = 0; host_tier_next_wish(&t, &at, &wish); n++)
        if (wish.page == a.page && wish.generation == a.generation)
            host_tier_end_wish(&t, at);
    assert_int_equal(n, 2);
    at = 0;
    assert_true(host_tier_next_wish(&t, &at, &wish));
    assert_int_equal(wish.page, 0);
    assert_false(host_tier_next_wish(&t, &at, &wish));
    for (uint32_t i = 0; i < 2 * HOST_TIER_WISHES; i++) /* what has no room is not kept */
        host_tier_wish(&t, (struct kvpool_ref){ i, 1 });
    for (at = 0, n = 0; host_tier_next_wish(&t, &at, &wish);)
        n++;
    assert_int_equal(n, HOST_TIER_WISHES);
    host_tier_close(&t);
}

/* What another build, or a bug, may have left. */
static void a_directory_that_does_not_fit_is_refused(void **state)
{
    static const struct {
        size_t at;
        uint64_t value;
        size_t bytes;
    } wrong[] = {
        { offsetof(struct host_tier_hdr, n_slots), 0, 4 },
        { offsetof(struct host_tier_hdr, n_slots), 1u << 30, 4 },
        { offsetof(struct host_tier_hdr, page_tokens), 1u << 30, 4 },
        { offsetof(struct host_tier_hdr, n_ranks), 3, 4 },
        { offsetof(struct host_tier_hdr, n_ranks), 0, 4 },
        { offsetof(struct host_tier_hdr, index_slots), 48, 4 },
        { offsetof(struct host_tier_hdr, index_slots), 1u << 30, 4 },
        { offsetof(struct host_tier_hdr, slot_bytes), UINT64_MAX / 2, 8 },
        { offsetof(struct host_tier_hdr, part_bytes), UINT64_MAX / 4096 * 4096, 8 },
        { offsetof(struct host_tier_hdr, ids_offset), 64, 8 },
        { offsetof(struct host_tier_hdr, index_offset), 1ull << 40, 8 },
        { offsetof(struct host_tier_hdr, data_offset), 1ull << 40, 8 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct host_tier t, other;
        struct err e;
        make(&t);
        memcpy((char *)t.hdr + wrong[i].at, &wrong[i].value, wrong[i].bytes);
        assert_fails(host_tier_attach(&other, dup(t.segment.fd), &e), e, ERR_PROTO, "do not fit");
        segment_close(&t.segment);
    }
}

/* ---- several processes ---- */

enum { RACERS = 3, ROUNDS = 4000 };

/* What is read of a slot is of one page, whatever its owner does meanwhile: hash, checksum and ids agree. */
static void read_all(struct host_tier *t)
{
    uint32_t n_found = 0;

    for (uint32_t i = 0; i < ROUNDS * 10 || n_found == 0; i++) {
        uint64_t hash = 1 + i % 50;
        const int32_t ids[PAGE_TOKENS] = { (int32_t)hash, 2, 3, 4 };
        struct host_slot_ref ref;
        struct host_copy copy;
        for (uint32_t at = 0; host_tier_find(t, hash, ids, &at, &ref, &copy);) {
            if (copy.checksum != hash * 31 || copy.origin.generation != hash)
                _exit(1);
            n_found++;
        }
    }
    _exit(0);
}

static void write_all(struct host_tier *t, uint32_t group)
{
    uint32_t slots[SLOTS], n = 0;

    host_tier_set_share(t, group, 2);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        if (n == t->n)
            host_tier_free(t, slots[--n]);
        slots[n] = put(t, 1 + (i * 7 + group) % 50, 1 + (int32_t)((i * 7 + group) % 50));
        n++;
    }
    _exit(0);
}

static void who_reads_while_others_write_reads_one_page(void **state)
{
    pid_t pids[2 + RACERS];
    struct host_tier t;

    (void)state;
    make(&t);
    for (uint32_t i = 0; i < 2 + RACERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] > 0)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (i < 2)
            write_all(&t, i);
        read_all(&t);
    }
    for (uint32_t i = 0; i < 2 + RACERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    host_tier_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sealed_is_found),
        cmocka_unit_test(a_slot_is_nothing_until_it_is_sealed),
        cmocka_unit_test(a_group_keeps_to_its_slots_and_reads_all),
        cmocka_unit_test(half_filled_slots_of_the_dead_are_never_pages),
        cmocka_unit_test(a_full_index_forgets_and_never_lies),
        cmocka_unit_test(wishes_are_kept_once_and_ended),
        cmocka_unit_test(it_is_attached_as_it_was_made),
        cmocka_unit_test(a_directory_that_does_not_fit_is_refused),
        cmocka_unit_test(who_reads_while_others_write_reads_one_page),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
