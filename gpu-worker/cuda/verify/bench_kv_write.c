/* bench_kv_write.c - keys and values into pages of each format. */
#include <math.h>
#include <stdlib.h>

#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"

enum { KV_HEADS = 32, KV_HEADS_DRY = 2, KV_PAGE_TOKENS = 16 };

/* shape: rows tokens, cols the numbers of a head.  Row t goes to slot t of the pages, one after the other. */
struct writing {
    enum kv_format format;
    uint32_t rows, dim, heads;
    uint64_t n; /* numbers */
    float *kv;
    uint32_t *places; /* [2][rows]: pages, slots */
    struct kv_place place;
    uint64_t pool_bytes;
    struct kv_write_args args;
};

static void make_rows(struct bench *b, struct writing *w)
{
    uint32_t rows = b->shape.rows, dim = b->shape.cols;
    uint32_t heads = b->v->is_small ? KV_HEADS_DRY : KV_HEADS;

    *w = (struct writing){
        .format = (enum kv_format)b->of.format, .rows = rows, .dim = dim, .heads = heads
    };
    w->n = (uint64_t)rows * 2 * heads * dim;
    w->kv = bench_numbers(b, w->n, 16);
    w->places = bench_host(b, 2 * rows * sizeof *w->places);
    for (uint32_t t = 0; t < rows; t++) {
        w->places[t] = t / KV_PAGE_TOKENS;
        w->places[rows + t] = t % KV_PAGE_TOKENS;
    }
    w->place =
        (struct kv_place){ .page_bytes = kv_page_bytes(w->format, KV_PAGE_TOKENS, dim, 1, heads),
                           .n_heads = heads,
                           .head_dim = dim,
                           .page_tokens = KV_PAGE_TOKENS,
                           .format = w->format };
    w->pool_bytes = (rows + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS * w->place.page_bytes;
    w->args = (struct kv_write_args){ .kv_stride = (uint64_t)2 * heads * dim,
                                      .k_factor = 2,
                                      .v_factor = 0.5f };
}

/* Number i of a tile's vectors. */
static double stored(const struct writing *w, const uint8_t *tile, uint32_t slot, uint32_t i)
{
    const uint8_t *numbers = tile + kv_scales_bytes(w->format, KV_PAGE_TOKENS);
    uint32_t at = slot * w->dim + i;

    switch (w->format) {
    case KV_F32:
        return (double)((const float *)(const void *)numbers)[at];
    case KV_F16:
        return (double)f16_to_float(((const uint16_t *)(const void *)numbers)[at]);
    case KV_E4M3:
        return (double)e4m3_to_float(numbers[at]);
    default:
        return (double)((const int8_t *)numbers)[at] *
               (double)((const float *)(const void *)tile)[slot];
    }
}

/* What a number's rounding is relative to: int8's is that of the head's largest. */
static double scale_of(const struct writing *w, const uint8_t *tile, uint32_t slot, double want)
{
    return w->format == KV_I8 ? 127 * (double)((const float *)(const void *)tile)[slot]
                              : fabs(want) + 0x1p-6;
}

static void compare_pages(struct bench *b, const struct writing *w, const uint8_t *pool)
{
    for (uint64_t i = 0; i < w->n; i += 1 + w->n / 100003) {
        uint64_t t = i / w->args.kv_stride, column = i % w->args.kv_stride;
        uint32_t head = (uint32_t)column / w->dim, slot = w->places[w->rows + t];
        const uint8_t *tile = pool + w->places[t] * w->place.page_bytes +
                              kv_tile_offset(&w->place, 0, head / w->heads, head % w->heads);
        double factor = w->format != KV_E4M3 ? 1 : head < w->heads ? 2 : 0.5;
        double want = (double)w->kv[i] * factor;
        bench_note(b, stored(w, tile, slot, (uint32_t)column % w->dim), want,
                   scale_of(w, tile, slot, want));
    }
}

void bench_kv_write(struct bench *b)
{
    struct device_grid grid = { { 0, 0, 1 }, KV_WRITE_THREADS, 0 };
    cu_ptr kv, places, pool;
    struct writing w;
    uint8_t *got;

    make_rows(b, &w);
    got = bench_host(b, w.pool_bytes);
    kv = bench_put(b, w.kv, w.n * sizeof *w.kv);
    places = bench_put(b, w.places, 2 * w.rows * sizeof *w.places);
    pool = bench_device(b, w.pool_bytes);
    w.args.kv = (const float *)(uintptr_t)kv;
    w.args.pages = (const uint32_t *)(uintptr_t)places;
    w.args.slots = w.args.pages + w.rows;
    w.args.place = w.place;
    w.args.place.pages = (char *)(uintptr_t)pool;
    grid.grid[0] = w.rows;
    grid.grid[1] = kv_write_grid_y(w.heads);
    b->bytes = (double)w.n * (4 + kv_element_bytes(w.format)) +
               (w.format == KV_I8 ? (double)w.n / w.dim * 4 : 0);
    bench_time(b, "kv_write", &grid, &w.args, sizeof w.args);
    bench_get(b, got, pool, w.pool_bytes);
    compare_pages(b, &w, got);
    device_free(b->d.device, kv);
    device_free(b->d.device, places);
    device_free(b->d.device, pool);
    free(w.kv);
    free(w.places);
    free(got);
}
