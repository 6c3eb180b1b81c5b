/* cpu_vs_llamacpp.c - bench-cpu-vs-llamacpp: our engine and llama.cpp's on the same weights, in turn.
 *
 * bench/cpu_vs_llamacpp is the script that gets llama.cpp's library and starts this; bench/README.md says
 * what the columns mean and how the other side is set up. */
#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "bench/compare/plan.h"
#include "common/host.h"

struct options {
    struct plan plan;
    const char *csv;
};

enum {
    OPT_LIBRARY = 256,
    OPT_MODELS,
    OPT_OURS,
    OPT_QUANTIZE,
    OPT_CPU_CLOCK,
    OPT_CHUNK,
    OPT_SHARED_KV,
    OPT_PINNED,
    OPT_CSV,
    OPT_BUDGET,
    OPT_RESUME,
    OPT_STREAMS,
    OPT_APART,
    OPT_OUR_SERVER,
    OPT_PEER_SERVER,
};

/* {words} are replaced: bench/compare/servers.h. */
#define OUR_SERVER                                                                                 \
    "exec {bin}/llmd --model {model} --host 127.0.0.1 --port {port} --threads "                    \
    "{threads} --max-num-seqs 32 --max-model-len 512 --log-level error --runtime-dir {dir}"
#define PEER_SERVER                                                                                \
    "exec ${LLAMA_SERVER:-llama-server} -m {model} --host 127.0.0.1 --port {port} -t {threads} "   \
    "-tb {threads} -np 32 -c 16384 -b 512 -ub 512 2>/dev/null"

static const struct argp_option argp_options[] = {
    { "library", OPT_LIBRARY, "DIR", 0, "folder of llama.cpp's shared objects", 0 },
    { "models", OPT_MODELS, "DIR", 0, "folder of the model files; missing ones are made", 0 },
    { "shapes", 's', "LIST", 0, "7b,1.1b,110m (default all three), also 7b-half, tiny", 0 },
    { "types", 't', "LIST", 0, "q4_0,q8_0,f16 (default), also bf16", 0 },
    { "scenario", 'c', "NAME", 0, "speed (default), mixed, busy, logits or server", 0 },
    { "rounds", 'r', "N", 0, "rounds, 1..99 (default 5)", 0 },
    { "threads", 'n', "N", 0, "threads of each engine (default: the cores of this process)", 0 },
    { "quick", 'q', 0, 0, "small shapes, fewer cases, done within a minute", 0 },
    { "budget", OPT_BUDGET, "S", 0, "no round begins after so many seconds", 0 },
    { "streams", OPT_STREAMS, "LIST", 0, "speed: only cases of so many streams (0: the prompt)",
      0 },
    { "resume", OPT_RESUME, "FILE", 0,
      "speed: add each round to FILE as it ends, and go on after those it has", 0 },
    { "cpu-clock", OPT_CPU_CLOCK, 0, 0,
      "tokens over CPU time instead of wall time: for one thread beside other work", 0 },
    { "apart", OPT_APART, 0, 0, "load a model for its turns only, even if both fit the memory", 0 },
    { "chunk", OPT_CHUNK, "N", 0, "mixed: rows of a prompt in one of our steps (default 64)", 0 },
    { "ours", OPT_OURS, "PATH", 0, "a model for our side in place of the file", 0 },
    { "quantize", OPT_QUANTIZE, "TYPE", 0, "our side: quantise at load", 0 },
    { "shared-kv", OPT_SHARED_KV, 0, 0, "llama.cpp: one KV buffer for all sequences", 0 },
    { "pinned", OPT_PINNED, 0, 0, "llama.cpp: threads pinned", 0 },
    { "our-server", OPT_OUR_SERVER, "COMMAND", 0,
      "server: starts ours; {model} {port} {threads} {bin} {dir} are replaced", 0 },
    { "peer-server", OPT_PEER_SERVER, "COMMAND", 0,
      "server: starts the other (default: $LLAMA_SERVER, else llama-server)", 0 },
    { "csv", OPT_CSV, "FILE", 0, "write the results", 0 },
    { 0 },
};

static void parse_shapes(struct plan *p, char *list, struct argp_state *state)
{
    p->n_shapes = 0;
    for (char *rest = list, *name; (name = strsep(&rest, ","));) {
        const struct shape *s = shape_find(name);
        if (!s || p->n_shapes == PLAN_SHAPES_MAX)
            argp_error(state, "shape '%s'", name);
        p->shapes[p->n_shapes++] = s;
    }
}

static void parse_types(struct plan *p, char *list, struct argp_state *state)
{
    p->n_types = 0;
    for (char *rest = list, *name; (name = strsep(&rest, ","));) {
        const struct weight_type *t = weight_type_find(name);
        if (!t || p->n_types == PLAN_TYPES_MAX)
            argp_error(state, "type '%s'", name);
        p->types[p->n_types++] = t;
    }
}

static enum scenario parse_scenario(const char *name, struct argp_state *state)
{
    static const char *const names[] = { "speed", "mixed", "busy", "logits", "server" };

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum scenario)i;
    argp_error(state, "scenario: speed, mixed, busy, logits or server");
    return SCENARIO_SPEED;
}

static uint32_t number(const char *arg, uint32_t low, uint32_t high, const char *what,
                       struct argp_state *state)
{
    char *end;
    unsigned long n = strtoul(arg, &end, 10);

    if (end == arg || *end || n < low || n > high)
        argp_error(state, "%s: %u..%u", what, low, high);
    return (uint32_t)n;
}

static void parse_streams(struct plan *p, char *list, struct argp_state *state)
{
    for (char *rest = list, *text; (text = strsep(&rest, ","));)
        p->streams |= UINT64_C(1) << number(text, 0, ENGINE_SEQS_MAX, "streams", state);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;
    struct plan *p = &o->plan;

    switch (key) {
    case OPT_LIBRARY:
        p->library = arg;
        return 0;
    case OPT_MODELS:
        p->models = arg;
        return 0;
    case 's':
        parse_shapes(p, arg, state);
        return 0;
    case 't':
        parse_types(p, arg, state);
        return 0;
    case 'c':
        p->scenario = parse_scenario(arg, state);
        return 0;
    case 'r':
        p->rounds = number(arg, 1, ROUNDS_MAX, "rounds", state);
        return 0;
    case 'n':
        p->n_threads = number(arg, 1, 512, "threads", state);
        return 0;
    case 'q':
        p->quick = true;
        return 0;
    case OPT_BUDGET:
        p->budget_s = number(arg, 1, 1000000, "budget", state);
        return 0;
    case OPT_CPU_CLOCK:
        p->cpu_clock = true;
        return 0;
    case OPT_STREAMS:
        parse_streams(p, arg, state);
        return 0;
    case OPT_RESUME:
        p->rounds_file = arg;
        return 0;
    case OPT_APART:
        p->apart = true;
        return 0;
    case OPT_CHUNK:
        p->chunk = number(arg, 1, 500, "chunk", state);
        return 0;
    case OPT_OURS:
        p->ours = arg;
        return 0;
    case OPT_QUANTIZE:
        p->quantize = arg;
        return 0;
    case OPT_SHARED_KV:
        p->shared_kv = true;
        return 0;
    case OPT_PINNED:
        p->pinned = true;
        return 0;
    case OPT_OUR_SERVER:
        p->our_server = arg;
        return 0;
    case OPT_PEER_SERVER:
        p->peer_server = arg;
        return 0;
    case OPT_CSV:
        o->csv = arg;
        return 0;
    case ARGP_KEY_END:
        if (!p->library || !p->models)
            argp_error(state, "--library and --models are needed");
        if (p->rounds_file[0] && p->scenario != SCENARIO_SPEED)
            argp_error(state, "resume: only the rounds of scenario speed are kept");
        if (p->streams && p->scenario != SCENARIO_SPEED)
            argp_error(state, "streams: only scenario speed has such cases");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* What was not asked for. */
static void fill_defaults(struct plan *p)
{
    static const char *const shapes[] = { "110m", "1.1b", "7b" };
    static const char *const types[] = { "q4_0", "q8_0", "f16" };

    if (p->n_shapes == 0)
        for (size_t i = 0; i < (p->quick ? 1 : 3); i++)
            p->shapes[p->n_shapes++] = shape_find(shapes[i]);
    if (p->n_types == 0)
        for (size_t i = 0; i < 3; i++)
            p->types[p->n_types++] = weight_type_find(types[i]);
    if (p->n_threads == 0)
        p->n_threads = host_cores("");
    if (p->quick && p->budget_s == 0)
        p->budget_s = 45; /* and the last round that began in time */
}

int main(int argc, char **argv)
{
    static const struct argp argp = { .options = argp_options,
                                      .parser = parse,
                                      .doc = "Our engine and llama.cpp's on the same weights." };
    static struct options o = { .plan = { .rounds = 5,
                                          .chunk = 64,
                                          .ours = "",
                                          .quantize = "",
                                          .rounds_file = "",
                                          .our_server = OUR_SERVER,
                                          .peer_server = PEER_SERVER } };
    static struct figures figures;
    struct limits_options how = { .passes = 10, .read_bytes = (size_t)1 << 30 };
    struct machine_limits limits;
    struct err e;
    bool ok;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    fill_defaults(&o.plan);
    how.n_threads = o.plan.n_threads;
    how.cpu_clock = o.plan.cpu_clock;
    if (o.plan.quick) {
        how.passes = 4;
        how.read_bytes = (size_t)256 << 20;
    }
    machine_limits_measure(&limits, &how);
    printf("limits of %u threads: memory %.1f GB/s, fp32 %.0f, bf16 %.0f, int4 %.0f, int8 %.0f "
           "Gop/s\n",
           limits.n_threads, limits.read_all * 1e-9, limits.ops[LIMIT_FP32] * 1e-9,
           limits.ops[LIMIT_BF16] * 1e-9, limits.ops[LIMIT_INT4] * 1e-9,
           limits.ops[LIMIT_INT8] * 1e-9);
    ok = plan_run(&o.plan, &limits, &figures);
    printf("ours:   %s\ntheirs: %s\n", figures.ours, figures.theirs);
    if (o.csv && !figures_write_csv(&figures, o.csv, &e)) {
        fprintf(stderr, "bench-cpu-vs-llamacpp: %s\n", e.msg);
        ok = false;
    }
    return !ok;
}
