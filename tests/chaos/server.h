/* server.h - the server under test: real programs on a private runtime folder, loopback only, started by
 * llm-init where there is one; or a peer that a shell loop starts again and again.
 *
 * The suite looks at it from outside: processes in /proc, and the board and the ledgers through llmd's
 * descriptors, so that it knows what goes on while any process is dead or stopped. */
#ifndef LLMD_TESTS_CHAOS_SERVER_H
#define LLMD_TESTS_CHAOS_SERVER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "proto/board.h"
#include "proto/frame.h"
#include "proto/ledger.h"
#include "tests/chaos/random.h"

enum { GROUPS_MAX = 4, RANKS_MAX = 8 };

struct gpus;
struct kvpool;

struct server_config {
    const char *name; /* "groups2" */
    uint32_t groups, tp_size;
    const char *bin;   /* folder of the programs */
    const char *model; /* directory */
    uint32_t hang_step_ms, hang_timeout_s;
    const char *const *args;  /* further ones of llmd, NULL-terminated, or NULL */
    struct gpus *gpus;        /* fake ones below it, which name the model too; NULL: the CPU */
    const char *peer_command; /* a peer instead, NULL: llmd */
    uint16_t peer_port;
};

struct server {
    struct server_config config;
    pid_t root; /* llm-init, llmd without it, or the peer's shell */
    bool has_init;
    char dir[64]; /* private: runtime folder, settings, log, and the programs' working directory */
    uint16_t port;
    struct board board; /* of the running llmd; hdr NULL: not attached */
    struct ledger ledgers[GROUPS_MAX];
    struct kvpool *pool; /* NULL: not attached */
    pid_t attached_to;
};

bool server_start(struct server *s, const struct server_config *config, struct err *e);
/* SIGTERM, and wait: exit code, -signal, or -1000 when it had to be killed. */
int server_stop(struct server *s, uint64_t timeout_ms);
/* Remove its folder. */
void server_forget(struct server *s);
void server_log_path(const struct server *s, char out[96]);

/* ---- what runs ---- */

pid_t server_llmd(const struct server *s);
pid_t server_slot_pid(const struct server *s, uint32_t slot); /* 0: none lives */
uint32_t server_slot_epoch(const struct server *s, uint32_t slot);
uint32_t server_max_epoch(const struct server *s); /* of the ranks */
/* Its processes that live, keepers not counted, and how many there should be. */
uint32_t server_n_processes(const struct server *s);
uint32_t server_n_wanted(const struct server *s);
/* Look for its segments anew: llmd is the same process, and has others. */
void server_detach(struct server *s);
/* A living process that is not stopped. */
bool pid_runs(pid_t pid);
/* Every process is in service, and llmd says so. */
bool server_is_whole(struct server *s);
/* The child of the peer's shell loop. */
pid_t server_peer(const struct server *s);

/* ---- what they hold ---- */

/* The most deaths that a living sequence of the group has against it. */
struct server_blame {
    uint32_t crashes, kills;
};
struct server_blame server_blame(const struct server *s, uint32_t group);
/* A page of the group's share of the pool: a sealed one that a sequence lists, where there is one.  *page_bytes: of
 * all ranks. */
uint32_t server_draw_page(const struct server *s, uint32_t group, struct random *r,
                          uint64_t *page_bytes);
/* Sum of a statistic over the gateway's slot, or all ranks'. */
int64_t server_stat(const struct server *s, enum stat_id stat);

/* ---- orders ---- */

/* Put the setting fault_points into the file of settings, and have llmd read it. */
void server_set_fault_points(const struct server *s, const char *spec);
/* llmctl with these words in the background; its pid. */
pid_t server_llmctl(const struct server *s, const char *const *words);
Llmd__CtlReply *server_ask(const struct server *s, Llmd__CtlCommand command, int timeout_ms);

#endif
