/* gguf_set.h - the GGUF files of one model: one, or a set named NAME-00001-of-0000N.gguf that is opened by its
 * first file, which holds the metadata. */
#ifndef LLMD_GPU_WORKER_LOAD_GGUF_SET_H
#define LLMD_GPU_WORKER_LOAD_GGUF_SET_H

#include "common/gguf.h"

enum { GGUF_SET_FILES_MAX = 4096 };

struct gguf_set {
    struct gguf **files; /* [n] */
    uint32_t n;
};

/* ERR_SYS or ERR_MODEL; *set is filled only on success. */
bool gguf_set_open(struct gguf_set *set, const char *path, struct err *e);
void gguf_set_close(struct gguf_set *set); /* zeroed is fine */

/* The tensor of that name, and its file; NULL when there is none. */
const struct gguf_tensor *gguf_set_find(const struct gguf_set *set, const char *name,
                                        const struct gguf **file);

#endif
