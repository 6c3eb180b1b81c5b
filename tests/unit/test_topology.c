/* test_topology.c - cores, siblings and nodes from made-up /proc and /sys, and who gets which.
 *
 * What would break in production: two threads on the two halves of one core, two ranks on one core, a rank
 * whose cores and memory are on different nodes, and threads pinned beside a neighbour's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/topology.h"
#include "tests/unit/checkpoint.h"

struct machine {
    char root[64];
};

static void write_in(const struct machine *m, const char *folder, const char *name,
                     const char *text)
{
    char path[200], command[300];

    snprintf(path, sizeof path, "%s/%s", m->root, folder);
    snprintf(command, sizeof command, "mkdir -p '%s'", path);
    assert_int_equal(system(command), 0);
    test_dir_write(path, name, text, strlen(text));
}

static void write_siblings(const struct machine *m, uint32_t cpu, const char *list)
{
    char folder[80];

    snprintf(folder, sizeof folder, "sys/devices/system/cpu/cpu%u/topology", cpu);
    write_in(m, folder, "thread_siblings_list", list);
}

static void write_mask(const struct machine *m, const char *list)
{
    char text[120];

    snprintf(text, sizeof text, "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t%s\n", list);
    write_in(m, "proc/self", "status", text);
}

/* Two nodes of two cores of two hardware threads: cpu i and i + 4 share a core, 0 and 1 are on node 0. */
static struct machine two_nodes(void)
{
    struct machine m;

    test_dir_make(m.root);
    for (uint32_t i = 0; i < 8; i++) {
        char list[16];
        snprintf(list, sizeof list, "%u,%u\n", i % 4, i % 4 + 4);
        write_siblings(&m, i, list);
    }
    write_in(&m, "sys/devices/system/node", "online", "0-1\n");
    write_in(&m, "sys/devices/system/node/node0", "cpulist", "0-1,4-5\n");
    write_in(&m, "sys/devices/system/node/node1", "cpulist", "2-3,6-7\n");
    write_mask(&m, "0-7");
    return m;
}

static void remove_machine(const struct machine *m)
{
    char command[100];

    snprintf(command, sizeof command, "rm -r '%s'", m->root);
    assert_int_equal(system(command), 0);
}

static void a_core_counts_once(void **state)
{
    struct machine m = two_nodes();
    struct topology t;

    (void)state;
    topology_read(&t, m.root);
    assert_int_equal(t.n_cores, 4);
    assert_int_equal(t.n_nodes, 2);
    assert_int_equal(topology_cores(&t), 4);
    for (uint32_t i = 0; i < 4; i++) {
        assert_int_equal(t.cores[i].cpu, i);
        assert_int_equal(t.cores[i].node, i / 2);
    }
    remove_machine(&m);
}

/* With cpu 0 taken from us its sibling 4 stands for the core; a node without a core of ours is none. */
static void only_the_mask_counts(void **state)
{
    struct machine m = two_nodes();
    struct topology t;

    (void)state;
    write_mask(&m, "1,4-5,7");
    topology_read(&t, m.root);
    assert_int_equal(t.n_cores, 3);
    assert_int_equal(t.cores[0].cpu, 1);
    assert_int_equal(t.cores[1].cpu, 4);
    assert_int_equal(t.cores[2].cpu, 7);
    assert_int_equal(t.cores[2].node, 1);
    write_mask(&m, "6-7");
    topology_read(&t, m.root);
    assert_int_equal(t.n_cores, 2);
    assert_int_equal(t.n_nodes, 1);
    assert_int_equal(t.cores[0].node, 0);
    remove_machine(&m);
}

static void a_machine_that_says_nothing_has_one_node(void **state)
{
    struct machine m;
    struct topology t;

    (void)state;
    test_dir_make(m.root);
    topology_read(&t, m.root); /* the real mask */
    assert_in_range(t.n_cores, 1, TOPOLOGY_CORES_MAX);
    assert_int_equal(t.n_nodes, 1);
    write_mask(&m, "nonsense");
    topology_read(&t, m.root);
    assert_in_range(t.n_cores, 1, TOPOLOGY_CORES_MAX);
    write_mask(&m, "3,5,99999999999");
    topology_read(&t, m.root);
    assert_int_equal(t.n_cores, 2);
    assert_int_equal(t.quota, UINT32_MAX);
    remove_machine(&m);
}

static void a_rank_computes_on_its_node(void **state)
{
    struct machine m = two_nodes();
    struct topology t;
    uint32_t cpus[4];

    (void)state;
    topology_read(&t, m.root);
    assert_true(topology_assign(&t, PIN_AUTO, (struct topology_rank){ 0, 2, 2 }, cpus));
    assert_int_equal(cpus[0], 0);
    assert_int_equal(cpus[1], 1);
    assert_true(topology_assign(&t, PIN_AUTO, (struct topology_rank){ 1, 2, 2 }, cpus));
    assert_int_equal(cpus[0], 2);
    assert_int_equal(cpus[1], 3);
    assert_true(topology_assign(&t, PIN_AUTO, (struct topology_rank){ 2, 4, 1 }, cpus));
    assert_int_equal(cpus[0], 1); /* ranks 0 and 2 are on node 0 */
    remove_machine(&m);
}

static void no_core_is_given_twice(void **state)
{
    struct machine m = two_nodes();
    struct topology t;

    (void)state;
    topology_read(&t, m.root);
    for (uint32_t n_ranks = 1; n_ranks <= 4; n_ranks++)
        for (uint32_t n_threads = 1; n_threads * n_ranks <= 4; n_threads++) {
            bool used[8] = { false };
            for (uint32_t r = 0; r < n_ranks; r++) {
                uint32_t cpus[4];
                assert_true(topology_assign(&t, PIN_ON,
                                            (struct topology_rank){ r, n_ranks, n_threads }, cpus));
                for (uint32_t i = 0; i < n_threads; i++) {
                    assert_in_range(cpus[i], 0, 3);
                    assert_false(used[cpus[i]]);
                    used[cpus[i]] = true;
                }
            }
        }
    remove_machine(&m);
}

static void only_a_machine_that_is_ours_is_pinned(void **state)
{
    const struct topology_rank all = { 0, 2, 2 }, some = { 0, 1, 3 }, more = { 0, 1, 5 };
    struct machine m = two_nodes();
    struct topology t;
    uint32_t cpus[5];

    (void)state;
    topology_read(&t, m.root);
    assert_true(topology_assign(&t, PIN_AUTO, all, cpus));
    assert_false(topology_assign(&t, PIN_OFF, all, cpus));
    assert_false(topology_assign(&t, PIN_AUTO, some, cpus));
    assert_true(topology_assign(&t, PIN_ON, some, cpus));
    assert_false(topology_assign(&t, PIN_ON, more, cpus));
    write_in(&m, "proc/self", "cgroup", "0::/\n");
    write_in(&m, "sys/fs/cgroup", "cpu.max", "150000 100000\n");
    topology_read(&t, m.root);
    assert_int_equal(topology_cores(&t), 2);
    assert_false(topology_assign(&t, PIN_AUTO, all, cpus));
    remove_machine(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_core_counts_once),
        cmocka_unit_test(only_the_mask_counts),
        cmocka_unit_test(a_machine_that_says_nothing_has_one_node),
        cmocka_unit_test(a_rank_computes_on_its_node),
        cmocka_unit_test(no_core_is_given_twice),
        cmocka_unit_test(only_a_machine_that_is_ours_is_pinned),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
