/* memory.c - see memory.h. */
#include "gpu-worker/cuda/verify/memory.h"

#include <stdlib.h>
#include <unistd.h>

enum { LOOK_BYTES = 1 << 20, LAST_BYTES = 4096 };

static int create(int sock, const struct cu_mem_location *where, uint64_t bytes)
{
    const struct cu_mem_prop prop = { .type = CU_MEM_PINNED,
                                      .handle_types = CU_HANDLE_FD,
                                      .location = *where };
    cu_mem handle;
    int fd = -1;

    child_check(sock, cuda.cuMemCreate(&handle, bytes, &prop, 0), "cuMemCreate");
    child_check(sock, cuda.cuMemExportToShareableHandle(&fd, handle, CU_HANDLE_FD, 0),
                "cuMemExportToShareableHandle");
    child_check(sock, cuda.cuMemRelease(handle), "cuMemRelease");
    return fd;
}

int memory_create(int sock, int gpu, uint64_t bytes)
{
    return create(sock, &(struct cu_mem_location){ CU_LOCATION_DEVICE, gpu }, bytes);
}

static struct cu_mem_location nearest_node(int sock, int gpu)
{
    struct cu_mem_location where = { CU_LOCATION_HOST_NUMA, 0 };

    child_check(sock, cuda.cuDeviceGetAttribute(&where.id, CU_ATTR_HOST_NUMA_ID, gpu),
                "cuDeviceGetAttribute");
    where.id = where.id >= 0 ? where.id : 0; /* some virtual machines do not say */
    return where;
}

int memory_create_host(int sock, int gpu, uint64_t bytes)
{
    struct cu_mem_location where = nearest_node(sock, gpu);

    return create(sock, &where, bytes);
}

static void map_one(int sock, cu_ptr at, int fd, uint64_t bytes)
{
    cu_mem handle;

    child_check(sock,
                cuda.cuMemImportFromShareableHandle(&handle, (void *)(intptr_t)fd, CU_HANDLE_FD),
                "cuMemImportFromShareableHandle");
    child_check(sock, cuda.cuMemMap(at, bytes, 0, handle, 0), "cuMemMap");
    child_check(sock, cuda.cuMemRelease(handle), "cuMemRelease");
}

cu_ptr memory_map(int sock, int gpu, const int *fds, int n, uint64_t bytes, bool is_writable)
{
    const struct cu_mem_access access = { { CU_LOCATION_DEVICE, gpu },
                                          is_writable ? CU_ACCESS_READWRITE : CU_ACCESS_READ };
    uint64_t all = (uint64_t)n * bytes;
    cu_ptr p;

    child_check(sock, cuda.cuMemAddressReserve(&p, all, 0, 0, 0), "cuMemAddressReserve");
    for (int i = 0; i < n; i++)
        map_one(sock, p + (uint64_t)i * bytes, fds[i], bytes);
    child_check(sock, cuda.cuMemSetAccess(p, all, &access, 1), "cuMemSetAccess");
    return p;
}

cu_ptr memory_map_host(int sock, int gpu, int fd, uint64_t bytes)
{
    const struct cu_mem_access access[] = {
        { { CU_LOCATION_DEVICE, gpu }, CU_ACCESS_READWRITE },
        { nearest_node(sock, gpu), CU_ACCESS_READWRITE },
    };
    cu_ptr p;

    child_check(sock, cuda.cuMemAddressReserve(&p, bytes, 0, 0, 0), "cuMemAddressReserve");
    map_one(sock, p, fd, bytes);
    child_check(sock, cuda.cuMemSetAccess(p, bytes, access, 2), "cuMemSetAccess");
    return p;
}

void memory_unmap(int sock, cu_ptr p, int n, uint64_t bytes)
{
    child_check(sock, cuda.cuMemUnmap(p, (uint64_t)n * bytes), "cuMemUnmap");
    child_check(sock, cuda.cuMemAddressFree(p, (uint64_t)n * bytes), "cuMemAddressFree");
}

static uint8_t pattern_of(int chunk)
{
    return (uint8_t)(0x5a + 37 * chunk);
}

void memory_fill(int sock, struct child_device *d, cu_ptr p, int n, uint64_t bytes)
{
    for (int i = 0; i < n; i++)
        device_fill(&d->stream, p + (uint64_t)i * bytes, pattern_of(i), bytes);
    child_finish(sock, d);
}

static uint64_t count_wrong(int sock, struct child_device *d, uint8_t *host, cu_ptr p, uint64_t n,
                            uint8_t want)
{
    uint64_t wrong = 0;

    device_copy_out(&d->stream, host, p, n);
    child_finish(sock, d);
    for (uint64_t i = 0; i < n; i++)
        wrong += host[i] != want;
    return wrong;
}

uint64_t memory_wrong_bytes(int sock, struct child_device *d, cu_ptr p, int n, uint64_t bytes)
{
    uint64_t wrong = 0, look = bytes < LOOK_BYTES ? bytes : LOOK_BYTES;
    uint8_t *host = malloc(look);

    if (!host)
        child_fail(sock, "no memory");
    for (int i = 0; i < n; i++) {
        cu_ptr chunk = p + (uint64_t)i * bytes;

        wrong += count_wrong(sock, d, host, chunk, look, pattern_of(i));
        wrong += count_wrong(sock, d, host, chunk + bytes - LAST_BYTES, LAST_BYTES, pattern_of(i));
    }
    free(host);
    return wrong;
}
