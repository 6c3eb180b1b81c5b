/* ops_cuda_attention.c - queries and keys turned, KV written to its pages, attention over them.
 *
 * Where each row's token goes and who computes what came over with the step (cuda_step.c); here are the launches
 * of one layer. */
#include "gpu-worker/cuda/cuda_stream.h"

static uint32_t qkv_dim(const struct ops_setup *u)
{
    return (u->n_heads + 2 * u->n_kv_heads) * u->head_dim;
}

static struct kv_scale scale_of(const struct ops_stream *s, uint32_t layer)
{
    const struct ops_kv *kv = &s->setup.kv;

    return kv->scales && kv->dtype == DTYPE_E4M3 ? kv->scales[layer] : (struct kv_scale){ 1, 1 };
}

void cuda_rope_kv_write(struct ops_stream *s, void *qkv, const struct head_norm *norm,
                        uint32_t layer)
{
    const struct ops_setup *u = &s->setup;
    struct kv_scale scale = scale_of(s, layer);
    struct rope_kv_write_args a = { .qkv = qkv,
                                    .cos = s->rope_cos,
                                    .sin = s->rope_sin,
                                    .q_norm = norm ? norm->q : NULL,
                                    .k_norm = norm ? norm->k : NULL,
                                    .pages = cuda_block_at(s, s->block.kv_pages),
                                    .slots = cuda_block_at(s, s->block.kv_slots),
                                    .place = s->kv,
                                    .qkv_stride = qkv_dim(u),
                                    .n_heads = u->n_heads,
                                    .half = u->rope_dim / 2,
                                    .layer = layer,
                                    .eps = norm ? norm->eps : 0,
                                    .k_factor = 1 / scale.k,
                                    .v_factor = 1 / scale.v };

    cuda_launch(s, "rope_kv_write", s->step.n_rows, rope_kv_write_grid_y(u->n_heads, u->n_kv_heads),
                ROPE_THREADS, 0, &a, sizeof a);
}

void cuda_attention(struct ops_stream *s, void *out, size_t out_stride, const void *qkv,
                    uint32_t layer, const struct attention_shape *shape)
{
    const struct ops_setup *u = &s->setup;
    struct kv_scale scale = scale_of(s, layer);
    struct attention_args a = {
        .plan = cuda_block_at(s, s->block.attention),
        .q = qkv,
        .out = out,
        .partials = s->partials,
        .kv = s->kv.pages,
        .page_bytes = s->kv.page_bytes,
        .k_offset = kv_tile_offset(&s->kv, layer, 0, 0),
        .v_offset = kv_tile_offset(&s->kv, layer, 1, 0),
        .head_bytes = kv_tile_bytes(s->kv.format, u->kv.page_tokens, u->head_dim),
        .q_stride = qkv_dim(u),
        .out_stride = out_stride,
        .n_heads = u->n_heads,
        .n_kv_heads = u->n_kv_heads,
        .head_dim = u->head_dim,
        .page_tokens = u->kv.page_tokens,
        .page_magic = attention_page_magic(u->kv.page_tokens),
        .window = shape->window,
        .scale = shape->scale,
        .softcap = shape->softcap,
        .k_scale = scale.k,
        .v_scale = scale.v,
    };

    for (size_t i = 0; i < s->n_launches; i++) {
        const struct attention_launch *l = &s->launches[i];
        cuda_launch(s, l->name, l->grid_x, l->grid_y, l->threads, l->shared_bytes, &a, sizeof a);
    }
}
