/* kills.h - the kinds of kills (kills.def), and how one is done to a server under load.
 *
 * The account that keeps it fair: a sequence that was running at two faults of its worker, or at five
 * kills without a token in between, is rightly ended (gpu-worker/recovery.c).  So before a worker dies
 * the ledger is asked what its sequences have against them, and the kill waits until it cannot be the
 * one too many.  Whatever is lost after that is a defect. */
#ifndef LLMD_TESTS_CHAOS_KILLS_H
#define LLMD_TESTS_CHAOS_KILLS_H

#include "tests/chaos/load.h"
#include "tests/chaos/server.h"

enum victim {
    VICTIM_WORKER = 1 << 0, /* one rank; its group dies with it */
    VICTIM_ALL_WORKERS = 1 << 1,
    VICTIM_GATEWAY = 1 << 2,
    VICTIM_LLMD = 1 << 3,
    VICTIM_KEEPER = 1 << 4, /* the small process beside the gateway */
    VICTIM_PEER = 1 << 5,
};

enum kill_way {
    WAY_KILL,   /* SIGKILL */
    WAY_SIGNAL, /* SIGSEGV, SIGBUS or SIGABRT from outside */
    WAY_AGAIN,  /* SIGKILL, and its successor too, while it recovers */
    WAY_STOP,   /* SIGSTOP: a hang, to be found and ended by the server itself */
    WAY_POINT,  /* at a fault point */
    WAY_ORDER,  /* replaced by order of llmctl */
    WAY_DEVICE, /* of a fault of its GPU: device_kills.h */
};

enum kill_sample { SAMPLE_NONE, SAMPLE_WORKER, SAMPLE_GATEWAY, SAMPLE_LLMD };

enum kill_id {
#define KILL(name, victims, way, sample, weight) KILL_##name,
#include "tests/chaos/kills.def"
#undef KILL
    N_KILL_KINDS
};

struct kill_kind {
    const char *name;
    unsigned victims;
    enum kill_way way;
    enum kill_sample sample;
    uint32_t weight;
};

const struct kill_kind *kill_kind(enum kill_id id);

enum { POINTS_MAX = 48 };

struct killer {
    struct server *server;
    struct load *load;
    struct evidence *evidence;
    struct random random;
    uint64_t patience_ms;                        /* for the server to be whole again */
    bool knows_point[POINTS_MAX], knows_upgrade; /* what the programs hold */
    uint32_t poison_token;                       /* on GPUs: in no other prompt, and in no answer */
    /* Pages in GPU memory: damaged; and found so, of which the board says no more. */
    uint32_t n_spoilt, n_found;
};

void killer_init(struct killer *k, struct server *s, struct load *l, uint64_t seed);

/* Can this server take a kill of that kind? */
bool killer_can(const struct killer *k, enum kill_id id);
/* Do it, and turn the load until the server is whole again.  *pause_ms: the pause its clients saw, -1
 * when too few were streaming.  False: the server did not come back. */
bool killer_kill(struct killer *k, enum kill_id id, double *pause_ms);
/* Turn the load until the server is whole.  False: patience is at its end. */
bool killer_wait_whole(struct killer *k);

#endif
