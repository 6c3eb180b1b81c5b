/* bench.h - a kernel on the device, once: memory, numbers, launches with their time, comparison with the host.
 *
 * In a child of gpu-verify, which ends with a reason when something cannot be done. */
#ifndef LLMD_CUDA_VERIFY_BENCH_H
#define LLMD_CUDA_VERIFY_BENCH_H

#include <stdint.h>

#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"

enum { BENCH_SAMPLE_ROWS = 8 };

/* Sizes of a case, filled for a GPU or for the dry run. */
struct shape {
    uint32_t rows, cols; /* or pages and nothing */
    uint64_t page_bytes;
};

struct bench {
    int sock;
    const struct verify *v;
    struct shape shape;
    struct child_device d;
    double bytes;      /* moved at least, by one launch */
    double operations; /* of one launch; 0: bound by memory */
    double us;         /* of one launch */
    double error;      /* largest relative difference from the host, or wrong pages */
};

typedef void bench_fn(struct bench *b);

/* Device and host memory; the latter is given back by free(). */
cu_ptr bench_device(struct bench *b, uint64_t bytes);
void *bench_host(struct bench *b, uint64_t bytes);

/* Device memory with a copy of `from`; and back. */
cu_ptr bench_put(struct bench *b, const void *from, uint64_t bytes);
void bench_get(struct bench *b, void *to, cu_ptr from, uint64_t bytes);

/* n numbers in [-1, 1), the same for a seed every time. */
float *bench_numbers(struct bench *b, uint64_t n, uint64_t seed);

/* Launch, warm, then timed: fills b->us.  The results of the last launch stay. */
void bench_time(struct bench *b, const char *kernel, const struct device_grid *grid,
                const void *args, size_t args_bytes);
/* How often bench_time() launches. */
uint32_t bench_launches(const struct bench *b);

/* Note |got - want| / scale, where it is the largest yet. */
void bench_note(struct bench *b, double got, double want, double scale);

/* The i-th of BENCH_SAMPLE_ROWS rows to compare: the first, the last, and some between. */
uint32_t bench_sample(uint32_t i, uint32_t rows);

/* Products of one row with weights (bench_gemv.c). */
bench_fn bench_gemv_f16, bench_gemv_e4m3, bench_gemv_i8, bench_gemv_i4;

/* Around products of E4M3 (bench_eight_bits.c).  A matrix of rows x cols; rows of cols numbers; rows of a prompt and cols
 * of a matrix; an expert's matrix; rows of heads of cols numbers. */
bench_fn bench_dequantise_e4m3, bench_fp8_quantise, bench_fp8_finish, bench_experts_e4m3,
    bench_rope_kv_write_e4m3;

/* Attention of one layer (bench_attention.c).  rows sequences of cols tokens; or a prompt of cols tokens, of which
 * rows are new. */
bench_fn bench_attention_decode, bench_attention_decode_e4m3, bench_attention_prefill;

#endif
