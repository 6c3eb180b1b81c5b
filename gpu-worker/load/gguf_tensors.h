/* gguf_tensors.h - tensors of a GGUF file, or of a set of them, under their HuggingFace names.
 *
 * Every tensor's type, whole blocks, place in its file and overlap is checked at this door.  What comes out
 * differs from the file in names, in experts (a tensor of all becomes a matrix for each) and in .paired_rows;
 * no byte is copied. */
#ifndef LLMD_GPU_WORKER_LOAD_GGUF_TENSORS_H
#define LLMD_GPU_WORKER_LOAD_GGUF_TENSORS_H

#include "gpu-worker/load/gguf_set.h"
#include "gpu-worker/load/tensors.h"

/* NULL and ERR_MODEL or ERR_SYS. */
struct tensors *gguf_tensors_open(const char *path, struct err *e);

/* From a set, whose files are emptied: their mappings belong to the result. */
struct tensors *gguf_tensors_new(struct gguf_set *set, struct err *e);

/* The format's number of a type; of TENSOR_NONE UINT32_MAX. */
uint32_t gguf_tensors_number(enum tensor_type t);

#endif
