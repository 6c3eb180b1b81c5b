/* chunk_road.c - see chunk_road.h. */
#include "gpu-worker/chunk_road.h"

#include <assert.h>

#include "common/log.h"

/* One CHUNKS message; *n counts descriptors. */
static bool receive_one(struct chunk_road *r, uint32_t *n, struct err *e)
{
    struct control_msg msg;
    const Llmd__Chunks *c;
    struct chunk_set *s;
    bool ok = false;

    if (control_recv(r->sock, &msg, e) != CONTROL_OK)
        return err_set(e, ERR_PROTO, 0, "llmd stopped handing over GPU memory");
    c = msg.body;
    if (msg.type != MSG_CHUNKS) {
        err_set(e, ERR_PROTO, 0, "%s, where CHUNKS was expected", msg_name(msg.type));
    } else if (c->kind >= N_KEPT_CHUNK_KINDS || msg.n_fds == 0) {
        err_set(e, ERR_PROTO, 0, "CHUNKS of kind %u with %d descriptors", c->kind, msg.n_fds);
    } else if (chunk_set_check(c, msg.n_fds, e)) {
        s = &r->sets[c->kind];
        if (!chunk_set_is_same(s, c)) {
            chunk_set_fini(s);
            chunk_set_begin(s, c);
        }
        *n += (uint32_t)msg.n_fds;
        chunk_set_take(s, &msg);
        ok = true;
    }
    control_msg_fini(&msg);
    return ok;
}

bool chunk_road_open(struct chunk_road *r, int sock, uint32_t n_chunks, struct err *e)
{
    uint32_t n = 0;

    *r = (struct chunk_road){ .sock = sock };
    while (n < n_chunks)
        if (!receive_one(r, &n, e))
            return false;
    return true;
}

void chunk_road_close(struct chunk_road *r)
{
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        chunk_set_fini(&r->sets[kind]);
    r->sock = -1;
}

const struct chunk_set *chunk_road_find(const struct chunk_road *r, enum chunk_kind kind)
{
    assert(kind < N_KEPT_CHUNK_KINDS);
    return r->sets[kind].fds ? &r->sets[kind] : NULL;
}

static void warn(const struct err *e)
{
    log_warning("%s; GPU memory of this worker ends with it, unless a new llmd asks", e->msg);
}

void chunk_road_announce(struct chunk_road *r, const struct chunk_set *planned)
{
    struct err e;

    assert(planned->kind < N_KEPT_CHUNK_KINDS);
    chunk_set_fini(&r->sets[planned->kind]);
    if (r->sock >= 0 && !chunk_set_announce(planned, r->sock, &e))
        warn(&e);
}

const struct chunk_set *chunk_road_keep(struct chunk_road *r, struct chunk_set *set)
{
    struct chunk_set *s = &r->sets[set->kind];
    struct err e;

    assert(chunk_set_is_whole(set) && !s->fds);
    *s = *set;
    *set = (struct chunk_set){ 0 };
    if (r->sock >= 0 && !chunk_set_send(s, r->sock, &e))
        warn(&e);
    return s;
}

void chunk_road_tell_again(const struct chunk_road *r)
{
    struct err e;

    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        if (r->sock >= 0 && r->sets[kind].fds && !chunk_set_send(&r->sets[kind], r->sock, &e))
            warn(&e);
}
