/* board_layout.h - who lives, how they are, and everything they count; byte for byte.
 *
 *   0      64            4096              4096 + slot_bytes ...
 *   +------+-------------+-----------------+-----------------+------
 *   | hdr  | board_hdr   | slot 0: llmd    | slot 1: gateway | slot 2..: ranks, group by group
 *   +------+-------------+-----------------+-----------------+------
 *   rank r of group g has slot 2 + g * tp_size + r
 *
 * Writers.  llmd fills board_hdr before it starts anything.  Of each slot it writes
 * .name (before the process starts), .pid, .state, .started_ns, .restarts and .epoch, and while
 * no process runs .heartbeat_ns and .step_started_ns too.  The process whose slot it is writes the rest:
 * heartbeat, step times, its statistics and its last log lines.  Everybody maps the board; llmctl does not (it asks llmd).
 *
 * Order.  Every field that changes is one aligned word, written and read atomically (relaxed is enough).
 * Nothing on the board orders anything else.
 *
 * Crash.  Counters and histograms stay and go on: a restart does not reset a metric.  Gauges are set
 * to 0 by the successor, and step_started_ns by llmd before it starts the successor.
 *
 * Version.  Any change of size, order or meaning is a new BOARD_VERSION.  So is a new statistic that is
 * not the last of stats.def: it renumbers those behind it.  STATS_CAP and HISTS_CAP leave room, so that a
 * slot keeps its size. */
#ifndef LLMD_PROTO_BOARD_LAYOUT_H
#define LLMD_PROTO_BOARD_LAYOUT_H

#include "proto/segment.h"
#include "proto/stats.h"

enum { BOARD_VERSION = 2, BOARD_SLOT_LLMD = 0, BOARD_SLOT_GATEWAY = 1, BOARD_SLOT_RANKS = 2 };
enum { BOARD_SLOTS_OFFSET = 4096 };

/* States of a process as llmd sees it; supervisor/process.c draws the machine. */
enum process_state {
    PROCESS_DOWN,     /* not started, or stopped for good */
    PROCESS_STARTING, /* runs, has not said READY */
    PROCESS_READY,
    PROCESS_DRAINING, /* asked to finish */
    PROCESS_BACKOFF,  /* died; waits to be started again */
    N_PROCESS_STATES
};

struct board_hdr {
    struct segment_hdr segment;
    uint32_t n_slots;
    uint32_t slot_bytes;
    uint32_t n_groups;
    uint32_t tp_size;
    uint64_t started_ns; /* CLOCK_MONOTONIC, start of service */
    uint64_t reserved;
};

/* The last lines a process logged: line i of all (from 0) lies in lines[i % BOARD_LOG_LINES], cut to fit
 * and ended by a zero byte.  Any thread of the process takes the next number and writes that place; who
 * reads a line while it is written may see a mixture of two, which is a log line all the same. */
enum { BOARD_LOG_LINES = 32, BOARD_LOG_LINE_BYTES = 256 };

struct board_log {
    _Atomic uint32_t n_lines;
    uint8_t pad[60];
    char lines[BOARD_LOG_LINES][BOARD_LOG_LINE_BYTES];
};

struct board_slot {
    char name[32];          /* "gateway", "worker 0.1" */
    _Atomic uint32_t pid;   /* 0 = none */
    _Atomic uint32_t state; /* enum process_state */
    _Atomic uint32_t restarts;
    _Atomic uint32_t epoch;           /* start count of its group; 1 = first */
    _Atomic uint64_t started_ns;      /* of this process */
    _Atomic uint64_t heartbeat_ns;    /* written at least once a second by a live main loop, and at
                                          each step; idle processes use a timer */
    _Atomic uint64_t step_started_ns; /* worker: forward pass running since; 0 = none */
    _Atomic uint64_t step_average_ns; /* worker: moving average of passes */
    _Atomic uint64_t
        step_limit_ns; /* worker: the running step is hung when it is older than this, by
                                          the history of steps of its size; 0 = not known */
    uint8_t reserved[40];
    struct stats stats;
    struct board_log log;
};
static_assert(offsetof(struct board_slot, stats) == 128, "two cache lines, then statistics");
static_assert(sizeof(struct board_hdr) <= BOARD_SLOTS_OFFSET, "header fits its page");

#endif
