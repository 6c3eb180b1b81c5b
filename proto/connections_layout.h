/* connections_layout.h - every open client connection: what it has sent and what it is being told, byte
 * for byte.
 *
 *   0                  4096               keys_offset            owners_offset     blocks_offset (page aligned)
 *   +------------------+------------------+----------------------+-----------------+-----------------------+
 *   | connections_hdr  | connection_record| key_record[KEYS_MAX] | owner[n_blocks] | block 0 | block 1 ... |
 *   |                  | [n_slots]        | (keys_layout.h)      |                 |                       |
 *   +------------------+------------------+----------------------+-----------------+-----------------------+
 *   the input of one connection, counted from its first byte; block k of it holds bytes [k*B, (k+1)*B):
 *     0 ........ answered requests ........ in_start [ the request, what is pipelined behind it ) read
 *   its output, as the kernel counts it:
 *     0 ........ earlier answers ...... answer_start [ 100 Continue, head, body: whole_bytes ... )
 *   the sequences of its request: first_sequence_id, + 1, ... + n_sequences - 1
 *
 * Writers.  llmd fills connections_hdr.  A slot is claimed by a gateway thread with one
 * compare-and-swap of .state from CONNECTION_FREE to CONNECTION_IDLE, and that thread alone writes the
 * record until it frees it.  A block is taken by a compare-and-swap of its owner word and then belongs
 * to that connection's thread as well.  llmd keeps the connection's descriptor under the slot's index and
 * its .generation, and reads only .state, .generation and .cookie.
 *
 * Order.  A block is owned, and knows its place, before the recv() that fills it: how many bytes were
 * ever read, TCP itself says (less .in_base).  What speaks of a request is true only while .state is not
 * IDLE and .request_at equals .in_start, so one store of .in_start ends a request.  The fields that a
 * state needs are written before .state (release); those of the answer before a byte of it can reach
 * the kernel.
 *
 * Crash.  There are no locks.  The successor scans once: FREE slots are skipped, and each other whose
 * descriptor llmd has kept is taken back.  Its request is read again from the journal, and its answer
 * written again, less what the kernel has taken since answer_start.  What makes two writings of an answer
 * differ (its id, its date, the seed that was drawn, times) is in the record; the order of its pieces
 * is a pure function of the tokens.  An answer that cannot be made again (is_repeatable = 0) is whole when
 * it is given to the kernel, so it is known to be out (whole_bytes) or not.  Records without descriptor
 * and blocks without record are freed.
 *
 * Version.  Any change of size, order or meaning is a new CONNECTIONS_VERSION. */
#ifndef LLMD_PROTO_CONNECTIONS_LAYOUT_H
#define LLMD_PROTO_CONNECTIONS_LAYOUT_H

#include <stdatomic.h>

#include "proto/keys_layout.h"
#include "proto/segment.h"

enum { CONNECTIONS_VERSION = 4, CONNECTIONS_RECORDS_OFFSET = 4096 };
enum { CONNECTIONS_BLOCK_BYTES = 16 << 10 };

/* Sequences of one request: n choices of each of its prompts.  Keep-alive comments of one stream. */
enum {
    CONNECTION_SEQUENCES_MAX = 128,
    CONNECTION_KEEP_ALIVES_MAX = 32,
    CONNECTION_FAULT_BYTES = 320,
    CONNECTION_NO_GROUP = 255,
};

enum connection_state {
    CONNECTION_FREE,
    CONNECTION_IDLE,      /* open; no request, or one whose head is not complete */
    CONNECTION_READING,   /* head complete, body still coming; .dialect */
    CONNECTION_WAITING,   /* request complete, no byte of an answer; .request and .sequences */
    CONNECTION_ANSWERING, /* the answer has begun; all fields */
    N_CONNECTION_STATES
};

/* What the statistics have already been told about a request. */
enum {
    CONNECTION_COUNTED_RECEIVED = 1,
    CONNECTION_COUNTED_GENERATE = 2,
    CONNECTION_COUNTED_PROMPT = 4,
    CONNECTION_COUNTED_FIRST_TOKEN = 8,
    CONNECTION_COUNTED_END = 16,
    CONNECTION_COUNTED_ADMITTED = 32, /* by .key, and it has a permit */
};

struct connections_hdr {
    struct segment_hdr segment;
    uint32_t n_slots;
    uint32_t record_bytes;
    uint32_t n_blocks;
    uint32_t block_bytes;
    uint64_t keys_offset;
    uint64_t owners_offset;
    uint64_t blocks_offset;
};

/* One block of the journal: whose it is, and which part of that connection's input it holds. */
struct connections_owner {
    _Atomic uint64_t owner; /* slot + 1 << 32 | generation; 0 = free */
    _Atomic uint64_t place; /* k + 1; 0 until it is known */
};

struct connection_record {
    _Atomic uint32_t state;      /* enum connection_state */
    _Atomic uint32_t generation; /* bumped each time the slot is claimed; 0 = never was */
    uint32_t thread;             /* gateway thread that owns it */
    uint32_t dialect;            /* enum dialect_id of the gateway; 0 = none */
    uint64_t opened_ns;          /* CLOCK_MONOTONIC */
    uint64_t cookie;             /* SO_COOKIE of its socket: tells which descriptor it is */

    /* what the client has sent */
    uint64_t in_base;            /* the kernel's count of bytes read, before the first one */
    _Atomic uint64_t in_start;   /* offset of the first byte of the current or next request */
    _Atomic uint64_t request_at; /* in_start of the request that all below speaks of */
    _Atomic uint8_t has_gap;     /* bytes were read that the journal had no room for */
    _Atomic uint8_t is_handed;   /* llmd was given the descriptor */

    /* the request */
    uint8_t counted; /* CONNECTION_COUNTED_... */
    uint8_t is_stream;
    uint32_t key;                /* of the key it was admitted by, keys_layout.h */
    uint64_t request_started_ns; /* CLOCK_MONOTONIC, first byte seen */
    uint64_t deadline_ns;        /* CLOCK_MONOTONIC */
    uint64_t seed;               /* of its first sequence, drawn or given */
    uint64_t answer_id;          /* the 64 random bits of "cmpl-...", "chatcmpl-..." */
    int64_t created_s;           /* wall clock, as answered */
    uint64_t first_sequence_id;
    uint32_t n_sequences; /* 0: none were made */
    uint32_t max_model_len;

    /* where the answer stands: struct http_mark of gateway/net */
    uint64_t answer_start;        /* offset of the first byte of its output in the connection's */
    _Atomic uint64_t whole_bytes; /* of the complete output; 0 = not complete yet */
    int64_t date_s;               /* of the Date field */
    _Atomic uint8_t has_output;   /* answer_start is known */
    uint8_t keep_alive;           /* as its head says */
    uint8_t is_repeatable;        /* made again, it has the same bytes */
    uint8_t sent_continue;        /* 100 Continue goes before it */
    uint8_t is_begun;             /* more than that may be out */
    uint8_t reserved2[3];

    /* times and counts that the answer tells */
    uint64_t validated_ns; /* CLOCK_MONOTONIC */
    uint64_t answered_ns;  /* CLOCK_MONOTONIC; 0 = not yet */
    uint64_t queue_ns;
    uint32_t
        cached_tokens; /* 1 + of its prompts' tokens, those found in the prefix cache; 0 = not yet */
    uint32_t reserved3;

    /* how a stream failed: after fault_at pieces, for this reason */
    uint32_t fault_kind; /* enum fault_kind of the gateway; 0 = it did not */
    uint32_t fault_at;

    /* comments that went out after so many pieces of the stream: they come by the clock */
    uint32_t n_keep_alives;
    uint32_t keep_alive_at[CONNECTION_KEEP_ALIVES_MAX];

    /* group that each sequence was last submitted to, or CONNECTION_NO_GROUP */
    uint8_t group[CONNECTION_SEQUENCES_MAX];
    char fault_text[CONNECTION_FAULT_BYTES];
    uint32_t charged_tokens; /* generated tokens that its key has been charged for */

    /* times for the statistics */
    uint64_t went_ns;        /* CLOCK_MONOTONIC, its turn came; 0 = not yet */
    uint64_t first_token_ns; /* CLOCK_MONOTONIC; 0 = not yet */
    uint8_t reserved[232];
};
static_assert(sizeof(struct connection_record) == 1024, "four to a page");
static_assert(sizeof(struct connections_hdr) <= CONNECTIONS_RECORDS_OFFSET, "header fits its page");
static_assert(sizeof(struct connections_owner) == 16, "an owner and its place");

#endif
