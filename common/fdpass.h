/* fdpass.h - one datagram with descriptors over a SOCK_SEQPACKET unix socket (SCM_RIGHTS).
 *
 * The control socketpair of each child and the operator's control socket use it.  Descriptors are
 * close-on-exec on arrival; a message that brings more than the caller has room for is refused and its
 * descriptors are closed, so nothing leaks. */
#ifndef LLMD_COMMON_FDPASS_H
#define LLMD_COMMON_FDPASS_H

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

enum { FDPASS_FDS_MAX = 64 };

/* Send one datagram of n >= 1 bytes.  fds are borrowed.  ERR_SYS; EAGAIN in e->sys when a non-blocking peer is full. */
bool fdpass_send(int sock, const void *bytes, size_t n, const int *fds, int n_fds, struct err *e);

enum fdpass_result { FDPASS_OK, FDPASS_EMPTY, FDPASS_CLOSED, FDPASS_FAILED };

/* Receive one datagram into `bytes` (cap bytes) and up to FDPASS_FDS_MAX descriptors, which the caller
 * then owns.  FDPASS_EMPTY: nothing there now (non-blocking).  FDPASS_FAILED: *e says why. */
enum fdpass_result fdpass_recv(int sock, void *bytes, size_t cap, size_t *n,
                               int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e);

/* The same, and the datagram stays where it is: the descriptors are copies.  Who dies before it is taken out has
 * not lost it for the next holder of the socket. */
enum fdpass_result fdpass_peek(int sock, void *bytes, size_t cap, size_t *n,
                               int fds[FDPASS_FDS_MAX], int *n_fds, struct err *e);

#endif
