/* main.c - llmctl, the operator's command line: finds the command and runs it.
 *
 * It asks llmd over control.sock, and the gateway over HTTP like any client; it links nothing of either. */
#include <stdio.h>
#include <string.h>

#include "llmctl/commands.h"

const char *argp_program_version = "llmctl " LLMD_VERSION;
error_t argp_err_exit_status = CTL_EXIT_USAGE;

enum { HELP_COLUMN = 30 };

struct invocation {
    struct globals globals;
    const struct command *command; /* NULL: not named yet */
    int argc;                      /* of the command, its name included */
    char **argv;
};

static error_t parse_main(int key, char *arg, struct argp_state *state)
{
    struct invocation *in = state->input;

    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &in->globals;
        return 0;
    case ARGP_KEY_ARG:
        in->command = command_find(arg);
        if (!in->command)
            argp_error(state, "there is no command '%s'", arg);
        in->argc = state->argc - state->next + 1; /* the rest is the command's */
        in->argv = state->argv + state->next - 1;
        state->next = state->argc;
        return 0;
    case ARGP_KEY_NO_ARGS:
        argp_usage(state);
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* The list of commands, above the options in --help. */
static char *help_filter(int key, const char *text, void *input)
{
    struct buf out = { 0 };

    (void)input;
    if (key != ARGP_KEY_HELP_PRE_DOC)
        return (char *)(uintptr_t)text;
    buf_printf(&out, "%s\n\n", text);
    for (const struct command *c = commands; c->name; c++) {
        int at = (int)(strlen(c->name) + 1 + strlen(c->arguments));
        if (at > HELP_COLUMN)
            buf_printf(&out, "  %s %s\n%*s%s\n", c->name, c->arguments, HELP_COLUMN + 3, "",
                       c->help);
        else
            buf_printf(&out, "  %s %s%*s %s\n", c->name, c->arguments, HELP_COLUMN - at, "",
                       c->help);
    }
    buf_add_str(&out, "\n`llmctl COMMAND --help` tells more.\n");
    return buf_take(&out); /* argp frees it */
}

static const struct argp main_argp = {
    .parser = parse_main,
    .args_doc = "COMMAND [ARGUMENT...]",
    .doc = "llmctl - ask and steer a running llmd"
           "\vExit codes: 0 done; 1 the server says no; 2 wrong usage; 3 no server reachable; 130 "
           "interrupted. `wait`: 0 ready; 1 failed; 2 timeout.",
    .children = global_options,
    .help_filter = help_filter,
};

int main(int argc, char **argv)
{
    struct invocation in = { 0 };
    char name[64];

    argp_parse(&main_argp, argc, argv, ARGP_IN_ORDER, NULL, &in);
    snprintf(name, sizeof name, "llmctl %s", in.command->name);
    in.argv[0] = name;
    return in.command->run(in.argc, in.argv, in.globals);
}
