/* dtype.h - number formats of weights and KV pages, as they are named in segments and messages. */
#ifndef LLMD_PROTO_DTYPE_H
#define LLMD_PROTO_DTYPE_H

#include <stddef.h>
#include <stdint.h>

enum dtype {
    DTYPE_NONE,
    DTYPE_F32,
    DTYPE_F16,
    DTYPE_BF16,
    DTYPE_I8,
    DTYPE_I4,
    DTYPE_I4M, /* with a minimum */
    DTYPE_I5M, /* with a minimum */
    DTYPE_I6,
    DTYPE_E4M3, /* 8-bit floats (Micikevicius et al. 2022, arXiv:2209.05433); on GPUs only */
    DTYPE_I16,  /* KV pages of CPUs, with a scale for each vector (kvpool_layout.h) */
    N_DTYPES
};

static inline const char *dtype_name(enum dtype t)
{
    static const char *const names[N_DTYPES] = { "none", "float32", "float16", "bfloat16",
                                                 "int8", "int4",    "int4m",   "int5m",
                                                 "int6", "fp8",     "int16" };
    return (unsigned)t < N_DTYPES ? names[t] : "?";
}

/* Bytes of n elements (int4: two a byte).  Of integers and fp8 the codes alone: scales come on top, and how much
 * a matrix takes with them is packing_bytes() (gpu-worker/ops/packing.h). */
static inline size_t dtype_bytes(enum dtype t, size_t n)
{
    static const uint8_t bits[N_DTYPES] = { 0, 32, 16, 16, 8, 4, 4, 5, 6, 8, 16 };
    return (n * bits[(unsigned)t < N_DTYPES ? t : 0] + 7) / 8;
}

#endif
