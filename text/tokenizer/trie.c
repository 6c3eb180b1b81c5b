/* trie.c - build a trie from sorted keys, breadth first, so that siblings stand together. */
#include "text/tokenizer/trie.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"

/* The keys below a node: keys[from..to), which agree in their first `depth` bytes. */
struct range {
    size_t from, to, depth;
};

static int compare_keys(const void *a, const void *b)
{
    const struct trie_key *x = a, *y = b;
    int order = memcmp(x->s, y->s, x->n < y->n ? x->n : y->n);

    if (order)
        return order;
    if (x->n != y->n)
        return x->n < y->n ? -1 : 1;
    return x->value < y->value ? -1 : x->value > y->value;
}

static size_t count_nodes(const struct trie_key *keys, size_t n_keys)
{
    size_t n = 1;

    for (size_t i = 0; i < n_keys; i++) {
        size_t shared = 0;
        if (i > 0)
            while (shared < keys[i].n && shared < keys[i - 1].n &&
                   keys[i].s[shared] == keys[i - 1].s[shared])
                shared++;
        n += keys[i].n - shared;
    }
    return n;
}

/* Give `node` its value and its children, which are appended to the nodes. */
static void expand(struct trie *t, uint32_t node, const struct trie_key *keys, struct range *ranges)
{
    struct range r = ranges[node];

    while (r.from < r.to && keys[r.from].n == r.depth) {
        if (t->nodes[node].value < 0)
            t->nodes[node].value = keys[r.from].value;
        r.from++;
    }
    t->nodes[node].child = (uint32_t)t->n_nodes;
    while (r.from < r.to) {
        char byte = keys[r.from].s[r.depth];
        size_t end = r.from;

        while (end < r.to && keys[end].s[r.depth] == byte)
            end++;
        ranges[t->n_nodes] = (struct range){ .from = r.from, .to = end, .depth = r.depth + 1 };
        t->nodes[t->n_nodes++] = (struct trie_node){ .value = -1, .byte = (uint8_t)byte };
        t->nodes[node].n_children++;
        r.from = end;
    }
}

void trie_init(struct trie *t, struct trie_key *keys, size_t n_keys)
{
    size_t cap;
    struct range *ranges;

    if (n_keys > 0)
        qsort(keys, n_keys, sizeof *keys, compare_keys);
    cap = count_nodes(keys, n_keys);
    assert(cap < UINT32_MAX);
    *t = (struct trie){ .nodes = mem_alloc(cap * sizeof *t->nodes), .n_nodes = 1 };
    ranges = mem_alloc(cap * sizeof *ranges);
    t->nodes[0] = (struct trie_node){ .value = -1 };
    ranges[0] = (struct range){ .to = n_keys };
    for (uint32_t node = 0; node < t->n_nodes; node++)
        expand(t, node, keys, ranges);
    for (uint32_t i = 0; i < t->nodes[0].n_children; i++)
        t->from_root[t->nodes[t->nodes[0].child + i].byte] = t->nodes[0].child + i;
    free(ranges);
}

void trie_fini(struct trie *t)
{
    free(t->nodes);
    *t = (struct trie){ 0 };
}

size_t trie_longest(const struct trie *t, const char *s, size_t n, int32_t *value)
{
    uint32_t node = TRIE_ROOT;
    size_t longest = 0;

    for (size_t i = 0; i < n; i++) {
        node = trie_step(t, node, s[i]);
        if (node == TRIE_NONE)
            break;
        if (t->nodes[node].value >= 0) {
            longest = i + 1;
            *value = t->nodes[node].value;
        }
    }
    return longest;
}
