/* record.c - writes connection records. */
#include "gateway/takeover/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/mem.h"
#include "gateway/net/tcp_offset.h"

/* ---- life ---- */

static struct record *record_new(struct service *s, uint32_t slot, int fd, bool is_tcp)
{
    struct record *r = mem_zalloc(1, sizeof *r);

    r->service = s;
    r->shared = connections_record(&s->connections, slot);
    r->slot = slot;
    r->fd = fd;
    r->is_tcp = is_tcp;
    journal_init(&r->journal, &s->connections, slot, atomic_load(&r->shared->in_start));
    return r;
}

struct record *record_open(struct service *s, int fd, bool is_tcp, uint32_t hint, uint32_t thread)
{
    uint32_t slot;

    if (!s->has_connections)
        return NULL;
    slot = connections_claim(&s->connections, hint, thread, clock_mono_ns());
    return slot == CONNECTIONS_NO_SLOT ? NULL : record_new(s, slot, fd, is_tcp);
}

void record_identify(struct record *r)
{
    socklen_t n = sizeof r->shared->cookie;

    if (!r || !r->is_tcp)
        return;
    tcp_bytes_read(r->fd, &r->shared->in_base);
    if (getsockopt(r->fd, SOL_SOCKET, SO_COOKIE, &r->shared->cookie, &n))
        r->shared->cookie = 0;
}

struct record *record_adopt(struct service *s, uint32_t slot, int fd, uint32_t thread)
{
    struct record *r = record_new(s, slot, fd, true);
    struct connection_record *shared = r->shared;

    shared->thread = thread;
    r->is_resumed = connection_state(shared) != CONNECTION_IDLE &&
                    atomic_load(&shared->request_at) == atomic_load(&shared->in_start);
    if (!r->is_resumed) /* it speaks of a request that is over */
        connection_set_state(shared, CONNECTION_IDLE);
    return r;
}

void record_close(struct record *r)
{
    if (!r)
        return;
    journal_fini(&r->journal);
    connections_release(&r->service->connections, r->slot);
    free(r);
}

/* ---- input ---- */

static void note_full(struct record *r)
{
    if (!atomic_exchange(&r->service->journal_was_full, 1))
        log_warning(
            "connection journal is full (connection_journal_bytes %llu): a request read now "
            "would not survive this process",
            (unsigned long long)r->service->config.connection_journal_bytes);
}

char *record_room(struct record *r, size_t *n)
{
    char *room = NULL;

    if (!r || !r->is_tcp || atomic_load(&r->shared->has_gap))
        return NULL;
    room = journal_room(&r->journal, n);
    if (room)
        return room;
    note_full(r);
    atomic_store(&r->shared->has_gap, 1);
    return NULL;
}

void record_input(struct record *r, size_t n)
{
    if (r)
        journal_input(&r->journal, n);
}

void record_used(struct record *r, uint64_t n)
{
    if (!r)
        return;
    atomic_store_explicit(&r->shared->in_start, n, memory_order_release);
    connection_set_state(r->shared, CONNECTION_IDLE);
    r->is_resumed = false;
    journal_used(&r->journal, n);
    if (n >= r->journal.in_seen)
        atomic_store(&r->shared->has_gap, 0);
}

/* ---- the request ---- */

/* Nothing that it says of the last request may be taken for this one's. */
static void begin_request(struct connection_record *shared)
{
    size_t from = offsetof(struct connection_record, counted);

    memset((char *)shared + from, 0, sizeof *shared - from);
    memset(shared->group, CONNECTION_NO_GROUP, sizeof shared->group);
    shared->dialect = 0;
    atomic_store_explicit(&shared->request_at, atomic_load(&shared->in_start),
                          memory_order_release);
    connection_set_state(shared, CONNECTION_READING);
}

void record_reading(struct record *r, enum dialect_id dialect)
{
    if (!r)
        return;
    if (connection_state(r->shared) == CONNECTION_IDLE)
        begin_request(r->shared);
    r->shared->dialect = dialect;
}

bool record_counts(struct record *r, uint8_t what)
{
    if (!r)
        return true;
    if (r->shared->counted & what)
        return false;
    r->shared->counted |= what;
    return true;
}

void record_admit(struct record *r, uint32_t key)
{
    if (!r)
        return;
    r->shared->key = key;
    r->shared->counted |= CONNECTION_COUNTED_ADMITTED;
}

bool record_was_admitted(const struct record *r, uint32_t *key)
{
    if (!r || !r->is_resumed || !(r->shared->counted & CONNECTION_COUNTED_ADMITTED) ||
        r->shared->key >= KEYS_MAX)
        return false;
    *key = r->shared->key;
    return true;
}

void record_charged(struct record *r, uint64_t n_tokens)
{
    if (r)
        r->shared->charged_tokens = (uint32_t)n_tokens;
}

uint64_t record_old_charged(const struct record *r)
{
    return r && r->is_resumed ? r->shared->charged_tokens : 0;
}

static void note_time(struct record *r, uint64_t *shared, uint64_t *ns)
{
    if (r->is_resumed && *shared)
        *ns = *shared;
    *shared = *ns;
}

void record_went(struct record *r, uint64_t *ns)
{
    if (r)
        note_time(r, &r->shared->went_ns, ns);
}

void record_first_token(struct record *r, uint64_t *ns)
{
    if (r)
        note_time(r, &r->shared->first_token_ns, ns);
}

void record_started(struct record *r, struct request *rq)
{
    if (!r)
        return;
    if (r->is_resumed && r->shared->request_started_ns)
        rq->started_ns = r->shared->request_started_ns;
    r->shared->request_started_ns = rq->started_ns;
}

static bool is_complete(const struct record *r)
{
    enum connection_state state = connection_state(r->shared);

    return r->is_resumed && r->shared->answer_id != 0 &&
           (state == CONNECTION_WAITING || state == CONNECTION_ANSWERING);
}

bool record_restore(const struct record *r, struct request *rq)
{
    const struct connection_record *shared;

    if (!r || !is_complete(r))
        return false;
    shared = r->shared;
    rq->sampling.seed = shared->seed;
    rq->answer_id = shared->answer_id;
    rq->created_s = shared->created_s;
    rq->max_model_len = shared->max_model_len;
    rq->deadline_ns = shared->deadline_ns;
    rq->validated_ns = shared->validated_ns;
    if (shared->answered_ns) {
        rq->answered_ns = shared->answered_ns;
        rq->queue_ns = shared->queue_ns;
    }
    if (shared->cached_tokens) {
        rq->has_cached = true;
        rq->cached_tokens = shared->cached_tokens - 1;
    }
    return true;
}

void record_waiting(struct record *r, const struct request *rq, uint64_t first_sequence_id)
{
    struct connection_record *shared;

    if (!r || is_complete(r))
        return;
    shared = r->shared;
    shared->deadline_ns = rq->deadline_ns;
    shared->seed = rq->sampling.seed;
    shared->answer_id = rq->answer_id;
    shared->created_s = rq->created_s;
    shared->max_model_len = rq->max_model_len;
    shared->validated_ns = rq->validated_ns;
    shared->first_sequence_id = first_sequence_id;
    shared->n_sequences = first_sequence_id ? rq->n_candidates : 0;
    if (rq->n_candidates >
        CONNECTION_SEQUENCES_MAX) /* too many to find again: they are made anew */
        shared->n_sequences = 0;
    shared->is_stream = rq->is_stream;
    connection_set_state(shared, CONNECTION_WAITING);
}

void record_group(struct record *r, uint32_t choice, uint32_t group)
{
    if (r && choice < CONNECTION_SEQUENCES_MAX)
        r->shared->group[choice] = (uint8_t)group;
}

/* ---- the answer ---- */

void record_output(struct record *r, const struct http_mark *mark)
{
    struct connection_record *shared;

    if (!r)
        return;
    shared = r->shared;
    if (connection_state(shared) == CONNECTION_IDLE) /* refused before it had a head */
        begin_request(shared);
    if (mark->whole_bytes == 0)
        atomic_store_explicit(&shared->whole_bytes, 0, memory_order_release);
    shared->answer_start = mark->answer_start;
    shared->date_s = mark->date_s;
    shared->keep_alive = mark->keep_alive;
    shared->is_repeatable = mark->is_repeatable;
    shared->sent_continue = mark->sent_continue;
    shared->is_begun = mark->is_begun;
    atomic_store_explicit(&shared->whole_bytes, mark->whole_bytes, memory_order_release);
    atomic_store_explicit(&shared->has_output, 1, memory_order_release);
    if (mark->is_begun)
        connection_set_state(shared, CONNECTION_ANSWERING);
}

void record_answered(struct record *r, const struct request *rq)
{
    if (!r)
        return;
    r->shared->queue_ns = rq->queue_ns;
    r->shared->answered_ns = rq->answered_ns;
}

void record_cached(struct record *r, const struct request *rq)
{
    if (r)
        r->shared->cached_tokens = rq->cached_tokens + 1;
}

bool record_keep_alive(struct record *r, uint32_t n_events)
{
    if (!r)
        return true; /* nobody will continue this answer */
    if (r->shared->n_keep_alives >= CONNECTION_KEEP_ALIVES_MAX)
        return false;
    r->shared->keep_alive_at[r->shared->n_keep_alives] = n_events;
    r->shared->n_keep_alives++;
    return true;
}

void record_fault(struct record *r, struct fault *f, uint32_t n_events)
{
    if (!r || r->shared->fault_kind)
        return;
    snprintf(r->shared->fault_text, sizeof r->shared->fault_text, "%s", f->text);
    snprintf(f->text, sizeof f->text, "%s", r->shared->fault_text);
    r->shared->fault_at = n_events;
    r->shared->fault_kind = f->kind;
}

bool record_old_fault(const struct record *r, struct fault *f, uint32_t *n_events)
{
    if (!r || !r->is_resumed || !r->shared->fault_kind || r->shared->fault_kind >= N_FAULTS)
        return false;
    fault_set(f, (enum fault_kind)r->shared->fault_kind, "", "%s", r->shared->fault_text);
    *n_events = r->shared->fault_at;
    return true;
}
