/* test_watermark.c - would break in production: a text that no detector of TGI's watermark finds.
 *
 * The vectors were computed by a plain loop over another MT19937, that of Python's random module set to the state
 * that PyTorch's seed gives; the first is the permutation that PyTorch's documentation and forums show everywhere:
 * manual_seed(0), randperm(10). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/mem.h"
#include "gpu-worker/watermark.h"

static void permutation_of_seed_0_is_pytorchs(void **state)
{
    const uint32_t expected[10] = { 4, 1, 7, 5, 3, 9, 0, 8, 6, 2 };
    uint32_t ids[10];

    (void)state;
    watermark_green(ids, 10, 10, 0);
    assert_memory_equal(ids, expected, sizeof ids);
}

static const struct {
    int32_t previous;
    uint32_t vocab_size;
    float gamma;
    uint32_t n_green;
    uint32_t first[4];
    uint32_t hash; /* h = 31 h + id over all green ids in order */
} vectors[] = {
    { 1, 32000, 0.5f, 16000, { 958, 17083, 30553, 27350 }, 0x7cbe81ab },
    { 29871, 32000, 0.5f, 16000, { 8451, 26760, 5668, 31271 }, 0x40790865 },
    { 128000, 128256, 0.25f, 32064, { 56263, 36102, 16106, 101107 }, 0x4b641411 },
    { 7, 5, 0.9f, 4, { 4, 1, 3, 2 }, 0x1d59c },
};

static void green_lists_are_the_known_ones(void **state)
{
    (void)state;
    for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++) {
        uint32_t *ids = mem_alloc(vectors[v].vocab_size * sizeof *ids), hash = 0;
        uint32_t n = watermark_n_green(vectors[v].vocab_size, vectors[v].gamma);
        assert_int_equal(n, vectors[v].n_green);
        watermark_green(ids, vectors[v].vocab_size, n, vectors[v].previous);
        assert_memory_equal(ids, vectors[v].first, sizeof vectors[v].first);
        for (uint32_t i = 0; i < n; i++)
            hash = 31 * hash + ids[i];
        assert_int_equal(hash, vectors[v].hash);
        free(ids);
    }
}

/* As int(vocab_size * gamma) is in double precision, whatever gamma's float is: 0.7f is less than 0.7. */
static void share_is_that_of_the_decimal(void **state)
{
    (void)state;
    assert_int_equal(watermark_n_green(32000, 0.7f), 22400);
    assert_int_equal(watermark_n_green(50257, 0.3f), 15077);
    assert_int_equal(watermark_n_green(128256, 0.1f), 12825);
    assert_int_equal(watermark_n_green(32000, 1.0f), 32000);
    assert_int_equal(watermark_n_green(32000, 0.0f), 0);
}

static void a_whole_list_has_every_token_once(void **state)
{
    enum { VOCAB = 5003 };
    uint32_t ids[VOCAB];
    uint8_t seen[VOCAB] = { 0 };

    (void)state;
    watermark_green(ids, VOCAB, VOCAB, 4711);
    for (uint32_t i = 0; i < VOCAB; i++) {
        assert_true(ids[i] < VOCAB && !seen[ids[i]]);
        seen[ids[i]] = 1;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutation_of_seed_0_is_pytorchs),
        cmocka_unit_test(green_lists_are_the_known_ones),
        cmocka_unit_test(share_is_that_of_the_decimal),
        cmocka_unit_test(a_whole_list_has_every_token_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
