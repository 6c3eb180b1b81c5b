/* test_gguf_tokenizer.c - tokenizers and chat templates of GGUF files: what the keys switch, and what is refused.
 * (That the ids are right is test_tokenizer_vectors.c.)
 *
 * What would break in production: a model that is fed a begin-of-text twice or never, whose control tokens a client
 * can spell, or one that is served with another model's words. */
#include <stdio.h>

#include "common/gguf.h"
#include "common/utf8.h"
#include "tests/check.h"
#include "tests/unit/gguf_writer.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

#define MARK "\xe2\x96\x81" /* U+2581 */

enum { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, USER_DEFINED = 4, UNUSED = 5 };
enum { TOKENS_MAX = 300 };

struct list {
    char s[TOKENS_MAX][24];
    int32_t kinds[TOKENS_MAX];
    float scores[TOKENS_MAX];
    uint32_t n;
};

static void add(struct list *l, const char *s, int32_t kind)
{
    assert_true(l->n < TOKENS_MAX);
    snprintf(l->s[l->n], sizeof l->s[0], "%s", s);
    l->kinds[l->n] = kind;
    l->scores[l->n] = -(float)l->n;
    l->n++;
}

static void put(struct gguf_writer *w, const struct list *l, const char *model)
{
    gguf_put_string(w, "tokenizer.ggml.model", model);
    gguf_put_strings(w, "tokenizer.ggml.tokens", l->n);
    for (uint32_t i = 0; i < l->n; i++)
        gguf_add_string(w, l->s[i], strlen(l->s[i]));
    gguf_put_i32s(w, "tokenizer.ggml.token_type", l->kinds, l->n);
    gguf_put_f32s(w, "tokenizer.ggml.scores", l->scores, l->n);
}

/* 0 <unk>, 1 <s>, 2 </s>, 3 <|user|>, 4 [PAD], 5 U+2581 a, 6 U+2581, 7 a, 8 b */
static struct list sentencepiece_list(void)
{
    struct list l = { .n = 0 };

    add(&l, "<unk>", UNKNOWN);
    add(&l, "<s>", CONTROL);
    add(&l, "</s>", CONTROL);
    add(&l, "<|user|>", CONTROL);
    add(&l, "[PAD]", UNUSED);
    add(&l, MARK "a", NORMAL);
    add(&l, MARK, NORMAL);
    add(&l, "a", NORMAL);
    add(&l, "b", NORMAL);
    return l;
}

static struct gguf_writer sentencepiece(const char *architecture)
{
    struct list l = sentencepiece_list();
    struct gguf_writer w = { 0 };

    gguf_put_string(&w, "general.architecture", architecture);
    put(&w, &l, "llama");
    gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 1);
    gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 2);
    return w;
}

/* Bytes in GPT-2's alphabet have ids 0..255 in their order there; 256 <|begin|>, 257 <tool>, 258 "ab". */
static struct gguf_writer byte_level(const char *pre)
{
    struct list l = { .n = 0 };
    struct gguf_writer w = { 0 };
    uint32_t next = 256;

    for (uint32_t b = 0; b < 256; b++) {
        bool own = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || (b >= 0xae && b <= 0xff);
        char s[5] = { 0 };
        utf8_encode(own ? b : next++, s);
        add(&l, s, NORMAL);
    }
    add(&l, "<|begin|>", CONTROL);
    add(&l, "<tool>", USER_DEFINED);
    add(&l, "ab", NORMAL);
    put(&w, &l, "gpt2");
    gguf_put_string(&w, "tokenizer.ggml.pre", pre);
    gguf_put_strings(&w, "tokenizer.ggml.merges", 1);
    gguf_add_string(&w, "a b", 3);
    gguf_put_u32(&w, "tokenizer.ggml.bos_token_id", 256);
    return w;
}

static struct gguf *parse(struct gguf_writer *w, struct buf *file)
{
    struct err e;
    struct gguf *g;

    *file = gguf_finish(w);
    g = gguf_parse("t.gguf", file->data, file->n, &e);
    if (!g)
        fail_msg("%s", e.msg);
    return g;
}

static struct tokenizer *open_it(struct gguf_writer *w, struct err *e)
{
    struct buf file;
    struct gguf *g = parse(w, &file);
    struct tokenizer *t = tokenizer_open_gguf(g, e);

    gguf_close(g);
    buf_fini(&file);
    return t;
}

static void expect_ids(struct gguf_writer *w, const char *text, const char *wanted)
{
    struct err e = { 0 };
    struct tokenizer *t = open_it(w, &e);
    struct token_list ids = { 0 };
    struct buf got = { 0 };

    if (!t)
        fail_msg("%s", e.msg);
    assert_ok(tokenizer_encode(t, text, strlen(text),
                               TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &ids, &e),
              e);
    for (size_t i = 0; i < ids.n; i++)
        buf_printf(&got, "%s%d", i ? " " : "", ids.ids[i]);
    assert_string_equal(got.data ? got.data : "", wanted);
    buf_fini(&got);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void expect_refusal(struct gguf_writer *w, const char *why)
{
    struct err e;

    assert_fails(open_it(w, &e), e, ERR_MODEL, why);
}

static void what_stands_around_a_text_is_switched_by_keys(void **state)
{
    struct gguf_writer w = sentencepiece("llama");

    (void)state;
    expect_ids(&w, "a", "1 5");
    w = sentencepiece("llama");
    gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", false);
    gguf_put_bool(&w, "tokenizer.ggml.add_eos_token", true);
    gguf_put_bool(&w, "tokenizer.ggml.add_space_prefix", false);
    expect_ids(&w, "a", "7 2");
    w = byte_level("gpt-2");
    expect_ids(&w, "ab", "258");
    w = byte_level("llama-bpe"); /* known to want it, and its files are without the key */
    expect_ids(&w, "ab", "256 258");
    w = byte_level("llama-bpe");
    gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", false);
    expect_ids(&w, "ab", "258");
}

static void only_phi3_drops_the_space_behind_a_control_token(void **state)
{
    struct gguf_writer w = sentencepiece("llama");

    (void)state;
    expect_ids(&w, "<|user|>  b", "1 3 6 6 6 8");
    w = sentencepiece("phi3");
    expect_ids(&w, "<|user|>  b", "1 3 6 8");
    w = sentencepiece("phi3");
    expect_ids(&w, "<s> b", "1 1 6 6 8");
}

static void the_unknown_token_may_be_named_by_its_id_alone(void **state)
{
    struct list l = sentencepiece_list();
    struct gguf_writer w = { 0 };

    (void)state;
    l.kinds[0] = CONTROL;
    put(&w, &l, "llama");
    gguf_put_u32(&w, "tokenizer.ggml.unknown_token_id", 0);
    expect_ids(&w, "az", "1 5 0");
    put(&w, &l, "llama");
    expect_refusal(&w, "no piece is the unknown one");
}

static void padding_is_never_the_reading_of_a_text(void **state)
{
    struct gguf_writer w = sentencepiece("llama");
    struct err e = { 0 };
    struct tokenizer *t = open_it(&w, &e);
    struct token_list ids = { 0 };

    (void)state;
    assert_non_null(t);
    assert_ok(tokenizer_encode(t, "[PAD]", 5, 0, &ids, &e), e);
    for (size_t i = 0; i < ids.n; i++)
        assert_int_not_equal(ids.ids[i], 4);
    assert_true(tokenizer_is_special(t, 4) && tokenizer_is_special(t, 3));
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void a_client_cannot_spell_control_tokens_but_user_defined_ones(void **state)
{
    struct gguf_writer w = byte_level("qwen2");
    struct err e = { 0 };
    struct tokenizer *t = open_it(&w, &e);
    struct token_list ids = { 0 };

    (void)state;
    if (!t)
        fail_msg("%s", e.msg);
    assert_ok(tokenizer_encode(t, "<|begin|><tool>", 15, 0, &ids, &e), e);
    assert_true(ids.n == 10 && ids.ids[9] == 257 && ids.ids[0] == '<');
    assert_string_equal(tokenizer_bos_str(t), "<|begin|>");
    assert_int_equal(tokenizer_eos_id(t), -1);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void every_pattern_that_is_known_compiles(void **state)
{
    static const char *const names[] = { "gpt-2",          "llama-bpe", "llama3",
                                         "llama-v3",       "dbrx",      "smaug-bpe",
                                         "qwen2",          "tekken",    "deepseek-r1-qwen",
                                         "gpt-4o",         "smollm",    "deepseek-v3",
                                         "deepseek-coder", "starcoder", "command-r" };

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct gguf_writer w = byte_level(names[i]);
        gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", false);
        expect_ids(&w, "ab<tool>ab", "258 257 258");
    }
}

/* Words of three capitals and small letters, and numbers, cut as the pattern's family does. */
static void patterns_differ_in_what_they_cut(void **state)
{
    struct gguf_writer w = byte_level("gpt-4o");
    struct err e = { 0 };
    struct tokenizer *t = open_it(&w, &e);
    struct token_list ids = { 0 };

    (void)state;
    assert_non_null(t);
    assert_ok(tokenizer_encode(t, "Aab", 3, 0, &ids, &e), e); /* one word: a merge inside it */
    assert_true(ids.n == 2 && ids.ids[1] == 258);
    token_list_clear(&ids);
    assert_ok(tokenizer_encode(t, "aAb", 3, 0, &ids, &e), e); /* "a" and "Ab": none across */
    assert_true(ids.n == 3);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void refuses_what_it_does_not_know(void **state)
{
    struct gguf_writer w = byte_level("of-tomorrow");
    struct list l = sentencepiece_list();

    (void)state;
    expect_refusal(&w, "how 'of-tomorrow' cuts a text");
    w = (struct gguf_writer){ 0 };
    expect_refusal(&w, "'tokenizer.ggml.model' is missing");
    put(&w, &l, "rwkv");
    expect_refusal(&w, "tokenizer.ggml.model 'rwkv' is not supported");
    put(&w, &l, "gpt2");
    expect_refusal(&w, "'tokenizer.ggml.pre' is missing");
    l.kinds[5] = 7;
    put(&w, &l, "llama");
    expect_refusal(&w, "token 5 is of no kind");
    l.kinds[5] = NORMAL;
    snprintf(l.s[5], sizeof l.s[5], "\xff");
    put(&w, &l, "llama");
    expect_refusal(&w, "token 5 is not UTF-8");
    snprintf(l.s[5], sizeof l.s[5], "a"); /* as token 7 */
    put(&w, &l, "llama");
    expect_refusal(&w, "'a' has the ids");
}

static void lists_must_be_of_one_length(void **state)
{
    struct gguf_writer w = { 0 };

    (void)state;
    gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    gguf_put_strings(&w, "tokenizer.ggml.tokens", 1);
    gguf_add_string(&w, "a", 1);
    gguf_put_i32s(&w, "tokenizer.ggml.token_type", (int32_t[]){ 1, 1 }, 2);
    gguf_put_f32s(&w, "tokenizer.ggml.scores", (float[]){ 0 }, 1);
    expect_refusal(&w, "'tokenizer.ggml.token_type' has 2 entries for 1 tokens");
    gguf_put_string(&w, "tokenizer.ggml.model", "llama");
    gguf_put_i32s(&w, "tokenizer.ggml.tokens", (int32_t[]){ 1 }, 1);
    expect_refusal(&w, "'tokenizer.ggml.tokens' has 1 int32");
    w = sentencepiece("llama");
    gguf_put_u32(&w, "tokenizer.ggml.padding_token_id", 9);
    expect_refusal(&w, "'tokenizer.ggml.padding_token_id' is 9; there are 9 tokens");
}

/* ---- chat templates ---- */

static bool load_templates(struct gguf_writer *w, struct chat_templates *ts, struct err *e)
{
    struct buf file;
    struct gguf *g = parse(w, &file);
    bool ok = chat_templates_load_gguf(ts, g, e);

    gguf_close(g);
    buf_fini(&file);
    return ok;
}

static void chat_templates_come_with_the_special_tokens(void **state)
{
    struct gguf_writer w = sentencepiece("llama");
    struct chat_templates ts;
    struct buf out = { 0 };
    struct tm now = { .tm_mday = 1 };
    struct err e;

    (void)state;
    gguf_put_string(&w, "tokenizer.chat_template", "{{ bos_token }}hi{{ eos_token }}");
    gguf_put_string(&w, "tokenizer.chat_template.tool_use", "tools");
    assert_ok(load_templates(&w, &ts, &e), e);
    assert_ptr_not_equal(chat_templates_pick(&ts, true), chat_templates_pick(&ts, false));
    assert_ok(chat_template_render(ts.plain, ts.tokens, &now, &out, &e), e);
    assert_string_equal(out.data, "<s>hi</s>");
    buf_fini(&out);
    chat_templates_fini(&ts);
}

static void a_file_without_a_template_is_no_error_and_a_wrong_one_is(void **state)
{
    struct gguf_writer w = sentencepiece("llama");
    struct chat_templates ts;
    struct err e;

    (void)state;
    assert_ok(load_templates(&w, &ts, &e), e);
    assert_null(chat_templates_pick(&ts, false));
    chat_templates_fini(&ts);
    w = sentencepiece("llama");
    gguf_put_string(&w, "tokenizer.chat_template", "{% if %}");
    assert_fails(load_templates(&w, &ts, &e), e, ERR_MODEL, "tokenizer.chat_template");
    w = sentencepiece("llama");
    gguf_put_u32(&w, "tokenizer.chat_template", 1);
    assert_fails(load_templates(&w, &ts, &e), e, ERR_MODEL, "has type uint32");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stands_around_a_text_is_switched_by_keys),
        cmocka_unit_test(only_phi3_drops_the_space_behind_a_control_token),
        cmocka_unit_test(the_unknown_token_may_be_named_by_its_id_alone),
        cmocka_unit_test(padding_is_never_the_reading_of_a_text),
        cmocka_unit_test(a_client_cannot_spell_control_tokens_but_user_defined_ones),
        cmocka_unit_test(every_pattern_that_is_known_compiles),
        cmocka_unit_test(patterns_differ_in_what_they_cut),
        cmocka_unit_test(refuses_what_it_does_not_know),
        cmocka_unit_test(lists_must_be_of_one_length),
        cmocka_unit_test(chat_templates_come_with_the_special_tokens),
        cmocka_unit_test(a_file_without_a_template_is_no_error_and_a_wrong_one_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
