/* journal.c - take, fill and give back the blocks of one connection. */
#include "gateway/takeover/journal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

enum { BLOCK = CONNECTIONS_BLOCK_BYTES };

/* Where the last block was given back: the same few are used again and again, and stay in the cache. */
static _Thread_local uint32_t hint;

void journal_init(struct journal *j, const struct connections *c, uint32_t slot, uint64_t in_start)
{
    *j = (struct journal){
        .connections = c, .slot = slot, .in_start = in_start, .in_seen = in_start
    };
}

static void give_back(struct journal *j, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        connections_free_block(j->connections, j->blocks[i]);
        hint = j->blocks[i];
    }
    memmove(j->blocks, j->blocks + n, (j->n - n) * sizeof *j->blocks);
    j->n -= n;
    j->first += n;
}

void journal_fini(struct journal *j)
{
    if (j->n > 0)
        give_back(j, j->n);
    free(j->blocks);
    *j = (struct journal){ 0 };
}

void journal_add_block(struct journal *j, uint32_t block, uint64_t index)
{
    if (j->n == 0)
        j->first = index;
    assert(index == j->first + j->n);
    if (j->n == j->cap) {
        j->cap = j->cap ? j->cap * 2 : 4;
        j->blocks = mem_realloc(j->blocks, j->cap * sizeof *j->blocks);
    }
    j->blocks[j->n++] = block;
}

void journal_set_seen(struct journal *j, uint64_t in_seen)
{
    j->in_seen = in_seen;
}

static char *at_position(const struct journal *j, uint64_t at)
{
    return connections_block(j->connections, j->blocks[at / BLOCK - j->first]) + at % BLOCK;
}

char *journal_room(struct journal *j, size_t *n)
{
    uint64_t index = j->in_seen / BLOCK;
    uint32_t block;

    if (j->n == 0 || index >= j->first + j->n) {
        block = connections_take_block(j->connections, hint, j->slot, index);
        if (block == CONNECTIONS_NO_BLOCK)
            return NULL;
        journal_add_block(j, block, index);
    }
    *n = BLOCK - j->in_seen % BLOCK;
    return at_position(j, j->in_seen);
}

static void trim(struct journal *j)
{
    uint64_t keep_from = j->in_start / BLOCK;

    if (j->n == 0)
        return;
    if (j->in_start >= j->in_seen)
        give_back(j, j->n);
    else if (keep_from > j->first)
        give_back(j, (uint32_t)(keep_from - j->first));
}

void journal_input(struct journal *j, size_t n)
{
    j->in_seen += n;
    if (n == 0)
        trim(j);
}

void journal_used(struct journal *j, uint64_t n)
{
    j->in_start = n;
    trim(j);
}

size_t journal_peek(const struct journal *j, uint64_t at, const char **bytes)
{
    uint64_t index = at / BLOCK;
    size_t n = BLOCK - at % BLOCK;

    if (at >= j->in_seen || j->n == 0 || index < j->first || index >= j->first + j->n)
        return 0;
    *bytes = at_position(j, at);
    return n < j->in_seen - at ? n : (size_t)(j->in_seen - at);
}
