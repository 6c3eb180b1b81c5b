/* panel_kernels.h - products with panels of F32, F16 and BF16 (packing_float.h), once over a vector `vf`.
 *
 * Included by the units of the vector tiers as vector_kernels.h is, with
 *   vf_fma_into(&c, a, b)  c = vf_fma(a, b, c)
 *   vf_load_low(p), vf_load_high(p)  the halves of VF_LANES words as bf16, widened
 *   TILE_TOKENS    tokens that share the weights of a tile, the sums of which stay in registers
 *   PAIR_TOKENS    with so few tokens a tile takes the panel's 32 rows at once
 *   FETCH_COLS     columns between two fetches of a pass; a lone pass asks for as many lines at once, and a core can have
 *                  but so many under way (16 from Intel)
 *   FETCH_AHEAD    columns that a lone pass fetches ahead
 *
 * Bits.  The sum of a row and a token is acc = fma(w[k], x[k], acc), k ascending from acc = 0, one FMA after
 * the other in one lane; then the bias; then what y held.  Tiles only decide how many such sums run side by
 * side, so neither M nor threads nor the vector's width can change one.
 *
 * The input lies in blocks of PANEL_COLS columns, and in a block in tiles of tokens, [columns][tokens of the
 * tile]: what a step along the columns reads is together, where rows would be a power of two apart and
 * share one set of the first cache.  An odd number of columns is filled up with zeroes.  Tiles are of nearly
 * equal width: 7 tokens are 4 + 3.
 *
 * Prefill: one block of a panel stays in the first cache while the tiles of a supertile pass by, and the block
 * of the input in the second while the panels of a group do; sums wait in memory from block to block.
 *
 * Memory.  Only the first pass over a block reads memory, and none of the others would if each did not fetch its part
 * of the next block into the second cache: 8 streams would wait for the first pass, and memory for the rest.  A lone
 * pass, of up to PAIR_TOKENS streams (F32: TILE_TOKENS), fetches columns after those it multiplies. */
#ifndef VF_LANES
#error "define the vector first"
#endif

#include "gpu-worker/ops/packing_float.h"
#include "gpu-worker/ops/vector_kernels.h"

enum {
    PANEL_COLS = 256,
    PANEL_GROUP = 4,
    SUPERTILE = 120 / TILE_TOKENS, /* tiles */
};

/* ---- the input ---- */

INLINE uint32_t even(uint32_t cols)
{
    return cols + cols % 2;
}

/* Columns k .. of the block of columns that begins there, for a tile whose first token is `first`. */
INLINE size_t tile_at(uint32_t n_tokens, uint32_t cols, uint32_t first, uint32_t k)
{
    uint32_t left = even(cols) - k;

    return (size_t)k * n_tokens + (size_t)first * (left < PANEL_COLS ? left : PANEL_COLS);
}

/* Some tokens of a tile. */
struct tile_part {
    uint32_t first, width; /* of the tile */
    uint32_t begin, end;   /* tokens */
    const float *x[TILE_TOKENS];
    float scale[TILE_TOKENS]; /* of the norm */
};

static void prepare_block(const struct input_job *j, const struct tile_part *p, uint32_t k,
                          uint32_t end)
{
    float *out = (float *)j->out + tile_at(j->n_tokens, j->cols, p->first, k) - p->first;

    for (; k < end; k++, out += p->width)
        for (uint32_t t = p->begin; t < p->end; t++) {
            float x = p->x[t - p->begin][k];
            out[t] = j->norm ? j->norm->w[k] * (x * p->scale[t - p->begin]) : x;
        }
    for (uint32_t t = p->begin; t < p->end && k == j->cols && k % 2 == 1; t++)
        out[t] = 0;
}

static void prepare_tiles(const struct input_job *j, uint32_t begin, uint32_t end)
{
    struct tiles tiles = tiles_of(j->n_tokens, TILE_TOKENS);

    for (uint32_t i = tile_of(tiles, begin); begin < end; i++) {
        struct tile_part p = {
            tile_first(tiles, i), tile_width(tiles, i), begin, end, { NULL }, { 0 }
        };
        if (p.end > p.first + p.width)
            p.end = p.first + p.width;
        for (uint32_t t = p.begin; t < p.end; t++) {
            p.x[t - p.begin] = input_row(j, t);
            if (j->norm)
                p.scale[t - p.begin] = norm_scale(input_row(j, t), j->cols, j->norm->eps);
        }
        for (uint32_t k = 0; k < j->cols; k += PANEL_COLS)
            prepare_block(j, &p, k, j->cols - k < PANEL_COLS ? j->cols : k + PANEL_COLS);
        begin = p.end;
    }
}

/* ---- a tile ---- */

/* n columns of a panel's rows by the tokens of a tile. */
struct tile_job {
    const char *w;
    const float *x;
    uint32_t n;
    float *sums;   /* [tokens][32] so far */
    bool is_first; /* they begin at 0 */
    struct fetch {
        const char *next; /* block of a panel */
        uint32_t n;       /* lines of it that each pass fetches */
        uint32_t pass;
    } fetch;
};

typedef void tile_function(const struct tile_job *j);

/* V vectors of rows of one column, w being where they begin; of BF16 column k + `odd`. */
INLINE void load_column(const enum dtype dtype, const int V, const char *w, bool odd, vf column[4])
{
#pragma GCC unroll 4
    for (int v = 0; v < V; v++)
        if (dtype == DTYPE_F32)
            column[v] = vf_load((const float *)w + v * VF_LANES);
        else if (dtype == DTYPE_F16)
            column[v] = vf_load_f16((const uint16_t *)w + v * VF_LANES);
        else if (odd)
            column[v] = vf_load_high((const uint32_t *)w + v * VF_LANES);
        else
            column[v] = vf_load_low((const uint32_t *)w + v * VF_LANES);
}

/* acc[t][v] += w[v] * x[t] */
INLINE void add_column(const int V, const int T, vf acc[TILE_TOKENS][4], const vf w[4],
                       const float *x)
{
#pragma GCC unroll 12
    for (int t = 0; t < T; t++) {
        vf xs = vf_set1(x[t]);
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vf_fma_into(&acc[t][v], w[v], xs);
    }
}

/* n columns of V vectors of rows by T tokens, acc[t][v] being their sums. */
INLINE void add_columns(const enum dtype dtype, const int V, const int T, vf acc[TILE_TOKENS][4],
                        const char *w, const float *x, uint32_t n)
{
    const uint32_t step = dtype == DTYPE_BF16 ? 2 : 1;

    for (uint32_t k = 0; k < n; k += step, w += 64 * step, x += (size_t)T * step) {
        vf column[4];
        load_column(dtype, V, w, false, column);
        add_column(V, T, acc, column, x);
        if (dtype == DTYPE_BF16) {
            load_column(dtype, V, w, true, column);
            add_column(V, T, acc, column, x + T);
        }
    }
}

/* The columns of a block, and what is to be fetched, evenly spread among them. */
INLINE void add_block_columns(const enum dtype dtype, const int V, const int T,
                              vf acc[TILE_TOKENS][4], const char *w, const struct tile_job *j,
                              uint32_t pass)
{
    const char *line = j->fetch.next + (size_t)(j->fetch.pass + pass) * j->fetch.n * 64;
    const char *end = line + (size_t)j->fetch.n * 64;
    uint32_t lines = (j->fetch.n * FETCH_COLS + j->n - 1) / j->n;

    for (uint32_t k = 0; k < j->n; k += FETCH_COLS) {
        for (uint32_t i = 0; i < lines && line < end; i++, line += 64)
            __builtin_prefetch(line, 0, 2);
        add_columns(dtype, V, T, acc, w + (size_t)k * 64, j->x + (size_t)k * T,
                    j->n - k < FETCH_COLS ? j->n - k : FETCH_COLS);
    }
}

/* All columns of V vectors of rows, at w and sums, by T tokens; V and T are constant after inlining, so that acc
 * lives in registers. */
INLINE void panel_tile(const enum dtype dtype, const int V, const int T, const char *w, float *sums,
                       const struct tile_job *j, uint32_t pass)
{
    const bool is_first = j->is_first;
    vf acc[TILE_TOKENS][4];

#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            acc[t][v] =
                is_first ? vf_set1(0) : vf_load(sums + t * PACKING_FLOAT_ROWS_MAX + v * VF_LANES);
    add_block_columns(dtype, V, T, acc, w, j, pass);
#pragma GCC unroll 12
    for (int t = 0; t < T; t++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            vf_store(sums + t * PACKING_FLOAT_ROWS_MAX + v * VF_LANES, acc[t][v]);
}

INLINE int panel_vectors(const enum dtype dtype)
{
    return (dtype == DTYPE_F32 ? 16 : 32) / VF_LANES;
}

/* Bytes that V vectors of rows take in a line. */
INLINE size_t vector_bytes(const enum dtype dtype)
{
    return VF_LANES * (dtype == DTYPE_F16 ? 2 : 4);
}

/* Vectors of rows that a pass takes for T tokens: all of the panel when registers allow, else two. */
INLINE int pass_vectors(const enum dtype dtype, const int T)
{
    const int all = panel_vectors(dtype);

    return T <= PAIR_TOKENS || all < 2 ? all : 2;
}

/* All rows of the panel for T tokens. */
INLINE void panel_rows(const enum dtype dtype, const int T, const struct tile_job *j)
{
    const int all = panel_vectors(dtype), V = pass_vectors(dtype, T);

#pragma GCC unroll 2
    for (int v = 0; v < all; v += V)
        panel_tile(dtype, V, T, j->w + v * vector_bytes(dtype), j->sums + v * VF_LANES, j,
                   (uint32_t)(v / V));
}

/* A function for each number of tokens: inlined in one, their loops would not have all registers. */
#define TILE_FUNCTION(name, dtype, T)                                                              \
    static __attribute__((noinline)) void name##_##T(const struct tile_job *j)                     \
    {                                                                                              \
        panel_rows(dtype, T, j);                                                                   \
    }

#if TILE_TOKENS == 6
#define TILE_TABLE(name, dtype)                                                                    \
    TILE_FUNCTION(name, dtype, 1)                                                                  \
    TILE_FUNCTION(name, dtype, 2)                                                                  \
    TILE_FUNCTION(name, dtype, 3)                                                                  \
    TILE_FUNCTION(name, dtype, 4)                                                                  \
    TILE_FUNCTION(name, dtype, 5)                                                                  \
    TILE_FUNCTION(name, dtype, 6)                                                                  \
    static tile_function *const name[TILE_TOKENS + 1] = { NULL,     name##_1, name##_2, name##_3,  \
                                                          name##_4, name##_5, name##_6 };
#else
#define TILE_TABLE(name, dtype)                                                                    \
    TILE_FUNCTION(name, dtype, 1)                                                                  \
    TILE_FUNCTION(name, dtype, 2)                                                                  \
    TILE_FUNCTION(name, dtype, 3)                                                                  \
    TILE_FUNCTION(name, dtype, 4)                                                                  \
    TILE_FUNCTION(name, dtype, 5)                                                                  \
    TILE_FUNCTION(name, dtype, 6)                                                                  \
    TILE_FUNCTION(name, dtype, 7)                                                                  \
    TILE_FUNCTION(name, dtype, 8)                                                                  \
    TILE_FUNCTION(name, dtype, 9)                                                                  \
    TILE_FUNCTION(name, dtype, 10)                                                                 \
    TILE_FUNCTION(name, dtype, 11)                                                                 \
    TILE_FUNCTION(name, dtype, 12)                                                                 \
    static tile_function *const name[TILE_TOKENS + 1] = {                                          \
        NULL,     name##_1, name##_2, name##_3,  name##_4,  name##_5, name##_6,                    \
        name##_7, name##_8, name##_9, name##_10, name##_11, name##_12                              \
    };
#endif

TILE_TABLE(tiles_f32, DTYPE_F32)
TILE_TABLE(tiles_f16, DTYPE_F16)
TILE_TABLE(tiles_bf16, DTYPE_BF16)

/* ---- a panel ---- */

/* Bias and what y held, for rows row .. row + n - 1 of a token. */
INLINE void finish_row(const struct linear_job *j, uint32_t token, uint32_t row, uint32_t n,
                       const float *sums)
{
    float *y = j->y + token * j->y_stride + row;
    uint32_t i = 0;

    for (; i + VF_LANES <= n; i += VF_LANES) {
        vf sum = vf_load(sums + i);
        if (j->bias)
            sum = vf_add(sum, vf_load(j->bias + row + i));
        vf_store(y + i, j->add ? vf_add(vf_load(y + i), sum) : sum);
    }
    for (; i < n; i++) {
        float sum = sums[i] + (j->bias ? j->bias[row + i] : 0);
        y[i] = j->add ? y[i] + sum : sum;
    }
}

/* The product with the panels of one type. */
struct panels {
    const struct linear_job *j;
    tile_function *const *functions; /* by tokens of a tile */
    struct tiles tiles;
    uint32_t height; /* rows of a panel */
};

/* The sums of a panel and a supertile. */
struct panel_sums {
    _Alignas(64) float of[SUPERTILE * TILE_TOKENS][PACKING_FLOAT_ROWS_MAX];
};

/* How often the tiles pass over a block. */
static uint32_t passes_of(const struct panels *p, uint32_t n_tiles)
{
    const enum dtype dtype = p->j->dtype;
    int widest = (int)tile_width(p->tiles, 0);

    return n_tiles * (uint32_t)(panel_vectors(dtype) / pass_vectors(dtype, widest));
}

/* Columns k .. k + n - 1 of one panel, for tiles begin .. end - 1; `next` is the block after it. */
static void add_block(const struct panels *p, uint32_t begin, uint32_t end, const char *panel,
                      uint32_t k, struct panel_sums *sums, const char *next)
{
    const struct linear_job *j = p->j;
    uint32_t origin = tile_first(p->tiles, begin), left = j->cols - k;
    uint32_t passes = passes_of(p, end - begin);
    struct tile_job t = { .w = panel + (size_t)k * 64,
                          .n = left < PANEL_COLS ? left : PANEL_COLS,
                          .is_first = k == 0,
                          .fetch = { next, (PANEL_COLS + passes - 1) / passes, 0 } };

    if (passes == 1) /* it cannot run far ahead of itself */
        t.fetch.next = t.w + FETCH_AHEAD * 64;
    for (uint32_t i = begin; i < end; i++) {
        uint32_t first = tile_first(p->tiles, i);
        t.fetch.pass = (i - begin) * passes / (end - begin);
        t.x = (const float *)j->x + tile_at(j->n_tokens, j->cols, first, k);
        t.sums = sums->of[first - origin];
        p->functions[tile_width(p->tiles, i)](&t);
    }
}

/* What is read after the block of column k of panel i of a group of n, which begins at `first`: the next panel's, or
 * the next columns of the first, or what lies behind the group. */
static const char *block_after(const struct panels *p, const char *first, uint32_t n, uint32_t i,
                               uint32_t k)
{
    const size_t bytes = packing_float_bytes(p->j->dtype, p->j->cols);

    if (i + 1 < n)
        return first + (i + 1) * bytes + (size_t)k * 64;
    return k + PANEL_COLS < p->j->cols ? first + (size_t)(k + PANEL_COLS) * 64 : first + n * bytes;
}

/* A supertile, tiles begin .. end - 1, with the panels of rows row .. row_end - 1, at most PANEL_GROUP. */
static void run_group(const struct panels *p, uint32_t begin, uint32_t end, uint32_t row,
                      uint32_t row_end)
{
    struct panel_sums sums[PANEL_GROUP];
    const size_t bytes = packing_float_bytes(p->j->dtype, p->j->cols);
    const char *first = (const char *)p->j->w + row / p->height * bytes;
    uint32_t n = (row_end - row + p->height - 1) / p->height, origin = tile_first(p->tiles, begin);

    for (uint32_t k = 0; k < p->j->cols; k += PANEL_COLS)
        for (uint32_t i = 0; i < n; i++)
            add_block(p, begin, end, first + i * bytes, k, &sums[i],
                      block_after(p, first, n, i, k));
    for (uint32_t i = 0; i < n; i++, row += p->height)
        for (uint32_t t = origin; t < tile_first(p->tiles, end); t++)
            finish_row(p->j, t, row, row_end - row < p->height ? row_end - row : p->height,
                       sums[i].of[t - origin]);
}

static void run_panels(const struct linear_job *j, tile_function *const *functions,
                       uint32_t row_begin, uint32_t row_end)
{
    struct panels p = { j, functions, tiles_of(j->n_tokens, TILE_TOKENS),
                        packing_float_rows(j->dtype) };
    uint32_t group = p.tiles.n == 1 ? p.height : PANEL_GROUP * p.height;

    assert(row_begin % p.height == 0);
    for (uint32_t begin = 0; begin < p.tiles.n; begin += SUPERTILE) {
        uint32_t end = p.tiles.n - begin < SUPERTILE ? p.tiles.n : begin + SUPERTILE;
        for (uint32_t row = row_begin; row < row_end; row += group)
            run_group(&p, begin, end, row, row_end - row < group ? row_end : row + group);
    }
}

static void panels_f32(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run_panels(j, tiles_f32, row_begin, row_end);
}

static void panels_f16(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run_panels(j, tiles_f16, row_begin, row_end);
}

static void panels_bf16(const struct linear_job *j, uint32_t row_begin, uint32_t row_end)
{
    run_panels(j, tiles_bf16, row_begin, row_end);
}
