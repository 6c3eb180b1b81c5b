/* runtime_inspect.c - what a model will need under these settings on this host, before anything of it is loaded. */
#include <string.h>

#include "common/host.h"
#include "common/huge.h"
#include "common/log.h"
#include "gpu-worker/served_model.h"
#include "proto/host_tier.h"
#include "proto/ledger.h"

struct weights_size {
    uint64_t segment_max; /* bytes of the largest shard's segment */
    uint64_t data_max;    /* of its data */
    uint64_t all;         /* of the data of all shards */
};

/* Bytes of the other shards; shard 0 is planned already. */
static bool size_weights(const struct model *m, const struct config *config,
                         const struct backend_kind *kind, const struct weights_plan *first,
                         struct weights_size *size, struct err *e)
{
    *size = (struct weights_size){ weights_plan_segment_bytes(first), first->data_bytes,
                                   first->data_bytes };
    for (uint32_t rank = 1; rank < config->tp_size; rank++) {
        struct weights_plan plan = { .quantize = first->quantize,
                                     .packing = first->packing,
                                     .is_apart = first->is_apart };
        bool ok = llama_plan(&plan, &m->c, model_shard(config, kind, rank), m->files, e);
        uint64_t bytes = weights_plan_segment_bytes(&plan);
        size->segment_max = bytes > size->segment_max ? bytes : size->segment_max;
        size->data_max = plan.data_bytes > size->data_max ? plan.data_bytes : size->data_max;
        size->all += plan.data_bytes;
        weights_plan_fini(&plan);
        if (!ok)
            return false;
    }
    return true;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* Pages for all groups of the host; 0 and ERR_CONFIG when the setting leaves no room for one full sequence.
 * Without the setting: what all sequences can use, at most what the budget allows, and never less than one
 * sequence. */
static uint32_t size_kvpool(const struct model *m, const struct config *config, uint64_t page_bytes,
                            uint64_t budget, struct err *e)
{
    uint32_t pages_a_seq = model_pages_for(config, m->info.max_model_len);
    uint64_t wanted = config->groups * config->max_num_seqs * pages_a_seq;
    uint64_t pages = least(wanted, budget / page_bytes);

    if (config->kv_cache_bytes > 0)
        pages = config->kv_cache_bytes / page_bytes;
    else if (pages < config->groups * pages_a_seq)
        pages = config->groups * pages_a_seq;
    if (pages < pages_a_seq) {
        err_set(
            e, ERR_CONFIG, 0,
            "KV memory for %llu pages of %llu bytes (kv_cache_bytes); one sequence of %u tokens "
            "needs %u: lower max_model_len",
            (unsigned long long)pages, (unsigned long long)page_bytes, m->info.max_model_len,
            pages_a_seq);
        return 0;
    }
    return (uint32_t)least(pages, KV_PAGE_NONE - 1);
}

/* What n segments get out of the pool of huge pages, all or nothing (segment_create_large()): that memory is not
 * part of what is free, and comes on top of it. */
static uint64_t take_from_pool(uint64_t *pool, uint64_t segment_bytes, uint64_t n)
{
    uint64_t bytes = n * ((segment_bytes + HUGE_BYTES - 1) / HUGE_BYTES * HUGE_BYTES);

    if (segment_bytes < HUGE_FROM_BYTES || bytes > *pool)
        return 0;
    *pool -= bytes;
    return bytes;
}

static uint64_t pool_bytes(const struct config *config)
{
    struct huge_host host;

    if (strcmp(config->huge_pages, "off") == 0)
        return 0;
    huge_host_read(&host, "");
    return host.pool_free * HUGE_BYTES;
}

static uint64_t mib(uint64_t bytes)
{
    return bytes >> 20;
}

/* A memfd has no limit of its own: it could be made and mapped in any size, and the kernel's killer would
 * come at full load.  So what the segments will come to must be free now. */
static bool check_memory(const struct config *config, const Llmd__ModelPlan *plan,
                         uint64_t available, struct err *e)
{
    struct ledger_shape shape = { .n_entries =
                                      (uint32_t)(config->max_num_seqs + config->max_waiting_seqs),
                                  .tokens_max = plan->max_model_len,
                                  .page_tokens = plan->kv_page_tokens };
    uint64_t kv = (uint64_t)plan->kv_pages * plan->kv_page_bytes;
    uint64_t other = config->groups * (plan->group_bytes +
                                       ledger_bytes_used(&shape, (uint32_t)config->max_num_seqs));
    uint64_t needed = plan->weights_bytes + kv + other;

    if (available == 0 || needed <= available) /* 0: nothing can be known */
        return true;
    return err_set(
        e, ERR_CONFIG, 0,
        "%llu bytes of memory are missing (MiB: weights %llu, KV pages %llu, ledgers %llu, "
        "free %llu): lower kv_cache_bytes or max_model_len, or raise the container's memory "
        "limit; SHM_SIZE does not count, memfds are not in /dev/shm",
        (unsigned long long)(needed - available), (unsigned long long)mib(plan->weights_bytes),
        (unsigned long long)mib(kv), (unsigned long long)mib(other),
        (unsigned long long)mib(available));
}

static void fill_plan(Llmd__ModelPlan *plan, const struct model_info *info,
                      const struct kvpool_shape *kv, const struct weights_size *weights)
{
    llmd__model_plan__init(plan);
    plan->name = (char *)(uintptr_t)info->name;
    plan->architecture = (char *)(uintptr_t)info->architecture;
    plan->max_model_len = info->max_model_len;
    plan->vocab_size = info->vocab_size;
    plan->n_layers = info->n_layers;
    plan->n_kv_heads = info->n_kv_heads;
    plan->head_dim = info->head_dim;
    plan->kv_dtype = kv->dtype;
    plan->kv_page_tokens = kv->page_tokens;
    plan->kv_page_bytes = kvpool_page_bytes(kv);
    plan->hidden_size = info->hidden_size;
    plan->weights_bytes = weights->all;
    plan->parameters = info->parameters;
    plan->weights_dtype = (char *)(uintptr_t)info->weights_dtype;
    plan->weights_shard_bytes = weights->segment_max;
}

/* Segments hold everything: half of what is free beside the weights is for KV pages. */
static bool size_on_host(const struct model *m, const struct config *config,
                         const struct weights_size *weights, struct kvpool_shape *shape,
                         Llmd__ModelPlan *plan, struct err *e)
{
    uint64_t available = host_memory_available(""), pool = pool_bytes(config);
    uint64_t page_bytes = kvpool_page_bytes(shape);

    if (available > 0)
        available += take_from_pool(&pool, weights->segment_max, (uint32_t)config->tp_size);
    shape->n_pages = size_kvpool(m, config, page_bytes,
                                 available > weights->all ? (available - weights->all) / 2 : 0, e);
    if (shape->n_pages == 0)
        return false;
    if (available > 0)
        available += take_from_pool(&pool, shape->n_pages * page_bytes, 1);
    plan->kv_pages = shape->n_pages;
    return check_memory(config, plan, available, e);
}

/* Each rank has its shard and its heads of its group's pages on its GPU: all of that is for them.  Of the host the
 * rest. */
static bool size_on_device(const struct model *m, const struct config *config,
                           const struct backend_kind *kind, const struct weights_size *weights,
                           Llmd__ModelPlan *plan, struct err *e)
{
    struct llama_shard shard = model_shard(config, kind, 0);
    struct ops_setup setup = model_ops_setup(m, config, shard);
    uint64_t ranks = config->groups * config->tp_size;
    struct backend_room free_room = kind->room(&setup, (uint32_t)ranks);
    uint64_t room = free_room.bytes;
    uint64_t page_bytes = kind->page_bytes(&setup, m->c.n_layers);
    uint64_t left = room > weights->data_max ? room - weights->data_max : 0;
    uint64_t pages = size_kvpool(m, config, page_bytes * config->tp_size, left * ranks, e);

    if (pages == 0)
        return false;
    pages = pages / config->groups * config->groups;
    plan->kv_pages = (uint32_t)pages;
    plan->kv_rank_page_bytes = page_bytes;
    plan->device_bytes = weights->data_max + pages / config->groups * page_bytes;
    if (plan->device_bytes > room)
        return err_set(e, ERR_CONFIG, 0,
                       "%llu MiB of GPU memory are missing (weights %llu, KV pages %llu, free "
                       "%llu, %llu are in use%s): lower kv_cache_bytes or max_model_len, or use "
                       "more GPUs",
                       (unsigned long long)mib(plan->device_bytes - room),
                       (unsigned long long)mib(weights->data_max),
                       (unsigned long long)mib(plan->device_bytes - weights->data_max),
                       (unsigned long long)mib(room),
                       (unsigned long long)mib(free_room.taken_bytes),
                       free_room.is_ownerless ? " by no process that NVML shows" : "");
    return true;
}

/* The host has no kernels for fp8. */
static void say_what_differs(const struct config *config, const struct backend_kind *kind)
{
    enum dtype pages = model_kv_dtype(config, kind), matrices = kind->packing->dtype(DTYPE_E4M3);

    if (strcmp(config->kv_cache_dtype, "fp8") == 0 && pages != DTYPE_E4M3)
        log_warning("kv_cache_dtype is fp8: the %s backend keeps KV pages as %s, the nearest",
                    kind->name, dtype_name(pages));
    if (strcmp(config->quantize, "fp8") == 0 && matrices != DTYPE_E4M3)
        log_warning("quantize is fp8: the %s backend keeps matrices as %s, the nearest", kind->name,
                    dtype_name(matrices));
}

/* What the setting gives a group must be a page at least. */
static bool size_host_tier(const struct config *config, Llmd__ModelPlan *plan, struct err *e)
{
    uint64_t page_bytes = plan->kv_rank_page_bytes * config->tp_size;
    uint64_t pages = config->kv_host_bytes / page_bytes / config->groups * config->groups;
    uint64_t available = host_memory_available("");

    if (config->kv_host_bytes == 0)
        return true;
    if (pages == 0)
        return err_set(e, ERR_CONFIG, 0,
                       "kv_host_bytes: %llu bytes are less than a KV page of %llu for each group",
                       (unsigned long long)config->kv_host_bytes, (unsigned long long)page_bytes);
    if (available > 0 && pages * page_bytes > available)
        return err_set(e, ERR_CONFIG, 0, "kv_host_bytes: %llu MiB of memory are wanted, %llu free",
                       (unsigned long long)mib(pages * page_bytes),
                       (unsigned long long)mib(available));
    plan->kv_host_pages = (uint32_t)least(pages, HOST_SLOT_NONE - 1);
    return true;
}

bool runtime_inspect(const struct config *config, struct model_info *info, Llmd__ModelPlan *plan,
                     struct err *e)
{
    struct llama_shard shard = { .tp_size = (uint32_t)config->tp_size };
    const struct backend_kind *kind;
    struct model m = { 0 };
    struct weights_plan first = { 0 };
    struct weights_size weights;
    struct kvpool_shape shape;
    struct comm_shape group;
    struct ops_setup setup;
    bool ok = false;

    if (!model_open(&m, config, shard.tp_size, e))
        goto out;
    setup = model_ops_setup(&m, config, shard);
    kind = backend_choose(config, &setup, e);
    if (!kind)
        goto out;
    say_what_differs(config, kind);
    shard = model_shard(config, kind, 0);
    first = model_empty_plan(config, kind);
    if (!model_plan(&m, config, shard, &first, e) ||
        !size_weights(&m, config, kind, &first, &weights, e))
        goto out;
    shape = (struct kvpool_shape){ .page_tokens = (uint32_t)config->kv_page_tokens,
                                   .n_layers = m.c.n_layers,
                                   .n_kv_heads = m.c.n_kv_heads,
                                   .head_dim = m.c.head_dim,
                                   .dtype = model_kv_dtype(config, kind) };
    group = model_comm_shape(&m, config, shard.tp_size, kind);
    if (comm_group_bytes(&group) == UINT64_MAX) {
        err_set(e, ERR_CONFIG, 0, "max_num_seqs %u of %u pages each: the group's plan is too large",
                group.seqs_max, group.pages_max);
        goto out;
    }
    *info = m.info;
    fill_plan(plan, info, &shape, &weights);
    plan->group_bytes = comm_group_bytes(&group);
    plan->on_device = kind->on_device;
    plan->gpus = info->gpus;
    plan->gpu_note = info->gpu_note;
    ok = kind->describe(config, (uint32_t)(config->groups * config->tp_size), info->gpus,
                        info->gpu_note, e) &&
         (kind->on_device ? size_on_device(&m, config, kind, &weights, plan, e) &&
                                size_host_tier(config, plan, e)
                          : size_on_host(&m, config, &weights, &shape, plan, e));
    if (ok && !kind->on_device && config->kv_host_bytes > 0)
        log_warning("kv_host_bytes is for models on GPUs: here KV pages are in host memory anyway "
                    "(kv_cache_bytes), ignoring it");
out:
    weights_plan_fini(&first);
    model_close(&m);
    return ok;
}
