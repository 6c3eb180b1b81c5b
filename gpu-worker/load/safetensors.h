/* safetensors.h - tensors of a model directory, mapped read-only: model.safetensors, or the files that
 * model.safetensors.index.json names.
 *
 * A file is an 8-byte little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, and
 * the data.  The header comes from strangers: every length, type, shape, offset and overlap is checked at
 * this door, and behind it `data` has `bytes` readable bytes.  A file that is cut short while it is mapped
 * still costs the process its life (SIGBUS); the supervisor then says so. */
#ifndef LLMD_GPU_WORKER_LOAD_SAFETENSORS_H
#define LLMD_GPU_WORKER_LOAD_SAFETENSORS_H

#include "gpu-worker/load/tensors.h"

enum { SAFETENSORS_NAME_MAX = 255 };
#define SAFETENSORS_HEADER_BYTES_MAX 100000000u /* as the format's own library */

/* The tensors of a directory; NULL and ERR_MODEL or ERR_SYS.  Caller gives them to tensors_close(). */
struct tensors *safetensors_open(const char *dir, struct err *e);

/* One file's bytes, borrowed by the result; `name` is for error messages. */
struct tensors *safetensors_parse(const char *name, const void *bytes, size_t n, struct err *e);

#endif
