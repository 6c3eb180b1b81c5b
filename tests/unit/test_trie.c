/* test_trie.c - tries and string maps against a list searched from end to end.
 *
 * What would break in production: a special token not found in a prompt, or a piece given another's id. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "text/tokenizer/strmap.h"
#include "text/tokenizer/trie.h"

enum { KEYS = 600, KEY_MAX = 12, SEED = 20240611 };

static char keys[KEYS][KEY_MAX];
static size_t lengths[KEYS];

/* Short keys of few letters, NUL and 0xff among them, so that many are prefixes of others. */
static int make_keys(void **state)
{
    static const char letters[] = { 'a', 'b', '\0', '\xff' };

    (void)state;
    srand(SEED);
    printf("seed %d\n", SEED);
    for (size_t i = 0; i < KEYS; i++) {
        lengths[i] = 1 + (size_t)rand() % (KEY_MAX - 1);
        for (size_t k = 0; k < lengths[i]; k++)
            keys[i][k] = letters[rand() % 4];
    }
    return 0;
}

/* The first key that is s[0..n), or -1. */
static int32_t search(const char *s, size_t n)
{
    for (size_t i = 0; i < KEYS; i++)
        if (lengths[i] == n && memcmp(keys[i], s, n) == 0)
            return (int32_t)i;
    return -1;
}

static void longest_key_wins(void **state)
{
    struct trie_key list[KEYS];
    struct trie t;

    (void)state;
    for (size_t i = 0; i < KEYS; i++)
        list[i] = (struct trie_key){ keys[i], lengths[i], (int32_t)i };
    trie_init(&t, list, KEYS);
    for (size_t i = 0; i < KEYS; i++)
        for (size_t from = 0; from < lengths[i]; from++) {
            const char *s = keys[i] + from;
            size_t n = lengths[i] - from, want = n;
            int32_t id = -1;

            while (want > 0 && search(s, want) < 0)
                want--;
            assert_int_equal(trie_longest(&t, s, n, &id), want);
            if (want > 0)
                assert_int_equal(id, search(s, want));
        }
    trie_fini(&t);
}

static void empty_trie_finds_nothing(void **state)
{
    struct trie t, zeroed = { 0 };
    int32_t id;

    (void)state;
    trie_init(&t, NULL, 0);
    assert_int_equal(trie_longest(&t, "a", 1, &id), 0);
    assert_int_equal(trie_longest(&zeroed, "a", 1, &id), 0);
    assert_false(trie_begins(&t, 'a'));
    trie_fini(&t);
}

static void map_grows_and_keeps_the_first(void **state)
{
    struct strmap m;

    (void)state;
    strmap_init(&m, 0);
    for (size_t i = 0; i < KEYS; i++)
        assert_int_equal(strmap_add(&m, keys[i], lengths[i], (int32_t)i),
                         search(keys[i], lengths[i]) == (int32_t)i);
    for (size_t i = 0; i < KEYS; i++)
        for (size_t n = 0; n <= lengths[i]; n++)
            assert_int_equal(strmap_find(&m, keys[i], n), search(keys[i], n));
    assert_true(m.n_keys * 2 <= m.mask + 1);
    strmap_fini(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(longest_key_wins),
        cmocka_unit_test(empty_trie_finds_nothing),
        cmocka_unit_test(map_grows_and_keeps_the_first),
    };

    return cmocka_run_group_tests(tests, make_keys, NULL);
}
