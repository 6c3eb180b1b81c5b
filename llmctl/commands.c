/* commands.c - the table. */
#include "llmctl/commands.h"

#include <string.h>

#define COMMAND(name) name##_command, &name##_argp

const struct command commands[] = {
    { "status", "[--json] [--watch S]", "processes, groups, model, load", COMMAND(status), "" },
    { "top", "[--interval S]", "the same, live on a terminal", COMMAND(top), "" },
    { "requests", "[--sort KEY] [--state S] [--json]",
      "sequences in the ledgers, and poisoned ones", COMMAND(requests), "" },
    { "logs", "[PROCESS] [-f] [-n N] [--json]", "last lines of each process", COMMAND(logs),
      "llmd gateway worker" },
    { "generate", "PROMPT", "continue a text, streaming", COMMAND(generate), "" },
    { "chat", "[MESSAGE]", "one message, or a conversation", COMMAND(chat), "" },
    { "bench", "[--rate R | -c N] [--json]", "put a server under load and measure it",
      COMMAND(bench), "" },
    { "wait", "[--timeout S]", "until the server is ready", COMMAND(wait), "" },
    { "config", "[--json]", "every setting and where it came from", COMMAND(config), "" },
    { "doctor", "[--json]", "what this host should have set", COMMAND(doctor), "" },
    { "model", "inspect|verify|quantize MODEL", "look at a model, or write it smaller",
      COMMAND(model), "inspect verify quantize" },
    { "support-bundle", "[-o FILE]", "facts for whoever helps, without secrets",
      COMMAND(support_bundle), "" },
    { "key", "NAME [LIMIT...]", "make an API key", COMMAND(key),
      "rpm= tpm= concurrency= weight= priority=" },
    { "drain", "", "finish what runs, take nothing new, exit", COMMAND(drain), "" },
    { "restart", "gateway | group N | llmd", "end one part and start it again", COMMAND(restart),
      "gateway group llmd" },
    { "reload", "[--model DIR]", "read settings again, or change the model", COMMAND(reload), "" },
    { "upgrade", "", "replace processes by the installed programs", COMMAND(upgrade), "" },
    { "completion", "bash|zsh|fish", "a completion script for that shell", COMMAND(completion),
      "bash zsh fish" },
    { "version", "", "of llmctl and of the server", COMMAND(version), "" },
    { 0 },
};

const struct command *command_find(const char *name)
{
    for (const struct command *c = commands; c->name; c++)
        if (strcmp(c->name, name) == 0)
            return c;
    return NULL;
}

void options_each(const struct argp *argp, option_fn *fn, void *arg)
{
    for (const struct argp_option *o = argp->options; o && (o->name || o->key || o->doc); o++)
        if (o->name && !(o->flags & OPTION_HIDDEN)) /* else it is a heading */
            fn(arg, o);
    for (const struct argp_child *c = argp->children; c && c->argp; c++)
        options_each(c->argp, fn, arg);
}
