/* scheduler.c - the three passes over two ordered lists (scheduler.h). */
#include "gpu-worker/scheduler.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/mem.h"
#include "gpu-worker/batch.h"

void scheduler_init(struct scheduler *s, const struct scheduler_limits *limits,
                    struct kvcache *cache)
{
    uint32_t running_max = limits->max_num_seqs;

    assert(limits->max_num_seqs > 0 && limits->max_num_batched_tokens > 0);
    if (running_max > limits->max_num_batched_tokens)
        running_max = limits->max_num_batched_tokens;
    *s = (struct scheduler){ .cache = cache,
                             .running_max = running_max,
                             .max_num_batched_tokens = limits->max_num_batched_tokens,
                             .sequences_max = limits->sequences_max };
    s->running = mem_zalloc(running_max, sizeof(struct sequence *));
    s->reading = mem_zalloc(running_max, sizeof(struct sequence *));
    s->waiting = mem_zalloc(limits->sequences_max, sizeof(struct sequence *));
    s->plan.items = mem_zalloc(running_max, sizeof *s->plan.items);
}

void scheduler_fini(struct scheduler *s)
{
    free(s->running);
    free(s->waiting);
    free(s->reading);
    free(s->plan.items);
    *s = (struct scheduler){ 0 };
}

/* Index of the first element that does not go before q. */
static uint32_t find_place(struct sequence *const *list, uint32_t n, const struct sequence *q)
{
    uint32_t low = 0, high = n;

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (sequence_goes_before(list[middle], q))
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void insert(struct sequence **list, uint32_t *n, struct sequence *q)
{
    uint32_t at = find_place(list, *n, q);

    memmove(list + at + 1, list + at, (*n - at) * sizeof *list);
    list[at] = q;
    ++*n;
}

static void take_out(struct sequence **list, uint32_t *n, const struct sequence *q)
{
    uint32_t at = find_place(list, *n, q);

    assert(at < *n && list[at] == q);
    memmove(list + at, list + at + 1, (*n - at - 1) * sizeof *list);
    --*n;
}

void scheduler_add(struct scheduler *s, struct sequence *q)
{
    assert(q->state == SEQUENCE_WAITING && s->n_waiting < s->sequences_max);
    s->n_suspects += q->suspect;
    if (q->n_pages == 0) {
        assert(q->n_computed == 0);
        insert(s->waiting, &s->n_waiting, q);
        return;
    }
    assert(!q->suspect && s->n_running < s->running_max);
    q->state = SEQUENCE_RUNNING;
    insert(s->running, &s->n_running, q);
}

void scheduler_acquit(struct scheduler *s, struct sequence *q)
{
    s->n_suspects -= q->suspect;
    q->suspect = false;
}

void scheduler_remove(struct scheduler *s, struct sequence *q)
{
    scheduler_acquit(s, q);
    if (q->state == SEQUENCE_RUNNING)
        take_out(s->running, &s->n_running, q);
    else
        take_out(s->waiting, &s->n_waiting, q);
    kvcache_release(s->cache, q);
}

static void preempt_last(struct scheduler *s)
{
    struct sequence *q = s->running[--s->n_running];

    kvcache_release(s->cache, q);
    q->state = SEQUENCE_WAITING;
    insert(s->waiting, &s->n_waiting, q);
    s->plan.n_preempted++;
}

/* Pages for all tokens of q, taken from the end of the running set when need be.  False: q itself was
 * the last one, and waits now. */
static bool grow(struct scheduler *s, struct sequence *q)
{
    while (!kvcache_grow(s->cache, q, sequence_n_tokens(q))) {
        bool was_last = s->running[s->n_running - 1] == q;
        preempt_last(s);
        if (was_last)
            return false;
    }
    return true;
}

static void grow_running(struct scheduler *s)
{
    for (uint32_t i = 0; i < s->n_running; i++)
        if (!grow(s, s->running[i]))
            break;
}

/* Whether q could run if the last n_victims of the running set gave way.  One page for each that stays
 * is left free, so that the next growth does not preempt q at once.  When some give way, pages that they
 * share with others, or with q, are left out of account: it may then seem not to fit, and waits. */
static bool would_fit(const struct scheduler *s, const struct sequence *q,
                      const struct kvcache_match *found, uint32_t n_victims)
{
    uint32_t n_stay = s->n_running - n_victims;
    uint64_t n_free = kvcache_n_free(s->cache);
    uint64_t n_wanted = (uint64_t)kvcache_pages_for(s->cache, sequence_n_tokens(q)) + n_stay;

    if (n_victims == 0)
        n_wanted -= found->n_in_use;
    for (uint32_t i = n_stay; i < s->n_running; i++)
        n_free += kvcache_n_exclusive(s->cache, s->running[i]);
    return n_stay < s->running_max && n_free >= n_wanted;
}

/* Make room for q by preempting the fewest of strictly lower priority; false when that is not enough. */
static bool make_room(struct scheduler *s, const struct sequence *q,
                      const struct kvcache_match *found)
{
    uint32_t n_victims = 0;

    while (!would_fit(s, q, found, n_victims)) {
        if (n_victims == s->n_running ||
            sequence_priority(s->running[s->n_running - 1 - n_victims]) <= sequence_priority(q))
            return false;
        n_victims++;
    }
    while (n_victims-- > 0)
        preempt_last(s);
    return true;
}

static void note_found(struct scheduler *s, struct sequence *q)
{
    s->plan.n_looked_up += sequence_n_tokens(q);
    s->plan.n_found += q->n_computed;
    if (q->entry->scheduled_ns == 0)
        q->entry->n_cached = q->n_computed < q->n_prompt ? q->n_computed : q->n_prompt;
}

/* From here on it has a place, and pages for all its tokens.  What a suspect died of may be in the
 * pages: it computes its own. */
static void start(struct scheduler *s, struct sequence *q)
{
    bool ok;

    if (!q->suspect)
        kvcache_attach(s->cache, q);
    ok = kvcache_grow(s->cache, q, sequence_n_tokens(q));
    assert(ok);
    take_out(s->waiting, &s->n_waiting, q);
    q->state = SEQUENCE_RUNNING;
    q->held_by = NULL;
    q->n_brought = 0;
    q->wishes_until_ns = 0;
    insert(s->running, &s->n_running, q);
    note_found(s, q);
}

/* How many tokens two sequences have in common at their beginning, of those that q may find. */
static uint32_t tokens_in_common(const struct sequence *q, const struct sequence *other)
{
    uint32_t n = sequence_n_findable(q), n_other = sequence_n_tokens(other), i = 0;

    if (n_other < n)
        n = n_other;
    if (q->request->cache_salt != other->request->cache_salt)
        return 0;
    while (i < n && q->tokens[i] == other->tokens[i])
        i++;
    return i;
}

static bool is_held(const struct scheduler *s, const struct sequence *q)
{
    return kvcache_is_coming(s->cache, q) ||
           (q->held_by && q->held_by->state == SEQUENCE_RUNNING &&
            q->held_by->order == q->held_order && q->held_by->n_computed < q->held_until);
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t rows_due(const struct sequence *q)
{
    return sequence_n_tokens(q) - q->n_computed;
}

/* How far q must let r compute until it finds what both begin with, its last page in part.  0 = that is less than a
 * page more than it finds now. */
static uint32_t worth_waiting_for(const struct scheduler *s, const struct sequence *q,
                                  const struct sequence *r, const struct kvcache_match *found)
{
    uint32_t page_tokens = s->cache->pool->hdr->page_tokens, until = tokens_in_common(q, r);

    if (until % page_tokens < KVCACHE_TAIL_MIN)
        until -= until % page_tokens;
    return until >= found->n_tokens + page_tokens && until > r->n_computed ? until : 0;
}

/* Hold q when one that runs is about to compute more of its beginning than is found now. */
static bool hold(const struct scheduler *s, struct sequence *q, const struct kvcache_match *found)
{
    q->held_by = NULL;
    for (uint32_t i = 0; s->cache->keeps_pages && i < s->n_running && !q->held_by; i++) {
        const struct sequence *r = s->running[i];
        uint32_t until = 0;
        if (rows_due(r) > 1 && sequence_goes_before(r, q))
            until = worth_waiting_for(s, q, r, found);
        if (until == 0)
            continue;
        q->held_by = r;
        q->held_order = r->order;
        q->held_until = until;
    }
    return q->held_by != NULL;
}

/* Whether nobody behind q in the queue can get a place either. */
static bool is_full(const struct scheduler *s, const struct sequence *q)
{
    return s->n_running == s->running_max &&
           sequence_priority(s->running[s->n_running - 1]) <= sequence_priority(q);
}

static void admit_waiting(struct scheduler *s)
{
    struct kvcache_match found;
    uint32_t i = 0;

    while (i < s->n_waiting && !is_full(s, s->waiting[i])) {
        struct sequence *q = s->waiting[i];
        if (!is_held(s, q)) {
            kvcache_match(s->cache, q, &found);
            if (!hold(s, q, &found)) {
                if (!make_room(s, q, &found))
                    break;
                if (!kvcache_bring(s->cache, q)) {
                    start(s, q);
                    continue;
                }
            }
        }
        i++;
    }
}

/* Rows that q may have when they may measure n_measures tokens of its prompt. */
static uint32_t rows_allowed(const struct sequence *q, uint32_t n_measures)
{
    if (sequence_n_unmeasured(q) <= n_measures)
        return rows_due(q);
    assert(q->n_computed < q->n_measured);
    return q->n_measured - 1 - q->n_computed + n_measures;
}

/* How many tokens of its prompt q's next rows measure. */
static uint32_t measures_in(const struct sequence *q, uint32_t n_rows)
{
    uint32_t n_unmeasured = sequence_n_unmeasured(q), end = q->n_computed + n_rows;

    if (n_unmeasured == 0 || end < q->n_measured)
        return 0;
    return least(end - (q->n_measured - 1), n_unmeasured);
}

static void add_item(struct plan *p, struct sequence *q, uint32_t n_rows)
{
    bool generates = q->finish_due == LLMD__FINISH__FINISH_NONE;

    p->items[p->n_items++] = (struct plan_item){ .sequence = q,
                                                 .n_rows = n_rows,
                                                 .wants_logits = generates && n_rows == rows_due(q),
                                                 .n_measures = measures_in(q, n_rows) };
    p->n_rows += n_rows;
}

static void add_streams(struct scheduler *s)
{
    struct plan *p = &s->plan;

    for (uint32_t i = 0; i < s->n_running; i++)
        if (rows_due(s->running[i]) == 1)
            add_item(p, s->running[i], 1);
    p->n_streams = p->n_items;
}

/* At most `max` drafts for a stream: none behind its end, and none that would need the page of another. */
static uint32_t draft(struct scheduler *s, struct sequence *q, uint32_t max)
{
    uint32_t n_tokens = sequence_n_tokens(q), page_tokens = s->cache->pool->hdr->page_tokens;
    uint32_t n = least(speculation_wants(&q->speculation, q->n_generated), max);

    if (q->finish_due != LLMD__FINISH__FINISH_NONE)
        return 0;
    n = least(n, q->generated_max - q->n_generated - 1);
    if (n == 0)
        return 0;
    n = speculation_propose(q->tokens, n_tokens, n);
    if (n > 0 && !kvcache_grow(s->cache, q, n_tokens + n))
        n = least(n, q->n_pages * page_tokens - n_tokens);
    return n;
}

static void add_drafts(struct scheduler *s, uint32_t draft_rows)
{
    struct plan *p = &s->plan;
    uint32_t left = least(draft_rows, s->max_num_batched_tokens - p->n_rows);

    left = least(left, BATCH_EXTRA_LOGITS);
    for (uint32_t i = 0; i < p->n_items && left > 0; i++) {
        uint32_t n_behind = p->n_items - i, share = (left + n_behind - 1) / n_behind;
        uint32_t n = draft(s, p->items[i].sequence, share);
        p->items[i].n_drafts = n;
        p->items[i].n_rows += n;
        p->n_rows += n;
        p->n_drafts += n;
        left -= n;
    }
}

static int compare_rest(const void *a, const void *b)
{
    const struct sequence *x = *(struct sequence *const *)a, *y = *(struct sequence *const *)b;

    if (sequence_priority(x) != sequence_priority(y))
        return sequence_priority(x) < sequence_priority(y) ? -1 : 1;
    if (rows_due(x) != rows_due(y))
        return rows_due(x) < rows_due(y) ? -1 : 1;
    return sequence_goes_before(x, y) ? -1 : 1;
}

/* A quarter of `left` rows; where they are fewer than four, one in every so many steps. */
static uint32_t rows_for_first(struct scheduler *s, uint32_t left)
{
    uint32_t n = s->quarters_owed + left;

    if (left >= 4)
        return (left + 3) / 4;
    s->quarters_owed = n % 4;
    return n / 4;
}

/* `left` rows for those that are being read; a quarter of them, and what they may measure, is kept for the
 * first. */
static void share_prompt_rows(struct scheduler *s, uint32_t left)
{
    const struct sequence *first;
    uint32_t n = 0, kept, n_measures = BATCH_EXTRA_LOGITS;

    for (uint32_t i = 0; i < s->n_running; i++)
        if (rows_due(s->running[i]) > 1)
            s->reading[n++] = s->running[i];
    assert(n > 0);
    first = s->reading[0];
    kept = least(rows_allowed(first, n_measures), rows_for_first(s, left));
    left -= kept;
    n_measures -= measures_in(first, kept);
    qsort(s->reading, n, sizeof(struct sequence *), compare_rest);
    for (uint32_t i = 0; i < n; i++) {
        struct sequence *q = s->reading[i];
        uint32_t has = q == first ? kept : 0, measured = measures_in(q, has);
        uint32_t rows = least(rows_allowed(q, n_measures + measured), has + left);
        left -= rows - has;
        n_measures -= measures_in(q, rows) - measured;
        if (rows > 0)
            add_item(&s->plan, q, rows);
    }
}

static void share_rows(struct scheduler *s, const struct plan_limits *limits)
{
    uint32_t left;

    add_streams(s);
    left = s->max_num_batched_tokens - s->plan.n_rows;
    if (s->plan.n_streams > 0)
        left = least(left, limits->prompt_rows);
    if (s->plan.n_streams == s->n_running)
        add_drafts(s, limits->draft_rows);
    else if (left > 0)
        share_prompt_rows(s, left);
}

static struct sequence *first_suspect(const struct scheduler *s)
{
    struct sequence *found = NULL;

    for (uint32_t i = 0; i < s->n_running && !found; i++)
        if (s->running[i]->suspect)
            found = s->running[i];
    for (uint32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i]->suspect && (!found || sequence_goes_before(s->waiting[i], found)))
            return s->waiting[i];
    return found;
}

/* A step for q and nobody else, at the cost of whoever has its place or its pages. */
static void plan_alone(struct scheduler *s, struct sequence *q)
{
    const struct kvcache_match nothing = { 0 };

    if (q->state == SEQUENCE_WAITING) {
        while (s->n_running > 0 && !would_fit(s, q, &nothing, 0))
            preempt_last(s);
        if (!would_fit(s, q, &nothing, 0))
            return; /* pages are in quarantine */
        start(s, q);
    }
    add_item(&s->plan, q, least(rows_allowed(q, BATCH_EXTRA_LOGITS), s->max_num_batched_tokens));
    s->plan.n_streams = s->plan.n_rows == 1;
}

struct step_pace_load scheduler_load(const struct scheduler *s)
{
    struct step_pace_load load = { .n_prompts =
                                       least(s->n_waiting, s->running_max - s->n_running) };

    for (uint32_t i = 0; i < s->n_running; i++) {
        if (rows_due(s->running[i]) > 1) {
            load.n_prompts++;
            continue;
        }
        load.n_streams++;
        load.n_back += s->running[i]->n_computed;
    }
    return load;
}

const struct plan *scheduler_plan(struct scheduler *s, const struct plan_limits *limits)
{
    struct sequence *suspect = s->n_suspects > 0 ? first_suspect(s) : NULL;

    s->plan.n_items = s->plan.n_rows = s->plan.n_streams = s->plan.n_preempted = 0;
    s->plan.n_drafts = 0;
    s->plan.n_looked_up = s->plan.n_found = 0;
    kvcache_begin_plan(s->cache);
    if (suspect) {
        plan_alone(s, suspect);
    } else {
        grow_running(s);
        admit_waiting(s);
        share_rows(s, limits);
    }
    assert(s->plan.n_items > 0 || s->n_running + s->n_waiting == 0 || s->cache->n_quarantined > 0 ||
           s->cache->coming.n > 0 || s->cache->is_wishing);
    return &s->plan;
}
