/* upstream.c - routing, token dedupe, resubmission and resynchronisation.
 *
 * Three things may happen to a message: it arrives, it arrives twice, it is lost.  Tokens carry their
 * index, log probabilities of a prompt too, so the second is dropped; RESYNC after each HELLO says what is
 * held, so the third is repeated.
 * SUBMIT needs no memory of its own: a sequence on a group's list that the group does not know comes
 * back as FINISH_UNKNOWN, and is sent again with the tokens it already has. */
#include "gateway/upstream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/answer/sequence_list.h"
#include "proto/link.h"
#include "proto/sequence_id.h"

enum {
    HASH_BUCKETS = 1024,
    TICK_MS = 20,          /* while something waits */
    FULL_PAUSE_MS = 20,    /* a group that refused for lack of room is asked again after this */
    RESYNC_PAUSE_MS = 100, /* between two RESYNCs because of a gap in the indexes */
    RESUBMISSIONS_MAX = 8,
    FINISHED_SHARE = 4, /* finished sequences may fill one in so many entries of a ledger */
    IDS_BATCH = 256,    /* CANCEL and ACK carry at most so many ids */
};

struct id_list {
    uint64_t *ids;
    size_t n, cap;
};

struct group {
    struct link *link;
    bool said_hello;  /* at least once; it may be restarting */
    bool is_up;       /* by llmd's word; true until told otherwise */
    bool is_draining; /* by its own word */
    uint32_t epoch;
    uint64_t down_since_ns;
    uint64_t full_until_ns;
    uint64_t resynced_ns;
    bool needs_resync;
    struct sequence_list held;
    struct sequence_list finished; /* not yet acknowledged */
    uint32_t finished_max;
    struct id_list acks, cancels; /* to be sent */
};

struct upstream {
    struct upstream_config config;
    struct group *groups;
    struct sequence_list waiting;
    struct sequence *hash[HASH_BUCKETS];
    uint32_t n_sequences;
    uint32_t counter; /* of sequence ids */
};

/* ---- lists ---- */

static void ids_add(struct id_list *l, uint64_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->ids = mem_realloc(l->ids, l->cap * sizeof *l->ids);
    }
    l->ids[l->n++] = id;
}

static struct sequence **bucket(struct upstream *u, uint64_t id)
{
    return &u->hash[id % HASH_BUCKETS];
}

static struct sequence *find(struct upstream *u, uint64_t id)
{
    struct sequence *s = *bucket(u, id);

    while (s && s->id != id)
        s = s->hash_next;
    return s;
}

static void hash_remove(struct upstream *u, struct sequence *s)
{
    struct sequence **at = bucket(u, s->id);

    while (*at != s)
        at = &(*at)->hash_next;
    *at = s->hash_next;
    s->hash_next = NULL;
}

/* ---- life and death ---- */

struct upstream *upstream_new(const struct upstream_config *config, struct err *e)
{
    struct upstream *u = mem_zalloc(1, sizeof *u);

    assert(config->n_groups >= 1 && config->n_groups <= UPSTREAM_GROUPS_MAX);
    u->config = *config;
    u->config.instance = NULL;
    u->groups = mem_zalloc(config->n_groups, sizeof *u->groups);
    for (uint32_t g = 0; g < config->n_groups; g++) {
        u->groups[g].is_up = true;
        u->groups[g].link = link_connect(config->instance, g, 1 + config->thread, e);
        if (!u->groups[g].link) {
            upstream_free(u);
            return NULL;
        }
    }
    return u;
}

void upstream_free(struct upstream *u)
{
    if (!u)
        return;
    assert(u->n_sequences == 0);
    for (uint32_t g = 0; g < u->config.n_groups; g++) {
        link_close(u->groups[g].link);
        free(u->groups[g].acks.ids);
        free(u->groups[g].cancels.ids);
    }
    free(u->groups);
    free(u);
}

int upstream_fd(const struct upstream *u, uint32_t group)
{
    return link_fd(u->groups[group].link);
}

uint64_t upstream_draw_ids(struct upstream *u, uint32_t n)
{
    uint64_t first;

    if (u->counter > UINT32_MAX - n) /* ids of one request do not wrap */
        u->counter = 0;
    first = sequence_id_make(u->config.gateway_epoch, u->config.thread, u->counter + 1);
    u->counter += n;
    return first;
}

bool upstream_is_served(const struct upstream *u)
{
    for (uint32_t g = 0; g < u->config.n_groups; g++)
        if (u->groups[g].said_hello && u->groups[g].is_up && !u->groups[g].is_draining)
            return true;
    return false;
}

uint32_t upstream_n_sequences(const struct upstream *u)
{
    return u->n_sequences;
}

/* Take s off its list; it stays known by its id. */
static void detach(struct upstream *u, struct sequence *s)
{
    if (s->state == SEQUENCE_WAITING) {
        sequence_list_remove(&u->waiting, s);
        return;
    }
    assert(s->state == SEQUENCE_SUBMITTED || s->state == SEQUENCE_RUNNING);
    sequence_list_remove(&u->groups[s->group].held, s);
    atomic_fetch_sub_explicit(&u->config.load[s->group], 1, memory_order_relaxed);
}

static void end(struct upstream *u, struct sequence *s)
{
    detach(u, s);
    hash_remove(u, s);
    u->n_sequences--;
    s->state = SEQUENCE_ENDED;
}

static void end_with_fault(struct upstream *u, struct sequence *s, enum fault_kind kind,
                           const char *param, const char *text)
{
    end(u, s);
    fault_set(&s->fault, kind, param, "%s", text);
    s->on_progress(s);
}

static void acknowledge(struct upstream *u, struct sequence *s)
{
    sequence_list_remove(&u->groups[s->group].finished, s);
    hash_remove(u, s);
    u->n_sequences--;
    s->is_kept = false;
    ids_add(&u->groups[s->group].acks, s->id);
}

/* Finished: known to both sides until the answer is out.  Clients that read slowly must not fill the ledger
 * with such, for other threads cannot make room: beyond its share the oldest is given up. */
static void keep(struct upstream *u, struct sequence *s)
{
    struct group *group = &u->groups[s->group];

    detach(u, s);
    s->state = SEQUENCE_ENDED;
    s->is_kept = true;
    sequence_list_append(&group->finished, s);
    if (group->finished.n > group->finished_max)
        acknowledge(u, group->finished.first);
}

/* ---- sending ---- */

static bool send_message(struct upstream *u, uint32_t g, enum msg_type type, const void *message)
{
    bool sent = link_send(u->groups[g].link, 0, type, message);

    u->config.kick(g, u->config.ctx);
    return sent;
}

static void send_ids(struct upstream *u, uint32_t g, enum msg_type type, struct id_list *l)
{
    size_t done = 0;

    while (done < l->n) {
        size_t n = l->n - done < IDS_BATCH ? l->n - done : IDS_BATCH;
        Llmd__Cancel cancel = LLMD__CANCEL__INIT;
        Llmd__Ack ack = LLMD__ACK__INIT;
        const void *message = &cancel;

        cancel.sequence_id = ack.sequence_id = l->ids + done;
        cancel.n_sequence_id = ack.n_sequence_id = n;
        if (type == MSG_ACK)
            message = &ack;
        if (!send_message(u, g, type, message))
            break;
        done += n;
    }
    memmove(l->ids, l->ids + done, (l->n - done) * sizeof *l->ids);
    l->n -= done;
}

/* What is owed to a group.  One that restarts is told by RESYNC instead. */
static void flush_ids(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];

    if (!group->said_hello) {
        group->acks.n = group->cancels.n = 0;
        return;
    }
    if (group->cancels.n)
        send_ids(u, g, MSG_CANCEL, &group->cancels);
    if (group->acks.n)
        send_ids(u, g, MSG_ACK, &group->acks);
}

static void list_held(const struct sequence_list *from, Llmd__Resync *resync,
                      Llmd__Resync__Held *held)
{
    for (struct sequence *s = from->first; s; s = s->next) {
        Llmd__Resync__Held *h = &held[resync->n_held];
        llmd__resync__held__init(h);
        h->sequence_id = s->id;
        h->n_tokens = s->n_tokens;
        resync->held[resync->n_held++] = h;
    }
}

static void send_resync(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];
    Llmd__Resync resync = LLMD__RESYNC__INIT;
    size_t n = group->held.n + group->finished.n + 1;
    Llmd__Resync__Held *held = mem_zalloc(n, sizeof *held);
    Llmd__Resync__Held **list = mem_zalloc(n, sizeof *list);

    resync.held = list;
    list_held(&group->held, &resync, held);
    list_held(&group->finished, &resync, held);
    group->needs_resync = !send_message(u, g, MSG_RESYNC, &resync);
    group->resynced_ns = clock_mono_ns();
    group->acks.n = group->cancels.n = 0; /* the list says as much */
    free(held);
    free(list);
}

/* ---- routing ---- */

static bool takes_sequences(const struct group *group, uint64_t now_ns)
{
    return group->said_hello && group->is_up && !group->is_draining && !group->needs_resync &&
           now_ns >= group->full_until_ns;
}

/* The least loaded group in service; -1 when there is none. */
static int pick_group(const struct upstream *u, uint64_t now_ns)
{
    uint32_t best_load = 0;
    int best = -1;

    for (uint32_t i = 0; i < u->config.n_groups; i++) {
        uint32_t g = (i + u->config.thread) % u->config.n_groups;
        uint32_t load = atomic_load_explicit(&u->config.load[g], memory_order_relaxed);
        if (!takes_sequences(&u->groups[g], now_ns) || (best >= 0 && load >= best_load))
            continue;
        best = (int)g;
        best_load = load;
    }
    return best;
}

static bool submit_to(struct upstream *u, uint32_t g, struct sequence *s)
{
    s->submit.sequence_id = s->id;
    s->submit.deadline_ns = (int64_t)s->deadline_ns;
    s->submit.generated = s->tokens;
    s->submit.n_generated = s->n_tokens;
    if (!send_message(u, g, MSG_SUBMIT, &s->submit))
        return false;
    sequence_list_remove(&u->waiting, s);
    s->state = SEQUENCE_SUBMITTED;
    s->group = g;
    sequence_list_append(&u->groups[g].held, s);
    atomic_fetch_add_explicit(&u->config.load[g], 1, memory_order_relaxed);
    return true;
}

/* First come, first served. */
static void dispatch(struct upstream *u)
{
    uint64_t now_ns = clock_mono_ns();

    while (u->waiting.first) {
        int g = pick_group(u, now_ns);
        if (g < 0)
            return;
        if (!submit_to(u, (uint32_t)g, u->waiting.first))
            u->groups[g].full_until_ns = now_ns + FULL_PAUSE_MS * NS_PER_MS;
    }
}

void upstream_submit(struct upstream *u, struct sequence *s)
{
    struct sequence **at = bucket(u, s->id);

    assert(s->state == SEQUENCE_NEW && s->id != 0 && s->submit.n_prompt > 0);
    s->hash_next = *at;
    *at = s;
    u->n_sequences++;
    s->state = SEQUENCE_WAITING;
    s->waiting_since_ns = clock_mono_ns();
    sequence_list_append(&u->waiting, s);
    dispatch(u);
}

void upstream_adopt(struct upstream *u, struct sequence *s, uint32_t g)
{
    struct sequence **at = bucket(u, s->id);

    if (g >= u->config.n_groups) {
        upstream_submit(u, s);
        return;
    }
    assert(s->state == SEQUENCE_NEW && s->id != 0);
    s->hash_next = *at;
    *at = s;
    u->n_sequences++;
    s->state = SEQUENCE_RUNNING;
    s->group = g;
    s->waiting_since_ns = clock_mono_ns();
    sequence_list_append(&u->groups[g].held, s);
    atomic_fetch_add_explicit(&u->config.load[g], 1, memory_order_relaxed);
    u->groups[g].needs_resync |= u->groups[g].said_hello;
}

void upstream_release(struct upstream *u, struct sequence *s)
{
    if (!s->is_kept) {
        upstream_cancel(u, s);
        return;
    }
    acknowledge(u, s);
    flush_ids(u, s->group);
}

void upstream_cancel(struct upstream *u, struct sequence *s)
{
    bool was_sent = s->state == SEQUENCE_SUBMITTED || s->state == SEQUENCE_RUNNING;

    if (s->state == SEQUENCE_NEW || s->state == SEQUENCE_ENDED)
        return;
    end(u, s);
    if (s->finish == LLMD__FINISH__FINISH_NONE)
        s->finish = LLMD__FINISH__FINISH_CANCELLED;
    if (!was_sent)
        return;
    ids_add(&u->groups[s->group].cancels, s->id);
    flush_ids(u, s->group);
}

/* Back to the head of the queue: it was there before. */
static void wait_again(struct upstream *u, struct sequence *s)
{
    detach(u, s);
    s->state = SEQUENCE_WAITING;
    s->waiting_since_ns = clock_mono_ns();
    sequence_list_prepend(&u->waiting, s);
}

/* ---- receiving ---- */

static uint32_t share_of_finished(const struct upstream *u, uint32_t n_entries)
{
    uint32_t share = n_entries / FINISHED_SHARE / (u->config.n_threads ? u->config.n_threads : 1);

    return share > 0 ? share : 1;
}

static void take_hello(struct upstream *u, uint32_t g, const Llmd__Hello *hello)
{
    struct group *group = &u->groups[g];

    log_info("upstream group=%u event=hello epoch=%u pid=%u thread=%u held=%u", g, hello->epoch,
             hello->pid, u->config.thread, group->held.n);
    group->said_hello = true;
    group->epoch = hello->epoch;
    group->finished_max = share_of_finished(u, hello->sequences_max);
    group->is_draining = hello->draining;
    group->full_until_ns = 0;
    group->down_since_ns = 0;
    u->config.on_hello(hello, u->config.ctx);
    send_resync(u, g);
}

/* Finished sequences may be all that fills the group, and may belong to requests that wait for room in it.
 * A successor would have to have them computed again; that is better than no progress. */
static void make_room(struct upstream *u, uint32_t g)
{
    while (u->groups[g].finished.first)
        acknowledge(u, u->groups[g].finished.first);
}

static void take_refused(struct upstream *u, uint32_t g, const Llmd__Refused *refused)
{
    struct sequence *s = find(u, refused->sequence_id);
    struct group *group = &u->groups[g];

    if (!s || s->state != SEQUENCE_SUBMITTED || s->group != g)
        return;
    switch (refused->reason) {
    case LLMD__REFUSE_REASON__REFUSE_DRAINING:
        group->is_draining = true;
        wait_again(u, s);
        break;
    case LLMD__REFUSE_REASON__REFUSE_FULL: {
        uint64_t since = s->waiting_since_ns; /* a full house is no reason to wait for ever */
        group->full_until_ns = clock_mono_ns() + FULL_PAUSE_MS * NS_PER_MS;
        wait_again(u, s);
        s->waiting_since_ns = since;
        make_room(u, g);
        break;
    }
    default: /* TOO_LONG, INVALID, and what a later worker may add */
        end_with_fault(u, s, FAULT_INVALID, "", refused->message);
        break;
    }
}

static void resubmit(struct upstream *u, struct sequence *s)
{
    if (++s->resubmissions > RESUBMISSIONS_MAX) {
        end_with_fault(u, s, FAULT_GENERATION, "", "the sequence was lost too many times");
        return;
    }
    stat_add(u->config.stats, STAT_sequences_resubmitted, 1);
    wait_again(u, s);
}

static void observe_arrival(struct upstream *u, struct sequence *s, uint32_t n_new)
{
    uint64_t now_ns = clock_mono_ns();

    if (s->first_token_ns == 0)
        s->first_token_ns = now_ns;
    else
        hist_observe(u->config.stats, HIST_inter_token_latency_seconds,
                     (double)(now_ns - s->last_token_ns) / 1e9);
    s->last_token_ns = now_ns;
    stat_add(u->config.stats, STAT_gateway_generated_tokens, n_new);
}

/* An end that may come before everything else has. */
static bool is_broken_off(const Llmd__SequenceTokens *m)
{
    return m->finish == LLMD__FINISH__FINISH_ERROR || m->finish == LLMD__FINISH__FINISH_DEADLINE ||
           m->finish == LLMD__FINISH__FINISH_CANCELLED;
}

/* What a message says of the prompt, in order and before any token.  False: some of it is missing before this
 * message, so it cannot be taken. */
static bool take_prompt(struct upstream *u, struct sequence *s, const Llmd__SequenceTokens *m)
{
    bool goes_on = m->n_tokens > 0 || m->finish != LLMD__FINISH__FINISH_NONE;

    if (m->n_prompt_logprobs > 0 && m->prompt_index <= s->n_prompt_logprobs)
        sequence_append_prompt(s, m);
    if (m->prompt_index <= s->n_prompt_logprobs &&
        (!goes_on || is_broken_off(m) || !sequence_awaits_prompt(s)))
        return true;
    u->groups[s->group].needs_resync = true;
    return false;
}

/* Appends what is new.  False: tokens before these are missing, so none can be taken. */
static bool take_new_tokens(struct upstream *u, struct sequence *s, const Llmd__SequenceTokens *m)
{
    uint32_t n = (uint32_t)m->n_tokens;
    uint32_t known;

    if (m->index > s->n_tokens) {
        u->groups[s->group].needs_resync = true;
        return false;
    }
    known = s->n_tokens - m->index < n ? s->n_tokens - m->index : n;
    stat_add(u->config.stats, STAT_duplicate_tokens_dropped, known);
    if (m->index == 0 && s->n_tokens == 0 && (n > 0 || m->finish != LLMD__FINISH__FINISH_NONE)) {
        s->queue_ns = m->queue_ns;
        s->cached_tokens = m->cached_tokens;
    }
    if (known < n) {
        sequence_append(s, m, known);
        observe_arrival(u, s, n - known);
    }
    return true;
}

static void take_embedding(struct sequence *s, const Llmd__SequenceTokens *m)
{
    if (m->n_embedding > 0)
        sequence_set_embedding(s, m->embedding, m->n_embedding);
    else
        fault_set(&s->fault, FAULT_GENERATION, "", "the worker gave no embedding");
}

static void take_finish(struct upstream *u, struct sequence *s, const Llmd__SequenceTokens *m)
{
    uint32_t g = s->group;

    keep(u, s);
    s->finish = m->finish;
    if (m->finish == LLMD__FINISH__FINISH_ERROR)
        fault_set(&s->fault, FAULT_GENERATION, "", "%s",
                  *m->error ? m->error : "the worker gave no reason");
    else if (m->finish == LLMD__FINISH__FINISH_DEADLINE)
        fault_set(&s->fault, FAULT_TIMEOUT, "", "the request's deadline has passed");
    else if (m->finish == LLMD__FINISH__FINISH_EMBEDDED)
        take_embedding(s, m);
    u->groups[g].full_until_ns = 0; /* there may be room again */
}

static void take_sequence_tokens(struct upstream *u, uint32_t g, const Llmd__SequenceTokens *m)
{
    struct sequence *s = find(u, m->sequence_id);
    uint32_t n_before;
    bool awaited_prompt;

    if (s && s->state == SEQUENCE_ENDED) /* told again, and known to be over */
        return;
    if (!s || s->state == SEQUENCE_WAITING || s->group != g) {
        /* Cancelled, or moved to another group: late news. */
        if (!s && m->finish != LLMD__FINISH__FINISH_NONE &&
            m->finish != LLMD__FINISH__FINISH_UNKNOWN)
            ids_add(&u->groups[g].acks, m->sequence_id);
        return;
    }
    if (m->finish == LLMD__FINISH__FINISH_UNKNOWN) {
        resubmit(u, s);
        return;
    }
    n_before = s->n_tokens;
    awaited_prompt = sequence_awaits_prompt(s);
    if (!take_prompt(u, s, m) || !take_new_tokens(u, s, m))
        return;
    if (s->state == SEQUENCE_SUBMITTED)
        s->state = SEQUENCE_RUNNING;
    if (m->finish != LLMD__FINISH__FINISH_NONE)
        take_finish(u, s, m);
    else if (s->n_tokens == n_before && awaited_prompt == sequence_awaits_prompt(s))
        return;
    s->on_progress(s);
}

static void take_accepted(struct upstream *u, uint32_t g, const Llmd__Accepted *accepted)
{
    struct sequence *s = find(u, accepted->sequence_id);

    if (!s || s->state != SEQUENCE_SUBMITTED || s->group != g)
        return;
    s->state = SEQUENCE_RUNNING;
    s->on_progress(s);
}

static void take_message(struct upstream *u, uint32_t g, const struct link_msg *m)
{
    const Llmd__Tokens *tokens = m->body;

    switch (m->type) {
    case MSG_HELLO:
        take_hello(u, g, m->body);
        break;
    case MSG_ACCEPTED:
        take_accepted(u, g, m->body);
        break;
    case MSG_REFUSED:
        take_refused(u, g, m->body);
        break;
    case MSG_TOKENS:
        for (size_t i = 0; i < tokens->n_sequences; i++)
            take_sequence_tokens(u, g, tokens->sequences[i]);
        break;
    default:
        log_warning("upstream group=%u unexpected=%s, ignoring", g, msg_name(m->type));
        break;
    }
}

static void settle(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];

    if (group->needs_resync && clock_mono_ns() - group->resynced_ns >= RESYNC_PAUSE_MS * NS_PER_MS)
        send_resync(u, g);
    flush_ids(u, g);
    dispatch(u);
}

void upstream_receive(struct upstream *u, uint32_t group)
{
    for (;;) {
        struct link_msg m;
        struct err e;

        switch (link_recv(u->groups[group].link, &m, &e)) {
        case LINK_OK:
            take_message(u, group, &m);
            frame_free_body(m.body);
            break;
        case LINK_FAILED:
            log_warning("upstream group=%u message=dropped error=\"%s\"", group, e.msg);
            break;
        case LINK_CONNECTED:
            break;
        case LINK_EMPTY:
            settle(u, group);
            return;
        }
    }
}

/* ---- groups that go away, and time ---- */

void upstream_set_service(struct upstream *u, uint32_t g, bool is_up)
{
    struct group *group;

    if (g >= u->config.n_groups)
        return;
    group = &u->groups[g];
    if (!is_up && (group->is_up || group->down_since_ns == 0))
        group->down_since_ns = clock_mono_ns();
    if (is_up)
        group->down_since_ns = 0;
    if (group->is_up != is_up)
        log_info("upstream group=%u service=%s thread=%u held=%u", g, is_up ? "up" : "down",
                 u->config.thread, group->held.n);
    group->is_up = is_up;
    dispatch(u);
}

void upstream_set_wait(struct upstream *u, uint64_t wait_ns)
{
    u->config.wait_ns = wait_ns;
}

static void give_up(struct upstream *u, struct sequence *s)
{
    char text[FAULT_TEXT_BYTES];

    if (upstream_is_served(u)) {
        end_with_fault(u, s, FAULT_OVERLOADED, "", "every group is full");
        return;
    }
    u->config.describe(text, sizeof text, u->config.ctx);
    end_with_fault(u, s, FAULT_UNAVAILABLE, "", text);
}

/* on_progress may end other sequences of the list, so look again from its start after each one. */
static void expire(struct upstream *u, struct sequence_list *list, uint64_t limit_ns,
                   uint64_t now_ns)
{
    struct sequence *s = list->first;

    while (s) {
        if (now_ns - s->waiting_since_ns < limit_ns || now_ns < s->waiting_since_ns) {
            s = s->next;
            continue;
        }
        give_up(u, s);
        s = list->first;
    }
}

static void leave_group(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];

    log_warning("upstream group=%u stays away, moving=%u thread=%u", g, group->held.n,
                u->config.thread);
    while (group->held.last) { /* from the last, each to the queue's head: the order stays */
        stat_add(u->config.stats, STAT_sequences_resubmitted, 1);
        wait_again(u, group->held.last);
    }
}

static void check_absent_group(struct upstream *u, uint32_t g, uint64_t now_ns)
{
    struct group *group = &u->groups[g];
    uint64_t away_ns = now_ns - group->down_since_ns;

    if (group->down_since_ns == 0 || group->down_since_ns > now_ns || group->held.n == 0)
        return;
    if (away_ns >= u->config.move_ns && upstream_is_served(u))
        leave_group(u, g);
    else if (away_ns >= u->config.wait_ns)
        while (group->held.first)
            give_up(u, group->held.first);
}

void upstream_tick(struct upstream *u, uint64_t now_ns)
{
    expire(u, &u->waiting, u->config.wait_ns, now_ns);
    for (uint32_t g = 0; g < u->config.n_groups; g++) {
        check_absent_group(u, g, now_ns);
        settle(u, g);
    }
}

uint64_t upstream_tick_due_ns(const struct upstream *u)
{
    bool is_needed = u->waiting.n > 0;

    for (uint32_t g = 0; g < u->config.n_groups && !is_needed; g++) {
        const struct group *group = &u->groups[g];
        is_needed = group->needs_resync || group->acks.n > 0 || group->cancels.n > 0 ||
                    (group->down_since_ns > 0 && group->held.n > 0);
    }
    return is_needed ? clock_mono_ns() + TICK_MS * NS_PER_MS : 0;
}
