/* fake_clock.h - the monotonic clock of a test program, which can be held: then time passes only as the test says, however
 * busy the machine is.
 *
 * Who is linked with it reads CLOCK_MONOTONIC here (the linker's --wrap=clock_gettime); shared libraries go on reading the
 * real one, and so does everybody until it is held. */
#ifndef LLMD_TESTS_FAKE_CLOCK_H
#define LLMD_TESTS_FAKE_CLOCK_H

#include <stdint.h>

/* It stands still, */
void fake_clock_hold(void);
/* but for this, */
void fake_clock_pass(uint64_t ns);
/* and goes on from there: never back, but it may be behind the real one, or before it. */
void fake_clock_release(void);

#endif
