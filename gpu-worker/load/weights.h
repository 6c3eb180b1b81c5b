/* weights.h - the weights segment of one shard (proto/weights_layout.h): planned, loaded once, then mapped.
 *
 * A model first plans: which rows of which tensor of its files make which tensor of the shard, and in
 * which number format they will lie there.  The plan fixes the segment's size (llm-worker --inspect) and
 * every offset before a byte is read.  weights_open() then either finds the segment COMMITTED from the very
 * same plan and files, or loads.  Whether committed bytes still are what was loaded is weights_check.h's
 * question.
 *
 * Matrices are packed while they are loaded, as the plan's backend wants them (struct packing of ops/packing.h);
 * one-dimensional tensors (norms, biases) become float, exactly, or what is 1 above it.  The data lies in the segment,
 * or in a place of its own that the host does not read (weights_place.h); everything else is the same then. */
#ifndef LLMD_GPU_WORKER_LOAD_WEIGHTS_H
#define LLMD_GPU_WORKER_LOAD_WEIGHTS_H

#include "common/hash.h"
#include "gpu-worker/load/quantize.h"
#include "gpu-worker/load/tensors.h"
#include "gpu-worker/load/weights_place.h"
#include "gpu-worker/ops/packing.h"
#include "gpu-worker/ops/threads.h"
#include "proto/weights_layout.h"

/* Rows first .. first + entry.rows - 1 of a tensor of the files, of a matrix from column first_col on. */
struct weights_want {
    struct weights_tensor entry; /* as it will stand in the table */
    const struct tensor *from;
    uint64_t first, first_col;
    bool plus_one;
};

struct weights_plan {
    struct weights_want *tensors;
    uint32_t n, cap;
    uint64_t data_bytes;
    uint64_t parameters;               /* of the whole model; the model sets it */
    enum quantize quantize;            /* the setting; set it before planning */
    const struct packing *packing;     /* set it before planning; NULL = packing_cpu */
    bool is_apart;                     /* the data lies in .place, not in the segment */
    const struct weights_place *place; /* borrowed; not needed before weights_open() */
};

/* What one matrix or vector of the shard is made of; `rows` and `cols` are what the files must have. */
struct weights_source {
    const char *name; /* in the files */
    uint64_t rows;    /* whole */
    uint64_t cols;    /* 0: a vector of rows elements */
    uint64_t first, count;
    uint64_t first_col, n_cols; /* n_cols 0: all; else both whole blocks of the files' type */
    enum dtype dtype;           /* that it will have; a vector is DTYPE_F32 */
    bool plus_one;              /* a vector: 1 is added to each element, in float */
};

void weights_plan_fini(struct weights_plan *p); /* a zeroed plan is empty */

/* Add tensor `name`.  ERR_MODEL when the source is missing or has another shape or a type we do not read. */
bool weights_plan_add(struct weights_plan *p, const struct tensors *ts, const char *name,
                      const struct weights_source *source, struct err *e);

/* Of the whole segment. */
uint64_t weights_plan_segment_bytes(const struct weights_plan *p);

/* The largest run of bytes that is staged at a time. */
uint64_t weights_plan_piece_bytes(const struct weights_plan *p);

/* Everything that decides the bytes: files (names, sizes, times), configuration, shard, packing, version,
 * and the planned table itself. */
struct hash128 weights_layout_hash(const struct weights_plan *p, const struct tensors *ts,
                                   struct hash128 config, uint32_t rank, uint32_t tp_size,
                                   uint32_t packing);

struct weights {
    struct segment segment; /* read-only */
    const struct weights_hdr *hdr;
    const struct weights_tensor *tensors;
    const uint64_t *checksums;         /* [hdr->n_chunks] */
    struct weights_hdr *shared;        /* the header's page, writable, for .doubt */
    const char *data;                  /* of the segment, or an address of .place */
    const struct weights_place *place; /* NULL = the data is in the segment */
};

/* Map the segment, loading it first when it is not COMMITTED.  fd: taken.  *loaded: this call filled it.
 * ERR_PROTO: not a segment this plan fits; ERR_MODEL: it holds other weights (those of a place are replaced:
 * nobody else maps them); ERR_DEVICE of a place.  The plan's place is borrowed for *w's life. */
bool weights_open(struct weights *w, int fd, const struct weights_plan *p, struct hash128 layout,
                  uint32_t packing, uint32_t epoch, struct threads *threads, bool *loaded,
                  struct err *e);
void weights_close(struct weights *w);

/* The tensor of that name, searched from *cursor on; it must be there (the plan put it there). */
const struct weights_tensor *weights_find(const struct weights *w, const char *name,
                                          uint32_t *cursor);
const void *weights_data(const struct weights *w, const struct weights_tensor *t);

/* Data bytes of one chunk; the last one may be shorter. */
struct weights_range {
    uint64_t begin, end; /* from data_offset */
};
struct weights_range weights_chunk(uint64_t data_bytes, uint32_t chunk);

/* Write the data bytes of that range from the checkpoint to `to`: loading, and repair. */
void weights_fill(const struct weights_plan *p, char *to, struct weights_range range);

#endif
