/* product_rig.h - matrices in a GPU's packing beside their values, and launches of kernels on the shim.
 *
 * Everything a kernel gets is its own piece of the heap, as large as the argument header says: what is read or
 * written outside is AddressSanitizer's to find.  Every launch is made once for each order of the shim's threads,
 * from the same bytes, and must write the same bits. */
#ifndef LLMD_TESTS_CUDA_PRODUCT_RIG_H
#define LLMD_TESTS_CUDA_PRODUCT_RIG_H

#include "gpu-worker/cuda/cuda_packing.h"
#include "tests/cuda/l1.h"
#include "tests/cuda/shim/kernel_registry.h"
#include "tests/ops/ops_rig.h"

struct device_matrix {
    enum dtype type;
    uint32_t rows, cols;
    void *data;    /* as the device has it */
    float *values; /* [rows, cols] what that means */
};

static inline void pack_random(struct random *r, const struct device_matrix *m, void *panel,
                               uint32_t n)
{
    size_t numbers = (size_t)(m->cols + 31) / 32 * packing_numbers(m->type);

    if (packing_is_int(m->type)) {
        int8_t *codes = random_codes(r, m->type, (size_t)n * m->cols);
        uint16_t *halves = random_halves(r, n * numbers, m->type == DTYPE_I8 ? 0.01f : 0.1f);
        cuda_packing_pack_codes(m->type, panel, codes, halves, n, m->cols);
        free(codes);
        free(halves);
    } else {
        float *x = random_floats(r, (size_t)n * m->cols);
        cuda_packing_pack(m->type, panel, x, n, m->cols);
        free(x);
    }
}

static inline size_t device_matrix_bytes(const struct device_matrix *m)
{
    uint32_t height = cuda_packing_panel_rows(m->type);

    return (m->rows + height - 1) / height * cuda_packing_panel_bytes(m->type, m->cols);
}

/* data: room of device_matrix_bytes(), or NULL. */
static inline struct device_matrix device_matrix_random(struct random *r, enum dtype type,
                                                        uint32_t rows, uint32_t cols, void *data)
{
    struct device_matrix m = { type, rows, cols, data, NULL };
    uint32_t height = cuda_packing_panel_rows(type);
    size_t bytes = cuda_packing_panel_bytes(type, cols);

    if (!data)
        m.data = aligned_mem(64, device_matrix_bytes(&m));
    m.values = mem_alloc((size_t)rows * cols * sizeof *m.values);
    for (uint32_t first = 0; first < rows; first += height)
        pack_random(r, &m, (char *)m.data + first / height * bytes,
                    rows - first < height ? rows - first : height);
    for (uint32_t i = 0; i < rows; i++)
        cuda_packing_unpack_row(type, m.values + (size_t)i * cols, m.data, i, cols);
    return m;
}

static inline void device_matrix_free(struct device_matrix *m)
{
    free(m->data);
    free(m->values);
}

/* What a launch writes: compared from order to order. */
struct written {
    void *at;
    size_t bytes;
};

/* One launch for each order; out has room for 4 at most, and what was in it before is there for each. */
static inline void launch(const char *kernel, uint32_t grid_x, uint32_t grid_y,
                          uint32_t shared_bytes, const void *args, size_t args_bytes,
                          const struct written *out, uint32_t n_out)
{
    void *before[4], *first[4];

    for (uint32_t i = 0; i < n_out; i++) {
        before[i] = mem_alloc(out[i].bytes);
        first[i] = mem_alloc(out[i].bytes);
        memcpy(before[i], out[i].at, out[i].bytes);
    }
    for (int order = 0; order < N_SHIM_ORDERS; order++) {
        shim_set_order((enum shim_order)order, 7);
        for (uint32_t i = 0; i < n_out; i++)
            memcpy(out[i].at, before[i], out[i].bytes);
        l1_launch(kernel, grid_x, grid_y, 1, shared_bytes, args, args_bytes);
        for (uint32_t i = 0; i < n_out; i++)
            if (order == 0)
                memcpy(first[i], out[i].at, out[i].bytes);
            else if (memcmp(first[i], out[i].at, out[i].bytes) != 0)
                fail_msg("%s: other bits with threads in the order '%s'", kernel,
                         shim_order_name((enum shim_order)order));
    }
    shim_set_order(SHIM_FORWARD, 1);
    for (uint32_t i = 0; i < n_out; i++) {
        free(before[i]);
        free(first[i]);
    }
}

/* A sum, and how large it may have been on the way. */
struct exact {
    double sum, magnitude;
};

static inline struct exact dot(const float *w, const float *x, uint32_t n)
{
    struct exact e = { 0, 0 };

    for (uint32_t k = 0; k < n; k++) {
        e.sum += (double)w[k] * x[k];
        e.magnitude += fabs((double)w[k] * x[k]);
    }
    return e;
}

/* One element: its error is |got - want| / (|want| + size), size being that of what was added up. */
static inline void compare(struct l1_error *e, const char *what, uint32_t t, uint32_t i, double got,
                           double want, double size, double limit)
{
    l1_compare_one(e, got, want, size);
    if (!(e->largest <= limit))
        fail_msg("%s: element (%u, %u) is %.9g, not %.9g: an error of %.3g, not %.3g", what, t, i,
                 got, want, e->largest, limit);
}

#endif
