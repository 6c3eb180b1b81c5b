/* test_gguf_model.c - a model in a GGUF file computes what its HuggingFace directory computes.
 *
 * What would break in production: a model that answers, but worse, since rotary rows were left as the file has
 * them, a one was added twice, an expert was taken for another, or a key was read as another field. */
#include <math.h>
#include <stdio.h>

#include "common/file.h"
#include "gpu-worker/load/gguf_tensors.h"
#include "gpu-worker/load/model_config_gguf.h"
#include "gpu-worker/ops/half.h"
#include "tests/check.h"
#include "tests/ops/ops_rig.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/gguf_model.h"
#include "tests/unit/model_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

enum { PROMPT = 41, VOCAB_MAX = 4096 };

static const char *const settings[] = { "kv_cache_dtype=float32", "kv_cache_bytes=4M", NULL };

/* ---- logits ---- */

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

/* The model of dir as GGUF is off by at most that much; 0: the same bits. */
static void check_directory(const char *dir, double tolerance)
{
    static float wanted[VOCAB_MAX], got[VOCAB_MAX];
    uint32_t n_wanted, n_got;
    char other[64];

    test_dir_make(other);
    gguf_model_write(dir, other, "model.gguf");
    logits_of(dir, wanted, &n_wanted);
    logits_of(other, got, &n_got);
    test_dir_remove(other);
    assert_int_equal(n_got, n_wanted);
    if (!(worst(wanted, got, n_wanted) <= tolerance))
        fail_msg("a logit is off by %g", worst(wanted, got, n_wanted));
    if (tolerance == 0)
        assert_memory_equal(got, wanted, n_wanted * sizeof *got);
}

static void check_spec(const struct checkpoint_spec *spec, double tolerance)
{
    struct checkpoint c;

    checkpoint_make(&c, spec, 7);
    check_directory(c.dir, tolerance);
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

static void the_demo_model_gives_the_same_bits(void **state)
{
    (void)state;
    check_directory(DEMO, 0);
}

static void llama_gives_the_same_bits_in_every_plain_type(void **state)
{
    static const enum dtype types[] = { DTYPE_F32, DTYPE_F16, DTYPE_BF16 };

    (void)state;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct checkpoint_spec spec = spec_of("LlamaForCausalLM", types[i]);
        check_spec(&spec, 0);
    }
}

static void llama_with_biases_and_a_tied_head_gives_the_same_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_BF16);

    (void)state;
    spec.tied = spec.qkv_bias = spec.o_bias = spec.mlp_bias = true;
    spec.linear_factor = 2;
    check_spec(&spec, 0);
}

static void a_window_makes_it_mistral(void **state)
{
    struct checkpoint_spec spec = spec_of("MistralForCausalLM", DTYPE_BF16);

    (void)state;
    spec.window = 7;
    check_spec(&spec, 0);
}

static void qwen2_gives_the_same_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("Qwen2ForCausalLM", DTYPE_F16);

    (void)state;
    spec.qkv_bias = true;
    check_spec(&spec, 0);
}

/* The factors of the frequencies are rounded to float32 in the file. */
static void the_rope_of_llama_3_comes_as_a_tensor(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_F32);

    (void)state;
    spec.llama3_factor = 8;
    spec.theta = 500000;
    check_spec(&spec, 1e-4);
}

static void yarn_is_read(void **state)
{
    struct checkpoint_spec spec = spec_of("Qwen2ForCausalLM", DTYPE_BF16);

    (void)state;
    spec.qkv_bias = true;
    spec.yarn_factor = 4;
    check_spec(&spec, 0);
}

static void qwen3_gives_the_same_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("Qwen3ForCausalLM", DTYPE_BF16);

    (void)state;
    spec.tied = true;
    spec.head_dim = 20;
    check_spec(&spec, 0);
}

/* The one of 1 + w is added in the file, in float32, as we add it otherwise. */
static void gemma_gives_the_same_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("GemmaForCausalLM", DTYPE_BF16);

    (void)state;
    spec.tied = true;
    check_spec(&spec, 0);
    spec.architecture = "Gemma2ForCausalLM";
    spec.layers = 3;
    spec.window = 6;
    spec.query_scalar = spec.head_dim; /* no key for it: what all but the largest have */
    spec.attn_cap = 2;
    spec.final_cap = 3;
    check_spec(&spec, 0);
}

static void phi3_gives_the_same_bits_with_short_and_long_factors(void **state)
{
    struct checkpoint_spec spec = spec_of("Phi3ForCausalLM", DTYPE_F16);

    (void)state;
    spec.kv_heads = 4;
    spec.window = 30;
    spec.longrope_original = 16; /* long factors */
    check_spec(&spec, 0);
    spec.longrope_original = 64; /* short ones */
    spec.tied = true;
    spec.rotary = 12;
    check_spec(&spec, 0);
}

static void mixtures_of_experts_give_the_same_bits(void **state)
{
    struct checkpoint_spec spec = spec_of("MixtralForCausalLM", DTYPE_BF16);

    (void)state;
    spec.experts = 5;
    spec.experts_used = 2;
    spec.expert_inner = spec.inner = 40;
    check_spec(&spec, 0);
    spec.architecture = "Qwen2MoeForCausalLM";
    spec.qkv_bias = true;
    spec.sparse_step = 1;
    spec.shared_inner = 36;
    spec.expert_inner = 24;
    check_spec(&spec, 0);
    spec.architecture = "Qwen3MoeForCausalLM";
    spec.qkv_bias = false;
    spec.shared_inner = 0;
    spec.norm_topk = true;
    check_spec(&spec, 0);
}

/* ---- block types ---- */

struct block_type {
    enum tensor_type type;
    uint32_t number;                 /* of the format */
    int scale_at, min_at, negate_at; /* float16 in a block; -1: none */
};

static const struct block_type block_types[] = {
    { TENSOR_Q8_0, 8, 0, -1, -1 },    { TENSOR_Q4_0, 2, 0, -1, -1 },
    { TENSOR_Q4_1, 3, 0, -1, 2 },     { TENSOR_Q5_0, 6, 0, -1, -1 },
    { TENSOR_Q5_1, 7, 0, -1, 2 },     { TENSOR_Q2_K, 10, 80, 82, -1 },
    { TENSOR_Q3_K, 11, 108, -1, -1 }, { TENSOR_Q4_K, 12, 0, 2, -1 },
    { TENSOR_Q5_K, 13, 0, 2, -1 },    { TENSOR_Q6_K, 14, 208, -1, -1 },
    { TENSOR_IQ4_NL, 20, 0, -1, -1 },
};

/* Random bytes with scales between 0.001 and 0.002, and minimums of their order. */
static uint8_t *random_blocks(const struct block_type *t, uint64_t n, struct random *r)
{
    uint64_t bytes = tensor_type_bytes(t->type, n), one;
    uint8_t *b = malloc(bytes);

    for (uint64_t i = 0; i < bytes; i++)
        b[i] = (uint8_t)random_u64(r);
    one = tensor_type_bytes(t->type, tensor_type_block(t->type));
    for (uint64_t i = 0; i < bytes; i += one) {
        uint16_t scale = float_to_f16(0.001f + 0.001f * (float)(random_u64(r) % 1000) / 1000);
        uint16_t below = float_to_f16(-f16_to_float(scale) * 8);
        memcpy(b + i + t->scale_at, &scale, 2);
        if (t->min_at >= 0)
            memcpy(b + i + t->min_at, &scale, 2);
        if (t->negate_at >= 0)
            memcpy(b + i + t->negate_at, &below, 2);
    }
    return b;
}

/* The matrices of g as random blocks into one file, and the numbers that they stand for into another. */
static void put_blocks(const struct gguf *g, const struct block_type *type,
                       struct gguf_writer *blocks, struct gguf_writer *numbers)
{
    struct random r = { 11 };

    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        uint64_t n = t->dims[0] * t->dims[1], rows = t->n_dims > 1 ? t->dims[1] : 0;
        float *values = malloc(n * sizeof *values);
        if (rows == 0) {
            gguf_put_tensor(blocks, t->name, 0, 0, n, g->data + t->offset, n * 4);
            gguf_put_tensor(numbers, t->name, 0, 0, n, g->data + t->offset, n * 4);
        } else {
            uint8_t *b = random_blocks(type, n, &r);
            tensor_type_to_float(type->type, values, b, n);
            gguf_put_tensor(blocks, t->name, type->number, rows, t->dims[0], b,
                            tensor_type_bytes(type->type, n));
            gguf_put_tensor(numbers, t->name, 0, rows, t->dims[0], values, n * 4);
            free(b);
        }
        free(values);
    }
}

static void drop_tensors(struct gguf_writer *w)
{
    buf_clear(&w->tensors);
    buf_clear(&w->data);
    w->n_tensors = 0;
}

/* The difference's size over that of what is wanted: about 1.4 for numbers that have nothing in common. */
static double relative_off(const float *wanted, const float *got, uint32_t n)
{
    double off = 0, size = 0;

    for (uint32_t i = 0; i < n; i++) {
        off += ((double)got[i] - (double)wanted[i]) * ((double)got[i] - (double)wanted[i]);
        size += (double)wanted[i] * (double)wanted[i];
    }
    return sqrt(off / size);
}

static void check_block_type(const struct checkpoint *c, const struct block_type *type)
{
    static float wanted[VOCAB_MAX], got[VOCAB_MAX];
    struct gguf_writer w[2] = { 0 };
    struct buf file[2];
    struct gguf *g;
    struct err e;
    char dir[64], path[2][96];
    uint32_t n;

    test_dir_make(dir);
    gguf_model_write(c->dir, dir, "plain.gguf");
    snprintf(path[0], sizeof path[0], "%s/plain.gguf", dir);
    g = gguf_open(path[0], &e);
    assert_non_null(g);
    for (int i = 0; i < 2; i++) {
        gguf_model_put(&w[i], c->dir);
        drop_tensors(&w[i]);
        snprintf(path[i], sizeof path[i], "%s/%d.gguf", dir, i);
    }
    put_blocks(g, type, &w[0], &w[1]);
    for (int i = 0; i < 2; i++) {
        file[i] = gguf_finish(&w[i]);
        test_dir_write(dir, path[i] + strlen(dir) + 1, file[i].data, file[i].n);
        buf_fini(&file[i]);
    }
    logits_of(path[0], got, &n);
    logits_of(path[1], wanted, &n);
    if (!(relative_off(wanted, got, n) < 0.15))
        fail_msg("%s: logits are off by %g", tensor_type_name(type->type),
                 relative_off(wanted, got, n));
    gguf_close(g);
    test_dir_remove(dir);
}

/* Whatever precision the weights have in memory, no row or block is taken for another. */
static void every_block_type_computes_what_its_numbers_do(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_F32);
    struct checkpoint c;

    (void)state;
    spec.hidden = spec.inner = 256;
    spec.head_dim = 64;
    checkpoint_make(&c, &spec, 3);
    for (size_t i = 0; i < sizeof block_types / sizeof *block_types; i++)
        check_block_type(&c, &block_types[i]);
    checkpoint_remove(&c);
}

/* ---- sets of files ---- */

/* Tensor i goes into file i % 2; the first has the metadata. */
static void split(const char *dir, const char *from)
{
    struct gguf_writer w[2] = { 0 };
    char path[128];
    struct err e;
    struct gguf *g;

    gguf_model_put(&w[0], from);
    snprintf(path, sizeof path, "%s/whole.gguf", dir);
    gguf_model_write(from, dir, "whole.gguf");
    g = gguf_open(path, &e);
    assert_non_null(g);
    drop_tensors(&w[0]);
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const struct gguf_tensor *t = &g->tensors[i];
        uint64_t n = t->dims[0] * t->dims[1] * (t->type == 0 ? 4 : 2);
        gguf_put_tensor(&w[i % 2], t->name, t->type, t->n_dims > 1 ? t->dims[1] : 0, t->dims[0],
                        g->data + t->offset, n);
    }
    for (uint32_t i = 0; i < 2; i++) {
        struct buf file;
        char name[64];
        gguf_put(&w[i], "split.no", 2, &(uint16_t){ (uint16_t)i }, 2);
        gguf_put(&w[i], "split.count", 2, &(uint16_t){ 2 }, 2);
        gguf_put(&w[i], "split.tensors.count", 5, &g->n_tensors, 4);
        file = gguf_finish(&w[i]);
        snprintf(name, sizeof name, "m-%05u-of-00002.gguf", i + 1);
        test_dir_write(dir, name, file.data, file.n);
        buf_fini(&file);
    }
    gguf_close(g);
    unlink(path);
}

static void a_set_of_files_is_one_model(void **state)
{
    static float wanted[VOCAB_MAX], got[VOCAB_MAX];
    struct checkpoint_spec spec = spec_of("Qwen2ForCausalLM", DTYPE_BF16);
    struct checkpoint c;
    uint32_t n;
    char dir[64];

    (void)state;
    spec.qkv_bias = true;
    checkpoint_make(&c, &spec, 9);
    test_dir_make(dir);
    split(dir, c.dir);
    logits_of(c.dir, wanted, &n);
    logits_of(dir, got, &n);
    assert_memory_equal(got, wanted, n * sizeof *got);
    test_dir_remove(dir);
    checkpoint_remove(&c);
}

static void a_set_must_be_whole_and_begun_with_the_first(void **state)
{
    struct checkpoint_spec spec = spec_of("LlamaForCausalLM", DTYPE_BF16);
    struct checkpoint c;
    char dir[64], path[128], moved[128];
    struct gguf_set set;
    struct err e;

    (void)state;
    checkpoint_make(&c, &spec, 9);
    test_dir_make(dir);
    split(dir, c.dir);
    snprintf(path, sizeof path, "%s/m-00002-of-00002.gguf", dir);
    assert_fails(gguf_set_open(&set, path, &e), e, ERR_MODEL,
                 "file 2 of 2 of a set; give the first");
    snprintf(moved, sizeof moved, "%s/m2.gguf", dir);
    assert_int_equal(rename(path, moved), 0);
    snprintf(path, sizeof path, "%s/m-00001-of-00002.gguf", dir);
    assert_fails(gguf_set_open(&set, path, &e), e, ERR_SYS, "m-00002-of-00002.gguf");
    assert_int_equal(rename(path, moved), 0);
    assert_fails(gguf_set_open(&set, moved, &e), e, ERR_MODEL,
                 "must end in '-00001-of-00002.gguf'");
    test_dir_remove(dir);
    checkpoint_remove(&c);
}

/* ---- tensors ---- */

static struct tensors *tensors_of(struct gguf_writer *w, struct err *e)
{
    struct buf file = gguf_finish(w);
    struct gguf_set set = { .files = malloc(sizeof *set.files), .n = 1 };
    struct tensors *ts;

    set.files[0] = gguf_parse("t.gguf", file.data, file.n, e);
    assert_non_null(set.files[0]);
    ts = gguf_tensors_new(&set, e);
    gguf_set_close(&set);
    buf_fini(&file); /* what is asked below is no data */
    return ts;
}

static struct gguf_writer writer_of(const char *architecture)
{
    struct gguf_writer w = { 0 };

    gguf_put_string(&w, "general.architecture", architecture);
    gguf_put_u32(&w, "llama.attention.key_length", 4);
    gguf_put_u32(&w, "qwen3moe.attention.key_length", 4);
    gguf_put_u32(&w, "qwen3moe.expert_count", 3);
    return w;
}

static void names_shapes_and_types_are_translated(void **state)
{
    static const char data[4096];
    struct gguf_writer w = writer_of("llama");
    struct tensors *ts;
    const struct tensor *t;
    struct err e;

    (void)state;
    gguf_put_tensor(&w, "token_embd.weight", 12, 2, 256, data, 288);
    gguf_put_tensor(&w, "blk.11.attn_q.weight", 8, 8, 32, data, 272);
    gguf_put_tensor(&w, "blk.0.attn_v.weight", 1, 4, 3, data, 24);
    gguf_put_tensor(&w, "blk.0.attn_norm.weight", 0, 0, 3, data, 12);
    gguf_put_tensor(&w, "blk.0.ffn_up.weight", 23, 1, 256, data, 136);
    gguf_put_tensor(&w, "blk.0.ffn_down.bias", 8, 0, 32, data, 34);
    gguf_put_tensor(&w, "some.thing", 99, 1, 3, data, 12);
    ts = tensors_of(&w, &e);
    if (!ts)
        fail_msg("%s", e.msg);
    t = tensors_find(ts, "model.embed_tokens.weight");
    assert_true(t && t->type == TENSOR_Q4_K && t->n_dims == 2 && t->dims[0] == 2 &&
                t->dims[1] == 256 && t->bytes == 288 && t->paired_rows == 0);
    t = tensors_find(ts, "model.layers.11.self_attn.q_proj.weight");
    assert_true(t && t->type == TENSOR_Q8_0 && t->dims[0] == 8 && t->paired_rows == 4);
    t = tensors_find(ts, "model.layers.0.self_attn.v_proj.weight");
    assert_true(t && t->type == TENSOR_F16 && t->paired_rows == 0);
    t = tensors_find(ts, "model.layers.0.input_layernorm.weight");
    assert_true(t && t->type == TENSOR_F32 && t->n_dims == 1 && t->dims[0] == 3);
    t = tensors_find(ts, "model.layers.0.mlp.up_proj.weight");
    assert_true(t && t->type == TENSOR_NONE);
    assert_string_equal(t->type_text, "IQ4_XS");
    t = tensors_find(ts, "model.layers.0.mlp.down_proj.bias"); /* a vector of blocks */
    assert_true(t && t->type == TENSOR_NONE);
    t = tensors_find(ts, "some.thing");
    assert_true(t && t->type == TENSOR_NONE);
    assert_string_equal(t->type_text, "type 99");
    assert_string_equal(ts->files[0].name, "t.gguf");
    tensors_close(ts);
}

static void experts_become_a_matrix_each(void **state)
{
    static const char data[3 * 2 * 34];
    struct gguf_writer w = writer_of("qwen3moe");
    struct tensors *ts;
    const struct tensor *first, *last;
    struct err e;

    (void)state;
    gguf_put_tensor_3d(&w, "blk.4.ffn_up_exps.weight", 8, (uint64_t[]){ 32, 2, 3 }, data,
                       sizeof data);
    ts = tensors_of(&w, &e);
    assert_non_null(ts);
    assert_int_equal(ts->n_tensors, 3);
    first = tensors_find(ts, "model.layers.4.mlp.experts.0.up_proj.weight");
    last = tensors_find(ts, "model.layers.4.mlp.experts.2.up_proj.weight");
    assert_true(first && last && first->n_dims == 2 && first->dims[0] == 2 && first->dims[1] == 32);
    assert_true(first->bytes == 68 && (const char *)last->data - (const char *)first->data == 136);
    tensors_close(ts);
}

static void expect_refusal(struct gguf_writer *w, const char *why)
{
    struct err e;

    assert_fails(tensors_of(w, &e), e, ERR_MODEL, why);
}

static void refuses_tensors_that_do_not_fit(void **state)
{
    static const char data[4096];
    struct gguf_writer w = writer_of("llama");

    (void)state;
    gguf_put_tensor(&w, "output.weight", 8, 1, 48, data, 68);
    expect_refusal(&w, "'output.weight': rows of 48 elements; Q8_0 has blocks of 32");
    w = writer_of("llama");
    gguf_put_tensor(&w, "output.weight", 12, 2, 256, data, 287);
    expect_refusal(&w, "'output.weight': 288 bytes of Q4_K, the file ends after 287");
    w = writer_of("llama");
    gguf_put_tensor(&w, "output.weight", 0, 1ull << 62, 1, data, 64);
    expect_refusal(&w, "the file ends after");
    w = writer_of("llama");
    gguf_put_tensor(&w, "blk.0.attn_q.weight", 0, 6, 1, data, 24);
    expect_refusal(&w, "6 rows; wanted heads of 4");
    w = writer_of("llama");
    gguf_put_tensor(&w, "a", 0, 0, 16, data, 64);
    gguf_put_tensor(&w, "b", 0, 0, 1, data, 4);
    w.tensors.data[w.tensors.n - 8] = 32; /* the offset of b */
    expect_refusal(&w, "overlap");
    w = writer_of("llama");
    gguf_put_tensor(&w, "a", 0, 0, 1, data, 4);
    gguf_put_tensor(&w, "a", 0, 0, 1, data, 4);
    expect_refusal(&w, "tensor 'a' is in");
    w = writer_of("qwen3moe");
    gguf_put_tensor(&w, "blk.0.ffn_up_exps.weight", 0, 2, 2, data, 16);
    expect_refusal(&w, "2 dimensions");
}

static void names_the_architecture_that_is_not_known(void **state)
{
    struct gguf_writer w = writer_of("mamba");

    (void)state;
    expect_refusal(&w, "architecture \"mamba\"");
    w = (struct gguf_writer){ 0 };
    gguf_put_u32(&w, "llama.attention.key_length", 4);
    expect_refusal(&w, "'general.architecture' is missing");
    w = (struct gguf_writer){ 0 };
    gguf_put_string(&w, "general.architecture", "llama");
    expect_refusal(&w, "'llama.embedding_length' is missing");
}

/* ---- configuration ---- */

static struct gguf_writer config_writer(const char *without)
{
    static const char *const counts[][2] = {
        { "llama.vocab_size", "50" },          { "llama.embedding_length", "64" },
        { "llama.feed_forward_length", "96" }, { "llama.block_count", "2" },
        { "llama.attention.head_count", "4" }, { "llama.context_length", "128" },
    };
    struct gguf_writer w = { 0 };

    gguf_put_string(&w, "general.architecture", "llama");
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++)
        if (strcmp(counts[i][0], without) != 0)
            gguf_put_u32(&w, counts[i][0], (uint32_t)atoi(counts[i][1]));
    gguf_put_f32(&w, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    return w;
}

static bool config_of(struct gguf_writer *w, struct model_config *c, struct err *e)
{
    struct buf file = gguf_finish(w);
    struct gguf *g = gguf_parse("c.gguf", file.data, file.n, e);
    struct gguf_set set = { .files = &g, .n = 1 };
    bool ok;

    assert_non_null(g);
    ok = model_config_from_gguf(c, &set, e);
    gguf_close(g);
    buf_fini(&file);
    return ok;
}

static void reads_the_configuration_with_what_may_be_absent(void **state)
{
    struct gguf_writer w = config_writer("");
    struct model_config c;
    struct err e;

    (void)state;
    assert_ok(config_of(&w, &c, &e), e);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
    assert_true(c.vocab_size == 50 && c.hidden_size == 64 && c.intermediate_size == 96 &&
                c.n_layers == 2 && c.n_heads == 4 && c.n_kv_heads == 4 && c.head_dim == 16);
    assert_true(c.positions_max == 128 && c.rms_norm_eps == 1e-5f && c.rope_theta == 10000);
    assert_true(c.tied_head && !c.qkv_bias && !c.mlp_bias && c.n_eos == 0 &&
                c.rope_scaling == ROPE_PLAIN && c.sliding_window == 0);
    w = config_writer("");
    gguf_put_u32(&w, "llama.attention.sliding_window", 0); /* all positions */
    assert_ok(config_of(&w, &c, &e), e);
    assert_string_equal(c.architecture, "LlamaForCausalLM");
}

static void a_missing_or_wrong_key_is_named(void **state)
{
    struct gguf_writer w = config_writer("llama.block_count");
    struct model_config c;
    struct err e;

    (void)state;
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL,
                 "'c.gguf': key 'llama.block_count' is missing");
    w = config_writer("llama.attention.head_count");
    gguf_put_i32s(&w, "llama.attention.head_count", (int32_t[]){ 4, 2 }, 2);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL,
                 "'llama.attention.head_count' has type array");
    w = config_writer("llama.context_length");
    gguf_put_u32(&w, "llama.context_length", 0);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL, "'llama.context_length' is 0");
    w = config_writer("");
    gguf_put_f32(&w, "llama.rope.scaling.factor",
                 4); /* of the kind that it was before there were kinds */
    assert_ok(config_of(&w, &c, &e), e);
    assert_true(c.rope_scaling == ROPE_LINEAR && c.rope_factor == 4);
    w = config_writer("");
    gguf_put_string(&w, "llama.rope.scaling.type", "spiral");
    gguf_put_f32(&w, "llama.rope.scaling.factor", 2);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL, "spiral");
    w = config_writer("");
    gguf_put_u32(&w, "llama.attention.key_length", 16);
    gguf_put_u32(&w, "llama.attention.value_length", 8);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL, "keys of 16 dimensions and values of 8");
}

static void frequencies_of_rope_must_be_as_many_as_pairs(void **state)
{
    float factors[8] = { 1, 1, 1, 1, 2, 4, 8, 8 };
    struct gguf_writer w = config_writer("");
    struct model_config c;
    struct err e;

    (void)state;
    gguf_put_tensor(&w, "rope_freqs.weight", 0, 0, 8, factors, sizeof factors);
    assert_ok(config_of(&w, &c, &e), e);
    assert_true(c.rope_scaling == ROPE_FACTORS && c.rope_long[5] == 4 && c.rope_short[7] == 8);
    w = config_writer("");
    gguf_put_tensor(&w, "rope_freqs.weight", 0, 0, 7, factors, 28);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL, "no vector of 8 float32");
    factors[3] = 0;
    w = config_writer("");
    gguf_put_tensor(&w, "rope_freqs.weight", 0, 0, 8, factors, sizeof factors);
    assert_fails(config_of(&w, &c, &e), e, ERR_MODEL, "holds 0");
}

static void ends_are_what_keys_and_control_tokens_say(void **state)
{
    static const char *const tokens[] = { "<unk>", "<|im_end|>", "a", "<|endoftext|>", "</s>" };
    struct gguf_writer w = config_writer("llama.vocab_size");
    struct model_config c;
    struct err e;

    (void)state;
    gguf_put_strings(&w, "tokenizer.ggml.tokens", 5);
    for (int i = 0; i < 5; i++)
        gguf_add_string(&w, tokens[i], strlen(tokens[i]));
    gguf_put_i32s(&w, "tokenizer.ggml.token_type", (int32_t[]){ 2, 3, 1, 1, 3 }, 5);
    gguf_put_u32(&w, "tokenizer.ggml.eos_token_id", 4);
    gguf_put_u32(&w, "tokenizer.ggml.eot_token_id", 5); /* no such token */
    assert_ok(config_of(&w, &c, &e), e);
    assert_true(c.vocab_size == 5 && c.n_eos == 2 && c.eos[0] == 4 && c.eos[1] == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_demo_model_gives_the_same_bits),
        cmocka_unit_test(llama_gives_the_same_bits_in_every_plain_type),
        cmocka_unit_test(llama_with_biases_and_a_tied_head_gives_the_same_bits),
        cmocka_unit_test(a_window_makes_it_mistral),
        cmocka_unit_test(qwen2_gives_the_same_bits),
        cmocka_unit_test(the_rope_of_llama_3_comes_as_a_tensor),
        cmocka_unit_test(yarn_is_read),
        cmocka_unit_test(qwen3_gives_the_same_bits),
        cmocka_unit_test(gemma_gives_the_same_bits),
        cmocka_unit_test(phi3_gives_the_same_bits_with_short_and_long_factors),
        cmocka_unit_test(mixtures_of_experts_give_the_same_bits),
        cmocka_unit_test(every_block_type_computes_what_its_numbers_do),
        cmocka_unit_test(a_set_of_files_is_one_model),
        cmocka_unit_test(a_set_must_be_whole_and_begun_with_the_first),
        cmocka_unit_test(names_shapes_and_types_are_translated),
        cmocka_unit_test(experts_become_a_matrix_each),
        cmocka_unit_test(refuses_tensors_that_do_not_fit),
        cmocka_unit_test(names_the_architecture_that_is_not_known),
        cmocka_unit_test(reads_the_configuration_with_what_may_be_absent),
        cmocka_unit_test(a_missing_or_wrong_key_is_named),
        cmocka_unit_test(frequencies_of_rope_must_be_as_many_as_pairs),
        cmocka_unit_test(ends_are_what_keys_and_control_tokens_say),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
