/* sequence_fixture.h - a ledger, a pool and sequences in them, for tests of the parts of the engine. */
#ifndef LLMD_TESTS_SEQUENCE_FIXTURE_H
#define LLMD_TESTS_SEQUENCE_FIXTURE_H

#include "gpu-worker/kvcache.h"

struct sequence_fixture {
    struct ledger ledger;
    struct kvpool pool;
    struct stats stats;
    struct kvcache cache;
    struct sequence *sequences; /* [n_entries] */
    uint32_t n_entries;
    uint64_t next_order;
};

void sequence_fixture_init(struct sequence_fixture *f, uint32_t n_entries, uint32_t tokens_max,
                           uint32_t n_pages, uint32_t page_tokens);
void sequence_fixture_fini(struct sequence_fixture *f);

/* Store and load one in a free entry. */
struct sequence *sequence_fixture_add(struct sequence_fixture *f, uint32_t n_prompt,
                                      uint32_t max_tokens, int32_t priority);
/* Unload it and free its entry. */
void sequence_fixture_remove(struct sequence_fixture *f, struct sequence *q);

/* Leases and pins in the pool's own words, to compare with the board. */
uint32_t sequence_fixture_count_leased(const struct sequence_fixture *f);
uint32_t sequence_fixture_count_pins(const struct sequence_fixture *f);

/* What the cache, the board and the pool say of pages is the same. */
void sequence_fixture_assert_balanced(const struct sequence_fixture *f);
/* The same, and no page is in use. */
void sequence_fixture_assert_idle(const struct sequence_fixture *f);

#endif
