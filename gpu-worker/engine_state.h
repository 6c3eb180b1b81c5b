/* engine_state.h - the engine's parts, shared by engine.c, commit.c, intake.c and recovery.c only. */
#ifndef LLMD_GPU_WORKER_ENGINE_STATE_H
#define LLMD_GPU_WORKER_ENGINE_STATE_H

#include "gpu-worker/delivery.h"
#include "gpu-worker/engine.h"
#include "gpu-worker/scheduler.h"
#include "gpu-worker/step.h"
#include "gpu-worker/step_history.h"
#include "gpu-worker/step_pace.h"
#include "gpu-worker/submit_check.h"

struct engine {
    struct engine_boot boot;
    const struct model_info *info; /* the runtime's */
    struct submit_limits limits;
    struct sequence_table table;
    struct kvcache cache;
    struct scheduler scheduler;
    struct step step;
    struct step_history history;
    struct step_pace pace;
    uint32_t n_drafted; /* steps with drafts since one without */
    struct delivery delivery;
    uint64_t next_order;
    uint64_t next_deadline_ns; /* no live sequence has an earlier one; UINT64_MAX = none */
    uint64_t next_sweep_ns;    /* look for entries nobody claims */
    bool waits_for_pages;      /* nothing runs: pages are in quarantine */
    bool is_busy;              /* something happened in this turn: take another one */
    bool is_resting;           /* the runtime used an idle turn, and may use another one */

    bool is_draining;
    uint64_t drain_deadline_ns;
    bool drain_ended; /* the deadline has passed, the rest was ended */
    uint64_t linger_until_ns;
};

/* `q` was just loaded from its entry: find it by id, queue it, or end it when its tokens say so. */
void engine_add(struct engine *g, struct sequence *q);

/* End a live sequence: DONE in the ledger, pages back, finish in the outbox.  error: FINISH_ERROR's. */
void engine_end(struct engine *g, struct sequence *q, Llmd__Finish finish, const char *error);

/* Free the sequence and its entry, live or done. */
void engine_forget(struct engine *g, struct sequence *q);

/* Receive until the link is empty, or a turn's share.  True when anything came. */
bool engine_take_in(struct engine *g);

/* Take over what a dead predecessor left in the ledger and the pool. */
void engine_recover(struct engine *g);

/* Take over what the step that was just run and sampled has come to (commit.c).  ERR_DEVICE. */
bool engine_commit(struct engine *g, const struct plan *plan, struct err *e);

static inline struct stats *engine_stats(const struct engine *g)
{
    return &g->boot.slot->stats;
}

#endif
