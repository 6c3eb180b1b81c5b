/* golden.c - see golden.h. */
#include "tests/proc/golden.h"

#include "common/json.h"
#include "tests/check.h"
#include "tests/proc/http_client.h"

enum { N_GOLDEN = 6 };

/* Takes the request. */
static json_t *ask(const struct system *s, const char *path, json_t *request)
{
    char *text = json_dumps(request, 0);
    struct buf out = { 0 };
    int status = http_ask(s->port, path, text, &out);
    json_t *answer;

    if (status != 200)
        fail_msg("%s gave %d: %s", path, status, out.data ? out.data : "");
    answer = json_parse(out.data, out.n, NULL);
    assert_non_null(answer);
    buf_fini(&out);
    free(text);
    json_decref(request);
    return answer;
}

static void expect_ids(const struct system *s, const json_t *golden)
{
    const json_t *want = json_object_get(golden, "greedy_ids"), *tokens;
    json_t *answer =
        ask(s, "/generate",
            json_pack("{s:s, s:{s:i, s:b, s:b}}", "inputs",
                      json_string_value(json_object_get(golden, "prompt")), "parameters",
                      "max_new_tokens", (int)json_array_size(want), "details", 1, "do_sample", 0));

    tokens = json_object_get(json_object_get(answer, "details"), "tokens");
    assert_int_equal(json_array_size(tokens), json_array_size(want));
    for (size_t i = 0; i < json_array_size(want); i++)
        assert_int_equal(json_integer_value(json_object_get(json_array_get(tokens, i), "id")),
                         json_integer_value(json_array_get(want, i)));
    json_decref(answer);
}

static void expect_chat(const struct system *s, const json_t *golden)
{
    const char *want = json_string_value(json_object_get(golden, "greedy_text")), *text;
    json_t *choice,
        *answer =
            ask(s, "/v1/chat/completions",
                json_pack("{s:O, s:i, s:f}", "messages", json_object_get(golden, "messages"),
                          "max_tokens", (int)json_array_size(json_object_get(golden, "greedy_ids")),
                          "temperature", 0.0));

    choice = json_array_get(json_object_get(answer, "choices"), 0);
    text = json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    assert_non_null(text);
    assert_string_equal(text + (text[0] == ' '), want + (want[0] == ' '));
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(answer, "usage"), "prompt_tokens")),
        json_array_size(json_object_get(golden, "ids")));
    json_decref(answer);
}

void golden_expect_all(const struct system *s)
{
    json_t *golden =
        json_parse_file(TEST_SOURCE_DIR "/models/stories-demo/golden.json", 1 << 20, NULL);
    size_t i, n_chats = 0;
    json_t *one;

    assert_non_null(golden);
    json_array_foreach (json_object_get(golden, "prompts"), i, one) {
        if (json_object_get(one, "prompt"))
            expect_ids(s, one);
        else
            expect_chat(s, one);
        n_chats += !json_object_get(one, "prompt");
    }
    assert_int_equal(i, N_GOLDEN);
    assert_true(n_chats >= 1);
    json_decref(golden);
}
