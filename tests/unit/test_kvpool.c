/* test_kvpool.c - pages of KV that several groups lease at the same time.
 *
 * What would break in production: one page leased twice (two answers mixed), pages of a dead group that
 * never come back, or a token count seen before its token. */
#include "proto/kvpool.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "kvpool_fixture.h"
#include "tests/check.h"

static void kvpool_parts_do_not_overlap(void **state)
{
    struct kvpool p = pool_make();
    size_t page_bytes = (size_t)2 * 2 * 3 * 16 * 8 * 2;

    (void)state;
    assert_int_equal(kvpool_page_bytes(&pool_shape), page_bytes);
    assert_int_equal(p.hdr->data_offset % KVPOOL_DATA_ALIGN, 0);
    memset((void *)p.index, 0xee, p.hdr->index_slots * sizeof(uint64_t));
    for (uint32_t i = 0; i < pool_shape.n_pages; i++) {
        memset((void *)&p.descs[i], (int)i, sizeof p.descs[i]);
        memset(kvpool_token_ids(&p, i), (int)i + 64, 16 * sizeof(int32_t));
        memset(kvpool_page(&p, i), (int)i + 128, page_bytes);
    }
    for (uint32_t i = 0; i < pool_shape.n_pages; i++) {
        assert_int_equal(*(unsigned char *)&p.descs[i], i);
        assert_int_equal(((unsigned char *)&p.descs[i])[63], i);
        assert_int_equal(*(unsigned char *)kvpool_token_ids(&p, i), i + 64);
        assert_int_equal(((unsigned char *)kvpool_token_ids(&p, i))[63], i + 64);
        assert_int_equal(*(unsigned char *)kvpool_page(&p, i), i + 128);
        assert_int_equal(((unsigned char *)kvpool_page(&p, i))[page_bytes - 1], i + 128);
    }
    assert_true(p.hdr->index_slots >= 4 * 64);
    for (uint32_t i = 0; i < p.hdr->index_slots; i++)
        assert_true(p.index[i] == 0xeeeeeeeeeeeeeeee);
    assert_int_equal(p.hdr->n_pages, 64); /* nor with the header */
    assert_true(kvpool_page(&p, 63) + page_bytes <= (char *)p.hdr + p.segment.bytes);
    kvpool_close(&p);
    kvpool_close(&p);
}

/* int8: a float for each token and vector beside the codes, blocks on whole floats. */
static void kvpool_pages_hold_scales_beside_codes(void **state)
{
    struct kvpool_shape eight = pool_shape;

    (void)state;
    eight.dtype = DTYPE_I8;
    assert_int_equal(kvpool_page_bytes(&eight), 2 * 2 * 3 * (16 * 8 + 16 * 4));
    eight.page_tokens = 1; /* tokens lie in pairs */
    eight.head_dim = 6;
    assert_int_equal(kvpool_page_bytes(&eight), 2 * 2 * 3 * (4 + 2 * 6));
    eight.dtype = DTYPE_I16;
    assert_int_equal(kvpool_page_bytes(&eight), 2 * 2 * 3 * (4 + 2 * 6 * 2));
}

static void kvpool_lease_gives_every_page_once(void **state)
{
    struct kvpool p = pool_make();
    uint64_t lease = kvpool_lease_of(0, 1);
    uint32_t cursor = 61;
    bool seen[64] = { false };

    (void)state;
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t page = kvpool_lease(&p, lease, &cursor);
        assert_in_range(page, 0, 63);
        assert_false(seen[page]);
        seen[page] = true;
        assert_int_equal(p.descs[page].parent, KV_PAGE_NONE); /* not page 0 */
        assert_int_equal(p.descs[page].n_tokens, 0);
        assert_int_equal(kvpool_count_free(&p), 63 - i);
    }
    assert_int_equal(kvpool_lease(&p, lease, &cursor), KV_PAGE_NONE);
    kvpool_free(&p, lease, 17);
    cursor = UINT32_MAX; /* any value will do */
    assert_int_equal(kvpool_lease(&p, lease, &cursor), 17);
    assert_int_equal(cursor, 18);
    kvpool_close(&p);
}

static void kvpool_leases_nothing_outside_its_share(void **state)
{
    uint64_t lease = kvpool_lease_of(1, 1);
    struct kvpool p = pool_make();
    uint32_t cursor = 50; /* from anywhere */
    bool seen[64] = { false };

    (void)state;
    kvpool_set_share(&p, 16, 20);
    for (int i = 0; i < 20; i++) {
        uint32_t page = kvpool_lease(&p, lease, &cursor);
        assert_in_range(page, 16, 35);
        assert_false(seen[page]);
        seen[page] = true;
    }
    assert_int_equal(kvpool_lease(&p, lease, &cursor), KV_PAGE_NONE);
    kvpool_free(&p, lease, 17);
    assert_int_equal(kvpool_lease(&p, lease, &cursor), 17);
    assert_true(kvpool_is_in_reach(&p, 35) && !kvpool_is_in_reach(&p, 36) &&
                !kvpool_is_in_reach(&p, 15));
    kvpool_close(&p);
}

static void kvpool_free_page_is_like_new_but_for_its_generation(void **state)
{
    const int32_t ids[16] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 };
    struct kvpool p = pool_make();
    uint64_t lease = kvpool_lease_of(3, 9);
    uint32_t cursor = 5, page = kvpool_lease(&p, lease, &cursor);
    struct kv_page_desc *d = &p.descs[page];
    uint32_t generation = d->generation;

    (void)state;
    kvpool_commit(&p, page, 16, ids);
    d->prefix_hash = 0x1234;
    d->checksum = 5;
    d->parent = 2;
    d->parent_generation = 8;
    d->sealed = 1;
    kvpool_free(&p, lease, page);
    assert_int_equal(d->lease, 0);
    assert_int_equal(d->generation, generation + 1);
    assert_int_equal(d->n_tokens, 0);
    assert_int_equal(d->sealed, 0);
    assert_int_equal(d->pins, 0);
    assert_int_equal(d->prefix_hash, 0);
    assert_int_equal(d->checksum, 0);
    assert_int_equal(d->parent, KV_PAGE_NONE);
    kvpool_close(&p);
}

static void kvpool_commit_appends_token_ids(void **state)
{
    const int32_t first[] = { 11, 12 }, more[] = { 13, 14, 15 };
    struct kvpool p = pool_make();
    uint32_t cursor = 0, page = kvpool_lease(&p, kvpool_lease_of(0, 1), &cursor);

    (void)state;
    kvpool_commit(&p, page, 2, first);
    assert_int_equal(p.descs[page].n_tokens, 2);
    kvpool_commit(&p, page, 2, NULL);
    kvpool_commit(&p, page, 5, more);
    assert_int_equal(p.descs[page].n_tokens, 5);
    for (int i = 0; i < 5; i++)
        assert_int_equal(kvpool_token_ids(&p, page)[i], 11 + i);
    kvpool_close(&p);
}

static void free_of_another(void *pool)
{
    kvpool_free(pool, kvpool_lease_of(0, 2), 0);
}

static void free_pinned(void *pool)
{
    ((struct kvpool *)pool)->descs[0].pins = 1;
    kvpool_free(pool, kvpool_lease_of(0, 1), 0);
}

static void commit_backwards(void *pool)
{
    kvpool_commit(pool, 0, 1, NULL);
}

static void commit_too_much(void *pool)
{
    kvpool_commit(pool, 0, 17, (int32_t[17]){ 0 });
}

static void commit_to_sealed(void *pool)
{
    ((struct kvpool *)pool)->descs[0].sealed = 1;
    kvpool_commit(pool, 0, 3, (int32_t[1]){ 0 });
}

static void seal_half_full(void *pool)
{
    struct kvpool *p = pool;
    uint32_t cursor = 0, page = kvpool_lease(p, kvpool_lease_of(0, 1), &cursor);

    kvpool_commit(p, page, 3, (const int32_t[]){ 1, 2, 3 });
    kvpool_seal(p, page, KV_PAGE_NONE, 0);
}

static void free_outside(void *pool)
{
    kvpool_free(pool, kvpool_lease_of(0, 1), 64);
}

static void kvpool_misuse_is_a_bug(void **state)
{
    void (*const misuse[])(void *) = { free_of_another, free_pinned,      commit_backwards,
                                       commit_too_much, commit_to_sealed, seal_half_full,
                                       free_outside };
    struct kvpool p = pool_make();
    uint32_t cursor = 0;

    (void)state;
    assert_int_equal(kvpool_lease(&p, kvpool_lease_of(0, 1), &cursor), 0);
    kvpool_commit(&p, 0, 2, (int32_t[2]){ 1, 2 });
    for (size_t i = 0; i < sizeof misuse / sizeof *misuse; i++) {
        assert_aborts(misuse[i], &p);
        p.descs[0].pins = 0;
        p.descs[0].sealed = 0;
    }
    kvpool_free(&p, kvpool_lease_of(0, 1), 0);
    kvpool_close(&p);
}

static bool keep_even(uint32_t page, void *n_asked)
{
    ++*(int *)n_asked;
    return page % 2 == 0;
}

static void kvpool_reclaim_frees_what_the_dead_epoch_held(void **state)
{
    struct kvpool p = pool_make();
    uint64_t dead = kvpool_lease_of(1, 4), mine = kvpool_lease_of(1, 5),
             other = kvpool_lease_of(0, 4);
    uint32_t cursor = 0;
    int n_asked = 0;

    (void)state;
    for (uint32_t i = 0; i < 40; i++)
        kvpool_lease(&p, i < 20 ? dead : i < 30 ? other : mine, &cursor);
    for (uint32_t i = 0; i < 40; i++)
        p.descs[i].pins = 3;
    assert_int_equal(kvpool_reclaim(&p, 1, 5, keep_even, &n_asked), 10);
    assert_int_equal(n_asked, 20);
    for (uint32_t i = 0; i < 40; i++) {
        uint64_t lease = i >= 30 ? mine : i >= 20 ? other : i % 2 == 0 ? mine : 0;
        assert_int_equal(p.descs[i].lease, lease);
        assert_int_equal(p.descs[i].pins, i < 20 ? 0 : 3);
        assert_int_equal(p.descs[i].generation, i < 20 && i % 2 == 1);
    }
    assert_int_equal(kvpool_count_free(&p), 24 + 10);
    assert_int_equal(kvpool_reclaim(&p, 1, 5, NULL, NULL), 0); /* nothing is older any more */
    assert_int_equal(kvpool_reclaim(&p, 0, 5, NULL, NULL), 10);
    kvpool_close(&p);
}

static void kvpool_doubt_is_of_one_group(void **state)
{
    struct kvpool p = pool_make();

    (void)state;
    kvpool_doubt(&p, 63);
    kvpool_doubt(&p, 2);
    assert_true(kvpool_is_doubted(&p, 63) && kvpool_is_doubted(&p, 2));
    assert_false(kvpool_is_doubted(&p, 0));
    kvpool_end_doubt(&p, 2);
    assert_true(kvpool_is_doubted(&p, 63) && !kvpool_is_doubted(&p, 2));
    kvpool_close(&p);
}

static void kvpool_attach_refuses_numbers_that_do_not_fit(void **state)
{
    struct kvpool p = pool_make(), b = { 0 };
    struct kvpool_hdr *h = p.hdr;
    const struct kvpool_hdr good = *h;
    const struct {
        uint32_t *field, value;
    } words[] = {
        { &h->n_pages, 0 },
        { &h->n_pages, UINT32_MAX },
        { &h->n_pages, 1 << 20 },
        { &h->page_tokens, 0 },
        { &h->page_tokens, UINT32_MAX },
        { &h->page_tokens, 1 << 20 },
        { &h->index_slots, 0 },
        { &h->index_slots, 8 },
        { &h->index_slots, 96 },
        { &h->index_slots, 1u << 31 },
    };
    const struct {
        uint64_t *field, value;
    } longs[] = {
        { &h->page_bytes, 0 },
        { &h->page_bytes, UINT64_MAX },
        { &h->page_bytes, 1 << 20 },
        { &h->tokens_offset, 0 },
        { &h->tokens_offset, good.tokens_offset + 2 },
        { &h->tokens_offset, UINT64_MAX - 100 },
        { &h->tokens_offset, good.data_offset },
        { &h->index_offset, 0 },
        { &h->index_offset, good.tokens_offset },
        { &h->index_offset, good.index_offset + 4 },
        { &h->index_offset, good.data_offset },
        { &h->index_offset, UINT64_MAX - 7 },
        { &h->data_offset, 4096 },
        { &h->data_offset, good.data_offset + KVPOOL_DATA_ALIGN },
        { &h->data_offset, good.data_offset + 4096 },
        { &h->data_offset, UINT64_MAX - 100 },
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        *words[i].field = words[i].value;
        assert_fails(kvpool_attach(&b, dup(p.segment.fd), &e), e, ERR_PROTO, "kvpool: ");
        *h = good;
    }
    for (size_t i = 0; i < sizeof longs / sizeof *longs; i++) {
        *longs[i].field = longs[i].value;
        assert_fails(kvpool_attach(&b, dup(p.segment.fd), &e), e, ERR_PROTO, "kvpool: ");
        *h = good;
    }
    h->n_pages = h->page_tokens = UINT32_MAX; /* their product wraps */
    assert_fails(kvpool_attach(&b, dup(p.segment.fd), &e), e, ERR_PROTO, "kvpool: ");
    *h = good;
    assert_ok(kvpool_attach(&b, dup(p.segment.fd), &e), e);
    assert_int_equal(b.hdr->page_bytes, good.page_bytes);
    kvpool_close(&b);
    kvpool_close(&p);
}

/* One group's rank 0, in a process of its own: leases, marks, looks again, frees.  Exit code 0: nobody
 * ever touched a page that it held. */
static void run_group(struct kvpool *p, uint32_t group)
{
    uint64_t lease = kvpool_lease_of(group, 1);
    uint32_t held[8], cursor = group * 13, n = 0;
    int32_t ids[16];

    for (uint32_t round = 0; round < 20000; round++) {
        uint32_t page = n < 8 ? kvpool_lease(p, lease, &cursor) : KV_PAGE_NONE;
        if (page != KV_PAGE_NONE) {
            struct kv_page_desc *d = &p->descs[page];
            if (d->n_tokens != 0 || d->sealed || d->pins != 0)
                _exit(1);
            for (int i = 0; i < 16; i++)
                ids[i] = (int32_t)(group << 20 | round);
            memset(kvpool_page(p, page), (int)group, 64);
            kvpool_commit(p, page, 16, ids);
            held[n++] = page;
        } else if (n > 0) {
            page = held[round % n];
            held[round % n] = held[n - 1];
            n--;
            for (int i = 0; i < 16; i++)
                if (kvpool_token_ids(p, page)[i] >> 20 != (int32_t)group)
                    _exit(2);
            for (int i = 0; i < 64; i++)
                if (kvpool_page(p, page)[i] != (char)group)
                    _exit(3);
            kvpool_free(p, lease, page);
        } else {
            sched_yield();
        }
    }
    while (n > 0)
        kvpool_free(p, lease, held[--n]);
    _exit(0);
}

enum { RACERS = 4 };

static void kvpool_lease_race_between_processes_gives_no_page_twice(void **state)
{
    struct kvpool_shape small = pool_shape;
    pid_t pids[RACERS];
    struct kvpool p;
    struct err e;
    uint32_t generations = 0;

    (void)state;
    small.n_pages = 11; /* fewer than the racers want */
    assert_ok(kvpool_create(&p, &small, 77, &e), e);
    for (uint32_t i = 0; i < RACERS; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            run_group(&p, i);
        }
    }
    for (uint32_t i = 0; i < RACERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    assert_int_equal(kvpool_count_free(&p), 11);
    for (uint32_t i = 0; i < 11; i++)
        generations += p.descs[i].generation;
    assert_true(generations > 1000);
    kvpool_close(&p);
}

/* A group is killed at an arbitrary point; its successor gets back exactly what it held. */
static void kvpool_reclaim_after_sigkill_leaves_no_page_behind(void **state)
{
    struct kvpool p = pool_make();

    (void)state;
    for (uint32_t epoch = 1; epoch <= 20; epoch++) {
        _Atomic uint32_t *beats =
            mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        pid_t pid;
        assert_ptr_not_equal(beats, MAP_FAILED);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            uint32_t cursor = 0, page;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;; ++*beats)
                while ((page = kvpool_lease(&p, kvpool_lease_of(0, epoch), &cursor)) % 3 != 0)
                    kvpool_free(&p, kvpool_lease_of(0, epoch), page);
        }
        while (*beats < epoch)
            sched_yield();
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, NULL, 0), pid);
        munmap((void *)beats, 4096);
        assert_true(kvpool_count_free(&p) < 64);
        kvpool_reclaim(&p, 0, epoch + 1, NULL, NULL);
        assert_int_equal(kvpool_count_free(&p), 64);
    }
    kvpool_close(&p);
}

/* Whoever sees a token count with acquire sees the ids below it. */
static void kvpool_commit_shows_tokens_before_their_count(void **state)
{
    enum { ROUNDS = 2000 };
    struct kvpool p = pool_make();
    uint32_t cursor = 0, page = kvpool_lease(&p, kvpool_lease_of(0, 1), &cursor);
    struct kv_page_desc *d = &p.descs[page];
    _Atomic uint32_t *turn = (_Atomic uint32_t *)(void *)kvpool_page(&p, 1);
    int status = -1;
    pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) { /* the writer: round r commits ids r, r, ... one by one */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int32_t round = 1; round <= ROUNDS; round++) {
            for (uint32_t n = 1; n <= 16; n++)
                kvpool_commit(&p, page, n, &round);
            while (atomic_load(turn) != (uint32_t)round)
                sched_yield();
            atomic_store(&d->n_tokens, 0);
            atomic_store(turn, 0);
        }
        _exit(0);
    }
    for (int32_t round = 1; round <= ROUNDS; round++) {
        uint32_t n = 0;
        while (n < 16) {
            n = atomic_load_explicit(&d->n_tokens, memory_order_acquire);
            for (uint32_t i = 0; i < n; i++)
                assert_int_equal(kvpool_token_ids(&p, page)[i], round);
        }
        atomic_store(turn, (uint32_t)round);
        while (atomic_load(turn) != 0)
            sched_yield();
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    kvpool_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(kvpool_parts_do_not_overlap),
        cmocka_unit_test(kvpool_pages_hold_scales_beside_codes),
        cmocka_unit_test(kvpool_lease_gives_every_page_once),
        cmocka_unit_test(kvpool_leases_nothing_outside_its_share),
        cmocka_unit_test(kvpool_free_page_is_like_new_but_for_its_generation),
        cmocka_unit_test(kvpool_commit_appends_token_ids),
        cmocka_unit_test(kvpool_misuse_is_a_bug),
        cmocka_unit_test(kvpool_reclaim_frees_what_the_dead_epoch_held),
        cmocka_unit_test(kvpool_doubt_is_of_one_group),
        cmocka_unit_test(kvpool_attach_refuses_numbers_that_do_not_fit),
        cmocka_unit_test(kvpool_lease_race_between_processes_gives_no_page_twice),
        cmocka_unit_test(kvpool_reclaim_after_sigkill_leaves_no_page_behind),
        cmocka_unit_test(kvpool_commit_shows_tokens_before_their_count),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
