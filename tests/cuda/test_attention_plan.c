/* test_attention_plan.c - work items of a step: every (row, head, split) is somebody's, and nobody's twice.
 *
 * What would break in production: a row that no block computes (its output is the step's before), and lists that
 * outgrow the buffer they were given room for. */
#include "gpu-worker/cuda/attention_plan.h"
#include "tests/check.h"

enum { BUFFER_BYTES = 1 << 20, ROWS = 300 };

static struct attention_setup setup_of(uint32_t group, uint32_t slots_max, uint32_t tile_rows_min)
{
    return (struct attention_setup){ .n_heads = 2 * group,
                                     .n_kv_heads = 2,
                                     .head_dim = 64,
                                     .page_tokens = 16,
                                     .kv = KV_F16,
                                     .rows_max = ROWS,
                                     .seqs_max = 8,
                                     .positions_max = 1 << 20,
                                     .slots_max = slots_max,
                                     .tile_rows_min = tile_rows_min };
}

static const uint32_t pages[] = { 9, 8, 7, 6, 5, 4, 3, 2, 1 };

/* Decode, drafts over a border of splits, a prompt, a chunk, decode of a short one. */
static const struct batch_seq seqs[] = { { 0, 1, 2000, 4, pages },
                                         { 1, 6, 1020, 2, pages + 1 },
                                         { 7, 130, 0, 9, pages },
                                         { 137, 20, 700, 3, pages + 3 },
                                         { 157, 1, 3, 1, pages + 8 } };
static const struct batch batch = { .n_rows = 158, .n_seqs = 5, .seqs = seqs };

static const struct attention_header *build(const struct attention_setup *s)
{
    static _Alignas(16) char buffer[BUFFER_BYTES];
    struct attention_limits limits = attention_plan_limits(s, 19);
    const struct attention_header *plan;

    assert_true(limits.plan_bytes <= BUFFER_BYTES);
    memset(buffer, 0xa5, sizeof buffer);
    plan = attention_plan_build(buffer, s, &batch);
    assert_true(plan->bytes <= limits.plan_bytes && plan->bytes % 16 == 0);
    assert_true(plan->n_items <= limits.n_items && plan->n_combines <= limits.n_combines);
    assert_true(plan->n_tiles <= limits.n_tiles);
    for (uint32_t i = plan->bytes; i < plan->bytes + 64; i++)
        assert_int_equal(buffer[i], (char)0xa5);
    return plan;
}

static const void *list(const struct attention_header *plan, uint32_t offset)
{
    assert_int_equal(offset % 16, 0);
    return (const char *)plan + offset;
}

static const struct batch_seq *seq_at(uint32_t first_row)
{
    for (uint32_t i = 0; i < batch.n_seqs; i++)
        if (seqs[i].first_row <= first_row && first_row < seqs[i].first_row + seqs[i].n_rows)
            return &seqs[i];
    fail_msg("row %u is no sequence's", first_row);
    return NULL;
}

static void assert_pages(const struct attention_header *plan, uint32_t at,
                         const struct batch_seq *q)
{
    const uint32_t *table = list(plan, plan->pages_offset);

    assert_true(at + q->n_pages <= plan->n_pages);
    assert_memory_equal(table + at, q->pages, q->n_pages * sizeof *table);
}

/* How often each query of each row is there, all of its splits being there once. */
static void count_items(const struct attention_header *plan, uint32_t group,
                        uint8_t seen[ROWS][64][4])
{
    const struct attention_item *items = list(plan, plan->items_offset);

    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct batch_seq *q = seq_at(items[i].first_row);
        assert_int_equal(items[i].first_row, q->first_row);
        assert_int_equal(items[i].position, q->start);
        assert_in_range(items[i].n_queries, 1, plan->queries_max);
        assert_true(items[i].query_begin + items[i].n_queries <= q->n_rows * group);
        assert_pages(plan, items[i].pages, q);
        for (uint32_t n = 0; n < items[i].n_queries; n++)
            for (uint32_t s = items[i].split_begin; s < items[i].split_end; s++) {
                uint32_t query = items[i].query_begin + n;
                seen[q->first_row + query / group][query % group][s]++;
            }
    }
}

static void count_tiles(const struct attention_header *plan, uint8_t rows[ROWS])
{
    const struct attention_tile *tiles = list(plan, plan->tiles_offset);

    for (uint32_t i = 0; i < plan->n_tiles; i++) {
        const struct batch_seq *q = seq_at(tiles[i].first_row);
        assert_in_range(tiles[i].n_rows, 1, ATTENTION_TILE_ROWS);
        assert_int_equal(tiles[i].position - q->start, tiles[i].first_row - q->first_row);
        assert_pages(plan, tiles[i].pages, q);
        for (uint32_t n = 0; n < tiles[i].n_rows; n++)
            rows[tiles[i].first_row + n]++;
    }
}

static void every_row_and_split_is_planned_once(void **state)
{
    static const uint32_t groups[] = { 1, 2, 3, 4, 7, 8 };
    static const uint32_t slots[] = { 0, 3, 10, 1000 };
    static const uint32_t tiles[] = { 1, 17, 64, ATTENTION_NO_TILES };
    static uint8_t seen[ROWS][64][4], rows[ROWS];

    (void)state;
    for (uint32_t n = 0; n < 6 * 4 * 4; n++) {
        uint32_t group = groups[n % 6], tile_rows_min = tiles[n / 24];
        struct attention_setup s = setup_of(group, slots[n / 6 % 4], tile_rows_min);
        const struct attention_header *plan;
        s.is_grouped = n % 5 == 0;
        plan = build(&s);
        assert_true(plan->queries_max <= (s.is_grouped ? 16u : 4u));
        memset(seen, 0, sizeof seen);
        memset(rows, 0, sizeof rows);
        count_items(plan, group, seen);
        count_tiles(plan, rows);
        for (uint32_t row = 0; row < batch.n_rows; row++) {
            const struct batch_seq *q = seq_at(row);
            bool tiled = q->n_rows >= tile_rows_min;
            assert_int_equal(rows[row], tiled);
            for (uint32_t split = 0; split < 4; split++)
                for (uint32_t h = 0; h < group; h++)
                    assert_int_equal(seen[row][h][split],
                                     !tiled && split * 512 < q->start + q->n_rows);
        }
    }
}

static void partial_sums_have_slots_of_their_own(void **state)
{
    struct attention_setup s = setup_of(3, 40, 64);
    const struct attention_header *plan = build(&s);
    const struct attention_item *items = list(plan, plan->items_offset);
    const struct attention_item *combines = list(plan, plan->combines_offset);
    uint8_t written[40 * 3] = { 0 };

    (void)state;
    for (uint32_t i = 0; i < plan->n_items; i++)
        for (uint32_t q = 0; items[i].partial != ATTENTION_WHOLE && q < items[i].n_queries; q++) {
            assert_int_equal(items[i].split_end, items[i].split_begin + 1);
            assert_true(items[i].partial + q < sizeof written);
            written[items[i].partial + q]++;
        }
    assert_true(plan->n_combines > 0);
    for (uint32_t i = 0; i < plan->n_combines; i++) {
        assert_int_equal(combines[i].split_begin, 0);
        for (uint32_t n = 0; n < combines[i].split_end * combines[i].n_queries; n++) {
            assert_int_equal(written[combines[i].partial + n], 1);
            written[combines[i].partial + n] = 2;
        }
    }
    for (uint32_t i = 0; i < sizeof written; i++)
        assert_true(written[i] == 0 || written[i] == 2);
}

static void sequences_without_slots_are_one_block(void **state)
{
    struct attention_setup s = setup_of(1, 4, 64);
    const struct attention_header *plan = build(&s);
    const struct attention_item *items = list(plan, plan->items_offset);

    (void)state;
    assert_int_equal(plan->n_combines,
                     1); /* the first has four splits, and then there are none left */
    for (uint32_t i = 4; i < plan->n_items; i++)
        assert_int_equal(items[i].partial, ATTENTION_WHOLE);
}

static void launches_are_left_out_where_there_is_nothing(void **state)
{
    struct attention_launch launches[ATTENTION_LAUNCHES];
    struct attention_setup s = setup_of(1, 0, 1);
    const struct attention_header *plan = build(&s);

    (void)state;
    assert_int_equal(attention_launches(launches, &s, plan), 1);
    assert_string_equal(launches[0].name, "attention_prefill_f16_d64");
    assert_int_equal(launches[0].grid_x, 2);
    assert_int_equal(launches[0].grid_y, plan->n_tiles);
    s.tile_rows_min = ATTENTION_NO_TILES;
    plan = build(&s);
    assert_int_equal(attention_launches(launches, &s, plan), 1);
    assert_string_equal(launches[0].name, "attention_decode_f16_d64_q4"); /* of drafts */
    s.slots_max = 100;
    plan = build(&s);
    assert_int_equal(attention_launches(launches, &s, plan), 2);
    assert_string_equal(launches[1].name, "attention_combine");
}

static void tiles_need_a_size_and_a_gpu_that_kernels_are_for(void **state)
{
    struct attention_setup s = setup_of(1, 0, 1);

    (void)state;
    assert_true(attention_has_tiles(&s, 80) && attention_has_tiles(&s, 90));
    assert_false(attention_has_tiles(&s, 75));
    s.kv = KV_I8;
    s.page_tokens = 3; /* rows of bytes do not begin where loads of eight may */
    assert_false(attention_has_tiles(&s, 80));
    s.page_tokens = 2;
    assert_true(attention_has_tiles(&s, 80));
    s.head_dim = 72;
    assert_false(attention_has_tiles(&s, 80));
}

static void pages_are_found_by_a_multiplication(void **state)
{
    (void)state;
    for (uint32_t tokens = 2; tokens <= 256; tokens++) {
        uint64_t magic = attention_page_magic(tokens);
        uint32_t last = ATTENTION_POSITIONS_MAX / tokens;
        for (uint32_t page = 0; page < last; page += 1 + page / 64) {
            assert_int_equal((uint64_t)page * tokens * magic >> 32, page);
            assert_int_equal(((uint64_t)page * tokens + tokens - 1) * magic >> 32, page);
        }
        assert_int_equal((uint64_t)(ATTENTION_POSITIONS_MAX - 1) * magic >> 32,
                         (ATTENTION_POSITIONS_MAX - 1) / tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_and_split_is_planned_once),
        cmocka_unit_test(partial_sums_have_slots_of_their_own),
        cmocka_unit_test(sequences_without_slots_are_one_block),
        cmocka_unit_test(launches_are_left_out_where_there_is_nothing),
        cmocka_unit_test(tiles_need_a_size_and_a_gpu_that_kernels_are_for),
        cmocka_unit_test(pages_are_found_by_a_multiplication),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
