/* command.h - what the commands of llmctl share: their signature, the global options, the exit codes. */
#ifndef LLMD_LLMCTL_COMMAND_H
#define LLMD_LLMCTL_COMMAND_H

#include <argp.h>

#include "llmctl/client.h"

enum exit_code {
    CTL_EXIT_OK = 0,
    CTL_EXIT_REFUSED = 1,     /* the server says no, or failed */
    CTL_EXIT_USAGE = 2,       /* wrong arguments */
    CTL_EXIT_UNREACHABLE = 3, /* no server answers */
    CTL_EXIT_INTERRUPTED = 130,
    WAIT_EXIT_READY = 0, /* `llmctl wait` has its own */
    WAIT_EXIT_FAILED = 1,
    WAIT_EXIT_TIMEOUT = 2,
};

/* Options that every command takes, before its name or after. */
struct globals {
    const char *runtime_dir; /* --runtime-dir, or NULL */
};

/* The argp of these options; a command lists it as its child and, at ARGP_KEY_INIT, sets
 * state->child_inputs[0] to its struct globals. */
extern const struct argp_child global_options[];
extern const struct argp global_argp; /* the same, for a command with children of its own */

/* argv[0] is "llmctl NAME".  Returns an exit code. */
typedef int command_fn(int argc, char **argv, struct globals g);

command_fn status_command, requests_command, logs_command, config_command, drain_command,
    restart_command, reload_command, upgrade_command, wait_command, generate_command, chat_command,
    version_command, doctor_command, key_command, completion_command, bench_command, top_command,
    model_command, support_bundle_command;
/* What each parses its arguments with; commands.h walks their options. */
extern const struct argp status_argp, requests_argp, logs_argp, config_argp, drain_argp,
    restart_argp, reload_argp, upgrade_argp, wait_argp, generate_argp, chat_argp, version_argp,
    doctor_argp, key_argp, completion_argp, bench_argp, top_argp, model_argp, support_bundle_argp;

/* Input of a command that has --json and no other option of its own, and its parser. */
struct json_options {
    struct globals globals;
    bool json;
};
error_t command_parse_json(int key, char *arg, struct argp_state *state);

/* Parse with `argp`, whose input begins with a struct globals. */
void command_parse(const struct argp *argp, int argc, char **argv, void *input);

/* Ask llmd; on failure say why on stderr.  The exit code; on CTL_EXIT_OK *reply is the caller's, to be
 * given back with control_msg_fini(). */
int command_ask(const struct globals *g, const Llmd__CtlRequest *request,
                struct control_msg *reply);
/* The same for a command without arguments. */
int command_ask_plain(const struct globals *g, Llmd__CtlCommand command, struct control_msg *reply);

/* "llmctl: <msg>" on stderr. */
void command_complain(const struct err *e);

/* A whole number in min..max, or argp_error(). */
uint64_t command_number(struct argp_state *state, const char *what, const char *text, uint64_t min,
                        uint64_t max);

static inline const Llmd__CtlReply *command_reply(const struct control_msg *m)
{
    return m->body;
}

#endif
