/* gpu_memory.c - sets by rank and kind, their records in the table, their descriptors in the store. */
#include "supervisor/gpu_memory.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"

static const char store_prefix[] = "llmd-g-";

/* ---- names and records ---- */

/* All names together travel in one environment variable, so they are short. */
static void chunk_name(char out[FDSTORE_NAME_BYTES], uint64_t id, uint32_t chunk)
{
    snprintf(out, FDSTORE_NAME_BYTES, "%s%08x-%x", store_prefix, (uint32_t)id, chunk);
}

static uint32_t rank_index(const struct gpu_memory *m, uint32_t group, uint32_t rank)
{
    assert(group < m->n_groups && rank < m->tp_size);
    return group * m->tp_size + rank;
}

static struct gpu_rank *rank_of(struct gpu_memory *m, uint32_t group, uint32_t rank)
{
    return &m->ranks[rank_index(m, group, rank)];
}

static struct chunks_record *record_of(const struct gpu_memory *m, uint32_t group, uint32_t rank,
                                       enum chunk_kind kind)
{
    struct chunks_record *all = segment_at(m->table, CHUNKS_RECORDS_OFFSET);

    return &all[rank_index(m, group, rank) * N_KEPT_CHUNK_KINDS + kind];
}

static void write_record(const struct gpu_memory *m, const struct chunk_set *s)
{
    struct chunks_record *r = record_of(m, s->group, s->rank, s->kind);

    r->layout[0] = s->layout.low;
    r->layout[1] = s->layout.high;
    r->bytes = s->bytes;
    r->chunk_bytes = s->chunk_bytes;
    r->n = s->n;
    memcpy(r->device, s->device, sizeof r->device);
    atomic_store_explicit(&r->id, s->id, memory_order_release);
}

/* False: none is there, or it is not one that can be. */
static bool read_record(const struct gpu_memory *m, uint32_t group, uint32_t rank,
                        enum chunk_kind kind, struct chunk_set *s)
{
    struct chunks_record *r = record_of(m, group, rank, kind);
    uint64_t id = atomic_load_explicit(&r->id, memory_order_acquire);

    if (id == 0 || r->n == 0 || r->n > CHUNK_SET_CHUNKS_MAX)
        return false;
    *s = (struct chunk_set){ .kind = kind,
                             .group = group,
                             .rank = rank,
                             .id = id,
                             .layout = { r->layout[0], r->layout[1] },
                             .bytes = r->bytes,
                             .chunk_bytes = r->chunk_bytes,
                             .n = r->n };
    memcpy(s->device, r->device, sizeof s->device);
    chunk_set_init(s);
    return true;
}

/* ---- coming and going ---- */

static void drop(struct gpu_memory *m, struct chunk_set *s, const char *why)
{
    char name[FDSTORE_NAME_BYTES];

    if (!s->fds)
        return;
    log_info("event=gpu_memory_dropped kind=%s group=%u rank=%u chunks=%u of=%u why=\"%s\"",
             chunk_kind_name(s->kind), s->group, s->rank, s->n_there, s->n, why);
    atomic_store_explicit(&record_of(m, s->group, s->rank, s->kind)->id, 0, memory_order_release);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->fds[i] < 0)
            continue;
        chunk_name(name, s->id, i);
        fdstore_remove(m->store, name);
    }
    chunk_set_fini(s);
}

static void replace(struct gpu_memory *m, struct gpu_rank *r, const Llmd__Chunks *c)
{
    r->is_handing[c->kind] = false; /* its worker needs it no more */
    drop(m, &r->sets[c->kind], "another takes its place");
    chunk_set_begin(&r->sets[c->kind], c);
    write_record(m, &r->sets[c->kind]);
}

static void store_new(struct gpu_memory *m, const struct chunk_set *s, const Llmd__Chunks *c,
                      const bool was_there[FDPASS_FDS_MAX], int n)
{
    char name[FDSTORE_NAME_BYTES];

    for (int i = 0; i < n; i++) {
        uint32_t chunk = c->first + (uint32_t)i;
        if (was_there[i] || s->fds[chunk] < 0)
            continue;
        chunk_name(name, s->id, chunk);
        fdstore_put(m->store, name, s->fds[chunk], false);
    }
}

static bool is_of(const struct gpu_memory *m, uint32_t group, uint32_t rank,
                  const struct control_msg *msg, struct err *e)
{
    const Llmd__Chunks *c = msg->body;

    if (!m->table)
        return err_set(e, ERR_PROTO, 0, "GPU memory of a model that was not to use any");
    if (c->group != group || c->rank != rank || c->kind >= N_KEPT_CHUNK_KINDS)
        return err_set(e, ERR_PROTO, 0, "GPU memory of kind %u of rank %u.%u", c->kind, c->group,
                       c->rank);
    return chunk_set_check(c, msg->n_fds, e);
}

void gpu_memory_take(struct gpu_memory *m, uint32_t group, uint32_t rank, struct control_msg *msg)
{
    const Llmd__Chunks *c = msg->body;
    bool was_there[FDPASS_FDS_MAX];
    struct chunk_set *s;
    struct gpu_rank *r;
    struct err e;

    if (!is_of(m, group, rank, msg, &e)) {
        log_warning("worker=%u.%u error=\"%s\", ignoring it", group, rank, e.msg);
        return;
    }
    r = rank_of(m, group, rank);
    s = &r->sets[c->kind];
    if (!chunk_set_is_same(s, c))
        replace(m, r, c);
    for (int i = 0; i < msg->n_fds; i++)
        was_there[i] = s->fds[c->first + (uint32_t)i] >= 0;
    if (chunk_set_take(s, msg) == 0)
        return;
    store_new(m, s, c, was_there, msg->n_fds);
    if (chunk_set_is_whole(s))
        log_info("event=gpu_memory_kept kind=%s group=%u rank=%u chunks=%u bytes=%llu",
                 chunk_kind_name(s->kind), group, rank, s->n, (unsigned long long)s->bytes);
}

static void end_handing(struct gpu_rank *r)
{
    memset(r->is_handing, 0, sizeof r->is_handing);
    r->at_chunk = 0;
}

void gpu_memory_ended(struct gpu_memory *m, uint32_t group, uint32_t rank, bool weights_are_whole)
{
    struct gpu_rank *r;

    if (!m->table)
        return;
    r = rank_of(m, group, rank);
    end_handing(r);
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        if (!chunk_set_is_whole(&r->sets[kind]))
            drop(m, &r->sets[kind], "its worker died before it had sent all of it");
    if (!weights_are_whole)
        drop(m, &r->sets[CHUNKS_WEIGHTS], "its worker died while it loaded");
}

void gpu_memory_lost(struct gpu_memory *m, uint32_t group, uint32_t rank)
{
    if (!m->table)
        return;
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
        drop(m, &rank_of(m, group, rank)->sets[kind], "the GPU has lost it");
}

/* ---- to a worker ---- */

static bool is_whole_group(const struct gpu_memory *m, uint32_t group, enum chunk_kind kind)
{
    for (uint32_t rank = 0; rank < m->tp_size; rank++)
        if (!chunk_set_is_whole(&m->ranks[rank_index(m, group, rank)].sets[kind]))
            return false;
    return true;
}

uint32_t gpu_memory_begin_handing(struct gpu_memory *m, uint32_t group, uint32_t rank)
{
    struct gpu_rank *r;
    uint32_t n = 0;

    if (!m->table)
        return 0;
    r = rank_of(m, group, rank);
    end_handing(r);
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++) {
        r->is_handing[kind] = kind == CHUNKS_KV ? is_whole_group(m, group, CHUNKS_KV)
                                                : chunk_set_is_whole(&r->sets[kind]);
        n += r->is_handing[kind] ? r->sets[kind].n : 0;
    }
    return n;
}

static bool hand_set(struct gpu_rank *r, const struct chunk_set *s, struct child *worker,
                     struct err *e)
{
    Llmd__Chunks message;
    uint32_t n;

    while ((n = chunk_set_batch(s, r->at_chunk, &message)) > 0) {
        if (!child_send_fds(worker, MSG_CHUNKS, &message, s->fds + r->at_chunk, (int)n, e))
            return false;
        r->at_chunk += n;
    }
    r->at_chunk = 0;
    return true;
}

void gpu_memory_hand(struct gpu_memory *m, uint32_t group, uint32_t rank, struct child *worker)
{
    struct gpu_rank *r;
    struct err e = { 0 };

    if (!m->table)
        return;
    r = rank_of(m, group, rank);
    for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++) {
        if (r->is_handing[kind] && !hand_set(r, &r->sets[kind], worker, &e)) {
            if (e.sys != EAGAIN) /* it is dying; its end is on the way */
                log_warning("event=handing_gpu_memory error=\"%s\"", e.msg);
            return;
        }
        r->is_handing[kind] = false;
    }
}

/* ---- a former llmd's ---- */

/* The set that a name of the store belongs to; NULL when it is none that is kept. */
static struct chunk_set *find_set(struct gpu_memory *m, const char *stored, uint32_t *chunk)
{
    const char *dash = strrchr(stored, '-');
    unsigned long number = strtoul(dash + 1, NULL, 16);
    char name[FDSTORE_NAME_BYTES];

    for (uint32_t i = 0; i < m->n_groups * m->tp_size; i++)
        for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++) {
            struct chunk_set *s = &m->ranks[i].sets[kind];
            if (!s->fds || number >= s->n)
                continue;
            *chunk = (uint32_t)number;
            chunk_name(name, s->id, *chunk);
            if (strcmp(name, stored) == 0)
                return s;
        }
    return NULL;
}

static void adopt_one(struct gpu_memory *m, struct passed_fd *p)
{
    uint32_t chunk;
    struct chunk_set *s = m->table ? find_set(m, p->name, &chunk) : NULL;

    if (!s)
        fdstore_remove(m->store, p->name); /* of a set that was being dropped */
    if (!s || s->fds[chunk] >= 0) {
        close(p->fd);
    } else {
        s->fds[chunk] = p->fd;
        s->n_there++;
    }
    p->fd = -1;
}

void gpu_memory_adopt(struct gpu_memory *m, struct passed *from)
{
    for (uint32_t i = 0; m->table && i < m->n_groups * m->tp_size; i++)
        for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
            read_record(m, i / m->tp_size, i % m->tp_size, (enum chunk_kind)kind,
                        &m->ranks[i].sets[kind]);
    for (uint32_t i = 0; i < from->n; i++)
        if (from->list[i].fd >= 0 &&
            strncmp(from->list[i].name, store_prefix, sizeof store_prefix - 1) == 0)
            adopt_one(m, &from->list[i]);
}

void gpu_memory_each(const struct gpu_memory *m, void (*visit)(void *arg, const char *name, int fd),
                     void *arg)
{
    char name[FDSTORE_NAME_BYTES];

    for (uint32_t i = 0; m->table && i < m->n_groups * m->tp_size; i++)
        for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++) {
            const struct chunk_set *s = &m->ranks[i].sets[kind];
            for (uint32_t k = 0; s->fds && k < s->n; k++) {
                if (s->fds[k] < 0)
                    continue;
                chunk_name(name, s->id, k);
                visit(arg, name, s->fds[k]);
            }
        }
}

uint64_t gpu_memory_bytes(const struct gpu_memory *m, enum chunk_kind kind)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; m->table && i < m->n_groups * m->tp_size; i++)
        if (chunk_set_is_whole(&m->ranks[i].sets[kind]))
            bytes += m->ranks[i].sets[kind].bytes;
    return bytes;
}

/* ---- life ---- */

size_t gpu_memory_table_bytes(uint32_t n_groups, uint32_t tp_size)
{
    return CHUNKS_RECORDS_OFFSET +
           (size_t)n_groups * tp_size * N_KEPT_CHUNK_KINDS * sizeof(struct chunks_record);
}

bool gpu_memory_init(struct gpu_memory *m, const struct segment *table, uint32_t n_groups,
                     uint32_t tp_size, struct fdstore *store, struct err *e)
{
    *m = (struct gpu_memory){ .store = store, .n_groups = n_groups, .tp_size = tp_size };
    if (!table->hdr)
        return true;
    if (table->bytes < gpu_memory_table_bytes(n_groups, tp_size))
        return err_set(e, ERR_PROTO, 0, "the table of GPU memory has %zu bytes, %u ranks need %zu",
                       table->bytes, n_groups * tp_size, gpu_memory_table_bytes(n_groups, tp_size));
    m->table = table;
    m->ranks = mem_zalloc((size_t)n_groups * tp_size, sizeof *m->ranks);
    return true;
}

void gpu_memory_fini(struct gpu_memory *m)
{
    for (uint32_t i = 0; m->ranks && i < m->n_groups * m->tp_size; i++)
        for (int kind = 0; kind < N_KEPT_CHUNK_KINDS; kind++)
            chunk_set_fini(&m->ranks[i].sets[kind]);
    free(m->ranks);
    *m = (struct gpu_memory){ 0 };
}
