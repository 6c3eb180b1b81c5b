/* model_rope.h - the part of config.json that says how positions turn queries and keys. */
#ifndef LLMD_GPU_WORKER_LOAD_MODEL_ROPE_H
#define LLMD_GPU_WORKER_LOAD_MODEL_ROPE_H

#include "gpu-worker/load/json_reader.h"
#include "gpu-worker/load/model_config.h"

enum { MODEL_POSITIONS_MAX = 1 << 24 };

/* What a family says before its file does. */
struct model_rope_defaults {
    double theta;
    bool
        partial; /* "partial_rotary_factor" is known to it; elsewhere another value than 1 is refused */
    uint32_t original_positions; /* for longrope, when the file does not say; 0 = it must */
};

/* Fill the rope_ fields of *c, whose sizes are known already. */
bool model_rope_read(const struct json_reader *r, const struct model_rope_defaults *d,
                     struct model_config *c);

#endif
