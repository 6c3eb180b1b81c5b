/* runtime.c - a served model (served_model.h) and its segments put together into a running rank. */
#include "gpu-worker/runtime.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/buf.h"
#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/topology.h"
#include "gpu-worker/load/huge_pages.h"
#include "gpu-worker/load/weights_guard.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "gpu-worker/sampler.h"
#include "gpu-worker/served_model.h"
#include "proto/worker_exit.h"

#define CHECK_NS (20 * NS_PER_MS) /* for verifying weights before service */

enum { ORDER_REST = 1000 }; /* to the other ranks; smaller numbers are the backend's own */

static_assert(ATTENTION_PAGE_TOKENS_MAX >= 256, "config.def: kv_page_tokens");

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
    struct backend backend;
    struct llama *llama;
    struct hash128 rope; /* of the frequencies: keys in the pages are turned by them */
    struct hash128 kv_identity, kv_place;
    uint32_t rows_max, seqs_max;
    uint32_t n_hidden; /* rows of the last step, if it keeps hidden states */
};

/* The one that llmd has laid the segments out for. */
static const struct backend_kind *kind_of(const struct kvpool *pool)
{
    return pool->hdr->place == KV_PLACE_DEVICE ? &backend_cuda : &backend_cpu;
}

static bool check_pool(const struct kvpool *pool, const struct model *m,
                       const struct config *config, struct err *e)
{
    const struct kvpool_hdr *h = pool->hdr;
    enum dtype wanted = model_kv_dtype(config, kind_of(pool));
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
        h->head_dim != m->c.head_dim || h->dtype != wanted ||
        h->page_tokens != config->kv_page_tokens)
        return err_set(
            e, ERR_PROTO, 0,
            "KV pool: %u layers, %u heads of %u, %u tokens a page, %s; the model wants %u "
            "layers, %u heads of %u, %llu tokens a page, %s",
            h->n_layers, h->n_kv_heads, h->head_dim, h->page_tokens, dtype_name(h->dtype),
            m->c.n_layers, m->c.n_kv_heads, m->c.head_dim,
            (unsigned long long)config->kv_page_tokens, dtype_name(wanted));
    return true;
}

static bool open_ops(struct runtime *rt, struct err *e)
{
    const struct model_config *c = &rt->model.c;
    double *freq = mem_zalloc(c->rope_dim / 2, sizeof *freq);
    struct ops_setup setup = model_ops_setup(&rt->model, &rt->config, rt->shard);
    bool ok;

    model_config_rope_freq(c, rt->model.info.max_model_len, freq);
    rt->rope = hash128(freq, c->rope_dim / 2 * sizeof *freq, 0);
    setup.rope_freq = freq;
    setup.kv.n_pages = rt->pool->hdr->n_pages;
    ok = rt->backend.kind->open_ops(&rt->backend, &setup, rt->comm, e);
    free(freq);
    return ok;
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
                               plan->packing->version);
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
    struct weights_plan plan = model_empty_plan(&rt->config, rt->backend.kind);
    struct model m = { 0 };
    bool ok = false;

    if (model_open(&m, &rt->config, rt->shard.tp_size, e) &&
        model_plan(&m, &rt->config, rt->shard, &plan, e)) {
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

/* As many chunks as a restart may cost, all when there is doubt; the guard does the rest.  On a device all, when it has
 * failed or there is doubt, or none. */
static bool check_weights(struct runtime *rt, const struct weights_plan *plan, struct err *e)
{
    bool on_device = rt->backend.kind->on_device, ok = true;
    bool doubt = atomic_load(&rt->weights.shared->doubt) != 0 ||
                 (on_device && kvpool_is_doubted(rt->pool, rt->backend.group));
    uint64_t deadline = doubt ? UINT64_MAX : clock_mono_ns() + CHECK_NS;
    struct weights_scan scan;

    if (on_device && !doubt)
        return true;
    if (doubt)
        log_warning(
            "a process died of a fault or computed what is no number, verifying the weights");
    weights_scan(&rt->weights, rt->threads, deadline, &scan);
    for (uint32_t i = 0; i < scan.n_corrupt && ok; i++)
        ok = repair_chunk(rt, plan, scan.corrupt[i], e);
    free(scan.corrupt);
    if (ok && scan.n_checked == rt->weights.hdr->n_chunks)
        atomic_store(&rt->weights.shared->doubt, 0);
    else if (ok && on_device)
        return err_set(e, ERR_DEVICE, 0, "the weights in GPU memory cannot be verified");
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
    if (rt->backend.kind->on_device)
        weights_guard_look(rt->guard, rt->threads);
    else
        start_guard(rt, 0);
}

/* ---- open and close ---- */

/* What became of the matrices of a checkpoint that was quantised before. */
static void log_quantized(const struct model *m, const struct weights_plan *plan)
{
    uint32_t n_kept = 0, n_rounded = 0;
    char text[96];

    if (m->c.quantization.method == QUANTIZATION_NONE)
        return;
    for (uint32_t i = 0; i < plan->n; i++) {
        const struct weights_want *w = &plan->tensors[i];
        bool kept = quantize_keeps_codes(w->from->type, (enum dtype)w->entry.dtype);
        n_kept += w->from->packed && kept;
        n_rounded += w->from->packed && !kept;
    }
    quantization_describe(&m->c.quantization, text);
    log_info("weights: %s; %u matrices keep their codes, %u are rounded again; most are %s", text,
             n_kept, n_rounded, m->info.weights_dtype);
}

/* What became of the checkpoint's scales of keys and values: other formats have a scale of each vector, or need none. */
static void log_kv_scales(const struct model *m, enum dtype pages)
{
    if (m->n_kv_scales == 0)
        return;
    if (pages == DTYPE_E4M3)
        log_info("KV pages: the checkpoint's scales of %u layers are used", m->n_kv_scales);
    else
        log_info("KV pages: the checkpoint's scales of %u layers are for fp8 and not used for %s",
                 m->n_kv_scales, dtype_name(pages));
}

/* Memory files have no names: their inode tells one from all others of this machine. */
static uint64_t id_of_file(int fd)
{
    struct stat s = { 0 };

    return fstat(fd, &s) == 0 ? (uint64_t)s.st_dev << 48 ^ s.st_ino : 0;
}

static bool open_backend(struct runtime *rt, const struct runtime_boot *boot, struct err *e)
{
    rt->backend = (struct backend){ .kind = kind_of(rt->pool),
                                    .config = &rt->config,
                                    .group = boot->group,
                                    .rank = boot->rank,
                                    .tp_size = boot->tp_size,
                                    .epoch = boot->epoch,
                                    .threads = rt->threads,
                                    .pool = rt->pool,
                                    .host_tier = boot->host_tier,
                                    .road = boot->road,
                                    .gpus = boot->gpus,
                                    .pool_id = id_of_file(rt->pool->segment.fd),
                                    .group_id = id_of_file(boot->group_fd) };
    return rt->backend.kind->open(&rt->backend, e);
}

/* weights_fd: taken. */
static bool open_weights(struct runtime *rt, struct weights_plan *plan, int weights_fd,
                         bool *loaded, struct err *e)
{
    struct hash128 layout = layout_of(&rt->model, plan, rt->shard);
    struct ops_setup setup = model_ops_setup(&rt->model, &rt->config, rt->shard);

    if (!rt->backend.kind->open_memory(&rt->backend, plan, &setup, rt->model.c.n_layers, layout,
                                       e)) {
        close(weights_fd);
        return false;
    }
    plan->place = rt->backend.place;
    if (!weights_open(&rt->weights, weights_fd, plan, layout, plan->packing->version,
                      rt->backend.epoch, rt->threads, loaded, e))
        return false;
    if (*loaded) {
        log_quantized(&rt->model, plan);
        log_kv_scales(&rt->model, (enum dtype)rt->pool->hdr->dtype);
    }
    rt->n_checked = rt->weights.hdr->n_chunks;
    if (*loaded && rt->stats)
        stat_add(rt->stats, STAT_weights_bytes_loaded, rt->weights.hdr->data_bytes);
    return *loaded || check_weights(rt, plan, e);
}

static bool open_llama(struct runtime *rt, struct err *e)
{
    rt->llama =
        llama_open(&rt->model.c, rt->shard, &rt->weights, rt->backend.ops, rt->backend.stream,
                   rt->comm, rt->rows_max, (uint32_t)batch_logits_max(rt->seqs_max));
    return llama_rehearse(rt->llama, e);
}

/* Takes both descriptors of the boot, each exactly once. */
static bool open_parts(struct runtime *rt, const struct runtime_boot *boot, int *weights_fd,
                       int *group_fd, bool *loaded, struct err *e)
{
    const struct config *config = boot->config;
    struct weights_plan plan = model_empty_plan(config, kind_of(rt->pool));
    struct comm_shape shape;
    bool ok = false;
    int fd = *weights_fd;

    if (!open_threads(rt, boot, e) || !model_open(&rt->model, config, boot->tp_size, e) ||
        !model_plan(&rt->model, config, rt->shard, &plan, e) ||
        !check_pool(rt->pool, &rt->model, config, e) || !open_backend(rt, boot, e))
        goto out;
    *weights_fd = -1;
    if (!open_weights(rt, &plan, fd, loaded, e))
        goto out;
    model_close(&rt->model); /* the mapped files */
    shape = model_comm_shape(&rt->model, config, boot->tp_size, rt->backend.kind);
    fd = *group_fd;
    *group_fd = -1;
    rt->comm = comm_open(fd, &shape, rt->backend.comm, boot->rank, boot->epoch, e);
    ok = rt->comm && open_ops(rt, e) && open_llama(rt, e);
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
               (unsigned long long)rt->rope.low, rt->backend.ops->name, rt->pool->hdr->dtype);
    h = hash128(text.data, text.n, 0);
    buf_fini(&text);
    return h;
}

static struct hash128 place_of(const struct runtime *rt)
{
    uint64_t words[] = { rt->kv_identity.low, rt->kv_identity.high, rt->backend.pages_id };

    return hash128(words, sizeof words, 0);
}

struct runtime *runtime_open(const struct runtime_boot *boot, bool *loaded, struct err *e)
{
    struct runtime *rt = mem_zalloc(1, sizeof *rt);
    int weights_fd = boot->weights_fd, group_fd = boot->group_fd;

    assert(boot->tp_size >= 1 && boot->rank < boot->tp_size);
    rt->shard = model_shard(boot->config, kind_of(boot->pool), boot->rank);
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
        if (boot->failed_code)
            *boot->failed_code = runtime_exit_code(rt, e);
        runtime_close(rt);
        return NULL;
    }
    huge_pages_advise(&rt->pool->segment);
    rt->kv_identity = identity_of(rt);
    rt->kv_place = place_of(rt);
    if (rt->n_checked < rt->weights.hdr->n_chunks)
        start_guard(rt, rt->n_checked);
    return rt;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    llama_close(rt->llama);
    weights_guard_free(rt->guard);
    if (rt->backend.kind)
        rt->backend.kind->close(&rt->backend);
    comm_close(rt->comm);
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

struct hash128 runtime_kv_place(const struct runtime *rt)
{
    return rt->kv_place;
}

const struct kv_tier_data *runtime_kv_tier(const struct runtime *rt)
{
    return rt->backend.tier;
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

/* Of the rows that are not drawn. */
static void hand_over_logits(const struct runtime *rt, uint32_t n_logits,
                             const struct sampler_rows *draws, float *logits)
{
    size_t vocab = rt->model.info.vocab_size;
    uint32_t next = 0;

    for (uint32_t i = 0; i < n_logits; i++) {
        const struct sampler_row *row;
        while (draws && next < draws->n && draws->list[next].logits_row < i)
            next++;
        row = draws && next < draws->n ? &draws->list[next] : NULL;
        if (!row || row->logits_row != i || !row->is_drawn)
            memcpy(logits + i * vocab, llama_logits(rt->llama) + i * vocab, vocab * sizeof *logits);
    }
}

bool runtime_forward(struct runtime *rt, const struct batch *batch,
                     const struct sampler_rows *draws, float *logits, struct err *e)
{
    assert(rt->shard.rank == 0);
    check_batch(rt, batch);
    threads_pin_caller(rt->threads);
    if (weights_guard_failed(rt->guard, e))
        return false;
    if (!comm_publish(rt->comm, batch, e) || !llama_forward(rt->llama, batch, draws, e))
        return false;
    hand_over_logits(rt, batch->n_logits, draws, logits);
    rt->n_hidden = batch->wants_hidden ? batch->n_rows : 0;
    return true;
}

bool runtime_forgive(struct runtime *rt, const struct err *e)
{
    return rt->backend.kind->forgive(&rt->backend, e);
}

bool runtime_rest(struct runtime *rt, bool *did, struct err *e)
{
    const struct comm_order order = { .what = ORDER_REST };

    assert(rt->shard.rank == 0);
    *did = llama_rest_is_due(rt->llama);
    return !*did || (comm_publish_order(rt->comm, &order, e) && llama_rest(rt->llama, e) &&
                     comm_join_host(rt->comm, e));
}

bool runtime_hidden(struct runtime *rt, uint32_t first_row, uint32_t n, float *out, struct err *e)
{
    assert(rt->shard.rank == 0 && first_row + n <= rt->n_hidden);
    return llama_hidden(rt->llama, first_row, n, out, e);
}

static bool obey(struct runtime *rt, const struct comm_order *order, struct err *e)
{
    if (order->what == ORDER_REST)
        return llama_rest(rt->llama, e);
    return rt->backend.kind->obey(&rt->backend, order, e);
}

bool runtime_follow(struct runtime *rt, struct err *e)
{
    struct comm_order order;
    struct batch b;

    assert(rt->shard.rank > 0);
    threads_pin_caller(rt->threads);
    if (!rt->backend.kind->bind(&rt->backend, e))
        return false;
    for (;;) {
        switch (comm_follow(rt->comm, &b, &order, e)) {
        case COMM_STEP:
            check_batch(rt, &b);
            fault_point("follower.step");
            if (weights_guard_failed(rt->guard, e) || !llama_forward(rt->llama, &b, NULL, e))
                return false;
            break;
        case COMM_ORDER:
            if (!obey(rt, &order, e) || !comm_join_host(rt->comm, e))
                return false;
            break;
        case COMM_STOP:
            return true;
        default:
            return false;
        }
    }
}

/* A kernel that went wrong may have written anywhere: who comes next believes nothing without its sum. */
static void doubt_memory(const struct runtime *rt)
{
    if (rt->weights.shared)
        atomic_store(&rt->weights.shared->doubt, 1);
    kvpool_doubt(rt->pool, rt->backend.group);
}

int runtime_exit_code(const struct runtime *rt, const struct err *e)
{
    int code = rt && rt->backend.kind ? rt->backend.kind->exit_code(&rt->backend, e) : EXIT_FAILURE;

    if (code != EXIT_FAILURE && code != WORKER_EXIT_DEVICE_UNUSABLE)
        doubt_memory(rt);
    return code;
}

const char *runtime_device(const struct runtime *rt)
{
    return rt->backend.device;
}

void runtime_environment(const struct config *config)
{
    backend_environment(config);
}

bool runtime_has_left_threads(void)
{
    return backend_has_left_threads();
}

void runtime_stop(struct runtime *rt)
{
    comm_stop(rt->comm);
}

void runtime_parallel(struct runtime *rt, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n)
{
    threads_run(rt->threads, fn, arg, n);
}
