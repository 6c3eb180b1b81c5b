/* test_kvcache.c - would break in production: a page leaked or given twice, a gauge that never comes
 * back to 0, a group that eats another's pages. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fault_point.h"
#include "sequence_fixture.h"

static void assert_balanced(const struct sequence_fixture *f)
{
    sequence_fixture_assert_balanced(f);
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

static uint32_t n_reads, n_pages_read;
static bool (*host_checksums)(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums);

static bool count_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    n_reads++;
    n_pages_read += n;
    return host_checksums(ctx, pages, n, sums);
}

/* Asking a device is what takes time, so a step asks once.  What was read for a step is not believed in the next one:
 * a row that did not count is written again. */
static void pages_of_a_step_are_read_together(void **state)
{
    struct sequence_fixture f;
    struct sequence *q[3];

    (void)state;
    sequence_fixture_init(&f, 4, 64, 12, 8);
    host_checksums = f.pool.data.checksums;
    f.pool.data.checksums = count_checksums;
    n_reads = n_pages_read = 0;
    for (int i = 0; i < 3; i++) {
        q[i] = sequence_fixture_add(&f, 30, 40, 0);
        assert_true(kvcache_grow(&f.cache, q[i], 24));
        memset(kvpool_page(&f.pool, q[i]->pages[0]), i + 1, 64);
        kvcache_expect(&f.cache, q[i], i == 2 ? 7 : 17);
    }
    kvcache_read_ahead(&f.cache);
    assert_int_equal(n_reads, 1);
    assert_int_equal(n_pages_read, 4);
    for (int i = 0; i < 3; i++)
        kvcache_commit(&f.cache, q[i], 7 + (i == 0) * 10);
    assert_int_equal(n_reads, 1);
    for (int k = 0; k < 2; k++)
        assert_true(kvpool_is_intact(&f.pool, q[0]->pages[k]));
    n_reads = 0;
    kvcache_begin_plan(&f.cache);
    memset(kvpool_page(&f.pool, q[1]->pages[0]), 77, 64);
    kvcache_commit(&f.cache, q[1], 8);
    assert_int_equal(n_reads, 1);
    assert_true(kvpool_is_intact(&f.pool, q[1]->pages[0]));
    for (int i = 0; i < 3; i++)
        kvcache_release(&f.cache, q[i]);
    sequence_fixture_fini(&f);
}

/* Full pages are immutable from then on, each behind its parent; the open one is not. */
static void full_pages_are_sealed_in_a_chain(void **state)
{
    struct sequence_fixture f;
    const struct kv_page_desc *d;
    struct sequence *q;
    uint64_t hash;

    (void)state;
    sequence_fixture_init(&f, 4, 64, 10, 8);
    hash = kvpool_prefix_root(&f.pool, f.cache.identity);
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

/* ---- two groups ---- */

struct groups {
    struct sequence_fixture f; /* f.cache is group 0 */
    struct kvcache other;
    struct stats other_stats;
};

static void init_group(struct kvcache *c, struct groups *g, uint32_t group, uint32_t epoch)
{
    kvcache_init(c, &(struct kvcache_setup){ .pool = &g->f.pool,
                                             .stats = group == 0 ? &g->f.stats : &g->other_stats,
                                             .group = group,
                                             .n_groups = 2,
                                             .epoch = epoch,
                                             .keeps_pages = true });
}

static void groups_init(struct groups *g, uint32_t n_pages)
{
    memset(g, 0, sizeof *g);
    sequence_fixture_init(&g->f, 8, 128, n_pages, 8);
    kvcache_fini(&g->f.cache);
    init_group(&g->f.cache, g, 0, 1);
    init_group(&g->other, g, 1, 1);
}

static bool is_sealed(uint32_t page, void *pool)
{
    return atomic_load(&((struct kvpool *)pool)->descs[page].sealed) != 0;
}

static void groups_fini(struct groups *g)
{
    kvcache_fini(&g->other);
    sequence_fixture_fini(&g->f);
}

/* Two groups, one pool: each can have its share whatever the other does, and no page twice. */
static void a_group_keeps_to_its_share(void **state)
{
    struct groups g;
    struct sequence *a, *b;

    (void)state;
    groups_init(&g, 11);
    a = sequence_fixture_add(&g.f, 40, 40, 0);
    b = sequence_fixture_add(&g.f, 40, 40, 0);
    assert_int_equal(kvcache_tokens_max(&g.f.cache), 40);
    assert_true(kvcache_grow(&g.f.cache, a, 40));
    assert_false(kvcache_grow(&g.f.cache, a, 41));
    assert_true(kvcache_grow(&g.other, b, 40));
    assert_int_equal(sequence_fixture_count_leased(&g.f), 10);
    kvcache_commit(&g.f.cache, a, 40);
    kvcache_release(&g.f.cache,
                    a); /* all of them cached now, and still no part of the other's share */
    assert_int_equal(g.f.cache.n_cached, 5);
    assert_false(kvcache_grow(&g.other, b, 41));
    kvcache_release(&g.other, b);
    assert_int_equal(sequence_fixture_count_pins(&g.f), 0);
    groups_fini(&g);
}

/* ---- pages found again ---- */

/* A sequence of n tokens: base, base + 1, ... */
static struct sequence *add_story(struct sequence_fixture *f, int32_t base, uint32_t n)
{
    struct sequence *q = sequence_fixture_add(f, n, 40, 0);

    for (uint32_t i = 0; i < n; i++)
        q->tokens[i] = base + (int32_t)i;
    return q;
}

/* Run q's whole prompt, from wherever it can begin; how many tokens it found. */
static uint32_t run(struct kvcache *c, struct sequence *q)
{
    struct kvcache_match found;
    uint32_t n_found;

    kvcache_match(c, q, &found);
    kvcache_attach(c, q);
    n_found = q->n_computed;
    assert_true(n_found <= found.n_pages * 8 + 7);
    assert_true(kvcache_grow(c, q, sequence_n_tokens(q)));
    for (uint32_t i = n_found; i < sequence_n_tokens(q); i++)
        memcpy(kvpool_page(c->pool, q->pages[i / 8]) + i % 8 * 4, &q->tokens[i], 4);
    kvcache_commit(c, q, sequence_n_tokens(q));
    for (uint32_t i = 0; i < sequence_n_tokens(q); i++)
        assert_memory_equal(kvpool_page(c->pool, q->pages[i / 8]) + i % 8 * 4, &q->tokens[i], 4);
    return n_found;
}

static uint32_t run_and_release(struct kvcache *c, struct sequence *q)
{
    uint32_t n = run(c, q);

    kvcache_release(c, q);
    return n;
}

static void a_sequence_finds_what_one_before_it_computed(void **state)
{
    struct sequence_fixture f;
    struct sequence *q;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 40, 8);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 29)), 0);
    assert_int_equal(f.cache.n_cached, 3); /* the open page is gone */
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 29)), 24);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 25)), 24);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 24)), 23); /* never all of it */
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 8)), 7);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 4)), 0);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 40)), 24);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 41)), 40);
    q = add_story(&f, 100, 41);
    q->tokens[17] = 5; /* one token alike in that page: not worth a copy */
    assert_int_equal(run_and_release(&f.cache, q), 16);
    q = add_story(&f, 100, 41);
    q->tokens[29] = 5;
    assert_int_equal(run_and_release(&f.cache, q), 29);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 38)), 37);
    q = add_story(&f, 100, 41);
    q->tokens[0] = 5;
    assert_int_equal(run_and_release(&f.cache, q),
                     0); /* later pages alike, behind another first one */
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

static void sequences_that_run_share_pages(void **state)
{
    struct sequence_fixture f;
    struct kvcache_match found;
    struct sequence *a, *b, *c;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 8, 8);
    a = add_story(&f, 100, 33);
    b = add_story(&f, 100, 35);
    c = add_story(&f, 100, 20);
    run(&f.cache, a);
    kvcache_match(&f.cache, b, &found);
    assert_int_equal(found.n_pages, 4);
    assert_int_equal(found.n_in_use, 4);
    assert_int_equal(run(&f.cache, b), 32);
    assert_memory_equal(a->pages, b->pages, 4 * sizeof *a->pages);
    assert_int_equal(f.cache.n_used, 6);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_pinned), 10);
    assert_int_equal(kvcache_n_exclusive(&f.cache, a), 1);
    kvcache_release(&f.cache, a);
    assert_balanced(&f);
    assert_int_equal(f.cache.n_used, 5);
    assert_int_equal(run(&f.cache, c), 16);
    assert_balanced(&f);
    kvcache_release(&f.cache, b);
    assert_balanced(&f);
    kvcache_release(&f.cache, c);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* Pages wanted: the longest unused go, last page of a story first, and those in use never. */
static void the_least_recently_used_page_is_evicted(void **state)
{
    struct sequence_fixture f;
    struct sequence *big;

    (void)state;
    sequence_fixture_init(&f, 16, 128, 10, 8);
    run_and_release(&f.cache, add_story(&f, 100, 33));
    run_and_release(&f.cache, add_story(&f, 200, 33));
    assert_int_equal(f.cache.n_cached, 8);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 32); /* young again */
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 300, 33)), 0);
    assert_int_equal(f.cache.n_cached, 9);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 200, 33)), 8); /* one of four left */
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 300, 33)), 32);
    big = sequence_fixture_add(&f, 80, 40, 0);
    assert_int_equal(kvcache_n_free(&f.cache), 10);
    assert_true(kvcache_grow(&f.cache, big, 80));
    assert_int_equal(f.cache.n_cached, 0);
    assert_false(kvcache_grow(&f.cache, big, 81));
    kvcache_release(&f.cache, big);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 300, 33)), 0);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* Two computed the same at the same time.  When the first half of one is gone, what is left of it is
 * found behind the twin of that half. */
static void twins_stand_in_for_each_other(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b;
    uint32_t first[2];

    (void)state;
    sequence_fixture_init(&f, 16, 128, 20, 8);
    a = add_story(&f, 100, 33);
    b = add_story(&f, 100, 17);
    assert_true(kvcache_grow(&f.cache, a, 33) && kvcache_grow(&f.cache, b, 17));
    kvcache_commit(&f.cache, b, 17);
    kvcache_commit(&f.cache, a, 33);
    memcpy(first, b->pages, sizeof first);
    assert_true(a->pages[0] != first[0]);
    kvcache_release(&f.cache, b);
    kvcache_release(&f.cache, a);
    b = add_story(&f, 100, 33);
    memset((void *)f.pool.index, 0, f.pool.hdr->index_slots * sizeof(uint64_t));
    kvpool_publish(&f.pool, first[0]); /* all that the index knows: two of b, two of a */
    kvpool_publish(&f.pool, first[1]);
    kvpool_publish(&f.pool, ledger_pages(&f.ledger, a->entry)[2]);
    kvpool_publish(&f.pool, ledger_pages(&f.ledger, a->entry)[3]);
    kvcache_match(&f.cache, b, &(struct kvcache_match){ 0 });
    kvcache_attach(&f.cache, b);
    assert_int_equal(b->n_computed, 32);
    assert_int_equal(b->pages[1], first[1]);
    assert_true(kvcache_grow(&f.cache, b, 33));
    kvcache_release(&f.cache, b);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* Whoever can make two prompts of one hash still gets only his own. */
static void a_collision_of_hashes_is_no_match(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b;
    uint64_t hash;

    (void)state;
    sequence_fixture_init(&f, 16, 128, 20, 8);
    a = add_story(&f, 100, 24);
    run(&f.cache, a);
    b = add_story(&f, 100, 25);
    b->tokens[3]++; /* another first page, the same second and third */
    hash = kvpool_prefix_root(&f.pool, f.cache.identity);
    for (uint32_t k = 0; k < 3; k++) {
        hash = kvpool_prefix_hash(hash, b->tokens + 8 * k, 8);
        atomic_store(&f.pool.descs[a->pages[k]].prefix_hash, hash);
        kvpool_publish(&f.pool, a->pages[k]);
    }
    assert_int_equal(run(&f.cache, b), 0);
    kvcache_release(&f.cache, b);
    b = add_story(&f, 100, 25);
    b->tokens[3]++;
    assert_int_equal(run(&f.cache, b), 24); /* its own */
    kvcache_release(&f.cache, b);
    kvcache_release(&f.cache, a);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

static void pages_of_another_group_are_copied(void **state)
{
    struct groups g;
    struct sequence *a, *b;

    (void)state;
    groups_init(&g, 40);
    a = add_story(&g.f, 100, 33);
    run_and_release(&g.f.cache, a);
    b = add_story(&g.f, 100, 35);
    assert_int_equal(run(&g.other, b), 32);
    assert_int_equal(stat_get(&g.other_stats, STAT_kv_pages_copied), 4);
    assert_int_equal(g.other.n_used, 5);
    assert_int_equal(g.f.cache.n_cached, 4); /* the other's death would mean nothing */
    kvcache_release(&g.other, b);
    kvcache_distrust(&g.f.cache);
    assert_int_equal(g.f.cache.n_cached, 0);
    assert_int_equal(run(&g.other, add_story(&g.f, 100, 35)), 0); /* doubt is for all groups */
    groups_fini(&g);
}

static void a_copy_of_a_corrupt_page_is_not_used(void **state)
{
    struct groups g;
    struct sequence *a, *b;

    (void)state;
    groups_init(&g, 40);
    a = add_story(&g.f, 100, 33);
    run(&g.f.cache, a);
    kvpool_page(&g.f.pool, a->pages[2])[1] ^= 1;
    b = add_story(&g.f, 100, 35);
    assert_int_equal(run(&g.other, b), 16);
    assert_int_equal(g.other.n_used, 5);
    kvcache_release(&g.other, b);
    kvcache_release(&g.f.cache, a);
    sequence_fixture_assert_idle(&g.f);
    groups_fini(&g);
}

/* A group dies while it copies: its own pages come back, and the other has lost nothing. */
static void death_while_copying_leaves_no_page_behind(void **state)
{
    struct groups g;
    struct sequence *q;
    int status = 0;
    struct err e;
    pid_t pid;

    (void)state;
    groups_init(&g, 40);
    run_and_release(&g.f.cache, add_story(&g.f, 100, 33));
    q = add_story(&g.f, 100, 35);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (fault_points_set("worker.copy=kill:3", 1, &e))
            run(&g.other, q);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(sequence_fixture_count_leased(&g.f), 4 + 3);
    kvcache_fini(&g.other);
    init_group(&g.other, &g, 1, 2);
    assert_int_equal(kvpool_reclaim(&g.f.pool, 1, 2, is_sealed, &g.f.pool), 1);
    kvcache_adopt_cached(&g.other);
    assert_int_equal(g.other.n_cached, 2);
    assert_int_equal(run(&g.other, q), 32);
    kvcache_release(&g.other, q);
    sequence_fixture_assert_idle(&g.f);
    groups_fini(&g);
}

/* ---- pages that are being filled ---- */

static void committed_tokens_of_an_open_page_are_copied(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b, *other;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 40, 8);
    a = add_story(&f, 100, 29);
    run(&f.cache, a);
    b = add_story(&f, 100, 40);
    assert_int_equal(run(&f.cache, b), 29);
    assert_true(a->pages[3] != b->pages[3]);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_copied), 1);
    other = add_story(&f, 100, 40);
    other->tokens[27] = 5; /* three alike: not worth a copy */
    assert_int_equal(run_and_release(&f.cache, other), 24);
    other = add_story(&f, 100, 40);
    other->tokens[20] = 5; /* behind other tokens the same ones are something else */
    assert_int_equal(run_and_release(&f.cache, other), 20);
    kvcache_release(&f.cache, b);
    kvcache_release(&f.cache, a);
    assert_int_equal(f.cache.n_open, 0);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* A prompt of less than a page; who has another salt finds nothing of it. */
static void an_open_first_page_is_found_under_its_salt(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 40, 8);
    a = add_story(&f, 100, 6);
    run(&f.cache, a);
    b = add_story(&f, 100, 20);
    b->request->cache_salt = 7;
    assert_int_equal(run_and_release(&f.cache, b), 0);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 6)), 5);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 7)), 6);
    kvcache_distrust(&f.cache);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 7)), 0);
    kvcache_release(&f.cache, a);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* Found, and gone before it is taken: preempted for its pages, which others have now. */
static void an_open_page_that_went_is_not_copied(void **state)
{
    struct kvcache_match found;
    struct sequence_fixture f;
    struct sequence *a, *b, *c;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 8, 8);
    a = add_story(&f, 100, 29);
    run(&f.cache, a);
    b = add_story(&f, 100, 31);
    kvcache_match(&f.cache, b, &found);
    assert_int_equal(found.n_tokens, 29);
    kvcache_release(&f.cache, a);
    c = add_story(&f, 200, 24); /* has the page that went, and others */
    assert_true(kvcache_grow(&f.cache, c, 24));
    kvcache_attach(&f.cache, b);
    assert_int_equal(b->n_computed, 24);
    assert_balanced(&f);
    kvcache_release(&f.cache, c);
    kvcache_release(&f.cache, b);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* Full, sealed and copied from as any other; a copy is open itself, and copied from. */
static void an_open_page_that_fills_is_a_sealed_one(void **state)
{
    struct sequence_fixture f;
    struct sequence *a, *b;

    (void)state;
    sequence_fixture_init(&f, 16, 64, 40, 8);
    a = add_story(&f, 100, 30);
    assert_true(kvcache_grow(&f.cache, a, 40));
    for (uint32_t i = 0; i < 30; i++)
        memcpy(kvpool_page(&f.pool, a->pages[i / 8]) + i % 8 * 4, &a->tokens[i], 4);
    kvcache_commit(&f.cache, a, 29);
    b = add_story(&f, 100, 30);
    assert_int_equal(run(&f.cache, b), 29);
    kvcache_release(&f.cache, a);
    assert_int_equal(f.cache.n_open, 1);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 31)), 30); /* from the copy */
    kvcache_release(&f.cache, b);
    assert_int_equal(f.cache.n_open, 0);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 31)), 24);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 24);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 32);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

static bool is_listed(uint32_t page, void *q)
{
    const struct sequence *s = q;

    for (uint32_t k = 0; k < s->n_pages; k++)
        if (s->pages[k] == page)
            return true;
    return false;
}

/* Killed with the copy's page in hand: that one comes back, the source is as it was, and its next reader finds it
 * under the successor too. */
static void death_while_an_open_page_is_copied_costs_nothing(void **state)
{
    struct groups g;
    struct sequence *a, *b;
    int status = 0;
    struct err e;
    pid_t pid;

    (void)state;
    groups_init(&g, 40);
    a = add_story(&g.f, 100, 29);
    run(&g.f.cache, a);
    b = add_story(&g.f, 100, 40);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (fault_points_set("worker.copy=kill:1", 1, &e))
            run(&g.f.cache, b);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    assert_int_equal(atomic_load(&b->entry->n_pages), 0);
    assert_int_equal(sequence_fixture_count_leased(&g.f), 4 + 1);
    kvcache_fini(&g.f.cache);
    stats_zero_gauges(&g.f.stats);
    init_group(&g.f.cache, &g, 0, 2);
    assert_int_equal(kvpool_reclaim(&g.f.pool, 0, 2, is_listed, a), 1);
    a->n_pages = 0;
    kvcache_adopt(&g.f.cache, a, 4, 29);
    kvcache_adopt_cached(&g.f.cache);
    assert_int_equal(run(&g.f.cache, b), 29);
    kvcache_release(&g.f.cache, b);
    kvcache_release(&g.f.cache, a);
    sequence_fixture_assert_idle(&g.f);
    groups_fini(&g);
}

static void nothing_is_kept_when_the_cache_is_off(void **state)
{
    struct sequence_fixture f;

    (void)state;
    sequence_fixture_init(&f, 16, 128, 20, 8);
    f.cache.keeps_pages = false;
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 0);
    assert_int_equal(sequence_fixture_count_leased(&f), 0);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 0);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

/* The worker died and the next one begins. */
static void succeed(struct sequence_fixture *f)
{
    kvcache_fini(&f->cache);
    memset(&f->stats, 0, sizeof f->stats);
    kvcache_init(
        &f->cache,
        &(struct kvcache_setup){
            .pool = &f->pool, .stats = &f->stats, .n_groups = 1, .epoch = 1, .keeps_pages = true });
    kvcache_adopt_cached(&f->cache);
}

/* A worker died: its successor finds the pages nobody lists, and reads the checksum when it does. */
static void cached_pages_of_a_predecessor_are_verified_when_found(void **state)
{
    struct sequence_fixture f;
    struct sequence *q;
    uint32_t bad;

    (void)state;
    sequence_fixture_init(&f, 16, 128, 20, 8);
    q = add_story(&f, 100, 33);
    run(&f.cache, q);
    bad = q->pages[2];
    kvcache_release(&f.cache, q);
    kvpool_page(&f.pool, bad)[0] ^= 1;
    succeed(&f);
    assert_int_equal(f.cache.n_cached, 4);
    assert_balanced(&f);
    q = add_story(&f, 100, 33);
    assert_int_equal(run(&f.cache, q), 16);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_corrupt), 1);
    assert_balanced(&f);
    kvcache_release(&f.cache, q);
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 32);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

static bool no_answer(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    (void)ctx, (void)pages, (void)n, (void)sums;
    return false;
}

/* Its device does not answer: not used, nor dropped, nor called corrupt. */
static void a_cached_page_that_cannot_be_read_is_looked_at_again(void **state)
{
    struct sequence_fixture f;
    struct kvcache_match found;
    struct sequence *q;
    struct kv_data data;

    (void)state;
    sequence_fixture_init(&f, 16, 128, 20, 8);
    run_and_release(&f.cache, add_story(&f, 100, 33));
    succeed(&f);
    data = f.pool.data;
    f.pool.data.checksums = no_answer;
    q = add_story(&f, 100, 33);
    kvcache_match(&f.cache, q, &found);
    kvcache_attach(&f.cache, q);
    assert_int_equal(found.n_pages, 4);
    assert_int_equal(q->n_computed, 0);
    assert_int_equal(f.cache.n_cached, 4);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_corrupt), 0);
    kvcache_release(&f.cache, q);
    f.pool.data = data;
    assert_int_equal(run_and_release(&f.cache, add_story(&f, 100, 33)), 32);
    assert_int_equal(stat_get(&f.stats, STAT_kv_pages_corrupt), 0);
    sequence_fixture_assert_idle(&f);
    sequence_fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_follow_the_tokens_and_come_back),
        cmocka_unit_test(growing_past_the_pool_changes_nothing),
        cmocka_unit_test(commit_writes_ids_across_pages),
        cmocka_unit_test(pages_of_a_step_are_read_together),
        cmocka_unit_test(full_pages_are_sealed_in_a_chain),
        cmocka_unit_test(a_group_keeps_to_its_share),
        cmocka_unit_test(a_sequence_finds_what_one_before_it_computed),
        cmocka_unit_test(sequences_that_run_share_pages),
        cmocka_unit_test(the_least_recently_used_page_is_evicted),
        cmocka_unit_test(twins_stand_in_for_each_other),
        cmocka_unit_test(a_collision_of_hashes_is_no_match),
        cmocka_unit_test(pages_of_another_group_are_copied),
        cmocka_unit_test(a_copy_of_a_corrupt_page_is_not_used),
        cmocka_unit_test(death_while_copying_leaves_no_page_behind),
        cmocka_unit_test(committed_tokens_of_an_open_page_are_copied),
        cmocka_unit_test(an_open_first_page_is_found_under_its_salt),
        cmocka_unit_test(an_open_page_that_went_is_not_copied),
        cmocka_unit_test(an_open_page_that_fills_is_a_sealed_one),
        cmocka_unit_test(death_while_an_open_page_is_copied_costs_nothing),
        cmocka_unit_test(nothing_is_kept_when_the_cache_is_off),
        cmocka_unit_test(cached_pages_of_a_predecessor_are_verified_when_found),
        cmocka_unit_test(a_cached_page_that_cannot_be_read_is_looked_at_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
