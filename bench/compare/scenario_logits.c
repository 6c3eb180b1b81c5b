/* scenario_logits.c - do both engines compute the same from one file?
 *
 * Each runs the same tokens, one position a step, and leaves its logits in a file.  Given are the share of
 * positions where the likeliest token is the same, and the mean Kullback-Leibler divergence of our
 * distribution from theirs, in nats.  It tells a wrong layout at once, and numbers apart by rounding. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/compare/scenario.h"
#include "common/mem.h"

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

static bool compare(FILE *files[N_SIDES], uint32_t n_vocab, struct agreement *a)
{
    float *rows[N_SIDES] = { mem_alloc(n_vocab * sizeof(float)),
                             mem_alloc(n_vocab * sizeof(float)) };

    while (fread(rows[OURS], sizeof(float), n_vocab, files[OURS]) == n_vocab &&
           fread(rows[THEIRS], sizeof(float), n_vocab, files[THEIRS]) == n_vocab)
        agreement_add(a, rows[OURS], rows[THEIRS], n_vocab);
    free(rows[OURS]);
    free(rows[THEIRS]);
    return a->n > 0;
}

/* Run one side; the file has no name any more when this returns. */
static FILE *run_side(struct group *g, enum side side, struct err *e)
{
    char path[64], command[128], answer[64];
    FILE *file = NULL;

    snprintf(path, sizeof path, "/tmp/llmd-logits-%d-%d", (int)getpid(), (int)side);
    snprintf(command, sizeof command, "logits %d %s", PROMPT_TOKENS / 2, path);
    if (group_begin_turn(g, side, e) &&
        engine_process_ask(&g->sides[side], command, answer, sizeof answer, e)) {
        file = fopen(path, "rb");
        if (!file)
            err_set(e, ERR_SYS, errno, "open '%s'", path);
    }
    unlink(path);
    group_end_turn(g, side);
    return file;
}

bool scenario_logits(struct group *g, struct figures *all, struct err *e)
{
    struct agreement a = { 0 };
    FILE *files[N_SIDES] = { NULL, NULL };
    bool ok = true;

    (void)all;
    for (int s = 0; s < N_SIDES && ok; s++)
        ok = (files[s] = run_side(g, (enum side)s, e)) != NULL;
    if (ok && !compare(files, g->shape->vocab_size, &a))
        ok = err_set(e, ERR_PROTO, 0, "logits: the files are empty");
    for (int s = 0; s < N_SIDES; s++)
        if (files[s])
            fclose(files[s]);
    if (ok)
        printf("%-5s %-5s logits of %u positions: same likeliest token %.1f %%, divergence %.2e "
               "nats\n",
               g->shape->name, g->type->name, a.n, 100.0 * a.same_best / a.n, a.divergence / a.n);
    return ok;
}
