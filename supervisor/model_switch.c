/* model_switch.c - see model_switch.h.
 *
 * Order at the end.  The second llmd is killed first and its socket is read to the end: what it stored with
 * its last breath is there, and nobody but us acts for its children.  Then our own names are taken out of
 * our manager's store, because those of the new service are the same; a death between that and
 * model_switch_finish() would be a cold start. */
#include "supervisor/model_switch.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/mem.h"
#include "common/runtime_dir.h"
#include "supervisor/drain.h"
#include "supervisor/holdings.h"
#include "supervisor/init/launch.h"
#include "supervisor/llmd.h"
#include "supervisor/pidfd.h"
#include "supervisor/successor.h"

enum { FDS_MAX = 16384, NOTICES_PER_TURN = 256 };

static const char former_prefix[] = "llmd-former-";

/* ---- its arguments: ours, with another model ---- */

static size_t count(char *const *argv)
{
    size_t n = 0;

    while (argv[n])
        n++;
    return n;
}

static char *option(const char *name, const char *value)
{
    size_t n = strlen(name) + strlen(value) + 4;
    char *text = mem_alloc(n);

    snprintf(text, n, "--%s=%s", name, value);
    return text;
}

static void add_option(char **argv, size_t *n, const char *name, const char *value)
{
    argv[(*n)++] = option(name, value);
}

/* Returned: NULL-terminated, caller frees with free_arguments().  beside: for the second llmd. */
static char **arguments(const struct llmd *l, const char *model, bool beside)
{
    const char *old = l->options.value[CONFIG_model];
    char **argv = mem_zalloc(count(l->options.argv) + 5, sizeof *argv);
    char dir[CONFIG_TEXT_BYTES + 8];
    size_t n = 0;

    for (size_t i = 0; l->options.argv[i]; i++) {
        const char *arg = l->options.argv[i];
        bool has_old = old && old >= arg && old <= arg + strlen(arg);
        if (!has_old)
            argv[n++] = mem_strdup(arg);
        else if (old == arg) /* "DIR", behind --model or alone */
            argv[n++] = mem_strdup(model);
        else
            add_option(argv, &n, "model", model);
    }
    if (!old)
        add_option(argv, &n, "model", model);
    if (beside) {
        snprintf(dir, sizeof dir, "%s/next", l->config.runtime_dir);
        add_option(argv, &n, "runtime-dir", dir);
        argv[n++] = mem_strdup("--gateway-last");
    }
    return argv;
}

static void free_arguments(char **argv)
{
    for (size_t i = 0; argv[i]; i++)
        free(argv[i]);
    free(argv);
}

/* ---- the end of it ---- */

/* Forget what it has built, and end who works on it. */
static void end_second(struct model_switch *m)
{
    for (uint32_t i = 0; i < m->store.n; i++)
        if (strncmp(m->store.fds[i].name, "llmd-pid-", 9) == 0)
            pidfd_signal(m->store.fds[i].fd, SIGKILL);
    if (m->pidfd >= 0)
        pidfd_signal(m->pidfd, SIGKILL);
}

static void sweep_runtime_dir(const struct model_switch *m)
{
    char dir[CONFIG_TEXT_BYTES + 8];

    snprintf(dir, sizeof dir, "%s/next", m->llmd->config.runtime_dir);
    runtime_dir_sweep(dir);
}

void model_switch_stop(struct model_switch *m)
{
    if (!m->llmd)
        return;
    end_second(m);
    sd_event_source_disable_unref(m->on_notice);
    sd_event_source_disable_unref(m->on_hangup);
    sd_event_source_disable_unref(m->on_exit);
    sd_event_source_disable_unref(m->timer);
    fd_store_fini(&m->store);
    notify_socket_close(&m->socket);
    if (m->pidfd >= 0)
        close(m->pidfd);
    if (m->epoll >= 0)
        close(m->epoll);
    if (m->asker >= 0)
        close(m->asker);
    free(m->model);
    *m = (struct model_switch){ .llmd = NULL };
}

static void give_up(struct model_switch *m, const char *why)
{
    log_error("event=model_switch_failed model=\"%s\" error=\"%s\", the old one is served on",
              m->model, why);
    sweep_runtime_dir(m);
    upgrade_answer(m->asker, why);
    m->asker = -1;
    model_switch_stop(m);
}

/* ---- becoming the llmd of the new service ---- */

static void visit_former(void *arg, const char *name, int fd)
{
    struct successor_row *row = arg;
    char former[FDSTORE_NAME_BYTES];

    if (strncmp(name, "llmd-ctl-", 9) != 0 && strncmp(name, "llmd-pid-", 9) != 0)
        return; /* the old gateway has its connections, and nobody takes them over any more */
    snprintf(former, sizeof former, "%s%s", former_prefix, name + strlen("llmd-"));
    successor_add(row, former, fd);
}

/* What the second llmd stored, but for the listening sockets that it had from us; those; and the old
 * processes. */
static void fill(const struct llmd *l, struct successor_row *row)
{
    const struct fd_store *s = &l->model_switch.store;

    for (uint32_t i = 0; i < s->n; i++)
        if (strncmp(s->fds[i].name, "llmd-", 5) == 0)
            successor_add(row, s->fds[i].name, s->fds[i].fd);
    for (uint32_t i = 0; i < l->listeners.n; i++)
        successor_add(row, l->listeners.is_activated[i] ? "listen" : "llmd-listen",
                      l->listeners.fd[i]);
    holdings_of_children(l, visit_former, row);
}

static void switch_now(struct model_switch *m)
{
    struct llmd *l = m->llmd;
    char **argv = arguments(l, m->model, false);
    const struct successor next = { .fill = fill, .argv = argv, .asker = m->asker };
    struct err e = { 0 };

    log_info("event=model_switch model=\"%s\"", m->model);
    sweep_runtime_dir(m);
    holdings_forget_all(l);
    if (fdstore_sync(&l->store)) /* else the next llmd would find two sets under the same names */
        successor_exec(l, &next, &e);
    else
        err_set(&e, ERR_TIMEOUT, 0, "the service manager does not read what it is told");
    holdings_store_all(l); /* it failed: as before */
    free_arguments(argv);
    give_up(m, e.msg);
}

/* ---- what it says ---- */

static void take_notice(struct model_switch *m, const struct notice *n, struct datagram *d)
{
    if (n->removes_fds && n->has_name)
        fd_store_remove(&m->store, n->fd_name);
    for (int i = 0; n->stores_fds && i < d->n_fds; i++)
        fd_store_add(&m->store, d->fds[i], n->fd_name, n->polls_fds);
    if (!n->stores_fds)
        datagram_close_fds(d);
    if (n->has_status)
        snprintf(m->status, sizeof m->status, "%s", n->status);
    if (!n->is_ready || m->is_ready)
        return;
    m->is_ready = true;
    log_info("event=model_ready model=\"%s\" fds=%u", m->model, m->store.n);
    pidfd_signal(m->pidfd, SIGKILL);
}

static bool take_one(struct model_switch *m)
{
    struct datagram d;
    struct notice n;

    if (!notify_socket_receive(&m->socket, &d))
        return false;
    if (d.pid == m->pid && d.is_whole && notice_parse(&n, d.bytes, (size_t)d.n))
        take_notice(m, &n, &d);
    else
        datagram_close_fds(&d);
    return true;
}

static int on_notice(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source, (void)fd, (void)revents;
    for (int i = 0; i < NOTICES_PER_TURN && take_one(arg); i++) {
    }
    return 0;
}

/* Connections of the new gateway whose clients have left. */
static int on_hangup(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct model_switch *m = arg;
    struct epoll_event events[64];
    int n = epoll_wait(m->epoll, events, 64, 0);

    (void)source, (void)fd, (void)revents;
    for (int i = 0; i < n; i++)
        fd_store_hung_up(&m->store, events[i].data.fd);
    return 0;
}

static int on_exit_seen(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct model_switch *m = arg;

    (void)source, (void)fd, (void)revents;
    while (take_one(m)) {
    }
    if (m->is_ready)
        switch_now(m);
    else
        give_up(m, m->status[0] ? m->status
                                : "the llmd that was to serve it ended; its log lines say why");
    return 0;
}

static int on_late(sd_event_source *source, uint64_t usec, void *arg)
{
    (void)source, (void)usec;
    give_up(arg, "the model was not ready within start_timeout_s");
    return 0;
}

/* ---- the beginning ---- */

static bool watch(struct model_switch *m, struct err *e)
{
    const struct config *c = &m->llmd->config;
    uint64_t late_us = (clock_mono_ns() + c->start_timeout_s * NS_PER_S) / 1000;
    sd_event *event = m->llmd->event;
    int r = sd_event_add_io(event, &m->on_notice, m->socket.fd, EPOLLIN, on_notice, m);

    if (r >= 0)
        r = sd_event_add_io(event, &m->on_hangup, m->epoll, EPOLLIN, on_hangup, m);
    if (r >= 0)
        r = sd_event_add_io(event, &m->on_exit, m->pidfd, EPOLLIN, on_exit_seen, m);
    if (r >= 0)
        r = sd_event_add_time(event, &m->timer, CLOCK_MONOTONIC, late_us, 0, on_late, m);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch the llmd of the new model");
}

static bool launch(struct model_switch *m, struct err *e)
{
    struct llmd *l = m->llmd;
    char **argv = arguments(l, m->model, true);
    const struct launch launch = { .path = l->self_path,
                                   .argv = argv,
                                   .store = &m->store,
                                   .notify_address = m->socket.address,
                                   .death_signal = SIGTERM };

    for (uint32_t i = 0; i < l->listeners.n; i++)
        fd_store_add(&m->store, fcntl(l->listeners.fd[i], F_DUPFD_CLOEXEC, 3), "listen", false);
    m->pid = launch_start(&launch, e);
    free_arguments(argv);
    if (m->pid < 0)
        return false;
    m->pidfd = pidfd_of(m->pid);
    return m->pidfd >= 0 || err_set(e, ERR_SYS, errno, "watch process %d", (int)m->pid);
}

static bool may_start(const struct llmd *l, const char *model, struct err *e)
{
    struct stat st;

    if (l->phase != LLMD_SERVING || !l->was_ready)
        return err_set(e, ERR_CONFIG, 0, "cannot switch models: llmd is %s", llmd_state(l));
    if (l->model_switch.llmd || l->former.by_slot || l->upgrade.llmd || upgrade_is_on(l))
        return err_set(e, ERR_CONFIG, 0,
                       "an upgrade, a restart or another switch of the model is going on");
    if (model[0] != '/' || stat(model, &st) < 0 || (!S_ISDIR(st.st_mode) && !S_ISREG(st.st_mode)))
        return err_set(e, ERR_CONFIG, 0, "model '%s': no such folder or file", model);
    return true;
}

bool model_switch_start(struct model_switch *m, struct llmd *l, const char *model, int asker,
                        struct err *e)
{
    if (!may_start(l, model, e))
        return false;
    *m = (struct model_switch){ .llmd = l, .pidfd = -1, .socket.fd = -1 };
    m->model = mem_strdup(model);
    m->asker = fcntl(asker, F_DUPFD_CLOEXEC, 3);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    fd_store_init(&m->store, m->epoll, FDS_MAX);
    if (m->epoll < 0)
        err_set(e, ERR_SYS, errno, "make an epoll set");
    else if (notify_socket_open(&m->socket, e) && launch(m, e) && watch(m, e)) {
        log_info("event=model_loading model=\"%s\" llmd=%d", model, (int)m->pid);
        return true;
    }
    model_switch_stop(m);
    return false;
}

void model_switch_describe(const struct llmd *l, char *out, size_t n)
{
    out[0] = '\0';
    if (l->model_switch.llmd)
        snprintf(out, n, "loading the model '%s'", l->model_switch.model);
    else if (l->phase != LLMD_INSPECTING && l->former.by_slot)
        snprintf(out, n, "%u processes of the model before finish their requests",
                 l->former.n_alive);
}

/* ---- after the exec ---- */

static void on_old_gone(void *arg)
{
    log_info("event=model_switched: the processes of the old model have finished");
    drain_former_gone(arg);
}

static bool is_former(const struct passed_fd *p)
{
    return p->fd >= 0 && strncmp(p->name, former_prefix, sizeof former_prefix - 1) == 0;
}

void model_switch_finish(struct llmd *l)
{
    bool any = false;

    for (uint32_t i = 0; i < l->passed.n; i++) {
        const struct passed_fd *p = &l->passed.list[i];
        if (!is_former(p))
            continue;
        any = true;
        fdstore_put(&l->store, p->name, p->fd, false);
    }
    if (!any)
        return;
    holdings_store_all(l);
    former_start(&l->former,
                 &(struct former_call){ .event = l->event,
                                        .from = &l->passed,
                                        .prefix = former_prefix,
                                        .store = &l->store,
                                        .timeout_ns = l->config.drain_timeout_s * NS_PER_S,
                                        .done = on_old_gone,
                                        .arg = l });
}
