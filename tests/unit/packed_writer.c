/* packed_writer.c - see packed_writer.h. */
#include "tests/unit/packed_writer.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/mem.h"
#include "gpu-worker/ops/half.h"

/* ---- the file ---- */

void packed_writer_begin(struct packed_writer *w, const struct pack_spec *spec)
{
    *w = (struct packed_writer){ .spec = spec };
    buf_add_str(&w->header, "{\"__metadata__\":{\"format\":\"pt\"}");
}

void packed_writer_plain(struct packed_writer *w, const char *name, const char *type, uint32_t rows,
                         uint32_t cols, const void *bytes, size_t n)
{
    buf_printf(&w->header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[%u", name, type, rows);
    if (cols)
        buf_printf(&w->header, ",%u", cols);
    buf_printf(&w->header, "],\"data_offsets\":[%zu,%zu]}", w->data.n, w->data.n + n);
    buf_add(&w->data, bytes, n);
}

static void put(struct packed_writer *w, const char *name, const char *suffix, const char *type,
                uint32_t rows, uint32_t cols, const void *bytes, size_t n)
{
    char full[128];

    snprintf(full, sizeof full, "%s.%s", name, suffix);
    packed_writer_plain(w, full, type, rows, cols, bytes, n);
}

/* ---- rounding ---- */

struct matrix {
    uint32_t rows, cols, groups, group;
    uint8_t *codes;   /* [rows, cols] */
    uint8_t *zeros;   /* [rows, groups] */
    uint16_t *scales; /* [rows, groups], float16 or bfloat16 */
    uint32_t *g_idx;  /* [cols] */
};

static uint32_t common_divisor(uint32_t a, uint32_t b)
{
    return b == 0 ? a : common_divisor(b, a % b);
}

/* In desc_act's order neighbours are of different groups: here every step-th column is next. */
static void choose_groups(const struct pack_spec *s, struct matrix *m)
{
    uint32_t step = m->cols / 3 + 1;

    while (common_divisor(step, m->cols) != 1)
        step++;
    for (uint32_t c = 0; c < m->cols; c++)
        m->g_idx[c] = c / m->group;
    if (!(s->flags & PACK_DESC_ACT))
        return;
    for (uint32_t c = 0, at = 0; c < m->cols; c++, at = (at + step) % m->cols)
        m->g_idx[at] = c / m->group;
}

static double scale_value(const struct pack_spec *s, uint16_t bits)
{
    return (double)(s->flags & PACK_BF16 ? bf16_to_float(bits) : f16_to_float(bits));
}

static void round_group(const struct pack_spec *s, const double *row, uint32_t group,
                        struct matrix *m, uint32_t r, double *decoded)
{
    double low = 0, high = 0, scale, top = (1 << s->bits) - 1;
    int zero = 1 << (s->bits - 1);
    uint16_t bits;

    for (uint32_t c = 0; c < m->cols; c++)
        if (m->g_idx[c] == group) {
            low = fmin(low, row[c]);
            high = fmax(high, row[c]);
        }
    scale = s->flags & PACK_SYM ? fmax(high, -low) / (zero - 1) : (high - low) / top;
    bits = s->flags & PACK_BF16 ? float_to_bf16((float)scale) : float_to_f16((float)scale);
    scale = scale_value(s, bits);
    if (!(s->flags & PACK_SYM))
        zero = (int)fmin(top, round(-low / scale));
    if (s->format == PACK_GPTQ && zero == 0)
        zero = 1; /* the format has no place for it */
    m->scales[r * m->groups + group] = bits;
    m->zeros[r * m->groups + group] = (uint8_t)zero;
    for (uint32_t c = 0; c < m->cols; c++)
        if (m->g_idx[c] == group) {
            double q = fmin(top, fmax(0, round(row[c] / scale) + zero));
            m->codes[(size_t)r * m->cols + c] = (uint8_t)q;
            decoded[c] = scale * (q - zero);
        }
}

static void round_matrix(const struct pack_spec *s, struct matrix *m, uint32_t rows, uint32_t cols,
                         const double *x, double *decoded)
{
    *m = (struct matrix){ .rows = rows, .cols = cols };
    m->group = s->group > 0 && s->group < cols ? s->group : cols;
    m->groups = (cols + m->group - 1) / m->group;
    m->codes = mem_zalloc(rows, cols);
    m->zeros = mem_zalloc(rows, m->groups);
    m->scales = mem_zalloc(rows, m->groups * sizeof *m->scales);
    m->g_idx = mem_zalloc(cols, sizeof *m->g_idx);
    choose_groups(s, m);
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t g = 0; g < m->groups; g++)
            round_group(s, x + (size_t)r * cols, g, m, r, decoded + (size_t)r * cols);
}

static void matrix_free(struct matrix *m)
{
    free(m->codes);
    free(m->zeros);
    free(m->scales);
    free(m->g_idx);
}

/* ---- packing ---- */

typedef uint32_t at_fn(const struct matrix *m, uint32_t row, uint32_t col);

static uint32_t code_at(const struct matrix *m, uint32_t row, uint32_t col)
{
    return col < m->cols ? m->codes[(size_t)row * m->cols + col] : 0;
}

/* The number that a code of 4 bits stands for, about the zero point of 8 bits. */
static uint32_t wide_code_at(const struct matrix *m, uint32_t row, uint32_t col)
{
    return 128 + code_at(m, row, col) - m->zeros[row * m->groups + m->g_idx[col]];
}

static uint32_t zero_at(const struct matrix *m, uint32_t row, uint32_t group)
{
    return row < m->rows && group < m->groups ? m->zeros[row * m->groups + group] : 0;
}

/* qzeros of GPTQ's first format. */
static uint32_t zero_less_one_at(const struct matrix *m, uint32_t row, uint32_t group)
{
    return row < m->rows ? zero_at(m, row, group) - 1 : 0;
}

static uint32_t over(uint32_t n, uint32_t by)
{
    return (n + by - 1) / by;
}

/* A word has elements of one row, at `col` and right of it. */
static uint32_t word_across(const struct matrix *m, at_fn *at, uint32_t row, uint32_t col,
                            uint32_t bits)
{
    uint32_t word = 0;

    for (uint32_t i = 0; i < 32 / bits; i++)
        word |= at(m, row, col + i) << (i * bits);
    return word;
}

static uint32_t word_down(const struct matrix *m, at_fn *at, uint32_t row, uint32_t col,
                          uint32_t bits)
{
    uint32_t word = 0;

    for (uint32_t i = 0; i < 32 / bits; i++)
        word |= at(m, row + i, col) << (i * bits);
    return word;
}

static uint32_t word_awq(const struct matrix *m, at_fn *at, uint32_t row, uint32_t col)
{
    static const uint32_t order[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
    uint32_t word = 0;

    for (uint32_t i = 0; i < 8; i++)
        word |= at(m, row + order[i], col) << (i * 4);
    return word;
}

static const char *scale_type(const struct pack_spec *s)
{
    return s->flags & PACK_BF16 ? "BF16" : "F16";
}

/* [groups, rows] */
static void put_scales_turned(struct packed_writer *w, const char *name, const struct matrix *m)
{
    struct buf b = { 0 };

    for (uint32_t g = 0; g < m->groups; g++)
        for (uint32_t r = 0; r < m->rows; r++)
            buf_add(&b, &m->scales[r * m->groups + g], 2);
    put(w, name, "scales", scale_type(w->spec), m->groups, m->rows, b.data, b.n);
    buf_fini(&b);
}

static void put_awq(struct packed_writer *w, const char *name, const struct matrix *m)
{
    struct buf codes = { 0 }, zeros = { 0 };
    uint32_t word;

    for (uint32_t c = 0; c < m->cols; c++)
        for (uint32_t r = 0; r < m->rows; r += 8) {
            word = word_awq(m, code_at, r, c);
            buf_add(&codes, &word, 4);
        }
    for (uint32_t g = 0; g < m->groups; g++)
        for (uint32_t r = 0; r < m->rows; r += 8) {
            word = word_awq(m, zero_at, r, g);
            buf_add(&zeros, &word, 4);
        }
    put(w, name, "qweight", "I32", m->cols, m->rows / 8, codes.data, codes.n);
    put(w, name, "qzeros", "I32", m->groups, m->rows / 8, zeros.data, zeros.n);
    put_scales_turned(w, name, m);
    buf_fini(&codes);
    buf_fini(&zeros);
}

/* Zero points in whole words a row, and so many scales as there is room for zero points. */
static void put_awq_gemv(struct packed_writer *w, const char *name, const struct matrix *m)
{
    uint32_t width = over(m->groups, 8), word;
    struct buf codes = { 0 }, zeros = { 0 }, scales = { 0 };

    for (uint32_t r = 0; r < m->rows; r++) {
        for (uint32_t c = 0; c < m->cols; c += 8) {
            word = word_across(m, code_at, r, c, 4);
            buf_add(&codes, &word, 4);
        }
        for (uint32_t i = 0; i < width; i++) {
            word = word_across(m, zero_at, r, i * 8, 4);
            buf_add(&zeros, &word, 4);
        }
        for (uint32_t g = 0; g < width * 8; g++) {
            uint16_t scale = g < m->groups ? m->scales[r * m->groups + g] : 0;
            buf_add(&scales, &scale, 2);
        }
    }
    put(w, name, "qweight", "I32", m->rows, m->cols / 8, codes.data, codes.n);
    put(w, name, "qzeros", "I32", m->rows, width, zeros.data, zeros.n);
    put(w, name, "scales", "F16", m->rows, width * 8, scales.data, scales.n);
    buf_fini(&codes);
    buf_fini(&zeros);
    buf_fini(&scales);
}

static void put_gptq(struct packed_writer *w, const char *name, const struct matrix *m)
{
    uint32_t bits = w->spec->bits, per = 32 / bits, word;
    at_fn *zero = w->spec->format == PACK_GPTQ ? zero_less_one_at : zero_at;
    struct buf codes = { 0 }, zeros = { 0 };

    for (uint32_t c = 0; c < m->cols; c += per)
        for (uint32_t r = 0; r < m->rows; r++) {
            word = word_across(m, code_at, r, c, bits);
            buf_add(&codes, &word, 4);
        }
    for (uint32_t g = 0; g < m->groups; g++)
        for (uint32_t r = 0; r < m->rows; r += per) {
            word = word_down(m, zero, r, g, bits);
            buf_add(&zeros, &word, 4);
        }
    put(w, name, "qweight", "I32", m->cols / per, m->rows, codes.data, codes.n);
    put(w, name, "qzeros", "I32", m->groups, over(m->rows, per), zeros.data, zeros.n);
    put_scales_turned(w, name, m);
    put(w, name, "g_idx", "I32", m->cols, 0, m->g_idx, m->cols * 4);
    buf_fini(&codes);
    buf_fini(&zeros);
}

static void put_ct(struct packed_writer *w, const char *name, const struct matrix *m)
{
    bool wide = w->spec->flags & PACK_WIDE, sym = wide || (w->spec->flags & PACK_SYM);
    uint32_t bits = wide ? 8 : w->spec->bits, per = 32 / bits, word;
    int64_t shape[2] = { m->rows, m->cols };
    struct buf codes = { 0 }, zeros = { 0 };

    for (uint32_t r = 0; r < m->rows; r++)
        for (uint32_t c = 0; c < m->cols; c += per) {
            word = word_across(m, wide ? wide_code_at : code_at, r, c, bits);
            buf_add(&codes, &word, 4);
        }
    for (uint32_t r = 0; r < m->rows; r += per)
        for (uint32_t g = 0; g < m->groups; g++) {
            word = word_down(m, zero_at, r, g, bits);
            buf_add(&zeros, &word, 4);
        }
    put(w, name, "weight_packed", "I32", m->rows, over(m->cols, per), codes.data, codes.n);
    put(w, name, "weight_shape", "I64", 2, 0, shape, sizeof shape);
    put(w, name, "weight_scale", scale_type(w->spec), m->rows, m->groups, m->scales,
        (size_t)m->rows * m->groups * 2);
    if (!sym)
        put(w, name, "weight_zero_point", "I32", over(m->rows, per), m->groups, zeros.data,
            zeros.n);
    if (w->spec->flags & PACK_DESC_ACT)
        put(w, name, "weight_g_idx", "I32", m->cols, 0, m->g_idx, m->cols * 4);
    buf_fini(&codes);
    buf_fini(&zeros);
}

static void put_int8(struct packed_writer *w, const char *name, const struct matrix *m)
{
    size_t n = (size_t)m->rows * m->cols;
    int8_t *signed_codes = mem_alloc(n);

    for (size_t i = 0; i < n; i++)
        signed_codes[i] = (int8_t)(m->codes[i] - 128);
    put(w, name, "weight", "I8", m->rows, m->cols, signed_codes, n);
    put(w, name, "weight_scale", scale_type(w->spec), m->rows, 1, m->scales, (size_t)m->rows * 2);
    free(signed_codes);
}

/* ---- FP8 ---- */

/* By the format's definition: sign, four bits of exponent with a bias of 7, three of fraction. */
static double e4m3_value(int code)
{
    int exponent = code >> 3 & 15, fraction = code & 7;
    double v = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);

    return code & 0x80 ? -v : v;
}

/* Codes of one sign are in the order of their values; 0x7f is none. */
static uint8_t e4m3_nearest(double x)
{
    int low = 0, high = 0x7e;

    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (e4m3_value(middle) <= fabs(x))
            low = middle;
        else
            high = middle;
    }
    if (e4m3_value(high) - fabs(x) < fabs(x) - e4m3_value(low))
        low = high;
    return (uint8_t)(x < 0 ? low | 0x80 : low);
}

static void put_fp8(struct packed_writer *w, const char *name, uint32_t rows, uint32_t cols,
                    const double *x, double *decoded)
{
    const struct pack_spec *s = w->spec;
    bool blocks = s->format == PACK_FP8_BLOCKS;
    uint32_t each_rows = s->format == PACK_FP8 ? rows : s->format == PACK_FP8_ROWS ? 1 : s->group;
    uint32_t each_cols = blocks ? s->group : cols;
    uint32_t n_down = over(rows, each_rows), n_across = over(cols, each_cols);
    float *scales = mem_zalloc(n_down * n_across, sizeof *scales);
    uint8_t *codes = mem_alloc((size_t)rows * cols);

    for (size_t i = 0; i < (size_t)rows * cols; i++) {
        float *scale = &scales[i / cols / each_rows * n_across + i % cols / each_cols];
        *scale = fmaxf(*scale, (float)(fabs(x[i]) / 448));
    }
    for (size_t i = 0; i < (size_t)rows * cols; i++) {
        double scale = (double)scales[i / cols / each_rows * n_across + i % cols / each_cols];
        codes[i] = e4m3_nearest(x[i] / scale);
        decoded[i] = e4m3_value(codes[i]) * scale;
    }
    put(w, name, "weight", "F8_E4M3", rows, cols, codes, (size_t)rows * cols);
    put(w, name, blocks ? "weight_scale_inv" : "weight_scale", "F32", n_down,
        s->format == PACK_FP8 ? 0 : n_across, scales, n_down * n_across * sizeof *scales);
    free(scales);
    free(codes);
}

/* ---- the whole ---- */

void packed_writer_matrix(struct packed_writer *w, const char *name, uint32_t rows, uint32_t cols,
                          const double *x, double *decoded)
{
    static void (*const puts[])(struct packed_writer *, const char *, const struct matrix *) = {
        [PACK_AWQ] = put_awq,   [PACK_AWQ_GEMV] = put_awq_gemv,
        [PACK_GPTQ] = put_gptq, [PACK_GPTQ_V2] = put_gptq,
        [PACK_CT] = put_ct,     [PACK_CT_INT8] = put_int8,
    };
    struct matrix m;

    if (w->spec->format >= PACK_FP8) {
        put_fp8(w, name, rows, cols, x, decoded);
        return;
    }
    round_matrix(w->spec, &m, rows, cols, x, decoded);
    puts[w->spec->format](w, name, &m);
    matrix_free(&m);
}

static void describe(const struct pack_spec *s, struct buf *b)
{
    bool gptq = s->format == PACK_GPTQ || s->format == PACK_GPTQ_V2;
    int group = s->group > 0 ? (int)s->group : -1;

    if (s->format <= PACK_AWQ_GEMV && s->flags & PACK_OLDER_FILE)
        buf_printf(b, "{\"zero_point\":true,\"q_group_size\":%d,\"w_bit\":4,\"version\":\"%s\"}",
                   group, s->format == PACK_AWQ ? "GEMM" : "GEMV");
    else if (s->format <= PACK_AWQ_GEMV)
        buf_printf(b,
                   "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":%d,\"zero_point\":true,"
                   "\"version\":\"%s\",\"modules_to_not_convert\":null}",
                   group, s->format == PACK_AWQ ? "gemm" : "gemv");
    else if (gptq)
        buf_printf(b,
                   "{%s\"bits\":%u,\"group_size\":%d,\"desc_act\":%s,\"sym\":%s,"
                   "\"damp_percent\":0.01%s}",
                   s->flags & PACK_OLDER_FILE ? "" : "\"quant_method\":\"gptq\",", s->bits, group,
                   s->flags & PACK_DESC_ACT ? "true" : "false",
                   s->flags & PACK_SYM ? "true" : "false",
                   s->format == PACK_GPTQ_V2 ? ",\"checkpoint_format\":\"gptq_v2\"" : "");
    else if (s->format <= PACK_CT_INT8)
        buf_printf(b,
                   "{\"quant_method\":\"compressed-tensors\",\"format\":\"%s\","
                   "\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"]}},"
                   "\"ignore\":[\"lm_head\"],\"quantization_status\":\"compressed\"}",
                   s->format == PACK_CT ? "pack-quantized" : "int-quantized");
    else {
        buf_add_str(b, "{\"quant_method\":\"fp8\",\"activation_scheme\":\"dynamic\"");
        if (s->format == PACK_FP8_BLOCKS)
            buf_printf(b, ",\"weight_block_size\":[%u,%u]", s->group, s->group);
        buf_add_char(b, '}');
    }
}

static void write_config(const struct pack_spec *s, const char *dir)
{
    struct buf b = { 0 };
    char path[128], *config;
    size_t n;

    describe(s, &b);
    if (s->flags & PACK_OLDER_FILE)
        test_dir_write(dir,
                       s->format <= PACK_AWQ_GEMV ? "quant_config.json" : "quantize_config.json",
                       b.data, b.n);
    else {
        struct buf whole = { 0 };
        snprintf(path, sizeof path, "%s/config.json", dir);
        assert_true(file_read(path, 1 << 20, &config, &n, NULL));
        while (n > 0 && config[n - 1] != '}')
            n--;
        buf_add(&whole, config, n - 1);
        buf_printf(&whole, ",\"quantization_config\":%s}", b.data);
        test_dir_write(dir, "config.json", whole.data, whole.n);
        buf_fini(&whole);
        free(config);
    }
    buf_fini(&b);
}

void packed_writer_end_plain(struct packed_writer *w, const char *dir)
{
    struct buf whole = { 0 };

    buf_add_char(&w->header, '}');
    for (int i = 0; i < 8; i++)
        buf_add_char(&whole, (char)(w->header.n >> (8 * i)));
    buf_add(&whole, w->header.data, w->header.n);
    buf_add(&whole, w->data.data, w->data.n);
    test_dir_write(dir, "model.safetensors", whole.data, whole.n);
    buf_fini(&whole);
    buf_fini(&w->header);
    buf_fini(&w->data);
}

void packed_writer_end(struct packed_writer *w, const char *dir)
{
    packed_writer_end_plain(w, dir);
    write_config(w->spec, dir);
}

/* ---- whole models ---- */

bool packed_writer_packs(const struct checkpoint_tensor *t)
{
    return t->cols > 0 && !strstr(t->name, "embed") && !strstr(t->name, "lm_head") &&
           !strstr(t->name, "moe.gate.");
}

static const char *type_name(enum dtype t)
{
    return t == DTYPE_F32 ? "F32" : t == DTYPE_F16 ? "F16" : "BF16";
}

void packed_writer_checkpoint(struct checkpoint *c, const struct pack_spec *spec)
{
    struct packed_writer w;

    packed_writer_begin(&w, spec);
    for (uint32_t i = 0; i < c->n; i++) {
        struct checkpoint_tensor *t = &c->tensors[i];
        size_t n = (size_t)t->rows * (t->cols ? t->cols : 1);
        double *decoded;
        if (!packed_writer_packs(t)) {
            packed_writer_plain(&w, t->name, type_name(c->spec.dtype), t->rows, t->cols, t->coded,
                                dtype_bytes(c->spec.dtype, n));
            continue;
        }
        decoded = mem_alloc(n * sizeof *decoded);
        t->name[strlen(t->name) - strlen(".weight")] = '\0';
        packed_writer_matrix(&w, t->name, t->rows, t->cols, t->values, decoded);
        t->name[strlen(t->name)] = '.';
        free(t->values);
        t->values = decoded;
    }
    packed_writer_end(&w, c->dir);
}
