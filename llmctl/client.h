/* client.h - ask llmd over its control socket. */
#ifndef LLMD_LLMCTL_CLIENT_H
#define LLMD_LLMCTL_CLIENT_H

#include "proto/control.h"

struct client {
    char path[128]; /* of control.sock */
};

/* Find the socket by the rule of common/runtime_dir.h; runtime_dir (may be NULL) overrides the
 * environment.  ERR_CONFIG. */
bool client_find(struct client *c, const char *runtime_dir, struct err *e);

enum client_result {
    CLIENT_OK,
    CLIENT_REFUSED,     /* llmd answered, and said no */
    CLIENT_UNREACHABLE, /* nobody listens, it is not to be trusted, or gave no answer */
};

/* One question, one answer.  On CLIENT_OK *reply holds a CTL_REPLY for the caller to free with
 * control_msg_fini(); else *e says why, and what to do. */
enum client_result client_call(const struct client *c, const Llmd__CtlRequest *request,
                               struct control_msg *reply, struct err *e);

/* The same, for STATUS. */
enum client_result client_ask_status(const struct client *c, struct control_msg *reply,
                                     struct err *e);

#endif
