/* test_bpe.c - the merge loop against the textbook.
 *
 * What would break in production: words of one length range cut otherwise than the rest, or a
 * client's single endless word that stops an event loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "text/tokenizer/bpe.h"

enum { MERGES = 60, WORD_MAX = 300, WORDS = 400, SEED = 20240612 };

/* A vocabulary of the letters a-d and of random merges, as bytes and by score. */
struct fixture {
    struct vocab vocab;
    struct bpe bpe;
    struct bpe_merge merges[MERGES];
    size_t n_merges;
};

static void put_piece(struct vocab *v, const char *s, size_t n)
{
    struct err e = { 0 };

    if (vocab_find(v, s, n) < 0 &&
        !vocab_put(v, (int64_t)v->n, arena_strndup(&v->strings, s, n), n, &e))
        fail_msg("%s", e.msg);
}

static int make_fixture(void **state)
{
    struct fixture *f = mem_zalloc(1, sizeof *f);

    printf("seed %d\n", SEED);
    srand(SEED);
    vocab_init(&f->vocab, MERGES);
    put_piece(&f->vocab, "a", 1);
    put_piece(&f->vocab, "b", 1);
    put_piece(&f->vocab, "c", 1);
    put_piece(&f->vocab, "d", 1);
    f->bpe = (struct bpe){ .vocab = &f->vocab, .byte_level = true, .unknown.unk_id = -1 };
    for (unsigned c = 0; c < 256; c++)
        f->bpe.symbols[c] = c >= 'a' && c <= 'd' ? (int32_t)(c - 'a') : -1;
    bpe_merges_init(&f->bpe, MERGES);
    while (f->n_merges < MERGES) {
        struct bpe_merge m = { .left = rand() % (int)f->vocab.n,
                               .right = rand() % (int)f->vocab.n,
                               .rank = (uint32_t)f->n_merges };
        char both[128];
        int n = snprintf(both, sizeof both, "%s%s", f->vocab.tokens[m.left].piece,
                         f->vocab.tokens[m.right].piece);

        if (n > 16)
            continue;
        for (size_t i = 0; i < f->n_merges; i++)
            if (f->merges[i].left == m.left && f->merges[i].right == m.right)
                n = 0;
        if (n == 0)
            continue;
        put_piece(&f->vocab, both, (size_t)n);
        m.id = vocab_find(&f->vocab, both, (size_t)n);
        bpe_merges_add(&f->bpe, m);
        f->merges[f->n_merges++] = m;
    }
    *state = f;
    return 0;
}

static int free_fixture(void **state)
{
    struct fixture *f = *state;

    bpe_fini(&f->bpe);
    vocab_fini(&f->vocab);
    free(f);
    return 0;
}

/* The definition: of all adjacent pairs that merge, the best rank, leftmost first; until none does. */
static size_t textbook(const struct fixture *f, const char *word, size_t n, int32_t *ids)
{
    for (size_t i = 0; i < n; i++)
        ids[i] = word[i] - 'a';
    for (;;) {
        const struct bpe_merge *best = NULL;
        size_t at = 0;

        for (size_t i = 0; i + 1 < n; i++)
            for (size_t k = 0; k < f->n_merges && (!best || k < best->rank); k++)
                if (f->merges[k].left == ids[i] && f->merges[k].right == ids[i + 1]) {
                    best = &f->merges[k];
                    at = i;
                }
        if (!best)
            return n;
        ids[at] = best->id;
        memmove(ids + at + 1, ids + at + 2, (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void random_word(char *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        word[i] = (char)('a' + rand() % 4);
}

static void short_and_long_words_follow_the_textbook(void **state)
{
    const struct fixture *f = *state;
    struct bpe_scratch scratch = { 0 };
    struct token_list got = { 0 };
    int32_t want[WORD_MAX];
    char word[WORD_MAX];

    for (size_t i = 0; i < WORDS; i++) {
        size_t n = 1 + (size_t)rand() % WORD_MAX, n_want;
        struct text_view v = { .s = word, .n = n };

        if (i % 2)
            n = v.n = 1 + n % 50; /* around the length where the heap takes over */
        random_word(word, n);
        n_want = textbook(f, word, n, want);
        token_list_clear(&got);
        bpe_encode(&f->bpe, &scratch, &v, &got, false);
        assert_int_equal(got.n, n_want);
        assert_memory_equal(got.ids, want, n_want * sizeof *want);
    }
    token_list_fini(&got);
    bpe_scratch_fini(&scratch);
}

/* By score a piece may be reached by any split; ours must be the best score first, leftmost first. */
static void by_score_follows_the_textbook(void **state)
{
    struct fixture *f = *state;
    struct bpe b = { .vocab = &f->vocab, .unknown.unk_id = -1 };
    struct trie no_frozen = { 0 };
    struct bpe_scratch scratch = { 0 };
    struct token_list got = { 0 };
    char word[WORD_MAX];

    b.frozen = &no_frozen;
    memcpy(b.symbols, f->bpe.symbols, sizeof b.symbols);
    for (size_t id = 0; id < f->vocab.n; id++)
        f->vocab.tokens[id].score = (float)(rand() % 20); /* many ties */
    bpe_rank_by_score(&b);
    for (size_t i = 0; i < WORDS; i++) {
        size_t n = 1 + (size_t)rand() % 120, n_parts = n, ends[WORD_MAX];
        struct text_view v = { .s = word, .n = n };

        random_word(word, n);
        for (size_t k = 0; k < n; k++)
            ends[k] = k + 1;
        for (;;) { /* parts are [ends[k-1], ends[k]) */
            float best = -1;
            size_t at = 0;

            for (size_t k = 0; k + 1 < n_parts; k++) {
                size_t from = k ? ends[k - 1] : 0;
                int32_t id = vocab_find(&f->vocab, word + from, ends[k + 1] - from);
                if (id >= 0 && f->vocab.tokens[id].score > best) {
                    best = f->vocab.tokens[id].score;
                    at = k;
                }
            }
            if (best < 0)
                break;
            memmove(ends + at, ends + at + 1, (n_parts - at - 1) * sizeof *ends);
            n_parts--;
        }
        token_list_clear(&got);
        bpe_encode(&b, &scratch, &v, &got, true);
        assert_int_equal(got.n, n_parts);
        for (size_t k = 0; k < n_parts; k++)
            assert_int_equal(got.spans[k].end, ends[k]);
    }
    token_list_fini(&got);
    bpe_scratch_fini(&scratch);
    bpe_fini(&b);
}

/* Quadratic, this takes hours, and the test its timeout. */
static void a_word_of_two_million_letters_is_not_quadratic(void **state)
{
    enum { N = 2000000 };
    const struct fixture *f = *state;
    struct bpe_scratch scratch = { 0 };
    struct token_list got = { 0 };
    char *word = mem_alloc(N);
    struct text_view v = { .s = word, .n = N };
    size_t bytes = 0;

    random_word(word, N);
    bpe_encode(&f->bpe, &scratch, &v, &got, false);
    for (size_t i = 0; i < got.n; i++) {
        const struct vocab_token *token = &f->vocab.tokens[got.ids[i]];
        assert_memory_equal(word + bytes, token->piece, token->n_piece);
        bytes += token->n_piece;
    }
    assert_int_equal(bytes, N);
    free(word);
    token_list_fini(&got);
    bpe_scratch_fini(&scratch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_and_long_words_follow_the_textbook),
        cmocka_unit_test(by_score_follows_the_textbook),
        cmocka_unit_test(a_word_of_two_million_letters_is_not_quadratic),
    };

    return cmocka_run_group_tests(tests, make_fixture, free_fixture);
}
