/* segments.h - all shared memory of one llmd: made once, sized by the model's plan, held until the end. */
#ifndef LLMD_SUPERVISOR_SEGMENTS_H
#define LLMD_SUPERVISOR_SEGMENTS_H

#include "common/config.h"
#include "proto/board.h"
#include "proto/connections.h"
#include "proto/frame.h"
#include "proto/kvpool.h"
#include "proto/ledger.h"

struct segments {
    struct board board;
    struct kvpool kvpool;
    struct connections connections;
    struct ledger *ledgers;  /* [n_groups] */
    struct segment *groups;  /* [n_groups] */
    struct segment *weights; /* [tp_size] */
    uint32_t n_groups, tp_size;
};

/* ERR_SYS, with the size that could not be had. */
bool segments_create(struct segments *s, const struct config *c, const Llmd__ModelPlan *plan,
                     uint64_t instance, struct err *e);
void segments_close(struct segments *s); /* safe on a zeroed struct */

#endif
