#include "gpu-worker/cuda/attention_plan.h"

#include <assert.h>
#include <string.h>

static uint32_t group_of(const struct attention_setup *s)
{
    return s->n_heads / s->n_kv_heads;
}

static uint32_t divide_up(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

/* ---- which kernel ---- */

/* Loads of eight elements fit: see kernels/attention_device.h. */
static bool loads_fit(const struct attention_setup *s)
{
    return s->head_dim % 8 == 0 && (s->kv != KV_I8 || s->page_tokens % 2 == 0);
}

enum { N_TILE_DIMS = 6, N_DECODE_DIMS = 4 };

static const uint32_t tile_dims[N_TILE_DIMS] = { 32, 64, 80, 96, 128, 256 };
static const uint32_t decode_dims[N_DECODE_DIMS] = { 32, 64, 128, 256 };

#define PREFILL_NAMES(kind)                                                                        \
    {                                                                                              \
        "attention_prefill_" kind "_d32", "attention_prefill_" kind "_d64",                        \
            "attention_prefill_" kind "_d80", "attention_prefill_" kind "_d96",                    \
            "attention_prefill_" kind "_d128", "attention_prefill_" kind "_d256"                   \
    }

static const char *const prefill_names[2][N_TILE_DIMS] = { PREFILL_NAMES("converted"),
                                                           PREFILL_NAMES("f16") };

/* The last is for whatever the others are not. */
#define DECODE_NAMES(kv, queries)                                                                  \
    {                                                                                              \
        "attention_decode_" kv "_d32_" queries, "attention_decode_" kv "_d64_" queries,            \
            "attention_decode_" kv "_d128_" queries, "attention_decode_" kv "_d256_" queries,      \
            "attention_decode_any"                                                                 \
    }

/* [one query, several]: what few will use has one kernel for both. */
static const char *const decode_names[N_KV_FORMATS][2][N_DECODE_DIMS + 1] = {
    [KV_F16] = { DECODE_NAMES("f16", "q1"), DECODE_NAMES("f16", "q4") },
    [KV_I8] = { DECODE_NAMES("i8", "q1"), DECODE_NAMES("i8", "q4") },
    [KV_E4M3] = { DECODE_NAMES("e4m3", "q1"), DECODE_NAMES("e4m3", "q4") },
    [KV_F32] = { DECODE_NAMES("f32", "q4"), DECODE_NAMES("f32", "q4") },
};

static const char *const group_names[N_KV_FORMATS][2] = {
    [KV_F16] = { "attention_group_f16_d64", "attention_group_f16_d128" },
    [KV_I8] = { "attention_group_i8_d64", "attention_group_i8_d128" },
    [KV_E4M3] = { "attention_group_e4m3_d64", "attention_group_e4m3_d128" },
};

/* N_TILE_DIMS: there is none. */
static uint32_t tile_dim_index(uint32_t head_dim)
{
    uint32_t i = 0;

    while (i < N_TILE_DIMS && tile_dims[i] != head_dim)
        i++;
    return i;
}

static uint32_t decode_dim_index(const struct attention_setup *s)
{
    uint32_t i = 0;

    while (i < N_DECODE_DIMS && (!loads_fit(s) || s->head_dim > decode_dims[i]))
        i++;
    return i;
}

bool attention_has_groups(const struct attention_setup *s, uint32_t compute_capability)
{
    return compute_capability >= 75 && loads_fit(s) && s->head_dim <= 128 && s->kv != KV_F32;
}

static uint32_t item_queries(const struct attention_setup *s)
{
    return s->is_grouped ? ATTENTION_GROUP_QUERIES : ATTENTION_QUERIES_MAX;
}

uint32_t attention_queries_max(const struct attention_setup *s)
{
    return divide_up(group_of(s), divide_up(group_of(s), item_queries(s)));
}

bool attention_has_tiles(const struct attention_setup *s, uint32_t compute_capability)
{
    return compute_capability >= 80 && loads_fit(s) && tile_dim_index(s->head_dim) < N_TILE_DIMS;
}

/* ---- how a sequence is cut ---- */

/* A sequence's queries of a KV head fall into blocks of nearly the same size. */
struct cut {
    uint32_t n_queries, n_blocks;
    uint32_t n_splits; /* that its last row sees */
};

static struct cut cut_of(const struct attention_setup *s, const struct batch_seq *q)
{
    struct cut c = { .n_queries = q->n_rows * group_of(s),
                     .n_splits = divide_up(q->start + q->n_rows, ATTENTION_SPLIT_TOKENS) };

    c.n_blocks = divide_up(c.n_queries, item_queries(s));
    return c;
}

static uint32_t block_begin(const struct cut *c, uint32_t block)
{
    return (uint32_t)((uint64_t)c->n_queries * block / c->n_blocks);
}

static bool is_tiled(const struct attention_setup *s, const struct batch_seq *q)
{
    return q->n_rows >= s->tile_rows_min;
}

/* ---- writing ---- */

struct writer {
    const struct attention_setup *s;
    const struct batch *batch;
    struct attention_header *plan;
    uint32_t at; /* byte of the buffer */
};

static void *append(struct writer *w, const void *what, uint32_t bytes)
{
    void *to = (char *)w->plan + w->at;

    memcpy(to, what, bytes);
    w->at += bytes;
    return to;
}

static uint32_t begin_list(struct writer *w)
{
    w->at = (w->at + 15) / 16 * 16;
    return w->at;
}

/* A block of a sequence's queries with all its splits, and the slots it gets. */
static struct attention_item item_of(const struct writer *w, const struct batch_seq *q,
                                     uint32_t pages, const struct cut *c, uint32_t block,
                                     uint32_t *slots)
{
    struct attention_item item = { .first_row = q->first_row,
                                   .position = q->start,
                                   .pages = pages,
                                   .query_begin = block_begin(c, block),
                                   .n_queries = block_begin(c, block + 1) - block_begin(c, block),
                                   .split_end = c->n_splits,
                                   .partial = ATTENTION_WHOLE };
    uint64_t wanted = (uint64_t)item.n_queries * c->n_splits;

    if (c->n_splits > 1 && *slots + wanted <= (uint64_t)w->s->slots_max * group_of(w->s)) {
        item.partial = *slots;
        *slots += (uint32_t)wanted;
    }
    return item;
}

/* A block for each split of an item that has slots, else one for all. */
static void append_splits(struct writer *w, const struct attention_item *whole)
{
    if (whole->partial == ATTENTION_WHOLE) {
        append(w, whole, sizeof *whole);
        w->plan->n_items++;
        return;
    }
    for (uint32_t split = 0; split < whole->split_end; split++) {
        struct attention_item item = *whole;
        item.split_begin = split;
        item.split_end = split + 1;
        item.partial += split * whole->n_queries;
        append(w, &item, sizeof item);
        w->plan->n_items++;
    }
}

static void append_combine(struct writer *w, const struct attention_item *whole)
{
    if (whole->partial == ATTENTION_WHOLE)
        return;
    append(w, whole, sizeof *whole);
    w->plan->n_combines++;
}

/* Each block of the sequences that have no tiles, in order; slots are given alike each time. */
static void for_each_item(struct writer *w,
                          void (*append_item)(struct writer *, const struct attention_item *))
{
    uint32_t slots = 0, pages = 0;

    for (uint32_t i = 0; i < w->batch->n_seqs; pages += w->batch->seqs[i++].n_pages) {
        const struct batch_seq *q = &w->batch->seqs[i];
        struct cut c = cut_of(w->s, q);
        if (is_tiled(w->s, q))
            continue;
        for (uint32_t block = 0; block < c.n_blocks; block++) {
            struct attention_item item = item_of(w, q, pages, &c, block, &slots);
            append_item(w, &item);
        }
    }
}

/* The last rows first: they see most and take longest. */
static void append_tiles(struct writer *w)
{
    uint32_t pages = 0;

    for (uint32_t i = 0; i < w->batch->n_seqs; pages += w->batch->seqs[i++].n_pages) {
        const struct batch_seq *q = &w->batch->seqs[i];
        if (!is_tiled(w->s, q))
            continue;
        for (uint32_t t = divide_up(q->n_rows, ATTENTION_TILE_ROWS); t-- > 0;) {
            uint32_t row = t * ATTENTION_TILE_ROWS, left = q->n_rows - row;
            struct attention_tile tile = { .first_row = q->first_row + row,
                                           .n_rows = left < ATTENTION_TILE_ROWS
                                                         ? left
                                                         : ATTENTION_TILE_ROWS,
                                           .position = q->start + row,
                                           .pages = pages };
            append(w, &tile, sizeof tile);
            w->plan->n_tiles++;
        }
    }
}

static void append_pages(struct writer *w)
{
    for (uint32_t i = 0; i < w->batch->n_seqs; i++) {
        const struct batch_seq *q = &w->batch->seqs[i];
        append(w, q->pages, q->n_pages * (uint32_t)sizeof *q->pages);
        w->plan->n_pages += q->n_pages;
    }
}

static uint32_t queries_of(const struct attention_header *plan)
{
    const struct attention_item *items = (const void *)((const char *)plan + plan->items_offset);
    uint32_t most = 1;

    for (uint32_t i = 0; i < plan->n_items; i++)
        most = items[i].n_queries > most ? items[i].n_queries : most;
    return most;
}

const struct attention_header *attention_plan_build(void *buffer, const struct attention_setup *s,
                                                    const struct batch *batch)
{
    struct writer w = { .s = s, .batch = batch, .plan = buffer, .at = sizeof *w.plan };

    assert((uintptr_t)buffer % 16 == 0);
    assert(batch->n_rows <= s->rows_max && batch->n_seqs <= s->seqs_max);
    *w.plan = (struct attention_header){ .format = s->kv };
    w.plan->items_offset = begin_list(&w);
    for_each_item(&w, append_splits);
    w.plan->combines_offset = begin_list(&w);
    for_each_item(&w, append_combine);
    w.plan->tiles_offset = begin_list(&w);
    append_tiles(&w);
    w.plan->pages_offset = begin_list(&w);
    append_pages(&w);
    w.plan->bytes = begin_list(&w);
    w.plan->queries_max = queries_of(w.plan);
    return w.plan;
}

/* ---- sizes ---- */

static uint32_t tiles_max(const struct attention_setup *s)
{
    uint32_t seqs;

    if (s->tile_rows_min > s->rows_max)
        return 0;
    seqs = s->rows_max / (s->tile_rows_min ? s->tile_rows_min : 1);
    return s->rows_max / ATTENTION_TILE_ROWS + (seqs < s->seqs_max ? seqs : s->seqs_max);
}

struct attention_limits attention_plan_limits(const struct attention_setup *s, uint64_t n_pages_max)
{
    uint32_t blocks = s->rows_max * divide_up(group_of(s), item_queries(s));
    uint32_t slots = s->slots_max * group_of(s);
    struct attention_limits l = { .n_items = blocks + slots,
                                  .n_combines = blocks < slots / 2 ? blocks : slots / 2,
                                  .n_tiles = tiles_max(s) };

    assert(s->n_heads % s->n_kv_heads == 0 && s->head_dim <= ATTENTION_DECODE_DIM_MAX);
    assert(s->page_tokens >= 1 && s->page_tokens <= 256);
    assert(s->positions_max <= ATTENTION_POSITIONS_MAX);
    l.partial_bytes = slots * attention_slot_bytes(s->n_kv_heads, s->head_dim);
    l.plan_bytes = sizeof(struct attention_header) +
                   ((size_t)l.n_items + l.n_combines) * sizeof(struct attention_item) +
                   l.n_tiles * sizeof(struct attention_tile) + n_pages_max * sizeof(uint32_t) + 15;
    l.plan_bytes = l.plan_bytes / 16 * 16;
    return l;
}

/* ---- launches ---- */

/* Blocks of a grid whose y is KV heads: not more than find work at once, and some to even it out. */
static uint32_t blocks_for(const struct attention_setup *s, uint32_t n)
{
    uint32_t most = divide_up(ATTENTION_BLOCKS_MAX, s->n_kv_heads);

    return n < most ? n : most;
}

static const char *decode_name(const struct attention_setup *s, const struct attention_header *plan)
{
    if (s->is_grouped)
        return group_names[s->kv][s->head_dim > 64];
    return decode_names[s->kv][plan->queries_max > 1][decode_dim_index(s)];
}

uint32_t attention_launches(struct attention_launch out[ATTENTION_LAUNCHES],
                            const struct attention_setup *s, const struct attention_header *plan)
{
    uint32_t n = 0;

    if (plan->n_items)
        out[n++] = (struct attention_launch){
            .name = decode_name(s, plan),
            .grid_x = blocks_for(s, plan->n_items),
            .grid_y = s->n_kv_heads,
            .threads = ATTENTION_DECODE_THREADS,
        };
    if (plan->n_combines)
        out[n++] = (struct attention_launch){
            .name = "attention_combine",
            .grid_x = blocks_for(s, plan->n_combines),
            .grid_y = s->n_kv_heads,
            .threads = ATTENTION_COMBINE_THREADS,
        };
    if (plan->n_tiles)
        out[n++] = (struct attention_launch){
            .name = prefill_names[s->kv == KV_F16][tile_dim_index(s->head_dim)],
            .grid_x = s->n_heads,
            .grid_y = plan->n_tiles,
            .threads = ATTENTION_PREFILL_THREADS,
            .shared_bytes = ATTENTION_PREFILL_SHARED(s->head_dim),
        };
    return n;
}
