/* llama_plan.c - which tensors of a model's files make a shard's weights.  Names in the segment follow
 * llama.c. */
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
    if (c->hidden_size < tp_size || c->intermediate_size < tp_size || c->vocab_size < tp_size)
        return err_set(e, ERR_CONFIG, 0, "tp_size %u: the model is too small to be cut like that",
                       tp_size);
    return true;
}

uint32_t llama_n_heads(const struct model_config *c, struct llama_shard s)
{
    return c->n_heads / s.tp_size;
}

uint32_t llama_n_kv_heads(const struct model_config *c, struct llama_shard s)
{
    return c->n_kv_heads / s.tp_size;
}

uint32_t llama_cols_max(const struct model_config *c)
{
    uint32_t q = c->n_heads * c->head_dim, cols = c->hidden_size;

    cols = cols < q ? q : cols;
    return cols < c->intermediate_size ? c->intermediate_size : cols;
}

uint32_t llama_gated_max(const struct model_config *c, struct llama_shard s)
{
    return shard_span(c->intermediate_size, s).count;
}

/* ---- planning ---- */

struct planner {
    struct weights_plan *plan;
    const struct model_config *c;
    struct llama_shard shard;
    const struct tensors *ts;
    struct err *e;
};

/* Rows of a tensor of the files: all `rows` of it are `span` of this shard. */
struct part {
    const char *name;
    uint32_t rows;
    struct span span;
};

static enum dtype dtype_of(const struct planner *p, const char *name, enum tensor_type t)
{
    bool embedding = strcmp(name, "embed") == 0 || strcmp(name, "head") == 0;

    return quantize_dtype(p->plan->quantize, embedding ? ROLE_EMBEDDING : ROLE_MATRIX, t);
}

/* A matrix of cols columns, or a vector when cols is 0; of one layer, or of none when layer < 0. */
static bool add(const struct planner *p, int layer, const char *name, const struct part *part,
                uint32_t cols)
{
    char full[WEIGHTS_NAME_BYTES], from[WEIGHTS_NAME_BYTES];
    struct weights_source source = { from,     part->rows, cols, part->span.first, part->span.count,
                                     DTYPE_F32 };
    const struct tensor *t;

    if (layer >= 0)
        snprintf(from, sizeof from, "model.layers.%d.%s", layer, part->name);
    else
        snprintf(from, sizeof from, "%s", part->name);
    t = tensors_find(p->ts, from);
    if (cols > 0 && t)
        source.dtype = dtype_of(p, name, t->type);
    llama_tensor_name(full, layer, name);
    return weights_plan_add(p->plan, p->ts, full, &source, p->e);
}

static bool add_whole(const struct planner *p, int layer, const char *name, const char *source,
                      uint32_t rows, uint32_t cols)
{
    return add(p, layer, name, &(struct part){ source, rows, { 0, rows } }, cols);
}

/* A matrix `source`.weight as w`name`, and when it has one, its bias as b`name`. */
static bool add_linear(const struct planner *p, int layer, const char *name, const char *source,
                       uint32_t rows, struct span span, uint32_t cols, bool has_bias)
{
    char w[16], b[16], weight[64], bias[64];

    snprintf(w, sizeof w, "w%s", name);
    snprintf(b, sizeof b, "b%s", name);
    snprintf(weight, sizeof weight, "%s.weight", source);
    snprintf(bias, sizeof bias, "%s.bias", source);
    return add(p, layer, w, &(struct part){ weight, rows, span }, cols) &&
           (!has_bias || add(p, layer, b, &(struct part){ bias, rows, span }, 0));
}

static bool add_qkv(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;
    struct span heads = shard_span(c->n_heads, p->shard);
    struct span kv_heads = shard_span(c->n_kv_heads, p->shard);
    struct span q = { heads.first * c->head_dim, heads.count * c->head_dim };
    struct span kv = { kv_heads.first * c->head_dim, kv_heads.count * c->head_dim };
    uint32_t q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    uint32_t dim = c->hidden_size;

    return add_linear(p, layer, "q", "self_attn.q_proj", q_rows, q, dim, c->qkv_bias) &&
           add_linear(p, layer, "k", "self_attn.k_proj", kv_rows, kv, dim, c->qkv_bias) &&
           add_linear(p, layer, "v", "self_attn.v_proj", kv_rows, kv, dim, c->qkv_bias);
}

/* o and down: output rows, so that every sum is whole (see llama.h). */
static struct span shard_of_o_and_down(const struct planner *p)
{
    return shard_span(p->c->hidden_size, p->shard);
}

static bool add_o(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;

    return add_linear(p, layer, "o", "self_attn.o_proj", c->hidden_size, shard_of_o_and_down(p),
                      c->n_heads * c->head_dim, c->o_bias);
}

static bool add_mlp(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;
    uint32_t n = c->intermediate_size, dim = c->hidden_size;
    struct span inner = shard_span(n, p->shard);

    return add_linear(p, layer, "g", "mlp.gate_proj", n, inner, dim, c->mlp_bias) &&
           add_linear(p, layer, "u", "mlp.up_proj", n, inner, dim, c->mlp_bias) &&
           add_linear(p, layer, "d", "mlp.down_proj", dim, shard_of_o_and_down(p), n, c->mlp_bias);
}

static bool add_layer(const struct planner *p, int layer)
{
    uint32_t dim = p->c->hidden_size;

    return add_whole(p, layer, "attn_norm", "input_layernorm.weight", dim, 0) &&
           add_qkv(p, layer) && add_o(p, layer) &&
           add_whole(p, layer, "mlp_norm", "post_attention_layernorm.weight", dim, 0) &&
           add_mlp(p, layer);
}

static uint64_t count_parameters(const struct model_config *c)
{
    uint64_t dim = c->hidden_size, q = (uint64_t)c->n_heads * c->head_dim;
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim, inner = c->intermediate_size;
    uint64_t layer = 2 * dim + (2 * q + 2 * kv) * dim + 3 * dim * inner;

    layer += (c->qkv_bias ? q + 2 * kv : 0) + (c->o_bias ? dim : 0);
    layer += c->mlp_bias ? 2 * inner + dim : 0;
    return (c->tied_head ? 1 : 2) * dim * c->vocab_size + dim + c->n_layers * layer;
}

bool llama_plan(struct weights_plan *plan, const struct model_config *c, struct llama_shard shard,
                const struct tensors *ts, struct err *e)
{
    struct planner p = { plan, c, shard, ts, e };
    struct span vocab = shard_span(c->vocab_size, shard);
    struct part embed = { "model.embed_tokens.weight", c->vocab_size, vocab };
    struct part head = { "lm_head.weight", c->vocab_size, vocab };

    if (!add(&p, -1, "embed", &embed, c->hidden_size))
        return false;
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (!add_layer(&p, (int)i))
            return false;
    plan->parameters = count_parameters(c);
    return add_whole(&p, -1, "norm", "model.norm.weight", c->hidden_size, 0) &&
           (c->tied_head || add(&p, -1, "head", &head, c->hidden_size));
}
