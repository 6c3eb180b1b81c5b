/* test_tokenizer_vectors.c - our ids and texts are those of independent implementations.
 *
 * What would break in production: a model that sees other ids than it was trained with answers a
 * little worse, for some inputs, and nothing else shows it.  tests/vectors/tokenizer has small
 * tokenizers of every kind and what @huggingface/tokenizers and the SentencePiece library make of a
 * thousand unpleasant strings; its make_*.mjs and make_*.py made them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/mem.h"
#include "common/utf8.h"
#include "tests/unit/gguf_tokenizer.h"
#include "text/detokenizer.h"
#include "text/json_scan.h"
#include "text/tokenizer.h"
#include "text/tokenizer/tokenizer_impl.h"

#define VECTORS TEST_SOURCE_DIR "/tests/vectors/tokenizer"
#define DEMO    TEST_SOURCE_DIR "/models/stories-demo"

enum { FILE_MAX = 4 << 20, TEXTS_MAX = 4000, STRING_MAX = 1 << 20 };

struct string {
    char *s;
    size_t n;
};

/* One kind of tokenizer under test. */
struct fixture {
    const char *name;
    bool sentencepiece;
    struct tokenizer *t;
    char *expected;
    size_t expected_n;
};

static struct string texts[TEXTS_MAX];
static size_t n_texts;
static char *line; /* STRING_MAX bytes, for one string of a file */

static void read_file(const char *path, char **s, size_t *n)
{
    struct err e = { 0 };

    if (!file_read(path, FILE_MAX, s, n, &e))
        fail_msg("%s", e.msg);
}

static int load_texts(void **state)
{
    struct err e = { 0 };
    struct json_scan j;
    char *file;
    size_t n;

    (void)state;
    line = mem_alloc(STRING_MAX + 1);
    read_file(VECTORS "/texts.json", &file, &n);
    json_scan_init(&j, file, n, &e);
    json_scan_array(&j);
    while (json_scan_item(&j) && json_scan_string(&j, line, STRING_MAX, &n)) {
        assert_true(n_texts < TEXTS_MAX);
        texts[n_texts++] = (struct string){ mem_strndup(line, n), n };
    }
    assert_true(json_scan_end(&j));
    assert_true(n_texts > 1000);
    free(file);
    return 0;
}

static int free_texts(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_texts; i++)
        free(texts[i].s);
    free(line);
    return 0;
}

static void open_fixture(struct fixture *f, const char *name)
{
    struct err e = { 0 };
    char path[512], *bytes;
    size_t n;

    f->name = name;
    f->sentencepiece = strncmp(name, "sp_", 3) == 0;
    snprintf(path, sizeof path, VECTORS "/%s/%s", name,
             f->sentencepiece ? "tokenizer.model" : "tokenizer.json");
    read_file(path, &bytes, &n);
    f->t = f->sentencepiece ? tokenizer_open_sentencepiece(bytes, n, NULL, 0, &e)
                            : tokenizer_open_json(bytes, n, NULL, 0, &e);
    free(bytes);
    if (!f->t)
        fail_msg("%s: %s", name, e.msg);
    snprintf(path, sizeof path, VECTORS "/%s/expected.json", name);
    read_file(path, &f->expected, &f->expected_n);
}

/* The same tokenizer by way of a GGUF file.  A begin-of-text token that its template puts before each text is known
 * to GGUF by its id. */
static void through_gguf(struct fixture *f, const char *pre, int32_t bos_id)
{
    struct gguf_writer w = { 0 };
    struct err e = { 0 };
    char path[512], *json = NULL;
    struct gguf *g;
    struct buf file;
    size_t n;

    f->t->bos_id = bos_id >= 0 ? bos_id : f->t->bos_id;
    if (pre) {
        snprintf(path, sizeof path, VECTORS "/%s/tokenizer.json", f->name);
        read_file(path, &json, &n);
        gguf_put_byte_level(&w, f->t, json, n, pre);
        gguf_put_bool(&w, "tokenizer.ggml.add_bos_token", bos_id >= 0);
    } else {
        gguf_put_sentencepiece(&w, f->t, strcmp(f->name, "sp_gemma") != 0);
    }
    file = gguf_finish(&w);
    g = gguf_parse(f->name, file.data, file.n, &e);
    tokenizer_close(f->t);
    f->t = g ? tokenizer_open_gguf(g, &e) : NULL;
    if (!f->t)
        fail_msg("%s as GGUF: %s", f->name, e.msg);
    gguf_close(g);
    buf_fini(&file);
    free(json);
}

static void close_fixture(struct fixture *f)
{
    tokenizer_close(f->t);
    free(f->expected);
}

static int digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    return (int)(strchr(digits, c) - digits);
}

static void unpack(const char *s, size_t n, struct token_list *ids)
{
    token_list_clear(ids);
    for (size_t i = 0; i + 1 < n; i += 2)
        token_list_add(ids, digit(s[i]) * 64 + digit(s[i + 1]));
}

static void print_ids(const char *what, const struct tokenizer *t, const struct token_list *ids)
{
    fprintf(stderr, "  %s", what);
    for (size_t i = 0; i < ids->n && i < 80; i++)
        fprintf(stderr, " %d(%s)", ids->ids[i], tokenizer_token_str(t, ids->ids[i], NULL));
    fprintf(stderr, "\n");
}

static bool same_ids(const struct token_list *a, const struct token_list *b)
{
    return a->n == b->n && (a->n == 0 || memcmp(a->ids, b->ids, a->n * sizeof *a->ids) == 0);
}

/* Each span is a run of whole characters, they come in order and none goes back behind another's start. */
static void check_spans(const struct string *text, const struct token_list *ids)
{
    uint32_t last = 0;

    for (size_t i = 0; i < ids->n; i++) {
        struct token_span s = ids->spans[i];

        if (s.start == 0 && s.end == 0)
            continue; /* put there by the template */
        assert_true(s.start <= s.end && s.end <= text->n && s.start >= last);
        assert_false(s.start < text->n && utf8_is_continuation(text->s[s.start]));
        assert_false(s.end < text->n && utf8_is_continuation(text->s[s.end]));
        last = s.start;
    }
}

static void check_text(const struct fixture *f, size_t i, const struct token_list *want)
{
    unsigned flags = f->sentencepiece ? 0 : TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL;
    struct token_list got = { 0 }, spanned = { 0 };
    struct err e = { 0 };

    if (!tokenizer_encode(f->t, texts[i].s, texts[i].n, flags, &got, &e))
        fail_msg("%s, text %zu: %s", f->name, i, e.msg);
    if (!same_ids(&got, want)) {
        fprintf(stderr, "%s, text %zu '%s'\n", f->name, i, texts[i].s);
        print_ids("want", f->t, want);
        print_ids("got ", f->t, &got);
        fail();
    }
    assert_true(
        tokenizer_encode(f->t, texts[i].s, texts[i].n, flags | TOKENIZER_SPANS, &spanned, &e));
    assert_true(same_ids(&got, &spanned));
    check_spans(&texts[i], &spanned);
    token_list_fini(&got);
    token_list_fini(&spanned);
}

/* The text of ids, whole; and the same text in increments, each of them valid. */
static void check_decoded(const struct fixture *f, const struct token_list *ids, unsigned flags,
                          const char *want, size_t n)
{
    struct buf whole = { 0 }, parts = { 0 };
    struct detokenizer d;
    size_t bad_at;

    detokenize(f->t, ids->ids, ids->n, flags, &whole);
    if (whole.n != n || (n > 0 && memcmp(whole.data, want, n) != 0)) {
        fprintf(stderr, "%s\n  want '%s'\n  got  '%s'\n", f->name, want, whole.data);
        print_ids("ids ", f->t, ids);
        fail();
    }
    detokenizer_init(&d, f->t, flags);
    for (size_t i = 0; i < ids->n; i++) {
        size_t before = parts.n;
        detokenizer_push(&d, ids->ids[i], &parts);
        assert_true(parts.n == before ||
                    utf8_is_valid(parts.data + before, parts.n - before, &bad_at));
    }
    detokenizer_flush(&d, &parts);
    assert_int_equal(parts.n, whole.n);
    assert_true(whole.n == 0 || memcmp(parts.data, whole.data, whole.n) == 0);
    buf_fini(&whole);
    buf_fini(&parts);
}

/* "ids": [packed or null, ...] */
static void check_all_ids(const struct fixture *f, struct json_scan *j)
{
    struct token_list want = { 0 };
    size_t i = 0, n;

    json_scan_array(j);
    for (; json_scan_item(j); i++) {
        struct json_slice none;

        assert_true(i < n_texts);
        if (json_scan_peek(j) == 'n') {
            json_scan_skip(j, &none);
            continue;
        }
        assert_true(json_scan_string(j, line, STRING_MAX, &n));
        unpack(line, n, &want);
        check_text(f, i, &want);
    }
    assert_int_equal(i, n_texts);
    token_list_fini(&want);
}

/* "decode": [[packed, text with special tokens (not for SentencePiece), text without], ...] */
static void check_all_decoded(const struct fixture *f, struct json_scan *j)
{
    struct token_list ids = { 0 };
    size_t n, cases = 0;

    json_scan_array(j);
    for (; json_scan_item(j); cases++) {
        json_scan_array(j);
        assert_true(json_scan_item(j) && json_scan_string(j, line, STRING_MAX, &n));
        unpack(line, n, &ids);
        for (unsigned skip = f->sentencepiece ? 1 : 0; skip < 2; skip++) {
            assert_true(json_scan_item(j) && json_scan_string(j, line, STRING_MAX, &n));
            check_decoded(f, &ids, skip ? DETOKENIZER_SKIP_SPECIAL : 0, line, n);
        }
        assert_false(json_scan_item(j));
    }
    assert_true(cases > 100);
    token_list_fini(&ids);
}

static void check_whole(const struct fixture *f)
{
    struct err e = { 0 };
    struct json_scan j;
    char key[16];
    size_t n;

    json_scan_init(&j, f->expected, f->expected_n, &e);
    json_scan_object(&j);
    assert_true(json_scan_key(&j, key, sizeof key, &n));
    check_all_ids(f, &j);
    assert_true(json_scan_key(&j, key, sizeof key, &n));
    check_all_decoded(f, &j);
    assert_false(json_scan_key(&j, key, sizeof key, &n));
    assert_true(json_scan_end(&j));
}

static void kind_agrees(void **state)
{
    struct fixture f = { 0 };

    open_fixture(&f, *state);
    check_whole(&f);
    close_fixture(&f);
}

struct gguf_kind {
    const char *name, *pre; /* pre NULL: SentencePiece */
    int32_t bos_id;
};

static void gguf_agrees(void **state)
{
    const struct gguf_kind *kind = *state;
    struct fixture f = { 0 };

    open_fixture(&f, kind->name);
    through_gguf(&f, kind->pre, kind->bos_id);
    check_whole(&f);
    close_fixture(&f);
}

static void demo_agrees_through_gguf(void **state)
{
    struct fixture f = { .name = "demo, GGUF", .sentencepiece = true };
    struct err e = { 0 };
    char *bytes;
    size_t n;

    (void)state;
    read_file(DEMO "/tokenizer.model", &bytes, &n);
    f.t = tokenizer_open_sentencepiece(bytes, n, NULL, 0, &e);
    assert_non_null(f.t);
    free(bytes);
    through_gguf(&f, NULL, -1);
    assert_true(tokenizer_adds_bos(f.t));
    read_file(VECTORS "/demo/expected.json", &f.expected, &f.expected_n);
    check_whole(&f);
    close_fixture(&f);
}

static void demo_agrees_through_tokenizer_json(void **state)
{
    struct fixture f = { .name = "demo, tokenizer.json", .sentencepiece = true };
    struct err e = { 0 };

    (void)state;
    f.t = tokenizer_open(DEMO, &e);
    if (!f.t)
        fail_msg("%s", e.msg);
    read_file(VECTORS "/demo/expected.json", &f.expected, &f.expected_n);
    check_whole(&f);
    close_fixture(&f);
}

static void demo_agrees_through_tokenizer_model(void **state)
{
    struct fixture f = { .name = "demo, tokenizer.model", .sentencepiece = true };
    struct err e = { 0 };
    char *bytes;
    size_t n;

    (void)state;
    read_file(DEMO "/tokenizer.model", &bytes, &n);
    f.t = tokenizer_open_sentencepiece(bytes, n, NULL, 0, &e);
    if (!f.t)
        fail_msg("%s", e.msg);
    free(bytes);
    read_file(VECTORS "/demo/expected.json", &f.expected, &f.expected_n);
    check_whole(&f);
    close_fixture(&f);
}

#define KIND(kind)                                                                                 \
    {                                                                                              \
#kind "_agrees", kind_agrees, NULL, NULL, #kind                                            \
    }

#define GGUF(kind, pre, bos_id)                                                                    \
    {                                                                                              \
#kind "_agrees_as_gguf", gguf_agrees, NULL, NULL, &(struct gguf_kind)                      \
        {                                                                                          \
#kind, pre, bos_id                                                                     \
        }                                                                                          \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        KIND(gpt2),
        KIND(gpt2_prefix),
        KIND(llama3),
        KIND(qwen2),
        KIND(tekken),
        KIND(phi4_mini),
        KIND(deepseek),
        KIND(command_r),
        KIND(nfkc),
        KIND(nfd),
        KIND(llama2),
        KIND(phi3),
        KIND(llama_metaspace),
        KIND(gemma),
        KIND(sp_llama),
        KIND(sp_gemma),
        KIND(sp_rules),
        KIND(sp_unigram),
        KIND(sp_unigram_bytes),
        GGUF(gpt2, "gpt-2", -1),
        GGUF(llama3, "llama-bpe", 676),
        GGUF(qwen2, "qwen2", -1),
        GGUF(tekken, "tekken", 1),
        GGUF(deepseek, "deepseek-v3", -1),
        GGUF(command_r, "command-r", 2),
        GGUF(sp_llama, NULL, -1),
        GGUF(sp_gemma, NULL, -1),
        cmocka_unit_test(demo_agrees_through_gguf),
        cmocka_unit_test(demo_agrees_through_tokenizer_json),
        cmocka_unit_test(demo_agrees_through_tokenizer_model),
    };

    return cmocka_run_group_tests(tests, load_texts, free_texts);
}
