/* test_message_json.c - messages as JSON, which scripts of operators read.
 *
 * What would break in production: a key that disappears when its value is 0, or a value of one type read
 * as another. */
#include "proto/message_json.h"

#include "tests/check.h"

static char *write_json(const void *message)
{
    struct buf out = { 0 };
    struct json_writer w = { .out = &out };

    message_write_json(&w, message);
    return buf_take(&out);
}

static void message_json_has_every_field_set_or_not(void **state)
{
    Llmd__GroupStatus group = LLMD__GROUP_STATUS__INIT;
    char *text = write_json(&group);

    (void)state;
    assert_string_equal(text, "{\"group\":0,\"state\":\"\",\"epoch\":0,\"sequences_running\":0,"
                              "\"sequences_waiting\":0,\"kv_pages_used\":0,\"tokens_per_s\":0.0,"
                              "\"cause\":\"\",\"retry_in_ns\":0}");
    free(text);
}

static void message_json_takes_every_kind_of_value(void **state)
{
    static int32_t prompt[] = { 1, -2 };
    static uint64_t ids[] = { UINT64_MAX };
    Llmd__LogitBias bias = LLMD__LOGIT_BIAS__INIT, *biases[] = { &bias, &bias };
    Llmd__Sampling sampling = LLMD__SAMPLING__INIT;
    Llmd__Submit submit = LLMD__SUBMIT__INIT;
    Llmd__Cancel cancel = LLMD__CANCEL__INIT;
    struct err e;
    char *text;
    json_t *v;

    (void)state;
    bias.token = -7;
    bias.bias = 0.1f;
    sampling.seed = UINT64_MAX;
    sampling.want_logprobs = 1;
    sampling.logprobs_mode = LLMD__LOGPROBS_MODE__LOGPROBS_PROCESSED;
    sampling.n_logit_bias = 2;
    sampling.logit_bias = biases;
    submit.sampling = &sampling;
    submit.n_prompt = 2;
    submit.prompt = prompt;
    submit.deadline_ns = INT64_MIN;
    submit.priority = -3;
    text = write_json(&submit);
    assert_non_null(strstr(text, "\"seed\":18446744073709551615"));
    assert_non_null(strstr(text, "\"logprobs_mode\":\"LOGPROBS_PROCESSED\""));
    assert_non_null(strstr(text, "\"logit_bias\":[{\"token\":-7,\"bias\":0.1},{\"token\":-7,"));
    assert_non_null(strstr(text, "\"want_logprobs\":true"));
    assert_non_null(strstr(text, "\"prompt\":[1,-2]"));
    assert_non_null(strstr(text, "\"deadline_ns\":-9223372036854775808"));
    assert_non_null(strstr(text, "\"priority\":-3"));
    assert_non_null(strstr(text, "\"stop_tokens\":[]"));
    free(text);
    submit.sampling = NULL;
    text = write_json(&submit);
    v = json_parse(text, strlen(text), &e);
    assert_non_null(v);
    assert_true(json_is_null(json_object_get(v, "sampling")));
    json_decref(v);
    free(text);
    cancel.n_sequence_id = 1;
    cancel.sequence_id = ids;
    text = write_json(&cancel);
    assert_string_equal(text, "{\"sequence_id\":[18446744073709551615]}");
    free(text);
}

static void message_json_writes_an_unknown_word_as_its_number(void **state)
{
    Llmd__Refused refused = LLMD__REFUSED__INIT;
    char *text;

    (void)state;
    refused.reason = (Llmd__RefuseReason)99; /* of a newer peer */
    text = write_json(&refused);
    assert_non_null(strstr(text, "\"reason\":99"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(message_json_has_every_field_set_or_not),
        cmocka_unit_test(message_json_takes_every_kind_of_value),
        cmocka_unit_test(message_json_writes_an_unknown_word_as_its_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
