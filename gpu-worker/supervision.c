/* supervision.c - epoll over control socket, signals, timer and one descriptor of the caller. */
#include "gpu-worker/supervision.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fault_point.h"
#include "common/runtime_dir.h"

enum source { SOURCE_CONTROL, SOURCE_SIGNALS, SOURCE_TIMER, SOURCE_OWN, N_SOURCES };

void supervision_take_signals(void)
{
    const int ignored[] = { SIGPIPE, SIGHUP, SIGINT };
    sigset_t set;

    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        signal(ignored[i], SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
}

static bool add(struct supervision *s, int fd, enum source source)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = source };

    return fd < 0 || epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool supervision_open(struct supervision *s, int control, int own_fd, struct config *config,
                      struct board_slot *slot, uint32_t epoch, struct err *e)
{
    const struct itimerspec second = { .it_interval.tv_sec = 1, .it_value.tv_sec = 1 };
    sigset_t set;

    *s = (struct supervision){ .control = control,
                               .config = config,
                               .slot = slot,
                               .epoch = epoch,
                               .orphan_deadline_ns = UINT64_MAX };
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->signals = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    s->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (s->epoll < 0 || s->signals < 0 || s->timer < 0 ||
        (control >= 0 && ioctl(control, FIONBIO, &(int){ 1 }) < 0) ||
        timerfd_settime(s->timer, 0, &second, NULL) < 0 || !add(s, control, SOURCE_CONTROL) ||
        !add(s, s->signals, SOURCE_SIGNALS) || !add(s, s->timer, SOURCE_TIMER) ||
        !add(s, own_fd, SOURCE_OWN)) {
        err_set(e, ERR_SYS, errno, "prepare the main loop");
        supervision_close(s);
        return false;
    }
    return true;
}

void supervision_close(struct supervision *s)
{
    if (s->is_orphan) /* whoever is last tidies up after llmd */
        runtime_dir_sweep(s->config->runtime_dir);
    const int fds[] = { s->epoll, s->signals, s->timer };

    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    s->epoll = s->signals = s->timer = -1;
}

static void drain_until(struct supervision *s, uint64_t deadline_ns)
{
    if (!s->is_draining || deadline_ns < s->drain_deadline_ns)
        s->drain_deadline_ns = deadline_ns;
    s->is_draining = true;
}

static uint64_t after_s(uint64_t seconds)
{
    return clock_mono_ns() + seconds * NS_PER_S;
}

static bool setting_is_live(const char *name)
{
    for (int id = 0; id < N_CONFIG; id++)
        if (strcmp(config_name((enum config_id)id), name) == 0)
            return config_is_live((enum config_id)id);
    return false;
}

static void reload(struct supervision *s, const Llmd__Reload *m)
{
    struct err e;

    for (size_t i = 0; i < m->n_settings; i++) {
        const Llmd__Setting *set = m->settings[i];
        if (!setting_is_live(set->name))
            log_warning("setting=%s takes effect at the next start, ignoring it now", set->name);
        else if (!config_set(s->config, set->name, set->value, "reload", &e))
            log_warning("%s, keeping the old value", e.msg);
        else if (strcmp(set->name, "fault_points") == 0 &&
                 !fault_points_set(s->config->fault_points, s->epoch, &e))
            log_warning("%s, none is armed", e.msg);
    }
    log_set_level(config_log_level(s->config));
    log_info("reloaded settings=%zu", m->n_settings);
}

static void be_adopted(struct supervision *s, const Llmd__Adopt *m)
{
    log_info("adopted by llmd pid=%u", m->pid);
    s->is_orphan = false;
    s->orphan_deadline_ns = UINT64_MAX;
    s->is_adopted = true;
}

static void lose_llmd(struct supervision *s)
{
    log_warning("llmd is gone, serving on for %llu s unless adopted",
                (unsigned long long)s->config->orphan_timeout_s);
    epoll_ctl(s->epoll, EPOLL_CTL_DEL, s->control, NULL);
    s->control = -1;
    s->is_orphan = true;
    s->orphan_deadline_ns = after_s(s->config->orphan_timeout_s);
}

static void take_message(struct supervision *s, const struct control_msg *m)
{
    const Llmd__Drain *drain = m->body;

    switch (m->type) {
    case MSG_DRAIN:
        drain_until(s, drain->deadline_ns);
        break;
    case MSG_RELOAD:
        reload(s, m->body);
        break;
    case MSG_ADOPT:
        be_adopted(s, m->body);
        break;
    default:
        log_warning("llmd sent %s, which is not for a worker, ignoring", msg_name(m->type));
    }
}

static void take_control(struct supervision *s)
{
    struct control_msg m;
    struct err e;

    while (s->control >= 0) {
        switch (control_recv(s->control, &m, &e)) {
        case CONTROL_EMPTY:
            return;
        case CONTROL_CLOSED:
            lose_llmd(s);
            return;
        case CONTROL_FAILED:
            log_warning("control socket: %s, ignoring the message", e.msg);
            break;
        case CONTROL_OK:
            take_message(s, &m);
            control_msg_fini(&m);
            break;
        }
    }
}

static void take_signals(struct supervision *s)
{
    struct signalfd_siginfo info;

    while (read(s->signals, &info, sizeof info) == sizeof info)
        drain_until(s, s->is_draining ? clock_mono_ns() : after_s(s->config->drain_timeout_s));
}

static void take_timer(struct supervision *s)
{
    uint64_t n_ticks;

    if (read(s->timer, &n_ticks, sizeof n_ticks) != sizeof n_ticks)
        return;
    if (clock_mono_ns() >= s->orphan_deadline_ns) {
        log_warning("nobody adopted this worker, draining");
        s->orphan_deadline_ns = UINT64_MAX;
        drain_until(s, after_s(s->config->drain_timeout_s));
    }
}

/* Whole milliseconds, rounded up so that the loop does not spin in the last one. */
static int timeout_ms(uint64_t wake_ns)
{
    uint64_t now = clock_mono_ns(), ms;

    if (wake_ns <= now)
        return 0;
    ms = (wake_ns - now + NS_PER_MS - 1) / NS_PER_MS;
    return ms > 60000 ? 60000 : (int)ms;
}

bool supervision_wait(struct supervision *s, uint64_t wake_ns, struct err *e)
{
    struct epoll_event events[N_SOURCES];
    int n = epoll_wait(s->epoll, events, N_SOURCES, timeout_ms(wake_ns));

    if (n < 0 && errno != EINTR)
        return err_set(e, ERR_SYS, errno, "wait for events");
    atomic_store_explicit(&s->slot->heartbeat_ns, clock_mono_ns(), memory_order_relaxed);
    for (int i = 0; i < n; i++) {
        switch ((enum source)events[i].data.u32) {
        case SOURCE_CONTROL:
            take_control(s);
            break;
        case SOURCE_SIGNALS:
            take_signals(s);
            break;
        case SOURCE_TIMER:
            take_timer(s);
            break;
        case SOURCE_OWN:
        case N_SOURCES:
            break;
        }
    }
    return true;
}
