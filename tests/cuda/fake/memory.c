/* memory.c - device memory as files that are mapped: the life rules of the driver's allocations by those of the
 * kernel's (a descriptor, or a mapping, keeps the bytes), access by page protection. */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cuda/fake/fake.h"
#include "tests/cuda/fake/state.h"

enum { RANGES_MAX = 16384, HANDLES_MAX = 8192, RESERVATIONS_MAX = 256, PAGE = 4096 };
enum { ALLOC_ALIGNMENT = 256, POISON = 0xff, POISON_BYTES_MAX = 64 << 20 };

/* Below is nothing of a program's, but the shadows of the sanitizers. */
#define HOST_ADDRESS_MIN 0x500000000000ull

/* An allocation as this process holds it; alive while a handle or a mapping uses it. */
struct object {
    int fd;
    int gpu;
    size_t bytes;
    unsigned uses;
};

enum range_kind { RANGE_MAPPED, RANGE_PLAIN, RANGE_HOST, RANGE_REGISTERED };

struct range {
    uint64_t start;
    size_t bytes;
    enum range_kind kind;
    int access; /* CU_ACCESS_... */
    int gpu;
    struct object *object; /* RANGE_MAPPED */
};

struct reservation {
    uint64_t start;
    size_t bytes; /* 0 = given back */
};

static struct range ranges[RANGES_MAX];
static unsigned n_ranges;
static struct object *handles[HANDLES_MAX]; /* a handle's number is its index + 1 */
static struct reservation reservations[RESERVATIONS_MAX];
static unsigned n_reservations, n_objects;

static bool is_aligned(uint64_t n)
{
    return n % FAKE_GRANULARITY == 0;
}

static size_t whole_pages(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* ---- Ranges (the mutex is held) ---- */

static struct range *range_of(uint64_t address)
{
    for (unsigned i = 0; i < n_ranges; i++)
        if (address >= ranges[i].start && address - ranges[i].start < ranges[i].bytes)
            return &ranges[i];
    return NULL;
}

static int range_add(const struct range *r)
{
    if (n_ranges == RANGES_MAX)
        return CU_OUT_OF_MEMORY;
    ranges[n_ranges++] = *r;
    return CU_OK;
}

static void range_remove(struct range *r)
{
    *r = ranges[--n_ranges];
}

static bool is_reserved(uint64_t address, size_t bytes)
{
    for (unsigned i = 0; i < n_reservations; i++)
        if (address >= reservations[i].start &&
            address - reservations[i].start + bytes <= reservations[i].bytes)
            return true;
    return false;
}

static bool is_of_kind(const struct range *r, enum fake_memory kind)
{
    bool is_host = r->kind == RANGE_HOST || r->kind == RANGE_REGISTERED;

    return kind == FAKE_HOST ? is_host : true; /* the device reaches pinned memory too */
}

/* Ranges that touch are one piece: chunks of one arena. */
static bool is_covered(enum fake_memory kind, uint64_t address, size_t bytes, int access)
{
    while (bytes > 0) {
        const struct range *r = range_of(address);
        size_t here;

        if (!r || !is_of_kind(r, kind) || (r->access & access) != access)
            return false;
        here = r->bytes - (address - r->start);
        here = here < bytes ? here : bytes;
        address += here;
        bytes -= here;
    }
    return true;
}

bool fake_is_memory(enum fake_memory kind, uint64_t address, size_t bytes, bool for_write)
{
    bool ok;

    fake_lock();
    ok = is_covered(kind, address, bytes, for_write ? CU_ACCESS_READWRITE : CU_ACCESS_READ);
    fake_unlock();
    return ok;
}

bool fake_cuda_is_device(uint64_t address, size_t bytes, bool for_write)
{
    return fake_is_memory(FAKE_DEVICE, address, bytes, for_write);
}

/* In an allocation, or in the page behind it that catches what goes too far: the end of memory may be pointed at.
 * The mutex is held. */
static bool is_in_or_behind(uint64_t value)
{
    for (unsigned i = 0; i < n_ranges; i++)
        if (value >= ranges[i].start &&
            value - ranges[i].start < whole_pages(ranges[i].bytes) + PAGE)
            return true;
    return false;
}

bool fake_is_fit_argument(uint64_t value)
{
    bool is_ours;

    if (value < HOST_ADDRESS_MIN || value >> 47 != 0)
        return true;
    fake_lock();
    is_ours = is_in_or_behind(value) || is_reserved(value, 1);
    fake_unlock();
    /* msync() of a page that is not mapped is ENOMEM. */
    return is_ours ||
           msync((void *)(uintptr_t)(value & ~(uint64_t)(PAGE - 1)), PAGE, MS_ASYNC) != 0;
}

uint64_t fake_address(const struct fault_address *a, const void *args, size_t args_bytes)
{
    uint64_t base = 0;

    if (a->base == FAULT_ARGUMENT) {
        if (args && a->index + sizeof base <= args_bytes)
            memcpy(&base, (const char *)args + a->index, sizeof base);
    } else {
        fake_lock();
        base = a->index < n_reservations ? reservations[a->index].start : 0;
        fake_unlock();
    }
    return base ? base + a->offset : 0;
}

/* ---- Allocations that descriptors own ---- */

static void object_drop(struct object *o)
{
    if (--o->uses > 0)
        return;
    close(o->fd);
    free(o);
    n_objects--;
}

/* The mutex is held, as for all of these. */
static struct object *object_new(int fd, int gpu, size_t bytes)
{
    struct object *o = malloc(sizeof *o);

    if (!o)
        abort();
    *o = (struct object){ fd, gpu, bytes, 1 };
    n_objects++;
    return o;
}

unsigned fake_given_descriptors(void)
{
    unsigned n = state_descriptors();

    fake_lock();
    n = n > n_objects ? n - n_objects : 0;
    fake_unlock();
    return n;
}

static struct object *object_of(cu_mem handle)
{
    return handle >= 1 && handle <= HANDLES_MAX ? handles[handle - 1] : NULL;
}

/* A new handle for the object, whose use it takes over; the mutex is held. */
static int handle_add(cu_mem *out, struct object *o)
{
    for (unsigned i = 0; i < HANDLES_MAX; i++)
        if (!handles[i]) {
            handles[i] = o;
            *out = i + 1;
            fake_counts.handles++;
            return CU_OK;
        }
    object_drop(o);
    return CU_OUT_OF_MEMORY;
}

static bool is_fit_location(const struct cu_mem_location *l)
{
    return (l->type == CU_LOCATION_DEVICE && l->id >= 0 && l->id < fake_settings()->n_gpus) ||
           (l->type == CU_LOCATION_HOST_NUMA && l->id == 0);
}

static bool is_fit_prop(const struct cu_mem_prop *p)
{
    return p && p->type == CU_MEM_PINNED && !p->win32_metadata && is_fit_location(&p->location) &&
           (p->handle_types == CU_HANDLE_FD || p->handle_types == CU_HANDLE_NONE);
}

/* As state.h counts. */
static int place_of(const struct cu_mem_location *l)
{
    return l->type == CU_LOCATION_DEVICE ? l->id : STATE_HOST;
}

int cuMemGetAllocationGranularity(size_t *bytes, const struct cu_mem_prop *prop, int option)
{
    int r = fake_enter(__func__, false);

    if (r != CU_OK)
        return r;
    if (!bytes || !is_fit_prop(prop) ||
        (option != CU_GRANULARITY_MINIMUM && option != CU_GRANULARITY_RECOMMENDED))
        return CU_INVALID_VALUE;
    *bytes = FAKE_GRANULARITY;
    return CU_OK;
}

int cuMemCreate(cu_mem *handle, size_t bytes, const struct cu_mem_prop *prop,
                unsigned long long flags)
{
    int r = fake_enter(__func__, false), fd;

    if (r != CU_OK)
        return r;
    if (!handle || bytes == 0 || !is_aligned(bytes) || !is_fit_prop(prop) || flags != 0)
        return CU_INVALID_VALUE;
    fd = state_create(place_of(&prop->location), bytes);
    if (fd < 0)
        return CU_OUT_OF_MEMORY;
    fake_lock();
    r = handle_add(handle, object_new(fd, place_of(&prop->location), bytes));
    fake_unlock();
    return r;
}

int cuMemRelease(cu_mem handle)
{
    int r = fake_enter(__func__, false);
    struct object *o;

    if (r != CU_OK)
        return r;
    fake_lock();
    o = object_of(handle);
    if (o) {
        handles[handle - 1] = NULL;
        fake_counts.handles--;
        object_drop(o);
    }
    fake_unlock();
    return o ? CU_OK : CU_INVALID_VALUE;
}

int cuMemExportToShareableHandle(void *fd, cu_mem handle, int type, unsigned long long flags)
{
    int r = fake_enter(__func__, false), copy = -1;
    const struct object *o;

    if (r != CU_OK)
        return r;
    fake_lock();
    o = object_of(handle);
    if (o && fd && type == CU_HANDLE_FD && flags == 0)
        copy = fcntl(o->fd, F_DUPFD_CLOEXEC, 0);
    fake_counts.exports += copy >= 0;
    fake_unlock();
    if (copy < 0)
        return CU_INVALID_VALUE;
    memcpy(fd, &copy, sizeof copy);
    return CU_OK;
}

int cuMemImportFromShareableHandle(cu_mem *handle, void *fd, int type)
{
    int r = fake_enter(__func__, false), given = (int)(intptr_t)fd, copy, gpu;
    struct stat st;

    if (r != CU_OK)
        return r;
    if (!handle || type != CU_HANDLE_FD)
        return CU_INVALID_VALUE;
    gpu = state_gpu_of(given);
    copy = gpu >= 0 ? fcntl(given, F_DUPFD_CLOEXEC, 0) : -1;
    if (copy < 0 || fstat(copy, &st) != 0)
        return CU_INVALID_VALUE;
    fake_lock();
    r = handle_add(handle, object_new(copy, gpu, (size_t)st.st_size));
    fake_counts.imports += r == CU_OK;
    fake_unlock();
    return r;
}

/* ---- Reservations and mappings ---- */

/* Addresses aligned to `alignment` that nothing is mapped at. */
static void *reserve(size_t bytes, size_t alignment)
{
    char *all = mmap(NULL, bytes + alignment, PROT_NONE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    char *start;

    if (all == MAP_FAILED)
        return NULL;
    start = (char *)(((uintptr_t)all + alignment - 1) & ~(uintptr_t)(alignment - 1));
    if (start > all)
        munmap(all, (size_t)(start - all));
    munmap(start + bytes, alignment - (size_t)(start - all));
    return start;
}

int cuMemAddressReserve(cu_ptr *address, size_t bytes, size_t alignment, cu_ptr wanted,
                        unsigned long long flags)
{
    int r = fake_enter(__func__, false);
    void *start;

    (void)wanted; /* a wish */
    if (r != CU_OK)
        return r;
    if (!address || bytes == 0 || !is_aligned(bytes) || (alignment & (alignment - 1)) != 0 ||
        flags != 0)
        return CU_INVALID_VALUE;
    start = reserve(bytes, alignment > FAKE_GRANULARITY ? alignment : FAKE_GRANULARITY);
    if (!start || n_reservations == RESERVATIONS_MAX)
        return CU_OUT_OF_MEMORY;
    fake_lock();
    reservations[n_reservations++] = (struct reservation){ (uint64_t)(uintptr_t)start, bytes };
    fake_counts.reservations++;
    fake_unlock();
    *address = (uint64_t)(uintptr_t)start;
    return CU_OK;
}

static bool has_mapping_in(uint64_t start, size_t bytes)
{
    for (unsigned i = 0; i < n_ranges; i++)
        if (ranges[i].kind == RANGE_MAPPED && ranges[i].start < start + bytes &&
            start < ranges[i].start + ranges[i].bytes)
            return true;
    return false;
}

/* The mutex is held. */
static int reservation_free(uint64_t start, size_t bytes)
{
    if (has_mapping_in(start, bytes))
        return CU_INVALID_VALUE;
    for (unsigned i = 0; i < n_reservations; i++)
        if (reservations[i].bytes > 0 && reservations[i].start == start &&
            reservations[i].bytes == bytes) {
            reservations[i] = (struct reservation){ 0 };
            munmap((void *)(uintptr_t)start, bytes);
            fake_counts.reservations--;
            return CU_OK;
        }
    return CU_INVALID_VALUE;
}

int cuMemAddressFree(cu_ptr address, size_t bytes)
{
    int r = fake_enter(__func__, false);

    if (r != CU_OK)
        return r;
    fake_lock();
    r = reservation_free(address, bytes);
    fake_unlock();
    return r;
}

/* The mutex is held. */
static int map(uint64_t address, size_t bytes, struct object *o)
{
    struct range r = { .start = address, .bytes = bytes, .kind = RANGE_MAPPED, .object = o };

    if (!o || bytes > o->bytes || !is_reserved(address, bytes) || has_mapping_in(address, bytes))
        return CU_INVALID_VALUE;
    r.gpu = o->gpu;
    if (mmap((void *)(uintptr_t)address, bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, o->fd, 0) ==
        MAP_FAILED)
        return CU_MAP_FAILED;
    o->uses++;
    fake_counts.mappings++;
    return range_add(&r);
}

int cuMemMap(cu_ptr address, size_t bytes, size_t offset, cu_mem handle, unsigned long long flags)
{
    int r = fake_enter(__func__, false);

    if (r != CU_OK)
        return r;
    if (!is_aligned(address) || !is_aligned(bytes) || bytes == 0 || offset != 0 || flags != 0)
        return CU_INVALID_VALUE;
    fake_lock();
    r = map(address, bytes, object_of(handle));
    fake_unlock();
    return r;
}

/* Is the range made of whole mappings?  The mutex is held. */
static bool is_whole_mappings(uint64_t address, size_t bytes)
{
    while (bytes > 0) {
        const struct range *r = range_of(address);

        if (!r || r->kind != RANGE_MAPPED || r->start != address || r->bytes > bytes)
            return false;
        address += r->bytes;
        bytes -= r->bytes;
    }
    return true;
}

/* The mutex is held. */
static int unmap(uint64_t address, size_t bytes)
{
    if (bytes == 0 || !is_whole_mappings(address, bytes))
        return CU_INVALID_VALUE;
    if (mmap((void *)(uintptr_t)address, bytes, PROT_NONE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
        return CU_UNKNOWN;
    while (bytes > 0) {
        struct range *r = range_of(address);

        address += r->bytes;
        bytes -= r->bytes;
        object_drop(r->object);
        range_remove(r);
        fake_counts.mappings--;
    }
    return CU_OK;
}

int cuMemUnmap(cu_ptr address, size_t bytes)
{
    int r = fake_enter(__func__, false);

    if (r != CU_OK)
        return r;
    fake_lock();
    r = unmap(address, bytes);
    fake_unlock();
    return r;
}

/* The mutex is held. */
static int set_access(uint64_t address, size_t bytes, int access)
{
    int protection = access == CU_ACCESS_READWRITE ? PROT_READ | PROT_WRITE
                     : access == CU_ACCESS_READ    ? PROT_READ
                                                   : PROT_NONE;

    if (bytes == 0 || !is_whole_mappings(address, bytes))
        return CU_INVALID_VALUE;
    if (mprotect((void *)(uintptr_t)address, bytes, protection) != 0)
        return CU_UNKNOWN;
    while (bytes > 0) {
        struct range *r = range_of(address);

        r->access = access;
        address += r->bytes;
        bytes -= r->bytes;
    }
    return CU_OK;
}

static bool is_fit_access(const struct cu_mem_access *a)
{
    return is_fit_location(&a->location) &&
           (a->flags == CU_ACCESS_NONE || a->flags == CU_ACCESS_READ ||
            a->flags == CU_ACCESS_READWRITE);
}

/* The device's access is what the pages' protection says, the last one's where several are named (the processes of
 * our tests have one each); the host's, of host memory, is the same pages'. */
int cuMemSetAccess(cu_ptr address, size_t bytes, const struct cu_mem_access *access, size_t n)
{
    int r = fake_enter(__func__, false);

    if (r != CU_OK)
        return r;
    if (!access || n == 0)
        return CU_INVALID_VALUE;
    fake_lock();
    for (size_t i = 0; i < n && r == CU_OK; i++)
        r = is_fit_access(&access[i]) ? set_access(address, bytes, access[i].flags)
                                      : CU_INVALID_VALUE;
    fake_unlock();
    return r;
}

int cuMemGetAccess(unsigned long long *flags, const struct cu_mem_location *location,
                   cu_ptr address)
{
    int r = fake_enter(__func__, false);
    const struct range *range;

    if (r != CU_OK)
        return r;
    fake_lock();
    range = range_of(address);
    if (!flags || !location || !range || range->kind != RANGE_MAPPED)
        r = CU_INVALID_VALUE;
    else
        *flags = (unsigned long long)range->access;
    fake_unlock();
    return r;
}

/* ---- Plain memory ---- */

int cuMemGetInfo_v2(size_t *free_bytes, size_t *total_bytes)
{
    int r = fake_enter(__func__, true);
    uint64_t used, limit = fake_settings()->memory_bytes;

    if (r != CU_OK)
        return r;
    used = state_used(fake_current()->gpu);
    *total_bytes = limit;
    *free_bytes = used < limit ? limit - used : 0;
    return CU_OK;
}

/* Memory with a page that cannot be touched behind it, filled with what is no number. */
static void *map_plain(size_t bytes)
{
    char *p = mmap(NULL, whole_pages(bytes) + PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    mprotect(p + whole_pages(bytes), PAGE, PROT_NONE);
    memset(p, POISON, bytes < POISON_BYTES_MAX ? bytes : POISON_BYTES_MAX);
    return p;
}

static void unmap_plain(uint64_t start, size_t bytes)
{
    munmap((void *)(uintptr_t)start, whole_pages(bytes) + PAGE);
}

static size_t accounted(size_t bytes)
{
    return (bytes + ALLOC_ALIGNMENT - 1) & ~(size_t)(ALLOC_ALIGNMENT - 1);
}

static int plain_new(cu_ptr *out, size_t bytes, int gpu)
{
    void *p;
    int r;

    if (!state_private_add(gpu, accounted(bytes)))
        return CU_OUT_OF_MEMORY;
    p = map_plain(bytes);
    if (!p)
        return CU_OUT_OF_MEMORY;
    fake_lock();
    r = range_add(&(struct range){ (uint64_t)(uintptr_t)p, bytes, RANGE_PLAIN, CU_ACCESS_READWRITE,
                                   gpu, NULL });
    fake_counts.allocations += r == CU_OK;
    fake_unlock();
    *out = (uint64_t)(uintptr_t)p;
    return r;
}

int cuMemAlloc_v2(cu_ptr *address, size_t bytes)
{
    int r = fake_enter(__func__, true);

    if (r == CU_OK)
        r = capture_refuses(fake_current());
    if (r != CU_OK)
        return r;
    if (!address || bytes == 0)
        return CU_INVALID_VALUE;
    return plain_new(address, bytes, fake_current()->gpu);
}

/* Take the range away that starts there; false: there is none of that kind. */
static bool range_take(struct range *out, uint64_t start, enum range_kind kind)
{
    struct range *r = range_of(start);

    if (!r || r->kind != kind || r->start != start)
        return false;
    *out = *r;
    range_remove(r);
    return true;
}

int cuMemFree_v2(cu_ptr address)
{
    int r = fake_enter(__func__, true);
    struct range range;

    if (r == CU_OK)
        r = capture_refuses(fake_current());
    if (r != CU_OK)
        return r;
    fake_lock();
    r = context_wait(fake_current());
    if (r == CU_OK && !range_take(&range, address, RANGE_PLAIN))
        r = CU_INVALID_VALUE;
    fake_counts.allocations -= r == CU_OK;
    fake_unlock();
    if (r != CU_OK)
        return r;
    unmap_plain(address, range.bytes);
    state_private_remove(range.gpu, accounted(range.bytes));
    return CU_OK;
}

/* ---- Host memory ---- */

int cuMemHostAlloc(void **memory, size_t bytes, unsigned flags)
{
    int r = fake_enter(__func__, true);
    void *p;

    (void)flags;
    if (r != CU_OK)
        return r;
    if (!memory || bytes == 0)
        return CU_INVALID_VALUE;
    p = map_plain(bytes);
    if (!p)
        return CU_OUT_OF_MEMORY;
    fake_lock();
    r = range_add(&(struct range){ (uint64_t)(uintptr_t)p, bytes, RANGE_HOST, CU_ACCESS_READWRITE,
                                   -1, NULL });
    fake_counts.host_allocations += r == CU_OK;
    fake_unlock();
    *memory = p;
    return r;
}

int cuMemFreeHost(void *memory)
{
    int r = fake_enter(__func__, true);
    struct range range;

    if (r != CU_OK)
        return r;
    fake_lock();
    r = context_wait(fake_current());
    if (r == CU_OK && !range_take(&range, (uint64_t)(uintptr_t)memory, RANGE_HOST))
        r = CU_INVALID_VALUE;
    fake_counts.host_allocations -= r == CU_OK;
    fake_unlock();
    if (r == CU_OK)
        unmap_plain(range.start, range.bytes);
    return r;
}

int cuMemHostRegister_v2(void *memory, size_t bytes, unsigned flags)
{
    int r = fake_enter(__func__, true);
    uint64_t start = (uint64_t)(uintptr_t)memory;
    int access = flags & CU_HOSTREGISTER_READ_ONLY ? CU_ACCESS_READ : CU_ACCESS_READWRITE;

    if (r != CU_OK)
        return r;
    if (!memory || bytes == 0 || start % PAGE != 0)
        return CU_INVALID_VALUE;
    fake_lock();
    if (range_of(start))
        r = CU_HOST_MEMORY_ALREADY_REGISTERED;
    else
        r = range_add(&(struct range){ start, bytes, RANGE_REGISTERED, access, -1, NULL });
    fake_counts.host_registrations += r == CU_OK;
    fake_unlock();
    return r;
}

int cuMemHostUnregister(void *memory)
{
    int r = fake_enter(__func__, true);
    struct range range;

    if (r != CU_OK)
        return r;
    fake_lock();
    r = context_wait(fake_current());
    if (r == CU_OK && !range_take(&range, (uint64_t)(uintptr_t)memory, RANGE_REGISTERED))
        r = CU_HOST_MEMORY_NOT_REGISTERED;
    fake_counts.host_registrations -= r == CU_OK;
    fake_unlock();
    return r;
}

int cuMemHostGetDevicePointer_v2(cu_ptr *address, void *memory, unsigned flags)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!address || flags != 0 || !fake_is_memory(FAKE_HOST, (uint64_t)(uintptr_t)memory, 1, false))
        return CU_INVALID_VALUE;
    *address = (uint64_t)(uintptr_t)memory;
    return CU_OK;
}
