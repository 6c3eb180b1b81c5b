/* plan.c - runs the two engines in turn: A-B, B-A, A-B, ...
 *
 * Both models are loaded at once when the machine has the memory, so that a round takes no longer than its
 * steps; else each is loaded anew in each round. */
#include "bench/compare/plan.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/compare/engine_process.h"
#include "bench/random_gguf.h"
#include "common/clock.h"
#include "common/host.h"

enum {
    OURS,
    THEIRS,
    N_SIDES,
    CASES_MAX = 8,
    BURNERS_MAX = 512,
    PROMPT_TOKENS = 512,
    CONTEXT = 64,
    MIX_STREAMS = 8,
    MIX_PROMPTS = 4,
    SEED = 1,
};

static const struct bench_case speed_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 }, { "1 stream, 128 tokens", 1, 128, 0 },
    { "2 streams", 2, 32, CONTEXT },       { "4 streams", 4, 32, CONTEXT },
    { "8 streams", 8, 32, CONTEXT },       { "16 streams", 16, 16, CONTEXT },
    { "32 streams", 32, 16, CONTEXT },
};

static const struct bench_case quick_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 },
    { "1 stream", 1, 32, 0 },
    { "8 streams", 8, 8, CONTEXT },
    { "32 streams", 32, 4, CONTEXT },
};

static const struct bench_case busy_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 },
    { "1 stream", 1, 32, 0 },
    { "8 streams", 8, 16, CONTEXT },
};

/* One model and both engines. */
struct group {
    const struct plan *plan;
    const struct shape *shape;
    const struct weight_type *type;
    const struct bench_case *cases;
    uint32_t n_cases;
    char path[4096];
    struct engine_options options[N_SIDES];
    struct engine_process sides[N_SIDES];
    bool together;
    struct figure *figures; /* [n_cases], or of a scenario */
    uint64_t deadline_ns;   /* no round begins later; 0 = none */
};

static const struct engine_class *const classes[N_SIDES] = { &engine_llmd, &engine_llamacpp };

/* ---- models and processes ---- */

static bool find_model(struct group *g, struct err *e)
{
    struct stat st;

    snprintf(g->path, sizeof g->path, "%s/%s-%s.gguf", g->plan->models, g->shape->name,
             g->type->name);
    if (stat(g->path, &st) == 0)
        return true;
    fprintf(stderr, "making %s\n", g->path);
    return random_gguf_write(g->shape, g->type, SEED, g->path, e);
}

static void fill_options(struct group *g)
{
    const struct plan *p = g->plan;
    uint32_t mix_steps = MIX_PROMPTS * (PROMPT_TOKENS / p->chunk + 1) + 2 * CONTEXT;
    bool mixed = p->scenario == SCENARIO_MIXED;
    struct engine_options o = {
        .model = g->path,
        .library = p->library,
        .quantize = p->quantize,
        .n_threads = p->n_threads,
        .seqs_max = mixed ? MIX_STREAMS + 1 : ENGINE_SEQS_MAX,
        .tokens_alone = PROMPT_TOKENS,
        .tokens_a_seq =
            mixed ? (mix_steps > PROMPT_TOKENS ? mix_steps : PROMPT_TOKENS) : 2 * CONTEXT,
        .shared_kv = p->shared_kv || mixed,
        .pinned = p->pinned,
    };

    g->options[OURS] = g->options[THEIRS] = o;
    if (p->ours[0])
        g->options[OURS].model = p->ours;
}

/* Twice the weights and the KV of each, and a fifth to spare. */
static bool both_fit(const struct group *g)
{
    const struct engine_options *o = &g->options[OURS];
    double weights = weight_type_bytes(g->type, shape_matrix_weights(g->shape));
    double kv = shape_kv_bytes(g->shape) * (o->seqs_max * o->tokens_a_seq + o->tokens_alone);

    return 1.2 * 2 * (weights + kv) < (double)host_memory_available("");
}

static bool open_side(struct group *g, int side, struct err *e)
{
    return g->sides[side].pid ||
           engine_process_open(&g->sides[side], classes[side], &g->options[side], e);
}

static void close_side(struct group *g, int side)
{
    engine_process_close(&g->sides[side]);
}

/* ---- measuring ---- */

static bool ask_rate(const struct group *g, int side, const struct bench_case *c, double *rate,
                     struct err *e)
{
    char command[128], answer[256];
    uint64_t ns, cpu_ns, tokens;

    if (c->n_streams == 0)
        snprintf(command, sizeof command, "prefill %u", c->n_tokens);
    else
        snprintf(command, sizeof command, "decode %u %u %u", c->n_streams, c->n_tokens, c->context);
    if (!engine_process_ask((struct engine_process *)&g->sides[side], command, answer,
                            sizeof answer, e))
        return false;
    if (sscanf(answer, "%" SCNu64 " %" SCNu64 " %" SCNu64, &ns, &cpu_ns, &tokens) != 3)
        return err_set(e, ERR_PROTO, 0, "%s answers '%.100s'", classes[side]->name, answer);
    *rate = (double)tokens / ((double)(g->plan->cpu_clock ? cpu_ns : ns) * 1e-9);
    return true;
}

static double *values(struct figure *f, int side)
{
    return side == OURS ? f->ours : f->theirs;
}

/* One case on one side, as the figure's value of this round. */
static bool measure(struct group *g, int side, uint32_t i, uint32_t round, struct err *e)
{
    return ask_rate(g, side, &g->cases[i], &values(&g->figures[i], side)[round], e);
}

static bool round_together(struct group *g, uint32_t round, struct err *e)
{
    int first = round % 2 ? THEIRS : OURS;

    for (uint32_t i = 0; i < g->n_cases; i++)
        if (!measure(g, first, i, round, e) || !measure(g, !first, i, round, e))
            return false;
    return true;
}

static bool round_apart(struct group *g, uint32_t round, struct err *e)
{
    for (int k = 0; k < N_SIDES; k++) {
        int side = (round % 2) ^ k;
        bool ok = open_side(g, side, e);
        for (uint32_t i = 0; ok && i < g->n_cases; i++)
            ok = measure(g, side, i, round, e);
        close_side(g, side);
        if (!ok)
            return false;
    }
    return true;
}

static bool is_late(const struct group *g)
{
    return g->deadline_ns && clock_mono_ns() > g->deadline_ns;
}

/* All rounds of all cases into g->figures. */
static bool run_rounds(struct group *g, struct err *e)
{
    for (uint32_t r = 0; r < g->plan->rounds && (r == 0 || !is_late(g)); r++) {
        if (!(g->together ? round_together(g, r, e) : round_apart(g, r, e)))
            return false;
        for (uint32_t i = 0; i < g->n_cases; i++)
            g->figures[i].n_rounds = r + 1;
    }
    return true;
}

static struct figure *new_figure(struct figures *all, const struct group *g, const char *work,
                                 const char *unit)
{
    struct figure *f = &all->items[all->n++];

    *f = (struct figure){ .shape = g->shape, .type = g->type, .unit = unit };
    snprintf(f->work, sizeof f->work, "%s", work);
    return f;
}

/* Names and versions of both sides, from processes that run. */
static void note_sides(const struct group *g, struct figures *all)
{
    char *texts[N_SIDES] = { all->ours, all->theirs };

    for (int s = 0; s < N_SIDES; s++)
        if (g->sides[s].pid)
            snprintf(texts[s], sizeof all->ours, "%s: %s", g->sides[s].info.version,
                     g->sides[s].info.variant);
}

static bool open_group(struct group *g, struct figures *all, struct err *e)
{
    g->together = both_fit(g);
    for (int s = 0; s < N_SIDES; s++) {
        if (!open_side(g, s, e))
            return false;
        note_sides(g, all);
        if (!g->together)
            close_side(g, s);
    }
    return true;
}

/* ---- scenarios ---- */

static bool run_speed(struct group *g, struct figures *all, struct err *e)
{
    g->cases = g->plan->quick ? quick_cases : speed_cases;
    g->n_cases = g->plan->quick ? sizeof quick_cases / sizeof *quick_cases
                                : sizeof speed_cases / sizeof *speed_cases;
    g->figures = &all->items[all->n];
    for (uint32_t i = 0; i < g->n_cases; i++) {
        struct figure *f = new_figure(all, g, g->cases[i].name, "tokens/s");
        figure_set_limit(f, &g->cases[i], all->limits);
    }
    if (!run_rounds(g, e))
        return false;
    for (uint32_t i = 0; i < g->n_cases; i++)
        figure_print(stdout, &g->figures[i]);
    return true;
}

struct mixed_answer {
    uint64_t p50, p99, longest, quiet, prefill;
    uint32_t n;
};

static bool ask_mixed(struct group *g, int side, struct mixed_answer *m, struct err *e)
{
    char command[128], answer[256];
    uint32_t chunk = side == OURS ? g->plan->chunk : ENGINE_ROWS_MAX - MIX_STREAMS;

    snprintf(command, sizeof command, "mixed %d %d %d %u", MIX_STREAMS, MIX_PROMPTS, PROMPT_TOKENS,
             chunk);
    if (!engine_process_ask(&g->sides[side], command, answer, sizeof answer, e))
        return false;
    if (sscanf(answer, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %u %" SCNu64 " %" SCNu64, &m->p50,
               &m->p99, &m->longest, &m->n, &m->quiet, &m->prefill) != 6)
        return err_set(e, ERR_PROTO, 0, "%s answers '%.100s'", classes[side]->name, answer);
    return true;
}

/* Inter-token time of running streams while prompts are read, and how fast those are read. */
static bool run_mixed(struct group *g, struct figures *all, struct err *e)
{
    struct figure *p99 = new_figure(all, g, "8 streams, p99 beside prompts", "ms");
    struct figure *p50 = new_figure(all, g, "8 streams, p50 beside prompts", "ms");
    struct figure *quiet = new_figure(all, g, "8 streams, p50 alone", "ms");
    struct figure *read = new_figure(all, g, "prompts beside 8 streams", "tokens/s");

    p99->smaller_is_better = p50->smaller_is_better = quiet->smaller_is_better = true;
    for (uint32_t r = 0; r < g->plan->rounds && (r == 0 || !is_late(g)); r++) {
        for (int k = 0; k < N_SIDES; k++) {
            int side = (int)(r % 2) ^ k;
            struct mixed_answer m;
            if (!open_side(g, side, e) || !ask_mixed(g, side, &m, e))
                return false;
            values(p99, side)[r] = (double)m.p99 * 1e-6;
            values(p50, side)[r] = (double)m.p50 * 1e-6;
            values(quiet, side)[r] = (double)m.quiet * 1e-6;
            values(read, side)[r] = MIX_PROMPTS * PROMPT_TOKENS / ((double)m.prefill * 1e-9);
            if (!g->together)
                close_side(g, side);
        }
        p99->n_rounds = p50->n_rounds = quiet->n_rounds = read->n_rounds = r + 1;
    }
    for (struct figure *f = p99; f <= read; f++)
        figure_print(stdout, f);
    return true;
}

/* ---- another process that wants every core ---- */

static uint32_t start_burners(pid_t *pids, uint32_t n)
{
    pid_t parent = getpid();
    uint32_t started = 0;

    fflush(NULL);
    for (; started < n && started < BURNERS_MAX; started++) {
        pids[started] = fork();
        if (pids[started] < 0)
            break;
        if (pids[started] == 0) {
            volatile uint64_t work = 0;
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            while (getppid() == parent)
                for (int i = 0; i < 1000000; i++)
                    work += (uint64_t)i;
            _exit(0);
        }
    }
    return started;
}

static void stop_burners(const pid_t *pids, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        kill(pids[i], SIGKILL);
    for (uint32_t i = 0; i < n; i++)
        waitpid(pids[i], NULL, 0);
}

/* A case alone and beside the burners, on one side: the rates, in this order. */
static bool measure_busy(struct group *g, int side, const struct bench_case *c, double rates[2],
                         struct err *e)
{
    pid_t burners[BURNERS_MAX];
    uint32_t n;
    bool ok;

    if (!open_side(g, side, e) || !ask_rate(g, side, c, &rates[0], e))
        return false;
    n = start_burners(burners, g->plan->n_threads);
    ok = ask_rate(g, side, c, &rates[1], e);
    stop_burners(burners, n);
    if (!g->together)
        close_side(g, side);
    return ok;
}

static bool run_busy_case(struct group *g, const struct bench_case *c, struct figures *all,
                          struct err *e)
{
    char work[64];
    struct figure *rate, *kept;

    snprintf(work, sizeof work, "%s, cores busy", c->name);
    rate = new_figure(all, g, work, "tokens/s");
    snprintf(work, sizeof work, "%s, rate kept", c->name);
    kept = new_figure(all, g, work, "%");
    for (uint32_t r = 0; r < g->plan->rounds && (r == 0 || !is_late(g)); r++) {
        for (int k = 0; k < N_SIDES; k++) {
            int side = (int)(r % 2) ^ k;
            double rates[2];
            if (!measure_busy(g, side, c, rates, e))
                return false;
            values(rate, side)[r] = rates[1];
            values(kept, side)[r] = 100 * rates[1] / rates[0];
        }
        rate->n_rounds = kept->n_rounds = r + 1;
    }
    figure_print(stdout, rate);
    figure_print(stdout, kept);
    return true;
}

static bool run_busy(struct group *g, struct figures *all, struct err *e)
{
    for (size_t i = 0; i < sizeof busy_cases / sizeof *busy_cases; i++)
        if (!run_busy_case(g, &busy_cases[i], all, e))
            return false;
    return true;
}

/* ---- all groups ---- */

static bool run_group(struct group *g, struct figures *all, struct err *e)
{
    static bool (*const scenarios[])(struct group *, struct figures *, struct err *) = {
        [SCENARIO_SPEED] = run_speed, [SCENARIO_MIXED] = run_mixed, [SCENARIO_BUSY] = run_busy
    };
    uint32_t n_before = all->n;
    bool ok;

    ok = find_model(g, e);
    fill_options(g);
    ok = ok && open_group(g, all, e) && scenarios[g->plan->scenario](g, all, e);
    for (int s = 0; s < N_SIDES; s++)
        close_side(g, s);
    if (!ok)
        all->n = n_before;
    return ok;
}

bool plan_run(const struct plan *p, const struct machine_limits *limits, struct figures *out)
{
    uint64_t begin = clock_mono_ns();
    uint32_t n_groups = p->n_shapes * p->n_types, done = 0;
    bool ok = true;

    *out = (struct figures){ .limits = limits };
    for (uint32_t s = 0; s < p->n_shapes; s++)
        for (uint32_t t = 0; t < p->n_types; t++) {
            struct group g = { .plan = p, .shape = p->shapes[s], .type = p->types[t] };
            struct err e;
            done++;
            if (p->budget_s)
                g.deadline_ns = begin + p->budget_s * NS_PER_S * done / n_groups;
            if (!run_group(&g, out, &e)) {
                fprintf(stderr, "%s %s: %s\n", g.shape->name, g.type->name, e.msg);
                ok = false;
            }
        }
    return ok;
}
