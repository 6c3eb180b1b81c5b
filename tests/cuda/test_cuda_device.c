/* test_cuda_device.c - device.h on the fake driver, in all of its modes: what is put into streams happens in order, waits
 * end, and the first failure is the one that is told. */
#include <errno.h>

#include "common/clock.h"
#include "proto/worker_exit.h"
#include "tests/cuda/child.h"

#define LIMIT_NS (60 * NS_PER_S)

static const char *const modes[] = { "mode=eager", "mode=lazy", "mode=random,delay_us=300,seed=7" };

static void in_all_modes(void (*fn)(void))
{
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        if (in_child(modes[i], NULL, fn) != 0)
            fail_msg("with %s", modes[i]);
}

/* ---- Work and waiting ---- */

enum { N = 1000 };

static void in_kernel_out(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr x, y;
    void *in, *out;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, N * sizeof(float), &e), e);
    CHECK_OK(device_alloc(r.device, &y, N * sizeof(float), &e), e);
    CHECK_OK(device_host_alloc(r.device, &in, N * sizeof(float), &e), e);
    CHECK_OK(device_host_alloc(r.device, &out, N * sizeof(float), &e), e);
    for (int i = 0; i < N; i++)
        ((float *)in)[i] = (float)i;
    CHECK(device_copy_in(&r.stream, x, in, N * sizeof(float)));
    CHECK(rig_add(&r, &r.stream, y, x, 0.5f, N));
    CHECK(rig_add(&r, &r.stream, y, y, 1, N));
    CHECK(device_copy(&r.stream, x, y, N * sizeof(float)));
    CHECK(device_copy_out(&r.stream, out, x, N * sizeof(float)));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    for (int i = 0; i < N; i++)
        CHECK(((float *)out)[i] == (float)i + 1.5f);
    CHECK(device_launches(r.device) == 2);
    device_free(r.device, x);
    device_free(r.device, y);
    device_host_free(r.device, in);
    device_host_free(r.device, out);
    rig_close(&r);
}

static void stream_keeps_the_order_of_its_work(void **state)
{
    (void)state;
    in_all_modes(in_kernel_out);
}

/* One stream writes, the other reads after an event; a hundred times, so that a missing wait shows. */
static void two_streams(void)
{
    struct device_stream second;
    struct device_event written, read;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x, y;
    float out;

    rig_open(&r);
    CHECK_OK(device_stream_open(&second, r.device, -1, &e), e);
    CHECK_OK(device_event_open(&written, r.device, true, &e), e);
    CHECK_OK(device_event_open(&read, r.device, true, &e), e);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK_OK(device_alloc(r.device, &y, sizeof(float), &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    CHECK(device_fill(&r.stream, y, 0, sizeof(float)));
    for (int i = 0; i < 50; i++) {
        CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
        CHECK(device_event_record(&written, &r.stream));
        CHECK(device_stream_wait(&second, &written));
        CHECK(rig_add(&r, &second, y, x, 0, 1));
        CHECK(device_event_record(&read, &second));
        CHECK(device_stream_wait(&r.stream, &read));
    }
    CHECK(device_copy_out(&r.stream, &out, y, sizeof out));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(out == 50);
    CHECK(device_event_ms(&written, &read) >= 0);
    device_event_close(&written);
    device_event_close(&read);
    device_free(r.device, x);
    device_free(r.device, y);
    device_stream_close(&second);
    rig_close(&r);
}

static void event_orders_two_streams(void **state)
{
    (void)state;
    in_all_modes(two_streams);
}

static void nothing_unless_asked(void)
{
    struct device_event ev;
    struct err e = { 0 };
    struct rig r;
    void *p;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_host_alloc(r.device, &p, sizeof(float), &e), e);
    CHECK_OK(device_host_address(r.device, &x, p, &e), e);
    CHECK_OK(device_event_open(&ev, r.device, false, &e), e);
    *(float *)p = 1;
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(device_event_record(&ev, &r.stream));
    usleep(20000); /* long enough for an eager stream; too short only hides a fault of the fake */
    CHECK(__atomic_load_n((uint32_t *)p, __ATOMIC_ACQUIRE) == 0x3f800000); /* 1.0f still */
    CHECK(device_event_wait(&ev, clock_mono_ns() + LIMIT_NS) == DEVICE_DONE);
    CHECK(*(float *)p == 2);
    device_event_close(&ev);
    device_host_free(r.device, p);
    rig_close(&r);
}

static void lazy_mode_runs_nothing_that_nobody_waits_for(void **state)
{
    (void)state;
    assert_int_equal(in_child("mode=lazy", NULL, nothing_unless_asked), 0);
}

static void hangs(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_stream_finish(&r.stream, 50 * NS_PER_MS, &e));
    CHECK(e.code == ERR_TIMEOUT);
    CHECK(device_fault(r.device) == NULL);
    _exit(0); /* nothing can be given back */
}

static void wait_ends_at_its_deadline_when_a_kernel_hangs(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 1: hang", hangs), 0);
}

/* ---- Graphs ---- */

static void capture_and_replay(void)
{
    struct device_stream second;
    struct device_event fork, join;
    struct device_graph g;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x, y;
    float out[2];

    rig_open(&r);
    CHECK_OK(device_stream_open(&second, r.device, 0, &e), e);
    CHECK_OK(device_event_open(&fork, r.device, false, &e), e);
    CHECK_OK(device_event_open(&join, r.device, false, &e), e);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK_OK(device_alloc(r.device, &y, sizeof(float), &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    CHECK(device_capture_begin(&r.stream));
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(device_event_record(&fork, &r.stream));
    CHECK(device_stream_wait(&second, &fork));
    CHECK(rig_add(&r, &second, y, x, 10, 1));
    CHECK(device_event_record(&join, &second));
    CHECK(device_stream_wait(&r.stream, &join));
    CHECK_OK(device_capture_end(&r.stream, &g, &e), e);
    CHECK(device_launches(r.device) == 0);
    for (int i = 0; i < 3; i++)
        CHECK(device_graph_launch(&r.stream, &g));
    CHECK(device_launches(r.device) == 6);
    CHECK(device_copy_out(&r.stream, &out[0], x, sizeof(float)));
    CHECK(device_copy_out(&r.stream, &out[1], y, sizeof(float)));
    CHECK(out[0] == 3 && out[1] == 13);
    device_graph_free(r.device, &g);
    device_event_close(&fork);
    device_event_close(&join);
    device_free(r.device, x);
    device_free(r.device, y);
    device_stream_close(&second);
    rig_close(&r);
}

static void graph_repeats_what_was_captured(void **state)
{
    (void)state;
    in_all_modes(capture_and_replay);
}

static void allocate_while_capturing(void)
{
    struct device_graph g;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK(device_capture_begin(&r.stream));
    CHECK(!device_alloc(r.device, &x, 4, &e));
    CHECK(e.sys == CU_STREAM_CAPTURE_UNSUPPORTED);
    CHECK(!device_capture_end(&r.stream, &g, &e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_STREAM_CAPTURE_INVALIDATED);
    CHECK(device_fault(r.device) == NULL);
    device_graph_free(r.device, &g);
    rig_close(&r);
}

static void allocation_breaks_a_capture_but_not_the_device(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, allocate_while_capturing), 0);
}

/* ---- Failures ---- */

static void first_of_many(void)
{
    const struct device_fault *f;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_LAUNCH_FAILED);
    CHECK(strstr(e.msg, "CUDA_ERROR_LAUNCH_FAILED (sticky)"));
    CHECK(!rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_check(r.device, CU_CONTAINED, "cuOther", ""));
    f = device_fault(r.device);
    CHECK(f && f->result == CU_LAUNCH_FAILED && f->severity == CUDA_STICKY);
    CHECK(device_fault_exit(f) == WORKER_EXIT_DEVICE_STICKY);
    CHECK(!device_forgive(r.device));
    device_free(r.device, x); /* nothing is asked of a dead context */
    rig_close(&r);
}

static void first_failure_is_kept(void **state)
{
    (void)state;
    assert_int_equal(in_child("mode=eager", "kernel add 1: sticky 719", first_of_many), 0);
    assert_int_equal(in_child("mode=lazy", "kernel add 1: sticky 719", first_of_many), 0);
}

static void launch_refused(void)
{
    const struct device_fault *f;
    struct err e = { 0 };
    struct rig r;

    rig_open(&r);
    CHECK(!device_launch(&r.stream, r.add, &(struct device_grid){ { 1 }, 32, 0 }, "12345678", 8));
    f = device_fault(r.device);
    CHECK(f && f->result == CU_INVALID_VALUE && strcmp(f->what, "add") == 0);
    CHECK(strcmp(f->call, "cuLaunchKernel") == 0);
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    CHECK(strstr(e.msg, "add: cuLaunchKernel: CUDA_ERROR_INVALID_VALUE (refused)"));
    _exit(0);
}

static void arguments_of_another_size_are_a_fault(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, launch_refused), 0);
}

static void no_such_kernel(void)
{
    struct device_kernel *k;
    struct err e = { 0 };
    struct rig r;

    rig_open(&r);
    k = device_kernel(r.device, "no_such_kernel");
    CHECK(device_kernel(r.device, "no_such_kernel") == k);
    CHECK(!device_kernel_load(k, &e));
    CHECK(strstr(e.msg, "this build has no kernel 'no_such_kernel'"));
    CHECK(device_fault(r.device) == NULL);
    CHECK(!device_launch(&r.stream, k, &(struct device_grid){ { 1 }, 32, 0 }, NULL, 0));
    CHECK(device_fault(r.device)->result == CU_NOT_FOUND);
    _exit(0);
}

static void unknown_kernel_is_named(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, no_such_kernel), 0);
}

/* The kernel's own counts: 48 KiB of the launch are more than a block has without being asked for. */
static void much_shared_memory(void)
{
    static const uint32_t sizes[] = { 47 << 10, 48 << 10, 99 << 10 };
    struct device_kernel_info info;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;
    struct add_args args = { 0 };

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 4, &e), e);
    args = (struct add_args){ device_floats(x), device_floats(x), 1, 1 };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        CHECK(device_launch(&r.stream, r.add, &(struct device_grid){ { 1 }, 32, sizes[i] }, &args,
                            sizeof args));
    CHECK_OK(device_kernel_describe(r.add, 32, 0, &info, &e), e);
    CHECK(info.threads_max == 32 && info.blocks_per_multiprocessor > 0 && info.shared_bytes > 0);
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(!device_launch(&r.stream, r.add, &(struct device_grid){ { 1 }, 32, 164 << 10 }, &args,
                         sizeof args)); /* sm_80 has 163 KiB */
    _exit(0);
}

static void shared_memory_above_48_kib_is_opted_into(void **state)
{
    (void)state;
    assert_int_equal(in_child("sm=80", NULL, much_shared_memory), 0);
}

static void out_of_memory(void)
{
    size_t free_bytes, total_bytes;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x, y;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 3 << 20, &e), e);
    CHECK(!device_alloc(r.device, &y, 6 << 20, &e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_OUT_OF_MEMORY);
    CHECK(device_fault(r.device) == NULL);
    CHECK_OK(device_memory(r.device, &free_bytes, &total_bytes, &e), e);
    CHECK(total_bytes == 8 << 20 && free_bytes == 5 << 20);
    device_free(r.device, x);
    CHECK_OK(device_alloc(r.device, &y, 6 << 20, &e), e);
    device_free(r.device, y);
    rig_close(&r);
}

/* What a dead worker had comes back a while after its end. */
static void start_when_there_is_room(void)
{
    struct device *d;
    struct err e = { 0 };
    cu_ptr x;

    CHECK_OK(device_open(&d, 0, NULL, &e), e);
    CHECK_OK(device_alloc_patiently(d, &x, 256, &e), e);
    device_free(d, x);
    device_close(d);
}

static void memory_that_comes_back_is_waited_for_at_a_start(void **state)
{
    (void)state;
    assert_int_equal(in_child("",
                              "call cuDevicePrimaryCtxRetain 1: return 2;"
                              "call cuMemAlloc_v2 1: return 2",
                              start_when_there_is_room),
                     0);
}

static void lack_of_memory_is_refused_and_no_fault(void **state)
{
    (void)state;
    assert_int_equal(in_child("memory=8m", NULL, out_of_memory), 0);
}

/* ---- Opening ---- */

/* Others take the GPU's memory, and give it back. */
static void launch_when_there_is_room(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;
    float out;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(device_fault(r.device) == NULL && !device_forgive(r.device));
    CHECK(device_copy_out(&r.stream, &out, x, sizeof(float)));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(out == 1);
    device_free(r.device, x);
    rig_close(&r);
}

/* They do not: the step is given up, and the device is as good as before. */
static void give_up_and_go_on(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(!rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    CHECK(e.code == ERR_DEVICE && e.sys == CU_OUT_OF_MEMORY);
    CHECK(device_forgive(r.device));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    device_free(r.device, x);
    rig_close(&r);
}

static void want_of_memory_at_a_launch_is_waited_out_or_forgiven(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuLaunchKernel 1: return 2", launch_when_there_is_room), 0);
    assert_int_equal(
        in_child("", "call cuModuleGetFunction 1: return 2", launch_when_there_is_room), 0);
    assert_int_equal(in_child("", "call cuLaunchKernel 1+: return 2", give_up_and_go_on), 0);
}

/* result: what the driver says, each time. */
static void record_in_vain(int result)
{
    struct device_graph g;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    if (device_capture_begin(&r.stream)) {
        rig_add(&r, &r.stream, x, x, 1, 1);
        CHECK(!device_capture_end(&r.stream, &g, &e));
        CHECK(e.sys == result);
    }
    CHECK(device_fault(r.device) == NULL);
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    device_free(r.device, x);
    rig_close(&r);
}

static void record_without_memory(void)
{
    record_in_vain(CU_OUT_OF_MEMORY);
}

static void record_what_cannot_be(void)
{
    record_in_vain(CU_STREAM_CAPTURE_UNSUPPORTED);
}

/* Else every worker would end as soon as it records, and its successor too. */
static void what_cannot_be_recorded_is_no_fault(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuLaunchKernel 1: return 900", record_what_cannot_be), 0);
    assert_int_equal(in_child("", "call cuModuleGetFunction 1: return 900", record_what_cannot_be),
                     0);
}

/* The step has its results by then: it goes on without a graph. */
static void want_of_memory_for_a_graph_is_no_fault(void **state)
{
    static const char *const rules[] = { "call cuStreamBeginCapture_v2 1: return 2",
                                         "call cuLaunchKernel 1+: return 2",
                                         "call cuGraphInstantiateWithFlags 1: return 2" };

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        assert_int_equal(in_child("", rules[i], record_without_memory), 0);
}

static void launch_no_graph(void)
{
    struct device_graph g;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    CHECK(device_capture_begin(&r.stream));
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK_OK(device_capture_end(&r.stream, &g, &e), e);
    CHECK(!device_graph_launch(&r.stream, &g));
    CHECK(device_forgive(r.device));
    device_graph_free(r.device, &g);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    device_free(r.device, x);
    rig_close(&r);
}

static void want_of_memory_to_launch_a_graph_is_forgiven(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuGraphLaunch 1: return 2", launch_no_graph), 0);
}

static void describe(void)
{
    const struct device_info *i;
    struct rig r;

    rig_open(&r);
    i = device_info(r.device);
    CHECK(i->sm == 89 && i->has_vmm && i->has_fd_handles && i->memory_bytes == 64 << 20);
    CHECK(strcmp(i->uuid, "GPU-66616b65-0000-0000-0000-000000000000") == 0);
    CHECK(i->shared_bytes_max == 99 << 10 && i->n_multiprocessors == 3);
    rig_close(&r);
}

static void info_says_what_the_device_is(void **state)
{
    (void)state;
    assert_int_equal(in_child("sm=89,memory=64m,multiprocessors=3", NULL, describe), 0);
}

static void unfit(void)
{
    struct device *d;
    struct err e = { 0 };

    CHECK(device_count(&e) == 2);
    CHECK(!device_is_usable(0, &e));
    CHECK(strstr(e.msg, "compute capability 6.1"));
    CHECK(!device_open(&d, 2, NULL, &e));
    CHECK(strstr(e.msg, "GPU 2: there are 2"));
}

static void old_or_missing_devices_are_named(void **state)
{
    (void)state;
    assert_int_equal(in_child("sm=61,gpus=2", NULL, unfit), 0);
}

static void without_kernels(void)
{
    struct device *d;
    struct err e = { 0 };

    CHECK(!device_open(&d, 0, NULL, &e));
    CHECK(strcmp(e.msg, "this build has no CUDA kernels") == 0);
}

static void without_binary(void)
{
    struct cuda_image family = { "family", "x", "x" };
    struct device_images image = { &family, 1 };
    struct device *d;
    struct err e = { 0 };

    CHECK(!device_open(&d, 0, &image, &e));
    CHECK(strstr(e.msg, "no kernels for GPU 0 (Fake GPU, sm_80)"));
}

static void missing_kernels_are_named(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuModuleLoadData 1: return 200", without_kernels), 0);
    assert_int_equal(in_child("", "call cuModuleLoadData 1: return 209", without_binary), 0);
}

/* A rehearsal loads what it launches and runs none of it; what is loaded then is not loaded again. */
static void rehearse(void)
{
    struct fake_cuda_counts before, after;
    struct fake_cuda fake;
    struct err e = { 0 };
    struct rig r;
    float out = 7;
    cu_ptr x;

    rig_open(&r);
    CHECK(fake_cuda_find(&fake));
    CHECK_OK(device_alloc(r.device, &x, sizeof(float), &e), e);
    CHECK(device_copy_in(&r.stream, x, &out, sizeof out));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    fake.counts(&before);
    device_rehearse_begin(r.device);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(device_fill(&r.stream, x, 0, sizeof(float)));
    device_rehearse_end(r.device);
    fake.counts(&after);
    CHECK(after.functions == before.functions + 1 && after.launches == before.launches);
    CHECK(device_kernels_loaded(r.device) == 1);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(device_copy_out(&r.stream, &out, x, sizeof out));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(out == 8);
    fake.counts(&before);
    CHECK(before.functions == after.functions);
    device_free(r.device, x);
    rig_close(&r);
}

static void a_rehearsal_loads_kernels_and_runs_none(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, rehearse), 0);
    assert_int_equal(in_child("", "call cuModuleGetFunction 1: return 2", rehearse), 0);
}

static void compiled_kernels_are_kept_where_systemd_says(void **state)
{
    char folder[] = "/tmp/llmd-cache-XXXXXX", path[96];

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s:/nowhere", folder);
    setenv("CACHE_DIRECTORY", path, 1);
    setenv("CUDA_CACHE_PATH", "/the/operators", 1);
    cuda_environment();
    assert_string_equal(getenv("CUDA_CACHE_PATH"), "/the/operators");
    unsetenv("CUDA_CACHE_PATH");
    cuda_environment();
    snprintf(path, sizeof path, "%s/cuda", folder);
    assert_string_equal(getenv("CUDA_CACHE_PATH"), path);
    assert_int_equal(rmdir(path), 0); /* it was made */
    unsetenv("CUDA_CACHE_PATH");
    setenv("CACHE_DIRECTORY", "/nowhere", 1); /* left to the driver's own */
    cuda_environment();
    assert_null(getenv("CUDA_CACHE_PATH"));
    unsetenv("CACHE_DIRECTORY");
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stream_keeps_the_order_of_its_work),
        cmocka_unit_test(event_orders_two_streams),
        cmocka_unit_test(lazy_mode_runs_nothing_that_nobody_waits_for),
        cmocka_unit_test(wait_ends_at_its_deadline_when_a_kernel_hangs),
        cmocka_unit_test(graph_repeats_what_was_captured),
        cmocka_unit_test(allocation_breaks_a_capture_but_not_the_device),
        cmocka_unit_test(first_failure_is_kept),
        cmocka_unit_test(arguments_of_another_size_are_a_fault),
        cmocka_unit_test(unknown_kernel_is_named),
        cmocka_unit_test(shared_memory_above_48_kib_is_opted_into),
        cmocka_unit_test(lack_of_memory_is_refused_and_no_fault),
        cmocka_unit_test(memory_that_comes_back_is_waited_for_at_a_start),
        cmocka_unit_test(want_of_memory_at_a_launch_is_waited_out_or_forgiven),
        cmocka_unit_test(want_of_memory_for_a_graph_is_no_fault),
        cmocka_unit_test(what_cannot_be_recorded_is_no_fault),
        cmocka_unit_test(want_of_memory_to_launch_a_graph_is_forgiven),
        cmocka_unit_test(info_says_what_the_device_is),
        cmocka_unit_test(old_or_missing_devices_are_named),
        cmocka_unit_test(missing_kernels_are_named),
        cmocka_unit_test(a_rehearsal_loads_kernels_and_runs_none),
        cmocka_unit_test(compiled_kernels_are_kept_where_systemd_says),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
