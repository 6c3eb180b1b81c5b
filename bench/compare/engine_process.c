#include "bench/compare/engine_process.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

enum { LINE_BYTES = 1024 };

/* ---- the child ---- */

static bool read_line(FILE *in, char *line, size_t n)
{
    if (!fgets(line, (int)n, in))
        return false;
    line[strcspn(line, "\n")] = '\0';
    return true;
}

static void serve(struct workload *w, FILE *in, FILE *out)
{
    char command[LINE_BYTES], answer[LINE_BYTES];

    while (read_line(in, command, sizeof command) &&
           workload_run(w, command, answer, sizeof answer)) {
        fprintf(out, "%s\n", answer);
        fflush(out);
    }
}

static _Noreturn void child_main(int fd, pid_t parent, const struct engine_class *class,
                                 const struct engine_options *o)
{
    struct workload w = { .class = class,
                          .seqs_max = o->seqs_max,
                          .tokens_alone = o->tokens_alone,
                          .tokens_a_seq = o->tokens_a_seq,
                          .cpu_clock = o->cpu_clock };
    FILE *in = fdopen(fd, "r"), *out = fdopen(dup(fd), "w");
    struct err e;

    log_set_level(LOG_WARNING); /* the output is a table */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || !in || !out)
        _exit(1);
    w.engine = class->open(o, &w.info, &e);
    if (w.engine)
        fprintf(out, "ok %u\n%s\n%s\n", w.info.vocab_size, w.info.version, w.info.variant);
    else
        fprintf(out, "error %s\n", e.msg);
    fflush(out);
    if (w.engine)
        serve(&w, in, out);
    class->close(w.engine);
    _exit(0);
}

/* ---- the parent ---- */

/* One byte at a time: answers are few and short, and nothing may be read beyond the line. */
static bool receive_line(struct engine_process *p, char *line, size_t n, struct err *e)
{
    size_t used = 0;

    while (used + 1 < n) {
        ssize_t got = read(p->fd, line + used, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return err_set(e, ERR_SYS, got < 0 ? errno : ECONNRESET, "%s ended", p->class->name);
        if (line[used] == '\n')
            break;
        used++;
    }
    line[used] = '\0';
    return true;
}

static bool receive_answer(struct engine_process *p, char *answer, size_t n, struct err *e)
{
    char line[LINE_BYTES];

    if (!receive_line(p, line, sizeof line, e))
        return false;
    if (strncmp(line, "ok", 2) != 0)
        return err_set(e, ERR_DEVICE, 0, "%s: %.200s", p->class->name, line);
    snprintf(answer, n, "%s", line[2] ? line + 3 : "");
    return true;
}

static bool receive_info(struct engine_process *p, struct err *e)
{
    char vocab_size[32];

    if (!receive_answer(p, vocab_size, sizeof vocab_size, e) ||
        !receive_line(p, p->info.version, sizeof p->info.version, e) ||
        !receive_line(p, p->info.variant, sizeof p->info.variant, e))
        return false;
    p->info.vocab_size = (uint32_t)strtoul(vocab_size, NULL, 10);
    return true;
}

bool engine_process_open(struct engine_process *p, const struct engine_class *class,
                         const struct engine_options *o, struct err *e)
{
    pid_t parent = getpid();
    int fds[2];

    *p = (struct engine_process){ .class = class, .fd = -1 };
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return err_set(e, ERR_SYS, errno, "socketpair");
    fflush(NULL);
    p->pid = fork();
    if (p->pid == 0) {
        /* The other engine's socket too: while a copy is open here, it never reads end of file. */
        if (fds[1] > 3)
            close_range(3, (unsigned)fds[1] - 1, 0);
        close_range((unsigned)fds[1] + 1, ~0u, 0);
        child_main(fds[1], parent, class, o);
    }
    close(fds[1]);
    p->fd = fds[0];
    if (p->pid < 0) {
        p->pid = 0;
        close(p->fd);
        return err_set(e, ERR_SYS, errno, "fork");
    }
    if (!receive_info(p, e)) {
        engine_process_close(p);
        return false;
    }
    return true;
}

void engine_process_close(struct engine_process *p)
{
    if (!p->pid)
        return;
    close(p->fd); /* it reads end of file, and ends */
    while (waitpid(p->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    p->pid = 0;
}

bool engine_process_ask(struct engine_process *p, const char *command, char *answer, size_t n,
                        struct err *e)
{
    char line[LINE_BYTES];
    int used = snprintf(line, sizeof line, "%s\n", command);

    if (send(p->fd, line, (size_t)used, MSG_NOSIGNAL) != used)
        return err_set(e, ERR_SYS, errno, "%s", p->class->name);
    return receive_answer(p, answer, n, e);
}
