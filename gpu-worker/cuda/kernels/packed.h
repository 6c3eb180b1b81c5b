/* packed.h - for kernels: weights of I8, I4, I4M and E4M3 as a warp reads them (cuda_packing.h).
 *
 * Of panels, lane 4g + t has columns 16t .. 16t+15 of rows g and g+8 of a superblock of 16 rows by 64 columns. */
#ifndef LLMD_CUDA_KERNELS_PACKED_H
#define LLMD_CUDA_KERNELS_PACKED_H

#include "gpu-worker/cuda/kernels/gemv.h"
#include "gpu-worker/cuda/kernels/port.h"

/* Four E4M3 of a word, exactly. */
KDEV void e4m3_widen(float w[4], uint32_t word)
{
    KUNROLL
    for (uint32_t i = 0; i < 2; i++) {
        uint32_t pair = k_e4m3x2_to_f16x2((uint16_t)(word >> 16 * i));
        w[2 * i] = k_f16_low(pair);
        w[2 * i + 1] = k_f16_high(pair);
    }
}

template <int FORMAT> struct packed {
    static const uint32_t PIECES =
        FORMAT == GEMV_I8 ? 2 : 1; /* of 16 bytes a lane and superblock */
    static const uint32_t CODES = 512 * PIECES, NUMBERS = FORMAT == GEMV_I4M ? 128 : 64; /* bytes */
    static const int OFFSET = FORMAT == GEMV_I8 ? 128 : FORMAT == GEMV_I4 ? 8 : 0; /* of a code */
};

KDEV uint32_t packed_superblocks(uint32_t cols)
{
    return (cols + 63) / 64;
}

template <int FORMAT> KDEV uint64_t packed_panel_bytes(uint32_t cols)
{
    return (uint64_t)packed_superblocks(cols) * (packed<FORMAT>::CODES + packed<FORMAT>::NUMBERS);
}

/* f16 pairs: of row g, of row g + 8. */
struct packed_numbers {
    uint32_t scale, min; /* min: 0 but of I4M */
};

/* Where the lane's numbers of superblock `at` are, from the panel's first number on. */
template <int FORMAT> KDEV uint32_t packed_numbers_place(uint32_t at)
{
    uint32_t i = k_lane() % 4 / 2 * 8 + k_lane() / 4;

    return at * packed<FORMAT>::NUMBERS + i * (packed<FORMAT>::NUMBERS / 16);
}

/* The lane's numbers, of weights in global memory. */
template <int FORMAT> KDEV packed_numbers packed_numbers_of(const uint8_t *numbers, uint32_t at)
{
    const uint8_t *from = numbers + packed_numbers_place<FORMAT>(at);

    if (FORMAT == GEMV_I4M) {
        k_u32x2 both = k_ldg8(from);
        return { both.v[0], both.v[1] };
    }
    return { k_ldg_u32((const uint32_t *)from), 0 };
}

/* Byte i of a word as a float, less `offset`: in the lowest bits of 2^23 a byte counts ones. */
KDEV float packed_byte(uint32_t word, uint32_t i, int offset)
{
    return k_bits_f32(k_byte_permute(word, 0x4b000000, 0x7440 | i)) - (float)(8388608 + offset);
}

/* Eight codes of a word of half bytes, in the order of their columns. */
KDEV void packed_widen_halves(float w[8], uint32_t word, int offset)
{
    uint32_t low = word & 0x0f0f0f0f, high = word >> 4 & 0x0f0f0f0f;

    KUNROLL
    for (uint32_t i = 0; i < 2; i++) { /* pairs of columns 4i, 4i+1 and 4i+2, 4i+3 */
        w[4 * i] = packed_byte(low, i, offset);
        w[4 * i + 1] = packed_byte(low, i + 2, offset);
        w[4 * i + 2] = packed_byte(high, i, offset);
        w[4 * i + 3] = packed_byte(high, i + 2, offset);
    }
}

/* The lane's 16 codes of row g (half 0) or g + 8 (half 1): pieces are what it loaded of the superblock. */
template <int FORMAT> KDEV void packed_widen(float w[16], const k_u32x4 *pieces, uint32_t half)
{
    if (FORMAT == GEMV_I8) {
        KUNROLL
        for (uint32_t k = 0; k < 16; k++)
            w[k] = packed_byte(pieces[half].v[k / 4], k % 4, packed<FORMAT>::OFFSET);
    } else {
        KUNROLL
        for (uint32_t i = 0; i < 2; i++)
            packed_widen_halves(w + 8 * i, pieces[0].v[2 * half + i], packed<FORMAT>::OFFSET);
    }
}

#endif
