/* group_layout.h - what the ranks of one tensor-parallel group share on the host, byte for byte.
 *
 *   0            4096                             plan_offset           exchange_offset (4096 aligned)
 *   +------------+--------------------------------+---------------------+------------------------------+
 *   | group_hdr  | group_slot[GROUP_RANKS_MAX]    | group_plan, arrays  | buffers of activations       |
 *   +------------+--------------------------------+---------------------+------------------------------+
 *   the arrays behind group_plan: uint32 numbers[GROUP_NUMBERS_MAX] of an order, int32 tokens[rows_max],
 *   group_seq seqs[seqs_max], uint32 logit_rows[seqs_max + 32], uint32 pages[seqs_max * pages_max]; the maxima are
 *   the group's settings.  On GPUs the buffers are of logits and answers alone: activations are in their memory.
 *   A group of one rank uses the header only.
 *
 * Writers.  llmd makes it, zero-filled.  Rank 0 writes the plan.  Rank r writes slot r, except .bell, which
 * its peers bump to wake it, and its own columns of each exchange buffer.  Any rank may set .abort_epoch.
 *
 * Order.  .arrived of a slot is {epoch, count}; every rank counts the same phases of the same steps.  What
 * a rank wrote before it stored its count is visible to who has read that count, so a phase is: write your
 * columns, count up, wait until every peer's count is as high.  The plan is written before rank 0 counts
 * up the first phase of a step, and not touched until the last one.  A sleeper sets .asleep, looks again,
 * and sleeps on .bell; who counts up looks at .asleep afterwards (all four sequentially consistent).
 *
 * Crash.  Nothing is ever reset, because nothing of another epoch counts: a rank joins by storing {its
 * epoch, 0}, and waits for peers to reach its epoch.  llmd kills the whole group when one rank dies and
 * starts it anew with the next epoch; a rank that waits for a dead peer finds out by itself (pidfd,
 * .abort_epoch, .gone_epoch or a newer .epoch) and gives up, so none waits for ever.
 *
 * Version.  Any change of size, order or meaning is a new GROUP_VERSION. */
#ifndef LLMD_PROTO_GROUP_LAYOUT_H
#define LLMD_PROTO_GROUP_LAYOUT_H

#include <stdalign.h>
#include <stdatomic.h>

#include "proto/segment.h"

enum {
    GROUP_VERSION = 3,
    GROUP_RANKS_MAX = 64,
    GROUP_SLOTS_OFFSET = 4096,
    GROUP_PLAN_OFFSET = 12288,
    GROUP_NUMBERS_MAX = 1024
};

struct group_hdr {
    struct segment_hdr segment;
    _Atomic uint32_t epoch;       /* newest that has joined */
    _Atomic uint32_t abort_epoch; /* this epoch's step cannot be finished */
    _Atomic uint32_t stop_epoch;  /* rank 0 has ended this epoch, in good order */
};

struct group_slot {
    _Atomic uint64_t arrived; /* epoch << 32 | count; the count may wrap */
    _Atomic uint32_t pid;
    _Atomic uint32_t gone_epoch; /* the rank has left this epoch */
    uint8_t pad[48];
    _Atomic uint32_t bell; /* futex */
    _Atomic uint32_t asleep;
    uint8_t pad1[56];
};
static_assert(sizeof(struct group_slot) == 128, "what peers poll and what they write, a line each");
static_assert(GROUP_SLOTS_OFFSET + GROUP_RANKS_MAX * sizeof(struct group_slot) <= GROUP_PLAN_OFFSET,
              "slots end before the plan");

/* Of a step, or of something else that all ranks are to do between steps. */
struct group_plan {
    uint32_t n_rows, n_seqs, n_logits,
        n_pages;                        /* n_pages: of all sequences together; n_rows 0: an order */
    uint32_t what, argument, n_numbers; /* of an order; the backend knows what it means */
    uint32_t decision;                  /* of rank 0 for a step; the backend's, too */
};

struct group_seq {
    uint32_t first_row, n_rows, start;
    uint32_t n_pages, first_page; /* of the pages array */
};

#endif
