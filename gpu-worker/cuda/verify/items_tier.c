/* items_tier.c - G17: what copies of KV pages to host memory and back cost those who wait for tokens meanwhile.
 *
 * Some streams are watched.  Beside them others ask one long prompt after another, more of them than the pool of pages
 * holds: first new ones each time, whose pages are saved as room is wanted, then a few of these in turn, which come back.
 * The same without a host tier, where the latter are computed again. */
#include <stdlib.h>

#include "bench/shapes.h"
#include "common/clock.h"
#include "common/mem.h"
#include "gpu-worker/cuda/verify/lab.h"
#include "gpu-worker/cuda/verify/model.h"

enum {
    OTHERS_MAX = 4,
    OTHERS_ANSWER = 2,
    OTHERS_SEED = 1000, /* far from those that are watched */
    READ_MS = 2,
};

struct sizes {
    struct client_question watched;
    uint32_t n_others, n_prompt; /* who ask at a time, and how much each */
    uint32_t n_turn;             /* prompts that are asked again: more than fit the pool */
    uint32_t page_tokens, model_len;
    uint64_t kv_bytes, host_bytes;
};

/* Pages of 1 MiB: a thousand in the pool, 94 a prompt, 45 for each stream that is watched; of the dry run 24, 5, 6. */
static const struct sizes real = { .watched = { .n_prompt = 200, .n_answer = 512, .seed = 1 },
                                   .n_others = 4,
                                   .n_prompt = 1500,
                                   .n_turn = 16,
                                   .page_tokens = 16,
                                   .kv_bytes = 1ull << 30,
                                   .host_bytes = 4ull << 30 };
static const struct sizes dry = { .watched = { .n_prompt = 12, .n_answer = 10, .seed = 1 },
                                  .n_others = 1,
                                  .n_prompt = 21,
                                  .n_turn = 6,
                                  .page_tokens = 4,
                                  .model_len = 64,
                                  .kv_bytes = 24 * 512,
                                  .host_bytes = 60 * 512 };

/* What one load came to. */
struct load {
    uint32_t n_asked, n_cut;
    double between_ms; /* from one token of a watched stream to the next */
    double seconds;
    double saved, restored; /* pages */
};

/* ---- the load ---- */

struct crowd {
    struct lab *lab;
    const struct sizes *sizes;
    uint32_t first, n_turn; /* prompt number i is first + i % n_turn */
    struct load *load;
    struct client clients[LAB_STREAMS_MAX + OTHERS_MAX]; /* those that are watched first */
};

static void close_one(struct crowd *c, struct client *one)
{
    c->load->n_cut += !one->is_whole;
    client_close(one);
}

static void ask_next(struct crowd *c, struct client *one)
{
    struct client_question q = { .n_prompt = c->sizes->n_prompt,
                                 .n_answer = OTHERS_ANSWER,
                                 .n_ids = c->lab->question.n_ids,
                                 .seed = OTHERS_SEED + c->first + c->load->n_asked % c->n_turn };

    c->load->n_asked++;
    client_start(one, c->lab->service.port, &q);
}

static bool is_watched(const struct crowd *c)
{
    for (uint32_t i = 0; i < c->lab->n_streams; i++)
        if (c->clients[i].fd >= 0)
            return true;
    return false;
}

/* For as long as somebody is watched, and a whole turn at least. */
static void run_crowd(struct crowd *c)
{
    uint32_t n_watched = c->lab->n_streams, n = n_watched + c->sizes->n_others;
    uint64_t end_ns = clock_mono_ns() + LAB_ROUND_S * NS_PER_S;
    bool goes_on = true, is_over = false;

    lab_ask(c->lab, c->clients);
    for (uint32_t i = n_watched; i < n; i++)
        ask_next(c, &c->clients[i]);
    while (!is_over && clock_mono_ns() < end_ns) {
        is_over = clients_read(c->clients, n, clock_mono_ns() + READ_MS * NS_PER_MS);
        goes_on = goes_on && (is_watched(c) || c->load->n_asked < c->sizes->n_turn);
        for (uint32_t i = n_watched; i < n && goes_on; i++)
            if (c->clients[i].fd < 0) {
                close_one(c, &c->clients[i]);
                ask_next(c, &c->clients[i]);
                is_over = false;
            }
    }
    for (uint32_t i = n_watched; i < n; i++)
        close_one(c, &c->clients[i]);
}

static double between_tokens_ms(const struct crowd *c)
{
    double ms = 0;

    for (uint32_t i = 0; i < c->lab->n_streams; i++) {
        const struct client *one = &c->clients[i];
        c->load->n_cut += !one->is_whole;
        if (one->n_tokens > 1)
            ms += (double)(one->event_ns - one->first_ns) / (double)NS_PER_MS / (one->n_tokens - 1);
    }
    return ms / c->lab->n_streams;
}

static double pages(const struct lab *l, const char *name)
{
    double n = client_metric(l->service.port, name);

    return n > 0 ? n : 0;
}

static void run_load(struct lab *l, const struct sizes *s, uint32_t first, uint32_t n_turn,
                     struct load *out)
{
    struct crowd *c = mem_zalloc(1, sizeof *c);
    uint64_t begin_ns = clock_mono_ns();
    double saved = pages(l, "llmd_kv_pages_saved_total");
    double restored = pages(l, "llmd_kv_pages_restored_total");

    *out = (struct load){ 0 };
    c->lab = l;
    c->sizes = s;
    c->first = first;
    c->n_turn = n_turn;
    c->load = out;
    run_crowd(c);
    out->seconds = (double)(clock_mono_ns() - begin_ns) / (double)NS_PER_S;
    out->between_ms = between_tokens_ms(c);
    out->saved = pages(l, "llmd_kv_pages_saved_total") - saved;
    out->restored = pages(l, "llmd_kv_pages_restored_total") - restored;
    lab_hang_up(c->clients);
    free(c);
}

/* ---- the item ---- */

enum { FRESH, AGAIN, N_LOADS };

static bool run_service(const struct verify *v, const struct sizes *s, uint64_t host_bytes,
                        struct load loads[N_LOADS], struct item_report *r)
{
    struct service_setup how = lab_setup(v);
    uint32_t n_fresh;
    struct lab *l;

    how.kv_bytes = s->kv_bytes;
    how.host_bytes = host_bytes;
    how.has_prefixes = true;
    how.page_tokens = s->page_tokens;
    how.model_len = s->model_len;
    l = lab_open(v, &how, &s->watched, r);
    if (!l)
        return false;
    run_load(l, s, 0, UINT32_MAX, &loads[FRESH]);
    n_fresh = loads[FRESH].n_asked;
    run_load(l, s, n_fresh < s->n_turn ? 0 : n_fresh - s->n_turn, s->n_turn, &loads[AGAIN]);
    lab_close(l);
    return true;
}

/* Times of the dry run are the fake's. */
static void report_effect(const struct verify *v, const struct load *without,
                          const struct load *with, const char *which, struct item_report *r)
{
    double percent = (with->between_ms / without->between_ms - 1) * 100;

    report_number(r, without->between_ms, "ms", "%s: between tokens without host tier", which);
    report_number(r, with->between_ms, "ms", "%s: between tokens with it", which);
    if (v->is_dry_run)
        report_number(r, percent, "%", "%s: the host tier adds", which);
    else
        report_at_most(r, percent, 5, "%", "%s: the host tier adds", which);
    report_at_most(r, without->n_cut + with->n_cut, 0, "", "%s: answers cut", which);
}

static void report_pages(const struct verify *v, const struct sizes *s, double n, double seconds,
                         const char *what, struct item_report *r)
{
    double bytes = n * s->page_tokens * shape_kv_bytes(model_served_shape(v));

    report_at_least(r, n, 1, "", "pages %s", what);
    report_number(r, bytes / 1e9 / seconds, "GB/s", "pages %s: rate, as much as was asked for",
                  what);
}

void item_host_tier(const struct verify *v, struct item_report *r)
{
    const struct sizes *s = v->is_dry_run ? &dry : &real;
    struct load without[N_LOADS], with[N_LOADS];

    if (!run_service(v, s, 0, without, r) || !run_service(v, s, s->host_bytes, with, r))
        return;
    report_effect(v, &without[FRESH], &with[FRESH], "new prompts, saved", r);
    report_effect(v, &without[AGAIN], &with[AGAIN], "prompts again, restored", r);
    report_pages(v, s, with[FRESH].saved, with[FRESH].seconds, "saved", r);
    report_pages(v, s, with[AGAIN].restored, with[AGAIN].seconds, "restored", r);
}
