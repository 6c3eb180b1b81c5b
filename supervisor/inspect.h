/* inspect.h - ask `llm-worker --inspect` what the model needs, without reading a model file in llmd. */
#ifndef LLMD_SUPERVISOR_INSPECT_H
#define LLMD_SUPERVISOR_INSPECT_H

#include "common/buf.h"
#include "supervisor/child.h"

struct inspect {
    struct child child;
    int out;           /* its stdout; -1 = none */
    struct buf answer; /* one MODEL_PLAN frame */
    char words[240];   /* its FATAL message */
    bool is_late;
    sd_event_source *on_out, *timer;
    /* Called once: plan (taken by the callee) or NULL and why. */
    void (*done)(void *arg, Llmd__ModelPlan *plan, const struct err *why);
    void *arg;
};

struct inspect_call {
    const char *worker_path;
    const Llmd__Boot *boot; /* settings only; borrowed during the call */
    uint64_t timeout_ns;
    void (*done)(void *arg, Llmd__ModelPlan *plan, const struct err *why);
    void *arg;
};

bool inspect_start(struct inspect *in, sd_event *event, const struct inspect_call *call,
                   struct err *e);
void inspect_stop(struct inspect *in); /* kills it if it still runs; safe on a zeroed struct */

#endif
