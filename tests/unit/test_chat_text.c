/* test_chat_text.c - thoughts, content and calls in a model's text: a wrong byte here is a tag shown to a user, a
 * call that an application misses, or an answer lost.
 *
 * Every text is given in every split into up to three pieces, and byte by byte: all must give the same. */
#include "tests/check.h"

#include "gateway/answer/chat_text.h"

struct text_case {
    const char *tools, *thoughts; /* settings; NULL: none */
    bool is_thinking;
    const char *text;
    const char *want; /* see describe() */
};

static struct chat_rules rules_of(const struct text_case *c)
{
    return (struct chat_rules){
        .tools = c->tools ? tool_format_find(c->tools, NULL) : NULL,
        .thoughts = c->thoughts ? reasoning_find(c->thoughts, NULL) : NULL,
        .is_thinking = c->is_thinking,
    };
}

/* "think|content|f(arguments)|g(arguments)", without empty ones but content. */
static void describe(const struct text_parts *parts, struct buf *out)
{
    buf_clear(out);
    text_parts_join(parts, PART_REASONING, 0, out);
    if (out->n)
        buf_add_char(out, '|');
    text_parts_join(parts, PART_CONTENT, 0, out);
    for (size_t i = 0; i < parts->n; i++) {
        const struct text_part *p = &parts->list[i];
        if (p->kind != PART_CALL)
            continue;
        buf_add_char(out, '|');
        buf_add(out, p->s, p->n);
        buf_add_char(out, '(');
        text_parts_join(parts, PART_ARGUMENTS, p->call, out);
        buf_add_char(out, ')');
    }
    buf_add(out, "", 0);
}

/* A call's name comes before its arguments, and calls come in their order. */
static void expect_order(const struct text_parts *parts)
{
    uint32_t n = 0;

    for (size_t i = 0; i < parts->n; i++) {
        const struct text_part *p = &parts->list[i];
        if (p->kind == PART_CALL)
            assert_int_equal(p->call, n++);
        else if (p->kind == PART_ARGUMENTS)
            assert_int_equal(p->call, n - 1);
    }
}

static void expect_cut(const struct text_case *c, size_t first, size_t second, size_t step)
{
    struct chat_rules rules = rules_of(c);
    struct arena arena = { 0 };
    struct text_parts parts = { .arena = &arena };
    struct buf got = { 0 };
    struct chat_text t;
    size_t n = strlen(c->text);

    chat_text_init(&t, &rules);
    if (step == 0) {
        chat_text_take(&t, c->text, first, false, &parts);
        chat_text_take(&t, c->text, second, false, &parts);
    }
    for (size_t i = step; step > 0 && i < n; i += step)
        chat_text_take(&t, c->text, i, false, &parts);
    chat_text_take(&t, c->text, n, true, &parts);
    describe(&parts, &got);
    expect_order(&parts);
    if (strcmp(got.data, c->want) != 0)
        fail_msg("'%s' cut at %zu and %zu, by %zu\n  got  %s\n  want %s", c->text, first, second,
                 step, got.data, c->want);
    buf_fini(&got);
    arena_fini(&arena);
}

static void expect_all(const struct text_case *cases, size_t n_cases)
{
    for (size_t i = 0; i < n_cases; i++) {
        size_t n = strlen(cases[i].text);
        for (size_t first = 0; first <= n; first++)
            for (size_t second = first; second <= n; second++)
                expect_cut(&cases[i], first, second, 0);
        expect_cut(&cases[i], 0, 0, 1);
    }
}

#define EXPECT_ALL(cases) expect_all(cases, sizeof(cases) / sizeof *(cases))

static void hermes_calls_are_found_wherever_they_are_cut(void **state)
{
    static const struct text_case cases[] = {
        { "hermes", NULL, false,
          "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n"
          "</tool_call>",
          "|f({\"a\": 1})" },
        { "hermes", NULL, false,
          "I look.\n<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"}{\\\"\"}}</tool_call>\n"
          "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call>\n",
          "I look.\n|f({\"a\":\"}{\\\"\"})|g({})" },
        { "hermes", NULL, false,
          "<tool_call>{\"arguments\":{\"a\":[1,{}]},\"name\":\"f\"}</tool_call> done",
          " done|f({\"a\":[1,{}]})" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\"}</tool_call>", "|f({})" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":null}</tool_call>",
          "|f({})" },
        { "hermes", NULL, false,
          "<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>",
          "|f({\"a\":1})" },
        { "hermes", NULL, false,
          "<tool_call>{\"id\":7,\"name\":\"\\u0066\",\"x\":[\"}\"],\"arguments\":{}}</tool_call>",
          "|f({})" },
    };

    (void)state;
    EXPECT_ALL(cases);
}

static void llama_calls_are_the_whole_text(void **state)
{
    static const struct text_case cases[] = {
        { "llama3_json", NULL, false, "{\"name\": \"f\", \"parameters\": {\"a\": \"b; c\"}}",
          "|f({\"a\": \"b; c\"})" },
        { "llama3_json", NULL, false,
          " <|python_tag|>{\"type\":\"function\",\"name\":\"f\",\"parameters\":{}}; "
          "{\"name\":\"g\",\"arguments\":{\"b\":2}}\n",
          "|f({})|g({\"b\":2})" },
        { "llama3_json", NULL, false, "Say {\"name\":\"f\",\"parameters\":{}}",
          "Say {\"name\":\"f\",\"parameters\":{}}" },
        { "llama3_json", NULL, false, "{\"name\":\"Bob\",\"age\":5}",
          "{\"name\":\"Bob\",\"age\":5}" },
        { "llama3_json", NULL, false, "{\"name\":\"f\",\"parameters\":{}} and more",
          " and more|f({})" },
        { "llama3_json", NULL, false, "<|python_tag|>print(1)", "<|python_tag|>print(1)" },
        { "llama3_json", NULL, false, "<|python", "<|python" },
        { "llama3_json", NULL, false, "{\"name\":\"f\",\"parameters\":{}};", ";|f({})" },
    };

    (void)state;
    EXPECT_ALL(cases);
}

static void mistral_calls_are_a_list_or_named(void **state)
{
    static const struct text_case cases[] = {
        { "mistral", NULL, false,
          "[TOOL_CALLS] [{\"name\": \"f\", \"arguments\": {\"a\": [1]}}, {\"name\": \"g\", "
          "\"arguments\": {}}]",
          "|f({\"a\": [1]})|g({})" },
        { "mistral", NULL, false, "Yes.[TOOL_CALLS]f_1[ARGS]{\"a\":{}}[TOOL_CALLS]g{\"b\":2}",
          "Yes.|f_1({\"a\":{}})|g({\"b\":2})" },
        { "mistral", NULL, false, "[TOOL_CALLS]f[CALL_ID]abc123xyz[ARGS]{}", "|f({})" },
        { "mistral", NULL, false, "[TOOL_CALLS][]", "[TOOL_CALLS][]" },
        { "mistral", NULL, false, "[TOOL_CALLS][{\"name\":\"f\",\"arguments\":{}} x", " x|f({})" },
        { "mistral", NULL, false, "[TOOL_CALLS]f[ARGX]{}", "[TOOL_CALLS]f[ARGX]{}" },
        { "mistral", NULL, false, "a [TOOL b", "a [TOOL b" },
    };

    (void)state;
    EXPECT_ALL(cases);
}

/* The forbidden: what looks like a call and is none stays text, tags and all. */
static void what_is_no_call_is_not_lost(void **state)
{
    static const struct text_case cases[] = {
        { "hermes", NULL, false, "a < b <tool b", "a < b <tool b" },
        { "hermes", NULL, false, "  \n", "  \n" },
        { "hermes", NULL, false, "", "" },
        { "hermes", NULL, false, "<tool_call>", "<tool_call>" },
        { "hermes", NULL, false, "x\n<tool_call>\n{\"name\": \"f\", ",
          "x\n<tool_call>\n{\"name\": "
          "\"f\", " },
        { "hermes", NULL, false, "<tool_call>not json</tool_call>",
          "<tool_call>not json</tool_call>" },
        { "hermes", NULL, false, " <tool_call>{\"nom\":\"f\"}</tool_call>",
          " <tool_call>{\"nom\":\"f\"}</tool_call>" },
        { "hermes", NULL, false, "<tool_call>{\"name\":3,\"arguments\":{}}",
          "<tool_call>{\"name\":3,\"arguments\":{}}" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"\",\"arguments\":{}}",
          "<tool_call>{\"name\":\"\",\"arguments\":{}}" },
        { "hermes", NULL, false,
          "<tool_call><tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
          "<tool_call>|f({})" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":{\"a\": \"b",
          "|f({\"a\": \"b)" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_c", "|f({})" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool x",
          "</tool x|f({})" },
        { "hermes", NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":{} oops} b",
          " oops} b|f({})" },
        { NULL, NULL, false, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>",
          "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>" },
    };

    (void)state;
    EXPECT_ALL(cases);
}

static void thoughts_are_apart(void **state)
{
    static const struct text_case cases[] = {
        { NULL, "qwen3", false, "<think>\nhm\n</think>\n\nHi", "\nhm\n|\n\nHi" },
        { NULL, "qwen3", false, "Hi <think>x</think>", "Hi <think>x</think>" },
        { NULL, "qwen3", false, "\n <thin", "\n <thin" },
        { NULL, "qwen3", true, "hm</think>Hi", "hm|Hi" },
        { NULL, "qwen3", true, "<think>hm</think>Hi", "hm|Hi" },
        { NULL, "deepseek_r1", true, "hm </thin", "hm </thin|" },
        { NULL, "deepseek_r1", true, "no end", "no end|" },
        { NULL, "mistral", false, "[THINK]hm[/THINK]Hi", "hm|Hi" },
        { NULL, "qwen3", false, "<think></think>Hi", "Hi" },
        { "hermes", "qwen3", false,
          "<think><tool_call>{}</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</"
          "tool_call>",
          "<tool_call>{}||f({})" },
        { "llama3_json", "qwen3", true, "a</think>{\"name\":\"f\",\"parameters\":{}}", "a||f({})" },
    };

    (void)state;
    EXPECT_ALL(cases);
}

/* A whole answer can tell what a stream cannot. */
static void a_whole_text_with_a_broken_call_is_content(void **state)
{
    static const char text[] = "<think>t</think>x<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":";
    struct chat_rules rules = { .tools = tool_format_find("hermes", NULL),
                                .thoughts = reasoning_find("qwen3", NULL) };
    struct arena arena = { 0 };
    struct text_parts parts = { .arena = &arena };
    struct buf got = { 0 };

    (void)state;
    chat_text_split(&rules, text, strlen(text), &parts);
    describe(&parts, &got);
    assert_string_equal(got.data, "t|x<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":");
    buf_fini(&got);
    arena_fini(&arena);
}

static void hidden_parts_are_left_out(void **state)
{
    static const char text[] = "<think>t</think>x<tool_call>{\"name\":\"f\",\"arguments\":{}}"
                               "</tool_call><tool_call>{\"name\":\"g\",\"arguments\":{}}";
    struct chat_rules rules = { .tools = tool_format_find("hermes", NULL),
                                .thoughts = reasoning_find("qwen3", NULL),
                                .hides_thoughts = true,
                                .has_one_call = true };
    struct arena arena = { 0 };
    struct text_parts parts = { .arena = &arena };
    struct buf got = { 0 };

    (void)state;
    chat_text_split(&rules, text, strlen(text), &parts);
    describe(&parts, &got);
    assert_string_equal(got.data, "x|f({})");
    buf_fini(&got);
    arena_fini(&arena);
}

/* A prompt's end tells whether the model is already thinking. */
static void prompts_may_open_the_thoughts(void **state)
{
    const struct reasoning_format *qwen = reasoning_find("qwen3", NULL);
    const struct reasoning_format *r1 = reasoning_find("deepseek_r1", NULL);

    (void)state;
    assert_true(reasoning_is_open(qwen, "a<think>\n", 9));
    assert_false(reasoning_is_open(qwen, "a<think>\n\n</think>\n\n", 20));
    assert_false(reasoning_is_open(qwen, "", 0));
    assert_true(reasoning_is_open(r1, "a", 1));
    assert_false(reasoning_is_open(r1, "<think></think>", 15));
}

static const struct {
    const char *file, *tools, *thoughts; /* NULL: none */
} templates[] = {
    { "hermes-2-pro", "hermes", NULL },
    { "qwen-2.5", "hermes", NULL },
    { "qwen-3", "hermes", "qwen3" },
    { "llama-3.1", "llama3_json", NULL },
    { "llama-3.2", "llama3_json", NULL },
    { "mistral-nemo", "mistral", NULL },
    { "mistral-v0.3", "mistral", NULL },
    { "deepseek-r1", NULL, "qwen3" },
    { "llama-3", NULL, NULL },
    { "chatml", NULL, NULL },
};

static struct chat_template *open_template(const char *name)
{
    char path[512];
    struct chat_template *t;
    struct buf text = { 0 };
    struct err e;
    FILE *f;
    int c;

    snprintf(path, sizeof path, TEST_SOURCE_DIR "/tests/vectors/chat/templates/%s.jinja", name);
    f = fopen(path, "r");
    assert_non_null(f);
    while ((c = fgetc(f)) != EOF)
        buf_add_char(&text, (char)c);
    fclose(f);
    t = chat_template_new(text.data, text.n, &e);
    assert_ok(t != NULL, e);
    buf_fini(&text);
    return t;
}

static void auto_reads_the_template(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        struct chat_template *t = open_template(templates[i].file);
        const struct tool_format *tools = tool_format_find("auto", t);
        const struct reasoning_format *thoughts = reasoning_find("auto", t);
        assert_string_equal(tools ? tools->name : "-",
                            templates[i].tools ? templates[i].tools : "-");
        assert_string_equal(thoughts ? thoughts->name : "-",
                            templates[i].thoughts ? templates[i].thoughts : "-");
        chat_template_free(t);
    }
    assert_null(tool_format_find("auto", NULL));
    assert_null(tool_format_find("none", NULL));
    assert_null(reasoning_find("none", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hermes_calls_are_found_wherever_they_are_cut),
        cmocka_unit_test(llama_calls_are_the_whole_text),
        cmocka_unit_test(mistral_calls_are_a_list_or_named),
        cmocka_unit_test(what_is_no_call_is_not_lost),
        cmocka_unit_test(thoughts_are_apart),
        cmocka_unit_test(a_whole_text_with_a_broken_call_is_content),
        cmocka_unit_test(hidden_parts_are_left_out),
        cmocka_unit_test(prompts_may_open_the_thoughts),
        cmocka_unit_test(auto_reads_the_template),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
