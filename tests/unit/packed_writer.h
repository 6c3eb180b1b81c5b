/* packed_writer.h - float matrices into quantised checkpoints, as the tools that make such files write them.
 *
 * The packing is written from the formats' definitions, element by element, and shares no line with
 * gpu-worker/load/: bits are put where a format says, and what they mean is computed from the codes. */
#ifndef LLMD_TESTS_PACKED_WRITER_H
#define LLMD_TESTS_PACKED_WRITER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/buf.h"
#include "tests/unit/checkpoint.h"

enum pack_format {
    PACK_AWQ,
    PACK_AWQ_GEMV,
    PACK_GPTQ,
    PACK_GPTQ_V2,
    PACK_CT,      /* compressed-tensors, packed */
    PACK_CT_INT8, /* compressed-tensors, int8 with a scale a row */
    PACK_FP8,     /* E4M3 with one scale */
    PACK_FP8_ROWS,
    PACK_FP8_BLOCKS, /* of group x group */
};

enum pack_flags {
    PACK_SYM = 1,
    PACK_DESC_ACT = 2,   /* neighbouring columns are of different groups */
    PACK_BF16 = 4,       /* scales of compressed-tensors */
    PACK_OLDER_FILE = 8, /* the configuration is in a file beside config.json */
    PACK_WIDE = 16,      /* PACK_CT: codes less their zero points, as symmetric ones of 8 bits */
};

struct pack_spec {
    const char *label;
    enum pack_format format;
    uint32_t bits, group; /* group 0: whole rows */
    uint32_t flags;       /* enum pack_flags */
};

struct packed_writer {
    const struct pack_spec *spec;
    struct buf header, data;
};

void packed_writer_begin(struct packed_writer *w, const struct pack_spec *spec);

/* A tensor as it is; cols 0: a vector. */
void packed_writer_plain(struct packed_writer *w, const char *name, const char *type, uint32_t rows,
                         uint32_t cols, const void *bytes, size_t n);

/* NAME.weight in the format's parts; decoded [rows, cols]: what they stand for, which no float rounds. */
void packed_writer_matrix(struct packed_writer *w, const char *name, uint32_t rows, uint32_t cols,
                          const double *x, double *decoded);

/* model.safetensors, and the configuration: into dir/config.json, which is there, or beside it. */
void packed_writer_end(struct packed_writer *w, const char *dir);

/* Which matrices of a model are packed: not the embedding, the head, and what chooses experts. */
bool packed_writer_packs(const struct checkpoint_tensor *t);

/* A whole model: its directory gets the packed weights, and c->tensors' values become what those stand for. */
void packed_writer_checkpoint(struct checkpoint *c, const struct pack_spec *spec);

/* model.safetensors alone: of plain tensors only. */
void packed_writer_end_plain(struct packed_writer *w, const char *dir);

#endif
