/* test_segment.c - memory that outlives its maker.
 *
 * What would break in production: a process that maps the segment of another version, kind or size and
 * believes it, a mapping that meets SIGBUS because someone cut the file, or a descriptor that leaks. */
#include "proto/segment.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>

#include "common/open_fds.h"
#include "tests/check.h"

static struct segment make(size_t bytes)
{
    struct segment s;
    struct err e;

    assert_ok(segment_create(&s, SEGMENT_LEDGER, 3, "test-segment", bytes, 0xabcdef, &e), e);
    return s;
}

static void segment_is_shared_zeroed_and_rounded_up(void **state)
{
    struct segment a = make(5000), b;
    struct err e;

    (void)state;
    assert_int_equal(a.bytes, 8192);
    assert_int_equal(a.hdr->bytes, 8192);
    assert_int_equal(a.hdr->kind, SEGMENT_LEDGER);
    assert_int_equal(a.hdr->version, 3);
    assert_int_equal(a.hdr->instance, 0xabcdef);
    for (size_t i = sizeof(struct segment_hdr); i < a.bytes; i++)
        assert_int_equal(*(char *)segment_at(&a, i), 0);
    assert_ok(segment_attach(&b, dup(a.fd), SEGMENT_LEDGER, 3, true, &e), e);
    assert_ptr_not_equal(a.hdr, b.hdr);
    strcpy(segment_at(&a, 8000), "seen");
    assert_string_equal(segment_at(&b, 8000), "seen");
    segment_close(&a); /* the memory lives on in b */
    assert_string_equal(segment_at(&b, 8000), "seen");
    segment_close(&b);
    segment_close(&b);
}

static void segment_attach_names_what_it_wants_and_what_it_found(void **state)
{
    struct segment a = make(4096), b = { 0 };
    struct err e;
    int before = open_fds_count(getpid());

    (void)state;
    assert_fails(segment_attach(&b, dup(a.fd), SEGMENT_BOARD, 3, true, &e), e, ERR_PROTO,
                 "attach segment 'board': segment kind is 2, expected 1");
    assert_fails(segment_attach(&b, dup(a.fd), SEGMENT_LEDGER, 4, true, &e), e, ERR_PROTO,
                 "'ledger': layout version 3, this build wants 4");
    a.hdr->bytes = 8192;
    assert_fails(segment_attach(&b, dup(a.fd), SEGMENT_LEDGER, 3, true, &e), e, ERR_PROTO,
                 "header says 8192 bytes, the descriptor has 4096");
    a.hdr->magic++;
    assert_fails(segment_attach(&b, dup(a.fd), SEGMENT_LEDGER, 3, true, &e), e, ERR_PROTO, "magic");
    assert_null(b.hdr);
    assert_int_equal(open_fds_count(getpid()), before); /* taken on failure too */
    segment_close(&a);
}

static int sealed_memfd(size_t bytes, unsigned seals)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, seals), 0);
    return fd;
}

static void segment_attach_refuses_what_is_no_segment(void **state)
{
    struct segment b = { 0 };
    struct err e;
    int fds[2], before = open_fds_count(getpid());

    (void)state;
    assert_fails(segment_attach(&b, -1, SEGMENT_LEDGER, 3, true, &e), e, ERR_SYS, "stat");
    assert_fails(segment_attach(&b, sealed_memfd(0, F_SEAL_SHRINK), SEGMENT_LEDGER, 3, true, &e), e,
                 ERR_PROTO, "0 bytes, too few");
    assert_fails(segment_attach(&b, sealed_memfd(63, F_SEAL_SHRINK), SEGMENT_LEDGER, 3, true, &e),
                 e, ERR_PROTO, "63 bytes, too few");
    assert_fails(segment_attach(&b, sealed_memfd(4096, F_SEAL_SHRINK), SEGMENT_LEDGER, 3, true, &e),
                 e, ERR_PROTO, "magic is 0");
    assert_int_equal(pipe(fds), 0);
    close(fds[1]);
    assert_fails(segment_attach(&b, fds[0], SEGMENT_LEDGER, 3, true, &e), e, ERR_PROTO, "too few");
    assert_int_equal(open_fds_count(getpid()), before);
}

static void segment_attach_refuses_memory_that_may_shrink(void **state)
{
    struct segment a = make(4096), b = { 0 };
    int fd = sealed_memfd(4096, 0);
    struct err e;

    (void)state;
    assert_int_equal(pwrite(fd, a.hdr, sizeof *a.hdr, 0), sizeof *a.hdr);
    assert_fails(segment_attach(&b, fd, SEGMENT_LEDGER, 3, true, &e), e, ERR_PROTO, "sealed");
    segment_close(&a);
}

static void segment_cannot_be_cut_or_grown(void **state)
{
    struct segment a = make(8192);

    (void)state;
    assert_int_equal(ftruncate(a.fd, 4096), -1);
    assert_int_equal(ftruncate(a.fd, 16384), -1);
    assert_true(fcntl(a.fd, F_GETFD) & FD_CLOEXEC);
    segment_close(&a);
}

static void segment_attached_read_only_is_read_only(void **state)
{
    struct segment a = make(4096), b;
    struct err e;
    char line[512], access[8] = "";
    unsigned long from = 0;
    FILE *maps;

    (void)state;
    assert_ok(segment_attach(&b, dup(a.fd), SEGMENT_LEDGER, 3, false, &e), e);
    assert_false(b.writable);
    maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps))
        if (sscanf(line, "%lx-%*x %7s", &from, access) == 2 && from == (uintptr_t)b.hdr)
            break;
    fclose(maps);
    assert_int_equal(from, (uintptr_t)b.hdr);
    assert_memory_equal(access, "r--", 3);
    segment_close(&b);
    segment_close(&a);
}

static void segment_create_says_when_it_is_too_large(void **state)
{
    struct segment s = { 0 };
    struct err e;
    int before = open_fds_count(getpid());

    (void)state;
    assert_fails(segment_create(&s, SEGMENT_KVPOOL, 1, "huge", (size_t)1 << 62, 0, &e), e, ERR_SYS,
                 "segment 'huge'");
    assert_null(s.hdr);
    assert_int_equal(open_fds_count(getpid()), before);
    segment_close(&s);
}

static void reach_outside(void *arg)
{
    struct segment *s = arg;

    segment_at(s, s->bytes);
}

static void segment_at_outside_is_a_bug(void **state)
{
    struct segment a = make(4096);

    (void)state;
    assert_ptr_equal(segment_at(&a, 4095), (char *)a.hdr + 4095);
    assert_aborts(reach_outside, &a);
    segment_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segment_is_shared_zeroed_and_rounded_up),
        cmocka_unit_test(segment_attach_names_what_it_wants_and_what_it_found),
        cmocka_unit_test(segment_attach_refuses_what_is_no_segment),
        cmocka_unit_test(segment_attach_refuses_memory_that_may_shrink),
        cmocka_unit_test(segment_cannot_be_cut_or_grown),
        cmocka_unit_test(segment_attached_read_only_is_read_only),
        cmocka_unit_test(segment_create_says_when_it_is_too_large),
        cmocka_unit_test(segment_at_outside_is_a_bug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
