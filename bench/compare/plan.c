#include "bench/compare/plan.h"

#include <stdio.h>

#include "bench/compare/scenario.h"
#include "common/clock.h"

static bool run_group(struct group *g, struct figures *all, struct err *e)
{
    static scenario_fn *const scenarios[] = {
        [SCENARIO_SPEED] = scenario_speed,   [SCENARIO_MIXED] = scenario_mixed,
        [SCENARIO_BUSY] = scenario_busy,     [SCENARIO_LOGITS] = scenario_logits,
        [SCENARIO_SERVER] = scenario_server,
    };
    bool has_engines = g->plan->scenario != SCENARIO_SERVER, ok;
    uint32_t n_before = all->n;

    group_configure(g);
    ok = group_find_model(g, false, g->path, sizeof g->path, e) &&
         (!has_engines || group_open(g, all, e)) && scenarios[g->plan->scenario](g, all, e);
    group_close(g);
    if (!ok)
        all->n = n_before;
    return ok;
}

bool plan_run(const struct plan *p, const struct machine_limits *limits, struct figures *out)
{
    uint64_t begin = clock_mono_ns();
    uint32_t n_groups = p->n_shapes * p->n_types, done = 0;
    bool ok = true;

    *out = (struct figures){ .limits = limits, .clock = p->cpu_clock ? "cpu" : "wall" };
    for (uint32_t s = 0; s < p->n_shapes; s++)
        for (uint32_t t = 0; t < p->n_types; t++) {
            struct group g = { .plan = p, .shape = p->shapes[s], .type = p->types[t], .seed = 1 };
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
