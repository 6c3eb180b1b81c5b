/* fragments.h - for kernels: weights and rows of x as operands of mma.m16n8k16, out of shared memory.
 *
 * The weights are the operand of 16 rows and x that of 8 columns, since there are always many output rows and
 * sometimes few rows of x.  Columns are permuted as cuda_packing.h says: lane 4g + t has columns 16t .. 16t+15 of
 * its rows, four for each of the superblock's four steps.  So of plain rows and of x a lane reads 32 bytes in a
 * piece, without ldmatrix; rows of GEMM_X_BYTES, 16 more than they need, let the lanes meet no bank twice.
 *
 * Integers become f16 in registers: code times scale, plus the minimum, rounded once.  E4M3 becomes f16 exactly, without
 * its scale. */
#ifndef LLMD_CUDA_KERNELS_FRAGMENTS_H
#define LLMD_CUDA_KERNELS_FRAGMENTS_H

#include "gpu-worker/cuda/kernels/gemm.h"
#include "gpu-worker/cuda/kernels/packed.h"

enum { FRAGMENT_STEPS = 4 };

/* Of one panel of 16 rows, and of eight rows of x, by 64 columns. */
struct fragments {
    uint32_t a[FRAGMENT_STEPS][4];
};
struct fragments_x {
    uint32_t b[FRAGMENT_STEPS][2];
};

/* Four pairs of neighbouring columns of row g + 8 * half: those of steps 2i and 2i + 1. */
KDEV void put_pairs(fragments &f, uint32_t i, uint32_t half, const uint32_t pairs[4])
{
    f.a[2 * i][half] = pairs[0];
    f.a[2 * i][half + 2] = pairs[1];
    f.a[2 * i + 1][half] = pairs[2];
    f.a[2 * i + 1][half + 2] = pairs[3];
}

/* ---- integers ---- */

/* Two 4-bit codes in the lowest bits of the halves of a word, that then count ones above 1024; of those four bits
 * higher, which count sixteens, a sixteenth. */
KDEV uint32_t low_pair(uint32_t word, uint32_t less)
{
    return k_f16x2_sub(k_lop3<0xea>(word, 0x000f000f, 0x64006400), less);
}

KDEV uint32_t high_pair(uint32_t word, uint32_t less)
{
    return k_f16x2_fma(k_lop3<0xea>(word, 0x00f000f0, 0x64006400), 0x2c002c00, less);
}

/* The codes of eight columns as f16, exact. */
template <int FORMAT> KDEV void pairs_of_halves(uint32_t pairs[4], uint32_t word)
{
    /* 1032 or 1024; -(1024 / 16 + 8) or -(1024 / 16) */
    const uint32_t LOW = FORMAT == GEMV_I4 ? 0x64086408 : 0x64006400;
    const uint32_t HIGH = FORMAT == GEMV_I4 ? 0xd480d480 : 0xd400d400;

    pairs[0] = low_pair(word, LOW);
    pairs[1] = high_pair(word, HIGH);
    pairs[2] = low_pair(word >> 8, LOW);
    pairs[3] = high_pair(word >> 8, HIGH);
}

/* Bytes of two words, likewise: in the lowest bits of 1024, less 1024 + 128. */
KDEV void pairs_of_bytes(uint32_t pairs[4], uint32_t first, uint32_t second)
{
    const uint32_t ONE = 0x64646464, LESS = 0x64806480;

    pairs[0] = k_f16x2_sub(k_byte_permute(first, ONE, 0x4140), LESS);
    pairs[1] = k_f16x2_sub(k_byte_permute(first, ONE, 0x4342), LESS);
    pairs[2] = k_f16x2_sub(k_byte_permute(second, ONE, 0x4140), LESS);
    pairs[3] = k_f16x2_sub(k_byte_permute(second, ONE, 0x4342), LESS);
}

/* Half of a pair, twice. */
KDEV uint32_t twice(uint32_t pair, uint32_t half)
{
    return k_byte_permute(pair, pair, half ? 0x3232 : 0x1010);
}

/* A panel of I8, I4 or I4M.
 *   codes    [packed<FORMAT>::CODES] of the superblock, in the order of cuda_packing.h
 *   numbers  [packed<FORMAT>::NUMBERS] */
template <int FORMAT> KDEV fragments packed_fragments(const uint8_t *codes, const uint8_t *numbers)
{
    const uint32_t *number = (const uint32_t *)(numbers + packed_numbers_place<FORMAT>(0));
    uint32_t scales = number[0], mins = FORMAT == GEMV_I4M ? number[1] : 0;
    k_u32x4 words[packed<FORMAT>::PIECES];
    fragments f;

    KUNROLL
    for (uint32_t i = 0; i < packed<FORMAT>::PIECES; i++)
        words[i] = k_load16(codes + i * 512 + k_lane() * 16);
    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        uint32_t scale = twice(scales, half), min = twice(mins, half);
        KUNROLL
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t pairs[4];
            if constexpr (FORMAT == GEMV_I8)
                pairs_of_bytes(pairs, words[half].v[2 * i], words[half].v[2 * i + 1]);
            else
                pairs_of_halves<FORMAT>(pairs, words[0].v[2 * half + i]);
            KUNROLL
            for (uint32_t j = 0; j < 4; j++)
                pairs[j] = FORMAT == GEMV_I4M ? k_f16x2_fma(pairs[j], scale, min)
                                              : k_f16x2_mul(pairs[j], scale);
            put_pairs(f, i, half, pairs);
        }
    }
    return f;
}

/* ---- 16-bit floats ---- */

/* 16 rows of GEMM_X_BYTES. */
KDEV fragments plain_fragments(const uint8_t *rows)
{
    const uint8_t *from = rows + k_lane() / 4 * GEMM_X_BYTES + k_lane() % 4 * 32;
    fragments f;

    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        KUNROLL
        for (uint32_t i = 0; i < 2; i++) {
            k_u32x4 eight = k_load16(from + half * 8 * GEMM_X_BYTES + i * 16);
            put_pairs(f, i, half, eight.v);
        }
    }
    return f;
}

/* ---- E4M3 ---- */

/* 16 rows of 64 codes: eight lanes read 128 bytes in a row. */
KDEV fragments e4m3_fragments(const uint8_t *rows)
{
    fragments f;

    KUNROLL
    for (uint32_t half = 0; half < 2; half++) {
        k_u32x4 codes = k_load16(rows + (k_lane() / 4 + half * 8) * 64 + k_lane() % 4 * 16);
        KUNROLL
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t pairs[4];
            KUNROLL
            for (uint32_t j = 0; j < 4; j++)
                pairs[j] = k_e4m3x2_to_f16x2((uint16_t)(codes.v[2 * i + j / 2] >> 16 * (j % 2)));
            put_pairs(f, i, half, pairs);
        }
    }
    return f;
}

/* Eight rows of GEMM_X_BYTES. */
KDEV fragments_x x_fragments(const uint8_t *rows)
{
    const uint8_t *from = rows + k_lane() / 4 * GEMM_X_BYTES + k_lane() % 4 * 32;
    fragments_x x;

    KUNROLL
    for (uint32_t i = 0; i < 2; i++) {
        k_u32x4 eight = k_load16(from + i * 16);
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            x.b[2 * i + j / 2][j % 2] = eight.v[j];
    }
    return x;
}

#endif
