/* scenario_mixed.c - how long running streams wait for their next token while prompts are read beside them.
 *
 * Eight streams run; four prompts of 512 tokens are read one after the other.  llama.cpp does what its server
 * does: a step holds one row of each stream and then as much of the prompt as n_batch (512) has room for.
 * Ours has --chunk rows of the prompt in a step, as our scheduler plans them.  Small chunks keep the streams
 * fluent and cost speed of reading, so that is given too. */
#include <inttypes.h>
#include <stdio.h>

#include "bench/compare/scenario.h"

enum { MIXED_PROMPTS = 4, MIXED_MARGIN = 2 * CONTEXT };

struct mixed_answer {
    uint64_t p50, p99, longest, quiet, reading; /* ns */
    uint32_t n;
};

/* The figures of this scenario, side by side. */
struct mixed_figures {
    struct figure *p99, *p50, *quiet, *reading;
};

uint32_t scenario_mixed_chunk(const struct plan *p, enum side side)
{
    return side == OURS ? p->chunk : ENGINE_ROWS_MAX - MIXED_STREAMS;
}

uint32_t scenario_mixed_tokens(const struct plan *p)
{
    uint32_t steps = MIXED_PROMPTS * (PROMPT_TOKENS / p->chunk + 1) + MIXED_MARGIN;

    return steps > PROMPT_TOKENS ? steps : PROMPT_TOKENS;
}

static bool ask(struct group *g, enum side side, struct mixed_answer *m, struct err *e)
{
    char command[128], answer[256];

    snprintf(command, sizeof command, "mixed %d %d %d %u", MIXED_STREAMS, MIXED_PROMPTS,
             PROMPT_TOKENS, scenario_mixed_chunk(g->plan, side));
    if (!engine_process_ask(&g->sides[side], command, answer, sizeof answer, e))
        return false;
    if (sscanf(answer, "%" SCNu64 " %" SCNu64 " %" SCNu64 " %u %" SCNu64 " %" SCNu64, &m->p50,
               &m->p99, &m->longest, &m->n, &m->quiet, &m->reading) != 6)
        return err_set(e, ERR_PROTO, 0, "mixed: '%.100s'", answer);
    return true;
}

static bool turn(struct group *g, enum side side, uint32_t round, struct mixed_figures *f,
                 struct err *e)
{
    struct mixed_answer m = { 0 };
    bool ok = group_begin_turn(g, side, e) && ask(g, side, &m, e), ours = side == OURS;

    group_end_turn(g, side);
    if (!ok)
        return false;
    figure_values(f->p99, ours)[round] = (double)m.p99 * 1e-6;
    figure_values(f->p50, ours)[round] = (double)m.p50 * 1e-6;
    figure_values(f->quiet, ours)[round] = (double)m.quiet * 1e-6;
    figure_values(f->reading, ours)[round] =
        MIXED_PROMPTS * PROMPT_TOKENS / ((double)m.reading * 1e-9);
    return true;
}

static struct figure *add_ms(struct group *g, struct figures *all, const char *work)
{
    struct figure *f = figures_add(all, g->shape, g->type, work, "ms");

    f->smaller_is_better = true;
    return f;
}

bool scenario_mixed(struct group *g, struct figures *all, struct err *e)
{
    struct mixed_figures f = {
        add_ms(g, all, "8 streams, p99 beside prompts"),
        add_ms(g, all, "8 streams, p50 beside prompts"),
        add_ms(g, all, "8 streams, p50 alone"),
        figures_add(all, g->shape, g->type, "prompts beside 8 streams", "tokens/s"),
    };

    for (uint32_t r = 0; group_goes_on(g, r); r++) {
        for (uint32_t k = 0; k < N_SIDES; k++)
            if (!turn(g, group_side(r, k), r, &f, e))
                return false;
        f.p99->n_rounds = f.p50->n_rounds = f.quiet->n_rounds = f.reading->n_rounds = r + 1;
    }
    figure_print(stdout, f.p99);
    figure_print(stdout, f.p50);
    figure_print(stdout, f.quiet);
    figure_print(stdout, f.reading);
    return true;
}
