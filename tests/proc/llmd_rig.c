/* llmd_rig.c - start, watch and end an llmd among fake children. */
#include "tests/proc/llmd_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/open_fds.h"
#include "proto/control_client.h"
#include "tests/check.h"
#include "tests/proc/orphans.h"

enum { PATIENCE_MS = 30000 };

void nap_ms(int ms)
{
    nanosleep(&(struct timespec){ .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 },
              NULL);
}

static void put_path(const struct rig *r, const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", r->base, name);
}

static void copy_program(const struct rig *r, const char *from, const char *name)
{
    char source[512], to[128], bytes[65536];
    ssize_t n;
    int in, out;

    snprintf(source, sizeof source, "%s/%s", TEST_BIN_DIR, from);
    put_path(r, name, to);
    if (link(source, to) == 0)
        return;
    in = open(source, O_RDONLY | O_CLOEXEC);
    out = open(to, O_WRONLY | O_CREAT | O_CLOEXEC, 0700);
    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, bytes, sizeof bytes)) > 0)
        assert_int_equal(write(out, bytes, (size_t)n), n);
    close(in);
    close(out);
}

static int open_notify(const struct rig *r)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    snprintf(at.sun_path, sizeof at.sun_path, "%s/notify", r->base);
    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

void rig_behave(struct rig *r, const char *behaviour)
{
    char path[128];
    struct err e;

    put_path(r, "model/behaviour", path);
    assert_ok(file_replace(path, behaviour, &e), e);
}

void rig_init(struct rig *r, const char *behaviour)
{
    char path[128];

    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what llmd leaves behind becomes ours, and is seen */
    *r = (struct rig){ .base = "/tmp/llmd-test-XXXXXX", .passed_fd = -1 };
    assert_non_null(mkdtemp(r->base));
    put_path(r, "bin", path);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(r->model, sizeof r->model, "%s/model", r->base);
    snprintf(r->run, sizeof r->run, "%s/run", r->base);
    assert_int_equal(mkdir(r->model, 0700), 0);
    copy_program(r, "llmd", "bin/llmd");
    copy_program(r, "fake_child", "bin/llm-worker");
    copy_program(r, "fake_child", "bin/llm-gateway");
    rig_behave(r, behaviour);
    r->notify = open_notify(r);
}

/* To 3, 4, ... with their names, in the child that becomes llmd. */
static void pass_descriptors(const struct rig *r)
{
    static char names[RIG_STORED_MAX * 24], text[32];
    int n_stored = r->store ? r->store->n : 0, n = 0, high[RIG_STORED_MAX + 1];

    if (r->passed_fd >= 0) {
        high[n++] = fcntl(r->passed_fd, F_DUPFD_CLOEXEC, RIG_STORED_MAX + 8);
        strcat(names, "http");
    }
    for (int i = 0; i < n_stored; i++) {
        high[n++] = fcntl(r->store->list[i].fd, F_DUPFD_CLOEXEC, RIG_STORED_MAX + 8);
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", n > 1 ? ":" : "",
                 r->store->list[i].name);
    }
    for (int i = 0; i < n; i++)
        dup2(high[i], 3 + i);
    if (n == 0)
        return;
    snprintf(text, sizeof text, "%d", (int)getpid());
    setenv("LISTEN_PID", text, 1);
    snprintf(text, sizeof text, "%d", n);
    setenv("LISTEN_FDS", text, 1);
    setenv("LISTEN_FDNAMES", names, 1);
}

static void run_llmd(const struct rig *r, char **argv)
{
    char path[128];
    int log;

    put_path(r, "stderr", path);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(log, STDERR_FILENO);
    close(log);
    put_path(r, "notify", path);
    if (!getenv("RIG_NO_NOTIFY"))
        setenv("NOTIFY_SOCKET", path, 1);
    unsetenv("JOURNAL_STREAM");
    pass_descriptors(r);
    put_path(r, "bin/llmd", path);
    execv(path, argv);
    _exit(127);
}

static void lock(const struct rig *r)
{
    if (r->store)
        pthread_mutex_lock(&r->store->mutex);
}

static void unlock(const struct rig *r)
{
    if (r->store)
        pthread_mutex_unlock(&r->store->mutex);
}

void rig_restart(struct rig *r)
{
    assert_int_equal(r->pid, 0);
    lock(r);
    r->pid = fork();
    if (r->pid == 0)
        run_llmd(r, r->argv);
    unlock(r);
    assert_true(r->pid > 0);
}

void rig_start(struct rig *r, ...)
{
    char **argv = r->argv;
    int n = 4;
    va_list ap;

    argv[0] = (char *)(uintptr_t) "llmd";
    argv[1] = r->model;
    argv[2] = (char *)(uintptr_t) "--runtime-dir";
    argv[3] = r->run;
    va_start(ap, r);
    do
        argv[n] = va_arg(ap, char *);
    while (argv[n++] && n < 40);
    va_end(ap);
    rig_restart(r);
}

void rig_kill_and_restart(struct rig *r)
{
    kill(r->pid, SIGKILL);
    assert_int_equal(rig_wait_exit(r), -SIGKILL);
    rig_restart(r);
}

/* ---- what it says ---- */

static void drop_stored(struct rig_store *store, int i)
{
    close(store->list[i].fd);
    store->list[i] = store->list[--store->n];
}

static void drop_hung_up(struct rig_store *store)
{
    for (int i = store->n; i > 0; i--) {
        struct pollfd p = { .fd = store->list[i - 1].fd };
        if (store->list[i - 1].is_polled && poll(&p, 1, 0) > 0)
            drop_stored(store, i - 1);
    }
}

static void keep_or_forget(struct rig_store *store, const char *lines, int fd)
{
    const char *name = strstr(lines, "FDNAME=");
    size_t length = name ? strcspn(name + 7, "\n") : 0;

    if (store && fd >= 0 && strstr(lines, "FDSTORE=1") && store->n < RIG_STORED_MAX) {
        struct rig_stored *one = &store->list[store->n++];
        snprintf(one->name, sizeof one->name, "%.*s", (int)length, name + 7);
        one->fd = fd;
        one->is_polled = !strstr(lines, "FDPOLL=0");
        return;
    }
    if (fd >= 0)
        close(fd);
    for (int i = store && strstr(lines, "FDSTOREREMOVE=1") ? store->n : 0; i > 0; i--)
        if (strlen(store->list[i - 1].name) == length &&
            strncmp(store->list[i - 1].name, name + 7, length) == 0)
            drop_stored(store, i - 1);
}

static void pump_locked(struct rig *r)
{
    char bytes[2048];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    ssize_t n;

    for (;;) {
        struct iovec iov = { .iov_base = bytes, .iov_len = sizeof bytes - 1 };
        struct msghdr m = { .msg_iov = &iov,
                            .msg_iovlen = 1,
                            .msg_control = control.room,
                            .msg_controllen = sizeof control.room };
        struct cmsghdr *c;
        int fd = -1;
        n = recvmsg(r->notify, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
        if (n <= 0)
            return;
        c = CMSG_FIRSTHDR(&m);
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
            memcpy(&fd, CMSG_DATA(c), sizeof fd);
        bytes[n] = '\0';
        buf_add(&r->told, bytes, (size_t)n);
        buf_add_char(&r->told, '\n');
        keep_or_forget(r->store, bytes, fd);
    }
}

static void pump(struct rig *r)
{
    lock(r);
    pump_locked(r);
    unlock(r);
}

static void *run_store(void *arg)
{
    struct rig *r = arg;
    struct pollfd p[2] = { { .fd = r->notify, .events = POLLIN },
                           { .fd = r->store->stop, .events = POLLIN } };

    while (poll(p, 2, 20) >= 0 && !p[1].revents) {
        lock(r);
        pump_locked(r);
        drop_hung_up(r->store);
        unlock(r);
    }
    return NULL;
}

void rig_open_store(struct rig *r)
{
    r->store = calloc(1, sizeof *r->store);
    assert_non_null(r->store);
    pthread_mutex_init(&r->store->mutex, NULL);
    r->store->stop = eventfd(0, EFD_CLOEXEC);
    assert_int_equal(pthread_create(&r->store->thread, NULL, run_store, r), 0);
}

static void close_store(struct rig *r)
{
    struct rig_store *store = r->store;

    if (!store)
        return;
    assert_int_equal(write(store->stop, &(uint64_t){ 1 }, 8), 8);
    pthread_join(store->thread, NULL);
    while (store->n > 0)
        drop_stored(store, store->n - 1);
    close(store->stop);
    r->store = NULL;
    free(store);
}

int rig_count_stored(struct rig *r, const char *name)
{
    bool is_prefix = name[strlen(name) - 1] == '-';
    int n = 0;

    lock(r);
    for (int i = 0; i < r->store->n; i++)
        n += is_prefix ? strncmp(r->store->list[i].name, name, strlen(name)) == 0
                       : strcmp(r->store->list[i].name, name) == 0;
    unlock(r);
    return n;
}

void rig_wait_stored(struct rig *r, const char *name, int n)
{
    for (int ms = 0; rig_count_stored(r, name) != n; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_msg("%d descriptors '%s' in the store, expected %d", rig_count_stored(r, name),
                     name, n);
        nap_ms(5);
    }
}

static int count(const char *text, const char *word)
{
    int n = 0;

    for (; text && (text = strstr(text, word)); text++)
        n++;
    return n;
}

int rig_count_told(struct rig *r, const char *text)
{
    int n;

    pump(r);
    lock(r);
    n = count(r->told.data, text);
    unlock(r);
    return n;
}

char *rig_read(const struct rig *r, const char *name)
{
    char path[128], *bytes;
    size_t n;

    put_path(r, name, path);
    if (!file_read(path, 16 << 20, &bytes, &n, NULL))
        return strdup("");
    return bytes;
}

static int count_in(const struct rig *r, const char *name, const char *text)
{
    char *bytes = rig_read(r, name);
    int n = count(bytes, text);

    free(bytes);
    return n;
}

int rig_count_events(const struct rig *r, const char *text)
{
    return count_in(r, "model/events", text);
}

int rig_count_log(const struct rig *r, const char *text)
{
    return count_in(r, "stderr", text);
}

static void fail_waiting(const struct rig *r, const char *what)
{
    char *log = rig_read(r, "stderr"), *events = rig_read(r, "model/events");
    siginfo_t end = { 0 };

    /* apart: fail_msg() cuts what is long */
    print_error("-- told:\n%s\n-- events:\n%s\n-- log:\n", r->told.data ? r->told.data : "",
                events);
    fputs(log, stderr);
    waitid(P_PID, (id_t)r->pid, &end, WEXITED | WNOHANG | WNOWAIT);
    if (end.si_pid)
        fail_msg("waited in vain for '%s': llmd has ended, code %d status %d", what, end.si_code,
                 end.si_status);
    fail_msg("waited in vain for '%s'", what);
}

void rig_wait_told_times(struct rig *r, const char *line, int n)
{
    for (int ms = 0; rig_count_told(r, line) < n; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, line);
        nap_ms(5);
    }
}

void rig_wait_told(struct rig *r, const char *line)
{
    rig_wait_told_times(r, line, 1);
}

void rig_wait_events(struct rig *r, const char *event, int n)
{
    for (int ms = 0; rig_count_events(r, event) < n; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, event);
        nap_ms(5);
    }
}

void rig_wait_event(struct rig *r, const char *event)
{
    rig_wait_events(r, event, 1);
}

void rig_wait_logs(struct rig *r, const char *text, int n)
{
    for (int ms = 0; rig_count_log(r, text) < n; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, text);
        nap_ms(5);
    }
}

void rig_wait_log(struct rig *r, const char *text)
{
    rig_wait_logs(r, text, 1);
}

/* ---- its end ---- */

int rig_wait_exit(struct rig *r)
{
    int status = 0;

    for (int ms = 0; waitpid(r->pid, &status, WNOHANG) == 0; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, "the end of llmd");
        nap_ms(5);
    }
    r->pid = 0;
    pump(r);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

void rig_stop(struct rig *r)
{
    kill(r->pid, SIGTERM);
    assert_int_equal(rig_wait_exit(r), 0);
    assert_int_not_equal(access(r->run, F_OK), 0);
    rig_expect_no_process();
}

/* False: some are left after that time. */
static bool reap_all(int patience_ms)
{
    pid_t pid;

    for (int ms = 0; (pid = waitpid(-1, NULL, WNOHANG)) >= 0;) {
        if (pid > 0)
            continue;
        if (ms >= patience_ms)
            return false;
        nap_ms(5);
        ms += 5;
    }
    return true;
}

void rig_expect_no_process(void)
{
    if (!reap_all(0))
        fail_msg("a process is left behind");
}

void rig_wait_no_process(void)
{
    if (!reap_all(PATIENCE_MS))
        fail_msg("a process is left behind, and does not end");
}

/* Those of the process, zombies too. */
static int count_children(pid_t parent)
{
    char path[64];
    int pid, n = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)parent, (int)parent);
    for (f = fopen(path, "r"); f && fscanf(f, "%d", &pid) == 1;)
        n++;
    if (f)
        fclose(f);
    return n;
}

void rig_wait_children(const struct rig *r, int n)
{
    for (int ms = 0; count_children(r->pid) != n; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_msg("llmd has %d children, expected %d", count_children(r->pid), n);
        nap_ms(5);
    }
}

void rig_fini(struct rig *r)
{
    char *events = rig_read(r, "model/events"), command[128];
    char *bad = strstr(events, " bad ");

    if (r->pid > 0)
        kill(r->pid, SIGKILL);
    close_store(r);
    orphans_kill();
    if (bad)
        fail_msg("a child complains: %s", events);
    free(events);
    close(r->notify);
    buf_fini(&r->told);
    snprintf(command, sizeof command, "rm -r %s", r->base);
    assert_int_equal(system(command), 0);
}

/* ---- its operator ---- */

int rig_connect(const struct rig *r)
{
    int fd;

    for (int ms = 0; (fd = control_connect(r->run, PATIENCE_MS)) < 0; ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, "its control socket");
        nap_ms(5);
    }
    return fd;
}

/* False: nobody answers any more. */
static bool ask_once(const struct rig *r, const Llmd__CtlRequest *request, struct control_msg *m)
{
    struct err e;
    int fd = rig_connect(r);
    bool is_answered = control_send(fd, MSG_CTL_REQUEST, request, NULL, 0, &e) &&
                       control_recv(fd, m, &e) == CONTROL_OK;

    close(fd);
    return is_answered;
}

/* An llmd that was killed while it forked listens on until its child has become another program: once more. */
Llmd__CtlReply *rig_ask(const struct rig *r, Llmd__CtlCommand command, uint32_t group)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    struct control_msg m;

    request.command = command;
    request.group = group;
    for (int ms = 0; !ask_once(r, &request, &m); ms += 5) {
        if (ms > PATIENCE_MS)
            fail_waiting(r, "a reply to a command");
        nap_ms(5);
    }
    assert_int_equal(m.type, MSG_CTL_REPLY);
    return m.body;
}

static const Llmd__ProcessStatus *find_process(const Llmd__CtlReply *reply, const char *name)
{
    for (size_t i = 0; reply->status && i < reply->status->n_processes; i++)
        if (strcmp(reply->status->processes[i]->name, name) == 0)
            return reply->status->processes[i];
    return NULL;
}

pid_t rig_pid_of(const struct rig *r, const char *process)
{
    return rig_wait_restarts(r, process, 0);
}

pid_t rig_wait_restarts(const struct rig *r, const char *process, uint32_t restarts)
{
    for (int ms = 0; ms < PATIENCE_MS; ms += 5) {
        Llmd__CtlReply *reply = rig_ask(r, LLMD__CTL_COMMAND__CTL_STATUS, 0);
        const Llmd__ProcessStatus *p = find_process(reply, process);
        pid_t pid =
            p && p->restarts >= restarts && strcmp(p->state, "ready") == 0 ? (pid_t)p->pid : 0;
        frame_free_body(reply);
        if (pid)
            return pid;
        nap_ms(5);
    }
    fail_waiting(r, process);
    return 0;
}

int rig_settled_fds(const struct rig *r)
{
    int n, before;

    do {
        before = rig_count_fds(r);
        nap_ms(30);
        n = rig_count_fds(r);
    } while (n != before);
    return n;
}

int rig_count_fds(const struct rig *r)
{
    int n = open_fds_count(r->pid);

    assert_true(n >= 0);
    return n;
}

void rig_expect_fds(struct rig *r, int n)
{
    for (int ms = 0; rig_count_fds(r) > n; ms += 5) {
        pump(r);
        if (ms > PATIENCE_MS)
            fail_msg("llmd has %d descriptors open, expected %d", rig_count_fds(r), n);
        nap_ms(5);
    }
}
