/* gguf_family.h - the model families of GGUF files: how each is called in a HuggingFace directory, and how its
 * tensors are.  The rest of the worker knows HuggingFace names only. */
#ifndef LLMD_GPU_WORKER_LOAD_GGUF_FAMILY_H
#define LLMD_GPU_WORKER_LOAD_GGUF_FAMILY_H

#include "common/gguf.h"

enum { GGUF_HF_NAME_BYTES = 128 };

struct gguf_family {
    const char *name;         /* of general.architecture */
    bool sparse;              /* with experts; llama means Mixtral then */
    const char *architecture; /* of config.json */
    const char *model_type;
    const char *activation;
    /* Rows of q and k lie as rotary pairs side by side, as the tools that make these files put them for this
     * family; we turn (i, i + head_dim / 2). */
    bool paired_rows;
    const struct gguf_rename *renames; /* besides those of all families; NULL: none */
};

/* The family of a file, or of the first file of a set.  NULL and ERR_MODEL. */
const struct gguf_family *gguf_family_of(const struct gguf *g, struct err *e);

/* The HuggingFace name of a tensor; with "%u" in it for each expert when the tensor holds all of them.  False
 * when it has none: nobody asks for it. */
bool gguf_family_rename(const struct gguf_family *f, const char *name, char hf[GGUF_HF_NAME_BYTES]);

/* The way back.  Of an architecture of config.json (Mistral's models are llama's); NULL when there is none. */
const struct gguf_family *gguf_family_for(const char *architecture);

/* The GGUF name of a tensor of a HuggingFace directory; *expert: which of a tensor that holds all, or -1.  False when
 * it has none. */
bool gguf_family_name(const struct gguf_family *f, const char *hf, char name[GGUF_HF_NAME_BYTES],
                      int32_t *expert);

#endif
