/* engine.h - rank 0's step loop: receive, plan, forward, sample, commit, publish.
 *
 *   link --> intake --> sequence table --> scheduler --> step --> delivery --> link
 *                            |                            |
 *                            +--------- ledger -----------+
 *
 * One thread calls all of this.  The engine blocks nowhere but in the forward pass: its caller waits on
 * link_fd() and until engine_wake_ns(), and then lets it take one turn.  Nothing is allocated in a turn
 * except by protobuf-c (messages received and packed).
 *
 * Always true: a token is in the ledger before it is in a message (design rule 1). */
#ifndef LLMD_GPU_WORKER_ENGINE_H
#define LLMD_GPU_WORKER_ENGINE_H

#include "common/config.h"
#include "gpu-worker/kv_tier_data.h"
#include "gpu-worker/runtime.h"
#include "proto/board.h"
#include "proto/host_tier.h"
#include "proto/ledger.h"
#include "proto/link.h"

/* All borrowed for the engine's life.  LIVE settings in *config may change between turns. */
struct engine_boot {
    const struct config *config;
    uint32_t group, n_groups;
    uint32_t epoch; /* > 1: a predecessor died; its ledger is recovered */
    struct ledger *ledger;
    struct kvpool *pool;
    struct host_tier *host_tier;          /* NULL: there is none, or nobody who could copy to it */
    const struct kv_tier_data *tier_data; /* runtime_kv_tier() */
    struct board_slot *slot;
    struct runtime *runtime;
    struct link *link;
};

struct engine;

/* NULL and ERR_PROTO when segments and model do not belong together. */
struct engine *engine_new(const struct engine_boot *boot, struct err *e);

/* Leaves the ledger as it is: what was not finished can be recovered.  NULL is fine. */
void engine_free(struct engine *g);

/* Take in what came, run at most one step, send what there is.  ERR_DEVICE or ERR_PROTO from the forward
 * pass: the worker must exit. */
bool engine_turn(struct engine *g, struct err *e);

/* When the next turn is due even if link_fd() stays silent: 0 = at once, UINT64_MAX = never. */
uint64_t engine_wake_ns(const struct engine *g);

/* Take nothing new; what still runs at the deadline (CLOCK_MONOTONIC) is ended with an error.  A second
 * call can only bring the deadline nearer. */
void engine_drain(struct engine *g, uint64_t deadline_ns);

/* Draining is complete: everything ended and was acknowledged, or there is no more time to wait. */
bool engine_is_drained(const struct engine *g);

#endif
