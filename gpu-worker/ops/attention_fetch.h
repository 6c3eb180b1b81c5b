/* attention_fetch.h - K and V asked from memory a line at a time, beside the arithmetic on what came before.
 *
 * In a page K and V of one head are a few KiB, and the next ones lie in another page, or with another head: no
 * hardware follows that.  A burst of prefetches for what comes next makes few rows wait twice: a core has
 * room for some tens of lines, so it waits to ask for the rest, and then computes while memory is idle.  A
 * line beside each line that is used keeps both busy. */
#ifndef LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H
#define LLMD_GPU_WORKER_OPS_ATTENTION_FETCH_H

#include "gpu-worker/ops/cpu_kernels.h"
#include "proto/dtype.h"

enum { FETCH_LINE_BYTES = 64 };

#define FETCH_INLINE static inline __attribute__((always_inline))

/* K or V of positions begin .. end - 1: in each page some runs of bytes, `stride` apart. */
struct attention_lines {
    const char *at, *run_end; /* the next line */
    size_t step;              /* to the one after it; 0: all were asked for */
    const struct attention_job *j;
    bool is_v;
    uint32_t begin, end; /* positions of the pages to come */
    const char *run;
    size_t run_bytes, stride;
    uint32_t n_runs; /* left in this page */
};

FETCH_INLINE void attention_lines_stop(struct attention_lines *l)
{
    l->step = 0;
    l->run_end = (const char *)UINTPTR_MAX;
}

/* Tokens t .. t + n - 1 of a block: K is [head_dim][page_tokens], V [page_tokens][head_dim], int8 behind its
 * scales, which come with the page's first token. */
FETCH_INLINE void attention_lines_block(struct attention_lines *l, const char *block, uint32_t t,
                                        uint32_t n)
{
    const struct attention_job *j = l->j;
    size_t size = dtype_bytes(j->dtype, 1), row = (l->is_v ? j->head_dim : j->page_tokens) * size;
    size_t codes = j->dtype == DTYPE_I8 ? j->page_tokens * sizeof(float) : 0;

    l->n_runs = 1;
    if (l->is_v) {
        l->run = block + (t > 0 ? codes + t * row : 0);
        l->run_bytes = n * row + (t > 0 ? 0 : codes);
    } else if (row <= FETCH_LINE_BYTES) {
        l->run = block;
        l->run_bytes = codes + j->head_dim * row;
    } else {
        l->n_runs = j->head_dim;
        l->run = block + codes + t * size;
        l->run_bytes = n * size;
        l->stride = row;
    }
}

FETCH_INLINE void attention_lines_page(struct attention_lines *l)
{
    const struct attention_job *j = l->j;
    uint32_t t = l->begin % j->page_tokens, left = j->page_tokens - t, n = l->end - l->begin;
    const char *page = j->pages + j->page_table[l->begin / j->page_tokens] * j->page_bytes;

    n = n < left ? n : left;
    l->begin += n;
    attention_lines_block(l, page + (l->is_v ? j->v_offset : j->k_offset), t, n);
}

FETCH_INLINE void attention_lines_run(struct attention_lines *l)
{
    l->at = l->run;
    l->run_end = l->run + l->run_bytes;
}

/* None: `at`, which lies in the cache, is asked for again and again. */
FETCH_INLINE struct attention_lines attention_lines_none(const void *at)
{
    struct attention_lines l = { .at = at };

    attention_lines_stop(&l);
    return l;
}

/* K or V of n positions from `begin` on, as far as anyone sees them. */
FETCH_INLINE struct attention_lines attention_lines_of(const struct attention_job *j, bool is_v,
                                                       uint32_t begin, uint32_t n)
{
    uint32_t end = n < j->end_of_all - begin ? begin + n : j->end_of_all;
    struct attention_lines l = { .j = j, .is_v = is_v, .begin = begin, .end = end };

    if (begin >= j->end_of_all)
        return attention_lines_none(j);
    l.step = FETCH_LINE_BYTES;
    attention_lines_page(&l);
    attention_lines_run(&l);
    return l;
}

FETCH_INLINE void attention_fetch_line(struct attention_lines *l)
{
    __builtin_prefetch(l->at);
    l->at += l->step;
    if (l->at < l->run_end)
        return;
    if (--l->n_runs > 0) {
        l->run += l->stride;
    } else if (l->begin < l->end) {
        attention_lines_page(l);
    } else {
        l->at -= l->step; /* the last one again, not what lies behind it */
        attention_lines_stop(l);
        return;
    }
    attention_lines_run(l);
}

#undef FETCH_INLINE

#endif
