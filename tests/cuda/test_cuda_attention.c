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

/* ---- splits put together ---- */

/* One head of a row: its splits, where their sums lie, and its place in the result. */
struct combine_query {
    uint32_t first_split, n_splits;
    uint32_t partial, n_slots; /* slot of split 0, and from a split to the next */
    uint32_t kv_head;
    size_t out;
};

/* attention_combine alone, over partial sums that no kernel has made. */
struct combine {
    struct attention_setup setup;
    struct attention_header *plan;
    struct attention_args args;
    size_t out_bytes;
    uint32_t grid_x;
    struct combine_query *queries; /* of the plan */
    uint32_t n_queries;
};

static struct combine_query combine_query(const struct combine *c,
                                          const struct attention_item *item, uint32_t query,
                                          uint32_t kv_head)
{
    uint32_t group = c->setup.n_heads / c->setup.n_kv_heads, at = item->query_begin + query;
    uint32_t last = item->position + at / group, window = c->args.window;
    uint32_t first = window && last >= window ? last + 1 - window : 0;
    uint32_t split = first / ATTENTION_SPLIT_TOKENS;

    return (struct combine_query){ .first_split = split,
                                   .n_splits = last / ATTENTION_SPLIT_TOKENS + 1 - split,
                                   .partial = item->partial + query,
                                   .n_slots = item->n_queries,
                                   .kv_head = kv_head,
                                   .out = (item->first_row + at / group) * c->args.out_stride +
                                          (kv_head * group + at % group) * c->setup.head_dim };
}

static void combine_list_queries(struct combine *c)
{
    const struct attention_item *items =
        (const void *)((const char *)c->plan + c->plan->combines_offset);

    c->queries = mem_alloc((size_t)c->setup.rows_max * c->setup.n_heads * sizeof *c->queries);
    for (uint32_t i = 0; i < c->plan->n_combines; i++)
        for (uint32_t query = 0; query < items[i].n_queries; query++)
            for (uint32_t head = 0; head < c->setup.n_kv_heads; head++)
                c->queries[c->n_queries++] = combine_query(c, &items[i], query, head);
}

/* What split number i of those that the query sees has left. */
static float *combine_partial(const struct combine *c, const struct combine_query *q, uint32_t i)
{
    size_t floats = ATTENTION_SUMS + (c->setup.head_dim + 3) / 4 * 4;
    size_t slot = q->partial + (size_t)(q->first_split + i) * q->n_slots;

    return c->args.partials + (slot * c->setup.n_kv_heads + q->kv_head) * floats;
}

/* The largest scores of a query's splits, to base 2. */
enum maxima { MAXIMA_NEAR, MAXIMA_RISING, MAXIMA_FALLING, MAXIMA_FAR, N_MAXIMA };

static float combine_largest(struct random *r, enum maxima maxima, uint32_t i)
{
    float x = random_float(r);

    if (maxima == MAXIMA_NEAR)
        return 4 * x;
    if (maxima == MAXIMA_FAR)
        return x < -0.5f ? -3e38f : x < 0.5f ? 300 * x : 1e4f * x;
    return x + 3 * (maxima == MAXIMA_RISING ? (float)i : -(float)i);
}

/* Splits are empty, as those are of which a window hides all, but for one at least. */
static void combine_fill(struct random *r, const struct combine *c, const struct combine_query *q,
                         enum maxima maxima)
{
    uint32_t kept = (uint32_t)(random_u64(r) % q->n_splits);

    for (uint32_t i = 0; i < q->n_splits; i++) {
        float *p = combine_partial(c, q, i);
        bool is_empty = i != kept && random_u64(r) % 3 == 0;
        p[0] = is_empty ? -INFINITY : combine_largest(r, maxima, i);
        p[1] = is_empty ? 0 : 1 + 255 * fabsf(random_float(r));
        for (uint32_t d = 0; d < c->setup.head_dim; d++)
            p[ATTENTION_SUMS + d] = p[1] * (0.5f + random_float(r));
    }
}

static void combine_expect(double *want, const struct combine *c, const struct combine_query *q)
{
    double largest = -INFINITY, sum = 0;

    memset(want, 0, c->setup.head_dim * sizeof *want);
    for (uint32_t i = 0; i < q->n_splits; i++)
        largest = fmax(largest, combine_partial(c, q, i)[0]);
    for (uint32_t i = 0; i < q->n_splits; i++) {
        const float *p = combine_partial(c, q, i);
        double weight = exp2(p[0] - largest);
        sum += weight * p[1];
        for (uint32_t d = 0; d < c->setup.head_dim; d++)
            want[d] += weight * p[ATTENTION_SUMS + d];
    }
    for (uint32_t d = 0; d < c->setup.head_dim; d++)
        want[d] /= sum;
}

static void combine_run(void *ctx)
{
    struct combine *c = ctx;

    l1_launch("attention_combine", c->grid_x, c->setup.n_kv_heads, 1, 0, &c->args, sizeof c->args);
}

/* The plan's queries, and that nothing else was written. */
static void combine_check(const struct combine *c, struct l1_error *error)
{
    double want[ATTENTION_DECODE_DIM_MAX];
    size_t n_written = 0;

    for (uint32_t i = 0; i < c->n_queries; i++) {
        combine_expect(want, c, &c->queries[i]);
        l1_compare(error, c->args.out + c->queries[i].out, want, c->setup.head_dim, 1);
    }
    for (size_t i = 0; i < c->out_bytes / sizeof(float); i++)
        n_written += bits_of_float(c->args.out[i]) != 0xffffffff;
    assert_int_equal(n_written, (size_t)c->n_queries * c->setup.head_dim);
}

/* As of a step before: scores that beat all others.  (NaN is the least of all.) */
static float *combine_left_over(size_t bytes)
{
    float *p = l1_alloc(bytes);

    for (size_t i = 0; i < bytes / sizeof *p; i++)
        p[i] = 1e30f;
    return p;
}

static struct combine combine_new(const struct rig_shape *s, const struct batch *batch)
{
    struct combine c = { .setup = { .n_heads = s->n_heads,
                                    .n_kv_heads = s->n_kv_heads,
                                    .head_dim = s->head_dim,
                                    .page_tokens = s->page_tokens,
                                    .kv = s->format,
                                    .rows_max = batch->n_rows,
                                    .seqs_max = batch->n_seqs,
                                    .positions_max = ATTENTION_POSITIONS_MAX,
                                    .slots_max = ATTENTION_SLOTS,
                                    .tile_rows_min = ATTENTION_NO_TILES,
                                    .is_grouped = s->n_heads / s->n_kv_heads > 7 } };

    c.plan = rig_plan(&c.setup, batch);
    /* q and the pages are NULL: whoever touches them is seen. */
    c.args = (struct attention_args){ .plan = c.plan,
                                      .out_stride = (size_t)s->n_heads * s->head_dim + 5,
                                      .n_heads = s->n_heads,
                                      .n_kv_heads = s->n_kv_heads,
                                      .head_dim = s->head_dim,
                                      .page_tokens = s->page_tokens,
                                      .window = s->window };
    c.out_bytes = batch->n_rows * c.args.out_stride * sizeof(float);
    c.args.out = l1_alloc(c.out_bytes);
    c.args.partials = combine_left_over(attention_plan_limits(&c.setup, 0).partial_bytes);
    combine_list_queries(&c);
    return c;
}

/* A block for each item of the plan, one for all, and more than there is work for. */
static void check_combine(struct random *r, const struct rig_shape *s, const struct batch *batch,
                          enum maxima maxima, struct l1_error *error)
{
    struct combine c = combine_new(s, batch);
    const uint32_t grids[] = { c.plan->n_combines, 1, c.plan->n_combines + 3 };

    for (uint32_t i = 0; i < c.n_queries; i++)
        combine_fill(r, &c, &c.queries[i], maxima);
    for (size_t i = 0; i < N(grids); i++) {
        c.grid_x = grids[i];
        l1_run_in_orders(combine_run, &c, c.args.out, c.out_bytes);
        combine_check(&c, error);
    }
    free(c.queries);
    l1_free(c.args.partials);
    l1_free(c.args.out);
    l1_free(c.plan);
}

/* What a query does not see is left over: splits before its window, and those that only drafts behind it see. */
static void combined_splits_match_double_precision(void **state)
{
    static const struct rig_shape shapes[] = {
        { 2, 2, 128, 16, KV_F16, 0, 0 },    { 4, 2, 64, 16, KV_F16, 600, 0 },
        { 7, 1, 96, 16, KV_F16, 0, 0 },     { 3, 1, 80, 16, KV_F16, 513, 0 },
        { 1, 1, 256, 16, KV_F16, 0, 0 },    { 2, 2, 32, 16, KV_F16, 1, 0 },
        { 1, 1, 512, 16, KV_F16, 0, 0 },    { 10, 2, 6, 16, KV_F16, 0, 0 },
        { 1, 1, 130, 16, KV_F16, 1024, 0 }, { 8, 1, 128, 16, KV_F16, 0, 0 },
        { 20, 1, 64, 16, KV_F16, 700, 0 },  { 1, 1, 1, 16, KV_F16, 0, 0 },
    };
    static const uint32_t no_pages[1];
    static const struct rig_shape one = { 1, 1, 32, 16, KV_F16, 0, 0 };
    /* One split, or two; three; eight, or nine; a sequence that needs no combining; 41.  Then all slots there are. */
    static const struct batch_seq seqs[] = { { 0, 3, 511, 0, no_pages },
                                             { 3, 1, 1029, 0, no_pages },
                                             { 4, 5, 4093, 0, no_pages },
                                             { 9, 2, 20, 0, no_pages },
                                             { 11, 1, 20580, 0, no_pages } };
    static const struct batch_seq longest = { 0, 1, ATTENTION_SLOTS * ATTENTION_SPLIT_TOKENS - 1, 0,
                                              no_pages };
    static const struct batch batch = { .n_rows = 12, .n_seqs = N(seqs), .seqs = seqs };
    static const struct batch alone = { .n_rows = 1, .n_seqs = 1, .seqs = &longest };
    struct random r = random_begin("combined_splits_match_double_precision");
    struct l1_error error = { 0 };

    (void)state;
    for (enum maxima maxima = 0; maxima < N_MAXIMA; maxima++) {
        for (size_t i = 0; i < N(shapes); i++)
            check_combine(&r, &shapes[i], &batch, maxima, &error);
        check_combine(&r, &one, &alone, maxima, &error);
    }
    l1_expect("attention_combine", &error, 2e-6);
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
        cmocka_unit_test(combined_splits_match_double_precision),
        cmocka_unit_test(a_decoded_row_has_the_same_bits_in_any_batch),
        cmocka_unit_test(a_prefilled_row_has_the_same_bits_in_any_chunk),
        cmocka_unit_test(the_order_of_threads_changes_nothing),
        cmocka_unit_test(grids_larger_than_the_plan_write_nothing),
        cmocka_unit_test(every_kernel_that_a_plan_may_name_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
