/* chunk_road.h - the worker's end of the road on which GPU memory travels between it and llmd, as descriptors.
 *
 * What llmd kept of the predecessor comes behind BOOT; what this worker makes is sent to llmd before anything lies in
 * it, so that whatever is committed to it later survives this worker.  All sets stay here as long as the
 * worker lives: a new llmd is told again.  When there is no llmd, the worker goes on; the next one is told. */
#ifndef LLMD_GPU_WORKER_CHUNK_ROAD_H
#define LLMD_GPU_WORKER_CHUNK_ROAD_H

#include "proto/chunk_set.h"

struct chunk_road {
    int sock; /* to llmd, borrowed; -1: nobody keeps anything */
    struct chunk_set sets[N_KEPT_CHUNK_KINDS];
};

/* Receive the n_chunks descriptors that BOOT told of.  ERR_PROTO; chunk_road_close() is due either way. */
bool chunk_road_open(struct chunk_road *r, int sock, uint32_t n_chunks, struct err *e);
void chunk_road_close(struct chunk_road *r);

/* The set of a kind; NULL when there is none.  Borrowed until another takes its place. */
const struct chunk_set *chunk_road_find(const struct chunk_road *r, enum chunk_kind kind);

/* Another set will take the place of its kind: that one is let go, here and at llmd. */
void chunk_road_announce(struct chunk_road *r, const struct chunk_set *planned);

/* Keep a set that was announced, and have llmd keep it.  Takes what is in *set. */
const struct chunk_set *chunk_road_keep(struct chunk_road *r, struct chunk_set *set);

/* A new llmd has taken over. */
void chunk_road_tell_again(const struct chunk_road *r);

#endif
