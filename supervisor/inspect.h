/* inspect.h - ask `llm-worker --inspect` what the model needs, without reading a model file in llmd. */
#ifndef LLMD_SUPERVISOR_INSPECT_H
#define LLMD_SUPERVISOR_INSPECT_H

#include "supervisor/capture.h"

/* Called once: plan (taken by the callee) or NULL and why. */
typedef void inspect_done_fn(void *arg, Llmd__ModelPlan *plan, const struct err *why);

struct inspect {
    struct capture capture;
    inspect_done_fn *done;
    void *arg;
};

struct inspect_call {
    const char *worker_path;
    const Llmd__Boot *boot; /* settings only; borrowed during the call */
    uint64_t timeout_ns;
    inspect_done_fn *done;
    void *arg;
};

bool inspect_start(struct inspect *in, sd_event *event, const struct inspect_call *call,
                   struct err *e);
void inspect_stop(struct inspect *in); /* kills it if it still runs; safe on a zeroed struct */

#endif
