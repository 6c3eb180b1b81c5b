/* inspect.h - ask `llm-worker --inspect` what the model needs, without reading a model file in llmd. */
#ifndef LLMD_SUPERVISOR_INSPECT_H
#define LLMD_SUPERVISOR_INSPECT_H

#include <systemd/sd-event.h>

#include "common/buf.h"
#include "common/config.h"
#include "proto/frame.h"
#include "supervisor/spawn.h"

struct inspect {
    struct child child;
    int out;          /* its stdout */
    struct buf bytes; /* one MODEL_PLAN frame */
    char fatal[240];
    sd_event_source *on_out, *on_exit, *on_control;
    /* Called once: plan (taken by the callee) or NULL and why. */
    void (*done)(void *arg, Llmd__ModelPlan *plan, const struct err *why);
    void *arg;
};

bool inspect_start(struct inspect *in, sd_event *event, const struct config *c,
                   void (*done)(void *arg, Llmd__ModelPlan *plan, const struct err *why), void *arg,
                   struct err *e);
void inspect_stop(struct inspect *in); /* kills it if it still runs */

#endif
