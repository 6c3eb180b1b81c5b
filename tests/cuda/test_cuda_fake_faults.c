/* test_cuda_fake_faults.c - every action of the fault script does what README.md says, at the call or launch it names. */
#include <errno.h>
#include <signal.h>
#include <sys/mman.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/nvml.h"
#include "gpu-worker/cuda/kernels/all_reduce.h"
#include "proto/worker_exit.h"
#include "tests/cuda/child.h"

#define MIB      (1ull << 20)
#define LIMIT_NS (60 * NS_PER_S)

static char folder[STATE_FOLDER_BYTES], with_state[400];

static int make_folder(void **state)
{
    (void)state;
    assert_true(state_folder_make(folder));
    snprintf(with_state, sizeof with_state, "memory=16m,gpus=2,state=%s", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    assert_true(state_folder_remove(folder));
    return 0;
}

/* Three launches of `add`, each waited for; how many ended well. */
static int three_launches(struct rig *r)
{
    struct err e = { 0 };
    cu_ptr x;
    int n = 0;

    CHECK_OK(device_alloc(r->device, &x, 4, &e), e);
    while (n < 3 && rig_add(r, &r->stream, x, x, 1, 1) &&
           device_stream_finish(&r->stream, LIMIT_NS, &e))
        n++;
    if (n == 3) {
        device_free(r->device, x);
        rig_close(r);
    }
    return n;
}

/* ---- Calls ---- */

static void third_allocation_fails(void)
{
    struct err e = { 0 };
    struct fake_cuda_counts c;
    struct rig r;
    cu_ptr p[4];

    rig_open(&r);
    for (int i = 0; i < 4; i++)
        CHECK(device_alloc(r.device, &p[i], 256, &e) == (i != 2));
    CHECK(e.sys == CU_OUT_OF_MEMORY);
    r.fake.counts(&c);
    CHECK(c.faults == 1 && c.allocations == 3);
    for (int i = 0; i < 4; i++)
        if (i != 2)
            device_free(r.device, p[i]);
    rig_close(&r);
}

static void call_returns_a_code_once_at_its_count(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemAlloc_v2 3: return 2", third_allocation_fails), 0);
    assert_int_equal(in_child("seed=4", "call cuMemAlloc_v2 3-3: return 2", third_allocation_fails),
                     0);
    assert_int_equal(
        in_child("", "# nothing\n\ncall cuMemAlloc_v2 3: return 2 # once", third_allocation_fails),
        0);
}

static void all_from_the_second_fail(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr p, q;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &p, 256, &e), e);
    for (int i = 0; i < 3; i++)
        CHECK(!device_alloc(r.device, &q, 256, &e));
    device_free(r.device, p);
    rig_close(&r);
}

static void plus_means_from_then_on(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "call cuMemAlloc_v2 2+: return 2", all_from_the_second_fail), 0);
}

static void import_fails_once(void)
{
    struct cu_mem_prop prop = {
        CU_MEM_PINNED, CU_HANDLE_FD, { CU_LOCATION_DEVICE, 0 }, NULL, { 0 }
    };
    struct rig r;
    cu_mem h, g;
    int fd;

    rig_open(&r);
    CHECK(cuda.cuMemCreate(&h, 2 * MIB, &prop, 0) == CU_OK);
    CHECK(cuda.cuMemExportToShareableHandle(&fd, h, CU_HANDLE_FD, 0) == CU_OK);
    CHECK(cuda.cuMemImportFromShareableHandle(&g, (void *)(intptr_t)fd, CU_HANDLE_FD) ==
          CU_OPERATING_SYSTEM);
    CHECK(cuda.cuMemImportFromShareableHandle(&g, (void *)(intptr_t)fd, CU_HANDLE_FD) == CU_OK);
    CHECK(cuda.cuMemRelease(g) == CU_OK && cuda.cuMemRelease(h) == CU_OK);
    close(fd);
    rig_close(&r);
}

static void import_of_a_descriptor_fails(void **state)
{
    (void)state;
    assert_int_equal(
        in_child("", "call cuMemImportFromShareableHandle 1: return 304", import_fails_once), 0);
}

/* ---- Sticky, contained, lost ---- */

static void exit_as_told(void)
{
    struct rig r;

    rig_open(&r);
    CHECK(three_launches(&r) == 1);
    CHECK(cuda.cuMemAlloc_v2(&(cu_ptr){ 0 }, 4) == device_fault(r.device)->result);
    _exit(device_fault_exit(device_fault(r.device)));
}

static void dead_context_says_so_at_every_call(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 2: sticky 700", exit_as_told),
                     WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(in_child("", "kernel * 2: sticky 719", exit_as_told),
                     WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(in_child("", "kernel add 2: return 710", exit_as_told),
                     WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(in_child("", "call cuEventRecord 2: sticky 719", exit_as_told),
                     WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(in_child("", "kernel add 2: sticky 226", exit_as_told),
                     WORKER_EXIT_DEVICE_CONTAINED);
    assert_int_equal(in_child("", "kernel add 2: lost 214", exit_as_told), WORKER_EXIT_DEVICE_LOST);
}

static const char gpu_1[] = "GPU-66616b65-0000-0000-0000-000000000001";

static void ask_nvml(void)
{
    struct nvml_state s;
    struct err e = { 0 };

    CHECK_OK(nvml_read(gpu_1, &s, &e), e);
    CHECK(s.is_persistent && s.recovery_known && s.recovery == NVML_RECOVERY_RESET);
    CHECK(strcmp(nvml_recovery_name(s.recovery), "reset") == 0);
    CHECK(!nvml_read("GPU-of-nobody", &s, &e));
    CHECK(strstr(e.msg, "GPU-of-nobody"));
}

static void lose_gpu_1(void)
{
    struct fake_cuda fake;
    struct device *d;
    struct err e = { 0 };
    cu_ptr x;

    CHECK(fake_cuda_find(&fake));
    CHECK_OK(device_open(&d, 1, NULL, &e), e);
    CHECK(!device_alloc(d, &x, 4, &e));
    CHECK(device_fault(d)->severity == CUDA_LOST);
    device_close(d);
}

static void open_both(void)
{
    struct device *d;
    struct err e = { 0 };

    CHECK(!device_open(&d, 1, NULL, &e));
    CHECK(e.sys == CU_ECC_UNCORRECTABLE);
    CHECK_OK(device_open(&d, 0, NULL, &e), e);
    device_close(d);
}

static void open_gpu_1(void)
{
    struct device *d;
    struct err e = { 0 };

    CHECK_OK(device_open(&d, 1, NULL, &e), e);
    device_close(d);
}

static void lost_gpu_is_lost_for_all_until_it_is_reset(void **state)
{
    (void)state;
    assert_int_equal(in_child(with_state, "gpu 1 call cuMemAlloc_v2 1: lost 214", lose_gpu_1), 0);
    assert_int_equal(in_child(with_state, NULL, open_both), 0);
    assert_int_equal(in_child(with_state, NULL, ask_nvml), 0);
    assert_true(state_folder_reset_gpu(folder, 1));
    assert_int_equal(in_child(with_state, NULL, open_gpu_1), 0);
}

/* ---- Death, hang, delay ---- */

static void run_three(void)
{
    struct rig r;

    rig_open(&r);
    CHECK(three_launches(&r) == 3);
}

static void process_is_killed(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 3: kill", run_three), -SIGKILL);
    assert_int_equal(in_child("", "call cuStreamCreateWithPriority 1: kill", run_three), -SIGKILL);
    assert_int_equal(in_child("", "kernel add 4: kill", run_three), 0);
}

static void rule_fires_once_for_all_processes_of_a_state(void **state)
{
    (void)state;
    assert_int_equal(in_child(with_state, "kernel add 2: kill", run_three), -SIGKILL);
    assert_int_equal(in_child(with_state, "kernel add 2: kill", run_three), 0);
    assert_int_equal(in_child(with_state, "kernel add 2+: kill", run_three), -SIGKILL);
    assert_int_equal(in_child(with_state, "kernel add 2+: kill", run_three), -SIGKILL);
}

static void script_can_be_a_file_that_grows(void **state)
{
    char settings[900], path[400];
    FILE *f;

    (void)state;
    snprintf(path, sizeof path, "%s/script", folder);
    snprintf(settings, sizeof settings, "faults=%s", path);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs("kernel add 9: kill\n", f);
    fclose(f);
    assert_int_equal(in_child(settings, NULL, run_three), 0);
    f = fopen(path, "a");
    assert_non_null(f);
    fputs("kernel add 3: kill\n", f);
    fclose(f);
    assert_int_equal(in_child(settings, NULL, run_three), -SIGKILL);
}

static char script[400];

static void write_script(const char *text)
{
    struct err e = { 0 };

    CHECK_OK(file_replace(script, text, &e), e);
}

/* Two of the three launches that the rule wants, then it is taken away; and the same line once more. */
static void script_is_changed(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 4, &e), e);
    for (int i = 0; i < 6; i++) {
        if (i == 2)
            write_script("");
        if (i == 4)
            write_script("kernel add 3: return 700\n");
        CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
        CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    }
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    _exit(device_fault_exit(device_fault(r.device)));
}

static void rule_that_has_left_the_file_is_forgotten(void **state)
{
    char settings[900];

    (void)state;
    snprintf(script, sizeof script, "%s/changing", folder);
    snprintf(settings, sizeof settings, "faults=%s", script);
    write_script("kernel add 3: return 700\n");
    assert_int_equal(in_child(settings, NULL, script_is_changed), WORKER_EXIT_DEVICE_STICKY);
}

static void add_while_running(void)
{
    static const char rule[] = "call cuMemAlloc_v2 1: return 2 # first";
    struct err e = { 0 };
    struct rig r;
    cu_ptr p, q;

    rig_open(&r);
    CHECK(r.fake.add_faults(rule));
    CHECK(!device_alloc(r.device, &p, 256, &e));
    CHECK(r.fake.add_faults(rule)); /* is there already */
    CHECK_OK(device_alloc(r.device, &p, 256, &e), e);
    CHECK(r.fake.add_faults("call cuMemAlloc_v2 1: return 2 # second"));
    CHECK(!device_alloc(r.device, &q, 256, &e));
    CHECK(!r.fake.add_faults("call cuMemAlloc_v2 1: return"));
    device_free(r.device, p);
    rig_close(&r);
}

static void comment_makes_another_rule_of_the_same_words(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, add_while_running), 0);
}

static void rule_that_cannot_be_read_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 0: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("", "call cuInit 1: explode", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 1: flip z0 1", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 1 if a8 is 7: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("", "call cuInit 1 if a8 has 7: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 1: spoil r0 1", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 1 at 0: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("", "kernel add 1 at 2: late a0 4 1", run_three), -SIGABRT);
    assert_int_equal(in_child("", "call cuInit 1 at 1: kill", run_three), -SIGABRT);
    assert_int_equal(in_child("mode=sometimes", NULL, run_three), -SIGABRT);
}

static void slow_launch(void)
{
    uint64_t start = clock_mono_ns();
    struct rig r;

    rig_open(&r);
    CHECK(three_launches(&r) == 3);
    CHECK(clock_mono_ns() - start >= 30 * NS_PER_MS);
}

static void work_can_be_slow(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 2: slow 30", slow_launch), 0);
}

/* Which of two streams runs first, and when, is up to the machine: the one that hangs is known by its number. */
static void hung_stream(void)
{
    const int32_t words[] = { 7, 8 };
    struct device_stream other;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_stream_open(&other, r.device, 0, &e), e);
    CHECK_OK(device_alloc(r.device, &x, sizeof words, &e), e);
    CHECK(device_copy_in(&r.stream, x, words, sizeof words));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(rig_add(&r, &r.stream, x, x, 1, 1));
    CHECK(!device_stream_finish(&r.stream, 20 * NS_PER_MS, &e));
    CHECK(e.code == ERR_TIMEOUT);
    CHECK(rig_add(&r, &other, x + 4, x + 4, 1, 1)); /* other streams go on */
    CHECK_OK(device_stream_finish(&other, LIMIT_NS, &e), e);
    _exit(WORKER_EXIT_DEVICE_HANGS);
}

static void stream_can_hang(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 1 if a8 has 7: hang", hung_stream),
                     WORKER_EXIT_DEVICE_HANGS);
}

/* ---- Bytes ---- */

/* A pool of one chunk; range 0 of this process. */
static cu_ptr make_pool(void)
{
    const struct cu_mem_prop prop = {
        CU_MEM_PINNED, CU_HANDLE_FD, { CU_LOCATION_DEVICE, 0 }, NULL, { 0 }
    };
    const struct cu_mem_access access = { { CU_LOCATION_DEVICE, 0 }, CU_ACCESS_READWRITE };
    cu_mem h;
    cu_ptr p;

    CHECK(cuda.cuMemCreate(&h, 2 * MIB, &prop, 0) == CU_OK);
    CHECK(cuda.cuMemAddressReserve(&p, 2 * MIB, 0, 0, 0) == CU_OK);
    CHECK(cuda.cuMemMap(p, 2 * MIB, 0, h, 0) == CU_OK);
    CHECK(cuda.cuMemSetAccess(p, 2 * MIB, &access, 1) == CU_OK);
    CHECK(cuda.cuMemRelease(h) == CU_OK);
    return p;
}

static void flipped(void)
{
    struct err e = { 0 };
    uint8_t bytes[8];
    struct rig r;
    cu_ptr p;

    rig_open(&r);
    p = make_pool();
    CHECK(device_fill(&r.stream, p, 0, 4096));
    CHECK(rig_add(&r, &r.stream, p + 1024, p + 1024, 0, 1)); /* range 0 */
    CHECK(rig_add(&r, &r.stream, p + 2048, p + 1024, 0, 1)); /* the first argument */
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(device_copy_out(&r.stream, bytes, p + 16, 8));
    CHECK(bytes[0] == 1 << 3 && bytes[1] == 0);
    CHECK(device_copy_out(&r.stream, bytes, p + 2048, 8));
    CHECK(bytes[4] == 0 && bytes[5] == 1 << 7);
    CHECK(cuda.cuMemUnmap(p, 2 * MIB) == CU_OK && cuda.cuMemAddressFree(p, 2 * MIB) == CU_OK);
    rig_close(&r);
}

static void bits_are_flipped_where_the_rule_says(void **state)
{
    (void)state;
    assert_int_equal(
        in_child("", "kernel add 1: flip r0+0x10 3; kernel add 2: flip a0+5 7", flipped), 0);
}

/* The page that the ghost writes to, shared with the parent. */
static int pool_fd;

/* What the parent sees of the pool, zeroes first. */
static volatile uint8_t *share_pool(void)
{
    void *page;

    pool_fd = memfd_create("gpu-0-", MFD_CLOEXEC);
    assert_true(pool_fd >= 0);
    assert_int_equal(ftruncate(pool_fd, 2 * MIB), 0);
    page = mmap(NULL, 2 * MIB, PROT_READ, MAP_SHARED, pool_fd, 0);
    assert_true(page != MAP_FAILED);
    return page;
}

static void unshare_pool(volatile uint8_t *page)
{
    munmap((void *)(uintptr_t)page, 2 * MIB);
    close(pool_fd);
}

static cu_ptr map_shared_pool(void)
{
    const struct cu_mem_access access = { { CU_LOCATION_DEVICE, 0 }, CU_ACCESS_READWRITE };
    cu_mem h;
    cu_ptr p;

    CHECK(cuda.cuMemImportFromShareableHandle(&h, (void *)(intptr_t)pool_fd, CU_HANDLE_FD) ==
          CU_OK);
    CHECK(cuda.cuMemAddressReserve(&p, 2 * MIB, 0, 0, 0) == CU_OK);
    CHECK(cuda.cuMemMap(p, 2 * MIB, 0, h, 0) == CU_OK);
    CHECK(cuda.cuMemSetAccess(p, 2 * MIB, &access, 1) == CU_OK);
    return p;
}

static void die_with_a_ghost(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr p;

    rig_open(&r);
    p = map_shared_pool();
    CHECK(rig_add(&r, &r.stream, p, p, 0, 1));
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(((volatile uint8_t *)(uintptr_t)p)[100] == 0); /* not while we live */
    raise(SIGKILL);
}

static void wait_for_byte(const volatile uint8_t *at, uint8_t value)
{
    for (int i = 0; i < 60000 && *at != value; i++)
        usleep(1000);
    assert_int_equal(*at, value);
}

static void ghost_writes_after_the_death(void **state)
{
    volatile uint8_t *page = share_pool();

    (void)state;
    assert_int_equal(in_child("", "kernel add 1: ghost r0+100 4 20", die_with_a_ghost), -SIGKILL);
    wait_for_byte(&page[103], 0xdb);
    assert_int_equal(page[99], 0);
    assert_int_equal(page[100], 0xdb);
    assert_int_equal(page[104], 0);
    unshare_pool(page);
}

static void launch_to_the_end(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr p;

    rig_open(&r);
    p = map_shared_pool();
    CHECK(rig_add(&r, &r.stream, p + 200, p + 64, 1, 1));
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    _exit(device_fault_exit(device_fault(r.device)));
}

static void launch_goes_on_behind_the_death_with_garbage(void **state)
{
    volatile uint8_t *page = share_pool();

    (void)state;
    assert_int_equal(in_child("", "kernel add 1: late a8 4 20", launch_to_the_end), -SIGKILL);
    wait_for_byte(&page[203], 0xdb); /* of the result: so large that 1 more is nothing */
    assert_int_equal(page[64], 0xdb);
    assert_int_equal(page[204], 0);
    unshare_pool(page);
}

static void spoilt_bit_goes_with_a_dead_context(void **state)
{
    volatile uint8_t *page = share_pool();

    (void)state;
    assert_int_equal(in_child("", "kernel add 1: spoil r0+4096 2 700", launch_to_the_end),
                     WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(page[4096], 1 << 2);
    assert_int_equal(page[200], 0); /* it has not run */
    unshare_pool(page);
}

static void add_of_words(void)
{
    const int32_t words[] = { 7, 8 };
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 8, &e), e);
    CHECK(device_copy_in(&r.stream, x, words, sizeof words));
    CHECK(
        rig_add(&r, &r.stream, x, x + 4, 0, 1)); /* 8, of one block: the next word does not count */
    CHECK_OK(device_stream_finish(&r.stream, LIMIT_NS, &e), e);
    CHECK(device_copy_in(&r.stream, x, words, sizeof words));
    CHECK(rig_add(&r, &r.stream, x + 4, x, 0, 1));
    CHECK(!device_stream_finish(&r.stream, LIMIT_NS, &e));
    _exit(device_fault_exit(device_fault(r.device)));
}

static void rule_can_ask_for_a_word(void **state)
{
    (void)state;
    assert_int_equal(in_child("", "kernel add 1 if a8 has 7: return 700", add_of_words),
                     WORKER_EXIT_DEVICE_STICKY);
}

/* ---- In the middle of a kernel ---- */

enum { NO_KERNELS = 77, REDUCED = 4 };

/* What an all-reduce of a group of one has left behind. */
struct trace {
    uint32_t n_calls, has_arrived;
    bool is_staged, is_out;
};

static struct trace reduce_alone(struct rig *r)
{
    static const float numbers[REDUCED] = { 1, 2, 3, 4 };
    const struct device_grid grid = { .grid = { 1 }, .block = ALL_REDUCE_THREADS };
    struct device_kernel *k = device_kernel(r->device, "all_reduce");
    const struct all_reduce_control *control;
    struct all_reduce_args a = { .n = REDUCED };
    struct err e = { 0 };
    const float *staged;
    cu_ptr area, x;

    if (!device_kernel_load(k, &e))
        _exit(NO_KERNELS);
    CHECK_OK(device_alloc(r->device, &area, ALL_REDUCE_AREA_BYTES, &e), e);
    CHECK_OK(device_alloc(r->device, &x, 4096, &e), e);
    CHECK(device_fill(&r->stream, area, 0, ALL_REDUCE_AREA_BYTES));
    CHECK(device_fill(&r->stream, x, 0, 4096));
    CHECK(device_copy_in(&r->stream, x, numbers, sizeof numbers));
    a.in = device_floats(x);
    a.out = device_floats(x + 256);
    a.group = (struct all_reduce_group){ .areas = { (char *)(uintptr_t)area },
                                         .n_ranks = 1,
                                         .spin_limit_us = 1000000,
                                         .status = (void *)(uintptr_t)(x + 512) };
    CHECK(device_launch(&r->stream, k, &grid, &a, sizeof a));
    device_stream_finish(&r->stream, LIMIT_NS, &e);
    control = (const struct all_reduce_control *)(uintptr_t)area;
    staged = device_floats(area + ALL_REDUCE_STAGING_OFFSET +
                           (uint64_t)ALL_REDUCE_BLOCKS_MAX * ALL_REDUCE_BLOCK_BYTES); /* call 1 */
    return (struct trace){ control->calls[0], control->arrived[0][0],
                           memcmp(staged, numbers, sizeof numbers) == 0,
                           memcmp(a.out, numbers, sizeof numbers) == 0 };
}

static void end_as_traced(const struct rig *r, const struct trace *t, bool staged, bool arrived)
{
    CHECK(t->n_calls == 1 && t->has_arrived == arrived && t->is_staged == staged && !t->is_out);
    _exit(device_fault_exit(device_fault(r->device)));
}

static void dies_before_its_input_is_there(void)
{
    struct rig r;
    struct trace t;

    rig_open(&r);
    t = reduce_alone(&r);
    end_as_traced(&r, &t, false, false);
}

static void dies_before_it_has_told_the_others(void)
{
    struct rig r;
    struct trace t;

    rig_open(&r);
    t = reduce_alone(&r);
    end_as_traced(&r, &t, true, false);
}

static void dies_before_it_has_read(void)
{
    struct rig r;
    struct trace t;

    rig_open(&r);
    t = reduce_alone(&r);
    end_as_traced(&r, &t, true, true);
}

static void is_late_and_right(void)
{
    uint64_t start = clock_mono_ns();
    struct rig r;
    struct trace t;

    rig_open(&r);
    t = reduce_alone(&r);
    CHECK(t.is_out && !device_fault(r.device));
    CHECK(clock_mono_ns() - start >= 30 * NS_PER_MS);
    _exit(0);
}

static void launch_is_struck_where_its_threads_meet(void **state)
{
    int code = in_child("", "kernel all_reduce 1 at 1: sticky 719", dies_before_its_input_is_there);

    (void)state;
    if (code == NO_KERNELS)
        skip();
    assert_int_equal(code, WORKER_EXIT_DEVICE_STICKY);
    assert_int_equal(
        in_child("", "kernel all_reduce 1 at 2: sticky 719", dies_before_it_has_told_the_others),
        WORKER_EXIT_DEVICE_STICKY);
    for (int at = 3; at <= 4;
         at++) { /* the warp that has told them, the block that has heard them */
        char rule[64];
        snprintf(rule, sizeof rule, "kernel all_reduce 1 at %d: return 719", at);
        assert_int_equal(in_child("", rule, dies_before_it_has_read), WORKER_EXIT_DEVICE_STICKY);
    }
    assert_int_equal(in_child("", "kernel all_reduce 1 at 3: slow 30", is_late_and_right), 0);
    assert_int_equal(in_child("", "kernel all_reduce 1 at 3: kill", is_late_and_right), -SIGKILL);
}

/* ---- NVML ---- */

static void look_at_ourselves(void)
{
    struct nvml_state s;
    struct err e = { 0 };
    struct rig r;
    cu_ptr x;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 1 * MIB, &e), e);
    CHECK_OK(nvml_read(device_info(r.device)->uuid, &s, &e), e);
    CHECK(s.total_bytes == 16 * MIB && s.used_bytes == 1 * MIB && s.recovery == NVML_RECOVERY_NONE);
    CHECK(s.processes_known && s.n_processes == 1 && nvml_has_process(&s, getpid()));
    CHECK(!nvml_has_process(&s, 1));
    device_free(r.device, x);
    rig_close(&r);
    CHECK_OK(nvml_read(gpu_1, &s, &e), e);
    CHECK(s.n_processes == 0 && s.used_bytes == 0);
}

static void nvml_tells_memory_and_processes(void **state)
{
    (void)state;
    assert_int_equal(in_child(with_state, NULL, look_at_ourselves), 0);
}

static void without_persistence(void)
{
    struct nvml_state s;
    struct err e = { 0 };

    CHECK_OK(nvml_read("GPU-66616b65-0000-0000-0000-000000000000", &s, &e), e);
    CHECK(!s.is_persistent);
}

static void nvml_tells_persistence(void **state)
{
    (void)state;
    assert_int_equal(in_child("persistence=off", NULL, without_persistence), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(call_returns_a_code_once_at_its_count),
        cmocka_unit_test(plus_means_from_then_on),
        cmocka_unit_test(import_of_a_descriptor_fails),
        cmocka_unit_test(dead_context_says_so_at_every_call),
        cmocka_unit_test(lost_gpu_is_lost_for_all_until_it_is_reset),
        cmocka_unit_test(process_is_killed),
        cmocka_unit_test(rule_fires_once_for_all_processes_of_a_state),
        cmocka_unit_test(script_can_be_a_file_that_grows),
        cmocka_unit_test(rule_that_has_left_the_file_is_forgotten),
        cmocka_unit_test(comment_makes_another_rule_of_the_same_words),
        cmocka_unit_test(rule_that_cannot_be_read_ends_the_process),
        cmocka_unit_test(work_can_be_slow),
        cmocka_unit_test(stream_can_hang),
        cmocka_unit_test(bits_are_flipped_where_the_rule_says),
        cmocka_unit_test(ghost_writes_after_the_death),
        cmocka_unit_test(launch_goes_on_behind_the_death_with_garbage),
        cmocka_unit_test(spoilt_bit_goes_with_a_dead_context),
        cmocka_unit_test(rule_can_ask_for_a_word),
        cmocka_unit_test(launch_is_struck_where_its_threads_meet),
        cmocka_unit_test(nvml_tells_memory_and_processes),
        cmocka_unit_test(nvml_tells_persistence),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
