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

#include "common/mem.h"
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
    const struct weights_source rows = { .name = "model.embed_tokens.weight",
                                         .rows = 10,
                                         .cols = 8,
                                         .first = 3,
                                         .count = 5,
                                         .dtype = DTYPE_BF16 };
    const struct weights_source norm = {
        .name = "model.norm.weight", .rows = 8, .count = 8, .dtype = DTYPE_F32
    };
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

/* As they lie in the files, and rounded to another format. */
static void columns_are_cut_out_of_a_matrix(void **state)
{
    static const enum dtype dtypes[] = { DTYPE_BF16, DTYPE_F32 };
    struct bench *b = *state;
    struct err e = { 0 };

    for (int d = 0; d < 2; d++) {
        const struct weights_source columns = { .name = "model.embed_tokens.weight",
                                                .rows = 10,
                                                .cols = 8,
                                                .first = 1,
                                                .count = 9,
                                                .first_col = 3,
                                                .n_cols = 4,
                                                .dtype = dtypes[d] };
        struct weights_plan plan = { 0 };
        char *data;
        assert_true(weights_plan_add(&plan, b->st, "columns", &columns, &e));
        assert_int_equal(plan.tensors[0].entry.rows, 9);
        assert_int_equal(plan.tensors[0].entry.cols, 4);
        data = mem_zalloc(1, plan.data_bytes);
        weights_fill(&plan, data, (struct weights_range){ 0, plan.data_bytes });
        for (uint32_t i = 0; i < 9; i++) {
            float row[4];
            packing_unpack_row(dtypes[d], row, data, i, 4);
            for (uint32_t k = 0; k < 4; k++)
                assert_true(row[k] == stored(b, "model.embed_tokens.weight", 1 + i)[3 + k]);
        }
        free(data);
        weights_plan_fini(&plan);
    }
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
    struct weights_source s = {
        .name = name, .rows = rows, .cols = cols, .count = rows, .dtype = DTYPE_F32
    };
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

/* ---- data that lies apart, as on a GPU ---- */

/* Memory that only the table reaches. */
struct apart {
    char *data;
    uint64_t bytes;
    bool is_writable;
    int n_put, n_fail_at; /* 0: none fails */
    struct weights_place place;
};

static char *apart_stage(void *ctx, uint64_t n, struct err *e)
{
    (void)ctx, (void)e;
    return malloc(n);
}

static bool apart_put(void *ctx, char *staged, uint64_t at, uint64_t n, struct err *e)
{
    struct apart *a = ctx;
    bool ok = __atomic_add_fetch(&a->n_put, 1, __ATOMIC_RELAXED) != a->n_fail_at;

    assert_true(a->is_writable && at + n <= a->bytes);
    memcpy(a->data + at, staged, n);
    free(staged);
    return ok || err_set(e, ERR_DEVICE, 719, "the device has failed");
}

static bool apart_finish(void *ctx, struct err *e)
{
    (void)e;
    ((struct apart *)ctx)->is_writable = false;
    return true;
}

static bool apart_open_for_writing(void *ctx, struct err *e)
{
    (void)e;
    ((struct apart *)ctx)->is_writable = true;
    return true;
}

static bool apart_checksums(void *ctx, uint64_t data_bytes, uint32_t first, uint32_t n,
                            uint64_t *out, struct err *e)
{
    const struct apart *a = ctx;

    (void)e;
    for (uint32_t i = 0; i < n; i++) {
        struct weights_range r = weights_chunk(data_bytes, first + i);
        out[i] = hash64(a->data + r.begin, r.end - r.begin, 99); /* of its own kind */
    }
    return true;
}

static struct apart *apart_new(struct bench *b)
{
    static struct apart a;

    free(a.data);
    a = (struct apart){ .bytes = b->plan.data_bytes };
    a.data = malloc(a.bytes);
    memset(a.data, 0xcc, a.bytes);
    a.place = (struct weights_place){ .ctx = &a,
                                      .base = a.data,
                                      .is_fresh = true,
                                      .stage = apart_stage,
                                      .put = apart_put,
                                      .finish = apart_finish,
                                      .open_for_writing = apart_open_for_writing,
                                      .checksums = apart_checksums };
    b->plan.place = &a.place;
    return &a;
}

static int set_up_apart(void **state)
{
    struct bench *b;
    struct err e = { 0 };

    set_up(state);
    b = *state;
    b->plan.is_apart = true;
    segment_close(&b->segment);
    assert_true(segment_create(&b->segment, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test",
                               weights_plan_segment_bytes(&b->plan), 1, &e));
    apart_new(b);
    return 0;
}

static void data_apart_is_what_it_would_be_in_the_segment(void **state)
{
    struct bench *b = *state;
    struct apart *a = b->plan.place->ctx;
    struct weights_plan whole = b->plan;
    struct err e = { 0 };
    struct weights w;
    char *expected = malloc(a->bytes);
    bool loaded;

    assert_true(b->segment.bytes < WEIGHTS_DATA_ALIGN);
    assert_true(open_it(b, &w, 1, &loaded, &e));
    assert_true(loaded);
    assert_false(a->is_writable);
    assert_int_equal(w.hdr->data_offset, 0);
    assert_ptr_equal(weights_data(&w, &w.tensors[1]), a->data + w.tensors[1].offset);
    memset(expected, 0xdd, a->bytes);
    weights_fill(&whole, expected, (struct weights_range){ 0, a->bytes });
    assert_memory_equal(a->data, expected, a->bytes);
    assert_true(weights_chunk_is_intact(&w, 0));
    free(expected);
    weights_close(&w);
}

static void data_apart_is_mapped_by_the_next_worker(void **state)
{
    struct bench *b = *state;
    struct apart *a = b->plan.place->ctx;
    struct err e = { 0 };
    struct weights w;
    bool loaded;
    int n_put;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    weights_close(&w);
    a->place.is_fresh = false;
    n_put = a->n_put;
    assert_true(open_it(b, &w, 2, &loaded, &e));
    assert_false(loaded);
    assert_int_equal(a->n_put, n_put); /* not a byte */
    assert_int_equal(w.hdr->loader_epoch, 1);
    weights_close(&w);
}

/* The header outlived the memory, or the memory came anew for another layout. */
static void new_memory_is_loaded_whatever_the_header_says(void **state)
{
    struct bench *b = *state;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    weights_close(&w);
    apart_new(b);
    assert_true(open_it(b, &w, 2, &loaded, &e));
    assert_true(loaded);
    assert_true(weights_chunk_is_intact(&w, 0));
    weights_close(&w);
    ((struct weights_hdr *)b->segment.hdr)->layout_hash[1] ^= 1;
    apart_new(b);
    assert_true(open_it(b, &w, 3, &loaded, &e)); /* nobody else maps them: loaded over */
    assert_true(loaded);
    weights_close(&w);
}

static void a_device_that_fails_while_loading_leaves_it_unfinished(void **state)
{
    struct bench *b = *state;
    struct apart *a = b->plan.place->ctx;
    struct err e = { 0 };
    struct weights w;
    bool loaded;

    a->n_fail_at = 2;
    assert_false(open_it(b, &w, 1, &loaded, &e));
    assert_int_equal(e.code, ERR_DEVICE);
    assert_int_equal(((struct weights_hdr *)b->segment.hdr)->state, WEIGHTS_LOADING);
    a->place.is_fresh = false; /* kept all the same: its state says what it is worth */
    assert_true(open_it(b, &w, 2, &loaded, &e));
    assert_true(loaded);
    weights_close(&w);
}

static void a_flipped_bit_apart_is_found_and_repaired(void **state)
{
    struct bench *b = *state;
    struct apart *a = b->plan.place->ctx;
    struct err e = { 0 };
    struct weights w;
    uint32_t chunk;
    bool loaded;
    char before;

    assert_true(open_it(b, &w, 1, &loaded, &e));
    before = a->data[17];
    a->data[17] ^= 4;
    assert_int_equal(count_corrupt(b, &w, &chunk), 1);
    assert_int_equal(chunk, 0);
    assert_true(weights_repair(&w, &b->plan, chunk, &e));
    assert_int_equal(a->data[17], before);
    assert_false(a->is_writable);
    weights_close(&w);
}

/* Loading by any pieces gives the same bytes: parts of matrices, of vectors, of the zeroes between. */
static void any_range_is_filled_as_a_part_of_the_whole(void **state)
{
    struct bench *b = *state;
    uint64_t n = b->plan.data_bytes;
    char *whole = malloc(n), *part = malloc(n + 16);

    weights_fill(&b->plan, whole, (struct weights_range){ 0, n });
    for (uint64_t begin = 0; begin < n; begin += 8)
        for (uint64_t end = begin + 1; end <= n; end += 13) {
            memset(part, 0x5a, n + 16);
            weights_fill(&b->plan, part + 8, (struct weights_range){ begin, end });
            assert_memory_equal(part + 8, whole + begin, end - begin);
            assert_int_equal(part[7], 0x5a); /* and nothing beside it is touched */
            assert_int_equal(part[8 + end - begin], 0x5a);
        }
    free(whole);
    free(part);
}

/* ---- another backend's layout ---- */

static enum dtype widen(enum dtype t)
{
    return t == DTYPE_BF16 ? DTYPE_F32 : t;
}

static uint32_t one_row(enum dtype t)
{
    (void)t;
    return 1;
}

static size_t row_bytes(enum dtype t, uint32_t cols)
{
    return dtype_bytes(t, (cols + 7) / 8 * 8);
}

static void put_row(enum dtype t, void *panel, const float *rows, uint32_t n_rows, uint32_t cols)
{
    assert_int_equal(t, DTYPE_F32);
    assert_int_equal(n_rows, 1);
    memcpy(panel, rows, cols * sizeof *rows);
}

static void a_packing_decides_format_and_layout(void **state)
{
    static const struct packing plain = { .name = "plain",
                                          .version = 0,
                                          .dtype = widen,
                                          .panel_rows = one_row,
                                          .panel_bytes = row_bytes,
                                          .pack = put_row };
    struct bench *b = *state;
    struct hash128 before = layout_of(b);
    float values[5][8];

    weights_plan_fini(&b->plan);
    b->plan.packing = &plain;
    plan_some(b);
    assert_int_equal(b->plan.tensors[0].entry.dtype, DTYPE_F32); /* planned in bf16 */
    assert_int_equal(b->plan.tensors[0].entry.bytes, 5 * 8 * 4);
    assert_true(layout_of(b).low != before.low);
    weights_fill(&b->plan, (char *)values, (struct weights_range){ 0, sizeof values });
    for (uint32_t i = 0; i < 5; i++)
        for (uint32_t k = 0; k < 8; k++)
            assert_true(values[i][k] == stored(b, "model.embed_tokens.weight", 3 + i)[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_rows_of_the_shard_are_loaded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(data_apart_is_what_it_would_be_in_the_segment, set_up_apart,
                                        tear_down),
        cmocka_unit_test_setup_teardown(data_apart_is_mapped_by_the_next_worker, set_up_apart,
                                        tear_down),
        cmocka_unit_test_setup_teardown(new_memory_is_loaded_whatever_the_header_says, set_up_apart,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_device_that_fails_while_loading_leaves_it_unfinished,
                                        set_up_apart, tear_down),
        cmocka_unit_test_setup_teardown(a_flipped_bit_apart_is_found_and_repaired, set_up_apart,
                                        tear_down),
        cmocka_unit_test_setup_teardown(any_range_is_filled_as_a_part_of_the_whole, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(a_packing_decides_format_and_layout, set_up, tear_down),
        cmocka_unit_test_setup_teardown(columns_are_cut_out_of_a_matrix, set_up, tear_down),
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
