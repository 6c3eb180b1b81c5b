/* trie.h - all strings of a set that begin at one place of a text.
 *
 * For the spellings of added tokens, for user-defined symbols and for the Unigram lattice.  Built
 * once; the children of a node stand together, in order of their bytes. */
#ifndef LLMD_TEXT_TRIE_H
#define LLMD_TEXT_TRIE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRIE_ROOT = 0, TRIE_NONE = 0 /* no node leads back to the root */ };

struct trie_key {
    const char *s;
    size_t n; /* > 0 */
    int32_t value;
};

struct trie_node {
    uint32_t child; /* index of the first child */
    int32_t value;  /* of the key that ends here, or -1 */
    uint16_t n_children;
    uint8_t byte; /* that leads here */
};

struct trie {
    struct trie_node *nodes; /* [n_nodes] */
    size_t n_nodes;
    uint32_t from_root[256]; /* the root's children by byte, TRIE_NONE where there is none */
};

/* Sorts keys[]; of two equal keys the one with the smaller value stays.  Zero keys are fine. */
void trie_init(struct trie *t, struct trie_key *keys, size_t n_keys);
void trie_fini(struct trie *t);

/* The node one byte further, or TRIE_NONE. */
static inline uint32_t trie_step(const struct trie *t, uint32_t node, char byte)
{
    const struct trie_node *from = &t->nodes[node];
    uint8_t want = (uint8_t)byte;
    uint32_t lo, hi;

    if (node == TRIE_ROOT)
        return t->from_root[want];
    lo = from->child;
    hi = lo + from->n_children;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (t->nodes[mid].byte == want)
            return mid;
        if (t->nodes[mid].byte < want)
            lo = mid + 1;
        else
            hi = mid;
    }
    return TRIE_NONE;
}

static inline bool trie_begins(const struct trie *t, char byte)
{
    return t->from_root[(uint8_t)byte] != TRIE_NONE;
}

/* Bytes of the longest key that s begins with, and its value; 0 when there is none. */
size_t trie_longest(const struct trie *t, const char *s, size_t n, int32_t *value);

#endif
