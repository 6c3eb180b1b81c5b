/* test_random_gguf.c - the files of random weights that both engines are measured on.
 *
 * What would break: a file that one engine refuses, weights that overflow, or bytes that differ from one run to
 * the next, so that two measurements are of different models. */
#include "bench/random_gguf.h"

#include <math.h>
#include <stdio.h>

#include "common/file.h"
#include "common/gguf.h"
#include "common/hash.h"
#include "gpu-worker/ops/half.h"
#include "tests/check.h"

static char dir[] = "/tmp/llmd-random-XXXXXX", path[128];

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/model.gguf", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    rmdir(dir);
    return 0;
}

static struct hash128 write_and_hash(const char *type, uint64_t seed)
{
    struct hash128 h;
    struct err e;
    char *bytes;
    size_t n;

    assert_ok(random_gguf_write(shape_find("tiny"), weight_type_find(type), seed, path, &e), e);
    assert_ok(file_read(path, 1 << 26, &bytes, &n, &e), e);
    h = hash128(bytes, n, 0);
    free(bytes);
    return h;
}

static void the_same_seed_gives_the_same_bytes(void **state)
{
    struct hash128 a = write_and_hash("q4_0", 7), b = write_and_hash("q4_0", 7);
    struct hash128 c = write_and_hash("q4_0", 8);

    (void)state;
    assert_memory_equal(&a, &b, sizeof a);
    assert_memory_not_equal(&a, &c, sizeof a);
}

static const struct gguf_tensor *tensor(const struct gguf *g, const char *name)
{
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (strcmp(g->tensors[i].name, name) == 0)
            return &g->tensors[i];
    fail_msg("no tensor '%s'", name);
    return NULL;
}

static void every_type_is_read_by_our_parser_with_all_tensors(void **state)
{
    static const char *const types[] = { "q4_0", "q8_0", "f16", "bf16" };

    (void)state;
    for (int i = 0; i < 4; i++) {
        struct err e;
        struct gguf *g;
        int64_t layers;
        write_and_hash(types[i], 1);
        g = gguf_open(path, &e);
        assert_ok(g != NULL, e);
        assert_ok(gguf_integer(g, "llama.block_count", &layers, &e), e);
        assert_int_equal(layers, 2);
        assert_int_equal(tensor(g, "token_embd.weight")->dims[1], 1024);
        assert_int_equal(tensor(g, "blk.1.ffn_down.weight")->dims[0], 512);
        assert_int_equal(tensor(g, "output.weight")->type, weight_type_find(types[i])->tensor_type);
        gguf_close(g);
    }
}

static void weights_have_the_deviation_of_their_width(void **state)
{
    const struct gguf_tensor *t;
    double sum = 0, squares = 0;
    const uint16_t *v;
    struct gguf *g;
    struct err e;
    size_t n = 256 * 256;

    (void)state;
    write_and_hash("f16", 3);
    g = gguf_open(path, &e);
    assert_ok(g != NULL, e);
    t = tensor(g, "blk.0.attn_q.weight");
    v = (const void *)(g->data + t->offset);
    for (size_t i = 0; i < n; i++) {
        double w = (double)f16_to_float(v[i]);
        sum += w;
        squares += w * w;
    }
    assert_true(fabs(sum / (double)n) < 0.05 / 16);
    assert_true(fabs(sqrt(squares / (double)n) * 16 - 1) < 0.05);
    gguf_close(g);
}

static void a_path_that_cannot_be_written_is_an_error_that_names_it(void **state)
{
    struct err e;

    (void)state;
    assert_fails(random_gguf_write(shape_find("tiny"), weight_type_find("f16"), 1,
                                   "/proc/no-such/model.gguf", &e),
                 e, ERR_SYS, "/proc/no-such/model.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(every_type_is_read_by_our_parser_with_all_tensors),
        cmocka_unit_test(weights_have_the_deviation_of_their_width),
        cmocka_unit_test(a_path_that_cannot_be_written_is_an_error_that_names_it),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
