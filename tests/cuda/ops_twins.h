/* ops_twins.h - the same numbers on the CPU's table and on the CUDA table, for tests of the latter.
 *
 * The device is the fake driver's.  A buffer has its host copy and its device copy; what an op changes on the device
 * is fetched and compared. */
#ifndef LLMD_TESTS_CUDA_OPS_TWINS_H
#define LLMD_TESTS_CUDA_OPS_TWINS_H

#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/ops_cuda.h"
#include "proto/kvpool_layout.h"
#include "tests/cuda/half_pages.h"
#include "tests/ops/ops_rig.h"

struct twins {
    struct ops_rig cpu;
    struct device *device;
    const struct ops *ops; /* the device's */
    struct ops_stream *stream;
    char *cpu_pages;
    cu_ptr pages;
    struct random rng;
};

/* Floats on both sides. */
struct twin_rows {
    float *host;
    float *device;
    size_t n;
};

/* A matrix packed for both; values [rows, cols] are what its elements mean. */
struct twin_matrix {
    float *values;
    struct twin_rows bias; /* .n 0: none */
    struct weight cpu, device;
};

static inline void twins_must(bool ok, const struct err *e, const char *what)
{
    if (!ok)
        fail_msg("%s: %s", what, e->msg);
}

static inline void *twins_send(struct twins *t, const void *from, size_t bytes)
{
    struct err e = { 0 };
    cu_ptr p;

    twins_must(device_alloc(t->device, &p, bytes, &e), &e, "device_alloc");
    device_copy_in(ops_cuda_stream(t->stream), p, from, bytes);
    twins_must(device_stream_finish(ops_cuda_stream(t->stream), 60 * 1000000000ull, &e), &e,
               "send");
    return (void *)(uintptr_t)p;
}

/* Returns, caller frees. */
static inline float *twins_fetch(struct twins *t, const float *device, size_t n)
{
    float *out = mem_alloc(n * sizeof *out);
    struct err e = { 0 };

    device_copy_out(ops_cuda_stream(t->stream), out, (cu_ptr)(uintptr_t)device, n * sizeof *out);
    twins_must(device_stream_finish(ops_cuda_stream(t->stream), 60 * 1000000000ull, &e), &e,
               "fetch");
    return out;
}

static inline struct twin_rows twins_rows(struct twins *t, size_t n)
{
    float *host = random_floats(&t->rng, n);

    return (struct twin_rows){ host, twins_send(t, host, n * sizeof *host), n };
}

static inline void twins_rows_free(struct twins *t, struct twin_rows *r)
{
    device_free(t->device, (cu_ptr)(uintptr_t)r->device);
    free(r->host);
}

static inline double twins_largest(const float *x, size_t n)
{
    double largest = 0;

    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)x[i]));
    return largest;
}

/* The device's copy against the host's, which the CPU's op has changed too: |a - b| <= tolerance * the largest. */
static inline void twins_compare(struct twins *t, const struct twin_rows *r, double tolerance,
                                 const char *what)
{
    float *got = twins_fetch(t, r->device, r->n);
    double limit = tolerance * fmax(twins_largest(r->host, r->n), 1e-6);

    for (size_t i = 0; i < r->n; i++)
        if (!(fabs((double)got[i] - (double)r->host[i]) <= limit))
            fail_msg("%s: element %zu is %.9g, the CPU says %.9g, allowed is %.2g", what, i,
                     (double)got[i], (double)r->host[i], limit);
    free(got);
}

/* ---- matrices ---- */

static inline void *twins_pack_device(struct twins *t, enum dtype dtype, const float *x,
                                      uint32_t rows, uint32_t cols)
{
    uint32_t height = cuda_packing_panel_rows(dtype), n = (rows + height - 1) / height;
    size_t panel = cuda_packing_panel_bytes(dtype, cols);
    char *packed = aligned_mem(64, n * panel);
    void *there;

    for (uint32_t i = 0; i < n; i++)
        cuda_packing_pack(dtype, packed + i * panel, x + (size_t)i * height * cols,
                          rows - i * height < height ? rows - i * height : height, cols);
    there = twins_send(t, packed, n * panel);
    free(packed);
    return there;
}

/* Codes with numbers: the only way to I4M. */
static inline void twins_pack_codes(struct twins *t, struct twin_matrix *m, enum dtype dtype,
                                    uint32_t rows, uint32_t cols)
{
    uint32_t blocks = (cols + PACKING_BLOCK - 1) / PACKING_BLOCK;
    int8_t *codes = random_codes(&t->rng, dtype, (size_t)rows * cols);
    uint16_t *numbers =
        random_halves(&t->rng, (size_t)rows * blocks * packing_numbers(dtype), 0.05f);
    uint32_t cpu_height = packing_panel_rows(dtype), height = cuda_packing_panel_rows(dtype);
    size_t cpu_panel = packing_panel_bytes(dtype, cols);
    size_t panel = cuda_packing_panel_bytes(dtype, cols);
    uint32_t n = (rows + height - 1) / height;
    char *cpu = aligned_mem(64, packing_bytes(dtype, rows, cols));
    char *packed = aligned_mem(64, n * panel);
    size_t numbers_a_row = (size_t)blocks * packing_numbers(dtype);

    for (uint32_t r = 0; r < rows; r += cpu_height)
        packing_pack_codes(dtype, cpu + r / cpu_height * cpu_panel, codes + (size_t)r * cols,
                           numbers + r * numbers_a_row,
                           rows - r < cpu_height ? rows - r : cpu_height, cols);
    for (uint32_t r = 0; r < rows; r += height)
        cuda_packing_pack_codes(dtype, packed + r / height * panel, codes + (size_t)r * cols,
                                numbers + r * numbers_a_row, rows - r < height ? rows - r : height,
                                cols);
    m->cpu.data = cpu;
    m->device.data = twins_send(t, packed, n * panel);
    for (uint32_t r = 0; r < rows; r++)
        packing_unpack_row(dtype, m->values + (size_t)r * cols, cpu, r, cols);
    free(packed);
    free(codes);
    free(numbers);
}

/* fp8, which the CPU does not multiply: there it has the same values as floats. */
static inline void twins_pack_fp8(struct twins *t, struct twin_matrix *m, uint32_t rows,
                                  uint32_t cols)
{
    size_t panel = cuda_packing_panel_bytes(DTYPE_E4M3, cols);
    char *packed = aligned_mem(64, rows * panel);

    for (uint32_t r = 0; r < rows; r++) {
        float *row = m->values + (size_t)r * cols;
        cuda_packing_pack(DTYPE_E4M3, packed + r * panel, row, 1, cols);
        cuda_packing_unpack_row(DTYPE_E4M3, row, packed, r, cols);
    }
    m->device.data = twins_send(t, packed, rows * panel);
    m->cpu.data = pack_matrix(m->values, rows, cols, DTYPE_F32);
    free(packed);
}

static inline struct twin_matrix twins_matrix(struct twins *t, enum dtype dtype, uint32_t rows,
                                              uint32_t cols, bool has_bias)
{
    struct twin_matrix m = { .values = random_floats(&t->rng, (size_t)rows * cols) };

    m.cpu.dtype = dtype == DTYPE_E4M3 ? DTYPE_F32 : dtype;
    m.device.dtype = dtype;
    if (dtype == DTYPE_I4M)
        twins_pack_codes(t, &m, dtype, rows, cols);
    else if (dtype == DTYPE_E4M3)
        twins_pack_fp8(t, &m, rows, cols);
    else {
        m.device.data = twins_pack_device(t, dtype, m.values, rows, cols);
        m.cpu.data = pack_matrix(m.values, rows, cols, dtype);
    }
    m.cpu.rows = m.device.rows = rows;
    m.cpu.cols = m.device.cols = cols;
    if (has_bias) {
        m.bias = twins_rows(t, rows);
        m.cpu.bias = m.bias.host;
        m.device.bias = m.bias.device;
    }
    return m;
}

static inline void twins_matrix_free(struct twins *t, struct twin_matrix *m)
{
    device_free(t->device, (cu_ptr)(uintptr_t)m->device.data);
    free((void *)(uintptr_t)m->cpu.data);
    free(m->values);
    if (m->bias.n > 0)
        twins_rows_free(t, &m->bias);
}

/* ---- open and close ---- */

/* setup: of the CPU's stream but for .kv.pages; .kv.n_pages pages of n_layers are made on both sides.
 * on: but for .device. */
static inline void twins_open_on(struct twins *t, const struct ops_setup *setup, uint32_t n_layers,
                                 struct ops_cuda_setup on)
{
    struct ops_setup cpu = *setup, gpu = *setup;
    struct err e = { 0 };
    size_t bytes;

    t->rng = random_begin("ops");
    twins_must(device_open(&t->device, 0, NULL, &e), &e, "device_open");
    if (cpu.kv.dtype != DTYPE_I8) /* of fp8 the CPU's are exact, and float16 it has none */
        cpu.kv.dtype = DTYPE_F32;
    cpu.kv.page_bytes = (uint64_t)n_layers * 2 * setup->n_kv_heads *
                        kv_block_bytes(cpu.kv.dtype, setup->kv.page_tokens, setup->head_dim);
    cpu.kv.n_heads_model = setup->n_kv_heads;
    t->cpu_pages = aligned_mem(64, cpu.kv.page_bytes * cpu.kv.n_pages);
    memset(t->cpu_pages, 0, cpu.kv.page_bytes * cpu.kv.n_pages);
    cpu.kv.pages = t->cpu_pages;
    t->cpu = ops_rig_open(CPU_PLAIN, 1, &cpu);
    if (setup->kv.dtype == DTYPE_F16)
        t->cpu.ops = half_pages_open(t->cpu.ops, &cpu, t->cpu.stream);
    gpu.kv.page_bytes = ops_cuda_page_bytes(&gpu, n_layers);
    bytes = gpu.kv.page_bytes * gpu.kv.n_pages;
    twins_must(device_alloc(t->device, &t->pages, bytes, &e), &e, "pages");
    gpu.kv.pages = (char *)(uintptr_t)t->pages;
    on.device = t->device;
    t->ops = ops_cuda_open(&on, &gpu, &t->stream, &e);
    twins_must(t->ops != NULL, &e, "ops_cuda_open");
}

static inline void twins_open(struct twins *t, const struct ops_setup *setup, uint32_t n_layers,
                              bool deterministic, enum ops_cuda_graphs graphs)
{
    twins_open_on(t, setup, n_layers,
                  (struct ops_cuda_setup){ .deterministic = deterministic, .graphs = graphs });
}

static inline void twins_close(struct twins *t)
{
    t->ops->close(t->stream);
    device_free(t->device, t->pages);
    device_close(t->device);
    ops_rig_close(&t->cpu);
    free(t->cpu_pages);
}

static inline bool twins_begin(struct twins *t, const struct batch *b)
{
    struct ops_step step;

    t->cpu.ops->begin(t->cpu.stream, b, &step);
    return t->ops->begin(t->stream, b, &step);
}

static inline void twins_finish(struct twins *t)
{
    struct err e = { 0 };

    twins_must(t->ops->finish(t->stream, &e), &e, "finish");
}

#endif
