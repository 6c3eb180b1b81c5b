/* test_ledger.c - the layout of the one copy of every request.
 *
 * What would break in production: two parts of an entry that overlap, so that a logprob overwrites a
 * token, or a successor that reads an entry by another layout. */
#include "proto/ledger.h"

#include <sys/stat.h>

#include "tests/check.h"

static const struct ledger_shape shape = {
    .n_entries = 7, .tokens_max = 1000, .page_tokens = 16, .top_max = 5, .embedding_max = 77
};

static struct ledger make(const struct ledger_shape *s)
{
    struct ledger l;
    struct err e;

    assert_ok(ledger_create(&l, s, 2, 77, &e), e);
    return l;
}

/* Write every part of every entry full, with its own byte, and find each one untouched after. */
static void ledger_parts_do_not_overlap(void **state)
{
    struct ledger l = make(&shape), again;
    struct err e;

    (void)state;
    assert_int_equal(l.hdr->pages_max, 63);
    assert_int_equal(l.hdr->segment.instance, 77);
    assert_ok(ledger_attach(&again, dup(l.segment.fd), false, &e), e);
    for (int pass = 0; pass < 2; pass++) {
        const struct ledger *from = pass == 0 ? &l : &again;
        for (uint32_t i = 0; i < shape.n_entries; i++) {
            struct ledger_entry *entry = ledger_entry(from, i);
            const struct {
                void *at;
                size_t bytes;
            } parts[] = {
                { entry, sizeof *entry },
                { ledger_request(from, entry), l.hdr->request_bytes_max },
                { ledger_tokens(from, entry), shape.tokens_max * sizeof(int32_t) },
                { ledger_logprobs(from, entry), shape.tokens_max * sizeof(float) },
                { ledger_ranks(from, entry), shape.tokens_max * sizeof(uint32_t) },
                { ledger_pages(from, entry), 63 * sizeof(uint32_t) },
                { ledger_top(from, entry, 0), shape.tokens_max * 5 * sizeof(struct ledger_top) },
                { ledger_embedding(from, entry), shape.embedding_max * sizeof(float) },
            };
            for (int k = 0; k < 8; k++) {
                int mark = (int)(i * 8) + k + 1;
                assert_int_equal((uintptr_t)parts[k].at % 64, 0);
                if (pass == 0)
                    memset(parts[k].at, mark, parts[k].bytes);
                for (size_t b = 0; b < parts[k].bytes; b++)
                    if (((unsigned char *)parts[k].at)[b] != mark)
                        fail_msg("entry %u part %d byte %zu", i, k, b);
            }
        }
    }
    ledger_close(&l);
    ledger_close(&again);
    ledger_close(&again);
}

/* Rows are as wide as the sequence asked for: one that wants few touches little memory. */
static void ledger_top_of_a_token_has_its_own_row(void **state)
{
    struct ledger l = make(&shape);
    struct ledger_entry *entry = ledger_entry(&l, 0);

    (void)state;
    entry->n_top = 2;
    assert_ptr_equal(ledger_top(&l, entry, 3), ledger_top(&l, entry, 0) + 6);
    entry->n_prompt_top = 5;
    assert_ptr_equal(ledger_top(&l, entry, 3), ledger_top(&l, entry, 0) + 15);
    assert_true((char *)ledger_top(&l, entry, shape.tokens_max) <=
                (char *)entry + l.hdr->embedding_offset);
    ledger_close(&l);
}

static void ledger_costs_only_what_is_touched(void **state)
{
    struct ledger_shape large = {
        .n_entries = 1088, .tokens_max = 131072, .page_tokens = 16, .top_max = 20
    };
    struct ledger l = make(&large);
    struct stat st;

    (void)state;
    assert_true(l.segment.bytes > (size_t)20 << 30);
    ledger_entry(&l, 1087)->n_prompt = 1;
    assert_int_equal(fstat(l.segment.fd, &st), 0);
    assert_true(st.st_blocks * 512 < 1 << 20);
    ledger_close(&l);
}

static void ledger_attach_refuses_offsets_that_do_not_fit(void **state)
{
    struct ledger l = make(&shape), b = { 0 };
    const struct ledger_hdr good = *l.hdr;
    uint64_t *const offsets[] = { &l.hdr->request_offset,  &l.hdr->tokens_offset,
                                  &l.hdr->logprobs_offset, &l.hdr->ranks_offset,
                                  &l.hdr->pages_offset,    &l.hdr->top_offset,
                                  &l.hdr->embedding_offset };
    const uint64_t bad[] = {
        good.entry_bytes,      good.entry_bytes - 4, UINT64_MAX, UINT64_MAX - 3999, 0, 64,
        good.tokens_offset + 2
    };
    struct err e;

    (void)state;
    for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            *offsets[i] = bad[k];
            assert_fails(ledger_attach(&b, dup(l.segment.fd), true, &e), e, ERR_PROTO, "ledger: ");
            *l.hdr = good;
        }
    }
    l.hdr->n_entries = 8;
    assert_fails(ledger_attach(&b, dup(l.segment.fd), true, &e), e, ERR_PROTO, "ledger: ");
    *l.hdr = good;
    l.hdr->n_entries = 0;
    assert_fails(ledger_attach(&b, dup(l.segment.fd), true, &e), e, ERR_PROTO, "ledger: ");
    *l.hdr = good;
    l.hdr->entry_bytes = 0;
    assert_fails(ledger_attach(&b, dup(l.segment.fd), true, &e), e, ERR_PROTO, "ledger: ");
    *l.hdr = good;
    l.hdr->tokens_max = UINT32_MAX;
    assert_fails(ledger_attach(&b, dup(l.segment.fd), true, &e), e, ERR_PROTO, "ledger: ");
    *l.hdr = good;
    assert_ok(ledger_attach(&b, dup(l.segment.fd), true, &e), e);
    ledger_close(&b);
    ledger_close(&l);
}

static void reach_outside(void *arg)
{
    ledger_entry(arg, shape.n_entries);
}

static void ledger_entry_outside_is_a_bug(void **state)
{
    struct ledger l = make(&shape);

    (void)state;
    assert_aborts(reach_outside, &l);
    ledger_close(&l);
}

/* The operator sees the last ones, in order, however many there were. */
static void ledger_keeps_the_last_suspects(void **state)
{
    struct ledger l = make(&shape);
    struct ledger_suspect s = { .crashes = 2 }, out[LEDGER_SUSPECTS];

    (void)state;
    assert_int_equal(ledger_read_suspects(&l, out), 0);
    for (s.sequence_id = 1; s.sequence_id <= LEDGER_SUSPECTS + 5; s.sequence_id++) {
        uint32_t n = s.sequence_id < LEDGER_SUSPECTS ? (uint32_t)s.sequence_id : LEDGER_SUSPECTS;
        ledger_add_suspect(&l, &s);
        assert_int_equal(ledger_read_suspects(&l, out), n);
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(out[i].sequence_id, s.sequence_id - n + 1 + i);
    }
    assert_int_equal(l.hdr->n_entries, shape.n_entries);
    ledger_close(&l);
}

static void ledger_peek_sees_what_is_in_use(void **state)
{
    struct ledger l = make(&shape), reader;
    struct ledger_entry *entry = ledger_entry(&l, 3), copy;
    struct err e;

    (void)state;
    assert_ok(ledger_attach(&reader, dup(l.segment.fd), false, &e), e); /* as llmd may */
    entry->sequence_id = 12;
    entry->n_prompt = 7;
    memset(entry->error, 'x', sizeof entry->error);
    assert_false(ledger_peek(&reader, 3, &copy));
    atomic_store(&entry->state, LEDGER_LIVE);
    assert_true(ledger_peek(&reader, 3, &copy));
    assert_int_equal(copy.sequence_id, 12);
    assert_int_equal(copy.n_prompt, 7);
    assert_int_equal(strlen(copy.error), sizeof copy.error - 1);
    atomic_store(&entry->state, LEDGER_DONE);
    assert_true(ledger_peek(&reader, 3, &copy));
    ledger_close(&reader);
    ledger_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ledger_parts_do_not_overlap),
        cmocka_unit_test(ledger_top_of_a_token_has_its_own_row),
        cmocka_unit_test(ledger_costs_only_what_is_touched),
        cmocka_unit_test(ledger_attach_refuses_offsets_that_do_not_fit),
        cmocka_unit_test(ledger_entry_outside_is_a_bug),
        cmocka_unit_test(ledger_keeps_the_last_suspects),
        cmocka_unit_test(ledger_peek_sees_what_is_in_use),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
