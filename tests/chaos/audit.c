/* audit.c - see audit.h. */
#include "tests/chaos/audit.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/open_fds.h"
#include "tests/chaos/gpus.h"
#include "tests/chaos/processes.h"

enum { SETTLE_MS = 30000, LOOK_MS = 5, FDS_SLACK = 2 };

static int compare_names(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

/* The names in a folder, one a line. */
static void list_folder(const char *path, bool with_folders, struct buf *out)
{
    struct dirent **entries = NULL;
    int n = scandir(path, &entries, NULL, compare_names);

    for (int i = 0; i < n; i++) {
        bool is_wanted = with_folders || entries[i]->d_type != DT_DIR;
        if (is_wanted && strcmp(entries[i]->d_name, ".") != 0 &&
            strcmp(entries[i]->d_name, "..") != 0)
            buf_printf(out, "%s\n", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

/* Folders there are of tests that run beside this one: of fake GPUs. */
static void list_shm(struct buf *out)
{
    list_folder("/dev/shm", false, out);
}

void audit_before(struct audit *a)
{
    *a = (struct audit){ 0 };
    list_shm(&a->shm);
}

void audit_baseline(struct audit *a, const struct server *s)
{
    a->llmd_fds = open_fds_count(server_llmd(s));
    a->init_fds = s->has_init ? open_fds_count(s->root) : 0;
    a->gpu_pieces = s->config.gpus ? gpus_n_held(s->config.gpus) : 0;
}

void audit_fini(struct audit *a)
{
    buf_fini(&a->shm);
}

/* ---- the idle server ---- */

static int64_t generate_requests_ended(const struct server *s)
{
    static const enum stat_id ends[] = {
        STAT_requests_finished_stop,       STAT_requests_finished_length,
        STAT_requests_finished_error,      STAT_requests_cancelled,
        STAT_requests_refused_invalid,     STAT_requests_refused_overload,
        STAT_requests_refused_unavailable, STAT_requests_refused_template,
        STAT_requests_refused_limited,
    };
    int64_t sum = 0;

    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sum += server_stat(s, ends[i]);
    return sum;
}

static int64_t sequences_ended(const struct server *s)
{
    return server_stat(s, STAT_sequences_finished) + server_stat(s, STAT_sequences_cancelled) +
           server_stat(s, STAT_sequences_failed);
}

/* The first thing that is not as it must be: its name, what there is, what there should be. */
struct surplus {
    const char *what;
    int64_t found, wanted;
};

static void compare(struct surplus *out, const char *what, int64_t found, int64_t wanted)
{
    if (!out->what && found != wanted)
        *out = (struct surplus){ what, found, wanted };
}

static void compare_gauges(struct surplus *out, const struct server *s)
{
    static const enum stat_id gauges[] = {
        STAT_connections_open,  STAT_requests_active,     STAT_sequences_running,
        STAT_sequences_waiting, STAT_ledger_entries_used, STAT_kv_pages_leased,
        STAT_kv_pages_pinned,
    };

    for (size_t i = 0; i < sizeof gauges / sizeof *gauges; i++)
        compare(out, stat_name(gauges[i]), server_stat(s, gauges[i]), 0);
}

/* The gateway has a small process beside it (gateway/takeover/keeper.c), which it may be about to make again. */
static void compare_processes(struct surplus *out, const struct server *s, struct buf *lines)
{
    static const char keeper[] = " llm-keeper\n";
    uint32_t n = pid_descendants(getpid(), lines), n_keepers = 0;

    for (const char *at = lines->data; at && (at = strstr(at, keeper)); at++)
        n_keepers++;
    compare(out, "processes", n - n_keepers, server_n_wanted(s));
    if (n_keepers > 1)
        compare(out, "keepers", n_keepers, 1);
}

static void compare_fds(struct surplus *out, const char *what, pid_t pid, int at_first,
                        struct buf *lines)
{
    int n = open_fds_count(pid);

    if (out->what || n <= at_first + FDS_SLACK)
        return;
    compare(out, what, n, at_first);
    pid_list_fds(pid, lines);
}

/* Fewer where ranks whose link has failed exchange through memory of the host. */
static void compare_gpu_pieces(struct surplus *out, uint32_t n, uint32_t at_first)
{
    if (n > at_first)
        compare(out, "pieces of GPU memory", n, at_first);
}

enum { N_LOOKS = 6 };

/* One kind of thing at a time, so that one that stays wrong does not hide the others. */
static struct surplus look(const struct audit *a, const struct server *s, int which,
                           struct buf *lines)
{
    struct surplus out = { 0 };

    buf_clear(lines);
    switch (which) {
    case 0:
        compare_gauges(&out, s);
        break;
    case 1:
        compare(&out, "ended generate requests", generate_requests_ended(s),
                server_stat(s, STAT_requests_generate));
        break;
    case 2:
        compare(&out, "ended sequences", sequences_ended(s),
                server_stat(s, STAT_sequences_accepted));
        break;
    case 3:
        compare_processes(&out, s, lines);
        break;
    case 4:
        compare_fds(&out, "descriptors of llmd", server_llmd(s), a->llmd_fds, lines);
        if (s->has_init)
            compare_fds(&out, "descriptors of llm-init", s->root, a->init_fds, lines);
        break;
    case 5:
        if (s->config.gpus)
            compare_gpu_pieces(&out, gpus_n_held(s->config.gpus), a->gpu_pieces);
        break;
    }
    return out;
}

uint32_t audit_idle(const struct audit *a, struct server *s, struct evidence *v)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)SETTLE_MS * NS_PER_MS;
    struct buf lines = { 0 };
    uint32_t n_wrong = 0;

    for (int i = 0; i < N_LOOKS; i++) {
        struct surplus left;
        while ((left = look(a, s, i, &lines)).what && clock_mono_ns() < end_ns)
            usleep(LOOK_MS * 1000);
        if (!left.what)
            continue;
        n_wrong++;
        evidence_defect(v, NULL, lines.n ? &lines : NULL,
                        "left behind by an idle server: %s %lld, wanted %lld", left.what,
                        (long long)left.found, (long long)left.wanted);
    }
    buf_fini(&lines);
    return n_wrong;
}

/* ---- the ended server ---- */

static bool processes_are_gone(struct buf *processes)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)SETTLE_MS * NS_PER_MS;

    do {
        buf_clear(processes);
        if (pid_descendants(getpid(), processes) == 0)
            return true;
        usleep(LOOK_MS * 1000);
    } while (clock_mono_ns() < end_ns);
    return false;
}

/* The runtime folder is the programs' working and temporary folder too: it must be empty or gone. */
uint32_t audit_ended(const struct audit *a, struct server *s, int code, struct evidence *v)
{
    struct buf processes = { 0 }, files = { 0 }, shm = { 0 };
    uint32_t n_wrong = 0;

    if (code != 0 && !s->config.peer_command) {
        evidence_defect(v, NULL, NULL, "the server ended with code %d, wanted 0", code);
        n_wrong++;
    }
    if (!processes_are_gone(&processes)) {
        evidence_defect(v, NULL, &processes, "left behind at the end: processes");
        n_wrong++;
    }
    list_folder(s->dir, true, &files);
    if (files.n > 0) {
        evidence_defect(v, NULL, &files, "left behind at the end: files in %s", s->dir);
        n_wrong++;
    }
    list_shm(&shm);
    if (shm.n != a->shm.n || (shm.n && memcmp(shm.data, a->shm.data, shm.n) != 0)) {
        evidence_defect(v, &a->shm, &shm, "left behind at the end: files in /dev/shm");
        n_wrong++;
    }
    if (s->config.gpus && gpus_n_held(s->config.gpus) > 0) {
        evidence_defect(v, NULL, NULL, "left behind at the end: %u pieces of GPU memory",
                        gpus_n_held(s->config.gpus));
        n_wrong++;
    }
    buf_fini(&processes);
    buf_fini(&files);
    buf_fini(&shm);
    return n_wrong;
}
