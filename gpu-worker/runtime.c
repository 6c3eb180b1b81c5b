/* runtime.c - settings, files and segments put together into a model that runs.
 *
 * Both doors start from the same struct model: what the directory says, checked against the settings.
 * runtime_inspect() turns it into sizes; runtime_open() into a running rank. */
#include "gpu-worker/runtime.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/fault_point.h"
#include "common/host.h"
#include "common/huge.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/topology.h"
#include "gpu-worker/comm/comm.h"
#include "gpu-worker/load/huge_pages.h"
#include "gpu-worker/load/model_config.h"
#include "gpu-worker/load/weights_guard.h"
#include "gpu-worker/models/llama.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/ops/packing.h"
#include "proto/ledger.h"

#define CHECK_NS (20 * NS_PER_MS) /* for verifying weights before service */

static_assert((int)MODEL_EOS_MAX == (int)MODEL_CONFIG_EOS_MAX, "model_info holds every EOS id");
static_assert(ATTENTION_PAGE_TOKENS_MAX >= 256, "config.def: kv_page_tokens");

/* ---- the model and the settings ---- */

struct model {
    struct model_config c;
    struct tensors *files;
    struct model_info info;
};

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

/* Also plans the weights of one shard. */
static bool model_open(struct model *m, const struct config *config, struct llama_shard shard,
                       struct weights_plan *plan, struct err *e)
{
    if (!model_config_read(&m->c, config->model, e) || !set_max_model_len(m, config, e) ||
        !llama_check_shard(&m->c, shard.tp_size, e))
        return false;
    m->files = tensors_open(config->model, e);
    if (!m->files)
        return false;
    plan->quantize = quantize_of(config->quantize);
    if (!llama_plan(plan, &m->c, shard, m->files, e))
        return err_wrap(e, "model directory '%s'", config->model);
    fill_info(m, config->model, plan);
    return true;
}

static void model_close(struct model *m)
{
    tensors_close(m->files);
    m->files = NULL;
}

/* auto: float16.  Logits of the demo model then stay within 2e-3 of the float32 reference. */
static enum dtype kv_dtype(const struct config *config)
{
    if (strcmp(config->kv_cache_dtype, "int8") == 0)
        return DTYPE_I8;
    return strcmp(config->kv_cache_dtype, "float32") == 0 ? DTYPE_F32 : DTYPE_F16;
}

static uint32_t pages_of(const struct config *config, uint64_t n_tokens)
{
    return (uint32_t)((n_tokens + config->kv_page_tokens - 1) / config->kv_page_tokens);
}

static struct comm_shape comm_shape_of(const struct model *m, const struct config *config,
                                       uint32_t tp_size)
{
    uint32_t rows = (uint32_t)config->max_num_batched_tokens;
    uint32_t seqs = (uint32_t)config->max_num_seqs;

    return (struct comm_shape){
        .tp_size = tp_size,
        .rows_max = rows,
        .seqs_max = seqs,
        .pages_max = pages_of(config, m->info.max_model_len),
        .exchange_bytes =
            llama_exchange_bytes(&m->c, rows, (uint32_t)batch_logits_max(seqs), sizeof(float)),
    };
}

/* ---- a running rank ---- */

struct runtime {
    struct config config; /* as it was at the start: a repair opens the model's files again */
    struct stats *stats;  /* or NULL */
    struct model model;
    struct llama_shard shard;
    struct kvpool *pool;
    struct threads *threads;
    struct weights weights;
    struct weights_guard *guard;
    uint32_t n_checked; /* chunks of the weights, before service */
    struct comm *comm;
    const struct ops *ops;
    struct ops_stream *stream;
    struct llama *llama;
    struct hash128 rope; /* of the frequencies: keys in the pages are turned by them */
    struct hash128 kv_identity;
    uint32_t rows_max, seqs_max;
    uint32_t n_rows; /* of the last step */
};

static bool check_pool(const struct kvpool *pool, const struct model *m,
                       const struct config *config, struct err *e)
{
    const struct kvpool_hdr *h = pool->hdr;
    struct kvpool_shape shape = { .n_pages = h->n_pages,
                                  .page_tokens = h->page_tokens,
                                  .n_layers = h->n_layers,
                                  .n_kv_heads = h->n_kv_heads,
                                  .head_dim = h->head_dim,
                                  .dtype = (enum dtype)h->dtype };

    if (h->page_bytes != kvpool_page_bytes(&shape))
        return err_set(e, ERR_PROTO, 0, "KV pool: pages of %llu bytes, their shape needs %llu",
                       (unsigned long long)h->page_bytes,
                       (unsigned long long)kvpool_page_bytes(&shape));
    if (h->n_layers != m->c.n_layers || h->n_kv_heads != m->c.n_kv_heads ||
        h->head_dim != m->c.head_dim || h->dtype != kv_dtype(config) ||
        h->page_tokens != config->kv_page_tokens)
        return err_set(
            e, ERR_PROTO, 0,
            "KV pool: %u layers, %u heads of %u, %u tokens a page, %s; the model wants %u "
            "layers, %u heads of %u, %llu tokens a page, %s",
            h->n_layers, h->n_kv_heads, h->head_dim, h->page_tokens, dtype_name(h->dtype),
            m->c.n_layers, m->c.n_kv_heads, m->c.head_dim,
            (unsigned long long)config->kv_page_tokens, dtype_name(kv_dtype(config)));
    return true;
}

static void open_ops(struct runtime *rt, const struct config *config)
{
    const struct model_config *c = &rt->model.c;
    const struct kvpool_hdr *h = rt->pool->hdr;
    double *freq = mem_zalloc(c->rope_dim / 2, sizeof *freq);
    struct ops_setup setup = {
        .rows_max = rt->rows_max > rt->seqs_max ? rt->rows_max : rt->seqs_max,
        .cols_max = llama_cols_max(c),
        .gated_max = llama_gated_max(c, rt->shard),
        .n_experts = c->n_experts,
        .n_experts_used = c->n_experts_used,
        .expert_down_max = llama_down_max(c, rt->shard),
        .n_heads = llama_n_heads(c, rt->shard),
        .n_kv_heads = llama_n_kv_heads(c, rt->shard),
        .head_dim = c->head_dim,
        .rope_dim = c->rope_dim,
        .rope_amplitude = c->rope_amplitude,
        .positions_max = rt->model.info.max_model_len,
        .rope_freq = freq,
        .kv = { .pages = kvpool_page(rt->pool, 0),
                .page_bytes = h->page_bytes,
                .n_pages = h->n_pages,
                .page_tokens = h->page_tokens,
                .n_heads_model = h->n_kv_heads,
                .first_head = rt->shard.rank * llama_n_kv_heads(c, rt->shard),
                .dtype = h->dtype },
    };

    model_config_rope_freq(c, rt->model.info.max_model_len, freq);
    rt->rope = hash128(freq, c->rope_dim / 2 * sizeof *freq, 0);
    rt->ops = ops_cpu_open(cpu_tier_choose(config->cpu_tier), &setup, rt->threads, &rt->stream);
    free(freq);
}

/* ---- threads ---- */

/* 0 = the cores we may use, shared out among all ranks of the host. */
static uint32_t threads_of(const struct config *config, const struct topology *machine,
                           uint32_t n_ranks)
{
    uint32_t n = (uint32_t)config->threads;

    if (n == 0)
        n = topology_cores(machine) / n_ranks;
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : n;
}

static enum topology_pin pin_of(const struct config *config)
{
    if (strcmp(config->pin_threads, "off") == 0)
        return PIN_OFF;
    return strcmp(config->pin_threads, "on") == 0 ? PIN_ON : PIN_AUTO;
}

/* Pinned before they load or map weights, whose pages come to lie on the node of the thread that writes. */
static bool open_threads(struct runtime *rt, const struct runtime_boot *boot, struct err *e)
{
    struct topology machine;
    struct topology_rank rank = { .rank = boot->group * boot->tp_size + boot->rank,
                                  .n_ranks = (uint32_t)boot->config->groups * boot->tp_size };
    enum topology_pin pin = pin_of(boot->config);
    uint32_t cpus[THREADS_MAX];
    struct err why;

    topology_read(&machine, "");
    rank.n_threads = threads_of(boot->config, &machine, rank.n_ranks);
    rt->threads = threads_new(rank.n_threads, e);
    if (!rt->threads)
        return false;
    if (!topology_assign(&machine, pin, rank, cpus)) {
        if (pin == PIN_ON)
            log_warning("%u ranks of %u threads are more than the %u cores we may use, not pinning",
                        rank.n_ranks, rank.n_threads, machine.n_cores);
        return true;
    }
    if (threads_pin(rt->threads, cpus, &why))
        log_info("threads=%u pinned, from cpu=%u on", rank.n_threads, cpus[0]);
    else
        log_warning("%s, ignoring", why.msg);
    return true;
}

/* The guard may run anywhere: it begins where the thread that starts it may run. */
static void start_guard(struct runtime *rt, uint32_t first_chunk)
{
    threads_unpin_caller(rt->threads);
    weights_guard_start(rt->guard, first_chunk);
}

/* ---- weights that are still what was loaded ---- */

static struct hash128 layout_of(const struct model *m, const struct weights_plan *plan,
                                struct llama_shard shard)
{
    return weights_layout_hash(plan, m->files, m->c.digest, shard.rank, shard.tp_size,
                               PACKING_VERSION);
}

static bool repair_chunk(struct runtime *rt, const struct weights_plan *plan, uint32_t chunk,
                         struct err *e)
{
    if (!weights_repair(&rt->weights, plan, chunk, e))
        return false;
    log_error("chunk=%u of the weights in memory was corrupt, loaded it again", chunk);
    if (rt->stats)
        stat_add(rt->stats, STAT_weights_chunks_reloaded, 1);
    return true;
}

/* The guard's repair, on its thread: the files were closed long ago. */
static bool reopen_and_repair(void *arg, uint32_t chunk, struct err *e)
{
    struct runtime *rt = arg;
    struct weights_plan plan = { 0 };
    struct model m = { 0 };
    bool ok = false;

    if (model_open(&m, &rt->config, rt->shard, &plan, e)) {
        struct hash128 h = layout_of(&m, &plan, rt->shard);
        ok = (h.low == rt->weights.hdr->layout_hash[0] &&
              h.high == rt->weights.hdr->layout_hash[1] && repair_chunk(rt, &plan, chunk, e)) ||
             err_set(
                 e, ERR_MODEL, 0,
                 "chunk %u of the weights in memory is corrupt, and the model's files have changed "
                 "since they were loaded; stop and start llmd to load these",
                 chunk);
    }
    weights_plan_fini(&plan);
    model_close(&m);
    return ok;
}

/* As many chunks as a restart may cost, all when there is doubt; the guard does the rest. */
static bool check_weights(struct runtime *rt, const struct weights_plan *plan, struct err *e)
{
    bool doubt = atomic_load(&rt->weights.shared->doubt) != 0, ok = true;
    uint64_t deadline = doubt ? UINT64_MAX : clock_mono_ns() + CHECK_NS;
    struct weights_scan scan;

    if (doubt)
        log_warning(
            "a process died of a fault or computed what is no number, verifying the weights");
    weights_scan(&rt->weights, rt->threads, deadline, &scan);
    for (uint32_t i = 0; i < scan.n_corrupt && ok; i++)
        ok = repair_chunk(rt, plan, scan.corrupt[i], e);
    free(scan.corrupt);
    if (ok && scan.n_checked == rt->weights.hdr->n_chunks)
        atomic_store(&rt->weights.shared->doubt, 0);
    rt->n_checked = scan.n_checked;
    return ok;
}

_Atomic uint32_t *runtime_doubt(struct runtime *rt)
{
    return &rt->weights.shared->doubt;
}

void runtime_doubt_output(struct runtime *rt)
{
    atomic_store(&rt->weights.shared->doubt, 1);
    start_guard(rt, 0);
}

/* ---- open and close ---- */

/* Takes both descriptors of the boot, each exactly once. */
static bool open_parts(struct runtime *rt, const struct runtime_boot *boot, int *weights_fd,
                       int *group_fd, bool *loaded, struct err *e)
{
    const struct config *config = boot->config;
    struct weights_plan plan = { 0 };
    struct comm_shape shape;
    bool ok = false;
    int fd = *weights_fd;

    if (!open_threads(rt, boot, e) || !model_open(&rt->model, config, rt->shard, &plan, e) ||
        !check_pool(rt->pool, &rt->model, config, e))
        goto out;
    *weights_fd = -1;
    if (!weights_open(&rt->weights, fd, &plan, layout_of(&rt->model, &plan, rt->shard),
                      PACKING_VERSION, boot->epoch, rt->threads, loaded, e))
        goto out;
    rt->n_checked = rt->weights.hdr->n_chunks;
    if (!*loaded && !check_weights(rt, &plan, e))
        goto out;
    model_close(&rt->model); /* the mapped files */
    shape = comm_shape_of(&rt->model, config, boot->tp_size);
    fd = *group_fd;
    *group_fd = -1;
    rt->comm = comm_open(fd, &shape, boot->rank, boot->epoch, e);
    ok = rt->comm != NULL;
out:
    weights_plan_fini(&plan);
    return ok;
}

static struct hash128 identity_of(const struct runtime *rt)
{
    struct buf text = { 0 };
    struct hash128 h;

    buf_printf(&text, "weights %llx %llx rope %llx ops %s kv %u",
               (unsigned long long)rt->weights.hdr->layout_hash[0],
               (unsigned long long)rt->weights.hdr->layout_hash[1],
               (unsigned long long)rt->rope.low, rt->ops->name, rt->pool->hdr->dtype);
    h = hash128(text.data, text.n, 0);
    buf_fini(&text);
    return h;
}

struct runtime *runtime_open(const struct runtime_boot *boot, bool *loaded, struct err *e)
{
    struct runtime *rt = mem_zalloc(1, sizeof *rt);
    int weights_fd = boot->weights_fd, group_fd = boot->group_fd;

    assert(boot->tp_size >= 1 && boot->rank < boot->tp_size);
    rt->shard = (struct llama_shard){ boot->rank, boot->tp_size };
    rt->config = *boot->config;
    rt->stats = boot->stats;
    rt->pool = boot->pool;
    rt->guard = weights_guard_new(&rt->weights, reopen_and_repair, rt);
    rt->rows_max = (uint32_t)boot->config->max_num_batched_tokens;
    rt->seqs_max = (uint32_t)boot->config->max_num_seqs;
    if (!open_parts(rt, boot, &weights_fd, &group_fd, loaded, e)) {
        if (weights_fd >= 0)
            close(weights_fd);
        if (group_fd >= 0)
            close(group_fd);
        runtime_close(rt);
        return NULL;
    }
    huge_pages_advise(&rt->pool->segment);
    open_ops(rt, boot->config);
    rt->kv_identity = identity_of(rt);
    rt->llama = llama_open(&rt->model.c, rt->shard, &rt->weights, rt->ops, rt->stream, rt->comm,
                           rt->rows_max, (uint32_t)batch_logits_max(rt->seqs_max));
    if (rt->n_checked < rt->weights.hdr->n_chunks)
        start_guard(rt, rt->n_checked);
    return rt;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    llama_close(rt->llama);
    if (rt->ops)
        rt->ops->close(rt->stream);
    comm_close(rt->comm);
    weights_guard_free(rt->guard);
    weights_close(&rt->weights);
    model_close(&rt->model);
    threads_free(rt->threads);
    free(rt);
}

const struct model_info *runtime_info(const struct runtime *rt)
{
    return &rt->model.info;
}

struct hash128 runtime_kv_identity(const struct runtime *rt)
{
    return rt->kv_identity;
}

/* The engine checks what clients send; a bad batch here is a bug of ours. */
static void check_batch(const struct runtime *rt, const struct batch *b)
{
    assert(b->n_rows > 0 && b->n_rows <= rt->rows_max);
    assert(b->n_seqs > 0 && b->n_seqs <= rt->seqs_max &&
           b->n_logits <= batch_logits_max(b->n_seqs));
    for (uint32_t i = 0; i < b->n_rows; i++)
        assert(b->tokens[i] >= 0 && (uint32_t)b->tokens[i] < rt->model.info.vocab_size);
    for (uint32_t i = 0; i < b->n_logits; i++)
        assert(b->logit_rows[i] < b->n_rows);
}

bool runtime_forward(struct runtime *rt, const struct batch *batch, float *logits, struct err *e)
{
    size_t n = (size_t)batch->n_logits * rt->model.info.vocab_size;

    assert(rt->shard.rank == 0);
    check_batch(rt, batch);
    threads_pin_caller(rt->threads);
    if (weights_guard_failed(rt->guard, e))
        return false;
    if (!comm_publish(rt->comm, batch, e) || !llama_forward(rt->llama, batch, e))
        return false;
    if (n > 0)
        memcpy(logits, llama_logits(rt->llama), n * sizeof *logits);
    rt->n_rows = batch->n_rows;
    return true;
}

void runtime_hidden(struct runtime *rt, uint32_t first_row, uint32_t n, float *out)
{
    assert(rt->shard.rank == 0 && first_row + n <= rt->n_rows);
    llama_hidden(rt->llama, first_row, n, out);
}

bool runtime_follow(struct runtime *rt, struct err *e)
{
    struct batch b;

    assert(rt->shard.rank > 0);
    threads_pin_caller(rt->threads);
    for (;;) {
        switch (comm_follow(rt->comm, &b, e)) {
        case COMM_STEP:
            check_batch(rt, &b);
            fault_point("follower.step");
            if (weights_guard_failed(rt->guard, e) || !llama_forward(rt->llama, &b, e))
                return false;
            break;
        case COMM_STOP:
            return true;
        default:
            return false;
        }
    }
}

void runtime_stop(struct runtime *rt)
{
    comm_stop(rt->comm);
}

void runtime_parallel(struct runtime *rt, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n)
{
    threads_run(rt->threads, fn, arg, n);
}

/* ---- inspect ---- */

struct weights_size {
    uint64_t shard_max, all; /* bytes */
};

/* Bytes of the other shards; shard 0 is planned already. */
static bool size_weights(const struct model *m, uint32_t tp_size, const struct weights_plan *first,
                         struct weights_size *size, struct err *e)
{
    *size = (struct weights_size){ weights_plan_segment_bytes(first), first->data_bytes };
    for (uint32_t rank = 1; rank < tp_size; rank++) {
        struct weights_plan plan = { .quantize = first->quantize };
        bool ok = llama_plan(&plan, &m->c, (struct llama_shard){ rank, tp_size }, m->files, e);
        uint64_t bytes = weights_plan_segment_bytes(&plan);
        size->shard_max = bytes > size->shard_max ? bytes : size->shard_max;
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
 * Without the setting: what all sequences can use, at most half of what is free beside the weights, and never
 * less than one sequence. */
static uint32_t size_kvpool(const struct model *m, const struct config *config, uint64_t page_bytes,
                            uint64_t weights_bytes, uint64_t available, struct err *e)
{
    uint32_t pages_a_seq = pages_of(config, m->info.max_model_len);
    uint64_t wanted = config->groups * config->max_num_seqs * pages_a_seq;
    uint64_t budget = available > weights_bytes ? (available - weights_bytes) / 2 : 0;
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
    plan->kv_pages = kv->n_pages;
    plan->hidden_size = info->hidden_size;
    plan->weights_bytes = weights->all;
    plan->parameters = info->parameters;
    plan->weights_dtype = (char *)(uintptr_t)info->weights_dtype;
    plan->weights_shard_bytes = weights->shard_max;
}

bool runtime_inspect(const struct config *config, struct model_info *info, Llmd__ModelPlan *plan,
                     struct err *e)
{
    uint64_t available = host_memory_available(""), pool = pool_bytes(config);
    uint32_t tp_size = (uint32_t)config->tp_size;
    struct model m = { 0 };
    struct weights_plan first = { 0 };
    struct weights_size weights;
    struct kvpool_shape shape;
    struct comm_shape group;
    bool ok = false;

    if (!model_open(&m, config, (struct llama_shard){ 0, tp_size }, &first, e) ||
        !size_weights(&m, tp_size, &first, &weights, e))
        goto out;
    if (available > 0)
        available += take_from_pool(&pool, weights.shard_max, tp_size);
    shape = (struct kvpool_shape){ .page_tokens = (uint32_t)config->kv_page_tokens,
                                   .n_layers = m.c.n_layers,
                                   .n_kv_heads = m.c.n_kv_heads,
                                   .head_dim = m.c.head_dim,
                                   .dtype = kv_dtype(config) };
    shape.n_pages = size_kvpool(&m, config, kvpool_page_bytes(&shape), weights.all, available, e);
    if (shape.n_pages == 0)
        goto out;
    if (available > 0)
        available += take_from_pool(&pool, shape.n_pages * kvpool_page_bytes(&shape), 1);
    group = comm_shape_of(&m, config, tp_size);
    if (comm_group_bytes(&group) == UINT64_MAX) {
        err_set(e, ERR_CONFIG, 0, "max_num_seqs %u of %u pages each: the group's plan is too large",
                group.seqs_max, group.pages_max);
        goto out;
    }
    *info = m.info;
    fill_plan(plan, info, &shape, &weights);
    plan->group_bytes = comm_group_bytes(&group);
    ok = check_memory(config, plan, available, e);
out:
    weights_plan_fini(&first);
    model_close(&m);
    return ok;
}
