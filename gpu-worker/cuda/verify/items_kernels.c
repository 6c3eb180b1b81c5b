/* items_kernels.c - G10: kernels on the device, compared with the host and timed.
 *
 * The tests compare every kernel with a double reference over all shapes, on the CPU; what is left to find out is
 * whether nvcc's machine code does the same, and how fast.  So each case here is one large shape of Llama-2 7B: a
 * sample of its results is compared, and its time stands beside the least that the GPU's data sheet allows, of which
 * it is to reach the part that kernels/roofline.csv says.  Each case is a process of its own: one that faults leaves
 * the others to be run. */
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gpu-worker/cuda/kernels/elementwise.h"
#include "gpu-worker/cuda/kernels/kv_page.h"
#include "gpu-worker/cuda/kernels/pages.h"
#include "gpu-worker/cuda/verify/bench.h"
#include "gpu-worker/cuda/verify/roofline.h"

struct shapes {
    struct shape real, dry;
};

struct kernel_case {
    const char *name;
    const char *kernel; /* of roofline.csv, and the first that is launched */
    bench_fn *run;
    struct variant of;
    double error_limit;
    const struct shapes *shapes;
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

/* On a GPU, and small ones. */
static const struct shapes normed = { { 2048, 4096, 0 }, { 16, 256, 0 } };
static const struct shapes gated = { { 2048, 11008, 0 }, { 16, 512, 0 } };
static const struct shapes weights = { { 11008, 4096, 0 }, { 64, 256, 0 } };
static const struct shapes gate_up = { { 22016, 4096, 0 }, { 144, 320, 0 } };
static const struct shapes experts = { { 14336, 4096, 0 }, { 40, 104, 0 } };
static const struct shapes sequences = { { 8, 2048, 0 }, { 2, 40, 0 } };
static const struct shapes prompt = { { 2048, 2048, 0 }, { 40, 40, 0 } };
static const struct shapes choices = { { 2048, 8, 0 }, { 9, 8, 0 } };
static const struct shapes routes = { { 2048, 8, 0 }, { 70, 5, 0 } };
static const struct shapes combined = { { 512, 4096, 0 }, { 5, 300, 0 } };
static const struct shapes scales = { { 12288, 4096, 0 }, { 300, 64, 0 } };
static const struct shapes inputs = { { 2048, 4096, 0 }, { 4, 256, 0 } };
static const struct shapes outputs = { { 2048, 12288, 0 }, { 4, 256, 0 } };
static const struct shapes heads = { { 2048, 128, 0 }, { 20, 32, 0 } };
static const struct shapes logits = { { 64, 32000, 0 }, { 8, 512, 0 } };
static const struct shapes kv_pages = { { 32, 0, 8 << 20 }, { 4, 0, 64 << 10 } };

static const struct kernel_case cases[] = {
    { "rmsnorm", "rmsnorm", run_rmsnorm, { 0 }, 1e-5, &normed },
    { "gate", "gate", run_gate, { 0 }, 1e-5, &gated },
    { "gemv f16", "gemv_f16_1", bench_gemv, { DTYPE_F16, 1 }, 1e-5, &weights },
    { "gemv bf16", "gemv_bf16_1", bench_gemv, { DTYPE_BF16, 1 }, 1e-5, &weights },
    { "gemv e4m3", "gemv_e4m3_1", bench_gemv, { DTYPE_E4M3, 1 }, 1e-5, &weights },
    { "gemv i8", "gemv_i8_1", bench_gemv, { DTYPE_I8, 1 }, 1e-5, &weights },
    { "gemv i4", "gemv_i4_1", bench_gemv, { DTYPE_I4, 1 }, 1e-5, &weights },
    { "gemv i4m", "gemv_i4m_1", bench_gemv, { DTYPE_I4M, 1 }, 1e-5, &weights },
    { "gemm_w4 i4 by 16", "gemm_w4_i4_16", bench_gemm_w4, { DTYPE_I4, 16 }, 1e-4, &gate_up },
    { "gemm_w4 i4 by 32", "gemm_w4_i4_32", bench_gemm_w4, { DTYPE_I4, 32 }, 1e-4, &gate_up },
    { "gemm_w4 i4 by 64", "gemm_w4_i4_64", bench_gemm_w4, { DTYPE_I4, 64 }, 1e-4, &gate_up },
    { "gemm_w4 i4m by 16", "gemm_w4_i4m_16", bench_gemm_w4, { DTYPE_I4M, 16 }, 1e-4, &gate_up },
    { "gemm_w4 i4m by 32", "gemm_w4_i4m_32", bench_gemm_w4, { DTYPE_I4M, 32 }, 1e-4, &gate_up },
    { "gemm_w4 i4m by 64", "gemm_w4_i4m_64", bench_gemm_w4, { DTYPE_I4M, 64 }, 1e-4, &gate_up },
    { "experts f16", "gemm_grouped_f16", bench_experts, { DTYPE_F16, 0 }, 1e-4, &experts },
    { "experts bf16", "gemm_grouped_bf16", bench_experts, { DTYPE_BF16, 0 }, 1e-4, &experts },
    { "experts e4m3", "gemm_grouped_e4m3", bench_experts, { DTYPE_E4M3, 0 }, 1e-4, &experts },
    { "experts i8", "gemm_grouped_i8", bench_experts, { DTYPE_I8, 0 }, 1e-4, &experts },
    { "experts i4", "gemm_grouped_i4", bench_experts, { DTYPE_I4, 0 }, 1e-4, &experts },
    { "experts i4m", "gemm_grouped_i4m", bench_experts, { DTYPE_I4M, 0 }, 1e-4, &experts },
    { "moe_choose", "moe_choose", bench_moe_choose, { 0 }, 1e-5, &choices },
    { "moe_sort", "moe_sort", bench_moe_sort, { 0 }, 0, &routes },
    { "moe_combine", "moe_combine", bench_moe_combine, { 0 }, 1e-5, &combined },
    { "dequantise e4m3", "dequantise_e4m3", bench_dequantise, { DTYPE_E4M3, 0 }, 1e-3, &weights },
    { "dequantise i8", "dequantise_i8", bench_dequantise, { DTYPE_I8, 0 }, 1e-3, &weights },
    { "dequantise i4", "dequantise_i4", bench_dequantise, { DTYPE_I4, 0 }, 1e-3, &weights },
    { "dequantise i4m", "dequantise_i4m", bench_dequantise, { DTYPE_I4M, 0 }, 1e-3, &weights },
    { "fp8_scales", "fp8_scales", bench_fp8_scales, { 0 }, 0, &scales },
    { "fp8_quantise", "fp8_quantise", bench_fp8_quantise, { 0 }, 0.037, &inputs },
    { "fp8_finish", "fp8_finish", bench_fp8_finish, { 0 }, 1e-6, &outputs },
    { "w8a8_quantise", "w8a8_quantise", bench_w8a8_quantise, { 0 }, 0.004, &inputs },
    { "requantise_i8", "requantise_i8", bench_requantise_i8, { 0 }, 0.004, &gate_up },
    { "w8a8_finish", "w8a8_finish", bench_w8a8_finish, { 0 }, 1e-6, &outputs },
    { "rope_kv_write f32", "rope_kv_write", bench_rope_kv_write, { KV_F32, 0 }, 2e-5, &heads },
    { "rope_kv_write f16", "rope_kv_write", bench_rope_kv_write, { KV_F16, 0 }, 5e-4, &heads },
    { "rope_kv_write i8", "rope_kv_write", bench_rope_kv_write, { KV_I8, 0 }, 0.004, &heads },
    { "rope_kv_write e4m3", "rope_kv_write", bench_rope_kv_write, { KV_E4M3, 0 }, 0.0626, &heads },
    { "attention decode f16",
      "attention_decode_f16_d128_q1",
      bench_attention_decode,
      { KV_F16, 128 },
      1e-4,
      &sequences },
    { "attention decode i8",
      "attention_decode_i8_d128_q1",
      bench_attention_decode,
      { KV_I8, 128 },
      1e-4,
      &sequences },
    { "attention decode e4m3",
      "attention_decode_e4m3_d128_q1",
      bench_attention_decode,
      { KV_E4M3, 128 },
      1e-4,
      &sequences },
    { "attention group f16 d64",
      "attention_group_f16_d64",
      bench_attention_group,
      { KV_F16, 64 },
      1e-4,
      &sequences },
    { "attention group i8 d64",
      "attention_group_i8_d64",
      bench_attention_group,
      { KV_I8, 64 },
      1e-4,
      &sequences },
    { "attention group e4m3 d64",
      "attention_group_e4m3_d64",
      bench_attention_group,
      { KV_E4M3, 64 },
      1e-4,
      &sequences },
    { "attention group f16 d128",
      "attention_group_f16_d128",
      bench_attention_group,
      { KV_F16, 128 },
      1e-4,
      &sequences },
    { "attention group i8 d128",
      "attention_group_i8_d128",
      bench_attention_group,
      { KV_I8, 128 },
      1e-4,
      &sequences },
    { "attention group e4m3 d128",
      "attention_group_e4m3_d128",
      bench_attention_group,
      { KV_E4M3, 128 },
      1e-4,
      &sequences },
    { "attention prefill f16",
      "attention_prefill_f16_d128",
      bench_attention_prefill,
      { KV_F16, 128 },
      2e-3,
      &prompt },
    { "attention prefill i8",
      "attention_prefill_converted_d128",
      bench_attention_prefill,
      { KV_I8, 128 },
      2e-3,
      &prompt },
    { "sampling", "sampling", bench_sampling, { 0 }, 0, &logits },
    { "page_copy", "page_copy", run_page_copy, { 0 }, 0, &kv_pages },
    { "page_checksum", "page_checksum", run_page_checksum, { 0 }, 0, &kv_pages },
};

/* ---- The item ---- */

struct case_task {
    const struct verify *v;
    const struct kernel_case *c;
};

enum { VALUE_ERROR, VALUE_US, VALUE_TFLOPS, VALUE_LEAST_US, VALUE_BANDWIDTH };

/* The oldest GPU that a worker launches the kernel on (attention_plan.h, ops_cuda.c): older ones are given another. */
static int first_sm(const char *kernel)
{
    if (strncmp(kernel, "attention_prefill", 17) == 0 || strncmp(kernel, "gemm_", 5) == 0)
        return 80;
    return strncmp(kernel, "attention_group", 15) == 0 ? 75 : 70;
}

static void run_case(int sock, const void *arg)
{
    const struct case_task *t = arg;
    struct bench b = { .sock = sock,
                       .v = t->v,
                       .of = t->c->of,
                       .shape = t->v->is_small ? t->c->shapes->dry : t->c->shapes->real };
    struct child_message m = { 0 };
    const struct device_info *gpu;
    const struct data_sheet *sheet;

    child_open(sock, &b.d, t->v->gpu);
    gpu = device_info(b.d.device);
    sheet = data_sheet_of(gpu->name, gpu->sm);
    if (gpu->sm < first_sm(t->c->kernel)) {
        snprintf(m.text, sizeof m.text, "left out: sm_%d is given another kernel", gpu->sm);
        child_say(sock, &m, NULL, 0);
        child_close(&b.d);
        return;
    }
    t->c->run(&b);
    if (strcmp(b.kernel, t->c->kernel) != 0)
        child_fail(sock, "%s: '%s' was launched, not '%s'", t->c->name, b.kernel, t->c->kernel);
    m.values[VALUE_ERROR] = b.error;
    m.values[VALUE_US] = b.us;
    m.values[VALUE_TFLOPS] = b.operations / b.us / 1e6;
    m.values[VALUE_LEAST_US] = sheet ? roofline_least_us(sheet, b.bytes, b.operations) : 0;
    if (gpu->memory_bytes_per_s > 0)
        m.values[VALUE_BANDWIDTH] = b.bytes / b.us * 1e6 / (double)gpu->memory_bytes_per_s;
    snprintf(m.text, sizeof m.text, "%s", sheet ? sheet->name : "");
    child_say(sock, &m, NULL, 0);
    child_close(&b.d);
}

/* "rmsnorm, 2048 rows of 4096" */
static void describe(char *out, size_t bytes, const struct case_task *t)
{
    const struct shape *s = t->v->is_small ? &t->c->shapes->dry : &t->c->shapes->real;

    if (s->page_bytes > 0)
        snprintf(out, bytes, "%s, %u pages of %llu KiB", t->c->name, s->rows,
                 (unsigned long long)s->page_bytes >> 10);
    else
        snprintf(out, bytes, "%s, %u rows of %u", t->c->name, s->rows, s->cols);
}

/* Without a data sheet the driver's bandwidth, if it tells one, stands for it, where nothing else bounds the kernel. */
static void report_share(const struct child_message *m, const struct roofline *f, const char *name,
                         struct item_report *r)
{
    double share = m->values[VALUE_BANDWIDTH];

    if (f->data_sheet[0])
        report_at_least(r, f->least / m->values[VALUE_US], f->wanted, "", "%s: of the data sheet",
                        name);
    else if (share > 0 && m->values[VALUE_TFLOPS] > 0)
        report_number(r, share, "", "%s: of the bandwidth", name);
    else if (share > 0)
        report_at_least(r, share, f->wanted, "", "%s: of the bandwidth", name);
}

static void report_values(const struct case_task *t, const struct child_message *m,
                          struct item_report *r)
{
    struct roofline f = { .least = m->values[VALUE_LEAST_US],
                          .wanted = roofline_part(t->c->kernel) };
    char name[64];

    assert(f.wanted > 0);
    snprintf(f.data_sheet, sizeof f.data_sheet, "%s", m->text);
    describe(name, sizeof name, t);
    report_at_most(r, m->values[VALUE_ERROR], t->c->error_limit, "", "%s: error", name);
    report_time(r, m->values[VALUE_US], "us", &f, "%s: time", name);
    if (m->values[VALUE_TFLOPS] > 0)
        report_number(r, m->values[VALUE_TFLOPS], "TFLOP/s", "%s: rate", name);
    if (!t->v->is_small)
        report_share(m, &f, name, r);
}

static void report_case(const struct case_task *t, struct item_report *r)
{
    struct child_message m;
    struct child c;

    if (!child_start(&c, run_case, t, r))
        return;
    if (child_hear(&c, &m, NULL, NULL, r)) {
        if (m.values[VALUE_US] > 0)
            report_values(t, &m, r);
        else
            report_text(r, t->c->name, "%s", m.text);
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
