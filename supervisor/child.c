/* child.c - watch one running child.
 *
 * BOOT is put into the socketpair before the program is started, so a child finds it waiting and a full
 * or closed socket cannot come between.  When pidfd and control socket wake together, what the child
 * said is heard before its exit: FATAL is why it exits.  waitid() is asked by pidfd, never by number. */
#include "supervisor/child.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

enum { MESSAGES_PER_WAKE = 64 }; /* one child cannot keep the loop to itself */

static void hear(struct child *c, int messages_max)
{
    struct err e = { 0 };
    struct control_msg m;

    for (int i = 0; i < messages_max && c->control_source; i++) {
        switch (control_recv(c->control, &m, &e)) {
        case CONTROL_EMPTY:
            return;
        case CONTROL_CLOSED: /* its exit follows; the hang-up would wake us until then */
            sd_event_source_set_enabled(c->control_source, SD_EVENT_OFF);
            return;
        case CONTROL_FAILED:
            log_warning("pid=%d error=\"%s\", ignoring the message", (int)c->pid, e.msg);
            if (e.code == ERR_SYS) {
                sd_event_source_set_enabled(c->control_source, SD_EVENT_OFF);
                return;
            }
            break;
        case CONTROL_OK:
            c->events->message(c->arg, &m);
            control_msg_fini(&m);
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

static bool watch(struct child *c, sd_event *event, struct err *e)
{
    int r = sd_event_add_io(event, &c->control_source, c->control, EPOLLIN, on_control, c);

    if (r >= 0)
        r = sd_event_add_io(event, &c->exit_source, c->pidfd, EPOLLIN, on_exit_seen, c);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch process %d", (int)c->pid);
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
    ok = control_send(c->control, MSG_BOOT, boot, fds, n_fds, e) &&
         spawn_start(spawn, &c->pid, &c->pidfd, e);
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

bool child_send(struct child *c, enum msg_type type, const void *message, struct err *e)
{
    struct err local = { 0 };

    if (!c->control_source)
        return err_set(e, ERR_SYS, ENOTCONN, "send %s", msg_name(type));
    if (control_send(c->control, type, message, NULL, 0, &local))
        return true;
    if (local.sys == EAGAIN)
        sd_event_source_set_io_events(c->control_source, EPOLLIN | EPOLLOUT);
    if (e)
        *e = local;
    return false;
}

void child_signal(const struct child *c, int sig)
{
    if (c->pid != 0)
        syscall(SYS_pidfd_send_signal, c->pidfd, sig, NULL, 0);
}

void child_reap(struct child *c)
{
    siginfo_t info = { 0 };

    if (c->pid == 0)
        return;
    if (waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid == 0)
        return;
    hear(c, 16 * MESSAGES_PER_WAKE); /* it says no more: all there is */
    waitid(P_PIDFD, (id_t)c->pidfd, &info, WEXITED | WNOHANG);
    child_close(c);
    c->events->exited(c->arg, &info);
}

void child_close(struct child *c)
{
    const struct child_events *events = c->events;
    void *arg = c->arg;

    sd_event_source_disable_unref(c->control_source);
    sd_event_source_disable_unref(c->exit_source);
    if (c->pid != 0 || c->control > 0) {
        close(c->control);
        if (c->pidfd >= 0)
            close(c->pidfd);
    }
    *c = (struct child){ .events = events, .arg = arg, .control = -1, .pidfd = -1 };
}
