/* test_model_tool.c - what `llm-worker model` writes is the model it read, and what it says of one is so.
 *
 * What would break in production: a file made in an hour that answers, but worse than it must, or a damaged
 * model that is called whole. */
#include <math.h>
#include <stdio.h>

#include "common/file.h"
#include "common/json.h"
#include "common/secret.h"
#include "gpu-worker/load/gguf_family.h"
#include "gpu-worker/tool/convert.h"
#include "gpu-worker/tool/encode.h"
#include "gpu-worker/tool/tool.h"
#include "tests/check.h"
#include "tests/ops/ops_rig.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/model_rig.h"
#include "text/tokenizer.h"
#include "text/tokenizer_gguf.h"

#define DEMO    TEST_SOURCE_DIR "/models/stories-demo"
#define VECTORS TEST_SOURCE_DIR "/tests/vectors/tokenizer"

enum { PROMPT = 41, VOCAB_MAX = 4096 };

static char dir[64]; /* where files are made */
static char made[96];

static const char *const settings[] = { "kv_cache_dtype=float32", "kv_cache_bytes=4M", NULL };

static void convert(const char *from, const char *type, struct convert_report *report)
{
    struct err e;

    assert_ok(convert_model(from, made, convert_type(type), true, report, NULL, NULL, &e), e);
    assert_true(report->to_bytes > 0 && report->n_tensors > 0);
}

/* ---- families ---- */

static void logits_of(const char *model, float *logits, uint32_t *vocab_size)
{
    int32_t tokens[PROMPT];
    struct rig_seq s = { 0 };
    struct rig r;

    rig_open(&r, model, settings);
    *vocab_size = r.info.vocab_size;
    assert_true(*vocab_size <= VOCAB_MAX);
    for (uint32_t i = 0; i < PROMPT; i++)
        tokens[i] = (int32_t)((i * i * 7 + i * 3 + 5) % *vocab_size);
    rig_prefill(&r, &s, tokens, PROMPT, PROMPT);
    memcpy(logits, r.logits, *vocab_size * sizeof *logits);
    rig_close(&r);
}

static double worst(const float *a, const float *b, uint32_t n)
{
    double off = 0;

    for (uint32_t i = 0; i < n; i++)
        off = fmax(off, fabs((double)a[i] - (double)b[i]));
    return off;
}

/* In its own number format nothing is lost: the same bits; as Q8_0 the largest logit moves little. */
static void check_spec(const struct checkpoint_spec *spec, const char *type, double tolerance)
{
    static float wanted[VOCAB_MAX], got[VOCAB_MAX];
    struct convert_report report;
    uint32_t n_wanted, n_got;
    struct checkpoint c;

    checkpoint_make(&c, spec, 7);
    logits_of(c.dir, wanted, &n_wanted);
    convert(c.dir, type, &report);
    logits_of(made, got, &n_got);
    assert_int_equal(n_got, n_wanted);
    if (!(worst(wanted, got, n_wanted) <= tolerance))
        fail_msg("%s: a logit is off by %g", spec->architecture, worst(wanted, got, n_wanted));
    convert(made, "q8_0", &report); /* and from there on */
    assert_true(report.relative_error < 0.01);
    logits_of(made, got, &n_got);
    if (!(worst(wanted, got, n_wanted) < 0.5))
        fail_msg("%s as Q8_0: a logit is off by %g", spec->architecture,
                 worst(wanted, got, n_wanted));
    checkpoint_remove(&c);
}

static struct checkpoint_spec spec_of(const char *architecture, enum dtype dtype)
{
    return (struct checkpoint_spec){ .architecture = architecture,
                                     .hidden = 64,
                                     .inner = 96,
                                     .layers = 2,
                                     .heads = 4,
                                     .kv_heads = 2,
                                     .head_dim = 16,
                                     .vocab = 67,
                                     .dtype = dtype,
                                     .theta = 10000,
                                     .n_files = 1 };
}

static void dense_families_keep_their_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_BF16);

    (void)state;
    spec.n_files = 2;
    check_spec(&spec, "bf16", 0);
    spec.tied = spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
    spec.linear_factor = 2;
    check_spec(&spec, "bf16", 0);
    spec = spec_of("LlamaForCausalLM", DTYPE_F32);
    spec.llama3_factor = 8;
    spec.theta = 500000;
    check_spec(&spec, "f32", 1e-4); /* divisors of frequencies are float32 in the file */
    spec = spec_of("MistralForCausalLM", DTYPE_F16);
    spec.window = 7;
    check_spec(&spec, "f16", 0);
    spec = spec_of("Qwen2ForCausalLM", DTYPE_BF16);
    spec.qkv_bias = true;
    spec.yarn_factor = 4;
    check_spec(&spec, "bf16", 0);
    spec = spec_of("Qwen3ForCausalLM", DTYPE_BF16);
    spec.tied = true;
    spec.head_dim = 20;
    check_spec(&spec, "bf16", 0);
}

static void gemma_and_phi_keep_their_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("GemmaForCausalLM", DTYPE_BF16);

    (void)state;
    spec.tied = true;
    check_spec(&spec, "bf16", 0);
    spec.architecture = "Gemma2ForCausalLM";
    spec.layers = 3;
    spec.window = 6;
    spec.query_scalar = spec.head_dim;
    spec.attn_cap = 2;
    spec.final_cap = 3;
    check_spec(&spec, "bf16", 0);
    spec = spec_of("Phi3ForCausalLM", DTYPE_F16);
    spec.kv_heads = 4;
    spec.window = 30;
    spec.longrope_original = 16;
    spec.rotary = 12;
    check_spec(&spec, "f16", 1e-5);
}

static void experts_keep_their_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("MixtralForCausalLM", DTYPE_BF16);

    (void)state;
    spec.experts = 12; /* "experts.10" sorts before "experts.2" */
    spec.experts_used = 2;
    spec.expert_inner = spec.inner = 32;
    check_spec(&spec, "bf16", 1e-5); /* the router is float32 in the file */
    spec.architecture = "Qwen2MoeForCausalLM";
    spec.experts = 5;
    spec.qkv_bias = true;
    spec.sparse_step = 1;
    spec.shared_inner = 32;
    check_spec(&spec, "bf16", 1e-5);
    spec.architecture = "Qwen3MoeForCausalLM";
    spec.qkv_bias = false;
    spec.shared_inner = 0;
    spec.norm_topk = true;
    check_spec(&spec, "bf16", 1e-5);
}

/* What GGUF has no key for is refused, and no file is left. */
static void what_cannot_be_said_is_refused(void **state)
{
    struct checkpoint_spec spec = spec_of("Gemma2ForCausalLM", DTYPE_BF16);
    struct convert_report report;
    struct checkpoint c;
    struct err e;

    (void)state;
    spec.tied = true;
    spec.layers = 3;
    spec.window = 6;
    spec.query_scalar = 5; /* the largest Gemma's alone has a key */
    spec.attn_cap = 2;
    spec.final_cap = 3;
    checkpoint_make(&c, &spec, 7);
    unlink(made);
    assert_fails(convert_model(c.dir, made, TENSOR_BF16, false, &report, NULL, NULL, &e), e,
                 ERR_MODEL, "heads");
    assert_false(file_exists(made));
    assert_fails(
        convert_model(c.dir, "/tmp/model.bin", TENSOR_BF16, false, &report, NULL, NULL, &e), e,
        ERR_CONFIG, ".gguf");
    checkpoint_remove(&c);
    assert_fails(convert_model("/nowhere", made, TENSOR_BF16, false, &report, NULL, NULL, &e), e,
                 ERR_SYS, "nowhere");
    assert_int_equal(convert_type("Q4_0"), TENSOR_Q4_0);
    assert_int_equal(convert_type("q4_k"), TENSOR_NONE);
    assert_int_equal(convert_type(""), TENSOR_NONE);
}

static void a_file_is_replaced_only_when_asked(void **state)
{
    struct convert_report report;
    struct err e;

    (void)state;
    convert(DEMO, "q8_0", &report);
    assert_fails(convert_model(DEMO, made, TENSOR_Q8_0, false, &report, NULL, NULL, &e), e,
                 ERR_CONFIG, "--force");
}

/* ---- the demo model: what rounding costs on a text ---- */

/* Mean negative log likelihood of a text's tokens. */
static double loss_of(const char *model, const struct token_list *ids)
{
    struct rig_seq s = { 0 };
    double loss = 0;
    struct rig r;

    rig_open(&r, model, settings);
    for (size_t i = 0; i + 1 < ids->n; i++) {
        double sum = 0;
        float top = -INFINITY;
        rig_prefill(&r, &s, &ids->ids[i], 1, 1);
        for (uint32_t v = 0; v < r.info.vocab_size; v++)
            top = fmaxf(top, r.logits[v]);
        for (uint32_t v = 0; v < r.info.vocab_size; v++)
            sum += exp((double)(r.logits[v] - top));
        loss -= (double)(r.logits[ids->ids[i + 1]] - top) - log(sum);
    }
    rig_close(&r);
    return loss / (double)(ids->n - 1);
}

static void rounding_costs_little_on_a_text(void **state)
{
    static const struct {
        const char *type;
        double error_max, loss_max; /* loss: above the source's */
        double bits_max;            /* of a weight, the file over */
    } types[] = { { "q8_0", 0.006, 0.01, 9.0 },
                  { "q5_1", 0.03, 0.06, 6.6 },
                  { "q4_0", 0.07, 0.15, 5.5 } };
    static const char text[] = "Once upon a time there was a small green frog named Pim. Pim lived "
                               "under a flat stone near a quiet pond. Every morning he sat on the "
                               "stone and sang to the sun.";
    struct err e;
    struct tokenizer *t = tokenizer_open(DEMO, &e), *again;
    struct token_list ids = { 0 };
    struct convert_report report;
    double loss;

    (void)state;
    assert_ok(t, e);
    assert_ok(tokenizer_encode(t, text, strlen(text), TOKENIZER_ADD_SPECIAL, &ids, &e), e);
    loss = loss_of(DEMO, &ids);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        double more;
        convert(DEMO, types[i].type, &report);
        more = loss_of(made, &ids) - loss;
        print_message("%s: rms error %.4f, loss %.4f %+.4f, %llu bytes\n", types[i].type,
                      report.relative_error, loss, more, (unsigned long long)report.to_bytes);
        assert_true(report.relative_error > 0 && report.relative_error < types[i].error_max);
        assert_true(more < types[i].loss_max && more > -types[i].loss_max);
        assert_true((double)report.to_bytes * 8 / 3476224 < types[i].bits_max);
    }
    again = tokenizer_open(made, &e);
    assert_ok(again, e);
    assert_ok(tokenizer_is_same(t, again, &e), e);
    tokenizer_close(again);
    tokenizer_close(t);
    token_list_fini(&ids);
}

/* ---- rounding ---- */

static double squares(const float *x, const float *y, uint64_t n)
{
    double sum = 0;

    for (uint64_t i = 0; i < n; i++)
        sum += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
    return sum;
}

/* What already is of a type comes back, and a fitted block is no worse than the plain one. */
static void blocks_are_rounded_to_what_is_nearest(void **state)
{
    static const struct {
        enum tensor_type type;
        double rms_max; /* of numbers between -1 and 1 */
    } types[] = { { TENSOR_F32, 0 },     { TENSOR_F16, 2e-4 },    { TENSOR_BF16, 2e-3 },
                  { TENSOR_Q8_0, 3e-3 }, { TENSOR_Q5_1, 0.0195 }, { TENSOR_Q5_0, 0.0195 },
                  { TENSOR_Q4_1, 0.04 }, { TENSOR_Q4_0, 0.04 } };
    enum { N = 32 * 200 };
    static float x[N], y[N], z[N];
    static char coded[N * 4];
    struct random r = { 5 };

    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = (float)(random_u64(&r) % 20001) / 10000 - 1;
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        encode_row(types[t].type, coded, x, N);
        tensor_type_to_float(types[t].type, y, coded, N);
        if (sqrt(squares(x, y, N) / N) > types[t].rms_max)
            fail_msg("%s: rms %g", tensor_type_name(types[t].type), sqrt(squares(x, y, N) / N));
        encode_row(types[t].type, coded, y, N);
        tensor_type_to_float(types[t].type, z, coded, N);
        if (squares(y, z, N) > squares(x, y, N) * 0.05)
            fail_msg("%s: its own numbers move by rms %g", tensor_type_name(types[t].type),
                     sqrt(squares(y, z, N) / N));
    }
}

static void extremes_are_numbers_too(void **state)
{
    static const float blocks[][2] = {
        { 0, 0 }, { 1, 1 }, { -3e38f, 3e38f }, { 1e-30f, -1e-30f }, { 65504, 0 }, { -5, -5.0001f },
    };
    static const enum tensor_type types[] = { TENSOR_F16,  TENSOR_Q8_0, TENSOR_Q5_1,
                                              TENSOR_Q5_0, TENSOR_Q4_1, TENSOR_Q4_0 };
    float x[32], y[32];
    char coded[128];

    (void)state;
    for (size_t b = 0; b < sizeof blocks / sizeof *blocks; b++)
        for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
            for (int i = 0; i < 32; i++)
                x[i] = blocks[b][i % 2];
            encode_row(types[t], coded, x, 32);
            tensor_type_to_float(types[t], y, coded, 32);
            for (int i = 0; i < 32; i++)
                assert_true(isfinite(y[i]));
            if (b == 0)
                assert_true(y[0] == 0 && y[31] == 0);
        }
}

/* ---- names ---- */

static void names_go_there_and_back(void **state)
{
    static const struct {
        const char *architecture, *hf, *gguf;
        int32_t expert;
    } names[] = {
        { "LlamaForCausalLM", "model.embed_tokens.weight", "token_embd.weight", -1 },
        { "LlamaForCausalLM", "model.layers.31.self_attn.q_proj.bias", "blk.31.attn_q.bias", -1 },
        { "MistralForCausalLM", "lm_head.weight", "output.weight", -1 },
        { "MixtralForCausalLM", "model.layers.2.block_sparse_moe.experts.7.w3.weight",
          "blk.2.ffn_up_exps.weight", 7 },
        { "Qwen3MoeForCausalLM", "model.layers.2.mlp.experts.120.down_proj.weight",
          "blk.2.ffn_down_exps.weight", 120 },
        { "Qwen2MoeForCausalLM", "model.layers.0.mlp.shared_expert.up_proj.weight",
          "blk.0.ffn_up_shexp.weight", -1 },
        { "Gemma2ForCausalLM", "model.layers.0.post_attention_layernorm.weight",
          "blk.0.post_attention_norm.weight", -1 },
        { "Phi3ForCausalLM", "model.layers.0.mlp.gate_up_proj.weight", "blk.0.ffn_up.weight", -1 },
    };
    static const char *const strange[] = { "",
                                           "model.layers.0",
                                           "model.layers.x.mlp.up_proj.weight",
                                           "model.layers.0.mlp.experts.up_proj.weight",
                                           "model.layers.0.mlp.experts.99999999.up_proj.weight",
                                           "rotary.inv_freq",
                                           "model.layers.0.self_attn.q_proj" };
    char name[GGUF_HF_NAME_BYTES];
    int32_t expert;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const struct gguf_family *f = gguf_family_for(names[i].architecture);
        assert_non_null(f);
        assert_true(gguf_family_name(f, names[i].hf, name, &expert));
        assert_string_equal(name, names[i].gguf);
        assert_int_equal(expert, names[i].expert);
    }
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        assert_false(
            gguf_family_name(gguf_family_for("Qwen3MoeForCausalLM"), strange[i], name, &expert));
    assert_null(gguf_family_for("BertModel"));
}

/* ---- tokenizers ---- */

static void tokenizers_are_written_or_refused_never_changed(void **state)
{
    static const struct {
        const char *name;
        bool can;
    } cases[] = { { "llama2", false /* has NUL as a token */ },
                  { "llama3", true },
                  { "gpt2", true },
                  { "qwen2", true },
                  { "deepseek", true },
                  { "command_r", true },
                  { "tekken", true },
                  { "nfkc", false },
                  { "gpt2_prefix", false } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct gguf_out out = { 0 };
        struct err e = { 0 };
        char path[512], *json;
        struct tokenizer *t;
        bool ok;
        size_t n;
        snprintf(path, sizeof path, VECTORS "/%s/tokenizer.json", cases[i].name);
        assert_ok(file_read(path, 64 << 20, &json, &n, &e), e);
        t = tokenizer_open_json(json, n, NULL, 0, &e);
        assert_ok(t, e);
        ok = tokenizer_put_gguf(t, "llama", &out, &e);
        if (ok != cases[i].can)
            fail_msg("%s: %s", cases[i].name, ok ? "was written" : e.msg);
        assert_true(ok == (out.n_pairs > 0));
        gguf_out_fini(&out);
        tokenizer_close(t);
        free(json);
    }
}

/* ---- inspect and verify ---- */

static json_t *parse(struct buf *out)
{
    struct err e;
    json_t *v = json_parse(out->data, out->n, &e);

    assert_ok(v, e);
    buf_fini(out);
    return v;
}

static void inspect_says_what_the_model_is(void **state)
{
    struct buf out = { 0 };
    struct err e;
    json_t *v;

    (void)state;
    assert_ok(describe_model(DEMO, true, &out, &e), e);
    v = parse(&out);
    assert_string_equal(json_string_value(json_object_get(v, "architecture")), "LlamaForCausalLM");
    assert_int_equal(json_integer_value(json_object_get(v, "parameters")), 3476224);
    assert_int_equal(json_array_size(json_object_get(v, "tensors")), 47);
    /* 5 layers, keys and values, 4 heads of 32, two bytes */
    assert_int_equal(
        json_integer_value(json_object_get(json_object_get(v, "kv_bytes_per_token"), "float16")),
        5 * 2 * 4 * 32 * 2);
    json_decref(v);
    assert_fails(describe_model("/nowhere", false, &out, &e), e, ERR_SYS, "nowhere");
    assert_int_equal(out.n, 0);
    buf_fini(&out);
}

/* The finding of one check; "" when it is not there. */
static const char *finding(const json_t *v, const char *name, bool *ok)
{
    const json_t *one;
    size_t i;

    json_array_foreach (json_object_get(v, "checks"), i, one)
        if (strcmp(json_string_value(json_object_get(one, "name")), name) == 0) {
            *ok = json_is_true(json_object_get(one, "ok"));
            return json_string_value(json_object_get(one, "finding"));
        }
    return "";
}

static void expect_finding(const char *model, const char *name, bool wanted, const char *words)
{
    struct buf out = { 0 };
    bool all, ok = false;
    json_t *v;

    verify_model(model, &out, &all, NULL, NULL);
    v = parse(&out);
    if (!strstr(finding(v, name, &ok), words) || ok != wanted)
        fail_msg("%s: %s, '%s'", name, ok ? "ok" : "not ok", finding(v, name, &ok));
    assert_true(all == json_is_true(json_object_get(v, "ok")));
    assert_true(wanted || !all);
    json_decref(v);
}

static void write_at(const char *path, long at, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "r+");

    assert_non_null(f);
    assert_int_equal(fseek(f, at, SEEK_SET), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    fclose(f);
}

static void verify_finds_what_is_damaged(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_F32);
    uint8_t hash[SECRET_HASH_BYTES];
    char path[128], hex[SECRET_HEX_BYTES + 32], digits[SECRET_HEX_BYTES], *bytes;
    struct checkpoint c;
    struct err e;
    size_t n;

    (void)state;
    checkpoint_make(&c, &spec, 3);
    snprintf(path, sizeof path, "%s/model.safetensors", c.dir);
    expect_finding(c.dir, "values", true, " 0 NaN, 0 infinite");
    expect_finding(c.dir, "tokenizer", false, "tokenizer");
    expect_finding(c.dir, "checksums", true, "none");
    assert_ok(file_read(path, 1 << 24, &bytes, &n, &e), e);
    secret_hash(bytes, n, hash);
    secret_hash_hex(hash, digits);
    snprintf(hex, sizeof hex, "%s  model.safetensors\n", digits);
    test_dir_write(c.dir, "SHA256SUMS", hex, strlen(hex));
    expect_finding(c.dir, "checksums", true, "1 of 1");
    write_at(path, (long)n - 8, (float[]){ NAN, INFINITY }, 8);
    expect_finding(c.dir, "values", false, "1 NaN, 1 infinite");
    expect_finding(c.dir, "checksums", false, "SHA-256");
    assert_int_equal(truncate(path, (off_t)n - 4), 0);
    expect_finding(c.dir, "files", false, "model.safetensors");
    free(bytes);
    checkpoint_remove(&c);
}

static void a_truncated_gguf_is_no_model(void **state)
{
    struct convert_report report;
    struct err e;

    (void)state;
    convert(DEMO, "q8_0", &report);
    expect_finding(made, "values", true, "3476224 elements");
    assert_int_equal(truncate(made, (off_t)report.to_bytes - 100), 0);
    expect_finding(made, "files", false, "the file ends");
    assert_fails(convert_model(made, "/tmp/x.gguf", TENSOR_Q4_0, true, &report, NULL, NULL, &e), e,
                 ERR_MODEL, "the file ends");
}

/* NaN would become a number in most types. */
static void what_is_no_number_is_not_rounded(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_F32);
    struct convert_report report;
    struct checkpoint c;
    char path[128], *bytes;
    struct err e;
    size_t n;

    (void)state;
    checkpoint_make(&c, &spec, 3);
    snprintf(path, sizeof path, "%s/model.safetensors", c.dir);
    assert_ok(file_read(path, 1 << 24, &bytes, &n, &e), e);
    write_at(path, (long)n - 4, (float[]){ NAN }, 4);
    assert_fails(convert_model(c.dir, made, TENSOR_Q8_0, true, &report, NULL, NULL, &e), e,
                 ERR_MODEL, "NaN");
    free(bytes);
    checkpoint_remove(&c);
}

static int open_dir(void **state)
{
    (void)state;
    test_dir_make(dir);
    snprintf(made, sizeof made, "%s/made.gguf", dir);
    return 0;
}

static int close_dir(void **state)
{
    (void)state;
    test_dir_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dense_families_keep_their_bits),
        cmocka_unit_test(gemma_and_phi_keep_their_bits),
        cmocka_unit_test(experts_keep_their_bits),
        cmocka_unit_test(what_cannot_be_said_is_refused),
        cmocka_unit_test(a_file_is_replaced_only_when_asked),
        cmocka_unit_test(rounding_costs_little_on_a_text),
        cmocka_unit_test(blocks_are_rounded_to_what_is_nearest),
        cmocka_unit_test(extremes_are_numbers_too),
        cmocka_unit_test(names_go_there_and_back),
        cmocka_unit_test(tokenizers_are_written_or_refused_never_changed),
        cmocka_unit_test(inspect_says_what_the_model_is),
        cmocka_unit_test(verify_finds_what_is_damaged),
        cmocka_unit_test(a_truncated_gguf_is_no_model),
        cmocka_unit_test(what_is_no_number_is_not_rounded),
    };

    return cmocka_run_group_tests(tests, open_dir, close_dir);
}
