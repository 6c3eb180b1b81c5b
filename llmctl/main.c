/* main.c - llmctl, the operator's command line: finds the command and runs it.
 *
 * It asks llmd over control.sock, and the gateway over HTTP like any client; it links nothing of either. */
#include <stdio.h>
#include <string.h>

#include "llmctl/command.h"

static const struct {
    const char *name, *arguments, *help;
    command_fn *run;
} commands[] = {
    { "status", "[--json] [--watch S]", "processes, groups, model, load", status_command },
    { "requests", "[--json]", "sequences in the ledgers, and poisoned ones", requests_command },
    { "logs", "[PROCESS] [-n N] [--json]", "last lines of each process", logs_command },
    { "generate", "PROMPT", "continue a text, streaming", generate_command },
    { "chat", "[MESSAGE]", "one message, or a conversation", chat_command },
    { "wait", "[--timeout S]", "until the server is ready", wait_command },
    { "config", "[--json]", "every setting and where it came from", config_command },
    { "doctor", "[--json]", "what this host should have set", doctor_command },
    { "key", "NAME [LIMIT...]", "make an API key and its line for api_keys_file", key_command },
    { "drain", "", "finish what runs, take nothing new, exit", drain_command },
    { "restart", "gateway | group N | llmd", "end one part and start it again", restart_command },
    { "reload", "[--model DIR]", "read the configuration again, or serve another model",
      reload_command },
    { "upgrade", "", "replace every process by the installed programs", upgrade_command },
    { "version", "", "of llmctl and of the server", version_command },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

const char *argp_program_version = "llmctl " LLMD_VERSION;
error_t argp_err_exit_status = CTL_EXIT_USAGE;

struct invocation {
    struct globals globals;
    int command; /* index, or -1 */
    int argc;    /* of the command, its name included */
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
        for (int i = 0; i < N_COMMANDS && in->command < 0; i++)
            if (strcmp(arg, commands[i].name) == 0)
                in->command = i;
        if (in->command < 0)
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
    for (int i = 0; i < N_COMMANDS; i++) {
        int at = (int)(strlen(commands[i].name) + 1 + strlen(commands[i].arguments));
        buf_printf(&out, "  %s %s%*s %s\n", commands[i].name, commands[i].arguments,
                   at < 30 ? 30 - at : 0, "", commands[i].help);
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
    struct invocation in = { .command = -1 };
    char name[64];

    argp_parse(&main_argp, argc, argv, ARGP_IN_ORDER, NULL, &in);
    snprintf(name, sizeof name, "llmctl %s", commands[in.command].name);
    in.argv[0] = name;
    return commands[in.command].run(in.argc, in.argv, in.globals);
}
