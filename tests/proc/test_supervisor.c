/* test_supervisor.c - llmd among children that behave and children that do not.  If this breaks, the
 * service does not come back, or does not end. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "tests/proc/llmd_rig.h"

static struct rig rig;

static int setup(void **state)
{
    (void)state;
    rig_init(&rig, "");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    rig_fini(&rig);
    return 0;
}

/* Where the first such event of a process stands in the file. */
static long find_event(const char *events, const char *process, const char *event)
{
    for (const char *line = events; *line; line = strchr(line, '\n') + 1) {
        const char *end = strchr(line, '\n'), *at = strstr(line, event);
        if (strncmp(line, process, strlen(process)) == 0 && at && at < end)
            return line - events;
    }
    fail_msg("no event '%s' of %s in: %s", event, process, events);
    return -1;
}

#define BASE "--port", "0", "--host", "127.0.0.1"

static void start_and_wait(void)
{
    rig_start(&rig, BASE, NULL);
    rig_wait_told(&rig, "READY=1");
}

/* ---- start ---- */

static void start_is_told_and_stop_leaves_nothing(void **state)
{
    char *events;

    (void)state;
    start_and_wait();
    assert_true(rig_count_told(&rig, "STATUS=starting") > 0);
    rig_wait_told(&rig, "STATUS=ready: 1 of 1 groups, 'model' on 127.0.0.1:");
    assert_int_equal(rig_count_told(&rig, "READY=1"), 1);
    rig_stop(&rig);
    assert_int_equal(rig_count_told(&rig, "STOPPING=1"), 1);
    events = rig_read(&rig, "model/events");
    /* the gateway is asked first, and the worker only when it is gone */
    find_event(events, "gateway", " service draining up");
    assert_true(find_event(events, "gateway", " drain") <
                find_event(events, "worker 0.0", " drain"));
    free(events);
}

static void bad_model_ends_llmd_with_the_reason(void **state)
{
    static const struct {
        const char *behaviour, *reason;
    } bad[] = {
        { "inspect: bad", "config.json: no such file" },
        { "inspect: crash", "signal 6 (Aborted)" },
        { "inspect: garbage", "frame" },
        { "inspect: empty", "said nothing" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        rig_behave(&rig, bad[i].behaviour);
        rig_start(&rig, BASE, NULL);
        assert_int_equal(rig_wait_exit(&rig), 1); /* long before start_timeout_s */
        if (rig_count_log(&rig, bad[i].reason) == 0)
            fail_msg("no '%s' in the log: %s", bad[i].reason, rig_read(&rig, "stderr"));
        assert_int_equal(rig_count_log(&rig, "cannot serve model"), (int)i + 1);
        assert_int_equal(rig_count_told(&rig, "STATUS=cannot serve model"), (int)i + 1);
        assert_int_not_equal(access(rig.run, F_OK), 0);
        rig_expect_no_process();
    }
    assert_int_equal(rig_count_events(&rig, "start"), 0); /* nothing else was started */
}

static void an_inspection_that_hangs_is_ended(void **state)
{
    (void)state;
    rig_behave(&rig, "inspect: hang");
    rig_start(&rig, BASE, "--start-timeout-s", "1", NULL);
    assert_int_equal(rig_wait_exit(&rig), 1);
    assert_int_equal(rig_count_log(&rig, "longer than start_timeout_s"), 1);
    rig_expect_no_process();
}

static void stop_while_inspecting_is_clean(void **state)
{
    (void)state;
    rig_behave(&rig, "inspect: hang");
    rig_start(&rig, BASE, NULL);
    rig_wait_log(&rig, "event=listen");
    rig_stop(&rig);
}

static void missing_programs_and_wrong_settings_are_told(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/bin/llm-gateway", rig.base);
    rig_start(&rig, "--port", "65536", NULL);
    assert_int_equal(rig_wait_exit(&rig), 2);
    assert_int_equal(rig_count_log(&rig, "setting 'port': '65536'"), 1);
    unlink(path);
    rig_start(&rig, BASE, NULL);
    assert_int_equal(rig_wait_exit(&rig), 1);
    assert_int_equal(rig_count_log(&rig, "program '"), 1);
}

static void a_second_llmd_is_refused_and_the_first_stays(void **state)
{
    struct rig second = rig;
    char pid[32];

    (void)state;
    start_and_wait();
    second.pid = 0;
    second.told = (struct buf){ 0 };
    rig_start(&second, BASE, NULL);
    assert_int_equal(rig_wait_exit(&second), 1);
    snprintf(pid, sizeof pid, "pid %d", (int)rig.pid);
    buf_fini(&second.told);
    assert_int_equal(rig_count_log(&rig, pid), 1);
    rig_pid_of(&rig, "gateway");
    rig_stop(&rig);
}

static void listening_socket_of_activation_is_used(void **state)
{
    struct sockaddr_in at = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof at;
    Llmd__CtlReply *reply;
    char want[32];

    (void)state;
    rig.passed_fd = socket(AF_INET, SOCK_STREAM, 0); /* blocking, as systemd passes it */
    assert_int_equal(bind(rig.passed_fd, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(rig.passed_fd, 8), 0);
    getsockname(rig.passed_fd, (struct sockaddr *)&at, &n);
    start_and_wait();
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_int_equal(reply->status->n_listen, 1);
    snprintf(want, sizeof want, "127.0.0.1:%u", ntohs(at.sin_port));
    assert_string_equal(reply->status->listen[0], want);
    frame_free_body(reply);
    rig_stop(&rig);
    close(rig.passed_fd);
}

static void a_name_is_listened_on_with_all_addresses(void **state)
{
    Llmd__CtlReply *reply;

    (void)state;
    rig_start(&rig, "--port", "0", "--host", "::", NULL);
    rig_wait_told(&rig, "READY=1");
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_non_null(strstr(reply->status->listen[0], "[::]:"));
    assert_null(strstr(reply->status->listen[0], "]:0"));
    frame_free_body(reply);
    rig_stop(&rig);
}

static void other_groups_wait_for_the_weights(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.1: no-weights");
    rig_start(&rig, BASE, "--groups", "2", "--tp-size", "2", NULL);
    rig_wait_event(&rig, "gateway");
    rig_wait_log(&rig, "process=\"worker 0.0\" from=starting to=ready");
    nap_ms(100);
    assert_int_equal(rig_count_events(&rig, "worker 1."), 0);
    kill(rig.pid, SIGTERM);
    assert_int_equal(rig_wait_exit(&rig), 0);
    rig_expect_no_process();
}

static void other_groups_need_not_wait_for_readiness(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: weights-only");
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_pid_of(&rig, "worker 1.0");
    rig_wait_told(&rig, "STATUS=degraded: 1 of 2");
    rig_behave(&rig, "");
    rig_wait_told(&rig, "STATUS=ready: 2 of 2");
    rig_stop(&rig);
}

/* Both are READY, and the group has not said HELLO to the gateway: a probe would still be told no. */
static void ready_waits_until_the_gateway_is_served(void **state)
{
    (void)state;
    rig_behave(&rig, "gateway: not-served");
    rig_start(&rig, BASE, NULL);
    rig_wait_event(&rig, "service up");
    nap_ms(100);
    assert_int_equal(rig_count_told(&rig, "READY=1"), 0);
    rig_behave(&rig, "");
    kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
    rig_wait_told(&rig, "READY=1");
    rig_stop(&rig);
}

/* ---- death ---- */

static void killed_rank_takes_its_group_and_no_other(void **state)
{
    pid_t peer, other, gateway;
    Llmd__CtlReply *reply;

    (void)state;
    rig_start(&rig, BASE, "--groups", "2", "--tp-size", "2", NULL);
    rig_wait_told(&rig, "STATUS=ready: 2 of 2");
    peer = rig_pid_of(&rig, "worker 0.0");
    other = rig_pid_of(&rig, "worker 1.0");
    gateway = rig_pid_of(&rig, "gateway");
    kill(rig_pid_of(&rig, "worker 0.1"), SIGKILL);
    assert_int_not_equal(rig_wait_restarts(&rig, "worker 0.0", 1), peer);
    rig_wait_restarts(&rig, "worker 0.1", 1);
    assert_int_equal(rig_pid_of(&rig, "worker 1.0"), other);
    assert_int_equal(rig_pid_of(&rig, "gateway"), gateway);
    rig_wait_events(&rig, "start epoch=2", 2);
    assert_int_equal(rig_count_events(&rig, "start epoch=2"), 2);
    assert_true(rig_count_told(&rig, "STATUS=degraded: 1 of 2 groups") > 0);
    rig_wait_event(&rig, "service worker 0.1: signal 9 (Killed) up");
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_string_equal(reply->status->state, "ready");
    assert_int_equal(reply->status->groups[0]->epoch, 2);
    assert_int_equal(reply->status->groups[1]->epoch, 1);
    for (size_t i = 0; i < reply->status->n_processes; i++) {
        const Llmd__ProcessStatus *p = reply->status->processes[i];
        const char *want = strcmp(p->name, "worker 0.1") == 0 ? "signal 9 (Killed)"
                           : strcmp(p->name, "worker 0.0") == 0
                               ? "killed: worker 0.1 of its group died"
                               : "";
        assert_string_equal(p->last_exit, want);
    }
    frame_free_body(reply);
    rig_stop(&rig);
}

static void killed_gateway_comes_back_and_hears_which_groups_are_up(void **state)
{
    pid_t worker;

    (void)state;
    start_and_wait();
    worker = rig_pid_of(&rig, "worker 0.0");
    rig_wait_event(&rig, "service up"); /* it may be ready and not have read this yet */
    kill(rig_pid_of(&rig, "gateway"), SIGSEGV);
    rig_wait_restarts(&rig, "gateway", 1);
    rig_wait_told(&rig, "STATUS=down");
    assert_int_equal(rig_pid_of(&rig, "worker 0.0"), worker);
    rig_wait_events(&rig, "service up", 2); /* the second gateway is told as well */
    assert_int_equal(rig_count_events(&rig, "start epoch=2"), 1);
    rig_stop(&rig);
}

static void crash_loop_is_slowed_down_and_explained(void **state)
{
    uint64_t at_ms[5] = { 0 };
    char *events, *line;
    int n = 0;

    (void)state;
    rig_behave(&rig, "worker 0.0: exit");
    rig_start(&rig, BASE, "--backoff-ms", "40", NULL);
    rig_wait_event(&rig, "service worker 0.0: exit code 7: the fake has no words left");
    rig_wait_log(&rig, "pause_ms=320");
    events = rig_read(&rig, "model/events");
    for (line = events; (line = strstr(line, "worker 0.0")) && n < 5; line++)
        if (strstr(line, "start") && strstr(line, "start") < strchr(line, '\n'))
            at_ms[n++] = strtoull(strstr(line, "at_ms=") + 6, NULL, 10);
    free(events);
    assert_true(n >= 4);
    assert_true(at_ms[1] - at_ms[0] >= 40);
    assert_true(at_ms[2] - at_ms[1] >= 80);
    assert_true(at_ms[3] - at_ms[2] >= 160);
    assert_int_equal(rig_count_told(&rig, "READY=1"), 0);
    rig_behave(&rig, "");
    rig_wait_told(&rig, "READY=1"); /* and it heals */
    rig_stop(&rig);
}

static void never_ready_is_killed_after_the_start_timeout(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: never-ready");
    rig_start(&rig, BASE, "--start-timeout-s", "5", NULL); /* enough for the others */
    rig_wait_log(&rig, "killed: not ready after 5 s");
    rig_behave(&rig, "");
    rig_wait_restarts(&rig, "worker 0.0", 1);
    rig_stop(&rig);
}

static void fifty_deaths_leak_no_descriptor_and_no_zombie(void **state)
{
    int before;

    (void)state;
    rig_behave(&rig, "gateway: orphan-maker");
    rig_start(&rig, BASE, "--backoff-ms", "1", "--backoff-max-ms", "1", "--log-level", "warning",
              NULL);
    rig_wait_told(&rig, "READY=1");
    before = rig_count_fds(&rig); /* the manager has read: nothing waits to be told */
    for (uint32_t i = 1; i <= 25; i++) {
        rig_wait_events(&rig, "orphan", (int)i);
        kill(rig_pid_of(&rig, "gateway"), SIGKILL);
        kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
        rig_wait_restarts(&rig, "gateway", i);
        rig_wait_restarts(&rig, "worker 0.0", i);
    }
    rig_wait_events(&rig, "orphan", 26);
    rig_wait_children(&rig, 2); /* no orphan of them lives */
    rig_expect_fds(&rig, before);
    rig_stop(&rig); /* fails on any process that is left, a zombie too */
}

static void children_of_a_killed_llmd_give_up_and_tidy_up(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--orphan-timeout-s", "1", NULL);
    rig_wait_told(&rig, "READY=1");
    kill(rig.pid, SIGKILL);
    assert_int_equal(rig_wait_exit(&rig), -SIGKILL);
    rig_wait_events(&rig, "orphaned", 2);
    rig_wait_no_process();
    assert_int_equal(rig_count_events(&rig, "gave up"), 2);
    assert_int_not_equal(access(rig.run, F_OK), 0);
}

static void a_dead_ones_socket_is_replaced(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--orphan-timeout-s", "0", NULL);
    rig_wait_told(&rig, "READY=1");
    kill(rig.pid, SIGKILL);
    rig_wait_exit(&rig);
    rig_start(&rig, BASE, NULL);
    for (int gone = 0; gone < 2; nap_ms(2))
        gone += waitpid(-1, NULL, WNOHANG) > 0;
    assert_int_equal(rig_count_events(&rig, "gave up"), 2);
    rig_pid_of(&rig, "gateway"); /* orphans of the first did not sweep the second's socket away */
    rig_stop(&rig);
}

/* ---- stop ---- */

/* Longer than the rig waits: an end in that time does not come from it. */
#define LONG_DRAIN "--drain-timeout-s", "3600"

static void slow_gateway_gets_sigterm_at_the_deadline(void **state)
{
    (void)state;
    rig_behave(&rig, "gateway: ignore-drain");
    rig_start(&rig, BASE, "--drain-timeout-s", "0", NULL);
    rig_wait_told(&rig, "READY=1");
    rig_stop(&rig);
    assert_int_equal(rig_count_events(&rig, "sigterm"), 1);
}

static void stubborn_worker_is_killed_and_that_is_no_clean_end(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: ignore-all");
    start_and_wait();
    kill(rig.pid, SIGINT);
    rig_wait_events(&rig, "drain\n", 2); /* the gateway's, then the worker's */
    kill(rig.pid, SIGTERM);              /* a second signal hastens, a third kills */
    rig_wait_event(&rig, "drain now");
    kill(rig.pid, SIGTERM);
    assert_int_equal(rig_wait_exit(&rig), 1);
    assert_int_equal(rig_count_log(&rig, "killed: asked to stop at once"), 1);
    rig_expect_no_process();
    assert_int_not_equal(access(rig.run, F_OK), 0);
}

static void second_signal_ends_what_runs_and_that_is_clean(void **state)
{
    (void)state;
    rig_behave(&rig, "gateway: slow-drain\nworker 0.0: slow-drain");
    rig_start(&rig, BASE, LONG_DRAIN, NULL);
    rig_wait_told(&rig, "READY=1");
    kill(rig.pid, SIGTERM);
    rig_wait_event(&rig, "drain\n");
    kill(rig.pid, SIGTERM);
    assert_int_equal(rig_wait_exit(&rig), 0);
    assert_int_equal(rig_count_events(&rig, "drain now"), 2);
    assert_int_equal(rig_count_events(&rig, "sigterm"), 0);
    rig_expect_no_process();
}

static void third_signal_does_not_wait_for_anybody(void **state)
{
    (void)state;
    rig_behave(&rig, "gateway: ignore-all\nworker 0.0: ignore-all");
    rig_start(&rig, BASE, LONG_DRAIN, NULL);
    rig_wait_told(&rig, "READY=1");
    kill(rig.pid, SIGTERM);
    rig_wait_event(&rig, "drain\n");
    kill(rig.pid, SIGTERM);
    rig_wait_event(&rig, "drain now");
    kill(rig.pid, SIGTERM);
    assert_int_equal(rig_wait_exit(&rig), 1);
    rig_expect_no_process();
}

static void stop_while_loading_does_not_wait(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: never-ready");
    rig_start(&rig, BASE, NULL);
    rig_wait_event(&rig, "worker 0.0");
    rig_stop(&rig); /* long before start_timeout_s */
}

static void stop_in_backoff_does_not_wait(void **state)
{
    (void)state;
    rig_behave(&rig, "worker 0.0: abort\ngateway: abort");
    rig_start(&rig, BASE, "--backoff-ms", "60000", "--backoff-max-ms", "60000", NULL);
    rig_wait_log(&rig, "team=\"gateway\" event=backoff");
    rig_wait_log(&rig, "team=\"group 0\" event=backoff");
    rig_stop(&rig);
}

/* ---- settings ---- */

static void write_config(const char *text)
{
    char path[128];
    FILE *f;

    snprintf(path, sizeof path, "%s/llmd.yaml", rig.base);
    f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void hangup_reloads_what_may_change(void **state)
{
    char path[128];

    (void)state;
    snprintf(path, sizeof path, "%s/llmd.yaml", rig.base);
    write_config("request_timeout_s: 11\nthreads: 1\n");
    rig_start(&rig, BASE, "--config", path, "--max-body-bytes", "4096", NULL);
    rig_wait_told(&rig, "READY=1");
    write_config("request_timeout_s: 12\nthreads: 2\nmax_body_bytes: 9999\n");
    kill(rig.pid, SIGHUP);
    rig_wait_event(&rig, "reload request_timeout_s=12");
    rig_wait_told(&rig, "RELOADING=1");
    rig_wait_log(&rig, "setting=threads from=\"1\" to=\"2\" takes effect when llmd is restarted");
    while (rig_count_events(&rig, "reload request_timeout_s=12") < 2)
        nap_ms(5);
    /* the command line still wins over the file */
    assert_int_equal(rig_count_events(&rig, "reload max_body_bytes"), 0);
    while (rig_count_told(&rig, "READY=1") < 2)
        nap_ms(5);
    write_config("request_timeout_s: never\n");
    kill(rig.pid, SIGHUP);
    rig_wait_log(&rig, "llmd.yaml:1: setting 'request_timeout_s': 'never'");
    assert_int_equal(rig_count_events(&rig, "reload"), 2);
    rig_stop(&rig);
}

static void config_shows_value_and_source(void **state)
{
    Llmd__CtlReply *reply;
    int seen = 0;

    (void)state;
    setenv("LLMD_THREADS", "3", 1);
    rig_start(&rig, BASE, "--log-level", "debug", NULL);
    unsetenv("LLMD_THREADS");
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_CONFIG, 0);
    assert_true(reply->ok);
    for (size_t i = 0; i < reply->n_config; i++) {
        const Llmd__ConfigLine *line = reply->config[i];
        if (strcmp(line->name, "threads") == 0) {
            assert_string_equal(line->value, "3");
            assert_string_equal(line->source, "environment LLMD_THREADS");
            seen++;
        }
        if (strcmp(line->name, "log_level") == 0) {
            assert_string_equal(line->source, "command line");
            seen++;
        }
        if (strcmp(line->name, "runtime_dir") == 0) {
            assert_string_equal(line->value, rig.run);
            seen++;
        }
    }
    assert_int_equal(seen, 3);
    frame_free_body(reply);
    rig_wait_told(&rig, "READY=1");
    rig_stop(&rig);
}

/* ---- the operator ---- */

static void expect_reply(Llmd__CtlCommand command, uint32_t group, bool ok)
{
    Llmd__CtlReply *reply = rig_ask(&rig, command, group);

    if (reply->ok != ok)
        fail_msg("command %d: %s", (int)command, reply->error);
    assert_int_equal(reply->error && reply->error[0], !ok);
    frame_free_body(reply);
}

static void operator_restarts_without_a_death(void **state)
{
    Llmd__CtlReply *reply;

    (void)state;
    rig_start(&rig, BASE, "--groups", "2", NULL);
    rig_wait_told(&rig, "STATUS=ready: 2 of 2");
    expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY, 0, true);
    rig_wait_restarts(&rig, "gateway", 1);
    expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_GROUP, 1, true);
    rig_wait_restarts(&rig, "worker 1.0", 1);
    expect_reply(LLMD__CTL_COMMAND__CTL_RESTART_GROUP, 2, false);
    expect_reply(LLMD__CTL_COMMAND__CTL_RELOAD, 0, true);
    expect_reply((Llmd__CtlCommand)99, 0, false);
    assert_int_equal(rig_count_events(&rig, "drain"), 0); /* the way of a crash, not of an end */
    assert_int_equal(rig_count_log(&rig, "event=died"), 0);
    assert_int_equal(rig_count_log(&rig, "how=\"killed: restarted, as asked\""), 2);
    reply = rig_ask(&rig, LLMD__CTL_COMMAND__CTL_STATUS, 0);
    assert_string_equal(reply->status->state, "ready");
    assert_int_equal(reply->status->processes[1]->restarts, 1);
    assert_int_equal(reply->status->n_processes, 4);
    assert_true(reply->status->processes[0]->rss_bytes > 0);
    assert_true(reply->status->processes[0]->heartbeat_age_ns < 10 * NS_PER_S);
    frame_free_body(reply);
    rig_stop(&rig);
}

static void operator_drains(void **state)
{
    (void)state;
    start_and_wait();
    expect_reply(LLMD__CTL_COMMAND__CTL_DRAIN, 0, true);
    assert_int_equal(rig_wait_exit(&rig), 0);
    rig_expect_no_process();
}

static void rude_clients_do_not_disturb(void **state)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    int idle[80], slow, rude, asked = 0;
    struct err e = { 0 };
    char byte;

    (void)state;
    start_and_wait();
    for (int i = 0; i < 80; i++) /* more than llmd has places for, and they never ask */
        idle[i] = rig_connect(&rig);
    expect_reply(LLMD__CTL_COMMAND__CTL_STATUS, 0, true);
    rude = rig_connect(&rig);
    assert_int_equal(send(rude, "hello", 5, 0), 5);
    assert_int_equal(recv(rude, &byte, 1, 0), 0); /* closed */
    slow = rig_connect(&rig);
    while (control_send(slow, MSG_CTL_REQUEST, &request, NULL, 0, &e))
        assert_true(++asked < 1000000); /* asks and never reads, until it is cut off */
    assert_true(e.sys == EPIPE || e.sys == ECONNRESET);
    expect_reply(LLMD__CTL_COMMAND__CTL_STATUS, 0, true);
    for (int i = 0; i < 80; i++)
        close(idle[i]);
    close(slow);
    close(rude);
    rig_stop(&rig);
}

/* The first to exercise the socket is another user; llmd must not tell it anything. */
static void strangers_are_refused(void **state)
{
    char path[160];
    int status = 0;
    pid_t pid;

    (void)state;
    if (geteuid() != 0)
        skip();
    start_and_wait();
    snprintf(path, sizeof path, "%s/control.sock", rig.run);
    chmod(rig.base, 0755);
    chmod(rig.run, 0755);
    chmod(path, 0666); /* even where the files' modes let them in */
    pid = fork();
    if (pid == 0) {
        char byte;
        int fd;
        if (setuid(65534) < 0)
            _exit(3);
        fd = rig_connect(&rig);
        _exit(recv(fd, &byte, 1, 0) == 0 ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    rig_wait_log(&rig, "event=control_refused uid=65534");
    chmod(rig.run, 01700);
    rig_stop(&rig);
}

static void a_manager_that_does_not_read_stops_nothing(void **state)
{
    (void)state;
    rig_start(&rig, BASE, "--backoff-ms", "1", "--backoff-max-ms", "1", NULL);
    for (uint32_t i = 0; i < 20; i++) { /* each changes STATUS several times */
        kill(rig_pid_of(&rig, "worker 0.0"), SIGKILL);
        rig_wait_restarts(&rig, "worker 0.0", i + 1);
    }
    rig_wait_told(&rig, "READY=1"); /* kept, and said as soon as somebody reads */
    rig_wait_told(&rig, "STATUS=ready");
    rig_stop(&rig);
}

static void the_watchdog_is_fed_by_the_loop(void **state)
{
    int n, status;

    (void)state;
    setenv("WATCHDOG_USEC", "200000", 1);
    start_and_wait();
    unsetenv("WATCHDOG_USEC");
    rig_wait_told_times(&rig, "WATCHDOG=1", 4);
    kill(rig.pid, SIGSTOP); /* hangs */
    assert_int_equal(waitpid(rig.pid, &status, WUNTRACED), rig.pid);
    n = rig_count_told(&rig, "WATCHDOG=1");
    nap_ms(300);
    assert_int_equal(rig_count_told(&rig, "WATCHDOG=1"), n);
    kill(rig.pid, SIGCONT);
    rig_stop(&rig);
}

int main(void)
{
#define STORY(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        STORY(start_is_told_and_stop_leaves_nothing),
        STORY(bad_model_ends_llmd_with_the_reason),
        STORY(an_inspection_that_hangs_is_ended),
        STORY(stop_while_inspecting_is_clean),
        STORY(missing_programs_and_wrong_settings_are_told),
        STORY(a_second_llmd_is_refused_and_the_first_stays),
        STORY(listening_socket_of_activation_is_used),
        STORY(a_name_is_listened_on_with_all_addresses),
        STORY(other_groups_wait_for_the_weights),
        STORY(other_groups_need_not_wait_for_readiness),
        STORY(ready_waits_until_the_gateway_is_served),
        STORY(killed_rank_takes_its_group_and_no_other),
        STORY(killed_gateway_comes_back_and_hears_which_groups_are_up),
        STORY(crash_loop_is_slowed_down_and_explained),
        STORY(never_ready_is_killed_after_the_start_timeout),
        STORY(fifty_deaths_leak_no_descriptor_and_no_zombie),
        STORY(children_of_a_killed_llmd_give_up_and_tidy_up),
        STORY(a_dead_ones_socket_is_replaced),
        STORY(slow_gateway_gets_sigterm_at_the_deadline),
        STORY(stubborn_worker_is_killed_and_that_is_no_clean_end),
        STORY(second_signal_ends_what_runs_and_that_is_clean),
        STORY(third_signal_does_not_wait_for_anybody),
        STORY(stop_while_loading_does_not_wait),
        STORY(stop_in_backoff_does_not_wait),
        STORY(hangup_reloads_what_may_change),
        STORY(config_shows_value_and_source),
        STORY(operator_restarts_without_a_death),
        STORY(operator_drains),
        STORY(rude_clients_do_not_disturb),
        STORY(strangers_are_refused),
        STORY(a_manager_that_does_not_read_stops_nothing),
        STORY(the_watchdog_is_fed_by_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
