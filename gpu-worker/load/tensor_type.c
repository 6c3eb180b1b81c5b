/* tensor_type.c - see tensor_type.h. */
#include "gpu-worker/load/tensor_type.h"

#include <assert.h>
#include <string.h>

#include "gpu-worker/ops/half.h"

const char *tensor_type_name(enum tensor_type t)
{
    static const char *const names[N_TENSOR_TYPES] = { "none", "F32", "F16", "BF16" };

    return (unsigned)t < N_TENSOR_TYPES ? names[t] : "?";
}

uint32_t tensor_type_block(enum tensor_type t)
{
    (void)t;
    return 1;
}

uint64_t tensor_type_bytes(enum tensor_type t, uint64_t n)
{
    return t == TENSOR_F32 ? n * 4 : n * 2;
}

void tensor_type_to_float(enum tensor_type t, float *y, const void *x, uint64_t n)
{
    const char *from = x;

    assert(t == TENSOR_F32 || t == TENSOR_F16 || t == TENSOR_BF16);
    if (t == TENSOR_F32) {
        memcpy(y, x, n * sizeof *y);
        return;
    }
    for (uint64_t i = 0; i < n; i++) {
        uint16_t half;
        memcpy(&half, from + 2 * i, 2);
        y[i] = t == TENSOR_F16 ? f16_to_float(half) : bf16_to_float(half);
    }
}
