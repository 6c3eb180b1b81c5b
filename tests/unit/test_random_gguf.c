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
    const struct random_model m = { shape_find("tiny"), weight_type_find(type), seed, false };
    struct hash128 h;
    struct err e;
    char *bytes;
    size_t n;

    assert_ok(random_gguf_write(&m, path, &e), e);
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

/* What a block of Q4_0 says by the specification: (nibble - 8) * scale, low nibbles first. */
static void decoded_weights_are_those_of_the_coded_file(void **state)
{
    struct random_model m = { shape_find("tiny"), weight_type_find("q4_0"), 5, false };
    char other[160];
    const struct gguf_tensor *coded, *decoded;
    struct gguf *a, *b;
    struct err e;

    (void)state;
    snprintf(other, sizeof other, "%s.decoded", path);
    assert_ok(random_gguf_write(&m, path, &e), e);
    m.decoded = true;
    assert_ok(random_gguf_write(&m, other, &e), e);
    a = gguf_open(path, &e);
    b = gguf_open(other, &e);
    assert_true(a && b);
    coded = tensor(a, "blk.1.ffn_down.weight");
    decoded = tensor(b, "blk.1.ffn_down.weight");
    assert_int_equal(decoded->type, 0);
    for (uint32_t block = 0; block < 256 * 512 / 32; block++) {
        const uint8_t *in = a->data + coded->offset + block * 18;
        float scale = f16_to_float((uint16_t)(in[0] | in[1] << 8)), out[32];
        memcpy(out, b->data + decoded->offset + block * sizeof out, sizeof out);
        for (int i = 0; i < 16; i++) {
            assert_true(out[i] == scale * (float)((in[2 + i] & 15) - 8));
            assert_true(out[16 + i] == scale * (float)((in[2 + i] >> 4) - 8));
        }
    }
    gguf_close(a);
    gguf_close(b);
    unlink(other);
}

static void a_path_that_cannot_be_written_is_an_error_that_names_it(void **state)
{
    const struct random_model m = { shape_find("tiny"), weight_type_find("f16"), 1, false };
    struct err e;

    (void)state;
    assert_fails(random_gguf_write(&m, "/proc/no-such/model.gguf", &e), e, ERR_SYS,
                 "/proc/no-such/model.gguf");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(every_type_is_read_by_our_parser_with_all_tensors),
        cmocka_unit_test(weights_have_the_deviation_of_their_width),
        cmocka_unit_test(decoded_weights_are_those_of_the_coded_file),
        cmocka_unit_test(a_path_that_cannot_be_written_is_an_error_that_names_it),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
