/* int_avx512vnni.c - integer products with AVX-512 VNNI: 16 rows a vector, four products by one instruction. */
#define HAS_DOT     1
#define HAS_AMX     0
#define TILE_TOKENS 6
#include "gpu-worker/ops/int_vector512.h"

V vi vi_dot(vi sum, vi u, vi s)
{
    return _mm512_dpbusd_epi32(sum, u, s);
}

#include "gpu-worker/ops/int_panels.h"

const struct linear_kernel linear_i8_avx512vnni = { INPUT_I8, prepare, run_i8 };
const struct linear_kernel linear_i4_avx512vnni = { INPUT_I8, prepare, run_i4 };
const struct linear_kernel linear_i4m_avx512vnni = { INPUT_I8, prepare, run_i4m };
const struct linear_kernel linear_i5m_avx512vnni = { INPUT_I8, prepare, run_i5m };
const struct linear_kernel linear_i6_avx512vnni = { INPUT_I8, prepare, run_i6 };
