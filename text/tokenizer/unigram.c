/* unigram.c - Viterbi, with the arithmetic of the SentencePiece library.
 *
 * Its sums are floats and ties go to the path found first, so two paths of nearly the same score
 * would come out the other way if we summed in double or in another order. */
#include "text/tokenizer/unigram.h"

#include <float.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/utf8.h"

static const float UNKNOWN_PENALTY = 10.0F; /* below the worst piece */

/* The best path up to a byte of the text. */
struct unigram_step {
    float score;
    int32_t id;    /* of the last piece, -1: an unknown character */
    uint32_t from; /* where that piece begins; UINT32_MAX: no path ends here */
};

void unigram_init(struct unigram *u, const struct vocab *vocab)
{
    struct trie_key *keys = mem_alloc(vocab->n * sizeof *keys);
    size_t n = 0;

    u->vocab = vocab;
    u->min_score = FLT_MAX;
    u->max_score = FLT_MIN;
    for (size_t id = 0; id < vocab->n; id++) {
        const struct vocab_token *token = &vocab->tokens[id];

        if (!token->piece || token->n_piece == 0 || (int32_t)id == u->unknown.unk_id ||
            token->flags & (VOCAB_SPECIAL | VOCAB_BYTE | VOCAB_UNUSED | VOCAB_ADDED))
            continue;
        keys[n++] = (struct trie_key){ token->piece, token->n_piece, (int32_t)id };
        if (token->flags & VOCAB_USER_DEFINED)
            continue;
        u->min_score = token->score < u->min_score ? token->score : u->min_score;
        u->max_score = token->score > u->max_score ? token->score : u->max_score;
    }
    trie_init(&u->pieces, keys, n);
    free(keys);
}

void unigram_fini(struct unigram *u)
{
    trie_fini(&u->pieces);
    *u = (struct unigram){ 0 };
}

void unigram_scratch_fini(struct unigram_scratch *s)
{
    free(s->steps);
    *s = (struct unigram_scratch){ 0 };
}

static void offer(struct unigram_step *step, double score, int32_t id, size_t from)
{
    if (step->from == UINT32_MAX || score > step->score)
        *step = (struct unigram_step){ .score = (float)score, .id = id, .from = (uint32_t)from };
}

/* A user-defined symbol beats whatever else its bytes could be. */
static double score_of(const struct unigram *u, int32_t id, size_t n)
{
    const struct vocab_token *token = &u->vocab->tokens[id];

    if (token->flags & VOCAB_USER_DEFINED)
        return (double)((float)n * u->max_score) - 0.1;
    return token->score;
}

/* Extend the best path that ends at `from` by every piece that begins there. */
static void extend(const struct unigram *u, const struct text_view *word, size_t from,
                   struct unigram_step *steps)
{
    size_t char_bytes = utf8_length(word->s[from]);
    float so_far = steps[from].score;
    bool has_single = false;
    uint32_t node = TRIE_ROOT;

    for (size_t i = from; i < word->n; i++) {
        int32_t id;

        node = trie_step(&u->pieces, node, word->s[i]);
        if (node == TRIE_NONE)
            break;
        id = u->pieces.nodes[node].value;
        if (id < 0)
            continue;
        offer(&steps[i + 1], score_of(u, id, i + 1 - from) + so_far, id, from);
        has_single |= i + 1 - from == char_bytes;
    }
    if (!has_single)
        offer(&steps[from + char_bytes], u->min_score - UNKNOWN_PENALTY + so_far, -1, from);
}

/* Turn the path around: afterwards .from of a step is where the next piece ends. */
static void turn_path(struct unigram_step *steps, size_t n)
{
    uint32_t end = (uint32_t)n, next_end = UINT32_MAX;
    int32_t next_id = -1;

    for (;;) {
        uint32_t from = steps[end].from;
        int32_t id = steps[end].id;

        steps[end].from = next_end;
        steps[end].id = next_id;
        if (end == 0)
            return;
        next_end = end;
        next_id = id;
        end = from;
    }
}

void unigram_encode(const struct unigram *u, struct unigram_scratch *scratch,
                    const struct text_view *word, struct token_list *out, bool with_spans)
{
    struct unigram_step *steps;

    if (word->n == 0)
        return;
    if (scratch->steps_cap < word->n + 1) {
        free(scratch->steps);
        scratch->steps_cap = word->n + word->n / 2 + 64;
        scratch->steps = mem_alloc(scratch->steps_cap * sizeof *scratch->steps);
    }
    steps = scratch->steps;
    for (size_t i = 0; i <= word->n; i++)
        steps[i] = (struct unigram_step){ .from = UINT32_MAX };
    steps[0].from = 0;
    for (size_t i = 0; i < word->n; i += utf8_length(word->s[i]))
        if (steps[i].from != UINT32_MAX)
            extend(u, word, i, steps);
    turn_path(steps, word->n);
    for (size_t from = 0; from < word->n;) {
        int32_t id = steps[from].id;
        size_t to = steps[from].from;

        while (id < 0 && u->unknown.fuse && to < word->n && steps[to].id < 0)
            to = steps[to].from;
        if (id >= 0)
            text_view_add_token(word, from, to, id, out, with_spans);
        else
            unknown_add(&u->unknown, word, from, to, out, with_spans);
        from = to;
    }
}
