/* elementwise.cu - what passes over rows once: norms, embedding, rope, KV write, gates, conversions.
 *
 * All of it is bound by memory, so the mapping is the one that keeps the bus busy with little else: a row is a
 * block's where its sum is wanted (kept in registers between the sum and its use, read once), a head is a
 * warp's, and what needs no sum is cut into four columns a thread.  Accesses of a warp lie side by side, 16 bytes
 * a thread where rows allow it.
 *
 * Bytes moved are those of the arguments, once (rope_kv_write: k and v are read and not written back): 1024 rows of
 * 4096 floats normalised to f16 are 25 MB, 12 us at an A100's 2039 GB/s. */
#include "gpu-worker/cuda/kernels/elementwise.h"

#include "gpu-worker/cuda/kernels/port.h"

/* Four columns rounded to the row's type. */
KDEV void store_row4(void *row, uint32_t type, uint32_t i, k_f32x4 v)
{
    if (type == ROW_F32) {
        k_store4f((float *)row + i, v);
        return;
    }
    k_u32x2 pairs;
    if (type == ROW_F16)
        pairs = { { k_f32x2_to_f16x2(v.v[0], v.v[1]), k_f32x2_to_f16x2(v.v[2], v.v[3]) } };
    else
        pairs = { { k_f32x2_to_bf16x2(v.v[0], v.v[1]), k_f32x2_to_bf16x2(v.v[2], v.v[3]) } };
    k_store8((uint16_t *)row + i, pairs);
}

KDEV k_f32x4 load_row4(const void *row, uint32_t type, uint32_t i)
{
    if (type == ROW_F32)
        return k_ldg4f((const float *)row + i);
    k_u32x2 pairs = k_ldg8((const uint16_t *)row + i);
    if (type == ROW_F16)
        return { { k_f16_low(pairs.v[0]), k_f16_high(pairs.v[0]), k_f16_low(pairs.v[1]),
                   k_f16_high(pairs.v[1]) } };
    return { { k_bf16_low(pairs.v[0]), k_bf16_high(pairs.v[0]), k_bf16_low(pairs.v[1]),
               k_bf16_high(pairs.v[1]) } };
}

KDEV void *row_at(void *rows, uint32_t type, uint64_t index)
{
    return (char *)rows + index * row_type_bytes(type);
}

/* ---- norms: a block holds its row ---- */

enum {
    NORM_WARPS = RMSNORM_THREADS / 32,
    NORM_STEP = 4 * RMSNORM_THREADS, /* columns of a turn */
    NORM_TURNS = RMSNORM_DIM_MAX / NORM_STEP,
};

struct held_row {
    k_f32x4 v[NORM_TURNS];
};

/* Columns beyond dim are 0. */
KDEV void hold_row(struct held_row *row, const float *x, uint32_t dim)
{
    KUNROLL
    for (uint32_t k = 0; k < NORM_TURNS; k++) {
        uint32_t i = k * NORM_STEP + 4 * threadIdx.x;
        row->v[k] = { { 0, 0, 0, 0 } };
        if (i < dim)
            row->v[k] = k_load4f(x + i);
    }
}

/* 1 / sqrt(mean of squares + eps) */
KDEV float norm_scale(const struct held_row *row, uint32_t dim, float eps, float *part)
{
    float sum = 0;

    KUNROLL
    for (uint32_t k = 0; k < NORM_TURNS; k++)
        KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        sum = k_fma(row->v[k].v[j], row->v[k].v[j], sum);
    return k_rsqrt(k_block_sum<NORM_WARPS>(sum, part) / (float)dim + eps);
}

KDEV k_f32x4 normed(k_f32x4 x, float scale, k_f32x4 w)
{
    KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        x.v[j] = w.v[j] * (x.v[j] * scale);
    return x;
}

KERNEL(rmsnorm, struct rmsnorm_args, RMSNORM_THREADS)
{
    KSHARED(float, part, [32]);
    uint32_t t = blockIdx.x;
    uint64_t from = a.rows ? k_ldg_u32(a.rows + t) : t;
    void *y = row_at(a.y, a.y_type, (uint64_t)t * a.dim);
    struct held_row row;

    hold_row(&row, a.x + from * a.dim, a.dim);
    float scale = norm_scale(&row, a.dim, a.eps, part);
    KUNROLL
    for (uint32_t k = 0; k < NORM_TURNS; k++) {
        uint32_t i = k * NORM_STEP + 4 * threadIdx.x;
        if (i < a.dim)
            store_row4(y, a.y_type, i, normed(row.v[k], scale, k_ldg4f(a.w + i)));
    }
}

KERNEL(add_normed, struct add_normed_args, RMSNORM_THREADS)
{
    KSHARED(float, part, [32]);
    uint64_t at = (uint64_t)blockIdx.x * a.dim;
    struct held_row row;

    hold_row(&row, a.y + at, a.dim);
    float scale = norm_scale(&row, a.dim, a.eps, part);
    KUNROLL
    for (uint32_t k = 0; k < NORM_TURNS; k++) {
        uint32_t i = k * NORM_STEP + 4 * threadIdx.x;
        if (i < a.first || i - a.first >= a.count)
            continue;
        k_f32x4 x = k_load4f(a.x + at + i), y = normed(row.v[k], scale, k_ldg4f(a.w + i));
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            x.v[j] += y.v[j];
        k_store4f(a.x + at + i, x);
    }
}

/* ---- embedding ---- */

KERNEL(embed, struct embed_args, EMBED_THREADS)
{
    uint32_t t = blockIdx.x, row = (uint32_t)a.tokens[t] - a.first;

    if (row >= a.rows)
        return;
    const void *from = row_at((void *)a.table, a.type, row * a.row_stride);
    float *x = a.x + t * a.x_stride;
    for (uint32_t i = 4 * threadIdx.x; i < a.cols; i += 4 * EMBED_THREADS) {
        k_f32x4 v = load_row4(from, a.type, i);
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            v.v[j] *= a.scale;
        k_store4f(x + i, v);
    }
}

/* ---- positions, once a step ---- */

KERNEL(rope_angles, struct rope_angles_args, ROPE_ANGLES_THREADS)
{
    uint32_t t = blockIdx.x, position = a.positions[t];
    const double *low = a.low + (uint64_t)(position % ROPE_LOW) * a.half * 2;
    const double *high = a.high + (uint64_t)(position / ROPE_LOW) * a.half * 2;

    for (uint32_t i = threadIdx.x; i < a.half; i += ROPE_ANGLES_THREADS) {
        double c = low[2 * i], s = low[2 * i + 1], hc = high[2 * i], hs = high[2 * i + 1];
        a.cos[(uint64_t)t * a.half + i] = (float)(hc * c - hs * s);
        a.sin[(uint64_t)t * a.half + i] = (float)(hs * c + hc * s);
    }
}

/* ---- rope and KV write: a warp's head, held in shared memory ----
 * It is read and written four elements a lane; pairs are turned in between, whose halves may lie anywhere. */

/* Normalised but for the weights: the factor. */
KDEV float head_scale(const float *x, uint32_t head_dim, float eps)
{
    float sum = 0;

    for (uint32_t i = k_lane(); i < head_dim; i += 32)
        sum = k_fma(x[i], x[i], sum);
    return k_rsqrt(k_warp_sum(sum) / (float)head_dim + eps);
}

/* Element i of a head, normalised when there are weights. */
KDEV float head_element(const float *x, const float *norm, float scale, uint32_t i)
{
    return norm ? norm[i] * (x[i] * scale) : x[i];
}

/* In place, each pair by one lane. */
KDEV void turn_head(float *x, const struct rope_kv_write_args &a, const float *norm)
{
    uint32_t head_dim = a.place.head_dim;
    const float *cos = a.cos + (uint64_t)blockIdx.x * a.half;
    const float *sin = a.sin + (uint64_t)blockIdx.x * a.half;
    float scale = norm ? head_scale(x, head_dim, a.eps) : 1;

    for (uint32_t i = k_lane(); i < a.half; i += 32) {
        float u = head_element(x, norm, scale, i);
        float v = head_element(x, norm, scale, a.half + i);
        x[i] = u * cos[i] - v * sin[i];
        x[a.half + i] = v * cos[i] + u * sin[i];
    }
    if (norm)
        for (uint32_t i = 2 * a.half + k_lane(); i < head_dim; i += 32)
            x[i] = head_element(x, norm, scale, i);
}

KDEV void write_f32(float *to, const float *x, uint32_t n)
{
    for (uint32_t i = 4 * k_lane(); i < n; i += 128)
        k_store4f(to + i, k_load4f(x + i));
}

KDEV void write_f16(uint16_t *to, const float *x, uint32_t n)
{
    for (uint32_t i = 4 * k_lane(); i < n; i += 128)
        store_row4(to, ROW_F16, i, k_load4f(x + i));
}

KDEV void write_e4m3(uint8_t *to, const float *x, uint32_t n, float factor)
{
    for (uint32_t i = 4 * k_lane(); i < n; i += 128) {
        k_f32x4 v = k_load4f(x + i);
        uint32_t bytes = 0;
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            bytes |= (uint32_t)k_f32_to_e4m3(factor * v.v[j]) << 8 * j;
        *(uint32_t *)(to + i) = bytes;
    }
}

KDEV float largest_of(const float *x, uint32_t n)
{
    float largest = 0;

    for (uint32_t i = 4 * k_lane(); i < n; i += 128) {
        k_f32x4 v = k_load4f(x + i);
        KUNROLL
        for (uint32_t j = 0; j < 4; j++)
            largest = k_max(largest, k_bits_f32(k_f32_bits(v.v[j]) & 0x7fffffff));
    }
    return k_warp_max(largest);
}

/* Codes; the scale is returned. */
KDEV float write_i8(uint8_t *to, const float *x, uint32_t n)
{
    float scale = largest_of(x, n) / 127, inverse = scale > 0 ? 1 / scale : 0;

    for (uint32_t i = 4 * k_lane(); i < n; i += 128) {
        k_f32x4 v = k_load4f(x + i);
        uint32_t bytes = 0;
        KUNROLL
        for (uint32_t j = 0; j < 4; j++) {
            float code = k_min(k_max(v.v[j] * inverse, -127), 127);
            bytes |= ((uint32_t)k_round(code) & 0xff) << 8 * j;
        }
        *(uint32_t *)(to + i) = bytes;
    }
    return scale;
}

/* K (kind 0) or V (1) of one head to a slot of a page. */
KDEV void store_head(const struct rope_kv_write_args &a, uint64_t page, uint32_t slot,
                     uint32_t kind, uint32_t head, const float *x)
{
    const struct kv_place *p = &a.place;
    char *tile = p->pages + page * p->page_bytes + kv_tile_offset(p, a.layer, kind, head);
    char *to = tile + kv_scales_bytes(p->format, p->page_tokens) +
               slot * p->head_dim * kv_element_bytes(p->format);

    if (p->format == KV_F32) {
        write_f32((float *)to, x, p->head_dim);
    } else if (p->format == KV_F16) {
        write_f16((uint16_t *)to, x, p->head_dim);
    } else if (p->format == KV_E4M3) {
        write_e4m3((uint8_t *)to, x, p->head_dim, kind ? a.v_factor : a.k_factor);
    } else {
        float scale = write_i8((uint8_t *)to, x, p->head_dim);
        if (k_lane() == 0)
            ((float *)tile)[slot] = scale;
    }
}

KERNEL(rope_kv_write, struct rope_kv_write_args, ROPE_THREADS)
{
    KSHARED(float, held, [ROPE_WARPS][ROPE_HEAD_DIM_MAX]);
    uint32_t t = blockIdx.x, head = blockIdx.y * ROPE_WARPS + k_warp();
    uint32_t n_kv = a.place.n_heads, head_dim = a.place.head_dim, first_v = a.n_heads + n_kv;
    uint32_t page = k_ldg_u32(a.pages + t), slot = k_ldg_u32(a.slots + t);
    float *x = held[k_warp()];

    if (head >= first_v + n_kv)
        return;
    float *row = a.qkv + t * a.qkv_stride + (uint64_t)head * head_dim;
    write_f32(x, row, head_dim);
    k_syncwarp();
    if (head < first_v)
        turn_head(x, a, head < a.n_heads ? a.q_norm : a.k_norm);
    k_syncwarp();
    if (head < a.n_heads)
        write_f32(row, x, head_dim);
    else if (page != KV_WRITE_IDLE && head < first_v)
        store_head(a, page, slot, 0, head - a.n_heads, x);
    else if (page != KV_WRITE_IDLE)
        store_head(a, page, slot, 1, head - first_v, x);
}

/* ---- all elements alike ---- */

/* The first of the thread's four columns. */
KDEV uint32_t first_column()
{
    return blockIdx.x * ELEMENTS_COLS + 4 * threadIdx.x;
}

/* x / (1 + exp(-z)); z = x is silu.  0.5 x (1 + tanh(y)) is this with z = 2 y. */
KDEV float gated(float x, uint32_t act)
{
    float z = act == 0 ? x : 1.5957691216f * (x + 0.044715f * x * x * x);

    return k_divide(x, 1 + k_exp(-z));
}

KERNEL(gate, struct gate_args, ELEMENTS_THREADS)
{
    uint32_t t = blockIdx.y, i = first_column();

    if (i >= a.cols)
        return;
    k_f32x4 g = k_ldg4f(a.gate + t * a.in_stride + i), u = k_ldg4f(a.up + t * a.in_stride + i);
    KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        g.v[j] = gated(g.v[j], a.act) * u.v[j];
    store_row4(row_at(a.y, a.y_type, t * a.y_stride), a.y_type, i, g);
}

KERNEL(convert, struct convert_args, ELEMENTS_THREADS)
{
    uint32_t t = blockIdx.y, i = first_column();
    const float *x = a.x + t * a.x_stride;
    k_f32x4 v = { { 0, 0, 0, 0 } };

    if (i >= a.y_cols)
        return;
    if (i + 4 <= a.cols)
        v = k_ldg4f(x + i);
    else
        KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        v.v[j] = i + j < a.cols ? x[i + j] : 0;
    store_row4(row_at(a.y, a.y_type, t * a.y_stride), a.y_type, i, v);
}

KERNEL(add_rows, struct add_rows_args, ELEMENTS_THREADS)
{
    uint32_t t = blockIdx.y, i = first_column();
    float *y = a.y + t * a.y_stride + i;

    if (i >= a.cols)
        return;
    k_f32x4 sum = k_load4f(y), x = k_ldg4f(a.x + t * a.x_stride + i);
    KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        sum.v[j] += x.v[j];
    k_store4f(y, sum);
}

KERNEL(sigmoid_rows, struct sigmoid_rows_args, ELEMENTS_THREADS)
{
    uint32_t t = blockIdx.y, i = first_column();
    float *y = a.y + t * a.y_stride + i;

    if (i >= a.cols)
        return;
    float factor = k_divide(1, 1 + k_exp(-k_ldg_f32(a.gate + t * a.gate_stride)));
    k_f32x4 v = k_load4f(y);
    KUNROLL
    for (uint32_t j = 0; j < 4; j++)
        v.v[j] *= factor;
    k_store4f(y, v);
}

/* Rows of logits begin anywhere, so a warp's four accesses are 4 bytes a thread. */
KERNEL(softcap, struct softcap_args, ELEMENTS_THREADS)
{
    float *y = a.y + blockIdx.y * a.y_stride;

    KUNROLL
    for (uint32_t k = 0; k < 4; k++) {
        uint32_t i = blockIdx.x * ELEMENTS_COLS + k * ELEMENTS_THREADS + threadIdx.x;
        if (i < a.cols)
            y[i] = a.cap * k_tanh(y[i] / a.cap);
    }
}
