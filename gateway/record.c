/* record.c - writes connection records. */
#include "gateway/record.h"

#include "common/clock.h"

/* The connection's user pointer holds slot + 1; NULL is none. */
static uint32_t slot_of(const struct http_conn *conn)
{
    uintptr_t user = (uintptr_t)http_conn_user(conn);

    return user ? (uint32_t)(user - 1) : CONNECTIONS_NO_SLOT;
}

static struct connection_record *record_at(struct service *s, uint32_t slot)
{
    return slot == CONNECTIONS_NO_SLOT ? NULL : connections_record(&s->connections, slot);
}

void record_open(struct service *s, struct http_conn *conn, uint32_t thread)
{
    uint32_t slot;

    if (!s->has_connections)
        return;
    slot = connections_claim(&s->connections, (uint32_t)http_conn_id(conn) * s->n_threads + thread,
                             thread, clock_mono_ns());
    if (slot != CONNECTIONS_NO_SLOT)
        http_conn_set_user(conn, (void *)((uintptr_t)slot + 1));
}

void record_close(struct service *s, struct http_conn *conn)
{
    uint32_t slot = slot_of(conn);

    if (slot == CONNECTIONS_NO_SLOT)
        return;
    connections_release(&s->connections, slot);
    http_conn_set_user(conn, NULL);
}

uint32_t record_slot(const struct http_request *http)
{
    return slot_of(http_request_conn(http));
}

void record_reading(struct service *s, uint32_t slot, enum dialect_id dialect)
{
    struct connection_record *r = record_at(s, slot);

    if (!r)
        return;
    r->dialect = dialect;
    connection_set_state(r, CONNECTION_READING);
}

static bool put_mark(struct connection_record *r, const struct http_request *http)
{
    struct http_mark mark;

    if (!http_request_mark(http, &mark))
        return false;
    r->answer_start = mark.answer_start;
    r->bytes_read = mark.bytes_read;
    r->date_s = mark.date_s;
    r->minor_version = mark.minor_version;
    r->keep_alive = mark.keep_alive;
    r->is_head = mark.is_head;
    return true;
}

void record_waiting(struct service *s, uint32_t slot, const struct http_request *http,
                    const struct request *rq, uint64_t first_sequence_id)
{
    struct connection_record *r = record_at(s, slot);

    if (!r)
        return;
    r->request_started_ns = rq->started_ns;
    r->deadline_ns = rq->deadline_ns;
    r->seed = rq->sampling.seed;
    r->answer_id = rq->answer_id;
    r->created_s = rq->created_s;
    r->first_sequence_id = first_sequence_id;
    r->n_sequences = rq->n_choices;
    r->is_stream = rq->is_stream;
    r->n_keep_alives = 0;
    put_mark(r, http);
    connection_set_state(r, CONNECTION_WAITING);
}

void record_group(struct service *s, uint32_t slot, uint32_t choice, uint32_t group)
{
    struct connection_record *r = record_at(s, slot);

    if (r && choice < CONNECTION_SEQUENCES_MAX)
        r->group[choice] = (uint8_t)group;
}

void record_answering(struct service *s, uint32_t slot, const struct http_request *http)
{
    struct connection_record *r = record_at(s, slot);

    if (r && put_mark(r, http))
        connection_set_state(r, CONNECTION_ANSWERING);
}

bool record_keep_alive(struct service *s, uint32_t slot, uint32_t n_events)
{
    struct connection_record *r = record_at(s, slot);

    if (!r)
        return true; /* nobody will continue this answer */
    if (r->n_keep_alives >= CONNECTION_KEEP_ALIVES_MAX)
        return false;
    r->keep_alive_at[r->n_keep_alives] = n_events;
    r->n_keep_alives++;
    return true;
}

void record_idle(struct service *s, uint32_t slot)
{
    struct connection_record *r = record_at(s, slot);

    if (r)
        connection_set_state(r, CONNECTION_IDLE);
}
