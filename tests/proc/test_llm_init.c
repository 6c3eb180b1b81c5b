/* test_llm_init.c - llm-init with a llmd that dies in every way.  If this breaks, what outlives llmd is lost
 * with it, or a container that should end goes on for ever. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/open_fds.h"
#include "tests/proc/orphans.h"

enum { PATIENCE_MS = 30000, ARGS_MAX = 40 };

static struct {
    char base[48];
    pid_t pid;       /* of llm-init; 0 = none */
    bool as_pid_1;   /* start it so */
    bool has_socket; /* give it a listening socket */
} rig;

static void nap(void)
{
    nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
}

static void put_path(const char *name, char out[128])
{
    snprintf(out, 128, "%s/%s", rig.base, name);
}

static int setup(void **state)
{
    (void)state;
    prctl(PR_SET_CHILD_SUBREAPER, 1); /* what is left behind becomes ours, and is seen */
    strcpy(rig.base, "/tmp/llmd-init-XXXXXX");
    rig.as_pid_1 = rig.has_socket = false;
    assert_non_null(mkdtemp(rig.base));
    return 0;
}

static char *read_file(const char *name)
{
    char path[128], *bytes;
    size_t n;

    put_path(name, path);
    return file_read(path, 16 << 20, &bytes, &n, NULL) ? bytes : strdup("");
}

static int count_in(const char *name, const char *text)
{
    char *bytes = read_file(name);
    int n = 0;

    for (const char *at = bytes; (at = strstr(at, text)); at++)
        n++;
    free(bytes);
    return n;
}

static void fail_waiting(const char *what)
{
    fail_msg("waited in vain for '%s'\n-- events:\n%s\n-- log:\n%s", what, read_file("events"),
             read_file("stderr"));
}

static void wait_count(const char *name, const char *text, int n)
{
    for (uint64_t end = clock_mono_ns() + PATIENCE_MS * NS_PER_MS; count_in(name, text) < n; nap())
        if (clock_mono_ns() > end)
            fail_waiting(text);
}

static void wait_event(const char *text)
{
    wait_count("events", text, 1);
}

/* The number behind a word of the first line that has it, when it has come. */
static long number_behind(const char *word)
{
    for (uint64_t end = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;; nap()) {
        char *events = read_file("events"), *at = strstr(events, word);
        long n = at && strchr(at, '\n') ? atol(at + strlen(word)) : 0;
        free(events);
        if (n > 0)
            return n;
        if (clock_mono_ns() > end)
            fail_waiting(word);
    }
}

/* ---- start and end ---- */

static void pass_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char pid[24];

    snprintf(pid, sizeof pid, "%d", (int)getpid());
    dup2(fd, 3);
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "http", 1);
}

static void become_init(char **argv)
{
    char path[128], program[256];
    int log;

    put_path("stderr", path);
    log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dup2(log, STDERR_FILENO);
    put_path("events", path);
    setenv("FAKE_EVENTS", path, 1);
    setenv("LLMD_LOG_LEVEL", "debug", 1);
    unsetenv("JOURNAL_STREAM");
    if (rig.has_socket)
        pass_socket();
    snprintf(program, sizeof program, "%s/llm-init", TEST_BIN_DIR);
    execv(program, argv);
    _exit(126);
}

/* In a pid namespace of its own; its father waits for it and ends as it did. */
static void become_pid_1(char **argv)
{
    int status;
    pid_t pid;

    if (unshare(CLONE_NEWPID) < 0)
        _exit(77);
    pid = fork();
    if (pid == 0)
        become_init(argv);
    prctl(PR_SET_NAME, "father");
    signal(SIGTERM, SIG_IGN);
    waitpid(pid, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

/* llm-init with these words of its command line, NULL at the end. */
static void start(const char *first, ...)
{
    char *argv[ARGS_MAX + 1] = { (char *)(uintptr_t) "llm-init", (char *)(uintptr_t)first };
    va_list ap;
    int n = 2;

    va_start(ap, first);
    do
        argv[n] = va_arg(ap, char *);
    while (argv[n++] && n < ARGS_MAX);
    va_end(ap);
    assert_int_equal(rig.pid, 0);
    rig.pid = fork();
    assert_true(rig.pid >= 0);
    if (rig.pid == 0 && rig.as_pid_1)
        become_pid_1(argv);
    if (rig.pid == 0)
        become_init(argv);
}

static int wait_exit(void)
{
    uint64_t end = clock_mono_ns() + PATIENCE_MS * NS_PER_MS;
    int status = 0;

    for (; waitpid(rig.pid, &status, WNOHANG) == 0; nap())
        if (clock_mono_ns() > end)
            fail_waiting("the end of llm-init");
    rig.pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void stop(void)
{
    kill(rig.pid, SIGTERM);
    assert_int_equal(wait_exit(), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left */
}

static int teardown(void **state)
{
    char command[128];
    int bad = count_in("events", "bad ");

    (void)state;
    if (rig.pid > 0)
        kill(rig.pid, SIGKILL);
    orphans_kill();
    rig.pid = 0;
    if (bad)
        fail_msg("the fake complains:\n%s", read_file("events"));
    snprintf(command, sizeof command, "rm -r %s", rig.base);
    return system(command);
}

#define FAKE    "--", TEST_BIN_DIR "/fake_kept"
#define NO_WAIT "--pause-max-ms", "1"

/* ---- the store ---- */

static void descriptors_come_back_with_their_names(void **state)
{
    (void)state;
    start(FAKE, "store=a", "store=b", "nopoll=p", "say=READY=1", "kill=9", "--", "fds", "wait",
          NULL);
    wait_event("fds 3");
    wait_event("fd a \"a\"");
    wait_event("fd b \"b\"");
    stop();
    assert_int_equal(count_in("events", "start "), 2);
}

static void the_same_file_is_kept_once_and_a_name_twice(void **state)
{
    (void)state;
    start(FAKE, "store=a", "store=a", "say=READY=1", "kill=9", "--", "again=a", "say=READY=1",
          "kill=9", "--", "fds", "wait", NULL);
    wait_event("fds 2");
    stop();
}

static void removed_ones_do_not_come_back(void **state)
{
    (void)state;
    start(FAKE, "store=a", "store=b", "store=a", "remove=a", "remove=none", "say=FDSTOREREMOVE=1",
          "kill=9", "--", "fds", "wait", NULL);
    wait_event("fd b \"b\"");
    wait_event("fds 1");
    stop();
}

static void hung_up_ones_are_dropped_unless_stored_without_polling(void **state)
{
    (void)state;
    start(FAKE, "store-pipe=p", "nopoll=q", "store-pipe=r", "hang-up", "ms=100", "store=a",
          "kill=9", "--", "fds", "wait", NULL);
    wait_event("fds 2");
    wait_event("fd q ");
    wait_event("fd a ");
    stop();
}

static void the_store_is_bounded(void **state)
{
    (void)state;
    start("--fd-store-max", "5", FAKE, "many=20", "remove=none", "kill=9", "--", "fds",
          "remove=many", "store=a", "kill=9", "--", "fds", "wait", NULL);
    wait_event("fds 5");
    wait_event("fds 1");
    assert_int_equal(count_in("stderr", "fd_store_full"), 1);
    stop();
}

static void a_thousand_descriptors_come_back(void **state)
{
    (void)state;
    start(FAKE, "many=1000", "store=a", "kill=9", "--", "fds", "wait", NULL);
    wait_event("fds 1001");
    assert_int_equal(count_in("events", "fd many \"many\""), 1000);
    wait_event("fd a \"a\"");
    stop();
}

static void only_llmd_is_listened_to(void **state)
{
    (void)state;
    start(FAKE, "stranger", "store=a", "kill=9", "--", "fds", "exit=1", NULL);
    assert_int_equal(wait_exit(), 1); /* nobody who counts ever said READY */
    wait_event("fds 1");
    assert_int_equal(count_in("stderr", "event=stranger"), 1);
}

static void passed_sockets_go_to_every_llmd(void **state)
{
    (void)state;
    rig.has_socket = true;
    start(FAKE, "fds", "store=a", "kill=9", "--", "fds", "wait", NULL);
    wait_event("fds 1");
    wait_event("fds 2");
    assert_int_equal(count_in("events", "fd http "), 2);
    stop();
}

static long resident_pages(pid_t pid)
{
    char path[64];
    long total, resident = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/statm", (int)pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &total, &resident), 2);
    fclose(f);
    return resident;
}

static void a_hundred_restarts_keep_nothing(void **state)
{
    long pages;
    int open_fds;

    (void)state;
    /* each takes back what it finds and stores its own */
    start(NO_WAIT, FAKE, "remove=a", "remove=p", "store=a", "store-pipe=p", "say=READY=1", "kill=9",
          NULL);
    wait_count("events", "start ", 10);
    kill(rig.pid, SIGSTOP);
    open_fds = open_fds_count(rig.pid);
    pages = resident_pages(rig.pid);
    kill(rig.pid, SIGCONT);
    wait_count("events", "start ", 110);
    kill(rig.pid, SIGSTOP);
    assert_in_range(open_fds_count(rig.pid), 1, open_fds + 2); /* between two of its llmds or not */
    assert_in_range(resident_pages(rig.pid), 1, pages + 16);
    kill(rig.pid, SIGCONT);
}

/* ---- ends ---- */

static void ends_with_the_exit_code_of_llmd(void **state)
{
    static const char *const words[] = { "exit=0", "exit=2", "exit=64", "exit=1", "exit=5" };
    static const int codes[] = { 0, 2, 64, 1, 5 };

    (void)state;
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        start(FAKE, words[i], NULL);
        assert_int_equal(wait_exit(), codes[i]);
        unlink(strcat(strcpy((char[128]){ 0 }, rig.base), "/events"));
    }
}

static void service_comes_back_after_a_failure(void **state)
{
    (void)state;
    start(NO_WAIT, FAKE, "say=READY=1", "exit=1", "--", "exit=1", "--", "exit=127", "--", "exit=2",
          NULL);
    assert_int_equal(wait_exit(), 2);
    assert_int_equal(count_in("events", "start "), 4);
}

static void a_missing_program_is_told(void **state)
{
    (void)state;
    start("--", "/nowhere/llmd", NULL);
    assert_int_equal(wait_exit(), 1);
    assert_int_equal(count_in("stderr", "program '/nowhere/llmd': No such file"), 1);
    start("no-such-llmd", NULL);
    assert_int_equal(wait_exit(), 1);
}

static void llmd_beside_it_is_the_default(void **state)
{
    (void)state;
    start("--", "--port", "65536", NULL); /* the real one: a wrong setting */
    assert_int_equal(wait_exit(), 2);
    assert_int_equal(count_in("stderr", "setting 'port': '65536'"), 1);
    start("llmd", "--no-such-option", NULL);
    assert_int_equal(wait_exit(), 64);
    start("--watchdog-s", "x", NULL);
    assert_int_equal(wait_exit(), 64);
}

static void crash_loops_are_slowed_down(void **state)
{
    uint64_t begun = clock_mono_ns();

    (void)state;
    /* the first death interrupts service and is free, then 100, 200, 400 ms */
    start(FAKE, "say=READY=1", "kill=9", "--", "kill=9", "--", "say=READY=1", "kill=9", "--",
          "kill=9", "--", "exit=2", NULL);
    assert_int_equal(wait_exit(), 2);
    assert_true(clock_mono_ns() - begun > 700 * NS_PER_MS);
    assert_int_equal(count_in("stderr", "again_in_ms=0"), 1);
    assert_int_equal(count_in("stderr", "again_in_ms=100"), 1);
    assert_int_equal(count_in("stderr", "again_in_ms=200"), 1);
    assert_int_equal(count_in("stderr", "again_in_ms=400"), 1);
}

/* ---- signals ---- */

static void signals_reach_llmd(void **state)
{
    static const int sent[] = { SIGHUP, SIGUSR1, SIGUSR2, SIGQUIT, SIGINT };
    char text[32];

    (void)state;
    start(FAKE, "say=READY=1", "fds", "signals", NULL);
    wait_event("fds 0");
    for (size_t i = 0; i < sizeof sent / sizeof sent[0]; i++) {
        kill(rig.pid, sent[i]);
        snprintf(text, sizeof text, "signal %d\n", sent[i]);
        wait_event(text);
    }
    for (int sig = SIGALRM; sig < SIGCHLD; sig++) /* nothing else ends it */
        if (sig != SIGTERM)
            kill(rig.pid, sig);
    stop();
    assert_int_equal(count_in("events", "signal 14"), 0);
}

static void second_sigterm_reaches_llmd_too(void **state)
{
    (void)state;
    start(FAKE, "say=READY=1", "drain", NULL);
    wait_event("start 0");
    kill(rig.pid, SIGTERM);
    wait_event("draining");
    kill(rig.pid, SIGTERM);
    assert_int_equal(wait_exit(), 0);
    assert_int_equal(count_in("events", "signal 15"), 2);
}

static void sigterm_sent_before_llmd_listens_is_not_lost(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        start(FAKE, "signals", NULL);
        for (int turns = 0; turns < i * 50; turns++)
            sched_yield();
        wait_count("stderr", "event=llmd_started", i + 1);
        kill(rig.pid, SIGTERM);
        assert_int_equal(wait_exit(), 0);
    }
}

static void llmd_that_dies_in_a_drain_is_started_to_finish_it(void **state)
{
    pid_t child;

    (void)state;
    start(FAKE, "child", "say=READY=1", "drain", "--", "say=STOPPING=1", "ms=50", "exit=0", NULL);
    wait_event("child ");
    child = (pid_t)number_behind("child ");
    kill(rig.pid, SIGTERM);
    wait_event("draining");
    kill((pid_t)number_behind("pid "), SIGKILL);
    assert_int_equal(wait_exit(), 0);
    /* it was not told a second time: that would have cut the drain short */
    assert_int_equal(count_in("events", "signal 15"), 1);
    kill(child, SIGKILL);
}

static void llmd_that_never_heard_of_the_stop_is_told_when_it_comes_back(void **state)
{
    pid_t child;

    (void)state;
    start("--watchdog-s", "0", FAKE, "child", "say=READY=1", "stop", "--", "signals", NULL);
    wait_event("child ");
    child = (pid_t)number_behind("child ");
    kill(rig.pid, SIGTERM);
    wait_count("stderr", "signal=15", 1);
    kill((pid_t)number_behind("pid "), SIGKILL);
    assert_int_equal(wait_exit(), 0);
    assert_int_equal(count_in("events", "signal 15"), 1);
    kill(child, SIGKILL);
}

static void llmd_that_dies_in_a_drain_with_nothing_left_ends_it(void **state)
{
    (void)state;
    start(FAKE, "say=READY=1", "drain", NULL);
    wait_event("start 0");
    kill(rig.pid, SIGTERM);
    wait_event("draining");
    kill((pid_t)number_behind("pid "), SIGKILL);
    assert_int_equal(wait_exit(), 137);
    assert_int_equal(count_in("events", "start "), 1);
}

static void sigterm_between_two_llmds_ends_it(void **state)
{
    (void)state;
    start("--pause-max-ms", "100000", FAKE, "kill=9", "--", "kill=9", "--", "kill=9", "--",
          "kill=9", NULL);
    wait_count("stderr", "again_in_ms=800", 1);
    kill(rig.pid, SIGTERM);
    assert_int_equal(wait_exit(), 128 + 9);
    assert_int_equal(count_in("events", "start "), 4);
}

static void a_stop_without_end_is_ended(void **state)
{
    (void)state;
    start("--stop-timeout-s", "1", FAKE, "child", "say=READY=1", "drain", "--", "stop", NULL);
    wait_event("child ");
    kill((pid_t)number_behind("pid "), SIGKILL); /* the next one says nothing, and stands still */
    wait_event("start 1");
    kill(rig.pid, SIGTERM);
    assert_int_equal(wait_exit(), 137);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* the child is gone as well */
}

static void a_drain_that_kills_every_llmd_is_ended(void **state)
{
    (void)state;
    start(NO_WAIT, FAKE, "child", "say=READY=1", "drain", "--",
          "say=STOPPING=1\nEXTEND_TIMEOUT_USEC=3600000000", "kill=9", NULL);
    wait_event("child ");
    kill(rig.pid, SIGTERM);
    wait_event("draining");
    kill((pid_t)number_behind("pid "), SIGKILL);
    assert_int_equal(wait_exit(), 137);
    assert_int_equal(count_in("events", "start "), 6);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
}

/* ---- hangs and orphans ---- */

static void silent_llmd_is_replaced(void **state)
{
    (void)state;
    start("--watchdog-s", "1", FAKE, "store=a", "say=READY=1", "ms=1500", "stop", "--", "deaf",
          "--", "fds", "wait", NULL);
    wait_event("fds 1");
    /* the first one dies of SIGABRT though it is stopped, the second one only of SIGKILL */
    assert_int_equal(count_in("stderr", "signal=6"), 1);
    assert_int_equal(count_in("stderr", "signal=9"), 1);
    assert_int_equal(count_in("stderr", "event=watchdog"), 3);
    stop();
}

/* Both stand still for longer than the watchdog waits.  False: the last sign of life of llmd was still under way
 * when llm-init was stopped, and read first when that went on, so that nothing was late. */
static bool stand_still(pid_t llmd)
{
    uint64_t end = clock_mono_ns() + 6 * NS_PER_S;

    kill(rig.pid, SIGSTOP); /* first: it must not see the other one silent */
    kill(llmd, SIGSTOP);
    while (clock_mono_ns() < end)
        nap();
    kill(rig.pid, SIGCONT);
    for (end = clock_mono_ns() + NS_PER_S; clock_mono_ns() < end; nap())
        if (count_in("stderr", "event=stood_still") > 0)
            break;
    kill(llmd, SIGCONT);
    return count_in("stderr", "event=stood_still") > 0;
}

static void llmd_is_not_blamed_when_everything_stood_still(void **state)
{
    int tries = 5;
    pid_t llmd;

    (void)state;
    start("--watchdog-s", "3", FAKE, "say=READY=1", "fds", "wait", NULL);
    wait_event("fds 0");
    wait_count("stderr", "event=ready", 1); /* from here on llmd is watched */
    llmd = (pid_t)number_behind("pid ");
    while (!stand_still(llmd))
        assert_true(--tries > 0);
    stop();
    assert_int_equal(count_in("events", "start "), 1);
}

static void orphans_are_reaped(void **state)
{
    pid_t orphan;

    (void)state;
    start(FAKE, "orphan", "fds", "wait", NULL);
    wait_event("fds 0");
    orphan = (pid_t)number_behind("child ");
    for (uint64_t end = clock_mono_ns() + PATIENCE_MS * NS_PER_MS; kill(orphan, 0) == 0; nap())
        if (clock_mono_ns() > end)
            fail_waiting("the end of the orphan"); /* a zombie still has its number */
    stop();
}

/* ---- a container ---- */

static void skip_unless_namespaces(void)
{
    int status;
    pid_t pid = fork();

    if (pid == 0)
        _exit(unshare(CLONE_NEWPID) < 0 ? 77 : 0);
    waitpid(pid, &status, 0);
    if (WEXITSTATUS(status) == 77)
        skip();
}

/* The pid of our grandchild, seen from here. */
static pid_t find_init(void)
{
    char path[64];
    int pid = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)rig.pid, (int)rig.pid);
    f = fopen(path, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    return pid;
}

static void as_pid_1_it_does_all_of_this(void **state)
{
    pid_t init;

    (void)state;
    skip_unless_namespaces();
    rig.as_pid_1 = true;
    start(NO_WAIT, FAKE, "store=a", "store-pipe=p", "orphan", "child", "say=READY=1", "kill=9",
          "--", "fds", "say=READY=1", "signals", NULL);
    wait_event("fds 2");
    wait_event("start 1");
    assert_int_equal(count_in("events", "ppid 1\n"), 2);
    init = find_init();
    kill(init, SIGPIPE); /* harmless even from outside */
    kill(init, SIGUSR1);
    wait_event("signal 10");
    kill(init, SIGTERM);
    assert_int_equal(wait_exit(), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* the child ended with its namespace */
}

static void as_pid_1_it_kills_what_does_not_end(void **state)
{
    (void)state;
    skip_unless_namespaces();
    rig.as_pid_1 = true;
    start("--stop-timeout-s", "1", FAKE, "child", "say=READY=1", "fds", "ms=100000", NULL);
    wait_event("fds 0");
    kill(find_init(), SIGTERM);
    assert_int_equal(wait_exit(), 137);
    assert_int_equal(count_in("stderr", "event=killing_what_is_left"), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
        TEST(descriptors_come_back_with_their_names),
        TEST(the_same_file_is_kept_once_and_a_name_twice),
        TEST(removed_ones_do_not_come_back),
        TEST(hung_up_ones_are_dropped_unless_stored_without_polling),
        TEST(the_store_is_bounded),
        TEST(a_thousand_descriptors_come_back),
        TEST(only_llmd_is_listened_to),
        TEST(passed_sockets_go_to_every_llmd),
        TEST(a_hundred_restarts_keep_nothing),
        TEST(ends_with_the_exit_code_of_llmd),
        TEST(service_comes_back_after_a_failure),
        TEST(a_missing_program_is_told),
        TEST(llmd_beside_it_is_the_default),
        TEST(crash_loops_are_slowed_down),
        TEST(signals_reach_llmd),
        TEST(second_sigterm_reaches_llmd_too),
        TEST(sigterm_sent_before_llmd_listens_is_not_lost),
        TEST(llmd_that_dies_in_a_drain_is_started_to_finish_it),
        TEST(llmd_that_never_heard_of_the_stop_is_told_when_it_comes_back),
        TEST(llmd_that_dies_in_a_drain_with_nothing_left_ends_it),
        TEST(sigterm_between_two_llmds_ends_it),
        TEST(a_stop_without_end_is_ended),
        TEST(a_drain_that_kills_every_llmd_is_ended),
        TEST(silent_llmd_is_replaced),
        TEST(llmd_is_not_blamed_when_everything_stood_still),
        TEST(orphans_are_reaped),
        TEST(as_pid_1_it_does_all_of_this),
        TEST(as_pid_1_it_kills_what_does_not_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
