/* test_kv_scales.c - what a checkpoint says of the scales of its keys and values.
 *
 * What would break in production: keys kept with the scale of the values, or of another layer; a checkpoint whose names
 * are an older tool's served without its scales; a scale that makes every key infinite. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/buf.h"
#include "gpu-worker/load/kv_scales.h"
#include "gpu-worker/load/safetensors.h"
#include "gpu-worker/ops/half.h"

enum { LAYERS = 3 };

/* A file that is being written. */
struct file {
    struct buf header, data;
};

/* shape: as JSON has it. */
static void add(struct file *f, const char *name, const char *type, const char *shape,
                const void *bytes, size_t n)
{
    buf_printf(&f->header, "%s\"model.layers.%s\":{\"dtype\":\"%s\",\"shape\":%s,",
               f->header.n ? "," : "{", name, type, shape);
    buf_printf(&f->header, "\"data_offsets\":[%zu,%zu]}", f->data.n, f->data.n + n);
    buf_add(&f->data, bytes, n);
}

static void add_scale(struct file *f, const char *name, float value)
{
    add(f, name, "F32", "[]", &value, sizeof value);
}

/* Read as LAYERS layers; the file is used up. */
static bool read_file(struct file *f, struct kv_scale *scales, uint32_t *n_found, struct err *e)
{
    struct buf whole = { 0 };
    struct tensors *ts;
    bool ok;

    buf_add_str(&f->header, f->header.n ? "}" : "{}");
    for (int i = 0; i < 8; i++)
        buf_add_char(&whole, (char)(f->header.n >> (8 * i)));
    buf_add(&whole, f->header.data, f->header.n);
    buf_add(&whole, f->data.data, f->data.n);
    ts = safetensors_parse("scales", whole.data, whole.n, e);
    if (!ts)
        fail_msg("%s", e->msg);
    ok = kv_scales_read(scales, LAYERS, ts, n_found, e);
    tensors_close(ts);
    buf_fini(&whole);
    buf_fini(&f->header);
    buf_fini(&f->data);
    return ok;
}

static void expect(struct file *f, uint32_t n_found, const float wanted[LAYERS][2])
{
    struct kv_scale scales[LAYERS];
    struct err e;
    uint32_t n;

    if (!read_file(f, scales, &n, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(n, n_found);
    for (int i = 0; i < LAYERS; i++)
        if (scales[i].k != wanted[i][0] || scales[i].v != wanted[i][1])
            fail_msg("layer %d: %g and %g, not %g and %g", i, (double)scales[i].k,
                     (double)scales[i].v, (double)wanted[i][0], (double)wanted[i][1]);
}

static void every_spelling_is_read(void **state)
{
    static const char *const spellings[][2] = {
        { "k_scale", "v_scale" },
        { "attn.k_scale", "attn.v_scale" },
        { "k_proj.k_scale", "v_proj.v_scale" },
        { "qkv_proj.k_scale", "qkv_proj.v_scale" },
        { "k_proj.output_scale", "v_proj.output_scale" },
    };
    static const float wanted[LAYERS][2] = { { 1, 1 }, { 0.5f, 0.25f }, { 1, 1 } };

    (void)state;
    for (size_t i = 0; i < sizeof spellings / sizeof *spellings; i++) {
        struct file f = { 0 };
        char name[80];
        for (int which = 0; which < 2; which++) {
            snprintf(name, sizeof name, "1.self_attn.%s", spellings[i][which]);
            add_scale(&f, name, which ? 0.25f : 0.5f);
        }
        expect(&f, 1, wanted);
    }
}

static void one_scale_alone_is_for_both(void **state)
{
    static const float wanted[LAYERS][2] = { { 3, 3 }, { 5, 5 }, { 7, 7 } };
    struct file f = { 0 };

    (void)state;
    add_scale(&f, "0.self_attn.kv_scale", 3);
    add_scale(&f, "1.self_attn.k_scale", 5);
    add_scale(&f, "2.self_attn.v_proj.v_scale", 7);
    expect(&f, 3, wanted);
}

/* Beside its own scale the older one says nothing. */
static void a_scale_of_its_own_goes_before_that_of_both(void **state)
{
    static const float wanted[LAYERS][2] = { { 2, 9 }, { 1, 1 }, { 1, 1 } };
    struct file f = { 0 };

    (void)state;
    add_scale(&f, "0.self_attn.kv_scale", 9);
    add_scale(&f, "0.self_attn.k_scale", 2);
    expect(&f, 1, wanted);
}

static void of_a_scale_for_each_head_the_largest_is_taken(void **state)
{
    static const float wanted[LAYERS][2] = { { 0.75f, 4 }, { 1, 1 }, { 1, 1 } };
    const float k[4] = { 0.125f, 0.75f, 0.5f, 0.0625f };
    const uint16_t v[2] = { float_to_bf16(4), float_to_bf16(2) };
    struct file f = { 0 };

    (void)state;
    add(&f, "0.self_attn.k_scale", "F32", "[4]", k, sizeof k);
    add(&f, "0.self_attn.v_scale", "BF16", "[2,1]", v, sizeof v);
    expect(&f, 1, wanted);
}

static void without_any_all_are_one(void **state)
{
    static const float wanted[LAYERS][2] = { { 1, 1 }, { 1, 1 }, { 1, 1 } };
    struct file f = { 0 };

    (void)state;
    add_scale(&f, "0.self_attn.k_proj.weight_scale", 3); /* of weights */
    add_scale(&f, "0.self_attn.q_scale", 3);
    add_scale(&f, "7.self_attn.k_scale", 3); /* there is no such layer */
    expect(&f, 0, wanted);
}

static void refuse(struct file *f, const char *words)
{
    struct kv_scale scales[LAYERS];
    struct err e;
    uint32_t n;

    assert_false(read_file(f, scales, &n, &e));
    assert_int_equal(e.code, ERR_MODEL);
    if (!strstr(e.msg, words))
        fail_msg("'%s' does not say '%s'", e.msg, words);
}

static void what_is_no_scale_is_refused_by_name(void **state)
{
    static const float wrong[] = { 0, -1, NAN, INFINITY, 1e-44f };
    const uint8_t code = 0x38;

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct file f = { 0 };
        add_scale(&f, "0.self_attn.k_scale", 1);
        add_scale(&f, "0.self_attn.v_scale", wrong[i]);
        refuse(&f, "'model.layers.0.self_attn.v_scale' says");
    }
    {
        struct file f = { 0 };
        add(&f, "2.self_attn.k_scale", "F8_E4M3", "[1]", &code, 1);
        refuse(&f, "'model.layers.2.self_attn.k_scale' is F8_E4M3");
    }
    {
        struct file f = { 0 };
        add(&f, "2.self_attn.k_scale", "F32", "[0]", &code, 0);
        refuse(&f, "has 0 numbers");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_spelling_is_read),
        cmocka_unit_test(one_scale_alone_is_for_both),
        cmocka_unit_test(a_scale_of_its_own_goes_before_that_of_both),
        cmocka_unit_test(of_a_scale_for_each_head_the_largest_is_taken),
        cmocka_unit_test(without_any_all_are_one),
        cmocka_unit_test(what_is_no_scale_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
