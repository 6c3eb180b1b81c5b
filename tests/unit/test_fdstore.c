/* test_fdstore.c - if this breaks, the next llmd finds a part of the service, or llmd waits for a service
 * manager that does not read. */
#include "supervisor/fdstore.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/check.h"

static sd_event *event;
static struct notify notify;
static struct fdstore store;
static int manager, thing;

static int socket_of(void)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    assert_true(fd >= 0);
    return fd;
}

/* Connected one way, as to a service manager: its socket holds net.unix.max_dgram_qlen datagrams.  (That of a pair
 * holds as many as the sender's buffer.) */
static int setup(void **state)
{
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    socklen_t length = sizeof at;

    (void)state;
    manager = socket_of();
    assert_int_equal(bind(manager, (struct sockaddr *)&at, sizeof at.sun_family), 0); /* any name */
    assert_int_equal(getsockname(manager, (struct sockaddr *)&at, &length), 0);
    notify = (struct notify){ .fd = socket_of() };
    assert_int_equal(connect(notify.fd, (struct sockaddr *)&at, length), 0);
    assert_true(sd_event_new(&event) >= 0);
    thing = memfd_create("thing", MFD_CLOEXEC);
    fdstore_open(&store, &notify, event);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    close(manager); /* nobody to wait for */
    fdstore_close(&store);
    close(notify.fd);
    close(thing);
    sd_event_unref(event);
    return 0;
}

/* The next datagram's lines, "" when there is none; a descriptor that came along is closed. */
static const char *hear(bool *with_fd)
{
    static char text[256];
    union {
        char room[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = { .iov_base = text, .iov_len = sizeof text - 1 };
    struct msghdr m = { .msg_iov = &iov,
                        .msg_iovlen = 1,
                        .msg_control = control.room,
                        .msg_controllen = sizeof control.room };
    ssize_t n = recvmsg(manager, &m, MSG_CMSG_CLOEXEC);
    struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    int fd;

    text[n > 0 ? n : 0] = '\0';
    if (with_fd)
        *with_fd = c != NULL;
    if (c) {
        memcpy(&fd, CMSG_DATA(c), sizeof fd);
        close(fd);
    }
    return text;
}

static int count_open(void)
{
    int n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void puts_and_removals_are_told_as_the_protocol_has_it(void **state)
{
    bool with_fd;

    (void)state;
    fdstore_put(&store, "llmd-board", thing, false);
    assert_string_equal(hear(&with_fd), "FDSTORE=1\nFDNAME=llmd-board\nFDPOLL=0");
    assert_true(with_fd);
    fdstore_put(&store, "llmd-c", thing, true);
    assert_string_equal(hear(&with_fd), "FDSTORE=1\nFDNAME=llmd-c");
    assert_true(with_fd);
    fdstore_remove(&store, "llmd-board");
    assert_string_equal(hear(&with_fd), "FDSTOREREMOVE=1\nFDNAME=llmd-board");
    assert_false(with_fd);
}

static void without_a_manager_nothing_happens(void **state)
{
    struct notify none = { .fd = -1 };
    struct fdstore alone;

    (void)state;
    fdstore_open(&alone, &none, event);
    fdstore_put(&alone, "llmd-board", thing, false);
    fdstore_remove(&alone, "llmd-board");
    assert_false(fdstore_is_there(&alone));
    assert_false(fdstore_is_clogged(&alone));
    fdstore_close(&alone);
}

/* Fill its socket; how many fitted. */
static int fill_up(void)
{
    int n = 0;

    while (!fdstore_is_clogged(&store)) {
        fdstore_put(&store, "llmd-filler", thing, false);
        assert_true(++n < 10000);
    }
    return n;
}

static void what_has_no_room_waits_and_is_sent_in_order(void **state)
{
    int n, other;

    (void)state;
    n = fill_up();
    other = dup(thing);
    fdstore_put(&store, "llmd-ctl-1", other, false);
    close(other); /* the order has its own */
    fdstore_remove(&store, "llmd-pid-1");
    while (n-- > 0) {
        hear(NULL);
        sd_event_run(event, 0); /* EPOLLOUT */
    }
    assert_string_equal(hear(NULL), "FDSTORE=1\nFDNAME=llmd-ctl-1\nFDPOLL=0");
    assert_string_equal(hear(NULL), "FDSTOREREMOVE=1\nFDNAME=llmd-pid-1");
    assert_string_equal(hear(NULL), "");
    assert_false(fdstore_is_clogged(&store));
}

static void client_connections_wait_for_everything_else(void **state)
{
    int n;

    (void)state;
    n = fill_up();
    fdstore_put(&store, "llmd-c", thing, true);
    fdstore_put(&store, "llmd-c", thing, true);
    fdstore_put(&store, "llmd-ctl-1", thing, false);
    while (n-- > 0) {
        hear(NULL);
        fdstore_flush(&store);
    }
    assert_string_equal(hear(NULL), "FDSTORE=1\nFDNAME=llmd-ctl-1\nFDPOLL=0");
    assert_string_equal(hear(NULL), "FDSTORE=1\nFDNAME=llmd-c");
    assert_string_equal(hear(NULL), "FDSTORE=1\nFDNAME=llmd-c");
}

static void a_manager_that_never_reads_costs_no_more_each_time(void **state)
{
    int before;

    (void)state;
    fill_up();
    fdstore_remove(&store, "llmd-ctl-1");
    fdstore_put(&store, "llmd-ctl-1", thing, false);
    before = count_open();
    for (int i = 0; i < 1000; i++) {
        fdstore_remove(&store, "llmd-ctl-1");
        fdstore_put(&store, "llmd-ctl-1", thing, false);
    }
    assert_int_equal(count_open(), before);
    assert_true(store.n_queued < 4);
}

/* A manager that takes one order at a time, as a busy one does. */
static void *read_slowly(void *arg)
{
    int *n_heard = arg;

    for (int quiet_ms = 0; quiet_ms < 500; quiet_ms++) {
        poll(NULL, 0, 1);
        if (*hear(NULL)) {
            ++*n_heard;
            quiet_ms = 0;
        }
    }
    return NULL;
}

static void an_end_waits_for_a_manager_that_reads_slowly(void **state)
{
    enum { N = 400 };
    pthread_t reader;
    int n_heard = 0;

    (void)state;
    for (int i = 0; i < N; i++) {
        char name[FDSTORE_NAME_BYTES];
        snprintf(name, sizeof name, "llmd-g-0-%x", i);
        fdstore_remove(&store, name);
    }
    assert_true(fdstore_is_clogged(&store));
    assert_int_equal(pthread_create(&reader, NULL, read_slowly, &n_heard), 0);
    assert_true(fdstore_sync(&store));
    pthread_join(reader, NULL);
    assert_int_equal(n_heard, N);
}

static void an_end_does_not_wait_for_one_that_never_reads(void **state)
{
    (void)state;
    fill_up();
    assert_false(fdstore_sync(&store));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define STORY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        STORY(puts_and_removals_are_told_as_the_protocol_has_it),
        STORY(without_a_manager_nothing_happens),
        STORY(what_has_no_room_waits_and_is_sent_in_order),
        STORY(client_connections_wait_for_everything_else),
        STORY(a_manager_that_never_reads_costs_no_more_each_time),
        STORY(an_end_waits_for_a_manager_that_reads_slowly),
        STORY(an_end_does_not_wait_for_one_that_never_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
