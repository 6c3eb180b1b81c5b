/* test_model_info.c - a wrong context length or a forgotten EOS id makes every answer of a model wrong. */
#include <stdio.h>

#include "tests/check.h"

#include "gateway/model_info.h"
#include "tests/unit/gguf_writer.h"

static char dir[64];

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "%s/llmd-model-XXXXXX", P_tmpdir);
    return mkdtemp(dir) ? 0 : -1;
}

static void put(const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    if (!text) {
        unlink(path);
        return;
    }
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static int tear_down(void **state)
{
    (void)state;
    put("config.json", NULL);
    put("generation_config.json", NULL);
    return rmdir(dir);
}

static bool read_gguf(struct gguf_writer *w, struct model_info *m, struct err *e)
{
    struct buf file = gguf_finish(w);
    char path[128];
    bool ok;
    FILE *f;

    snprintf(path, sizeof path, "%s/m.gguf", dir);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(file.data, 1, file.n, f), file.n);
    fclose(f);
    ok = model_info_read(m, path, e);
    unlink(path);
    buf_fini(&file);
    return ok;
}

static void a_gguf_file_is_asked_for_the_same(void **state)
{
    struct gguf_writer w = { 0 };
    struct model_info m;
    struct err e;

    (void)state;
    gguf_put_string(&w, "general.architecture", "qwen2");
    gguf_put_u32(&w, "qwen2.context_length", 4096);
    gguf_put_f32(&w, "general.sampling.temp", 0.5f);
    gguf_put_string(&w, "general.sampling.top_k", "5");
    gguf_put_strings(&w, "tokenizer.ggml.tokens", 2);
    gguf_add_string(&w, "a", 1);
    gguf_add_string(&w, "b", 1);
    gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 1);
    assert_ok(read_gguf(&w, &m, &e), e);
    assert_true(m.max_model_len == 4096 && m.vocab_size == 2 && m.n_eos == 1 && m.eos[0] == 1);
    assert_true(m.temperature.is_set && m.temperature.value == 0.5);
    assert_false(m.top_k.is_set || m.top_p.is_set);
    gguf_put_string(&w, "general.architecture", "qwen2");
    assert_fails(read_gguf(&w, &m, &e), e, ERR_MODEL, "'qwen2.context_length' is missing");
}

static void both_files_are_read_and_the_later_wins(void **state)
{
    struct model_info m;
    struct err e;

    (void)state;
    put("config.json", "{\"max_position_embeddings\":512,\"vocab_size\":9,\"eos_token_id\":2}");
    assert_ok(model_info_read(&m, dir, &e), e);
    assert_int_equal(m.max_model_len, 512);
    assert_int_equal(m.vocab_size, 9);
    assert_true(model_info_is_eos(&m, 2) && !model_info_is_eos(&m, 3));
    assert_false(m.temperature.is_set);
    put("generation_config.json",
        "{\"eos_token_id\":[3,4,-1,\"x\"],\"temperature\":0.6,\"top_k\":\"5\"}");
    assert_ok(model_info_read(&m, dir, &e), e);
    assert_int_equal(m.n_eos, 2);
    assert_true(model_info_is_eos(&m, 4) && !model_info_is_eos(&m, 2));
    assert_true(m.temperature.is_set && m.temperature.value == 0.6);
    assert_false(m.top_k.is_set); /* not a number: as if it were not there */
}

static void broken_directories_are_named(void **state)
{
    struct model_info m;
    struct err e;

    (void)state;
    put("generation_config.json", NULL);
    put("config.json", "{\"max_position_embeddings\":0,\"vocab_size\":9}");
    assert_fails(model_info_read(&m, dir, &e), e, ERR_MODEL, "max_position_embeddings");
    put("config.json", "{\"max_position_embeddings\":5}");
    assert_fails(model_info_read(&m, dir, &e), e, ERR_MODEL, "vocab_size");
    put("config.json", "[]");
    assert_fails(model_info_read(&m, dir, &e), e, ERR_MODEL, "not a JSON object");
    put("config.json", "{\"max_position_embeddings\":5,\"vocab_size\":9}");
    put("generation_config.json", "{");
    assert_fails(model_info_read(&m, dir, &e), e, ERR_MODEL, "generation_config.json");
    put("config.json", NULL);
    assert_fails(model_info_read(&m, dir, &e), e, ERR_SYS, "config.json");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_files_are_read_and_the_later_wins),
        cmocka_unit_test(a_gguf_file_is_asked_for_the_same),
        cmocka_unit_test(broken_directories_are_named),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
