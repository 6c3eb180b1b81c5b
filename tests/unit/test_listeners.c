/* test_listeners.c - the ports that are listened on.
 *
 * What would break in production: a deployment whose health check has a port of its own is never healthy. */
#include "supervisor/listeners.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>

#include "tests/check.h"

enum { TRIES = 50 };

static struct config c;

static void set_port(const char *name, unsigned port)
{
    char text[16];
    struct err e;

    snprintf(text, sizeof text, "%u", port);
    assert_ok(config_set(&c, name, text, "test", &e), e);
}

static unsigned port_named(const struct listeners *l, uint32_t i)
{
    return (unsigned)atoi(strrchr(l->name[i], ':') + 1);
}

static bool takes_connections(unsigned port)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool ok;

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ok = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
    close(fd);
    return ok;
}

/* A port that was free a moment ago may be another's by now: then with the next one. */
static void open_both(struct listeners *l)
{
    struct passed none = { 0 };
    bool ok = false;

    for (int i = 0; i < TRIES && !ok; i++) {
        struct listeners probe = { 0 };
        unsigned port;
        struct err e;
        set_port("port", 0);
        set_port("health_port", 0);
        assert_ok(listeners_open(&probe, &c, &none, &e), e);
        assert_int_equal(probe.n, 1);
        port = port_named(&probe, 0);
        listeners_close(&probe);
        set_port("health_port", port);
        ok = listeners_open(l, &c, &none, &e);
        if (!ok)
            listeners_close(l);
    }
    assert_true(ok);
}

static void a_health_port_is_served_beside_the_other(void **state)
{
    struct listeners l = { 0 };
    struct err e;

    (void)state;
    config_init(&c);
    assert_ok(config_set(&c, "host", "127.0.0.1", "test", &e), e);
    open_both(&l);
    assert_int_equal(l.n, 2);
    assert_int_equal(port_named(&l, 1), c.health_port);
    assert_true(port_named(&l, 0) != c.health_port);
    assert_true(takes_connections(port_named(&l, 0)));
    assert_true(takes_connections((unsigned)c.health_port));
    listeners_close(&l);
}

/* Sockets of a former llmd are kept while they are those that the settings want. */
static void kept_sockets_must_be_the_wanted_ones(void **state)
{
    struct listeners l = { 0 }, again = { 0 };
    struct passed_fd fds[2];
    struct passed kept = { .list = fds, .n = 2 };
    struct err e;

    (void)state;
    config_init(&c);
    assert_ok(config_set(&c, "host", "127.0.0.1", "test", &e), e);
    open_both(&l);
    for (int i = 0; i < 2; i++) {
        fds[i].fd = l.fd[i];
        snprintf(fds[i].name, sizeof fds[i].name, "llmd-listen");
    }
    set_port("port", port_named(&l, 0));
    assert_ok(listeners_open(&again, &c, &kept, &e), e);
    assert_int_equal(again.n, 2);
    assert_int_equal(again.fd[0], l.fd[0]);
    assert_int_equal(again.fd[1], l.fd[1]);
    set_port("health_port", 0); /* one too many */
    for (int i = 0; i < 2; i++)
        fds[i].fd = again.fd[i];
    assert_ok(listeners_open(&l, &c, &kept, &e), e);
    assert_int_equal(l.n, 1);
    assert_int_equal(port_named(&l, 0), c.port);
    listeners_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_health_port_is_served_beside_the_other),
        cmocka_unit_test(kept_sockets_must_be_the_wanted_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
