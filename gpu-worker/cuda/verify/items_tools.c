/* items_tools.c - G11, G21: this program once more, under a tool or on an old driver. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>

#include "gpu-worker/cuda/verify/items.h"

enum { CUDA_13 = 13000, FOUND_ERRORS = 99 };

/* ---- G11 ---- */

static bool is_installed(const char *program)
{
    char command[200];

    snprintf(command, sizeof command, "command -v %s >/dev/null 2>&1", program);
    return system(command) == 0;
}

/* Every kernel of G10 at its small shape: the tools make each launch many times slower. */
static void run_tool(const struct verify *v, const char *tool, struct item_report *r)
{
    char command[1200];
    int status;

    snprintf(command, sizeof command,
             "compute-sanitizer --tool %s --error-exitcode %d --target-processes all "
             "--log-file '%s/%s.log' '%s' --gpu %d --small --items G10 >/dev/null",
             tool, FOUND_ERRORS, v->scratch, tool, v->program, v->gpu);
    status = system(command);
    if (status < 0 || !WIFEXITED(status)) {
        report_failure(r, "compute-sanitizer --tool %s cannot be run", tool);
        return;
    }
    report_at_most(r, WEXITSTATUS(status), 0, "",
                   "%s: exit code (%d: it found errors, 1: wrong results)", tool, FOUND_ERRORS);
}

void item_sanitizer(const struct verify *v, struct item_report *r)
{
    static const char *const tools[] = { "memcheck", "racecheck", "synccheck", "initcheck" };

    if (v->is_dry_run) {
        report_skip(r, "needs a GPU: the fake driver runs the kernels on the host, where make test "
                       "has them under AddressSanitizer");
        return;
    }
    if (!is_installed("compute-sanitizer")) {
        report_skip(r, "compute-sanitizer is not installed; it comes with the CUDA toolkit");
        return;
    }
    for (size_t i = 0; i < sizeof tools / sizeof tools[0]; i++)
        run_tool(v, tools[i], r);
}

/* ---- G21 ---- */

void item_cuda_12(const struct verify *v, struct item_report *r)
{
    if (v->driver >= CUDA_13) {
        report_skip(r, "the driver here is of CUDA %d.%d; it takes one of CUDA 12 (525 to 575)",
                    v->driver / 1000, v->driver % 1000 / 10);
        return;
    }
    report_text(r, "driver's CUDA", "%d.%d", v->driver / 1000, v->driver % 1000 / 10);
    item_kernels(v, r);
}
