/* int_avxvnni.c - integer products with AVX-VNNI: 8 rows a vector, four products by one instruction. */
#define HAS_DOT     1
#define HAS_AMX     0
#define TILE_TOKENS 6
#include "gpu-worker/ops/int_vector256.h"

V vi vi_dot(vi sum, vi u, vi s)
{
    return _mm256_dpbusd_avx_epi32(sum, u, s);
}

#include "gpu-worker/ops/int_panels.h"

const struct linear_kernel linear_i8_avxvnni = { INPUT_I8, prepare, run_i8 };
const struct linear_kernel linear_i4_avxvnni = { INPUT_I8, prepare, run_i4 };
const struct linear_kernel linear_i4m_avxvnni = { INPUT_I8, prepare, run_i4m };
const struct linear_kernel linear_i5m_avxvnni = { INPUT_I8, prepare, run_i5m };
const struct linear_kernel linear_i6_avxvnni = { INPUT_I8, prepare, run_i6 };
