/* llama.c - the forward pass, in the order of the paper.
 *
 * Only ops and comm are called, so every backend runs this file.  "Mine" below is this rank's range of
 * columns of a gathered buffer. */
#include "gpu-worker/models/llama.h"

#include <assert.h>
#include <stdlib.h>

#include "common/mem.h"
#include "gpu-worker/models/llama_internal.h"

struct layer {
    const float *attn_norm, *mlp_norm; /* [dim] */
    struct weight wqkv;                /* [my q, k, v heads * head_dim, dim] */
    struct weight wo;                  /* [my dim, q_dim] */
    struct weight wgu;                 /* [my gate, my up, dim] */
    struct weight wd;                  /* [my dim, inner] */
    const float *bqkv, *bo, *bgu, *bd; /* or NULL */
    uint32_t window;                   /* 0 = sees all */
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
    void *normed; /* [rows, dim] */
    void *qkv;    /* [rows, my q, k, v] */
    void *gu;     /* [rows, my gate, up] */
};

/* Column `first` of a row-major buffer of activations. */
static void *column(const struct llama *m, void *buf, uint32_t first)
{
    return (char *)buf + first * m->ops->act_bytes;
}

static bool embed(struct llama *m, struct err *e)
{
    m->ops->embed(m->stream, m->x, &m->embed, m->my_vocab.first);
    return comm_all_gather(m->comm, m->x, e);
}

/* x += o(attention(rope(qkv(norm(x))))) */
static bool attention(struct llama *m, uint32_t layer, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct layer *l = &m->layers[layer];
    uint32_t dim = m->c->hidden_size;

    ops->rmsnorm(m->stream, m->normed, m->x, NULL, n_rows, l->attn_norm, dim, m->c->rms_norm_eps);
    ops->linear(m->stream, m->qkv, l->wqkv.rows, m->normed, n_rows, &l->wqkv, l->bqkv, LINEAR_SET);
    ops->rope(m->stream, m->qkv);
    ops->kv_write(m->stream, m->qkv, layer);
    ops->attention(m->stream, column(m, m->heads, m->my_q.first), m->q_dim, m->qkv, layer,
                   l->window);
    if (!comm_all_gather(m->comm, m->heads, e))
        return false;
    ops->linear(m->stream, column(m, m->x, m->my_dim.first), dim, m->heads, n_rows, &l->wo, l->bo,
                LINEAR_ADD);
    return comm_all_gather(m->comm, m->x, e);
}

/* x += down(silu(gate(norm(x))) * up(norm(x))) */
static bool mlp(struct llama *m, uint32_t layer, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct layer *l = &m->layers[layer];
    uint32_t dim = m->c->hidden_size;

    ops->rmsnorm(m->stream, m->normed, m->x, NULL, n_rows, l->mlp_norm, dim, m->c->rms_norm_eps);
    ops->linear(m->stream, m->gu, l->wgu.rows, m->normed, n_rows, &l->wgu, l->bgu, LINEAR_SET);
    ops->silu_mul(m->stream, column(m, m->inner, m->my_inner.first), m->c->intermediate_size, m->gu,
                  n_rows, m->my_inner.count);
    if (!comm_all_gather(m->comm, m->inner, e))
        return false;
    ops->linear(m->stream, column(m, m->x, m->my_dim.first), dim, m->inner, n_rows, &l->wd, l->bd,
                LINEAR_ADD);
    return comm_all_gather(m->comm, m->x, e);
}

/* logits = head(norm(x)), for the rows that want them */
static bool head(struct llama *m, const struct batch *b, struct err *e)
{
    const struct ops *ops = m->ops;

    if (b->n_logits == 0)
        return true;
    ops->rmsnorm(m->stream, m->normed, m->x, b->logit_rows, b->n_logits, m->norm, m->c->hidden_size,
                 m->c->rms_norm_eps);
    ops->logits(m->stream, m->logits + m->my_vocab.first, m->c->vocab_size, m->normed, b->n_logits,
                &m->head);
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

static struct weight bind(struct binder *b, int layer, const char *name)
{
    char full[WEIGHTS_NAME_BYTES];
    const struct weights_tensor *t;

    llama_tensor_name(full, layer, name);
    t = weights_find(b->weights, full, &b->cursor);
    return (struct weight){ weights_data(b->weights, t), t->dtype, (uint32_t)t->rows,
                            (uint32_t)t->cols };
}

static const float *bind_vector(struct binder *b, int layer, const char *name)
{
    return bind(b, layer, name).data;
}

static void bind_layer(struct llama *m, struct binder *b, uint32_t layer)
{
    const struct model_config *c = m->c;
    struct layer *l = &m->layers[layer];
    int i = (int)layer;

    l->attn_norm = bind_vector(b, i, "attn_norm");
    l->wqkv = bind(b, i, "wqkv");
    l->bqkv = c->qkv_bias ? bind_vector(b, i, "bqkv") : NULL;
    l->wo = bind(b, i, "wo");
    l->bo = c->o_bias ? bind_vector(b, i, "bo") : NULL;
    l->mlp_norm = bind_vector(b, i, "mlp_norm");
    l->wgu = bind(b, i, "wgu");
    l->wd = bind(b, i, "wd");
    l->bgu = c->mlp_bias ? bind_vector(b, i, "bgu") : NULL;
    l->bd = c->mlp_bias ? bind_vector(b, i, "bd") : NULL;
    l->window = layer >= c->window_from_layer ? c->sliding_window : 0;
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
    uint32_t normed_rows = rows_max > logits_max ? rows_max : logits_max;

    m->x = comm_alloc(m->comm, row * c->hidden_size);
    m->heads = comm_alloc(m->comm, row * m->q_dim);
    m->inner = comm_alloc(m->comm, row * c->intermediate_size);
    m->logits = comm_alloc(m->comm, (size_t)logits_max * c->vocab_size * sizeof(float));
    m->normed = m->ops->alloc(m->stream, (size_t)normed_rows * c->hidden_size);
    m->qkv = m->ops->alloc(m->stream, (size_t)rows_max * m->layers[0].wqkv.rows);
    m->gu = m->ops->alloc(m->stream, (size_t)rows_max * m->layers[0].wgu.rows);
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
    m->ops->free(m->stream, m->normed);
    m->ops->free(m->stream, m->qkv);
    m->ops->free(m->stream, m->gu);
    free(m->layers);
    free(m);
}
