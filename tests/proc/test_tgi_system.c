/* test_tgi_system.c - the whole server in the place of the OCI sample's TGI container: started by that container's
 * variables alone, asked as its clients ask, with a real model behind.
 *
 * What would break in production: a deployment that changes the image and nothing else does not start; a
 * watermark that no detector finds; a "best of" that is not. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "gpu-worker/watermark.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"

#define MODEL TEST_SOURCE_DIR "/models/stories-demo"

enum { VOCAB = 2048, GREEN = 1024, N_TEXTS = 8 };

static struct system s;

static const char *const environment[][2] = {
    { "MODEL", MODEL },
    { "PARAMS", "--max-batch-prefill-tokens 1024 --json-output --max-best-of 3 --dtype float16" },
    { "MODEL_DEPLOY_PREDICT_ENDPOINT", "/generate" },
    { "MODEL_DEPLOY_HEALTH_ENDPOINT", "/status" },
    { "MODEL_DEPLOY_CUSTOM_ENDPOINTS", "[{\"endpointURI\":\"/a2a\",\"httpMethods\":[\"POST\"]}]" },
    { "MODEL_DEPLOY_ENABLE_STREAMING", "true" },
    { "MODEL_DEPLOYMENT_OCID", "ocid1.datasciencemodeldeployment.oc1.iad.a" },
    { "WEB_CONCURRENCY", "10" },
    { "STORAGE_SIZE_IN_GB", "950" },
    { "SHM_SIZE", "10g" },
    { "DEPLOYMENT_TIMEOUT_IN_MINUTES", "60" },
    { "CONTAINER_TYPE", "BYOC" },
    { "TOKEN_FILE", "/nowhere/token" },
    { "TENANCY_OCID", "ocid1.tenancy.oc1..a" },
    { "HOSTNAME", "6d2f0c" },
    { "COMPUTE_TYPE", "1-cpu" },
    { "LOG_LEVEL", "WARN" },
    { "TENSOR_PARALLELISM", "1" },
    { "TMPDIR", "/tmp" },
};

static int start(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof environment / sizeof *environment; i++)
        setenv(environment[i][0], environment[i][1], 1);
    system_start(&s, NULL);
    return 0;
}

static int stop(void **state)
{
    (void)state;
    assert_int_equal(system_stop(&s), 0);
    return 0;
}

static json_t *ask(const char *path, const char *body)
{
    struct buf out = { 0 };
    struct err e;
    int status = http_ask(s.port, path, body, &out);
    json_t *v = json_parse(out.data ? out.data : "", out.n, &e);

    if (status != 200 || !v)
        fail_msg("%s %s: %d %s", path, body, status, out.data ? out.data : "");
    buf_fini(&out);
    return v;
}

static const json_t *details_of(const json_t *answer)
{
    const json_t *details = json_object_get(answer, "details");

    assert_non_null(details);
    return details;
}

static void the_containers_variables_are_enough(void **state)
{
    struct buf out = { 0 };
    json_t *v;

    (void)state;
    assert_int_equal(http_ask(s.port, "/status", NULL, &out), 200);
    assert_int_equal(http_ask(s.port, "/health", NULL, &out), 200);
    buf_fini(&out);
    v = ask("/info", NULL);
    assert_int_equal(json_integer_value(json_object_get(v, "max_best_of")), 3);
    json_decref(v);
    /* the sample's application */
    v = ask("/predict", "{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":32,"
                        "\"return_full_text\":false,\"watermark\":true,\"seed\":42,"
                        "\"temperature\":1.0,\"top_p\":0.95}}");
    assert_true(json_string_length(json_object_get(v, "generated_text")) > 20);
    json_decref(v);
    v = ask("/a2a", "{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":2}}");
    assert_non_null(json_object_get(v, "generated_text"));
    json_decref(v);
}

/* ---- the watermark ---- */

static void count_greens(const json_t *tokens, size_t *n_green, size_t *n)
{
    static uint32_t ids[VOCAB];

    for (size_t i = 1; i < json_array_size(tokens); i++) {
        const json_t *before = json_object_get(json_array_get(tokens, i - 1), "id");
        const json_t *token = json_object_get(json_array_get(tokens, i), "id");
        watermark_green(ids, VOCAB, GREEN, (int32_t)json_integer_value(before));
        for (size_t k = 0; k < GREEN; k++)
            *n_green += ids[k] == (uint32_t)json_integer_value(token);
        ++*n;
    }
}

/* By how many standard deviations there are more green tokens than in text of others. */
static double z_score(bool is_marked)
{
    size_t n_green = 0, n = 0;
    char body[256];

    for (int i = 0; i < N_TEXTS; i++) {
        json_t *v;
        snprintf(body, sizeof body,
                 "{\"inputs\":\"Once upon a time\",\"parameters\":{\"max_new_tokens\":60,"
                 "\"watermark\":%s,\"do_sample\":true,\"seed\":%d,\"details\":true}}",
                 is_marked ? "true" : "false", i);
        v = ask("/generate", body);
        count_greens(json_object_get(details_of(v), "tokens"), &n_green, &n);
        json_decref(v);
    }
    assert_true(n > 100);
    return ((double)n_green - 0.5 * (double)n) / sqrt(0.25 * (double)n);
}

static void a_watermark_can_be_found(void **state)
{
    double marked = z_score(true), plain = z_score(false);

    (void)state;
    if (marked < 4 || plain > 3)
        fail_msg("z of marked text %.2f, of plain text %.2f", marked, plain);
}

/* ---- the prompt's log probabilities ---- */

static double logprob_at(const json_t *list, size_t i)
{
    const json_t *v = json_object_get(json_array_get(list, i), "logprob");

    return json_number_value(v);
}

/* What the model says of its own greedy words is the same whether it writes them or reads them. */
static void prefill_measures_as_generation_does(void **state)
{
    static const char start[] = "Once upon a time";
    enum { N_NEW = 12 };
    json_t *written = ask("/generate", "{\"inputs\":\"Once upon a time\",\"parameters\":"
                                       "{\"max_new_tokens\":12,\"details\":true}}");
    const json_t *tokens = json_object_get(details_of(written), "tokens");
    json_t *request, *read;
    const json_t *prefill;
    char *body;
    size_t n;

    (void)state;
    assert_int_equal(json_array_size(tokens), N_NEW);
    request = json_pack("{s:s+,s:{s:i,s:b}}", "inputs", start,
                        json_string_value(json_object_get(written, "generated_text")), "parameters",
                        "max_new_tokens", 1, "decoder_input_details", 1);
    body = json_dumps(request, 0);
    read = ask("/generate", body);
    prefill = json_object_get(details_of(read), "prefill");
    n = json_array_size(prefill);
    assert_true(n > N_NEW);
    assert_true(json_is_null(json_object_get(json_array_get(prefill, 0), "logprob")));
    for (size_t i = 0; i < N_NEW; i++) {
        size_t at = n - N_NEW + i;
        assert_true(json_equal(json_object_get(json_array_get(prefill, at), "id"),
                               json_object_get(json_array_get(tokens, i), "id")));
        if (fabs(logprob_at(prefill, at) - logprob_at(tokens, i)) > 1e-3)
            fail_msg("token %zu: read %g, written %g", i, logprob_at(prefill, at),
                     logprob_at(tokens, i));
    }
    free(body);
    json_decref(request);
    json_decref(read);
    json_decref(written);
}

/* ---- best of ---- */

static double mean_logprob(const json_t *details)
{
    const json_t *tokens = json_object_get(details, "tokens");
    double sum = 0;

    for (size_t i = 0; i < json_array_size(tokens); i++)
        sum += json_number_value(json_object_get(json_array_get(tokens, i), "logprob"));
    return sum / (double)json_array_size(tokens);
}

static void best_of_is_the_likeliest_and_can_be_had_again(void **state)
{
    json_t *v =
        ask("/generate", "{\"inputs\":\"The sun was\",\"parameters\":{\"max_new_tokens\":12,"
                         "\"best_of\":3,\"temperature\":1.5,\"details\":true,\"top_n_tokens\":2}}");
    const json_t *details = details_of(v);
    const json_t *others = json_object_get(details, "best_of_sequences");
    char body[256];
    json_t *again;

    (void)state;
    assert_int_equal(json_array_size(others), 2);
    for (size_t i = 0; i < 2; i++)
        assert_true(mean_logprob(details) >= mean_logprob(json_array_get(others, i)) - 1e-6);
    snprintf(body, sizeof body,
             "{\"inputs\":\"The sun was\",\"parameters\":{\"max_new_tokens\":12,"
             "\"temperature\":1.5,\"seed\":%lld}}",
             (long long)json_integer_value(json_object_get(details, "seed")));
    again = ask("/generate", body);
    assert_string_equal(json_string_value(json_object_get(again, "generated_text")),
                        json_string_value(json_object_get(v, "generated_text")));
    json_decref(again);
    json_decref(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_containers_variables_are_enough),
        cmocka_unit_test(a_watermark_can_be_found),
        cmocka_unit_test(prefill_measures_as_generation_does),
        cmocka_unit_test(best_of_is_the_likeliest_and_can_be_had_again),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
