/* inspect.c - one short run of the worker; its answer comes over a pipe, its complaints over control.
 *
 * A worker that cannot read the model makes llmd give up, so nothing here is tried again. */
#include "supervisor/inspect.h"

static const char name[] = "llm-worker --inspect";

/* NULL and *e when the frame is not a plan that segments can be made from. */
static Llmd__ModelPlan *unpack_plan(const struct buf *answer, struct err *e)
{
    Llmd__ModelPlan *plan;
    struct frame f;

    if (answer->n == 0) {
        err_set(e, ERR_PROTO, 0, "%s said nothing", name);
        return NULL;
    }
    if (!frame_parse(&f, (const uint8_t *)answer->data, answer->n, e))
        return NULL;
    if (f.type != MSG_MODEL_PLAN) {
        err_set(e, ERR_PROTO, 0, "%s answered %s", name, msg_name(f.type));
        return NULL;
    }
    plan = (Llmd__ModelPlan *)frame_unpack(&f, e);
    if (plan && (plan->max_model_len == 0 || plan->kv_pages == 0 || plan->kv_page_tokens == 0 ||
                 plan->kv_page_bytes == 0 || plan->weights_shard_bytes == 0)) {
        err_set(e, ERR_PROTO, 0, "%s gave a plan with a size of 0", name);
        frame_free_body(plan);
        return NULL;
    }
    return plan;
}

static void on_done(void *arg, const struct buf *out, const struct err *why)
{
    struct inspect *in = arg;
    Llmd__ModelPlan *plan = NULL;
    struct err e = *why;

    if (e.code == ERR_TIMEOUT)
        err_set(&e, ERR_TIMEOUT, 0, "reading the model took longer than start_timeout_s");
    else if (e.code == ERR_NONE)
        plan = unpack_plan(out, &e);
    in->done(in->arg, plan, &e);
}

bool inspect_start(struct inspect *in, sd_event *event, const struct inspect_call *call,
                   struct err *e)
{
    char *argv[] = { (char *)(uintptr_t)call->worker_path, (char *)(uintptr_t) "--inspect", NULL };
    const struct capture_call capture = { .path = call->worker_path,
                                          .argv = argv,
                                          .name = name,
                                          .boot = call->boot,
                                          .timeout_ns = call->timeout_ns,
                                          .done = on_done,
                                          .arg = in };

    *in = (struct inspect){ .done = call->done, .arg = call->arg };
    return capture_start(&in->capture, event, &capture, e);
}

void inspect_stop(struct inspect *in)
{
    capture_stop(&in->capture);
}
