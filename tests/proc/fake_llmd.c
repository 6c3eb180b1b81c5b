/* fake_llmd.c - one child process, one poll() loop, a new HTTP connection after the last one ended. */
#include "tests/proc/fake_llmd.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/buf.h"
#include "proto/control.h"
#include "tests/check.h"

static int listen_control(const char *dir)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s/control.sock", dir);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    return fd;
}

static int listen_http(int *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 8), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &n), 0);
    *port = ntohs(address.sin_port);
    return fd;
}

static void note(const struct fake_llmd *f, const char *text)
{
    char path[128];
    int fd;

    snprintf(path, sizeof path, "%s/asked", f->dir);
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        _exit(3);
    close(fd);
}

/* The n-th word of the script's states, or its last one. */
static const char *state_at(const char *states, int n)
{
    static char word[32];
    const char *at = states;

    while (n-- > 0 && strchr(at, ' '))
        at = strchr(at, ' ') + 1;
    snprintf(word, sizeof word, "%.*s", (int)strcspn(at, " "), at);
    return word;
}

static void answer_status(const struct fake_llmd *f, int sock, int n_asked)
{
    Llmd__ProcessStatus processes[3], *process_list[3];
    Llmd__GroupStatus group = LLMD__GROUP_STATUS__INIT, *groups[] = { &group };
    Llmd__SegmentMemory memory[2], *memory_list[] = { &memory[0], &memory[1] };
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;
    Llmd__Status s = LLMD__STATUS__INIT;
    char address[32], *listen[] = { address };
    static const char *const names[] = { "llmd", "gateway", "worker 0.0" };
    const char *state = state_at(f->states ? f->states : "ready", n_asked);

    for (int i = 0; i < 3; i++) {
        processes[i] = (Llmd__ProcessStatus)LLMD__PROCESS_STATUS__INIT;
        processes[i].name = (char *)(uintptr_t)names[i];
        processes[i].state = (char *)(uintptr_t)(i == 2 ? state : "ready");
        processes[i].pid = 100 + (uint32_t)i;
        processes[i].uptime_ns = 125000000000;
        processes[i].rss_bytes = 5 << 20;
        process_list[i] = &processes[i];
    }
    if (f->last_exit) {
        processes[2].state = "backoff";
        processes[2].pid = 0;
        processes[2].restarts = f->restarts;
        processes[2].last_exit = (char *)(uintptr_t)f->last_exit;
    }
    group.state = (char *)(uintptr_t)state;
    group.kv_pages_used = 7;
    group.tokens_per_s = 123.4;
    for (int i = 0; i < 2; i++)
        memory[i] = (Llmd__SegmentMemory)LLMD__SEGMENT_MEMORY__INIT;
    memory[0].segment = "weights";
    memory[0].pages = (char *)(uintptr_t)(f->weights_pages ? f->weights_pages : "collapsed");
    memory[0].bytes = memory[0].allocated_bytes = 3ull << 30;
    memory[0].resident_bytes = 2ull << 30;
    memory[0].huge_bytes = f->weights_pages ? 0 : 2ull << 30;
    memory[1].segment = "kvpool";
    memory[1].pages = "small";
    memory[1].bytes = 10 << 20;
    s.n_memory = 2;
    s.memory = memory_list;
    s.fd_store = true;
    snprintf(address, sizeof address, "0.0.0.0:%d", f->port);
    s.version = "9.8.7";
    s.state = (char *)(uintptr_t)state;
    s.model = "/models/stories";
    s.served_model_name = "stories";
    s.kv_pages = 512;
    s.requests = 42;
    s.n_listen = f->listens_nowhere ? 0 : 1;
    s.listen = listen;
    s.n_processes = 3;
    s.processes = process_list;
    s.n_groups = 1;
    s.groups = groups;
    reply.ok = 1;
    reply.status = &s;
    control_send(sock, MSG_CTL_REPLY, &reply, NULL, 0, NULL);
}

/* One that runs, one that is poisoned. */
static void add_requests(Llmd__CtlReply *reply, Llmd__RequestStatus rows[2],
                         Llmd__RequestStatus *list[2])
{
    rows[0] = rows[1] = (Llmd__RequestStatus)LLMD__REQUEST_STATUS__INIT;
    rows[0].sequence_id = 0xabcdef0123456789;
    rows[0].state = "running";
    rows[0].n_prompt = 12;
    rows[0].n_generated = 34;
    rows[0].age_ns = 125000000000;
    rows[0].kv_pages = 3;
    rows[1].sequence_id = 7;
    rows[1].group = 1;
    rows[1].state = "poisoned";
    rows[1].crashes = 2;
    rows[1].error = "running at 2 crashes\x1b[2J";
    list[0] = &rows[0];
    list[1] = &rows[1];
    reply->requests = list;
    reply->n_requests = 2;
    reply->requests_left_out = 5;
}

static void add_logs(Llmd__CtlReply *reply, const char *process, Llmd__ProcessLog logs[2],
                     Llmd__ProcessLog *list[2])
{
    static char *gateway[] = { "g1", "g2", "g3" }, *worker[] = { "w1\x1b[31m", "w2" };

    logs[0] = logs[1] = (Llmd__ProcessLog)LLMD__PROCESS_LOG__INIT;
    logs[0].process = "gateway";
    logs[0].lines = gateway;
    logs[0].n_lines = 3;
    logs[1].process = "worker 0.0";
    logs[1].lines = worker;
    logs[1].n_lines = 2;
    list[0] = &logs[0];
    list[1] = &logs[1];
    reply->logs = process[0] ? list + 1 : list;
    reply->n_logs = process[0] ? 1 : 2;
}

static void answer_order(const struct fake_llmd *f, int sock, const Llmd__CtlRequest *request)
{
    Llmd__RequestStatus rows[2], *row_list[2];
    Llmd__ProcessLog logs[2], *log_list[2];
    Llmd__ConfigLine line = LLMD__CONFIG_LINE__INIT, *lines[] = { &line };
    Llmd__CtlReply reply = LLMD__CTL_REPLY__INIT;

    reply.ok = f->refuse == NULL;
    reply.error = (char *)(uintptr_t)(f->refuse ? f->refuse : "");
    line.name = "port";
    line.value = "8080";
    line.source = "environment PORT";
    line.help = "TCP port to listen on.";
    if (request->command == LLMD__CTL_COMMAND__CTL_CONFIG) {
        reply.n_config = 1;
        reply.config = lines;
    }
    if (request->command == LLMD__CTL_COMMAND__CTL_REQUESTS)
        add_requests(&reply, rows, row_list);
    if (request->command == LLMD__CTL_COMMAND__CTL_LOGS)
        add_logs(&reply, request->process, logs, log_list);
    control_send(sock, MSG_CTL_REPLY, &reply, NULL, 0, NULL);
}

static void serve_control(const struct fake_llmd *f, int sock, int *n_status)
{
    const Llmd__CtlRequest *request;
    struct control_msg m;
    char text[512];

    if (control_recv(sock, &m, NULL) != CONTROL_OK)
        return;
    request = m.body;
    if (f->is_silent || m.type != MSG_CTL_REQUEST) {
        control_msg_fini(&m);
        return;
    }
    if (f->answers_nonsense) {
        control_send(sock, MSG_READY, &(Llmd__Ready)LLMD__READY__INIT, NULL, 0, NULL);
    } else if (request->command == LLMD__CTL_COMMAND__CTL_STATUS) {
        answer_status(f, sock, (*n_status)++);
    } else {
        snprintf(text, sizeof text, "%s %u%s%s%s%s\n",
                 protobuf_c_enum_descriptor_get_value(&llmd__ctl_command__descriptor,
                                                      (int)request->command)
                     ->name,
                 request->group, request->model[0] ? " model " : "", request->model,
                 request->process[0] ? " process " : "", request->process);
        note(f, text);
        answer_order(f, sock, request);
    }
    control_msg_fini(&m);
}

/* Read one request to its end; its first line and body are noted, and who it says it is. */
static void read_request(const struct fake_llmd *f, int sock)
{
    static char text[1 << 16];
    char *end = NULL, *length, *line_end, *who;
    size_t n = 0, want = 0;
    struct buf out = { 0 };

    while (n + 1 < sizeof text && (!end || n < want)) {
        ssize_t got = read(sock, text + n, sizeof text - 1 - n);
        if (got <= 0)
            return;
        n += (size_t)got;
        text[n] = '\0';
        if (!end && (end = strstr(text, "\r\n\r\n"))) {
            length = strcasestr(text, "\r\ncontent-length:");
            want = (size_t)(end + 4 - text) + (length ? strtoul(length + 17, NULL, 10) : 0);
        }
    }
    line_end = strstr(text, " HTTP/1.1\r\n");
    if (!end || !line_end)
        return;
    buf_printf(&out, "%.*s %s\n", (int)(line_end - text), text, end + 4);
    who = strstr(text, "\r\nAuthorization: ");
    if (who && who < end)
        buf_printf(&out, "%.*s\n", (int)strcspn(who + 2, "\r"), who + 2);
    note(f, out.data);
    buf_fini(&out);
}

static void serve_http(const struct fake_llmd *f, int sock)
{
    const char *body = f->http_body ? f->http_body : "";
    size_t n = strlen(body), piece = f->http_piece ? (size_t)f->http_piece : n;
    char head[128];
    int one = 1;

    setsockopt(sock, IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof one);
    read_request(f, sock);
    snprintf(head, sizeof head,
             "HTTP/1.1 %d X\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n",
             f->http_status ? f->http_status : 200);
    if (send(sock, head, strlen(head), MSG_NOSIGNAL) < 0)
        return;
    for (size_t at = 0; at < n; at += piece)
        if (send(sock, body + at, n - at < piece ? n - at : piece, MSG_NOSIGNAL) < 0)
            return;
    if (f->http_hangs) {
        char byte;
        note(f, read(sock, &byte, 1) == 0 ? "client left\n" : "client spoke\n");
    }
}

static void serve(const struct fake_llmd *f, int control, int http)
{
    struct pollfd p[2] = { { .fd = control, .events = POLLIN }, { .fd = http, .events = POLLIN } };
    int n_status = 0;

    while (poll(p, 2, -1) >= 0 || errno == EINTR) {
        for (int i = 0; i < 2; i++) {
            if (!(p[i].revents & POLLIN))
                continue;
            int sock = accept4(p[i].fd, NULL, NULL, SOCK_CLOEXEC);
            if (sock < 0)
                continue;
            if (i == 0)
                serve_control(f, sock, &n_status);
            else
                serve_http(f, sock);
            close(sock);
        }
    }
}

void fake_llmd_start(struct fake_llmd *f)
{
    pid_t parent = getpid();
    int control, http;

    strcpy(f->dir, "/tmp/llmd-test-ctl-XXXXXX");
    assert_int_equal(seteuid(f->uid ? f->uid : geteuid()), 0); /* listen() notes who it is */
    assert_non_null(mkdtemp(f->dir));
    control = listen_control(f->dir);
    assert_int_equal(seteuid(getuid()), 0);
    http = listen_http(&f->port);
    f->pid = fork();
    assert_true(f->pid >= 0);
    if (f->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            serve(f, control, http);
        _exit(0);
    }
    close(control);
    close(http);
}

void fake_llmd_stop(struct fake_llmd *f)
{
    static const char *const names[] = { "control.sock", "asked" };
    char path[128];

    kill(f->pid, SIGKILL);
    waitpid(f->pid, NULL, 0);
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", f->dir, names[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(f->dir), 0);
}

const char *fake_llmd_asked(const struct fake_llmd *f)
{
    static char text[1 << 16];
    char path[128];
    ssize_t n = 0;
    int fd;

    snprintf(path, sizeof path, "%s/asked", f->dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, sizeof text - 1);
        close(fd);
    }
    text[n > 0 ? n : 0] = '\0';
    return text;
}
