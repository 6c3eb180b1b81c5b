/* test_metrics_system.c - the metrics of the whole system, as those see them who look at nothing else: promtool, a
 * real Prometheus, and a graph over many restarts.
 *
 * What would break in production: one bad line, and the scraper refuses the page; a counter that goes backwards, and
 * a rate is a spike of nonsense in the night of the crash.  Both programs are from Debian's package prometheus;
 * where it is not installed their tests say so and are skipped. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/mem.h"
#include "common/secret.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

#define KEY  "sk-metrics"
#define AUTH "Authorization: Bearer " KEY "\r\n"

enum { PATIENCE_MS = 60000 };

static struct system s;
static char keys_path[64];

/* ---- the system, with an API key: a scraper has one too ---- */

static void write_keys(const char *const *names, const char *const *keys)
{
    FILE *f = fopen(keys_path, "w");

    assert_non_null(f);
    for (; *names; names++, keys++) {
        uint8_t hash[SECRET_HASH_BYTES];
        char hex[SECRET_HEX_BYTES];
        secret_hash(*keys, strlen(*keys), hash);
        secret_hash_hex(hash, hex);
        fprintf(f, "%s sha256:%s\n", *names, hex);
    }
    assert_int_equal(fclose(f), 0);
}

static int ask(const char *path, const char *headers, const char *body, struct buf *out)
{
    struct exchange x;
    int status;

    exchange_start(&x, s.port, path, headers, body);
    assert_true(exchanges_run(&x, 1, PATIENCE_MS));
    status = exchange_finish(&x) ? x.status : 0;
    if (out)
        buf_add(out, x.body.data ? x.body.data : "", x.body.n);
    http_exchange_close(&x);
    return status;
}

static void generate(int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(ask("/v1/completions", AUTH,
                             "{\"prompt\":\"Once upon a time\",\"max_tokens\":20,\"n\":2}", NULL),
                         200);
}

static int set_up(void **state)
{
    static const char *const names[] = { "scraper", NULL }, *const keys[] = { KEY, NULL };
    const char *args[] = { "--model",
                           TEST_SOURCE_DIR "/models/stories-demo",
                           "--backoff-ms",
                           "10",
                           "--backoff-max-ms",
                           "10",
                           "--api-keys-file",
                           keys_path,
                           "--log-level",
                           "error",
                           NULL };

    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    snprintf(keys_path, sizeof keys_path, "/tmp/llmd-test-metrics-%d.keys", getpid());
    write_keys(names, keys);
    system_start_below_init(&s, args);
    generate(3);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    assert_int_equal(system_stop(&s), 0);
    unlink(keys_path);
    return 0;
}

static char *scrape(void)
{
    struct buf page = { 0 };

    assert_int_equal(ask("/metrics", AUTH, NULL, &page), 200);
    return buf_take(&page);
}

static bool has_program(const char *name)
{
    const char *path = getenv("PATH");
    char file[512];

    for (const char *at = path ? path : ""; *at; at += *at == ':') {
        size_t n = strcspn(at, ":");
        snprintf(file, sizeof file, "%.*s/%s", (int)n, at, name);
        if (access(file, X_OK) == 0)
            return true;
        at += n;
    }
    print_message("skipped: '%s' is not installed (Debian package prometheus)\n", name);
    return false;
}

/* ---- promtool ---- */

/* Its exit status: 0 nothing to say, 3 it has opinions on names, else the page is broken. */
static int promtool(const char *page, struct buf *said)
{
    int in[2], out[2], status;
    char bytes[4096];
    pid_t pid, writer;
    ssize_t n;

    assert_int_equal(pipe(in) | pipe(out), 0);
    pid = fork();
    if (pid == 0) {
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(out[1], 2);
        close(in[1]);
        close(out[0]);
        execlp("promtool", "promtool", "check", "metrics", (char *)NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    writer = fork(); /* the page is larger than a pipe */
    if (writer == 0) {
        close(out[0]);
        for (size_t at = 0, all = strlen(page); at < all; at += (size_t)n)
            if ((n = write(in[1], page + at, all - at)) <= 0)
                _exit(1);
        _exit(0);
    }
    close(in[1]);
    while ((n = read(out[0], bytes, sizeof bytes)) > 0)
        buf_add(said, bytes, (size_t)n);
    close(out[0]);
    waitpid(writer, NULL, 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Names that others gave may be against its rules; ours are not. */
static bool is_about_names_of_others(const char *line)
{
    return strncmp(line, "vllm:", 5) == 0 || strncmp(line, "tgi_", 4) == 0;
}

static void promtool_finds_nothing_wrong_with_our_names(void **state)
{
    struct buf said = { 0 };
    char *page, *save;
    int status;

    (void)state;
    if (!has_program("promtool"))
        skip();
    page = scrape();
    status = promtool(page, &said);
    if (status != 0 && status != 3)
        fail_msg("promtool check metrics: exit status %d: %s", status, said.data);
    for (char *line = said.n ? strtok_r(said.data, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save))
        if (!is_about_names_of_others(line))
            fail_msg("promtool check metrics: %s", line);
    free(page);
    buf_fini(&said);
}

/* ---- nothing goes backwards ---- */

struct sample {
    char *name; /* labels included */
    double value;
};

/* Samples of counters, histograms and summaries. */
static size_t read_samples(char *page, struct sample **samples)
{
    bool only_grows = false;
    size_t n = 0, cap = 0;
    char *save;

    for (char *line = strtok_r(page, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *space = strrchr(line, ' ');
        if (strncmp(line, "# TYPE ", 7) == 0)
            only_grows = space && strcmp(space, " gauge") != 0;
        if (line[0] == '#' || !only_grows || !space)
            continue;
        if (n == cap)
            *samples = mem_realloc(*samples, (cap = cap ? cap * 2 : 256) * sizeof **samples);
        (*samples)[n++] =
            (struct sample){ mem_strndup(line, (size_t)(space - line)), strtod(space, NULL) };
    }
    return n;
}

static void free_samples(struct sample *samples, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(samples[i].name);
    free(samples);
}

/* Both pages have them in the same order: those of a process that is down are there too. */
static void expect_grown(const struct sample *before, size_t n, const char *died)
{
    struct sample *after = NULL;
    char *page = scrape();
    size_t n_after = read_samples(page, &after), at = 0;

    for (size_t i = 0; i < n; i++) {
        while (at < n_after && strcmp(after[at].name, before[i].name) != 0)
            at++;
        if (at == n_after)
            fail_msg("after the death of %s %s is gone", died, before[i].name);
        if (after[at].value < before[i].value)
            fail_msg("after the death of %s %s fell from %.17g to %.17g", died, before[i].name,
                     before[i].value, after[at].value);
    }
    free_samples(after, n_after);
    free(page);
}

static bool wait_other_pid(const char *process, pid_t old)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;

    while (clock_mono_ns() < end_ns) {
        pid_t now = system_pid_of(&s, process);
        if (now > 0 && now != old && system_wait_ready(&s, PATIENCE_MS))
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
    }
    return false;
}

static void no_counter_goes_backwards_when_a_process_dies(void **state)
{
    static const char *const processes[] = { "gateway", "worker 0.0", "llmd", "gateway" };

    (void)state;
    for (size_t i = 0; i < sizeof processes / sizeof *processes; i++) {
        struct sample *before = NULL;
        char *page = scrape();
        size_t n = read_samples(page, &before);
        pid_t pid = system_pid_of(&s, processes[i]);
        assert_true(n > 500);
        kill(pid, SIGKILL);
        assert_true(wait_other_pid(processes[i], pid));
        expect_grown(before, n, processes[i]);
        generate(1);
        expect_grown(before, n, processes[i]);
        free_samples(before, n);
        free(page);
    }
}

/* ---- Prometheus ---- */

/* A port that was free a moment ago. */
static int free_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void write_config(const char *dir)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/prometheus.yml", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f,
            "global:\n  scrape_interval: 200ms\n  scrape_timeout: 200ms\n"
            "scrape_configs:\n"
            "  - job_name: llmd\n"
            "    authorization:\n      credentials: %s\n"
            "    static_configs:\n      - targets: ['127.0.0.1:%d']\n",
            KEY, s.port);
    assert_int_equal(fclose(f), 0);
}

static pid_t start_prometheus(const char *dir, int port)
{
    char config[160], store[160], address[64], log[160];
    pid_t pid = fork();
    int fd;

    assert_true(pid >= 0);
    if (pid > 0)
        return pid;
    snprintf(config, sizeof config, "--config.file=%s/prometheus.yml", dir);
    snprintf(store, sizeof store, "--storage.tsdb.path=%s/data", dir);
    snprintf(address, sizeof address, "--web.listen-address=127.0.0.1:%d", port);
    snprintf(log, sizeof log, "%s/log", dir);
    fd = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    dup2(fd, 1);
    dup2(fd, 2);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    execlp("prometheus", "prometheus", config, store, address, (char *)NULL);
    _exit(127);
}

/* The value of the only series that a query finds; -1: there is none yet. */
static double query(int port, const char *expression)
{
    struct buf out = { 0 };
    char path[256];
    double value = -1;
    json_t *v;

    snprintf(path, sizeof path, "/api/v1/query?query=%s", expression);
    if (http_ask(port, path, NULL, &out) == 200 && (v = json_parse(out.data, out.n, NULL))) {
        json_t *list = json_object_get(json_object_get(v, "data"), "result");
        json_t *pair = json_object_get(json_array_get(list, 0), "value");
        if (json_array_size(list) == 1)
            value = strtod(json_string_value(json_array_get(pair, 1)), NULL);
        json_decref(v);
    }
    buf_fini(&out);
    return value;
}

static bool wait_query(int port, const char *expression, double wanted)
{
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;

    while (clock_mono_ns() < end_ns) {
        if (query(port, expression) >= wanted)
            return true;
        nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
    }
    return false;
}

static void a_real_prometheus_scrapes_it(void **state)
{
    char dir[] = "/tmp/llmd-test-prometheus-XXXXXX", command[64];
    int port = free_port(), status;
    struct buf targets = { 0 };
    pid_t pid;

    (void)state;
    if (!has_program("prometheus"))
        skip();
    assert_non_null(mkdtemp(dir));
    write_config(dir);
    pid = start_prometheus(dir, port);
    assert_true(wait_query(port, "up", 1));
    assert_true(wait_query(port, "llmd_requests_generate_total", 3));
    assert_true(wait_query(port, "llmd_key_requests_total", 3));
    assert_true(wait_query(port, "vllm:time_to_first_token_seconds_count", 3));
    assert_true(wait_query(port, "tgi_request_success", 3));
    generate(1);
    assert_true(wait_query(port, "llmd_key_requests_total%7Bkey=%22scraper%22%7D", 4));
    assert_int_equal(http_ask(port, "/api/v1/targets", NULL, &targets), 200);
    assert_non_null(strstr(targets.data, "\"lastError\":\"\""));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    assert_int_equal(system(command), 0);
    buf_fini(&targets);
}

/* ---- keys ---- */

/* llmctl's order, by the way it takes: llmd reads the file, then the gateway. */
static void reload_reads_the_file_of_keys_again(void **state)
{
    static const char *const names[] = { "scraper", "late", NULL }, *const keys[] = { KEY,
                                                                                      "sk-late",
                                                                                      NULL };
    uint64_t end_ns = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    Llmd__CtlReply *reply;
    FILE *f;

    (void)state;
    write_keys(names, keys);
    assert_int_equal(ask("/v1/models", "Authorization: Bearer sk-late\r\n", NULL, NULL), 401);
    reply = system_ask(&s, LLMD__CTL_COMMAND__CTL_RELOAD);
    assert_true(reply && reply->ok);
    frame_free_body(reply);
    while (ask("/v1/models", "Authorization: Bearer sk-late\r\n", NULL, NULL) != 200)
        assert_true(clock_mono_ns() < end_ns);
    f = fopen(keys_path, "a");
    assert_non_null(f);
    fputs("broken line\n", f);
    fclose(f);
    reply = system_ask(&s, LLMD__CTL_COMMAND__CTL_RELOAD);
    assert_true(reply && !reply->ok);
    assert_non_null(strstr(reply->error, "line 3"));
    frame_free_body(reply);
    assert_int_equal(ask("/v1/models", "Authorization: Bearer sk-late\r\n", NULL, NULL), 200);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(promtool_finds_nothing_wrong_with_our_names),
        cmocka_unit_test(a_real_prometheus_scrapes_it),
        cmocka_unit_test(no_counter_goes_backwards_when_a_process_dies),
        cmocka_unit_test(reload_reads_the_file_of_keys_again),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
