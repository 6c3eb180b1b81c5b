/* int_tiles_dot.h - integer products (int_panels.h) where one instruction makes four products and
 * there are 32 registers.
 *
 * A register tile is two panels by up to TILE_TOKENS tokens: twelve sums of integers, twelve of floats, two
 * vectors of codes, one of the input.  A block of 32 columns is 96 products, and 24 multiplications and FMAs
 * for its scales.  On Zen 5 all of them go to the same two ports: 60 cycles, so that 80 % of the instruction's
 * peak is the most that scales for each 32 allow; 65 to 68 are taken.  Codes are unpacked in registers, there on
 * other ports.
 *
 * Of few tokens memory takes the time, so it is asked evenly, and in two places: beside each line that is multiplied
 * one of either panel is fetched.  All lines of a superblock at once would fill the core's buffers, and loads wait behind
 * them (bench/README.md).  A lone tile fetches of its own pair.  Two or three take turns piece after piece, so that
 * a pair comes from memory in its order for the first of them, and from the first cache for the others. */

#include "gpu-worker/ops/int_groups.h"

enum {
    AHEAD_BYTES = 4096, /* how far ahead, in its panels, a lone tile fetches; */
    FAR_BYTES = 8192,   /* where it does so into the second cache (cpu_fetches_far()); */
    FAR_TOKENS = 2,     /* of so many tokens at most, for the program's size */
    TURNS_TILES = 3,    /* the most that take turns */
    PIECE = 8,          /* superblocks of a turn */
};

/* Two panels by a tile of tokens, some superblocks of their columns. */
struct tile_job {
    const uint8_t *panel;
    size_t step; /* to the second panel; 0: there is none, and its sums go nowhere */
    uint32_t n_superblocks;
    bool is_first;        /* sums begin at 0 */
    const uint8_t *x;     /* the tokens' blocks (int_input.h) */
    const uint8_t *ahead; /* fetched meanwhile, and as much a `step` further */
    uint32_t ahead_lines; /* for each superblock, beside its lines; */
    uint32_t far_lines;   /* or so many before it, to the second cache */
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

/* Line i of those that are fetched beside a superblock. */
INLINE void fetch_line(const struct tile_job *j, const uint32_t i)
{
    if (i < j->ahead_lines) {
        _mm_prefetch((const char *)j->ahead + i * LINE_BYTES, _MM_HINT_T0);
        _mm_prefetch((const char *)j->ahead + j->step + i * LINE_BYTES, _MM_HINT_T0);
    }
}

INLINE void fetch_far(const struct tile_job *j)
{
    for (uint32_t i = 0; i < j->far_lines; i++) {
        _mm_prefetch((const char *)j->ahead + i * LINE_BYTES, _MM_HINT_T1);
        _mm_prefetch((const char *)j->ahead + j->step + i * LINE_BYTES, _MM_HINT_T1);
    }
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
        fetch_line(j, (uint32_t)(b * LINES + c));
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
    for (; j.n_superblocks > 0; j.n_superblocks--) {
        if (n <= FAR_TOKENS)
            fetch_far(&j);
        fetch_line(&j, 2 * LINES); /* there are up to 2 LINES + 1; add_lines() fetches the others */
#pragma GCC unroll 2
        for (int b = 0; b < 2; b++, j.x += n * INT_INPUT_BYTES)
            add_block(dtype, n, sums, &j, b);
        j.panel += superblock_bytes(dtype);
        j.ahead += (j.ahead_lines + j.far_lines) * LINE_BYTES;
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

#define TILE_FUNCTIONS(name, dtype)                                                                \
    TILE_FUNCTION(name, dtype, 1)                                                                  \
    TILE_FUNCTION(name, dtype, 2)                                                                  \
    TILE_FUNCTION(name, dtype, 3)                                                                  \
    TILE_FUNCTION(name, dtype, 4)                                                                  \
    TILE_FUNCTION(name, dtype, 5)                                                                  \
    TILE_FUNCTION(name, dtype, 6)                                                                  \
    static tile_function *const name[TILE_TOKENS + 1] = { NULL,     name##_1, name##_2, name##_3,  \
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

/* ---- a pair of panels ---- */

INLINE bool fetches_far(const struct linear_job *j)
{
    return j->fetches_far && j->n_tokens <= FAR_TOKENS;
}

/* All tiles by a piece of a part; `next` is fetched meanwhile, each tile its share. */
INLINE void run_piece(const struct linear_job *j, const enum dtype dtype, struct group *g,
                      uint32_t pair, struct part piece, const uint8_t *next)
{
    const uint32_t lines = (uint32_t)(superblock_bytes(dtype) / LINE_BYTES), n = g->n_tiles;
    const bool is_last = piece.end == packing_superblocks(j->cols);
    const bool is_far = fetches_far(j);
    struct tile_job job = {
        .panel = panel_at(g, dtype, pair, piece.begin),
        .step = (pair + 1) * TILE_PANELS <= g->n_panels ? g->panel_bytes : 0,
        .n_superblocks = piece.end - piece.begin,
        .is_first = piece.begin == 0,
        .ahead = next,
        .out = is_last && is_whole(j, g, pair) ? j : NULL,
        .row = g->row + pair * TILE_PANELS * PACKING_INT_ROWS,
    };

    for (uint32_t i = 0; i < n; i++) {
        const struct int_tile *t = &g->tiles[i];
        uint32_t share;
        job.x = t->block + (size_t)piece.begin * 2 * t->n * INT_INPUT_BYTES;
        job.sums = g->sums[pair][i];
        job.token = t->first;
        share = lines * (i + 1) / n - lines * i / n;
        job.ahead_lines = is_far ? 0 : share;
        job.far_lines = is_far ? share : 0;
        tile_function_of(dtype, t->n)(&job);
        job.ahead += (size_t)share * job.n_superblocks * LINE_BYTES;
    }
}

/* A lone tile fetches a distance ahead, and at last the first of what comes next. */
INLINE void run_alone(const struct linear_job *j, const enum dtype dtype, struct group *g,
                      uint32_t pair, struct part part, const uint8_t *next)
{
    const size_t bytes = fetches_far(j) ? FAR_BYTES : AHEAD_BYTES;
    const uint32_t distance = (uint32_t)(bytes / superblock_bytes(dtype) + 1);

    if (part.end - part.begin > distance) {
        const struct part most = { part.begin, part.end - distance };
        run_piece(j, dtype, g, pair, most, panel_at(g, dtype, pair, part.begin + distance));
        part.begin = most.end;
    }
    run_piece(j, dtype, g, pair, part, next);
}

INLINE void run_pair(const struct linear_job *j, const enum dtype dtype, struct group *g,
                     uint32_t pair, struct part part, uint32_t n_superblocks)
{
    const uint32_t n = part.end - part.begin;
    const uint32_t n_pieces = g->n_tiles <= TURNS_TILES ? (n + PIECE - 1) / PIECE : 1;
    const uint8_t *next = next_to_read(g, dtype, pair, part, n_superblocks);

    if (g->n_tiles == 1) {
        run_alone(j, dtype, g, pair, part, next);
        return;
    }
    for (uint32_t k = 0; k < n_pieces; k++) {
        struct part piece = { part.begin + n * k / n_pieces, part.begin + n * (k + 1) / n_pieces };
        run_piece(j, dtype, g, pair, piece,
                  k + 1 == n_pieces ? next : panel_at(g, dtype, pair, piece.end));
    }
}
