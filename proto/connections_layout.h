/* connections_layout.h - every open client connection and what it is being told, byte for byte.
 *
 *   0                  4096
 *   +------------------+-----------------------+-----------------------+----
 *   | connections_hdr  | connection_record 0   | connection_record 1   | ...   n_slots of them
 *   +------------------+-----------------------+-----------------------+----
 *   the output of one connection, as the kernel counts it:
 *     0 ........ earlier answers ........ answer_start [ head: head_bytes ][ body ............. )
 *   the sequences of its request: first_sequence_id, + 1, ... + n_sequences - 1
 *
 * Writers.  llmd fills connections_hdr.  A slot is claimed by a gateway thread with one
 * compare-and-swap of .state from CONNECTION_FREE to CONNECTION_IDLE, and that thread alone writes the
 * record until it frees it.  llmd keeps the connection's descriptor under the slot's index and its
 * .generation, and reads only these.
 *
 * Order.  The fields a state needs are written first, then .state with release; who loads .state
 * with acquire may read them.  On the way back to an earlier state .state is written first.
 *
 * Crash.  There are no locks.  The successor scans once: FREE slots are skipped, and of the others the
 * connection is taken back and its answer written again from answer_start.  What makes two writings of
 * an answer differ (its id, its date, the seed that was drawn) is in the record; the order of its
 * pieces is a pure function of the tokens.
 *
 * Today llmd keeps no connection's descriptor, so the successor frees every record (gateway/boot.c).
 *
 * Version.  Any change of size, order or meaning is a new CONNECTIONS_VERSION. */
#ifndef LLMD_PROTO_CONNECTIONS_LAYOUT_H
#define LLMD_PROTO_CONNECTIONS_LAYOUT_H

#include <stdatomic.h>

#include "proto/segment.h"

enum { CONNECTIONS_VERSION = 2, CONNECTIONS_RECORDS_OFFSET = 4096 };

/* Sequences of one request: n choices of each of its prompts.  Keep-alive comments of one stream. */
enum { CONNECTION_SEQUENCES_MAX = 128, CONNECTION_KEEP_ALIVES_MAX = 32 };

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_IDLE,      /* open; no request, or one whose head is not complete */
    CONNECTION_READING,   /* head complete, body still coming; .dialect */
    CONNECTION_WAITING,   /* request complete, no byte of an answer; .request and .sequences */
    CONNECTION_ANSWERING, /* the answer has begun; all fields */
    N_CONNECTION_STATES
};

struct connections_hdr {
    struct segment_hdr segment;
    uint32_t n_slots;
    uint32_t record_bytes;
};

struct connection_record {
    _Atomic uint32_t state;      /* enum connection_state */
    _Atomic uint32_t generation; /* bumped each time the slot is claimed; 0 = never was */
    uint32_t thread;             /* gateway thread that owns it */
    uint32_t dialect;            /* enum dialect_id of the gateway; 0 = none */
    uint64_t opened_ns;          /* CLOCK_MONOTONIC */
    uint64_t cookie;             /* SO_COOKIE of its socket: tells which descriptor it is */

    /* the request */
    uint64_t request_started_ns; /* CLOCK_MONOTONIC, first byte seen */
    uint64_t deadline_ns;        /* CLOCK_MONOTONIC */
    uint64_t seed;               /* of its first sequence, drawn or given */
    uint64_t answer_id;          /* the 64 random bits of "cmpl-...", "chatcmpl-..." */
    int64_t created_s;           /* wall clock, as answered */
    uint64_t first_sequence_id;
    uint32_t n_sequences;
    uint8_t is_stream;
    uint8_t reserved1[3];

    /* where the answer stands: struct http_mark of gateway/net */
    uint64_t answer_start; /* offset of the answer's first byte in the connection's output */
    uint64_t bytes_read;   /* bytes taken from the socket, up to the end of the request */
    int64_t date_s;        /* of the Date field */
    uint32_t head_bytes;   /* of the answer; 0 = not known */
    uint8_t minor_version;
    uint8_t keep_alive;
    uint8_t is_head;
    uint8_t reserved2;

    /* group that each sequence was last submitted to */
    uint8_t group[CONNECTION_SEQUENCES_MAX];

    /* comments that went out after so many pieces of the stream: they come by the clock */
    uint32_t n_keep_alives;
    uint32_t keep_alive_at[CONNECTION_KEEP_ALIVES_MAX];
    uint8_t reserved[132];
};
static_assert(sizeof(struct connection_record) == 512, "eight cache lines");
static_assert(sizeof(struct connections_hdr) <= CONNECTIONS_RECORDS_OFFSET, "header fits its page");

#endif
