/* kv_scales.c - see kv_scales.h. */
#include "gpu-worker/load/kv_scales.h"

#include <math.h>
#include <stdio.h>

enum { NAMES = 5, HEADS_MAX = 1 << 16 };

static const char *const k_names[NAMES] = { "k_scale", "attn.k_scale", "k_proj.k_scale",
                                            "qkv_proj.k_scale", "k_proj.output_scale" };
static const char *const v_names[NAMES] = { "v_scale", "attn.v_scale", "v_proj.v_scale",
                                            "qkv_proj.v_scale", "v_proj.output_scale" };

static const struct tensor *find(const struct tensors *ts, uint32_t layer, const char *name)
{
    char whole[96];

    snprintf(whole, sizeof whole, "model.layers.%u.self_attn.%s", layer, name);
    return tensors_find(ts, whole);
}

static const struct tensor *find_any(const struct tensors *ts, uint32_t layer,
                                     const char *const names[NAMES])
{
    const struct tensor *t = NULL;

    for (int i = 0; i < NAMES && !t; i++)
        t = find(ts, layer, names[i]);
    return t ? t : find(ts, layer, "kv_scale");
}

static uint64_t elements_of(const struct tensor *t)
{
    uint64_t n = 1;

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

/* The largest of its numbers. */
static bool read_scale(const struct tensor *t, float *out, struct err *e)
{
    uint64_t n = elements_of(t);
    float largest = 0;

    if (t->type != TENSOR_F32 && t->type != TENSOR_F16 && t->type != TENSOR_BF16)
        return err_set(e, ERR_MODEL, 0, "tensor '%.80s' is %s, F16, BF16 or F32 is read", t->name,
                       t->type_text);
    if (n < 1 || n > HEADS_MAX)
        return err_set(e, ERR_MODEL, 0,
                       "tensor '%.80s' has %llu numbers, wanted is a scale, or one for each head",
                       t->name, (unsigned long long)n);
    for (uint64_t i = 0; i < n; i++) {
        float one;
        tensor_type_to_float(t->type, &one, (const char *)t->data + tensor_type_bytes(t->type, i),
                             1);
        if (!(one > 0) || isinf(one) || isinf(1 / one))
            return err_set(e, ERR_MODEL, 0, "tensor '%.80s' says %g, a scale is a positive number",
                           t->name, (double)one);
        largest = one > largest ? one : largest;
    }
    *out = largest;
    return true;
}

bool kv_scales_read(struct kv_scale *scales, uint32_t n_layers, const struct tensors *ts,
                    uint32_t *n_found, struct err *e)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < n_layers; i++) {
        const struct tensor *k = find_any(ts, i, k_names), *v = find_any(ts, i, v_names);
        struct kv_scale *s = &scales[i];
        *s = (struct kv_scale){ 1, 1 };
        if (!k && !v)
            continue;
        n++;
        if (!read_scale(k ? k : v, &s->k, e) || !read_scale(v ? v : k, &s->v, e))
            return false;
    }
    *n_found = n;
    return true;
}
