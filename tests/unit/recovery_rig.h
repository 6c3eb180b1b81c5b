/* recovery_rig.h - a worker that may die, and one gateway that outlives it.
 *
 * The worker is the test's program again, started with --worker on the segments of the test, so that
 * SIGKILL is the real thing; its runtime is the fake one. */
#ifndef LLMD_TESTS_RECOVERY_RIG_H
#define LLMD_TESTS_RECOVERY_RIG_H

#include <sys/types.h>

#include "engine_rig.h"

struct recovery {
    struct rig rig; /* segments only */
    struct client client;
    const struct rig_shape *shape;
    pid_t pid;
    uint32_t step_us;
    bool poison;
    const char *fault_points; /* NULL = none */
};

/* For main(): the program was started as a worker; be it, and return its exit code. */
bool recovery_is_worker(int argc, char **argv);
int recovery_worker(char **argv);

/* Segments, a gateway, and the first worker, whose steps take step_us. */
void recovery_init(struct recovery *f, const struct rig_shape *shape, uint32_t step_us);
void recovery_fini(struct recovery *f);

/* The next epoch's. */
void recovery_start(struct recovery *f);
/* Wait for its end; the status of waitpid(). */
int recovery_reap(struct recovery *f);
void recovery_kill(struct recovery *f);

/* Let the gateway take what comes, for so long. */
void recovery_receive(struct recovery *f, uint64_t ns);
void recovery_until_tokens(struct recovery *f, uint32_t n);
void recovery_until_over(struct recovery *f);
/* Start the worker again whenever it dies, as llmd does; the number of deaths until all is over. */
int recovery_serve(struct recovery *f);
/* Drain, see it end well, and find everything given back. */
void recovery_end_well(struct recovery *f);

#endif
