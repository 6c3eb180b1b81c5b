/* safetensors.h - tensors of a model directory, mapped read-only: model.safetensors, or the files that
 * model.safetensors.index.json names.
 *
 * A file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and
 * the data.  The header comes from strangers: every length, type, shape, offset and overlap is checked at
 * this door, and behind it `data` has `bytes` readable bytes.  A file that is cut short while it is mapped
 * still costs the process its life (SIGBUS); the supervisor then says so. */
#ifndef LLMD_GPU_WORKER_LOAD_SAFETENSORS_H
#define LLMD_GPU_WORKER_LOAD_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "proto/dtype.h"

enum { SAFETENSORS_NAME_MAX = 255, SAFETENSORS_DIMS_MAX = 8 };
#define SAFETENSORS_HEADER_BYTES_MAX 100000000u /* as the format's own library */

struct safetensors_tensor {
    char *name;
    enum dtype dtype; /* DTYPE_NONE: a type we do not compute with; checked all the same */
    char dtype_text[12];
    uint32_t n_dims;
    uint64_t dims[SAFETENSORS_DIMS_MAX];
    const void *data;
    uint64_t bytes;
    uint32_t file; /* index of the file it is in */
};

struct safetensors_file {
    char *name;     /* in the directory */
    uint64_t bytes; /* of the file */
    int64_t mtime_ns;
    void *map;
};

struct safetensors {
    struct safetensors_file *files;
    uint32_t n_files;
    struct safetensors_tensor *tensors; /* sorted by name, all different */
    uint32_t n_tensors;
};

/* NULL and ERR_MODEL or ERR_SYS. */
struct safetensors *safetensors_open(const char *dir, struct err *e);
void safetensors_close(struct safetensors *st); /* NULL is fine */

/* One file's bytes, borrowed by the result; `name` is for error messages. */
struct safetensors *safetensors_parse(const char *name, const void *bytes, size_t n, struct err *e);

/* NULL when there is none. */
const struct safetensors_tensor *safetensors_find(const struct safetensors *st, const char *name);

#endif
