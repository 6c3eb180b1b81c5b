/* bpe.c - the merge loop.
 *
 * A word is a linked list of symbols in an array.  Most words have a dozen bytes: there the best merge is
 * found by walking the list, which beats any clever structure.  Long ones (a URL, a page of Chinese, a
 * whole text for vocabularies that do not split at spaces) use a heap of candidate merges.  A
 * candidate is not removed when one of its symbols is merged elsewhere; it is recognised as stale
 * when it comes up, because its two symbols no longer have the length they had together. */
#include "text/tokenizer/bpe.h"

#include <assert.h>
#include <stdlib.h>

#include "common/mem.h"
#include "common/utf8.h"

enum { WALK_SYMBOLS_MAX = 40 /* longer words use the heap; measured, flat between 24 and 64 */ };

struct bpe_symbol {
    int32_t id;     /* -1: not in the vocabulary */
    uint32_t at, n; /* its bytes in the word; n = 0: merged away */
    uint32_t rank;  /* of merging it with the next, or BPE_NO_MERGE */
    int32_t merged; /* the id that gives */
    int32_t prev, next;
    bool frozen;
};

struct bpe_candidate {
    uint64_t order; /* rank, then position: the smallest goes first */
    uint32_t n;     /* bytes of the two together */
    int32_t left;
};

/* -- the table of merges ------------------------------------------------------------------- */

static size_t merge_slot(int32_t left, int32_t right, size_t mask)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;

    return (size_t)(h >> 32 ^ h >> 12) & mask;
}

void bpe_merges_init(struct bpe *b, size_t n_merges)
{
    size_t n_slots = 16;

    while (n_slots < n_merges * 2)
        n_slots *= 2;
    b->merges = mem_alloc(n_slots * sizeof *b->merges);
    b->merges_mask = n_slots - 1;
    for (size_t i = 0; i < n_slots; i++)
        b->merges[i].left = -1;
}

void bpe_merges_add(struct bpe *b, struct bpe_merge merge)
{
    size_t i = merge_slot(merge.left, merge.right, b->merges_mask);

    while (b->merges[i].left >= 0 &&
           (b->merges[i].left != merge.left || b->merges[i].right != merge.right))
        i = (i + 1) & b->merges_mask;
    b->merges[i] = merge;
}

static const struct bpe_merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
    size_t i = merge_slot(left, right, b->merges_mask);

    for (; b->merges[i].left >= 0; i = (i + 1) & b->merges_mask)
        if (b->merges[i].left == left && b->merges[i].right == right)
            return &b->merges[i];
    return NULL;
}

/* -- ranks from scores --------------------------------------------------------------------- */

struct scored {
    float score;
    int32_t id;
};

static int best_score_first(const void *a, const void *b)
{
    const struct scored *x = a, *y = b;

    return x->score > y->score ? -1 : x->score < y->score;
}

void bpe_rank_by_score(struct bpe *b)
{
    const struct vocab *v = b->vocab;
    struct scored *sorted = mem_alloc(v->n * sizeof *sorted);
    size_t n = 0;

    b->n_ranks = v->n;
    b->ranks = mem_alloc(v->n * sizeof *b->ranks);
    for (size_t id = 0; id < v->n; id++) {
        const struct vocab_token *token = &v->tokens[id];

        b->ranks[id] = BPE_NO_MERGE;
        if (!token->piece || token->flags & (VOCAB_SPECIAL | VOCAB_BYTE | VOCAB_UNUSED) ||
            (int32_t)id == b->unknown.unk_id)
            continue;
        sorted[n++] = (struct scored){ .score = token->score, .id = (int32_t)id };
        if (token->n_piece > b->piece_bytes_max)
            b->piece_bytes_max = token->n_piece;
    }
    qsort(sorted, n, sizeof *sorted, best_score_first);
    for (size_t i = 0, rank = 0; i < n; i++) {
        if (i > 0 && sorted[i].score != sorted[i - 1].score)
            rank = i;
        b->ranks[sorted[i].id] = (uint32_t)rank;
    }
    free(sorted);
}

/* -- boundaries ---------------------------------------------------------------------------- */

static const char MARK[] = "\xe2\x96\x81"; /* U+2581 */
enum { MARK_BYTES = 3 };

static bool is_mark(const char *s, size_t n)
{
    return n >= MARK_BYTES && memcmp(s, MARK, MARK_BYTES) == 0;
}

/* The first place after s[from] where a mark stands behind something else; n when there is none. */
static size_t next_boundary(const char *s, size_t n, size_t from)
{
    size_t at = from;

    while (at < n) {
        const char *hit = memmem(s + at, n - at, MARK, MARK_BYTES);
        if (!hit)
            return n;
        at = (size_t)(hit - s);
        if (at > from && !(at >= from + MARK_BYTES && is_mark(hit - MARK_BYTES, MARK_BYTES)))
            return at;
        at += MARK_BYTES;
    }
    return n;
}

static bool joins_at_mark(const struct bpe *b, const struct bpe_merge *merge)
{
    const struct vocab_token *left = &b->vocab->tokens[merge->left];
    const struct vocab_token *right = &b->vocab->tokens[merge->right];

    return is_mark(right->piece, right->n_piece) &&
           !(left->n_piece >= MARK_BYTES &&
             is_mark(left->piece + left->n_piece - MARK_BYTES, MARK_BYTES));
}

void bpe_forget_specials(struct bpe *b)
{
    for (size_t i = 0; b->merges && i <= b->merges_mask; i++)
        if (b->merges[i].left >= 0 && b->vocab->tokens[b->merges[i].id].flags & VOCAB_SPECIAL)
            b->merges[i].rank = BPE_NO_MERGE;
    for (size_t id = 0; b->ranks && id < b->n_ranks; id++)
        if (b->vocab->tokens[id].flags & VOCAB_SPECIAL)
            b->ranks[id] = BPE_NO_MERGE;
}

void bpe_find_boundaries(struct bpe *b)
{
    b->splits_at_marks = false;
    if (b->byte_level || b->ignore_merges || vocab_find(b->vocab, MARK, MARK_BYTES) < 0)
        return;
    for (size_t i = 0; b->merges && i <= b->merges_mask; i++)
        if (b->merges[i].left >= 0 && joins_at_mark(b, &b->merges[i]))
            return;
    for (size_t id = 0; b->ranks && id < b->n_ranks; id++) {
        const struct vocab_token *token = &b->vocab->tokens[id];
        if (b->ranks[id] != BPE_NO_MERGE &&
            next_boundary(token->piece, token->n_piece, 0) < token->n_piece)
            return;
    }
    b->splits_at_marks = true;
}

void bpe_fini(struct bpe *b)
{
    if (b->words.slots)
        strmap_fini(&b->words);
    free(b->merges);
    free(b->ranks);
    *b = (struct bpe){ 0 };
}

void bpe_scratch_fini(struct bpe_scratch *s)
{
    free(s->symbols);
    free(s->heap);
    *s = (struct bpe_scratch){ 0 };
}

/* -- symbols ------------------------------------------------------------------------------- */

static struct bpe_symbol symbol_of(int32_t id, size_t at, size_t n)
{
    return (struct bpe_symbol){ .id = id, .at = (uint32_t)at, .n = (uint32_t)n };
}

static size_t split_bytes(const struct bpe *b, const struct text_view *word, struct bpe_symbol *out)
{
    for (size_t i = 0; i < word->n; i++)
        out[i] = symbol_of(b->symbols[(unsigned char)word->s[i]], i, 1);
    return word->n;
}

/* A character's own token; one that only a control token spells has none. */
static int32_t find_character(const struct bpe *b, const char *s, size_t n)
{
    int32_t id;

    if (n == 1)
        return b->symbols[(unsigned char)*s];
    id = vocab_find(b->vocab, s, n);
    return id >= 0 && b->vocab->tokens[id].flags & VOCAB_SPECIAL ? -1 : id;
}

/* Characters, for merges by list: what the vocabulary lacks is replaced before merging. */
static size_t split_characters(const struct bpe *b, const struct text_view *word,
                               struct bpe_symbol *out)
{
    const struct unknown *u = &b->unknown;
    bool last_unknown = false;
    size_t n = 0;

    for (size_t i = 0, len; i < word->n; i += len) {
        int32_t id;

        len = utf8_length(word->s[i]);
        id = find_character(b, word->s + i, len);
        if (id >= 0) {
            out[n++] = symbol_of(id, i, len);
            last_unknown = false;
        } else if (unknown_has_bytes(u, word->s + i, len)) {
            for (size_t k = i; k < i + len; k++)
                out[n++] = symbol_of(u->byte_ids[(unsigned char)word->s[k]], k, 1);
            last_unknown = false;
        } else if (last_unknown && u->fuse) {
            out[n - 1].n += (uint32_t)len;
        } else if (u->unk_id >= 0) {
            out[n++] = symbol_of(u->unk_id, i, len);
            last_unknown = true;
        }
    }
    return n;
}

/* Characters and frozen pieces, for merges by score: unknown ones may still be part of a piece. */
static size_t split_pieces(const struct bpe *b, const struct text_view *word,
                           struct bpe_symbol *out)
{
    size_t n = 0;

    for (size_t i = 0, len; i < word->n; i += len) {
        int32_t id = -1;

        len = trie_longest(b->frozen, word->s + i, word->n - i, &id);
        out[n] = symbol_of(id, i, len);
        out[n].frozen = len > 0;
        if (len == 0) {
            len = utf8_length(word->s[i]);
            out[n] = symbol_of(find_character(b, word->s + i, len), i, len);
        }
        n++;
    }
    return n;
}

/* -- merging ------------------------------------------------------------------------------- */

/* Fill in what merging symbol i with the next would give. */
static void look_at_pair(const struct bpe *b, const struct text_view *word, struct bpe_symbol *sym,
                         int32_t i)
{
    struct bpe_symbol *left = &sym[i];
    const struct bpe_symbol *right;

    left->rank = BPE_NO_MERGE;
    if (left->next < 0)
        return;
    right = &sym[left->next];
    if (b->merges) {
        const struct bpe_merge *merge = find_merge(b, left->id, right->id);
        if (merge) {
            left->rank = merge->rank;
            left->merged = merge->id;
        }
    } else if (!left->frozen && !right->frozen && left->n + right->n <= b->piece_bytes_max) {
        int32_t id = vocab_find(b->vocab, word->s + left->at, left->n + right->n);
        if (id >= 0 && (size_t)id < b->n_ranks) {
            left->rank = b->ranks[id];
            left->merged = id;
        }
    }
}

/* Merge symbol i with the next, and look again at the pairs it is now part of. */
static void merge_pair(const struct bpe *b, const struct text_view *word, struct bpe_symbol *sym,
                       int32_t i)
{
    struct bpe_symbol *left = &sym[i];
    struct bpe_symbol *right = &sym[left->next];

    left->id = left->merged;
    left->n += right->n;
    right->n = 0;
    left->next = right->next;
    if (left->next >= 0)
        sym[left->next].prev = i;
    look_at_pair(b, word, sym, i);
    if (left->prev >= 0)
        look_at_pair(b, word, sym, left->prev);
}

static void merge_walking(const struct bpe *b, const struct text_view *word, struct bpe_symbol *sym)
{
    for (;;) {
        uint32_t best_rank = BPE_NO_MERGE;
        int32_t best = -1;

        for (int32_t i = 0; i >= 0; i = sym[i].next)
            if (sym[i].rank < best_rank) {
                best_rank = sym[i].rank;
                best = i;
            }
        if (best < 0)
            return;
        merge_pair(b, word, sym, best);
    }
}

static void heap_push(struct bpe_scratch *s, const struct bpe_symbol *sym, int32_t left)
{
    struct bpe_candidate c;
    size_t at;

    if (sym[left].rank == BPE_NO_MERGE)
        return;
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 256;
        s->heap = mem_realloc(s->heap, s->heap_cap * sizeof *s->heap);
    }
    c = (struct bpe_candidate){ .order = (uint64_t)sym[left].rank << 32 | (uint32_t)left,
                                .n = sym[left].n + sym[sym[left].next].n,
                                .left = left };
    for (at = s->heap_n++; at > 0 && c.order < s->heap[(at - 1) / 2].order; at = (at - 1) / 2)
        s->heap[at] = s->heap[(at - 1) / 2];
    s->heap[at] = c;
}

static struct bpe_candidate heap_pop(struct bpe_scratch *s)
{
    struct bpe_candidate top = s->heap[0], last = s->heap[--s->heap_n];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < s->heap_n) {
        if (child + 1 < s->heap_n && s->heap[child + 1].order < s->heap[child].order)
            child++;
        if (last.order <= s->heap[child].order)
            break;
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = last;
    return top;
}

static bool is_stale(const struct bpe_symbol *sym, struct bpe_candidate c)
{
    const struct bpe_symbol *left = &sym[c.left];

    return left->n == 0 || left->next < 0 || left->n + sym[left->next].n != c.n;
}

static void merge_with_heap(const struct bpe *b, struct bpe_scratch *s,
                            const struct text_view *word, size_t n)
{
    struct bpe_symbol *sym = s->symbols;

    s->heap_n = 0;
    for (size_t i = 0; i < n; i++)
        heap_push(s, sym, (int32_t)i);
    while (s->heap_n > 0) {
        struct bpe_candidate c = heap_pop(s);
        if (is_stale(sym, c))
            continue;
        merge_pair(b, word, sym, c.left);
        heap_push(s, sym, c.left);
        if (sym[c.left].prev >= 0)
            heap_push(s, sym, sym[c.left].prev);
    }
}

/* -- a word -------------------------------------------------------------------------------- */

static size_t split(const struct bpe *b, struct bpe_scratch *s, const struct text_view *word)
{
    size_t n;

    if (s->symbols_cap < word->n) {
        s->symbols_cap = word->n < 64 ? 64 : word->n + word->n / 2;
        free(s->symbols);
        s->symbols = mem_alloc(s->symbols_cap * sizeof *s->symbols);
    }
    if (b->byte_level)
        n = split_bytes(b, word, s->symbols);
    else if (b->merges)
        n = split_characters(b, word, s->symbols);
    else
        n = split_pieces(b, word, s->symbols);
    for (size_t i = 0; i < n; i++) {
        s->symbols[i].prev = (int32_t)i - 1;
        s->symbols[i].next = i + 1 < n ? (int32_t)i + 1 : -1;
    }
    for (size_t i = 0; i < n; i++)
        look_at_pair(b, word, s->symbols, (int32_t)i);
    return n;
}

static void add_tokens(const struct bpe *b, const struct bpe_symbol *sym,
                       const struct text_view *word, struct token_list *out, bool with_spans)
{
    for (int32_t i = 0; i >= 0; i = sym[i].next) {
        size_t from = sym[i].at, to = from + sym[i].n;

        if (sym[i].id >= 0) {
            text_view_add_token(word, from, to, sym[i].id, out, with_spans);
            continue;
        }
        while (b->unknown.fuse && sym[i].next >= 0 && sym[sym[i].next].id < 0) {
            i = sym[i].next;
            to += sym[i].n;
        }
        unknown_add(&b->unknown, word, from, to, out, with_spans);
    }
}

/* The token that spells the whole word, or -1; special tokens are not spelled by words. */
static int32_t whole_word(const struct bpe *b, const struct text_view *word)
{
    int32_t id = b->byte_level ? strmap_find(&b->words, word->s, word->n)
                               : vocab_find(b->vocab, word->s, word->n);

    return id >= 0 && b->vocab->tokens[id].flags & VOCAB_SPECIAL ? -1 : id;
}

static void encode_word(const struct bpe *b, struct bpe_scratch *scratch,
                        const struct text_view *word, struct token_list *out, bool with_spans)
{
    size_t n = split(b, scratch, word);

    if (n == 0)
        return;
    if (n <= WALK_SYMBOLS_MAX)
        merge_walking(b, word, scratch->symbols);
    else
        merge_with_heap(b, scratch, word, n);
    add_tokens(b, scratch->symbols, word, out, with_spans);
}

void bpe_encode(const struct bpe *b, struct bpe_scratch *scratch, const struct text_view *word,
                struct token_list *out, bool with_spans)
{
    if (word->n == 0)
        return;
    if (b->ignore_merges) {
        int32_t id = whole_word(b, word);
        if (id >= 0) {
            text_view_add_token(word, 0, word->n, id, out, with_spans);
            return;
        }
    }
    if (!b->splits_at_marks) {
        encode_word(b, scratch, word, out, with_spans);
        return;
    }
    for (size_t from = 0, to; from < word->n; from = to) {
        struct text_view part;

        to = next_boundary(word->s, word->n, from);
        part = text_view_cut(word, from, to);
        encode_word(b, scratch, &part, out, with_spans);
    }
}
