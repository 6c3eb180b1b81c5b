/* bucket.h - a leaky bucket in one word: so many a minute.
 *
 * A bucket holds one minute's allowance and runs full at the same rate at which it may be emptied.  Instead of how
 * full it is, the word says when it will be full again: taking n moves that by n times the time that one of
 * them takes to come back, and an empty bucket is full in a minute.  (The generic cell rate algorithm, ITU-T
 * I.371; the two views are equal.)  So there is nothing to refill, threads take with one compare-and-swap,
 * and a process that dies leaves nothing half done.
 *
 * No function reads a clock.  per_minute is never 0. */
#ifndef LLMD_GATEWAY_ADMISSION_BUCKET_H
#define LLMD_GATEWAY_ADMISSION_BUCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Take one.  False: it is empty, and *wait_ns is when it will not be. */
bool bucket_take(_Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t now_ns,
                 uint64_t *wait_ns);

/* For what is known only afterwards: may something begin?  False: the bucket is empty, for *wait_ns. */
bool bucket_is_open(const _Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t now_ns,
                    uint64_t *wait_ns);
/* ... and then take n out of it, into debt if need be. */
void bucket_charge(_Atomic uint64_t *full_at_ns, uint64_t per_minute, uint64_t n, uint64_t now_ns);

#endif
