/* news.c - see news.h. */
#include "supervisor/news.h"

#include "supervisor/announce.h"
#include "supervisor/drain.h"
#include "supervisor/gpu_end.h"
#include "supervisor/llmd.h"

/* Weights are loaded by group 0; the others map what it made. */
static void start_followers(struct llmd *l)
{
    uint64_t all = UINT64_MAX >> (64 - l->config.tp_size);

    if (team_is_up(&l->groups[0]))
        l->weights_ready = all;
    if (l->weights_ready != all && l->groups[0].state != TEAM_GPU_DOWN)
        return; /* on GPUs each group loads its own: one need not wait for another's */
    for (uint32_t g = 1; g < l->n_groups; g++)
        if (team_is_down(&l->groups[g]))
            team_handle(&l->groups[g], TEAM_EV_START);
}

/* With --gateway-last it has not been started yet. */
static void start_gateway(struct llmd *l)
{
    if (team_is_down(&l->gateway) && llmd_groups_up(l) > 0)
        team_handle(&l->gateway, TEAM_EV_START);
}

/* For those who watch from outside. */
static void count_gpus_down(struct llmd *l)
{
    uint64_t n = 0;

    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t r = 0; r < l->groups[g].n_members; r++) {
            const struct process *p = &l->groups[g].members[r];
            n += l->groups[g].state == TEAM_GPU_DOWN ? p->trouble != GPU_TROUBLE_NONE
                                                     : p->on_gpu && p->is_stuck;
        }
    stat_set(&board_slot(&l->segments.board, BOARD_SLOT_LLMD)->stats, STAT_gpus_down, n);
}

void news_team_changed(struct llmd *l, struct team *t)
{
    if (t != &l->gateway)
        announce_to_gateway(l);
    count_gpus_down(l);
    if (l->phase == LLMD_SERVING) {
        start_followers(l);
        start_gateway(l);
    }
    drain_go_on(l);
    upgrade_go_on(l);
    announce_to_manager(l);
}

void news_weights_ready(struct llmd *l, const struct process *p)
{
    if (p->team != &l->groups[0] || l->phase != LLMD_SERVING)
        return;
    l->weights_ready |= 1ull << p->rank;
    start_followers(l);
}

void news_serving(struct llmd *l, const struct process *p, uint32_t epoch)
{
    if (p->team != &l->gateway)
        return;
    l->serving_epoch = epoch;
    announce_to_manager(l);
}

/* What a new gateway is told behind BOOT, in this order: connections, then SERVICE. */
static void tell_new_gateway(struct llmd *l, struct process *p)
{
    if (!kept_is_handing(&l->kept) || kept_hand(&l->kept, &p->child))
        announce_to_gateway(l);
}

void news_spawned(struct llmd *l, struct process *p)
{
    if (p->team == &l->gateway)
        tell_new_gateway(l, p);
    else
        gpu_memory_hand(&l->gpu, p->team->group, p->rank, &p->child);
}

void news_writable(struct llmd *l, struct process *p)
{
    news_spawned(l, p);
}

void news_ended(struct llmd *l, const struct process *p, const siginfo_t *info)
{
    if (p->team != &l->gateway) {
        gpu_end_of_worker(l, p, info);
        return;
    }
    kept_end_handing(&l->kept);
    kept_store_all(&l->kept);
}
