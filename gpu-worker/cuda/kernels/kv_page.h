/* kv_page.h - how a page of the KV pool lies in a GPU's memory.
 *
 *   page   [n_layers][2 = K,V][n_heads] tiles; the heads are those of this rank
 *   tile   [page_tokens][head_dim] numbers, K and V alike, so that a token's vector is one run of bytes;
 *          of int8 float scales [page_tokens] come first, an element being scale * code
 *   pool   page p is at p * page_bytes
 *
 * Tiles are multiples of 16 bytes: page_tokens is a multiple of 4 and head_dim of 16.
 *
 * Version.  Pages outlive workers: any change of where or how a number lies is a new CUDA_KV_PAGE_VERSION (ops_cuda.h),
 * so that pages of the other kind are not taken over. */
#ifndef LLMD_GPU_WORKER_CUDA_KERNELS_KV_PAGE_H
#define LLMD_GPU_WORKER_CUDA_KERNELS_KV_PAGE_H

#include <stdint.h>

#include "gpu-worker/cuda/kernels/both.h"

enum kv_format {
    KV_F32,
    KV_F16,
    KV_I8,
    KV_E4M3, /* 8-bit floats of 4 bits of exponent, at most 448 (Micikevicius et al. 2022, arXiv:2209.05433) */
    N_KV_FORMATS
};

struct kv_place {
    char *pages; /* of the pool, 16-byte aligned */
    uint64_t page_bytes;
    uint32_t n_heads; /* KV heads of this rank */
    uint32_t head_dim;
    uint32_t page_tokens;
    uint32_t format; /* enum kv_format */
};

/* Of an element, scales apart. */
KBOTH uint32_t kv_element_bytes(uint32_t format)
{
    return format == KV_F32 ? 4 : format == KV_F16 ? 2 : 1;
}

/* Where the vectors of a tile begin. */
KBOTH uint32_t kv_scales_bytes(uint32_t format, uint32_t page_tokens)
{
    return format == KV_I8 ? page_tokens * 4 : 0;
}

KBOTH uint32_t kv_tile_bytes(uint32_t format, uint32_t page_tokens, uint32_t head_dim)
{
    return kv_scales_bytes(format, page_tokens) + page_tokens * head_dim * kv_element_bytes(format);
}

KBOTH uint64_t kv_page_bytes(uint32_t format, uint32_t page_tokens, uint32_t head_dim,
                             uint32_t n_layers, uint32_t n_heads)
{
    return (uint64_t)n_layers * 2 * n_heads * kv_tile_bytes(format, page_tokens, head_dim);
}

/* In a page: the tile of K (kind 0) or V (1). */
KBOTH uint64_t kv_tile_offset(const struct kv_place *p, uint32_t layer, uint32_t kind,
                              uint32_t head)
{
    return (((uint64_t)layer * 2 + kind) * p->n_heads + head) *
           kv_tile_bytes(p->format, p->page_tokens, p->head_dim);
}

#endif
