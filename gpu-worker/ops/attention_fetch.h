/* attention_fetch.h - K and V of a span of positions, asked from memory before they are needed.
 *
 * In a page K and V of one head are a few KiB, and the next ones lie in another page, or with another head: no
 * hardware follows that.  A stream's step reads each of them once, so without asking ahead it waits for every
 * line. */
#ifndef LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H
#define LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H

#include "gpu-worker/ops/cpu_kernels.h"
#include "proto/dtype.h"

enum { FETCH_LINE_BYTES = 64 };

static inline void attention_fetch_bytes(const char *from, size_t n)
{
    for (size_t at = 0; at < n; at += FETCH_LINE_BYTES)
        __builtin_prefetch(from + at);
}

/* Tokens t .. end - 1 of a page: K is [head_dim][page_tokens], V [page_tokens][head_dim], int8 behind its scales. */
static inline void attention_fetch_page(const struct attention_job *j, const char *page, uint32_t t,
                                        uint32_t end)
{
    const char *k = page + j->k_offset, *v = page + j->v_offset;
    size_t size = dtype_bytes(j->dtype, 1), row = j->page_tokens * size;

    if (j->dtype == DTYPE_I8) {
        attention_fetch_bytes(k, j->page_tokens * sizeof(float));
        attention_fetch_bytes(v, j->page_tokens * sizeof(float));
        k += j->page_tokens * sizeof(float);
        v += j->page_tokens * sizeof(float);
    }
    if (row <= FETCH_LINE_BYTES)
        attention_fetch_bytes(k, j->head_dim * row);
    else
        for (uint32_t d = 0; d < j->head_dim; d++)
            attention_fetch_bytes(k + d * row + t * size, (end - t) * size);
    attention_fetch_bytes(v + (size_t)t * j->head_dim * size,
                          (size_t)(end - t) * j->head_dim * size);
}

/* The span that position `at` begins, as far as the job sees it. */
static inline void attention_fetch_span(const struct attention_job *j, uint32_t at)
{
    uint32_t end = j->end - at < ATTENTION_SPAN ? j->end : at + ATTENTION_SPAN;

    while (at < end) {
        uint32_t t = at % j->page_tokens, left = end - at;
        uint32_t page_end = left < j->page_tokens - t ? t + left : j->page_tokens;
        attention_fetch_page(j, j->pages + j->page_table[at / j->page_tokens] * j->page_bytes, t,
                             page_end);
        at += page_end - t;
    }
}

#endif
