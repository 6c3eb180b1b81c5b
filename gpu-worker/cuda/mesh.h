/* mesh.h - sockets between all ranks of a group: to meet, to hand each other descriptors, and to notice who is gone.
 *
 * llmd has no part in it: ranks find each other under abstract addresses made of the group's id, its epoch and
 * the rank, and take nobody in who runs as another user.  Every pair has one SOCK_SEQPACKET connection.  It carries
 * the rounds of mesh_all_gather() first, then single bytes; and its end tells at once that a peer has exited, however
 * it did. */
#ifndef LLMD_CUDA_MESH_H
#define LLMD_CUDA_MESH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum { MESH_RANKS_MAX = 8, MESH_ROUND_BYTES_MAX = 512 };

struct mesh {
    uint32_t rank, n_ranks;
    int fds[MESH_RANKS_MAX]; /* of each peer; -1 for this rank, and where there is none yet */
};

/* Meet all ranks.  group_id: the same on all ranks, and of no other group of this machine.  deadline_ns: of
 * CLOCK_MONOTONIC.  ERR_TIMEOUT names a rank that did not come; ERR_PROTO, one that is of another build. */
bool mesh_open(struct mesh *m, uint64_t group_id, uint32_t epoch, uint32_t rank, uint32_t n_ranks,
               uint64_t deadline_ns, struct err *e);
void mesh_close(struct mesh *m); /* zeroed or half-opened: fine */

/* A round: every rank gives `bytes` bytes and, unless -1, a descriptor (borrowed), and gets those of all.
 *   all  [n_ranks][bytes], this rank's own too
 *   fds  [n_ranks], the caller's to close; -1 = none, and for this rank; NULL: no descriptors are given
 * All ranks make the same rounds in the same order.  ERR_TIMEOUT, ERR_DEVICE (a peer is gone) or ERR_PROTO; then
 * nothing is owned. */
bool mesh_all_gather(struct mesh *m, const void *mine, int fd, void *all, int *fds, size_t bytes,
                     uint64_t deadline_ns, struct err *e);

/* Whether who is at the other end of a unix socket runs as our user. */
bool mesh_is_of_our_user(int fd);

#endif
