/* command.c - what all commands do alike: the global options, asking llmd, complaining. */
#include "llmctl/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static error_t parse_global(int key, char *arg, struct argp_state *state)
{
    struct globals *g = state->input;

    switch (key) {
    case 'R':
        g->runtime_dir = arg;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_option global_list[] = {
    { "runtime-dir", 'R', "DIR", 0, "Folder of llmd's control.sock (or LLMD_RUNTIME_DIR)", 0 },
    { 0 },
};
const struct argp global_argp = { .options = global_list, .parser = parse_global };
const struct argp_child global_options[] = { { &global_argp, 0, NULL, 0 }, { 0 } };

error_t command_parse_json(int key, char *arg, struct argp_state *state)
{
    struct json_options *o = state->input;

    (void)arg;
    switch (key) {
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &o->globals;
        return 0;
    case 'j':
        o->json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

void command_parse(const struct argp *argp, int argc, char **argv, void *input)
{
    error_t failed = argp_parse(argp, argc, argv, 0, NULL, input);

    if (failed) {
        fprintf(stderr, "llmctl: %s\n", strerror(failed));
        exit(CTL_EXIT_USAGE);
    }
}

void command_complain(const struct err *e)
{
    fprintf(stderr, "llmctl: %s\n", e->msg);
}

int command_ask(const struct globals *g, const Llmd__CtlRequest *request, struct control_msg *reply)
{
    struct client c;
    struct err e;

    if (!client_find(&c, g->runtime_dir, &e)) {
        command_complain(&e);
        return CTL_EXIT_USAGE;
    }
    switch (client_call(&c, request, reply, &e)) {
    case CLIENT_OK:
        return CTL_EXIT_OK;
    case CLIENT_REFUSED:
        command_complain(&e);
        return CTL_EXIT_REFUSED;
    case CLIENT_UNREACHABLE:
        command_complain(&e);
        return CTL_EXIT_UNREACHABLE;
    }
    return CTL_EXIT_UNREACHABLE;
}

int command_ask_plain(const struct globals *g, Llmd__CtlCommand command, struct control_msg *reply)
{
    Llmd__CtlRequest request = LLMD__CTL_REQUEST__INIT;

    request.command = command;
    return command_ask(g, &request, reply);
}

uint64_t command_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
                        uint64_t max)
{
    unsigned long long v;
    char *end;

    errno = 0;
    v = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || v < min || v > max)
        argp_error(state, "%s: '%s' is not a number from %llu to %llu", what, text,
                   (unsigned long long)min, (unsigned long long)max);
    return v;
}
