/* harness.h - the real llm-gateway under a test supervisor: BOOT over a socketpair, a board, a
 * connections segment, a listening socket, and fake workers instead of groups. */
#ifndef LLMD_TESTS_HARNESS_H
#define LLMD_TESTS_HARNESS_H

#include <sys/types.h>

#include "proto/board.h"
#include "proto/connections.h"
#include "tests/gateway/fake_worker.h"

enum { HARNESS_GROUPS_MAX = 2 };

struct harness_setting {
    const char *name, *value;
};

struct harness_kept {
    uint32_t slot, generation;
    int fd;
};

struct harness {
    char instance[64];
    struct board board;
    struct connections connections;
    int listen_fd, control;
    uint16_t port;
    pid_t pid;
    uint32_t n_groups;
    struct fake_worker workers[HARNESS_GROUPS_MAX];
    bool has_worker[HARNESS_GROUPS_MAX];
    const struct harness_setting *settings;
    const char *fault_points; /* of the next gateway to be started; NULL = none */
    uint64_t journal_bytes;   /* may be set before harness_start(); 0 = plenty */
    uint32_t epoch;
    struct harness_kept *kept; /* as llmd: connections handed over */
    uint32_t n_kept, kept_cap, n_taken;
    bool loses_connections;      /* the next gateway is given none of them */
    uint32_t n_ready, ready_pid; /* READY messages seen by harness_take() */
};

/* h is zeroed, but for fields that may be set before.  Starts the gateway and waits for READY.  settings end with a NULL name and come on top of defaults
 * (demo model, 2 threads, quiet log). */
void harness_start(struct harness *h, uint32_t n_groups, const struct harness_setting *settings);
void harness_start_worker(struct harness *h, uint32_t group);
void harness_stop_worker(struct harness *h, uint32_t group);
/* DRAIN, wait for the exit; its status. */
int harness_stop(struct harness *h);
/* As llmd ends everything, and as it restarts the gateway alone. */
void harness_drain(struct harness *h, uint64_t limit_ms);
void harness_restart(struct harness *h, uint64_t limit_ms);
int harness_wait(struct harness *h);
/* Take in what a living gateway hands over, until there are n, for up to 5 s. */
bool harness_take(struct harness *h, uint32_t n);
/* Take in all that a dead gateway has handed over, to the end of its socket. */
void harness_collect(struct harness *h);
/* kill -9; or wait for it to die by itself (a fault point). */
void harness_kill(struct harness *h);
bool harness_wait_dead(struct harness *h, uint64_t limit_ms);
/* The next gateway, with the same segments, sockets and kept connections; waits for READY.  False: it
 * died before (a fault point in the taking over). */
bool harness_respawn(struct harness *h);
void harness_free(struct harness *h);

/* A new llmd has come. */
void harness_adopt(struct harness *h);
/* A LIVE setting has changed. */
void harness_reload(struct harness *h, const char *name, const char *value);
void harness_say_service(struct harness *h, uint32_t group, bool is_up, const char *cause);

struct stats *harness_stats(struct harness *h);
uint64_t harness_stat(struct harness *h, enum stat_id s);
/* Wait for a condition on a number, for half a minute at least. */
bool harness_wait_stat(struct harness *h, enum stat_id s, uint64_t wanted);
bool harness_wait_for(_Atomic uint32_t *value, uint32_t at_least);
int harness_n_fds(struct harness *h);

#endif
