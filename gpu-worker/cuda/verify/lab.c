/* lab.c - see lab.h. */
#include "gpu-worker/cuda/verify/lab.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/nvml.h"
#include "common/open_fds.h"
#include "gpu-worker/cuda/verify/model.h"

enum {
    STREAMS_DRY = 2,
    SETTLE_ROUNDS = 3, /* before memory and descriptors are counted for the first time */
    LOOK_MS = 10,      /* from one look at the service to the next */
    /* What a dead process had is given back a moment after its death: until so many looks in a row see the same ... */
    STEADY_LOOKS = 100,
    STEADY_LOOKS_DRY = 10,
    GIVEN_BACK_MS = 10000, /* ... or, what is more than it may be after so long, is lost */
    GROWTH_MB = 64,        /* a few MB are the driver's own business, */
    GROWTH_FDS = 8,        /* and a few sockets come and go: what leaks does so with every kill */
};

/* splitmix64 (Steele, Lea & Flood, OOPSLA 2014). */
uint64_t lab_draw(struct lab *l)
{
    uint64_t z = l->random += 0x9e3779b97f4a7c15ull;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

/* ---- rounds ---- */

void lab_ask(struct lab *l, struct client *c)
{
    for (uint32_t i = 0; i < l->n_streams; i++) {
        struct client_question q = l->question;

        q.seed += i;
        client_start(&c[i], l->service.port, &q);
    }
}

void lab_hang_up(struct client *c)
{
    for (uint32_t i = 0; i < LAB_STREAMS_MAX; i++)
        client_close(&c[i]);
}

static bool is_same(const struct client *a, const struct client *b)
{
    return a->n_tokens == b->n_tokens &&
           memcmp(a->tokens, b->tokens, a->n_tokens * sizeof a->tokens[0]) == 0;
}

/* Rounds that nobody disturbs; the first warms up, the last is what the others are compared with. */
static bool ask_undisturbed(struct lab *l, struct item_report *r)
{
    for (int i = l->v->is_dry_run; i < 2; i++) {
        uint64_t begin_ns = clock_mono_ns();

        lab_hang_up(l->expected);
        lab_ask(l, l->expected);
        clients_read(l->expected, l->n_streams, begin_ns + LAB_ROUND_S * NS_PER_S);
        l->undisturbed_ms = (double)(clock_mono_ns() - begin_ns) / (double)NS_PER_MS;
    }
    for (uint32_t i = 0; i < l->n_streams; i++)
        if (!l->expected[i].is_whole || l->expected[i].n_tokens != l->question.n_answer) {
            report_failure(r, "undisturbed: %u tokens of %u, %s", l->expected[i].n_tokens,
                           l->question.n_answer, l->expected[i].why);
            return false;
        }
    return true;
}

void lab_judge(struct lab *l, struct tally *t)
{
    uint64_t longest_ns = 0;

    for (uint32_t i = 0; i < l->n_streams; i++) {
        const struct client *c = &l->clients[i];

        longest_ns = c->gap_ns > longest_ns ? c->gap_ns : longest_ns;
        if (!c->is_whole || c->n_tokens != l->question.n_answer) {
            if (t->n_cut++ == 0)
                snprintf(t->why, sizeof t->why, "%s", c->why);
        } else if (!is_same(c, &l->expected[i]))
            t->n_different++;
    }
    t->pause_ms[t->n] = (double)longest_ns / (double)NS_PER_MS;
}

/* Everything that was killed is there again: it looked otherwise before. */
static bool is_back(const struct lab *l, const struct service_state *before)
{
    struct service_state now;

    return service_look(&l->service, &now) && now.is_ready &&
           (now.restarts != before->restarts || now.llmd != before->llmd);
}

double lab_wait_back(struct lab *l, const struct service_state *before, uint64_t from_ns)
{
    do {
        uint64_t until_ns = clock_mono_ns() + LOOK_MS * NS_PER_MS;

        if (is_back(l, before))
            return (double)(clock_mono_ns() - from_ns) / (double)NS_PER_MS;
        if (clients_read(l->clients, l->n_streams, until_ns))
            usleep(LOOK_MS * 1000);
    } while (clock_mono_ns() < from_ns + LAB_READY_MS * NS_PER_MS);
    return -1;
}

static void run_round(struct lab *l, lab_kill_fn *kill_it, struct tally *t)
{
    double after_ms = l->undisturbed_ms * (0.05 + 0.8 * (double)(lab_draw(l) >> 11) * 0x1p-53);
    uint64_t begin_ns = clock_mono_ns(), killed_ns;
    struct service_state before;
    double ready_ms = -1;

    if (service_look(&l->service, &before)) {
        lab_ask(l, l->clients);
        clients_read(l->clients, l->n_streams, begin_ns + (uint64_t)(after_ms * (double)NS_PER_MS));
        killed_ns = clock_mono_ns();
        if (kill_it(l))
            ready_ms = lab_wait_back(l, &before, killed_ns);
        clients_read(l->clients, l->n_streams, killed_ns + LAB_ROUND_S * NS_PER_S);
        lab_judge(l, t);
        lab_hang_up(l->clients);
    }
    t->n_unready += ready_ms < 0;
    t->ready_ms[t->n++] = ready_ms;
}

/* ---- growth ---- */

static double gpu_in_use_mb(const struct verify *v)
{
    struct nvml_state s;
    struct err e = { 0 };

    return nvml_read(v->uuid, &s, &e) ? (double)s.used_bytes / 1e6 : 0;
}

static struct use look(const struct lab *l, pid_t llmd)
{
    return (struct use){ gpu_in_use_mb(l->v), open_fds_count(llmd) };
}

static bool is_within(struct use u, struct use limit)
{
    return u.gpu_mb <= limit.gpu_mb && u.fds <= limit.fds;
}

/* When the GPU's memory has come to rest within `enough`; the fewest descriptors that were seen meanwhile. */
static struct use look_until_given_back(struct lab *l, struct use enough)
{
    uint32_t n_steady = 0, n_wanted = l->v->is_dry_run ? STEADY_LOOKS_DRY : STEADY_LOOKS;
    uint64_t end_ns = clock_mono_ns() + GIVEN_BACK_MS * NS_PER_MS;
    pid_t llmd = service_pid(&l->service, "llmd");
    struct use seen = look(l, llmd);

    while ((n_steady < n_wanted || !is_within(seen, enough)) && clock_mono_ns() < end_ns) {
        struct use now;

        usleep(LOOK_MS * 1000);
        now = look(l, llmd);
        n_steady = fabs(now.gpu_mb - seen.gpu_mb) < 1 ? n_steady + 1 : 0;
        seen.gpu_mb = now.gpu_mb;
        seen.fds = now.fds < seen.fds ? now.fds : seen.fds;
    }
    return seen;
}

/* ---- many rounds ---- */

void tally_open(struct tally *t, uint32_t n_max)
{
    *t = (struct tally){ .n_max = n_max };
    t->pause_ms = mem_zalloc(n_max, sizeof *t->pause_ms);
    t->ready_ms = mem_zalloc(n_max, sizeof *t->ready_ms);
}

void tally_close(struct tally *t)
{
    free(t->pause_ms);
    free(t->ready_ms);
}

void lab_run_rounds(struct lab *l, lab_kill_fn *kill_it, uint64_t until_ns, struct tally *t)
{
    while (t->n < t->n_max && clock_mono_ns() < until_ns && t->n_unready == 0) {
        if (t->n == SETTLE_ROUNDS || t->n == 0)
            t->before = look_until_given_back(l, (struct use){ INFINITY, INT_MAX });
        run_round(l, kill_it, t);
    }
    t->after = look_until_given_back(
        l, (struct use){ t->before.gpu_mb + GROWTH_MB, t->before.fds + GROWTH_FDS });
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

double lab_percentile(double *values, uint32_t n, uint32_t percent)
{
    qsort(values, n, sizeof *values, by_value);
    return n > 0 ? values[((uint64_t)(n - 1) * percent + 50) / 100] : 0;
}

/* limit_ms 0: none.  Times of the dry run are the fake's. */
static void report_times(const struct lab *l, double *values, uint32_t n, double limit_ms,
                         const char *what, const char *which, struct item_report *r)
{
    report_number(r, lab_percentile(values, n, 50), "ms", "%s: %s, p50", which, what);
    if (limit_ms > 0 && !l->v->is_dry_run)
        report_at_most(r, lab_percentile(values, n, 99), limit_ms, "ms", "%s: %s, p99", which,
                       what);
    else
        report_number(r, lab_percentile(values, n, 99), "ms", "%s: %s, p99", which, what);
}

void tally_report(const struct lab *l, struct tally *t, bool must_equal, double pause_limit_ms,
                  double ready_limit_ms, const char *which, struct item_report *r)
{
    report_number(r, t->n, "", "%s: kills", which);
    report_at_most(r, t->n_unready, 0, "", "%s: kills that failed or were not recovered from",
                   which);
    report_at_most(r, t->n_cut, 0, "", "%s: answers cut or too long", which);
    if (t->n_cut > 0)
        report_text(r, "the first of these", "%s", t->why);
    if (must_equal)
        report_at_most(r, t->n_different, 0, "", "%s: answers with other tokens", which);
    else
        report_number(r, t->n_different, "", "%s: answers with other tokens", which);
    report_times(l, t->pause_ms, t->n, pause_limit_ms, "pause of a client", which, r);
    report_times(l, t->ready_ms, t->n, ready_limit_ms, "until all processes serve again", which, r);
}

void tally_report_growth(const struct tally *t, const char *which, struct item_report *r)
{
    report_at_most(r, t->after.gpu_mb - t->before.gpu_mb, GROWTH_MB, "MB",
                   "%s: GPU memory grown by", which);
    report_at_most(r, t->after.fds - t->before.fds, GROWTH_FDS, "", "%s: more descriptors of llmd",
                   which);
}

/* ---- a service to kill ---- */

struct lab *lab_open(const struct verify *v, const struct service_setup *how,
                     const struct client_question *q, struct item_report *r)
{
    struct lab *l = mem_zalloc(1, sizeof *l);
    char path[MODEL_PATH_BYTES];
    struct service_setup with_model = *how;

    l->v = v;
    l->n_streams = v->is_dry_run ? STREAMS_DRY : LAB_STREAMS_MAX;
    l->random = 8;
    l->question = *q;
    l->question.n_ids = model_served_shape(v)->vocab_size;
    with_model.model = path;
    if (model_make(v, model_served_shape(v), path, r) &&
        service_start(&l->service, v, &with_model, r)) {
        if (ask_undisturbed(l, r))
            return l;
        service_stop(&l->service);
    }
    lab_hang_up(l->expected);
    free(l);
    return NULL;
}

void lab_close(struct lab *l)
{
    lab_hang_up(l->expected);
    service_stop(&l->service);
    free(l);
}

struct client_question lab_question(const struct verify *v)
{
    return v->is_dry_run ? (struct client_question){ .n_prompt = 12, .n_answer = 10, .seed = 1 }
                         : (struct client_question){ .n_prompt = 200, .n_answer = 256, .seed = 1 };
}

struct service_setup lab_setup(const struct verify *v)
{
    return (struct service_setup){ .tp_size = 1,
                                   .rows_max = v->is_dry_run ? 128 : 2048,
                                   .kv_bytes = v->is_dry_run ? 8ull << 20 : 8ull << 30 };
}

bool lab_kill(struct lab *l, const char *name)
{
    uint64_t end_ns = clock_mono_ns() + LAB_READY_MS * NS_PER_MS;
    pid_t pid;

    while ((pid = service_pid(&l->service, name)) <= 0) {
        if (clock_mono_ns() > end_ns)
            return false;
        usleep(1000);
    }
    return kill(pid, SIGKILL) == 0;
}
