/* segments.h - all shared memory of one llmd: made once, sized by the model's plan, held until the end
 * of service; an llmd may end before. */
#ifndef LLMD_SUPERVISOR_SEGMENTS_H
#define LLMD_SUPERVISOR_SEGMENTS_H

#include "common/config.h"
#include "proto/board.h"
#include "proto/connections.h"
#include "proto/frame.h"
#include "proto/host_tier.h"
#include "proto/kvpool.h"
#include "proto/ledger.h"
#include "supervisor/passed.h"

/* A model on GPUs: each rank of each group has a weights segment of its own, without the data, and there is a table
 * of the GPU memory that llmd keeps (gpu_memory.h).  Else all groups map the same shards. */

struct segments {
    struct board board;
    struct kvpool kvpool;
    struct connections connections;
    struct ledger *ledgers;     /* [n_groups] */
    struct segment *groups;     /* [n_groups] */
    struct segment *weights;    /* [n_weights] */
    struct segment chunks;      /* not mapped unless on_device */
    struct host_tier host_tier; /* .hdr NULL unless the plan has kv_host_pages */
    uint32_t n_groups, tp_size;
    uint32_t n_weights; /* tp_size, or on_device n_groups * tp_size */
    bool on_device;
};

/* The weights of a rank. */
static inline const struct segment *segments_weights(const struct segments *s, uint32_t group,
                                                     uint32_t rank)
{
    return &s->weights[s->on_device ? group * s->tp_size + rank : rank];
}

/* ERR_SYS, with the size that could not be had. */
bool segments_create(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                     uint64_t instance, struct err *e);
/* The same from what a former llmd had made, found under its names (fdstore.h); taken from there. */
bool segments_attach(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                     struct passed *from, struct err *e);
/* Each with the name under which it is kept for the next llmd. */
void segments_each(const struct segments *s, void (*visit)(void *arg, const char *name, int fd),
                   void *arg);
void segments_close(struct segments *s); /* safe on a zeroed struct */

#endif
