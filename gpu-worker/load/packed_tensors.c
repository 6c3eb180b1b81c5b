/* packed_tensors.c - see packed_tensors.h.  Called at start-up only. */
#include "gpu-worker/load/packed_tensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/load/packed_matrix.h"

enum { SIDE_MAX = 1 << 24, NAME_BYTES = 320 };

struct joiner {
    struct tensors *ts;
    const struct quantization *q;
    bool *is_part;       /* [ts->n_tensors] */
    struct tensor *made; /* [n_made] */
    uint32_t n_made;
    struct err *e;
    char base[NAME_BYTES]; /* NAME of the matrix in work */
};

/* ---- parts ---- */

static void describe(char out[64], uint32_t n_dims, const uint64_t *dims)
{
    if (n_dims == 1)
        snprintf(out, 64, "[%llu]", (unsigned long long)dims[0]);
    else if (n_dims == 2)
        snprintf(out, 64, "[%llu, %llu]", (unsigned long long)dims[0], (unsigned long long)dims[1]);
    else
        snprintf(out, 64, "of %u dimensions", n_dims);
}

/* Types of a part, by what it is. */
enum part_type { PART_I32, PART_SHAPE, PART_SCALES };

static bool type_fits(const struct tensor *t, enum part_type type)
{
    if (type == PART_I32)
        return strcmp(t->type_text, "I32") == 0;
    if (type == PART_SHAPE)
        return strcmp(t->type_text, "I64") == 0 || strcmp(t->type_text, "I32") == 0;
    return t->type == TENSOR_F16 || t->type == TENSOR_BF16 || t->type == TENSOR_F32;
}

static const char *type_text(enum part_type type)
{
    static const char *const texts[] = { "I32", "I64", "F16, BF16 or F32" };

    return texts[type];
}

/* NAME.suffix; NULL when there is none. */
static const struct tensor *find_part(const struct joiner *j, const char *suffix)
{
    char name[NAME_BYTES + 32];

    snprintf(name, sizeof name, "%s.%s", j->base, suffix);
    return tensors_find(j->ts, name);
}

static void take(struct joiner *j, const struct tensor *t)
{
    j->is_part[t - j->ts->tensors] = true;
}

/* Checked, and taken.  NULL and ERR_MODEL. */
static const struct tensor *take_part(struct joiner *j, const char *suffix, enum part_type type)
{
    const struct tensor *t = find_part(j, suffix);

    if (!t)
        err_set(j->e, ERR_MODEL, 0, "tensor '%.80s.%s' is missing", j->base, suffix);
    else if (!type_fits(t, type)) {
        err_set(j->e, ERR_MODEL, 0, "tensor '%.80s' is %s, %s is read", t->name, t->type_text,
                type_text(type));
        t = NULL;
    } else
        take(j, t);
    return t;
}

static bool has_shape(const struct joiner *j, const struct tensor *t, uint64_t rows, uint64_t cols)
{
    const uint64_t wanted[2] = { rows, cols };
    char a[64], b[64];

    if (t->n_dims == 2 && t->dims[0] == rows && t->dims[1] == cols)
        return true;
    describe(a, t->n_dims, t->dims);
    describe(b, 2, wanted);
    return err_set(j->e, ERR_MODEL, 0, "tensor '%.80s' has shape %s, its matrix wants %s", t->name,
                   a, b);
}

/* Two dimensions, of which neither is 0 nor beyond what is believed. */
static bool is_matrix(const struct joiner *j, const struct tensor *t)
{
    char a[64];

    if (t->n_dims == 2 && t->dims[0] > 0 && t->dims[1] > 0 && t->dims[0] <= SIDE_MAX &&
        t->dims[1] <= SIDE_MAX)
        return true;
    describe(a, t->n_dims, t->dims);
    return err_set(j->e, ERR_MODEL, 0, "tensor '%.80s' has shape %s, wanted is a matrix", t->name,
                   a);
}

static uint64_t over(uint64_t n, uint64_t by)
{
    return (n + by - 1) / by;
}

/* ---- the matrix ---- */

static struct packed_ints ints_of(const struct tensor *t, uint32_t bits, bool is_down)
{
    struct packed_ints p = { .words = t->data, .bits = bits, .is_down = is_down };

    for (uint32_t i = 0; i < 32 / bits; i++)
        p.shift[i] = (uint8_t)(i * bits);
    return p;
}

/* Element i of the matrix is at bits 4 * place[i] of its word. */
static void use_awq_order(struct packed_ints *p)
{
    static const uint8_t place[8] = { 0, 4, 1, 5, 2, 6, 3, 7 };

    for (uint32_t i = 0; i < 8; i++)
        p->shift[i] = (uint8_t)(4 * place[i]);
}

/* The file's matrix has our columns below each other. */
static struct packed_scales scales_turned(const struct tensor *t)
{
    return (struct packed_scales){
        .data = t->data, .type = t->type, .row_step = 1, .col_step = t->dims[1], .rows_each = 1
    };
}

static struct packed_scales scales_straight(const struct tensor *t)
{
    return (struct packed_scales){
        .data = t->data, .type = t->type, .row_step = t->dims[1], .col_step = 1, .rows_each = 1
    };
}

static void set_groups(struct packed_matrix *m, uint32_t group_size)
{
    m->group_cols = group_size > 0 && group_size < m->cols ? group_size : m->cols;
    m->n_groups = (uint32_t)over(m->cols, m->group_cols);
}

/* The table is left out where it says what the division says. */
static bool set_group_table(struct joiner *j, struct packed_matrix *m, const struct tensor *t)
{
    bool same = true;

    if (t->n_dims != 1 || t->dims[0] != m->cols)
        return err_set(j->e, ERR_MODEL, 0,
                       "tensor '%.80s' names groups of %llu columns, the matrix has %u", t->name,
                       (unsigned long long)(t->n_dims == 1 ? t->dims[0] : 0), m->cols);
    for (uint32_t c = 0; c < m->cols; c++) {
        uint32_t group;
        memcpy(&group, (const uint8_t *)t->data + 4 * (size_t)c, sizeof group);
        if (group >= m->n_groups)
            return err_set(j->e, ERR_MODEL, 0,
                           "tensor '%.80s' puts column %u into group %d, there are %u", t->name, c,
                           (int)group, m->n_groups);
        same &= group == c / m->group_cols;
    }
    m->group_of = same ? NULL : t->data;
    return true;
}

static enum tensor_type type_of(const struct packed_matrix *m)
{
    bool is_centred = packed_matrix_is_centred(m);

    if (m->kind == PACKED_FP8)
        return m->n_groups == 1 ? TENSOR_FP8_ROWS : TENSOR_FP8;
    if (!packed_matrix_has_whole_blocks(m))
        return TENSOR_INT_MIXED;
    if (m->kind == PACKED_WORDS && m->codes.bits == 4)
        return is_centred ? TENSOR_INT4 : TENSOR_INT4Z;
    return is_centred ? TENSOR_INT8 : TENSOR_INT_MIXED;
}

static void add(struct joiner *j, const struct packed_matrix *m, const char *text,
                const struct tensor *from)
{
    struct tensor *t = &j->made[j->n_made++];
    struct packed_matrix *kept = mem_alloc(sizeof *kept);
    char name[NAME_BYTES + 8];

    *kept = *m;
    snprintf(name, sizeof name, "%s.weight", j->base);
    *t = (struct tensor){ .name = mem_strdup(name),
                          .type = type_of(m),
                          .n_dims = 2,
                          .dims = { m->rows, m->cols },
                          .data = from->data,
                          .bytes = from->bytes,
                          .file = from->file,
                          .packed = kept };
    snprintf(t->type_text, sizeof t->type_text, "%s", text);
}

/* ---- AWQ, GPTQ ---- */

static bool join_awq(struct joiner *j, const struct tensor *qweight)
{
    const struct tensor *zeros = take_part(j, "qzeros", PART_I32);
    const struct tensor *scales = zeros ? take_part(j, "scales", PART_SCALES) : NULL;
    struct packed_matrix m = { .kind = PACKED_WORDS, .codes = ints_of(qweight, 4, true) };

    if (!scales)
        return false;
    m.cols = (uint32_t)qweight->dims[0];
    m.rows = (uint32_t)qweight->dims[1] * 8;
    set_groups(&m, j->q->group_size);
    if (!has_shape(j, zeros, m.n_groups, m.rows / 8) || !has_shape(j, scales, m.n_groups, m.rows))
        return false;
    m.zeros = ints_of(zeros, 4, true);
    m.codes.row_step = m.zeros.row_step = 1;
    m.codes.col_step = m.zeros.col_step = m.rows / 8;
    use_awq_order(&m.codes);
    use_awq_order(&m.zeros);
    m.scales = scales_turned(scales);
    add(j, &m, "AWQ-4", qweight);
    return true;
}

/* Zero points and scales are padded at the end of each row. */
static bool join_awq_gemv(struct joiner *j, const struct tensor *qweight)
{
    const struct tensor *zeros = take_part(j, "qzeros", PART_I32);
    const struct tensor *scales = zeros ? take_part(j, "scales", PART_SCALES) : NULL;
    struct packed_matrix m = { .kind = PACKED_WORDS, .codes = ints_of(qweight, 4, false) };

    if (!scales)
        return false;
    m.rows = (uint32_t)qweight->dims[0];
    m.cols = (uint32_t)qweight->dims[1] * 8;
    set_groups(&m, j->q->group_size);
    if (!is_matrix(j, zeros) || !is_matrix(j, scales))
        return false;
    if (zeros->dims[1] < over(m.n_groups, 8) && !has_shape(j, zeros, m.rows, over(m.n_groups, 8)))
        return false;
    if (scales->dims[1] < m.n_groups && !has_shape(j, scales, m.rows, m.n_groups))
        return false;
    if (!has_shape(j, zeros, m.rows, zeros->dims[1]) ||
        !has_shape(j, scales, m.rows, scales->dims[1]))
        return false;
    m.zeros = ints_of(zeros, 4, false);
    m.codes.row_step = m.cols / 8;
    m.zeros.row_step = zeros->dims[1];
    m.codes.col_step = m.zeros.col_step = 1;
    m.scales = scales_straight(scales);
    add(j, &m, "AWQ-4", qweight);
    return true;
}

static bool join_gptq(struct joiner *j, const struct tensor *qweight)
{
    const struct tensor *zeros = take_part(j, "qzeros", PART_I32);
    const struct tensor *scales = zeros ? take_part(j, "scales", PART_SCALES) : NULL;
    const struct tensor *table = find_part(j, "g_idx");
    uint32_t bits = j->q->bits, per = 32 / bits;
    struct packed_matrix m = { .kind = PACKED_WORDS, .codes = ints_of(qweight, bits, false) };

    if (!scales)
        return false;
    m.cols = (uint32_t)qweight->dims[0] * per;
    m.rows = (uint32_t)qweight->dims[1];
    set_groups(&m, j->q->group_size);
    if (!has_shape(j, zeros, m.n_groups, over(m.rows, per)) ||
        !has_shape(j, scales, m.n_groups, m.rows))
        return false;
    m.zeros = ints_of(zeros, bits, true);
    m.zero_shift = j->q->zeros_less_one ? 1 : 0;
    m.codes.row_step = m.zeros.row_step = 1;
    m.codes.col_step = m.rows;
    m.zeros.col_step = over(m.rows, per);
    m.scales = scales_turned(scales);
    if (table && (!take_part(j, "g_idx", PART_I32) || !set_group_table(j, &m, table)))
        return false;
    add(j, &m, bits == 4 ? "GPTQ-4" : "GPTQ-8", qweight);
    return true;
}

/* ---- compressed-tensors ---- */

/* [out, in] as the file's own tensor says it. */
static bool read_shape(struct joiner *j, struct packed_matrix *m)
{
    const struct tensor *t = take_part(j, "weight_shape", PART_SHAPE);
    size_t each = t && strcmp(t->type_text, "I64") == 0 ? 8 : 4;
    uint64_t dims[2] = { 0, 0 };

    if (!t)
        return false;
    if (t->n_dims != 1 || t->dims[0] != 2)
        return err_set(j->e, ERR_MODEL, 0, "tensor '%.80s' must have two numbers", t->name);
    for (int i = 0; i < 2; i++)
        memcpy(&dims[i], (const uint8_t *)t->data + each * (size_t)i, each);
    if (dims[0] < 1 || dims[0] > SIDE_MAX || dims[1] < 1 || dims[1] > SIDE_MAX)
        return err_set(j->e, ERR_MODEL, 0, "tensor '%.80s' says [%llu, %llu], wanted is a matrix",
                       t->name, (unsigned long long)dims[0], (unsigned long long)dims[1]);
    m->rows = (uint32_t)dims[0];
    m->cols = (uint32_t)dims[1];
    return true;
}

static uint64_t elements_of(const struct tensor *t)
{
    uint64_t n = 1;

    for (uint32_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i];
    return n;
}

/* One scale for all, one a row, or one for each of equal groups of a row's columns. */
static bool set_row_scales(struct joiner *j, struct packed_matrix *m)
{
    const struct tensor *t = take_part(j, "weight_scale", PART_SCALES);
    uint64_t n, per_row;

    if (!t)
        return false;
    n = elements_of(t);
    per_row = t->n_dims == 2 ? t->dims[1] : 1;
    m->scales = (struct packed_scales){ .data = t->data, .type = t->type, .rows_each = m->rows };
    set_groups(m, 0);
    if (n == 1)
        return true;
    if (n != per_row * m->rows || per_row == 0 || m->cols % per_row != 0)
        return has_shape(j, t, m->rows, 1);
    set_groups(m, m->cols / (uint32_t)per_row);
    m->scales.rows_each = m->scales.col_step = 1;
    m->scales.row_step = per_row;
    return true;
}

static bool set_zero_points(struct joiner *j, struct packed_matrix *m)
{
    const struct tensor *t = find_part(j, "weight_zero_point");
    uint32_t per = 32 / m->codes.bits;

    m->zero = 1 << (m->codes.bits - 1);
    if (!t)
        return true;
    if (!take_part(j, "weight_zero_point", PART_I32) ||
        !has_shape(j, t, over(m->rows, per), m->n_groups))
        return false;
    m->zeros = ints_of(t, m->codes.bits, true);
    m->zeros.row_step = m->n_groups;
    m->zeros.col_step = 1;
    return true;
}

static bool set_row_groups(struct joiner *j, struct packed_matrix *m)
{
    const struct tensor *t = find_part(j, "weight_g_idx");
    int32_t first = 0;

    if (!t)
        return true;
    if (!take_part(j, "weight_g_idx", PART_I32))
        return false;
    if (t->bytes >= sizeof first)
        memcpy(&first, t->data, sizeof first);
    return first == -1 || set_group_table(j, m, t);
}

static bool join_compressed(struct joiner *j, const struct tensor *packed)
{
    struct packed_matrix m = { .kind = PACKED_WORDS };
    uint32_t bits;

    if (!read_shape(j, &m))
        return false;
    bits = packed->dims[1] == over(m.cols, 8) ? 4 : 8;
    if (!has_shape(j, packed, m.rows, over(m.cols, 32 / bits)))
        return false;
    m.codes = ints_of(packed, bits, false);
    m.codes.row_step = packed->dims[1];
    m.codes.col_step = 1;
    if (!set_row_scales(j, &m) || !set_zero_points(j, &m) || !set_row_groups(j, &m))
        return false;
    add(j, &m, bits == 4 ? "CT-4" : "CT-8", packed);
    return true;
}

static bool join_int8(struct joiner *j, const struct tensor *weight)
{
    struct packed_matrix m = { .kind = PACKED_INT8,
                               .rows = (uint32_t)weight->dims[0],
                               .cols = (uint32_t)weight->dims[1],
                               .bytes = weight->data };

    if (find_part(j, "weight_zero_point"))
        return err_set(
            j->e, ERR_MODEL, 0,
            "tensor '%.80s.weight_zero_point': int8 weights are read without zero points", j->base);
    if (!set_row_scales(j, &m))
        return false;
    add(j, &m, "CT-INT8", weight);
    return true;
}

/* ---- FP8 ---- */

static bool set_fp8_scales(struct joiner *j, struct packed_matrix *m, const struct tensor *t)
{
    uint32_t block_rows = j->q->block_rows, block_cols = j->q->block_cols;
    uint64_t n = elements_of(t);

    m->scales = (struct packed_scales){ .data = t->data, .type = t->type, .rows_each = m->rows };
    set_groups(m, 0);
    if (n == 1)
        return true;
    if (n == m->rows && (t->n_dims == 1 || t->dims[t->n_dims - 1] == 1)) {
        m->scales.rows_each = m->scales.row_step = 1;
        return true;
    }
    if (block_rows == 0)
        return has_shape(j, t, m->rows, 1);
    set_groups(m, block_cols);
    m->scales.rows_each = block_rows;
    m->scales.row_step = m->n_groups;
    m->scales.col_step = 1;
    return has_shape(j, t, over(m->rows, block_rows), m->n_groups);
}

static bool join_fp8(struct joiner *j, const struct tensor *weight)
{
    const char *suffix = find_part(j, "weight_scale_inv") ? "weight_scale_inv" : "weight_scale";
    const struct tensor *scales = take_part(j, suffix, PART_SCALES);
    struct packed_matrix m = { .kind = PACKED_FP8,
                               .rows = (uint32_t)weight->dims[0],
                               .cols = (uint32_t)weight->dims[1],
                               .bytes = weight->data };

    if (!scales || !set_fp8_scales(j, &m, scales))
        return false;
    add(j, &m, "F8_E4M3", weight);
    return true;
}

/* ---- which tensors begin a matrix ---- */

struct scheme {
    enum quantization_method method;
    const char *suffix, *type;
    bool (*join)(struct joiner *j, const struct tensor *first);
};

static const struct scheme schemes[] = {
    { QUANTIZATION_AWQ, "qweight", "I32", join_awq },
    { QUANTIZATION_GPTQ, "qweight", "I32", join_gptq },
    { QUANTIZATION_COMPRESSED_TENSORS, "weight_packed", "I32", join_compressed },
    { QUANTIZATION_COMPRESSED_TENSORS, "weight", "I8", join_int8 },
    { QUANTIZATION_COMPRESSED_TENSORS, "weight", "F8_E4M3", join_fp8 },
    { QUANTIZATION_FP8, "weight", "F8_E4M3", join_fp8 },
};

/* Of a tensor that is NAME.suffix, NAME is noted. */
static bool is_named(struct joiner *j, const struct tensor *t, const char *suffix)
{
    const char *dot = strrchr(t->name, '.');

    if (!dot || strcmp(dot + 1, suffix) != 0 || dot - t->name >= NAME_BYTES)
        return false;
    snprintf(j->base, sizeof j->base, "%.*s", (int)(dot - t->name), t->name);
    return true;
}

static bool join_one(struct joiner *j, const struct tensor *t)
{
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        const struct scheme *s = &schemes[i];
        bool gemv = s->join == join_awq && j->q->gemv;
        if (s->method != j->q->method || !is_named(j, t, s->suffix) ||
            strcmp(s->type, t->type_text) != 0)
            continue;
        take(j, t);
        return is_matrix(j, t) && (gemv ? join_awq_gemv : s->join)(j, t);
    }
    return true;
}

/* The matrices made take the place of their parts. */
static void replace_parts(struct joiner *j)
{
    struct tensors *ts = j->ts;
    uint32_t n = 0;

    for (uint32_t i = 0; i < ts->n_tensors; i++)
        if (j->is_part[i])
            free(ts->tensors[i].name);
        else
            ts->tensors[n++] = ts->tensors[i];
    ts->tensors = mem_realloc(ts->tensors, (n + j->n_made + 1) * sizeof *ts->tensors);
    if (j->n_made > 0)
        memcpy(ts->tensors + n, j->made, j->n_made * sizeof *j->made);
    ts->n_tensors = n + j->n_made;
}

bool packed_tensors_join(struct tensors *ts, const struct quantization *q, struct err *e)
{
    struct joiner j = { .ts = ts, .q = q, .e = e };
    bool ok = true;

    if (q->method == QUANTIZATION_NONE || ts->n_tensors == 0)
        return true;
    j.is_part = mem_zalloc(ts->n_tensors, sizeof *j.is_part);
    j.made = mem_alloc(ts->n_tensors * sizeof *j.made);
    for (uint32_t i = 0; ok && i < ts->n_tensors; i++)
        ok = join_one(&j, &ts->tensors[i]);
    replace_parts(&j);
    free(j.is_part);
    free(j.made);
    return ok && tensors_sort(ts, e);
}
