/* test_llmctl.c - the real llmctl against a fake llmd: what scripts and operators rely on.
 *
 * What would break in production: an exit code that says "ready" when it is not, an answer cut short
 * that looks whole, or Ctrl-C that leaves a request running. */
#include <jansson.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "common/api_keys.h"
#include "common/clock.h"
#include "tests/check.h"
#include "tests/proc/fake_llmd.h"

enum { WAIT_MS = 20000 };

struct outcome {
    char out[1 << 16], err[1 << 14];
    int code;
};

static struct outcome result; /* of the last run */
static uid_t run_as;          /* not 0: run llmctl as this user */

/* Append what is there; false at the end of the stream. */
static bool take(int fd, char *to, size_t cap)
{
    size_t n = strlen(to);
    ssize_t got = read(fd, to + n, cap - 1 - n);

    if (got > 0)
        to[n + (size_t)got] = '\0';
    return got > 0;
}

/* Read both streams to their end.  When `word` (may be NULL) appears in either, `pid` gets SIGINT. */
static void collect(pid_t pid, int out, int err, const char *word)
{
    struct pollfd p[2] = { { .fd = out, .events = POLLIN }, { .fd = err, .events = POLLIN } };
    uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
    int n_open = 2;

    while (n_open > 0) {
        int left = (int)((int64_t)(deadline - clock_mono_ns()) / (int64_t)NS_PER_MS);
        if (left <= 0 || poll(p, 2, left) <= 0) {
            kill(pid, SIGKILL);
            fail_msg("llmctl did not end; stdout '%s' stderr '%s'", result.out, result.err);
        }
        for (int i = 0; i < 2; i++) {
            if (p[i].fd < 0 || !p[i].revents)
                continue;
            if (!take(p[i].fd, i ? result.err : result.out,
                      i ? sizeof result.err : sizeof result.out)) {
                p[i].fd = -1;
                n_open--;
            }
        }
        if (word && (strstr(result.out, word) || strstr(result.err, word))) {
            kill(pid, SIGINT);
            word = NULL;
        }
    }
}

/* Run llmctl for this server (NULL: none is named) with up to 8 arguments. */
static int run_until(const char *word, const struct fake_llmd *f, char *const *arguments)
{
    char *argv[16] = { "llmctl" };
    int out[2], err[2], status = 0, n = 1;
    pid_t parent = getpid(), pid;

    if (f) {
        argv[n++] = "--runtime-dir";
        argv[n++] = (char *)(uintptr_t)f->dir;
    }
    while (*arguments)
        argv[n++] = *arguments++;
    result = (struct outcome){ .code = -1 };
    assert_int_equal(pipe(out) | pipe(err), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(out[1], STDOUT_FILENO);
        dup2(err[1], STDERR_FILENO);
        for (int i = 0; i < 2; i++) {
            close(out[i]);
            close(err[i]);
        }
        setenv("http_proxy", "http://127.0.0.1:1", 1); /* must not matter */
        if (getppid() == parent && (run_as == 0 || setuid(run_as) == 0))
            execv(TEST_BIN_DIR "/llmctl", argv);
        _exit(127);
    }
    close(out[1]);
    close(err[1]);
    collect(pid, out[0], err[0], word);
    close(out[0]);
    close(err[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
    return result.code;
}

#define run(f, ...) run_until(NULL, f, (char *[]){ __VA_ARGS__, NULL })

static void expect_contains(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in '%s' (exit code %d, stderr '%s')", part, text, result.code,
                 result.err);
}

/* ---------------------------------------------------------------- the control socket */

static void llmctl_without_a_server_names_the_socket(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    fake_llmd_stop(&f);
    static char *const commands[] = { "status", "config", "drain", "reload" };
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(run(&f, commands[i]), 3);
        expect_contains(result.err, f.dir);
        expect_contains(result.err, "/control.sock' (No such file or directory); start one with");
        assert_string_equal(strchr(result.err, '\n'), "\n"); /* one line */
        assert_string_equal(result.out, "");
    }
    assert_int_equal(run(&f, "generate", "x"), 3);
}

static void llmctl_finds_the_folder_in_the_environment(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    setenv("LLMD_RUNTIME_DIR", f.dir, 1);
    setenv("LLMD_PORT", "not a number", 1); /* no business of llmctl's */
    assert_int_equal(run(NULL, "reload"), 0);
    unsetenv("LLMD_RUNTIME_DIR");
    unsetenv("LLMD_PORT");
    assert_int_equal(run(NULL, "reload", "-R", f.dir), 0);
    assert_string_equal(fake_llmd_asked(&f), "CTL_RELOAD 0\nCTL_RELOAD 0\n");
    fake_llmd_stop(&f);
}

static void llmctl_orders_reach_llmd(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "drain"), 0);
    assert_int_equal(run(&f, "restart", "gateway"), 0);
    assert_int_equal(run(&f, "restart", "group", "3"), 0);
    expect_contains(result.out, "restarting group 3; its streams pause and go on\n");
    assert_int_equal(run(&f, "restart", "llmd"), 0);
    assert_int_equal(run(&f, "reload"), 0);
    assert_int_equal(run(&f, "upgrade"), 0);
    assert_string_equal(
        fake_llmd_asked(&f),
        "CTL_DRAIN 0\nCTL_RESTART_GATEWAY 0\nCTL_RESTART_GROUP 3\nCTL_RESTART_LLMD 0\n"
        "CTL_RELOAD 0\nCTL_UPGRADE 0\n");
    fake_llmd_stop(&f);
}

static void llmctl_reload_names_the_model_from_the_root(void **state)
{
    struct fake_llmd f = { 0 };
    char here[256], expected[700];

    (void)state;
    assert_non_null(getcwd(here, sizeof here));
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "reload", "--model", "/models/a"), 0);
    assert_int_equal(run(&f, "reload", "-m", "models/b"), 0);
    expect_contains(result.out, "new requests go to the new model");
    snprintf(expected, sizeof expected,
             "CTL_RELOAD 0 model /models/a\nCTL_RELOAD 0 model %s/models/b\n", here);
    assert_string_equal(fake_llmd_asked(&f), expected);
    fake_llmd_stop(&f);
}

static void llmctl_tells_a_refusal(void **state)
{
    struct fake_llmd f = { .refuse = "there is no group 9\x1b[2J" };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "restart", "group", "9"), 1);
    assert_string_equal(result.err, "llmctl: there is no group 9?[2J\n");
    assert_string_equal(result.out, "");
    fake_llmd_stop(&f);
}

static void llmctl_wrong_usage_asks_nobody(void **state)
{
    static char *const wrong[][4] = {
        { "statsu" },
        { "restart" },
        { "restart", "worker" },
        { "restart", "group" },
        { "restart", "group", "-1" },
        { "restart", "gateway", "1" },
        { "restart", "llmd", "1" },
        { "reload", "extra" },
        { "reload", "--model", "" },
        { "upgrade", "gateway" },
        { "requests", "extra" },
        { "logs", "-n", "0" },
        { "status", "extra" },
        { "status", "--watch", "0" },
        { "wait", "--timeout", "x" },
        { "generate" },
        { "generate", "a", "b" },
        { "generate", "a", "-n0" },
        { "generate", "a", "-tnan" },
        { "chat" },
        { "key" },
        { "key", "a/b" },
        { "key", "a", "rpm=x" },
        { "key", "a", "b" },
        { "--no-such-option", "status" },
    };
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char *arguments[5] = { NULL };
        memcpy(arguments, wrong[i], sizeof wrong[i]);
        if (run_until(NULL, &f, arguments) != 2)
            fail_msg("%s %s: exit code %d", arguments[0], arguments[1] ? arguments[1] : "",
                     result.code);
        assert_string_equal(result.out, "");
        assert_true(result.err[0]);
    }
    assert_string_equal(fake_llmd_asked(&f), "");
    fake_llmd_stop(&f);
}

static void llmctl_gives_up_on_a_server_that_talks_nonsense(void **state)
{
    struct fake_llmd silent = { .is_silent = true }, nonsense = { .answers_nonsense = true };

    (void)state;
    fake_llmd_start(&silent);
    assert_int_equal(run(&silent, "status"), 3);
    expect_contains(result.err, "without an answer");
    fake_llmd_stop(&silent);
    fake_llmd_start(&nonsense);
    assert_int_equal(run(&nonsense, "status"), 1);
    expect_contains(result.err, "llmd answered with READY");
    fake_llmd_stop(&nonsense);
}

/* A stranger's socket is given no orders; root trusts a service that owns its folder.  Only root can try
 * this, and only where other users can reach the program. */
static void llmctl_does_not_talk_to_strangers(void **state)
{
    struct fake_llmd f = { .uid = 65533 }, other = { .uid = 65533 };
    char path[128];

    (void)state;
    run_as = 65534;
    if (geteuid() != 0 || run(NULL, "--version") != 0) {
        run_as = 0;
        skip();
    }
    fake_llmd_start(&f);
    snprintf(path, sizeof path, "%s/control.sock", f.dir);
    assert_int_equal(chmod(f.dir, 0755) | chmod(path, 0777), 0);
    assert_int_equal(run(&f, "drain"), 3);
    expect_contains(result.err, "user 65533 listens at '");
    expect_contains(result.err, "expected root or user 65534");
    run_as = 65533;
    assert_int_equal(run(&f, "drain"), 0);
    run_as = 0;
    assert_int_equal(run(&f, "drain"), 0);
    assert_string_equal(fake_llmd_asked(&f), "CTL_DRAIN 0\nCTL_DRAIN 0\n");

    fake_llmd_start(&other); /* the same server, in a folder of someone else's */
    assert_int_equal(chown(other.dir, 65532, 65532), 0);
    assert_int_equal(run(&other, "drain"), 3);
    expect_contains(result.err, "user 65533 listens at '");
    assert_string_equal(fake_llmd_asked(&other), "");
    fake_llmd_stop(&other);
    fake_llmd_stop(&f);
}

/* ---------------------------------------------------------------- status, config, version, wait */

static void llmctl_status_is_a_table_for_people(void **state)
{
    struct fake_llmd f = { .last_exit = "exit code 1: no model\x1b[31m", .restarts = 2 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "status"), 0);
    expect_contains(result.out, "llmd 9.8.7  ready  up 0 ms  http://0.0.0.0:");
    expect_contains(result.out, "stories");
    expect_contains(result.out, "pages   weights: 3.0 GiB, 2.0 GiB mapped, 2.0 GiB of it in huge "
                                "pages (collapsed)\n");
    assert_null(strstr(result.out, "kvpool")); /* too small to be worth a line */
    expect_contains(result.out, "7 of 512 pages used");
    expect_contains(result.out, "123.4 tokens/s");
    expect_contains(
        result.out,
        "PROCESS     STATE    PID  UPTIME  RESTARTS   MEMORY  LAST EXIT\n"
        "llmd        ready    100  2m 05s         0  5.0 MiB  -\n"
        "gateway     ready    101  2m 05s         0  5.0 MiB  -\n"
        "worker 0.0  backoff    -       -         2        -  exit code 1: no model [31m\n");
    assert_null(strchr(result.out, '\033')); /* no terminal, no colours */
    fake_llmd_stop(&f);
}

static void llmctl_status_json_has_stable_keys(void **state)
{
    struct fake_llmd f = { 0 };
    json_t *v;

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "status", "--json"), 0);
    v = json_loads(result.out, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(v);
    assert_string_equal(json_string_value(json_object_get(v, "state")), "ready");
    assert_int_equal(json_integer_value(json_object_get(v, "kv_pages")), 512);
    assert_int_equal(json_integer_value(json_object_get(v, "requests_active")), 0);
    json_t *worker = json_array_get(json_object_get(v, "processes"), 2);
    assert_string_equal(json_string_value(json_object_get(worker, "name")), "worker 0.0");
    assert_int_equal(json_integer_value(json_object_get(worker, "uptime_ns")), 125000000000);
    json_t *group = json_array_get(json_object_get(v, "groups"), 0);
    assert_true(json_real_value(json_object_get(group, "tokens_per_s")) == 123.4);
    json_decref(v);
    fake_llmd_stop(&f);
}

static bool find_check(json_t *v, const char *name, const char **advice)
{
    json_t *check;
    size_t i;

    json_array_foreach (json_object_get(v, "checks"), i, check) {
        if (strcmp(json_string_value(json_object_get(check, "name")), name) != 0)
            continue;
        *advice = json_string_value(json_object_get(check, "advice"));
        return json_is_true(json_object_get(check, "ok"));
    }
    fail_msg("no check '%s' in %s", name, result.out);
    return false;
}

static void llmctl_doctor_says_what_to_set(void **state)
{
    struct fake_llmd small = { .weights_pages = "small" }, huge = { 0 };
    const char *advice;
    json_t *v;

    (void)state;
    fake_llmd_start(&small);
    assert_int_equal(run(&small, "doctor"), 1);
    expect_contains(result.out,
                    "warn  weights_pages  3.0 GiB, 2.0 GiB mapped, 0 B of it in huge "
                    "pages (small)\n                     -> sysctl vm.nr_hugepages=1536, ");
    expect_contains(result.out, "ok    fd_store       a service manager");
    assert_int_equal(run(&small, "doctor", "--json"), 1);
    v = json_loads(result.out, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_true(json_object_get(v, "server")));
    assert_true(json_is_false(json_object_get(v, "ok")));
    assert_false(find_check(v, "weights_pages", &advice));
    assert_non_null(strstr(advice, "shmem_enabled"));
    assert_true(find_check(v, "kv_pages", &advice));
    json_decref(v);
    fake_llmd_stop(&small);
    fake_llmd_start(&huge);
    run(&huge, "doctor", "--json");
    v = json_loads(result.out, JSON_REJECT_DUPLICATES, NULL);
    assert_true(find_check(v, "weights_pages", &advice));
    assert_string_equal(advice, "");
    json_decref(v);
    fake_llmd_stop(&huge);
    run(&huge, "doctor", "--json"); /* nobody is there any more: the host alone */
    v = json_loads(result.out, JSON_REJECT_DUPLICATES, NULL);
    assert_true(json_is_false(json_object_get(v, "server")));
    find_check(v, "cpu", &advice);
    json_decref(v);
}

static void llmctl_status_watch_goes_on_until_interrupted(void **state)
{
    struct fake_llmd f = { .states = "starting ready" };
    char *arguments[] = { "status", "--watch", "1", NULL };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run_until("  ready  up", &f, arguments), 0);
    expect_contains(result.out, "  starting  up");
    fake_llmd_stop(&f);
}

static void llmctl_config_shows_sources(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "config"), 0);
    assert_string_equal(result.out, "SETTING  VALUE  FROM              MEANING\n"
                                    "port     8080   environment PORT  TCP port to listen on.\n");
    assert_int_equal(run(&f, "config", "--json"), 0);
    assert_string_equal(result.out,
                        "[{\"name\":\"port\",\"value\":\"8080\",\"source\":\"environment PORT\","
                        "\"help\":\"TCP port to listen on.\"}]\n");
    fake_llmd_stop(&f);
}

static void llmctl_requests_shows_what_runs_and_what_is_poisoned(void **state)
{
    struct fake_llmd f = { 0 };
    json_t *v;

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "requests"), 0);
    assert_string_equal(
        result.out,
        "SEQUENCE          GROUP  STATE     PROMPT  GENERATED     AGE  KV PAGES  CRASHES  KILLS  "
        "ERROR\n"
        "abcdef0123456789      0  running       12         34  2m 05s         3        0      0  "
        "-\n"
        "0000000000000007      1  poisoned       0          0    0 ms         0        2      0  "
        "running at 2 crashes [2J\n");
    assert_string_equal(result.err, "llmctl: 5 more did not fit\n");
    assert_int_equal(run(&f, "requests", "--json"), 0);
    v = json_loads(result.out, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
    assert_int_equal(json_array_size(v), 2);
    assert_string_equal(json_string_value(json_object_get(json_array_get(v, 1), "state")),
                        "poisoned");
    assert_true(json_real_value(json_object_get(json_array_get(v, 0), "n_generated")) == 34);
    json_decref(v);
    fake_llmd_stop(&f);
}

static void llmctl_logs_shows_the_last_lines_of_each(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "logs"), 0);
    assert_string_equal(result.out, "gateway\ng1\ng2\ng3\n\nworker 0.0\nw1[31m\nw2\n");
    assert_int_equal(run(&f, "logs", "-n", "1"), 0);
    assert_string_equal(result.out, "gateway\ng3\n\nworker 0.0\nw2\n");
    assert_int_equal(run(&f, "logs", "worker", "0.0"), 0);
    assert_string_equal(result.out, "w1[31m\nw2\n");
    assert_int_equal(run(&f, "logs", "worker 0.0", "--json", "-n", "1"), 0);
    assert_string_equal(result.out, "[{\"process\":\"worker 0.0\",\"lines\":[\"w2\"]}]\n");
    assert_string_equal(fake_llmd_asked(&f),
                        "CTL_LOGS 0\nCTL_LOGS 0\nCTL_LOGS 0 process worker 0.0\n"
                        "CTL_LOGS 0 process worker 0.0\n");
    fake_llmd_stop(&f);
}

static void llmctl_version_needs_no_server(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "version"), 0);
    assert_string_equal(result.out, "llmctl " LLMD_VERSION "\nllmd 9.8.7\n");
    fake_llmd_stop(&f);
    assert_int_equal(run(&f, "version"), 0);
    assert_string_equal(result.out, "llmctl " LLMD_VERSION "\n");
}

static void llmctl_wait_shows_states_until_ready(void **state)
{
    struct fake_llmd f = { .states = "starting starting degraded ready" };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "wait", "--timeout", "20"), 0);
    expect_contains(result.err, "llmd is starting: gateway ready, worker 0.0 starting\n");
    expect_contains(result.err, "llmd is degraded: gateway ready, worker 0.0 degraded\n");
    expect_contains(result.err, "llmd is ready after ");
    fake_llmd_stop(&f);
}

static void llmctl_wait_ends_when_it_cannot_become_ready(void **state)
{
    struct fake_llmd dying = { .states = "starting", .restarts = 3, .last_exit = "signal 11" },
                     down = { .states = "starting down",
                              .last_exit = "exit code 1: no config.json" },
                     slow = { .states = "starting" };
    char pid[16];

    (void)state;
    fake_llmd_start(&dying);
    assert_int_equal(run(&dying, "wait"), 1);
    expect_contains(result.err, "llmctl: worker 0.0 died 3 times: signal 11\n");
    fake_llmd_stop(&dying);
    fake_llmd_start(&down);
    assert_int_equal(run(&down, "wait", "-q"), 1);
    assert_string_equal(result.err, "llmctl: llmd is down: exit code 1: no config.json\n");
    fake_llmd_stop(&down);
    fake_llmd_start(&slow);
    assert_int_equal(run(&slow, "wait", "--timeout", "0"), 2);
    expect_contains(result.err, "llmctl: not ready after 0 s: llmd is starting");
    fake_llmd_stop(&slow);
    assert_int_equal(run(&slow, "wait", "--timeout", "0"), 2);
    expect_contains(result.err, "not ready after 0 s: waiting for llmd to start");

    /* the process that should become ready ends first */
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    snprintf(pid, sizeof pid, "%d", (int)child);
    assert_int_equal(run(&slow, "wait", "--pid", pid), 1); /* a zombie has ended too */
    expect_contains(result.err, " has ended\n");
    waitpid(child, NULL, 0);
}

/* ---------------------------------------------------------------- generate and chat */

#define CHUNK(text)                                                                                \
    "data: {\"choices\":[{\"index\":0,\"text\":\"" text "\",\"finish_reason\":null}]}\n\n"
#define LAST  "data: {\"choices\":[{\"index\":0,\"text\":\"\",\"finish_reason\":\"length\"}]}\n\n"
#define USAGE "data: {\"choices\":[],\"usage\":{\"completion_tokens\":5}}\n\ndata: [DONE]\n\n"

static json_t *asked_json(const struct fake_llmd *f, const char *first_line)
{
    const char *text = fake_llmd_asked(f);
    json_t *v;

    assert_memory_equal(text, first_line, strlen(first_line));
    v = json_loads(text + strlen(first_line), JSON_DISABLE_EOF_CHECK, NULL);
    assert_non_null(v);
    return v;
}

static void llmctl_generate_streams_the_answer(void **state)
{
    (void)state;
    for (int piece = 1; piece < 60; piece += 7) {
        struct fake_llmd f = { .http_body =
                                   ": hi\n\n" CHUNK(" there") CHUNK(" was \\u00e9\\n") LAST USAGE,
                               .http_piece = piece };
        fake_llmd_start(&f);
        assert_int_equal(
            run(&f, "generate", "Once \"upon\"", "-n", "5", "-t", "0.7", "-s", "11", "--stats"), 0);
        assert_string_equal(result.out, "Once \"upon\" there was \xc3\xa9\n\n");
        expect_contains(result.err, "5 tokens, first after ");
        expect_contains(result.err, " tokens/s\n");
        json_t *v = asked_json(&f, "POST /v1/completions ");
        assert_string_equal(json_string_value(json_object_get(v, "prompt")), "Once \"upon\"");
        assert_string_equal(json_string_value(json_object_get(v, "model")), "stories");
        assert_int_equal(json_integer_value(json_object_get(v, "max_tokens")), 5);
        assert_true(json_real_value(json_object_get(v, "temperature")) == 0.7);
        assert_int_equal(json_integer_value(json_object_get(v, "seed")), 11);
        assert_true(json_is_true(json_object_get(v, "stream")));
        json_decref(v);
        fake_llmd_stop(&f);
    }
}

static void llmctl_generate_brings_the_key_of_the_environment(void **state)
{
    struct fake_llmd f = { .http_body = CHUNK("a") LAST USAGE };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "generate", "x"), 0);
    assert_null(strstr(fake_llmd_asked(&f), "Authorization"));
    setenv("LLMD_API_KEY", "sk-one", 1);
    assert_int_equal(run(&f, "generate", "x"), 0);
    unsetenv("LLMD_API_KEY");
    expect_contains(fake_llmd_asked(&f), "Authorization: Bearer sk-one\n");
    fake_llmd_stop(&f);
}

/* The line is what the server reads; the key is shown once, and not where the line goes. */
static void llmctl_key_makes_a_line_for_the_file(void **state)
{
    struct api_keys keys;
    uint8_t hash[SECRET_HASH_BYTES];
    const char *key;
    struct err e;

    (void)state;
    assert_int_equal(run(NULL, "key", "alice", "rpm=60", "priority=-2"), 0);
    assert_true(api_keys_parse(&keys, result.out, strlen(result.out), &e));
    assert_int_equal(keys.n, 1);
    assert_string_equal(keys.list[0].name, "alice");
    assert_int_equal(keys.list[0].requests_per_minute, 60);
    assert_int_equal(keys.list[0].priority, -2);
    key = strstr(result.err, "key of alice: sk-");
    assert_non_null(key);
    key += strlen("key of alice: ");
    secret_hash(key, strcspn(key, "\n"), hash);
    assert_true(secret_hash_is(hash, keys.list[0].hash[0]));
    api_keys_fini(&keys);
}

static void llmctl_generate_raw_writes_the_bytes_only(void **state)
{
    struct fake_llmd f = { .http_body = CHUNK("a\\u001b[1m") CHUNK("b") LAST USAGE };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "generate", "--raw", "-m", "other", "x"), 0);
    assert_string_equal(result.out, "a\x1b[1mb");
    assert_string_equal(result.err, "");
    json_t *v = asked_json(&f, "POST /v1/completions ");
    assert_string_equal(json_string_value(json_object_get(v, "model")), "other");
    assert_null(json_object_get(v, "seed")); /* the server's defaults */
    assert_null(json_object_get(v, "temperature"));
    json_decref(v);
    fake_llmd_stop(&f);
}

static void llmctl_generate_tells_what_the_server_refused(void **state)
{
    static const char *const bodies[][2] = {
        { "{\"error\":{\"message\":\"no model 'x'\",\"code\":404}}", "(HTTP 404): no model 'x'\n" },
        { "{\"error\":\"overloaded\",\"error_type\":\"x\"}", "(HTTP 404): overloaded\n" },
        { "plain words", "(HTTP 404): plain words\n" },
        { "", "(HTTP 404): no reason given\n" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct fake_llmd f = { .http_status = 404, .http_body = bodies[i][0] };
        fake_llmd_start(&f);
        assert_int_equal(run(&f, "generate", "--raw", "x"), 1);
        expect_contains(result.err, bodies[i][1]);
        assert_string_equal(result.out, "");
        fake_llmd_stop(&f);
    }
}

/* An answer that stops in the middle does not look whole. */
static void llmctl_generate_tells_an_answer_that_ended_early(void **state)
{
    static const char *const bodies[][2] = {
        { CHUNK("half"), "ended too early" },
        { CHUNK("half") "data: {\"error\":{\"message\":\"worker died\"}}\n\n", "worker died" },
        { CHUNK("half") "data: {not json}\n\n" LAST, "an event is not JSON" },
        { "", "ended too early" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
        struct fake_llmd f = { .http_body = bodies[i][0] };
        fake_llmd_start(&f);
        assert_int_equal(run(&f, "generate", "--raw", "x"), 1);
        expect_contains(result.err, bodies[i][1]);
        assert_string_equal(result.out, bodies[i][0][0] ? "half" : "");
        fake_llmd_stop(&f);
    }
}

static void llmctl_generate_stops_at_an_interrupt(void **state)
{
    struct fake_llmd f = { .http_body = CHUNK(" there") CHUNK(" was"), .http_hangs = true };
    char *arguments[] = { "generate", "Once", NULL };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run_until(" was", &f, arguments), 130);
    assert_string_equal(result.out, "Once there was\n");
    assert_string_equal(result.err, "");
    uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
    while (!strstr(fake_llmd_asked(&f), "client left\n")) /* so the server can cancel */
        assert_true(clock_mono_ns() < deadline);
    fake_llmd_stop(&f);
}

static void llmctl_generate_without_an_address_says_so(void **state)
{
    struct fake_llmd f = { .listens_nowhere = true, .states = "starting" };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "generate", "x"), 1);
    expect_contains(result.err, "does not listen for requests (state: starting)");
    fake_llmd_stop(&f);
}

#define DELTA(text)                                                                                \
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"" text                              \
    "\"},\"finish_reason\":null}]}\n\n"
#define DELTA_LAST "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n"

static void llmctl_chat_sends_one_message(void **state)
{
    struct fake_llmd f = { .http_body = DELTA("Hel") DELTA("lo") DELTA_LAST USAGE };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "chat", "Hi", "--system", "Be kind"), 0);
    assert_string_equal(result.out, "Hello\n");
    expect_contains(fake_llmd_asked(&f),
                    "POST /v1/chat/completions {\"messages\":[{\"role\":\"system\","
                    "\"content\":\"Be kind\"},{\"role\":\"user\",\"content\":\"Hi\"}],");
    fake_llmd_stop(&f);
}

/* Read the terminal until the word has come after *seen characters. */
static void read_until(int terminal, size_t *seen, const char *word)
{
    uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
    const char *at;

    while (!(at = strstr(result.out + *seen, word))) {
        struct pollfd p = { .fd = terminal, .events = POLLIN };
        if (clock_mono_ns() >= deadline || poll(&p, 1, WAIT_MS) <= 0 ||
            !take(terminal, result.out, sizeof result.out))
            fail_msg("'%s' did not come; '%s'", word, result.out + *seen);
    }
    *seen = (size_t)(at - result.out) + strlen(word);
}

static void llmctl_chat_on_a_terminal_is_a_conversation(void **state)
{
    struct fake_llmd f = { .http_body = DELTA("Hel\\u001b]0;x") DELTA("lo") DELTA_LAST USAGE };
    int terminal, status = 0;
    size_t seen = 0;
    pid_t pid;

    (void)state;
    fake_llmd_start(&f);
    result = (struct outcome){ 0 };
    pid = forkpty(&terminal, NULL, NULL, NULL);
    if (pid < 0) { /* a sandbox without pseudo-terminals */
        fake_llmd_stop(&f);
        skip();
    }
    if (pid == 0) {
        execl(TEST_BIN_DIR "/llmctl", "llmctl", "chat", "-R", f.dir, (char *)NULL);
        _exit(127);
    }
    read_until(terminal, &seen, "> ");
    assert_int_equal(write(terminal, "Hi\n", 3), 3);
    read_until(terminal, &seen, "Hel]0;xlo"); /* the escape character is gone */
    read_until(terminal, &seen, "> ");
    assert_int_equal(write(terminal, "More\n", 5), 5);
    read_until(terminal, &seen, "> ");
    expect_contains(fake_llmd_asked(&f),
                    "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"assistant\","
                    "\"content\":\"Hel\\u001b]0;xlo\"},{\"role\":\"user\",\"content\":\"More\"}],");
    assert_int_equal(write(terminal, "\x04", 1), 1); /* Ctrl-D */
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(terminal);
    fake_llmd_stop(&f);
}

static void llmctl_top_draws_until_q_and_gives_the_terminal_back(void **state)
{
    struct winsize size = { .ws_col = 80, .ws_row = 24 }, smaller = { .ws_col = 40, .ws_row = 12 };
    struct fake_llmd f = { .states = "ready", .restarts = 2 };
    int terminal, status = 0;
    size_t seen = 0;
    pid_t pid;

    (void)state;
    fake_llmd_start(&f);
    result = (struct outcome){ 0 };
    pid = forkpty(&terminal, NULL, NULL, &size);
    if (pid < 0) {
        fake_llmd_stop(&f);
        skip();
    }
    if (pid == 0) {
        setenv("TERM", "xterm", 1);
        setenv("NO_COLOR", "1", 1);
        execl(TEST_BIN_DIR "/llmctl", "llmctl", "top", "-R", f.dir, (char *)NULL);
        _exit(127);
    }
    read_until(terminal, &seen, "\033[?1049h"); /* the alternate screen */
    read_until(terminal, &seen, "worker 0.0");
    read_until(terminal, &seen, "sort (name)");
    assert_int_equal(write(terminal, "s", 1), 1);
    read_until(terminal, &seen, "sort (age)");
    assert_int_equal(write(terminal, "p", 1), 1);
    read_until(terminal, &seen, "PAUSED");
    read_until(terminal, &seen, "p go on");
    assert_int_equal(write(terminal, "p", 1), 1);
    read_until(terminal, &seen, "p pause");
    assert_int_equal(ioctl(terminal, TIOCSWINSZ, &smaller), 0);
    read_until(terminal, &seen,
               "q quit  p pause  s sort (age)  + - inter\033[K\033[J"); /* cut at 40 */
    assert_int_equal(write(terminal, "q", 1), 1);
    read_until(terminal, &seen, "\033[?1049l");
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    close(terminal);
    fake_llmd_stop(&f);
}

static void llmctl_top_wants_a_terminal(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "top"), 2);
    expect_contains(result.err, "status --watch");
    assert_string_equal(result.out, "");
    fake_llmd_stop(&f);
}

static void llmctl_logs_filters_and_follows(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "logs", "--request", "g2"), 0);
    assert_string_equal(result.out, "gateway\ng2\n\nworker 0.0\n");
    assert_int_equal(run_until("w2", &f, (char *[]){ "logs", "-f", NULL }), 0);
    assert_string_equal(result.out,
                        "g1\ng2\ng3\nw1[31m\nw2\n"); /* each once, however often asked */
    assert_int_equal(run_until("\"w2\"", &f, (char *[]){ "logs", "-f", "-n", "2", "--json", NULL }),
                     0);
    assert_string_equal(result.out, "{\"process\":\"worker 0.0\",\"line\":\"w1\\u001b[31m\"}\n"
                                    "{\"process\":\"worker 0.0\",\"line\":\"w2\"}\n");
    assert_int_equal(run(&f, "logs", "--level", "loud"), 2);
    assert_int_equal(run(&f, "logs", "--since", "5 weeks"), 2);
    fake_llmd_stop(&f);
}

static void llmctl_requests_sorts_and_filters(void **state)
{
    struct fake_llmd f = { 0 };

    (void)state;
    fake_llmd_start(&f);
    assert_int_equal(run(&f, "requests", "--state", "poisoned", "--json"), 0);
    assert_null(strstr(result.out, "\"running\""));
    expect_contains(result.out, "\"poisoned\"");
    assert_int_equal(run(&f, "requests", "--group", "0", "--json"), 0);
    assert_null(strstr(result.out, "\"poisoned\""));
    assert_int_equal(run(&f, "requests", "--sort", "generated"), 0);
    assert_true(strstr(result.out, "running") < strstr(result.out, "poisoned"));
    assert_int_equal(run(&f, "requests", "--sort", "beauty"), 2);
    assert_int_equal(run(&f, "requests", "--state", "asleep"), 2);
    fake_llmd_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llmctl_without_a_server_names_the_socket),
        cmocka_unit_test(llmctl_finds_the_folder_in_the_environment),
        cmocka_unit_test(llmctl_orders_reach_llmd),
        cmocka_unit_test(llmctl_reload_names_the_model_from_the_root),
        cmocka_unit_test(llmctl_tells_a_refusal),
        cmocka_unit_test(llmctl_wrong_usage_asks_nobody),
        cmocka_unit_test(llmctl_gives_up_on_a_server_that_talks_nonsense),
        cmocka_unit_test(llmctl_does_not_talk_to_strangers),
        cmocka_unit_test(llmctl_status_is_a_table_for_people),
        cmocka_unit_test(llmctl_status_json_has_stable_keys),
        cmocka_unit_test(llmctl_doctor_says_what_to_set),
        cmocka_unit_test(llmctl_status_watch_goes_on_until_interrupted),
        cmocka_unit_test(llmctl_config_shows_sources),
        cmocka_unit_test(llmctl_requests_shows_what_runs_and_what_is_poisoned),
        cmocka_unit_test(llmctl_logs_shows_the_last_lines_of_each),
        cmocka_unit_test(llmctl_version_needs_no_server),
        cmocka_unit_test(llmctl_wait_shows_states_until_ready),
        cmocka_unit_test(llmctl_wait_ends_when_it_cannot_become_ready),
        cmocka_unit_test(llmctl_generate_streams_the_answer),
        cmocka_unit_test(llmctl_generate_brings_the_key_of_the_environment),
        cmocka_unit_test(llmctl_key_makes_a_line_for_the_file),
        cmocka_unit_test(llmctl_generate_raw_writes_the_bytes_only),
        cmocka_unit_test(llmctl_generate_tells_what_the_server_refused),
        cmocka_unit_test(llmctl_generate_tells_an_answer_that_ended_early),
        cmocka_unit_test(llmctl_generate_stops_at_an_interrupt),
        cmocka_unit_test(llmctl_generate_without_an_address_says_so),
        cmocka_unit_test(llmctl_chat_sends_one_message),
        cmocka_unit_test(llmctl_chat_on_a_terminal_is_a_conversation),
        cmocka_unit_test(llmctl_top_draws_until_q_and_gives_the_terminal_back),
        cmocka_unit_test(llmctl_top_wants_a_terminal),
        cmocka_unit_test(llmctl_logs_filters_and_follows),
        cmocka_unit_test(llmctl_requests_sorts_and_filters),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
