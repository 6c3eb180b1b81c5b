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

#include "common/host.h"
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

/* Version 1: a tree for memory, another for cores; without a limit it writes a number near 2^63. */
static void limits_of_version_1_count_too(void **state)
{
    uint32_t whole = host_cores("/nonexistent");
    char root[64];

    (void)state;
    test_dir_make(root);
    write_in(root, "proc", "meminfo", "MemAvailable:    8000 kB\n");
    write_in(root, "proc/self", "cgroup",
             "9:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n1:name=systemd:/a\n2:cpuset:/"
             "b\n3:rdma,cpus:/c\n0::/y\n");
    write_in(root, "sys/fs/cgroup/memory", "memory.limit_in_bytes", "9223372036854771712\n");
    write_in(root, "sys/fs/cgroup/memory", "memory.usage_in_bytes", "123456789\n");
    assert_int_equal(host_memory_available(root), 8000 * 1024);
    write_in(root, "sys/fs/cgroup/memory/docker", "memory.limit_in_bytes", "3000000\n");
    write_in(root, "sys/fs/cgroup/memory/docker", "memory.usage_in_bytes", "1000000\n");
    assert_int_equal(host_memory_available(root), 2000000);
    write_in(root, "sys/fs/cgroup/memory/docker", "memory.stat",
             "cache 1\nshmem 1\ntotal_cache 500000\ntotal_shmem 100000\n");
    assert_int_equal(host_memory_available(root), 2400000);
    write_in(root, "sys/fs/cgroup/memory/docker/x", "memory.limit_in_bytes", "1000000\n");
    write_in(root, "sys/fs/cgroup/memory/docker/x", "memory.usage_in_bytes", "999999\n");
    assert_int_equal(host_memory_available(root), 1);
    write_in(root, "sys/fs/cgroup/cpu", "cpu.cfs_period_us", "100000\n");
    write_in(root, "sys/fs/cgroup/cpu", "cpu.cfs_quota_us", "-1\n");
    assert_int_equal(host_cores(root), whole);
    write_in(root, "sys/fs/cgroup/cpu/docker/x", "cpu.cfs_period_us", "100000\n");
    write_in(root, "sys/fs/cgroup/cpu/docker/x", "cpu.cfs_quota_us", "90000\n");
    assert_int_equal(host_cores(root), 1);
    remove_all(root);
}

/* Inside a container the group's own path is not there: its limits stand at the top of what is seen. */
static void a_container_finds_its_limit_at_the_top(void **state)
{
    char root[64];

    (void)state;
    test_dir_make(root);
    write_in(root, "proc", "meminfo", "MemAvailable:    8000 kB\n");
    write_in(root, "proc/self", "cgroup", "9:memory:/kubepods/pod1/abc\n");
    write_in(root, "sys/fs/cgroup/memory", "memory.limit_in_bytes", "700000\n");
    write_in(root, "sys/fs/cgroup/memory", "memory.usage_in_bytes", "100000\n");
    assert_int_equal(host_memory_available(root), 600000);
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
        cmocka_unit_test(limits_of_version_1_count_too),
        cmocka_unit_test(a_container_finds_its_limit_at_the_top),
        cmocka_unit_test(the_real_machine_has_some_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
