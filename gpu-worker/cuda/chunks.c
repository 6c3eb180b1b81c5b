/* chunks.c - see chunks.h. */
#include "gpu-worker/cuda/chunks.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "gpu-worker/cuda/device.h"

enum { CHUNKS_FEW = 128 }; /* of a large set: its chunks are larger instead */

#define RETRY_NS (20 * NS_PER_MS)

/* Calls of the table that are refused are errors of this call alone; what is worse is the device's fault too. */
static bool check(struct device *d, int result, const char *call, const char *what, struct err *e)
{
    if (result == CU_OK)
        return true;
    if (cuda_result_severity(result) >= CUDA_STICKY)
        device_check(d, result, call, what);
    return device_err(e, result, call, "GPU memory: %s", what);
}

/* ---- create ---- */

static struct cu_mem_prop prop_of(int ordinal)
{
    return (struct cu_mem_prop){ .type = CU_MEM_PINNED,
                                 .handle_types = CU_HANDLE_FD,
                                 .location = { CU_LOCATION_DEVICE, ordinal } };
}

static bool read_uuid(struct device *d, uint8_t out[CHUNK_DEVICE_BYTES], struct err *e)
{
    struct cu_uuid uuid;
    int device;

    if (!check(d, cuda.cuDeviceGet(&device, device_info(d)->ordinal), "cuDeviceGet", "its name",
               e) ||
        !check(d, cuda.cuDeviceGetUuid_v2(&uuid, device), "cuDeviceGetUuid", "its name", e))
        return false;
    static_assert(sizeof uuid.bytes == CHUNK_DEVICE_BYTES, "a UUID");
    memcpy(out, uuid.bytes, sizeof uuid.bytes);
    return true;
}

static uint64_t round_up(uint64_t v, uint64_t to)
{
    return (v + to - 1) / to * to;
}

static bool granularity_of(struct device *d, uint64_t *out, struct err *e)
{
    struct cu_mem_prop prop = prop_of(device_info(d)->ordinal);
    size_t bytes = 0;

    if (!check(d, cuda.cuMemGetAllocationGranularity(&bytes, &prop, CU_GRANULARITY_MINIMUM),
               "cuMemGetAllocationGranularity", "its granularity", e))
        return false;
    *out = bytes;
    return true;
}

bool chunks_plan(struct device *d, struct chunk_set *set, uint64_t bytes, struct err *e)
{
    uint64_t least, granularity;

    assert(bytes > 0);
    if (!granularity_of(d, &granularity, e) || !read_uuid(d, set->device, e))
        return false;
    if (getrandom(&set->id, sizeof set->id, 0) != (ssize_t)sizeof set->id)
        return err_set(e, ERR_SYS, errno, "draw the name of a set of GPU memory");
    set->id |= 1; /* never 0 */
    least = round_up((bytes + CHUNKS_FEW - 1) / CHUNKS_FEW, granularity);
    set->chunk_bytes = least > CHUNKS_BYTES ? least : round_up(CHUNKS_BYTES, granularity);
    set->bytes = round_up(bytes, granularity);
    if (set->chunk_bytes > set->bytes)
        set->chunk_bytes = set->bytes;
    set->n = (uint32_t)((set->bytes - 1) / set->chunk_bytes + 1);
    return true;
}

static void nap(uint64_t ns)
{
    struct timespec t = { 0, (long)ns };

    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

/* A predecessor's memory may be on its way back. */
static int allocate(int ordinal, cu_mem *handle, uint64_t bytes, uint64_t deadline_ns)
{
    struct cu_mem_prop prop = prop_of(ordinal);
    int result;

    while ((result = cuda.cuMemCreate(handle, bytes, &prop, 0)) == CU_OUT_OF_MEMORY &&
           clock_mono_ns() < deadline_ns)
        nap(RETRY_NS);
    return result;
}

static bool create_one(int ordinal, uint64_t bytes, uint64_t deadline_ns, cu_mem *handle, int *fd,
                       struct err *e)
{
    int result = allocate(ordinal, handle, bytes, deadline_ns);

    *fd = -1;
    if (result != CU_OK)
        return device_err(e, result, "cuMemCreate", "a chunk of %llu bytes",
                          (unsigned long long)bytes);
    result = cuda.cuMemExportToShareableHandle(fd, *handle, CU_HANDLE_FD, 0);
    if (result != CU_OK) {
        cuda.cuMemRelease(*handle);
        return device_err(e, result, "cuMemExportToShareableHandle", "the descriptor of a chunk");
    }
    fcntl(*fd, F_SETFD, FD_CLOEXEC);
    return true;
}

static void give_back(struct chunk_set *set, const cu_mem *handles)
{
    struct chunk_set whole = *set;

    for (uint32_t i = 0; handles && i < set->n_there; i++)
        cuda.cuMemRelease(handles[i]);
    chunk_set_fini(&whole);
    set->fds = NULL;
    set->n_there = 0;
}

bool chunks_create_on(int ordinal, struct chunk_set *set, cu_mem *handles, uint64_t wait_ns,
                      struct err *e)
{
    uint64_t deadline_ns = clock_mono_ns() + wait_ns;

    chunk_set_init(set);
    for (uint32_t i = 0; i < set->n; i++) {
        cu_mem handle;
        if (!create_one(ordinal, chunk_set_chunk_bytes(set, i), deadline_ns, &handle, &set->fds[i],
                        e)) {
            give_back(set, handles);
            return err_wrap(e, "%llu MiB for %s", (unsigned long long)(set->bytes >> 20),
                            chunk_kind_name(set->kind));
        }
        set->n_there++;
        if (handles)
            handles[i] = handle;
        else
            cuda.cuMemRelease(handle); /* the descriptor holds the memory from now on */
    }
    return true;
}

bool chunks_create(struct device *d, struct chunk_set *set, uint64_t wait_ns, struct err *e)
{
    if (chunks_create_on(device_info(d)->ordinal, set, NULL, wait_ns, e))
        return true;
    if (cuda_result_severity(e->sys) >= CUDA_STICKY)
        device_check(d, e->sys, "cuMemCreate", "lasting memory");
    return false;
}

bool chunks_fit(struct device *d, const struct chunk_set *set, struct hash128 layout,
                uint64_t bytes, struct err *why)
{
    uint8_t device[CHUNK_DEVICE_BYTES];

    if (!read_uuid(d, device, why))
        return false;
    if (!chunk_set_is_whole(set))
        return err_set(why, ERR_PROTO, 0, "%u of %u chunks are there", set->n_there, set->n);
    if (memcmp(device, set->device, sizeof device) != 0)
        return err_set(why, ERR_PROTO, 0, "it is on another GPU");
    if (set->layout.low != layout.low || set->layout.high != layout.high)
        return err_set(why, ERR_PROTO, 0, "it has another layout");
    if (set->bytes < bytes)
        return err_set(why, ERR_PROTO, 0, "it has %llu bytes, %llu are needed",
                       (unsigned long long)set->bytes, (unsigned long long)bytes);
    return true;
}

/* ---- map ---- */

static bool map_one(struct chunks *c, const struct chunk_set *set, uint32_t i, struct err *e)
{
    struct device *d = c->device;
    cu_ptr at = c->base + i * c->chunk_bytes;
    cu_mem handle;
    bool ok;

    if (!check(d,
               cuda.cuMemImportFromShareableHandle(&handle, (void *)(uintptr_t)set->fds[i],
                                                   CU_HANDLE_FD),
               "cuMemImportFromShareableHandle", "take a chunk by its descriptor", e))
        return false;
    ok = check(d, cuda.cuMemMap(at, chunk_set_chunk_bytes(set, i), 0, handle, 0), "cuMemMap",
               "map a chunk", e);
    cuda.cuMemRelease(handle); /* the mapping has its own hold of the memory */
    return ok;
}

bool chunks_allow(struct chunks *c, bool is_writable, struct err *e)
{
    const struct cu_mem_access access = {
        .location = { CU_LOCATION_DEVICE, device_info(c->device)->ordinal },
        .flags = is_writable ? CU_ACCESS_READWRITE : CU_ACCESS_READ,
    };

    if (!check(c->device, cuda.cuMemSetAccess(c->base, c->bytes, &access, 1), "cuMemSetAccess",
               is_writable ? "make it writable" : "make it readable", e))
        return false;
    c->is_writable = is_writable;
    return true;
}

static bool reserve(struct chunks *c, uint64_t lead_bytes, struct err *e)
{
    uint64_t granularity;
    cu_ptr start;

    if (!granularity_of(c->device, &granularity, e))
        return false;
    c->lead_bytes = round_up(lead_bytes, granularity);
    if (!check(c->device, cuda.cuMemAddressReserve(&start, c->lead_bytes + c->bytes, 0, 0, 0),
               "cuMemAddressReserve", "reserve addresses", e))
        return false;
    c->base = start + c->lead_bytes;
    return true;
}

bool chunks_map_behind(struct chunks *c, struct device *d, const struct chunk_set *set,
                       uint64_t lead_bytes, bool is_writable, struct err *e)
{
    *c = (struct chunks){ .device = d, .bytes = set->bytes, .chunk_bytes = set->chunk_bytes };
    if (!reserve(c, lead_bytes, e)) {
        *c = (struct chunks){ 0 };
        return false;
    }
    while (c->n < set->n && map_one(c, set, c->n, e))
        c->n++;
    if (c->n == set->n && chunks_allow(c, is_writable, e))
        return true;
    chunks_unmap(c);
    return false;
}

bool chunks_map(struct chunks *c, struct device *d, const struct chunk_set *set, bool is_writable,
                struct err *e)
{
    return chunks_map_behind(c, d, set, 0, is_writable, e);
}

void chunks_unmap(struct chunks *c)
{
    if (!c->device)
        return;
    for (uint32_t i = 0; i < c->n; i++) {
        uint64_t at = i * c->chunk_bytes, left = c->bytes - at;
        cuda.cuMemUnmap(c->base + at, left < c->chunk_bytes ? left : c->chunk_bytes);
    }
    cuda.cuMemAddressFree(c->base - c->lead_bytes, c->lead_bytes + c->bytes);
    *c = (struct chunks){ 0 };
}
