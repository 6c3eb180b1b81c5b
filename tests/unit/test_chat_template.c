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
#include <unistd.h>

#include "text/chat_template.h"

static const struct tm now = { .tm_year = 124,
                               .tm_mon = 6,
                               .tm_mday = 26,
                               .tm_hour = 9,
                               .tm_min = 5,
                               .tm_wday = 5,
                               .tm_yday = 207 };

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
    assert_string_equal(out.data,
                        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s>"
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

/* ---- asking about a template ---------------------------------------------------------------------- */

static void assert_wants_parts(const char *source, bool wanted)
{
    struct chat_template *t = compile(source);

    if (chat_template_wants_parts(t) != wanted)
        fail_msg("%s: wants_parts is %d", source, !wanted);
    chat_template_free(t);
}

static void loops_over_content_want_parts(void **state)
{
    (void)state;
    assert_wants_parts("{% for m in messages %}{% for c in m['content'] %}{% endfor %}{% endfor %}",
                       true);
    assert_wants_parts("{% for m in messages %}{% for c in m.content %}{% endfor %}{% endfor %}",
                       true);
    assert_wants_parts(
        "{% for m in messages[1:] %}{% for c in m.content[1:] %}{% endfor %}{% endfor %}", true);
    assert_wants_parts("{% set rest = messages[1:] %}{% for m in rest %}"
                       "{% for c in m.content | reverse %}{% endfor %}{% endfor %}",
                       true);
    assert_wants_parts("{% for c in messages[0].content %}{% endfor %}", true);
    assert_wants_parts("{% set first = messages[0] %}{% for c in first.content %}{% endfor %}",
                       true);
    assert_wants_parts(
        "{% if a %}{% elif b %}{% for m in messages %}{% if m.content is string %}"
        "{% else %}{% for c in m.content %}{% endfor %}{% endif %}{% endfor %}{% endif %}",
        true);
}

static void other_loops_do_not_want_parts(void **state)
{
    (void)state;
    assert_wants_parts("{% for m in messages %}{{ m.content }}{% endfor %}", false);
    assert_wants_parts("{% for m in messages %}{% for c in m.tool_calls %}{% endfor %}{% endfor %}",
                       false);
    assert_wants_parts("{% for t in tools %}{% for c in t.content %}{% endfor %}{% endfor %}",
                       false);
    assert_wants_parts("{% for x in content %}{% endfor %}", false);
    assert_wants_parts("plain", false);
}

static void variables_read_are_known_and_those_only_set_are_not(void **state)
{
    struct chat_template *t = compile("{% set mine = enable_thinking %}{% for m in messages %}"
                                      "{{ f(tools=documents) }}{% endfor %}{% set ns.x = 1 %}"
                                      "{# hidden #}{{ 'quoted' }}");

    (void)state;
    assert_true(chat_template_uses(t, "enable_thinking"));
    assert_true(chat_template_uses(t, "messages"));
    assert_true(chat_template_uses(t, "documents"));
    assert_true(chat_template_uses(t, "ns"));
    assert_false(chat_template_uses(t, "mine"));
    assert_false(chat_template_uses(t, "m"));
    assert_false(chat_template_uses(t, "tools"));
    assert_false(chat_template_uses(t, "hidden"));
    assert_false(chat_template_uses(t, "quoted"));
    assert_false(chat_template_uses(t, ""));
    assert_true(chat_template_mentions(t, "quoted"));
    assert_false(chat_template_mentions(t, "developer"));
    chat_template_free(t);
}

/* ---- errors ----------------------------------------------------------------------------------------- */

static void raise_exception_gives_exactly_its_message(void **state)
{
    struct chat_template *t = compile("x\n{{ raise_exception('Roles: ü') }}");
    json_t *vars = json_object();
    struct buf out = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_false(chat_template_render(t, vars, &now, &out, &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_string_equal(e.msg, "Roles: ü");
    assert_int_equal(out.n, 0);
    assert_false(chat_template_render(t, vars, &now, &out, NULL));
    json_decref(vars);
    chat_template_free(t);
}

static void a_long_message_is_cut_between_characters(void **state)
{
    struct chat_template *t = compile("{{ raise_exception('xy' ~ 'ü' * 300) }}");
    json_t *vars = json_object();
    struct buf out = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_false(chat_template_render(t, vars, &now, &out, &e));
    assert_int_equal(strlen(e.msg), 238);
    assert_string_equal(e.msg + 236, "ü");
    json_decref(vars);
    chat_template_free(t);
}

static void run_errors_name_the_line(void **state)
{
    (void)state;
    expect_error("a\nb\n{{ missing.x }}", "{}", "line 3: 'missing' is undefined");
    expect_error("{{ d.x.y }}", "{\"d\": {}}", "'dict object' has no attribute 'x'");
    expect_error("{{ d.x.y }}", "{\"d\": null}", "'None' has no attribute 'x'");
    expect_error("{{ 'a' + 1 }}", "{}", "can only concatenate str (not \"int\") to str");
    expect_error("{% for x in 5 %}{% endfor %}", "{}", "'int' object is not iterable");
    expect_error("{{ 1 < 'a' }}", "{}", "'<' not supported between instances of 'int' and 'str'");
    expect_error("{{ f() }}", "{}", "'f' is undefined");
    expect_error("{{ 5() }}", "{}", "'int' object is not callable");
    expect_error("{% set x.y = 1 %}", "{}", "non-namespace object");
    expect_error("{% for a, b in [[1]] %}{% endfor %}", "{}", "not enough values to unpack");
}

static void values_are_immutable(void **state)
{
    (void)state;
    expect_error("{{ l.append(1) }}", "{\"l\": []}",
                 "attribute 'append' of 'list' object is unsafe");
    expect_error("{{ l.pop() }}", "{\"l\": [1]}", "attribute 'pop' of 'list' object is unsafe");
    expect_error("{{ d.update({}) }}", "{\"d\": {}}",
                 "attribute 'update' of 'dict' object is unsafe");
    expect_error("{{ ''.__class__() }}", "{}", "attribute '__class__' of 'str' object is unsafe");
}

static void what_is_not_supported_is_refused_by_name_and_line(void **state)
{
    (void)state;
    expect_refused("\n{% include 'x' %}", "line 2: statement 'include' is not supported");
    expect_refused("{% extends 'x' %}", "statement 'extends' is not supported");
    expect_refused("{% import 'x' as y %}", "statement 'import' is not supported");
    expect_refused("{% block b %}{% endblock %}", "statement 'block' is not supported");
    expect_refused("{% do x %}", "statement 'do' is not supported");
    expect_refused("{% frob %}", "unknown statement 'frob'");
    expect_refused("{% for x in y recursive %}{% endfor %}", "recursive for statements");
    expect_refused("a\n\n{{ x | pprint }}", "line 3: filter 'pprint' is not supported");
    expect_refused("{{ x is frob }}", "test 'frob' is not supported");
    expect_refused("{{ 99999999999999999999 }}", "does not fit in 64 bits");
}

static void malformed_templates_are_refused(void **state)
{
    (void)state;
    expect_refused("{% if x %}\n", "line 1: a block that starts here has no 'endif'");
    expect_refused("{% for x in y %}", "has no 'endfor'");
    expect_refused("{{ x", "'{{' is not closed");
    expect_refused("{% if x", "'{%' is not closed");
    expect_refused("{# x", "comment is not closed");
    expect_refused("{% raw %} x", "raw block is not closed");
    expect_refused("{{ 'x }}", "a string is not closed");
    expect_refused("{{ x) }}", "unexpected ')'");
    expect_refused("{{ }}", "expected an expression");
    expect_refused("{{ é }}", "unexpected character");
    expect_refused("{{ '\\ud800' }}", "malformed escape");
    expect_refused("\xff", "not UTF-8 at byte 0");
    expect_refused("{% break %}", "'break' outside a loop");
}

/* ---- limits ------------------------------------------------------------------------------------------- */

static void endless_work_is_stopped(void **state)
{
    (void)state;
    expect_error("{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
                 "{}", "rendering takes too");
    expect_error("{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}", "{}",
                 "nested too deep");
    expect_error("{{ range(100001) }}", "{}", "more than 100000 items");
    expect_error("{% set s = 'x' * 1000000 %}{% for i in range(100000) %}{% if 'y' in s %}"
                 "{% endif %}{% endfor %}",
                 "{}", "too many steps");
}

static void endless_text_is_stopped(void **state)
{
    (void)state;
    expect_error("{{ 'x' * 99999999999 }}", "{}", "grows past");
    expect_error("{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}"
                 "{% set n.s = n.s + n.s %}{% endfor %}",
                 "{}", "grows past");
    expect_error("{% set s = 'x' * 1000000 %}{% for i in range(100) %}{{ s }}{% endfor %}", "{}",
                 "grows past");
    expect_error("{% set s = 'x' * 9999 %}{{ s | replace('x', s) }}", "{}", "grows past");
    expect_error("{{ [0] * 99999999999 }}", "{}", "too much memory");
    expect_error("{{ '%*d' % (999999999999, 1) }}", "{}", "* wants a small int");
    expect_error("{{ 'x' | center(99999999999) }}", "{}", "grows past");
    expect_error("{{ 'x\ny' | indent(99999999999) }}", "{}", "grows past");
}

/* Write `n` times `unit` into a template. */
static struct chat_template *compile_repeated(const char *head, const char *unit, int n,
                                              const char *tail, struct err *e)
{
    struct buf source = { 0 };
    struct chat_template *t;

    buf_add_str(&source, head);
    for (int i = 0; i < n; i++)
        buf_add_str(&source, unit);
    buf_add_str(&source, tail);
    t = chat_template_new(source.data, source.n, e);
    buf_fini(&source);
    return t;
}

static void deep_templates_are_refused(void **state)
{
    static const struct {
        const char *head, *unit, *tail;
    } deep[] = {
        { "{{ ", "(", "" },        { "{{ ", "[", "" },           { "{{ ", "-", "1 }}" },
        { "{{ ", "not ", "1 }}" }, { "{{ 1", " + 1", " }}" },    { "{{ x", ".y", " }}" },
        { "{{ x", "|e", " }}" },   { "{{ x", "()", " }}" },      { "", "{% if x %}", "" },
        { "{{ ", "1 if ", "" },    { "{{ x", " is odd", " }}" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        struct err e = { 0 };
        struct chat_template *t =
            compile_repeated(deep[i].head, deep[i].unit, 100000 / 8, deep[i].tail, &e);
        assert_null(t);
        assert_int_equal(e.code, ERR_MODEL);
    }
}

static void long_templates_that_are_not_deep_compile(void **state)
{
    struct err e = { 0 };
    struct chat_template *t =
        compile_repeated("{% if x %}", "{% elif y %}b{{ 1 ~ 2 }}", 5000, "{% endif %}", &e);

    (void)state;
    assert_non_null(t);
    chat_template_free(t);
    t = compile_repeated("", "{{ x ~ 1 }}", 40000, "", &e);
    assert_non_null(t);
    chat_template_free(t);
    assert_null(compile_repeated("", "{{ x ~ 1 }}", 50000, "", &e));
    assert_non_null(strstr(e.msg, "the limit is 524288"));
}

static void deep_values_are_refused(void **state)
{
    struct chat_template *t = compile("{{ v }}");
    json_t *deep = json_array(), *vars = json_object();
    struct buf out = { 0 };
    struct err e = { 0 };

    (void)state;
    for (int i = 0; i < 1000; i++) {
        json_t *outer = json_array();
        json_array_append_new(outer, deep);
        deep = outer;
    }
    json_object_set_new(vars, "v", deep);
    assert_false(chat_template_render(t, vars, &now, &out, &e));
    assert_non_null(strstr(e.msg, "variable 'v': chat template line 1: a value is nested deeper"));
    json_decref(vars);
    chat_template_free(t);
    expect_error("{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l] %}"
                 "{% endfor %}{{ n.l }}",
                 "{}", "nested deeper");
    expect_error("{% set n = namespace(l=[]) %}{% for i in range(999) %}{% set n.l = [n.l] %}"
                 "{% endfor %}{{ n.l | tojson }}",
                 "{}", "nested deeper");
    expect_error("{% set n = namespace(l=[], m=[]) %}{% for i in range(999) %}"
                 "{% set n.l = [n.l] %}{% set n.m = [n.m] %}{% endfor %}{{ n.l == n.m }}",
                 "{}", "nested deeper");
    expect_error("{% set n = namespace() %}{% set n.n = n %}{{ n }}", "{}", "nested deeper");
}

/* ---- output, threads ------------------------------------------------------------------------------------ */

static void text_is_appended_to_what_is_there(void **state)
{
    struct chat_template *t = compile("b");
    json_t *vars = json_object();
    struct buf out = { 0 };
    struct err e = { 0 };

    (void)state;
    buf_add_str(&out, "a");
    assert_true(chat_template_render(t, vars, &now, &out, &e));
    assert_string_equal(out.data, "ab");
    buf_fini(&out);
    json_decref(vars);
    chat_template_free(t);
}

static void the_clock_is_the_callers(void **state)
{
    (void)state;
    expect("{{ strftime_now('%d %b %Y') }}", "{}", "26 Jul 2024");
    expect("{{ strftime_now('%-H:%M %Z|%z|%f') }}", "{}", "9:05 ||000000");
}

static void *render_often(void *arg)
{
    const struct chat_template *t = arg;
    json_t *vars = vars_from("{\"messages\": [{\"content\": \"a\"}, {\"content\": \"b\"}]}");

    for (int i = 0; i < 200; i++) {
        struct buf out = { 0 };
        struct err e = { 0 };
        if (!chat_template_render(t, vars, &now, &out, &e) || strcmp(out.data, "1a2b") != 0)
            abort();
        buf_fini(&out);
    }
    json_decref(vars);
    return NULL;
}

static void threads_may_share_a_template(void **state)
{
    struct chat_template *t =
        compile("{% for m in messages %}{{ loop.index ~ m.content }}{% endfor %}");
    pthread_t threads[4];

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, render_often, t), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    chat_template_free(t);
}

/* ---- model directories ------------------------------------------------------------------------------------ */

static char *make_dir(char dir[64])
{
    strcpy(dir, "test_chat_XXXXXX");
    if (!mkdtemp(dir))
        fail_msg("mkdtemp");
    return dir;
}

static void put_file(const char *dir, const char *name, const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = { "chat_template.jinja", "tokenizer_config.json" };
    char path[128];

    for (size_t i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* Load a directory with these files (either may be NULL). */
static bool load(struct chat_templates *ts, const char *jinja, const char *config, struct err *e)
{
    char dir[64];
    bool ok;

    make_dir(dir);
    if (jinja)
        put_file(dir, "chat_template.jinja", jinja);
    if (config)
        put_file(dir, "tokenizer_config.json", config);
    ok = chat_templates_load(ts, dir, e);
    remove_dir(dir);
    return ok;
}

static void assert_renders(const struct chat_template *t, const char *wanted)
{
    json_t *vars = json_object();
    struct buf out = { 0 };
    struct err e = { 0 };

    assert_non_null(t);
    assert_true(chat_template_render(t, vars, &now, &out, &e));
    assert_string_equal(out.data, wanted);
    buf_fini(&out);
    json_decref(vars);
}

static void the_template_file_wins_over_the_configuration(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };

    (void)state;
    assert_true(load(&ts, "file\n", "{\"chat_template\": \"config\", \"bos_token\": \"<s>\"}", &e));
    assert_renders(chat_templates_pick(&ts, false), "file");
    assert_renders(chat_templates_pick(&ts, true), "file");
    assert_string_equal(json_string_value(json_object_get(ts.tokens, "bos_token")), "<s>");
    chat_templates_fini(&ts);
}

static void tool_use_is_picked_only_with_tools(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };

    (void)state;
    assert_true(load(&ts, NULL,
                     "{\"chat_template\": [{\"name\": \"default\", \"template\": \"plain\"},"
                     "{\"name\": \"rag\", \"template\": \"{% not even parsed\"},"
                     "{\"name\": \"tool_use\", \"template\": \"tools\"}]}",
                     &e));
    assert_renders(chat_templates_pick(&ts, false), "plain");
    assert_renders(chat_templates_pick(&ts, true), "tools");
    chat_templates_fini(&ts);
}

static void special_tokens_may_be_objects(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };

    (void)state;
    assert_true(
        load(&ts, NULL,
             "{\"bos_token\": {\"content\": \"<b>\", \"lstrip\": false}, \"eos_token\": \"</s>\","
             " \"pad_token\": null, \"add_bos_token\": true, \"model_max_length\": 5}",
             &e));
    assert_string_equal(json_string_value(json_object_get(ts.tokens, "bos_token")), "<b>");
    assert_string_equal(json_string_value(json_object_get(ts.tokens, "eos_token")), "</s>");
    assert_int_equal(json_object_size(ts.tokens), 2);
    chat_templates_fini(&ts);
}

static void a_model_without_template_is_no_error(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };

    (void)state;
    assert_true(load(&ts, NULL, NULL, &e));
    assert_null(chat_templates_pick(&ts, false));
    assert_null(chat_templates_pick(&ts, true));
    assert_int_equal(json_object_size(ts.tokens), 0);
    chat_templates_fini(&ts);
    assert_true(load(&ts, NULL, "{\"chat_template\": null}", &e));
    assert_null(chat_templates_pick(&ts, false));
    chat_templates_fini(&ts);
}

static void broken_model_directories_say_which_file(void **state)
{
    struct chat_templates ts;
    struct err e = { 0 };

    (void)state;
    assert_false(load(&ts, NULL, "{", &e));
    assert_non_null(strstr(e.msg, "tokenizer_config.json"));
    assert_false(load(&ts, NULL, "[]", &e));
    assert_non_null(strstr(e.msg, "is not a JSON object"));
    assert_false(load(&ts, "{% if %}", NULL, &e));
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "chat_template.jinja: chat template line 1"));
    assert_false(load(&ts, NULL, "{\"chat_template\": 5}", &e));
    assert_non_null(strstr(e.msg, "neither a string nor a list"));
    assert_false(load(&ts, NULL, "{\"chat_template\": [{\"name\": \"default\"}]}", &e));
    assert_non_null(strstr(e.msg, "has no name or no text"));
    assert_false(load(&ts, NULL,
                      "{\"chat_template\": [{\"name\": \"default\", \"template\": \"\"},"
                      "{\"name\": \"default\", \"template\": \"\"}]}",
                      &e));
    assert_non_null(strstr(e.msg, "given twice"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demo_model_renders_as_llama_2),
        cmocka_unit_test(chatml_renders_every_message_and_the_prompt),
        cmocka_unit_test(loops_over_content_want_parts),
        cmocka_unit_test(other_loops_do_not_want_parts),
        cmocka_unit_test(variables_read_are_known_and_those_only_set_are_not),
        cmocka_unit_test(raise_exception_gives_exactly_its_message),
        cmocka_unit_test(a_long_message_is_cut_between_characters),
        cmocka_unit_test(run_errors_name_the_line),
        cmocka_unit_test(values_are_immutable),
        cmocka_unit_test(what_is_not_supported_is_refused_by_name_and_line),
        cmocka_unit_test(malformed_templates_are_refused),
        cmocka_unit_test(endless_work_is_stopped),
        cmocka_unit_test(endless_text_is_stopped),
        cmocka_unit_test(deep_templates_are_refused),
        cmocka_unit_test(long_templates_that_are_not_deep_compile),
        cmocka_unit_test(deep_values_are_refused),
        cmocka_unit_test(text_is_appended_to_what_is_there),
        cmocka_unit_test(the_clock_is_the_callers),
        cmocka_unit_test(threads_may_share_a_template),
        cmocka_unit_test(the_template_file_wins_over_the_configuration),
        cmocka_unit_test(tool_use_is_picked_only_with_tools),
        cmocka_unit_test(special_tokens_may_be_objects),
        cmocka_unit_test(a_model_without_template_is_no_error),
        cmocka_unit_test(broken_model_directories_say_which_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
