/* test_gguf.c - files of strangers.
 *
 * What would break in production: a crafted or cut file that makes llm-worker or llm-gateway read outside its
 * mapping or allocate without end, and a value silently read as another. */
#include <stdio.h>

#include "common/gguf.h"
#include "tests/check.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/gguf_writer.h"

static struct gguf_writer every_type(void)
{
    struct gguf_writer w = { 0 };

    gguf_put(&w, "u8", 0, "\xff", 1);
    gguf_put(&w, "i8", 1, "\xff", 1);
    gguf_put(&w, "u16", 2, "\xfe\xff", 2);
    gguf_put(&w, "i16", 3, "\xfe\xff", 2);
    gguf_put_u32(&w, "u32", 0xfffffffd);
    gguf_put(&w, "i32", 5, "\xfd\xff\xff\xff", 4);
    gguf_put_f32(&w, "f32", 0.5f);
    gguf_put_bool(&w, "yes", true);
    gguf_put_bool(&w, "no", false);
    gguf_put_string(&w, "text", "Ab");
    gguf_put(&w, "u64", 10, "\x01\0\0\0\0\0\0\x80", 8);
    gguf_put(&w, "i64", 11, "\xfc\xff\xff\xff\xff\xff\xff\xff", 8);
    gguf_put(&w, "f64", 12, "\0\0\0\0\0\0\xf8\xbf", 8);
    gguf_put_i32s(&w, "integers", (int32_t[]){ 7, -8 }, 2);
    gguf_put_f32s(&w, "numbers", (float[]){ 1.5f, 2 }, 2);
    gguf_put_strings(&w, "texts", 3);
    gguf_add_string(&w, "x", 1);
    gguf_add_string(&w, "", 0);
    gguf_add_string(&w, "yz\0", 3);
    gguf_put(&w, "empty", 9, "\x08\0\0\0\0\0\0\0\0\0\0\0", 12);
    return w;
}

/* In exact memory, so that ASan sees the end. */
static void *exact(const struct buf *b)
{
    void *copy = malloc(b->n);

    memcpy(copy, b->data, b->n);
    return copy;
}

static int64_t integer_of(const struct gguf *g, const char *key)
{
    struct err e;
    int64_t v = 0;

    assert_ok(gguf_integer(g, key, &v, &e), e);
    return v;
}

static double number_of(const struct gguf *g, const char *key)
{
    struct err e;
    double v = 0;

    assert_ok(gguf_number(g, key, &v, &e), e);
    return v;
}

static void check_scalars(const struct gguf *g)
{
    struct gguf_string s;
    struct err e;
    bool b;

    assert_int_equal(integer_of(g, "u8"), 255);
    assert_int_equal(integer_of(g, "i8"), -1);
    assert_int_equal(integer_of(g, "u16"), 65534);
    assert_int_equal(integer_of(g, "i16"), -2);
    assert_int_equal(integer_of(g, "u32"), 4294967293);
    assert_int_equal(integer_of(g, "i32"), -3);
    assert_int_equal(integer_of(g, "i64"), -4);
    assert_true(number_of(g, "f32") == 0.5 && number_of(g, "f64") == -1.5 &&
                number_of(g, "i16") == -2);
    assert_ok(gguf_bool(g, "yes", &b, &e), e);
    assert_true(b);
    assert_ok(gguf_bool(g, "no", &b, &e), e);
    assert_false(b);
    assert_ok(gguf_string(g, "text", &s, &e), e);
    assert_true(gguf_string_is(s, "Ab") && !gguf_string_is(s, "A") && !gguf_string_is(s, "Abc"));
}

static void check_arrays(const struct gguf *g)
{
    struct gguf_string s;
    struct gguf_array a;
    struct err e;
    int64_t n;
    double v;

    assert_ok(gguf_array(g, "integers", &a, &e), e);
    assert_true(a.n == 2 && gguf_array_integer(&a, 1, &n) && n == -8);
    assert_ok(gguf_array(g, "numbers", &a, &e), e);
    assert_true(a.n == 2 && gguf_array_number(&a, 0, &v) && v == 1.5);
    assert_false(gguf_array_integer(&a, 0, &n));
    assert_ok(gguf_array(g, "texts", &a, &e), e);
    assert_int_equal(a.n, 3);
    assert_true(gguf_string_is(gguf_array_next(&a), "x"));
    assert_true(gguf_string_is(gguf_array_next(&a), ""));
    s = gguf_array_next(&a);
    assert_true(s.n == 3 && memcmp(s.s, "yz\0", 3) == 0 && a.n == 0);
    assert_false(gguf_array_number(&(struct gguf_array){ GGUF_STRING, 1, a.at }, 0, &v));
    assert_ok(gguf_array(g, "empty", &a, &e), e);
    assert_true(a.n == 0 && a.of == GGUF_STRING);
}

static void reads_values_of_every_type_in_both_versions(void **state)
{
    (void)state;
    for (uint32_t version = 2; version <= 3; version++) {
        struct gguf_writer w = every_type();
        struct buf file;
        struct gguf *g;
        struct err e;
        void *bytes;

        w.version = version;
        file = gguf_finish(&w);
        bytes = exact(&file);
        g = gguf_parse("x.gguf", bytes, file.n, &e);
        if (!g)
            fail_msg("%s", e.msg);
        assert_true(gguf_has(g, "u8") && !gguf_has(g, "u") && !gguf_has(g, "u88"));
        check_scalars(g);
        check_arrays(g);
        gguf_close(g);
        free(bytes);
        buf_fini(&file);
    }
}

static void names_the_key_that_is_missing_or_of_another_type(void **state)
{
    struct gguf_writer w = every_type();
    struct buf file = gguf_finish(&w);
    struct err e;
    struct gguf *g = gguf_parse("x.gguf", file.data, file.n, &e);
    struct gguf_string s;
    struct gguf_array a;
    int64_t n;
    double v;
    bool b;

    (void)state;
    assert_non_null(g);
    assert_fails(gguf_integer(g, "absent", &n, &e), e, ERR_MODEL, "'absent' is missing");
    assert_fails(gguf_integer(g, "f32", &n, &e), e, ERR_MODEL, "'f32' has type float32");
    assert_fails(gguf_integer(g, "u64", &n, &e), e, ERR_MODEL, "'u64'"); /* above INT64_MAX */
    assert_fails(gguf_number(g, "text", &v, &e), e, ERR_MODEL, "'text' has type string");
    assert_fails(gguf_bool(g, "u8", &b, &e), e, ERR_MODEL, "wanted bool");
    assert_fails(gguf_string(g, "texts", &s, &e), e, ERR_MODEL, "has type array");
    assert_fails(gguf_array(g, "text", &a, &e), e, ERR_MODEL, "wanted array");
    gguf_close(g);
    buf_fini(&file);
}

static void finds_tensors_where_the_header_says(void **state)
{
    struct gguf_writer w = { .alignment = 64 };
    struct buf file;
    struct gguf *g;
    struct err e;

    (void)state;
    gguf_put_tensor(&w, "a", 0, 0, 1, "abcd", 4);
    gguf_put_tensor(&w, "b.weight", 30, 2, 3, "0123456789AB", 12);
    gguf_put_tensor_3d(&w, "c", 1, (uint64_t[]){ 1, 2, 3 }, "0123456789AB", 12);
    file = gguf_finish(&w);
    g = gguf_parse("x.gguf", file.data, file.n, &e);
    if (!g)
        fail_msg("%s", e.msg);
    assert_true(g->alignment == 64 && g->n_tensors == 3 && g->data_bytes == 128 + 12);
    assert_string_equal(g->tensors[1].name, "b.weight");
    assert_true(g->tensors[1].type == 30 && g->tensors[1].n_dims == 2);
    assert_true(g->tensors[1].dims[0] == 3 && g->tensors[1].dims[1] == 2 &&
                g->tensors[1].dims[2] == 1 && g->tensors[1].offset == 64);
    assert_memory_equal(g->data + g->tensors[1].offset, "0123456789AB", 12);
    assert_true(g->tensors[2].dims[2] == 3);
    gguf_close(g);
    buf_fini(&file);
}

static void any_cut_of_a_file_is_refused(void **state)
{
    struct gguf_writer w = every_type();
    struct buf file;
    size_t metadata;

    (void)state;
    gguf_put_tensor(&w, "t", 0, 0, 1, "abcd", 4);
    metadata = 24 + w.pairs.n + w.tensors.n;
    file = gguf_finish(&w);
    for (size_t n = 0; n < metadata; n++) {
        struct buf cut = { .data = file.data, .n = n };
        void *bytes = exact(&cut);
        struct err e;
        assert_fails(gguf_parse("cut.gguf", bytes, n, &e), e, ERR_MODEL, "'cut.gguf'");
        free(bytes);
    }
    buf_fini(&file);
}

static void expect_refusal(struct gguf_writer *w, const char *why)
{
    struct buf file = gguf_finish(w);
    void *bytes = exact(&file);
    struct err e;

    assert_fails(gguf_parse("bad.gguf", bytes, file.n, &e), e, ERR_MODEL, why);
    if (!strstr(e.msg, "bad.gguf"))
        fail_msg("'%s' should name the file", e.msg);
    free(bytes);
    buf_fini(&file);
}

static void refuses_values_that_do_not_fit(void **state)
{
    struct gguf_writer w = { 0 };

    (void)state;
    gguf_put(&w, "k", 13, "x", 1);
    expect_refusal(&w, "key 'k': values of type 13");
    gguf_put(&w, "k", 7, "\x02", 1);
    expect_refusal(&w, "a bool of 2");
    gguf_put(&w, "k", 8, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    expect_refusal(&w, "key 'k': the file ends");
    gguf_put(&w, "k", 9, "\x04\0\0\0\xff\xff\xff\xff\xff\xff\xff\x3f", 12); /* * 4 overflows */
    expect_refusal(&w, "key 'k': the file ends");
    gguf_put(&w, "k", 9, "\x08\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff", 12);
    expect_refusal(&w, "key 'k': the file ends");
    gguf_put(&w, "k", 9, "\x63\0\0\0\0\0\0\0\0\0\0\0", 12);
    expect_refusal(&w, "values of type 99");
    gguf_put_u32(&w, "k", 1);
    gguf_put_u32(&w, "k", 1);
    expect_refusal(&w, "'k' is there twice");
    gguf_put_u32(&w, "", 1);
    expect_refusal(&w, "a key of 0 bytes");
}

/* Arrays of one array each, `depth` of them, the innermost empty. */
static void put_nested(struct gguf_writer *w, int depth)
{
    struct buf value = { 0 };

    for (int i = 1; i < depth; i++)
        buf_add(&value, "\x09\0\0\0\x01\0\0\0\0\0\0\0", 12);
    buf_add(&value, "\x04\0\0\0\0\0\0\0\0\0\0\0", 12);
    gguf_put(w, "nested", 9, value.data, value.n);
    buf_fini(&value);
}

static void arrays_in_arrays_have_a_limit(void **state)
{
    struct gguf_writer w = { 0 };
    struct buf file;
    struct gguf *g;
    struct err e;

    (void)state;
    put_nested(&w, GGUF_DEPTH_MAX);
    file = gguf_finish(&w);
    g = gguf_parse("x.gguf", file.data, file.n, &e);
    assert_non_null(g);
    gguf_close(g);
    buf_fini(&file);
    put_nested(&w, GGUF_DEPTH_MAX + 1);
    expect_refusal(&w, "key 'nested': arrays in arrays");
}

static void refuses_headers_that_promise_too_much(void **state)
{
    struct gguf_writer w = { .n_pairs = 1 << 20 };

    (void)state;
    expect_refusal(&w, "1048576 keys");
    w.n_tensors = UINT64_MAX;
    expect_refusal(&w, "tensors in a file of 24 bytes");
    w.version = 1;
    expect_refusal(&w, "version 1; this build reads 2 and 3");
    w.version = 0x03000000;
    expect_refusal(&w, "big-endian");
}

static void refuses_tensors_that_do_not_fit(void **state)
{
    struct gguf_writer w = { 0 };

    (void)state;
    gguf_put_tensor(&w, "t", 0, 0, 0, "", 0);
    expect_refusal(&w, "tensor 't': dimension 0 of 0");
    gguf_put_tensor(&w, "t", 0, UINT64_MAX / 2, 3, "", 0);
    expect_refusal(&w, "tensor 't': dimension 1");
    gguf_put_tensor(&w, "", 0, 0, 1, "abcd", 4);
    expect_refusal(&w, "a tensor's name of 0 bytes");
    w.alignment = 48;
    expect_refusal(&w, "'general.alignment' is 48");
    w.alignment = 16;
    gguf_put_tensor(&w, "t", 0, 0, 1, "abcd", 4);
    w.tensors.data[w.tensors.n - 8] = 8; /* the offset */
    expect_refusal(&w, "tensor 't' at offset 8 of 4 bytes of data, aligned to 16");
    gguf_put_tensor(&w, "t", 0, 0, 1, "abcd", 4);
    w.tensors.data[w.tensors.n - 1] = 1;
    expect_refusal(&w, "tensor 't' at offset");
    gguf_put_tensor(&w, "t", 0, 0, 1, "abcd", 4);
    w.tensors.data[8 + 1] = 5; /* dimensions */
    expect_refusal(&w, "tensor 't': 5 dimensions");
}

/* ---- which file ---- */

static void write_empty(const char *dir, const char *name)
{
    struct gguf_writer w = { 0 };
    struct buf file = gguf_finish(&w);

    test_dir_write(dir, name, file.data, file.n);
    buf_fini(&file);
}

static void expect_located(const char *model, const char *dir, const char *name)
{
    char wanted[128], *path;
    struct err e;

    assert_ok(gguf_locate(model, &path, &e), e);
    if (!name) {
        assert_null(path);
        return;
    }
    snprintf(wanted, sizeof wanted, "%s/%s", dir, name);
    assert_string_equal(path, wanted);
    free(path);
}

static void finds_the_file_that_a_model_setting_means(void **state)
{
    char dir[64], path[128];
    struct err e;

    (void)state;
    test_dir_make(dir);
    expect_located(dir, dir, NULL);
    write_empty(dir, "mmproj-m.gguf");
    write_empty(dir, ".hidden.gguf");
    expect_located(dir, dir, NULL);
    write_empty(dir, "m-00002-of-00002.gguf");
    write_empty(dir, "m-00001-of-00002.gguf");
    expect_located(dir, dir, "m-00001-of-00002.gguf");
    snprintf(path, sizeof path, "%s/mmproj-m.gguf", dir);
    expect_located(path, dir, "mmproj-m.gguf");
    write_empty(dir, "other.gguf");
    assert_fails(gguf_locate(dir, &(char *){ NULL }, &e), e, ERR_CONFIG, "other.gguf");
    write_empty(dir, "model.safetensors");
    expect_located(dir, dir, NULL);
    snprintf(path, sizeof path, "%s/none", dir);
    assert_fails(gguf_locate(path, &(char *){ NULL }, &e), e, ERR_SYS, path);
    test_dir_remove(dir);
}

static void opens_files_and_says_what_is_none(void **state)
{
    char dir[64], path[128];
    struct gguf *g;
    struct err e;

    (void)state;
    test_dir_make(dir);
    write_empty(dir, "a.gguf");
    test_dir_write(dir, "b.gguf", "nonsense", 8);
    snprintf(path, sizeof path, "%s/a.gguf", dir);
    g = gguf_open(path, &e);
    assert_non_null(g);
    assert_true(g->bytes == 24 && g->n_pairs == 0 && g->n_tensors == 0 && g->mtime_ns > 0);
    gguf_close(g);
    path[strlen(path) - 6] = 'b';
    assert_fails(gguf_open(path, &e), e, ERR_MODEL, "not a GGUF file");
    assert_fails(gguf_open(dir, &e), e, ERR_MODEL, "not a regular file");
    gguf_close(NULL);
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_values_of_every_type_in_both_versions),
        cmocka_unit_test(names_the_key_that_is_missing_or_of_another_type),
        cmocka_unit_test(finds_tensors_where_the_header_says),
        cmocka_unit_test(any_cut_of_a_file_is_refused),
        cmocka_unit_test(refuses_values_that_do_not_fit),
        cmocka_unit_test(arrays_in_arrays_have_a_limit),
        cmocka_unit_test(refuses_headers_that_promise_too_much),
        cmocka_unit_test(refuses_tensors_that_do_not_fit),
        cmocka_unit_test(finds_the_file_that_a_model_setting_means),
        cmocka_unit_test(opens_files_and_says_what_is_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
