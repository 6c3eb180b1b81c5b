/* cpu.c - the host's cores as a backend: everything lies in segments, and llmd has made them. */
#include <stdio.h>

#include "gpu-worker/backend/backend.h"
#include "gpu-worker/ops/cpu_kernels.h"
#include "proto/kvpool_layout.h"

/* The attention kernels of the host read integers: int16 with scales errs less than float16, int8 less than fp8. */
static enum dtype cpu_kv_dtype(enum dtype t)
{
    return t == DTYPE_E4M3 ? DTYPE_I8 : t == DTYPE_F16 ? DTYPE_I16 : t;
}

static bool cpu_can(const struct ops_setup *setup, uint32_t n_ranks, uint32_t tp_size,
                    struct err *e)
{
    (void)tp_size;
    (void)setup;
    (void)n_ranks;
    (void)e;
    return true;
}

/* All ranks write one page, each its heads. */
static uint64_t cpu_page_bytes(const struct ops_setup *setup, uint32_t n_layers)
{
    return (uint64_t)n_layers * 2 * setup->kv.n_heads_model *
           kv_block_bytes(cpu_kv_dtype(setup->kv.dtype), setup->kv.page_tokens, setup->head_dim);
}

static struct backend_room cpu_room(const struct ops_setup *setup, uint32_t n_ranks)
{
    (void)setup;
    (void)n_ranks;
    return (struct backend_room){ 0 };
}

static bool cpu_describe(const struct config *config, uint32_t n_ranks, char names[GPU_NAMES_BYTES],
                         char note[GPU_NOTE_BYTES], struct err *e)
{
    (void)config;
    (void)n_ranks;
    (void)e;
    names[0] = note[0] = '\0';
    return true;
}

static uint64_t cpu_host_bytes(uint32_t tp_size)
{
    (void)tp_size;
    return 0;
}

static bool cpu_open(struct backend *b, struct err *e)
{
    (void)b;
    (void)e;
    return true;
}

static bool cpu_open_memory(struct backend *b, const struct weights_plan *plan,
                            const struct ops_setup *setup, uint32_t n_layers, struct hash128 layout,
                            struct err *e)
{
    (void)plan;
    (void)setup;
    (void)n_layers;
    b->page_bytes = b->pool->hdr->page_bytes;
    (void)layout;
    (void)e;
    return true;
}

static bool cpu_open_ops(struct backend *b, struct ops_setup *setup, struct comm *comm,
                         struct err *e)
{
    (void)comm;
    (void)e;
    setup->kv.pages = kvpool_page(b->pool, 0);
    setup->kv.page_bytes = b->page_bytes;
    setup->kv.dtype = cpu_kv_dtype(setup->kv.dtype);
    b->ops = ops_cpu_open(cpu_tier_choose(b->config->cpu_tier), setup, b->threads, &b->stream);
    snprintf(b->device, sizeof b->device, "%s", b->ops->name);
    return true;
}

static bool cpu_bind(struct backend *b, struct err *e)
{
    (void)b;
    (void)e;
    return true;
}

static bool cpu_obey(struct backend *b, const struct comm_order *order, struct err *e)
{
    return err_set(e, ERR_PROTO, 0, "rank %u: order %u means nothing on the host", b->rank,
                   order->what);
}

static void cpu_close(struct backend *b)
{
    if (b->ops)
        b->ops->close(b->stream);
}

static bool cpu_forgive(struct backend *b, const struct err *e)
{
    (void)b;
    (void)e;
    return false;
}

static int cpu_exit_code(const struct backend *b, const struct err *e)
{
    (void)b;
    (void)e;
    return 1;
}

const struct backend_kind backend_cpu = {
    .name = "cpu",
    .packing = &packing_cpu,
    .kv_dtype = cpu_kv_dtype,
    .can = cpu_can,
    .page_bytes = cpu_page_bytes,
    .room = cpu_room,
    .describe = cpu_describe,
    .host_bytes = cpu_host_bytes,
    .open = cpu_open,
    .open_memory = cpu_open_memory,
    .open_ops = cpu_open_ops,
    .bind = cpu_bind,
    .obey = cpu_obey,
    .close = cpu_close,
    .forgive = cpu_forgive,
    .exit_code = cpu_exit_code,
};
