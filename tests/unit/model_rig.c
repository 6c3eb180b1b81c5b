/* model_rig.c - see model_rig.h. */
#include "tests/unit/model_rig.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/mem.h"
#include "proto/group_layout.h"
#include "proto/weights_layout.h"
#include "tests/cuda/fake/fake_cuda.h"

static void must(bool ok, const struct err *e, const char *what)
{
    if (!ok)
        fail_msg("%s: %s", what, e->msg);
}

static void set_all(struct config *c, const char *const *settings)
{
    struct err e = { 0 };

    for (; settings && *settings; settings++) {
        char name[64];
        const char *equals = strchr(*settings, '=');
        snprintf(name, sizeof name, "%.*s", (int)(equals - *settings), *settings);
        must(config_set(c, name, equals + 1, "test", &e), &e, *settings);
    }
}

static void make_segments(struct rig *r)
{
    struct kvpool_shape shape = {
        .n_pages = r->plan.kv_pages,
        .page_tokens = r->plan.kv_page_tokens,
        .n_layers = r->plan.n_layers,
        .n_kv_heads = r->plan.n_kv_heads,
        .head_dim = r->plan.head_dim,
        .dtype = (enum dtype)r->plan.kv_dtype,
        .on_device = r->plan.on_device,
    };
    struct err e = { 0 };

    for (uint32_t i = 0; i < r->config.tp_size; i++)
        must(segment_create(&r->weights[i], SEGMENT_WEIGHTS, WEIGHTS_VERSION, "test-weights",
                            r->plan.weights_shard_bytes, 1, &e),
             &e, "weights");
    must(segment_create(&r->group, SEGMENT_GROUP, GROUP_VERSION, "test-group", r->plan.group_bytes,
                        1, &e),
         &e, "group");
    must(kvpool_create(&r->pool, &shape, 1, &e), &e, "kvpool");
}

static struct runtime *open_rank(struct rig *r, uint32_t rank, bool *loaded)
{
    struct runtime_boot boot = { .config = &r->config,
                                 .rank = rank,
                                 .tp_size = (uint32_t)r->config.tp_size,
                                 .epoch = r->epoch,
                                 .pool = &r->pool,
                                 .stats = &r->stats,
                                 .road = &r->roads[rank],
                                 .weights_fd = fcntl(r->weights[rank].fd, F_DUPFD_CLOEXEC, 0),
                                 .group_fd = fcntl(r->group.fd, F_DUPFD_CLOEXEC, 0) };
    struct err e = { 0 };
    struct runtime *rt = runtime_open(&boot, loaded, &e);

    if (!rt)
        fprintf(stderr, "rank %u: runtime_open: %s\n", rank, e.msg);
    return rt;
}

/* The ranks of a GPU group wait for each other while they open. */
static void *follow(void *arg)
{
    struct rig_follower *f = arg;
    struct runtime *rt = open_rank(f->rig, f->rank, &f->loaded);
    struct err e = { 0 };

    f->rig->ranks[f->rank] = rt;
    sem_post(&f->is_open);
    if (rt && !runtime_follow(rt, &e))
        fprintf(stderr, "follower: %s\n", e.msg);
    return NULL;
}

static int open_ranks(struct rig *r)
{
    bool loaded = false;
    int n_loaded;

    r->epoch++;
    for (uint32_t i = 1; i < r->config.tp_size; i++) {
        struct rig_follower *f = &r->followers[i];
        *f = (struct rig_follower){ .rig = r, .rank = i };
        sem_init(&f->is_open, 0, 0);
        assert_int_equal(pthread_create(&f->thread, NULL, follow, f), 0);
    }
    r->ranks[0] = open_rank(r, 0, &loaded);
    n_loaded = loaded;
    for (uint32_t i = 1; i < r->config.tp_size; i++) {
        sem_wait(&r->followers[i].is_open);
        n_loaded += r->followers[i].loaded;
    }
    for (uint32_t i = 0; i < r->config.tp_size; i++)
        assert_non_null(r->ranks[i]);
    return n_loaded;
}

void rig_close_ranks(struct rig *r)
{
    runtime_stop(r->ranks[0]);
    for (uint32_t i = 1; i < r->config.tp_size; i++) {
        pthread_join(r->followers[i].thread, NULL);
        sem_destroy(&r->followers[i].is_open);
    }
    for (uint32_t i = 0; i < r->config.tp_size; i++)
        runtime_close(r->ranks[i]);
}

void rig_open(struct rig *r, const char *dir, const char *const *settings)
{
    static const char *const suited[] = {
        "device=cpu", "kv_cache_bytes=8M",          "max_num_seqs=40",
        "threads=2",  "max_num_batched_tokens=512", NULL
    };
    struct err e = { 0 };

    memset(r, 0, sizeof *r);
    config_init(&r->config);
    set_all(&r->config, suited);
    set_all(&r->config, settings);
    must(config_set(&r->config, "model", dir, "test", &e), &e, "model");
    must(runtime_inspect(&r->config, &r->info, &r->plan, &e), &e, "runtime_inspect");
    make_segments(r);
    for (uint32_t i = 0; i < RIG_RANKS_MAX; i++)
        r->roads[i].sock = -1; /* there is no llmd */
    open_ranks(r);
    r->logits = mem_alloc(r->config.max_num_seqs * r->info.vocab_size * sizeof(float));
}

void rig_close_segments(struct rig *r)
{
    for (uint32_t i = 0; i < r->config.tp_size; i++)
        segment_close(&r->weights[i]);
    for (uint32_t i = 0; i < RIG_RANKS_MAX; i++)
        chunk_road_close(&r->roads[i]);
    segment_close(&r->group);
    kvpool_close(&r->pool);
    free(r->logits);
}

void rig_close(struct rig *r)
{
    rig_close_ranks(r);
    rig_close_segments(r);
}

int rig_restart(struct rig *r)
{
    rig_close_ranks(r);
    return open_ranks(r);
}

static void lease_for(struct rig *r, struct rig_seq *s, uint32_t n_tokens)
{
    while ((uint64_t)s->n_pages * r->plan.kv_page_tokens < n_tokens) {
        uint32_t page;
        r->cursor += 7; /* neighbours in the table are no neighbours in the pool */
        page = kvpool_lease(&r->pool, kvpool_lease_of(0, 1), &r->cursor);
        assert_true(page != KV_PAGE_NONE);
        assert_true(s->n_pages < sizeof s->pages / sizeof *s->pages);
        s->pages[s->n_pages++] = page;
    }
}

void rig_release(struct rig *r, struct rig_seq *s)
{
    for (uint32_t i = 0; i < s->n_pages; i++)
        kvpool_free(&r->pool, kvpool_lease_of(0, 1), s->pages[i]);
    memset(s, 0, sizeof *s);
}

/* Kernels that the fake driver has loaded so far, if there is one. */
static uint64_t kernels_loaded(void)
{
    struct fake_cuda_counts counts = { 0 };
    struct fake_cuda fake;

    if (fake_cuda_find(&fake))
        fake.counts(&counts);
    return counts.functions;
}

/* The step loads none: all are there since the start. */
static void forward(struct rig *r, const struct batch *b)
{
    uint64_t n_loaded = kernels_loaded();
    struct err e = { 0 };

    must(runtime_forward(r->ranks[0], b, NULL, r->logits, &e), &e, "runtime_forward");
    assert_int_equal(kernels_loaded(), n_loaded);
}

void rig_step_for(struct rig *r, struct rig_seq *const *seqs, const int32_t *const *tokens,
                  const uint32_t *n, uint32_t n_seqs, const struct rig_wanted *wanted)
{
    struct batch_seq *plan = mem_zalloc(n_seqs, sizeof *plan);
    int32_t *rows = mem_zalloc(r->config.max_num_batched_tokens, sizeof *rows);
    struct batch b = { .tokens = rows,
                       .n_seqs = n_seqs,
                       .seqs = plan,
                       .n_logits = wanted->n_logits,
                       .logit_rows = wanted->logit_rows,
                       .wants_hidden = wanted->hidden };

    for (uint32_t i = 0; i < n_seqs; i++) {
        struct rig_seq *s = seqs[i];
        lease_for(r, s, s->n_cached + n[i]);
        plan[i] = (struct batch_seq){ b.n_rows, n[i], s->n_cached, s->n_pages, s->pages };
        memcpy(rows + b.n_rows, tokens[i], n[i] * sizeof *rows);
        b.n_rows += n[i];
        s->n_cached += n[i];
    }
    forward(r, &b);
    free(plan);
    free(rows);
}

void rig_step(struct rig *r, struct rig_seq *const *seqs, const int32_t *const *tokens,
              const uint32_t *n, uint32_t n_seqs)
{
    uint32_t *last = mem_zalloc(n_seqs, sizeof *last);

    for (uint32_t i = 0; i < n_seqs; i++)
        last[i] = (i > 0 ? last[i - 1] + 1 : 0) + n[i] - 1;
    rig_step_for(r, seqs, tokens, n, n_seqs, &(struct rig_wanted){ last, n_seqs, false });
    free(last);
}

void rig_prefill(struct rig *r, struct rig_seq *s, const int32_t *tokens, uint32_t n,
                 uint32_t chunk)
{
    for (uint32_t at = 0; at < n;) {
        uint32_t now = n - at < chunk ? n - at : chunk;
        const int32_t *next = tokens + at;
        rig_step(r, &s, &next, &now, 1);
        at += now;
    }
}

int32_t rig_argmax(const struct rig *r, uint32_t i)
{
    const float *l = r->logits + (size_t)i * r->info.vocab_size;
    uint32_t best = 0;

    for (uint32_t t = 1; t < r->info.vocab_size; t++)
        if (l[t] > l[best])
            best = t;
    return (int32_t)best;
}
