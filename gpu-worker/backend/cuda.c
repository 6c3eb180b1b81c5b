/* cuda.c - a GPU as a backend: rank r of group g computes on what was visible device g * tp_size + r at --inspect, and on
 * the GPU of that name ever after.
 *
 * Activations are in memory that dies with the worker; weights and KV pages in memory that llmd keeps the descriptors
 * of (gpu-worker/cuda/rank_chunks.h), so that a successor maps what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "common/nvml.h"
#include "gpu-worker/backend/backend.h"
#include "gpu-worker/cuda/cuda_packing.h"
#include "gpu-worker/cuda/device.h"
#include "gpu-worker/cuda/exchange.h"
#include "gpu-worker/cuda/fence.h"
#include "gpu-worker/cuda/gpu_watch.h"
#include "gpu-worker/cuda/host_tier_device.h"
#include "gpu-worker/cuda/kv_device.h"
#include "gpu-worker/cuda/lasting.h"
#include "gpu-worker/cuda/nccl_comm.h"
#include "gpu-worker/cuda/ops_cuda.h"
#include "gpu-worker/cuda/rank_chunks.h"
#include "gpu-worker/cuda/sibling_pages.h"
#include "gpu-worker/cuda/weights_device.h"
#include "proto/worker_exit.h"

/* Memory that the driver itself has is less than this part of a GPU. */
#define DRIVERS_SHARE 20
#define LET_GO_NS     (2 * NS_PER_S)
#define LET_GO_NAP_NS (50 * NS_PER_MS)

/* For the part of a step that was begun; llmd waits less. */
#define FORGIVE_LIMIT_NS (20 * NS_PER_S)

struct cuda_rank {
    struct device *device;
    uint32_t tp_size;
    struct exchange *exchange; /* NULL: a group of one */
    struct ops_stream *ops;
    struct device_stream *stream; /* of the ops */
    struct comm_device comm;
    cu_ptr activations;
    struct chunks weights, pages;
    struct fence fence;
    uint32_t first_page, n_pages; /* of the pool: the group's share */
    struct weights_device *place;
    struct comm *group;             /* borrowed, from open_ops() on */
    struct kv_device *kv;           /* checksums and copies of pages */
    struct host_tier_device *tier;  /* NULL: there is none */
    struct sibling_pages *siblings; /* NULL: one group */
    struct kv_tier_data tier_data;  /* of rank 0 */
    uint64_t *
        answers; /* [tp_size - 1][KV_ORDER_PAGES_MAX] of the other ranks, in host memory that all see */
};

/* ---- what ranks exchange ---- */

static void *alloc_activations(void *ctx, size_t bytes, struct err *e)
{
    struct cuda_rank *r = ctx;

    if (!device_alloc_patiently(r->device, &r->activations, bytes, e)) {
        err_wrap(e, "activations of a step");
        return NULL;
    }
    return (void *)(uintptr_t)r->activations;
}

static bool gather(void *ctx, float *buf, const struct comm_columns *c, struct err *e)
{
    struct cuda_rank *r = ctx;
    uint32_t first[EXCHANGE_RANKS_MAX + 1];

    for (uint32_t i = 0; i <= r->tp_size; i++)
        first[i] = (uint32_t)((uint64_t)c->n * i / r->tp_size) * c->unit;
    return exchange_all_gather(r->exchange, r->stream, buf, c->n_rows, c->n * c->unit, first) ||
           device_fault_err(r->device, e);
}

static bool sum(void *ctx, float *buf, size_t n, struct err *e)
{
    struct cuda_rank *r = ctx;

    return exchange_all_reduce(r->exchange, r->stream, buf, buf, n, false) ||
           device_fault_err(r->device, e);
}

static bool add_sum(void *ctx, float *x, float *y, size_t n, struct err *e)
{
    struct cuda_rank *r = ctx;

    return exchange_all_reduce(r->exchange, r->stream, x, y, n, true) ||
           device_fault_err(r->device, e);
}

/* Whether large messages go through NCCL: its communicator forms while the first steps run without. */
static uint32_t ask_nccl(void *ctx)
{
    struct cuda_rank *r = ctx;

    return r->exchange && exchange_nccl_is_ready(r->exchange);
}

static void tell_nccl(void *ctx, uint32_t answer)
{
    struct cuda_rank *r = ctx;

    ops_cuda_allow_nccl(r->ops, answer != 0);
}

/* ---- whether it can be ---- */

/* Whether this build has kernels for the first GPU: only a context tells. */
static bool kernels_load(struct err *e)
{
    struct device_images images = { cuda_images, n_cuda_images };
    struct device *d;

    if (!device_open(&d, 0, &images, e))
        return false;
    device_close(d);
    return true;
}

static enum dtype cuda_kv_dtype(enum dtype t)
{
    return t;
}

static bool cuda_can(const struct ops_setup *setup, uint32_t n_ranks, uint32_t tp_size,
                     struct err *e)
{
    uint32_t n_devices;

    if (!cuda_driver_open(e) || !ops_cuda_fits(setup, e))
        return false;
    if (tp_size > EXCHANGE_RANKS_MAX)
        return err_set(e, ERR_CONFIG, 0, "tp_size %u: GPUs of a group can be %d", tp_size,
                       EXCHANGE_RANKS_MAX);
    n_devices = (uint32_t)device_count(e);
    if (n_devices < n_ranks)
        return err_set(e, ERR_CONFIG, 0,
                       "groups and tp_size make %u ranks, each needs a GPU, and %u can be seen",
                       n_ranks, n_devices);
    for (uint32_t i = 0; i < n_ranks; i++)
        if (!device_is_usable((int)i, e))
            return false;
    return kernels_load(e);
}

/* What ranks answer to orders. */
static uint64_t cuda_host_bytes(uint32_t tp_size)
{
    return (uint64_t)(tp_size - 1) * KV_ORDER_PAGES_MAX * sizeof(uint64_t);
}

/* What others have of it, whom NVML counts.  Memory of no process may be on its way back from a server that has just
 * ended; what still is there after a while is held by descriptors. */
static void read_taken(int ordinal, struct backend_room *out)
{
    uint64_t deadline_ns = clock_mono_ns() + LET_GO_NS;
    struct nvml_state s;
    char uuid[GPU_NAME_BYTES];
    struct err e;

    for (;;) {
        if (!device_uuid(ordinal, uuid, &e) || !nvml_open(&e) || !nvml_read(uuid, &s, &e))
            return;
        out->taken_bytes = s.used_bytes;
        out->is_ownerless = s.processes_known && s.n_processes == 0;
        if (!out->is_ownerless || s.used_bytes <= s.total_bytes / DRIVERS_SHARE ||
            clock_mono_ns() > deadline_ns)
            return;
        nanosleep(&(struct timespec){ .tv_nsec = LET_GO_NAP_NS }, NULL);
    }
}

/* A tenth of what is free is left to contexts, modules and whoever else comes. */
static struct backend_room room_of(int ordinal, uint64_t ours)
{
    struct backend_room r = { 0 };
    size_t total = 0;

    cuda.cuDeviceTotalMem_v2(&total, ordinal);
    read_taken(ordinal, &r);
    if (r.taken_bytes < total)
        r.bytes = (total - r.taken_bytes) / 10 * 9;
    r.bytes = r.bytes > ours ? r.bytes - ours : 0;
    return r;
}

static struct backend_room cuda_room(const struct ops_setup *setup, uint32_t n_ranks)
{
    struct backend_room least = { .bytes = UINT64_MAX }, r;

    for (uint32_t i = 0; i < n_ranks; i++) {
        r = room_of((int)i, ops_cuda_bytes(setup));
        if (r.bytes < least.bytes)
            least = r;
    }
    return least;
}

static bool is_kept(const struct config *config)
{
    return strcmp(config->gpu_memory_owner, "keeper") == 0;
}

static bool cuda_describe(const struct config *config, uint32_t n_ranks,
                          char names[GPU_NAMES_BYTES], char note[GPU_NOTE_BYTES], struct err *e)
{
    char uuid[GPU_NAME_BYTES];
    struct err why;
    int at = 0;

    names[0] = note[0] = '\0';
    for (uint32_t i = 0; i < n_ranks && at < GPU_NAMES_BYTES - GPU_NAME_BYTES; i++) {
        if (!device_uuid((int)i, uuid, e))
            return false;
        at += snprintf(names + at, GPU_NAME_BYTES, "%s%s", i ? " " : "", uuid);
        if (!is_kept(config) && !note[0] && !lasting_is_persistent(uuid, &why))
            snprintf(note, GPU_NOTE_BYTES, "%s: %s", uuid, why.msg);
    }
    return true;
}

/* ---- open and close ---- */

static uint32_t place_of(const struct backend *b, uint32_t rank)
{
    return b->group * b->tp_size + rank;
}

/* By its name: numbers change when a GPU before it is lost. */
static bool find_device(const struct backend *b, int *ordinal, struct err *e)
{
    char name[GPU_NAME_BYTES];

    *ordinal = (int)place_of(b, b->rank);
    return !b->gpus || !gpu_names_get(b->gpus, place_of(b, b->rank), name) ||
           device_find(name, ordinal, e);
}

/* Pages are free again when the dead of no rank's GPU can write to them. */
static bool open_fence(const struct backend *b, struct cuda_rank *r, struct err *e)
{
    char text[EXCHANGE_RANKS_MAX][48];
    const char *uuids[EXCHANGE_RANKS_MAX];

    for (uint32_t i = 0; i < b->tp_size; i++) {
        uint32_t place = place_of(b, (b->rank + i) % b->tp_size);
        uuids[i] = text[i];
        if ((!b->gpus || !gpu_names_get(b->gpus, place, text[i])) &&
            !device_uuid((int)place, text[i], e))
            return false;
    }
    fence_open(&r->fence, uuids, b->tp_size);
    return true;
}

static bool cuda_open(struct backend *b, struct err *e)
{
    struct device_images images = { cuda_images, n_cuda_images };
    struct cuda_rank *r = mem_zalloc(1, sizeof *r);
    const struct device_info *info;
    int ordinal;

    b->own = r;
    r->tp_size = b->tp_size;
    r->comm =
        (struct comm_device){ r, alloc_activations, gather, sum, add_sum, ask_nccl, tell_nccl };
    if (!find_device(b, &ordinal, e) || !device_open(&r->device, ordinal, &images, e))
        return false;
    info = device_info(r->device);
    snprintf(b->device, sizeof b->device, "cuda sm_%d %s, %s", info->sm, info->name, info->uuid);
    b->comm = &r->comm;
    lasting_check(info, is_kept(b->config));
    gpu_watch_start(info->uuid, b->tp_size > 1);
    return open_fence(b, r, e);
}

/* Where this rank's part of the pages lies; told before the ranks meet in exchange_open(), and heard by rank 0 behind it. */
static void tell_pages(const struct backend *b, struct cuda_rank *r)
{
    if (b->rank > 0)
        r->answers[(size_t)(b->rank - 1) * KV_ORDER_PAGES_MAX] = b->pages_id;
}

/* One name for all parts: when any of them is new, so is every page, and none is gone on with. */
static void hear_pages(struct backend *b, const struct cuda_rank *r)
{
    for (uint32_t i = 0; b->rank == 0 && i + 1 < b->tp_size; i++)
        b->pages_id =
            hash64(&r->answers[(size_t)i * KV_ORDER_PAGES_MAX], sizeof *r->answers, b->pages_id);
}

/* The group's share of the pool, as this rank has it: its heads of each page. */
static bool map_pages(struct backend *b, struct cuda_rank *r, struct err *e)
{
    const struct kvpool_hdr *h = b->pool->hdr;
    uint32_t n_groups = (uint32_t)b->config->groups;
    uint32_t first = (uint32_t)((uint64_t)h->n_pages * b->group / n_groups);
    uint32_t end = (uint32_t)((uint64_t)h->n_pages * (b->group + 1) / n_groups);
    char text[128];
    struct rank_chunks_want want = { .kind = CHUNKS_KV,
                                     .group = b->group,
                                     .rank = b->rank,
                                     .bytes = b->page_bytes * (end - first),
                                     .lead_bytes = b->page_bytes * first,
                                     .is_writable = true,
                                     .by_keeper = is_kept(b->config) };
    bool is_fresh;
    int n = snprintf(text, sizeof text, "pages %u to %u of %llu bytes, %s, version %d", first, end,
                     (unsigned long long)b->page_bytes, dtype_name((enum dtype)h->dtype),
                     CUDA_KV_PAGE_VERSION);

    want.layout = hash128(text, (size_t)n, 0);
    if (!rank_chunks_open(&r->pages, r->device, b->road, &want, &is_fresh, e))
        return err_wrap(e, "KV pages");
    r->first_page = first;
    r->n_pages = end - first;
    if (b->rank == 0)
        kvpool_set_share(b->pool, first, end - first);
    b->pages_id = chunk_road_find(b->road, CHUNKS_KV)->id;
    return true;
}

static bool map_weights(struct backend *b, struct cuda_rank *r, const struct weights_plan *plan,
                        struct hash128 layout, struct err *e)
{
    struct rank_chunks_want want = { .kind = CHUNKS_WEIGHTS,
                                     .group = b->group,
                                     .rank = b->rank,
                                     .layout = layout,
                                     .bytes = plan->data_bytes,
                                     .by_keeper = is_kept(b->config) };
    bool is_fresh;

    if (!rank_chunks_open(&r->weights, r->device, b->road, &want, &is_fresh, e))
        return err_wrap(e, "weights");
    r->place =
        weights_device_new(r->device, &r->weights, weights_plan_piece_bytes(plan), is_fresh, e);
    if (!r->place)
        return false;
    b->place = weights_device_place(r->place);
    return true;
}

static bool cuda_open_memory(struct backend *b, const struct weights_plan *plan,
                             const struct ops_setup *setup, uint32_t n_layers,
                             struct hash128 layout, struct err *e)
{
    struct cuda_rank *r = b->own;

    b->page_bytes = ops_cuda_page_bytes(setup, n_layers);
    return map_weights(b, r, plan, layout, e) && map_pages(b, r, e);
}

/* No GPU reaches another's memory: not this rank, and not NCCL either (backend_environment()). */
static bool is_by_host(const struct config *config)
{
    return strcmp(config->gpu_exchange, "host") == 0;
}

static bool open_exchange(struct backend *b, struct cuda_rank *r, struct err *e)
{
    struct exchange_setup setup = {
        .device = r->device,
        .rank = b->rank,
        .tp_size = b->tp_size,
        .group = b->group,
        .epoch = b->epoch,
        .group_id = b->group_id,
        .host_only = is_by_host(b->config),
        .nccl = true,
        /* Others may load what this rank has mapped: llmd knows how long that may take. */
        .open_limit_ms = (uint32_t)(b->config->start_timeout_s * 1000)
    };

    if (b->tp_size == 1)
        return true;
    r->exchange = exchange_open(&setup, e);
    if (r->exchange)
        log_info("rank=%u of %u exchange=%s", b->rank, b->tp_size,
                 exchange_path_name(exchange_path(r->exchange)));
    return r->exchange != NULL;
}

/* ---- pages read and copied ---- */

/* Pages have the pool's numbers, of which the group's need not begin at 0: nothing is where page 0 would be then. */
static cu_ptr page_zero(const struct backend *b, const struct cuda_rank *r)
{
    return r->pages.base - r->first_page * b->page_bytes;
}

static_assert((int)KV_ORDER_PAGES_MAX <= (int)COMM_NUMBERS_MAX, "an order of pages fits");

/* Rank 0: have the others do their part. */
static bool order_peers(void *ctx, const struct kv_order *o, uint64_t *answers, struct err *e)
{
    struct cuda_rank *r = ctx;
    struct comm_order order = {
        .what = o->what, .argument = o->way, .n = o->n, .numbers = o->pages
    };
    uint32_t n = kv_order_n_answers(o);

    if (!comm_publish_order(r->group, &order, e) || !comm_join_host(r->group, e))
        return false;
    for (uint32_t i = 0; i + 1 < r->tp_size; i++)
        memcpy(answers + (size_t)i * n, r->answers + (size_t)i * KV_ORDER_PAGES_MAX,
               n * sizeof *answers);
    return true;
}

static bool cuda_obey(struct backend *b, const struct comm_order *order, struct err *e)
{
    struct cuda_rank *r = b->own;
    struct kv_order o = { .what = (enum kv_order_what)order->what,
                          .way = (enum kv_tier_way)order->argument,
                          .n = order->n };

    if (order->n > KV_ORDER_PAGES_MAX)
        return err_set(e, ERR_PROTO, 0, "an order of %u pages is too large", order->n);
    memcpy(o.pages, order->numbers, order->n * sizeof *o.pages);
    return kv_device_obey(r->kv, &o, r->answers + (size_t)(b->rank - 1) * KV_ORDER_PAGES_MAX, e);
}

/* A slot of the tier is a page as this rank has it. */
static bool open_tier(struct backend *b, struct cuda_rank *r, struct err *e)
{
    const struct host_tier *t = b->host_tier;
    struct host_tier_device_setup setup = { .device = r->device,
                                            .base = page_zero(b, r),
                                            .page_bytes = b->page_bytes };

    if (!t)
        return true;
    if (t->hdr->slot_bytes != b->page_bytes || t->hdr->n_ranks != b->tp_size)
        return err_set(e, ERR_PROTO, 0,
                       "host tier: %u parts of %llu bytes a page, wanted %u of %llu",
                       t->hdr->n_ranks, (unsigned long long)t->hdr->slot_bytes, b->tp_size,
                       (unsigned long long)b->page_bytes);
    setup.memory = host_tier_part(t, b->rank);
    setup.bytes = t->hdr->part_bytes;
    r->tier = host_tier_device_new(&setup, e);
    return r->tier != NULL;
}

static bool reach_sibling(void *ctx, uint32_t page)
{
    const struct cuda_rank *r = ctx;

    return sibling_pages_reach(r->siblings, sibling_pages_group(r->siblings, page));
}

static bool copy_sibling(void *ctx, cu_ptr to, uint32_t page)
{
    const struct cuda_rank *r = ctx;

    return sibling_pages_copy(r->siblings, to, page);
}

/* Pages of other groups are a help and no need. */
static void open_siblings(struct backend *b, struct cuda_rank *r)
{
    struct sibling_pages_setup setup = { .device = r->device,
                                         .own = chunk_road_find(b->road, CHUNKS_KV),
                                         .pool_id = b->pool_id,
                                         .group = b->group,
                                         .n_groups = (uint32_t)b->config->groups,
                                         .rank = b->rank,
                                         .tp_size = b->tp_size,
                                         .gpus = b->gpus,
                                         .n_pages = b->pool->hdr->n_pages,
                                         .page_bytes = b->page_bytes };
    struct err e;

    if (setup.n_groups == 1 || is_by_host(b->config))
        return;
    r->siblings = sibling_pages_new(&setup, &e);
    if (!r->siblings)
        log_warning("%s; pages of other groups are not copied from their GPUs", e.msg);
}

static bool open_kv(struct backend *b, struct cuda_rank *r, struct err *e)
{
    struct kv_device_setup setup = { .device = r->device,
                                     .base = page_zero(b, r),
                                     .page_bytes = b->page_bytes,
                                     .first_page = r->first_page,
                                     .n_pages = r->n_pages,
                                     .tp_size = b->tp_size,
                                     .peers = { r, order_peers },
                                     .tier = r->tier,
                                     .group = b->group,
                                     .n_groups = (uint32_t)b->config->groups,
                                     .n_pool_pages = b->pool->hdr->n_pages,
                                     .quarantine_ns = fence_wait_ns(&r->fence),
                                     .is_quiet = fence_is_quiet,
                                     .quiet_ctx = &r->fence };

    open_siblings(b, r);
    if (r->siblings)
        setup.siblings = (struct kv_siblings){ r, reach_sibling, copy_sibling };
    r->kv = kv_device_new(&setup, e);
    if (!r->kv)
        return false;
    if (b->rank == 0) {
        struct kv_data data = kv_device_table(r->kv);
        kvpool_set_data(b->pool, &data);
    }
    if (b->rank == 0 && r->tier) {
        r->tier_data = kv_device_tier_table(r->kv);
        b->tier = &r->tier_data;
    }
    return true;
}

static bool cuda_open_ops(struct backend *b, struct ops_setup *setup, struct comm *comm,
                          struct err *e)
{
    struct cuda_rank *r = b->own;
    struct ops_cuda_setup on = { .device = r->device,
                                 .deterministic = strcmp(b->config->deterministic, "on") == 0,
                                 .int8_products = strcmp(b->config->int8_products, "on") == 0 };

    r->group = comm;
    if (b->tp_size > 1)
        r->answers = comm_alloc_host(comm, backend_cuda.host_bytes(b->tp_size));
    tell_pages(b, r);
    if (!open_exchange(b, r, e) || !open_tier(b, r, e) || !open_kv(b, r, e))
        return false;
    hear_pages(b, r);
    on.exchange = r->exchange;
    on.rank = b->rank;
    on.tp_size = b->tp_size;
    setup->kv.page_bytes = b->page_bytes;
    setup->kv.pages = (char *)(uintptr_t)page_zero(b, r);
    b->ops = ops_cuda_open(&on, setup, &b->stream, e);
    if (!b->ops)
        return false;
    if (on.int8_products && b->rank == 0 && !ops_cuda_has_int8_products(b->stream))
        log_warning("int8_products: %s, ignoring",
                    on.deterministic ? "not with deterministic" : "not on this GPU");
    r->ops = b->stream;
    r->stream = ops_cuda_stream(b->stream);
    return true;
}

static bool cuda_bind(struct backend *b, struct err *e)
{
    struct cuda_rank *r = b->own;

    return device_bind(r->device, e);
}

static void cuda_close(struct backend *b)
{
    struct cuda_rank *r = b->own;
    struct err e;

    if (!r)
        return;
    if (r->device)
        device_bind(r->device, &e); /* a follower's thread had it */
    if (b->ops)
        b->ops->close(b->stream);
    exchange_close(r->exchange);
    kv_device_free(r->kv);
    host_tier_device_free(r->tier);
    sibling_pages_free(r->siblings);
    if (r->device) {
        weights_device_free(r->place);
        chunks_unmap(&r->weights);
        chunks_unmap(&r->pages);
        device_free(r->device, r->activations);
    }
    if (!nccl_comm_is_left()) /* else it works in this context */
        device_close(r->device);
    free(r);
}

/* Where other ranks wait in the middle of a step there is no way back. */
static bool cuda_forgive(struct backend *b, const struct err *e)
{
    struct cuda_rank *r = b->own;
    struct err why;

    return r->tp_size == 1 && e->code == ERR_DEVICE && e->sys == CU_OUT_OF_MEMORY &&
           (!device_fault(r->device) || device_forgive(r->device)) &&
           device_stream_finish(r->stream, FORGIVE_LIMIT_NS, &why);
}

/* A GPU in trouble may answer calls with whatever it likes; NVML knows more. */
static bool needs_reset(const struct device *d)
{
    struct nvml_state s;
    struct err e;

    return nvml_open(&e) && nvml_read(device_info(d)->uuid, &s, &e) && nvml_is_unusable(&s);
}

static int cuda_exit_code(const struct backend *b, const struct err *e)
{
    const struct cuda_rank *r = b->own;
    const struct device_fault *fault = r && r->device ? device_fault(r->device) : NULL;
    int code = EXIT_FAILURE;

    if (!r || !r->device)
        return WORKER_EXIT_DEVICE_UNUSABLE;
    if (fault)
        code = device_fault_exit(fault);
    else if (e->code == ERR_TIMEOUT)
        code = WORKER_EXIT_DEVICE_HANGS;
    else if (e->code == ERR_DEVICE && e->sys == CU_OUT_OF_MEMORY)
        code = WORKER_EXIT_DEVICE_UNUSABLE;
    if ((code == WORKER_EXIT_DEVICE_STICKY || code == WORKER_EXIT_DEVICE_HANGS) &&
        needs_reset(r->device))
        code = WORKER_EXIT_DEVICE_LOST;
    return code;
}

static const struct packing packing_cuda = {
    .name = "cuda",
    .version = CUDA_PACKING_VERSION,
    .dtype = cuda_packing_dtype,
    .panel_rows = cuda_packing_panel_rows,
    .panel_bytes = cuda_packing_panel_bytes,
    .pack = cuda_packing_pack,
    .copy = cuda_packing_copy,
    .pack_codes = cuda_packing_pack_codes,
};

const struct backend_kind backend_cuda = {
    .name = "cuda",
    .on_device = true,
    .packing = &packing_cuda,
    .kv_dtype = cuda_kv_dtype,
    .can = cuda_can,
    .page_bytes = ops_cuda_page_bytes,
    .room = cuda_room,
    .describe = cuda_describe,
    .open = cuda_open,
    .open_memory = cuda_open_memory,
    .open_ops = cuda_open_ops,
    .host_bytes = cuda_host_bytes,
    .bind = cuda_bind,
    .obey = cuda_obey,
    .close = cuda_close,
    .forgive = cuda_forgive,
    .exit_code = cuda_exit_code,
};
