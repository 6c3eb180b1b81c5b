/* hash.h - the one door to xxhash: XXH3 over bytes, the same on every machine of one byte order.
 *
 * For finding and comparing, not against an adversary: who acts on a match of strangers' data compares
 * the data too. */
#ifndef LLMD_COMMON_HASH_H
#define LLMD_COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash128 {
    uint64_t low, high;
};

uint64_t hash64(const void *bytes, size_t n, uint64_t seed);
struct hash128 hash128(const void *bytes, size_t n, uint64_t seed);

#endif
