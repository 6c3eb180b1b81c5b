/* test_gguf_system.c - the whole path with the demo model in a GGUF file: the same tokens, words and conversations as
 * from its directory, from a file that has nothing beside it. */
#include <stdio.h>

#include "common/file.h"
#include "common/json.h"
#include "tests/check.h"
#include "tests/proc/golden.h"
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

static void serve(const char *model)
{
    const char *const args[] = { "--model", model, "--log-level", "warning", NULL };
    struct system s;

    system_start(&s, args);
    golden_expect_all(&s);
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
