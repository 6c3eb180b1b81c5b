/* page_sums.c - see page_sums.h. */
#include "gpu-worker/cuda/page_sums.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/cuda/kernels/pages.h"

enum { AT_A_TIME = 16384 }; /* pages of a launch */

#define LIMIT_NS (60 * NS_PER_S)

struct page_sums {
    struct device *device;
    struct device_stream stream;
    struct device_kernel *kernel;
    cu_ptr sums, pages;  /* [AT_A_TIME] */
    uint64_t *host_sums; /* the same, pinned */
    uint32_t *host_pages;
};

struct page_sums *page_sums_new(struct device *device, struct err *e)
{
    struct page_sums *s = mem_zalloc(1, sizeof *s);
    void *sums = NULL, *pages = NULL;
    bool ok;

    s->device = device;
    s->kernel = device_kernel(device, "page_checksum");
    ok = device_kernel_load(s->kernel, e) && device_stream_open(&s->stream, device, 0, e) &&
         device_alloc(device, &s->sums, AT_A_TIME * sizeof(uint64_t), e) &&
         device_alloc(device, &s->pages, AT_A_TIME * sizeof(uint32_t), e) &&
         device_host_alloc(device, &sums, AT_A_TIME * sizeof(uint64_t), e) &&
         device_host_alloc(device, &pages, AT_A_TIME * sizeof(uint32_t), e);
    s->host_sums = sums;
    s->host_pages = pages;
    if (ok)
        return s;
    page_sums_free(s);
    return NULL;
}

void page_sums_free(struct page_sums *s)
{
    if (!s)
        return;
    device_stream_close(&s->stream);
    device_free(s->device, s->sums);
    device_free(s->device, s->pages);
    device_host_free(s->device, s->host_sums);
    device_host_free(s->device, s->host_pages);
    free(s);
}

static bool queue(struct page_sums *s, cu_ptr base, uint64_t page_bytes, bool has_pages, uint32_t n)
{
    const struct page_checksum_args args = {
        .sums = (uint64_t *)(uintptr_t)s->sums,
        .pool = (const char *)(uintptr_t)base,
        .page_bytes = page_bytes,
        .pages = has_pages ? (const uint32_t *)(uintptr_t)s->pages : NULL,
    };
    const struct device_grid grid = { .grid = { pages_grid_x(page_bytes), n },
                                      .block = PAGES_THREADS };

    return device_fill(&s->stream, s->sums, 0, n * sizeof(uint64_t)) &&
           (!has_pages ||
            device_copy_in(&s->stream, s->pages, s->host_pages, n * sizeof(uint32_t))) &&
           device_launch(&s->stream, s->kernel, &grid, &args, sizeof args) &&
           device_copy_out(&s->stream, s->host_sums, s->sums, n * sizeof(uint64_t));
}

static bool run_some(struct page_sums *s, cu_ptr base, uint64_t page_bytes, const uint32_t *pages,
                     uint32_t n, uint64_t *out, struct err *e)
{
    if (pages)
        memcpy(s->host_pages, pages, n * sizeof *pages);
    if (!queue(s, base, page_bytes, pages != NULL, n))
        return device_fault_err(s->device, e);
    if (!device_stream_finish(&s->stream, LIMIT_NS, e))
        return false;
    memcpy(out, s->host_sums, n * sizeof *out);
    return true;
}

bool page_sums_run(struct page_sums *s, cu_ptr base, uint64_t page_bytes, const uint32_t *pages,
                   uint32_t n, uint64_t *out, struct err *e)
{
    assert(page_bytes > 0 && page_bytes % 16 == 0);
    for (uint32_t first = 0, some; first < n; first += some) {
        cu_ptr at = base + (pages ? 0 : first * page_bytes);
        some = n - first < AT_A_TIME ? n - first : AT_A_TIME;
        if (!run_some(s, at, page_bytes, pages ? pages + first : NULL, some, out + first, e))
            return false;
    }
    return true;
}
