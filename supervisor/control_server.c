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

#include "common/log.h"
#include "common/runtime_dir.h"
#include "proto/control.h"
#include "supervisor/llmd.h"
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
        config_value(&l->config, (enum config_id)i, value, sizeof value);
        line->name = arena_strdup(a, config_name((enum config_id)i));
        line->value = arena_strdup(a, value);
        line->source = arena_strdup(a, l->config.source[i]);
        line->help = arena_strdup(a, config_help((enum config_id)i));
        reply->config[reply->n_config++] = line;
    }
}

static void restart_group(struct llmd *l, uint32_t group, Llmd__CtlReply *reply, struct arena *a)
{
    if (group >= l->n_groups) {
        reply->ok = false;
        reply->error = arena_printf(a, "there is no group %u, only 0 to %u", group,
                                    l->n_groups ? l->n_groups - 1 : 0);
        return;
    }
    team_restart(&l->groups[group]);
}

static void answer(struct llmd *l, const Llmd__CtlRequest *request, Llmd__CtlReply *reply,
                   struct arena *a)
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
        llmd_drain(l);
        break;
    case LLMD__CTL_COMMAND__CTL_RELOAD:
        llmd_reload(l);
        break;
    case LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY:
        team_restart(&l->gateway);
        break;
    case LLMD__CTL_COMMAND__CTL_RESTART_GROUP:
        restart_group(l, request->group, reply, a);
        break;
    default:
        reply->ok = false;
        reply->error = arena_printf(a, "llmd %s does not know command %d", LLMD_VERSION,
                                    (int)request->command);
    }
}

static int on_request(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct control_client *c = arg;
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;
    struct arena arena = { 0 };
    struct control_msg m;
    struct err e = { 0 };

    (void)source, (void)revents;
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
        answer(c->server->llmd, m.body, &reply, &arena);
        if (!control_send(fd, MSG_CTL_REPLY, &reply, NULL, 0, &e))
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

static int on_connect(sd_event_source *source, int fd, uint32_t revents, void *arg)
{
    struct control_server *s = arg;
    int client = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    (void)source, (void)revents;
    for (int i = 0; client >= 0 && i < CONTROL_CLIENTS_MAX; i++) {
        struct control_client *c = &s->clients[i];
        if (c->fd >= 0 || !may_ask(client))
            continue;
        *c = (struct control_client){ .fd = client, .server = s };
        sd_event_add_io(s->llmd->event, &c->source, client, EPOLLIN, on_request, c);
        return 0;
    }
    if (client >= 0)
        close(client);
    return 0;
}

bool control_server_open(struct control_server *s, struct llmd *l, const char *dir, struct err *e)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    char path[CONFIG_TEXT_BYTES + 32];

    *s = (struct control_server){ .llmd = l };
    for (int i = 0; i < CONTROL_CLIENTS_MAX; i++)
        s->clients[i].fd = -1;
    runtime_dir_control_path(dir, path, sizeof path);
    assert(strlen(path) < sizeof at.sun_path); /* runtime_dir_resolve() made sure */
    strcpy(at.sun_path, path);
    s->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (s->fd < 0)
        return err_set(e, ERR_SYS, errno, "make the control socket");
    unlink(path);
    if (bind(s->fd, (struct sockaddr *)&at, sizeof at) < 0 || chmod(path, 0660) < 0 ||
        listen(s->fd, CONTROL_CLIENTS_MAX) < 0)
        return err_set(e, ERR_SYS, errno, "listen on '%s'", path);
    sd_event_add_io(l->event, &s->source, s->fd, EPOLLIN, on_connect, s);
    return true;
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
