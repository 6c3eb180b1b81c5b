/* kernel.c - modules, functions and launches.  A module's content is not looked at: its functions are the kernels that
 * tests have added and those of the shim's registry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda/fake/fake.h"
#include "tests/cuda/shim/kernel_registry.h"

enum { SHARED_BYTES_USUAL = 48 << 10, GRID_YZ_MAX = 65535, BLOCK_THREADS_MAX = 1024 };
/* As if every kernel declared some: what a launch asks for comes on top, in all limits. */
enum { SHARED_BYTES_OWN = 1024 };
/* A pair of small numbers is not to be taken for an address of the host: see arguments_are_fit(). */
#define LOW_HALF_OF_ADDRESS_MIN (1u << 24)

/* Missing where the library is built without the kernels: then only tests' kernels are there. */
#pragma weak shim_find
#pragma weak shim_run

struct cu_module {
    bool is_loaded;
};

static struct cu_function *functions;

/* ---- Functions ---- */

/* A module's; those of other fake libraries are not found by name.  The mutex is held for these. */
static struct cu_function *function_named(const char *name)
{
    struct cu_function *f = functions;

    while (f && (f->work || strcmp(f->name, name) != 0))
        f = f->next;
    return f;
}

static struct cu_function *function_new(const char *name)
{
    struct cu_function *f = calloc(1, sizeof *f);

    if (!f)
        abort();
    snprintf(f->name, sizeof f->name, "%s", name);
    f->threads_max = BLOCK_THREADS_MAX;
    f->shared_bytes_max = SHARED_BYTES_USUAL - SHARED_BYTES_OWN;
    f->next = functions;
    functions = f;
    return f;
}

static struct cu_function *function_of_registry(const char *name)
{
    const struct shim_kernel *entry = shim_find ? shim_find(name) : NULL;
    struct cu_function *f;

    if (!entry)
        return NULL;
    f = function_new(name);
    f->entry = entry;
    f->args_bytes = entry->args_bytes;
    f->threads_max = entry->threads;
    return f;
}

static const struct cu_function *function_of_library(const char *name, fake_work_fn *work)
{
    struct cu_function *f;

    fake_lock();
    for (f = functions; f; f = f->next)
        if (f->work == work && strcmp(f->name, name) == 0)
            break;
    if (!f) {
        f = function_new(name);
        f->work = work;
    }
    fake_unlock();
    return f;
}

void fake_cuda_add_kernel(const char *name, fake_kernel_fn *run, size_t args_bytes,
                          uint32_t threads_max)
{
    struct cu_function *f;

    fake_lock();
    f = function_named(name);
    if (!f)
        f = function_new(name);
    f->run = run;
    f->entry = NULL;
    f->args_bytes = args_bytes;
    f->threads_max = threads_max;
    fake_unlock();
}

/* ---- Modules ---- */

int cuModuleLoadData(struct cu_module **module, const void *image)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!module || !image)
        return CU_INVALID_VALUE;
    *module = fake_new(sizeof **module);
    (*module)->is_loaded = true;
    fake_lock();
    fake_counts.modules++;
    fake_unlock();
    return CU_OK;
}

int cuModuleUnload(struct cu_module *module)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (!module)
        return CU_INVALID_HANDLE;
    fake_delete(module);
    fake_lock();
    fake_counts.modules--;
    fake_unlock();
    return CU_OK;
}

int cuModuleGetFunction(struct cu_function **function, struct cu_module *module, const char *name)
{
    int r = fake_enter(__func__, true);

    if (r == CU_OK) /* it is loaded when it is first asked for */
        r = capture_refuses(fake_current());
    if (r != CU_OK)
        return r;
    if (!function || !module || !name)
        return CU_INVALID_VALUE;
    fake_lock();
    *function = function_named(name);
    if (!*function)
        *function = function_of_registry(name);
    fake_counts.functions += *function != NULL;
    fake_unlock();
    return *function ? CU_OK : CU_NOT_FOUND;
}

int cuModuleGetGlobal_v2(cu_ptr *address, size_t *bytes, struct cu_module *module, const char *name)
{
    int r = fake_enter(__func__, true);

    (void)address;
    (void)bytes;
    (void)module;
    (void)name;
    return r == CU_OK ? CU_NOT_FOUND : r; /* kernels have no globals that the host writes */
}

int cuModuleGetLoadingMode(int *mode)
{
    *mode = 2; /* CU_MODULE_LAZY_LOADING */
    return CU_OK;
}

static int attribute_of(const struct cu_function *f, int attribute)
{
    switch (attribute) {
    case CU_FUNC_THREADS_PER_BLOCK_MAX:
        return (int)f->threads_max;
    case CU_FUNC_SHARED_BYTES:
        return SHARED_BYTES_OWN;
    case CU_FUNC_REGISTERS:
        return 32;
    case CU_FUNC_DYNAMIC_SHARED_BYTES_MAX:
        return (int)f->shared_bytes_max;
    default:
        return 0;
    }
}

int cuFuncGetAttribute(int *value, int attribute, struct cu_function *function)
{
    int r = fake_enter(__func__, true);

    if (r == CU_OK)
        *value = attribute_of(function, attribute);
    return r;
}

static int shared_bytes_limit(void)
{
    int bytes = 0;

    cuDeviceGetAttribute(&bytes, CU_ATTR_SHARED_BYTES_PER_BLOCK_OPTIN_MAX, fake_current()->gpu);
    return bytes - SHARED_BYTES_OWN;
}

int cuFuncSetAttribute(struct cu_function *function, int attribute, int value)
{
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (attribute != CU_FUNC_DYNAMIC_SHARED_BYTES_MAX || value < 0 || value > shared_bytes_limit())
        return CU_INVALID_VALUE;
    function->shared_bytes_max = (uint32_t)value;
    return CU_OK;
}

int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *n, struct cu_function *function, int threads,
                                                size_t shared_bytes)
{
    int r = fake_enter(__func__, true), by_shared;

    if (r != CU_OK)
        return r;
    if (!n || !function || threads < 1)
        return CU_INVALID_VALUE;
    by_shared = shared_bytes > 0 ? shared_bytes_limit() / (int)shared_bytes : 16;
    *n = 2048 / threads < by_shared ? 2048 / threads : by_shared;
    return CU_OK;
}

/* ---- Launches ---- */

void kernel_run(const struct kernel_call *k, void (*met)(void *ctx, uint64_t n), void *ctx)
{
    const struct cu_function *f = k->function;
    struct shim_launch launch = {
        .shared_bytes = k->launch.shared_bytes, .args = k->args, .met = met, .met_ctx = ctx
    };

    memcpy(launch.grid, k->launch.grid, sizeof launch.grid);
    memcpy(launch.block, k->launch.block, sizeof launch.block);
    if (f->work)
        f->work((void *)(uintptr_t)k->args);
    else if (f->run)
        f->run(k->args, &k->launch);
    else
        shim_run(f->entry, &launch);
}

static bool launch_is_fit(const struct cu_function *f, const struct fake_launch *l)
{
    uint64_t threads = (uint64_t)l->block[0] * l->block[1] * l->block[2];

    return l->grid[0] >= 1 && l->grid[0] <= INT32_MAX && l->grid[1] >= 1 &&
           l->grid[1] <= GRID_YZ_MAX && l->grid[2] >= 1 && l->grid[2] <= GRID_YZ_MAX &&
           threads >= 1 && threads <= f->threads_max &&
           (!f->entry || threads == f->entry->threads) && l->shared_bytes <= f->shared_bytes_max;
}

/* The arguments of cuLaunchKernel and their size: one by-value struct, given in either of the two ways. */
static const void *arguments(const struct cu_function *f, void **params, void **extra,
                             size_t *bytes)
{
    const void *args = params ? params[0] : NULL;

    *bytes = f->args_bytes;
    for (int i = 0; extra && extra[i] != CU_PARAM_END; i += 2) {
        if (extra[i] == CU_PARAM_BUFFER_POINTER)
            args = extra[i + 1];
        else if (extra[i] == CU_PARAM_BUFFER_BYTES)
            *bytes = *(size_t *)extra[i + 1];
    }
    return args;
}

/* No pointer of the host among the arguments?  A wrong finding would need a pair of numbers that happens to be a
 * mapped address. */
static bool arguments_are_fit(const struct cu_function *f, const void *args, size_t bytes)
{
    uint64_t word;

    for (size_t at = 0; at + sizeof word <= bytes; at += sizeof word) {
        memcpy(&word, (const char *)args + at, sizeof word);
        if ((uint32_t)word >= LOW_HALF_OF_ADDRESS_MIN && !fake_is_fit_argument(word)) {
            fake_say("kernel '%s': argument at byte %zu is the host's address %#lx", f->name, at,
                     word);
            return false;
        }
    }
    return true;
}

static int give_kernel(struct cu_stream *s, const struct cu_function *f,
                       const struct fake_launch *l, const void *args, size_t bytes)
{
    struct work *w = work_new(WORK_KERNEL, bytes);

    w->kernel.function = f;
    w->kernel.launch = *l;
    w->kernel.args_bytes = bytes;
    if (bytes > 0)
        memcpy(w->kernel.args, args, bytes);
    return stream_give(fake_stream(s), w);
}

static int launch(struct cu_function *f, const struct fake_launch *l, struct cu_stream *s,
                  void **params, void **extra)
{
    size_t bytes;
    const void *args = arguments(f, params, extra, &bytes);

    if (bytes != f->args_bytes || bytes > FAKE_ARGS_MAX || (bytes > 0 && !args)) {
        fake_say("kernel '%s': %zu bytes of arguments, it has %zu", f->name, bytes, f->args_bytes);
        return CU_INVALID_VALUE;
    }
    if (!launch_is_fit(f, l)) {
        fake_say("kernel '%s': grid %u x %u x %u, block %u x %u x %u, shared %u of %u", f->name,
                 l->grid[0], l->grid[1], l->grid[2], l->block[0], l->block[1], l->block[2],
                 l->shared_bytes, f->shared_bytes_max);
        return CU_INVALID_VALUE;
    }
    if (!arguments_are_fit(f, args, bytes)) {
        fake_kill_context(fake_current(), CU_ILLEGAL_ADDRESS, "%s: argument", f->name);
        return CU_ILLEGAL_ADDRESS;
    }
    return give_kernel(s, f, l, args, bytes);
}

int cuLaunchKernel(struct cu_function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                   unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                   struct cu_stream *s, void **params, void **extra)
{
    const struct fake_launch l = { { grid_x, grid_y, grid_z },
                                   { block_x, block_y, block_z },
                                   shared_bytes };
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    return function ? launch(function, &l, s, params, extra) : CU_INVALID_HANDLE;
}

int fake_cuda_enqueue(struct cu_stream *s, const char *name, fake_work_fn *run, const void *args,
                      size_t args_bytes)
{
    static const struct fake_launch once = { { 1, 1, 1 }, { 1, 1, 1 }, 0 };
    int r = fake_enter(__func__, true);

    if (r != CU_OK)
        return r;
    if (args_bytes > FAKE_ARGS_MAX)
        return CU_INVALID_VALUE;
    return give_kernel(s, function_of_library(name, run), &once, args, args_bytes);
}
