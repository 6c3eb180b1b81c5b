/* int_groups.h - integer products (int_panels.h) where sums live in registers: in which order panels
 * and tokens meet.
 *
 * A register tile, two panels by TILE_TOKENS tokens, is the including unit's: int_tiles_dot.h, int_tiles_amx.h.
 *
 * Tiles of GROUP_TILES x GROUP_PAIRS make a group.  The columns are cut into parts so that a group's input stays in
 * the second cache while all its pairs of panels pass by, and while a pair is multiplied the next one is fetched: memory
 * is asked evenly, also when few tokens make it the limit. */

enum {
    TILE_PANELS = 2,
    GROUP_TILES = 16,
    GROUP_PAIRS = 8,
    PART_BYTES = 512 << 10, /* of a group's input */
};

typedef float tile_sums[TILE_PANELS][TILE_TOKENS][PACKING_INT_ROWS];

struct group {
    const uint8_t *panels;
    size_t panel_bytes;
    uint32_t row, n_panels, n_pairs;
    uint32_t n_tiles;
    struct int_tile tiles[GROUP_TILES];
    _Alignas(64) tile_sums sums[GROUP_PAIRS][GROUP_TILES];
};
static_assert(sizeof(struct group) < 300 << 10, "it lies on the stack of a compute thread");

/* Superblocks begin .. end - 1. */
struct part {
    uint32_t begin, end;
};

INLINE const uint8_t *panel_at(const struct group *g, const enum dtype dtype, uint32_t pair,
                               uint32_t superblock)
{
    return g->panels + pair * TILE_PANELS * g->panel_bytes + superblock * superblock_bytes(dtype);
}

/* What memory is read for after this part of a pair: that of the next pair, the first pair's next part, or the next
 * panels, even where more tokens come first. */
INLINE const uint8_t *next_to_read(const struct group *g, const enum dtype dtype, uint32_t pair,
                                   struct part part, uint32_t n_superblocks)
{
    if (pair + 1 < g->n_pairs)
        return panel_at(g, dtype, pair + 1, part.begin);
    return part.end < n_superblocks ? panel_at(g, dtype, 0, part.end)
                                    : panel_at(g, dtype, g->n_pairs, 0);
}

/* Do both panels of a pair have all their rows?  Then a tile may write them as they are. */
INLINE bool is_whole(const struct linear_job *j, const struct group *g, uint32_t pair)
{
    return g->row + (pair + 1) * TILE_PANELS * PACKING_INT_ROWS <= j->rows &&
           (pair + 1) * TILE_PANELS <= g->n_panels;
}

INLINE float *output_at(const struct linear_job *j, uint32_t token, uint32_t row)
{
    return j->y + token * j->y_stride + row;
}

/* The unit's: a part of a pair by all tiles of the group; next_to_read() is fetched meanwhile.  Sums that end here
 * go to the output where the pair is_whole(), and else stay in the group. */
INLINE void run_pair(const struct linear_job *j, const enum dtype dtype, struct group *g,
                     uint32_t pair, struct part part, uint32_t n_superblocks);

/* The last pair's sums, where the matrix or the share ends within it. */
INLINE void put_last_pair(const struct linear_job *j, const struct group *g, uint32_t pair)
{
    for (uint32_t p = pair * TILE_PANELS; p < g->n_panels; p++)
        for (uint32_t i = 0; i < g->n_tiles; i++)
            for (uint32_t t = 0; t < g->tiles[i].n; t++)
                put_rows(j, g->row + p * PACKING_INT_ROWS, g->tiles[i].first + t,
                         g->sums[pair][i][p % TILE_PANELS][t]);
}

INLINE void run_group(const struct linear_job *j, const enum dtype dtype, struct group *g)
{
    const uint32_t n = packing_superblocks(j->cols);
    const size_t bytes = (size_t)n * 2 * g->n_tiles * TILE_TOKENS * INT_INPUT_BYTES;
    const uint32_t n_parts = (uint32_t)(bytes / PART_BYTES + 1);

    for (uint32_t k = 0; k < n_parts; k++) {
        const struct part part = { n * k / n_parts, n * (k + 1) / n_parts };
        for (uint32_t p = 0; p < g->n_pairs; p++)
            run_pair(j, dtype, g, p, part, n);
    }
    if (!is_whole(j, g, g->n_pairs - 1))
        put_last_pair(j, g, g->n_pairs - 1);
}

INLINE void run_panels(const struct linear_job *j, const enum dtype dtype, const uint8_t *panels,
                       uint32_t row_begin, uint32_t row_end)
{
    const uint32_t n_tiles = int_tiles(j->n_tokens, TILE_TOKENS);
    const uint32_t n_groups = (n_tiles + GROUP_TILES - 1) / GROUP_TILES;
    uint32_t left = (row_end - row_begin + PACKING_INT_ROWS - 1) / PACKING_INT_ROWS;
    struct group g;

    g.panels = panels;
    g.panel_bytes = packing_superblocks(j->cols) * superblock_bytes(dtype);
    for (g.row = row_begin; left > 0; left -= g.n_panels) {
        g.n_panels = left < GROUP_PAIRS * TILE_PANELS ? left : GROUP_PAIRS * TILE_PANELS;
        g.n_pairs = (g.n_panels + TILE_PANELS - 1) / TILE_PANELS;
        for (uint32_t i = 0; i < n_groups; i++) {
            uint32_t begin = n_tiles * i / n_groups;
            g.n_tiles = n_tiles * (i + 1) / n_groups - begin;
            for (uint32_t t = 0; t < g.n_tiles; t++)
                g.tiles[t] = int_tile_at(j->x, j->cols, j->n_tokens, TILE_TOKENS, begin + t);
            run_group(j, dtype, &g);
        }
        g.row += g.n_panels * PACKING_INT_ROWS;
        g.panels += g.n_panels * g.panel_bytes;
    }
}
