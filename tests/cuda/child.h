/* child.h - tests on the fake driver, one process each: its settings are read once, and a dead context stays dead.
 *
 *     assert_int_equal(in_child("mode=lazy", NULL, copies), 0);
 *
 * A child checks with CHECK(), which ends it with 1; cmocka's asserts are the parent's. */
#ifndef LLMD_TESTS_CUDA_CHILD_H
#define LLMD_TESTS_CUDA_CHILD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu-worker/cuda/device.h"
#include "tests/check.h"
#include "tests/cuda/fake/fake_cuda.h"
#include "tests/cuda/fake/folder.h"

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

#define CHECK_OK(call, e)                                                                          \
    do {                                                                                           \
        if (!(call)) {                                                                             \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, (e).msg);                \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Start fn in a process with these settings (`leaks=fatal` is added) and fault rules (NULL: none). */
static inline pid_t start_child(const char *settings, const char *faults, void (*fn)(void))
{
    pid_t pid = fork();
    char all[700];

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    setrlimit(RLIMIT_CORE, &(struct rlimit){ 0 });
    snprintf(all, sizeof all, "leaks=fatal,%s", settings);
    setenv("LLMD_FAKE_CUDA", all, 1);
    if (faults)
        setenv("LLMD_FAKE_CUDA_FAULTS", faults, 1);
    fn();
    exit(0);
}

/* Its exit code, or minus the signal that ended it. */
static inline int end_child(pid_t pid)
{
    int status = 0;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static inline int in_child(const char *settings, const char *faults, void (*fn)(void))
{
    return end_child(start_child(settings, faults, fn));
}

/* ---- Kernels of the tests ---- */

/* to[i] = from[i] + add, n floats */
struct add_args {
    float *to;
    const float *from;
    float add;
    uint32_t n;
};

static inline void add_kernel(const void *args, const struct fake_launch *launch)
{
    const struct add_args *a = args;

    (void)launch;
    for (uint32_t i = 0; i < a->n; i++)
        a->to[i] = a->from[i] + a->add;
}

static inline float *device_floats(cu_ptr p)
{
    return (float *)(uintptr_t)p;
}

/* A device on the fake, with a stream and the kernel `add`. */
struct rig {
    struct fake_cuda fake;
    struct device *device;
    struct device_stream stream;
    struct device_kernel *add;
};

static inline void rig_open(struct rig *r)
{
    struct err e = { 0 };

    CHECK(fake_cuda_find(&r->fake));
    r->fake.add_kernel("add", add_kernel, sizeof(struct add_args), 32);
    CHECK_OK(device_open(&r->device, 0, NULL, &e), e);
    CHECK_OK(device_stream_open(&r->stream, r->device, 0, &e), e);
    r->add = device_kernel(r->device, "add");
}

static inline void rig_close(struct rig *r)
{
    device_stream_close(&r->stream);
    device_close(r->device);
}

static inline bool rig_add(struct rig *r, struct device_stream *s, cu_ptr to, cu_ptr from,
                           float add, uint32_t n)
{
    struct add_args args = { device_floats(to), device_floats(from), add, n };

    return device_launch(s, r->add, &(struct device_grid){ .grid = { 1 }, .block = 32 }, &args,
                         sizeof args);
}

#endif
