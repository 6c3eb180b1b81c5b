/* worker_tool.c - the program lies beside ours, as llmd finds it too. */
#include "llmctl/worker_tool.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORDS_MAX = 16, BAR_COLUMNS = 30 };

static bool find_worker(char path[PATH_MAX], struct err *e)
{
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof "llm-worker");
    char *slash;

    if (n < 0)
        return err_set(e, ERR_SYS, errno, "read /proc/self/exe");
    path[n] = '\0';
    slash = strrchr(path, '/');
    strcpy(slash + 1, "llm-worker");
    return access(path, X_OK) == 0 ||
           err_set(e, ERR_SYS, errno, "program '%s', which llmctl needs beside it", path);
}

static void show_progress(const char *title, double share)
{
    char bar[BAR_COLUMNS + 1];

    if (!isatty(STDERR_FILENO))
        return;
    for (int i = 0; i < BAR_COLUMNS; i++)
        bar[i] = i < share * BAR_COLUMNS ? '#' : '.';
    bar[BAR_COLUMNS] = '\0';
    fprintf(stderr, "\r%s [%s] %3.0f %%\033[K", title, bar, share * 100);
}

/* The last object that is no progress; NULL when there is none. */
static json_t *read_lines(FILE *from, const char *title)
{
    json_t *last = NULL, *v, *progress;
    bool shown = false;
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    while ((n = getline(&line, &cap, from)) > 0) {
        v = json_parse(line, (size_t)n, NULL);
        progress = json_object_get(v, "progress");
        if (json_is_number(progress)) {
            show_progress(title, json_number_value(progress));
            shown = true;
            json_decref(v);
        } else if (v) {
            json_decref(last);
            last = v;
        }
    }
    if (shown && isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    free(line);
    return last;
}

static pid_t start(const char *path, char *const *argv, int *from, struct err *e)
{
    char *words[WORDS_MAX + 3] = { (char *)(uintptr_t)path, (char *)(uintptr_t) "model" };
    pid_t parent = getpid(), pid;
    int out[2], n = 2;

    while (*argv && n < WORDS_MAX + 2)
        words[n++] = *argv++;
    if (pipe(out) < 0 || (pid = fork()) < 0) {
        err_set(e, ERR_SYS, errno, "start '%s'", path);
        return -1;
    }
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGTERM); /* it takes back what is half written */
        if (getppid() == parent && dup2(out[1], STDOUT_FILENO) >= 0) {
            close(out[0]);
            close(out[1]);
            execv(path, words);
        }
        _exit(127);
    }
    close(out[1]);
    *from = out[0];
    return pid;
}

json_t *worker_tool_run(char *const *argv, const char *title, struct err *e)
{
    char path[PATH_MAX];
    int status = 0, from;
    json_t *last;
    pid_t pid;
    FILE *f;

    if (!find_worker(path, e) || (pid = start(path, argv, &from, e)) < 0)
        return NULL;
    f = fdopen(from, "r");
    last = f ? read_lines(f, title) : NULL;
    if (f)
        fclose(f);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (WIFSIGNALED(status) || !last) { /* a model file that shrank while it was read, or a bug */
        err_set(e, ERR_MODEL, 0, "'%s' ended without an answer (%s %d)", path,
                WIFSIGNALED(status) ? "signal" : "exit code",
                WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
        json_decref(last);
        return NULL;
    }
    return last;
}
