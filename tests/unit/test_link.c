/* test_link.c - the queue between gateway threads and rank 0, with real processes at both ends.
 *
 * What would break in production: a worker that was killed comes back and no gateway says hello to it,
 * a new gateway cannot take the place of the dead one, or a sender believes that a message went to a
 * worker that is not there.  Every wait is a poll() on a descriptor with a deadline, never a sleep. */
#include "proto/link.h"

#include <poll.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "common/clock.h"
#include "tests/check.h"

enum { WAIT_MS = 10000 };

static char instance[32];

static int set_up(void **state)
{
    static int n;

    (void)state;
    snprintf(instance, sizeof instance, "test-%d-%d", (int)getpid(), n++);
    return 0;
}

/* The next thing that happens on this link, within the deadline; else LINK_EMPTY.  `greeter` (may be
 * NULL) is the other end in this process: its loop must run too for the connection to come about. */
static enum link_result wait_with(struct link *l, struct link *greeter, struct link_msg *m)
{
    uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
    struct err e;

    for (;;) {
        struct pollfd p[2] = { { .fd = link_fd(l), .events = POLLIN },
                               { .fd = greeter ? link_fd(greeter) : -1, .events = POLLIN } };
        enum link_result result;
        uint64_t now;
        if (greeter)
            assert_int_equal(link_recv(greeter, m, &e), LINK_EMPTY);
        result = link_recv(l, m, &e);
        now = clock_mono_ns();
        if (result != LINK_EMPTY || now >= deadline)
            return result;
        poll(p, 2, (int)((deadline - now) / NS_PER_MS) + 1);
    }
}

static enum link_result wait_for(struct link *l, struct link_msg *m)
{
    return wait_with(l, NULL, m);
}

static bool send_cancel(struct link *l, uint32_t peer, uint64_t id)
{
    Llmd__Cancel cancel = LLMD__CANCEL__INIT;

    cancel.n_sequence_id = 1;
    cancel.sequence_id = &id;
    return link_send(l, peer, MSG_CANCEL, &cancel);
}

static bool send_hello(struct link *l, uint32_t peer, uint32_t epoch)
{
    Llmd__Hello hello = LLMD__HELLO__INIT;

    hello.epoch = epoch;
    return link_send(l, peer, MSG_HELLO, &hello);
}

static void expect_hello(struct link *l, uint32_t epoch)
{
    struct link_msg m;

    assert_int_equal(wait_for(l, &m), LINK_OK);
    assert_int_equal(m.type, MSG_HELLO);
    assert_int_equal(((Llmd__Hello *)m.body)->epoch, epoch);
    frame_free_body(m.body);
}

static void expect_cancel(struct link *l, uint32_t peer, uint64_t id)
{
    struct link_msg m;

    assert_int_equal(wait_for(l, &m), LINK_OK);
    assert_int_equal(m.type, MSG_CANCEL);
    assert_int_equal(m.peer, peer);
    assert_int_equal(((Llmd__Cancel *)m.body)->n_sequence_id, 1);
    assert_int_equal(((Llmd__Cancel *)m.body)->sequence_id[0], id);
    frame_free_body(m.body);
}

static void expect_connected(struct link *l, uint32_t peer, struct link *greeter)
{
    struct link_msg m;

    assert_int_equal(wait_with(l, greeter, &m), LINK_CONNECTED);
    assert_int_equal(m.peer, peer);
}

/* Runs this program again as the other end of a link; it dies with the test. */
static pid_t start(const char *role, uint32_t number)
{
    pid_t parent = getpid(), pid;
    char text[16];

    snprintf(text, sizeof text, "%u", number);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            execl("/proc/self/exe", "test_link", role, instance, text, (char *)NULL);
        _exit(1);
    }
    return pid;
}

static void stop(pid_t pid, int sig)
{
    kill(pid, sig);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* A worker: says HELLO with its epoch to whoever connects, and returns every CANCEL. */
static int run_worker(const char *at, uint32_t epoch)
{
    struct link *l = link_bind(at, 0, NULL);
    struct link_msg m;

    for (;;) {
        enum link_result result = l ? wait_for(l, &m) : LINK_FAILED;
        if (result == LINK_CONNECTED)
            send_hello(l, m.peer, epoch);
        else if (result == LINK_OK)
            send_cancel(l, m.peer, ((Llmd__Cancel *)m.body)->sequence_id[0]);
        else
            return 2;
    }
}

/* A gateway thread as peer 9: sends CANCEL with its number after each HELLO. */
static int run_gateway(const char *at, uint32_t number)
{
    struct link *l = link_connect(at, 0, 9, NULL);
    struct link_msg m;

    while (l && wait_for(l, &m) == LINK_OK)
        send_cancel(l, 0, number);
    return 2;
}

static void link_greets_and_carries_both_ways(void **state)
{
    struct link *router, *dealer;
    struct err e;

    (void)state;
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    assert_ok((dealer = link_connect(instance, 0, 0x01020304, &e)) != NULL, e);
    expect_connected(router, 0x01020304, dealer);
    assert_true(send_hello(router, 0x01020304, 1));
    expect_hello(dealer, 1);
    for (uint64_t i = 1; i <= 100; i++)
        assert_true(send_cancel(dealer, 0, i));
    for (uint64_t i = 1; i <= 100; i++) /* in order */
        expect_cancel(router, 0x01020304, i);
    link_close(dealer);
    link_close(router);
}

static void link_keeps_peers_and_groups_apart(void **state)
{
    struct link *router[2], *dealer[2][2];
    struct err e;

    (void)state;
    for (uint32_t g = 0; g < 2; g++)
        assert_ok((router[g] = link_bind(instance, g, &e)) != NULL, e);
    for (uint32_t g = 0; g < 2; g++) {
        for (uint32_t p = 0; p < 2; p++) {
            assert_ok((dealer[g][p] = link_connect(instance, g, p + 1, &e)) != NULL, e);
            expect_connected(router[g], p + 1, dealer[g][p]);
        }
    }
    for (uint32_t g = 0; g < 2; g++)
        for (uint32_t p = 0; p < 2; p++)
            assert_true(send_hello(router[g], p + 1, 10 * g + p));
    for (uint32_t g = 0; g < 2; g++) {
        for (uint32_t p = 0; p < 2; p++) {
            struct link_msg m;
            struct err why;
            expect_hello(dealer[g][p], 10 * g + p);
            assert_int_equal(link_recv(dealer[g][p], &m, &why), LINK_EMPTY);
        }
    }
    for (uint32_t g = 0; g < 2; g++) {
        link_close(router[g]);
        for (uint32_t p = 0; p < 2; p++)
            link_close(dealer[g][p]);
    }
}

static void link_send_without_a_peer_fails_at_once(void **state)
{
    struct link *router, *dealer;
    struct err e;

    (void)state;
    assert_ok((dealer = link_connect(instance, 0, 1, &e)) != NULL, e);
    assert_false(send_cancel(dealer, 0, 1)); /* no worker has bound */
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    assert_false(send_hello(router, 2, 1));
    expect_connected(router, 1, dealer); /* the early connect found its way */
    assert_false(send_hello(router, 2, 1));
    assert_true(send_hello(router, 1, 1));
    expect_hello(dealer, 1);
    assert_true(send_cancel(dealer, 0, 7));
    expect_cancel(router, 1, 7); /* and not the 1 that was refused */
    link_close(dealer);
    link_close(router);
}

static void link_bind_twice_names_the_address(void **state)
{
    struct link *router;
    struct err e;

    (void)state;
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    assert_fails(link_bind(instance, 0, &e) != NULL, e, ERR_SYS, instance);
    link_close(router);
}

static void link_finds_a_worker_again_that_was_killed(void **state)
{
    struct link *dealer;
    struct err e;

    (void)state;
    assert_ok((dealer = link_connect(instance, 0, 9, &e)) != NULL, e);
    for (uint32_t epoch = 1; epoch <= 5; epoch++) {
        pid_t worker = start("worker", epoch);
        expect_hello(dealer, epoch); /* each new worker was told of us */
        assert_true(send_cancel(dealer, 0, epoch));
        expect_cancel(dealer, 0, epoch);
        stop(worker, SIGKILL);
    }
    link_close(dealer);
}

/* What was meant for the dead worker does not reach the next one out of the blue. */
static void link_send_to_a_dead_worker_fails_until_the_next_hello(void **state)
{
    struct link *dealer;
    struct err e;
    pid_t worker;

    (void)state;
    assert_ok((dealer = link_connect(instance, 0, 9, &e)) != NULL, e);
    worker = start("worker", 1);
    expect_hello(dealer, 1);
    stop(worker, SIGKILL);
    /* The link notices on its own time; from then on sends are refused. */
    uint64_t deadline = clock_mono_ns() + WAIT_MS * NS_PER_MS;
    while (send_cancel(dealer, 0, 666))
        assert_true(clock_mono_ns() < deadline);
    worker = start("worker", 2);
    expect_hello(dealer, 2);
    assert_true(send_cancel(dealer, 0, 7));
    expect_cancel(dealer, 0, 7);
    stop(worker, SIGKILL);
    link_close(dealer);
}

static void link_knows_a_gateway_again_that_was_killed(void **state)
{
    struct link *router;
    struct err e;

    (void)state;
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    for (uint32_t number = 1; number <= 5; number++) {
        pid_t gateway = start("gateway", number);
        expect_connected(router, 9, NULL);
        assert_true(send_hello(router, 9, number));
        expect_cancel(router, 9, number);
        stop(gateway, SIGKILL);
    }
    link_close(router);
}

/* The old gateway hangs and is about to be killed: the new one takes its number over. */
static void link_hands_a_number_over_to_the_newest(void **state)
{
    struct link *router;
    pid_t old, new;
    struct err e;

    (void)state;
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    old = start("gateway", 1);
    expect_connected(router, 9, NULL);
    assert_true(send_hello(router, 9, 1));
    expect_cancel(router, 9, 1);
    kill(old, SIGSTOP);
    new = start("gateway", 2);
    expect_connected(router, 9, NULL);
    assert_true(send_hello(router, 9, 2));
    expect_cancel(router, 9, 2);
    stop(old, SIGKILL);
    assert_true(send_hello(router, 9, 3)); /* its death takes nothing from the new one */
    expect_cancel(router, 9, 2);
    stop(new, SIGKILL);
    link_close(router);
}

static void link_send_stops_at_a_full_queue(void **state)
{
    struct link *router, *dealer;
    struct link_msg m;
    struct err e;
    uint64_t n_sent = 0, n_got = 0;

    (void)state;
    assert_ok((router = link_bind(instance, 0, &e)) != NULL, e);
    assert_ok((dealer = link_connect(instance, 0, 1, &e)) != NULL, e);
    expect_connected(router, 1, dealer);
    while (n_sent < 1000000 && send_cancel(dealer, 0, n_sent + 1))
        n_sent++;
    assert_in_range(n_sent, 1000, 999999); /* bounded */
    while (n_got < n_sent && wait_for(router, &m) == LINK_OK) {
        assert_int_equal(((Llmd__Cancel *)m.body)->sequence_id[0], ++n_got); /* none lost */
        frame_free_body(m.body);
    }
    assert_int_equal(n_got, n_sent);
    link_close(dealer);
    link_close(router);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(link_greets_and_carries_both_ways, set_up),
        cmocka_unit_test_setup(link_keeps_peers_and_groups_apart, set_up),
        cmocka_unit_test_setup(link_send_without_a_peer_fails_at_once, set_up),
        cmocka_unit_test_setup(link_bind_twice_names_the_address, set_up),
        cmocka_unit_test_setup(link_finds_a_worker_again_that_was_killed, set_up),
        cmocka_unit_test_setup(link_send_to_a_dead_worker_fails_until_the_next_hello, set_up),
        cmocka_unit_test_setup(link_knows_a_gateway_again_that_was_killed, set_up),
        cmocka_unit_test_setup(link_hands_a_number_over_to_the_newest, set_up),
        cmocka_unit_test_setup(link_send_stops_at_a_full_queue, set_up),
    };

    if (argc == 4 && strcmp(argv[1], "worker") == 0)
        return run_worker(argv[2], (uint32_t)atoi(argv[3]));
    if (argc == 4 && strcmp(argv[1], "gateway") == 0)
        return run_gateway(argv[2], (uint32_t)atoi(argv[3]));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
