/* group.h - one model, and both engines with it loaded.
 *
 * Both are loaded at once when the machine has the memory, so that a round takes no longer than its steps;
 * else each is loaded anew for each of its turns.  A scenario opens a side before each turn and closes it
 * after, which does nothing in the first case. */
#ifndef LLMD_BENCH_COMPARE_GROUP_H
#define LLMD_BENCH_COMPARE_GROUP_H

#include "bench/compare/engine_process.h"
#include "bench/compare/plan.h"

enum side { OURS, THEIRS, N_SIDES };

enum { PROMPT_TOKENS = 512, CONTEXT = 64 };

struct group {
    const struct plan *plan;
    const struct shape *shape;
    const struct weight_type *type;
    uint64_t seed;   /* of its random weights */
    char path[4096]; /* the model's file */
    struct engine_options options[N_SIDES];
    struct engine_process sides[N_SIDES];
    bool together;
    bool has_run;
    enum side last;       /* that ran a case */
    uint64_t deadline_ns; /* no round begins later; 0 = none */
};

/* Where the model's file lies.  decoded: the same weights in F32. */
void group_model_path(const struct group *g, bool decoded, char *path, size_t n);

/* The same; it is made when there is none. */
bool group_find_model(const struct group *g, bool decoded, char *path, size_t n, struct err *e);

/* Fill the options of both engines for the plan's scenario. */
void group_configure(struct group *g);

/* Load both sides, or see that both can be; *all notes their versions. */
bool group_open(struct group *g, struct figures *all, struct err *e);
void group_close(struct group *g);

bool group_begin_turn(struct group *g, enum side side, struct err *e);
void group_end_turn(struct group *g, enum side side);

/* Is there another round?  The first always is. */
bool group_goes_on(const struct group *g, uint32_t round);

/* The side that has the k-th turn of a round: they swap each round. */
enum side group_side(uint32_t round, uint32_t k);

/* Threads that have done their step look for the next one before they sleep: llama.cpp's for 130 ms with its
 * default of poll = 50, ours for microseconds.  Who is measured next must not pay for that. */
void group_settle(void);

/* Run a case; *rate: tokens a second. */
bool group_ask_rate(struct group *g, enum side side, const struct bench_case *c, double *rate,
                    struct err *e);

#endif
