/* keys_layout.h - what each API key may do and has done, byte for byte: a part of the connections segment.
 *
 *   +--------------------+-------------------+-------------------+-----
 *   | 0: those without a | 1: the setting    | 2 .. KEYS_MAX - 1: the keys of the file, each in its place
 *   |    key, if allowed |    api_key(s)     |    as long as its name is in the file
 *   +--------------------+-------------------+-------------------+-----
 *
 * Writers.  The gateway alone: its main thread what stands in the file (name, hashes, limits), under a lock of
 * its own; any of its threads the atomic words behind.
 *
 * Order.  A record is free or retired while its name and hashes are written; .state (release) is last.  The other
 * words are single numbers, and order nothing (relaxed).
 *
 * Crash.  Counters, buckets and shares go on: a key that has used up its minute has still used it up when
 * the next gateway asks, and a metric never goes backwards.  That gateway reads the file again; when it
 * cannot be read, the keys that stand here are good.  Who was admitted under a key is in the connection's
 * record (.key), so a request needs its key only once.
 *
 * Version.  CONNECTIONS_VERSION, since the segment is that. */
#ifndef LLMD_PROTO_KEYS_LAYOUT_H
#define LLMD_PROTO_KEYS_LAYOUT_H

#include <assert.h>
#include <stdatomic.h>
#include <stdint.h>

enum {
    KEYS_MAX = 1024,
    KEY_NOBODY = 0,  /* no key was asked for */
    KEY_SETTING = 1, /* api_key */
    KEY_FIRST = 2,
    KEY_NAME_BYTES = 32,
    KEY_HASHES_MAX = 8,
    KEY_HASH_BYTES = 32,
};

enum key_state {
    KEY_FREE,
    KEY_LIVE,
    KEY_RETIRED, /* no longer in the file; what was admitted under it goes on */
};

struct key_record {
    _Atomic uint32_t state; /* enum key_state */
    uint32_t n_hashes;
    char name[KEY_NAME_BYTES];
    uint8_t hash[KEY_HASHES_MAX][KEY_HASH_BYTES]; /* SHA-256 */

    /* limits; 0 = none */
    _Atomic uint64_t requests_per_minute;
    _Atomic uint64_t tokens_per_minute;
    _Atomic uint32_t concurrency;
    _Atomic uint32_t weight; /* 1 .. */
    _Atomic int32_t priority;
    uint32_t reserved1;

    /* where it stands */
    _Atomic uint64_t requests_until_ns; /* rate.h: when its bucket is full again, CLOCK_MONOTONIC */
    _Atomic uint64_t tokens_until_ns;
    _Atomic uint64_t service; /* tokens it was served, by weight: fair_queue.h */

    /* what it has done, for the metrics */
    _Atomic uint64_t n_requests; /* admitted */
    _Atomic uint64_t n_limited;  /* refused for one of its limits */
    _Atomic uint64_t n_prompt_tokens;
    _Atomic uint64_t n_generated_tokens;
    uint8_t reserved2[128];
};
static_assert(sizeof(struct key_record) == 512, "eight cache lines");

#endif
