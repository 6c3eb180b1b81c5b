/* test_http_adopt.c - a gateway is killed, and its client must not notice more than a pause: another
 * server goes on with the same TCP connection, not a byte lost or doubled.
 *
 * A child process serves; it hands the descriptor of each connection to the test over a socketpair, as
 * it would to the supervisor, receives into shared memory, and notes there where its answers begin.  The
 * test is the client, the supervisor and the successor. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common/fdpass.h"
#include "gateway/net/tcp_offset.h"
#include "tests/unit/http_fixture.h"

enum { JOURNAL_BYTES = 65536, EVENTS = 3000 };

/* What outlives the child. */
struct record {
    uint64_t in_base;
    _Atomic uint64_t in_start;
    _Atomic uint64_t marked_at; /* in_start of the request that the mark speaks of, + 1 */
    struct http_mark mark;
    _Atomic int
        dies_when_used; /* the child is killed when so many answers are out, before it notes it */
    char in[JOURNAL_BYTES]; /* all that the client has sent */
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
    uint64_t in_seen;
    int n_requests;
    int i; /* next event */
    enum http_outcome outcome;
    bool is_done;
    bool is_short; /* the answer has one event */
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
    int n = s->is_short ? 1 : EVENTS;

    while (s->i < n && !http_is_congested(s->req))
        write_event(s);
    if (s->i == n && !http_is_ended(s->req))
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

/* Answer as both processes do, whatever state the client is in. */
static void answer(struct stage *s, struct http_request *req, const char *path)
{
    if (!strcmp(path, "/ok")) {
        http_respond(req, 200, NULL, 0, "ok", 2);
        return;
    }
    s->req = req;
    http_set_repeatable(req);
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

static void *child_on_accept(int fd, bool is_tcp, void *ctx)
{
    struct stage *s = ctx;
    struct err e;

    if (!is_tcp || !fdpass_send(s->control[1], "c", 1, &fd, 1, &e) ||
        !tcp_bytes_read(fd, &s->record->in_base))
        _exit(3);
    return NULL;
}

static char *child_on_room(struct http_conn *conn, size_t *n, void *ctx)
{
    struct stage *s = ctx;

    (void)conn;
    *n = JOURNAL_BYTES - s->in_seen;
    return s->record->in + s->in_seen;
}

static void child_on_input(struct http_conn *conn, size_t n, void *ctx)
{
    (void)conn;
    ((struct stage *)ctx)->in_seen += n;
}

static void child_on_used(struct http_conn *conn, uint64_t n, void *ctx)
{
    struct stage *s = ctx;

    (void)conn;
    if (atomic_load(&s->record->dies_when_used) > 0 &&
        atomic_fetch_sub(&s->record->dies_when_used, 1) == 1)
        kill(getpid(), SIGKILL);
    atomic_store(&s->record->in_start, n);
}

static void child_on_output(struct http_conn *conn, const struct http_mark *mark, void *ctx)
{
    struct record *r = ((struct stage *)ctx)->record;

    (void)conn;
    r->mark = *mark;
    atomic_store(&r->marked_at, atomic_load(&r->in_start) + 1);
}

static void child_on_request(struct http_request *req, void *ctx)
{
    answer(ctx, req, http_request_path(req));
}

static void child_on_done(struct http_request *req, enum http_outcome outcome, void *ctx)
{
    struct stage *s = ctx;

    (void)outcome;
    if (req == s->req)
        s->req = NULL;
}

static void child_main(struct stage *s)
{
    const struct http_handler handler = { .on_request = child_on_request,
                                          .on_drain = on_drain,
                                          .on_done = child_on_done,
                                          .on_accept = child_on_accept,
                                          .on_room = child_on_room,
                                          .on_input = child_on_input,
                                          .on_used = child_on_used,
                                          .on_output = child_on_output };
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
    struct stage *s = ctx;
    const char *body;
    size_t n;

    s->n_requests++;
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

/* Go on with a connection of the dead child. */
static bool adopt(struct stage *s, int fd, struct err *e)
{
    struct record *r = s->record;
    struct http_resume resume = { .in_start = atomic_load(&r->in_start) };
    struct http_conn *conn;
    uint64_t n_read;

    resume.has_mark = atomic_load(&r->marked_at) == resume.in_start + 1;
    resume.mark = r->mark;
    if (!tcp_bytes_read(fd, &n_read))
        fail_msg("no TCP connection");
    conn = http_server_adopt(s->server, fd, &resume, e);
    if (!conn)
        return false;
    n_read -= r->in_base;
    http_conn_feed(conn, r->in + resume.in_start, n_read - resume.in_start);
    http_conn_go_on(conn);
    return true;
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

static int n_begun; /* rounds in which the child died with the answer begun and not complete */

/* One round: `path` is streamed, the child is killed after the client has read about `n` bytes and
 * `delay_us` more have passed, and the successor completes the answer, then serves `after`. */
static void kill_and_go_on(const char *path, size_t n, useconds_t delay_us, const char *after)
{
    struct stage *s = stage_new();
    struct buf in = { 0 }, request = { 0 };
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
    n_begun += atomic_load(&s->record->marked_at) > 1 && s->record->mark.whole_bytes == 0;

    succeed(s);
    if (!adopt(s, taken, &e))
        fail_msg("%s", e.msg);
    pthread_create(&thread, NULL, run_loop, s->loop);
    assert_true(recv_until(client, &in, "\r\n0\r\n\r\n"));
    if (*after)
        assert_true(recv_times(client, &in, "\r\n\r\nok", 2));
    close(client);
    pthread_join(thread, NULL); /* ends in on_close */
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
    assert_in_range(n_begun, 15, 30);
}

static void pipelined_bytes_behind_the_answer_are_served_after_it(void **state)
{
    (void)state;
    kill_and_go_on("/events", 4000, 100, GET("/ok"));
}

/* Until the child has read so much, by the kernel's own count. */
static void wait_for_input(const struct stage *s, int fd, size_t n)
{
    uint64_t n_read = 0;

    for (int i = 0; i < PATIENCE_MS && n_read < n; i++) {
        assert_true(tcp_bytes_read(fd, &n_read));
        n_read -= s->record->in_base;
        poll(NULL, 0, 1);
    }
    assert_int_equal(n_read, n);
}

/* Killed with `part` bytes of an upload read; a few more arrive while nobody is there. */
static void kill_in_upload(const char *request, size_t part, const char *body)
{
    size_t n = strlen(request), late = n - part < 5 ? n - part : 5;
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    send_bytes(client, request, part);
    wait_for_input(s, taken, part);
    kill_child(s);
    send_bytes(client, request + part, late);
    succeed(s);
    if (!adopt(s, taken, &e))
        fail_msg("%s", e.msg);
    pthread_create(&thread, NULL, run_loop, s->loop);
    send_text(client, request + part + late);
    assert_true(recv_until(client, &in, body));
    expect_contains(&in, "HTTP/1.1 200 OK\r\n");
    assert_null(strstr(strstr(in.data, "HTTP/1.1 200") + 1, "HTTP/1.1"));
    close(client);
    pthread_join(thread, NULL);
    stage_free(s);
    buf_fini(&in);
}

#define BODY "a body of forty bytes, not one more: 012"

static void a_killed_servers_upload_goes_on_where_it_stopped(void **state)
{
    static const char head[] = "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n";
    static const size_t parts[] = {
        1, 17, sizeof head - 3, sizeof head - 1, sizeof head + 20, sizeof head + sizeof BODY - 3
    };

    (void)state;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        kill_in_upload("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n" BODY,
                       parts[i], BODY);
}

/* 100 Continue is out; the client must not be told so again, nor may the answer begin in its place. */
static void continue_is_said_once(void **state)
{
    static const char head[] =
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\nExpect: 100-continue\r\n\r\n";
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    (void)state;
    send_text(client, head);
    assert_true(recv_until(client, &in, "HTTP/1.1 100 Continue\r\n\r\n"));
    kill_child(s);
    succeed(s);
    if (!adopt(s, taken, &e))
        fail_msg("%s", e.msg);
    pthread_create(&thread, NULL, run_loop, s->loop);
    send_text(client, BODY);
    assert_true(recv_until(client, &in, BODY));
    assert_int_equal(strncmp(in.data + 25, "HTTP/1.1 200 OK", 15), 0);
    close(client);
    pthread_join(thread, NULL);
    stage_free(s);
    buf_fini(&in);
}

/* The kernel has the whole answer, and the child died before it could note that: who answers again gives
 * the client's next request an answer that is not its own. */
static void an_answer_that_is_out_is_not_given_again(void **state)
{
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct err e = { 0 };
    pthread_t thread;
    int status, client = connect_port(s->port), taken = take_connection(s);

    (void)state;
    atomic_store(&s->record->dies_when_used, 2);
    send_text(client, GET("/ok") GET("/ok") GET("/events"));
    assert_int_equal(waitpid(s->child, &status, 0), s->child);
    assert_true(WIFSIGNALED(status));
    succeed(s);
    if (!adopt(s, taken, &e))
        fail_msg("%s", e.msg);
    pthread_create(&thread, NULL, run_loop, s->loop);
    assert_true(recv_until(client, &in, "\r\n0\r\n\r\n"));
    close(client);
    pthread_join(thread, NULL);
    assert_int_equal(s->n_requests, 1);
    stage_free(s);
    buf_fini(&in);
}

/* What cannot be made again and is out in part has no honest end but this. */
static void part_of_an_answer_that_cannot_be_made_again_is_cut(void **state)
{
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct err e = { 0 };
    int client = connect_port(s->port), taken = take_connection(s);

    (void)state;
    send_text(client, GET("/timed"));
    read_some(client, &in, 500);
    kill_child(s);
    succeed(s);
    s->record->mark.is_repeatable = false;
    assert_false(adopt(s, taken, &e));
    assert_int_equal(e.code, ERR_PROTO);
    close(client);
    stage_free(s);
    buf_fini(&in);
}

/* Written again it comes out shorter: then the client has bytes of another answer, and must not be
 * told that it is complete. */
static void an_answer_that_comes_out_differently_is_cut(void **state)
{
    struct stage *s = stage_new();
    struct buf in = { 0 };
    struct err e = { 0 };
    pthread_t thread;
    int client = connect_port(s->port), taken = take_connection(s);

    (void)state;
    send_text(client, GET("/timed"));
    read_some(client, &in, 5000);
    kill_child(s);
    succeed(s);
    s->is_short = true;
    if (!adopt(s, taken, &e))
        fail_msg("%s", e.msg);
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
    assert_null(http_server_adopt(s->server, socket(AF_INET, SOCK_STREAM, 0), &resume, &e));
    assert_int_equal(e.code, ERR_SYS);
    resume.has_mark = true;
    resume.mark.answer_start = 1000; /* more than was ever written */
    int client = connect_port(s->port);
    assert_null(http_server_adopt(s->server, client, &resume, &e));
    assert_int_equal(e.code, ERR_PROTO);
    stage_free(s);
}

static void wait_for_count(int fd, uint64_t base, uint64_t want)
{
    uint64_t n = 0;

    for (int i = 0; i < PATIENCE_MS; i++) {
        assert_true(tcp_bytes_read(fd, &n));
        if (n - base == want)
            return;
        poll(NULL, 0, 1);
    }
    assert_int_equal(n - base, want);
}

/* TCP numbers the end like a byte; who counts it as one looks for a byte that no journal has. */
static void the_end_of_the_input_is_no_byte(void **state)
{
    uint16_t port;
    int listen_fd = listen_tcp(&port), client = connect_port(port);
    int fd = accept(listen_fd, NULL, NULL);
    struct pollfd p = { .fd = fd, .events = POLLRDHUP };
    uint64_t base;
    char bytes[8];

    (void)state;
    assert_true(tcp_bytes_read(fd, &base));
    send_text(client, "hello");
    assert_int_equal(recv(fd, bytes, 3, 0), 3);
    wait_for_count(fd, base, 3);
    shutdown(client, SHUT_WR);
    assert_int_equal(poll(&p, 1, PATIENCE_MS), 1);
    wait_for_count(fd, base, 3);
    assert_int_equal(recv(fd, bytes, 8, 0), 2);
    wait_for_count(fd, base, 5);
    assert_int_equal(recv(fd, bytes, 8, 0), 0);
    wait_for_count(fd, base, 5);
    close(client), close(fd), close(listen_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_killed_servers_answer_goes_on_where_it_stopped),
        cmocka_unit_test(pipelined_bytes_behind_the_answer_are_served_after_it),
        cmocka_unit_test(a_killed_servers_upload_goes_on_where_it_stopped),
        cmocka_unit_test(continue_is_said_once),
        cmocka_unit_test(an_answer_that_is_out_is_not_given_again),
        cmocka_unit_test(part_of_an_answer_that_cannot_be_made_again_is_cut),
        cmocka_unit_test(an_answer_that_comes_out_differently_is_cut),
        cmocka_unit_test(what_is_no_connection_is_not_adopted),
        cmocka_unit_test(the_end_of_the_input_is_no_byte),
    };

    return cmocka_run_group_tests_name("http_adopt", tests, NULL, NULL);
}
