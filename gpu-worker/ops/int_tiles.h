/* int_tiles.h - integer products of many tokens (int_panels.h): register tiles.
 *
 * A register tile is two vectors of rows by up to TILE_TOKENS tokens: a panel where a vector has eight rows, two
 * panels where it has sixteen.  Twelve sums, two vectors of weights, one of the input and one that is being
 * added make sixteen registers.  How the products are made depends on what the machine has:
 *
 *   BYTES    four products by one instruction; or four bits in pairs, of which eight fit 16 bits.  A vector of
 *            weights is loaded once for all tokens, and four bytes of the input are broadcast once for two
 *            products.
 *   SHORT    five and six bits in pairs: two fit 16 bits, and are widened then.
 *   SIGNED   I8 in pairs: the sign of the weight moves to the input, and each pair is widened at once.
 *   WIDE     I8 in 16 bits: of each four bytes 0 and 2, then 1 and 3, and the input likewise.  Fewest
 *            instructions a product, but the codes have to be widened first: for more tokens.
 *
 * What has to be unpacked is, once for PANELS panels and up to CHUNK tokens, into scratch that stays in the
 * first-level cache with the sums; other codes are taken as they lie.
 *
 * vi_keep(): sums of an unrolled loop would be added up as a tree, which needs more registers than there are;
 * with it, each product is added where it is made. */

#include "gpu-worker/ops/int_few.h"

enum {
    PANELS = 8,
    PANELS_ONCE = 4,         /* where each is read once: more streams from memory are slower */
    TILE_PANELS = 2 / PARTS, /* panels of a register tile */
    CHUNK_TILES = 8,
    CHUNK = CHUNK_TILES * TILE_TOKENS,
    WIDE_TILES = 3,                       /* of a chunk, from which on WIDE is faster than SIGNED */
    WIDE_BYTES = 2 * PACKING_BLOCK,       /* of a token's block in 16 bits */
    CODES_BYTES = 2 * LINES * LINE_BYTES, /* of a panel's block in 16 bits */
    /* to the second vector of a tile */
    SUMS_STEP = PARTS == 2 ? LANES : CHUNK * PACKING_INT_ROWS,
    NUMBERS_STEP = PARTS == 2 ? LANES : PACKING_NUMBERS_MAX * PACKING_INT_ROWS,
};

enum form { BYTES, SHORT, SIGNED, WIDE };

struct tiles {
    _Alignas(64) uint8_t codes[PANELS][CODES_BYTES];
    _Alignas(64) float numbers[PANELS][PACKING_NUMBERS_MAX][PACKING_INT_ROWS];
    _Alignas(64) uint8_t wide[TILE_TOKENS * WIDE_BYTES];
    _Alignas(64) float sums[PANELS][CHUNK][PACKING_INT_ROWS];
};

/* Block k of panels. */
struct block {
    const uint8_t *superblock; /* of the first panel */
    size_t panel_bytes;
    uint32_t n_panels, k;
};

/* ---- unpacking ---- */

INLINE bool is_unpacked(const enum dtype dtype, const enum form form)
{
    return dtype != DTYPE_I8 || form == WIDE;
}

INLINE void unpack_bytes(const enum dtype dtype, uint8_t *to, const uint8_t *superblock, uint32_t b)
{
#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
        vi q[LINES];
        load_codes(dtype, q, lines_of(dtype, superblock, b, part));
#pragma GCC unroll 8
        for (int c = 0; c < LINES; c++)
            vi_store(to + c * LINE_BYTES + part * VECTOR_BYTES, q[c]);
    }
}

INLINE void unpack_wide(uint8_t *to, const uint8_t *superblock, uint32_t b)
{
    const vi even = vi_broadcast(&(uint32_t){ 0x00ff00ff });

#pragma GCC unroll 2
    for (int part = 0; part < PARTS; part++) {
        const uint8_t *lines = lines_of(DTYPE_I8, superblock, b, part);
        uint8_t *at = to + part * VECTOR_BYTES;
#pragma GCC unroll 8
        for (int c = 0; c < LINES; c++, at += 2 * LINE_BYTES) {
            vi v = vi_load(lines + c * LINE_BYTES);
            vi_store(at, vi_and(v, even));
            vi_store(at + LINE_BYTES, vi_shift_right(v, 8));
        }
    }
}

INLINE void fetch(const uint8_t *from, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += LINE_BYTES)
        _mm_prefetch((const char *)from + at, _MM_HINT_T0);
}

/* Numbers, and codes if need be. */
INLINE void unpack(const enum dtype dtype, const enum form form, struct tiles *s,
                   const struct block *b)
{
    const uint8_t *superblock = b->superblock;

    for (uint32_t p = 0; p < b->n_panels; p++, superblock += b->panel_bytes) {
        if (b->k % 2 == 0)
            fetch(superblock + superblock_bytes(dtype), superblock_bytes(dtype));
        if (dtype != DTYPE_I8)
            unpack_bytes(dtype, s->codes[p], superblock, b->k % 2);
        else if (form == WIDE)
            unpack_wide(s->codes[p], superblock, b->k % 2);
#pragma GCC unroll 4
        for (uint32_t i = 0; i < packing_numbers(dtype) * PARTS; i++)
            vf_store(s->numbers[p][i / PARTS] + i % PARTS * LANES,
                     scales_of(superblock + i / PARTS * LINE_BYTES, b->k % 2, (int)i % PARTS));
    }
}

/* The input of n tokens in 16 bits: for each four bytes, 0 and 2, then 1 and 3. */
INLINE void widen_input(uint8_t *to, const uint8_t *x, uint32_t n)
{
    for (uint32_t t = 0; t < n; t++, to += WIDE_BYTES) {
        __m256i v = _mm256_loadu_si256((const __m256i *)(x + t * PACKING_BLOCK));
        __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(v, 8), 8), odd = _mm256_srai_epi16(v, 8);
        __m256i first = _mm256_unpacklo_epi32(even, odd), last = _mm256_unpackhi_epi32(even, odd);
        _mm256_store_si256((__m256i *)to, _mm256_permute2x128_si256(first, last, 0x20));
        _mm256_store_si256((__m256i *)(to + 32), _mm256_permute2x128_si256(first, last, 0x31));
    }
}

/* ---- a register tile: n tokens, constant after inlining, so that the sums live in registers ---- */

/* sum + products of w and x, in what `form` sums up. */
INLINE vi add_product(const enum dtype dtype, const enum form form, vi sum, vi w, vi x)
{
#if HAS_DOT
    (void)dtype, (void)form;
    return vi_dot(sum, w, x);
#else
    if (form == WIDE)
        return vi_add32(sum, vi_madd16(w, x));
    if (form == SIGNED)
        return vi_signed_dot(sum, w, x);
    assert(form == BYTES && dtype != DTYPE_I8);
    return vi_add16(sum, vi_madd8(w, x));
#endif
}

/* Two vectors of weights by four bytes of each token; x of token t is x_step t further. */
INLINE void add_line(const enum dtype dtype, const enum form form, const int n,
                     vi a[TILE_TOKENS][2], const uint8_t *line, size_t step, const uint8_t *x,
                     const int x_step)
{
    vi w[2] = { vi_load(line), vi_load(line + step) };

#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        vi four = vi_broadcast(x + t * x_step);
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            a[t][v] = add_product(dtype, form, a[t][v], w[v], four);
            vi_keep(a[t][v]);
        }
    }
}

#if !HAS_DOT
/* SIGNED: a vector after the other, since a weight and its magnitude take two registers. */
INLINE void add_signed(const int n, vi a[TILE_TOKENS][2], const uint8_t *line, size_t step,
                       const uint8_t *x)
{
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vi w = vi_flip_signs(vi_load(line + (size_t)v * step));
        __asm__("" : "+r"(x)); /* or all of the input would be kept for the second vector */
#pragma GCC unroll 8
        for (int t = 0; t < n; t++) {
            a[t][v] =
                add_product(DTYPE_I8, SIGNED, a[t][v], w, vi_broadcast(x + t * PACKING_BLOCK));
            vi_keep(a[t][v]);
        }
    }
}
#endif

#if !HAS_DOT
/* SHORT: two lines by four bytes each of every token. */
INLINE void add_short(const int n, vi a[TILE_TOKENS][2], const uint8_t *line, size_t step,
                      const uint8_t *x)
{
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        const uint8_t *at = line + (size_t)v * step;
        vi w[2] = { vi_load(at), vi_load(at + LINE_BYTES) };
        __asm__("" : "+r"(x)); /* or all of the input would be kept for the second vector */
#pragma GCC unroll 8
        for (int t = 0; t < n; t++) {
            const uint8_t *in = x + t * PACKING_BLOCK;
            vi sum =
                vi_add16(vi_madd8(w[0], vi_broadcast(in)), vi_madd8(w[1], vi_broadcast(in + 4)));
            a[t][v] = vi_add32(a[t][v], vi_madd16(sum, vi_broadcast(&(uint32_t){ 0x00010001 })));
            vi_keep(a[t][v]);
        }
    }
}
#endif

/* Sums of 16 bits made whole, and their offset added. */
INLINE vi whole_sum(const enum dtype dtype, const enum form form, vi sum, vi offset)
{
#if !HAS_DOT
    if (form == BYTES) {
        sum = vi_madd16(sum, vi_broadcast(&(uint32_t){ 0x00010001 }));
        return packing_offset(dtype) != 0 ? vi_add32(sum, offset) : sum;
    }
#endif
    (void)dtype, (void)form, (void)offset;
    return sum;
}

/* sum = fma(ws * xs, whole, sum) */
INLINE void add_block(float *sum, vf ws, vf xs, vi whole)
{
    vf_store(sum, vf_fma(vf_mul(ws, xs), vf_of_int(whole), vf_load(sum)));
}

/* A tile of tokens by a block of panels; pointers are to the first panel's. */
struct tile_job {
    const uint8_t *codes; /* lines of the block; the second vector of rows is `step` further */
    size_t step, panel_bytes;
    const float *numbers; /* [2][16] a panel */
    const uint8_t *x;     /* the tokens' block (int_input.h) */
    const uint8_t *wide;
    float *sums; /* [n][16] */
    uint32_t n_panels;
};

/* Lines first .. end - 1, whose scales are `scales` and whose offsets are `offsets`. */
INLINE void tile_lines(const enum dtype dtype, const enum form form, const int n,
                       const struct tile_job *j, const int first, const int end,
                       const float *scales, const int32_t *offsets)
{
    const bool begins_with_offset =
        packing_offset(dtype) != 0 && (HAS_DOT || form == WIDE || form == SHORT);
    const float *xs = int_tile_scales(j->x, (uint32_t)n);
    vi a[TILE_TOKENS][2];

#pragma GCC unroll 8
    for (int t = 0; t < n; t++)
        a[t][0] = a[t][1] = begins_with_offset ? vi_broadcast(offsets + t) : vi_zero();
#pragma GCC unroll 16
    for (int c = first; c < end; c += form == SHORT ? 2 : 1) {
        const uint8_t *line = j->codes + c * LINE_BYTES;
        if (form == WIDE)
            add_line(dtype, form, n, a, line, j->step, j->wide + 4 * c, WIDE_BYTES);
        else if (form == BYTES)
            add_line(dtype, form, n, a, line, j->step, j->x + 4 * c, PACKING_BLOCK);
#if !HAS_DOT
        else if (form == SHORT)
            add_short(n, a, line, j->step, j->x + 4 * c);
        else
            add_signed(n, a, line, j->step, j->x + 4 * c);
#endif
    }
    vf ws[2] = { vf_load(scales), vf_load(scales + NUMBERS_STEP) };
#pragma GCC unroll 8
    for (int t = 0; t < n; t++) {
        vf x = vf_set1(xs[t]);
        vi offset = vi_broadcast(offsets + t);
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++)
            add_block(j->sums + t * PACKING_INT_ROWS + v * SUMS_STEP, ws[v], x,
                      whole_sum(dtype, form, a[t][v], offset));
    }
}

/* sum = fma(min, sum_x, sum) */
INLINE void add_minimums(const int n, const struct tile_job *j)
{
    const float *mins = j->numbers + PACKING_INT_ROWS, *xs = int_tile_sums(j->x, (uint32_t)n);

#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
        vf min = vf_load(mins + v * NUMBERS_STEP);
#pragma GCC unroll 8
        for (int t = 0; t < n; t++) {
            float *sum = j->sums + t * PACKING_INT_ROWS + v * SUMS_STEP;
            vf_store(sum, vf_fma(min, vf_set1(xs[t]), vf_load(sum)));
        }
    }
}

INLINE void register_tile(const enum dtype dtype, const enum form form, const int n,
                          const struct tile_job *j)
{
    const int32_t *offsets = int_tile_offsets(j->x, (uint32_t)n, dtype);
    const int n_lines = form == WIDE ? 2 * LINES : LINES;

    if (dtype == DTYPE_I6) {
        tile_lines(dtype, form, n, j, 0, LINES / 2, j->numbers, offsets);
        tile_lines(dtype, form, n, j, LINES / 2, LINES, j->numbers + PACKING_INT_ROWS, offsets + n);
    } else {
        tile_lines(dtype, form, n, j, 0, n_lines, j->numbers, offsets);
    }
    if (packing_has_min(dtype))
        add_minimums(n, j);
}

INLINE void register_tiles(const enum dtype dtype, const enum form form, const int n,
                           const struct tile_job *all)
{
    struct tile_job j = *all;

    for (uint32_t p = 0; p < all->n_panels; p += TILE_PANELS) {
        if (p + TILE_PANELS > all->n_panels)
            j.step = 0; /* the last panel twice: its second sums go nowhere */
        register_tile(dtype, form, n, &j);
        j.codes += TILE_PANELS * all->panel_bytes;
        j.numbers += TILE_PANELS * 2 * PACKING_INT_ROWS;
        j.sums += TILE_PANELS * CHUNK * PACKING_INT_ROWS;
    }
}

/* A function for each number of tokens: inlined in one, they would not have all registers. */
typedef void tile_function(const struct tile_job *j);

#define TILE_FUNCTION(name, dtype, form, n)                                                        \
    static __attribute__((noinline)) void name##_##n(const struct tile_job *j)                     \
    {                                                                                              \
        register_tiles(dtype, form, n, j);                                                         \
    }

/* More than FEW_TOKENS in tiles of at most 6 make tiles of 3 to 6. */
#define TILE_FUNCTIONS(name, dtype, form)                                                          \
    TILE_FUNCTION(name, dtype, form, 3)                                                            \
    TILE_FUNCTION(name, dtype, form, 4)                                                            \
    TILE_FUNCTION(name, dtype, form, 5)                                                            \
    TILE_FUNCTION(name, dtype, form, 6)                                                            \
    static tile_function *const name[TILE_TOKENS + 1] = { NULL,     NULL,     NULL,    name##_3,   \
                                                          name##_4, name##_5, name##_6 };

TILE_FUNCTIONS(tiles_i4, DTYPE_I4, BYTES)
TILE_FUNCTIONS(tiles_i4m, DTYPE_I4M, BYTES)
#if HAS_DOT
TILE_FUNCTIONS(tiles_i5m, DTYPE_I5M, BYTES)
TILE_FUNCTIONS(tiles_i6, DTYPE_I6, BYTES)
TILE_FUNCTIONS(tiles_i8, DTYPE_I8, BYTES)
#else
TILE_FUNCTIONS(tiles_i5m, DTYPE_I5M, SHORT)
TILE_FUNCTIONS(tiles_i6, DTYPE_I6, SHORT)
TILE_FUNCTIONS(tiles_signed, DTYPE_I8, SIGNED)
TILE_FUNCTIONS(tiles_wide, DTYPE_I8, WIDE)
#endif

INLINE tile_function *tile_function_of(const enum dtype dtype, const enum form form, uint32_t n)
{
    if (dtype == DTYPE_I4)
        return tiles_i4[n];
    if (dtype == DTYPE_I4M)
        return tiles_i4m[n];
    if (dtype == DTYPE_I5M)
        return tiles_i5m[n];
    if (dtype == DTYPE_I6)
        return tiles_i6[n];
#if HAS_DOT
    (void)form;
    return tiles_i8[n];
#else
    return form == WIDE ? tiles_wide[n] : tiles_signed[n];
#endif
}

/* One tile of tokens by a block of all panels. */
INLINE void run_tile(const enum dtype dtype, const enum form form, struct tiles *s,
                     const struct block *b, const struct int_tile *tile, uint32_t token)
{
    const bool from_scratch = is_unpacked(dtype, form);
    struct tile_job j = { .codes = s->codes[0],
                          .panel_bytes = from_scratch ? CODES_BYTES : b->panel_bytes,
                          .numbers = s->numbers[0][0],
                          .x = tile->block,
                          .wide = s->wide,
                          .sums = s->sums[0][token],
                          .n_panels = b->n_panels };

    if (!from_scratch)
        j.codes = lines_of(dtype, b->superblock, b->k % 2, 0);
    j.step = PARTS == 2 ? VECTOR_BYTES : j.panel_bytes;
    fetch(tile->block + 2 * tile->n * INT_INPUT_BYTES, tile->n * INT_INPUT_BYTES);
    if (form == WIDE)
        widen_input(s->wide, tile->block, tile->n);
    tile_function_of(dtype, form, tile->n)(&j);
}

/* ---- chunks of tokens, groups of panels ---- */

struct chunk {
    struct int_tile tiles[CHUNK_TILES];
    uint32_t n_tiles, first, n_tokens;
};

INLINE struct chunk chunk_at(const struct linear_job *j, uint32_t i, uint32_t n_chunks)
{
    uint32_t n_tiles = int_tiles(j->n_tokens, TILE_TOKENS), begin = n_tiles * i / n_chunks;
    struct chunk c = { .n_tiles = n_tiles * (i + 1) / n_chunks - begin };

    for (uint32_t t = 0; t < c.n_tiles; t++) {
        c.tiles[t] = int_tile_at(j->x, j->cols, j->n_tokens, TILE_TOKENS, begin + t);
        c.n_tokens += c.tiles[t].n;
    }
    c.first = c.tiles[0].first;
    return c;
}

/* The output of a tile's tokens, to the second cache: the first has the sums.  A token's rows of all panels are
 * together, and far from the next token's. */
INLINE void fetch_output(const struct linear_job *j, const struct int_tile *t, uint32_t row,
                         uint32_t n_panels)
{
    for (uint32_t i = t->first; i < t->first + t->n; i++) {
        const float *y = j->y + i * j->y_stride + row;
        for (uint32_t p = 0; p < n_panels; p++)
            _mm_prefetch((const char *)(y + p * PACKING_INT_ROWS), _MM_HINT_T1);
    }
}

INLINE void run_chunk(const struct linear_job *j, const enum dtype dtype, const enum form form,
                      struct tiles *s, struct chunk *c, const uint8_t *panels, uint32_t n_panels,
                      uint32_t row)
{
    uint32_t n_superblocks = packing_superblocks(j->cols);
    struct block b = { .panel_bytes = n_superblocks * superblock_bytes(dtype),
                       .n_panels = n_panels };

    for (uint32_t p = 0; p < n_panels; p++)
        memset(s->sums[p], 0, c->n_tokens * sizeof s->sums[p][0]);
    for (; b.k < 2 * n_superblocks; b.k++) {
        b.superblock = panels + b.k / 2 * superblock_bytes(dtype);
        unpack(dtype, form, s, &b);
        for (uint32_t i = 0; i < c->n_tiles; i++) {
            struct int_tile *t = &c->tiles[i];
            if (b.k + 1 == 2 * n_superblocks)
                fetch_output(j, t, row, n_panels);
            run_tile(dtype, form, s, &b, t, t->first - c->first);
            t->block += t->n * INT_INPUT_BYTES;
        }
    }
    for (uint32_t t = 0; t < c->n_tokens; t++)
        for (uint32_t p = 0; p < n_panels; p++)
            put_rows(j, row + p * PACKING_INT_ROWS, c->first + t, s->sums[p][t]);
}

INLINE void run_group(const struct linear_job *j, const enum dtype dtype, struct tiles *s,
                      const uint8_t *panels, uint32_t n_panels, uint32_t row)
{
    uint32_t n_chunks = (int_tiles(j->n_tokens, TILE_TOKENS) + CHUNK_TILES - 1) / CHUNK_TILES;

    for (uint32_t i = 0; i < n_chunks; i++) {
        struct chunk c = chunk_at(j, i, n_chunks);
        if (HAS_DOT || dtype == DTYPE_I4 || dtype == DTYPE_I4M)
            run_chunk(j, dtype, BYTES, s, &c, panels, n_panels, row);
        else if (dtype != DTYPE_I8)
            run_chunk(j, dtype, SHORT, s, &c, panels, n_panels, row);
        else if (c.n_tiles < WIDE_TILES)
            run_chunk(j, dtype, SIGNED, s, &c, panels, n_panels, row);
        else
            run_chunk(j, dtype, WIDE, s, &c, panels, n_panels, row);
    }
}

/* The panels of a group come from memory for the first chunk of tokens, and from a cache for the others. */
INLINE void many_tokens(const struct linear_job *j, const enum dtype dtype, const uint8_t *panels,
                        uint32_t row_begin, uint32_t row_end)
{
    uint32_t left = (row_end - row_begin + PACKING_INT_ROWS - 1) / PACKING_INT_ROWS;
    size_t panel_bytes = packing_superblocks(j->cols) * superblock_bytes(dtype);
    const uint32_t n_max = j->n_tokens > CHUNK ? PANELS : PANELS_ONCE;
    struct tiles s;

    for (uint32_t row = row_begin, n; left > 0; left -= n) {
        n = left < n_max ? left : n_max;
        run_group(j, dtype, &s, panels, n, row);
        row += n * PACKING_INT_ROWS;
        panels += n * panel_bytes;
    }
}

INLINE void run_panels(const struct linear_job *j, const enum dtype dtype, const uint8_t *panels,
                       uint32_t row_begin, uint32_t row_end)
{
    if (j->n_tokens <= FEW_TOKENS)
        few_tokens(j, dtype, panels, row_begin, row_end);
    else
        many_tokens(j, dtype, panels, row_begin, row_end);
}
