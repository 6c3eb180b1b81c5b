/* llama.c - the forward pass, in the order of the papers.
 *
 * Only ops and comm are called, so every backend runs this file.  "Mine" below is this rank's range of
 * columns of a gathered buffer. */
#include "gpu-worker/models/llama.h"

#include "gpu-worker/models/llama_internal.h"

/* Column `first` of a row-major buffer of activations. */
static void *column(const struct llama *m, void *buf, uint32_t first)
{
    return (char *)buf + first * m->ops->act_bytes;
}

/* Make a buffer whole: rows of n * unit activations, of which each rank has written its part of the n. */
static bool gather(const struct llama *m, void *buf, uint32_t n_rows, uint32_t n, uint32_t unit,
                   struct err *e)
{
    return comm_all_gather(m->comm, buf, &(struct comm_columns){ n_rows, n, unit }, e);
}

static struct norm norm_of(const struct llama *m, const float *w)
{
    return (struct norm){ .w = w, .eps = m->c->rms_norm_eps };
}

static bool embed(struct llama *m, uint32_t n_rows, struct err *e)
{
    m->ops->embed(m->stream, m->x, &m->embed, m->my_vocab.first, m->c->embed_scale);
    return comm_join_rows(m->comm, m->x, n_rows, m->c->hidden_size, e);
}

/* x += w(in), or x += norm(w(in)), of a matrix whose rows are cut */
static bool join(struct llama *m, const void *in, uint32_t n_rows, const struct weight *w,
                 const float *post_norm, struct err *e)
{
    uint32_t dim = m->c->hidden_size;
    struct norm norm = norm_of(m, post_norm);
    void *to = post_norm ? m->y : m->x;

    m->ops->linear(m->stream, column(m, to, m->my_dim.first), dim, in, n_rows, NULL, w, 1,
                   post_norm ? LINEAR_SET : LINEAR_ADD);
    if (post_norm) {
        if (!gather(m, m->y, n_rows, dim, 1, e))
            return false;
        m->ops->add_normed(m->stream, m->x, m->y, n_rows, &norm, dim, m->my_dim.first,
                           m->my_dim.count);
    }
    return gather(m, m->x, n_rows, dim, 1, e);
}

/* The same of one whose columns are cut, and with them its input: what this rank has of it, [n_rows, w->cols]. */
static bool join_sums(struct llama *m, const void *in, uint32_t n_rows, const struct weight *w,
                      const float *post_norm, struct err *e)
{
    uint32_t dim = m->c->hidden_size;
    struct norm norm = norm_of(m, post_norm);

    m->ops->linear(m->stream, m->y, dim, in, n_rows, NULL, w, 1, LINEAR_SET);
    if (!post_norm)
        return comm_add_sums(m->comm, m->x, m->y, (size_t)n_rows * dim, e);
    if (!comm_join_rows(m->comm, m->y, n_rows, dim, e))
        return false;
    m->ops->add_normed(m->stream, m->x, m->y, n_rows, &norm, dim, 0, dim);
    return true;
}

/* qkv = rope(qkv(norm(x))), and KV written */
static void project(struct llama *m, uint32_t layer, uint32_t n_rows)
{
    const struct layer *l = &m->layers[layer];
    struct norm norm = norm_of(m, l->attn_norm);

    m->ops->linear(m->stream, m->qkv, llama_my_qkv(l), m->x, n_rows, &norm, l->qkv, 3, LINEAR_SET);
    m->ops->rope_kv_write(m->stream, m->qkv, m->c->qk_norm ? &l->head_norm : NULL, layer);
}

/* x += o(attention(qkv)) */
static bool attention(struct llama *m, uint32_t layer, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct layer *l = &m->layers[layer];

    if (l->o_is_split) {
        ops->attention(m->stream, m->heads, m->my_q.count, m->qkv, layer, &l->attention);
        return join_sums(m, m->heads, n_rows, &l->o, l->attn_post_norm, e);
    }
    ops->attention(m->stream, column(m, m->heads, m->my_q.first), m->q_dim, m->qkv, layer,
                   &l->attention);
    return gather(m, m->heads, n_rows, m->c->n_heads, m->c->head_dim, e) &&
           join(m, m->heads, n_rows, &l->o, l->attn_post_norm, e);
}

/* x += down(act(gate(norm(x))) * up(norm(x))) */
static bool mlp(struct llama *m, const struct layer *l, uint32_t n_rows, struct err *e)
{
    struct norm norm = norm_of(m, l->mlp_norm);
    uint32_t inner = m->c->intermediate_size;

    if (l->down_is_split) {
        m->ops->gated(m->stream, m->inner, m->my_inner.count, m->x, n_rows, &norm, &l->mlp.gate,
                      &l->mlp.up, m->c->activation);
        return join_sums(m, m->inner, n_rows, &l->mlp.down, l->mlp_post_norm, e);
    }
    m->ops->gated(m->stream, column(m, m->inner, m->my_inner.first), inner, m->x, n_rows, &norm,
                  &l->mlp.gate, &l->mlp.up, m->c->activation);
    return gather(m, m->inner, n_rows, inner, 1, e) &&
           join(m, m->inner, n_rows, &l->mlp.down, l->mlp_post_norm, e);
}

/* The activations of the expert that all rows share, times its gate: since down is linear, that is the gate of
 * what it gives. */
static bool shared_expert(struct llama *m, const struct experts *x, const struct norm *norm,
                          uint32_t n_rows, struct err *e)
{
    uint32_t inner = m->c->shared_expert_inner, mine = m->my_shared_inner.count;
    void *to = column(m, m->shared, m->my_shared_inner.first);

    m->ops->gated(m->stream, to, inner, m->x, n_rows, norm, &x->shared.gate, &x->shared.up,
                  m->c->activation);
    m->ops->gate_rows(m->stream, to, inner, mine, m->x, n_rows, norm, &x->shared_gate);
    return gather(m, m->shared, n_rows, inner, 1, e);
}

/* x += sum over the experts of each row, weighted by the router, and the shared one's */
static bool moe(struct llama *m, const struct layer *l, uint32_t n_rows, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct model_config *c = m->c;
    const struct experts *x = &l->experts;
    struct norm norm = norm_of(m, l->mlp_norm);
    void *mine = column(m, m->x, m->my_dim.first);

    ops->route(m->stream, m->x, n_rows, &norm, &x->router, c->norm_topk_prob);
    ops->experts_gated(m->stream, column(m, m->inner, m->my_expert_inner.first), c->expert_inner,
                       m->x, &norm, x->gate, x->up, c->activation);
    if (c->shared_expert_inner > 0 && !shared_expert(m, x, &norm, n_rows, e))
        return false;
    if (!gather(m, m->inner, n_rows * c->n_experts_used, c->expert_inner, 1, e))
        return false;
    ops->experts_down(m->stream, mine, c->hidden_size, m->inner, x->down);
    if (c->shared_expert_inner > 0)
        ops->linear(m->stream, mine, c->hidden_size, m->shared, n_rows, NULL, &x->shared.down, 1,
                    LINEAR_ADD);
    return gather(m, m->x, n_rows, c->hidden_size, 1, e);
}

/* logits = head(norm(x)), for the rows that want them: `rows` of x, or its first n_logits */
static void head(struct llama *m, const uint32_t *rows, uint32_t n_logits)
{
    struct norm norm = norm_of(m, m->norm);

    if (n_logits == 0)
        return;
    norm.rows = rows;
    m->ops->logits(m->stream, m->logits + m->my_vocab.first, m->c->vocab_size, m->x, n_logits,
                   &norm, &m->head, m->c->final_softcap);
}

static bool run(struct llama *m, const struct batch *b, struct ops_step step, struct err *e)
{
    bool drops_rows = m->drops_rows && !b->wants_hidden && step.n_logits < step.n_rows;
    uint32_t n_rows = step.n_rows;

    if (!embed(m, n_rows, e))
        return false;
    for (uint32_t i = 0; i < m->c->n_layers; i++) {
        const struct layer *l = &m->layers[i];
        project(m, i, n_rows);
        if (drops_rows && i == m->c->n_layers - 1) {
            n_rows = step.n_logits;
            if (n_rows == 0)
                break;
            m->ops->keep_logit_rows(m->stream, m->x, m->c->hidden_size, m->qkv, llama_my_qkv(l));
        }
        if (!attention(m, i, n_rows, e) || !(m->c->layers[i].sparse ? moe : mlp)(m, l, n_rows, e))
            return false;
    }
    head(m, drops_rows ? NULL : b->logit_rows, step.n_logits);
    return true;
}

/* A shape of step, once it has come often enough. */
static bool record(struct llama *m, bool is_idle, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct batch *b;
    struct ops_step step;

    if (!ops->record_is_due(m->stream, is_idle) ||
        !ops->record_begin(m->stream, is_idle, &b, &step))
        return true;
    run(m, b, step, e); /* what cannot be recorded is not; what is broken, the next step tells */
    ops->record_end(m->stream);
    return true;
}

bool llama_rehearse(struct llama *m, struct err *e)
{
    const struct ops *ops = m->ops;
    const struct batch *b;
    struct ops_step step;
    struct err why;

    for (uint32_t i = 0; ops->rehearse_begin && ops->rehearse_begin(m->stream, i, &b, &step); i++) {
        run(m, b, step, &why); /* what fails is the device's, and told at the end */
        if (!ops->rehearse_end(m->stream, e))
            return err_wrap(e, "load kernels");
    }
    return true;
}

bool llama_rest_is_due(const struct llama *m)
{
    return m->ops->record_is_due(m->stream, true);
}

bool llama_rest(struct llama *m, struct err *e)
{
    return record(m, true, e);
}

bool llama_forward(struct llama *m, const struct batch *b, const struct sampler_rows *draws,
                   struct err *e)
{
    const struct ops *ops = m->ops;
    struct ops_step step;

    if (ops->begin(m->stream, b, &step) && !run(m, b, step, e))
        return false;
    if (draws && ops->draw)
        ops->draw(m->stream, draws);
    if (!ops->finish(m->stream, e) || (b->n_logits > 0 && !comm_join_host(m->comm, e)))
        return false;
    return record(m, false, e);
}

const float *llama_logits(const struct llama *m)
{
    return m->logits;
}

bool llama_hidden(struct llama *m, uint32_t first_row, uint32_t n, float *out, struct err *e)
{
    struct norm norm = norm_of(m, m->norm);
    uint32_t dim = m->c->hidden_size;
    const char *x = (const char *)m->x + (size_t)first_row * dim * m->ops->act_bytes;

    m->ops->hidden(m->stream, out, x, n, &norm, dim);
    return m->ops->finish(m->stream, e);
}
