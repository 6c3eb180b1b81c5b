/* control_server.c - accept operators, answer their requests. */
#include "supervisor/control_server.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/runtime_dir.h"
#include "proto/control.h"
#include "supervisor/drain.h"
#include "supervisor/llmd.h"
#include "supervisor/logs.h"
#include "supervisor/reload.h"
#include "supervisor/requests.h"
#include "supervisor/status.h"

static void drop_client(struct control_client *c)
{
    c->source = sd_event_source_disable_unref(c->source);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void add_config(const struct llmd *l, Llmd__CtlReply *reply, struct arena *a)
{
    reply->config = arena_alloc(a, N_CONFIG * sizeof *reply->config);
    for (int i = 0; i < N_CONFIG; i++) {
        Llmd__ConfigLine *line = arena_alloc(a, sizeof *line);
        char value[CONFIG_TEXT_BYTES];
        llmd__config_line__init(line);
        config_shown_value(&l->config, (enum config_id)i, value, sizeof value);
        line->name = arena_strdup(a, config_name((enum config_id)i));
        line->value = arena_strdup(a, value);
        line->source = arena_strdup(a, l->config.source[i]);
        line->help = arena_strdup(a, config_help((enum config_id)i));
        reply->config[reply->n_config++] = line;
    }
}

static void restart(struct llmd *l, struct team *t, Llmd__CtlReply *reply, struct arena *a)
{
    if (l->phase != LLMD_SERVING || t->state == TEAM_DOWN) {
        reply->ok = false;
        reply->error = arena_printf(a, "cannot restart: llmd is %s", llmd_state(l));
        return;
    }
    team_handle(t, TEAM_EV_RESTART);
}

/* With a model the answer comes when it serves (model_switch.h): true then. */
static bool reload(struct llmd *l, const char *model, int asker, Llmd__CtlReply *reply,
                   struct arena *a)
{
    struct err e = { 0 };

    if (model[0])
        reply->ok = model_switch_start(&l->model_switch, l, model, asker, &e);
    else
        reply->ok = reload_settings(l, &e);
    if (!reply->ok)
        reply->error = arena_strdup(a, e.msg);
    return reply->ok && model[0];
}

static void restart_group(struct llmd *l, uint32_t group, Llmd__CtlReply *reply, struct arena *a)
{
    if (group >= l->n_groups) {
        reply->ok = false;
        reply->error = arena_printf(a, "there is no group %u, only 0 to %u", group,
                                    l->n_groups ? l->n_groups - 1 : 0);
        return;
    }
    restart(l, &l->groups[group], reply, a);
}

/* True: it began, and the answer comes when it is done (upgrade.h). */
static bool upgrade(struct llmd *l, bool is_for_all, int asker, Llmd__CtlReply *reply,
                    struct arena *a)
{
    struct err e = { 0 };

    reply->ok = upgrade_start(&l->upgrade, l, is_for_all, asker, &e);
    if (!reply->ok)
        reply->error = arena_strdup(a, e.msg);
    return reply->ok;
}

/* False: it is answered later, on a copy of `asker`. */
static bool answer(struct llmd *l, int asker, const Llmd__CtlRequest *request,
                   Llmd__CtlReply *reply, struct arena *a)
{
    reply->ok = true;
    switch (request->command) {
    case LLMD__CTL_COMMAND__CTL_STATUS:
        reply->status = status_make(l, a);
        break;
    case LLMD__CTL_COMMAND__CTL_CONFIG:
        add_config(l, reply, a);
        break;
    case LLMD__CTL_COMMAND__CTL_DRAIN:
        drain_ask(l);
        break;
    case LLMD__CTL_COMMAND__CTL_RELOAD:
        return !reload(l, request->model, asker, reply, a);
    case LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY:
        restart(l, &l->gateway, reply, a);
        break;
    case LLMD__CTL_COMMAND__CTL_RESTART_GROUP:
        restart_group(l, request->group, reply, a);
        break;
    case LLMD__CTL_COMMAND__CTL_REQUESTS:
        requests_answer(l, reply, a);
        break;
    case LLMD__CTL_COMMAND__CTL_LOGS:
        logs_answer(l, request->process, reply, a);
        break;
    case LLMD__CTL_COMMAND__CTL_UPGRADE:
        return !upgrade(l, true, asker, reply, a);
    case LLMD__CTL_COMMAND__CTL_RESTART_LLMD:
        return !upgrade(l, false, asker, reply, a);
    default:
        reply->ok = false;
        reply->error = arena_printf(a, "llmd %s does not know command %d", LLMD_VERSION,
                                    (int)request->command);
    }
    return true;
}

static int on_request(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct control_client *c = arg;
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;
    struct arena arena = { 0 };
    struct control_msg m;
    struct err e = { 0 };

    (void)source, (void)revents;
    c->heard_ns = clock_mono_ns();
    switch (control_recv(fd, &m, &e)) {
    case CONTROL_EMPTY:
        return 0;
    case CONTROL_OK:
        break;
    case CONTROL_FAILED:
        log_warning("event=bad_control_request cause=\"%s\", closing it", e.msg);
        drop_client(c);
        return 0;
    case CONTROL_CLOSED:
        drop_client(c);
        return 0;
    }
    if (m.type == MSG_CTL_REQUEST) {
        if (answer(c->server->llmd, fd, m.body, &reply, &arena) &&
            !control_send(fd, MSG_CTL_REPLY, &reply, NULL, 0, &e))
            drop_client(c);
    } else {
        drop_client(c);
    }
    arena_fini(&arena);
    control_msg_fini(&m);
    return 0;
}

static bool may_ask(int fd)
{
    struct ucred peer = { 0 };
    socklen_t n = sizeof peer;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return false;
    if (peer.uid == 0 || peer.uid == geteuid())
        return true;
    log_warning("event=control_refused uid=%u pid=%d", (unsigned)peer.uid, (int)peer.pid);
    return false;
}

/* A free place; else that of the client that has been silent longest, so that clients which never ask
 * cannot keep the operator out. */
static struct control_client *find_place(struct control_server *s)
{
    struct control_client *oldest = &s->clients[0];

    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++) {
        if (s->clients[i].fd < 0)
            return &s->clients[i];
        if (s->clients[i].heard_ns < oldest->heard_ns)
            oldest = &s->clients[i];
    }
    drop_client(oldest);
    return oldest;
}

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct control_server *s = arg;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct control_client *c;

    (void)source, (void)revents;
    if (client < 0)
        return 0;
    if (!may_ask(client)) {
        close(client);
        return 0;
    }
    c = find_place(s);
    *c = (struct control_client){ .fd = client, .server = s, .heard_ns = clock_mono_ns() };
    if (sd_event_add_io(s->llmd->event, &c->source, client, EPOLLIN, on_request, c) < 0)
        drop_client(c);
    return 0;
}

bool control_server_open(struct control_server *s, struct llmd *l, const char *dir, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char path[CONFIG_TEXT_BYTES + 32];
    struct stat st;
    mode_t mask;
    int r;

    *s = (struct control_server){ .llmd = l };
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        s->clients[i].fd = -1;
    runtime_dir_control_path(dir, path, sizeof path);
    assert(strlen(path) < sizeof at.sun_path); /* runtime_dir_resolve() made sure */
    strcpy(at.sun_path, path);
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return err_set(e, ERR_SYS, errno, "make the control socket");
    if (lstat(path, &st) == 0 && S_ISSOCK(st.st_mode))
        unlink(path);
    mask = umask(0117); /* 0660 from the first moment on */
    r = bind(s->fd, (struct sockaddr *)&at, sizeof at);
    umask(mask);
    if (r < 0 || listen(s->fd, CONTROL_CLIENTS_MAX) < 0)
        return err_set(e, ERR_SYS, errno, "listen on '%s'", path);
    r = sd_event_add_io(l->event, &s->source, s->fd, EPOLLIN, on_connect, s);
    return r >= 0 || err_set(e, ERR_SYS, -r, "watch '%s'", path);
}

pid_t control_server_holder(const char *dir)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    struct ucred peer = { 0 };
    socklen_t n = sizeof peer;

    runtime_dir_control_path(dir, at.sun_path, sizeof at.sun_path);
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        peer.pid = 0;
    close(fd);
    return peer.pid;
}

void control_server_close(struct control_server *s)
{
    if (!s->llmd)
        return;
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        drop_client(&s->clients[i]);
    s->source = sd_event_source_disable_unref(s->source);
    if (s->fd >= 0)
        close(s->fd);
    s->llmd = NULL;
}
