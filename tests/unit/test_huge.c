/* test_huge.c - what a kernel gives in huge pages, and how much of a mapping lies in them, from made-up /proc and
 * /sys; and the three ways to them on this kernel.
 *
 * What would break in production: a status that says huge where nothing is, advice that cannot help, a segment
 * half out of the pool that meets SIGBUS at its first access behind it. */
#include "common/huge.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "common/host.h"
#include "gpu-worker/load/huge_pages.h"
#include "tests/check.h"
#include "tests/unit/checkpoint.h"

#define POOL_FILE "/proc/sys/vm/nr_hugepages"

static void write_in(const char *root, const char *folder, const char *name, const char *text)
{
    char path[300], command[400];

    snprintf(path, sizeof path, "%s/%s", root, folder);
    snprintf(command, sizeof command, "mkdir -p '%s'", path);
    assert_int_equal(system(command), 0);
    test_dir_write(path, name, text, strlen(text));
}

static void remove_all(const char *root)
{
    char command[100];

    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

/* ---- made up ---- */

static void the_pool_and_the_setting_are_read(void **state)
{
    static const char pool[] = "sys/kernel/mm/hugepages/hugepages-2048kB";
    static const char setting[] = "sys/kernel/mm/transparent_hugepage";
    struct huge_host h;
    char root[64];

    (void)state;
    test_dir_make(root);
    huge_host_read(&h, root);
    assert_int_equal(h.pool, 0);
    assert_string_equal(h.shmem_enabled, "");
    assert_false(huge_host_takes_advice(&h));
    write_in(root, pool, "nr_hugepages", "100\n");
    write_in(root, pool, "free_hugepages", "40\n");
    write_in(root, pool, "resv_hugepages", "15\n");
    write_in(root, setting, "shmem_enabled", "always within_size [advise] never deny force\n");
    huge_host_read(&h, root);
    assert_int_equal(h.pool, 100);
    assert_int_equal(h.pool_free, 25); /* what is promised is not free */
    assert_string_equal(h.shmem_enabled, "advise");
    assert_true(huge_host_takes_advice(&h));
    write_in(root, pool, "resv_hugepages", "41\n");
    write_in(root, setting, "shmem_enabled", "always within_size advise [never] deny force\n");
    huge_host_read(&h, root);
    assert_int_equal(h.pool_free, 0);
    assert_false(huge_host_takes_advice(&h));
    write_in(root, setting, "shmem_enabled", "nonsense\n");
    huge_host_read(&h, root);
    assert_string_equal(h.shmem_enabled, "");
    remove_all(root);
}

static const char smaps[] =
    "555555554000-555555556000 r-xp 00000000 fe:00 17   /bin/llm-worker\n"
    "Size:                  8 kB\nRss:                   8 kB\nFilePmdMapped:  4096 kB\n"
    "7f0000000000-7f0000001000 rw-s 00000000 00:01 5   /memfd:llmd-weights-0 (deleted)\n"
    "Size:                  4 kB\nRss:                   4 kB\nShmemPmdMapped:        0 kB\n"
    "7f1000000000-7f1008000000 r--s 00000000 00:01 5   /memfd:llmd-weights-0 (deleted)\n"
    "Size:             131072 kB\nRss:              100000 kB\nShmemPmdMapped:    81920 kB\n"
    "FilePmdMapped:         0 kB\nShared_Hugetlb:        0 kB\nVmFlags: rd sh mr\n"
    "7f2000000000-7f2008000000 r--s 00000000 00:01 6   /memfd:llmd-weights-01 (deleted)\n"
    "Rss:              131072 kB\nShmemPmdMapped:   131072 kB\n"
    "7f3000000000-7f3004000000 rw-s 00000000 00:0e 7   /memfd:llmd-kvpool (deleted)\n"
    "Rss:                   0 kB\nShared_Hugetlb:    61440 kB\nPrivate_Hugetlb:    2048 kB\n";

static void the_largest_mapping_of_a_file_is_counted(void **state)
{
    struct huge_use use;
    char root[64];

    (void)state;
    test_dir_make(root);
    assert_false(huge_use_read(&use, root, 0, "llmd-kvpool"));
    write_in(root, "proc/self", "smaps", smaps);
    write_in(root, "proc/77", "smaps", "broken\nRss: 5 kB\n1-0 r--s\n");
    assert_true(huge_use_read(&use, root, 0, "llmd-weights-0"));
    assert_int_equal(use.bytes, 128 << 20);
    assert_int_equal(use.resident, 100000 << 10);
    assert_int_equal(use.huge, 80 << 20);
    assert_true(huge_use_read(&use, root, 0, "llmd-kvpool")); /* the pool's are not in Rss */
    assert_int_equal(use.bytes, 64 << 20);
    assert_int_equal(use.resident, 62 << 20);
    assert_int_equal(use.huge, 62 << 20);
    assert_false(huge_use_read(&use, root, 0, "llmd-weights"));
    assert_false(huge_use_read(&use, root, 77, "llmd-weights-0"));
    assert_false(huge_use_read(&use, root, 78, "llmd-weights-0"));
    remove_all(root);
}

static void a_limit_on_huge_pages_is_found(void **state)
{
    char root[64];

    (void)state;
    test_dir_make(root);
    assert_false(host_huge_is_limited(root));
    write_in(root, "proc/self", "cgroup", "5:hugetlb:/a/b\n0::/c/d\n");
    write_in(root, "proc/self", "mounts", "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n");
    write_in(root, "sys/fs/cgroup/c/d", "hugetlb.2MB.max", "max\n");
    write_in(root, "sys/fs/cgroup/hugetlb/a/b", "hugetlb.2MB.limit_in_bytes",
             "9223372036852678656\n");
    assert_false(host_huge_is_limited(root));
    write_in(root, "sys/fs/cgroup/hugetlb/a", "hugetlb.2MB.limit_in_bytes", "4194304\n");
    assert_true(host_huge_is_limited(root));
    write_in(root, "sys/fs/cgroup/hugetlb/a", "hugetlb.2MB.limit_in_bytes",
             "9223372036852678656\n");
    write_in(root, "sys/fs/cgroup/c", "hugetlb.2MB.max", "0\n");
    assert_true(host_huge_is_limited(root));
    write_in(root, "sys/fs/cgroup/c", "hugetlb.2MB.max", "max\n");
    write_in(root, "proc/self", "mounts",
             "cgroup2 /sys/fs/cgroup cgroup2 rw,memory_hugetlb_accounting 0 0\n");
    assert_true(host_huge_is_limited(root));
    remove_all(root);
}

/* ---- this kernel ---- */

enum { SEGMENT_BYTES = 66 << 20, SEGMENT_HUGE = 33 };

static struct segment make(size_t bytes)
{
    struct segment s;
    struct err e;

    assert_ok(segment_create_large(&s, SEGMENT_WEIGHTS, 3, "test-huge", bytes, 7, true, &e), e);
    return s;
}

static void expect_whole(struct segment *s)
{
    struct segment again;
    struct err e;

    assert_int_equal(s->hdr->bytes, s->bytes);
    assert_int_equal(ftruncate(s->fd, 0), -1);
    assert_int_equal(ftruncate(s->fd, (off_t)(s->bytes + HUGE_BYTES)), -1);
    assert_ok(segment_attach(&again, dup(s->fd), SEGMENT_WEIGHTS, 3, true, &e), e);
    for (size_t at = 4096; at < s->bytes; at += 4096) { /* no access meets SIGBUS */
        assert_int_equal(*(char *)segment_at(s, at), 0);
        *(char *)segment_at(&again, at) = 1;
        assert_int_equal(*(char *)segment_at(s, at), 1);
    }
    segment_close(&again);
}

static uint64_t pool_now(void)
{
    struct huge_host h;

    huge_host_read(&h, "");
    return h.pool;
}

static void set_pool(uint64_t n)
{
    FILE *f = fopen(POOL_FILE, "we");

    assert_non_null(f);
    fprintf(f, "%llu\n", (unsigned long long)n);
    fclose(f);
}

/* True when the pool has n pages more than before; only root may ask for it, and memory may be in pieces. */
static bool grow_pool(uint64_t n)
{
    uint64_t before = pool_now();

    if (access(POOL_FILE, W_OK) != 0)
        return false;
    set_pool(before + n);
    if (pool_now() == before + n)
        return true;
    set_pool(before);
    return false;
}

static void reserved_pages_are_promised_in_full_or_not_taken(void **state)
{
    struct segment first, second;
    struct threads *threads;
    struct huge_host before, after;
    struct huge_use use;
    struct err e;

    (void)state;
    huge_host_read(&before, "");
    if (before.pool_free > 0 || !grow_pool(SEGMENT_HUGE + 5))
        skip(); /* somebody uses the pool, or it is not ours to change */
    huge_host_read(&before, "");
    first = make(SEGMENT_BYTES);
    assert_string_equal(segment_pages_name(first.hdr), "reserved");
    assert_int_equal(first.bytes, SEGMENT_BYTES);
    huge_host_read(&after, "");
    assert_int_equal(before.pool_free - after.pool_free, SEGMENT_HUGE);
    second = make(SEGMENT_BYTES); /* five pages are left: none of them is taken */
    assert_string_equal(segment_pages_name(second.hdr), "small");
    huge_host_read(&after, "");
    assert_int_equal(after.pool_free, before.pool_free - SEGMENT_HUGE);
    threads = threads_new(2, &e);
    assert_non_null(threads);
    assert_ok(huge_pages_take(&first, threads, &e), e);
    assert_string_equal(segment_pages_name(first.hdr), "reserved");
    assert_true(huge_use_read(&use, "", 0, "test-huge"));
    assert_int_equal(use.huge, SEGMENT_BYTES);
    threads_free(threads);
    expect_whole(&first);
    expect_whole(&second);
    segment_close(&first);
    segment_close(&second);
    huge_host_read(&after, "");
    assert_int_equal(after.pool_free, before.pool_free);
    set_pool(before.pool - SEGMENT_HUGE - 5);
}

/* Whichever way this kernel goes: what the header says is what smaps says. */
static void what_is_said_to_be_huge_is_huge(void **state)
{
    struct segment made = make(SEGMENT_BYTES), s;
    struct threads *threads;
    struct huge_use use;
    struct err e;
    char *mark;

    (void)state;
    assert_ok(segment_attach(&s, dup(made.fd), SEGMENT_WEIGHTS, 3, true, &e), e);
    segment_close(&made);
    mark = segment_at(&s, 5000);
    strcpy(mark, "what is there already keeps its bytes");
    threads = threads_new(2, &e);
    assert_non_null(threads);
    assert_ok(huge_pages_take(&s, threads, &e), e);
    threads_free(threads);
    assert_string_equal(mark, "what is there already keeps its bytes");
    assert_true(huge_use_read(&use, "", 0, "test-huge"));
    print_message("%s: %llu of %llu bytes huge\n", segment_pages_name(s.hdr),
                  (unsigned long long)use.huge, (unsigned long long)use.bytes);
    if (strcmp(segment_pages_name(s.hdr), "small") == 0)
        assert_int_equal(use.huge, 0);
    else
        assert_true(use.huge > 0);
    segment_close(&s);
}

/* As the setting huge_pages = off asks for. */
static void nothing_is_huge_that_is_to_stay_small(void **state)
{
    struct segment s;
    struct threads *threads;
    struct huge_use use;
    struct err e;

    (void)state;
    assert_ok(
        segment_create_large(&s, SEGMENT_WEIGHTS, 3, "test-small", SEGMENT_BYTES, 7, false, &e), e);
    threads = threads_new(2, &e);
    assert_ok(huge_pages_take(&s, threads, &e), e);
    huge_pages_advise(&s);
    threads_free(threads);
    assert_string_equal(segment_pages_name(s.hdr), "off");
    expect_whole(&s);
    assert_true(huge_use_read(&use, "", 0, "test-small"));
    assert_int_equal(use.huge, 0);
    segment_close(&s);
}

static void small_segments_are_left_alone(void **state)
{
    struct segment s = make(8 << 20);
    struct threads *threads;
    struct err e;

    (void)state;
    threads = threads_new(1, &e);
    assert_ok(huge_pages_take(&s, threads, &e), e);
    huge_pages_advise(&s);
    threads_free(threads);
    assert_string_equal(segment_pages_name(s.hdr), "small");
    expect_whole(&s);
    segment_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pool_and_the_setting_are_read),
        cmocka_unit_test(the_largest_mapping_of_a_file_is_counted),
        cmocka_unit_test(a_limit_on_huge_pages_is_found),
        cmocka_unit_test(reserved_pages_are_promised_in_full_or_not_taken),
        cmocka_unit_test(what_is_said_to_be_huge_is_huge),
        cmocka_unit_test(nothing_is_huge_that_is_to_stay_small),
        cmocka_unit_test(small_segments_are_left_alone),
    };

    return cmocka_run_group_tests_name("huge", tests, NULL, NULL);
}
