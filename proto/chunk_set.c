/* chunk_set.c - see chunk_set.h. */
#include "proto/chunk_set.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/mem.h"

const char *chunk_kind_name(enum chunk_kind kind)
{
    static const char *const names[N_CHUNK_KINDS] = { [CHUNKS_WEIGHTS] = "weights",
                                                      [CHUNKS_KV] = "kv",
                                                      [CHUNKS_KEEPER] = "keeper",
                                                      [CHUNKS_EXCHANGE] = "exchange" };

    return kind < N_CHUNK_KINDS ? names[kind] : "unknown";
}

uint64_t chunk_set_chunk_bytes(const struct chunk_set *s, uint32_t i)
{
    assert(i < s->n);
    return i + 1 < s->n ? s->chunk_bytes : s->bytes - (s->n - 1) * s->chunk_bytes;
}

void chunk_set_init(struct chunk_set *s)
{
    assert(s->n > 0 && s->n <= CHUNK_SET_CHUNKS_MAX);
    s->n_there = 0;
    s->fds = mem_alloc(s->n * sizeof *s->fds);
    for (uint32_t i = 0; i < s->n; i++)
        s->fds[i] = -1;
}

void chunk_set_fini(struct chunk_set *s)
{
    for (uint32_t i = 0; s->fds && i < s->n; i++)
        if (s->fds[i] >= 0)
            close(s->fds[i]);
    free(s->fds);
    *s = (struct chunk_set){ 0 };
}

/* ---- out ---- */

static void describe(const struct chunk_set *s, Llmd__Chunks *m)
{
    llmd__chunks__init(m);
    m->kind = s->kind;
    m->group = s->group;
    m->rank = s->rank;
    m->set = s->id;
    m->layout_low = s->layout.low;
    m->layout_high = s->layout.high;
    m->device.data = (uint8_t *)(uintptr_t)s->device;
    m->device.len = sizeof s->device;
    m->bytes = s->bytes;
    m->chunk_bytes = s->chunk_bytes;
    m->n_chunks = s->n;
}

uint32_t chunk_set_batch(const struct chunk_set *s, uint32_t first, Llmd__Chunks *m)
{
    uint32_t left = s->n - first;

    assert(first <= s->n && chunk_set_is_whole(s));
    describe(s, m);
    m->first = first;
    return left < FDPASS_FDS_MAX ? left : FDPASS_FDS_MAX;
}

/* Descriptors under way count against a limit of the user's; they are few, and whoever is to read them does. */
static bool send_patiently(int sock, const Llmd__Chunks *m, const int *fds, uint32_t n,
                           struct err *e)
{
    enum { WAIT_MS = 10, TRIES = 500 };

    for (int i = 0; i < TRIES; i++) {
        struct pollfd p = { .fd = sock, .events = POLLOUT };
        if (control_send(sock, MSG_CHUNKS, m, fds, (int)n, e))
            return true;
        if (e->sys != EAGAIN && e->sys != ETOOMANYREFS)
            return false;
        poll(&p, e->sys == EAGAIN, WAIT_MS);
    }
    return false;
}

bool chunk_set_announce(const struct chunk_set *s, int sock, struct err *e)
{
    Llmd__Chunks m;

    describe(s, &m);
    return send_patiently(sock, &m, NULL, 0, e);
}

bool chunk_set_send(const struct chunk_set *s, int sock, struct err *e)
{
    Llmd__Chunks m;
    uint32_t n;

    for (uint32_t first = 0; (n = chunk_set_batch(s, first, &m)) > 0; first += n)
        if (!send_patiently(sock, &m, s->fds + first, n, e))
            return false;
    return true;
}

/* ---- in ---- */

/* All chunks but the last are whole, and the last one has something. */
static bool sizes_agree(const Llmd__Chunks *m)
{
    return m->chunk_bytes > 0 && m->n_chunks > 0 && m->n_chunks <= CHUNK_SET_CHUNKS_MAX &&
           m->bytes > 0 && (m->bytes - 1) / m->chunk_bytes == m->n_chunks - 1;
}

bool chunk_set_check(const Llmd__Chunks *m, int n_fds, struct err *e)
{
    if (m->kind >= N_CHUNK_KINDS || m->set == 0 || m->device.len != CHUNK_DEVICE_BYTES)
        return err_set(e, ERR_PROTO, 0, "GPU memory: kind %u, set %llx, a device of %zu bytes",
                       m->kind, (unsigned long long)m->set, m->device.len);
    if (!sizes_agree(m))
        return err_set(e, ERR_PROTO, 0, "GPU memory: %u chunks of %llu bytes, %llu bytes together",
                       m->n_chunks, (unsigned long long)m->chunk_bytes,
                       (unsigned long long)m->bytes);
    if (n_fds < 0 || m->first > m->n_chunks || (uint32_t)n_fds > m->n_chunks - m->first)
        return err_set(e, ERR_PROTO, 0, "GPU memory: %d descriptors from number %u on of %u", n_fds,
                       m->first, m->n_chunks);
    return true;
}

bool chunk_set_is_same(const struct chunk_set *s, const Llmd__Chunks *m)
{
    return s->fds && s->id == m->set && s->kind == (enum chunk_kind)m->kind &&
           s->group == m->group && s->rank == m->rank && s->n == m->n_chunks &&
           s->bytes == m->bytes && s->chunk_bytes == m->chunk_bytes &&
           s->layout.low == m->layout_low && s->layout.high == m->layout_high &&
           memcmp(s->device, m->device.data, sizeof s->device) == 0;
}

void chunk_set_begin(struct chunk_set *s, const Llmd__Chunks *m)
{
    *s = (struct chunk_set){ .kind = (enum chunk_kind)m->kind,
                             .group = m->group,
                             .rank = m->rank,
                             .id = m->set,
                             .layout = { .low = m->layout_low, .high = m->layout_high },
                             .bytes = m->bytes,
                             .chunk_bytes = m->chunk_bytes,
                             .n = m->n_chunks };
    memcpy(s->device, m->device.data, sizeof s->device);
    chunk_set_init(s);
}

uint32_t chunk_set_take(struct chunk_set *s, struct control_msg *msg)
{
    const Llmd__Chunks *m = msg->body;
    uint32_t n_new = 0;

    assert(msg->type == MSG_CHUNKS && chunk_set_is_same(s, m));
    for (int i = 0; i < msg->n_fds; i++) {
        int *place = &s->fds[m->first + (uint32_t)i];
        if (*place >= 0 || msg->fds[i] < 0)
            continue;
        *place = msg->fds[i];
        msg->fds[i] = -1;
        n_new++;
    }
    s->n_there += n_new;
    return n_new;
}
