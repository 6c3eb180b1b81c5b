/* engine_process.h - an engine in a process of its own: commands go down one end of a socket pair, answers
 * come back (workload.h).
 *
 * So the two engines share neither threads nor memory nor signals, and one that faults ends its own
 * measurement only.  The child is forked, not executed: the parent has one thread and has loaded neither
 * engine.  It dies with its parent. */
#ifndef LLMD_BENCH_COMPARE_ENGINE_PROCESS_H
#define LLMD_BENCH_COMPARE_ENGINE_PROCESS_H

#include <sys/types.h>

#include "bench/compare/workload.h"

struct engine_process {
    const struct engine_class *class;
    struct engine_info info;
    pid_t pid; /* 0: not running */
    int fd;
};

/* Start it and wait until the model is loaded.  *o is borrowed during the call. */
bool engine_process_open(struct engine_process *p, const struct engine_class *class,
                         const struct engine_options *o, struct err *e);
void engine_process_close(struct engine_process *p); /* one that never ran is fine */

/* One command, one answer, without its "ok ".  ERR_DEVICE: the engine's own error; ERR_SYS: it is gone. */
bool engine_process_ask(struct engine_process *p, const char *command, char *answer, size_t n,
                        struct err *e);

#endif
