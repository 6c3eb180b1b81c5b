/* test_kernels.cu - kernels that try every word of port.h, and some that are wrong on purpose. */
#include "tests/cuda/shim/test_kernels.h"

#include "gpu-worker/cuda/kernels/port.h"

KERNEL(test_words, struct test_words_args, TEST_THREADS)
{
    KSHARED(uint32_t, counts, [2]);
    KSHARED(uint32_t, untouched, [4]);
    KSHARED_DYN(uint32_t, dynamic);
    uint32_t i = threadIdx.x, lane = k_lane();
    uint32_t *out = a.out + i;

    if (i < 2)
        counts[i] = 0;
    dynamic[i] = 100 + i;
    k_sync();
    out[WORD_SHFL * TEST_THREADS] = k_shfl(i, 3, 8);
    out[WORD_SHFL_XOR * TEST_THREADS] = k_shfl_xor(i, 9);
    out[WORD_SHFL_UP * TEST_THREADS] = k_shfl_up(i, 2, 16);
    out[WORD_SHFL_DOWN * TEST_THREADS] = k_shfl_down(i, 5);
    uint64_t wide = k_shfl((uint64_t)i << 32 | 1000, 7);
    out[WORD_SHFL_64 * TEST_THREADS] = (uint32_t)(wide >> 32) + (uint32_t)wide;
    out[WORD_BALLOT * TEST_THREADS] = k_ballot(lane % 5 == 0);
    out[WORD_ANY * TEST_THREADS] = k_any(lane == 31);
    out[WORD_ALL * TEST_THREADS] = k_all(lane != 31);
    out[WORD_SYNC_OR * TEST_THREADS] = k_sync_or(i == TEST_THREADS - 1);
    out[WORD_SYNC_COUNT * TEST_THREADS] = k_sync_count(i % 3 == 0);
    k_atomic_add(&counts[0], 1u);
    k_atomic_max(&counts[1], i);
    k_sync();
    out[WORD_ATOMIC_ADD * TEST_THREADS] = counts[0];
    out[WORD_ATOMIC_MAX * TEST_THREADS] = counts[1];
    out[WORD_NEIGHBOUR * TEST_THREADS] = dynamic[(i + 33) % TEST_THREADS];
    out[WORD_LOP3 * TEST_THREADS] = k_lop3<0xea>(i, 0x0f, 0x100); /* (a & b) | c */
    out[WORD_BYTES * TEST_THREADS] = k_byte_permute(0x03020100, 0x07060504, 0x7053);
    out[WORD_DP4A * TEST_THREADS] = (uint32_t)k_dp4a(0xff02fe01, 0x01010180, 10);
    out[WORD_UNDEFINED * TEST_THREADS] = untouched[i % 4];
}

KERNEL(test_numbers, struct test_numbers_args, TEST_THREADS)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

    if (i >= a.n)
        return;
    a.f16[i] = k_f32_to_f16(a.x[i]);
    a.bf16[i] = k_f32_to_bf16(a.x[i]);
    a.e4m3[i] = k_f32_to_e4m3(a.x[i]);
}

KERNEL(test_e4m3, struct test_e4m3_args, TEST_THREADS)
{
    for (uint32_t i = threadIdx.x; i < 256; i += TEST_THREADS) {
        a.wide[i] = k_e4m3_to_f32((uint8_t)i);
        a.halves[i] = (uint16_t)(k_e4m3x2_to_f16x2((uint16_t)(i << 8)) >> 16);
    }
}

KERNEL(test_halves, struct test_halves_args, TEST_THREADS)
{
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;

    if (i >= a.n)
        return;
    a.fma[i] = k_f16x2_fma(a.a[i], a.b[i], a.c[i]);
    a.add[i] = k_f16x2_add(a.a[i], a.b[i]);
    a.sub[i] = k_f16x2_sub(a.a[i], a.b[i]);
    a.mul[i] = k_f16x2_mul(a.a[i], a.b[i]);
}

/* Rows of 16 and 8 numbers, padded so that a row begins at a multiple of 16 bytes and no two alike. */
KERNEL(test_mma, struct test_mma_args, 32)
{
    KSHARED(uint16_t, sa, [16][24]);
    KSHARED(uint16_t, sb, [16][24]);
    uint32_t lane = k_lane(), g = lane / 4, t = lane % 4;
    uint32_t b_cols = a.b_is_transposed ? 16 : 8;
    uint32_t fa[4], fb[2];
    float d[4];

    for (uint32_t i = lane; i < 16 * 16; i += 32)
        sa[i / 16][i % 16] = a.a[i];
    for (uint32_t i = lane; i < 16 * 8; i += 32)
        sb[i / b_cols][i % b_cols] = a.b[i];
    k_syncwarp();
    k_ldmatrix_x4(fa, &sa[lane % 16][lane / 16 * 8]);
    if (a.b_is_transposed)
        k_ldmatrix_x2(fb, &sb[lane % 8][lane / 8 % 2 * 8]);
    else
        k_ldmatrix_x2_trans(fb, &sb[lane % 16][0]);
    for (uint32_t i = 0; i < 4; i++)
        d[i] = a.d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    if (a.is_bf16)
        k_mma_m16n8k16_bf16(d, fa, fb);
    else
        k_mma_m16n8k16_f16(d, fa, fb);
    for (uint32_t i = 0; i < 4; i++)
        a.d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = d[i];
}

/* y[i] = x[i + 1] + x[i + 2], by way of shared memory, twice the same buffer. */
KERNEL(test_fault, struct test_fault_args, TEST_THREADS)
{
    KSHARED(float, held, [TEST_THREADS]);
    KSHARED(float, copied, [TEST_THREADS]);
    uint32_t i = threadIdx.x, next = (i + 1) % TEST_THREADS;

    held[i] = a.x[i];
    if (a.fault != FAULT_NO_BARRIER)
        k_sync();
    float sum = held[next];
    k_sync();
    if (i < TEST_THREADS / 4)
        k_cp_async16(&copied[4 * i], a.x + 4 * i);
    k_cp_async_commit();
    if (a.fault != FAULT_NO_WAIT)
        k_cp_async_wait<0>();
    if (a.fault != FAULT_NO_BARRIER_AFTER_WAIT)
        k_sync();
    if (a.fault == FAULT_EARLY_COPY && i == TEST_THREADS - 1)
        k_cp_async16(&copied[0], a.x); /* the same numbers, but when? */
    sum += copied[(i + 2) % TEST_THREADS];
    if (a.fault == FAULT_BARRIER_APART) {
        if (k_warp() == 0)
            k_sync();
        else
            k_sync();
    }
    if (a.fault == FAULT_LANES_APART) {
        if (k_lane() == 5)
            sum += (float)k_any(true);
        else
            sum += k_shfl(sum, 0);
    }
    if (a.fault == FAULT_LANE_RETURNED) {
        if (k_lane() == 5)
            return;
        sum += k_shfl(sum, 0);
    }
    if (a.fault == FAULT_DEADLOCK) {
        if (k_lane() == 5)
            k_sync();
        else
            sum += k_shfl(sum, 0);
    }
    if (a.fault == FAULT_MISALIGNED)
        sum += k_load4f(a.x + 1).v[0];
    if (a.fault == FAULT_NO_DYNAMIC) {
        KSHARED_DYN(float, dynamic);
        sum += dynamic[0];
    }
    if (a.fault == FAULT_BEYOND_SHARED)
        sum += held[i + 1];
    a.y[i] = sum;
}

KERNEL(test_ring, struct test_ring_args, 32)
{
    uint32_t i = a.backwards ? gridDim.x - 1 - blockIdx.x : blockIdx.x;

    while (k_load_acquire_system(a.flags + i) == 0)
        k_pause();
    k_syncwarp();
    if (k_lane() == 0) {
        *a.order = *a.order * 10 + i + 1;
        k_store_release_system(a.flags + i + 1, 1);
    }
}
