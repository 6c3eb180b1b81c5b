/* engine.c - see engine.h. */
#include "gpu-worker/cuda/verify/engine.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/cuda/verify/child.h"
#include "gpu-worker/sampler.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"

static void must(const struct engine *g, bool ok, const struct err *e)
{
    if (!ok)
        child_fail(g->sock, "%s", e->msg);
}

static void set_number(struct engine *g, const char *name, uint32_t n)
{
    struct err e = { 0 };
    char text[16];

    snprintf(text, sizeof text, "%u", n);
    must(g, config_set(&g->config, name, text, "gpu-verify", &e), &e);
}

static void configure(struct engine *g, const struct engine_setup *how)
{
    struct err e = { 0 };

    config_init(&g->config);
    must(g,
         config_set(&g->config, "model", how->model, "gpu-verify", &e) &&
             config_set(&g->config, "device", how->device, "gpu-verify", &e) &&
             config_set(&g->config, "deterministic", how->deterministic ? "on" : "off",
                        "gpu-verify", &e),
         &e);
    set_number(g, "max_num_batched_tokens", how->rows_max);
    set_number(g, "max_num_seqs", how->seqs_max);
    must(g, runtime_inspect(&g->config, &g->info, &g->plan, &e), &e);
}

static void make_segments(struct engine *g)
{
    struct kvpool_shape shape = { .n_pages = g->plan.kv_pages,
                                  .page_tokens = g->plan.kv_page_tokens,
                                  .n_layers = g->plan.n_layers,
                                  .n_kv_heads = g->plan.n_kv_heads,
                                  .head_dim = g->plan.head_dim,
                                  .dtype = (enum dtype)g->plan.kv_dtype,
                                  .on_device = g->plan.on_device };
    struct err e = { 0 };

    must(g,
         segment_create(&g->weights, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "verify-weights",
                        g->plan.weights_shard_bytes, 1, &e) &&
             segment_create(&g->group, SEGMENT_GROUP, GROUP_VERSION, "verify-group",
                            g->plan.group_bytes, 1, &e) &&
             kvpool_create(&g->pool, &shape, 1, &e),
         &e);
}

static void start_runtime(struct engine *g)
{
    struct runtime_boot boot = {
        .config = &g->config, .tp_size = 1, .epoch = 1, .pool = &g->pool, .road = &g->road
    };
    struct err e = { 0 };
    bool loaded;

    g->road.sock = -1;
    boot.weights_fd = fcntl(g->weights.fd, F_DUPFD_CLOEXEC, 0);
    boot.group_fd = fcntl(g->group.fd, F_DUPFD_CLOEXEC, 0);
    g->runtime = runtime_open(&boot, &loaded, &e);
    must(g, g->runtime != NULL, &e);
}

void engine_open(struct engine *g, int sock, const struct engine_setup *how)
{
    *g = (struct engine){ .sock = sock };
    configure(g, how);
    make_segments(g);
    start_runtime(g);
    g->pages = mem_alloc(g->plan.kv_pages * sizeof *g->pages);
    for (uint32_t i = 0; i < g->plan.kv_pages; i++)
        g->pages[i] = i;
    g->tokens = mem_zalloc(how->rows_max, sizeof *g->tokens);
    for (uint32_t i = 0; i < how->rows_max; i++)
        g->tokens[i] = (int32_t)((uint64_t)i * 7919 % g->info.vocab_size);
    g->logits = mem_zalloc((size_t)how->seqs_max * g->info.vocab_size, sizeof *g->logits);
}

void engine_close(struct engine *g)
{
    runtime_close(g->runtime);
    chunk_road_close(&g->road);
    segment_close(&g->weights);
    segment_close(&g->group);
    kvpool_close(&g->pool);
    free(g->pages);
    free(g->tokens);
    free(g->logits);
}

static uint32_t pages_for(const struct engine *g, uint32_t n_tokens)
{
    return (n_tokens + g->plan.kv_page_tokens - 1) / g->plan.kv_page_tokens;
}

bool engine_fits(const struct engine *g, uint32_t n_seqs, uint32_t n_tokens)
{
    return n_tokens <= g->info.max_model_len &&
           (uint64_t)n_seqs * pages_for(g, n_tokens) <= g->plan.kv_pages;
}

static double step(struct engine *g, uint32_t n_seqs, uint32_t n_rows, uint32_t start,
                   uint32_t n_tokens, const struct sampler_rows *draws)
{
    struct batch_seq *seqs = mem_zalloc(n_seqs, sizeof *seqs);
    uint32_t *logit_rows = mem_zalloc(n_seqs, sizeof *logit_rows);
    struct batch b = { n_seqs * n_rows, g->tokens, n_seqs, seqs, n_seqs, logit_rows, false };
    uint32_t n_pages = pages_for(g, n_tokens);
    struct err e = { 0 };
    uint64_t begin_ns;

    for (uint32_t i = 0; i < n_seqs; i++) {
        seqs[i] = (struct batch_seq){ i * n_rows, n_rows, start, n_pages,
                                      g->pages + (size_t)i * n_pages };
        logit_rows[i] = (i + 1) * n_rows - 1;
    }
    begin_ns = clock_mono_ns();
    must(g, runtime_forward(g->runtime, &b, draws, g->logits, &e), &e);
    free(seqs);
    free(logit_rows);
    return (double)(clock_mono_ns() - begin_ns) / (double)NS_PER_S;
}

double engine_step(struct engine *g, uint32_t n_seqs, uint32_t n_rows, uint32_t start,
                   uint32_t n_tokens)
{
    return step(g, n_seqs, n_rows, start, n_tokens, NULL);
}

int32_t engine_draw(struct engine *g, uint32_t start, uint32_t n_tokens)
{
    Llmd__Sampling greedy = LLMD__SAMPLING__INIT;
    struct sampler_row row = { .in = { .sampling = &greedy, .tokens = g->tokens, .n_prompt = 1 } };

    step(g, 1, 1, start, n_tokens, &(struct sampler_rows){ &row, 1 });
    return row.is_drawn && row.result == SAMPLER_OK ? row.out.token : -1;
}

void engine_rest(struct engine *g)
{
    bool did = true;
    struct err e = { 0 };

    while (did)
        must(g, runtime_rest(g->runtime, &did, &e), &e);
}

uint32_t engine_wrong_logits(const struct engine *g, uint32_t n_seqs)
{
    size_t n = (size_t)n_seqs * g->info.vocab_size;
    uint32_t wrong = 0;

    for (size_t i = 0; i < n; i++)
        wrong += !isfinite(g->logits[i]);
    return wrong;
}
