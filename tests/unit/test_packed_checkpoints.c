/* test_packed_checkpoints.c - directories with quantised weights, as people have them, from known float models.
 *
 * What would break in production: nibbles in another order, zero points off by one, scales of the neighbouring
 * group, a shard's rows cut out of the middle of a word: all of it text that looks almost right. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/mem.h"
#include "gpu-worker/load/json_reader.h"
#include "gpu-worker/load/packed_matrix.h"
#include "gpu-worker/load/quantize.h"
#include "gpu-worker/load/tensors.h"
#include "gpu-worker/ops/e4m3.h"
#include "gpu-worker/ops/half.h"
#include "gpu-worker/tool/tool.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/model_rig.h"
#include "tests/unit/packed_writer.h"

enum { PROMPT = 19, VOCAB = 67 };

static const struct checkpoint_spec llama = {
    .architecture = "LlamaForCausalLM",
    .hidden = 64,
    .inner = 96,
    .layers = 2,
    .heads = 4,
    .kv_heads = 4,
    .head_dim = 16,
    .vocab = VOCAB,
    .dtype = DTYPE_F16,
    .theta = 10000,
    .n_files = 1,
};

static const struct checkpoint_spec phi3 = {
    .architecture = "Phi3ForCausalLM",
    .hidden = 64,
    .inner = 96,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = VOCAB,
    .dtype = DTYPE_BF16,
    .theta = 10000,
    .n_files = 1,
};

static const struct checkpoint_spec mixtral = {
    .architecture = "MixtralForCausalLM",
    .hidden = 64,
    .inner = 96,
    .layers = 2,
    .heads = 4,
    .kv_heads = 2,
    .head_dim = 16,
    .vocab = VOCAB,
    .dtype = DTYPE_F32,
    .theta = 10000,
    .experts = 4,
    .experts_used = 2,
    .expert_inner = 96,
    .n_files = 1,
};

/* A format, what its matrices are to us, and how far logits may be from the float model's (relative, root mean
 * square): some twice of what was seen. */
struct expected {
    struct pack_spec pack;
    enum tensor_type type;
    double off;
};

static const struct expected table[] = {
    { { "AWQ", PACK_AWQ, 4, 32, 0 }, TENSOR_INT4Z, 0.3 },
    { { "AWQ, one group", PACK_AWQ, 4, 128, 0 }, TENSOR_INT4Z, 0.4 },
    { { "AWQ gemv", PACK_AWQ_GEMV, 4, 32, 0 }, TENSOR_INT4Z, 0.3 },
    { { "AWQ, older file", PACK_AWQ, 4, 64, PACK_OLDER_FILE }, TENSOR_INT4Z, 0.3 },
    { { "GPTQ 4 sym", PACK_GPTQ, 4, 32, PACK_SYM }, TENSOR_INT4, 0.3 },
    { { "GPTQ 4", PACK_GPTQ, 4, 32, 0 }, TENSOR_INT4Z, 0.3 },
    { { "GPTQ 4 v2", PACK_GPTQ_V2, 4, 32, 0 }, TENSOR_INT4Z, 0.3 },
    { { "GPTQ 4, whole rows", PACK_GPTQ, 4, 0, PACK_SYM }, TENSOR_INT4, 0.4 },
    { { "GPTQ 4, groups of 16", PACK_GPTQ, 4, 16, 0 }, TENSOR_INT_MIXED, 0.3 },
    { { "GPTQ 4, desc_act", PACK_GPTQ, 4, 32, PACK_SYM | PACK_DESC_ACT }, TENSOR_INT_MIXED, 0.3 },
    { { "GPTQ 4, older file", PACK_GPTQ, 4, 32, PACK_SYM | PACK_OLDER_FILE }, TENSOR_INT4, 0.3 },
    { { "GPTQ 8 sym", PACK_GPTQ, 8, 32, PACK_SYM }, TENSOR_INT8, 0.05 },
    { { "GPTQ 8", PACK_GPTQ_V2, 8, 32, 0 }, TENSOR_INT_MIXED, 0.05 },
    { { "CT 4", PACK_CT, 4, 32, PACK_SYM | PACK_BF16 }, TENSOR_INT4, 0.3 },
    { { "CT 4, zero points", PACK_CT, 4, 32, 0 }, TENSOR_INT4Z, 0.3 },
    { { "CT 4, actorder", PACK_CT, 4, 32, PACK_SYM | PACK_DESC_ACT }, TENSOR_INT_MIXED, 0.3 },
    { { "CT 8", PACK_CT, 8, 0, PACK_SYM | PACK_BF16 }, TENSOR_INT8, 0.05 },
    { { "CT int8", PACK_CT_INT8, 8, 0, PACK_SYM | PACK_BF16 }, TENSOR_INT8, 0.05 },
    { { "FP8", PACK_FP8, 8, 0, 0 }, TENSOR_FP8_ROWS, 0.12 },
    { { "FP8, a scale a row", PACK_FP8_ROWS, 8, 0, 0 }, TENSOR_FP8_ROWS, 0.12 },
    { { "FP8, blocks", PACK_FP8_BLOCKS, 8, 48, 0 }, TENSOR_FP8, 0.12 },
};

enum { N_FORMATS = sizeof table / sizeof *table };

/* ---- a checkpoint, packed ---- */

static void make(struct checkpoint *c, const struct checkpoint_spec *spec,
                 const struct pack_spec *format)
{
    checkpoint_make(c, spec, 42);
    packed_writer_checkpoint(c, format);
}

/* ---- tensors ---- */

static struct tensors *open_tensors(const struct checkpoint *c)
{
    struct err e;
    struct tensors *ts = tensors_open(c->dir, &e);

    if (!ts)
        fail_msg("%s", e.msg);
    return ts;
}

static void expect_values(const struct checkpoint_tensor *wanted, const struct tensor *t,
                          const char *label)
{
    size_t n = (size_t)wanted->rows * wanted->cols;
    float *y = mem_alloc(n * sizeof *y);

    tensor_to_float(t, (struct tensor_part){ 0, wanted->rows, 0, wanted->cols }, y);
    for (size_t i = 0; i < n; i++)
        if (y[i] != (float)wanted->values[i])
            fail_msg("%s: '%s' row %zu column %zu is %g, wanted %g", label, t->name,
                     i / wanted->cols, i % wanted->cols, (double)y[i], wanted->values[i]);
    free(y);
}

/* As codes and numbers: exact, but for a minimum that was rounded to float16. */
static void expect_codes(const struct checkpoint_tensor *wanted, const struct tensor *t)
{
    uint32_t per_block = tensor_type_numbers(t->type), blocks = (wanted->cols + 31) / 32;
    size_t n = (size_t)wanted->rows * wanted->cols;
    int8_t *codes = mem_alloc(n);
    uint16_t *numbers = mem_alloc(wanted->rows * blocks * per_block * sizeof *numbers);

    tensor_to_codes(t, (struct tensor_part){ 0, wanted->rows, 0, wanted->cols }, codes, numbers);
    for (size_t i = 0; i < n; i++) {
        const uint16_t *block =
            numbers + (i / wanted->cols * blocks + i % wanted->cols / 32) * per_block;
        double min = per_block == 2 ? (double)f16_to_float(block[1]) : 0;
        double got = (double)f16_to_float(block[0]) * codes[i] + min;
        assert_true(fabs(got - wanted->values[i]) <= fabs(min) / 2048);
        assert_true(t->type != TENSOR_INT4Z || (codes[i] >= 0 && codes[i] <= 15));
        assert_true(t->type != TENSOR_INT4 || (codes[i] >= -8 && codes[i] <= 7));
    }
    free(codes);
    free(numbers);
}

/* Of a shard: bytes as they are, and the scale of each row as a float. */
static void expect_fp8_codes(const struct checkpoint_tensor *wanted, const struct tensor *t)
{
    struct tensor_part part = { 3, wanted->rows - 5, 17, wanted->cols - 20 };
    int8_t *codes = mem_alloc((size_t)part.n_rows * part.n_cols);
    uint16_t *numbers = mem_alloc((size_t)part.n_rows * 2 * sizeof *numbers);

    tensor_to_codes(t, part, codes, numbers);
    for (uint32_t r = 0; r < part.n_rows; r++) {
        float scale;
        memcpy(&scale, numbers + (size_t)2 * r, sizeof scale);
        for (uint32_t c = 0; c < part.n_cols; c++)
            assert_true(scale * e4m3_to_float((uint8_t)codes[r * part.n_cols + c]) ==
                        (float)wanted->values[(3 + r) * wanted->cols + 17 + c]);
    }
    free(codes);
    free(numbers);
}

/* Rows that begin and end inside a word, columns from a block on: what a shard is. */
static void expect_part(const struct checkpoint_tensor *wanted, const struct tensor *t)
{
    struct tensor_part part = { 5, 14, 32, wanted->cols - 32 - 3 };
    uint32_t per_block = tensor_type_numbers(t->type), blocks = (part.n_cols + 31) / 32;
    uint32_t all_blocks = (wanted->cols + 31) / 32;
    float *y = mem_alloc(part.n_rows * part.n_cols * sizeof *y);
    int8_t *codes = mem_alloc(part.n_rows * part.n_cols), *all;
    uint16_t *numbers = mem_alloc(part.n_rows * blocks * 4), *all_numbers;

    tensor_to_float(t, part, y);
    for (uint32_t r = 0; r < part.n_rows; r++)
        for (uint32_t c = 0; c < part.n_cols; c++)
            assert_true(y[r * part.n_cols + c] ==
                        (float)wanted->values[(5 + r) * wanted->cols + 32 + c]);
    if (per_block > 0) {
        all = mem_alloc((size_t)wanted->rows * wanted->cols);
        all_numbers = mem_alloc(wanted->rows * all_blocks * 4);
        tensor_to_codes(t, (struct tensor_part){ 0, wanted->rows, 0, wanted->cols }, all,
                        all_numbers);
        tensor_to_codes(t, part, codes, numbers);
        for (uint32_t r = 0; r < part.n_rows; r++) {
            assert_memory_equal(codes + r * part.n_cols, all + (5 + r) * wanted->cols + 32,
                                part.n_cols);
            assert_memory_equal(numbers + r * blocks * per_block,
                                all_numbers + ((5 + r) * all_blocks + 1) * per_block,
                                blocks * per_block * 2);
        }
        free(all);
        free(all_numbers);
    }
    free(y);
    free(codes);
    free(numbers);
}

static void every_format_decodes_to_what_it_says(void **state)
{
    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        struct checkpoint c;
        struct tensors *ts;
        make(&c, &llama, &table[f].pack);
        ts = open_tensors(&c);
        assert_int_equal(ts->n_tensors, c.n); /* parts are gone, matrices there */
        for (uint32_t i = 0; i < c.n; i++) {
            const struct tensor *t = tensors_find(ts, c.tensors[i].name);
            assert_non_null(t);
            if (!packed_writer_packs(&c.tensors[i]))
                continue;
            if (t->type != table[f].type)
                fail_msg("%s: '%s' is %s, wanted %s", table[f].pack.label, t->name,
                         tensor_type_name(t->type), tensor_type_name(table[f].type));
            expect_values(&c.tensors[i], t, table[f].pack.label);
            if (tensor_type_numbers(t->type) > 0)
                expect_codes(&c.tensors[i], t);
            if (t->type == TENSOR_FP8_ROWS)
                expect_fp8_codes(&c.tensors[i], t);
            expect_part(&c.tensors[i], t);
        }
        tensors_close(ts);
        checkpoint_remove(&c);
    }
}

/* ---- logits ---- */

static void prompt_of(int32_t *tokens)
{
    for (int i = 0; i < PROMPT; i++)
        tokens[i] = (i * 29 + 3) % VOCAB;
}

static void logits_of(const struct checkpoint *c, const char *setting, float *logits)
{
    struct rig r;
    struct rig_seq s = { 0 };
    int32_t tokens[PROMPT];

    prompt_of(tokens);
    rig_open(&r, c->dir,
             (const char *[]){ setting, "kv_cache_dtype=float32", "kv_cache_bytes=2M", NULL });
    rig_prefill(&r, &s, tokens, PROMPT, 7);
    memcpy(logits, r.logits, VOCAB * sizeof *logits);
    rig_release(&r, &s);
    rig_close(&r);
}

/* Root mean square of the difference, as a share of the wanted's. */
static double off_by(const float *got, const double *wanted)
{
    double error = 0, power = 0;

    for (int i = 0; i < VOCAB; i++) {
        error += ((double)got[i] - wanted[i]) * ((double)got[i] - wanted[i]);
        power += wanted[i] * wanted[i];
    }
    return sqrt(error / power);
}

/* From the decoded weights' logits they are off by what rounding the input of integer products costs, and
 * rounding again where the type does. */
static void logits_are_those_of_the_decoded_weights(void **state)
{
    (void)state;
    for (int f = 0; f < N_FORMATS; f++) {
        double original[VOCAB], decoded[VOCAB], from_original, from_decoded;
        struct checkpoint c;
        int32_t tokens[PROMPT];
        float got[VOCAB];
        prompt_of(tokens);
        checkpoint_make(&c, &llama, 42);
        checkpoint_logits(&c, tokens, PROMPT, original);
        packed_writer_checkpoint(&c, &table[f].pack);
        checkpoint_logits(&c, tokens, PROMPT, decoded);
        logits_of(&c, "quantize=none", got);
        from_decoded = off_by(got, decoded);
        from_original = off_by(got, original);
        printf("%-22s off the decoded weights' logits by %.4f, the float model's by %.4f\n",
               table[f].pack.label, from_decoded, from_original);
        assert_true(from_decoded < 0.04);
        assert_true(from_original < table[f].off);
        checkpoint_remove(&c);
    }
}

/* The same codes in every packing that has zero points: the same bits, on any number of ranks. */
static void packings_of_the_same_codes_have_the_same_bits(void **state)
{
    static const struct pack_spec same[] = {
        { "AWQ", PACK_AWQ, 4, 32, 0 },
        { "AWQ gemv", PACK_AWQ_GEMV, 4, 32, 0 },
        { "GPTQ v2", PACK_GPTQ_V2, 4, 32, 0 },
        { "CT", PACK_CT, 4, 32, 0 },
    };
    static const struct checkpoint_spec *const models[] = { &llama, &phi3, &mixtral };
    float wanted[VOCAB], got[VOCAB];

    (void)state;
    for (int m = 0; m < 3; m++)
        for (int f = 0; f < 4; f++) {
            struct checkpoint c;
            make(&c, models[m], &same[f]);
            logits_of(&c, "quantize=none", f == 0 ? wanted : got);
            if (f > 0 && memcmp(wanted, got, sizeof got) != 0)
                fail_msg("%s, %s: other bits", models[m]->architecture, same[f].label);
            logits_of(&c, "tp_size=2", got);
            assert_memory_equal(wanted, got, sizeof got);
            if (m == 0) {
                logits_of(&c, "tp_size=4", got);
                assert_memory_equal(wanted, got, sizeof got);
            }
            checkpoint_remove(&c);
        }
}

/* ---- the demo model ---- */

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

enum { STEPS = 60, DEMO_VOCAB = 2048 };

static void copy_file(const char *name, const char *dir)
{
    char path[256], *bytes;
    struct err e;
    size_t n;

    snprintf(path, sizeof path, "%s/%s", DEMO, name);
    assert_true(file_read(path, 1 << 20, &bytes, &n, &e));
    test_dir_write(dir, name, bytes, n);
    free(bytes);
}

/* The demo model in that format, or, plain, what its numbers stand for there in float; into a fresh directory. */
static void pack_demo(char dir[64], const struct pack_spec *spec, bool plain)
{
    struct err e;
    struct tensors *ts = tensors_open(DEMO, &e);
    struct packed_writer w, unused;

    assert_non_null(ts);
    packed_writer_begin(&w, spec);
    packed_writer_begin(&unused, spec);
    for (uint32_t i = 0; i < ts->n_tensors; i++) {
        const struct tensor *t = &ts->tensors[i];
        uint32_t rows = (uint32_t)t->dims[0], cols = t->n_dims > 1 ? (uint32_t)t->dims[1] : 0;
        size_t n = (size_t)rows * (cols ? cols : 1);
        double *x = mem_alloc(n * sizeof *x), *decoded = mem_alloc(n * sizeof *x);
        float *y = mem_alloc(n * sizeof *y);
        char name[64];
        tensor_type_to_float(t->type, y, t->data, n);
        for (size_t k = 0; k < n; k++)
            x[k] = (double)y[k];
        snprintf(name, sizeof name, "%s", t->name);
        if (strstr(name, "_proj.weight")) {
            name[strlen(name) - strlen(".weight")] = '\0';
            packed_writer_matrix(plain ? &unused : &w, name, rows, cols, x, decoded);
            for (size_t k = 0; k < n; k++)
                y[k] = (float)decoded[k];
            if (plain)
                packed_writer_plain(&w, t->name, "F32", rows, cols, y, n * sizeof *y);
        } else
            packed_writer_plain(&w, name, t->type_text, rows, cols, t->data, t->bytes);
        free(x);
        free(decoded);
        free(y);
    }
    test_dir_make(dir);
    copy_file("config.json", dir);
    (plain ? packed_writer_end_plain : packed_writer_end)(&w, dir);
    buf_fini(&unused.header);
    buf_fini(&unused.data);
    tensors_close(ts);
}

/* Logits after each of the tokens. */
static float *walk(const char *dir, const char *setting, int32_t *tokens, bool follow)
{
    float *logits = mem_alloc((size_t)STEPS * DEMO_VOCAB * sizeof *logits);
    struct rig_seq s = { 0 };
    struct rig r;

    rig_open(&r, dir, (const char *[]){ setting, NULL });
    for (uint32_t i = 0; i < STEPS; i++) {
        rig_prefill(&r, &s, &tokens[i], 1, 1);
        memcpy(logits + (size_t)i * DEMO_VOCAB, r.logits, DEMO_VOCAB * sizeof *logits);
        if (follow && i + 1 < STEPS)
            tokens[i + 1] = rig_argmax(&r, 0);
    }
    rig_release(&r, &s);
    rig_close(&r);
    return logits;
}

/* Mean over the steps of sum p log(p / q). */
static double divergence(const float *p_logits, const float *q_logits)
{
    double sum = 0;

    for (uint32_t step = 0; step < STEPS; step++) {
        const float *p = p_logits + (size_t)step * DEMO_VOCAB,
                    *q = q_logits + (size_t)step * DEMO_VOCAB;
        double p_all = 0, q_all = 0, d = 0;
        for (uint32_t i = 0; i < DEMO_VOCAB; i++) {
            p_all += exp((double)p[i]);
            q_all += exp((double)q[i]);
        }
        for (uint32_t i = 0; i < DEMO_VOCAB; i++)
            d +=
                exp((double)p[i]) / p_all * ((double)p[i] - log(p_all) - (double)q[i] + log(q_all));
        sum += d;
    }
    return sum / STEPS;
}

/* How far a way of keeping the numbers is from the same numbers in float. */
static double cost(const struct pack_spec *spec, const char *setting)
{
    int32_t tokens[STEPS] = { 1 };
    char dir[64], plain_dir[64];
    float *wanted, *got;
    double kl;

    pack_demo(plain_dir, spec, true);
    wanted = walk(plain_dir, "quantize=none", tokens, true);
    pack_demo(dir, spec, false);
    got = walk(dir, setting, tokens, false);
    kl = divergence(wanted, got);
    printf("%-28s %-14s KL divergence from the same numbers in float %.6f\n", spec->label, setting,
           kl);
    free(wanted);
    free(got);
    test_dir_remove(dir);
    test_dir_remove(plain_dir);
    return kl;
}

/* Why zero points become minimums: five bits a weight, and logits as near as the exact 8.5 bits have them; the
 * rounding of the input is what costs.  desc_act and FP8, rounded again to eight bits, are near too. */
static void a_rounded_minimum_costs_next_to_nothing(void **state)
{
    static const struct pack_spec with_min = { "4 bits, zero points: I4M", PACK_AWQ, 4, 128, 0 };
    static const struct pack_spec exact = { "the same in int8: exact", PACK_CT, 4, 128, PACK_WIDE };
    static const struct pack_spec desc_act = { "4 bits, desc_act", PACK_GPTQ, 4, 128,
                                               PACK_SYM | PACK_DESC_ACT };
    static const struct pack_spec fp8 = { "FP8, a scale a row", PACK_FP8_ROWS, 8, 0, 0 };
    double min_cost = cost(&with_min, "quantize=none"), exact_cost = cost(&exact, "quantize=none");

    (void)state;
    assert_true(min_cost < 1.5 * exact_cost + 1e-4);
    assert_true(cost(&desc_act, "quantize=none") < 0.002);
    assert_true(cost(&desc_act, "quantize=int4") > 0.002); /* that much more again */
    assert_true(cost(&fp8, "quantize=none") < 0.002);
}

/* ---- the setting ---- */

static void expect_setting(const struct pack_spec *pack_as, const char *setting,
                           const char *problem)
{
    struct checkpoint c;
    struct config config;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct err e = { 0 };
    bool ok;

    checkpoint_make(&c, &llama, 42);
    if (pack_as)
        packed_writer_checkpoint(&c, pack_as);
    config_init(&config);
    assert_true(config_set(&config, "model", c.dir, "test", &e));
    assert_true(config_set(&config, "quantize", setting, "test", &e));
    ok = runtime_inspect(&config, &info, &plan, &e);
    if (ok != (problem == NULL) || (problem && !strstr(e.msg, problem)))
        fail_msg("quantize=%s: %s", setting, ok ? "taken" : e.msg);
    checkpoint_remove(&c);
}

static void a_named_format_is_checked_against_the_files(void **state)
{
    static const struct pack_spec awq = { "AWQ", PACK_AWQ, 4, 32, 0 };
    static const struct pack_spec gptq = { "GPTQ", PACK_GPTQ, 4, 32, 0 };
    static const struct pack_spec ct = { "CT", PACK_CT, 4, 32, 0 };

    (void)state;
    expect_setting(&awq, "awq", NULL);
    expect_setting(&awq, "awq_marlin", NULL);
    expect_setting(&awq, "marlin", NULL);
    expect_setting(&awq, "int8", NULL);
    expect_setting(&gptq, "gptq", NULL);
    expect_setting(&gptq, "gptq_marlin", NULL);
    expect_setting(&gptq, "marlin", NULL);
    expect_setting(&ct, "compressed-tensors", NULL);
    expect_setting(&awq, "gptq", "the model's weights are awq");
    expect_setting(&gptq, "awq", "the model's weights are gptq");
    expect_setting(&ct, "marlin", "the model's weights are compressed-tensors");
    expect_setting(NULL, "awq", "the model is no such checkpoint");
    expect_setting(NULL, "none", NULL);
}

/* desc_act and FP8 are rounded again, to what the setting says. */
static void int4_is_for_what_is_rounded_again(void **state)
{
    static const struct {
        enum tensor_type type;
        enum dtype none, int8, int4;
    } dtypes[] = {
        { TENSOR_INT4, DTYPE_I4, DTYPE_I4, DTYPE_I4 },
        { TENSOR_INT4Z, DTYPE_I4M, DTYPE_I4M, DTYPE_I4M },
        { TENSOR_INT8, DTYPE_I8, DTYPE_I8, DTYPE_I8 },
        { TENSOR_INT_MIXED, DTYPE_I8, DTYPE_I8, DTYPE_I4 },
        { TENSOR_FP8_ROWS, DTYPE_E4M3, DTYPE_I8, DTYPE_I4 },
        { TENSOR_FP8, DTYPE_I8, DTYPE_I8, DTYPE_I4 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++) {
        enum tensor_type t = dtypes[i].type;
        assert_int_equal(quantize_dtype(QUANTIZE_NONE, ROLE_MATRIX, t), dtypes[i].none);
        assert_int_equal(quantize_dtype(QUANTIZE_INT8, ROLE_MATRIX, t), dtypes[i].int8);
        assert_int_equal(quantize_dtype(QUANTIZE_INT4, ROLE_MATRIX, t), dtypes[i].int4);
        assert_int_equal(quantize_keeps_codes(t, dtypes[i].none),
                         t == TENSOR_INT4 || t == TENSOR_INT4Z || t == TENSOR_INT8 ||
                             t == TENSOR_FP8_ROWS);
    }
    /* what is looked up, or stands at the end, is int8; blocks have no scale a row */
    assert_int_equal(quantize_dtype(QUANTIZE_NONE, ROLE_EMBEDDING, TENSOR_FP8_ROWS), DTYPE_I8);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_MATRIX, TENSOR_FP8_ROWS), DTYPE_E4M3);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_MATRIX, TENSOR_FP8), DTYPE_I8);
    assert_int_equal(quantize_dtype(QUANTIZE_FP8, ROLE_MATRIX, TENSOR_INT4), DTYPE_I4);
}

/* ---- `model inspect` and `model verify` ---- */

static void expect_text(const struct buf *text, const char *wanted)
{
    if (!strstr(text->data, wanted))
        fail_msg("no %s in %s", wanted, text->data);
}

static void tools_name_the_format_and_read_every_number(void **state)
{
    static const struct pack_spec gptq = { "GPTQ", PACK_GPTQ, 4, 32, PACK_SYM };
    struct checkpoint c;
    struct buf text = { 0 };
    uint64_t elements = 0;
    char wanted[64];
    struct err e;
    bool ok;

    (void)state;
    make(&c, &llama, &gptq);
    for (uint32_t i = 0; i < c.n; i++)
        elements += (uint64_t)c.tensors[i].rows * (c.tensors[i].cols ? c.tensors[i].cols : 1);
    assert_true(describe_model(c.dir, true, &text, &e));
    expect_text(&text, "\"quantization\":\"gptq, 4 bits, groups of 32\"");
    expect_text(&text, "\"type\":\"GPTQ-4\",\"shape\":[64,96]"); /* down_proj */
    buf_clear(&text);
    verify_model(c.dir, &text, &ok, NULL, NULL);
    snprintf(wanted, sizeof wanted, "\"%llu elements, 0 NaN, 0 infinite\"",
             (unsigned long long)elements);
    expect_text(&text, wanted);
    expect_text(&text, "LlamaForCausalLM, gptq, 4 bits, groups of 32");
    buf_fini(&text);
    checkpoint_remove(&c);
}

/* ---- what is wrong ---- */

/* `from` in the file's header becomes `to`, of the same length. */
static void expect_broken(const struct pack_spec *format, const char *from, const char *to,
                          const char *problem)
{
    struct checkpoint c;
    char path[128], *bytes, *at = NULL;
    struct tensors *ts;
    struct err e = { 0 };
    size_t n;

    assert_int_equal(strlen(from), strlen(to));
    make(&c, &llama, format);
    snprintf(path, sizeof path, "%s/model.safetensors", c.dir);
    assert_true(file_read(path, 1 << 24, &bytes, &n, &e));
    for (size_t i = 8; i + strlen(from) < n && !at; i++)
        at = memcmp(bytes + i, from, strlen(from)) == 0 ? bytes + i : NULL;
    assert_non_null(at);
    memcpy(at, to, strlen(to));
    test_dir_write(c.dir, "model.safetensors", bytes, n);
    ts = tensors_open(c.dir, &e);
    if (ts || e.code != ERR_MODEL || !strstr(e.msg, problem))
        fail_msg("wanted \"%s\", found \"%s\"", problem, ts ? "no error" : e.msg);
    free(bytes);
    checkpoint_remove(&c);
}

static void parts_that_do_not_fit_are_named(void **state)
{
    static const struct pack_spec awq = { "AWQ", PACK_AWQ, 4, 32, 0 };
    static const struct pack_spec gemv = { "AWQ gemv", PACK_AWQ_GEMV, 4, 32, 0 };
    static const struct pack_spec gptq = { "GPTQ", PACK_GPTQ, 4, 32, 0 };
    static const struct pack_spec ct = { "CT", PACK_CT, 4, 32, 0 };
    static const struct pack_spec fp8 = { "FP8", PACK_FP8_ROWS, 8, 0, 0 };

    (void)state;
    expect_broken(&awq, "0.self_attn.q_proj.scales", "0.self_attn.q_proj.scalez",
                  "'model.layers.0.self_attn.q_proj.scales' is missing");
    expect_broken(&awq, "0.self_attn.q_proj.qzeros", "0.self_attn.q_proj.qzeroz",
                  "'model.layers.0.self_attn.q_proj.qzeros' is missing");
    expect_broken(
        &awq, "q_proj.scales\":{\"dtype\":\"F16\",\"shape\":[2,64]",
        "q_proj.scales\":{\"dtype\":\"F16\",\"shape\":[4,32]",
        "'model.layers.0.self_attn.q_proj.scales' has shape [4, 32], its matrix wants [2, 64]");
    expect_broken(&awq, "q_proj.qzeros\":{\"dtype\":\"I32\"", "q_proj.qzeros\":{\"dtype\":\"F32\"",
                  "q_proj.qzeros' is F32, I32 is read");
    expect_broken(&awq, "q_proj.qweight\":{\"dtype\":\"I32\",\"shape\":[64,8]",
                  "q_proj.qweight\":{\"dtype\":\"I32\",\"shape\":[512] ",
                  "q_proj.qweight' has shape [512], wanted is a matrix");
    expect_broken(&gemv, "q_proj.qzeros\":{\"dtype\":\"I32\",\"shape\":[64,1]",
                  "q_proj.qzeros\":{\"dtype\":\"I32\",\"shape\":[1,64]", "its matrix wants [64,");
    expect_broken(&gptq, "q_proj.g_idx\":{\"dtype\":\"I32\",\"shape\":[64]",
                  "q_proj.g_idx\":{\"dtype\":\"U64\",\"shape\":[32]", "g_idx' is U64, I32 is read");
    expect_broken(&ct, "q_proj.weight_scale", "q_proj.weight_stale", "weight_scale' is missing");
    expect_broken(&ct, "q_proj.weight_packed\":{\"dtype\":\"I32\",\"shape\":[64,8]",
                  "q_proj.weight_packed\":{\"dtype\":\"I32\",\"shape\":[8,64]", "its matrix wants");
    expect_broken(&fp8, "q_proj.weight_scale\":{\"dtype\":\"F32\",\"shape\":[64,1]",
                  "q_proj.weight_scale\":{\"dtype\":\"F32\",\"shape\":[2,32]", "wants [64, 1]");
}

/* The groups' table is data: a number in it becomes one that no group has. */
static void groups_that_are_not_there_are_named(void **state)
{
    static const struct pack_spec gptq = { "GPTQ", PACK_GPTQ, 4, 32, PACK_SYM | PACK_DESC_ACT };
    struct checkpoint c;
    const struct tensor *t;
    struct tensors *ts;
    struct err e = { 0 };
    char path[128];
    int32_t group = 2; /* of 2 */
    FILE *f;

    (void)state;
    make(&c, &llama, &gptq);
    ts = open_tensors(&c);
    t = tensors_find(ts, "model.layers.1.self_attn.o_proj.weight");
    assert_non_null(t->packed->group_of);
    snprintf(path, sizeof path, "%s/model.safetensors", c.dir);
    f = fopen(path, "r+e");
    assert_int_equal(
        fseek(f, (long)(t->packed->group_of - (const uint8_t *)ts->files[0].map) + 4 * 7, SEEK_SET),
        0);
    assert_int_equal(fwrite(&group, sizeof group, 1, f), 1);
    fclose(f);
    tensors_close(ts);
    assert_null(tensors_open(c.dir, &e));
    assert_non_null(strstr(e.msg,
                           "'model.layers.1.self_attn.o_proj.g_idx' puts column 7 into group 2, "
                           "there are 2"));
    checkpoint_remove(&c);
}

static void expect_config(const char *text, const char *problem)
{
    struct quantization q;
    struct err e = { 0 };
    json_t *v = json_parse(text, strlen(text), &e);
    bool ok = quantization_parse(&q, &(struct json_reader){ "config.json", v, &e });

    if (ok != (problem == NULL) || (problem && !strstr(e.msg, problem)))
        fail_msg("%s: %s", text, ok ? "taken" : e.msg);
    json_decref(v);
}

static void configurations_are_read_or_refused(void **state)
{
    (void)state;
    expect_config("{}", NULL);
    expect_config("{\"quantization_config\":null}", NULL);
    expect_config("{\"quantization_config\":7}", "\"quantization_config\" must be an object");
    expect_config("{\"quantization_config\":{\"quant_method\":\"bitsandbytes\"}}",
                  "\"quant_method\" bitsandbytes is not read");
    expect_config("{\"quantization_config\":{}}", "\"quant_method\" (none)");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":3,\"group_size\":128}}",
        "\"bits\" must be");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":5,\"group_size\":128}}",
        "\"bits\" must be 4 or 8");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":0}}",
        "\"group_size\" must be");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":-1,"
        "\"checkpoint_format\":\"marlin\"}}",
        "\"checkpoint_format\" must be \"gptq\" or \"gptq_v2\", found \"marlin\"");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":64,"
        "\"is_marlin_format\":true}}",
        "\"is_marlin_format\" must be false");
    expect_config("{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,"
                  "\"version\":\"GEMM\"}}",
                  NULL);
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":8,\"group_size\":64}}",
        "\"bits\" must be a whole number in 4..4");
    expect_config("{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,"
                  "\"version\":\"gemv_fast\"}}",
                  "\"version\" must be \"gemm\" or \"gemv\"");
    expect_config("{\"quantization_config\":{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,"
                  "\"zero_point\":false}}",
                  "\"zero_point\" must be true");
    expect_config("{\"quantization_config\":{\"quant_method\":\"compressed-tensors\","
                  "\"format\":\"nvfp4-pack-quantized\"}}",
                  "\"format\" must be \"pack-quantized\"");
    expect_config("{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}}",
                  "\"fmt\" must be \"e4m3\"");
    expect_config(
        "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}}",
        "\"weight_block_size\" must be two sizes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_decodes_to_what_it_says),
        cmocka_unit_test(logits_are_those_of_the_decoded_weights),
        cmocka_unit_test(packings_of_the_same_codes_have_the_same_bits),
        cmocka_unit_test(a_rounded_minimum_costs_next_to_nothing),
        cmocka_unit_test(a_named_format_is_checked_against_the_files),
        cmocka_unit_test(int4_is_for_what_is_rounded_again),
        cmocka_unit_test(tools_name_the_format_and_read_every_number),
        cmocka_unit_test(parts_that_do_not_fit_are_named),
        cmocka_unit_test(groups_that_are_not_there_are_named),
        cmocka_unit_test(configurations_are_read_or_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
