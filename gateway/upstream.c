/* upstream.c - routing, resubmission and resynchronisation.
 *
 * Three things may happen to a message: it arrives, it arrives twice, it is lost.  Tokens carry their
 * index, so the second is dropped (answer/arrival.h); RESYNC after each HELLO says what is held, so the third
 * is repeated.
 * SUBMIT needs no memory of its own: a sequence on a group's list that the group does not know comes
 * back as FINISH_UNKNOWN, and is sent again with the tokens it already has. */
#include "gateway/upstream.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/answer/arrival.h"
#include "gateway/answer/sequence_index.h"
#include "gateway/answer/sequence_list.h"
#include "gateway/group_link.h"
#include "proto/sequence_id.h"

enum {
    TICK_MS = 20,          /* while something waits */
    FULL_PAUSE_MS = 20,    /* a group that refused for lack of room is asked again after this */
    RESYNC_PAUSE_MS = 100, /* between two RESYNCs because of a gap in the indexes */
    RESUBMISSIONS_MAX = 8,
    FINISHED_SHARE = 4, /* finished sequences may fill one in so many entries of a ledger */
};

struct group {
    struct group_link to;
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
};

struct upstream {
    struct upstream_config config;
    struct group *groups;
    struct sequence_list waiting;
    struct sequence_index by_id;
    uint32_t n_sequences;
    uint32_t counter; /* of sequence ids */
};

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
        u->groups[g].to =
            (struct group_link){ .group = g, .kick = config->kick, .ctx = config->ctx };
        if (!group_link_open(&u->groups[g].to, config->instance, 1 + config->thread, e)) {
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
    for (uint32_t g = 0; g < u->config.n_groups; g++)
        group_link_close(&u->groups[g].to);
    free(u->groups);
    free(u);
}

int upstream_fd(const struct upstream *u, uint32_t group)
{
    return link_fd(u->groups[group].to.link);
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
    sequence_index_remove(&u->by_id, s);
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
    sequence_index_remove(&u->by_id, s);
    u->n_sequences--;
    s->is_kept = false;
    group_link_owe_ack(&u->groups[s->group].to, s->id);
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

/* What is owed to a group.  One that restarts is told by RESYNC instead. */
static void tell_owed(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];

    if (group->said_hello)
        group_link_flush(&group->to);
    else
        group_link_forget(&group->to);
}

static void send_resync(struct upstream *u, uint32_t g)
{
    struct group *group = &u->groups[g];

    group->needs_resync = !group_link_resync(&group->to, &group->held, &group->finished);
    group->resynced_ns = clock_mono_ns();
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
    bool is_sent;

    s->submit.sequence_id = s->id;
    s->submit.deadline_ns = (int64_t)s->deadline_ns;
    sequence_list_tokens(s);
    is_sent = group_link_send(&u->groups[g].to, MSG_SUBMIT, &s->submit);
    sequence_unlist(s);
    if (!is_sent)
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
    assert(s->state == SEQUENCE_NEW && s->id != 0 && s->submit.n_prompt > 0);
    sequence_index_add(&u->by_id, s);
    u->n_sequences++;
    s->state = SEQUENCE_WAITING;
    s->waiting_since_ns = clock_mono_ns();
    sequence_list_append(&u->waiting, s);
    dispatch(u);
}

void upstream_adopt(struct upstream *u, struct sequence *s, uint32_t g)
{
    if (g >= u->config.n_groups) {
        upstream_submit(u, s);
        return;
    }
    assert(s->state == SEQUENCE_NEW && s->id != 0);
    sequence_index_add(&u->by_id, s);
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
    tell_owed(u, s->group);
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
    group_link_owe_cancel(&u->groups[s->group].to, s->id);
    tell_owed(u, s->group);
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
    struct sequence *s = sequence_index_find(&u->by_id, refused->sequence_id);
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

static void take_finish(struct upstream *u, struct sequence *s, const Llmd__SequenceTokens *m)
{
    uint32_t g = s->group;

    keep(u, s);
    arrival_finish(s, m);
    u->groups[g].full_until_ns = 0; /* there may be room again */
}

static void take_sequence_tokens(struct upstream *u, uint32_t g, const Llmd__SequenceTokens *m)
{
    struct sequence *s = sequence_index_find(&u->by_id, m->sequence_id);
    uint32_t n_before;
    bool awaited_prompt;

    if (s && s->state == SEQUENCE_ENDED) /* told again, and known to be over */
        return;
    if (!s || s->state == SEQUENCE_WAITING || s->group != g) {
        /* Cancelled, or moved to another group: late news. */
        if (!s && m->finish != LLMD__FINISH__FINISH_NONE &&
            m->finish != LLMD__FINISH__FINISH_UNKNOWN)
            group_link_owe_ack(&u->groups[g].to, m->sequence_id);
        return;
    }
    if (m->finish == LLMD__FINISH__FINISH_UNKNOWN) {
        resubmit(u, s);
        return;
    }
    n_before = s->n_tokens;
    awaited_prompt = sequence_awaits_prompt(s);
    if (!arrival_take(s, m, u->config.stats)) {
        u->groups[g].needs_resync = true;
        return;
    }
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
    struct sequence *s = sequence_index_find(&u->by_id, accepted->sequence_id);

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
    tell_owed(u, g);
    dispatch(u);
}

void upstream_receive(struct upstream *u, uint32_t group)
{
    for (;;) {
        struct link_msg m;
        struct err e;

        switch (link_recv(u->groups[group].to.link, &m, &e)) {
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
        is_needed = group->needs_resync || group_link_is_owed(&group->to) ||
                    (group->down_since_ns > 0 && group->held.n > 0);
    }
    return is_needed ? clock_mono_ns() + TICK_MS * NS_PER_MS : 0;
}
