/* llama.c - the forward pass, in the order of the paper.
 *
 * Only ops and comm are called, so every backend runs this file.  "Mine" below is this rank's range of
 * columns of a gathered buffer. */
#include "gpu-worker/models/llama.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/models/llama_internal.h"

struct layer {
    const float *attn_norm, *mlp_norm; /* [dim] */
    struct weight qkv[3];              /* each [my heads * head_dim, dim] */
    struct weight o;                   /* [my dim, q_dim] */
    struct weight gate, up;            /* [my inner, dim] */
    struct weight down;                /* [my dim, inner] */
    struct attention_shape attention;
};

struct llama {
    const struct model_config *c;
    const struct ops *ops;
    struct ops_stream *stream;
    struct comm *comm;
    uint32_t q_dim; /* of the whole model */
    struct span my_q, my_dim, my_inner, my_vocab;
    struct weight embed, head; /* [my vocab, dim] */
    const float *norm;         /* [dim] */
    struct layer *layers;
    /* gathered: every rank writes its columns, then all read all */
    void *x;       /* [rows, dim] the residual stream */
    void *heads;   /* [rows, q_dim] attention's output */
    void *inner;   /* [rows, inner] the MLP's activations */
    float *logits; /* [logits, vocab] */
    /* this rank's own */
    void *qkv; /* [rows, my q, k, v] */
};

/* Column `first` of a row-major buffer of activations. */
static void *column(const struct llama *m, void *buf, uint32_t first)
{
    return (char *)buf + first * m->ops->act_bytes;
}

static bool embed(struct llama *m, struct err *e)
{
    m->ops->embed(m->stream, m->x, &m->embed, m->my_vocab.first, m->c->embed_scale);
    return comm_all_gather(m->comm, m->x, e);
}

/* The columns of q, k and v that this rank has. */
static uint32_t my_qkv(const struct layer *l)
{
    return l->qkv[0].rows + l->qkv[1].rows + l->qkv[2].rows;
}

/* x += o(attention(rope(qkv(norm(x))))) */
static bool attention(struct llama *m, uint32_t layer, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct layer *l = &m->layers[layer];
    struct norm norm = { .w = l->attn_norm, .eps = m->c->rms_norm_eps };

    ops->linear(m->stream, m->qkv, my_qkv(l), m->x, n_rows, &norm, l->qkv, 3, LINEAR_SET);
    ops->rope(m->stream, m->qkv, NULL);
    ops->kv_write(m->stream, m->qkv, layer);
    ops->attention(m->stream, column(m, m->heads, m->my_q.first), m->q_dim, m->qkv, layer,
                   &l->attention);
    if (!comm_all_gather(m->comm, m->heads, e))
        return false;
    ops->linear(m->stream, column(m, m->x, m->my_dim.first), m->c->hidden_size, m->heads, n_rows,
                NULL, &l->o, 1, LINEAR_ADD);
    return comm_all_gather(m->comm, m->x, e);
}

/* x += down(act(gate(norm(x))) * up(norm(x))) */
static bool mlp(struct llama *m, uint32_t layer, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct layer *l = &m->layers[layer];
    struct norm norm = { .w = l->mlp_norm, .eps = m->c->rms_norm_eps };

    ops->gated(m->stream, column(m, m->inner, m->my_inner.first), m->c->intermediate_size, m->x,
               n_rows, &norm, &l->gate, &l->up, m->c->activation);
    if (!comm_all_gather(m->comm, m->inner, e))
        return false;
    ops->linear(m->stream, column(m, m->x, m->my_dim.first), m->c->hidden_size, m->inner, n_rows,
                NULL, &l->down, 1, LINEAR_ADD);
    return comm_all_gather(m->comm, m->x, e);
}

/* logits = head(norm(x)), for the rows that want them */
static bool head(struct llama *m, const struct batch *b, struct err *e)
{
    struct norm norm = { .w = m->norm, .eps = m->c->rms_norm_eps, .rows = b->logit_rows };

    if (b->n_logits == 0)
        return true;
    m->ops->logits(m->stream, m->logits + m->my_vocab.first, m->c->vocab_size, m->x, b->n_logits,
                   &norm, &m->head, m->c->final_softcap);
    return comm_all_gather(m->comm, m->logits, e);
}

bool llama_forward(struct llama *m, const struct batch *b, struct err *e)
{
    m->ops->begin(m->stream, b);
    if (!embed(m, e))
        return false;
    for (uint32_t i = 0; i < m->c->n_layers; i++)
        if (!attention(m, i, b->n_rows, e) || !mlp(m, i, b->n_rows, e))
            return false;
    return head(m, b, e);
}

const float *llama_logits(const struct llama *m)
{
    return m->logits;
}

/* ---- open and close ---- */

struct binder {
    const struct weights *weights;
    uint32_t cursor;
};

static const struct weights_tensor *find(struct binder *b, int layer, const char *name)
{
    char full[WEIGHTS_NAME_BYTES];

    llama_tensor_name(full, layer, name);
    return weights_find(b->weights, full, &b->cursor);
}

static const float *bind_vector(struct binder *b, int layer, const char *name)
{
    return weights_data(b->weights, find(b, layer, name));
}

static struct weight bind(struct binder *b, int layer, const char *name)
{
    const struct weights_tensor *t = find(b, layer, name);

    return (struct weight){ .data = weights_data(b->weights, t),
                            .dtype = (enum dtype)t->dtype,
                            .rows = (uint32_t)t->rows,
                            .cols = (uint32_t)t->cols };
}

/* w`name`, with its bias b`name` when it has one. */
static struct weight bind_linear(struct binder *b, int layer, const char *name, bool has_bias)
{
    char full[16];
    struct weight w;

    snprintf(full, sizeof full, "w%s", name);
    w = bind(b, layer, full);
    full[0] = 'b';
    if (has_bias)
        w.bias = bind_vector(b, layer, full);
    return w;
}

static void bind_layer(struct llama *m, struct binder *b, uint32_t layer)
{
    static const char *const qkv[3] = { "q", "k", "v" };
    const struct model_config *c = m->c;
    struct layer *l = &m->layers[layer];
    int i = (int)layer;

    l->attn_norm = bind_vector(b, i, "attn_norm");
    for (int k = 0; k < 3; k++)
        l->qkv[k] = bind_linear(b, i, qkv[k], c->qkv_bias);
    l->o = bind_linear(b, i, "o", c->o_bias);
    l->mlp_norm = bind_vector(b, i, "mlp_norm");
    l->gate = bind_linear(b, i, "g", c->mlp_bias);
    l->up = bind_linear(b, i, "u", c->mlp_bias);
    l->down = bind_linear(b, i, "d", c->mlp_bias);
    l->attention = (struct attention_shape){
        .window = c->layers[layer].windowed ? c->sliding_window : 0,
        .scale = c->query_scale,
        .softcap = c->attn_softcap,
    };
}

static uint64_t rounded(uint64_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

uint64_t llama_exchange_bytes(const struct model_config *c, uint32_t rows_max, uint32_t logits_max,
                              size_t act_bytes)
{
    uint64_t row = act_bytes * rows_max;

    return rounded(row * c->hidden_size) + rounded(row * c->n_heads * c->head_dim) +
           rounded(row * c->intermediate_size) +
           rounded((uint64_t)logits_max * c->vocab_size * sizeof(float));
}

static void allocate(struct llama *m, uint32_t rows_max, uint32_t logits_max)
{
    const struct model_config *c = m->c;
    size_t row = m->ops->act_bytes * rows_max;

    m->x = comm_alloc(m->comm, row * c->hidden_size);
    m->heads = comm_alloc(m->comm, row * m->q_dim);
    m->inner = comm_alloc(m->comm, row * c->intermediate_size);
    m->logits = comm_alloc(m->comm, (size_t)logits_max * c->vocab_size * sizeof(float));
    m->qkv = m->ops->alloc(m->stream, (size_t)rows_max * my_qkv(&m->layers[0]));
}

struct llama *llama_open(const struct model_config *c, struct llama_shard shard,
                         const struct weights *weights, const struct ops *ops,
                         struct ops_stream *stream, struct comm *comm, uint32_t rows_max,
                         uint32_t logits_max)
{
    struct llama *m = mem_zalloc(1, sizeof *m);
    struct span heads = shard_span(c->n_heads, shard);
    struct binder b = { .weights = weights };

    *m = (struct llama){
        .c = c,
        .ops = ops,
        .stream = stream,
        .comm = comm,
        .q_dim = c->n_heads * c->head_dim,
        .my_q = { heads.first * c->head_dim, heads.count * c->head_dim },
        .my_dim = shard_span(c->hidden_size, shard),
        .my_inner = shard_span(c->intermediate_size, shard),
        .my_vocab = shard_span(c->vocab_size, shard),
        .layers = mem_zalloc(c->n_layers, sizeof *m->layers),
    };
    m->embed = bind(&b, -1, "embed");
    for (uint32_t i = 0; i < c->n_layers; i++)
        bind_layer(m, &b, i);
    m->norm = bind_vector(&b, -1, "norm");
    m->head = c->tied_head ? m->embed : bind(&b, -1, "head");
    allocate(m, rows_max, logits_max);
    return m;
}

void llama_close(struct llama *m)
{
    if (!m)
        return;
    m->ops->free(m->stream, m->qkv);
    free(m->layers);
    free(m);
}
