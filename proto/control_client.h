/* control_client.h - ask an llmd by the socket in its runtime folder, as programs do that watch and test it.
 *
 * A connection per question, so that a new llmd is found by itself.  Who listens there is not looked at: the folder is
 * the caller's own.  (The operator's llmctl looks, and tells more of what went wrong.) */
#ifndef LLMD_PROTO_CONTROL_CLIENT_H
#define LLMD_PROTO_CONTROL_CLIENT_H

#include <sys/types.h>

#include "proto/frame.h"

/* To send MSG_CTL_REQUEST on; sending and receiving give up after timeout_ms.  -1: nobody listens. */
int control_connect(const char *runtime_dir, int timeout_ms);

/* NULL: nobody answers in time.  frame_free_body(). */
Llmd__CtlReply *control_ask(const char *runtime_dir, Llmd__CtlCommand command, int timeout_ms);

/* Of an answer to CTL_STATUS; of NULL, or one without a status: false and 0. */
bool control_says_ready(const Llmd__CtlReply *reply);
/* By the name that `llmctl status` shows, "gateway" or "worker 0.0"; 0 when it does not run. */
pid_t control_pid_of(const Llmd__CtlReply *reply, const char *process);
/* The port of the first listening socket; 0 when there is none. */
int control_port_of(const Llmd__CtlReply *reply);

#endif
