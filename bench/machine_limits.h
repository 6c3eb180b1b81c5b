/* machine_limits.h - what this machine can read and compute at most, measured.
 *
 * Threads are pinned, one a CPU of the scheduling mask.  A limit is the best of some passes: other work on
 * the machine only ever takes away.  Arithmetic is counted over the CPU time of the threads, so a busy
 * neighbour does not lower it; bandwidth is over the clock, unless asked otherwise. */
#ifndef LLMD_BENCH_MACHINE_LIMITS_H
#define LLMD_BENCH_MACHINE_LIMITS_H

#include "bench/limit_kernels.h"

struct limits_options {
    uint32_t n_threads; /* 0 = the CPUs of the scheduling mask */
    uint32_t passes;
    size_t read_bytes; /* of one pass: many times the last cache */
    bool cpu_clock;    /* bandwidth, too, over the CPU time of the threads */
};

struct machine_limits {
    uint32_t n_threads;
    bool huge;                 /* the memory read had 2 MiB pages */
    double read_one;           /* bytes a second, one thread, 2 MiB pages */
    double read_all;           /* n_threads */
    double read_small_pages;   /* n_threads, 4 KiB pages */
    double ops[N_LIMIT_KINDS]; /* operations a second of n_threads; 0 = no instruction for it */
    const char *instructions[N_LIMIT_KINDS];
};

void machine_limits_measure(struct machine_limits *m, const struct limits_options *o);

/* A look at the arithmetic and at reading with all threads, beside work that is compared with them: on a shared
 * machine bandwidth may halve from one moment to the next.  So reading is not the best pass here but the mean of a
 * quarter of a second, as the work's own rate is a mean.  Of each kind only the instructions are tried that `known`, a
 * whole measurement, found the fastest.  The first look at a zeroed *m; a second one is averaged with it. */
void machine_limits_glance(struct machine_limits *m, const struct machine_limits *known,
                           bool cpu_clock);

/* The arithmetic limit of products with weights of so many bits, and what it is called: of vectors, even where there is a
 * matrix unit (int_tiles_amx.h says what of its peak scales leave), so that a share may pass 100 %.  16 bits: the faster
 * one of FMA and of dot products of BF16. */
double machine_limits_ops(const struct machine_limits *m, uint32_t weight_bits, const char **name);

#endif
