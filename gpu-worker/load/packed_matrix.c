/* packed_matrix.c - see packed_matrix.h.  Loops follow the bytes of the file: billions of elements are decoded at load. */
#include "gpu-worker/load/packed_matrix.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { BLOCK = TENSOR_TYPE_CODES_GROUP };

static uint32_t load32(const uint8_t *b)
{
    uint32_t v;

    memcpy(&v, b, sizeof v);
    return v;
}

/* ---- integers in words ---- */

static uint32_t per_word(const struct packed_ints *p)
{
    return 32 / p->bits;
}

static uint32_t mask_of(const struct packed_ints *p)
{
    return (1u << p->bits) - 1;
}

static uint32_t word_at(const struct packed_ints *p, uint64_t word_row, uint64_t word_col)
{
    return load32(p->words + 4 * (word_row * p->row_step + word_col * p->col_step));
}

static uint32_t int_at(const struct packed_ints *p, uint32_t row, uint32_t col)
{
    uint32_t per = per_word(p), along = p->is_down ? row : col;
    uint32_t word = p->is_down ? word_at(p, row / per, col) : word_at(p, row, col / per);

    return word >> p->shift[along % per] & mask_of(p);
}

/* One row of words that lie side by side. */
static void unpack_across(const struct packed_ints *p, uint32_t row, uint32_t col, uint32_t n,
                          uint8_t *out)
{
    uint32_t per = per_word(p), mask = mask_of(p), end = col + n;

    for (uint32_t w = col / per; w * per < end; w++) {
        uint32_t word = word_at(p, row, w);
        uint32_t first = w * per < col ? col - w * per : 0;
        uint32_t last = end - w * per < per ? end - w * per : per;
        for (uint32_t i = first; i < last; i++)
            *out++ = (uint8_t)(word >> p->shift[i] & mask);
    }
}

enum { TILE_COLS = 64, PER_WORD_MAX = 8 };

/* The rows of one word of some columns.  By way of a tile, for rows are most often a power of two apart, and eight
 * of them in turn would share a set of the cache. */
static void unpack_tile(const struct packed_ints *p, uint32_t word_row, uint32_t n_cols,
                        struct packed_part part, uint8_t *out)
{
    uint32_t per = per_word(p), mask = mask_of(p), above = word_row * per;
    uint32_t first = above < part.row ? part.row - above : 0;
    uint32_t end = part.row + part.n_rows - above, last = end < per ? end : per;
    uint8_t tile[PER_WORD_MAX][TILE_COLS];

    for (uint32_t c = 0; c < n_cols; c++) {
        uint32_t word = word_at(p, word_row, part.col + c);
        for (uint32_t i = 0; i < per; i++)
            tile[i][c] = (uint8_t)(word >> p->shift[i] & mask);
    }
    for (uint32_t i = first; i < last; i++)
        memcpy(out + (size_t)(above + i - part.row) * part.n_cols, tile[i], n_cols);
}

/* Words below each other are read together: they share a cache line. */
static void unpack_down(const struct packed_ints *p, struct packed_part part, uint8_t *out)
{
    uint32_t per = per_word(p), left;
    struct packed_part tile = part;

    for (uint32_t c = 0; c < part.n_cols; c += TILE_COLS) {
        left = part.n_cols - c;
        tile.col = part.col + c;
        for (uint32_t w = part.row / per; w * per < part.row + part.n_rows; w++)
            unpack_tile(p, w, left < TILE_COLS ? left : TILE_COLS, tile, out + c);
    }
}

static void unpack(const struct packed_ints *p, struct packed_part part, uint8_t *out)
{
    if (p->is_down)
        unpack_down(p, part, out);
    else
        for (uint32_t r = 0; r < part.n_rows; r++)
            unpack_across(p, part.row + r, part.col, part.n_cols, out + (size_t)r * part.n_cols);
}

/* ---- what a group has ---- */

static uint32_t group_of(const struct packed_matrix *m, uint32_t col)
{
    return m->group_of ? load32(m->group_of + 4 * (size_t)col) : col / m->group_cols;
}

static const uint8_t *scale_at(const struct packed_matrix *m, uint32_t row, uint32_t group)
{
    const struct packed_scales *s = &m->scales;
    uint64_t at = row / s->rows_each * s->row_step + group * s->col_step;

    return s->data + at * tensor_type_bytes(s->type, 1);
}

static float scale_of(const struct packed_matrix *m, uint32_t row, uint32_t group)
{
    float scale;

    tensor_type_to_float(m->scales.type, &scale, scale_at(m, row, group), 1);
    return scale;
}

static uint16_t f16_scale_of(const struct packed_matrix *m, uint32_t row, uint32_t group)
{
    uint16_t bits;

    if (m->scales.type != TENSOR_F16)
        return float_to_f16(scale_of(m, row, group));
    memcpy(&bits, scale_at(m, row, group), sizeof bits);
    return bits;
}

static int32_t zero_of(const struct packed_matrix *m, uint32_t row, uint32_t group)
{
    return m->zeros.words ? (int32_t)int_at(&m->zeros, row, group) + m->zero_shift : m->zero;
}

static int32_t centre_of(const struct packed_matrix *m)
{
    return m->kind == PACKED_WORDS ? 1 << (m->codes.bits - 1) : 0;
}

bool packed_matrix_is_centred(const struct packed_matrix *m)
{
    int32_t centre = centre_of(m);

    if (!m->zeros.words)
        return m->zero == centre;
    for (uint32_t r = 0; r < m->rows; r++)
        for (uint32_t g = 0; g < m->n_groups; g++)
            if (zero_of(m, r, g) != centre)
                return false;
    return true;
}

bool packed_matrix_has_whole_blocks(const struct packed_matrix *m)
{
    for (uint32_t c = 1; c < m->cols; c++)
        if (c % BLOCK != 0 && group_of(m, c) != group_of(m, c - 1))
            return false;
    return true;
}

/* ---- values ---- */

/* Of one row; groups[c] is column c's. */
static void row_values(const struct packed_matrix *m, const uint8_t *raw, const uint32_t *groups,
                       const float *scales, const int32_t *zeros, uint32_t n, float *y)
{
    if (m->kind == PACKED_WORDS)
        for (uint32_t c = 0; c < n; c++)
            y[c] = scales[groups[c]] * (float)((int32_t)raw[c] - zeros[groups[c]]);
    else if (m->kind == PACKED_INT8)
        for (uint32_t c = 0; c < n; c++)
            y[c] = scales[groups[c]] * (float)(int8_t)raw[c];
    else
        for (uint32_t c = 0; c < n; c++)
            y[c] = scales[groups[c]] * e4m3_to_float(raw[c]);
}

static uint8_t *raw_codes(const struct packed_matrix *m, struct packed_part part)
{
    uint8_t *raw = mem_alloc((size_t)part.n_rows * part.n_cols);

    if (m->kind == PACKED_WORDS)
        unpack(&m->codes, part, raw);
    else
        for (uint32_t r = 0; r < part.n_rows; r++)
            memcpy(raw + (size_t)r * part.n_cols,
                   m->bytes + (size_t)(part.row + r) * m->cols + part.col, part.n_cols);
    return raw;
}

void packed_matrix_floats(const struct packed_matrix *m, struct packed_part part, float *y)
{
    uint8_t *raw = raw_codes(m, part);
    uint32_t *groups = mem_alloc(part.n_cols * sizeof *groups);
    float *scales = mem_alloc(m->n_groups * sizeof *scales);
    int32_t *zeros = mem_alloc(m->n_groups * sizeof *zeros);

    for (uint32_t c = 0; c < part.n_cols; c++)
        groups[c] = group_of(m, part.col + c);
    for (uint32_t r = 0; r < part.n_rows; r++) {
        for (uint32_t g = 0; g < m->n_groups; g++) {
            scales[g] = scale_of(m, part.row + r, g);
            zeros[g] = zero_of(m, part.row + r, g);
        }
        row_values(m, raw + (size_t)r * part.n_cols, groups, scales, zeros, part.n_cols,
                   y + (size_t)r * part.n_cols);
    }
    free(raw);
    free(groups);
    free(scales);
    free(zeros);
}

/* ---- codes ---- */

static void row_numbers(const struct packed_matrix *m, uint32_t row, struct packed_part part,
                        bool with_min, uint16_t *numbers)
{
    for (uint32_t c = 0; c < part.n_cols; c += BLOCK) {
        uint32_t g = group_of(m, part.col + c);
        *numbers++ = f16_scale_of(m, row, g);
        if (with_min) /* a product of 11 and 5 bits: exact in float */
            *numbers++ = float_to_f16(-scale_of(m, row, g) * (float)zero_of(m, row, g));
    }
}

/* The bits of the rows' scales, as floats. */
static void row_scales(const struct packed_matrix *m, struct packed_part part, uint16_t *numbers)
{
    for (uint32_t r = 0; r < part.n_rows; r++) {
        float scale = scale_of(m, part.row + r, 0);
        memcpy(numbers + (size_t)2 * r, &scale, sizeof scale);
    }
}

void packed_matrix_codes(const struct packed_matrix *m, struct packed_part part, bool with_min,
                         int8_t *codes, uint16_t *numbers)
{
    size_t n = (size_t)part.n_rows * part.n_cols;
    uint32_t row = (part.n_cols + BLOCK - 1) / BLOCK * (with_min ? 2 : 1);
    int32_t less = with_min ? 0 : centre_of(m);
    uint8_t *raw = raw_codes(m, part);

    assert(m->kind == PACKED_FP8 ? m->n_groups == 1 : part.col % BLOCK == 0);
    for (size_t i = 0; i < n; i++)
        codes[i] = (int8_t)(raw[i] - less);
    if (m->kind == PACKED_FP8)
        row_scales(m, part, numbers);
    else
        for (uint32_t r = 0; r < part.n_rows; r++)
            row_numbers(m, part.row + r, part, with_min, numbers + (size_t)r * row);
    free(raw);
}
