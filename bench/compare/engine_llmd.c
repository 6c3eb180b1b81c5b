/* engine_llmd.c - our engine, driven as a worker drives it: one rank, its segments, and runtime.h.
 *
 * What lies above runtime.h (scheduler, sampler, ledger) is not in a step here, as llama.cpp's server is not
 * in llama_decode().  Sequence i owns pages i * pages_a_seq and on; the lone one has its own. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/compare/engine.h"
#include "common/mem.h"
#include "gpu-worker/ops/ops.h"
#include "gpu-worker/runtime.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"

struct engine {
    struct config config;
    struct model_info info;
    Llmd__ModelPlan plan;
    struct segment weights, group;
    struct kvpool pool;
    struct runtime *rt;
    uint32_t *pages; /* 0, 1, 2, ...: [seqs_max, pages_a_seq], then the lone sequence's */
    uint32_t pages_a_seq, pages_alone, first_alone;
    float *logits; /* [seqs_max, vocab_size] */
    int32_t tokens[ENGINE_ROWS_MAX];
};

static bool set_number(struct config *c, const char *name, uint64_t n, struct err *e)
{
    char text[24];

    snprintf(text, sizeof text, "%llu", (unsigned long long)n);
    return config_set(c, name, text, "bench", e);
}

static bool configure(struct engine *g, const struct engine_options *o, struct err *e)
{
    struct config *c = &g->config;
    uint32_t longest = o->tokens_alone > o->tokens_a_seq ? o->tokens_alone : o->tokens_a_seq;

    config_init(c);
    return config_set(c, "model", o->model, "bench", e) &&
           (!o->quantize[0] || config_set(c, "quantize", o->quantize, "bench", e)) &&
           (!o->kv_dtype || config_set(c, "kv_cache_dtype", o->kv_dtype, "bench", e)) &&
           set_number(c, "threads", o->n_threads, e) &&
           set_number(c, "max_model_len", longest, e) &&
           set_number(c, "max_num_seqs", o->seqs_max + 1, e) &&
           set_number(c, "max_num_batched_tokens", ENGINE_ROWS_MAX, e) &&
           runtime_inspect(c, &g->info, &g->plan, e);
}

static bool make_segments(struct engine *g, uint32_t n_pages, struct err *e)
{
    struct kvpool_shape shape = { .n_pages = n_pages,
                                  .page_tokens = g->plan.kv_page_tokens,
                                  .n_layers = g->plan.n_layers,
                                  .n_kv_heads = g->plan.n_kv_heads,
                                  .head_dim = g->plan.head_dim,
                                  .dtype = (enum dtype)g->plan.kv_dtype };

    return segment_create(&g->weights, SEGMENT_WEIGHTS, WEIGHTS_VERSION, "bench-weights",
                          g->plan.weights_shard_bytes, 1, e) &&
           segment_create(&g->group, SEGMENT_GROUP, GROUP_VERSION, "bench-group",
                          g->plan.group_bytes, 1, e) &&
           kvpool_create(&g->pool, &shape, 1, e);
}

static bool start_runtime(struct engine *g, struct err *e)
{
    struct runtime_boot boot = { .config = &g->config, .tp_size = 1, .epoch = 1, .pool = &g->pool };
    bool loaded;

    boot.weights_fd = fcntl(g->weights.fd, F_DUPFD_CLOEXEC, 0);
    boot.group_fd = fcntl(g->group.fd, F_DUPFD_CLOEXEC, 0);
    g->rt = runtime_open(&boot, &loaded, e);
    return g->rt != NULL;
}

static void llmd_close(struct engine *g)
{
    if (!g)
        return;
    if (g->rt)
        runtime_close(g->rt);
    segment_close(&g->weights);
    segment_close(&g->group);
    kvpool_close(&g->pool);
    free(g->pages);
    free(g->logits);
    free(g);
}

static bool open_rank(struct engine *g, const struct engine_options *o, struct err *e)
{
    uint32_t n_pages;

    if (!configure(g, o, e))
        return false;
    g->pages_a_seq = (o->tokens_a_seq + g->plan.kv_page_tokens - 1) / g->plan.kv_page_tokens;
    g->pages_alone = (o->tokens_alone + g->plan.kv_page_tokens - 1) / g->plan.kv_page_tokens;
    g->first_alone = o->seqs_max * g->pages_a_seq;
    n_pages = g->first_alone + g->pages_alone;
    if (!make_segments(g, n_pages, e) || !start_runtime(g, e))
        return false;
    g->pages = mem_alloc(n_pages * sizeof *g->pages);
    for (uint32_t i = 0; i < n_pages; i++)
        g->pages[i] = i;
    g->logits = mem_alloc((size_t)o->seqs_max * g->info.vocab_size * sizeof *g->logits);
    return true;
}

static struct engine *llmd_open(const struct engine_options *o, struct engine_info *info,
                                struct err *e)
{
    struct engine *g = mem_zalloc(1, sizeof *g);

    if (!open_rank(g, o, e)) {
        llmd_close(g);
        return NULL;
    }
    snprintf(info->version, sizeof info->version, "llmd %s", LLMD_VERSION);
    snprintf(info->variant, sizeof info->variant, "%s, weights %s, KV %s",
             cpu_tier_name(cpu_tier_choose("auto")), g->info.weights_dtype,
             dtype_name(g->plan.kv_dtype));
    info->vocab_size = g->info.vocab_size;
    return g;
}

static void llmd_rewind(struct engine *g, uint32_t seq, uint32_t start)
{
    (void)g, (void)seq, (void)start; /* a step says itself where it starts */
}

static bool llmd_step(struct engine *g, const struct step_part *parts, uint32_t n_parts,
                      const float *logits[], struct err *e)
{
    struct batch_seq seqs[ENGINE_SEQS_MAX];
    uint32_t logit_rows[ENGINE_SEQS_MAX];
    struct batch b = { 0, g->tokens, n_parts, seqs, n_parts, logit_rows, false };

    for (uint32_t i = 0; i < n_parts; i++) {
        const struct step_part *p = &parts[i];
        bool alone = p->seq == SEQ_ALONE;
        memcpy(g->tokens + b.n_rows, p->tokens, p->n_rows * sizeof *p->tokens);
        seqs[i] =
            (struct batch_seq){ b.n_rows, p->n_rows, p->start,
                                alone ? g->pages_alone : g->pages_a_seq,
                                g->pages + (alone ? g->first_alone : p->seq * g->pages_a_seq) };
        b.n_rows += p->n_rows;
        logit_rows[i] = b.n_rows - 1;
        logits[i] = g->logits + (size_t)i * g->info.vocab_size;
    }
    return runtime_forward(g->rt, &b, NULL, g->logits, e);
}

const struct engine_class engine_llmd = { "llmd", llmd_open, llmd_close, llmd_rewind, llmd_step };
