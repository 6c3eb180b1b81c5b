/* test_gguf_system.c - the whole path with the demo model in a GGUF file: the same tokens, words and conversations as
 * from its directory, from a file that has nothing beside it. */
#include <stdio.h>

#include "common/file.h"
#include "common/json.h"
#include "tests/check.h"
#include "tests/proc/http_client.h"
#include "tests/proc/system.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/gguf_model.h"
#include "tests/unit/gguf_tokenizer.h"
#include "text/tokenizer.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

static void put_tokenizer(struct gguf_writer *w)
{
    json_t *config = json_parse_file(DEMO "/tokenizer_config.json", 1 << 20, NULL);
    char *model, *text;
    size_t n, n_text;
    struct tokenizer *t;
    struct err e = { 0 };

    assert_true(file_read(DEMO "/tokenizer.model", 1 << 20, &model, &n, NULL));
    assert_true(file_read(DEMO "/tokenizer_config.json", 1 << 20, &text, &n_text, NULL));
    t = tokenizer_open_sentencepiece(model, n, text, n_text, &e);
    if (!t)
        fail_msg("%s", e.msg);
    gguf_put_sentencepiece(w, t, true);
    gguf_put_string(w, "tokenizer.chat_template",
                    json_string_value(json_object_get(config, "chat_template")));
    tokenizer_close(t);
    free(model);
    free(text);
    json_decref(config);
}

static void write_demo(const char *dir, const char *name)
{
    struct gguf_writer w = { 0 };
    struct buf file;

    gguf_model_put(&w, DEMO);
    put_tokenizer(&w);
    file = gguf_finish(&w);
    test_dir_write(dir, name, file.data, file.n);
    buf_fini(&file);
}

static json_t *ask(const struct system *s, const char *path, json_t *request)
{
    char *text = json_dumps(request, 0);
    struct buf out = { 0 };
    json_t *answer;
    int status = http_ask(s->port, path, text, &out);

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

static void expect_all_golden(const struct system *s)
{
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, NULL), *one;
    size_t i, n_chats = 0;

    json_array_foreach (json_object_get(golden, "prompts"), i, one) {
        if (json_object_get(one, "prompt"))
            expect_ids(s, one);
        else
            expect_chat(s, one);
        n_chats += !json_object_get(one, "prompt");
    }
    assert_true(i >= 4 && n_chats >= 1);
    json_decref(golden);
}

static void serve(const char *model)
{
    const char *const args[] = { "--model", model, "--log-level", "warning", NULL };
    struct system s;

    system_start(&s, args);
    expect_all_golden(&s);
    assert_int_equal(system_stop(&s), 0);
}

static void a_file_is_served_as_its_directory_is(void **state)
{
    char dir[64], path[96];

    (void)state;
    test_dir_make(dir);
    write_demo(dir, "demo.gguf");
    snprintf(path, sizeof path, "%s/demo.gguf", dir);
    serve(path);
    test_dir_remove(dir);
}

static void a_directory_with_one_file_is_served(void **state)
{
    char dir[64];

    (void)state;
    test_dir_make(dir);
    write_demo(dir, "demo.gguf");
    serve(dir);
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_is_served_as_its_directory_is),
        cmocka_unit_test(a_directory_with_one_file_is_served),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
