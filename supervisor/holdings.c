/* holdings.c - one list of what llmd holds, walked for the fd store and for exec. */
#include "supervisor/holdings.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "supervisor/llmd.h"
#include "supervisor/state.h"

void holdings_control_name(uint32_t slot, char *out, unsigned long n)
{
    snprintf(out, n, "llmd-ctl-%u", slot);
}

void holdings_pidfd_name(uint32_t slot, char *out, unsigned long n)
{
    snprintf(out, n, "llmd-pid-%u", slot);
}

void holdings_of_service(const struct llmd *l, holdings_visit_fn *visit, void *arg)
{
    segments_each(&l->segments, visit, arg);
    gpu_memory_each(&l->gpu, visit, arg);
    for (uint32_t i = 0; i < l->listeners.n; i++)
        if (!l->listeners.is_activated[i])
            visit(arg, "llmd-listen", l->listeners.fd[i]);
    if (l->kept.park.in >= 0) {
        visit(arg, "llmd-park-in", l->kept.park.in);
        visit(arg, "llmd-park-out", l->kept.park.out);
    }
    visit(arg, state_name(l->state_serial), l->state_fd);
}

static void visit_team(const struct team *t, holdings_visit_fn *visit, void *arg)
{
    for (uint32_t i = 0; i < t->n_members; i++) {
        const struct process *p = &t->members[i];
        char name[FDSTORE_NAME_BYTES];
        holdings_control_name(p->slot_index, name, sizeof name);
        if (p->child.pid != 0 && p->child.control >= 0)
            visit(arg, name, p->child.control);
        holdings_pidfd_name(p->slot_index, name, sizeof name);
        if (p->child.pid != 0 && p->child.pidfd >= 0)
            visit(arg, name, p->child.pidfd);
    }
}

void holdings_of_children(const struct llmd *l, holdings_visit_fn *visit, void *arg)
{
    visit_team(&l->gateway, visit, arg);
    for (uint32_t g = 0; g < l->n_groups; g++)
        visit_team(&l->groups[g], visit, arg);
    for (uint32_t i = 0; i < l->kept.n_open; i++)
        visit(arg, "llmd-c", l->kept.by_slot[l->kept.open[i]].fd);
}

void holdings_of_activation(const struct llmd *l, holdings_visit_fn *visit, void *arg)
{
    for (uint32_t i = 0; i < l->listeners.n; i++)
        if (l->listeners.is_activated[i])
            visit(arg, "listen", l->listeners.fd[i]);
}

static void put(void *arg, const char *name, int fd)
{
    fdstore_put(arg, name, fd, false);
}

void holdings_store(struct llmd *l)
{
    holdings_of_service(l, put, &l->store);
}

/* Put before the older one is removed, so that there is always one. */
bool holdings_write_state(struct llmd *l, struct err *e)
{
    const struct state state = { .instance = l->instance,
                                 .serial = l->state_serial + 1,
                                 .config = &l->config,
                                 .plan = l->plan };
    int fd = state_make(&state, e);

    if (fd < 0)
        return false;
    if (l->state_fd >= 0) {
        fdstore_put(&l->store, state_name(state.serial), fd, false);
        fdstore_remove(&l->store, state_name(l->state_serial));
        close(l->state_fd);
    }
    l->state_fd = fd;
    l->state_serial++;
    return true;
}

static void forget(void *arg, const char *name, int fd)
{
    (void)fd;
    fdstore_remove(arg, name);
}

void holdings_forget(struct llmd *l)
{
    if (l->state_fd < 0)
        return;
    for (uint32_t i = 0; i < STATE_NAMES; i++) /* first: from here on the set is not complete */
        fdstore_remove(&l->store, state_name(i));
    segments_each(&l->segments, forget, &l->store);
    gpu_memory_each(&l->gpu, forget, &l->store);
    fdstore_remove(&l->store, "llmd-listen");
    fdstore_remove(&l->store, "llmd-c");
    fdstore_remove(&l->store, "llmd-park-in");
    fdstore_remove(&l->store, "llmd-park-out");
}

/* Connections are dropped by the store when their clients have gone. */
static void put_child(void *arg, const char *name, int fd)
{
    fdstore_put(arg, name, fd, strcmp(name, "llmd-c") == 0);
}

void holdings_store_all(struct llmd *l)
{
    holdings_of_children(l, put_child, &l->store);
    holdings_store(l);
}

void holdings_forget_all(struct llmd *l)
{
    holdings_forget(l);
    holdings_of_children(l, forget, &l->store);
}
