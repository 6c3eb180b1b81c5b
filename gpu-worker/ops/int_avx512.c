/* int_avx512.c - integer products with AVX-512 F, BW, VL and DQ: 16 rows a vector, products by pairs. */
#define HAS_DOT     0
#define HAS_AMX     0
#define TILE_TOKENS 6
#include "gpu-worker/ops/int_vector512.h"

#include "gpu-worker/ops/int_panels.h"

const struct linear_kernel linear_i8_avx512 = { INPUT_I8, prepare, run_i8 };
const struct linear_kernel linear_i4_avx512 = { INPUT_I8, prepare, run_i4 };
const struct linear_kernel linear_i4m_avx512 = { INPUT_I8, prepare, run_i4m };
const struct linear_kernel linear_i5m_avx512 = { INPUT_I8, prepare, run_i5m };
const struct linear_kernel linear_i6_avx512 = { INPUT_I8, prepare, run_i6 };
