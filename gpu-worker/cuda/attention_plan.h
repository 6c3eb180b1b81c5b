/* attention_plan.h - which block of the attention kernels does what in a step.
 *
 * The host makes the lists once a step, for all layers: a layer with a sliding window has blocks that find
 * nothing to do and leave.  They lie in one flat buffer (kernels/attention.h draws it) that goes over with the
 * step block.  Nothing here allocates.
 *
 * Sequences with many rows are cut into tiles for the tensor cores, the others into items for the decode
 * kernel.  A slot of partial sums is given to each split of an item while there are slots; a sequence that
 * gets none is gone through by one block for each of its items.  Neither choice of slots changes a bit of the result;
 * tiles or items does, by rounding (deterministic: tile_rows_min = ATTENTION_NO_TILES). */
#ifndef LLMD_GPU_WORKER_CUDA_ATTENTION_PLAN_H
#define LLMD_GPU_WORKER_CUDA_ATTENTION_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#include "gpu-worker/batch.h"
#include "gpu-worker/cuda/kernels/attention.h"

#define ATTENTION_NO_TILES UINT32_MAX

enum {
    ATTENTION_SLOTS = 2048,       /* a good number: a million positions of decode */
    ATTENTION_TILE_ROWS_MIN = 17, /* a good number: below it splits keep more of the GPU busy */
    ATTENTION_GROUP_MIN = 4,      /* a good number */
};

/* What never changes while a stream lives. */
struct attention_setup {
    uint32_t n_heads, n_kv_heads; /* of this rank; heads are a multiple of KV heads */
    uint32_t head_dim;            /* 1..ATTENTION_DECODE_DIM_MAX */
    uint32_t page_tokens;         /* 1..256 */
    enum kv_format kv;
    uint32_t rows_max, seqs_max;
    uint32_t positions_max; /* at most ATTENTION_POSITIONS_MAX */
    uint32_t slots_max;     /* of partial sums; 0: one block goes through all of an item's splits */
    /* A sequence with so many rows or more goes to the tensor cores.  ATTENTION_NO_TILES: none, for deterministic
     * results, float32 pages that shall stay exact, and where attention_has_tiles() says no. */
    uint32_t tile_rows_min;
    /* The other sequences' queries go through tensor cores as well, 16 at a time, in full precision: worth it where a
     * KV head has ATTENTION_GROUP_MIN queries a row, and possible where attention_has_groups() says so. */
    bool is_grouped;
};

/* Whether there is a prefill kernel: compute capability 8.0 or more (80 = 8.0), head_dim 32, 64, 80, 96, 128 or
 * 256, page data that 16-byte loads can read. */
bool attention_has_tiles(const struct attention_setup *s, uint32_t compute_capability);

/* The same of the grouped decode kernel: 7.5 or more, head_dim at most 128, not float32 pages. */
bool attention_has_groups(const struct attention_setup *s, uint32_t compute_capability);

/* Queries of an item in a step of one row a sequence. */
uint32_t attention_queries_max(const struct attention_setup *s);

/* Sizes for this setup: the buffer, args.partials, and the largest grids.  For a graph of n decode steps ask with
 * rows_max = seqs_max = n. */
struct attention_limits {
    size_t plan_bytes;
    uint64_t partial_bytes;
    uint32_t n_items, n_combines, n_tiles;
};

/* n_pages_max: of all page tables of a batch together. */
struct attention_limits attention_plan_limits(const struct attention_setup *s,
                                              uint64_t n_pages_max);

/* Write the plan of `batch` to `buffer`, 16-byte aligned, plan_bytes long; returns what it begins with, whose
 * bytes are to be copied.  The batch must be within the setup and its page tables within n_pages_max. */
const struct attention_header *attention_plan_build(void *buffer, const struct attention_setup *s,
                                                    const struct batch *batch);

/* ---- launches: name of the kernel, block and dynamic shared memory ---- */

struct attention_launch {
    const char *name;
    uint32_t grid_x, grid_y;
    uint32_t threads;
    uint32_t shared_bytes; /* dynamic; above 48 KiB the function's attribute must be raised */
};

enum { ATTENTION_LAUNCHES = 3 };

/* The launches of a layer, in order; all take struct attention_args.  Returns how many of `out` are filled.
 * From the header of a step's plan; for a graph, one with the counts of struct attention_limits and the
 * queries_max that its steps have (1: no item has more than one query, the leaner kernel is taken). */
uint32_t attention_launches(struct attention_launch out[ATTENTION_LAUNCHES],
                            const struct attention_setup *s, const struct attention_header *plan);

#endif
