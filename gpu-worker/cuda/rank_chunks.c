/* rank_chunks.c - see rank_chunks.h. */
#include "gpu-worker/cuda/rank_chunks.h"

#include "common/clock.h"
#include "common/log.h"
#include "gpu-worker/cuda/device.h"
#include "gpu-worker/cuda/keeper.h"

#define CREATE_WAIT_NS (2 * NS_PER_S) /* what a dead process had may not be free at once */

static bool map_kept(struct chunks *c, struct device *d, const struct chunk_set *kept,
                     const struct rank_chunks_want *want)
{
    struct err why;

    if (!kept)
        return false;
    if (chunks_fit(d, kept, want->layout, want->bytes, &why) &&
        chunks_map_behind(c, d, kept, want->lead_bytes, want->is_writable, &why)) {
        log_info("gpu_memory=%s kept, chunks=%u MiB=%llu", chunk_kind_name(want->kind), kept->n,
                 (unsigned long long)(kept->bytes >> 20));
        return true;
    }
    log_warning("GPU memory kept for %s cannot be used: %s; making it anew",
                chunk_kind_name(want->kind), why.msg);
    return false;
}

static bool make(struct device *d, struct chunk_road *road, const struct rank_chunks_want *want,
                 struct chunk_set *set, struct err *e)
{
    if (!chunks_plan(d, set, want->bytes, e))
        return false;
    chunk_road_announce(road, set);
    return want->by_keeper ? keeper_create(road, device_info(d)->ordinal, set, CREATE_WAIT_NS, e)
                           : chunks_create(d, set, CREATE_WAIT_NS, e);
}

bool rank_chunks_open(struct chunks *c, struct device *d, struct chunk_road *road,
                      const struct rank_chunks_want *want, bool *is_fresh, struct err *e)
{
    struct chunk_set set = {
        .kind = want->kind, .group = want->group, .rank = want->rank, .layout = want->layout
    };
    const struct chunk_set *made;

    *is_fresh = false;
    if (map_kept(c, d, chunk_road_find(road, want->kind), want))
        return true;
    if (device_fault(d))
        return device_fault_err(d, e);
    if (!make(d, road, want, &set, e))
        return false;
    made = chunk_road_keep(road, &set);
    *is_fresh = true;
    log_info("gpu_memory=%s made, chunks=%u MiB=%llu", chunk_kind_name(want->kind), made->n,
             (unsigned long long)(made->bytes >> 20));
    return chunks_map_behind(c, d, made, want->lead_bytes, want->is_writable, e);
}
