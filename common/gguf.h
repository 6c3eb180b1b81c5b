/* gguf.h - a GGUF file mapped read-only: its metadata, and where its tensors begin.
 *
 *   "GGUF"  version  n_tensors  n_pairs | pairs: key, type, value | tensors: name, dims, type, offset | data
 *
 * after the specification (github.com/ggml-org/ggml, docs/gguf.md), versions 2 and 3, little-endian.  Every
 * count, length, type, alignment and offset of a stranger's file is checked at this door; what a tensor's type
 * means, and so where the tensor ends, is for who reads tensors (gpu-worker/load).  A file that is cut short
 * while it is mapped still costs the process its life (SIGBUS).
 *
 * The worker reads configuration and tensors from it, the gateway tokenizer and chat template. */
#ifndef LLMD_COMMON_GGUF_H
#define LLMD_COMMON_GGUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

enum { GGUF_NAME_MAX = 255, GGUF_DIMS_MAX = 4, GGUF_DEPTH_MAX = 4 };

enum gguf_type { /* numbers of the format */
                 GGUF_U8,
                 GGUF_I8,
                 GGUF_U16,
                 GGUF_I16,
                 GGUF_U32,
                 GGUF_I32,
                 GGUF_F32,
                 GGUF_BOOL,
                 GGUF_STRING,
                 GGUF_ARRAY,
                 GGUF_U64,
                 GGUF_I64,
                 GGUF_F64,
                 N_GGUF_TYPES
};

struct gguf_string {
    const char *s; /* in the file: no NUL behind it, any bytes */
    size_t n;
};

struct gguf_array {
    enum gguf_type of;
    uint64_t n;
    const unsigned char
        *at; /* the first element, as the file has it; all of them have been checked */
};

struct gguf_pair {
    char *key;
    enum gguf_type type;
    const unsigned char *at; /* the value, as the file has it */
};

struct gguf_tensor {
    char *name; /* 1..GGUF_NAME_MAX bytes */
    uint32_t type;
    uint32_t n_dims;
    uint64_t
        dims[GGUF_DIMS_MAX]; /* elements of one row first; 1 beyond n_dims; none 0, product fits */
    uint64_t offset;         /* in the data, at most data_bytes, aligned */
};

struct gguf {
    char *name; /* for messages: the path */
    uint32_t version, alignment;
    struct gguf_pair *pairs; /* sorted by key, all different */
    uint32_t n_pairs;
    struct gguf_tensor *tensors; /* in the file's order */
    uint32_t n_tensors;
    const unsigned char *data;
    uint64_t data_bytes;
    uint64_t bytes; /* of the file */
    int64_t mtime_ns;
    void *map; /* NULL: the bytes are borrowed */
};

/* NULL and ERR_SYS or ERR_MODEL. */
struct gguf *gguf_open(const char *path, struct err *e);
/* From bytes, borrowed by the result. */
struct gguf *gguf_parse(const char *name, const void *bytes, size_t n, struct err *e);
void gguf_close(struct gguf *g); /* NULL is fine */

/* The GGUF file that a `model` setting means: the file itself, or the only one of a directory without
 * safetensors, where a split set counts as one and is meant by its first file, and "mmproj*" (projectors of
 * images) do not count.  *path: returned, caller frees; NULL when it is no GGUF model.  ERR_CONFIG when a
 * directory leaves a choice, ERR_SYS. */
bool gguf_locate(const char *model, char **path, struct err *e);

/* ---- metadata: ERR_MODEL names the key when it is missing or of another type ---- */

bool gguf_has(const struct gguf *g, const char *key);
/* Of any integer type. */
bool gguf_integer(const struct gguf *g, const char *key, int64_t *v, struct err *e);
/* Of any number type; finite. */
bool gguf_number(const struct gguf *g, const char *key, double *v, struct err *e);
bool gguf_bool(const struct gguf *g, const char *key, bool *v, struct err *e);
bool gguf_string(const struct gguf *g, const char *key, struct gguf_string *v, struct err *e);
bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *v, struct err *e);

/* Element i of an array of integers, of numbers; false: its elements are none. */
bool gguf_array_integer(const struct gguf_array *a, uint64_t i, int64_t *v);
bool gguf_array_number(const struct gguf_array *a, uint64_t i, double *v);

/* The strings of an array of strings one after the other: a copy of the array is the position. */
struct gguf_string gguf_array_next(struct gguf_array *a);

static inline bool gguf_string_is(struct gguf_string s, const char *text)
{
    return __builtin_strlen(text) == s.n && __builtin_memcmp(s.s, text, s.n) == 0;
}

const char *gguf_type_name(enum gguf_type t); /* "uint32" */

#endif
