/* test_tokenizer.c - opening, special tokens, spans and refusals.
 *
 * What would break in production: a client's text that turns into control tokens; bos missing or
 * doubled; /tokenize pointing at the wrong bytes; a model directory we misread opening without a word. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/json.h"
#include "text/tokenizer.h"

#define DEMO    TEST_SOURCE_DIR "/models/stories-demo"
#define VECTORS TEST_SOURCE_DIR "/tests/vectors/tokenizer"
#define MARK    "\xe2\x96\x81"

/* A character tokenizer: 0 <unk>, 1 <s>, 2 </s>, 3 a, 4 b, 5 ab, 6 U+2581. */
#define HEAD(added) "{\"added_tokens\":[" SPECIALS added "],"
#define SPECIALS                                                                                   \
    "{\"id\":0,\"content\":\"<unk>\",\"special\":true},"                                           \
    "{\"id\":1,\"content\":\"<s>\",\"special\":true},"                                             \
    "{\"id\":2,\"content\":\"</s>\",\"special\":true}"
#define MODEL                                                                                      \
    "\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"vocab\":{\"<unk>\":0,\"<s>\":1,\"</"    \
    "s>\":2,"                                                                                      \
    "\"a\":3,\"b\":4,\"ab\":5,\"" MARK "\":6},\"merges\":[\"a b\"]}"
#define DECODER   "\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK "\"},"
#define TAG(more) ",{\"id\":7,\"content\":\"TAG\",\"special\":false,\"normalized\":false" more "}"

static struct tokenizer *open_json(const char *json, const char *config)
{
    struct err e = { 0 };
    struct tokenizer *t =
        tokenizer_open_json(json, strlen(json), config, config ? strlen(config) : 0, &e);

    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

/* Ids as "1 2 3"; with TOKENIZER_SPANS as "1[0,2) ...". */
static void check(const struct tokenizer *t, const char *text, unsigned flags, const char *want)
{
    struct token_list ids = { 0 };
    struct err e = { 0 };
    struct buf out = { 0 };

    if (!tokenizer_encode(t, text, strlen(text), flags, &ids, &e))
        fail_msg("%s", e.msg);
    buf_reserve(&out, 0);
    buf_clear(&out);
    for (size_t i = 0; i < ids.n; i++) {
        buf_printf(&out, "%s%d", i ? " " : "", ids.ids[i]);
        if (flags & TOKENIZER_SPANS)
            buf_printf(&out, "[%u,%u)", ids.spans[i].start, ids.spans[i].end);
    }
    assert_string_equal(out.data, want);
    buf_fini(&out);
    token_list_fini(&ids);
}

static void special_tokens_need_the_flag(void **state)
{
    struct tokenizer *t = open_json(HEAD("") DECODER MODEL "}", NULL);

    (void)state;
    check(t, "ab</s>b", TOKENIZER_PARSE_SPECIAL, "5 2 4");
    check(t, "ab</s>b", 0, "5 0 0 0 0 4"); /* four unknown letters; fuse_unk is off */
    check(t, "</s></s", TOKENIZER_PARSE_SPECIAL, "2 0 0 0");
    assert_true(tokenizer_is_special(t, 2));
    assert_false(tokenizer_is_special(t, 5));
    assert_false(tokenizer_is_special(t, -1));
    assert_false(tokenizer_is_special(t, 99));
    tokenizer_close(t);
}

/* A model whose merges spell its end token: a client must not be able to. */
static void merges_never_make_a_special_token(void **state)
{
    struct tokenizer *t = open_json(HEAD("") DECODER MODEL "}", "{\"eos_token\":\"ab\"}");

    (void)state;
    assert_int_equal(tokenizer_eos_id(t), 5);
    check(t, "ab", 0, "3 4");
    check(t, "ab", TOKENIZER_PARSE_SPECIAL, "5");
    tokenizer_close(t);
}

static void added_tokens_keep_their_flags(void **state)
{
    struct tokenizer *t = open_json(HEAD(TAG("")) DECODER MODEL "}", NULL);

    (void)state;
    check(t, "aTAGb", 0, "3 7 4"); /* not special: always found */
    tokenizer_close(t);
    t = open_json(HEAD(TAG(",\"single_word\":true")) DECODER MODEL "}", NULL);
    check(t, "aTAGb", 0, "3 0 0 0 4");
    check(t, "TAG", 0, "7");
    check(t, "-TAG-", 0, "0 7 0");
    check(t, "\xc3\xa9TAG", 0, "0 0 0 0"); /* e acute is a letter too */
    tokenizer_close(t);
    t = open_json(HEAD(TAG(",\"lstrip\":true")) DECODER MODEL "}", NULL);
    check(t, "a \n TAG b", TOKENIZER_SPANS, "3[0,1) 7[1,7) 0[7,8) 4[8,9)");
    check(t, "TAG TAG", TOKENIZER_SPANS, "7[0,3) 7[3,7)");
    tokenizer_close(t);
    t = open_json(HEAD(TAG(",\"rstrip\":true")) DECODER MODEL "}", NULL);
    check(t, "a TAG\xe2\x80\x83 b", TOKENIZER_SPANS, "3[0,1) 0[1,2) 7[2,9) 4[9,10)");
    tokenizer_close(t);
}

static void longest_added_token_wins(void **state)
{
    struct tokenizer *t = open_json(
        HEAD(TAG("") ",{\"id\":8,\"content\":\"TAGS\",\"special\":false,\"normalized\":false}")
            DECODER MODEL "}",
        NULL);

    (void)state;
    check(t, "TAGSTAG", 0, "8 7");
    tokenizer_close(t);
}

static void normalized_added_tokens_are_sought_in_the_normal_form(void **state)
{
    struct tokenizer *t =
        open_json(HEAD(",{\"id\":7,\"content\":\"TAG\",\"normalized\":true}") DECODER
                  "\"normalizer\":{\"type\":\"Lowercase\"}," MODEL "}",
                  NULL);

    (void)state;
    check(t, "aTaGB", TOKENIZER_SPANS, "3[0,1) 7[1,4) 4[4,5)");
    tokenizer_close(t);
}

static void template_adds_bos_and_eos(void **state)
{
    static const char json[] =
        HEAD("") DECODER "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{"
                         "\"SpecialToken\":{\"id\":\"<s>\"}},"
                         "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"</"
                         "s>\"}}],\"special_tokens\":{\"<s>\":{\"ids\":[1]},"
                         "\"</s>\":{\"ids\":[2]}}}," MODEL "}";
    struct tokenizer *t = open_json(json, "{\"bos_token\":{\"content\":\"<s>\"}}");

    (void)state;
    check(t, "ab", TOKENIZER_ADD_SPECIAL, "1 5 2");
    check(t, "ab", 0, "5");
    check(t, "", TOKENIZER_ADD_SPECIAL, "1 2");
    check(t, "b", TOKENIZER_ADD_SPECIAL | TOKENIZER_SPANS, "1[0,0) 4[0,1) 2[0,0)");
    assert_true(tokenizer_adds_bos(t));
    tokenizer_close(t);

    /* The Llama classes obey their switches and not the template. */
    t = open_json(json, "{\"tokenizer_class\":\"LlamaTokenizerFast\",\"bos_token\":\"<s>\","
                        "\"eos_token\":\"</s>\",\"add_bos_token\":false,\"add_eos_token\":true}");
    check(t, "ab", TOKENIZER_ADD_SPECIAL, "5 2");
    assert_false(tokenizer_adds_bos(t));
    tokenizer_close(t);
    t = open_json(json, "{\"tokenizer_class\":\"GemmaTokenizer\",\"bos_token\":\"<s>\"}");
    check(t, "ab", TOKENIZER_ADD_SPECIAL, "1 5");
    tokenizer_close(t);
    t = open_json(json,
                  "{\"tokenizer_class\":\"PreTrainedTokenizerFast\",\"add_bos_token\":false}");
    check(t, "ab", TOKENIZER_ADD_SPECIAL, "1 5 2");
    tokenizer_close(t);
}

static void config_names_and_adds_tokens(void **state)
{
    struct tokenizer *t =
        open_json(HEAD("") DECODER MODEL "}",
                  "{\"bos_token\":\"<s>\",\"eos_token\":{\"content\":\"</"
                  "s>\",\"lstrip\":false},\"pad_token\":null,"
                  "\"unk_token\":\"<unk>\",\"model_max_length\":1000000000000000019884624838656,"
                  "\"added_tokens_decoder\":{\"9\":{\"content\":\"<x>\",\"special\":true},\"3\":{"
                  "\"content\":\"a\"}}}");

    (void)state;
    assert_int_equal(tokenizer_bos_id(t), 1);
    assert_string_equal(tokenizer_bos_str(t), "<s>");
    assert_int_equal(tokenizer_eos_id(t), 2);
    assert_int_equal(tokenizer_pad_id(t), -1);
    assert_null(tokenizer_pad_str(t));
    assert_int_equal(tokenizer_unk_id(t), 0);
    assert_int_equal(tokenizer_vocab_size(t), 10);
    assert_int_equal(tokenizer_token_id(t, "<x>", 3), 9);
    assert_true(tokenizer_is_special(t, 9));
    assert_int_equal(tokenizer_token_id(t, "nope", 4), -1);
    check(t, "b<x>", TOKENIZER_PARSE_SPECIAL, "4 9");
    tokenizer_close(t);
}

static void tokens_have_bytes_and_spelling(void **state)
{
    struct err e = { 0 };
    struct tokenizer *t = tokenizer_open(DEMO, &e);
    size_t n;

    (void)state;
    if (!t)
        fail_msg("%s", e.msg);
    assert_string_equal(tokenizer_token_str(t, 403, &n), MARK "Once");
    assert_int_equal(n, 7);
    assert_string_equal(tokenizer_token_bytes(t, 403, &n), " Once");
    assert_int_equal(n, 5);
    assert_string_equal(tokenizer_token_str(t, 3 + 0xe9, NULL), "<0xE9>");
    assert_string_equal(tokenizer_token_bytes(t, 3 + 0xe9, &n), "\xe9");
    assert_int_equal(n, 1);
    assert_null(tokenizer_token_bytes(t, 2048, &n));
    assert_int_equal(n, 0);
    assert_null(tokenizer_token_bytes(t, -1, &n));
    assert_int_equal(tokenizer_bos_id(t), 1);
    assert_int_equal(tokenizer_eos_id(t), 2);
    tokenizer_close(t);
}

/* Of the reference values that came with the model, made by a third program. */
static void demo_prompts_have_their_golden_ids(void **state)
{
    struct err e = { 0 };
    struct tokenizer *t = tokenizer_open(DEMO, &e);
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e);
    size_t i, seen = 0;
    json_t *item;

    (void)state;
    if (!t || !golden)
        fail_msg("%s", e.msg);
    json_array_foreach (json_object_get(golden, "prompts"), i, item) {
        const char *text = json_string_value(json_object_get(item, "prompt"));
        const json_t *want = json_object_get(item, "ids");
        struct token_list ids = { 0 };

        if (!text)
            continue;
        assert_true(tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, &ids, &e));
        assert_int_equal(ids.n, json_array_size(want));
        for (size_t k = 0; k < ids.n; k++)
            assert_int_equal(ids.ids[k], json_integer_value(json_array_get(want, k)));
        token_list_fini(&ids);
        seen++;
    }
    assert_true(seen >= 3);
    json_decref(golden);
    tokenizer_close(t);
}

static void spans_are_of_the_text_as_it_came(void **state)
{
    struct tokenizer *t = open_json(
        HEAD("") DECODER
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
        "\"prepend\":\"" MARK "\"},{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
        "\"content\":\"" MARK "\"},{\"type\":\"NFKC\"},{\"type\":\"Lowercase\"}]}," MODEL "}",
        NULL);

    (void)state;
    check(t, "ab b", TOKENIZER_SPANS, "6[0,1) 5[0,2) 6[2,3) 4[3,4)");
    check(t,
          "\xef\xbd\x81"
          "B",
          TOKENIZER_SPANS, "6[0,3) 5[0,4)");
    tokenizer_close(t);
}

/* Quadratic in the pile, this takes many minutes, and the test its timeout. */
static void spans_in_a_pile_of_marks_are_not_quadratic(void **state)
{
    enum { MARKS = 300000 };
    struct token_list ids = { 0 };
    struct err e = { 0 };
    struct buf text = { 0 };
    struct tokenizer *t;
    char *json;
    size_t n;

    (void)state;
    assert_true(file_read(VECTORS "/qwen2/tokenizer.json", 1 << 20, &json, &n, &e));
    t = tokenizer_open_json(json, n, NULL, 0, &e);
    free(json);
    for (int i = 0; i < MARKS; i++) /* U+0344 becomes two marks, and they change places */
        buf_add_str(&text, i % 2 ? "\xcd\x84" : "\xcc\xa3");
    assert_true(tokenizer_encode(t, text.data, text.n, TOKENIZER_SPANS, &ids, &e));
    assert_int_equal(ids.spans[0].start, 0);
    assert_int_equal(ids.spans[ids.n - 1].end, text.n);
    buf_fini(&text);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void invalid_text_is_refused_and_leaves_the_list(void **state)
{
    struct tokenizer *t = open_json(HEAD("") DECODER MODEL "}", NULL);
    struct token_list ids = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_true(tokenizer_encode(t, "ab", 2, TOKENIZER_ADD_SPECIAL, &ids, &e));
    assert_false(tokenizer_encode(t, "ab\xff", 3, TOKENIZER_ADD_SPECIAL, &ids, &e));
    assert_int_equal(e.code, ERR_INPUT);
    assert_non_null(strstr(e.msg, "byte 2"));
    assert_int_equal(ids.n, 1);
    assert_true(tokenizer_encode(t, "a\0b", 3, 0, &ids, &e)); /* NUL is a character */
    assert_int_equal(ids.n, 4);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void what_is_not_understood_is_named(void **state)
{
    static const struct {
        const char *json, *config, *named;
    } bad[] = {
        { "", NULL, "'{' expected" },
        { "{}", NULL, "'model'" },
        { "{\"model\":{}}", NULL, "'vocab'" },
        { HEAD("") MODEL "}", NULL, "decoder" },
        { HEAD("") "\"decoder\":{\"type\":\"WordPiece\"}," MODEL "}", NULL, "'WordPiece'" },
        { HEAD("") DECODER "\"normalizer\":{\"type\":\"BertNormalizer\"}," MODEL "}", NULL,
          "'BertNormalizer'" },
        { HEAD("") DECODER "\"post_processor\":{\"type\":\"BertProcessing\"}," MODEL "}", NULL,
          "'BertProcessing'" },
        { HEAD(",{\"id\":3,\"content\":\"b\"}") DECODER MODEL "}", NULL, "'b'" },
        { HEAD(",{\"id\":99999999,\"content\":\"x\"}") DECODER MODEL "}", NULL, "99999999" },
        { DECODER MODEL "}", NULL, "'{' expected" },
        { "{" DECODER "\"model\":{\"type\":\"WordPiece\",\"vocab\":{},\"merges\":[]}}", NULL,
          "'WordPiece'" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0,\"b\":1},\"merges\":[\"a b\"]}}", NULL,
          "merge 0" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}", NULL, "two pieces" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}", NULL,
          "two strings" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", NULL, "id 0" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", NULL, "'a'" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", NULL, "-1" },
        { "{" DECODER "\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}", NULL, "unk_token" },
        { "{" DECODER "\"model\":{\"unk_token\":\"u\",\"vocab\":{\"a\":0},\"merges\":[]}}", NULL,
          "'u'" },
        { "{" DECODER "\"model\":{\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}", NULL,
          "'dropout'" },
        { "{" DECODER
          "\"model\":{\"end_of_word_suffix\":\"</w>\",\"vocab\":{\"a\":0},\"merges\":[]}}",
          NULL, "'</w>'" },
        { "{" DECODER "\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{\"a\":0},"
          "\"merges\":[]}}",
          NULL, "byte 0x" },
        { HEAD("") DECODER MODEL "}", "[]", "tokenizer_config.json" },
        { HEAD("") DECODER MODEL "}", "{\"eos_token\":\"nope\"}", "'nope'" },
        { HEAD("") DECODER MODEL "}", "{\"added_tokens_decoder\":{\"x\":{\"content\":\"y\"}}}",
          "'x'" },
        { HEAD("") DECODER MODEL "}",
          "{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":1}", "'add_bos_token'" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = { 0 };
        struct tokenizer *t = tokenizer_open_json(bad[i].json, strlen(bad[i].json), bad[i].config,
                                                  bad[i].config ? strlen(bad[i].config) : 0, &e);

        if (t)
            fail_msg("opened: %s", bad[i].json);
        assert_int_equal(e.code, ERR_MODEL);
        if (!strstr(e.msg, bad[i].named))
            fail_msg("'%s' does not name %s", e.msg, bad[i].named);
    }
}

static void open_says_which_directory(void **state)
{
    struct err e = { 0 };

    (void)state;
    assert_null(tokenizer_open(TEST_SOURCE_DIR "/tests/unit", &e));
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "tests/unit"));
}

static void *encode_a_lot(void *arg)
{
    const struct tokenizer *t = arg;
    static const char text[] =
        "Once upon a time 12345 \xe4\xbd\xa0\xe5\xa5\xbd e\xcc\x81 <|im_end|>!\n\n  done";
    struct token_list first = { 0 }, ids = { 0 };
    struct err e = { 0 };

    assert_true(tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_SPANS, &first, &e));
    for (int i = 0; i < 300; i++) {
        token_list_clear(&ids);
        if (!tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_SPANS, &ids, &e) ||
            ids.n != first.n || memcmp(ids.ids, first.ids, ids.n * sizeof *ids.ids) != 0)
            return arg;
    }
    token_list_fini(&first);
    token_list_fini(&ids);
    return NULL;
}

/* For the thread sanitizer (preset tsan) as much as for the ids. */
static void threads_share_a_tokenizer(void **state)
{
    struct err e = { 0 };
    pthread_t threads[4];
    struct tokenizer *t;
    char *json;
    size_t n;

    (void)state;
    assert_true(file_read(VECTORS "/qwen2/tokenizer.json", 1 << 20, &json, &n, &e));
    t = tokenizer_open_json(json, n, NULL, 0, &e);
    free(json);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_a_lot, t), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(special_tokens_need_the_flag),
        cmocka_unit_test(merges_never_make_a_special_token),
        cmocka_unit_test(added_tokens_keep_their_flags),
        cmocka_unit_test(longest_added_token_wins),
        cmocka_unit_test(normalized_added_tokens_are_sought_in_the_normal_form),
        cmocka_unit_test(template_adds_bos_and_eos),
        cmocka_unit_test(config_names_and_adds_tokens),
        cmocka_unit_test(tokens_have_bytes_and_spelling),
        cmocka_unit_test(demo_prompts_have_their_golden_ids),
        cmocka_unit_test(spans_are_of_the_text_as_it_came),
        cmocka_unit_test(spans_in_a_pile_of_marks_are_not_quadratic),
        cmocka_unit_test(invalid_text_is_refused_and_leaves_the_list),
        cmocka_unit_test(what_is_not_understood_is_named),
        cmocka_unit_test(open_says_which_directory),
        cmocka_unit_test(threads_share_a_tokenizer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
