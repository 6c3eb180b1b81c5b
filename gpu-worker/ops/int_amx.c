/* int_amx.c - integer products with AMX (int_tiles_amx.h); of few tokens, where memory is what takes the time, with
 * AVX-512 VNNI. */
#define HAS_DOT     1
#define HAS_AMX     1
#define TILE_TOKENS 16
#include "gpu-worker/ops/int_vector512.h"

V vi vi_dot(vi sum, vi u, vi s)
{
    return _mm512_dpbusd_epi32(sum, u, s);
}

#include "gpu-worker/ops/int_panels.h"

/* Prepared for the unit that multiplies: its tiles differ. */
static void prepare_input(const struct input_job *j, uint32_t begin, uint32_t end)
{
    if (j->n_tokens < TOKENS_MIN)
        linear_i8_avx512vnni.prepare(j, begin, end);
    else
        prepare(j, begin, end);
}

#define KERNEL(type)                                                                               \
    static void run_##type##_any(const struct linear_job *j, uint32_t row_begin, uint32_t row_end) \
    {                                                                                              \
        if (j->n_tokens < TOKENS_MIN)                                                              \
            linear_##type##_avx512vnni.run(j, row_begin, row_end);                                 \
        else                                                                                       \
            run_##type(j, row_begin, row_end);                                                     \
    }                                                                                              \
    const struct linear_kernel linear_##type##_amx = { INPUT_I8, prepare_input, run_##type##_any };

KERNEL(i8)
KERNEL(i4)
KERNEL(i4m)
KERNEL(i5m)
KERNEL(i6)
