/* l1.h - what the tests of kernels share: memory as a GPU has it, launches on the shim in every order, and
 * comparison with results in double.
 *
 * A test makes arguments, launches, and compares with a plain loop in double precision; l1_run_in_orders() sees
 * that the bits do not depend on which thread comes first.  l1_expect() prints one line a kernel for the table in
 * gpu-worker/cuda/kernels/README.md:
 *
 *     L1 rmsnorm error 1.2e-07 limit 1e-06
 */
#ifndef LLMD_TESTS_CUDA_L1_H
#define LLMD_TESTS_CUDA_L1_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Aligned to 256 bytes, filled with bytes 0xff (NaN in every float format), and ending where it ends: a byte
 * more is AddressSanitizer's.  0 bytes are an address that nothing may be read from. */
void *l1_alloc(size_t bytes);
void l1_free(void *p);

/* The same numbers in every run. */
struct l1_random {
    uint64_t state;
};
uint32_t l1_random_u32(struct l1_random *r);
float l1_uniform(struct l1_random *r, float low, float high);

/* n floats within -largest .. largest, in l1_alloc() memory. */
float *l1_floats(struct l1_random *r, size_t n, float largest);

/* Launch the kernel of that name, whose block has the threads it was written for.  A grid with a 0 launches
 * nothing.  Fails the test when there is no such kernel or its arguments have another size. */
void l1_launch(const char *kernel, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z,
               uint32_t shared_bytes, const void *args, size_t args_bytes);

/* run(ctx) in every order of shim/kernel_registry.h, random ones twice; `out` must be the same bits each time.
 * Before each run `out` is 0xff everywhere, so run() puts back what it changes in place. */
void l1_run_in_orders(void (*run)(void *ctx), void *ctx, void *out, size_t bytes);

/* The largest of |got - want| / (|want| + floor) so far; a NaN where none is wanted is infinite. */
struct l1_error {
    double largest;
};
void l1_compare(struct l1_error *e, const float *got, const double *want, size_t n, double floor);
void l1_compare_one(struct l1_error *e, double got, double want, double floor);

/* Print the line and fail the test beyond the limit. */
void l1_expect(const char *kernel, const struct l1_error *e, double limit);
/* The same line for a kernel whose results were compared bit for bit. */
void l1_exact(const char *kernel);

#ifdef __cplusplus
}
#endif

#endif
