/* cpu_attention.c - queries and keys turned, KV written to its pages, and attention over them. */
#include <assert.h>

#include "gpu-worker/ops/cpu_stream.h"

static uint32_t qkv_dim(const struct ops_setup *u)
{
    return (u->n_heads + 2 * u->n_kv_heads) * u->head_dim;
}

struct qkv_job {
    struct ops_stream *s;
    struct split split; /* of rows */
    float *qkv;
    uint32_t layer;
    const struct head_norm *norm;
};

static void run_rope(void *arg, uint32_t i)
{
    struct qkv_job *j = arg;
    struct ops_stream *s = j->s;
    uint32_t half = s->setup.rope_dim / 2;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++)
        for (uint32_t h = 0; h < s->setup.n_heads + s->setup.n_kv_heads; h++) {
            float *x = j->qkv + (size_t)t * qkv_dim(&s->setup) + h * s->setup.head_dim;
            if (j->norm)
                s->kernels->rmsnorm(x, x, h < s->setup.n_heads ? j->norm->q : j->norm->k,
                                    s->setup.head_dim, j->norm->eps);
            s->kernels->rope(x, s->rope_cos + (size_t)t * half, s->rope_sin + (size_t)t * half,
                             half);
        }
}

void cpu_rope(struct ops_stream *s, void *qkv, const struct head_norm *norm)
{
    struct qkv_job j = { s, cpu_split(s, s->batch->n_rows, qkv_dim(&s->setup)), qkv, 0, norm };

    threads_run(s->threads, run_rope, &j, split_count(j.split));
}

/* Where K (kind 0) or V (1) of a layer's head begins in a page. */
static uint64_t head_offset(const struct ops_setup *u, uint32_t layer, uint32_t kind, uint32_t head)
{
    uint64_t index = ((uint64_t)layer * 2 + kind) * u->kv.n_heads_model + u->kv.first_head + head;

    return dtype_bytes(u->kv.dtype, index * u->kv.page_tokens * u->head_dim);
}

static void run_kv_write(void *arg, uint32_t i)
{
    struct qkv_job *j = arg;
    const struct ops_setup *u = &j->s->setup;

    for (uint32_t t = split_begin(j->split, i); t < split_end(j->split, i); t++) {
        const struct row_place *at = &j->s->rows[t];
        uint32_t page = at->seq->pages[at->position / u->kv.page_tokens];
        char *slot =
            u->kv.pages + page * u->kv.page_bytes +
            dtype_bytes(u->kv.dtype, (size_t)(at->position % u->kv.page_tokens) * u->head_dim);
        const float *k = j->qkv + (size_t)t * qkv_dim(u) + u->n_heads * u->head_dim;
        for (uint32_t kind = 0; kind < 2; kind++)
            for (uint32_t h = 0; h < u->n_kv_heads; h++, k += u->head_dim)
                j->s->kernels->narrow(slot + head_offset(u, j->layer, kind, h), k, u->kv.dtype,
                                      u->head_dim);
    }
}

void cpu_kv_write(struct ops_stream *s, const void *qkv, uint32_t layer)
{
    struct qkv_job j = { s, cpu_split(s, s->batch->n_rows, qkv_dim(&s->setup)), (float *)qkv, layer,
                         NULL };

    threads_run(s->threads, run_kv_write, &j, split_count(j.split));
}

struct attend_job {
    struct ops_stream *s;
    struct split split; /* of row * n_kv_heads + head */
    float *out;
    size_t out_stride;
    const float *qkv;
    uint32_t layer;
    const struct attention_shape *shape;
};

static void attend_one(const struct attend_job *j, uint32_t row, uint32_t head)
{
    const struct ops_setup *u = &j->s->setup;
    const struct row_place *at = &j->s->rows[row];
    uint32_t group = u->n_heads / u->n_kv_heads, last = at->position;
    uint32_t window = j->shape->window;
    struct attention_job a = {
        .out = j->out + row * j->out_stride + (size_t)head * group * u->head_dim,
        .q = j->qkv + (size_t)row * qkv_dim(u) + (size_t)head * group * u->head_dim,
        .pages = u->kv.pages,
        .page_bytes = u->kv.page_bytes,
        .k_offset = head_offset(u, j->layer, 0, head),
        .v_offset = head_offset(u, j->layer, 1, head),
        .page_table = at->seq->pages,
        .page_tokens = u->kv.page_tokens,
        .first = window > 0 && last >= window ? last - window + 1 : 0,
        .last = last,
        .group = group,
        .head_dim = u->head_dim,
        .dtype = u->kv.dtype,
        .scale = j->shape->scale,
        .softcap = j->shape->softcap,
    };

    j->s->kernels->attention(&a);
}

static void run_attention(void *arg, uint32_t i)
{
    struct attend_job *j = arg;
    uint32_t n_heads = j->s->setup.n_kv_heads;

    for (uint32_t k = split_begin(j->split, i); k < split_end(j->split, i); k++)
        attend_one(j, k / n_heads, k % n_heads);
}

void cpu_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                   uint32_t layer, const struct attention_shape *shape)
{
    const struct ops_setup *u = &s->setup;
    uint32_t n = s->batch->n_rows;
    uint64_t seen = 0; /* positions, by all rows */
    struct attend_job j = {
        .s = s, .out = out, .out_stride = out_stride, .qkv = qkv, .layer = layer, .shape = shape
    };

    for (uint32_t t = 0; t < n; t++)
        seen += s->rows[t].position + 1;
    j.split =
        cpu_split(s, n * u->n_kv_heads, 2 * seen / n * u->head_dim * (u->n_heads / u->n_kv_heads));
    threads_run(s->threads, run_attention, &j, split_count(j.split));
}
