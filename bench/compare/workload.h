/* workload.h - what is measured: the same steps on either engine, timed where they run.
 *
 * A command is one line, the answer another, so that an engine can live in a process of its own
 * (engine_process.h) and be tried by hand:
 *
 *   prefill TOKENS                   read a prompt          -> ok NS TOKENS
 *   decode STREAMS TOKENS CONTEXT    so many tokens of each -> ok NS TOKENS
 *   mixed STREAMS PROMPTS TOKENS CHUNK
 *                                    streams run on while prompts are read, CHUNK rows of them a step
 *                                                           -> ok P50_NS P99_NS MAX_NS SAMPLES QUIET_P50_NS PREFILL_NS
 *   logits TOKENS FILE               of every position of sequences of 250: floats [TOKENS, vocab]
 *                                                           -> ok
 *   quit                                                    -> (end of file)
 *
 * A command that fails answers "error ...". */
#ifndef LLMD_BENCH_COMPARE_WORKLOAD_H
#define LLMD_BENCH_COMPARE_WORKLOAD_H

#include <stddef.h>

#include "bench/compare/engine.h"

struct workload {
    const struct engine_class *class;
    struct engine *engine;
    struct engine_info info;
    uint32_t seqs_max, tokens_alone, tokens_a_seq; /* as in engine_options */
    bool cpu_clock;                                /* times are CPU time of the process */
    uint32_t context[ENGINE_SEQS_MAX]; /* tokens of each sequence that have run and are kept */
};

/* Run one command line; the answer without a newline.  False for "quit". */
bool workload_run(struct workload *w, const char *command, char *answer, size_t n);

#endif
