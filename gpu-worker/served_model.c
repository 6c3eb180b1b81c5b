/* served_model.c - see served_model.h. */
#include "gpu-worker/served_model.h"

#include <stdio.h>
#include <string.h>

#include "gpu-worker/load/kv_scales.h"

static_assert((int)MODEL_EOS_MAX == (int)MODEL_CONFIG_EOS_MAX, "model_info holds every EOS id");

/* The type that most bytes of the weights have. */
static const char *main_dtype(const struct weights_plan *plan)
{
    uint64_t bytes[N_DTYPES] = { 0 };
    uint32_t best = DTYPE_NONE;

    for (uint32_t i = 0; i < plan->n; i++)
        bytes[plan->tensors[i].entry.dtype] += plan->tensors[i].entry.bytes;
    for (uint32_t t = 0; t < N_DTYPES; t++)
        best = bytes[t] > bytes[best] ? t : best;
    return dtype_name((enum dtype)best);
}

static void fill_info(struct model *m, const char *dir, const struct weights_plan *plan)
{
    size_t end = strlen(dir), begin;

    while (end > 1 && dir[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && dir[begin - 1] != '/';)
        begin--;
    snprintf(m->info.name, sizeof m->info.name, "%.*s", (int)(end - begin), dir + begin);
    snprintf(m->info.architecture, sizeof m->info.architecture, "%s", m->c.architecture);
    snprintf(m->info.weights_dtype, sizeof m->info.weights_dtype, "%s", main_dtype(plan));
    m->info.vocab_size = m->c.vocab_size;
    m->info.n_layers = m->c.n_layers;
    m->info.n_kv_heads = m->c.n_kv_heads;
    m->info.head_dim = m->c.head_dim;
    m->info.hidden_size = m->c.hidden_size;
    m->info.parameters = plan->parameters;
    m->info.n_eos = m->c.n_eos;
    memcpy(m->info.eos, m->c.eos, sizeof m->info.eos);
}

static bool set_max_model_len(struct model *m, const struct config *config, struct err *e)
{
    if (config->max_model_len > m->c.positions_max)
        return err_set(e, ERR_CONFIG, 0,
                       "max_model_len %llu is more than the %u tokens the model was made for "
                       "(config.json: max_position_embeddings)",
                       (unsigned long long)config->max_model_len, m->c.positions_max);
    m->info.max_model_len =
        config->max_model_len > 0 ? (uint32_t)config->max_model_len : m->c.positions_max;
    return true;
}

bool model_open(struct model *m, const struct config *config, uint32_t tp_size, struct err *e)
{
    if (!model_config_read(&m->c, config->model, e) ||
        !quantize_check(config->quantize, &m->c.quantization, e) ||
        !set_max_model_len(m, config, e) || !llama_check_shard(&m->c, tp_size, e))
        return false;
    m->files = tensors_open(config->model, e);
    if (!m->files)
        return false;
    return kv_scales_read(m->kv_scales, m->c.n_layers, m->files, &m->n_kv_scales, e) ||
           err_wrap(e, "model directory '%s'", config->model);
}

/* Sums that ranks share are not the bits of those that one rank makes. */
struct llama_shard model_shard(const struct config *config, const struct backend_kind *kind,
                               uint32_t rank)
{
    return (struct llama_shard){ .rank = rank,
                                 .tp_size = (uint32_t)config->tp_size,
                                 .splits_sums =
                                     kind->on_device && strcmp(config->deterministic, "on") != 0 };
}

struct weights_plan model_empty_plan(const struct config *config, const struct backend_kind *kind)
{
    return (struct weights_plan){ .quantize = quantize_of(config->quantize),
                                  .packing = kind->packing,
                                  .is_apart = kind->on_device };
}

bool model_plan(struct model *m, const struct config *config, struct llama_shard shard,
                struct weights_plan *plan, struct err *e)
{
    if (!llama_plan(plan, &m->c, shard, m->files, e))
        return err_wrap(e, "model directory '%s'", config->model);
    fill_info(m, config->model, plan);
    return true;
}

void model_close(struct model *m)
{
    tensors_close(m->files);
    m->files = NULL;
}

static enum dtype wanted_kv_dtype(const struct config *config)
{
    if (strcmp(config->kv_cache_dtype, "int8") == 0)
        return DTYPE_I8;
    if (strcmp(config->kv_cache_dtype, "fp8") == 0)
        return DTYPE_E4M3;
    return strcmp(config->kv_cache_dtype, "float32") == 0 ? DTYPE_F32 : DTYPE_F16;
}

enum dtype model_kv_dtype(const struct config *config, const struct backend_kind *kind)
{
    return kind->kv_dtype(wanted_kv_dtype(config));
}

uint32_t model_pages_for(const struct config *config, uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + config->kv_page_tokens - 1) / config->kv_page_tokens);
}

struct ops_setup model_ops_setup(const struct model *m, const struct config *config,
                                 struct llama_shard shard)
{
    const struct model_config *c = &m->c;
    uint32_t rows = (uint32_t)config->max_num_batched_tokens;
    uint32_t seqs = (uint32_t)config->max_num_seqs;

    return (struct ops_setup){
        .rows_max = rows > seqs ? rows : seqs,
        .seqs_max = seqs,
        .pages_max = model_pages_for(config, m->info.max_model_len),
        .logits_max = (uint32_t)batch_logits_max(seqs),
        .logits_cols = llama_vocab_max(c, shard),
        .vocab_size = c->vocab_size,
        .cols_max = llama_cols_max(c),
        .column_unit = llama_column_unit(c, shard.tp_size),
        .gated_max = llama_gated_max(c, shard),
        .n_experts = c->n_experts,
        .n_experts_used = c->n_experts_used,
        .expert_down_max = llama_down_max(c, shard),
        .n_heads = llama_n_heads(c, shard),
        .n_kv_heads = llama_n_kv_heads(c, shard),
        .head_dim = c->head_dim,
        .rope_dim = c->rope_dim,
        .rope_amplitude = c->rope_amplitude,
        .positions_max = m->info.max_model_len,
        .kv = { .page_tokens = (uint32_t)config->kv_page_tokens,
                .n_heads_model = c->n_kv_heads,
                .first_head = shard.rank * llama_n_kv_heads(c, shard),
                .dtype = wanted_kv_dtype(config),
                .scales = m->n_kv_scales > 0 ? m->kv_scales : NULL },
    };
}

struct comm_shape model_comm_shape(const struct model *m, const struct config *config,
                                   uint32_t tp_size, const struct backend_kind *kind)
{
    uint32_t rows = (uint32_t)config->max_num_batched_tokens;
    uint32_t seqs = (uint32_t)config->max_num_seqs;

    return (struct comm_shape){
        .tp_size = tp_size,
        .rows_max = rows,
        .seqs_max = seqs,
        .pages_max = model_pages_for(config, m->info.max_model_len),
        .activation_bytes =
            llama_activation_bytes(&m->c, model_shard(config, kind, 0), rows, sizeof(float)),
        .host_bytes =
            llama_logits_bytes(&m->c, (uint32_t)batch_logits_max(seqs)) + kind->host_bytes(tp_size),
        .on_device = kind->on_device,
    };
}
