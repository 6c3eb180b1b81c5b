/* tensors.h - all tensors of a model on disk, mapped read-only, whatever the files' format.
 *
 * Names are those of HuggingFace checkpoints; a format with names of its own translates when it is opened
 * (safetensors.h, gguf_tensors.h), and so does one that has a matrix in parts (packed_tensors.h). */
#ifndef LLMD_GPU_WORKER_LOAD_TENSORS_H
#define LLMD_GPU_WORKER_LOAD_TENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/load/tensor_type.h"

enum { TENSORS_DIMS_MAX = 8 };

struct tensor {
    char *name;
    enum tensor_type type; /* TENSOR_NONE: one we do not compute with; checked all the same */
    char type_text[12];
    uint32_t n_dims;
    uint64_t dims[TENSORS_DIMS_MAX]; /* outermost first: a matrix is [rows, cols] */
    const void *data;                /* rows one after the other; any alignment */
    uint64_t bytes;
    uint32_t file; /* index of the file it is in */
    /* 0, or head_dim: rows of each head are stored as rotary pairs side by side (0, half, 1, half + 1 ..),
     * and are put in our order (0, 1 .. half, half + 1 ..) when they are read. */
    uint32_t paired_rows;
    struct packed_matrix
        *packed; /* of types that are put together from several tensors; else NULL */
};

struct tensors_file {
    char *name;     /* in the directory */
    uint64_t bytes; /* of the file */
    int64_t mtime_ns;
    void *map;
};

struct tensors {
    struct tensors_file *files;
    uint32_t n_files;
    struct tensor *tensors; /* sorted by name, all different */
    uint32_t n_tensors;
};

/* The model at that path: a HuggingFace directory, a GGUF file or a directory with one.  NULL and ERR_MODEL,
 * ERR_SYS, or ERR_CONFIG (gguf_locate()). */
struct tensors *tensors_open(const char *path, struct err *e);
void tensors_close(struct tensors *ts); /* NULL is fine */

/* NULL when there is none. */
const struct tensor *tensors_find(const struct tensors *ts, const char *name);

/* Where our row `row` of a matrix or vector begins; not of one in parts. */
const void *tensor_row(const struct tensor *t, uint64_t row);

/* Rows row .. row + n_rows - 1 of a matrix, of each the columns col .. col + n_cols - 1; col and n_cols are
 * multiples of tensor_type_block(), and for codes col is one of 32. */
struct tensor_part {
    uint64_t row;
    uint32_t n_rows, col, n_cols;
};

/* y [n_rows, n_cols], the values that the format defines, each rounded to float once. */
void tensor_to_float(const struct tensor *t, struct tensor_part part, float *y);

/* What tensor_type_to_codes() gives for each row:
 *   codes    [n_rows, n_cols]
 *   numbers  [n_rows, n_cols / 32 rounded up, tensor_type_numbers(t->type)] */
void tensor_to_codes(const struct tensor *t, struct tensor_part part, int8_t *codes,
                     uint16_t *numbers);

/* ---- for the formats ---- */

/* Sort by name.  ERR_MODEL: two have the same. */
bool tensors_sort(struct tensors *ts, struct err *e);

/* Map files[file] of the directory, which has its name. */
bool tensors_map_file(struct tensors *ts, const char *dir, uint32_t file, struct err *e);

#endif
