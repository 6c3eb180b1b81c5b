/* shapes.c - the tables of shapes.h.
 *
 * Sizes: Llama 2 7B (Touvron et al. 2023, arXiv:2307.09288), TinyLlama 1.1B (Zhang et al. 2024,
 * arXiv:2401.02385) and the 110M model of the llama2.c project; `7b-half` has half of 7B's layers, so that two engines
 * fit a memory which holds one 7B; `tiny` is for tests.  Type numbers and block sizes: the GGUF specification
 * of the ggml project (docs/gguf.md). */
#include "bench/shapes.h"

#include <stdio.h>
#include <strings.h>

#define COUNT(a) (sizeof(a) / sizeof *(a))

static const struct shape shapes[] = {
    { "7b", 32, 4096, 11008, 32, 32, 128, 32000, 4096 },
    { "7b-half", 16, 4096, 11008, 32, 32, 128, 32000, 4096 },
    { "1.1b", 22, 2048, 5632, 32, 4, 64, 32000, 2048 },
    { "110m", 12, 768, 2048, 12, 12, 64, 32000, 1024 },
    { "tiny", 2, 256, 512, 4, 2, 64, 1024, 1024 },
};

static const struct weight_type types[] = {
    { "q4_0", 2, 2, 32, 18, 4 },
    { "q8_0", 8, 7, 32, 34, 8 },
    { "f16", 1, 1, 1, 2, 16 },
    { "bf16", 30, 32, 1, 2, 16 },
};

const struct shape *shape_find(const char *name)
{
    for (uint32_t i = 0; i < COUNT(shapes); i++)
        if (strcasecmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

const struct weight_type *weight_type_find(const char *name)
{
    for (uint32_t i = 0; i < COUNT(types); i++)
        if (strcasecmp(types[i].name, name) == 0)
            return &types[i];
    return NULL;
}

void shape_names(char *out, uint32_t n)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < COUNT(shapes) && used < n; i++)
        used += (uint32_t)snprintf(out + used, n - used, "%s%s", i ? ", " : "", shapes[i].name);
}

void weight_type_names(char *out, uint32_t n)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < COUNT(types) && used < n; i++)
        used += (uint32_t)snprintf(out + used, n - used, "%s%s", i ? ", " : "", types[i].name);
}

double shape_matrix_weights(const struct shape *s)
{
    double q = (double)s->n_heads * s->head_dim, kv = (double)s->n_kv_heads * s->head_dim;
    double layer = s->n_embd * (2 * q + 2 * kv) + 3.0 * s->n_embd * s->n_ff;

    return s->n_layers * layer + (double)s->vocab_size * s->n_embd;
}

double weight_type_bytes(const struct weight_type *t, double n_weights)
{
    return n_weights / t->block_weights * t->block_bytes;
}

double shape_kv_bytes(const struct shape *s)
{
    return 2.0 * 2.0 * s->n_layers * s->n_kv_heads * s->head_dim;
}
