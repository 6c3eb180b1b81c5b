/* test_weights.c - planning, loading and mapping a weights segment.
 *
 * What would break in production: rows of the wrong shard, half-loaded weights taken for whole ones after a
 * crash, weights of other files served, or a stray write that damages what every rank shares. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "gpu-worker/load/weights_check.h"
#include "gpu-worker/ops/packing.h"
#include "tests/unit/checkpoint.h"

static const struct checkpoint_spec small = {
    .architecture = "LlamaForCausalLM",
    .hidden = 8,
    .inner = 12,
    .layers = 1,
    .heads = 2,
    .kv_heads = 2,
    .head_dim = 4,
    .vocab = 10,
    .dtype = DTYPE_BF16,
    .theta = 10000,
    .n_files = 1,
};

struct bench {
    struct checkpoint c;
    struct tensors *st;
    struct weights_plan plan;
    struct segment segment;
    struct threads *threads;
};

/* Rows 3..7 of the embedding, then a norm. */
static void plan_some(struct bench *b)
{
    const struct weights_source rows = {
        "model.embed_tokens.weight", 10, 8, 3, 5, DTYPE_BF16, false
    };
    const struct weights_source norm = { "model.norm.weight", 8, 0, 0, 8, DTYPE_F32, false };
    struct err e = { 0 };

    if (!weights_plan_add(&b->plan, b->st, "rows", &rows, &e) ||
        !weights_plan_add(&b->plan, b->st, "norm", &norm, &e))
        fail_msg("%s", e.msg);
}

static int set_up(void **state)
{
    static struct bench b;
    struct err e = { 0 };

    memset(&b, 0, sizeof b);
    checkpoint_make(&b.c, &small, 7);
    b.st = tensors_open(b.c.dir, &e);
    assert_non_null(b.st);
    plan_some(&b);
    b.threads = threads_new(2, &e);
    assert_true(segment_create(&b.segment, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test",
                               weights_plan_segment_bytes(&b.plan), 1, &e));
    *state = &b;
    return 0;
}

static int tear_down(void **state)
{
    struct bench *b = *state;

    threads_free(b->threads);
    weights_plan_fini(&b->plan);
    tensors_close(b->st);
    checkpoint_remove(&b->c);
    segment_close(&b->segment);
    return 0;
}

static struct hash128 layout_of(const struct bench *b)
{
    return weights_layout_hash(&b->plan, b->st, (struct hash128){ 1, 2 }, 0, 1, 0);
}

static bool open_it(struct bench *b, struct weights *w, uint32_t epoch, bool *loaded, struct err *e)
{
    return weights_open(w, fcntl(b->segment.fd, F_DUPFD_CLOEXEC, 0), &b->plan, layout_of(b), 0,
                        epoch, b->threads, loaded, e);
}

static const double *stored(const struct bench *b, const char *name, uint32_t row)
{
    for (uint32_t i = 0; i < b->c.n; i++)
        if (strcmp(b->c.tensors[i].name, name) == 0)
            return b->c.tensors[i].values + (size_t)row * b->c.tensors[i].cols;
    return NULL;
}

static void the_rows_of_the_shard_are_loaded(void **state)
{
    struct bench *b = *state;
    const struct weights_tensor *t;
    const float *norm;
    uint32_t cursor = 0;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    t = weights_find(&w, "rows", &cursor);
    assert_int_equal(t->dtype, DTYPE_BF16); /* 16-bit weights stay so */
    assert_int_equal(t->rows, 5);
    assert_int_equal(t->cols, 8);
    assert_int_equal(t->offset % 64, 0);
    for (uint32_t i = 0; i < 5; i++) {
        float row[8];
        packing_unpack_row(DTYPE_BF16, row, weights_data(&w, t), i, 8);
        for (uint32_t k = 0; k < 8; k++)
            assert_true(row[k] == stored(b, "model.embed_tokens.weight", 3 + i)[k]);
    }
    t = weights_find(&w, "norm", &cursor);
    assert_int_equal(t->dtype, DTYPE_F32); /* vectors become float */
    norm = weights_data(&w, t);
    for (uint32_t k = 0; k < 8; k++)
        assert_true(norm[k] == stored(b, "model.norm.weight", 0)[k]);
    weights_close(&w);
}

/* Files that keep rotary pairs side by side: rows 0 2 4 .. of a head are its first half. */
static void paired_rows_are_put_in_our_order(void **state)
{
    static const float values[8] = { 0, 4, 1, 5, 2, 6, 3, 7 }; /* one head of 8, or two of 4 */
    struct tensor t = { .type = TENSOR_F32, .n_dims = 2, .dims = { 8, 1 }, .data = values };

    (void)state;
    t.paired_rows = 8;
    for (uint32_t i = 0; i < 8; i++)
        assert_true(*(const float *)tensor_row(&t, i) == (float)i);
    t.paired_rows = 4;
    assert_true(*(const float *)tensor_row(&t, 1) == 1);
    assert_true(*(const float *)tensor_row(&t, 2) == 4);
    assert_true(*(const float *)tensor_row(&t, 6) == 6);
}

static void loaded_once_then_mapped(void **state)
{
    struct bench *b = *state;
    struct err e = { 0 };
    struct weights w, again;
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    assert_true(loaded);
    assert_true(open_it(b, &again, 2, &loaded, &e));
    assert_false(loaded);
    assert_int_equal(again.hdr->loader_epoch, 1);
    weights_close(&w);
    weights_close(&again);
}

/* A loader that died half-way: state LOADING, bytes half there. */
static void half_loaded_is_loaded_again(void **state)
{
    struct bench *b = *state;
    struct weights_hdr *h = (struct weights_hdr *)b->segment.hdr;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    atomic_store(&h->state, WEIGHTS_LOADING);
    h->loader_epoch = 1;
    memset(segment_at(&b->segment, WEIGHTS_DATA_ALIGN), 0xee, 100);
    assert_true(open_it(b, &w, 2, &loaded, &e));
    assert_true(loaded);
    assert_int_equal(w.hdr->state, WEIGHTS_COMMITTED);
    assert_int_equal(w.hdr->loader_epoch, 2);
    assert_true(weights_chunk_is_intact(&w, 0));
    weights_close(&w);
}

static uint32_t count_corrupt(const struct bench *b, const struct weights *w, uint32_t *first)
{
    struct weights_scan scan;

    weights_scan(w, b->threads, UINT64_MAX, &scan);
    assert_int_equal(scan.n_checked, w->hdr->n_chunks);
    *first = scan.n_corrupt > 0 ? scan.corrupt[0] : UINT32_MAX;
    free(scan.corrupt);
    return scan.n_corrupt;
}

/* Whoever computes holds a mapping that faults at a stray write; only a repair maps for writing. */
static void computing_maps_read_only(void **state)
{
    struct bench *b = *state;
    char name[64], line[256];
    struct err e = { 0 };
    struct weights w;
    bool loaded, found = false;
    FILE *maps;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    snprintf(name, sizeof name, "%llx-", (unsigned long long)(uintptr_t)w.segment.hdr);
    maps = fopen("/proc/self/maps", "re");
    while (fgets(line, sizeof line, maps))
        if (strncmp(line, name, strlen(name)) == 0)
            found = strstr(line, " r--s ") != NULL;
    fclose(maps);
    assert_true(found);
    weights_close(&w);
}

/* A bit in a matrix, in a vector, in the zeroes between: found, and put right from the files. */
static void a_flipped_bit_is_found_and_repaired(void **state)
{
    struct bench *b = *state;
    const struct weights_tensor *norm = &b->plan.tensors[1].entry;
    const uint64_t places[] = { 17, norm->offset + 5, norm->offset + norm->bytes };
    struct err e = { 0 };
    struct weights w;
    uint32_t chunk;
    bool loaded;
    char *data;

    assert_true(norm->bytes % 64 != 0); /* zeroes follow */
    assert_true(open_it(b, &w, 1, &loaded, &e));
    assert_int_equal(count_corrupt(b, &w, &chunk), 0);
    data = segment_at(&b->segment, w.hdr->data_offset);
    for (int i = 0; i < 3; i++) {
        char before = data[places[i]];
        data[places[i]] ^= 4;
        assert_int_equal(count_corrupt(b, &w, &chunk), 1);
        assert_int_equal(chunk, 0);
        assert_true(weights_repair(&w, &b->plan, chunk, &e));
        assert_int_equal(data[places[i]], before);
        assert_int_equal(count_corrupt(b, &w, &chunk), 0);
    }
    weights_close(&w);
}

/* The files changed under the same name, size and time: nothing wrong is served in silence. */
static void a_repair_from_other_bytes_fails(void **state)
{
    struct bench *b = *state;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    ((char *)segment_at(&b->segment, w.hdr->data_offset))[17] ^= 4;
    b->plan.tensors[0].first = 2; /* other rows stand for other bytes */
    assert_false(weights_repair(&w, &b->plan, 0, &e));
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "stop and start"));
    weights_close(&w);
}

static void a_damaged_list_of_checksums_means_loading_again(void **state)
{
    struct bench *b = *state;
    struct err e = { 0 };
    struct weights w;
    uint32_t chunk;
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    *(uint64_t *)segment_at(&b->segment, w.hdr->checksums_offset) ^= 1;
    weights_close(&w);
    assert_true(open_it(b, &w, 2, &loaded, &e));
    assert_true(loaded);
    assert_int_equal(count_corrupt(b, &w, &chunk), 0);
    weights_close(&w);
}

/* More than one chunk, the last one short: together they cover every byte. */
static void chunks_cover_all_bytes(void **state)
{
    const uint64_t bytes = 2 * WEIGHTS_CHUNK_BYTES + 77;

    (void)state;
    assert_int_equal(weights_chunk(bytes, 0).begin, 0);
    assert_int_equal(weights_chunk(bytes, 0).end, weights_chunk(bytes, 1).begin);
    assert_int_equal(weights_chunk(bytes, 1).end, weights_chunk(bytes, 2).begin);
    assert_int_equal(weights_chunk(bytes, 2).end, bytes);
}

/* Weights of several chunks: a scan without time looks at some, one with time at all. */
static void a_scan_ends_at_its_deadline_and_finds_every_bad_chunk(void **state)
{
    enum { CHUNKS = 40 };
    struct bench *b = *state;
    struct weights_hdr *h;
    struct weights w = { .segment.fd = -1 };
    struct weights_scan scan;
    struct segment s;
    struct err e = { 0 };
    uint64_t *sums;
    char *data;

    assert_true(segment_create(&s, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test",
                               WEIGHTS_DATA_ALIGN + CHUNKS * WEIGHTS_CHUNK_BYTES, 1, &e));
    h = (struct weights_hdr *)s.hdr;
    h->n_chunks = CHUNKS;
    h->data_offset = WEIGHTS_DATA_ALIGN;
    h->data_bytes = CHUNKS * WEIGHTS_CHUNK_BYTES;
    sums = segment_at(&s, 4096);
    data = segment_at(&s, h->data_offset);
    for (uint32_t i = 0; i < CHUNKS; i++) {
        data[i * WEIGHTS_CHUNK_BYTES] = (char)i;
        sums[i] = hash64(data + i * WEIGHTS_CHUNK_BYTES, WEIGHTS_CHUNK_BYTES, 0);
    }
    w = (struct weights){ .segment = s, .hdr = h, .checksums = sums };
    weights_scan(&w, b->threads, 0, &scan);
    assert_in_range(scan.n_checked, 1, threads_count(b->threads));
    assert_int_equal(scan.n_corrupt, 0);
    free(scan.corrupt);
    data[7 * WEIGHTS_CHUNK_BYTES + 1] = data[39 * WEIGHTS_CHUNK_BYTES + 3] = 1;
    weights_scan(&w, b->threads, UINT64_MAX, &scan);
    assert_int_equal(scan.n_checked, CHUNKS);
    assert_int_equal(scan.n_corrupt, 2);
    assert_int_equal(scan.corrupt[0], 7);
    assert_int_equal(scan.corrupt[1], 39);
    free(scan.corrupt);
    segment_close(&s);
}

static void other_files_are_refused(void **state)
{
    struct bench *b = *state;
    const struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
    struct err e = { 0 };
    struct weights w;
    char path[128];
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    weights_close(&w);
    snprintf(path, sizeof path, "%s/model.safetensors", b->c.dir);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    tensors_close(b->st);
    b->st = tensors_open(b->c.dir, &e);
    weights_plan_fini(&b->plan);
    plan_some(b);
    assert_false(open_it(b, &w, 2, &loaded, &e));
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "other files"));
}

/* Each thing that decides the bytes changes the hash. */
static void layout_hash_covers_everything(void **state)
{
    struct bench *b = *state;
    struct hash128 config = { 1, 2 };
    struct hash128 h[6];

    h[0] = weights_layout_hash(&b->plan, b->st, config, 0, 2, 0);
    h[1] = weights_layout_hash(&b->plan, b->st, config, 1, 2, 0);
    h[2] = weights_layout_hash(&b->plan, b->st, config, 0, 4, 0);
    h[3] = weights_layout_hash(&b->plan, b->st, config, 0, 2, 1);
    config.high = 3;
    h[4] = weights_layout_hash(&b->plan, b->st, config, 0, 2, 0);
    b->plan.tensors[0].first = 0; /* not in the table, but config and shard decide it */
    b->plan.tensors[0].entry.rows--;
    config.high = 2;
    h[5] = weights_layout_hash(&b->plan, b->st, config, 0, 2, 0);
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < i; k++)
            assert_true(h[i].low != h[k].low && h[i].high != h[k].high);
}

static void too_small_a_segment_is_refused(void **state)
{
    struct bench *b = *state;
    struct segment tiny;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    assert_true(segment_create(&tiny, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test", 8192, 1, &e));
    assert_false(weights_open(&w, fcntl(tiny.fd, F_DUPFD_CLOEXEC, 0), &b->plan, layout_of(b), 0, 1,
                              b->threads, &loaded, &e));
    assert_int_equal(e.code, ERR_PROTO);
    segment_close(&tiny);
    assert_true(segment_create(&tiny, SEGMENT_BOARD, 1, "test", 8192, 1, &e));
    assert_false(weights_open(&w, fcntl(tiny.fd, F_DUPFD_CLOEXEC, 0), &b->plan, layout_of(b), 0, 1,
                              b->threads, &loaded, &e));
    assert_non_null(strstr(e.msg, "kind"));
    segment_close(&tiny);
}

static void expect_plan_error(struct bench *b, const char *name, uint64_t rows, uint64_t cols,
                              const char *why)
{
    struct weights_source s = { name, rows, cols, 0, rows, DTYPE_F32, false };
    struct err e = { 0 };

    assert_false(weights_plan_add(&b->plan, b->st, "x", &s, &e));
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, why))
        fail_msg("'%s' should say '%s'", e.msg, why);
}

static void plan_checks_shapes(void **state)
{
    struct bench *b = *state;
    uint32_t before = b->plan.n;

    expect_plan_error(b, "nothing.weight", 10, 8, "missing");
    expect_plan_error(b, "lm_head.weight", 11, 8, "[10, 8]");
    expect_plan_error(b, "lm_head.weight", 10, 9, "[10, 8]");
    expect_plan_error(b, "lm_head.weight", 10, 0, "wants [10]");
    expect_plan_error(b, "model.norm.weight", 8, 1, "[8]");
    assert_int_equal(b->plan.n, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_rows_of_the_shard_are_loaded, set_up, tear_down),
        cmocka_unit_test(paired_rows_are_put_in_our_order),
        cmocka_unit_test_setup_teardown(loaded_once_then_mapped, set_up, tear_down),
        cmocka_unit_test_setup_teardown(half_loaded_is_loaded_again, set_up, tear_down),
        cmocka_unit_test_setup_teardown(computing_maps_read_only, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_flipped_bit_is_found_and_repaired, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_repair_from_other_bytes_fails, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_damaged_list_of_checksums_means_loading_again, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(chunks_cover_all_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_scan_ends_at_its_deadline_and_finds_every_bad_chunk,
                                        set_up, tear_down),
        cmocka_unit_test_setup_teardown(other_files_are_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(layout_hash_covers_everything, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_small_a_segment_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(plan_checks_shapes, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
