/* fuzz_safetensors.c - any bytes as a safetensors file: what is taken lies inside the file, apart from
 * each other, and has the size of its shape; scales of keys and values are positive numbers. */
#include <assert.h>
#include <string.h>

#include "gpu-worker/load/kv_scales.h"
#include "gpu-worker/load/safetensors.h"

enum { LAYERS = 4 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct tensors *st, const uint8_t *data, size_t n)
{
    uint64_t total = 0;

    for (uint32_t i = 0; i < st->n_tensors; i++) {
        const struct tensor *t = &st->tensors[i];
        const uint8_t *at = t->data;
        assert(at >= data + 8 && t->bytes <= n && at + t->bytes <= data + n);
        assert(t->n_dims <= TENSORS_DIMS_MAX && strlen(t->name) <= SAFETENSORS_NAME_MAX);
        assert(tensors_find(st, t->name) == t);
        if (t->type != TENSOR_NONE) {
            uint64_t elements = 1;
            for (uint32_t k = 0; k < t->n_dims; k++)
                elements *= t->dims[k];
            assert(tensor_type_bytes(t->type, elements) == t->bytes);
        }
        total += t->bytes;
    }
    assert(total <= n); /* nothing is counted twice */
}

static void check_scales(const struct tensors *st)
{
    struct kv_scale scales[LAYERS];
    uint32_t n_found;
    struct err e;

    if (!kv_scales_read(scales, LAYERS, st, &n_found, &e)) {
        assert(e.code == ERR_MODEL);
        return;
    }
    assert(n_found <= LAYERS);
    for (int i = 0; i < LAYERS; i++)
        assert(scales[i].k > 0 && scales[i].v > 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct err e;
    struct tensors *st = safetensors_parse("fuzz", data, n, &e);

    if (st) {
        check(st, data, n);
        check_scales(st);
    } else
        assert(e.code == ERR_MODEL && memchr(e.msg, '\0', sizeof e.msg));
    tensors_close(st);
    return 0;
}
