/* test_page_adoption.c - KV pages that a dead worker leaves.  Would break in production: a page that is not what it
 * was when it was sealed gives other tokens; or whole ones are computed again.
 *
 * The worker's death is an engine that stops as it stands, in this process: which pages the next one
 * takes can be counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine_rig.h"

enum { N_KEPT = 6 };

struct kept {
    struct rig rig;
    struct client client;
    int32_t prompts[N_KEPT][64];
    Llmd__LogitBias bias[N_KEPT], *lists[N_KEPT];
    struct client_request requests[N_KEPT];
    uint64_t n_prompt_tokens; /* computed before the death */
    uint64_t n_again;         /* and after it */
};

static bool all_have_tokens(const void *arg)
{
    const struct client *c = arg;

    for (uint32_t i = 0; i < c->n_streams; i++)
        if (c->streams[i].n < 12)
            return false;
    return true;
}

static bool is_greeted(const void *arg)
{
    return ((const struct client *)arg)->is_greeted;
}

/* Several sequences in the middle of their answers, and the worker is gone. */
static void kept_init(struct kept *k)
{
    struct err e;

    memset(k, 0, sizeof *k);
    rig_make_segments(&k->rig, &rig_roomy);
    assert_true(config_set(&k->rig.config, "speculate", "off", "test", &e)); /* rows are counted */
    fake_settings.step_us = 2000; /* none may end before the last one has come */
    rig_start(&k->rig);
    client_open(&k->client, k->rig.instance, 1);
    for (uint32_t i = 0; i < N_KEPT; i++) {
        k->requests[i] = rig_mixed_request(i, k->prompts[i], &k->bias[i], &k->lists[i]);
        k->requests[i].n_prompt = 20 + i;
        k->requests[i].ignore_eos = true;
        k->requests[i].max_tokens = 60;
        client_submit(&k->client, 1 + i, &k->requests[i]);
    }
    rig_until(&k->rig, &k->client, all_have_tokens, &k->client);
    rig_stop(&k->rig);
    k->n_prompt_tokens = stat_get(rig_stats(&k->rig), STAT_prompt_tokens);
}

static uint64_t recomputed_prompt_tokens(const struct kept *k)
{
    return stat_get(rig_stats(&k->rig), STAT_prompt_tokens) - k->n_prompt_tokens;
}

/* The next worker serves to the end; the bytes are those of an undisturbed run. */
static void kept_finish(struct kept *k)
{
    rig_until_all_over(&k->rig, &k->client);
    for (uint32_t i = 0; i < N_KEPT; i++)
        rig_assert_expected(&k->client.streams[i], &k->requests[i]);
    rig_until_empty(&k->rig, &k->client);
    rig_assert_clean(&k->rig);
    k->n_again = recomputed_prompt_tokens(k);
    client_close(&k->client);
    rig_close(&k->rig);
}

/* Of request i: entries are in the order in which requests came, which is not always that of sending. */
static struct ledger_entry *entry_of(const struct kept *k, uint32_t i)
{
    for (uint32_t n = 0; n < N_KEPT; n++) {
        struct ledger_entry *e = ledger_entry(&k->rig.ledger, n);
        if (e->sequence_id == 1 + i)
            return e;
    }
    fail_msg("no entry of request %u", i);
    return NULL;
}

static uint32_t page_number(const struct kept *k, uint32_t i, uint32_t number)
{
    return ledger_pages(&k->rig.ledger, entry_of(k, i))[number];
}

static void sequences_go_on_with_their_next_token(void **state)
{
    struct kept k;

    (void)state;
    kept_init(&k);
    rig_start(&k.rig);
    assert_true(stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted) >= N_KEPT * 4);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_pinned),
                     stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted));
    rig_turn(&k.rig, &k.client);
    assert_int_equal(fake_last_rows, N_KEPT); /* a row each: nothing is computed again */
    assert_int_equal(recomputed_prompt_tokens(&k), 0);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_corrupt), 0);
    kept_finish(&k);
}

static void a_flipped_bit_costs_its_sequence_the_pages_from_there_on(void **state)
{
    struct kept k;

    (void)state;
    kept_init(&k);
    kvpool_page(&k.rig.pool, page_number(&k, 2, 1))[5] ^= 0x10;
    rig_start(&k.rig);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_corrupt), 1);
    kept_finish(&k);
    assert_int_equal(k.n_again, k.requests[2].n_prompt - 8);
}

/* As kvpool_free(), whoever's it is. */
static void free_anyway(struct kvpool *pool, uint32_t page)
{
    atomic_store(&pool->descs[page].pins, 0);
    kvpool_free(pool, atomic_load(&pool->descs[page].lease), page);
}

/* Every bit that says whose a page is, and what it is worth. */
static void pages_that_do_not_agree_are_computed_again(void **state)
{
    struct kept k;
    struct kv_page_desc *d;
    uint32_t *pages, other, stranger;

    (void)state;
    kept_init(&k);
    d = k.rig.pool.descs;
    pages = ledger_pages(&k.rig.ledger, entry_of(&k, 0));
    other = page_number(&k, 1, 0);
    kvpool_token_ids(&k.rig.pool, page_number(&k, 1, 0))[3]++;
    d[page_number(&k, 2, 0)].prefix_hash++;
    stranger = page_number(&k, 3, 0);
    atomic_store(&d[stranger].lease, kvpool_lease_of(7, 1)); /* another group's */
    free_anyway(&k.rig.pool, page_number(&k, 4, 0));
    pages[0] = other; /* another sequence's */
    atomic_store(&entry_of(&k, 5)->n_pages, 0);
    rig_start(&k.rig);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted), 0);
    free_anyway(&k.rig.pool, stranger);
    kept_finish(&k);
}

static void a_table_that_points_nowhere_is_harmless(void **state)
{
    struct kept k;

    (void)state;
    kept_init(&k);
    ledger_pages(&k.rig.ledger, entry_of(&k, 0))[0] = k.rig.pool.hdr->n_pages + 3;
    ledger_pages(&k.rig.ledger, entry_of(&k, 1))[1] = page_number(&k, 1, 0);
    atomic_store(&entry_of(&k, 2)->n_pages, UINT32_MAX);
    rig_start(&k.rig);
    assert_true(stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted) > 0);
    kept_finish(&k);
}

static void kv_of_other_weights_is_computed_again(void **state)
{
    struct kept k;

    (void)state;
    kept_init(&k);
    fake_settings.kv_identity = 99;
    rig_start(&k.rig);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted), 0);
    kept_finish(&k);
}

/* The page was full and not yet sealed when the worker died: its count is to be trusted. */
static void a_full_page_that_was_not_sealed_is_kept_and_sealed(void **state)
{
    struct kept k;
    uint32_t page;

    (void)state;
    kept_init(&k);
    page = page_number(&k, 0, 2);
    assert_int_equal(atomic_load(&k.rig.pool.descs[page].n_tokens), 8);
    for (uint32_t i = 2; i < atomic_load(&entry_of(&k, 0)->n_pages); i++)
        atomic_store(&k.rig.pool.descs[page_number(&k, 0, i)].sealed, 0);
    rig_start(&k.rig);
    assert_int_equal(atomic_load(&k.rig.pool.descs[page].sealed), 1);
    assert_true(kvpool_is_intact(&k.rig.pool, page));
    rig_turn(&k.rig, &k.client);
    assert_int_equal(fake_last_rows, N_KEPT);
    kept_finish(&k);
}

/* Sequences that list the same pages: each of them goes on, and a bad page is bad for all. */
static void check_shared(bool with_flipped_bit)
{
    enum { N = 5, PROMPT = 50 };
    struct client_request r[N];
    int32_t prompts[N][PROMPT];
    struct client c;
    struct rig rig;
    uint64_t n_prompt_tokens;
    uint32_t page;

    rig_make_segments(&rig, &rig_roomy); /* pages of 8 tokens */
    fake_settings.step_us = 2000;
    rig_start(&rig);
    client_open(&c, rig.instance, 1);
    for (uint32_t i = 0; i < N; i++) {
        for (uint32_t k = 0; k < PROMPT; k++)
            prompts[i][k] = (int32_t)(5 + k + (k >= 40 ? 20 * i : 0));
        r[i] = client_request(prompts[i], PROMPT, 80);
        r[i].ignore_eos = true;
        r[i].sampling.temperature = 0.9f;
        r[i].sampling.seed = i;
        client_submit(&c, 1 + i, &r[i]);
    }
    rig_until(&rig, &c, all_have_tokens, &c);
    rig_stop(&rig);
    n_prompt_tokens = stat_get(rig_stats(&rig), STAT_prompt_tokens);
    assert_int_equal(n_prompt_tokens, 40 + N * 10);
    page = ledger_pages(&rig.ledger, ledger_entry(&rig.ledger, 0))[3];
    assert_int_equal(atomic_load(&rig.pool.descs[page].pins), N);
    if (with_flipped_bit)
        kvpool_page(&rig.pool, page)[5] ^= 0x10;
    rig_start(&rig);
    assert_int_equal(stat_get(rig_stats(&rig), STAT_kv_pages_corrupt), with_flipped_bit);
    rig_until_all_over(&rig, &c);
    for (uint32_t i = 0; i < N; i++)
        rig_assert_expected(&c.streams[i], &r[i]);
    assert_int_equal(stat_get(rig_stats(&rig), STAT_prompt_tokens) - n_prompt_tokens,
                     with_flipped_bit ? N * (PROMPT - 24) : 0);
    rig_until_empty(&rig, &c);
    rig_assert_clean(&rig);
    client_close(&c);
    rig_close(&rig);
}

static void sequences_that_share_pages_all_go_on(void **state)
{
    (void)state;
    check_shared(false);
}

static void a_flipped_bit_in_a_shared_page_costs_all_that_list_it(void **state)
{
    (void)state;
    check_shared(true);
}

/* What a dead worker had kept for prompts to come is found by the next, unless its bits have changed. */
static void cached_pages_outlive_the_worker(void **state)
{
    enum { PROMPT = 50 };
    struct client_request r;
    int32_t prompt[PROMPT];
    struct client c;
    struct rig rig;

    (void)state;
    for (uint32_t k = 0; k < PROMPT; k++)
        prompt[k] = (int32_t)(5 + k);
    rig_make_segments(&rig, &rig_roomy);
    rig_start(&rig);
    client_open(&c, rig.instance, 1);
    r = client_request(prompt, PROMPT, 20);
    for (uint32_t i = 0; i < 4; i++) {
        client_submit(&c, 1 + i, &r);
        rig_until_all_over(&rig, &c);
        rig_assert_expected(&c.streams[i], &r);
        assert_int_equal(c.streams[i].n_cached, i == 0 ? 0 : i < 3 ? 48 : 8);
        rig_until_empty(&rig, &c);
        rig_stop(&rig);
        for (uint32_t p = 0; i == 2 && p < rig.pool.hdr->n_pages; p++)
            if (rig.pool.descs[p].sealed && kvpool_token_ids(&rig.pool, p)[0] == prompt[8])
                kvpool_page(&rig.pool, p)[4] ^= 1;
        rig_start(&rig);
    }
    assert_int_equal(stat_get(rig_stats(&rig), STAT_kv_pages_corrupt), 1);
    rig_until(&rig, &c, is_greeted, &c);
    rig_assert_clean(&rig);
    client_close(&c);
    rig_close(&rig);
}

/* ---- where the dead may still write (a GPU) ---- */

#define QUARANTINE_NS (20 * 1000000ull)

static struct kv_data host_data;
static uint32_t n_pages_read,
    n_unanswered; /* calls still to come that the device does not answer */

static bool count_checksums(void *ctx, const uint32_t *pages, uint32_t n, uint64_t *sums)
{
    n_pages_read += n;
    if (n_unanswered == 0)
        return host_data.checksums(ctx, pages, n, sums);
    n_unanswered--;
    return false;
}

static void write_late(struct kept *k)
{
    host_data = k->rig.pool.data;
    n_pages_read = n_unanswered = 0;
    k->rig.pool.data.quarantine_ns = QUARANTINE_NS;
    k->rig.pool.data.checksums = count_checksums;
}

/* Pages that were not full at the death; at most one of each sequence. */
static uint32_t list_open(const struct kept *k, uint32_t out[N_KEPT])
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < N_KEPT; i++) {
        const struct ledger_entry *entry = entry_of(k, i);
        for (uint32_t p = 0; p < entry->n_pages; p++) {
            const struct kv_page_desc *d = &k->rig.pool.descs[page_number(k, i, p)];
            if (!d->sealed && d->n_tokens > 0)
                out[n++] = page_number(k, i, p);
        }
    }
    return n;
}

static void open_pages_are_copied_out_and_quarantined(void **state)
{
    uint32_t open[N_KEPT], n_open;
    struct kept k;

    (void)state;
    kept_init(&k);
    write_late(&k);
    n_open = list_open(&k, open);
    assert_true(n_open > 0);
    rig_start(&k.rig);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_moved), n_open);
    for (uint32_t i = 0; i < n_open; i++)
        assert_true(k.rig.pool.descs[open[i]].lease & KV_LEASE_QUARANTINE);
    assert_int_equal(n_pages_read, 0);    /* of a worker that was killed, sums are not read */
    for (uint32_t i = 0; i < n_open; i++) /* the late write */
        memset(kvpool_page(&k.rig.pool, open[i]), 0xee, k.rig.pool.hdr->page_bytes);
    rig_turn(&k.rig, &k.client);
    assert_int_equal(fake_last_rows, N_KEPT); /* a row each: nothing is computed again */
    assert_int_equal(recomputed_prompt_tokens(&k), 0);
    kept_finish(&k);
}

/* A kernel may have written anywhere: sums are read, and what has none is computed again. */
static void after_an_error_of_the_device_only_sums_are_believed(void **state)
{
    uint32_t open[N_KEPT], n_open;
    struct kept k;

    (void)state;
    kept_init(&k);
    write_late(&k);
    n_open = list_open(&k, open);
    kvpool_page(&k.rig.pool, page_number(&k, 2, 1))[5] ^= 0x10;
    for (uint32_t i = 0; i < n_open; i++)
        kvpool_page(&k.rig.pool, open[i])[0] ^= 1;
    kvpool_doubt(&k.rig.pool, 0);
    rig_start(&k.rig);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_corrupt), 1);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_moved), 0);
    assert_true(n_pages_read >= N_KEPT * 3);
    assert_false(kvpool_is_doubted(&k.rig.pool, 0));
    kept_finish(&k);
}

/* Nothing is known of them: they are computed again, and nobody is alarmed. */
static void pages_that_cannot_be_read_are_not_called_corrupt(void **state)
{
    struct kept k;

    (void)state;
    kept_init(&k);
    write_late(&k);
    n_unanswered = 1;
    kvpool_doubt(&k.rig.pool, 0);
    rig_start(&k.rig);
    assert_int_equal(n_unanswered, 0);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_adopted), 0);
    assert_int_equal(stat_get(rig_stats(&k.rig), STAT_kv_pages_corrupt), 0);
    kept_finish(&k);
}

/* The successor dies as well, while it copies: what is copied goes on, the rest is computed again. */
static void a_death_among_copies_costs_no_byte(void **state)
{
    uint32_t open[N_KEPT];
    struct kept k;

    (void)state;
    kept_init(&k);
    write_late(&k);
    assert_true(list_open(&k, open) > 0);
    rig_start(&k.rig);
    rig_stop(&k.rig); /* as the kernel does it */
    rig_start(&k.rig);
    kept_finish(&k);
}

static bool is_quiet_at_last(void *ctx)
{
    static uint32_t n;

    (void)ctx;
    return ++n > 5;
}

static bool has_tokens(const void *arg)
{
    return ((const struct client *)arg)->streams[0].n >= 12;
}

/* A sequence that needs every page there is waits until the last ones come out of quarantine. */
static void a_sequence_waits_for_pages_in_quarantine(void **state)
{
    const struct rig_shape shape = { .n_entries = 4,
                                     .tokens_max = 64,
                                     .n_pages = 8,
                                     .page_tokens = 8,
                                     .max_num_seqs = 2,
                                     .max_num_batched_tokens = 32 };
    struct client_request request;
    Llmd__LogitBias bias, *list;
    struct client client;
    int32_t prompt[64];
    struct rig rig;
    struct err e;

    (void)state;
    rig_make_segments(&rig, &shape);
    assert_true(config_set(&rig.config, "speculate", "off", "test", &e));
    fake_settings.step_us = 1000;
    rig_start(&rig);
    client_open(&client, rig.instance, 1);
    request = rig_mixed_request(1, prompt, &bias, &list);
    request.n_prompt = 20;
    request.ignore_eos = true;
    request.max_tokens = 43; /* 63 tokens: all eight pages */
    client_submit(&client, 1, &request);
    rig_until(&rig, &client, has_tokens, &client);
    rig_stop(&rig);
    rig.pool.data.quarantine_ns = QUARANTINE_NS;
    rig.pool.data.is_quiet = is_quiet_at_last;
    rig_start(&rig);
    rig_until_all_over(&rig, &client);
    rig_assert_expected(&client.streams[0], &request);
    rig_until_empty(&rig, &client);
    rig_assert_clean(&rig);
    client_close(&client);
    rig_close(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sequences_go_on_with_their_next_token),
        cmocka_unit_test(open_pages_are_copied_out_and_quarantined),
        cmocka_unit_test(after_an_error_of_the_device_only_sums_are_believed),
        cmocka_unit_test(pages_that_cannot_be_read_are_not_called_corrupt),
        cmocka_unit_test(a_death_among_copies_costs_no_byte),
        cmocka_unit_test(a_sequence_waits_for_pages_in_quarantine),
        cmocka_unit_test(a_flipped_bit_costs_its_sequence_the_pages_from_there_on),
        cmocka_unit_test(pages_that_do_not_agree_are_computed_again),
        cmocka_unit_test(a_table_that_points_nowhere_is_harmless),
        cmocka_unit_test(kv_of_other_weights_is_computed_again),
        cmocka_unit_test(a_full_page_that_was_not_sealed_is_kept_and_sealed),
        cmocka_unit_test(sequences_that_share_pages_all_go_on),
        cmocka_unit_test(a_flipped_bit_in_a_shared_page_costs_all_that_list_it),
        cmocka_unit_test(cached_pages_outlive_the_worker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
