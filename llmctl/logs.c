/* logs.c - `llmctl logs`: the last lines of each process, as they stand on llmd's board. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "llmctl/command.h"
#include "llmctl/terminal.h"
#include "proto/message_json.h"

struct logs_options {
    struct globals globals;
    bool json;
    char process[64];
    size_t lines_max;
};

/* "worker 0.0" may come as one word or as two. */
static void add_word(struct logs_options *o, const char *word, struct argp_state *state)
{
    size_t n = strlen(o->process);

    if (n + strlen(word) + 2 > sizeof o->process)
        argp_error(state, "there is no process with such a long name");
    snprintf(o->process + n, sizeof o->process - n, "%s%s", n ? " " : "", word);
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
        o->lines_max = command_number(state, "--lines", arg, 1, 1000000);
        return 0;
    case 'j':
        o->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The log without its first lines; borrows from it. */
static Llmd__ProcessLog last_lines(const Llmd__ProcessLog *log, size_t lines_max)
{
    Llmd__ProcessLog last = *log;
    size_t first = log->n_lines > lines_max ? log->n_lines - lines_max : 0;

    last.lines += first;
    last.n_lines -= first;
    return last;
}

static void put_json(struct buf *out, const Llmd__CtlReply *reply, size_t lines_max)
{
    struct json_writer w = { .out = out };

    jw_array(&w);
    for (size_t i = 0; i < reply->n_logs; i++) {
        Llmd__ProcessLog last = last_lines(reply->logs[i], lines_max);
        message_write_json(&w, &last.base);
    }
    jw_array_end(&w);
    buf_add_char(out, '\n');
}

static void put_text(struct buf *out, const Llmd__CtlReply *reply, size_t lines_max)
{
    bool colours = terminal_has_colours(STDOUT_FILENO);

    for (size_t i = 0; i < reply->n_logs; i++) {
        Llmd__ProcessLog last = last_lines(reply->logs[i], lines_max);
        unsigned char held = 0;
        if (reply->n_logs > 1) {
            if (i > 0)
                buf_add_char(out, '\n');
            terminal_add(out, last.process, TINT_TITLE, colours);
            buf_add_char(out, '\n');
        }
        for (size_t k = 0; k < last.n_lines; k++) {
            terminal_add_safe(out, last.lines[k], strlen(last.lines[k]), &held);
            buf_add_char(out, '\n');
        }
    }
}

int logs_command(int argc, char **argv, struct globals g)
{
    static const struct argp_option options[] = {
        { "lines", 'n', "N", 0, "The last N lines of each process only", 0 },
        { "json", 'j', 0, 0, "One JSON array of {process, lines}", 0 },
        { 0 },
    };
    static const struct argp argp = {
        .options = options,
        .parser = parse,
        .args_doc = "[PROCESS]",
        .doc = "Show the last lines that each process logged, or PROCESS alone, by its name in "
               "`llmctl "
               "status`. The lines of a process that died are still there.",
        .children = global_options,
    };
    struct logs_options o = { .globals = g, .lines_max = SIZE_MAX };
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;
    struct control_msg reply;
    struct buf out = { 0 };
    int code;

    command_parse(&argp, argc, argv, &o);
    request.command = LLMD__CTL_COMMAND__CTL_LOGS;
    request.process = o.process;
    code = command_ask(&o.globals, &request, &reply);
    if (code != CTL_EXIT_OK)
        return code;
    if (o.json)
        put_json(&out, command_reply(&reply), o.lines_max);
    else
        put_text(&out, command_reply(&reply), o.lines_max);
    fwrite(out.data, 1, out.n, stdout);
    buf_fini(&out);
    control_msg_fini(&reply);
    return CTL_EXIT_OK;
}
