/* journal.h - the blocks of the connections segment that keep what one client has sent until it is
 * answered.
 *
 * Bytes are received straight into a block that the segment already calls this connection's, so there is no
 * instant at which a byte is read and would die with the process.  Positions count from the first byte
 * of the connection.  An idle connection holds no block. */
#ifndef LLMD_GATEWAY_TAKEOVER_JOURNAL_H
#define LLMD_GATEWAY_TAKEOVER_JOURNAL_H

#include "proto/connections.h"

struct journal {
    const struct connections *connections;
    uint32_t slot;
    uint32_t *blocks; /* [n]: parts first, first + 1, ... of the input */
    uint32_t n, cap;
    uint64_t first;
    uint64_t in_start, in_seen; /* what lies between is kept */
};

/* in_start: where a connection taken over stands; 0 of a new one. */
void journal_init(struct journal *j, const struct connections *c, uint32_t slot, uint64_t in_start);
/* Gives all blocks back. */
void journal_fini(struct journal *j);

/* Where the next bytes go, *n at most.  NULL: the journal is full. */
char *journal_room(struct journal *j, size_t *n);
/* So many have come. */
void journal_input(struct journal *j, size_t n);
/* Those before the n-th byte are not needed any more. */
void journal_used(struct journal *j, uint64_t n);

/* Taking over: the next block in order, and how far the input goes. */
void journal_add_block(struct journal *j, uint32_t block, uint64_t index);
void journal_set_seen(struct journal *j, uint64_t in_seen);
/* The kept bytes from position `at` on, as far as they lie together; 0: that was all, or it is missing. */
size_t journal_peek(const struct journal *j, uint64_t at, const char **bytes);

#endif
