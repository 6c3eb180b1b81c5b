/* fake_runtime.c - see fake_runtime.h. */
#include "fake_runtime.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"
#include "fake_clock.h"
#include "gpu-worker/sampler.h"

enum { THREADS = 3, FAKE_ROWS_MAX = 1024 };

struct fake_settings fake_settings = { .max_model_len = 512 };
uint32_t fake_n_doubts, fake_n_forwards, fake_last_rows, fake_last_seqs;
uint64_t fake_n_rows;
uint32_t fake_n_draws, fake_n_rests;

struct runtime {
    struct model_info info;
    struct kvpool *pool;
    struct sampler *sampler;
    _Atomic uint32_t doubt;
    float hidden[FAKE_ROWS_MAX][FAKE_HIDDEN]; /* of the last step */
    uint32_t n_rows;
};

struct runtime *fake_runtime_new(struct kvpool *pool)
{
    struct runtime *rt = mem_zalloc(1, sizeof *rt);

    rt->pool = pool;
    rt->sampler = sampler_new(FAKE_VOCAB);
    rt->info = (struct model_info){ .name = "fake",
                                    .vocab_size = FAKE_VOCAB,
                                    .max_model_len = fake_settings.max_model_len,
                                    .n_layers = FAKE_LAYERS,
                                    .n_kv_heads = FAKE_HEADS,
                                    .head_dim = FAKE_HEAD_DIM,
                                    .hidden_size = FAKE_HIDDEN,
                                    .eos = { FAKE_EOS },
                                    .n_eos = fake_settings.no_eos ? 0 : 1 };
    return rt;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    sampler_free(rt->sampler);
    free(rt);
}

const struct model_info *runtime_info(const struct runtime *rt)
{
    return &rt->info;
}

struct hash128 runtime_kv_identity(const struct runtime *rt)
{
    (void)rt;
    return (struct hash128){ 7, fake_settings.kv_identity };
}

struct hash128 runtime_kv_place(const struct runtime *rt)
{
    return runtime_kv_identity(rt);
}

_Atomic uint32_t *runtime_doubt(struct runtime *rt)
{
    return &rt->doubt;
}

void runtime_doubt_output(struct runtime *rt)
{
    atomic_store(&rt->doubt, 1);
    fake_n_doubts++;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9E3779B97F4A7C15ull;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ull;
    x = (x ^ x >> 27) * 0x94D049BB133111EBull;
    return x ^ x >> 31;
}

static uint64_t hash_on(uint64_t hash, int32_t token)
{
    return mix(hash ^ (uint64_t)(uint32_t)token);
}

/* echo: the token it may say again, or -1. */
static void logits_of_hash(uint64_t hash, int32_t last, int32_t echo, float *logits)
{
    for (int32_t i = 0; i < FAKE_VOCAB; i++)
        logits[i] = (float)(mix(hash + (uint64_t)i) >> 40) * 0x1p-24f * 12.0f - 6.0f;
    if (echo >= 0 && hash % 8 != 0)
        logits[echo] += 12.0f;
    logits[FAKE_POISON] = logits[FAKE_NAN] = -50.0f;
    if (last == FAKE_NAN)
        logits[7] = NAN;
}

void fake_logits(const int32_t *tokens, uint32_t n, float *logits)
{
    uint64_t hash = 1;

    for (uint32_t i = 0; i < n; i++)
        hash = hash_on(hash, tokens[i]);
    logits_of_hash(hash, tokens[n - 1], n >= FAKE_ECHO_FROM ? tokens[n - FAKE_ECHO] : -1, logits);
}

/* Values that are not the same sum in another order. */
static void hidden_of_hash(uint64_t hash, int32_t last, float *hidden)
{
    for (uint32_t i = 0; i < FAKE_HIDDEN; i++)
        hidden[i] = (float)(int32_t)(mix(hash + i) >> 40) * (i % 2 ? 1e-9f : 1e3f) - 7;
    if (last == FAKE_NAN)
        hidden[1] = INFINITY;
}

void fake_hidden(const int32_t *tokens, uint32_t n, float *hidden)
{
    uint64_t hash = 1;

    for (uint32_t i = 0; i < n; i++)
        hash = hash_on(hash, tokens[i]);
    hidden_of_hash(hash, tokens[n - 1], hidden);
}

static int32_t *slot(const struct runtime *rt, const struct batch_seq *q, uint32_t position)
{
    uint32_t page_tokens = rt->pool->hdr->page_tokens;
    uint32_t page = q->pages[position / page_tokens];

    assert(position / page_tokens < q->n_pages);
    assert(atomic_load(&rt->pool->descs[page].lease) != 0);
    assert(atomic_load(&rt->pool->descs[page].pins) > 0);
    return (int32_t *)kvpool_page(rt->pool, page) + position % page_tokens;
}

static void run_row(const struct runtime *rt, const struct batch *b, const struct batch_seq *q,
                    uint32_t row)
{
    int32_t token = b->tokens[row];

    assert(token >= 0 && token < FAKE_VOCAB);
    if (token == FAKE_POISON && fake_settings.poison_aborts)
        abort();
    *slot(rt, q, q->start + row - q->first_row) = token;
}

static void read_logits(const struct runtime *rt, const struct batch_seq *q, uint32_t row,
                        float *logits)
{
    uint32_t n = q->start + row - q->first_row + 1;
    uint64_t hash = 1;
    int32_t last = 0;

    for (uint32_t i = 0; i < n; i++) {
        last = *slot(rt, q, i);
        hash = hash_on(hash, last);
    }
    logits_of_hash(hash, last, n >= FAKE_ECHO_FROM ? *slot(rt, q, n - FAKE_ECHO) : -1, logits);
}

/* Read back through the page table, as an attention would. */
static void fill_hidden(struct runtime *rt, const struct batch_seq *q)
{
    uint64_t hash = 1;

    for (uint32_t p = 0; p < q->start + q->n_rows; p++) {
        int32_t token = *slot(rt, q, p);
        hash = hash_on(hash, token);
        if (p >= q->start)
            hidden_of_hash(hash, token, rt->hidden[q->first_row + p - q->start]);
    }
}

bool runtime_hidden(struct runtime *rt, uint32_t first_row, uint32_t n, float *out, struct err *e)
{
    (void)e;
    assert(n > 0 && first_row + n <= rt->n_rows);
    memcpy(out, rt->hidden[first_row], n * sizeof *rt->hidden);
    return true;
}

/* As a device that has the logits: what it draws from is no number for whoever looks. */
static void draw_some(struct runtime *rt, const struct sampler_rows *draws, float *logits)
{
    for (uint32_t i = 0; fake_settings.draws && i < draws->n; i += 2) {
        struct sampler_row *row = &draws->list[i];
        float *from = logits + (size_t)row->logits_row * FAKE_VOCAB;
        assert(row->in.logits == from);
        row->result = sampler_draw(rt->sampler, &row->in, &row->out);
        row->is_drawn = true;
        fake_n_draws++;
        for (int k = 0; k < FAKE_VOCAB; k++)
            from[k] = NAN;
    }
}

static void take_time(void)
{
    if (fake_settings.is_exact)
        fake_clock_pass(fake_settings.step_us * 1000ull);
    else if (fake_settings.step_us > 0)
        usleep(fake_settings.step_us);
}

bool runtime_forward(struct runtime *rt, const struct batch *b, const struct sampler_rows *draws,
                     float *logits, struct err *e)
{
    uint32_t row = 0, n_logits = 0;

    if (fake_settings.n_short > 0) {
        fake_settings.n_short--;
        return err_set(e, ERR_DEVICE, FAKE_SHORT, "the fake device is full");
    }
    if (fake_settings.fail != ERR_NONE)
        return err_set(e, fake_settings.fail, 0, "the fake device is broken");
    take_time();
    assert(b->n_seqs > 0 && b->n_logits <= batch_logits_max(b->n_seqs));
    for (uint32_t s = 0; s < b->n_seqs; s++) {
        const struct batch_seq *q = &b->seqs[s];
        assert(q->first_row == row && q->n_rows > 0);
        for (; row < q->first_row + q->n_rows; row++) {
            run_row(rt, b, q, row);
            if (n_logits < b->n_logits && b->logit_rows[n_logits] == row)
                read_logits(rt, q, row, logits + (size_t)n_logits++ * FAKE_VOCAB);
        }
        fill_hidden(rt, q);
    }
    assert(row == b->n_rows && n_logits == b->n_logits);
    draw_some(rt, draws, logits);
    rt->n_rows = row;
    fake_n_forwards++;
    fake_last_rows = b->n_rows;
    fake_n_rows += b->n_rows;
    fake_last_seqs = b->n_seqs;
    return true;
}

bool runtime_forgive(struct runtime *rt, const struct err *e)
{
    (void)rt;
    return e->code == ERR_DEVICE && e->sys == FAKE_SHORT;
}

bool runtime_rest(struct runtime *rt, bool *did, struct err *e)
{
    (void)rt;
    (void)e;
    *did = fake_settings.rests > 0;
    fake_settings.rests -= *did;
    fake_n_rests += *did;
    return true;
}

void runtime_stop(struct runtime *rt)
{
    (void)rt;
}

struct job {
    void (*fn)(void *arg, uint32_t i);
    void *arg;
    uint32_t n;
    _Atomic uint32_t next;
};

static void *work(void *arg)
{
    struct job *j = arg;
    uint32_t i;

    while ((i = atomic_fetch_add(&j->next, 1)) < j->n)
        j->fn(j->arg, i);
    return NULL;
}

/* Real threads, so that the thread sanitizer sees what the compute threads would do. */
void runtime_parallel(struct runtime *rt, void (*fn)(void *arg, uint32_t i), void *arg, uint32_t n)
{
    struct job j = { .fn = fn, .arg = arg, .n = n };
    pthread_t threads[THREADS];
    uint32_t n_threads = n < THREADS ? n : THREADS;

    (void)rt;
    for (uint32_t i = 1; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, work, &j) != 0)
            abort();
    work(&j);
    for (uint32_t i = 1; i < n_threads; i++)
        pthread_join(threads[i], NULL);
}
