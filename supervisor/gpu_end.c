/* gpu_end.c - see gpu_end.h. */
#include "supervisor/gpu_end.h"

#include "common/clock.h"
#include "proto/weights_layout.h"
#include "proto/worker_exit.h"
#include "supervisor/llmd.h"

#define BAD_PART_AGAIN_NS (600 * NS_PER_S)

/* A bad part of its GPU's memory, met while what it was given was verified, or once more soon after that: it is in what
 * we keep, and whoever is given that will meet it.  (Met for the first time, in service, it may be in memory that has
 * gone with the process.) */
static bool meets_bad_part_again(const struct process *p)
{
    return p->ready_ns == 0 ||
           (p->contained_ns && clock_mono_ns() - p->contained_ns < BAD_PART_AGAIN_NS);
}

/* What is kept for it must not be given to its successor. */
static bool has_lost_memory(const struct process *p, const siginfo_t *info)
{
    if (!p->on_gpu || info->si_code != CLD_EXITED)
        return false;
    return info->si_status == WORKER_EXIT_DEVICE_LOST ||
           (info->si_status == WORKER_EXIT_DEVICE_CONTAINED && meets_bad_part_again(p));
}

static void count_lost(const struct process *p, const siginfo_t *info)
{
    if (p->on_gpu && info->si_code == CLD_EXITED && info->si_status == WORKER_EXIT_DEVICE_LOST)
        stat_add(p->counts, STAT_gpus_lost, 1);
}

static void drop_unfinished(struct llmd *l, uint32_t group, uint32_t rank)
{
    const struct segment *weights = segments_weights(&l->segments, group, rank);
    const struct weights_hdr *h = (const struct weights_hdr *)weights->hdr;

    gpu_memory_ended(&l->gpu, group, rank,
                     atomic_load_explicit(&h->state, memory_order_acquire) == WEIGHTS_COMMITTED);
}

void gpu_end_of_worker(struct llmd *l, const struct process *p, const siginfo_t *info)
{
    if (has_lost_memory(p, info))
        gpu_memory_lost(&l->gpu, p->team->group, p->rank);
    count_lost(p, info);
    drop_unfinished(l, p->team->group, p->rank);
}

void gpu_end_of_orphans(struct llmd *l)
{
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t rank = 0; rank < l->groups[g].n_members; rank++)
            if (!process_is_running(&l->groups[g].members[rank]))
                drop_unfinished(l, g, rank);
}
