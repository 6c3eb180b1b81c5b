/* cuda_step.c - one step on the device: what it needs sent over, recorded when it comes often, waited for.
 *
 *                              begin                  finish
 *   any batch                  copy, ops are queued   wait
 *   decode, its graph there    copy, graph            wait
 *
 *   record_is_due   a bucket has no graph, and was seen CUDA_GRAPH_AFTER times when idle, else CUDA_GRAPH_AFTER_BUSY
 *   record_begin    capture: the ops of a step of that bucket, of no batch in particular
 *   record_end      graph of the bucket, or never again
 *
 * A decode step - one row and its logits for each sequence - is rounded up to its bucket whether there is a graph
 * or not, so its results are the same bits with and without.  Spare rows compute token 0 at position 0, store no KV
 * and are not attended to.  Recording takes a few milliseconds a bucket, between steps, and rather when nobody waits for
 * one; right after a start nothing is recorded, since the first tokens are what people wait for then.
 *
 * Before the first step, steps of all sizes are gone through with no launch (rehearse_begin): that loads their kernels,
 * which a driver may have to compile first.  Their choice is made in one place so, by the ops themselves.
 *
 * A graph has addresses of this process: buffers that never move, and a block of inputs that begin() fills. */
#include <assert.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "gpu-worker/cuda/cuda_stream.h"
#include "gpu-worker/cuda/exchange.h"

static const uint32_t bucket_rows[CUDA_BUCKETS] = { 1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128 };
static_assert(CUDA_GRAPH_ROWS_MAX == 128, "the last bucket");

/* ---- sizes ---- */

static size_t place(size_t *at, size_t bytes)
{
    size_t here = *at;

    *at += (bytes + 15) / 16 * 16;
    return here;
}

void cuda_step_sizes(struct ops_stream *s)
{
    struct step_block *b = &s->block;
    size_t rows = s->setup.rows_max * sizeof(uint32_t), at = 0;

    b->tokens = place(&at, rows);
    b->positions = place(&at, rows);
    b->kv_pages = place(&at, rows);
    b->kv_slots = place(&at, rows);
    b->logit_rows = place(&at, s->setup.logits_max * sizeof(uint32_t));
    b->attention = place(&at, attention_plan_limits(&s->attention, s->pages_max).plan_bytes);
    b->bytes = at;
    for (int i = 0; i < CUDA_BUCKETS; i++)
        s->buckets[i].rows = bucket_rows[i];
}

void cuda_step_fini(struct ops_stream *s)
{
    for (int i = 0; i < CUDA_BUCKETS; i++)
        device_graph_free(s->device, &s->buckets[i].graph);
}

/* ---- what goes over ---- */

static uint32_t *block_u32(const struct ops_stream *s, size_t at)
{
    return (uint32_t *)(void *)(s->block.host + at);
}

static uint32_t place_rows(struct ops_stream *s, const struct batch_seq *q)
{
    uint32_t page_tokens = s->setup.kv.page_tokens;

    for (uint32_t t = 0; t < q->n_rows; t++) {
        uint32_t row = q->first_row + t, position = q->start + t;
        block_u32(s, s->block.positions)[row] = position;
        block_u32(s, s->block.kv_pages)[row] = q->pages[position / page_tokens];
        block_u32(s, s->block.kv_slots)[row] = position % page_tokens;
    }
    return q->n_rows;
}

/* Behind the batch's: what is computed for nobody. */
static void fill_spare(struct ops_stream *s)
{
    for (uint32_t row = s->batch->n_rows; row < s->step.n_rows; row++) {
        block_u32(s, s->block.tokens)[row] = 0;
        block_u32(s, s->block.positions)[row] = 0;
        block_u32(s, s->block.kv_pages)[row] = KV_WRITE_IDLE;
        block_u32(s, s->block.kv_slots)[row] = 0;
    }
    for (uint32_t i = s->batch->n_logits; i < s->step.n_logits; i++)
        block_u32(s, s->block.logit_rows)[i] = 0;
}

static void send_block(struct ops_stream *s)
{
    const struct batch *b = s->batch;
    const struct attention_header *plan;
    uint32_t n_placed = 0;

    memcpy(s->block.host + s->block.tokens, b->tokens, b->n_rows * sizeof *b->tokens);
    for (uint32_t i = 0; i < b->n_seqs; i++) {
        ops_check_seq(&s->setup, b, &b->seqs[i]);
        n_placed += place_rows(s, &b->seqs[i]);
    }
    assert(n_placed == b->n_rows);
    if (b->n_logits > 0)
        memcpy(s->block.host + s->block.logit_rows, b->logit_rows,
               b->n_logits * sizeof *b->logit_rows);
    fill_spare(s);
    plan = attention_plan_build(s->block.host + s->block.attention, &s->attention, b);
    s->n_launches = attention_launches(s->launches, &s->attention, plan);
    device_copy_in(&s->stream, s->block.device, s->block.host, s->block.attention + plan->bytes);
}

/* Angles of every row: the first kernel of a step. */
static void turn(struct ops_stream *s)
{
    uint32_t half = s->setup.rope_dim / 2;
    struct rope_angles_args a = { .cos = s->rope_cos,
                                  .sin = s->rope_sin,
                                  .positions = cuda_block_at(s, s->block.positions),
                                  .low = s->rope_low,
                                  .high = s->rope_high,
                                  .half = half };

    cuda_launch(s, "rope_angles", s->step.n_rows, 1, ROPE_ANGLES_THREADS, 0, &a, sizeof a);
}

/* ---- buckets ---- */

static bool is_decode(const struct ops_stream *s, const struct batch *b)
{
    if (s->graphs == GRAPHS_OFF || b->n_rows > CUDA_GRAPH_ROWS_MAX || b->n_logits != b->n_rows)
        return false;
    return b->n_seqs == b->n_rows;
}

/* NULL: the batch is computed as it is. */
static struct cuda_bucket *bucket_of(struct ops_stream *s, const struct batch *b)
{
    const struct ops_setup *u = &s->setup;

    if (!is_decode(s, b))
        return NULL;
    for (int i = 0; i < CUDA_BUCKETS; i++) {
        struct cuda_bucket *k = &s->buckets[i];
        if (k->rows >= b->n_rows)
            return k->rows <= u->rows_max && k->rows <= u->logits_max ? k : NULL;
    }
    return NULL;
}

/* Blocks for whatever a batch of the bucket could need: of one row a sequence, which makes no tile. */
static_assert(ATTENTION_TILE_ROWS_MIN > 1, "decode has no tiles");
static void launches_of_bucket(struct ops_stream *s)
{
    struct attention_setup setup = s->attention;
    struct attention_limits most;
    struct attention_header plan;

    setup.rows_max = s->bucket->rows;
    setup.seqs_max = s->bucket->rows;
    most = attention_plan_limits(&setup, s->pages_max);
    plan = (struct attention_header){ .n_items = most.n_items,
                                      .n_combines = most.n_combines,
                                      .queries_max = attention_queries_max(&setup) };
    s->n_launches = attention_launches(s->launches, &s->attention, &plan);
}

/* The driver has no memory for it: the step is computed without, and so are all that follow. */
static void forget_graph(struct ops_stream *s)
{
    log_warning("decode steps of %u rows are recorded no more: no memory for their graph",
                s->bucket->rows);
    device_graph_free(s->device, &s->bucket->graph);
    s->bucket->is_refused = true;
}

/* ---- the step ---- */

bool cuda_begin(struct ops_stream *s, const struct batch *b, struct ops_step *step)
{
    assert(b->n_rows > 0 && b->n_rows <= s->setup.rows_max && b->n_seqs <= s->setup.seqs_max &&
           b->n_logits <= s->setup.logits_max);
    s->batch = b;
    s->counts.steps++;
    s->output = (struct step_output){ 0 };
    cuda_draws_begin(s);
    s->bucket = bucket_of(s, b);
    s->step = (struct ops_step){ b->n_rows, b->n_logits };
    if (s->bucket) {
        s->step = (struct ops_step){ s->bucket->rows, s->bucket->rows };
        s->bucket->n_seen++;
    }
    *step = s->step;
    if (s->exchange)
        exchange_use_nccl(s->exchange, s->may_use_nccl && !s->bucket);
    send_block(s);
    if (!s->bucket || !s->bucket->graph.exec) {
        turn(s);
        return true;
    }
    if (!device_graph_launch(&s->stream, &s->bucket->graph) && device_forgive(s->device)) {
        forget_graph(s);
        turn(s);
        return true;
    }
    s->output = s->bucket->output;
    s->counts.replayed++;
    return false;
}

bool cuda_finish(struct ops_stream *s, struct err *e)
{
    cuda_fetch_logits(s);
    if (!device_stream_finish(&s->stream, s->limit_ns, e))
        return false;
    if (s->failed.code != ERR_NONE) {
        *e = s->failed;
        return false;
    }
    if (s->exchange && !exchange_check(s->exchange, e))
        return false;
    cuda_hand_over(s);
    return true;
}

/* ---- recording ---- */

/* CUDA_BUCKETS: none. */
static int find_due(const struct ops_stream *s, bool is_idle)
{
    uint32_t n_seen = is_idle ? CUDA_GRAPH_AFTER : CUDA_GRAPH_AFTER_BUSY;
    int i = 0;

    while (i < CUDA_BUCKETS &&
           (s->buckets[i].graph.exec || s->buckets[i].is_refused || s->buckets[i].n_seen < n_seen))
        i++;
    return i;
}

bool cuda_record_is_due(const struct ops_stream *s, bool is_idle)
{
    return find_due(s, is_idle) < CUDA_BUCKETS;
}

/* A step of no batch in particular. */
static void set_step(struct ops_stream *s, struct ops_step step)
{
    s->step = step;
    s->recorded = (struct batch){ .n_rows = step.n_rows,
                                  .n_logits = step.n_logits,
                                  .logit_rows = block_u32(s, s->block.logit_rows) };
    s->batch = &s->recorded;
    if (s->exchange)
        exchange_use_nccl(s->exchange, false);
}

static void set_recorded(struct ops_stream *s, struct cuda_bucket *k)
{
    s->bucket = k;
    set_step(s, (struct ops_step){ k->rows, k->rows });
    launches_of_bucket(s);
}

bool cuda_record_begin(struct ops_stream *s, bool is_idle, const struct batch **b,
                       struct ops_step *step)
{
    int due = find_due(s, is_idle);

    if (due == CUDA_BUCKETS)
        return false;
    set_recorded(s, &s->buckets[due]);
    if (!device_capture_begin(&s->stream)) {
        s->bucket->is_refused = true;
        return false;
    }
    turn(s);
    *b = s->batch;
    *step = s->step;
    return true;
}

void cuda_record_end(struct ops_stream *s)
{
    struct step_output output = s->output;
    struct cuda_bucket *k = s->bucket;
    struct err why;

    s->output = (struct step_output){ 0 }; /* nothing was computed */

    if (!device_capture_end(&s->stream, &k->graph, &why)) {
        k->is_refused = true;
        log_warning("decode steps of %u rows are not recorded: %s", k->rows, why.msg);
        return;
    }
    k->output = output;
    s->counts.recorded++;
}

/* ---- rehearsing ---- */

/* Rows of the i-th step: on both sides of each number at which another kernel takes over.  Up to 8 they go to gemv.cu, by
 * one or by eight; then products and their kernels change behind powers of two, and mixtures of experts somewhere between. */
static uint32_t rehearsed_rows(const struct ops_stream *s, uint32_t i)
{
    static_assert(CUDA_GEMV_ROWS == 8 && CUDA_INT8_ROWS == 64, "the first and the last such power");
    uint64_t rows = i < 2 ? i + 1 : ((uint64_t)CUDA_GEMV_ROWS << (i - 2)) + 1;

    return rows < s->setup.rows_max ? (uint32_t)rows : s->setup.rows_max;
}

/* One of each: with a single row as decode steps have them, with more as prompts do. */
static void launches_of_rehearsal(struct ops_stream *s)
{
    struct attention_header plan = { .n_items = 1,
                                     .n_combines = 1,
                                     .queries_max = s->step.n_rows > 1
                                                        ? ATTENTION_QUERIES_MAX
                                                        : attention_queries_max(&s->attention) };

    plan.n_tiles = attention_plan_limits(&s->attention, s->pages_max).n_tiles > 0;
    s->n_launches = attention_launches(s->launches, &s->attention, &plan);
}

/* What no op of a step launches: cuda_draw(), cuda_hidden(). */
static bool load_others(struct ops_stream *s, struct err *e)
{
    return (!s->can_draw || device_kernel_load(device_kernel(s->device, "sampling"), e)) &&
           device_kernel_load(device_kernel(s->device, "rmsnorm"), e);
}

bool cuda_rehearse_begin(struct ops_stream *s, uint32_t i, const struct batch **b,
                         struct ops_step *step)
{
    uint32_t rows = rehearsed_rows(s, i);

    if (i == 0)
        s->rehearsed_ns = clock_mono_ns();
    if (i > 0 && rows == rehearsed_rows(s, i - 1)) {
        log_info("kernels=%u load_ms=%llu", device_kernels_loaded(s->device),
                 (unsigned long long)((clock_mono_ns() - s->rehearsed_ns) / NS_PER_MS));
        return false;
    }
    s->bucket = NULL;
    set_step(s, (struct ops_step){ rows, rows < s->setup.logits_max ? rows : s->setup.logits_max });
    launches_of_rehearsal(s);
    device_rehearse_begin(s->device);
    turn(s);
    *b = s->batch;
    *step = s->step;
    return true;
}

bool cuda_rehearse_end(struct ops_stream *s, struct err *e)
{
    device_rehearse_end(s->device);
    s->output = (struct step_output){ 0 }; /* nothing was computed */
    if (!device_fault(s->device))
        return load_others(s, e);
    device_fault_err(s->device, e);
    device_forgive(s->device); /* want of memory is told, and no kernel went wrong */
    return false;
}
