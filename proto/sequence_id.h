/* sequence_id.h - 64 bits that name a sequence for as long as anyone could remember it.
 *
 *   63            40 39            32 31                    0
 *   +---------------+----------------+----------------------+
 *   | gateway epoch | gateway thread | counter              |
 *   +---------------+----------------+----------------------+
 *
 * The gateway's epoch counts its starts under one llmd, so a new gateway never draws an old id.  0 is no
 * sequence. */
#ifndef LLMD_PROTO_SEQUENCE_ID_H
#define LLMD_PROTO_SEQUENCE_ID_H

#include <stdint.h>

static inline uint64_t sequence_id_make(uint32_t gateway_epoch, uint32_t thread, uint32_t counter)
{
    return (uint64_t)(gateway_epoch & 0xffffff) << 40 | (uint64_t)(thread & 0xff) << 32 | counter;
}

static inline uint32_t sequence_id_thread(uint64_t id)
{
    return (uint32_t)(id >> 32) & 0xff;
}

#endif
