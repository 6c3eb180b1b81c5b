/* half_pages.h - a CPU stream whose KV pages hold float16 numbers, as a GPU's do.
 *
 * The CPU's own 16 bits are integers with a scale, which err less, and in other places: what a test of the GPU asks for is
 * not in them.  So the pages are float32, and what a step has written there is rounded before anyone reads it. */
#ifndef LLMD_TESTS_CUDA_HALF_PAGES_H
#define LLMD_TESTS_CUDA_HALF_PAGES_H

#include "gpu-worker/ops/half.h"
#include "gpu-worker/ops/ops.h"
#include "tests/check.h"

enum { HALF_PAGES_STREAMS = 8 };

/* The streams are the CPU's own, so what belongs to their tables is here. */
static struct half_pages {
    const struct ops_stream *stream; /* NULL: free */
    const struct ops *of;            /* the CPU's */
    struct ops table;
    struct ops_setup setup;
    const struct batch *batch;
} half_pages[HALF_PAGES_STREAMS];

static inline struct half_pages *half_pages_of(const struct ops_stream *s)
{
    for (int i = 0; i < HALF_PAGES_STREAMS; i++)
        if (half_pages[i].stream == s)
            return &half_pages[i];
    fail_msg("half_pages: %s", s ? "no such stream" : "too many streams");
    return NULL;
}

/* K and V of all heads at a position; pages as proto/kvpool_layout.h has them. */
static inline void half_pages_round(const struct half_pages *h, const struct batch_seq *q,
                                    uint32_t position, uint32_t layer)
{
    const struct ops_kv *kv = &h->setup.kv;
    uint32_t dim = h->setup.head_dim, t = position % kv->page_tokens;
    float *page = (float *)(kv->pages + q->pages[position / kv->page_tokens] * kv->page_bytes);

    for (uint32_t kind = 0; kind < 2; kind++)
        for (uint32_t head = 0; head < h->setup.n_kv_heads; head++) {
            uint64_t block =
                ((uint64_t)layer * 2 + kind) * kv->n_heads_model + kv->first_head + head;
            float *x = page + block * kv->page_tokens * dim;
            for (uint32_t d = 0; d < dim; d++) {
                size_t i = kind == 0 ? (size_t)d * kv->page_tokens + t : (size_t)t * dim + d;
                x[i] = f16_to_float(float_to_f16(x[i]));
            }
        }
}

static inline void half_pages_write(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                                    uint32_t layer)
{
    struct half_pages *h = half_pages_of(s);

    h->of->rope_kv_write(s, qkv, norm, layer);
    for (uint32_t i = 0; i < h->batch->n_seqs; i++) {
        const struct batch_seq *q = &h->batch->seqs[i];
        for (uint32_t t = 0; t < q->n_rows; t++)
            half_pages_round(h, q, q->start + t, layer);
    }
}

static inline bool half_pages_begin(struct ops_stream *s, const struct batch *b,
                                    struct ops_step *step)
{
    struct half_pages *h = half_pages_of(s);

    h->batch = b;
    return h->of->begin(s, b, step);
}

static inline void half_pages_close(struct ops_stream *s)
{
    struct half_pages *h = half_pages_of(s);

    h->stream = NULL;
    h->of->close(s);
}

/* The table for a stream with pages in float32 that `of` has just opened. */
static inline const struct ops *half_pages_open(const struct ops *of, const struct ops_setup *setup,
                                                const struct ops_stream *stream)
{
    struct half_pages *h = half_pages_of(NULL);

    assert_int_equal(setup->kv.dtype, DTYPE_F32);
    *h = (struct half_pages){ stream, of, *of, *setup, NULL };
    h->table.begin = half_pages_begin;
    h->table.rope_kv_write = half_pages_write;
    h->table.close = half_pages_close;
    return &h->table;
}

#endif
