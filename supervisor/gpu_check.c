/* gpu_check.c - see gpu_check.h. */
#include "supervisor/gpu_check.h"

#include <stdio.h>

#include "common/arena.h"
#include "common/clock.h"
#include "proto/gpu_names.h"
#include "supervisor/boot.h"
#include "supervisor/llmd.h"

#define PATIENCE_NS (10 * NS_PER_S)

static const char name[] = "llm-worker gpu-check";

/* A GPU can be reset only when nobody has anything of it open, and what was in its memory is gone then.  (No answer in time
 * says too little for that.) */
static void let_go(struct team *t, const struct err *why)
{
    for (uint32_t r = 0; why->code != ERR_TIMEOUT && r < t->n_members; r++)
        gpu_memory_lost(&t->llmd->gpu, t->group, r);
}

static void on_done(void *arg, const struct buf *out, const struct err *why)
{
    struct team *t = arg;

    (void)out;
    if (t->state != TEAM_GPU_DOWN) /* an operator did not wait for the answer */
        return;
    snprintf(t->gpu_words, sizeof t->gpu_words, "%s", why->msg);
    if (why->code == ERR_NONE) {
        team_handle(t, TEAM_EV_GPU_WELL);
        return;
    }
    let_go(t, why);
    team_handle(t, TEAM_EV_GPU_BAD);
}

/* The program, its order, and the GPUs' names; NULL-terminated. */
static char **arguments(const struct llmd *l, const struct team *t, struct arena *a)
{
    char **argv = arena_alloc(a, (t->n_members + 3) * sizeof *argv);
    char gpu[GPU_NAME_BYTES];
    uint32_t n = 0;

    argv[n++] = arena_strdup(a, l->worker_path);
    argv[n++] = arena_strdup(a, "gpu-check");
    for (uint32_t r = 0; r < t->n_members; r++)
        if (gpu_names_get(l->plan->gpus, t->group * t->n_members + r, gpu))
            argv[n++] = arena_strdup(a, gpu);
    argv[n] = NULL;
    return argv;
}

bool gpu_check_start(struct gpu_check *c, struct llmd *l, struct team *t, struct err *e)
{
    struct boot *boot;
    struct arena a = { 0 };
    struct capture_call call = {
        .path = l->worker_path, .name = name, .timeout_ns = PATIENCE_NS, .done = on_done, .arg = t
    };
    bool ok;

    if (c->capture.done)
        return true;
    boot = boot_new(l, NULL);
    call.boot = &boot->message;
    call.argv = arguments(l, t, &a);
    ok = capture_start(&c->capture, l->event, &call, e);
    boot_free(boot);
    arena_fini(&a);
    return ok;
}

void gpu_check_leave(struct gpu_check *c)
{
    capture_leave(&c->capture);
}
