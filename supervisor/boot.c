/* boot.c - pack BOOT and RELOAD. */
#include "supervisor/boot.h"

#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/mem.h"
#include "proto/control.h"
#include "supervisor/llmd.h"

/* Settings as protobuf-c wants them: an array of pointers into one block. */
struct settings {
    Llmd__Setting setting[N_CONFIG];
    Llmd__Setting *pointer[N_CONFIG];
    char value[N_CONFIG][CONFIG_TEXT_BYTES];
    size_t n;
};

static struct settings *settings_new(const struct config *c, bool live_only)
{
    struct settings *s = mem_zalloc(1, sizeof *s);

    for (int i = 0; i < N_CONFIG; i++) {
        if (live_only && !config_is_live((enum config_id)i))
            continue;
        Llmd__Setting *one = &s->setting[s->n];
        llmd__setting__init(one);
        config_value(c, (enum config_id)i, s->value[s->n], CONFIG_TEXT_BYTES);
        one->name = (char *)(uintptr_t)config_name((enum config_id)i);
        one->value = s->value[s->n];
        s->pointer[s->n++] = one;
    }
    return s;
}

struct fd_list {
    Llmd__FdNote note[FDPASS_FDS_MAX];
    Llmd__FdNote *pointer[FDPASS_FDS_MAX];
    int fd[FDPASS_FDS_MAX];
    int n;
};

static void add_fd(struct fd_list *list, Llmd__FdKind kind, uint32_t index, int fd)
{
    Llmd__FdNote *note = &list->note[list->n];

    assert(list->n < FDPASS_FDS_MAX);
    llmd__fd_note__init(note);
    note->kind = kind;
    note->index = index;
    list->pointer[list->n] = note;
    list->fd[list->n++] = fd;
}

static void add_fds(struct fd_list *list, const struct llmd *l, const struct team *t,
                    const struct process *p)
{
    const struct segments *s = &l->segments;

    add_fd(list, LLMD__FD_KIND__FD_BOARD, 0, s->board.segment.fd);
    if (t->kind == TEAM_GATEWAY) {
        add_fd(list, LLMD__FD_KIND__FD_CONNECTIONS, 0, s->connections.segment.fd);
        for (uint32_t i = 0; i < l->listeners.n; i++)
            add_fd(list, LLMD__FD_KIND__FD_LISTEN, i, l->listeners.fd[i]);
        return;
    }
    add_fd(list, LLMD__FD_KIND__FD_LEDGER, t->group, s->ledgers[t->group].segment.fd);
    add_fd(list, LLMD__FD_KIND__FD_KVPOOL, 0, s->kvpool.segment.fd);
    add_fd(list, LLMD__FD_KIND__FD_WEIGHTS, p->rank, s->weights[p->rank].fd);
    add_fd(list, LLMD__FD_KIND__FD_GROUP, t->group, s->groups[t->group].fd);
}

bool boot_send(struct llmd *l, struct team *t, struct process *p, struct err *e)
{
    struct settings *settings = settings_new(&l->config, false);
    struct fd_list fds = { .n = 0 };
    Llmd__Boot boot = LLMD__BOOT__INIT;
    char instance[20];
    bool ok;

    snprintf(instance, sizeof instance, "%016llx", (unsigned long long)l->instance);
    add_fds(&fds, l, t, p);
    boot.slot = p->slot;
    boot.group = t->group;
    boot.rank = p->rank;
    boot.tp_size = (uint32_t)l->config.tp_size;
    boot.n_groups = (uint32_t)l->config.groups;
    boot.epoch = t->epoch;
    boot.instance = instance;
    boot.n_settings = settings->n;
    boot.settings = settings->pointer;
    boot.n_fds = (size_t)fds.n;
    boot.fds = fds.pointer;
    ok = control_send(p->child.control, MSG_BOOT, &boot, fds.fd, fds.n, e);
    free(settings);
    return ok;
}

bool boot_send_settings(int control, const struct config *c, struct err *e)
{
    struct settings *settings = settings_new(c, false);
    Llmd__Boot boot = LLMD__BOOT__INIT;
    bool ok;

    boot.tp_size = (uint32_t)c->tp_size;
    boot.n_groups = (uint32_t)c->groups;
    boot.n_settings = settings->n;
    boot.settings = settings->pointer;
    ok = control_send(control, MSG_BOOT, &boot, NULL, 0, e);
    free(settings);
    return ok;
}

/* The block of settings is found again through its first pointer. */
void boot_fill_live(const struct config *c, Llmd__Reload *reload)
{
    struct settings *settings = settings_new(c, true);

    llmd__reload__init(reload);
    reload->n_settings = settings->n;
    reload->settings = settings->pointer;
}

void boot_free_live(Llmd__Reload *reload)
{
    free((char *)reload->settings - offsetof(struct settings, pointer));
    reload->settings = NULL;
    reload->n_settings = 0;
}
