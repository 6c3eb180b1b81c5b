/* test_llama_shards.c - how a model is cut for ranks that split sums: which rows, which columns, whose bias.
 *
 * What would break in production: a column that two ranks have, or none; a bias that is added once for each rank; a matrix
 * cut in the middle of a block of its format. */
#include "gpu-worker/models/llama.h"
#include "tests/check.h"
#include "tests/unit/checkpoint.h"

enum { RANKS_MAX = 4 };

/* A model's plans for all ranks. */
struct cut {
    struct checkpoint files;
    struct model_config config;
    struct tensors *tensors;
    struct weights_plan plans[RANKS_MAX];
    uint32_t n;
};

static void cut_open(struct cut *c, const struct checkpoint_spec *spec, uint32_t n, bool splits)
{
    struct err e = { 0 };

    memset(c, 0, sizeof *c);
    c->n = n;
    checkpoint_make(&c->files, spec, 5);
    assert_ok(model_config_read(&c->config, c->files.dir, &e), e);
    c->tensors = tensors_open(c->files.dir, &e);
    assert_ok(c->tensors != NULL, e);
    for (uint32_t r = 0; r < n; r++) {
        struct llama_shard shard = { r, n, splits };
        assert_ok(llama_plan(&c->plans[r], &c->config, shard, c->tensors, &e), e);
    }
}

static void cut_close(struct cut *c)
{
    for (uint32_t r = 0; r < c->n; r++)
        weights_plan_fini(&c->plans[r]);
    tensors_close(c->tensors);
    checkpoint_remove(&c->files);
}

static const struct weights_want *find(const struct cut *c, uint32_t rank, const char *name)
{
    const struct weights_plan *p = &c->plans[rank];

    for (uint32_t i = 0; i < p->n; i++)
        if (strcmp(p->tensors[i].entry.name, name) == 0)
            return &p->tensors[i];
    return NULL;
}

/* Every rank has all rows, and the columns behind those of the rank before. */
static void expect_columns(const struct cut *c, const char *name, uint64_t rows, uint64_t cols)
{
    uint64_t next = 0;

    for (uint32_t r = 0; r < c->n; r++) {
        const struct weights_want *w = find(c, r, name);
        assert_int_equal(w->entry.rows, rows);
        assert_int_equal(w->first_col, next);
        next += w->entry.cols;
    }
    assert_int_equal(next, cols);
}

static void expect_rows(const struct cut *c, const char *name, uint64_t rows, uint64_t cols)
{
    uint64_t next = 0;

    for (uint32_t r = 0; r < c->n; r++) {
        const struct weights_want *w = find(c, r, name);
        assert_int_equal(w->entry.cols, cols);
        assert_int_equal(w->first, next);
        next += w->entry.rows;
    }
    assert_int_equal(next, rows);
}

static struct checkpoint_spec wide(void)
{
    return (struct checkpoint_spec){ .architecture = "LlamaForCausalLM",
                                     .hidden = 24,
                                     .inner = 128,
                                     .layers = 1,
                                     .heads = 4,
                                     .kv_heads = 4,
                                     .head_dim = 32,
                                     .vocab = 40,
                                     .dtype = DTYPE_F32,
                                     .qkv_bias = true,
                                     .o_bias = true,
                                     .mlp_bias = true,
                                     .theta = 10000,
                                     .n_files = 1 };
}

static void columns_of_o_and_down_go_with_their_inputs(void **state)
{
    struct checkpoint_spec spec = wide();

    (void)state;
    for (uint32_t n = 2; n <= 4; n += 2) {
        struct cut c;
        cut_open(&c, &spec, n, true);
        expect_columns(&c, "layers.0.wo", 24, 128);
        expect_columns(&c, "layers.0.wd", 24, 128);
        expect_rows(&c, "layers.0.wq", 128, 24);
        expect_rows(&c, "layers.0.wg", 128, 24);
        cut_close(&c);
    }
}

static void a_bias_of_split_sums_is_rank_0s(void **state)
{
    struct checkpoint_spec spec = wide();
    struct cut c;

    (void)state;
    cut_open(&c, &spec, 2, true);
    assert_int_equal(find(&c, 0, "layers.0.bo")->entry.rows, 24);
    assert_int_equal(find(&c, 0, "layers.0.bd")->entry.rows, 24);
    assert_null(find(&c, 1, "layers.0.bo"));
    assert_null(find(&c, 1, "layers.0.bd"));
    assert_non_null(find(&c, 1, "layers.0.bq"));
    cut_close(&c);
}

static void blocks_are_never_cut(void **state)
{
    struct checkpoint_spec spec = wide();
    struct cut c;

    (void)state;
    spec.inner = 96; /* 48 for each of two: a block and a half */
    cut_open(&c, &spec, 2, true);
    expect_columns(&c, "layers.0.wo", 24, 128);
    expect_rows(&c, "layers.0.wd", 24, 96);
    assert_int_equal(find(&c, 1, "layers.0.bd")->entry.rows, 12);
    cut_close(&c);
}

static void without_split_sums_rows_are_cut(void **state)
{
    struct checkpoint_spec spec = wide();
    struct cut c;

    (void)state;
    cut_open(&c, &spec, 2, false);
    expect_rows(&c, "layers.0.wo", 24, 128);
    expect_rows(&c, "layers.0.wd", 24, 128);
    assert_int_equal(find(&c, 1, "layers.0.bo")->entry.rows, 12);
    cut_close(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_of_o_and_down_go_with_their_inputs),
        cmocka_unit_test(a_bias_of_split_sums_is_rank_0s),
        cmocka_unit_test(blocks_are_never_cut),
        cmocka_unit_test(without_split_sums_rows_are_cut),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
