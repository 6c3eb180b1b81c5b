/* test_bench.c - `llmctl bench` against a server of known timing.
 *
 * What would break in production: figures that flatter a server, because waiting before a request is sent does
 * not count, or because what failed counts as fast. */
#include <arpa/inet.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "llmctl/bench_prompts.h"
#include "llmctl/bench_report.h"
#include "tests/check.h"

/* ---- the server: a thread for each connection ---- */

enum { EVENTS = 6, PROMPT_TOKENS = 7, TOKENS = 12, BODIES_MAX = 256 };

static struct {
    int listener, port;
    pthread_mutex_t mutex;
    unsigned first_ms, gap_ms;
    bool one_at_a_time;
    const char *trouble; /* "", "503", "cut", "error", "silent": of every second request */
    unsigned n_requests;
    double first_sum_ms; /* from the request's last byte to the first event's write */
    struct buf asked;    /* all bodies, a line each */
    pthread_mutex_t turn;
} server = { .mutex = PTHREAD_MUTEX_INITIALIZER, .turn = PTHREAD_MUTEX_INITIALIZER };

static void nap(unsigned ms)
{
    usleep(ms * 1000);
}

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return;
}

static void say_event(int fd, bool tgi, int i)
{
    char event[256];

    if (tgi && i + 1 < EVENTS)
        snprintf(event, sizeof event, "data:{\"token\":{\"id\":1,\"text\":\"a\"}}\n\n");
    else if (tgi)
        snprintf(event, sizeof event,
                 "data:{\"token\":{\"id\":1,\"text\":\"a\"},\"generated_text\":\"aa\","
                 "\"details\":{\"generated_tokens\":%d,\"input_length\":%d}}\n\n",
                 TOKENS, PROMPT_TOKENS);
    else
        snprintf(event, sizeof event,
                 "data: {\"choices\":[{\"text\":\"a\",\"delta\":{\"content\":\"a\"},"
                 "\"finish_reason\":%s}]}\n\n",
                 i + 1 == EVENTS ? "\"length\"" : "null");
    say(fd, event);
}

/* Two events of tokens for each that is sent: a server may merge them. */
static void stream(int fd, bool tgi, const char *trouble)
{
    char usage[128];

    say(fd, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    for (int i = 0; i < EVENTS; i++) {
        if (i > 0)
            nap(server.gap_ms);
        say_event(fd, tgi, i);
        if (i == 2 && strcmp(trouble, "cut") == 0)
            return;
        if (i == 2 && strcmp(trouble, "error") == 0) {
            say(fd, "data: {\"error\":{\"message\":\"out of luck\"}}\n\n");
            return;
        }
    }
    snprintf(usage, sizeof usage,
             "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":%d,\"completion_tokens\":%d}}\n\n",
             PROMPT_TOKENS, TOKENS);
    if (!tgi) {
        say(fd, usage);
        say(fd, "data: [DONE]\n\n");
    }
}

/* Until the body is whole. */
static bool read_request(int fd, char *bytes, size_t cap)
{
    size_t n = 0, want = 0;

    while (n + 1 < cap) {
        char *body, *length;
        ssize_t got = read(fd, bytes + n, cap - 1 - n);
        if (got <= 0)
            return false;
        n += (size_t)got;
        bytes[n] = '\0';
        body = strstr(bytes, "\r\n\r\n");
        if (!body)
            continue;
        length = strcasestr(bytes, "content-length:");
        want = length ? strtoul(length + 15, NULL, 10) : 0;
        if (bytes + n >= body + 4 + want)
            return true;
    }
    return false;
}

static void answer(int fd, const char *request, uint64_t asked_ns)
{
    bool tgi = strncmp(request, "POST /generate_stream", 21) == 0;
    const char *trouble = "";
    unsigned number;

    if (strncmp(request, "GET /v1/models", 14) == 0) {
        say(fd, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"data\":[{\"id\":\"scripted\"}]}");
        return;
    }
    pthread_mutex_lock(&server.mutex);
    number = server.n_requests++;
    buf_add_str(&server.asked, strstr(request, "\r\n\r\n") + 4);
    buf_add_char(&server.asked, '\n');
    pthread_mutex_unlock(&server.mutex);
    if (number % 2 == 1)
        trouble = server.trouble;
    if (server.one_at_a_time)
        pthread_mutex_lock(&server.turn);
    nap(server.first_ms);
    pthread_mutex_lock(&server.mutex);
    server.first_sum_ms += (double)(clock_mono_ns() - asked_ns) / 1e6;
    pthread_mutex_unlock(&server.mutex);
    if (strcmp(trouble, "503") == 0)
        say(fd, "HTTP/1.1 503 Busy\r\nConnection: close\r\n\r\n{\"error\":\"busy\"}");
    else if (strcmp(trouble, "silent") != 0)
        stream(fd, tgi, trouble);
    if (server.one_at_a_time)
        pthread_mutex_unlock(&server.turn);
}

static void *connection(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char *request = malloc(1 << 16);

    if (read_request(fd, request, 1 << 16))
        answer(fd, request, clock_mono_ns());
    free(request);
    close(fd);
    return NULL;
}

static void *listening(void *arg)
{
    int fd;

    (void)arg;
    while ((fd = accept(server.listener, NULL, NULL)) >= 0) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, connection, (void *)(intptr_t)fd), 0);
        pthread_detach(thread);
    }
    return NULL;
}

static int open_server(void **state)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t n = sizeof address;
    pthread_t thread;

    (void)state;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.listener, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(server.listener, 128), 0);
    getsockname(server.listener, (struct sockaddr *)&address, &n);
    server.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&thread, NULL, listening, NULL), 0);
    pthread_detach(thread);
    return 0;
}

static void script(unsigned first_ms, unsigned gap_ms, const char *trouble)
{
    pthread_mutex_lock(&server.mutex);
    server.first_ms = first_ms;
    server.gap_ms = gap_ms;
    server.trouble = trouble;
    server.one_at_a_time = false;
    server.n_requests = 0;
    server.first_sum_ms = 0;
    buf_clear(&server.asked);
    pthread_mutex_unlock(&server.mutex);
}

/* ---- llmctl ---- */

static int code;

static char *output(const char *arguments)
{
    char command[1024];
    struct buf out = { 0 };
    char bytes[4096];
    size_t n;
    int status;
    FILE *f;

    snprintf(command, sizeof command,
             "exec " TEST_BIN_DIR "/llmctl bench --url http://127.0.0.1:%d %s 2>/dev/null",
             server.port, arguments);
    f = popen(command, "r");
    assert_non_null(f);
    while ((n = fread(bytes, 1, sizeof bytes, f)) > 0)
        buf_add(&out, bytes, n);
    status = pclose(f);
    code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    buf_add_char(&out, '\0');
    return buf_take(&out);
}

static json_t *bench(const char *arguments)
{
    char *text = output(arguments);
    json_t *v = json_loads(text, 0, NULL);

    if (!v)
        fail_msg("no JSON in '%s' (exit code %d)", text, code);
    free(text);
    return v;
}

static double number(const json_t *v, const char *key)
{
    const json_t *n = json_object_get(v, key);

    if (!json_is_number(n))
        fail_msg("'%s' is no number", key);
    return json_number_value(n);
}

static void expect_between(const json_t *v, const char *key, double low, double high)
{
    double x = number(v, key);

    if (x < low || x > high)
        fail_msg("%s is %g, not in %g..%g", key, x, low, high);
}

/* ---- stories ---- */

static void times_are_those_of_the_server(void **state)
{
    static const char *const apis[] = { "openai", "chat", "tgi" };
    char arguments[128];

    (void)state;
    for (int i = 0; i < 3; i++) {
        script(60, 20, "");
        snprintf(arguments, sizeof arguments, "--json -c 3 -n 6 --api %s", apis[i]);
        json_t *v = bench(arguments);
        double truth = server.first_sum_ms / 6;
        assert_int_equal(code, 0);
        assert_int_equal(number(v, "completed"), 6);
        assert_int_equal(number(v, "total_input_tokens"), 6 * PROMPT_TOKENS);
        assert_int_equal(number(v, "total_output_tokens"), 6 * TOKENS);
        /* never before the server wrote it; later by the loopback and a busy machine */
        expect_between(v, "mean_ttft_ms", truth, truth + 500);
        expect_between(v, "mean_itl_ms", 19, 500);
        /* 5 gaps for the 11 tokens behind the first */
        expect_between(v, "mean_tpot_ms", number(v, "mean_itl_ms") * 5 / 11 - 0.5,
                       number(v, "mean_itl_ms") * 5 / 11 + 0.5);
        expect_between(v, "mean_e2el_ms", truth + 5 * 19, truth + 5 * 500 + 500);
        assert_true(number(v, "p50_ttft_ms") <= number(v, "p90_ttft_ms"));
        assert_true(number(v, "p90_ttft_ms") <= number(v, "p99_ttft_ms"));
        expect_between(v, "output_throughput", 1, 6 * TOKENS / (2 * 0.160));
        json_decref(v);
    }
}

/* Ten requests within a fraction of a second at a server that takes 60 ms for each: the last waits for nine. */
static void waiting_for_a_turn_counts(void **state)
{
    json_t *open, *closed;

    (void)state;
    script(10, 10, "");
    closed = bench("--json -c 1 -n 10");
    script(10, 10, "");
    open = bench("--json -c 1 -n 10 --rate 100000 --seed 5");
    expect_between(open, "max_ttft_ms", 9 * 60 + 9, 60000);
    expect_between(open, "max_late_ms", 9 * 60, 60000);
    assert_true(number(open, "p50_ttft_ms") > 3 * number(closed, "p50_ttft_ms"));
    json_decref(open);
    json_decref(closed);

    script(10, 10, "");
    server.one_at_a_time = true; /* the same when the server is who makes them wait */
    open = bench("--json -n 10 --rate 100000");
    expect_between(open, "max_ttft_ms", 9 * 60 + 9, 60000);
    json_decref(open);
}

static void failures_count_by_kind_and_not_as_speed(void **state)
{
    static const struct {
        const char *trouble, *kind;
    } cases[] = { { "503", "http" },
                  { "cut", "cut_short" },
                  { "error", "in_stream" },
                  { "silent", "connection" } };

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        script(0, 30, cases[i].trouble);
        json_t *v = bench("--json -c 1 -n 6");
        assert_int_equal(code, 1);
        assert_int_equal(number(v, "completed"), 3);
        assert_int_equal(number(v, "failed"), 3);
        assert_int_equal(number(json_object_get(v, "errors"), cases[i].kind), 3);
        expect_between(v, "mean_e2el_ms", 5 * 29, 60000); /* of the three whole ones */
        json_decref(v);
    }
    script(3000, 0, "");
    json_t *v = bench("--json -c 2 -n 2 --timeout 1");
    assert_int_equal(number(json_object_get(v, "errors"), "timeout"), 2);
    json_decref(v);
}

static void nobody_there_is_a_failure(void **state)
{
    char *text = output("--url http://127.0.0.1:1 --json -n 2 --model m");
    json_t *v = json_loads(text, 0, NULL);

    (void)state;
    assert_int_equal(code, 1);
    assert_int_equal(number(json_object_get(v, "errors"), "connection"), 2);
    assert_true(json_is_null(json_object_get(v, "mean_ttft_ms")));
    json_decref(v);
    free(text);
}

static void the_same_seed_asks_the_same(void **state)
{
    char *first;

    (void)state;
    script(0, 0, "");
    json_decref(bench("--json -c 1 -n 4 --seed 9 --input-tokens 12"));
    first = strdup(server.asked.data);
    assert_non_null(strstr(first, "\"seed\":9"));
    assert_non_null(strstr(first, "\"seed\":12"));
    assert_non_null(strstr(first, "\"model\":\"scripted\""));
    script(0, 0, "");
    json_decref(bench("--json -c 1 -n 4 --seed 9 --input-tokens 12"));
    assert_string_equal(server.asked.data, first);
    script(0, 0, "");
    json_decref(bench("--json -c 1 -n 4 --seed 10 --input-tokens 12"));
    assert_string_not_equal(server.asked.data, first);
    free(first);
}

static void prompts_come_from_a_file_and_rows_go_to_one(void **state)
{
    char path[] = "/tmp/llmd-bench-XXXXXX", csv[64], arguments[256], row[256];
    int fd = mkstemp(path), n_rows = 0;
    FILE *f;

    (void)state;
    assert_true(fd >= 0);
    dprintf(fd, "{\"prompt\":\"one\"}\nplain two\n\n{\"messages\":[{\"role\":\"user\","
                "\"content\":\"three\"}]}\n");
    close(fd);
    snprintf(csv, sizeof csv, "%s.csv", path);
    snprintf(arguments, sizeof arguments, "--json -c 1 -n 4 --prompts %s --csv %s", path, csv);
    script(0, 0, "");
    json_decref(bench(arguments));
    assert_non_null(strstr(server.asked.data, "\"prompt\":\"one\""));
    assert_non_null(strstr(server.asked.data, "\"prompt\":\"plain two\""));
    assert_non_null(strstr(server.asked.data, "\"prompt\":\"three\""));
    f = fopen(csv, "r");
    assert_non_null(f);
    while (fgets(row, sizeof row, f))
        n_rows++;
    assert_int_equal(n_rows, 5);
    fclose(f);
    f = fopen(path, "w");
    fputs("fine\n{\"no\":\"prompt\"}\n", f);
    fclose(f);
    free(output(arguments));
    assert_int_equal(code, 2);
    unlink(path);
    unlink(csv);
}

static void warm_up_counts_nowhere(void **state)
{
    json_t *v;

    (void)state;
    script(0, 0, "");
    v = bench("--json -c 2 -n 4 --warmup 3");
    assert_int_equal(server.n_requests, 7);
    assert_int_equal(number(v, "num_prompts"), 4);
    json_decref(v);
}

/* ---- arithmetic ---- */

static void percentiles_are_linear_between_neighbours(void **state)
{
    double ms[] = { 40, 10, 30, 20 }, one[] = { 5 };
    struct bench_figures f;

    (void)state;
    bench_figures_of(&f, ms, 4);
    assert_true(f.mean_ms == 25 && f.p50_ms == 25 && f.max_ms == 40);
    assert_true(f.p90_ms > 36.999 && f.p90_ms < 37.001);
    assert_true(f.std_ms > 11.18 && f.std_ms < 11.19);
    bench_figures_of(&f, one, 1);
    assert_true(f.p50_ms == 5 && f.p99_ms == 5 && f.std_ms == 0);
    bench_figures_of(&f, NULL, 0);
    assert_int_equal(f.n, 0);
}

/* Mean 1 / rate, standard deviation the same: exponential. */
static void arrivals_are_a_poisson_process(void **state)
{
    uint64_t random = 7;
    double sum = 0, squares = 0;
    enum { N = 100000 };

    (void)state;
    for (int i = 0; i < N; i++) {
        double s = bench_interval(&random, 20);
        assert_true(s >= 0);
        sum += s;
        squares += s * s;
    }
    assert_true(sum / N > 0.0495 && sum / N < 0.0505);
    assert_true(squares / N > 2 * 0.05 * 0.05 * 0.97 && squares / N < 2 * 0.05 * 0.05 * 1.03);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_are_those_of_the_server),
        cmocka_unit_test(waiting_for_a_turn_counts),
        cmocka_unit_test(failures_count_by_kind_and_not_as_speed),
        cmocka_unit_test(nobody_there_is_a_failure),
        cmocka_unit_test(the_same_seed_asks_the_same),
        cmocka_unit_test(prompts_come_from_a_file_and_rows_go_to_one),
        cmocka_unit_test(warm_up_counts_nowhere),
        cmocka_unit_test(percentiles_are_linear_between_neighbours),
        cmocka_unit_test(arrivals_are_a_poisson_process),
    };

    return cmocka_run_group_tests(tests, open_server, NULL);
}
