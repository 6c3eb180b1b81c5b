/* scenario_busy.c - what is left of an engine's rate when another process wants every core too.
 *
 * The other process is as many busy loops as the engine has threads, at the same priority: a fair share is a
 * half.  An engine whose threads spin for each other loses far more than that. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench/compare/scenario.h"

enum { BURNERS_MAX = 512 };

static const struct bench_case busy_cases[] = {
    { "prompt 512", 0, PROMPT_TOKENS, 0 },
    { "1 stream", 1, 32, 0 },
    { "8 streams", 8, 16, CONTEXT },
};

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

/* A case alone and beside the burners: the rates, in this order. */
static bool measure(struct group *g, enum side side, const struct bench_case *c, double rates[2],
                    struct err *e)
{
    pid_t burners[BURNERS_MAX];
    uint32_t n;
    bool ok = group_begin_turn(g, side, e) && group_ask_rate(g, side, c, &rates[0], e);

    if (ok) {
        n = start_burners(burners, g->plan->n_threads);
        ok = group_ask_rate(g, side, c, &rates[1], e);
        stop_burners(burners, n);
    }
    group_end_turn(g, side);
    return ok;
}

static bool run_case(struct group *g, const struct bench_case *c, struct figures *all,
                     struct err *e)
{
    char work[64];
    struct figure *rate, *kept;

    snprintf(work, sizeof work, "%s, cores busy", c->name);
    rate = figures_add(all, g->shape, g->type, work, "tokens/s");
    snprintf(work, sizeof work, "%s, rate kept", c->name);
    kept = figures_add(all, g->shape, g->type, work, "%");
    for (uint32_t r = 0; group_goes_on(g, r); r++) {
        for (uint32_t k = 0; k < N_SIDES; k++) {
            enum side side = group_side(r, k);
            double rates[2];
            if (!measure(g, side, c, rates, e))
                return false;
            figure_values(rate, side == OURS)[r] = rates[1];
            figure_values(kept, side == OURS)[r] = 100 * rates[1] / rates[0];
        }
        rate->n_rounds = kept->n_rounds = r + 1;
    }
    figure_print(stdout, rate);
    figure_print(stdout, kept);
    return true;
}

bool scenario_busy(struct group *g, struct figures *all, struct err *e)
{
    for (size_t i = 0; i < sizeof busy_cases / sizeof *busy_cases; i++)
        if (!run_case(g, &busy_cases[i], all, e))
            return false;
    return true;
}
