/* pages.cu - whole pages copied, and their sums.
 *
 * A page is cut into pieces of 64 KiB, a block each; a warp's loads are 512 bytes side by side, four in flight
 * a thread.  Bound by memory: 2 bytes moved for each byte copied, 1 for each summed.  40 GB summed are
 * 25 ms at 80 % of an A100's 2039 GB/s, and the copies of a few pages are launches, not bytes. */
#include "gpu-worker/cuda/kernels/pages.h"

#include "gpu-worker/cuda/kernels/port.h"

enum { TURN_BYTES = 16 * PAGES_THREADS, IN_FLIGHT = 4 };

/* Where the block's piece ends. */
KDEV uint64_t piece_end(uint64_t page_bytes)
{
    uint64_t end = (uint64_t)(blockIdx.x + 1) * PAGES_BYTES_A_BLOCK;

    return end < page_bytes ? end : page_bytes;
}

KDEV uint64_t piece_begin()
{
    return (uint64_t)blockIdx.x * PAGES_BYTES_A_BLOCK + 16 * threadIdx.x;
}

KERNEL(page_copy, struct page_copy_args, PAGES_THREADS)
{
    const char *from = a.from_pages + k_ldg_u32(a.from + blockIdx.y) * a.page_bytes;
    char *to = a.to_pages + k_ldg_u32(a.to + blockIdx.y) * a.page_bytes;
    uint64_t end = piece_end(a.page_bytes);

    for (uint64_t i = piece_begin(); i < end; i += IN_FLIGHT * TURN_BYTES) {
        k_u32x4 v[IN_FLIGHT];
        KUNROLL
        for (uint32_t k = 0; k < IN_FLIGHT; k++)
            if (i + k * TURN_BYTES < end)
                v[k] = k_stream16(from + i + k * TURN_BYTES);
        KUNROLL
        for (uint32_t k = 0; k < IN_FLIGHT; k++)
            if (i + k * TURN_BYTES < end)
                k_store_stream16(to + i + k * TURN_BYTES, v[k]);
    }
}

/* Two words that begin at byte `at` of the page. */
KDEV uint64_t mix16(k_u32x4 v, uint64_t at)
{
    return page_mix(v.v[0] | (uint64_t)v.v[1] << 32, at / 8) +
           page_mix(v.v[2] | (uint64_t)v.v[3] << 32, at / 8 + 1);
}

KDEV uint64_t sum_piece(const char *page, uint64_t end)
{
    uint64_t sum = 0;

    for (uint64_t i = piece_begin(); i < end; i += IN_FLIGHT * TURN_BYTES) {
        k_u32x4 v[IN_FLIGHT];
        KUNROLL
        for (uint32_t k = 0; k < IN_FLIGHT; k++)
            if (i + k * TURN_BYTES < end)
                v[k] = k_stream16(page + i + k * TURN_BYTES);
        KUNROLL
        for (uint32_t k = 0; k < IN_FLIGHT; k++)
            if (i + k * TURN_BYTES < end)
                sum += mix16(v[k], i + k * TURN_BYTES);
    }
    return sum;
}

/* Addition modulo 2^64 has no order, so an atomic does no harm here. */
KERNEL(page_checksum, struct page_checksum_args, PAGES_THREADS)
{
    uint64_t page = a.pages ? k_ldg_u32(a.pages + blockIdx.y) : blockIdx.y;
    uint64_t sum = sum_piece(a.pool + page * a.page_bytes, piece_end(a.page_bytes));

    KUNROLL
    for (uint32_t lanes = 16; lanes; lanes >>= 1)
        sum += k_shfl_xor(sum, lanes);
    if (k_lane() == 0)
        k_atomic_add(a.sums + blockIdx.y, sum);
}
