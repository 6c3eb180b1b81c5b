/* supervision.h - what a rank owes llmd: a heartbeat, obedience on the control socket, a graceful end.
 *
 *   control socket   DRAIN, RELOAD; ADOPT: a new llmd holds the other end (the old one's end lay in a fd
 *                    store, so its death was not even noticed here); its end means that llmd is gone for
 *                    good: go on, and drain when orphan_timeout_s has passed
 *   SIGTERM          drain within drain_timeout_s; a second one ends what is left at once
 *   timer            the heartbeat on the board, once a second: an idle rank's only wakeup
 *
 * Used by the main thread of every rank, which waits here together with one descriptor of its own (the
 * link of rank 0, the end of the following thread elsewhere). */
#ifndef LLMD_GPU_WORKER_SUPERVISION_H
#define LLMD_GPU_WORKER_SUPERVISION_H

#include <stdint.h>

#include "common/config.h"
#include "proto/board.h"
#include "proto/control.h"

struct supervision {
    int control;             /* -1 once llmd is gone */
    struct config *config;   /* borrowed; RELOAD changes LIVE settings */
    struct board_slot *slot; /* borrowed */
    uint32_t epoch;          /* of BOOT */
    int epoll, signals, timer;
    uint64_t orphan_deadline_ns; /* UINT64_MAX = llmd is there */
    bool is_orphan;              /* llmd is gone */
    bool is_adopted;             /* a new llmd asks what we are; the caller answers and clears it */
    bool is_draining;
    uint64_t drain_deadline_ns;
};

/* Block SIGTERM for the whole process (so before the first thread starts) and ignore the signals that a
 * terminal sends to the process group or a dead peer causes. */
void supervision_take_signals(void);

/* control is borrowed, switched to non-blocking, and -1 is allowed.  own_fd: another descriptor to wake
 * for.  ERR_SYS. */
bool supervision_open(struct supervision *s, int control, int own_fd, struct config *config,
                      struct board_slot *slot, uint32_t epoch, struct err *e);
void supervision_close(struct supervision *s);

/* Wait until something happens or wake_ns (CLOCK_MONOTONIC; 0 = look only) has come, and do what llmd
 * asks.  ERR_SYS. */
bool supervision_wait(struct supervision *s, uint64_t wake_ns, struct err *e);

#endif
