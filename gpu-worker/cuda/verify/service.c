/* service.c - see service.h. */
#include "gpu-worker/cuda/verify/service.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/file.h"
#include "proto/control_client.h"

enum { ARGS_MAX = 48, START_MS = 300000, STOP_MS = 60000, ASK_MS = 5000, NAP_US = 2000 };

static void log_path(const struct service *s, char out[96])
{
    snprintf(out, 96, "%s.log", s->dir);
}

static void settings_path(const struct service *s, char out[96])
{
    snprintf(out, 96, "%s.yaml", s->dir);
}

/* The settings that change while it runs. */
static void write_settings(const struct service *s, const char *fault_points)
{
    char path[96], text[512];

    settings_path(s, path);
    snprintf(text, sizeof text, "fault_points: \"%s\"\n", fault_points);
    file_replace(path, text, NULL); /* one that is not written shows: nothing fires */
}

/* "FOLDER/NAME", the folder being that of this program. */
static void program_path(char *out, size_t bytes, const char *name)
{
    ssize_t n = readlink("/proc/self/exe", out, bytes - 1);
    char *slash;

    out[n > 0 ? n : 0] = '\0';
    slash = strrchr(out, '/');
    if (!slash)
        slash = out;
    snprintf(slash, bytes - (size_t)(slash - out), "/%s", name);
}

static bool programs_are_there(struct item_report *r)
{
    static const char *const names[] = { "llmd", "llm-init", "llm-gateway", "llm-worker" };
    char path[4096];

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        program_path(path, sizeof path, names[i]);
        if (access(path, X_OK) != 0) {
            report_skip(r, "there is no '%s': build all programs", path);
            return false;
        }
    }
    return true;
}

/* ---- in the child ---- */

/* Ranks take the visible GPUs in order.  The fake driver has no such variable, and the dry run takes its first. */
static void show_gpus(const struct verify *v, int tp_size)
{
    char list[2 * sizeof v->uuid + 2];

    if (v->is_dry_run)
        return;
    snprintf(list, sizeof list, "%s%s%s", v->uuid, tp_size > 1 ? "," : "",
             tp_size > 1 ? v->peer_uuid : "");
    setenv("CUDA_VISIBLE_DEVICES", list, 1);
}

static void run(const struct service *s, const struct verify *v, const struct service_setup *how)
{
    char init[4096], llmd[4096], settings[96], tp_size[16], rows[16], kv[32], host[32], log[96];
    char page_tokens[16], model_len[16];
    /* Deaths follow each other here as nowhere else: without the pauses that grow by that.  A step on the fake GPU waits
     * for whatever else the machine does, and is not taken for hung. */
    const char *argv[ARGS_MAX] = { init,
                                   "--",
                                   llmd,
                                   "--config",
                                   settings,
                                   "--model",
                                   how->model,
                                   "--device",
                                   "cuda",
                                   "--host",
                                   "127.0.0.1",
                                   "--port",
                                   "0",
                                   "--runtime-dir",
                                   s->dir,
                                   "--tp-size",
                                   tp_size,
                                   "--max-num-batched-tokens",
                                   rows,
                                   "--kv-cache-bytes",
                                   kv,
                                   "--deterministic",
                                   how->deterministic ? "on" : "off",
                                   "--backoff-ms",
                                   "1",
                                   "--backoff-max-ms",
                                   "1",
                                   "--hang-step-ms",
                                   v->is_dry_run ? "100000" : "2000",
                                   "--gpu-retry-ms",
                                   "50",
                                   "--gpu-retry-max-ms",
                                   "1000",
                                   "--prefix-cache",
                                   how->has_prefixes ? "on" : "off",
                                   "--kv-host-bytes",
                                   host,
                                   "--kv-page-tokens",
                                   page_tokens,
                                   "--max-model-len",
                                   model_len,
                                   "--max-num-seqs",
                                   "16" };
    int fd;

    program_path(init, sizeof init, "llm-init");
    program_path(llmd, sizeof llmd, "llmd");
    snprintf(tp_size, sizeof tp_size, "%d", how->tp_size);
    snprintf(rows, sizeof rows, "%u", how->rows_max);
    snprintf(kv, sizeof kv, "%llu", (unsigned long long)how->kv_bytes);
    snprintf(host, sizeof host, "%llu", (unsigned long long)how->host_bytes);
    snprintf(page_tokens, sizeof page_tokens, "%u", how->page_tokens > 0 ? how->page_tokens : 16);
    snprintf(model_len, sizeof model_len, "%u", how->model_len);
    settings_path(s, settings);
    show_gpus(v, how->tp_size);
    log_path(s, log);
    fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* nothing of it outlives us */
    execv(how->has_init ? init : llmd, (char *const *)(uintptr_t)(how->has_init ? argv : argv + 2));
    _exit(127);
}

/* ---- asking llmd ---- */

/* NULL: nobody answers.  frame_free_body(). */
static Llmd__CtlReply *ask(const struct service *s)
{
    return control_ask(s->dir, LLMD__CTL_COMMAND__CTL_STATUS, ASK_MS);
}

pid_t service_pid(const struct service *s, const char *process)
{
    Llmd__CtlReply *reply = ask(s);
    pid_t pid = control_pid_of(reply, process);

    frame_free_body(reply);
    return pid;
}

bool service_look(const struct service *s, struct service_state *out)
{
    Llmd__CtlReply *reply = ask(s);

    if (!reply || !reply->status) {
        frame_free_body(reply);
        return false;
    }
    *out = (struct service_state){ .is_ready = control_says_ready(reply),
                                   .llmd = control_pid_of(reply, "llmd") };
    for (size_t i = 0; i < reply->status->n_processes; i++) {
        const Llmd__ProcessStatus *p = reply->status->processes[i];
        out->restarts += p->restarts;
        if (strcmp(p->name, "worker 0.0") == 0)
            snprintf(out->last_exit, sizeof out->last_exit, "%.79s", p->last_exit);
    }
    if (reply->status->n_groups > 0)
        out->epoch = reply->status->groups[0]->epoch;
    frame_free_body(reply);
    return true;
}

void service_set_fault_points(const struct service *s, const char *spec)
{
    pid_t llmd = service_pid(s, "llmd");

    write_settings(s, spec);
    if (llmd > 0)
        kill(llmd, SIGHUP);
}

/* It stays to be waited for. */
static bool has_died(const struct service *s)
{
    siginfo_t info = { 0 };

    return waitid(P_PID, (id_t)s->root, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == s->root;
}

bool service_wait_ready(const struct service *s, int limit_ms)
{
    uint64_t end_ns = clock_mono_ns() + (uint64_t)limit_ms * NS_PER_MS;
    struct service_state now;

    while (!service_look(s, &now) || !now.is_ready) {
        if (clock_mono_ns() > end_ns || has_died(s))
            return false;
        usleep(NAP_US);
    }
    return true;
}

static int port_of(const struct service *s)
{
    Llmd__CtlReply *reply = ask(s);
    int port = control_port_of(reply);

    frame_free_body(reply);
    return port;
}

/* ---- start and stop ---- */

static void report_log(const struct service *s, struct item_report *r)
{
    char path[96], line[512], last[512] = "it has said nothing";
    FILE *f;

    log_path(s, path);
    f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f))
        snprintf(last, sizeof last, "%s", line);
    if (f)
        fclose(f);
    last[strcspn(last, "\n")] = '\0';
    report_failure(r, "llmd does not come up: %.200s", last);
}

bool service_start(struct service *s, const struct verify *v, const struct service_setup *how,
                   struct item_report *r)
{
    *s = (struct service){ .dir = "/tmp/llmd-verify-XXXXXX" };
    if (!programs_are_there(r))
        return false;
    if (!mkdtemp(s->dir)) {
        report_failure(r, "no folder '%s'", s->dir);
        return false;
    }
    write_settings(s, "");
    fflush(NULL);
    s->root = fork();
    if (s->root == 0)
        run(s, v, how);
    if (s->root > 0 && service_wait_ready(s, START_MS) && (s->port = port_of(s)) > 0)
        return true;
    report_log(s, r);
    service_stop(s);
    return false;
}

static bool has_ended(const struct service *s, int limit_ms)
{
    for (int ms = 0; ms < limit_ms; ms += 5) {
        if (waitpid(s->root, NULL, WNOHANG) != 0)
            return true;
        usleep(5000);
    }
    return false;
}

void service_stop(struct service *s)
{
    char log[96], settings[96];

    if (s->root > 0) {
        kill(s->root, SIGTERM);
        if (!has_ended(s, STOP_MS)) {
            kill(s->root, SIGKILL);
            waitpid(s->root, NULL, 0);
        }
    }
    if (s->dir[0]) {
        log_path(s, log);
        unlink(log);
        settings_path(s, settings);
        unlink(settings);
        rmdir(s->dir);
    }
    *s = (struct service){ 0 };
}
