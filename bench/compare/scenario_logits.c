/* scenario_logits.c - do both engines compute the same from one file, and how exactly?
 *
 * Each runs the same tokens, one position a step, and leaves its logits in a file.  A third run makes the
 * measure: llama.cpp on the very weights of the file, decoded to F32, where it multiplies floats.  Given are
 * the share of positions where the likeliest token is the same as there, and the mean Kullback-Leibler
 * divergence from there, in millionths of a nat; and of the two engines from each other.  It tells a wrong
 * layout at once, and shows what products of integers cost.
 *
 * Each round is another file of random weights: one alone may favour either side by some per cent. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/compare/scenario.h"
#include "common/mem.h"

enum { POSITIONS = 2000, QUICK_POSITIONS = 256 };

struct agreement {
    uint32_t n, same_best;
    double divergence; /* sum */
};

static uint32_t best_of(const float *x, uint32_t n)
{
    uint32_t best = 0;

    for (uint32_t i = 1; i < n; i++)
        best = x[i] > x[best] ? i : best;
    return best;
}

/* log of the sum of exponentials. */
static double log_sum(const float *x, uint32_t n)
{
    double highest = x[best_of(x, n)], sum = 0;

    for (uint32_t i = 0; i < n; i++)
        sum += exp(x[i] - highest);
    return highest + log(sum);
}

static void agreement_add(struct agreement *a, const float *ours, const float *theirs, uint32_t n)
{
    double ours_log_sum = log_sum(ours, n), theirs_log_sum = log_sum(theirs, n), sum = 0;

    for (uint32_t i = 0; i < n; i++) {
        double p = theirs[i] - theirs_log_sum;
        sum += exp(p) * (p - (ours[i] - ours_log_sum));
    }
    a->n++;
    a->same_best += best_of(ours, n) == best_of(theirs, n);
    a->divergence += sum;
}

/* Of the logits in one file from those in another. */
static bool compare(FILE *from, FILE *of, uint32_t n_vocab, struct agreement *a, struct err *e)
{
    float *truth = mem_alloc(n_vocab * sizeof(float)), *x = mem_alloc(n_vocab * sizeof(float));

    rewind(from);
    rewind(of);
    while (fread(truth, sizeof(float), n_vocab, from) == n_vocab &&
           fread(x, sizeof(float), n_vocab, of) == n_vocab)
        agreement_add(a, x, truth, n_vocab);
    free(truth);
    free(x);
    return a->n > 0 || err_set(e, ERR_PROTO, 0, "logits: a file is empty");
}

/* Run one side; the file has no name any more when this returns. */
static FILE *run_side(struct group *g, enum side side, struct err *e)
{
    char path[64], command[128], answer[64];
    FILE *file = NULL;

    snprintf(path, sizeof path, "/tmp/llmd-logits-%d-%d", (int)getpid(), (int)side);
    snprintf(command, sizeof command, "logits %d %s", g->plan->quick ? QUICK_POSITIONS : POSITIONS,
             path);
    if (group_begin_turn(g, side, e) &&
        engine_process_ask(&g->sides[side], command, answer, sizeof answer, e)) {
        file = fopen(path, "rb");
        if (!file)
            err_set(e, ERR_SYS, errno, "open '%s'", path);
    }
    unlink(path);
    engine_process_close(&g->sides[side]);
    return file;
}

/* llama.cpp on the decoded weights. */
static FILE *run_exact(struct group *g, struct err *e)
{
    const char *model = g->options[THEIRS].model;
    char path[4096];
    FILE *file;

    if (!group_find_model(g, true, path, sizeof path, e))
        return NULL;
    g->options[THEIRS].model = path;
    file = run_side(g, THEIRS, e);
    g->options[THEIRS].model = model;
    return file;
}

/* What the rounds have shown, and their sums. */
struct logits_figures {
    struct figure *best, *off;
    struct agreement all[N_SIDES];
};

static void add_round(struct group *g, struct logits_figures *f, uint32_t round,
                      const struct agreement a[N_SIDES], const struct agreement *mutual)
{
    for (int s = 0; s < N_SIDES; s++) {
        figure_values(f->best, s == OURS)[round] = 100.0 * a[s].same_best / a[s].n;
        figure_values(f->off, s == OURS)[round] = 1e6 * a[s].divergence / a[s].n;
        f->all[s].n += a[s].n;
        f->all[s].same_best += a[s].same_best;
        f->all[s].divergence += a[s].divergence;
    }
    f->best->n_rounds = f->off->n_rounds = round + 1;
    printf("%-5s %-5s %u positions; from each other: same likeliest token %.1f %%, divergence %.2f "
           "1e-6 nats\n",
           g->shape->name, g->type->name, mutual->n, 100.0 * mutual->same_best / mutual->n,
           1e6 * mutual->divergence / mutual->n);
    fflush(stdout);
}

/* The files of all rounds but the first are not kept. */
static void drop_files(const struct group *g)
{
    char path[4096];

    for (int decoded = 0; decoded < 2 && g->seed != 1; decoded++) {
        group_model_path(g, decoded, path, sizeof path);
        unlink(path);
    }
}

/* The three runs on the file of a round. */
static bool run_round(struct group *g, struct logits_figures *f, uint32_t round, struct err *e)
{
    struct agreement a[N_SIDES] = { { 0 }, { 0 } }, mutual = { 0 };
    FILE *files[N_SIDES] = { NULL, NULL }, *exact = NULL;
    uint32_t n = g->shape->vocab_size;
    bool ok;

    g->seed = round + 1;
    ok = group_find_model(g, false, g->path, sizeof g->path, e) &&
         (files[OURS] = run_side(g, OURS, e)) && (files[THEIRS] = run_side(g, THEIRS, e)) &&
         (exact = run_exact(g, e)) && compare(exact, files[OURS], n, &a[OURS], e) &&
         compare(exact, files[THEIRS], n, &a[THEIRS], e) &&
         compare(files[THEIRS], files[OURS], n, &mutual, e);
    if (ok)
        add_round(g, f, round, a, &mutual);
    for (int s = 0; s < N_SIDES; s++)
        if (files[s])
            fclose(files[s]);
    if (exact)
        fclose(exact);
    drop_files(g);
    return ok;
}

static void report(const struct group *g, const struct logits_figures *f)
{
    const struct agreement *ours = &f->all[OURS], *theirs = &f->all[THEIRS];

    figure_print(stdout, f->best);
    figure_print(stdout, f->off);
    printf("%-5s %-5s %u positions of %u files: same likeliest token %.2f and %.2f %%, mean "
           "divergence %.1f and %.1f 1e-6 nats\n",
           g->shape->name, g->type->name, ours->n, f->best->n_rounds,
           100.0 * ours->same_best / ours->n, 100.0 * theirs->same_best / theirs->n,
           1e6 * ours->divergence / ours->n, 1e6 * theirs->divergence / theirs->n);
    fflush(stdout);
}

/* A model that was named for our side is one file, whatever the round. */
static bool goes_on(const struct group *g, uint32_t round)
{
    return round == 0 || (!g->plan->ours[0] && group_goes_on(g, round));
}

bool scenario_logits(struct group *g, struct figures *all, struct err *e)
{
    struct logits_figures f = {
        .best = figures_add(all, g->shape, g->type, "same likeliest token", "%"),
        .off = figures_add(all, g->shape, g->type, "divergence", "1e-6 nats"),
    };

    f.off->smaller_is_better = true;
    for (uint32_t round = 0; goes_on(g, round); round++)
        if (!run_round(g, &f, round, e))
            return false;
    report(g, &f);
    return true;
}
