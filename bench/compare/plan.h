/* plan.h - what a run of the comparison does, as asked for on the command line, and how it is carried out. */
#ifndef LLMD_BENCH_COMPARE_PLAN_H
#define LLMD_BENCH_COMPARE_PLAN_H

#include "bench/compare/engine.h"
#include "bench/compare/figures.h"

enum { PLAN_SHAPES_MAX = 8, PLAN_TYPES_MAX = 8 };

enum scenario {
    SCENARIO_SPEED, /* scenario.h says what each does */
    SCENARIO_MIXED,
    SCENARIO_BUSY,
    SCENARIO_LOGITS,
    SCENARIO_SERVER,
};

struct plan {
    const struct shape *shapes[PLAN_SHAPES_MAX];
    const struct weight_type *types[PLAN_TYPES_MAX];
    uint32_t n_shapes, n_types;
    enum scenario scenario;
    bool quick;     /* fewer cases, and no round begins after budget_s */
    bool apart;     /* never both models in memory */
    bool cpu_clock; /* tokens over CPU time of the process: for one thread on a busy machine */
    uint32_t rounds, n_threads;
    uint64_t streams;        /* speed: bit N = cases of N streams, 0 the prompt; 0 = all cases */
    uint32_t budget_s;       /* of all; 0 = none */
    uint32_t chunk;          /* mixed: rows of a prompt in one of our steps */
    const char *models;      /* folder of the files, made when they are missing */
    const char *rounds_file; /* speed: rounds_file.h; "" = none */
    const char *library;     /* of llama.cpp */
    const char *ours;        /* a model for our side instead of the file, "" = none */
    const char *quantize;    /* our side, as the server's setting */
    bool shared_kv, pinned;  /* of llama.cpp */
    const char *our_server, *peer_server; /* commands (servers.h) */
};

/* All groups of a plan, one after the other; figures are printed as they come, and collected.  A group that
 * cannot run (an engine refuses the model) is reported, and false comes back at the end. */
bool plan_run(const struct plan *p, const struct machine_limits *limits, struct figures *out);

#endif
