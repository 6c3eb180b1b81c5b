/* keeper.h - a second process that holds the gateway's descriptors, for the instant between accept() and the
 * hand-over to llmd.
 *
 * In that instant a connection exists in this process alone, and a kill would reset a client whom nobody
 * has refused.  So a small child shares the table of descriptors (clone() with CLONE_FILES, nothing else):
 * it sleeps until the gateway is dead, which closes nothing then; hands to llmd what was not handed over;
 * and ends.  What llmd reads from the control socket is therefore complete when it reads its end. */
#ifndef LLMD_GATEWAY_TAKEOVER_KEEPER_H
#define LLMD_GATEWAY_TAKEOVER_KEEPER_H

#include <sys/types.h>

#include "common/err.h"
#include "gateway/service.h"

struct keeper {
    pid_t pid;   /* 0: none */
    int gateway; /* pidfd of the gateway, which the keeper waits for */
};

/* Before any thread is started; the segments are attached.  ERR_SYS. */
bool keeper_start(struct keeper *k, struct service *s, struct err *e);
/* The gateway ends by itself.  Safe on a zeroed one. */
void keeper_stop(struct keeper *k);

#endif
