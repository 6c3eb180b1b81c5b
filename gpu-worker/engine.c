/* engine.c - one turn of the loop, and how sequences begin and end. */
#include "gpu-worker/engine.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/log.h"
#include "common/mem.h"
#include "gpu-worker/engine_state.h"
#include "gpu-worker/fault.h"

#define LINGER_NS        NS_PER_S /* for the last acknowledgements of a drain */
#define SWEEP_NS         (5 * NS_PER_S)
#define UNCLAIMED_S      60 /* past request_timeout_s nobody comes for a finished sequence */
#define AVERAGE_OF_STEPS 8
#define PAGES_POLL_NS    (10 * NS_PER_MS) /* while all pages that are wanted are in quarantine */
#define MOVING_POLL_NS   NS_PER_MS        /* while copies to or from the host tier are under way */
#define DRAFTED_MAX      31               /* steps with drafts, between two without */

static bool check_boot(const struct engine_boot *b, const struct model_info *info, struct err *e)
{
    const struct ledger_hdr *l = b->ledger->hdr;
    const struct kvpool_hdr *p = b->pool->hdr;

    if (b->group >= b->n_groups || p->n_pages < b->n_groups)
        return err_set(e, ERR_PROTO, 0, "group %u of %u with %u KV pages", b->group, b->n_groups,
                       p->n_pages);
    if (l->tokens_max > (uint64_t)l->pages_max * p->page_tokens)
        return err_set(e, ERR_PROTO, 0,
                       "ledger: %u pages of %u tokens are too few for its %u tokens", l->pages_max,
                       p->page_tokens, l->tokens_max);
    if (info->vocab_size == 0 || p->n_layers != info->n_layers ||
        p->n_kv_heads != info->n_kv_heads || p->head_dim != info->head_dim)
        return err_set(e, ERR_PROTO, 0,
                       "kvpool: pages of %u layers, %u heads of %u, the model has %u, %u of %u",
                       p->n_layers, p->n_kv_heads, p->head_dim, info->n_layers, info->n_kv_heads,
                       info->head_dim);
    return true;
}

static uint32_t min_u32(uint64_t a, uint64_t b)
{
    return (uint32_t)(a < b ? a : b);
}

static void set_limits(struct engine *g)
{
    const struct ledger_hdr *l = g->boot.ledger->hdr;
    uint64_t context = min_u32(l->tokens_max, g->info->max_model_len);

    g->limits =
        (struct submit_limits){ .vocab_size = g->info->vocab_size,
                                .context_max = min_u32(context, kvcache_tokens_max(&g->cache)),
                                .top_max = l->top_max,
                                .embedding_max = l->embedding_max,
                                .hidden_size = g->info->hidden_size,
                                .request_bytes_max = l->request_bytes_max };
}

static void start_delivery(struct engine *g)
{
    Llmd__Hello hello = LLMD__HELLO__INIT;

    hello.group = g->boot.group;
    hello.epoch = g->boot.epoch;
    hello.model = (char *)(uintptr_t)g->boot.config->model;
    hello.max_model_len = g->limits.context_max;
    hello.vocab_size = g->info->vocab_size;
    hello.sequences_max = g->table.cap;
    hello.kv_pages = g->cache.pages_max;
    hello.kv_page_tokens = g->boot.pool->hdr->page_tokens;
    hello.pid = (uint32_t)getpid();
    hello.logprobs_max = g->limits.top_max;
    delivery_init(&g->delivery, g->boot.link, g->boot.ledger, &g->table, &hello);
}

static void start_step(struct engine *g)
{
    uint64_t threads = g->boot.config->threads;
    long n_cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (threads == 0)
        threads = n_cores > 0 ? (uint64_t)n_cores : 1;
    step_init(&g->step, g->boot.runtime,
              &(struct step_limits){ .seqs_max = g->scheduler.running_max,
                                     .rows_max = g->scheduler.max_num_batched_tokens,
                                     .top_max = g->limits.top_max,
                                     .sequences_max = g->table.cap,
                                     .n_threads = (uint32_t)threads });
}

/* From here on the pages that the ledger lists are of this runtime's making, and so are the times. */
static void claim_ledger(struct engine *g)
{
    struct hash128 identity = runtime_kv_place(g->boot.runtime);
    struct ledger_hdr *l = g->boot.ledger->hdr;

    if (l->kv_identity[0] != identity.low || l->kv_identity[1] != identity.high)
        for (uint32_t i = 0; i < LEDGER_STEP_SIZES; i++)
            atomic_store_explicit(&l->step_ns[i], 0, memory_order_relaxed);
    l->kv_identity[0] = identity.low;
    l->kv_identity[1] = identity.high;
    g->history.took_ns = l->step_ns;
}

static void start_cache(struct engine *g)
{
    const struct engine_boot *b = &g->boot;

    kvcache_init(&g->cache, &(struct kvcache_setup){
                                .pool = b->pool,
                                .stats = engine_stats(g),
                                .host_tier = b->host_tier,
                                .tier_data = b->tier_data,
                                .identity = runtime_kv_identity(b->runtime),
                                .group = b->group,
                                .n_groups = b->n_groups,
                                .epoch = b->epoch,
                                .keeps_pages = strcmp(b->config->prefix_cache, "on") == 0 });
}

struct engine *engine_new(const struct engine_boot *boot, struct err *e)
{
    const struct model_info *info = runtime_info(boot->runtime);
    struct engine *g;

    if (!check_boot(boot, info, e))
        return NULL;
    g = mem_zalloc(1, sizeof *g);
    g->boot = *boot;
    g->info = info;
    g->next_deadline_ns = UINT64_MAX;
    stats_zero_gauges(engine_stats(g));
    sequence_table_init(&g->table, boot->ledger->hdr->n_entries);
    start_cache(g);
    set_limits(g);
    scheduler_init(&g->scheduler,
                   &(struct scheduler_limits){ .max_num_seqs = (uint32_t)boot->config->max_num_seqs,
                                               .max_num_batched_tokens =
                                                   (uint32_t)boot->config->max_num_batched_tokens,
                                               .sequences_max = g->table.cap },
                   &g->cache);
    step_pace_init(&g->pace, g->scheduler.running_max);
    start_step(g);
    start_delivery(g);
    if (boot->epoch > 1)
        engine_recover(g);
    claim_ledger(g);
    return g;
}

void engine_free(struct engine *g)
{
    if (!g)
        return;
    delivery_fini(&g->delivery);
    step_fini(&g->step);
    step_pace_fini(&g->pace);
    scheduler_fini(&g->scheduler);
    sequence_table_fini(&g->table);
    kvcache_fini(&g->cache);
    free(g);
}

void engine_add(struct engine *g, struct sequence *q)
{
    uint64_t deadline =
        q->request->deadline_ns > 0 ? (uint64_t)q->request->deadline_ns : UINT64_MAX;

    q->order = g->next_order++;
    sequence_table_add(&g->table, q);
    if (q->state == SEQUENCE_DONE) /* recovered */
        return;
    q->finish_due = sequence_check_finish(q, g->info->eos, g->info->n_eos);
    scheduler_add(&g->scheduler, q);
    if (deadline < g->next_deadline_ns)
        g->next_deadline_ns = deadline;
    if (q->finish_due != LLMD__FINISH__FINISH_NONE && !sequence_owes_prompt(q))
        engine_end(g, q, q->finish_due, NULL);
}

static enum stat_id counter_of(Llmd__Finish finish)
{
    switch (finish) {
    case LLMD__FINISH__FINISH_EOS:
    case LLMD__FINISH__FINISH_STOP_TOKEN:
    case LLMD__FINISH__FINISH_LENGTH:
    case LLMD__FINISH__FINISH_EMBEDDED:
        return STAT_sequences_finished;
    case LLMD__FINISH__FINISH_CANCELLED:
    case LLMD__FINISH__FINISH_DEADLINE:
        return STAT_sequences_cancelled;
    default:
        return STAT_sequences_failed;
    }
}

static void tell_end(const struct sequence *q, Llmd__Finish finish)
{
    static const char *const names[] = {
        [LLMD__FINISH__FINISH_EOS] = "eos",
        [LLMD__FINISH__FINISH_STOP_TOKEN] = "stop_token",
        [LLMD__FINISH__FINISH_LENGTH] = "length",
        [LLMD__FINISH__FINISH_CANCELLED] = "cancelled",
        [LLMD__FINISH__FINISH_DEADLINE] = "deadline",
        [LLMD__FINISH__FINISH_ERROR] = "error",
        [LLMD__FINISH__FINISH_EMBEDDED] = "embedded",
    };

    if (q->request->request_id[0])
        log_request(LOG_INFO, q->request->request_id,
                    "sequence=%llx finish=%s prompt_tokens=%u tokens=%u", (unsigned long long)q->id,
                    names[finish], q->n_prompt, q->n_generated);
}

void engine_end(struct engine *g, struct sequence *q, Llmd__Finish finish, const char *error)
{
    assert(sequence_is_live(q));
    scheduler_remove(&g->scheduler, q);
    sequence_finish(q, finish, error);
    stat_add(engine_stats(g), counter_of(finish), 1); /* at once: nobody counts it after us */
    tell_end(q, finish);
    delivery_notice(&g->delivery, q);
}

void engine_forget(struct engine *g, struct sequence *q)
{
    struct ledger_entry *entry = q->entry;

    if (sequence_is_live(q)) {
        scheduler_remove(&g->scheduler, q);
        stat_add(engine_stats(g), STAT_sequences_cancelled, 1);
    }
    delivery_forget(&g->delivery, q);
    atomic_store_explicit(&entry->state, LEDGER_FREE, memory_order_release);
    sequence_table_remove(&g->table, q);
}

/* End what is past its deadline; *next becomes the earliest of the others.  Backwards, because ending
 * one takes it out of the list. */
static void end_late(struct engine *g, struct sequence **list, uint32_t n, uint64_t now)
{
    for (uint32_t i = n; i-- > 0;) {
        struct sequence *q = list[i];
        uint64_t deadline = (uint64_t)q->request->deadline_ns;
        if (q->request->deadline_ns <= 0)
            continue;
        if (deadline <= now)
            engine_end(g, q, LLMD__FINISH__FINISH_DEADLINE, NULL);
        else if (deadline < g->next_deadline_ns)
            g->next_deadline_ns = deadline;
    }
}

static void watch_deadlines(struct engine *g, uint64_t now)
{
    struct scheduler *s = &g->scheduler;

    if (now < g->next_deadline_ns)
        return;
    g->next_deadline_ns = UINT64_MAX;
    end_late(g, s->running, s->n_running, now);
    end_late(g, s->waiting, s->n_waiting, now);
}

/* A finished sequence whose gateway thread never came back (a new gateway may have fewer threads) is
 * forgotten when its request has long timed out. */
static void sweep_unclaimed(struct engine *g, uint64_t now)
{
    uint64_t age_max = (g->boot.config->request_timeout_s + UNCLAIMED_S) * NS_PER_S;

    if (now < g->next_sweep_ns)
        return;
    g->next_sweep_ns = now + SWEEP_NS;
    for (uint32_t i = 0; i < g->table.cap && g->table.n_used > 0; i++) {
        struct sequence *q = &g->table.sequences[i];
        if (q->state == SEQUENCE_DONE && now > q->entry->accepted_ns + age_max)
            engine_forget(g, q);
    }
}

static void watch_drain(struct engine *g, uint64_t now)
{
    struct scheduler *s = &g->scheduler;

    if (!g->is_draining || g->drain_ended || now < g->drain_deadline_ns)
        return;
    g->drain_ended = true;
    g->linger_until_ns = now + LINGER_NS;
    while (s->n_running > 0)
        engine_end(g, s->running[s->n_running - 1], LLMD__FINISH__FINISH_ERROR,
                   "the server was shut down before this request had finished");
    while (s->n_waiting > 0)
        engine_end(g, s->waiting[s->n_waiting - 1], LLMD__FINISH__FINISH_ERROR,
                   "the server was shut down before this request had begun");
}

/* Prompt tokens among the rows of a plan, before any of them is committed. */
static uint64_t count_prompt_rows(const struct plan *plan)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < plan->n_items; i++) {
        const struct sequence *q = plan->items[i].sequence;
        uint32_t begin = q->n_computed, end = begin + plan->items[i].n_rows;
        if (begin < q->n_prompt)
            n += (end < q->n_prompt ? end : q->n_prompt) - begin;
    }
    return n;
}

static void note_scheduled(struct engine *g, const struct plan *plan, uint64_t now)
{
    for (uint32_t i = 0; i < plan->n_items; i++) {
        struct ledger_entry *entry = plan->items[i].sequence->entry;
        if (entry->scheduled_ns == 0) {
            entry->scheduled_ns = now;
            hist_observe(engine_stats(g), HIST_queue_seconds,
                         (double)(now - entry->accepted_ns) / (double)NS_PER_S);
        }
        atomic_store_explicit(&entry->running, LEDGER_RUNS, memory_order_relaxed);
    }
}

/* The limit first: who sees a step that has started sees the limit of this one. */
static void note_step_begin(struct engine *g, uint64_t work, uint64_t now)
{
    struct board_slot *slot = g->boot.slot;
    uint64_t limit = step_history_limit_ns(&g->history, work, g->boot.config);

    atomic_store_explicit(&slot->step_limit_ns, limit, memory_order_relaxed);
    atomic_store_explicit(&slot->step_started_ns, now, memory_order_release);
}

static void note_step_end(struct engine *g, uint64_t work, uint64_t took)
{
    struct board_slot *slot = g->boot.slot;
    uint64_t average = atomic_load_explicit(&slot->step_average_ns, memory_order_relaxed);

    average = average == 0 ? took : average - average / AVERAGE_OF_STEPS + took / AVERAGE_OF_STEPS;
    atomic_store_explicit(&slot->step_average_ns, average, memory_order_relaxed);
    /* who sees no step any more must not find the heartbeat from before it */
    atomic_store_explicit(&slot->heartbeat_ns, clock_mono_ns(), memory_order_relaxed);
    atomic_store_explicit(&slot->step_started_ns, 0, memory_order_release);
    atomic_store_explicit(&slot->step_limit_ns, 0, memory_order_release);
    step_history_learn(&g->history, work, took);
}

/* It did not happen: nobody waits for it, and nobody is to blame. */
static void note_no_step(struct engine *g, const struct plan *plan)
{
    atomic_store_explicit(&g->boot.slot->step_started_ns, 0, memory_order_release);
    for (uint32_t i = 0; i < plan->n_items; i++)
        atomic_store_explicit(&plan->items[i].sequence->entry->running, LEDGER_RESTS,
                              memory_order_relaxed);
}

/* Others have taken the device's memory, and it was waited for in vain.  Who came last gives way: so each failed step leaves
 * less to do, and what is left may find enough. */
static void turn_away_last(struct engine *g, const struct err *why)
{
    struct sequence *q = g->scheduler.running[g->scheduler.n_running - 1];
    char text[sizeof why->msg + 64];

    snprintf(text, sizeof text, "the GPU has no memory left to go on with this request: %s",
             why->msg);
    log_warning("%s, ending one of %u sequences", text, g->scheduler.n_running);
    engine_end(g, q, LLMD__FINISH__FINISH_ERROR, text);
}

static bool forward(struct engine *g, const struct plan *plan, struct err *e)
{
    uint64_t start = clock_mono_ns(), work = step_work(plan);

    note_scheduled(g, plan, start);
    note_step_begin(g, work, start);
    fault_point("worker.forward");
    if (!step_forward(&g->step, plan, e))
        return false;
    note_step_end(g, work, clock_mono_ns() - start);
    return true;
}

/* A chunk of the weights was corrupt until now, and who knows since when: what is kept for prompts to
 * come may be of it. */
static void watch_weights(struct engine *g)
{
    uint32_t n = (uint32_t)stat_get(engine_stats(g), STAT_weights_chunks_reloaded);
    struct ledger_hdr *l = g->boot.ledger->hdr;

    if (n != l->n_chunks_reloaded)
        kvcache_distrust(&g->cache);
    l->n_chunks_reloaded = n;
}

/* Now and then a step without drafts tells what they add. */
static bool may_draft(const struct engine *g)
{
    return strcmp(g->boot.config->speculate, "ngram") == 0 && g->n_drafted < DRAFTED_MAX;
}

static const struct plan *plan_step(struct engine *g)
{
    const struct step_pace_load load = scheduler_load(&g->scheduler);
    struct plan_limits limits = {
        .prompt_rows = step_pace_rows(&g->pace, &load, g->boot.config->prefill_step_percent),
        .draft_rows = may_draft(g) ? UINT32_MAX : 0,
    };
    const struct plan *plan = scheduler_plan(&g->scheduler, &limits);
    struct stats *stats = engine_stats(g);

    g->n_drafted = plan->n_drafts > 0 ? g->n_drafted + 1 : 0;
    stat_add(stats, STAT_sequences_preempted, plan->n_preempted);
    stat_add(stats, STAT_prefix_cache_queries, plan->n_looked_up);
    stat_add(stats, STAT_prefix_cache_hits, plan->n_found);
    return plan;
}

static void note_step(struct engine *g, const struct plan *plan, uint64_t took_ns)
{
    struct stats *stats = engine_stats(g);

    if (plan->n_drafts > 0)
        step_pace_learn_drafts(&g->pace, plan->n_streams, plan->n_drafts, took_ns);
    else
        step_pace_learn(&g->pace, plan->n_streams, plan->n_rows - plan->n_streams, took_ns);
    stat_add(stats, STAT_steps, 1);
    hist_observe(stats, HIST_step_tokens, plan->n_rows);
    hist_observe(stats, HIST_step_seconds, (double)took_ns / (double)NS_PER_S);
}

static bool run_step(struct engine *g, struct err *e)
{
    uint64_t start = clock_mono_ns();
    const struct plan *plan;

    watch_weights(g);
    plan = plan_step(g);
    g->waits_for_pages = plan->n_items == 0 && g->scheduler.n_running + g->scheduler.n_waiting > 0;
    if (plan->n_items == 0)
        return true;
    if (!forward(g, plan, e)) {
        if (runtime_forgive(g->boot.runtime, e)) {
            note_no_step(g, plan);
            turn_away_last(g, e);
            return true;
        }
        if (e->code == ERR_DEVICE) /* a peer that is gone may have been killed from outside */
            fault_note(g->boot.ledger);
        return err_wrap(e, "forward pass of %u rows", plan->n_rows);
    }
    step_sample(&g->step);
    stat_add(engine_stats(g), STAT_prompt_tokens, count_prompt_rows(plan));
    if (!engine_commit(g, plan, e)) {
        fault_note(g->boot.ledger);
        return false;
    }
    note_step(g, plan, clock_mono_ns() - start);
    return true;
}

static void update_gauges(struct engine *g)
{
    struct stats *s = engine_stats(g);

    stat_set(s, STAT_sequences_running, g->scheduler.n_running);
    stat_set(s, STAT_sequences_waiting, g->scheduler.n_waiting);
    stat_set(s, STAT_ledger_entries_used, g->table.n_used);
}

/* The link's descriptor tells only after it was emptied again. */
static void publish(struct engine *g)
{
    if (delivery_publish(&g->delivery, clock_mono_ns()))
        g->is_busy = true;
}

/* Nobody waits: time for what makes later steps faster. */
static bool rest(struct engine *g, struct err *e)
{
    g->is_resting = false;
    if (g->is_busy || g->is_draining || g->scheduler.n_running + g->scheduler.n_waiting > 0)
        return true;
    return runtime_rest(g->boot.runtime, &g->is_resting, e);
}

/* Published before the step too: HELLO, and what a RESYNC has just asked for, must not wait for a step that
 * may be long. */
bool engine_turn(struct engine *g, struct err *e)
{
    uint64_t now = clock_mono_ns();

    atomic_store_explicit(&g->boot.slot->heartbeat_ns, now, memory_order_relaxed);
    g->is_busy = engine_take_in(g);
    watch_deadlines(g, now);
    watch_drain(g, now);
    sweep_unclaimed(g, now);
    publish(g);
    if (!run_step(g, e))
        return false;
    fault_point("worker.publish");
    publish(g);
    update_gauges(g);
    return rest(g, e);
}

uint64_t engine_wake_ns(const struct engine *g)
{
    uint64_t wake = delivery_wake_ns(&g->delivery);

    if (g->waits_for_pages && !g->is_busy)
        return clock_mono_ns() + (kvcache_is_moving(&g->cache) ? MOVING_POLL_NS : PAGES_POLL_NS);
    if (g->is_busy || g->is_resting || g->scheduler.n_running + g->scheduler.n_waiting > 0)
        return 0;
    if (g->is_draining && !g->drain_ended && g->drain_deadline_ns < wake)
        wake = g->drain_deadline_ns;
    if (g->drain_ended && g->linger_until_ns < wake)
        wake = g->linger_until_ns;
    if (kvcache_is_moving(&g->cache) && wake > clock_mono_ns() + MOVING_POLL_NS)
        wake = clock_mono_ns() + MOVING_POLL_NS;
    return wake;
}

void engine_drain(struct engine *g, uint64_t deadline_ns)
{
    if (!g->is_draining) {
        log_info("group=%u draining sequences=%u", g->boot.group, g->table.n_used);
        g->is_draining = true;
        g->is_busy = true;
        g->drain_deadline_ns = deadline_ns;
        g->delivery.hello.draining = true;
        delivery_hello_all(&g->delivery);
    }
    if (deadline_ns < g->drain_deadline_ns)
        g->drain_deadline_ns = deadline_ns;
}

bool engine_is_drained(const struct engine *g)
{
    if (!g->is_draining)
        return false;
    return g->table.n_used == 0 || (g->drain_ended && clock_mono_ns() >= g->linger_until_ns);
}
