/* main.c - gpu-verify: settles on a machine with GPUs what cannot be settled without one (design section 9).
 *
 *     gpu-verify [--gpu N] [--peer N] [--items G2,G6] [--report FILE] [--scratch DIR] [--soak MINUTES] [--list]
 *     LD_LIBRARY_PATH=build/debug/fake-cuda gpu-verify --dry-run --report FILE
 *
 * Prints each item with its values and limits and writes the report, which is kept with the release.  Exit code 0:
 * nothing failed; 1: something did; 2: there is no GPU to be used, or the command line is wrong.  --dry-run is the same
 * program with small sizes on the fake driver: it proves the program and says nothing about a GPU. */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/cuda/verify/items.h"

enum { EXIT_NO_GPU = 2, ITEMS_MAX = 32, OPTION_STARTED = 1000, OPTION_SMALL };

struct options {
    bool is_dry_run, is_small, wants_list;
    int gpu, peer; /* peer -1: the next one, if there is one */
    int soak_minutes;
    const char *scratch; /* NULL: TMPDIR, or /tmp */
    const char *wanted;  /* "G2,G6"; NULL = all */
    const char *report;
    unsigned long long started_ns; /* not 0: we are the started program of G5 */
};

static void usage(FILE *to)
{
    fputs(
        "usage: gpu-verify [options]\n"
        "\n"
        "Measures on a machine with GPUs what cannot be settled without one, prints each item "
        "with\n"
        "its values and limits, and writes them as JSON (docs/gpu-verify.md).\n"
        "\n"
        "  -g, --gpu N         the GPU to be looked at; 0 if not said\n"
        "  -p, --peer N        the second GPU, for items that need two; the next one if not said\n"
        "  -i, --items LIST    only these, as G2,G6; all if not said\n"
        "  -r, --report FILE   write the JSON report\n"
        "  -s, --scratch DIR   where models are made, 14 GB at most; TMPDIR or /tmp if not said\n"
        "      --soak MINUTES  G19 too, for so long\n"
        "  -d, --dry-run       small sizes, on the fake driver: proves the program, no GPU\n"
        "  -l, --list          the items, and end\n"
        "  -h, --help          this, and end\n"
        "\n"
        "Exit code 0: nothing failed; 1: something did; 2: no GPU can be used, or wrong options.\n",
        to);
}

static void list_items(void)
{
    for (int i = 0; i < n_items; i++)
        printf("%-4s %s%s\n", items[i].id, items[i].title,
               items[i].n_gpus > 1 ? " (two GPUs)" : "");
}

/* A whole number from `least` on, and nothing behind it. */
static bool parse_number(const char *text, int least, int *out)
{
    char *end;
    long n = strtol(text, &end, 10);

    if (end == text || *end != '\0' || n < least || n > 1000000)
        return false;
    *out = (int)n;
    return true;
}

/* One option; false: it is wrong. */
static bool take_option(struct options *o, int c, const char *value)
{
    switch (c) {
    case 'g':
        return parse_number(value, 0, &o->gpu);
    case 'p':
        return parse_number(value, 0, &o->peer);
    case 'i':
        o->wanted = value;
        return true;
    case 'r':
        o->report = value;
        return true;
    case 's':
        o->scratch = value;
        return true;
    case 'S':
        return parse_number(value, 1, &o->soak_minutes);
    case 'd':
        o->is_dry_run = o->is_small = true;
        return true;
    case 'l':
        o->wants_list = true;
        return true;
    case OPTION_SMALL:
        o->is_small = true;
        return true;
    case OPTION_STARTED:
        o->started_ns = strtoull(value, NULL, 10);
        return true;
    case 'h':
        usage(stdout);
        exit(EXIT_SUCCESS);
    default:
        return false;
    }
}

/* Every name of a list is an item's. */
static bool items_are_known(const char *wanted)
{
    for (const char *at = wanted; at && *at; at += *at == ',') {
        size_t n = strcspn(at, ",");
        int i = 0;

        while (i < n_items && (strlen(items[i].id) != n || strncmp(items[i].id, at, n) != 0))
            i++;
        if (i == n_items) {
            fprintf(stderr, "gpu-verify: there is no item '%.*s'; --list shows them\n", (int)n, at);
            return false;
        }
        at += n;
    }
    return true;
}

static bool parse(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        { "gpu", required_argument, NULL, 'g' },
        { "peer", required_argument, NULL, 'p' },
        { "items", required_argument, NULL, 'i' },
        { "report", required_argument, NULL, 'r' },
        { "scratch", required_argument, NULL, 's' },
        { "soak", required_argument, NULL, 'S' },
        { "dry-run", no_argument, NULL, 'd' },
        { "list", no_argument, NULL, 'l' },
        { "help", no_argument, NULL, 'h' },
        { "small", no_argument, NULL, OPTION_SMALL },           /* for G11 */
        { "started", required_argument, NULL, OPTION_STARTED }, /* for G5 */
        { 0 },
    };
    int c;

    *o = (struct options){ .peer = -1 };
    while ((c = getopt_long(argc, argv, "g:p:i:r:s:dlh", names, NULL)) != -1)
        if (!take_option(o, c, optarg))
            return false;
    return optind == argc && items_are_known(o->wanted);
}

/* What the main process has to know of the GPUs, asked by a child. */
enum { GPUS_N, GPUS_HAS_HOST_NUMA, GPUS_IS_FAKE, GPUS_DRIVER, GPUS_PEER };

static void ask_gpus(int sock, const void *arg)
{
    const struct options *o = arg;
    struct child_message m = { 0 };
    const struct device_info *i;
    struct child_device d;
    char peer[48] = "";
    struct err e;
    int n = o->peer;

    child_open(sock, &d, o->gpu);
    i = device_info(d.device);
    if (n < 0 && cuda.n_devices > 1)
        n = (o->gpu + 1) % cuda.n_devices;
    if (n >= 0 && !device_uuid(n, peer, &e))
        child_fail(sock, "the peer: %s", e.msg);
    m.values[GPUS_N] = cuda.n_devices;
    m.values[GPUS_HAS_HOST_NUMA] = i->has_host_numa;
    m.values[GPUS_IS_FAKE] = strcmp(i->name, "Fake GPU") == 0;
    m.values[GPUS_DRIVER] = cuda.version;
    m.values[GPUS_PEER] = n;
    snprintf(m.text, sizeof m.text, "%s %s", i->uuid, peer);
    child_say(sock, &m, NULL, 0);
    child_close(&d);
}

static void set_sizes(struct verify *v)
{
    v->chunk_bytes = v->is_dry_run ? 2ull << 20 : 256ull << 20;
    v->n_chunks = 4;
    v->total_max_bytes = v->is_dry_run ? 64ull << 20 : 80ull << 30;
    v->hold_ms = v->is_dry_run ? 50 : 60000;
    v->busy_ms = v->is_dry_run ? 40 : 5000;
    v->n_replays = v->is_dry_run ? 2000 : 1000000;
    v->copy_bytes = v->is_dry_run ? 4ull << 20 : 1ull << 30;
    v->n_kills = v->is_dry_run ? 2 : 200;
}

static bool make_scratch(struct verify *v, const struct options *o)
{
    const char *folder = o->scratch ? o->scratch : getenv("TMPDIR");

    snprintf(v->scratch, sizeof v->scratch, "%.150s/gpu-verify-XXXXXX", folder ? folder : "/tmp");
    if (mkdtemp(v->scratch))
        return true;
    fprintf(stderr, "gpu-verify: no folder '%s': %s\n", v->scratch, strerror(errno));
    return false;
}

static void remove_scratch(const struct verify *v)
{
    DIR *d = opendir(v->scratch);
    const struct dirent *entry;

    while (d && (entry = readdir(d)) != NULL)
        if (entry->d_name[0] != '.')
            unlinkat(dirfd(d), entry->d_name, 0);
    if (d)
        closedir(d);
    rmdir(v->scratch);
}

/* false: there is no GPU to be used, or the wrong kind; told. */
static bool look_around(struct verify *v, const struct options *o, const char *program)
{
    struct item_report r = { .id = "-", .title = "GPUs" };
    struct child_message m;
    struct child c;
    bool ok;

    if (!child_start(&c, ask_gpus, o, &r))
        return false;
    ok = child_hear(&c, &m, NULL, NULL, &r);
    child_end(&c);
    if (ok && o->is_dry_run && m.values[GPUS_IS_FAKE] == 0) {
        report_failure(&r, "--dry-run is for the fake driver, and a real one was found");
        ok = false;
    }
    if (!ok) {
        fprintf(stderr, "gpu-verify: %s\n", r.reason);
        return false;
    }
    *v = (struct verify){ .is_dry_run = o->is_dry_run,
                          .is_small = o->is_small,
                          .driver = (int)m.values[GPUS_DRIVER],
                          .gpu = o->gpu,
                          .peer = (int)m.values[GPUS_PEER],
                          .has_host_numa = m.values[GPUS_HAS_HOST_NUMA] != 0,
                          .soak_minutes = o->soak_minutes,
                          .program = program };
    sscanf(m.text, "%47s %47s", v->uuid, v->peer_uuid);
    set_sizes(v);
    return make_scratch(v, o);
}

static bool is_wanted(const struct options *o, const char *id)
{
    size_t n = strlen(id);

    for (const char *at = o->wanted; at; at = strchr(at, ',')) {
        at += *at == ',';
        if (strncmp(at, id, n) == 0 && (at[n] == ',' || at[n] == '\0'))
            return true;
    }
    return !o->wanted;
}

static void run_item(const struct item *item, const struct verify *v, struct item_report *r)
{
    *r = (struct item_report){ .id = item->id, .title = item->title, .verdict = VERDICT_RECORDED };
    if (item->n_gpus > 1 && v->peer < 0)
        report_skip(r, "needs two GPUs");
    else
        item->run(v, r);
    report_close(r);
    report_print(r);
}

int main(int argc, char **argv)
{
    static struct item_report reports[ITEMS_MAX];
    struct options o;
    struct verify v;
    bool has_failed = false;
    size_t n = 0;

    log_init("gpu-verify", LOG_WARNING, LOG_TEXT);
    if (!parse(&o, argc, argv)) {
        fputs("gpu-verify: wrong options; --help shows them\n", stderr);
        return EXIT_NO_GPU;
    }
    if (o.wants_list) {
        list_items();
        return EXIT_SUCCESS;
    }
    if (o.started_ns)
        return start_time_main(o.gpu, o.started_ns);
    if (!look_around(&v, &o, argv[0]))
        return EXIT_NO_GPU;
    for (int i = 0; i < n_items; i++)
        if (is_wanted(&o, items[i].id)) {
            run_item(&items[i], &v, &reports[n]);
            has_failed |= reports[n++].verdict == VERDICT_FAIL;
        }
    remove_scratch(&v);
    if (o.report && !report_write(o.report, reports, n, v.is_dry_run))
        has_failed = true;
    return has_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
