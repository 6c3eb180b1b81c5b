/* generate.c - `llmctl generate`: continue a text with the served model, as any client would. */
#include <stdio.h>
#include <unistd.h>

#include "common/json.h"
#include "llmctl/answer.h"
#include "llmctl/terminal.h"

struct generate_options {
    struct globals globals;
    struct answer_options answer;
    const char *prompt;
    bool raw;
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct generate_options *o = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        state->child_inputs[1] = &o->answer;
        return 0;
    case 'r':
        o->raw = true;
        return 0;
    case ARGP_KEY_ARG:
        if (o->prompt)
            argp_error(state, "one prompt only; put it in quotes");
        o->prompt = arg;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_error(state, "there is no prompt");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static void put_body(struct buf *body, const struct generate_options *o, const char *model)
{
    struct json_writer w = { .out = body };

    jw_object(&w);
    jw_key(&w, "prompt");
    jw_str(&w, o->prompt);
    answer_put_options(&w, &o->answer, model);
    jw_object_end(&w);
}

static void show_prompt(const char *prompt)
{
    struct buf out = { 0 };

    terminal_add(&out, prompt, TINT_DIM, terminal_has_colours(STDOUT_FILENO));
    fwrite(out.data, 1, out.n, stdout);
    fflush(stdout);
    buf_fini(&out);
}

static const struct argp_option generate_option_list[] = {
    { "raw", 'r', 0, 0, "Write the bytes of the answer and nothing else: no prompt, no newline",
      0 },
    { 0 },
};
static const struct argp_child generate_children[] = { { &global_argp, 0, NULL, 0 },
                                                       { &answer_argp, 0, NULL, 0 },
                                                       { 0 } };
const struct argp generate_argp = {
    .options = generate_option_list,
    .parser = parse,
    .args_doc = "PROMPT",
    .doc = "Continue a text with the served model and write it to stdout as it comes. Ctrl-C "
           "stops it.",
    .children = generate_children,
};

int generate_command(int argc, char **argv, struct globals g)
{
    struct generate_options o = { .globals = g };
    struct answer a = { 0 };
    struct buf body = { 0 };
    char url[160];
    struct server server;
    int code, stop_fd;

    command_parse(&generate_argp, argc, argv, &o);
    code = answer_find_server(&o.globals, &server);
    if (code != CTL_EXIT_OK)
        return code;
    stop_fd = terminal_catch_interrupt();
    snprintf(url, sizeof url, "%s/v1/completions", server.url);
    put_body(&body, &o, server.model);
    if (!o.raw)
        show_prompt(o.prompt);
    a.raw = o.raw;
    code = answer_stream(&a, url, &body, stop_fd);
    if (!o.raw)
        putchar('\n');
    fflush(stdout);
    if (o.answer.stats)
        answer_print_stats(&a);
    answer_fini(&a);
    buf_fini(&body);
    close(stop_fd);
    return code;
}
