/* client.h - one client of the load: a visit is a connection with one to three requests, made in one of
 * the manners clients have.
 *
 * It never blocks.  The load (load.h) polls for all of them and gives each its turn; what a visit found
 * goes back through struct client_events. */
#ifndef LLMD_TESTS_CHAOS_CLIENT_H
#define LLMD_TESTS_CHAOS_CLIENT_H

#include "tests/chaos/answer.h"
#include "tests/chaos/catalog.h"
#include "tests/chaos/random.h"

enum { ASKS_MAX = 3 };

enum manner {
    MANNER_PLAIN,       /* one request, one answer, closed */
    MANNER_KEEP,        /* one after the other on one connection */
    MANNER_PIPELINED,   /* all requests at once on one connection */
    MANNER_SLOW_SENDER, /* head and body arrive in pieces */
    MANNER_CHUNKED,     /* as that, and the body is chunked */
    MANNER_HALF,        /* half a request, and the rest when something has been killed */
    MANNER_SLOW_READER, /* reads little at a time, and waits */
    MANNER_LEAVER,      /* goes away without a word at some moment */
    N_MANNERS
};

struct client;

struct client_events {
    /* The answer to asks[c->n_answered] lies whole in c->in from c->start, as c->answer says. */
    void (*on_answer)(struct client *c, void *ctx);
    /* No such answer will come: `why`.  Those behind it on this connection neither. */
    void (*on_lost)(struct client *c, const char *why, void *ctx);
    void (*on_refused)(struct client *c, void *ctx);
    /* Bytes came at now_ns, the ones before at c->last_byte_ns. */
    void (*on_bytes)(struct client *c, uint64_t now_ns, void *ctx);
    void *ctx;
};

/* Where a pause is looked for after a kill; see load_watch(). */
struct client_watch {
    bool is_on;
    uint64_t since_ns, limit_ns; /* pauses that begin before `limit` count */
    uint64_t longest_ns, end_ns; /* of the longest: its length, and when it ended */
};

struct client {
    uint32_t index;
    struct random random;
    const struct client_events *events;
    const struct catalog *catalog;
    uint16_t port;
    uint64_t patience_ns;
    bool
        asks_once; /* of a connection only one thing: a gateway that ends may close it behind any answer */

    /* the visit */
    int fd;                 /* -1: between visits */
    uint64_t rest_until_ns; /* no new visit before: it was refused */
    enum manner manner;
    uint32_t asks[ASKS_MAX], n_asks, n_answered;
    uint64_t begun_ns;

    /* sending */
    struct buf out;
    size_t request_end[ASKS_MAX], n_sent, gate; /* bytes before the gate may be sent now */
    uint64_t send_after_ns;
    uint32_t kills_seen;
    bool is_connected;

    /* receiving */
    struct buf in;
    size_t start; /* of the current answer in .in */
    struct answer answer;
    uint64_t read_after_ns, last_byte_ns;
    size_t leave_bytes;
    uint64_t leave_ns;

    struct client_watch watch;
};

void client_init(struct client *c, uint32_t index, uint64_t seed);
void client_fini(struct client *c);

/* Begin a visit of chance. */
void client_visit(struct client *c, uint64_t now_ns, uint32_t n_kills);
/* Begin a plain visit with this request. */
void client_ask(struct client *c, uint32_t ask, uint64_t now_ns);
static inline bool client_is_busy(const struct client *c)
{
    return c->fd >= 0;
}

/* What to poll for; 0 = nothing now.  *wake_ns is lowered to the moment it wants its turn anyway. */
short client_wants(const struct client *c, uint64_t now_ns, uint32_t n_kills, uint64_t *wake_ns);
/* Its turn: poll() said `events`. */
void client_turn(struct client *c, short events, uint64_t now_ns, uint32_t n_kills);
/* Is it in the middle of a streamed answer that it reads as it comes? */
bool client_is_streaming(const struct client *c);

const char *manner_name(enum manner m);

#endif
