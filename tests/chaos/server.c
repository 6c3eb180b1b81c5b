/* server.c - see server.h. */
#include "tests/chaos/server.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/mem.h"
#include "proto/control_client.h"
#include "proto/kvpool.h"
#include "tests/chaos/gpus.h"
#include "tests/chaos/processes.h"

enum {
    ARGS_MAX = 64,
    START_TIMEOUT_MS = 120000,
    ASK_TIMEOUT_MS = 1000 /* so that a busy machine has no queue of questions given up */
};

/* ---- starting ---- */

void server_log_path(const struct server *s, char out[96])
{
    snprintf(out, 96, "%s.log", s->dir);
}

static void settings_path(const struct server *s, char out[96])
{
    snprintf(out, 96, "%s.yaml", s->dir);
}

static void write_settings(const struct server *s, const char *fault_points)
{
    char path[96], text[512];

    settings_path(s, path);
    snprintf(text, sizeof text, "fault_points: \"%s\"\n", fault_points);
    file_replace(path, text, NULL);
}

static int add_words(const char **argv, int n, const char *const *words)
{
    for (; words && *words && n < ARGS_MAX - 1; words++)
        argv[n++] = *words;
    return n;
}

static const char *model_of(const struct server_config *c)
{
    return c->gpus ? c->gpus->models[c->gpus->model] : c->model;
}

/* Small limits, so that a hang is found within a test's patience. */
static void exec_llmd(const struct server *s)
{
    const struct server_config *c = &s->config;
    char init[256], llmd[256], settings[96], groups[16], tp_size[16];
    char hang_step[16], hang_timeout[16];
    const char *argv[ARGS_MAX] = { NULL };
    const char *const of_init[] = { init, "--watchdog-s", hang_timeout, "--pause-max-ms",
                                    "50", "--",           NULL };
    const char *const of_llmd[] = { llmd,         "--config",
                                    settings,     "--model",
                                    model_of(c),  "--host",
                                    "127.0.0.1",  "--port",
                                    "0",          "--runtime-dir",
                                    s->dir,       "--groups",
                                    groups,       "--tp-size",
                                    tp_size,      "--backoff-ms",
                                    "10",         "--backoff-max-ms",
                                    "20",         "--hang-step-ms",
                                    hang_step,    "--hang-step-factor",
                                    "50",         "--hang-timeout-s",
                                    hang_timeout, "--orphan-timeout-s",
                                    "20",         NULL };
    int n = 0;

    settings_path(s, settings);
    snprintf(init, sizeof init, "%s/llm-init", c->bin);
    snprintf(llmd, sizeof llmd, "%s/llmd", c->bin);
    snprintf(groups, sizeof groups, "%u", c->groups);
    snprintf(tp_size, sizeof tp_size, "%u", c->tp_size);
    snprintf(hang_step, sizeof hang_step, "%u", c->hang_step_ms);
    snprintf(hang_timeout, sizeof hang_timeout, "%u", c->hang_timeout_s);
    if (s->has_init)
        n = add_words(argv, n, of_init);
    n = add_words(argv, n, of_llmd);
    n = add_words(argv, n, c->args);
    execv(argv[0], (char *const *)(uintptr_t)argv);
}

static void exec_peer(const struct server *s)
{
    char line[1024];

    snprintf(line, sizeof line, "while :; do %s; sleep 0.1; done", s->config.peer_command);
    execl("/bin/sh", "sh", "-c", line, (char *)NULL);
}

/* In the child: a process group, a folder and a log of its own; no core files of the killed. */
static void run(const struct server *s)
{
    char log[96];
    int fd;

    server_log_path(s, log);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    setpgid(0, 0);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* a suite that is killed leaves nothing running */
    setenv("TMPDIR", s->dir, 1);
    if (s->config.gpus)
        gpus_environment(s->config.gpus);
    setenv("ASAN_OPTIONS", "handle_segv=0:handle_abort=0:handle_sigbus=0:handle_sigfpe=0", 0);
    if (chdir(s->dir) == 0 && s->config.peer_command)
        exec_peer(s);
    else
        exec_llmd(s);
    _exit(127);
}

static bool wait_whole(struct server *s, struct err *e)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)START_TIMEOUT_MS * NS_PER_MS;

    while (clock_mono_ns() < end_ns && pid_runs(s->root)) {
        if (server_is_whole(s))
            return true;
        usleep(10000);
    }
    return err_set(e, ERR_TIMEOUT, 0, "the server did not come into service; its log is %s.log",
                   s->dir);
}

static bool find_port(struct server *s, struct err *e)
{
    Llmd__CtlReply *reply = server_ask(s, LLMD__CTL_COMMAND__CTL_STATUS, 5000);

    s->port = (uint16_t)control_port_of(reply);
    frame_free_body(reply);
    return s->port > 0 || err_set(e, ERR_PROTO, 0, "llmd names no listening socket");
}

bool server_start(struct server *s, const struct server_config *config, struct err *e)
{
    char init[256];

    *s = (struct server){ .config = *config, .port = config->peer_port };
    snprintf(init, sizeof init, "%s/llm-init", config->bin);
    s->has_init = !config->peer_command && access(init, X_OK) == 0;
    snprintf(s->dir, sizeof s->dir, "/tmp/llmd-chaos-XXXXXX");
    if (!mkdtemp(s->dir))
        return err_set(e, ERR_SYS, errno, "make '%s'", s->dir);
    write_settings(s, "");
    s->root = fork();
    if (s->root == 0)
        run(s);
    if (s->root < 0)
        return err_set(e, ERR_SYS, errno, "fork");
    setpgid(s->root, s->root);
    return wait_whole(s, e) && (config->peer_command || find_port(s, e));
}

/* ---- ending ---- */

void server_detach(struct server *s)
{
    board_close(&s->board);
    if (s->pool)
        kvpool_close(s->pool);
    free(s->pool);
    for (uint32_t g = 0; g < GROUPS_MAX; g++)
        ledger_close(&s->ledgers[g]);
    s->board = (struct board){ 0 };
    s->pool = NULL;
    memset(s->ledgers, 0, sizeof s->ledgers);
    s->attached_to = 0;
}

int server_stop(struct server *s, uint64_t timeout_ms)
{
    uint64_t end_ns = clock_mono_ns() + timeout_ms * NS_PER_MS;
    int status;

    server_detach(s);
    kill(s->config.peer_command ? -s->root : s->root, SIGTERM);
    while (clock_mono_ns() < end_ns) {
        if (waitpid(s->root, &status, WNOHANG) == s->root)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        usleep(5000);
    }
    kill(s->root, SIGKILL);
    waitpid(s->root, &status, 0);
    return -1000;
}

void server_forget(struct server *s)
{
    char path[96];

    server_log_path(s, path);
    unlink(path);
    settings_path(s, path);
    unlink(path);
    rmdir(s->dir);
}

/* ---- asking llmd ---- */

Llmd__CtlReply *server_ask(const struct server *s, Llmd__CtlCommand command, int timeout_ms)
{
    return control_ask(s->dir, command, timeout_ms);
}

/* ---- what runs ---- */

bool pid_runs(pid_t pid)
{
    char state = pid_state(pid);

    return state && !strchr("ZXTt", state);
}

pid_t server_llmd(const struct server *s)
{
    pid_t pid = s->has_init ? pid_child_named(s->root, "llmd") : s->root;

    return strchr("ZX", pid_state(pid)) ? 0 : pid;
}

pid_t server_peer(const struct server *s)
{
    return pid_child_named(s->root, NULL);
}

static bool opens_as(pid_t pid, const char *fd_name, const char *wanted)
{
    char path[300], to[128];
    ssize_t n;

    snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, fd_name);
    n = readlink(path, to, sizeof to - 1);
    if (n < 0)
        return false;
    to[n] = '\0';
    return strncmp(to, "/memfd:", 7) == 0 && strncmp(to + 7, wanted, strlen(wanted)) == 0 &&
           to[7 + strlen(wanted)] == ' ';
}

/* A descriptor of our own of that memfd of another process; -1 when it has none. */
static int open_memfd_of(pid_t pid, const char *name)
{
    char path[300];
    struct dirent *entry;
    DIR *dir;
    int fd = -1;

    snprintf(path, sizeof path, "/proc/%d/fd", (int)pid);
    dir = opendir(path);
    while (dir && fd < 0 && (entry = readdir(dir)))
        if (opens_as(pid, entry->d_name, name)) {
            snprintf(path, sizeof path, "/proc/%d/fd/%s", (int)pid, entry->d_name);
            fd = open(path, O_RDWR | O_CLOEXEC);
        }
    if (dir)
        closedir(dir);
    return fd;
}

static bool attach_pool(struct server *s, pid_t llmd)
{
    int fd = open_memfd_of(llmd, "llmd-kvpool");
    struct kvpool *pool;
    struct err e;

    if (fd < 0)
        return false;
    pool = mem_zalloc(1, sizeof *pool);
    if (kvpool_attach(pool, fd, &e))
        s->pool = pool;
    else
        free(pool);
    return s->pool != NULL;
}

/* The segments of this llmd: after a cold start they are others. */
static bool attach(struct server *s, pid_t llmd)
{
    char name[32];
    struct err e;
    int fd;

    if (s->attached_to == llmd)
        return true;
    server_detach(s);
    fd = open_memfd_of(llmd, "llmd-board");
    if (fd < 0 || !board_attach(&s->board, fd, &e))
        return false;
    if (!attach_pool(s, llmd)) {
        server_detach(s);
        return false;
    }
    for (uint32_t g = 0; g < s->config.groups; g++) {
        snprintf(name, sizeof name, "llmd-ledger-%u", g);
        fd = open_memfd_of(llmd, name);
        if (fd < 0 || !ledger_attach(&s->ledgers[g], fd, false, &e)) {
            server_detach(s);
            return false;
        }
    }
    s->attached_to = llmd;
    return true;
}

pid_t server_slot_pid(const struct server *s, uint32_t slot)
{
    pid_t pid = s->board.hdr ? (pid_t)atomic_load(&board_slot(&s->board, slot)->pid) : 0;

    return pid && !strchr("ZX", pid_state(pid)) ? pid : 0;
}

uint32_t server_slot_epoch(const struct server *s, uint32_t slot)
{
    return atomic_load(&board_slot(&s->board, slot)->epoch);
}

uint32_t server_max_epoch(const struct server *s)
{
    uint32_t most = 0;

    for (uint32_t i = BOARD_SLOT_RANKS; s->board.hdr && i < s->board.hdr->n_slots; i++)
        most = server_slot_epoch(s, i) > most ? server_slot_epoch(s, i) : most;
    return most;
}

uint32_t server_n_processes(const struct server *s)
{
    static const char keeper[] = " llm-keeper\n";
    struct buf lines = { 0 };
    uint32_t n = 1 + pid_descendants(s->root, &lines);

    for (const char *at = lines.data; at && (at = strstr(at, keeper)); at++)
        n--;
    buf_fini(&lines);
    return n;
}

uint32_t server_n_wanted(const struct server *s)
{
    return 2 + s->has_init + s->config.groups * s->config.tp_size;
}

static bool slot_serves(const struct server *s, uint32_t slot)
{
    return atomic_load(&board_slot(&s->board, slot)->state) == PROCESS_READY &&
           pid_runs(server_slot_pid(s, slot));
}

static bool says_ready(const struct server *s)
{
    Llmd__CtlReply *reply = server_ask(s, LLMD__CTL_COMMAND__CTL_STATUS, ASK_TIMEOUT_MS);
    bool is_ready = control_says_ready(reply);

    frame_free_body(reply);
    return is_ready;
}

static bool peer_answers(const struct server *s)
{
    int fd = loopback_connect(s->port);
    static const char ask[] = "GET /v1/models HTTP/1.1\r\nHost: chaos\r\nConnection: close\r\n\r\n";
    struct timeval limit = { .tv_sec = 2 };
    char head[16] = "";
    bool ok = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit) == 0 &&
              send(fd, ask, sizeof ask - 1, MSG_NOSIGNAL) > 0 &&
              recv(fd, head, sizeof head - 1, MSG_WAITALL) > 12 && memcmp(head + 9, "200", 3) == 0;

    if (fd >= 0)
        close(fd);
    return ok;
}

bool server_is_whole(struct server *s)
{
    pid_t llmd;

    if (s->config.peer_command)
        return pid_runs(server_peer(s)) && peer_answers(s);
    llmd = server_llmd(s);
    if (!pid_runs(llmd) || !attach(s, llmd))
        return false;
    for (uint32_t i = BOARD_SLOT_GATEWAY; i < s->board.hdr->n_slots; i++)
        if (!slot_serves(s, i))
            return false;
    return says_ready(s);
}

/* ---- what they hold ---- */

struct server_blame server_blame(const struct server *s, uint32_t group)
{
    struct server_blame most = { 0 };
    const struct ledger *l = &s->ledgers[group];

    for (uint32_t i = 0; l->hdr && i < l->hdr->n_entries; i++) {
        const struct ledger_entry *entry = ledger_entry(l, i);
        if (atomic_load(&entry->state) != LEDGER_LIVE)
            continue;
        most.crashes = entry->crashes > most.crashes ? entry->crashes : most.crashes;
        most.kills = entry->kills > most.kills ? entry->kills : most.kills;
    }
    return most;
}

static bool is_listed(const struct server *s, uint32_t group, uint32_t page)
{
    const struct kv_page_desc *d = &s->pool->descs[page];

    return atomic_load(&d->sealed) && atomic_load(&d->pins) > 0 &&
           atomic_load(&d->lease) >> 32 == group + 1;
}

uint32_t server_draw_page(const struct server *s, uint32_t group, struct random *r,
                          uint64_t *page_bytes)
{
    uint32_t n = s->pool ? s->pool->hdr->n_pages : 0, first = n * group / s->config.groups;
    uint32_t n_share = n * (group + 1) / s->config.groups - first, start;

    *page_bytes = n ? s->pool->hdr->page_bytes : 0;
    if (n_share == 0)
        return 0;
    start = random_below(r, n_share);
    for (uint32_t i = 0; i < n_share; i++)
        if (is_listed(s, group, first + (start + i) % n_share))
            return first + (start + i) % n_share;
    return first + start;
}

int64_t server_stat(const struct server *s, enum stat_id stat)
{
    int64_t sum = 0;

    for (uint32_t i = 0; s->board.hdr && i < s->board.hdr->n_slots; i++)
        sum += (int64_t)stat_get(&board_slot(&s->board, i)->stats, stat);
    return sum;
}

/* ---- orders ---- */

void server_set_fault_points(const struct server *s, const char *spec)
{
    pid_t llmd = server_llmd(s);

    write_settings(s, spec);
    if (llmd)
        kill(llmd, SIGHUP);
}

pid_t server_llmctl(const struct server *s, const char *const *words)
{
    char llmctl[256], log[96];
    const char *argv[16] = { llmctl, "--runtime-dir", s->dir };
    pid_t pid;
    int fd;

    snprintf(llmctl, sizeof llmctl, "%s/llmctl", s->config.bin);
    server_log_path(s, log);
    add_words(argv, 3, words);
    pid = fork();
    if (pid != 0)
        return pid;
    fd = open(log, O_WRONLY | O_APPEND);
    dup2(fd, STDERR_FILENO);
    dup2(fd, STDOUT_FILENO);
    execv(llmctl, (char *const *)(uintptr_t)argv);
    _exit(127);
}
