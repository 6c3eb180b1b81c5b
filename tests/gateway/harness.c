/* harness.c - start, feed and stop a gateway. */
#include "tests/gateway/harness.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "proto/control.h"

enum { SETTINGS_MAX = 16 };

static void die(const char *what)
{
    perror(what);
    abort();
}

static void open_listener(struct harness *h)
{
    struct sockaddr_in at = { .sin_family = AF_INET };
    socklen_t n = sizeof at;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    h->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (h->listen_fd < 0 || bind(h->listen_fd, (struct sockaddr *)&at, sizeof at) < 0 ||
        listen(h->listen_fd, 128) < 0 || getsockname(h->listen_fd, (struct sockaddr *)&at, &n) < 0)
        die("listen");
    h->port = ntohs(at.sin_port);
}

static void spawn(struct harness *h)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        die("socketpair");
    h->control = pair[0];
    h->pid = fork();
    if (h->pid < 0)
        die("fork");
    if (h->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (pair[1] == CONTROL_FD || dup2(pair[1], CONTROL_FD) < 0)
            die("dup2");
        execl(TEST_BIN_DIR "/llm-gateway", "llm-gateway", NULL);
        die("execl");
    }
    close(pair[1]);
}

static void send_boot(struct harness *h, const struct harness_setting *settings)
{
    const struct harness_setting defaults[] = {
        { "model", TEST_SOURCE_DIR "/models/stories-demo" },
        { "gateway_threads", "2" },
        { "log_level", getenv("GATEWAY_TEST_LOG") ? getenv("GATEWAY_TEST_LOG") : "error" },
    };
    Llmd__Setting storage[SETTINGS_MAX], *list[SETTINGS_MAX];
    Llmd__FdNote notes[3], *note_list[3];
    Llmd__Boot boot = LLMD__BOOT__INIT;
    int fds[3] = { h->board.segment.fd, h->connections.segment.fd, h->listen_fd };
    Llmd__FdKind kinds[3] = { LLMD__FD_KIND__FD_BOARD, LLMD__FD_KIND__FD_CONNECTIONS,
                              LLMD__FD_KIND__FD_LISTEN };
    size_t n = 0;
    struct err e;

    for (size_t i = 0; i < sizeof defaults / sizeof *defaults + SETTINGS_MAX; i++) {
        size_t n_defaults = sizeof defaults / sizeof *defaults;
        const struct harness_setting *s = i < n_defaults ? &defaults[i] : &settings[i - n_defaults];
        if (i >= n_defaults && (!settings || !s->name))
            break;
        llmd__setting__init(&storage[n]);
        storage[n].name = (char *)(uintptr_t)s->name;
        storage[n].value = (char *)(uintptr_t)s->value;
        list[n] = &storage[n];
        n++;
    }
    for (int i = 0; i < 3; i++) {
        llmd__fd_note__init(&notes[i]);
        notes[i].kind = kinds[i];
        note_list[i] = &notes[i];
    }
    boot.slot = BOARD_SLOT_GATEWAY;
    boot.n_groups = h->n_groups;
    boot.tp_size = 1;
    boot.epoch = 1;
    boot.instance = h->instance;
    boot.settings = list;
    boot.n_settings = n;
    boot.fds = note_list;
    boot.n_fds = 3;
    if (!control_send(h->control, MSG_BOOT, &boot, fds, 3, &e)) {
        fprintf(stderr, "BOOT: %s\n", e.msg);
        abort();
    }
}

static void wait_ready(struct harness *h)
{
    struct control_msg m;
    struct err e;

    if (control_recv(h->control, &m, &e) != CONTROL_OK || m.type != MSG_READY) {
        fprintf(stderr, "expected READY, got %s\n",
                m.type == MSG_FATAL ? ((Llmd__Fatal *)m.body)->message : "something else");
        abort();
    }
    control_msg_fini(&m);
}

void harness_start(struct harness *h, uint32_t n_groups, const struct harness_setting *settings)
{
    static int count;
    struct err e;

    memset(h, 0, sizeof *h);
    h->n_groups = n_groups;
    snprintf(h->instance, sizeof h->instance, "test%d-%d", getpid(), ++count);
    if (!board_create(&h->board, n_groups, 1, 7, &e) ||
        !connections_create(&h->connections, 512, 7, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    snprintf(board_slot(&h->board, BOARD_SLOT_GATEWAY)->name, 32, "gateway");
    for (uint32_t g = 0; g < n_groups; g++)
        snprintf(board_slot(&h->board, board_rank_slot(&h->board, g, 0))->name, 32, "worker %u.0",
                 g);
    open_listener(h);
    spawn(h);
    send_boot(h, settings);
    wait_ready(h);
}

void harness_start_worker(struct harness *h, uint32_t group)
{
    struct err e;

    if (!fake_worker_open(&h->workers[group], h->instance, group, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    h->has_worker[group] = true;
    fake_worker_run(&h->workers[group]);
    harness_wait_for(&h->workers[group].n_resyncs, 2); /* both threads have met it */
}

void harness_stop_worker(struct harness *h, uint32_t group)
{
    if (!h->has_worker[group])
        return;
    fake_worker_join(&h->workers[group]);
    fake_worker_close(&h->workers[group]);
    h->has_worker[group] = false;
}

void harness_drain(struct harness *h, uint64_t limit_ms)
{
    Llmd__Service service = LLMD__SERVICE__INIT;

    service.draining = true;
    control_send(h->control, MSG_SERVICE, &service, NULL, 0, NULL);
    harness_restart(h, limit_ms);
}

void harness_restart(struct harness *h, uint64_t limit_ms)
{
    Llmd__Drain drain = LLMD__DRAIN__INIT;

    drain.deadline_ns = clock_mono_ns() + limit_ms * NS_PER_MS;
    control_send(h->control, MSG_DRAIN, &drain, NULL, 0, NULL);
}

int harness_wait(struct harness *h)
{
    int status = -1;

    waitpid(h->pid, &status, 0);
    h->pid = 0;
    return status;
}

int harness_stop(struct harness *h)
{
    harness_drain(h, 2000);
    return harness_wait(h);
}

void harness_free(struct harness *h)
{
    if (h->pid > 0) {
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
    }
    for (uint32_t g = 0; g < h->n_groups; g++)
        harness_stop_worker(h, g);
    board_close(&h->board);
    connections_close(&h->connections);
    close(h->listen_fd);
    if (h->control >= 0)
        close(h->control);
}

void harness_say_service(struct harness *h, uint32_t group, bool is_up, const char *cause)
{
    Llmd__Service__Group g = LLMD__SERVICE__GROUP__INIT;
    Llmd__Service__Group *list[1] = { &g };
    Llmd__Service m = LLMD__SERVICE__INIT;

    g.group = group;
    g.up = is_up;
    g.cause = (char *)(uintptr_t)cause;
    m.groups = list;
    m.n_groups = 1;
    control_send(h->control, MSG_SERVICE, &m, NULL, 0, NULL);
}

struct stats *harness_stats(struct harness *h)
{
    return &board_slot(&h->board, BOARD_SLOT_GATEWAY)->stats;
}

uint64_t harness_stat(struct harness *h, enum stat_id s)
{
    return stat_get(harness_stats(h), s);
}

bool harness_wait_stat(struct harness *h, enum stat_id s, uint64_t wanted)
{
    for (int i = 0; i < 5000; i++) {
        if (harness_stat(h, s) == wanted)
            return true;
        usleep(1000);
    }
    return false;
}

bool harness_wait_for(_Atomic uint32_t *value, uint32_t at_least)
{
    for (int i = 0; i < 5000; i++) {
        if (atomic_load(value) >= at_least)
            return true;
        usleep(1000);
    }
    return false;
}

int harness_n_fds(struct harness *h)
{
    char path[64];
    DIR *d;
    int n = 0;

    snprintf(path, sizeof path, "/proc/%d/fd", h->pid);
    d = opendir(path);
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}
