/* test_gateway_pages.c - the real gateway on the routes that generate nothing (pages, tokens, embeddings,
 * metrics), and what headers say.  A wrong byte here is a client that no longer works. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "tests/gateway/client.h"
#include "tests/gateway/harness.h"

static struct harness h;

static int start(void **state)
{
    (void)state;
    harness_start(&h, 1, NULL);
    harness_start_worker(&h, 0);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    return 0;
}

static void pages_answer(void **state)
{
    static const struct {
        const char *path;
        int status;
        const char *text;
    } pages[] = {
        { "/health", 200, "" },
        { "/", 200, "" },
        { "/ping", 200, "" },
        { "/health/live", 200, "{\"status\":\"live\"}" },
        { "/health/ready", 200, "{\"status\":\"ready\",\"groups_ready\":1,\"groups\":1}" },
        { "/version", 200, "{\"version\":\"" LLMD_VERSION "\"}" },
        { "/load", 200, "{\"server_load\":0}" },
        { "/info", 200, "\"max_total_tokens\":512" },
        { "/v1/models", 200, "{\"object\":\"list\",\"data\":[{\"id\":\"stories-demo\"" },
        { "/v1/models/stories-demo", 200, "{\"id\":\"stories-demo\",\"object\":\"model\"" },
        { "/v1/models/meta-llama%2FLlama", 404,
          "{\"error\":{\"message\":\"The model `meta-llama/Llama` does not exist.\",\"type\":"
          "\"NotFoundError\",\"param\":\"model\",\"code\":404}}" },
        { "/v1/models/", 404, "{\"detail\":\"Not Found\"}" },
        { "/generate", 405, "" },
        { "/v1/completions", 405, "{\"detail\":\"Method Not Allowed\"}" },
    };
    struct answer a = { 0 };

    (void)state;
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        client_get(h.port, pages[i].path, &a);
        assert_int_equal(a.status, pages[i].status);
        if (pages[i].text[0])
            assert_non_null(strstr(answer_body(&a), pages[i].text));
        else
            assert_int_equal(a.body.n, 0);
        assert_string_equal(answer_header(&a, "Access-Control-Allow-Origin"), "*");
    }
    answer_fini(&a);
}

/* The header's word counts more than the body's, unless it is no integer. */
static void priorities_come_in_the_body_or_the_header(void **state)
{
    static const struct {
        const char *headers, *body;
        int priority;
    } rows[] = {
        { "", "{\"prompt\":\"a\",\"max_tokens\":1}", 0 },
        { "", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", 7 },
        { "X-Vllm-Priority: -3\r\n", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", -3 },
        { "X-Vllm-Priority: 3x\r\n", "{\"prompt\":\"a\",\"max_tokens\":1,\"priority\":7}", 7 },
        { "X-Vllm-Priority: 99999999999\r\n", "{\"prompt\":\"a\",\"max_tokens\":1}", 0 },
    };
    struct answer a = { 0 };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        client_request(h.port, "/v1/completions", rows[i].headers, rows[i].body, &a);
        assert_int_equal(a.status, 200);
        assert_int_equal(atomic_load(&h.workers[0].last_priority), rows[i].priority);
    }
    answer_fini(&a);
}

/* TGI and vLLM have a route of the same name: the body says whose is meant. */
static void both_dialects_tokenize_on_one_path(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/tokenize", "", "{\"prompt\":\"the dog\"}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_body(&a), "{\"count\":3,\"max_model_len\":512,\"tokens\":"
                                         "[1,264,533],\"token_strs\":null}");
    client_request(h.port, "/tokenize", "", "{\"inputs\":\"the\"}", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_body(&a), "[{\"id\":1,\"text\":"));
    client_request(h.port, "/tokenize", "", "{}", &a);
    assert_int_equal(a.status, 422);
    client_request(h.port, "/detokenize", "", "{\"tokens\":[264,533]}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_body(&a), "{\"prompt\":\"the dog\"}");
    client_request(h.port, "/detokenize", "Content-Type: text/plain\r\n", "{\"tokens\":[264]}", &a);
    assert_int_equal(a.status, 400);
    answer_fini(&a);
}

static json_t *embedding_of(json_t *root, size_t i)
{
    return json_object_get(json_array_get(json_object_get(root, "data"), i), "embedding");
}

/* More inputs than run at once, and each gets its own. */
static void embeddings_answer_in_the_order_of_their_inputs(void **state)
{
    enum { N_INPUTS = 300 };
    struct buf body = { 0 };
    struct answer a = { 0 };
    json_t *root;

    (void)state;
    buf_add_str(&body, "{\"input\":[");
    for (int i = 0; i < N_INPUTS; i++)
        buf_printf(&body, "%s[1,%d]", i ? "," : "", 300 + i);
    buf_add_str(&body, "]}");
    client_request(h.port, "/v1/embeddings", "", body.data, &a);
    assert_int_equal(a.status, 200);
    root = answer_json(&a);
    assert_int_equal(json_array_size(json_object_get(root, "data")), N_INPUTS);
    for (int i = 0; i < N_INPUTS; i++) {
        uint64_t key = fake_key((int32_t[]){ 1, 300 + i }, 2, 0);
        const json_t *v = embedding_of(root, (size_t)i);
        double x = (double)fake_embedding(key, LLMD__POOLING__POOL_LAST, 0), sum = 0;
        assert_int_equal(json_array_size(v), FAKE_EMBEDDING);
        for (uint32_t k = 0; k < FAKE_EMBEDDING; k++) {
            double f = (double)fake_embedding(key, LLMD__POOLING__POOL_LAST, k);
            sum += f * f;
        }
        assert_true(fabs(json_number_value(json_array_get(v, 0)) - x / sqrt(sum)) < 1e-6);
    }
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(root, "usage"), "prompt_tokens")),
        2 * N_INPUTS);
    json_decref(root);
    buf_fini(&body);
    answer_fini(&a);
}

static void a_browser_may_send_its_key(void **state)
{
    static const char ask[] =
        "OPTIONS /v1/chat/completions HTTP/1.1\r\nHost: t\r\nOrigin: http://page.example\r\n"
        "Access-Control-Request-Method: POST\r\n"
        "Access-Control-Request-Headers: authorization,content-type\r\n\r\n";
    int fd = client_connect(h.port);
    struct answer a = { 0 };

    (void)state;
    client_send(fd, ask, strlen(ask));
    client_read(fd, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Headers"), "*, Authorization");
    assert_string_equal(answer_header(&a, "Access-Control-Allow-Methods"), "GET,POST");
    close(fd);
    answer_fini(&a);
}

static void metrics_count_what_happened(void **state)
{
    struct answer a = { 0 };
    char line[160];

    (void)state;
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"a\",\"parameters\":{\"max_new_tokens\":2}}", &a);
    client_get(h.port, "/metrics", &a);
    assert_int_equal(a.status, 200);
    snprintf(line, sizeof line, "\nllmd_requests_generate_total %llu\n",
             (unsigned long long)harness_stat(&h, STAT_requests_generate));
    assert_non_null(strstr(answer_body(&a), line));
    snprintf(line, sizeof line, "\ntgi_request_count %llu\n",
             (unsigned long long)harness_stat(&h, STAT_requests_generate));
    assert_non_null(strstr(answer_body(&a), line));
    assert_non_null(strstr(answer_body(&a),
                           "vllm:time_to_first_token_seconds_bucket{model_name=\"stories-demo\","
                           "engine=\"0\",le=\"0.001\"} "));
    answer_fini(&a);
}

/* ---- the web pages ---- */

static void get_page(const char *method, const char *path, const char *headers, struct answer *a)
{
    char head[512];
    int fd = client_connect(h.port);
    int n = snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n",
                     method, path, headers);

    client_send(fd, head, (size_t)n);
    client_read(fd, a);
    close(fd);
}

/* TGI's probes and a browser ask on one path. */
static void a_browser_gets_pages_and_a_probe_none(void **state)
{
    static const char browser[] = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    char headers[256], asset[128], etag[64];
    struct answer a = { 0 };
    const char *at;

    (void)state;
    get_page("GET", "/", "Accept: */*\r\n", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    get_page("GET", "/", browser, &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "Content-Type"), "text/html; charset=utf-8");
    assert_non_null(strstr(answer_body(&a), "<title>llmd"));
    snprintf(etag, sizeof etag, "%s", answer_header(&a, "ETag"));
    snprintf(headers, sizeof headers, "%sIf-None-Match: %s\r\n", browser, etag);
    get_page("GET", "/", headers, &a);
    assert_int_equal(a.status, 304);
    assert_int_equal(a.body.n, 0);
    get_page("HEAD", "/", browser, &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    assert_string_equal(answer_header(&a, "ETag"), etag);

    get_page("GET", "/docs", "", &a);
    assert_non_null(at = strstr(answer_body(&a), "ui/assets/"));
    snprintf(asset, sizeof asset, "/%.*s", (int)strcspn(at, "\""), at);
    get_page("GET", asset, "Accept-Encoding: gzip\r\n", &a);
    assert_int_equal(a.status, 200);
    assert_non_null(strstr(answer_header(&a, "Cache-Control"), "immutable"));
    get_page("GET", "/ui/assets/..%2Fdocs.html", "", &a);
    assert_int_equal(a.status, 404);
    answer_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_answer),
        cmocka_unit_test(a_browser_gets_pages_and_a_probe_none),
        cmocka_unit_test(priorities_come_in_the_body_or_the_header),
        cmocka_unit_test(both_dialects_tokenize_on_one_path),
        cmocka_unit_test(embeddings_answer_in_the_order_of_their_inputs),
        cmocka_unit_test(a_browser_may_send_its_key),
        cmocka_unit_test(metrics_count_what_happened),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
