/* kvpool_fixture.h - a small pool, which the tests of the pool begin with. */
#ifndef LLMD_TESTS_KVPOOL_FIXTURE_H
#define LLMD_TESTS_KVPOOL_FIXTURE_H

#include "proto/kvpool.h"

extern const struct kvpool_shape pool_shape; /* 64 pages of 16 tokens, float16 */

/* A new one of that shape; kvpool_close() when done. */
struct kvpool pool_make(void);

#endif
