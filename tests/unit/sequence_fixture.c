/* sequence_fixture.c - see sequence_fixture.h. */
#include "sequence_fixture.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void sequence_fixture_init(struct sequence_fixture *f, uint32_t n_entries, uint32_t tokens_max,
                           uint32_t n_pages, uint32_t page_tokens)
{
    struct ledger_shape ledger = {
        .n_entries = n_entries, .tokens_max = tokens_max, .page_tokens = page_tokens, .top_max = 4
    };
    struct kvpool_shape pool = { .n_pages = n_pages,
                                 .page_tokens = page_tokens,
                                 .n_layers = 1,
                                 .n_kv_heads = 1,
                                 .head_dim = 1,
                                 .dtype = DTYPE_F32 };
    struct err e;
    bool ok;

    memset(f, 0, sizeof *f);
    ok = ledger_create(&f->ledger, &ledger, 0, 1, &e) && kvpool_create(&f->pool, &pool, 1, &e);
    assert(ok);
    kvcache_init(
        &f->cache,
        &(struct kvcache_setup){
            .pool = &f->pool, .stats = &f->stats, .n_groups = 1, .epoch = 1, .keeps_pages = true });
    f->n_entries = n_entries;
    f->sequences = mem_zalloc(n_entries, sizeof *f->sequences);
}

void sequence_fixture_fini(struct sequence_fixture *f)
{
    for (uint32_t i = 0; i < f->n_entries; i++)
        if (f->sequences[i].state != SEQUENCE_FREE)
            sequence_unload(&f->sequences[i]);
    free(f->sequences);
    kvcache_fini(&f->cache);
    ledger_close(&f->ledger);
    kvpool_close(&f->pool);
}

struct sequence *sequence_fixture_add(struct sequence_fixture *f, uint32_t n_prompt,
                                      uint32_t max_tokens, int32_t priority)
{
    Llmd__Submit submit = LLMD__SUBMIT__INIT;
    Llmd__Sampling sampling = LLMD__SAMPLING__INIT;
    int32_t *prompt = mem_alloc(n_prompt * sizeof *prompt);
    struct sequence *q;
    uint32_t i = 0;
    struct err e;
    bool ok;

    while (f->sequences[i].state != SEQUENCE_FREE)
        i++;
    assert(i < f->n_entries);
    for (uint32_t k = 0; k < n_prompt; k++)
        prompt[k] = (int32_t)(1000 * i + k);
    submit.sequence_id = ++f->next_order;
    submit.sampling = &sampling;
    submit.prompt = prompt;
    submit.n_prompt = n_prompt;
    submit.max_tokens = max_tokens;
    submit.priority = priority;
    sequence_store(&f->ledger, ledger_entry(&f->ledger, i), &submit, 1, 1);
    q = &f->sequences[i];
    ok = sequence_load(q, &f->ledger, i, f->ledger.hdr->tokens_max, &e);
    assert(ok);
    q->order = f->next_order;
    free(prompt);
    return q;
}

void sequence_fixture_remove(struct sequence_fixture *f, struct sequence *q)
{
    (void)f;
    atomic_store(&q->entry->state, LEDGER_FREE);
    sequence_unload(q);
}

uint32_t sequence_fixture_count_leased(const struct sequence_fixture *f)
{
    return f->pool.hdr->n_pages - kvpool_count_free(&f->pool);
}

uint32_t sequence_fixture_count_pins(const struct sequence_fixture *f)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < f->pool.hdr->n_pages; i++)
        n += atomic_load(&f->pool.descs[i].pins);
    return n;
}

void sequence_fixture_assert_balanced(const struct sequence_fixture *f)
{
    uint32_t n_used = 0, n_cached = 0;

    for (uint32_t i = 0; i < f->pool.hdr->n_pages; i++) {
        const struct kv_page_desc *d = &f->pool.descs[i];
        bool is_leased = atomic_load(&d->lease) == f->cache.lease;
        n_used += is_leased && atomic_load(&d->pins) > 0;
        n_cached += is_leased && atomic_load(&d->pins) == 0;
        assert(!is_leased || atomic_load(&d->pins) > 0 || atomic_load(&d->sealed));
    }
    assert(f->cache.n_used == n_used && f->cache.n_cached == n_cached);
    assert(n_used + n_cached <= f->cache.pages_max);
    assert(stat_get(&f->stats, STAT_kv_pages_leased) == n_used);
    assert(stat_get(&f->stats, STAT_kv_pages_cached) == n_cached);
    assert(stat_get(&f->stats, STAT_kv_pages_pinned) == sequence_fixture_count_pins(f));
}

void sequence_fixture_assert_idle(const struct sequence_fixture *f)
{
    sequence_fixture_assert_balanced(f);
    assert(f->cache.n_used == 0 && sequence_fixture_count_pins(f) == 0);
}
