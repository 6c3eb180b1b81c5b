/* attention_rig.h - sequences with KV pages, steps of attention over them on the shim, and what comes out in double
 * precision.
 *
 * A step lays the pool out afresh: what its rows' positions do not reach is NaN, as it may be on a GPU.  Every
 * buffer is an allocation of the size that the kernels are promised, so AddressSanitizer sees a step beyond it.
 * Queries belong to (sequence, position), so a row is the same in whatever batch it comes. */
#ifndef LLMD_TESTS_CUDA_ATTENTION_RIG_H
#define LLMD_TESTS_CUDA_ATTENTION_RIG_H

#include <math.h>
#include <stdio.h>

#include "common/mem.h"
#include "gpu-worker/cuda/attention_plan.h"
#include "gpu-worker/ops/half.h"
#include "tests/cuda/l1.h"
#include "tests/cuda/shim/kernel_registry.h"
#include "tests/ops/ops_rig.h"

enum { RIG_LAYERS = 2, RIG_LAYER = 1, RIG_SEQS_MAX = 8, RIG_POSITIONS = 1600 };

struct rig_shape {
    uint32_t n_heads, n_kv_heads, head_dim, page_tokens;
    enum kv_format format;
    uint32_t window;
    float softcap;
};

struct rig_seq {
    uint32_t length, n_pages;
    uint32_t *pages;  /* [n_pages] */
    float *q;         /* [length, n_heads, head_dim] */
    float *kv[2];     /* [length, n_kv_heads, head_dim]: K, V; int8 and fp8: codes */
    float *scales[2]; /* [length, n_kv_heads] int8 */
};

/* Of each kernel, by what it was compared with. */
struct rig_errors {
    struct {
        const char *kernel;
        struct l1_error error;
        double limit;
    } at[64];
    uint32_t n;
};

struct rig {
    struct rig_shape s;
    const char *decode, *prefill; /* kernels of the last step, or NULL */
    uint32_t n_seqs, n_pages;
    struct rig_seq seqs[RIG_SEQS_MAX];
    uint64_t page_bytes;
    char *pool;
};

/* Some rows of a sequence. */
struct rig_rows {
    uint32_t seq, start, n;
};

struct rig_step {
    const struct rig_rows *rows;
    uint32_t n;
    uint32_t slots_max, tile_rows_min;
    uint32_t blocks_max; /* of a decode grid; 0: as planned */
    bool is_grouped;
};

static const float rig_fp8_scales[2] = { 0.75f, 1.5f };

/* ---- sequences ---- */

/* An 8-bit float of sign, 4 bits of exponent, bias 7, and 3 of fraction. */
static inline float rig_e4m3(uint8_t bits)
{
    int exponent = bits >> 3 & 15, fraction = bits & 7;
    float x = exponent ? ldexpf((float)(8 + fraction), exponent - 10) : ldexpf((float)fraction, -9);

    return bits & 0x80 ? -x : x;
}

/* What can be stored: a number of the format, or a code of it. */
static inline float rig_storable(struct random *r, enum kv_format format)
{
    if (format == KV_I8)
        return (float)((int)(random_u64(r) % 255) - 127);
    if (format == KV_E4M3)
        return (float)(random_u64(r) % 2 * 128 + random_u64(r) % 0x40); /* below 2 */
    return format == KV_F16 ? f16_to_float(float_to_f16(random_float(r))) : random_float(r);
}

static inline void rig_seq_init(struct rig_seq *q, struct random *r, const struct rig_shape *s,
                                uint32_t length)
{
    size_t vectors = (size_t)length * s->n_kv_heads, n = (size_t)length * s->n_heads * s->head_dim;

    q->length = length;
    q->n_pages = (length + s->page_tokens - 1) / s->page_tokens;
    q->pages = mem_alloc(q->n_pages * sizeof *q->pages);
    q->q = random_floats(r, n);
    for (size_t i = 0; i < n; i++)
        q->q[i] *= 5; /* so that some positions count more than others */
    for (int kind = 0; kind < 2; kind++) {
        q->kv[kind] = mem_alloc(vectors * s->head_dim * sizeof(float));
        for (size_t i = 0; i < vectors * s->head_dim; i++)
            q->kv[kind][i] = rig_storable(r, s->format);
        q->scales[kind] = mem_alloc(vectors * sizeof(float));
        for (size_t i = 0; i < vectors; i++)
            q->scales[kind][i] = (2 + random_float(r)) / 300;
    }
}

/* Pages in random order over the pool, which has some more. */
static inline void rig_deal_pages(struct rig *g, struct random *r)
{
    uint32_t *all = mem_alloc(g->n_pages * sizeof *all), at = 0;

    for (uint32_t i = 0; i < g->n_pages; i++)
        all[i] = i;
    for (uint32_t i = g->n_pages; i > 1; i--) {
        uint32_t j = (uint32_t)(random_u64(r) % i), page = all[i - 1];
        all[i - 1] = all[j];
        all[j] = page;
    }
    for (uint32_t i = 0; i < g->n_seqs; i++)
        for (uint32_t p = 0; p < g->seqs[i].n_pages; p++)
            g->seqs[i].pages[p] = all[at++];
    free(all);
}

static inline struct rig rig_new(struct random *r, const struct rig_shape *s,
                                 const uint32_t *lengths, uint32_t n)
{
    struct rig g = { .s = *s, .n_seqs = n, .n_pages = 3 };

    for (uint32_t i = 0; i < n; i++) {
        rig_seq_init(&g.seqs[i], r, s, lengths[i]);
        g.n_pages += g.seqs[i].n_pages;
    }
    rig_deal_pages(&g, r);
    g.page_bytes = kv_page_bytes(s->format, s->page_tokens, s->head_dim, RIG_LAYERS, s->n_kv_heads);
    g.page_bytes = (g.page_bytes + 63) / 64 * 64;
    g.pool = l1_alloc(g.n_pages * g.page_bytes);
    return g;
}

static inline void rig_free(struct rig *g)
{
    for (uint32_t i = 0; i < g->n_seqs; i++) {
        free(g->seqs[i].pages);
        free(g->seqs[i].q);
        for (int kind = 0; kind < 2; kind++) {
            free(g->seqs[i].kv[kind]);
            free(g->seqs[i].scales[kind]);
        }
    }
    l1_free(g->pool);
}

/* ---- pages ---- */

static inline struct kv_place rig_place(const struct rig *g)
{
    return (struct kv_place){ .pages = g->pool,
                              .page_bytes = g->page_bytes,
                              .n_heads = g->s.n_kv_heads,
                              .head_dim = g->s.head_dim,
                              .page_tokens = g->s.page_tokens,
                              .format = g->s.format };
}

static inline void rig_store(char *to, enum kv_format format, float x)
{
    uint16_t half = float_to_f16(x);

    if (format == KV_F32)
        memcpy(to, &x, sizeof x);
    else if (format == KV_F16)
        memcpy(to, &half, sizeof half);
    else
        *to = (char)(format == KV_I8 ? (int)x : (int)(uint8_t)x);
}

static inline void rig_write_vector(struct rig *g, const struct rig_seq *q, uint32_t position,
                                    uint32_t kind, uint32_t head)
{
    struct kv_place place = rig_place(g);
    uint32_t slot = position % g->s.page_tokens, bytes = kv_element_bytes(g->s.format);
    char *tile = g->pool + q->pages[position / g->s.page_tokens] * g->page_bytes +
                 kv_tile_offset(&place, RIG_LAYER, kind, head);
    char *to = tile + kv_scales_bytes(g->s.format, g->s.page_tokens) +
               (size_t)slot * g->s.head_dim * bytes;
    size_t vector = (size_t)position * g->s.n_kv_heads + head;

    if (g->s.format == KV_I8)
        memcpy(tile + slot * sizeof(float), &q->scales[kind][vector], sizeof(float));
    for (uint32_t d = 0; d < g->s.head_dim; d++)
        rig_store(to + d * bytes, g->s.format, q->kv[kind][vector * g->s.head_dim + d]);
}

/* The first n positions of each sequence of the step, and nothing else. */
static inline void rig_fill_pool(struct rig *g, const struct rig_step *step)
{
    memset(g->pool, 0xff, g->n_pages * g->page_bytes);
    for (uint32_t i = 0; i < step->n; i++) {
        const struct rig_rows *rows = &step->rows[i];
        for (uint32_t p = 0; p < rows->start + rows->n; p++)
            for (uint32_t kind = 0; kind < 2; kind++)
                for (uint32_t head = 0; head < g->s.n_kv_heads; head++)
                    rig_write_vector(g, &g->seqs[rows->seq], p, kind, head);
    }
}

/* ---- a step ---- */

static inline uint32_t rig_n_rows(const struct rig_step *step)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < step->n; i++)
        n += step->rows[i].n;
    return n;
}

static inline size_t rig_row(const struct rig *g)
{
    return (size_t)g->s.n_heads * g->s.head_dim;
}

/* Rows of out are 8 wider than they must be, of q 4. */
static inline size_t rig_out_stride(const struct rig *g)
{
    return (rig_row(g) + 3) / 4 * 4 + 8;
}

static inline size_t rig_q_stride(const struct rig *g)
{
    return (rig_row(g) + 3) / 4 * 4 + 4;
}

static inline void rig_launch(const struct attention_launch *l, const struct rig_step *step,
                              const struct attention_args *args)
{
    bool cut = step->blocks_max && l->grid_x > step->blocks_max && !strstr(l->name, "prefill");

    l1_launch(l->name, cut ? step->blocks_max : l->grid_x, l->grid_y, 1, l->shared_bytes, args,
              sizeof *args);
}

/* The plan in a buffer of just its size. */
static inline struct attention_header *rig_plan(const struct attention_setup *setup,
                                                const struct batch *b)
{
    uint64_t n_pages = 0;
    struct attention_limits limits;
    const struct attention_header *plan;
    void *buffer, *exact;

    for (uint32_t i = 0; i < b->n_seqs; i++)
        n_pages += b->seqs[i].n_pages;
    limits = attention_plan_limits(setup, n_pages);
    buffer = l1_alloc(limits.plan_bytes);
    plan = attention_plan_build(buffer, setup, b);
    assert_true(plan->bytes <= limits.plan_bytes);
    assert_true(plan->n_items <= limits.n_items && plan->n_combines <= limits.n_combines &&
                plan->n_tiles <= limits.n_tiles);
    exact = l1_alloc(plan->bytes);
    memcpy(exact, plan, plan->bytes);
    l1_free(buffer);
    return exact;
}

static inline struct attention_args rig_args(const struct rig *g)
{
    struct kv_place place = rig_place(g);

    return (struct attention_args){
        .kv = g->pool,
        .page_bytes = g->page_bytes,
        .k_offset = kv_tile_offset(&place, RIG_LAYER, 0, 0),
        .v_offset = kv_tile_offset(&place, RIG_LAYER, 1, 0),
        .head_bytes = kv_tile_bytes(g->s.format, g->s.page_tokens, g->s.head_dim),
        .q_stride = rig_q_stride(g),
        .out_stride = rig_out_stride(g),
        .n_heads = g->s.n_heads,
        .n_kv_heads = g->s.n_kv_heads,
        .head_dim = g->s.head_dim,
        .page_tokens = g->s.page_tokens,
        .page_magic = attention_page_magic(g->s.page_tokens),
        .window = g->s.window,
        .scale = 1 / sqrtf((float)g->s.head_dim),
        .softcap = g->s.softcap,
        .k_scale = rig_fp8_scales[0],
        .v_scale = rig_fp8_scales[1],
    };
}

static inline struct attention_setup rig_setup(const struct rig *g, const struct rig_step *step)
{
    return (struct attention_setup){ .n_heads = g->s.n_heads,
                                     .n_kv_heads = g->s.n_kv_heads,
                                     .head_dim = g->s.head_dim,
                                     .page_tokens = g->s.page_tokens,
                                     .kv = g->s.format,
                                     .rows_max = rig_n_rows(step),
                                     .seqs_max = step->n,
                                     .positions_max = RIG_POSITIONS,
                                     .slots_max = step->slots_max,
                                     .tile_rows_min = step->tile_rows_min,
                                     .is_grouped = step->is_grouped };
}

/* The batch of a step; seqs is [step->n]. */
static inline struct batch rig_batch(const struct rig *g, const struct rig_step *step,
                                     struct batch_seq *seqs)
{
    uint32_t row = 0;

    for (uint32_t i = 0; i < step->n; i++) {
        const struct rig_rows *rows = &step->rows[i];
        uint32_t n = rows->start + rows->n;
        assert_true(n <= g->seqs[rows->seq].length);
        seqs[i] = (struct batch_seq){ row, rows->n, rows->start,
                                      (n + g->s.page_tokens - 1) / g->s.page_tokens,
                                      g->seqs[rows->seq].pages };
        row += rows->n;
    }
    return (struct batch){ .n_rows = row, .n_seqs = step->n, .seqs = seqs };
}

/* [rows][rig_out_stride()]; what no kernel writes is 0xff.  The caller frees it by l1_free(). */
static inline float *rig_run(struct rig *g, const struct rig_step *step)
{
    struct batch_seq seqs[RIG_SEQS_MAX];
    struct batch batch = rig_batch(g, step, seqs);
    struct attention_setup setup = rig_setup(g, step);
    struct attention_header *plan = rig_plan(&setup, &batch);
    struct attention_launch launches[ATTENTION_LAUNCHES];
    struct attention_args args = rig_args(g);
    float *q = l1_alloc(batch.n_rows * rig_q_stride(g) * sizeof(float)), *to = q;
    float *out = l1_alloc(batch.n_rows * rig_out_stride(g) * sizeof(float));
    float *partials = l1_alloc(attention_plan_limits(&setup, 0).partial_bytes);
    uint32_t n = attention_launches(launches, &setup, plan);

    assert_true(!step->is_grouped || attention_has_groups(&setup, 75));

    rig_fill_pool(g, step);
    for (uint32_t i = 0; i < step->n; i++)
        for (uint32_t r = 0; r < step->rows[i].n; r++, to += rig_q_stride(g))
            memcpy(to, g->seqs[step->rows[i].seq].q + (step->rows[i].start + r) * rig_row(g),
                   rig_row(g) * sizeof(float));
    args.plan = plan;
    args.q = q;
    args.out = out;
    args.partials = partials;
    g->decode = plan->n_items ? launches[0].name : NULL;
    g->prefill = plan->n_tiles ? launches[n - 1].name : NULL;
    for (uint32_t i = 0; i < n; i++)
        rig_launch(&launches[i], step, &args);
    l1_free(plan);
    l1_free(q);
    l1_free(partials);
    return out;
}

/* ---- what it should be ---- */

static inline double rig_half(double x)
{
    return f16_to_float(float_to_f16((float)x));
}

/* Element d of K or V; as_half: as the tensor cores get it. */
static inline double rig_element(const struct rig *g, const struct rig_seq *q, uint32_t position,
                                 uint32_t kind, uint32_t head, uint32_t d, bool as_half)
{
    size_t vector = (size_t)position * g->s.n_kv_heads + head;
    double x = q->kv[kind][vector * g->s.head_dim + d];

    if (g->s.format == KV_I8)
        x = (float)x * q->scales[kind][vector];
    if (g->s.format == KV_E4M3)
        x = rig_e4m3((uint8_t)x) * rig_fp8_scales[kind];
    return as_half ? rig_half(x) : x;
}

static inline double rig_score(const struct rig *g, const struct rig_seq *q, uint32_t position,
                               uint32_t head, uint32_t at, bool as_half)
{
    uint32_t kv_head = head / (g->s.n_heads / g->s.n_kv_heads);
    const float *x = q->q + position * rig_row(g) + head * g->s.head_dim;
    double dot = 0;

    for (uint32_t d = 0; d < g->s.head_dim; d++)
        dot += (as_half ? rig_half(x[d]) : x[d]) * rig_element(g, q, at, 0, kv_head, d, as_half);
    dot /= sqrt(g->s.head_dim);
    return g->s.softcap == 0 ? dot : g->s.softcap * tanh(dot / g->s.softcap);
}

/* One head of a row: [head_dim]. */
static inline void rig_expect(double *out, const struct rig *g, const struct rig_seq *q,
                              uint32_t position, uint32_t head, bool as_half)
{
    uint32_t kv_head = head / (g->s.n_heads / g->s.n_kv_heads);
    uint32_t first = g->s.window && position >= g->s.window ? position + 1 - g->s.window : 0;
    double scores[RIG_POSITIONS], largest = -INFINITY, sum = 0;

    memset(out, 0, g->s.head_dim * sizeof *out);
    for (uint32_t p = first; p <= position; p++) {
        scores[p] = rig_score(g, q, position, head, p, as_half);
        largest = scores[p] > largest ? scores[p] : largest;
    }
    for (uint32_t p = first; p <= position; p++) {
        double weight = exp(scores[p] - largest);
        sum += weight;
        for (uint32_t d = 0; d < g->s.head_dim; d++)
            out[d] += weight * rig_element(g, q, p, 1, kv_head, d, as_half);
    }
    for (uint32_t d = 0; d < g->s.head_dim; d++)
        out[d] /= sum;
}

static inline struct l1_error *rig_error_of(struct rig_errors *e, const char *kernel, double limit)
{
    uint32_t i = 0;

    while (i < e->n && strcmp(e->at[i].kernel, kernel) != 0)
        i++;
    if (i == e->n) {
        e->at[e->n].kernel = kernel;
        e->at[e->n++].limit = limit;
    }
    return &e->at[i].error;
}

static inline void rig_expect_errors(const struct rig_errors *e)
{
    for (uint32_t i = 0; i < e->n; i++)
        l1_expect(e->at[i].kernel, &e->at[i].error, e->at[i].limit);
}

/* One row, and that nothing beside it was written.  What the tensor cores get and give is rounded to f16. */
static inline void rig_check_row(const struct rig *g, const struct rig_seq *q, uint32_t position,
                                 bool tiled, const float *out, struct rig_errors *errors)
{
    const uint32_t untouched = 0xffffffff;
    double want[ATTENTION_DECODE_DIM_MAX];

    for (size_t x = rig_row(g); x < rig_out_stride(g); x++)
        assert_memory_equal(out + x, &untouched, sizeof untouched);
    for (uint32_t h = 0; h < g->s.n_heads; h++) {
        rig_expect(want, g, q, position, h, tiled);
        l1_compare(rig_error_of(errors, tiled ? g->prefill : g->decode, tiled ? 5e-4 : 2e-6),
                   out + h * g->s.head_dim, want, g->s.head_dim, 1);
    }
}

/* Every `row_step`th row of a result. */
static inline void rig_check(const struct rig *g, const struct rig_step *step, const float *out,
                             uint32_t row_step, struct rig_errors *errors)
{
    for (uint32_t i = 0; i < step->n; i++) {
        const struct rig_rows *rows = &step->rows[i];
        for (uint32_t r = 0; r < rows->n; r++, out += rig_out_stride(g))
            if (r % row_step == 0)
                rig_check_row(g, &g->seqs[rows->seq], rows->start + r,
                              rows->n >= step->tile_rows_min, out, errors);
    }
}

#endif
