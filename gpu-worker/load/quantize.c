/* quantize.c - see quantize.h. */
#include "gpu-worker/load/quantize.h"

#include <string.h>

enum quantize quantize_of(const char *setting)
{
    if (strcmp(setting, "int8") == 0)
        return QUANTIZE_INT8;
    if (strcmp(setting, "fp8") == 0)
        return QUANTIZE_FP8;
    return strcmp(setting, "int4") == 0 ? QUANTIZE_INT4 : QUANTIZE_NONE;
}

bool quantize_check(const char *setting, const struct quantization *q, struct err *e)
{
    static const enum quantization_method read[] = { QUANTIZATION_AWQ, QUANTIZATION_GPTQ,
                                                     QUANTIZATION_COMPRESSED_TENSORS };
    bool marlin = strcmp(setting, "marlin") == 0, asked = marlin, has = false;

    for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
        bool named = strcmp(setting, quantization_name(read[i])) == 0;
        asked |= named;
        has |= q->method == read[i] && (named || (marlin && i < 2));
    }
    if (!asked || has)
        return true;
    if (q->method == QUANTIZATION_NONE)
        return err_set(e, ERR_CONFIG, 0,
                       "quantize is %s, and the model is no such checkpoint: leave it out, or "
                       "take int8 or int4",
                       setting);
    return err_set(e, ERR_CONFIG, 0, "quantize is %s, and the model's weights are %s: leave it out",
                   setting, quantization_name(q->method));
}

/* The layout that holds the type's codes in the fewest bytes. */
static enum dtype exact_dtype(enum tensor_type from)
{
    static const enum dtype exact[N_TENSOR_TYPES] = {
        [TENSOR_Q8_0] = DTYPE_I8,  [TENSOR_IQ4_NL] = DTYPE_I8,     [TENSOR_Q4_0] = DTYPE_I4,
        [TENSOR_Q4_1] = DTYPE_I4M, [TENSOR_Q4_K] = DTYPE_I4M,      [TENSOR_Q5_0] = DTYPE_I5M,
        [TENSOR_Q5_1] = DTYPE_I5M, [TENSOR_Q5_K] = DTYPE_I5M,      [TENSOR_Q3_K] = DTYPE_I6,
        [TENSOR_Q6_K] = DTYPE_I6,  [TENSOR_INT4] = DTYPE_I4,       [TENSOR_INT4Z] = DTYPE_I4M,
        [TENSOR_INT8] = DTYPE_I8,  [TENSOR_FP8_ROWS] = DTYPE_E4M3,
    };

    return exact[from];
}

/* No layout holds its codes (of FP8_ROWS: everywhere); eight bits are off by a fraction of the error that they have
 * already. */
static bool is_rounded_again(enum tensor_type from)
{
    return from == TENSOR_Q2_K || from == TENSOR_INT_MIXED || from == TENSOR_FP8_ROWS ||
           from == TENSOR_FP8;
}

/* Rows of a table of embeddings are int8: they are looked up, and no kernel does that with E4M3. */
static bool is_kept_as_fp8(enum quantize q, enum quantize_role role, enum tensor_type from)
{
    return from == TENSOR_FP8_ROWS && role == ROLE_MATRIX &&
           (q == QUANTIZE_NONE || q == QUANTIZE_FP8);
}

enum dtype quantize_dtype(enum quantize q, enum quantize_role role, enum tensor_type from)
{
    static const enum dtype rounded[][2] = {
        [QUANTIZE_INT8] = { [ROLE_MATRIX] = DTYPE_I8, [ROLE_EMBEDDING] = DTYPE_I8 },
        [QUANTIZE_INT4] = { [ROLE_MATRIX] = DTYPE_I4, [ROLE_EMBEDDING] = DTYPE_I8 },
        [QUANTIZE_FP8] = { [ROLE_MATRIX] = DTYPE_E4M3, [ROLE_EMBEDDING] = DTYPE_I8 },
    };

    if (is_kept_as_fp8(q, role, from))
        return DTYPE_E4M3;
    if (exact_dtype(from) != DTYPE_NONE && !is_rounded_again(from))
        return exact_dtype(from);
    if (is_rounded_again(from) && (q != QUANTIZE_INT4 || from == TENSOR_Q2_K))
        return DTYPE_I8;
    if (q != QUANTIZE_NONE)
        return rounded[q][role];
    return from == TENSOR_F32 ? DTYPE_F32 : from == TENSOR_F16 ? DTYPE_F16 : DTYPE_BF16;
}

bool quantize_keeps_codes(enum tensor_type from, enum dtype to)
{
    return to != DTYPE_NONE && to == exact_dtype(from);
}
