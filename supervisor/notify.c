/* notify.c - the sd_notify(3) protocol; its descriptors are in fdstore.c, what comes back in passed.c.
 *
 * The datagrams are sent here and not by sd_notify(), which waits when the manager does not read: a
 * service manager that is busy (a reload of a large system, a debugger) must not stop the recovery of
 * ours.  What it has no room for is kept and sent with the next line, or at the next tick; a sign of
 * life is tried again. */
#include "supervisor/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <systemd/sd-daemon.h>

#include "common/clock.h"
#include "common/log.h"

static bool send_lines(const struct notify *n, const char *lines)
{
    return send(n->fd, lines, strlen(lines), MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

void notify_flush(struct notify *n)
{
    if (n->fd > 0 && n->unsent[0] && send_lines(n, n->unsent))
        n->unsent[0] = '\0';
}

static void say(struct notify *n, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void say(struct notify *n, const char *fmt, ...)
{
    char line[640];
    size_t used;
    va_list ap;

    if (n->fd <= 0)
        return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    notify_flush(n);
    if (!n->unsent[0] && send_lines(n, line))
        return;
    used = strlen(n->unsent);
    if (used + strlen(line) + 2 <= sizeof n->unsent)
        snprintf(n->unsent + used, sizeof n->unsent - used, "%s%s", used ? "\n" : "", line);
    else
        log_warning("event=manager_does_not_read line=\"%s\", dropping it", line);
}

/* A sign of life that finds no room is tried again soon: two that are lost would cost our life. */
static int on_watchdog(sd_event_source *source, uint64_t usec, void *arg)
{
    struct notify *n = arg;
    bool is_sent = send_lines(n, "WATCHDOG=1");

    (void)usec;
    sd_event_source_set_time_relative(source, n->watchdog_us / (is_sent ? 2 : 100));
    sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    return 0;
}

/* "@name" is an abstract address. */
static bool connect_to(struct notify *n, const char *path, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    size_t length = strlen(path);

    if ((path[0] != '/' && path[0] != '@') || length >= sizeof at.sun_path)
        return err_set(e, ERR_CONFIG, 0, "NOTIFY_SOCKET '%s' is no address of a socket", path);
    memcpy(at.sun_path, path, length);
    if (path[0] == '@')
        at.sun_path[0] = '\0';
    n->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (n->fd < 0 || connect(n->fd, (struct sockaddr *)&at,
                             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) < 0)
        return err_set(e, ERR_SYS, errno, "connect to NOTIFY_SOCKET '%s'", path);
    return true;
}

bool notify_open(struct notify *n, sd_event *event, struct err *e)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct err why = { 0 };
    int r;

    *n = (struct notify){ .fd = -1 };
    if (!path || !path[0])
        return true;
    if (!connect_to(n, path, &why)) { /* a manager that has gone; the service need not */
        log_warning("%s, going on without", why.msg);
        notify_close(n);
        return true;
    }
    if (sd_watchdog_enabled(0, &n->watchdog_us) <= 0)
        return true;
    send_lines(n, "WATCHDOG=1"); /* after an exec the manager's time runs on */
    r = sd_event_add_time_relative(event, &n->watchdog, CLOCK_MONOTONIC, n->watchdog_us / 2,
                                   n->watchdog_us / 10, on_watchdog, n);
    return r >= 0 || err_set(e, ERR_SYS, -r, "feed the watchdog");
}

void notify_close(struct notify *n)
{
    notify_flush(n);
    n->watchdog = sd_event_source_disable_unref(n->watchdog);
    if (n->fd > 0)
        close(n->fd);
    n->fd = -1;
}

void notify_ready(struct notify *n)
{
    say(n, "READY=1");
}

void notify_reloading(struct notify *n)
{
    say(n, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)(clock_mono_ns() / 1000));
}

void notify_stopping(struct notify *n, uint64_t within_ns)
{
    say(n, "STOPPING=1");
    if (within_ns)
        notify_extend(n, within_ns);
}

void notify_status(struct notify *n, const char *line)
{
    if (strncmp(n->status, line, sizeof n->status - 1) == 0)
        return;
    snprintf(n->status, sizeof n->status, "%s", line);
    say(n, "STATUS=%s", n->status);
}

void notify_extend(struct notify *n, uint64_t ns)
{
    say(n, "EXTEND_TIMEOUT_USEC=%llu", (unsigned long long)(ns / 1000));
}
