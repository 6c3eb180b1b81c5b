/* bench_prompts.h - what the load generator asks: prompts of a file in turn, or words drawn by a seed. */
#ifndef LLMD_LLMCTL_BENCH_PROMPTS_H
#define LLMD_LLMCTL_BENCH_PROMPTS_H

#include <stddef.h>
#include <stdint.h>

#include "common/buf.h"
#include "common/err.h"

/* SplitMix64 (Steele, Lea & Flood 2014): small, and the same numbers everywhere. */
uint64_t bench_random(uint64_t *state);
/* In [0, 1). */
double bench_uniform(uint64_t *state);
/* Seconds to the next arrival of a Poisson process of `rate` a second. */
double bench_interval(uint64_t *state, double rate);

struct bench_prompts {
    char **texts; /* of a file; NULL: they are drawn */
    size_t n;
    uint64_t words; /* of a drawn one */
    uint64_t random;
};

/* Each line is a JSON object with "prompt", "inputs", "text" or "messages" (the last user's), or, when it is
 * none, the prompt itself.  Empty lines do not count.  ERR_SYS; ERR_INPUT names the line. */
bool bench_prompts_read(struct bench_prompts *p, const char *path, struct err *e);
void bench_prompts_fini(struct bench_prompts *p); /* zeroed is fine */

/* Append prompt i. */
void bench_prompts_put(struct bench_prompts *p, size_t i, struct buf *out);

#endif
