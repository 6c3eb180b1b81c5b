/* llama_plan.c - which tensors of a HuggingFace checkpoint make a shard's weights.
 *
 * Names in the segment follow llama.c: wqkv is q, k and v of this rank's heads in one matrix, wgu gate and
 * up, so that what shares an input is one product. */
#include <stdio.h>

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

/* ---- planning ---- */

struct planner {
    struct weights_plan *plan;
    const struct model_config *c;
    struct llama_shard shard;
    const struct safetensors *st;
    struct err *e;
};

/* A matrix or vector made of up to three tensors of one layer, or of none when layer < 0. */
struct part {
    const char *name;
    uint32_t rows;
    struct span span;
};

static bool add(const struct planner *p, int layer, const char *name, const struct part *parts,
                uint32_t n, uint32_t cols)
{
    struct weights_source sources[WEIGHTS_PARTS_MAX];
    char full[WEIGHTS_NAME_BYTES], names[WEIGHTS_PARTS_MAX][WEIGHTS_NAME_BYTES];

    for (uint32_t i = 0; i < n; i++) {
        if (layer >= 0)
            snprintf(names[i], sizeof names[i], "model.layers.%d.%s", layer, parts[i].name);
        else
            snprintf(names[i], sizeof names[i], "%s", parts[i].name);
        sources[i] = (struct weights_source){ names[i], parts[i].rows, parts[i].span.first,
                                              parts[i].span.count };
    }
    llama_tensor_name(full, layer, name);
    return weights_plan_add(p->plan, p->st, full, sources, n, cols, p->e);
}

static bool add_whole(const struct planner *p, int layer, const char *name, const char *source,
                      uint32_t rows, uint32_t cols)
{
    return add(p, layer, name, &(struct part){ source, rows, { 0, rows } }, 1, cols);
}

static bool add_qkv(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;
    struct span heads = shard_span(c->n_heads, p->shard);
    struct span kv_heads = shard_span(c->n_kv_heads, p->shard);
    struct span q = { heads.first * c->head_dim, heads.count * c->head_dim };
    struct span kv = { kv_heads.first * c->head_dim, kv_heads.count * c->head_dim };
    uint32_t q_rows = c->n_heads * c->head_dim, kv_rows = c->n_kv_heads * c->head_dim;
    const struct part w[] = { { "self_attn.q_proj.weight", q_rows, q },
                              { "self_attn.k_proj.weight", kv_rows, kv },
                              { "self_attn.v_proj.weight", kv_rows, kv } };
    const struct part b[] = { { "self_attn.q_proj.bias", q_rows, q },
                              { "self_attn.k_proj.bias", kv_rows, kv },
                              { "self_attn.v_proj.bias", kv_rows, kv } };

    return add(p, layer, "wqkv", w, 3, c->hidden_size) &&
           (!c->qkv_bias || add(p, layer, "bqkv", b, 3, 0));
}

/* o and down: output rows, so that every sum is whole (see llama.h). */
static struct span shard_of_o_and_down(const struct planner *p)
{
    return shard_span(p->c->hidden_size, p->shard);
}

static bool add_o(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;
    struct part w = { "self_attn.o_proj.weight", c->hidden_size, shard_of_o_and_down(p) };
    struct part b = { "self_attn.o_proj.bias", c->hidden_size, shard_of_o_and_down(p) };

    return add(p, layer, "wo", &w, 1, c->n_heads * c->head_dim) &&
           (!c->o_bias || add(p, layer, "bo", &b, 1, 0));
}

static bool add_mlp(const struct planner *p, int layer)
{
    const struct model_config *c = p->c;
    uint32_t n = c->intermediate_size;
    struct span inner = shard_span(n, p->shard), out = shard_of_o_and_down(p);
    const struct part gu[] = { { "mlp.gate_proj.weight", n, inner },
                               { "mlp.up_proj.weight", n, inner } };
    const struct part bgu[] = { { "mlp.gate_proj.bias", n, inner },
                                { "mlp.up_proj.bias", n, inner } };
    struct part d = { "mlp.down_proj.weight", c->hidden_size, out };
    struct part bd = { "mlp.down_proj.bias", c->hidden_size, out };

    return add(p, layer, "wgu", gu, 2, c->hidden_size) && add(p, layer, "wd", &d, 1, n) &&
           (!c->mlp_bias || (add(p, layer, "bgu", bgu, 2, 0) && add(p, layer, "bd", &bd, 1, 0)));
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
                const struct safetensors *st, struct err *e)
{
    struct planner p = { plan, c, shard, st, e };
    struct span vocab = shard_span(c->vocab_size, shard);
    struct part embed = { "model.embed_tokens.weight", c->vocab_size, vocab };
    struct part head = { "lm_head.weight", c->vocab_size, vocab };

    if (!add(&p, -1, "embed", &embed, 1, c->hidden_size))
        return false;
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (!add_layer(&p, (int)i))
            return false;
    plan->parameters = count_parameters(c);
    return add_whole(&p, -1, "norm", "model.norm.weight", c->hidden_size, 0) &&
           (c->tied_head || add(&p, -1, "head", &head, 1, c->hidden_size));
}
