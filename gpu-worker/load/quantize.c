/* quantize.c - see quantize.h. */
#include "gpu-worker/load/quantize.h"

#include <string.h>

enum quantize quantize_of(const char *setting)
{
    if (strcmp(setting, "int8") == 0)
        return QUANTIZE_INT8;
    return strcmp(setting, "int4") == 0 ? QUANTIZE_INT4 : QUANTIZE_NONE;
}

enum dtype quantize_dtype(enum quantize q, enum quantize_role role, enum tensor_type from)
{
    static const enum dtype rounded[][2] = {
        [QUANTIZE_INT8] = { [ROLE_MATRIX] = DTYPE_I8, [ROLE_EMBEDDING] = DTYPE_I8 },
        [QUANTIZE_INT4] = { [ROLE_MATRIX] = DTYPE_I4, [ROLE_EMBEDDING] = DTYPE_I8 },
    };

    if (from == TENSOR_Q4_0)
        return DTYPE_I4;
    if (tensor_type_block(from) > 1)
        return DTYPE_I8;
    if (q != QUANTIZE_NONE)
        return rounded[q][role];
    return from == TENSOR_F32 ? DTYPE_F32 : from == TENSOR_F16 ? DTYPE_F16 : DTYPE_BF16;
}

bool quantize_is_exact(enum tensor_type from, enum dtype to)
{
    if (to == DTYPE_I4)
        return from == TENSOR_Q4_0;
    return to == DTYPE_I8 && tensor_type_has_codes(from);
}
