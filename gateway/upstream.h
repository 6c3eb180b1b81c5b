/* upstream.h - one gateway thread's view of all groups: what is sent, what comes back, what is lost.
 *
 * Each event-loop thread has one.  It knows no event loop: the thread watches upstream_fd() of each group,
 * calls upstream_receive() when one is readable, and upstream_tick() when upstream_tick_due_ns()
 * says so.  A link's descriptor is edge-triggered (proto/link.h), so after anything was sent
 * upstream asks, through kick(), to be called again in the same turn of the loop.
 *
 * Always true: every sequence given by upstream_submit() is in exactly one list, waiting or a group's,
 * until it is ENDED, and one that finished in its group's other list until upstream_release(); tokens are
 * appended in order, each once; a group's lists are what RESYNC tells it.
 *
 * Losing a group is not an error: its sequences stay on its list, since its successor has them in the
 * ledger.  Only when it stays away are they taken to another group, with the tokens they have. */
#ifndef LLMD_GATEWAY_UPSTREAM_H
#define LLMD_GATEWAY_UPSTREAM_H

#include <stdatomic.h>

#include "common/err.h"
#include "gateway/answer/sequence.h"
#include "proto/stats.h"

struct upstream;

enum { UPSTREAM_GROUPS_MAX = 64 };

struct upstream_config {
    const char *instance; /* borrowed during upstream_new() */
    uint32_t n_groups;
    uint32_t thread;    /* 0.. ; the links' peer id is 1 + thread */
    uint32_t n_threads; /* that share the groups' room; 0 = 1 */
    uint32_t gateway_epoch;
    uint64_t wait_ns; /* a sequence that no group takes for this long ends with a fault */
    uint64_t move_ns; /* a group that is away for this long loses its sequences to another */
    struct stats *stats;
    _Atomic uint32_t *load; /* [n_groups] sequences of all threads; borrowed */
    /* A group said HELLO: its limits. */
    void (*on_hello)(const Llmd__Hello *hello, void *ctx);
    void (*kick)(uint32_t group, void *ctx);
    /* Why nobody serves, in one sentence, for the fault of a sequence that waited in vain. */
    void (*describe)(char *out, size_t n, void *ctx);
    void *ctx;
};

/* NULL and ERR_SYS. */
struct upstream *upstream_new(const struct upstream_config *config, struct err *e);
/* No sequence may be left, finished ones released. */
void upstream_free(struct upstream *u);

int upstream_fd(const struct upstream *u, uint32_t group);

/* n consecutive ids, never drawn before; the first of them. */
uint64_t upstream_draw_ids(struct upstream *u, uint32_t n);

/* Borrows s, whose id, submit and sampling are set, until it is ENDED; a finished one until released. */
void upstream_submit(struct upstream *u, struct sequence *s);
/* As upstream_submit(), for a sequence of a dead gateway: the group has it in its ledger, most likely, and is
 * asked for all its tokens by the next RESYNC.  A group that does not know it is no loss. */
void upstream_adopt(struct upstream *u, struct sequence *s, uint32_t group);
/* End it without a call to on_progress; the worker is told.  Fine for one that has ended. */
void upstream_cancel(struct upstream *u, struct sequence *s);
/* Nothing is wanted of it any more, its tokens neither: the answer is out, or its client gone.  Only now is
 * a finished one acknowledged (if the ledger has room for it so long), so that until then a successor would
 * find it there. */
void upstream_release(struct upstream *u, struct sequence *s);

/* Take in all that has arrived from a group. */
void upstream_receive(struct upstream *u, uint32_t group);

/* What llmd says about a group. */
void upstream_set_service(struct upstream *u, uint32_t group, bool is_up);
void upstream_set_wait(struct upstream *u, uint64_t wait_ns);

/* Time-outs and retries.  due: when to call next, CLOCK_MONOTONIC; 0 = not needed now. */
void upstream_tick(struct upstream *u, uint64_t now_ns);
uint64_t upstream_tick_due_ns(const struct upstream *u);

/* A group would take a sequence now. */
bool upstream_is_served(const struct upstream *u);
uint32_t upstream_n_sequences(const struct upstream *u);

#endif
