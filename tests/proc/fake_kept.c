/* fake_kept.c - stands in for llmd under llm-init: does what its arguments say, and writes what it sees to
 * the file $FAKE_EVENTS, one line an event.
 *
 * "--" separates what it does at its first start, its second, ...; the last part serves for all later ones.
 *
 *   store=NAME    memory with NAME as content          store-pipe=NAME  one end; the other stays here
 *   nopoll=NAME   the same pipe with FDPOLL=0          hang-up          close the other ends
 *   remove=NAME   FDSTOREREMOVE                        many=N           N times memory under the name "many"
 *   again=NAME    store the first descriptor of this name that was given back
 *   say=WORDS     a notice, as it is ("READY=1")       fds              note each descriptor given back
 *   stranger      a child says FDSTORE=1, READY=1      orphan           leave a process that ends soon
 *   child         leave a process that stays           ms=N             wait, feeding the watchdog
 *   wait          until SIGTERM, feeding the watchdog; then exit code 0
 *   drain         until a second SIGTERM, the same     stop             SIGSTOP itself
 *   signals       until SIGTERM, noting all signals    deaf             hang, and ignore SIGABRT
 *   exit=N                                             kill=N           itself, by this signal */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static int other_ends[16], n_other_ends;
static int signals;

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static void note(const char *fmt, ...)
{
    char text[512];
    va_list ap;
    int fd = open(getenv("FAKE_EVENTS"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    int n;

    va_start(ap, fmt);
    n = vsnprintf(text, sizeof text - 1, fmt, ap);
    va_end(ap);
    text[n++] = '\n';
    if (fd < 0 || write(fd, text, (size_t)n) != n)
        abort();
    close(fd);
}

static int count_starts(void)
{
    FILE *f = fopen(getenv("FAKE_EVENTS"), "r");
    char line[512];
    int n = 0;

    while (f && fgets(line, sizeof line, f))
        n += strncmp(line, "start ", 6) == 0;
    if (f)
        fclose(f);
    return n;
}

static void tell(const char *text, int fd)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un at = { .sun_family = AF_UNIX };
    struct iovec iov = { .iov_base = (void *)(uintptr_t)text, .iov_len = strlen(text) };
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = { .bytes = { 0 } };
    struct msghdr msg = { .msg_name = &at,
                          .msg_namelen =
                              (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)),
                          .msg_iov = &iov,
                          .msg_iovlen = 1 };
    static int out = -1;

    memcpy(at.sun_path, path, strlen(path));
    if (path[0] == '@')
        at.sun_path[0] = '\0';
    if (out < 0)
        out = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        CMSG_FIRSTHDR(&msg)->cmsg_level = SOL_SOCKET;
        CMSG_FIRSTHDR(&msg)->cmsg_type = SCM_RIGHTS;
        CMSG_FIRSTHDR(&msg)->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof fd);
    }
    if (sendmsg(out, &msg, MSG_NOSIGNAL) < 0)
        note("bad send");
}

static void store(const char *name, int fd, const char *more)
{
    char text[128];

    snprintf(text, sizeof text, "FDSTORE=1\nFDNAME=%s%s", name, more);
    tell(text, fd);
}

static void store_memory(const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);

    if (write(fd, name, strlen(name)) < 0)
        note("bad memory");
    store(name, fd, "");
    close(fd);
}

static void store_pipe(const char *name, const char *more)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0)
        note("bad pipe");
    store(name, ends[0], more);
    close(ends[0]);
    other_ends[n_other_ends++] = ends[1];
}

/* The name of descriptor 3 + i; the text lives until the next call. */
static const char *name_of(int i)
{
    static char name[128];
    const char *names = getenv("LISTEN_FDNAMES");

    for (; names && i > 0; i--)
        names = strchr(names, ':') ? strchr(names, ':') + 1 : NULL;
    snprintf(name, sizeof name, "%.*s", names ? (int)strcspn(names, ":") : 0, names ? names : "");
    return name;
}

static int count_fds(void)
{
    const char *n = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID");

    if (n && (!pid || atoi(pid) != (int)getpid()))
        note("bad LISTEN_PID %s", pid ? pid : "");
    return n ? atoi(n) : 0;
}

static void note_fds(void)
{
    char content[64];

    for (int i = 0; i < count_fds(); i++) {
        ssize_t n = pread(3 + i, content, sizeof content, 0);
        note("fd %s \"%.*s\"", name_of(i), n > 0 ? (int)n : 0, content);
    }
    note("fds %d", count_fds());
}

static void store_again(const char *name)
{
    for (int i = 0; i < count_fds(); i++)
        if (strcmp(name_of(i), name) == 0) {
            store(name, 3 + i, "");
            return;
        }
    note("bad name %s", name);
}

static void leave_process(int ms)
{
    pid_t pid = fork();

    if (pid == 0) {
        if (fork() == 0) {
            note("child %d", (int)getpid());
            poll(NULL, 0, ms);
        }
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void be_strange(void)
{
    pid_t pid = fork();

    if (pid == 0) {
        store_memory("strange");
        tell("READY=1\nSTOPPING=1", -1);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

/* Sleep and feed the watchdog until the signal came n times; -1 ms = for ever. */
static void wait_for(int sig, int n, int ms, int notes)
{
    struct signalfd_siginfo info;

    for (; ms != 0 && n > 0; ms -= ms > 0) {
        struct pollfd fd = { .fd = signals, .events = POLLIN };
        if (getenv("WATCHDOG_USEC") && (ms < 0 || ms % 20 == 0))
            tell("WATCHDOG=1", -1);
        if (poll(&fd, 1, ms < 0 ? 20 : 1) > 0 && read(signals, &info, sizeof info) > 0) {
            n -= (int)info.ssi_signo == sig;
            if (notes)
                note("signal %u", info.ssi_signo);
        }
    }
}

static void act(const char *word)
{
    const char *value = strchr(word, '=') ? strchr(word, '=') + 1 : "";
    int n = atoi(value);

    if (strncmp(word, "store=", 6) == 0)
        store_memory(value);
    else if (strncmp(word, "store-pipe=", 11) == 0)
        store_pipe(value, "");
    else if (strncmp(word, "nopoll=", 7) == 0)
        store_pipe(value, "\nFDPOLL=0");
    else if (strcmp(word, "hang-up") == 0)
        while (n_other_ends > 0)
            close(other_ends[--n_other_ends]);
    else if (strncmp(word, "remove=", 7) == 0) {
        char text[128];
        snprintf(text, sizeof text, "FDSTOREREMOVE=1\nFDNAME=%s", value);
        tell(text, -1);
    } else if (strncmp(word, "many=", 5) == 0)
        while (n-- > 0)
            store_memory("many");
    else if (strncmp(word, "again=", 6) == 0)
        store_again(value);
    else if (strncmp(word, "say=", 4) == 0)
        tell(value, -1);
    else if (strcmp(word, "fds") == 0)
        note_fds();
    else if (strcmp(word, "stranger") == 0)
        be_strange();
    else if (strcmp(word, "orphan") == 0)
        leave_process(10);
    else if (strcmp(word, "child") == 0)
        leave_process(600000);
    else if (strncmp(word, "ms=", 3) == 0)
        wait_for(SIGTERM, 1000, n, 0);
    else if (strcmp(word, "wait") == 0)
        wait_for(SIGTERM, 1, -1, 0);
    else if (strcmp(word, "drain") == 0) {
        wait_for(SIGTERM, 1, -1, 1);
        tell("STOPPING=1\nEXTEND_TIMEOUT_USEC=20000000", -1);
        note("draining");
        wait_for(SIGTERM, 1, -1, 1);
    } else if (strcmp(word, "signals") == 0)
        wait_for(SIGTERM, 1, -1, 1);
    else if (strcmp(word, "stop") == 0)
        raise(SIGSTOP);
    else if (strcmp(word, "deaf") == 0) {
        signal(SIGABRT, SIG_IGN);
        while (poll(NULL, 0, -1) < 0)
            continue;
    } else if (strncmp(word, "exit=", 5) == 0)
        exit(n);
    else if (strncmp(word, "kill=", 5) == 0)
        raise(n);
    else
        note("bad word %s", word);
}

int main(int argc, char **argv)
{
    int part = count_starts(), at = 1;
    sigset_t set, held;

    if (fcntl(3 + count_fds(), F_GETFD) >= 0)
        note("bad descriptor was inherited");
    sigprocmask(SIG_BLOCK, NULL, &held);
    sigemptyset(&set);
    for (int sig = 1; sig < 32; sig++)
        if (sig != SIGABRT && sig != SIGCHLD)
            sigaddset(&set, sig);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    note("start %d pid %d ppid %d%s", part, (int)getpid(), (int)getppid(),
         sigismember(&held, SIGTERM) ? "" : " bad mask");
    for (int i = 1; i < argc && part > 0; i++)
        if (strcmp(argv[i], "--") == 0) {
            at = i + 1;
            part--;
        }
    for (; at < argc && strcmp(argv[at], "--") != 0; at++)
        act(argv[at]);
    return 0;
}
