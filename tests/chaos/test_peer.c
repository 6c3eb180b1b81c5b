/* test_peer.c - the suite drives another server, and sees what that loses.
 *
 * What would break in production: a comparison that flatters us, or a suite that is blind.  The stand-in
 * loses what it has open when it is killed: the count must say so. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/chaos/chaos.h"

/* A port that was free a moment ago. */
static uint16_t free_port(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &n), 0);
    close(fd);
    return ntohs(at.sin_port);
}

static void a_peer_is_killed_and_what_it_loses_is_counted(void **state)
{
    struct chaos_options o = chaos_defaults();
    struct chaos_result r;
    char command[300];
    struct err e;

    (void)state;
    o.peer_port = free_port();
    snprintf(command, sizeof command, "%s/fake_peer %u", TEST_BIN_DIR, o.peer_port);
    o.peer_command = command;
    o.set = CATALOG_PEER;
    o.rounds = 2;
    o.kills_per_round = 3;
    o.calm_ms = 300;
    if (!chaos_run(&o, &r, &e))
        fail_msg("%s", e.msg);
    chaos_line(&r, stdout);
    assert_int_equal(r.counts.kills, 6);
    assert_int_equal(r.counts.failed, 0);
    assert_int_equal(r.counts.wrong, 0);
    assert_true(r.counts.lost >= 6);
    assert_true(r.counts.refused > 0);
    assert_true(r.counts.requests > r.counts.lost + r.counts.refused);
    assert_int_equal(r.evidence_dir[0], '\0');
    chaos_result_fini(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_is_killed_and_what_it_loses_is_counted),
    };

    return cmocka_run_group_tests_name("peer", tests, NULL, NULL);
}
