/* attention.h - attention over KV pages: what the host gives the kernels of attention_decode.cu and
 * its neighbours attention_group.cu and attention_prefill.cu.
 *
 *   plan (one flat buffer, attention_plan.c)        one set of launches a layer
 *   +--------+-------+----------+-------+-------+   attention_decode_*   grid (items, kv heads)
 *   | header | items | combines | tiles | pages |   attention_combine    grid (combines, kv heads)
 *   +--------+-------+----------+-------+-------+   attention_prefill_*  grid (query heads, tiles)
 *
 * A *query* is one head of one row.  The queries that share a KV head are counted by row, then by head: query i
 * of a sequence is head i % group of its group, in the sequence's row i / group.
 *
 * Decode: sequences with few rows.  An item is a few queries and some splits of ATTENTION_SPLIT_TOKENS positions, counted
 * from 0.  Each split is summed up by itself and the sums are folded in order, whether one block goes through
 * all of them (ATTENTION_WHOLE) or each has a block and attention_combine follows: the same bits.  So a row's
 * result depends on its own position only (Flash-Decoding: Dao et al. 2023).
 *
 * Prefill: a tile is up to ATTENTION_TILE_ROWS rows of a sequence, one head of them a block, by tensor cores
 * (FlashAttention-2: Dao 2023, arXiv:2307.08691).  Q, K, V and the exponentials are rounded to f16, sums are
 * float32; steps begin at multiples of a fixed number of positions, so a row's result depends on its position only
 * here too.  Decode and prefill differ from each other by rounding.
 *
 * KV pages are those of kv_page.h; any page_tokens and head_dim will do (int8: their product is a multiple of 4). */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_ATTENTION_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_ATTENTION_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/kv_page.h"

enum {
    ATTENTION_SPLIT_TOKENS = 512,   /* positions; a change changes bits */
    ATTENTION_TILE_ROWS = 64,       /* of a prefill tile */
    ATTENTION_QUERIES_MAX = 4,      /* of an item of attention_decode_* */
    ATTENTION_GROUP_QUERIES = 16,   /* of attention_group_* */
    ATTENTION_DECODE_DIM_MAX = 512, /* of attention_decode_any_*; more than 256 is slow */
    ATTENTION_SUMS = 4, /* floats before the values of a partial: largest, sum, 2 unused */
    ATTENTION_DECODE_THREADS = 128,
    ATTENTION_COMBINE_THREADS = 128,
    ATTENTION_PREFILL_THREADS = 128,
    ATTENTION_BLOCKS_MAX = 4096,       /* of a decode or combine grid */
    ATTENTION_POSITIONS_MAX = 1 << 24, /* page numbers are found by a multiplication */
};

/* attention_item.partial: the block does all splits and writes to out. */
#define ATTENTION_WHOLE UINT32_MAX

/* Some queries of a sequence and some of the splits they see; also what attention_combine folds. */
struct attention_item {
    uint32_t first_row;   /* of the sequence in the batch */
    uint32_t position;    /* of first_row */
    uint32_t pages;       /* of the list of pages: where the sequence's begin */
    uint32_t query_begin; /* of the sequence */
    uint32_t n_queries; /* at least 1, at most ATTENTION_QUERIES_MAX, or ATTENTION_GROUP_QUERIES */
    uint32_t split_begin, split_end;
    /* Slot of partial sums of the first query and split_begin, or ATTENTION_WHOLE.  The queries' are neighbours, the
     * next split's follow. */
    uint32_t partial;
};

struct attention_tile {
    uint32_t first_row; /* of the batch */
    uint32_t n_rows;    /* 1..ATTENTION_TILE_ROWS */
    uint32_t position;  /* of first_row */
    uint32_t pages;     /* as above */
};

/* The buffer begins with it.  Offsets are bytes from here and multiples of 16.  A grid may be larger than a count:
 * blocks beyond it leave at once; that of items and combines may be smaller too: blocks then take several.  So a
 * graph's grids need not be a step's. */
struct attention_header {
    uint32_t n_items, items_offset;       /* struct attention_item */
    uint32_t n_combines, combines_offset; /* struct attention_item */
    uint32_t n_tiles, tiles_offset;       /* struct attention_tile */
    uint32_t n_pages, pages_offset;       /* uint32_t: page tables, one after the other */
    uint32_t queries_max;                 /* of any item, at least 1 */
    uint32_t bytes;                       /* of the buffer */
    uint32_t format;                      /* of the KV pages: enum kv_format */
    uint32_t reserved[5];
};

/* Of all kernels here, the same for each but for the launch geometry.  All pointers are the device's.
 *   q        [rows][q_stride] float32, head h of a row at h * head_dim
 *   out      [rows][out_stride] float32, likewise; written for the rows of the plan
 *   partials [slots][n_kv_heads][ATTENTION_SUMS + head_dim rounded up to 4] float32
 *   out[t,h] = sum_p softmax_p(cap(scale * q[t,h] . k[p])) v[p], p <= the row's position and, with a window,
 *              p > position - window; cap(x) = softcap * tanh(x / softcap) */
struct attention_args {
    const struct attention_header *plan;
    const float *q;
    float *out;
    float *partials;
    const char *kv;                /* page 0 */
    uint64_t page_bytes;           /* page p is at p * page_bytes */
    uint64_t k_offset, v_offset;   /* of this layer's first KV head of this rank, in a page */
    uint64_t head_bytes;           /* from a KV head to the next: kv_tile_bytes() */
    uint64_t q_stride, out_stride; /* elements */
    uint32_t n_heads, n_kv_heads;  /* of this rank */
    uint32_t head_dim;
    uint32_t page_tokens;   /* 1..256 */
    uint32_t page_magic;    /* attention_page_magic(page_tokens) */
    uint32_t window;        /* positions a row sees, its own included; 0 = all */
    float scale, softcap;   /* softcap 0 = none */
    float k_scale, v_scale; /* KV_E4M3: stored numbers are multiplied by it */
};

/* position / page_tokens is position * magic >> 32 for positions below ATTENTION_POSITIONS_MAX; 0 stands for
 * pages of one token. */
static inline uint32_t attention_page_magic(uint32_t page_tokens)
{
    return page_tokens == 1 ? 0 : (uint32_t)((((uint64_t)1 << 32) + page_tokens - 1) / page_tokens);
}

/* Bytes of one slot of args.partials: a query of each KV head, in one split. */
static inline uint64_t attention_slot_bytes(uint32_t n_kv_heads, uint32_t head_dim)
{
    return (uint64_t)n_kv_heads * (ATTENTION_SUMS + (head_dim + 3) / 4 * 4) * sizeof(float);
}

/* Prefill: positions that a block has in shared memory at once, bytes of one of them there (of whole 16-byte
 * chunks, so that eight rows lie in different banks: a multiple of 128 bytes, turned about by XOR, or an odd
 * number of chunks), and all of its dynamic shared memory: K and V twice, and Q where registers do not hold it. */
#define ATTENTION_STEP(head_dim)      ((head_dim) <= 128 ? 64 : 32)
#define ATTENTION_ROW_BYTES(head_dim) (2 * (head_dim) + ((head_dim) % 64 == 0 ? 0 : 16))
#define ATTENTION_PREFILL_SHARED(head_dim)                                                         \
    ((4 * ATTENTION_STEP(head_dim) + ((head_dim) <= 128 ? 0 : ATTENTION_TILE_ROWS)) *              \
     ATTENTION_ROW_BYTES(head_dim))

#endif
