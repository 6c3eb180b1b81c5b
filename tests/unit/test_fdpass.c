/* test_fdpass.c - datagrams with descriptors.
 *
 * What would break in production: a descriptor that leaks with each bad message, one that a child of a
 * child inherits, or the last words of a dying process lost because it left some mail unread. */
#include "common/fdpass.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/open_fds.h"
#include "tests/check.h"

static int pair[2];

static int set_up(void **state)
{
    (void)state;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair);
}

static int tear_down(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++)
        if (pair[i] >= 0)
            close(pair[i]);
    return 0;
}

static void send_n(int n_fds, const char *text)
{
    int fds[FDPASS_FDS_MAX] = { 0 };
    struct err e;

    for (int i = 0; i < n_fds; i++)
        fds[i] = STDIN_FILENO;
    assert_ok(fdpass_send(pair[0], text, strlen(text), fds, n_fds, &e), e);
}

static void fdpass_keeps_datagrams_apart(void **state)
{
    char bytes[64];
    int fds[FDPASS_FDS_MAX], n_fds = -1;
    size_t n = 0;
    struct err e;

    (void)state;
    send_n(0, "one");
    send_n(0, "three");
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
    assert_int_equal(n, 3);
    assert_int_equal(n_fds, 0);
    assert_memory_equal(bytes, "one", 3);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
    assert_int_equal(n, 5);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_EMPTY);
}

static void fdpass_descriptors_arrive_in_order_and_close_on_exec(void **state)
{
    int sent[FDPASS_FDS_MAX], fds[FDPASS_FDS_MAX], n_fds = 0;
    char bytes[8];
    size_t n;
    struct err e;

    (void)state;
    for (int i = 0; i < FDPASS_FDS_MAX; i++) { /* the size marks each one */
        char name[32];
        snprintf(name, sizeof name, "mark-%d", i);
        sent[i] = memfd_create(name, 0);
        assert_true(sent[i] >= 0);
        assert_int_equal(ftruncate(sent[i], i + 1), 0);
    }
    assert_ok(fdpass_send(pair[0], "x", 1, sent, FDPASS_FDS_MAX, &e), e);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
    assert_int_equal(n_fds, FDPASS_FDS_MAX);
    for (int i = 0; i < FDPASS_FDS_MAX; i++) {
        struct stat st;
        assert_int_equal(fstat(fds[i], &st), 0);
        assert_int_equal(st.st_size, i + 1);
        assert_true(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
        close(fds[i]);
        close(sent[i]);
    }
}

static void fdpass_recv_refuses_what_is_too_long_and_leaks_nothing(void **state)
{
    int fds[FDPASS_FDS_MAX], n_fds = -1, before;
    size_t n = 777;
    char bytes[8];
    struct err e;

    (void)state;
    send_n(3, "nine bytes");
    before = open_fds_count(getpid());
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_FAILED);
    assert_int_equal(e.code, ERR_PROTO);
    assert_int_equal(n_fds, 0);
    assert_int_equal(n, 777);
    assert_int_equal(open_fds_count(getpid()), before);
    send_n(0, "ok"); /* and the socket goes on */
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
}

static void fdpass_recv_closes_a_part_of_the_descriptors(void **state)
{
    struct rlimit old, low;
    int fds[FDPASS_FDS_MAX], n_fds = -1, before;
    char bytes[8];
    size_t n;
    struct err e;

    (void)state;
    send_n(5, "x");
    before = open_fds_count(getpid());
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    low = old;
    low.rlim_cur = (rlim_t)dup(0) + 3; /* room for three of the five */
    close((int)low.rlim_cur - 3);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    enum fdpass_result result = fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    assert_int_equal(result, FDPASS_FAILED);
    assert_non_null(strstr(e.msg, "descriptors"));
    assert_int_equal(n_fds, 0);
    assert_int_equal(open_fds_count(getpid()), before);
}

static void fdpass_recv_sees_the_peer_go(void **state)
{
    int fds[FDPASS_FDS_MAX], n_fds;
    char bytes[8];
    size_t n;
    struct err e;

    (void)state;
    send_n(0, "bye");
    close(pair[0]);
    pair[0] = -1;
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_CLOSED);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_CLOSED);
    assert_fails(fdpass_send(pair[1], "x", 1, NULL, 0, &e), e, ERR_SYS, "control message");
    assert_int_equal(e.sys, EPIPE);
}

/* The peer leaves a message unread: the kernel then reports a reset before what it had sent. */
static void fdpass_recv_gives_last_words_before_closed(void **state)
{
    int fds[FDPASS_FDS_MAX], n_fds = 0;
    char bytes[16];
    size_t n = 0;
    struct err e;

    (void)state;
    assert_ok(fdpass_send(pair[1], "unread", 6, NULL, 0, &e), e);
    send_n(1, "last words");
    close(pair[0]);
    pair[0] = -1;
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_OK);
    assert_int_equal(n, 10);
    assert_int_equal(n_fds, 1);
    close(fds[0]);
    assert_int_equal(fdpass_recv(pair[1], bytes, sizeof bytes, &n, fds, &n_fds, &e), FDPASS_CLOSED);
}

static void fdpass_send_says_when_the_peer_is_full(void **state)
{
    static char bytes[4096];
    struct err e = { 0 };
    int n_sent = 0;

    (void)state;
    while (fdpass_send(pair[0], bytes, sizeof bytes, NULL, 0, &e) && n_sent < 100000)
        n_sent++;
    assert_int_equal(e.code, ERR_SYS);
    assert_int_equal(e.sys, EAGAIN);
    assert_true(n_sent > 0);
}

static void send_nothing(void *arg)
{
    (void)arg;
    fdpass_send(pair[0], "", 0, NULL, 0, NULL);
}

/* A receiver could not tell an empty datagram from the end. */
static void fdpass_send_of_nothing_is_a_bug(void **state)
{
    (void)state;
    assert_aborts(send_nothing, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(fdpass_keeps_datagrams_apart),
        TEST(fdpass_descriptors_arrive_in_order_and_close_on_exec),
        TEST(fdpass_recv_refuses_what_is_too_long_and_leaks_nothing),
        TEST(fdpass_recv_closes_a_part_of_the_descriptors),
        TEST(fdpass_recv_sees_the_peer_go),
        TEST(fdpass_recv_gives_last_words_before_closed),
        TEST(fdpass_send_says_when_the_peer_is_full),
        TEST(fdpass_send_of_nothing_is_a_bug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
