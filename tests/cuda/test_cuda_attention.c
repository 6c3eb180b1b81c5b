/* test_cuda_attention.c - the GPU's attention on the shim, against double precision and against itself.
 *
 * What would break in production: a mask off by one, a page read of another sequence, layer or head, what lies
 * behind a sequence's end leaking in (it is NaN here), a barrier that is not there, and a row whose bits depend
 * on its neighbours in the batch. */
#include "tests/cuda/attention_rig.h"

enum { SLOTS = 64 };

#define N(array) (sizeof(array) / sizeof *(array))

/* One query an item, and several. */
static const struct rig_shape decode_shapes[] = {
    { 2, 2, 128, 16, KV_F16, 0, 0 },   { 4, 2, 64, 16, KV_F16, 0, 0 },
    { 4, 1, 32, 16, KV_I8, 0, 30 },    { 2, 1, 80, 16, KV_F32, 0, 0 },
    { 7, 1, 96, 256, KV_F16, 100, 0 }, { 1, 1, 256, 16, KV_I8, 600, 50 },
    { 1, 1, 256, 8, KV_F32, 0, 0 },    { 4, 2, 128, 32, KV_E4M3, 0, 0 },
    { 2, 2, 64, 1, KV_E4M3, 17, 0 },   { 3, 1, 128, 6, KV_I8, 1, 0 },
    { 2, 2, 32, 7, KV_F16, 0, 2 },     { 1, 1, 80, 16, KV_I8, 0, 0 },
    { 1, 1, 64, 2, KV_I8, 0, 0 },      { 1, 1, 32, 16, KV_I8, 0, 0 },
    { 1, 1, 256, 16, KV_F16, 0, 0 },   { 1, 1, 64, 16, KV_F16, 0, 0 },
    { 2, 1, 64, 16, KV_F32, 0, 0 },    { 2, 1, 32, 16, KV_F32, 0, 0 },
    { 1, 1, 256, 16, KV_E4M3, 0, 0 },  { 1, 1, 24, 16, KV_E4M3, 0, 0 },
    { 4, 2, 6, 4, KV_F16, 0, 0 },      { 1, 1, 130, 32, KV_F32, 300, 0 },
    { 2, 2, 64, 3, KV_I8, 0, 0 },      { 1, 1, 512, 16, KV_F16, 0, 4 },
    { 2, 1, 20, 5, KV_E4M3, 0, 0 },    { 1, 1, 128, 16, KV_E4M3, 0, 0 },
};

static const struct rig_shape group_shapes[] = {
    { 8, 1, 128, 16, KV_F16, 0, 0 }, { 16, 1, 64, 16, KV_I8, 540, 0 },
    { 4, 1, 80, 7, KV_F16, 0, 20 },  { 7, 1, 96, 32, KV_E4M3, 0, 0 },
    { 2, 2, 32, 16, KV_I8, 33, 5 },  { 10, 1, 128, 16, KV_I8, 0, 0 },
    { 4, 1, 64, 16, KV_F16, 0, 0 },  { 4, 1, 40, 8, KV_E4M3, 0, 0 },
};

static void check_step(struct rig *g, const struct rig_rows *rows, uint32_t n, bool is_grouped,
                       struct rig_errors *errors)
{
    struct rig_step step = { rows, n, SLOTS, ATTENTION_NO_TILES, 0, is_grouped };
    float *out = rig_run(g, &step);

    rig_check(g, &step, out, 1, errors);
    l1_free(out);
}

static void check_decode(struct random *r, const struct rig_shape *shape, bool is_grouped,
                         struct rig_errors *errors)
{
    static const uint32_t lengths[] = { 1, 1030, 17, 515 };
    static const struct rig_rows last[] = { { 0, 0, 1 }, { 1, 1029, 1 } };
    /* Of drafts the first ones see less of the last split. */
    static const struct rig_rows drafts[] = { { 2, 11, 2 }, { 3, 511, 3 } };
    struct rig g = rig_new(r, shape, lengths, N(lengths));

    check_step(&g, last, N(last), is_grouped, errors);
    check_step(&g, drafts, N(drafts), is_grouped, errors);
    rig_free(&g);
}

static void decode_matches_double_precision(void **state)
{
    struct random r = random_begin("decode_matches_double_precision");
    struct rig_errors errors = { 0 };

    (void)state;
    for (size_t i = 0; i < N(decode_shapes); i++)
        check_decode(&r, &decode_shapes[i], false, &errors);
    rig_expect_errors(&errors);
}

static void grouped_decode_matches_double_precision(void **state)
{
    struct random r = random_begin("grouped_decode_matches_double_precision");
    struct rig_errors errors = { 0 };

    (void)state;
    for (size_t i = 0; i < N(group_shapes); i++)
        check_decode(&r, &group_shapes[i], true, &errors);
    rig_expect_errors(&errors);
}

static const struct rig_shape prefill_shapes[] = {
    { 2, 1, 128, 16, KV_F16, 0, 0 }, { 2, 2, 32, 16, KV_F16, 0, 10 },
    { 1, 1, 64, 1, KV_F16, 20, 0 },  { 1, 1, 80, 7, KV_F16, 0, 0 },
    { 1, 1, 96, 256, KV_F16, 0, 0 }, { 1, 1, 256, 16, KV_F16, 70, 50 },
    { 1, 1, 128, 16, KV_I8, 0, 0 },  { 1, 1, 64, 32, KV_F32, 0, 0 },
    { 4, 1, 32, 6, KV_I8, 33, 0 },   { 1, 1, 80, 16, KV_E4M3, 0, 0 },
    { 1, 1, 96, 16, KV_F32, 0, 0 },  { 1, 1, 256, 16, KV_E4M3, 0, 0 },
};

static void prefill_matches_double_precision(void **state)
{
    static const uint32_t lengths[] = { 70, 150, 1 };
    /* A whole prompt, a chunk that begins and ends anywhere, one token. */
    static const struct rig_rows rows[] = { { 0, 0, 70 }, { 1, 101, 29 }, { 2, 0, 1 } };
    struct random r = random_begin("prefill_matches_double_precision");
    struct rig_errors errors = { 0 };

    (void)state;
    for (size_t i = 0; i < N(prefill_shapes); i++) {
        struct rig g = rig_new(&r, &prefill_shapes[i], lengths, N(lengths));
        struct rig_step step = { rows, N(rows), SLOTS, 1, 0, false };
        float *out = rig_run(&g, &step);
        rig_check(&g, &step, out, 3, &errors);
        l1_free(out);
        rig_free(&g);
    }
    rig_expect_errors(&errors);
}

/* ---- bits ---- */

static void assert_same_rows(const struct rig *g, const float *a, const float *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        assert_memory_equal(a + i * rig_out_stride(g), b + i * rig_out_stride(g),
                            rig_row(g) * sizeof(float));
}

/* Run `step` and compare its rows with rows `first` .. of `all`. */
static void assert_rows_of(struct rig *g, const struct rig_step *step, const float *all,
                           uint32_t first)
{
    float *out = rig_run(g, step);

    assert_same_rows(g, out, all + first * rig_out_stride(g), rig_n_rows(step));
    l1_free(out);
}

static void a_decoded_row_has_the_same_bits_in_any_batch(void **state)
{
    static const struct rig_shape shapes[] = { { 2, 2, 64, 16, KV_F16, 0, 0 },
                                               { 3, 1, 80, 16, KV_I8, 540, 9 },
                                               { 1, 1, 34, 16, KV_F32, 0, 0 },
                                               { 4, 1, 64, 16, KV_I8, 700, 0 },
                                               { 5, 1, 128, 16, KV_F16, 0, 0 } };
    static const uint32_t lengths[] = { 1032, 540, 23 };
    static const struct rig_rows rows[] = { { 0, 1027, 5 }, { 1, 539, 1 }, { 2, 20, 3 } };
    struct random r = random_begin("a_decoded_row_has_the_same_bits_in_any_batch");

    (void)state;
    for (size_t i = 0; i < N(shapes); i++) {
        struct rig g = rig_new(&r, &shapes[i], lengths, N(lengths));
        struct rig_step all = { rows, N(rows), SLOTS, ATTENTION_NO_TILES, 0, i >= 3 }, step = all;
        float *out = rig_run(&g, &all);
        for (uint32_t row = 0; row < 5; row += 4) { /* alone; with group 1 by another kernel */
            struct rig_rows one = { 0, 1027 + row, 1 };
            step.rows = &one;
            step.n = 1;
            assert_rows_of(&g, &step, out, row);
        }
        step = all;
        step.slots_max = 0; /* one block for all splits */
        assert_rows_of(&g, &step, out, 0);
        step.slots_max = 15; /* that for all but the first sequence */
        assert_rows_of(&g, &step, out, 0);
        step.blocks_max = 2;
        assert_rows_of(&g, &step, out, 0);
        step.rows++; /* without the first */
        step.n--;
        assert_rows_of(&g, &step, out, 5);
        l1_free(out);
        rig_free(&g);
    }
}

static void a_prefilled_row_has_the_same_bits_in_any_chunk(void **state)
{
    static const struct rig_shape shapes[] = { { 1, 1, 64, 16, KV_F16, 0, 0 },
                                               { 2, 1, 32, 16, KV_I8, 37, 9 },
                                               { 1, 1, 80, 5, KV_F16, 50, 0 } };
    static const uint32_t lengths[] = { 170, 90 };
    static const struct rig_rows rows[] = { { 0, 0, 170 }, { 1, 10, 80 } };
    static const struct rig_rows chunks[] = {
        { 0, 0, 33 }, { 0, 33, 64 }, { 0, 97, 1 }, { 0, 98, 72 }
    };
    struct random r = random_begin("a_prefilled_row_has_the_same_bits_in_any_chunk");

    (void)state;
    for (size_t i = 0; i < N(shapes); i++) {
        struct rig g = rig_new(&r, &shapes[i], lengths, N(lengths));
        float *out = rig_run(&g, &(struct rig_step){ rows, N(rows), SLOTS, 1, 0, false });
        for (size_t c = 0; c < N(chunks); c++)
            assert_rows_of(&g, &(struct rig_step){ chunks + c, 1, SLOTS, 1, 0, false }, out,
                           chunks[c].start);
        assert_rows_of(&g, &(struct rig_step){ rows + 1, 1, SLOTS, 1, 0, false }, out, 170);
        l1_free(out);
        rig_free(&g);
    }
}

/* A barrier that is missing shows in some order of the threads. */
static void the_order_of_threads_changes_nothing(void **state)
{
    static const struct rig_shape shapes[] = { { 4, 1, 64, 16, KV_F16, 0, 0 },
                                               { 2, 2, 128, 16, KV_I8, 0, 0 },
                                               { 2, 2, 256, 16, KV_F16, 0, 0 },
                                               { 2, 2, 40, 5, KV_I8, 0, 0 },
                                               { 8, 1, 128, 16, KV_I8, 0, 0 } };
    static const uint32_t lengths[] = { 530, 100 };
    static const struct rig_rows rows[] = { { 0, 511, 2 }, { 1, 80, 20 } };
    static const struct rig_rows few[] = { { 0, 130, 2 }, { 1, 40, 20 } };
    struct random r = random_begin("the_order_of_threads_changes_nothing");

    (void)state;
    for (size_t i = 0; i < N(shapes); i++) {
        struct rig g = rig_new(&r, &shapes[i], lengths, N(lengths));
        struct rig_step step = {
            i == 0 ? rows : few, N(rows), SLOTS, i >= 3 ? ATTENTION_NO_TILES : 17, 0, i == 4
        };
        float *out;
        shim_set_order(SHIM_FORWARD, 0);
        out = rig_run(&g, &step);
        for (enum shim_order order = SHIM_FORWARD + 1; order < N_SHIM_ORDERS; order++) {
            shim_set_order(order, 7);
            assert_rows_of(&g, &step, out, 0);
        }
        shim_set_order(SHIM_FORWARD, 0);
        l1_free(out);
        rig_free(&g);
    }
}

/* ---- what is not there ---- */

static void grids_larger_than_the_plan_write_nothing(void **state)
{
    static const char *const names[] = { "attention_decode_f16_d64_q1",
                                         "attention_decode_f16_d64_q4", "attention_decode_any",
                                         "attention_combine", "attention_prefill_f16_d64" };
    static const struct rig_shape shape = { 2, 2, 64, 16, KV_F16, 0, 0 };
    static const uint32_t lengths[] = { 20 };
    struct random r = random_begin("grids_larger_than_the_plan_write_nothing");
    struct rig g = rig_new(&r, &shape, lengths, 1);
    struct attention_header *plan = l1_alloc(sizeof *plan);
    struct attention_args args = rig_args(&g);
    struct rig_step step = { 0 };

    (void)state;
    *plan = (struct attention_header){ 0 };
    args.plan = plan; /* q, out and partials are NULL: whoever touches them is seen */
    for (size_t i = 0; i < N(names); i++)
        rig_launch(&(struct attention_launch){ names[i], 5, 2, 128, ATTENTION_PREFILL_SHARED(64) },
                   &step, &args);
    l1_free(plan);
    rig_free(&g);
}

static void every_kernel_that_a_plan_may_name_is_there(void **state)
{
    static const uint32_t dims[] = { 1, 32, 64, 80, 96, 128, 200, 256, 257, 512 };
    struct attention_header plan = { .n_items = 1, .n_combines = 1, .n_tiles = 1 };
    struct attention_launch launches[ATTENTION_LAUNCHES];

    (void)state;
    for (size_t i = 0; i < N(dims); i++)
        for (uint32_t format = 0; format < N_KV_FORMATS; format++)
            for (plan.queries_max = 1; plan.queries_max <= 4; plan.queries_max++) {
                struct attention_setup s = { .n_heads = 1,
                                             .n_kv_heads = 1,
                                             .head_dim = dims[i],
                                             .page_tokens = 16,
                                             .kv = (enum kv_format)format };
                uint32_t n;
                plan.n_tiles = attention_has_tiles(&s, 80);
                s.is_grouped = plan.queries_max == 3 && attention_has_groups(&s, 75);
                n = attention_launches(launches, &s, &plan);
                assert_int_equal(n, 2 + plan.n_tiles);
                for (uint32_t l = 0; l < n; l++) {
                    const struct shim_kernel *k = shim_find(launches[l].name);
                    if (!k)
                        fail_msg("there is no kernel '%s'", launches[l].name);
                    assert_int_equal(k->args_bytes, sizeof(struct attention_args));
                    assert_int_equal(k->threads, launches[l].threads);
                }
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_matches_double_precision),
        cmocka_unit_test(grouped_decode_matches_double_precision),
        cmocka_unit_test(prefill_matches_double_precision),
        cmocka_unit_test(a_decoded_row_has_the_same_bits_in_any_batch),
        cmocka_unit_test(a_prefilled_row_has_the_same_bits_in_any_chunk),
        cmocka_unit_test(the_order_of_threads_changes_nothing),
        cmocka_unit_test(grids_larger_than_the_plan_write_nothing),
        cmocka_unit_test(every_kernel_that_a_plan_may_name_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
