/* orders.c - commands that tell llmd to do something: drain, restart, reload, upgrade; and version. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "llmctl/command.h"

struct order {
    struct globals globals;
    Llmd__CtlRequest request;
    char model[PATH_MAX]; /* of reload; "" = the same */
};

static struct order order_new(struct globals g, Llmd__CtlCommand command)
{
    struct order o = { .globals = g, .request = LLMD__CTL_REQUEST__INIT };

    o.request.command = command;
    return o;
}

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
    int code = command_ask(&o->globals, &o->request, &reply);

    if (code != CTL_EXIT_OK)
        return code;
    control_msg_fini(&reply);
    puts(done);
    return CTL_EXIT_OK;
}

const struct argp drain_argp = {
    .parser = parse_plain,
    .doc = "Take no new requests, finish those that run (at most drain_timeout_s), then exit.",
    .children = global_options,
};

int drain_command(int argc, char **argv, struct globals g)
{
    struct order o = order_new(g, LLMD__CTL_COMMAND__CTL_DRAIN);

    command_parse(&drain_argp, argc, argv, &o);
    return give(&o, "draining: no new requests; llmd exits when the running ones are done");
}

const struct argp upgrade_argp = {
    .parser = parse_plain,
    .doc = "Replace every process by the programs that are installed now, one after the other: "
           "streams pause and go on. When the new programs lay out shared memory in another way, "
           "running requests are finished first and the service starts anew.",
    .children = global_options,
};

int upgrade_command(int argc, char **argv, struct globals g)
{
    struct order o = order_new(g, LLMD__CTL_COMMAND__CTL_UPGRADE);

    command_parse(&upgrade_argp, argc, argv, &o);
    return give(&o, "upgrading, one process after the other; `llmctl status` shows how far it is");
}

/* llmd has another working directory. */
static void set_model(struct order *o, const char *dir, struct argp_state *state)
{
    char here[PATH_MAX];

    if (!dir[0] || (dir[0] != '/' && !getcwd(here, sizeof here)) ||
        snprintf(o->model, sizeof o->model, "%s%s%s", dir[0] == '/' ? "" : here,
                 dir[0] == '/' ? "" : "/", dir) >= (int)sizeof o->model)
        argp_error(state, "--model: '%s' is no folder", dir);
    o->request.model = o->model;
}

static error_t parse_reload(int key, char *arg, struct argp_state *state)
{
    if (key != 'm')
        return parse_plain(key, arg, state);
    set_model(state->input, arg, state);
    return 0;
}

static const struct argp_option reload_option_list[] = {
    { "model", 'm', "DIR", 0,
      "Serve the model in this folder from now on: it is loaded beside the old one, new "
      "requests "
      "go to it, and those that run finish on the old one",
      0 },
    { 0 },
};
const struct argp reload_argp = {
    .options = reload_option_list,
    .parser = parse_reload,
    .doc = "Read the configuration again, as SIGHUP does. Settings that need a restart keep "
           "their old value until then.",
    .children = global_options,
};

int reload_command(int argc, char **argv, struct globals g)
{
    struct order o = order_new(g, LLMD__CTL_COMMAND__CTL_RELOAD);

    command_parse(&reload_argp, argc, argv, &o);
    if (o.model[0])
        return give(
            &o, "new requests go to the new model; those that ran before finish on the old one");
    return give(&o, "configuration reloaded");
}

/* "gateway", "llmd", or "group" and its number. */
static error_t parse_restart(int key, char *arg, struct argp_state *state)
{
    Llmd__CtlRequest *r = &((struct order *)state->input)->request;

    switch (key) {
    case ARGP_KEY_ARG:
        if (state->arg_num == 0 && strcmp(arg, "gateway") == 0)
            r->command = LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY;
        else if (state->arg_num == 0 && strcmp(arg, "llmd") == 0)
            r->command = LLMD__CTL_COMMAND__CTL_RESTART_LLMD;
        else if (state->arg_num == 0 && strcmp(arg, "group") == 0)
            r->command = LLMD__CTL_COMMAND__CTL_RESTART_GROUP;
        else if (state->arg_num == 1 && r->command == LLMD__CTL_COMMAND__CTL_RESTART_GROUP)
            r->group = (uint32_t)command_number(state, "group", arg, 0, UINT32_MAX);
        else
            argp_error(state, "expected 'gateway', 'group N' or 'llmd', not '%s'", arg);
        return 0;
    case ARGP_KEY_END:
        if (state->arg_num != (r->command == LLMD__CTL_COMMAND__CTL_RESTART_GROUP ? 2u : 1u))
            argp_error(state, "expected 'gateway', 'group N' or 'llmd'");
        return 0;
    default:
        return parse_plain(key, arg, state);
    }
}

const struct argp restart_argp = {
    .parser = parse_restart,
    .args_doc = "gateway\ngroup N\nllmd",
    .doc = "End one part of the server and start it again. The new one takes over what the old "
           "one "
           "was doing: clients see a pause.",
    .children = global_options,
};

int restart_command(int argc, char **argv, struct globals g)
{
    struct order o = order_new(g, LLMD__CTL_COMMAND__CTL_STATUS);
    char done[96];

    command_parse(&restart_argp, argc, argv, &o);
    if (o.request.command == LLMD__CTL_COMMAND__CTL_RESTART_GATEWAY)
        snprintf(done, sizeof done, "restarting the gateway; connections stay open");
    else if (o.request.command == LLMD__CTL_COMMAND__CTL_RESTART_LLMD)
        snprintf(done, sizeof done, "restarting llmd; the other processes go on serving");
    else
        snprintf(done, sizeof done, "restarting group %u; its streams pause and go on",
                 o.request.group);
    return give(&o, done);
}

const struct argp version_argp = {
    .parser = parse_plain,
    .doc = "Print the version of llmctl, and of the server when one is reachable.",
    .children = global_options,
};

int version_command(int argc, char **argv, struct globals g)
{
    struct order o = { .globals = g };
    struct control_msg reply;
    struct client c;

    command_parse(&version_argp, argc, argv, &o);
    puts("llmctl " LLMD_VERSION);
    if (client_find(&c, o.globals.runtime_dir, NULL) &&
        client_ask_status(&c, &reply, NULL) == CLIENT_OK) {
        if (command_reply(&reply)->status)
            printf("llmd %s\n", command_reply(&reply)->status->version);
        control_msg_fini(&reply);
    }
    return CTL_EXIT_OK;
}
