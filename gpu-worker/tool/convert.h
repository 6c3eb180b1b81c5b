/* convert.h - a model as one GGUF file of another number format: `llm-worker model quantize`.
 *
 *   in:   whatever tensors_open() opens      out:  one GGUF file, which llmd and other programs read
 *
 * Matrices get the wanted type; embedding and head eight bits where that has less (load/quantize.h says why);
 * vectors and routers of experts stay float32; rows that are no whole blocks become float16.
 *
 * Nothing is believed: the written file is opened again, its configuration, tensors, rope and tokenizer are
 * compared with the source's, and only then it gets its name. */
#ifndef LLMD_GPU_WORKER_TOOL_CONVERT_H
#define LLMD_GPU_WORKER_TOOL_CONVERT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "gpu-worker/load/tensor_type.h"

struct convert_report {
    uint64_t from_bytes, to_bytes; /* of all files */
    uint64_t n_tensors;
    double relative_error; /* of the matrices that were rounded: sqrt(sum (x - y)^2 / sum x^2) */
    bool has_tokenizer;
};

/* share: 0..1, of the bytes written. */
typedef void convert_progress_fn(void *arg, double share);

/* The type of that name ("Q8_0", case does not matter), or TENSOR_NONE when it cannot be written. */
enum tensor_type convert_type(const char *name);

/* `to` is made under convert_part_name() first, and replaced only when `force`.  ERR_MODEL, ERR_SYS, ERR_CONFIG. */
bool convert_model(const char *from, const char *to, enum tensor_type type, bool force,
                   struct convert_report *report, convert_progress_fn *progress, void *arg,
                   struct err *e);

/* The name that `to` has until it is whole. */
void convert_part_name(const char *to, char *part, size_t n);

#endif
