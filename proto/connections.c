/* connections.c - the connections segment: create, attach, claim, release. */
#include "proto/connections.h"

#include <assert.h>
#include <string.h>

static size_t segment_bytes(uint32_t n_slots)
{
    return CONNECTIONS_RECORDS_OFFSET + (size_t)n_slots * sizeof(struct connection_record);
}

bool connections_create(struct connections *c, uint32_t n_slots, uint64_t instance, struct err *e)
{
    assert(n_slots >= 1);
    *c = (struct connections){ .segment.fd = -1 };
    if (!segment_create(&c->segment, SEGMENT_CONNECTIONS, CONNECTIONS_VERSION, "llmd-connections",
                        segment_bytes(n_slots), instance, e))
        return false;
    c->hdr = (struct connections_hdr *)(void *)c->segment.hdr;
    c->hdr->n_slots = n_slots;
    c->hdr->record_bytes = sizeof(struct connection_record);
    return true;
}

bool connections_attach(struct connections *c, int fd, struct err *e)
{
    *c = (struct connections){ .segment.fd = -1 };
    if (!segment_attach(&c->segment, fd, SEGMENT_CONNECTIONS, CONNECTIONS_VERSION, true, e))
        return false;
    c->hdr = (struct connections_hdr *)(void *)c->segment.hdr;
    if (c->segment.bytes < CONNECTIONS_RECORDS_OFFSET || c->hdr->n_slots == 0 ||
        c->hdr->record_bytes != sizeof(struct connection_record) ||
        segment_bytes(c->hdr->n_slots) > c->segment.bytes) {
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
