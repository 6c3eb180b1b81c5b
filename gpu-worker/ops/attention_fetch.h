/* attention_fetch.h - K and V of a span of positions, asked from memory before they are needed.
 *
 * In a page K and V of one head are a few KiB, and the next ones lie in another page, or with another head: no
 * hardware follows that.  A stream's step reads each of them once, so without asking ahead it waits for every
 * line. */
#ifndef LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H
#define LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H

#include "gpu-worker/ops/cpu_kernels.h"
#include "proto/kvpool_layout.h"

enum { FETCH_LINE_BYTES = 64 };

static inline void attention_fetch_bytes(const char *from, size_t n)
{
    for (size_t at = 0; at < n; at += FETCH_LINE_BYTES)
        __builtin_prefetch(from + at);
}

/* Tokens t .. end - 1 of a page (proto/kvpool_layout.h). */
static inline void attention_fetch_page(const struct attention_job *j, const char *page, uint32_t t,
                                        uint32_t end)
{
    const char *k = page + j->k_offset, *v = page + j->v_offset;
    size_t scales = kv_scales_bytes(j->dtype, j->page_tokens), size = dtype_bytes(j->dtype, 1);
    size_t in_row =
        kv_has_scales(j->dtype) ? 2 : 1; /* elements of K that a token has side by side */
    size_t step = in_row * size, row = j->page_tokens * step, vector = j->head_dim * size;

    attention_fetch_bytes(k, scales);
    attention_fetch_bytes(v, scales);
    k += scales;
    v += scales;
    if (row <= FETCH_LINE_BYTES)
        attention_fetch_bytes(k, j->head_dim / in_row * row);
    else
        for (uint32_t d = 0; d < j->head_dim / in_row; d++)
            attention_fetch_bytes(k + d * row + t * step, (end - t) * step);
    attention_fetch_bytes(v + t / in_row * in_row * vector,
                          (end - t / in_row * in_row + in_row - 1) / in_row * in_row * vector);
}

/* The span that position `at` begins, up to position end - 1. */
static inline void attention_fetch_span(const struct attention_job *j, const uint32_t *page_table,
                                        uint32_t at, uint32_t end)
{
    end = end - at < ATTENTION_SPAN ? end : at + ATTENTION_SPAN;
    while (at < end) {
        uint32_t t = at % j->page_tokens, left = end - at;
        uint32_t page_end = left < j->page_tokens - t ? t + left : j->page_tokens;
        attention_fetch_page(j, j->pages + page_table[at / j->page_tokens] * j->page_bytes, t,
                             page_end);
        at += page_end - t;
    }
}

#endif
