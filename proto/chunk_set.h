/* chunk_set.h - GPU memory as descriptors: what of it travels between worker and llmd, and what llmd keeps.
 *
 * A set is the memory of one kind for one rank of one group, on that rank's GPU: chunks of the same size (the last
 * one may be shorter), each an allocation of the driver with one descriptor.  The descriptors own the memory: it is
 * there as long as one copy of each is open or the memory is mapped, whoever made it (design of the GPU backend,
 * section 1).  A set is named by a random id; another set of the same kind, group and rank takes its place.
 *
 * Nothing here knows CUDA.  The worker makes and maps chunks (gpu-worker/cuda/chunks.h), llmd keeps them under names
 * (supervisor/gpu_memory.h) and hands them to the next worker behind BOOT. */
#ifndef LLMD_PROTO_CHUNK_SET_H
#define LLMD_PROTO_CHUNK_SET_H

#include "common/hash.h"
#include "proto/control.h"

enum chunk_kind {
    CHUNKS_WEIGHTS, /* written by who loads them, read-only after */
    CHUNKS_KV,      /* pages; the directory is the kvpool segment */
    CHUNKS_KEEPER, /* no memory: one descriptor, the socket to a process that makes and holds it (keeper.h) */
    CHUNKS_EXCHANGE, /* what the ranks of a group read of each other, in one epoch: llmd never sees it */
    N_CHUNK_KINDS,
    N_KEPT_CHUNK_KINDS = CHUNKS_EXCHANGE /* those before it */
};

enum { CHUNK_DEVICE_BYTES = 16, CHUNK_SET_CHUNKS_MAX = 4096 };

struct chunk_set {
    enum chunk_kind kind;
    uint32_t group, rank;
    uint64_t id;           /* random, never 0 */
    struct hash128 layout; /* of what lies in it: who wants another one cannot use it */
    uint8_t device[CHUNK_DEVICE_BYTES]; /* UUID of the GPU */
    uint64_t bytes;                     /* of all chunks together */
    uint64_t chunk_bytes;               /* of each but the last */
    uint32_t n;                         /* chunks; 1..CHUNK_SET_CHUNKS_MAX */
    uint32_t n_there;                   /* descriptors that are there */
    int *fds;                           /* [n] owned; -1 = not there */
};

/* "weights", "kv", "exchange" */
const char *chunk_kind_name(enum chunk_kind kind);

/* Of chunk i. */
uint64_t chunk_set_chunk_bytes(const struct chunk_set *s, uint32_t i);

static inline bool chunk_set_is_whole(const struct chunk_set *s)
{
    return s->fds && s->n_there == s->n;
}

/* Make room for s->n descriptors, all -1.  Everything else is the caller's to fill. */
void chunk_set_init(struct chunk_set *s);
/* Close what is there; safe on a zeroed struct. */
void chunk_set_fini(struct chunk_set *s);

/* ---- CHUNKS messages ----
 * One brings the next descriptors of one set, at most FDPASS_FDS_MAX; one without any announces the set: whoever
 * keeps another of that kind, group and rank lets that go. */

/* Fill *m with the set and its descriptors from number `first` on; the set must outlive it.  Returns how many they
 * are (they lie at s->fds + first); 0 behind the last. */
uint32_t chunk_set_batch(const struct chunk_set *s, uint32_t first, Llmd__Chunks *m);

/* Send the whole set, or its announcement alone, over a blocking socket. */
bool chunk_set_send(const struct chunk_set *s, int sock, struct err *e);
bool chunk_set_announce(const struct chunk_set *s, int sock, struct err *e);

/* Whether a received message describes a set that can be: ERR_PROTO. */
bool chunk_set_check(const Llmd__Chunks *m, int n_fds, struct err *e);

/* Whether it is about this set. */
bool chunk_set_is_same(const struct chunk_set *s, const Llmd__Chunks *m);

/* Take a checked message's set, without descriptors, into zeroed or finished *s. */
void chunk_set_begin(struct chunk_set *s, const Llmd__Chunks *m);

/* Take the descriptors of a checked message of this set (those taken become -1 in *msg); what is there already stays.
 * Returns how many were new. */
uint32_t chunk_set_take(struct chunk_set *s, struct control_msg *msg);

#endif
