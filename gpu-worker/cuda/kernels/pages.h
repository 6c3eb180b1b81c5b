/* pages.h - arguments of pages.cu: whole pages copied, and sums over them that tell whether they are intact.
 *
 * The sum of a run of bytes is the sum modulo 2^64 over its 8-byte words of mix(word, index): addition has no
 * order, so it is the same for any grid and on the host, and since mix() is a bijection of the word for
 * each index, any change of one word changes it.  It tells damage, not malice. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_PAGES_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_PAGES_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"

/* The finaliser of SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195) of a word and its place. */
KBOTH uint64_t page_mix(uint64_t word, uint64_t index)
{
    uint64_t z = word + (index + 1) * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* On the host.  n is in words. */
KBOTH uint64_t page_sum(const uint64_t *words, uint64_t n)
{
    uint64_t sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += page_mix(words[i], i);
    return sum;
}

enum { PAGES_THREADS = 256, PAGES_BYTES_A_BLOCK = 64 << 10 };

/* Blocks that share the work of one page: grid (this, n). */
KBOTH uint32_t pages_grid_x(uint64_t page_bytes)
{
    return (uint32_t)((page_bytes + PAGES_BYTES_A_BLOCK - 1) / PAGES_BYTES_A_BLOCK);
}

/* page_copy: page to[i] of one pool becomes page from[i] of another, or of the same; no page is both.
 * Bound by memory. */
struct page_copy_args {
    char *to_pages;
    const char *from_pages;
    uint64_t page_bytes;  /* a multiple of 16; of both pools */
    const uint32_t *to;   /* [n] */
    const uint32_t *from; /* [n] */
};

/* page_checksum: sums[i] += page_sum() of page pages[i]; so the host clears sums first.  Of memory that is no
 * pool (a chunk of weights): pages 0, 1, .. of any page_bytes, where pages is NULL. */
struct page_checksum_args {
    uint64_t *sums; /* [n] */
    const char *pool;
    uint64_t page_bytes;   /* a multiple of 16 */
    const uint32_t *pages; /* [n], or NULL */
};

#endif
