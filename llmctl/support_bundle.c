/* support_bundle.c - `llmctl support-bundle`: facts about server and host as one file, for whoever helps.
 *
 * Most of them are what llmctl itself says: each is run as its own command, so that one that fails or hangs up
 * leaves the others.  Everything passes redact.c.  Never in it: command lines and environments (keys stand
 * there), the file of API keys, prompts and answers. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "llmctl/answer.h"
#include "llmctl/command.h"
#include "llmctl/http.h"
#include "llmctl/redact.h"
#include "llmctl/terminal.h"

enum { FILE_BYTES_MAX = 4 << 20, NAME_BYTES = 128, WORDS_MAX = 8 };

struct bundle {
    struct globals globals;
    const char *out;
    bool json;
    char name[64];          /* of the folder inside */
    char dir[PATH_MAX / 2]; /* being filled: TMP/NAME */
    char temporary[PATH_MAX / 2];
    struct buf contents, list; /* README's lines; a JSON array's inside */
    struct json_writer w;      /* into list */
};

/* ---- one file ---- */

static void note(struct bundle *b, const char *name, const char *what, size_t n)
{
    buf_printf(&b->contents, "%-28s %8zu bytes  %s\n", name, n, what);
    jw_object(&b->w);
    jw_key(&b->w, "name");
    jw_str(&b->w, name);
    jw_key(&b->w, "bytes");
    jw_uint(&b->w, n);
    jw_key(&b->w, "what");
    jw_str(&b->w, what);
    jw_object_end(&b->w);
}

static void write_file(struct bundle *b, const char *name, const char *what, const char *text,
                       size_t n)
{
    char path[PATH_MAX];
    struct buf clean = { 0 };
    FILE *f;

    snprintf(path, sizeof path, "%s/%s", b->dir, name);
    redact_add(&clean, text, n);
    f = fopen(path, "we");
    if (f) {
        fwrite(clean.data, 1, clean.n, f);
        fclose(f);
        note(b, name, what, clean.n);
    }
    buf_fini(&clean);
}

static void read_stream(int fd, struct buf *out)
{
    char bytes[1 << 14];
    ssize_t n;

    while (out->n < FILE_BYTES_MAX &&
           ((n = read(fd, bytes, sizeof bytes)) > 0 || (n < 0 && errno == EINTR)))
        if (n > 0)
            buf_add(out, bytes, (size_t)n);
}

/* A file of the system; one that is not there is left out. */
static void copy_file(struct bundle *b, const char *path, const char *name)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct buf text = { 0 };

    if (fd < 0)
        return;
    read_stream(fd, &text);
    close(fd);
    if (text.n > 0)
        write_file(b, name, path, text.data, text.n);
    buf_fini(&text);
}

/* ---- what llmctl says ---- */

static pid_t start_self(char *const *words, int *from)
{
    pid_t parent = getpid(), pid;
    int out[2];

    if (pipe(out) < 0)
        return -1;
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent && dup2(out[1], STDOUT_FILENO) >= 0 &&
            dup2(out[1], STDERR_FILENO) >= 0) {
            close(out[0]);
            close(out[1]);
            execv("/proc/self/exe", words);
        }
        _exit(127);
    }
    close(out[1]);
    *from = out[0];
    if (pid < 0)
        close(out[0]);
    return pid;
}

static void run_self(struct bundle *b, const char *name, const char *const *arguments)
{
    char *words[WORDS_MAX + 1] = { (char *)(uintptr_t) "llmctl" }, what[NAME_BYTES] = "llmctl";
    struct buf text = { 0 };
    int n = 1, from = -1;
    pid_t pid;

    if (b->globals.runtime_dir) {
        words[n++] = (char *)(uintptr_t) "--runtime-dir";
        words[n++] = (char *)(uintptr_t)b->globals.runtime_dir;
    }
    for (; *arguments && n < WORDS_MAX; arguments++) {
        words[n++] = (char *)(uintptr_t)*arguments;
        snprintf(what + strlen(what), sizeof what - strlen(what), " %s", *arguments);
    }
    pid = start_self(words, &from);
    if (pid < 0)
        return;
    read_stream(from, &text);
    close(from);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
    write_file(b, name, what, text.n ? text.data : "", text.n);
    buf_fini(&text);
}

static void gather_answers(struct bundle *b)
{
    static const struct {
        const char *name;
        const char *const arguments[3];
    } all[] = {
        { "version.txt", { "version" } },          { "status.json", { "status", "--json" } },
        { "config.json", { "config", "--json" } }, { "requests.json", { "requests", "--json" } },
        { "logs.json", { "logs", "--json" } },     { "doctor.json", { "doctor", "--json" } },
    };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        run_self(b, all[i].name, all[i].arguments);
}

/* ---- of the server ---- */

static bool add_to(void *arg, const char *bytes, size_t n)
{
    struct buf *out = arg;

    buf_add(out, bytes, n);
    return out->n < FILE_BYTES_MAX;
}

static void gather_metrics(struct bundle *b, const char *base)
{
    struct buf page = { 0 }, refusal = { 0 };
    char url[192];
    struct http_post get = { .url = url,
                             .api_key = getenv("LLMD_API_KEY"),
                             .stop_fd = -1,
                             .timeout_s = 5,
                             .on_body = add_to,
                             .arg = &page };
    struct err e = { 0 };
    long status = 0;

    snprintf(url, sizeof url, "%s/metrics", base);
    if (http_post(&get, &refusal, &status, &e) == HTTP_OK && page.n > 0)
        write_file(b, "metrics.txt", "GET /metrics", page.data, page.n);
    else {
        buf_clear(&page);
        buf_printf(&page, "no page: HTTP %ld %s\n", status, e.msg);
        write_file(b, "metrics.txt", "GET /metrics failed", page.data, page.n);
    }
    buf_fini(&page);
    buf_fini(&refusal);
}

static void gather_process(struct bundle *b, const Llmd__ProcessStatus *p)
{
    static const char *const files[] = { "status", "limits", "smaps_rollup", "cgroup" };
    char path[64], name[NAME_BYTES], process[40];

    snprintf(process, sizeof process, "%.30s", p->name);
    for (char *c = process; *c; c++)
        if (*c == ' ' || *c == '/')
            *c = '-';
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%u/%s", p->pid, files[i]);
        snprintf(name, sizeof name, "%s.%s.txt", process, files[i]);
        copy_file(b, path, name);
    }
}

static void gather_server(struct bundle *b)
{
    struct control_msg reply;
    const Llmd__Status *s;
    struct client c;
    char url[128];

    if (!client_find(&c, b->globals.runtime_dir, NULL) ||
        client_ask_status(&c, &reply, NULL) != CLIENT_OK)
        return;
    s = command_reply(&reply)->status;
    if (s && answer_url(s, url, sizeof url))
        gather_metrics(b, url);
    for (size_t i = 0; s && i < s->n_processes; i++)
        if (s->processes[i]->pid)
            gather_process(b, s->processes[i]);
    if (s && s->model[0])
        run_self(b, "model.json",
                 (const char *const[]){ "model", "inspect", s->model, "--json", NULL });
    control_msg_fini(&reply);
}

/* ---- of the host ---- */

static void gather_host(struct bundle *b)
{
    static const char *const files[] = {
        "/etc/os-release",
        "/proc/version",
        "/proc/meminfo",
        "/proc/cpuinfo",
        "/proc/loadavg",
        "/proc/uptime",
        "/proc/pressure/cpu",
        "/proc/pressure/memory",
        "/proc/pressure/io",
        "/proc/self/cgroup",
        "/proc/self/limits",
        "/proc/driver/nvidia/version",
        "/proc/sys/vm/nr_hugepages",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/swappiness",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/kernel/mm/transparent_hugepage/shmem_enabled",
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/memory.current",
        "/sys/fs/cgroup/memory.events",
        "/sys/fs/cgroup/cpu.max",
        "/sys/fs/cgroup/cpu.stat",
        "/sys/devices/system/node/online",
    };
    char name[NAME_BYTES];

    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(name, sizeof name, "host%s.txt", files[i]);
        for (char *c = name; *c; c++)
            if (*c == '/')
                *c = '-';
        copy_file(b, files[i], name);
    }
}

/* ---- the whole ---- */

static bool open_bundle(struct bundle *b, struct err *e)
{
    const char *tmp = getenv("TMPDIR");
    time_t now = time(NULL);
    struct tm tm;

    umask(077);
    gmtime_r(&now, &tm);
    strftime(b->name, sizeof b->name, "llmd-support-%Y%m%d-%H%M%S", &tm);
    if (snprintf(b->temporary, sizeof b->temporary, "%s/llmd-support-XXXXXX",
                 tmp && tmp[0] ? tmp : "/tmp") >= (int)sizeof b->temporary - 64 ||
        !mkdtemp(b->temporary))
        return err_set(e, ERR_SYS, errno, "make a folder in '%.100s'",
                       tmp && tmp[0] ? tmp : "/tmp");
    snprintf(b->dir, sizeof b->dir, "%s/%s", b->temporary, b->name);
    b->w.out = &b->list;
    return mkdir(b->dir, 0700) == 0 || err_set(e, ERR_SYS, errno, "make '%s'", b->dir);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static void close_bundle(struct bundle *b)
{
    if (b->temporary[0])
        nftw(b->temporary, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    buf_fini(&b->contents);
    buf_fini(&b->list);
}

static void write_readme(struct bundle *b)
{
    static const char head[] =
        "What this holds, and where it is from. Keys and passwords are taken out by their look and "
        "by\n"
        "their names. Command lines, environments, API keys, prompts and answers are not in it, "
        "unless\n"
        "the log itself was set to hold them. Look through it before you send it.\n\n";
    struct buf text = { 0 };

    buf_add_str(&text, head);
    buf_add(&text, b->contents.data, b->contents.n);
    write_file(b, "README.txt", "this list", text.data, text.n);
    buf_fini(&text);
}

static bool pack(const struct bundle *b, const char *out, struct err *e)
{
    pid_t pid = fork();
    int status = 0;

    if (pid < 0)
        return err_set(e, ERR_SYS, errno, "start tar");
    if (pid == 0) {
        execlp("tar", "tar", "--create", "--gzip", "--file", out, "--directory", b->temporary,
               b->name, (char *)NULL);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return err_set(e, ERR_CONFIG, 0, "tar is not installed: apt-get install tar gzip");
    return status == 0 || err_set(e, ERR_CONFIG, 0, "tar could not write '%.150s'", out);
}

static void tell(const struct bundle *b, const char *out)
{
    struct buf text = { 0 };
    struct json_writer w = { .out = &text };

    if (b->json) {
        jw_object(&w);
        jw_key(&w, "file");
        jw_str(&w, out);
        jw_key(&w, "holds");
        buf_add_char(&text, '[');
        buf_add(&text, b->list.data, b->list.n);
        buf_add_str(&text, "]}\n");
    } else {
        buf_add(&text, b->contents.data, b->contents.n);
        buf_printf(&text, "\n%s; look through it before you send it\n", out);
    }
    fwrite(text.data, 1, text.n, stdout);
    buf_fini(&text);
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct bundle *b = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &b->globals;
        return 0;
    case 'o':
        b->out = arg;
        return 0;
    case 'j':
        b->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option support_bundle_option_list[] = {
    { "output", 'o', "FILE", 0, "Name of the archive (default: llmd-support-TIME.tar.gz here)", 0 },
    { "json", 'j', 0, 0, "One object: {file, holds: [{name, bytes, what}]}", 0 },
    { 0 },
};
const struct argp support_bundle_argp = {
    .options = support_bundle_option_list,
    .parser = parse,
    .doc = "Pack status, settings, last log lines, findings of doctor, metrics, versions and facts "
           "of the "
           "host into one archive, for whoever helps; secrets are taken out."
           "\vIt lists what it holds. It works without a running server too, with what there is.",
    .children = global_options,
};

int support_bundle_command(int argc, char **argv, struct globals g)
{
    static struct bundle b; /* large */
    char out[96];
    struct err e;
    bool ok;

    b.globals = g;
    command_parse(&support_bundle_argp, argc, argv, &b);
    ok = open_bundle(&b, &e);
    if (ok) {
        gather_answers(&b);
        gather_server(&b);
        gather_host(&b);
        write_readme(&b);
        snprintf(out, sizeof out, "%s.tar.gz", b.name);
        ok = pack(&b, b.out ? b.out : out, &e);
    }
    if (ok)
        tell(&b, b.out ? b.out : out);
    else
        command_complain(&e);
    close_bundle(&b);
    return ok ? CTL_EXIT_OK : CTL_EXIT_REFUSED;
}
