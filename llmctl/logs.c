/* logs.c - `llmctl logs`: the last lines of each process, as they stand on llmd's board, and with -f those
 * that come.
 *
 * Following asks again every FOLLOW_MS: llmd keeps the last lines only, so what comes faster than they can
 * hold is told to be missing, never passed over in silence.  A server that is away may come back. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/mem.h"
#include "llmctl/command.h"
#include "llmctl/log_text.h"
#include "llmctl/terminal.h"

enum { FOLLOW_MS = 250, KEY_LEVEL = 256, KEY_SINCE, KEY_REQUEST };

struct logs_options {
    struct globals globals;
    bool json, follow;
    char process[64];
    size_t lines_max;
    struct log_filter filter;
};

/* "worker 0.0" may come as one word or as two. */
static void add_word(struct logs_options *o, const char *word, struct argp_state *state)
{
    size_t n = strlen(o->process);

    if (n + strlen(word) + 2 > sizeof o->process)
        argp_error(state, "there is no process with such a long name");
    snprintf(o->process + n, sizeof o->process - n, "%s%s", n ? " " : "", word);
}

static enum log_level level_of(struct argp_state *state, const char *arg)
{
    static const char *const names[] = { "error", "warning", "info", "debug" };

    for (int i = 0; i <= LOG_DEBUG; i++)
        if (strcmp(arg, names[i]) == 0)
            return (enum log_level)i;
    argp_error(state, "--level: '%s' is not error, warning, info or debug", arg);
    return LOG_DEBUG;
}

/* "90", "90s", "5m", "2h", "1d" ago, as Unix milliseconds. */
static uint64_t since_of(struct argp_state *state, const char *arg)
{
    static const struct {
        const char *unit;
        uint64_t s;
    } units[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 } };
    uint64_t now_ms = clock_wall_ns() / NS_PER_MS;
    char *end;
    unsigned long long v;

    errno = 0;
    v = strtoull(arg, &end, 10);
    for (size_t i = 0; i < 5; i++)
        if (arg[0] >= '0' && arg[0] <= '9' && !errno && strcmp(end, units[i].unit) == 0 &&
            v < now_ms / 1000 / units[i].s)
            return now_ms - v * units[i].s * 1000;
    argp_error(state, "--since: '%s' is not a time like 90s, 5m, 2h or 1d", arg);
    return 0;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct logs_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case ARGP_KEY_ARG:
        add_word(o, arg, state);
        return 0;
    case 'n':
        o->lines_max = command_number(state, "--lines", arg, 0, 1000000);
        return 0;
    case 'f':
        o->follow = true;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    case KEY_LEVEL:
        o->filter.level_max = level_of(state, arg);
        return 0;
    case KEY_SINCE:
        o->filter.since_ms = since_of(state, arg);
        return 0;
    case KEY_REQUEST:
        o->filter.text = arg;
        return 0;
    case ARGP_KEY_END:
        if (o->lines_max == 0 && !o->follow)
            argp_error(state, "--lines: 0 is for --follow");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- once ---- */

/* The lines that pass, the last `lines_max` of them; *lines: caller frees, the strings are borrowed. */
static size_t pick(const Llmd__ProcessLog *log, const struct logs_options *o, char ***lines)
{
    char **kept = mem_zalloc(log->n_lines + 1, sizeof *kept);
    size_t n = 0, first;

    for (size_t i = 0; i < log->n_lines; i++)
        if (log_text_passes(log->lines[i], &o->filter))
            kept[n++] = log->lines[i];
    first = n > o->lines_max ? n - o->lines_max : 0;
    memmove(kept, kept + first, (n - first) * sizeof *kept);
    *lines = kept;
    return n - first;
}

static void put_line(struct buf *out, const char *line)
{
    unsigned char held = 0;

    terminal_add_safe(out, line, strlen(line), &held);
    buf_add_char(out, '\n');
}

static void put_json_log(struct json_writer *w, const char *process, char *const *lines, size_t n)
{
    jw_object(w);
    jw_key(w, "process");
    jw_str(w, process);
    jw_key(w, "lines");
    jw_array(w);
    for (size_t i = 0; i < n; i++)
        jw_str(w, lines[i]);
    jw_array_end(w);
    jw_object_end(w);
}

static void put_text_log(struct buf *out, const char *process, char *const *lines, size_t n,
                         bool titled)
{
    if (titled) {
        if (out->n > 0)
            buf_add_char(out, '\n');
        terminal_add(out, process, TINT_TITLE, terminal_has_colours(STDOUT_FILENO));
        buf_add_char(out, '\n');
    }
    for (size_t i = 0; i < n; i++)
        put_line(out, lines[i]);
}

static void put_all(struct buf *out, const Llmd__CtlReply *reply, const struct logs_options *o)
{
    struct json_writer w = { .out = out };

    if (o->json)
        jw_array(&w);
    for (size_t i = 0; i < reply->n_logs; i++) {
        char **lines;
        size_t n = pick(reply->logs[i], o, &lines);
        if (o->json)
            put_json_log(&w, reply->logs[i]->process, lines, n);
        else
            put_text_log(out, reply->logs[i]->process, lines, n, reply->n_logs > 1);
        free(lines);
    }
    if (o->json) {
        jw_array_end(&w);
        buf_add_char(out, '\n');
    }
}

static int ask(const struct logs_options *o, struct control_msg *reply)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;

    request.command = LLMD__CTL_COMMAND__CTL_LOGS;
    request.process = (char *)(uintptr_t)o->process;
    return command_ask(&o->globals, &request, reply);
}

static int show_once(const struct logs_options *o)
{
    struct control_msg reply;
    struct buf out = { 0 };
    int code = ask(o, &reply);

    if (code != CTL_EXIT_OK)
        return code;
    put_all(&out, command_reply(&reply), o);
    if (out.n > 0)
        fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}

/* ---- following ---- */

struct fresh {
    const char *process, *line; /* borrowed from the reply */
    uint64_t ms;
    size_t order;
};

struct fresh_list {
    struct fresh *all;
    size_t n, cap;
};

static void add_fresh(struct fresh_list *f, const char *process, const char *line)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 64;
        f->all = mem_realloc(f->all, f->cap * sizeof *f->all);
    }
    f->all[f->n] =
        (struct fresh){ .process = process, .line = line, .ms = log_text_ms(line), .order = f->n };
    f->n++;
}

/* By time; lines without one stay where they are. */
static int by_time(const void *a, const void *b)
{
    const struct fresh *x = a, *y = b;

    if (x->ms && y->ms && x->ms != y->ms)
        return x->ms < y->ms ? -1 : 1;
    return (x->order > y->order) - (x->order < y->order);
}

static const Llmd__ProcessLog *log_of(const Llmd__CtlReply *reply, const char *process)
{
    for (size_t i = 0; i < reply->n_logs; i++)
        if (strcmp(reply->logs[i]->process, process) == 0)
            return reply->logs[i];
    return NULL;
}

static void gather(struct fresh_list *f, const Llmd__CtlReply *before, const Llmd__CtlReply *now)
{
    for (size_t i = 0; i < now->n_logs; i++) {
        const Llmd__ProcessLog *log = now->logs[i], *old = log_of(before, log->process);
        bool lost;
        uint64_t n = log_text_new(old ? old->lines : NULL, old ? old->n_lines : 0, log->lines,
                                  log->n_lines, &lost);
        if (lost)
            fprintf(stderr, "llmctl: lines of %s may be missing: they came too fast\n",
                    log->process);
        for (uint64_t k = log->n_lines - n; k < log->n_lines; k++)
            add_fresh(f, log->process, log->lines[k]);
    }
}

static void put_fresh(struct buf *out, const struct fresh *f, const struct logs_options *o)
{
    struct json_writer w = { .out = out };

    if (!log_text_passes(f->line, &o->filter))
        return;
    if (!o->json) {
        put_line(out, f->line);
        return;
    }
    jw_object(&w);
    jw_key(&w, "process");
    jw_str(&w, f->process);
    jw_key(&w, "line");
    jw_str(&w, f->line);
    jw_object_end(&w);
    buf_add_char(out, '\n');
}

/* Show what is new since `before`; at first, when there is nothing before, the last lines of all. */
static void show_new(const struct logs_options *o, const Llmd__CtlReply *before,
                     const Llmd__CtlReply *now, bool is_first)
{
    struct fresh_list f = { 0 };
    struct buf out = { 0 };

    gather(&f, before, now);
    if (f.n > 0)
        qsort(f.all, f.n, sizeof *f.all, by_time);
    for (size_t i = is_first && f.n > o->lines_max ? f.n - o->lines_max : 0; i < f.n; i++)
        put_fresh(&out, &f.all[i], o);
    if (out.n > 0)
        fwrite(out.data, 1, out.n, stdout);
    fflush(stdout);
    buf_fini(&out);
    free(f.all);
}

/* Told once each time it goes away, not at every try. */
static bool ask_again(const struct logs_options *o, const struct client *c,
                      struct control_msg *reply, bool *was_away)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    struct err e;

    request.command = LLMD__CTL_COMMAND__CTL_LOGS;
    request.process = (char *)(uintptr_t)o->process;
    if (client_call(c, &request, reply, &e) == CLIENT_OK) {
        *was_away = false;
        return true;
    }
    if (!*was_away)
        fprintf(stderr, "llmctl: %s; waiting for it\n", e.msg);
    *was_away = true;
    return false;
}

static int follow(const struct logs_options *o)
{
    Llmd__CtlReply none = LLMD__CTL_REPLY__INIT;
    struct control_msg before, now;
    int interrupt_fd = terminal_catch_interrupt(), code = ask(o, &before);
    bool was_away = false;
    struct client c;

    if (code != CTL_EXIT_OK || !client_find(&c, o->globals.runtime_dir, NULL)) {
        close(interrupt_fd);
        return code;
    }
    show_new(o, &none, command_reply(&before), true);
    while (terminal_sleep(interrupt_fd, FOLLOW_MS)) {
        if (!ask_again(o, &c, &now, &was_away))
            continue;
        show_new(o, command_reply(&before), command_reply(&now), false);
        control_msg_fini(&before);
        before = now;
    }
    control_msg_fini(&before);
    close(interrupt_fd);
    return CTL_EXIT_OK;
}

static const struct argp_option logs_option_list[] = {
    { "lines", 'n', "N", 0,
      "The last N lines of each process only; with --follow, N lines of all to begin with", 0 },
    { "follow", 'f', 0, 0, "Go on with the lines that come, until interrupted", 0 },
    { "level", KEY_LEVEL, "error|warning|info|debug", 0, "This level and graver ones", 0 },
    { "since", KEY_SINCE, "TIME", 0, "Of the last 90s, 5m, 2h or 1d", 0 },
    { "request", KEY_REQUEST, "ID", 0, "Lines that name this request, or hold any other text", 0 },
    { "json", 'j', 0, 0,
      "One JSON array of {process, lines}; with --follow, {process, line} for each line", 0 },
    { 0 },
};
const struct argp logs_argp = {
    .options = logs_option_list,
    .parser = parse,
    .args_doc = "[PROCESS]",
    .doc = "Show the last lines that each process logged, or PROCESS alone, by its name in `llmctl "
           "status`. The lines of a process that died are still there.",
    .children = global_options,
};

int logs_command(int argc, char **argv, struct globals g)
{
    struct logs_options o = { .globals = g,
                              .lines_max = SIZE_MAX,
                              .filter = { .level_max = LOG_DEBUG } };

    command_parse(&logs_argp, argc, argv, &o);
    return o.follow ? follow(&o) : show_once(&o);
}
