/* test_checks.c - what `llmctl doctor` finds, from made-up hosts and answers.
 *
 * What would break in production: advice that does not fit the host, a warning where nothing is wrong, none where
 * the kernel's killer waits. */
#include "llmctl/checks.h"

#include <stdio.h>

#include "tests/check.h"

static struct check checks[CHECKS_MAX];
static int n_checks;

static const struct check *find(const char *name)
{
    for (int i = 0; i < n_checks; i++)
        if (strcmp(checks[i].name, name) == 0)
            return &checks[i];
    fail_msg("no check '%s'", name);
    return NULL;
}

static void look(const struct facts *f)
{
    n_checks = checks_run(f, checks);
    for (int i = 0; i < n_checks; i++) {
        assert_true(checks[i].finding[0]);
        assert_int_equal(checks[i].ok, checks[i].advice[0] == '\0');
    }
}

static void expect(const char *name, bool ok, const char *words)
{
    const struct check *c = find(name);

    if (c->ok != ok || !strstr(ok ? c->finding : c->advice, words))
        fail_msg("%s: %s, %s; %s", name, c->ok ? "ok" : "warn", c->finding, c->advice);
}

/* A host that is as it should be. */
static struct facts good(void)
{
    struct facts f = { .kernel_major = 6,
                       .kernel_minor = 12,
                       .cores = 8,
                       .memory_available = 16ull << 30,
                       .files_max = 1 << 20,
                       .has_avx2 = true,
                       .has_systemd = true };

    strcpy(f.huge.shmem_enabled, "never");
    return f;
}

static void the_host_alone_is_judged(void **state)
{
    struct facts f = good();

    (void)state;
    look(&f);
    expect("weights_pages", true, "collapsed");
    expect("fd_store", true, "systemd");
    expect("cpu", true, "AVX2");
    expect("descriptors", true, "10256");
    f.kernel_minor = 0;
    f.files_max = 4096;
    f.has_avx2 = f.has_systemd = false;
    f.memory_available = 100 << 20;
    look(&f);
    expect("weights_pages", false, "vm.nr_hugepages=N");
    expect("fd_store", true, "llm-init");
    expect("cpu", false, "CPU model");
    expect("descriptors", false, "LimitNOFILE=10256");
    expect("memory", false, "little");
    strcpy(f.huge.shmem_enabled, "advise");
    look(&f);
    expect("weights_pages", true, "advise");
    f.huge.pool_free = 77;
    look(&f);
    expect("weights_pages", true, "77 huge pages");
    f = good();
    strcpy(f.huge.shmem_enabled, "deny");
    look(&f);
    expect("weights_pages", false, "shmem_enabled");
    f.memory_available = f.files_max = 0; /* not known is not wrong */
    look(&f);
    expect("memory", true, "cannot be read");
    expect("descriptors", true, "no limit");
}

static Llmd__SegmentMemory memory_of(const char *name, const char *pages, uint64_t bytes,
                                     uint64_t mapped, uint64_t huge)
{
    Llmd__SegmentMemory m = LLMD__SEGMENT_MEMORY__INIT;

    m.segment = (char *)(uintptr_t)name;
    m.pages = (char *)(uintptr_t)pages;
    m.bytes = bytes;
    m.resident_bytes = m.allocated_bytes = mapped;
    m.huge_bytes = huge;
    return m;
}

static void segments_of_the_server_are_judged(void **state)
{
    const uint64_t gib = 1ull << 30;
    Llmd__Status s = LLMD__STATUS__INIT;
    Llmd__SegmentMemory weights, pool, *list[] = { &weights, &pool };
    struct facts f = good();

    (void)state;
    f.status = &s;
    s.memory = list;
    s.n_memory = 2;
    weights = memory_of("weights", "collapsed", 2 * gib, 2 * gib, 2 * gib);
    pool = memory_of("kvpool", "small", 3 * gib, gib, 0);
    look(&f);
    expect("weights_pages", true, "2.0 GiB of it in huge pages (collapsed)");
    expect("kv_pages", false, "sysctl vm.nr_hugepages=2560");
    expect("fd_store", false, "llm-init");
    expect("memory", true, "2.0 GiB of the KV pool not yet used");
    f.memory_available = gib;
    look(&f);
    expect("memory", false, "kernel kills");
    pool = memory_of("kvpool", "reserved", 3 * gib, gib, gib); /* the pool has promised the rest */
    look(&f);
    expect("memory", true, "1.0 GiB available");
    expect("kv_pages", true, "reserved");
    weights = memory_of("weights", "advised", 2 * gib, 2 * gib, gib); /* memory was in pieces */
    look(&f);
    expect("weights_pages", false, "vm.nr_hugepages=2560");
    weights = memory_of("weights", "advised", 2 * gib, 1 << 20, 0); /* just started */
    pool = memory_of("kvpool", "small", gib / 2, 0, 0);
    s.fd_store = true;
    look(&f);
    expect("weights_pages", true, "advised");
    expect("kv_pages", true, "too small");
    expect("fd_store", true, "unnoticed");
}

static void settings_are_held_against_the_host(void **state)
{
    Llmd__ConfigLine lines[4], *list[4];
    const char *names[] = { "threads", "tp_size", "groups", "max_connections" };
    const char *values[] = { "4", "2", "1", "2000" };
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;
    Llmd__Status s = LLMD__STATUS__INIT;
    struct facts f = good();

    (void)state;
    for (int i = 0; i < 4; i++) {
        lines[i] = (Llmd__ConfigLine)LLMD__CONFIG_LINE__INIT;
        lines[i].name = (char *)(uintptr_t)names[i];
        lines[i].value = (char *)(uintptr_t)values[i];
        list[i] = &lines[i];
    }
    reply.config = list;
    reply.n_config = 4;
    f.status = &s;
    f.config = &reply;
    f.files_max = 3000;
    look(&f);
    expect("cores", true, "8 compute threads on 8 cores");
    expect("descriptors", true, "2256");
    f.cores = 6;
    f.files_max = 2000;
    look(&f);
    expect("cores", false, "set threads to 3");
    expect("descriptors", false, "2256");
    f.cores = 1;
    look(&f);
    expect("cores", false, "set threads to 1");
    lines[0].value = "0";
    look(&f);
    expect("cores", false, "at most 1");
    f.cores = 2;
    look(&f);
    expect("cores", true, "2 of our own");
}

/* ---- reading ---- */

static void write_in(const char *root, const char *folder, const char *name, const char *text)
{
    char path[300], command[400];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", root, folder);
    snprintf(command, sizeof command, "mkdir -p '%s'", path);
    assert_int_equal(system(command), 0);
    snprintf(path, sizeof path, "%s/%s/%s", root, folder, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void facts_are_read_below_a_root(void **state)
{
    char root[] = "/tmp/llmd-test-checks-XXXXXX", command[64];
    struct facts f;

    (void)state;
    assert_non_null(mkdtemp(root));
    facts_read(&f, root, 12); /* nothing is there */
    assert_int_equal(f.kernel_major, 0);
    assert_int_equal(f.files_max, 0);
    assert_int_equal(f.memory_available, 0);
    assert_false(f.has_avx2 || f.has_avx512 || f.has_vnni || f.has_bf16 || f.has_systemd);
    write_in(root, "proc/12", "limits",
             "Limit                     Soft Limit           Hard Limit           Units\n"
             "Max processes             10                   20                   processes\n"
             "Max open files            1024                 524288               files\n");
    write_in(root, "proc", "meminfo", "MemAvailable:    8000 kB\n");
    write_in(root, "proc/sys/kernel", "osrelease", "6.1.0-18-amd64\n");
    write_in(root, "proc", "cpuinfo",
             "processor : 0\nflags\t\t: fpu fma avx2 f16c avx512f avx512bw avx512vl avx512dq "
             "avx512_vnni\nprocessor : 1\nflags : fpu\n");
    write_in(root, "run/systemd/system", "x", "");
    facts_read(&f, root, 12);
    assert_int_equal(f.files_max, 524288);
    assert_int_equal(f.memory_available, 8000 * 1024);
    assert_int_equal(f.kernel_major, 6);
    assert_int_equal(f.kernel_minor, 1);
    assert_true(f.has_avx2 && f.has_avx512 && f.has_vnni && f.has_systemd);
    assert_false(f.has_bf16);
    write_in(root, "proc", "cpuinfo", "flags : fpu fma avx2x xavx2 f16c avx512fp16\n");
    write_in(root, "proc/12", "limits", "Max open files            1024   unlimited    files\n");
    facts_read(&f, root, 12);
    assert_false(f.has_avx2 || f.has_avx512);
    assert_int_equal(f.files_max, 0);
    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_alone_is_judged),
        cmocka_unit_test(segments_of_the_server_are_judged),
        cmocka_unit_test(settings_are_held_against_the_host),
        cmocka_unit_test(facts_are_read_below_a_root),
    };

    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
