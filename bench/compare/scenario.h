/* scenario.h - what is done with a group; each scenario adds its figures to *all and prints them. */
#ifndef LLMD_BENCH_COMPARE_SCENARIO_H
#define LLMD_BENCH_COMPARE_SCENARIO_H

#include "bench/compare/group.h"

typedef bool scenario_fn(struct group *g, struct figures *all, struct err *e);

scenario_fn scenario_speed;  /* prompts and streams, one kind at a time */
scenario_fn scenario_mixed;  /* streams run on while prompts are read */
scenario_fn scenario_busy;   /* every core is also wanted by another process */
scenario_fn scenario_logits; /* do both compute the same? */
scenario_fn scenario_server; /* server against server, over HTTP; opens no engine itself */

/* Rows of a prompt that a side puts into one step of the mixed scenario. */
uint32_t scenario_mixed_chunk(const struct plan *p, enum side side);
/* Tokens that a sequence of it may need. */
uint32_t scenario_mixed_tokens(const struct plan *p);
enum { MIXED_STREAMS = 8 };

#endif
