/* commands.h - the one list of commands: llmctl finds what to run in it, and --help, the completions of all
 * shells (completion.c) and the manual page (manual.c) are made from it and from the options behind .argp. */
#ifndef LLMD_LLMCTL_COMMANDS_H
#define LLMD_LLMCTL_COMMANDS_H

#include "llmctl/command.h"

struct command {
    const char *name;
    const char *arguments; /* as --help shows them */
    const char *help;
    command_fn *run;
    const struct argp *argp;
    const char *words; /* that may stand for an argument, for completions; "" */
    bool then_files;   /* behind the first of them, paths */
};

extern const struct command commands[]; /* ends with a name of NULL */

/* NULL when there is none. */
const struct command *command_find(const char *name);

/* Call fn for every option of this argp and of its children, hidden ones left out. */
typedef void option_fn(void *arg, const struct argp_option *option);
void options_each(const struct argp *argp, option_fn *fn, void *arg);

/* Append a completion script; false: there is none for this shell. */
bool completion_put(struct buf *out, const char *shell);

#endif
