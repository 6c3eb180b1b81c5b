/* board_layout.h - who lives, how they are, and everything they count; byte for byte.
 *
 *   0      64            4096              4096 + slot_bytes ...
 *   +------+-------------+-----------------+-----------------+------
 *   | hdr  | board_hdr   | slot 0: llmd    | slot 1: gateway | slot 2..: ranks, group by group
 *   +------+-------------+-----------------+-----------------+------
 *   rank r of group g has slot 2 + g * tp_size + r
 *
 * Writers.  llmd fills board_hdr before it starts anything.  Of each slot it writes
 * .name (before the process starts), .pid, .state, .started_ns, .restarts, .epoch and .trouble, what .kept says, and
 * while no process runs .heartbeat_ns and .step_started_ns too.  The process whose slot it is writes the
 * rest: heartbeat, step times, its statistics and its last log lines.  Everybody maps the board; llmctl
 * does not (it asks llmd).
 *
 * Order.  Every field that changes is one aligned word, written and read atomically (relaxed is enough).
 * Nothing on the board orders anything else.
 *
 * Crash.  Counters and histograms stay and go on: a restart does not reset a metric.  Gauges are set
 * to 0 by the successor, and step_started_ns by llmd before it starts the successor.  The successor of a
 * dead llmd finds here what each process and its group were doing (supervisor/adopt.c): .state is written
 * before the act that it names, so what the board says may not have been done yet, and is done then.
 *
 * Version.  Any change of size, order or meaning is a new BOARD_VERSION.  So is a new statistic that is
 * not the last of stats.def: it renumbers those behind it.  STATS_CAP and HISTS_CAP leave room, so that a
 * slot keeps its size. */
#ifndef LLMD_PROTO_BOARD_LAYOUT_H
#define LLMD_PROTO_BOARD_LAYOUT_H

#include "proto/segment.h"
#include "proto/stats.h"

enum { BOARD_VERSION = 8, BOARD_SLOT_LLMD = 0, BOARD_SLOT_GATEWAY = 1, BOARD_SLOT_RANKS = 2 };
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

/* What the newest end of a rank says of its GPU. */
enum gpu_trouble {
    GPU_TROUBLE_NONE,
    GPU_TROUBLE_LOST,     /* its memory is gone, and it needs a reset */
    GPU_TROUBLE_UNUSABLE, /* no driver, too little memory, ... */
    GPU_TROUBLE_STUCK,    /* it did not let go of a killed process for some time */
    N_GPU_TROUBLES
};

struct board_hdr {
    struct segment_hdr segment;
    uint32_t n_slots;
    uint32_t slot_bytes;
    uint32_t n_groups;
    uint32_t tp_size;
    uint64_t started_ns; /* CLOCK_MONOTONIC, start of service */
    _Atomic uint64_t
        upgrade_ns; /* llmd: processes started before this are to be replaced, one group
                                    after the other; 0 = no upgrade goes on */
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

/* What llmd knows of a process besides its state, for the llmd after it. */
struct board_kept {
    _Atomic uint64_t ready_ns;    /* since when in service; 0 = not */
    _Atomic uint64_t died_ns;     /* newest death */
    _Atomic uint64_t deadline_ns; /* DRAINING: of the drain; BACKOFF: when its group starts again */
    _Atomic uint32_t deaths;      /* of its group, in this row */
    _Atomic uint32_t pause_ms;    /* newest one of its group */
    _Atomic uint32_t log_start;   /* board_log.n_lines when it was started */
    _Atomic uint32_t
        control_inode; /* of its end of the control socket: who has it open is the process */
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
    struct board_kept kept;
    struct stats stats;
    struct board_log log;
    char last_exit[320];      /* of its newest end, for people; "" = never ended */
    _Atomic uint32_t trouble; /* of that end: enum gpu_trouble */
    uint8_t pad[60];
};
static_assert(sizeof(struct board_kept) == 40, "fits the cache line of the words before it");
static_assert(offsetof(struct board_slot, stats) == 128, "two cache lines, then statistics");
static_assert(sizeof(struct board_hdr) <= BOARD_SLOTS_OFFSET, "header fits its page");

#endif
