/* recovery.c - a new worker takes over what its dead predecessor left in the ledger.
 *
 * One scan, nothing to undo (ledger_layout.h).  LIVE entries go on in their old order: with the KV pages they
 * list where these are good (adoption.h), and prefilled from there where not; the draw continues at position
 * n_generated, so the bytes are those of an undisturbed run.  DONE ones wait for the RESYNC of their gateway.
 *
 * Who is to blame (design rule 6).  A death counts against the sequences of the step it happened in,
 * until they make a token again: as a crash when the worker died of a fault (fault.h), as a kill
 * otherwise.  Two crashes, or so many kills that chance is out of the question (a step that hangs or eats
 * all memory is ended by SIGKILL), make a suspect.  A death that found one suspect running ends it with
 * an error.  When it found several, ending them all would punish the innocent: the scheduler runs
 * suspects one at a time until each has made a token, so that the next death finds exactly the guilty
 * one. */
#include <stdio.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/adoption.h"
#include "gpu-worker/engine_state.h"

enum { CRASHES_MAX = 2, KILLS_MAX = 5 };

struct found {
    uint64_t accepted_ns;
    uint32_t index;
    bool was_running;
};

static int compare_found(const void *a, const void *b)
{
    const struct found *x = a, *y = b;

    if (x->accepted_ns != y->accepted_ns)
        return x->accepted_ns < y->accepted_ns ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static uint32_t find_entries(const struct ledger *l, struct found *found)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->hdr->n_entries; i++) {
        struct ledger_entry *entry = ledger_entry(l, i);
        uint32_t state = atomic_load_explicit(&entry->state, memory_order_acquire);
        if (state == LEDGER_LIVE || state == LEDGER_DONE)
            found[n++] = (struct found){ .accepted_ns = entry->accepted_ns, .index = i };
    }
    qsort(found, n, sizeof *found, compare_found);
    return n;
}

static bool is_suspect(const struct ledger_entry *entry)
{
    return entry->crashes >= CRASHES_MAX || entry->kills >= KILLS_MAX;
}

/* Count this death against those it found running; how many of them are suspects now. */
static uint32_t count_deaths(const struct ledger *l, struct found *found, uint32_t n)
{
    uint32_t n_suspects = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct ledger_entry *entry = ledger_entry(l, found[i].index);
        uint32_t ran =
            atomic_exchange_explicit(&entry->running, LEDGER_RESTS, memory_order_relaxed);
        if (ran == LEDGER_RESTS ||
            atomic_load_explicit(&entry->state, memory_order_relaxed) != LEDGER_LIVE)
            continue;
        found[i].was_running = true;
        if (ran == LEDGER_FAULTED)
            entry->crashes++;
        else
            entry->kills++;
        n_suspects += is_suspect(entry);
    }
    return n_suspects;
}

/* Make the sequence of an entry; one that does not hold together is dropped. */
static bool load(struct engine *g, struct found *f)
{
    struct sequence *q = &g->table.sequences[f->index];
    struct ledger_entry *entry = ledger_entry(g->boot.ledger, f->index);
    struct err e;

    if (!sequence_load(q, g->boot.ledger, f->index, g->limits.context_max, &e)) {
        log_error("sequence=%llx %s, dropping it: its gateway submits it again",
                  (unsigned long long)entry->sequence_id, e.msg);
        atomic_store_explicit(&entry->state, LEDGER_FREE, memory_order_release);
        return false;
    }
    q->resync_due = true;
    q->suspect = q->state == SEQUENCE_WAITING && is_suspect(entry);
    return true;
}

/* A suspect's KV may be what it died of: it is computed again. */
static bool may_adopt(const struct engine *g, const struct sequence *q, uint32_t n)
{
    return q->state == SEQUENCE_WAITING && !q->suspect && n < g->scheduler.running_max &&
           atomic_load_explicit(&q->entry->n_pages, memory_order_relaxed) > 0;
}

static bool kv_is_ours(const struct engine *g)
{
    struct hash128 identity = runtime_kv_place(g->boot.runtime);
    const uint64_t *kept = g->boot.ledger->hdr->kv_identity;

    return kept[0] == identity.low && kept[1] == identity.high;
}

/* KV pages of the sequences that were running, and those kept to be found again; what else dead epochs
 * left is freed. */
static void adopt_pages(struct engine *g, const struct found *found, uint32_t n,
                        struct adoption *adopted)
{
    struct sequence **with_pages = mem_zalloc(n, sizeof *with_pages);
    bool is_ours = kv_is_ours(g);
    uint32_t n_with = 0;

    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = &g->table.sequences[found[i].index];
        if (is_ours && may_adopt(g, q, n_with))
            with_pages[n_with++] = q;
        else
            atomic_store_explicit(&q->entry->n_pages, 0, memory_order_release);
    }
    if (!is_ours)
        log_info("the KV pages there are of other weights or kernels, computing them again");
    adoption_run(&g->cache, g->boot.runtime, with_pages, n_with, is_ours && g->cache.keeps_pages,
                 adopted);
    free(with_pages);
    stat_add(engine_stats(g), STAT_kv_pages_adopted, adopted->n_adopted);
    stat_add(engine_stats(g), STAT_kv_pages_moved, adopted->n_moved);
    stat_add(engine_stats(g), STAT_kv_pages_corrupt, adopted->n_corrupt);
    if (adopted->n_corrupt > 0)
        log_error("kv_pages_corrupt=%u, computing them and those behind them again",
                  adopted->n_corrupt);
}

static void end_guilty(struct engine *g, struct sequence *q)
{
    const struct ledger_entry *entry = q->entry;
    struct ledger_suspect s = { .sequence_id = q->id,
                                .when_ns = clock_mono_ns(),
                                .crashes = entry->crashes,
                                .kills = entry->kills,
                                .n_prompt = q->n_prompt,
                                .n_generated = q->n_generated };

    snprintf(s.error, sizeof s.error, "%s",
             s.crashes >= CRASHES_MAX
                 ? "this request was running at two crashes of the worker"
                 : "this request was running each time the worker was killed, five times");
    log_request(LOG_ERROR, q->request->request_id,
                "sequence=%llx was running at crashes=%u kills=%u, ending it",
                (unsigned long long)q->id, s.crashes, s.kills);
    ledger_add_suspect(g->boot.ledger, &s);
    stat_add(engine_stats(g), STAT_sequences_poisoned, 1);
    engine_end(g, q, LLMD__FINISH__FINISH_ERROR, s.error);
}

void engine_recover(struct engine *g)
{
    const struct ledger *l = g->boot.ledger;
    struct found *found = mem_zalloc(l->hdr->n_entries, sizeof *found);
    uint32_t n_found = find_entries(l, found), n_suspects = count_deaths(l, found, n_found), n = 0;
    struct adoption adopted;

    for (uint32_t i = 0; i < n_found; i++)
        if (load(g, &found[i]))
            found[n++] = found[i];
    fault_point("worker.recover");
    adopt_pages(g, found, n, &adopted);
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = &g->table.sequences[found[i].index];
        engine_add(g, q);
        if (q->suspect && n_suspects == 1 && found[i].was_running)
            end_guilty(g, q);
        fault_point("worker.recover");
    }
    free(found);
    stat_add(engine_stats(g), STAT_sequences_recovered, n);
    log_info("group=%u epoch=%u recovered sequences=%u suspects=%u pages_adopted=%u "
             "pages_moved=%u pages_cached=%u pages_corrupt=%u pages_freed=%u",
             g->boot.group, g->boot.epoch, n, n_suspects, adopted.n_adopted, adopted.n_moved,
             adopted.n_cached, adopted.n_corrupt, adopted.n_freed);
}
