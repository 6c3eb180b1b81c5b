/* connections.h - make, attach and reach the records of open connections (connections_layout.h). */
#ifndef LLMD_PROTO_CONNECTIONS_H
#define LLMD_PROTO_CONNECTIONS_H

#include "proto/connections_layout.h"

struct connections {
    struct segment segment;
    struct connections_hdr *hdr;
};

/* n_slots >= 1: the setting max_connections; journal_bytes: connection_journal_bytes.  Sparse: only
 * touched pages cost memory. */
bool connections_create(struct connections *c, uint32_t n_slots, uint64_t journal_bytes,
                        uint64_t instance, struct err *e);
bool connections_attach(struct connections *c, int fd, struct err *e); /* takes fd */
void connections_close(struct connections *c);

struct connection_record *connections_record(const struct connections *c, uint32_t slot);

/* [KEYS_MAX] */
struct key_record *connections_keys(const struct connections *c);

#define CONNECTIONS_NO_SLOT UINT32_MAX

/* Claim a free slot, looking from `hint` on; any gateway thread.  CONNECTIONS_NO_SLOT when none is
 * free.  The record is then IDLE and zeroed but for thread, opened_ns and generation. */
uint32_t connections_claim(const struct connections *c, uint32_t hint, uint32_t thread,
                           uint64_t now_ns);
/* The owner gives it back. */
void connections_release(const struct connections *c, uint32_t slot);

/* ---- the journal's blocks; any gateway thread ---- */
#define CONNECTIONS_NO_BLOCK UINT32_MAX

/* Take a free block, looking from `hint` on, for part `index` of the input of the connection in `slot`.
 * CONNECTIONS_NO_BLOCK when none is free.  Its place is set once and for all. */
uint32_t connections_take_block(const struct connections *c, uint32_t hint, uint32_t slot,
                                uint64_t index);
void connections_free_block(const struct connections *c, uint32_t block);
struct connections_owner *connections_owner(const struct connections *c, uint32_t block);
char *connections_block(const struct connections *c, uint32_t block);
/* What stands in the owner word of the blocks of that connection. */
uint64_t connections_owner_word(const struct connections *c, uint32_t slot);
uint32_t connections_blocks_used(const struct connections *c); /* a scan */

/* Slots that are not free; a scan. */
uint32_t connections_count(const struct connections *c);

static inline enum connection_state connection_state(const struct connection_record *r)
{
    return (enum connection_state)atomic_load_explicit(&r->state, memory_order_acquire);
}

static inline void connection_set_state(struct connection_record *r, enum connection_state s)
{
    atomic_store_explicit(&r->state, (uint32_t)s, memory_order_release);
}

const char *connection_state_name(enum connection_state s);

#endif
