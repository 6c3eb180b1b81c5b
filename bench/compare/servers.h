/* servers.h - a server under measurement: started by a shell command, ready when GET /health says 200, ended
 * with all that it started.
 *
 * In the command {model}, {port}, {threads}, {bin} (the folder of this program) and {dir} (an empty folder, removed in
 * the end with the files in it) are replaced. */
#ifndef LLMD_BENCH_COMPARE_SERVERS_H
#define LLMD_BENCH_COMPARE_SERVERS_H

#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct server {
    pid_t pid; /* of the shell, and of its process group; 0: not running */
    int port;
    char dir[64];
};

/* ERR_SYS, or ERR_TIMEOUT when it is not ready in time; then nothing of it runs. */
bool server_start(struct server *s, const char *command, const char *model, uint32_t n_threads,
                  uint32_t timeout_s, struct err *e);
void server_stop(struct server *s); /* one that never ran is fine */

#endif
