#include "bench/compare/group.h"

#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>

#include "bench/compare/scenario.h"
#include "bench/random_gguf.h"
#include "common/clock.h"
#include "common/host.h"

enum { SETTLE_MS = 300 };

static const struct engine_class *const classes[N_SIDES] = { &engine_llmd, &engine_llamacpp };

void group_model_path(const struct group *g, bool decoded, char *path, size_t n)
{
    char seed[32] = "";

    if (g->seed != 1)
        snprintf(seed, sizeof seed, "-seed%" PRIu64, g->seed);
    snprintf(path, n, "%s/%s-%s%s%s.gguf", g->plan->models, g->shape->name, g->type->name, seed,
             decoded ? "-decoded" : "");
}

bool group_find_model(const struct group *g, bool decoded, char *path, size_t n, struct err *e)
{
    const struct random_model m = { g->shape, g->type, g->seed, decoded };
    struct stat st;

    group_model_path(g, decoded, path, n);
    if (stat(path, &st) == 0)
        return true;
    fprintf(stderr, "making %s\n", path);
    return random_gguf_write(&m, path, e);
}

void group_configure(struct group *g)
{
    const struct plan *p = g->plan;
    bool mixed = p->scenario == SCENARIO_MIXED;
    struct engine_options o = {
        .model = g->path,
        .library = p->library,
        .quantize = p->quantize,
        .n_threads = p->n_threads,
        .seqs_max = mixed ? MIXED_STREAMS + 1 : ENGINE_SEQS_MAX,
        .tokens_alone = PROMPT_TOKENS,
        .tokens_a_seq = mixed ? scenario_mixed_tokens(p) : 2 * CONTEXT,
        .cpu_clock = p->cpu_clock,
        .shared_kv = p->shared_kv,
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

bool group_begin_turn(struct group *g, enum side side, struct err *e)
{
    return g->sides[side].pid ||
           engine_process_open(&g->sides[side], classes[side], &g->options[side], e);
}

void group_end_turn(struct group *g, enum side side)
{
    if (!g->together)
        engine_process_close(&g->sides[side]);
}

void group_close(struct group *g)
{
    for (int s = 0; s < N_SIDES; s++)
        engine_process_close(&g->sides[s]);
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

bool group_open(struct group *g, struct figures *all, struct err *e)
{
    g->together = !g->plan->apart && both_fit(g);
    for (int s = 0; s < N_SIDES; s++) {
        if (!group_begin_turn(g, (enum side)s, e))
            return false;
        note_sides(g, all);
        group_end_turn(g, (enum side)s);
    }
    return true;
}

bool group_goes_on(const struct group *g, uint32_t round)
{
    if (round == 0)
        return true;
    return round < g->plan->rounds && (!g->deadline_ns || clock_mono_ns() < g->deadline_ns);
}

enum side group_side(uint32_t round, uint32_t k)
{
    return (round + k) % 2 ? THEIRS : OURS;
}

void group_settle(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = SETTLE_MS * NS_PER_MS }, NULL);
}

static void let_settle(struct group *g, enum side side)
{
    if (g->has_run && g->last != side)
        group_settle();
    g->has_run = true;
    g->last = side;
}

bool group_ask_rate(struct group *g, enum side side, const struct bench_case *c, double *rate,
                    struct err *e)
{
    char command[128], answer[256];
    uint64_t ns, tokens;

    let_settle(g, side);
    if (c->n_streams == 0)
        snprintf(command, sizeof command, "prefill %u", c->n_tokens);
    else
        snprintf(command, sizeof command, "decode %u %u %u", c->n_streams, c->n_tokens, c->context);
    if (!engine_process_ask(&g->sides[side], command, answer, sizeof answer, e))
        return false;
    if (sscanf(answer, "%" SCNu64 " %" SCNu64, &ns, &tokens) != 2)
        return err_set(e, ERR_PROTO, 0, "%s answers '%.100s'", classes[side]->name, answer);
    *rate = (double)tokens / ((double)ns * 1e-9);
    return true;
}
