/* kept.h - client connections that llmd holds, so that they outlive a gateway, and a gateway and llmd.
 *
 * The gateway hands over each connection when it has accepted it (CONNECTIONS), by slot and generation of the
 * connections segment.  llmd reads no byte of them.  Always true: a descriptor is closed when its record is
 * FREE or has another generation, never before; so those of a dead gateway stay until its successor, which is
 * given them all, frees the records.
 *
 * A connection that has been open for some milliseconds goes to the fd store as well; health probes and
 * other short visits never do.  Until then a copy waits where it outlives llmd, too (park.h). */
#ifndef LLMD_SUPERVISOR_KEPT_H
#define LLMD_SUPERVISOR_KEPT_H

#include "proto/connections.h"
#include "proto/control.h"
#include "supervisor/child.h"
#include "supervisor/fdstore.h"
#include "supervisor/park.h"
#include "supervisor/passed.h"

struct kept_connection {
    int fd; /* 0 = none: llmd has its own descriptor 0 */
    uint32_t generation;
    uint64_t since_ns;
    uint32_t at;           /* its place in .open */
    uint32_t newer, older; /* neighbours among those not stored yet */
    bool is_stored;
};

struct kept {
    const struct connections *connections; /* borrowed; NULL = not open */
    struct fdstore *store;                 /* borrowed */
    sd_event *event;
    sd_event_source *timer;          /* while one waits to be stored */
    struct kept_connection *by_slot; /* [n_slots]; sparse */
    struct park park;
    uint32_t *open; /* [n_open] slots, in no order */
    uint32_t n_open;
    uint32_t newest, oldest; /* of those not stored yet; CONNECTIONS_NO_SLOT = none */
    uint32_t *handing;       /* slots that the starting gateway is being given; NULL = none */
    uint32_t n_handing, n_handed;
};

/* All borrowed until kept_fini(). */
bool kept_init(struct kept *k, const struct connections *c, struct fdstore *store, sd_event *event,
               struct err *e);
/* Close all; the store keeps its copies.  Safe on a zeroed struct. */
void kept_fini(struct kept *k);

/* A CONNECTIONS message of the gateway: takes what it brings. */
void kept_take(struct kept *k, struct control_msg *m);
/* Those of a former llmd, found under "llmd-c" and in its park: the socket's cookie tells whose record it is.
 * Before anything else is kept. */
void kept_adopt(struct kept *k, struct passed *from);

/* Close those whose records are done. */
void kept_sweep(struct kept *k);
/* The gateway is dead: nobody else holds them now.  Store all that are open. */
void kept_store_all(struct kept *k);
/* Nobody will want them any more. */
void kept_drop_all(struct kept *k);

/* A gateway starts: how many it will be given, for BOOT; then give them, as far as its socket has room.
 * False: more is to come, call again when it is writable. */
uint32_t kept_begin_handing(struct kept *k);
bool kept_hand(struct kept *k, struct child *gateway);
void kept_end_handing(struct kept *k); /* it died, or is served */
bool kept_is_handing(const struct kept *k);

#endif
