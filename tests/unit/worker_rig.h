/* worker_rig.h - a small llmd: makes the segments of one group and runs real llm-worker processes. */
#ifndef LLMD_TESTS_WORKER_RIG_H
#define LLMD_TESTS_WORKER_RIG_H

#include <sys/types.h>

#include "gateway_client.h"
#include "proto/board.h"
#include "proto/control.h"
#include "proto/kvpool.h"
#include "proto/ledger.h"

enum { WORKER_RANKS_MAX = 2, WORKER_SETTINGS_MAX = 24 };

struct worker_process {
    pid_t pid;   /* 0 = none */
    int control; /* our end; -1 = closed */
    int output;  /* its stdout */
};

struct worker_rig {
    char instance[32];
    const char *settings[WORKER_SETTINGS_MAX]; /* "name", "value", ..., NULL */
    uint32_t tp_size, epoch;
    struct board board;
    struct ledger ledger;
    struct kvpool pool;
    struct segment weights[WORKER_RANKS_MAX], group;
    struct worker_process ranks[WORKER_RANKS_MAX];
    uint32_t
        n_loaded; /* ranks of the last start that loaded their weights, instead of mapping them */
};

/* Run llm-worker --inspect; the plan is returned, caller frees with frame_free_body(); NULL when the
 * process failed: its FATAL message is then in fatal[240]. */
Llmd__ModelPlan *worker_inspect(const char *const *settings, char *fatal);

/* settings: name, value, ..., NULL; borrowed. */
void worker_rig_init(struct worker_rig *r, uint32_t tp_size, const char *const *settings);
/* Start all ranks with the next epoch and wait until each is READY. */
void worker_rig_start(struct worker_rig *r);
/* Wait for WEIGHTS_READY and READY of one rank. */
void worker_wait_ready(struct worker_rig *r, uint32_t rank);
/* SIGKILL all ranks and reap them. */
void worker_rig_kill(struct worker_rig *r);
/* The same, whatever each of them died of. */
void worker_rig_bury(struct worker_rig *r);
void worker_rig_fini(struct worker_rig *r);

/* Start one process; control socket only, no BOOT yet. */
void worker_spawn(struct worker_process *p, bool inspect);
void worker_send_boot(struct worker_rig *r, uint32_t rank, bool with_fds);
/* Wait for a message of this type and free nothing of it; others before it are dropped. */
void worker_expect(struct worker_process *p, enum msg_type type, struct control_msg *m);
/* Wait for its end; the exit code, or 1000 + signal. */
int worker_reap(struct worker_process *p);

/* Serve the client until the process ends by itself; as worker_reap(). */
int worker_until_dead(struct worker_process *p, struct client *c);
void worker_until_all_over(struct client *c);
void worker_until_n_tokens(struct client *c, const struct client_stream *s, uint32_t n);
struct stats *worker_rig_stats(const struct worker_rig *r);
/* No entry, page or pin is left. */
void worker_rig_assert_clean(const struct worker_rig *r);

#endif
