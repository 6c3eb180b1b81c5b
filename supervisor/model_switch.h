/* model_switch.h - `llmctl reload --model DIR`: another model is served from now on, and nobody is refused.
 *
 *   start a second llmd --READY--> kill it --gone--> exec ourselves, with what it has built
 *        | it gives up: the old model is served on
 *
 * The second llmd gets our listening sockets, DIR, a runtime folder inside ours, and us as its service
 * manager: everything it makes lies in our fd store, as ours lies in that of our own manager.  When it is
 * ready, it has done its work: it is killed, its children notice nothing, and we become the llmd that
 * adopts them (successor.h, adopt.h).  The old gateway takes no more connections, finishes what it has, and
 * then the old workers end (former.h).
 *
 * Weights of both models are in memory meanwhile.  When we die before the exec, the second llmd ends in good
 * order (PR_SET_PDEATHSIG), and the old model is served on. */
#ifndef LLMD_SUPERVISOR_MODEL_SWITCH_H
#define LLMD_SUPERVISOR_MODEL_SWITCH_H

#include "supervisor/init/fd_store.h"
#include "supervisor/init/notify_socket.h"

#include <systemd/sd-event.h>

struct llmd;

struct model_switch {
    struct llmd *llmd; /* borrowed; NULL = none goes on */
    pid_t pid;         /* of the second llmd */
    int pidfd;
    struct notify_socket socket;
    int epoll; /* of the store's hang-ups */
    struct fd_store store;
    sd_event_source *on_notice, *on_hangup, *on_exit, *timer;
    bool is_ready;    /* it has said READY, and is being killed for it */
    char status[512]; /* its newest STATUS */
    char *model;
    int asker; /* the operator's connection, owned; answered when it is over */
};

/* Begin; see upgrade_start() for `asker`.  False: *e, and the caller replies. */
bool model_switch_start(struct model_switch *m, struct llmd *l, const char *model, int asker,
                        struct err *e);
/* The end of service: the second llmd and all it has started are killed.  Safe on a zeroed struct. */
void model_switch_stop(struct model_switch *m);

/* What goes on, for people; "" = nothing. */
void model_switch_describe(const struct llmd *l, char *out, size_t n);

/* After an adoption: what came of a switch is stored with the service manager, and the processes of the old
 * model finish.  Without a switch it does nothing. */
void model_switch_finish(struct llmd *l);

#endif
