/* test_sentencepiece.c - reading tokenizer.model from the wire.
 *
 * What would break in production: a cut or foreign file that opens as something else, or takes the
 * process with it.  That good files give the right ids is for test_tokenizer_vectors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "common/file.h"
#include "common/mem.h"
#include "text/tokenizer.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

/* -- writing protobuf, only as far as the tests need it -- */

static void put_varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_add_char(b, (char)(v | 0x80));
    buf_add_char(b, (char)v);
}

static void put_bytes(struct buf *b, unsigned field, const void *s, size_t n)
{
    put_varint(b, field << 3 | 2);
    put_varint(b, n);
    buf_add(b, s, n);
}

static void put_number(struct buf *b, unsigned field, uint64_t v)
{
    put_varint(b, field << 3);
    put_varint(b, v);
}

static void put_piece(struct buf *model, const char *piece, float score, unsigned type)
{
    struct buf b = { 0 };

    put_bytes(&b, 1, piece, strlen(piece));
    put_varint(&b, 2 << 3 | 5);
    buf_add(&b, &score, sizeof score);
    put_number(&b, 3, type);
    put_bytes(model, 1, b.data, b.n);
    buf_fini(&b);
}

/* 0 <unk>, 1 <s>, 2 the mark, 3 a, 4 b, 5 ab; then one more spec message. */
static void put_model(struct buf *model, uint64_t model_type, unsigned spec, const struct buf *more)
{
    struct buf trainer = { 0 };

    buf_clear(model);
    put_piece(model, "<unk>", 0, 2);
    put_piece(model, "<s>", 0, 3);
    put_piece(model, "\xe2\x96\x81", -1, 1);
    put_piece(model, "a", -2, 1);
    put_piece(model, "b", -3, 1);
    put_piece(model, "ab", -4, 1);
    put_number(&trainer, 3, model_type);
    put_bytes(model, 2, trainer.data, trainer.n);
    if (more)
        put_bytes(model, spec, more->data, more->n);
    buf_fini(&trainer);
}

static struct tokenizer *open_model(const struct buf *model, struct err *e)
{
    return tokenizer_open_sentencepiece(model->data, model->n, NULL, 0, e);
}

static void check(const struct buf *model, const char *text, const int32_t *want, size_t n)
{
    struct token_list ids = { 0 };
    struct err e = { 0 };
    struct tokenizer *t = open_model(model, &e);

    if (!t || !tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, &ids, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(ids.n, n);
    assert_memory_equal(ids.ids, want, n * sizeof *want);
    token_list_fini(&ids);
    tokenizer_close(t);
}

static void refuse(const struct buf *model, const char *named)
{
    struct err e = { 0 };

    assert_null(open_model(model, &e));
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, named))
        fail_msg("'%s' does not name %s", e.msg, named);
}

static void hand_made_models_encode(void **state)
{
    struct buf model = { 0 }, spec = { 0 };

    (void)state;
    put_model(&model, 2, 0, NULL);
    check(&model, "  ab  b ", (int32_t[]){ 1, 2, 5, 2, 4 }, 5); /* bos, squeezed, unknown-free */
    check(&model, "axyb", (int32_t[]){ 1, 2, 3, 0, 4 }, 5);     /* two unknown, one token */
    put_model(&model, 1, 0, NULL);                              /* Unigram: -4 beats -2 + -3 */
    check(&model, "ab", (int32_t[]){ 1, 2, 5 }, 3);
    put_number(&spec, 3, 0); /* add_dummy_prefix */
    put_number(&spec, 4, 0); /* remove_extra_whitespaces */
    put_model(&model, 2, 3, &spec);
    check(&model, "a  b", (int32_t[]){ 1, 3, 2, 2, 4 }, 5);
    buf_fini(&spec);
    buf_fini(&model);
}

static void what_is_not_supported_is_named(void **state)
{
    struct buf model = { 0 }, spec = { 0 };

    (void)state;
    put_model(&model, 3, 0, NULL);
    refuse(&model, "model_type 3");
    put_number(&spec, 24, 1);
    put_model(&model, 2, 2, &spec);
    refuse(&model, "treat_whitespace_as_suffix");
    buf_clear(&spec);
    put_number(&spec, 35, 1);
    put_model(&model, 2, 2, &spec);
    refuse(&model, "byte_fallback");
    buf_clear(&spec);
    put_bytes(&spec, 2, "xyz", 3);
    put_model(&model, 2, 5, &spec);
    refuse(&model, "denormalizer");
    put_model(&model, 2, 3, &spec);
    refuse(&model, "precompiled_charsmap");
    put_model(&model, 2, 0, NULL);
    put_piece(&model, "x", 0, 5);
    refuse(&model, "unused");
    put_model(&model, 2, 0, NULL);
    put_piece(&model, "x", 0, 9);
    refuse(&model, "type 9");
    put_model(&model, 2, 0, NULL);
    put_piece(&model, "a", 0, 1);
    refuse(&model, "'a'");
    put_model(&model, 2, 0, NULL);
    put_piece(&model, "\xff", 0, 1);
    refuse(&model, "not UTF-8");
    put_model(&model, 2, 0, NULL);
    put_piece(&model, "<0x4>", 0, 6);
    refuse(&model, "is a byte");
    buf_clear(&model);
    put_piece(&model, "a", 0, 1);
    refuse(&model, "unknown one");
    buf_clear(&model);
    refuse(&model, "no pieces");
    buf_fini(&spec);
    buf_fini(&model);
}

/* A charsmap whose trie points outside of itself and of its strings. */
static void a_charsmap_cannot_lead_outside(void **state)
{
    struct buf model = { 0 }, spec = { 0 }, map = { 0 };
    uint32_t units[] = { 4 * 256 /* bytes */ };

    (void)state;
    srand(20240614);
    for (int round = 0; round < 200; round++) {
        buf_clear(&map);
        buf_clear(&spec);
        buf_add(&map, units, sizeof units);
        for (int i = 0; i < 256; i++) {
            uint32_t unit = (uint32_t)rand() << 8 ^ (uint32_t)rand();
            /* labels that match now and then */
            unit = (unit & ~0x800000ffu) | (uint32_t)(rand() % 2 ? i : "ab x"[rand() % 4]);
            buf_add(&map, &unit, sizeof unit);
        }
        buf_add(&map, "q", 2);
        put_bytes(&spec, 2, map.data, map.n);
        put_model(&model, 2, 3, &spec);
        {
            struct token_list ids = { 0 };
            struct err e = { 0 };
            struct tokenizer *t = open_model(&model, &e);

            assert_non_null(t);
            assert_true(tokenizer_encode(t, "ab x \xc3\xa9 ba", 10, 0, &ids, &e));
            token_list_fini(&ids);
            tokenizer_close(t);
        }
    }
    buf_fini(&map);
    buf_fini(&spec);
    buf_fini(&model);
}

/* Cut anywhere, the file is refused, or is a smaller vocabulary with its last piece whole. */
static void a_cut_file_never_harms(void **state)
{
    struct err e = { 0 };
    char *bytes;
    size_t n, refused = 0;

    (void)state;
    assert_true(file_read(DEMO "/tokenizer.model", 1 << 20, &bytes, &n, &e));
    for (size_t cut = 0; cut < n; cut += cut < 400 ? 1 : 61) {
        char *exact = mem_alloc(cut); /* so that a sanitizer sees a read past the end */
        struct tokenizer *t;

        memcpy(exact, bytes, cut);
        t = tokenizer_open_sentencepiece(exact, cut, NULL, 0, &e);
        refused += t == NULL;
        if (!t)
            assert_int_equal(e.code, ERR_MODEL);
        tokenizer_close(t);
        free(exact);
    }
    assert_true(refused > 300);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hand_made_models_encode),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(a_charsmap_cannot_lead_outside),
        cmocka_unit_test(a_cut_file_never_harms),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
