/* test_gateway_keys.c - the real gateway with API keys: who gets in, how much each may have, whose turn it is,
 * and what of that is still true when the gateway was killed.  If this breaks, a stranger computes, a customer
 * is refused what he paid for, or one customer's load is every customer's outage. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/secret.h"
#include "gateway/routes.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

#define ALICE "Authorization: Bearer sk-alice\r\n"
#define BOB   "Authorization: bearer sk-bob\r\n" /* the scheme is in any case */
#define BODY  "{\"prompt\":\"Once\",\"max_tokens\":4,\"seed\":7}"

enum { KEY_ALICE = KEY_FIRST, KEY_BOB };

static struct harness h;
static char path[64];

/* ---- the file of keys ---- */

static void put_line(struct buf *out, const char *name, const char *key, const char *options)
{
    uint8_t hash[SECRET_HASH_BYTES];
    char hex[SECRET_HEX_BYTES];

    secret_hash(key, strlen(key), hash);
    secret_hash_hex(hash, hex);
    buf_printf(out, "%s sha256:%s %s\n", name, hex, options);
}

static void write_file(const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

/* NULL: not in it. */
static void write_keys(const char *alice, const char *bob)
{
    struct buf out = { 0 };

    buf_add_str(&out, "# of a test\n");
    if (alice)
        put_line(&out, "alice", "sk-alice", alice);
    if (bob)
        put_line(&out, "bob", "sk-bob", bob);
    write_file(out.data);
    buf_fini(&out);
}

/* ---- the house ---- */

static void open_house(const char *alice, const char *bob, const char *name, const char *value)
{
    static struct harness_setting settings[4];

    snprintf(path, sizeof path, "/tmp/llmd-test-keys-%d", getpid());
    write_keys(alice, bob);
    settings[0] = (struct harness_setting){ "api_keys_file", path };
    settings[1] = (struct harness_setting){ name, value };
    settings[2] = (struct harness_setting){ 0 };
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
}

static void close_house(void)
{
    assert_int_equal(harness_stop(&h), 0);
    assert_int_equal(connections_count(&h.connections), 0);
    assert_int_equal(harness_stat(&h, STAT_requests_active), 0);
    assert_int_equal(harness_stat(&h, STAT_requests_queued), 0);
    harness_free(&h);
    unlink(path);
}

static struct key_record *record_of(uint32_t key)
{
    return &connections_keys(&h.connections)[key];
}

static void ask(const char *method, const char *at, const char *headers, const char *body,
                struct answer *a)
{
    struct buf out = { 0 };
    int fd = client_connect(h.port);

    buf_printf(
        &out,
        "%s %s HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Type: application/json\r\n"
        "%sContent-Length: %zu\r\n\r\n%s",
        method, at, headers, strlen(body), body);
    client_send(fd, out.data, out.n);
    client_read(fd, a);
    close(fd);
    buf_fini(&out);
}

static int begin(const char *headers, const char *body)
{
    int fd = client_connect(h.port);

    client_post(fd, "/v1/completions", headers, body);
    return fd;
}

/* Wait up to 5 s until so many requests of a key are with the worker. */
static bool wait_going(uint32_t key, uint32_t wanted)
{
    uint32_t n = 0;

    for (int i = 0; i < 5000; i++) {
        n = 0;
        for (uint32_t slot = 0; slot < h.connections.hdr->n_slots; slot++) {
            const struct connection_record *r = connections_record(&h.connections, slot);
            n += connection_state(r) >= CONNECTION_WAITING && r->key == key &&
                 *(const volatile uint8_t *)&r->group[0] != CONNECTION_NO_GROUP;
        }
        if (n == wanted)
            return true;
        usleep(1000);
    }
    return false;
}

/* ---- who gets in ---- */

/* Every route of the table, without a key and with a wrong one. */
static void what_computes_or_reveals_wants_a_key(void **state)
{
    size_t n;
    const struct http_route *routes = routes_all(&n);
    struct answer a = { 0 };
    uint32_t n_refused = 0;

    (void)state;
    open_house("", "", NULL, NULL);
    for (size_t i = 0; i < n; i++) {
        const struct route *route = routes[i].serve;
        bool is_post = routes[i].methods & HTTP_METHOD_BIT(HTTP_POST);
        bool is_free = route->access == ROUTE_IS_OPEN;
        ask(is_post ? "POST" : "GET", routes[i].path, "", is_post ? "{}" : "", &a);
        assert_true(is_free ? a.status != 401 : a.status == 401);
        if (is_free)
            continue;
        n_refused++;
        assert_string_equal(answer_header(&a, "WWW-Authenticate"), "Bearer");
        assert_string_equal(answer_body(&a), route->dialect && route->dialect->id == DIALECT_TGI
                                                 ? ""
                                                 : "{\"error\":\"Unauthorized\"}");
        ask(is_post ? "POST" : "GET", routes[i].path, "Authorization: Bearer sk-mallory\r\n",
            is_post ? "{}" : "", &a);
        assert_int_equal(a.status, 401);
        assert_string_equal(answer_header(&a, "WWW-Authenticate"),
                            "Bearer error=\"invalid_token\"");
        ask(is_post ? "POST" : "GET", routes[i].path, ALICE, is_post ? "{}" : "", &a);
        assert_int_not_equal(a.status, 401);
    }
    assert_true(n_refused >= 10);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_unauthorized), 2 * n_refused);
    assert_int_equal(atomic_load(&h.workers[0].n_submits), 0);
    answer_fini(&a);
    close_house();
}

static void probes_and_preflights_need_no_key(void **state)
{
    static const char *const open[] = { "/", "/health", "/ping", "/health/live", "/health/ready" };
    struct answer a = { 0 };

    (void)state;
    open_house("", "", NULL, NULL);
    for (size_t i = 0; i < sizeof open / sizeof *open; i++) {
        ask("GET", open[i], "", "", &a);
        assert_int_equal(a.status, 200);
    }
    ask("OPTIONS", "/v1/chat/completions", "", "", &a);
    assert_int_equal(a.status, 200);
    ask("GET", "/metrics", "", "", &a);
    assert_int_equal(a.status, 401);
    harness_reload(&h, "metrics_access", "open");
    for (int i = 0; i < 1000 && a.status != 200; i++)
        ask("GET", "/metrics", "", "", &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close_house();
}

static void odd_forms_of_a_key_are_no_key(void **state)
{
    static const char *const odd[] = {
        "Authorization: sk-alice\r\n",
        "Authorization: Basic sk-alice\r\n",
        "Authorization: Bearer\r\n",
        "Authorization: Bearer sk-alice x\r\n",
        "Authorization: Bearer sk-alic\r\n",
        "Authorization: Bearer sk-alicee\r\n",
        "Authorization: Bearer SK-ALICE\r\n",
        "Authorization: Bearer sk-alice,sk-bob\r\n",
        "Api-Key: sk-alice\r\n",
    };
    struct answer a = { 0 };

    (void)state;
    open_house("", "", NULL, NULL);
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        ask("POST", "/v1/completions", odd[i], BODY, &a);
        assert_int_equal(a.status, 401);
    }
    ask("POST", "/v1/completions", "Authorization:   BEARER   sk-alice  \r\n", BODY, &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close_house();
}

/* The body is not waited for: a stranger cannot make us read. */
static void a_stranger_is_refused_before_his_body(void **state)
{
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: t\r\n"
                               "Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n";
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house("", "", NULL, NULL);
    fd = client_connect(h.port);
    client_send(fd, head, sizeof head - 1);
    client_read(fd, &a);
    assert_int_equal(a.status, 401);
    close(fd);
    answer_fini(&a);
    close_house();
}

static void the_setting_alone_is_a_key(void **state)
{
    static const struct harness_setting settings[] = { { "api_key", "sk-one" }, { 0 } };
    struct answer a = { 0 };

    (void)state;
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    ask("POST", "/v1/completions", "", BODY, &a);
    assert_int_equal(a.status, 401);
    ask("POST", "/v1/completions", "Authorization: Bearer sk-one\r\n", BODY, &a);
    assert_int_equal(a.status, 200);
    ask("GET", "/metrics", "Authorization: Bearer sk-one\r\n", "", &a);
    assert_non_null(strstr(answer_body(&a), "llmd_key_requests_total{key=\"default\"} 1\n"));
    answer_fini(&a);
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
}

/* ---- how much ---- */

static void limits_are_429_in_each_dialects_words(void **state)
{
    struct answer a = { 0 };

    (void)state;
    open_house("rpm=1", "", NULL, NULL);
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 200);
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 429);
    assert_in_range(atoi(answer_header(&a, "Retry-After")), 30, 60);
    assert_non_null(strstr(answer_body(&a), "\"type\":\"RateLimitError\""));
    assert_non_null(strstr(answer_body(&a), "\"API key 'alice' may make 1 requests per minute\""));
    ask("POST", "/generate", ALICE, "{\"inputs\":\"a\"}", &a);
    assert_int_equal(a.status, 429);
    assert_in_range(atoi(answer_header(&a, "Retry-After")), 30, 60);
    assert_string_equal(answer_body(&a),
                        "{\"error\":\"Model is overloaded\",\"error_type\":\"overloaded\"}");
    ask("POST", "/generate_stream", ALICE, "{\"inputs\":\"a\"}", &a);
    assert_int_equal(a.status, 200); /* TGI tells it inside the stream */
    assert_in_range(atoi(answer_header(&a, "Retry-After")), 30, 60);
    ask("POST", "/predict", ALICE, "{\"inputs\":\"a\"}", &a);
    assert_int_equal(a.status, 429);
    ask("POST", "/v1/completions", BOB, BODY, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_limited), 4);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_overload), 0);
    assert_int_equal(atomic_load(&record_of(KEY_ALICE)->n_limited), 4);
    answer_fini(&a);
    close_house();
}

/* Of prompt and answer, known when they are; the next request pays. */
static void tokens_are_counted_as_they_come(void **state)
{
    struct answer a = { 0 };

    (void)state;
    open_house("tpm=10", "tpm=100000", NULL, NULL);
    ask("POST", "/v1/completions", ALICE, "{\"prompt\":\"Once upon a time\",\"max_tokens\":30}",
        &a);
    assert_int_equal(a.status, 200);
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 429);
    assert_true(atoi(answer_header(&a, "Retry-After")) > 60);
    assert_non_null(strstr(answer_body(&a), "may use 10 tokens per minute"));
    ask("POST", "/v1/completions", BOB,
        "{\"prompt\":\"Once upon a time\",\"max_tokens\":30,\"n\":2}", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(atomic_load(&record_of(KEY_BOB)->n_prompt_tokens), 5);
    assert_int_equal(atomic_load(&record_of(KEY_BOB)->n_generated_tokens), 60);
    answer_fini(&a);
    close_house();
}

static void concurrency_is_given_back_on_every_path(void **state)
{
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house("concurrency=1", "", NULL, NULL);
    atomic_store(&h.workers[0].is_paused, true);
    fd = begin(ALICE, BODY);
    assert_true(wait_going(KEY_ALICE, 1));
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 429);
    assert_string_equal(answer_header(&a, "Retry-After"), "1");
    close(fd); /* the client leaves in the middle */
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    atomic_store(&h.workers[0].is_paused, false);
    ask("POST", "/v1/completions", ALICE, "not JSON", &a); /* refused by the parser */
    assert_int_equal(a.status, 400);
    ask("POST", "/generate", ALICE, "{\"inputs\":\"\"}", &a);
    assert_int_equal(a.status, 422);
    atomic_store(&h.workers[0].fail_at, 2); /* by the worker */
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 500);
    atomic_store(&h.workers[0].fail_at, 0);
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close_house();
}

/* ---- whose turn ---- */

static void a_flood_does_not_keep_others_waiting(void **state)
{
    enum { FLOOD = 6 };
    struct answer a = { 0 };
    int alice[FLOOD], bob;

    (void)state;
    open_house("", "", "max_num_seqs", "1");
    atomic_store(&h.workers[0].is_paused, true);
    for (int i = 0; i < FLOOD; i++) {
        alice[i] = begin(ALICE, BODY);
        assert_true(harness_wait_stat(&h, STAT_requests_active, (uint64_t)i + 1));
    }
    assert_true(wait_going(KEY_ALICE, 2)); /* one is computed, one may begin at once */
    assert_true(harness_wait_stat(&h, STAT_requests_queued, FLOOD - 2));
    bob = begin(BOB, BODY);
    assert_true(harness_wait_stat(&h, STAT_requests_queued, FLOOD - 1));
    close(alice[0]);
    assert_true(harness_wait_stat(&h, STAT_requests_queued, FLOOD - 2));
    close(alice[1]);
    assert_true(harness_wait_stat(&h, STAT_requests_queued, FLOOD - 3));
    assert_true(wait_going(KEY_BOB, 1));
    atomic_store(&h.workers[0].is_paused, false);
    client_read(bob, &a);
    assert_int_equal(a.status, 200);
    close(bob);
    for (int i = 2; i < FLOOD; i++) {
        client_read(alice[i], &a);
        assert_int_equal(a.status, 200);
        close(alice[i]);
    }
    answer_fini(&a);
    close_house();
}

static void a_class_goes_before_the_others(void **state)
{
    struct answer a = { 0 };
    int fds[5];

    (void)state;
    open_house("", "priority=-1", "max_num_seqs", "1");
    atomic_store(&h.workers[0].is_paused, true);
    for (int i = 0; i < 4; i++) {
        fds[i] = begin(ALICE, BODY);
        assert_true(harness_wait_stat(&h, STAT_requests_active, (uint64_t)i + 1));
    }
    assert_true(harness_wait_stat(&h, STAT_requests_queued, 2));
    fds[4] = begin(BOB, BODY);
    assert_true(harness_wait_stat(&h, STAT_requests_queued, 3));
    close(fds[0]);
    assert_true(wait_going(KEY_BOB, 1));
    atomic_store(&h.workers[0].is_paused, false);
    for (int i = 1; i < 5; i++) {
        client_read(fds[i], &a);
        assert_int_equal(a.status, 200);
        close(fds[i]);
    }
    answer_fini(&a);
    close_house();
}

/* ---- what changes while it runs ---- */

static void reload_takes_and_gives_keys(void **state)
{
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house("", NULL, NULL, NULL);
    atomic_store(&h.workers[0].is_paused, true);
    fd = begin(ALICE, BODY);
    assert_true(wait_going(KEY_ALICE, 1));
    write_keys(NULL, "");
    harness_reload(&h, "log_level", "error");
    a.status = 401;
    for (int i = 0; i < 1000 && a.status == 401; i++)
        ask("GET", "/v1/models", BOB, "", &a);
    assert_int_equal(a.status, 200);
    ask("GET", "/v1/models", ALICE, "", &a);
    assert_int_equal(a.status, 401);
    atomic_store(&h.workers[0].is_paused, false);
    client_read(fd, &a); /* she was let in */
    assert_int_equal(a.status, 200);
    close(fd);
    write_file("broken\n");
    harness_reload(&h, "max_concurrent_requests", "17"); /* in the same message */
    for (int i = 0; i < 1000; i++) {
        ask("GET", "/info", BOB, "", &a);
        assert_int_equal(a.status, 200);
        if (strstr(answer_body(&a), "\"max_concurrent_requests\":17"))
            break;
    }
    ask("GET", "/v1/models", BOB, "", &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
    close_house();
}

/* ---- kill -9 ---- */

/* Killed while one request runs and one waits; meanwhile the operator breaks the file. */
static void a_dead_gateways_word_is_kept(void **state)
{
    struct answer a = { 0 };
    int going, waiting;

    (void)state;
    open_house("rpm=3 concurrency=2", "", "max_num_seqs", "1");
    harness_reload(&h, "max_concurrent_requests", "100");
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 200);
    atomic_store(&h.workers[0].is_paused, true);
    going = begin(ALICE, BODY);
    assert_true(wait_going(KEY_ALICE, 1));
    waiting = begin(ALICE, "{\"prompt\":\"Two\",\"max_tokens\":4,\"seed\":7,\"n\":2}");
    assert_true(harness_wait_stat(&h, STAT_requests_active, 2));
    write_file("broken\n");
    harness_kill(&h);
    assert_true(harness_respawn(&h));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 2));

    ask("POST", "/v1/completions", ALICE, BODY, &a); /* her concurrency is still hers */
    assert_int_equal(a.status, 429);
    assert_non_null(strstr(answer_body(&a), "2 requests at once"));
    ask("POST", "/v1/completions", "", BODY, &a); /* nobody gets in by the crash */
    assert_int_equal(a.status, 401);
    atomic_store(&h.workers[0].is_paused, false);
    client_read(going, &a);
    assert_int_equal(a.status, 200);
    client_read(waiting, &a);
    assert_int_equal(a.status, 200);
    close(going);
    close(waiting);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    ask("POST", "/v1/completions", ALICE, BODY, &a); /* and her minute is used up */
    assert_int_equal(a.status, 429);
    assert_non_null(strstr(answer_body(&a), "3 requests per minute"));
    assert_int_equal(atomic_load(&record_of(KEY_ALICE)->n_requests), 3);
    assert_int_equal(atomic_load(&record_of(KEY_ALICE)->n_generated_tokens), 4 + 4 + 2 * 4);
    answer_fini(&a);
    close_house();
}

/* A key that is gone from the file when the successor reads it: what it began goes on all the same. */
static void a_request_needs_its_key_only_once(void **state)
{
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house("", "", NULL, NULL);
    atomic_store(&h.workers[0].is_paused, true);
    fd = begin(ALICE, "{\"prompt\":\"Two\",\"max_tokens\":30,\"seed\":7,\"stream\":true}");
    assert_true(wait_going(KEY_ALICE, 1));
    write_keys(NULL, "");
    harness_kill(&h);
    assert_true(harness_respawn(&h));
    atomic_store(&h.workers[0].is_paused, false);
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    assert_true(a.is_whole);
    close(fd);
    ask("POST", "/v1/completions", ALICE, BODY, &a);
    assert_int_equal(a.status, 401);
    assert_int_equal(harness_stat(&h, STAT_requests_generate), 1);
    assert_int_equal(harness_stat(&h, STAT_requests_refused_unauthorized), 1);
    answer_fini(&a);
    close_house();
}

/* Killed when the head was read and nothing decided: the successor must decide, not believe it was. */
static void who_was_not_let_in_is_asked_again(void **state)
{
    static const char head[] = "POST /v1/completions HTTP/1.1\r\nHost: t\r\nConnection: close\r\n"
                               "Content-Type: application/json\r\nContent-Length: 41\r\n";
    struct answer a = { 0 };
    int fd;

    (void)state;
    open_house("", "", NULL, NULL);
    fd = client_connect(h.port);
    client_send(fd, head, sizeof head - 1); /* the head goes on */
    assert_true(harness_take(&h, 1));
    harness_kill(&h);
    client_send(fd, "\r\n" BODY, 2 + sizeof BODY - 1);
    assert_true(harness_respawn(&h));
    client_read(fd, &a);
    assert_int_equal(a.status, 401);
    close(fd);
    answer_fini(&a);
    close_house();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_computes_or_reveals_wants_a_key),
        cmocka_unit_test(probes_and_preflights_need_no_key),
        cmocka_unit_test(odd_forms_of_a_key_are_no_key),
        cmocka_unit_test(a_stranger_is_refused_before_his_body),
        cmocka_unit_test(the_setting_alone_is_a_key),
        cmocka_unit_test(limits_are_429_in_each_dialects_words),
        cmocka_unit_test(tokens_are_counted_as_they_come),
        cmocka_unit_test(concurrency_is_given_back_on_every_path),
        cmocka_unit_test(a_flood_does_not_keep_others_waiting),
        cmocka_unit_test(a_class_goes_before_the_others),
        cmocka_unit_test(reload_takes_and_gives_keys),
        cmocka_unit_test(a_dead_gateways_word_is_kept),
        cmocka_unit_test(a_request_needs_its_key_only_once),
        cmocka_unit_test(who_was_not_let_in_is_asked_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
