/* child.c - watch one running child.
 *
 * BOOT is put into the socketpair before the program is started, so a child finds it waiting and a full
 * or closed socket cannot come between.  When pidfd and control socket wake together, what the child
 * said is heard before its exit: FATAL is why it exits.  waitid() is asked by pidfd, never by number.  A
 * child without a pidfd ends when its control socket hangs up. */
#include "supervisor/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"
#include "supervisor/pidfd.h"

/* One child cannot keep the loop to itself; of a dead one all that its socket can hold is heard. */
enum { MESSAGES_PER_WAKE = 64, LAST_MESSAGES_MAX = 1 << 16, LAST_WORDS_MS = 100 };

static void end(struct child *c, const siginfo_t *info)
{
    child_close(c);
    c->events->exited(c->arg, info);
}

static void note_hang_up(struct child *c)
{
    sd_event_source_set_enabled(c->control_source, SD_EVENT_OFF);
    if (c->pidfd < 0)
        end(c, &(siginfo_t){ 0 });
}

static void note_failure(struct child *c, const struct err *e)
{
    log_warning("pid=%d error=\"%s\", ignoring the message", (int)c->pid, e->msg);
    if (e->code == ERR_SYS)
        sd_event_source_set_enabled(c->control_source, SD_EVENT_OFF);
    else if (c->events->message_lost)
        c->events->message_lost(c->arg);
}

/* A message is acted upon before it is taken out: if llmd dies in between, the next one finds it in the socket
 * (all that a child says may come twice). */
static void hear(struct child *c, int messages_max)
{
    struct err e = { 0 };
    struct control_msg m;

    for (int i = 0; i < messages_max && c->control_source; i++) {
        switch (control_peek(c->control, &m, &e)) {
        case CONTROL_EMPTY:
            return;
        case CONTROL_CLOSED: /* its exit follows; the hang-up would wake us until then */
            note_hang_up(c);
            return;
        case CONTROL_FAILED:
            note_failure(c, &e);
            if (e.code == ERR_SYS)
                return;
            control_drop(c->control);
            break;
        case CONTROL_OK:
            c->events->message(c->arg, &m);
            control_msg_fini(&m);
            if (c->control_source)
                control_drop(c->control);
            break;
        }
    }
}

static int on_control(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct child *c = arg;

    (void)fd;
    if (revents & EPOLLOUT) {
        sd_event_source_set_io_events(source, EPOLLIN);
        if (c->events->writable)
            c->events->writable(c->arg);
    }
    if (revents & ~(uint32_t)EPOLLOUT)
        hear(c, MESSAGES_PER_WAKE);
    return 0;
}

static int on_exit_seen(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    (void)source;
    (void)fd;
    (void)revents;
    child_reap(arg);
    return 0;
}

static bool watch_exit(struct child *c, sd_event *event)
{
    return sd_event_add_io(event, &c->exit_source, c->pidfd, EPOLLIN, on_exit_seen, c) >= 0;
}

static bool watch(struct child *c, sd_event *event, struct err *e)
{
    if ((c->control < 0 ||
         sd_event_add_io(event, &c->control_source, c->control, EPOLLIN, on_control, c) >= 0) &&
        (c->pidfd < 0 || watch_exit(c, event)))
        return true;
    return err_set(e, ERR_SYS, errno, "watch process %d", (int)c->pid);
}

static unsigned long inode_of(int fd)
{
    struct stat st = { 0 };

    fstat(fd, &st);
    return (unsigned long)st.st_ino;
}

bool child_start(struct child *c, sd_event *event, struct spawn *spawn, const Llmd__Boot *boot,
                 const int *fds, int n_fds, const struct child_events *events, void *arg,
                 struct err *e)
{
    int pair[2];
    bool ok;

    assert(c->pid == 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_set(e, ERR_SYS, errno, "make a control socket");
    fcntl(pair[0], F_SETFL, O_NONBLOCK); /* ours only: the child's end is the child's choice */
    *c = (struct child){ .events = events, .arg = arg, .control = pair[0], .pidfd = -1 };
    spawn->control_fd = pair[1];
    ok = control_send(c->control, MSG_BOOT, boot, fds, n_fds, e);
    if (ok && events->starting)
        events->starting(arg, c->control, inode_of(pair[1]));
    ok = ok && spawn_start(spawn, &c->pid, &c->pidfd, e);
    close(pair[1]);
    if (ok && !watch(c, event, e)) {
        child_signal(c, SIGKILL);
        waitid(P_PIDFD, (id_t)c->pidfd, &(siginfo_t){ 0 }, WEXITED);
        ok = false;
    }
    if (!ok)
        child_close(c);
    return ok;
}

bool child_adopt(struct child *c, sd_event *event, int control, int pidfd,
                 const struct child_events *events, void *arg, struct err *e)
{
    pid_t pid = pidfd >= 0 ? pidfd_pid(pidfd) : 0;

    assert(c->pid == 0 && (control >= 0 || pidfd >= 0));
    *c = (struct child){ .events = events,
                         .arg = arg,
                         .pid = pid > 0 ? pid : CHILD_PID_UNKNOWN,
                         .control = control,
                         .pidfd = pidfd };
    if (watch(c, event, e))
        return true;
    child_close(c);
    return false;
}

bool child_learn_pid(struct child *c, pid_t pid)
{
    struct pollfd p = { .fd = c->control, .events = 0 }; /* POLLHUP */
    int pidfd;

    if (c->pidfd >= 0 || c->control < 0 || pid <= 0)
        return false;
    pidfd = pidfd_of(pid);
    if (pidfd < 0)
        return false;
    if (poll(&p, 1, 0) != 0) { /* it has ended, so the number may be another's by now */
        close(pidfd);
        return false;
    }
    c->pid = pid;
    c->pidfd = pidfd;
    return watch_exit(c, sd_event_source_get_event(c->control_source));
}

bool child_send_fds(struct child *c, enum msg_type type, const void *message, const int *fds,
                    int n_fds, struct err *e)
{
    struct err local = { 0 };

    if (!c->control_source)
        return err_set(e, ERR_SYS, ENOTCONN, "send %s", msg_name(type));
    if (control_send(c->control, type, message, fds, n_fds, &local))
        return true;
    if (local.sys == ETOOMANYREFS) /* descriptors under way count against a limit, too */
        local.sys = EAGAIN;
    if (local.sys == EAGAIN)
        sd_event_source_set_io_events(c->control_source, EPOLLIN | EPOLLOUT);
    if (e)
        *e = local;
    return false;
}

bool child_send(struct child *c, enum msg_type type, const void *message, struct err *e)
{
    return child_send_fds(c, type, message, NULL, 0, e);
}

void child_signal(const struct child *c, int sig)
{
    if (c->pid != 0 && c->pidfd >= 0)
        pidfd_signal(c->pidfd, sig);
    else if (c->pid != 0) /* all that can be done: it takes llmd for dead, and ends in time */
        shutdown(c->control, SHUT_RDWR);
}

static bool is_heard(const struct child *c)
{
    int enabled = SD_EVENT_OFF;

    return !c->control_source || sd_event_source_get_enabled(c->control_source, &enabled) < 0 ||
           enabled == SD_EVENT_OFF;
}

/* The last connections of a dead gateway come from its keeper (gateway/takeover/keeper.h), which lives a millisecond
 * longer and closes the socket behind them; of any other child the end is there already.  Bounded, because
 * nothing here waits for long. */
static void hear_to_the_end(struct child *c)
{
    struct pollfd p = { .fd = c->control, .events = POLLIN };

    for (int i = 0; i < LAST_MESSAGES_MAX && !is_heard(c) && poll(&p, 1, LAST_WORDS_MS) > 0; i++)
        hear(c, 1);
}

void child_reap(struct child *c)
{
    siginfo_t info;

    if (c->pid == 0 || c->pidfd < 0 || !pidfd_has_ended(c->pidfd, &info))
        return;
    hear_to_the_end(c);
    waitid(P_PIDFD, (id_t)c->pidfd, &(siginfo_t){ 0 }, WEXITED | WNOHANG);
    end(c, &info);
}

void child_close(struct child *c)
{
    const struct child_events *events = c->events;
    void *arg = c->arg;

    sd_event_source_disable_unref(c->control_source);
    sd_event_source_disable_unref(c->exit_source);
    if (c->pid != 0 || c->control > 0) {
        if (c->control >= 0)
            close(c->control);
        if (c->pidfd >= 0)
            close(c->pidfd);
    }
    *c = (struct child){ .events = events, .arg = arg, .control = -1, .pidfd = -1 };
}
