/* control_client.c - see control_client.h. */
#include "proto/control_client.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/runtime_dir.h"
#include "proto/control.h"

int control_connect(const char *runtime_dir, int timeout_ms)
{
    struct timeval limit = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return -1;
    runtime_dir_control_path(runtime_dir, to.sun_path, sizeof to.sun_path);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

Llmd__CtlReply *control_ask(const char *runtime_dir, Llmd__CtlCommand command, int timeout_ms)
{
    int fd = control_connect(runtime_dir, timeout_ms);
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    Llmd__CtlReply *reply = NULL;
    struct control_msg m;

    if (fd < 0)
        return NULL;
    request.command = command;
    if (control_send(fd, MSG_CTL_REQUEST, &request, NULL, 0, NULL) &&
        control_recv(fd, &m, NULL) == CONTROL_OK) {
        if (m.type == MSG_CTL_REPLY) {
            reply = m.body;
            m.body = NULL;
        }
        control_msg_fini(&m);
    }
    close(fd);
    return reply;
}

bool control_says_ready(const Llmd__CtlReply *reply)
{
    return reply && reply->status && strcmp(reply->status->state, "ready") == 0;
}

pid_t control_pid_of(const Llmd__CtlReply *reply, const char *process)
{
    const Llmd__Status *status = reply ? reply->status : NULL;

    for (size_t i = 0; status && i < status->n_processes; i++)
        if (strcmp(status->processes[i]->name, process) == 0)
            return (pid_t)status->processes[i]->pid;
    return 0;
}

int control_port_of(const Llmd__CtlReply *reply)
{
    const Llmd__Status *status = reply ? reply->status : NULL;
    const char *colon = status && status->n_listen > 0 ? strrchr(status->listen[0], ':') : NULL;

    return colon ? atoi(colon + 1) : 0;
}
