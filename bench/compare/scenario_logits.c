/* scenario_logits.c - do both engines compute the same from one file, and how exactly?
 *
 * Each runs the same tokens, one position a step, and leaves its logits in a file.  A third run makes the
 * measure: llama.cpp on the very weights of the file, decoded to F32, where it multiplies floats.  Given are
 * the share of positions where the likeliest token is the same as there, and the mean Kullback-Leibler
 * divergence from there, in millionths of a nat; and of the two engines from each other.  It tells a wrong
 * layout at once, and shows what products of integers cost. */
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

static void report(struct group *g, struct figures *all, const struct agreement a[N_SIDES],
                   const struct agreement *mutual)
{
    struct figure *best = figures_add(all, g->shape, g->type, "same likeliest token", "%");
    struct figure *off = figures_add(all, g->shape, g->type, "divergence", "1e-6 nats");

    off->smaller_is_better = true;
    for (int s = 0; s < N_SIDES; s++) {
        figure_values(best, s == OURS)[0] = 100.0 * a[s].same_best / a[s].n;
        figure_values(off, s == OURS)[0] = 1e6 * a[s].divergence / a[s].n;
    }
    best->n_rounds = off->n_rounds = 1;
    printf("%-5s %-5s %u positions; from each other: same likeliest token %.1f %%, divergence %.2f "
           "1e-6 nats\n",
           g->shape->name, g->type->name, mutual->n, 100.0 * mutual->same_best / mutual->n,
           1e6 * mutual->divergence / mutual->n);
    figure_print(stdout, best);
    figure_print(stdout, off);
}

bool scenario_logits(struct group *g, struct figures *all, struct err *e)
{
    struct agreement a[N_SIDES] = { { 0 }, { 0 } }, mutual = { 0 };
    FILE *files[N_SIDES] = { NULL, NULL }, *exact = NULL;
    uint32_t n = g->shape->vocab_size;
    bool ok = (files[OURS] = run_side(g, OURS, e)) && (files[THEIRS] = run_side(g, THEIRS, e)) &&
              (exact = run_exact(g, e)) && compare(exact, files[OURS], n, &a[OURS], e) &&
              compare(exact, files[THEIRS], n, &a[THEIRS], e) &&
              compare(files[THEIRS], files[OURS], n, &mutual, e);

    if (ok)
        report(g, all, a, &mutual);
    for (int s = 0; s < N_SIDES; s++)
        if (files[s])
            fclose(files[s]);
    if (exact)
        fclose(exact);
    return ok;
}
