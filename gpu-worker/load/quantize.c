/* quantize.c - see quantize.h. */
#include "gpu-worker/load/quantize.h"

#include <string.h>

enum quantize quantize_of(const char *setting)
{
    if (strcmp(setting, "int8") == 0)
        return QUANTIZE_INT8;
    return strcmp(setting, "int4") == 0 ? QUANTIZE_INT4 : QUANTIZE_NONE;
}

/* The layout that holds the type's codes in the fewest bytes. */
static enum dtype exact_dtype(enum tensor_type from)
{
    static const enum dtype exact[N_TENSOR_TYPES] = {
        [TENSOR_Q8_0] = DTYPE_I8,  [TENSOR_IQ4_NL] = DTYPE_I8, [TENSOR_Q4_0] = DTYPE_I4,
        [TENSOR_Q4_1] = DTYPE_I4M, [TENSOR_Q4_K] = DTYPE_I4M,  [TENSOR_Q5_0] = DTYPE_I5M,
        [TENSOR_Q5_1] = DTYPE_I5M, [TENSOR_Q5_K] = DTYPE_I5M,  [TENSOR_Q3_K] = DTYPE_I6,
        [TENSOR_Q6_K] = DTYPE_I6,
    };

    return exact[from];
}

enum dtype quantize_dtype(enum quantize q, enum quantize_role role, enum tensor_type from)
{
    static const enum dtype rounded[][2] = {
        [QUANTIZE_INT8] = { [ROLE_MATRIX] = DTYPE_I8, [ROLE_EMBEDDING] = DTYPE_I8 },
        [QUANTIZE_INT4] = { [ROLE_MATRIX] = DTYPE_I4, [ROLE_EMBEDDING] = DTYPE_I8 },
    };

    if (exact_dtype(from) != DTYPE_NONE)
        return exact_dtype(from);
    if (tensor_type_block(from) > 1)
        return DTYPE_I8;
    if (q != QUANTIZE_NONE)
        return rounded[q][role];
    return from == TENSOR_F32 ? DTYPE_F32 : from == TENSOR_F16 ? DTYPE_F16 : DTYPE_BF16;
}

bool quantize_keeps_codes(enum tensor_type from, enum dtype to)
{
    return to != DTYPE_NONE && to == exact_dtype(from);
}
