/* int_tiles_amx.h - integer products of many tokens (int_panels.h) by the matrix unit: AMX, tiles of 16 rows of 64 bytes.
 *
 * A product is up to 16 tokens by the 16 rows of a panel by the 32 columns of a block: TDPBSSD, 16 cycles.  A
 * panel's lines are the layout that it wants of its second operand, tokens' codes that of its first, and its sums of 32
 * bits are exact, so all is as with vectors, bit for bit.  What remains for vectors is one conversion, one
 * multiplication and one FMA for 16 sums: 24 cycles a product on two ports, beside 16 that storing its sums takes, for
 * only memory leads from a tile to a vector.  So scales for each 32 columns allow a third of what the unit can do.
 *
 * Codes are unpacked to signed bytes, and numbers to floats, for a piece of a pair of panels that the first cache holds
 * beside a tile of tokens; then each tile passes by both.  The sums of one panel by a tile are 16 registers.
 *
 * The unit waits 52 cycles for its own sums: they are stored once the next product has begun. */

#include "gpu-worker/ops/amx.h"
#include "gpu-worker/ops/int_groups.h"

enum {
    TOKENS_MIN = TILE_TOKENS + 1, /* a lone tile gains nothing: bench/README.md */
    PIECE = 6,                    /* superblocks */
    PIECE_OF_FEW = 4,             /* the first cache has what is fetched of the next one, too */
    FEW_TILES = 3,
};

/* A block of a panel. */
struct unpacked {
    _Alignas(64) uint8_t codes[LINES][LINE_BYTES]; /* signed */
    float numbers[PACKING_NUMBERS_MAX][PACKING_INT_ROWS];
};

/* What register tiles differ in. */
enum kind { KIND_SCALE, KIND_SCALE_AND_MIN, KIND_TWO_SCALES };

INLINE enum kind kind_of(const enum dtype dtype)
{
    return packing_has_min(dtype) ? KIND_SCALE_AND_MIN
           : dtype == DTYPE_I6    ? KIND_TWO_SCALES
                                  : KIND_SCALE;
}

/* ---- unpacking ---- */

INLINE vi signed_codes(const enum dtype dtype, vi q)
{
    if (packing_offset(dtype) == 0)
        return q;
    return vi_sub8(q, vi_broadcast(&(uint32_t){ 0x01010101u * (uint32_t)packing_offset(dtype) }));
}

INLINE void unpack_block(const enum dtype dtype, struct unpacked *to, const uint8_t *superblock,
                         const uint32_t b)
{
    const uint8_t *lines = lines_of(dtype, superblock, b, 0);
    vi q[LINES];

    if (dtype != DTYPE_I8)
        load_codes(dtype, q, lines);
#pragma GCC unroll 8
    for (int c = 0; c < LINES; c++) {
        vi line = dtype == DTYPE_I8 ? vi_load(lines + c * LINE_BYTES) : q[c];
        vi_store(to->codes[c], signed_codes(dtype, line));
    }
#pragma GCC unroll 2
    for (uint32_t i = 0; i < packing_numbers(dtype); i++)
        vf_store(to->numbers[i], scales_of(superblock + i * LINE_BYTES, b, 0));
}

INLINE void unpack(const enum dtype dtype, struct unpacked *to, const uint8_t *superblock,
                   uint32_t n_superblocks)
{
    for (; n_superblocks > 0; n_superblocks--, superblock += superblock_bytes(dtype), to += 2) {
        unpack_block(dtype, to, superblock, 0);
        unpack_block(dtype, to + 1, superblock, 1);
    }
}

/* ---- a register tile: n tokens, constant after inlining, so that the sums live in registers ---- */

/* One panel by a tile of tokens, some superblocks of their columns. */
struct tile_job {
    const struct unpacked *w;
    uint32_t n_superblocks;
    bool is_first;        /* sums begin at 0 */
    const uint8_t *x;     /* the tokens' blocks (int_input.h) */
    const uint8_t *ahead; /* fetched meanwhile */
    uint32_t ahead_lines; /* for each superblock */
    float (*sums)[PACKING_INT_ROWS];
    const struct linear_job *out; /* sums go to its output; NULL: they stay */
    uint32_t row, token;          /* of the first */
};

/* The unit multiplies and adds up whole blocks, or, where they have two scales, half ones.  `turn` is 0 and 1 by turns. */
INLINE void multiply(const enum kind kind, const int turn, const struct unpacked *w,
                     const uint8_t *x)
{
    const int half = kind == KIND_TWO_SCALES ? turn : 0;
    const uint8_t *codes = w->codes[half * LINES / 2];

    x += half * PACKING_BLOCK / 2;
    if (turn == 0) {
        _tile_loadd(2, x, PACKING_BLOCK);
        _tile_loadd(4, codes, LINE_BYTES);
        _tile_zero(0);
        _tile_dpbssd(0, 2, 4);
    } else {
        _tile_loadd(3, x, PACKING_BLOCK);
        _tile_loadd(5, codes, LINE_BYTES);
        _tile_zero(1);
        _tile_dpbssd(1, 3, 5);
    }
}

typedef int32_t whole_sums[TILE_TOKENS][PACKING_INT_ROWS];

INLINE void store_whole(const int turn, whole_sums *to)
{
    if (turn == 0)
        _tile_stored(0, to, LINE_BYTES);
    else
        _tile_stored(1, to, LINE_BYTES);
}

/* sum = fma(scale_w * scale_x, whole, sum); sum = fma(min, sum_x, sum) */
INLINE void add_whole(const enum kind kind, const int n, const int turn, vf sums[TILE_TOKENS],
                      const whole_sums *whole, const struct unpacked *w, const uint8_t *x)
{
    const float *xs = int_tile_scales(x, (uint32_t)n), *x_sums = int_tile_sums(x, (uint32_t)n);
    const vf ws = vf_load(w->numbers[kind == KIND_TWO_SCALES ? turn : 0]);

#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = vf_fma(vf_mul(ws, vf_set1(xs[t])), vf_of_int(vi_load((*whole)[t])), sums[t]);
    if (kind != KIND_SCALE_AND_MIN)
        return;
    const vf min = vf_load(w->numbers[1]);
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = vf_fma(min, vf_set1(x_sums[t]), sums[t]);
}

/* Product i of a tile, of which two make a step: its block. */
INLINE uint32_t block_of(const enum kind kind, uint32_t i)
{
    return kind == KIND_TWO_SCALES ? i / 2 : i;
}

INLINE void add_product(const enum kind kind, const int n, const int turn, vf sums[TILE_TOKENS],
                        whole_sums *whole, const struct tile_job *j, uint32_t i)
{
    const uint32_t b = block_of(kind, i);

    add_whole(kind, n, turn, sums, whole, j->w + b, j->x + (size_t)b * n * INT_INPUT_BYTES);
}

/* While product i is made, i - 1 is stored and i - 2 is added: what was stored just now would be waited for. */
INLINE void add_products(const enum kind kind, const int n, vf sums[TILE_TOKENS],
                         const struct tile_job *j)
{
    const uint32_t n_products = j->n_superblocks * (kind == KIND_TWO_SCALES ? 4 : 2);
    const uint8_t *ahead = j->ahead;
    _Alignas(64) whole_sums whole[2];

    for (uint32_t i = 0; i < n_products; i += 2) {
#pragma GCC unroll 2
        for (int turn = 0; turn < 2; turn++) {
            const uint32_t b = block_of(kind, i + (uint32_t)turn);
            multiply(kind, turn, j->w + b, j->x + (size_t)b * n * INT_INPUT_BYTES);
            if (i > 0 || turn > 0)
                store_whole(!turn, &whole[!turn]);
            if (i > 0)
                add_product(kind, n, turn, sums, &whole[turn], j, i + (uint32_t)turn - 2);
        }
        if (kind != KIND_TWO_SCALES || i % 4 == 0)
            for (uint32_t k = 0; k < j->ahead_lines; k++, ahead += LINE_BYTES)
                _mm_prefetch((const char *)ahead, _MM_HINT_T0);
    }
    store_whole(1, &whole[1]);
    add_product(kind, n, 0, sums, &whole[0], j, n_products - 2);
    add_product(kind, n, 1, sums, &whole[1], j, n_products - 1);
}

INLINE void register_tile(const enum kind kind, const int n, const struct tile_job *j)
{
    vf sums[TILE_TOKENS];

#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = j->is_first ? vf_set1(0) : vf_load(j->sums[t]);
    if (j->out)
#pragma GCC unroll 16
        for (int t = 0; t < n; t++)
            __builtin_prefetch(output_at(j->out, j->token + (uint32_t)t, j->row), 1);
    add_products(kind, n, sums, j);
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        if (j->out)
            put_vector(j->out, output_at(j->out, j->token + (uint32_t)t, j->row), j->row, sums[t]);
        else
            vf_store(j->sums[t], sums[t]);
}

typedef void tile_function(const struct tile_job *j);

#define TILE_FUNCTION(name, kind, n)                                                               \
    static __attribute__((noinline)) void name##_##n(const struct tile_job *j)                     \
    {                                                                                              \
        register_tile(kind, n, j);                                                                 \
    }

/* TOKENS_MIN and more in tiles of at most 16 make tiles of 8 to 16. */
#define TILE_FUNCTIONS(name, kind)                                                                 \
    TILE_FUNCTION(name, kind, 8)                                                                   \
    TILE_FUNCTION(name, kind, 9)                                                                   \
    TILE_FUNCTION(name, kind, 10)                                                                  \
    TILE_FUNCTION(name, kind, 11)                                                                  \
    TILE_FUNCTION(name, kind, 12)                                                                  \
    TILE_FUNCTION(name, kind, 13)                                                                  \
    TILE_FUNCTION(name, kind, 14)                                                                  \
    TILE_FUNCTION(name, kind, 15)                                                                  \
    TILE_FUNCTION(name, kind, 16)                                                                  \
    static tile_function *const name[TILE_TOKENS + 1] = {                                          \
        NULL,      NULL,      NULL,      NULL,      NULL,      NULL,                               \
        NULL,      NULL,      name##_8,  name##_9,  name##_10, name##_11,                          \
        name##_12, name##_13, name##_14, name##_15, name##_16,                                     \
    };

TILE_FUNCTIONS(tiles_scale, KIND_SCALE)
TILE_FUNCTIONS(tiles_min, KIND_SCALE_AND_MIN)
TILE_FUNCTIONS(tiles_two, KIND_TWO_SCALES)

INLINE tile_function *tile_function_of(const enum kind kind, uint32_t n)
{
    return kind == KIND_SCALE           ? tiles_scale[n]
           : kind == KIND_SCALE_AND_MIN ? tiles_min[n]
                                        : tiles_two[n];
}

/* ---- a pair of panels ---- */

/* The unit's tiles: sums 0 and 1, tokens 2 and 3, codes 4 and 5.  A smaller tile of tokens computes one row too
 * many, from bytes that are there and for a sum that nobody reads. */
INLINE void configure(const struct group *g, const enum dtype dtype)
{
    struct amx_config c = { .palette = 1 };
    const uint16_t columns = dtype == DTYPE_I6 ? PACKING_BLOCK / 2 : PACKING_BLOCK;
    uint8_t n_max = 0;

    for (uint32_t i = 0; i < g->n_tiles; i++)
        n_max = g->tiles[i].n > n_max ? (uint8_t)g->tiles[i].n : n_max;
    for (int turn = 0; turn < 2; turn++) {
        c.row_bytes[turn] = c.row_bytes[4 + turn] = LINE_BYTES;
        c.row_bytes[2 + turn] = columns;
        c.rows[turn] = c.rows[2 + turn] = n_max;
        c.rows[4 + turn] = (uint8_t)(columns / 4);
    }
    amx_reads(&c);
    _tile_loadconfig(&c);
}

/* Superblocks first and on, which are unpacked at a time, by all tiles. */
INLINE void run_piece(const enum dtype dtype, struct group *g, uint32_t pair, uint32_t first,
                      struct unpacked (*w)[2 * PIECE], const struct tile_job *of_pair)
{
    const uint32_t lines = (uint32_t)(superblock_bytes(dtype) / LINE_BYTES), n = g->n_tiles;
    struct tile_job job = *of_pair;

    for (uint32_t p = 0; p < TILE_PANELS && pair * TILE_PANELS + p < g->n_panels; p++)
        unpack(dtype, w[p], panel_at(g, dtype, pair, first) + p * g->panel_bytes,
               job.n_superblocks);
    amx_reads(w);
    for (uint32_t i = 0; i < n; i++) {
        const struct int_tile *t = &g->tiles[i];
        job.x = t->block + (size_t)first * 2 * t->n * INT_INPUT_BYTES;
        job.token = t->first;
        job.ahead_lines = lines * (i + 1) / n - lines * i / n;
        for (uint32_t p = 0; p < TILE_PANELS && pair * TILE_PANELS + p < g->n_panels; p++) {
            struct tile_job of_panel = job;
            of_panel.w = w[p];
            of_panel.ahead += p * g->panel_bytes;
            of_panel.sums = g->sums[pair][i][p];
            of_panel.row += p * PACKING_INT_ROWS;
            tile_function_of(kind_of(dtype), t->n)(&of_panel);
        }
        job.ahead += (size_t)job.ahead_lines * job.n_superblocks * LINE_BYTES;
    }
}

INLINE void run_pair(const struct linear_job *j, const enum dtype dtype, struct group *g,
                     uint32_t pair, struct part part, uint32_t n_superblocks)
{
    const uint32_t size = g->n_tiles <= FEW_TILES ? PIECE_OF_FEW : PIECE;
    const uint32_t n = part.end - part.begin, n_pieces = (n + size - 1) / size;
    const uint8_t *ahead = next_to_read(g, dtype, pair, part, n_superblocks);
    struct unpacked w[TILE_PANELS][2 * PIECE];
    struct tile_job job = { .row = g->row + pair * TILE_PANELS * PACKING_INT_ROWS };

    configure(g, dtype);
    for (uint32_t i = 0; i < n_pieces; i++) {
        const uint32_t begin = n * i / n_pieces, end = n * (i + 1) / n_pieces;
        const struct part piece = { part.begin + begin, part.begin + end };
        job.n_superblocks = end - begin;
        job.is_first = piece.begin == 0;
        job.ahead = end < n ? panel_at(g, dtype, pair, piece.end) : ahead;
        job.out = piece.end == n_superblocks && is_whole(j, g, pair) ? j : NULL;
        run_piece(dtype, g, pair, piece.begin, w, &job);
    }
    _tile_release();
}
