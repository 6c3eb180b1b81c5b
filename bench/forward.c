/* forward.c - bench-forward: tokens a second of the forward pass, per CPU tier.
 *
 *   bench-forward [--threads N] [--rounds N] [--tier NAME] [--kv float16|float32|int8] MODEL_DIR
 *
 * Prefill reads a prompt of --prompt tokens in one step; decode runs one token of 1, 8 and 32 sequences
 * whose context is that prompt.  Rounds go through all cases in turn, so that a neighbour's noise meets
 * every case alike; the table gives the median and the range over the rounds.  The share of bandwidth is
 * bytes of matrices and KV pages read, over time, over what this machine's threads read from memory in the
 * same run; a model that fits the caches can exceed 100 %, and an embedding table of its own counts
 * as read. */
#include <argp.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/host.h"
#include "common/mem.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/runtime.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"

enum { SEQS_MAX = 32, ROUNDS_MAX = 99, N_CASES = 4 };

#define MEASURE_NS      (150 * NS_PER_MS) /* of one case in one round, at least */
#define BANDWIDTH_BYTES ((size_t)512 << 20)

struct options {
    const char *model, *tier, *kv, *threads;
    uint32_t prompt, rounds;
};

struct rank {
    struct config config;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct segment weights, group;
    struct kvpool pool;
    struct runtime *rt;
    float *logits;
    uint32_t *pages; /* [SEQS_MAX, pages_a_seq] */
    uint32_t pages_a_seq;
};

static void die(const char *what, const struct err *e)
{
    fprintf(stderr, "bench-forward: %s: %s\n", what, e->msg);
    exit(1);
}

static void set(struct config *c, const char *name, const char *value)
{
    struct err e;

    if (!config_set(c, name, value, "bench", &e))
        die("settings", &e);
}

/* ---- one rank, as llmd would start it ---- */

static void make_segments(struct rank *k)
{
    struct kvpool_shape shape = { .n_pages = k->plan.kv_pages,
                                  .page_tokens = k->plan.kv_page_tokens,
                                  .n_layers = k->plan.n_layers,
                                  .n_kv_heads = k->plan.n_kv_heads,
                                  .head_dim = k->plan.head_dim,
                                  .dtype = (enum dtype)k->plan.kv_dtype };
    struct err e;

    if (!segment_create(&k->weights, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "bench-weights",
                        k->plan.weights_shard_bytes, 1, &e) ||
        !segment_create(&k->group, SEGMENT_GROUP, GROUP_VERSION, "bench-group", k->plan.group_bytes,
                        1, &e) ||
        !kvpool_create(&k->pool, &shape, 1, &e))
        die("segments", &e);
}

static void rank_open(struct rank *k, const struct options *o, const char *tier)
{
    struct runtime_boot boot = { .config = &k->config, .tp_size = 1, .epoch = 1, .pool = &k->pool };
    char number[24];
    struct err e;
    bool loaded;

    memset(k, 0, sizeof *k);
    config_init(&k->config);
    set(&k->config, "model", o->model);
    set(&k->config, "cpu_tier", tier);
    set(&k->config, "threads", o->threads);
    set(&k->config, "kv_cache_dtype", o->kv);
    snprintf(number, sizeof number, "%u", o->prompt + 64);
    set(&k->config, "max_model_len", number);
    set(&k->config, "max_num_seqs", "32");
    snprintf(number, sizeof number, "%u", o->prompt < 64 ? 64 : o->prompt);
    set(&k->config, "max_num_batched_tokens", number);
    if (!runtime_inspect(&k->config, &k->info, &k->plan, &e))
        die("model", &e);
    make_segments(k);
    boot.weights_fd = fcntl(k->weights.fd, F_DUPFD_CLOEXEC, 0);
    boot.group_fd = fcntl(k->group.fd, F_DUPFD_CLOEXEC, 0);
    k->rt = runtime_open(&boot, &loaded, &e);
    if (!k->rt)
        die("runtime", &e);
    k->logits = mem_alloc((size_t)SEQS_MAX * k->info.vocab_size * sizeof *k->logits);
    k->pages_a_seq = (k->info.max_model_len + k->plan.kv_page_tokens - 1) / k->plan.kv_page_tokens;
    if (k->plan.kv_pages < SEQS_MAX * k->pages_a_seq) {
        err_set(&e, ERR_CONFIG, 0, "%u KV pages, %u wanted", k->plan.kv_pages,
                SEQS_MAX * k->pages_a_seq);
        die("memory", &e);
    }
    k->pages = mem_alloc((size_t)SEQS_MAX * k->pages_a_seq * sizeof *k->pages);
    for (uint32_t i = 0; i < SEQS_MAX * k->pages_a_seq; i++)
        k->pages[i] = i;
}

static void rank_close(struct rank *k)
{
    runtime_close(k->rt);
    segment_close(&k->weights);
    segment_close(&k->group);
    kvpool_close(&k->pool);
    free(k->logits);
    free(k->pages);
}

/* One step: n_seqs sequences, n_rows tokens of each, from position `start` on. */
static void step(struct rank *k, uint32_t n_seqs, uint32_t n_rows, uint32_t start)
{
    struct batch_seq seqs[SEQS_MAX];
    uint32_t logit_rows[SEQS_MAX], n = n_seqs * n_rows;
    int32_t *tokens = mem_alloc(n * sizeof *tokens);
    struct batch b = { n, tokens, n_seqs, seqs, n_seqs, logit_rows, false };
    struct err e;

    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(i * 31 % k->info.vocab_size);
    for (uint32_t i = 0; i < n_seqs; i++) {
        seqs[i] = (struct batch_seq){ i * n_rows, n_rows, start, k->pages_a_seq,
                                      k->pages + (size_t)i * k->pages_a_seq };
        logit_rows[i] = (i + 1) * n_rows - 1;
    }
    if (!runtime_forward(k->rt, &b, NULL, k->logits, &e))
        die("forward", &e);
    free(tokens);
}

/* ---- measuring ---- */

struct measure {
    const char *name;
    uint32_t n_seqs, n_rows; /* of a step */
    double tokens_per_s[ROUNDS_MAX];
};

static double run_case(struct rank *k, const struct options *o, const struct measure *c)
{
    uint32_t start = c->n_rows > 1 ? 0 : o->prompt, steps = 0;
    uint64_t begin = clock_mono_ns(), now;

    do {
        step(k, c->n_seqs, c->n_rows, start);
        steps++;
        now = clock_mono_ns();
    } while (now - begin < MEASURE_NS);
    return (double)steps * c->n_seqs * c->n_rows / ((double)(now - begin) * 1e-9);
}

struct stream_job {
    const uint64_t *words;
    size_t n_words;
    uint64_t sums[THREADS_MAX];
};

static void read_stream(void *arg, uint32_t i)
{
    struct stream_job *j = arg;
    const uint64_t *w = j->words + i * j->n_words;
    uint64_t s[8] = { 0 };

    for (size_t k = 0; k + 8 <= j->n_words; k += 8)
        for (int l = 0; l < 8; l++)
            s[l] += w[k + l];
    j->sums[i] = s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

/* Bytes a second that the threads read from memory together: the best of some passes. */
static double bandwidth(const struct options *o)
{
    uint32_t n = (uint32_t)strtoul(o->threads, NULL, 10);
    struct threads *t = threads_new(n ? n : host_cores(""), NULL);
    uint64_t *words = mem_alloc(BANDWIDTH_BYTES);
    struct stream_job j = { .words = words };
    double best = 0;

    memset(words, 1, BANDWIDTH_BYTES);
    n = threads_count(t);
    j.n_words = BANDWIDTH_BYTES / sizeof(uint64_t) / n;
    for (int pass = 0; pass < 8; pass++) {
        uint64_t begin = clock_mono_ns();
        double rate;
        threads_run(t, read_stream, &j, n);
        rate = (double)BANDWIDTH_BYTES / ((double)(clock_mono_ns() - begin) * 1e-9);
        best = rate > best ? rate : best;
    }
    free(words);
    threads_free(t);
    return best;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Bytes that a step must read: all matrices once, and each sequence's KV. */
static double bytes_of_step(const struct rank *k, const struct options *o, const struct measure *c)
{
    double kv = (double)k->plan.kv_page_bytes / k->plan.kv_page_tokens * o->prompt * c->n_seqs;

    return (double)k->plan.weights_bytes + (c->n_rows > 1 ? 0 : kv);
}

static void report(const struct rank *k, const struct options *o, struct measure *c, double limit)
{
    double *v = c->tokens_per_s, median;

    qsort(v, o->rounds, sizeof *v, by_value);
    median = v[o->rounds / 2];
    printf("  %-11s %10.0f tokens/s  (%.0f .. %.0f)", c->name, median, v[0], v[o->rounds - 1]);
    printf("  %5.0f us a step  %6.1f GB/s = %3.0f %% of bandwidth\n",
           1e6 * c->n_seqs * c->n_rows / median,
           bytes_of_step(k, o, c) * median / (c->n_seqs * c->n_rows) * 1e-9,
           100 * bytes_of_step(k, o, c) * median / (c->n_seqs * c->n_rows) / limit);
}

static void bench_tier(const struct options *o, const char *tier, double limit)
{
    struct measure cases[N_CASES] = { { .name = "prefill", .n_seqs = 1, .n_rows = o->prompt },
                                      { .name = "decode 1", .n_seqs = 1, .n_rows = 1 },
                                      { .name = "decode 8", .n_seqs = 8, .n_rows = 1 },
                                      { .name = "decode 32", .n_seqs = 32, .n_rows = 1 } };
    struct rank k;

    rank_open(&k, o, tier);
    for (uint32_t i = 0; i < SEQS_MAX; i++) { /* KV of every context, and warm caches */
        uint32_t *own = k.pages;
        k.pages += (size_t)i * k.pages_a_seq;
        step(&k, 1, o->prompt, 0);
        k.pages = own;
    }
    for (uint32_t r = 0; r < o->rounds; r++)
        for (int c = 0; c < N_CASES; c++)
            cases[c].tokens_per_s[r] = run_case(&k, o, &cases[c]);
    printf("%s, weights %s, KV %s, prompt %u\n", tier, k.info.weights_dtype,
           dtype_name(k.plan.kv_dtype), o->prompt);
    for (int c = 0; c < N_CASES; c++)
        report(&k, o, &cases[c], limit);
    rank_close(&k);
}

/* ---- main ---- */

static const struct argp_option argp_options[] = {
    { "threads", 't', "N", 0, "compute threads; 0 = all cores (default)", 0 },
    { "rounds", 'r', "N", 0, "rounds, 1..99 (default 5)", 0 },
    { "prompt", 'p', "N", 0, "tokens of the prompt (default 128)", 0 },
    { "tier", 'c', "NAME", 0, "only this tier: plain, avx2 or avx512", 0 },
    { "kv", 'k', "TYPE", 0, "KV pages: float16 (default), float32 or int8", 0 },
    { 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct options *o = state->input;

    switch (key) {
    case 't':
        o->threads = arg;
        return 0;
    case 'r':
        o->rounds = (uint32_t)strtoul(arg, NULL, 10);
        if (o->rounds < 1 || o->rounds > ROUNDS_MAX)
            argp_error(state, "rounds: 1..%d", ROUNDS_MAX);
        return 0;
    case 'p':
        o->prompt = (uint32_t)strtoul(arg, NULL, 10);
        if (o->prompt < 2 || o->prompt > 65536)
            argp_error(state, "prompt: 2..65536");
        return 0;
    case 'c':
        o->tier = arg;
        return 0;
    case 'k':
        o->kv = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (o->model)
            argp_usage(state);
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->model)
            argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

int main(int argc, char **argv)
{
    static const struct argp argp = {
        .options = argp_options,
        .parser = parse,
        .args_doc = "MODEL_DIR",
        .doc = "Tokens a second of the forward pass, for each CPU tier of this machine.",
    };
    struct options o = { .threads = "0", .kv = "float16", .prompt = 128, .rounds = 5 };
    double limit;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    limit = bandwidth(&o);
    printf("memory: %.1f GB/s read by all threads\n", limit * 1e-9);
    for (enum cpu_tier tier = 0; tier < N_CPU_TIERS; tier++) {
        const char *name = cpu_tier_name(tier);
        if (cpu_tier_choose(name) == tier && (!o.tier || strcmp(o.tier, name) == 0))
            bench_tier(&o, name, limit);
    }
    return 0;
}
