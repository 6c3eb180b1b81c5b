/* scenario_speed.c - tokens a second of prompts and of 1 to 32 streams, with the share of the machine's limit.
 *
 * Rounds go through all cases in turn, and each case is run by both engines one after the other, so that a
 * neighbour's noise meets all alike.  The limit is taken again beside each case of each round.  With a file of
 * rounds (rounds_file.h) those that it has count, and the run goes on after them. */
#include "bench/compare/rounds_file.h"
#include "bench/compare/scenario.h"

enum { QUICK_CONTEXT = 16 };

static const struct bench_case speed_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 }, { "1 stream, 128 tokens", 1, 128, 0 },
    { "2 streams", 2, 32, CONTEXT },       { "4 streams", 4, 32, CONTEXT },
    { "8 streams", 8, 32, CONTEXT },       { "16 streams", 16, 16, CONTEXT },
    { "32 streams", 32, 16, CONTEXT },
};

static const struct bench_case quick_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 },
    { "1 stream", 1, 32, 0 },
    { "8 streams", 8, 8, QUICK_CONTEXT },
    { "32 streams", 32, 4, QUICK_CONTEXT },
};

enum { CASES_MAX = sizeof speed_cases / sizeof *speed_cases };

struct speed {
    struct group *group;
    const struct machine_limits *known; /* of the whole run */
    struct machine_limits limits;       /* of the case and round that is being measured */
    struct bench_case cases[CASES_MAX];
    struct figure *figures; /* [n] */
    uint32_t n;
};

static void glance(struct speed *s)
{
    group_settle();
    machine_limits_glance(&s->limits, s->known, s->group->plan->cpu_clock);
}

static void note_limit(struct speed *s, uint32_t i, uint32_t round)
{
    figure_set_limit(&s->figures[i], round, &s->cases[i], &s->limits);
    s->limits = (struct machine_limits){ 0 };
}

static bool measure(struct speed *s, enum side side, uint32_t i, uint32_t round, struct err *e)
{
    return group_ask_rate(s->group, side, &s->cases[i],
                          &figure_values(&s->figures[i], side == OURS)[round], e);
}

static bool round_together(struct speed *s, uint32_t round, struct err *e)
{
    for (uint32_t i = 0; i < s->n; i++) {
        glance(s);
        for (uint32_t k = 0; k < N_SIDES; k++)
            if (!measure(s, group_side(round, k), i, round, e))
                return false;
        glance(s);
        note_limit(s, i, round);
    }
    return true;
}

static bool round_apart(struct speed *s, uint32_t round, struct err *e)
{
    for (uint32_t k = 0; k < N_SIDES; k++) {
        enum side side = group_side(round, k);
        bool ok = group_begin_turn(s->group, side, e);
        for (uint32_t i = 0; ok && i < s->n; i++) {
            ok = measure(s, side, i, round, e);
            if (side == OURS) {
                glance(s);
                note_limit(s, i, round);
            }
        }
        group_end_turn(s->group, side);
        if (!ok)
            return false;
    }
    return true;
}

static bool keep(const struct speed *s, uint32_t round, struct err *e)
{
    const char *path = s->group->plan->rounds_file;

    return !path[0] || rounds_file_append(path, s->figures, s->n, round, e);
}

static bool run_rounds(struct speed *s, struct err *e)
{
    for (uint32_t r = s->figures->n_rounds; group_goes_on(s->group, r); r++) {
        if (!(s->group->together ? round_together(s, r, e) : round_apart(s, r, e)) ||
            !keep(s, r, e))
            return false;
        for (uint32_t i = 0; i < s->n; i++)
            s->figures[i].n_rounds = r + 1;
    }
    return true;
}

/* Those of the plan. */
static void choose_cases(struct speed *s, const struct plan *p)
{
    const struct bench_case *from = p->quick ? quick_cases : speed_cases;
    uint32_t n = p->quick ? sizeof quick_cases / sizeof *quick_cases : CASES_MAX;

    for (uint32_t i = 0; i < n; i++)
        if (!p->streams || p->streams >> from[i].n_streams & 1)
            s->cases[s->n++] = from[i];
}

bool scenario_speed(struct group *g, struct figures *all, struct err *e)
{
    struct speed s = { .group = g, .known = all->limits, .figures = &all->items[all->n] };

    choose_cases(&s, g->plan);
    if (s.n == 0)
        return err_set(e, ERR_CONFIG, 0, "streams: there is no case of so many");
    for (uint32_t i = 0; i < s.n; i++)
        figures_add(all, g->shape, g->type, s.cases[i].name, "tokens/s");
    if (!rounds_file_read(g->plan->rounds_file, s.figures, s.n, e) || !run_rounds(&s, e))
        return false;
    for (uint32_t i = 0; i < s.n; i++)
        figure_print(stdout, &s.figures[i]);
    return true;
}
