/* bench_rope_kv_write.c - heads turned, and keys and values on their way into pages of each format. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/verify/bench.h"

enum { KV_HEADS = 32, KV_HEADS_DRY = 2, KV_PAGE_TOKENS = 16 };

/* shape: rows tokens, cols the numbers of a head.  Row t goes to slot t of the pages, one after the other. */
struct writing {
    enum kv_format format;
    uint32_t rows, dim, heads; /* heads of q, of k, of v */
    uint64_t stride, n;        /* numbers: of a row, of all */
    float *qkv;
    float *angles;    /* [2 = cos, sin][rows][dim / 2] */
    uint32_t *places; /* [2][rows]: pages, slots */
    struct kv_place place;
    uint64_t pool_bytes;
    float *got_qkv;
    uint8_t *got_pages;
    cu_ptr device_qkv, device_angles, device_places, pool;
};

static double angle_at(uint32_t t, uint32_t i)
{
    return 0.01 * (t % 100) / (i + 1);
}

static void make_angles(struct bench *b, struct writing *w)
{
    uint32_t half = w->dim / 2;

    w->angles = bench_host(b, (uint64_t)w->rows * w->dim * sizeof *w->angles);
    for (uint32_t i = 0; i < w->rows * half; i++) {
        w->angles[i] = (float)cos(angle_at(i / half, i % half));
        w->angles[w->rows * half + i] = (float)sin(angle_at(i / half, i % half));
    }
}

static void make_places(struct bench *b, struct writing *w)
{
    w->places = bench_host(b, 2 * w->rows * sizeof *w->places);
    for (uint32_t t = 0; t < w->rows; t++) {
        w->places[t] = t / KV_PAGE_TOKENS;
        w->places[w->rows + t] = t % KV_PAGE_TOKENS;
    }
    w->place = (struct kv_place){
        .page_bytes = kv_page_bytes(w->format, KV_PAGE_TOKENS, w->dim, 1, w->heads),
        .n_heads = w->heads,
        .head_dim = w->dim,
        .page_tokens = KV_PAGE_TOKENS,
        .format = w->format,
    };
    w->pool_bytes = (w->rows + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS * w->place.page_bytes;
}

static void make_rows(struct bench *b, struct writing *w)
{
    *w = (struct writing){ .format = (enum kv_format)b->of.format,
                           .rows = b->shape.rows,
                           .dim = b->shape.cols,
                           .heads = b->v->is_small ? KV_HEADS_DRY : KV_HEADS };
    w->stride = (uint64_t)3 * w->heads * w->dim;
    w->n = w->rows * w->stride;
    w->qkv = bench_numbers(b, w->n, 16);
    make_angles(b, w);
    make_places(b, w);
    w->got_qkv = bench_host(b, w->n * sizeof *w->got_qkv);
    w->got_pages = bench_host(b, w->pool_bytes);
    w->device_qkv = bench_put(b, w->qkv, w->n * sizeof *w->qkv);
    w->device_angles = bench_put(b, w->angles, (uint64_t)w->rows * w->dim * sizeof *w->angles);
    w->device_places = bench_put(b, w->places, 2 * w->rows * sizeof *w->places);
    w->pool = bench_device(b, w->pool_bytes);
}

static void drop_rows(struct bench *b, struct writing *w)
{
    device_free(b->d.device, w->device_qkv);
    device_free(b->d.device, w->device_angles);
    device_free(b->d.device, w->device_places);
    device_free(b->d.device, w->pool);
    free(w->qkv);
    free(w->angles);
    free(w->places);
    free(w->got_qkv);
    free(w->got_pages);
}

/* Number d of a head of row t, turned so many times. */
static double turned(const struct writing *w, const float *head, uint32_t t, uint32_t d,
                     uint32_t times)
{
    uint32_t half = w->dim / 2, i = d % half;
    double u = (double)head[i], v = (double)head[half + i], angle = times * angle_at(t, i);

    return d < half ? u * cos(angle) - v * sin(angle) : v * cos(angle) + u * sin(angle);
}

/* What a number's rounding is relative to: int8's is that of the head's largest. */
static double scale_of(const struct writing *w, const uint8_t *tile, uint32_t slot, double want)
{
    return w->format == KV_I8 ? 127 * (double)((const float *)(const void *)tile)[slot]
                              : fabs(want) + 0x1p-6;
}

/* Number d of head h of row t's keys (kind 0) or values. */
static void compare_stored(struct bench *b, const struct writing *w, uint32_t t, uint32_t kind,
                           uint32_t h, uint32_t d)
{
    const float *head = w->qkv + t * w->stride + ((1 + kind) * w->heads + h) * w->dim;
    double factor = w->format != KV_E4M3 ? 1 : kind == 0 ? 2 : 0.5;
    double want = factor * (kind == 0 ? turned(w, head, t, d, 1) : (double)head[d]);
    uint32_t slot = w->places[w->rows + t];
    const uint8_t *tile =
        w->got_pages + w->places[t] * w->place.page_bytes + kv_tile_offset(&w->place, 0, kind, h);

    bench_note(b, bench_kv_number(tile, w->format, KV_PAGE_TOKENS, w->dim, slot, d), want,
               scale_of(w, tile, slot, want));
}

/* Queries lie in their rows and are turned by each launch; keys, turned once, and values lie in the pages. */
static void compare_rows(struct bench *b, const struct writing *w)
{
    for (uint64_t i = 0; i < w->n; i += 1 + w->n / 100003) {
        uint32_t t = (uint32_t)(i / w->stride), h = (uint32_t)(i % w->stride) / w->dim;
        uint32_t d = (uint32_t)(i % w->dim);

        if (h < w->heads)
            bench_note(b, (double)w->got_qkv[i],
                       turned(w, w->qkv + (i - d), t, d, bench_launches(b)), 1);
        else
            compare_stored(b, w, t, h / w->heads - 1, h % w->heads, d);
    }
}

/* Of a head: q is read and written, k and v are read, and written in the format. */
static double bytes_of(const struct writing *w)
{
    double heads = (double)w->rows * w->heads, number = kv_element_bytes(w->format);

    return heads * w->dim * (8 + 2 * (4 + number)) + (w->format == KV_I8 ? heads * 2 * 4 : 0) +
           (double)w->rows * w->dim * sizeof *w->angles;
}

void bench_rope_kv_write(struct bench *b)
{
    struct device_grid grid = { { 0, 0, 1 }, ROPE_THREADS, 0 };
    struct rope_kv_write_args args;
    struct writing w;

    make_rows(b, &w);
    args = (struct rope_kv_write_args){ .qkv = (float *)(uintptr_t)w.device_qkv,
                                        .cos = (const float *)(uintptr_t)w.device_angles,
                                        .pages = (const uint32_t *)(uintptr_t)w.device_places,
                                        .place = w.place,
                                        .qkv_stride = w.stride,
                                        .n_heads = w.heads,
                                        .half = w.dim / 2,
                                        .k_factor = 2,
                                        .v_factor = 0.5f };
    args.sin = args.cos + (uint64_t)w.rows * args.half;
    args.slots = args.pages + w.rows;
    args.place.pages = (char *)(uintptr_t)w.pool;
    grid.grid[0] = w.rows;
    grid.grid[1] = rope_kv_write_grid_y(w.heads, w.heads);
    b->bytes = bytes_of(&w);
    bench_time(b, "rope_kv_write", &grid, &args, sizeof args);
    bench_get(b, w.got_pages, w.pool, w.pool_bytes);
    bench_get(b, w.got_qkv, w.device_qkv, w.n * sizeof *w.got_qkv);
    compare_rows(b, &w);
    drop_rows(b, &w);
}
