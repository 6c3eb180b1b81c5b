/* tcp_offset.h - how far a TCP connection has come, by the kernel's own count.
 *
 * A process may die between a write and any record of it, but the kernel knows: what the peer has
 * acknowledged plus what waits in the send queue is all that was ever written.  Likewise what has
 * arrived less what waits in the receive queue is all that was ever read.  So a successor can continue
 * a byte stream exactly. */
#ifndef LLMD_GATEWAY_NET_TCP_OFFSET_H
#define LLMD_GATEWAY_NET_TCP_OFFSET_H

#include <stdbool.h>
#include <stdint.h>

/* Bytes the kernel ever took from writers of fd.  The origin may be off by a constant for a
 * connection: only differences mean something.  False when fd is not TCP. */
bool tcp_bytes_taken(int fd, uint64_t *bytes);
/* Bytes ever read from fd, exactly, while the connection lives. */
bool tcp_bytes_read(int fd, uint64_t *bytes);
/* Shut down both ways, or reset: nothing more can be said or heard, though the kernel may still be sending
 * what was said before. */
bool tcp_is_shut(int fd);
/* End the connection at once with a reset, dropping what waits, whoever else holds the descriptor.
 * Other kinds of socket are shut down. */
void tcp_abort(int fd);

#endif
