/* recovery.c - a new worker takes over what its dead predecessor left in the ledger.
 *
 * One scan, nothing to undo (ledger_layout.h).  LIVE entries are queued again in their old order: prompt
 * and generated tokens are prefilled, and the draw continues at position n_generated, so the bytes are
 * those of an undisturbed run.  DONE ones wait for the RESYNC of their gateway.
 *
 * Who is to blame (design rule 6).  A death counts against the sequences of the step it happened in,
 * until they make a token again: as a crash when the worker died of a fault (fault.h), as a kill
 * otherwise.  Two crashes, or so many kills that chance is out of the question (a step that hangs or eats
 * all memory is ended by SIGKILL), make a suspect.  A death that found one suspect running ends it with
 * an error.  When it found several, ending them all would punish the innocent: the scheduler runs
 * suspects one at a time until each has made a token, so that the next death finds exactly the guilty
 * one. */
#include <stdlib.h>

#include "common/log.h"
#include "common/mem.h"
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

static bool take_over(struct engine *g, uint32_t index, bool is_guilty)
{
    struct sequence *q = &g->table.sequences[index];
    struct ledger_entry *entry = ledger_entry(g->boot.ledger, index);
    struct err e;

    if (!sequence_load(q, g->boot.ledger, index, g->limits.context_max, &e)) {
        log_error("sequence=%llx %s, dropping it: its gateway submits it again",
                  (unsigned long long)entry->sequence_id, e.msg);
        atomic_store_explicit(&entry->state, LEDGER_FREE, memory_order_release);
        return false;
    }
    q->resync_due = true;
    q->suspect = q->state == SEQUENCE_WAITING && is_suspect(entry);
    /* TODO(adoption): keep the pages entry->pages lists, as far as they are committed, instead of
     * computing them again; comes with the recovery issue. */
    atomic_store_explicit(&entry->n_pages, 0, memory_order_relaxed);
    engine_add(g, q);
    if (q->suspect && is_guilty) {
        log_error("sequence=%llx was running at crashes=%u kills=%u, ending it",
                  (unsigned long long)q->id, entry->crashes, entry->kills);
        engine_end(g, q, LLMD__FINISH__FINISH_ERROR,
                   entry->crashes >= CRASHES_MAX
                       ? "this request was running at two crashes of the worker"
                       : "this request was running each time the worker was killed, five times");
    }
    return true;
}

void engine_recover(struct engine *g)
{
    const struct ledger *l = g->boot.ledger;
    struct found *found = mem_zalloc(l->hdr->n_entries, sizeof *found);
    uint32_t n = find_entries(l, found), n_suspects = count_deaths(l, found, n), n_taken = 0;
    uint32_t n_freed = kvpool_reclaim(g->boot.pool, g->boot.group, g->boot.epoch, NULL, NULL);

    for (uint32_t i = 0; i < n; i++)
        n_taken += take_over(g, found[i].index, n_suspects == 1 && found[i].was_running);
    free(found);
    stat_add(engine_stats(g), STAT_sequences_recovered, n_taken);
    log_info("group=%u epoch=%u recovered sequences=%u suspects=%u pages_freed=%u", g->boot.group,
             g->boot.epoch, n_taken, n_suspects, n_freed);
}
