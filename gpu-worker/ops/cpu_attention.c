/* cpu_attention.c - queries and keys turned, KV written to its pages, and attention over them.
 *
 * Attention is cut into units: a block of a sequence's query rows and a KV head.  A unit goes through the
 * splits of its positions and merges their sums in order, largest scores first made common (Milakov &
 * Gimelshein 2018, arXiv:1805.02867; for splits Dao et al., Flash-Decoding, 2023).  Where there are fewer
 * units than threads have use for - a long context, a single stream - splits are computed by themselves, on
 * all threads, and merged afterwards: the same sums in the same order, so the same bits. */
#include <assert.h>
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

/* n elements of K, one after the other, to a column of [n][page_tokens]. */
static void scatter(enum dtype dtype, char *to, const void *from, uint32_t n, uint32_t page_tokens)
{
    if (dtype == DTYPE_F32)
        for (uint32_t d = 0; d < n; d++)
            ((float *)to)[(size_t)d * page_tokens] = ((const float *)from)[d];
    else if (dtype == DTYPE_F16)
        for (uint32_t d = 0; d < n; d++)
            ((uint16_t *)to)[(size_t)d * page_tokens] = ((const uint16_t *)from)[d];
    else
        for (uint32_t d = 0; d < n; d++)
            ((int8_t *)to)[(size_t)d * page_tokens] = ((const int8_t *)from)[d];
}

/* K or V of one head of token t of a page. */
static void write_head(const struct ops_stream *s, char *block, uint32_t t, const float *x,
                       bool is_v)
{
    const struct ops_setup *u = &s->setup;
    float stored[ATTENTION_HEAD_DIM_MAX];

    if (u->kv.dtype == DTYPE_I8) {
        ((float *)block)[t] = s->kernels->narrow_i8((int8_t *)stored, x, u->head_dim);
        block += u->kv.page_tokens * sizeof(float);
    } else {
        s->kernels->narrow(stored, x, u->kv.dtype, u->head_dim);
    }
    if (is_v)
        memcpy(block + dtype_bytes(u->kv.dtype, (size_t)t * u->head_dim), stored,
               dtype_bytes(u->kv.dtype, u->head_dim));
    else
        scatter(u->kv.dtype, block + dtype_bytes(u->kv.dtype, t), stored, u->head_dim,
                u->kv.page_tokens);
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

/* A block of query rows and a KV head. */
struct unit {
    struct attention_job a; /* begin .. end: all positions that a row of the block sees */
    uint32_t first_row;     /* of the batch, the sequence's */
    uint32_t head;
};

static uint32_t units_of(const struct ops_stream *s)
{
    return s->first_block[s->batch->n_seqs] * s->setup.n_kv_heads;
}

/* The sequence whose blocks are first_block[i] .. first_block[i + 1] - 1. */
static uint32_t seq_of_block(const struct ops_stream *s, uint32_t block)
{
    uint32_t low = 0, high = s->batch->n_seqs;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (s->first_block[middle] <= block)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* A sequence's heads in turn, each with all blocks, which find its K and V in the cache. */
static struct unit unit_at(const struct attend_job *j, uint32_t index)
{
    const struct ops_stream *s = j->s;
    const struct ops_setup *u = &s->setup;
    uint32_t seq = seq_of_block(s, index / u->n_kv_heads), group = u->n_heads / u->n_kv_heads;
    uint32_t first = s->first_block[seq], n_blocks = s->first_block[seq + 1] - first;
    uint32_t in_seq = index - first * u->n_kv_heads, head = in_seq / n_blocks;
    const struct batch_seq *q = &s->batch->seqs[seq];
    uint32_t row = in_seq % n_blocks * ATTENTION_ROWS, left = q->n_rows * group - row;
    struct unit unit = {
        .first_row = q->first_row,
        .head = head,
        .a = { .q = j->qkv + (size_t)q->first_row * qkv_dim(u) + (size_t)head * group * u->head_dim,
               .q_stride = qkv_dim(u),
               .row_begin = row,
               .n_rows = left < ATTENTION_ROWS ? left : ATTENTION_ROWS,
               .start = q->start,
               .window = j->shape->window,
               .pages = u->kv.pages,
               .page_bytes = u->kv.page_bytes,
               .k_offset = head_offset(u, j->layer, 0, head),
               .v_offset = head_offset(u, j->layer, 1, head),
               .page_table = q->pages,
               .page_tokens = u->kv.page_tokens,
               .group = group,
               .head_dim = u->head_dim,
               .dtype = u->kv.dtype,
               .scale = j->shape->scale,
               .softcap = j->shape->softcap },
    };

    unit.a.begin = attention_first(&unit.a, 0);
    unit.a.end = attention_last(&unit.a, unit.a.n_rows - 1) + 1;
    return unit;
}

/* Only what the unit sees of a split; false when that is nothing. */
static bool cut_to_split(struct attention_job *a, uint32_t split)
{
    uint32_t begin = split * ATTENTION_SPLIT, end = begin + ATTENTION_SPLIT;

    a->begin = a->begin > begin ? a->begin : begin;
    a->end = a->end < end ? a->end : end;
    return a->begin < a->end;
}

/* Where row i of a unit goes. */
static float *row_out(const struct attend_job *j, const struct unit *u, uint32_t i)
{
    uint32_t row = u->a.row_begin + i, group = u->a.group;

    return j->out + (u->first_row + row / group) * j->out_stride +
           ((size_t)u->head * group + row % group) * u->a.head_dim;
}

/* The sums and values of a unit's rows, of the splits so far. */
struct unit_sums {
    struct attention_sum *sums; /* [rows] */
    float *values;              /* [rows, head_dim] */
};

static void merge_split(const struct attend_job *j, const struct unit *u, struct unit_sums to,
                        struct unit_sums more)
{
    uint32_t dim = u->a.head_dim;

    for (size_t i = 0; i < u->a.n_rows; i++)
        j->s->kernels->attention_merge(&to.sums[i], to.values + i * dim, &more.sums[i],
                                       more.values + i * dim, dim);
}

static void finish_unit(const struct attend_job *j, const struct unit *u, struct unit_sums from)
{
    uint32_t dim = u->a.head_dim;

    for (uint32_t i = 0; i < u->a.n_rows; i++)
        j->s->kernels->attention_finish(row_out(j, u, i), from.values + (size_t)i * dim,
                                        from.sums[i].sum, dim);
}

static void run_split(const struct attend_job *j, const struct unit *u, uint32_t split,
                      struct unit_sums to)
{
    struct attention_job a = u->a;

    if (cut_to_split(&a, split))
        j->s->kernels->attention(&a, to.sums, to.values);
}

/* From position `first` on, if the unit sees any. */
static void fetch_span(const struct unit *u, uint32_t first)
{
    if (first < u->a.end)
        attention_fetch_span(&u->a, first);
}

static void run_unit(const struct attend_job *j, const struct unit *u)
{
    float values[2][ATTENTION_ROWS * ATTENTION_HEAD_DIM_MAX];
    struct attention_sum sums[2][ATTENTION_ROWS];
    struct unit_sums all = { sums[0], values[0] }, more = { sums[1], values[1] };
    uint32_t s = u->a.begin / ATTENTION_SPLIT;

    fetch_span(u, (s + 1) * ATTENTION_SPLIT);
    run_split(j, u, s++, all);
    for (; s * ATTENTION_SPLIT < u->a.end; s++) {
        fetch_span(u, (s + 1) * ATTENTION_SPLIT);
        run_split(j, u, s, more);
        merge_split(j, u, all, more);
    }
    finish_unit(j, u, all);
}

/* A share's units: some neighbours, whose K and V lie side by side, then some far behind them.  Not all side by
 * side: a prompt's units take longer than those of the streams beside it, and lie together. */
static void run_units(void *arg, uint32_t i)
{
    const struct attend_job *j = arg;
    uint32_t n_shares = split_count(j->split), fit = j->split.n / (2 * n_shares);
    uint32_t row = fit < 1 ? 1 : fit < NEIGHBOURS ? fit : NEIGHBOURS, k = i * row;
    struct unit u, next = unit_at(j, k);

    while (k < j->split.n) {
        u = next;
        k = (k + 1) % row ? k + 1 : k + 1 + (n_shares - 1) * row;
        if (k < j->split.n) {
            next = unit_at(j, k);
            fetch_span(&next, next.a.begin / ATTENTION_SPAN * ATTENTION_SPAN);
        }
        run_unit(j, &u);
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

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++) {
        struct unit u = unit_at(j, k / j->n_splits);
        run_split(j, &u, k % j->n_splits, partial_at(j, k / j->n_splits, k % j->n_splits));
    }
}

static void run_merge(void *arg, uint32_t i)
{
    const struct attend_job *j = arg;

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++) {
        struct unit u = unit_at(j, k);
        uint32_t s = u.a.begin / ATTENTION_SPLIT;
        struct unit_sums all = partial_at(j, k, s);
        while (++s * ATTENTION_SPLIT < u.a.end)
            merge_split(j, &u, all, partial_at(j, k, s));
        finish_unit(j, &u, all);
    }
}

/* Worth it when the units would leave threads without work, and there is room for the sums. */
static bool wants_splits(const struct attend_job *j, uint32_t n_units)
{
    const struct ops_stream *s = j->s;
    uint64_t floats = (uint64_t)n_units * j->n_splits * ATTENTION_ROWS * (s->setup.head_dim + 2);

    return j->n_splits > 1 && n_units < 2 * threads_count(s->threads) && floats <= PARTIAL_FLOATS &&
           (uint64_t)n_units * j->n_splits <= THREADS_JOB_MAX;
}

/* Fill in n_splits and rows_max; returns the positions that all rows together see (without a window). */
static uint64_t measure(struct attend_job *j)
{
    const struct batch *b = j->s->batch;
    uint32_t group = j->s->setup.n_heads / j->s->setup.n_kv_heads, longest = 0;
    uint64_t seen = 0;

    for (uint32_t i = 0; i < b->n_seqs; i++) {
        const struct batch_seq *q = &b->seqs[i];
        uint32_t n = q->n_rows * group < ATTENTION_ROWS ? q->n_rows * group : ATTENTION_ROWS;
        seen += q->n_rows * (q->start + (uint64_t)(q->n_rows + 1) / 2);
        longest = q->start + q->n_rows > longest ? q->start + q->n_rows : longest;
        j->rows_max = n > j->rows_max ? n : j->rows_max;
    }
    j->n_splits = (longest + ATTENTION_SPLIT - 1) / ATTENTION_SPLIT;
    return seen;
}

void cpu_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                   uint32_t layer, const struct attention_shape *shape)
{
    const struct ops_setup *u = &s->setup;
    uint32_t n_units = units_of(s);
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
