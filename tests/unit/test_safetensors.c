/* test_safetensors.c - headers of strangers.
 *
 * What would break in production: a crafted or cut file that makes the loader read outside its mapping, or
 * one that is silently read wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "gpu-worker/load/safetensors.h"
#include "tests/unit/checkpoint.h"

/* A file of this header and n bytes of data 0, 1, 2, ... in exact memory, so that ASan sees the end. */
static char *file_of(const char *header, size_t n_data, size_t *n)
{
    size_t length = strlen(header);
    char *bytes = malloc(8 + length + n_data);

    for (int i = 0; i < 8; i++)
        bytes[i] = (char)(length >> (8 * i));
    memcpy(bytes + 8, header, length);
    for (size_t i = 0; i < n_data; i++)
        bytes[8 + length + i] = (char)i;
    *n = 8 + length + n_data;
    return bytes;
}

static void finds_tensors_by_name(void **state)
{
    size_t n;
    char *bytes = file_of("{\"__metadata__\":{\"format\":\"pt\"},"
                          "\"b\":{\"dtype\":\"BF16\",\"shape\":[2,3],\"data_offsets\":[4,16]},"
                          "\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                          "\"c\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[16,24]}}",
                          24, &n);
    struct err e = { 0 };
    struct tensors *st = safetensors_parse("x", bytes, n, &e);
    const struct tensor *t;

    (void)state;
    assert_non_null(st);
    assert_int_equal(st->n_tensors, 3);
    t = tensors_find(st, "b");
    assert_int_equal(t->type, TENSOR_BF16);
    assert_int_equal(t->n_dims, 2);
    assert_int_equal(t->dims[0], 2);
    assert_int_equal(t->dims[1], 3);
    assert_int_equal(t->bytes, 12);
    assert_int_equal(((const char *)t->data)[0], 4);
    assert_int_equal(tensors_find(st, "a")->n_dims, 0);
    assert_int_equal(tensors_find(st, "c")->type, TENSOR_NONE);
    assert_null(tensors_find(st, "d"));
    tensors_close(st);
    free(bytes);
}

static void expect_refusal(const char *header, size_t n_data, const char *why)
{
    size_t n;
    char *bytes = file_of(header, n_data, &n);
    struct err e = { 0 };

    assert_null(safetensors_parse("bad.safetensors", bytes, n, &e));
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, why) || !strstr(e.msg, "bad.safetensors"))
        fail_msg("%s: '%s' should say '%s'", header, e.msg, why);
    free(bytes);
}

#define TENSOR(dtype, shape, offsets)                                                              \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"

static void refuses_what_does_not_fit(void **state)
{
    (void)state;
    expect_refusal(TENSOR("F32", "[2]", "[0,8]"), 7, "outside");
    expect_refusal(TENSOR("F32", "[2]", "[8,0]"), 8, "outside");
    expect_refusal(TENSOR("F32", "[2]", "[-8,0]"), 8, "outside");
    expect_refusal(TENSOR("F32", "[2]", "[0,4]"), 8, "need 8 bytes");
    expect_refusal(TENSOR("F32", "[4294967296,4294967296]", "[0,0]"), 0, "need");
    expect_refusal(TENSOR("F32", "[9223372036854775807,9223372036854775807,4]", "[0,8]"), 8,
                   "need");
    expect_refusal(TENSOR("F32", "[-1]", "[0,4]"), 4, "shape");
    expect_refusal(TENSOR("F32", "[1.5]", "[0,4]"), 4, "shape");
    expect_refusal(TENSOR("F32", "7", "[0,4]"), 4, "shape");
    expect_refusal(TENSOR("F32", "[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "shape");
    expect_refusal(TENSOR("Q4_K", "[1]", "[0,4]"), 4, "Q4_K");
    expect_refusal(TENSOR("F32", "[1]", "[0]"), 4, "data_offsets");
    expect_refusal(TENSOR("F32", "[1]", "[0,4.0]"), 4, "data_offsets");
    expect_refusal(TENSOR("F32", "[1]", "{\"a\":0}"), 4, "data_offsets");
    expect_refusal("{\"t\":[]}", 0, "dtype");
    expect_refusal("[]", 0, "not a JSON object");
    expect_refusal("{", 0, "not JSON");
    expect_refusal("{\"t\":{},\"t\":{}}", 0, "not JSON");
    expect_refusal("{\"\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, "name");
}

static void refuses_overlaps(void **state)
{
    (void)state;
    expect_refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                   "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}",
                   12, "overlap");
    expect_refusal("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                   "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                   8, "overlap");
}

static void refuses_names_without_end(void **state)
{
    char name[SAFETENSORS_NAME_MAX + 2], header[SAFETENSORS_NAME_MAX + 200];

    (void)state;
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", name);
    expect_refusal(header, 4, "name of 256 bytes");
}

/* Cut anywhere, a file is refused and nothing outside it is read (the bytes are in exact memory). */
static void refuses_every_shorter_file(void **state)
{
    size_t n;
    char *bytes = file_of(TENSOR("F32", "[2]", "[0,8]"), 8, &n);

    (void)state;
    for (size_t cut = 0; cut < n; cut++) {
        char *part = malloc(cut ? cut : 1);
        memcpy(part, bytes, cut);
        assert_null(safetensors_parse("x", part, cut, NULL));
        free(part);
    }
    memset(bytes, 0xff, 8); /* a header longer than any file */
    assert_null(safetensors_parse("x", bytes, n, NULL));
    free(bytes);
}

/* ---- directories ---- */

static void write_file(const char *dir, const char *name, const char *tensor)
{
    char header[200];
    char *bytes;
    size_t n;

    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", tensor);
    bytes = file_of(header, 4, &n);
    test_dir_write(dir, name, bytes, n);
    free(bytes);
}

static void expect_dir(const char *dir, const char *index, const char *why)
{
    struct err e = { 0 };
    struct tensors *st;

    if (index)
        test_dir_write(dir, "model.safetensors.index.json", index, strlen(index));
    st = safetensors_open(dir, &e);
    if (!why) {
        if (!st)
            fail_msg("%s", e.msg);
        assert_non_null(tensors_find(st, "a"));
        assert_non_null(tensors_find(st, "b"));
        assert_string_equal(st->files[tensors_find(st, "b")->file].name, "2.safetensors");
    } else {
        assert_null(st);
        if (!strstr(e.msg, why))
            fail_msg("%s: '%s' should say '%s'", index ? index : "no index", e.msg, why);
    }
    tensors_close(st);
}

static void index_must_tell_the_truth(void **state)
{
    char dir[64];

    (void)state;
    test_dir_make(dir);
    expect_dir(dir, NULL, "neither");
    write_file(dir, "1.safetensors", "a");
    write_file(dir, "2.safetensors", "b");
    write_file(dir, "again.safetensors", "a");
    expect_dir(dir, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", NULL);
    expect_dir(dir, "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"2.safetensors\"}}",
               "where the index says");
    expect_dir(dir, "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}",
               "where the index says");
    expect_dir(dir, "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"3.safetensors\"}}",
               "3.safetensors");
    expect_dir(dir,
               "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\","
               "\"c\":\"again.safetensors\"}}",
               "is in");
    expect_dir(dir, "{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "plain file name");
    expect_dir(dir, "{\"weight_map\":{\"a\":\".\"}}", "plain file name");
    expect_dir(dir, "{\"weight_map\":{\"a\":7}}", "plain file name");
    expect_dir(dir, "{\"weight_map\":[]}", "no \"weight_map\"");
    expect_dir(dir, "{", "not JSON");
    test_dir_remove(dir);
}

static void single_file_comes_first(void **state)
{
    struct err e = { 0 };
    struct tensors *st;
    char dir[64];

    (void)state;
    test_dir_make(dir);
    write_file(dir, "model.safetensors", "a");
    test_dir_write(dir, "model.safetensors.index.json", "{", 1);
    st = safetensors_open(dir, &e);
    assert_non_null(st);
    assert_true(st->files[0].mtime_ns > 0);
    tensors_close(st);
    test_dir_write(dir, "model.safetensors", "", 0);
    assert_null(safetensors_open(dir, &e));
    assert_non_null(strstr(e.msg, "empty"));
    test_dir_remove(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_tensors_by_name),      cmocka_unit_test(refuses_what_does_not_fit),
        cmocka_unit_test(refuses_overlaps),           cmocka_unit_test(refuses_names_without_end),
        cmocka_unit_test(refuses_every_shorter_file), cmocka_unit_test(index_must_tell_the_truth),
        cmocka_unit_test(single_file_comes_first),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
