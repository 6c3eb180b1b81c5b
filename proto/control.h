/* control.h - frames with descriptors over a SOCK_SEQPACKET socket: llmd's channel to each child, and to
 * the operator's llmctl.
 *
 * A child finds its end as descriptor CONTROL_FD.  When it reads CONTROL_CLOSED there, llmd is gone: the
 * child goes on serving and waits to be adopted (design section 1). */
#ifndef LLMD_PROTO_CONTROL_H
#define LLMD_PROTO_CONTROL_H

#include "common/fdpass.h"
#include "proto/frame.h"

enum { CONTROL_FD = 3, CONTROL_BYTES_MAX = 128 << 10 };

struct control_msg {
    enum msg_type type;
    void *body; /* the unpacked protobuf-c message of `type`, owned */
    int fds[FDPASS_FDS_MAX];
    int n_fds; /* owned: whoever keeps one sets it to -1 in fds[] */
};

enum control_result { CONTROL_OK, CONTROL_EMPTY, CONTROL_CLOSED, CONTROL_FAILED };

bool control_send(int sock, enum msg_type type, const void *message, const int *fds, int n_fds,
                  struct err *e);

/* Receive one message.  CONTROL_EMPTY: none there now (non-blocking socket).  CONTROL_FAILED: *e. */
enum control_result control_recv(int sock, struct control_msg *m, struct err *e);

/* The same, but the message stays in the socket until control_drop() takes it out. */
enum control_result control_peek(int sock, struct control_msg *m, struct err *e);
void control_drop(int sock);

/* Free the body, close the descriptors that were not taken. */
void control_msg_fini(struct control_msg *m);

/* Take the first descriptor noted as kind and index out of a BOOT message; -1 when there is none. */
int control_take_fd(struct control_msg *boot, Llmd__FdKind kind, uint32_t index);

#endif
