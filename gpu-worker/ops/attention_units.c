/* attention_units.c - which query rows are computed together. */
#include "gpu-worker/ops/attention_units.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

void attention_order_init(struct attention_order *o, const struct ops_setup *setup,
                          uint32_t seqs_max)
{
    *o = (struct attention_order){
        .places = mem_zalloc(seqs_max, sizeof *o->places),
        .groups = mem_zalloc(seqs_max + (size_t)1, sizeof *o->groups),
        .group = setup->n_heads / setup->n_kv_heads,
    };
}

void attention_order_fini(struct attention_order *o)
{
    free(o->places);
    free(o->groups);
}

static int by_page(const void *a, const void *b)
{
    const struct attention_place *x = a, *y = b;

    if (x->page != y->page)
        return x->page < y->page ? -1 : 1;
    return x->seq < y->seq ? -1 : x->seq > y->seq;
}

static uint32_t blocks_of(uint32_t n_rows)
{
    return (n_rows + ATTENTION_ROWS - 1) / ATTENTION_ROWS;
}

/* Of each of a group's blocks but the last: alike, so that threads are, and whole tiles. */
static uint32_t rows_of_block(uint32_t n_rows, uint32_t n_blocks)
{
    uint32_t rows = (n_rows + n_blocks - 1) / n_blocks, tile = ATTENTION_TILE_ROWS;

    return (rows + tile - 1) / tile * tile;
}

void attention_order_begin(struct attention_order *o, const struct batch *batch)
{
    struct attention_group *g = o->groups;

    for (uint32_t i = 0; i < batch->n_seqs; i++)
        o->places[i] = (struct attention_place){ .page = batch->seqs[i].pages[0], .seq = i };
    qsort(o->places, batch->n_seqs, sizeof *o->places, by_page);
    *g = (struct attention_group){ 0 };
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        struct attention_place *p = &o->places[i];
        if (i > 0 && p->page != p[-1].page) {
            g[1] = (struct attention_group){ i, g->first_block + blocks_of(g->n_rows), 0 };
            g++;
        }
        p->first_row = g->n_rows;
        g->n_rows += batch->seqs[p->seq].n_rows * o->group;
    }
    g[1] = (struct attention_group){ batch->n_seqs, g->first_block + blocks_of(g->n_rows), 0 };
    o->n_groups = (uint32_t)(g + 1 - o->groups);
}

static const struct attention_group *group_of_block(const struct attention_order *o, uint32_t block)
{
    uint32_t low = 0, high = o->n_groups;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (o->groups[middle].first_block <= block)
            low = middle;
        else
            high = middle;
    }
    return &o->groups[low];
}

/* The place of the group's row. */
static uint32_t place_of_row(const struct attention_order *o, const struct attention_group *g,
                             uint32_t row)
{
    uint32_t low = g->first_place, high = g[1].first_place;

    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (o->places[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Rows of one sequence, from its row-th on, up to rows_max in the unit. */
static void add_rows(struct attention_unit *u, const struct batch_seq *q, uint32_t group,
                     uint32_t row, uint32_t rows_max, const struct ops_setup *setup,
                     const float *qkv)
{
    size_t dim = setup->head_dim, stride = (setup->n_heads + 2 * (size_t)setup->n_kv_heads) * dim;
    uint32_t t = row / group, h = row % group;

    for (; t < q->n_rows && u->n_rows < rows_max; u->n_rows++) {
        uint32_t head = u->head * group + h, batch_row = q->first_row + t;
        u->rows[u->n_rows] =
            (struct attention_row){ qkv + batch_row * stride + head * dim, q->pages, q->start + t };
        u->batch_rows[u->n_rows] = batch_row;
        u->heads[u->n_rows] = head;
        if (++h == group) {
            h = 0;
            t++;
        }
    }
}

void attention_unit_at(struct attention_unit *u, const struct attention_order *o,
                       const struct batch *batch, const struct ops_setup *setup, const float *qkv,
                       uint32_t window, uint32_t index)
{
    const struct attention_group *g = group_of_block(o, index / setup->n_kv_heads);
    uint32_t n_blocks = g[1].first_block - g->first_block;
    uint32_t in_group = index - g->first_block * setup->n_kv_heads;
    uint32_t rows_max = rows_of_block(g->n_rows, n_blocks);
    uint32_t row = in_group % n_blocks * rows_max, place = place_of_row(o, g, row);

    u->head = in_group / n_blocks;
    u->n_rows = 0;
    for (; place < g[1].first_place && u->n_rows < rows_max; place++) {
        const struct attention_place *p = &o->places[place];
        add_rows(u, &batch->seqs[p->seq], o->group, row - p->first_row, rows_max, setup, qkv);
        row = p->first_row + batch->seqs[p->seq].n_rows * o->group; /* the next one's first */
    }
    u->begin = UINT32_MAX;
    u->end = 0;
    for (uint32_t i = 0; i < u->n_rows; i++) {
        uint32_t first = attention_first(&u->rows[i], window);
        u->begin = first < u->begin ? first : u->begin;
        u->end = u->rows[i].last >= u->end ? u->rows[i].last + 1 : u->end;
    }
}
