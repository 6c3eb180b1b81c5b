/* golden.h - a system that serves the demo model, asked for what models/stories-demo/golden.json expects. */
#ifndef LLMD_TESTS_GOLDEN_H
#define LLMD_TESTS_GOLDEN_H

#include "tests/proc/system.h"

/* Every prompt and every chat gets the reference's greedy tokens. */
void golden_expect_all(const struct system *s);

#endif
