/* llama_plan.c - which tensors of a model's files make a shard's weights.  Names in the segment are those
 * that llama_open.c binds, in the same order. */
#include <stdio.h>
#include <string.h>

#include "gpu-worker/models/llama_internal.h"

struct span shard_span(uint32_t n, struct llama_shard s)
{
    uint32_t first = (uint32_t)((uint64_t)n * s.rank / s.tp_size);
    uint32_t end = (uint32_t)((uint64_t)n * (s.rank + 1) / s.tp_size);

    return (struct span){ first, end - first };
}

bool llama_check_shard(const struct model_config *c, uint32_t tp_size, struct err *e)
{
    if (c->n_kv_heads % tp_size != 0)
        return err_set(e, ERR_CONFIG, 0,
                       "tp_size %u does not divide the model's %u key/value heads (config.json: "
                       "num_key_value_heads)",
                       tp_size, c->n_kv_heads);
    if (c->hidden_size < tp_size || c->intermediate_size < tp_size || c->vocab_size < tp_size ||
        (c->n_experts > 0 && c->expert_inner < tp_size) ||
        (c->shared_expert_inner > 0 && c->shared_expert_inner < tp_size))
        return err_set(e, ERR_CONFIG, 0, "tp_size %u: the model is too small to be cut like that",
                       tp_size);
    return true;
}

/* ---- sizes for ops_setup ---- */

uint32_t llama_n_heads(const struct model_config *c, struct llama_shard s)
{
    return c->n_heads / s.tp_size;
}

uint32_t llama_n_kv_heads(const struct model_config *c, struct llama_shard s)
{
    return c->n_kv_heads / s.tp_size;
}

static uint32_t largest(uint32_t a, uint32_t b, uint32_t c)
{
    uint32_t ab = a > b ? a : b;

    return ab > c ? ab : c;
}

uint32_t llama_cols_max(const struct model_config *c)
{
    uint32_t inner = largest(c->intermediate_size, c->expert_inner, c->shared_expert_inner);

    return largest(c->hidden_size, c->n_heads * c->head_dim, inner);
}

uint32_t llama_gated_max(const struct model_config *c, struct llama_shard s)
{
    return largest(shard_span(c->intermediate_size, s).count, shard_span(c->expert_inner, s).count,
                   shard_span(c->shared_expert_inner, s).count);
}

uint32_t llama_down_max(const struct model_config *c, struct llama_shard s)
{
    return shard_span(c->hidden_size, s).count;
}

uint32_t llama_vocab_max(const struct model_config *c, struct llama_shard s)
{
    return shard_span(c->vocab_size, s).count;
}

static uint32_t gcd(uint32_t a, uint32_t b)
{
    return b == 0 ? a : gcd(b, a % b);
}

uint32_t llama_column_unit(const struct model_config *c, uint32_t tp_size)
{
    const uint32_t widths[] = { c->hidden_size, c->intermediate_size, c->expert_inner,
                                c->shared_expert_inner };
    uint32_t unit = c->head_dim;

    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
        for (uint32_t rank = 0; rank < tp_size; rank++) {
            struct llama_shard shard = { .rank = rank, .tp_size = tp_size };
            struct span s = shard_span(widths[i], shard);
            unit = gcd(gcd(unit, s.first), s.count);
        }
    return unit;
}

/* ---- planning ---- */

struct planner {
    struct weights_plan *plan;
    const struct model_config *c;
    struct llama_shard shard;
    const struct tensors *ts;
    struct err *e;
    int layer; /* -1: of none */
};

/* Rows of a tensor of the files: all `rows` of it, of which `span` are this shard's. */
struct part {
    const char *source;
    uint32_t rows;
    struct span span;
    uint32_t cols;       /* 0: a vector */
    struct span columns; /* this shard's; of none: all */
    bool plus_one;       /* a vector of 1 + what the file has */
    bool exact;          /* a matrix that decides between others: not to be rounded */
};

static enum dtype dtype_of(const struct planner *p, const char *name, enum tensor_type t)
{
    bool embedding = strcmp(name, "embed") == 0 || strcmp(name, "head") == 0;

    return quantize_dtype(p->plan->quantize, embedding ? ROLE_EMBEDDING : ROLE_MATRIX, t);
}

/* One that holds every value of t. */
static enum dtype exact_dtype_of(enum tensor_type t)
{
    return t == TENSOR_F16 ? DTYPE_F16 : t == TENSOR_BF16 ? DTYPE_BF16 : DTYPE_F32;
}

/* What the files call it. */
static void source_name(const struct planner *p, const char *source, char out[WEIGHTS_NAME_BYTES])
{
    if (p->layer >= 0)
        snprintf(out, WEIGHTS_NAME_BYTES, "model.layers.%d.%s", p->layer, source);
    else
        snprintf(out, WEIGHTS_NAME_BYTES, "%s", source);
}

static bool add(const struct planner *p, const char *name, const struct part *part)
{
    char full[WEIGHTS_NAME_BYTES], from[WEIGHTS_NAME_BYTES];
    struct weights_source source = {
        .name = from,
        .rows = part->rows,
        .cols = part->cols,
        .first = part->span.first,
        .count = part->span.count,
        .first_col = part->columns.first,
        .n_cols = part->columns.count,
        .dtype = DTYPE_F32,
        .plus_one = part->plus_one,
    };
    const struct tensor *t;

    source_name(p, part->source, from);
    t = tensors_find(p->ts, from);
    if (part->cols > 0 && t)
        source.dtype = part->exact ? exact_dtype_of(t->type) : dtype_of(p, name, t->type);
    llama_tensor_name(full, p->layer, name);
    return weights_plan_add(p->plan, p->ts, full, &source, p->e);
}

static bool add_norm(const struct planner *p, const char *name, const char *source, uint32_t n)
{
    return add(
        p, name,
        &(struct part){
            .source = source, .rows = n, .span = { 0, n }, .plus_one = p->c->norm_plus_one });
}

/* A matrix `source`.weight as w`name`, and when it has one, its bias as b`name`.  Where columns are cut, the sums of
 * all ranks are added: the bias is rank 0's alone. */
static bool add_linear(const struct planner *p, const char *name, const struct part *matrix,
                       bool has_bias)
{
    char w[16], b[16], weight[WEIGHTS_NAME_BYTES], bias[WEIGHTS_NAME_BYTES];
    struct part part = *matrix, vector = *matrix;

    snprintf(w, sizeof w, "w%s", name);
    snprintf(b, sizeof b, "b%s", name);
    snprintf(weight, sizeof weight, "%s.weight", matrix->source);
    snprintf(bias, sizeof bias, "%s.bias", matrix->source);
    part.source = weight;
    vector.source = bias;
    vector.cols = 0;
    vector.columns = (struct span){ 0 };
    if (matrix->columns.count > 0 && p->shard.rank > 0)
        has_bias = false;
    return add(p, w, &part) && (!has_bias || add(p, b, &vector));
}

/* ---- attention ---- */

/* q, k and v: heads of this shard, of tensors of their own or of one that has them below each other. */
static bool add_qkv(const struct planner *p)
{
    static const char *const names[3] = { "q", "k", "v" };
    static const char *const sources[3] = { "self_attn.q_proj", "self_attn.k_proj",
                                            "self_attn.v_proj" };
    const struct model_config *c = p->c;
    const uint32_t heads[3] = { c->n_heads, c->n_kv_heads, c->n_kv_heads };
    uint32_t all = (c->n_heads + 2 * c->n_kv_heads) * c->head_dim, above = 0;

    for (int i = 0; i < 3; i++) {
        struct span mine = shard_span(heads[i], p->shard);
        uint32_t rows = heads[i] * c->head_dim;
        struct part part = {
            .source = c->fused_qkv ? "self_attn.qkv_proj" : sources[i],
            .rows = c->fused_qkv ? all : rows,
            .span = { above + mine.first * c->head_dim, mine.count * c->head_dim },
            .cols = c->hidden_size,
        };
        if (!add_linear(p, names[i], &part, c->qkv_bias))
            return false;
        above += c->fused_qkv ? rows : 0;
    }
    return true;
}

/* Whether each rank can have its units of the columns of a matrix: whole blocks of its type, and of those that it may
 * be rounded to. */
static bool columns_can_be_cut(const struct planner *p, const char *source, uint32_t n_units,
                               uint32_t unit)
{
    char weight[WEIGHTS_NAME_BYTES], name[WEIGHTS_NAME_BYTES];
    const struct tensor *t;
    uint32_t block;

    if (!p->shard.splits_sums || p->shard.tp_size == 1)
        return false;
    snprintf(weight, sizeof weight, "%s.weight", source);
    source_name(p, weight, name);
    t = tensors_find(p->ts, name);
    block = t ? tensor_type_block(t->type) : 1;
    block = block > TENSOR_TYPE_CODES_GROUP ? block : TENSOR_TYPE_CODES_GROUP;
    for (struct llama_shard r = { 0, p->shard.tp_size, true }; r.rank < r.tp_size; r.rank++)
        if ((uint64_t)shard_span(n_units, r).count * unit % block != 0)
            return false;
    return true;
}

/* o or down, [hidden_size, n_units * unit]: its columns cut with its input, or its output rows, so that every sum is whole
 * (see llama.h). */
static struct part joining_part(const struct planner *p, const char *source, uint32_t n_units,
                                uint32_t unit)
{
    uint32_t dim = p->c->hidden_size;
    struct span mine = shard_span(n_units, p->shard);
    struct part part = {
        .source = source, .rows = dim, .span = shard_span(dim, p->shard), .cols = n_units * unit
    };

    if (columns_can_be_cut(p, source, n_units, unit)) {
        part.span = (struct span){ 0, dim };
        part.columns = (struct span){ mine.first * unit, mine.count * unit };
    }
    return part;
}

static bool add_o(const struct planner *p)
{
    const struct model_config *c = p->c;
    struct part part = joining_part(p, "self_attn.o_proj", c->n_heads, c->head_dim);

    return add_linear(p, "o", &part, c->o_bias);
}

static bool add_attention(const struct planner *p)
{
    const struct model_config *c = p->c;

    return add_norm(p, "attn_norm", "input_layernorm.weight", c->hidden_size) && add_qkv(p) &&
           (!c->qk_norm || (add_norm(p, "q_norm", "self_attn.q_norm.weight", c->head_dim) &&
                            add_norm(p, "k_norm", "self_attn.k_norm.weight", c->head_dim))) &&
           add_o(p);
}

/* ---- MLP ---- */

/* Names in the segment and in the files of one gated MLP's matrices: gate, up, down. */
struct mlp_names {
    char name[3][16], source[3][64];
};

static bool add_gate_and_up(const struct planner *p, const struct mlp_names *n, uint32_t inner,
                            bool fused, bool has_bias)
{
    uint32_t dim = p->c->hidden_size, all = fused ? 2 * inner : inner;
    struct span mine = shard_span(inner, p->shard);
    struct part gate = { .source = n->source[0], .rows = all, .span = mine, .cols = dim };
    struct part up = { .source = n->source[1], .rows = all, .span = mine, .cols = dim };

    up.span.first += fused ? inner : 0;
    return add_linear(p, n->name[0], &gate, has_bias) && add_linear(p, n->name[1], &up, has_bias);
}

static bool add_mlp(const struct planner *p)
{
    static const struct mlp_names apart = { { "g", "u", "d" },
                                            { "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj" } };
    static const struct mlp_names fused = {
        { "g", "u", "d" }, { "mlp.gate_up_proj", "mlp.gate_up_proj", "mlp.down_proj" }
    };
    const struct model_config *c = p->c;
    const struct mlp_names *n = c->fused_gate_up ? &fused : &apart;
    struct part down = joining_part(p, n->source[2], c->intermediate_size, 1);

    return add_gate_and_up(p, n, c->intermediate_size, c->fused_gate_up, c->mlp_bias) &&
           add_linear(p, n->name[2], &down, c->mlp_bias);
}

/* An expert: output rows are cut, all of them. */
static bool add_expert(const struct planner *p, const struct mlp_names *n, uint32_t inner)
{
    uint32_t dim = p->c->hidden_size;
    struct part down = {
        .source = n->source[2], .rows = dim, .span = shard_span(dim, p->shard), .cols = inner
    };

    return add_gate_and_up(p, n, inner, false, false) && add_linear(p, n->name[2], &down, false);
}

static struct mlp_names expert_names(const struct model_config *c, uint32_t i)
{
    static const char *const mixtral[3] = { "w1", "w3", "w2" };
    static const char *const qwen[3] = { "gate_proj", "up_proj", "down_proj" };
    const char *block = c->block_sparse_moe ? "block_sparse_moe" : "mlp";
    struct mlp_names n;

    for (int k = 0; k < 3; k++) {
        snprintf(n.name[k], sizeof n.name[k], "%c%u", "gud"[k], i);
        snprintf(n.source[k], sizeof n.source[k], "%s.experts.%u.%s", block, i,
                 (c->block_sparse_moe ? mixtral : qwen)[k]);
    }
    return n;
}

static bool add_shared_expert(const struct planner *p)
{
    static const struct mlp_names names = { { "gs", "us", "ds" },
                                            { "mlp.shared_expert.gate_proj",
                                              "mlp.shared_expert.up_proj",
                                              "mlp.shared_expert.down_proj" } };
    struct part gate = { .source = "mlp.shared_expert_gate.weight",
                         .rows = 1,
                         .span = { 0, 1 },
                         .cols = p->c->hidden_size,
                         .exact = true };

    return add_expert(p, &names, p->c->shared_expert_inner) && add(p, "shared_gate", &gate);
}

/* Every rank routes every row, with the whole router, to the same end. */
static bool add_moe(const struct planner *p)
{
    const struct model_config *c = p->c;
    struct part router = { .source = c->block_sparse_moe ? "block_sparse_moe.gate.weight"
                                                         : "mlp.gate.weight",
                           .rows = c->n_experts,
                           .span = { 0, c->n_experts },
                           .cols = c->hidden_size,
                           .exact = true };

    if (!add(p, "router", &router))
        return false;
    for (uint32_t i = 0; i < c->n_experts; i++) {
        struct mlp_names names = expert_names(c, i);
        if (!add_expert(p, &names, c->expert_inner))
            return false;
    }
    return c->shared_expert_inner == 0 || add_shared_expert(p);
}

/* ---- the model ---- */

/* With norms on both sides of a sub-layer, post_attention_layernorm is the one behind attention; without, it is
 * the one before the MLP. */
static bool add_layer(const struct planner *p)
{
    const struct model_config *c = p->c;
    uint32_t dim = c->hidden_size;
    const char *after_attention = "post_attention_layernorm.weight";

    if (!add_attention(p))
        return false;
    if (c->post_norms && (!add_norm(p, "attn_post_norm", after_attention, dim) ||
                          !add_norm(p, "mlp_norm", "pre_feedforward_layernorm.weight", dim)))
        return false;
    if (!c->post_norms && !add_norm(p, "mlp_norm", after_attention, dim))
        return false;
    if (!(c->layers[p->layer].sparse ? add_moe : add_mlp)(p))
        return false;
    return !c->post_norms || add_norm(p, "mlp_post_norm", "post_feedforward_layernorm.weight", dim);
}

static uint64_t count_mlp(const struct model_config *c, bool sparse)
{
    uint64_t dim = c->hidden_size, inner = c->intermediate_size;
    uint64_t shared = c->shared_expert_inner > 0 ? (3 * (uint64_t)c->shared_expert_inner + 1) : 0;

    if (sparse)
        return dim * (c->n_experts * (3 * (uint64_t)c->expert_inner + 1) + shared);
    return 3 * dim * inner + (c->mlp_bias ? 2 * inner + dim : 0);
}

static uint64_t count_parameters(const struct model_config *c)
{
    uint64_t dim = c->hidden_size, q = (uint64_t)c->n_heads * c->head_dim;
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim;
    uint64_t layer = (c->post_norms ? 4 : 2) * dim + (2 * q + 2 * kv) * dim;
    uint64_t sum = (c->tied_head ? 1 : 2) * dim * c->vocab_size + dim;

    layer += (c->qkv_bias ? q + 2 * kv : 0) + (c->o_bias ? dim : 0);
    layer += c->qk_norm ? 2 * c->head_dim : 0;
    for (uint32_t i = 0; i < c->n_layers; i++)
        sum += layer + count_mlp(c, c->layers[i].sparse);
    return sum;
}

bool llama_plan(struct weights_plan *plan, const struct model_config *c, struct llama_shard shard,
                const struct tensors *ts, struct err *e)
{
    struct planner p = { plan, c, shard, ts, e, -1 };
    struct part embed = { .source = "model.embed_tokens.weight",
                          .rows = c->vocab_size,
                          .span = shard_span(c->vocab_size, shard),
                          .cols = c->hidden_size };
    struct part head = embed;

    head.source = "lm_head.weight";
    if (!add(&p, "embed", &embed))
        return false;
    for (p.layer = 0; p.layer < (int)c->n_layers; p.layer++)
        if (!add_layer(&p))
            return false;
    p.layer = -1;
    plan->parameters = count_parameters(c);
    return add_norm(&p, "norm", "model.norm.weight", c->hidden_size) &&
           (c->tied_head || add(&p, "head", &head));
}
