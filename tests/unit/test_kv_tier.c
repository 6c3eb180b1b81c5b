/* test_kv_tier.c - KV pages that go to host memory and come back, with a "GPU" that is memory of this process.
 *
 * Would break in production: a prompt computed again that was in host memory; a page of other tokens given to a
 * sequence; a page freed while it is copied; a copy that never ends and holds a sequence for ever. */
#include <string.h>

#include "common/clock.h"
#include "sequence_fixture.h"
#include "tests/check.h"

enum { PAGE_TOKENS = 8, PAGE_BYTES = 2 * PAGE_TOKENS * 4, GROUPS_MAX = 2 };

/* ---- who copies ---- */

struct copies {
    uint32_t n, pages[KV_TIER_BATCH_MAX], slots[KV_TIER_BATCH_MAX];
};

struct gpu {
    struct kvpool *pool;
    struct host_tier *host;
    enum kv_tier_memory memory;
    bool is_slow; /* what is begun is done when somebody waits for it */
    bool fails;
    struct copies under_way[N_KV_TIER_WAYS];
    uint32_t n_copied[N_KV_TIER_WAYS], n_batches[N_KV_TIER_WAYS], n_waits;
};

static enum kv_tier_memory gpu_memory(void *ctx)
{
    return ((struct gpu *)ctx)->memory;
}

static bool gpu_begin(void *ctx, enum kv_tier_way way, const uint32_t *pages, const uint32_t *slots,
                      uint32_t n)
{
    struct gpu *g = ctx;
    struct copies *c = &g->under_way[way];

    assert_true(n > 0 && n <= KV_TIER_BATCH_MAX && c->n == 0);
    memcpy(c->pages, pages, n * sizeof *pages);
    memcpy(c->slots, slots, n * sizeof *slots);
    c->n = n;
    g->n_batches[way]++;
    return !g->fails;
}

/* Late: what must not change meanwhile is copied wrong when it does. */
static bool gpu_finish(void *ctx, enum kv_tier_way way)
{
    struct gpu *g = ctx;
    struct copies *c = &g->under_way[way];

    for (uint32_t i = 0; i < c->n; i++) {
        char *page = kvpool_page(g->pool, c->pages[i]);
        char *slot = host_tier_part(g->host, 0) + c->slots[i] * g->host->hdr->slot_bytes;
        memcpy(way == KV_TIER_SAVE ? slot : page, way == KV_TIER_SAVE ? page : slot, PAGE_BYTES);
    }
    g->n_copied[way] += c->n;
    g->n_waits++;
    c->n = 0;
    return !g->fails;
}

static enum kv_tier_wait gpu_poll(void *ctx, enum kv_tier_way way)
{
    struct gpu *g = ctx;

    if (g->fails)
        return KV_TIER_FAILED;
    if (g->is_slow)
        return KV_TIER_UNDER_WAY;
    return gpu_finish(ctx, way) ? KV_TIER_DONE : KV_TIER_FAILED;
}

/* ---- groups on one pool and one tier ---- */

struct group {
    struct kvpool pool;    /* as this group sees it */
    struct host_tier host; /* the same */
    struct kvcache cache;
    struct stats stats;
    struct gpu gpu;
    struct kv_tier_data data;
    uint32_t epoch;
};

struct rig {
    struct sequence_fixture f;
    struct host_tier host;
    struct group groups[GROUPS_MAX];
    uint32_t n_groups;
    bool others_sleep; /* while one group waits, the others do not plan steps */
};

static void open_group(struct rig *r, uint32_t index)
{
    struct group *g = &r->groups[index];
    uint32_t share = r->f.pool.hdr->n_pages / r->n_groups;

    g->pool = r->f.pool;
    g->host = r->host;
    g->epoch++;
    if (r->n_groups > 1) /* of another group's GPU nothing is read */
        kvpool_set_share(&g->pool, share * index, share);
    g->gpu.pool = &g->pool;
    g->gpu.host = &g->host;
    g->data = (struct kv_tier_data){ &g->gpu, gpu_memory, gpu_begin, gpu_poll, gpu_finish };
    kvcache_init(&g->cache, &(struct kvcache_setup){ .pool = &g->pool,
                                                     .stats = &g->stats,
                                                     .host_tier = &g->host,
                                                     .tier_data = &g->data,
                                                     .group = index,
                                                     .n_groups = r->n_groups,
                                                     .epoch = g->epoch,
                                                     .keeps_pages = true });
}

static void rig_open(struct rig *r, uint32_t n_groups, uint32_t n_pages, uint32_t n_slots)
{
    const struct host_tier_shape shape = { .n_slots = n_slots * n_groups,
                                           .page_tokens = PAGE_TOKENS,
                                           .n_ranks = 1,
                                           .slot_bytes = PAGE_BYTES };
    struct err e;

    memset(r, 0, sizeof *r);
    sequence_fixture_init(&r->f, 64, 320, n_pages * n_groups, PAGE_TOKENS);
    assert_ok(host_tier_create(&r->host, &shape, 1, &e), e);
    r->n_groups = n_groups;
    for (uint32_t i = 0; i < n_groups; i++) {
        r->groups[i].gpu.memory = KV_TIER_READY;
        open_group(r, i);
    }
}

static void rig_close(struct rig *r)
{
    for (uint32_t i = 0; i < r->n_groups; i++)
        kvcache_fini(&r->groups[i].cache);
    host_tier_close(&r->host);
    sequence_fixture_fini(&r->f);
}

static uint64_t count(const struct group *g, enum stat_id id)
{
    return stat_get(&g->stats, id);
}

/* ---- prompts ---- */

/* n tokens: base, base + 1, ... */
static struct sequence *add_story(struct rig *r, int32_t base, uint32_t n)
{
    struct sequence *q = sequence_fixture_add(&r->f, n, 1, 0);

    for (uint32_t i = 0; i < n; i++)
        q->tokens[i] = base + (int32_t)i;
    return q;
}

/* As the scheduler does: match, wait for what comes, match again. */
static void bring_all(struct rig *r, struct group *g, struct sequence *q)
{
    uint64_t end_ns = clock_mono_ns() + 60 * NS_PER_S;
    struct kvcache_match found;

    for (;;) {
        assert_true(clock_mono_ns() < end_ns);
        for (uint32_t i = 0; i < r->n_groups && !r->others_sleep; i++)
            if (g != &r->groups[i])
                kvcache_begin_plan(&r->groups[i].cache);
        kvcache_begin_plan(&g->cache);
        if (kvcache_is_coming(&g->cache, q))
            continue;
        kvcache_match(&g->cache, q, &found);
        if (!kvcache_bring(&g->cache, q))
            return;
    }
}

/* The KV of a token here is the token, so that any page of others is seen. */
static void check_kv(struct group *g, const struct sequence *q, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_memory_equal(kvpool_page(&g->pool, q->pages[i / PAGE_TOKENS]) + i % PAGE_TOKENS * 4,
                            &q->tokens[i], 4);
}

static void compute(struct group *g, struct sequence *q)
{
    uint32_t n = sequence_n_tokens(q);

    assert_true(kvcache_grow(&g->cache, q, n));
    for (uint32_t i = q->n_computed; i < n; i++)
        memcpy(kvpool_page(&g->pool, q->pages[i / PAGE_TOKENS]) + i % PAGE_TOKENS * 4,
               &q->tokens[i], 4);
    kvcache_commit(&g->cache, q, n);
    check_kv(g, q, n);
}

/* Run a prompt; how many of its tokens had not to be computed. */
static uint32_t begin(struct rig *r, struct group *g, struct sequence *q)
{
    uint32_t n_found;

    bring_all(r, g, q);
    kvcache_attach(&g->cache, q);
    q->n_brought = 0;
    q->wishes_until_ns = 0;
    n_found = q->n_computed;
    check_kv(g, q, n_found);
    compute(g, q);
    return n_found;
}

static uint32_t run(struct rig *r, uint32_t group, int32_t base, uint32_t n)
{
    struct sequence *q = add_story(r, base, n);
    uint32_t n_found = begin(r, &r->groups[group], q);

    kvcache_release(&r->groups[group].cache, q);
    sequence_fixture_remove(&r->f, q);
    return n_found;
}

/* ---- the tests ---- */

static void what_is_evicted_comes_back(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    assert_int_equal(run(&r, 0, 1000, 65), 0);
    assert_int_equal(run(&r, 0, 2000, 65), 0); /* takes the place of the first */
    assert_int_equal(run(&r, 0, 1000, 65), 64);
    assert_int_equal(run(&r, 0, 2000, 65), 64);
    assert_true(count(g, STAT_kv_pages_restored) >= 8);
    assert_int_equal(count(g, STAT_kv_host_pages), count(g, STAT_kv_pages_saved));
    for (int i = 0; i < 20; i++)
        assert_int_equal(run(&r, 0, 1000 + 1000 * (i % 2), 65), 64);
    assert_int_equal(count(g, STAT_kv_pages_saved), 16); /* what came back is not saved again */
    assert_int_equal(g->cache.n_used, 0);
    rig_close(&r);
}

static void a_page_found_twice_is_saved_at_once(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 40, 40);
    run(&r, 0, 1000, 33);
    run(&r, 0, 1000, 33);
    kvcache_begin_plan(&g->cache);
    assert_int_equal(g->gpu.n_copied[KV_TIER_SAVE], 0);
    assert_false(kvcache_is_moving(&g->cache));
    run(&r, 0, 1000, 33);
    assert_true(kvcache_is_moving(&g->cache));
    kvcache_begin_plan(&g->cache);
    kvcache_begin_plan(&g->cache);
    assert_int_equal(count(g, STAT_kv_pages_saved), 4);
    assert_false(kvcache_is_moving(&g->cache));
    run(&r, 0, 1000, 33);
    kvcache_begin_plan(&g->cache);
    assert_int_equal(g->gpu.n_batches[KV_TIER_SAVE], 1); /* once is enough */
    rig_close(&r);
}

static void few_pages_are_computed_and_not_brought(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 1, 12, 40);
    run(&r, 0, 1000, 25);
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 0, 1000, 25), 0);
    assert_int_equal(r.groups[0].gpu.n_batches[KV_TIER_RESTORE], 0);
    rig_close(&r);
}

/* More than one batch: each goes on where the last one ended. */
static void a_long_prompt_comes_in_several_batches(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 40, 80);
    run(&r, 0, 1000, 281);
    run(&r, 0, 5000, 319);
    assert_int_equal(run(&r, 0, 1000, 281), 280);
    assert_int_equal(g->gpu.n_batches[KV_TIER_RESTORE], 2);
    assert_int_equal(count(g, STAT_kv_pages_restored), 35);
    rig_close(&r);
}

static void what_was_computed_behind_a_page_that_came_back_is_found(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 1, 12, 80);
    run(&r, 0, 1000, 41);
    run(&r, 0, 5000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 40); /* goes on behind five pages that came back */
    run(&r, 0, 6000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 64); /* all eight: saved under two sets of names */
    run(&r, 0, 7000, 90);
    assert_int_equal(run(&r, 0, 1000, 89), 64);
    rig_close(&r);
}

static void a_corrupt_slot_costs_the_pages_from_there_on(void **state)
{
    struct host_slot_ref ref = { HOST_SLOT_NONE, 0 };
    struct rig r;
    struct group *g = &r.groups[0];
    const int32_t ids[PAGE_TOKENS] = { 1016, 1017, 1018, 1019, 1020, 1021, 1022, 1023 };

    (void)state;
    rig_open(&r, 1, 12, 40);
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    for (uint32_t slot = 0; slot < 40; slot++) /* its third page */
        if (memcmp(host_tier_ids(&r.host, slot), ids, sizeof ids) == 0)
            ref.slot = slot;
    assert_true(ref.slot != HOST_SLOT_NONE);
    host_tier_part(&r.host, 0)[ref.slot * PAGE_BYTES + 5] ^= 4;
    assert_int_equal(run(&r, 0, 1000, 65), 16);
    assert_int_equal(count(g, STAT_kv_host_pages_corrupt), 1);
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 64); /* saved anew */
    assert_int_equal(count(g, STAT_kv_host_pages_corrupt), 1);
    rig_close(&r);
}

/* A hash is a hint: a slot whose page was computed behind other tokens is another page. */
static void the_pages_before_it_must_be_the_same(void **state)
{
    struct kvcache_match found;
    struct sequence *q;
    struct rig r;
    uint64_t hash;

    (void)state;
    rig_open(&r, 1, 40, 40);
    q = add_story(&r, 1000, 65);
    kvcache_begin_plan(&r.groups[0].cache);
    hash = kvcache_root(&r.groups[0].cache, q);
    for (uint32_t k = 0; k < 8; k++) { /* as if all of them collided with those of another prompt */
        struct host_copy copy = { .origin = { k, 7 }, .parent = { 30 + k, 7 } };
        uint32_t cursor = 0, slot = host_tier_take(&r.host, 1, &cursor);
        hash = kvpool_prefix_hash(hash, q->tokens + k * PAGE_TOKENS, PAGE_TOKENS);
        copy.prefix_hash = hash;
        if (k == 0)
            copy.parent.page = KV_PAGE_NONE;
        host_tier_describe(&r.host, slot, &copy, q->tokens + k * PAGE_TOKENS);
        host_tier_seal(&r.host, slot, 1);
    }
    kvcache_match(&r.groups[0].cache, q, &found);
    assert_int_equal(r.groups[0].cache.n_chain, 1);
    assert_false(kvcache_bring(&r.groups[0].cache, q));
    rig_close(&r);
}

static void another_group_finds_what_was_saved(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 2, 12, 40);
    r.others_sleep = true;
    run(&r, 0, 1000, 65);
    run(&r, 1, 3000, 90);
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 64);
    run(&r, 0, 4000, 65);
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 1, 4000, 65), 64);
    assert_int_equal(run(&r, 1, 2000, 89), 88);
    assert_true(count(&r.groups[1], STAT_kv_pages_restored) >= 16);
    rig_close(&r);
}

/* A page that is on another group's GPU alone is saved there when it is asked for, and not when nobody answers. */
static void another_group_saves_what_is_asked_for(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 2, 40, 40);
    run(&r, 0, 1000, 65);
    assert_int_equal(count(&r.groups[0], STAT_kv_pages_saved), 0);
    assert_int_equal(run(&r, 1, 1000, 105), 64);
    assert_int_equal(count(&r.groups[0], STAT_kv_pages_saved), 8);
    assert_int_equal(count(&r.groups[1], STAT_kv_pages_restored), 8);
    assert_int_equal(run(&r, 0, 1000, 105), 104); /* and the five behind them, back */
    assert_int_equal(count(&r.groups[0], STAT_kv_pages_restored), 5);
    r.others_sleep = true;
    run(&r, 0, 5000, 65);
    assert_int_equal(run(&r, 1, 5000, 65), 0);
    rig_close(&r);
}

/* Whoever is evicted is waited for; nobody writes to a page that is being read (gpu_finish() copies late). */
static void a_page_stays_until_it_is_saved(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    g->gpu.is_slow = true;
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    assert_true(g->gpu.n_waits > 0);
    g->gpu.is_slow = false;
    assert_int_equal(run(&r, 0, 1000, 65), 64);
    rig_close(&r);
}

/* Its sequence is cancelled while pages are on their way: they come, and are cached. */
static void pages_come_whether_they_are_still_wanted_or_not(void **state)
{
    struct kvcache_match found;
    struct sequence *q, *other;
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    g->gpu.is_slow = true;
    q = add_story(&r, 1000, 65);
    kvcache_begin_plan(&g->cache);
    kvcache_match(&g->cache, q, &found);
    assert_true(kvcache_bring(&g->cache, q));
    assert_true(kvcache_is_coming(&g->cache, q));
    assert_int_equal(g->cache.n_used, 8);
    other = add_story(&r, 2000, 90);
    kvcache_match(&g->cache, other, &found);
    assert_true(kvcache_bring(&g->cache, other)); /* one at a time: it waits for its turn */
    kvcache_begin_plan(&g->cache);
    assert_true(kvcache_is_coming(&g->cache, q) && kvcache_is_coming(&g->cache, other));
    sequence_fixture_remove(&r.f, q);
    g->gpu.is_slow = false;
    kvcache_begin_plan(&g->cache);
    assert_false(kvcache_is_coming(&g->cache, other));
    assert_int_equal(g->cache.n_used, 0);
    assert_int_equal(run(&r, 0, 1000, 65), 64);
    assert_int_equal(begin(&r, g, other), 88);
    kvcache_release(&g->cache, other);
    rig_close(&r);
}

static void what_was_saved_outlives_its_worker_and_what_was_half_saved_does_not(void **state)
{
    struct kvcache_match found;
    struct sequence *q;
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    r.f.pool.data.quarantine_ns = 1;
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    g->gpu.is_slow = true;
    for (int i = 0; i < 3; i++)
        run(&r, 0, 2000, 90);
    kvcache_begin_plan(&g->cache); /* found twice: is being saved */
    assert_true(g->gpu.under_way[KV_TIER_SAVE].n > 0);
    assert_int_equal(count(g, STAT_kv_host_pages), 8);
    /* it dies; its successor's pages are its own */
    stat_set(&g->stats, STAT_kv_host_pages, 0);
    stat_set(&g->stats, STAT_kv_pages_cached, 0);
    g->gpu.under_way[KV_TIER_SAVE].n = 0;
    g->gpu.is_slow = false;
    kvcache_fini(&g->cache);
    kvpool_reclaim(&r.f.pool, 0, 2, NULL, NULL);
    open_group(&r, 0);
    assert_int_equal(count(g, STAT_kv_host_pages), 8);
    while (g->cache.tier->n_quarantined > 0)
        kvcache_begin_plan(&g->cache);
    assert_int_equal(run(&r, 0, 1000, 65), 64);
    q = add_story(&r, 2000, 90);
    kvcache_match(&g->cache, q, &found);
    assert_int_equal(g->cache.n_chain, 0);
    rig_close(&r);
}

static void without_memory_it_goes_on_without(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    g->gpu.memory = KV_TIER_COMING;
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 0);
    g->gpu.memory = KV_TIER_NONE;
    while (!g->cache.tier->is_off)
        kvcache_begin_plan(&g->cache);
    g->gpu.memory = KV_TIER_READY; /* for good */
    run(&r, 0, 2000, 90);
    assert_int_equal(run(&r, 0, 1000, 65), 0);
    assert_int_equal(g->gpu.n_batches[KV_TIER_SAVE], 0);
    rig_close(&r);
}

static void a_copy_that_fails_ends_the_tier_and_no_sequence(void **state)
{
    struct rig r;
    struct group *g = &r.groups[0];

    (void)state;
    rig_open(&r, 1, 12, 40);
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    g->gpu.fails = true;
    assert_int_equal(run(&r, 0, 1000, 65), 0);
    assert_true(g->cache.tier->is_off);
    assert_int_equal(run(&r, 0, 3000, 90), 0);
    assert_int_equal(g->cache.n_used, 0);
    rig_close(&r);
}

/* KV that may be wrong is not found again, wherever it is. */
static void distrust_reaches_the_tier(void **state)
{
    struct rig r;

    (void)state;
    rig_open(&r, 1, 12, 40);
    run(&r, 0, 1000, 65);
    run(&r, 0, 2000, 90);
    kvcache_distrust(&r.groups[0].cache);
    assert_int_equal(run(&r, 0, 1000, 65), 0);
    rig_close(&r);
}

static uint32_t draw(uint64_t *seed, uint32_t n)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33) % n;
}

/* Prompts with beginnings in common on two groups, with a pool and a tier that are both too small: whatever comes
 * back, check_kv() looks at every byte of it. */
static void any_order_of_prompts_gives_the_right_pages(void **state)
{
    uint64_t seed = 20260728;
    struct rig r;

    (void)state;
    rig_open(&r, 2, 24, 30);
    for (int turn = 0; turn < 1500; turn++) {
        uint32_t group = draw(&seed, 2), n = 20 + draw(&seed, 150);
        struct group *g = &r.groups[group];
        struct sequence *q = add_story(&r, 1000 * (int32_t)(1 + draw(&seed, 3)), n);
        uint32_t fork = 8 * draw(&seed, n / 8);
        for (uint32_t i = fork; i < n && draw(&seed, 3) == 0; i++)
            q->tokens[i] += 500 * (int32_t)draw(&seed, 3);
        g->gpu.is_slow = draw(&seed, 4) == 0 && !kvcache_is_moving(&g->cache);
        if (g->gpu.is_slow) {
            kvcache_begin_plan(&g->cache);
            g->gpu.is_slow = false;
        }
        begin(&r, g, q);
        kvcache_release(&g->cache, q);
        sequence_fixture_remove(&r.f, q);
        assert_int_equal(g->cache.n_used, 0);
        assert_true(count(g, STAT_kv_host_pages) <= 30);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(count(&r.groups[i], STAT_kv_pages_restored) > 100);
        assert_int_equal(count(&r.groups[i], STAT_kv_host_pages_corrupt), 0);
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_evicted_comes_back),
        cmocka_unit_test(a_page_found_twice_is_saved_at_once),
        cmocka_unit_test(few_pages_are_computed_and_not_brought),
        cmocka_unit_test(a_long_prompt_comes_in_several_batches),
        cmocka_unit_test(what_was_computed_behind_a_page_that_came_back_is_found),
        cmocka_unit_test(a_corrupt_slot_costs_the_pages_from_there_on),
        cmocka_unit_test(the_pages_before_it_must_be_the_same),
        cmocka_unit_test(another_group_finds_what_was_saved),
        cmocka_unit_test(another_group_saves_what_is_asked_for),
        cmocka_unit_test(a_page_stays_until_it_is_saved),
        cmocka_unit_test(pages_come_whether_they_are_still_wanted_or_not),
        cmocka_unit_test(what_was_saved_outlives_its_worker_and_what_was_half_saved_does_not),
        cmocka_unit_test(without_memory_it_goes_on_without),
        cmocka_unit_test(a_copy_that_fails_ends_the_tier_and_no_sequence),
        cmocka_unit_test(distrust_reaches_the_tier),
        cmocka_unit_test(any_order_of_prompts_gives_the_right_pages),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
