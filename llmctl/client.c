/* client.c - a connection per question, so that a new llmd is found by itself.
 *
 * Whoever listens must be root, we ourselves, or, when we are root, the owner of the folder (a system
 * service runs as a user of its own): a stranger's socket in a world-writable place gets no orders and
 * tells us no lies. */
#include "llmctl/client.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/runtime_dir.h"

enum { ANSWER_TIMEOUT_S = 10, MODEL_TIMEOUT_S = 3600, ENVIRONMENT_MAX = 8 };

/* Only the variables that concern the folder: a PORT that is no number is llmd's business. */
static bool read_environment(struct config *config, struct err *e)
{
    static const char *const names[] = { "LLMD_RUNTIME_DIR=", "RUNTIME_DIRECTORY=" };
    char *found[ENVIRONMENT_MAX + 1] = { NULL };
    size_t n = 0;

    for (char **at = environ; *at && n < ENVIRONMENT_MAX; at++)
        for (size_t i = 0; i < 2; i++)
            if (strncmp(*at, names[i], strlen(names[i])) == 0)
                found[n++] = *at;
    return config_read_environment(config, found, e);
}

bool client_find(struct client *c, const char *runtime_dir, struct err *e)
{
    static struct config config; /* large; used by this function only */
    char dir[sizeof c->path];

    config_init(&config);
    if (runtime_dir ? !config_set(&config, "runtime_dir", runtime_dir, "command line", e)
                    : !read_environment(&config, e))
        return false;
    if (!runtime_dir_resolve(&config, dir, sizeof dir, e))
        return false;
    runtime_dir_control_path(dir, c->path, sizeof c->path);
    return true;
}

static bool owns_folder_of(const char *path, uid_t uid)
{
    char dir[sizeof((struct client *)0)->path];
    struct stat st;

    snprintf(dir, sizeof dir, "%.*s", (int)(strrchr(path, '/') - path), path);
    return stat(dir, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == uid;
}

static bool peer_is_trusted(int sock, const char *path, struct err *e)
{
    struct ucred peer;
    socklen_t n = sizeof peer;

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &n) < 0)
        return err_set(e, ERR_SYS, errno, "ask who listens at '%s'", path);
    if (peer.uid == 0 || peer.uid == geteuid() ||
        (geteuid() == 0 && owns_folder_of(path, peer.uid)))
        return true;
    return err_set(e, ERR_PROTO, 0,
                   "user %u listens at '%s', expected root or user %u: not asking a stranger",
                   (unsigned)peer.uid, path, (unsigned)geteuid());
}

/* Loading a model takes as long as it takes; llmd gives up after its start_timeout_s. */
static int patience_s(const Llmd__CtlRequest *request)
{
    return request->model[0] ? MODEL_TIMEOUT_S : ANSWER_TIMEOUT_S;
}

static int connect_to(const char *path, int timeout_s, struct err *e)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    struct timeval limit = { .tv_sec = timeout_s };
    int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    if (sock < 0) {
        err_set(e, ERR_SYS, errno, "make a socket");
        return -1;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(sock, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(sock, (struct sockaddr *)&address, sizeof address) < 0) {
        err_set(e, ERR_CONFIG, 0,
                "no llmd at '%s' (%s); start one with `make run`, or name the folder of a running "
                "one with --runtime-dir",
                path, strerror(errno));
        close(sock);
        return -1;
    }
    return sock;
}

static enum client_result exchange(int sock, const Llmd__CtlRequest *request,
                                   struct control_msg *reply, struct err *e)
{
    const Llmd__CtlReply *r;

    if (!control_send(sock, MSG_CTL_REQUEST, request, NULL, 0, e))
        return CLIENT_UNREACHABLE;
    switch (control_recv(sock, reply, e)) {
    case CONTROL_OK:
        break;
    case CONTROL_EMPTY:
        err_set(e, ERR_TIMEOUT, 0, "llmd gave no answer within %d s", patience_s(request));
        return CLIENT_UNREACHABLE;
    case CONTROL_CLOSED:
        err_set(e, ERR_PROTO, 0, "llmd closed the connection without an answer");
        return CLIENT_UNREACHABLE;
    case CONTROL_FAILED:
        return CLIENT_UNREACHABLE;
    }
    r = reply->body;
    if (reply->type != MSG_CTL_REPLY)
        err_set(e, ERR_PROTO, 0, "llmd answered with %s", msg_name(reply->type));
    else if (r->ok)
        return CLIENT_OK;
    else
        err_set(e, ERR_CONFIG, 0, "%s",
                r->error[0] ? r->error : "llmd refuses, and gives no reason");
    control_msg_fini(reply);
    return CLIENT_REFUSED;
}

enum client_result client_call(const struct client *c, const Llmd__CtlRequest *request,
                               struct control_msg *reply, struct err *e)
{
    enum client_result result = CLIENT_UNREACHABLE;
    int sock = connect_to(c->path, patience_s(request), e);

    if (sock < 0)
        return CLIENT_UNREACHABLE;
    if (peer_is_trusted(sock, c->path, e))
        result = exchange(sock, request, reply, e);
    close(sock);
    return result;
}

enum client_result client_ask_status(const struct client *c, struct control_msg *reply,
                                     struct err *e)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;

    request.command = LLMD__CTL_COMMAND__CTL_STATUS;
    return client_call(c, &request, reply, e);
}
