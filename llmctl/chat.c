/* chat.c - `llmctl chat`: one message, or a conversation whose turns are all sent again each time. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/mem.h"
#include "llmctl/answer.h"
#include "llmctl/terminal.h"

struct chat_options {
    struct globals globals;
    struct answer_options answer;
    const char *message; /* NULL: a conversation */
    const char *system;
    bool raw;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct chat_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        state->child_inputs[1] = &o->answer;
        return 0;
    case 'r':
        o->raw = true;
        return 0;
    case 'y':
        o->system = arg;
        return 0;
    case ARGP_KEY_ARG:
        if (o->message)
            argp_error(state, "one message only; put it in quotes");
        o->message = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->message && !isatty(STDIN_FILENO))
            argp_error(state, "there is no message, and stdin is no terminal to talk on");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The conversation so far: roles are literals, contents are owned. */
struct history {
    struct turn {
        const char *role;
        char *content;
    } * turns;
    size_t n;
};

static void history_add(struct history *h, const char *role, const char *content)
{
    h->turns = mem_realloc(h->turns, (h->n + 1) * sizeof *h->turns);
    h->turns[h->n++] = (struct turn){ .role = role, .content = mem_strdup(content) };
}

static void history_drop_last(struct history *h)
{
    free(h->turns[--h->n].content);
}

static void history_fini(struct history *h)
{
    while (h->n > 0)
        history_drop_last(h);
    free(h->turns);
}

static void put_body(struct buf *body, const struct history *h, const struct chat_options *o,
                     const char *model)
{
    struct json_writer w = { .out = body };

    jw_object(&w);
    jw_key(&w, "messages");
    jw_array(&w);
    for (size_t i = 0; i < h->n; i++) {
        jw_object(&w);
        jw_key(&w, "role");
        jw_str(&w, h->turns[i].role);
        jw_key(&w, "content");
        jw_str(&w, h->turns[i].content);
        jw_object_end(&w);
    }
    jw_array_end(&w);
    answer_put_options(&w, &o->answer, model);
    jw_object_end(&w);
}

/* Ask with all turns, add the answer as one more.  What was refused is no part of the conversation;
 * what was interrupted is, as far as it was seen. */
static int take_turn(struct history *h, const struct chat_options *o, const struct server *server,
                     const char *message, int stop_fd)
{
    struct answer a = { .raw = o->raw };
    struct buf body = { 0 };
    char url[160];
    int code;

    history_add(h, "user", message);
    snprintf(url, sizeof url, "%s/v1/chat/completions", server->url);
    put_body(&body, h, o, server->model);
    code = answer_stream(&a, url, &body, stop_fd);
    if (!o->raw)
        putchar('\n');
    fflush(stdout);
    if (o->answer.stats)
        answer_print_stats(&a);
    if (a.text.n > 0)
        history_add(h, "assistant", a.text.data);
    else
        history_drop_last(h);
    answer_fini(&a);
    buf_fini(&body);
    return code;
}

/* The next line that was typed, without its newline; NULL at the end or on Ctrl-C. */
static char *read_line(int stop_fd)
{
    struct pollfd p[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
                           { .fd = stop_fd, .events = POLLIN } };
    char *line = NULL;
    size_t cap = 0;

    fputs("> ", stdout);
    fflush(stdout);
    poll(p, 2, -1); /* a terminal gives whole lines */
    if ((p[1].revents & POLLIN) || getline(&line, &cap, stdin) < 0) {
        free(line);
        putchar('\n');
        return NULL;
    }
    line[strcspn(line, "\n")] = '\0';
    return line;
}

static void converse(struct history *h, const struct chat_options *o, const struct server *server,
                     int stop_fd)
{
    char *line;

    fprintf(stderr, "Talking to %s. An empty line or Ctrl-D ends; Ctrl-C stops an answer.\n",
            server->model);
    while ((line = read_line(stop_fd)) && line[0]) {
        take_turn(h, o, server, line, stop_fd);
        terminal_was_interrupted(stop_fd); /* it ended the answer, not the conversation */
        free(line);
    }
    free(line);
}

static const struct argp_option chat_option_list[] = {
    { "raw", 'r', 0, 0, "Write the bytes of the answer and nothing else", 0 },
    { "system", 'y', "TEXT", 0, "System message in front of the conversation", 0 },
    { 0 },
};
static const struct argp_child chat_children[] = { { &global_argp, 0, NULL, 0 },
                                                   { &answer_argp, 0, NULL, 0 },
                                                   { 0 } };
const struct argp chat_argp = {
    .options = chat_option_list,
    .parser = parse,
    .args_doc = "[MESSAGE]",
    .doc = "Send one message to the served model, or talk with it when there is none.",
    .children = chat_children,
};

int chat_command(int argc, char **argv, struct globals g)
{
    struct chat_options o = { .globals = g };
    struct history h = { 0 };
    struct server server;
    int code, stop_fd;

    command_parse(&chat_argp, argc, argv, &o);
    code = answer_find_server(&o.globals, &server);
    if (code != CTL_EXIT_OK)
        return code;
    stop_fd = terminal_catch_interrupt();
    if (o.system)
        history_add(&h, "system", o.system);
    if (o.message)
        code = take_turn(&h, &o, &server, o.message, stop_fd);
    else
        converse(&h, &o, &server, stop_fd);
    history_fini(&h);
    close(stop_fd);
    return code;
}
