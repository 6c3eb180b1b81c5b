/* connections.c - the connections segment: create, attach, claim, release. */
#include "proto/connections.h"

#include <assert.h>
#include <string.h>

static uint64_t keys_offset(uint32_t n_slots)
{
    return CONNECTIONS_RECORDS_OFFSET + (uint64_t)n_slots * sizeof(struct connection_record);
}

static uint64_t owners_offset(uint32_t n_slots)
{
    return keys_offset(n_slots) + KEYS_MAX * sizeof(struct key_record);
}

static uint64_t blocks_offset(uint32_t n_slots, uint32_t n_blocks)
{
    uint64_t end = owners_offset(n_slots) + (uint64_t)n_blocks * sizeof(struct connections_owner);

    return (end + 4095) / 4096 * 4096;
}

static size_t segment_bytes(uint32_t n_slots, uint32_t n_blocks)
{
    return blocks_offset(n_slots, n_blocks) + (size_t)n_blocks * CONNECTIONS_BLOCK_BYTES;
}

bool connections_create(struct connections *c, uint32_t n_slots, uint64_t journal_bytes,
                        uint64_t instance, struct err *e)
{
    uint32_t n_blocks = (uint32_t)(journal_bytes / CONNECTIONS_BLOCK_BYTES);

    assert(n_slots >= 1);
    *c = (struct connections){ .segment.fd = -1 };
    if (!segment_create(&c->segment, SEGMENT_CONNECTIONS, CONNECTIONS_VERSION, "llmd-connections",
                        segment_bytes(n_slots, n_blocks), instance, e))
        return false;
    c->hdr = (struct connections_hdr *)(void *)c->segment.hdr;
    c->hdr->n_slots = n_slots;
    c->hdr->record_bytes = sizeof(struct connection_record);
    c->hdr->n_blocks = n_blocks;
    c->hdr->block_bytes = CONNECTIONS_BLOCK_BYTES;
    c->hdr->keys_offset = keys_offset(n_slots);
    c->hdr->owners_offset = owners_offset(n_slots);
    c->hdr->blocks_offset = blocks_offset(n_slots, n_blocks);
    return true;
}

static bool header_fits(const struct connections *c)
{
    const struct connections_hdr *h = c->hdr;

    return c->segment.bytes >= CONNECTIONS_RECORDS_OFFSET && h->n_slots > 0 &&
           h->record_bytes == sizeof(struct connection_record) &&
           h->block_bytes == CONNECTIONS_BLOCK_BYTES && h->keys_offset == keys_offset(h->n_slots) &&
           h->owners_offset == owners_offset(h->n_slots) &&
           h->blocks_offset == blocks_offset(h->n_slots, h->n_blocks) &&
           segment_bytes(h->n_slots, h->n_blocks) <= c->segment.bytes;
}

bool connections_attach(struct connections *c, int fd, struct err *e)
{
    *c = (struct connections){ .segment.fd = -1 };
    if (!segment_attach(&c->segment, fd, SEGMENT_CONNECTIONS, CONNECTIONS_VERSION, true, e))
        return false;
    c->hdr = (struct connections_hdr *)(void *)c->segment.hdr;
    if (!header_fits(c)) {
        connections_close(c);
        return err_set(e, ERR_PROTO, 0, "connections segment: its header does not fit its size");
    }
    return true;
}

void connections_close(struct connections *c)
{
    segment_close(&c->segment);
    c->hdr = NULL;
}

struct connection_record *connections_record(const struct connections *c, uint32_t slot)
{
    assert(slot < c->hdr->n_slots);
    return (struct connection_record *)segment_at(
        &c->segment, CONNECTIONS_RECORDS_OFFSET + (uint64_t)slot * c->hdr->record_bytes);
}

struct key_record *connections_keys(const struct connections *c)
{
    return (struct key_record *)segment_at(&c->segment, c->hdr->keys_offset);
}

/* All but state and generation, which others may look at meanwhile. */
static void clear_record(struct connection_record *r)
{
    size_t from = offsetof(struct connection_record, thread);

    memset((char *)r + from, 0, sizeof *r - from);
}

uint32_t connections_claim(const struct connections *c, uint32_t hint, uint32_t thread,
                           uint64_t now_ns)
{
    uint32_t n = c->hdr->n_slots;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t slot = (hint % n + i) % n;
        struct connection_record *r = connections_record(c, slot);
        uint32_t free_state = CONNECTION_FREE;
        if (connection_state(r) != CONNECTION_FREE ||
            !atomic_compare_exchange_strong(&r->state, &free_state, CONNECTION_IDLE))
            continue;
        atomic_fetch_add(&r->generation, 1);
        r->thread = thread;
        r->opened_ns = now_ns;
        return slot;
    }
    return CONNECTIONS_NO_SLOT;
}

void connections_release(const struct connections *c, uint32_t slot)
{
    struct connection_record *r = connections_record(c, slot);

    assert(connection_state(r) != CONNECTION_FREE);
    clear_record(r);
    connection_set_state(r, CONNECTION_FREE);
}

/* ---- the journal's blocks ---- */

struct connections_owner *connections_owner(const struct connections *c, uint32_t block)
{
    assert(block < c->hdr->n_blocks);
    return (struct connections_owner *)segment_at(
        &c->segment, c->hdr->owners_offset + block * sizeof(struct connections_owner));
}

char *connections_block(const struct connections *c, uint32_t block)
{
    assert(block < c->hdr->n_blocks);
    return segment_at(&c->segment,
                      c->hdr->blocks_offset + (uint64_t)block * CONNECTIONS_BLOCK_BYTES);
}

uint64_t connections_owner_word(const struct connections *c, uint32_t slot)
{
    return (uint64_t)(slot + 1) << 32 | atomic_load(&connections_record(c, slot)->generation);
}

uint32_t connections_take_block(const struct connections *c, uint32_t hint, uint32_t slot,
                                uint64_t index)
{
    uint64_t word = connections_owner_word(c, slot);
    uint32_t n = c->hdr->n_blocks;

    for (uint32_t i = 0; i < n; i++) {
        uint32_t block = (hint % n + i) % n;
        struct connections_owner *o = connections_owner(c, block);
        uint64_t nobody = 0;
        if (atomic_load_explicit(&o->owner, memory_order_relaxed) != 0 ||
            !atomic_compare_exchange_strong(&o->owner, &nobody, word))
            continue;
        atomic_store_explicit(&o->place, index + 1, memory_order_release);
        return block;
    }
    return CONNECTIONS_NO_BLOCK;
}

/* Its place goes first: who finds an owner without a place knows that nothing was read into it. */
void connections_free_block(const struct connections *c, uint32_t block)
{
    struct connections_owner *o = connections_owner(c, block);

    atomic_store_explicit(&o->place, 0, memory_order_release);
    atomic_store_explicit(&o->owner, 0, memory_order_release);
}

uint32_t connections_blocks_used(const struct connections *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->hdr->n_blocks; i++)
        n += atomic_load(&connections_owner(c, i)->owner) != 0;
    return n;
}

uint32_t connections_count(const struct connections *c)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < c->hdr->n_slots; i++)
        n += connection_state(connections_record(c, i)) != CONNECTION_FREE;
    return n;
}

const char *connection_state_name(enum connection_state s)
{
    static const char *const names[N_CONNECTION_STATES] = {
        [CONNECTION_FREE] = "free",           [CONNECTION_IDLE] = "idle",
        [CONNECTION_READING] = "reading",     [CONNECTION_WAITING] = "waiting",
        [CONNECTION_ANSWERING] = "answering",
    };

    return (unsigned)s < N_CONNECTION_STATES ? names[s] : "?";
}
