/* items_service.c - G3, G8, G15, G19: a whole llmd under load, of which parts are killed (lab.h). */
#include <signal.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/nvml.h"
#include "gpu-worker/cuda/verify/lab.h"

static bool kill_worker(struct lab *l)
{
    return lab_kill(l, "worker 0.0");
}

/* ---- G8 ---- */

static void kill_under_load(const struct verify *v, bool deterministic, struct item_report *r)
{
    const char *which = deterministic ? "deterministic" : "by default";
    struct service_setup how = lab_setup(v);
    struct client_question q = lab_question(v);
    struct tally t;
    struct lab *l;

    how.deterministic = deterministic;
    l = lab_open(v, &how, &q, r);
    if (!l)
        return;
    tally_open(&t, (uint32_t)v->n_kills / 2);
    lab_run_rounds(l, kill_worker, UINT64_MAX, &t);
    tally_report(l, &t, deterministic, 1000, 0, which, r);
    tally_report_growth(&t, which, r);
    tally_close(&t);
    lab_close(l);
}

void item_kills_under_load(const struct verify *v, struct item_report *r)
{
    kill_under_load(v, true, r);
    if (r->verdict != VERDICT_FAIL && r->verdict != VERDICT_SKIPPED)
        kill_under_load(v, false, r);
}

/* ---- G3: everything dies but who holds the descriptors ---- */

static bool kill_all(struct lab *l)
{
    static const char *const names[] = { "llmd", "worker 0.0", "gateway" };
    pid_t pids[3];
    bool ok = true;

    for (int i = 0; i < 3; i++)
        pids[i] = service_pid(&l->service, names[i]);
    for (int i = 0; i < 3; i++)
        ok = pids[i] > 0 && kill(pids[i], SIGKILL) == 0 && ok;
    return ok;
}

static void report_persistence(const struct verify *v, struct item_report *r)
{
    struct nvml_state s;
    struct err e = { 0 };

    if (nvml_read(v->uuid, &s, &e))
        report_text(r, "persistence mode", "%s", s.is_persistent ? "on" : "off");
}

void item_restarted_service(const struct verify *v, struct item_report *r)
{
    struct service_setup how = lab_setup(v);
    struct client_question q = lab_question(v);
    double loaded;
    struct tally t;
    struct lab *l;

    how.deterministic = how.has_init = true;
    l = lab_open(v, &how, &q, r);
    if (!l)
        return;
    loaded = client_metric(l->service.port, "llmd_weights_bytes_loaded_total");
    tally_open(&t, v->is_dry_run ? 1 : 10);
    lab_run_rounds(l, kill_all, UINT64_MAX, &t);
    report_persistence(v, r);
    report_number(r, loaded / 1e6, "MB", "weights loaded at the first start");
    report_at_most(r, client_metric(l->service.port, "llmd_weights_bytes_loaded_total") - loaded, 0,
                   "B", "weights loaded again");
    report_at_most(r, client_metric(l->service.port, "llmd_kv_pages_corrupt_total"), 0, "",
                   "KV pages found corrupt");
    tally_report(l, &t, true, 0, 0, "llmd, worker and gateway at once", r);
    tally_close(&t);
    lab_close(l);
}

/* ---- G15: a rank of two ---- */

static bool kill_a_rank(struct lab *l)
{
    return lab_kill(l, lab_draw(l) & 1 ? "worker 0.1" : "worker 0.0");
}

/* Its successor too, somewhere between its exec and its first step: while it maps, meets the other, forms NCCL. */
static bool kill_in_init(struct lab *l)
{
    pid_t before = service_pid(&l->service, "worker 0.1"), now = before;
    uint64_t end_ns = clock_mono_ns() + LAB_READY_MS * NS_PER_MS;

    if (before <= 0 || kill(before, SIGKILL) != 0)
        return false;
    while ((now <= 0 || now == before) && clock_mono_ns() < end_ns)
        now = service_pid(&l->service, "worker 0.1");
    usleep((useconds_t)(lab_draw(l) % (l->v->is_dry_run ? 100000 : 800000)));
    return now > 0 && now != before && (kill(now, SIGKILL) == 0 || lab_kill(l, "worker 0.1"));
}

struct rank_kill {
    const char *name;
    lab_kill_fn *kill_it;
    uint32_t n_prompt, n_answer; /* on a GPU */
};

static const struct rank_kill rank_kills[] = {
    { "in all-reduce", kill_a_rank, 200, 256 },
    { "in prompts, by NCCL", kill_a_rank, 3500, 8 },
    { "in init", kill_in_init, 200, 256 },
};

static void kill_ranks(const struct verify *v, const struct rank_kill *k, struct item_report *r)
{
    struct service_setup how = lab_setup(v);
    struct client_question q = lab_question(v);
    struct tally t;
    struct lab *l;
    bool in_init = k->kill_it == kill_in_init;

    how.tp_size = 2;
    if (!v->is_dry_run) {
        q.n_prompt = k->n_prompt;
        q.n_answer = k->n_answer;
    }
    l = lab_open(v, &how, &q, r);
    if (!l)
        return;
    tally_open(&t, v->is_dry_run ? 1 : 50);
    lab_run_rounds(l, k->kill_it, UINT64_MAX, &t);
    tally_report(l, &t, false, in_init ? 0 : 1000, in_init ? 0 : 3000, k->name, r);
    tally_report_growth(&t, k->name, r);
    tally_close(&t);
    lab_close(l);
}

void item_killed_rank(const struct verify *v, struct item_report *r)
{
    for (size_t i = 0; i < sizeof rank_kills / sizeof rank_kills[0]; i++)
        if (r->verdict != VERDICT_FAIL && r->verdict != VERDICT_SKIPPED)
            kill_ranks(v, &rank_kills[i], r);
}

/* ---- G19 ---- */

static bool kill_anything(struct lab *l)
{
    switch (lab_draw(l) % 4) {
    case 0:
        return lab_kill(l, "gateway");
    case 1:
        return lab_kill(l, "llmd");
    case 2:
        return kill_all(l);
    default:
        return kill_worker(l);
    }
}

void item_soak(const struct verify *v, struct item_report *r)
{
    struct service_setup how = lab_setup(v);
    struct client_question q = lab_question(v);
    struct tally t;
    struct lab *l;
    uint64_t end_ns;

    if (v->soak_minutes <= 0) {
        report_skip(r, "not asked for: --soak MINUTES, 720 for a release");
        return;
    }
    how.deterministic = how.has_init = true;
    l = lab_open(v, &how, &q, r);
    if (!l)
        return;
    end_ns = clock_mono_ns() + (uint64_t)v->soak_minutes * 60 * NS_PER_S;
    tally_open(&t, 1000000);
    lab_run_rounds(l, kill_anything, end_ns, &t);
    report_number(r, v->soak_minutes, "min", "time");
    tally_report(l, &t, true, 0, 0, "anything killed", r);
    tally_report_growth(&t, "anything killed", r);
    tally_close(&t);
    lab_close(l);
}
