/* test_chat_template.c - templates compiled, asked and rendered.
 *
 * What would break in production: a model that sees other text than the one it was trained on answers
 * badly, and nobody is told why.  Exact text for many models is checked in test_chat_vectors.c against
 * answers of the real engine; here are the rules one by one, the limits and the errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/file.h"
#include "text/chat_template.h"

static const struct tm now = {
    .tm_year = 124, .tm_mon = 6, .tm_mday = 26, .tm_hour = 9, .tm_min = 5, .tm_wday = 5, .tm_yday = 207
};

static json_t *vars_from(const char *json)
{
    struct err e = { 0 };
    json_t *vars = json_parse(json, strlen(json), &e);

    if (!vars)
        fail_msg("%s: %s", json, e.msg);
    return vars;
}

static struct chat_template *compile(const char *source)
{
    struct err e = { 0 };
    struct chat_template *t = chat_template_new(source, strlen(source), &e);

    if (!t)
        fail_msg("%s: %s", source, e.msg);
    return t;
}

static void expect(const char *source, const char *json, const char *wanted)
{
    struct chat_template *t = compile(source);
    json_t *vars = vars_from(json);
    struct buf out = { 0 };
    struct err e = { 0 };

    if (!chat_template_render(t, vars, &now, &out, &e))
        fail_msg("%s: %s", source, e.msg);
    assert_string_equal(out.data ? out.data : "", wanted);
    buf_fini(&out);
    json_decref(vars);
    chat_template_free(t);
}

/* Rendering fails with ERR_INPUT, says `wanted` and leaves the output as it was. */
static void expect_error(const char *source, const char *json, const char *wanted)
{
    struct chat_template *t = compile(source);
    json_t *vars = vars_from(json);
    struct buf out = { 0 };
    struct err e = { 0 };

    buf_add_str(&out, "before");
    if (chat_template_render(t, vars, &now, &out, &e))
        fail_msg("%s: rendered \"%s\"", source, out.data);
    assert_int_equal(e.code, ERR_INPUT);
    if (!strstr(e.msg, wanted))
        fail_msg("%s: \"%s\" instead of \"%s\"", source, e.msg, wanted);
    assert_string_equal(out.data, "before");
    buf_fini(&out);
    json_decref(vars);
    chat_template_free(t);
}

static void expect_refused(const char *source, const char *wanted)
{
    struct err e = { 0 };
    struct chat_template *t = chat_template_new(source, strlen(source), &e);

    if (t)
        fail_msg("%s: compiled", source);
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, wanted))
        fail_msg("%s: \"%s\" instead of \"%s\"", source, e.msg, wanted);
}

/* ---- the models most people start with ---------------------------------------------------------- */

static void demo_model_renders_as_llama_2(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };
    struct buf out = { 0 };
    json_t *vars = vars_from("{\"messages\": ["
                             "{\"role\": \"system\", \"content\": \"Be brief.\"},"
                             "{\"role\": \"user\", \"content\": \" Hi \"},"
                             "{\"role\": \"assistant\", \"content\": \"Hello.\"},"
                             "{\"role\": \"user\", \"content\": \"Bye\"}]}");

    (void)state;
    assert_true(chat_templates_load(&ts, TEST_SOURCE_DIR "/models/stories-demo", &e));
    json_object_update(vars, ts.tokens);
    assert_true(chat_template_render(chat_templates_pick(&ts, false), vars, &now, &out, &e));
    assert_string_equal(out.data, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s>"
                                  "<s>[INST] Bye [/INST]");
    buf_fini(&out);
    json_decref(vars);
    chat_templates_fini(&ts);
}

static void chatml_renders_every_message_and_the_prompt(void **state)
{
    (void)state;
    expect("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + "
           "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
           "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
           "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}],"
           " \"add_generation_prompt\": true}",
           "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_model_renders_as_llama_2),
        cmocka_unit_test(chatml_renders_every_message_and_the_prompt),
    };

    (void)expect_error;
    (void)expect_refused;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
