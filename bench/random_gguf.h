/* random_gguf.h - a GGUF file of random weights, at the shape of a known model.
 *
 * All matrices have one type, the embedding and the output too; norms are F32.  A weight is a draw from a
 * normal distribution with deviation 1/sqrt(columns), so each product keeps the size of its input and
 * nothing overflows at any depth.  The same shape, type and seed give the same bytes on every machine.
 *
 * The vocabulary is the least that a reader of "llama" vocabularies takes: <unk>, <s>, </s>, the 256 byte
 * tokens, then single characters and made-up words.  Format: version 3 of the GGUF specification
 * (docs/gguf.md of the ggml project). */
#ifndef LLMD_BENCH_RANDOM_GGUF_H
#define LLMD_BENCH_RANDOM_GGUF_H

#include <stdbool.h>

#include "bench/shapes.h"
#include "common/err.h"

struct random_model {
    const struct shape *shape;
    const struct weight_type *type;
    uint64_t seed;
    bool
        decoded; /* the very weights that `type` can hold, but written as F32: what is exact to compare with */
};

/* Written beside `path` and renamed when whole, so that a file of that name is always complete.  ERR_SYS. */
bool random_gguf_write(const struct random_model *m, const char *path, struct err *e);

#endif
