/* test_kept.c - if this breaks, a client's connection dies with its gateway, or lives on when nobody will
 * ever answer on it. */
#include "supervisor/kept.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/mem.h"
#include "tests/check.h"

enum { N_SLOTS = 300 };

static sd_event *event;
static struct connections connections;
static struct notify notify;
static struct fdstore store;
static struct kept kept;
static int manager;

static int setup(void **state)
{
    struct err e;
    int pair[2];

    (void)state;
    log_set_level((enum log_level) - 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair), 0);
    assert_true(sd_event_new(&event) >= 0);
    notify = (struct notify){ .fd = pair[0] };
    manager = pair[1];
    fdstore_open(&store, &notify, event);
    assert_ok(connections_create(&connections, N_SLOTS, 0, 1, &e), e);
    assert_ok(kept_init(&kept, &connections, &store, event, &e), e);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kept_fini(&kept);
    connections_close(&connections);
    close(manager);
    fdstore_close(&store);
    close(notify.fd);
    sd_event_unref(event);
    return 0;
}

static int n_put(void)
{
    char text[256];
    int n = 0;

    while (recv(manager, text, sizeof text, 0) > 0) /* descriptors in it are dropped */
        n++;
    return n;
}

/* A connection: the gateway's end, whose record is claimed, and the client's. */
struct pair {
    int gateway, client;
    uint32_t slot, generation;
};

static struct pair connect_pair(void)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t n = sizeof at, bytes = sizeof(uint64_t);
    struct connection_record *r;
    struct pair p;

    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listener, 1), 0);
    getsockname(listener, (struct sockaddr *)&at, &n);
    p.client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(p.client, (struct sockaddr *)&at, sizeof at), 0);
    p.gateway = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    close(listener);
    p.slot = connections_claim(&connections, 0, 0, 1);
    r = connections_record(&connections, p.slot);
    p.generation = r->generation;
    getsockopt(p.gateway, SOL_SOCKET, SO_COOKIE, &r->cookie, &bytes);
    return p;
}

/* Told by the gateway; true when llmd kept it. */
static bool tell(const struct pair *p)
{
    Llmd__Connections__Kept note = LLMD__CONNECTIONS__KEPT__INIT, *pointer = &note;
    Llmd__Connections message = LLMD__CONNECTIONS__INIT;
    struct control_msg m = { .type = MSG_CONNECTIONS, .body = &message, .n_fds = 1 };

    note.slot = p->slot;
    note.generation = p->generation;
    message.kept = &pointer;
    message.n_kept = 1;
    m.fds[0] = fcntl(p->gateway, F_DUPFD_CLOEXEC, 3);
    kept_take(&kept, &m);
    if (m.fds[0] < 0)
        return true;
    close(m.fds[0]);
    return false;
}

static void close_pair(struct pair *p)
{
    close(p->gateway);
    close(p->client);
}

/* The client sees the end within some seconds. */
static bool sees_end(const struct pair *p)
{
    char byte;

    setsockopt(p->client, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 5 },
               sizeof(struct timeval));
    return recv(p->client, &byte, 1, 0) == 0;
}

static bool is_open_still(const struct pair *p)
{
    char byte;

    return recv(p->client, &byte, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void a_connection_stays_until_its_record_is_free(void **state)
{
    struct pair p = connect_pair();

    (void)state;
    assert_true(tell(&p));
    close(p.gateway); /* the gateway dies */
    kept_sweep(&kept);
    assert_int_equal(kept.n_open, 1);
    assert_true(is_open_still(&p));
    connections_release(&connections, p.slot); /* its successor has no use for it */
    kept_sweep(&kept);
    assert_int_equal(kept.n_open, 0);
    assert_true(sees_end(&p));
    close(p.client);
}

static void told_again_is_not_kept_twice(void **state)
{
    struct pair p = connect_pair();

    (void)state;
    assert_true(tell(&p));
    assert_false(tell(&p));
    assert_int_equal(kept.n_open, 1);
    close_pair(&p);
}

static void late_news_of_an_older_connection_is_dropped(void **state)
{
    struct pair old = connect_pair(), new;

    (void)state;
    connections_release(&connections, old.slot);
    new = connect_pair();
    assert_int_equal(new.slot, old.slot);
    assert_true(tell(&new));
    assert_false(tell(&old));
    assert_int_equal(kept.by_slot[new.slot].generation, new.generation);
    assert_true(is_open_still(&new));
    close_pair(&old);
    close_pair(&new);
}

static void a_slot_that_is_used_again_holds_the_new_connection(void **state)
{
    struct pair old = connect_pair(), new;

    (void)state;
    assert_true(tell(&old));
    connections_release(&connections, old.slot);
    new = connect_pair();
    assert_true(tell(&new));
    assert_int_equal(kept.n_open, 1);
    assert_true(sees_end(&old));
    assert_true(is_open_still(&new));
    close_pair(&old);
    close_pair(&new);
}

static void a_slot_out_of_range_is_not_believed(void **state)
{
    struct pair p = connect_pair();

    (void)state;
    p.slot = N_SLOTS;
    assert_false(tell(&p));
    assert_int_equal(kept.n_open, 0);
    close_pair(&p);
}

/* Health probes come every second for years; they must not each go through the service manager. */
static void short_visits_never_reach_the_store(void **state)
{
    struct pair stays, leaves;

    (void)state;
    stays = connect_pair();
    assert_true(tell(&stays));
    leaves = connect_pair();
    assert_true(tell(&leaves));
    connections_release(&connections, leaves.slot);
    assert_int_equal(n_put(), 0);
    while (!kept.by_slot[stays.slot].is_stored || kept.n_open > 1)
        sd_event_run(event, 5000000);
    assert_int_equal(n_put(), 1);
    assert_int_equal(sd_event_run(event, 50000), 0); /* and nothing wakes llmd any more */
    close_pair(&stays);
    close_pair(&leaves);
}

static void all_are_stored_when_the_gateway_dies(void **state)
{
    struct pair p[5];

    (void)state;
    for (int i = 0; i < 5; i++) {
        p[i] = connect_pair();
        assert_true(tell(&p[i]));
    }
    kept_store_all(&kept);
    assert_int_equal(n_put(), 5);
    kept_store_all(&kept);
    assert_int_equal(n_put(), 0);
    for (int i = 0; i < 5; i++)
        close_pair(&p[i]);
}

static void nothing_is_left_when_all_are_dropped(void **state)
{
    struct pair p[3];

    (void)state;
    for (int i = 0; i < 3; i++) {
        p[i] = connect_pair();
        assert_true(tell(&p[i]));
    }
    kept_drop_all(&kept);
    assert_int_equal(kept.n_open, 0);
    for (int i = 0; i < 3; i++) {
        assert_true(sees_end(&p[i]));
        close_pair(&p[i]);
    }
}

/* ---- the next gateway ---- */

static const struct child_events no_events;

/* Read CONNECTIONS on the gateway's side; how many descriptors came. */
static int receive(int control, bool seen[N_SLOTS])
{
    struct control_msg m;
    struct err e;
    int n = 0;

    while (control_recv(control, &m, &e) == CONTROL_OK) {
        const Llmd__Connections *c = m.body;
        assert_int_equal(m.type, MSG_CONNECTIONS);
        assert_int_equal(c->n_kept, m.n_fds);
        for (int i = 0; i < m.n_fds; i++) {
            const struct connection_record *r = connections_record(&connections, c->kept[i]->slot);
            uint64_t cookie = 0;
            socklen_t bytes = sizeof cookie;
            getsockopt(m.fds[i], SOL_SOCKET, SO_COOKIE, &cookie, &bytes);
            if (connection_state(r) != CONNECTION_FREE)
                assert_int_equal(cookie, r->cookie);
            assert_false(seen[c->kept[i]->slot]);
            seen[c->kept[i]->slot] = true;
        }
        n += m.n_fds;
        control_msg_fini(&m);
    }
    return n;
}

static void the_next_gateway_is_given_each_once_however_slowly_it_reads(void **state)
{
    static struct pair p[N_SLOTS];
    bool seen[N_SLOTS] = { false }, is_done;
    struct child gateway = { 0 };
    struct err e = { 0 };
    int pair[2], n = 0, rounds = 0;

    (void)state;
    for (int i = 0; i < N_SLOTS; i++) {
        p[i] = connect_pair();
        assert_true(tell(&p[i]));
    }
    connections_release(&connections, p[7].slot);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair),
                     0);
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int)); /* the least there is */
    assert_true(child_adopt(&gateway, event, pair[0], -1, &no_events, NULL, &e));
    assert_int_equal(kept_begin_handing(&kept), N_SLOTS - 1);
    connections_release(&connections, p[9].slot); /* too late: it was counted */
    kept_sweep(&kept);
    do {
        is_done = kept_hand(&kept, &gateway);
        rounds++;
        n += receive(pair[1], seen);
    } while (!is_done);
    assert_true(rounds > 1);
    assert_int_equal(n, N_SLOTS - 1);
    assert_false(seen[p[7].slot]);
    assert_false(kept_is_handing(&kept));
    child_close(&gateway);
    close(pair[1]);
    for (int i = 0; i < N_SLOTS; i++)
        close_pair(&p[i]);
}

/* ---- the next llmd ---- */

static void add_passed(struct passed *from, const char *name, int fd)
{
    from->list = mem_realloc(from->list, (from->n + 1) * sizeof *from->list);
    from->list[from->n].fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    strcpy(from->list[from->n++].name, name);
}

static void adopted_ones_are_found_by_their_cookie(void **state)
{
    struct pair p[4], gone = connect_pair();
    struct passed from = { 0 };

    (void)state;
    add_passed(&from, "llmd-c", gone.gateway);
    connections_release(&connections, gone.slot);
    close(gone.gateway);
    for (int i = 0; i < 4; i++) {
        p[i] = connect_pair();
        add_passed(&from, "llmd-c", p[i].gateway);
    }
    add_passed(&from, "llmd-c", p[2].gateway); /* in the store twice */
    add_passed(&from, "llmd-board", p[3].gateway);
    kept_adopt(&kept, &from);
    passed_fini(&from);
    assert_int_equal(kept.n_open, 4);
    assert_true(sees_end(&gone)); /* nobody's: the store drops it as well */
    for (int i = 0; i < 4; i++) {
        assert_true(kept.by_slot[p[i].slot].fd > 0);
        assert_int_equal(kept.by_slot[p[i].slot].generation, p[i].generation);
        assert_true(is_open_still(&p[i]));
        assert_false(tell(&p[i])); /* the gateway says all of them again */
        close_pair(&p[i]);
    }
    kept_store_all(&kept);
    assert_int_equal(n_put(), 0); /* the store has them */
    close(gone.client);
}

/* Gateway and llmd die together, before the connection was old enough for the store. */
static void a_young_one_outlives_llmd_too(void **state)
{
    struct pair young = connect_pair(), over = connect_pair();
    struct passed from = { 0 };
    struct err e = { 0 };

    (void)state;
    assert_true(tell(&young));
    assert_true(tell(&over));
    add_passed(&from, "llmd-park-in", kept.park.in);
    add_passed(&from, "llmd-park-out", kept.park.out);
    kept_fini(&kept); /* as the kernel does it: nothing is said to anybody */
    close(young.gateway);
    close(over.gateway);
    connections_release(&connections, over.slot);
    assert_int_equal(n_put(), 0);
    assert_true(is_open_still(&young));
    assert_ok(kept_init(&kept, &connections, &store, event, &e), e);
    kept_adopt(&kept, &from);
    assert_int_equal(kept.n_open, 1);
    assert_true(kept.by_slot[young.slot].fd > 0);
    assert_int_equal(n_put(), 1); /* and now it is in the store */
    assert_true(is_open_still(&young));
    assert_true(sees_end(&over));
    assert_int_equal(park_look(&kept.park), -1);
    passed_fini(&from);
    close(young.client);
    close(over.client);
}

static void fill_up(void)
{
    while (send(notify.fd, "STATUS=talk", 11, 0) > 0)
        continue;
}

/* As before, with a manager that is busy: what is on its way to the store has not arrived. */
static void what_waits_for_the_manager_outlives_llmd_too(void **state)
{
    struct pair p = connect_pair();
    struct err e = { 0 };

    (void)state;
    assert_true(tell(&p));
    close(p.gateway);
    fill_up();
    kept_store_all(&kept);
    for (int i = 0; i < 2; i++) { /* one llmd after the other */
        struct passed from = { 0 };
        add_passed(&from, "llmd-park-in", kept.park.in);
        add_passed(&from, "llmd-park-out", kept.park.out);
        kept_fini(&kept);
        fdstore_close(&store);
        fdstore_open(&store, &notify, event);
        assert_true(is_open_still(&p));
        assert_ok(kept_init(&kept, &connections, &store, event, &e), e);
        fill_up();
        kept_adopt(&kept, &from);
        assert_int_equal(kept.n_open, 1);
        passed_fini(&from);
    }
    n_put();
    while (kept.park.n > 0)
        sd_event_run(event, 5000000);
    assert_int_equal(n_put(), 1);
    assert_true(is_open_still(&p));
    close(p.client);
}

/* More than the park holds at once: the rest goes straight to the store. */
static void the_park_is_emptied_and_never_in_the_way(void **state)
{
    static struct pair p[N_SLOTS];
    int stored = 0;

    (void)state;
    setsockopt(kept.park.in, SOL_SOCKET, SO_SNDBUF, &(int){ 1 }, sizeof(int)); /* the least */
    for (int i = 0; i < N_SLOTS; i++) {
        p[i] = connect_pair();
        assert_true(tell(&p[i]));
        stored += n_put();
    }
    assert_in_range(kept.park.n, 1, N_SLOTS - 1);
    assert_true(stored + (int)kept.park.n >= N_SLOTS);
    for (int i = 0; i < N_SLOTS; i++)
        connections_release(&connections, p[i].slot);
    kept_sweep(&kept);
    while (kept.park.n > 0)
        sd_event_run(event, 5000000);
    assert_int_equal(sd_event_run(event, 50000), 0);
    for (int i = 0; i < N_SLOTS; i++)
        close_pair(&p[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define STORY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        STORY(a_connection_stays_until_its_record_is_free),
        STORY(told_again_is_not_kept_twice),
        STORY(late_news_of_an_older_connection_is_dropped),
        STORY(a_slot_that_is_used_again_holds_the_new_connection),
        STORY(a_slot_out_of_range_is_not_believed),
        STORY(short_visits_never_reach_the_store),
        STORY(all_are_stored_when_the_gateway_dies),
        STORY(nothing_is_left_when_all_are_dropped),
        STORY(the_next_gateway_is_given_each_once_however_slowly_it_reads),
        STORY(adopted_ones_are_found_by_their_cookie),
        STORY(a_young_one_outlives_llmd_too),
        STORY(what_waits_for_the_manager_outlives_llmd_too),
        STORY(the_park_is_emptied_and_never_in_the_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
