/* test_runtime.c - the whole compute half with the demo model: same bits whatever the company, sizes that
 * hold, ranks that die.
 *
 * What would break in production: an answer that changes with the load of the server (design rule 4), a
 * segment made too small by --inspect, a group that cannot be started again. */
#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/load/tensor_type.h"
#include "gpu-worker/load/tensors.h"
#include "proto/weights_layout.h"
#include "tests/unit/checkpoint.h"
#include "tests/unit/model_rig.h"

#define DEMO TEST_SOURCE_DIR "/models/stories-demo"

enum { DEMO_HIDDEN = 256 };
enum { PROMPT = 83, DECODE = 6, COMPANY = 32 };

static void make_tokens(int32_t *tokens, uint32_t n, uint32_t salt)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = (int32_t)(3 + (i * 7919u + salt * 104729u + i * i * 31u) % 2040);
}

/* Prompt in chunks, then DECODE greedy tokens; all logits along the way are appended to *trace. */
struct trace {
    float *logits; /* [1 + DECODE, vocab] */
    size_t bytes;
};

static struct trace trace_new(const struct rig *r)
{
    struct trace t = { .bytes = (1 + DECODE) * r->info.vocab_size * sizeof(float) };

    t.logits = mem_zalloc(1, t.bytes);
    return t;
}

static void note(struct trace *t, const struct rig *r, uint32_t step, uint32_t row)
{
    memcpy(t->logits + (size_t)step * r->info.vocab_size,
           r->logits + (size_t)row * r->info.vocab_size, r->info.vocab_size * sizeof(float));
}

static struct trace run_alone(struct rig *r, uint32_t salt, uint32_t chunk)
{
    struct trace t = trace_new(r);
    struct rig_seq s = { 0 };
    int32_t tokens[PROMPT];

    make_tokens(tokens, PROMPT, salt);
    rig_prefill(r, &s, tokens, PROMPT, chunk);
    for (uint32_t step = 0;; step++) {
        int32_t next = rig_argmax(r, 0);
        note(&t, r, step, 0);
        if (step == DECODE)
            break;
        rig_prefill(r, &s, &next, 1, 1);
    }
    rig_release(r, &s);
    return t;
}

static void expect_same(struct trace *a, struct trace *b, const char *what)
{
    assert_int_equal(a->bytes, b->bytes);
    if (memcmp(a->logits, b->logits, a->bytes) != 0)
        fail_msg("%s: other bits", what);
    free(b->logits);
    b->logits = NULL;
}

static void with_settings(const char *const *settings, struct trace *wanted, const char *what)
{
    struct rig r;
    struct trace t;

    rig_open(&r, DEMO, settings);
    t = run_alone(&r, 1, 16);
    expect_same(wanted, &t, what);
    rig_close(&r);
}

static void chunks_threads_and_ranks(const char *quantize)
{
    static const uint32_t chunks[] = { 1, 3, 16 };
    struct trace whole, t;
    struct rig r;
    char what[40];

    rig_open(&r, DEMO, (const char *[]){ quantize, NULL });
    whole = run_alone(&r, 1, 512);
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        snprintf(what, sizeof what, "chunks of %u", chunks[i]);
        t = run_alone(&r, 1, chunks[i]);
        expect_same(&whole, &t, what);
    }
    t = run_alone(&r, 2, 512);
    assert_true(memcmp(whole.logits, t.logits, t.bytes) != 0); /* the comparison can fail */
    free(t.logits);
    rig_close(&r);
    with_settings((const char *[]){ quantize, "threads=1", NULL }, &whole, "one thread");
    with_settings((const char *[]){ quantize, "threads=5", NULL }, &whole, "five threads");
    with_settings((const char *[]){ quantize, "tp_size=2", "threads=1", NULL }, &whole,
                  "two ranks");
    with_settings((const char *[]){ quantize, "tp_size=4", "threads=1", NULL }, &whole,
                  "four ranks");
    free(whole.logits);
}

static const char *const quantizations[] = { "quantize=none", "quantize=int8", "quantize=int4" };

enum { N_QUANTIZATIONS = sizeof quantizations / sizeof *quantizations };

static void chunks_threads_and_ranks_do_not_change_bits(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZATIONS; i++)
        chunks_threads_and_ranks(quantizations[i]);
}

/* ---- rows without logits, which end before the last layer's products ---- */

enum { ROWS_SEQS = 2, ROWS_EACH = 13, ROWS_ALL = ROWS_SEQS * ROWS_EACH };

/* The logits of those rows of a step with two sequences, then of a token more of each; floats. */
static float *logits_of(struct rig *r, const uint32_t *rows, uint32_t n)
{
    static const uint32_t each[ROWS_SEQS] = { ROWS_EACH, ROWS_EACH }, one[ROWS_SEQS] = { 1, 1 };
    size_t vocab = r->info.vocab_size;
    float *logits = mem_zalloc((n + ROWS_SEQS) * vocab, sizeof *logits);
    struct rig_seq s[ROWS_SEQS] = { 0 }, *seqs[] = { &s[0], &s[1] };
    int32_t tokens[ROWS_ALL];
    const int32_t *at[] = { tokens, tokens + ROWS_EACH };

    make_tokens(tokens, ROWS_ALL, 7);
    rig_step_for(r, seqs, at, each, ROWS_SEQS, &(struct rig_wanted){ rows, n, false });
    memcpy(logits, r->logits, n * vocab * sizeof *logits);
    rig_step(r, seqs, at, one, ROWS_SEQS);
    memcpy(logits + n * vocab, r->logits, ROWS_SEQS * vocab * sizeof *logits);
    rig_release(r, &s[0]);
    rig_release(r, &s[1]);
    return logits;
}

static void expect_rows(struct rig *r, const float *all, const uint32_t *rows, uint32_t n)
{
    size_t vocab = r->info.vocab_size, bytes = vocab * sizeof(float);
    float *logits = logits_of(r, rows, n);

    for (uint32_t i = 0; i < n; i++)
        if (memcmp(logits + i * vocab, all + rows[i] * vocab, bytes) != 0)
            fail_msg("row %u, of %u with logits: other bits", rows[i], n);
    assert_memory_equal(logits + n * vocab, all + ROWS_ALL * vocab, ROWS_SEQS * bytes);
    free(logits);
}

static void rows_without_logits_change_no_bits(void **state)
{
    static const uint32_t last[] = { ROWS_ALL - 1 }, some[] = { 0, 5, 12, 13, 20 };
    uint32_t rows[ROWS_ALL];
    struct rig r;
    float *all;

    (void)state;
    for (uint32_t i = 0; i < ROWS_ALL; i++)
        rows[i] = i;
    for (int i = 0; i < N_QUANTIZATIONS; i++) {
        rig_open(&r, DEMO, (const char *[]){ quantizations[i], "max_num_seqs=26", NULL });
        all = logits_of(&r, rows, ROWS_ALL);
        expect_rows(&r, all, last, 1);
        expect_rows(&r, all, some, sizeof some / sizeof *some);
        expect_rows(&r, all, NULL, 0);
        free(all);
        rig_close(&r);
    }
}

/* ---- hidden states ---- */

static void read_hidden(const char *const *settings, uint32_t chunk, float *hidden, float *logits)
{
    uint32_t n_last = (PROMPT - 1) % chunk + 1, n_before = PROMPT - n_last, last = n_last - 1;
    struct rig_seq s = { 0 };
    int32_t tokens[PROMPT];
    const int32_t *rest = tokens + n_before;
    struct rig r;
    struct err e;

    rig_open(&r, DEMO, settings);
    make_tokens(tokens, PROMPT, 1);
    rig_prefill(&r, &s, tokens, n_before, chunk);
    rig_step_for(&r, &(struct rig_seq *){ &s }, &rest, &n_last, 1,
                 &(struct rig_wanted){ &last, 1, true });
    assert_true(runtime_hidden(r.ranks[0], 0, n_last, hidden, &e));
    memcpy(logits, r.logits, r.info.vocab_size * sizeof *logits);
    rig_release(&r, &s);
    rig_close(&r);
}

/* The head's rows times the state of the last row, in double: the logits. */
static void check_against_head(const float *hidden, const float *logits, uint32_t vocab)
{
    struct err e;
    struct tensors *ts = tensors_open(DEMO, &e);
    const struct tensor *head;

    assert_non_null(ts);
    head = tensors_find(ts, "model.embed_tokens.weight"); /* tied */
    assert_int_equal(head->dims[1], DEMO_HIDDEN);
    for (uint32_t t = 0; t < vocab; t++) {
        float row[DEMO_HIDDEN];
        double sum = 0;
        tensor_type_to_float(head->type, row, tensor_row(head, t), DEMO_HIDDEN);
        for (uint32_t i = 0; i < DEMO_HIDDEN; i++)
            sum += (double)row[i] * (double)hidden[i];
        assert_true(fabs(sum - (double)logits[t]) < 1e-3);
    }
    tensors_close(ts);
}

static void hidden_states_are_what_logits_are_made_of(void **state)
{
    static float whole[PROMPT][DEMO_HIDDEN], some[PROMPT][DEMO_HIDDEN], logits[1 << 16];

    (void)state;
    read_hidden((const char *[]){ NULL }, 512, whole[0], logits);
    check_against_head(whole[PROMPT - 1], logits, 2048);
    read_hidden((const char *[]){ "threads=1", NULL }, 7, some[0], logits);
    assert_memory_equal(some, whole[PROMPT - 6], 6 * sizeof *some);
    read_hidden((const char *[]){ "tp_size=2", "threads=1", NULL }, 512, some[0], logits);
    assert_memory_equal(some, whole, sizeof whole);
}

/* Sequence 0 decodes while COMPANY others decode, prefill and end around it. */
static void company(const char *quantize)
{
    struct rig_seq seqs[1 + COMPANY] = { 0 };
    struct rig_seq *list[1 + COMPANY];
    const int32_t *rows[1 + COMPANY];
    int32_t prompts[1 + COMPANY][PROMPT], next[1 + COMPANY];
    uint32_t n[1 + COMPANY];
    struct trace alone, t;
    struct rig r;

    rig_open(&r, DEMO, (const char *[]){ quantize, NULL });
    alone = run_alone(&r, 1, 512);
    t = trace_new(&r);
    for (uint32_t i = 0; i <= COMPANY; i++) {
        make_tokens(prompts[i], PROMPT, i + 1);
        list[i] = &seqs[i];
        rows[i] = prompts[i];
        n[i] = i == 0 ? PROMPT : 1 + i % 13;
    }
    rig_step(&r, list, rows, n, 1 + COMPANY);
    for (uint32_t step = 0;; step++) {
        note(&t, &r, step, 0);
        if (step == DECODE)
            break;
        for (uint32_t i = 0; i <= COMPANY; i++) {
            next[i] = rig_argmax(&r, i);
            rows[i] = i > 0 && i % 3 == step % 3 ? prompts[i] : &next[i];
            n[i] = i > 0 && i % 3 == step % 3 ? 7 : 1; /* some read on while others decode */
        }
        rig_step(&r, list, rows, n, step % 2 ? 1 + COMPANY : 1 + COMPANY / 2);
        if (step % 2 == 0)
            for (uint32_t i = 1 + COMPANY / 2; i <= COMPANY; i++)
                rig_release(&r, &seqs[i]); /* gone, and begun anew in other pages */
    }
    expect_same(&alone, &t, "in company");
    free(alone.logits);
    rig_close(&r);
}

static void company_does_not_change_bits(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZATIONS; i++)
        company(quantizations[i]);
}

/* A restarted group maps what is there and computes the same, KV pages included. */
static void restart_maps_weights_and_keeps_pages(void **state)
{
    static const char *const tp2[] = { "tp_size=2", "threads=1", NULL };
    struct rig_seq s = { 0 };
    int32_t tokens[PROMPT];
    struct rig r;
    float *wanted;
    size_t bytes;

    (void)state;
    make_tokens(tokens, PROMPT, 1);
    rig_open(&r, DEMO, tp2);
    bytes = r.info.vocab_size * sizeof(float);
    wanted = mem_alloc(bytes);
    rig_prefill(&r, &s, tokens, PROMPT, 512);
    memcpy(wanted, r.logits, bytes);
    rig_release(&r, &s);
    rig_prefill(&r, &s, tokens, PROMPT - 10, 512);
    assert_int_equal(rig_restart(&r), 0); /* nobody loaded */
    rig_prefill(&r, &s, tokens + PROMPT - 10, 10, 512);
    assert_memory_equal(wanted, r.logits, bytes);
    free(wanted);
    rig_close(&r);
}

/* ---- weights that do not stay what they were ---- */

static char *weights_data_of(const struct rig *r)
{
    const struct weights_hdr *h = (const struct weights_hdr *)r->weights[0].hdr;

    return (char *)r->weights[0].hdr + h->data_offset;
}

static struct weights_hdr *weights_hdr_of(const struct rig *r)
{
    return (struct weights_hdr *)r->weights[0].hdr;
}

static uint64_t n_reloaded(const struct rig *r)
{
    return stat_get(&r->stats, STAT_weights_chunks_reloaded);
}

/* One bit among the first bytes, seen in the moment before service; one among the last, where doubt of the
 * predecessor makes the successor look. */
static void corrupt_weights_are_loaded_again(const char *quantize)
{
    struct trace wanted, t;
    struct rig r;
    uint64_t bytes;

    rig_open(&r, DEMO, (const char *[]){ quantize, NULL });
    wanted = run_alone(&r, 1, 512);
    bytes = weights_hdr_of(&r)->data_bytes;
    assert_true(weights_hdr_of(&r)->n_chunks > 2);
    weights_data_of(&r)[1000] ^= 0x40;
    assert_int_equal(rig_restart(&r), 0);
    assert_int_equal(n_reloaded(&r), 1);
    t = run_alone(&r, 1, 512);
    expect_same(&wanted, &t, "first chunk reloaded");
    weights_data_of(&r)[bytes - 1000] ^= 0x40;
    atomic_store(runtime_doubt(r.ranks[0]), 1);
    assert_int_equal(rig_restart(&r), 0);
    assert_int_equal(n_reloaded(&r), 2);
    assert_int_equal(atomic_load(&weights_hdr_of(&r)->doubt), 0);
    t = run_alone(&r, 1, 512);
    expect_same(&wanted, &t, "last chunk reloaded");
    free(wanted.logits);
    rig_close(&r);
}

static void corrupt_weights_are_loaded_again_before_service(void **state)
{
    (void)state;
    for (int i = 0; i < N_QUANTIZATIONS; i++)
        corrupt_weights_are_loaded_again(quantizations[i]);
}

static void until_no_doubt(const struct rig *r)
{
    uint64_t end = clock_mono_ns() + 20 * NS_PER_S;

    while (atomic_load(&weights_hdr_of(r)->doubt) && clock_mono_ns() < end)
        usleep(1000);
    assert_int_equal(atomic_load(&weights_hdr_of(r)->doubt), 0);
}

/* A step gave no numbers: the guard looks at all chunks while service goes on. */
static void doubtful_output_has_the_weights_verified(void **state)
{
    struct trace wanted, t;
    struct rig r;

    (void)state;
    rig_open(&r, DEMO, NULL);
    wanted = run_alone(&r, 1, 512);
    for (uint32_t i = 1; i <= 3; i++) {
        weights_data_of(&r)[i * WEIGHTS_CHUNK_BYTES + 77] ^= 1;
        runtime_doubt_output(r.ranks[0]);
        runtime_doubt_output(r.ranks[0]);
        until_no_doubt(&r);
        assert_int_equal(n_reloaded(&r), i);
    }
    t = run_alone(&r, 1, 512);
    expect_same(&wanted, &t, "repaired in the background");
    free(wanted.logits);
    rig_close(&r);
}

static const struct checkpoint_spec tiny = { .architecture = "LlamaForCausalLM",
                                             .hidden = 16,
                                             .inner = 24,
                                             .layers = 2,
                                             .heads = 2,
                                             .kv_heads = 2,
                                             .head_dim = 8,
                                             .vocab = 30,
                                             .dtype = DTYPE_BF16,
                                             .theta = 10000,
                                             .n_files = 1 };

/* What is needed for the repair is not there any more: no token is computed, and the line says why. */
static void corrupt_weights_of_changed_files_end_the_worker(void **state)
{
    const struct timespec times[2] = { { 1000, 0 }, { 1000, 0 } };
    int32_t token = 5;
    uint32_t page = 0, logit_row = 0;
    struct batch_seq seq = { 0, 1, 0, 1, &page };
    struct batch b = { 1, &token, 1, &seq, 1, &logit_row, false };
    uint64_t end = clock_mono_ns() + 20 * NS_PER_S;
    struct err e = { 0 };
    struct checkpoint c;
    char path[128];
    struct rig r;

    (void)state;
    checkpoint_make(&c, &tiny, 5);
    rig_open(&r, c.dir, NULL);
    assert_true(runtime_forward(r.ranks[0], &b, NULL, r.logits, &e));
    snprintf(path, sizeof path, "%s/model.safetensors", c.dir);
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    runtime_doubt_output(r.ranks[0]); /* nothing is corrupt: changed files do not matter */
    until_no_doubt(&r);
    assert_true(runtime_forward(r.ranks[0], &b, NULL, r.logits, &e));
    weights_data_of(&r)[40] ^= 1;
    runtime_doubt_output(r.ranks[0]);
    while (runtime_forward(r.ranks[0], &b, NULL, r.logits, &e) && clock_mono_ns() < end)
        usleep(1000);
    assert_int_equal(e.code, ERR_MODEL);
    assert_non_null(strstr(e.msg, "files have changed"));
    assert_int_equal(atomic_load(&weights_hdr_of(&r)->doubt), 1);
    rig_close(&r);
    checkpoint_remove(&c);
}

/* ---- ranks as processes ---- */

static struct runtime *open_rank(struct rig *r, uint32_t rank)
{
    struct runtime_boot boot = { .config = &r->config,
                                 .rank = rank,
                                 .tp_size = 2,
                                 .epoch = r->epoch,
                                 .pool = &r->pool,
                                 .weights_fd = fcntl(r->weights[rank].fd, F_DUPFD_CLOEXEC, 0),
                                 .group_fd = fcntl(r->group.fd, F_DUPFD_CLOEXEC, 0) };
    struct err e = { 0 };
    bool loaded;
    struct runtime *rt = runtime_open(&boot, &loaded, &e);

    if (!rt)
        fprintf(stderr, "rank %u: %s\n", rank, e.msg);
    return rt;
}

static pid_t start_follower(struct rig *r)
{
    pid_t pid = fork();

    if (pid == 0) {
        struct runtime *rt = open_rank(r, 1);
        struct err e = { 0 };
        bool ok = rt && runtime_follow(rt, &e);
        runtime_close(rt);
        _exit(ok ? 0 : 1);
    }
    return pid;
}

/* Two processes give the bits of one; a killed rank is an error of the other; the next epoch serves. */
static void ranks_are_processes_that_may_die(void **state)
{
    struct rig alone, r;
    struct trace wanted, t;
    struct err e = { 0 };
    int32_t token = 5;
    uint32_t page = 0, logit_row = 0;
    struct batch_seq seq = { 0, 1, 0, 1, &page };
    struct batch b = { 1, &token, 1, &seq, 1, &logit_row, false };

    (void)state;
    rig_open(&alone, DEMO, NULL);
    wanted = run_alone(&alone, 1, 512);
    rig_close(&alone);
    rig_open(&r, DEMO, (const char *[]){ "tp_size=2", "threads=1", NULL });
    rig_close_ranks(&r); /* only its segments are wanted */
    for (int round = 0; round < 2; round++) {
        pid_t pid;
        int status;
        r.epoch++;
        pid = start_follower(&r);
        r.ranks[0] = open_rank(&r, 0);
        assert_non_null(r.ranks[0]);
        t = run_alone(&r, 1, 16);
        expect_same(&wanted, &t, "two processes");
        if (round == 0) {
            kill(pid, SIGKILL);
            assert_false(runtime_forward(r.ranks[0], &b, NULL, r.logits, &e));
            assert_int_equal(e.code, ERR_DEVICE);
        }
        runtime_stop(r.ranks[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, round == 0 ? SIGKILL : 0);
        runtime_close(r.ranks[0]);
    }
    free(wanted.logits);
    rig_close_segments(&r);
}

/* ---- parallel ---- */

static void count(void *arg, uint32_t i)
{
    ((uint32_t *)arg)[i]++;
}

static void parallel_runs_each_index_once(void **state)
{
    uint32_t runs[100] = { 0 };
    struct rig r;

    (void)state;
    rig_open(&r, DEMO, NULL);
    runtime_parallel(r.ranks[0], count, runs, 100);
    for (int i = 0; i < 100; i++)
        assert_int_equal(runs[i], 1);
    rig_close(&r);
}

/* ---- inspect ---- */

static bool inspect(const char *dir, const char *const *settings, struct model_info *info,
                    Llmd__ModelPlan *plan, struct err *e)
{
    struct config c;

    config_init(&c);
    assert_true(config_set(&c, "model", dir, "test", e));
    for (; *settings; settings += 2)
        assert_true(config_set(&c, settings[0], settings[1], "test", e));
    return runtime_inspect(&c, info, plan, e);
}

#define SETTINGS(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void inspect_tells_sizes(void **state)
{
    struct model_info info;
    Llmd__ModelPlan p;
    struct err e = { 0 };

    (void)state;
    if (!inspect(DEMO "//", SETTINGS("max_num_seqs", "4", "groups", "2"), &info, &p, &e))
        fail_msg("%s", e.msg);
    assert_string_equal(p.name, "stories-demo");
    assert_string_equal(p.architecture, "LlamaForCausalLM");
    assert_string_equal(p.weights_dtype, "bfloat16");
    assert_int_equal(p.parameters, 3476224); /* MODEL_CARD.md */
    assert_int_equal(p.max_model_len, 512);
    assert_int_equal(p.vocab_size, 2048);
    assert_int_equal(p.n_layers, 5);
    assert_int_equal(p.n_kv_heads, 4);
    assert_int_equal(p.head_dim, 32);
    assert_int_equal(p.kv_dtype, DTYPE_I16); /* the host's kind of 16 bits */
    assert_int_equal(p.kv_page_bytes, 5 * 2 * 4 * 16 * (32 * 2 + 4));
    assert_int_equal(p.kv_pages, 2 * 4 * 512 / 16); /* groups * sequences * pages */
    assert_int_equal(info.n_eos, 1);
    assert_int_equal(info.eos[0], 2);
    /* 16-bit matrices, 11 norms of 256 floats, 2 MiB before the data */
    assert_int_equal(p.weights_bytes, (3476224 - 11 * 256) * 2 + 11 * 256 * 4);
    assert_int_equal(p.weights_shard_bytes, p.weights_bytes + (2 << 20));
    assert_true(inspect(DEMO,
                        SETTINGS("kv_cache_bytes", "10M", "max_model_len", "100", "kv_cache_dtype",
                                 "float32", "tp_size", "4"),
                        &info, &p, &e));
    assert_int_equal(p.max_model_len, 100);
    assert_int_equal(p.kv_dtype, DTYPE_F32);
    assert_int_equal(p.kv_pages, (10 << 20) / (5 * 2 * 4 * 16 * 32 * 4));
    assert_true(p.group_bytes > 64 * 2048 * sizeof(float));
    /* vLLM's word: the host keeps the nearest, and says so */
    assert_true(inspect(DEMO, SETTINGS("kv_cache_dtype", "fp8"), &info, &p, &e));
    assert_int_equal(p.kv_dtype, DTYPE_I8);
    assert_int_equal(p.kv_page_bytes, 5 * 2 * 4 * 16 * (32 + 4));
}

/* ... and serves with it. */
static void fp8_pages_are_int8_on_the_host(void **state)
{
    int32_t tokens[5] = { 1, 5, 80, 900, 7 };
    struct rig_seq on_fp8 = { 0 }, on_int8 = { 0 };
    struct rig fp8, int8;

    (void)state;
    rig_open(&fp8, DEMO, (const char *[]){ "kv_cache_dtype=fp8", NULL });
    rig_open(&int8, DEMO, (const char *[]){ "kv_cache_dtype=int8", NULL });
    rig_prefill(&fp8, &on_fp8, tokens, 5, 2);
    rig_prefill(&int8, &on_int8, tokens, 5, 2);
    assert_memory_equal(fp8.logits, int8.logits, fp8.info.vocab_size * sizeof(float));
    rig_release(&fp8, &on_fp8);
    rig_release(&int8, &on_int8);
    rig_close(&fp8);
    rig_close(&int8);
}

static void refuse(const char *const *settings, const char *why)
{
    struct model_info info;
    Llmd__ModelPlan p;
    struct err e = { 0 };

    assert_false(inspect(DEMO, settings, &info, &p, &e));
    assert_int_equal(e.code, ERR_CONFIG);
    if (!strstr(e.msg, why))
        fail_msg("'%s' should say '%s'", e.msg, why);
}

static void inspect_refuses_with_numbers(void **state)
{
    struct model_info info;
    Llmd__ModelPlan p;
    struct err e = { 0 };

    (void)state;
    refuse(SETTINGS("max_model_len", "513"), "512 tokens the model was made for");
    refuse(SETTINGS("kv_cache_bytes", "1M"), "needs 32");
    refuse(SETTINGS("kv_cache_bytes", "1T"), "bytes of memory are missing");
    refuse(SETTINGS("kv_cache_bytes", "1T"), "SHM_SIZE does not count");
    refuse(SETTINGS("tp_size", "3"), "tp_size 3 does not divide the model's 4");
    assert_false(inspect("/nonexistent", SETTINGS("port", "1"), &info, &p, &e));
    assert_non_null(strstr(e.msg, "/nonexistent"));
}

/* ---- open ---- */

/* The pool of another model, or of other settings, is noticed before a page is touched. */
static void a_pool_of_another_shape_is_refused(void **state)
{
    struct runtime_boot boot;
    struct err e = { 0 };
    bool loaded;
    struct rig r;

    (void)state;
    rig_open(&r, DEMO, NULL);
    assert_true(config_set(&r.config, "kv_cache_dtype", "float32", "test", &e));
    boot = (struct runtime_boot){ .config = &r.config,
                                  .tp_size = 1,
                                  .epoch = 2,
                                  .pool = &r.pool,
                                  .weights_fd = fcntl(r.weights[0].fd, F_DUPFD_CLOEXEC, 0),
                                  .group_fd = fcntl(r.group.fd, F_DUPFD_CLOEXEC, 0) };
    assert_null(runtime_open(&boot, &loaded, &e));
    assert_int_equal(e.code, ERR_PROTO);
    assert_non_null(strstr(e.msg, "int16"));
    assert_int_equal(fcntl(boot.weights_fd, F_GETFD), -1); /* taken, on failure too */
    assert_int_equal(fcntl(boot.group_fd, F_GETFD), -1);
    rig_close(&r);
}

static void opening_is_quick(void **state)
{
    uint64_t begin, cold, warm;
    struct rig r;

    (void)state;
    begin = clock_mono_ns();
    rig_open(&r, DEMO, NULL);
    cold = clock_mono_ns() - begin;
    begin = clock_mono_ns();
    assert_int_equal(rig_restart(&r), 0);
    warm = clock_mono_ns() - begin;
    printf("inspect, make segments, load: %.1f ms; close and map again: %.1f ms\n",
           (double)cold * 1e-6, (double)warm * 1e-6);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_threads_and_ranks_do_not_change_bits),
        cmocka_unit_test(rows_without_logits_change_no_bits),
        cmocka_unit_test(hidden_states_are_what_logits_are_made_of),
        cmocka_unit_test(company_does_not_change_bits),
        cmocka_unit_test(restart_maps_weights_and_keeps_pages),
        cmocka_unit_test(corrupt_weights_are_loaded_again_before_service),
        cmocka_unit_test(doubtful_output_has_the_weights_verified),
        cmocka_unit_test(corrupt_weights_of_changed_files_end_the_worker),
        cmocka_unit_test(ranks_are_processes_that_may_die),
        cmocka_unit_test(parallel_runs_each_index_once),
        cmocka_unit_test(inspect_tells_sizes),
        cmocka_unit_test(fp8_pages_are_int8_on_the_host),
        cmocka_unit_test(inspect_refuses_with_numbers),
        cmocka_unit_test(a_pool_of_another_shape_is_refused),
        cmocka_unit_test(opening_is_quick),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
