/* device.c - cuInit, devices, primary contexts, and what every call checks first. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "tests/cuda/fake/fake.h"
#include "tests/cuda/fake/state.h"

pthread_mutex_t fake_mutex = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t fake_changed = PTHREAD_COND_INITIALIZER;
struct fake_cuda_counts fake_counts;

static struct cu_context contexts[FAKE_GPUS_MAX];
static _Thread_local struct cu_context *current;
static bool is_initialised;

/* ---- What the driver's caller holds ---- */

struct held {
    struct held *next, **self;
    uint64_t bytes[] __attribute__((aligned(16)));
};

static pthread_mutex_t held_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct held *held;

void *fake_new(size_t bytes)
{
    struct held *h = calloc(1, sizeof *h + bytes);

    if (!h)
        abort();
    pthread_mutex_lock(&held_mutex);
    h->next = held;
    h->self = &held;
    if (held)
        held->self = &h->next;
    held = h;
    pthread_mutex_unlock(&held_mutex);
    return h->bytes;
}

void fake_delete(void *p)
{
    struct held *h = p ? (struct held *)((char *)p - offsetof(struct held, bytes)) : NULL;

    if (!h)
        return;
    pthread_mutex_lock(&held_mutex);
    *h->self = h->next;
    if (h->next)
        h->next->self = h->self;
    pthread_mutex_unlock(&held_mutex);
    free(h);
}

/* ---- Faults ---- */

struct cu_context *fake_current(void)
{
    return current;
}

void fake_kill_context(struct cu_context *c, int result, const char *fmt, ...)
{
    char what[160];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    fake_lock();
    if (c->error == CU_OK) {
        snprintf(c->death, sizeof c->death, "%d at %s", result, what);
        __atomic_store_n(&c->error, result, __ATOMIC_RELEASE);
        fake_say("context of GPU %d is dead: %s", c->gpu, c->death);
    }
    pthread_cond_broadcast(&fake_changed);
    fake_unlock();
}

void fake_lose(struct cu_context *c, int result, const char *rule)
{
    state_lose(c->gpu, result);
    fake_kill_context(c, result, "lost GPU, fault rule '%s'", rule);
}

const char *fake_cuda_death(void)
{
    return current ? current->death : "";
}

/* A lost GPU shows at the next call; files are looked at once a millisecond. */
static int lost_now(int gpu)
{
    static uint64_t looked_ns[FAKE_GPUS_MAX];
    uint64_t now = clock_mono_ns();

    if (now - __atomic_load_n(&looked_ns[gpu], __ATOMIC_RELAXED) < NS_PER_MS)
        return CU_OK;
    __atomic_store_n(&looked_ns[gpu], now, __ATOMIC_RELAXED);
    return state_lost(gpu);
}

static int check_context(struct cu_context *c)
{
    int lost = lost_now(c->gpu);

    if (lost != CU_OK)
        fake_kill_context(c, lost, "lost GPU");
    return __atomic_load_n(&c->error, __ATOMIC_ACQUIRE);
}

int fake_enter(const char *name, bool needs_context)
{
    struct cu_context *c = current;
    struct fault f;
    int r = CU_OK;

    if (!__atomic_load_n(&is_initialised, __ATOMIC_ACQUIRE))
        return CU_NOT_INITIALIZED;
    if (needs_context && !c)
        return CU_INVALID_CONTEXT;
    if (c)
        r = check_context(c);
    if (r != CU_OK)
        return r;
    fault_pass(&f, FAULT_CALL, name, c ? c->gpu : -1, NULL);
    return f.action == FAULT_NONE ? CU_OK : fake_act(&f, c, NULL);
}

/* ---- Library ---- */

int cuInit(unsigned flags)
{
    struct fault f;

    fault_pass(&f, FAULT_CALL, __func__, -1, NULL);
    if (f.action != FAULT_NONE && fake_act(&f, NULL, NULL) != CU_OK)
        return f.code;
    if (fake_settings()->init_result != CU_OK)
        return fake_settings()->init_result;
    if (fake_settings()->n_gpus == 0)
        return CU_NO_DEVICE;
    if (flags != 0)
        return CU_INVALID_VALUE;
    for (int i = 0; i < FAKE_GPUS_MAX; i++)
        contexts[i].gpu = i;
    __atomic_store_n(&is_initialised, true, __ATOMIC_RELEASE);
    return CU_OK;
}

int cuDriverGetVersion(int *version)
{
    *version = fake_settings()->driver_version;
    return CU_OK;
}

int cuGetErrorName(int result, const char **name)
{
    static _Thread_local char text[32];

    snprintf(text, sizeof text, "FAKE_CUDA_ERROR_%d", result);
    *name = text;
    return CU_OK;
}

int cuGetErrorString(int result, const char **text)
{
    return cuGetErrorName(result, text);
}

/* ---- Devices ---- */

static int enter_device(const char *name, int device)
{
    int r = fake_enter(name, false);

    if (r == CU_OK && (device < 0 || device >= fake_settings()->n_gpus))
        r = CU_INVALID_DEVICE;
    return r;
}

int cuDeviceGetCount(int *n)
{
    int r = fake_enter(__func__, false);

    if (r == CU_OK)
        *n = fake_settings()->n_gpus;
    return r;
}

int cuDeviceGet(int *device, int ordinal)
{
    int r = enter_device(__func__, ordinal);

    if (r == CU_OK)
        *device = ordinal;
    return r;
}

int cuDeviceGetName(char *name, int bytes, int device)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK)
        snprintf(name, (size_t)bytes, "Fake GPU");
    return r;
}

int cuDeviceGetUuid_v2(struct cu_uuid *uuid, int device)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK) {
        *uuid = (struct cu_uuid){ "fake" };
        uuid->bytes[15] = (unsigned char)device;
    }
    return r;
}

int cuDeviceGetPCIBusId(char *id, int bytes, int device)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK)
        snprintf(id, (size_t)bytes, "0000:%02x:00.0", device + 1);
    return r;
}

int cuDeviceTotalMem_v2(size_t *bytes, int device)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK)
        *bytes = fake_settings()->memory_bytes;
    return r;
}

/* Shared memory a block may opt in to: CUDA C++ Programming Guide, "Technical Specifications per Compute
 * Capability". */
static int shared_optin(int sm)
{
    return (sm >= 90 ? 227 : sm == 80 || sm == 87 ? 163 : sm >= 86 ? 99 : sm == 75 ? 64 : 96) << 10;
}

static int attribute_value(int attribute)
{
    int sm = fake_settings()->sm;

    switch (attribute) {
    case CU_ATTR_THREADS_PER_BLOCK_MAX:
        return 1024;
    case CU_ATTR_SHARED_BYTES_PER_BLOCK_MAX:
        return 48 << 10;
    case CU_ATTR_WARP_SIZE:
        return 32;
    case CU_ATTR_CLOCK_KHZ:
        return 1000000;
    case CU_ATTR_MULTIPROCESSORS:
        return fake_settings()->n_multiprocessors;
    case CU_ATTR_ECC_ENABLED:
    case CU_ATTR_HOST_REGISTER:
    case CU_ATTR_VMM:
    case CU_ATTR_FD_HANDLES:
    case CU_ATTR_HOST_NUMA_VMM:
        return 1;
    case CU_ATTR_MEMORY_CLOCK_KHZ:
        return 1000000;
    case CU_ATTR_MEMORY_BUS_BITS:
        return 256;
    case CU_ATTR_L2_BYTES:
        return 4 << 20;
    case CU_ATTR_COMPUTE_MAJOR:
        return sm / 10;
    case CU_ATTR_COMPUTE_MINOR:
        return sm % 10;
    case CU_ATTR_SHARED_BYTES_PER_MULTIPROCESSOR_MAX:
        return shared_optin(sm) + 1024;
    case CU_ATTR_REGISTERS_PER_MULTIPROCESSOR_MAX:
        return 65536;
    case CU_ATTR_SHARED_BYTES_PER_BLOCK_OPTIN_MAX:
        return shared_optin(sm);
    default:
        return 0;
    }
}

int cuDeviceGetAttribute(int *value, int attribute, int device)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK)
        *value = attribute_value(attribute);
    return r;
}

int cuDeviceCanAccessPeer(int *can, int device, int peer)
{
    int r = enter_device(__func__, device);

    if (r == CU_OK)
        r = enter_device(__func__, peer);
    if (r == CU_OK)
        *can = device != peer;
    return r;
}

/* ---- Contexts ---- */

int cuDevicePrimaryCtxSetFlags_v2(int device, unsigned flags)
{
    (void)flags;
    return enter_device(__func__, device);
}

int cuDevicePrimaryCtxRetain(struct cu_context **context, int device)
{
    int r = enter_device(__func__, device);
    struct cu_context *c;

    if (r != CU_OK)
        return r;
    c = &contexts[device];
    r = check_context(c);
    if (r != CU_OK)
        return r;
    fake_lock();
    if (c->uses++ == 0)
        fake_counts.contexts++;
    fake_unlock();
    state_context(device, true);
    *context = c;
    return CU_OK;
}

int cuDevicePrimaryCtxRelease_v2(int device)
{
    int r = enter_device(__func__, device);
    struct cu_context *c;

    if (r != CU_OK)
        return r;
    c = &contexts[device];
    if (c->uses == 0)
        return CU_INVALID_CONTEXT;
    fake_lock();
    if (--c->uses == 0) {
        context_wait(c);
        context_close_streams(c);
        fake_counts.contexts--;
    }
    fake_unlock();
    if (c->uses == 0)
        state_context(device, false);
    return CU_OK;
}

int cuCtxSetCurrent(struct cu_context *context)
{
    int r = fake_enter(__func__, false);

    if (r == CU_OK)
        current = context;
    return r;
}

int cuCtxGetCurrent(struct cu_context **context)
{
    *context = current;
    return CU_OK;
}

int cuCtxEnablePeerAccess(struct cu_context *peer, unsigned flags)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    return flags != 0 || !peer || peer == current ? CU_INVALID_VALUE : CU_OK;
}

int cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    int r = fake_enter(__func__, true);

    if (r == CU_OK) {
        *least = 0;
        *greatest = -5;
    }
    return r;
}

/* ---- For tests and the other fakes ---- */

void fake_cuda_counts(struct fake_cuda_counts *out)
{
    unsigned descriptors = fake_given_descriptors();

    fake_lock();
    *out = fake_counts;
    fake_unlock();
    out->descriptors = descriptors;
    out->faults = fault_count();
}

bool fake_cuda_add_faults(const char *rules)
{
    return fault_add(rules);
}

enum fake_cuda_script fake_cuda_ask_script(const char *name, int *code)
{
    struct fault f;

    fault_pass(&f, FAULT_CALL, name, current ? current->gpu : -1, NULL);
    *code = f.code;
    if (f.action == FAULT_NONE)
        return FAKE_CUDA_GO_ON;
    if (f.action == FAULT_HANG || f.action == FAULT_RETURN) {
        fake_say("fault rule '%s'", f.rule);
        return f.action == FAULT_HANG ? FAKE_CUDA_HANG : FAKE_CUDA_RETURN;
    }
    fake_act(&f, current, NULL);
    return FAKE_CUDA_GO_ON;
}

static bool has_dead_context(void)
{
    for (int i = 0; i < FAKE_GPUS_MAX; i++)
        if (contexts[i].error != CU_OK)
            return true;
    return false;
}

/* At a normal end, after atexit() functions of the program: is anything left?  A dead context cannot be cleaned. */
__attribute__((destructor)) static void look_for_leaks(void)
{
    struct fake_cuda_counts c;

    if (!is_initialised || !fake_settings()->leaks_are_fatal || has_dead_context())
        return;
    fake_cuda_counts(&c);
    if (!(c.contexts | c.modules | c.streams | c.events | c.graphs | c.graph_execs | c.handles |
          c.reservations | c.mappings | c.allocations | c.host_allocations | c.host_registrations |
          c.descriptors))
        return;
    fake_say("left at exit: %lu contexts, %lu modules, %lu streams, %lu events, %lu graphs, "
             "%lu executable graphs, %lu handles, %lu reservations, %lu mappings, %lu allocations, "
             "%lu host allocations, %lu registrations, %lu descriptors",
             c.contexts, c.modules, c.streams, c.events, c.graphs, c.graph_execs, c.handles,
             c.reservations, c.mappings, c.allocations, c.host_allocations, c.host_registrations,
             c.descriptors);
    abort();
}
