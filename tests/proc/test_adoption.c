/* test_adoption.c - llmd is killed at any moment, and the next one goes on with the same children.  If this
 * breaks, the death of the supervisor is the death of the service. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/proc/llmd_rig.h"

static struct rig rig;

static int setup(void **state)
{
    (void)state;
    rig_init(&rig, "");
    rig_open_store(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_fini(&rig);
    return 0;
}

#define BASE "--port", "0", "--host", "127.0.0.1", "--orphan-timeout-s", "1"

static void start_and_wait(void)
{
    rig_start(&rig, BASE, NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
}

/* The n-th llmd has taken over. */
static void wait_adopted(int n)
{
    char line[64];

    snprintf(line, sizeof line, "epoch=%d connections=", n + 1);
    rig_wait_log(&rig, line);
}

/* ---- clients of the fake gateway: each line is answered with "<pid> <line>" ---- */

static uint16_t port(void)
{
    Llmd__CtlReply *reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    uint16_t n = (uint16_t)atoi(strrchr(reply->status->listen[0], ':') + 1);

    frame_free_body(reply);
    return n;
}

static int connect_client(uint16_t to)
{
    struct sockaddr_in at = { .sin_family = AF_INET,
                              .sin_port = htons(to),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ .tv_sec = 30 },
               sizeof(struct timeval));
    assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
    return fd;
}

/* The pid that answers on this connection. */
static pid_t ask_client(int fd)
{
    char answer[64] = "";
    ssize_t n;

    assert_int_equal(send(fd, "hello", 5, MSG_NOSIGNAL), 5);
    n = recv(fd, answer, sizeof answer - 1, 0);
    if (n <= 0 || !strstr(answer, " hello"))
        fail_msg("answer of %zd bytes: '%s' (%s)", n, answer, strerror(errno));
    return (pid_t)atoi(answer);
}

/* ---- llmd dies ---- */

static void a_new_llmd_takes_the_same_children_over(void **state)
{
    pid_t gateway, worker[2];
    Llmd__CtlReply *reply;
    int fds = 0;

    (void)state;
    rig_start(&rig, BASE, "--tp-size", "2", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 3);
    gateway = rig_pid_of(&rig, "gateway");
    worker[0] = rig_pid_of(&rig, "worker 0.0");
    worker[1] = rig_pid_of(&rig, "worker 0.1");
    for (int i = 1; i <= 100; i++) {
        rig_kill_and_restart(&rig);
        wait_adopted(i);
        rig_wait_told_times(&rig, "READY=1", i + 1); /* which may have waited for us to read */
        if (i == 1)
            fds = rig_settled_fds(&rig);
    }
    rig_expect_fds(&rig, fds);
    assert_int_equal(rig_pid_of(&rig, "gateway"), gateway);
    assert_int_equal(rig_pid_of(&rig, "worker 0.0"), worker[0]);
    assert_int_equal(rig_pid_of(&rig, "worker 0.1"), worker[1]);
    assert_int_equal(rig_count_events(&rig, "start epoch"), 3);
    assert_int_equal(rig_count_events(&rig, "orphaned"), 0);
    assert_int_equal(rig_count_log(&rig, "from=ready"), 0);
    assert_int_equal(rig_count_told(&rig, "READY=1"), 101);
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_string_equal(reply->status->state, "ready");
    assert_int_equal(reply->status->processes[0]->restarts, 100);
    frame_free_body(reply);
    rig_stop(&rig);
    assert_int_equal(rig_count_stored(&rig, "llmd-"), 0); /* the next start is a first one */
}

static void adopted_children_are_restarted_and_their_end_is_told(void **state)
{
    Llmd__CtlReply *reply;
    bool told = false;

    (void)state;
    start_and_wait();
    rig_kill_and_restart(&rig);
    wait_adopted(1);
    kill(rig_pid_of(&rig, "worker 0.0"), SIGSEGV);
    rig_wait_restarts(&rig, "worker 0.0", 1);
    kill(rig_pid_of(&rig, "gateway"), SIGKILL);
    rig_wait_restarts(&rig, "gateway", 1);
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    for (size_t i = 0; i < reply->status->n_processes; i++)
        told = told || strstr(reply->status->processes[i]->last_exit, "signal 11");
    if (!told && rig_count_log(&rig, "cause=\"ended\"") == 0)
        fail_msg("neither how it ended nor that it did is told");
    frame_free_body(reply);
    rig_kill_and_restart(&rig); /* and now those that the second one started */
    wait_adopted(2);
    rig_wait_restarts(&rig, "worker 0.0", 1);
    rig_stop(&rig);
}

static void what_died_while_no_llmd_lived_is_started_again(void **state)
{
    pid_t gateway, worker;

    (void)state;
    start_and_wait();
    gateway = rig_pid_of(&rig, "gateway");
    worker = rig_pid_of(&rig, "worker 0.0");
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    kill(worker, SIGKILL);
    kill(gateway, SIGKILL);
    rig_restart(&rig);
    wait_adopted(1);
    assert_int_not_equal(rig_wait_restarts(&rig, "worker 0.0", 1), worker);
    assert_int_not_equal(rig_wait_restarts(&rig, "gateway", 1), gateway);
    rig_stop(&rig);
}

/* The pauses double, until one is longer than it takes from one llmd to the next. */
static void a_pause_goes_on_under_the_next_llmd(void **state)
{
    const char *pause = "team=\"group 0\" event=backoff";
    int n_pauses = 0;

    (void)state;
    rig_behave(&rig, "worker 0.0: exit");
    rig_start(&rig, BASE, "--backoff-ms", "100", NULL);
    rig_wait_stored(&rig, "llmd-state", 1);
    for (int i = 1; rig_count_log(&rig, "team=\"group 0\" event=adopted state=backoff") == 0; i++) {
        assert_true(i <= 8);
        rig_wait_logs(&rig, pause, n_pauses + 1);
        n_pauses = rig_count_log(&rig, pause);
        rig_kill_and_restart(&rig);
        wait_adopted(i);
    }
    rig_behave(&rig, "");
    rig_wait_told(&rig, "READY=1");
    rig_stop(&rig);
}

static void a_drain_goes_on_under_the_next_llmd(void **state)
{
    (void)state;
    rig_behave(&rig, "gateway: slow-drain\nworker 0.0: slow-drain");
    rig_start(&rig, BASE, "--drain-timeout-s", "60", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
    kill(rig.pid, SIGTERM);
    rig_wait_event(&rig, "drain\n");
    rig_kill_and_restart(&rig);
    wait_adopted(1);
    kill(rig.pid, SIGTERM); /* the second one: hastens */
    assert_int_equal(rig_wait_exit(&rig), 0);
    rig_expect_no_process();
    assert_int_equal(rig_count_stored(&rig, "llmd-"), 0);
}

static void live_settings_are_taken_and_others_wait(void **state)
{
    char path[128];
    FILE *f;

    (void)state;
    snprintf(path, sizeof path, "%s/llmd.yaml", rig.base);
    f = fopen(path, "w");
    fputs("request_timeout_s: 11\nthreads: 1\n", f);
    fclose(f);
    rig_start(&rig, BASE, "--config", path, NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
    f = fopen(path, "w");
    fputs("request_timeout_s: 12\nthreads: 2\ngroups: 3\n", f);
    fclose(f);
    rig_kill_and_restart(&rig);
    wait_adopted(1);
    rig_wait_events(&rig, "reload request_timeout_s=12", 2);
    assert_int_equal(rig_count_log(&rig, "setting=threads from=\"1\" to=\"2\" takes effect"), 1);
    assert_int_equal(rig_count_events(&rig, "worker 1.0"), 0);
    rig_wait_stored(&rig, "llmd-state", 0);
    rig_wait_stored(&rig, "llmd-state-even", 1);
    rig_kill_and_restart(&rig); /* the newer state counts: nothing is left to be taken */
    wait_adopted(2);
    assert_int_equal(rig_count_log(&rig, "setting=request_timeout_s"), 1);
    rig_stop(&rig);
}

static void without_a_complete_set_llmd_starts_afresh(void **state)
{
    (void)state;
    start_and_wait();
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    pthread_mutex_lock(&rig.store->mutex);
    for (int i = 0; i < rig.store->n; i++)
        if (strcmp(rig.store->list[i].name, "llmd-ledger-0") == 0)
            strcpy(rig.store->list[i].name, "llmd-lost");
    pthread_mutex_unlock(&rig.store->mutex);
    rig_restart(&rig);
    rig_wait_log(&rig, "cannot adopt what a former llmd left");
    rig_wait_events(&rig, "start epoch=1", 4);
    rig_pid_of(&rig, "gateway");
    rig_wait_stored(&rig, "llmd-pid-", 2); /* and nothing of the first */
    rig_stop(&rig);
    assert_int_equal(rig_count_stored(&rig, "llmd-"), 0);
}

/* ---- at named moments ---- */

/* llmd dies there once; the next one goes on, and in the end there is one of each process. */
static void dies_at(const char *point, const char *when)
{
    char spec[96];

    snprintf(spec, sizeof spec, "%s=kill%s", point, when);
    rig_start(&rig, BASE, "--fault-points", spec, NULL);
    for (int restarts = 0; restarts < 3; restarts++) {
        if (rig_count_log(&rig, "fault_point=") > restarts || restarts == 0)
            assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
        else
            break;
        rig_restart(&rig);
        rig_wait_told(&rig, "READY=1");
    }
}

static void one_of_each_is_left(const char *point)
{
    pid_t gateway = rig_pid_of(&rig, "gateway"), worker = rig_pid_of(&rig, "worker 0.0");
    char *stderr_text;

    rig_wait_stored(&rig, "llmd-pid-", 2);
    rig_wait_stored(&rig, "llmd-ctl-", 2);
    rig_wait_stored(&rig, "llmd-state", 1);
    if (kill(gateway, 0) < 0 || kill(worker, 0) < 0)
        fail_msg("%s: a process is not there", point);
    stderr_text = rig_read(&rig, "stderr");
    if (!strstr(stderr_text, point))
        fail_msg("%s was not passed", point);
    free(stderr_text);
    rig_stop(&rig); /* fails on any process that is left */
}

static void death_at_each_point_of_a_start_is_survived(void **state)
{
    static const struct {
        const char *point, *when;
    } deaths[] = {
        { "llmd.spawn", "@1" },     { "llmd.spawn", ":2@1" }, { "llmd.spawned", "@1" },
        { "llmd.spawned", ":2@1" }, { "llmd.store", "@1" },   { "llmd.store", ":2@1" },
        { "llmd.ready", "@1" },     { "llmd.ready", ":2@1" },
    };

    for (size_t i = 0; i < sizeof deaths / sizeof deaths[0]; i++) {
        dies_at(deaths[i].point, deaths[i].when);
        one_of_each_is_left(deaths[i].point);
        teardown(state);
        setup(state);
    }
}

static void death_while_adopting_is_survived(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--fault-points", "llmd.adopt=kill@2,llmd.ready=kill@3", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
    rig_kill_and_restart(&rig);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    rig_restart(&rig);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    rig_restart(&rig);
    wait_adopted(3);
    assert_int_equal(rig_count_events(&rig, "start epoch"), 2);
    one_of_each_is_left("llmd.adopt");
}

/* At random moments of starts, falls and services. */
static void death_at_any_moment_is_survived(void **state)
{
    const char *text = getenv("LLMD_TEST_SEED");
    unsigned seed = text ? (unsigned)atoi(text) : (unsigned)time(NULL);

    (void)state;
    print_message("LLMD_TEST_SEED=%u\n", seed);
    srand(seed);
    rig_start(&rig, BASE, "--backoff-ms", "1", "--backoff-max-ms", "1", NULL);
    rig_wait_stored(&rig, "llmd-state", 1);
    for (int i = 0; i < 60; i++) {
        usleep((useconds_t)(rand() % 100000));
        if (rand() % 2 && rig_count_log(&rig, "event=ready"))
            kill(rig_pid_of(&rig, rand() % 2 ? "gateway" : "worker 0.0"), SIGKILL);
        usleep((useconds_t)(rand() % 8000));
        rig_kill_and_restart(&rig);
    }
    rig_wait_told(&rig, "READY=1");
    rig_wait_log(&rig, "event=adopted ms");
    one_of_each_is_left("event=adopted ms");
}

/* ---- client connections ---- */

static void a_connection_outlives_its_gateway(void **state)
{
    int clients[100], idle;
    pid_t first;

    (void)state;
    start_and_wait();
    for (int i = 0; i < 100; i++)
        clients[i] = connect_client(port());
    first = ask_client(clients[0]);
    for (int i = 1; i < 100; i++)
        assert_int_equal(ask_client(clients[i]), first);
    idle = connect_client(port());
    rig_wait_stored(&rig, "llmd-c",
                    101); /* the fake has nobody who keeps what it has only just accepted */
    kill(first, SIGKILL);
    for (int i = 0; i < 100; i++)
        assert_int_not_equal(ask_client(clients[i]), first);
    assert_int_not_equal(ask_client(idle), first);
    for (int i = 0; i < 100; i++)
        close(clients[i]);
    close(idle);
    rig_stop(&rig);
}

static void a_connection_outlives_gateway_and_llmd(void **state)
{
    pid_t first;
    int client;

    (void)state;
    start_and_wait();
    client = connect_client(port());
    first = ask_client(client);
    rig_wait_stored(&rig, "llmd-c", 1);
    for (int i = 1; i <= 5; i++) {
        rig_kill_and_restart(&rig);
        wait_adopted(i);
        assert_int_equal(ask_client(client), first);
    }
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    kill(first, SIGKILL);
    rig_restart(&rig);
    assert_int_not_equal(ask_client(client), first);
    close(client);
    rig_stop(&rig);
}

/* A connection that both die with was accepted only just now. */
static void the_youngest_connection_outlives_both(void **state)
{
    uint16_t to;

    (void)state;
    start_and_wait();
    to = port();
    for (int i = 1; i <= 10; i++) {
        int client = connect_client(to);
        pid_t gateway = ask_client(client);
        kill(gateway, SIGKILL);
        rig_kill_and_restart(&rig);
        wait_adopted(i);
        assert_int_not_equal(ask_client(client), gateway);
        close(client);
    }
    rig_stop(&rig);
}

static void what_comes_while_no_llmd_lives_is_kept_by_the_next(void **state)
{
    uint16_t to;
    pid_t first;
    int client;

    (void)state;
    start_and_wait();
    to = port();
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    client = connect_client(to);
    first = ask_client(client);
    kill(first, SIGKILL); /* what it has handed over waits in the control socket */
    rig_restart(&rig);
    assert_int_not_equal(ask_client(client), first);
    close(client);
    rig_stop(&rig);
}

static void closed_connections_are_let_go(void **state)
{
    int fds, client;
    uint16_t to;

    (void)state;
    start_and_wait();
    to = port();
    fds = rig_settled_fds(&rig);
    for (int i = 0; i < 300; i++) {
        client = connect_client(to);
        if (i % 3)
            ask_client(client);
        if (i % 10 == 0)
            nap_ms(20); /* long enough to be stored */
        close(client);
    }
    rig_expect_fds(&rig, fds);
    rig_wait_stored(&rig, "llmd-c", 0);
    client = connect_client(to);
    ask_client(client);
    rig_wait_stored(&rig, "llmd-c", 1);
    close(client);
    rig_stop(&rig);
}

static void death_while_connections_come_and_go_is_survived(void **state)
{
    static const char *const points[] = { "llmd.connections=kill:3@1", "llmd.spawned=kill:3@1",
                                          "llmd.spawn=kill:3@1", "llmd.store=kill:3@1" };

    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        int clients[4];
        uint16_t to;
        rig_start(&rig, BASE, "--fault-points", points[i], NULL);
        rig_wait_told(&rig, "READY=1");
        to = port();
        for (int n = 0; n < 2; n++) {
            clients[n] = connect_client(to);
            ask_client(clients[n]);
        }
        rig_wait_log(&rig, "event=ready");
        nap_ms(30);
        if (strstr(points[i], "connections")) {
            clients[2] = connect_client(to);
            ask_client(clients[2]);
        } else {
            kill(ask_client(clients[0]), SIGKILL); /* its successor is the third start */
            clients[2] = -1;
        }
        assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
        rig_restart(&rig);
        for (int n = 0; n < 3; n++)
            if (clients[n] >= 0)
                ask_client(clients[n]);
        for (int n = 0; n < 3; n++)
            if (clients[n] >= 0)
                close(clients[n]);
        one_of_each_is_left("fault_point");
        teardown(state);
        setup(state);
    }
}

/* ---- llmd is replaced by itself, or by what is installed ---- */

static void expect_reply(Llmd__CtlCommand command, bool ok, const char *error)
{
    Llmd__CtlReply *reply = rig_ask(&rig, command, 0);

    if (reply->ok != ok || !strstr(reply->error, error))
        fail_msg("ok=%d error='%s', expected ok=%d '%s'", reply->ok, reply->error, ok, error);
    frame_free_body(reply);
}

static void restart_llmd_needs_no_service_manager(void **state)
{
    pid_t llmd, gateway, worker;
    int fds = 0;

    (void)state;
    setenv("RIG_NO_NOTIFY", "1", 1);
    rig_start(&rig, BASE, NULL);
    unsetenv("RIG_NO_NOTIFY");
    gateway = rig_pid_of(&rig, "gateway");
    worker = rig_pid_of(&rig, "worker 0.0");
    llmd = rig.pid;
    for (int i = 1; i <= 20; i++) {
        int client = connect_client(port());
        assert_int_equal(ask_client(client), gateway);
        expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_LLMD, true, "");
        wait_adopted(i);
        assert_int_equal(ask_client(client), gateway);
        close(client);
        if (i == 1)
            fds = rig_settled_fds(&rig);
    }
    rig_expect_fds(&rig, fds);
    assert_int_equal(rig.pid, llmd);
    assert_int_equal(rig_pid_of(&rig, "gateway"), gateway);
    assert_int_equal(rig_pid_of(&rig, "worker 0.0"), worker);
    assert_int_equal(rig_count_events(&rig, "orphaned"), 0);
    rig_stop(&rig);
}

static void upgrade_replaces_everybody_one_at_a_time(void **state)
{
    pid_t gateway, worker[2];
    Llmd__CtlReply *reply;
    int client;

    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "STATUS=ready: 2 of 2");
    client = connect_client(port());
    gateway = ask_client(client);
    worker[0] = rig_pid_of(&rig, "worker 0.0");
    worker[1] = rig_pid_of(&rig, "worker 1.0");
    expect_reply(LLMD__CTL_COMMAND__CTL_UPGRADE, true, "");
    rig_wait_log(&rig, "event=upgraded");
    assert_int_not_equal(ask_client(client), gateway);
    assert_int_not_equal(rig_wait_restarts(&rig, "worker 0.0", 1), worker[0]);
    assert_int_not_equal(rig_wait_restarts(&rig, "worker 1.0", 1), worker[1]);
    assert_int_equal(rig_count_events(&rig, "start epoch=2"), 3);
    assert_int_equal(rig_count_told(&rig, "STATUS=upgrading: 0 of 2"), 0);
    assert_true(rig_count_told(&rig, "STATUS=upgrading: 1 of 2") > 0);
    assert_int_equal(rig_count_log(&rig, "event=died"), 0);
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_string_equal(reply->status->state, "ready");
    frame_free_body(reply);
    close(client);
    rig_stop(&rig);
    assert_int_equal(rig_count_stored(&rig, "llmd-"), 0);
}

static void an_llmd_that_dies_while_upgrading_goes_on_upgrading(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--fault-points", "llmd.spawned=kill@2,llmd.spawned=kill@3", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
    expect_reply(LLMD__CTL_COMMAND__CTL_UPGRADE, true, "");
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL); /* the gateway was being replaced */
    rig_restart(&rig);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    rig_restart(&rig);
    rig_wait_log(&rig, "event=upgraded");
    rig_wait_restarts(&rig, "gateway", 1);
    rig_wait_restarts(&rig, "worker 0.0", 1);
    one_of_each_is_left("llmd.spawned");
}

/* What is installed does not run, does not know the question, or does not like the settings. */
static void a_bad_llmd_is_not_become(void **state)
{
    static const struct {
        const char *script, *error;
    } bad[] = {
        { "#!/bin/sh\nexit 3\n", "exit code 3" },
        { "#!/bin/sh\necho hello\n", "does not know --layouts" },
        { "#!/bin/sh\nkill -SEGV $$\n", "signal 11" },
        { "no program", "" },
    };
    char path[128], good[128];
    pid_t gateway, first;
    FILE *f;

    (void)state;
    start_and_wait();
    gateway = rig_pid_of(&rig, "gateway");
    first = rig.pid;
    snprintf(path, sizeof path, "%s/bin/llmd", rig.base);
    snprintf(good, sizeof good, "%s/bin/good", rig.base);
    assert_int_equal(rename(path, good), 0);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        f = fopen(path, "w");
        fputs(bad[i].script, f);
        fclose(f);
        chmod(path, 0700);
        expect_reply(LLMD__CTL_COMMAND__CTL_UPGRADE, false, bad[i].error);
        expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_LLMD, false, bad[i].error);
    }
    /* it answers the question and cannot be run: found when it is too late, and survived */
    f = fopen(path, "w");
    fprintf(f, "#!/bin/sh\nrm $0\nexec %s \"$@\"\n", good);
    fclose(f);
    expect_reply(LLMD__CTL_COMMAND__CTL_UPGRADE, false, "No such file");
    assert_int_equal(rename(good, path), 0);
    assert_int_equal(rig.pid, first);
    assert_int_equal(rig_pid_of(&rig, "gateway"), gateway);
    expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_LLMD, true, "");
    wait_adopted(1);
    rig_stop(&rig);
}

/* The state in the store, as a build with other layouts would have left it. */
static void make_state_foreign(void)
{
    struct buf b = { 0 };
    Llmd__Keep *k;
    struct frame f;
    struct err e = { 0 };
    char bytes[65536];
    int *fd = NULL, other = memfd_create("llmd-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ssize_t n;

    for (int i = 0; i < rig.store->n; i++)
        if (strcmp(rig.store->list[i].name, "llmd-state") == 0)
            fd = &rig.store->list[i].fd;
    assert_non_null(fd);
    n = pread(*fd, bytes, sizeof bytes, 0);
    assert_true(frame_parse(&f, (uint8_t *)bytes, (size_t)n, &e));
    k = (Llmd__Keep *)frame_unpack(&f, &e);
    k->layouts[strlen(k->layouts) - 1] = '0';
    frame_pack(&b, MSG_KEEP, k);
    assert_int_equal(write(other, b.data, b.n), b.n);
    fcntl(other, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
    close(*fd);
    *fd = other;
    frame_free_body(k);
    buf_fini(&b);
}

static void other_layouts_are_drained_and_nobody_is_refused(void **state)
{
    char *events;
    uint16_t to;
    int client;

    (void)state;
    rig_behave(&rig, "gateway: slow-drain");
    rig_start(&rig, BASE, "--drain-timeout-s", "1", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_wait_stored(&rig, "llmd-pid-", 2);
    to = port();
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    make_state_foreign();
    rig_behave(&rig, "");
    rig_restart(&rig);
    rig_wait_event(&rig, "drain\n");
    assert_int_equal(rig_count_events(&rig, "start epoch=1"), 2); /* they finish first */
    client = connect_client(to); /* and nobody is refused meanwhile */
    rig_wait_events(&rig, "start epoch=1", 4);
    ask_client(client);
    close(client);
    events = rig_read(&rig, "model/events");
    assert_null(strstr(events, "service draining"));
    free(events);
    rig_wait_stored(&rig, "llmd-pid-", 2);
    rig_stop(&rig);
    assert_int_equal(rig_count_stored(&rig, "llmd-"), 0);
}

int main(int argc, char **argv)
{
#define STORY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        STORY(a_new_llmd_takes_the_same_children_over),
        STORY(adopted_children_are_restarted_and_their_end_is_told),
        STORY(what_died_while_no_llmd_lived_is_started_again),
        STORY(a_pause_goes_on_under_the_next_llmd),
        STORY(a_drain_goes_on_under_the_next_llmd),
        STORY(live_settings_are_taken_and_others_wait),
        STORY(without_a_complete_set_llmd_starts_afresh),
        STORY(death_at_each_point_of_a_start_is_survived),
        STORY(death_while_adopting_is_survived),
        STORY(death_at_any_moment_is_survived),
        STORY(a_connection_outlives_its_gateway),
        STORY(a_connection_outlives_gateway_and_llmd),
        STORY(the_youngest_connection_outlives_both),
        STORY(what_comes_while_no_llmd_lives_is_kept_by_the_next),
        STORY(closed_connections_are_let_go),
        STORY(death_while_connections_come_and_go_is_survived),
        STORY(restart_llmd_needs_no_service_manager),
        STORY(upgrade_replaces_everybody_one_at_a_time),
        STORY(an_llmd_that_dies_while_upgrading_goes_on_upgrading),
        STORY(a_bad_llmd_is_not_become),
        STORY(other_layouts_are_drained_and_nobody_is_refused),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
