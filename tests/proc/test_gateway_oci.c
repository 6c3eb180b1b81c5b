/* test_gateway_oci.c - the real gateway with an OCI deployment's variables: its paths, the forms of /predict,
 * and the time within which the service's edge wants an answer. */
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

/* MODEL_DEPLOY_PREDICT_ENDPOINT=/generate, as the sample's README asks of the TGI container. */
static const struct harness_setting tgi_deployment[] = {
    { "predict_endpoint", "/generate" },
    { "health_endpoint", "/status" },
    { "custom_endpoints", "[{\"endpointURI\":\"/a2a\",\"httpMethods\":[\"POST\"]},"
                          "{\"endpointURI\":\"/card\",\"httpMethods\":[\"GET\",\"POST\"]},"
                          "{\"endpointURI\":\"no path\"},{\"httpMethods\":[]},5]" },
    { NULL, NULL },
};

/* A path that nobody knows, and short answers. */
static const struct harness_setting own_deployment[] = {
    { "predict_endpoint", "/score" },
    { "health_endpoint", "/v1/health/ready" },
    { "custom_endpoints", "{\"endpointURI\"" },
    { "predict_timeout_s", "1" },
    { "predict_stream", "sse" },
    { NULL, NULL },
};

/* On the service itself every route has an edge before it. */
static const struct harness_setting on_oci[] = {
    { "deployment_ocid", "ocid1.datasciencemodeldeployment.oc1.iad.a" },
    { "predict_timeout_s", "1" },
    { NULL, NULL },
};

static int start(const struct harness_setting *settings)
{
    memset(&h, 0, sizeof h);
    harness_start(&h, 1, settings);
    harness_start_worker(&h, 0);
    return 0;
}

static int start_tgi(void **state)
{
    (void)state;
    return start(tgi_deployment);
}

static int start_own(void **state)
{
    (void)state;
    return start(own_deployment);
}

static int start_on_oci(void **state)
{
    (void)state;
    return start(on_oci);
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(harness_stop(&h), 0);
    harness_free(&h);
    return 0;
}

static void expect_begin(const struct answer *a, int status, const char *want)
{
    if (a->status != status || strncmp(answer_body(a), want, strlen(want)) != 0)
        fail_msg("%d %s\n  is not %d with %s", a->status, answer_body(a), status, want);
}

static void expect(const char *path, const char *headers, const char *body, int status,
                   const char *want)
{
    struct answer a = { 0 };

    client_request(h.port, path, headers, body, &a);
    expect_begin(&a, status, want);
    answer_fini(&a);
}

#define GENERATE "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2,\"details\":true}}"
#define COMPLETE "{\"prompt\":\"One day\",\"max_tokens\":2}"

#define COMPLETE_LONG "{\"prompt\":\"One day\",\"max_tokens\":400}"

/* ---- the TGI container's deployment ---- */

static void predict_answers_as_the_endpoint_it_is_mapped_to(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/predict", "", GENERATE, &a);
    expect_begin(&a, 200, "{\"generated_text\":\"");
    assert_non_null(strstr(answer_body(&a), "\"details\":{\"finish_reason\":\"length\""));
    assert_string_equal(answer_header(&a, "x-generated-tokens"), "2");
    expect("/predict", "", "{\"inputs\":\"One day\",\"parameters\":{\"top_p\":1.0}}", 422,
           "{\"error\":\"Input validation error: `top_p` must be > 0.0 and < 1.0\","
           "\"error_type\":\"validation\"}");
    expect("/predict", "Content-Type: text/plain\r\n", GENERATE, 415, "Expected request with");
    /* what the sample's application sends */
    expect(
        "/predict", "",
        "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":2,\"return_full_text\":false,"
        "\"watermark\":true,\"seed\":42,\"temperature\":1.0,\"top_p\":0.95}}",
        200, "{\"generated_text\":\"");
    answer_fini(&a);
}

static void a_route_header_names_another(void **state)
{
    (void)state;
    expect("/predict", "route: /v1/completions\r\n", COMPLETE, 200, "{\"id\":\"cmpl-");
    expect("/predict", "route: /v1/chat/completions\r\nAccept: application/json\r\n",
           "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":1}", 200,
           "{\"id\":\"chatcmpl-");
    expect("/predictWithResponseStream", "route: /generate_stream\r\n",
           "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":1}}", 200,
           "data: {\"index\":1,");
    expect("/predict", "route: /nowhere\r\n", GENERATE, 200, "{\"generated_text\":\"");
    expect("/predict", "route: /info\r\n", GENERATE, 200, "{\"generated_text\":\""); /* a GET */
}

/* As the service shows them from outside. */
static void other_routes_lie_below_predict(void **state)
{
    (void)state;
    expect("/predict/v1/completions", "", COMPLETE, 200, "{\"id\":\"cmpl-");
    expect("/predictWithResponseStream/generate_stream", "",
           "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":1}}", 200,
           "data: {\"index\":1,");
    expect("/predict/nowhere", "", "{}", 404, "{\"detail\":\"Not Found\"}");
    expect("/predict/", "", "{}", 404, "{\"detail\":\"Not Found\"}");
}

static void named_paths_are_served(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_get(h.port, "/status", &a);
    assert_int_equal(a.status, 200);
    assert_int_equal(a.body.n, 0);
    expect("/status", "", "{}", 405, "{\"detail\":\"Method Not Allowed\"}");
    expect("/a2a", "", GENERATE, 200, "{\"generated_text\":\"");
    expect("/predict/a2a", "", GENERATE, 200, "{\"generated_text\":\"");
    client_get(h.port, "/a2a", &a);
    assert_int_equal(a.status, 405);
    assert_string_equal(answer_header(&a, "Allow"), "POST");
    client_get(h.port, "/card", &a);
    assert_int_equal(a.status, 200);
    expect("/card", "", GENERATE, 200, "{\"generated_text\":\"");
    answer_fini(&a);
}

/* ---- a deployment with paths of its own ---- */

static void an_unknown_endpoint_predicts(void **state)
{
    struct answer a = { 0 };

    (void)state;
    expect("/score", "", "{\"inputs\":\"One day\",\"n\":4,\"use_beam_search\":true}", 200,
           "{\"generated_text\":\"");
    expect("/score", "route: /generate\r\n", "{\"inputs\":\"\"}", 422,
           "{\"error\":\"Input validation error: `inputs` cannot be empty\"");
    client_get(h.port, "/v1/health/ready", &a);
    assert_int_equal(a.status, 200);
    answer_fini(&a);
}

static void openai_bodies_are_answered_on_predict(void **state)
{
    (void)state;
    expect("/predict", "", "{\"model\":\"\",\"prompt\":\"One day\",\"max_tokens\":2}", 200,
           "{\"id\":\"cmpl-");
    expect("/score", "", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],\"max_tokens\":1}",
           200, "{\"id\":\"chatcmpl-");
    expect("/predict", "", "{\"prompt\":\"One day\",\"top_p\":2}", 400, "{\"error\":{\"message\":");
    expect("/predict", "", "{\"text\":\"One day\"}", 422, "{\"error\":\"`inputs` is missing\"");
}

static void a_setting_makes_streams_events(void **state)
{
    struct answer a = { 0 };

    (void)state;
    client_request(h.port, "/predict", "",
                   "{\"inputs\":\"One day\",\"stream\":true,\"parameters\":{\"max_new_tokens\":1}}",
                   &a);
    expect_begin(&a, 200, "data: {\"text\": [\"One day");
    assert_string_equal(answer_header(&a, "Content-Type"), "text/event-stream");
    answer_fini(&a);
}

/* ---- time ---- */

#define SLOW_US 100000

static void expect_cut(const char *path, const char *body, const char *reason)
{
    uint32_t cancels = atomic_load(&h.workers[0].n_cancels);
    struct answer a = { 0 };
    json_t *root;

    atomic_store(&h.workers[0].step_us, SLOW_US);
    client_request(h.port, path, "", body, &a);
    atomic_store(&h.workers[0].step_us, 0);
    assert_int_equal(a.status, 200);
    if (!strstr(answer_body(&a), reason))
        fail_msg("%s\n  has no %s", answer_body(&a), reason);
    root = json_parse(answer_body(&a), a.body.n, NULL);
    assert_non_null(root);
    json_decref(root);
    assert_true(harness_wait_for(&h.workers[0].n_cancels, cancels + 1));
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    answer_fini(&a);
}

static void predict_ends_in_time_with_what_there_is(void **state)
{
    uint64_t before = harness_stat(&h, STAT_requests_finished_length);

    (void)state;
    expect_cut("/predict", "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":400}}",
               "\",\"finish_reason\":\"timeout\"}");
    expect_cut("/score", COMPLETE_LONG, "\"finish_reason\":\"length\"");
    assert_int_equal(harness_stat(&h, STAT_requests_finished_length), before + 2);
    expect_cut("/score",
               "{\"prompt\":\"One day\",\"max_tokens\":400,\"use_beam_search\":true,\"n\":2,"
               "\"temperature\":0}",
               "\"finish_reason\":\"abort\"");
}

/* Nothing was made: that is an error, and one of ours and not of the edge. */
static void predict_without_a_token_is_an_error_in_time(void **state)
{
    struct answer a = { 0 };

    (void)state;
    atomic_store(&h.workers[0].is_paused, true);
    client_request(h.port, "/predict", "", "{\"inputs\":\"One day\"}", &a);
    atomic_store(&h.workers[0].is_paused, false);
    expect_begin(&a, 504,
                 "{\"error\":\"the request took longer than 1 s\",\"error_type\":\"timeout\"}");
    answer_fini(&a);
}

/* The next gateway knows when the answer was to end. */
static void a_deadline_outlives_the_gateway(void **state)
{
    uint32_t submits = atomic_load(&h.workers[0].n_submits);
    struct answer a = { 0 };
    int fd = client_connect(h.port);

    (void)state;
    atomic_store(&h.workers[0].step_us, SLOW_US);
    client_post(fd, "/predict", "",
                "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":400}}");
    assert_true(harness_wait_for(&h.workers[0].n_submits, submits + 1));
    harness_kill(&h);
    assert_true(harness_respawn(&h));
    client_read(fd, &a);
    atomic_store(&h.workers[0].step_us, 0);
    expect_begin(&a, 200, "{\"generated_text\":\"");
    assert_non_null(strstr(answer_body(&a), "\",\"finish_reason\":\"timeout\"}"));
    close(fd);
    assert_true(harness_wait_stat(&h, STAT_requests_active, 0));
    answer_fini(&a);
}

static void what_is_no_prompt_is_refused(void **state)
{
    struct buf body = { 0 };

    (void)state;
    expect(
        "/predict", "", "{\"inputs\":\"a\",\"parameters\":null}", 422,
        "{\"error\":\"`parameters` must be an object, not null\",\"error_type\":\"validation\"}");
    expect("/predict", "", "{\"inputs\":\"\"}", 422, "{\"error\":\"`inputs` cannot be empty\"");
    buf_add_str(&body, "{\"inputs\":\"");
    for (int i = 0; i < 600; i++)
        buf_add_str(&body, "cat ");
    buf_add_str(&body, "\"}");
    expect("/predict", "", body.data, 422, "{\"error\":\"`inputs` must have less than 512 tokens");
    buf_fini(&body);
}

/* A stream, and a route that is not the edge's, may take longer. */
static void others_are_not_cut(void **state)
{
    struct answer a = { 0 };

    (void)state;
    atomic_store(&h.workers[0].step_us, SLOW_US);
    client_request(
        h.port, "/predict", "",
        "{\"inputs\":\"One day\",\"stream\":true,\"parameters\":{\"max_new_tokens\":14}}", &a);
    assert_true(a.is_whole);
    assert_null(strstr(answer_body(&a), "timeout"));
    client_request(h.port, "/generate", "",
                   "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":14}}", &a);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "x-generated-tokens"), "14");
    atomic_store(&h.workers[0].step_us, 0);
    answer_fini(&a);
}

static void on_oci_every_route_ends_in_time(void **state)
{
    (void)state;
    expect_cut("/generate",
               "{\"inputs\":\"One day\",\"parameters\":{\"max_new_tokens\":400,\"details\":true}}",
               "\"details\":{\"finish_reason\":\"length\"");
    expect_cut("/v1/completions", COMPLETE_LONG, "\"finish_reason\":\"length\"");
}

int main(void)
{
    const struct CMUnitTest tgi[] = {
        cmocka_unit_test(predict_answers_as_the_endpoint_it_is_mapped_to),
        cmocka_unit_test(a_route_header_names_another),
        cmocka_unit_test(other_routes_lie_below_predict),
        cmocka_unit_test(named_paths_are_served),
    };
    const struct CMUnitTest own[] = {
        cmocka_unit_test(an_unknown_endpoint_predicts),
        cmocka_unit_test(openai_bodies_are_answered_on_predict),
        cmocka_unit_test(a_setting_makes_streams_events),
        cmocka_unit_test(predict_ends_in_time_with_what_there_is),
        cmocka_unit_test(predict_without_a_token_is_an_error_in_time),
        cmocka_unit_test(a_deadline_outlives_the_gateway),
        cmocka_unit_test(what_is_no_prompt_is_refused),
        cmocka_unit_test(others_are_not_cut),
    };
    const struct CMUnitTest oci[] = {
        cmocka_unit_test(on_oci_every_route_ends_in_time),
    };
    int failed = cmocka_run_group_tests(tgi, start_tgi, stop);

    failed += cmocka_run_group_tests(own, start_own, stop);
    return failed + cmocka_run_group_tests(oci, start_on_oci, stop);
}
