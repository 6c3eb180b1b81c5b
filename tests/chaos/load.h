/* load.h - the clients that are kept running, and the verdict on every answer they get. */
#ifndef LLMD_TESTS_CHAOS_LOAD_H
#define LLMD_TESTS_CHAOS_LOAD_H

#include "tests/chaos/client.h"
#include "tests/chaos/evidence.h"
#include "tests/chaos/report.h"

enum { CLIENTS_MAX = 64 };

/* The longest pause of the clients that were streaming when it was set. */
struct load_watch {
    uint64_t since_ns, limit_ns;
    uint32_t n_clients;
    uint64_t recovery_ns; /* to the end of the longest pause of the client that waited longest */
    uint64_t longest_ns;  /* the longest pause itself */
};

struct load {
    struct catalog *catalog; /* borrowed */
    struct client clients[CLIENTS_MAX];
    uint32_t n_clients;
    bool is_open;    /* clients begin new visits */
    bool takes_calm; /* answers are taken as the undisturbed ones */
    bool of_peer;
    uint32_t n_kills; /* so far: what a client with half a request waits for */
    struct client_events events;
    struct counts counts;
    struct load_watch watch;
    struct samples *gaps; /* where pauses between two bytes of a stream go; NULL = nowhere */
    struct evidence *evidence;
};

struct load_config {
    struct catalog *catalog;
    bool of_peer;
    bool asks_once; /* one request a connection */
    uint32_t n_clients;
    uint64_t seed;
    uint64_t patience_ms; /* without a byte for so long, an answer is lost */
};

void load_init(struct load *l, const struct load_config *config, struct evidence *evidence);
void load_fini(struct load *l);
void load_set_port(struct load *l, uint16_t port);

/* One turn of the loop: wait for at most timeout_ms. */
void load_turn(struct load *l, int timeout_ms);
void load_run_ms(struct load *l, uint64_t ms);
/* No new visits; turn until all have ended.  False: after timeout_ms some had not. */
bool load_close(struct load *l, uint64_t timeout_ms);

/* Ask everything once, one after the other, and keep the answers in the catalogue.  False: not all
 * were answered. */
bool load_take_calm(struct load *l);
/* Ask n of them again, and compare. */
void load_ask_again(struct load *l, uint32_t n, struct random *r);

/* From now: pauses that begin within limit_ms. */
void load_watch(struct load *l, uint64_t since_ns, uint64_t limit_ms);
/* Turn until the watched clients have gone on, or timeout_ms passed; the result is in l->watch. */
void load_watch_end(struct load *l, uint64_t timeout_ms);
uint32_t load_n_streaming(const struct load *l);

#endif
