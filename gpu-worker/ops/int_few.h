/* int_few.h - integer products of few tokens (int_panels.h): panel after panel, read once as one forward stream; the
 * input's bytes are broadcast from their tile. */

enum {
    FEW_TOKENS = 3,
    FETCH_AHEAD_BYTES = 2048, /* 10 to 20 % more on 4 KiB pages, where the hardware stops at each */
};

/* ---- dot products of a block ---- */

/* offset + sum(q x) of n lines from `first` on; two chains, since one product waits for the last */
#if HAS_DOT
INLINE vi dot_lines(const enum dtype dtype, const vi q[LINES], const uint8_t *x, const int first,
                    const int n, vi offset)
{
    vi a = offset, b = vi_zero();
#pragma GCC unroll 16
    for (int c = first; c < first + n; c += 2) {
        a = vi_dot(a, q[c], vi_broadcast(x + 4 * c));
        b = vi_dot(b, q[c + 1], vi_broadcast(x + 4 * c + 4));
    }
    (void)dtype;
    return vi_add32(a, b);
}
#else
INLINE vi dot_lines(const enum dtype dtype, const vi q[LINES], const uint8_t *x, const int first,
                    const int n, vi offset)
{
    const int fit = dtype == DTYPE_I6 ? 2 : dtype == DTYPE_I5M ? 4 : 8; /* into 16 bits */
    vi all = offset;
#pragma GCC unroll 16
    for (int c = first; c < first + n; c += fit) {
        vi sum = vi_madd8(q[c], vi_broadcast(x + 4 * c));
#pragma GCC unroll 16
        for (int i = c + 1; i < c + fit; i++) {
            sum = vi_add16(sum, vi_madd8(q[i], vi_broadcast(x + 4 * i)));
            vi_keep(sum);
        }
        all = vi_add32(all, vi_madd16(sum, vi_broadcast(&(uint32_t){ 0x00010001 })));
    }
    return all;
}
#endif

/* y with a block added, of the types with two numbers; x: the tile's block. */
INLINE vf add_block_of_two(const enum dtype dtype, vf y, const vi q[LINES], vf first, vf second,
                           const uint8_t *x, uint32_t n, uint32_t token)
{
    const uint8_t *codes = x + token * PACKING_BLOCK;
    const int32_t *offset = int_tile_offsets(x, n, dtype) + token;
    vf scale = vf_set1(int_tile_scales(x, n)[token]), factor = vf_mul(first, scale);

    if (dtype == DTYPE_I6) {
        vi low = dot_lines(dtype, q, codes, 0, LINES / 2, vi_broadcast(offset));
        vi high = dot_lines(dtype, q, codes, LINES / 2, LINES / 2, vi_broadcast(offset + n));
        return vf_fma(vf_mul(second, scale), vf_of_int(high), vf_fma(factor, vf_of_int(low), y));
    }
    y = vf_fma(factor, vf_of_int(dot_lines(dtype, q, codes, 0, LINES, vi_zero())), y);
    return vf_fma(second, vf_set1(int_tile_sums(x, n)[token]), y);
}

/* ---- a panel ---- */

INLINE void few_i4(vi sums[FEW_TOKENS], const int n, const uint8_t *lines, const uint8_t *x,
                   const int32_t *off4)
{
    vi q[LINES];

    load_nibbles(q, lines);
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = dot_lines(DTYPE_I4, q, x + t * PACKING_BLOCK, 0, LINES, vi_broadcast(off4 + t));
}

INLINE void few_i8(vi sums[FEW_TOKENS], const int n, const uint8_t *lines, const uint8_t *x,
                   const int32_t *off8)
{
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        sums[t] = HAS_DOT ? vi_broadcast(off8 + t) : vi_zero();
#pragma GCC unroll 16
    for (int c = 0; c < LINES; c++) {
        vi w = vi_load(lines + c * LINE_BYTES);
#if !HAS_DOT
        w = vi_flip_signs(w);
#endif
#pragma GCC unroll 16
        for (int t = 0; t < n; t++) {
            vi four = vi_broadcast(x + t * PACKING_BLOCK + 4 * c);
#if HAS_DOT
            sums[t] = vi_dot(sums[t], w, four);
#else
            sums[t] = vi_signed_dot(sums[t], w, four);
            vi_keep(sums[t]);
#endif
        }
    }
}

/* One block of one part of a panel by n tokens. */
INLINE void few_of_two(const enum dtype dtype, vf (*acc)[PARTS], const int n,
                       const uint8_t *superblock, uint32_t b, const int part, const uint8_t *x)
{
    vf first = scales_of(superblock, b, part), second = second_numbers_of(superblock, b, part);
    vi q[LINES];

    load_codes(dtype, q, lines_of(dtype, superblock, b, part));
#pragma GCC unroll 16
    for (int t = 0; t < n; t++)
        acc[t][part] =
            add_block_of_two(dtype, acc[t][part], q, first, second, x, (uint32_t)n, (uint32_t)t);
}

/* One panel by n tokens; n and dtype constant after inlining, so that sums live in registers. */
INLINE void few_panel(const struct linear_job *j, const enum dtype dtype, const int n,
                      const uint8_t *panel, uint32_t row)
{
    const uint8_t *x = j->x;
    vf acc[FEW_TOKENS][PARTS];
    _Alignas(64) float out[PACKING_INT_ROWS];
#pragma GCC unroll 16
    for (int i = 0; i < n * PARTS; i++)
        acc[i / PARTS][i % PARTS] = vf_set1(0);
    for (uint32_t s = packing_superblocks(j->cols); s > 0; s--, panel += superblock_bytes(dtype)) {
#pragma GCC unroll 20
        for (size_t at = 0; at < superblock_bytes(dtype); at += LINE_BYTES)
            _mm_prefetch((const char *)panel + FETCH_AHEAD_BYTES + at, _MM_HINT_T0);
#pragma GCC unroll 16
        for (uint32_t b = 0; b < 2; b++, x += n * INT_INPUT_BYTES)
#pragma GCC unroll 16
            for (int part = 0; part < PARTS; part++) {
                const float *xs = int_tile_scales(x, n);
                vf ws = scales_of(panel, b, part);
                vi sums[FEW_TOKENS];
                if (packing_numbers(dtype) == 2) {
                    few_of_two(dtype, acc, n, panel, b, part, x);
                    continue;
                }
                if (dtype == DTYPE_I4)
                    few_i4(sums, n, lines_of(dtype, panel, b, part), x,
                           int_tile_offsets(x, n, dtype));
                else
                    few_i8(sums, n, lines_of(dtype, panel, b, part), x,
                           int_tile_offsets(x, n, dtype));
#pragma GCC unroll 16
                for (int t = 0; t < n; t++)
                    acc[t][part] =
                        vf_fma(vf_mul(ws, vf_set1(xs[t])), vf_of_int(sums[t]), acc[t][part]);
            }
    }
#pragma GCC unroll 16
    for (int t = 0; t < n; t++) {
#pragma GCC unroll 16
        for (int part = 0; part < PARTS; part++)
            vf_store(out + part * LANES, acc[t][part]);
        put_rows(j, row, (uint32_t)t, out);
    }
}

INLINE void few_panels(const struct linear_job *j, const enum dtype dtype, const int n,
                       const uint8_t *panel, uint32_t row_begin, uint32_t row_end)
{
    size_t bytes = packing_superblocks(j->cols) * superblock_bytes(dtype);

    for (uint32_t row = row_begin; row < row_end; row += PACKING_INT_ROWS, panel += bytes)
        few_panel(j, dtype, n, panel, row);
}

INLINE void few_tokens(const struct linear_job *j, const enum dtype dtype, const uint8_t *panels,
                       uint32_t row_begin, uint32_t row_end)
{
    if (j->n_tokens == 1)
        few_panels(j, dtype, 1, panels, row_begin, row_end);
    else if (j->n_tokens == 2)
        few_panels(j, dtype, 2, panels, row_begin, row_end);
    else
        few_panels(j, dtype, 3, panels, row_begin, row_end);
}
