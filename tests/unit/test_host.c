/* test_host.c - limits of the machine and of control groups, from made-up /proc and /sys.
 *
 * What would break in production: in a container with 2 of 64 cores, 64 threads that the quota stops all
 * the time; KV pages for memory that the container may not use, and the kernel's killer at full load. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "gpu-worker/load/host.h"
#include "tests/unit/checkpoint.h"

static void write_in(const char *root, const char *folder, const char *name, const char *text)
{
    char path[200], command[300];

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

static void the_smallest_limit_on_the_way_up_counts(void **state)
{
    char root[64];

    (void)state;
    test_dir_make(root);
    write_in(root, "proc", "meminfo", "MemTotal: 9000 kB\nMemAvailable:    8000 kB\n");
    write_in(root, "proc/self", "cgroup", "0::/a/b\n");
    assert_int_equal(host_memory_available(root), 8000 * 1024);
    write_in(root, "sys/fs/cgroup/a/b", "memory.max", "max\n");
    write_in(root, "sys/fs/cgroup/a/b", "memory.current", "1000\n");
    assert_int_equal(host_memory_available(root), 8000 * 1024);
    write_in(root, "sys/fs/cgroup/a", "memory.max", "1000000\n");
    write_in(root, "sys/fs/cgroup/a", "memory.current", "900000\n");
    assert_int_equal(host_memory_available(root), 100000);
    /* 500000 of it are cache, 200000 of that shared memory, which stays */
    write_in(root, "sys/fs/cgroup/a", "memory.stat", "anon 7\nfile 500000\nshmem 200000\n");
    assert_int_equal(host_memory_available(root), 400000);
    write_in(root, "sys/fs/cgroup/a", "memory.current", "2000000\n");
    assert_int_equal(host_memory_available(root), 0);
    remove_all(root);
}

static void a_quota_counts_as_cores(void **state)
{
    uint32_t whole = host_cores("/nonexistent");
    char root[64];

    (void)state;
    assert_true(whole >= 1);
    test_dir_make(root);
    write_in(root, "proc/self", "cgroup", "0::/\n");
    write_in(root, "sys/fs/cgroup", "cpu.max", "max 100000\n");
    assert_int_equal(host_cores(root), whole);
    write_in(root, "sys/fs/cgroup", "cpu.max", "50000 100000\n");
    assert_int_equal(host_cores(root), 1);
    write_in(root, "sys/fs/cgroup", "cpu.max", "110000 100000\n");
    assert_int_equal(host_cores(root), whole < 2 ? whole : 2);
    write_in(root, "sys/fs/cgroup", "cpu.max", "nonsense\n");
    assert_int_equal(host_cores(root), whole);
    remove_all(root);
}

static void the_real_machine_has_some_memory(void **state)
{
    (void)state;
    assert_true(host_memory_available("") > 1 << 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_smallest_limit_on_the_way_up_counts),
        cmocka_unit_test(a_quota_counts_as_cores),
        cmocka_unit_test(the_real_machine_has_some_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
