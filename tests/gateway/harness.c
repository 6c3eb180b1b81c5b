/* harness.c - start, feed and stop a gateway. */
#include "tests/gateway/harness.h"

#include <arpa/inet.h>
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
#include "common/mem.h"
#include "common/open_fds.h"
#include "proto/control.h"

enum { SETTINGS_MAX = 24, JOURNAL_BYTES = 16 << 20, COLLECT_MS = 5000, PATIENCE_MS = 30000 };

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

static size_t add_setting(Llmd__Setting *storage, Llmd__Setting **list, size_t n, const char *name,
                          const char *value)
{
    llmd__setting__init(&storage[n]);
    storage[n].name = (char *)(uintptr_t)name;
    storage[n].value = (char *)(uintptr_t)value;
    list[n] = &storage[n];
    return n + 1;
}

static size_t list_settings(const struct harness *h, Llmd__Setting *storage, Llmd__Setting **list)
{
    size_t n = 0;

    n = add_setting(storage, list, n, "model", TEST_SOURCE_DIR "/models/stories-demo");
    n = add_setting(storage, list, n, "gateway_threads", "2");
    n = add_setting(storage, list, n, "log_level",
                    getenv("GATEWAY_TEST_LOG") ? getenv("GATEWAY_TEST_LOG") : "error");
    if (h->fault_points)
        n = add_setting(storage, list, n, "fault_points", h->fault_points);
    for (const struct harness_setting *s = h->settings; s && s->name; s++)
        n = add_setting(storage, list, n, s->name, s->value);
    return n;
}

static void send_boot(struct harness *h)
{
    Llmd__Setting storage[SETTINGS_MAX], *list[SETTINGS_MAX];
    Llmd__FdNote notes[3], *note_list[3];
    Llmd__Boot boot = LLMD__BOOT__INIT;
    int fds[3] = { h->board.segment.fd, h->connections.segment.fd, h->listen_fd };
    Llmd__FdKind kinds[3] = { LLMD__FD_KIND__FD_BOARD, LLMD__FD_KIND__FD_CONNECTIONS,
                              LLMD__FD_KIND__FD_LISTEN };
    struct err e;

    for (int i = 0; i < 3; i++) {
        llmd__fd_note__init(&notes[i]);
        notes[i].kind = kinds[i];
        note_list[i] = &notes[i];
    }
    boot.slot = BOARD_SLOT_GATEWAY;
    boot.n_groups = h->n_groups;
    boot.tp_size = 1;
    boot.epoch = ++h->epoch;
    boot.instance = h->instance;
    boot.settings = list;
    boot.n_settings = list_settings(h, storage, list);
    boot.fds = note_list;
    boot.n_fds = 3;
    boot.n_connections = h->loses_connections ? 0 : h->n_kept;
    if (!control_send(h->control, MSG_BOOT, &boot, fds, 3, &e)) {
        fprintf(stderr, "BOOT: %s\n", e.msg);
        abort();
    }
}

/* ---- client connections ---- */

static void keep(struct harness *h, const Llmd__Connections__Kept *kept, int fd)
{
    if (h->n_kept == h->kept_cap) {
        h->kept_cap = h->kept_cap ? h->kept_cap * 2 : 64;
        h->kept = mem_realloc(h->kept, h->kept_cap * sizeof *h->kept);
    }
    h->n_taken++;
    h->kept[h->n_kept++] = (struct harness_kept){ kept->slot, kept->generation, fd };
}

static void keep_all(struct harness *h, struct control_msg *m)
{
    const Llmd__Connections *body = m->body;

    for (size_t i = 0; m->type == MSG_CONNECTIONS && i < body->n_kept; i++) {
        keep(h, body->kept[i], m->fds[i]);
        m->fds[i] = -1;
    }
}

/* As llmd: the record is another's, or nobody's. */
static void drop_stale(struct harness *h)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < h->n_kept; i++) {
        struct harness_kept *k = &h->kept[i];
        const struct connection_record *r = connections_record(&h->connections, k->slot);
        if (connection_state(r) == CONNECTION_FREE || atomic_load(&r->generation) != k->generation)
            close(k->fd);
        else
            h->kept[n++] = *k;
    }
    h->n_kept = n;
}

void harness_collect(struct harness *h)
{
    struct pollfd p = { .fd = h->control, .events = POLLIN };
    struct control_msg m;
    struct err e;

    h->n_taken = 0;
    while (poll(&p, 1, COLLECT_MS) > 0 && control_recv(h->control, &m, &e) == CONTROL_OK) {
        keep_all(h, &m);
        control_msg_fini(&m);
    }
    drop_stale(h);
    while (waitpid(-1, NULL, WNOHANG | __WALL) > 0) { /* its keeper, which we have inherited */
    }
}

bool harness_take(struct harness *h, uint32_t n)
{
    struct pollfd p = { .fd = h->control, .events = POLLIN };
    struct control_msg m;
    struct err e;

    while (h->n_taken < n) {
        if (poll(&p, 1, COLLECT_MS) <= 0 || control_recv(h->control, &m, &e) != CONTROL_OK)
            return false;
        if (m.type == MSG_READY) {
            h->n_ready++;
            h->ready_pid = ((Llmd__Ready *)m.body)->pid;
        }
        keep_all(h, &m);
        control_msg_fini(&m);
    }
    return true;
}

static void send_kept(struct harness *h)
{
    Llmd__Connections__Kept kept[FDPASS_FDS_MAX], *list[FDPASS_FDS_MAX];
    struct err e;

    for (uint32_t at = 0; at < h->n_kept && !h->loses_connections;) {
        Llmd__Connections m = LLMD__CONNECTIONS__INIT;
        int fds[FDPASS_FDS_MAX], n = 0;
        for (; n < FDPASS_FDS_MAX && at < h->n_kept; n++, at++) {
            llmd__connections__kept__init(&kept[n]);
            kept[n].slot = h->kept[at].slot;
            kept[n].generation = h->kept[at].generation;
            list[n] = &kept[n];
            fds[n] = h->kept[at].fd;
        }
        m.kept = list;
        m.n_kept = (size_t)n;
        control_send(h->control, MSG_CONNECTIONS, &m, fds, n, &e); /* it may die early */
    }
}

/* ---- start ---- */

static bool wait_ready(struct harness *h)
{
    struct control_msg m;
    struct err e;
    bool ok;

    do {
        if (control_recv(h->control, &m, &e) != CONTROL_OK)
            return false;
        ok = m.type == MSG_READY;
        keep_all(h, &m); /* its threads accept before it says READY */
        if (m.type == MSG_FATAL) {
            fprintf(stderr, "expected READY, got: %s\n", ((Llmd__Fatal *)m.body)->message);
            abort();
        }
        control_msg_fini(&m);
    } while (!ok);
    return true;
}

void harness_start(struct harness *h, uint32_t n_groups, const struct harness_setting *settings)
{
    const char *fault_points = h->fault_points;
    uint64_t journal_bytes = h->journal_bytes ? h->journal_bytes : JOURNAL_BYTES;
    static int count;
    struct err e;

    prctl(PR_SET_CHILD_SUBREAPER, 1);
    memset(h, 0, sizeof *h);
    h->n_groups = n_groups;
    h->settings = settings;
    h->fault_points = fault_points;
    snprintf(h->instance, sizeof h->instance, "test%d-%d", getpid(), ++count);
    if (!board_create(&h->board, n_groups, 1, 7, &e) ||
        !connections_create(&h->connections, 512, journal_bytes, 7, &e)) {
        fprintf(stderr, "%s\n", e.msg);
        abort();
    }
    snprintf(board_slot(&h->board, BOARD_SLOT_GATEWAY)->name, 32, "gateway");
    for (uint32_t g = 0; g < n_groups; g++)
        snprintf(board_slot(&h->board, board_rank_slot(&h->board, g, 0))->name, 32, "worker %u.0",
                 g);
    open_listener(h);
    spawn(h);
    send_boot(h);
    if (!wait_ready(h))
        die("no READY");
}

void harness_kill(struct harness *h)
{
    kill(h->pid, SIGKILL);
    harness_wait(h);
}

bool harness_wait_dead(struct harness *h, uint64_t limit_ms)
{
    for (uint64_t i = 0; i < limit_ms; i++) {
        if (waitpid(h->pid, NULL, WNOHANG) == h->pid) {
            h->pid = 0;
            return true;
        }
        usleep(1000);
    }
    return false;
}

bool harness_respawn(struct harness *h)
{
    harness_collect(h);
    close(h->control);
    spawn(h);
    send_boot(h);
    send_kept(h);
    return wait_ready(h);
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
    for (uint32_t i = 0; i < h->n_kept; i++)
        close(h->kept[i].fd);
    free(h->kept);
    board_close(&h->board);
    connections_close(&h->connections);
    close(h->listen_fd);
    if (h->control >= 0)
        close(h->control);
}

void harness_adopt(struct harness *h)
{
    Llmd__Adopt adopt = LLMD__ADOPT__INIT;

    adopt.pid = (uint32_t)getpid();
    control_send(h->control, MSG_ADOPT, &adopt, NULL, 0, NULL);
}

void harness_reload(struct harness *h, const char *name, const char *value)
{
    Llmd__Setting setting = LLMD__SETTING__INIT, *list[1] = { &setting };
    Llmd__Reload reload = LLMD__RELOAD__INIT;

    setting.name = (char *)(uintptr_t)name;
    setting.value = (char *)(uintptr_t)value;
    reload.settings = list;
    reload.n_settings = 1;
    control_send(h->control, MSG_RELOAD, &reload, NULL, 0, NULL);
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
    for (int i = 0; i < PATIENCE_MS; i++) {
        if (harness_stat(h, s) == wanted)
            return true;
        usleep(1000);
    }
    return false;
}

bool harness_wait_for(_Atomic uint32_t *value, uint32_t at_least)
{
    for (int i = 0; i < PATIENCE_MS; i++) {
        if (atomic_load(value) >= at_least)
            return true;
        usleep(1000);
    }
    return false;
}

int harness_n_fds(struct harness *h)
{
    return open_fds_count(h->pid);
}
