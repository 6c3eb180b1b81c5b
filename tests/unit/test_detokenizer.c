/* test_detokenizer.c - ids to text, one id at a time.
 *
 * What would break in production: half a character in a client's stream, a space lost or doubled
 * between prompt and answer, an answer resumed after a crash that differs from the one it continues. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/json.h"
#include "common/utf8.h"
#include "text/detokenizer.h"

#define DEMO    TEST_SOURCE_DIR "/models/stories-demo"
#define VECTORS TEST_SOURCE_DIR "/tests/vectors/tokenizer"
#define MARK    "\xe2\x96\x81"
#define BAD     "\xef\xbf\xbd" /* U+FFFD */

enum { LISTS = 3000, IDS_MAX = 24, SEED = 20240613 };

static struct tokenizer *open_vector(const char *kind)
{
    bool model = strncmp(kind, "sp_", 3) == 0;
    struct err e = { 0 };
    struct tokenizer *t;
    char path[512], *bytes;
    size_t n;

    snprintf(path, sizeof path, VECTORS "/%s/tokenizer.%s", kind, model ? "model" : "json");
    if (!file_read(path, 1 << 20, &bytes, &n, &e))
        fail_msg("%s", e.msg);
    t = model ? tokenizer_open_sentencepiece(bytes, n, NULL, 0, &e)
              : tokenizer_open_json(bytes, n, NULL, 0, &e);
    free(bytes);
    if (!t)
        fail_msg("%s: %s", kind, e.msg);
    return t;
}

static struct tokenizer *open_demo(void)
{
    struct err e = { 0 };
    struct tokenizer *t = tokenizer_open(DEMO, &e);

    if (!t)
        fail_msg("%s", e.msg);
    return t;
}

/* The id of the first token that is this single byte. */
static int32_t byte_id(const struct tokenizer *t, unsigned char byte)
{
    for (int32_t id = 0; id < tokenizer_vocab_size(t); id++) {
        size_t n;
        const char *s = tokenizer_token_bytes(t, id, &n);
        if (n == 1 && (unsigned char)*s == byte)
            return id;
    }
    fail_msg("no token for byte %02x", byte);
    return -1;
}

/* Push the bytes as byte tokens; "|" in the result marks each push, then the flush. */
static void check_bytes(const struct tokenizer *t, const char *bytes, size_t n, const char *want)
{
    struct detokenizer d;
    struct buf out = { 0 };

    detokenizer_init(&d, t, 0);
    for (size_t i = 0; i < n; i++) {
        detokenizer_push(&d, byte_id(t, (unsigned char)bytes[i]), &out);
        buf_add_char(&out, '|');
    }
    detokenizer_flush(&d, &out);
    assert_string_equal(out.data, want);
    buf_fini(&out);
}

static void characters_come_out_whole(void **state)
{
    struct tokenizer *t = open_vector("gpt2");

    (void)state;
    check_bytes(t, "\xc3\xa9", 2, "|\xc3\xa9|");
    check_bytes(t, "\xe4\xbd\xa0!", 4, "||\xe4\xbd\xa0|!|");
    check_bytes(t, "\xf0\x9f\x98\x80", 4, "|||\xf0\x9f\x98\x80|");
    tokenizer_close(t);
}

/* As Python's bytes.decode(errors="replace"). */
static void bad_bytes_are_replaced_by_maximal_part(void **state)
{
    struct tokenizer *t = open_vector("gpt2");

    (void)state;
    check_bytes(t, "\xe4\xbd!", 3, "||" BAD "!|"); /* one for both */
    check_bytes(t, "\xe4\xbd", 2, "||" BAD);       /* at the end */
    check_bytes(t, "\xff\xfe", 2, BAD "|" BAD "|");
    check_bytes(t, "\xe0\x80", 2, "|" BAD BAD "|"); /* e0 80 cannot begin a character */
    check_bytes(t, "\xf0\x9f\xc3\xa9", 4, "||" BAD "|\xc3\xa9|");
    check_bytes(t, "\xed\xa0\x80", 3, "|" BAD BAD "|" BAD "|"); /* a surrogate */
    tokenizer_close(t);
}

/* As SentencePiece. */
static void with_byte_fallback_each_bad_byte_is_replaced(void **state)
{
    struct tokenizer *t = open_vector("sp_llama");

    (void)state;
    check_bytes(t, "\xe4\xbd\n", 3, "||" BAD BAD "\n|");
    check_bytes(t, "\xe4\xbd", 2, "||" BAD BAD);
    tokenizer_close(t);
}

static void decode_into(const struct tokenizer *t, const int32_t *ids, size_t n, unsigned flags,
                        struct buf *out)
{
    buf_clear(out);
    detokenize(t, ids, n, flags, out);
}

/* Join what decode() makes of ids by hand: replace whatever is not UTF-8. */
static void join_by_hand(const struct tokenizer *t, const int32_t *ids, size_t n, bool skip,
                         struct buf *out)
{
    struct buf raw = { 0 };

    buf_clear(out);
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *s = tokenizer_token_bytes(t, ids[i], &len);
        if (s && !(skip && tokenizer_is_special(t, ids[i])))
            buf_add(&raw, s, len);
    }
    for (size_t i = 0, len; i < raw.n; i += len)
        if (utf8_next(raw.data + i, raw.n - i, &len) == UTF8_CHAR)
            buf_add(out, raw.data + i, len);
        else
            buf_add_str(out, BAD);
    buf_fini(&raw);
}

/* Random ids, cut anywhere into a "prompt" and a "generation": increments are valid, and joined they are
 * what the whole list decodes to, and that is what the bytes spell. */
static void increments_join_to_the_whole(void **state)
{
    static const char *const kinds[] = { "gpt2", "llama3", "qwen2", "tekken" };
    struct buf whole = { 0 }, parts = { 0 }, by_hand = { 0 };

    (void)state;
    printf("seed %d\n", SEED);
    srand(SEED);
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        struct tokenizer *t = open_vector(kinds[k]);

        for (int i = 0; i < LISTS; i++) {
            unsigned flags = rand() % 2 ? DETOKENIZER_SKIP_SPECIAL : 0;
            size_t n = (size_t)rand() % IDS_MAX;
            int32_t ids[IDS_MAX];
            struct detokenizer d;

            for (size_t j = 0; j < n; j++) /* a few past the end */
                ids[j] = rand() % (tokenizer_vocab_size(t) + 5);
            buf_clear(&parts);
            buf_reserve(&parts, 0);
            detokenizer_init(&d, t, flags);
            for (size_t j = 0; j < n; j++) {
                size_t before = parts.n, bad_at;
                detokenizer_push(&d, ids[j], &parts);
                assert_true(utf8_is_valid(parts.data + before, parts.n - before, &bad_at));
            }
            detokenizer_flush(&d, &parts);
            decode_into(t, ids, n, flags, &whole);
            join_by_hand(t, ids, n, flags != 0, &by_hand);
            assert_int_equal(parts.n, whole.n);
            assert_int_equal(by_hand.n, whole.n);
            assert_true(whole.n == 0 || (memcmp(parts.data, whole.data, whole.n) == 0 &&
                                         memcmp(by_hand.data, whole.data, whole.n) == 0));
        }
        tokenizer_close(t);
    }
    buf_fini(&whole);
    buf_fini(&parts);
    buf_fini(&by_hand);
}

/* Text of a generation = decode(prompt + generation) minus decode(prompt), wherever one cuts. */
static void a_generation_continues_its_prompt(void **state)
{
    static const char text[] = "Once upon a time \xf0\x9f\x98\x80\xe4\xbd\xa0 there was a  girl.\n";
    struct tokenizer *t = open_demo();
    struct buf whole = { 0 }, prompt = { 0 }, rest = { 0 };
    struct token_list ids = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_true(tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_ADD_SPECIAL, &ids, &e));
    decode_into(t, ids.ids, ids.n, DETOKENIZER_SKIP_SPECIAL, &whole);
    assert_string_equal(whole.data, text);
    for (size_t cut = 0; cut <= ids.n; cut++) {
        struct detokenizer d;

        detokenizer_init(&d, t, DETOKENIZER_SKIP_SPECIAL);
        detokenizer_continue(&d, ids.ids, cut);
        buf_clear(&rest);
        buf_reserve(&rest, 0);
        for (size_t i = cut; i < ids.n; i++)
            detokenizer_push(&d, ids.ids[i], &rest);
        detokenizer_flush(&d, &rest);
        /* what the prompt's whole characters spell, then the rest */
        assert_true(rest.n <= whole.n);
        assert_memory_equal(whole.data + whole.n - rest.n, rest.data, rest.n);
        decode_into(t, ids.ids, cut, DETOKENIZER_SKIP_SPECIAL, &prompt);
        while (prompt.n >= 3 && memcmp(prompt.data + prompt.n - 3, BAD, 3) == 0)
            prompt.n -= 3; /* the held beginning of a character */
        assert_int_equal(prompt.n + rest.n, whole.n);
    }
    token_list_fini(&ids);
    buf_fini(&whole);
    buf_fini(&prompt);
    buf_fini(&rest);
    tokenizer_close(t);
}

static void llama_drops_one_space_at_the_beginning_only(void **state)
{
    struct tokenizer *t = open_demo();
    int32_t once = tokenizer_token_id(t, MARK "Once", 7);
    int32_t mark = tokenizer_token_id(t, MARK, 3);
    int32_t ids[] = { 1, mark, once, once };
    struct detokenizer d;
    struct buf out = { 0 };

    (void)state;
    assert_true(once >= 0 && mark >= 0);
    decode_into(t, ids, 4, DETOKENIZER_SKIP_SPECIAL, &out);
    assert_string_equal(out.data, " Once Once"); /* one of the two */
    decode_into(t, ids, 4, 0, &out);
    assert_string_equal(out.data, "<s>  Once Once"); /* the text begins with "<" */
    /* after a prompt of bos alone, a generation is the beginning */
    buf_clear(&out);
    detokenizer_init(&d, t, DETOKENIZER_SKIP_SPECIAL);
    detokenizer_continue(&d, ids, 1);
    detokenizer_push(&d, once, &out);
    assert_string_equal(out.data, "Once");
    /* after any text it is not */
    buf_clear(&out);
    detokenizer_init(&d, t, DETOKENIZER_SKIP_SPECIAL);
    detokenizer_continue(&d, ids, 3);
    detokenizer_push(&d, once, &out);
    assert_string_equal(out.data, " Once");
    buf_fini(&out);
    tokenizer_close(t);
}

/* The Hugging Face Metaspace decoder rids the first token of all its marks, not of one. */
static void metaspace_decoder_cleans_the_first_token(void **state)
{
    static const char json[] =
        "{\"decoder\":{\"type\":\"Metaspace\",\"replacement\":\"" MARK
        "\"},\"model\":{\"unk_token\":\"a\","
        "\"vocab\":{\"a\":0,\"" MARK MARK "b\":1,\"" MARK "c\":2},\"merges\":[]}}";
    struct err e = { 0 };
    struct tokenizer *t = tokenizer_open_json(json, sizeof json - 1, NULL, 0, &e);
    int32_t ids[] = { 1, 1, 2, 0 };
    struct buf out = { 0 };

    (void)state;
    assert_non_null(t);
    decode_into(t, ids, 4, 0, &out);
    assert_string_equal(out.data, "b  b ca");
    buf_fini(&out);
    tokenizer_close(t);
}

static void ids_that_stand_for_nothing_have_no_text(void **state)
{
    struct tokenizer *t = open_demo();
    int32_t ids[] = { -1, 2048, INT32_MAX, INT32_MIN };
    struct buf out = { 0 };

    (void)state;
    decode_into(t, ids, 4, 0, &out);
    assert_int_equal(out.n, 0);
    buf_fini(&out);
    tokenizer_close(t);
}

static void golden_answers_read_as_recorded(void **state)
{
    struct err e = { 0 };
    struct tokenizer *t = open_demo();
    json_t *golden = json_parse_file(DEMO "/golden.json", 1 << 20, &e), *item;
    size_t i, seen = 0;

    (void)state;
    assert_non_null(golden);
    json_array_foreach (json_object_get(golden, "prompts"), i, item) {
        const json_t *prompt = json_object_get(item, "ids"),
                     *answer = json_object_get(item, "greedy_ids");
        const char *want = json_string_value(json_object_get(item, "greedy_text"));
        struct detokenizer d;
        struct buf out = { 0 };

        detokenizer_init(&d, t, DETOKENIZER_SKIP_SPECIAL);
        for (size_t k = 0; k < json_array_size(prompt); k++) {
            int32_t id = (int32_t)json_integer_value(json_array_get(prompt, k));
            detokenizer_continue(&d, &id, 1);
        }
        for (size_t k = 0; k < json_array_size(answer); k++)
            detokenizer_push(&d, (int32_t)json_integer_value(json_array_get(answer, k)), &out);
        detokenizer_flush(&d, &out);
        /* it was recorded without the space that an answer begins with */
        assert_string_equal(out.data + (out.data[0] == ' '), want + (want[0] == ' '));
        buf_fini(&out);
        seen++;
    }
    assert_true(seen >= 6);
    json_decref(golden);
    tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(characters_come_out_whole),
        cmocka_unit_test(bad_bytes_are_replaced_by_maximal_part),
        cmocka_unit_test(with_byte_fallback_each_bad_byte_is_replaced),
        cmocka_unit_test(increments_join_to_the_whole),
        cmocka_unit_test(a_generation_continues_its_prompt),
        cmocka_unit_test(llama_drops_one_space_at_the_beginning_only),
        cmocka_unit_test(metaspace_decoder_cleans_the_first_token),
        cmocka_unit_test(ids_that_stand_for_nothing_have_no_text),
        cmocka_unit_test(golden_answers_read_as_recorded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
