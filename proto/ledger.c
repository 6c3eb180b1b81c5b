/* ledger.c - the ledger segment: offsets computed once, checked on attach. */
#include "proto/ledger.h"

#include <stdio.h>
#include <string.h>

enum { REQUEST_BYTES_MAX = 64 << 10, ALIGN = 64 };

static uint64_t take(uint64_t *at, uint64_t bytes)
{
    uint64_t offset = *at;

    *at += (bytes + ALIGN - 1) / ALIGN * ALIGN;
    return offset;
}

static void lay_out(struct ledger_hdr *h, const struct ledger_shape *shape)
{
    uint64_t n = shape->tokens_max, at = LEDGER_ENTRY_HDR_BYTES;

    h->n_entries = shape->n_entries;
    h->tokens_max = shape->tokens_max;
    h->pages_max = (shape->tokens_max + shape->page_tokens - 1) / shape->page_tokens;
    h->top_max = shape->top_max;
    h->request_bytes_max = REQUEST_BYTES_MAX;
    h->request_offset = take(&at, REQUEST_BYTES_MAX);
    h->tokens_offset = take(&at, n * sizeof(int32_t));
    h->logprobs_offset = take(&at, n * sizeof(float));
    h->ranks_offset = take(&at, n * sizeof(uint32_t));
    h->pages_offset = take(&at, h->pages_max * sizeof(uint32_t));
    h->top_offset = take(&at, n * shape->top_max * sizeof(struct ledger_top));
    h->embedding_max = shape->embedding_max;
    h->embedding_offset = take(&at, h->embedding_max * sizeof(float));
    h->entry_bytes = (at + 4095) / 4096 * 4096;
}

uint64_t ledger_bytes_used(const struct ledger_shape *shape, uint32_t n_running)
{
    const uint64_t page = 4096; /* header and request lie in one, the first tokens in another */
    struct ledger_hdr h = { 0 };

    lay_out(&h, shape);
    return LEDGER_ENTRIES_OFFSET + h.n_entries * 2 * page +
           (uint64_t)n_running * (h.tokens_max * sizeof(int32_t) + h.pages_max * sizeof(uint32_t));
}

bool ledger_create(struct ledger *l, const struct ledger_shape *shape, uint32_t group,
                   uint64_t instance, struct err *e)
{
    struct ledger_hdr h = { 0 };
    struct segment s;
    char name[32];

    assert(shape->n_entries > 0 && shape->tokens_max > 0 && shape->page_tokens > 0);
    lay_out(&h, shape);
    snprintf(name, sizeof name, "llmd-ledger-%u", group);
    if (!segment_create(&s, SEGMENT_LEDGER, LEDGER_VERSION, name,
                        LEDGER_ENTRIES_OFFSET + h.n_entries * h.entry_bytes, instance, e))
        return false;
    h.segment = *s.hdr;
    *l = (struct ledger){ .segment = s, .hdr = (struct ledger_hdr *)s.hdr };
    *l->hdr = h;
    return true;
}

/* A part of n things of `bytes` each lies inside an entry and is aligned for them. */
static bool part_fits(const struct ledger_hdr *h, uint64_t offset, uint64_t n, uint64_t bytes)
{
    return offset >= LEDGER_ENTRY_HDR_BYTES && offset <= h->entry_bytes && offset % ALIGN == 0 &&
           n <= (h->entry_bytes - offset) / bytes;
}

static bool offsets_fit(const struct ledger_hdr *h, size_t bytes)
{
    uint64_t n = h->tokens_max;

    return h->n_entries > 0 && h->entry_bytes >= LEDGER_ENTRY_HDR_BYTES &&
           h->entry_bytes % ALIGN == 0 && bytes >= LEDGER_ENTRIES_OFFSET &&
           h->n_entries <= (bytes - LEDGER_ENTRIES_OFFSET) / h->entry_bytes &&
           part_fits(h, h->request_offset, h->request_bytes_max, 1) &&
           part_fits(h, h->tokens_offset, n, sizeof(int32_t)) &&
           part_fits(h, h->logprobs_offset, n, sizeof(float)) &&
           part_fits(h, h->ranks_offset, n, sizeof(uint32_t)) &&
           part_fits(h, h->pages_offset, h->pages_max, sizeof(uint32_t)) &&
           part_fits(h, h->top_offset, n * h->top_max, sizeof(struct ledger_top)) &&
           part_fits(h, h->embedding_offset, h->embedding_max, sizeof(float));
}

bool ledger_attach(struct ledger *l, int fd, bool writable, struct err *e)
{
    struct segment s;

    if (!segment_attach(&s, fd, SEGMENT_LEDGER, LEDGER_VERSION, writable, e))
        return false;
    if (!offsets_fit((const struct ledger_hdr *)s.hdr, s.bytes)) {
        segment_close(&s);
        return err_set(e, ERR_PROTO, 0, "ledger: its offsets do not fit its size");
    }
    *l = (struct ledger){ .segment = s, .hdr = (struct ledger_hdr *)s.hdr };
    return true;
}

void ledger_close(struct ledger *l)
{
    segment_close(&l->segment);
    l->hdr = NULL;
}

struct ledger_entry *ledger_entry(const struct ledger *l, uint32_t i)
{
    assert(i < l->hdr->n_entries);
    return segment_at(&l->segment, LEDGER_ENTRIES_OFFSET + i * l->hdr->entry_bytes);
}

void ledger_add_suspect(struct ledger *l, const struct ledger_suspect *s)
{
    uint32_t n = atomic_load_explicit(&l->hdr->n_suspects, memory_order_relaxed);

    l->hdr->suspects[n % LEDGER_SUSPECTS] = *s;
    atomic_store_explicit(&l->hdr->n_suspects, n + 1, memory_order_release);
}

uint32_t ledger_read_suspects(const struct ledger *l, struct ledger_suspect out[LEDGER_SUSPECTS])
{
    uint32_t end, n;

    do {
        end = atomic_load_explicit(&l->hdr->n_suspects, memory_order_acquire);
        n = end < LEDGER_SUSPECTS ? end : LEDGER_SUSPECTS;
        for (uint32_t i = 0; i < n; i++)
            out[i] = l->hdr->suspects[(end - n + i) % LEDGER_SUSPECTS];
        atomic_thread_fence(memory_order_acquire);
    } while (atomic_load_explicit(&l->hdr->n_suspects, memory_order_relaxed) != end);
    return n;
}

bool ledger_peek(const struct ledger *l, uint32_t i, struct ledger_entry *out)
{
    const struct ledger_entry *entry = ledger_entry(l, i);
    uint32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);

    if (state != LEDGER_LIVE && state != LEDGER_DONE)
        return false;
    memcpy(out, entry, sizeof *out);
    out->error[sizeof out->error - 1] = '\0';
    atomic_thread_fence(memory_order_acquire);
    return atomic_load_explicit(&entry->state, memory_order_relaxed) == state &&
           entry->sequence_id == out->sequence_id;
}
