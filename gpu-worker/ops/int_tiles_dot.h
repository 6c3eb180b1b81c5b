/* int_tiles_dot.h - integer products of many tokens (int_panels.h) where one instruction makes four products and
 * there are 32 registers.
 *
 * A register tile is two panels by up to TILE_TOKENS tokens: twelve sums of integers, twelve of floats, two
 * vectors of codes, one of the input.  A block of 32 columns is 96 products, and 24 multiplications and FMAs
 * for its scales.  On Zen 5 all of them go to the same two ports: 60 cycles, so that 80 % of the instruction's
 * peak is the most that scales for each 32 allow; 65 to 68 are taken.  Codes are unpacked in registers, there on
 * other ports.
 *
 * Tiles of GROUP_TILES x GROUP_PAIRS make a group.  The columns are cut into parts so that a group's input stays in
 * the second cache while all its pairs of panels pass by, and while a pair is multiplied the next one is fetched: memory
 * is asked evenly, also when few tokens make it the limit. */

enum {
    TILE_PANELS = 2,
    GROUP_TILES = 16,
    GROUP_PAIRS = 8,
    PART_BYTES = 512 << 10,        /* of a group's input */
    ALONE_AHEAD = 64 * LINE_BYTES, /* fetched so far ahead where there is but one tile */
};

typedef float tile_sums[TILE_PANELS][TILE_TOKENS][PACKING_INT_ROWS];

/* Two panels by a tile of tokens, some superblocks of their columns. */
struct tile_job {
    const uint8_t *panel;
    size_t step; /* to the second panel; 0: there is none, and its sums go nowhere */
    uint32_t n_superblocks;
    bool is_first;        /* sums begin at 0 */
    const uint8_t *x;     /* the tokens' blocks (int_input.h) */
    const uint8_t *ahead; /* fetched meanwhile, and as much a `step` further */
    uint32_t ahead_lines; /* for each superblock */
    float (*sums)[TILE_TOKENS][PACKING_INT_ROWS];
    const struct linear_job *out; /* sums go to its output; NULL: they stay */
    uint32_t row, token;          /* of the first */
};

/* ---- a register tile: n tokens, constant after inlining, so that the sums live in registers ---- */

/* Line c of a block: codes of columns 4c .. 4c + 3 of all rows. */
INLINE vi codes_of(const enum dtype dtype, const uint8_t *lines, const int c)
{
    const int half = LINES / 2, at = c % half;
    vi q, upper;

    if (dtype == DTYPE_I8)
        return vi_load(lines + c * LINE_BYTES);
    q = vi_load(lines + at * LINE_BYTES);
    q = vi_and(c < half ? q : vi_shift_right(q, 4), vi_broadcast(&(uint32_t){ 0x0f0f0f0f }));
    if (dtype == DTYPE_I5M) {
        upper = vi_load(lines + 4 * LINE_BYTES);
        upper = c <= 4 ? vi_shift_left(upper, 4 - c) : vi_shift_right(upper, c - 4);
        q = vi_or(q, vi_and(upper, vi_broadcast(&(uint32_t){ 0x10101010 })));
    }
    if (dtype == DTYPE_I6) {
        upper = vi_load(lines + (4 + c / half) * LINE_BYTES);
        upper = at <= 2 ? vi_shift_left(upper, 4 - 2 * at) : vi_shift_right(upper, 2);
        q = vi_or(q, vi_and(upper, vi_broadcast(&(uint32_t){ 0x30303030 })));
    }
    return q;
}

/* Lines first .. end - 1 of block b, whose scales are number `which` of the panels. */
INLINE void add_lines(const enum dtype dtype, const int n, vf sums[TILE_TOKENS][2],
                      const struct tile_job *j, const int b, const int first, const int end,
                      const int which)
{
    const int32_t *offsets = int_tile_offsets(j->x, (uint32_t)n, dtype) + which * n;
    const float *xs = int_tile_scales(j->x, (uint32_t)n);
    const uint8_t *lines = lines_of(dtype, j->panel, (uint32_t)b, 0);
    vi a[TILE_TOKENS][2];

#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        a[t][0] = a[t][1] = packing_offset(dtype) != 0 ? vi_broadcast(offsets + t) : vi_zero();
#pragma GCC unroll 8
    for (int c = first; c < end; c++) {
        vi w[2] = { codes_of(dtype, lines, c), codes_of(dtype, lines + j->step, c) };
#pragma GCC unroll 8
        for (int t = 0; t < n; t++) {
            vi four = vi_broadcast(j->x + t * PACKING_BLOCK + 4 * c);
            vi_keep(four); /* one load for both products */
#pragma GCC unroll 2
            for (int v = 0; v < 2; v++) {
                a[t][v] = vi_dot(a[t][v], w[v], four);
                vi_keep(a[t][v]); /* added where it is made: as a tree, sums need more registers */
            }
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vf ws = scales_of(j->panel + (size_t)v * j->step + which * LINE_BYTES, (uint32_t)b, 0);
#pragma GCC unroll 8
        for (int t = 0; t < n; t++)
            sums[t][v] = vf_fma(vf_mul(ws, vf_set1(xs[t])), vf_of_int(a[t][v]), sums[t][v]);
    }
}

/* sum = fma(min, sum_x, sum) */
INLINE void add_minimums(const int n, vf sums[TILE_TOKENS][2], const struct tile_job *j,
                         const int b)
{
    const float *xs = int_tile_sums(j->x, (uint32_t)n);

#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vf min = second_numbers_of(j->panel + (size_t)v * j->step, (uint32_t)b, 0);
#pragma GCC unroll 8
        for (int t = 0; t < n; t++)
            sums[t][v] = vf_fma(min, vf_set1(xs[t]), sums[t][v]);
    }
}

INLINE void add_block(const enum dtype dtype, const int n, vf sums[TILE_TOKENS][2],
                      const struct tile_job *j, const int b)
{
    if (dtype == DTYPE_I6) {
        add_lines(dtype, n, sums, j, b, 0, LINES / 2, 0);
        add_lines(dtype, n, sums, j, b, LINES / 2, LINES, 1);
    } else {
        add_lines(dtype, n, sums, j, b, 0, LINES, 0);
    }
    if (packing_has_min(dtype))
        add_minimums(n, sums, j, b);
}

INLINE float *output_at(const struct linear_job *j, uint32_t token, uint32_t row)
{
    return j->y + token * j->y_stride + row;
}

INLINE void fetch_output(const int n, const struct tile_job *j)
{
#pragma GCC unroll 16
    for (int i = 0; i < 2 * n; i++)
        __builtin_prefetch(output_at(j->out, j->token + (uint32_t)i / 2, j->row) + i % 2 * LANES,
                           1);
}

INLINE void put_sums(const int n, vf sums[TILE_TOKENS][2], const struct tile_job *j)
{
#pragma GCC unroll 16
    for (int i = 0; i < 2 * n; i++) {
        uint32_t row = j->row + (uint32_t)(i % 2 * LANES);
        put_vector(j->out, output_at(j->out, j->token + (uint32_t)i / 2, row), row,
                   sums[i / 2][i % 2]);
    }
}

INLINE void register_tile(const enum dtype dtype, const int n, const struct tile_job *all)
{
    struct tile_job j = *all;
    vf sums[TILE_TOKENS][2];

#pragma GCC unroll 16
    for (int i = 0; i < 2 * n; i++)
        sums[i / 2][i % 2] = j.is_first ? vf_set1(0) : vf_load(j.sums[i % 2][i / 2]);
    if (j.out)
        fetch_output(n, &j);
    for (; j.n_superblocks > 0; j.n_superblocks--, j.panel += superblock_bytes(dtype)) {
        for (uint32_t i = 0; i < j.ahead_lines; i++, j.ahead += LINE_BYTES) {
            _mm_prefetch((const char *)j.ahead, _MM_HINT_T0);
            _mm_prefetch((const char *)j.ahead + j.step, _MM_HINT_T0);
        }
#pragma GCC unroll 2
        for (int b = 0; b < 2; b++, j.x += n * INT_INPUT_BYTES)
            add_block(dtype, n, sums, &j, b);
    }
    if (j.out) {
        put_sums(n, sums, &j);
        return;
    }
#pragma GCC unroll 16
    for (int i = 0; i < 2 * n; i++)
        vf_store(j.sums[i % 2][i / 2], sums[i / 2][i % 2]);
}

/* A function for each number of tokens: inlined in one, they would not have all registers. */
typedef void tile_function(const struct tile_job *j);

#define TILE_FUNCTION(name, dtype, n)                                                              \
    static __attribute__((noinline)) void name##_##n(const struct tile_job *j)                     \
    {                                                                                              \
        register_tile(dtype, n, j);                                                                \
    }

/* More than FEW_TOKENS in tiles of at most 6 make tiles of 3 to 6. */
#define TILE_FUNCTIONS(name, dtype)                                                                \
    TILE_FUNCTION(name, dtype, 3)                                                                  \
    TILE_FUNCTION(name, dtype, 4)                                                                  \
    TILE_FUNCTION(name, dtype, 5)                                                                  \
    TILE_FUNCTION(name, dtype, 6)                                                                  \
    static tile_function *const name[TILE_TOKENS + 1] = { NULL,     NULL,     NULL,    name##_3,   \
                                                          name##_4, name##_5, name##_6 };

TILE_FUNCTIONS(tiles_i4, DTYPE_I4)
TILE_FUNCTIONS(tiles_i4m, DTYPE_I4M)
TILE_FUNCTIONS(tiles_i5m, DTYPE_I5M)
TILE_FUNCTIONS(tiles_i6, DTYPE_I6)
TILE_FUNCTIONS(tiles_i8, DTYPE_I8)

INLINE tile_function *tile_function_of(const enum dtype dtype, uint32_t n)
{
    return dtype == DTYPE_I4    ? tiles_i4[n]
           : dtype == DTYPE_I4M ? tiles_i4m[n]
           : dtype == DTYPE_I5M ? tiles_i5m[n]
           : dtype == DTYPE_I6  ? tiles_i6[n]
                                : tiles_i8[n];
}

/* ---- groups ---- */

struct group {
    const uint8_t *panels;
    size_t panel_bytes;
    uint32_t row, n_panels, n_pairs;
    uint32_t n_tiles;
    struct int_tile tiles[GROUP_TILES];
    _Alignas(64) tile_sums sums[GROUP_PAIRS][GROUP_TILES];
};

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
 * panels, even where more tokens come first.  For a lone tile that is too far ahead: it would be done with its
 * own pair before that has come. */
INLINE const uint8_t *next_to_read(const struct group *g, const enum dtype dtype, uint32_t pair,
                                   struct part part, uint32_t n_superblocks)
{
    if (g->n_tiles == 1)
        return panel_at(g, dtype, pair, part.begin) + ALONE_AHEAD;
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

INLINE void run_pair(const struct linear_job *j, const enum dtype dtype, struct group *g,
                     uint32_t pair, struct part part, const uint8_t *ahead)
{
    const uint32_t lines = (uint32_t)(superblock_bytes(dtype) / LINE_BYTES), n = g->n_tiles;
    const bool is_last = part.end == packing_superblocks(j->cols), whole = is_whole(j, g, pair);
    struct tile_job job = {
        .panel = panel_at(g, dtype, pair, part.begin),
        .step = (pair + 1) * TILE_PANELS <= g->n_panels ? g->panel_bytes : 0,
        .n_superblocks = part.end - part.begin,
        .is_first = part.begin == 0,
        .ahead = ahead,
        .out = is_last && whole ? j : NULL,
        .row = g->row + pair * TILE_PANELS * PACKING_INT_ROWS,
    };

    for (uint32_t i = 0; i < n; i++) {
        const struct int_tile *t = &g->tiles[i];
        job.x = t->block + (size_t)part.begin * 2 * t->n * INT_INPUT_BYTES;
        job.sums = g->sums[pair][i];
        job.token = t->first;
        job.ahead_lines = lines * (i + 1) / n - lines * i / n;
        tile_function_of(dtype, t->n)(&job);
        job.ahead += (size_t)job.ahead_lines * job.n_superblocks * LINE_BYTES;
    }
}

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
            run_pair(j, dtype, g, p, part, next_to_read(g, dtype, p, part, n));
    }
    if (!is_whole(j, g, g->n_pairs - 1))
        put_last_pair(j, g, g->n_pairs - 1);
}

INLINE void many_tokens(const struct linear_job *j, const enum dtype dtype, const uint8_t *panels,
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
