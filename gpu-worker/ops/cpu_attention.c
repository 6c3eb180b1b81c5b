/* cpu_attention.c - queries and keys turned, KV written to its pages, and attention over them.
 *
 * Attention is cut into units (attention_units.h).  A unit goes through the
 * splits of its positions and merges their sums in order, largest scores first made common (Milakov &
 * Gimelshein 2018, arXiv:1805.02867; for splits Dao et al., Flash-Decoding, 2023).  Where there are fewer
 * units than threads have use for - a long context, a single stream - splits are computed by themselves, on
 * all threads, and merged afterwards: the same sums in the same order, so the same bits. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "gpu-worker/ops/attention_fetch.h"
#include "gpu-worker/ops/cpu_stream.h"
#include "proto/kvpool_layout.h"

static uint32_t qkv_dim(const struct ops_setup *u)
{
    return (u->n_heads + 2 * u->n_kv_heads) * u->head_dim;
}

struct qkv_job {
    struct ops_stream *s;
    struct split split; /* of rows */
    float *qkv;
    uint32_t layer;
    const struct head_norm *norm;
};

static void turn_row(const struct qkv_job *j, uint32_t t)
{
    const struct ops_stream *s = j->s;
    const struct ops_setup *u = &s->setup;
    uint32_t half = u->rope_dim / 2;

    for (uint32_t h = 0; h < u->n_heads + u->n_kv_heads; h++) {
        float *x = j->qkv + (size_t)t * qkv_dim(u) + h * u->head_dim;
        if (j->norm)
            s->kernels->rmsnorm(x, x, h < u->n_heads ? j->norm->q : j->norm->k, u->head_dim,
                                j->norm->eps);
        s->kernels->rope(x, s->rope_cos + (size_t)t * half, s->rope_sin + (size_t)t * half, half);
    }
}

/* Where K (kind 0) or V (1) of a layer's head begins in a page. */
static uint64_t head_offset(const struct ops_setup *u, uint32_t layer, uint32_t kind, uint32_t head)
{
    uint64_t index = ((uint64_t)layer * 2 + kind) * u->kv.n_heads_model + u->kv.first_head + head;

    return index * kv_block_bytes(u->kv.dtype, u->kv.page_tokens, u->head_dim);
}

/* n elements of `size` bytes, one after the other, to every step-th. */
static void scatter(size_t size, char *to, const void *from, uint32_t n, size_t step)
{
    if (size == 4)
        for (uint32_t i = 0; i < n; i++)
            ((uint32_t *)to)[i * step] = ((const uint32_t *)from)[i];
    else if (size == 2)
        for (uint32_t i = 0; i < n; i++)
            ((uint16_t *)to)[i * step] = ((const uint16_t *)from)[i];
    else
        for (uint32_t i = 0; i < n; i++)
            ((uint8_t *)to)[i * step] = ((const uint8_t *)from)[i];
}

/* Returns the scale. */
static float narrow(const struct ops_stream *s, void *codes, const float *x, bool is_v)
{
    const struct cpu_kernels *k = s->kernels;
    uint32_t n = s->setup.head_dim;

    if (s->setup.kv.dtype == DTYPE_I8)
        return k->narrow_i8(codes, x, n);
    return is_v ? k->narrow_v16(codes, x, n) : k->narrow_k16(codes, x, n);
}

/* K or V of one head of token t of a page. */
static void write_head(const struct ops_stream *s, char *block, uint32_t t, const float *x,
                       bool is_v)
{
    const struct ops_setup *u = &s->setup;
    enum dtype type = u->kv.dtype;
    uint32_t dim = u->head_dim, page_tokens = u->kv.page_tokens;
    size_t size = dtype_bytes(type, 1);
    char *elements = block + kv_scales_bytes(type, page_tokens);
    char *to = elements +
               size * (is_v ? kv_v_index(type, dim, t, 0) : kv_k_index(type, page_tokens, t, 0));
    float codes[ATTENTION_HEAD_DIM_MAX];

    if (!kv_has_scales(type)) {
        scatter(size, to, x, dim, is_v ? 1 : page_tokens);
        return;
    }
    ((float *)block)[t] = narrow(s, codes, x, is_v);
    if (is_v)
        scatter(size, to, codes, dim, 2);
    else
        scatter(2 * size, to, codes, dim / 2, page_tokens); /* pairs */
}

static void write_row(const struct qkv_job *j, uint32_t t)
{
    const struct ops_setup *u = &j->s->setup;
    const struct row_place *at = &j->s->rows[t];
    uint32_t page = at->seq->pages[at->position / u->kv.page_tokens];
    const float *x = j->qkv + (size_t)t * qkv_dim(u) + u->n_heads * u->head_dim;

    for (uint32_t kind = 0; kind < 2; kind++)
        for (uint32_t h = 0; h < u->n_kv_heads; h++, x += u->head_dim)
            write_head(j->s,
                       u->kv.pages + page * u->kv.page_bytes + head_offset(u, j->layer, kind, h),
                       at->position % u->kv.page_tokens, x, kind == 1);
}

static void run_rope_kv_write(void *arg, uint32_t i)
{
    const struct qkv_job *j = arg;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        turn_row(j, t);
        write_row(j, t);
    }
}

void cpu_rope_kv_write(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                       uint32_t layer)
{
    uint64_t cost = 2 * (uint64_t)qkv_dim(&s->setup);
    struct qkv_job j = { s, cpu_split(s, s->batch->n_rows, cost), qkv, layer, norm };

    threads_run(s->threads, run_rope_kv_write, &j, split_count(j.split));
}

/* ---- attention ---- */

#define LOG2_E 1.44269504f

enum { NEIGHBOURS = 4 /* heads that a share takes in a row */ };

struct attend_job {
    struct ops_stream *s;
    struct split split; /* of units, or of units and splits */
    float *out;
    size_t out_stride;
    const float *qkv;
    uint32_t layer;
    const struct attention_shape *shape;
    uint32_t n_splits, rows_max; /* of the longest sequence, of the largest block */
};

static void unit_at(const struct attend_job *j, uint32_t index, struct attention_unit *u)
{
    const struct ops_stream *s = j->s;

    attention_unit_at(u, &s->order, s->batch, &s->setup, j->qkv, j->shape->window, index);
}

/* What all splits of a unit have in common. */
static struct attention_job job_of(const struct attend_job *j, const struct attention_unit *u)
{
    const struct ops_setup *setup = &j->s->setup;

    return (struct attention_job){ .rows = u->rows,
                                   .n_rows = u->n_rows,
                                   .window = j->shape->window,
                                   .pages = setup->kv.pages,
                                   .page_bytes = setup->kv.page_bytes,
                                   .k_offset = head_offset(setup, j->layer, 0, u->head),
                                   .v_offset = head_offset(setup, j->layer, 1, u->head),
                                   .page_tokens = setup->kv.page_tokens,
                                   .head_dim = setup->head_dim,
                                   .dtype = setup->kv.dtype,
                                   .scale = j->shape->scale * LOG2_E,
                                   .softcap = j->shape->softcap * LOG2_E };
}

/* A unit's rows as the kernel wants them. */
struct unit_queries {
    _Alignas(64) float q[(ATTENTION_ROWS + 2) * ATTENTION_Q_STRIDE];
    float scales[ATTENTION_ROWS];
};

static void gather_queries(const struct attend_job *j, const struct attention_unit *u,
                           struct unit_queries *to)
{
    struct attention_job a = job_of(j, u);

    j->s->kernels->attention_queries(&a, to->q, to->scales);
}

/* The sums and values of a unit's rows, of the splits so far. */
struct unit_sums {
    struct attention_sum *sums; /* [rows] */
    float *values;              /* [rows, head_dim] */
};

static void merge_split(const struct attend_job *j, const struct attention_unit *u,
                        struct unit_sums to, struct unit_sums more)
{
    uint32_t dim = j->s->setup.head_dim;

    for (size_t i = 0; i < u->n_rows; i++)
        j->s->kernels->attention_merge(&to.sums[i], to.values + i * dim, &more.sums[i],
                                       more.values + i * dim, dim);
}

static void finish_unit(const struct attend_job *j, const struct attention_unit *u,
                        struct unit_sums from)
{
    uint32_t dim = j->s->setup.head_dim;

    for (uint32_t i = 0; i < u->n_rows; i++)
        j->s->kernels->attention_finish(j->out + u->batch_rows[i] * j->out_stride +
                                            (size_t)u->heads[i] * dim,
                                        from.values + (size_t)i * dim, from.sums[i].sum, dim);
}

/* Only what the unit sees of the split, which is something. */
static struct attention_job split_of(const struct attend_job *j, const struct attention_unit *u,
                                     uint32_t split)
{
    struct attention_job a = job_of(j, u);
    uint32_t begin = split * ATTENTION_SPLIT, end = begin + ATTENTION_SPLIT;

    a.begin = u->begin > begin ? u->begin : begin;
    a.end = u->end < end ? u->end : end;
    return a;
}

/* is_near: the first row's sequence has just been read. */
static void run_split(const struct attend_job *j, const struct attention_unit *u, bool is_near,
                      const struct unit_queries *queries, uint32_t split, struct unit_sums to)
{
    struct attention_job a = split_of(j, u, split);

    a.is_near = is_near;
    a.q = queries->q;
    a.q_scales = queries->scales;
    j->s->kernels->attention(&a, to.sums, to.values);
}

/* The first span of what the first row's sequence sees of a split. */
static void fetch_split(const struct attend_job *j, const struct attention_unit *u, uint32_t split)
{
    struct attention_job a = split_of(j, u, split);
    uint32_t at = a.begin / ATTENTION_SPAN * ATTENTION_SPAN;
    struct attention_part part;

    if (a.begin >= a.end)
        return;
    part = attention_part(&a, 0, at);
    if (part.end > at)
        attention_fetch_span(&a, part.page_table, at, part.end);
}

static void run_unit(const struct attend_job *j, const struct attention_unit *u, bool is_near)
{
    _Alignas(64) float values[2][ATTENTION_ROWS * ATTENTION_HEAD_DIM_MAX];
    struct attention_sum sums[2][ATTENTION_ROWS];
    struct unit_sums all = { sums[0], values[0] }, more = { sums[1], values[1] };
    struct unit_queries queries;
    uint32_t s = u->begin / ATTENTION_SPLIT;

    gather_queries(j, u, &queries);
    for (bool is_first = true; s * ATTENTION_SPLIT < u->end; s++, is_first = false) {
        if (!is_near)
            fetch_split(j, u, s + 1);
        run_split(j, u, is_near, &queries, s, is_first ? all : more);
        if (!is_first)
            merge_split(j, u, all, more);
    }
    finish_unit(j, u, all);
}

/* The next unit begins with the pages and head that this one ends with. */
static bool goes_on(const struct attention_unit *u, const struct attention_unit *next)
{
    return next->head == u->head &&
           next->rows[0].page_table[0] == u->rows[u->n_rows - 1].page_table[0];
}

/* A share's units: some neighbours, whose K and V lie side by side, then some far behind them.  Not all side by
 * side: a prompt's units take longer than those of the streams beside it, and lie together. */
static void run_units(void *arg, uint32_t i)
{
    const struct attend_job *j = arg;
    uint32_t n_shares = split_count(j->split), fit = j->split.n / (2 * n_shares);
    uint32_t row = fit < 1 ? 1 : fit < NEIGHBOURS ? fit : NEIGHBOURS, k = i * row, at = 0;
    struct attention_unit units[2]; /* this one and the next */
    bool is_near = false;

    unit_at(j, k, &units[0]);
    while (k < j->split.n) {
        struct attention_unit *u = &units[at], *next = &units[1 - at];
        bool next_is_near = false;
        k = (k + 1) % row ? k + 1 : k + 1 + (n_shares - 1) * row;
        if (k < j->split.n) {
            unit_at(j, k, next);
            next_is_near = goes_on(u, next);
            if (!next_is_near)
                fetch_split(j, next, next->begin / ATTENTION_SPLIT);
        }
        run_unit(j, u, is_near);
        is_near = next_is_near;
        at = 1 - at;
    }
}

/* ---- splits on several threads ---- */

/* Sums and values of a unit's rows in a split. */
static struct unit_sums partial_at(const struct attend_job *j, uint32_t unit, uint32_t split)
{
    size_t floats = (size_t)j->rows_max * (j->s->setup.head_dim + 2);
    float *at = j->s->partials + (unit * (size_t)j->n_splits + split) * floats;

    return (struct unit_sums){ (struct attention_sum *)at, at + 2 * j->rows_max };
}

static void run_one_split(void *arg, uint32_t i)
{
    const struct attend_job *j = arg;
    struct unit_queries queries;
    struct attention_unit u;

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++) {
        uint32_t s = k % j->n_splits;
        unit_at(j, k / j->n_splits, &u);
        if (s < u.begin / ATTENTION_SPLIT || s * ATTENTION_SPLIT >= u.end)
            continue;
        gather_queries(j, &u, &queries);
        run_split(j, &u, false, &queries, s, partial_at(j, k / j->n_splits, s));
    }
}

static void run_merge(void *arg, uint32_t i)
{
    const struct attend_job *j = arg;
    struct attention_unit u;

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++) {
        struct unit_sums all;
        uint32_t s;
        unit_at(j, k, &u);
        s = u.begin / ATTENTION_SPLIT;
        all = partial_at(j, k, s);
        while (++s * ATTENTION_SPLIT < u.end)
            merge_split(j, &u, all, partial_at(j, k, s));
        finish_unit(j, &u, all);
    }
}

/* Worth it when the units would leave threads without work, and there is room for the sums. */
static bool wants_splits(const struct attend_job *j, uint32_t n_units)
{
    const struct ops_stream *s = j->s;
    uint64_t floats = (uint64_t)n_units * j->n_splits * j->rows_max * (s->setup.head_dim + 2);

    return j->n_splits > 1 && n_units < 2 * threads_count(s->threads) && floats <= PARTIAL_FLOATS &&
           (uint64_t)n_units * j->n_splits <= THREADS_JOB_MAX;
}

/* Fill in n_splits and rows_max; returns the positions that all rows together see (without a window). */
static uint64_t measure(struct attend_job *j)
{
    const struct batch *b = j->s->batch;
    const struct attention_order *o = &j->s->order;
    uint32_t longest = 0;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &b->seqs[o->places[i].seq];
        uint32_t n = o->places[i].first_row + q->n_rows * o->group; /* so far in its group */
        seen += q->n_rows * (q->start + (uint64_t)(q->n_rows + 1) / 2);
        longest = q->start + q->n_rows > longest ? q->start + q->n_rows : longest;
        j->rows_max = n > j->rows_max ? n : j->rows_max;
    }
    j->rows_max = j->rows_max < ATTENTION_ROWS ? j->rows_max : ATTENTION_ROWS;
    j->n_splits = (longest + ATTENTION_SPLIT - 1) / ATTENTION_SPLIT;
    return seen;
}

void cpu_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                   uint32_t layer, const struct attention_shape *shape)
{
    const struct ops_setup *u = &s->setup;
    uint32_t n_units = attention_units(&s->order, u->n_kv_heads);
    struct attend_job j = {
        .s = s, .out = out, .out_stride = out_stride, .qkv = qkv, .layer = layer, .shape = shape
    };
    uint64_t cost = 2 * measure(&j) * u->head_dim * u->n_heads / n_units;

    if (wants_splits(&j, n_units)) {
        j.split = cpu_split(s, n_units * j.n_splits, cost / j.n_splits);
        threads_run(s->threads, run_one_split, &j, split_count(j.split));
        j.split = cpu_split(s, n_units, (uint64_t)j.n_splits * j.rows_max * u->head_dim);
        threads_run(s->threads, run_merge, &j, split_count(j.split));
        return;
    }
    j.split = cpu_split(s, n_units, cost);
    threads_run(s->threads, run_units, &j, split_count(j.split));
}
