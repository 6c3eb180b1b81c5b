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
    facts_read(&f, root, 12, 8080); /* nothing is there */
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
    facts_read(&f, root, 12, 8080);
    assert_int_equal(f.files_max, 524288);
    assert_int_equal(f.memory_available, 8000 * 1024);
    assert_int_equal(f.kernel_major, 6);
    assert_int_equal(f.kernel_minor, 1);
    assert_true(f.has_avx2 && f.has_avx512 && f.has_vnni && f.has_systemd);
    assert_false(f.has_bf16);
    write_in(root, "proc", "cpuinfo", "flags : fpu fma avx2x xavx2 f16c avx512fp16\n");
    write_in(root, "proc/12", "limits", "Max open files            1024   unlimited    files\n");
    facts_read(&f, root, 12, 8080);
    assert_false(f.has_avx2 || f.has_avx512);
    assert_int_equal(f.files_max, 0);
    snprintf(command, sizeof command, "rm -r '%s'", root);
    assert_int_equal(system(command), 0);
}

/* ---- the host's devices, ports, limits and clock ---- */

static void expect_fail(const char *name, const char *words)
{
    expect(name, false, words);
    assert_true(find(name)->fails);
}

static void what_keeps_a_server_from_running_fails(void **state)
{
    struct facts f = good();
    json_t *model = json_pack("{s:b,s:s}", "ok", 0, "error", "the file ends after 7 bytes");

    (void)state;
    f.model = model;
    f.host = (struct host_facts){ .port = 8080, .port_is_taken = true, .group_cores = UINT32_MAX };
    strcpy(f.host.unit, "failed");
    strcpy(f.host.unit_result, "exit-code");
    look(&f);
    expect_fail("model", "llmctl model verify");
    expect_fail("port", "sport = :8080");
    expect_fail("unit", "journalctl -u llmd");
    f.host.port_is_taken = false;
    strcpy(f.host.unit, "active");
    look(&f);
    expect("port", true, "8080 is free");
    expect("unit", true, "active");
    json_decref(model);
}

static void a_model_is_held_against_memory(void **state)
{
    struct facts f = good();
    json_int_t gib = 1 << 30;
    json_t *model = json_pack("{s:s,s:I,s:{s:I,s:I,s:I},s:{s:I},s:I}", "architecture", "Llama",
                              "parameters", 12 * gib, "weights_bytes", "none", 24 * gib, "int8",
                              12 * gib, "int4", 7 * gib, "kv_bytes_per_token", "float16",
                              (json_int_t)(1 << 20), "max_position_embeddings", (json_int_t)4096);

    (void)state;
    f.model = model;
    look(&f); /* 16 GiB */
    expect_fail("model_memory", "int8 (12.0 GiB) or int4 (7.0 GiB)");
    f.memory_available = 26ull << 30;
    look(&f);
    expect("model_memory", false, "max_model_len");
    assert_false(find("model_memory")->fails);
    f.memory_available = 29ull << 30;
    look(&f);
    expect("model_memory", true, "24.0 GiB of weights, 4.0 GiB of KV");
    json_decref(model);
}

static void gpus_are_judged_by_their_driver(void **state)
{
    struct facts f = good();

    (void)state;
    look(&f);
    expect("gpu", true, "no NVIDIA driver");
    strcpy(f.host.driver, "550.54.15");
    f.host.has_shm = f.host.has_memlock = true;
    f.host.shm_bytes = 64 << 20;
    f.host.memlock_max = 8 << 20;
    look(&f);
    expect("gpu", false, "nvidia-smi");
    expect("memlock", false, "LimitMEMLOCK");
    f.host.nvml = (struct nvml_gpus){ .is_loaded = true, .n = 2 };
    look(&f);
    expect("gpu", false, "nvidia-smi -pm 1");
    expect("shm", false, "/dev/shm");
    f.host.nvml.gpus[0].persistent = f.host.nvml.gpus[1].persistent = true;
    look(&f);
    expect("gpu", true, "persistent");
    f.host.nvml.gpus[1].ecc_uncorrected = 3;
    look(&f);
    expect_fail("gpu", "3 memory errors");
    f.host.nvml.gpus[0].is_unusable = true;
    look(&f);
    expect_fail("gpu", "1 of them are lost, or the driver asks for a reset");
}

static void clock_and_governor_are_told(void **state)
{
    struct facts f = good();

    (void)state;
    f.host.has_clock = true;
    f.host.now_s = 1000;
    strcpy(f.host.governor, "powersave");
    look(&f);
    expect("clock", false, "timedatectl");
    expect("governor", false, "cpupower");
    f.host.now_s = 1800000000;
    f.host.clock_is_set = true;
    strcpy(f.host.governor, "performance");
    look(&f);
    expect("clock", true, "time service");
    expect("governor", true, "performance");
}

static void host_facts_are_read_below_a_root(void **state)
{
    char root[] = "/tmp/llmd-test-host-XXXXXX", command[64];
    struct host_facts h;

    (void)state;
    assert_non_null(mkdtemp(root));
    host_facts_read(&h, root, 12, 8080); /* nothing is there */
    assert_false(h.has_shm || h.has_memlock || h.port_is_taken || h.has_clock);
    assert_true(!h.driver[0] && h.n_nodes == 0 && h.group_memory_max == 0 && !h.governor[0]);
    write_in(root, "proc/12", "limits", "Max locked memory         65536  8388608  bytes\n");
    write_in(
        root, "proc/driver/nvidia", "version",
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC\n");
    write_in(root, "proc/net", "tcp",
             "  sl  local_address rem_address   st tx_queue rx_queue\n"
             "   0: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000\n");
    write_in(root, "sys/devices/system/node", "online", "0-1,4\n");
    write_in(root, "sys/devices/system/cpu/cpu0/cpufreq", "scaling_governor", "powersave\n");
    write_in(root, "proc/self", "cgroup", "0::/a/b\n");
    write_in(root, "sys/fs/cgroup/a", "memory.max", "1073741824\n");
    write_in(root, "sys/fs/cgroup/a/b", "memory.max", "max\n");
    host_facts_read(&h, root, 12, 8080);
    assert_int_equal(h.memlock_max, 8388608);
    assert_string_equal(h.driver, "550.54.15");
    assert_false(h.port_is_taken); /* a connection, nobody listening */
    assert_int_equal(h.n_nodes, 3);
    assert_string_equal(h.governor, "powersave");
    assert_int_equal(h.group_memory_max, 1 << 30);
    write_in(root, "proc/net", "tcp6",
             "  sl\n   0: 00000000000000000000000000000000:1F90 "
             "00000000000000000000000000000000:0000 0A 00000000:00000000\n");
    host_facts_read(&h, root, 12, 8080);
    assert_true(h.port_is_taken);
    host_facts_read(&h, root, 12, 8081);
    assert_false(h.port_is_taken);
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_alone_is_judged),
        cmocka_unit_test(segments_of_the_server_are_judged),
        cmocka_unit_test(settings_are_held_against_the_host),
        cmocka_unit_test(facts_are_read_below_a_root),
        cmocka_unit_test(what_keeps_a_server_from_running_fails),
        cmocka_unit_test(a_model_is_held_against_memory),
        cmocka_unit_test(gpus_are_judged_by_their_driver),
        cmocka_unit_test(clock_and_governor_are_told),
        cmocka_unit_test(host_facts_are_read_below_a_root),
    };

    return cmocka_run_group_tests_name("checks", tests, NULL, NULL);
}
