/* signals.c - see signals.h. */
#include "supervisor/signals.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "supervisor/drain.h"
#include "supervisor/llmd.h"
#include "supervisor/reload.h"

static int on_stop_signal(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    (void)s;
    log_info("signal=%u from_pid=%u", info->ssi_signo, info->ssi_pid);
    drain_ask(arg);
    return 0;
}

/* SIGHUP is the operator's order to reload, and what the kernel sends when the terminal that llmd was
 * started on is closed: then nobody is left to end it. */
static int on_hangup(sd_event_source *s, const struct signalfd_siginfo *info, void *arg)
{
    struct llmd *l = arg;
    struct err e = { 0 };

    (void)s, (void)info;
    if (l->on_terminal && !isatty(STDERR_FILENO))
        drain_ask(l);
    else
        reload_settings(l, &e);
    return 0;
}

static struct child *find_child(struct llmd *l, pid_t pid)
{
    if (l->inspect.capture.child.pid == pid)
        return &l->inspect.capture.child;
    if (l->upgrade.probe.child.pid == pid)
        return &l->upgrade.probe.child;
    for (uint32_t i = 0; i < l->gateway.n_members; i++)
        if (l->gateway.members[i].child.pid == pid)
            return &l->gateway.members[i].child;
    for (uint32_t g = 0; g < l->n_groups; g++)
        for (uint32_t i = 0; i < l->groups[g].n_members; i++)
            if (l->groups[g].members[i].child.pid == pid)
                return &l->groups[g].members[i].child;
    for (uint32_t g = 0; g < l->n_groups; g++)
        if (l->groups[g].gpu_check.capture.child.pid == pid)
            return &l->groups[g].gpu_check.capture.child;
    return NULL;
}

/* llmd is a subreaper: whatever its children leave behind ends up here and must not stay a zombie.  Our
 * own are reported by their pidfds as well; who comes first takes the exit. */
static int on_child_signal(sd_event_source *s, const struct signalfd_siginfo *signal_info,
                           void *arg)
{
    struct llmd *l = arg;

    (void)s, (void)signal_info;
    for (;;) {
        siginfo_t info = { 0 };
        struct child *c;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
            return 0;
        c = find_child(l, info.si_pid);
        if (c) {
            child_reap(c);
        } else {
            log_debug("pid=%d event=stranger_reaped", (int)info.si_pid);
            waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
        }
    }
}

bool signals_open(struct llmd *l)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    return sd_event_add_signal(l->event, NULL, SIGTERM, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGINT, on_stop_signal, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGHUP, on_hangup, l) >= 0 &&
           sd_event_add_signal(l->event, NULL, SIGCHLD, on_child_signal, l) >= 0;
}
