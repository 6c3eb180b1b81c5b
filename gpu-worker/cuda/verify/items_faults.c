/* items_faults.c - G20: error codes that cannot be provoked, put in the way of a whole service under load.
 *
 * The worker's own door takes a call of the driver for one that answered with the code (common/fault_point.h,
 * worker.device), wherever in a step that is.  The GPU and the driver are well: everything behind the door is as it would
 * be - the exit code, what llmd does by it, and what the successor maps, verifies and loads of real memory. */
#include <stdio.h>
#include <string.h>

#include "common/clock.h"
#include "gpu-worker/cuda/verify/lab.h"
#include "proto/worker_exit.h"

enum { ASKS_MAX = 5, CALLS_MAX = 40 };

struct injected {
    const char *name;
    int code; /* CUresult */
    enum worker_exit exit_code;
    bool
        keeps_memory; /* what the worker left is used by its successor, and not a byte loaded again */
};

/* Rows 7 to 9 of the failure matrix.  226 once: met again within ten minutes it is taken to stay. */
static const struct injected injected[] = {
    { "contained memory error (226)", 226, WORKER_EXIT_DEVICE_CONTAINED, true },
    { "NVLink error (220)", 220, WORKER_EXIT_DEVICE_STICKY, true },
    { "uncorrectable memory error (214)", 214, WORKER_EXIT_DEVICE_LOST, false },
    { "device unavailable (46)", 46, WORKER_EXIT_DEVICE_LOST, false },
};

/* At one of the next calls of the worker that runs now, and of no successor. */
static void arm(struct lab *l, const struct injected *f, uint32_t epoch)
{
    char spec[64];

    snprintf(spec, sizeof spec, "worker.device=fail%d:%u@%u", f->code,
             1 + (unsigned)(lab_draw(l) % CALLS_MAX), epoch);
    service_set_fault_points(&l->service, spec);
}

static bool has_happened(const struct lab *l, const struct service_state *before)
{
    struct service_state now;

    return service_look(&l->service, &now) && now.restarts != before->restarts;
}

/* In the first round of answers, or in the next one where the order came too late for that.  Milliseconds until all
 * processes serve again; negative: it never happened, or they never did. */
static double meet(struct lab *l, const struct injected *f, struct tally *t)
{
    struct service_state before;
    double ready_ms = -1;
    uint64_t from_ns;

    if (!service_look(&l->service, &before))
        return ready_ms;
    arm(l, f, before.epoch);
    for (from_ns = clock_mono_ns(); t->n < t->n_max && ready_ms < 0; from_ns = clock_mono_ns()) {
        lab_ask(l, l->clients);
        clients_read(l->clients, l->n_streams, from_ns + LAB_ROUND_S * NS_PER_S);
        lab_judge(l, t);
        t->n++;
        lab_hang_up(l->clients);
        if (has_happened(l, &before))
            ready_ms = lab_wait_back(l, &before, from_ns);
    }
    service_set_fault_points(&l->service, "");
    return ready_ms;
}

static void report_exit(struct lab *l, const struct injected *f, struct item_report *r)
{
    struct service_state now = { 0 };
    char wanted[32];
    bool is_other;

    snprintf(wanted, sizeof wanted, "exit code %d ", f->exit_code);
    service_look(&l->service, &now);
    is_other = strncmp(now.last_exit, wanted, strlen(wanted)) != 0;
    report_at_most(r, is_other, 0, "", "%s: workers that did not end with exit code %d", f->name,
                   f->exit_code);
    if (is_other)
        report_text(r, "what it ended with", "%s", now.last_exit);
}

static void inject(struct lab *l, const struct injected *f, struct item_report *r)
{
    double loaded = client_metric(l->service.port, "llmd_weights_bytes_loaded_total"), ready_ms;
    struct tally t;

    tally_open(&t, ASKS_MAX);
    ready_ms = meet(l, f, &t);
    loaded = client_metric(l->service.port, "llmd_weights_bytes_loaded_total") - loaded;
    report_at_most(r, ready_ms < 0, 0, "", "%s: not met, or not recovered from", f->name);
    report_exit(l, f, r);
    report_at_most(r, t.n_cut, 0, "", "%s: answers cut or too long", f->name);
    if (t.n_cut > 0)
        report_text(r, "the first of these", "%s", t.why);
    report_at_most(r, t.n_different, 0, "", "%s: answers with other tokens", f->name);
    report_number(r, lab_percentile(t.pause_ms, t.n, 100), "ms", "%s: longest pause of a client",
                  f->name);
    if (f->keeps_memory)
        report_at_most(r, loaded, 0, "B", "%s: weights loaded again", f->name);
    else
        report_at_least(r, loaded, 1, "B", "%s: weights loaded again", f->name);
    tally_close(&t);
}

void item_injected_errors(const struct verify *v, struct item_report *r)
{
    struct service_setup how = lab_setup(v);
    struct client_question q = lab_question(v);
    struct lab *l;

    how.deterministic = true;
    l = lab_open(v, &how, &q, r);
    if (!l)
        return;
    for (size_t i = 0; i < sizeof injected / sizeof injected[0]; i++)
        inject(l, &injected[i], r);
    lab_close(l);
}
