/* strmap.c - building the table of strmap.h. */
#include "text/tokenizer/strmap.h"

#include <assert.h>
#include <stdlib.h>

#include "common/mem.h"

void strmap_init(struct strmap *m, size_t keys_max)
{
    size_t n_slots = 16;

    while (n_slots < keys_max * 2)
        n_slots *= 2;
    *m = (struct strmap){ .slots = mem_zalloc(n_slots, sizeof *m->slots), .mask = n_slots - 1 };
}

void strmap_fini(struct strmap *m)
{
    free(m->slots);
    *m = (struct strmap){ 0 };
}

static void grow(struct strmap *m)
{
    struct strmap old = *m;

    strmap_init(m, old.mask + 1);
    for (size_t i = 0; i <= old.mask; i++)
        if (old.slots[i].key)
            strmap_add(m, old.slots[i].key, old.slots[i].n, old.slots[i].value);
    strmap_fini(&old);
}

bool strmap_add(struct strmap *m, const char *key, size_t n, int32_t value)
{
    size_t i;

    assert(value >= 0 && n <= UINT32_MAX);
    if ((m->n_keys + 1) * 2 > m->mask + 1)
        grow(m);
    for (i = strmap_hash(key, n) & m->mask; m->slots[i].key; i = (i + 1) & m->mask)
        if (m->slots[i].n == n && memcmp(m->slots[i].key, key, n) == 0)
            return false;
    m->slots[i] = (struct strmap_slot){ .key = key, .n = (uint32_t)n, .value = value };
    m->n_keys++;
    return true;
}
