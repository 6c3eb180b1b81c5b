/* process.c - what Prometheus' client libraries tell of their process, by the same names.
 *
 * The process is this gateway; the others are on the board.  Its CPU time is not told, since as a counter it would go
 * backwards with each new gateway. */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "common/open_fds.h"
#include "gateway/metrics/metrics.h"
#include "gateway/service.h"

static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    unsigned long long pages = 0;

    if (!f)
        return 0;
    if (fscanf(f, "%*u %llu", &pages) != 1)
        pages = 0;
    fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_fds(void)
{
    int n = open_fds_count(getpid());

    return n > 0 ? (uint64_t)n : 0;
}

static void put(struct buf *out, const char *name, const char *help, uint64_t v)
{
    metrics_family(out, "process_", name, "", "gauge", help);
    buf_printf(out, "process_%s %" PRIu64 "\n", name, v);
}

void metrics_process(struct buf *out, const struct service *s)
{
    put(out, "resident_memory_bytes", "Resident memory of the gateway.", resident_bytes());
    put(out, "open_fds", "Open descriptors of the gateway.", open_fds());
    put(out, "start_time_seconds", "When the gateway started, in seconds since 1970.",
        s->started_s);
}
