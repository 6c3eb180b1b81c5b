/* limit_kernels.h - loops that do nothing but one instruction mix, or read memory: what a core can do at most.
 *
 * Each kernel has its own target attribute, so this unit holds all instruction sets and the caller asks
 * limit_kernel_runs() before it calls one. */
#ifndef LLMD_BENCH_LIMIT_KERNELS_H
#define LLMD_BENCH_LIMIT_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a product of matrices is made of, by the type of the weights; TILES: what a matrix unit makes of bytes, without any
 * scales. */
enum limit_kind { LIMIT_FP32, LIMIT_BF16, LIMIT_INT4, LIMIT_INT8, LIMIT_TILES, N_LIMIT_KINDS };

struct limit_kernel {
    enum limit_kind kind;
    const char *instructions;
    double ops; /* multiplications and additions of one iteration */
    void (*run)(uint64_t iterations);
    bool (*can_run)(void);
};

extern const struct limit_kernel limit_kernels[];
extern const uint32_t n_limit_kernels;

const char *limit_kind_name(enum limit_kind kind);

/* Read n bytes (a multiple of 256) from aligned memory, once, forwards. */
void limit_read(const void *memory, size_t n);

#endif
