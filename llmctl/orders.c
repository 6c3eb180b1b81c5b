/* orders.c - commands that tell llmd to do something: drain, restart, reload; and version. */
#include <stdio.h>
#include <string.h>

#include "llmctl/command.h"

struct order {
    struct globals globals;
    Llmd__CtlCommand command;
    uint32_t group;
};

static error_t parse_plain(int key, char *arg, struct argp_state *state)
{
    (void)arg;
    if (key == ARGP_KEY_INIT) {
        state->child_inputs[0] = &((struct order *)state->input)->globals;
        return 0;
    }
    return ARGP_ERR_UNKNOWN;
}

static int give(const struct order *o, const char *done)
{
    struct control_msg reply;
    int code = command_ask(&o->globals, o->command, o->group, &reply);

    if (code != CTL_EXIT_OK)
        return code;
    control_msg_fini(&reply);
    puts(done);
    return CTL_EXIT_OK;
}

int drain_command(int argc, char **argv, struct globals g)
{
    static const struct argp argp = {
        .parser = parse_plain,
        .doc = "Take no new requests, finish those that run (at most drain_timeout_s), then exit.",
        .children = global_options,
    };
    struct order o = { .globals = g, .command = LLMD__CTL_COMMAND__CTL_DRAIN };

    command_parse(&argp, argc, argv, &o);
    return give(&o, "draining: no new requests; llmd exits when the running ones are done");
}

int reload_command(int argc, char **argv, struct globals g)
{
    static const struct argp argp = {
        .parser = parse_plain,
        .doc = "Read the configuration again, as SIGHUP does. Settings that need a restart keep "
               "their old value until then.",
        .children = global_options,
    };
    struct order o = { .globals = g, .command = LLMD__CTL_COMMAND__CTL_RELOAD };

    command_parse(&argp, argc, argv, &o);
    return give(&o, "configuration reloaded");
}

/* "gateway", or "group" and its number. */
static error_t parse_restart(int key, char *arg, struct argp_state *state)
{
    struct order *o = state->input;

    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(arg, "gateway") == 0)
            o->command = LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY;
        else if (state->arg_num == 0 && strcmp(arg, "group") == 0)
            o->command = LLMD__CTL_COMMAND__CTL_RESTART_GROUP;
        else if (state->arg_num == 1 && o->command == LLMD__CTL_COMMAND__CTL_RESTART_GROUP)
            o->group = (uint32_t)command_number(state, "group", arg, 0, UINT32_MAX);
        else
            argp_error(state, "expected 'gateway' or 'group N', not '%s'", arg);
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num != (o->command == LLMD__CTL_COMMAND__CTL_RESTART_GROUP ? 2u : 1u))
            argp_error(state, "expected 'gateway' or 'group N'");
        return 0;
    default:
        return parse_plain(key, arg, state);
    }
}

int restart_command(int argc, char **argv, struct globals g)
{
    static const struct argp argp = {
        .parser = parse_restart,
        .args_doc = "gateway\ngroup N",
        .doc = "End one part of the server; llmd starts it again.",
        .children = global_options,
    };
    struct order o = { .globals = g };
    char done[64];

    command_parse(&argp, argc, argv, &o);
    if (o.command == LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY)
        snprintf(done, sizeof done, "restarting the gateway");
    else
        snprintf(done, sizeof done, "restarting group %u", o.group);
    return give(&o, done);
}

int version_command(int argc, char **argv, struct globals g)
{
    static const struct argp argp = {
        .parser = parse_plain,
        .doc = "Print the version of llmctl, and of the server when one is reachable.",
        .children = global_options,
    };
    struct order o = { .globals = g };
    struct control_msg reply;
    struct client c;

    command_parse(&argp, argc, argv, &o);
    puts("llmctl " LLMD_VERSION);
    if (client_find(&c, o.globals.runtime_dir, NULL) &&
        client_call(&c, LLMD__CTL_COMMAND__CTL_STATUS, 0, &reply, NULL) == CLIENT_OK) {
        if (command_reply(&reply)->status)
            printf("llmd %s\n", command_reply(&reply)->status->version);
        control_msg_fini(&reply);
    }
    return CTL_EXIT_OK;
}
