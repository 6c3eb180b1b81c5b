/* test_control.c - llmd's channel to each child and to llmctl.
 *
 * What would break in production: a descriptor that leaks with each message, a malformed datagram that
 * ends llmd, or BOOT's descriptors given to the wrong part. */
#include "proto/control.h"

#include <fcntl.h>
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
    close(pair[0]);
    if (pair[1] >= 0)
        close(pair[1]);
    return 0;
}

/* A memfd whose size marks it. */
static int mark(int size)
{
    int fd = memfd_create("mark", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, size), 0);
    return fd;
}

static int size_of(int fd)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    return (int)st.st_size;
}

static void send_boot(void)
{
    static const struct {
        Llmd__FdKind kind;
        uint32_t index;
    } what[4] = { { LLMD__FD_KIND__FD_BOARD, 0 },
                  { LLMD__FD_KIND__FD_LEDGER, 0 },
                  { LLMD__FD_KIND__FD_LEDGER, 1 },
                  { LLMD__FD_KIND__FD_KVPOOL, 0 } };
    Llmd__Boot boot = LLMD__BOOT__INIT;
    Llmd__FdNote notes[4], *list[4];
    struct err e;
    int fds[4];

    for (int i = 0; i < 4; i++) {
        notes[i] = (Llmd__FdNote)LLMD__FD_NOTE__INIT;
        notes[i].kind = what[i].kind;
        notes[i].index = what[i].index;
        list[i] = &notes[i];
        fds[i] = mark(10 + i);
    }
    boot.n_fds = 4;
    boot.fds = list;
    boot.instance = "xyz";
    assert_ok(control_send(pair[0], MSG_BOOT, &boot, fds, 4, &e), e);
    for (int i = 0; i < 4; i++)
        close(fds[i]);
}

static void control_boot_hands_each_descriptor_to_who_asks(void **state)
{
    int before = open_fds_count(getpid()), ledger, board;
    struct control_msg m;
    struct err e;

    (void)state;
    send_boot();
    assert_int_equal(control_recv(pair[1], &m, &e), CONTROL_OK);
    assert_int_equal(m.type, MSG_BOOT);
    assert_string_equal(((Llmd__Boot *)m.body)->instance, "xyz");
    assert_int_equal(m.n_fds, 4);
    ledger = control_take_fd(&m, LLMD__FD_KIND__FD_LEDGER, 1);
    board = control_take_fd(&m, LLMD__FD_KIND__FD_BOARD, 0);
    assert_int_equal(size_of(ledger), 12);
    assert_int_equal(size_of(board), 10);
    assert_int_equal(control_take_fd(&m, LLMD__FD_KIND__FD_LEDGER, 1), -1); /* given once */
    assert_int_equal(control_take_fd(&m, LLMD__FD_KIND__FD_LEDGER, 2), -1);
    assert_int_equal(control_take_fd(&m, LLMD__FD_KIND__FD_WEIGHTS, 0), -1);
    control_msg_fini(&m); /* closes the two that nobody took */
    assert_int_equal(open_fds_count(getpid()), before + 2);
    assert_int_equal(size_of(ledger), 12);
    close(ledger);
    close(board);
    control_msg_fini(&m);
}

static void control_recv_waits_for_nothing_and_sees_the_end(void **state)
{
    Llmd__Fatal fatal = LLMD__FATAL__INIT;
    struct control_msg m;
    struct err e;

    (void)state;
    assert_int_equal(control_recv(pair[0], &m, &e), CONTROL_EMPTY);
    fatal.message = "last words";
    assert_ok(control_send(pair[1], MSG_FATAL, &fatal, NULL, 0, &e), e);
    close(pair[1]);
    pair[1] = -1;
    assert_int_equal(control_recv(pair[0], &m, &e), CONTROL_OK);
    assert_string_equal(((Llmd__Fatal *)m.body)->message, "last words");
    control_msg_fini(&m);
    assert_int_equal(control_recv(pair[0], &m, &e), CONTROL_CLOSED);
    assert_fails(control_send(pair[0], MSG_FATAL, &fatal, NULL, 0, &e), e, ERR_SYS, "FATAL: send");
}

static void control_recv_refuses_what_is_no_frame_and_closes_its_descriptors(void **state)
{
    static const char *const garbage[] = { "x", "LLM1", "0123456789abcdef0123456789abcdef" };
    int before = open_fds_count(getpid());
    struct control_msg m;
    struct err e;

    (void)state;
    for (int i = 0; i < 3; i++) {
        int fd = mark(1);
        assert_ok(fdpass_send(pair[0], garbage[i], strlen(garbage[i]), &fd, 1, &e), e);
        close(fd);
        assert_int_equal(control_recv(pair[1], &m, &e), CONTROL_FAILED);
        assert_int_equal(e.code, ERR_PROTO);
        assert_null(m.body);
        assert_int_equal(m.n_fds, 0);
        assert_int_equal(open_fds_count(getpid()), before);
    }
    send_boot(); /* the channel itself is as good as before */
    assert_int_equal(control_recv(pair[1], &m, &e), CONTROL_OK);
    control_msg_fini(&m);
    assert_int_equal(open_fds_count(getpid()), before);
}

static void control_send_carries_a_whole_configuration_and_no_more(void **state)
{
    static char text[CONTROL_BYTES_MAX];
    Llmd__Fatal fatal = LLMD__FATAL__INIT;
    struct control_msg m;
    struct err e;

    (void)state;
    fatal.message = text;
    memset(text, 'x', sizeof text - 1);
    assert_fails(control_send(pair[0], MSG_FATAL, &fatal, NULL, 0, &e), e, ERR_PROTO, "too many");
    text[CONTROL_BYTES_MAX - FRAME_HEADER_BYTES - 4] =
        '\0'; /* with its tag and length: exactly full */
    assert_ok(control_send(pair[0], MSG_FATAL, &fatal, NULL, 0, &e), e);
    assert_int_equal(control_recv(pair[1], &m, &e), CONTROL_OK);
    assert_int_equal(strlen(((Llmd__Fatal *)m.body)->message), strlen(text));
    control_msg_fini(&m);
}

static void take_from_no_boot(void *arg)
{
    (void)arg;
    Llmd__Ready ready = LLMD__READY__INIT;
    control_take_fd(&(struct control_msg){ .type = MSG_READY, .body = &ready },
                    LLMD__FD_KIND__FD_BOARD, 0);
}

static void control_take_fd_of_another_message_is_a_bug(void **state)
{
    (void)state;
    assert_aborts(take_from_no_boot, NULL);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(control_boot_hands_each_descriptor_to_who_asks),
        TEST(control_recv_waits_for_nothing_and_sees_the_end),
        TEST(control_recv_refuses_what_is_no_frame_and_closes_its_descriptors),
        TEST(control_send_carries_a_whole_configuration_and_no_more),
        TEST(control_take_fd_of_another_message_is_a_bug),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
