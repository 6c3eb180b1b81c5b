/* items_kernels.c - G10: kernels on the device, compared with the host and timed.
 *
 * The tests compare every kernel with a double reference over all shapes, on the CPU; what is left to find out is
 * whether nvcc's machine code does the same, and how fast.  So each case here is one large shape of Llama-2 7B: a
 * sample of its results is compared, and its time gives the fraction of the bandwidth that the driver tells of
 * (G0).  Each case is a process of its own: one that faults leaves the others to be run. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/cuda/verify/peak.h"

struct kernel_case {
    const char *name;
    bench_fn *run;
    double error_limit;
    double
        fraction; /* of the bandwidth, wanted (the design's section 4), or, where operations are counted, of the
                      * tensor cores' rate; 0: of neither */
    struct shape real, dry;
};

/* ---- The cases ---- */

static void compare_rmsnorm(struct bench *b, const float *x, const float *w, const float *y,
                            float eps)
{
    for (uint32_t i = 0; i < BENCH_SAMPLE_ROWS; i++) {
        uint32_t row = bench_sample(i, b->shape.rows), n = b->shape.cols;
        const float *xr = x + (uint64_t)row * n, *yr = y + (uint64_t)row * n;
        double sum = 0, scale;

        for (uint32_t c = 0; c < n; c++)
            sum += (double)xr[c] * (double)xr[c];
        scale = 1 / sqrt(sum / n + (double)eps);
        for (uint32_t c = 0; c < n; c++)
            bench_note(b, (double)yr[c], (double)w[c] * (double)xr[c] * scale, scale);
    }
}

static void run_rmsnorm(struct bench *b)
{
    uint64_t n = (uint64_t)b->shape.rows * b->shape.cols;
    float *x = bench_numbers(b, n, 1), *w = bench_numbers(b, b->shape.cols, 2),
          *y = bench_host(b, n * sizeof *y);
    cu_ptr dx = bench_put(b, x, n * sizeof *x), dw = bench_put(b, w, b->shape.cols * sizeof *w),
           dy = bench_device(b, n * sizeof *y);
    struct rmsnorm_args args = { .y = (void *)(uintptr_t)dy,
                                 .x = (const float *)(uintptr_t)dx,
                                 .w = (const float *)(uintptr_t)dw,
                                 .dim = b->shape.cols,
                                 .y_type = ROW_F32,
                                 .eps = 1e-5f };
    struct device_grid grid = { { b->shape.rows, 1, 1 }, RMSNORM_THREADS, 0 };

    b->bytes = (double)n * 8;
    bench_time(b, "rmsnorm", &grid, &args, sizeof args);
    bench_get(b, y, dy, n * sizeof *y);
    compare_rmsnorm(b, x, w, y, args.eps);
    device_free(b->d.device, dx);
    device_free(b->d.device, dw);
    device_free(b->d.device, dy);
    free(x);
    free(w);
    free(y);
}

static void run_gate(struct bench *b)
{
    uint64_t n = (uint64_t)b->shape.rows * b->shape.cols;
    float *x = bench_numbers(b, n, 3), *up = bench_numbers(b, n, 4),
          *y = bench_host(b, n * sizeof *y);
    cu_ptr dx = bench_put(b, x, n * sizeof *x), du = bench_put(b, up, n * sizeof *up),
           dy = bench_device(b, n * sizeof *y);
    struct gate_args args = { .y = (void *)(uintptr_t)dy,
                              .gate = (const float *)(uintptr_t)dx,
                              .up = (const float *)(uintptr_t)du,
                              .y_stride = b->shape.cols,
                              .in_stride = b->shape.cols,
                              .cols = b->shape.cols,
                              .y_type = ROW_F32,
                              .act = 0 };
    struct device_grid grid = { { elements_grid_x(b->shape.cols), b->shape.rows, 1 },
                                ELEMENTS_THREADS,
                                0 };

    b->bytes = (double)n * 12;
    bench_time(b, "gate", &grid, &args, sizeof args);
    bench_get(b, y, dy, n * sizeof *y);
    for (uint64_t i = 0; i < n; i += 1 + n / 100003) /* a sample all over */
        bench_note(b, (double)y[i], (double)x[i] / (1 + exp(-(double)x[i])) * (double)up[i], 1);
    device_free(b->d.device, dx);
    device_free(b->d.device, du);
    device_free(b->d.device, dy);
    free(x);
    free(up);
    free(y);
}

/* Two pools in one: pages 0 .. n-1 are filled, and copied to n .. 2n-1 in reverse order. */
struct pools {
    uint64_t page_words;
    uint64_t *words; /* [n][page_words] on the host */
    uint32_t *list;  /* [2n]: to, from */
    cu_ptr pages, device_list;
};

static void open_pools(struct bench *b, struct pools *p)
{
    uint32_t n = b->shape.rows;

    p->page_words = b->shape.page_bytes / 8;
    p->words = bench_host(b, n * b->shape.page_bytes);
    for (uint64_t i = 0; i < n * p->page_words; i++)
        p->words[i] = page_mix(5, i);
    p->list = bench_host(b, 2 * n * sizeof *p->list);
    for (uint32_t i = 0; i < n; i++) {
        p->list[i] = 2 * n - 1 - i;
        p->list[n + i] = i;
    }
    p->pages = bench_device(b, 2 * n * b->shape.page_bytes);
    device_copy_in(&b->d.stream, p->pages, p->words, n * b->shape.page_bytes);
    p->device_list = bench_put(b, p->list, 2 * n * sizeof *p->list);
}

static void close_pools(struct bench *b, struct pools *p)
{
    device_free(b->d.device, p->pages);
    device_free(b->d.device, p->device_list);
    free(p->words);
    free(p->list);
}

static void run_page_copy(struct bench *b)
{
    uint32_t n = b->shape.rows;
    uint64_t *page = bench_host(b, b->shape.page_bytes);
    struct pools p;
    struct page_copy_args args;
    struct device_grid grid = { { pages_grid_x(b->shape.page_bytes), n, 1 }, PAGES_THREADS, 0 };

    open_pools(b, &p);
    args = (struct page_copy_args){ .to_pages = (char *)(uintptr_t)p.pages,
                                    .from_pages = (const char *)(uintptr_t)p.pages,
                                    .page_bytes = b->shape.page_bytes,
                                    .to = (const uint32_t *)(uintptr_t)p.device_list,
                                    .from = (const uint32_t *)(uintptr_t)p.device_list + n };
    b->bytes = 2.0 * n * (double)b->shape.page_bytes;
    bench_time(b, "page_copy", &grid, &args, sizeof args);
    for (uint32_t i = 0; i < n; i++) {
        bench_get(b, page, p.pages + (2 * n - 1 - i) * b->shape.page_bytes, b->shape.page_bytes);
        b->error += memcmp(page, p.words + i * p.page_words, b->shape.page_bytes) != 0;
    }
    close_pools(b, &p);
    free(page);
}

/* Sums are added to what is there: the warm launches' are known. */
static void run_page_checksum(struct bench *b)
{
    uint32_t n = b->shape.rows;
    uint64_t *sums = bench_host(b, n * sizeof *sums);
    uint64_t launches = bench_launches(b);
    struct pools p;
    struct page_checksum_args args;
    struct device_grid grid = { { pages_grid_x(b->shape.page_bytes), n, 1 }, PAGES_THREADS, 0 };
    cu_ptr device_sums = bench_device(b, n * sizeof *sums);

    open_pools(b, &p);
    device_fill(&b->d.stream, device_sums, 0, n * sizeof *sums);
    args = (struct page_checksum_args){ .sums = (uint64_t *)(uintptr_t)device_sums,
                                        .pool = (const char *)(uintptr_t)p.pages,
                                        .page_bytes = b->shape.page_bytes };
    b->bytes = n * (double)b->shape.page_bytes;
    bench_time(b, "page_checksum", &grid, &args, sizeof args);
    bench_get(b, sums, device_sums, n * sizeof *sums);
    for (uint32_t i = 0; i < n; i++)
        b->error += sums[i] != launches * page_sum(p.words + i * p.page_words, p.page_words);
    close_pools(b, &p);
    device_free(b->d.device, device_sums);
    free(sums);
}

static const struct kernel_case cases[] = {
    { "rmsnorm", run_rmsnorm, 1e-5, 0.85, { 2048, 4096, 0 }, { 16, 256, 0 } },
    { "gate", run_gate, 1e-5, 0.85, { 2048, 11008, 0 }, { 16, 512, 0 } },
    { "gemv f16", bench_gemv_f16, 1e-5, 0.85, { 11008, 4096, 0 }, { 64, 256, 0 } },
    { "gemv e4m3", bench_gemv_e4m3, 1e-5, 0.80, { 11008, 4096, 0 }, { 64, 256, 0 } },
    { "gemv i8", bench_gemv_i8, 1e-5, 0.80, { 11008, 4096, 0 }, { 64, 256, 0 } },
    { "gemv i4", bench_gemv_i4, 1e-5, 0.70, { 11008, 4096, 0 }, { 64, 256, 0 } },
    { "dequantise e4m3", bench_dequantise_e4m3, 1e-3, 0.85, { 11008, 4096, 0 }, { 16, 256, 0 } },
    { "fp8_quantise", bench_fp8_quantise, 0.037, 0.80, { 2048, 4096, 0 }, { 4, 256, 0 } },
    { "fp8_finish", bench_fp8_finish, 1e-6, 0.85, { 2048, 12288, 0 }, { 4, 256, 0 } },
    { "experts e4m3", bench_experts_e4m3, 1e-4, 0.50, { 14336, 4096, 0 }, { 40, 104, 0 } },
    { "rope_kv_write e4m3",
      bench_rope_kv_write_e4m3,
      0.0626,
      0.85,
      { 2048, 128, 0 },
      { 20, 32, 0 } },
    { "attention decode", bench_attention_decode, 1e-4, 0.85, { 8, 2048, 0 }, { 2, 40, 0 } },
    { "attention decode e4m3",
      bench_attention_decode_e4m3,
      1e-4,
      0.80,
      { 8, 2048, 0 },
      { 2, 40, 0 } },
    { "attention prefill", bench_attention_prefill, 2e-3, 0, { 2048, 2048, 0 }, { 40, 40, 0 } },
    { "page_copy", run_page_copy, 0, 0.80, { 32, 0, 8 << 20 }, { 4, 0, 64 << 10 } },
    { "page_checksum", run_page_checksum, 0, 0.80, { 32, 0, 8 << 20 }, { 4, 0, 64 << 10 } },
};

/* ---- The item ---- */

struct case_task {
    const struct verify *v;
    const struct kernel_case *c;
};

static void run_case(int sock, const void *arg)
{
    const struct case_task *t = arg;
    struct bench b = { .sock = sock, .v = t->v, .shape = t->v->is_small ? t->c->dry : t->c->real };
    struct child_message m = { 0 };
    const struct peak *peak;

    child_open(sock, &b.d, t->v->gpu);
    peak = peak_of(device_info(b.d.device)->name);
    t->c->run(&b);
    m.values[0] = b.error;
    m.values[1] = b.us;
    m.values[2] = b.bytes / b.us * 1e6 / (double)device_info(b.d.device)->memory_bytes_per_s;
    m.values[3] = b.operations / b.us / 1e6;
    m.values[4] = peak ? m.values[3] / peak->tflops : 0;
    child_say(sock, &m, NULL, 0);
    child_close(&b.d);
}

/* "rmsnorm, 2048 rows of 4096" */
static void describe(char *out, size_t bytes, const struct case_task *t)
{
    const struct shape *s = t->v->is_small ? &t->c->dry : &t->c->real;

    if (s->page_bytes > 0)
        snprintf(out, bytes, "%s, %u pages of %llu KiB", t->c->name, s->rows,
                 (unsigned long long)s->page_bytes >> 10);
    else
        snprintf(out, bytes, "%s, %u rows of %u", t->c->name, s->rows, s->cols);
}

/* Of what bounds it, where that is known. */
static void report_share(const struct case_task *t, const struct child_message *m, const char *name,
                         struct item_report *r)
{
    bool has_rate = m->values[3] > 0;
    double share = has_rate ? m->values[4] : m->values[2];
    const char *of = has_rate ? "the tensor cores' rate" : "the bandwidth";

    if (share > 0 && t->c->fraction > 0)
        report_at_least(r, share, t->c->fraction, "", "%s: of %s", name, of);
    else if (share > 0)
        report_number(r, share, "", "%s: of %s", name, of);
}

static void report_case(const struct case_task *t, struct item_report *r)
{
    struct child_message m;
    struct child c;
    char name[64];

    describe(name, sizeof name, t);

    if (!child_start(&c, run_case, t, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        report_at_most(r, m.values[0], t->c->error_limit, "", "%s: error", name);
        report_number(r, m.values[1], "us", "%s: time", name);
        if (m.values[3] > 0)
            report_number(r, m.values[3], "TFLOP/s", "%s: rate", name);
        if (!t->v->is_small)
            report_share(t, &m, name, r);
    }
    child_end(&c);
}

void item_kernels(const struct verify *v, struct item_report *r)
{
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct case_task t = { v, &cases[i] };

        report_case(&t, r);
    }
}
