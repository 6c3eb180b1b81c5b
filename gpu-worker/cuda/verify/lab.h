/* lab.h - a whole llmd under load, to which something is done: what the items that kill, disturb and inject have in common.
 *
 * A round: N clients ask the same as in the undisturbed round, after a random part of whose time something happens.
 * Their answers are whole, and the same tokens where the mode promises that.  A client's pause is its longest wait from
 * one event to the next. */
#ifndef LLMD_CUDA_VERIFY_LAB_H
#define LLMD_CUDA_VERIFY_LAB_H

#include "gpu-worker/cuda/verify/client.h"
#include "gpu-worker/cuda/verify/items.h"
#include "gpu-worker/cuda/verify/service.h"

enum {
    LAB_STREAMS_MAX = 8,
    LAB_ROUND_S = 300, /* longest; then something has hung */
    LAB_READY_MS = 120000,
};

struct lab {
    const struct verify *v;
    struct service service;
    struct client_question question; /* its seed: of the first client */
    uint32_t n_streams;
    struct client expected[LAB_STREAMS_MAX], clients[LAB_STREAMS_MAX];
    double undisturbed_ms;
    uint64_t random;
};

/* What is in use, when those that have died have given back what was theirs. */
struct use {
    double gpu_mb; /* by everybody */
    int fds;       /* of llmd */
};

/* What many rounds came to. */
struct tally {
    double *pause_ms, *ready_ms; /* [n_max] */
    uint32_t n, n_max;
    uint32_t n_different, n_cut, n_unready;
    char why[160];            /* of the first answer that was cut */
    struct use before, after; /* before: the first rounds not counted */
};

/* The usual prompts and settings. */
struct client_question lab_question(const struct verify *v);
struct service_setup lab_setup(const struct verify *v);

/* A service of the model that is served, and its answers undisturbed.  NULL: told on r. */
struct lab *lab_open(const struct verify *v, const struct service_setup *how,
                     const struct client_question *q, struct item_report *r);
void lab_close(struct lab *l);

/* Any 64 bits, the same in every run. */
uint64_t lab_draw(struct lab *l);

/* Ask the question with every client; c: l->expected or l->clients.  lab_hang_up() is due. */
void lab_ask(struct lab *l, struct client *c);
void lab_hang_up(struct client *c);

/* SIGKILL to what has that name now; it may be on its way up. */
bool lab_kill(struct lab *l, const char *process);

/* Until all processes serve again, other ones than before; l->clients are read meanwhile, so that their times are right.
 * Milliseconds; negative: not within LAB_READY_MS. */
double lab_wait_back(struct lab *l, const struct service_state *before, uint64_t from_ns);

void tally_open(struct tally *t, uint32_t n_max);
void tally_close(struct tally *t);

/* What the answers of a round came to; its number is t->n, which is the caller's to count on. */
void lab_judge(struct lab *l, struct tally *t);

/* Kills; false: there was nothing to kill. */
typedef bool lab_kill_fn(struct lab *l);

/* Rounds until there are t->n_max, or CLOCK_MONOTONIC passes until_ns. */
void lab_run_rounds(struct lab *l, lab_kill_fn *kill_it, uint64_t until_ns, struct tally *t);

/* must_equal: answers with other tokens fail.  limits in ms; 0: none. */
void tally_report(const struct lab *l, struct tally *t, bool must_equal, double pause_limit_ms,
                  double ready_limit_ms, const char *which, struct item_report *r);
void tally_report_growth(const struct tally *t, const char *which, struct item_report *r);

/* Of n values, which it sorts. */
double lab_percentile(double *values, uint32_t n, uint32_t percent);

#endif
