/* test_http_adopt.c - a gateway is killed, and its client must not notice more than a pause: another
 * server goes on with the same TCP connection, not a byte lost or doubled.
 *
 * A child process serves; it hands the descriptor of each connection to the test over a socketpair, as
 * it would to the supervisor, and writes marks and the journal of its input into shared memory.  The test
 * is the client, the supervisor and the successor. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common/fdpass.h"
#include "tests/unit/http_fixture.h"

enum { JOURNAL_BYTES = 65536, EVENTS = 3000 };

/* What outlives the child: one of two slots is valid, the other is being written. */
struct slot {
    struct http_mark mark;
    bool is_answering;
    char path[16]; /* of the request being answered */
    uint32_t n_in; /* bytes read that no finished request used */
    char in[JOURNAL_BYTES];
};

struct record {
    _Atomic int current;
    struct slot slots[2];
};

struct stage {
    struct record *record;
    int control[2]; /* child writes [1] */
    int listen_fd;
    uint16_t port;
    pid_t child;
    struct loop *loop;
    struct http_server *server;
    struct loop_timer *timer;
    struct http_request *req; /* being answered */
    struct http_conn *conn;
    int i; /* next event */
    enum http_outcome outcome;
    bool is_done;
};

/* ---- the same program in both processes ---- */
static void write_event(struct stage *s)
{
    char event[128];
    int n = snprintf(event, sizeof event, "data: event %d %.*s\n\n", s->i, s->i * 7 % 60,
                     "......................................................................");

    http_write(s->req, event, (size_t)n);
    s->i++;
}

/* As many as the client takes; in the end the end. */
static void write_events(struct stage *s)
{
    while (s->i < EVENTS && !http_is_congested(s->req))
        write_event(s);
    if (s->i == EVENTS && !http_is_ended(s->req))
        http_end(s->req);
}

static void start_events(struct stage *s)
{
    const struct http_header type = { "Content-Type", "text/event-stream" };

    s->i = 0;
    http_start(s->req, 200, &type, 1);
}

static void on_drain(struct http_request *req, void *ctx)
{
    (void)req;
    write_events(ctx);
}

static void set_config(struct http_config *config, bool is_first)
{
    *config = http_config_default;
    config->out_high_bytes = 5000;
    if (is_first)
        config->sndbuf_bytes =
            20000; /* so that a slow client leaves bytes in the process that dies */
}

static const struct slot *current_slot(const struct stage *s)
{
    return &s->record->slots[atomic_load(&s->record->current)];
}

/* Answer as both processes do, whatever state the client is in. */
static void answer(struct stage *s, struct http_request *req, const char *path)
{
    if (!strcmp(path, "/ok")) {
        http_respond(req, 200, NULL, 0, "ok", 2);
        return;
    }
    s->req = req;
    start_events(s);
    if (!strcmp(path, "/timed") && s->timer)
        loop_timer_set(s->timer, 20000);
    else
        write_events(s);
}

/* ---- the child ---- */
static void on_timer(void *arg)
{
    struct stage *s = arg;

    if (!s->req)
        return;
    if (!http_is_congested(s->req) && s->i < EVENTS)
        write_event(s);
    loop_timer_set(s->timer, 20000);
}

static struct slot *next_slot(struct stage *s)
{
    return &s->record->slots[!atomic_load(&s->record->current)];
}

static void publish(struct stage *s)
{
    atomic_store(&s->record->current, !atomic_load(&s->record->current));
}

static void child_on_open(struct http_conn *conn, void *ctx)
{
    struct stage *s = ctx;
    int fd = http_conn_fd(conn);
    struct err e;

    http_conn_mark(conn, &next_slot(s)->mark);
    publish(s);
    if (!fdpass_send(s->control[1], "c", 1, &fd, 1, &e))
        _exit(3);
}

static void child_on_input(struct http_conn *conn, const void *bytes, size_t n, void *ctx)
{
    struct stage *s = ctx;
    struct slot *slot = next_slot(s);

    *slot = *current_slot(s);
    memcpy(slot->in + slot->n_in, bytes, n);
    slot->n_in += (uint32_t)n;
    http_conn_mark(conn, &slot->mark);
    publish(s);
}

static void child_on_request(struct http_request *req, void *ctx)
{
    struct stage *s = ctx;
    struct slot *slot = next_slot(s);

    snprintf(slot->path, sizeof slot->path, "%s", http_request_path(req));
    answer(s, req, slot->path);
    slot->is_answering = true;
    slot->n_in = (uint32_t)http_request_surplus(req, slot->in, sizeof slot->in);
    if (!http_request_mark(req, &slot->mark))
        _exit(4);
    publish(s);
}

/* The kernel has the whole answer: from now on the connection is read again. */
static void child_on_done(struct http_request *req, enum http_outcome outcome, void *ctx)
{
    struct stage *s = ctx;
    struct slot *slot = next_slot(s);

    (void)outcome;
    *slot = *current_slot(s);
    slot->is_answering = false;
    publish(s);
    if (req == s->req)
        s->req = NULL;
}

static void child_main(struct stage *s)
{
    const struct http_handler handler = { .on_request = child_on_request,
                                          .on_drain = on_drain,
                                          .on_done = child_on_done,
                                          .on_open = child_on_open,
                                          .on_input = child_on_input };
    struct http_config config;
    struct err e;

    set_config(&config, true);
    s->loop = loop_new(&e);
    s->timer = loop_timer_new(s->loop, on_timer, s);
    s->server = http_server_new(s->loop, &config, &handler, s, NULL, &e);
    if (!http_server_listen(s->server, s->listen_fd, &e))
        _exit(5);
    loop_run(s->loop);
    _exit(6);
}

/* ---- the successor ---- */
static void on_done(struct http_request *req, enum http_outcome outcome, void *ctx)
{
    struct stage *s = ctx;

    if (req != s->req)
        return;
    s->outcome = outcome;
    s->is_done = true;
    s->req = NULL;
}

static void on_request(struct http_request *req, void *ctx)
{
    const char *body;
    size_t n;

    body = http_request_body(req, &n);
    if (n > 0)
        http_respond(req, 200, NULL, 0, body, n);
    else
        answer(ctx, req, http_request_path(req));
}

static void on_close(struct http_conn *conn, void *ctx)
{
    (void)conn;
    loop_stop(((struct stage *)ctx)->loop);
}

static struct stage *stage_new(void)
{
    struct stage *s = mem_zalloc(1, sizeof *s);

    s->record =
        mmap(NULL, sizeof *s->record, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(s->record != MAP_FAILED);
    assert_false(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, s->control));
    s->listen_fd = listen_tcp(&s->port);
    s->child = fork();
    assert_true(s->child >= 0);
    if (s->child == 0)
        child_main(s);
    return s;
}

static int take_connection(struct stage *s)
{
    int fds[FDPASS_FDS_MAX], n_fds = 0;
    struct err e = { 0 };
    char byte;
    size_t n;

    if (fdpass_recv(s->control[0], &byte, 1, &n, fds, &n_fds, &e) != FDPASS_OK || n_fds != 1)
        fail_msg("no connection came: %s", e.msg);
    return fds[0];
}

static void kill_child(struct stage *s)
{
    int status;

    kill(s->child, SIGKILL);
    assert_int_equal(waitpid(s->child, &status, 0), s->child);
    if (!WIFSIGNALED(status))
        fail_msg("the child ended by itself: %d", WEXITSTATUS(status));
    s->child = 0;
}

static void succeed(struct stage *s)
{
    static const struct http_handler handler = {
        .on_request = on_request, .on_drain = on_drain, .on_done = on_done, .on_close = on_close
    };
    struct http_config config;
    struct err e;

    set_config(&config, false);
    s->loop = loop_new(&e);
    s->server = http_server_new(s->loop, &config, &handler, s, NULL, &e);
    assert_non_null(s->server);
}

static void stage_free(struct stage *s)
{
    http_server_free(s->server);
    loop_free(s->loop);
    close(s->control[0]);
    close(s->control[1]);
    close(s->listen_fd);
    munmap(s->record, sizeof *s->record);
    free(s);
}

static void *run_loop(void *loop)
{
    loop_run(loop);
    return NULL;
}

/* ---- the client's view ---- */
static void expect_events(const struct buf *in)
{
    const char *at = strstr(in->data, "\r\n\r\n");
    char want[128];
    int i = 0;

    assert_non_null(at);
    for (at += 4; strncmp(at, "0\r\n\r\n", 5) != 0; i++) {
        char *data;
        size_t n = strtoul(at, &data, 16);
        int want_n =
            snprintf(want, sizeof want, "data: event %d %.*s\n\n", i, i * 7 % 60,
                     "......................................................................");
        if (n != (size_t)want_n || memcmp(data + 2, want, n) != 0)
            fail_msg("event %d: '%.80s'", i, at);
        at = data + 2 + n + 2;
    }
    assert_int_equal(i, EVENTS);
}

static void read_some(int fd, struct buf *in, size_t n)
{
    char bytes[4096];

    while (in->n < n) {
        ssize_t got = recv(fd, bytes, n - in->n < sizeof bytes ? n - in->n : sizeof bytes, 0);
        assert_true(got > 0);
        buf_add(in, bytes, (size_t)got);
    }
}

static int n_answering; /* rounds in which the child died with the answer not complete */

/* One round: `path` is streamed, the child is killed after the client has read about `n` bytes and
 * `delay_us` more have passed, and the successor completes the answer, then serves `after`. */
static void kill_and_go_on(const char *path, size_t n, useconds_t delay_us, const char *after)
{
    struct stage *s = stage_new();
    struct buf in = { 0 }, request = { 0 };
    const struct slot *slot;
    struct http_resume resume;
    struct http_request *req;
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    /* An answer before it, so that the interesting one does not begin at 0. */
    buf_printf(&request, GET("/ok") "GET %s HTTP/1.1\r\nHost: x\r\n\r\n%s", path, after);
    send_bytes(client, request.data, request.n);
    assert_true(recv_until(client, &in, "\r\n\r\nok"));
    read_some(client, &in, n);
    usleep(delay_us);
    kill_child(s);

    succeed(s);
    slot = current_slot(s);
    resume = (struct http_resume){
        .mark = &slot->mark, .is_answering = slot->is_answering, .in = slot->in, .n_in = slot->n_in
    };
    if (!http_server_adopt(s->server, taken, &resume, &req, &e))
        fail_msg("%s", e.msg);
    assert_int_equal(req != NULL, slot->is_answering);
    if (req)
        answer(s, req, slot->path);
    pthread_create(&thread, NULL, run_loop, s->loop);
    assert_true(recv_until(client, &in, "\r\n0\r\n\r\n"));
    if (*after)
        assert_true(recv_times(client, &in, "\r\n\r\nok", 2));
    close(client);
    pthread_join(thread, NULL); /* ends in on_close */
    if (req)
        n_answering++;
    assert_int_equal(s->outcome, HTTP_SENT);
    char *first = strstr(in.data, "\r\n\r\nok");
    buf_clear(&request);
    buf_add_str(&request, first + 6);
    expect_events(&request);
    stage_free(s);
    buf_fini(&in), buf_fini(&request);
}

static void a_killed_servers_answer_goes_on_where_it_stopped(void **state)
{
    unsigned seed = (unsigned)clock_mono_ns();

    (void)state;
    print_message("seed %u\n", seed);
    for (int round = 0; round < 15; round++) {
        size_t n = (size_t)rand_r(&seed) % 60000;
        kill_and_go_on("/events", n, (useconds_t)rand_r(&seed) % 2000, "");
        n = (size_t)rand_r(&seed) % 3000;
        kill_and_go_on("/timed", n, (useconds_t)rand_r(&seed) % 3000, "");
    }
    assert_in_range(n_answering, 15, 30);
}

static void pipelined_bytes_behind_the_answer_are_served_after_it(void **state)
{
    (void)state;
    kill_and_go_on("/events", 4000, 100, GET("/ok"));
}

static void wait_for_input(const struct stage *s, size_t n)
{
    for (int i = 0; i < PATIENCE_MS && current_slot(s)->n_in < n; i++)
        poll(NULL, 0, 1);
    assert_int_equal(current_slot(s)->n_in, n);
}

/* Killed with `part` bytes of an upload read; a few more arrive while nobody is there. */
static void kill_in_upload(const char *request, size_t part, const char *body)
{
    size_t n = strlen(request), late = n - part < 5 ? n - part : 5;
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct http_resume resume;
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    send_bytes(client, request, part);
    wait_for_input(s, part);
    kill_child(s);
    send_bytes(client, request + part, late);
    succeed(s);
    resume = (struct http_resume){ .mark = &current_slot(s)->mark,
                                   .in = current_slot(s)->in,
                                   .n_in = part };
    if (!http_server_adopt(s->server, taken, &resume, &s->req, &e))
        fail_msg("%s", e.msg);
    assert_null(s->req);
    pthread_create(&thread, NULL, run_loop, s->loop);
    send_text(client, request + part + late);
    assert_true(recv_until(client, &in, body));
    expect_contains(&in, "HTTP/1.1 200 OK\r\n");
    close(client);
    pthread_join(thread, NULL);
    stage_free(s);
    buf_fini(&in);
}

static void a_killed_servers_upload_goes_on_where_it_stopped(void **state)
{
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n";
    static const char body[] = "a body of forty bytes, not one more: 012";
    static const size_t parts[] = {
        1, 17, sizeof head - 3, sizeof head - 1, sizeof head + 20, sizeof head + sizeof body - 3
    };
    char request[sizeof head + sizeof body];

    (void)state;
    assert_int_equal(sizeof body - 1, 40);
    snprintf(request, sizeof request, "%s%s", head, body);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        kill_in_upload(request, parts[i], body);
}

/* Bytes that died with the process cannot be made up: the client must see an end, not an answer to
 * something it did not send. */
static void a_connection_with_lost_bytes_is_cut(void **state)
{
    struct stage *s = stage_new();
    struct http_resume resume = { .n_in = 10 };
    struct http_mark mark;
    struct err e = { 0 };
    int client = connect_port(s->port), taken = take_connection(s);
    char byte;

    (void)state;
    send_text(client, "POST /echo");
    wait_for_input(s, 10);
    kill_child(s);
    succeed(s);
    mark = current_slot(s)->mark;
    resume.in = current_slot(s)->in;
    mark.bytes_read--; /* the record is one byte behind */
    resume.mark = &mark;
    assert_false(http_server_adopt(s->server, taken, &resume, &s->req, &e));
    assert_int_equal(e.code, ERR_PROTO);
    assert_int_equal(recv(client, &byte, 1, 0), -1);
    assert_int_equal(errno, ECONNRESET);
    close(client);
    stage_free(s);
}

/* Written again it comes out shorter: then the client has bytes of another answer, and must not be
 * told that it is complete. */
static void an_answer_that_comes_out_differently_is_cut(void **state)
{
    struct stage *s = stage_new();
    struct http_resume resume = { .is_answering = true };
    struct buf in = { 0 };
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    (void)state;
    send_text(client, GET("/timed"));
    read_some(client, &in, 5000);
    kill_child(s);
    succeed(s);
    resume.mark = &current_slot(s)->mark;
    if (!http_server_adopt(s->server, taken, &resume, &s->req, &e))
        fail_msg("%s", e.msg);
    start_events(s);
    write_event(s);
    http_end(s->req);
    pthread_create(&thread, NULL, run_loop, s->loop);
    recv_rest(client, &in);
    expect_lacks(&in, "\r\n0\r\n\r\n");
    close(client);
    pthread_join(thread, NULL);
    assert_int_equal(s->outcome, HTTP_ABORTED);
    stage_free(s);
    buf_fini(&in);
}

static void what_is_no_connection_is_not_adopted(void **state)
{
    struct stage *s = stage_new();
    struct http_resume resume = { 0 };
    struct err e = { 0 };

    (void)state;
    kill_child(s);
    succeed(s);
    assert_false(
        http_server_adopt(s->server, socket(AF_INET, SOCK_STREAM, 0), &resume, &s->req, &e));
    assert_int_equal(e.code, ERR_SYS);
    resume.is_answering = true;
    int client = connect_port(s->port);
    assert_false(http_server_adopt(s->server, client, &resume, &s->req, &e));
    assert_int_equal(e.code, ERR_PROTO);
    stage_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_servers_answer_goes_on_where_it_stopped),
        cmocka_unit_test(pipelined_bytes_behind_the_answer_are_served_after_it),
        cmocka_unit_test(a_killed_servers_upload_goes_on_where_it_stopped),
        cmocka_unit_test(a_connection_with_lost_bytes_is_cut),
        cmocka_unit_test(an_answer_that_comes_out_differently_is_cut),
        cmocka_unit_test(what_is_no_connection_is_not_adopted),
    };

    return cmocka_run_group_tests_name("http_adopt", tests, NULL, NULL);
}
