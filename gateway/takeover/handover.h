/* handover.h - give llmd the descriptors of client connections, so that they outlive this process.
 *
 * A connection is handed over between accept() and the first byte read, by the thread that accepted it: a
 * datagram of the control socket is whole or not there.  Nobody waits for llmd: what the socket does not
 * take now is offered again, for llmd may be dead and the next one will read what is queued.
 *
 * Unix-domain clients stay ours alone: there is no count of their bytes, so nobody could go on. */
#ifndef LLMD_GATEWAY_TAKEOVER_HANDOVER_H
#define LLMD_GATEWAY_TAKEOVER_HANDOVER_H

#include "gateway/net/loop.h"
#include "gateway/takeover/record.h"

struct handover {
    int control; /* the control socket; -1: nobody to hand to */
    struct record_list records;
    uint32_t n_waiting; /* of them must_hand */
    struct loop_timer *again;
};

void handover_init(struct handover *h, struct loop *l, int control);
void handover_fini(struct handover *h);

/* A connection that llmd does not know yet, or that it gave to us (is_known). */
void handover_add(struct handover *h, struct record *r, bool is_known);
void handover_remove(struct handover *h, struct record *r);
/* To a new llmd: all of them, once more. */
void handover_all(struct handover *h);

#endif
