/* llama_open.c - a model bound to its weights, and its buffers. */
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/models/llama_internal.h"

/* ---- weights ---- */

struct binder {
    const struct weights *weights;
    uint32_t cursor;
    int layer;     /* -1: of none */
    uint32_t rank; /* 0 has the biases of split matrices */
};

static const struct weights_tensor *find(struct binder *b, const char *name)
{
    char full[WEIGHTS_NAME_BYTES];

    llama_tensor_name(full, b->layer, name);
    return weights_find(b->weights, full, &b->cursor);
}

static const float *bind_vector(struct binder *b, const char *name)
{
    return weights_data(b->weights, find(b, name));
}

static struct weight bind(struct binder *b, const char *name)
{
    const struct weights_tensor *t = find(b, name);

    return (struct weight){ .data = weights_data(b->weights, t),
                            .dtype = (enum dtype)t->dtype,
                            .rows = (uint32_t)t->rows,
                            .cols = (uint32_t)t->cols };
}

/* w`name`, with its bias b`name` when it has one. */
static struct weight bind_linear(struct binder *b, const char *name, bool has_bias)
{
    char full[16];
    struct weight w;

    snprintf(full, sizeof full, "w%s", name);
    w = bind(b, full);
    full[0] = 'b';
    if (has_bias)
        w.bias = bind_vector(b, full);
    return w;
}

/* One that may be split: then it has fewer columns than the `cols` of the model's. */
static struct weight bind_joining(struct binder *b, const char *name, bool has_bias, uint32_t cols,
                                  bool *is_split)
{
    char full[16];
    struct weight w;

    snprintf(full, sizeof full, "w%s", name);
    w = bind(b, full);
    *is_split = w.cols < cols;
    full[0] = 'b';
    if (has_bias && (!*is_split || b->rank == 0))
        w.bias = bind_vector(b, full);
    return w;
}

static void bind_attention(struct layer *l, struct binder *b, const struct model_config *c)
{
    static const char *const qkv[3] = { "q", "k", "v" };

    l->attn_norm = bind_vector(b, "attn_norm");
    for (int k = 0; k < 3; k++)
        l->qkv[k] = bind_linear(b, qkv[k], c->qkv_bias);
    if (c->qk_norm)
        l->head_norm = (struct head_norm){ .q = bind_vector(b, "q_norm"),
                                           .k = bind_vector(b, "k_norm"),
                                           .eps = c->rms_norm_eps };
    l->o = bind_joining(b, "o", c->o_bias, c->n_heads * c->head_dim, &l->o_is_split);
    l->attention = (struct attention_shape){
        .window = c->layers[b->layer].windowed ? c->sliding_window : 0,
        .scale = c->query_scale,
        .softcap = c->attn_softcap,
    };
}

static void bind_dense(struct layer *l, struct binder *b, const struct model_config *c)
{
    l->mlp.gate = bind_linear(b, "g", c->mlp_bias);
    l->mlp.up = bind_linear(b, "u", c->mlp_bias);
    l->mlp.down = bind_joining(b, "d", c->mlp_bias, c->intermediate_size, &l->down_is_split);
}

static struct mlp bind_expert(struct binder *b, const char *gate, const char *up, const char *down)
{
    struct mlp m;

    m.gate = bind_linear(b, gate, false);
    m.up = bind_linear(b, up, false);
    m.down = bind_linear(b, down, false);
    return m;
}

/* Three lists of n_experts in `space`. */
static struct experts bind_experts(struct binder *b, const struct model_config *c,
                                   struct weight *space)
{
    struct experts x = { .router = bind(b, "router"),
                         .gate = space,
                         .up = space + c->n_experts,
                         .down = space + 2 * c->n_experts };
    char name[3][16];

    for (uint32_t i = 0; i < c->n_experts; i++) {
        struct mlp m;
        for (int k = 0; k < 3; k++)
            snprintf(name[k], sizeof name[k], "%c%u", "gud"[k], i);
        m = bind_expert(b, name[0], name[1], name[2]);
        x.gate[i] = m.gate;
        x.up[i] = m.up;
        x.down[i] = m.down;
    }
    if (c->shared_expert_inner > 0) {
        x.shared = bind_expert(b, "gs", "us", "ds");
        x.shared_gate = bind(b, "shared_gate");
    }
    return x;
}

static void bind_layer(struct llama *m, struct binder *b, struct weight *experts)
{
    const struct model_config *c = m->c;
    struct layer *l = &m->layers[b->layer];

    bind_attention(l, b, c);
    if (c->post_norms)
        l->attn_post_norm = bind_vector(b, "attn_post_norm");
    l->mlp_norm = bind_vector(b, "mlp_norm");
    if (c->layers[b->layer].sparse)
        l->experts = bind_experts(b, c, experts);
    else
        bind_dense(l, b, c);
    if (c->post_norms)
        l->mlp_post_norm = bind_vector(b, "mlp_post_norm");
}

/* In the order of the plan, so that each is found where the last one was. */
static void bind_all(struct llama *m, const struct weights *weights, uint32_t rank)
{
    struct binder b = { .weights = weights, .layer = -1, .rank = rank };

    m->embed = bind(&b, "embed");
    for (uint32_t i = 0; i < m->c->n_layers; i++) {
        b.layer = (int)i;
        bind_layer(m, &b, m->experts + (size_t)i * 3 * m->c->n_experts);
    }
    b.layer = -1;
    m->norm = bind_vector(&b, "norm");
    m->head = m->c->tied_head ? m->embed : bind(&b, "head");
}

/* ---- buffers ---- */

/* Elements of a row of the gathered buffers. */
struct widths {
    uint64_t x, y, heads, inner, shared;
};

static struct widths widths_of(const struct model_config *c, struct llama_shard shard)
{
    bool has_y = c->post_norms || (shard.splits_sums && shard.tp_size > 1);
    struct widths w = { .x = c->hidden_size,
                        .y = has_y ? c->hidden_size : 0,
                        .heads = (uint64_t)c->n_heads * c->head_dim,
                        .shared = c->shared_expert_inner };

    for (uint32_t i = 0; i < c->n_layers; i++) {
        uint64_t inner = c->layers[i].sparse ? (uint64_t)c->n_experts_used * c->expert_inner
                                             : c->intermediate_size;
        w.inner = inner > w.inner ? inner : w.inner;
    }
    return w;
}

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint64_t llama_activation_bytes(const struct model_config *c, struct llama_shard shard,
                                uint32_t rows_max, size_t act_bytes)
{
    struct widths w = widths_of(c, shard);
    uint64_t row = act_bytes * rows_max;

    return rounded(row * w.x) + rounded(row * w.y) + rounded(row * w.heads) +
           rounded(row * w.inner) + rounded(row * w.shared);
}

uint64_t llama_logits_bytes(const struct model_config *c, uint32_t logits_max)
{
    return rounded((uint64_t)logits_max * c->vocab_size * sizeof(float));
}

static void allocate(struct llama *m, struct llama_shard shard, uint32_t rows_max,
                     uint32_t logits_max)
{
    struct widths w = widths_of(m->c, shard);
    size_t row = m->ops->act_bytes * rows_max;

    m->x = comm_alloc(m->comm, row * w.x);
    m->y = comm_alloc(m->comm, row * w.y);
    m->heads = comm_alloc(m->comm, row * w.heads);
    m->inner = comm_alloc(m->comm, row * w.inner);
    m->shared = comm_alloc(m->comm, row * w.shared);
    m->logits = comm_alloc_host(m->comm, llama_logits_bytes(m->c, logits_max));
    m->qkv = m->ops->alloc(m->stream, (size_t)rows_max * llama_my_qkv(&m->layers[0]));
}

/* ---- open and close ---- */

struct llama *llama_open(const struct model_config *c, struct llama_shard shard,
                         const struct weights *weights, const struct ops *ops,
                         struct ops_stream *stream, struct comm *comm, uint32_t rows_max,
                         uint32_t logits_max)
{
    struct llama *m = mem_zalloc(1, sizeof *m);
    struct span heads = shard_span(c->n_heads, shard);

    *m = (struct llama){
        .c = c,
        .ops = ops,
        .stream = stream,
        .comm = comm,
        .q_dim = c->n_heads * c->head_dim,
        .drops_rows = ops->keep_logit_rows && shard.tp_size == 1,
        .my_q = { heads.first * c->head_dim, heads.count * c->head_dim },
        .my_dim = shard_span(c->hidden_size, shard),
        .my_inner = shard_span(c->intermediate_size, shard),
        .my_expert_inner = shard_span(c->expert_inner, shard),
        .my_shared_inner = shard_span(c->shared_expert_inner, shard),
        .my_vocab = shard_span(c->vocab_size, shard),
        .layers = mem_zalloc(c->n_layers, sizeof *m->layers),
    };
    m->experts = mem_zalloc((size_t)c->n_layers * 3 * c->n_experts, sizeof *m->experts);
    bind_all(m, weights, shard.rank);
    allocate(m, shard, rows_max, logits_max);
    return m;
}

void llama_close(struct llama *m)
{
    if (!m)
        return;
    m->ops->free(m->stream, m->qkv);
    free(m->experts);
    free(m->layers);
    free(m);
}
