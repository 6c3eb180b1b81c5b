/* chaos.c - see chaos.h. */
#include "tests/chaos/chaos.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/chaos/audit.h"
#include "tests/chaos/device_kills.h"
#include "tests/chaos/gpus.h"

enum {
    WINDOW_MS = 300,
    REST_MS = 300000, /* until all clients have come to rest */
    PATIENCE_MS =
        150000, /* of a client without a byte; each death of the gateway begins beams anew */
    STOP_MS = 60000,
    WARM_MS = 300,
    ASKED_AGAIN = 6,
    NAP_MS_MAX = 120,
};

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWNESS = 3 }; /* programs with a sanitizer take longer for everything */
#else
enum { SLOWNESS = 1 };
#endif

/* All cut calls of tools from what a chat says.  KV pages of the demo model are scarce in groups2: what is cached
 * there is thrown out, and what runs gives way. */
#define ARGS "--log-level", "info", "--tool-call-parser", "hermes"
static const char *const plain_args[] = { ARGS, NULL };
static const char *const scarce_args[] = { ARGS, "--kv-cache-bytes", "8388608", NULL };

/* What holds on the CPU anyway: an answer depends on nothing but its request.  Kernels on the CPU are slow, and slower on a
 * busy machine: nobody's patience with them ends. */
static const char *const gpu_args[] = { ARGS,
                                        "--device=cuda",
                                        "--deterministic=on",
                                        "--kv-cache-bytes=262144",
                                        "--kv-page-tokens=4",
                                        "--max-num-seqs=8",
                                        "--hang-step-factor=20",
                                        "--start-timeout-s=120",
                                        "--drain-timeout-s=300",
                                        "--unavailable-wait-s=300",
                                        NULL };

static const struct shape {
    const char *name;
    uint32_t groups, tp_size;
    const char *const *args;
} shapes[] = {
    { "one", 1, 1, plain_args },
    { "groups2", 2, 1, scarce_args },
    { "tp2", 1, 2, plain_args },
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

struct chaos_options chaos_defaults(void)
{
    return (struct chaos_options){ .seed = 1,
                                   .rounds = 12,
                                   .kills_per_round = 8,
                                   .copies = 2,
                                   .n_clients = 32,
                                   .calm_ms = 3000,
                                   .set = CATALOG_ALL,
                                   .hang_step_ms = SLOWNESS * 600,
                                   .hang_timeout_s = SLOWNESS * 2 };
}

void chaos_use_gpus(struct chaos_options *o, const char *libraries, const char *tokenizer)
{
    o->gpu_libraries = libraries;
    o->gpu_tokenizer = tokenizer;
    o->set = CATALOG_GPU;
    o->n_clients = 6;
    o->hang_step_ms = SLOWNESS * 2500; /* a prompt takes some hundreds */
    o->hang_timeout_s = SLOWNESS * 5;
}

/* Everything of one shape. */
struct run {
    const struct chaos_options *o;
    struct chaos_result *result;
    struct evidence *evidence;
    struct catalog *catalog;
    struct gpus *gpus; /* NULL: the server is on the CPU */
    struct server server;
    struct load load;
    struct killer killer;
    struct audit audit;
    struct random random;
    uint32_t bag[N_KILL_KINDS * 20], n_bag; /* kinds to draw, as often as they weigh */
    uint32_t fresh[N_KILL_KINDS],
        n_fresh; /* kinds not yet drawn: each comes once before any comes twice */
};

static volatile sig_atomic_t is_stopped;

void chaos_stop(void)
{
    is_stopped = 1;
}

/* ---- which kill next ---- */

static bool is_wanted(const char *only, const char *name)
{
    size_t n = strlen(name);

    for (const char *at = only; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, name, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    }
    return !only;
}

static void fill_bag(struct run *run)
{
    run->n_bag = run->n_fresh = 0;
    for (int id = 0; id < N_KILL_KINDS; id++) {
        const struct kill_kind *kind = kill_kind((enum kill_id)id);
        if (!is_wanted(run->o->only, kind->name) || !killer_can(&run->killer, (enum kill_id)id))
            continue;
        run->fresh[run->n_fresh++] = (uint32_t)id;
        for (uint32_t i = 0; i < kind->weight; i++)
            run->bag[run->n_bag++] = (uint32_t)id;
    }
}

static enum kill_id draw_kill(struct run *run)
{
    uint32_t i, id;

    if (run->n_fresh == 0)
        return (enum kill_id)run->bag[random_below(&run->random, run->n_bag)];
    i = random_below(&run->random, run->n_fresh);
    id = run->fresh[i];
    run->fresh[i] = run->fresh[--run->n_fresh];
    return (enum kill_id)id;
}

/* ---- rounds ---- */

static bool kill_once(struct run *run)
{
    enum kill_id id = draw_kill(run);
    struct report_row *row = &run->result->kinds[id];
    struct counts before = run->load.counts, done;
    double pause_ms;
    bool ok;

    load_run_ms(&run->load, random_below(&run->random, NAP_MS_MAX));
    ok = killer_kill(&run->killer, id, &pause_ms);
    done = counts_since(&run->load.counts, &before);
    counts_add(&row->counts, &done);
    if (pause_ms >= 0)
        samples_add(&row->recovery, pause_ms);
    return ok;
}

static void rest(struct run *run)
{
    struct counts *c = &run->load.counts;

    if (!pid_runs(run->server.root)) {
        run->load.is_open = false;
        return; /* nobody is there: a defect already */
    }
    if (!load_close(&run->load, REST_MS)) {
        c->failed++;
        evidence_defect(run->evidence, NULL, NULL, "clients do not come to rest");
    }
    if (!run->o->peer_command)
        c->leaked += audit_idle(&run->audit, &run->server, run->evidence);
}

/* The longest pause of a window in which nothing dies. */
static void measure_window(struct run *run)
{
    load_watch(&run->load, clock_mono_ns(), WINDOW_MS);
    load_watch_end(&run->load, 5000);
    if (run->load.watch.longest_ns)
        samples_add(&run->result->calm_windows, (double)run->load.watch.longest_ns / NS_PER_MS);
}

static bool run_round(struct run *run)
{
    bool ok = true;

    run->load.is_open = true;
    load_run_ms(&run->load, WARM_MS);
    measure_window(run);
    for (uint32_t i = 0; ok && !is_stopped && i < run->o->kills_per_round; i++)
        ok = kill_once(run);
    rest(run);
    return ok;
}

/* ---- the undisturbed server ---- */

static void measure_calm(struct run *run)
{
    uint64_t end_ns = clock_mono_ns() + run->o->calm_ms * NS_PER_MS;

    run->load.is_open = true;
    load_run_ms(&run->load, 2 * WARM_MS);
    run->load.gaps = &run->result->calm_pauses;
    while (clock_mono_ns() < end_ns) {
        load_watch(&run->load, clock_mono_ns(), WINDOW_MS);
        load_watch_end(&run->load, 5000);
        if (run->load.watch.longest_ns)
            samples_add(&run->result->calm_windows, (double)run->load.watch.longest_ns / NS_PER_MS);
    }
    run->load.gaps = NULL;
}

static bool prepare(struct run *run, struct err *e)
{
    const struct chaos_options *o = run->o;
    struct load_config load = { .catalog = run->catalog,
                                .of_peer = o->peer_command != NULL,
                                .asks_once = o->gpu_libraries != NULL, /* models are changed */
                                .n_clients = o->n_clients,
                                .seed = o->seed,
                                .patience_ms = PATIENCE_MS };

    load_init(&run->load, &load, run->evidence);
    load_set_port(&run->load, run->server.port);
    killer_init(&run->killer, &run->server, &run->load, o->seed);
    fill_bag(run);
    if (run->n_bag == 0)
        return err_set(e, ERR_INPUT, 0, "this server can take none of these kills");
    if (!run->catalog->is_answered && !load_take_calm(&run->load))
        return err_set(e, ERR_PROTO, 0, "the undisturbed server does not answer");
    run->killer.poison_token = device_poison_token(run->catalog);
    memset(&run->load.counts, 0, sizeof run->load.counts);
    audit_baseline(&run->audit, &run->server);
    measure_calm(run);
    rest(run);
    return true;
}

/* ---- a shape, and all of them ---- */

static const char *const *args_of(const struct chaos_options *o, const struct shape *shape)
{
    if (o->gpu_libraries)
        return gpu_args;
    return o->set == CATALOG_LARGE ? plain_args : shape->args;
}

static struct server_config server_of(const struct run *run, const struct shape *shape)
{
    const struct chaos_options *o = run->o;

    return (struct server_config){ .name = shape->name,
                                   .groups = shape->groups,
                                   .tp_size = shape->tp_size,
                                   .bin = o->bin,
                                   .model = o->model,
                                   .hang_step_ms = o->hang_step_ms,
                                   .hang_timeout_s = o->hang_timeout_s,
                                   .args = args_of(o, shape),
                                   .gpus = run->gpus,
                                   .peer_command = o->peer_command,
                                   .peer_port = o->peer_port };
}

static void run_rounds(struct run *run, uint32_t n)
{
    bool ok = true;

    for (uint32_t i = 0; ok && !is_stopped && i < n; i++) {
        evidence_note(run->evidence, "round %u of shape %s", i + 1, run->server.config.name);
        ok = run_round(run);
    }
    if (ok)
        load_ask_again(&run->load, ASKED_AGAIN, &run->random);
}

/* Each damaged page is found once, or given up unread; no other is taken for damaged: operators are alarmed by that. */
static void count_pages(struct run *run)
{
    const struct killer *k = &run->killer;
    uint32_t n = k->n_found + (uint32_t)server_stat(&run->server, STAT_kv_pages_corrupt);

    run->result->n_spoilt += k->n_spoilt;
    run->result->n_found += n;
    if (n <= k->n_spoilt)
        return;
    run->load.counts.failed++;
    evidence_defect(run->evidence, NULL, NULL, "%u pages were damaged, and %u found so",
                    k->n_spoilt, n);
}

static void end_server(struct run *run)
{
    struct counts *c = &run->load.counts;
    int code;
    char log[96];

    count_pages(run);
    code = server_stop(&run->server, STOP_MS);
    c->leaked += audit_ended(&run->audit, &run->server, code, run->evidence);
    server_log_path(&run->server, log);
    evidence_keep(run->evidence, log, run->server.config.name);
    server_forget(&run->server);
    counts_add(&run->result->counts, c);
}

static bool run_shape(struct run *run, const struct shape *shape, uint32_t rounds, struct err *e)
{
    struct server_config config = server_of(run, shape);
    bool ok;

    run->random = random_stream(run->o->seed, 10 + (uint64_t)(shape - shapes));
    evidence_note(run->evidence, "shape %s", shape->name);
    audit_before(&run->audit);
    ok = server_start(&run->server, &config, e) && prepare(run, e);
    if (ok)
        run_rounds(run, rounds);
    else
        evidence_defect(run->evidence, NULL, NULL, "%s", e->msg);
    end_server(run);
    load_fini(&run->load);
    audit_fini(&run->audit);
    run->load = (struct load){ 0 };
    return ok;
}

static bool is_chosen(const struct chaos_options *o, const struct shape *shape)
{
    if (o->peer_command)
        return shape == shapes;
    return !o->shape || strcmp(o->shape, shape->name) == 0;
}

/* The rounds shared out among the shapes. */
static bool run_shapes(struct run *run, struct err *e)
{
    uint32_t n_chosen = 0, n_rounds_left = run->o->rounds;
    bool ok = true;

    for (int i = 0; i < N_SHAPES; i++)
        n_chosen += is_chosen(run->o, &shapes[i]);
    if (n_chosen == 0)
        return err_set(e, ERR_INPUT, 0, "no shape is called '%s'", run->o->shape);
    for (int i = 0; ok && !is_stopped && i < N_SHAPES; i++) {
        uint32_t rounds;
        if (!is_chosen(run->o, &shapes[i]))
            continue;
        rounds = (n_rounds_left + n_chosen - 1) / n_chosen;
        ok = run_shape(run, &shapes[i], rounds, e);
        n_rounds_left -= rounds;
        n_chosen--;
    }
    return ok;
}

/* On GPUs, or without. */
static bool run_on(struct run *run, struct err *e)
{
    struct gpus gpus;
    bool ok;

    if (!run->o->gpu_libraries)
        return run_shapes(run, e);
    run->gpus = &gpus;
    ok = gpus_open(&gpus, run->o->gpu_libraries, run->o->gpu_tokenizer, e) && run_shapes(run, e);
    gpus_close(&gpus);
    return ok;
}

/* On GPUs with their row of the failure matrix before them. */
static void name_kinds(struct chaos_result *r, bool on_gpus)
{
    for (int i = 0; i < N_KILL_KINDS; i++) {
        const char *name = kill_kind((enum kill_id)i)->name;
        uint32_t row = on_gpus ? device_row((enum kill_id)i) : 0;
        if (row > 0)
            snprintf(r->names[i], sizeof r->names[i], "row%02u_%s", row, name);
        else
            snprintf(r->names[i], sizeof r->names[i], "%s", name);
        r->kinds[i].name = r->names[i];
    }
}

bool chaos_run(const struct chaos_options *o, struct chaos_result *r, struct err *e)
{
    struct run *run = mem_zalloc(1, sizeof *run);
    struct evidence evidence;
    struct catalog catalog;
    bool ok;

    *r = (struct chaos_result){ 0 };
    name_kinds(r, o->gpu_libraries != NULL);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* who loses its parent comes to us, and is seen */
    evidence_init(&evidence, o->seed, o->is_verbose);
    catalog_init(&catalog, o->set, o->copies, o->peer_model, o->seed);
    *run = (struct run){ .o = o, .result = r, .evidence = &evidence, .catalog = &catalog };
    ok = run_on(run, e);
    r->n_defects = evidence.n_defects;
    snprintf(r->evidence_dir, sizeof r->evidence_dir, "%s", evidence.dir);
    catalog_fini(&catalog);
    evidence_fini(&evidence);
    free(run);
    return ok;
}

void chaos_result_fini(struct chaos_result *r)
{
    for (int i = 0; i < N_KILL_KINDS; i++)
        samples_fini(&r->kinds[i].recovery);
    samples_fini(&r->calm_pauses);
    samples_fini(&r->calm_windows);
}

/* ---- telling ---- */

void chaos_csv(struct chaos_result *r, FILE *out)
{
    struct report_row rows[N_KILL_KINDS + 2];

    for (int i = 0; i < N_KILL_KINDS; i++)
        rows[i] = r->kinds[i];
    rows[N_KILL_KINDS] =
        (struct report_row){ .name = "undisturbed_pause", .recovery = r->calm_pauses };
    rows[N_KILL_KINDS + 1] =
        (struct report_row){ .name = "undisturbed_longest_in_300ms", .recovery = r->calm_windows };
    report_csv(out, rows, N_KILL_KINDS + 2);
}

static struct samples *samples_of(struct chaos_result *r, enum kill_sample sample)
{
    static struct samples none;

    for (int i = 0; i < N_KILL_KINDS; i++)
        if (kill_kind((enum kill_id)i)->sample == sample && r->kinds[i].recovery.n)
            return &r->kinds[i].recovery;
    return &none;
}

void chaos_line(struct chaos_result *r, FILE *out)
{
    if (r->n_spoilt > 0)
        fprintf(out, "pages of GPU memory damaged %u, found so %u\n", r->n_spoilt, r->n_found);
    report_line(out, &r->counts, samples_of(r, SAMPLE_WORKER), samples_of(r, SAMPLE_GATEWAY),
                samples_of(r, SAMPLE_LLMD));
}
