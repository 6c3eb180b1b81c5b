/* test_kernels.h - arguments of test_kernels.cu. */
#ifndef LLMD_TESTS_CUDA_SHIM_TEST_KERNELS_H
#define LLMD_TESTS_CUDA_SHIM_TEST_KERNELS_H

#include <stdint.h>

enum { TEST_THREADS = 64 };

/* What a warp's words give each thread: out[word][thread]. */
enum test_word {
    WORD_SHFL,      /* lane 3 of its eight */
    WORD_SHFL_XOR,  /* 9 */
    WORD_SHFL_UP,   /* 2, in sixteens */
    WORD_SHFL_DOWN, /* 5 */
    WORD_SHFL_64,   /* both halves of a 64-bit value, added */
    WORD_BALLOT,    /* lane % 5 == 0 */
    WORD_ANY,       /* lane == 31 */
    WORD_ALL,       /* lane != 31 */
    WORD_SYNC_OR,   /* the last thread's */
    WORD_SYNC_COUNT,
    WORD_ATOMIC_ADD, /* the block's threads, counted in shared memory */
    WORD_ATOMIC_MAX,
    WORD_NEIGHBOUR, /* of dynamic shared memory, after a barrier */
    WORD_LOP3,
    WORD_BYTES,
    WORD_DP4A,
    WORD_UNDEFINED, /* shared memory that nobody has written */
    N_TEST_WORDS
};

struct test_words_args {
    uint32_t *out; /* [N_TEST_WORDS][TEST_THREADS] */
};

/* Conversions, one number a thread. */
struct test_numbers_args {
    const float *x; /* [n] */
    uint16_t *f16, *bf16;
    uint8_t *e4m3;
    uint32_t n;
};

struct test_e4m3_args {
    float *wide;      /* [256] */
    uint16_t *halves; /* [256] */
};

struct test_halves_args {
    const uint32_t *a, *b, *c; /* [n] pairs of f16 */
    uint32_t *fma, *add, *sub, *mul;
    uint32_t n;
};

/* d[16,8] += a[16,16] b[16,8], through ldmatrix, with and without trans. */
struct test_mma_args {
    const uint16_t *a, *b;
    float *d;
    uint32_t is_bf16, b_is_transposed; /* b given as [8,16] */
};

/* Kernels that are wrong, and in what. */
enum test_fault {
    FAULT_NONE,
    FAULT_NO_WAIT,               /* for cp.async */
    FAULT_NO_BARRIER,            /* a neighbour is read before it has written */
    FAULT_NO_BARRIER_AFTER_WAIT, /* what another thread has copied is read */
    FAULT_EARLY_COPY,            /* into what others still read */
    FAULT_BARRIER_APART,         /* two of them, a warp at each */
    FAULT_LANES_APART,           /* a shuffle and a vote */
    FAULT_LANE_RETURNED,
    FAULT_DEADLOCK, /* a lane at a barrier, its warp at a shuffle */
    FAULT_MISALIGNED,
    FAULT_NO_DYNAMIC,
    FAULT_BEYOND_SHARED, /* for AddressSanitizer */
    N_TEST_FAULTS
};

struct test_fault_args {
    const float *x; /* [TEST_THREADS] */
    float *y;       /* [TEST_THREADS] */
    uint32_t fault;
};

/* A ring of blocks, each waiting for the one behind it. */
struct test_ring_args {
    uint32_t
        *flags; /* [blocks + 1], 0; the first is set by whoever launches, or by another launch */
    uint32_t *order; /* a counter */
    uint32_t backwards;
};

#endif
