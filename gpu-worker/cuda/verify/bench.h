/* bench.h - a kernel on the device, once: memory, numbers, launches with their time, comparison with the host.
 *
 * In a child of gpu-verify, which ends with a reason when something cannot be done. */
#ifndef LLMD_CUDA_VERIFY_BENCH_H
#define LLMD_CUDA_VERIFY_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu-worker/cuda/kernels/kv_page.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"
#include "proto/dtype.h"

enum { BENCH_SAMPLE_ROWS = 8 };

/* Sizes of a case, filled for a GPU or for the dry run. */
struct shape {
    uint32_t rows, cols; /* or pages and nothing */
    uint64_t page_bytes;
};

/* Which of several kernels that do the same. */
struct variant {
    uint32_t format; /* of weights: enum dtype; of KV pages: enum kv_format */
    uint32_t size;   /* rows of x of a product, numbers of an attention's head; 0: there is one */
};

struct bench {
    int sock;
    const struct verify *v;
    struct variant of;
    struct shape shape;
    struct child_device d;
    const char *kernel; /* the first that was launched */
    double bytes;       /* moved at least, by one launch */
    double operations;  /* of one launch; 0: bound by memory */
    double us;          /* of one launch */
    double error;       /* largest relative difference from the host, or wrong pages */
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

/* ---- weights (bench_weights.c) ---- */

/* A matrix of rows x cols as it lies on the device; bytes of it.  cols is a multiple of 8. */
struct bench_matrix {
    enum dtype dtype;
    uint32_t rows, cols;
    uint64_t bytes;
    void *packed; /* free() */
};
struct bench_matrix bench_matrix(struct bench *b, enum dtype dtype, uint32_t rows, uint32_t cols);

/* n numbers as f16, or bf16: bits. */
uint16_t *bench_halves(struct bench *b, uint64_t n, uint64_t seed, bool is_bf16);

/* Note the product of the matrix' row with x, relative to the sum of the terms' sizes, which is what rounding is relative
 * to. */
void bench_note_product(struct bench *b, double got, const struct bench_matrix *m, uint32_t row,
                        const float *x);
void bench_note_product_halves(struct bench *b, double got, const struct bench_matrix *m,
                               uint32_t row, const uint16_t *x);

/* ---- KV pages ---- */

/* Number d of the vector in a slot of a tile (kernels/kv_page.h), as it is read. */
double bench_kv_number(const uint8_t *tile, enum kv_format format, uint32_t page_tokens,
                       uint32_t head_dim, uint32_t slot, uint32_t d);

/* ---- the cases; shape and variant are those of weights where nothing else is said ---- */

/* Products of one row (bench_gemv.c). */
bench_fn bench_gemv;

/* Products of many rows (bench_gemm.c): of of.size rows; the experts of a prompt, each of that shape. */
bench_fn bench_gemm_w4, bench_experts;

/* Around products of 8 bits (bench_eight_bits.c).  A matrix; rows of cols numbers; rows of a prompt and cols of a
 * matrix. */
bench_fn bench_dequantise, bench_fp8_scales, bench_requantise_i8;
bench_fn bench_fp8_quantise, bench_w8a8_quantise;
bench_fn bench_fp8_finish, bench_w8a8_finish;

/* Routes of a mixture (bench_moe.c).  rows of a prompt; cols experts, or of what comes back cols numbers. */
bench_fn bench_moe_choose, bench_moe_sort, bench_moe_combine;

/* rows of cols logits (bench_sampling.c). */
bench_fn bench_sampling;

/* Heads turned, keys and values into pages of of.format (bench_rope_kv_write.c).  rows of heads of cols numbers. */
bench_fn bench_rope_kv_write;

/* Attention of one layer over pages of of.format, heads of of.size numbers (bench_attention.c).  rows sequences of cols
 * tokens, four query heads sharing a KV head in the group's; or a prompt of cols tokens, of which rows are new. */
bench_fn bench_attention_decode, bench_attention_group, bench_attention_prefill;

#endif
