/* strmap.h - strings to numbers, by open addressing with linear probing.
 *
 * Keys are borrowed and must stay while the map lives; they may hold any bytes.  Nothing is ever
 * removed.  Not seeded: the keys are a model's vocabulary, and lookups do not add. */
#ifndef LLMD_TEXT_STRMAP_H
#define LLMD_TEXT_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct strmap_slot {
    const char *key; /* NULL: free */
    uint32_t n;
    int32_t value;
};

struct strmap {
    struct strmap_slot *slots; /* [mask + 1], a power of two, at most half of them taken */
    size_t mask;
    size_t n_keys;
};

void strmap_init(struct strmap *m, size_t keys_max); /* room for keys_max, then grows */
void strmap_fini(struct strmap *m);

/* False when the key is there already; its value is then unchanged. */
bool strmap_add(struct strmap *m, const char *key, size_t n, int32_t value);

static inline uint64_t strmap_hash(const char *s, size_t n)
{
    uint64_t h = (uint64_t)n * 0x9e3779b97f4a7c15u, word;

    for (; n >= sizeof word; n -= sizeof word, s += sizeof word) {
        memcpy(&word, s, sizeof word);
        h = (h ^ word) * 0x9fb21c651e98df25u;
        h ^= h >> 32;
    }
    word = 0;
    for (size_t i = 0; i < n; i++)
        word = word << 8 | (unsigned char)s[i];
    h = (h ^ word) * 0x9fb21c651e98df25u;
    return h ^ h >> 29;
}

/* The value of a key, or -1; values are never negative. */
static inline int32_t strmap_find(const struct strmap *m, const char *key, size_t n)
{
    size_t i = strmap_hash(key, n) & m->mask;

    for (; m->slots[i].key; i = (i + 1) & m->mask)
        if (m->slots[i].n == n && memcmp(m->slots[i].key, key, n) == 0)
            return m->slots[i].value;
    return -1;
}

#endif
