/* test_cuda_fake_memory.c - the life of device memory on the fake driver, which is the driver's as its sources tell it: the
 * bytes belong to descriptors and mappings, not to the process that created them.
 *
 * If this were wrong here, every test of crash recovery above it would prove nothing. */
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "tests/cuda/child.h"

#define MIB (1ull << 20)

static const struct cu_mem_prop prop = { .type = CU_MEM_PINNED,
                                         .handle_types = CU_HANDLE_FD,
                                         .location = { CU_LOCATION_DEVICE, 0 } };
static const struct cu_mem_access read_write = { { CU_LOCATION_DEVICE, 0 }, CU_ACCESS_READWRITE };
static const struct cu_mem_access read_only = { { CU_LOCATION_DEVICE, 0 }, CU_ACCESS_READ };

/* What the parent and its children share. */
static char folder[STATE_FOLDER_BYTES], with_state[400];
static int sockets[2];

static int make_folder(void **state)
{
    (void)state;
    assert_true(state_folder_make(folder));
    snprintf(with_state, sizeof with_state, "memory=16m,state=%s", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    assert_true(state_folder_remove(folder));
    return 0;
}

static void send_fd(int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = { 0 };
    struct iovec io = { "f", 1 };
    struct msghdr m = { .msg_iov = &io,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof control.bytes };

    control.header = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof fd),
                                       .cmsg_level = SOL_SOCKET,
                                       .cmsg_type = SCM_RIGHTS };
    memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
    if (sendmsg(sockets[1], &m, 0) != 1)
        abort();
}

static int receive_fd(void)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec io = { &byte, 1 };
    struct msghdr m = { .msg_iov = &io,
                        .msg_iovlen = 1,
                        .msg_control = &control,
                        .msg_controllen = sizeof control.bytes };
    int fd;

    if (recvmsg(sockets[0], &m, MSG_CMSG_CLOEXEC) != 1)
        abort();
    memcpy(&fd, CMSG_DATA(&control.header), sizeof fd);
    return fd;
}

/* ---- In children ---- */

static cu_mem create(size_t bytes)
{
    cu_mem h;

    CHECK(cuda.cuMemCreate(&h, bytes, &prop, 0) == CU_OK);
    return h;
}

static int export_fd(cu_mem h)
{
    int fd = -1;

    CHECK(cuda.cuMemExportToShareableHandle(&fd, h, CU_HANDLE_FD, 0) == CU_OK);
    CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    return fd;
}

static cu_ptr map(cu_mem h, size_t bytes, const struct cu_mem_access *access)
{
    cu_ptr p;

    CHECK(cuda.cuMemAddressReserve(&p, bytes, 0, 0, 0) == CU_OK);
    CHECK(cuda.cuMemMap(p, bytes, 0, h, 0) == CU_OK);
    CHECK(cuda.cuMemSetAccess(p, bytes, access, 1) == CU_OK);
    return p;
}

static void unmap(cu_ptr p, size_t bytes)
{
    CHECK(cuda.cuMemUnmap(p, bytes) == CU_OK);
    CHECK(cuda.cuMemAddressFree(p, bytes) == CU_OK);
}

static uint64_t used_bytes(struct rig *r)
{
    size_t free_bytes, total_bytes;
    struct err e = { 0 };

    CHECK_OK(device_memory(r->device, &free_bytes, &total_bytes, &e), e);
    return total_bytes - free_bytes;
}

static void fill_and_read(struct rig *r, cu_ptr p, float *out)
{
    struct err e = { 0 };

    CHECK(device_fill(&r->stream, p, 0, 64));
    CHECK(rig_add(r, &r->stream, p, p, 2.5f, 16));
    CHECK(device_copy_out(&r->stream, out, p, 16 * sizeof *out));
    CHECK_OK(device_stream_finish(&r->stream, 60 * NS_PER_S, &e), e);
}

static void whole_life(void)
{
    struct rig r;
    cu_mem h, imported;
    cu_ptr p, q;
    float out[16];
    int fd;

    rig_open(&r);
    h = create(4 * MIB);
    fd = export_fd(h);
    p = map(h, 4 * MIB, &read_write);
    CHECK(cuda.cuMemRelease(h) == CU_OK);
    CHECK(cuda.cuMemRelease(h) == CU_INVALID_VALUE);
    fill_and_read(&r, p, out);
    CHECK(out[15] == 2.5f);
    unmap(p, 4 * MIB);
    CHECK(used_bytes(&r) == 4 * MIB); /* the descriptor still owns it */
    CHECK(cuda.cuMemImportFromShareableHandle(&imported, (void *)(intptr_t)fd, CU_HANDLE_FD) ==
          CU_OK);
    close(fd);
    q = map(imported, 4 * MIB, &read_only);
    CHECK(cuda.cuMemRelease(imported) == CU_OK);
    CHECK(device_copy_out(&r.stream, out, q, sizeof out));
    CHECK(out[0] == 2.5f);
    CHECK(used_bytes(&r) == 4 * MIB);
    unmap(q, 4 * MIB);
    CHECK(used_bytes(&r) == 0);
    rig_close(&r);
}

static void memory_lives_as_long_as_a_descriptor_or_a_mapping(void **state)
{
    (void)state;
    assert_int_equal(in_child("memory=16m", NULL, whole_life), 0);
    assert_int_equal(in_child(with_state, NULL, whole_life), 0);
}

static void refusals(void)
{
    struct cu_mem_prop elsewhere = prop;
    struct rig r;
    cu_mem h;
    cu_ptr p;
    int fd;

    rig_open(&r);
    elsewhere.location.id = 1;
    CHECK(cuda.cuMemCreate(&h, MIB, &prop, 0) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemCreate(&h, 2 * MIB, &elsewhere, 0) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemCreate(&h, 32 * MIB, &prop, 0) == CU_OUT_OF_MEMORY);
    h = create(2 * MIB);
    CHECK(cuda.cuMemAddressReserve(&p, 4 * MIB, 0, 0, 0) == CU_OK);
    CHECK(cuda.cuMemMap(p, 4 * MIB, 0, h, 0) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemMap(p + 4096, 2 * MIB, 0, h, 0) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemMap(p, 2 * MIB, 0, h, 0) == CU_OK);
    CHECK(cuda.cuMemMap(p, 2 * MIB, 0, h, 0) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemSetAccess(p, 4 * MIB, &read_write, 1) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemAddressFree(p, 4 * MIB) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemUnmap(p, MIB) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemUnmap(p, 2 * MIB) == CU_OK);
    CHECK(cuda.cuMemAddressFree(p, 4 * MIB) == CU_OK);
    CHECK(cuda.cuMemRelease(h) == CU_OK);
    fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    CHECK(cuda.cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fd, CU_HANDLE_FD) != CU_OK);
    close(fd);
    rig_close(&r);
}

static void misuse_is_refused(void **state)
{
    (void)state;
    assert_int_equal(in_child("memory=16m", NULL, refusals), 0);
}

static void two_gpus_one_range(void)
{
    struct rig r;
    cu_mem h[4];
    cu_ptr p;
    float out[16];

    rig_open(&r);
    CHECK(cuda.cuMemAddressReserve(&p, 8 * MIB, 0, 0, 0) == CU_OK);
    for (unsigned i = 0; i < 4; i++) {
        h[i] = create(2 * MIB);
        CHECK(cuda.cuMemMap(p + i * 2 * MIB, 2 * MIB, 0, h[i], 0) == CU_OK);
        CHECK(cuda.cuMemRelease(h[i]) == CU_OK);
    }
    CHECK(cuda.cuMemSetAccess(p, 8 * MIB, &read_write, 1) == CU_OK);
    fill_and_read(&r, p + 2 * MIB - 32, out); /* across chunks */
    CHECK(out[15] == 2.5f);
    CHECK(r.fake.is_device(p, 8 * MIB, true));
    CHECK(!r.fake.is_device(p, 8 * MIB + 1, true));
    CHECK(cuda.cuMemUnmap(p, 8 * MIB) == CU_OK);
    CHECK(cuda.cuMemAddressFree(p, 8 * MIB) == CU_OK);
    rig_close(&r);
}

static void chunks_make_one_range(void **state)
{
    (void)state;
    assert_int_equal(in_child("memory=16m", NULL, two_gpus_one_range), 0);
}

/* ---- Several processes ---- */

static void create_and_die(void)
{
    struct rig r;
    cu_mem h;
    cu_ptr p;
    float out[16];

    rig_open(&r);
    h = create(8 * MIB);
    p = map(h, 8 * MIB, &read_write);
    fill_and_read(&r, p, out);
    send_fd(export_fd(h));
    raise(SIGKILL);
}

static int inherited_fd;

static void attach(void)
{
    struct rig r;
    cu_mem h;
    cu_ptr p;
    float out[16] = { 0 };

    rig_open(&r);
    CHECK(used_bytes(&r) == 8 * MIB);
    CHECK(cuda.cuMemCreate(&h, 10 * MIB, &prop, 0) == CU_OUT_OF_MEMORY);
    CHECK(cuda.cuMemImportFromShareableHandle(&h, (void *)(intptr_t)inherited_fd, CU_HANDLE_FD) ==
          CU_OK);
    close(inherited_fd);
    p = map(h, 8 * MIB, &read_only);
    CHECK(cuda.cuMemRelease(h) == CU_OK);
    CHECK(device_copy_out(&r.stream, out, p, sizeof out));
    CHECK(out[0] == 2.5f && out[15] == 2.5f);
    unmap(p, 8 * MIB);
    rig_close(&r);
}

static void all_is_free(void)
{
    struct rig r;

    rig_open(&r);
    CHECK(used_bytes(&r) == 0);
    rig_close(&r);
}

static void killed_creator_leaves_the_bytes_to_who_holds_the_descriptor(void **state)
{
    pid_t pid;

    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
    pid = start_child(with_state, NULL, create_and_die);
    close(sockets[1]);
    inherited_fd = receive_fd();
    close(sockets[0]);
    assert_int_equal(end_child(pid), -SIGKILL);
    assert_int_equal(in_child(with_state, NULL, attach), 0);
    close(inherited_fd); /* the last one */
    assert_int_equal(in_child(with_state, NULL, all_is_free), 0);
}

/* ---- What kernels must not touch ---- */

static cu_ptr forbidden(struct rig *r, const struct cu_mem_access *access)
{
    cu_mem h = create(2 * MIB);

    (void)r;
    return map(h, 2 * MIB, access);
}

static void expect_700(struct rig *r, cu_ptr to, cu_ptr from)
{
    struct err e = { 0 };

    CHECK(rig_add(r, &r->stream, to, from, 1, 1));
    CHECK(!device_stream_finish(&r->stream, 60 * NS_PER_S, &e));
    CHECK(e.sys == CU_ILLEGAL_ADDRESS);
    CHECK(device_fault(r->device)->severity == CUDA_STICKY);
    CHECK(strstr(r->fake.death(), "add: address"));
    CHECK(cuda.cuCtxSynchronize() == CU_ILLEGAL_ADDRESS);
    rig_close(r);
}

static void write_to_read_only(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr p, x;

    rig_open(&r);
    p = forbidden(&r, &read_only);
    CHECK_OK(device_alloc(r.device, &x, 64, &e), e);
    CHECK(rig_add(&r, &r.stream, x, p, 1, 1)); /* reading is allowed */
    CHECK_OK(device_stream_finish(&r.stream, 60 * NS_PER_S, &e), e);
    expect_700(&r, p, p);
}

static void access_unmapped(void)
{
    struct rig r;
    cu_ptr p;

    rig_open(&r);
    CHECK(cuda.cuMemAddressReserve(&p, 2 * MIB, 0, 0, 0) == CU_OK);
    expect_700(&r, p, p);
}

static void access_behind_the_end(void)
{
    struct err e = { 0 };
    struct rig r;
    cu_ptr p;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &p, 4096, &e), e);
    expect_700(&r, p + 4096, p);
}

static void host_pointer(void)
{
    struct rig r;
    float *x = malloc(4 * sizeof *x);

    rig_open(&r);
    while (((uintptr_t)x & 0xffffffff) < 1u << 24) /* taken for numbers: see the fake's kernel.c */
        x = malloc(64 << 10);
    CHECK(!rig_add(&r, &r.stream, (uint64_t)(uintptr_t)x, (uint64_t)(uintptr_t)x, 1, 1));
    CHECK(device_fault(r.device)->result == CU_ILLEGAL_ADDRESS);
    _exit(0);
}

static void wrong_access_is_a_sticky_700(void **state)
{
    (void)state;
    assert_int_equal(in_child("memory=16m", NULL, write_to_read_only), 0);
    assert_int_equal(in_child("memory=16m", NULL, access_unmapped), 0);
    assert_int_equal(in_child("memory=16m", NULL, access_behind_the_end), 0);
    assert_int_equal(in_child("memory=16m,mode=lazy", NULL, access_behind_the_end), 0);
    assert_int_equal(in_child("memory=16m", NULL, host_pointer), 0);
}

static void copy_of_wrong_memory(void)
{
    struct err e = { 0 };
    struct rig r;
    char host[64];
    cu_ptr p;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &p, 64, &e), e);
    CHECK(cuda.cuMemcpyDtoDAsync_v2(p, (uint64_t)(uintptr_t)host, 64, r.stream.stream) ==
          CU_INVALID_VALUE);
    CHECK(cuda.cuMemcpyHtoDAsync_v2(p, host, 65, r.stream.stream) == CU_INVALID_VALUE);
    CHECK(cuda.cuMemcpyHtoDAsync_v2(p, host, 64, r.stream.stream) == CU_OK);
    device_free(r.device, p);
    rig_close(&r);
}

static void copies_know_their_memory(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, copy_of_wrong_memory), 0);
}

static void pinned_and_not(void)
{
    struct err e = { 0 };
    struct rig r;
    void *pinned;
    float plain = 1, out;
    cu_ptr x, y;

    rig_open(&r);
    CHECK_OK(device_alloc(r.device, &x, 4, &e), e);
    CHECK_OK(device_alloc(r.device, &y, 4, &e), e);
    CHECK_OK(device_host_alloc(r.device, &pinned, 4, &e), e);
    *(float *)pinned = 1;
    CHECK(device_copy_in(&r.stream, x, pinned, 4));
    CHECK(device_copy_in(&r.stream, y, &plain, 4));
    *(float *)pinned = 2; /* too early: the copy has not been made */
    plain = 2;            /* allowed: it was staged */
    CHECK(device_copy_out(&r.stream, &out, x, 4));
    CHECK(out == 2);
    CHECK(device_copy_out(&r.stream, &out, y, 4));
    CHECK(out == 1);
    device_free(r.device, x);
    device_free(r.device, y);
    device_host_free(r.device, pinned);
    rig_close(&r);
}

static void lazy_mode_shows_a_pinned_buffer_used_again_too_early(void **state)
{
    (void)state;
    assert_int_equal(in_child("mode=lazy", NULL, pinned_and_not), 0);
}

/* ---- Leaks ---- */

static void forget_a_handle(void)
{
    struct rig r;

    rig_open(&r);
    create(2 * MIB);
    rig_close(&r);
}

static void forget_a_descriptor(void)
{
    struct rig r;
    cu_mem h;

    rig_open(&r);
    h = create(2 * MIB);
    export_fd(h);
    CHECK(cuda.cuMemRelease(h) == CU_OK);
    rig_close(&r);
}

static void forget_a_stream(void)
{
    struct device_stream s;
    struct err e = { 0 };
    struct rig r;

    rig_open(&r);
    CHECK_OK(device_stream_open(&s, r.device, 0, &e), e);
    rig_close(&r);
}

static void what_is_left_at_exit_ends_the_process(void **state)
{
    (void)state;
    assert_int_equal(in_child("", NULL, forget_a_handle), -SIGABRT);
    assert_int_equal(in_child("", NULL, forget_a_descriptor), -SIGABRT);
    assert_int_equal(in_child("", NULL, forget_a_stream), -SIGABRT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_lives_as_long_as_a_descriptor_or_a_mapping),
        cmocka_unit_test(misuse_is_refused),
        cmocka_unit_test(chunks_make_one_range),
        cmocka_unit_test(killed_creator_leaves_the_bytes_to_who_holds_the_descriptor),
        cmocka_unit_test(wrong_access_is_a_sticky_700),
        cmocka_unit_test(copies_know_their_memory),
        cmocka_unit_test(lazy_mode_shows_a_pinned_buffer_used_again_too_early),
        cmocka_unit_test(what_is_left_at_exit_ends_the_process),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
