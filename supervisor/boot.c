/* boot.c - settings and descriptors for one child.
 *
 * What each child is given, and nothing else:
 *   gateway        board, connections, listening sockets; client connections follow (kept.h)
 *   worker g.r     board, ledger of g, kvpool, weights shard r, group segment of g; on a GPU the weights are g.r's own,
 *                  and the GPU memory that its predecessor left follows (gpu_memory.h); the host tier where there is one */
#include "supervisor/boot.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "supervisor/llmd.h"

void boot_add_setting(struct boot_settings *s, const struct config *c, enum config_id id)
{
    Llmd__Setting *one = &s->setting[s->n];

    assert(s->n < N_CONFIG);
    llmd__setting__init(one);
    config_value(c, id, s->value[s->n], CONFIG_TEXT_BYTES);
    one->name = (char *)(uintptr_t)config_name(id);
    one->value = s->value[s->n];
    s->pointer[s->n++] = one;
}

static void add_fd(struct boot *b, Llmd__FdKind kind, uint32_t index, int fd)
{
    Llmd__FdNote *note = &b->note[b->n_fds];

    assert(b->n_fds < FDPASS_FDS_MAX);
    llmd__fd_note__init(note);
    note->kind = kind;
    note->index = index;
    b->pointer[b->n_fds] = note;
    b->fds[b->n_fds++] = fd;
}

static void add_fds(struct boot *b, const struct llmd *l, const struct process *p)
{
    const struct segments *s = &l->segments;
    uint32_t group = p->team->group;

    add_fd(b, LLMD__FD_KIND__FD_BOARD, 0, s->board.segment.fd);
    if (p->team->kind == TEAM_GATEWAY) {
        add_fd(b, LLMD__FD_KIND__FD_CONNECTIONS, 0, s->connections.segment.fd);
        for (uint32_t i = 0; i < l->listeners.n; i++)
            add_fd(b, LLMD__FD_KIND__FD_LISTEN, i, l->listeners.fd[i]);
        return;
    }
    add_fd(b, LLMD__FD_KIND__FD_LEDGER, group, s->ledgers[group].segment.fd);
    add_fd(b, LLMD__FD_KIND__FD_KVPOOL, 0, s->kvpool.segment.fd);
    add_fd(b, LLMD__FD_KIND__FD_WEIGHTS, p->rank, segments_weights(s, group, p->rank)->fd);
    add_fd(b, LLMD__FD_KIND__FD_GROUP, group, s->groups[group].fd);
    if (s->host_tier.hdr)
        add_fd(b, LLMD__FD_KIND__FD_HOST_TIER, 0, s->host_tier.segment.fd);
}

struct boot *boot_new(struct llmd *l, const struct process *p)
{
    struct boot *b = mem_zalloc(1, sizeof *b);

    llmd__boot__init(&b->message);
    snprintf(b->instance, sizeof b->instance, "%016llx", (unsigned long long)l->instance);
    for (int i = 0; i < N_CONFIG; i++)
        boot_add_setting(&b->settings, &l->config, (enum config_id)i);
    if (p) {
        add_fds(b, l, p);
        b->message.slot = p->slot_index;
        b->message.group = p->team->group;
        b->message.rank = p->rank;
        b->message.epoch = p->team->epoch;
        if (p->team->kind == TEAM_GATEWAY)
            b->message.n_connections = kept_begin_handing(&l->kept);
        else
            b->message.n_chunks = gpu_memory_begin_handing(&l->gpu, p->team->group, p->rank);
        b->message.gpus = l->plan->gpus;
    }
    b->message.tp_size = (uint32_t)l->config.tp_size;
    b->message.n_groups = (uint32_t)l->config.groups;
    b->message.instance = b->instance;
    b->message.n_settings = b->settings.n;
    b->message.settings = b->settings.pointer;
    b->message.n_fds = (size_t)b->n_fds;
    b->message.fds = b->pointer;
    return b;
}

void boot_free(struct boot *b)
{
    free(b);
}
