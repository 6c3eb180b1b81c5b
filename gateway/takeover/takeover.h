/* takeover.h - going on with the connections of a gateway that died.
 *
 *   BOOT: n_connections = 3            takeover_match()                   each thread, before its loop runs:
 *   CONNECTIONS: descriptors  ------>  record and descriptor found  --->  takeover_run(): the journal is read
 *   with slot and generation           to belong together; the rest       again, exchanges exist before any
 *                                      is freed and counted               group is answered by RESYNC */
#ifndef LLMD_GATEWAY_TAKEOVER_TAKEOVER_H
#define LLMD_GATEWAY_TAKEOVER_TAKEOVER_H

#include "common/err.h"
#include "gateway/service.h"

struct gateway_thread;
struct control_msg;

struct takeover_client {
    uint32_t slot, thread;
    int fd;
};

struct takeover_block {
    uint32_t slot, block;
    uint64_t index;
};

struct takeover {
    struct takeover_client *clients;
    uint32_t n_clients, clients_cap;
    uint8_t *is_taken;             /* [n_slots] by one of the clients */
    struct takeover_block *blocks; /* of the clients, by slot and index */
    uint32_t n_blocks, blocks_cap;
};

/* Take the descriptors out of a CONNECTIONS message. */
void takeover_receive(struct takeover *t, struct service *s, struct control_msg *m);
/* All that will come has come: free the records and blocks that nobody can go on with. */
void takeover_match(struct takeover *t, struct service *s);
/* On a thread, before its loop runs: go on with the connections that are its own. */
void takeover_run(struct takeover *t, struct gateway_thread *thread);
/* When all threads have run it; closes what is left. */
void takeover_fini(struct takeover *t);

#endif
