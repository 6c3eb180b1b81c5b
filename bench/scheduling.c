/* scheduling.c - bench-scheduling: what clients of one worker feel of each other.
 *
 *   bench-scheduling MODEL_DIR [ROUNDS [STREAMS [PROMPT [CLIENTS [SYSTEM]]]]]
 *
 * The program is the llmd and the gateway of one real llm-worker, so the way through HTTP is not in the
 * figures.  Three questions, ROUNDS (5) times in turn:
 *
 *   long     STREAMS (8) streams run.  The times between their tokens while nobody else comes, for as long as an
 *            answer is (what they look back on costs too) or half a minute, and while a prompt of PROMPT (4000)
 *            tokens is read.
 *   system   One client comes with a prompt of SYSTEM (1000) tokens and 20 of its own.  Then, four times in turn:
 *            CLIENTS (32) - 1 at once with prompts of 20 tokens; as many at once whose prompts begin with the same
 *            SYSTEM tokens and end with 20 of their own.  All are sent before the worker, which stands still, may
 *            look and the clock begins.  The times to the first token, and the processor time that
 *            the worker took until all had theirs, over their number.
 *
 *   choices  A prompt of SYSTEM tokens and answers of 16: once, as four sequences that come at once (n = 4 of a
 *            request), and four different prompts of that length at once.  The processor time that the worker takes
 *            for each, so a busy machine does not spoil the ratio.
 *
 * Every round uses tokens of its own, so nothing is left in the prefix cache from the one before.  Prints
 * what,n,p50,p99,max,mean in milliseconds, and the ratios. */
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/mem.h"
#include "tests/unit/worker_rig.h"

enum {
    STREAMS_MAX = 64,
    CLIENTS_MAX = 64,
    PROMPT_MAX = 16384,
    OWN = 20,    /* tokens of a short prompt */
    TURNS = 4,   /* without and with a system prompt, so that noise meets both */
    ANSWER = 580 /* of a stream, before it begins anew */
};

#define CALM_MAX_NS (30 * NS_PER_S) /* for a large model */

#define SAMPLES_MAX ((size_t)1 << 20)

struct samples {
    const char *what;
    double *ms; /* [SAMPLES_MAX] */
    size_t n;
};

struct stream {
    struct client_stream *s;
    uint32_t n_seen;
    uint64_t last_ns;
};

struct bench {
    struct worker_rig rig;
    struct client client;
    uint32_t rounds, n_streams, n_prompt, n_clients, n_system;
    uint64_t next_id;
    uint32_t round;
    struct stream streams[STREAMS_MAX];
    struct samples calm, beside, prompt, small, first, shared;
    struct samples small_cpu, first_cpu, shared_cpu;
    struct samples small_alone, shared_alone, small_alone_cpu, shared_alone_cpu;
    struct samples one, choices, requests;
};

static void add_sample(struct samples *s, uint64_t ns)
{
    if (s->n < SAMPLES_MAX)
        s->ms[s->n++] = (double)ns / (double)NS_PER_MS;
}

/* Tokens that no other prompt of this run has, but for those of the same `kind`. */
static void fill(int32_t *tokens, uint32_t n, uint64_t kind)
{
    uint64_t x = kind * 0x9E3779B97F4A7C15ull;

    for (uint32_t i = 0; i < n; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        tokens[i] = (int32_t)(300 + (x >> 33) % 1600);
    }
}

static struct client_stream *submit(struct bench *b, const int32_t *prompt, uint32_t n,
                                    uint32_t max_tokens)
{
    struct client_request r = client_request(prompt, n, max_tokens);

    r.ignore_eos = true;
    r.sampling.temperature = 1;
    r.sampling.seed = b->next_id;
    return client_submit(&b->client, b->next_id++, &r);
}

static void receive(struct bench *b)
{
    struct pollfd fd = { .fd = link_fd(b->client.link), .events = POLLIN };

    poll(&fd, 1, 1);
    client_receive(&b->client);
}

/* ---- a long prompt beside streams ---- */

static void begin_stream(struct bench *b, struct stream *s)
{
    static int32_t prompt[OWN]; /* borrowed until the SUBMIT is sent */

    fill(prompt, OWN, b->next_id);
    s->s = submit(b, prompt, OWN, ANSWER);
    s->n_seen = 0;
}

/* Take what came; gaps go to `into`, unless that is NULL. */
static void watch_streams(struct bench *b, struct samples *into)
{
    uint64_t now;

    receive(b);
    now = clock_mono_ns();
    for (uint32_t i = 0; i < b->n_streams; i++) {
        struct stream *s = &b->streams[i];
        if (s->s->n > s->n_seen) {
            if (s->n_seen > 0 && into)
                add_sample(into, now - s->last_ns);
            s->n_seen = s->s->n;
            s->last_ns = now;
        }
        if (client_stream_is_over(s->s))
            begin_stream(b, s);
    }
}

/* Until each stream has so many tokens more; those that begin anew count from there.  Not for ever. */
static void run_streams(struct bench *b, uint32_t n_more, struct samples *into)
{
    uint32_t n_steps = 0, last = b->streams[0].n_seen;
    uint64_t end = clock_mono_ns() + CALM_MAX_NS;

    while (n_steps < n_more && clock_mono_ns() < end) {
        watch_streams(b, into);
        n_steps += b->streams[0].n_seen != last;
        last = b->streams[0].n_seen;
    }
}

static void stop_streams(struct bench *b)
{
    for (uint32_t i = 0; i < b->n_streams; i++)
        client_cancel(&b->client, b->streams[i].s);
    while (stat_get(worker_rig_stats(&b->rig), STAT_ledger_entries_used) > 0)
        receive(b);
}

static void measure_long(struct bench *b)
{
    static int32_t prompt[PROMPT_MAX];
    struct client_stream *s;
    uint64_t start;

    for (uint32_t i = 0; i < b->n_streams; i++)
        begin_stream(b, &b->streams[i]);
    run_streams(b, 20, NULL);
    run_streams(b, ANSWER, &b->calm);
    fill(prompt, b->n_prompt, b->next_id);
    start = clock_mono_ns();
    s = submit(b, prompt, b->n_prompt, 2);
    while (s->n == 0)
        watch_streams(b, &b->beside);
    add_sample(&b->prompt, clock_mono_ns() - start);
    stop_streams(b);
}

/* Of all its threads. */
static uint64_t worker_cpu_ns(const struct bench *b)
{
    struct timespec t = { 0 };
    clockid_t clock;

    if (clock_getcpuclockid(b->rig.ranks[0].pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

/* ---- clients with one system prompt ---- */

/* While the worker stands still, so that all of a burst are there when it goes on, and the clock begins. */
enum { SENDING_US = 20000 };

/* n clients at once, prompts of n_system common tokens and OWN of their own; their first tokens, and what these take
 * of the processors, each. */
static void measure_clients(struct bench *b, uint32_t n, uint32_t n_system, struct samples *into,
                            struct samples *cpu)
{
    static int32_t prompts[CLIENTS_MAX][PROMPT_MAX + OWN];
    struct client_stream *streams[CLIENTS_MAX];
    bool seen[CLIENTS_MAX] = { false };
    uint64_t start, cpu_start;

    for (uint32_t i = 0; i < n; i++) {
        fill(prompts[i], n_system, b->round + 1);
        fill(prompts[i] + n_system, OWN, ((uint64_t)n << 32) + b->next_id + i);
    }
    kill(b->rig.ranks[0].pid, SIGSTOP);
    for (uint32_t i = 0; i < n; i++)
        streams[i] = submit(b, prompts[i], n_system + OWN, 8);
    usleep(SENDING_US);
    start = clock_mono_ns();
    cpu_start = worker_cpu_ns(b);
    kill(b->rig.ranks[0].pid, SIGCONT);
    for (uint32_t n_seen = 0; n_seen < n;) {
        uint64_t now;
        receive(b);
        now = clock_mono_ns();
        for (uint32_t i = 0; i < n; i++) {
            if (seen[i] || streams[i]->n == 0)
                continue;
            add_sample(into, now - start);
            seen[i] = true;
            n_seen++;
        }
    }
    add_sample(cpu, (worker_cpu_ns(b) - cpu_start) / n);
    while (!client_all_over(&b->client) ||
           stat_get(worker_rig_stats(&b->rig), STAT_ledger_entries_used) > 0)
        receive(b);
}

static void measure_system(struct bench *b)
{
    measure_clients(b, 1, b->n_system, &b->first, &b->first_cpu);
    for (int turn = 0; turn < TURNS; turn++) {
        measure_clients(b, b->n_clients - 1, 0, &b->small, &b->small_cpu);
        measure_clients(b, b->n_clients - 1, b->n_system, &b->shared, &b->shared_cpu);
    }
    for (uint32_t i = 1; i < b->n_clients; i++) {
        measure_clients(b, 1, 0, &b->small_alone, &b->small_alone_cpu);
        measure_clients(b, 1, b->n_system, &b->shared_alone, &b->shared_alone_cpu);
    }
}

/* ---- choices of one request ---- */

enum { CHOICES = 4, CHOICE_TOKENS = 16 };

/* n sequences at once of one prompt, or of n. */
static void measure_sequences(struct bench *b, uint32_t n, bool is_same, struct samples *into)
{
    static int32_t prompts[CHOICES][PROMPT_MAX];
    uint64_t kind = b->next_id << 20, start = worker_cpu_ns(b);

    for (uint32_t i = 0; i < n; i++) {
        fill(prompts[i], b->n_system, is_same ? kind : kind + i);
        submit(b, prompts[i], b->n_system, CHOICE_TOKENS);
    }
    while (!client_all_over(&b->client) ||
           stat_get(worker_rig_stats(&b->rig), STAT_ledger_entries_used) > 0)
        receive(b);
    add_sample(into, worker_cpu_ns(b) - start);
}

static void measure_choices(struct bench *b)
{
    measure_sequences(b, 1, true, &b->one);
    measure_sequences(b, CHOICES, true, &b->choices);
    measure_sequences(b, CHOICES, false, &b->requests);
}

/* ---- the report ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static double quantile(const struct samples *s, uint32_t percent)
{
    return s->n > 0 ? s->ms[(s->n * percent + 99) / 100 - 1] : 0;
}

static double mean(const struct samples *s)
{
    double sum = 0;

    for (size_t i = 0; i < s->n; i++)
        sum += s->ms[i];
    return s->n > 0 ? sum / (double)s->n : 0;
}

static void report(struct samples *s)
{
    qsort(s->ms, s->n, sizeof *s->ms, by_value);
    printf("%s,%zu,%.2f,%.2f,%.2f,%.2f\n", s->what, s->n, quantile(s, 50), quantile(s, 99),
           quantile(s, 100), mean(s));
}

static void report_ratio(const char *what, const struct samples *a, const struct samples *b)
{
    printf("%s,,%.2f,%.2f,,%.2f\n", what, quantile(a, 50) / quantile(b, 50),
           quantile(a, 99) / quantile(b, 99), mean(a) / mean(b));
}

static void report_all(struct bench *b)
{
    struct samples *const all[] = {
        &b->calm,       &b->beside,          &b->prompt,           &b->small,     &b->first,
        &b->shared,     &b->small_alone,     &b->shared_alone,     &b->small_cpu, &b->first_cpu,
        &b->shared_cpu, &b->small_alone_cpu, &b->shared_alone_cpu, &b->one,       &b->choices,
        &b->requests,
    };
    const struct stats *stats = worker_rig_stats(&b->rig);

    printf("ms,n,p50,p99,max,mean\n");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        report(all[i]);
    printf("ratio p99 beside a prompt / alone,,,%.2f,,\n",
           quantile(&b->beside, 99) / quantile(&b->calm, 99));
    report_ratio("ratio system prompt / 20 tokens", &b->shared, &b->small);
    report_ratio("ratio where they come one by one", &b->shared_alone, &b->small_alone);
    printf("ratio of their processor time,,%.2f,,,\n",
           quantile(&b->shared_cpu, 50) / quantile(&b->small_cpu, 50));
    printf("ratio four choices / one; four requests / one,,%.2f,%.2f,,\n",
           quantile(&b->choices, 50) / quantile(&b->one, 50),
           quantile(&b->requests, 50) / quantile(&b->one, 50));
    printf("prefix cache: %llu tokens looked up; %llu found; %llu prompt tokens computed,,,,,\n",
           (unsigned long long)stat_get(stats, STAT_prefix_cache_queries),
           (unsigned long long)stat_get(stats, STAT_prefix_cache_hits),
           (unsigned long long)stat_get(stats, STAT_prompt_tokens));
}

static uint32_t argument(int argc, char **argv, int i, uint32_t value, uint32_t max)
{
    if (argc > i)
        value = (uint32_t)strtoul(argv[i], NULL, 10);
    return value < 1 ? 1 : value > max ? max : value;
}

static void name_samples(struct samples *s, const char *what)
{
    s->what = what;
    s->ms = mem_alloc(SAMPLES_MAX * sizeof *s->ms);
}

int main(int argc, char **argv)
{
    static struct bench b;
    const char *settings[] = { "model", argc > 1 ? argv[1] : "", "log_level", "warning", NULL };

    if (argc < 2) {
        fprintf(stderr, "usage: bench-scheduling MODEL_DIR [ROUNDS [STREAMS [PROMPT [CLIENTS "
                        "[SYSTEM]]]]]\n");
        return 64;
    }
    b.rounds = argument(argc, argv, 2, 5, 20);
    b.n_streams = argument(argc, argv, 3, 8, STREAMS_MAX);
    b.n_prompt = argument(argc, argv, 4, 4000, PROMPT_MAX);
    b.n_clients = argument(argc, argv, 5, 32, CLIENTS_MAX);
    b.n_system = argument(argc, argv, 6, 1000, PROMPT_MAX);
    b.next_id = 1;
    name_samples(&b.calm, "between tokens of streams alone");
    name_samples(&b.beside, "between tokens while a prompt is read");
    name_samples(&b.prompt, "first token of that prompt");
    name_samples(&b.small, "first token of prompts of 20");
    name_samples(&b.first, "first token of the first with a system prompt");
    name_samples(&b.shared, "first token of the others with it");
    name_samples(&b.small_alone, "first token of a prompt of 20 alone");
    name_samples(&b.shared_alone, "first token of another with it alone");
    name_samples(&b.small_alone_cpu, "processor time of a prompt of 20 alone");
    name_samples(&b.shared_alone_cpu, "processor time of another with it alone");
    name_samples(&b.small_cpu, "processor time of a prompt of 20");
    name_samples(&b.first_cpu, "processor time of the first with a system prompt");
    name_samples(&b.shared_cpu, "processor time of another with it");
    name_samples(&b.one, "processor time of one request");
    name_samples(&b.choices, "processor time of four choices of one");
    name_samples(&b.requests, "processor time of four requests");
    worker_rig_init(&b.rig, 1, settings);
    worker_rig_start(&b.rig);
    client_open(&b.client, b.rig.instance, 7);
    for (b.round = 0; b.round < b.rounds; b.round++) {
        measure_long(&b);
        measure_system(&b);
        measure_choices(&b);
    }
    report_all(&b);
    client_close(&b.client);
    worker_rig_fini(&b.rig);
    return 0;
}
