/* segments.h - all shared memory of one llmd: made once, sized by the model's plan, held until the end
 * of service; an llmd may end before. */
#ifndef LLMD_SUPERVISOR_SEGMENTS_H
#define LLMD_SUPERVISOR_SEGMENTS_H

#include "common/config.h"
#include "proto/board.h"
#include "proto/connections.h"
#include "proto/frame.h"
#include "proto/kvpool.h"
#include "proto/ledger.h"
#include "supervisor/passed.h"

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
/* The same from what a former llmd had made, found under its names (fdstore.h); taken from there. */
bool segments_attach(struct segments *s, const struct config *c, struct passed *from,
                     struct err *e);
/* Each with the name under which it is kept for the next llmd. */
void segments_each(const struct segments *s, void (*visit)(void *arg, const char *name, int fd),
                   void *arg);
void segments_close(struct segments *s); /* safe on a zeroed struct */

#endif
