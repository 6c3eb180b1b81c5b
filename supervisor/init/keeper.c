/* keeper.c - the loop of llm-init: one thread, one epoll, no memory taken after the start.
 *
 *             PAUSE_OVER            READY
 *   PAUSED -------------> STARTING ------> SERVING
 *     ^                      | DIED           | DIED
 *     +----------------------+----------------+
 *   FINAL in any of these: ENDED.   KILL in any of these: KILLING, and at GONE: ENDED.
 *
 * What a death means is decided in after_death.c.  Always true:
 *
 * - What llmd has said is heard before its death is noticed, so a descriptor it stored with its last breath
 *   is there for the next one.
 * - Only the process llmd itself is listened to (SCM_CREDENTIALS); its children have nothing to say here.
 * - Every orphan is reaped: as PID 1, and as a subreaper in any other place.
 *
 * Stopping.  The first SIGTERM or SIGINT begins it, or llmd saying STOPPING=1 (an operator's drain).  A llmd
 * that is killed while it drains is started again: it takes over its children, sees on the board that they
 * are draining, and finishes that.  If none ever said that it stops, the new one is sent SIGTERM.  All this ends
 * after stop_timeout_s, which EXTEND_TIMEOUT_USEC moves, or with the fifth such death.
 *
 * Nothing but SIGKILL ends llm-init itself: other signals are blocked. */
#include "supervisor/init/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "supervisor/init/launch.h"
#include "supervisor/init/notice.h"

enum { EVENTS_PER_TURN = 64, NOTICES_PER_TURN = 1024, FDS_FOR_OURSELVES = 64 };

#define ABORT_PATIENCE_NS    (1 * NS_PER_S) /* from SIGABRT to SIGKILL */
#define KILL_PATIENCE_NS     (5 * NS_PER_S)
#define LATE_NS              (500 * NS_PER_MS)
#define STRANGER_INTERVAL_NS (60 * NS_PER_S)

static const char *const state_names[N_KEEPER_STATES] = { "paused", "starting", "serving",
                                                          "killing", "ended" };
static const char *const event_names[N_KEEPER_EVENTS] = { "pause_over", "ready", "died",
                                                          "final",      "kill",  "gone" };

static void keeper_handle(struct keeper *k, enum keeper_event ev);

static void arm_in(struct keeper *k, enum keeper_timer timer, uint64_t ns)
{
    k->due_ns[timer] = clock_mono_ns() + ns;
}

static void disarm(struct keeper *k, enum keeper_timer timer)
{
    k->due_ns[timer] = 0;
}

static bool has_children(void)
{
    siginfo_t info;

    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

/* ---- llmd ---- */

static void forward(struct keeper *k, int sig)
{
    if (k->pid == 0)
        return;
    kill(k->pid, sig); /* not reaped yet, so still ours */
    if (sig == SIGTERM || sig == SIGINT)
        k->was_asked_to_stop = true;
}

static void feed_watchdog(struct keeper *k)
{
    if (k->options->watchdog_s && k->pid)
        arm_in(k, KEEPER_TIMER_WATCHDOG, k->options->watchdog_s * NS_PER_S);
}

static void begin_stopping(struct keeper *k)
{
    if (!k->row.is_stopping)
        arm_in(k, KEEPER_TIMER_STOP, k->options->stop_timeout_s * NS_PER_S);
    k->row.is_stopping = true;
}

/* Judge a death, and let the machine go on. */
static void mourn(struct keeper *k, const struct death *d)
{
    static const enum keeper_event events[] = { [DEATH_RESTART] = KEEPER_EV_DIED,
                                                [DEATH_FINAL] = KEEPER_EV_FINAL,
                                                [DEATH_KILL] = KEEPER_EV_KILL };
    struct death_verdict v = after_death(&k->row, d);

    k->exit_code = v.exit_code;
    if (v.answer == DEATH_RESTART) {
        log_warning("event=llmd_died %s=%d served_ms=%llu fds=%u again_in_ms=%llu",
                    d->by_signal ? "signal" : "exit_code", d->status,
                    (unsigned long long)(d->served_ns / NS_PER_MS), k->store.n,
                    (unsigned long long)v.pause_ms);
        arm_in(k, KEEPER_TIMER_PAUSE, v.pause_ms * NS_PER_MS);
    }
    keeper_handle(k, events[v.answer]);
}

static void act_start(struct keeper *k)
{
    const struct launch launch = { .path = k->path,
                                   .argv = k->options->argv,
                                   .store = &k->store,
                                   .notify_address = k->notify.address,
                                   .watchdog_us = k->options->watchdog_s * 1000000 };
    struct err e = { 0 };
    pid_t pid = launch_start(&launch, &e);

    k->ready_ns = 0;
    k->was_asked_to_stop = k->says_stopping = false;
    if (pid < 0) { /* no memory, no room for a process: as if it had died */
        log_error("%s", e.msg);
        mourn(k, &(struct death){ .by_signal = true, .has_children = has_children() });
        return;
    }
    k->pid = pid;
    log_info("event=llmd_started pid=%d fds=%u", (int)pid, k->store.n);
    feed_watchdog(k);
    if (k->is_stop_wanted && !k->some_said_stopping)
        forward(k, SIGTERM);
}

static void act_serve(struct keeper *k)
{
    k->ready_ns = clock_mono_ns();
    k->row.was_ever_ready = true;
    if (k->row.is_stopping && !k->says_stopping && !k->was_asked_to_stop)
        forward(k, SIGTERM); /* it has not understood */
}

static void act_pause(struct keeper *k)
{
    (void)k; /* the timer is armed */
}

/* As PID 1 one call reaches all.  Elsewhere: our children now, and theirs when they have become ours. */
static void kill_children(void)
{
    char path[64], text[4096], *at = text, *end;
    ssize_t n;
    int fd;

    if (getpid() == 1) {
        kill(-1, SIGKILL);
        return;
    }
    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd >= 0 ? read(fd, text, sizeof text - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    if (fd >= 0)
        close(fd);
    for (long pid; (pid = strtol(at, &end, 10)) > 0 && end != at; at = end)
        if (*end) /* a number that was cut off comes with the next look */
            kill((pid_t)pid, SIGKILL);
}

static void act_kill(struct keeper *k)
{
    log_error("event=killing_what_is_left, it did not end in time");
    k->exit_code = EXIT_CODE_KILLED;
    if (k->pid)
        kill(k->pid, SIGKILL);
    kill_children();
    arm_in(k, KEEPER_TIMER_KILL, KILL_PATIENCE_NS);
}

static void act_end(struct keeper *k)
{
    log_info("event=end exit_code=%d fds=%u", k->exit_code, k->store.n);
}

struct keeper_edge {
    enum keeper_state to;
    void (*act)(struct keeper *k); /* NULL: late news */
};

static const struct keeper_edge edges[N_KEEPER_STATES][N_KEEPER_EVENTS] = {
    [KEEPER_PAUSED] = { [KEEPER_EV_PAUSE_OVER] = { KEEPER_STARTING, act_start },
                        [KEEPER_EV_FINAL] = { KEEPER_ENDED, act_end },
                        [KEEPER_EV_KILL] = { KEEPER_KILLING, act_kill } },
    [KEEPER_STARTING] = { [KEEPER_EV_READY] = { KEEPER_SERVING, act_serve },
                          [KEEPER_EV_DIED] = { KEEPER_PAUSED, act_pause },
                          [KEEPER_EV_FINAL] = { KEEPER_ENDED, act_end },
                          [KEEPER_EV_KILL] = { KEEPER_KILLING, act_kill } },
    [KEEPER_SERVING] = { [KEEPER_EV_DIED] = { KEEPER_PAUSED, act_pause },
                         [KEEPER_EV_FINAL] = { KEEPER_ENDED, act_end },
                         [KEEPER_EV_KILL] = { KEEPER_KILLING, act_kill } },
    [KEEPER_KILLING] = { [KEEPER_EV_GONE] = { KEEPER_ENDED, act_end } },
};

/* The only function that changes .state. */
static void keeper_handle(struct keeper *k, enum keeper_event ev)
{
    const struct keeper_edge *edge = &edges[k->state][ev];

    if (!edge->act)
        return;
    log_debug("from=%s to=%s event=%s", state_names[k->state], state_names[edge->to],
              event_names[ev]);
    k->state = edge->to;
    edge->act(k);
}

/* ---- what llmd says ---- */

static void take_fds(struct keeper *k, const struct notice *n, struct datagram *d)
{
    if (n->removes_fds && n->has_name)
        fd_store_remove(&k->store, n->fd_name);
    if (!n->stores_fds) { /* a barrier, or nothing we know */
        datagram_close_fds(d);
        return;
    }
    for (int i = 0; i < d->n_fds; i++)
        fd_store_add(&k->store, d->fds[i], n->fd_name, n->polls_fds);
}

static void take_notice(struct keeper *k, const struct notice *n)
{
    feed_watchdog(k); /* whatever it says, its loop turns */
    if (n->has_status)
        log_debug("status=\"%s\"", n->status);
    if (n->is_stopping) {
        k->says_stopping = k->some_said_stopping = true;
        begin_stopping(k);
    }
    if (n->extend_us && k->row.is_stopping && k->state != KEEPER_KILLING) {
        uint64_t due_ns = clock_mono_ns() + n->extend_us * 1000;
        if (due_ns > k->due_ns[KEEPER_TIMER_STOP])
            k->due_ns[KEEPER_TIMER_STOP] = due_ns;
    }
    if (n->is_ready)
        keeper_handle(k, KEEPER_EV_READY);
}

static void refuse_stranger(struct keeper *k, pid_t pid)
{
    uint64_t now = clock_mono_ns();

    if (k->stranger_said_ns && now - k->stranger_said_ns < STRANGER_INTERVAL_NS)
        return;
    k->stranger_said_ns = now;
    log_warning("event=stranger pid=%d llmd_pid=%d, ignoring what it says", (int)pid, (int)k->pid);
}

static void read_notices(struct keeper *k)
{
    struct datagram d;
    struct notice n;

    for (int i = 0; i < NOTICES_PER_TURN && notify_socket_receive(&k->notify, &d); i++) {
        bool is_llmd = k->pid > 0 && d.pid == k->pid;
        if (is_llmd && d.is_whole && notice_parse(&n, d.bytes, (size_t)d.n)) {
            take_fds(k, &n, &d);
            take_notice(k, &n);
            continue;
        }
        datagram_close_fds(&d);
        if (!is_llmd)
            refuse_stranger(k, d.pid);
        else
            log_warning("event=bad_notice bytes=%zd fds=%d, ignoring it", d.n, d.n_fds);
    }
}

/* ---- who ended ---- */

static void note_death(struct keeper *k, const siginfo_t *info)
{
    struct death d = { .by_signal = info->si_code != CLD_EXITED, .status = info->si_status };

    if (k->ready_ns)
        d.served_ns = clock_mono_ns() - k->ready_ns + 1;
    d.has_children = has_children();
    k->pid = 0;
    disarm(k, KEEPER_TIMER_WATCHDOG);
    disarm(k, KEEPER_TIMER_ABORT);
    if (k->state != KEEPER_KILLING)
        mourn(k, &d);
}

static void reap(struct keeper *k)
{
    siginfo_t info = { 0 };

    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid > 0) {
        pid_t pid = info.si_pid;
        if (pid == k->pid)
            read_notices(k); /* its last words */
        waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG);
        if (pid == k->pid)
            note_death(k, &info);
        else
            log_debug("event=orphan_reaped pid=%d", (int)pid);
        info.si_pid = 0;
    }
    if (k->state != KEEPER_KILLING)
        return;
    if (has_children())
        kill_children();
    else
        keeper_handle(k, KEEPER_EV_GONE);
}

/* ---- signals and time ---- */

/* No llmd runs just now: one is needed only if there is something to finish. */
static void stop_without_llmd(struct keeper *k)
{
    if (has_children())
        arm_in(k, KEEPER_TIMER_PAUSE, 0);
    else
        keeper_handle(k, KEEPER_EV_FINAL);
}

static void take_signal(struct keeper *k, const struct signalfd_siginfo *info)
{
    int sig = (int)info->ssi_signo;

    log_info("signal=%d from_pid=%u", sig, info->ssi_pid);
    if (sig == SIGTERM || sig == SIGINT) {
        k->is_stop_wanted = true;
        begin_stopping(k);
        if (k->state == KEEPER_PAUSED)
            stop_without_llmd(k);
    }
    forward(k, sig);
}

static void read_signals(struct keeper *k)
{
    struct signalfd_siginfo info;

    while (read(k->signals, &info, sizeof info) == sizeof info) {
        if (info.ssi_signo == SIGCHLD)
            reap(k);
        else
            take_signal(k, &info);
    }
}

static void on_pause_over(struct keeper *k, uint64_t late_ns)
{
    (void)late_ns;
    keeper_handle(k, KEEPER_EV_PAUSE_OVER);
}

/* When we are late ourselves, everything has stood still: llmd gets a new chance. */
static void on_watchdog(struct keeper *k, uint64_t late_ns)
{
    if (late_ns > LATE_NS) {
        log_warning("event=stood_still late_ms=%llu, watching anew",
                    (unsigned long long)(late_ns / NS_PER_MS));
        feed_watchdog(k);
        return;
    }
    log_error("event=watchdog pid=%d silent_s=%llu, sending SIGABRT", (int)k->pid,
              (unsigned long long)k->options->watchdog_s);
    forward(k, SIGABRT);
    forward(k, SIGCONT); /* or one that was stopped would never see it */
    arm_in(k, KEEPER_TIMER_ABORT, ABORT_PATIENCE_NS);
}

static void on_abort(struct keeper *k, uint64_t late_ns)
{
    (void)late_ns;
    log_error("event=watchdog pid=%d, sending SIGKILL", (int)k->pid);
    forward(k, SIGKILL);
}

static void on_stop_timeout(struct keeper *k, uint64_t late_ns)
{
    (void)late_ns;
    keeper_handle(k, KEEPER_EV_KILL);
}

static void on_kill_timeout(struct keeper *k, uint64_t late_ns)
{
    (void)late_ns;
    log_error("event=unkillable, leaving it behind");
    keeper_handle(k, KEEPER_EV_GONE);
}

static void (*const on_timer[N_KEEPER_TIMERS])(struct keeper *, uint64_t late_ns) = {
    [KEEPER_TIMER_PAUSE] = on_pause_over,  [KEEPER_TIMER_WATCHDOG] = on_watchdog,
    [KEEPER_TIMER_ABORT] = on_abort,       [KEEPER_TIMER_STOP] = on_stop_timeout,
    [KEEPER_TIMER_KILL] = on_kill_timeout,
};

static void run_timers(struct keeper *k)
{
    uint64_t now = clock_mono_ns();

    for (int i = 0; i < N_KEEPER_TIMERS; i++) {
        uint64_t due_ns = k->due_ns[i];
        if (due_ns == 0 || now < due_ns)
            continue;
        k->due_ns[i] = 0;
        on_timer[i](k, now - due_ns);
    }
}

/* Milliseconds until the next timer, rounded up; -1 = none. */
static int wait_ms(const struct keeper *k)
{
    uint64_t now = clock_mono_ns(), next = UINT64_MAX;

    for (int i = 0; i < N_KEEPER_TIMERS; i++)
        if (k->due_ns[i] && k->due_ns[i] < next)
            next = k->due_ns[i];
    if (next == UINT64_MAX)
        return -1;
    if (next <= now)
        return 0;
    next = (next - now + NS_PER_MS - 1) / NS_PER_MS;
    return next < INT_MAX ? (int)next : INT_MAX;
}

/* Descriptors that hung up first: later in the turn their numbers may come again. */
static void turn(struct keeper *k)
{
    struct epoll_event events[EVENTS_PER_TURN];
    int n = epoll_wait(k->epoll, events, EVENTS_PER_TURN, wait_ms(k));
    bool has_notices = false, has_signals = false;

    for (int i = 0; i < n; i++) {
        if (events[i].data.fd == k->notify.fd)
            has_notices = true;
        else if (events[i].data.fd == k->signals)
            has_signals = true;
        else
            fd_store_hung_up(&k->store, events[i].data.fd);
    }
    if (has_notices)
        read_notices(k);
    if (has_signals)
        read_signals(k);
    run_timers(k);
}

/* ---- up and down ---- */

/* What a socket or a file of ours must not become. */
static void fill_stdio(void)
{
    int fd;

    do
        fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* As many as may be open, less what we need ourselves. */
static uint32_t find_room(uint64_t wanted)
{
    struct rlimit limit = { 0 };
    uint64_t room;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 0;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    room = limit.rlim_cur > FDS_FOR_OURSELVES ? limit.rlim_cur - FDS_FOR_OURSELVES : 0;
    if (room < wanted)
        log_warning("event=few_descriptors limit=%llu, keeping at most %llu of the %llu wanted",
                    (unsigned long long)limit.rlim_cur, (unsigned long long)room,
                    (unsigned long long)wanted);
    return (uint32_t)(room < wanted ? room : wanted);
}

/* Listening sockets that we were given are for every llmd. */
static void keep_passed_fds(struct keeper *k)
{
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    char name[FD_NAME_BYTES];

    if (!pid || !count || strtol(pid, NULL, 10) != (long)getpid())
        return;
    for (int i = 0, n = atoi(count); i < n; i++) {
        size_t length = names ? strcspn(names, ":") : 0;
        snprintf(name, sizeof name, "%.*s", (int)length, length ? names : "");
        if (fcntl(STDERR_FILENO + 1 + i, F_SETFD, FD_CLOEXEC) == 0)
            fd_store_add(&k->store, STDERR_FILENO + 1 + i, length ? name : "unknown", false);
        if (names)
            names = names[length] ? names + length + 1 : NULL;
    }
}

static bool watch(struct keeper *k, int fd, struct err *e)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

    return (fd >= 0 && epoll_ctl(k->epoll, EPOLL_CTL_ADD, fd, &event) == 0) ||
           err_set(e, ERR_SYS, errno, "watch a descriptor");
}

/* All are blocked; those that mean something are read from a descriptor. */
static bool open_signals(struct keeper *k, struct err *e)
{
    static const int taken[] = { SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT };
    sigset_t all, set;

    sigfillset(&all);
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof taken / sizeof taken[0]; i++)
        sigaddset(&set, taken[i]);
    sigprocmask(SIG_BLOCK, &all, NULL);
    k->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return watch(k, k->signals, e);
}

/* An abstract address that nobody can guess: who may send there could fill its queue. */
static bool open_notify(struct keeper *k, struct err *e)
{
    return notify_socket_open(&k->notify, e) && watch(k, k->notify.fd, e);
}

static bool bring_up(struct keeper *k, struct err *e)
{
    fill_stdio();
    k->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (k->epoll < 0)
        return err_set(e, ERR_SYS, errno, "make the event loop");
    fd_store_init(&k->store, k->epoll, find_room(k->options->fds_max));
    keep_passed_fds(k);
    close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    return launch_find(k->options->argv[0], k->path, sizeof k->path, e) && open_signals(k, e) &&
           open_notify(k, e);
}

int keeper_run(struct keeper *k, const struct keeper_options *options)
{
    struct err e = { 0 };

    *k = (struct keeper){ .options = options, .epoll = -1, .signals = -1, .notify.fd = -1 };
    k->row.pause_max_ms = options->pause_max_ms;
    if (!bring_up(k, &e)) {
        log_error("cannot start: %s", e.msg);
        k->exit_code = 1;
        k->state = KEEPER_ENDED;
    }
    arm_in(k, KEEPER_TIMER_PAUSE, 0);
    while (k->state != KEEPER_ENDED)
        turn(k);
    fd_store_fini(&k->store);
    notify_socket_close(&k->notify);
    close(k->signals);
    close(k->epoll);
    return k->exit_code;
}
