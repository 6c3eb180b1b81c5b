/* vocab.c - tokens by id and by spelling. */
#include "text/tokenizer/vocab.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"

void vocab_init(struct vocab *v, size_t tokens_expected)
{
    *v = (struct vocab){ 0 };
    strmap_init(&v->by_piece, tokens_expected);
}

void vocab_fini(struct vocab *v)
{
    strmap_fini(&v->by_piece);
    arena_fini(&v->strings);
    free(v->tokens);
    free(v->pool);
    *v = (struct vocab){ 0 };
}

static void reserve(struct vocab *v, size_t n)
{
    size_t cap = v->cap ? v->cap : 256;

    while (cap < n)
        cap *= 2;
    if (cap > v->cap) {
        v->tokens = mem_realloc(v->tokens, cap * sizeof *v->tokens);
        memset(v->tokens + v->cap, 0, (cap - v->cap) * sizeof *v->tokens);
        v->cap = cap;
    }
    if (n > v->n)
        v->n = n;
}

bool vocab_put(struct vocab *v, int64_t id, const char *piece, size_t n, struct err *e)
{
    if (id < 0 || id >= VOCAB_IDS_MAX)
        return err_set(e, ERR_MODEL, 0, "token '%.40s' has id %lld, wanted 0..%d", piece,
                       (long long)id, VOCAB_IDS_MAX - 1);
    if (n > PIECE_BYTES_MAX)
        return err_set(e, ERR_MODEL, 0, "token %lld has %zu bytes, the limit is %d", (long long)id,
                       n, PIECE_BYTES_MAX);
    if (vocab_has(v, (int32_t)id))
        return err_set(e, ERR_MODEL, 0, "id %lld is both '%.40s' and '%.40s'", (long long)id,
                       v->tokens[id].piece, piece);
    if (!strmap_add(&v->by_piece, piece, n, (int32_t)id))
        return err_set(e, ERR_MODEL, 0, "token '%.40s' has the ids %d and %lld", piece,
                       vocab_find(v, piece, n), (long long)id);
    reserve(v, (size_t)id + 1);
    v->tokens[id].piece = v->tokens[id].bytes = piece;
    v->tokens[id].n_piece = v->tokens[id].n_bytes = (uint32_t)n;
    return true;
}

int vocab_byte_of(const char *piece, size_t n)
{
    int value = 0;

    if (n != 6 || memcmp(piece, "<0x", 3) != 0 || piece[5] != '>')
        return -1;
    for (int i = 3; i < 5; i++) {
        char c = piece[i];
        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f')
            value = value * 16 + ((c | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

bool vocab_byte_tokens(const struct vocab *v, int32_t byte_ids[256])
{
    bool all = true;

    for (unsigned byte = 0; byte < 256; byte++) {
        char piece[8];
        snprintf(piece, sizeof piece, "<0x%02X>", byte);
        byte_ids[byte] = vocab_find(v, piece, 6);
        all &= byte_ids[byte] >= 0;
    }
    return all;
}
