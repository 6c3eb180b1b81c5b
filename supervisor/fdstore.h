/* fdstore.h - descriptors that outlive llmd: they lie with the service manager, under names.
 *
 * systemd (FileDescriptorStoreMax=) and llm-init keep what is sent to NOTIFY_SOCKET with FDSTORE=1 and give it
 * to the next llmd (passed.h).  All names begin with "llmd-":
 *
 *   llmd-board, llmd-connections, llmd-kvpool, llmd-ledger-G, llmd-group-G, llmd-weights-R   segments
 *   llmd-chunks                  the table of GPU memory
 *   llmd-g-SET-CHUNK             GPU memory (gpu_memory.h)
 *   llmd-listen                  listening sockets that llmd made itself
 *   llmd-state, llmd-state-even  state.h; put last, it makes the set complete
 *   llmd-ctl-SLOT, llmd-pid-SLOT llmd's end of a child's control socket, and its pidfd
 *   llmd-c                       client connections, all of them
 *   llmd-park-in, llmd-park-out  park.h: those that have come just now
 *
 * Always true: the manager sees puts and removals of one name in the order they were asked for.  llmd does
 * not depend on it: what it has no room for is queued, with a descriptor of its own, and sent when it reads
 * again.
 * Without a manager every call does nothing. */
#ifndef LLMD_SUPERVISOR_FDSTORE_H
#define LLMD_SUPERVISOR_FDSTORE_H

#include "supervisor/notify.h"

enum { FDSTORE_NAME_BYTES = 40 };

struct fdstore_order {
    char name[FDSTORE_NAME_BYTES];
    int fd; /* owned; -1 = remove what has this name */
    bool is_polled;
};

struct fdstore {
    struct notify *notify; /* borrowed; NULL = not open */
    sd_event *event;
    sd_event_source *writable;   /* while orders wait */
    struct fdstore_order *queue; /* [n_queued] of [n_room] */
    uint32_t n_queued, n_room;
};

/* notify and event: borrowed until fdstore_close(). */
void fdstore_open(struct fdstore *s, struct notify *notify, sd_event *event);
/* fdstore_sync(), then give up what the manager has not taken; safe on a zeroed struct. */
void fdstore_close(struct fdstore *s);

bool fdstore_is_there(const struct fdstore *s);
/* The manager does not read just now: orders wait. */
bool fdstore_is_clogged(const struct fdstore *s);

/* Keep a copy of fd (borrowed) under this name.  is_polled: the manager drops it when the other end has
 * gone for good. */
void fdstore_put(struct fdstore *s, const char *name, int fd, bool is_polled);
/* Forget all descriptors of this name. */
void fdstore_remove(struct fdstore *s, const char *name);

/* Before a program starts: give a manager that is a little behind (its socket holds ten datagrams) some
 * milliseconds to take what must not be lost with llmd. */
void fdstore_settle(struct fdstore *s);

/* Send all that waits, as long as the manager takes something every second.  False: it does not read. */
bool fdstore_sync(struct fdstore *s);

/* Try again what waits; called now and then. */
void fdstore_flush(struct fdstore *s);

#endif
