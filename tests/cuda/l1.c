/* l1.c - see l1.h. */
#include "tests/cuda/l1.h"

#include <math.h>
#include <stdio.h>

#include "tests/check.h"
#include "tests/cuda/shim/kernel_registry.h"

void *l1_alloc(size_t bytes)
{
    void *p = NULL;

    assert_int_equal(posix_memalign(&p, 256, bytes), 0);
    memset(p, 0xff, bytes);
    return p;
}

void l1_free(void *p)
{
    free(p);
}

/* SplitMix64 */
uint32_t l1_random_u32(struct l1_random *r)
{
    uint64_t z = r->state += 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((z ^ z >> 31) >> 32);
}

float l1_uniform(struct l1_random *r, float low, float high)
{
    return low + (high - low) * ((float)(l1_random_u32(r) >> 8) * 0x1p-24f);
}

float *l1_floats(struct l1_random *r, size_t n, float largest)
{
    float *x = l1_alloc(n * sizeof *x);

    for (size_t i = 0; i < n; i++)
        x[i] = l1_uniform(r, -largest, largest);
    return x;
}

void l1_launch(const char *kernel, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z,
               uint32_t shared_bytes, const void *args, size_t args_bytes)
{
    const struct shim_kernel *k = shim_find(kernel);

    if (!k || k->args_bytes != args_bytes)
        fail_msg("kernel %s: %s", kernel, k ? "its arguments have another size" : "there is none");
    if (grid_x == 0 || grid_y == 0 || grid_z == 0)
        return;
    shim_run(k, &(struct shim_launch){ .grid = { grid_x, grid_y, grid_z },
                                       .block = { k->threads, 1, 1 },
                                       .shared_bytes = shared_bytes,
                                       .args = args });
}

void l1_run_in_orders(void (*run)(void *ctx), void *ctx, void *out, size_t bytes)
{
    void *first = l1_alloc(bytes);

    for (int i = 0; i <= N_SHIM_ORDERS; i++) {
        enum shim_order order = i < N_SHIM_ORDERS ? (enum shim_order)i : SHIM_RANDOM;
        shim_set_order(order, 1 + (uint64_t)i);
        memset(out, 0xff, bytes);
        run(ctx);
        if (i == 0)
            memcpy(first, out, bytes);
        else if (memcmp(first, out, bytes) != 0)
            fail_msg("order %s gives other bits than forward", shim_order_name(order));
    }
    shim_set_order(SHIM_FORWARD, 1);
    l1_free(first);
}

void l1_compare_one(struct l1_error *e, double got, double want, double floor)
{
    double error = fabs(got - want) / (fabs(want) + floor);

    if (got == want) /* infinities too */
        error = 0;
    if (isnan(error) || error > e->largest)
        e->largest = isnan(error) ? INFINITY : error;
}

void l1_compare(struct l1_error *e, const float *got, const double *want, size_t n, double floor)
{
    for (size_t i = 0; i < n; i++)
        l1_compare_one(e, got[i], want[i], floor);
}

void l1_expect(const char *kernel, const struct l1_error *e, double limit)
{
    printf("L1 %s error %.2g limit %.2g\n", kernel, e->largest, limit);
    if (e->largest > limit)
        fail_msg("%s: error %g", kernel, e->largest);
}

void l1_exact(const char *kernel)
{
    l1_expect(kernel, &(struct l1_error){ 0 }, 0);
}
