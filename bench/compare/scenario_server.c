/* scenario_server.c - server against server, over HTTP, with 1, 8 and 32 clients.
 *
 * Both servers run at once, idle between their turns, and answer the same requests: prompts of 64 made-up
 * words and 64 tokens each, greedy.  The other side is any server with OpenAI's streaming completions and
 * /health: llama-server, or another one of ours to see what the measurement itself is worth. */
#include <stdio.h>

#include "bench/compare/http_load.h"
#include "bench/compare/scenario.h"
#include "bench/compare/servers.h"

enum { PROMPT_WORDS = 64, MAX_TOKENS = 64, START_S = 300, RUN_S = 3600, N_SIZES = 3 };

static const uint32_t client_counts[N_SIZES] = { 1, 8, 32 };

struct server_figures {
    struct figure *rate, *first, *gap_p50, *gap_p99;
};

static struct figure *add(struct group *g, struct figures *all, uint32_t n_clients,
                          const char *what, const char *unit)
{
    char work[64];
    struct figure *f;

    snprintf(work, sizeof work, "http %u client%s %s", n_clients, n_clients == 1 ? "" : "s", what);
    f = figures_add(all, g->shape, g->type, work, unit);
    f->smaller_is_better = unit[0] == 'm';
    return f;
}

static void add_figures(struct group *g, struct figures *all, uint32_t n_clients,
                        struct server_figures *f)
{
    f->rate = add(g, all, n_clients, "speed", "tokens/s");
    f->first = add(g, all, n_clients, "first token p50", "ms");
    f->gap_p50 = add(g, all, n_clients, "gap p50", "ms");
    f->gap_p99 = add(g, all, n_clients, "gap p99", "ms");
}

static bool turn(const struct server *s, uint32_t n_clients, bool ours, uint32_t round,
                 struct server_figures *f, struct err *e)
{
    struct http_load l = { .port = s->port,
                           .n_clients = n_clients,
                           .n_requests = n_clients == 1 ? 2 : n_clients,
                           .prompt_words = PROMPT_WORDS,
                           .max_tokens = MAX_TOKENS,
                           .seed = round * 64 + n_clients,
                           .timeout_s = RUN_S };
    struct http_load_result r;

    if (!http_load_run(&l, &r, e))
        return err_wrap(e, "%s server, %u clients", ours ? "our" : "the other", n_clients);
    figure_values(f->rate, ours)[round] = r.tokens_per_s;
    figure_values(f->first, ours)[round] = r.first_p50_ms;
    figure_values(f->gap_p50, ours)[round] = r.gap_p50_ms;
    figure_values(f->gap_p99, ours)[round] = r.gap_p99_ms;
    return true;
}

static bool run_rounds(struct group *g, const struct server servers[N_SIDES],
                       struct server_figures *f, struct err *e)
{
    for (uint32_t r = 0; group_goes_on(g, r); r++)
        for (uint32_t i = 0; i < N_SIZES; i++) {
            for (uint32_t k = 0; k < N_SIDES; k++) {
                enum side side = group_side(r, k);
                if (!turn(&servers[side], client_counts[i], side == OURS, r, &f[i], e))
                    return false;
            }
            f[i].rate->n_rounds = f[i].first->n_rounds = r + 1;
            f[i].gap_p50->n_rounds = f[i].gap_p99->n_rounds = r + 1;
        }
    return true;
}

bool scenario_server(struct group *g, struct figures *all, struct err *e)
{
    const struct plan *p = g->plan;
    struct server servers[N_SIDES] = { { 0 }, { 0 } };
    struct server_figures f[N_SIZES];
    const char *ours = p->ours[0] ? p->ours : g->path;
    struct figure *first = &all->items[all->n];
    bool ok;

    snprintf(all->ours, sizeof all->ours, "%.250s", p->our_server);
    snprintf(all->theirs, sizeof all->theirs, "%.250s", p->peer_server);
    for (uint32_t i = 0; i < N_SIZES; i++)
        add_figures(g, all, client_counts[i], &f[i]);
    ok = server_start(&servers[OURS], p->our_server, ours, p->n_threads, START_S, e) &&
         server_start(&servers[THEIRS], p->peer_server, g->path, p->n_threads, START_S, e) &&
         run_rounds(g, servers, f, e);
    for (int s = 0; s < N_SIDES; s++)
        server_stop(&servers[s]);
    for (; ok && first < &all->items[all->n]; first++)
        figure_print(stdout, first);
    return ok;
}
