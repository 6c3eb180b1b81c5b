/* recovery.c - bench-recovery: how long a killed worker is missed.
 *
 *   bench-recovery MODEL_DIR [ROUNDS [STREAMS [PROMPT]]]
 *
 * The program is the llmd and the gateway of one real llm-worker.  STREAMS (8) sequences with prompts of PROMPT
 * (100) tokens are kept decoding; ROUNDS (30) times the worker is killed (SIGKILL), reaped and started again at
 * once, and three times are taken from the kill: READY, the first token of any stream, and a new token of
 * every stream.  The figures in recovery.csv are of 2 cores (AVX2) with a load average of 11 by other work:
 * the step beside them says what a token takes then.  What llmd adds (seeing the pidfd, posix_spawn) and the way through the gateway are not in
 * them; the chaos suite measures those. */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/unit/worker_rig.h"

enum { STREAMS_MAX = 64, PROMPT_MAX = 2048, ROUNDS_MAX = 1000 };

struct bench {
    struct worker_rig rig;
    struct client client;
    uint32_t rounds, n_streams, n_prompt;
    struct client_stream *streams[STREAMS_MAX];
    uint32_t n_before[STREAMS_MAX];
    uint64_t next_id;
    int32_t prompt[PROMPT_MAX];
    double ready_ms[ROUNDS_MAX], first_ms[ROUNDS_MAX], all_ms[ROUNDS_MAX], step_ms[ROUNDS_MAX];
};

static void receive(struct bench *b)
{
    struct pollfd fd = { .fd = link_fd(b->client.link), .events = POLLIN };

    poll(&fd, 1, 1);
    client_receive(&b->client);
}

static void submit(struct bench *b, uint32_t i)
{
    struct client_request r = client_request(b->prompt, b->n_prompt, 300);

    r.ignore_eos = true;
    b->streams[i] = client_submit(&b->client, b->next_id++, &r);
}

/* Streams that ended begin anew; then a few tokens from each. */
static void settle(struct bench *b)
{
    uint32_t n_moving = 0;

    for (uint32_t i = 0; i < b->n_streams; i++) {
        if (!b->streams[i] || b->streams[i]->n > 200)
            submit(b, i);
        b->n_before[i] = b->streams[i]->n;
    }
    while (n_moving < b->n_streams) {
        receive(b);
        n_moving = 0;
        for (uint32_t i = 0; i < b->n_streams; i++)
            n_moving += b->streams[i]->n >= b->n_before[i] + 4;
    }
}

static uint32_t count_moved(const struct bench *b)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < b->n_streams; i++)
        n += b->streams[i]->n > b->n_before[i];
    return n;
}

static double since_ms(uint64_t start)
{
    return (double)(clock_mono_ns() - start) / (double)NS_PER_MS;
}

static void one_round(struct bench *b, uint32_t round)
{
    struct board_slot *slot = board_slot(&b->rig.board, BOARD_SLOT_RANKS);
    uint64_t start;

    settle(b);
    b->step_ms[round] = (double)atomic_load(&slot->step_average_ns) / (double)NS_PER_MS;
    start = clock_mono_ns();
    worker_rig_kill(&b->rig);
    client_receive(&b->client); /* what it had sent before */
    for (uint32_t i = 0; i < b->n_streams; i++)
        b->n_before[i] = b->streams[i]->n;
    worker_rig_start(&b->rig);
    b->ready_ms[round] = since_ms(start);
    while (count_moved(b) == 0)
        receive(b);
    b->first_ms[round] = since_ms(start);
    while (count_moved(b) < b->n_streams)
        receive(b);
    b->all_ms[round] = since_ms(start);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void report(const char *what, double *ms, uint32_t n)
{
    qsort(ms, n, sizeof *ms, by_value);
    printf("%s,%.1f,%.1f,%.1f,%.1f\n", what, ms[0], ms[n / 2], ms[(n * 99 + 99) / 100 - 1],
           ms[n - 1]);
}

static uint32_t argument(int argc, char **argv, int i, uint32_t value, uint32_t max)
{
    if (argc > i)
        value = (uint32_t)strtoul(argv[i], NULL, 10);
    return value < 1 ? 1 : value > max ? max : value;
}

int main(int argc, char **argv)
{
    static struct bench b;
    const char *settings[] = { "model", argc > 1 ? argv[1] : "", "log_level", "warning", NULL };

    if (argc < 2) {
        fprintf(stderr, "usage: bench-recovery MODEL_DIR [ROUNDS [STREAMS [PROMPT]]]\n");
        return 64;
    }
    b.rounds = argument(argc, argv, 2, 30, ROUNDS_MAX);
    b.n_streams = argument(argc, argv, 3, 8, STREAMS_MAX);
    b.n_prompt = argument(argc, argv, 4, 100, PROMPT_MAX);
    b.next_id = 1;
    for (uint32_t i = 0; i < b.n_prompt; i++)
        b.prompt[i] = (int32_t)(3 + i * 37 % 1500);
    worker_rig_init(&b.rig, 1, settings);
    worker_rig_start(&b.rig);
    client_open(&b.client, b.rig.instance, 7);
    for (uint32_t i = 0; i < b.rounds; i++)
        one_round(&b, i);
    printf("ms from the kill,min,median,p99,max\n");
    report("READY", b.ready_ms, b.rounds);
    report("first token of any stream", b.first_ms, b.rounds);
    report("next token of every stream", b.all_ms, b.rounds);
    report("a step (before the kill)", b.step_ms, b.rounds);
    printf("rounds %u, streams %u, KV pages adopted %llu, prompt tokens computed %llu of %llu\n",
           b.rounds, b.n_streams,
           (unsigned long long)stat_get(worker_rig_stats(&b.rig), STAT_kv_pages_adopted),
           (unsigned long long)stat_get(worker_rig_stats(&b.rig), STAT_prompt_tokens),
           (unsigned long long)(b.next_id - 1) * b.n_prompt);
    client_close(&b.client);
    worker_rig_fini(&b.rig);
    return 0;
}
